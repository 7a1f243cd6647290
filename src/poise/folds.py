"""Which rows are set aside together: stratified K folds that keep groups whole and never fail on a rare class."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from poise.errors import InputError
from poise.values.counts import as_labels
from poise.values.fields import whole
from poise.values.randomness import Stream
from poise.values.repeats import joined, repeats

__all__ = ["fold_ids", "group_ids", "scorable", "set_aside", "with_copies"]


def fold_ids(y: Tensor, folds: int = 5, *, groups: Tensor | Sequence[object] | None = None, seed: int = 0) -> Tensor:
    """(N,) int64 fold 0 .. folds-1 of every row; the rows of each class are spread as evenly as they go.

    Without groups the folds of a class differ by at most one row, and so do the folds as a whole. Rows of the same
    entry of `groups` (N,) (a site, a patient, copies of one row) share a fold: groups are dealt in order of size, each
    to the fold that has least of its classes. A class of one row, or of one group, is no error: it lies in one fold,
    and while that fold is set aside nothing can be said about the class (`scorable`).

    Raises: InputError if `folds` is no whole number of at least 2, the seed none of at least 0, or if there are fewer
    rows or groups than folds.
    """
    y = as_labels(y, None).cpu()
    whole(2).check("folds", folds)
    whole(0).check("the seed", seed)
    rng = np.random.default_rng([seed, Stream.FOLDS])
    units = torch.arange(len(y)) if groups is None else group_ids(groups, len(y))
    count = int(units.max()) + 1 if len(units) else 0
    if count < folds:
        what = "rows" if groups is None else "groups"
        raise InputError(f"{folds} folds need at least {folds} {what}, got {count}; ask for fewer folds")
    order = torch.from_numpy(rng.permutation(count))
    return _deal_rows(y, order, folds) if groups is None else _deal_groups(y, units, order, folds)


def _deal_rows(y: Tensor, order: Tensor, folds: int) -> Tensor:
    # Classes side by side, dealt round robin without a break: even within each class and over all.
    dealt = order[y[order].argsort(stable=True)]
    ids = torch.empty(len(y), dtype=torch.int64)
    ids[dealt] = torch.arange(len(y)) % folds
    return ids


def _deal_groups(y: Tensor, units: Tensor, order: Tensor, folds: int) -> Tensor:
    n = np.bincount(y.numpy()).clip(1)
    held = np.zeros((folds, len(n)))
    size = np.zeros(folds)
    rows = torch.bincount(units)
    by_size = order[rows[order].argsort(descending=True, stable=True)]
    starts = np.concatenate([[0], rows.cumsum(0).numpy()])
    sorted_y = y[units.argsort(stable=True)].numpy()
    fold_of = torch.empty(len(rows), dtype=torch.int64)
    for unit in by_size.tolist():
        labels, amount = np.unique(sorted_y[starts[unit] : starts[unit + 1]], return_counts=True)
        crowding = (held[:, labels] * (amount / n[labels])).sum(axis=1)
        fold = int(np.lexsort((size, np.round(crowding / amount.sum(), 12)))[0])
        fold_of[unit] = fold
        held[fold, labels] += amount
        size[fold] += amount.sum()
    return fold_of[units]


def group_ids(groups: Tensor | Sequence[object], rows: int) -> Tensor:
    """(N,) int64 number of every row's group, in sorted order of the group names.

    Raises: InputError unless there is one group per row.
    """
    names = groups.cpu().numpy() if isinstance(groups, Tensor) else np.asarray(groups)
    if names.shape != (rows,):
        raise InputError(f"groups need one entry per row, got shape {names.shape} for {rows} rows")
    _, ids = np.unique(names.astype(str) if names.dtype == object else names, return_inverse=True)
    return torch.from_numpy(ids.astype(np.int64))


def with_copies(x: Tensor, groups: Tensor | Sequence[object] | None = None) -> Tensor | Sequence[object] | None:
    """Groups (N,) in which equal rows and near copies among x (N, D) are together too, and so are given `groups` (N,).

    A row in two groups joins them. The groups as given where no row repeats, or where columns of such values repeat
    rows by right (`poise.values.repeats`).

    Raises: InputError unless there is one group per row.
    """
    found = repeats(x)
    (numbers,) = found.numbers
    if found.by_right or len(np.unique(numbers)) == len(numbers):
        return groups
    return torch.from_numpy(numbers if groups is None else joined(numbers, group_ids(groups, len(x)).numpy()))


def scorable(y: Tensor, ids: Tensor) -> Tensor:
    """(N,) bool: does the class of a row also have rows in other folds?

    Where it does not, every head is wrong on the row when its fold is set aside; such rows say nothing about a method
    and are left out of the score.
    """
    y, ids = y.cpu(), ids.cpu()
    here = torch.zeros(int(y.max()) + 1, int(ids.max()) + 1, dtype=torch.bool)
    here[y, ids] = True
    return (here.sum(dim=1) > 1)[y].to(y.device)


def set_aside(y: Tensor, ids: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of every fold: the rows to fit on, and those set aside that say something (`scorable`), as int64 numbers.

    Folds of which no row says anything are left out.
    """
    telling = scorable(y.cpu(), ids)
    folds = [(ids != fold, (ids == fold) & telling) for fold in range(int(ids.max()) + 1)]
    return [(rest.nonzero().flatten(), aside.nonzero().flatten()) for rest, aside in folds if aside.any()]
