"""What people give, as tensors that are fit to compute with: values, weights of rows."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poise.errors import InputError

READ_NUMBERS = 2**24  # of features that are looked at at a time


def as_values(what: str, values: Any, *, finite: bool = True) -> Tensor:
    """`values` as a floating-point tensor without gradient; an array or list is copied, so that no one can change it.

    Raises: InputError if they are no numbers, not of a floating-point type, or (with `finite`) NaN or infinite.
    """
    try:
        tensor = values.detach() if isinstance(values, Tensor) else torch.tensor(np.array(values))
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} must be numbers: {error}") from None
    if not tensor.is_floating_point():
        raise InputError(f"{what} must be of a floating-point type, got {tensor.dtype}; convert with .float()")
    if finite and not torch.isfinite(tensor).all():
        raise InputError(f"{what} holds NaN or infinity")
    return tensor


def as_weights(weights: Any, rows: int) -> Tensor:
    """Row weights as (N,) float64. Raises: InputError unless they are finite, 0 or more, not all 0, one per row."""
    try:
        weight = torch.as_tensor(weights if isinstance(weights, Tensor) else np.array(weights)).detach().double()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"row weights must be numbers: {error}") from None
    if weight.shape != (rows,):
        raise InputError(f"row weights need one number per row, got shape {tuple(weight.shape)} for {rows} rows")
    bad = ~torch.isfinite(weight) | (weight < 0)
    if bad.any():
        row = int(bad.nonzero()[0])
        raise InputError(f"row {row} has the weight {float(weight[row])}; weights are finite and 0 or more")
    if not weight.any():
        raise InputError("all row weights are 0, which leaves no row; give at least one a positive weight")
    return weight


def classes_in(y: Tensor) -> int:
    """How many classes have rows among the labels y (N,)."""
    return int((torch.bincount(y) > 0).sum())


def row_slices(start: int, stop: int, size: int) -> Iterator[slice]:
    """Neighbouring slices from `start` to before `stop`: of `size` rows, at least 1, the last of no more."""
    for first in range(start, stop, max(1, size)):
        yield slice(first, min(first + max(1, size), stop))


def row_blocks(view: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Some rows of a view (N, D) after the other, each with the number of the first: for rows that fill the memory."""
    for part in row_slices(0, len(view), READ_NUMBERS // view.shape[-1]):
        yield part.start, view[part]
