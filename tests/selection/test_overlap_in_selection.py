"""Where settings are chosen: rows in two splits are refused or said once, and copies of a row share a fold."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from poise import testing
from poise.diagnosis.compare import compare
from poise.errors import MemorisedRowsError, PoiseWarning
from poise.folds import fold_ids, with_copies
from poise.selection.audit import audit
from poise.selection.oracle import oracle_accuracy
from poise.selection.rules import Judging
from poise.selection.study import study
from poise.selection.tune import tune
from poise.selection.validation import fold_ids_of
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.problem import Problem

PARTS = {"all": slice(None), "all but one": slice(1, None), "every other": slice(None, None, 2)}
each_part = pytest.mark.parametrize("chosen", PARTS.values(), ids=PARTS)


def world(counts=(60, 25, 9, 4)):
    """A problem of rows that the backbone never saw, and a test split."""
    problem = testing.world(counts=counts, held_out=12)
    test = testing.world(counts=counts, held_out=15).held_out
    assert problem.held_out is not None
    assert test is not None
    fresh = torch.randn(test.x.shape, generator=torch.Generator().manual_seed(9))
    return replace(problem, train=replace(problem.train, seen_by_backbone=False)), replace(test, x=test.x + fresh)


def part_of(rows, chosen):
    """Some of the rows, as if they were others."""
    places = torch.arange(len(rows))[chosen]
    return replace(rows.take(places), seen_by_backbone=False, counts=rows.counts)


def with_shared(rows, source, *pairs):
    """The rows, some of which are those of another split: (row, row of the source)."""
    x = rows.x.clone()
    for row, other in pairs:
        x[0, row] = source.x[0, other]
    return replace(rows, x=x)


def said(call):
    """What a call warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in caught if "rows too" in str(each.message)]


def selected(problem, test):
    return tune(["tau_norm(tau=0.5)", "tau_norm(tau=1.0)"], problem)


def compared(problem, test):
    return compare(["ncm"], problem, test, budget=2, rounds=100)


@each_part
@pytest.mark.parametrize("route", [selected, compared])
def test_training_rows_do_not_select(route, chosen):
    problem, test = world()
    given = replace(problem, held_out=part_of(problem.train, chosen))
    with pytest.raises(MemorisedRowsError, match=r"held-out rows are training rows too"):
        route(given, test)


@each_part
def test_a_study_refuses_them_before_it_writes(tmp_path, chosen):
    problem, _ = world()
    given = replace(problem, held_out=part_of(problem.train, chosen))
    with pytest.raises(MemorisedRowsError, match="held-out rows are training rows too"):
        study("tau_norm", given, tmp_path / "study", trials=2)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("selection", ["held_out", "kfold", "cross_fit", "paper"])
@pytest.mark.parametrize("chosen", [slice(1, None), slice(None, None, 2)])
def test_training_and_held_out_rows_do_not_judge(selection, chosen):
    problem, test = world()
    for rows, name in ((problem.train, "training"), (problem.held_out, "held-out")):
        with pytest.raises(MemorisedRowsError, match=f"test rows are {name} rows too"):
            compare(["ncm"], problem, part_of(rows, chosen), budget=2, rounds=100, selection=selection)
    given = replace(problem, held_out=part_of(test, slice(1, None)))
    with pytest.raises(MemorisedRowsError, match=r"^59 of 60 test rows are held-out rows too"):
        compare(["ncm"], given, test, budget=2, rounds=100, selection=selection)


@pytest.mark.parametrize("selection", ["held_out", "kfold", "cross_fit"])
def test_one_shared_row_is_said_once_with_its_number(selection):
    problem, test = world()
    test = with_shared(test, problem.train, (7, 12))
    found = said(lambda: compare(["ncm"], problem, test, budget=2, rounds=100, selection=selection))
    assert found == [
        "1 of 60 test rows are training rows too (the first: test row 7, training row 12); what is measured on them is "
        "no evidence"
    ]


def test_the_oracle_of_a_comparison_says_nothing_twice():
    problem, test = world()
    test = with_shared(test, problem.train, (7, 12))
    assert len(said(lambda: compare(["ncm"], problem, test, budget=2, rounds=100, oracle=oracle_accuracy))) == 1
    assert len(said(lambda: oracle_accuracy(problem, test))) == 1


