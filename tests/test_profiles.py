"""Long-tail shapes, the published counts, the choice of rows, and the class counts of the real data sets."""

import gzip
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from poise.errors import InputError
from poise.profiles import SPLITS, exponential, pareto, select, split_hash, split_rows, step
from poise.values.counts import ClassCounts

DATA = os.environ.get("POISE_DATA", "")
needs_data = pytest.mark.skipif(not DATA, reason="POISE_DATA, the path of the published counts and lists, is not set")

SHAPES = {"exponential": exponential, "pareto": pareto, "step": step}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


def group_sizes(counts):
    """Numbers of many, medium and few classes."""
    return tuple(int(mask.sum()) for mask in ClassCounts(torch.as_tensor(counts)).shots().values())


def shuffled_labels(classes, each, seed=0):
    """Labels (classes * each,) of a balanced set in random order."""
    return torch.from_numpy(np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), each)))


# --- shapes ----------------------------------------------------------------------------------------------------------


@st.composite
def profile_arguments(draw):
    n_max = draw(st.integers(1, 20_000))
    return n_max, draw(st.integers(2, 300)), draw(st.floats(1, n_max))


@each_shape
@given(arguments=profile_arguments())
@settings(deadline=None, max_examples=100)
def test_profiles_fall_from_n_max_to_the_last_count(shape, arguments):
    n_max, classes, imbalance = arguments
    # The released code multiplies by 1 / imbalance, which may fall one rounding short of a whole quotient.
    last = {int(n_max / imbalance), int(n_max * (1 / imbalance))}
    try:
        counts = shape(n_max, classes, imbalance)
    except InputError:
        assert 0 in last
        return
    assert counts.shape == (classes,)
    assert counts.dtype == torch.int64
    assert int(counts[0]) == n_max
    assert int(counts[-1]) in last
    assert (counts.diff() <= 0).all()


@each_shape
@given(n_max=st.integers(1, 5000), classes=st.integers(2, 50), imbalance=st.integers(1, 1000))
@example(n_max=49, classes=10, imbalance=49)  # 49 * (1 / 49) is below 1
@settings(deadline=None, max_examples=100)
def test_whole_imbalances_end_at_the_whole_quotient(shape, n_max, classes, imbalance):
    exact = n_max // imbalance
    if exact == 0:
        with pytest.raises(InputError):
            shape(n_max, classes, imbalance)
        return
    assert int(shape(n_max, classes, imbalance)[-1]) == exact


@each_shape
def test_a_profile_with_an_empty_last_class_is_refused_with_the_imbalance(shape):
    with pytest.raises(InputError, match="imbalance 200 leaves no row for the last class of at most 100; lower it"):
        shape(100, 5, 200)


@each_shape
@pytest.mark.parametrize("arguments", [(0, 5, 10), (100, 1, 10), (100, 5, 0.5), (100, 5, float("nan"))])
def test_impossible_arguments_are_refused_with_their_values(shape, arguments):
    with pytest.raises(InputError, match=f"got {arguments[0]}, {arguments[1]} and {arguments[2]}"):
        shape(*arguments)


@each_shape
def test_no_imbalance_gives_equal_counts(shape):
    assert shape(30, 7, 1).tolist() == [30] * 7


def test_exponential_agrees_with_the_released_loop():
    for n_max, classes, imbalance in ((500, 100, 37), (1234, 7, 3.5), (5000, 10, 256)):
        expected = [int(n_max * (1 / imbalance) ** (c / (classes - 1.0))) for c in range(classes)]
        assert exponential(n_max, classes, imbalance).tolist() == expected


def test_pareto_agrees_with_its_formula_and_nears_the_exponential():
    reach = 100 ** (1 / 2) - 1
    expected = [int(1000 * (1 + c / 4 * reach) ** -2.0) for c in range(4)]
    assert pareto(1000, 5, 100, power=2.0).tolist() == [*expected, 10]
    steep = pareto(5000, 10, 100, power=1e6)
    assert (steep - exponential(5000, 10, 100)).abs().max() <= 1


