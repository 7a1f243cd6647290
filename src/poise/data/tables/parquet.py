"""Parquet tables: their columns as they are asked for, and rows of features from them. Needs the extra `table`."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poise.data.tables.columns import MOST, Roles, roles, single_precision
from poise.data.tables.reader_contract import Ask, Source, listed
from poise.errors import InputError
from poise.machine.libraries import needed
from poise.machine.reading import INFLATED, affordable, regular, sentence_for

REMEDY = "write it again"
EMPTY = "the cell is empty; fill it in, or delete the row"


@dataclass(frozen=True)
class Origin:
    """Names a row of several files that were read as one table; `starts` are the numbers of their first rows."""

    files: tuple[str, ...]
    starts: tuple[int, ...]

    def __call__(self, row: int) -> str:
        """File and row, counted from 0.

        >>> Origin(("a.parquet", "b.parquet"), (0, 10))(12)
        'b.parquet, row 2'
        """
        which = bisect_right(self.starts, row) - 1
        return f"{self.files[which]}, row {row - self.starts[which]}"


class Parquet(NamedTuple):
    """Files of the same columns as one table of `rows` rows. Columns that are not asked for are not read."""

    files: Sequence[Path]
    schema: Any
    rows: int
    place: Origin

    def read(self, names: Sequence[str]) -> Any:
        """The Arrow table of these columns. Raises: InputError for a file that is damaged."""
        import pyarrow

        for file in self.files:
            affordable(f"{file}: {listed(names, most=3)}", _unpacked(file, names), file.stat().st_size)
        return pyarrow.concat_tables([_attempt(file, partial(_validated, file, names)) for file in self.files])

    def cells(self, name: str) -> npt.NDArray[Any]:
        """A column (N,) of labels, groups or paths: integers, floats, or text.

        Raises: InputError for a column of anything else, or the first empty cell.
        """
        import pyarrow.types as kinds

        column = self.read([name]).column(name)
        if kinds.is_nested(column.type) or holds_bytes(column.type):
            raise InputError(f"{self.files[0]}: the column {name!r} holds {column.type}; it must hold text or numbers")
        refuse_nulls(column, name, self.place)
        if _is_number(column.type):
            return np.asarray(column.to_numpy())
        return np.array([str(value) for value in column.to_pylist()], dtype=object)


def opened(files: Sequence[Path]) -> Parquet:
    """The files as one table.

    Raises: InputError for a file that cannot be read, has other columns than the first, or two of one name;
    MissingExtraError without pyarrow.
    """
    needed("pyarrow", "table", f"reading {files[0]} needs")
    import pyarrow.parquet

    found = [_attempt(file, partial(pyarrow.parquet.ParquetFile, file)) for file in files]
    schema = found[0].schema_arrow
    for file, other in zip(files, found, strict=True):
        if not other.schema_arrow.equals(schema):
            raise InputError(f"{file} has other columns than {files[0]}; files of one split need the same")
    if len(schema.names) > MOST:
        raise InputError(f"{files[0]} has {len(schema.names)} columns, more than the {MOST} that a table may")
    if twice := [name for name, times in Counter(schema.names).items() if times > 1]:
        raise InputError(f"{files[0]}: two columns are called {twice[0]!r}; rename one")
    sizes = [file.metadata.num_rows for file in found]
    return Parquet(files, schema, sum(sizes), Origin(tuple(map(str, files)), tuple(accumulate(sizes[:-1], initial=0))))


def _validated(file: Path, names: Sequence[str]) -> Any:
    import pyarrow.parquet

    size = file.stat().st_size
    # Of a text that repeats, the file holds one copy: read so, it is small, and how large it becomes can be told.
    repeated = [name for name in names if _unpacked(file, [name]) <= INFLATED]
    table = pyarrow.parquet.read_table(file, columns=list(names), partitioning=None, read_dictionary=repeated)
    for place, name in enumerate(table.column_names):
        column = table.column(place)
        if pyarrow.types.is_dictionary(column.type):
            affordable(f"{file}: {name!r}", sum(map(_repeated, column.chunks)), size)
            table = table.set_column(place, name, column.cast(column.type.value_type))
    table.validate(full=True)  # text that is not UTF-8 would be found only where it is used
    return table


def _repeated(chunk: Any) -> int:
    """Bytes of the texts that a dictionary-encoded column stands for."""
    import pyarrow.compute as compute

    lengths = compute.binary_length(chunk.dictionary)
    return int(compute.sum(compute.take(lengths, chunk.indices)).as_py() or 0)


def _attempt(file: Path, read: Callable[[], Any]) -> Any:
    regular(file, REMEDY)
    with sentence_for(file, "a Parquet file", REMEDY):
        return read()


def _unpacked(file: Path, names: Sequence[str]) -> int:
    """Bytes that the columns take in memory, as the file says: those of their pages, or 8 for every row if more."""

    def said() -> int:
        import pyarrow.parquet

        about = pyarrow.parquet.ParquetFile(file).metadata
        groups = [about.row_group(i) for i in range(about.num_row_groups)]
        rows: int = 8 * about.num_rows * len(names)
        # pyarrow 26 ends the process where a column is looked at whose description is damaged: only where it matters.
        every: int = sum(group.total_byte_size for group in groups)
        if every <= INFLATED:
            return max(every, rows)
        columns = (group.column(k) for group in groups for k in range(group.num_columns))
        pages: int = sum(each.total_uncompressed_size for each in columns if each.path_in_schema.split(".")[0] in names)
        return max(pages, rows)

    return int(_attempt(file, said))


def holds_bytes(kind: Any) -> bool:
    """Is it a type of cells that are bytes, which may be encoded images?"""
    import pyarrow.types as kinds

    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind))


def refuse_nulls(column: Any, name: str, place: Callable[[int], str], said: str = EMPTY) -> None:
    """Raises: InputError naming the first row of an Arrow column that has no value."""
    if column.null_count:
        raise InputError(f"{place(column.is_null().to_pylist().index(True))}, column {name!r}: {said}")


def read_parquet(path: Path, ask: Ask) -> Source:
    """The rows of a Parquet file. Features are the numeric columns, or the one column of lists; they become float32.

    Raises: InputError naming file, row (from 0) and column; MissingExtraError without pyarrow.
    """
    file = opened([path])
    if file.rows == 0:
        raise InputError(f"{path} has no row")
    import pyarrow.types as kinds

    lists = [f.name for f in file.schema if _is_list(f.type) and f.name not in ask.ignore]
    use = roles(path, {f.name: _is_number(f.type) or _is_list(f.type) for f in file.schema}, ask)
    chosen = [name for name in use.features if name in lists]
    if chosen and len(use.features) > 1:
        raise InputError(
            f"{path}: features are one column of lists or numeric columns, not {listed(use.features)}; leave some out "
            "with ignore=",
            "ignore=",
        )
    names = None if chosen else use.features
    carried = [name for name in use.extra if not kinds.is_nested(file.schema.field(name).type)]
    table = file.read([*use.features, *carried])
    x = _lists(table, chosen[0], file.place) if chosen else _numbers(table, use, file)
    return Source(
        path,
        single_precision(path, x, names or [chosen[0]] * x.shape[1], range(len(x)), word="row"),
        labels=None if use.label is None else file.cells(use.label),
        groups=None if use.group is None else file.cells(use.group),
        names=names,
        extra={name: tuple(table.column(name).to_pylist()) for name in carried},
        notes=use.notes,
    )


def _is_number(kind: Any) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind))


def _is_list(kind: Any) -> bool:
    import pyarrow.types as kinds

    sequence = kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)
    return bool(sequence) and _is_number(kind.value_type)


def _numbers(table: Any, use: Roles, file: Parquet) -> npt.NDArray[np.float64]:
    """Numeric columns as (N, D)."""
    for name in use.features:
        kind = table.schema.field(name).type
        if not _is_number(kind):
            raise InputError(f"{file.files[0]}: the column {name!r} holds {kind}, no numbers")
        refuse_nulls(table.column(name), name, file.place)
    return np.stack([table.column(name).to_numpy().astype(np.float64) for name in use.features], axis=1)


def _lists(table: Any, name: str, place: Origin) -> npt.NDArray[np.float64]:
    """A column of lists as (N, D)."""
    import pyarrow.compute as compute

    column = table.column(name)
    refuse_nulls(column, name, place)
    lengths = compute.list_value_length(column).to_numpy()
    if (lengths != lengths[0]).any() or lengths[0] == 0:
        row = int(np.argmax((lengths != lengths[0]) | (lengths == 0)))
        raise InputError(
            f"{place(row)}, column {name!r}: the list has {lengths[row]} numbers, that of row 0 {lengths[0]}; "
            f"all rows need the same number, at least 1"
        )
    values = compute.list_flatten(column)
    refuse_nulls(values, name, lambda at: place(at // int(lengths[0])), "the list holds an empty value; fill it in")
    flat: npt.NDArray[np.float64] = values.to_numpy().astype(np.float64)
    return flat.reshape(len(lengths), int(lengths[0]))
