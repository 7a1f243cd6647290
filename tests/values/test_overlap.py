"""Rows that two splits share: counted by hand, judged beside chance, said or refused in words."""

import numpy as np
import pytest
import torch

from poise.errors import MemorisedRowsError, PoiseWarning
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.overlap import Part, Rows, overlap, shared, warn_of_overlap


def part(*rows, y=None, weight=None):
    labels = np.zeros(len(rows), dtype=np.int64) if y is None else np.array(y)
    return Part(np.array(rows), labels, None if weight is None else np.array(weight, dtype=np.float64))


def rows(count, dim=6, seed=0, classes=3):
    generator = torch.Generator().manual_seed(seed)
    return Rows(torch.randn(count, dim, generator=generator), torch.arange(count) % classes)


def both(one, other):
    return Rows(torch.cat([one.x, other.x]), torch.cat([one.y, other.y]))


def some(split, chosen):
    return Rows(split.x[chosen], split.y[chosen])


def test_what_two_splits_share_is_counted_from_both_sides():
    assert shared(part(4, 5, 6, 7), part(8, 9), by_right=False) is None
    found = shared(part(4, 5, 5, 6, 7), part(9, 6, 5), by_right=False)
    assert found is not None
    assert (found.rows, found.others, found.example) == (2, 3, (1, 3))


def test_chance_is_what_the_larger_split_repeats_of_each_class():
    # Class 0: 2 of 4 rows repeat; class 1: none of 4; in all 1 of 4, which weighs as much as 5 rows.
    large = part(0, 0, 1, 2, 3, 4, 5, 6, y=[0] * 4 + [1] * 4)
    found = shared(large, part(0, 9, 10, y=[0, 0, 1]), by_right=True)
    assert found is not None
    assert found.chance == pytest.approx(2 * (2 + 5 / 4) / 9 + (0 + 5 / 4) / 9)


def test_a_weight_of_two_is_the_row_twice():
    large = part(0, 1, 2, 3, weight=[2, 1, 1, 1])
    found = shared(large, part(0, 9), by_right=True)
    assert found is not None
    assert found.chance == pytest.approx(2 / 4)


def test_one_row_is_never_too_many_and_two_are_beyond_a_twentieth():
    train = part(*range(1000))
    cases = {(1, 3): False, (2, 39): True, (2, 40): False, (5, 100): False, (6, 100): True}
    for (common, size), too_many in cases.items():
        found = shared(train, part(*range(common), *range(2000, 2000 + size - common)), by_right=False)
        assert found is not None
        assert (found.rows, found.too_many) == (common, too_many), (common, size)


def test_it_is_a_twentieth_of_the_smaller_split():
    train, test = part(*range(20)), part(*range(2), *range(100, 1000))
    found = shared(train, test, by_right=False)
    assert found is not None
    assert (found.rows, found.others, found.too_many) == (2, 2, True)


def test_what_repeats_by_right_may_be_shared_by_as_many():
    train = part(*(np.arange(1000) % 10))
    found = shared(train, part(*range(10)), by_right=True)
    assert found is not None
    assert not found.too_many
    copied = shared(train, part(*range(10)), by_right=False)
    assert copied is not None
    assert copied.too_many


def test_equal_splits_are_too_many_whatever_chance_gives():
    train = part(*(np.arange(100) % 10))
    found = shared(train, train, by_right=True)
    assert found is not None
    assert found.too_many


# --- rows of features -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", [slice(None), slice(1, None), slice(None, None, 2), slice(None, None, -1)])
@pytest.mark.parametrize("jitter", [0.0, 1e-6])
def test_the_training_rows_or_a_part_of_them_are_refused(chosen, jitter):
    train = rows(80)
    places = torch.arange(80).numpy()[chosen].copy()
    held_out = some(train, torch.from_numpy(places))
    held_out = held_out._replace(x=held_out.x + jitter * rows(len(places), seed=1).x)
    with pytest.raises(MemorisedRowsError) as caught:
        overlap({"training": train, "held-out": held_out, "test": rows(50, seed=2)})
    assert str(caught.value) == (
        f"{len(places)} of {len(places)} held-out rows are training rows too (the first: held-out row 0, training row "
        f"{places[0]}), where chance gives 0: what was learnt by heart would be measured as skill; give rows that were "
        "used for nothing else, or remove the shared ones from one of the two"
    )


def test_training_rows_within_a_larger_split_are_refused():
    train = rows(20)
    with pytest.raises(MemorisedRowsError, match=r"which are 20 of the 20 training rows, where chance gives 0"):
        overlap({"training": train, "test": both(rows(2000, seed=1), train)})


