"""Models to export: hostile class names, a head of any kind, a network that takes a moment."""

import torch

from poise.decisions.operating_point import OperatingPoint
from poise.deployment.model import Model
from poise.representation.backbones import Backbone, build
from poise.values.counts import ClassCounts
from poise.values.head import Head, Prep

HOSTILE = (
    '<img src=x onerror="alert(1)">',
    "a|b `c` [d](http://e.example) ![f](g)",
    'q"u,o\nte \u202egnitsud',
    "=1+1",
    "🦉é" * 150,
)
COUNTS = (90, 50, 20, 9, 1)
COSTS = (1.0, 2.0, 3.0, 4.0, 5.0)
SIDE = 16


def model(
    dim: int = 8,
    *,
    prep: Prep | None = None,
    operating: OperatingPoint | None = None,
    dtype: torch.dtype = torch.float64,
    names: tuple[str, ...] = HOSTILE,
    **provenance: object,
) -> Model:
    """A head (5, dim) of a fixed seed for uniform classes."""
    generator = torch.Generator().manual_seed(1)
    weight, bias = (torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((5, dim), (5,)))
    return Model(
        head=Head(weight, bias, prep),
        class_names=names,
        counts=ClassCounts(torch.tensor(COUNTS)),
        prior_applied=torch.full((5,), 0.2, dtype=torch.float64),
        method="logit_adjustment(tau=1.0)",
        operating=operating,
        provenance={"seed": 1, **provenance},
    )


def network(name: str = "convnet4", size: int = SIDE) -> Backbone:
    """A network of random weights whose normalisations have seen something, so that they do something."""
    backbone = build(name, size=size, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    generator = torch.Generator().manual_seed(2)
    for key, value in backbone.module.state_dict().items():
        if key.endswith("running_mean"):
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
    return backbone


def images(rows: int, size: int = SIDE, seed: int = 3) -> torch.Tensor:
    """(rows, 3, size, size) uint8 noise."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (rows, 3, size, size), generator=generator).to(torch.uint8)


def library_logits(made: Model, backbone: Backbone, pixels: torch.Tensor) -> torch.Tensor:
    """What the library gives for eight-bit images."""
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (backbone.mean, backbone.std))
    with torch.no_grad():
        return made.head(backbone.module((pixels / 255 - mean) / std))
