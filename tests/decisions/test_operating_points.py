"""Operating points: hand-computed decisions, identities, the promise of conformal sets, and the refusals."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poise.decisions.decide import decide, prediction_sets
from poise.decisions.operating_point import OperatingPoint
from poise.decisions.targets import Targets, conformal_quantiles, coverage_accuracy, rows_as, threshold_for
from poise.deployment.chosen_point import choose_operating_point
from poise.errors import InputError, MemorisedRowsError
from poise.metrics import evaluate
from poise.testing import world
from poise.values.counts import ClassCounts

PLAIN = OperatingPoint()


def of_probabilities(rows):
    """Logits whose softmax is exactly these rows."""
    return torch.tensor(rows, dtype=torch.float64).log()


def draws(*, rows=400, classes=5, seed=0, sharpness=2.0):
    """Logits (N, C) and labels drawn from their softmax: calibrated by construction."""
    g = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(rows, classes, generator=g, dtype=torch.float64)
    return logits, torch.multinomial(logits.softmax(-1), 1, generator=g).squeeze(1)


def permuted(point, order):
    """The same point when class order[k] of the old naming is class k of the new one."""

    def pick(values):
        return None if values is None else tuple(values[k] for k in order)

    costs = pick(point.costs)
    if costs is not None and isinstance(costs[0], tuple):
        costs = tuple(pick(row) for row in costs)
    return replace(point, costs=costs, thresholds=pick(point.thresholds), conformal=pick(point.conformal))


# --- deciding --------------------------------------------------------------------------------------------------------


def test_an_empty_point_answers_the_largest_logit_with_its_posterior() -> None:
    found = decide(of_probabilities([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]), PLAIN)
    assert found.label.tolist() == [0, 2]
    assert found.confidence.tolist() == pytest.approx([0.5, 0.8])
    assert found.sets is None


def test_a_cost_per_missed_class_weighs_the_posteriors() -> None:
    # 0.5 * 1 against 0.3 * 2: class 1 is answered, with its own posterior as confidence.
    found = decide(of_probabilities([[0.5, 0.3, 0.2]]), OperatingPoint(costs=(1, 2, 1)))
    assert (found.label.item(), found.confidence.item()) == (1, pytest.approx(0.3))


def test_a_cost_matrix_answers_the_least_expected_cost() -> None:
    # Expected costs: answer 0 costs 0.4 * 5 = 2, answer 1 costs 0.6 * 1, so class 1 in spite of the posterior.
    found = decide(of_probabilities([[0.6, 0.4]]), OperatingPoint(costs=((0, 1), (5, 0))))
    assert found.label.item() == 1


def test_a_vector_of_costs_is_a_matrix_of_equal_rows_off_its_diagonal() -> None:
    logits, _ = draws()
    costs = (1.0, 3.0, 0.5, 2.0, 7.0)
    matrix = tuple(tuple(0.0 if j == k else costs[k] for j in range(5)) for k in range(5))
    a, b = (decide(logits, OperatingPoint(costs=given)) for given in (costs, matrix))
    assert torch.equal(a.label, b.label)
    assert torch.equal(a.confidence, b.confidence)


def test_a_vector_of_costs_folds_into_the_bias_as_its_logarithm() -> None:
    problem = world(dtype=torch.float64)
    point = OperatingPoint(costs=(1, 2, 4, 8))
    assert problem.head is not None
    x = problem.held_out.x[0]
    shifted = decide(problem.head.shifted(point.shift)(x), PLAIN)
    assert torch.equal(decide(problem.head(x), point).label, shifted.label)
    assert not torch.equal(decide(problem.head(x), PLAIN).label, shifted.label)


def test_neither_a_matrix_nor_nothing_is_a_shift() -> None:
    assert PLAIN.shift is None
    assert OperatingPoint(costs=((0, 1), (1, 0))).shift is None


@pytest.mark.parametrize(
    "point",
    [
        OperatingPoint(costs=(3.0,) * 5),
        OperatingPoint(costs=tuple(tuple(float(j != k) for j in range(5)) for k in range(5))),
        OperatingPoint(abstain=0.0),
        OperatingPoint(thresholds=(0.0,) * 5),
        OperatingPoint(top_k=1),
        OperatingPoint(conformal=(None,) * 5, alpha=0.1),
    ],
)
def test_equal_costs_zero_thresholds_and_sets_change_no_answer(point) -> None:
    logits, _ = draws()
    plain, found = decide(logits, PLAIN), decide(logits, point)
    assert torch.equal(plain.label, found.label)
    assert torch.equal(plain.confidence, found.confidence)


def test_a_confidence_equal_to_the_threshold_is_answered_and_one_below_is_not() -> None:
    logits = torch.tensor([[math.log(3), 0.0], [math.log(2), 0.0]], dtype=torch.float64)
    level = decide(logits, PLAIN).confidence[0].item()
    assert decide(logits, OperatingPoint(abstain=level)).label.tolist() == [0, -1]


def test_thresholds_per_class_silence_only_their_class_and_none_silences_it_always() -> None:
    logits = of_probabilities([[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.0001, 0.0001, 0.9998]])
    assert decide(logits, OperatingPoint(thresholds=(0.7, 0.5, None))).label.tolist() == [-1, 1, -1]


def test_the_top_k_hold_the_answer_even_among_ties() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.0, 1.0]])
    found = decide(logits, OperatingPoint(top_k=2))
    assert found.sets.tolist() == [[True, True, False], [False, True, True]]
    assert found.sets[torch.arange(2), found.label].all()


def test_the_top_k_follow_the_costs() -> None:
    found = decide(of_probabilities([[0.5, 0.3, 0.2]]), OperatingPoint(costs=(1, 2, 4), top_k=2))
    assert found.sets.tolist() == [[False, True, True]]  # 0.5, 0.6, 0.8


def test_conformal_sets_may_be_empty_and_infinite_quantiles_always_name_their_class() -> None:
    logits = of_probabilities([[0.5, 0.3, 0.2], [0.9, 0.05, 0.05]])
    quantiles = (-math.log(0.6), -math.log(0.25), None)
    found = decide(logits, OperatingPoint(conformal=quantiles, alpha=0.1))
    assert found.sets.tolist() == [[False, True, True], [True, False, True]]
    empty = decide(logits[:1], OperatingPoint(conformal=(0.0, 0.0, 0.0), alpha=0.1))
    assert not empty.sets.any()


def test_rows_are_decided_alone_and_shifted_logits_decide_the_same() -> None:
    logits, _ = draws()
    point = OperatingPoint(costs=(1, 2, 3, 2, 1), abstain=0.4, conformal=(0.5, 1, 2, None, 3), alpha=0.1)
    whole = decide(logits, point)
    for rows in (slice(0, 1), slice(7, 30), slice(0, 0)):
        for a, b in zip(decide(logits[rows], point), whole, strict=True):
            assert torch.equal(a, b[rows])
    moved = decide(logits + 8.0 * torch.arange(len(logits)).unsqueeze(1), point)
    assert torch.equal(moved.label, whole.label)
    assert torch.equal(moved.sets, whole.sets)


@pytest.mark.parametrize(
    "point",
    [
        OperatingPoint(costs=(1, 2, 3, 4, 5), abstain=0.5, top_k=2),
        OperatingPoint(costs=tuple(tuple(abs(j - k) * (k + 1.0) for j in range(5)) for k in range(5))),
        OperatingPoint(thresholds=(0.1, 0.5, None, 0.3, 0.9), conformal=(0.1, 1, 2, None, 1), alpha=0.2),
    ],
)
def test_renaming_the_classes_renames_the_decisions(point) -> None:
    logits, _ = draws()
    order = torch.tensor([3, 0, 4, 1, 2])
    before, after = decide(logits, point), decide(logits[:, order], permuted(point, order.tolist()))
    assert torch.equal(torch.where(after.label < 0, -1, order[after.label]), before.label)
    assert torch.allclose(after.confidence, before.confidence, rtol=1e-12)
    if before.sets is not None:
        assert torch.equal(after.sets, before.sets[:, order])


# --- the value -------------------------------------------------------------------------------------------------------

POINTS = [
    PLAIN,
    OperatingPoint(costs=(1, 2.5, 3), abstain=0.25, top_k=2),
    OperatingPoint(costs=((0, 1, 2), (1, 0, 2), (3, 3, 0))),
    OperatingPoint(thresholds=(0.1, None, 1.0), conformal=(None, 0.0, 3.5), alpha=0.05),
]


@pytest.mark.parametrize("point", POINTS)
def test_a_point_survives_json_and_is_hashable(point) -> None:
    text = json.dumps(point.to_dict(), allow_nan=False)
    assert OperatingPoint.from_dict(json.loads(text)) == point
    assert hash(OperatingPoint.from_dict(json.loads(text))) == hash(point)


@given(
    abstain=st.none() | st.floats(0, 1),
    costs=st.none() | st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=3),
    thresholds=st.none() | st.lists(st.none() | st.floats(0, 1), min_size=3, max_size=3),
    conformal=st.none() | st.lists(st.none() | st.floats(0, 1e6), min_size=3, max_size=3),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_any_point_survives_json(abstain, costs, thresholds, conformal) -> None:
    alpha = None if conformal is None else 0.1
    point = OperatingPoint(costs=costs, abstain=abstain, thresholds=thresholds, conformal=conformal, alpha=alpha)
    assert OperatingPoint.from_dict(json.loads(json.dumps(point.to_dict(), allow_nan=False))) == point


def test_tensors_and_arrays_become_plain_numbers_and_infinity_none() -> None:
    point = OperatingPoint(
        costs=torch.tensor([[0, 1], [2, 0]]),
        abstain=np.float32(0.5),
        thresholds=torch.tensor([0.5, math.inf]),
        conformal=np.array([math.inf, 1.0]),
        alpha=0.1,
    )
    assert point.costs == ((0.0, 1.0), (2.0, 0.0))
    assert point.thresholds == (0.5, None)
    assert point.conformal == (None, 1.0)
    assert type(point.abstain) is float
    assert (point.classes, PLAIN.classes) == (2, None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"costs": (1, 0)}, "costs of class 1 must be finite and above 0, got 0"),
        ({"costs": (1, math.nan)}, "costs of class 1 must be finite and above 0, got nan"),
        ({"costs": ((0, 1), (-2, 0))}, "costs of class 1 must be finite and 0 or more, got -2"),
        ({"costs": ((0, 1), (1, 0, 2))}, "costs must be (C,) or (C, C); row 1 has not 2 entries"),
        ({"costs": (3.0,)}, "costs need one entry per class for at least 2 classes, got (3.0,)"),
        ({"costs": 3.0}, "costs need one entry per class for at least 2 classes, got 3.0"),
        ({"abstain": 1.5}, "abstain must be a confidence between 0 and 1, got 1.5"),
        ({"abstain": "0.5"}, "abstain must be a confidence between 0 and 1, got '0.5'"),
        ({"thresholds": (0.5, 2)}, "thresholds of class 1 must be between 0 and 1, or None for infinity, got 2"),
        ({"conformal": (-1, 2), "alpha": 0.1}, "conformal of class 0 must be 0 or more, or None for infinity, got -1"),
        ({"conformal": (1, 2)}, "conformal quantiles and their alpha belong together; give both or neither"),
        ({"alpha": 0.1}, "conformal quantiles and their alpha belong together; give both or neither"),
        (
            {"conformal": (1, 2), "alpha": 1},
            "alpha must be the share of rows whose class may be missing, above 0 and below 1, got 1",
        ),
        (
            {"conformal": (1, 2), "alpha": 0.1, "top_k": 1},
            "a set of classes is either the top k or conformal; give top_k or conformal, not both",
        ),
        ({"top_k": 0}, "top_k must be a whole number, 1 or more, got 0"),
        ({"top_k": True}, "top_k must be a whole number, 1 or more, got True"),
        ({"top_k": 3, "costs": (1, 1)}, "top_k must be at most 2, the number of classes, got 3"),
        (
            {"costs": (1, 1), "thresholds": (0, 0, 0)},
            "the parts of an operating point differ in their number of classes: costs for 2, thresholds for 3",
        ),
    ],
)
def test_a_field_that_does_not_fit_is_named(fields, message) -> None:
    with pytest.raises(InputError) as caught:
        OperatingPoint(**fields)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"schema": 1, "treshold": 1},
            "an operating point has no key 'treshold'; it has schema, costs, abstain, thresholds, top_k, conformal, "
            "alpha",
        ),
        ({"abstain": 0.5}, "this operating point: schema must be a whole number, 1 or more, got None; write it again"),
        ({"schema": "1"}, "this operating point: schema must be a whole number, 1 or more, got '1'; write it again"),
        ({"schema": 2}, "this operating point has schema 2, this version reads up to 1; update poise"),
        ([1], "an operating point is a table of keys and values, got [1]"),
        ({"schema": 1, "abstain": 7}, "abstain must be a confidence between 0 and 1, got 7"),
    ],
)
def test_a_stored_point_that_cannot_be_read_is_refused(data, message) -> None:
    with pytest.raises(InputError) as caught:
        OperatingPoint.from_dict(data)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("logits", "point", "message"),
    [
        (torch.zeros(2, 3), OperatingPoint(costs=(1, 1)), "the operating point is for 2 classes, the logits have 3"),
        (torch.zeros(2, 3), OperatingPoint(top_k=4), "top_k must be at most 3, the number of classes, got 4"),
        (torch.tensor([[0.0, 1.0], [0.0, math.nan]]), PLAIN, "row 1 of the logits is not finite"),
        (torch.zeros(3), PLAIN, "logits must be a floating-point tensor (N, C), got (3,)"),
        (torch.zeros(3, 2).long(), PLAIN, "logits must be a floating-point tensor (N, C), got (3, 2)"),
        ([[0.0]], PLAIN, "logits must be a floating-point tensor (N, C), got list"),
    ],
)
def test_logits_that_do_not_fit_are_refused(logits, point, message) -> None:
    with pytest.raises(InputError) as caught:
        decide(logits, point)
    assert str(caught.value) == message


# --- abstention ------------------------------------------------------------------------------------------------------

FOUR = of_probabilities([[0.9, 0.1, 1e-9], [0.2, 0.8, 1e-9], [0.7, 0.3, 1e-9], [0.4, 1e-9, 0.6]])
LABELS = torch.tensor([0, 1, 1, 2])  # right, right, wrong, right
COUNTS = ClassCounts(torch.tensor([200, 50, 3]))


def test_the_curve_by_hand() -> None:
    curve = coverage_accuracy(FOUR, LABELS, COUNTS)
    assert curve.thresholds.tolist() == pytest.approx([0.0, 0.7, 0.8, 0.9])
    assert curve.coverage.tolist() == [1.0, 0.75, 0.5, 0.25]
    assert curve.accuracy.tolist() == pytest.approx([3 / 4, 2 / 3, 1, 1])
    assert curve.balanced_accuracy.tolist() == pytest.approx([(1 + 1 / 2 + 1) / 3, (1 + 1 / 2) / 2, 1, 1])
    assert {name: values.tolist() for name, values in curve.kept.items()} == {
        "many": [1, 1, 1, 1],
        "medium": [1, 1, 0.5, 0],
        "few": [1, 0, 0, 0],
    }


def test_every_point_of_the_curve_is_what_deciding_there_gives() -> None:
    logits, y = draws(rows=60)
    logits = logits.repeat(2, 1)  # every confidence twice: ties share a threshold
    y = torch.cat([y, y.roll(1)])
    counts = ClassCounts(torch.tensor([200, 50, 50, 50, 50]))
    curve = coverage_accuracy(logits, y, counts, costs=(1, 2, 1, 1, 3))
    assert len(curve.thresholds) == 60
    assert curve.kept["few"] is None
    for i in (0, 1, 30, 59):
        point = OperatingPoint(abstain=float(curve.thresholds[i]), costs=(1, 2, 1, 1, 3))
        answered = decide(logits, point)
        kept = answered.label >= 0
        expected = evaluate(torch.nn.functional.one_hot(answered.label[kept], 5).double(), y[kept], counts)
        assert float(curve.coverage[i]) == pytest.approx(float(kept.double().mean()))
        assert float(curve.accuracy[i]) == pytest.approx(expected.accuracy)
        assert float(curve.balanced_accuracy[i]) == pytest.approx(expected.balanced_accuracy)
        assert float(curve.kept["many"][i]) == pytest.approx(float(kept[y == 0].double().mean()))


def test_the_curve_does_not_depend_on_the_order_of_rows() -> None:
    logits, y = draws()
    counts = ClassCounts.from_labels(y, 5)
    turned = coverage_accuracy(logits.flip(0), y.flip(0), counts)
    for a, b in zip(coverage_accuracy(logits, y, counts)[:4], turned[:4], strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


def test_a_threshold_keeps_its_coverage_with_answers_as_sure_as_possible() -> None:
    curve = coverage_accuracy(FOUR, LABELS, COUNTS)
    assert threshold_for(curve, coverage=0.75) == pytest.approx(0.7)
    assert threshold_for(curve, coverage=0.6) == pytest.approx(0.7)
    assert threshold_for(curve, coverage=1.0) == 0.0


@pytest.mark.parametrize("coverage", [0, 90, math.nan])
def test_a_coverage_that_is_none_is_refused(coverage) -> None:
    with pytest.raises(InputError) as caught:
        threshold_for(coverage_accuracy(FOUR, LABELS, COUNTS), coverage=coverage)
    assert str(caught.value) == f"coverage must be a number in (0, 1], got {coverage}"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: coverage_accuracy(FOUR, LABELS[:3], COUNTS),
            "there are 4 rows of logits and 3 labels; both need the same number, at least 1",
        ),
        (
            lambda: coverage_accuracy(FOUR[:0], LABELS[:0], COUNTS),
            "there are 0 rows of logits and 0 labels; both need the same number, at least 1",
        ),
        (
            lambda: coverage_accuracy(FOUR, LABELS, torch.tensor([4, 4])),
            "the counts are for 2 classes, the logits have 3",
        ),
        (
            lambda: coverage_accuracy(FOUR, LABELS + 1, COUNTS),
            "row 3 has label 3; labels are 0 or more and below 3, the number of classes",
        ),
        (
            lambda: conformal_quantiles(FOUR, LABELS, alpha=0),
            "alpha must be the share of rows whose class may be missing, above 0 and below 1, got 0",
        ),
        (
            lambda: prediction_sets(FOUR, torch.zeros(2)),
            "quantiles must be (3,) to fit the logits, got (2,)",
        ),
    ],
)
def test_bad_held_out_rows_are_refused(call, message) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == message


# --- conformal sets --------------------------------------------------------------------------------------------------


def test_the_quantile_is_the_finite_sample_rank_by_hand() -> None:
    p = torch.linspace(0.99, 0.05, 19, dtype=torch.float64)  # scores ascend with the row
    logits = torch.stack([p, 1 - p], dim=1).log()
    y = torch.zeros(19, dtype=torch.int64)
    for alpha, rank in ((0.05, 19), (0.1, 18), (0.5, 10)):  # ceil(20 (1 - alpha))
        found = conformal_quantiles(logits, y, alpha=alpha)
        assert found[0].item() == pytest.approx(-math.log(p[rank - 1]))
        assert found[1] == math.inf  # no row of class 1: always named
    assert conformal_quantiles(logits[1:], y[1:], alpha=0.05)[0] == math.inf  # 18 rows are one too few
    pooled = conformal_quantiles(logits, y, alpha=0.1, per_class=False)
    assert pooled[0] == pooled[1] == conformal_quantiles(logits, y, alpha=0.1)[0]


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_each_class_is_named_at_least_as_often_as_promised(alpha) -> None:
    """Over many draws of held-out and new rows; the mean coverage of rank r of n is r / (n + 1) exactly."""
    n, new, rounds = 29, 50, 120
    g = torch.Generator().manual_seed(0)
    means = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.5]], dtype=torch.float64)
    spread = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)  # the head knows nothing of these: it is miscalibrated

    def rows(size):
        y = torch.arange(3).repeat_interleave(size)
        x = means[y] + spread[y].unsqueeze(1) * torch.randn(3 * size, 2, generator=g, dtype=torch.float64)
        return x @ means.T - means.square().sum(1) / 2, y

    covered = torch.zeros(3, dtype=torch.float64)
    for _ in range(rounds):
        held_logits, held_y = rows(n)
        logits, y = rows(new)
        sets = prediction_sets(logits, conformal_quantiles(held_logits, held_y, alpha=alpha))
        covered += sets[torch.arange(len(y)), y].double().view(3, new).mean(1) / rounds
    exact = math.ceil((n + 1) * (1 - alpha) - 1e-9) / (n + 1)
    # Beta-binomial: the variance over rounds is that of the held-out quantile plus that of the new rows.
    error = math.sqrt(exact * (1 - exact) * (1 / (n + 2) + 1 / new) / rounds)
    assert exact >= 1 - alpha
    assert (covered - exact).abs().max() < 4 * error


def test_a_pooled_quantile_keeps_its_promise_on_average_only() -> None:
    """One easy and one hard class: the pooled sets cover the mean, and the hard class less."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(2).repeat_interleave(2000)
    own = torch.where(y == 0, 4.0, 0.0) + torch.randn(4000, generator=g)
    logits = torch.zeros(4000, 2).scatter(1, y.unsqueeze(1), own.unsqueeze(1))
    half = torch.arange(4000) % 2 == 0
    covered = {}
    for per_class in (True, False):
        quantiles = conformal_quantiles(logits[half], y[half], alpha=0.1, per_class=per_class)
        sets = prediction_sets(logits[~half], quantiles)
        covered[per_class] = sets[torch.arange(2000), y[~half]].double().view(2, 1000).mean(1)
    assert (covered[True] - 0.9).abs().max() < 0.05  # 4 standard errors of 1000 rows and 1000 held-out rows
    assert covered[False].mean() == pytest.approx(0.9, abs=0.03)
    assert covered[False][1] < 0.85