def test_small_powers_fall_steeply_first():
    assert int(pareto(1000, 11, 100, power=1.0)[5]) < int(pareto(1000, 11, 100, power=6.0)[5])


def test_step_has_two_heights():
    assert step(100, 5, 10, head_share=0.4).tolist() == [100, 100, 10, 10, 10]
    assert step(100, 5, 10, head_share=0.01).tolist() == [100, 10, 10, 10, 10]


@pytest.mark.parametrize("share", [0, 1, -0.5, float("nan")])
def test_a_head_share_outside_the_open_unit_interval_is_refused(share):
    with pytest.raises(InputError, match=rf"head_share must lie in \(0, 1\), got {share}"):
        step(100, 5, 10, head_share=share)


def test_a_power_that_is_not_positive_is_refused():
    with pytest.raises(InputError, match=r"power must be at least 0\.1, got 0"):
        pareto(100, 5, 10, power=0)


# --- published counts ------------------------------------------------------------------------------------------------

# (n_max, classes, imbalance): rows, last count, (many, medium, few) classes
CIFAR = {
    (500, 100, 200): (9502, 2, (30, 31, 39)),
    (500, 100, 100): (10847, 5, (35, 35, 30)),
    (500, 100, 50): (12608, 10, (41, 41, 18)),
    (500, 100, 10): (19573, 50, (69, 31, 0)),
    (5000, 10, 200): (11203, 25, (7, 3, 0)),
    (5000, 10, 100): (12406, 50, (8, 2, 0)),
    (5000, 10, 50): (13996, 100, (9, 1, 0)),
    (5000, 10, 10): (20431, 500, (10, 0, 0)),
}


@pytest.mark.parametrize(("arguments", "published"), CIFAR.items(), ids=str)
def test_cifar_profiles_have_the_published_totals_and_groups(arguments, published):
    counts = exponential(*arguments)
    assert (int(counts.sum()), int(counts[-1]), group_sizes(counts)) == published


def test_cifar10_if100_is_the_published_list():
    assert exponential(5000, 10, 100).tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


def test_cifar100_if100_has_the_published_counts_at_the_group_edges():
    counts = exponential(500, 100, 100)
    assert counts[[0, 1, 34, 35, 69, 70, 99]].tolist() == [500, 477, 102, 98, 20, 19, 5]


# --- choice of rows --------------------------------------------------------------------------------------------------


@st.composite
def balanced_set_and_counts(draw):
    classes, each = draw(st.integers(2, 8)), draw(st.integers(1, 20))
    wanted = draw(st.lists(st.integers(0, each), min_size=classes, max_size=classes).filter(any))
    return shuffled_labels(classes, each, draw(st.integers(0, 9))), wanted


@given(balanced_set_and_counts(), st.sampled_from(["first", "ldam", 0, 3]))
@settings(deadline=None, max_examples=100)
def test_a_selection_has_exactly_the_wanted_counts_class_by_class_without_repeats(labels_and_counts, order):
    y, wanted = labels_and_counts
    rows = select(y, torch.tensor(wanted), order)
    assert len(rows.unique()) == len(rows)
    assert y[rows].tolist() == [k for k, number in enumerate(wanted) for _ in range(number)]


def test_first_takes_the_first_rows_of_each_class_in_file_order():
    y = torch.tensor([1, 0, 0, 2, 1, 0, 2, 1])
    assert select(y, torch.tensor([2, 2, 1])).tolist() == [1, 2, 0, 4, 3]


def ldam_reference(y, counts):
    """The choice of LDAM's released data set: one global legacy generator, seeded once, classes in order."""
    before = np.random.get_state()
    np.random.seed(0)
    chosen = []
    for k, number in enumerate(counts):
        index = np.where(np.array(y) == k)[0]
        np.random.shuffle(index)
        chosen.extend(index[:number])
    np.random.set_state(before)
    return chosen


