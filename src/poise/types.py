"""The values that Poise computes with: `ClassCounts`, `Prep`, `Head`, `Features`, `Problem`, `Scores`.

All are frozen: change is a new value. Symbols, here and everywhere: N rows, B batch, C classes, D feature dimension,
G heads trained at once, V stored views.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from poise.distributed import ALONE, World
from poise.errors import InputError
from poise.files import write_atomically

__all__ = ["ClassCounts", "Features", "Head", "Prep", "Problem", "Scores", "as_counts", "row_blocks", "row_slices"]

HEAD_SCHEMA = 1
READ_NUMBERS = 2**24  # of features that are looked at at a time


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """Training rows per class: `n` (C,) int64. Zero is allowed and is clamped to 1 in formulas.

    Raises: InputError for fewer than two classes, a negative count, a count that is no integer, or no row at all.
    """

    n: Tensor

    def __post_init__(self) -> None:
        given = torch.as_tensor(self.n)
        n = given.to(torch.int64)
        if n.ndim != 1 or len(n) < 2:
            raise InputError(
                f"class counts need one number per class for at least 2 classes, got shape {tuple(n.shape)}"
            )
        if given.is_floating_point() and not torch.equal(n.to(given.dtype), given):
            raise InputError("class counts are whole numbers of training rows; got fractions")
        if (n < 0).any():
            k = int((n < 0).nonzero()[0])
            raise InputError(f"class {k} has the count {int(n[k])}; counts are 0 or more")
        if int(n.sum()) == 0:
            raise InputError("all class counts are 0; give the counts of the training split")
        object.__setattr__(self, "n", n)

    @classmethod
    def from_labels(cls, y: Tensor | Sequence[int], num_classes: int | None = None) -> "ClassCounts":
        """Count integer labels `y` (N,); `num_classes` keeps trailing classes that have no row."""
        labels = as_labels(y, num_classes)
        return cls(torch.bincount(labels, minlength=num_classes or 0))

    def __len__(self) -> int:
        return len(self.n)

    @cached_property
    def clamped(self) -> Tensor:
        """(C,) float64 counts of at least 1, for formulas."""
        return self.n.clamp_min(1).double()

    @cached_property
    def prior(self) -> Tensor:
        """(C,) float64 class frequencies n_k / N of the clamped counts; they sum to 1."""
        return self.clamped / self.clamped.sum()

    @property
    def imbalance(self) -> float:
        """Largest count divided by the smallest (clamped) one."""
        return float(self.clamped.max() / self.clamped.min())

    def shots(self, many: int = 100, few: int = 20) -> dict[str, Tensor]:
        """Boolean masks (C,) of the groups: many n > `many`, medium `few` <= n <= `many`, few n < `few`."""
        if few > many + 1:
            raise InputError(f"group edges must satisfy few <= many + 1, got many={many}, few={few}")
        above, below = self.n > many, self.n < few
        return {"many": above, "medium": ~above & ~below, "few": below}


def as_counts(counts: ClassCounts | Tensor | Sequence[int]) -> ClassCounts:
    """`counts` itself, or the ClassCounts of a (C,) integer array."""
    return counts if isinstance(counts, ClassCounts) else ClassCounts(torch.as_tensor(counts))


def as_values(what: str, values: Any, *, finite: bool = True) -> Tensor:
    """`values` as a floating-point tensor without gradient; an array or list is copied, so that no one can change it.

    Raises: InputError if they are no numbers, not of a floating-point type, or (with `finite`) NaN or infinite.
    """
    try:
        tensor = values.detach() if isinstance(values, Tensor) else torch.tensor(np.array(values))
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} must be numbers: {error}") from None
    if not tensor.is_floating_point():
        raise InputError(f"{what} must be of a floating-point type, got {tensor.dtype}; convert with .float()")
    if finite and not torch.isfinite(tensor).all():
        raise InputError(f"{what} holds NaN or infinity")
    return tensor


def as_labels(labels: Any, num_classes: int | None) -> Tensor:
    """Labels as (N,) int64. Raises: InputError naming the first row that is no class index."""
    try:
        y = labels if isinstance(labels, Tensor) else torch.tensor(np.array(labels))
    except (TypeError, ValueError):
        raise InputError("labels are integers 0, 1, ...; encode names with sklearn's LabelEncoder first") from None
    if y.ndim != 1:
        raise InputError(f"labels are one integer per row, got shape {tuple(y.shape)}")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise InputError(f"labels are integers 0, 1, ..., got {y.dtype}; convert whole numbers with .long()")
    bad = (y < 0) if num_classes is None else (y < 0) | (y >= num_classes)
    if bad.any():
        row = int(bad.nonzero()[0])
        most = "" if num_classes is None else f" and below {num_classes}, the number of classes"
        raise InputError(f"row {row} has label {int(y[row])}; labels are 0 or more{most}")
    return y.to(torch.int64)


def as_weights(weights: Any, rows: int) -> Tensor:
    """Row weights as (N,) float64. Raises: InputError unless they are finite, 0 or more, not all 0, one per row."""
    try:
        weight = torch.as_tensor(weights if isinstance(weights, Tensor) else np.array(weights)).detach().double()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"row weights must be numbers: {error}") from None
    if weight.shape != (rows,):
        raise InputError(f"row weights need one number per row, got shape {tuple(weight.shape)} for {rows} rows")
    bad = ~torch.isfinite(weight) | (weight < 0)
    if bad.any():
        row = int(bad.nonzero()[0])
        raise InputError(f"row {row} has the weight {float(weight[row])}; weights are finite and 0 or more")
    if not weight.any():
        raise InputError("all row weights are 0, which leaves no row; give at least one a positive weight")
    return weight


def classes_in(y: Tensor) -> int:
    """How many classes have rows among the labels y (N,)."""
    return int((torch.bincount(y) > 0).sum())


@dataclass(frozen=True, eq=False)
class Prep:
    """What happens to features before the linear map: subtract `centre` (D,), then divide by the row norm if `unit`.

    A centre alone folds into a head's bias; unit norm does not, and `Head.folded` says so. A scalar factor never needs
    to be kept: without `unit` it belongs into the weights, with `unit` it has no effect.
    """

    centre: Tensor | None = None
    unit: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D); a zero row stays zero."""
        shifted = x if self.centre is None else x - self.centre.to(x)
        return torch.nn.functional.normalize(shifted, dim=-1) if self.unit else shifted


