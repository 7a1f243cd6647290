"""Intervals: identities, agreement with the classical formulas, and coverage on constructed truth."""

import pytest
import torch
from scipy import stats

from poise.errors import InputError
from poise.statistics import (
    bootstrap_interval,
    class_variances,
    paired_difference,
    recalls,
    simultaneous_intervals,
)

OVER = ["images", "classes"]


def draws(seed: int, *, classes: int = 40, rows: int = 30, methods: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """(correct (methods, N), y): rows right with a probability that differs by class and not by method."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(classes).repeat_interleave(rows)
    chance = torch.rand(classes, generator=g)
    return torch.rand(methods, len(y), generator=g) < chance[y], y


def test_recalls_are_means_within_the_classes_present() -> None:
    correct = torch.tensor([True, False, True, True])
    assert recalls(correct, torch.tensor([5, 5, 9, 2])).tolist() == [1.0, 0.5, 1.0]


@pytest.mark.parametrize("over", OVER)
def test_the_estimate_is_the_balanced_accuracy(over) -> None:
    correct, y = draws(0)
    expected = float(recalls(correct[0], y).mean())
    assert bootstrap_interval(correct[0], y, over=over).estimate == pytest.approx(expected, abs=1e-12)


def test_over_classes_it_is_nearly_the_t_interval_of_the_recalls() -> None:
    correct, y = draws(1)
    found = bootstrap_interval(correct[0], y, over="classes", rounds=20000)
    values = recalls(correct[0], y)
    width = stats.t.ppf(0.975, len(values) - 1) * float(values.std()) / len(values) ** 0.5
    # The bootstrap-t quantile differs from Student's by the shape of the recalls and by 20,000 draws.
    assert found.high - found.estimate == pytest.approx(width, rel=0.06)


def test_over_images_it_is_nearly_the_normal_interval_of_a_stratified_mean() -> None:
    correct, y = draws(2, rows=200)
    found = bootstrap_interval(correct[0], y, rounds=20000)
    p = recalls(correct[0], y)
    error = float((p * (1 - p) / 199).sum()) ** 0.5 / len(p)
    assert found.high - found.estimate == pytest.approx(1.96 * error, rel=0.03)


@pytest.mark.parametrize("over", OVER)
def test_methods_alike_on_every_row_differ_by_nothing_within_what_other_rows_may_show(over) -> None:
    correct, y = draws(3)
    found = paired_difference(correct[0], correct[0], y, over=over)
    assert found.estimate == 0.0
    # One row that differs, added to 1,200: a standard error of 1 / 1,200, and a quantile above the normal one.
    assert 1.9 / 1201 < found.high == -found.low < 3 / 1200


@pytest.mark.parametrize("over", OVER)
def test_swapping_two_methods_mirrors_the_interval(over) -> None:
    correct, y = draws(4, methods=2)
    there, back = (paired_difference(*pair, y, over=over) for pair in (correct, correct.flip(0)))
    assert there == pytest.approx((-back.estimate, -back.high, -back.low), abs=1e-12)


@pytest.mark.parametrize("over", OVER)
def test_pairing_removes_what_two_methods_share(over) -> None:
    correct, y = draws(5)
    changed = correct[0].clone()
    changed[::50] = True  # a slightly better copy
    single = bootstrap_interval(changed, y, over=over)
    paired = paired_difference(changed, correct[0], y, over=over)
    assert paired.high - paired.low < (single.high - single.low) / 3


@pytest.mark.parametrize("over", OVER)
def test_intervals_of_many_methods_together_are_wider_and_of_one_alone_the_same(over) -> None:
    correct, y = draws(6, methods=12)
    together = simultaneous_intervals(correct.double(), y, over=over, lowest=0.0)
    alone = bootstrap_interval(correct[0], y, over=over)
    assert together[0].high > alone.high
    assert simultaneous_intervals(correct[:1].double(), y, over=over, lowest=0.0)[0] == alone


@pytest.mark.parametrize("over", OVER)
def test_the_order_of_the_rows_and_the_names_of_the_classes_do_not_matter_to_the_estimate(over) -> None:
    correct, y = draws(7)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    a = bootstrap_interval(correct[0], y, over=over)
    b = bootstrap_interval(correct[0][order], 3 * y[order] + 1, over=over)
    assert b.estimate == pytest.approx(a.estimate, abs=1e-12)
    assert b.high == pytest.approx(a.high, rel=0.02)


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    correct, y = draws(8)
    first = bootstrap_interval(correct[0], y, seed=1)
    assert bootstrap_interval(correct[0], y, seed=1) == first
    assert bootstrap_interval(correct[0], y, seed=2) != first


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("sizes", [[10] * 10, [1, 1], [1, 2, 3], [2, 100], [1000] * 5])
def test_rows_that_all_agree_are_no_certainty(sizes, value, over) -> None:
    y = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    values = torch.full((len(y),), value)
    accuracy = bootstrap_interval(values, y, over=over)
    gain = paired_difference(values, torch.zeros(len(y)), y, over=over)
    assert accuracy.estimate == gain.estimate == value
    assert accuracy.low < value < accuracy.high
    assert gain.low < value < gain.high


def test_a_hundred_rows_that_are_all_right_leave_room_for_three_wrong_in_a_hundred() -> None:
    y = torch.arange(10).repeat_interleave(10)
    assert 0.95 < bootstrap_interval(torch.ones(100), y).low < 0.98  # Clopper and Pearson: 0.964


def test_a_class_of_one_row_is_no_error() -> None:
    y = torch.tensor([0, 1, 1, 2, 2, 2])
    found = bootstrap_interval(torch.tensor([1, 0, 1, 0, 1, 1.0]), y)
    assert found.low < found.estimate < found.high


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("wrong", [[3, 27], [0, 1], [5], [5, 100, 200]])
def test_resamples_of_equal_values_do_not_blow_the_interval_up(wrong, over) -> None:
    y = torch.arange(20).repeat_interleave(20)
    correct = torch.ones(400)
    correct[wrong] = 0
    interval = bootstrap_interval(correct, y, over=over)
    assert 0 < interval.high - interval.low < 0.5


# --- variances of classes --------------------------------------------------------------------------------------------


def mixed(variance: float, mean: float, added: float) -> float:
    """The variance of a class of which a share is replaced by gains and losses of one, as many of each."""
    return (1 - added) * variance + added + added * (1 - added) * mean**2


def test_variances_of_classes_are_those_computed_by_hand() -> None:
    y = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    values = torch.tensor([[1, 1, 0, 1, 1, 0, 0, -1, 1.0]])
    own, n = [1 / 3, 0.0, 2 / 3], [3, 2, 4]  # unbiased
    share = 1 / 3 + 1 / 2 + 1 / 4
    common = (own[0] / 3 + own[1] / 2 + own[2] / 4) / share
    moderated = [((k - 1) * v + 4 * common) / (k - 1 + 4) for v, k in zip(own, n, strict=True)]
    expected = [
        mixed(v, mean, 1 / (k * k * share + 1)) / k for v, mean, k in zip(moderated, [2 / 3, 1.0, 0.0], n, strict=True)
    ]
    assert class_variances(values, y)[0].tolist() == pytest.approx(expected, rel=1e-12)


def test_two_rows_that_agree_beside_large_classes_say_little() -> None:
    """Two gains in two rows: Clopper and Pearson give a chance of 0.16 to 1; large classes that agree say nothing."""
    y = torch.cat([torch.zeros(2), torch.ones(100), torch.full((100,), 2.0)]).long()
    values = torch.zeros(1, 202)
    values[0, :2] = 1
    found = class_variances(values, y)[0].sqrt()
    assert 1.96 * found[0] > 0.7
    assert 1.96 * found[1] < 0.05


def test_large_classes_of_one_size_keep_the_sum_of_their_unbiased_variances() -> None:
    correct, y = draws(11, classes=100, rows=100)
    p = recalls(correct[0], y)
    unbiased = float((p * (1 - p) / 99).sum())
    assert float(class_variances(correct.double(), y, lowest=0.0).sum()) == pytest.approx(unbiased, rel=2e-3)


def test_the_variance_of_a_class_shrinks_as_its_rows_grow_and_follows_the_names_of_the_classes() -> None:
    correct, y = draws(12, classes=3, rows=400)
    kept = torch.cat([torch.arange(4), torch.arange(400, 440), torch.arange(800, 1200)])
    found = class_variances(correct[:, kept].double(), y[kept], lowest=0.0)[0]
    assert found[0] > found[1] > found[2] > 0
    renamed = class_variances(correct[:, kept].double(), 7 - y[kept], lowest=0.0)[0]
    assert renamed.flip(0).tolist() == pytest.approx(found.tolist(), rel=1e-12)


@pytest.mark.parametrize("sizes", [[2] + [100] * 4, [3] + [50] * 9, [1, 1] + [50] * 8])
def test_where_tiny_classes_gain_what_the_rest_loses_a_gain_is_seldom_found(sizes) -> None:
    """The net gain is 0; a normal interval of these variances says otherwise in at most 5 % of 500 worlds."""
    y = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    tiny = torch.tensor(sizes)[y] < 10
    loss = 0.6 * sum(n < 10 for n in sizes) / sum(n >= 10 for n in sizes)
    before, after = torch.where(tiny, 0.2, 0.6), torch.where(tiny, 0.8, 0.6 - loss)
    luck = torch.rand(500, len(y), generator=torch.Generator().manual_seed(0))  # shared: the gains of a class agree
    values = (luck < after).double() - (luck < before).double()
    errors = class_variances(values, y).sum(dim=1).sqrt() / len(sizes)
    low = torch.stack([recalls(row, y).mean() for row in values]) - 1.96 * errors
    assert (low > 0).double().mean() <= 0.05


def test_classes_of_one_row_vary_together_and_one_alone_like_the_rest() -> None:
    y = torch.arange(30)
    correct = (torch.arange(30) < 12).double()
    singles = bootstrap_interval(correct, y, rounds=20000)
    together = bootstrap_interval(correct, torch.zeros(30).long(), rounds=20000)
    assert singles == pytest.approx(together, abs=1e-12)
    y = torch.cat([torch.arange(3).repeat_interleave(20), torch.tensor([3])])
    correct = torch.rand(61, generator=torch.Generator().manual_seed(0)) < 0.5
    lone, rest = bootstrap_interval(correct, y), bootstrap_interval(correct[:60], y[:60])
    # The error of three equal strata over 3, against the same three and one row of their mean variance over 4.
    assert lone.high - lone.estimate > 1.5 * (rest.high - rest.estimate)


@pytest.mark.parametrize(("over", "methods"), [("images", 1), ("classes", 1), ("classes", 6)])
def test_intervals_cover_the_truth_as_often_as_they_say(over, methods) -> None:
    # 400 worlds at 95 %: the count of misses is 20 +- 4.4; the bounds are three and a half deviations away.
    g = torch.Generator().manual_seed(9)
    y = torch.arange(60).repeat_interleave(20)
    fixed, misses = torch.rand(60, generator=g), 0
    for world in range(400):
        chance = fixed if over == "images" else torch.rand(60, generator=g)
        truth = float(fixed.mean()) if over == "images" else 0.5
        correct = torch.rand(methods, len(y), generator=g) < chance[y]
        found = simultaneous_intervals(correct.double(), y, over=over, rounds=300, seed=world)
        misses += not all(i.low <= truth <= i.high for i in found)
    assert 5 <= misses <= 36


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"level": 1.0}, "level"),
        ({"rounds": 10}, "rounds"),
        ({"over": "pixels"}, "'pixels'"),
        ({"y": torch.arange(3)}, "3 labels"),
    ],
)
def test_an_impossible_request_is_named(change, words) -> None:
    correct, y = draws(10)
    with pytest.raises(InputError, match=words):
        simultaneous_intervals(**{"values": correct.double(), "y": y, **change})


def test_one_class_has_no_interval_over_classes() -> None:
    with pytest.raises(InputError, match="two classes"):
        bootstrap_interval(torch.ones(4), torch.zeros(4).long(), over="classes")
