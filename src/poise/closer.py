"""A head looked at more closely: norms, gradients, reliability, confusions, coverage, and what it trades.

Everything is added up over chunks of rows, so that N x C logits never exist at once.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from poise.comparison import Scorer
from poise.metrics import Tally, gradient_balance, logit_chunks, tally, total
from poise.operating import Curve, coverage_curve
from poise.types import ClassCounts, Features, Head

__all__ = ["SHIFTS", "Look", "Pulls", "Traded", "group_means", "look", "pulls", "scored"]

SHIFTS = tuple(i / 4 for i in range(-4, 9))  # strengths of logit adjustment added to a head as it is: 0 among them


class Traded(NamedTuple):
    """Recall by class (C,) of the head whose logits are shifted by -value * log prior; NaN for a class without rows."""

    value: float
    recall: Tensor


class Look(NamedTuple):
    """What one method does with some rows.

    `bins`: sums by group and confidence, "all" among them, None for a group without rows. `wrong` (K, 3) int64: true
    class, answered class and rows, the most frequent first. `curve`: of answering only above a confidence. `traded`:
    one entry per shift, empty if not asked for.
    """

    bins: dict[str, Tally | None]
    wrong: Tensor
    curve: Curve
    traded: tuple[Traded, ...]


Chunks = Iterable[tuple[Tensor, Tensor]]


def scored(scorers: Iterable[Scorer], rows: Features) -> Chunks:
    """(logits (n, C), labels (n,)) of all `rows`, chunk by chunk, each row by the head that scored it."""
    for head, own in scorers:
        yield from logit_chunks(head, rows if own is None else rows.take(own))


def look(chunks: Chunks, counts: ClassCounts, *, shifts: Sequence[float] = SHIFTS, confusions: int = 20) -> Look:
    """Look at the logits (n, C) and labels (n,) of some rows; `counts` (C,) are those of the training split."""
    classes, groups = len(counts), counts.shots()
    log_prior = counts.clamped.double().log()
    log_prior -= log_prior.mean()
    parts: dict[str, list[Tally]] = {name: [] for name in groups}
    hits = torch.zeros(len(shifts), classes, dtype=torch.float64)
    answers: list[tuple[Tensor, Tensor, Tensor]] = []
    for given, given_y in chunks:
        logits, y = given.double().cpu(), given_y.cpu()
        top, guess = logits.max(dim=-1)
        answers.append(((top.unsqueeze(1) - logits).neg().exp().sum(dim=-1).reciprocal(), guess, y))
        for name, mask in groups.items():
            own = mask[y]
            if own.any():
                parts[name].append(tally(logits[own], y[own]))
        for i, shift in enumerate(shifts):
            right = (logits - shift * log_prior).argmax(dim=-1) == y if shift else guess == y
            hits[i] += torch.bincount(y, weights=right.double(), minlength=classes)
    confidence, guess, y = (torch.cat(column) for column in zip(*answers, strict=True))
    n = torch.bincount(y, minlength=classes).double()
    bins: dict[str, Tally | None] = {"all": total(sums for own in parts.values() for sums in own)}
    bins |= {name: total(own) if own else None for name, own in parts.items()}
    return Look(
        bins=bins,
        wrong=_wrong(y, guess, classes)[:confusions],
        curve=coverage_curve(confidence, guess == y, y, counts),
        traded=tuple(Traded(shift, own / n) for shift, own in zip(shifts, hits, strict=True)),
    )


def _wrong(y: Tensor, guess: Tensor, classes: int) -> Tensor:
    """(K, 3): pairs of true and answered class that differ, and how many rows, the most frequent first."""
    pairs, n = torch.unique((y * classes + guess)[y != guess], return_counts=True)
    order = n.argsort(descending=True, stable=True)
    return torch.stack([pairs // classes, pairs % classes, n], dim=1)[order]


class Pulls(NamedTuple):
    """GALA's accumulated gradients (C,) of every class: from its own rows, and from all others."""

    pull: Tensor
    push: Tensor


def pulls(head: Head, train: Features) -> Pulls:
    """How strongly the training rows pull every class up and push it down; see `metrics.gradient_balance`."""
    pull, push = (torch.zeros(len(train.counts), dtype=torch.float64) for _ in range(2))
    for logits, y in logit_chunks(head, train):
        found = gradient_balance(logits, y)
        pull += found.positive.cpu()
        push += found.negative.cpu()
    return Pulls(pull, push)


def group_means(values: Tensor, counts: ClassCounts) -> dict[str, float | None]:
    """Means over the classes of each group, and over all as "balanced"; NaN is left out, None where nothing is left."""
    masks = {"balanced": torch.ones(len(counts), dtype=torch.bool), **counts.shots()}
    known = ~values.isnan()
    return {name: float(values[mask & known].mean()) if (mask & known).any() else None for name, mask in masks.items()}
