"""Heads beside rows that they do not belong to: rows that trained the representation, and classes in another order.

A backbone gives its own training rows features that their labels can be read from: on one measured set the stage-1
head is right on 99.99 % of them and on 38.66 % of fresh rows. Such rows may train heads; a temperature, a prior or a
setting chosen on them is wrong. A head that does no better than guessing on them is one of other features; one that
does much better with its classes in another order has them in that order.
"""

import warnings

import torch

from poise.errors import MemorisedRowsError, PoiseWarning
from poise.metrics import evaluate_head
from poise.values.arrays import classes_in, row_blocks
from poise.values.features import Features
from poise.values.head import Head

MEMORISED_ACCURACY = 0.98
GUESSING = 0.05  # of the way from guessing to all right: heads of other features or another order do no better
REORDERED = 0.2  # of balanced accuracy gained by another order of the classes, which a head of these rows never gains


def refuse_memorised(features: Features, head: Head, *, trained_on: Features, purpose: str) -> None:
    """Let `features` pass if neither backbone nor head saw them; `purpose` says what they were wanted for.

    Raises: MemorisedRowsError if the backbone did, or if they are the rows `trained_on`. Warns (PoiseWarning) if that
    is unknown and `head` is right on more than 98 % of the rows, as it is on memorised ones.
    """
    argument = "Problem(held_out=Features(..., seen_by_backbone=False))"
    remedy = f"give rows that the backbone never saw as {argument}"
    if features.seen_by_backbone:
        raise MemorisedRowsError(f"{purpose} cannot use rows that trained the representation; {remedy}", argument)
    if features.same_rows(trained_on):
        raise MemorisedRowsError(f"{purpose} cannot use the training rows as held-out rows; {remedy}", argument)
    if features.seen_by_backbone is None and evaluate_head(head, features).accuracy > MEMORISED_ACCURACY:
        # The same words for every purpose, so that a command which has several says them once.
        warnings.warn(
            f"the head gets more than {MEMORISED_ACCURACY:.0%} of the held-out rows right, as if the backbone had "
            "trained on them; if it did, give held-out rows that it never saw; if it did not, these classes are easy "
            "to tell apart",
            PoiseWarning,
            stacklevel=3,
        )


def guessing(what: str, head: Head, train: Features) -> str | None:
    """A remark if `head`, called `what`, has other features or another order of classes than the training rows.

    It has if it does no better than guessing on them, or much better with its classes in another order.
    """
    found = evaluate_head(head, train).balanced_accuracy
    floor, best = 1 / classes_in(train.y), _reordered(head, train)
    told = f"{what} gets a balanced accuracy of {100 * found:.1f} % on the training rows"
    if best > found + REORDERED:
        return f"{told}, and {100 * best:.1f} % with its classes in another order: are they in the order of the rows?"
    if found > floor + GUESSING * (1 - floor):
        return None
    return f"{told}, hardly more than guessing: are these the features that it reads, and are the classes in its order?"


def _reordered(head: Head, train: Features) -> float:
    """Balanced accuracy if every class is called what its rows are answered most, and no two are called the same."""
    classes = head.classes
    answers = torch.cat([head(rows).argmax(dim=-1) for _, rows in row_blocks(train.x[0])]).cpu()
    y = train.y.cpu()
    pairs, times = torch.unique(y * classes + answers, return_counts=True)
    share = times / torch.bincount(y, minlength=classes)[pairs // classes]
    order = share.argsort(descending=True, stable=True)
    taken: dict[int, float] = {}
    named: set[int] = set()
    for pair, part in zip(pairs[order].tolist(), share[order].tolist(), strict=True):
        label, answer = divmod(pair, classes)
        if label not in named:  # the answer given most for it
            named.add(label)
            taken.setdefault(answer, part)
    return sum(taken.values()) / classes_in(y)
