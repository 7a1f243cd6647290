"""`tune`: choosing settings on rows that may be used for it. No test split can enter here.

Held-out rows that the backbone never saw, K folds of training rows that it never saw either, or the predicted marginal
on rows without labels. All settings of all methods are judged on the same rows (`poise.selection.validation`), so that
the choices are paired.
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poise.errors import MemorisedRowsError, PoiseWarning
from poise.machine.progress import Progress
from poise.priors import as_prior, divergence, matching_strength, mean_softmax
from poise.results.record import Record, Selection
from poise.selection.elimination import Rung
from poise.selection.fit_and_measure import fit_specs, make_record
from poise.selection.grids import edges
from poise.selection.rules import BASELINE, FOLDS, Judging, Rule
from poise.selection.validation import Judgement, competing, judge_grids, ranked, value_of
from poise.statistics import simultaneous_intervals
from poise.values.arrays import as_values
from poise.values.features import Features
from poise.values.overlap import warn_of_overlap
from poise.values.problem import Problem
from poise.values.spec import Spec, as_specs


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
    """The best of a grid of specs (see `poise.selection.grids`), judged on held-out rows or by K-fold cross-validation.

    `held_out` reads `problem.held_out`. `kfold` splits the training rows, stratified by class and keeping `groups` (N,)
    whole; the head of every fold starts from a stage-1 head that is fitted on the other folds, since a given one has
    seen the rows. Rows of classes that lie in one fold only are left out of the score. The metric is one of `METRICS`,
    balanced accuracy over the classes present by default; ties go to the lower NLL, then to the spec that states less.
    A best value at the end of its range is warned of (PoiseWarning) and named in the record.

    `search` says which settings are fitted in full: "full" for all; "halving" and "sketch" (or your own
    `elimination.Rung`s) for the better ones of a cheaper look at every trained setting. The record of a setting that
    was left out is that of the look, under the name of what ran.

    Raises: MemorisedRowsError for rows that trained the representation, or held-out rows of which many are training
    rows; InputError for an empty grid, a rule without its rows, or a metric or search that does not exist.
    """
    specs = as_specs(grid)
    judging = Judging(select=select, metric=metric, seed=seed, folds=folds, groups=groups)
    warn_of_overlap({"training": problem.train, "held-out": problem.held_out})
    judgement = judge_grids(competing(specs), problem, judging, search=search, progress=progress)
    for remark in judgement.remarks:
        warnings.warn(remark, PoiseWarning, stacklevel=2)
    best, selection = pick(judgement, specs, metric)
    for edge in selection.edges:
        warnings.warn(f"the best of the grid, {best}, lies at its edge: try values beyond {edge}", PoiseWarning, 2)
    return Tuned(best, records_of(judgement, specs, {best: selection}, problem, seed, data))


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
    best = ranked({spec: judgement.trials[spec] for spec in specs if spec not in judgement.early}, metric)[0]
    rows = judgement.rows
    early = [judgement.early[spec] for spec in specs if spec in judgement.early]
    selection = Selection(
        rule=judgement.rule,
        rows=len(rows),
        key=rows.key,
        metric=metric,
        configurations=len(specs),
        score=value_of(judgement.trials[best], metric),
        chosen=(str(best),),
        edges=edges(specs, best),
        early=len(early),
        rungs=tuple(dict.fromkeys(left_out.rung for left_out in early)),
    )
    return best, selection


def recommend(judgement: Judgement, nulls: Sequence[Spec], chosen: dict[Spec, Spec]) -> tuple[Spec, Spec]:
    """The null and the recommended family, from the selection rows alone.

    The null is the best of the baseline and the one-scalar families. Only what beats it there beyond doubt, in an
    interval that is simultaneous over the methods, is recommended instead; else settings would be chosen by chance.
    """

    def score(family: Spec) -> float:
        return judgement.trials[chosen[family]].measured.scores.balanced_accuracy

    def correct(family: Spec) -> Tensor:
        return judgement.trials[chosen[family]].measured.correct.double()

    null = max((BASELINE, *nulls), key=score)
    others = [family for family in chosen if family != null]
    if not others:
        return null, null
    values = torch.stack([correct(family) - correct(null) for family in others])
    intervals = simultaneous_intervals(values, judgement.rows.y.cpu(), over="images")
    better = [family for family, interval in zip(others, intervals, strict=True) if interval.low > 0]
    return null, max(better, key=score, default=null)
