"""`Features`: the feature rows of one split.

The values of this package are frozen: change is a new value. Symbols, here and everywhere: N rows, B batch, C
classes, D feature dimension, G heads trained at once, V stored views.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from poise.errors import InputError
from poise.values.arrays import as_values, as_weights, row_blocks
from poise.values.checks import check_names
from poise.values.counts import ClassCounts, as_counts, as_labels
from poise.values.notebook import html_table
from poise.values.wording import counted

SHOWN = 5  # of the most frequent classes, and as many of the rarest, in a notebook
SEEN = {True: "seen by the backbone", False: "not seen by the backbone", None: "perhaps seen by the backbone"}


@dataclass(frozen=True, eq=False, repr=False)
class Features:
    """Feature rows of one split.

    `x` (V, N, D), or (N, D) for a single view, of any floating-point type; x[0] is the test-time transform. `y` (N,)
    int64. `counts` are those of the TRAINING split, whatever split this is. `seen_by_backbone` tells whether these rows
    trained the representation: such rows may train heads, but never select, calibrate or estimate a prior. `weight`
    (N,) float64 says how often each row counts in a fit: 2 is the row twice, 0 the row left out; None is 1 for all. The
    class counts stay as given, so give those of the weights (`ClassCounts.from_labels(y, C, weight)`); scores count
    rows alike.

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
        check_names(names or ())
        weight = None if self.weight is None else as_weights(self.weight, len(y)).to(x.device)
        for field, value in (("x", x), ("y", y), ("counts", counts), ("class_names", names), ("weight", weight)):
            object.__setattr__(self, field, value)

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        return f"<Features: {self._in_words()}>"

    def _in_words(self) -> str:
        dtype = str(self.x.dtype).removeprefix("torch.")
        views = f"{len(self.x)} views of " if len(self.x) > 1 else ""
        of = f"{views}{self.dim} {dtype} numbers, {counted(len(self.counts), 'class', 'classes')}"
        weighted = ", weighted" if self.weight is not None else ""
        return f"{counted(len(self), 'row')} of {of}, {SEEN[self.seen_by_backbone]}{weighted}"

    def _repr_html_(self) -> str:
        trained = self.counts.n
        here = torch.bincount(self.y, minlength=len(trained))
        order = trained.argsort(descending=True, stable=True).tolist()
        lines = [(self.names[k], str(int(trained[k])), str(int(here[k]))) for k in order]
        if len(lines) > 2 * SHOWN + 1:
            between = (f"{len(lines) - 2 * SHOWN} classes between", "", "")
            lines = [*lines[:SHOWN], between, *lines[-SHOWN:]]
        return html_table(("class", "training rows", "rows here"), lines, title=f"Features: {self._in_words()}")

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


def _refuse_not_finite(x: Tensor) -> None:
    for number, view in enumerate(x):
        for first, rows in row_blocks(view):
            bad = ~torch.isfinite(rows).all(dim=-1)
            if bad.any():
                row = first + int(bad.nonzero()[0])
                raise InputError(
                    f"feature row {row} of view {number} holds NaN or infinity; extract it anew or drop the row"
                )
