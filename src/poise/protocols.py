"""`compare`: tune every method with the same budget, then read the test split once.

Settings and the recommendation are chosen without the test split (held-out rows, or folds of unseen training rows), or
with one half of it for the other (a last resort), or, by name and without a verdict, as the papers did.
"""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from poise.checks import check_one_of, is_whole
from poise.comparison import Comparison, Scorer, Standing, Tried
from poise.elimination import Rung, Search, as_search
from poise.errors import InputError, MemorisedRowsError, PoiseWarning
from poise.experiment import Fitted, Measured, Progress, fit_specs, make_record, measure_all, measured, remarks_of
from poise.folds import fold_ids
from poise.grids import BUDGET, default_grid
from poise.methods import from_spec, traits_of
from poise.methods.published import stated
from poise.record import Role, Selection
from poise.selection import FOLDS, Judgement, Judging, Rule, as_specs, judge_grids, pick
from poise.solver import Retrain, fit_heads
from poise.spec import Spec
from poise.statistics import check_rounds, simultaneous_intervals
from poise.types import Features, Head, Problem, classes_in, row_blocks
from poise.wording import some

__all__ = ["NULLS", "Oracle", "Protocol", "compare", "recommend"]

Protocol = Literal["held_out", "kfold", "cross_fit", "paper"]
Oracle = Callable[[Problem, Features, int], float]
BASELINE = Spec("stage1")
FIRST = Spec("ce", start="fresh")  # what becomes the stage-1 head where there is none, with tuned settings
NULLS = (Spec("tau_norm"), Spec("logit_adjustment"))


def compare(
    specs: Iterable[Spec | str],
    problem: Problem,
    test: Features,
    *,
    selection: Protocol = "held_out",
    seeds: Sequence[int] = (0,),
    nulls: Sequence[Spec | str] = NULLS,
    budget: int = BUDGET,
    groups: Tensor | Sequence[object] | None = None,
    folds: int = FOLDS,
    search: str | Sequence[Rung] = "full",
    recipes: bool = True,
    oracle: Oracle | None = None,
    strict: bool = False,
    data: str = "features",
    level: float = 0.95,
    rounds: int = 2000,
    progress: Progress | None = None,
) -> Comparison:
    """Tune every method with the same budget, then read the test split once.

    `specs` are methods or their texts; the baseline and the `nulls`, tau-norm and logit adjustment, are added.
    What a spec states is held, what it leaves open is tuned over at most `budget` settings (`grids.default_grid`).
    Beside every tuned row stands one of role "recipe": the spec as stated, or the first published recipe of a method
    that is given by its name alone; recipes never enter tied set, recommendation or verdict. `recipes` False leaves
    them out.

    `selection`: "held_out" and "kfold" as in `tune`; "cross_fit" chooses on one half of the test split and scores on
    the other, in turn: a last resort for benchmarks without other labelled rows; "paper" is the papers' own protocol,
    the best test epoch of every recipe and the best test setting of every closed form, test logits averaged over the
    stored views (exactly so for heads without unit norm): for comparison with published tables, without a verdict.

    `search`: "full" fits every setting in full. "halving" and "sketch" (or your own `elimination.Rung`s) look at all
    trained settings in a cheaper way first, alike for every method, and fit the better ones of each in full; "paper"
    tunes nothing that is trained.

    `seeds` train the final heads; settings are chosen with the first. `groups` (N,) of training rows stay together in
    K folds. `oracle` estimates what a head could gain at all (`headroom.oracle_accuracy`). With `strict`, test rows
    that are training rows are refused instead of remarked. Balanced accuracy decides throughout.

    The baseline is the stage-1 head. Without one, plain cross-entropy is tuned by the same rule and budget and takes
    its place, so that a poor baseline does not make the others look good; a remark names its settings.

    Raises: MemorisedRowsError for selection or test rows that trained the representation; InputError for a rule without
    its rows, a test split that does not fit, or no seed.
    """
    check_one_of("selection", selection, ("held_out", "kfold", "cross_fit", "paper"))
    check_rounds(level, rounds)
    _check_test(problem, test)
    chosen_seeds = _checked(seeds)
    wanted = as_specs(nulls) if nulls else ()
    families, remarks = _possible(dict.fromkeys((BASELINE, *wanted, *as_specs(specs))), problem, selection)
    remarks = (*remarks, *_uncovered(problem.train, test))
    if strict and (shared := _shared(problem.train, test)):
        raise InputError(f"{shared[0]}; remove them from one of the two")
    plan = _Plan(
        families=families,
        nulls=tuple(n for n in wanted if n in families),
        problem=problem,
        test=test,
        seeds=chosen_seeds,
        data=data,
        budget=budget,
        search=as_search(search),
        recipes=recipes,
        progress=progress,
    )
    with remarks_of() as warned:
        if selection == "paper":
            outcome = Outcome(_paper(plan))
        elif selection == "cross_fit":
            outcome = _cross_fit(plan)
        else:
            outcome = _selected(plan, selection, folds, groups)
        ceiling = None if oracle is None or selection == "paper" else oracle(problem, test, chosen_seeds[0])
    remarks = (*remarks, *_shared(problem.train, test), *warned)
    _warn_all(remarks)
    return Comparison(
        standings=outcome.standings,
        y=test.y.cpu(),
        protocol=selection,
        recommended=outcome.recommended,
        null=outcome.null,
        oracle=ceiling,
        given=problem.head is not None,
        remarks=remarks,
        tried=outcome.tried,
        level=level,
        rounds=rounds,
    )


