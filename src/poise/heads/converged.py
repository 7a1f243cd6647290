"""Heads fitted to convergence: the optimum of a convex loss, with no learning rate, no epochs and no randomness.

The search is limited-memory BFGS on all rows. Its first guess at the curvature is that of a softmax over rows whose
features have their principal axes: one number per class and axis, from the classes' shares and the axes' variances, and
later from the probabilities themselves. It begins on some of the rows and goes on with all, in float32 and, where more
digits are asked for, to the end in float64. Rows stay where they are, in memory or in a store larger than that, and are
read in blocks whose logits stay in the processor's cache.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor

from poise import losses
from poise.errors import InputError, PoiseWarning
from poise.heads.lbfgs import Curvature, Minimum, lbfgs
from poise.heads.objective import Rows
from poise.heads.scaling import space_of
from poise.losses.softmax import SoftmaxTerms, adjust, softmax_losses
from poise.machine.processes import ALONE, World
from poise.machine.threads import Crew, crew
from poise.values.checks import check_one_of, check_positive
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.fields import whole
from poise.values.head import Head
from poise.values.loss import Loss
from poise.values.problem import Problem

SMALL = 5 * 10**6  # multiplications below which a second thread costs more than it does


class LossParameters(TypedDict, total=False):
    """The parameters of the losses of `converged`; every loss knows those of its own."""

    tau: float
    gamma: float
    delta: float
    beta: float
    variant: str
    smooth_head: float
    smooth_tail: float
    shape: str
    max_margin: float
    scale: float
    drw: bool


def converged(
    *, loss: str = "cross_entropy", weight_decay: float = 1e-4, **params: Unpack[LossParameters]
) -> "Optimum":
    """Logistic regression, or another convex loss, fitted to its optimum: no learning rate, no epochs, no chance.

    Formula: argmin over W, b of mean loss(W f + b, y) + weight_decay / 2 |W|^2.

    W are the weights on features that are centred and scaled once; the intercept is free. `loss` is cross_entropy,
    balanced_softmax, los, vs, label_aware_smoothing, ldam without drw, or class_balanced with gamma = 0, and takes its
    own parameters as well: `converged(loss="balanced_softmax", tau=0.5)`. Needs no stage-1 head. Found by L-BFGS, see
    `fit_converged`; several penalties of one loss are fitted along one path.

    Its softmax is meant for the class frequencies of training with cross_entropy, and for equally frequent classes with
    balanced_softmax and class_balanced. The last holds where counts n_k are far below 1 / (1 - beta), 10,000 by
    default: what it is meant for exactly is a prior proportional to n_k / (1 - beta^n_k), between the two. Of other
    losses, and with parameters of the loss changed, no prior is taken to be known.

    When to use it: on features of a model that never saw the rows, where the penalty is the only number to select;
    followed by `logit_adjustment` it is the two-line baseline that `compare` always runs. On memorised rows the optimum
    is far from the best head, and stopping early is part of a method.

    Raises: InputError for an unknown loss or parameter, one that is not convex, or a weight decay that is not positive.
    """
    check_one_of("loss", loss, losses.LOSSES)
    check_positive("weight_decay", weight_decay)
    method = Optimum(loss, tuple(sorted(params.items())), weight_decay)
    _check_convex(method.built(), ClassCounts(torch.tensor([1, 1])))
    return method


@dataclass(frozen=True)
class Optimum:
    """The method that `converged` makes: a loss by its name, the parameters of the loss, and the penalty."""

    loss: str
    params: tuple[tuple[str, Any], ...]
    weight_decay: float

    def __call__(self, problem: Problem, seed: int = 0) -> Head:
        """The head; the seed is not read."""
        return optima(problem, [self])[0]

    def built(self) -> Loss:
        """The loss. Raises: InputError for a parameter that it does not have."""
        try:
            return losses.LOSSES[self.loss](**dict(self.params))
        except TypeError as error:
            raise InputError(f"loss {self.loss!r}: {error}") from error


def optima(problem: Problem, methods: Sequence[Optimum]) -> list[Head]:
    """The head of every method; those of one loss are fitted along one path, which saves steps."""
    found: dict[Optimum, Head] = {}
    for first in methods:
        if first not in found:
            path = [method for method in methods if (method.loss, method.params) == (first.loss, first.params)]
            decays = [method.weight_decay for method in path]
            heads = fit_path(problem.train, first.built(), decays, world=problem.world)
            found |= {method: each.head for method, each in zip(path, heads, strict=True)}
    return [found[method] for method in methods]


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
    world: World = ALONE,
) -> list[Converged]:
    """The heads that minimise (weighted) mean loss + weight_decay / 2 |W|^2, one per weight decay, in their order.

    W are the weights on features scaled as in training (`Plan.scale_features`: centred, mean squared norm 1); the
    intercept is not penalised, and of intercepts that the loss cannot tell apart the least are taken. With
    scikit-learn's LogisticRegression on such features, C = 1 / (N weight_decay). All training views are used at once.
    The strongest penalty comes first, beginning at `start`; each later search begins where the optima before it point
    to, which saves steps and does not move an optimum. A search stops when no entry of the gradient exceeds
    `tolerance`, and warns (PoiseWarning) if `max_steps` or rounding stop it before; rounding is felt below 1e-7, and
    below 1e-5 with float32 as the `dtype` of loss and gradient, which is used as well where the tolerance lets it. A
    class without rows of positive weight would drift to minus infinity: unless the loss smooths labels, it is left out,
    with weight 0 and a bias that gives it the odds of about one row among all. Each process of the `world` computes a
    share of the rows; all return what one would find, up to the order of additions.

    Raises: InputError for a loss outside the convex softmax family (cross-entropy, balanced softmax, class-balanced
    weights, vector scaling, label smoothing), or a weight decay or tolerance that is not positive.
    """
    for decay in weight_decays:
        check_positive("weight_decay", decay)
    check_positive("tolerance", tolerance)
    whole(1).check("max_steps", max_steps)
    terms = _over_rows(_check_convex(loss, features.counts), features)
    kept = _kept(features, terms)
    inner = type(terms)(*(None if term is None else term[kept] for term in terms))
    found: dict[float, Converged] = {}
    small = math.prod(features.training_views.shape) * len(kept) // world.size < SMALL
    with crew(1 if small else torch.get_num_threads()) as workers:
        space = space_of(features, scale=True, unit=False, world=world)
        rows = Rows.of(features, space, kept, inner)
        at = torch.zeros(len(kept), features.dim + 1, dtype=torch.float64) if start is None else space.enter(start)
        search = _Search(rows, _Guess.of(rows), dtype, tolerance, max_steps, workers, world)
        known: list[tuple[float, Tensor]] = []
        for decay in sorted(set(weight_decays), reverse=True):
            minimum = search.minimum(decay, _ahead(known, math.log(decay)) if known else at[kept])
            known.append((math.log(decay), minimum.x))
            head = _head(features, kept, rows, minimum.x, world)
            found[decay] = Converged(head, minimum.steepest, minimum.value, minimum.evaluations)
    return [found[decay] for decay in weight_decays]


def _ahead(known: Sequence[tuple[float, Tensor]], place: float) -> Tensor:
    """Where the optimum at a place of the path may lie: on the parabola through the last three, if they are near."""
    for points in (known[-3:], known[-2:]):
        shares = [math.prod((place - v) / (u - v) for v, _ in points if v != u) for u, _ in points]
        if sum(map(abs, shares)) <= FARTHEST:
            return torch.stack([share * x for share, (_, x) in zip(shares, points, strict=True)]).sum(dim=0)
    return known[-1][1]


def _head(features: Features, kept: Tensor, rows: "Rows", found: Tensor, world: World) -> Head:
    """The head on the features as they are, classes that were left out among the others."""
    found = _settled(found, rows.terms)
    whole = torch.zeros(len(kept), features.dim + 1, dtype=torch.float64)
    whole[kept] = found
    if not kept.all():
        whole[~kept, -1] = rows.mean_log_sum(found, world) - features.counts.clamped.sum().log()
    return rows.space.leave(whole).to(features.dtype)


def _settled(found: Tensor, terms: SoftmaxTerms) -> Tensor:
    """The optimum (C, D + 1) with the least intercepts.

    A softmax does not see a number that is added to all its logits, and intercepts are free: without this, where the
    search came from would decide.
    """
    unseen = torch.ones(len(found), dtype=torch.float64) if terms.scale is None else 1 / terms.scale.double()
    bias = found[:, -1] - unseen * (unseen @ found[:, -1]) / (unseen @ unseen)
    return torch.cat([found[:, :-1], bias.unsqueeze(-1)], dim=-1)


def _check_convex(loss: Loss, counts: ClassCounts) -> SoftmaxTerms:
    """The terms of a loss of the convex family. Raises: InputError for any other loss."""
    terms: SoftmaxTerms = loss.init(counts)
    if loss.apply is not softmax_losses or terms.later is not None:
        raise InputError(
            "only losses with one optimum can be fitted to convergence: cross_entropy, balanced_softmax, los, vs, "
            "label_aware_smoothing, ldam without drw, and class_balanced with gamma=0"
        )
    return terms


def _over_rows(terms: SoftmaxTerms, features: Features) -> SoftmaxTerms:
    """The same objective as a mean over rows: weights are divided by their mean where that is what it divides by."""
    if terms.weighted_mean is None or terms.weight is None:
        return terms
    each, share = terms.weight[features.y], features.weight
    mean = each.mean() if share is None else (each * share).sum() / share.sum()
    return terms._replace(weight=terms.weight / mean, weighted_mean=None)


def _kept(features: Features, terms: SoftmaxTerms) -> Tensor:
    """(C,) bool: the classes that have a finite optimum."""
    rows = torch.bincount(features.y, weights=features.weight, minlength=len(features.counts))
    return rows > 0 if terms.spread is None else torch.ones_like(rows, dtype=torch.bool)


# --- the search -------------------------------------------------------------------------------------------------------

SAMPLED = 4096  # rows from which axes and probabilities are estimated, more where features have more dimensions
LEAST = 0.1  # share of the first guess below which later ones do not fall: far from the optimum probabilities mislead
RENEWED = (15, 40, 100)  # steps after which the guess is renewed
CAUTIOUS = 0.1  # length of the first step: the guess, which knows no coupling of classes, is too bold; half the steps
ROUGH = 3e-5  # gradient to which float32 is trusted
FEW = 8192  # rows on which a search begins, but no more than a quarter of all, and no less than an eighth
FARTHEST = 10.0  # sum of the shares of points in an extrapolation, whatever their sign: 7 for three at equal distances
BEGUN = 1e-4, 40  # gradient and steps to which it goes there, before it takes all rows


class _Stage(NamedTuple):
    """A part of a search: on which rows, in which digits, to which gradient, with how many steps at most."""

    rows: Rows
    dtype: torch.dtype
    tolerance: float
    max_steps: int


class _Guess(NamedTuple):
    """A guess at the second derivatives: diagonal for each class on the principal `axes` (D, D) of the features.

    It comes from a sample of the rows: `points` (S, D + 1), `y` (S,) and `share` (S,), terms of the loss in float32;
    `squares` (S, D + 1) are squared coordinates on the axes with a one for the intercept, and `first` (C, D + 1) is the
    guess for the penalty 0, from shares of classes and variances of axes.
    """

    axes: Tensor
    points: Tensor
    y: Tensor
    share: Tensor
    terms: SoftmaxTerms
    squares: Tensor
    first: Tensor

    @classmethod
    def of(cls, rows: Rows) -> "_Guess":
        """From some of the rows; which ones moves no optimum."""
        sample = rows.sample(max(SAMPLED, 4 * rows.views.shape[2]))
        points, views = sample.points(), len(sample.views)
        x, share = points[:, :-1], sample.share.repeat(views).float().unsqueeze(-1)
        variances, axes = _principal((x.T @ (share * x)).double())
        squares = torch.cat([(x @ axes.float()).square_(), torch.ones_like(share)], dim=-1)
        spread = torch.cat([variances.clamp_min(0), torch.ones(1, dtype=torch.float64)])
        first = rows.class_curvature().clamp_min(1e-12).unsqueeze(-1) * spread
        terms = type(rows.terms)(*(None if term is None else term.float() for term in rows.terms))
        return cls(axes, points, sample.y.repeat(views), share, terms, squares, first)

    def at(self, head: Tensor) -> Tensor:
        """(C, D + 1) the guess from the probabilities that a head gives to the sample."""
        terms = self.terms
        p = adjust(self.points @ head.float().T, self.y, terms).softmax(dim=-1)
        heft = self.share if terms.weight is None else self.share * terms.weight[self.y].unsqueeze(-1)
        found = (p.addcmul(p, p, value=-1).mul_(heft).T @ self.squares).double()
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


class _Search(NamedTuple):
    """What the searches for all penalties have in common."""

    rows: Rows
    guess: _Guess
    dtype: torch.dtype
    tolerance: float
    max_steps: int
    workers: Crew
    world: World

    def stages(self, begin: bool) -> Iterator[_Stage]:
        """Some of the rows to begin with, then all, in float32 as far as it goes."""
        everything = self.rows.views.shape[0] * self.rows.views.shape[1]
        if begin and self.rows.multiplications >= SMALL:
            some = self.rows.sample(max(min(FEW, everything // 4), everything // 8))
            yield _Stage(some, torch.float32, max(self.tolerance, BEGUN[0]), BEGUN[1])
        exact = self.dtype != torch.float32 and self.tolerance < ROUGH
        yield _Stage(self.rows, torch.float32, ROUGH if exact else self.tolerance, self.max_steps)
        if exact:
            yield _Stage(self.rows, self.dtype, self.tolerance, self.max_steps)

    def minimum(self, weight_decay: float, at: Tensor) -> Minimum:
        """The optimum for a penalty, searched from a point on; the evaluations are those on all rows."""
        near = bool(at.any())
        curvature = Curvature(self.guess.inverse(self.guess.at(at) if near else self.guess.first, weight_decay))

        def renew(step: int, x: Tensor) -> None:
            if step in RENEWED:
                curvature.inverse = self.guess.inverse(self.guess.at(x), weight_decay)

        taken = evaluations = 0
        for rows, dtype, tolerance, max_steps in self.stages(begin=not near):
            found, steps = lbfgs(
                partial(rows.objective, weight_decay=weight_decay, dtype=dtype, workers=self.workers, world=self.world),
                at,
                curvature,
                tolerance=tolerance,
                max_steps=max_steps - taken,
                first=CAUTIOUS,
                at_step=renew,
            )
            at = found.x
            if rows is self.rows:
                taken, evaluations = taken + steps, evaluations + found.evaluations
            else:
                curvature.inverse = self.guess.inverse(self.guess.at(at), weight_decay)
        if found.steepest > self.tolerance:
            warnings.warn(
                f"the fit stopped after {taken} steps at a gradient of {found.steepest:.1e}, above the tolerance "
                f"{self.tolerance:g}; raise max_steps={self.max_steps} or weight_decay={weight_decay:g}",
                PoiseWarning,
                stacklevel=4,
            )
        return found._replace(evaluations=evaluations)


def _principal(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (D,) and eigenvectors (D, D). Raises: InputError for rows whose squares are no finite numbers."""
    if not torch.isfinite(covariance).all():
        raise InputError("the features are too large or too small to be squared; scale them to a variance near 1")
    values, vectors = torch.linalg.eigh(covariance)
    return values, vectors
