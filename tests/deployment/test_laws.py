"""Laws of the estimator, for every method: any unit, any origin, copies and weights; and what is said at chance."""

import warnings

import numpy as np
import pytest
import torch

from poise import methods
from poise.deployment.calibration import Evidence, calibrate
from poise.deployment.estimator import LongTailClassifier
from poise.errors import PoiseWarning
from poise.methods import is_trained

SIZES = (90, 30, 6)
NAMES = (*methods.METHODS, "tau_norm(tau=0.5,bias='keep')", "converged+unlearn(t=0.3)")
SHORT = {"epochs": 3, "batch_size": 32}


def draw(sizes, seed):
    """Rows (N, 6) of three unit Gaussians 2.5 from the origin on three axes, and labels."""
    y = np.repeat(np.arange(3), sizes)
    return np.random.default_rng(seed).normal(size=(len(y), 6)) + 2.5 * np.eye(3, 6)[y], y


X, Y = draw(SIZES, 0)
UNSEEN = draw((15, 15, 15), 1)
TEST, TRUTH = draw((200, 200, 200), 2)


def fitted(name, x=X, y=Y, weight=None, unseen=UNSEEN):
    params = SHORT if name in methods.METHODS and is_trained(name) else {}
    with warnings.catch_warnings(action="ignore", category=PoiseWarning):
        return LongTailClassifier(name, random_state=0, **params).fit(x, y, sample_weight=weight, held_out=unseen)


def recalls(classifier):
    found = classifier.predict(TEST)
    return np.array([(found[k == TRUTH] == k).mean() for k in range(3)])


# --- unit and origin --------------------------------------------------------------------------------------------------


# Powers of two move no digit of a feature, so that rows keep the order in which they are trained on.
@pytest.mark.parametrize("factor", [2.0**-10, 2.0**7, 2.0**13])
@pytest.mark.parametrize("name", NAMES)
def test_probabilities_do_not_depend_on_the_unit_of_the_features(name, factor):
    plain = fitted(name).predict_proba(TEST)
    scaled = fitted(name, X * factor, unseen=(UNSEEN[0] * factor, UNSEEN[1])).predict_proba(TEST * factor)
    np.testing.assert_allclose(scaled, plain, atol=1e-4)  # a search for a temperature stops within 1e-4 of it


@pytest.mark.parametrize("name", ["ncm(transform='raw')", "lda", "converged", "cosine(epochs=3)", "logit_adjustment"])
def test_probabilities_do_not_depend_on_the_origin_of_the_features(name):
    away = 8.0 * np.arange(6)
    near = LongTailClassifier(name).fit(X, Y, held_out=UNSEEN).predict_proba(TEST)
    far = LongTailClassifier(name).fit(X + away, Y, held_out=(UNSEEN[0] + away, UNSEEN[1])).predict_proba(TEST + away)
    # The order of rows with other digits is another one, which a cosine head of 3 epochs feels.
    np.testing.assert_allclose(far, near, atol=0.05 if "cosine" in name else 1e-3)


