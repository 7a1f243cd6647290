"""Choosing an operating point on held-out rows, which must be rows that nothing was trained on."""

import warnings
from typing import Any

import torch
from torch import Tensor

from poise.decisions.certified import out_of_reach, rows_needed
from poise.decisions.decide import best_answers, prediction_sets
from poise.decisions.operating_point import OperatingPoint
from poise.decisions.targets import (
    Targets,
    accuracy_threshold,
    class_thresholds,
    conformal_quantiles,
    coverage_accuracy,
    joint_level,
    rows_as,
    threshold_for,
)
from poise.deployment.certifying_rows import as_common_as
from poise.errors import InputError, PoiseWarning
from poise.heads.memorised_rows import refuse_memorised
from poise.values.features import Features
from poise.values.head import Head
from poise.values.overlap import warn_of_overlap
from poise.values.wording import some


def choose_operating_point(
    head: Head,
    held_out: Features,
    targets: Targets,
    *,
    trained_on: Features,
    prior: Tensor | None = None,
    seed: int = 0,
) -> OperatingPoint:
    """The operating point of `head` that meets the targets on `held_out`; without any, one that changes nothing.

    `abstain_accuracy` or `coverage` choose the threshold of abstention, `precision` one threshold per class, `alpha`
    conformal sets with a promise for every class; `costs` and `top_k` are taken as they are. Costs come first, each
    other part is chosen by itself. Accuracy, coverage and precision are for classes as common as in `prior` (C,), or as
    in `held_out` without one.

    An accuracy and a precision are shown at the `confidence` of the targets, on a part of the rows in which classes are
    as common as in the prior, drawn with `seed` (`as_common_as`). That holds if the rows are independent and neither
    chose nor calibrated the head: `poise.deployment.certifying_rows.dealt` sees to it. Warns (PoiseWarning) of classes
    with too few rows for a promise, and of those that will never be answered.

    Raises: MemorisedRowsError for rows that the backbone or the head was trained on, or many of them; InputError for a
    target out of range or out of reach, with the number of rows that would do.
    """
    refuse_memorised(held_out, head, trained_on=trained_on, purpose="an operating point")
    warn_of_overlap({"training": trained_on, "held-out": held_out})
    return point_on(held_out, head, targets, prior, seed)


def point_on(held_out: Features, head: Head, targets: Targets, prior: Tensor | None, seed: int) -> OperatingPoint:
    """The same on rows that are known to be other rows than those of training. Raises: InputError as above."""
    logits, y = head(held_out.x[0]), held_out.y
    chosen: dict[str, Any] = {"costs": targets.costs, "top_k": targets.top_k, "alpha": targets.alpha}
    if targets.coverage is not None:
        weight = None if prior is None else rows_as(prior, y)
        curve = coverage_accuracy(logits, y, held_out.counts, weight=weight, costs=targets.costs)
        chosen["abstain"] = threshold_for(curve, coverage=targets.coverage)
    if targets.guarantee is not None:
        chosen |= _promised(logits, held_out, targets, prior, seed)
    if targets.alpha is not None:
        chosen["conformal"] = conformal_quantiles(logits, y, alpha=targets.alpha)
        _warn_of_full_sets(held_out, logits, chosen["conformal"])
    return OperatingPoint(**chosen)


def _promised(logits: Tensor, held_out: Features, targets: Targets, prior: Tensor | None, seed: int) -> dict[str, Any]:
    """The thresholds that are shown to hold. Raises: InputError if none is."""
    label, sure = best_answers(logits, OperatingPoint(costs=targets.costs))[1:]
    rows = torch.arange(len(logits)) if prior is None else as_common_as(prior, held_out, sure, seed)
    scarce = f" (of {len(logits)} rows {len(rows)} certify, as common as in the prior: the rare classes need more most)"
    logits, y, label = logits[rows], held_out.y[rows], label[rows]
    try:
        return _shown(logits, y, label, held_out, targets)
    except InputError as error:
        raise InputError(f"{error}{scarce * (len(rows) < len(logits))}", *error.arguments) from None


def _shown(logits: Tensor, y: Tensor, label: Tensor, held_out: Features, targets: Targets) -> dict[str, Any]:
    """The same, on rows that are as common as in the prior."""
    wanted: dict[str, Any] = {"confidence": targets.confidence, "costs": targets.costs}
    chosen: dict[str, Any] = {}
    if targets.abstain_accuracy is not None:
        chosen["abstain"] = accuracy_threshold(logits, y, accuracy=targets.abstain_accuracy, **wanted)
    if targets.precision is not None:
        found = class_thresholds(logits, y, precision=targets.precision, jointly=targets.jointly, **wanted)
        answers, level = torch.bincount(label, minlength=logits.shape[1]), 1 - targets.confidence
        if targets.jointly:
            level = joint_level(answers, targets.precision, targets.confidence)
        if found.isinf().all():
            raise out_of_reach("precision", targets.precision, level, int(answers.max()))
        _warn_of_silence(held_out, found, rows_needed(targets.precision, level))
        chosen["thresholds"] = found
    return chosen


def _warn_of_silence(held_out: Features, thresholds: Tensor, needed: int) -> None:
    """A class that is not shown to reach the precision is never answered."""
    never = thresholds.isinf().nonzero().flatten().tolist()
    if never:
        warnings.warn(
            f"{len(never)} of {len(held_out.counts)} classes are not shown to reach the precision on the held-out rows "
            f"and are never answered ({some([held_out.names[k] for k in never])}); a class takes {needed} answers, all "
            "right, or more with some wrong: ask for less or give more rows",
            PoiseWarning,
            stacklevel=6,
        )


def _warn_of_full_sets(held_out: Features, logits: Tensor, quantiles: Tensor) -> None:
    """A class with too few held-out rows for the promise is in every set, which a user should know."""
    always = quantiles.isinf().nonzero().flatten().tolist()
    if not always:
        return
    size = float(prediction_sets(logits, quantiles).sum(dim=1).double().mean())
    warnings.warn(
        f"{len(always)} of {len(held_out.counts)} classes have too few held-out rows for this alpha and are in every "
        f"set ({some([held_out.names[k] for k in always])}); sets hold {size:.1f} classes on average; give more rows "
        "or a larger alpha",
        PoiseWarning,
        stacklevel=4,
    )
