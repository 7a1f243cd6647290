"""Images on their way into the network: which ones belong to a step, and where they come from.

A `Step` says what to read and with which random numbers; a feed turns steps into batches of eight-bit images. Numbers
belong to a place in the epoch, not to a process or worker, so every way of sharing out the work gives the same images.
"""

import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from poise.data.samples.sample_set import Items
from poise.errors import InputError, PoiseError, reason_of
from poise.representation.augment import Augmentation
from poise.representation.augment.photographs import Transform
from poise.values.randomness import Stream, seed_for, uniforms

# Readers are children of the process that trains, also where Python would put a server in between: a signal to the
# whole group would end that server, and its children with it.
START_METHOD = "fork" if sys.platform == "linux" else None


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
            drawn = uniforms(self.augmentation.draws, step.places, self.seed, Stream.AUGMENT, step.epoch)
            yield self.augmentation.apply(self.pixels[step.rows], drawn)


@dataclass(frozen=True, eq=False)
class Streamed(Dataset[Tensor | PoiseError]):
    """Photographs, decoded and augmented one by one, by `workers` processes ahead of the training (0: as needed).

    Raises: InputError of the first image that cannot be read.
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
        return self.transform(image, seed_for(self.seed, Stream.AUGMENT, step.epoch, int(step.places[index])))

    def batches(self, steps: Iterable[Step]) -> Iterator[Tensor]:
        """The augmented images of each step."""
        loader = DataLoader(
            self,
            sampler=steps,
            batch_size=None,
            num_workers=self.workers,
            worker_init_fn=_leave_signals,
            multiprocessing_context=START_METHOD if self.workers else None,
            prefetch_factor=4 if self.workers else None,
            generator=torch.Generator(),  # the loader draws a number, and not from the caller's generator
        )
        images = iter(loader)
        try:
            for batch in images:
                if isinstance(batch, PoiseError):
                    raise batch
                yield batch
        except (EOFError, ConnectionError) as error:  # of a reader that is killed while it hands over a batch
            raise RuntimeError(f"DataLoader worker ended while it was heard: {type(error).__name__}") from error
        finally:
            # Now, not when the loader is collected: until then the death of a reader is raised again and again.
            getattr(images, "_shutdown_workers", lambda: None)()


@contextmanager
def explained() -> Iterator[None]:
    """Within, what ends the work on batches is told in words: a reader that was killed, memory that is full.

    It goes around the whole loop, because the death of a reader is raised wherever the program is at that moment.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PoiseError(
            f"the memory of the device is full ({reason_of(error)}); use a smaller batch_size, or for training a "
            "larger accumulate, which keeps the batch"
        ) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise PoiseError(
            f"a process that reads images was killed ({reason_of(error)}), most likely because memory "
            "ran out; use fewer workers or smaller batches, and start the same command again"
        ) from error
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"a batch has a single image, of which batch normalisation has no statistics ({error}); set drop_last, or "
            "choose a batch_size or accumulate that leaves no single image"
        ) from error


def _leave_signals(worker: int) -> None:
    """Workers end when their owner does or says so, not by a signal that reaches the whole group of processes."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)
