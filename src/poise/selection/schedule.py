"""What a comparison runs, as a value that is made before anything is fitted: `compare` runs it, an estimate sums it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from poise.errors import InputError
from poise.heads.solver import Retrain
from poise.methods import from_spec, traits_of
from poise.methods.published import stated
from poise.selection.elimination import Rung, Search, as_search, different, narrowed
from poise.selection.grids import BUDGET, default_grid
from poise.selection.rules import BASELINE, FIRST, FOLDS, NULLS, PLAIN, Protocol, Rule
from poise.values.checks import check_one_of, is_whole
from poise.values.problem import Problem
from poise.values.spec import Spec, as_specs


class Pass(NamedTuple):
    """Settings that are fitted together; the numbers are sums over all folds, halves and seeds.

    Each is `shown` so many training rows in an epoch, and then `judged` on so many rows. `first` makes the stage-1 head
    that is fitted before them on the same rows; None where there is one.
    """

    specs: tuple[Spec, ...]
    shown: float
    judged: float = 0
    first: Spec | None = None


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The families of a comparison and what is tried of each.

    `grids` hold the settings of every family, of which one is chosen; `recipes` what runs as stated, by family. `first`
    are the settings of plain cross-entropy where there is no stage-1 head, else none. `seeds` are those of the final
    heads; the first of them chooses. `remarks` name the families that were left out, and why.
    """

    selection: Protocol
    grids: Mapping[Spec, tuple[Spec, ...]]
    recipes: Mapping[Spec, Spec]
    nulls: tuple[Spec, ...]
    first: tuple[Spec, ...]
    search: Search
    folds: int
    seeds: tuple[int, ...]
    remarks: tuple[str, ...]

    @property
    def rule(self) -> Rule:
        """What settings are chosen on; each half of a test split is held out for the other."""
        return "kfold" if self.selection == "kfold" else "held_out"

    @property
    def beside(self) -> tuple[Spec, ...]:
        """The recipes that are fitted in the pass that chooses; in folds nothing would come of it."""
        return () if self.rule == "kfold" else tuple(self.recipes.values())

    @property
    def anew(self) -> tuple[int, ...]:
        """The seeds whose final heads are fitted after the choice; a head that held-out rows judged is final."""
        return self.seeds if self.rule == "kfold" else self.seeds[1:]

    def passes(self, rows: int, held_out: int, test: int, *, given: bool) -> list[Pass]:
        """What is fitted, in order, of a problem with so many rows; `given`: is there a stage-1 head?

        Which settings a search leaves out is known only when it runs: here the last ones of each grid are.
        """
        seeds = len(self.seeds)
        if self.selection == "paper":
            first = None if given else FIRST
            return [_on_test(grid, rows * seeds, test * seeds, first) for grid in self.grids.values()]
        kfold, times = self.rule == "kfold", 2 if self.selection == "cross_fit" else 1
        shown, judged = times * rows, test if times == 2 else held_out
        if kfold:
            shown, judged = rows * (self.folds - 1), rows
        search = partial(searched, search=self.search, shown=shown, judged=judged)
        found = []
        if self.first:
            found += [*search([self.first], first=FIRST), Pass(self.first[:1], times * rows)]
        of_folds = self.first[0] if self.first else FIRST  # a given head has seen the rows of every fold
        found += search(self.grids.values(), extra=self.beside, first=of_folds if kfold else None)
        final = (*(grid[0] for grid in self.grids.values()), *self.recipes.values())
        return [*found, Pass(final, times * rows * len(self.anew), test * seeds)]


