"""Which rows make an epoch.

A `Sampler` is a pure function (y, counts, epoch, epochs, seed) -> row order (N,) int64 of that epoch, epochs counted
from 0. Every order has as many draws as there are rows: an "epoch" of class-balanced sampling sees N rows, as in the
reference code of Kang et al. (ICLR 2020). Randomness comes from (seed, epoch) alone; nothing is remembered between
calls, and no sampler is limited in the number of rows.

Row weights count once. A sampler that takes them, by a further parameter `weight` (N,), draws by them: a class counts
by the weight of its rows together, and within it a row is drawn in proportion to its weight, so that weight k is the
row k times. A sampler without that parameter, such as `instance`, draws rows alike, and the solver multiplies the loss
of a row by its weight (`draws_by_weight` tells them apart).

Only classes with at least one row of positive weight are drawn.
"""

import inspect
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
    "draws_by_weight",
    "instance",
    "order_of",
    "probabilities",
    "progressive",
    "square_root",
    "windowed",
]

Sampler = Callable[..., Tensor]
Strategy = Literal["instance", "class_balanced", "square_root", "progressive"]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def draws_by_weight(sampler: Sampler) -> bool:
    """Does the sampler take row weights, so that the loss must not be multiplied by them once more?"""
    return "weight" in inspect.signature(sampler).parameters


def order_of(
    sampler: Sampler, y: Tensor, counts: ClassCounts, weight: Tensor | None, epoch: int, epochs: int, seed: int
) -> Tensor:
    """(N,) the order of one epoch, given the row weights (N,), if there are any and the sampler draws by them."""
    if weight is None or not draws_by_weight(sampler):
        return sampler(y, counts, epoch, epochs, seed)
    return sampler(y, counts, epoch, epochs, seed, weight=weight)


def probabilities(counts: ClassCounts | Tensor, strategy: Strategy, progress: float = 0.0) -> Tensor:
    """(C,) float64 probability that a draw is of class k; 0 for a class without rows.

    p_k is proportional to n_k^q with q = 1 (instance), 0 (class_balanced) or 1/2 (square_root); progressive mixes
    instance and class-balanced by `progress` in [0, 1] (Kang et al., ICLR 2020). n_k are rows, or, given as a tensor of
    fractions, what the rows of a class weigh together.

    Raises: InputError for an unknown strategy or a progress outside [0, 1].
    """
    fractions = isinstance(counts, Tensor) and counts.is_floating_point()
    n = counts.double() if isinstance(counts, Tensor) and fractions else as_counts(counts).n.double()
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


def class_balanced_iid(
    y: Tensor, counts: ClassCounts, epoch: int, epochs: int, seed: int, weight: Tensor | None = None
) -> Tensor:
    """Independent draws with replacement: a class uniformly, then one of its rows uniformly, or by weight."""
    return _independent(_RowsByClass(y, counts, weight), "class_balanced", _generator(seed, Stream.EPOCH, epoch))


def square_root(
    y: Tensor, counts: ClassCounts, epoch: int, epochs: int, seed: int, weight: Tensor | None = None
) -> Tensor:
    """Independent draws with replacement: a class in proportion to sqrt(n_k), then one of its rows, by weight."""
    return _independent(_RowsByClass(y, counts, weight), "square_root", _generator(seed, Stream.EPOCH, epoch))


def progressive(
    y: Tensor, counts: ClassCounts, epoch: int, epochs: int, seed: int, weight: Tensor | None = None
) -> Tensor:
    """Class probabilities that move from instance (first epoch) to class-balanced (last epoch).

    Classes are drawn independently; the rows of a class come from its shuffled cycle, so that none repeats before all
    were used. Deviation from the released code: the cycles start anew in every epoch, which keeps the order a function
    of the epoch alone.
    """
    rows = _RowsByClass(y, counts, weight)
    rng = _generator(seed, Stream.EPOCH, epoch)
    progress = epoch / (epochs - 1) if epochs > 1 else 0.0
    chances = probabilities(torch.from_numpy(rows.mass), "progressive", progress).numpy()
    classes = rng.choice(len(chances), size=len(y), p=chances)
    return torch.from_numpy(rows.pick(classes, _occurrence(classes), seed, epoch))


