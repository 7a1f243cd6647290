"""Methods without training: rescaled rows, shifted biases, temperature, class means, discriminants, chains."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import log_loss
from sklearn.neighbors import NearestCentroid

from poise.errors import InputError, MemorisedRowsError, PoiseWarning
from poise.methods import from_spec, then
from poise.methods.closed_form import class_means, lda, ncm
from poise.methods.posthoc import (
    l2_norm,
    logit_adjustment,
    prediction_rebalancing,
    rebalance,
    stage1,
    tau_norm,
    temperature,
    unlearn,
)
from poise.testing import world
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head, Prep
from poise.values.problem import Problem
from poise.values.spec import Spec


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_problem(*, counts=(40, 20, 9, 3), dim=6, seed=0, held_out=25, separation=2.0):
    """A double-precision problem with a random head, so that no test needs training."""
    problem = world(
        counts=counts, dim=dim, seed=seed, held_out=held_out, separation=separation, dtype=torch.float64, head=False
    )
    return replace(problem, head=some_head(classes=len(counts), dim=dim, seed=seed))


def some_head(*, classes=4, dim=6, seed=0, prep=None):
    scale = 0.5 + torch.arange(classes, 0, -1, dtype=torch.float64)
    return Head(scale.unsqueeze(-1) * random(classes, dim, seed=seed + 10), random(classes, seed=seed + 20), prep)


def with_counts(problem, counts):
    """The same rows under other training counts."""
    return replace(problem, train=replace(problem.train, counts=ClassCounts(torch.tensor(counts))))


def with_rows(problem, x):
    return replace(problem, train=replace(problem.train, x=x))


def rows_of(x, y, *, classes=4, seen=False):
    return Features(x, y, ClassCounts.from_labels(y, classes), seen_by_backbone=seen)


def fresh_rows():
    return random(50, 6, seed=3)


def same(a, b, tolerance=1e-12):
    """Equal heads up to rounding of float64."""
    return bool(
        torch.allclose(a.weight, b.weight, rtol=tolerance, atol=tolerance)
        and torch.allclose(a.bias, b.bias, rtol=tolerance, atol=tolerance)
    )


def centred(logits):
    """Logits up to a constant per row."""
    return logits - logits.mean(dim=-1, keepdim=True)


# --- stage 1 and norms -----------------------------------------------------------------------------------------------


def test_stage1_is_the_head_itself():
    problem = some_problem()
    assert stage1()(problem) is problem.head


def test_stage1_is_fitted_where_there_is_none():
    problem = world(head=False)
    head = stage1()(problem)
    assert float((head(problem.train.x[0]).argmax(-1) == problem.train.y).double().mean()) > 0.6


def test_tau_zero_is_the_head_without_bias():
    problem = some_problem()
    found = tau_norm(tau=0.0)(problem)
    assert torch.equal(found.weight, problem.head.weight)
    assert torch.equal(found.bias, torch.zeros(4).double())


def test_tau_zero_with_the_bias_kept_is_the_identity():
    problem = some_problem()
    assert same(tau_norm(tau=0.0, bias="keep")(problem), problem.head, 0)


@pytest.mark.parametrize("tau", [0.3, 0.7, 1.0, 1.9])
def test_row_norms_become_a_power_of_the_stage_1_norms(tau):
    problem = some_problem()
    norms = problem.head.weight.norm(dim=-1)
    found = tau_norm(tau=tau)(problem)
    assert torch.allclose(found.weight.norm(dim=-1), norms ** (1 - tau), rtol=1e-12)
    cosine = torch.nn.functional.cosine_similarity(found.weight, problem.head.weight)
    assert torch.allclose(cosine, torch.ones(4).double(), rtol=1e-12)


def test_tau_one_gives_unit_rows():
    assert torch.allclose(tau_norm()(some_problem()).weight.norm(dim=-1), torch.ones(4).double(), rtol=1e-12)


def test_l2_norm_gives_unit_rows_and_keeps_the_bias():
    problem = some_problem()
    found = l2_norm()(problem)
    assert torch.allclose(found.weight.norm(dim=-1), torch.ones(4).double(), rtol=1e-12)
    assert torch.equal(found.bias, problem.head.bias)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_zero_rows_stay_zero_under_tau_norm(tau):
    problem = some_problem()
    weight = problem.head.weight.clone()
    weight[1] = 0
    found = tau_norm(tau=tau, bias="keep")(replace(problem, head=replace(problem.head, weight=weight)))
    assert torch.equal(found.weight[1], torch.zeros(6).double())
    assert torch.isfinite(found.weight).all()


def test_a_common_rescale_of_the_weight_changes_predictions_only_if_the_bias_is_kept():
    problem = some_problem()
    head = replace(problem.head, bias=3 * problem.head.bias)
    rescaled = replace(head, weight=0.05 * head.weight)
    x = random(200, 6, seed=5)
    for bias, agree in (("drop", True), ("keep", False)):
        a, b = (tau_norm(tau=0.5, bias=bias)(replace(problem, head=h))(x).argmax(-1) for h in (head, rescaled))
        assert torch.equal(a, b) == agree


def test_tau_norm_keeps_the_preparation_of_features():
    prep = Prep(random(6, seed=8), unit=True)
    assert tau_norm()(replace(some_problem(), head=some_head(prep=prep))).prep is prep


def test_an_unknown_bias_is_refused_with_the_choices():
    with pytest.raises(InputError, match="bias must be one of drop, keep; got 'zero'"):
        tau_norm(bias="zero")


# --- logit adjustment ------------------------------------------------------------------------------------------------


def test_logit_adjustment_subtracts_tau_log_prior():
    problem, x = some_problem(), fresh_rows()
    prior = torch.tensor([40, 20, 9, 3]).double() / 72
    found = logit_adjustment(tau=1.5)(problem)
    assert torch.allclose(found(x), problem.head(x) - 1.5 * prior.log(), rtol=0, atol=1e-12)
    assert torch.equal(found.weight, problem.head.weight)


def test_tau_zero_adjusts_nothing():
    problem = some_problem()
    assert same(logit_adjustment(tau=0.0)(problem), problem.head, 0)


def test_uniform_counts_shift_every_class_alike():
    problem = with_counts(some_problem(), (7, 7, 7, 7))
    moved = logit_adjustment(tau=2.0)(problem).bias - problem.head.bias
    assert torch.allclose(moved, torch.full((4,), 2 * np.log(4)).double(), rtol=1e-12)


def test_an_empty_class_is_adjusted_as_one_row():
    a, b = (logit_adjustment()(with_counts(some_problem(), (40, 20, 9, n))) for n in (0, 1))
    assert same(a, b, 0)


def gaussian_classes():
    """Means (C, D), one covariance (D, D), and a long-tailed prior given by counts."""
    means, root = random(4, 3, seed=1), random(3, 3, seed=2)
    return means, root @ root.T + torch.eye(3), torch.tensor([600, 250, 100, 50])


def bayes_head(means, covariance, prior):
    """The head whose softmax is the posterior of Gaussian classes with one covariance."""
    weight = torch.linalg.solve(covariance, means.T).T
    return Head(weight, -(weight * means).sum(-1) / 2 + prior.log())


def test_the_bayes_head_gives_the_posterior():
    means, covariance, counts = gaussian_classes()
    prior = counts.double() / counts.sum()
    x = random(20, 3, seed=4)
    densities = torch.distributions.MultivariateNormal(means, covariance).log_prob(x.unsqueeze(1)) + prior.log()
    found = bayes_head(means, covariance, prior)(x).softmax(-1)
    assert torch.allclose(found, densities.softmax(-1), rtol=0, atol=1e-12)


def gaussian_problem(each=400):
    """The long-tailed Bayes head, and balanced fresh rows."""
    means, covariance, counts = gaussian_classes()
    y = torch.arange(4).repeat_interleave(each)
    x = means[y] + random(len(y), 3, seed=6) @ torch.linalg.cholesky(covariance).T
    features = Features(x, y, ClassCounts(counts))
    return Problem(features, bayes_head(means, covariance, counts.double() / counts.sum()))


def test_adjusting_by_the_prior_maps_the_long_tailed_bayes_head_onto_the_balanced_one():
    means, covariance, _ = gaussian_classes()
    found = logit_adjustment()(gaussian_problem())
    expected = bayes_head(means, covariance, torch.full((4,), 0.25).double())
    assert torch.equal(found.weight, expected.weight)
    assert torch.allclose(centred(found.bias), centred(expected.bias), rtol=0, atol=1e-13)


def test_tail_recall_grows_and_head_recall_falls_with_tau():
    problem = gaussian_problem()
    x, y = problem.train.x[0], problem.train.y
    recall = torch.stack(
        [
            torch.stack([(logit_adjustment(tau=t)(problem)(x).argmax(-1) == y)[y == k].double().mean() for k in (0, 3)])
            for t in (-1.0, 0.0, 0.5, 1.0, 1.5, 3.0)
        ]
    )
    assert (recall[:, 0].diff() <= 0).all()
    assert (recall[:, 1].diff() >= 0).all()
    assert recall[-1, 1] > recall[1, 1] + 0.2


def test_adjusting_the_bayes_head_by_the_prior_is_best_for_balanced_rows():
    problem = gaussian_problem(each=4000)
    x, y = problem.train.x[0], problem.train.y
    nll = [
        float(torch.nn.functional.cross_entropy(logit_adjustment(tau=t)(problem)(x), y)) for t in (0.0, 0.7, 1.0, 1.3)
    ]
    assert min(nll) == nll[2]


# --- un-learning -----------------------------------------------------------------------------------------------------


def test_unlearn_subtracts_the_prior_weighted_class_means():
    x = torch.tensor([[1.0, 0], [3, 0], [0, 4], [2, 2]], dtype=torch.float64)
    y = torch.tensor([0, 0, 1, 0])
    head = Head(torch.tensor([[1.0, 2], [3, 4]], dtype=torch.float64), torch.tensor([0.5, -0.5]).double())
    found = unlearn(t=0.5)(Problem(rows_of(x, y, classes=2), head))
    # prior (3/4, 1/4), means (2, 2/3) and (0, 4)
    expected = [[1 - 0.5 * 3 / 4 * 2, 2 - 0.5 * 3 / 4 * 2 / 3], [3 - 0, 4 - 0.5 * 1 / 4 * 4]]
    assert found.weight.tolist() == [pytest.approx(row) for row in expected]
    assert found.bias.tolist() == pytest.approx([0.5 - 0.5 * 3 / 4, -0.5 - 0.5 * 1 / 4])


def test_unlearn_reads_the_test_time_view():
    problem = some_problem()
    two = with_rows(problem, torch.stack([problem.train.x[0], random(72, 6, seed=9)]))
    assert same(unlearn()(two), unlearn()(problem), 0)


def test_unlearn_by_zero_is_the_identity():
    problem = some_problem()
    assert same(unlearn(t=0.0)(problem), problem.head, 0)


def test_unlearn_folds_a_centre_and_refuses_unit_norm():
    problem = some_problem()
    centre = Prep(random(6, seed=8))
    found = unlearn()(replace(problem, head=some_head(prep=centre)))
    plain = unlearn()(replace(problem, head=some_head(prep=centre).folded()))
    assert same(found, plain)
    with pytest.raises(InputError, match="divides each feature row by its norm"):
        unlearn()(replace(problem, head=some_head(prep=Prep(unit=True))))


# --- re-balancing ----------------------------------------------------------------------------------------------------


def column_mass(head, features):
    """Sum of the probabilities of every class over the rows."""
    return head(features.x[0]).softmax(-1).sum(dim=0)


def test_power_zero_rebalances_nothing():
    problem = some_problem()
    assert same(rebalance(power=0.0)(problem), problem.head, 0)


@pytest.mark.parametrize("power", [0.5, 1.0, 1.7])
def test_rebalance_predicts_like_dividing_probabilities_by_the_column_mass(power):
    problem = some_problem()
    x = random(500, 6, seed=7)
    mass = column_mass(problem.head, problem.held_out)
    divided = problem.head(x).softmax(-1) / mass**power
    found = rebalance(power=power)(problem)(x)
    assert torch.equal(found.argmax(-1), divided.argmax(-1))
    assert torch.allclose(centred(found), centred(divided.log()), rtol=0, atol=1e-11)


def test_rebalance_subtracts_the_log_of_the_mean_probability():
    problem = some_problem()
    mean = column_mass(problem.head, problem.held_out) / len(problem.held_out)
    assert torch.allclose(rebalance()(problem).bias, problem.head.bias - mean.log(), rtol=0, atol=1e-12)


def test_rebalance_stays_finite_where_a_class_has_no_mass():
    problem = some_problem()
    certain = problem.head.shifted(torch.tensor([0.0, 0.0, 0.0, -5000.0]))
    found = rebalance()(replace(problem, head=certain))
    assert torch.isfinite(found.bias).all()


def test_rebalance_reads_many_rows_in_chunks():
    problem = some_problem()
    x, y = random(9000, 6, seed=4), torch.arange(9000) % 4
    problem = replace(problem, held_out=rows_of(x, y))
    mean = column_mass(problem.head, problem.held_out) / 9000
    assert torch.allclose(rebalance()(problem).bias, problem.head.bias - mean.log(), rtol=0, atol=1e-11)


def test_prediction_rebalancing_by_zero_is_the_identity():
    logits = random(30, 4)
    assert torch.equal(prediction_rebalancing(power=0.0)(logits), logits)


@pytest.mark.parametrize("power", [1.0, 1.5])
def test_prediction_rebalancing_is_logit_adjustment_with_the_log_of_the_mass(power):
    problem, x = some_problem(), random(300, 6, seed=7)
    probabilities = problem.head(x).softmax(-1)
    mass = probabilities.sum(dim=0)
    found = prediction_rebalancing(power=power)(problem.head(x))
    assert torch.allclose(centred(found), centred(problem.head.shifted(-power * mass.log())(x)), rtol=0, atol=1e-12)
    assert torch.equal(found.argmax(-1), (probabilities / mass**power).argmax(-1))


def test_prediction_rebalancing_by_one_divides_columns_to_equal_mass():
    logits = random(300, 4) - torch.tensor([0, 1, 2, 3])
    found = prediction_rebalancing()(logits)
    ratio = (found - logits.logsumexp(-1, keepdim=True)).exp()  # p_nj / m_j with m the mean
    assert torch.allclose(ratio.mean(dim=0), torch.ones(4).double(), rtol=1e-12)


def test_rebalancing_on_the_evaluated_rows_is_prediction_rebalancing():
    problem = some_problem()
    found = rebalance(power=1.3)(problem)(problem.held_out.x[0])
    expected = prediction_rebalancing(power=1.3)(problem.head(problem.held_out.x[0]))
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_rebalancing_a_single_row_is_refused():
    with pytest.raises(InputError, match="for single rows use rebalance"):
        prediction_rebalancing()(random(1, 4))


# --- temperature -----------------------------------------------------------------------------------------------------


def test_temperature_is_the_minimum_of_the_negative_log_likelihood():
    problem = some_problem(held_out=100)
    logits, y = problem.head(problem.held_out.x[0]), problem.held_out.y

    def nll(t):
        return log_loss(y, (logits / t).softmax(-1).numpy(), labels=range(4))

    expected = minimize_scalar(nll, bracket=(0.5, 2.0), tol=1e-10).x
    found = temperature()(problem)
    ratio = problem.head.weight / found.weight
    assert torch.allclose(ratio, torch.full_like(ratio, expected), rtol=1e-5)  # the minimum is flat
    assert torch.allclose(problem.head.bias / found.bias, ratio[:, 0], rtol=1e-9)
    assert not 0.9 < expected < 1.1


def test_temperature_changes_no_prediction_and_lowers_the_loss():
    problem = some_problem()
    found = temperature()(problem)
    x = random(500, 6, seed=7)
    assert torch.equal(found(x).argmax(-1), problem.head(x).argmax(-1))
    before, after = (
        float(torch.nn.functional.cross_entropy(head(problem.held_out.x[0]), problem.held_out.y))
        for head in (problem.head, found)
    )
    assert after < before


def test_temperature_of_a_calibrated_head_is_one():
    problem = gaussian_problem(each=2000)
    balanced = logit_adjustment()(problem)
    order = torch.arange(len(problem.train)).flip(0)  # the training rows themselves are refused
    fresh = replace(problem.train.take(order), seen_by_backbone=False)
    found = temperature()(Problem(problem.train, balanced, fresh))
    assert float(balanced.weight[0, 0] / found.weight[0, 0]) == pytest.approx(1, abs=0.05)  # 8,000 rows


def test_temperature_stays_within_its_bounds_when_all_rows_are_right():
    y = torch.arange(20) % 4
    x = torch.nn.functional.one_hot(y, 6).double()
    head = Head(0.1 * torch.eye(4, 6).double(), torch.zeros(4).double())
    found = temperature()(Problem(rows_of(x, y), head, rows_of(x.flip(0), y.flip(0))))
    # Beyond T = 1/360 here the loss is 0 in float64; the search ends where it stops falling, or at its bound, which is
    # a hundredth of the standard deviation of logits (0.1, 0, 0, 0).
    unit = 0.1 * 3**0.5 / 4
    assert 0.01 * 0.999 * unit <= float(head.weight[0, 0] / found.weight[0, 0]) < 0.1 / 36


# --- rows that trained the representation ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", [rebalance(), temperature()], ids=["rebalance", "temperature"])
def test_held_out_rows_are_asked_for(method):
    with pytest.raises(InputError, match=r"needs rows that the backbone never saw: give Problem\(held_out=...\)"):
        method(replace(some_problem(), held_out=None))


@pytest.mark.parametrize("method", [rebalance(), temperature()], ids=["rebalance", "temperature"])
def test_rows_that_trained_the_backbone_are_refused(method):
    problem = some_problem()
    with pytest.raises(MemorisedRowsError, match="cannot use rows that trained the representation") as refused:
        method(replace(problem, held_out=replace(problem.held_out, seen_by_backbone=True)))
    assert "seen_by_backbone=False" in str(refused.value)
    assert isinstance(refused.value, InputError)


def test_rebalance_names_logit_adjustment_as_the_remedy():
    problem = some_problem()
    with pytest.raises(MemorisedRowsError, match="logit_adjustment"):
        rebalance()(replace(problem, held_out=replace(problem.held_out, seen_by_backbone=True)))


def memorised_problem(seen, wrong=0):
    """A head that is right on all of 100 held-out rows but `wrong` of them."""
    y = torch.arange(100) % 4
    x = 5 * torch.nn.functional.one_hot(y, 6).double()
    labels = y.clone()
    labels[:wrong] = (labels[:wrong] + 1) % 4
    head = Head(torch.eye(4, 6).double(), torch.zeros(4).double())
    return Problem(rows_of(x, y), head, rows_of(x.flip(0), labels.flip(0), seen=seen))


@pytest.mark.parametrize("method", [rebalance(), temperature()], ids=["rebalance", "temperature"])
def test_unknown_rows_that_look_memorised_draw_a_warning(method):
    with pytest.warns(
        PoiseWarning, match=r"more than 98% of the held-out rows right, as if the backbone had trained on them"
    ):
        method(memorised_problem(None))


@pytest.mark.parametrize(("seen", "wrong"), [(False, 0), (None, 2)])
def test_unseen_rows_and_ordinary_accuracy_draw_none(seen, wrong):
    assert torch.isfinite(temperature()(memorised_problem(seen, wrong)).weight).all()  # warnings are errors here


@pytest.mark.parametrize("method", [rebalance(), temperature()], ids=["rebalance", "temperature"])
@pytest.mark.parametrize("seen", [None, False])
def test_the_training_rows_are_refused_as_held_out_rows_whatever_they_say(method, seen):
    problem = some_problem()
    rows = replace(problem.train, seen_by_backbone=seen)
    with pytest.raises(MemorisedRowsError, match="the training rows as held-out rows"):
        method(replace(problem, held_out=rows))


# --- nearest class mean ----------------------------------------------------------------------------------------------


def transformed(x, train, transform):
    """Features as `transform` has it, with the statistics of the training rows."""
    x = x - train.mean(dim=0) if transform == "cl2n" else x
    return x if transform == "raw" else x / x.norm(dim=-1, keepdim=True)


def means_of(x, y, classes=4):
    return torch.stack([x[y == k].mean(dim=0) for k in range(classes)])


def test_class_means_are_means_and_those_of_all_rows_for_empty_classes():
    problem = some_problem(counts=(12, 5, 0, 1))
    x, y = problem.train.x[0], problem.train.y
    found = class_means(x, problem.train)
    assert torch.allclose(found[[0, 1, 3]], torch.stack([x[y == k].mean(dim=0) for k in (0, 1, 3)]), rtol=0, atol=1e-14)
    assert torch.equal(found[2], x.mean(dim=0))
    assert found.dtype == class_means(x.float(), problem.train).dtype == torch.float64


@pytest.mark.parametrize("transform", ["raw", "l2n", "cl2n"])
def test_ncm_predicts_like_scikit_learn_on_transformed_features(transform):
    problem = some_problem(counts=(60, 30, 12, 4))
    train, x = problem.train.x[0], random(500, 6, seed=7)
    reference = NearestCentroid().fit(transformed(train, train, transform).numpy(), problem.train.y.numpy())
    expected = reference.predict(transformed(x, train, transform).numpy())
    assert (ncm(transform=transform)(problem)(x).argmax(-1).numpy() == expected).all()


@pytest.mark.parametrize("transform", ["raw", "l2n", "cl2n"])
def test_ncm_scores_are_the_negative_squared_distances(transform):
    problem = some_problem()
    train, x = problem.train.x[0], fresh_rows()
    means = means_of(transformed(train, train, transform), problem.train.y)
    rows = transformed(x, train, transform)
    expected = -torch.cdist(rows, means).square() + rows.square().sum(-1, keepdim=True)
    assert torch.allclose(ncm(transform=transform)(problem)(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("transform", ["raw", "l2n", "cl2n"])
@pytest.mark.parametrize("distance", ["dot", "cos"])
def test_ncm_offers_products_and_cosines_with_the_means(transform, distance):
    problem = some_problem()
    train, x = problem.train.x[0], fresh_rows()
    means = means_of(transformed(train, train, transform), problem.train.y)
    means = means / means.norm(dim=-1, keepdim=True) if distance == "cos" else means
    expected = transformed(x, train, transform) @ means.T
    assert torch.allclose(ncm(transform=transform, distance=distance)(problem)(x), expected, rtol=0, atol=1e-12)


def test_the_default_ncm_is_centred_normalised_and_euclidean():
    problem = some_problem()
    assert same(ncm()(problem), ncm(transform="cl2n", distance="l2")(problem), 0)


@pytest.mark.parametrize("transform", ["raw", "l2n", "cl2n"])
def test_rotating_features_rotates_ncm_and_leaves_its_logits(transform):
    problem, x = some_problem(), fresh_rows()
    rotation = torch.linalg.qr(random(6, 6, seed=11)).Q
    before = ncm(transform=transform)(problem)
    after = ncm(transform=transform)(with_rows(problem, problem.train.x @ rotation))
    assert torch.allclose(after.weight, before.weight @ rotation, rtol=0, atol=1e-12)
    assert torch.allclose(after(x @ rotation), before(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("transform", ["raw", "cl2n"])
def test_moving_all_features_changes_no_ncm_prediction(transform):
    problem, x, move = some_problem(), random(500, 6, seed=7), 10 * random(6, seed=12)
    before = ncm(transform=transform)(problem)(x)
    after = ncm(transform=transform)(with_rows(problem, problem.train.x + move))(x + move)
    assert torch.allclose(centred(after), centred(before), rtol=0, atol=1e-10)


def test_ncm_ignores_views_and_stage_1():
    problem = some_problem()
    two = with_rows(problem, torch.stack([problem.train.x[0], random(72, 6, seed=9)]))
    assert same(ncm()(two), ncm()(replace(problem, head=None)), 0)


@pytest.mark.parametrize("options", [{"transform": "l2"}, {"distance": "cosine"}])
def test_unknown_options_of_ncm_are_refused_with_the_choices(options):
    with pytest.raises(InputError, match="transform cl2n, l2n or raw and distance l2, dot or cos") as refused:
        ncm(**options)
    assert repr(next(iter(options.values()))) in str(refused.value)


# --- linear discriminant ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shrinkage", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("prior", ["uniform", "train"])
def test_lda_logits_agree_with_scikit_learn(shrinkage, prior):
    problem, x = some_problem(), fresh_rows()
    frequency = np.array([40, 20, 9, 3]) / 72
    # The training frequencies make its weighted covariance the pooled one; they also enter its intercept.
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=frequency)
    reference.fit(problem.train.x[0].numpy(), problem.train.y.numpy())
    expected = torch.from_numpy(reference.decision_function(x.numpy()))
    expected = expected - torch.from_numpy(frequency).log() if prior == "uniform" else expected
    found = lda(shrinkage=shrinkage, prior=prior)(problem)(x)
    assert torch.allclose(centred(found), centred(expected), rtol=0, atol=1e-9)  # solve against least squares


def test_lda_of_balanced_rows_agrees_with_scikit_learn_as_it_is():
    problem, x = some_problem(counts=(15, 15, 15, 15)), fresh_rows()
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2)
    reference.fit(problem.train.x[0].numpy(), problem.train.y.numpy())
    expected = torch.from_numpy(reference.decision_function(x.numpy()))
    assert torch.allclose(centred(lda(shrinkage=0.2)(problem)(x)), centred(expected), rtol=0, atol=1e-9)


def naive_ledoit_wolf(within):
    """Shrinkage of rows that are centred already, from the definition (Ledoit and Wolf, 2004)."""
    rows, dim = within.shape
    covariance = within.T @ within / rows
    identity = torch.eye(dim, dtype=within.dtype)
    wide = ((covariance - covariance.trace() / dim * identity) ** 2).sum() / dim
    noise = sum(((row.outer(row) - covariance) ** 2).sum() / dim for row in within) / rows**2
    return float(min(noise, wide) / wide)


def test_ledoit_wolf_shrinkage_is_that_of_rows_centred_by_class():
    problem, x = some_problem(), fresh_rows()
    problem = with_rows(problem, problem.train.x * torch.tensor([1, 1, 1, 2, 3, 5]))  # round rows are shrunk fully
    train, y = problem.train.x[0], problem.train.y
    found = naive_ledoit_wolf(train - means_of(train, y)[y])
    assert 0.01 < found < 0.9
    assert torch.allclose(lda()(problem)(x), lda(shrinkage=found)(problem)(x), rtol=1e-9)


@pytest.mark.parametrize("counts", [(40, 20, 9, 3), (3, 2, 2, 1)])
def test_empirical_bayes_shrinkage_is_the_published_inverse_up_to_a_scale(counts):
    """W = mu K, b = -mu' K mu / 2 with K = D ((N - 1) S + tr(S) I)^-1: scores in proportion, so equal predictions."""
    problem, x = some_problem(counts=counts), fresh_rows()
    train, y = problem.train.x[0], problem.train.y
    rows, dim = train.shape
    means = means_of(train, y)
    within = train - means[y]
    covariance = within.T @ within / (rows - 1)
    inverse = dim * torch.linalg.inv((rows - 1) * covariance + covariance.trace() * torch.eye(dim, dtype=x.dtype))
    expected = x @ inverse @ means.T - ((means @ inverse) * means).sum(dim=1) / 2
    found = lda(shrinkage="empirical_bayes")(problem)(x)
    ratio = centred(found) / centred(expected)
    assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-8)
    assert torch.allclose(found, lda(shrinkage=dim / (rows - 1 + dim))(problem)(x), rtol=1e-12)


