"""`fit_heads`: any number of heads on cached features, in one pass.

Recipes that share the row order, the trained part and the shape of an epoch are stacked to one tensor (G, C, D + 1),
weight and bias side by side. One batch of rows serves all of them: the logits of every head come from one batched
matrix product, the losses of one family from one call, and momentum SGD works elementwise with learning rate and weight
decay as columns. Heads cannot influence each other, so training many at once gives what training each alone gives.
"""

import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poise.checks import is_whole
from poise.constraints import Projection, free
from poise.errors import CancelledError, InputError, PoiseWarning
from poise.losses import Loss, cross_entropy, gradient, stack_states
from poise.params import Leaves, Part, full
from poise.plan import Plan, learning_rates
from poise.sampling import Sampler, instance
from poise.space import space_of
from poise.types import ClassCounts, Head, Problem

__all__ = ["Retrain", "Start", "fit_heads", "fresh", "stage1", "with_stage1"]

Start = Callable[[Tensor, int], Tensor]
Progress = Callable[[int, int], None]
Cancelled = Callable[[], bool]

# Heads are trained together as long as their logits of one batch stay below this many numbers (128 MB in float32).
MOST_LOGITS = 2**25
# Of these, so many at a time go through loss and update, so that what they need stays in the processor's cache.
CACHED_LOGITS = 2**19
FRESH_START = 4  # name of the random stream; the samplers use 1 to 3


def stage1(rows: Tensor, seed: int) -> Tensor:
    """Start from the stage-1 head."""
    return rows


def fresh(rows: Tensor, seed: int) -> Tensor:
    """Start from weight and bias uniform in +-1/sqrt(D): a function of the seed and the shape alone."""
    bound = (rows.shape[-1] - 1) ** -0.5
    drawn = np.random.default_rng([seed, FRESH_START]).uniform(-bound, bound, tuple(rows.shape))
    return torch.from_numpy(drawn).to(rows)


@dataclass(frozen=True, kw_only=True)
class Retrain:
    """A trained method as a handful of independent choices; calling it on (problem, seed) returns a head.

    `start` maps the stage-1 rows (C, D + 1) and the seed to the first rows. `scale` is the scale of cosine logits, for
    parts with unit features. Everything else is what its name says, from the module of that name.
    """

    loss: Loss = field(default_factory=cross_entropy)
    start: Start = stage1
    part: Part = full
    sampler: Sampler = instance
    projection: Projection = field(default_factory=free)
    scale: float = 1.0
    plan: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        if self.projection.every != "never" and not self.part.whole:
            raise InputError("a projection bounds whole weight rows; it cannot be combined with a part of the head")

    @property
    def needs_head(self) -> bool:
        """Does it read the stage-1 head?"""
        return self.start is not fresh or self.projection.needs_head

    def __call__(self, problem: Problem, seed: int = 0) -> Head:
        """The trained head."""
        return fit_heads(problem, [self], seed)[0]


def with_stage1(problem: Problem, seed: int = 0) -> Problem:
    """The problem itself if it has a stage-1 head; else with cross-entropy, fitted from fresh on the same rows."""
    if problem.head is not None:
        return problem
    return replace(problem, head=Retrain(start=fresh)(problem, seed))


