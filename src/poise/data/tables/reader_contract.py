"""What every reader returns, and what a reader is asked for."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

# What the labels are called where nobody says so, in lower case: a column of a table or an array of a file.
LABEL_NAMES = ("y", "labels", "label", "targets", "target", "class", "category")
DELIMITED = (".csv", ".tsv")  # may be packed as .gz
ROWS = ("x", "features", "X", "embeddings")  # what the features are called in a file of arrays


class Ask(NamedTuple):
    """What is wanted of a file.

    `columns` are the features by name, in this order; None lets the reader choose. `key` chooses among several sets
    of arrays in one file. `needs_label` makes a file without labels an error.
    """

    label_column: str | None = None
    group_column: str | None = None
    key: str | None = None
    ignore: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None
    needs_label: bool = True


class Source(NamedTuple):
    """The rows of a file as they are there: labels not yet numbered, nothing checked that needs the labels.

    `x` (N, D) or (V, N, D), an array if the file is a table; `labels` (N,) integers or text; `counts` (C,) and
    `class_names` if the file holds them; `extra` columns to carry through, (N,) each; `lines` the line number of each
    row, for files that people edit.
    """

    path: Path
    x: "Tensor | npt.NDArray[Any]"
    labels: npt.NDArray[Any] | None = None
    groups: npt.NDArray[Any] | None = None
    counts: "Tensor | None" = None
    class_names: tuple[str, ...] | None = None
    seen_by_backbone: bool | None = None
    weight: "Tensor | None" = None
    names: tuple[str, ...] | None = None
    extra: Mapping[str, tuple[Any, ...]] = {}
    notes: tuple[str, ...] = ()
    lines: Sequence[int] | None = None

    def row(self, number: int) -> str:
        """Name of a row for people: its line in the file if it has one."""
        return f"row {number}" if self.lines is None else f"line {self.lines[number]}"

    def place(self, number: int) -> str:
        """File and row."""
        return f"{self.path}, {self.row(number)}"


def kind_of(path: Path) -> str:
    """The end of a file's name, in lower case, that says how a table is read: packed with gzip, the one before .gz.

    >>> kind_of(Path("birds.CSV.gz")), kind_of(Path("birds.v2.tsv")), kind_of(Path("birds.npz.gz"))
    ('.csv', '.tsv', '.gz')
    """
    inner = path.with_suffix("").suffix.lower() if path.suffix.lower() == ".gz" else ""
    return inner if inner in DELIMITED else path.suffix.lower()


def listed(names: Iterable[str], most: int = 12) -> str:
    """The names with commas, cut off after `most`."""
    items = list(names)
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(repr(name) for name in items[:most]) + rest
