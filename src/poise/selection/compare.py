"""`run`: tune every method with the same budget, then read the test split once (`poise.compare` asks for it).

Settings and the recommendation are chosen without the test split (held-out rows, or folds of unseen training rows), or
with one half of it for the other (a last resort), or, by name and without a verdict, as the papers did.
"""

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from poise.errors import PoiseWarning
from poise.folds import fold_ids, with_copies
from poise.heads.solver import Retrain, fit_heads
from poise.machine.progress import Progress
from poise.methods import from_spec
from poise.results.record import Role, Selection
from poise.selection.class_rows import ClassRows, rows_per_class
from poise.selection.comparison_result import Comparison, Scorer, Standing, Tried
from poise.selection.fit_and_measure import Fitted, Measured, fit_specs, make_record, measure_all, measured, remarks_of
from poise.selection.rules import BASELINE, Judging
from poise.selection.schedule import Schedule
from poise.selection.test_split import check_test, shared_rows, uncovered
from poise.selection.tune import pick, recommend
from poise.selection.validation import Judgement, judge_grids
from poise.statistics import check_rounds
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem
from poise.values.spec import Spec

Oracle = Callable[[Problem, Features, int], float]


def run(
    schedule: Schedule,
    problem: Problem,
    test: Features,
    *,
    groups: Tensor | Sequence[object] | None = None,
    oracle: Oracle | None = None,
    strict: bool = False,
    data: str = "features",
    level: float = 0.95,
    rounds: int = 2000,
    progress: Progress | None = None,
) -> Comparison:
    """What a schedule of this problem finds (`poise.selection.schedule.scheduled`), as `poise.compare` describes it.

    Raises: MemorisedRowsError for selection or test rows that trained the representation, and for splits that share
    rows; InputError for a test split that does not fit, or numbers of the intervals that make no sense.
    """
    check_rounds(level, rounds)
    check_test(problem, test)
    remarks = (*schedule.remarks, *uncovered(problem.train, test))
    shared_rows(problem, test if strict else None, strict=strict)  # refuses; what is said of rows comes at the end
    paper = schedule.selection == "paper"
    protocol = _paper if paper else _cross_fit if schedule.selection == "cross_fit" else _selected
    with remarks_of() as warned:
        outcome = protocol(_Run(schedule, problem, test, groups, data, progress))
        ceiling = None if oracle is None or paper else oracle(problem, test, schedule.seeds[0])
    remarks = tuple(dict.fromkeys((*remarks, *shared_rows(problem, test), *warned)))
    _warn_all(remarks)
    known = None if outcome.chosen_on is None else ClassRows(test.names, test.counts.n.cpu(), outcome.chosen_on)
    return Comparison(
        standings=outcome.standings,
        y=test.y.cpu(),
        protocol=schedule.selection,
        recommended=outcome.recommended,
        null=outcome.null,
        oracle=ceiling,
        given=problem.head is not None,
        classes=known,
        remarks=remarks,
        tried=outcome.tried,
        level=level,
        rounds=rounds,
    )


class _Run(NamedTuple):
    """A schedule with its rows, and what all records say."""

    schedule: Schedule
    problem: Problem
    test: Features
    groups: Tensor | Sequence[object] | None
    data: str
    progress: Progress | None

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.schedule.seeds


class Outcome(NamedTuple):
    """What a protocol gives: all standings, the recommended one and the null, and the settings tried by family.

    `chosen_on` (C,) are the rows per class that settings were chosen on, None where these are the test rows.
    """

    standings: tuple[Standing, ...]
    recommended: Standing | None = None
    null: Standing | None = None
    tried: Mapping[Spec, tuple[Tried, ...]] = MappingProxyType({})
    chosen_on: Tensor | None = None


class _Tested(NamedTuple):
    """The head of a setting for one seed, the seconds that it took to fit, and what it does on the test split."""

    spec: Spec
    head: Head
    seconds: float
    measured: Measured


def _selected(run: _Run) -> Outcome:
    """Choose on held-out rows or folds, then fit chosen settings and recipes for every seed and read the test split."""
    schedule = run.schedule
    judging = Judging(select=schedule.rule, seed=run.seeds[0], folds=schedule.folds, groups=run.groups)
    if schedule.first:
        run, judging = _with_first(run, judging)
    # The recipes are fitted in the same pass; where a head of this pass serves, it is not fitted again.
    judgement = _judged(run, judging, schedule.grids.values(), schedule.beside)
    chosen = {family: pick(judgement, grid) for family, grid in schedule.grids.items()}
    settings = {family: spec for family, (spec, _) in chosen.items()}
    tested = _tested(run, judgement, [*settings.values(), *schedule.recipes.values()])
    tuned = {family: _standing(run, family, tested[spec], how) for family, (spec, how) in chosen.items()}
    stated = [_standing(run, family, tested[spec], None) for family, spec in schedule.recipes.items()]
    null, best = recommend(judgement, schedule.nulls, settings)
    chosen_on = rows_per_class(judgement.rows.y, len(run.test.counts))
    return Outcome((*tuned.values(), *stated), tuned[best], tuned[null], _tried(schedule, judgement), chosen_on)


