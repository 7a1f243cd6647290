"""Estimates: work counted as the solver does it, words, and memory that grows with what is kept."""

import re
import warnings

import pytest
import torch

from poise import estimates, solver
from poise.errors import InputError
from poise.estimates import Estimate, Work, estimate, in_words, work_of_comparison, work_of_fit, work_of_search
from poise.grids import default_grid
from poise.headroom import oracle_accuracy
from poise.plan import Plan
from poise.protocols import compare
from poise.selection import tune
from poise.spec import Spec
from poise.types import ClassCounts, Features, Head, Problem

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
    """Visits that the solver makes, as a list of one number."""
    found = [0]
    make = solver._Block.__init__

    def count(self, given, recipes, seed):
        found[0] += sum(recipe.plan.epochs for recipe in recipes) * len(given.train)
        make(self, given, recipes, seed)

    monkeypatch.setattr(solver._Block, "__init__", count)
    return found


@pytest.mark.parametrize(
    ("given", "selection", "more"),
    [
        (problem(), "held_out", {}),
        (problem(), "held_out", {"search": "halving"}),
        (problem(), "held_out", {"recipes": False, "seeds": 3}),
        (problem(head=False), "held_out", {}),
        (problem(head=False, held_out=False), "kfold", {"folds": 3}),
        (problem(held_out=False), "cross_fit", {}),
        (problem(held_out=False), "paper", {}),
    ],
)
def test_the_visits_of_a_comparison_are_those_that_the_solver_makes(given, selection, more, counted):
    specs, test = ["crt", "los", "lda", "crt+tau_norm"], rows(2)
    seeds = {"seeds": range(more["seeds"])} if "seeds" in more else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compare(specs, given, test, selection=selection, budget=4, rounds=100, **{**more, **seeds})
    work = work_of_comparison(specs, given, len(test), selection=selection, budget=4, oracle=False, **more)
    assert work.visits == pytest.approx(counted[0], rel=0.12)


@pytest.mark.parametrize("select", ["held_out", "kfold"])
def test_the_visits_of_a_search_are_those_that_the_solver_makes(select, counted):
    grid = default_grid(Spec("crt"), 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tune(grid, problem(), select=select, folds=3)
    work = work_of_search(grid, problem(), select=select, folds=3)
    # In every fold a stage-1 head is fitted beside the four settings.
    assert work.visits == pytest.approx(counted[0], rel=0.25)
    assert (work.heads, work.folds, work.together) == (4, 3 if select == "kfold" else 1, 4)


def test_an_oracle_adds_its_two_heads():
    given, test = problem(), rows(2)
    without, with_it = (
        work_of_comparison(["tau_norm"], given, len(test), budget=2, oracle=wanted).visits for wanted in (False, True)
    )
    assert without == 0
    assert with_it == 2 * 10 * (len(given.train) + len(test) // 2)
    assert oracle_accuracy(given, test) > 0


def test_work_without_training_trains_no_head():
    work = work_of_comparison(["tau_norm", "lda"], problem(), 50, oracle=False, recipes=False)
    assert (work.heads, work.visits) == (0, 0)
    assert [str(family) for family, _ in work.grids] == ["stage1", "tau_norm", "logit_adjustment", "lda"]


def test_methods_that_read_held_out_rows_are_left_out_where_there_are_none():
    work = work_of_comparison(["temperature", "ncm"], problem(held_out=False), 50, selection="kfold")
    assert "temperature" not in {family.name for family, _ in work.grids}


def test_a_method_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="no method is called 'crtt', did you mean 'crt'"):
        work_of_comparison(["crtt"], problem(), 50)


def test_fit_on_rows_counts_its_candidates_and_folds():
    alone = problem(head=False, held_out=False)
    work = work_of_fit(alone)
    assert work.folds == 5
    assert work.heads > 10
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
    assert estimates.rows_bytes(given, rows(3, (20, 20, 10))) == stored + 4 * 4 * len(given.train)


def test_short_work_is_not_measured(monkeypatch):
    monkeypatch.setattr(estimates, "seconds_per_visit", lambda *_: pytest.fail("measured"))
    assert estimates.foreseen(work(visits=1000), problem()).seconds == 0


def test_a_visit_is_measured_on_this_machine():
    assert 1e-9 < estimates.seconds_per_visit(4, 3, 2) < 0.01


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
    found = estimates.available_bytes()
    assert found is None or found > 2**20


def test_where_nothing_tells_what_is_free_all_memory_counts(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", missing)
    found = estimates.available_bytes()
    monkeypatch.undo()
    assert found is None or found > 2**20


def test_the_docstring_says_how_well_estimates_did():
    assert re.search(r"foreseen as 0\.\d+ to \d\.\d times", estimate.__doc__)
