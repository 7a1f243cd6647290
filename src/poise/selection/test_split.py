"""Whether test rows stand apart from what was trained on: what refuses a test split, and what is remarked of one."""

import torch

from poise.errors import InputError, MemorisedRowsError
from poise.values.arrays import classes_in
from poise.values.features import Features
from poise.values.overlap import overlap
from poise.values.problem import Problem
from poise.values.wording import some


def check_test(problem: Problem, test: Features) -> None:
    """Raises: MemorisedRowsError for test rows that were used before; InputError for a split that does not fit."""
    classes, dim = len(problem.train.counts), problem.train.dim
    if (len(test.counts), test.dim) != (classes, dim):
        raise InputError(
            f"the test rows have {len(test.counts)} classes and {test.dim} features, the training rows have {classes} "
            f"and {dim}"
        )
    if classes_in(test.y) < 2:
        raise InputError("the test rows are all of one class; an interval over classes needs rows of at least two")
    if test.seen_by_backbone:
        raise MemorisedRowsError("the test rows trained the representation; give rows that the backbone never saw")
    for name, rows in (("training", problem.train), ("held-out", problem.held_out)):
        if rows is not None and rows.same_rows(test):
            raise MemorisedRowsError(f"the test rows are the {name} rows; give rows that were used for nothing else")


def shared_rows(problem: Problem, test: Features | None, *, strict: bool = False) -> list[str]:
    """Remarks on rows that two of training, held-out and test rows share; None: leave the test split unread.

    Raises: MemorisedRowsError for two that share more than chance gives; InputError for a remark if `strict`.
    """
    found = overlap({"training": problem.train, "held-out": problem.held_out, "test": test})
    if strict and found:
        raise InputError(f"{found[0]}; remove them from one of the two")
    return found


def uncovered(train: Features, test: Features) -> list[str]:
    """Remarks on classes that only one of the two splits holds."""
    n = len(train.counts)
    trained, tested = (torch.bincount(split.y.cpu(), minlength=n) > 0 for split in (train, test))
    found = []
    for missing, where, what in (
        (tested & ~trained, "no training row", "no head can know them, their recall counts as it is"),
        (trained & ~tested, "no test row", "their recall is n/a and left out of the means"),
    ):
        rows = missing.nonzero().flatten().tolist()
        if rows:
            listed = some([train.names[k] for k in rows])
            found.append(f"{len(rows)} of {n} classes have {where} ({listed}); {what}")
    return found
