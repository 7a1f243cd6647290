"""A backbone with its classifier, as stage 1 trains them together."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from poise.representation.backbones import Backbone
from poise.representation.backbones.backbone import seeded
from poise.representation.settings import Stage1
from poise.values.head import Head, Prep
from poise.values.randomness import Stream, seed_for


class CosineClassifier(nn.Module):
    """(B, D) -> (B, C): `scale` times the cosine between a row and the weights of each class; no bias."""

    def __init__(self, dim: int, classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(classes, dim), a=5**0.5))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        unit = functional.normalize(self.weight, dim=-1)
        return self.scale * functional.normalize(x, dim=-1) @ unit.T


class Network(nn.Module):
    """Images (B, 3, H, W) -> logits (B, C) float32; only what `settings.trained` names has a gradient.

    A fresh classifier is drawn as torch draws a linear layer, from the seed alone.
    """

    def __init__(self, backbone: Backbone, classes: int, settings: Stage1) -> None:
        super().__init__()
        self.backbone = backbone.module
        scale = settings.cosine_scale()
        with seeded(seed_for(settings.seed, Stream.NETWORK)):
            self.head: nn.Module = (
                nn.Linear(backbone.dim, classes) if scale is None else CosineClassifier(backbone.dim, classes, scale)
            )
        part = {"all": "all", "last_block": "last_block", "head": "none"}[settings.trained]
        self.of_backbone = [parameter for _, parameter in backbone.named_parameters(part)]
        self.requires_grad_(False)
        for parameter in self.trained:
            parameter.requires_grad_(True)
        keeps = settings.frozen_statistics and settings.trained != "all"
        last = backbone.last_block if settings.trained == "last_block" else ()
        self.frozen_norms = [
            module
            for name, module in self.backbone.named_modules()
            if keeps
            and isinstance(module, nn.modules.batchnorm._BatchNorm)
            and not f"{name}.".startswith(last)
            and not any(parameter.requires_grad for parameter in module.parameters())
        ]

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that have a gradient: those of the backbone first, then the classifier's."""
        return [*self.of_backbone, *self.head.parameters()]

    def forward(self, x: Tensor) -> Tensor:
        """Logits of normalised images."""
        rows = self.backbone(x)
        with torch.autocast(rows.device.type, enabled=False):
            return self.head(rows.float())  # type: ignore[no-any-return]

    def to_train(self) -> None:
        """Training mode; normalisation outside of what is trained keeps its statistics if the settings say so."""
        self.train()
        for norm in self.frozen_norms:
            norm.eval()

    @torch.no_grad()
    def as_head(self) -> Head:
        """The classifier as a head on the backbone's rows."""
        if isinstance(self.head, CosineClassifier):
            unit = functional.normalize(self.head.weight, dim=-1)
            return Head(self.head.scale * unit, unit.new_zeros(len(unit)), Prep(unit=True))
        assert isinstance(self.head, nn.Linear)
        return Head(self.head.weight.clone(), self.head.bias.clone())
