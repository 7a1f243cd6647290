"""Priors: stated, estimated without labels, and swept."""

import math

import pytest
import torch

from poise.errors import InputError, PoiseWarning
from poise.priors import (
    as_prior,
    divergence,
    estimate_prior,
    find_shift,
    matching_strength,
    mean_softmax,
    prediction_frequencies,
    prior_shift,
    prior_sweep,
)

COUNTS = torch.tensor([60, 30, 10])


def gaussians(prior, rows, seed=0, separation=1.5):
    """Rows (N, 2) of three unit Gaussians drawn from `prior`, their labels, and their log densities (N, 3)."""
    generator = torch.Generator().manual_seed(seed)
    means = separation * torch.tensor([[1.0, 0.0], [-0.5, 0.87], [-0.5, -0.87]], dtype=torch.float64)
    y = torch.multinomial(torch.as_tensor(prior, dtype=torch.float64), rows, replacement=True, generator=generator)
    x = means[y] + torch.randn(rows, 2, generator=generator, dtype=torch.float64)
    return x, y, -torch.cdist(x, means).square() / 2


def test_words_and_arrays_become_priors():
    assert torch.equal(as_prior("uniform", COUNTS), torch.full((3,), 1 / 3, dtype=torch.float64))
    assert as_prior("train", COUNTS).tolist() == [0.6, 0.3, 0.1]
    given = as_prior([0.2, 0.3, 0.50001], COUNTS)
    assert float(given.sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        ("flat", "prior must be 'uniform', 'train' or one share per class, got 'flat'"),
        ([0.5, 0.5], "prior needs one number per class, got shape (2,) for 3 classes"),
        ([0.5, 0.6, -0.1], "prior of class 2 is -0.1; shares are finite and 0 or more"),
        ([0.5, float("nan"), 0.5], "prior of class 1 is nan; shares are finite and 0 or more"),
        ([0.5, 0.3, 0.1], "prior sums to 0.9, not to 1; divide it by its sum"),
        (["a", "b", "c"], "prior must be 'uniform', 'train' or one share per class, got ['a', 'b', 'c']"),
    ],
)
def test_a_prior_that_is_none_is_refused_in_one_sentence(prior, words):
    with pytest.raises(InputError) as caught:
        as_prior(prior, COUNTS)
    assert str(caught.value) == words


def test_the_shift_is_the_log_ratio_and_undoes_itself():
    a, b = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])
    assert prior_shift(a, b).tolist() == pytest.approx([-math.log(2), 0, math.log(2)])
    assert torch.allclose(prior_shift(a, b), -prior_shift(b, a))
    assert torch.isfinite(prior_shift(a, torch.tensor([1.0, 0.0, 0.0]))).all()


def test_shifting_the_posterior_of_one_prior_gives_the_posterior_of_another():
    _, _, log_density = gaussians([0.6, 0.3, 0.1], 50)
    a, b = as_prior("train", COUNTS), as_prior("uniform", COUNTS)
    shifted = (log_density + a.log() + prior_shift(a, b)).softmax(-1)
    assert torch.allclose(shifted, (log_density + b.log()).softmax(-1), atol=1e-14)


def test_a_weight_of_two_is_a_row_twice_in_the_mean_softmax():
    logits = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    twice = mean_softmax(torch.cat([logits, logits[1:]]))
    assert torch.allclose(mean_softmax(logits, torch.tensor([1.0, 2.0])), twice)
    assert prediction_frequencies(torch.cat([logits, logits[1:]])).tolist() == pytest.approx([1 / 3, 2 / 3])


def test_the_divergence_is_zero_for_equals_and_log_two_at_most():
    p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert float(divergence(p, p)) == 0
    assert float(divergence(p, q)) == pytest.approx(math.log(2))
    # By hand: halves (3/4, 1/4) in the middle of (1, 0) and (1/2, 1/2).
    by_hand = (math.log(4 / 3) + 0.5 * math.log(2 / 3) + 0.5 * math.log(2)) / 2
    assert float(divergence(p, torch.tensor([0.5, 0.5]))) == pytest.approx(by_hand)


@pytest.mark.parametrize("target", [(0.6, 0.3, 0.1), (0.1, 0.2, 0.7), (1 / 3, 1 / 3, 1 / 3), (0.5, 0.5, 0.0)])
@pytest.mark.parametrize("method", ["em", "bbse"])
def test_a_shifted_prior_is_recovered(target, method):
    source = as_prior("train", COUNTS)
    _, held_y, held = gaussians([1 / 3] * 3, 6000, seed=1)
    _, _, log_density = gaussians(target, 6000, seed=2)
    found = estimate_prior(
        log_density + source.log(), source, method=method, held_out=(held + source.log(), held_y.long())
    )
    # The standard error of a share of 6000 rows is below 0.0065; overlap makes it up to three times larger.
    assert torch.allclose(found, torch.tensor(target, dtype=torch.float64), atol=0.04)
    assert float(found.sum()) == pytest.approx(1)
    assert torch.isfinite(prior_shift(source, found)).all()


