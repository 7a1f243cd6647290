"""Did the backbone train on these rows? What they say of it themselves, where nobody does or where it was denied."""

import warnings

import numpy as np
import torch
from torch import Tensor

from poise.deployment.calibration import LARGE, Ints, Trial, copies, cross_fit, evidence, judged
from poise.deployment.promise import SPREAD, Judged, Promise, promise_of
from poise.errors import MemorisedRowsError, PoiseWarning
from poise.heads.memorised_rows import MEMORISED_ACCURACY
from poise.methods import build
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem

SURE = 0.999  # of the intervals that have to lie apart
CLEAR = 0.05  # of recall: less than this between two samples of rows is no sign of a backbone that saw one of them


def looks_memorised(right: Tensor, rows: Judged, classes: int) -> PoiseWarning | None:
    """What is to be said if heads get practically all rows right that they were not fitted on; None if they do not.

    Rows and classes both count: where one class has 99 % of the rows, guessing gets 99 % of them right.
    """
    share = float(rows.weight @ right / rows.weight.sum())
    mass, hits = (
        torch.bincount(rows.y, weights=part, minlength=classes) for part in (rows.weight, rows.weight * right)
    )
    if min(share, float((hits / mass)[mass > 0].mean())) <= MEMORISED_ACCURACY:
        return None
    return PoiseWarning(
        f"{share:.1%} of the rows set aside are predicted right, as if the backbone had trained on them, so no recall "
        "is promised: if it never saw them, say seen_by_backbone=False; if it did, say seen_by_backbone=True and give "
        "rows that it never saw, fit(..., held_out=(X, y))",
        "seen_by_backbone=False",
        "seen_by_backbone=True",
        "fit(..., held_out=(X, y))",
    )


def compare_with_fresh(train: Features, units: Ints, fresh: Features, *, said_unseen: bool) -> None:
    """Are training rows recognised clearly better than held-out ones, each by class means that did not see them?

    Class means are cheap, and the features of a backbone lie close to the means of the classes that it was taught.
    Clearly: intervals of 99.9 % lie apart, and by 5 points. Classes weigh by how much both kinds of rows say of them.

    Raises: MemorisedRowsError if they are although it was said that the backbone never saw the training rows. Warns
    (PoiseWarning) if nothing was said.
    """
    inside, outside = _recalls(train, units, fresh)
    if inside is None or outside is None or inside.low - outside.high < CLEAR:
        return
    told = (
        f"class means recognise {inside.value:.1%} of training rows that are set aside, but {outside.value:.1%} of the "
        "held-out rows, as if the backbone had trained on the training rows"
    )
    if said_unseen:
        raise MemorisedRowsError(
            f"{told}: say seen_by_backbone=True, and the held-out rows alone choose and calibrate",
            "seen_by_backbone=True",
        )
    warnings.warn(
        PoiseWarning(f"{told}; they are treated so (seen_by_backbone=True says it)", "seen_by_backbone=True"),
        stacklevel=4,
    )


def _recalls(train: Features, units: Ints, fresh: Features) -> tuple[Promise | None, Promise | None]:
    """What class means promise of training rows set aside, and of held-out rows, over the classes that both have."""
    some = torch.arange(0, len(train), -(-len(train) // LARGE))
    few, theirs = train.take(some), np.unique(units[some.numpy()], return_inverse=True)[1]
    trials = cross_fit(few, theirs, _class_means), [Trial(_class_means(few), fresh, copies(fresh.x[0]))]
    if not trials[0]:
        return None, None
    rows = [judged(part) for part in trials]
    sizes = torch.stack([torch.bincount(part.y, minlength=len(train.counts)) for part in rows]).double()
    say = 1 / (1 / sizes).sum(dim=0)
    found = []
    for part, of, spread in zip(trials, rows, (SPREAD, 1.0), strict=True):
        seen = evidence(part)
        assert seen is not None  # class means can always be taken
        right = (seen.logits.argmax(dim=-1) == seen.y).double()
        found.append(promise_of(right, of, say, train.names, spread=spread, level=SURE))
    return found[0], found[1]


def _class_means(rows: Features) -> list[Head | None]:
    return [build("ncm", transform="raw")(Problem(rows))]