def _with_first(run: _Run, judging: Judging) -> tuple[_Run, Judging]:
    """The same with a stage-1 head: plain cross-entropy with the settings that the rule chooses."""
    grid = run.schedule.first
    first, _ = pick(_judged(run, judging, [grid]), grid)
    problem = replace(run.problem, head=from_spec(first)(run.problem, judging.seed))
    warnings.warn(f"there was no stage-1 head: {first} was fitted, its settings chosen like all", PoiseWarning, 2)
    return run._replace(problem=problem), replace(judging, first=first)


def _judged(run: _Run, judging: Judging, grids: Iterable[Sequence[Spec]], extra: Sequence[Spec] = ()) -> Judgement:
    search = run.schedule.search
    found = judge_grids(grids, run.problem, judging, search=search, extra=extra, progress=run.progress)
    _warn_all(found.remarks)
    return found


def _warn_all(remarks: Iterable[str]) -> None:
    for remark in remarks:
        warnings.warn(remark, PoiseWarning, stacklevel=4)


def _tried(schedule: Schedule, judgement: Judgement) -> dict[Spec, tuple[Tried, ...]]:
    """The settings of every family that were fitted in full."""
    scores = {spec: trial.measured.scores for spec, trial in judgement.trials.items()}
    return {
        family: tuple(Tried(spec, scores[spec]) for spec in grid if spec in scores)
        for family, grid in schedule.grids.items()
    }


def _tested(run: _Run, judgement: Judgement, specs: Sequence[Spec]) -> dict[Spec, tuple[_Tested, ...]]:
    """The heads of these settings for every seed, trained before the test split is read."""
    heads = [_heads(run, judgement, specs, seed) for seed in run.seeds]
    found = [_on_test(run, list(fitted.items())) for fitted in heads]
    return {of_seeds[0].spec: of_seeds for of_seeds in zip(*found, strict=True)}


def _heads(run: _Run, judgement: Judgement, specs: Sequence[Spec], seed: int) -> dict[Spec, Fitted]:
    """Heads on all training rows for one seed; those that were judged on held-out rows exist already."""
    if seed in run.schedule.anew:
        return fit_specs(run.problem, specs, seed, progress=run.progress)
    trials = ((spec, judgement.trials[spec]) for spec in specs)
    return {spec: Fitted(trial.head, trial.seconds) for spec, trial in trials if trial.head is not None}


def _on_test(run: _Run, heads: Sequence[tuple[Spec, Fitted]]) -> list[_Tested]:
    """What every head does on the test split, read once."""
    found = measure_all([fitted.head for _, fitted in heads], run.test, run.problem.world)
    return [_Tested(spec, *fitted, result) for (spec, fitted), result in zip(heads, found, strict=True)]


def _standing(run: _Run, family: Spec, tested: Sequence[_Tested], selection: Selection | None) -> Standing:
    """The standing of one head per seed; the first of them is kept."""
    return replace(_recorded(run, family, tested, selection), scorers=(Scorer(tested[0].head, None),))


def _recorded(run: _Run, family: Spec, tested: Sequence[_Tested], selection: Selection | None) -> Standing:
    role: Role = "baseline" if family == BASELINE else "recipe" if selection is None else "tuned"
    records = [
        make_record(
            spec,
            result,
            role=role,
            data=run.data,
            train=run.problem.train,
            rows=run.test,
            seed=seed,
            seconds=seconds,
            selection=None if role == "baseline" else selection,
        )
        for seed, (spec, _, seconds, result) in zip(run.seeds, tested, strict=True)
    ]
    results = tuple(each.measured for each in tested)
    return Standing(family=family, method=str(tested[0].spec), role=role, records=tuple(records), measured=results)


def _cross_fit(run: _Run) -> Outcome:
    """Choose on one half of the test split, score on the other, and the other way round."""
    halves = fold_ids(run.test.y, 2, groups=with_copies(run.test.x[0]), seed=run.seeds[0])
    rows = [(halves == half).nonzero().flatten() for half in (0, 1)]
    first, second = (
        _selected(
            run._replace(problem=replace(run.problem, held_out=run.test.take(chosen)), test=run.test.take(scored))
        )
        for scored, chosen in (rows, rows[::-1])
    )
    joined = tuple(_joined(run, a, b, rows) for a, b in zip(first.standings, second.standings, strict=True))
    fewer = torch.stack([rows_per_class(run.test.y[half], len(run.test.counts)) for half in rows]).amin(dim=0)
    return Outcome(
        joined,
        _same(run, joined, first.recommended, second.recommended, rows),
        _same(run, joined, first.null, second.null, rows),
        chosen_on=fewer,
    )