def test_full_shrinkage_is_ncm_up_to_a_scale():
    problem, x = some_problem(), fresh_rows()
    ratio = centred(lda(shrinkage=1.0)(problem)(x)) / centred(ncm(transform="raw")(problem)(x))
    assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-8)


def test_lda_takes_more_features_than_rows():
    problem = some_problem(counts=(3, 2, 2, 1), dim=30)
    for method in (lda(), lda(shrinkage=0.1)):
        assert torch.isfinite(method(problem)(random(5, 30))).all()


@pytest.mark.parametrize("shrinkage", [0, -0.5, 1.5, "auto", None, float("nan")])
def test_a_shrinkage_that_is_none_is_refused_with_its_value(shrinkage):
    message = r"shrinkage must lie in \(0, 1\] or be one of ledoit_wolf, empirical_bayes; got"
    with pytest.raises(InputError, match=message) as refused:
        lda(shrinkage=shrinkage)
    assert repr(shrinkage) in str(refused.value)


def test_an_unknown_prior_is_refused():
    with pytest.raises(InputError, match="prior must be 'uniform' or 'train', got 'test'"):
        lda(prior="test")


@pytest.mark.parametrize("value", [1.0, 0.1])
@pytest.mark.parametrize("shrinkage", [0.5, "ledoit_wolf"])
def test_rows_that_do_not_vary_within_classes_have_no_discriminant(value, shrinkage):
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    x = torch.full((6, 2), value, dtype=torch.float64) * (y + 1).unsqueeze(-1)
    with pytest.raises(InputError, match="every class here is a single point"):
        lda(shrinkage=shrinkage)(Problem(rows_of(x, y, classes=2)))


