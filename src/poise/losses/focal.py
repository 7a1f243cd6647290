"""Focal loss: cross-entropy times a power of the probability of being wrong, on the softmax or on sigmoids."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from poise.values.checks import check_inside, check_one_of
from poise.values.counts import ClassCounts
from poise.values.loss import Loss, rows_of, true_of

FocalVariant = Literal["softmax", "sigmoid"]


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


def sigmoid_losses(logits: Tensor, y: Tensor, terms: FocalTerms) -> tuple[Tensor, FocalTerms]:
    """(..., B) losses -sum_k (1 - q_k)^gamma log q_k, q the probabilities of being right about each class."""
    at = true_of(y, logits)
    signed = (-logits).scatter(-1, at, logits.gather(-1, at))
    loss = -(_unsure(signed).pow(terms.gamma[..., None, None]) * functional.logsigmoid(signed)).sum(dim=-1)
    return (loss if terms.weight is None else terms.weight[..., y] * loss), terms


def sigmoid_gradient(logits: Tensor, y: Tensor, terms: FocalTerms) -> tuple[Tensor, FocalTerms]:
    """(..., B, C): -+ (1 - q_k)^gamma (1 - q_k - gamma q_k log q_k), minus at the true class.

    Written over the logits.
    """
    at, gamma = true_of(y, logits), terms.gamma[..., None, None]
    signed = logits.neg_().scatter_(-1, at, -logits.gather(-1, at))
    wrong = _unsure(signed)
    steep = signed.sigmoid() * functional.logsigmoid(signed)
    slope = torch.mul(wrong.pow(gamma), wrong - gamma * steep, out=logits)
    slope.scatter_(-1, at, -slope.gather(-1, at))
    return slope if terms.weight is None else slope.mul_(terms.weight[..., y].unsqueeze(-1)), terms


def _unsure(signed: Tensor) -> Tensor:
    """1 - q; never 0, whose power has no derivative."""
    return (-signed).sigmoid().clamp_min(torch.finfo(signed.dtype).tiny)


FORMS = {"softmax": (focal_losses, focal_gradient), "sigmoid": (sigmoid_losses, sigmoid_gradient)}


def focal(
    *,
    gamma: float = 2.0,
    variant: FocalVariant = "softmax",
    weigh: Callable[[ClassCounts], Tensor] | None = None,
) -> Loss:
    """Focal loss (Lin et al., ICCV 2017), times a weight per class if `weigh` is given.

    `softmax`: -(1 - p_y)^gamma log p_y, as LDAM's release has it. `sigmoid`: -sum_k (1 - q_k)^gamma log q_k with q_y
    the sigmoid of z_y and q_k that of -z_k for the other classes, as Lin et al. and Cui et al. define it; gamma = 0 is
    binary cross-entropy, summed over classes. Deviation: without the factor alpha of Lin et al.

    Raises: InputError if gamma is negative, or for an unknown variant.
    """
    check_inside("gamma", gamma, 0, float("inf"), "focal loss uses 0.5 to 5")
    check_one_of("variant", variant, FORMS)
    apply, grad = FORMS[variant]
    return Loss(partial(_focal, gamma=gamma, weigh=weigh), apply, grad, filled=_filled)


def _filled(terms: FocalTerms, counts: ClassCounts) -> FocalTerms:
    return terms if terms.weight is not None else terms._replace(weight=torch.ones_like(counts.prior))


def _focal(counts: ClassCounts, *, gamma: float, weigh: Callable[[ClassCounts], Tensor] | None) -> FocalTerms:
    return FocalTerms(torch.tensor(gamma, dtype=torch.float64), None if weigh is None else weigh(counts))
