"""Where heads are trained: features centred and scaled once, heads moved in and out without changing their logits.

Features may be larger than memory: they are read in blocks of rows, each of them twice for centre and scale.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from poise.machine.processes import ALONE, World
from poise.values.arrays import row_slices
from poise.values.features import Features
from poise.values.head import Head, Prep

BLOCK = 2**20  # numbers that are converted at a time


class Space(NamedTuple):
    """Where heads are trained: x -> (x - centre) factor, divided by its norm if `unit`, with a column of ones."""

    centre: Tensor | None
    factor: float
    unit: bool

    def rows(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """(N, D) features -> (N, D + 1)."""
        n, dim = x.shape
        rows = torch.empty(n, dim + 1, dtype=dtype, device=x.device)
        rows[:, -1] = 1
        centre = None if self.centre is None else self.centre.to(dtype)
        for block in row_slices(0, n, BLOCK // dim):
            part = rows[block, :-1].copy_(x[block])
            if centre is not None:
                part.sub_(centre).mul_(self.factor)
            if self.unit:  # norms of strided rows round differently
                part.copy_(torch.nn.functional.normalize(part.contiguous(), dim=-1))
        return rows

    def enter(self, head: Head) -> Tensor:
        """(C, D + 1) float64 rows in this space whose logits equal those of `head` (or its directions, if `unit`)."""
        plain = head if self.unit else head.folded()
        weight, bias = plain.weight.double(), plain.bias.double()
        if self.centre is not None and not self.unit:
            weight, bias = weight / self.factor, bias + weight @ self.centre
        return torch.cat([weight, bias.unsqueeze(-1)], dim=-1)

    def leave(self, rows: Tensor) -> Head:
        """Rows (..., C, D + 1) of this space as a head on the features as they are."""
        weight, bias = rows[..., :-1], rows[..., -1]
        if self.unit:
            centre = None if self.centre is None else self.centre.to(rows.dtype)
            return Head(weight.clone(), bias.clone(), Prep(centre, unit=True))
        if self.centre is None:
            return Head(weight.clone(), bias.clone())
        raw = weight.double() * self.factor
        return Head(raw.to(rows.dtype), (bias.double() - raw @ self.centre).to(rows.dtype))


def space_of(features: Features, scale: bool, unit: bool, world: World = ALONE) -> Space:
    """The space of a plan: scaled by the test-time view if `scale`, as it is otherwise; weighted if the rows are.

    The centre is the mean of all rows, which any bias makes good for; with `unit` features, where none does, it is the
    mean of the class means, since around the mean of all rows the largest class has no direction. Each process of the
    `world` reads its share of the rows, and all find the same space.
    """
    if not scale:
        return Space(None, 1.0, unit)
    x, weight = features.x[0], features.weight
    share = _even_shares(features) if unit else None if weight is None else weight / weight.sum()
    whole, (n, dim) = 1.0 if share is not None else len(x), x.shape
    shared = world.own(n)
    own = list(row_slices(shared.start, shared.stop, BLOCK // dim))
    centre = torch.zeros(dim, dtype=torch.float64, device=x.device)
    for block, part in _double(x, own):
        centre += part.sum(dim=0) if share is None else share[block] @ part
    centre = world.add(centre) / whole
    squares = centre.new_zeros(n)
    for block, part in _double(x, own):
        torch.sum(part.sub_(centre).square_(), dim=-1, out=squares[block])
    mine = slice(own[0].start, own[-1].stop) if own else slice(0, 0)
    power = squares[mine].sum() if share is None else share[mine] @ squares[mine]
    total = float(world.add(power)) / whole
    return Space(centre, total**-0.5 if total > 0 else 1.0, unit)


def _even_shares(features: Features) -> Tensor:
    """(N,) shares of the rows in the mean of the class means: all classes with rows alike, rows by their weight."""
    weight = torch.ones_like(features.y, dtype=torch.float64) if features.weight is None else features.weight
    mass = torch.bincount(features.y, weights=weight, minlength=len(features.counts))
    return weight / mass.clamp_min(torch.finfo(mass.dtype).tiny)[features.y] / (mass > 0).sum()


def _double(x: Tensor, blocks: Sequence[slice]) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows of x (N, D) in float64, one after the other in the same memory.

    Allocators do not always use large memory that was just given back again: for a store of 1.8 GB that was 7 GB more.
    """
    rows = max((block.stop - block.start for block in blocks), default=0)
    wide, single = (torch.empty(rows, x.shape[1], dtype=d, device=x.device) for d in (torch.float64, torch.float32))
    for block in blocks:
        part, number = x[block], block.stop - block.start
        if x.dtype.itemsize < 4:  # by way of float32 it is ten times as fast
            part = single[:number].copy_(part)
        yield block, wide[:number].copy_(part)
