"""Labels as they stand in files, turned into class numbers 0..C-1.

Text is sorted to class names. Integers are class numbers if they are 0..C-1 or the classes are known; others, such as
0, 1, 5, become the classes "0", "1", "5". With the class names of another artefact, labels are matched by name.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poise.data.tables.reader_contract import listed
from poise.errors import InputError
from poise.machine.reading import sentence_for
from poise.values.wording import near

INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")
FRACTION = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")

Place = Callable[[int], str]


class Coded(NamedTuple):
    """Class numbers `y` (N,) int64 and the names they stand for; None where classes have no names."""

    y: npt.NDArray[np.int64]
    names: tuple[str, ...] | None


def code(
    labels: npt.NDArray[Any],
    place: Place,
    *,
    names: tuple[str, ...] | None,
    classes: int | None,
    close_gaps: bool = True,
) -> Coded:
    """Class numbers of labels (N,); `names` and `classes` are those that are known to belong to these labels.

    `place(row)` names a row in messages. Without `close_gaps`, integers of unknown classes stay as they are, for
    `match`.

    Raises: InputError naming the row and value of the first label that is empty, NaN, negative, a fraction, out of
    range or unknown.
    """
    if labels.ndim != 1:
        raise InputError(
            f"{place(0)}: labels are one per row, got shape {labels.shape}; use argmax(axis=1) for one-hot rows"
        )
    values = _integers_or_words(labels, place)
    if values.dtype == object:
        return _words(values, place, names)
    numbered = _integers(values, place, names, len(names) if names is not None else classes)
    return numbered if classes is not None or names is not None or not close_gaps else _without_gaps(numbered.y)


def match(coded: Coded, target: Sequence[str], place: Place) -> Coded:
    """The same labels numbered by the class names of another artefact; classes without a row are kept.

    Labels without names are matched as text where any target name is a number, and are taken for numbers of the
    target's classes otherwise.

    Raises: InputError for a target name that occurs twice or a label that is none of them.
    """
    names = tuple(target)
    if twice := sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []:
        raise InputError(f"the class name {twice[0]!r} is given twice")
    if coded.names is None and not any(INTEGER.fullmatch(name) for name in names):
        return _integers(coded.y, place, names, len(names))
    present, inverse = np.unique(coded.y, return_inverse=True)
    own = [str(k) if coded.names is None else coded.names[k] for k in present.tolist()]
    number = {name: k for k, name in enumerate(names)}
    y = np.array([number.get(name, -1) for name in own], dtype=np.int64)[inverse]
    if (y < 0).any():
        row = int(np.argmax(y < 0))
        raise InputError(_unknown(own[inverse[row]], names, place(row)))
    return Coded(y, names)


def _integers_or_words(labels: npt.NDArray[Any], place: Place) -> npt.NDArray[Any]:
    """(N,) int64, or object holding text."""
    if labels.dtype.kind in "iu":
        beyond = labels > np.iinfo(np.int64).max
        if beyond.any():
            row = int(np.argmax(beyond))
            raise InputError(f"{place(row)}: the label is {labels[row]}; class numbers are below 2^63")
        return labels.astype(np.int64)
    if labels.dtype.kind == "f":
        whole = labels == np.round(labels)
        row = int(np.argmin(whole))
        raise InputError(
            f"{place(row)}: the label {labels[row]} is no integer and no name; labels are stored as {labels.dtype}, "
            f"convert whole numbers to integers"
        )
    if labels.dtype.kind == "S":
        with sentence_for(f"{place(0)} and after: labels", "text in UTF-8", "save names as text (dtype=str)"):
            labels = np.char.decode(labels, "utf-8")
    if labels.dtype.kind not in "UOb":
        raise InputError(f"{place(0)}: labels are integers or text, got {labels.dtype}")
    return _parsed([str(label).strip() for label in labels.tolist()], place)


def _parsed(words: list[str], place: Place) -> npt.NDArray[Any]:
    for row, word in enumerate(words):
        if not word or word.lower() == "nan":
            state = repr(word) if word else "empty"
            raise InputError(f"{place(row)}: the label is {state}; fill it in, or delete the row")
    kinds = set(words)
    if all(INTEGER.fullmatch(word) for word in kinds):
        return np.array([int(word) for word in words], dtype=np.int64)
    if all(INTEGER.fullmatch(word) or FRACTION.fullmatch(word) for word in kinds):
        row = next(row for row, word in enumerate(words) if FRACTION.fullmatch(word))
        raise InputError(
            f"{place(row)}: the label {words[row]!r} is a fraction; labels are integers or names, write 1 for 1.0"
        )
    return np.array(words, dtype=object)


def _words(words: npt.NDArray[Any], place: Place, names: tuple[str, ...] | None) -> Coded:
    own = tuple(sorted(set(words.tolist())))
    number = {name: k for k, name in enumerate(own)}
    coded = Coded(np.array([number[word] for word in words.tolist()], dtype=np.int64), own)
    return coded if names is None else match(coded, names, place)


def _integers(y: npt.NDArray[Any], place: Place, names: tuple[str, ...] | None, classes: int | None) -> Coded:
    bad = y < 0 if classes is None else (y < 0) | (y >= classes)
    if bad.any():
        row = int(np.argmax(bad))
        most = "" if classes is None else f" and below {classes}, the number of classes"
        raise InputError(f"{place(row)}: the label is {y[row]}; class numbers are 0 or more{most}")
    return Coded(y.astype(np.int64), names)


def _without_gaps(y: npt.NDArray[np.int64]) -> Coded:
    present = np.unique(y)
    if int(present[-1]) + 1 == len(present):
        return Coded(y, None)
    return Coded(np.searchsorted(present, y).astype(np.int64), tuple(str(k) for k in present.tolist()))


def _unknown(name: str, names: Sequence[str], place: str) -> str:
    return f"{place}: {name!r} is none of the {len(names)} classes{near(name, names) or f'; they are {listed(names)}'}"
