"""What fit promises of unseen rows: a recall with an interval, and the classes that it speaks of.

Nothing here knows how the rows were set aside, how often, or how many candidates were compared: it gets rows that were
judged, with the unit that each belongs to (copies of a row, a group, the same row in another deal of folds).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from poise.errors import InputError
from poise.values.wording import some

LEVEL = 0.95
# Where what is judged is not the final head itself: in folds it is heads of fewer rows, all drawn from the same few,
# and after a choice it is what the other rows choose. The recall of the final head strays from theirs by more than the
# draw of the judged rows. This times the variance of that draw covers it (experiments/promise.py).
SPREAD = 1.75
PARTS = 5  # of the units, to choose on four and judge on the fifth


@dataclass(frozen=True, kw_only=True)
class Promise:
    """The recall to expect on unseen rows, weighted by the class prior of deployment.

    `low` and `high` bound the recall of the final head with confidence `level`. All of it holds over the classes
    `judged`; `unjudged` are those without a row to judge by.
    """

    value: float
    low: float
    high: float
    level: float
    judged: tuple[str, ...]
    unjudged: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON types."""
        return {name: list(part) if isinstance(part, tuple) else part for name, part in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Promise":
        """The promise that `to_dict` wrote. Raises: InputError if it is none."""
        try:
            numbers = {name: float(data[name]) for name in ("value", "low", "high", "level")}
            named = {name: tuple(map(str, data[name])) for name in ("judged", "unjudged")}
        except (KeyError, TypeError, ValueError):
            raise InputError("the promise of a model needs value, low, high, level, judged and unjudged") from None
        return cls(**numbers, **named)  # type: ignore[arg-type]

    @property
    def number(self) -> str:
        """Value and interval in per cent."""
        value, low, high = (f"{100 * part:.1f}" for part in (self.value, self.low, self.high))
        return f"{value} % ({100 * self.level:g} %: {low} to {high})"

    @property
    def text(self) -> str:
        """The number, and the classes that it speaks of where those are not all."""
        return f"{self.number}, {over(self.judged, self.unjudged)}" if self.unjudged else self.number


def as_provenance(promise: Promise | None) -> dict[str, Any]:
    """What the provenance of a model keeps of a promise."""
    if promise is None:
        return {"unseen_recall": None, "promise": None}
    return {"unseen_recall": promise.value, "promise": promise.to_dict()}


def over(judged: Sequence[str], unjudged: Sequence[str]) -> str:
    """How many classes have rows to judge by, and which have none."""
    left, classes = len(unjudged), len(judged) + len(unjudged)
    rest = f"the other {left} have" if left > 1 else "the other one has"
    return f"over {len(judged)} of {classes} classes; {rest} no row to judge by: {some(unjudged)}"


class Judged(NamedTuple):
    """Rows that were judged: labels y (N,), weights (N,), and the unit (N,) of each; rows of a unit are no news."""

    y: Tensor
    weight: Tensor
    units: Tensor


def promise_of(
    right: Tensor,
    rows: Judged,
    prior: Tensor,
    names: Sequence[str],
    *,
    rise: float = 0.0,
    spread: float = SPREAD,
    level: float = LEVEL,
) -> Promise | None:
    """The promise for a head that gets `right` (N,) in [0, 1] of the judged rows, under the class prior (C,).

    None where rows judge fewer than two classes, or classes of less than half the prior: a number would be about
    something else. `rise` is added to the recall: what the final head gains on those that were judged. `spread`
    multiplies the variance of the draw of these rows: `SPREAD` unless they judge the very head
    that the promise is for, and had no part in choosing it.
    """
    heard = torch.bincount(rows.y, weights=rows.weight, minlength=len(prior)) > 0
    if int(heard.sum()) < 2 or float(prior[heard].sum()) < 0.5 * float(prior.sum()):
        return None
    share = torch.where(heard, prior, 0.0) / prior[heard].sum()
    value, low, high = _interval(right, rows, share, rise, spread, level)
    told, rest = scope(rows, names)
    return Promise(value=value, low=low, high=high, level=level, judged=told, unjudged=rest)


def scope(rows: Judged, names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the classes with rows to judge by, and those of the others."""
    here = (torch.bincount(rows.y, weights=rows.weight, minlength=len(names)) > 0).tolist()
    told, rest = (tuple(n for n, one in zip(names, here, strict=True) if one is wanted) for wanted in (True, False))
    return told, rest


def apart(hits: Tensor, rows: Judged, pick: Callable[[Tensor], int]) -> Tensor:
    """(N,) hits of whichever candidate the other rows choose: what a choice delivers on rows that did not make it.

    The units are dealt into parts; `pick` gets the rows (N,) bool outside a part and returns the number of a candidate,
    whose hits (K, N) count within the part. On rows that choose, the winner of many looks better than it is.
    """
    part = parts(rows)
    found = torch.empty_like(hits[0])
    for number in torch.unique(part).tolist():
        inside = part == number
        found[inside] = hits[pick(~inside)][inside]
    return found


def parts(rows: Judged) -> Tensor:
    """(N,) part of every row: units whole, each class spread evenly."""
    units, first, inverse = np.unique(rows.units.numpy(), return_index=True, return_inverse=True)
    order = np.lexsort((units, rows.y.numpy()[first]))
    part = np.empty(len(units), dtype=np.int64)
    part[order] = np.arange(len(units)) % PARTS
    return torch.from_numpy(part[inverse])


def _interval(
    right: Tensor, rows: Judged, share: Tensor, rise: float, spread: float, level: float
) -> tuple[float, float, float]:
    """Recall weighted by `share` (C,), and its Wilson interval, which has a width and lies in [0, 1] whatever is right.

    Within a class, rows of one unit count as one row, and units of unequal weight as fewer of equal weight (Kish). The
    variance is that of shares with half a unit right and half a unit wrong added to every class, since two rows that
    agree show no variance of their own. Where units hold rows of several classes, what they have in common adds to it.
    """
    pairs, inverse = torch.unique(rows.units * len(share) + rows.y, return_inverse=True)
    label, unit = pairs % len(share), pairs // len(share)
    mass = torch.bincount(inverse, weights=rows.weight)
    hits = torch.bincount(inverse, weights=rows.weight * right)
    total = torch.bincount(label, weights=mass, minlength=len(share)).clamp_min(torch.finfo(torch.float64).tiny)
    recall = (torch.bincount(label, weights=hits, minlength=len(share)) / total).clamp(0, 1)
    squares = torch.bincount(label, weights=mass.square(), minlength=len(share))
    number = torch.where(share > 0, total.square() / squares, 1.0)
    smooth = (recall * number + 0.5) / (number + 1)
    variance = float(share.square() @ (smooth * (1 - smooth) / number))
    if (units := len(torch.unique(unit))) < len(unit):
        pull = torch.bincount(unit, weights=(share / total)[label] * (hits - mass * recall[label]))
        variance = max(variance, float(pull.square().sum()) * units / max(units - 1, 1))
    value, middle = min(max(float(share @ recall) + rise, 0.0), 1.0), float(share @ smooth)
    z = NormalDist().inv_cdf((1 + level) / 2)
    loose = z**2 * spread * variance / (middle * (1 - middle))  # z^2 over the number of rows that the mean is worth
    centre, width = (value + loose / 2) / (1 + loose), (loose * value * (1 - value) + loose**2 / 4) ** 0.5 / (1 + loose)
    # Where all rows agree the interval ends at the value, from which rounding would otherwise part it.
    return value, min(value, max(0.0, centre - width)), max(value, min(1.0, centre + width))
