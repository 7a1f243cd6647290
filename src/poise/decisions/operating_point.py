"""`OperatingPoint`: what is done with logits, as a value of plain numbers.

A head gives logits; an operating point says what a miss of each class costs, below which confidence no answer is
given, and which set of classes is named beside the answer. It travels inside a deployed model, and `decide`
applies it to any logits.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from poise.errors import InputError
from poise.machine.documents import check_schema
from poise.values.checks import is_number
from poise.values.fields import Kind, number, whole

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
        check_schema("this operating point", data.get("schema"), POINT_SCHEMA, "write it again")
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
SHARE = number("(0, 1]")
_CONFIDENCE = number("[0, 1]").said("a confidence between 0 and 1")
ALPHA = number("(0, 1)").said("the share of rows whose class may be missing, above 0 and below 1")


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
    "alpha": lambda name, v: float(ALPHA.check(name, v)),
}
