"""Rows that no head was fitted on: how they are set aside, and what they say about a head's probabilities.

Nothing here depends on the order of the rows or on chance: rows are first brought into an order that follows from
their values (`distinct_rows`), equal ones merged into one with a weight, and folds are dealt over that.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poise.deployment.model import Model
from poise.folds import fold_ids, set_aside
from poise.priors import prior_shift
from poise.values.arrays import classes_in
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]
Fit = Callable[[Features], Sequence[Head | None]]

LARGE = 4000  # distinct rows from which three folds say as much as five


# --- rows -------------------------------------------------------------------------------------------------------------


class Distinct(NamedTuple):
    """Every pair of row and label once: `x` (N, D), `y` (N,), `weight` (N,); rows of one unit (N,) share a fold."""

    x: Floats
    y: Ints
    weight: NDArray[np.float64]
    units: Ints


def distinct_rows(x: Floats, y: Ints, weight: NDArray[np.float64], groups: Ints | None = None) -> Distinct:
    """Rows x (N, D) of labels y (N,) in an order that follows from their values, equal ones merged, weights added.

    Rows of weight 0 are left out. Equal rows share a unit, whatever their labels, and so do all rows of a group (N,);
    both hold at once, so a row that occurs in two groups joins them.
    """
    kept = weight > 0
    x, y, weight = x[kept] + 0.0, y[kept], weight[kept]  # -0.0 and 0.0 are one value with two byte patterns
    rows = np.ascontiguousarray(x).view(np.dtype((np.void, x.dtype.itemsize * x.shape[1]))).ravel()
    _, place = np.unique(rows, return_inverse=True)
    _, first, pair = np.unique(place * (int(y.max()) + 1) + y, return_index=True, return_inverse=True)
    units = place if groups is None else _joined(place, groups[kept])
    sums = np.zeros(len(first))
    np.add.at(sums, pair, weight)
    return Distinct(x[first], y[first], sums, _renumbered(units[first]))


def _joined(place: Ints, groups: Ints) -> Ints:
    """(N,) number of the connected component of every row, where rows of one place or of one group are connected."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    places = int(place.max()) + 1
    size = places + int(groups.max()) + 1
    links = coo_array((np.ones(len(place)), (place, places + groups)), shape=(size, size))
    component: Ints = connected_components(links, directed=False)[1][place].astype(np.int64)
    return component


def _renumbered(units: Ints) -> Ints:
    """The same partition, numbered 0, 1, ... in the order of first appearance."""
    _, first, inverse = np.unique(units, return_index=True, return_inverse=True)
    numbers: Ints = first.argsort().argsort()[inverse]
    return numbers


def effective_counts(y: Tensor, weight: Tensor | None, classes: int) -> ClassCounts:
    """Summed weights per class as whole numbers, at least 1 for a class that has rows."""
    rows = torch.bincount(y, minlength=classes)
    if weight is None:
        return ClassCounts(rows)
    sums = torch.bincount(y, weights=weight, minlength=classes).round().long()
    return ClassCounts(torch.maximum(sums, (rows > 0).long()))


# --- unseen rows ------------------------------------------------------------------------------------------------------


class Trial(NamedTuple):
    """Heads, one per candidate (None where it cannot be fitted), and rows that none of them was fitted on."""

    heads: Sequence[Head | None]
    test: Features


class Evidence(NamedTuple):
    """Logits (N, C) of rows that their heads did not see, labels (N,) and weights (N,)."""

    logits: Tensor
    y: Tensor
    weight: Tensor


class Deployed(NamedTuple):
    """A model, and its final logits on rows that it was chosen and calibrated on (None without such rows).

    `before` are the logits of the given head on the same rows, None if no head was given.
    """

    model: Model
    evidence: Evidence | None
    before: Evidence | None = None


def cross_fit(train: Features, units: Ints, fit: Fit) -> list[Trial]:
    """One trial per fold: `fit` on all other folds. Empty where there are too few units or classes to set any aside."""
    number = int(units.max()) + 1
    folds = min(number, 5 if len(train) <= LARGE else 3)
    if folds < 2:
        return []
    groups = torch.from_numpy(units) if number < len(train) else None
    trials = []
    for rows, aside in set_aside(train.y, fold_ids(train.y, folds, groups=groups)):
        rest = train.take(rows)
        if classes_in(rest.y) > 1:
            counts = effective_counts(rest.y, rest.weight, len(train.counts))
            trials.append(Trial(fit(replace(rest, counts=counts)), train.take(aside)))
    return trials


def evidence(trials: Sequence[Trial], candidate: int = 0) -> Evidence | None:
    """What the trials say about one candidate; None if there is no trial, or if it could not be fitted in one."""
    heads = [trial.heads[candidate] for trial in trials]
    if not trials or any(head is None for head in heads):
        return None
    parts = [
        (head(trial.test.x[0]).double(), trial.test.y, row_weights(trial.test))
        for head, trial in zip(heads, trials, strict=True)
        if head is not None
    ]
    return Evidence(*(torch.cat(column) for column in zip(*parts, strict=True)))


def row_weights(features: Features) -> Tensor:
    """(N,) float64 weights of the rows; 1 where none are given."""
    return torch.ones(len(features), dtype=torch.float64) if features.weight is None else features.weight


# --- probabilities ----------------------------------------------------------------------------------------------------