def scheduled(
    specs: Iterable[Spec | str],
    problem: Problem,
    *,
    selection: Protocol = "held_out",
    nulls: Sequence[Spec | str] = NULLS,
    budget: int = BUDGET,
    search: str | Sequence[Rung] = "full",
    recipes: bool = True,
    always: Sequence[Spec | str] = (PLAIN,),
    folds: int = FOLDS,
    seeds: Sequence[int] = (0,),
) -> Schedule:
    """What `compare` runs with these arguments on this problem.

    `always` are run as stated beside whatever is asked for, but in the papers' protocol: logistic regression minus log
    prior, which any method should beat.

    Raises: InputError for a protocol, method, budget, search or seeds that do not exist.
    """
    check_one_of("selection", selection, ("held_out", "kfold", "cross_fit", "paper"))
    paper = selection == "paper"
    wanted = as_specs(nulls) if nulls else ()
    families = tuple(dict.fromkeys((BASELINE, *wanted, *as_specs(specs))))
    lacking = problem.held_out is None and (paper or selection == "kfold")
    out = [f for f in families if lacking and any(traits.needs_held_out for traits in traits_of(f))]
    families = tuple(family for family in families if family not in out)
    beside = _recipes(families, len(problem.train)) if recipes or paper else {}
    grids = {family: default_grid(family, budget) for family in families}
    if paper:  # what is trained runs as stated, and every epoch of it is tried
        ran = {family: beside.get(family, family) for family in families}
        grids |= {family: (spec,) for family, spec in ran.items() if isinstance(from_spec(spec), Retrain)}
    plain = as_specs(always) if always and not paper else ()
    return Schedule(
        selection=selection,
        grids=grids,
        recipes={**dict(zip(plain, plain, strict=True)), **beside},
        nulls=tuple(null for null in wanted if null in families),
        first=default_grid(FIRST, budget) if problem.head is None and not paper else (),
        search=as_search(search),
        folds=folds,
        seeds=_checked(seeds),
        remarks=tuple(f"{family} was left out: it reads held-out rows" for family in out),
    )


def _recipes(families: Iterable[Spec], rows: int) -> dict[Spec, Spec]:
    """What runs as stated beside each family; no recipe for larger data sets, of which not one batch is left here."""
    found = {family: stated(family) for family in families if family != BASELINE}
    plans = {family: method.plan for family, spec in found.items() if isinstance(method := from_spec(spec), Retrain)}
    too_large = {family for family, plan in plans.items() if plan.drop_last and plan.batch_size > rows}
    return {family: spec for family, spec in found.items() if family not in too_large}


def _checked(seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds as plain integers. Raises: InputError unless they are different whole numbers, and at least one."""
    given: list[Any] = [seeds] if is_whole(seeds) else list(seeds)
    if not given or not all(is_whole(seed) and seed >= 0 for seed in given) or len(set(given)) < len(given):
        raise InputError(f"seeds must be different whole numbers of at least 0, and at least one, got {given}")
    return tuple(int(seed) for seed in given)


def _on_test(grid: tuple[Spec, ...], shown: int, judged: int, first: Spec | None) -> Pass:
    """What the papers' protocol fits of a family."""
    method = from_spec(grid[0])
    if not isinstance(method, Retrain):
        return Pass(grid, shown, judged, first)
    return Pass(grid, shown, judged * max(1, method.plan.epochs), first if method.needs_head else None)


def searched(
    grids: Iterable[Sequence[Spec]],
    *,
    search: Search,
    shown: float,
    judged: float,
    extra: Sequence[Spec] = (),
    first: Spec | None = None,
) -> list[Pass]:
    """The passes of `selection.judge_grids`: each look, then what is fitted in full. The last of each grid go."""
    found: list[Pass] = []

    def look(number: int, looks: Sequence[Mapping[Spec, Spec]]) -> list[list[Spec]]:
        cost = 1.0 if search[number].axes is None else 0.5
        found.append(Pass(different(looks), shown * cost, judged, first))
        return [list(each) for each in looks]

    left = narrowed(grids, search, look)
    full = tuple(dict.fromkeys([spec for grid in left for spec in grid] + list(extra)))
    return [*found, Pass(full, shown, judged, first)]
