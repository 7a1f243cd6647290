"""Rows that trained the representation: the refusal to choose or calibrate anything on them.

A backbone gives its own training rows features that their labels can be read from: on one measured set the stage-1
head is right on 99.99 % of them and on 38.66 % of fresh rows. Such rows may train heads; a temperature, a prior or a
setting chosen on them is wrong.
"""

import warnings

from poise.errors import MemorisedRowsError, PoiseWarning
from poise.metrics import evaluate_head
from poise.types import Features, Head

__all__ = ["MEMORISED_ACCURACY", "refuse_memorised"]

MEMORISED_ACCURACY = 0.98


def refuse_memorised(features: Features, head: Head, *, trained_on: Features, purpose: str) -> None:
    """Let `features` pass if neither backbone nor head saw them; `purpose` says what they were wanted for.

    Raises: MemorisedRowsError if the backbone did, or if they are the rows `trained_on`. Warns (PoiseWarning) if that
    is unknown and `head` is right on more than 98 % of the rows, as it is on memorised ones.
    """
    remedy = "give rows that the backbone never saw as Problem(held_out=Features(..., seen_by_backbone=False))"
    if features.seen_by_backbone:
        raise MemorisedRowsError(f"{purpose} cannot use rows that trained the representation; {remedy}")
    if features.same_rows(trained_on):
        raise MemorisedRowsError(f"{purpose} cannot use the training rows as held-out rows; {remedy}")
    if features.seen_by_backbone is None:
        accuracy = evaluate_head(head, features).accuracy
        if accuracy > MEMORISED_ACCURACY:
            warnings.warn(
                f"{purpose} uses rows of which the head gets {accuracy:.1%} right, as if the backbone had trained on "
                f"them; if it did, {remedy}",
                PoiseWarning,
                stacklevel=3,
            )
