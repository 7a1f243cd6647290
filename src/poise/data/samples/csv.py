"""Tables that people write, .csv and .tsv, with paths of images or with texts."""

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from poise.data.samples.column_roles import Table, parts_of
from poise.data.samples.split_parts import Part, Request, one_per_split
from poise.data.tables.delimited import delimited_rows

SUFFIXES = (".csv", ".tsv")


def is_delimited(path: Path) -> bool:
    """Is it a .csv or .tsv file, or a folder of such files without folders?"""
    if not path.is_dir():
        return path.suffix.lower() in SUFFIXES
    return bool(_files(path)) and not any(entry.is_dir() for entry in path.iterdir())


def read_delimited(path: Path, request: Request) -> dict[str, Part]:
    """The splits of a .csv or .tsv file, or of a folder of files whose names say which split each is.

    Paths of images are relative to `request.root`, or else to the folder of the file. Lines are counted from 1.
    """
    files = one_per_split(path, _files(path) if path.is_dir() else [path])
    return parts_of({split: _table(file) for split, file in files.items()}, request)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)


def _table(path: Path) -> Table:
    names, rows = delimited_rows(path)
    lines, cells = zip(*rows, strict=True)
    return Table(
        path, len(lines), tuple(names), partial(_column, names, cells), lambda row: f"{path}, line {lines[row]}"
    )


def _column(names: list[str], cells: tuple[list[str], ...], name: str) -> npt.NDArray[np.object_]:
    at = names.index(name)
    return np.array([row[at].strip() for row in cells], dtype=object)
