"""What the columns of a table are for: paths or bytes of images, texts, labels, groups and splits."""

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poise.data.samples.items import Files
from poise.data.samples.sample_set import Items, Sentences
from poise.data.samples.split_parts import SPLITS, Part, Request
from poise.data.tables.columns import named, no_label, only
from poise.data.tables.reader_contract import LABEL_NAMES, listed
from poise.errors import InputError, PoiseWarning

# Names in lower case by which columns are recognised.
PATHS = frozenset(
    {"file", "file_name", "file_path", "filename", "filepath", "image", "image_file", "image_path"}
    | {"img", "img_path", "path"}
)
LABEL_ENDS = ("_label", "_labels")


class Table(NamedTuple):
    """A table of `rows` rows: `names` of its columns, and how to get them.

    `cells(name)` gives the values (N,) of a column: integers, floats or text. `place(row)` names a row in messages.
    `images` are the columns that hold encoded images, and `class_names` those of columns of class numbers.
    """

    path: Path
    rows: int
    names: tuple[str, ...]
    cells: Callable[[str], npt.NDArray[Any]]
    place: Callable[[int], str]
    images: Mapping[str, Callable[[], Items]] = MappingProxyType({})
    class_names: Mapping[str, tuple[str, ...]] = MappingProxyType({})


def parts_of(tables: Mapping[str, Table], request: Request) -> dict[str, Part]:
    """The parts of every table, which is one split or has a column `split`.

    Raises: InputError naming file, line or row, and column of what is missing, empty, or could mean several things.
    """
    found: dict[str, Part] = {}
    for name, table in tables.items():
        for split, part in _divided(table, name, _whole(table, request)).items():
            if split in found:
                raise InputError(f"{table.path}: the split {split!r} is in another file too; keep it in one")
            found[split] = part
    return found


def refuse_missing(files: Files, place: Callable[[int], str]) -> None:
    """Raises: InputError naming the row of the first path that is no file."""
    for row in range(len(files)):
        path = files.path(row)
        if not os.path.isfile(path):
            raise InputError(
                f"{place(row)}: there is no file {path}; correct the path, or the folder that it starts from (root=)",
                "(root=)",
            )


def _whole(table: Table, request: Request) -> Part:
    """All rows of a table as one part."""
    items = _items(table, request)
    if not request.labelled:
        return Part(items, np.array([]), table.place)
    label = _label(table, request)
    group = _column(table, request.group, frozenset(), "group")
    return Part(
        items,
        _labels(table, label),
        table.place,
        table.class_names.get(label),
        None if group is None else _texts(table, group),
    )


def _divided(table: Table, name: str, part: Part) -> dict[str, Part]:
    """The part by the column `split`, or whole and called `name`."""
    column = _column(table, None, frozenset({"split"}), "split")
    if column is None:
        return {name: part}
    words = [word.strip().lower() for word in _texts(table, column)]
    for row, word in enumerate(words):
        if word not in SPLITS:
            raise InputError(f"{table.place(row)}, column {column!r}: {word!r} is no split; write train, val or test")
    splits = np.array([SPLITS[word] for word in words])
    return {split: part.take(np.flatnonzero(splits == split)) for split in dict.fromkeys(splits.tolist())}


def _items(table: Table, request: Request) -> Items:
    if request.text is not None:
        name = _column(table, request.text, frozenset(), "text")
        return Sentences(_texts(table, str(name)), str(table.path))
    if request.image in table.images or (request.image is None and len(table.images) == 1):
        return table.images[request.image or next(iter(table.images))]()
    if request.image is None:
        only(table.path, tuple(table.images), "images", "(image=)")
    column = _column(table, request.image, PATHS, "image")
    if column is None:
        raise InputError(
            f"{table.path} has no column that is called image or path; name the column of the images (image=) or "
            f"of the texts (text=); its columns are {listed(table.names)}",
            "(image=)",
            "(text=)",
        )
    paths = tuple(path.strip() for path in _texts(table, column))
    files = Files(paths, request.root or table.path.parent, request.limit)
    refuse_missing(files, table.place)
    _warn_repeats(table, paths)
    return files


def _label(table: Table, request: Request) -> str:
    """The column of the labels: the one that is named, else the only one with class names, or that is called so."""
    like = {name.lower() for name in table.class_names}
    if not like:
        like = {n.lower() for n in table.names if n.lower() in LABEL_NAMES or n.lower().endswith(LABEL_ENDS)}
    name = _column(table, request.label, frozenset(like), "label")
    if name is None:
        raise no_label(table.path, table.names, "(label=)")
    return name


def _column(table: Table, wanted: str | None, known: frozenset[str], purpose: str) -> str | None:
    """The column that is wanted, or the one with a known name; None if there is none.

    Raises: InputError if the wanted one does not exist, or if several have known names.
    """
    if wanted is not None:
        return named(table.path, wanted, table.names)
    return only(table.path, [name for name in table.names if name.lower() in known], purpose, f"({purpose}=)")


def _texts(table: Table, name: str) -> tuple[str, ...]:
    """The cells of a column as text. Raises: InputError naming the first empty one."""
    cells = tuple(str(cell) for cell in table.cells(name))
    for row, cell in enumerate(cells):
        if not cell.strip():
            raise InputError(f"{table.place(row)}, column {name!r}: the cell is empty; fill it in, or delete the row")
    return cells


def _labels(table: Table, name: str) -> npt.NDArray[Any]:
    """The cells of a column as labels: numbers, or text without empty cells."""
    cells = table.cells(name)
    return cells if cells.dtype.kind in "iufb" else np.array(_texts(table, name), dtype=object)


def _warn_repeats(table: Table, paths: tuple[str, ...]) -> None:
    first: dict[str, int] = {}
    repeats = [(row, first[path]) for row, path in enumerate(paths) if first.setdefault(path, row) != row]
    if repeats:
        rows = "1 row repeats" if len(repeats) == 1 else f"{len(repeats)} rows repeat"
        row, earlier = repeats[0]
        warnings.warn(
            f"{table.path}: {rows} the path of another (the first: {table.place(row)}, {paths[row]!r}, as in "
            f"{table.place(earlier).removeprefix(f'{table.path}, ')}); remove copies",
            PoiseWarning,
            stacklevel=6,
        )