# --- all closed forms ------------------------------------------------------------------------------------------------

CLOSED_FORMS = {
    "l2_norm": l2_norm(),
    "lda": lda(shrinkage=0.3),
    "lda train": lda(shrinkage=0.3, prior="train"),
    "logit_adjustment": logit_adjustment(),
    "ncm": ncm(),
    "ncm raw": ncm(transform="raw"),
    "rebalance": rebalance(),
    "stage1": stage1(),
    "tau_norm": tau_norm(tau=0.7),
    "temperature": temperature(),
    "unlearn": unlearn(t=0.5),
}
each_closed_form = pytest.mark.parametrize("method", CLOSED_FORMS.values(), ids=CLOSED_FORMS.keys())


@each_closed_form
def test_duplicating_the_data_set_changes_no_head(method):
    problem = some_problem()
    twice = problem.train.take(torch.arange(72).repeat(2))
    twice = replace(twice, counts=ClassCounts(2 * problem.train.counts.n))
    assert same(method(replace(problem, train=twice)), method(problem))


@each_closed_form
def test_the_order_of_rows_changes_no_head(method):
    problem = some_problem()
    order = torch.randperm(72, generator=torch.Generator().manual_seed(2))
    assert same(method(replace(problem, train=problem.train.take(order))), method(problem), 1e-11)