def test_rows_that_select_and_judge_are_refused():
    held_out = rows(60, seed=1)
    with pytest.raises(MemorisedRowsError, match=r"^59 of 59 test rows are held-out rows too"):
        overlap({"training": rows(80), "held-out": held_out, "test": some(held_out, slice(1, None))})


def test_a_few_are_said_with_numbers_whatever_their_labels():
    train, test = rows(80), rows(100, seed=1)
    x, y = test.x.clone(), test.y.clone()
    x[7], x[30] = train.x[12], train.x[3]
    y[7] = (train.y[12] + 1) % 3
    said = (
        "2 of 100 test rows are training rows too (the first: test row 7, training row 12); what is measured on them "
        "is no evidence"
    )
    parts = {"training": train, "held-out": None, "test": Rows(x, y)}
    assert overlap(parts) == [said]
    with pytest.warns(PoiseWarning, match=r"^2 of 100 test rows") as caught:
        warn_of_overlap(parts)
    assert len(caught) == 1


def test_splits_without_a_common_row_pass_in_silence():
    assert overlap({"training": rows(80), "held-out": rows(50, seed=1), "test": rows(50, seed=2)}) == []
    assert overlap({"training": rows(80), "held-out": None}) == []


def test_the_order_of_rows_changes_nothing():
    train, test = rows(80), both(rows(100, seed=1), some(rows(80), slice(3)))
    turned = torch.randperm(80, generator=torch.Generator().manual_seed(3))
    (said,), (again,) = (overlap({"training": each, "test": test}) for each in (train, some(train, turned)))
    assert said.split("(")[0] == again.split("(")[0] == "3 of 103 test rows are training rows too "


def test_rows_of_weight_zero_belong_to_no_split():
    train = rows(80)
    weight = (torch.arange(80) >= 40).double()
    left_out = some(train, slice(40))
    assert overlap({"training": train._replace(weight=weight), "held-out": left_out}) == []
    with pytest.raises(MemorisedRowsError, match="training row 40"):
        overlap({"training": train._replace(weight=weight), "held-out": some(train, slice(40, None))})


def test_features_are_compared_by_their_test_time_view():
    train = rows(80)
    counts = ClassCounts(torch.tensor([27, 27, 26]))
    views = Features(torch.stack([train.x, train.x + 1]), train.y, counts)
    with pytest.raises(MemorisedRowsError, match="80 of 80"):
        overlap({"training": views, "held-out": train})


def divided(x, seed):
    """A table as training and held-out rows, divided by chance, with labels that follow from the first column."""
    order = np.random.default_rng(seed).permutation(len(x))
    y = torch.from_numpy((x[order, 0] > np.median(x[:, 0])).astype(np.int64))
    values = torch.from_numpy(x[order])
    cut = len(x) * 3 // 4
    return {"training": Rows(values[:cut], y[:cut]), "held-out": Rows(values[cut:], y[cut:])}


def few_valued():
    digits = pytest.importorskip("sklearn.datasets").load_digits().data
    rng = np.random.default_rng(0)
    yield "binarised digits", (digits > 8).astype(float)
    yield "categories", np.concatenate([np.eye(6)[rng.integers(0, 6, 1200)] for _ in range(3)], axis=1)
    yield "rare categories", np.concatenate([np.eye(8)[rng.geometric(0.4, 400).clip(1, 8) - 1] for _ in range(4)], 1)
    yield "numbers of a category", rng.integers(0, 40, (600, 1)).astype(float)
    yield "one column", rng.normal(size=(4000, 1)).round(2)
    yield "binary", rng.integers(0, 2, (300, 6)).astype(float)


@pytest.mark.parametrize(
    ("name", "table"), list(few_valued()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_tables_of_few_values_are_never_refused_when_chance_divides_them(name, table):
    for seed in range(10):
        assert overlap(divided(table, seed)) == []


@pytest.mark.parametrize("jitter", [0.0, 1e-6])
def test_rows_that_were_copied_before_chance_divided_them_are_refused(jitter):
    rng = np.random.default_rng(0)
    copied = np.repeat(rng.normal(size=(75, 32)), 5, axis=0) + jitter * rng.normal(size=(375, 32))
    with pytest.raises(MemorisedRowsError, match="of 94 held-out rows are training rows too"):
        overlap(divided(copied, 0))


def test_the_flowers_that_are_twice_in_their_table_are_no_reason_to_refuse():
    flowers = pytest.importorskip("sklearn.datasets").load_iris().data
    for seed in range(10):
        overlap(divided(flowers, seed))
