"""Which columns of a table are features, which is the label, and which are only carried along.

Numeric columns are features, others are carried along. A column that numbers the rows must not become a feature: it
would let a classifier look up the order of the file.
"""

import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from poise.data.tables.reader_contract import LABEL_NAMES, Ask, listed
from poise.errors import InputError, PoiseWarning
from poise.values.wording import near

# Compared in lower case; the last two are what pandas calls an index that was saved.
ROW_NUMBER_NAMES = frozenset({"id", "idx", "index", "row", "rowid", "row_id", "row_number", "sample_id", "image_id"})
MOST = 2**17  # columns of a table
ROW_NUMBER_STARTS = ("unnamed:", "__index_level_")


class Roles(NamedTuple):
    """Names of the columns by what they are for, and remarks about the choice; `label` only if one is needed."""

    features: tuple[str, ...]
    label: str | None
    group: str | None
    extra: tuple[str, ...]
    notes: tuple[str, ...]


def check_header(path: Path, names: Sequence[str]) -> None:
    """Raises: InputError for a column without name (the first one may have none) or a name that occurs twice."""
    if len(names) > MOST:
        raise InputError(f"{path} has {len(names)} columns, more than the {MOST} that a table may; save a .npz instead")
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        if not name and i > 0:
            raise InputError(f"{path}: column {i + 1} has no name in line 1; name it, or delete the column")
        if (first := seen.setdefault(name, i)) < i:
            raise InputError(f"{path}: columns {first + 1} and {i + 1} are both called {name!r} in line 1; rename one")


def named(path: Path, name: str, names: Collection[str]) -> str:
    """The name itself. Raises: InputError if no column is called so."""
    if name not in names:
        raise InputError(f"{path} has no column {name!r}{near(name, names) or ';'} its columns are {listed(names)}")
    return name


def only(path: Path, likely: Sequence[str], purpose: str, option: str) -> str | None:
    """The one column of those that could serve the purpose, or None. Raises: InputError for several."""
    if len(likely) > 1:
        raise InputError(f"{path}: the {purpose} could be in {listed(likely)}; name the column {option}", option)
    return likely[0] if likely else None


def no_label(path: Path, names: Sequence[str], option: str) -> InputError:
    """What to raise where no column can be the label."""
    return InputError(
        f"{path} has no column that is called label or class; name the right one {option}; its columns are "
        f"{listed(names)}",
        option,
    )


def roles(path: Path, numeric: Mapping[str, bool], ask: Ask) -> Roles:
    """What each column is for; `numeric` says of each whether it holds numbers, in the order of the file.

    Raises: InputError for a wanted column that does not exist, no column or several that could be the label, or no
    feature at all. Warns (PoiseWarning) about numeric columns left out because they number the rows.
    """
    for name in (*ask.ignore, *(ask.columns or ())):
        named(path, name, numeric)
    left = {name: is_number for name, is_number in numeric.items() if name not in ask.ignore}
    label = _label(path, left, ask)
    if ask.group_column is not None:
        named(path, ask.group_column, left)
    rest = [name for name in left if name not in (label, ask.group_column)]
    features = ask.columns or tuple(n for n in rest if left[n] and not _numbers_rows(n))
    if not features:
        raise InputError(f"{path} has no numeric column for features; its columns are {listed(numeric)}")
    chosen = set(features)
    extra = [name for name in rest if name not in chosen]
    if label is not None and not ask.needs_label:
        extra.append(label)  # rows to be predicted may come with labels; they travel with the rows
    return Roles(
        features,
        label if ask.needs_label else None,
        ask.group_column,
        tuple(extra),
        _remarks(path, extra, left, label, ask),
    )


def _label(path: Path, names: Mapping[str, bool], ask: Ask) -> str | None:
    if ask.label_column is not None:
        return named(path, ask.label_column, names)
    likely = [name for name in names if name.lower() in LABEL_NAMES and name not in (ask.columns or ())]
    found = only(path, likely, "label", "(label_column=)")
    if found is None and ask.needs_label:
        told = sorted(names, key=lambda name: names[name])  # text before numbers: the labels are probably text
        raise no_label(path, told, "(label_column=)")
    return found


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
    told = {*counting, label}
    if others := [name for name in extra if name not in told]:
        notes.append(f"{path}: carried along, not features: {listed(others)}")
    return tuple(notes)


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