@pytest.mark.parametrize("imbalance", [10, 100])
def test_ldam_order_reproduces_the_legacy_generator(imbalance):
    y, counts = shuffled_labels(10, 500), exponential(500, 10, imbalance)
    assert select(y, counts, "ldam").tolist() == ldam_reference(y.tolist(), counts.tolist())


def test_ldam_order_neither_reads_nor_moves_the_global_generator():
    y, counts = shuffled_labels(10, 50), exponential(50, 10, 10)
    first = select(y, counts, "ldam")
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    assert torch.equal(first, select(y, counts, "ldam"))
    assert (np.random.get_state()[1] == state).all()


def test_an_empty_class_moves_the_legacy_generator_too():
    y = shuffled_labels(3, 20)
    assert select(y, torch.tensor([4, 0, 4]), "ldam").tolist() == ldam_reference(y.tolist(), [4, 0, 4])


def test_seeds_give_reproducible_and_different_selections():
    y, counts = shuffled_labels(10, 50), exponential(50, 10, 10)
    choices = [select(y, counts, order) for order in ("first", "ldam", 0, 1)]
    assert torch.equal(choices[2], select(y, counts, 0))
    assert len({tuple(rows.tolist()) for rows in choices}) == 4


REFUSED = {
    "too few rows": (lambda: select(torch.tensor([0, 1, 1, 0]), torch.tensor([2, 3])), ("class 1 has 2 rows", "3")),
    "label": (lambda: select(torch.tensor([0, 7]), torch.tensor([1, 1])), ("row 1", "label 7")),
    "order": (lambda: select(torch.tensor([0, 1]), torch.tensor([1, 1]), "last"), ("'first', 'ldam'", "'last'")),
    "split": (lambda: split_rows("cifar100_lt", torch.tensor([0, 1])), ("'cifar100_lt'", "cifar100_lt_if100_ldam")),
    "small set": (lambda: split_rows("cifar10_lt_if10_first", shuffled_labels(10, 100)), ("class 0 has 100 rows",)),
}


@pytest.mark.parametrize(("call", "fragments"), REFUSED.values(), ids=REFUSED.keys())
def test_impossible_selections_are_refused_with_the_class_or_the_choices(call, fragments):
    with pytest.raises(InputError) as refused:
        call()
    assert all(fragment in str(refused.value) for fragment in fragments)


# --- named splits ----------------------------------------------------------------------------------------------------


def test_splits_are_named_by_data_set_imbalance_and_order():
    assert set(SPLITS) == {
        f"cifar{classes}_lt_if{imbalance}_{order}"
        for classes in (10, 100)
        for imbalance in (10, 50, 100, 200)
        for order in ("first", "ldam")
    }


@pytest.mark.parametrize("name", SPLITS)
def test_every_split_chooses_its_published_counts_in_its_order(name):
    split = SPLITS[name]
    y = shuffled_labels(split.classes, split.n_max)
    rows = split_rows(name, y)
    total, last, _ = CIFAR[split.n_max, split.classes, int(split.imbalance)]
    assert len(rows) == total
    assert torch.equal(torch.bincount(y[rows]), split.counts)
    assert int(split.counts[-1]) == last
    assert name.endswith(split.order)
    assert torch.equal(rows, select(y, split.counts, split.order))


def test_users_of_an_order_are_told_apart():
    assert "LOS" in SPLITS["cifar100_lt_if100_first"].used_by
    assert "LDAM" in SPLITS["cifar100_lt_if100_ldam"].used_by


def test_the_hash_of_a_split_is_that_of_its_row_numbers_in_order():
    rows = torch.tensor([3, 1, 2])
    expected = hashlib.sha256(np.array([3, 1, 2], dtype="<i8").tobytes()).hexdigest()[:16]
    assert split_hash(rows) == split_hash(rows.int()) == expected
    assert split_hash(rows.flip(0)) != expected
    assert split_hash(torch.stack([rows, rows], dim=1)[:, 0]) == expected


