"""Which classes would gain most from more labelled rows, and whether that is more than a better head gives."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from poise.folds import with_copies
from poise.results.contents import Advised
from poise.results.scores import Interval
from poise.selection.oracle import checked, draws, enlarged_head, halves
from poise.statistics import paired_difference, recalls
from poise.values.features import Features
from poise.values.fields import whole
from poise.values.head import Head
from poise.values.problem import Problem
from poise.values.wording import percent, signed, some

MOST = 12
NAMED = 12
DOUBT = 1.645  # standard errors that an estimate must stand above zero: one chance in twenty


class Advice(NamedTuple):
    """What more labelled rows for some classes would give.

    `told` is what a report says: the classes that could be judged, by falling gain; `chosen`, the labels worth most,
    none if no gain stands above the noise; all of it in words. Of a class, `gain` is what more rows of every class add
    to the recall of a re-trained head, shrunk towards the mean of all classes by how much of the differences is noise;
    `error`, its standard error then; `head_gain`, what the best head adds to the stage-1 head.

    `gain`: balanced accuracy that more rows of the chosen classes add to a re-trained head, with its interval over
    images, and `own_gain` what they add to the recall of these classes themselves (the rest of it is paid by the
    others); None if none is chosen. `head_gain`: what the best head adds to stage 1 on the same rows; None if no class
    could be judged. All are fractions.
    """

    told: Advised
    gain: Interval | None
    own_gain: float | None
    head_gain: float | None


def advice(
    problem: Problem,
    labelled: Features,
    *,
    best: Head | None = None,
    rows: int = 20,
    most: int = MOST,
    seed: int = 0,
) -> Advice:
    """Which classes gain most from `rows` more labelled rows; at most `most` of them.

    `labelled` are rows that neither backbone nor any head was trained on, at least 2 `rows` of a class to judge it. One
    half gives the additional rows and the other is scored, in turn. `best` is the best head that there is, to compare
    with; by default the head of the same recipe without more rows.

    A class is chosen if its gain (see `Advice`) stands clearly above zero. What the chosen classes gain together is
    measured apart: classes are chosen on one half, and heads trained with rows of that half for these classes alone are
    scored on the other, so that luck in choosing is not counted as gain. Rows of some classes alone take recall from
    the others: on the shipped sets 20 rows each for 12 classes add 17 to 35 points to these and -0.3 to 1.2 in all.

    Raises: MemorisedRowsError for rows that trained the backbone or are the training rows; InputError if shapes do not
    fit or an argument is no whole number of at least 1.
    """
    for name, value in (("rows", rows), ("most", most)):
        whole(1).check(name, value)
    problem = checked(problem, labelled, "advice on labelling", seed)
    n = torch.bincount(labelled.y.cpu(), minlength=len(labelled.counts))
    judged = n >= 2 * rows
    if not judged.any():
        told = Advised(
            sentence=_missing(rows, int(n.max())), rows=rows, label=(), gain=(), error=(), head_gain=(), chosen=()
        )
        return Advice(told, None, None, None)
    trial = _Trial.run(problem, labelled, best, rows, most, judged, seed)
    effect, names = trial.effect(judged).sorted(), labelled.class_names or problem.train.names
    chosen = tuple(_clear(effect, most))
    sentence = _verdict(rows, [names[k] for k in chosen], trial) if chosen else _nothing(rows, effect, names)
    changed = trial.best - trial.stage1
    told = Advised(
        sentence=sentence + _unjudged(rows, judged),
        rows=rows,
        label=tuple(effect.labels.tolist()),
        gain=tuple(effect.gain.tolist()),
        error=tuple(effect.error.tolist()),
        head_gain=tuple(float(changed[trial.y == k].mean()) for k in effect.labels.tolist()),
        chosen=chosen,
    )
    if not chosen:
        return Advice(told, None, None, trial.head_gain)
    return Advice(told, trial.gain, trial.own_gain, trial.head_gain)


class _Effect(NamedTuple):
    """Shrunk gains and their standard errors (K,) of the classes `labels` (K,)."""

    labels: Tensor
    gain: Tensor
    error: Tensor

    def sorted(self) -> "_Effect":
        """The largest gain first."""
        order = self.gain.argsort(descending=True, stable=True)
        return _Effect(*(column[order] for column in self))


def shrunk(change: Tensor, y: Tensor, labels: Tensor) -> _Effect:
    """Gains of recall of some classes from the change (N,) in {-1, 0, 1} of each row being right.

    Empirical Bayes: the variance of the measured gains is that of the true ones plus noise; each gain is moved towards
    their mean by the share of noise in it. The variance of single rows is pooled over classes, because the few rows of
    one class may show none. The noise of the mean itself is part of the error.
    """
    rows = [change[y == k] for k in labels.tolist()]
    n = torch.tensor([len(own) for own in rows], dtype=torch.float64)
    gain = torch.stack([own.mean() for own in rows])
    squares = sum(float((own - own.mean()).square().sum()) for own in rows)
    noise = squares / max(float((n - 1).sum()), 1.0) / n
    if len(n) == 1:
        return _Effect(labels, gain, noise.sqrt())
    # With few classes the variance of the true gains is hardly known; it is taken to be at least as large as the
    # standard error of its estimate, so that gains are shrunk too little rather than too much.
    total = float(gain.var())
    between = max(total - float(noise.mean()), total * (2 / (len(n) - 1)) ** 0.5)
    share = between / (between + noise) if between > 0 else torch.zeros_like(noise)
    centre, of_centre = gain.mean(), (between + float(noise.mean())) / len(n)
    error = (share * noise + (1 - share).square() * of_centre).sqrt()
    return _Effect(labels, centre + share * (gain - centre), error)


def _clear(effect: _Effect, most: int) -> list[int]:
    """Labels of the largest gains, among those that stand above the noise."""
    ordered = effect.sorted()
    return [int(label) for label in ordered.labels[ordered.gain > DOUBT * ordered.error][:most]]


class _Trial(NamedTuple):
    """Which labelled rows (N,) each head gets right, and the gain of the chosen classes."""

    y: Tensor
    plain: Tensor
    more: Tensor
    stage1: Tensor
    best: Tensor
    gain: Interval
    own_gain: float | None

    @classmethod
    def run(
        cls, problem: Problem, labelled: Features, best: Head | None, rows: int, most: int, judged: Tensor, seed: int
    ) -> "_Trial":
        """Train five heads: without more rows, and per half with rows of all classes and of the chosen ones."""
        y, x = labelled.y.cpu(), labelled.x[0]
        assert problem.head is not None

        def right(head: Head) -> Tensor:
            return (head(x).argmax(dim=-1).cpu() == y).double()

        none = torch.empty(0, dtype=torch.int64)
        base = enlarged_head(problem, labelled, none, seed)
        plain = right(base)
        more, confirmed, own = (torch.zeros_like(plain) for _ in range(3))
        for rest, scored in halves(y, seed, with_copies(x)):
            added = rest[draws(y, rest, seed) < rows]
            more[scored] = right(enlarged_head(problem, labelled, added, seed))[scored]
            effect = shrunk((more - plain)[scored], y[scored], judged.nonzero().flatten())
            # The roles turn: rows of the half on which the classes were chosen are added, the other half is scored.
            wanted = torch.isin(y, torch.tensor(_clear(effect, most), dtype=torch.int64))
            added = scored[(draws(y, scored, seed) < rows) & wanted[scored]]
            own[rest] = wanted[rest].double()
            confirmed[rest] = right(enlarged_head(problem, labelled, added, seed))[rest]
        gain = paired_difference(confirmed, plain, y, seed=seed)
        change = (confirmed - plain)[own > 0]
        own_gain = float(recalls(change, y[own > 0]).mean()) if len(change) else None
        return cls(y, plain, more, right(problem.head), right(base if best is None else best), gain, own_gain)

    def effect(self, judged: Tensor) -> _Effect:
        """Gains of the judged classes, on all labelled rows."""
        return shrunk(self.more - self.plain, self.y, judged.nonzero().flatten())

    @property
    def head_gain(self) -> float:
        """Balanced accuracy that the best head adds to stage 1."""
        return paired_difference(self.best, self.stage1, self.y, rounds=100).estimate


def _missing(rows: int, most: int) -> str:
    return (
        f"Whether {rows} more labelled rows of a class would help cannot be told: that takes {2 * rows} labelled rows "
        f"of the class that neither backbone nor head was trained on, and no class has more than {most}."
    )


def _nothing(rows: int, effect: _Effect, names: Sequence[str]) -> str:
    """`effect` is sorted."""
    top, gain, error = (column[0].item() for column in effect)
    return (
        f"No class clearly gains from {rows} more labelled rows: the largest estimate is {signed(gain)} points of "
        f"recall for {names[int(top)]}, with a standard error of {percent(error)}."
    )


def _unjudged(rows: int, judged: Tensor) -> str:
    out = int((~judged).sum())
    return f" Not judged: {out} of {len(judged)} classes, with fewer than {2 * rows} labelled rows." if out else ""


def _verdict(rows: int, chosen: Sequence[str], trial: _Trial) -> str:
    listed = some(chosen, NAMED)
    which = f"class {listed}" if len(chosen) == 1 else f"each of these {len(chosen)} classes ({listed})"
    told = f"{rows} more labelled rows for {which}"
    gain, head = signed(trial.gain.estimate), signed(trial.head_gain)
    own = "" if trial.own_gain is None else f"; the recall of such classes themselves gains {signed(trial.own_gain)}"
    if trial.gain.low > trial.head_gain:
        return f"{told} gain more than any head: {gain} points of balanced accuracy against {head}{own}."
    if trial.gain.high < trial.head_gain:
        return f"The best head gains more than {told}: {head} points of balanced accuracy against {gain}{own}."
    return f"{told} gain about as much as the best head: {gain} points of balanced accuracy against {head}{own}."
