"""Gradient-aware logit adjustment: the loss with a memory."""

from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from poise.losses.softmax import SoftmaxTerms, softmax_gradient, softmax_losses
from poise.values.checks import check_number, check_one_of
from poise.values.counts import ClassCounts
from poise.values.loss import Loss, true_of

GRADIENT_FLOOR = 1e-3  # added to the accumulated gradients inside the logarithm, as released


class GalaState(NamedTuple):
    """`theta` (..., C) enters the loss; `total` (..., C) is the running sum; the numbers (...,) are parameters.

    theta' = twice * theta + total', so `twice` = 1 sums the running sum again and `twice` = 0 takes it as it is.
    """

    theta: Tensor
    total: Tensor
    shift: Tensor
    margin: Tensor
    twice: Tensor


class WeighedState(NamedTuple):
    """The state for one batch whose rows have weights, and the share (B,) that each row is of the batch."""

    state: GalaState
    shares: Tensor


def _gala_terms(state: GalaState) -> SoftmaxTerms:
    log_theta = (state.theta + GRADIENT_FLOOR).log()
    return SoftmaxTerms(shift=state.shift.unsqueeze(-1) * log_theta, margin=state.margin.unsqueeze(-1) * log_theta)


def _shared(state: GalaState | WeighedState, y: Tensor) -> tuple[GalaState, Tensor | float]:
    """The state, and of how many rows like it each row would make the batch."""
    return (state.state, 1 / state.shares) if isinstance(state, WeighedState) else (state, len(y))


def _gala_after(state: GalaState, wrong: Tensor, y: Tensor) -> GalaState:
    """The state after a batch whose probabilities of not-the-label, divided by the rows, are `wrong` (..., B)."""
    total = state.total.expand(*wrong.shape[:-1], -1).index_add(-1, y, wrong)
    return state._replace(theta=state.twice.unsqueeze(-1) * state.theta + total, total=total)


def gala_losses(logits: Tensor, y: Tensor, state: GalaState | WeighedState) -> tuple[Tensor, GalaState]:
    """(..., B) losses with the statistics of earlier batches; the next state includes this batch."""
    before, rows = _shared(state, y)
    losses, _ = softmax_losses(logits, y, _gala_terms(before))
    return losses, _gala_after(before, -torch.expm1(-losses.detach()) / rows, y)


def gala_gradient(logits: Tensor, y: Tensor, state: GalaState | WeighedState) -> tuple[Tensor, GalaState]:
    """(..., B, C) gradient p - onehot of the adjusted logits, written over the logits."""
    before, rows = _shared(state, y)
    slope, _ = softmax_gradient(logits, y, _gala_terms(before))
    return slope, _gala_after(before, -slope.gather(-1, true_of(y, slope)).squeeze(-1) / rows, y)


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
    check_number("lambda_pos", lambda_pos)
    check_number("lambda_neg", lambda_neg)
    check_one_of("variant", variant, ("released", "paper"))
    check_one_of("accumulate", accumulate, ("cumsum", "sum"))
    margin = lambda_pos - lambda_neg if variant == "paper" else 0.0
    first = partial(_gala, shift=lambda_pos, margin=margin, twice=float(accumulate == "cumsum"))
    return Loss(first, gala_losses, gala_gradient, weigh=WeighedState)


def _gala(counts: ClassCounts, *, shift: float, margin: float, twice: float) -> GalaState:
    zeros = torch.zeros_like(counts.clamped)
    return GalaState(zeros, zeros, *(torch.tensor(v, dtype=torch.float64) for v in (shift, margin, twice)))
