"""What logits tell of a head, as the values of a report: intervals, reliability, confusions, coverage, what it trades.

Everything is added up over chunks of rows, so that N x C logits never exist at once.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from poise.decisions.targets import Curve, coverage_curve
from poise.metrics import (
    Moments,
    Reading,
    Tally,
    gradient_balance,
    logit_chunks,
    magnitude,
    spread,
    tally,
    total,
    weight_norms,
)
from poise.results.contents import Bins, Change, Closer, Confusion, Coverage, PerClass, Point, Range
from poise.selection.comparison_result import Scorer
from poise.statistics import plain_intervals
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head

EDGES = (100, 20)
SHIFTS = tuple(i / 4 for i in range(-4, 9))  # strengths of logit adjustment added to a head as it is: 0 among them
MOST_SHIFTED = 2e9  # logits that all shifts of a method looked at may compute
POINTS = 60  # of a coverage curve

Chunks = Iterable[tuple[Tensor, Tensor]]


class Weights(NamedTuple):
    """What the weights of a head and its training rows tell, see `contents.Closer`; empty where nothing is known."""

    norms: PerClass = ()
    pull: PerClass = ()
    push: PerClass = ()


def scored(scorers: Iterable[Scorer], rows: Features) -> Chunks:
    """(logits (n, C), labels (n,)) of all `rows`, chunk by chunk, each row by the head that scored it."""
    for head, own in scorers:
        yield from logit_chunks(head, rows if own is None else rows.take(own))


def shifts_within(logits: int) -> tuple[float, ...]:
    """The shifts of a method with so many logits in all; none where they would cost too much."""
    return SHIFTS if logits * len(SHIFTS) <= MOST_SHIFTED else ()


def look(
    row: int,
    chunks: Chunks,
    counts: ClassCounts,
    *,
    weights: Weights = Weights(),  # noqa: B008 - a frozen value
    shifts: Sequence[float] = SHIFTS,
    confusions: int = 20,
) -> Closer:
    """Look at the logits (n, C) and labels (n,) of some rows, which are those of `row` in the report.

    `counts` (C,) are those of the training split; `shifts` are strengths of the trade-off, `confusions` how many of the
    most frequent are told.
    """
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
    return Closer(
        row=row,
        **weights._asdict(),
        reliability={
            "all": _bins([sums for own in parts.values() for sums in own]),
            **{name: _bins(own) for name, own in parts.items()},
        },
        confusions=_confusions(y, guess, n)[:confusions],
        coverage=_coverage(coverage_curve(confidence, guess == y, y, counts)),
        tradeoff=tuple(
            Point(value=shift, **group_means(own / n, counts))  # type: ignore[arg-type]
            for shift, own in zip(shifts, hits, strict=True)
        ),
    )


def _bins(parts: Sequence[Tally]) -> Bins | None:
    if not parts:
        return None
    sums = total(parts)
    return Bins(
        rows=tuple(int(n) for n in sums.size.tolist()),
        confidence=_finite(sums.sure / sums.size),
        right=_finite(sums.right / sums.size),
    )


def _confusions(y: Tensor, guess: Tensor, n: Tensor) -> tuple[Confusion, ...]:
    """Pairs of true and answered class that differ, the most frequent first; n (C,) are the rows of every class."""
    classes, rows = len(n), n.tolist()
    pairs, times = torch.unique((y * classes + guess)[y != guess], return_counts=True)
    order = times.argsort(descending=True, stable=True)
    return tuple(
        Confusion(true=pair // classes, answered=pair % classes, rows=often, share=often / rows[pair // classes])
        for pair, often in zip(pairs[order].tolist(), times[order].tolist(), strict=True)
    )


def _coverage(curve: Curve) -> Coverage:
    """Points of the curve that lie about equally far apart in coverage, from all rows answered to few."""
    wanted = torch.linspace(1, 1 / POINTS, POINTS, dtype=torch.float64)
    # Coverage falls along the curve; of a step, the end that answers at least as much is taken.
    at = (len(curve.coverage) - 1 - torch.searchsorted(curve.coverage.flip(0).contiguous(), wanted)).clamp_min(0)
    at = at[torch.cat([at[:1] >= 0, at[1:] > at[:-1]])]
    return Coverage(
        threshold=tuple(curve.thresholds[at].tolist()),
        coverage=tuple(curve.coverage[at].tolist()),
        accuracy=tuple(curve.accuracy[at].tolist()),
        balanced=tuple(curve.balanced_accuracy[at].tolist()),
        kept={name: None if own is None else tuple(own[at].tolist()) for name, own in curve.kept.items()},
    )


def group_means(values: Tensor, counts: ClassCounts) -> dict[str, float | None]:
    """Means over the classes of each group, and over all as "balanced"; NaN is left out, None where nothing is left."""
    masks = {"balanced": torch.ones(len(counts), dtype=torch.bool), **counts.shots()}
    known = ~values.isnan()
    return {name: float(values[mask & known].mean()) if (mask & known).any() else None for name, mask in masks.items()}


def norms(head: Head) -> PerClass:
    """The lengths of the weight rows."""
    return _finite(weight_norms(head))


def pulls(head: Head, train: Features) -> tuple[PerClass, PerClass]:
    """How strongly the training rows pull every class up and push it down; see `metrics.gradient_balance`."""
    pull, push = (torch.zeros(len(train.counts), dtype=torch.float64) for _ in range(2))
    for logits, y in logit_chunks(head, train):
        found = gradient_balance(logits, y)
        pull += found.positive.cpu()
        push += found.negative.cpu()
    return _finite(pull), _finite(push)


def readings(moments: Moments) -> tuple[dict[str, PerClass], dict[str, PerClass]]:
    """Logits Magnitude and Regularized Std, in both readings."""
    both: tuple[Reading, ...] = ("unit", "sample")
    return (
        {reading: _finite(magnitude(moments, reading)) for reading in both},
        {reading: _finite(spread(moments, reading)) for reading in both},
    )


def _finite(values: Tensor) -> PerClass:
    """Numbers per class; None where there is none."""
    return tuple(value if math.isfinite(value) else None for value in values.tolist())


# --- rows right or wrong ----------------------------------------------------------------------------------------------


def intervals(correct: Tensor, y: Tensor, counts: ClassCounts) -> list[dict[str, Range | None]]:
    """Scores of every method from the rows (M, N) that it gets right, with intervals over images, each for itself."""
    found = {"all": _ranges(correct, torch.zeros_like(y)), "balanced": _ranges(correct, y)}
    for name, mask in counts.shots(*EDGES).items():
        own = mask[y]
        found[name] = _ranges(correct[:, own], y[own]) if own.any() else [None] * len(correct)
    return [dict(zip(found, ranges, strict=True)) for ranges in zip(*found.values(), strict=True)]


def _ranges(correct: Tensor, y: Tensor) -> list[Range | None]:
    return [Range(**interval._asdict()) for interval in plain_intervals(correct, y)]


def changes(after: Tensor, before: Tensor, y: Tensor) -> tuple[Change, ...]:
    """The recall of every class with rows, from rows right (N,) after and before, as shares of the seeds."""
    there = torch.bincount(y).nonzero().flatten().tolist()
    found = []
    for k in there:
        own = y == k
        change = (after - before)[own]
        gained, lost = float(change.clamp_min(0).sum()), float(change.clamp_max(0).neg().sum())
        low, high = change_interval(gained, lost, len(change), at_once=len(there))
        recalls = {"before": float(before[own].mean()), "after": float(after[own].mean())}
        found.append(Change(label=k, **recalls, low=low, high=high))
    return tuple(found)


def change_interval(gained: float, lost: float, rows: int, *, at_once: int = 1) -> tuple[float, float]:
    """Bounds in [-1, 1] of a change in recall; `at_once` such intervals hold together at 95 % (Bonferroni).

    Of `rows` rows, `gained` are right only afterwards and `lost` only before. The bounds are the outer ones of two
    intervals for paired proportions:

    1. Bonett and Price (2012, J. Educ. Behav. Stat. 37, 479): one row is added to either kind, p = (gained + 1) /
       (rows + 2) and q likewise, and the interval is p - q -+ z sqrt((p + q - (p - q)^2) / (rows + 2)), cut at -1 and
       1. It has a width where no row changed.
    2. Exact, given the m = gained + lost rows that changed: the interval of Clopper and Pearson for the share s of
       gains among them, as m / rows (2 s - 1). It excludes 0 only where the exact test of McNemar does, so that three
       rows that all gain (p = 0.25) are no certainty. The first alone would be too sure of few rows far out in the
       tails that many classes ask for.

    Averages over seeds may give counts with a fraction.
    """
    from scipy.stats import beta  # takes a second to load

    tail = 0.025 / at_once
    z, n = NormalDist().inv_cdf(1 - tail), rows + 2
    p, q = (gained + 1) / n, (lost + 1) / n
    wide = z * math.sqrt((p + q - (p - q) ** 2) / n)
    changed = gained + lost
    shares = (
        float(beta.ppf(tail, gained, lost + 1)) if gained else 0.0,
        float(beta.isf(tail, gained + 1, lost)) if lost else 1.0,
    )
    low, high = (changed / rows * (2 * share - 1) for share in shares)
    return max(-1.0, min(p - q - wide, low)), min(1.0, max(p - q + wide, high))
