"""Measures: oracles from scikit-learn and torchmetrics, chunks, absent classes, Logits Magnitude, gradients."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as oracle

from poise.errors import InputError, PoiseError
from poise.methods import prediction_rebalancing
from poise.metrics import (
    coefficient_of_variation,
    confusion,
    evaluate,
    evaluate_head,
    gradient_balance,
    logit_chunks,
    logits_magnitude,
    logits_of_all,
    magnitude,
    moments,
    regularized_std,
    scores,
    spread,
    tally,
    tally_and_moments,
    total,
    weight_norms,
)
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head, Prep

COUNTS = ClassCounts(torch.tensor([500, 101, 100, 20, 19, 3]))  # two many, two medium, two few


def batch(*, rows=200, classes=6, absent=(), seed=0, spread=2.0, dtype=torch.float64):
    """Logits (N, C) that are right more often than not, and labels that leave out the classes `absent`."""
    generator = torch.Generator().manual_seed(seed)
    kept = torch.tensor([k for k in range(classes) if k not in absent])
    y = kept[torch.randint(len(kept), (rows,), generator=generator)]
    logits = spread * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    logits[torch.arange(rows), y] += 1.5
    return logits.to(dtype), y


def balanced(*, each=20, classes=5, seed=0):
    """Logits (N, C) and labels with the same number of rows of every class."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(each * classes) % classes
    scale = 1 + torch.arange(classes, dtype=torch.float64)
    logits = torch.randn(each * classes, classes, generator=generator, dtype=torch.float64) * scale
    logits[torch.arange(len(y)), y] += 1 + scale[y]
    return logits, y


def numbers(found):
    """All numbers of the scores in one list, NaN for None."""
    data = found.to_dict()
    listed = [*data.pop("per_class"), *data.values()]
    return [math.nan if value is None else value for value in listed]


def shifted_rows(logits, seed=1):
    """The logits with another constant added to every row."""
    return logits + 30 * torch.randn(len(logits), 1, generator=torch.Generator().manual_seed(seed), dtype=logits.dtype)


# --- oracles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("absent", [(), (2,), (0, 5)], ids=str)
def test_scores_agree_with_scikit_learn(absent):
    logits, y = batch(absent=absent)
    found = evaluate(logits, y, COUNTS)
    guess = logits.argmax(dim=-1)
    assert found.accuracy == pytest.approx(oracle.accuracy_score(y, guess), rel=1e-12)
    assert found.macro_f1 == pytest.approx(oracle.f1_score(y, guess, average="macro"), rel=1e-12)
    assert found.nll == pytest.approx(oracle.log_loss(y, logits.softmax(-1).numpy(), labels=range(6)), rel=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of predicted classes that no label has
        assert found.balanced_accuracy == pytest.approx(oracle.balanced_accuracy_score(y, guess), rel=1e-12)
    recall = oracle.recall_score(y, guess, labels=range(6), average=None, zero_division=np.nan)
    assert [np.nan if r is None else r for r in found.per_class] == pytest.approx(recall.tolist(), nan_ok=True)
    assert found.rows == len(y)


@pytest.mark.parametrize("spread", [0.3, 2.0, 8.0])
def test_calibration_error_agrees_with_torchmetrics(spread):
    from torchmetrics.classification import MulticlassCalibrationError

    logits, y = batch(spread=spread, rows=1000)
    expected = MulticlassCalibrationError(num_classes=6, n_bins=15, norm="l1")(logits.softmax(-1), y)
    assert evaluate(logits, y, COUNTS).ece == pytest.approx(float(expected), abs=1e-6)  # float32 bin edges there


@pytest.mark.parametrize("classes", [6, 40])
def test_calibration_error_agrees_with_a_loop_over_bins(classes):
    logits, y = batch(rows=500, classes=classes, spread=0.5 if classes == 40 else 2.0)
    sure, guess = logits.softmax(-1).max(-1)
    assert classes == 6 or bool((sure < 1 / 15).any())
    error = 0.0
    for b in range(15):
        inside = (sure > b / 15) & (sure <= (b + 1) / 15)
        if inside.any():
            right = (guess == y)[inside].double().mean()
            error += float(inside.double().mean() * (right - sure[inside].mean()).abs())
    assert evaluate(logits, y, torch.ones(classes).long()).ece == pytest.approx(error, rel=1e-12)


def test_certain_predictions_have_a_bin():
    logits = torch.tensor([[1e4, 0.0], [1e4, 0.0], [1e4, 0.0], [0.0, 0.0]])
    found = evaluate(logits, torch.tensor([0, 0, 1, 0]), torch.tensor([3, 1]))
    assert found.ece == pytest.approx((3 * (1 - 2 / 3) + 1 * (1 - 0.5)) / 4)
    assert found.nll == pytest.approx((1e4 + math.log(2)) / 4)


def test_certain_and_nearly_certain_predictions_share_a_bin():
    logits = torch.tensor([[1e4, 0.0], [math.log(97 / 3), 0.0]])
    found = evaluate(logits, torch.tensor([1, 0]), torch.tensor([3, 1]))
    assert found.ece == pytest.approx((1 + 0.97 - 1) / 2)


def test_scores_by_hand():
    logits = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [2, 0, 0]])
    found = evaluate(logits, torch.tensor([0, 0, 2, 0]), torch.tensor([101, 50, 5]))
    right, wrong = -math.log(math.exp(2) / (math.exp(2) + 2)), -math.log(1 / (math.exp(2) + 2))
    assert found.per_class == (2 / 3, None, 1.0)
    assert (found.many, found.medium, found.few) == (2 / 3, None, 1.0)
    assert found.accuracy == 3 / 4
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert found.macro_f1 == pytest.approx((2 * 2 / (3 + 2) + 0 + 1) / 3)
    assert found.nll == pytest.approx((3 * right + wrong) / 4)
    assert found.rows == 4


