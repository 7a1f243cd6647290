"""`tune`: choosing settings on rows that may be used for it. No test split can enter here.

Held-out rows that the backbone never saw, K folds of training rows that it never saw either, or the predicted marginal
on rows without labels. All settings of all methods are fitted in one pass per fold and judged on the same rows, so the
choices are paired. Rows that trained the representation are refused: on memorised rows every setting looks perfect.
A search may look at all settings in a cheaper way first and go on with the better ones (`poise.elimination`).
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from poise.checks import check_one_of
from poise.elimination import Rung, as_search
from poise.errors import InputError, MemorisedRowsError, PoiseWarning
from poise.experiment import (
    Measured,
    Progress,
    Sums,
    fit_specs,
    make_record,
    measure_all,
    measured,
    remarks_of,
    sums_of,
)
from poise.folds import fold_ids, scorable
from poise.grids import edges
from poise.memorised import MEMORISED_ACCURACY, refuse_memorised
from poise.methods import from_spec, traits_of
from poise.priors import as_prior, divergence, matching_strength, mean_softmax
from poise.record import Record, Selection
from poise.solver import with_stage1
from poise.spec import Spec
from poise.types import ClassCounts, Features, Head, Problem, as_values, classes_in

__all__ = [
    "METRICS",
    "Early",
    "Judgement",
    "Matched",
    "Rule",
    "Trial",
    "Tuned",
    "as_specs",
    "judge",
    "judge_grids",
    "match_marginal",
    "order",
    "pick",
    "tune",
]

Rule = Literal["held_out", "kfold"]
METRICS = ("balanced_accuracy", "accuracy", "macro_f1", "many", "medium", "few")
FOLDS = 5


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


class Tuned(NamedTuple):
    """The best setting, and a record of every setting that was tried, in the order given."""

    best: Spec
    records: list[Record]


def tune(
    grid: Iterable[Spec | str],
    problem: Problem,
    *,
    select: Rule = "held_out",
    metric: str = "balanced_accuracy",
    seed: int = 0,
    folds: int = FOLDS,
    groups: Tensor | Sequence[object] | None = None,
    search: str | Sequence[Rung] = "full",
    data: str = "features",
    progress: Progress | None = None,
) -> Tuned:
    """The best of a grid of specs (see `poise.grids`), judged on held-out rows or by K-fold cross-validation.

    `held_out` reads `problem.held_out`. `kfold` splits the training rows, stratified by class and keeping `groups` (N,)
    whole; the head of every fold starts from a stage-1 head that is fitted on the other folds, since a given one has
    seen the rows. Rows of classes that lie in one fold only are left out of the score. The metric is one of `METRICS`,
    balanced accuracy over the classes present by default; ties go to the lower NLL, then to the spec that states less.
    A best value at the end of its range is warned of (PoiseWarning) and named in the record.

    `search` says which settings are fitted in full: "full" for all; "halving" and "sketch" (or your own
    `elimination.Rung`s) for the better ones of a cheaper look at every trained setting. The record of a setting that
    was left out is that of the look, under the name of what ran.

    Raises: MemorisedRowsError for rows that trained the representation; InputError for an empty grid, a rule without
    its rows, or a metric or search that does not exist.
    """
    specs = as_specs(grid)
    check_one_of("metric", metric, METRICS)
    grids = [tuple(alike) for _, alike in groupby(sorted(specs, key=_steps), key=_steps)]
    judgement = judge_grids(
        grids,
        problem,
        search=search,
        metric=metric,
        select=select,
        seed=seed,
        folds=folds,
        groups=groups,
        progress=progress,
    )
    for remark in judgement.remarks:
        warnings.warn(remark, PoiseWarning, stacklevel=2)
    best, selection = pick(judgement, specs, metric)
    for edge in selection.edges:
        warnings.warn(f"the best of the grid, {best}, lies at its edge: try values beyond {edge}", PoiseWarning, 2)
    return Tuned(best, records_of(judgement, specs, {best: selection}, problem, seed, data))


def _steps(spec: Spec) -> tuple[str, ...]:
    """The names of the steps: settings of the same ones compete in a search."""
    return tuple(step.name for step in spec.steps)


class Matched(NamedTuple):
    """The strength whose predicted marginal is closest to the prior, and the divergence of every setting, in nats."""

    best: Spec
    divergences: dict[Spec, float]


def match_marginal(
    grid: Iterable[Spec | str],
    problem: Problem,
    unlabelled: Tensor | Features,
    *,
    prior: Any = "uniform",
    seed: int = 0,
    progress: Progress | None = None,
) -> Matched:
    """Choose a strength without any label: the head whose mean softmax on `unlabelled` rows is nearest to `prior`.

    For families of one scalar (tau, t, delta, power): a stronger adjustment moves mass to rare classes, and rows of the
    deployment say how far to go if their class prior is known ("uniform", "train", or (C,) numbers that sum to 1).
    `unlabelled` is (M, D), or Features whose labels are not read. Nearest in the Jensen-Shannon divergence. The rows
    must be unseen ones: on memorised rows the marginal follows the training labels whatever the strength.

    Raises: MemorisedRowsError for rows that trained the representation; InputError for an empty grid or a prior that
    does not fit.
    """
    specs = as_specs(grid)
    target = as_prior(prior, problem.train.counts)
    rows = unlabelled.x[0] if isinstance(unlabelled, Features) else as_values("unlabelled rows", unlabelled)
    if isinstance(unlabelled, Features) and unlabelled.seen_by_backbone:
        raise MemorisedRowsError("the marginal of rows that trained the representation is known already; give others")
    fitted = fit_specs(problem, specs, seed, progress=progress)
    marginals = {spec: mean_softmax(head(rows)) for spec, (head, _) in fitted.items()}
    best = matching_strength(marginals.__getitem__, specs, target)
    return Matched(best, {spec: float(divergence(marginal, target)) for spec, marginal in marginals.items()})


def as_specs(given: Iterable[Spec | str]) -> tuple[Spec, ...]:
    """Specs of specs or their texts, each once. Raises: InputError if there is none."""
    texts = (given,) if isinstance(given, Spec | str) else tuple(given)
    specs = tuple(dict.fromkeys(Spec.parse(spec) if isinstance(spec, str) else spec for spec in texts))
    if not specs:
        raise InputError("there is nothing to choose from: give at least one spec, such as 'tau_norm(tau=0.5)'")
    return specs


def records_of(
    judgement: Judgement,
    specs: Sequence[Spec],
    chosen: dict[Spec, Selection],
    problem: Problem,
    seed: int,
    data: str,
) -> list[Record]:
    """A record of role "trial" for every spec; the chosen ones say how they were chosen."""
    records = []
    for spec in specs:
        early = judgement.early.get(spec)
        trial = judgement.trials[spec] if early is None else early.trial
        left_out = () if early is None else (f"{spec} was left out of the search: not among {early.rung}",)
        record = make_record(
            spec if early is None else early.ran,
            trial.measured,
            role="trial",
            data=data,
            train=problem.train,
            rows=judgement.rows,
            seed=seed,
            seconds=trial.seconds,
            selection=chosen.get(spec),
            remarks=(*judgement.remarks, *left_out),
        )
        records.append(record)
    return records


def pick(judgement: Judgement, specs: Sequence[Spec], metric: str = "balanced_accuracy") -> tuple[Spec, Selection]:
    """The best of `specs` on the rows of the judgement, and how it was chosen.

    Raises: InputError where the metric has no value: no row of such a class.
    """
    best = _ranked({spec: judgement.trials[spec] for spec in specs if spec not in judgement.early}, metric)[0]
    rows = judgement.rows
    early = [judgement.early[spec] for spec in specs if spec in judgement.early]
    selection = Selection(
        rule=judgement.rule,
        rows=len(rows),
        key=rows.key,
        metric=metric,
        configurations=len(specs),
        score=_value(judgement.trials[best], metric),
        chosen=(str(best),),
        edges=edges(specs, best),
        early=len(early),
        rungs=tuple(dict.fromkeys(left_out.rung for left_out in early)),
    )
    return best, selection


def order(spec: Spec, value: float, nll: float) -> tuple[float, float, int, str]:
    """What settings are sorted by, the best first: the metric; then the NLL; then how little the spec states."""
    return (-value, nll, sum(len(step.params) for step in spec.steps), str(spec))


def _ranked(trials: Mapping[Spec, Trial], metric: str) -> list[Spec]:
    """The specs in the order of the metric, the best first."""
    return sorted(trials, key=lambda spec: order(spec, _value(trials[spec], metric), trials[spec].measured.scores.nll))


def _value(trial: Trial, metric: str) -> float:
    found = getattr(trial.measured.scores, metric)
    if found is None:
        raise InputError(f"the rows to select on hold no class for the metric {metric!r}; choose balanced_accuracy")
    return float(found)


def judge_grids(
    grids: Iterable[Sequence[Spec]],
    problem: Problem,
    *,
    search: str | Sequence[Rung] = "full",
    metric: str = "balanced_accuracy",
    extra: Sequence[Spec] = (),
    select: Rule = "held_out",
    seed: int = 0,
    folds: int = FOLDS,
    groups: Tensor | Sequence[object] | None = None,
    first: Spec | None = None,
    progress: Progress | None = None,
) -> Judgement:
    """`judge` for the grids of several methods, each narrowed by the rungs of `search` before.

    Every grid keeps the same share, in the order of the metric; `extra` specs are always judged in full. Warnings of a
    look are dropped: they are about settings that nobody asked for.

    Raises: as `tune`.
    """
    rungs, left = as_search(search), [tuple(grid) for grid in grids]
    run = partial(judge, select=select, seed=seed, folds=folds, groups=groups, first=first)
    early: dict[Spec, Early] = {}
    for number, rung in enumerate(rungs):
        looks = [rung.looks(grid) for grid in left]
        wanted = tuple(dict.fromkeys(ran for look in looks for ran in look.values()))
        if not wanted:
            continue
        found = run(wanted, rung.problem(problem), progress=_shifted(progress, number, len(rungs) + 1)).trials
        for i, look in enumerate(looks):
            order = _ranked({spec: found[ran] for spec, ran in look.items()}, metric)
            out = set(order[rung.kept(len(order)) :])
            early |= {spec: Early(look[spec], found[look[spec]]._replace(head=None), str(rung)) for spec in out}
            left[i] = tuple(spec for spec in left[i] if spec not in out)
    tried = tuple(dict.fromkeys([spec for grid in left for spec in grid] + list(extra)))
    judgement = run(tried, problem, progress=_shifted(progress, len(rungs), len(rungs) + 1))
    return judgement._replace(early={spec: each for spec, each in early.items() if spec not in judgement.trials})


def judge(
    specs: Sequence[Spec],
    problem: Problem,
    *,
    select: Rule = "held_out",
    seed: int = 0,
    folds: int = FOLDS,
    groups: Tensor | Sequence[object] | None = None,
    first: Spec | None = None,
    progress: Progress | None = None,
) -> Judgement:
    """Every spec, fitted in one pass and measured on the rows of the rule.

    `first` is what makes the stage-1 head of every fold, `ce` with its default plan if it is not given.
    """
    check_one_of("selection", select, ("held_out", "kfold"))
    for spec in specs:
        from_spec(spec)  # refuses a misspelt name or parameter before anything is trained
    if select == "held_out":
        return _judge_held_out(specs, problem, seed, progress)
    return _judge_folds(specs, problem, seed, fold_ids_of(problem, folds, groups, seed), first, progress)


def fold_ids_of(problem: Problem, folds: int, groups: Tensor | Sequence[object] | None, seed: int) -> Tensor:
    """(N,) folds of the training rows. Raises: MemorisedRowsError if they trained the representation."""
    train = problem.train
    if train.seen_by_backbone:
        raise MemorisedRowsError(
            "kfold cannot select on rows that trained the representation: the other folds taught the backbone their "
            "labels too; give rows that it never saw as Problem(held_out=...) and select on held_out",
            "Problem(held_out=...)",
        )
    ids = fold_ids(train.y, folds, groups=groups, seed=seed)
    if classes_in(train.y[scorable(train.y, ids)]) < 2:
        raise InputError(
            "fewer than two classes have rows in two folds, so nothing can be compared; give held-out rows or more rows"
        )
    return ids


def _judge_held_out(specs: Sequence[Spec], problem: Problem, seed: int, progress: Progress | None) -> Judgement:
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
        problem = with_stage1(problem, seed)
        assert problem.head is not None
        refuse_memorised(rows, problem.head, trained_on=problem.train, purpose="selection")
        fitted = fit_specs(problem, specs, seed, progress=progress)
    found = measure_all([head for head, _ in fitted.values()], rows, problem.world)
    trials = {
        spec: Trial(result, fit.seconds, fit.head) for (spec, fit), result in zip(fitted.items(), found, strict=True)
    }
    return Judgement("held_out", rows, trials, tuple(remarks))


def _judge_folds(
    specs: Sequence[Spec], problem: Problem, seed: int, ids: Tensor, first: Spec | None, progress: Progress | None
) -> Judgement:
    train, folds = problem.train, int(ids.max()) + 1
    for spec in specs:
        if problem.held_out is None and any(traits.needs_held_out for traits in traits_of(spec)):
            said = f"{spec} reads held-out rows beside the folds; give Problem(held_out=...) or leave it out"
            raise InputError(said, "Problem(held_out=...)")
    counted = scorable(train.y, ids)
    sums: dict[Spec, list[Sums]] = {spec: [] for spec in specs}
    seconds = dict.fromkeys(specs, 0.0)
    order = []
    with remarks_of() as remarks:
        for fold in range(folds):
            inside, outside = ids != fold, (ids == fold) & counted
            if not outside.any():
                continue
            order.append(outside.nonzero().flatten())
            part = replace(problem, train=subset(train, inside), head=None)
            part = part if first is None else replace(part, head=from_spec(first)(part, seed))
            tick = _shifted(progress, fold, folds)
            fitted = fit_specs(part, specs, seed, progress=tick)
            found = sums_of([head for head, _ in fitted.values()], train.take(order[-1]), problem.world)
            for (spec, fit), part_sums in zip(fitted.items(), found, strict=True):
                sums[spec].append(part_sums)
                seconds[spec] += fit.seconds
        rows = train.take(torch.cat(order))
        trials = {spec: Trial(measured(parts, train.counts), seconds[spec]) for spec, parts in sums.items()}
        _warn_if_memorised(train, trials)
    return Judgement("kfold", rows, trials, tuple(remarks))


def subset(features: Features, rows: Tensor) -> Features:
    """Training rows (N,) bool of `features` with the counts of these rows."""
    kept = features.take(rows.nonzero().flatten())
    return replace(kept, counts=ClassCounts(torch.bincount(kept.y, minlength=len(features.counts)).cpu()))


def _shifted(progress: Progress | None, fold: int, folds: int) -> Callable[[int, int], None] | None:
    """Progress of one fold as part of all."""
    if progress is None:
        return None
    return lambda done, of: progress(fold * of + done, folds * of)


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
