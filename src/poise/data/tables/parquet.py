"""Parquet tables: numeric columns, or one column of lists. Needs the extra `table`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poise.data.tables.columns import Roles, roles, single_precision
from poise.data.tables.source import Ask, Source, listed
from poise.errors import InputError, reason_of
from poise.machine.libraries import needed


def read_parquet(path: Path, ask: Ask) -> Source:
    """The rows of a Parquet file. Features are the numeric columns, or the one column of lists; they become float32.

    Raises: InputError naming file, row (from 0) and column; MissingExtraError without pyarrow.
    """
    table = _table(path)
    if table.num_rows == 0:
        raise InputError(f"{path} has no row")
    import pyarrow.types as kinds

    lists = [f.name for f in table.schema if _is_list(f.type) and f.name not in ask.ignore]
    numeric = {f.name: _is_number(f.type) or _is_list(f.type) for f in table.schema}
    use = roles(path, numeric, ask)
    chosen = [name for name in use.features if name in lists]
    if chosen and len(use.features) > 1:
        raise InputError(
            f"{path}: features are one column of lists or numeric columns, not {listed(use.features)}; leave some out "
            "with ignore=",
            "ignore=",
        )
    names = None if chosen else use.features
    x = _lists(path, table, chosen[0]) if chosen else _numbers(path, table, use)
    rows = range(len(x))
    carried = [n for n in use.extra if not kinds.is_nested(table.schema.field(n).type)]
    return Source(
        path,
        single_precision(path, x, names or [chosen[0]] * x.shape[1], rows, word="row"),
        labels=None if use.label is None else _values(path, table, use.label),
        groups=None if use.group is None else _values(path, table, use.group),
        names=names,
        extra={name: tuple(table.column(name).to_pylist()) for name in carried},
        notes=use.notes,
    )


def _table(path: Path) -> Any:
    needed("pyarrow", "table", f"reading {path} needs")
    import pyarrow.parquet

    names = _attempt(pyarrow.parquet.read_schema, path).names
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{path}: two columns are called {twice[0]!r}; rename one")
    return _attempt(_validated, path)


def _validated(path: Path, *, memory_map: bool) -> Any:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path, memory_map=memory_map)
    table.validate(full=True)  # text that is not UTF-8 would be found only where it is used
    return table


def _attempt(read: Callable[..., Any], path: Path) -> Any:
    import pyarrow

    try:
        return read(path, memory_map=True)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read, it is damaged or no Parquet file ({reason_of(error)})") from None


def _is_number(kind: Any) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind))


def _is_list(kind: Any) -> bool:
    import pyarrow.types as kinds

    sequence = kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)
    return bool(sequence) and _is_number(kind.value_type)


def _refuse_nulls(path: Path, column: Any, name: str) -> None:
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise InputError(f"{path}, row {row}, column {name!r}: the cell is empty; fill it in, or delete the row")


def _numbers(path: Path, table: Any, use: Roles) -> npt.NDArray[np.float64]:
    """Numeric columns as (N, D)."""
    for name in use.features:
        if not _is_number(table.schema.field(name).type):
            raise InputError(f"{path}: the column {name!r} holds {table.schema.field(name).type}, no numbers")
        _refuse_nulls(path, table.column(name), name)
    return np.stack([table.column(name).to_numpy().astype(np.float64) for name in use.features], axis=1)


def _lists(path: Path, table: Any, name: str) -> npt.NDArray[np.float64]:
    """A column of lists as (N, D)."""
    import pyarrow.compute as compute

    column = table.column(name)
    _refuse_nulls(path, column, name)
    lengths = compute.list_value_length(column).to_numpy()
    if (lengths != lengths[0]).any() or lengths[0] == 0:
        row = int(np.argmax((lengths != lengths[0]) | (lengths == 0)))
        raise InputError(
            f"{path}, row {row}, column {name!r}: the list has {lengths[row]} numbers, that of row 0 {lengths[0]}; "
            f"all rows need the same number, at least 1"
        )
    values = compute.list_flatten(column)
    if values.null_count:
        row = values.is_null().to_pylist().index(True) // int(lengths[0])
        raise InputError(f"{path}, row {row}, column {name!r}: the list holds an empty value; fill it in")
    flat: npt.NDArray[np.float64] = values.to_numpy().astype(np.float64)
    return flat.reshape(len(lengths), int(lengths[0]))


def _values(path: Path, table: Any, name: str) -> npt.NDArray[Any]:
    """A column of labels or groups: integers, floats, or text."""
    column = table.column(name)
    _refuse_nulls(path, column, name)
    if _is_number(column.type):
        values: npt.NDArray[Any] = column.to_numpy()
        return values
    return np.array([str(value) for value in column.to_pylist()], dtype=object)
