"""Folds: even, whole groups, the same for the same seed, and no class too rare."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poise.errors import InputError
from poise.folds import fold_ids, group_ids, scorable

LONG_TAIL = torch.repeat_interleave(torch.arange(6), torch.tensor([40, 17, 9, 5, 2, 1]))

labels = st.lists(st.integers(0, 6), min_size=2, max_size=60).map(torch.tensor)


def sizes(ids: torch.Tensor, folds: int) -> torch.Tensor:
    """(folds,) rows of every fold."""
    return torch.bincount(ids, minlength=folds)


def table(y: torch.Tensor, ids: torch.Tensor, folds: int) -> torch.Tensor:
    """(C, folds) rows of every class in every fold."""
    return torch.stack([sizes(ids[y == k], folds) for k in y.unique()])


# --- rows ------------------------------------------------------------------------------------------------------------


@given(y=labels, folds=st.integers(2, 8), seed=st.integers(0, 3))
@settings(deadline=None, max_examples=100)
def test_folds_differ_by_at_most_one_row_in_every_class_and_over_all(y, folds, seed) -> None:
    if len(y) < folds:
        return
    ids = fold_ids(y, folds, seed=seed)
    each = table(y, ids, folds)
    assert ids.dtype == torch.int64
    assert (each.amax(dim=1) - each.amin(dim=1)).max() <= 1
    assert sizes(ids, folds).max() - sizes(ids, folds).min() <= 1
    assert torch.equal(each.sum(dim=0), sizes(ids, folds))


def test_a_class_of_one_row_lies_in_one_fold_and_no_fold_is_empty() -> None:
    ids = fold_ids(LONG_TAIL, 5)
    assert (table(LONG_TAIL, ids, 5)[-1] > 0).sum() == 1
    assert ids.unique().tolist() == [0, 1, 2, 3, 4]


def test_as_many_folds_as_rows_leave_one_row_out_each() -> None:
    assert fold_ids(torch.tensor([0, 1, 0, 1]), 4).sort().values.tolist() == [0, 1, 2, 3]


def test_the_same_seed_gives_the_same_folds_whatever_the_global_random_state() -> None:
    first = fold_ids(LONG_TAIL, 5, seed=3)
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(fold_ids(LONG_TAIL, 5, seed=3), first)
    assert not torch.equal(fold_ids(LONG_TAIL, 5, seed=4), first)


def test_rows_of_one_class_are_mixed_before_they_are_dealt() -> None:
    # In their given order the rows 0, 5, 10, ... of the first class would share a fold.
    assert fold_ids(LONG_TAIL, 5)[:40:5].unique().numel() > 1


def test_labels_with_gaps_give_the_same_folds_and_any_names_of_classes_stay_even() -> None:
    ids = fold_ids(LONG_TAIL, 5)
    assert torch.equal(fold_ids(3 * LONG_TAIL + 1, 5), ids)
    each = table(5 - LONG_TAIL, fold_ids(5 - LONG_TAIL, 5), 5)
    assert torch.equal(each.sum(dim=1), torch.tensor([1, 2, 5, 9, 17, 40]))
    assert (each.amax(dim=1) - each.amin(dim=1)).max() <= 1


def test_labels_may_be_any_integers_in_a_list_or_array() -> None:
    expected = fold_ids(LONG_TAIL, 3)
    assert torch.equal(fold_ids(LONG_TAIL.int(), 3), expected)
    assert torch.equal(fold_ids(LONG_TAIL.tolist(), 3), expected)
    assert torch.equal(fold_ids(LONG_TAIL.numpy(), 3), expected)


# --- groups ----------------------------------------------------------------------------------------------------------


@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 11)), min_size=2, max_size=60),
    folds=st.integers(2, 5),
    seed=st.integers(0, 3),
)
@settings(deadline=None, max_examples=100)
def test_groups_stay_whole_and_no_fold_is_empty(rows, folds, seed) -> None:
    y, groups = torch.tensor(rows).T
    if len(groups.unique()) < folds:
        return
    ids = fold_ids(y, folds, groups=groups, seed=seed)
    assert all(len(ids[groups == group].unique()) == 1 for group in groups.unique())
    assert (sizes(ids, folds) > 0).all()


def test_groups_of_one_row_are_as_even_within_a_class_as_rows() -> None:
    y = torch.arange(4).repeat_interleave(10)
    assert (table(y, fold_ids(y, 5, groups=torch.arange(40)), 5) == 2).all()


def test_groups_of_equal_size_are_spread_over_the_folds_of_their_class() -> None:
    # Two classes with six groups of five rows each: three folds hold two groups of either class.
    y = torch.arange(2).repeat_interleave(30)
    groups = torch.arange(12).repeat_interleave(5)
    assert (table(y, fold_ids(y, 3, groups=groups), 3) == 10).all()


def test_a_group_that_dominates_a_class_does_not_pull_the_others_to_its_fold() -> None:
    y = torch.zeros(20, dtype=torch.int64)
    groups = torch.tensor([0] * 10 + [1] * 5 + [2] * 5)
    ids = fold_ids(y, 2, groups=groups)
    assert sizes(ids, 2).tolist() == [10, 10]
    assert ids[10] == ids[15] != ids[0]


def test_only_the_order_of_group_names_matters_not_what_they_are() -> None:
    numbers = torch.arange(len(LONG_TAIL)) % 12
    names = [f"site {number:02d}" for number in numbers.tolist()]
    expected = fold_ids(LONG_TAIL, 4, groups=numbers, seed=2)
    for same in (names, np.array(names, dtype=object), 7 * numbers + 3, (0.5 * numbers).numpy()):
        assert torch.equal(fold_ids(LONG_TAIL, 4, groups=same, seed=2), expected)


def test_the_seed_deals_groups_of_one_size_differently() -> None:
    y, groups = torch.arange(2).repeat_interleave(30), torch.arange(12).repeat_interleave(5)
    found = {tuple(fold_ids(y, 3, groups=groups, seed=seed).tolist()) for seed in range(3)}
    assert len(found) == 3
    assert torch.equal(fold_ids(y, 3, groups=groups, seed=1), fold_ids(y, 3, groups=groups, seed=1))


def test_groups_are_numbered_in_the_order_of_their_names() -> None:
    assert group_ids(["b", "a", "b", "c"], 4).tolist() == [1, 0, 1, 2]
    assert group_ids(torch.tensor([30, 10, 30, 20]), 4).tolist() == [2, 0, 2, 1]


# --- what can be scored ----------------------------------------------------------------------------------------------


def test_rows_of_a_class_that_lies_in_one_fold_are_not_scored() -> None:
    y, ids = torch.tensor([0, 0, 1, 1, 2, 3, 3]), torch.tensor([0, 1, 0, 0, 1, 1, 0])
    assert scorable(y, ids).tolist() == [True, True, False, False, False, True, True]


@given(y=labels, folds=st.integers(2, 5), seed=st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_every_class_of_two_rows_can_be_scored_and_none_of_one(y, folds, seed) -> None:
    if len(y) < folds:
        return
    expected = torch.bincount(y)[y] > 1
    assert torch.equal(scorable(y, fold_ids(y, folds, seed=seed)), expected)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [1, 0, -2, 2.0, True, "5", None])
def test_a_number_of_folds_that_is_none_is_refused(folds) -> None:
    with pytest.raises(InputError, match=r"^folds must be a whole number, 2 or more, got "):
        fold_ids(LONG_TAIL, folds)


def test_too_few_rows_or_groups_are_counted() -> None:
    with pytest.raises(InputError, match=r"^5 folds need at least 5 rows, got 3; ask for fewer folds$"):
        fold_ids(torch.tensor([0, 0, 1]), 5)
    with pytest.raises(InputError, match=r"^5 folds need at least 5 groups, got 2; ask for fewer folds$"):
        fold_ids(LONG_TAIL, 5, groups=LONG_TAIL % 2)


def test_groups_of_another_length_are_refused() -> None:
    with pytest.raises(InputError, match=r"one entry per row, got shape \(3,\) for 74 rows$"):
        fold_ids(LONG_TAIL, 5, groups=["a", "b", "c"])


def test_a_label_that_is_no_class_is_named() -> None:
    with pytest.raises(InputError, match="row 1 has label -1"):
        fold_ids(torch.tensor([0, -1, 1]), 2)
