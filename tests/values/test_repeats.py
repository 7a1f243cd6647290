"""Rows that repeat others: equal ones, near copies, what is none, and tables whose rows repeat by right."""

import time

import numpy as np
import pytest
import torch

from poise.values import repeats as module
from poise.values.repeats import joined, repeats


def numbers(*views):
    """What each row of the views is, numbered in order of first appearance, as lists."""
    found = np.concatenate(repeats(*(torch.as_tensor(view) for view in views)).numbers)
    _, first, place = np.unique(found, return_index=True, return_inverse=True)
    return first.argsort().argsort()[place].tolist()


def normal(rows, dim, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, dim))


def test_equal_rows_are_found_within_and_between_views():
    one, other = [[0.0, 1.0], [2.0, 3.0], [-0.0, 1.0]], [[2.0, 3.0], [5.0, 8.0]]
    assert numbers(np.array(one), np.array(other)) == [0, 1, 0, 1, 2]
    found = repeats(torch.tensor(one), torch.tensor(other))
    assert [len(part) for part in found.numbers] == [3, 2]


def test_copies_of_copies_are_copies_and_a_difference_in_one_column_is_none():
    # The outer tenths of a column, the rows below included, begin at 1.5 and 8.5: the tolerance is 7e-5 / 2.5631.
    column = np.arange(11.0)
    rows = np.stack([column, column], axis=1)
    near = np.array([[5.0, 5.00002], [5.0, 5.00004], [5.0, 5.0001], [4.00002, 4.0], [4.00002, 4.1]])
    found = numbers(rows, near)
    assert found[:11] == list(range(11))
    assert found[11:] == [5, 5, 11, 4, 12]


@pytest.mark.parametrize("dim", [2, 5, 64, 300])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_jittered_copies_are_found_in_any_unit_and_around_any_middle(dim, scale):
    x = normal(60, dim) + 40
    copies = x[::2] + 1e-6 * normal(30, dim, seed=1)
    assert numbers(scale * x, scale * copies)[60:] == list(range(0, 60, 2))


def test_distinct_rows_of_a_table_of_three_decimals_are_no_copies():
    x = normal(5000, 3).round(3)
    again = x[:10] + np.array([0.001, 0, 0])
    assert len(np.unique(numbers(x))) == len(np.unique(x, axis=0))
    assert len(set(numbers(x, again)[5000:]) & set(range(10))) == 0


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_rows_that_were_stored_in_a_narrower_type_are_copies(kind):
    x = torch.from_numpy(normal(50, 8) + 3)
    assert numbers(x, x[10:20].to(kind))[50:] == list(range(10, 20))


def test_an_outlier_and_columns_without_spread_change_nothing():
    x = normal(200, 4)
    x[0, 0], x[:, 3] = 1e9, 7.0
    sparse = np.zeros((200, 1))
    sparse[::40] = 1.0
    table = np.concatenate([x, sparse], axis=1)
    assert numbers(table) == list(range(200))
    assert numbers(table, table[3:6] + 1e-7 * (table.std(axis=0) > 0))[200:] == [3, 4, 5]


def test_neither_the_order_of_rows_nor_that_of_columns_matters():
    x = normal(300, 7)
    table = np.concatenate([x, x[:40] + 1e-6 * normal(40, 7, seed=1), x[:9]])
    rows, columns = np.random.default_rng(2).permutation(len(table)), [3, 1, 6, 0, 5, 2, 4]
    pairs = np.equal.outer(*[numbers(table)] * 2)
    assert pairs.sum() == 260 + 31 * 4 + 9 * 9
    assert np.array_equal(np.equal.outer(*[numbers(table[rows][:, columns])] * 2), pairs[rows][:, rows])
    assert repeats(torch.from_numpy(table)).by_right == repeats(torch.from_numpy(table[rows])).by_right


