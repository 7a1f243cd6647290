"""What of a model is computed when it is deployed, as few steps as possible, and what is said beside it.

A folded head costs nothing but one linear layer: its temperature, its class prior, the centre of its features and
plain costs of misses all lie in (weight, bias). What no logits can carry is written beside them: abstention,
thresholds, sets, full matrices of costs.
"""

from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from poise.decisions.operating_point import OperatingPoint
from poise.deployment.model import Model
from poise.errors import InputError
from poise.representation.backbones import Backbone, TextBackbone
from poise.representation.extract import is_small
from poise.results.record import versions
from poise.values.head import Head

SCHEMA = 1
# What is told of a model's origin; all of it stays in the model's own folder.
TOLD = ("backbone", "data", "split", "train", "held_out", "seed", "unseen_recall")


class Final(NamedTuple):
    """The head as it is deployed.

    `head` has no `prep`, or one that divides rows by their norm. `added` (C,) float64 are the log costs in its bias;
    None without. `folded` and `steps` say in words what lies in (weight, bias), and what is done to features before.
    """

    head: Head
    added: Tensor | None
    folded: tuple[str, ...]
    steps: tuple[str, ...]


def final(model: Model) -> Final:
    """The head of a model with everything folded that can be.

    Costs of misses are folded where they are the whole operating point: then the largest logit is the answer. With a
    threshold or a set beside them the logits stay those of the posterior, which these are read from.
    """
    head, prep = model.head, model.head.prep
    folded, steps = ["temperature and prior"], []
    if prep is not None and prep.unit:
        steps = [*(["centre"] if prep.centre is not None else []), "unit"]
    elif prep is not None:
        head = head.folded()
        folded += ["centre"] if prep.centre is not None else []
    point = model.operating
    added = None if point is None or point != OperatingPoint(costs=point.costs) else point.shift
    if added is not None:
        head, folded = head.shifted(added), [*folded, "costs"]
    return Final(head, added, tuple(folded), tuple(steps))


class Network(nn.Module):
    """Pixels (B, 3, H, W) in [0, 1], or without a backbone features (B, D), to logits (B, C); float32, on the CPU.

    All tensors are copies; the names of the state begin with `backbone.` and `head.`.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, head: Head, backbone: Backbone | None = None) -> None:
        super().__init__()
        self.backbone, self.size = None, None
        if backbone is not None:
            self.backbone, self.size = deepcopy(backbone.module).float().cpu(), backbone.size
            mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (backbone.mean, backbone.std))
            self.register_buffer("scale", (1 / std).float(), persistent=False)
            self.register_buffer("shift", (-mean / std).float(), persistent=False)
        self.head = _Linear(head)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """The logits (B, C)."""
        rows = x if self.backbone is None else self.backbone(x * self.scale + self.shift)
        logits: Tensor = self.head(rows)
        return logits

    def example(self, rows: int) -> Tensor:
        """Zeros (rows, ...) of the shape that it reads."""
        shape = (self.head.weight.shape[1],) if self.size is None else (3, self.size, self.size)
        return torch.zeros(rows, *shape)


class _Linear(nn.Module):
    """(B, D) -> (B, C), after the steps that cannot be folded."""

    weight: Tensor
    bias: Tensor
    centre: Tensor | None

    def __init__(self, head: Head) -> None:
        super().__init__()
        plain = head.to(torch.float32)
        self.unit = plain.prep is not None and plain.prep.unit
        centre = None if plain.prep is None else plain.prep.centre
        for name, value in (("weight", plain.weight), ("bias", plain.bias), ("centre", centre)):
            self.register_buffer(name, None if value is None else value.detach().cpu().clone())

    def forward(self, rows: Tensor) -> Tensor:
        """The logits (B, C)."""
        rows = rows if self.centre is None else rows - self.centre
        rows = nn.functional.normalize(rows, dim=-1) if self.unit else rows
        return nn.functional.linear(rows, self.weight, self.bias)


def described(model: Model, backbone: Backbone | None = None) -> dict[str, Any]:
    """What has to be known beside the logits to decide as the model does, as plain JSON types.

    `input` is "features" of `dim` numbers, or "pixels" of an image that was cut and scaled as `pixels` says.
    `operating` is for the logits without `added`, the log costs that lie in the exported bias.
    """
    made = final(model)
    origin = model.provenance
    return {
        "schema": SCHEMA,
        "input": "features" if backbone is None else "pixels",
        "dim": model.head.dim if backbone is None else None,
        "columns": origin.get("columns"),
        "read": origin.get("read"),
        "pixels": None if backbone is None else _cut(backbone),
        "class_names": list(model.class_names),
        "counts": model.counts.n.tolist(),
        "prior_applied": None if model.prior_applied is None else model.prior_applied.tolist(),
        "method": model.method,
        "operating": None if model.operating is None else model.operating.to_dict(),
        "added": None if made.added is None else made.added.tolist(),
        "folded": list(made.folded),
        "steps": list(made.steps),
        "provenance": {**{key: origin[key] for key in TOLD if origin.get(key) is not None}, "versions": versions()},
    }


def _cut(backbone: Backbone) -> dict[str, Any]:
    """How an image becomes pixels: `decode_all.pixels` for small networks, `poise.eval_transform` for others."""
    cut: dict[str, Any] = {"height": backbone.size, "width": backbone.size, "channels": "rgb", "range": [0, 1]}
    if is_small(backbone, rows=1):
        return {**cut, "resize": "middle_square", "shorter": None, "crop": 1.0, "interpolation": "bilinear"}
    shorter = round(backbone.size / backbone.crop)
    how = {"crop": backbone.crop, "interpolation": backbone.interpolation}
    return {**cut, "resize": "shorter_side", "shorter": shorter, **how}


def image_backbone(backbone: Backbone | TextBackbone) -> Backbone:
    """The backbone, known to read images. Raises: InputError if it reads texts."""
    if isinstance(backbone, Backbone):
        return backbone
    raise InputError(
        f"the model reads texts by {backbone.name}, which no export holds; export the head alone (--head-only) and "
        "feed it the rows of `poise extract`"
    )
