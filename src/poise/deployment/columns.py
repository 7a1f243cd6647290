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
        return cls.around(train.x[0], train.weight)

    @classmethod
    def around(cls, x: Tensor, weight: Tensor | None) -> "Columns":
        """The columns of rows x (N, D), which count by their weights (N,) or alike."""
        rows = x.double()
        share = None if weight is None else (weight / weight.sum()).unsqueeze(-1)
        centre = rows.mean(dim=0) if share is None else (share * rows).sum(dim=0)
        squares = (rows - centre).square()
        spread = (squares.mean(dim=0) if share is None else (share * squares).sum(dim=0)).sqrt()
        rounding = 8 * torch.finfo(x.dtype).eps * centre.abs()
        return cls(centre, torch.where(spread > rounding, 1 / spread, 0.0))

    @property
    def kept(self) -> Tensor:
        """Numbers of the columns that vary; of all where none does."""
        varying = (self.factor > 0).nonzero().flatten()
        return varying if len(varying) else torch.arange(len(self.factor))

    def rows(self, x: Tensor) -> Tensor:
        """Rows x (..., D) in these columns, in float64."""
        kept = self.kept
        return (x[..., kept].double() - self.centre[kept]) * self.factor[kept]

    def enter(self, features: Features) -> Features:
        """The same of all views of features."""
        return replace(features, x=self.rows(features.x))

    def leave(self, head: Head) -> Head:
        """A linear head for these columns as one for the columns as they are, in float64."""
        plain = head.to(torch.float64).folded()
        weight = plain.weight.new_zeros(*plain.weight.shape[:-1], len(self.factor))
        weight[..., self.kept] = plain.weight * self.factor[self.kept]
        return Head(weight, plain.bias - weight @ self.centre)