# --- groups and absent classes ---------------------------------------------------------------------------------------


def test_groups_are_the_mean_recall_of_their_classes():
    logits, y = batch()
    found = evaluate(logits, y, COUNTS)
    for group, members in (("many", (0, 1)), ("medium", (2, 3)), ("few", (4, 5))):
        assert getattr(found, group) == pytest.approx(np.mean([found.per_class[k] for k in members]))


def test_a_group_without_evaluated_classes_is_none():
    logits, y = batch(absent=(0, 1))
    found = evaluate(logits, y, COUNTS)
    assert found.many is None
    assert found.medium is not None
    assert found.per_class[:2] == (None, None)
    assert evaluate(*batch(), torch.full((6,), 50)).few is None


def test_group_edges_can_be_moved():
    logits, y = batch()
    found = evaluate(logits, y, COUNTS, many=499, few=20)
    assert found.many == found.per_class[0]
    assert found.few == pytest.approx((found.per_class[4] + found.per_class[5]) / 2)


def test_groups_follow_the_training_counts_not_the_evaluated_rows():
    logits, y = batch()
    found, flipped = evaluate(logits, y, COUNTS), evaluate(logits, y, COUNTS.n.flip(0))
    assert flipped.many == pytest.approx(found.few)
    assert flipped.few == pytest.approx(found.many)
    assert found.many != found.few


def test_classes_neither_labelled_nor_predicted_do_not_enter_the_macro_f1():
    logits, y = batch(absent=(5,))
    logits[:, 5] = -50.0
    found = evaluate(logits, y, COUNTS)
    assert found.macro_f1 == pytest.approx(oracle.f1_score(y, logits.argmax(-1), average="macro"))
    assert found.macro_f1 == pytest.approx(evaluate(logits[:, :5], y, COUNTS.n[:5]).macro_f1)


# --- invariances -----------------------------------------------------------------------------------------------------


def test_adding_a_constant_to_every_row_changes_no_score():
    logits, y = batch()
    a, b = evaluate(logits, y, COUNTS), evaluate(shifted_rows(logits), y, COUNTS)
    assert (a.accuracy, a.macro_f1, a.per_class) == (b.accuracy, b.macro_f1, b.per_class)
    assert (a.nll, a.ece) == pytest.approx((b.nll, b.ece), rel=1e-11)


def test_the_order_of_rows_does_not_matter():
    logits, y = batch()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(3))
    a, b = evaluate(logits, y, COUNTS), evaluate(logits[order], y[order], COUNTS)
    assert numbers(a) == pytest.approx(numbers(b), rel=1e-12)


def test_single_precision_logits_are_summed_in_double():
    logits, y = batch(dtype=torch.float32)
    a, b = evaluate(logits, y, COUNTS), evaluate(logits.double(), y, COUNTS)
    assert a == b


def sums_agree(parts, whole):
    return all(torch.allclose(a, b, rtol=1e-12, atol=1e-9) for a, b in zip(parts, whole, strict=True))


