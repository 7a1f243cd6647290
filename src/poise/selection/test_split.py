"""Whether test rows stand apart from what was trained on: what refuses a test split, and what is remarked of one."""

from collections.abc import Iterator
from hashlib import blake2b

import torch

from poise.errors import InputError, MemorisedRowsError
from poise.values.arrays import classes_in, row_blocks
from poise.values.features import Features
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


def shared_rows(train: Features, test: Features) -> list[str]:
    """A remark if rows of the test split are training rows, bit for bit."""
    known = set(_digests(train))
    repeats = [i for i, digest in enumerate(_digests(test)) if digest in known]
    if not repeats:
        return []
    return [
        f"{len(repeats)} of {len(test)} test rows are training rows too (the first: test row {repeats[0]}); what is "
        "measured on them is no evidence"
    ]


def _digests(features: Features) -> Iterator[bytes]:
    """A digest of each row of the test-time view in float32, read in blocks."""
    for _, rows in row_blocks(features.x[0]):
        for row in rows.float().contiguous().cpu().numpy() + 0.0:  # -0.0 becomes 0.0
            yield blake2b(row, digest_size=16).digest()


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
