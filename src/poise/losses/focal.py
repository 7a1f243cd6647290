"""Focal loss: cross-entropy times a power of the probability of being wrong."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from poise.checks import check_inside
from poise.losses.loss import Loss, rows_of
from poise.types import ClassCounts

__all__ = ["FocalTerms", "focal", "focal_gradient", "focal_losses"]


class FocalTerms(NamedTuple):
    """gamma (...,) and an optional weight per class (..., C)."""

    gamma: Tensor
    weight: Tensor | None = None


def _focal_parts(logits: Tensor, y: Tensor, terms: FocalTerms) -> tuple[Tensor, Tensor, Tensor]:
    log_p = logits.log_softmax(dim=-1)
    true = log_p[rows_of(y)]
    # 1 - p_y, with its digits where p_y is close to 1; never 0, whose power has no derivative.
    return log_p, true, (-torch.expm1(true)).clamp_min(torch.finfo(true.dtype).tiny)


def focal_losses(logits: Tensor, y: Tensor, terms: FocalTerms) -> tuple[Tensor, FocalTerms]:
    """(..., B) losses -(1 - p_y)^gamma log p_y."""
    _, true, wrong = _focal_parts(logits, y, terms)
    loss = -wrong.pow(terms.gamma.unsqueeze(-1)) * true
    return (loss if terms.weight is None else terms.weight[..., y] * loss), terms


def focal_gradient(logits: Tensor, y: Tensor, terms: FocalTerms) -> tuple[Tensor, FocalTerms]:
    """(..., B, C): m (p - onehot) with m = (1 - p_y)^gamma - gamma p_y (1 - p_y)^(gamma - 1) log p_y."""
    log_p, true, wrong = _focal_parts(logits, y, terms)
    gamma = terms.gamma.unsqueeze(-1)
    row = wrong.pow(gamma) * (1 - gamma * true.exp() * true / wrong)
    row = row if terms.weight is None else terms.weight[..., y] * row
    slope = log_p.exp()
    slope[rows_of(y)] -= 1
    return slope.mul_(row.unsqueeze(-1)), terms


def focal(*, gamma: float = 2.0, weigh: Callable[[ClassCounts], Tensor] | None = None) -> Loss:
    """Focal loss -(1 - p_y)^gamma log p_y (Lin et al., ICCV 2017), times a weight per class if `weigh` is given.

    Raises: InputError if gamma is negative.
    """
    check_inside("gamma", gamma, 0, float("inf"), "focal loss uses 0.5 to 5")
    return Loss(partial(_focal, gamma=gamma, weigh=weigh), focal_losses, focal_gradient)


def _focal(counts: ClassCounts, *, gamma: float, weigh: Callable[[ClassCounts], Tensor] | None) -> FocalTerms:
    return FocalTerms(torch.tensor(gamma, dtype=torch.float64), None if weigh is None else weigh(counts))
