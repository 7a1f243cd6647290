"""Which rows make an epoch.

A `Sampler` is a pure function (y, counts, epoch, epochs, seed) -> row order (N,) int64 of that epoch, epochs counted
from 0. Every order has as many draws as there are rows: an "epoch" of class-balanced sampling sees N rows, as in the
reference code of Kang et al. (ICLR 2020). Randomness comes from (seed, epoch) alone; nothing is remembered between
calls, and no sampler is limited in the number of rows.

Only classes with at least one row are drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poise.errors import InputError
from poise.values.counts import ClassCounts, as_counts
from poise.values.randomness import Stream, hashed

__all__ = [
    "ClassAware",
    "Sampler",
    "class_balanced_iid",
    "instance",
    "probabilities",
    "progressive",
    "square_root",
    "windowed",
]

Sampler = Callable[[Tensor, ClassCounts, int, int, int], Tensor]
Strategy = Literal["instance", "class_balanced", "square_root", "progressive"]
Ints = NDArray[np.int64]


def probabilities(counts: ClassCounts | Tensor, strategy: Strategy, progress: float = 0.0) -> Tensor:
    """(C,) float64 probability that a draw is of class k; 0 for a class without rows.

    p_k is proportional to n_k^q with q = 1 (instance), 0 (class_balanced) or 1/2 (square_root); progressive mixes
    instance and class-balanced by `progress` in [0, 1] (Kang et al., ICLR 2020).

    Raises: InputError for an unknown strategy or a progress outside [0, 1].
    """
    n = as_counts(counts).n.double()
    powers = {"instance": 1.0, "class_balanced": 0.0, "square_root": 0.5}
    if strategy == "progressive":
        if not 0 <= progress <= 1:
            raise InputError(f"progress must lie in [0, 1], got {progress}")
        return (1 - progress) * probabilities(counts, "instance") + progress * probabilities(counts, "class_balanced")
    if strategy not in powers:
        raise InputError(f"strategy must be one of {', '.join(powers)}, progressive; got {strategy!r}")
    mass = torch.where(n > 0, n.pow(powers[strategy]), 0.0)
    return mass / mass.sum()


def instance(y: Tensor, counts: ClassCounts, epoch: int, epochs: int, seed: int) -> Tensor:
    """Every row once, shuffled."""
    return torch.from_numpy(_generator(seed, Stream.EPOCH, epoch).permutation(len(y)))


def class_balanced_iid(y: Tensor, counts: ClassCounts, epoch: int, epochs: int, seed: int) -> Tensor:
    """Independent draws with replacement: a class uniformly, then one of its rows uniformly."""
    return _independent(y, counts, "class_balanced", _generator(seed, Stream.EPOCH, epoch))


def square_root(y: Tensor, counts: ClassCounts, epoch: int, epochs: int, seed: int) -> Tensor:
    """Independent draws with replacement: a class in proportion to sqrt(n_k), then one of its rows uniformly."""
    return _independent(y, counts, "square_root", _generator(seed, Stream.EPOCH, epoch))


def progressive(y: Tensor, counts: ClassCounts, epoch: int, epochs: int, seed: int) -> Tensor:
    """Class probabilities that move from instance (first epoch) to class-balanced (last epoch).

    Classes are drawn independently; the rows of a class come from its shuffled cycle, so that none repeats before all
    were used. Deviation from the released code: the cycles start anew in every epoch, which keeps the order a function
    of the epoch alone.
    """
    rows = _RowsByClass(y, counts)
    rng = _generator(seed, Stream.EPOCH, epoch)
    progress = epoch / (epochs - 1) if epochs > 1 else 0.0
    chances = probabilities(torch.from_numpy(rows.sizes), "progressive", progress).numpy()
    classes = rng.choice(len(chances), size=len(y), p=chances)
    return torch.from_numpy(rows.pick(classes, _occurrence(classes), seed, epoch))


@dataclass(frozen=True)
class ClassAware:
    """Class-aware cycle: a shuffled cycle over classes, and for each class a shuffled cycle over its rows.

    Every visit of a class takes `images_per_visit` consecutive rows of its cycle (4 in the released code of Kang et
    al., ICLR 2020); a class with fewer rows repeats some within a visit. Cycles are reshuffled when they are exhausted
    and keep their position from one epoch to the next: epoch e holds draws e N to (e + 1) N of one endless sequence.

    Deviation: a visit that the end of an epoch cuts off goes on in the next one, where the released code begins a new
    visit; that concerns `images_per_visit` - 1 draws of an epoch at most.

    Raises: InputError if images_per_visit is below 1.
    """

    images_per_visit: int = 4

    def __post_init__(self) -> None:
        if self.images_per_visit < 1:
            raise InputError(f"images_per_visit must be at least 1, got {self.images_per_visit}")

    def __call__(self, y: Tensor, counts: ClassCounts, epoch: int, epochs: int, seed: int) -> Tensor:
        """The row order of one epoch."""
        rows = _RowsByClass(y, counts)
        draw = epoch * len(y) + np.arange(len(y))
        visit, within = np.divmod(draw, self.images_per_visit)
        cycle, place = np.divmod(visit, len(rows.present))
        # Random keys per cycle and class; their order is the order of the classes in that cycle.
        cycles = np.arange(cycle[0], cycle[-1] + 1)
        keys = hashed(seed, Stream.CLASS_CYCLE, cycles[:, None], rows.present[None, :])
        classes = rows.present[np.argsort(keys, axis=1, kind="stable")[cycle - cycle[0], place]]
        # A class is visited once per cycle, so its draws so far are known without a memory.
        return torch.from_numpy(rows.pick(classes, cycle * self.images_per_visit + within, seed))


def windowed(order: Tensor, rows: int, block: int, window: int, epoch: int, seed: int) -> Tensor:
    """The draws of an epoch, (M,) of so many `rows`, sorted so that those of a while lie in few places.

    Blocks of `block` neighbouring rows are dealt out at random to windows of about `window` rows; draws from one window
    follow each other, in their old order. For rows that are read from disk: memory holds one window, read in blocks. If
    all rows fit into one window, the order is what it was.
    """
    blocks, windows = -(-rows // block), -(-rows // window)
    if windows == 1:
        return order
    dealt = _generator(seed, Stream.WINDOWS, epoch).permutation(blocks) * windows // blocks
    return order[torch.from_numpy(dealt)[order // block].argsort(stable=True)]


class _RowsByClass:
    """Row numbers sorted by class: rows of class k are order[first[k] : first[k] + sizes[k]]."""

    def __init__(self, y: Tensor, counts: ClassCounts) -> None:
        labels = y.cpu().numpy()
        self.order: Ints = np.argsort(labels, kind="stable")
        self.sizes: Ints = np.bincount(labels, minlength=len(counts)).astype(np.int64)
        self.first: Ints = np.cumsum(self.sizes) - self.sizes
        self.present: Ints = np.flatnonzero(self.sizes)

    def pick(self, classes: Ints, number: Ints, seed: int, epoch: int = 0) -> Ints:
        """The row that the `number`-th draw (from 0) of each of `classes` takes from that class's shuffled cycles."""
        size = self.sizes[classes]
        cycle, place = np.divmod(number, size)
        # Draws of a class are consecutive, so it uses every cycle between its first and its last.
        first, last = np.full(len(self.sizes), np.iinfo(np.int64).max), np.full(len(self.sizes), -1)
        np.minimum.at(first, classes, cycle)
        np.maximum.at(last, classes, cycle)
        used = np.maximum(last - first + 1, 0) * (last >= 0)
        pair_class = np.repeat(np.arange(len(used)), used)
        pair_cycle = np.arange(len(pair_class)) - np.repeat(np.cumsum(used) - used - first, used)
        lengths = self.sizes[pair_class]
        start = np.cumsum(lengths) - lengths
        pair = np.repeat(np.arange(len(lengths)), lengths)
        member = np.arange(len(pair)) - start[pair]
        keys = hashed(seed, Stream.ROW_CYCLE, epoch, pair_class[pair], pair_cycle[pair], member)
        shuffled = member[np.lexsort((keys, pair))]
        which = (np.cumsum(used) - used - first)[classes] + cycle
        chosen: Ints = self.order[self.first[classes] + shuffled[start[which] + place]]
        return chosen


def _independent(y: Tensor, counts: ClassCounts, strategy: Strategy, rng: np.random.Generator) -> Tensor:
    rows = _RowsByClass(y, counts)
    chances = probabilities(torch.from_numpy(rows.sizes), strategy).numpy()
    classes = rng.choice(len(chances), size=len(y), p=chances)
    member = np.minimum((rng.random(len(y)) * rows.sizes[classes]).astype(np.int64), rows.sizes[classes] - 1)
    return torch.from_numpy(rows.order[rows.first[classes] + member])


def _occurrence(classes: Ints) -> Ints:
    """For every position, how often its class occurred before it."""
    order = np.argsort(classes, kind="stable")
    sizes = np.bincount(classes)
    before = np.empty_like(classes)
    before[order] = np.arange(len(classes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return before


def _generator(seed: int, stream: Stream, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream, index])
