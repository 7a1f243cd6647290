"""One step of momentum SGD for a family of heads: heads that share their loss functions, side by side.

Everything here is memory that changes in place, and belongs to one call of `poise.heads.solver.fit_heads`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from poise.heads.trained_parts import Leaves, Part
from poise.machine.processes import World
from poise.machine.threads import Crew
from poise.values.loss import Loss, gradient, mass_of

if TYPE_CHECKING:
    from poise.constraints import Projection


class Batch(NamedTuple):
    """Rows `x` (b, D + 1) of a batch with labels `y` (B,), each of which counts by its `heft`, a number or (B, 1).

    `own` (b,) tells which rows of the batch are in x: those of this process; None if they are all. `draws` (B, C) are
    for losses with noise.
    """

    x: Tensor
    y: Tensor
    heft: Tensor | float
    own: Tensor | None
    world: World
    draws: Tensor | None = None

    def heft_over(self, mass: Tensor | None) -> Tensor | float:
        """`heft`, divided by the mean of what rows count (G, B): a number, or (G, 1 or B, 1).

        Rows that count 1 have a mean of exactly 1, so that a head of a family does not feel the mass of others.
        """
        if mass is None:
            return self.heft
        row = self.heft.mT if isinstance(self.heft, Tensor) else self.heft
        sums = (torch.stack([mass, torch.ones_like(mass)]) * row).sum(dim=-1)
        return self.heft / (sums[0] / sums[1])[:, None, None]

    def logits(self, rows: Tensor, share: "Share", out: Tensor) -> None:
        """Write the logits (G, b, C') of heads with these rows (G, C', D + 1) into `out` (G, B, C')."""
        x = self.x.expand(len(rows), *self.x.shape)
        if share.narrow is not None:
            rows = share.narrow[:, : rows.shape[1]].copy_(rows)
        if self.own is None and share.narrow is None and out.is_contiguous():
            torch.bmm(x, rows.mT, out=out)
        elif self.own is None:
            out.copy_(torch.bmm(x, rows.mT))
        else:
            out[:, self.own] = torch.bmm(x, rows.mT).to(out.dtype)

    def slope_of_rows(self, slope: Tensor, share: "Share") -> Tensor:
        """(G, C', D + 1) gradient of the loss by rows of heads, from that by their logits (G, b, C')."""
        x = self.x.expand(len(slope), *self.x.shape)
        found = share.slopes[:, : slope.shape[-1]]
        if share.narrow is None:
            torch.bmm(slope.mT, x, out=found)
        else:
            found.copy_(torch.bmm(slope.mT, x, out=share.narrow[:, : slope.shape[-1]]))
        return self.world.add(found)


class Cut(NamedTuple):
    """Weights that are updated at a time: those of some `classes` of a wide head, else all; views of the family's."""

    classes: slice
    leaves: Leaves
    velocities: Leaves


class Share(NamedTuple):
    """What one thread does of a step of a family: its cuts, one after the other in the same memory.

    `slopes` (G, C', D + 1) is for gradients, and `narrow`, where products have fewer digits, of their type and size.
    """

    cuts: Sequence[Cut]
    slopes: Tensor
    narrow: Tensor | None


class Projected(NamedTuple):
    """Heads of a family that share a projection, each with its own radius (G',)."""

    heads: slice
    projection: "Projection"
    radius: Tensor


class Columns(NamedTuple):
    """Settings of the update of a leaf, one entry per head, shaped to multiply it; `rates` has a row per step."""

    rates: Tensor
    decay: Tensor
    momentum: Tensor


@dataclass
class Family:
    """Consecutive heads of a block that share loss functions, few enough to stay in the cache.

    `state` is stacked over them; all tensors but `frozen` are changed in place, the parts of the block's that are
    theirs. `logits` (G B, C) is memory.
    """

    loss: Loss
    state: Any
    projected: Sequence[Projected]
    leaves: Leaves
    frozen: Leaves
    shares: Sequence[Share]
    columns: Sequence[Columns]
    logits: Tensor

    def run(
        self, batches: Sequence[Batch], first: int, part: Part, nesterov: bool, ask: Callable[[], None], workers: Crew
    ) -> None:
        """The steps from number `first` on, one per batch; each begins by asking whether to go on."""
        for at, batch in enumerate(batches, first):
            ask()
            self.step(batch, part, nesterov, at, workers)
            self.project("step")

    def step(self, batch: Batch, part: Part, nesterov: bool, at: int, workers: Crew) -> None:
        """Step `at` of momentum SGD."""
        slope = self.slope(batch, part, workers)

        def move(share: Share) -> None:
            for cut in share.cuts:
                pulled = part.pull(batch.slope_of_rows(slope[..., cut.classes], share), cut.leaves, self.frozen)
                for leaf, velocity, pull, column in zip(cut.leaves, cut.velocities, pulled, self.columns, strict=True):
                    pull.addcmul_(leaf, column.decay)
                    velocity.mul_(column.momentum).add_(pull)
                    moved = pull.addcmul_(velocity, column.momentum) if nesterov else velocity
                    leaf.addcmul_(moved, column.rates[at], value=-1)

        workers.map(move, self.shares)

    def slope(self, batch: Batch, part: Part, workers: Crew) -> Tensor:
        """(G, b, C) gradient of the mean loss by the logits of rows that are here; the state of the loss goes on."""
        heads, rows = len(self.columns[0].decay), len(batch.y)
        logits = self.logits[: heads * rows].view(heads, rows, -1)
        if batch.own is not None:
            logits.zero_()

        def fill(share: Share) -> None:
            for cut in share.cuts:
                rows_of = cut.leaves[0] if part.whole else part.join(self.leaves, self.frozen)
                batch.logits(rows_of, share, logits[..., cut.classes])

        workers.map(fill, self.shares)
        heft, state = batch.heft_over(mass_of(self.loss, batch.y, self.state)), self.state
        if self.loss.draw is not None:
            assert batch.draws is not None
            state = self.loss.draw(state, batch.draws)
        if self.loss.weigh is not None and isinstance(batch.heft, Tensor):
            state = self.loss.weigh(state, batch.heft.squeeze(-1))
        slope, self.state = gradient(self.loss, batch.world.add(logits), batch.y, state)
        slope = torch.mul(slope, heft, out=logits)
        return (slope if batch.own is None else slope[:, batch.own]).to(batch.x.dtype)

    def project(self, moment: str) -> None:
        """Apply the projections that are due at this moment."""
        for heads, projection, radius in self.projected:
            if projection.every == moment:
                weight = self.leaves[0][heads, ..., :-1]
                weight.copy_(projection.apply(weight, radius))