def test_sets_shrink_as_alpha_grows() -> None:
    logits, y = draws(rows=500)
    sizes = [prediction_sets(logits, conformal_quantiles(logits, y, alpha=a)).sum() for a in (0.05, 0.1, 0.2, 0.4)]
    assert sizes == sorted(sizes, reverse=True)


# --- choosing with features ------------------------------------------------------------------------------------------


def test_without_a_target_the_chosen_point_changes_nothing() -> None:
    problem = world()
    assert choose_operating_point(problem.head, problem.held_out, Targets(), trained_on=problem.train) == PLAIN


def test_each_target_chooses_its_part() -> None:
    problem = world(held_out=40)
    logits, y = problem.head(problem.held_out.x[0]), problem.held_out.y
    point = choose_operating_point(
        problem.head,
        problem.held_out,
        Targets(coverage=0.8, alpha=0.1, costs=(1, 1, 2, 4)),
        trained_on=problem.train,
    )
    curve = coverage_accuracy(logits, y, problem.train.counts, costs=(1, 1, 2, 4))
    assert point == OperatingPoint(
        costs=(1, 1, 2, 4),
        abstain=threshold_for(curve, coverage=0.8),
        conformal=conformal_quantiles(logits, y, alpha=0.1),
        alpha=0.1,
    )


