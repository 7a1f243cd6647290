"""Judging settings: all fitted in one pass, and measured on the same rows. No test split can enter here.

These are held-out rows that the backbone never saw, or K folds of training rows that it never saw either. Rows that
trained the representation are refused: on memorised rows every setting looks perfect. A search may look at all settings
in a cheaper way first and go on with the better ones (`poise.selection.elimination`).
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from poise.errors import InputError, MemorisedRowsError, PoiseWarning
from poise.folds import fold_ids, scorable, set_aside, with_copies
from poise.heads.memorised_rows import MEMORISED_ACCURACY, refuse_memorised
from poise.heads.solver import with_stage1
from poise.machine.progress import Progress, part_of
from poise.methods import from_spec, traits_of
from poise.selection.elimination import Looks, Rung, as_search, different, narrowed
from poise.selection.fit_and_measure import Measured, Sums, fit_specs, measure_all, measured, remarks_of, sums_of
from poise.selection.rules import USUAL, Judging
from poise.values.arrays import classes_in
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem
from poise.values.spec import Spec


class Trial(NamedTuple):
    """One setting on the selection rows, and the head that was judged (None where every fold had its own)."""

    measured: Measured
    seconds: float
    head: Head | None = None


class Early(NamedTuple):
    """A setting that was left out after a look: what ran in its place, and how that did."""

    ran: Spec
    trial: Trial
    rung: str


class Judgement(NamedTuple):
    """All settings on the same rows: `rows` are those that counted; `remarks` the warnings of the fits.

    `trials` were fitted in full; `early` holds those that a search left out before.
    """

    rule: str
    rows: Features
    trials: dict[Spec, Trial]
    remarks: tuple[str, ...] = ()
    early: Mapping[Spec, Early] = MappingProxyType({})


def judge_grids(
    grids: Iterable[Sequence[Spec]],
    problem: Problem,
    judging: Judging = USUAL,
    *,
    search: str | Sequence[Rung] = "full",
    extra: Sequence[Spec] = (),
    progress: Progress | None = None,
) -> Judgement:
    """`judge` for the grids of several methods, each narrowed by the rungs of `search` before.

    Every grid keeps the same share, in the order of the metric; `extra` specs are always judged in full. Warnings of a
    look are dropped: they are about settings that nobody asked for.

    Raises: as `tune`.
    """
    rungs = as_search(search)
    seen: dict[Spec, Early] = {}

    def look(number: int, looks: Looks) -> list[list[Spec]]:
        tick, rung = part_of(progress, number, len(rungs) + 1), rungs[number]
        found = judge(different(looks), rung.problem(problem), judging, progress=tick).trials
        for spec, ran in (pair for each in looks for pair in each.items()):
            seen[spec] = Early(ran, found[ran]._replace(head=None), str(rung))
        return [ranked({spec: found[ran] for spec, ran in each.items()}, judging.metric) for each in looks]

    left = narrowed(grids, rungs, look)
    tried = tuple(dict.fromkeys([spec for grid in left for spec in grid] + list(extra)))
    judgement = judge(tried, problem, judging, progress=part_of(progress, len(rungs), len(rungs) + 1))
    return judgement._replace(early={spec: each for spec, each in seen.items() if spec not in judgement.trials})


def judge(
    specs: Sequence[Spec], problem: Problem, judging: Judging = USUAL, *, progress: Progress | None = None
) -> Judgement:
    """Every spec, fitted in one pass and measured on the rows of the rule. Raises: as `tune`."""
    for spec in specs:
        from_spec(spec)  # refuses a misspelt name or parameter before anything is trained
    run = _judge_held_out if judging.select == "held_out" else _judge_folds
    return run(specs, problem, judging, progress)


def fold_ids_of(problem: Problem, judging: Judging) -> Tensor:
    """(N,) folds of the training rows; groups and copies of a row share one.

    Raises: MemorisedRowsError if the rows trained the representation.
    """
    train = problem.train
    if train.seen_by_backbone:
        raise MemorisedRowsError(
            "kfold cannot select on rows that trained the representation: the other folds taught the backbone their "
            "labels too; give rows that it never saw as Problem(held_out=...) and select on held_out",
            "Problem(held_out=...)",
        )
    groups = with_copies(train.x[0], judging.groups)
    ids = fold_ids(train.y, judging.folds, groups=groups, seed=judging.seed)
    if classes_in(train.y[scorable(train.y, ids)]) < 2:
        raise InputError(
            "fewer than two classes have rows in two folds, so nothing can be compared; give held-out rows or more rows"
        )
    return ids


def _judge_held_out(specs: Sequence[Spec], problem: Problem, judging: Judging, progress: Progress | None) -> Judgement:
    rows = problem.held_out
    if rows is None:
        raise InputError(
            "selection on held_out needs Problem(held_out=Features(..., seen_by_backbone=False)): rows that the "
            "backbone never saw; for features whose training rows it never saw either, select with kfold",
            "Problem(held_out=Features(..., seen_by_backbone=False))",
        )
    if classes_in(rows.y) < 2:
        raise InputError("the held-out rows are all of one class; a comparison needs rows of at least two")
    with remarks_of() as remarks:
        problem = with_stage1(problem, judging.seed)
        assert problem.head is not None
        refuse_memorised(rows, problem.head, trained_on=problem.train, purpose="selection")
        fitted = fit_specs(problem, specs, judging.seed, progress=progress)
    found = measure_all([head for head, _ in fitted.values()], rows, problem.world)
    trials = {
        spec: Trial(result, fit.seconds, fit.head) for (spec, fit), result in zip(fitted.items(), found, strict=True)
    }
    return Judgement("held_out", rows, trials, tuple(remarks))


def _judge_folds(specs: Sequence[Spec], problem: Problem, judging: Judging, progress: Progress | None) -> Judgement:
    train, seed, first = problem.train, judging.seed, judging.first
    parts = set_aside(train.y, fold_ids_of(problem, judging))
    for spec in specs:
        if problem.held_out is None and any(traits.needs_held_out for traits in traits_of(spec)):
            said = f"{spec} reads held-out rows beside the folds; give Problem(held_out=...) or leave it out"
            raise InputError(said, "Problem(held_out=...)")
    sums: dict[Spec, list[Sums]] = {spec: [] for spec in specs}
    seconds = dict.fromkeys(specs, 0.0)
    with remarks_of() as remarks:
        for number, (inside, outside) in enumerate(parts):
            part = replace(problem, train=subset(train, inside), head=None)
            part = part if first is None else replace(part, head=from_spec(first)(part, seed))
            fitted = fit_specs(part, specs, seed, progress=part_of(progress, number, len(parts)))
            found = sums_of([head for head, _ in fitted.values()], train.take(outside), problem.world)
            for (spec, fit), part_sums in zip(fitted.items(), found, strict=True):
                sums[spec].append(part_sums)
                seconds[spec] += fit.seconds
        rows = train.take(torch.cat([outside for _, outside in parts]))
        trials = {spec: Trial(measured(parts, train.counts), seconds[spec]) for spec, parts in sums.items()}
        _warn_if_memorised(train, trials)
    return Judgement("kfold", rows, trials, tuple(remarks))


def subset(features: Features, rows: Tensor) -> Features:
    """Training rows (n,) int64 of `features` with the counts of these rows."""
    kept = features.take(rows)
    return replace(kept, counts=ClassCounts.from_labels(kept.y.cpu(), len(features.counts), kept.weight))


def _warn_if_memorised(train: Features, trials: dict[Spec, Trial]) -> None:
    if train.seen_by_backbone is not None:
        return
    best = max(trial.measured.scores.accuracy for trial in trials.values())
    if best > MEMORISED_ACCURACY:
        said = PoiseWarning(
            f"heads are right on {best:.1%} of training rows that they were not fitted on, as if the backbone had "
            "trained on them; if it did, select on rows it never saw (Problem(held_out=...)); if not, say so with "
            "seen_by_backbone=False",
            "Problem(held_out=...)",
            "seen_by_backbone=False",
        )
        warnings.warn(said, stacklevel=4)


def competing(specs: Iterable[Spec]) -> list[tuple[Spec, ...]]:
    """The settings by the names of their steps: those of the same ones compete in a search."""

    def names(spec: Spec) -> tuple[str, ...]:
        return tuple(step.name for step in spec.steps)

    return [tuple(alike) for _, alike in groupby(sorted(specs, key=names), key=names)]


def order(spec: Spec, value: float, nll: float) -> tuple[float, float, int, str]:
    """What settings are sorted by, the best first: the metric; then the NLL; then how little the spec states."""
    return (-value, nll, sum(len(step.params) for step in spec.steps), str(spec))


def ranked(trials: Mapping[Spec, Trial], metric: str) -> list[Spec]:
    """The specs in the order of the metric, the best first. Raises: as `value_of`."""
    found = {spec: (value_of(trial, metric), trial.measured.scores.nll) for spec, trial in trials.items()}
    return sorted(found, key=lambda spec: order(spec, *found[spec]))


def value_of(trial: Trial, metric: str) -> float:
    """The metric of a trial. Raises: InputError where it has no value: no row of such a class."""
    found = getattr(trial.measured.scores, metric)
    if found is None:
        raise InputError(f"the rows to select on hold no class for the metric {metric!r}; choose balanced_accuracy")
    return float(found)
