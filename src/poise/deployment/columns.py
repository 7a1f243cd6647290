"""Columns of mean 0 and variance 1, which no unit, origin or order of the columns changes."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from poise.values.features import Features
from poise.values.head import Head


class Columns(NamedTuple):
    """x -> (x - centre) factor, column by column: means (D,) of the training rows, and one over their deviations (D,).

    A column that does not vary has factor 0 and is left out: it says nothing here, counts for nothing, and must say
    nothing of rows where it differs.
    """

    centre: Tensor
    factor: Tensor

    @classmethod
    def of(cls, train: Features) -> "Columns":
        """The columns of the training rows, weighted if these are."""
        x = train.x[0].double()
        share = None if train.weight is None else (train.weight / train.weight.sum()).unsqueeze(-1)
        centre = x.mean(dim=0) if share is None else (share * x).sum(dim=0)
        squares = (x - centre).square()
        spread = (squares.mean(dim=0) if share is None else (share * squares).sum(dim=0)).sqrt()
        rounding = 8 * torch.finfo(train.x.dtype).eps * centre.abs()
        return cls(centre, torch.where(spread > rounding, 1 / spread, 0.0))

    @property
    def kept(self) -> Tensor:
        """Numbers of the columns that vary; of all where none does."""
        varying = (self.factor > 0).nonzero().flatten()
        return varying if len(varying) else torch.arange(len(self.factor))

    def enter(self, rows: Features) -> Features:
        """The rows in these columns, in float64."""
        kept = self.kept
        return replace(rows, x=(rows.x[..., kept].double() - self.centre[kept]) * self.factor[kept])

    def leave(self, head: Head) -> Head:
        """A linear head for these columns as one for the columns as they are, in float64."""
        plain = head.to(torch.float64).folded()
        weight = plain.weight.new_zeros(*plain.weight.shape[:-1], len(self.factor))
        weight[..., self.kept] = plain.weight * self.factor[self.kept]
        return Head(weight, plain.bias - weight @ self.centre)
