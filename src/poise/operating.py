"""Operating points: what turns logits into decisions, and how each part of it is chosen on held-out rows.

A head gives logits; an `OperatingPoint` says what is done with them: what a miss of each class costs, below which
confidence no answer is given, and which set of classes is named beside the answer. It is a value of plain numbers, so
that it travels inside a deployed artefact, and `decide` applies it to any logits.

Posteriors are softmax values of the logits as they are. They mean what they say for the class prior that the head is
meant for, and as far as it is calibrated. Every function that chooses something wants logits of rows that neither the
backbone nor the head was trained on; `poise.choose` holds the rows and refuses others.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poise.checks import is_number, is_whole
from poise.errors import InputError
from poise.fields import Kind, number, whole
from poise.types import ClassCounts, as_counts, as_labels

__all__ = [
    "ABSTAIN",
    "Curve",
    "Decisions",
    "OperatingPoint",
    "class_thresholds",
    "conformal_quantiles",
    "coverage_accuracy",
    "coverage_curve",
    "decide",
    "prediction_sets",
    "rows_as",
    "threshold_for",
]

ABSTAIN = -1
POINT_SCHEMA = 1

Costs = tuple[float, ...] | tuple[tuple[float, ...], ...]
PerClass = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """What happens after the logits; a field that is None changes nothing. Tensors and arrays become plain numbers.

    `costs` (C,), all positive: what missing a row of class k costs, whatever is answered instead; or (C, C), 0 or more:
    entry [k, j] is the cost of answering j for a row of class k. `abstain`: no answer below this confidence.
    `thresholds` (C,): no answer k below this confidence; None or infinity where k is never confident enough. `top_k`:
    name the k best classes. `conformal` (C,) and `alpha`: name every class whose score -log posterior is at most its
    quantile; None or infinity where a class is always named (`conformal_quantiles`).

    Raises: InputError naming the field and the value.
    """

    costs: Costs | None = None
    abstain: float | None = None
    thresholds: PerClass | None = None
    top_k: int | None = None
    conformal: PerClass | None = None
    alpha: float | None = None

    def __post_init__(self) -> None:
        for name, read in _READERS.items():
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else read(name, value))
        if (self.conformal is None) != (self.alpha is None):
            raise InputError("conformal quantiles and their alpha belong together; give both or neither")
        if self.conformal is not None and self.top_k is not None:
            raise InputError("a set of classes is either the top k or conformal; give top_k or conformal, not both")
        lengths = {name: len(getattr(self, name)) for name in _PER_CLASS if getattr(self, name) is not None}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} for {length}" for name, length in lengths.items())
            raise InputError(f"the parts of an operating point differ in their number of classes: {told}")
        if self.top_k is not None and self.classes is not None and self.top_k > self.classes:
            raise InputError(f"top_k must be at most {self.classes}, the number of classes, got {self.top_k}")

    @property
    def classes(self) -> int | None:
        """Number of classes C that its parts are for; None if no part is per class."""
        return next((len(getattr(self, name)) for name in _PER_CLASS if getattr(self, name) is not None), None)

    @property
    def shift(self) -> Tensor | None:
        """(C,) float64 log costs of a cost per missed class; None without such costs.

        Answering the class of the least expected cost is then answering the largest logit after this shift: with cost
        c_k of missing k, the answer j costs sum_k c_k p_k - c_j p_j. So `head.shifted(point.shift)` decides the same
        without the costs. A full matrix has no such shift.
        """
        costs = torch.tensor(self.costs or (), dtype=torch.float64)
        return costs.log() if self.costs is not None and costs.ndim == 1 else None

    def described(self) -> list[str]:
        """What it changes, in words."""
        words = {
            "costs": "costs of misses",
            "abstain": "every row is answered" if not self.abstain else f"no answer below {_confidence(self.abstain)}",
            "thresholds": "a threshold per class",
            "top_k": f"the {self.top_k} best classes are named",
            "conformal": f"conformal sets at alpha {self.alpha}",
        }
        silent = {"abstain"} if self.abstain == 0 and self.thresholds is not None else set()  # those may not answer
        return [text for name, text in words.items() if getattr(self, name) is not None and name not in silent]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` is the inverse."""
        # asdict keeps tuples, and JSON has lists; infinity is already None here.
        return {"schema": POINT_SCHEMA, **{key: _listed(value) for key, value in asdict(self).items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "OperatingPoint":
        """What `to_dict` wrote. Raises: InputError for an unknown key, another schema or a value that does not fit."""
        if not isinstance(data, Mapping):
            raise InputError(f"an operating point is a table of keys and values, got {data!r}")
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(data) - {"schema", *names})
        if unknown:
            raise InputError(f"an operating point has no key {unknown[0]!r}; it has schema, {', '.join(names)}")
        schema: Any = data.get("schema")
        if not is_whole(schema) or schema < 1:
            raise InputError(f"an operating point says its schema, a whole number from 1 on; got {schema!r}")
        if schema > POINT_SCHEMA:
            raise InputError(
                f"this operating point has schema {schema}, this version reads up to {POINT_SCHEMA}; update poise"
            )
        return cls(**{key: value for key, value in data.items() if key != "schema"})


def _confidence(value: float) -> str:
    """A confidence in words: three digits, or as many more as tell it from 1."""
    texts = (f"{value:.{digits}g}" for digits in range(3, 18))
    return f"a confidence of {next((text for text in texts if float(text) < 1), '1')}"


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _items(name: str, values: Any) -> list[Any]:
    """The entries of a list, tuple, array or tensor, at least two."""
    items = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(items, list | tuple) or len(items) < 2:
        raise InputError(f"{name} need one entry per class for at least 2 classes, got {values!r}")
    return list(items)


def _read_costs(name: str, values: Any) -> Costs:
    rows = _items(name, values)
    if not isinstance(rows[0], list | tuple):
        return tuple(float(_PRICE.check(f"{name} of class {k}", value)) for k, value in enumerate(rows))
    for k, row in enumerate(rows):
        if not isinstance(row, list | tuple) or len(row) != len(rows):
            raise InputError(f"{name} must be (C,) or (C, C); row {k} has not {len(rows)} entries")
    return tuple(
        tuple(float(_COST.check(f"{name} of class {k}", value)) for value in row) for k, row in enumerate(rows)
    )


_PRICE = Kind("finite and above 0", lambda value: is_number(value) and value > 0)
_COST = Kind("finite and 0 or more", lambda value: is_number(value) and value >= 0)
_SHARE = number("(0, 1]")
_CONFIDENCE = number("[0, 1]").said("a confidence between 0 and 1")
_ALPHA = number("(0, 1)").said("the share of rows whose class may be missing, above 0 and below 1")


def _per_class(most: float, span: str) -> Callable[[str, Any], PerClass]:
    """A reader of entries in [0, most], or None for infinity."""
    entry = Kind(f"{span}, or None for infinity", lambda v: v is None or (is_number(v) and 0 <= v <= most))

    def read(name: str, values: Any) -> PerClass:
        entries = [None if value == math.inf else value for value in _items(name, values)]
        checked = [entry.check(f"{name} of class {k}", value) for k, value in enumerate(entries)]
        return tuple(None if value is None else float(value) for value in checked)

    return read


_PER_CLASS = ("costs", "thresholds", "conformal")
_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "costs": _read_costs,
    "abstain": lambda name, v: float(_CONFIDENCE.check(name, v)),
    "thresholds": _per_class(1.0, "between 0 and 1"),
    "top_k": lambda name, v: int(whole(1).check(name, v)),
    "conformal": _per_class(math.inf, "0 or more"),
    "alpha": lambda name, v: float(_ALPHA.check(name, v)),
}


