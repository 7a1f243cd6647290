"""Images on their way into the network: which ones belong to a step, and where they come from.

A `Step` says what to read and with which random numbers; a feed turns steps into batches of eight-bit images. Numbers
belong to a place in the epoch, not to a process or worker, so every way of sharing out the work gives the same images.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from poise.augment import Augmentation
from poise.randomness import uniforms

__all__ = ["AUGMENT", "Feed", "InMemory", "Step"]

AUGMENT = 11  # name of the random stream of augmentations


class Step(NamedTuple):
    """One batch of one process: rows (n,) of the training set, and their places (n,) in the epoch's order."""

    epoch: int
    rows: Tensor
    places: Tensor


class Feed(Protocol):
    """Where batches come from."""

    def batches(self, steps: Iterable[Step]) -> Iterator[Tensor]:
        """(n, 3, H, W) uint8 augmented images of each step, in order."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """Small images, held as one (N, 3, H, W) uint8 tensor and augmented a batch at a time."""

    pixels: Tensor
    augmentation: Augmentation
    seed: int

    def batches(self, steps: Iterable[Step]) -> Iterator[Tensor]:
        """The augmented images of each step."""
        for step in steps:
            drawn = uniforms(self.augmentation.draws, step.places, self.seed, AUGMENT, step.epoch)
            yield self.augmentation.apply(self.pixels[step.rows], drawn)
