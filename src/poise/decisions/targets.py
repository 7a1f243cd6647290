"""How each part of an operating point is chosen on held-out rows, and what it should reach.

Every function here wants logits of rows that neither the backbone nor the head was trained on, and a target that is
promised (an accuracy, a precision) wants rows that chose nothing either, as common in their classes as the rows to
come; `poise.deployment.chosen_point` holds the rows and refuses others.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poise.decisions.certified import CONFIDENCE, check_target, lowest_threshold, out_of_reach, rows_needed
from poise.decisions.decide import best_answers, check_logits
from poise.decisions.operating_point import ALPHA, SHARE, OperatingPoint
from poise.errors import InputError
from poise.values.counts import ClassCounts, as_counts, as_labels
from poise.values.features import Features
from poise.values.fields import FLAG, check_fields, number, optional


def _check_rows(logits: Tensor, y: Tensor) -> Tensor:
    """The labels (N,), at least one, fitting finite logits (N, C)."""
    check_logits(logits)
    labels = as_labels(y, logits.shape[1])
    if len(labels) != len(logits) or len(labels) == 0:
        raise InputError(
            f"there are {len(logits)} rows of logits and {len(labels)} labels; both need the same number, at least 1"
        )
    return labels.to(logits.device)


# --- choosing on held-out rows ----------------------------------------------------------------------------------------


class Curve(NamedTuple):
    """What answering only above a threshold gives, for T ascending thresholds; the first, 0, answers every row.

    `coverage` (T,): share of rows answered. `accuracy` (T,): among them. `balanced_accuracy` (T,): mean over the
    classes that still have answered rows of the share of these that is right. `kept`: the coverage (T,) within the
    many, medium and few classes, None for a group without rows; abstention that silences the rare classes shows here.
    """

    thresholds: Tensor
    coverage: Tensor
    accuracy: Tensor
    balanced_accuracy: Tensor
    kept: dict[str, Tensor | None]


def rows_as(prior: Tensor, y: Tensor) -> Tensor:
    """(N,) float64 weights under which the classes of the labels y (N,) are as common as in `prior` (C,)."""
    n = torch.bincount(y, minlength=len(prior))
    return prior.double().to(y.device)[y] / n[y]


def coverage_accuracy(
    logits: Tensor,
    y: Tensor,
    counts: ClassCounts | Tensor,
    *,
    weight: Tensor | None = None,
    costs: Any = None,
    many: int = 100,
    few: int = 20,
) -> Curve:
    """The curve of all thresholds that differ on held-out logits (N, C) with labels y (N,).

    `counts` (C,) are those of the training split and make the groups. `weight` (N,) says how much a row counts in
    coverage and accuracy: `rows_as(prior, y)` for a deployment where classes are as common as in a prior; all alike
    without it. `costs` as in `OperatingPoint`.

    Raises: InputError if shapes disagree, logits are not finite or there is no row.
    """
    y = _check_rows(logits, y)
    counts = as_counts(counts)
    if len(counts) != logits.shape[1]:
        raise InputError(f"the counts are for {len(counts)} classes, the logits have {logits.shape[1]}")
    label, confidence = best_answers(logits, OperatingPoint(costs=costs))[1:]
    heft = torch.ones_like(confidence) if weight is None else _check_weight(weight, y)
    return coverage_curve(confidence, label == y, y, counts, weight=heft, many=many, few=few)


def coverage_curve(
    confidence: Tensor,
    right: Tensor,
    y: Tensor,
    counts: ClassCounts,
    *,
    weight: Tensor | None = None,
    many: int = 100,
    few: int = 20,
) -> Curve:
    """The same of answers that are known: how sure each was (N,), whether it was right (N,), and the labels y (N,)."""
    order = confidence.argsort(descending=True, stable=True)
    heft = torch.ones_like(confidence) if weight is None else weight
    confidence, y, right, heft = confidence[order], y[order], right[order].double(), heft[order]
    # Equal confidences share a threshold; the last of them, in descending order, has all of them answered.
    last = torch.cat([confidence[1:] < confidence[:-1], confidence.new_ones(1, dtype=torch.bool)])
    ends = last.nonzero().flatten().flip(0)
    answered = heft.cumsum(0)
    groups = {name: mask.to(y.device)[y].double() for name, mask in counts.shots(many, few).items()}
    thresholds = confidence[ends]
    thresholds[0] = 0.0
    return Curve(
        thresholds=thresholds,
        coverage=(answered / answered[-1])[ends],
        accuracy=((right * heft).cumsum(0) / answered)[ends],
        balanced_accuracy=_running_balanced_accuracy(right, y)[ends],
        kept={name: (own.cumsum(0) / own.sum())[ends] if own.any() else None for name, own in groups.items()},
    )


def _running_balanced_accuracy(right: Tensor, y: Tensor) -> Tensor:
    """(N,) balanced accuracy of the first 1, 2, ... N rows, over the classes that these hold."""
    by_class = y.argsort(stable=True)
    sizes = torch.bincount(y)
    first = (sizes.cumsum(0) - sizes)[y[by_class]]  # where the class of each sorted row begins
    place = torch.arange(len(y), device=y.device) - first + 1
    hits = right[by_class].cumsum(0)
    hits = hits - torch.cat([hits.new_zeros(1), hits])[first]
    recall = hits / place
    before = torch.where(place > 1, torch.cat([recall.new_zeros(1), recall[:-1]]), 0.0)
    # Each row changes the recall of its own class only, so sums of changes over rows are sums of recalls over classes.
    change, new = torch.empty_like(recall), torch.empty_like(recall)
    change[by_class], new[by_class] = recall - before, (place == 1).double()
    return change.cumsum(0) / new.cumsum(0)


def threshold_for(curve: Curve, *, coverage: float) -> float:
    """The highest threshold that keeps this share of the rows of the curve answered.

    It is a quantile of their confidences: of new rows about that share is answered, and how many of the answers are
    right is not promised.

    Raises: InputError for a coverage outside (0, 1].
    """
    SHARE.check("coverage", coverage)
    return float(curve.thresholds[(curve.coverage >= coverage).nonzero().flatten()[-1]])


def accuracy_threshold(
    logits: Tensor, y: Tensor, *, accuracy: float, confidence: float = CONFIDENCE, costs: Any = None
) -> float:
    """The lowest threshold above which at least `accuracy` of the answers are right, shown at `confidence`.

    For rows of the same distribution as those of the logits (N, C) and labels y (N,), which chose nothing else: over
    draws of these rows, the threshold falls short of its target with a chance of at most 1 - `confidence`
    (`poise.decisions.certified`). `costs` as in `OperatingPoint`.

    Raises: InputError if shapes disagree, logits are not finite, there is no row, accuracy or confidence are outside
    (0, 1), or no threshold is shown to reach the accuracy; it says how many rows would do.
    """
    y = _check_rows(logits, y)
    check_target("accuracy", accuracy, confidence)
    label, sure = best_answers(logits, OperatingPoint(costs=costs))[1:]
    found = lowest_threshold(sure, label == y, target=accuracy, level=1 - confidence)
    if math.isinf(found):
        raise out_of_reach("accuracy", accuracy, 1 - confidence, len(y))
    return found


def class_thresholds(
    logits: Tensor,
    y: Tensor,
    *,
    precision: float,
    confidence: float = CONFIDENCE,
    jointly: bool = False,
    costs: Any = None,
) -> Tensor:
    """(C,) float64: per class, the lowest threshold above which its answers are shown to reach `precision`.

    0 where all its answers do. Infinity where nothing shows it, as of a class with fewer answers than `rows_needed`:
    `decide` then never gives that answer. For rows of the same distribution as these, which chose nothing else, each
    class falls short with a chance of at most 1 - `confidence`; `jointly`, any of them does, by dividing that chance
    among the classes that have enough answers. `costs` as in `OperatingPoint`.

    Raises: InputError if shapes disagree, logits are not finite, there is no row, or precision or confidence are
    outside (0, 1).
    """
    y = _check_rows(logits, y)
    check_target("precision", precision, confidence)
    label, sure = best_answers(logits, OperatingPoint(costs=costs))[1:]
    answers = torch.bincount(label, minlength=logits.shape[1])
    level = joint_level(answers, precision, confidence) if jointly else 1 - confidence
    result = torch.full((logits.shape[1],), math.inf, dtype=torch.float64)
    for k in answers.nonzero().flatten().tolist():
        own = label == k
        result[k] = lowest_threshold(sure[own], y[own] == k, target=precision, level=level)
    return result


def joint_level(answers: Tensor, precision: float, confidence: float) -> float:
    """The level of one class so that all hold at `confidence`, from the number of answers (C,) of each class.

    It is shared by no more classes than have enough answers to pass, which depends on no label.
    """
    level = 1 - confidence
    for sharing in range(1, len(answers)):
        if int((answers >= rows_needed(precision, level / sharing)).sum()) <= sharing:
            return level / sharing
    return level / len(answers)


def _check_weight(weight: Tensor, y: Tensor) -> Tensor:
    heft = weight.to(y.device).double()
    if heft.shape != y.shape or not torch.isfinite(heft).all() or (heft < 0).any() or not heft.any():
        raise InputError(f"weight needs one finite number per row, 0 or more and not all 0, for the {len(y)} rows")
    return heft


def conformal_quantiles(logits: Tensor, y: Tensor, *, alpha: float, per_class: bool = True) -> Tensor:
    """(C,) float64 quantiles of the score -log posterior of the true class: split conformal prediction.

    Per class (Sadinle et al., JASA 2019), quantile k is the ceil((n_k + 1)(1 - alpha))-th smallest score of the n_k
    held-out rows of class k; the sets of `prediction_sets` then hold the class of a new row of class k with probability
    at least 1 - alpha, for every class, if new rows are exchangeable with the held-out ones. A class with fewer than
    1 / alpha - 1 rows has no such score: its quantile is infinite and it is always named, which is the only choice
    that keeps the promise. Without `per_class` all rows share one quantile, and the promise holds on average over rows
    of the held-out class frequencies only, not for each class.

    Raises: InputError if shapes disagree, logits are not finite, there is no row or alpha is outside (0, 1).
    """
    y = _check_rows(logits, y)
    alpha = float(ALPHA.check("alpha", alpha))
    score = -logits.double().log_softmax(dim=-1).gather(1, y.unsqueeze(1)).squeeze(1)
    classes = logits.shape[1]
    if not per_class:
        return torch.full((classes,), _quantile(score, alpha), dtype=torch.float64)
    return torch.tensor([_quantile(score[y == k], alpha) for k in range(classes)], dtype=torch.float64)


def _quantile(score: Tensor, alpha: float) -> float:
    n = len(score)
    # ceil((n + 1)(1 - alpha)), with a margin so that (n + 1) alpha = 1 is not missed by rounding.
    rank = n + 1 - math.floor((n + 1) * alpha + 1e-9)
    return float(score.sort().values[rank - 1]) if rank <= n else math.inf


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What decisions should meet; see `choose_operating_point`. All None: the largest posterior wins.

    `abstain_accuracy` and `precision` are promised at `confidence`, the precision class by class, or of all classes
    at once `jointly`. `costs` (C,) or (C, C) follow the classes of the training rows.

    Raises: InputError for a target out of range, or two that exclude each other.
    """

    abstain_accuracy: float | None = None
    coverage: float | None = None
    precision: float | None = None
    alpha: float | None = None
    costs: Any = None
    top_k: int | None = None
    confidence: float = CONFIDENCE
    jointly: bool = False

    def __post_init__(self) -> None:
        # Nothing that can be refused now is refused only after training.
        OperatingPoint(costs=self.costs, top_k=self.top_k)
        part = number("(0, 1)")
        kinds = {"coverage": optional(number("(0, 1]")), "confidence": part, "jointly": FLAG}
        kinds |= {name: optional(part) for name in ("abstain_accuracy", "precision", "alpha")}
        check_fields("", vars(self), kinds)
        for one, other in (("abstain_accuracy", "coverage"), ("alpha", "top_k")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise InputError(f"{one} and {other} exclude each other; give one of them")

    @property
    def need_rows(self) -> bool:
        """Is anything asked for that is chosen on unseen rows?"""
        return self.guarantee is not None or self.coverage is not None or self.alpha is not None

    @property
    def guarantee(self) -> dict[str, Any] | None:
        """What is promised, as plain JSON; None if nothing is that takes rows which chose nothing else."""
        asked = {"abstain_accuracy": self.abstain_accuracy, "precision": self.precision}
        told = {name: value for name, value in asked.items() if value is not None}
        return {**told, "confidence": self.confidence, "jointly": self.jointly} if told else None

    @property
    def strictest(self) -> float:
        """The largest share of right answers that is promised; 0 if none is."""
        return max(self.abstain_accuracy or 0.0, self.precision or 0.0)

    def check_classes(self, train: Features, answered: int) -> None:
        """Raises: InputError if costs do not fit the training classes, or top_k the number of classes `answered`."""
        if self.costs is not None and len(self.costs) != len(train.counts):
            raise InputError(f"costs need one entry per class, got {len(self.costs)} for {len(train.counts)} classes")
        if self.top_k is not None and self.top_k > answered:
            raise InputError(f"top_k must be at most {answered}, the number of classes, got {self.top_k}")


def guarantee_in_words(guarantee: Mapping[str, Any] | None) -> list[str]:
    """What is promised, as `Targets.guarantee` has it, in words; nothing for None."""
    if not guarantee:
        return []
    words = []
    if "abstain_accuracy" in guarantee:
        words.append(f"{guarantee['abstain_accuracy']:.4g} of the answers are right")
    if "precision" in guarantee:
        together = "all classes at once" if guarantee["jointly"] else "each class by itself"
        words.append(f"{guarantee['precision']:.4g} of the answers of a class are right ({together})")
    return [f"promised at confidence {guarantee['confidence']:.4g}: at least {' and '.join(words)}"]
