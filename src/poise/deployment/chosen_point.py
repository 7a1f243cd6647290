"""Choosing an operating point on held-out rows, which must be rows that nothing was trained on."""

import warnings
from typing import Any

from torch import Tensor

from poise.decisions.decide import prediction_sets
from poise.decisions.operating_point import OperatingPoint
from poise.decisions.targets import class_thresholds, conformal_quantiles, coverage_accuracy, rows_as, threshold_for
from poise.errors import PoiseWarning
from poise.heads.memorised_rows import refuse_memorised
from poise.values.features import Features
from poise.values.head import Head
from poise.values.overlap import warn_of_overlap
from poise.values.wording import some


def choose_operating_point(
    head: Head,
    held_out: Features,
    *,
    trained_on: Features,
    prior: Tensor | None = None,
    abstain_accuracy: float | None = None,
    coverage: float | None = None,
    precision: float | None = None,
    alpha: float | None = None,
    costs: Any = None,
    top_k: int | None = None,
) -> OperatingPoint:
    """The operating point of `head` that meets the given targets on `held_out`; without any, one that changes nothing.

    `abstain_accuracy` or `coverage` choose the threshold of abstention, `precision` one threshold per class, `alpha`
    conformal sets with a promise for every class; `costs` and `top_k` are taken as they are. Costs come first, each
    other part is chosen by itself on all rows. Accuracy, coverage and precision hold for classes as common as in
    `prior` (C,), or as in `held_out` without one. Warns (PoiseWarning) of classes with too few rows for a promise, and
    of those that will never be answered. See `poise.decisions.operating_point`.

    Raises: MemorisedRowsError for rows that the backbone or the head was trained on, or many of them; InputError for a
    target out of range or out of reach.
    """
    refuse_memorised(held_out, head, trained_on=trained_on, purpose="an operating point")
    warn_of_overlap({"training": trained_on, "held-out": held_out})
    logits, y = head(held_out.x[0]), held_out.y
    weight = None if prior is None else rows_as(prior, y)
    chosen: dict[str, Any] = {"costs": costs, "top_k": top_k, "alpha": alpha}
    if abstain_accuracy is not None or coverage is not None:
        curve = coverage_accuracy(logits, y, held_out.counts, weight=weight, costs=costs)
        chosen["abstain"] = threshold_for(curve, accuracy=abstain_accuracy, coverage=coverage)
    if precision is not None:
        chosen["thresholds"] = class_thresholds(logits, y, precision=precision, weight=weight, costs=costs)
        _warn_of_silence(held_out, chosen["thresholds"])
    if alpha is not None:
        chosen["conformal"] = conformal_quantiles(logits, y, alpha=alpha)
        _warn_of_full_sets(held_out, logits, chosen["conformal"])
    return OperatingPoint(**chosen)


def _warn_of_silence(held_out: Features, thresholds: Tensor) -> None:
    """A class whose answers never reach the precision is never answered."""
    never = thresholds.isinf().nonzero().flatten().tolist()
    if never:
        warnings.warn(
            f"{len(never)} of {len(held_out.counts)} classes do not reach the precision on the held-out rows and are "
            f"never answered ({some([held_out.names[k] for k in never])}); ask for less or give more rows",
            PoiseWarning,
            stacklevel=3,
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
        stacklevel=3,
    )
