"""Rows that two splits share: some are said, many are refused. What was learnt by heart would be measured as skill.

Every two of training, held-out and test rows are compared. Rows of two splits are the same if they are near copies
(`poise.values.repeats`), whatever their labels. Chance is taken into account: a row of the smaller split is expected in
the larger one as often as rows of its class there repeat another row of it.

Refused are splits that share two rows or more, if these are more than chance gives by a twentieth of the smaller split
and by three standard errors; and equal splits. Where columns do not repeat rows by right, chance is taken to give at
most a twentieth of the rows: rows that were copied before they were divided are no chance.
"""

import warnings
from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poise.errors import MemorisedRowsError, PoiseWarning
from poise.values.features import Features
from poise.values.repeats import Ints, repeats

SAID = r"\d+ of \d+ [a-z-]+ rows are [a-z-]+ rows too"  # how every remark begins
SHARE = 0.05  # of the rows of the smaller split
ERRORS = 3.0
PRIOR_ROWS = 5  # of all classes together, that the repeats of each class are counted with


class Part(NamedTuple):
    """A split: what each row is, as a number (N,) that equal rows of all splits share; labels (N,); weights or None."""

    numbers: Ints
    y: Ints
    weight: NDArray[np.float64] | None = None


class Shared(NamedTuple):
    """What two splits share.

    `rows` of the second are in the first too, `others` of the first in the second, where chance gives `chance` of the
    smaller one. `example` is the first such row of the second, and its first copy in the first.
    """

    rows: int
    others: int
    chance: float
    example: tuple[int, int]
    too_many: bool


def shared(one: Part, other: Part, *, by_right: bool) -> Shared | None:
    """What two splits share, None if it is nothing; `by_right`: do rows of this kind repeat each other by chance?

    >>> a, b = (Part(np.array(rows), np.zeros(len(rows), dtype=np.int64)) for rows in ([4, 5, 6], [7, 6, 5]))
    >>> shared(a, b, by_right=False)
    Shared(rows=2, others=2, chance=0.0, example=(1, 2), too_many=True)
    """
    again = np.isin(other.numbers, one.numbers)
    if not again.any():
        return None
    back = np.isin(one.numbers, other.numbers)
    first = int(again.argmax())
    example = (first, int((one.numbers == other.numbers[first]).argmax()))
    small, large, found = (other, one, again) if len(other.y) <= len(one.y) else (one, other, back)
    rows = int(found.sum())
    chance, error = _by_chance(small, large, most=1.0 if by_right else SHARE)
    equal = np.array_equal(one.numbers, other.numbers) and np.array_equal(one.y, other.y)
    too_many = rows >= 2 and (equal or rows > chance + SHARE * len(found) + ERRORS * error)
    return Shared(int(again.sum()), int(back.sum()), chance, example, too_many)


def _by_chance(small: Part, large: Part, *, most: float) -> tuple[float, float]:
    """How many rows of the smaller split chance puts in the larger one, and the standard error of that number."""
    repeated = np.bincount(large.numbers)[large.numbers] > 1
    if large.weight is not None:
        repeated |= large.weight >= 2  # a row of weight 2 is the row twice
    rate = float(repeated.mean())
    classes = 1 + int(max(small.y.max(), large.y.max()))
    of_class = np.bincount(large.y, minlength=classes)
    again = np.bincount(large.y, weights=repeated, minlength=classes)
    share = np.minimum((again + PRIOR_ROWS * rate) / (of_class + PRIOR_ROWS), most)[small.y]
    # The rate of the larger split is itself known from so many rows.
    variance = float((share * (1 - share)).sum()) * (1 + len(small.y) / len(large.y))
    return float(share.sum()), variance**0.5


# --- rows of features -------------------------------------------------------------------------------------------------


class Rows(NamedTuple):
    """Rows x (N, D), labels y (N,) and weights (N,) or None, where there are no `Features`."""

    x: Tensor
    y: Tensor
    weight: Tensor | None = None


def overlap(parts: Mapping[str, Features | Rows | None]) -> list[str]:
    """Remarks on rows that two of the parts share, by what the parts are called: "training", "held-out", "test".

    Parts stand in the order in which rows are used. Rows of weight 0 belong to no part, and parts after the training
    rows that say that the backbone saw them are left out: they are refused for that where they are used.

    Raises: MemorisedRowsError for two parts that share too many.
    """
    given = {
        name: part
        for name, part in parts.items()
        if part is not None and (name == "training" or isinstance(part, Rows) or not part.seen_by_backbone)
    }
    if len(given) < 2:
        return []
    found = repeats(*(part.x if isinstance(part, Rows) else part.x[0] for part in given.values()))
    kept = {name: _kept(part) for name, part in given.items()}
    named = {name: _part(given[name], numbers, kept[name]) for name, numbers in zip(given, found.numbers, strict=True)}
    told = []
    for (a, one), (b, other) in combinations(named.items(), 2):
        pair = shared(one, other, by_right=found.by_right)
        if pair is None or (found.by_right and not pair.too_many):
            continue
        row, copy = (int(kept[name][place]) for name, place in zip((b, a), pair.example, strict=True))
        said = f"{pair.rows} of {len(other.y)} {b} rows are {a} rows too (the first: {b} row {row}, {a} row {copy})"
        if pair.too_many:
            raise MemorisedRowsError(f"{said}{_beyond(pair, a, one, other)}")
        told.append(f"{said}; what is measured on them is no evidence")
    return told


def warn_of_overlap(parts: Mapping[str, Features | Rows | None]) -> None:
    """`overlap`, each remark as a PoiseWarning. Raises: as `overlap`."""
    for told in overlap(parts):
        warnings.warn(told, PoiseWarning, stacklevel=3)


def _kept(part: Features | Rows) -> Ints:
    """The numbers of the rows that have a weight."""
    rows = torch.arange(len(part.y)) if part.weight is None else part.weight.nonzero().flatten()
    return rows.cpu().numpy()


def _part(part: Features | Rows, numbers: Ints, kept: Ints) -> Part:
    weight = None if part.weight is None else part.weight.cpu().double().numpy()[kept]
    return Part(numbers[kept], part.y.cpu().numpy()[kept], weight)


def _beyond(pair: Shared, a: str, one: Part, other: Part) -> str:
    """What makes them too many, and the remedy."""
    small = f", which are {pair.others} of the {len(one.y)} {a} rows" if len(one.y) < len(other.y) else ""
    return (
        f"{small}, where chance gives {pair.chance:.0f}: what was learnt by heart would be measured as skill; give "
        "rows that were used for nothing else, or remove the shared ones from one of the two"
    )