@dataclass(frozen=True, eq=False)
class Head:
    """A linear classifier: `weight` (..., C, D), `bias` (..., C) or None for zeros, and an optional `prep` of features.

    The parameters of a torch layer can be given as they are; the head keeps their values, not their gradients.

    Calling it on x (N, D) returns logits (..., N, C), any scale included, computed in the dtype of the weight. Leading
    dimensions hold several heads (of one pass, or of one head's path over epochs); indexing selects among them.
    """

    weight: Tensor
    bias: Tensor
    prep: Prep | None = None

    def __post_init__(self) -> None:
        weight = as_values("a head's weight", self.weight)
        bias = weight.new_zeros(weight.shape[:-1])
        if self.bias is not None:
            bias = as_values("a head's bias", self.bias).to(weight.dtype)
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", bias)
        if self.weight.ndim < 2 or self.weight.shape[:-1] != self.bias.shape:
            raise InputError(
                f"a head needs weight (..., C, D) and bias (..., C), got {tuple(self.weight.shape)} and "
                f"{tuple(self.bias.shape)}"
            )

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return self.weight.shape[-2]

    @property
    def dim(self) -> int:
        """Feature dimension D."""
        return self.weight.shape[-1]

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (..., N, C) of feature rows x (N, D)."""
        if x.shape[-1] != self.dim:
            raise InputError(f"the head reads {self.dim} features per row, these rows have {x.shape[-1]}")
        rows = x.to(self.weight)
        rows = rows if self.prep is None else self.prep(rows)
        return rows @ self.weight.mT + self.bias.unsqueeze(-2)

    def __len__(self) -> int:
        """Number of heads in a stack."""
        if self.weight.ndim < 3:
            raise TypeError("this is one head; only a stack of heads has a length")
        return len(self.weight)

    def __getitem__(self, index: int | slice) -> "Head":
        if self.weight.ndim < 3:
            raise IndexError("this is one head; only a stack of heads can be indexed")
        return replace(self, weight=self.weight[index], bias=self.bias[index])

    def scaled(self, factor: Tensor | float) -> "Head":
        """The head whose logits are multiplied by `factor`: one number, or one per class (C,)."""
        rows = torch.as_tensor(factor, dtype=self.bias.dtype, device=self.bias.device).expand_as(self.bias)
        return replace(self, weight=self.weight * rows.unsqueeze(-1), bias=self.bias * rows)

    def shifted(self, delta: Tensor | float) -> "Head":
        """The head whose logits have `delta` added: one number, or one per class (C,)."""
        added = torch.as_tensor(delta, dtype=self.bias.dtype, device=self.bias.device)
        return replace(self, bias=self.bias + added)

    def to(self, dtype: torch.dtype) -> "Head":
        """The same head in another floating-point type."""
        centre = None if self.prep is None or self.prep.centre is None else self.prep.centre.to(dtype)
        prep = None if self.prep is None else replace(self.prep, centre=centre)
        return Head(self.weight.to(dtype), self.bias.to(dtype), prep)

    def folded(self) -> "Head":
        """The equivalent head without `prep`.

        Raises: InputError when features are normalised to unit length, which no plain linear layer can do.
        """
        if self.prep is None:
            return self
        if self.prep.unit:
            raise InputError(
                "this head divides each feature row by its norm, which a plain (weight, bias) cannot express; "
                "keep the head, or choose a method on raw features"
            )
        if self.prep.centre is None:
            return replace(self, prep=None)
        return Head(self.weight, self.bias - self.weight @ self.prep.centre.to(self.weight))

    def save(self, path: str | Path, *, metadata: Mapping[str, str] | None = None) -> Path:
        """Write the head as one safetensors file (no pickle), atomically; `load` reads it back bit for bit."""
        prep = self.prep or Prep()
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}
        if prep.centre is not None:
            tensors["centre"] = prep.centre.contiguous()
        own = {"format": "poise.head", "schema": str(HEAD_SCHEMA), "unit": json.dumps(prep.unit)}
        header = {**(metadata or {}), **own}
        return write_atomically(Path(path), _in_order(save(tensors, header)))

    @classmethod
    def load(cls, path: str | Path) -> "Head":
        """Read what `save` wrote. Raises: InputError naming the file when it is missing, damaged or something else."""
        try:
            with safe_open(str(path), framework="pt") as file:
                header = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} cannot be read as a head: {error}") from None
        if header.get("format") != "poise.head":
            raise InputError(f"{path} is a safetensors file but no head saved by Poise")
        if not {"weight", "bias"} <= set(tensors) or not header.get("schema", "").isdigit():
            raise InputError(f"{path} is not a whole head: weight, bias or schema is missing")
        if int(header["schema"]) > HEAD_SCHEMA:
            raise InputError(
                f"{path} has schema {header['schema']}, this version reads up to {HEAD_SCHEMA}; update poise"
            )
        prep = Prep(tensors.get("centre"), json.loads(header["unit"]))
        return cls(tensors["weight"], tensors["bias"], prep if prep.unit or prep.centre is not None else None)


def _in_order(content: bytes) -> bytes:
    """A safetensors file whose metadata are sorted: the library writes them in an order that changes between calls."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8, as the format asks
    return len(text).to_bytes(8, "little") + text + content[end:]