# --- real data sets --------------------------------------------------------------------------------------------------

# classes' rows of many, medium and few; total; largest and smallest class
PUBLISHED = {
    "ImageNet_LT": ((385, 479, 136), (88_693, 25_510, 1_643), 115_846, (1280, 5)),
    "Places_LT": ((131, 163, 71), (52_762, 8_934, 804), 62_500, (4980, 5)),
    "iNaturalist18": ((842, 4076, 3224), (258_340, 133_061, 46_112), 437_513, (1000, 2)),
}


def published_counts(name):
    return torch.tensor(json.loads((Path(DATA) / "counts" / f"{name}.json").read_text()))


def listed_labels(name):
    """Labels of an official list file, after a look at every path."""
    lines = [line.split() for line in gzip.decompress((Path(DATA) / "lists" / name).read_bytes()).decode().splitlines()]
    assert all(len(parts) == 2 and parts[0].endswith((".jpg", ".JPEG")) for parts in lines)
    return torch.tensor([int(label) for _, label in lines])


@needs_data
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_have_the_published_groups_and_totals(name):
    counts = published_counts(name)
    groups, images, total, extremes = PUBLISHED[name]
    assert group_sizes(counts) == groups
    shots = ClassCounts(counts).shots()
    assert tuple(int(counts[mask].sum()) for mask in shots.values()) == images
    assert int(counts.sum()) == total
    assert (int(counts.max()), int(counts.min())) == extremes


LISTS = {
    "ImageNet_LT_val.txt.gz": (1000, 20),
    "Places_LT_val.txt.gz": (365, 20),
    "Places_LT_test.txt.gz": (365, 100),
    "iNaturalist18_val.txt.gz": (8142, 3),
}


@needs_data
@pytest.mark.parametrize(("name", "shape"), LISTS.items(), ids=LISTS.keys())
def test_evaluation_lists_hold_the_same_number_of_images_of_every_class(name, shape):
    classes, each = shape
    assert torch.equal(torch.bincount(listed_labels(name)), torch.full((classes,), each))


@needs_data
def test_the_training_list_of_places_gives_its_published_counts():
    y = listed_labels("Places_LT_train.txt.gz")
    assert len(y) == 62_500
    assert torch.equal(ClassCounts.from_labels(y).n, published_counts("Places_LT"))


# many, medium, few and 'All' of published tables; 'All' is the mix by the numbers of classes.
MIXES = {
    "CIFAR100-LT weight balancing": (None, (72.60, 51.86, 32.63), 53.35),
    "CIFAR100-LT CE with weight decay": (None, (76.94, 44.28, 12.17), 46.08),
    "ImageNet-LT joint": ("ImageNet_LT", (65.9, 37.5, 7.7), 44.4),
    "ImageNet-LT tau-norm": ("ImageNet_LT", (59.1, 46.9, 30.7), 49.4),
    "Places-LT cRT": ("Places_LT", (42.0, 37.6, 24.9), 36.7),
    "Places-LT LWS": ("Places_LT", (40.6, 39.1, 28.6), 37.6),
    "iNaturalist weight decay": ("iNaturalist18", (74.5, 66.5, 61.5), 65.4),
}


@pytest.mark.parametrize(("counts", "groups", "printed"), MIXES.values(), ids=MIXES.keys())
def test_published_averages_mix_from_their_groups(counts, groups, printed):
    if counts and not DATA:
        pytest.skip("POISE_DATA, the path of the published counts and lists, is not set")
    sizes = group_sizes(published_counts(counts) if counts else exponential(500, 100, 100))
    mixed = sum(size * group for size, group in zip(sizes, groups, strict=True)) / sum(sizes)
    decimals = 0.1 if counts else 0.01
    assert mixed == pytest.approx(printed, abs=decimals * 1.01)  # four rounded numbers