def fit_heads(
    problem: Problem,
    recipes: Sequence[Retrain],
    seed: int = 0,
    *,
    snapshots: bool = False,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> list[Head]:
    """Train one head per recipe, all that can share a pass in one pass.

    With `snapshots` every returned head holds its path: weight (epochs + 1, C, D), entry e after e epochs, the last
    being the result. `progress(done, total)` counts epochs times heads; `cancelled()` is asked before every step.

    Row weights, divided by their mean, multiply the gradient of a row wherever the sampler draws it: with the sampler
    `instance` and the whole data in one batch, weight 2 is the row twice. Samplers and what a loss remembers (GALA's
    statistics) count drawn rows, whatever their weight.

    Training reads views 1..V-1 of the features, one per epoch in turn, or view 0 if it is the only one. The row order
    of an epoch depends on (seed, sampler, epoch) and a fresh start on the seed alone, so heads of one seed are paired.
    Arithmetic is float32, or float64 if the features are. A head that becomes infinite or NaN keeps its last finite
    epoch, with a PoiseWarning that names it. Without a stage-1 head, recipes that need one use `with_stage1`.

    Raises: CancelledError; InputError for a recipe that does not fit the problem.
    """
    recipes = list(recipes)
    for recipe in recipes:
        if not isinstance(recipe, Retrain):
            raise InputError(f"fit_heads trains Retrain recipes, got {recipe!r}; call other methods on the problem")
    if not is_whole(seed) or seed < 0:
        raise InputError(f"the seed must be a whole number, 0 or more, got {seed!r}")
    if any(recipe.needs_head for recipe in recipes):
        problem = with_stage1(problem, seed)
    heads: dict[int, Head] = {}
    ticker = _Ticker(progress, sum(recipe.plan.epochs for recipe in recipes))
    for members in _blocks(recipes, len(problem.train.counts)):
        block = _Block(problem, [recipes[i] for i in members], seed)
        heads.update(zip(members, block.train(snapshots, ticker, cancelled or _never), strict=True))
    return [heads[i] for i in range(len(recipes))]


def _never() -> bool:
    return False


class _Ticker:
    """Counts finished epochs times heads and reports them."""

    def __init__(self, report: Progress | None, total: int) -> None:
        self.report, self.total, self.done = report, total, 0

    def __call__(self, heads: int) -> None:
        self.done += heads
        if self.report is not None:
            self.report(self.done, self.total)


def _blocks(recipes: Sequence[Retrain], classes: int) -> Iterable[list[int]]:
    """Numbers of the recipes that are trained together, families side by side."""
    for group in _grouped(range(len(recipes)), lambda i: _pass_key(recipes[i])):
        most = max(1, MOST_LOGITS // (recipes[group[0]].plan.batch_size * classes))
        for first in range(0, len(group), most):
            together = group[first : first + most]
            yield [i for family in _grouped(together, lambda i: _family_key(recipes[i])) for i in family]


def _grouped(items: Iterable[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _pass_key(recipe: Retrain) -> Hashable:
    """What must agree for heads to share the rows and shapes of every step."""
    plan = recipe.plan
    shape = (plan.epochs, plan.batch_size, plan.drop_last, plan.scale_features, plan.nesterov)
    return (recipe.sampler, recipe.part, *shape)


def _family_key(recipe: Retrain) -> Hashable:
    """What must agree for losses and projections to be computed in one call."""
    # Which terms of the state are None depends on the parameters only, so any counts show it.
    state = recipe.loss.init(ClassCounts(torch.tensor([2, 1])))
    shape = tuple(term is None for term in state)
    return (*recipe.loss[1:], shape, recipe.projection.apply, recipe.projection.every)


@dataclass
class _Family:
    """Consecutive heads of a block that share loss functions and projection, few enough to stay in the cache.

    `state` is stacked over them; all tensors but `frozen` are changed in place, the parts of the block's that are
    theirs. `logits` and `slopes` are memory.
    """

    loss: Loss
    state: Any
    projection: Projection
    radius: Tensor
    leaves: Leaves
    frozen: Leaves
    velocity: Leaves
    rates: Tensor
    decay: Tensor
    momentum: Tensor
    logits: Tensor
    slopes: Tensor

    def step(self, x: Tensor, mean: Tensor, y: Tensor, part: Part, nesterov: bool, at: int) -> None:
        """Step `at` of momentum SGD on a batch x (B, D + 1), y (B,); `mean` is x by the share of each row."""
        heads = len(self.slopes)
        rows = part.join(self.leaves, self.frozen)
        logits = self.logits[: heads * len(x)].view(heads, len(x), -1)
        torch.bmm(x.expand(heads, *x.shape), rows.mT, out=logits)
        slope, self.state = gradient(self.loss, logits, y, self.state)
        torch.bmm(slope.mT, mean.expand(heads, *x.shape), out=self.slopes)
        pulled = part.pull(self.slopes, self.leaves, self.frozen)
        for leaf, velocity, pull in zip(self.leaves, self.velocity, pulled, strict=True):
            decay, momentum, lr = (_like(column, leaf) for column in (self.decay, self.momentum, self.rates[:, at]))
            pull.addcmul_(leaf, decay)
            velocity.mul_(momentum).add_(pull)
            leaf.addcmul_(pull.addcmul_(velocity, momentum) if nesterov else velocity, lr, value=-1)

    def project(self, moment: str) -> None:
        """Apply the projection if it is due at this moment."""
        if self.projection.every == moment:
            weight = self.leaves[0][..., :-1]
            weight.copy_(self.projection.apply(weight, self.radius))


class _Block:
    """Heads trained together. The only mutable thing in this module, and local to one call of `fit_heads`."""

    def __init__(self, problem: Problem, recipes: Sequence[Retrain], seed: int) -> None:
        self.features, self.recipes, self.seed = problem.train, recipes, seed
        first = recipes[0]
        self.part, self.sampler, self.plan = first.part, first.sampler, first.plan
        self.dtype = problem.train.dtype
        self.space = space_of(problem.train, self.plan.scale_features, self.part.unit_features)
        weight = problem.train.weight
        self.weight = None if weight is None else (weight / weight.mean()).to(self.dtype).unsqueeze(-1)
        self.steps = self.plan.steps(len(problem.train))
        self.rates = self.column([learning_rates(r.plan, self.steps).flatten().tolist() for r in recipes])
        self.decay = self.column([r.plan.weight_decay for r in recipes])
        self.momentum = self.column([r.plan.momentum for r in recipes])
        self.leaves, self.frozen = self.part.split(self.start(problem.head), self.column([r.scale for r in recipes]))
        self.velocity = tuple(torch.zeros_like(leaf) for leaf in self.leaves)
        self.families = self.make_families(problem)

    def column(self, values: Sequence[Any]) -> Tensor:
        """One entry per head, in the dtype and on the device of the training."""
        return torch.tensor(values, dtype=self.dtype, device=self.features.x.device)

    def start(self, head: Head | None) -> Tensor:
        """(G, C, D + 1) first rows."""
        shape = (len(self.features.counts), self.features.dim + 1)
        rows = torch.zeros(shape, dtype=torch.float64)
        if head is not None and any(recipe.start is not fresh for recipe in self.recipes):
            rows = self.space.enter(head)
        return torch.stack([recipe.start(rows, self.seed) for recipe in self.recipes]).to(self.rates)

    def make_families(self, problem: Problem) -> list[_Family]:
        """The families of this block, whose heads stand side by side."""
        families, first, batch = [], 0, min(self.plan.batch_size, len(problem.train))
        shape = (len(problem.train.counts), problem.train.dim + 1)
        most = min(len(self.recipes), max(1, CACHED_LOGITS // (batch * shape[0])))
        logits, slopes = self.rates.new_empty(most * batch, shape[0]), self.rates.new_empty(most, *shape)
        for group in _grouped(range(len(self.recipes)), lambda i: _family_key(self.recipes[i])):
            for members in (group[i : i + most] for i in range(0, len(group), most)):
                recipes = [self.recipes[i] for i in members]
                radii = [recipe.projection.radius(problem.head) / self.space.factor for recipe in recipes]
                heads = slice(first, first + len(members))
                leaves, frozen, velocity = (
                    tuple(tensor[heads] for tensor in tensors) for tensors in (self.leaves, self.frozen, self.velocity)
                )
                family = _Family(
                    loss=recipes[0].loss,
                    state=stack_states([recipe.loss.init(problem.train.counts) for recipe in recipes], self.rates),
                    projection=recipes[0].projection,
                    radius=self.column(radii),
                    leaves=leaves,
                    frozen=frozen,
                    velocity=velocity,
                    rates=self.rates[heads],
                    decay=self.decay[heads],
                    momentum=self.momentum[heads],
                    logits=logits,
                    slopes=slopes[: len(members)],
                )
                families.append(family)
                first += len(members)
        return families

    def train(self, snapshots: bool, tick: _Ticker, cancelled: Cancelled) -> list[Head]:
        """Run all epochs; one head per recipe, or its path."""
        views = [self.space.rows(view, self.dtype) for view in self.features.training_views]
        alive = torch.ones(len(self.recipes), dtype=torch.bool)
        path = [self.rows().clone()]
        for epoch in range(self.plan.epochs):
            self.epoch(views[epoch % len(views)], epoch, cancelled)
            rows, before = self.rows(), path[-1]
            finite = torch.isfinite(rows).flatten(1).all(dim=1).cpu()
            self.report_lost(alive & ~finite, epoch)
            alive &= finite
            kept = rows.clone() if alive.all() else torch.where(alive.to(rows.device)[:, None, None], rows, before)
            path = [*path, kept] if snapshots else [kept]
            tick(len(self.recipes))
        result = torch.stack(path, dim=1) if snapshots else path[-1]
        return [self.space.leave(rows) for rows in result]

    def rows(self) -> Tensor:
        """(G, C, D + 1) current rows."""
        return self.part.join(self.leaves, self.frozen)

    def report_lost(self, lost: Tensor, epoch: int) -> None:
        """Warn of heads that were finite until this epoch."""
        for i in lost.nonzero().flatten().tolist():
            plan = self.recipes[i].plan
            warnings.warn(
                f"a head diverged in epoch {epoch + 1} of {plan.epochs} and keeps its state before it; lower its "
                f"lr={plan.lr:g} or weight_decay={plan.weight_decay:g}",
                PoiseWarning,
                stacklevel=4,
            )

    def epoch(self, view: Tensor, epoch: int, cancelled: Cancelled) -> None:
        """One epoch of steps over the rows of `view` (N, D + 1)."""
        plan, y = self.plan, self.features.y
        order = self.sampler(y, self.features.counts, epoch, plan.epochs, self.seed).to(y.device)
        x, y, weight = view[order], y[order], None if self.weight is None else self.weight[order]
        for family in self.families:
            if family.loss.epoch is not None:
                family.state = family.loss.epoch(family.state, epoch, plan.epochs)
        for step in range(self.steps):
            if cancelled():
                raise CancelledError(f"cancelled in epoch {epoch + 1} of {plan.epochs}; no head was returned")
            batch = slice(step * plan.batch_size, (step + 1) * plan.batch_size)
            rows = x[batch]
            # The batch average, and the row weights, taken where they are cheapest.
            mean = rows / len(rows) if weight is None else rows * (weight[batch] / len(rows))
            for family in self.families:
                family.step(rows, mean, y[batch], self.part, plan.nesterov, epoch * self.steps + step)
                family.project("step")
        for family in self.families:
            family.project("epoch")


def _like(column: Tensor, leaf: Tensor) -> Tensor:
    """(G,) -> (G, 1, ...) to broadcast against a leaf (G, ...)."""
    return column.view(-1, *[1] * (leaf.ndim - 1))
