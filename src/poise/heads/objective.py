"""What a fit to convergence minimises: the mean loss of all rows as a function of the head, and its gradient."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from poise.heads.scaling import Space
from poise.losses.softmax import SoftmaxTerms, softmax_both
from poise.machine.processes import World, share_of
from poise.machine.threads import Crew
from poise.values.arrays import row_slices
from poise.values.features import Features

BLOCK = 2**17  # logits that are computed at a time: they stay in the cache of a core
LEAST_ROWS = 512  # of a block, so that adding up its gradient is little beside computing it


def _shares(rows: slice, parts: int) -> list[slice]:
    """Some rows cut into parts."""
    return [
        slice(rows.start + share.start, rows.start + share.stop)
        for share in (share_of(rows.stop - rows.start, parts, part) for part in range(parts))
    ]


class Rows(NamedTuple):
    """Rows where they lie: `views` (V, N, D) of features with labels `y` (N,), each by `share` (N,) of sum 1 / V.

    They are centred and converted block by block, which costs little beside their products: there is no second copy.
    """

    views: Tensor
    y: Tensor
    share: Tensor
    terms: SoftmaxTerms
    classes: int
    space: Space

    @classmethod
    def of(cls, features: Features, space: Space, kept: Tensor, terms: SoftmaxTerms) -> "Rows":
        """The rows of positive weight of all training views, classes numbered among the kept."""
        views, y, weight = features.training_views, (kept.cumsum(0) - 1)[features.y], features.weight
        share = torch.ones(len(y), dtype=torch.float64) if weight is None else weight.double()
        rows = cls(views, y, share / (share.sum() * len(views)), terms, int(kept.sum()), space)
        return rows if share.all() else rows.take(share.nonzero().flatten())

    @property
    def multiplications(self) -> int:
        """How many one product of all rows with a head takes."""
        return math.prod(self.views.shape) * self.classes

    def take(self, which: Tensor) -> "Rows":
        """Some rows, copied."""
        views = torch.stack([self.views[i][which] for i in range(len(self.views))])
        share = self.share[which]
        return self._replace(views=views, y=self.y[which], share=share / (share.sum() * len(views)))

    def sample(self, rows: int) -> "Rows":
        """About so many of the rows, every k-th of each class in turn; all of them if there are no more."""
        step = self.views.shape[0] * self.views.shape[1] // rows
        if step < 2:
            return self
        by_class = self.y.argsort(stable=True)
        return self.take(by_class[step // 2 :: step].sort().values)

    def points(self) -> Tensor:
        """(V N, D + 1) the rows in float32."""
        return torch.cat([self.space.rows(self.views[i], torch.float32) for i in range(len(self.views))])

    def logits(self, head: Tensor, among: slice, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Blocks of some rows of each view, their centred features (B, D) and logits (B, C), in the same memory."""
        size = min(max(LEAST_ROWS, BLOCK // len(head)), among.stop - among.start)
        weight, bias = (head[:, :-1] * self.space.factor).to(dtype).T, head[:, -1].to(dtype)
        points, logits = weight.new_empty(size, len(weight)), weight.new_empty(size, len(head))
        centre = self.space.centre
        assert centre is not None
        centre = centre.to(torch.promote_types(dtype, self.views.dtype))
        for view in (self.views[i] for i in range(len(self.views))):
            for block in row_slices(among.start, among.stop, size):
                n = block.stop - block.start
                x = torch.sub(view[block], centre, out=points[:n])
                yield block, x, torch.addmm(bias, x, weight, out=logits[:n])

    def loss(self, head: Tensor, among: slice, dtype: torch.dtype) -> tuple[float, Tensor]:
        """Part of the mean loss, and of its gradient (C, D + 1) in float64, that some rows contribute."""
        terms = type(self.terms)(*(None if term is None else term.to(dtype) for term in self.terms))
        value, pull, pulled = (
            0.0,
            head[:, :-1].new_zeros(head[:, :-1].shape, dtype=dtype),
            torch.zeros_like(head[:, -1]),
        )
        for block, x, logits in self.logits(head, among, dtype):
            each, slope = softmax_both(logits, self.y[block], terms)
            share = self.share[block]
            value += float(share @ each.double())
            slope.mul_(share.to(dtype).unsqueeze(-1))
            pull.addmm_(slope.T, x)
            pulled += slope.sum(dim=0)
        return value, torch.cat([pull.double().mul_(self.space.factor), pulled.unsqueeze(-1)], dim=-1)

    def objective(
        self, head: Tensor, weight_decay: float, dtype: torch.dtype, workers: Crew, world: World
    ) -> tuple[float, Tensor]:
        """Value, and gradient (C, D + 1) in float64, at the rows `head` (C, D + 1), over all processes."""
        sums = torch.zeros(head.numel() + 1, dtype=torch.float64)
        pull = sums[:-1].view_as(head)
        for some, pulled in workers.map(
            lambda among: self.loss(head, among, dtype), _shares(world.own(len(self.y)), workers.threads)
        ):
            sums[-1] += some
            pull += pulled
        world.add(sums)
        pull[:, :-1].add_(head[:, :-1], alpha=weight_decay)  # the intercept is free
        return float(sums[-1]) + weight_decay / 2 * float(head[:, :-1].square().sum()), pull

    def class_curvature(self) -> Tensor:
        """(C,) second derivatives of the mean loss by the intercepts where every row gets the classes' shares."""
        share = self.share * len(self.views)
        spread = torch.zeros(len(self.y)) if self.terms.spread is None else self.terms.spread[self.y]
        heft = share if self.terms.weight is None else share * self.terms.weight[self.y]
        mass = torch.bincount(self.y, heft * (1 - self.classes * spread), minlength=self.classes)
        mass += (heft * spread).sum()
        curved = mass * (1 - mass / mass.sum())
        return curved if self.terms.scale is None else curved * self.terms.scale.double().square()

    def mean_log_sum(self, head: Tensor, world: World) -> float:
        """The mean over the rows of the logarithm of the sum of exponentials."""
        blocks = self.logits(head, world.own(len(self.y)), torch.float64)
        mine = sum(float(self.share[block] @ logits.logsumexp(dim=-1)) for block, _, logits in blocks)
        return float(world.add(torch.tensor(mine, dtype=torch.float64)))
