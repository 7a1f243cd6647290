"""From logits to answers: least expected cost, then abstention, then sets of classes.

Posteriors are softmax values of the logits as they are. They mean what they say for the class prior that the head
is meant for, and as far as it is calibrated.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from poise.decisions.operating_point import OperatingPoint, PerClass
from poise.errors import InputError

ABSTAIN = -1


# --- deciding --------------------------------------------------------------------------------------------------------


class Decisions(NamedTuple):
    """`label` (N,) int64, -1 where no answer is given; `confidence` (N,) float64; `sets` (N, C) bool or None.

    The confidence is the posterior of the class that is or would have been answered.
    """

    label: Tensor
    confidence: Tensor
    sets: Tensor | None


def decide(logits: Tensor, point: OperatingPoint) -> Decisions:
    """The decisions for logits (N, C): least expected cost, then abstention, then sets. Rows do not affect each other.

    The top k contain the answer. A conformal set depends on posteriors alone: it may lack the answer, and be empty.

    Raises: InputError if logits are not (N, C) and finite, or not of as many classes as the operating point.
    """
    check_logits(logits)
    classes = logits.shape[1]
    if point.classes not in (None, classes):
        raise InputError(f"the operating point is for {point.classes} classes, the logits have {classes}")
    if point.top_k is not None and point.top_k > classes:
        raise InputError(f"top_k must be at most {classes}, the number of classes, got {point.top_k}")
    utility, label, confidence = best_answers(logits, point)
    kept = torch.ones_like(label, dtype=torch.bool)
    if point.abstain is not None:
        kept &= confidence >= point.abstain
    if point.thresholds is not None:
        kept &= confidence >= _with_infinity(point.thresholds).to(logits.device)[label]
    return Decisions(torch.where(kept, label, ABSTAIN), confidence, _sets(logits, utility, point))


def best_answers(logits: Tensor, point: OperatingPoint) -> tuple[Tensor, Tensor, Tensor]:
    """What is maximised (N, C), where it is largest (N,), and the posterior there (N,)."""
    log_p = logits.double().log_softmax(dim=-1)
    utility = logits.double()
    if point.shift is not None:
        utility = utility + point.shift.to(logits.device)
    elif point.costs is not None:
        utility = -(log_p.exp() @ torch.tensor(point.costs, dtype=torch.float64, device=logits.device))
    label = utility.argmax(dim=-1)
    return utility, label, log_p.gather(1, label.unsqueeze(1)).squeeze(1).exp()


def _sets(logits: Tensor, utility: Tensor, point: OperatingPoint) -> Tensor | None:
    if point.conformal is not None:
        return prediction_sets(logits, _with_infinity(point.conformal))
    if point.top_k is None:
        return None
    # A stable order gives ties to the lower class, as argmax does, so that the answer is among the top k.
    best = utility.argsort(dim=-1, descending=True, stable=True)[:, : point.top_k]
    return torch.zeros_like(utility, dtype=torch.bool).scatter(1, best, True)


def _with_infinity(values: PerClass) -> Tensor:
    """(C,) float64, infinity where the value is None."""
    return torch.tensor([math.inf if value is None else value for value in values], dtype=torch.float64)


def check_logits(logits: Tensor) -> None:
    """Raises: InputError unless they are finite floating-point numbers (N, C)."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or not logits.is_floating_point():
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"logits must be a floating-point tensor (N, C), got {shape}")
    bad = ~torch.isfinite(logits).all(dim=-1)
    if bad.any():
        raise InputError(f"row {int(bad.nonzero()[0])} of the logits is not finite")


def prediction_sets(logits: Tensor, quantiles: Tensor) -> Tensor:
    """(N, C) bool: the classes whose score -log posterior is at most their quantile (C,). A set may be empty.

    Raises: InputError if shapes disagree or logits are not finite.
    """
    check_logits(logits)
    if quantiles.shape != (logits.shape[1],):
        raise InputError(f"quantiles must be ({logits.shape[1]},) to fit the logits, got {tuple(quantiles.shape)}")
    return -logits.double().log_softmax(dim=-1) <= quantiles.to(logits.device)
