"""A part of the training rows that is set aside: a stratified fifth, groups and copies of a row together."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor

from poise.folds import fold_ids, scorable, with_copies
from poise.values.counts import ClassCounts
from poise.values.features import Features

PARTS = 5


class Parted(NamedTuple):
    """What still trains, what was set aside, and the groups of the former; counts of both are those of the former."""

    train: Features
    aside: Features
    groups: Sequence[Any] | None


def rows_aside(rows: Features, groups: Tensor | Sequence[Any] | None, seed: int) -> Parted:
    """A fifth of every class aside; a class of one row, or of one group (N,), keeps it for training.

    Raises: InputError if nothing can be set aside.
    """
    ids = fold_ids(rows.y, PARTS, groups=with_copies(rows.x[0], groups), seed=seed)
    aside = (ids == 0) & scorable(rows.y, ids)
    kept = (~aside).nonzero().flatten()
    weight = None if rows.weight is None else rows.weight[kept]
    counts = ClassCounts.from_labels(rows.y[kept], len(rows.counts), weight)
    train = replace(rows.take(kept), counts=counts)
    test = replace(rows.take(aside.nonzero().flatten()), counts=counts)
    return Parted(train, test, None if groups is None else [groups[row] for row in kept.tolist()])
