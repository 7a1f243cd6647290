"""The scikit-learn face."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from poise.deployment.estimator import LongTailClassifier
from poise.deployment.model import load
from poise.errors import InputError, MemorisedRowsError, PoiseWarning
from poise.heads.converged import converged
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.problem import Problem


@parametrize_with_checks(
    [
        LongTailClassifier(),
        LongTailClassifier("logit_adjustment"),
        LongTailClassifier("lda"),
        LongTailClassifier("crt", epochs=5, batch_size=16),
    ]
)
# Many of the checks fit a handful of rows, of which none can be set aside to calibrate on.
@pytest.mark.filterwarnings("ignore::poise.errors.PoiseWarning")
def test_every_check_of_scikit_learn_passes(estimator, check):
    check(estimator)


# --- data -------------------------------------------------------------------------------------------------------------

TRAIN = np.array([0.5, 0.25, 0.13, 0.08, 0.04])
UNIFORM = np.full(5, 0.2)
NAMES = np.array(["ant", "bee", "cat", "dog", "eel"])
PRIORS = {"train": TRAIN, "uniform": UNIFORM, "tail": TRAIN[::-1].copy()}


def draw(prior=TRAIN, rows=1500, seed=0, dim=6, separation=1.7):
    """Rows of five unit Gaussians whose classes are drawn from `prior`; X (N, D) and names (N,)."""
    means = np.random.default_rng(99).normal(size=(5, dim))
    means *= separation / np.linalg.norm(means, axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    y = rng.choice(5, size=rows, p=prior)
    return means[y] + rng.normal(size=(rows, dim)), NAMES[y]


def bins(probabilities, right, number=10):
    """(confidence, accuracy, share) of the bins of the largest probability that have rows."""
    sure = probabilities.max(axis=1)
    place = np.clip(np.ceil(sure * number).astype(int), 1, number)
    return [(sure[place == b].mean(), right[place == b].mean(), np.mean(place == b)) for b in np.unique(place)]


def calibration_error(classifier, x, y):
    probabilities = classifier.predict_proba(x)
    right = classifier.classes_[probabilities.argmax(axis=1)] == y
    return sum(share * abs(sure - accuracy) for sure, accuracy, share in bins(probabilities, right))


# --- probabilities ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize(
    ("method", "params"),
    [("auto", {}), ("lda", {}), ("logit_adjustment", {"tau": 0.5}), ("tau_norm", {}), ("crt", {"epochs": 5})],
)
def test_probabilities_are_right_on_rows_of_the_prior_they_are_made_for(method, params, name):
    prior = "train" if name == "train" else PRIORS[name]
    classifier = LongTailClassifier(method, prior=prior, **params).fit(*draw())
    fresh = draw(PRIORS[name], rows=6000, seed=1)
    # 6000 rows give a perfect classifier an error of about 0.01; 1500 training rows, 60 of the rarest, add some.
    assert calibration_error(classifier, *fresh) < 0.035
    assert classifier.prior_applied_ == pytest.approx(PRIORS[name], abs=0.03)
    if name == "tail":
        # The reliability of the wrong prior, for scale.
        assert calibration_error(LongTailClassifier(method, prior="train", **params).fit(*draw()), *fresh) > 0.05


def test_auto_comes_close_to_the_bayes_rule_of_every_prior():
    for name, prior in PRIORS.items():
        x, y = draw(prior, rows=4000, seed=1)
        means = np.random.default_rng(99).normal(size=(5, 6))
        means *= 1.7 / np.linalg.norm(means, axis=1, keepdims=True)
        bayes = NAMES[(x @ means.T - (means**2).sum(1) / 2 + np.log(prior)).argmax(axis=1)]
        classifier = LongTailClassifier(prior=prior).fit(*draw())
        assert classifier.score(x, y) > np.mean(bayes == y) - 0.02, name


def test_adapt_recovers_a_shifted_prior_from_rows_alone():
    classifier = LongTailClassifier().fit(*draw(rows=3000))
    for prior in PRIORS.values():
        x, y = draw(prior, rows=4000, seed=3)
        before = classifier.score(x, y)
        classifier.adapt(x)
        # 4000 rows give a share a standard error below 0.01; a head learnt from 120 rows of a class adds the rest.
        assert classifier.prior_applied_ == pytest.approx(prior, abs=0.06)
        assert classifier.score(x, y) > before - 0.01
        again = classifier.prior_applied_.copy()
        assert classifier.adapt(x).prior_applied_ == pytest.approx(again, abs=1e-4)


@pytest.mark.parametrize("rows", [1, 20, 100, 1000])
def test_adapt_leaves_everything_as_it_was_where_rows_show_no_shift(rows):
    classifier = LongTailClassifier(prior="train").fit(*draw())
    fresh, _ = draw(rows=500, seed=5)
    before = classifier.predict_proba(fresh)
    for seed in range(5):
        assert classifier.adapt(draw(rows=rows, seed=10 + seed)[0]) is classifier
        assert not classifier.shift_.found
        assert (classifier.shift_.rows, "no shift" in str(classifier.shift_)) == (rows, True)
    assert np.array_equal(classifier.predict_proba(fresh), before)


def test_a_few_rows_of_one_class_do_not_silence_the_others():
    x, y = draw(rows=1500)
    classifier = LongTailClassifier().fit(x, y)
    many, truth = draw(UNIFORM, rows=4000, seed=7)
    before = classifier.score(many, truth)
    largest = draw(rows=200, seed=8)
    classifier.adapt(largest[0][largest[1] == "ant"][:5])
    assert classifier.score(many, truth) > before - 0.02


def test_a_strong_shift_is_found_and_pays():
    classifier = LongTailClassifier(prior="train").fit(*draw())
    x, _ = draw(PRIORS["tail"], rows=100, seed=3)
    fresh = draw(PRIORS["tail"], rows=4000, seed=4)
    before = classifier.score(*fresh)
    assert classifier.adapt(x).shift_.found
    assert classifier.score(*fresh) > before + 0.05
    assert not hasattr(classifier.fit(*draw()), "shift_")


def test_adapt_refuses_rows_that_are_not_finite_and_none_at_all():
    classifier = LongTailClassifier("lda").fit(*draw(rows=200))
    with pytest.raises(ValueError, match="NaN"):
        classifier.adapt(np.full((3, 6), np.nan))
    with pytest.raises(ValueError, match="0 sample"):
        classifier.adapt(np.zeros((0, 6)))


def test_rows_given_to_predict_change_nothing():
    classifier = LongTailClassifier("lda").fit(*draw(rows=200))
    x, _ = draw(PRIORS["tail"], rows=50)
    before = classifier.predict_proba(x[:1])
    classifier.predict(x)
    assert np.array_equal(before, classifier.predict_proba(x[:1]))


# --- unseen rows ------------------------------------------------------------------------------------------------------


def test_auto_refuses_rows_that_the_backbone_saw_and_names_the_remedy():
    with pytest.raises(MemorisedRowsError) as caught:
        LongTailClassifier(seen_by_backbone=True).fit(*draw(rows=100))
    assert str(caught.value) == (
        "rows that trained the representation cannot choose a method: give rows that the backbone never saw, "
        "fit(..., held_out=(X, y)), or name a method"
    )


def test_held_out_rows_choose_and_calibrate_in_the_place_of_folds():
    held_out = draw(UNIFORM, rows=600, seed=5)
    classifier = LongTailClassifier(seen_by_backbone=True).fit(*draw(), held_out=held_out)
    assert calibration_error(classifier, *draw(UNIFORM, rows=6000, seed=1)) < 0.04
    named = LongTailClassifier("temperature", seen_by_backbone=True).fit(*draw(), held_out=held_out)
    assert named.prior_applied_ == pytest.approx(UNIFORM)


def test_without_unseen_rows_the_probabilities_say_what_they_are():
    x, y = draw(rows=300)
    with pytest.warns(
        PoiseWarning, match=r"probabilities are not calibrated; fit\(..., held_out=\(X, y\)\) mends this"
    ):
        known = LongTailClassifier("logit_adjustment", seen_by_backbone=True).fit(x, y)
    assert known.prior_applied_ == pytest.approx(UNIFORM)
    with pytest.warns(PoiseWarning, match="are the plain softmax, to which no prior was applied"):
        unknown = LongTailClassifier("tau_norm", seen_by_backbone=True).fit(x, y)
    assert unknown.prior_applied_ is None
    assert unknown.predict_proba(x) == pytest.approx(unknown.head_(torch.tensor(x)).softmax(-1).numpy())
    with pytest.raises(InputError, match="adapt needs a head whose prior is known"):
        unknown.adapt(x)


def test_rows_of_unknown_origin_that_look_memorised_are_remarked():
    x, y = draw(separation=30.0)
    with pytest.warns(PoiseWarning, match=r"100.0% of the rows set aside are predicted right, as if the backbone"):
        LongTailClassifier("lda", seen_by_backbone=None).fit(x, y)


def test_a_method_that_needs_held_out_rows_says_so():
    with pytest.raises(InputError, match=r"temperature needs rows that the backbone never saw: fit\(..., held_out"):
        LongTailClassifier("temperature").fit(*draw(rows=100))


@pytest.mark.filterwarnings("ignore:.*hardly better than chance")  # which is right here
def test_groups_are_never_divided():
    # The label is a property of the group, and a row says which group: divided, any head would be right.
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 10)
    labels = rng.integers(0, 2, size=60)[groups]
    x = np.eye(60)[groups] * 20 + rng.normal(size=(600, 60))
    with_groups = LongTailClassifier("ce", seen_by_backbone=False, epochs=5).fit(x, labels, groups=groups)
    without = LongTailClassifier("ce", seen_by_backbone=False, epochs=5).fit(x, labels)
    sure = [np.median(np.abs(c.decision_function(x))) for c in (with_groups, without)]
    assert sure[0] < 0.5 * sure[1]  # calibrated on whole groups, it knows that it knows little


@pytest.mark.filterwarnings("ignore:.*hardly better than chance")  # which is right here
def test_identical_rows_are_never_divided():
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 2, size=60), 10)
    noise = np.repeat(rng.normal(size=(60, 100)), 10, axis=0)
    classifier = LongTailClassifier().fit(noise, labels)
    assert np.median(classifier.predict_proba(noise).max(axis=1)) < 0.9


# --- what scikit-learn's tools need -----------------------------------------------------------------------------------


def test_pipelines_and_grid_search_with_groups():
    x, y = draw(rows=120)
    pipeline = make_pipeline(StandardScaler(), LongTailClassifier("logit_adjustment"))
    search = GridSearchCV(
        pipeline,
        {"longtailclassifier__tau": [0.0, 1.0], "longtailclassifier__prior": ["uniform", "train"]},
        cv=GroupKFold(3),
        scoring="balanced_accuracy",
    )
    search.fit(x, y, groups=np.arange(120) // 4)
    assert set(search.best_params_) == {"longtailclassifier__tau", "longtailclassifier__prior"}
    assert search.best_estimator_[-1].get_params()["tau"] == search.best_params_["longtailclassifier__tau"]
    plain = GridSearchCV(LongTailClassifier("lda"), {"shrinkage": [0.1, 0.9]}, cv=3).fit(x, y)
    assert plain.best_estimator_.method_ == f"lda(shrinkage={plain.best_params_['shrinkage']})"


def test_clones_have_the_parameters_of_the_method_too():
    given = LongTailClassifier("crt", prior=TRAIN, epochs=3, lr=0.5)
    copy = clone(given)
    assert copy.get_params() == {**given.get_params(), "prior": copy.prior}
    assert np.array_equal(copy.prior, TRAIN)
    assert repr(LongTailClassifier("crt", epochs=3)) == "LongTailClassifier(epochs=3, method='crt')"
    assert copy.set_params(method="tau_norm", tau=0.5).get_params()["tau"] == 0.5


def test_a_parameter_that_the_method_has_not_is_refused():
    meant = r"method 'tau_norm' has no parameter 'tua', did you mean 'tau'\?; it takes tau, bias"
    with pytest.raises(InputError, match=meant):
        LongTailClassifier("tau_norm").set_params(tua=1)
    with pytest.raises(InputError, match=meant):
        LongTailClassifier("tau_norm", tua=1)
    meant = r"method 'auto' has no parameter 'methd', did you mean 'method'\?; it takes none of its own; name a method"
    with pytest.raises(InputError, match=meant):
        LongTailClassifier(methd="ce")
    with pytest.raises(InputError, match=meant):
        LongTailClassifier().set_params(methd="ce")
    with pytest.raises(InputError, match="tau_norm has no parameter 'tua', did you mean 'tau'"):
        LongTailClassifier("tau_norm(tua=1)").fit(*draw(rows=50))
    with pytest.raises(InputError, match="method='auto' takes no parameters, got tau"):
        LongTailClassifier("tau_norm", tau=1).set_params(method="auto").fit(*draw(rows=50))


@pytest.mark.parametrize("method", ["auto", "crt", "tau_norm"])
def test_a_fit_depends_neither_on_the_order_of_rows_nor_on_how_repeats_are_told(method):
    params = {"epochs": 3} if method == "crt" else {}
    x, y = draw(rows=150)
    rng = np.random.default_rng(1)
    weight = rng.integers(0, 3, size=150)
    rows = rng.permutation(np.repeat(np.arange(150), weight))
    weighted = LongTailClassifier(method, **params).fit(x, y, sample_weight=weight)
    repeated = LongTailClassifier(method, **params).fit(x[rows], y[rows])
    assert np.array_equal(weighted.predict_proba(x), repeated.predict_proba(x))
    assert np.array_equal(weighted.class_counts_, repeated.class_counts_)


def test_fractions_as_weights_count_by_their_ratio():
    x, y = draw(rows=150)
    weight = np.random.default_rng(1).uniform(0.5, 2, size=150)
    a, b = (LongTailClassifier("lda", prior="train").fit(x, y, sample_weight=w) for w in (weight, weight / 1000))
    assert a.predict_proba(x) == pytest.approx(b.predict_proba(x), abs=1e-6)
    assert a.prior_applied_.sum() == pytest.approx(1)


# --- attributes and edges ---------------------------------------------------------------------------------------------


def test_coefficients_give_the_decision_function():
    x, y = draw(rows=300)
    many = LongTailClassifier(prior=TRAIN).fit(x, y)
    assert many.coef_.shape == (5, 6)
    assert x @ many.coef_.T + many.intercept_ == pytest.approx(many.decision_function(x), abs=1e-9)
    two = LongTailClassifier("lda").fit(x, y == "ant")
    assert two.coef_.shape == (1, 6)
    assert two.decision_function(x).shape == (300,)
    assert (x @ two.coef_.T + two.intercept_).ravel() == pytest.approx(two.decision_function(x), abs=1e-9)
    assert two.classes_.tolist() == [False, True]


def test_a_head_on_normalised_rows_has_no_coefficients_and_says_why():
    x, y = draw(rows=300)
    classifier = LongTailClassifier("ncm").fit(x, y)
    with pytest.raises(AttributeError, match="no coef_ and no intercept_: this head divides each feature row by its"):
        _ = classifier.coef_
    assert not hasattr(classifier, "intercept_")
    assert not hasattr(LongTailClassifier(), "coef_")


def test_the_prior_is_in_the_intercept_alone():
    x, y = draw(rows=300)
    a, b = (LongTailClassifier("lda", prior=p).fit(x, y) for p in (UNIFORM, PRIORS["tail"]))
    assert np.array_equal(a.coef_, b.coef_)
    assert b.intercept_ - a.intercept_ == pytest.approx(np.log(PRIORS["tail"] / UNIFORM))


@pytest.mark.parametrize(
    "y", [["a", "b"], ["a", "a", "b"], ["a", "b", "c"], ["a"] * 9 + ["b"], ["a", "a", "b", "b", "c"]]
)
@pytest.mark.filterwarnings("ignore::poise.errors.PoiseWarning")
def test_a_handful_of_rows_is_enough(y):
    x = np.random.default_rng(0).normal(size=(len(y), 3))
    for method in ("auto", "ncm", "tau_norm"):
        probabilities = LongTailClassifier(method).fit(x, y).predict_proba(x)
        assert np.isfinite(probabilities).all()


def test_too_few_rows_to_choose_on_are_said():
    with pytest.warns(PoiseWarning, match="too few rows to set any aside: the method is converged, its probabilities"):
        classifier = LongTailClassifier().fit([[0.0], [1.0]], ["a", "b"])
    assert classifier.predict([[0.0], [1.0]]).tolist() == ["a", "b"]


def test_rows_of_zeros_and_float32_rows_work():
    x, y = draw(rows=300)
    x[:, 2] = 0
    for method in ("auto", "cosine"):
        classifier = LongTailClassifier(method).fit(x.astype(np.float32), y)
        assert np.isfinite(classifier.predict_proba(np.zeros((2, 6), dtype=np.float32))).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": 3}, "method must be 'auto', the name of a method or the text of a Spec, got 3"),
        ({"method": "crtt"}, "no method is called 'crtt', did you mean 'crt'"),
        ({"prior": [0.5, 0.5]}, "prior needs one number per class, got shape (2,) for 5 classes"),
        ({"seen_by_backbone": "no"}, "seen_by_backbone must be True, False or None (unknown), got 'no'"),
        (
            {"method": "crt+tau_norm", "tau": 1.0},
            "parameters of 'crt+tau_norm' belong into its text, got tau beside it",
        ),
    ],
)
def test_parameters_that_cannot_be_are_refused_in_one_sentence(arguments, words):
    with pytest.raises(InputError) as caught:
        LongTailClassifier(**arguments).fit(*draw(rows=100))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        ({"groups": np.zeros(7)}, "groups need one entry per row"),
        ({"held_out": 3}, "held_out must be a pair (X, y)"),
        ({"held_out": (np.zeros((2, 6)), ["ant", "yak"])}, "held_out row 1 has the label"),
        ({"held_out": (np.zeros((2, 5)), ["ant", "bee"])}, "held_out has 2 rows of 5 features and 2 labels"),
    ],
)
def test_rows_that_cannot_be_are_refused(fit, words):
    with pytest.raises(InputError) as caught:
        LongTailClassifier("lda").fit(*draw(rows=100), **fit)
    assert words in str(caught.value)


def test_chains_and_converged_fits_can_be_named():
    x, y = draw(rows=300)
    chosen = LongTailClassifier().fit(x, y)
    again = LongTailClassifier(chosen.method_).fit(x, y)
    assert again.method_ == chosen.method_
    chained = LongTailClassifier("crt(epochs=3)+tau_norm(tau=0.5)").fit(x, y)
    assert chained.method_ == "crt(epochs=3)+tau_norm(tau=0.5)"


@pytest.mark.parametrize("loss", ["class_balanced", "balanced_softmax"])
def test_a_head_fitted_for_uniform_classes_is_not_shifted_once_more(loss):
    """It was estimated what class-balanced weights are meant for, which cost 5 points where classes are rare."""
    x, y = draw(rows=600)
    fresh, _ = draw(prior=UNIFORM, rows=1000, seed=1)
    found = LongTailClassifier(f"converged(loss='{loss}')", prior="uniform").fit(x, y)
    labels = torch.from_numpy(np.searchsorted(NAMES, y))
    head = converged(loss=loss)(Problem(Features(torch.from_numpy(x), labels, ClassCounts.from_labels(labels))))
    answers = NAMES[head(torch.from_numpy(fresh)).argmax(dim=1).numpy()]
    assert np.array_equal(found.predict(fresh), answers)


# --- on disk ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [NAMES, np.arange(5) * 3, np.arange(5.0), NAMES.astype(object)])
def test_a_saved_estimator_predicts_the_same_bits(tmp_path, labels):
    x, y = draw(rows=300)
    y = labels[np.searchsorted(NAMES, y)]
    given = LongTailClassifier(prior=TRAIN).fit(x, y)
    found = LongTailClassifier.load(given.save(tmp_path))
    assert np.array_equal(found.predict_proba(x), given.predict_proba(x))
    assert np.array_equal(found.predict(x), given.predict(x))
    assert found.predict(x).dtype == given.predict(x).dtype
    assert (found.method_, found.n_features_in_) == (given.method_, 6)
    assert np.array_equal(found.prior_applied_, given.prior_applied_)
    assert np.array_equal(found.class_counts_, given.class_counts_)
    assert found.get_params()["prior"] == TRAIN.tolist()
    assert found.adapt(x).prior_applied_ == pytest.approx(given.adapt(x).prior_applied_)


def test_a_saved_head_on_normalised_rows_and_a_random_state_come_back(tmp_path):
    x, y = draw(rows=300)
    given = LongTailClassifier("cosine", random_state=np.random.RandomState(0), epochs=2).fit(x, y)
    found = LongTailClassifier.load(given.save(tmp_path))
    assert np.array_equal(found.predict_proba(x), given.predict_proba(x))
    assert found.get_params()["random_state"] is None


def test_a_folder_of_something_else_is_refused(tmp_path):
    model = load(LongTailClassifier("lda").fit(*draw(rows=200)).save(tmp_path))
    replace(model, provenance={}).save(tmp_path)
    with pytest.raises(InputError, match="holds a model, but none saved by LongTailClassifier"):
        LongTailClassifier.load(tmp_path)
    with pytest.raises(InputError, match=r"model.json is missing"):
        LongTailClassifier.load(tmp_path / "nothing")


def test_a_parameter_that_is_no_json_cannot_be_saved(tmp_path):
    classifier = LongTailClassifier("lda").fit(*draw(rows=200))
    classifier.random_state = object()
    with pytest.raises(
        InputError, match=r"the parameter random_state=.* cannot be saved; give numbers, words or lists"
    ):
        classifier.save(tmp_path)


def test_an_estimator_that_is_not_fitted_cannot_be_saved(tmp_path):
    with pytest.raises(NotFittedError):
        LongTailClassifier().save(tmp_path)


# --- a prior by name --------------------------------------------------------------------------------------------------

SHARES = {"eel": 0.1, "ant": 0.5, "bee": 0.2, "cat": 0.1, "dog": 0.1}


def test_a_prior_by_name_is_the_same_shares_in_the_order_of_the_classes():
    rows = draw(rows=200)
    named = LongTailClassifier("lda", prior=SHARES).fit(*rows)
    listed = LongTailClassifier("lda", prior=[0.5, 0.2, 0.1, 0.1, 0.1]).fit(*rows)
    assert np.array_equal(named.predict_proba(rows[0]), listed.predict_proba(rows[0]))
    assert named.get_params()["prior"] is SHARES
    copied = clone(named)
    assert copied.get_params() == named.get_params()
    assert np.array_equal(copied.fit(*rows).predict_proba(rows[0]), named.predict_proba(rows[0]))


@pytest.mark.parametrize("numbers", [False, True])
def test_a_prior_by_name_is_saved_as_shares_in_the_order_of_the_classes(tmp_path, numbers):
    x, y = draw(rows=200)
    prior = dict(enumerate([0.5, 0.2, 0.1, 0.1, 0.1])) if numbers else SHARES
    y = np.searchsorted(NAMES, y) if numbers else y
    classifier = LongTailClassifier("lda", prior=prior).fit(x, y)
    classifier.save(tmp_path / "model")
    loaded = LongTailClassifier.load(tmp_path / "model")
    assert loaded.get_params()["prior"] == [0.5, 0.2, 0.1, 0.1, 0.1]
    assert np.array_equal(loaded.predict_proba(x), classifier.predict_proba(x))
    assert np.array_equal(loaded.fit(x, y).predict_proba(x), classifier.predict_proba(x))


@pytest.mark.parametrize(
    ("prior", "sentence"),
    [
        (
            {**SHARES, "eal": 0.0},
            "prior names the class 'eal', which the training rows do not have, did you mean 'eel'?",
        ),
        ({"ant": 0.5, "bee": 0.5}, "prior has no share for the class 'cat'; add it"),
        ({**SHARES, "eel": 0.6}, "prior sums to 1.5, not to 1; divide it by its sum"),
    ],
)
def test_a_prior_by_name_that_does_not_fit_is_refused(prior, sentence):
    with pytest.raises(InputError) as caught:
        LongTailClassifier("lda", prior=prior).fit(*draw(rows=200))
    assert str(caught.value) == sentence