def test_all_pairs_of_a_small_table_agree_with_a_plain_search():
    rng = np.random.default_rng(5)
    base = rng.normal(size=(40, 3))
    table = base[rng.integers(0, 40, 150)] + 4e-6 * rng.normal(size=(150, 3))
    found = repeats(torch.from_numpy(table)).numbers[0]
    low, high = np.quantile(table, [0.1, 0.9], axis=0)
    near = (np.abs(table[:, None] - table[None]) <= 1e-5 * (high - low) / 2.5631).all(axis=2)
    for _ in range(8):
        near = (near.astype(int) @ near) > 0
    assert np.array_equal(np.equal.outer(found, found), near)


def test_neighbours_in_a_crowded_column_are_no_copies():
    crowded = np.linspace(0, 1, 200_001)[:, None]  # steps of half a tolerance: a chain from end to end
    found = np.concatenate([crowded, crowded[:3]])
    assert len(np.unique(numbers(found))) == 200_001


def copied(x, times=5):
    return np.repeat(x, times, axis=0)


digits = pytest.importorskip("sklearn.datasets").load_digits().data
RNG = np.random.default_rng(0)
TWO = RNG.integers(0, 12, (300, 2)).astype(float)
BY_RIGHT = {
    "binarised digits": (digits > 8).astype(float),
    "three categories": np.concatenate([np.eye(10)[RNG.integers(0, 10, 3000)] for _ in range(3)], axis=1),
    "one category": RNG.integers(0, 40, (3000, 1)).astype(float),
    "one column": RNG.normal(size=(50_000, 1)),
    "two columns of two decimals": RNG.normal(size=(20_000, 2)).round(2),
    "a number in two units, beside another": np.c_[TWO, 2.54 * TWO[:, :1] + 7],
    "letters of words": np.array([[i % 3, i % 3, 0, 0] if i < 20 else [0, 0, i % 3, i % 3] for i in range(28)]) * 1.0,
    "constants": np.ones((50, 3)),
}
COPIED = {
    "rows": copied(RNG.normal(size=(75, 32))),
    "jittered rows": copied(RNG.normal(size=(75, 32))) + 1e-6 * RNG.normal(size=(375, 32)),
    "few columns": copied(RNG.normal(size=(400, 3))),
    "digits": copied(digits[:300]),
    "flowers": copied(pytest.importorskip("sklearn.datasets").load_iris().data),
    "a table with one telling column": copied(
        np.concatenate([np.eye(4)[RNG.integers(0, 4, 400)], RNG.normal(size=(400, 2))], axis=1)
    ),
}


@pytest.mark.parametrize("name", BY_RIGHT)
def test_tables_of_few_values_repeat_by_right(name):
    assert repeats(torch.from_numpy(BY_RIGHT[name])).by_right


@pytest.mark.parametrize("name", COPIED)
def test_copied_rows_do_not(name):
    assert not repeats(torch.from_numpy(COPIED[name])).by_right


def test_a_table_without_repeats_has_none_by_right():
    assert not repeats(torch.from_numpy(normal(100, 5))).by_right
    assert not repeats(torch.from_numpy(np.eye(3))).by_right
    assert not repeats(torch.ones(1, 4)).by_right


@pytest.mark.parametrize(("one", "other"), [([0, 0, 1, 2], [0, 1, 1, 2]), ([0, 0, 0, 1], [0, 1, 2, 3])])
def test_rows_of_one_number_of_either_kind_are_joined(one, other):
    found = joined(np.array(one), np.array(other))
    assert len(set(found.tolist())) == 2
    assert len(set(found[:3].tolist())) == 1


def test_rows_are_read_in_blocks(monkeypatch):
    x = normal(101, 6)
    table = np.concatenate([x, x[::3] + 1e-6])
    whole = numbers(table)
    monkeypatch.setattr("poise.values.arrays.READ_NUMBERS", 50)
    monkeypatch.setattr(module, "READ_NUMBERS", 50)
    assert numbers(table) == whole


@pytest.mark.parametrize(
    "x", [normal(10_000, 64), copied(normal(2, 64), 5000) + 1e-8 * normal(10_000, 64), np.ones((50_000, 2))]
)
def test_thousands_of_rows_take_seconds_at_most_even_where_all_are_copies(x):
    begun = time.process_time()
    repeats(torch.from_numpy(x))
    assert time.process_time() - begun < 5  # 0.1 to 0.5 on a quiet machine; comparing every two rows takes minutes