@pytest.mark.parametrize("measure", [tally, moments])
@pytest.mark.parametrize("chunk", [1, 7, 200, 1000])
def test_sums_of_chunks_equal_those_of_the_whole(measure, chunk):
    logits, y = batch(absent=(3,))
    parts = total(
        measure(z, labels) for z, labels in zip(logits.split(min(chunk, 200)), y.split(min(chunk, 200)), strict=True)
    )
    assert type(parts) is type(measure(logits, y))
    assert sums_agree(parts, measure(logits, y))


def test_no_chunk_at_all_is_refused():
    with pytest.raises(InputError, match="no row to measure"):
        total([])


@pytest.mark.parametrize("chunk", [1, 13, 8192])
def test_a_head_is_evaluated_in_chunks_as_a_whole(chunk):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 50, 4, generator=generator, dtype=torch.float64)
    head = Head(torch.randn(6, 4, generator=generator).double(), torch.randn(6, generator=generator).double())
    features = Features(x, torch.arange(50) % 6, COUNTS)
    whole = evaluate(head(x[0]), features.y, COUNTS)  # the test-time view alone
    assert numbers(evaluate_head(head, features, chunk=chunk)) == pytest.approx(numbers(whole), rel=1e-12)
    assert sum(len(y) for _, y in logit_chunks(head, features, chunk)) == 50


def test_logits_of_many_heads_are_those_of_each_and_every_row_is_read_once(monkeypatch):
    monkeypatch.setattr("poise.metrics.MOST_LOGITS", 6 * 20)
    x, _ = batch(rows=50, classes=4)
    features = Features(torch.stack([x, x + 1]), torch.arange(50) % 6, COUNTS)
    first = Head(
        *(torch.randn(*shape, generator=torch.Generator().manual_seed(1)).double() for shape in ((6, 4), (6,)))
    )
    unit = Head(first.weight, first.bias, Prep(unit=True))
    heads = [first, first.shifted(1.0), first.scaled(2.0), unit, first.shifted(torch.arange(6.0))]
    found = [torch.full((50, 6), torch.nan, dtype=torch.float64) for _ in heads]
    for i, rows, logits, y in logits_of_all(heads, features):
        assert len(logits) <= 20
        assert torch.equal(y, features.y[rows])
        assert found[i][rows].isnan().all()
        found[i][rows] = logits
    for head, logits in zip(heads, found, strict=True):
        assert torch.allclose(logits, head(x), rtol=1e-14)
    part = [(rows, len(y)) for i, rows, _, y in logits_of_all(heads, features, range(13, 40)) if i == 0]
    assert part == [(slice(13, 33), 20), (slice(33, 40), 7)]


def test_both_sums_at_once_are_the_two_and_the_logits_stay_as_they_were():
    logits, y = batch(absent=(2,))
    before = logits.clone()
    counted, spread, right = tally_and_moments(logits, y)
    assert sums_agree(counted, tally(logits, y))
    assert sums_agree(spread, moments(logits, y))
    assert torch.equal(right, logits.argmax(dim=-1) == y)
    assert torch.equal(logits, before)


def test_scores_do_not_depend_on_how_many_rows_are_summed_at_a_time(monkeypatch):
    logits, y = batch()
    whole = numbers(evaluate(logits, y, COUNTS))
    monkeypatch.setattr("poise.metrics.MOST_LOGITS", 1)
    assert numbers(evaluate(logits, y, COUNTS)) == pytest.approx(whole, rel=1e-12)


def test_scores_of_a_tally_are_those_of_evaluate():
    logits, y = batch()
    assert scores(tally(logits, y), COUNTS, many=300, few=20) == evaluate(logits, y, COUNTS, many=300, few=20)


# --- refusals, adjustment, confusion ---------------------------------------------------------------------------------


