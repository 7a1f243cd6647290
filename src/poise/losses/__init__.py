"""Losses as values: per-example, prior-aware and stateful, each with its gradient in closed form.

A `Loss` is a pair of pure functions. `init(counts)` makes the state, a tuple of tensors that holds every number of the
loss; `apply(logits (..., B, C), y (B,), state)` returns one loss per example (..., B) and the next state. Nothing is
averaged here, but a loss may say what each row counts in the average (`Loss.mass`). States of several heads stack
along a leading dimension, so losses that share `apply` are one *family* and are computed for all heads in one call.

Nearly every loss of the field is one expression, softmax cross-entropy of

    z'_k = scale_k z_k + shift_k - margin_k [k = y]

against a softened target, times a weight per class. Its gradient is `weight_y scale_k (softmax(z')_k - target_k)`.
Focal loss multiplies that row by a number; binary cross-entropy on the softmax, GALA's gradient statistics and GCL's
noise are the other families.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from poise.errors import InputError
from poise.losses.bce import class_balanced_bce
from poise.losses.class_balanced import class_balanced
from poise.losses.focal import focal
from poise.losses.gala import gala
from poise.losses.gcl import gcl
from poise.losses.softmax import (
    balanced_softmax,
    cross_entropy,
    label_aware_smoothing,
    ldam,
    los,
    prior_weighted,
    vs,
)
from poise.losses.weights import class_balanced_weights
from poise.values.checks import check_one_of
from poise.values.counts import ClassCounts
from poise.values.loss import Loss, bind, draws, gradient, mass_of, stack_states, stateless

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
    "draws",
    "focal",
    "gala",
    "gcl",
    "gradient",
    "label_aware_smoothing",
    "ldam",
    "los",
    "mass_of",
    "prior_weighted",
    "stack_states",
    "stateless",
    "vs",
]

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


def build(name: str, counts: ClassCounts | Tensor, **params: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The named loss as a function (logits (..., B, C), y (B,)) -> losses (..., B); for any training loop.

    Stateless: deferred re-weighting stays at its first phase. GALA, which is nothing without state, and GCL, which is
    little without noise, are not offered.

    >>> import torch
    >>> cross_entropy = build("cross_entropy", torch.tensor([3, 1]))
    >>> cross_entropy(torch.zeros(1, 2), torch.tensor([0]))
    tensor([0.6931])

    Raises: InputError for a name that is not in `LOSSES`.
    """
    check_one_of("loss", name, LOSSES)
    try:
        loss = LOSSES[name](**params)
    except TypeError as error:
        raise InputError(f"loss {name!r}: {error}") from error
    return bind(loss, counts)
