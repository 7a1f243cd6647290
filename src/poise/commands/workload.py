"""How long a run will take and how much memory it needs, said before it starts.

Time is counted in visits: one row shown to one head in training. How many there are follows from settings, epochs, rows
and folds; what one costs is measured on this machine, in a fit of made-up rows of the same size that takes a tenth of a
second (`seconds_per_visit`). Methods that need no training are left out, and so is reading files.
"""

import os
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from poise.deployment.automatic import CANDIDATES
from poise.deployment.deploy import offered
from poise.heads.converged import Optimum
from poise.heads.plan import Plan
from poise.heads.reading import KEPT_NUMBERS
from poise.heads.solver import MOST_NUMBERS, Retrain, fit_heads, fresh
from poise.methods import from_spec
from poise.methods.chain import Chain
from poise.metrics import MOST_LOGITS
from poise.selection.elimination import Rung, as_search
from poise.selection.rules import FIRST, FOLDS
from poise.selection.schedule import Pass, Schedule, searched
from poise.selection.validation import competing
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.problem import Method, Problem
from poise.values.spec import Spec

FITTED_ROWS = 4  # batches of made-up rows that are fitted to measure the machine
REPEATS = 3
MOST_PRODUCTS = 2**28  # multiplications of an epoch of it
ALONGSIDE = 16  # heads that are enough to see how well heads share a pass
OVERHEAD = 1.1  # of real methods to the plain heads that are measured
MEASURED = 2.0  # cost of measuring a head on a row, in visits
INTERVALS = 1.0  # seconds for intervals and verdict of a comparison
CHOSEN_VISITS, NAMED_VISITS = 550, 55  # of each row, by `fit`: all its candidates, or one method, folds included
SEARCH_VISITS = 40  # of each row, by one head that is fitted to convergence
SHORT_VISITS, SHORT_PRODUCTS = 10**5, 10**9  # work that is over before it could be measured
ORACLES = 2  # heads that are fitted to estimate what any head could gain
PROGRAM = 550 * 2**20  # bytes of torch and the rest
COPIES = 48  # of a chunk of logits while heads are measured


class Work(NamedTuple):
    """What a run does.

    `heads` are the different ones that are trained, `visits` the rows shown to them over all folds and epochs,
    `measured` the rows that heads are judged on, of which one head sees up to `judged` at once, `together` the heads
    kept at a time. `grids` are the methods and their settings, `plan` the training of the first setting.
    """

    heads: int
    visits: float
    measured: float
    judged: int
    together: int
    folds: int
    grids: tuple[tuple[Spec, tuple[Spec, ...]], ...]
    plan: Plan

    def __str__(self) -> str:
        heads = f"{self.heads} {'head' if self.heads == 1 else 'heads'}"
        return f"{heads} in {self.folds} folds" if self.folds > 1 else heads


class Estimate(NamedTuple):
    """Seconds, and bytes at the peak, the program itself included."""

    seconds: float
    bytes: int

    def __str__(self) -> str:
        return f"about {in_words(self.seconds)} and {self.bytes / 1e9:.1f} GB"


def in_words(seconds: float) -> str:
    """A duration as precisely as it can be foreseen.

    >>> [in_words(seconds) for seconds in (0.4, 37, 100, 4000)]
    ['1 s', '40 s', '2 min', '1.1 h']
    """
    if seconds < 95:
        return f"{max(1, round(seconds, -1 if seconds >= 10 else None)):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def foreseen(work: Work, problem: Problem, *more: Features | None) -> Estimate:
    """What `work` on a problem costs on this machine; `more` are other rows in memory. Takes a tenth of a second."""
    classes, dim = len(problem.train.counts), problem.train.dim
    short = work.visits < SHORT_VISITS and work.visits * dim * classes < SHORT_PRODUCTS
    visit = 0.0 if short else seconds_per_visit(dim, classes, work.together, work.plan)
    return estimate(work, visit, rows_bytes(problem, *more), classes=classes, dim=dim)


def estimate(work: Work, visit: float, rows: int, *, classes: int, dim: int) -> Estimate:
    """What `work` costs where one visit takes `visit` seconds and the `rows` in memory take so many bytes.

    On two cores with other work on them, six comparisons of 3 to 76 s, each run twice (the demonstration; 1 to 6
    methods on 1,500 to 20,000 rows of 64 to 768 features, by cross-validation), were foreseen as 0.45 to 2.3 times what
    they took, eight of twelve as 0.7 to 1.2 times; their memory as 0.65 to 1.4 times its peak.
    """
    head = classes * (dim + 1) * 4
    training = 6 * min(work.together * head, 4 * MOST_NUMBERS)
    measuring = 8 * COPIES * min(MOST_LOGITS, work.judged * classes)
    seconds = (OVERHEAD * work.visits + MEASURED * work.measured) * visit + (INTERVALS if len(work.grids) > 1 else 0)
    return Estimate(seconds, PROGRAM + rows + work.together * head + training + measuring)


def rows_bytes(problem: Problem, *more: Features | None) -> int:
    """Bytes of all rows of a problem and of other splits, and of the copy that training makes of its own."""
    splits = [split for split in (problem.train, problem.held_out, *more) if split is not None]
    stored = sum(split.x.numel() * split.x.element_size() for split in splits)
    return stored + 4 * min(problem.train.x.numel(), KEPT_NUMBERS)


# --- how much there is to do ------------------------------------------------------------------------------------------


