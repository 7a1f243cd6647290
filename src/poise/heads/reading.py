"""The training rows as batches: in the order of an epoch, some batches at a time, on the scale they are trained on."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from poise.heads.plan import Plan
from poise.heads.scaling import Space
from poise.heads.step import Batch
from poise.machine.processes import World
from poise.sampling import Sampler, draws_by_weight, order_of, windowed
from poise.values.features import Features
from poise.values.loss import draws
from poise.values.shards import Shards

# Training rows are scaled once and kept if they have at most so many numbers, else whenever they are read (256 MB).
KEPT_NUMBERS = 2**26
READ_NUMBERS = 2**22  # of rows that are read at a time
WINDOW_NUMBERS, BLOCK_NUMBERS = 2**28, 2**15  # of rows on disk that are drawn together, and that are neighbours there


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """Reads the rows of heads that share every batch.

    `space` scales them, `digits` is what products are computed in, `noisy` says whether a loss draws numbers. Of
    several processes in `world` each reads the rows that it owns.
    """

    features: Features
    space: Space
    plan: Plan
    sampler: Sampler
    digits: torch.dtype
    noisy: bool
    seed: int
    world: World

    @property
    def batch_rows(self) -> int:
        """Rows of the largest batch."""
        return min(self.plan.batch_size, len(self.features))

    @property
    def read_rows(self) -> int:
        """Rows that are read at a time: those of some batches."""
        wide = max(self.features.dim + 1, len(self.features.counts) if self.noisy else 0)
        batches = max(1, READ_NUMBERS // (self.batch_rows * wide))
        return self.batch_rows * min(batches, self.plan.steps(len(self.features)))

    @cached_property
    def weight(self) -> Tensor | None:
        """(N, 1) what the rows count in a loss, by their weights, divided by their mean; None if the sampler does."""
        weight = self.features.weight
        if weight is None or draws_by_weight(self.sampler):
            return None
        return (weight / weight.mean()).to(self.features.dtype).unsqueeze(-1)

    @cached_property
    def kept(self) -> list[Tensor] | None:
        """The training views (N, D + 1) as they are trained on, if they are few enough to keep."""
        views = self.features.training_views
        if views.numel() > KEPT_NUMBERS:
            return None
        return [self.space.rows(view, self.features.dtype).to(self.digits) for view in views]

    def read(self, view: int, rows: Tensor) -> Tensor:
        """(n, D + 1) some rows of a training view, as they are trained on, in memory that the next ones take."""
        if self.kept is None:
            return self.space.rows(self.features.training_views[view][rows], self.features.dtype).to(self.digits)
        return torch.index_select(self.kept[view], 0, rows, out=self.read_memory[: len(rows)])

    @cached_property
    def read_memory(self) -> Tensor:
        """Memory for the rows that are read at a time."""
        shape = self.read_rows, self.features.dim + 1
        return torch.empty(shape, dtype=self.digits, device=self.features.x.device)

    def batches(self, epoch: int) -> Iterator[list[Batch]]:
        """The batches of an epoch in order, some at a time."""
        features, size = self.features, self.plan.batch_size
        drawn = features.y, features.counts, features.weight
        order = order_of(self.sampler, *drawn, epoch, self.plan.epochs, self.seed)
        if isinstance(features.x, Shards):
            window = WINDOW_NUMBERS // features.dim
            order = windowed(order, len(features), max(1, BLOCK_NUMBERS // features.dim), window, epoch, self.seed)
        order = order[: self.plan.steps(len(features)) * size].to(features.y.device)
        view, places = epoch % len(features.training_views), torch.split(torch.arange(len(order)), self.read_rows)
        for read, at in zip(torch.split(order, self.read_rows), places, strict=True):
            mine = None if self.world.alone else self.world.owns(read, len(features))
            x, taken, batches = self.read(view, read if mine is None else read[mine]), 0, []
            for first in range(0, len(read), size):
                rows = read[first : first + size]
                own = None if mine is None else mine[first : first + size].nonzero().flatten()
                here = len(rows if own is None else own)
                noise = self.draws(at[first : first + size], epoch) if self.noisy else None
                batches.append(self.batch(x[taken : taken + here], rows, own, noise))
                taken += here
            yield batches

    def draws(self, places: Tensor, epoch: int) -> Tensor:
        """(B, C) random numbers for losses with noise, of the rows at these places (B,) of the order of the epoch."""
        numbers = draws(places, len(self.features.counts), self.seed, epoch)
        return numbers.to(self.features.x.device, self.features.dtype)

    def batch(self, x: Tensor, rows: Tensor, own: Tensor | None, noise: Tensor | None) -> Batch:
        """The batch of these rows (B,), of which `x` (b, D + 1) are here."""
        heft = 1 / len(rows) if self.weight is None else self.weight[rows] / len(rows)
        return Batch(x, self.features.y[rows], heft, own, self.world, noise)
