"""Heads fitted to convergence: the optimum of a convex loss, with no learning rate, no epochs and no randomness."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poise import losses
from poise.checks import check_one_of, check_positive, is_whole
from poise.errors import InputError, PoiseWarning
from poise.losses import Loss
from poise.losses.softmax import SoftmaxTerms, softmax_both, softmax_losses
from poise.methods import Method
from poise.space import Space, space_of
from poise.types import ClassCounts, Features, Head, Problem

__all__ = ["converged", "fit_converged"]


def converged(*, loss: str = "cross_entropy", weight_decay: float = 1e-4, **params: Any) -> Method:
    """A head fitted to convergence: the optimum of mean loss + weight_decay / 2 |W|^2, without a learning rate.

    W are the weights on features that are centred and scaled once; the intercept is free. `loss` is cross_entropy,
    balanced_softmax, los, vs, label_aware_smoothing, ldam without drw, or class_balanced with gamma = 0; `params` are
    its own. Needs no stage-1 head and ignores the seed. Found by L-BFGS, see `fit_converged`.

    Raises: InputError for an unknown loss or parameter, one that is not convex, or a weight decay that is not positive.
    """
    check_one_of("loss", loss, losses.LOSSES)
    check_positive("weight_decay", weight_decay)
    try:
        built = losses.LOSSES[loss](**params)
    except TypeError as error:
        raise InputError(f"loss {loss!r}: {error}") from error
    _check_convex(built, ClassCounts(torch.tensor([1, 1])))
    return partial(_converged, loss=built, weight_decay=weight_decay)


def _converged(problem: Problem, seed: int = 0, *, loss: Loss, weight_decay: float) -> Head:
    return fit_converged(problem.train, loss, weight_decay=weight_decay)


def fit_converged(
    features: Features,
    loss: Loss,
    *,
    weight_decay: float,
    start: Head | None = None,
    tolerance: float = 1e-6,
    max_steps: int = 2000,
    dtype: torch.dtype = torch.float64,
) -> Head:
    """The head that minimises (weighted) mean loss + weight_decay / 2 |W|^2, found by L-BFGS on all rows.

    W are the weights on features scaled as in training (`Plan.scale_features`: centred, mean squared norm 1); the
    intercept is not penalised. With scikit-learn's LogisticRegression on such features, C = 1 / (N weight_decay). All
    training views are used at once. `start` is where the search begins; it saves steps and does not move the optimum.
    Stops when no entry of the gradient exceeds `tolerance`, and warns (PoiseWarning) if `max_steps` or rounding stop it
    before; rounding is felt below 1e-7, and below 1e-5 with float32 as the `dtype` of loss and gradient. A class
    without rows of positive weight would drift to minus infinity: unless the loss smooths labels, it is left out, with
    weight 0 and a bias that gives it the odds of about one row among all.

    Raises: InputError for a loss outside the convex softmax family (cross-entropy, balanced softmax, class-balanced
    weights, vector scaling, label smoothing), or a weight decay or tolerance that is not positive.
    """
    check_positive("weight_decay", weight_decay)
    check_positive("tolerance", tolerance)
    if not is_whole(max_steps) or max_steps < 1:
        raise InputError(f"max_steps must be a whole number of at least 1, got {max_steps!r}")
    terms = _check_convex(loss, features.counts)
    space = space_of(features, scale=True, unit=False)
    kept = _kept(features, terms)
    inner = type(terms)(*(None if term is None else term[kept] for term in terms))
    objective = _Objective.of(features, space, kept, inner, weight_decay, dtype)
    begin = torch.zeros(len(kept), features.dim + 1, dtype=torch.float64) if start is None else space.enter(start)
    found = objective.minimise(begin[kept], tolerance, max_steps)
    whole = torch.zeros_like(begin)
    whole[kept] = found
    whole[~kept, -1] = objective.mean_log_sum(found) - features.counts.clamped.sum().log()
    return space.leave(whole).to(features.dtype)


def _check_convex(loss: Loss, counts: ClassCounts) -> SoftmaxTerms:
    """The terms of a loss of the convex family. Raises: InputError for any other loss."""
    terms: SoftmaxTerms = loss.init(counts)
    if loss.apply is not softmax_losses or terms.later is not None:
        raise InputError(
            "only losses with one optimum can be fitted to convergence: cross_entropy, balanced_softmax, los, vs, "
            "label_aware_smoothing, ldam without drw, and class_balanced with gamma=0"
        )
    return terms


def _kept(features: Features, terms: SoftmaxTerms) -> Tensor:
    """(C,) bool: the classes that have a finite optimum."""
    rows = torch.bincount(features.y, weights=features.weight, minlength=len(features.counts))
    return rows > 0 if terms.spread is None else torch.ones_like(rows, dtype=torch.bool)


class _Objective(NamedTuple):
    """Mean loss of `rows` (N, D + 1) with labels `y` (N,), by `share` (N,) of sum 1, plus the penalty."""

    rows: Tensor
    y: Tensor
    share: Tensor
    terms: SoftmaxTerms
    weight_decay: float

    @classmethod
    def of(
        cls,
        features: Features,
        space: Space,
        kept: Tensor,
        terms: SoftmaxTerms,
        weight_decay: float,
        dtype: torch.dtype,
    ) -> "_Objective":
        """The objective over the rows of positive weight of all training views, classes numbered among the kept."""
        views = features.training_views
        weight = torch.ones(len(features), dtype=torch.float64) if features.weight is None else features.weight
        here = weight > 0
        rows = torch.cat([space.rows(view[here], torch.float64) for view in views]).to(dtype)
        place = kept.cumsum(0) - 1
        share = weight[here].repeat(len(views))
        typed = type(terms)(*(None if term is None else term.to(dtype) for term in terms))
        y = place[features.y[here]].repeat(len(views))
        return cls(rows, y, (share / share.sum()).to(dtype), typed, weight_decay)

    def __call__(self, head: Tensor) -> tuple[Tensor, Tensor]:
        """Value () and gradient at the rows `head` (C, D + 1), in float64."""
        each, slope = softmax_both(self.rows @ head.to(self.rows).T, self.y, self.terms)
        weight = head.clone()
        weight[:, -1] = 0  # the intercept is free
        pull = (slope.mul_(self.share.unsqueeze(-1)).T @ self.rows).double() + self.weight_decay * weight
        return (self.share @ each).double() + self.weight_decay / 2 * weight.square().sum(), pull

    def minimise(self, start: Tensor, tolerance: float, max_steps: int) -> Tensor:
        """(C, D + 1) rows at the optimum; warns if they are not there."""
        with _threads(self.rows.numel() * len(start)):
            found, slope, steps = _lbfgs(self.__call__, start, tolerance, max_steps)
        steepest = float(slope.abs().max())
        if steepest > tolerance:
            warnings.warn(
                f"the fit stopped after {steps} steps at a gradient of {steepest:.1e}, above the tolerance "
                f"{tolerance:g}; raise max_steps={max_steps} or weight_decay={self.weight_decay:g}",
                PoiseWarning,
                stacklevel=3,
            )
        return found

    def mean_log_sum(self, head: Tensor) -> Tensor:
        """() mean over the rows of the logarithm of the sum of exponentials."""
        return (self.share @ (self.rows @ head.to(self.rows).T).logsumexp(dim=-1)).double()


SMALL = 5 * 10**6  # multiplications below which a second thread costs more than it does


@contextmanager
def _threads(multiplications: int) -> Iterator[None]:
    """One thread for small products, whose threads would wait for each other most of the time; as before afterwards."""
    before = torch.get_num_threads()
    if multiplications < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


MEMORY = 10  # pairs of steps and changes of slope that the curvature is estimated from
HALVINGS = 40

Function = Callable[[Tensor], tuple[Tensor, Tensor]]


def _lbfgs(function: Function, x: Tensor, tolerance: float, max_steps: int) -> tuple[Tensor, Tensor, int]:
    """Where no entry of the gradient exceeds `tolerance`, the gradient there, and the steps taken.

    Limited-memory BFGS (Nocedal, 1980) with the weak Wolfe line search of Lewis and Overton (2013). Stops before at
    `max_steps`, or where rounding lets no step lower the value. Our own, because scipy's spends ten times the objective
    on bookkeeping at these sizes, and torch's loads its compiler for seconds.
    """
    value, slope = function(x)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    for step in range(max_steps):
        if float(slope.abs().max()) <= tolerance:
            return x, slope, step
        direction = _direction(slope, pairs)
        length = 1.0 if pairs else min(1.0, 1.0 / float(slope.abs().sum()))
        ahead = _line_search(function, x, value, slope, direction, length)
        if ahead is None:
            return x, slope, step
        moved, value, turned = ahead
        s, y = moved - x, turned - slope
        x, slope = moved, turned
        pairs = [*pairs[1 - MEMORY :], (s, y, 1 / (s * y).sum())]
    return x, slope, max_steps


def _direction(slope: Tensor, pairs: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Minus the inverse curvature times the slope: the two-loop recursion."""
    q, shares = slope.clone(), []
    for s, y, rho in reversed(pairs):
        share = rho * (s * q).sum()
        q -= share * y
        shares.append(share)
    if pairs:
        s, y, rho = pairs[-1]
        q /= rho * (y * y).sum()
    for (s, y, rho), share in zip(pairs, reversed(shares), strict=True):
        q += (share - rho * (y * q).sum()) * s
    return -q


def _line_search(
    function: Function, x: Tensor, value: Tensor, slope: Tensor, direction: Tensor, length: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    """A point on the way that is lower and less steep, with its value and slope; None if rounding hides it."""
    descent = float((slope * direction).sum())
    low, high = 0.0, math.inf
    for _ in range(HALVINGS):
        point = x + length * direction
        ahead, turned = function(point)
        if float(ahead) > float(value) + 1e-4 * length * descent:
            high = length
        elif float((turned * direction).sum()) < 0.9 * descent:
            low = length
        else:
            return point, ahead, turned
        length = (low + high) / 2 if high < math.inf else 2 * low
    return None