@each_closed_form
@pytest.mark.parametrize("counts", [(12, 5, 1, 1), (12, 5, 0, 1), (0, 0, 12, 5)], ids=str)
def test_classes_of_one_row_and_of_none_give_finite_heads(method, counts):
    problem = some_problem(counts=counts)
    found = method(problem)
    assert found.classes == 4
    assert torch.isfinite(found(fresh_rows())).all()


@each_closed_form
def test_heads_have_the_type_of_the_arithmetic(method):
    problem = some_problem()
    single = Problem(
        replace(problem.train, x=problem.train.x.half()),
        problem.head.to(torch.float32),
        replace(problem.held_out, x=problem.held_out.x.float()),
    )
    assert method(problem).weight.dtype == method(problem).bias.dtype == torch.float64
    assert method(single).weight.dtype == method(single).bias.dtype == torch.float32


# --- chains ----------------------------------------------------------------------------------------------------------


def test_a_single_method_followed_by_nothing_is_itself():
    method = tau_norm()
    assert then(method) is method


def test_a_chain_gives_each_method_the_head_before_it():
    problem = some_problem()
    found = then(tau_norm(tau=0.5), logit_adjustment(tau=0.3), temperature())(problem)
    one = tau_norm(tau=0.5)(problem)
    two = logit_adjustment(tau=0.3)(replace(problem, head=one))
    assert same(found, temperature()(replace(problem, head=two)), 0)


