"""Binary cross-entropy on softmax probabilities, weighted by class."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from poise.checks import check_inside
from poise.losses.loss import Loss, rows_of
from poise.losses.weights import class_balanced_weights
from poise.types import ClassCounts

__all__ = ["BceTerms", "bce_gradient", "bce_losses", "class_balanced_bce"]


class BceTerms(NamedTuple):
    """Weight per class (..., C)."""

    weight: Tensor


def _parts(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log p (..., B, C), the index of its largest entry and the logarithm of the mass of the others (..., B, 1).

    1 - p_c cancels where p_c is close to 1, which only the largest can be; for that one the others are summed instead.
    """
    log_p = logits.log_softmax(dim=-1)
    top = log_p.argmax(dim=-1, keepdim=True)
    return log_p, top, log_p.scatter(-1, top, float("-inf")).logsumexp(dim=-1, keepdim=True)


def bce_losses(logits: Tensor, y: Tensor, terms: BceTerms) -> tuple[Tensor, BceTerms]:
    """(..., B) losses -w_y (log p_y + sum_{c != y} log(1 - p_c)) / C."""
    log_p, top, log_rest = _parts(logits)
    # The entry of the largest is replaced below; 0 keeps its derivative finite until then.
    others = torch.log1p(-log_p.scatter(-1, top, float("-inf")).exp()).scatter(-1, top, log_rest)
    loss = -(log_p[rows_of(y)] + others.sum(dim=-1) - others[rows_of(y)])
    return terms.weight[..., y] * loss / logits.shape[-1], terms


def bce_gradient(logits: Tensor, y: Tensor, terms: BceTerms) -> tuple[Tensor, BceTerms]:
    """(..., B, C): w_y (q - A p + p - onehot) / C with q_c = p_c / (1 - p_c) for c != y, q_y = 0, A = sum q.

    Written so that no large numbers cancel: q_c (1 - p_c) = p_c, and the largest q enters only as its product with p.
    """
    log_p, top, log_rest = _parts(logits)
    p = log_p.exp()
    q = p / (1 - p)
    q.scatter_(-1, top, 0)[rows_of(y)] = 0
    slope = p * (2 - q.sum(dim=-1, keepdim=True) + q)
    log_q = (log_p.gather(-1, top) - log_rest).masked_fill(top == y.unsqueeze(-1), float("-inf"))
    slope -= (log_p + log_q).exp().scatter(-1, top, 0)
    slope[rows_of(y)] -= p[rows_of(y)] + 1
    return slope.mul_((terms.weight[..., y] / logits.shape[-1]).unsqueeze(-1)), terms


def class_balanced_bce(*, beta: float = 0.9999) -> Loss:
    """Class-balanced binary cross-entropy on softmax probabilities, as weight balancing releases it.

    Averaged over rows and classes there, hence the factor 1 / C (Alshammari et al., CVPR 2022, released code).
    Deviation: exact where torch clamps the logarithm at -100 and 1 - p at 1e-12.
    """
    check_inside("beta", beta, 0, 1, "use 0.9 to 0.9999")
    return Loss(partial(_bce, beta=beta), bce_losses, bce_gradient)


def _bce(counts: ClassCounts, *, beta: float) -> BceTerms:
    return BceTerms(class_balanced_weights(counts, beta))