def test_rows_that_trained_the_backbone_choose_no_operating_point() -> None:
    problem = world()
    with pytest.raises(
        MemorisedRowsError, match=r"^an operating point cannot use rows that trained the representation"
    ):
        choose_operating_point(problem.head, problem.train, Targets(coverage=0.9), trained_on=problem.train)
    unseen = replace(problem.train, seen_by_backbone=False)
    with pytest.raises(MemorisedRowsError, match=r"^an operating point cannot use the training rows as held-out rows"):
        choose_operating_point(problem.head, unseen, Targets(coverage=0.9), trained_on=unseen)


def test_weights_count_rows_as_often_as_they_say() -> None:
    g = torch.Generator().manual_seed(3)
    logits, y = torch.randn(60, 4, generator=g), torch.arange(60) % 4
    times = torch.arange(60) % 3 + 1
    repeated = logits.repeat_interleave(times, dim=0), y.repeat_interleave(times)
    counts = torch.tensor([200, 50, 20, 5])
    a = coverage_accuracy(logits, y, counts, weight=times.double())
    b = coverage_accuracy(*repeated, counts)
    for name in ("thresholds", "coverage", "accuracy"):
        assert torch.allclose(getattr(a, name), getattr(b, name), atol=1e-12)


def test_rows_as_a_prior_have_its_class_shares() -> None:
    y = torch.tensor([0, 0, 0, 1, 2, 2])
    prior = torch.tensor([0.2, 0.5, 0.3])
    weight = rows_as(prior, y)
    assert torch.allclose(torch.bincount(y, weights=weight), prior.double())


def test_a_weight_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="weight needs one finite number per row"):
        coverage_accuracy(torch.eye(3), torch.arange(3), COUNTS, weight=torch.zeros(3))


@pytest.mark.parametrize(
    ("abstain", "said"),
    [
        (0.0, ["every row is answered"]),
        (0.5, ["no answer below a confidence of 0.5"]),
        (0.87654, ["no answer below a confidence of 0.877"]),
        (0.9999, ["no answer below a confidence of 0.9999"]),
        (0.99999876, ["no answer below a confidence of 0.999999"]),
        (1.0, ["no answer below a confidence of 1"]),
    ],
)
def test_a_threshold_is_told_with_as_many_digits_as_tell_it_from_one(abstain, said):
    assert OperatingPoint(abstain=abstain).described() == said


def test_a_point_with_thresholds_never_says_that_every_row_is_answered():
    assert OperatingPoint(abstain=0.0, thresholds=(0.5, 0.0)).described() == ["a threshold per class"]
