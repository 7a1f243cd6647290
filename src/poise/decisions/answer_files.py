"""Answers of a classifier written row by row to CSV or Parquet, with numpy alone: an exported model needs no torch.

Rows are made and written in chunks, so that logits of all rows never exist at once; the file appears complete or not at
all.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import numpy.typing as npt

from poise.errors import InputError, reason_of
from poise.machine.atomic import replacing
from poise.machine.libraries import needed
from poise.machine.progress import Progress
from poise.values.spreadsheet import MARK, Formulas, harmless

Table = dict[str, list[Any]]
FORMATS = (".csv", ".parquet")
NOTHING = -1  # the label where the operating point gives no answer
ABSTAINED = ""  # and what is written for it
_NUMBER = re.compile(r"[+-]?\d+([.,]\d*)?([eE][+-]?\d+)?", re.ASCII)  # in a carried column of text: stays one


class Answers(NamedTuple):
    """`label` (N,) int64, -1 for no answer; `confidence` (N,); `sets` (N, C) bool or None; `p` (N, C), all float64."""

    label: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    sets: npt.NDArray[np.bool_] | None
    p: npt.NDArray[np.float64]


class Tallied(NamedTuple):
    """What was written: the file, its rows, answers per class name, and rows without an answer.

    `formulas`: the cells of a .csv file that a spreadsheet would run.
    """

    path: Path
    rows: int
    answers: dict[str, int]
    abstained: int
    formulas: Formulas = Formulas()


def write_answers(
    answers_of: Callable[[int, int], Answers],
    rows: int,
    names: Sequence[str],
    path: str | Path,
    *,
    carried: Mapping[str, Sequence[Any]] | None = None,
    top: int | None = None,
    spreadsheet: bool = False,
    chunk: int = 8192,
    progress: Progress | None = None,
) -> Tallied:
    """Write one line per row to a .csv or .parquet file; `answers_of(start, stop)` are those of some rows.

    Columns: those of `carried` as they came; `prediction`, one of the class `names` (C,), empty for no answer;
    `confidence`; `set`, a JSON list of class names, if sets are named; the probability of each class as `p(NAME)`, or
    with `top` the names and probabilities of the `top` best. `spreadsheet` makes a .csv file for eyes, see
    `poise.values.spreadsheet`; numbers of carried columns stay.

    Raises: InputError for another suffix, `spreadsheet` with Parquet, no row, a carried column whose name is taken or
    whose length is another, or a disk that refuses; MissingExtraError for Parquet without pyarrow.
    """
    target = Path(path)
    if target.suffix.lower() not in FORMATS:
        raise InputError(f"predictions are written to {' or '.join(FORMATS)}, and {target} is neither")
    as_csv = target.suffix.lower() == ".csv"
    if spreadsheet and not as_csv:
        said = f"{target} runs nothing in a spreadsheet; only a .csv file is made for one (spreadsheet=)"
        raise InputError(said, "(spreadsheet=)")
    others = {name: list(values) for name, values in (carried or {}).items()}
    _check(rows, len(names), others, top)
    given = np.zeros(len(names) + 1, dtype=np.int64)
    formulas = Formulas()
    open_table = partial(_csv, spreadsheet=spreadsheet) if as_csv else _parquet
    with _replaced(target) as temporary, open_table(temporary, others) as write:
        for start in range(0, rows, chunk):
            stop = min(start + chunk, rows)
            answers = answers_of(start, stop)
            own = _columns(names, answers, top)
            taken = sorted(set(own) & set(others))
            if taken:
                raise InputError(f"the rows have a column {taken[0]!r}, which the predictions need; rename or drop it")
            table = {**{name: values[start:stop] for name, values in others.items()}, **own}
            formulas = (
                formulas.plus(_texts(table, others, names_too=start == 0)) if as_csv and not spreadsheet else formulas
            )
            write(table)
            given += np.bincount(answers.label - NOTHING, minlength=len(given))
            if progress is not None:
                progress(stop, rows)
    return Tallied(target, rows, dict(zip(names, given[1:].tolist(), strict=True)), int(given[0]), formulas)


def _texts(table: Table, carried: Table, *, names_too: bool) -> Iterator[Any]:
    """The cells of a table that may be run, and the names of its columns."""
    yield from table if names_too else ()
    for name, values in table.items():
        if not isinstance(values[0], float):  # probabilities are many
            yield from (cell for cell in values if name not in carried or not _is_number(cell))


def _is_number(cell: Any) -> bool:
    return isinstance(cell, str) and _NUMBER.fullmatch(cell) is not None


def _harmless(values: list[Any], carried: bool) -> list[Any]:
    return [cell if carried and _is_number(cell) else harmless(cell) for cell in values]


def _check(rows: int, classes: int, carried: Table, top: int | None) -> None:
    if rows == 0:
        raise InputError("there is no row to predict")
    if top is not None and not 1 <= top <= classes:
        raise InputError(f"top must lie between 1 and {classes}, the number of classes; got {top}")
    for name, values in carried.items():
        if len(values) != rows:
            raise InputError(f"the carried column {name!r} has {len(values)} values for {rows} rows")


def _columns(names: Sequence[str], answers: Answers, top: int | None) -> Table:
    table: Table = {
        "prediction": [ABSTAINED if k == NOTHING else names[k] for k in answers.label.tolist()],
        "confidence": answers.confidence.tolist(),
    }
    if answers.sets is not None:
        table["set"] = [
            json.dumps([names[k] for k in np.flatnonzero(row).tolist()], ensure_ascii=False) for row in answers.sets
        ]
    if top is None:
        return {**table, **{f"p({name})": answers.p[:, k].tolist() for k, name in enumerate(names)}}
    best = np.argsort(-answers.p, axis=1, kind="stable")[:, :top]
    values = np.take_along_axis(answers.p, best, axis=1)
    for i in range(top):
        table[f"top{i + 1}"] = [names[k] for k in best[:, i].tolist()]
        table[f"p{i + 1}"] = values[:, i].tolist()
    return table


@contextmanager
def _replaced(target: Path) -> Iterator[Path]:
    """A temporary neighbour that takes the place of `target` once all is written and on the disk."""
    try:
        with replacing(target) as temporary:
            yield temporary
    except OSError as error:
        reason = reason_of(error)
        raise InputError(f"cannot write {target}: {reason}; an old file is as it was; choose another place") from None


class _Lines(NamedTuple):
    """A file for csv.writer: lines end in a line feed, and a carriage return within a cell is quoted all the same."""

    file: TextIO

    def write(self, row: str) -> int:
        return self.file.write(row.removesuffix("\r\n") + "\n")


@contextmanager
def _csv(path: Path, carried: Table, *, spreadsheet: bool) -> Iterator[Callable[[Table], None]]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(_Lines(file), lineterminator="\r\n")
        file.write(MARK if spreadsheet else "")
        begun = False

        def write(table: Table) -> None:
            nonlocal begun
            if not begun:
                writer.writerow([harmless(name) for name in table] if spreadsheet else table)
                begun = True
            if spreadsheet:
                table = {name: _harmless(values, name in carried) for name, values in table.items()}
            writer.writerows(zip(*table.values(), strict=True))

        yield write


@contextmanager
def _parquet(path: Path, carried: Table) -> Iterator[Callable[[Table], None]]:
    pyarrow = needed("pyarrow", "table", "writing Parquet needs")
    from pyarrow import parquet

    try:
        # Of the whole column, since a chunk of it may be empty or hold whole numbers only.
        kinds = {name: pyarrow.array(values).type for name, values in carried.items()}
    except (pyarrow.ArrowException, OverflowError) as error:
        raise InputError(f"a carried column cannot be written to Parquet ({error}); write a .csv file") from None
    writers: list[Any] = []

    def write(table: Table) -> None:
        batch = pyarrow.table({name: pyarrow.array(values, kinds.get(name)) for name, values in table.items()})
        if not writers:
            writers.append(parquet.ParquetWriter(path, batch.schema))
        writers[0].write_table(batch)

    try:
        yield write
    finally:
        for writer in writers:
            writer.close()
