"""Heads fitted to convergence: the optimum of a convex loss, with no learning rate, no epochs and no randomness.

The search is limited-memory BFGS on all rows. Its first guess at the curvature is that of a softmax over rows whose
features have their principal axes: one number per class and axis, from the classes' shares and the axes' variances, and
later from the probabilities themselves. Rows are read in blocks whose logits stay in the processor's cache, first in
float32 and, where more digits are asked for, to the end in float64.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poise import losses
from poise.checks import check_one_of, check_positive, is_whole
from poise.errors import InputError, PoiseWarning
from poise.losses import Loss
from poise.losses.softmax import SoftmaxTerms, adjusted, softmax_both, softmax_losses
from poise.methods import Method
from poise.minimise import Curvature, Minimum, lbfgs
from poise.space import Space, space_of
from poise.types import ClassCounts, Features, Head, Problem

__all__ = ["Converged", "converged", "fit_converged", "fit_path"]


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


class Converged(NamedTuple):
    """A head, how steep its objective still is (the largest entry of the gradient), its value, and what it took."""

    head: Head
    gradient: float
    value: float
    evaluations: int


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
    """The head that minimises (weighted) mean loss + weight_decay / 2 |W|^2: `fit_path` for one weight decay."""
    found = fit_path(features, loss, [weight_decay], start=start, tolerance=tolerance, max_steps=max_steps, dtype=dtype)
    return found[0].head


def fit_path(
    features: Features,
    loss: Loss,
    weight_decays: Sequence[float],
    *,
    start: Head | None = None,
    tolerance: float = 1e-6,
    max_steps: int = 2000,
    dtype: torch.dtype = torch.float64,
) -> list[Converged]:
    """The heads that minimise (weighted) mean loss + weight_decay / 2 |W|^2, one per weight decay, in their order.

    W are the weights on features scaled as in training (`Plan.scale_features`: centred, mean squared norm 1); the
    intercept is not penalised. With scikit-learn's LogisticRegression on such features, C = 1 / (N weight_decay). All
    training views are used at once. Each search begins where the one before ended, the strongest penalty first, the
    first one at `start`; that saves steps and does not move an optimum. A search stops when no entry of the gradient
    exceeds `tolerance`, and warns (PoiseWarning) if `max_steps` or rounding stop it before; rounding is felt below
    1e-7, and below 1e-5 with float32 as the `dtype` of loss and gradient, which is used as well where the tolerance
    lets it. A class without rows of positive weight would drift to minus infinity: unless the loss smooths labels, it
    is left out, with weight 0 and a bias that gives it the odds of about one row among all.

    Raises: InputError for a loss outside the convex softmax family (cross-entropy, balanced softmax, class-balanced
    weights, vector scaling, label smoothing), or a weight decay or tolerance that is not positive.
    """
    for decay in weight_decays:
        check_positive("weight_decay", decay)
    check_positive("tolerance", tolerance)
    if not is_whole(max_steps) or max_steps < 1:
        raise InputError(f"max_steps must be a whole number of at least 1, got {max_steps!r}")
    terms = _check_convex(loss, features.counts)
    space = space_of(features, scale=True, unit=False)
    kept = _kept(features, terms)
    inner = type(terms)(*(None if term is None else term[kept] for term in terms))
    exact = dtype != torch.float32 and tolerance < ROUGH
    stages = [_Rows.of(features, space, kept, inner, d) for d in (torch.float32, *([dtype] if exact else []))]
    rows = stages[-1]
    at = torch.zeros(len(kept), features.dim + 1, dtype=torch.float64) if start is None else space.enter(start)
    at, found = at[kept], {}
    guess = _Guess.of(rows)
    with _crew(rows.x.numel() * len(at)) as crew:
        for decay in sorted(set(weight_decays), reverse=True):
            minimum = _search(stages, guess, crew, decay, at, tolerance, max_steps)
            at = minimum.x
            found[decay] = Converged(_head(features, space, kept, rows, at), *_facts(minimum))
    return [found[decay] for decay in weight_decays]


def _facts(minimum: Minimum) -> tuple[float, float, int]:
    return minimum.steepest, minimum.value, minimum.evaluations


def _head(features: Features, space: Space, kept: Tensor, rows: "_Rows", found: Tensor) -> Head:
    """The head on the features as they are, classes that were left out among the others."""
    whole = torch.zeros(len(kept), features.dim + 1, dtype=torch.float64)
    whole[kept] = found
    if not kept.all():
        whole[~kept, -1] = rows.mean_log_sum(found) - features.counts.clamped.sum().log()
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


# --- the objective ----------------------------------------------------------------------------------------------------

SMALL = 5 * 10**6  # multiplications below which a second thread costs more than it does
BLOCK = 2**17  # logits that are computed at a time: they stay in the cache of a core


LEAST_ROWS = 512  # of a block, so that adding up its gradient is little beside computing it


class _Crew(NamedTuple):
    """Threads that each take a share of the rows: for blocks this small, more than threads that share an operation."""

    threads: int
    pool: ThreadPoolExecutor

    def map(self, work: Callable[[slice], tuple[float, Tensor]], rows: int) -> Iterable[tuple[float, Tensor]]:
        """The work on every share of so many rows, in order."""
        if self.threads == 1:
            return [work(slice(0, rows))]
        edges = [rows * i // self.threads for i in range(self.threads + 1)]
        return self.pool.map(work, (slice(*pair) for pair in pairwise(edges)))


@contextmanager
def _crew(multiplications: int) -> Iterator[_Crew]:
    """As many threads as torch uses, one of them if the work is small; within, no operation is shared among threads."""
    threads = torch.get_num_threads()
    busy = 1 if multiplications < SMALL else threads
    with ThreadPoolExecutor(busy, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        torch.set_num_threads(1)
        try:
            yield _Crew(busy, pool)
        finally:
            torch.set_num_threads(threads)


class _Rows(NamedTuple):
    """Rows `x` (N, D + 1) with labels `y` (N,), by `share` (N,) of sum 1, and the terms of their loss."""

    x: Tensor
    y: Tensor
    share: Tensor
    terms: SoftmaxTerms
    classes: int

    @classmethod
    def of(cls, features: Features, space: Space, kept: Tensor, terms: SoftmaxTerms, dtype: torch.dtype) -> "_Rows":
        """The rows of positive weight of all training views, classes numbered among the kept."""
        views, weight = features.training_views, features.weight
        here = slice(None) if weight is None else weight > 0
        share = torch.ones(len(features), dtype=torch.float64) if weight is None else weight[here].double()
        x = torch.cat([space.rows(view[here], dtype) for view in views])
        share = share.repeat(len(views))
        y = (kept.cumsum(0) - 1)[features.y[here]].repeat(len(views))
        return cls(x, y, share / share.sum(), terms, int(kept.sum())).to(dtype)

    def to(self, dtype: torch.dtype) -> "_Rows":
        """The same rows in less or more digits."""
        terms = type(self.terms)(*(None if term is None else term.to(dtype) for term in self.terms))
        return self._replace(x=self.x.to(dtype), terms=terms)

    def sample(self, rows: int) -> "_Rows":
        """About so many of the rows, evenly spread."""
        every = slice(None, None, max(1, len(self.y) // rows))
        share = self.share[every]
        return self._replace(x=self.x[every], y=self.y[every], share=share / share.sum())

    def logits(self, head: Tensor, among: slice = slice(None)) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of some rows and their logits (B, C), each in the same memory."""
        first, last, _ = among.indices(len(self.y))
        size = max(LEAST_ROWS, BLOCK // len(head))
        memory = self.x.new_empty(min(size, last - first), len(head))
        weight = head.to(self.x).T
        for begin in range(first, last, size):
            block = slice(begin, min(begin + size, last))
            yield block, torch.mm(self.x[block], weight, out=memory[: block.stop - begin])

    def loss(self, head: Tensor, among: slice) -> tuple[float, Tensor]:
        """Part of the mean loss, and of its gradient (C, D + 1) in float64, that some rows contribute."""
        value, pull = 0.0, torch.zeros_like(head)
        for block, logits in self.logits(head, among):
            each, slope = softmax_both(logits, self.y[block], self.terms)
            share = self.share[block]
            value += float(share @ each.double())
            pull += slope.mul_(share.to(slope).unsqueeze(-1)).T @ self.x[block]
        return value, pull

    def objective(self, head: Tensor, weight_decay: float, crew: "_Crew") -> tuple[float, Tensor]:
        """Value, and gradient (C, D + 1) in float64, at the rows `head` (C, D + 1)."""
        pull = weight_decay * head
        pull[:, -1] = 0  # the intercept is free
        value = weight_decay / 2 * float(head[:, :-1].square().sum())
        for some, pulled in crew.map(lambda among: self.loss(head, among), len(self.y)):
            value += some
            pull += pulled
        return value, pull

    def class_curvature(self) -> Tensor:
        """(C,) second derivatives of the mean loss by the intercepts where every row gets the classes' shares."""
        spread = torch.zeros(len(self.y)) if self.terms.spread is None else self.terms.spread[self.y]
        heft = self.share if self.terms.weight is None else self.share * self.terms.weight[self.y]
        mass = torch.bincount(self.y, heft * (1 - self.classes * spread), minlength=self.classes)
        mass += (heft * spread).sum()
        curved = mass * (1 - mass / mass.sum())
        return curved if self.terms.scale is None else curved * self.terms.scale.double().square()

    def mean_log_sum(self, head: Tensor) -> float:
        """The mean over the rows of the logarithm of the sum of exponentials."""
        return sum(float(self.share[block] @ z.logsumexp(dim=-1).double()) for block, z in self.logits(head))


# --- the search -------------------------------------------------------------------------------------------------------

SAMPLED = 8192  # rows from which axes and probabilities are estimated, more where features have more dimensions
LEAST = 0.1  # share of the first guess below which later ones do not fall: far from the optimum probabilities mislead
RENEWED = (15, 40, 100)  # steps after which the guess is renewed
CAUTIOUS = 0.1  # length of the first step: the guess, which knows no coupling of classes, is too bold; half the steps
ROUGH = 3e-5  # gradient to which float32 is trusted


class _Guess(NamedTuple):
    """A guess at the second derivatives: diagonal for each class on the principal `axes` (D, D) of the features.

    `sample` are some of the rows, `squares` (S, D + 1) their squared coordinates there with a one for the intercept,
    and `first` (C, D + 1) the guess for the penalty 0, from shares of classes and variances of axes.
    """

    axes: Tensor
    sample: _Rows
    squares: Tensor
    first: Tensor

    @classmethod
    def of(cls, rows: _Rows) -> "_Guess":
        """From some of the rows; which ones moves no optimum."""
        sample = rows.sample(max(SAMPLED, 4 * rows.x.shape[1])).to(torch.float32)
        x, share = sample.x[:, :-1], sample.share.float().unsqueeze(-1)
        variances, axes = torch.linalg.eigh((x.T @ (share * x)).double())
        squares = torch.cat([(x @ axes.float()).square_(), torch.ones_like(share)], dim=-1)
        spread = torch.cat([variances.clamp_min(0), torch.ones(1, dtype=torch.float64)])
        return cls(axes, sample, squares, rows.class_curvature().clamp_min(1e-12).unsqueeze(-1) * spread)

    def at(self, head: Tensor) -> Tensor:
        """(C, D + 1) the guess from the probabilities that a head gives to the sample."""
        x, y, terms, share = self.sample.x, self.sample.y, self.sample.terms, self.sample.share.float()
        p = adjusted(x @ head.float().T, y, terms).softmax(dim=-1)
        heft = share if terms.weight is None else share * terms.weight[y]
        found = (p.addcmul(p, p, value=-1).mul_(heft.unsqueeze(-1)).T @ self.squares).double()
        found = found if terms.scale is None else found * terms.scale.double().square().unsqueeze(-1)
        return torch.maximum(found, LEAST * self.first)

    def inverse(self, curvature: Tensor, weight_decay: float) -> Callable[[Tensor], Tensor]:
        """Divides a slope by a guess (C, D + 1) and the penalty's share of it."""
        whole = curvature + weight_decay
        whole[:, -1] -= weight_decay

        def divided(slope: Tensor) -> Tensor:
            turned = torch.cat([slope[:, :-1] @ self.axes, slope[:, -1:]], dim=-1).div_(whole)
            return torch.cat([turned[:, :-1] @ self.axes.T, turned[:, -1:]], dim=-1)

        return divided


def _search(
    rows: Sequence[_Rows], guess: _Guess, crew: _Crew, weight_decay: float, at: Tensor, tolerance: float, max_steps: int
) -> Minimum:
    """The optimum, searched with the first rows until they give no more digits, then with the next."""
    near = bool(at.any())
    curvature = Curvature(guess.inverse(guess.at(at) if near else guess.first, weight_decay))

    def renew(step: int, x: Tensor) -> None:
        if step in RENEWED:
            curvature.inverse = guess.inverse(guess.at(x), weight_decay)

    taken = evaluations = 0
    for these in rows:
        last = these is rows[-1]
        minimum, steps = lbfgs(
            lambda head, these=these: these.objective(head, weight_decay, crew),  # type: ignore[misc]
            at,
            curvature,
            tolerance=tolerance if last else max(tolerance, ROUGH),
            max_steps=max_steps - taken,
            first=CAUTIOUS,
            at_step=renew,
        )
        at, taken, evaluations = minimum.x, taken + steps, evaluations + minimum.evaluations
    if minimum.steepest > tolerance:
        warnings.warn(
            f"the fit stopped after {taken} steps at a gradient of {minimum.steepest:.1e}, above the tolerance "
            f"{tolerance:g}; raise max_steps={max_steps} or weight_decay={weight_decay:g}",
            PoiseWarning,
            stacklevel=4,
        )
    return minimum._replace(evaluations=evaluations)