REFUSED = {
    "one dimension": (lambda: evaluate(torch.zeros(6), torch.zeros(6).long(), COUNTS), ("(6, 6)", "(6,)")),
    "rows": (lambda: evaluate(torch.zeros(4, 6), torch.zeros(5).long(), COUNTS), ("(5, 6)", "(4, 6)")),
    "classes": (lambda: evaluate(torch.zeros(4, 5), torch.zeros(4).long(), COUNTS), ("(4, 6)", "(4, 5)")),
    "nan": (
        lambda: evaluate(
            torch.zeros(4, 6).index_fill(0, torch.tensor([2]), float("nan")), torch.zeros(4).long(), COUNTS
        ),
        ("row 2", "not finite"),
    ),
    "infinity": (
        lambda: evaluate(
            torch.zeros(4, 6).index_fill(0, torch.tensor([3]), float("inf")), torch.zeros(4).long(), COUNTS
        ),
        ("row 3", "not finite"),
    ),
    "no row": (lambda: evaluate(torch.zeros(0, 6), torch.zeros(0).long(), COUNTS), ("no row",)),
    "label": (lambda: evaluate(torch.zeros(2, 6), torch.tensor([0, 6]), COUNTS), ("row 1", "label 6")),
    "negative label": (lambda: evaluate(torch.zeros(2, 6), torch.tensor([-1, 0]), COUNTS), ("row 0", "label -1")),
    "adjusted": (
        lambda: evaluate(torch.zeros(2, 6), torch.tensor([1, 0]), COUNTS, adjust=lambda z: z / 0),
        ("row 0", "not finite"),
    ),
    "reading": (lambda: logits_magnitude(*batch(), reading="rows"), ("'unit' or 'sample'", "'rows'")),
    "population": (lambda: regularized_std(*batch(), population="all"), ("'true' or 'rest'", "'all'")),
}


@pytest.mark.parametrize(("call", "fragments"), REFUSED.values(), ids=REFUSED.keys())
def test_unusable_logits_are_refused_with_the_place(call, fragments):
    with pytest.raises(InputError) as refused:
        call()
    assert all(fragment in str(refused.value) for fragment in fragments)
    assert isinstance(refused.value, PoiseError)


def test_an_adjustment_acts_before_scoring():
    logits, y = batch()
    adjust = prediction_rebalancing(power=0.7)
    assert evaluate(logits, y, COUNTS, adjust=adjust) == evaluate(adjust(logits), y, COUNTS)
    assert evaluate(logits, y, COUNTS, adjust=adjust) != evaluate(logits, y, COUNTS)


def test_confusion_agrees_with_scikit_learn():
    logits, y = batch(absent=(2,))
    found = confusion(logits, y)
    assert found.dtype == torch.int64
    assert found.tolist() == oracle.confusion_matrix(y, logits.argmax(-1), labels=range(6)).tolist()


def test_weight_norms_are_those_of_the_rows():
    head = Head(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.ones(2))
    assert weight_norms(head).tolist() == [5.0, 0.0]
    assert weight_norms(Head(torch.ones(3, 2, 4), torch.zeros(3, 2))).shape == (3, 2)


# --- Logits Magnitude and Regularized Std ----------------------------------------------------------------------------


def naive_populations(logits, y, k, reading):
    """Row-centred logits of the true and of the other population of class k, one number at a time."""
    true, rest = [], []
    for z, label in zip((logits - logits.mean(-1, keepdim=True)).tolist(), y.tolist(), strict=True):
        if label == k:
            true.append(z[k])
        if reading == "unit" and label != k:
            rest.append(z[k])
        if reading == "sample" and label == k:
            rest.extend(z[:k] + z[k + 1 :])
    return np.array(true), np.array(rest)


@pytest.mark.parametrize("reading", ["unit", "sample"])
def test_logits_magnitude_agrees_with_loops(reading):
    logits, y = batch()
    for k, found in enumerate(logits_magnitude(logits, y, reading).tolist()):
        true, rest = naive_populations(logits, y, k, reading)
        assert found == pytest.approx(true.mean() - rest.mean(), rel=1e-11)


@pytest.mark.parametrize("population", ["true", "rest"])
@pytest.mark.parametrize("reading", ["unit", "sample"])
def test_regularized_std_agrees_with_loops(reading, population):
    logits, y = batch()
    for k, found in enumerate(regularized_std(logits, y, reading, population).tolist()):
        true, rest = naive_populations(logits, y, k, reading)
        deviation = (true if population == "true" else rest).std()
        assert found == pytest.approx(deviation / (true.mean() - rest.mean()), rel=1e-10)


def test_sample_reading_is_the_lead_over_the_other_units():
    logits, y = balanced()
    rows = torch.arange(len(y))
    own = logits[rows, y]
    lead = own - (logits.sum(-1) - own) / 4
    expected = torch.stack([lead[y == k].mean() for k in range(5)])
    assert torch.allclose(logits_magnitude(logits, y, "sample"), expected, rtol=1e-12)