def _checked(seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds as plain integers. Raises: InputError unless they are different whole numbers, and at least one."""
    given: list[Any] = [seeds] if is_whole(seeds) else list(seeds)
    if not given or not all(is_whole(seed) and seed >= 0 for seed in given) or len(set(given)) < len(given):
        raise InputError(f"seeds must be different whole numbers of at least 0, and at least one, got {given}")
    return tuple(int(seed) for seed in given)


def _check_test(problem: Problem, test: Features) -> None:
    classes, dim = len(problem.train.counts), problem.train.dim
    if (len(test.counts), test.dim) != (classes, dim):
        raise InputError(
            f"the test rows have {len(test.counts)} classes and {test.dim} features, the training rows have {classes} "
            f"and {dim}"
        )
    if classes_in(test.y) < 2:
        raise InputError("the test rows are all of one class; an interval over classes needs rows of at least two")
    if test.seen_by_backbone:
        raise MemorisedRowsError("the test rows trained the representation; give rows that the backbone never saw")
    for name, rows in (("training", problem.train), ("held-out", problem.held_out)):
        if rows is not None and rows.same_rows(test):
            raise MemorisedRowsError(f"the test rows are the {name} rows; give rows that were used for nothing else")


def _possible(families: Iterable[Spec], problem: Problem, selection: str) -> tuple[tuple[Spec, ...], tuple[str, ...]]:
    """The families that this problem and protocol allow, and a remark on each other one."""
    lacking = problem.held_out is None and selection in ("kfold", "paper")
    out = [f for f in families if lacking and any(traits.needs_held_out for traits in traits_of(f))]
    return tuple(f for f in families if f not in out), tuple(f"{f} was left out: it reads held-out rows" for f in out)


def _shared(train: Features, test: Features) -> list[str]:
    """A remark if rows of the test split are training rows, bit for bit."""
    known = set(_digests(train))
    repeats = [i for i, digest in enumerate(_digests(test)) if digest in known]
    if not repeats:
        return []
    return [
        f"{len(repeats)} of {len(test)} test rows are training rows too (the first: test row {repeats[0]}); what is "
        "measured on them is no evidence"
    ]


def _digests(features: Features) -> Iterator[bytes]:
    """A digest of each row of the test-time view in float32, read in blocks."""
    for _, rows in row_blocks(features.x[0]):
        for row in rows.float().contiguous().cpu().numpy() + 0.0:  # -0.0 becomes 0.0
            yield blake2b(row, digest_size=16).digest()


def _uncovered(train: Features, test: Features) -> list[str]:
    """Remarks on classes that only one of the two splits holds."""
    n = len(train.counts)
    trained, tested = (torch.bincount(split.y.cpu(), minlength=n) > 0 for split in (train, test))
    found = []
    for missing, where, what in (
        (tested & ~trained, "no training row", "no head can know them, their recall counts as it is"),
        (trained & ~tested, "no test row", "their recall is n/a and left out of the means"),
    ):
        rows = missing.nonzero().flatten().tolist()
        if rows:
            listed = some([train.names[k] for k in rows])
            found.append(f"{len(rows)} of {n} classes have {where} ({listed}); {what}")
    return found


class _Plan(NamedTuple):
    """What all protocols share."""

    families: tuple[Spec, ...]
    nulls: tuple[Spec, ...]
    problem: Problem
    test: Features
    seeds: tuple[int, ...]
    data: str
    budget: int
    search: Search
    recipes: bool
    progress: Progress | None


class Outcome(NamedTuple):
    """What a protocol gives: all standings, the recommended one and the null, and the settings tried by family."""

    standings: tuple[Standing, ...]
    recommended: Standing | None = None
    null: Standing | None = None
    tried: Mapping[Spec, tuple[Tried, ...]] = MappingProxyType({})


def _selected(plan: _Plan, rule: Rule, folds: int, groups: Tensor | Sequence[object] | None) -> Outcome:
    """Choose on held-out rows or folds, then fit chosen settings and recipes for every seed and read the test split."""
    judging = Judging(select=rule, seed=plan.seeds[0], folds=folds, groups=groups)
    if plan.problem.head is None:
        first = _first(plan, judging)
        judging = replace(judging, first=first)
        head = from_spec(first)(plan.problem, plan.seeds[0])
        plan = plan._replace(problem=replace(plan.problem, head=head))
        warnings.warn(f"there was no stage-1 head: {first} was fitted, its settings chosen like all", PoiseWarning, 2)
    grids = {family: default_grid(family, plan.budget) for family in plan.families}
    recipes = _recipes(plan)
    judgement = judge_grids(
        grids.values(),
        plan.problem,
        judging,
        search=plan.search,
        # The recipes are fitted in the same pass; where a head of this pass serves, it is not fitted again.
        extra=[spec for spec in recipes.values() if rule == "held_out"],
        progress=plan.progress,
    )
    _warn_all(judgement.remarks)
    chosen = {family: pick(judgement, grid) for family, grid in grids.items()}
    wanted = [*(spec for spec, _ in chosen.values()), *recipes.values()]
    by_seed = {seed: _heads(plan, wanted, seed, judgement) for seed in plan.seeds}
    on_test = {seed: _measured(plan, heads) for seed, heads in by_seed.items()}
    heads = by_seed[plan.seeds[0]]
    standings = [
        _standing(plan, family, spec, on_test, selection, heads[spec].head)
        for family, spec, selection in (
            *((family, *choice) for family, choice in chosen.items()),
            *((family, spec, None) for family, spec in recipes.items()),
        )
    ]
    null, best = recommend(judgement, plan.nulls, {family: spec for family, (spec, _) in chosen.items()})
    row = {standing.family: standing for standing in standings if standing.role != "recipe"}
    tried = {
        family: tuple(Tried(s, judgement.trials[s].measured.scores) for s in grid if s in judgement.trials)
        for family, grid in grids.items()
    }
    return Outcome(tuple(standings), row[best], row[null], tried)


def _first(plan: _Plan, judging: Judging) -> Spec:
    """Plain cross-entropy with the settings that the rule chooses."""
    grid = default_grid(FIRST, plan.budget)
    judgement = judge_grids([grid], plan.problem, judging, search=plan.search, progress=plan.progress)
    _warn_all(judgement.remarks)
    return pick(judgement, grid)[0]


def _warn_all(remarks: Iterable[str]) -> None:
    for remark in remarks:
        warnings.warn(remark, PoiseWarning, stacklevel=3)


def _recipes(plan: _Plan) -> dict[Spec, Spec]:
    """What runs as stated beside each tuned family."""
    found = {}
    for family in plan.families if plan.recipes else ():
        if family == BASELINE:
            continue
        spec = stated(family)
        method = from_spec(spec)
        if isinstance(method, Retrain) and method.plan.drop_last and method.plan.batch_size > len(plan.problem.train):
            continue  # a recipe for a larger data set leaves not one batch here
        found[family] = spec
    return found


def _heads(plan: _Plan, specs: Sequence[Spec], seed: int, judgement: Judgement) -> dict[Spec, Fitted]:
    """Heads on all training rows for one seed; those that were judged on held-out rows exist already."""
    ready = {}
    if seed == plan.seeds[0]:
        trials = {spec: judgement.trials[spec] for spec in specs if spec in judgement.trials}
        ready = {spec: Fitted(trial.head, trial.seconds) for spec, trial in trials.items() if trial.head is not None}
    missing = [spec for spec in specs if spec not in ready]
    return {**ready, **(fit_specs(plan.problem, missing, seed, progress=plan.progress) if missing else {})}


Tries = dict[Any, tuple[Measured, float]]


def _measured(plan: _Plan, heads: Mapping[Any, Fitted]) -> Tries:
    """What every head does on the test split, read once, and the seconds that it took to fit."""
    found = measure_all([head for head, _ in heads.values()], plan.test, plan.problem.world)
    return {name: (result, heads[name].seconds) for name, result in zip(heads, found, strict=True)}


def _standing(
    plan: _Plan, family: Spec, spec: Spec, tries: dict[int, Tries], selection: Selection | None, head: Head
) -> Standing:
    measured = {seed: found[spec][0] for seed, found in tries.items()}
    seconds = {seed: found[spec][1] for seed, found in tries.items()}
    row = _recorded(plan, family, spec, measured, seconds, selection)
    return replace(row, scorers=(Scorer(head, None),))


def _recorded(
    plan: _Plan,
    family: Spec,
    spec: Spec,
    measured: dict[int, Measured],
    seconds: dict[int, float],
    selection: Selection | None,
) -> Standing:
    """The standing of measured heads, one per seed."""
    role: Role = "baseline" if family == BASELINE else "recipe" if selection is None else "tuned"
    records = [
        make_record(
            spec,
            result,
            role=role,
            data=plan.data,
            train=plan.problem.train,
            rows=plan.test,
            seed=seed,
            seconds=seconds[seed],
            selection=None if role == "baseline" else selection,
        )
        for seed, result in measured.items()
    ]
    return Standing(
        family=family, method=str(spec), role=role, records=tuple(records), measured=tuple(measured.values())
    )


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


def _cross_fit(plan: _Plan) -> Outcome:
    """Choose on one half of the test split, score on the other, and the other way round."""
    halves = fold_ids(plan.test.y, 2, seed=plan.seeds[0])
    rows = [(halves == half).nonzero().flatten() for half in (0, 1)]
    runs = []
    for scored, choosing in (rows, rows[::-1]):
        problem = replace(plan.problem, held_out=plan.test.take(choosing))
        runs.append(_selected(plan._replace(problem=problem, test=plan.test.take(scored)), "held_out", 2, None))
    first, second = runs
    joined = tuple(_joined(plan, a, b, rows) for a, b in zip(first.standings, second.standings, strict=True))
    return Outcome(
        joined,
        _same(plan, joined, first.recommended, second.recommended, rows),
        _same(plan, joined, first.null, second.null, rows),
    )


def _same(
    plan: _Plan, joined: Sequence[Standing], a: Standing | None, b: Standing | None, rows: Sequence[Tensor]
) -> Standing:
    """The joined standing of a family that both halves chose, or one that names the two."""
    assert a is not None
    assert b is not None
    found = [row for row in joined if row.family == a.family and row.role == a.role]
    return found[0] if a.family == b.family else _joined(plan, a, b, rows)


def _joined(plan: _Plan, a: Standing, b: Standing, halves: Sequence[Tensor]) -> Standing:
    """One standing of the scores on both halves of the test rows."""
    counts, seeds = plan.test.counts, plan.seeds
    back = torch.cat(list(halves)).argsort()
    both = [_ordered(measured([x.sums, y.sums], counts), back) for x, y in zip(a.measured, b.measured, strict=True)]
    seconds = [x.seconds + y.seconds for x, y in zip(a.records, b.records, strict=True)]
    first = Spec.parse(a.method)
    row = _recorded(
        plan, a.family, first, dict(zip(seeds, both, strict=True)), dict(zip(seeds, seconds, strict=True)), None
    )
    scorers = tuple(Scorer(x.scorers[0].head, rows) for x, rows in zip((a, b), halves, strict=True))
    row = replace(row, scorers=scorers)
    used = a.selection or b.selection
    if used is None:
        return row
    scores = [half.selection.score for half in (a, b) if half.selection is not None]
    edges = [edge for half in (a, b) if half.selection is not None for edge in half.selection.edges]
    selection = replace(
        used,
        rule="cross_fit",
        rows=len(plan.test),
        key=plan.test.key,
        score=sum(scores) / len(scores),
        chosen=(a.method, b.method),
        edges=tuple(dict.fromkeys(edges)),
        early=sum(half.selection.early for half in (a, b) if half.selection is not None),
    )
    method = a.method if a.method == b.method else f"{a.method} / {b.method}"
    role: Role = a.role if a.role == b.role else "tuned"
    records = tuple(replace(record, method=method, role=role, selection=selection) for record in row.records)
    return replace(row, method=method, role=role, records=records)


def _ordered(result: Measured, back: Tensor) -> Measured:
    return result._replace(sums=result.sums._replace(correct=result.correct[back]))


def _paper(plan: _Plan) -> tuple[Standing, ...]:
    """The best test epoch of every recipe and the best test setting of every closed form; by accuracy, as they did."""
    averaged = replace(plan.test, x=plan.test.x.mean(dim=0))
    shared = plan._replace(test=averaged)
    recipes = _recipes(plan._replace(recipes=True))
    rows = []
    for family in plan.families:
        spec = recipes.get(family, family)
        method = from_spec(spec)
        by_seed = {
            seed: _path(shared, method, seed) if isinstance(method, Retrain) else _settings(shared, family, seed)
            for seed in plan.seeds
        }
        rows.append(_best_on_test(shared, family, spec, by_seed))
    return tuple(rows)


def _path(plan: _Plan, method: Retrain, seed: int) -> Tries:
    """Every epoch of one recipe on the test split."""
    begun = time.perf_counter()
    path = fit_heads(plan.problem, [method], seed, snapshots=True, progress=plan.progress)[0]
    seconds = time.perf_counter() - begun
    epochs = range(min(1, len(path) - 1), len(path))
    return _measured(plan, {f"epoch {e}": Fitted(path[e], seconds) for e in epochs})


def _settings(plan: _Plan, family: Spec, seed: int) -> Tries:
    """Every setting of a closed form on the test split."""
    grid = [family] if family == BASELINE else default_grid(family, plan.budget)
    heads = fit_specs(plan.problem, grid, seed, progress=plan.progress)
    return _measured(plan, {str(spec): fitted for spec, fitted in heads.items()})


def _best_on_test(plan: _Plan, family: Spec, spec: Spec, by_seed: dict[int, Tries]) -> Standing:
    best = {seed: max(tries, key=lambda name, t=tries: t[name][0].scores.accuracy) for seed, tries in by_seed.items()}  # type: ignore[misc]
    found = {seed: by_seed[seed][name] for seed, name in best.items()}
    epoch = isinstance(from_spec(spec), Retrain)
    ran = spec if epoch else Spec.parse(best[plan.seeds[0]])
    row = _recorded(
        plan, family, ran, {s: m for s, (m, _) in found.items()}, {s: t for s, (_, t) in found.items()}, None
    )
    if family == BASELINE:
        return row
    first = plan.seeds[0]
    selection = Selection(
        rule="paper",
        rows=len(plan.test),
        key=plan.test.key,
        metric="accuracy",
        configurations=len(by_seed[first]),
        score=found[first][0].scores.accuracy,
        chosen=tuple(best.values()),
    )
    name = best[first]
    method = f"{spec}, {name}" if epoch else name
    return replace(
        row, method=method, records=tuple(replace(r, method=method, selection=selection) for r in row.records)
    )
