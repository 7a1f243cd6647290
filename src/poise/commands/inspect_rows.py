"""What can be known of a long-tailed data set before any head is trained, and what to expect."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from poise.commands.class_size_lines import CLASS, Groups, classes_of_size, group_lines, groups_of, listed
from poise.errors import MemorisedRowsError
from poise.folds import group_ids
from poise.heads.memorised_rows import MEMORISED_ACCURACY
from poise.metrics import evaluate_head
from poise.values.features import Features
from poise.values.head import Head
from poise.values.overlap import overlap
from poise.values.repeats import repeats
from poise.values.wording import counted

# A head that is this much better on its training rows than on unseen ones has memorised them (20 points), or is right
# on nearly all of them (98 %).
MEMORISED_GAP = 0.20


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Numbers of a training split; `groups` holds classes and rows of many, medium and few.

    `train_accuracy` and `unseen_accuracy` are those of the given head, None where it or the rows are missing.
    `duplicates` counts rows that repeat another one, near copies included. `advice` says in sentences what follows.
    """

    rows: int
    classes: int
    dim: int
    imbalance: float
    largest: int
    smallest: int
    groups: Groups
    empty_classes: tuple[str, ...]
    singletons: tuple[str, ...]
    duplicates: int
    row_groups: int | None
    train_accuracy: float | None
    unseen_accuracy: float | None
    seen_by_backbone: bool | None
    advice: tuple[str, ...]

    @property
    def memorisation_gap(self) -> float | None:
        """Accuracy on training rows minus that on unseen rows."""
        if self.train_accuracy is None or self.unseen_accuracy is None:
            return None
        return self.train_accuracy - self.unseen_accuracy

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON types."""
        return {**asdict(self), "memorisation_gap": self.memorisation_gap}

    def lines(self) -> list[str]:
        """The numbers as sentences for a terminal."""
        named = {"empty classes": self.empty_classes, "classes of one row": self.singletons}
        return [
            ", ".join([counted(self.rows, "row"), counted(self.classes, *CLASS), counted(self.dim, "feature")]),
            f"class sizes {self.largest} down to {self.smallest}: imbalance {self.imbalance:.4g}",
            *group_lines(self.groups, "row"),
            *listed(named),
            *([f"rows that repeat another one: {self.duplicates}"] if self.duplicates else []),
            *([f"groups of rows: {self.row_groups}"] if self.row_groups is not None else []),
            *_accuracy_lines(self.train_accuracy, self.unseen_accuracy),
        ]


def _accuracy_lines(train: float | None, unseen: float | None) -> list[str]:
    if train is None:
        return []
    rest = "" if unseen is None else f", on unseen rows {unseen:.1%}: a gap of {100 * (train - unseen):.1f} points"
    return [f"the given head is right on {train:.1%} of the training rows{rest}"]


def inspect_features(
    train: Features,
    *,
    head: Head | None = None,
    held_out: Features | None = None,
    groups: Tensor | Sequence[object] | None = None,
) -> Inspection:
    """Profile of a training split; a head and held-out rows add the memorisation gap."""
    n = train.counts.n
    accuracy = None if head is None else evaluate_head(head, train).accuracy
    unseen = None if head is None or held_out is None else evaluate_head(head, held_out).accuracy
    empty, singletons = (tuple(classes_of_size(train.counts, train.names, size, size).values()) for size in (0, 1))
    return Inspection(
        rows=len(train),
        classes=len(n),
        dim=train.dim,
        imbalance=train.counts.imbalance,
        largest=int(n.max()),
        smallest=int(n.min()),
        groups=groups_of(train.counts),
        empty_classes=empty,
        singletons=singletons,
        duplicates=len(train) - len(np.unique(repeats(train.x[0]).numbers[0])),
        row_groups=None if groups is None else int(group_ids(groups, len(train)).max()) + 1,
        train_accuracy=accuracy,
        unseen_accuracy=unseen,
        seen_by_backbone=train.seen_by_backbone,
        advice=(*_advice(train, accuracy, unseen, held_out is not None, len(singletons)), *_shared(train, held_out)),
    )


def _advice(
    train: Features, accuracy: float | None, unseen: float | None, has_held_out: bool, singletons: int
) -> list[str]:
    found = [_selection_advice(train, accuracy, unseen, has_held_out)]
    if train.counts.imbalance < 2:
        found.append("The classes are nearly balanced: re-balancing a head has little to correct here.")
    if singletons:
        found.append("A class of one row can be learnt but not judged: no fold leaves it out and keeps it too.")
    return found


def _shared(train: Features, held_out: Features | None) -> list[str]:
    """What is to be said of rows that are in both splits."""
    try:
        found = overlap({"training": train, "held-out": held_out})
    except MemorisedRowsError as error:
        found = [str(error)]
    return [f"{said}." for said in found]


def _selection_advice(train: Features, accuracy: float | None, unseen: float | None, has_held_out: bool) -> str:
    gap = accuracy is not None and unseen is not None and accuracy - unseen > MEMORISED_GAP
    if train.seen_by_backbone or (train.seen_by_backbone is None and (gap or (accuracy or 0) > MEMORISED_ACCURACY)):
        reason = "trained the backbone" if train.seen_by_backbone else "look memorised"
        rest = "use the held-out rows" if has_held_out else "set aside rows that the backbone never saw (20 per class)"
        return f"The training rows {reason}: nothing can be selected on them; {rest}."
    if train.seen_by_backbone is None and not has_held_out:
        return (
            "It is not known whether these rows trained the backbone: say so (--unseen or --seen). If it never saw "
            "them, cross-validation is valid."
        )
    return "Held-out rows select." if has_held_out else "The backbone never saw these rows: cross-validation is valid."
