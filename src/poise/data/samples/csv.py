"""Tables that people write, .csv and .tsv, with paths of images or with texts."""

from array import array
from pathlib import Path

import numpy as np

from poise.data.samples.column_roles import Table, parts_of
from poise.data.samples.split_parts import Part, Request, ends_in, one_per_split
from poise.data.tables.delimited import delimited_rows
from poise.data.tables.reader_contract import DELIMITED

SUFFIXES = (*DELIMITED, *(f"{end}.gz" for end in DELIMITED))


def is_delimited(path: Path) -> bool:
    """Is it a .csv or .tsv file, or a folder of such files without folders?"""
    return ends_in(path, SUFFIXES)


def read_delimited(path: Path, request: Request) -> dict[str, Part]:
    """The splits of a .csv or .tsv file, or of a folder of files whose names say which split each is.

    Paths of images are relative to `request.root`, or else to the folder of the file. Lines are counted from 1.
    """
    return parts_of({split: _table(file) for split, file in one_per_split(path, SUFFIXES).items()}, request)


def _table(path: Path) -> Table:
    names, rows = delimited_rows(path)
    lines, columns = array("q"), {name: [] for name in names}  # type: tuple[array[int], dict[str, list[str]]]
    for line, cells in rows:
        lines.append(line)
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell.strip())
    return Table(
        path,
        len(lines),
        tuple(names),
        lambda name: np.array(columns[name], dtype=object),
        lambda row: f"{path}, line {lines[row]}",
    )
