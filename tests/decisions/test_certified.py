"""Targets with a guarantee: counts by hand, the delivered share over many draws, and refusals with numbers."""

import math

import pytest
import torch

from poise.decisions.certified import errors_allowed, lowest_threshold, rows_needed
from poise.decisions.decide import decide
from poise.decisions.operating_point import OperatingPoint
from poise.decisions.targets import Targets, accuracy_threshold, class_thresholds, guarantee_in_words, joint_level
from poise.deployment.certifying_rows import as_common_as, halves
from poise.deployment.chosen_point import choose_operating_point
from poise.errors import InputError, PoiseWarning
from poise.testing import world
from poise.values.counts import ClassCounts
from poise.values.features import Features


def answers(*right, classes=2):
    """Logits whose answers fall from sure to less sure, and labels: one row per entry, of class 0 where it is right."""
    sure = torch.linspace(0.99, 0.6, len(right), dtype=torch.float64)
    rest = ((1 - sure) / (classes - 1)).unsqueeze(1).expand(-1, classes - 1)
    return torch.cat([sure.unsqueeze(1), rest], dim=1).log(), torch.tensor([0 if each else 1 for each in right])


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_the_rows_needed_are_where_the_target_to_their_power_falls_below_the_level():
    # 0.9^28 = 0.0523, 0.9^29 = 0.0471; 0.5^1 = 0.5 exactly.
    assert [rows_needed(0.9, 0.05), rows_needed(0.9, 0.025), rows_needed(0.95, 0.05), rows_needed(0.5, 0.5)] == [
        29,
        36,
        59,
        1,
    ]


def test_the_errors_allowed_are_those_of_the_binomial_tail():
    # One of 45: 0.9^45 + 45 * 0.1 * 0.9^44 = 0.0524; of 46: 0.0480.
    rows = torch.tensor([1, 28, 29, 45, 46]).numpy()
    assert errors_allowed(rows, 0.9, 0.05).tolist() == [-1, -1, 0, 0, 1]


@pytest.mark.parametrize(("rows", "threshold"), [(28, math.inf), (29, 0.0)])
def test_29_faultless_answers_show_nine_tenths_and_28_do_not(rows, threshold):
    logits, y = answers(*[True] * rows)
    assert class_thresholds(logits, y, precision=0.9).tolist() == [threshold, math.inf]


def test_two_classes_jointly_take_36_faultless_answers_each():
    for rows, passes in ((35, False), (36, True)):
        first, y = answers(*[True] * rows)
        logits, labels = torch.cat([first, first.flip(1)]), torch.cat([y, 1 - y])
        assert class_thresholds(logits, labels, precision=0.9).tolist() == [0.0, 0.0]
        jointly = class_thresholds(logits, labels, precision=0.9, jointly=True)
        assert jointly.tolist() == ([0.0, 0.0] if passes else [math.inf, math.inf])


def test_only_classes_that_could_pass_share_the_level():
    # A third class of 10 answers can never pass, so two share 0.05; alone, one keeps it whole.
    assert joint_level(torch.tensor([40, 40, 10]), 0.9, 0.95) == pytest.approx(0.025)
    assert joint_level(torch.tensor([40, 20, 10]), 0.9, 0.95) == pytest.approx(0.05)
    # Neither of two has the 36 answers that a half takes; both have the 29 of the whole, so both share it.
    assert joint_level(torch.tensor([30, 30, 10]), 0.9, 0.95) == pytest.approx(0.025)


def test_the_threshold_lies_just_above_the_first_answer_that_is_left_out():
    logits, y = answers(*[True] * 29, *[False] * 5)
    sure = logits.exp()[:, 0]
    found = float(class_thresholds(logits, y, precision=0.9)[0])
    assert float(sure[29]) < found <= float(sure[28])
    kept = decide(logits, OperatingPoint(thresholds=(found, None))).label
    assert int((kept == 0).sum()) == 29


def test_answers_as_sure_as_each_other_are_kept_together_or_not_at_all():
    sure = torch.tensor([0.9] * 29 + [0.8] * 20, dtype=torch.float64)
    right = torch.tensor([True] * 29 + [False] * 20)
    assert 0.8 < lowest_threshold(sure, right, target=0.9, level=0.05) <= 0.9
    assert lowest_threshold(sure.new_full((49,), 0.9), right, target=0.9, level=0.05) == math.inf


def test_the_order_of_rows_does_not_matter():
    logits, y = answers(*[True] * 60, False, *[True] * 20, False, False)
    assert class_thresholds(logits.flip(0), y.flip(0), precision=0.8).tolist() == (
        class_thresholds(logits, y, precision=0.8).tolist()
    )


def test_an_accuracy_counts_the_answers_of_all_classes():
    first, y = answers(*[True] * 15)
    logits, labels = torch.cat([first, first.flip(1)]), torch.cat([y, 1 - y])
    assert accuracy_threshold(logits, labels, accuracy=0.9) == 0.0
    with pytest.raises(InputError) as caught:
        accuracy_threshold(logits[2:], labels[2:], accuracy=0.9)
    assert str(caught.value) == (
        "no threshold is shown to reach the accuracy 0.9 at confidence 0.95: that takes 29 answers, all right, or more "
        "with some wrong, and there are 28; give more held-out rows or ask for less"
    )