def test_the_em_estimate_is_a_fixed_point_and_its_steps_are_bounded():
    source = as_prior("train", COUNTS)
    logits = gaussians([0.2, 0.2, 0.6], 500)[2] + source.log()
    found = estimate_prior(logits, source)
    again = (logits + prior_shift(source, found)).softmax(-1).mean(0)
    assert torch.allclose(found, again, atol=1e-7)
    assert torch.equal(estimate_prior(logits, source, steps=0), source)


def test_a_class_without_held_out_rows_keeps_its_share():
    source = as_prior("train", COUNTS)
    _, y, logits = gaussians([0.5, 0.5, 0.0], 1000)
    found = estimate_prior(logits, source, method="bbse", held_out=(logits, y))
    assert float(found[2]) == pytest.approx(0.1)
    assert float(found.sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "guess"}, "method must be one of em, bbse; got 'guess'"),
        ({"method": "bbse"}, "bbse needs labelled rows that the head never saw: held_out=(logits, labels)"),
        (
            {"method": "bbse", "held_out": (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))},
            "held-out logits must be (M, 3) with a label each and at least one row, got (0, 3) and 0 labels",
        ),
        (
            {"method": "bbse", "held_out": (torch.full((1, 3), math.nan), torch.zeros(1, dtype=torch.long))},
            "row 0 of the held-out logits is not finite; drop it or mend its features",
        ),
        ({"strength": -1.0}, "strength is a number of rows per class, 0 or more and finite, got -1.0"),
    ],
)
def test_estimates_that_cannot_be_made_are_refused(arguments, words):
    with pytest.raises(InputError) as caught:
        estimate_prior(torch.zeros(2, 3), torch.full((3,), 1 / 3), **arguments)
    assert str(caught.value) == words


