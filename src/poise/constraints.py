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
from poise.types import Head

__all__ = ["Every", "Projection", "free", "max_norm", "project_max_norm", "project_unit_norm", "unit_norm"]

Every = Literal["step", "epoch", "never"]


class Projection(NamedTuple):
    """`radius(stage-1 head)` -> number; `apply(head, radius)` -> head; `every` step, epoch or never.

    `radius` is None where no radius is needed of the stage-1 head.
    """

    radius: Callable[[Head | None], float]
    apply: Callable[[Head, Tensor | float], Head]
    every: Every = "step"
    needs_head: bool = False


def project_max_norm(head: Head, radius: Tensor | float) -> Head:
    """The nearest head whose weight rows have norm at most `radius` (a number, or one per head (...,)).

    Rows inside are unchanged bit for bit. MaxNorm of Alshammari et al., CVPR 2022.
    """
    norms = head.weight.norm(dim=-1, keepdim=True)
    limit = _column(radius, norms)
    return replace(head, weight=torch.where(norms > limit, head.weight * (limit / norms), head.weight))


def project_unit_norm(head: Head, radius: Tensor | float = 1.0) -> Head:
    """The nearest head whose weight rows have norm exactly `radius`; a zero row stays zero."""
    norms = head.weight.norm(dim=-1, keepdim=True)
    return replace(head, weight=head.weight * (_column(radius, norms) / torch.where(norms > 0, norms, 1)))


def free() -> Projection:
    """No constraint."""
    return Projection(partial(_given, value=float("inf")), project_max_norm, "never")


def max_norm(*, radius: float | None = None, threshold: float = 0.1, every: Every = "step") -> Projection:
    """Row norms at most `radius`; without one, m + threshold (M - m) of the stage-1 row norms' minimum m and maximum M.

    Alshammari et al. (CVPR 2022): the paper projects after every step, the released code once per epoch.

    Raises: InputError for a radius that is not positive, a negative threshold or an unknown `every`.
    """
    if every not in ("step", "epoch", "never"):
        raise InputError(f"every must be step, epoch or never; got {every!r}")
    if radius is None:
        if threshold < 0:
            raise InputError(f"threshold must be 0 or more, got {threshold}")
        return Projection(partial(_between_norms, threshold=threshold), project_max_norm, every, needs_head=True)
    if not radius > 0:
        raise InputError(f"radius must be positive, got {radius}")
    return Projection(partial(_given, value=radius), project_max_norm, every)


def unit_norm(*, every: Every = "step") -> Projection:
    """Row norms exactly 1."""
    return Projection(partial(_given, value=1.0), project_unit_norm, every)


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
