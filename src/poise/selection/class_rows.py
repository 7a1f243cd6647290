"""Which classes a comparison can speak of: rows to train on, to choose on and to test by; where they are too few."""

from typing import NamedTuple

import torch
from torch import Tensor

from poise.statistics import class_variances, recalls
from poise.values.wording import some

FEW_ROWS = 4  # test rows of a class, below which a gain of its own is no gain
ENOUGH = 20  # test rows of all such classes together, from which on they may decide as one


class ClassRows(NamedTuple):
    """Names of the C classes, and rows per class (C,) int64 that heads were trained on and settings were chosen on.

    Where the halves of a test split choose for each other, `chosen_on` is the lesser number of the two.
    """

    names: tuple[str, ...]
    trained: Tensor
    chosen_on: Tensor

    def without(self, rows: Tensor) -> tuple[str, ...]:
        """The names of the classes of which there is no row among so many per class (C,), in order."""
        return tuple(self.names[k] for k in (rows == 0).nonzero().flatten().tolist())


def rows_per_class(y: Tensor, classes: int) -> Tensor:
    """(C,) int64 rows of each class among labels y (N,)."""
    return torch.bincount(y.cpu(), minlength=classes)


def tiny(y: Tensor) -> Tensor:
    """(T,) int64 classes of fewer than `FEW_ROWS` rows in y (N,); none if these have `ENOUGH` rows together."""
    classes, rows = torch.unique(y, return_counts=True)
    few = rows < FEW_ROWS
    found: Tensor = classes[few] if int(rows[few].sum()) < ENOUGH else classes[:0]
    return found


def gaining(values: Tensor, y: Tensor, classes: Tensor) -> tuple[int, ...]:
    """Which of `classes` (T,) have a gain in `values` (N,) of rows with labels y (N,)."""
    gains = recalls(values, y)[torch.isin(torch.unique(y), classes)]
    return tuple(classes[gains > 0].tolist())


def doubtful(values: Tensor, y: Tensor) -> tuple[int, ...]:
    """The `tiny` classes, if they make more than half of the variance of the mean over classes of `values` (N,)."""
    few, variances = tiny(y), class_variances(values.unsqueeze(0), y)[0]
    share = variances[torch.isin(torch.unique(y), few)].sum() / variances.sum()
    return tuple(few.tolist()) if share > 0.5 else ()


def unjudged(rows: ClassRows, y: Tensor) -> list[str]:
    """Sentences on classes without a row to choose on, or without one among the test labels y (N,)."""
    classes, found = len(rows.names), []
    if out := rows.without(rows.chosen_on):
        found.append(
            f"{len(out)} of {classes} classes took no part in the choice, for want of rows to choose on ({some(out)})."
        )
    if out := rows.without(rows_per_class(y, classes)):
        has = "has" if len(out) == 1 else "have"
        found.append(
            f"{len(out)} of {classes} classes {has} no test row, so nothing here is about "
            f"{'it' if len(out) == 1 else 'them'} ({some(out)})."
        )
    return found