@dataclass(frozen=True, eq=False)
class Features:
    """Feature rows of one split.

    `x` (V, N, D), or (N, D) for a single view, of any floating-point type; x[0] is the test-time transform. `y` (N,)
    int64. `counts` are those of the TRAINING split, whatever split this is. `seen_by_backbone` tells whether these rows
    trained the representation: such rows may train heads, but never select, calibrate or estimate a prior. `weight`
    (N,) float64 says how often each row counts in a fit: 2 is the row twice, 0 the row left out; None is 1 for all. The
    class counts stay as given, and scores count rows alike.

    Raises: InputError naming the first row that is not finite or has no valid label or weight.
    """

    x: Tensor
    y: Tensor
    counts: ClassCounts
    seen_by_backbone: bool | None = None
    class_names: tuple[str, ...] | None = None
    weight: Tensor | None = None

    def __post_init__(self) -> None:
        x = as_values("features", self.x, finite=False)
        counts = as_counts(self.counts)
        views = x.unsqueeze(0) if x.ndim == 2 else x
        if views.ndim != 3 or len(views) == 0 or views.shape[2] == 0 or not x.is_floating_point():
            raise InputError(f"features are floating-point (N, D) or (V, N, D), got {x.dtype} {tuple(x.shape)}")
        x = views
        y = as_labels(self.y, len(counts))
        if len(y) != x.shape[1] or len(y) == 0:
            raise InputError(
                f"features have {x.shape[1]} rows and labels {len(y)}; both need the same number, at least 1"
            )
        _refuse_not_finite(x)
        names = None if self.class_names is None else tuple(self.class_names)
        if names is not None and len(names) != len(counts):
            raise InputError(f"{len(names)} class names for {len(counts)} classes")
        weight = None if self.weight is None else as_weights(self.weight, len(y)).to(x.device)
        for field, value in (("x", x), ("y", y), ("counts", counts), ("class_names", names), ("weight", weight)):
            object.__setattr__(self, field, value)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def dim(self) -> int:
        """Feature dimension D."""
        return self.x.shape[-1]

    @property
    def names(self) -> tuple[str, ...]:
        """The class names, or the numbers of the classes where there are none."""
        return self.class_names or tuple(str(k) for k in range(len(self.counts)))

    def same_rows(self, other: "Features") -> bool:
        """Have both the same content?"""
        return self is other or (len(self) == len(other) and self.key == other.key)

    @property
    def dtype(self) -> torch.dtype:
        """Type of heads and arithmetic on these rows: float64 for float64 rows, float32 for all narrower ones."""
        return torch.float64 if self.x.dtype == torch.float64 else torch.float32

    @property
    def training_views(self) -> Tensor:
        """(V', N, D): the views that heads are trained on: all but the test-time one, or that one if it is alone."""
        return self.x[1:] if len(self.x) > 1 else self.x

    def take(self, rows: Tensor) -> "Features":
        """The features of some rows, with the same training counts."""
        weight = None if self.weight is None else self.weight[rows]
        return replace(self, x=self.x[:, rows], y=self.y[rows], weight=weight)

    @cached_property
    def key(self) -> str:
        """Content hash (16 hex digits) over values, labels, counts and shape, and over weights if there are any."""
        digest = hashlib.sha256(f"{self.x.dtype}{tuple(self.x.shape)}".encode())
        others = (self.y, self.counts.n, *(() if self.weight is None else (self.weight,)))
        for tensor in (*(part for view in self.x for _, part in row_blocks(view)), *others):
            digest.update(tensor.contiguous().cpu().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]