def test_chains_flatten_and_their_nesting_does_not_matter():
    a, b, c = tau_norm(tau=0.5), logit_adjustment(), temperature()
    assert then(then(a, b), c).methods == then(a, then(b, c)).methods == then(a, b, c).methods == (a, b, c)
    problem = some_problem()
    assert same(then(then(a, b), c)(problem), then(a, then(b, c))(problem), 0)


def test_adjustments_add_up_in_a_chain():
    problem = some_problem()
    assert same(then(logit_adjustment(tau=0.4), logit_adjustment(tau=0.6))(problem), logit_adjustment()(problem))
    assert not same(then(logit_adjustment(), tau_norm())(problem), then(tau_norm(), logit_adjustment())(problem), 1e-3)


def test_a_chain_leaves_the_problem_as_it_was():
    problem = some_problem()
    head = problem.head
    then(tau_norm(), logit_adjustment())(problem)
    assert problem.head is head


def test_a_chained_spec_is_a_chain_of_methods():
    problem = some_problem()
    spec = Spec("tau_norm", tau=0.5, bias="keep") + Spec("logit_adjustment", tau=0.3)
    found = from_spec(str(spec))(problem)
    assert same(found, then(tau_norm(tau=0.5, bias="keep"), logit_adjustment(tau=0.3))(problem), 0)
    assert len(from_spec(spec).methods) == 2


def test_a_chain_hands_the_seed_to_every_method():
    seeds = []

    def noted(problem, seed=0):
        seeds.append(seed)
        return problem.head

    then(noted, noted)(some_problem(), 7)
    assert seeds == [7, 7]