def test_both_readings_have_the_same_mean_over_classes_on_balanced_data_only():
    logits, y = balanced()
    unit, sample = (logits_magnitude(logits, y, reading) for reading in ("unit", "sample"))
    assert float(unit.mean()) == pytest.approx(float(sample.mean()), rel=1e-12)
    assert not torch.allclose(unit, sample, rtol=1e-2)
    rest = slice(7, None)
    unit, sample = (logits_magnitude(logits[rest], y[rest], reading) for reading in ("unit", "sample"))
    assert float(unit.mean()) != pytest.approx(float(sample.mean()), rel=1e-6)


@pytest.mark.parametrize("reading", ["unit", "sample"])
def test_magnitude_and_spread_ignore_a_constant_added_to_a_row(reading):
    logits, y = batch()
    moved = shifted_rows(logits)
    assert torch.allclose(logits_magnitude(moved, y, reading), logits_magnitude(logits, y, reading), rtol=1e-10)
    for population in ("true", "rest"):
        assert torch.allclose(
            regularized_std(moved, y, reading, population),
            regularized_std(logits, y, reading, population),
            rtol=1e-10,
        )


@pytest.mark.parametrize("reading", ["unit", "sample"])
def test_classes_without_rows_have_no_magnitude(reading):
    logits, y = batch(absent=(1, 4))
    for found in (
        logits_magnitude(logits, y, reading),
        regularized_std(logits, y, reading, "true"),
        regularized_std(logits, y, reading, "rest"),
    ):
        assert found.isnan().tolist() == [False, True, False, False, True, False]


def test_constant_logits_of_a_class_have_no_spread():
    y = torch.tensor([0, 0, 0, 1, 1])
    logits = torch.nn.functional.one_hot(y, 3).double() * 0.1
    assert (regularized_std(logits, y)[:2] < 1e-6).all()  # the square root of a rounding


def test_magnitude_and_spread_read_the_sums():
    logits, y = batch()
    sums = moments(logits, y)
    assert torch.equal(magnitude(sums, "sample"), logits_magnitude(logits, y, "sample"))
    assert torch.equal(spread(sums, "unit", "rest"), regularized_std(logits, y, "unit", "rest"))


def test_dividing_logits_by_ten_divides_the_magnitude_and_keeps_its_variation():
    logits, y = batch()
    before, after = logits_magnitude(logits, y), logits_magnitude(logits / 10, y)
    assert torch.allclose(after, before / 10, rtol=1e-12)
    assert coefficient_of_variation(after) == pytest.approx(coefficient_of_variation(before), rel=1e-12)
    assert torch.allclose(regularized_std(logits / 10, y), regularized_std(logits, y), rtol=1e-10)
    assert evaluate(logits / 10, y, COUNTS).per_class == evaluate(logits, y, COUNTS).per_class


def test_coefficient_of_variation_leaves_out_missing_classes():
    assert coefficient_of_variation(torch.tensor([1.0, float("nan"), 3.0])) == pytest.approx(1 / 2)
    assert coefficient_of_variation(torch.tensor([-1.0, -3.0])) == pytest.approx(1 / 2)


# --- gradients -------------------------------------------------------------------------------------------------------


def test_gradient_balance_agrees_with_autograd():
    logits, y = batch(rows=40)
    found = gradient_balance(logits, y, by_source=True)
    leaf = logits.clone().requires_grad_()
    torch.nn.functional.cross_entropy(leaf, y, reduction="sum").backward()
    expected = torch.zeros(6, 6, dtype=torch.float64)
    for slope, label in zip(leaf.grad, y.tolist(), strict=True):
        expected[:, label] += slope.abs()
    assert torch.allclose(found.by_source, expected, rtol=0, atol=1e-12)
    assert torch.allclose(found.positive, expected.diagonal(), rtol=0, atol=1e-12)
    assert torch.allclose(found.negative, expected.sum(dim=1) - expected.diagonal(), rtol=0, atol=1e-12)


def test_rows_of_a_class_push_others_down_as_much_as_they_pull_it_up():
    logits, y = batch(rows=40)
    found = gradient_balance(logits, y, by_source=True)
    off_diagonal = found.by_source - found.by_source.diag().diag()
    assert torch.allclose(found.positive, off_diagonal.sum(dim=0), rtol=0, atol=1e-12)


def test_the_matrix_of_sources_is_made_only_on_request():
    logits, y = batch(rows=40)
    assert gradient_balance(logits, y).by_source is None
    assert torch.equal(gradient_balance(logits, y).negative, gradient_balance(logits, y, by_source=True).negative)
