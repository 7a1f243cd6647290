"""Images on their way into the network: which ones belong to a step, and where they come from.

A `Step` says what to read and with which random numbers; a feed turns steps into batches of eight-bit images. Numbers
belong to a place in the epoch, not to a process or worker, so every way of sharing out the work gives the same images.
"""

import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from poise.augment import Augmentation
from poise.errors import PoiseError
from poise.randomness import seed_for, uniforms
from poise.samples import Items
from poise.transforms import Transform

__all__ = ["AUGMENT", "Feed", "InMemory", "Step", "Streamed"]

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


@dataclass(frozen=True, eq=False)
class Streamed(Dataset[Tensor | PoiseError]):
    """Photographs, decoded and augmented one by one, by `workers` processes ahead of the training (0: as needed).

    Raises: PoiseError if a worker is killed; InputError of the first image that cannot be read.
    """

    items: Items
    transform: Transform
    seed: int
    workers: int = 0

    def __getitem__(self, step: Step) -> Tensor | PoiseError:
        # An error is handed over as a value: a worker's own traceback would hide the sentence.
        try:
            return torch.stack([self._one(step, i) for i in range(len(step.rows))])
        except PoiseError as error:
            return error

    def _one(self, step: Step, index: int) -> Tensor:
        image = self.items.read(int(step.rows[index]))
        assert not isinstance(image, str)
        return self.transform(image, seed_for(self.seed, AUGMENT, step.epoch, int(step.places[index])))

    def batches(self, steps: Iterable[Step]) -> Iterator[Tensor]:
        """The augmented images of each step."""
        loader = DataLoader(
            self,
            sampler=steps,
            batch_size=None,
            num_workers=self.workers,
            worker_init_fn=_leave_signals,
            prefetch_factor=4 if self.workers else None,
        )
        try:
            for images in loader:
                if isinstance(images, PoiseError):
                    raise images
                yield images
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise PoiseError(
                f"a process that reads images was killed ({str(error).splitlines()[0]}), most likely because memory "
                "ran out; use fewer workers or smaller batches, and start the same command again"
            ) from error


def _leave_signals(worker: int) -> None:
    """Workers end when their owner says so, not by a Ctrl-C that reaches the whole group of processes."""
    for name in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