# --- deciding --------------------------------------------------------------------------------------------------------


class Decisions(NamedTuple):
    """`label` (N,) int64, -1 where no answer is given; `confidence` (N,) float64; `sets` (N, C) bool or None.

    The confidence is the posterior of the class that is or would have been answered.
    """

    label: Tensor
    confidence: Tensor
    sets: Tensor | None


def decide(logits: Tensor, point: OperatingPoint) -> Decisions:
    """The decisions for logits (N, C): least expected cost, then abstention, then sets. Rows do not affect each other.

    The top k contain the answer. A conformal set depends on posteriors alone: it may lack the answer, and be empty.

    Raises: InputError if logits are not (N, C) and finite, or not of as many classes as the operating point.
    """
    _check_logits(logits)
    classes = logits.shape[1]
    if point.classes not in (None, classes):
        raise InputError(f"the operating point is for {point.classes} classes, the logits have {classes}")
    if point.top_k is not None and point.top_k > classes:
        raise InputError(f"top_k must be at most {classes}, the number of classes, got {point.top_k}")
    utility, label, confidence = _answers(logits, point)
    kept = torch.ones_like(label, dtype=torch.bool)
    if point.abstain is not None:
        kept &= confidence >= point.abstain
    if point.thresholds is not None:
        kept &= confidence >= _with_infinity(point.thresholds).to(logits.device)[label]
    return Decisions(torch.where(kept, label, ABSTAIN), confidence, _sets(logits, utility, point))


def _answers(logits: Tensor, point: OperatingPoint) -> tuple[Tensor, Tensor, Tensor]:
    """What is maximised (N, C), where it is largest (N,), and the posterior there (N,)."""
    log_p = logits.double().log_softmax(dim=-1)
    utility = logits.double()
    if point.shift is not None:
        utility = utility + point.shift.to(logits.device)
    elif point.costs is not None:
        utility = -(log_p.exp() @ torch.tensor(point.costs, dtype=torch.float64, device=logits.device))
    label = utility.argmax(dim=-1)
    return utility, label, log_p.gather(1, label.unsqueeze(1)).squeeze(1).exp()


