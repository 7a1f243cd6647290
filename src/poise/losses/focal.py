"""Focal loss: cross-entropy times a power of the probability of being wrong."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from poise.checks import check_inside
from poise.losses.loss import Loss, rows_of, true_of
from poise.types import ClassCounts

__all__ = ["FocalTerms", "focal", "focal_gradient", "focal_losses"]


class FocalTerms(NamedTuple):
    """gamma (...,) and an optional weight per class (..., C)."""

    gamma: Tensor
    weight: Tensor | None = None


def _wrong(log_p: Tensor) -> Tensor:
    """1 - p with its digits where p is close to 1; never 0, whose power has no derivative."""
    return (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)


def focal_losses(logits: Tensor, y: Tensor, terms: FocalTerms) -> tuple[Tensor, FocalTerms]:
    """(..., B) losses -(1 - p_y)^gamma log p_y."""
    true = logits.log_softmax(dim=-1)[rows_of(y)]
    loss = -_wrong(true).pow(terms.gamma.unsqueeze(-1)) * true
    return (loss if terms.weight is None else terms.weight[..., y] * loss), terms


def focal_gradient(logits: Tensor, y: Tensor, terms: FocalTerms) -> tuple[Tensor, FocalTerms]:
    """(..., B, C): m (p - onehot) with m = (1 - p_y)^gamma - gamma p_y (1 - p_y)^(gamma - 1) log p_y.

    Written over the logits.
    """
    at = true_of(y, logits)
    true = logits.gather(-1, at) - logits.amax(dim=-1, keepdim=True)
    slope = torch.softmax(logits, dim=-1, out=logits)
    true += slope.amax(dim=-1, keepdim=True).log()
    wrong = _wrong(true)
    gamma = terms.gamma[..., None, None]
    row = wrong.pow(gamma) * (1 - gamma * true.exp() * true / wrong)
    row = row if terms.weight is None else terms.weight[..., y].unsqueeze(-1) * row
    slope.scatter_add_(-1, at, slope.new_full((1,), -1.0).expand(at.shape))
    return slope.mul_(row), terms


def focal(*, gamma: float = 2.0, weigh: Callable[[ClassCounts], Tensor] | None = None) -> Loss:
    """Focal loss -(1 - p_y)^gamma log p_y (Lin et al., ICCV 2017), times a weight per class if `weigh` is given.

    Raises: InputError if gamma is negative.
    """
    check_inside("gamma", gamma, 0, float("inf"), "focal loss uses 0.5 to 5")
    return Loss(partial(_focal, gamma=gamma, weigh=weigh), focal_losses, focal_gradient, filled=_filled)


def _filled(terms: FocalTerms, counts: ClassCounts) -> FocalTerms:
    return terms if terms.weight is not None else terms._replace(weight=torch.ones_like(counts.prior))


def _focal(counts: ClassCounts, *, gamma: float, weigh: Callable[[ClassCounts], Tensor] | None) -> FocalTerms:
    return FocalTerms(torch.tensor(gamma, dtype=torch.float64), None if weigh is None else weigh(counts))
