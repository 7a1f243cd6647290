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

from poise.deployment.columns import Columns
from poise.deployment.model import Model
from poise.deployment.promise import Judged
from poise.errors import PoiseWarning
from poise.folds import fold_ids, set_aside
from poise.heads.memorised_rows import GUESSING
from poise.metrics import logit_unit
from poise.priors import prior_shift
from poise.values.arrays import classes_in
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.repeats import joined, repeats
from poise.values.spec import Spec

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]
Fit = Callable[[Features], Sequence[Head | None]]

WIDEST = 100.0  # times the spread of the logits, or a hundredth of it: as far as a temperature goes
LARGE = 4000  # distinct rows from which three folds say as much as five


# --- rows -------------------------------------------------------------------------------------------------------------


class Distinct(NamedTuple):
    """Every pair of row and label once: `x` (N, D), `y` (N,), `weight` (N,); rows of one unit (N,) share a fold."""

    x: Floats
    y: Ints
    weight: NDArray[np.float64]
    units: Ints


def distinct_rows(x: Floats, y: Ints, weight: NDArray[np.float64], groups: Ints | None = None) -> Distinct:
    """Rows x (N, D) of labels y (N,) from the middle outwards, equal ones merged, weights added.

    The order is that of distances from the mean row, in columns of variance 1: neither unit nor origin, neither sign
    nor order of the columns changes it, and rounding only between rows that are as far out.

    Rows of weight 0 are left out. Equal rows share a unit, whatever their labels, and so do near copies, unless columns
    of such values repeat rows by right (`poise.values.repeats`), and all rows of a group (N,); these hold at once, so a
    row that occurs in two groups joins them.
    """
    kept = weight > 0
    x, y, weight = x[kept] + 0.0, y[kept], weight[kept]  # -0.0 and 0.0 are one value with two byte patterns
    rows = np.ascontiguousarray(x).view(np.dtype((np.void, x.dtype.itemsize * x.shape[1]))).ravel()
    _, place = np.unique(rows, return_inverse=True)
    _, first, pair = np.unique(place * (int(y.max()) + 1) + y, return_index=True, return_inverse=True)
    copies = repeats(torch.from_numpy(x))
    alike = place if copies.by_right else copies.numbers[0]
    units = alike if groups is None else joined(alike, groups[kept])
    sums = np.zeros(len(first))
    np.add.at(sums, pair, weight)
    outwards = _outwards(x[first], sums)
    chosen = first[outwards]
    return Distinct(x[chosen], y[chosen], sums[outwards], _renumbered(units[chosen]))


def _outwards(x: Floats, weight: NDArray[np.float64]) -> Ints:
    """The order of rows x (N, D) by their distance from the mean row, in columns of variance 1."""
    rows = torch.from_numpy(x)
    far = Columns.around(rows, torch.from_numpy(weight)).rows(rows).square().sum(dim=-1)
    order: Ints = far.argsort(stable=True).numpy()
    return order


def copies(x: Tensor) -> Tensor:
    """(N,) int64 number of the place of every row x (N, D); copies share one."""
    return torch.from_numpy(repeats(x).numbers[0])


def _renumbered(units: Ints) -> Ints:
    """The same partition, numbered 0, 1, ... in the order of first appearance."""
    _, first, inverse = np.unique(units, return_index=True, return_inverse=True)
    numbers: Ints = first.argsort().argsort()[inverse]
    return numbers


# --- unseen rows ------------------------------------------------------------------------------------------------------


class Trial(NamedTuple):
    """Heads, one per candidate (None where it cannot be fitted), and rows that none of them was fitted on.

    `units` (N,) number what the rows belong to: copies and groups; None where each row stands for itself.
    """

    heads: Sequence[Head | None]
    test: Features
    units: Tensor | None = None


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


def folds_of(train: Features) -> int:
    """How many folds rows are set aside in, where there are enough units."""
    return 5 if len(train) <= LARGE else 3


