"""The softmax family: cross-entropy with scale, shift, margin, softened target and class weight.

    z'_k = scale_k z_k + shift_k - margin_k [k = y]

against a softened target, times a weight per class; its gradient is `weight_y scale_k (softmax(z')_k - target_k)`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from poise.losses.weights import class_balanced_weights, prior_power
from poise.values.checks import check_inside, check_number, check_one_of, check_positive
from poise.values.counts import ClassCounts
from poise.values.loss import Loss, rows_of, true_of

DEFERRED_FROM = 0.8  # share of the epochs before deferred re-weighting: 160 of 200 in LDAM's release


class SoftmaxTerms(NamedTuple):
    """Terms of the expression above, each (..., C) or None where neutral.

    `spread[y]` is the target mass that each class other than y receives; the true class keeps 1 - (C - 1) spread[y].
    `later` replaces `weight` in the last fifth of the epochs (deferred re-weighting). `weighted_mean` (...,) is 1 where
    a batch is averaged over the weights of its rows (`Loss.mass`), None or 0 where it is averaged over its rows.
    """

    scale: Tensor | None = None
    shift: Tensor | None = None
    margin: Tensor | None = None
    spread: Tensor | None = None
    weight: Tensor | None = None
    later: Tensor | None = None
    weighted_mean: Tensor | None = None


def adjust(logits: Tensor, y: Tensor, terms: SoftmaxTerms) -> Tensor:
    """Give the logits (..., B, C) scale, shift and margin, in place."""
    if terms.scale is not None:
        logits *= terms.scale.unsqueeze(-2)
    if terms.shift is not None:
        logits += terms.shift.unsqueeze(-2)
    if terms.margin is not None:
        at = true_of(y, logits)
        logits.scatter_add_(-1, at, -terms.margin[..., y].unsqueeze(-1).expand(at.shape))
    return logits


def softmax_losses(logits: Tensor, y: Tensor, terms: SoftmaxTerms) -> tuple[Tensor, SoftmaxTerms]:
    """(..., B) losses of the softmax family."""
    return _losses(adjust(logits.clone(), y, terms).log_softmax(dim=-1), y, terms), terms


def softmax_gradient(logits: Tensor, y: Tensor, terms: SoftmaxTerms) -> tuple[Tensor, SoftmaxTerms]:
    """(..., B, C) gradient of the softmax family, written over the logits: weight_y scale_k (p_k - target_k)."""
    z = adjust(logits, y, terms)
    return _slope(torch.softmax(z, dim=-1, out=z), y, terms), terms


def softmax_both(logits: Tensor, y: Tensor, terms: SoftmaxTerms) -> tuple[Tensor, Tensor]:
    """Losses (..., B) and gradient (..., B, C) of the softmax family from one pass over the exponentials.

    The gradient is written over the logits, which saves a third of the time.
    """
    z = adjust(logits, y, terms)
    z -= z.amax(dim=-1, keepdim=True)
    at_true = z.gather(-1, true_of(y, z)).squeeze(-1)
    total = z.sum(dim=-1) if terms.spread is not None else at_true
    mass = z.exp_().sum(dim=-1, keepdim=True)
    log_mass = mass.log().squeeze(-1)
    losses = log_mass - at_true
    if terms.spread is not None:
        spread, classes = terms.spread[..., y], logits.shape[-1]
        losses = (1 - classes * spread) * losses - spread * (total - classes * log_mass)
    losses = losses if terms.weight is None else terms.weight[..., y] * losses
    return losses, _slope(z.div_(mass), y, terms)


def _losses(log_p: Tensor, y: Tensor, terms: SoftmaxTerms) -> Tensor:
    loss = -log_p[rows_of(y)]
    if terms.spread is not None:
        spread = terms.spread[..., y]
        loss = (1 - log_p.shape[-1] * spread) * loss - spread * log_p.sum(dim=-1)
    return loss if terms.weight is None else terms.weight[..., y] * loss


def _slope(p: Tensor, y: Tensor, terms: SoftmaxTerms) -> Tensor:
    """The gradient, written over the probabilities."""
    minus = p.new_full((1,), -1.0)
    if terms.spread is not None:
        spread = terms.spread[..., y].unsqueeze(-1)
        p -= spread
        minus = p.shape[-1] * spread - 1
    at = true_of(y, p)
    p.scatter_add_(-1, at, minus.expand(at.shape))
    if terms.weight is not None:
        p *= terms.weight[..., y].unsqueeze(-1)
    if terms.scale is not None:
        p *= terms.scale.unsqueeze(-2)
    return p


def _deferred(terms: SoftmaxTerms, epoch: int, epochs: int) -> SoftmaxTerms:
    due = terms.later is not None and epoch >= DEFERRED_FROM * epochs
    return terms._replace(weight=terms.later) if due else terms


def _filled(terms: SoftmaxTerms, counts: ClassCounts) -> SoftmaxTerms:
    """The same terms, written out: adding 0 and multiplying by 1 changes no bit."""
    one, zero = torch.ones_like(counts.prior), torch.zeros_like(counts.prior)
    weight = one if terms.weight is None else terms.weight
    rows = torch.zeros((), dtype=one.dtype)
    neutral = SoftmaxTerms(one, zero, zero, zero, weight, later=weight, weighted_mean=rows)
    return SoftmaxTerms(*(n if term is None else term for term, n in zip(terms, neutral, strict=True)))


def _mass(y: Tensor, terms: SoftmaxTerms) -> Tensor | None:
    if terms.weighted_mean is None or terms.weight is None:
        return None
    weight = terms.weight.index_select(-1, y)
    return torch.where(terms.weighted_mean.unsqueeze(-1) > 0, weight, 1)


def _softmax(init: Callable[[ClassCounts], SoftmaxTerms]) -> Loss:
    return Loss(init, softmax_losses, softmax_gradient, _deferred, _filled, _mass)


def cross_entropy() -> Loss:
    """Softmax cross-entropy, -log p_y."""
    return _softmax(partial(_cross_entropy))


def _cross_entropy(counts: ClassCounts) -> SoftmaxTerms:
    return SoftmaxTerms()


def los(*, delta: float = 0.98) -> Loss:
    """Label over-smoothing (Sun et al., ICLR 2025): target (1 - delta) onehot + delta / C.

    Equals torch's cross-entropy with label_smoothing=delta; no class counts are used. Fitted exactly, the true logit
    leads every other by log(1 + C (1 - delta) / delta), for all classes alike.

    Raises: InputError if delta is outside [0, 1).
    """
    check_inside("delta", delta, 0, 1, "LOS uses values near 0.98")
    return _softmax(partial(_los, delta=delta))


def _los(counts: ClassCounts, *, delta: float) -> SoftmaxTerms:
    return SoftmaxTerms(spread=torch.full_like(counts.prior, delta / len(counts)))


def balanced_softmax(*, tau: float = 1.0) -> Loss:
    """Cross-entropy of z + tau log prior (Ren et al., NeurIPS 2020; Menon et al., ICLR 2021). Predict with plain z."""
    check_number("tau", tau)
    return _softmax(partial(_vs, tau=tau, gamma=0.0))


def vs(*, tau: float = 1.0, gamma: float = 0.3) -> Loss:
    """Vector scaling (Kini et al., NeurIPS 2021): cross-entropy of z_k / d_k + tau log prior_k.

    d_k = (n_max / n_k)^gamma. gamma = 0 is balanced softmax; tau = 0 is CDT (Ye et al., 2020). Predict with plain z.
    """
    check_number("tau", tau)
    check_number("gamma", gamma)
    return _softmax(partial(_vs, tau=tau, gamma=gamma))


def _vs(counts: ClassCounts, *, tau: float, gamma: float) -> SoftmaxTerms:
    n = counts.clamped
    scale = (n / n.max()).pow(gamma) if gamma else None
    return SoftmaxTerms(scale=scale, shift=tau * counts.prior.log() if tau else None)


def prior_weighted(*, rho: float = 1.0) -> Loss:
    """Cross-entropy weighted by prior_k^-rho, normalised to sum to C (the re-weighting of MARC and DisAlign).

    A batch is averaged over the weights of its rows, as MARC's release does by torch's weighted cross-entropy.
    """
    check_number("rho", rho)
    return _softmax(partial(_prior_weighted, rho=rho))


def _prior_weighted(counts: ClassCounts, *, rho: float) -> SoftmaxTerms:
    return SoftmaxTerms(weight=prior_power(counts, rho), weighted_mean=torch.ones((), dtype=torch.float64))


def weighted(weigh: Callable[[ClassCounts], Tensor]) -> Loss:
    """Cross-entropy times a weight per class (C,). A batch is averaged over its rows, whatever their weights."""
    return _softmax(partial(_weighted, weigh=weigh))


def _weighted(counts: ClassCounts, *, weigh: Callable[[ClassCounts], Tensor]) -> SoftmaxTerms:
    return SoftmaxTerms(weight=weigh(counts))


def ldam(*, max_margin: float = 0.5, scale: float = 30.0, drw: bool = False) -> Loss:
    """LDAM (Cao et al., NeurIPS 2019): cross-entropy of s (c - m_y onehot), m_k proportional to n_k^(-1/4).

    The largest margin is `max_margin`. The logits given here are those of the head, s c with the scale included (so the
    margin on them is s m_y). `drw` applies class-balanced weights (beta 0.9999) in the last fifth of the epochs, in
    which a batch is averaged over the weights of its rows, as in the release.

    Raises: InputError if scale is not positive or max_margin is negative.
    """
    check_positive("scale", scale)
    check_inside("max_margin", max_margin, 0, float("inf"), "LDAM uses 0.5")
    return _softmax(partial(_ldam, max_margin=max_margin, scale=scale, drw=drw))


def _ldam(counts: ClassCounts, *, max_margin: float, scale: float, drw: bool) -> SoftmaxTerms:
    raw = counts.clamped.pow(-0.25)
    margin = scale * max_margin * raw / raw.max()
    if not drw:
        return SoftmaxTerms(margin=margin)
    later, ones = class_balanced_weights(counts), torch.ones_like(raw)
    return SoftmaxTerms(margin=margin, weight=ones, later=later, weighted_mean=ones.new_ones(()))


SHAPES: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "concave": lambda u: torch.sin(torch.pi * u / 2),
        "linear": lambda u: u,
        "convex": lambda u: 1 + torch.sin(1.5 * torch.pi + torch.pi * u / 2),
    }
)


def label_aware_smoothing(
    *,
    smooth_head: float = 0.4,
    smooth_tail: float = 0.1,
    shape: Literal["concave", "linear", "convex"] = "concave",
    variant: Literal["released", "paper"] = "released",
) -> Loss:
    """Label-aware smoothing (Zhong et al., MiSLAS, CVPR 2021): smoothing eps_k grows with the size of the true class.

    eps_k = tail + (head - tail) g((n_k - n_min) / (n_max - n_min)), g = 1 where all counts are equal. `released`
    spreads eps over all classes, so the true one also receives eps / C; `paper` spreads it over the C - 1 others.

    Raises: InputError for a smoothing outside [0, 1) or an unknown shape or variant.
    """
    for name, value in (("smooth_head", smooth_head), ("smooth_tail", smooth_tail)):
        check_inside(name, value, 0, 1, "the release uses 0 to 0.4")
    check_one_of("shape", shape, SHAPES)
    check_one_of("variant", variant, ("released", "paper"))
    return _softmax(partial(_las, head=smooth_head, tail=smooth_tail, shape=shape, among_all=variant == "released"))


def _las(counts: ClassCounts, *, head: float, tail: float, shape: str, among_all: bool) -> SoftmaxTerms:
    n = counts.clamped
    width = n.max() - n.min()
    u = (n - n.min()) / width if width > 0 else torch.ones_like(n)
    eps = tail + (head - tail) * SHAPES[shape](u)
    return SoftmaxTerms(spread=eps / (len(n) if among_all else len(n) - 1))
