"""Where heads are trained: features centred and scaled once, heads moved in and out without changing their logits."""

from typing import NamedTuple

import torch
from torch import Tensor

from poise.types import Features, Head, Prep

__all__ = ["Space", "space_of"]


class Space(NamedTuple):
    """Where heads are trained: x -> (x - centre) factor, divided by its norm if `unit`, with a column of ones."""

    centre: Tensor | None
    factor: float
    unit: bool

    def rows(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """(N, D) features -> (N, D + 1)."""
        x = x.to(dtype).contiguous()  # norms of strided rows round differently
        x = x if self.centre is None else (x - self.centre.to(dtype)) * self.factor
        x = torch.nn.functional.normalize(x, dim=-1) if self.unit else x
        return torch.cat([x, torch.ones_like(x[:, :1])], dim=-1)

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


def space_of(features: Features, scale: bool, unit: bool) -> Space:
    """The space of a plan: scaled by the test-time view if `scale`, as it is otherwise; weighted if the rows are."""
    if not scale:
        return Space(None, 1.0, unit)
    x = features.x[0].double()
    if features.weight is None:
        centre = x.mean(dim=0)
        power = float((x - centre).square().sum(dim=-1).mean())
    else:
        share = features.weight / features.weight.sum()
        centre = share @ x
        power = float(share @ (x - centre).square().sum(dim=-1))
    return Space(centre, power**-0.5 if power > 0 else 1.0, unit)
