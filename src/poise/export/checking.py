"""Is what was exported the model? The same rows through both, at batch sizes that were not traced."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from poise.data.samples.sample_set import Items
from poise.deployment.model import Model
from poise.errors import InputError
from poise.export.final import final
from poise.representation.augment import normalised
from poise.representation.backbones import Backbone
from poise.representation.extract import feed_of
from poise.representation.feeds import Step

TRACED, TRIED = 2, (1, 7)  # batch sizes
TOLERANCE = 1e-4  # of the scale of the logits; float32 through a hundred layers stays far below
CHUNK = {2: 8192, 4: 32}  # rows at a time, by the number of dimensions
IMAGES = 256  # that are enough to check with

Run = Callable[[Tensor], Tensor]


class Agreement(NamedTuple):
    """How an exported file compares with the model: the largest difference of a logit, on how many rows.

    `scale` is how far a logit lies from the mean of its row, at most; `given` counts the rows that were given.
    """

    runner: str
    largest: float
    scale: float
    rows: int
    given: int

    def __str__(self) -> str:
        sizes = " and ".join(map(str, TRIED))
        real = f" and on {self.given} given rows" if self.given else ""
        return (
            f"{self.runner} at batch sizes {sizes}{real}: largest difference {self.largest:.1g} at logits of "
            f"{self.scale:.2g}, predictions equal on {self.rows} rows"
        )

    def to_dict(self) -> dict[str, float | str]:
        """The same as plain JSON types."""
        return self._asdict()


@torch.no_grad()
def compared(
    runner: str, run: Run, model: Model, backbone: Backbone | None = None, rows: Tensor | None = None
) -> Agreement:
    """Compare `run`, which maps float32 inputs (n, ...) to logits (n, C), with the model on random and given rows.

    `rows` are features (N, D), or eight-bit images (N, 3, H, W) where there is a backbone. Random images have
    uniform pixels, random features are normal around the centre of the head's features. Equal predictions are asked
    for where the model's two best logits differ by more than the tolerance, a ten-thousandth of their scale.

    Raises: InputError naming the largest difference if they do not agree, or rows of another shape.
    """
    tried = [_random(model, backbone, size) for size in TRIED]
    given = [] if rows is None else torch.split(_shaped(rows, model, backbone), CHUNK[rows.ndim])
    pairs = [(run(_scaled(part)).double(), _logits(model, backbone, part)) for part in (*tried, *given)]
    found, wanted = (torch.cat(side) for side in zip(*pairs, strict=True))
    agreement = Agreement(
        runner,
        largest=float((found - wanted).abs().max()),
        scale=float((wanted - wanted.mean(dim=1, keepdim=True)).abs().max()),
        rows=len(wanted),
        given=0 if rows is None else len(rows),
    )
    allowed = TOLERANCE * agreement.scale
    answer = wanted.gather(1, found.argmax(dim=1, keepdim=True)).squeeze(1)
    other = int((wanted.max(dim=1).values - answer > allowed).sum())
    if not agreement.largest <= allowed or other:  # NaN is no agreement either
        raise InputError(
            f"{runner} does not give the model's logits: they differ by {agreement.largest:.3g} at a scale of "
            f"{agreement.scale:.3g}, and {other} of {len(wanted)} rows are predicted otherwise; the file was deleted"
        )
    return agreement


def _random(model: Model, backbone: Backbone | None, rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    if backbone is not None:
        return torch.randint(0, 256, (rows, 3, backbone.size, backbone.size), generator=generator).to(torch.uint8)
    x = torch.randn(rows, model.head.dim, generator=generator)
    prep = model.head.prep
    return x if prep is None or prep.centre is None else x + prep.centre.to(x)


def _shaped(rows: Tensor, model: Model, backbone: Backbone | None) -> Tensor:
    """The rows, known to fit."""
    wanted = (model.head.dim,) if backbone is None else (3, backbone.size, backbone.size)
    if rows.shape[1:] != wanted or (backbone is not None) != (rows.dtype == torch.uint8):
        kind = "features" if backbone is None else "eight-bit images"
        raise InputError(
            f"the rows to check with must be {kind} (N, {', '.join(map(str, wanted))}), got {rows.dtype} "
            f"{tuple(rows.shape)}"
        )
    return rows


def _scaled(rows: Tensor) -> Tensor:
    """What an exported file is fed."""
    return rows.float() / 255 if rows.dtype == torch.uint8 else rows.float()


def _logits(model: Model, backbone: Backbone | None, rows: Tensor) -> Tensor:
    """(n, C) float64: what the library computes, and the log costs where they were folded."""
    features = rows
    if backbone is not None:
        device = next(backbone.module.parameters()).device
        features = backbone.module.eval()(normalised(rows.to(device), backbone.mean, backbone.std)).float().cpu()
    logits = model.head(features).double().cpu()
    added = final(model).added
    return logits if added is None else logits + added


def pixels_of(backbone: Backbone, items: Items) -> Tensor:
    """(n, 3, H, W) uint8: up to 256 of the images, spread evenly, as the backbone is fed with them.

    Raises: InputError naming the first image that cannot be read.
    """
    places = torch.linspace(0, len(items) - 1, min(len(items), IMAGES)).long()
    chosen = items.take(places)
    every = torch.arange(len(chosen))
    feed = feed_of(backbone, chosen, augment=None)
    return torch.cat(list(feed.batches(Step(0, part, part) for part in torch.split(every, CHUNK[4]))))