def row_slices(start: int, stop: int, size: int) -> Iterator[slice]:
    """Neighbouring slices from `start` to before `stop`: of `size` rows, at least 1, the last of no more."""
    for first in range(start, stop, max(1, size)):
        yield slice(first, min(first + max(1, size), stop))


def row_blocks(view: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Some rows of a view (N, D) after the other, each with the number of the first: for rows that fill the memory."""
    for part in row_slices(0, len(view), READ_NUMBERS // view.shape[-1]):
        yield part.start, view[part]


def _refuse_not_finite(x: Tensor) -> None:
    for number, view in enumerate(x):
        for first, rows in row_blocks(view):
            bad = ~torch.isfinite(rows).all(dim=-1)
            if bad.any():
                row = first + int(bad.nonzero()[0])
                raise InputError(
                    f"feature row {row} of view {number} holds NaN or infinity; extract it anew or drop the row"
                )


@dataclass(frozen=True, eq=False)
class Problem:
    """What a method is given: training features, the stage-1 head if there is one, unseen rows if there are any.

    `world` are the processes that share the work; each is given the same problem.
    """

    train: Features
    head: Head | None = None
    held_out: Features | None = None
    world: World = ALONE

    def __post_init__(self) -> None:
        classes, dim = len(self.train.counts), self.train.dim
        if self.head is not None and (self.head.classes, self.head.dim) != (classes, dim):
            raise InputError(
                f"the stage-1 head has {self.head.classes} classes and {self.head.dim} features, "
                f"the training rows have {classes} and {dim}"
            )
        weight = self.train.weight
        if classes_in(self.train.y if weight is None else self.train.y[weight > 0]) < 2:
            raise InputError("the training rows are all of one class; a classifier needs rows of at least two")
        if self.held_out is not None and (len(self.held_out.counts), self.held_out.dim) != (classes, dim):
            raise InputError(
                f"the held-out rows have {len(self.held_out.counts)} classes and {self.held_out.dim} features, the "
                f"training rows have {classes} and {dim}"
            )


@dataclass(frozen=True)
class Scores:
    """Measures of one classifier on one split; fractions in [0, 1], and None where there is nothing to measure.

    `accuracy` over rows; `balanced_accuracy` over classes with at least one row; `many`, `medium`, `few`: mean recall
    of the group's classes that have rows; `per_class` recalls; `macro_f1` over classes that occur in labels or
    predictions; `nll` in nats; `ece` with 15 equal bins of the largest probability.
    """

    accuracy: float
    balanced_accuracy: float
    many: float | None
    medium: float | None
    few: float | None
    macro_f1: float
    nll: float
    ece: float
    per_class: tuple[float | None, ...]
    rows: int

    def to_dict(self) -> dict[str, Any]:
        """The same numbers as plain JSON types."""
        return {**self.__dict__, "per_class": list(self.per_class)}