@pytest.mark.parametrize("implied", [None, [0.7, 0.2, 0.1]])
@pytest.mark.parametrize("factor", [1e-6, 1e5])
def test_the_temperature_of_logits_times_c_is_c_times_theirs(implied, factor):
    logits = torch.randn(60, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(60) % 3
    logits[torch.arange(60), y] += 1.5
    prior = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    known = None if implied is None else torch.tensor(implied, dtype=torch.float64)
    one = calibrate(Evidence(logits, y, torch.ones(60, dtype=torch.float64)), prior, known)
    other = calibrate(Evidence(factor * logits, y, torch.ones(60, dtype=torch.float64)), prior, known)
    assert other[0] == pytest.approx(factor * one[0], rel=1e-6)
    torch.testing.assert_close(other[1], one[1], rtol=0, atol=1e-6)


def test_the_temperature_of_logits_that_do_not_spread_is_finite():
    even = Evidence(torch.ones(9, 3, dtype=torch.float64), torch.arange(9) % 3, torch.ones(9, dtype=torch.float64))
    assert np.isfinite(calibrate(even, torch.full((3,), 1 / 3, dtype=torch.float64), None)[0])


# --- copies and weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_copies_are_weights_and_all_rows_alike_are_no_weights(name):
    times = np.where(np.arange(len(Y)) % 3, 1, 2)
    copied = fitted(name, np.repeat(X, times, axis=0), np.repeat(Y, times)).predict_proba(TEST)
    np.testing.assert_array_equal(fitted(name, weight=times).predict_proba(TEST), copied)
    np.testing.assert_array_equal(fitted(name, weight=2.0 * times).predict_proba(TEST), copied)
    plain = fitted(name).predict_proba(TEST)
    for same in (0.3, 3.0):
        np.testing.assert_array_equal(fitted(name, weight=np.full(len(Y), same)).predict_proba(TEST), plain)
    np.testing.assert_array_equal(fitted(name, np.tile(X, (3, 1)), np.tile(Y, 3)).predict_proba(TEST), plain)


@pytest.mark.parametrize("name", ["crt", "lws", "gcl", "label_aware_smoothing(epochs=30)"])
def test_a_sampler_of_classes_is_not_balanced_twice(name):
    """Weights that balance the classes change nothing in how often a row is drawn; they were loss weights as well."""
    balanced = np.array([1, 3, 15])[Y]
    weighted = LongTailClassifier(name).fit(X, Y, sample_weight=balanced, held_out=UNSEEN)
    assert recalls(weighted).min() > 0.7
    if name == "crt":  # its start is fresh, so nothing else depends on the weights
        plain = LongTailClassifier(name).fit(X, Y, held_out=UNSEEN)
        assert np.abs(recalls(weighted) - recalls(plain)).max() < 0.05


@pytest.mark.parametrize("name", ["balanced_softmax", "logit_adjustment", "lda", "converged", "crt", "vs", "marc"])
def test_a_class_of_small_weight_is_not_lifted_to_a_row(name):
    """6 rows that weigh 0.01 each are a share of 5e-4; raised to one row, the class had 16 times its share."""
    weight = np.array([1.0, 1.0, 0.01])[Y]
    classifier = LongTailClassifier(name).fit(X, Y, sample_weight=weight, held_out=UNSEEN)
    counts = classifier.model().counts
    assert float(counts.prior[2]) == pytest.approx(0.06 / 120.06, rel=1e-9)
    assert counts.n.tolist()[2] == 1  # a whole number for tables


# --- cosine heads, and heads at chance --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cosine", "ldam", "gcl"])
def test_cosine_heads_answer_every_class_at_their_defaults(name):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [600, 60, 6])
    x = rng.normal(size=(len(y), 8)) + 2.5 * np.eye(3, 8)[y]
    truth = np.repeat([0, 1, 2], 300)
    found = LongTailClassifier(name).fit(x, y).predict(rng.normal(size=(900, 8)) + 2.5 * np.eye(3, 8)[truth])
    assert min((found[truth == k] == k).mean() for k in range(3)) > 0.75  # the Bayes rule has 0.93


def test_heads_without_a_bias_imply_no_prior():
    assert {methods.METHODS[name].traits.implied_prior for name in ("cosine", "ldam", "gcl", "ncm", "tau_norm")} == {
        None
    }


@pytest.mark.parametrize("method", ["auto", "lda", "converged"])
def test_a_head_at_chance_is_said(method):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(120, 3)), np.repeat([0, 1, 2], 40)
    with pytest.warns(
        PoiseWarning, match=r"hardly better than chance: the recall expected on unseen rows is \d+\.\d %"
    ):
        LongTailClassifier(method).fit(x, y)


def test_a_head_that_finds_its_classes_is_not_said_to_be_at_chance():
    LongTailClassifier("lda").fit(X, Y, held_out=UNSEEN)  # warnings are errors