@pytest.mark.parametrize("method", ["em", "bbse"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_give_no_estimate(method, value):
    logits = torch.zeros(3, 3)
    logits[1, 2] = value
    held_out = (torch.eye(3), torch.arange(3))
    with pytest.raises(InputError) as caught:
        estimate_prior(logits, torch.full((3,), 1 / 3), method=method, held_out=held_out)
    assert str(caught.value) == "row 1 of the logits is not finite; drop it or mend its features"


@pytest.mark.parametrize("source", [[0.5, 0.6, -0.1], [0.5, math.nan, 0.5], [0.5, 0.2, 0.2]])
def test_a_source_that_is_no_prior_gives_no_estimate(source):
    with pytest.raises(InputError, match=r"^prior "):
        estimate_prior(torch.zeros(2, 3), torch.tensor(source))


@pytest.mark.parametrize("answers", [[0, 0, 0], [1, 1, 2], [0, 1, 0]])
def test_classes_that_are_answered_alike_leave_the_source_and_a_warning(answers):
    source = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    held_out = (torch.eye(3)[answers].repeat(5, 1), torch.arange(3).repeat(5))
    with pytest.warns(PoiseWarning, match="the confusion matrix cannot be inverted"):
        found = estimate_prior(torch.eye(3)[[0, 0, 0, 1]], source, method="bbse", held_out=held_out)
    assert torch.equal(found, source)


def test_a_class_of_share_zero_keeps_it():
    source = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    found = estimate_prior(torch.tensor([[0.0, 1.0, 9.0], [2.0, 0.0, 9.0]]), source)
    assert float(found[2]) == 0
    assert float(found.sum()) == pytest.approx(1)


def test_strength_counts_as_rows_of_the_source():
    # Certain posteriors: 4 rows of class 0, and 2 * 3 pseudo-rows with shares (1/2, 1/4, 1/4).
    logits = 1000.0 * torch.eye(3, dtype=torch.float64)[[0] * 4]
    source = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    assert estimate_prior(logits, source, strength=2.0).tolist() == pytest.approx([0.7, 0.15, 0.15], abs=1e-6)
    assert estimate_prior(logits, source).tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)


# --- is there a shift? ------------------------------------------------------------------------------------------------


def test_the_statistic_and_its_p_by_hand():
    # Certain posteriors are labels: 12 rows of class 0 under shares of a half are 12 log 2 more likely with share 1.
    logits = 1000.0 * torch.eye(2, dtype=torch.float64)[[0] * 12]
    half = torch.full((2,), 0.5, dtype=torch.float64)
    found = find_shift(logits, half)
    assert found.statistic == pytest.approx(24 * math.log(2))
    assert found.p == pytest.approx(math.erfc(math.sqrt(12 * math.log(2))))  # chi-square with 1 degree of freedom
    assert found.found
    assert found.prior == pytest.approx((14 / 16, 2 / 16), abs=1e-6)
    assert str(found) == ("a shift of the class prior was found in 12 rows (p = 4.5e-05); the estimate was applied")
    assert find_shift(logits, half, evidence=4.0).statistic == pytest.approx(6 * math.log(2))


def test_a_row_cannot_tell_and_the_prior_stays():
    source = as_prior("uniform", COUNTS)
    found = find_shift(torch.tensor([[9.0, 0.0, 0.0]]), source)
    assert not found.found
    assert found.prior == tuple(source.tolist())
    assert str(found).startswith("no shift of the class prior was found in 1 row (p = ")
    assert str(found).endswith("); the prior stays")


@pytest.mark.parametrize("rows", [20, 100, 1000])
def test_false_alarms_are_rare_and_shifts_are_found(rows):
    source = as_prior("train", COUNTS)

    def share_found(prior):
        draws = (gaussians(prior, rows, seed=seed, separation=2.5)[2] + source.log() for seed in range(60))
        return sum(find_shift(logits, source).found for logits in draws) / 60

    assert share_found(source.tolist()) <= 0.05  # 1 % is the level; more than 3 of 60 has a chance of 0.003
    assert share_found([0.1, 0.2, 0.7]) >= 0.95


def test_no_row_gives_no_estimate():
    with pytest.raises(InputError, match="at least one row"):
        estimate_prior(torch.zeros(0, 3), torch.full((3,), 1 / 3))


def test_the_strength_that_makes_the_marginal_right_is_found_without_labels():
    train = as_prior("train", COUNTS)
    uniform = as_prior("uniform", COUNTS)
    logits = gaussians([1 / 3] * 3, 4000)[2] + train.log()  # meant for the training prior, deployed on a uniform one
    taus = (0.0, 0.5, 1.0, 1.5, 2.0)

    def softmax_marginal(tau):
        return mean_softmax(logits - tau * train.log())

    def argmax_marginal(tau):
        return prediction_frequencies(logits - tau * train.log())

    assert matching_strength(softmax_marginal, taus, uniform) == 1.0
    assert matching_strength(argmax_marginal, taus, uniform) == 1.0
    assert matching_strength(lambda tau: uniform, taus, uniform) == 0.0  # the first of equals
    with pytest.raises(InputError, match="at least one value"):
        matching_strength(softmax_marginal, [], uniform)


def test_the_sweep_by_hand():
    # Two classes with counts 3 and 1; logits meant for the uniform prior; one row of class 1 is won by class 0.
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.5, 0.0]])
    y = torch.tensor([0, 1, 1])
    sweep = prior_sweep(logits, y, torch.tensor([3, 1]), source=torch.tensor([0.5, 0.5]), exponents=(1.0, 0.0, -1.0))
    assert sweep.priors.tolist() == [
        pytest.approx([0.75, 0.25]),
        pytest.approx([0.5, 0.5]),
        pytest.approx([0.25, 0.75]),
    ]
    # At -1 the shift log(3) is more than the lead of 0.5, less than that of 2.
    assert sweep.accuracy.tolist() == pytest.approx([0.75 + 0.25 / 2, 0.5 + 0.5 / 2, 1.0])


def test_the_sweep_at_the_training_prior_is_the_accuracy_there():
    _, y, log_density = gaussians([0.6, 0.3, 0.1], 5000)
    sweep = prior_sweep(log_density, y, torch.bincount(y), source=as_prior("uniform", COUNTS), exponents=(1.0,))
    prior = torch.bincount(y).double() / len(y)
    assert float(sweep.accuracy) == pytest.approx(float(((log_density + prior.log()).argmax(-1) == y).double().mean()))


def test_a_class_without_rows_does_not_enter_the_sweep():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    sweep = prior_sweep(logits, torch.tensor([0, 1]), COUNTS, source=torch.full((3,), 1 / 3))
    assert torch.isfinite(sweep.accuracy).all()
    assert float(sweep.accuracy.max()) == 1
    with pytest.raises(InputError, match="logits must be"):
        prior_sweep(logits[:1], torch.tensor([0, 1]), COUNTS, source=torch.full((3,), 1 / 3))