def calibrate(seen: Evidence, train_prior: Tensor, implied: Tensor | None) -> tuple[float, Tensor]:
    """The temperature of a head and the class prior (C,) for which its softmax is then meant, from unseen rows.

    With a known `implied` prior the temperature minimises the NLL of the rows, weighted so that classes are as common
    as there. Where it is not known it is sought among powers of the training prior, train^a, together with the
    temperature: a = 1 is a head meant for training, a = 0 one for uniform classes. (The mean softmax on the rows would
    not do: a head that separates the classes well has the prior of the rows as its mean, whatever it is meant for.)
    """
    if implied is not None:
        return _temperature(seen, implied), implied
    from scipy.optimize import minimize

    classes = len(train_prior)
    here = torch.bincount(seen.y, weights=seen.weight, minlength=classes)
    log_here, log_train = (here / here.sum()).clamp_min(1e-12).log(), train_prior.clamp_min(1e-12).log()

    def objective(values: NDArray[np.float64]) -> float:
        log_t, a = float(values[0]), float(values[1])
        logits = seen.logits * math.exp(-log_t) + log_here - a * log_train
        nll = torch.nn.functional.cross_entropy(logits, seen.y, reduction="none")
        # The penalty weighs as much as one row: it decides only where rows say nothing.
        return float(seen.weight @ nll) + (log_t**2 + (a - 0.5) ** 2) / 2

    bound = math.log(100.0)
    found = minimize(objective, np.array([0.0, 0.5]), method="L-BFGS-B", bounds=[(-bound, bound), (-1.0, 2.0)]).x
    return math.exp(float(found[0])), (float(found[1]) * log_train).softmax(dim=0)


def _temperature(seen: Evidence, prior: Tensor) -> float:
    """The temperature of the least NLL of rows weighted to `prior` (C,)."""
    from scipy.optimize import minimize_scalar

    weight = weights_to(seen.y, seen.weight, prior)
    rows = float(seen.weight.sum())

    def nll(log_t: float) -> float:
        each = torch.nn.functional.cross_entropy(seen.logits * math.exp(-log_t), seen.y, reduction="none")
        # Without the second term a handful of rows that are all right would ask for certainty.
        return float(weight @ each) + log_t**2 / 2 / rows

    bound = math.log(100.0)
    found = minimize_scalar(nll, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-4})
    return math.exp(float(found.x))


def deployed(head: Head, temperature: float, implied: Tensor, target: Tensor) -> Head:
    """The head whose softmax is the posterior under `target` (C,), in float64."""
    return head.to(torch.float64).scaled(1 / temperature).shifted(prior_shift(implied, target))


def expected_recall(seen: Evidence, temperature: float, implied: Tensor, target: Tensor) -> float:
    """Recall of unseen rows under the prior `target` (C,), of a head deployed for it: what may be expected of it."""
    right = final(seen, temperature, implied, target).logits.argmax(dim=-1) == seen.y
    return float(right.double() @ weights_to(seen.y, seen.weight, target))


def final(seen: Evidence, temperature: float, implied: Tensor, target: Tensor) -> Evidence:
    """The same rows with the logits of the head that is deployed: see `deployed`."""
    return seen._replace(logits=seen.logits / temperature + prior_shift(implied, target))


class Correction(NamedTuple):
    """What makes the posteriors of unseen rows right on average: an estimate of the prior takes a bias for a shift.

    `bias` (C,) is added to logits before the prior is estimated; `rows` (C,): how many rows of each class say so.
    """

    bias: Tensor
    rows: Tensor

    def effective_rows(self, prior: Tensor) -> float:
        """How many rows of `prior` (C,) say as much as these rows do, weighted to it."""
        return float(1 / (prior.square() / self.rows.clamp_min(1)).sum())


def correction(seen: Evidence, target: Tensor) -> Correction:
    """The same, of final logits (N, C) meant for `target` (C,).

    Bias-corrected calibration (Alexandari, Kundaje and Shrikumar, ICML 2020), where it precedes EM. Deviations: the
    temperature is that of the head already; rows are weighted to the target, and the bias is held to 0 by half its
    square, since few rows say little.
    """
    from scipy.optimize import minimize

    rows = torch.bincount(seen.y, weights=seen.weight, minlength=len(target))
    none = Correction(torch.zeros_like(target), rows)
    weight = weights_to(seen.y, seen.weight, target) * none.effective_rows(target)
    mass = torch.bincount(seen.y, weights=weight, minlength=len(target))

    def loss(given: Floats) -> tuple[float, Floats]:
        bias = torch.from_numpy(given)
        log_p = (seen.logits + bias).log_softmax(dim=-1)
        value = bias @ bias / 2 - weight @ log_p.gather(1, seen.y.unsqueeze(1)).squeeze(1)
        return float(value), (weight @ log_p.exp() - mass + bias).numpy()

    found = minimize(loss, np.zeros(len(target)), jac=True, method="L-BFGS-B", options={"maxiter": 100})
    return none._replace(bias=torch.from_numpy(found.x))


def weights_to(y: Tensor, weight: Tensor, prior: Tensor) -> Tensor:
    """(N,) weights of sum 1 under which the classes of `y` are as common as in `prior` (C,), among those with rows."""
    mass = torch.bincount(y, weights=weight, minlength=len(prior))
    share = torch.where(mass > 0, prior, 0.0)
    share = share if share.sum() > 0 else (mass > 0).double()
    return share[y] / share.sum() * weight / mass[y]


def class_shares(features: Features) -> Tensor:
    """(C,) float64 share of each class in the weights."""
    sums = torch.bincount(features.y, weights=row_weights(features), minlength=len(features.counts))
    return sums / sums.sum()