def _same(
    run: _Run, joined: Sequence[Standing], a: Standing | None, b: Standing | None, rows: Sequence[Tensor]
) -> Standing:
    """The joined standing of a family that both halves chose, or one that names the two."""
    assert a is not None
    assert b is not None
    found = [row for row in joined if row.family == a.family and row.role == a.role]
    return found[0] if a.family == b.family else _joined(run, a, b, rows)


def _joined(run: _Run, a: Standing, b: Standing, halves: Sequence[Tensor]) -> Standing:
    """One standing of the scores on both halves of the test rows."""
    back = torch.cat(list(halves)).argsort()
    both = [
        _ordered(measured([x.sums, y.sums], run.test.counts), back) for x, y in zip(a.measured, b.measured, strict=True)
    ]
    scorers = tuple(Scorer(x.scorers[0].head, rows) for x, rows in zip((a, b), halves, strict=True))
    seconds = [x.seconds + y.seconds for x, y in zip(a.records, b.records, strict=True)]
    spec, head = Spec.parse(a.method), scorers[0].head
    tested = [_Tested(spec, head, *each) for each in zip(seconds, both, strict=True)]
    row = replace(_recorded(run, a.family, tested, None), scorers=scorers)
    chosen = [half.selection for half in (a, b) if half.selection is not None]
    if not chosen:
        return row
    selection = replace(
        chosen[0],
        rule="cross_fit",
        rows=len(run.test),
        key=run.test.key,
        score=sum(half.score for half in chosen) / len(chosen),
        chosen=(a.method, b.method),
        edges=tuple(dict.fromkeys(edge for half in chosen for edge in half.edges)),
        early=sum(half.early for half in chosen),
    )
    method = a.method if a.method == b.method else f"{a.method} / {b.method}"
    role: Role = a.role if a.role == b.role else "tuned"
    records = tuple(replace(record, method=method, role=role, selection=selection) for record in row.records)
    return replace(row, method=method, role=role, records=records)


def _ordered(result: Measured, back: Tensor) -> Measured:
    return result._replace(sums=result.sums._replace(correct=result.correct[back]))


def _paper(run: _Run) -> Outcome:
    """The best test epoch of every recipe and the best test setting of every closed form; by accuracy, as they did."""
    run = run._replace(test=replace(run.test, x=run.test.x.mean(dim=0)))
    return Outcome(tuple(_best_on_test(run, family, grid) for family, grid in run.schedule.grids.items()))


def _best_on_test(run: _Run, family: Spec, grid: tuple[Spec, ...]) -> Standing:
    method = from_spec(grid[0])
    by_seed = [
        _path(run, grid[0], method, seed) if isinstance(method, Retrain) else _settings(run, grid, seed)
        for seed in run.seeds
    ]
    best = [max(tries, key=lambda name, t=tries: t[name].measured.scores.accuracy) for tries in by_seed]  # type: ignore[misc]
    tested = [tries[name] for tries, name in zip(by_seed, best, strict=True)]
    row = _recorded(run, family, tested, None)
    if family == BASELINE:
        return row
    selection = Selection(
        rule="paper",
        rows=len(run.test),
        key=run.test.key,
        metric="accuracy",
        configurations=len(by_seed[0]),
        score=tested[0].measured.scores.accuracy,
        chosen=tuple(best),
    )
    names = [f"{grid[0]}, {name}" if isinstance(method, Retrain) else name for name in best]
    records = [replace(r, method=name, selection=selection) for r, name in zip(row.records, names, strict=True)]
    return replace(row, method=names[0], records=tuple(records))


Tries = dict[str, _Tested]


def _path(run: _Run, spec: Spec, method: Retrain, seed: int) -> Tries:
    """Every epoch of one recipe on the test split."""
    begun = time.perf_counter()
    path = fit_heads(run.problem, [method], seed, snapshots=True, progress=run.progress)[0]
    seconds = time.perf_counter() - begun
    epochs = range(min(1, len(path) - 1), len(path))
    found = _on_test(run, [(spec, Fitted(path[epoch], seconds)) for epoch in epochs])
    return {f"epoch {epoch}": tested for epoch, tested in zip(epochs, found, strict=True)}


def _settings(run: _Run, grid: Sequence[Spec], seed: int) -> Tries:
    """Every setting of a closed form on the test split."""
    heads = fit_specs(run.problem, grid, seed, progress=run.progress)
    return {str(tested.spec): tested for tested in _on_test(run, list(heads.items()))}
