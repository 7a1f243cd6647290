"""`fit_heads`: any number of heads on cached features, in one pass.

Recipes that share the row order, the trained part and the shape of an epoch are stacked to one tensor (G, C, D + 1),
weight and bias side by side. One batch of rows serves all of them: the logits of every head come from one batched
matrix product, the losses of one family from one call, and momentum SGD works elementwise with learning rate and weight
decay as columns. Heads cannot influence each other, so training many at once gives what training each alone gives.

Rows are read in the order of the epoch, some batches at a time, so that memory does not grow with their number. Several
processes (`Problem.world`) share the rows: each multiplies those it owns, logits and gradients are summed, and every
process takes the same step. Each owns consecutive rows, which are those of some shards of a store.
"""

import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poise.constraints import Projection, free
from poise.errors import CancelledError, InputError, PoiseWarning
from poise.heads.plan import Plan, learning_rates
from poise.heads.reading import Reader
from poise.heads.scaling import space_of
from poise.heads.step import Columns, Cut, Family, Projected, Share
from poise.heads.trained_parts import Leaves, Part, full
from poise.losses import cross_entropy
from poise.machine.progress import Progress
from poise.machine.threads import ALONE, Crew, crew
from poise.sampling import Sampler, instance
from poise.values.counts import ClassCounts
from poise.values.fields import whole
from poise.values.head import Head
from poise.values.loss import Loss, stack_states
from poise.values.problem import Problem
from poise.values.randomness import Stream

Start = Callable[[Tensor, int], Tensor]
Cancelled = Callable[[], bool]

# Heads are trained together as long as their weights, and their logits of one batch, stay below this many numbers (128
# MB in float32).
MOST_NUMBERS = 2**25
# Of these, so many logits and so many weights at a time go through loss and update, to stay in the processor's cache.
CACHED_LOGITS = 2**19
CACHED_WEIGHTS = 2**18
LARGE_STEP = 2**23  # multiplications of a product, for all heads of a step, from which on more threads than one pay
ALIGNED_FROM, ALIGNED = 256, 16  # matrix products into long rows are up to 1.6 times as fast if each begins aligned


def stage1(rows: Tensor, seed: int) -> Tensor:
    """Start from the stage-1 head."""
    return rows


def fresh(rows: Tensor, seed: int) -> Tensor:
    """Start from weight and bias uniform in +-1/sqrt(D): a function of the seed and the shape alone."""
    bound = (rows.shape[-1] - 1) ** -0.5
    drawn = np.random.default_rng([seed, Stream.FRESH_START]).uniform(-bound, bound, tuple(rows.shape))
    return torch.from_numpy(drawn).to(rows)