@dataclass(frozen=True)
class ClassAware:
    """Class-aware cycle: a shuffled cycle over classes, and for each class a shuffled cycle over its rows.

    Every visit of a class takes `images_per_visit` consecutive rows of its cycle (4 in the released code of Kang et
    al., ICLR 2020); a class with fewer rows repeats some within a visit. Cycles are reshuffled when they are exhausted
    and keep their position from one epoch to the next: epoch e holds draws e N to (e + 1) N of one endless sequence.
    With weights, a row of m times the mean weight of its class comes m times in a cycle, rounded up or down by chance.

    Deviation: a visit that the end of an epoch cuts off goes on in the next one, where the released code begins a new
    visit; that concerns `images_per_visit` - 1 draws of an epoch at most.

    Raises: InputError if images_per_visit is below 1.
    """

    images_per_visit: int = 4

    def __post_init__(self) -> None:
        if self.images_per_visit < 1:
            raise InputError(f"images_per_visit must be at least 1, got {self.images_per_visit}")

    def __call__(
        self, y: Tensor, counts: ClassCounts, epoch: int, epochs: int, seed: int, weight: Tensor | None = None
    ) -> Tensor:
        """The row order of one epoch."""
        rows = _RowsByClass(y, counts, weight)
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
    """Row numbers sorted by class: rows of class k are order[first[k] : first[k] + sizes[k]], weight 0 left out.

    `number` counts all rows, those too; `mass` (C,) float64 is what the rows of a class weigh together. The rows of a
    class share a stretch as long as their number, by weight: `ends` are where each ends; None if each is 1 long.
    """

    def __init__(self, y: Tensor, counts: ClassCounts, weight: Tensor | None = None) -> None:
        labels, classes = y.cpu().numpy(), len(counts)
        self.number = len(labels)
        heft = None if weight is None else weight.cpu().double().numpy()
        order: Ints = np.argsort(labels, kind="stable")
        self.order: Ints = order if heft is None else order[heft[order] > 0]
        of_rows = labels[self.order]
        self.sizes: Ints = np.bincount(of_rows, minlength=classes).astype(np.int64)
        self.first: Ints = np.cumsum(self.sizes) - self.sizes
        self.present: Ints = np.flatnonzero(self.sizes)
        self.mass: Floats = self.sizes.astype(np.float64)
        self.ends: Floats | None = None
        if heft is not None:
            each = heft[self.order]
            self.mass = np.bincount(of_rows, weights=each, minlength=classes).astype(np.float64)
            self.ends = np.cumsum(each * (self.sizes / np.where(self.mass > 0, self.mass, 1))[of_rows])

    def at(self, classes: Ints, place: Floats) -> Ints:
        """The row numbers at these places, from 0 to its size, of the stretch of each of `classes`."""
        start, last = self.first[classes], self.first[classes] + self.sizes[classes] - 1
        found = start + place.astype(np.int64)
        if self.ends is not None:
            found = np.searchsorted(self.ends, start + place, side="right").astype(np.int64)
        chosen: Ints = self.order[np.clip(found, start, last)]  # a sum of weights may round across the end of a class
        return chosen

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
        places = shuffled[start[which] + place].astype(np.float64)
        if self.ends is not None:  # where in its stretch of length 1 a cycle looks, the same for all its draws
            looks = hashed(seed, Stream.CYCLE_START, epoch, classes, cycle) >> np.uint64(11)
            places += looks.astype(np.float64) * 2.0**-53
        return self.at(classes, places)


def _independent(rows: _RowsByClass, strategy: Strategy, rng: np.random.Generator) -> Tensor:
    chances = probabilities(torch.from_numpy(rows.mass), strategy).numpy()
    classes = rng.choice(len(chances), size=rows.number, p=chances)
    return torch.from_numpy(rows.at(classes, rng.random(rows.number) * rows.sizes[classes]))


def _occurrence(classes: Ints) -> Ints:
    """For every position, how often its class occurred before it."""
    order = np.argsort(classes, kind="stable")
    sizes = np.bincount(classes)
    before = np.empty_like(classes)
    before[order] = np.arange(len(classes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return before


def _generator(seed: int, stream: Stream, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream, index])
