"""Losses as values: per-example, prior-aware and stateful, each with its gradient in closed form.

A `Loss` is a pair of pure functions. `init(counts)` makes the state, a tuple of tensors that holds every number of the
loss; `apply(logits (..., B, C), y (B,), state)` returns one loss per example (..., B) and the next state. Nothing is
averaged here. States of several heads stack along a leading dimension, so losses that share `apply` are one *family*
and are computed for all heads in one call.

Nearly every loss of the field is one expression, softmax cross-entropy of

    z'_k = scale_k z_k + shift_k - margin_k [k = y]

against a softened target, times a weight per class. Its gradient is `weight_y scale_k (softmax(z')_k - target_k)`.
Focal loss multiplies that row by a number; binary cross-entropy on the softmax and GALA's gradient statistics are the
two other families.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from poise.errors import InputError
from poise.types import ClassCounts, as_counts

__all__ = [
    "LOSSES",
    "Loss",
    "balanced_softmax",
    "bind",
    "build",
    "class_balanced",
    "class_balanced_bce",
    "class_balanced_weights",
    "cross_entropy",
    "focal",
    "gala",
    "gradient",
    "label_aware_smoothing",
    "ldam",
    "los",
    "prior_weighted",
    "stack_states",
    "stateless",
    "vs",
]

State = tuple[Tensor | None, ...]
Step = Callable[[Tensor, Tensor, Any], tuple[Tensor, Any]]

DEFERRED_FROM = 0.8  # share of the epochs before deferred re-weighting: 160 of 200 in LDAM's release
GRADIENT_FLOOR = 1e-3  # added to GALA's accumulated gradients inside the logarithm, as released


class Loss(NamedTuple):
    """A loss. `grad` has the signature of `apply` and returns d loss / d logits; without it autograd is used."""

    init: Callable[[ClassCounts], Any]
    apply: Step
    grad: Step | None = None
    epoch: Callable[[Any, int, int], Any] | None = None  # (state, epoch from 0, epochs) -> state of that epoch


def gradient(loss: Loss, logits: Tensor, y: Tensor, state: Any) -> tuple[Tensor, Any]:
    """D loss_b / d logits_b (..., B, C) and the next state: in closed form if the loss has one, else by autograd."""
    if loss.grad is not None:
        return loss.grad(logits, y, state)
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        losses, after = loss.apply(leaf, y, state)
        (slope,) = torch.autograd.grad(losses.sum(), leaf)
    return slope, after


def stack_states(states: Sequence[Any], like: Tensor) -> Any:
    """States of one family as one, every term stacked along a new leading dimension, in the dtype of `like`."""
    columns = zip(*states, strict=True)
    return _with_terms(states[0], [None if terms[0] is None else torch.stack(terms).to(like) for terms in columns])


def _with_terms(state: Any, terms: list[Tensor | None]) -> Any:
    # A named tuple is rebuilt with its names; a plain tuple, which a loss from outside may use, as it is.
    return state._make(terms) if hasattr(state, "_make") else tuple(terms)


def stateless(function: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """Lift a plain function (logits (..., B, C), y (B,)) -> losses (..., B) into a Loss."""
    return Loss(partial(_no_state), partial(_apply_stateless, function))


def _no_state(counts: ClassCounts) -> tuple[()]:
    return ()


def _apply_stateless(function: Callable[[Tensor, Tensor], Tensor], logits: Tensor, y: Tensor, state: Any) -> Any:
    return function(logits, y), state


# --- the softmax family ----------------------------------------------------------------------------------------------


class SoftmaxTerms(NamedTuple):
    """Terms of the expression above, each (..., C) or None where neutral.

    `spread[y]` is the target mass that each class other than y receives; the true class keeps 1 - (C - 1) spread[y].
    `later` replaces `weight` in the last fifth of the epochs (deferred re-weighting).
    """

    scale: Tensor | None = None
    shift: Tensor | None = None
    margin: Tensor | None = None
    spread: Tensor | None = None
    weight: Tensor | None = None
    later: Tensor | None = None


def _rows(y: Tensor) -> tuple[Any, ...]:
    """Index that picks, in (..., B, C), the entry of the true class of every row."""
    return (..., torch.arange(len(y), device=y.device), y)


def _adjusted(logits: Tensor, y: Tensor, terms: SoftmaxTerms) -> Tensor:
    z = logits if terms.scale is None else logits * terms.scale.unsqueeze(-2)
    z = z if terms.shift is None else z + terms.shift.unsqueeze(-2)
    if terms.margin is None:
        return z
    z = z.clone() if z is logits else z
    z[_rows(y)] -= terms.margin[..., y]
    return z


def softmax_losses(logits: Tensor, y: Tensor, terms: SoftmaxTerms) -> tuple[Tensor, SoftmaxTerms]:
    """(..., B) losses of the softmax family."""
    log_p = _adjusted(logits, y, terms).log_softmax(dim=-1)
    loss = -log_p[_rows(y)]
    if terms.spread is not None:
        spread = terms.spread[..., y]
        loss = (1 - logits.shape[-1] * spread) * loss - spread * log_p.sum(dim=-1)
    return (loss if terms.weight is None else terms.weight[..., y] * loss), terms


def softmax_gradient(logits: Tensor, y: Tensor, terms: SoftmaxTerms) -> tuple[Tensor, SoftmaxTerms]:
    """(..., B, C) gradient of the softmax family: weight_y scale_k (p_k - target_k)."""
    slope = _adjusted(logits, y, terms).softmax(dim=-1)
    if terms.spread is None:
        slope[_rows(y)] -= 1
    else:
        spread = terms.spread[..., y]
        slope -= spread.unsqueeze(-1)
        slope[_rows(y)] -= 1 - logits.shape[-1] * spread
    if terms.weight is not None:
        slope *= terms.weight[..., y].unsqueeze(-1)
    if terms.scale is not None:
        slope *= terms.scale.unsqueeze(-2)
    return slope, terms


def _deferred(terms: SoftmaxTerms, epoch: int, epochs: int) -> SoftmaxTerms:
    due = terms.later is not None and epoch >= DEFERRED_FROM * epochs
    return terms._replace(weight=terms.later) if due else terms


def _softmax(init: Callable[[ClassCounts], SoftmaxTerms]) -> Loss:
    return Loss(init, softmax_losses, softmax_gradient, _deferred)


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
    _inside("delta", delta, 0, 1, "LOS uses values near 0.98")
    return _softmax(partial(_los, delta=delta))


def _los(counts: ClassCounts, *, delta: float) -> SoftmaxTerms:
    return SoftmaxTerms(spread=torch.full_like(counts.prior, delta / len(counts)))


def balanced_softmax(*, tau: float = 1.0) -> Loss:
    """Cross-entropy of z + tau log prior (Ren et al., NeurIPS 2020; Menon et al., ICLR 2021). Predict with plain z."""
    return _softmax(partial(_vs, tau=tau, gamma=0.0))


def vs(*, tau: float = 1.0, gamma: float = 0.3) -> Loss:
    """Vector scaling (Kini et al., NeurIPS 2021): cross-entropy of z_k / d_k + tau log prior_k.

    d_k = (n_max / n_k)^gamma. gamma = 0 is balanced softmax; tau = 0 is CDT (Ye et al., 2020). Predict with plain z.
    """
    return _softmax(partial(_vs, tau=tau, gamma=gamma))


def _vs(counts: ClassCounts, *, tau: float, gamma: float) -> SoftmaxTerms:
    n = counts.clamped
    scale = (n / n.max()).pow(gamma) if gamma else None
    return SoftmaxTerms(scale=scale, shift=tau * counts.prior.log() if tau else None)


def class_balanced_weights(counts: ClassCounts | Tensor, beta: float = 0.9999) -> Tensor:
    """(C,) float64 weights (1 - beta) / (1 - beta^n_k), normalised to sum to C (Cui et al., CVPR 2019).

    Raises: InputError if beta is outside [0, 1).
    """
    _inside("beta", beta, 0, 1, "use 0.9 to 0.9999")
    # expm1 keeps the digits of 1 - beta^n where beta^n is close to 1.
    n = as_counts(counts).clamped
    raw = torch.ones_like(n) if beta == 0 else -(1 - beta) / torch.expm1(n * torch.tensor(beta, dtype=n.dtype).log())
    return raw * len(n) / raw.sum()


def class_balanced(*, beta: float = 0.9999, gamma: float = 0.0) -> Loss:
    """Class-balanced cross-entropy (Cui et al., CVPR 2019); with `gamma` above 0, class-balanced focal loss."""
    _inside("beta", beta, 0, 1, "use 0.9 to 0.9999")
    weigh = partial(class_balanced_weights, beta=beta)
    return focal(gamma=gamma, weigh=weigh) if gamma else _softmax(partial(_weighted, weigh=weigh))


def prior_weighted(*, rho: float = 1.0) -> Loss:
    """Cross-entropy weighted by prior_k^-rho, normalised to sum to C (the re-weighting of MARC and DisAlign)."""
    return _softmax(partial(_weighted, weigh=partial(_prior_power, rho=rho)))


def _prior_power(counts: ClassCounts, *, rho: float) -> Tensor:
    raw = counts.prior.pow(-rho)
    return raw * len(raw) / raw.sum()


def _weighted(counts: ClassCounts, *, weigh: Callable[[ClassCounts], Tensor]) -> SoftmaxTerms:
    return SoftmaxTerms(weight=weigh(counts))


def ldam(*, max_margin: float = 0.5, scale: float = 30.0, drw: bool = False) -> Loss:
    """LDAM (Cao et al., NeurIPS 2019): cross-entropy of s (c - m_y onehot), m_k proportional to n_k^(-1/4).

    The largest margin is `max_margin`. The logits given here are those of the head, s c with the scale included (so the
    margin on them is s m_y). `drw` applies class-balanced weights (beta 0.9999) in the last fifth of the epochs.

    Raises: InputError if scale is not positive or max_margin is negative.
    """
    _positive("scale", scale)
    _inside("max_margin", max_margin, 0, float("inf"), "LDAM uses 0.5")
    return _softmax(partial(_ldam, max_margin=max_margin, scale=scale, drw=drw))


def _ldam(counts: ClassCounts, *, max_margin: float, scale: float, drw: bool) -> SoftmaxTerms:
    raw = counts.clamped.pow(-0.25)
    margin = scale * max_margin * raw / raw.max()
    if not drw:
        return SoftmaxTerms(margin=margin)
    return SoftmaxTerms(margin=margin, weight=torch.ones_like(raw), later=class_balanced_weights(counts))


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
        _inside(name, value, 0, 1, "the release uses 0 to 0.4")
    _one_of("shape", shape, SHAPES)
    _one_of("variant", variant, ("released", "paper"))
    return _softmax(partial(_las, head=smooth_head, tail=smooth_tail, shape=shape, among_all=variant == "released"))


def _las(counts: ClassCounts, *, head: float, tail: float, shape: str, among_all: bool) -> SoftmaxTerms:
    n = counts.clamped
    width = n.max() - n.min()
    u = (n - n.min()) / width if width > 0 else torch.ones_like(n)
    eps = tail + (head - tail) * SHAPES[shape](u)
    return SoftmaxTerms(spread=eps / (len(n) if among_all else len(n) - 1))


# --- focal -----------------------------------------------------------------------------------------------------------


class FocalTerms(NamedTuple):
    """gamma (...,) and an optional weight per class (..., C)."""

    gamma: Tensor
    weight: Tensor | None = None


def _focal_parts(logits: Tensor, y: Tensor, terms: FocalTerms) -> tuple[Tensor, Tensor, Tensor]:
    log_p = logits.log_softmax(dim=-1)
    true = log_p[_rows(y)]
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
    slope[_rows(y)] -= 1
    return slope.mul_(row.unsqueeze(-1)), terms


def focal(*, gamma: float = 2.0, weigh: Callable[[ClassCounts], Tensor] | None = None) -> Loss:
    """Focal loss -(1 - p_y)^gamma log p_y (Lin et al., ICCV 2017), times a weight per class if `weigh` is given.

    Raises: InputError if gamma is negative.
    """
    _inside("gamma", gamma, 0, float("inf"), "focal loss uses 0.5 to 5")
    return Loss(partial(_focal, gamma=gamma, weigh=weigh), focal_losses, focal_gradient)


def _focal(counts: ClassCounts, *, gamma: float, weigh: Callable[[ClassCounts], Tensor] | None) -> FocalTerms:
    return FocalTerms(torch.tensor(gamma, dtype=torch.float64), None if weigh is None else weigh(counts))


# --- binary cross-entropy on the softmax -----------------------------------------------------------------------------


class BceTerms(NamedTuple):
    """Weight per class (..., C)."""

    weight: Tensor


def bce_losses(logits: Tensor, y: Tensor, terms: BceTerms) -> tuple[Tensor, BceTerms]:
    """(..., B) losses -w_y (log p_y + sum_{c != y} log(1 - p_c)) / C."""
    log_p = logits.log_softmax(dim=-1)
    rest = (1 - log_p.exp()).clamp_min(torch.finfo(logits.dtype).eps).log()
    loss = -(log_p[_rows(y)] + rest.sum(dim=-1) - rest[_rows(y)])
    return terms.weight[..., y] * loss / logits.shape[-1], terms


def bce_gradient(logits: Tensor, y: Tensor, terms: BceTerms) -> tuple[Tensor, BceTerms]:
    """(..., B, C): w_y (q - A p + p - onehot) / C with q_c = p_c / (1 - p_c) for c != y, q_y = 0, A = sum q."""
    p = logits.softmax(dim=-1)
    q = p / (1 - p).clamp_min(torch.finfo(logits.dtype).eps)
    q[_rows(y)] = -1  # stands for q_y - onehot_y, so that the row sum is A - 1
    slope = q.addcmul_(p, q.sum(dim=-1, keepdim=True), value=-1)
    return slope.mul_((terms.weight[..., y] / logits.shape[-1]).unsqueeze(-1)), terms


def class_balanced_bce(*, beta: float = 0.9999) -> Loss:
    """Class-balanced binary cross-entropy on softmax probabilities, as weight balancing releases it.

    Averaged over rows and classes there, hence the factor 1 / C (Alshammari et al., CVPR 2022, released code).
    Deviation: 1 - p is clamped at the machine epsilon, where torch clamps the logarithm at -100.
    """
    _inside("beta", beta, 0, 1, "use 0.9 to 0.9999")
    return Loss(partial(_bce, beta=beta), bce_losses, bce_gradient)


def _bce(counts: ClassCounts, *, beta: float) -> BceTerms:
    return BceTerms(class_balanced_weights(counts, beta))


# --- gradient-aware logit adjustment ---------------------------------------------------------------------------------


class GalaState(NamedTuple):
    """`theta` (..., C) enters the loss; `total` (..., C) is the running sum; the numbers (...,) are parameters.

    theta' = twice * theta + total', so `twice` = 1 sums the running sum again and `twice` = 0 takes it as it is.
    """

    theta: Tensor
    total: Tensor
    shift: Tensor
    margin: Tensor
    twice: Tensor


def _gala_terms(state: GalaState) -> SoftmaxTerms:
    log_theta = (state.theta + GRADIENT_FLOOR).log()
    return SoftmaxTerms(shift=state.shift.unsqueeze(-1) * log_theta, margin=state.margin.unsqueeze(-1) * log_theta)


def _gala_after(state: GalaState, wrong: Tensor, y: Tensor) -> GalaState:
    """The state after a batch whose probabilities of not-the-label are `wrong` (..., B)."""
    total = state.total.index_add(-1, y, wrong / len(y))
    return state._replace(theta=state.twice.unsqueeze(-1) * state.theta + total, total=total)


def gala_losses(logits: Tensor, y: Tensor, state: GalaState) -> tuple[Tensor, GalaState]:
    """(..., B) losses with the statistics of earlier batches; the next state includes this batch."""
    losses, _ = softmax_losses(logits, y, _gala_terms(state))
    return losses, _gala_after(state, -torch.expm1(-losses.detach()), y)


def gala_gradient(logits: Tensor, y: Tensor, state: GalaState) -> tuple[Tensor, GalaState]:
    """(..., B, C) gradient p - onehot of the adjusted logits."""
    slope, _ = softmax_gradient(logits, y, _gala_terms(state))
    return slope, _gala_after(state, -slope[_rows(y)], y)


def gala(
    *,
    lambda_pos: float = 1.0,
    lambda_neg: float = 1.0,
    variant: Literal["released", "paper"] = "released",
    accumulate: Literal["cumsum", "sum"] = "cumsum",
) -> Loss:
    """Gradient-aware logit adjustment (ICASSP 2024): a prior made of accumulated gradients.

    theta_j sums |dL/dz_j| over rows of class j, with L the batch mean; phi_k sums it over the rows of class k and all
    other classifiers. The two are one vector, because 1 - p_y = sum_{j != y} p_j. The paper adds
    lambda_pos log theta_j - lambda_neg log phi_y to every logit but the true one; the released code adds it to the true
    one too, where the second term cancels: there `lambda_neg` has no effect. Equal lambdas make both forms agree.

    `cumsum` sums the running sum again at every step, as released; `sum` keeps the running sum. 1e-3 is added inside
    the logarithm, the statistics of a batch act from the next one on, and nothing is differentiated through them.

    Raises: InputError for an unknown variant or accumulation.
    """
    _one_of("variant", variant, ("released", "paper"))
    _one_of("accumulate", accumulate, ("cumsum", "sum"))
    margin = lambda_pos - lambda_neg if variant == "paper" else 0.0
    return Loss(
        partial(_gala, shift=lambda_pos, margin=margin, twice=float(accumulate == "cumsum")), gala_losses, gala_gradient
    )


def _gala(counts: ClassCounts, *, shift: float, margin: float, twice: float) -> GalaState:
    zeros = torch.zeros_like(counts.clamped)
    return GalaState(zeros, zeros, *(torch.tensor(v, dtype=torch.float64) for v in (shift, margin, twice)))


# --- by name ---------------------------------------------------------------------------------------------------------

LOSSES: Mapping[str, Callable[..., Loss]] = MappingProxyType(
    {
        "balanced_softmax": balanced_softmax,
        "class_balanced": class_balanced,
        "class_balanced_bce": class_balanced_bce,
        "cross_entropy": cross_entropy,
        "focal": focal,
        "label_aware_smoothing": label_aware_smoothing,
        "ldam": ldam,
        "los": los,
        "vs": vs,
    }
)


def bind(loss: Loss, counts: ClassCounts | Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss as a function (logits (..., B, C), y (B,)) -> losses (..., B) at its initial state."""
    state = loss.init(as_counts(counts))

    def losses(logits: Tensor, y: Tensor) -> Tensor:
        return loss.apply(logits, y, _with_terms(state, [term if term is None else term.to(logits) for term in state]))[
            0
        ]

    return losses


def build(name: str, counts: ClassCounts | Tensor, **params: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The named loss as a function (logits (..., B, C), y (B,)) -> losses (..., B); for any training loop.

    Stateless: deferred re-weighting stays at its first phase, and GALA, which is nothing without state, is not offered.

    >>> cross_entropy = build("cross_entropy", torch.tensor([3, 1]))
    >>> cross_entropy(torch.zeros(1, 2), torch.tensor([0]))
    tensor([0.6931])

    Raises: InputError for a name that is not in `LOSSES`.
    """
    _one_of("loss", name, LOSSES)
    return bind(LOSSES[name](**params), counts)


def _inside(name: str, value: float, low: float, high: float, hint: str) -> None:
    if not low <= value < high:
        raise InputError(f"{name} must lie in [{low}, {high}), got {value}; {hint}")


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise InputError(f"{name} must be positive, got {value}")


def _one_of(name: str, value: str, allowed: Any) -> None:
    if value not in allowed:
        raise InputError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
