"""Rows that occur more than once: equal ones, and near copies, which differ by less than their columns can mean.

A near copy differs from its row in no column by more than a hundred-thousandth of the column's spread, as what was
rounded, stored in another type or computed anew does. Nothing here depends on the order of rows or of columns.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poise.values.arrays import READ_NUMBERS, row_blocks, row_slices

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

TOLERANCE = 1e-5  # of the spread of a column
CHAIN = 10  # tolerances: neighbours that reach further in one row are a crowded column, not copies of a row
NEIGHBOURS = 64  # that a row is compared with on a line; copies lie side by side on it
SAMPLE = 4096  # rows that the spread of a column, and how often it repeats, are taken from
INDEPENDENT = 1 / 30  # of the repeats of columns that go together, those that independent ones make by chance
FEW = 20  # a column of few values takes each, in the mean, more often than this


class Repeats(NamedTuple):
    """Rows by what they repeat.

    `numbers`: one array (N_i,) per view; rows of the same number are copies of each other, in whatever view.
    `by_right`: do columns of these values repeat whole rows by chance?
    """

    numbers: tuple[Ints, ...]
    by_right: bool


def repeats(*views: Tensor) -> Repeats:
    """Which rows of views (N_i, D) of any floating-point types repeat each other.

    Values are rounded to the narrowest type among the views first. Equal rows are found by a digest of 128 bits. Near
    copies are neighbours when all rows are projected on one line: each row is compared there, in all columns, with the
    next 64 that can be near. Copies of copies are copies, unless they are more than 10 tolerances apart.

    Two kinds of tables repeat rows by right. Columns that were independent of each other, with these values, would make
    at least a thirtieth of the repeats; real columns go together. Or every column takes each of its values more than 20
    times in the mean, and most pairs of rows that agree in one half of the columns differ in the other, which copies do
    not.
    """
    rows = _Rows(views)
    digests = rows.digests()
    _, first, exact = np.unique(digests, return_index=True, return_inverse=True)
    limits, centre = _limits(rows.take(first[_spaced(len(first))]))
    alike = _components(rows, first, limits, centre)[exact]
    by_right = len(np.unique(alike)) < len(rows) and _by_right(
        rows.take(exact.argsort(kind="stable")[_spaced(len(rows))]), limits, alike
    )
    return Repeats(tuple(np.split(alike, rows.starts[1:-1])), by_right)


def _spaced(count: int) -> Ints:
    """At most SAMPLE places, evenly spaced."""
    return np.linspace(0, count - 1, min(count, SAMPLE)).astype(np.int64)


class _Rows:
    """The rows of several views one after the other, read in blocks or by number, in the narrowest of their types."""

    def __init__(self, views: Sequence[Tensor]) -> None:
        self.views = views
        self.kind = max((view.dtype for view in views), key=lambda dtype: torch.finfo(dtype).eps)
        self.starts = np.cumsum([0, *(len(view) for view in views)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def dim(self) -> int:
        return self.views[0].shape[-1]

    def digests(self) -> NDArray[np.void]:
        """(N,) 16 bytes of every row."""
        parts = (
            blake2b(row, digest_size=16).digest()
            for _, block in self._blocks()
            for row in block.contiguous().view(torch.uint8).numpy()
        )
        return np.frombuffer(b"".join(parts), dtype="V16")

    def projected(self, lines: Floats, centre: Floats) -> Floats:
        """(N, K) places of all rows on lines (D, K) through `centre` (D,)."""
        return np.concatenate([(block.double().numpy() - centre) @ lines for _, block in self._blocks()])

    def take(self, numbers: Ints) -> Floats:
        """(n, D) rows by number."""
        found = np.empty((len(numbers), self.dim))
        for view, start, stop in zip(self.views, self.starts, self.starts[1:], strict=False):
            here = np.flatnonzero((numbers >= start) & (numbers < stop))
            if len(here):
                picked = view[torch.from_numpy(numbers[here] - start)]
                found[here] = picked.to(self.kind).double().cpu().numpy()
        return found

    def _blocks(self) -> Iterator[tuple[int, Tensor]]:
        for view in self.views:
            for start, block in row_blocks(view):
                yield start, block.to(self.kind).cpu() + 0.0  # -0.0 becomes 0.0


def _limits(sample: Floats) -> tuple[Floats, Floats]:
    """(D,) how far copies may differ, and (D,) the middle, of every column.

    The spread is that of the middle eight tenths, which no outlier changes, as multiples of a standard deviation; where
    most values are one and the same, as in a sparse column, it is the standard deviation.
    """
    low, middle, high = np.quantile(sample, [0.1, 0.5, 0.9], axis=0)
    spread = (high - low) / 2.5631
    return TOLERANCE * np.where(spread > 0, spread, sample.std(axis=0)), middle


def _components(rows: _Rows, first: Ints, limits: Floats, centre: Floats) -> Ints:
    """(M,) numbers of different rows, given by their numbers `first` (M,); near copies have the same."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    apart = np.arange(len(first))
    telling = limits > 0
    if len(first) < 2 or not telling.any():
        return apart
    columns = np.arange(1, rows.dim + 1)
    # Two lines that no table follows: a difference of one tolerance moves a row by at most 1 per column on them.
    lines = np.stack([np.cos(columns), np.sin(columns)], axis=1) * telling[:, None]
    reach = np.abs(lines).sum(axis=0) * (1 + 1e-6)
    lines /= np.where(telling, limits, 1.0)[:, None]
    places = rows.projected(lines, centre)[first]
    pairs = [pair for pair in _near(rows, first, places, reach, limits) if len(pair[0])]
    if not pairs:
        return apart
    one, other = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    links = coo_array((np.ones(len(one)), (one, other)), shape=(len(first), len(first)))
    found: Ints = connected_components(links, directed=False)[1].astype(np.int64)
    low, high = np.full(len(first), np.inf), np.full(len(first), -np.inf)
    np.minimum.at(low, found, places[:, 0])
    np.maximum.at(high, found, places[:, 0])
    return np.where((high - low)[found] > CHAIN * reach[0], len(first) + apart, found)


