"""Which columns of a table are features, which is the label, and which are only carried along.

Numeric columns are features, others are carried along. A column that numbers the rows must not become a feature: it
would let a classifier look up the order of the file.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from poise.data.tables.source import LABEL_NAMES, Ask, listed
from poise.errors import InputError, PoiseWarning
from poise.values.wording import near

# Compared in lower case; the last two are what pandas calls an index that was saved.
ROW_NUMBER_NAMES = frozenset({"id", "idx", "index", "row", "rowid", "row_id", "row_number", "sample_id", "image_id"})
ROW_NUMBER_STARTS = ("unnamed:", "__index_level_")


class Roles(NamedTuple):
    """Names of the columns by what they are for, and remarks about the choice."""

    features: tuple[str, ...]
    label: str | None
    group: str | None
    extra: tuple[str, ...]
    notes: tuple[str, ...]


def check_header(path: Path, names: Sequence[str]) -> None:
    """Raises: InputError for a column without name (the first one may have none) or a name that occurs twice."""
    for i, name in enumerate(names):
        if not name and i > 0:
            raise InputError(f"{path}: column {i + 1} has no name in line 1; name it, or delete the column")
        if (first := names.index(name)) < i:
            raise InputError(f"{path}: columns {first + 1} and {i + 1} are both called {name!r} in line 1; rename one")


def roles(path: Path, numeric: Mapping[str, bool], ask: Ask) -> Roles:
    """What each column is for; `numeric` says of each whether it holds numbers, in the order of the file.

    Raises: InputError for a wanted column that does not exist, no column or several that could be the label, or no
    feature at all. Warns (PoiseWarning) about numeric columns left out because they number the rows.
    """
    for name in (*ask.ignore, *(ask.columns or ())):
        if name not in numeric:
            raise InputError(_no_column(path, name, numeric))
    left = {name: is_number for name, is_number in numeric.items() if name not in ask.ignore}
    label = _label(path, left, ask)
    if ask.group_column is not None and ask.group_column not in left:
        raise InputError(_no_column(path, ask.group_column, left))
    rest = [name for name in left if name not in (label, ask.group_column)]
    features = ask.columns or tuple(n for n in rest if left[n] and not _numbers_rows(n))
    if not features:
        raise InputError(f"{path} has no numeric column for features; its columns are {listed(numeric)}")
    extra = [name for name in rest if name not in features]
    if label is not None and not ask.needs_label:
        extra.append(label)  # rows to be predicted may come with labels; they travel with the rows
    return Roles(features, label, ask.group_column, tuple(extra), _remarks(path, extra, left, label, ask))


def _label(path: Path, names: Mapping[str, bool], ask: Ask) -> str | None:
    if ask.label_column is not None:
        if ask.label_column not in names:
            raise InputError(_no_column(path, ask.label_column, names))
        return ask.label_column
    found = [name for name in names if name.lower() in LABEL_NAMES and name not in (ask.columns or ())]
    if len(found) == 1 or (not found and not ask.needs_label):
        return found[0] if found else None
    told = sorted(names, key=lambda name: names[name])  # text before numbers: the labels are probably text
    state = f"could take its labels from {listed(found)}" if found else "has no column that is called label"
    raise InputError(
        f"{path} {state}; name the right one (label_column=); its columns are {listed(told)}", "(label_column=)"
    )


def _numbers_rows(name: str) -> bool:
    small = name.lower()
    return not small or small in ROW_NUMBER_NAMES or small.startswith(ROW_NUMBER_STARTS)


def _remarks(
    path: Path, extra: Sequence[str], numeric: Mapping[str, bool], label: str | None, ask: Ask
) -> tuple[str, ...]:
    notes = []
    counting = [] if ask.columns else [name for name in extra if numeric[name] and name != label]
    if counting:
        shown = listed(name or "(no name)" for name in counting)
        notes.append(f"{path}: {shown} looks like a row number and is no feature; if it is one, rename it")
        warnings.warn(notes[0], PoiseWarning, stacklevel=6)
    if label in extra:
        notes.append(f"{path}: {label!r} is taken for the label and is no feature")
    if others := [name for name in extra if name not in (*counting, label)]:
        notes.append(f"{path}: carried along, not features: {listed(others)}")
    return tuple(notes)


def _no_column(path: Path, name: str, names: Mapping[str, bool]) -> str:
    return f"{path} has no column {name!r}{near(name, names) or ';'} its columns are {listed(names)}"


def single_precision(
    path: Path, values: npt.NDArray[np.float64], columns: Sequence[str], rows: Sequence[int], word: str = "line"
) -> npt.NDArray[np.float32]:
    """Values (N, D) as float32; `rows` are the numbers of the lines (or other `word`) that they stand in.

    Raises: InputError naming the line and column of the first value that is NaN, infinite or too large.
    """
    with np.errstate(over="ignore"):
        x = values.astype(np.float32)
    bad = ~np.isfinite(x)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        place = f"{path}, {word} {rows[row]}, column {columns[column]!r}"
        raise InputError(
            f"{place}: {values[row, column]} is no finite float32 number; fix the cell, or delete the {word}"
        )
    return x
