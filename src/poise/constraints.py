"""Projections of a head onto a set of allowed weights.

A `Projection` is data: how the radius of each head is found, which set it bounds, and how often the solver projects.
Biases are never touched.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from poise.errors import InputError
from poise.values.checks import check_inside, check_one_of, check_positive
from poise.values.head import Head

__all__ = ["Every", "Projection", "free", "max_norm", "project_max_norm", "project_unit_norm", "unit_norm"]

Every = Literal["step", "epoch", "never"]


class Projection(NamedTuple):
    """`radius(stage-1 head)` -> number; `apply(weight (..., C, D), radius)` -> weight; `every` step, epoch or never.

    `needs_head` says that the radius is found from the stage-1 head.
    """

    radius: Callable[[Head | None], float]
    apply: Callable[[Tensor, Tensor | float], Tensor]
    every: Every = "step"
    needs_head: bool = False


def project_max_norm(head: Head, radius: Tensor | float) -> Head:
    """The nearest head whose weight rows have norm at most `radius` (a number, or one per head (...,)).

    Rows inside are unchanged bit for bit. MaxNorm of Alshammari et al., CVPR 2022.
    """
    return replace(head, weight=_at_most(head.weight, radius))


def project_unit_norm(head: Head, radius: Tensor | float = 1.0) -> Head:
    """The nearest head whose weight rows have norm exactly `radius`; a zero row stays zero."""
    return replace(head, weight=_exactly(head.weight, radius))


def _at_most(weight: Tensor, radius: Tensor | float) -> Tensor:
    norms = weight.norm(dim=-1, keepdim=True)
    limit = _column(radius, norms)
    return weight * torch.where(norms > limit, limit / norms, 1)


def _exactly(weight: Tensor, radius: Tensor | float) -> Tensor:
    norms = weight.norm(dim=-1, keepdim=True)
    return weight * (_column(radius, norms) / torch.where(norms > 0, norms, 1))


def free() -> Projection:
    """No constraint."""
    return Projection(partial(_given, value=float("inf")), _at_most, "never")


def max_norm(*, radius: float | None = None, threshold: float | None = None, every: Every = "step") -> Projection:
    """Row norms at most `radius`; without one, m + threshold (M - m) of the stage-1 row norms' minimum m and maximum M.

    The default threshold is 0.1, the released one.

    Alshammari et al. (CVPR 2022): the paper projects after every step, the released code once per epoch.

    Raises: InputError for a radius that is not positive, a negative threshold, both at once, or an unknown `every`.
    """
    check_one_of("every", every, ("step", "epoch", "never"))
    if radius is None:
        share = 0.1 if threshold is None else threshold
        check_inside("threshold", share, 0, float("inf"), "the release uses 0.1")
        return Projection(partial(_between_norms, threshold=share), _at_most, every, needs_head=True)
    if threshold is not None:
        raise InputError(f"give a radius or a threshold, not both; got {radius} and {threshold}")
    if radius != float("inf"):
        check_positive("radius", radius)
    return Projection(partial(_given, value=radius), _at_most, every)


def unit_norm(*, every: Every = "step") -> Projection:
    """Row norms exactly 1."""
    return Projection(partial(_given, value=1.0), _exactly, every)


def _given(head: Head | None, *, value: float) -> float:
    return value


def _between_norms(head: Head | None, *, threshold: float) -> float:
    if head is None:
        raise InputError("a radius between the stage-1 norms needs a stage-1 head; give one, or a radius")
    norms = head.weight.norm(dim=-1)
    return float(norms.min() + threshold * (norms.max() - norms.min()))


def _column(radius: Tensor | float, like: Tensor) -> Tensor:
    given = torch.as_tensor(radius, dtype=like.dtype, device=like.device)
    return given if given.ndim == 0 else given[..., None, None]