def _sets(logits: Tensor, utility: Tensor, point: OperatingPoint) -> Tensor | None:
    if point.conformal is not None:
        return prediction_sets(logits, _with_infinity(point.conformal))
    if point.top_k is None:
        return None
    # A stable order gives ties to the lower class, as argmax does, so that the answer is among the top k.
    best = utility.argsort(dim=-1, descending=True, stable=True)[:, : point.top_k]
    return torch.zeros_like(utility, dtype=torch.bool).scatter(1, best, True)


def _with_infinity(values: PerClass) -> Tensor:
    """(C,) float64, infinity where the value is None."""
    return torch.tensor([math.inf if value is None else value for value in values], dtype=torch.float64)


def _check_logits(logits: Tensor) -> None:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or not logits.is_floating_point():
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"logits must be a floating-point tensor (N, C), got {shape}")
    bad = ~torch.isfinite(logits).all(dim=-1)
    if bad.any():
        raise InputError(f"row {int(bad.nonzero()[0])} of the logits is not finite")


def _check_rows(logits: Tensor, y: Tensor) -> Tensor:
    """The labels (N,), at least one, fitting finite logits (N, C)."""
    _check_logits(logits)
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
    label, confidence = _answers(logits, OperatingPoint(costs=costs))[1:]
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


def threshold_for(curve: Curve, *, accuracy: float | None = None, coverage: float | None = None) -> float:
    """The lowest threshold whose answered rows reach this accuracy, or the highest that keeps this coverage.

    On few rows the accuracy of the chosen point is optimistic: it is the best of many.

    Raises: InputError unless exactly one target in (0, 1] is given, or if no threshold reaches the accuracy.
    """
    if (accuracy is None) == (coverage is None):
        raise InputError("a threshold is chosen for an accuracy or for a coverage; give exactly one")
    name, target = ("coverage", coverage) if accuracy is None else ("accuracy", accuracy)
    _SHARE.check(name, target)
    assert target is not None
    if accuracy is None:
        return float(curve.thresholds[(curve.coverage >= target).nonzero().flatten()[-1]])
    reached = (curve.accuracy >= target).nonzero().flatten()
    if len(reached) == 0:
        raise InputError(
            f"no threshold reaches the accuracy {target:g} on the held-out rows; the best is "
            f"{float(curve.accuracy.max()):.4g}, ask for at most that"
        )
    return float(curve.thresholds[reached[0]])


def class_thresholds(
    logits: Tensor, y: Tensor, *, precision: float, weight: Tensor | None = None, costs: Any = None
) -> Tensor:
    """(C,) float64: per class, the lowest threshold at which its answers reach `precision` on held-out rows.

    0 where all its answers do. Infinity where no threshold does, which includes a class that is never answered: nothing
    shows that its answers would be right, and `decide` gives none. The precision is that of rows as they come, or as
    `weight` (N,) counts them (`rows_as`), and optimistic where a class has few. `costs` as in `OperatingPoint`.

    Raises: InputError if shapes disagree, logits are not finite, there is no row or precision is outside (0, 1].
    """
    y = _check_rows(logits, y)
    _SHARE.check("precision", precision)
    label, confidence = _answers(logits, OperatingPoint(costs=costs))[1:]
    heft = torch.ones_like(confidence) if weight is None else _check_weight(weight, y)
    result = torch.full((logits.shape[1],), math.inf, dtype=torch.float64)
    for k in set(label.tolist()):
        own = label == k
        result[k] = _lowest_threshold(confidence[own], (y[own] == k).double(), heft[own], precision)
    return result


def _check_weight(weight: Tensor, y: Tensor) -> Tensor:
    heft = weight.to(y.device).double()
    if heft.shape != y.shape or not torch.isfinite(heft).all() or (heft < 0).any() or not heft.any():
        raise InputError(f"weight needs one finite number per row, 0 or more and not all 0, for the {len(y)} rows")
    return heft


def _lowest_threshold(confidence: Tensor, right: Tensor, heft: Tensor, precision: float) -> float:
    order = confidence.argsort(descending=True, stable=True)
    confidence, right, heft = confidence[order], right[order], heft[order]
    last = torch.cat([confidence[1:] < confidence[:-1], confidence.new_ones(1, dtype=torch.bool)])
    reached = (right * heft).cumsum(0) / heft.cumsum(0) >= precision
    good = (reached & last).nonzero().flatten()
    if len(good) == 0:
        return math.inf
    lowest = int(good[-1])
    return 0.0 if lowest == len(right) - 1 else float(confidence[lowest])


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
    alpha = float(_ALPHA.check("alpha", alpha))
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


def prediction_sets(logits: Tensor, quantiles: Tensor) -> Tensor:
    """(N, C) bool: the classes whose score -log posterior is at most their quantile (C,). A set may be empty.

    Raises: InputError if shapes disagree or logits are not finite.
    """
    _check_logits(logits)
    if quantiles.shape != (logits.shape[1],):
        raise InputError(f"quantiles must be ({logits.shape[1]},) to fit the logits, got {tuple(quantiles.shape)}")
    return -logits.double().log_softmax(dim=-1) <= quantiles.to(logits.device)
