"""Comma- and tab-separated files: UTF-8, one header line, one row per line."""

import csv
import io
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

import numpy as np

from poise.data.tables.columns import Roles, check_header, roles, single_precision
from poise.data.tables.reader_contract import Ask, Source, kind_of
from poise.errors import InputError, reason_of
from poise.machine.reading import regular, unzipped

NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*|\s*[+-]?(nan|inf)\s*", re.IGNORECASE)
SAMPLE = 100  # rows that decide which columns hold numbers
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars", " ": "spaces"}

Record = tuple[int, list[str]]


def read_delimited(path: Path, ask: Ask) -> Source:
    """The rows of a .csv (commas) or .tsv (tabs) file, perhaps packed as .gz; lines are counted from 1 with the header.

    A column is numeric if at least half of its filled cells among the first 100 rows are numbers; all its cells must
    then be. Features are float32; every other column is text.

    Raises: InputError naming file, line and column of whatever cannot be read.
    """
    names, rows = delimited_rows(path)
    sample = list(islice(rows, SAMPLE))
    numeric = {name: _is_numeric([cells[i] for _, cells in sample]) for i, name in enumerate(names)}
    return _collected(path, chain(sample, rows), names, roles(path, numeric, ask))


def delimited_rows(path: Path) -> tuple[list[str], Iterator[Record]]:
    """The names of the columns, and (line number, cells) of every row, read as they are asked for.

    Raises: InputError for a file without header or row, a bad header, and at a line with another number of cells.
    """
    separator = "\t" if kind_of(path) == ".tsv" else ","
    records = _records(path, separator)
    header = next(records, None)
    if header is None:
        raise InputError(f"{path} is empty; line 1 must name the columns")
    names = [name.strip() for name in header[1]]
    _refuse_header(path, names, separator)
    rows = _of_width(path, records, len(names))
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path} has a header but no row")
    return names, chain([first], rows)


def _records(path: Path, separator: str) -> Iterator[Record]:
    """(line number, cells) of every line that is not blank."""
    end = 0
    regular(path, "name a file of rows")
    try:
        with io.TextIOWrapper(_content(path), encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=separator, strict=True, skipinitialspace=separator == ",")
            for cells in reader:
                if any(cells):
                    yield end + 1, cells
                end = reader.line_num
    except UnicodeDecodeError:
        raise InputError(
            f"{path}, line {_line_not_utf8(path)}: the text is not UTF-8; save the file as UTF-8"
        ) from None
    except csv.Error as error:
        raise InputError(f"{path}, line {end + 1}: {error}; check the quotes of this line") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}") from None


def _content(path: Path) -> BinaryIO:
    return io.BytesIO(unzipped(path, "pack it anew")) if path.suffix.lower() == ".gz" else path.open("rb")


def _line_not_utf8(path: Path) -> int:
    with _content(path) as file:
        return next(number for number, line in enumerate(file, start=1) if not _is_utf8(line))


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _refuse_header(path: Path, names: Sequence[str], separator: str) -> None:
    if len(names) == 1:
        for other, word in SEPARATORS.items():
            if other != separator and other in names[0]:
                raise InputError(
                    f"{path}, line 1: there is one column, {names[0]!r:.60}; its cells seem to be separated by {word}, "
                    f"which should be {SEPARATORS[separator]} in a {kind_of(path)} file"
                )
    # Whole numbers may be names of columns; fractions are values.
    if value := next((name for name in names if NUMBER.fullmatch(name) and not name.isdigit()), None):
        raise InputError(f"{path}, line 1: {value!r} is a value, no name; the first line must name the columns")
    check_header(path, names)


def _of_width(path: Path, records: Iterator[Record], width: int) -> Iterator[Record]:
    for line, cells in records:
        if len(cells) != width:
            raise InputError(
                f"{path}, line {line}: {len(cells)} cells, the header has {width}; a cell is missing or extra"
            )
        yield line, cells


def _is_numeric(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell.strip()]
    hits = sum(NUMBER.fullmatch(cell) is not None for cell in filled)
    return hits > 0 and 2 * hits >= len(filled)


def _collected(path: Path, records: Iterator[Record], names: Sequence[str], use: Roles) -> Source:
    texts: dict[str, list[str]] = {name: [] for name in (use.label, use.group, *use.extra) if name is not None}
    column = {name: i for i, name in enumerate(names)}
    places = [(texts[name], column[name]) for name in texts]
    features = [column[name] for name in use.features]
    pick: Callable[[list[str]], Sequence[str]] = itemgetter(*features)
    if len(features) == 1:
        pick = itemgetter(slice(features[0], features[0] + 1))
    values, lines = array("d"), array("q")
    for line, cells in records:
        try:
            values.extend(map(float, pick(cells)))
        except ValueError:
            raise InputError(_bad_cell(path, line, use.features, pick(cells)), "ignore=") from None
        lines.append(line)
        for text, i in places:
            text.append(cells[i].strip())
    x = np.frombuffer(values, dtype=np.float64).reshape(len(lines), len(features))
    return Source(
        path,
        single_precision(path, x, use.features, lines),
        labels=None if use.label is None else np.array(texts[use.label], dtype=object),
        groups=None if use.group is None else np.array(texts[use.group]),
        names=use.features,
        extra={name: tuple(texts[name]) for name in use.extra},
        notes=use.notes,
        lines=lines,
    )


def _bad_cell(path: Path, line: int, names: Sequence[str], cells: Sequence[str]) -> str:
    name, cell = next((n, c) for n, c in zip(names, cells, strict=True) if not _is_float(c))
    state = f"{cell!r:.60} is no number" if cell.strip() else "the cell is empty"
    return f"{path}, line {line}, column {name!r}: {state}; fix the cell, or leave the column out with ignore="


def _is_float(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
