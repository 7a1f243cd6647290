"""Long-tail shapes, the choice of rows, and the splits that papers name.

"CIFAR-100-LT, imbalance 100" is at least four different training sets in the literature: the counts agree, the chosen
images do not. A split here is counts, an order of choice and a hash, so that a number can say which one it means.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from poise.errors import InputError
from poise.values.counts import ClassCounts, as_counts, as_labels

__all__ = ["SPLITS", "Split", "exponential", "pareto", "select", "split_hash", "split_rows", "step"]

Order = Literal["first", "ldam"] | int


def exponential(n_max: int, classes: int, imbalance: float) -> Tensor:
    """(C,) int64 counts int(n_max imbalance^(-c / (C - 1))), as LDAM, weight balancing and LOS build CIFAR-LT.

    >>> exponential(5000, 10, 100).tolist()
    [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]

    Raises: InputError for impossible arguments, or if the last class would be empty.
    """
    _possible(n_max, classes, imbalance)
    ratio = 1 / imbalance
    counts = [int(n_max * ratio ** (c / (classes - 1))) for c in range(classes - 1)]
    # The product n_max * (1 / imbalance) can round to just below a whole number; the quotient cannot.
    return _filled([*counts, int(n_max / imbalance)], n_max, imbalance)


def pareto(n_max: int, classes: int, imbalance: float, power: float = 6.0) -> Tensor:
    """(C,) int64 counts that fall as a Pareto tail from n_max to n_max / imbalance.

    n_c = int(n_max (1 + c / (C - 1) (imbalance^(1 / power) - 1))^-power). Small powers give a steep start and a long
    flat tail; as power grows the shape becomes `exponential`. The published ImageNet-LT counts come from random draws
    and cannot be derived from a formula; they are data.

    Raises: InputError for impossible arguments, or if the last class would be empty.
    """
    _possible(n_max, classes, imbalance)
    if not power >= 0.1:
        raise InputError(f"power must be at least 0.1, got {power}; ImageNet-LT was drawn with 6")
    reach = imbalance ** (1 / power) - 1
    counts = [int(n_max * (1 + c / (classes - 1) * reach) ** -power) for c in range(classes - 1)]
    return _filled([*counts, int(n_max / imbalance)], n_max, imbalance)


def step(n_max: int, classes: int, imbalance: float, head_share: float = 0.5) -> Tensor:
    """(C,) int64 counts n_max for the first int(head_share C) classes, int(n_max / imbalance) for the others.

    Raises: InputError for impossible arguments, or if the rare classes would be empty.
    """
    _possible(n_max, classes, imbalance)
    if not 0 < head_share < 1:
        raise InputError(f"head_share must lie in (0, 1), got {head_share}")
    head = max(1, int(head_share * classes))
    return _filled([n_max] * head + [int(n_max / imbalance)] * (classes - head), n_max, imbalance)


def _possible(n_max: int, classes: int, imbalance: float) -> None:
    if n_max < 1 or classes < 2 or not 1 <= imbalance < math.inf:
        raise InputError(
            f"a profile needs n_max >= 1, classes >= 2 and a finite imbalance >= 1, "
            f"got {n_max}, {classes} and {imbalance}"
        )


def _filled(counts: list[int], n_max: int, imbalance: float) -> Tensor:
    if counts[-1] == 0:
        raise InputError(f"imbalance {imbalance} leaves no row for the last class of at most {n_max}; lower it")
    return torch.tensor(counts, dtype=torch.int64)


def select(y: Tensor, counts: ClassCounts | Tensor, order: Order = "first") -> Tensor:
    """Row numbers (sum of counts,) int64, class by class: n_k rows of each class of the labels y (N,).

    `first`: the first n_k in file order (weight balancing, LOS). `ldam`: every class shuffled in class order by one
    legacy RandomState(0), then the first n_k (LDAM and its many descendants). An integer seeds a shuffle of our own.

    Raises: InputError naming the class that has too few rows.
    """
    wanted = as_counts(counts).n.cpu().numpy()
    labels = as_labels(y, len(wanted)).cpu().numpy()
    shuffle = _shuffler(order)
    chosen = []
    for k, number in enumerate(wanted):
        rows = np.flatnonzero(labels == k)
        if len(rows) < number:
            raise InputError(f"class {k} has {len(rows)} rows, the profile asks for {number}")
        shuffle(rows)
        chosen.append(rows[:number])
    return torch.from_numpy(np.concatenate(chosen))


def _shuffler(order: Order) -> Callable[[np.ndarray], None]:
    if order == "first":
        return lambda rows: None
    if order == "ldam":
        return np.random.RandomState(0).shuffle
    if isinstance(order, str):
        raise InputError(f"order must be 'first', 'ldam' or an integer seed, got {order!r}")
    return np.random.default_rng(order).shuffle


def split_hash(rows: Tensor) -> str:
    """16 hex digits over the row numbers, in order."""
    return hashlib.sha256(rows.to(torch.int64).contiguous().cpu().numpy().tobytes()).hexdigest()[:16]


class Split(NamedTuple):
    """A published split: its counts, the order in which rows are chosen, and who uses it."""

    n_max: int
    classes: int
    imbalance: float
    order: Order
    used_by: str

    @property
    def counts(self) -> Tensor:
        """(C,) int64 counts."""
        return exponential(self.n_max, self.classes, self.imbalance)


USERS: tuple[tuple[Order, str], ...] = (
    ("first", "weight balancing, LOS"),
    ("ldam", "LDAM, RIDE, SADE, MiSLAS, PaCo, LIFT"),
)

SPLITS: Mapping[str, Split] = MappingProxyType(
    {
        f"cifar{classes}_lt_if{imbalance}_{order}": Split(n_max, classes, imbalance, order, used_by)
        for classes, n_max in ((10, 5000), (100, 500))
        for imbalance in (10, 50, 100, 200)
        for order, used_by in USERS
    }
)


def split_rows(name: str, y: Tensor) -> Tensor:
    """Row numbers of the split `name` of `SPLITS` among the labels y (N,) of the full training set.

    Raises: InputError for an unknown name, or labels that hold too few rows.
    """
    if name not in SPLITS:
        raise InputError(f"no split is called {name!r}; there are {', '.join(SPLITS)}")
    return select(y, SPLITS[name].counts, SPLITS[name].order)