def work_of_comparison(schedule: Schedule, problem: Problem, test_rows: int, *, oracle: bool = True) -> Work:
    """What `protocols.run` does with this schedule."""
    rows, unseen = len(problem.train), 0 if problem.held_out is None else len(problem.held_out)
    passes = schedule.passes(rows, unseen, test_rows, given=problem.head is not None)
    if oracle and schedule.selection != "paper":
        passes.append(Pass((Spec("balanced_softmax"),) * ORACLES, rows + test_rows // 2, test_rows // 2))
    folds = schedule.folds if schedule.rule == "kfold" else 1
    return _work(tuple(schedule.grids.items()), passes, max(test_rows, rows // folds if folds > 1 else unseen), folds)


def work_of_search(
    grid: Sequence[Spec],
    problem: Problem,
    *,
    select: str = "held_out",
    search: str | Sequence[Rung] = "full",
    folds: int = FOLDS,
) -> Work:
    """What `tune` does with these arguments. Raises: InputError for a search that does not exist."""
    rows, kfold = len(problem.train), select == "kfold"
    judged = rows if kfold or problem.held_out is None else len(problem.held_out)
    passes = searched(
        competing(grid),
        search=as_search(search),
        shown=rows * (folds - 1) if kfold else rows,
        judged=judged,
        first=FIRST if kfold or problem.head is None else None,
    )
    return _work(((grid[0], tuple(grid)),), passes, judged // folds if kfold else judged, folds if kfold else 1)


def work_of_fit(problem: Problem, method: str = "auto") -> Work:
    """What `deploy` does. Raises: InputError for a method that does not exist."""
    if problem.head is None:
        grid = tuple(candidate.spec for candidate in CANDIDATES) if method == "auto" else (Spec.parse(method),)
        rows, each = len(problem.train), CHOSEN_VISITS if method == "auto" else NAMED_VISITS
        folds = 1 if problem.held_out is not None else 5
        visits = each * rows / (1 if folds > 1 else 3)
        return Work(len(grid), visits, len(grid) * rows, rows // folds, 1, folds, ((grid[0], grid),), Plan())
    return work_of_search([spec for grid in offered(method).values() for spec in grid], problem)


def _work(grids: tuple[tuple[Spec, tuple[Spec, ...]], ...], passes: Sequence[Pass], judged: int, folds: int) -> Work:
    """The sums over passes, stage-1 heads that are fitted on the way included."""
    firsts = [Pass((each.first,), each.shown) for each in passes if each.first is not None]
    trained = [(_trained(each.specs), each.shown) for each in (*passes, *firsts)]
    recipes = [recipe for steps, _ in trained for recipe in steps]
    return Work(
        heads=len({spec for each in (*passes, *firsts) if each.shown for spec in each.specs if _trained((spec,))}),
        visits=sum(recipe.plan.epochs * shown for steps, shown in trained for recipe in steps)
        + sum(SEARCH_VISITS * len(_searched(each.specs)) * each.shown for each in passes),
        measured=sum(len(each.specs) * each.judged for each in passes),
        judged=judged,
        together=max(len(steps) for steps, _ in trained),
        folds=folds,
        grids=grids,
        plan=recipes[0].plan if recipes else Plan(),
    )


def _trained(specs: Iterable[Spec]) -> list[Retrain]:
    """The trained steps of some specs."""
    return [step for step in _steps(specs) if isinstance(step, Retrain)]


def _searched(specs: Iterable[Spec]) -> set[Optimum]:
    """The steps of some specs that are fitted to convergence, each once: what follows one is given its head."""
    return {step for step in _steps(specs) if isinstance(step, Optimum)}


def _steps(specs: Iterable[Spec]) -> list[Method]:
    methods = [from_spec(spec) for spec in specs]
    return [step for method in methods for step in (method.methods if isinstance(method, Chain) else (method,))]


# --- what it costs here -----------------------------------------------------------------------------------------------


def seconds_per_visit(dim: int, classes: int, heads: int, plan: Plan | None = None) -> float:
    """Seconds for one row and one of `heads` plain heads that are trained together on this machine, measured now."""
    plan = plan or Plan()
    rows = FITTED_ROWS * plan.batch_size
    heads = max(1, min(heads, ALONGSIDE, MOST_PRODUCTS // (rows * dim * classes)))
    y = torch.arange(rows) % classes
    x = torch.randn(rows, dim, generator=torch.Generator().manual_seed(0))
    problem = Problem(Features(x, y, ClassCounts(torch.bincount(y, minlength=classes)), seen_by_backbone=False))

    def seconds(epochs: int) -> float:
        recipe = Retrain(start=fresh, plan=Plan(epochs=epochs, batch_size=plan.batch_size, matmul=plan.matmul))
        begun = time.perf_counter()
        fit_heads(problem, [recipe] * heads)
        return time.perf_counter() - begun

    seconds(1)  # the first fit of a process prepares what later ones find
    # The median of some, because other work on a machine comes and goes; it may even take all that is measured.
    pairs = [(seconds(1), seconds(3)) for _ in range(REPEATS)]
    least = min(more for _, more in pairs) / 10
    return max(statistics.median(more - once for once, more in pairs), least) / (2 * heads * rows)


def available_bytes() -> int | None:
    """Memory that a program can have now, or all there is where only that is known; None on a system that says none."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # there is no sysconf on Windows
        return None
