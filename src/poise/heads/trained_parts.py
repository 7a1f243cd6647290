"""Which part of a head is trained.

The solver holds a head as one matrix of *rows* (..., C, D + 1), weight and bias side by side, so that a bias costs no
separate pass. A `Part` splits rows into trained leaves and a frozen rest, joins them again, and pulls the gradient with
respect to the rows back to the leaves. Weight decay and momentum act on the leaves.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Leaves = tuple[Tensor, ...]


class Part(NamedTuple):
    """Three pure functions and two remarks.

    `split(rows, scale)` -> (leaves, frozen), `join(leaves, frozen)` -> rows, and `pull(gradient of the rows, leaves,
    frozen)` -> gradients of the leaves. `scale` (...,) is the starting scale of cosine logits, one per head; other
    parts ignore it. `unit_features` says that the logits are cosines: the features are divided by their norm as well.
    `whole` says that the leaf is the rows themselves, the only part that a projection may act on.
    """

    split: Callable[[Tensor, Tensor], tuple[Leaves, Leaves]]
    join: Callable[[Leaves, Leaves], Tensor]
    pull: Callable[[Tensor, Leaves, Leaves], Leaves]
    unit_features: bool = False
    whole: bool = False


def _split_full(rows: Tensor, scale: Tensor) -> tuple[Leaves, Leaves]:
    return (rows,), ()


def _join_full(leaves: Leaves, frozen: Leaves) -> Tensor:
    return leaves[0]


def _pull_full(slope: Tensor, leaves: Leaves, frozen: Leaves) -> Leaves:
    return (slope,)


full = Part(_split_full, _join_full, _pull_full, whole=True)
"""Weight and bias."""


def _split_scale(rows: Tensor, scale: Tensor) -> tuple[Leaves, Leaves]:
    return (torch.ones_like(rows[..., 0]),), (rows,)


def _join_scale(leaves: Leaves, frozen: Leaves) -> Tensor:
    return leaves[0].unsqueeze(-1) * frozen[0]


def _pull_scale(slope: Tensor, leaves: Leaves, frozen: Leaves) -> Leaves:
    return ((slope * frozen[0]).sum(dim=-1),)


scale_only = Part(_split_scale, _join_scale, _pull_scale)
"""One factor s_k per class on the whole logit, bias included; 1 at the start (LWS, Kang et al., released code)."""


def _split_scale_rows(rows: Tensor, scale: Tensor) -> tuple[Leaves, Leaves]:
    return (torch.ones_like(rows[..., 0]), rows), ()


def _join_scale_rows(leaves: Leaves, frozen: Leaves) -> Tensor:
    return leaves[0].unsqueeze(-1) * leaves[1]


def _pull_scale_rows(slope: Tensor, leaves: Leaves, frozen: Leaves) -> Leaves:
    factor, rows = leaves
    return ((slope * rows).sum(dim=-1), slope * factor.unsqueeze(-1))


scale_and_rows = Part(_split_scale_rows, _join_scale_rows, _pull_scale_rows)
"""The factors of `scale_only` and, as a second leaf, weight and bias too (MiSLAS, Zhong et al., released code)."""


def _split_affine(rows: Tensor, scale: Tensor) -> tuple[Leaves, Leaves]:
    ones = torch.ones_like(rows[..., 0])
    return (ones, torch.zeros_like(ones)), (rows, rows[..., :-1].norm(dim=-1))


def _join_affine(leaves: Leaves, frozen: Leaves) -> Tensor:
    (factor, offset), (rows, norms) = leaves, frozen
    joined = factor.unsqueeze(-1) * rows
    joined[..., -1] += offset * norms
    return joined


def _pull_affine(slope: Tensor, leaves: Leaves, frozen: Leaves) -> Leaves:
    rows, norms = frozen
    return ((slope * rows).sum(dim=-1), slope[..., -1] * norms)


affine_only = Part(_split_affine, _join_affine, _pull_affine)
"""z'_k = a_k z_k + b_k |w_k| with the weight frozen; a = 1 and b = 0 at the start (MARC, Wang et al., ACML 2022)."""


def _split_bias(rows: Tensor, scale: Tensor) -> tuple[Leaves, Leaves]:
    return (rows[..., -1].clone(),), (rows,)


def _join_bias(leaves: Leaves, frozen: Leaves) -> Tensor:
    joined = frozen[0].clone()
    joined[..., -1] = leaves[0]
    return joined


def _pull_bias(slope: Tensor, leaves: Leaves, frozen: Leaves) -> Leaves:
    return (slope[..., -1],)


bias_only = Part(_split_bias, _join_bias, _pull_bias)
"""The bias alone."""


def _directions(raw: Tensor) -> tuple[Tensor, Tensor]:
    norms = raw.norm(dim=-1, keepdim=True)
    norms = torch.where(norms > 0, norms, 1)  # a zero row has no direction: it stays zero, and its gradient finite
    return raw / norms, norms


def _cosine_rows(raw: Tensor, scale: Tensor) -> Tensor:
    weight = scale[..., None, None] * _directions(raw)[0]
    return torch.cat([weight, torch.zeros_like(weight[..., :1])], dim=-1)


def _pull_direction(slope: Tensor, raw: Tensor, scale: Tensor) -> Tensor:
    unit, norms = _directions(raw)
    along = (slope * unit).sum(dim=-1, keepdim=True)
    return scale[..., None, None] / norms * (slope - unit * along)


def _split_unit(rows: Tensor, scale: Tensor) -> tuple[Leaves, Leaves]:
    return (_directions(rows[..., :-1])[0],), (scale,)


def _join_unit(leaves: Leaves, frozen: Leaves) -> Tensor:
    return _cosine_rows(leaves[0], frozen[0])


def _pull_unit(slope: Tensor, leaves: Leaves, frozen: Leaves) -> Leaves:
    return (_pull_direction(slope[..., :-1], leaves[0], frozen[0]),)


unit_rows = Part(_split_unit, _join_unit, _pull_unit, unit_features=True)
"""Cosine logits s cos(f, w_k) without bias; the scale s is fixed. The leaf starts with unit rows, as LDAM's release."""


def _split_unit_scale(rows: Tensor, scale: Tensor) -> tuple[Leaves, Leaves]:
    return (_directions(rows[..., :-1])[0], scale.clone()), ()


def _join_unit_scale(leaves: Leaves, frozen: Leaves) -> Tensor:
    return _cosine_rows(*leaves)


def _pull_unit_scale(slope: Tensor, leaves: Leaves, frozen: Leaves) -> Leaves:
    raw, scale = leaves
    weight = slope[..., :-1]
    return (_pull_direction(weight, raw, scale), (weight * _directions(raw)[0]).sum(dim=(-2, -1)))


unit_rows_and_scale = Part(_split_unit_scale, _join_unit_scale, _pull_unit_scale, unit_features=True)
"""Cosine logits whose scale is trained too."""
