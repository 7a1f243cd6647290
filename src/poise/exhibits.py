"""Parts of a report made of what was measured, as the plain values of `report.contents`."""

import math

import torch
from torch import Tensor

from poise.closer import SHIFTS, Chunks, group_means, look
from poise.metrics import Moments, Reading, Tally, magnitude, spread
from poise.operating import Curve
from poise.paths import Trace
from poise.report import contents as page
from poise.report.contents import GROUPS
from poise.statistics import plain_intervals
from poise.types import ClassCounts, Scores

__all__ = [
    "EDGES",
    "MOST_SHIFTED",
    "changes_of",
    "classes_of",
    "closer_look",
    "intervals",
    "path_of",
    "per_class",
    "point_of",
    "readings",
]

EDGES = (100, 20)
MOST_SHIFTED = 2e9  # logits that all shifts of a method looked at may compute
POINTS = 60  # of a coverage curve


def classes_of(names: tuple[str, ...], counts: ClassCounts, y: Tensor) -> page.Classes:
    """The classes, with labels y (N,) of the rows that were scored."""
    group = {k: name for name, mask in counts.shots(*EDGES).items() for k in mask.nonzero().flatten().tolist()}
    return page.Classes(
        names=names,
        counts=tuple(counts.n.tolist()),
        scored=tuple(torch.bincount(y, minlength=len(counts)).tolist()),
        groups=tuple(group[k] for k in range(len(counts))),  # type: ignore[misc]
        edges=EDGES,
    )


def intervals(correct: Tensor, y: Tensor, counts: ClassCounts) -> dict[str, list[page.Range | None]]:
    """Every score of the methods that get rows `correct` (M, N) right, with intervals over images, each for itself."""
    found = {"all": _ranges(correct, torch.zeros_like(y)), "balanced": _ranges(correct, y)}
    for name, mask in counts.shots(*EDGES).items():
        own = mask[y]
        found[name] = _ranges(correct[:, own], y[own]) if own.any() else [None] * len(correct)
    return found


def _ranges(correct: Tensor, y: Tensor) -> list[page.Range | None]:
    return [page.Range(**interval._asdict()) for interval in plain_intervals(correct, y)]


def readings(moments: Moments) -> tuple[dict[str, page.PerClass], dict[str, page.PerClass]]:
    """Logits Magnitude and Regularized Std, in both readings."""
    readings: tuple[Reading, ...] = ("unit", "sample")
    return (
        {reading: per_class(magnitude(moments, reading)) for reading in readings},
        {reading: per_class(spread(moments, reading)) for reading in readings},
    )


def closer_look(row: int, chunks: Chunks, counts: ClassCounts, cells: int) -> page.Closer:
    """The closer look at logits of `cells` numbers in all; weights are not known here."""
    seen = look(chunks, counts, shifts=SHIFTS if cells * len(SHIFTS) <= MOST_SHIFTED else ())
    sums = seen.bins["all"]
    assert sums is not None
    n = sums.rows.tolist()
    return page.Closer(
        row=row,
        norms=(),
        pull=(),
        push=(),
        reliability={name: None if sums is None else _bins(sums) for name, sums in seen.bins.items()},
        confusions=tuple(
            page.Confusion(true=true, answered=answered, rows=rows, share=rows / n[true])
            for true, answered, rows in seen.wrong.tolist()
        ),
        coverage=_coverage(seen.curve),
        tradeoff=tuple(_traded(value, recall, counts) for value, recall in seen.traded),
    )


def _traded(value: float, recall: Tensor, counts: ClassCounts) -> page.Point:
    means = group_means(recall, counts)
    assert means["balanced"] is not None
    return page.Point(value=value, **means)  # type: ignore[arg-type]


def _bins(sums: Tally) -> page.Bins:
    return page.Bins(
        rows=tuple(int(n) for n in sums.size.tolist()),
        confidence=per_class(sums.sure / sums.size),
        right=per_class(sums.right / sums.size),
    )


def _coverage(curve: Curve) -> page.Coverage:
    """Points of the curve that lie about equally far apart in coverage, from all rows answered to few."""
    wanted = torch.linspace(1, 1 / POINTS, POINTS, dtype=torch.float64)
    # Coverage falls along the curve; of a step, the end that answers at least as much is taken.
    at = (len(curve.coverage) - 1 - torch.searchsorted(curve.coverage.flip(0).contiguous(), wanted)).clamp_min(0)
    at = at[torch.cat([at[:1] >= 0, at[1:] > at[:-1]])]
    return page.Coverage(
        threshold=tuple(curve.thresholds[at].tolist()),
        coverage=tuple(curve.coverage[at].tolist()),
        accuracy=tuple(curve.accuracy[at].tolist()),
        balanced=tuple(curve.balanced_accuracy[at].tolist()),
        kept={name: None if own is None else tuple(own[at].tolist()) for name, own in curve.kept.items()},
    )


def path_of(trace: Trace, rows: str) -> page.Path:
    """A trace on rows called "selection" or "test"."""
    return page.Path(
        family=str(trace.family),
        parameter=trace.parameter,
        rows=rows,  # type: ignore[arg-type]
        selected=trace.selected,
        points=tuple(point_of(value, scores) for value, scores in zip(trace.values, trace.scores, strict=True)),
    )


def point_of(value: float, scores: Scores) -> page.Point:
    """The scores at one value."""
    groups = {name: getattr(scores, name) for name in GROUPS}
    return page.Point(value=value, balanced=scores.balanced_accuracy, **groups)


def changes_of(after: Tensor, before: Tensor, y: Tensor) -> tuple[page.Change, ...]:
    """The recall of every class with rows, from rows right (N,) after and before."""
    found = []
    for k in torch.bincount(y).nonzero().flatten().tolist():
        own = y == k
        change = (after - before)[own]
        # One row tells no error; half a row right is the largest that it can be.
        error = float(change.std() / len(change) ** 0.5) if len(change) > 1 else 0.5
        found.append(
            page.Change(label=k, before=float(before[own].mean()), after=float(after[own].mean()), error=error)
        )
    return tuple(found)


def per_class(values: Tensor) -> page.PerClass:
    """Numbers per class; None where there is none."""
    return tuple(value if math.isfinite(value) else None for value in values.tolist())
