"""Binary cross-entropy on softmax probabilities, weighted by class."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from poise.losses.weights import class_balanced_weights
from poise.values.checks import check_inside
from poise.values.counts import ClassCounts
from poise.values.loss import Loss, rows_of, true_of


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

    Written over the logits, and so that no large numbers cancel: with e_c the exponentials of all classes but the most
    probable one, t, and S their sum, p_c = (1 - p_t) e_c / S, and q_t, which may be infinite, enters only as
    q_t (1 - p_t) = p_t and q_t p_c = p_t e_c / S.
    """
    at, largest = true_of(y, logits), logits.amax(dim=-1, keepdim=True)
    q = torch.empty_like(logits)
    # Its place: several times as fast as argmax, which is not vectorised.
    places = torch.eq(logits, largest, out=q).mul_(torch.arange(logits.shape[-1], device=y.device))
    top = places.amax(dim=-1, keepdim=True).long()
    e = logits.scatter_(-1, top, float("-inf"))
    second = e.amax(dim=-1, keepdim=True)
    mass = e.sub_(second).exp_().sum(dim=-1, keepdim=True)
    odds = (largest - second).exp() / mass
    p_top, p_rest = 1 / (1 + 1 / odds), 1 / (1 + odds)
    share = p_rest / mass  # p_c = share e_c
    torch.mul(e, share, out=q).neg_().add_(1).reciprocal_().mul_(share)  # so that q_c = q e_c
    q.scatter_(-1, at, 0)
    others = torch.linalg.vecdot(q, e).unsqueeze(-1)
    right = top == at
    slope = e.mul_(q.add_((1 - others) * share - torch.where(right, 0, p_top / mass)))
    slope.scatter_(-1, top, torch.where(right, -p_rest - others * p_top, p_top * (2 - others)))
    slope.scatter_add_(-1, at, torch.where(right, 0.0, -1.0).to(slope))
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