def cross_fit(train: Features, units: Ints, fit: Fit, folds: int | None = None, seed: int = 0) -> list[Trial]:
    """One trial per fold: `fit` on all other folds. Empty where there are too few units or classes to set any aside.

    Rows are dealt in the order in which they stand, and classes by their size and first row, not by their names. Other
    seeds give other deals.
    """
    number = int(units.max()) + 1
    folds = min(number, folds_of(train) if folds is None else folds)
    if folds < 2:
        return []
    groups = torch.from_numpy(units) if number < len(train) else None
    trials = []
    for rows, aside in set_aside(train.y, fold_ids(_nameless(train.y), folds, groups=groups, seed=seed)):
        rest = train.take(rows)
        if classes_in(rest.y) > 1:
            counts = ClassCounts.from_labels(rest.y, len(train.counts), rest.weight)
            trials.append(Trial(fit(replace(rest, counts=counts)), train.take(aside), torch.from_numpy(units)[aside]))
    return trials


def _nameless(y: Tensor) -> Tensor:
    """The labels (N,) numbered by the size of their classes, the largest first, and of equals by their first rows."""
    present, first, inverse, size = np.unique(y.numpy(), return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(present), dtype=np.int64)
    rank[np.lexsort((first, -size))] = np.arange(len(present))
    return torch.from_numpy(rank[inverse])


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


def judged(trials: Sequence[Trial]) -> Judged:
    """The rows of all trials, in the order of `evidence`."""
    y, weight = (torch.cat(part) for part in zip(*((t.test.y, row_weights(t.test)) for t in trials), strict=True))
    if any(trial.units is None for trial in trials):
        return Judged(y, weight, torch.arange(len(y)))
    return Judged(y, weight, torch.cat([trial.units for trial in trials if trial.units is not None]))


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

    The temperature is sought from 0.01 to 100 times the spread of the logits within rows (`metrics.logit_unit`), and
    drawn to that spread by as much as one row weighs: logits times c give c times the temperature, and the same
    probabilities.
    """
    unit = logit_unit(seen.logits, seen.weight)
    seen = seen._replace(logits=seen.logits / unit)
    if implied is not None:
        return unit * _temperature(seen, implied), implied
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

    bound = math.log(WIDEST)
    found = minimize(objective, np.array([0.0, 0.5]), method="L-BFGS-B", bounds=[(-bound, bound), (-1.0, 2.0)]).x
    return unit * math.exp(float(found[0])), (float(found[1]) * log_train).softmax(dim=0)


def _temperature(seen: Evidence, prior: Tensor) -> float:
    """The temperature of the least NLL of rows weighted to `prior` (C,), whose logits have a spread of 1."""
    from scipy.optimize import minimize_scalar

    weight = weights_to(seen.y, seen.weight, prior)
    rows = float(seen.weight.sum())

    def nll(log_t: float) -> float:
        each = torch.nn.functional.cross_entropy(seen.logits * math.exp(-log_t), seen.y, reduction="none")
        # Without the second term a handful of rows that are all right would ask for certainty.
        return float(weight @ each) + log_t**2 / 2 / rows

    bound = math.log(WIDEST)
    found = minimize_scalar(nll, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-4})
    return math.exp(float(found.x))


def deployed(head: Head, temperature: float, implied: Tensor, target: Tensor) -> Head:
    """The head whose softmax is the posterior under `target` (C,), in float64."""
    return head.to(torch.float64).scaled(1 / temperature).shifted(prior_shift(implied, target))


def at_chance(ending: Evidence, spec: Spec, target: Tensor) -> PoiseWarning | None:
    """A warning if final logits are right, under the prior `target` (C,), hardly more often than one answer for all."""
    each = weights_to(ending.y, ending.weight, target)
    recall = float((ending.logits.argmax(dim=-1) == ending.y).double() @ each)
    guess = float(torch.bincount(ending.y, weights=each).max())
    if recall > guess + GUESSING * (1 - guess):
        return None
    return PoiseWarning(
        f"{spec} is hardly better than chance: the recall expected on unseen rows is {100 * recall:.1f} %, and "
        f"one answer for all rows has {100 * guess:.1f} %; take another method, or features that tell the classes apart"
    )


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
