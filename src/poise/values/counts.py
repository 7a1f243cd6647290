"""Labels, and `ClassCounts`: training rows per class, from which priors and groups follow."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poise.errors import InputError, reason_of

LARGEST = 2**53  # rows in all, so that a count is exact in floating point too


def as_labels(labels: Any, num_classes: int | None) -> Tensor:
    """Labels as (N,) int64. Raises: InputError naming the first row that is no class index."""
    try:
        y = labels if isinstance(labels, Tensor) else torch.tensor(np.array(labels))
    except (TypeError, ValueError):
        raise InputError("labels are integers 0, 1, ...; encode names with sklearn's LabelEncoder first") from None
    if y.ndim != 1:
        raise InputError(f"labels are one integer per row, got shape {tuple(y.shape)}")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise InputError(f"labels are integers 0, 1, ..., got {y.dtype}; convert whole numbers with .long()")
    bad = (y < 0) if num_classes is None else (y < 0) | (y >= num_classes)
    if bad.any():
        row = int(bad.nonzero()[0])
        most = "" if num_classes is None else f" and below {num_classes}, the number of classes"
        raise InputError(f"row {row} has label {int(y[row])}; labels are 0 or more{most}")
    return y.to(torch.int64)


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """Training rows per class: `n` (C,) int64. Zero is allowed and is clamped to 1 in formulas.

    `mass` (C,) float64 is what the rows of each class weigh together, where rows have weights: formulas take it in the
    place of `n`, so that a class of 6 rows which weigh 0.01 each has the share of 0.06 rows and not of one.

    Raises: InputError for fewer than two classes, a negative count, a count that is no integer, no row at all, or
    masses that are not one per class, finite, and 0 or more.
    """

    n: Tensor
    mass: Tensor | None = None

    def __post_init__(self) -> None:
        given = _numbers(self.n)
        n = given.to(torch.int64)
        if n.ndim != 1 or len(n) < 2:
            raise InputError(
                f"class counts need one number per class for at least 2 classes, got shape {tuple(n.shape)}"
            )
        if given.is_floating_point() and not torch.equal(n.to(given.dtype), given):
            raise InputError("class counts are whole numbers of training rows; got fractions")
        if (n < 0).any():
            k = int((n < 0).nonzero()[0])
            raise InputError(f"class {k} has the count {int(n[k])}; counts are 0 or more")
        if float(n.double().sum()) > LARGEST:
            raise InputError(f"class counts add up to {float(n.double().sum()):.3g}; they are at most 2^53 together")
        if int(n.sum()) == 0:
            raise InputError("all class counts are 0; give the counts of the training split")
        object.__setattr__(self, "n", n)
        if self.mass is not None:
            mass = torch.as_tensor(self.mass).double()
            if mass.shape != n.shape or not bool((torch.isfinite(mass) & (mass >= 0)).all()):
                raise InputError("masses of classes need one finite number per class, 0 or more")
            object.__setattr__(self, "mass", mass)

    @classmethod
    def from_labels(
        cls, y: Tensor | Sequence[int], num_classes: int | None = None, weight: Tensor | None = None
    ) -> "ClassCounts":
        """Count integer labels `y` (N,); `num_classes` keeps trailing classes that have no row.

        With row weights (N,), `mass` are their sums, and `n` these sums as whole numbers, at least 1 for a class that
        has a row of positive weight.
        """
        labels = as_labels(y, num_classes)
        if weight is None:
            return cls(torch.bincount(labels, minlength=num_classes or 0))
        mass = torch.bincount(labels, weights=weight.to(labels.device).double(), minlength=num_classes or 0)
        return cls(torch.maximum(mass.round().long(), (mass > 0).long()), mass)

    def __len__(self) -> int:
        return len(self.n)

    @cached_property
    def clamped(self) -> Tensor:
        """(C,) float64 counts for formulas: those of rows, or, where rows have weights, of their mass; 1 for none."""
        if self.mass is None:
            return self.n.clamp_min(1).double()
        return torch.where(self.mass > 0, self.mass, 1.0)

    @cached_property
    def prior(self) -> Tensor:
        """(C,) float64 class frequencies n_k / N of the clamped counts; they sum to 1."""
        return self.clamped / self.clamped.sum()

    @property
    def imbalance(self) -> float:
        """Largest count divided by the smallest (clamped) one."""
        return float(self.clamped.max() / self.clamped.min())

    def shots(self, many: int = 100, few: int = 20) -> dict[str, Tensor]:
        """Boolean masks (C,) of the groups: many n > `many`, medium `few` <= n <= `many`, few n < `few`."""
        if few > many + 1:
            raise InputError(f"group edges must satisfy few <= many + 1, got many={many}, few={few}")
        above, below = self.n > many, self.n < few
        return {"many": above, "medium": ~above & ~below, "few": below}


def as_counts(counts: ClassCounts | Tensor | Sequence[int]) -> ClassCounts:
    """`counts` itself, or the ClassCounts of a (C,) integer array."""
    return counts if isinstance(counts, ClassCounts) else ClassCounts(_numbers(counts))


def _numbers(counts: Any) -> Tensor:
    """Raises: InputError for what is no array of real numbers, or holds one that has no int64."""
    try:
        numbers = torch.as_tensor(counts)
        numbers = numbers.double() if numbers.dtype == torch.uint64 else numbers
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"class counts must be whole numbers, at most 2^53 together: {reason_of(error)}") from None
    if numbers.is_complex() or (numbers.is_floating_point() and bool((numbers.abs() > LARGEST).any())):
        raise InputError("class counts must be whole numbers, at most 2^53 together")
    return numbers