@dataclass(frozen=True, kw_only=True)
class Retrain:
    """A trained method as a handful of independent choices; calling it on (problem, seed) returns a head.

    `start` maps the stage-1 rows (C, D + 1) and the seed to the first rows. `scale` is the scale of cosine logits, for
    parts with unit features. `lr_factors` multiply the learning rate of each leaf of the part; () is 1 for all.
    Everything else is what its name says, from the module of that name.
    """

    loss: Loss = field(default_factory=cross_entropy)
    start: Start = stage1
    part: Part = full
    sampler: Sampler = instance
    projection: Projection = field(default_factory=free)
    scale: float = 1.0
    lr_factors: tuple[float, ...] = ()
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

    Weight 2 is the row twice: a sampler draws by the weights (`poise.sampling`), or, like `instance`, draws rows alike,
    and then the weights, divided by their mean, multiply the gradients of rows and what they add to what a loss
    remembers (GALA's statistics). With `instance` and all rows in one batch, copies give the same head.

    Training reads views 1..V-1 of the features, one per epoch in turn, or view 0 if it is the only one. The row order
    of an epoch depends on (seed, sampler, epoch), the noise of a loss on (seed, epoch, place in that order) and a fresh
    start on the seed alone, so heads of one seed are paired.
    Arithmetic is float32, or float64 if the features are; products of matrices are bfloat16 where the plan says so
    (`Plan.matmul`). A head that becomes infinite or NaN keeps its last finite epoch, with a PoiseWarning that names it.
    Without a stage-1 head, recipes that need one use `with_stage1`.

    Rows of a store that is read from disk (`poise.values.shards`) are drawn in windows of 512 MB (of float16), each
    made of blocks of neighbouring rows from all over the store: an epoch draws the same rows, in another order.

    With several processes in `problem.world`, all call this with the same arguments and get the same heads, which are
    those of one process up to the order of additions.

    Raises: CancelledError; InputError for a recipe that does not fit the problem.
    """
    recipes = list(recipes)
    for recipe in recipes:
        if not isinstance(recipe, Retrain):
            raise InputError(f"fit_heads trains Retrain recipes, got {recipe!r}; call other methods on the problem")
    whole(0).check("the seed", seed)
    if any(recipe.needs_head for recipe in recipes):
        problem = with_stage1(problem, seed)
    heads: dict[int, Head] = {}
    ticker = _Ticker(progress, sum(recipe.plan.epochs for recipe in recipes))
    for members in _blocks(recipes, len(problem.train.counts), problem.train.dim):
        block = _Block(problem, [recipes[i] for i in members], seed)
        heads.update(zip(members, block.train(snapshots, ticker, cancelled or (lambda: False)), strict=True))
    return [heads[i] for i in range(len(recipes))]


def _refuse_if(cancelled: Cancelled, epoch: int, epochs: int) -> None:
    if cancelled():
        raise CancelledError(f"cancelled in epoch {epoch + 1} of {epochs}; no head was returned")


class _Ticker:
    """Counts finished epochs times heads and reports them."""

    def __init__(self, report: Progress | None, total: int) -> None:
        self.report, self.total, self.done = report, total, 0

    def __call__(self, heads: int) -> None:
        self.done += heads
        if self.report is not None:
            self.report(self.done, self.total)


def _blocks(recipes: Sequence[Retrain], classes: int, dim: int) -> Iterable[list[int]]:
    """Numbers of the recipes that are trained together, families side by side."""
    for group in _grouped(range(len(recipes)), lambda i: _pass_key(recipes[i])):
        most = max(1, MOST_NUMBERS // (classes * max(recipes[group[0]].plan.batch_size, dim + 1)))
        for first in range(0, len(group), most):
            together = group[first : first + most]
            families = _grouped(together, lambda i: _family_key(recipes[i]))
            yield [
                i
                for family in families
                for part in _grouped(family, lambda i: _projection_key(recipes[i]))
                for i in part
            ]


def _grouped(items: Iterable[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _pass_key(recipe: Retrain) -> Hashable:
    """What must agree for heads to share the rows and shapes of every step."""
    plan = recipe.plan
    shape = (plan.epochs, plan.batch_size, plan.drop_last, plan.scale_features, plan.nesterov, plan.matmul)
    return (recipe.sampler, recipe.part, *shape)


def _family_key(recipe: Retrain) -> Hashable:
    """What must agree for losses to be computed in one call."""
    loss = recipe.loss
    # Which terms of the state are None depends on the parameters only, so any counts show it.
    shape = () if loss.filled else tuple(term is None for term in loss.init(ClassCounts(torch.tensor([2, 1]))))
    return (*loss[1:], shape)


def _projection_key(recipe: Retrain) -> Hashable:
    """What must agree for weights to be projected in one call."""
    return (recipe.projection.apply, recipe.projection.every)


def _factors_of(recipe: Retrain, leaves: int) -> tuple[float, ...]:
    """A factor of the learning rate for each leaf. Raises: InputError for another number of them."""
    if len(recipe.lr_factors) not in (0, leaves):
        raise InputError(f"lr_factors has one entry per leaf of the part, {leaves} here, got {recipe.lr_factors!r}")
    return recipe.lr_factors or (1.0,) * leaves


class _Block:
    """Heads trained together. It changes as it trains, and is local to one call of `fit_heads`."""

    def __init__(self, problem: Problem, recipes: Sequence[Retrain], seed: int) -> None:
        self.features, self.recipes, self.seed, self.world = problem.train, recipes, seed, problem.world
        first = recipes[0]
        self.part, self.plan = first.part, first.plan
        self.dtype = problem.train.dtype
        self.batch_rows = min(self.plan.batch_size, len(problem.train))
        # Processes that share rows must add in one order, and a GPU is busy with one thread.
        self.own_threads = self.world.alone and not problem.train.x.is_cuda
        self.multiplications = self.batch_rows * len(problem.train.counts) * problem.train.dim
        pays = self.own_threads and self.multiplications * len(recipes) >= LARGE_STEP
        self.threads = torch.get_num_threads() if pays else 1
        self.digits = torch.bfloat16 if self.plan.matmul == "bfloat16" else self.dtype
        self.space = space_of(problem.train, self.plan.scale_features, self.part.unit_features, self.world)
        self.steps = self.plan.steps(len(problem.train))
        self.reader = Reader(
            features=problem.train,
            space=self.space,
            plan=self.plan,
            sampler=first.sampler,
            digits=self.digits,
            noisy=any(recipe.loss.draw is not None for recipe in recipes),
            seed=seed,
            world=self.world,
        )
        self.rates = self.column([learning_rates(r.plan, self.steps).flatten().tolist() for r in recipes])
        self.decay = self.column([r.plan.weight_decay for r in recipes])
        self.momentum = self.column([r.plan.momentum for r in recipes])
        self.leaves, self.frozen = self.part.split(self.start(problem.head), self.column([r.scale for r in recipes]))
        self.factors = self.column([_factors_of(r, len(self.leaves)) for r in recipes])  # (G, leaves)
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

    def make_families(self, problem: Problem) -> list[Family]:
        """The families of this block, whose heads stand side by side."""
        groups = _grouped(range(len(self.recipes)), lambda i: _family_key(self.recipes[i]))
        most = self.together()
        parts = [group[i : i + most] for group in groups for i in range(0, len(group), most)]
        families, first = [], 0
        for members in parts:
            recipes = [self.recipes[i] for i in members]
            heads = slice(first, first + len(members))
            leaves, frozen, velocities = (
                tuple(tensor[heads] for tensor in tensors) for tensors in (self.leaves, self.frozen, self.velocity)
            )
            family = Family(
                loss=recipes[0].loss,
                state=self.states([recipe.loss for recipe in recipes]),
                projected=self.projections(recipes, problem.head),
                leaves=leaves,
                frozen=frozen,
                shares=self.shares(leaves, velocities, self.threads if len(parts) == 1 else 1),
                columns=[self.columns_of(number, leaf, heads) for number, leaf in enumerate(leaves)],
                logits=self.rates.new_empty(len(members) * self.batch_rows, len(problem.train.counts)),
            )
            families.append(family)
            first += len(members)
        return families

    def states(self, losses: Sequence[Loss]) -> Any:
        """The first states of losses of a family, stacked."""
        counts, filled = self.features.counts, losses[0].filled
        full = None if filled is None else (lambda state: filled(state, counts))
        return stack_states([loss.init(counts) for loss in losses], self.rates, full)

    def projections(self, recipes: Sequence[Retrain], head: Head | None) -> list[Projected]:
        """The projections of a family, whose heads are sorted by them."""
        found, first = [], 0
        for group in _grouped(range(len(recipes)), lambda i: _projection_key(recipes[i])):
            radius = self.column([recipes[i].projection.radius(head) / self.space.factor for i in group])
            found.append(Projected(slice(first, first + len(group)), recipes[group[0]].projection, radius))
            first += len(group)
        return found

    def together(self) -> int:
        """How many heads of a family stay in the processor's cache; fewer, if that gives every thread a family."""
        classes, columns = len(self.features.counts), self.features.dim + 1
        fitting = min(CACHED_LOGITS // (self.batch_rows * classes), CACHED_WEIGHTS // (classes * columns))
        return max(1, min(fitting, -(-len(self.recipes) // self.threads)))

    def shares(self, leaves: Leaves, velocities: Leaves, threads: int) -> list[Share]:
        """The work of a family on its leaves (G, C, ...), for so many threads."""
        heads, classes, columns = len(leaves[0]), len(self.features.counts), self.features.dim + 1
        # A part of a head is small, and its gradient one sum: only whole heads are cut.
        size = min(classes, max(1, CACHED_WEIGHTS // columns)) if self.part.whole and heads == 1 else classes
        if size == classes:
            cuts = [Cut(slice(None), leaves, velocities)]
        else:
            parts = (slice(first, min(first + size, classes)) for first in range(0, classes, size))
            cuts = [Cut(part, (leaves[0][:, part],), (velocities[0][:, part],)) for part in parts]
        wide = columns if columns < ALIGNED_FROM else -(-columns // ALIGNED) * ALIGNED
        few = self.digits != self.dtype
        return [
            Share(
                cuts[thread::threads],
                self.rates.new_empty(heads, size, wide)[..., :columns],
                self.rates.new_empty(heads, size, columns, dtype=self.digits) if few else None,
            )
            for thread in range(min(threads, len(cuts)))
        ]

    def columns_of(self, number: int, leaf: Tensor, heads: slice) -> Columns:
        """The settings of some heads for this leaf (G, ...) of the part."""
        ones = [1] * (leaf.ndim - 1)
        decay, momentum = (column[heads].view(-1, *ones) for column in (self.decay, self.momentum))
        rates = self.rates[heads] * self.factors[heads, number, None]
        return Columns(rates.T.reshape(-1, len(leaf), *ones), decay, momentum)

    def train(self, snapshots: bool, tick: _Ticker, cancelled: Cancelled) -> list[Head]:
        """Run all epochs; one head per recipe, or its path."""
        alive = torch.ones(len(self.recipes), dtype=torch.bool)
        path = [self.rows().clone()]
        for epoch in range(self.plan.epochs):
            with self.workers() as workers:
                self.epoch(epoch, partial(_refuse_if, cancelled, epoch, self.plan.epochs), workers)
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

    @contextmanager
    def workers(self) -> Iterator[Crew]:
        """A thread for each family, or for each share of the only one; else torch's own, where that pays."""
        pieces = max(len(self.families), len(self.families[0].shares))
        if not self.own_threads or (pieces == 1 and self.multiplications >= LARGE_STEP):
            yield ALONE
            return
        with crew(min(pieces, self.threads)) as found:
            yield found

    def epoch(self, epoch: int, ask: Callable[[], None], workers: Crew) -> None:
        """One epoch of steps; families run through some batches each, since none needs another."""
        first = epoch * self.steps
        for family in self.families:
            if family.loss.epoch is not None:
                family.state = family.loss.epoch(family.state, epoch, self.plan.epochs)
        for batches in self.reader.batches(epoch):
            run = partial(
                Family.run, batches=batches, first=first, part=self.part, nesterov=self.plan.nesterov, ask=ask
            )
            if len(self.families) == 1:
                run(self.families[0], workers=workers)
            else:
                workers.map(partial(run, workers=ALONE), self.families)
            first += len(batches)
        for family in self.families:
            family.project("epoch")