def test_an_accuracy_that_too_many_errors_deny_is_refused():
    logits, y = answers(*[True, False] * 30)
    with pytest.raises(InputError, match="among 60, too many are wrong"):
        accuracy_threshold(logits, y, accuracy=0.9)


# --- over many draws --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharpness", [1.0, 2.0, 0.5])
def test_the_promise_holds_in_19_of_20_draws_however_sure_the_head_is(sharpness):
    """Binary labels drawn with a chance that is known, so that every threshold's true precision is an integral."""
    g = torch.Generator().manual_seed(0)
    grid = torch.linspace(0, 1, 20001, dtype=torch.float64)  # chances are uniform between 0.6 and 1
    chance = 0.6 + 0.4 * grid
    misses = 0
    for _ in range(400):
        own = 0.6 + 0.4 * torch.rand(150, generator=g, dtype=torch.float64)
        right = torch.rand(150, generator=g, dtype=torch.float64) < own
        found = lowest_threshold((own.logit() * sharpness).sigmoid(), right, target=0.9, level=0.05)
        kept = (chance.clamp_max(1 - 1e-12).logit() * sharpness).sigmoid() >= found
        misses += bool(kept.any()) and float(chance[kept].mean()) < 0.9
    assert misses <= 29  # 20 are expected at most; 30 of 400 have a chance of 0.02 at the level


# --- rows that certify ------------------------------------------------------------------------------------------------


def rows_of(numbers, counts=(100, 30, 10)):
    y = torch.repeat_interleave(torch.arange(len(numbers)), torch.tensor(numbers))
    x = torch.arange(len(y)).double().unsqueeze(1)
    return Features(x, y, ClassCounts(torch.tensor(counts)), seen_by_backbone=False)


def test_halves_share_every_class_and_no_row():
    rows = rows_of((9, 4, 1))
    choosing, certifying = halves(rows, 0)
    assert torch.bincount(choosing.y).tolist() == [4, 2]
    assert torch.bincount(certifying.y).tolist() == [5, 2, 1]
    assert set(choosing.x.flatten().tolist()) | set(certifying.x.flatten().tolist()) == set(rows.x.flatten().tolist())
    assert torch.equal(halves(rows, 0)[0].y, choosing.y)


def test_certifying_rows_are_as_common_as_in_the_prior_and_follow_their_keys():
    rows = rows_of((100, 40, 20))
    prior = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    kept = as_common_as(prior, rows, rows.x.flatten(), 0)
    assert torch.bincount(rows.y[kept]).tolist() == [20, 40, 20]
    turned = torch.arange(160).flip(0)
    again = as_common_as(prior, rows.take(turned), rows.x.flatten()[turned], 0)
    assert set(turned[again].tolist()) == set(kept.tolist())


def test_rows_drawn_like_the_training_rows_are_all_kept_for_the_training_prior():
    rows = rows_of((52, 13, 4))
    assert len(as_common_as(rows.counts.prior, rows, rows.x.flatten(), 0)) == 69
    balanced = rows_of((23, 23, 23))
    assert len(as_common_as(rows.counts.prior, balanced, balanced.x.flatten(), 0)) < 40


def test_a_class_with_a_share_and_no_row_lets_nothing_be_promised():
    rows = rows_of((50, 50, 0))
    with pytest.raises(InputError, match=r"the class .* has no row to certify on but a share of 0\.333 in the prior"):
        as_common_as(torch.full((3,), 1 / 3), rows, rows.x.flatten(), 0)


def test_classes_that_are_never_answered_are_named_with_the_number_that_would_do():
    problem = world(counts=(40, 20, 10), held_out=60, separation=6.0)
    shifted = problem.head.shifted(torch.tensor([0.0, 0.0, -99.0]))
    said = r"1 of 3 classes are not shown to reach the precision .* a class takes 4 answers, all right"
    with pytest.warns(PoiseWarning, match=said):
        point = choose_operating_point(shifted, problem.held_out, Targets(precision=0.4), trained_on=problem.train)
    assert point.thresholds[2] is None


def test_a_precision_that_no_class_is_shown_to_reach_is_refused():
    problem = world(held_out=20)
    with pytest.raises(
        InputError, match=r"no threshold is shown to reach the precision 0\.9 at confidence 0\.95: that "
    ):
        choose_operating_point(problem.head, problem.held_out, Targets(precision=0.9), trained_on=problem.train)


# --- words ------------------------------------------------------------------------------------------------------------


def test_a_promise_is_said_in_words():
    assert guarantee_in_words(Targets(coverage=0.8).guarantee) == []
    assert guarantee_in_words(Targets(precision=0.9).guarantee) == [
        "promised at confidence 0.95: at least 0.9 of the answers of a class are right (each class by itself)"
    ]
    both = Targets(precision=0.9, abstain_accuracy=0.95, confidence=0.99, jointly=True)
    assert guarantee_in_words(both.guarantee) == [
        "promised at confidence 0.99: at least 0.95 of the answers are right and 0.9 of the answers of a class are "
        "right (all classes at once)"
    ]
