"""`LongTailClassifier`: the scikit-learn face of the same functions."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_array, check_is_fitted, column_or_1d, validate_data
from torch import Tensor

from poise.deployment.automatic import Part
from poise.deployment.calibration import (
    Correction,
    Evidence,
    class_shares,
    correction,
    deployed,
    distinct_rows,
    final,
    row_weights,
)
from poise.deployment.estimator_fit import Fitting
from poise.deployment.estimator_parameters import AUTO, OWN, as_json, refuse_unknown, shares_of, spec_of
from poise.deployment.model import Model, load
from poise.deployment.origin import compare_with_fresh
from poise.deployment.promise import Promise, over
from poise.errors import InputError, PoiseWarning
from poise.folds import group_ids
from poise.priors import Shift, as_prior, find_shift, prior_shift
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.overlap import Rows, warn_of_overlap

Array = NDArray[Any]
EXACT = 2.0**53  # up to which a float tells whole numbers apart
SMALLEST_SHARE = 1e-6  # of an estimated prior, so that a class that was rare once can come back


class LongTailClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A linear classifier over feature rows, re-balanced for the class prior of its deployment.

    `method` is "auto", the name of a method, or the text of a Spec such as "crt+tau_norm(tau=0.5)". `prior` is the
    class prior of deployment: "uniform", "train", one share per class in the order of `classes_`, or a mapping
    {class: share} that names every class. `seen_by_backbone` says whether the rows trained the representation: such
    rows can train a head, but neither choose nor calibrate one. None is "not known": rows then choose as if the
    backbone never saw them, but where practically all that are set aside are predicted right, as memorised rows and
    easily separated classes both are, fit warns and promises nothing. `random_state` seeds methods that shuffle rows;
    None is 0. Further parameters are those of the method named, its options of training included; they can be
    searched, as in GridSearchCV(clf, {"tau": [0.5, 1.0]}).

    "auto" is an average: logistic regression, class-weighted logistic regression, balanced softmax, linear
    discriminants, class means and a tau-norm, on columns of variance 1, each calibrated and shifted to `prior`. They
    weigh by their NLL on rows that no head was fitted on: folds that keep groups and copies together, or the rows given
    as `held_out`. The average of linear heads is one linear head. It depends neither on chance nor on the order of
    rows, columns or classes, and hardly on rounding.

    A row of weight 2 is the row twice, for every method; weights that are not whole are shares of mean 1. All rows
    twice, or all weights 0.3, is the same as no weights.

    Probabilities are calibrated by a temperature on unseen rows and shifted from the prior for which the head is meant
    to `prior`. Where that is not possible, fit warns (PoiseWarning): without unseen rows they are not calibrated, and
    if the prior of the head is not known either, none is applied (`prior_applied_` is None).

    Attributes: `classes_`; `class_counts_` (C,) summed weights; `n_features_in_`; `method_`, the text of the Spec that
    was fitted; `choice_`, the heads of the average with their weights and what unseen rows say of each
    (`poise.deployment.automatic.Part`), the heaviest first; `promise_`, the recall to expect of unseen rows
    (`poise.deployment.promise.Promise`): weighted by `prior`, less what the choice owes to the rows that chose, with an
    interval that covers that of the final head 95 times in 100, and the classes that it speaks of; `unseen_recall_`,
    its value. Both are None without unseen rows, where fewer than two classes or less than half of `prior` have rows
    to judge by, and where rows look memorised. `prior_applied_` (C,), for which `predict_proba` is meant; `shift_`,
    what `adapt` found last; `head_`, the final head; `coef_` and `intercept_`, of shapes (C, D) and (C,), or (1, D) and
    (1,) for two classes, prior shift included.

    Raises: ValueError, by fit, as scikit-learn wants it; InputError (a ValueError) naming what cannot be used.
    """

    shift_: Shift

    def __init__(
        self,
        method: str = AUTO,
        prior: Any = "uniform",
        seen_by_backbone: bool | None = None,
        random_state: Any = None,
        **params: Any,
    ) -> None:
        refuse_unknown(method, params)
        self.method = method
        self.prior = prior
        self.seen_by_backbone = seen_by_backbone
        self.random_state = random_state
        self._params = dict(params)

    # --- parameters ---------------------------------------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters of the estimator and those of its method."""
        return {**super().get_params(deep=deep), **self._params}

    def set_params(self, **params: Any) -> "LongTailClassifier":
        """Set parameters of the estimator or of its method. Raises: InputError for a name that neither has."""
        for name, value in params.items():
            if name in OWN:
                setattr(self, name, value)
        refuse_unknown(self.method, params.keys() - self._params.keys())
        self._params = {**self._params, **{name: value for name, value in params.items() if name not in OWN}}
        return self

    # --- fitting ------------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,  # noqa: N803 (the names of scikit-learn)
        y: Any,
        sample_weight: Any = None,
        groups: Any = None,
        held_out: tuple[Any, Any] | None = None,
    ) -> "LongTailClassifier":
        """Fit on rows X (N, D) with labels y (N,).

        Rows of one entry of `groups` (N,) are never divided between fitting and choosing. `held_out` is (X, y) of rows
        that the backbone never saw; they choose and calibrate in the place of folds, and train nothing. A warning
        names the classes without a row to judge by, of which `unseen_recall_` says nothing.

        Raises: ValueError; MemorisedRowsError if the backbone saw the rows, "auto" has to choose and there is no
        `held_out`, if more rows of `held_out` are training rows than chance gives (some are warned of), or if it is
        said that the backbone never saw them and held-out rows are recognised clearly worse.
        """
        self.fit_with_evidence(X, y, sample_weight, groups, held_out)
        if self.promise_ is not None and self.promise_.unjudged:
            said = f"unseen_recall_ holds {over(self.promise_.judged, self.promise_.unjudged)}"
            warnings.warn(PoiseWarning(said), stacklevel=2)
        return self

    def fit_with_evidence(
        self,
        X: Any,  # noqa: N803
        y: Any,
        sample_weight: Any = None,
        groups: Any = None,
        held_out: tuple[Any, Any] | None = None,
    ) -> Evidence | None:
        """`fit`, and what unseen rows say of the result; None where there are no such rows.

        The logits (N, C) are final, temperature and prior shift included. They are those of `held_out`, or of the rows
        set aside in folds, by the heads that did not see them.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])  # noqa: N806
        check_classification_targets(y)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if not weight.any():
            raise InputError("all sample weights are zero, which leaves no row; give at least one a positive weight")
        classes = np.unique(y[weight > 0])
        if len(classes) < 2:
            raise InputError("the rows are all of one class; a classifier needs rows of at least two classes")
        if self.seen_by_backbone not in (True, False, None):
            raise InputError(f"seen_by_backbone must be True, False or None (unknown), got {self.seen_by_backbone!r}")
        self.classes_ = classes
        spec = spec_of(self.method, self._params)
        train, units = self._rows(X, y, weight, groups)
        unseen = None if held_out is None else self._held_out(held_out, train)
        warn_of_overlap({"training": self._given(X, y, weight), "held-out": unseen})
        share = class_shares(train)
        given = shares_of(self.prior, classes.tolist()) if isinstance(self.prior, Mapping) else self.prior
        target = share if isinstance(given, str) and given == "train" else as_prior(given, train.counts)
        if unseen is not None and not self.seen_by_backbone:
            compare_with_fresh(train, units, unseen, said_unseen=self.seen_by_backbone is False)
        fitting = Fitting(train, units, unseen, self.seen_by_backbone, self._seed())
        fitted = fitting.auto(target) if spec is None else fitting.named(spec, target)
        self.method_ = str(fitted.spec)
        self.choice_ = fitted.parts
        self.promise_ = fitted.promise
        self.unseen_recall_ = None if fitted.promise is None else fitted.promise.value
        self.class_counts_ = torch.bincount(train.y, weights=row_weights(train)).numpy()
        self.prior_applied_ = None if fitted.implied is None else target.numpy().copy()
        implied = target if fitted.implied is None else fitted.implied
        self.head_ = deployed(fitted.head, fitted.temperature, implied, target)
        if hasattr(self, "shift_"):
            del self.shift_  # of an earlier fit
        seen = None if fitted.seen is None else final(fitted.seen, fitted.temperature, implied, target)
        rows = torch.from_numpy(self.class_counts_)
        self._correction = Correction(torch.zeros_like(rows), rows) if seen is None else correction(seen, target)
        return seen

    def _rows(self, X: Array, y: Array, weight: Array, groups: Any) -> tuple[Features, NDArray[np.int64]]:  # noqa: N803
        """The distinct rows in canonical order, and which of them belong together."""
        weight = _numbers_of_rows(weight)
        codes = self._codes(y)
        numbers = None if groups is None else group_ids(np.asarray(groups).tolist(), len(y)).numpy()
        rows = distinct_rows(X, codes, weight, numbers)
        labels, times = torch.from_numpy(rows.y), _numbers_of_rows(rows.weight)
        heft = None if (times == 1).all() else torch.from_numpy(times)
        counts = ClassCounts.from_labels(labels, len(self.classes_), heft)
        names = tuple(map(str, self.classes_))
        return Features(torch.from_numpy(rows.x), labels, counts, self.seen_by_backbone, names, heft), rows.units

    def _codes(self, y: Array) -> NDArray[np.int64]:
        return np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1).astype(np.int64)

    def _given(self, X: Array, y: Array, weight: Array) -> Rows:  # noqa: N803
        """The rows as they were given, which tell how often such rows repeat each other."""
        return Rows(torch.tensor(np.ascontiguousarray(X)), torch.from_numpy(self._codes(y)), torch.from_numpy(weight))

    def _held_out(self, held_out: tuple[Any, Any], train: Features) -> Features:
        """The held-out rows as Features. Raises: InputError for a label that training has not."""
        if not isinstance(held_out, tuple | list) or len(held_out) != 2:
            raise InputError("held_out must be a pair (X, y) of rows that the backbone never saw, and their labels")
        x = check_array(held_out[0], dtype=[np.float64, np.float32])
        labels = column_or_1d(held_out[1])
        if len(x) != len(labels) or x.shape[1] != train.dim:
            raise InputError(
                f"held_out has {len(x)} rows of {x.shape[1]} features and {len(labels)} labels; the training rows "
                f"have {train.dim} features"
            )
        unknown = ~np.isin(labels, self.classes_)
        if unknown.any():
            row = int(unknown.argmax())
            raise InputError(f"held_out row {row} has the label {labels[row]!r}, which no training row has")
        codes = torch.from_numpy(np.searchsorted(self.classes_, labels))
        return Features(torch.tensor(np.ascontiguousarray(x)), codes, train.counts, seen_by_backbone=False)

    def _seed(self) -> int:
        if self.random_state is None:
            return 0
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    # --- answers ------------------------------------------------------------------------------------------------------

    def _logits(self, X: Any) -> Tensor:  # noqa: N803
        check_is_fitted(self)
        rows = validate_data(self, X, reset=False, dtype=np.float64)
        return self.head_(torch.tensor(np.ascontiguousarray(rows)))  # torch takes no negative strides

    def decision_function(self, X: Any) -> Array:  # noqa: N803
        """Logits (N, C); for two classes (N,), the second less the first."""
        logits = self._logits(X)
        scores = logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits
        return np.asarray(scores.numpy())

    def predict_proba(self, X: Any) -> Array:  # noqa: N803
        """(N, C) posterior under `prior_applied_`; the plain softmax if that is None."""
        return np.asarray(self._logits(X).softmax(dim=-1).numpy())

    def predict(self, X: Any) -> Array:  # noqa: N803
        """(N,) class of the largest posterior."""
        best = self._logits(X).argmax(dim=-1).numpy()
        return np.asarray(self.classes_[best])

    def adapt(self, X: Any) -> "LongTailClassifier":  # noqa: N803
        """Estimate the class prior of deployment from unlabelled rows X (N, D), and apply it from now on.

        Only where the rows show that it is another one than `prior_applied_` (a likelihood ratio test at 1 %, which
        corrects what the head gets wrong on unseen rows): a batch that cannot tell, such as a single row, leaves
        everything as it was. The estimate is that of expectation maximisation (Saerens et al., 2002), held to the prior
        before by two rows per class (`poise.priors.find_shift`). It takes the place of the prior that was given, and
        only fitting again brings that back. Classes that are hard to tell apart are estimated poorly: where the prior
        is known, state it instead. `shift_` says what was found; `str` of it is a sentence.

        Raises: InputError if the prior of the head is not known, so that there is nothing to start from.
        """
        logits = self._logits(X)
        if self.prior_applied_ is None:
            raise InputError("adapt needs a head whose prior is known; fit with held_out=(X, y), or another method")
        source = torch.from_numpy(self.prior_applied_)
        known = self._correction
        self.shift_ = find_shift(logits + known.bias, source, evidence=known.effective_rows(source))
        if self.shift_.found:
            found = torch.tensor(self.shift_.prior, dtype=torch.float64).clamp_min(SMALLEST_SHARE)
            found = found / found.sum()
            self.head_ = self.head_.shifted(prior_shift(source, found))
            self.prior_applied_ = found.numpy()
        return self

    @property
    def coef_(self) -> Array:
        """(C, D) weights, or (1, D) for two classes."""
        return self._linear()[0]

    @property
    def intercept_(self) -> Array:
        """(C,) biases, or (1,) for two classes; temperature and prior shift included."""
        return self._linear()[1]

    def _linear(self) -> tuple[Array, Array]:
        if "head_" not in vars(self):
            raise AttributeError("coef_ and intercept_ exist after fit")
        try:
            plain = self.head_.folded()
        except InputError as error:
            raise AttributeError(f"no coef_ and no intercept_: {error}") from None
        weight, bias = plain.weight.numpy(), plain.bias.numpy()
        return (weight[1:] - weight[:1], bias[1:] - bias[:1]) if len(bias) == 2 else (weight, bias)

    # --- on disk ------------------------------------------------------------------------------------------------------

    def save(self, directory: str | Path) -> Path:
        """Write the fitted estimator as a deployable folder, without pickle (`poise.deployment.model`)."""
        return self.model().save(directory)

    def model(self) -> Model:
        """The fitted estimator as a deployable value."""
        check_is_fitted(self)
        params = self.get_params(deep=False)
        if isinstance(
            self.prior, Mapping
        ):  # JSON has no keys but text, so the shares are kept in the order of classes_
            params["prior"] = [float(share) for share in shares_of(self.prior, self.classes_.tolist())]
        about = {
            "params": {name: as_json(name, value) for name, value in params.items()},
            "classes": self.classes_.tolist(),
            "dtype": self.classes_.dtype.str,
            "class_counts": self.class_counts_.tolist(),
            "unseen_recall": self.unseen_recall_,
            "promise": None if self.promise_ is None else self.promise_.to_dict(),
            "choice": [asdict(part) for part in self.choice_],
            "correction": [part.tolist() for part in self._correction],
            "feature_names": getattr(self, "feature_names_in_", np.array([])).tolist(),
        }
        return Model(
            head=self.head_,
            class_names=tuple(str(label) for label in self.classes_),
            counts=ClassCounts.from_labels(
                torch.arange(len(self.classes_)), len(self.classes_), torch.tensor(self.class_counts_)
            ),
            prior_applied=None if self.prior_applied_ is None else torch.from_numpy(self.prior_applied_),
            method=self.method_,
            provenance={"poise": version("poise"), "estimator": about},
        )

    @classmethod
    def load(cls, directory: str | Path) -> "LongTailClassifier":
        """The estimator that `save` wrote; its predictions are the same bits. Raises: InputError naming the file."""
        model = load(directory)
        about = model.provenance.get("estimator")
        try:
            assert isinstance(about, Mapping)
            loaded = cls(**about["params"])
            loaded.classes_ = np.array(about["classes"], dtype=np.dtype(about["dtype"]))
            loaded.unseen_recall_, promised = about["unseen_recall"], about.get("promise")  # older files have none
            loaded.promise_ = None if promised is None else Promise.from_dict(promised)
            loaded.choice_ = tuple(Part(**part) for part in about.get("choice", []))
            loaded.class_counts_ = np.array(about["class_counts"], dtype=np.float64)
            if about["feature_names"]:
                loaded.feature_names_in_ = np.array(about["feature_names"], dtype=object)
            none = [[0.0] * len(loaded.classes_), about["class_counts"]]  # of models that were saved without
            bias, rows = about.get("correction", none)
            loaded._correction = Correction(torch.tensor(bias).double(), torch.tensor(rows).double())
            assert len(loaded.classes_) == len(loaded.class_counts_) == model.head.classes
        except (AssertionError, KeyError, TypeError, ValueError):
            raise InputError(f"{directory} holds a model, but none saved by LongTailClassifier.save") from None
        loaded.n_features_in_ = model.head.dim
        loaded.method_ = model.method
        loaded.head_ = model.head
        loaded.prior_applied_ = None if model.prior_applied is None else model.prior_applied.numpy()
        return loaded


def _numbers_of_rows(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (N,) as numbers of rows: all data k times is the data, and fractions are shares, of mean 1."""
    some = weight[weight > 0]
    if (some == np.floor(some)).all() and some.max() < EXACT:
        return weight / float(np.gcd.reduce(some.astype(np.int64)))
    return weight / float(some[0] if (some == some[0]).all() else some.mean())