def test_tune_says_once_what_held_out_rows_share():
    problem, test = world()
    assert problem.held_out is not None
    given = replace(problem, held_out=with_shared(problem.held_out, problem.train, (3, 5), (4, 6)))
    (remark,) = said(lambda: selected(given, test))
    assert remark.startswith("2 of 48 held-out rows are training rows too (the first: held-out row 3, training row 5)")


@each_part
def test_an_oracle_learns_from_other_rows(chosen):
    problem, _ = world()
    with pytest.raises(MemorisedRowsError, match=r"test rows are training rows too|training rows as held-out"):
        oracle_accuracy(problem, part_of(problem.train, chosen))


@pytest.mark.parametrize("chosen", [slice(1, None), slice(None, None, 2)])
def test_logits_that_select_do_not_judge(chosen):
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(90) % 3
    logits = 2 * torch.eye(3)[y] + torch.randn(90, 3, generator=generator)
    with pytest.raises(MemorisedRowsError, match="test rows are held-out rows too"):
        audit(logits, y, [50, 20, 5], held_out=(logits[chosen], y[chosen]))


def test_answers_instead_of_logits_repeat_by_right():
    y = torch.arange(90) % 3
    answers = torch.eye(3)[(y + (torch.arange(90) % 7 == 0)) % 3]
    order = torch.arange(89, -1, -1)
    assert said(lambda: audit(answers, y, [50, 20, 5], held_out=(answers[order][:80], y[order][:80]))) == []


# --- folds ------------------------------------------------------------------------------------------------------------


def copied(jitter, rows=40):
    """Every row five times, in mixed order: the problem, and which rows are copies."""
    rng = np.random.default_rng(0)
    unit = rng.permutation(np.repeat(np.arange(rows), 5))
    x = rng.normal(size=(rows, 8))[unit] + jitter * rng.normal(size=(5 * rows, 8))
    y = torch.from_numpy(unit % 2)
    return Problem(Features(torch.from_numpy(x), y, ClassCounts.from_labels(y), seen_by_backbone=False)), unit


@pytest.mark.parametrize("jitter", [0.0, 1e-6])
def test_copies_of_a_row_share_a_fold(jitter):
    problem, unit = copied(jitter)
    ids = fold_ids_of(problem, Judging(select="kfold"))
    assert [len(set(ids[unit == k].tolist())) for k in range(40)] == [1] * 40
    assert torch.bincount(ids).tolist() == [40] * 5


def test_groups_and_copies_are_together_at_once():
    problem, unit = copied(1e-6)
    site = np.where(unit < 3, "a", [f"row {i}" for i in range(len(unit))])  # three units are one site
    groups = with_copies(problem.train.x[0], site)
    assert isinstance(groups, torch.Tensor)
    assert len(groups.unique()) == 38
    assert len(groups[torch.from_numpy(unit < 3)].unique()) == 1


def test_rows_without_copies_and_tables_of_few_values_are_dealt_as_before():
    problem, _ = world()
    assert with_copies(problem.train.x[0]) is None
    sites = list(range(len(problem.train)))
    assert with_copies(problem.train.x[0], sites) is sites
    few = torch.randint(0, 3, (400, 2), generator=torch.Generator().manual_seed(0)).float()
    assert with_copies(few) is None


def test_copies_are_not_dealt_to_both_halves_of_a_test_split():
    problem, _ = world()
    noise = torch.randn(98, 6, generator=torch.Generator().manual_seed(0))
    test = part_of(replace(problem.train, x=problem.train.x + noise), slice(None))
    twice = replace(test, x=test.x.repeat(1, 2, 1), y=test.y.repeat(2))
    found = compare(["ncm"], problem, twice, budget=2, rounds=100, selection="cross_fit")
    scored = found.standings[0].scorers
    halves = fold_ids(twice.y, 2, groups=with_copies(twice.x[0]))
    assert all(len(set(halves[part.rows].tolist())) == 1 for part in scored)
    assert torch.equal(halves[:98], halves[98:])


def test_jittered_copies_promise_no_more_than_exact_ones():
    grid = ["ncm", "ce(epochs=3,lr=0.5)"]
    scores = []
    for jitter in (0.0, 1e-6):
        problem, _ = copied(jitter)  # labels that follow from nothing: whoever knows a copy knows the label
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PoiseWarning)
            records = tune(grid, problem, select="kfold").records
        scores.append([record.scores.balanced_accuracy for record in records])
    assert np.allclose(*scores, atol=0.06)
    assert max(map(max, scores)) < 0.7