def _near(rows: _Rows, first: Ints, places: Floats, reach: Floats, limits: Floats) -> Iterator[tuple[Ints, Ints]]:
    """Pairs of near copies, as positions in `first` (M,), whose rows lie at `places` (M, 2) on the lines."""
    order = np.lexsort((places[:, 1], places[:, 0]))
    at = places[order]
    left = run = np.arange(len(first))
    for step in range(1, NEIGHBOURS + 1):
        left = left[left < len(first) - step]
        left = left[at[left + step, 0] - at[left, 0] <= reach[0]]
        if not len(left):
            return
        both = left[np.abs(at[left + step, 1] - at[left, 1]) <= reach[1]]
        both = both[run[both] != run[both + step]]
        same = np.zeros(len(first), dtype=bool)
        for part in row_slices(0, len(both), READ_NUMBERS // (4 * rows.dim)):
            pair = both[part]
            far = np.abs(rows.take(first[order[pair]]) - rows.take(first[order[pair + step]])) > limits
            same[pair] = ~far.any(axis=1)
        found = np.flatnonzero(same)
        yield order[found], order[found + step]
        if step == 1:  # what one walk from neighbour to neighbour connects needs no further look
            run = np.concatenate([[0], (~same[:-1]).cumsum()])


def _by_right(sample: Floats, limits: Floats, alike: Ints) -> bool:
    """Do columns like those of `sample` (n, D) repeat rows as often by chance as the rows numbered `alike` (N,) do?"""
    columns = _different(sample, limits)
    few, chance = True, float(len(alike))  # of rows that equal a given one, if columns were independent
    n = len(sample)
    for values in np.sort(columns.T, axis=1):
        few &= (1 + int((np.diff(values) > 1).sum())) * FEW <= n
        near = np.searchsorted(values, values + 1, "right") - np.searchsorted(values, values - 1, "left")
        chance *= (near.sum() - n) / (n * max(n - 1, 1))
    share = float((np.bincount(alike)[alike] > 1).mean())
    if chance >= -np.log1p(-min(share, 1 - 1 / len(alike))) * INDEPENDENT:
        return True
    half = max((_pairs(columns[:, start::2]) for start in range(min(2, columns.shape[1]))), default=0)
    return few and 2 * _pairs(columns) <= half


def _different(sample: Floats, limits: Floats) -> Floats:
    """The columns that vary, in tolerances, those that say the same in other units once; in whatever order given."""
    telling = limits > 0
    columns = (sample[:, telling] - sample[:, telling].mean(axis=0)) / limits[telling]
    _, first = np.unique((columns / CHAIN).round().T + 0.0, axis=0, return_index=True)
    different: Floats = columns[:, first]
    return different


def _pairs(rows: Floats) -> int:
    """How many pairs of rows (n, D) are equal, each counted twice."""
    times = np.unique(rows, axis=0, return_counts=True)[1]
    return int((times * (times - 1)).sum())


def joined(one: Ints, other: Ints) -> Ints:
    """(N,) numbers of the connected components of rows, which equal numbers of either kind (N,) connect."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    places = int(one.max()) + 1
    size = places + int(other.max()) + 1
    links = coo_array((np.ones(len(one)), (one, places + other)), shape=(size, size))
    component: Ints = connected_components(links, directed=False)[1][one].astype(np.int64)
    return component
