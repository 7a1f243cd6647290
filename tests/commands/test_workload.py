"""Estimates: work counted as the solver does it, words, and memory that grows with what is kept."""

import re
import warnings

import pytest
import torch

from poise.commands import workload
from poise.commands.workload import Estimate, Work, estimate, in_words, work_of_comparison, work_of_fit, work_of_search
from poise.deployment.automatic import CANDIDATES
from poise.deployment.deploy import deploy
from poise.diagnosis.compare import compare
from poise.errors import InputError
from poise.heads import converged, solver
from poise.heads.plan import Plan
from poise.selection import fit_and_measure
from poise.selection.elimination import Rung
from poise.selection.grids import default_grid
from poise.selection.oracle import oracle_accuracy
from poise.selection.schedule import scheduled
from poise.selection.tune import tune
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem
from poise.values.spec import Spec

SIZES = (60, 25, 12)


def rows(seed, sizes=SIZES, dim=4, seen=False):
    """Overlapping classes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    x = torch.randn(len(y), dim, generator=generator) + 2 * torch.eye(len(sizes), dim)[y]
    return Features(x, y, ClassCounts(torch.tensor(SIZES)), seen)


def problem(head=True, held_out=True):
    """A small problem, with or without a stage-1 head and held-out rows."""
    first = Head(torch.eye(3, 4), torch.zeros(3)) if head else None
    return Problem(rows(0), first, rows(1) if held_out else None)


@pytest.fixture
def counted(monkeypatch):
    """Visits that the solver makes or that a search for an optimum counts for, and rows that heads are measured on."""
    found = {"visits": 0, "measured": 0}
    make, read, search = solver._Block.__init__, fit_and_measure.logits_of_all, converged.fit_path

    def count(self, given, recipes, seed):
        found["visits"] += sum(recipe.plan.epochs for recipe in recipes) * len(given.train)
        make(self, given, recipes, seed)

    def measure(heads, rows, owned):
        found["measured"] += len(heads) * len(rows)
        return read(heads, rows, owned)

    def searched(train, loss, decays, **more):
        found["visits"] += workload.SEARCH_VISITS * len(set(decays)) * len(train)
        return search(train, loss, decays, **more)

    monkeypatch.setattr(converged, "fit_path", searched)
    monkeypatch.setattr(solver._Block, "__init__", count)
    monkeypatch.setattr(fit_and_measure, "logits_of_all", measure)
    return found


SLOWER = {"search": [Rung(keep=0.5, epochs=0.5), Rung(keep=0.5, epochs=0.5)]}


@pytest.mark.parametrize(
    ("given", "selection", "more"),
    [
        (problem(), "held_out", {}),
        (problem(), "held_out", {"search": "halving"}),
        (problem(), "held_out", SLOWER),
        (problem(), "held_out", {"recipes": False, "seeds": 3}),
        (problem(head=False), "held_out", SLOWER),
        (problem(held_out=False), "kfold", {"folds": 4, "seeds": 2}),
        (problem(head=False, held_out=False), "kfold", {"folds": 3, **SLOWER}),
        (problem(held_out=False), "cross_fit", {"seeds": 2}),
        (problem(), "held_out", {"asked": ("converged", "converged+temperature")}),
        (problem(head=False, held_out=False), "cross_fit", {}),
        (problem(held_out=False), "paper", {"seeds": 2}),
        (problem(head=False), "paper", {}),
    ],
)
def test_the_work_of_a_comparison_is_what_is_fitted_and_measured(given, selection, more, counted):
    specs, test = ["crt", "los", "lda", "lws", "ce(start='fresh')", "crt+tau_norm", *more.get("asked", ())], rows(2)
    options = {
        **{key: value for key, value in more.items() if key != "asked"},
        "selection": selection,
        "budget": 4,
        "seeds": range(more.get("seeds", 1)),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compare(specs, given, test, rounds=100, **options)
    work = work_of_comparison(scheduled(specs, given, **options), given, len(test), oracle=False)
    assert {"visits": work.visits, "measured": work.measured} == counted


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("select", ["held_out", "kfold"])
def test_the_work_of_a_search_is_what_is_fitted_and_measured(select, head, counted):
    grid, given = [*default_grid(Spec("crt"), 4), *default_grid(Spec("los", epochs=3), 3)], problem(head)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tune(grid, given, select=select, folds=3, **SLOWER)
    work = work_of_search(grid, given, select=select, folds=3, **SLOWER)
    assert {"visits": work.visits, "measured": work.measured} == counted
    assert (work.folds, work.together) == (3 if select == "kfold" else 1, 7)


def test_a_look_on_fewer_axes_counts_half():
    grid, given = default_grid(Spec("crt", epochs=4), 4), problem()
    for axes, share in ((None, 1), (2, 0.5)):
        work = work_of_search(grid, given, search=[Rung(keep=0.5, epochs=0.5, axes=axes)])
        assert work.visits == sum(SIZES) * (4 * 2 * share + 2 * 4)


def test_a_stage_1_head_that_is_fitted_on_the_way_is_one_more():
    grid = default_grid(Spec("crt"), 4)
    for head, select, heads in ((True, "held_out", 4), (False, "held_out", 5), (True, "kfold", 5)):
        work = work_of_search(grid, problem(head), select=select, folds=3)
        assert (work.heads, work.together) == (heads, 4)


def test_an_oracle_adds_its_two_heads():
    given, test = problem(), rows(2)
    schedule = scheduled(["tau_norm"], given, budget=2)
    without, with_it = (
        work_of_comparison(schedule, given, len(test), oracle=wanted).visits for wanted in (False, True)
    )
    assert without == workload.SEARCH_VISITS * len(given.train)  # of the logistic regression that is always there
    assert with_it - without == 2 * 10 * (len(given.train) + len(test) // 2)
    assert oracle_accuracy(given, test) > 0


def test_work_without_training_trains_no_head():
    schedule = scheduled(["tau_norm", "lda"], problem(), recipes=False)
    work = work_of_comparison(schedule, problem(), 50, oracle=False)
    assert (work.heads, work.visits) == (0, workload.SEARCH_VISITS * sum(SIZES))
    assert [str(family) for family, _ in work.grids] == ["stage1", "tau_norm", "logit_adjustment", "lda"]


def test_methods_that_read_held_out_rows_are_left_out_where_there_are_none():
    given = problem(held_out=False)
    work = work_of_comparison(scheduled(["temperature", "ncm"], given, selection="kfold"), given, 50)
    assert "temperature" not in {family.name for family, _ in work.grids}


def test_a_method_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="no method is called 'crtt', did you mean 'crt'"):
        scheduled(["crtt"], problem())


@pytest.mark.parametrize("method", ["auto", "los(epochs=2)"])
def test_the_visits_of_fit_with_a_head_are_those_that_the_solver_makes(method, counted):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        deploy(problem(), method=method)
    assert work_of_fit(problem(), method).visits == counted["visits"]


def test_fit_on_rows_counts_its_candidates_and_folds():
    alone = problem(head=False, held_out=False)
    work = work_of_fit(alone)
    assert work.folds == 5
    assert work.heads == len(CANDIDATES)
    assert work.visits > work_of_fit(alone, "crt").visits > 0
    assert work_of_fit(problem(), "crt").visits == 10 * len(alone.train)


def work(**changed):
    """Four heads, ten epochs of a thousand rows."""
    return Work(4, 40_000, 0, 100, 4, 1, (), Plan())._replace(**changed)


def test_seconds_grow_with_visits_and_their_cost():
    once = estimate(work(), 1e-6, 0, classes=10, dim=8).seconds
    assert estimate(work(visits=80_000), 1e-6, 0, classes=10, dim=8).seconds == pytest.approx(2 * once)
    assert estimate(work(), 3e-6, 0, classes=10, dim=8).seconds == pytest.approx(3 * once)
    assert estimate(work(measured=40_000), 1e-6, 0, classes=10, dim=8).seconds > once


def test_memory_grows_with_rows_and_heads():
    least = estimate(work(), 0, 0, classes=10, dim=8).bytes
    assert estimate(work(), 0, 10**6, classes=10, dim=8).bytes == least + 10**6
    assert estimate(work(together=400), 0, 0, classes=10, dim=8).bytes - least == 7 * 396 * 10 * 9 * 4


def test_rows_are_counted_as_they_are_stored_and_as_they_are_trained_on():
    given = problem()
    stored = 4 * 4 * (2 * len(given.train) + 50)
    assert workload.rows_bytes(given, rows(3, (20, 20, 10))) == stored + 4 * 4 * len(given.train)


def test_short_work_is_not_measured(monkeypatch):
    monkeypatch.setattr(workload, "seconds_per_visit", lambda *_: pytest.fail("measured"))
    assert workload.foreseen(work(visits=1000), problem()).seconds == 0


def test_a_visit_is_measured_on_this_machine():
    assert 1e-9 < workload.seconds_per_visit(4, 3, 2) < 0.01


def test_an_estimate_reads_as_a_sentence():
    assert str(Estimate(38.2, 612 * 10**6)) == "about 40 s and 0.6 GB"
    assert str(work(heads=512, folds=5)) == "512 heads in 5 folds"
    assert str(work(heads=1)) == "1 head"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (7.4, "7 s"), (94, "90 s"), (96, "2 min"), (1500, "25 min"), (5400, "1.5 h")]
)
def test_durations_are_said_roughly(seconds, words):
    assert in_words(seconds) == words


def test_the_system_says_how_much_memory_is_free():
    found = workload.available_bytes()
    assert found is None or found > 2**20


def test_where_nothing_tells_what_is_free_all_memory_counts(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", missing)
    found = workload.available_bytes()
    monkeypatch.undo()
    assert found is None or found > 2**20


def test_the_docstring_says_how_well_estimates_did():
    assert re.search(r"foreseen as 0\.\d+ to \d\.\d times", estimate.__doc__)
