"""Parquet tables with images in a column, as the hub stores them, or with paths of images or texts.

The hub's layout: a column of {bytes, path}, a column of class numbers, and the names of the classes in the metadata of
the schema; several files per split. The encoded images stay in the buffers of Arrow, and columns that are not needed
are not read.
"""

import json
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from poise.data.samples.column_roles import Table, parts_of
from poise.data.samples.items import Encoded, Origin
from poise.data.samples.split_parts import Part, Request, by_split
from poise.errors import InputError, reason_of
from poise.machine.libraries import needed

DEPTHS = ("*.parquet", "*/*.parquet", "*/*/*.parquet")


def is_parquet(path: Path) -> bool:
    """Is it a .parquet file, or a folder that holds some, at most two folders deep?"""
    if not path.is_dir():
        return path.suffix.lower() == ".parquet"
    return any(next(path.glob(depth), None) for depth in DEPTHS)


def read_parquet(path: Path, request: Request) -> dict[str, Part]:
    """The splits of a Parquet file, or of a folder whose files or folders are named by splits. Rows count from 0.

    Raises: InputError if a file cannot be read; MissingExtraError without pyarrow.
    """
    files = sorted({file for depth in DEPTHS for file in path.glob(depth)}) if path.is_dir() else [path]
    tables = {split: _table(shards, request.limit) for split, shards in by_split(path, files).items()}
    return parts_of(tables, request)


def _table(files: list[Path], limit: int) -> Table:
    """The files as one table."""
    needed("pyarrow", "table", f"reading {files[0]} needs")
    import pyarrow.parquet

    opened = [_attempt(file, partial(pyarrow.parquet.ParquetFile, file)) for file in files]
    schema = opened[0].schema_arrow
    for file, other in zip(files, opened, strict=True):
        if not other.schema_arrow.equals(schema):
            raise InputError(f"{file} has other columns than {files[0]}; files of one split need the same")
    counts = [file.metadata.num_rows for file in opened]
    origin = Origin(tuple(map(str, files)), tuple(accumulate(counts[:-1], initial=0)))
    images = {f.name: partial(_encoded, files, f.name, origin, limit) for f in schema if _holds_images(f.type)}
    names = _class_names(schema.metadata or {})
    return Table(files[0], sum(counts), tuple(schema.names), partial(_cells, files, origin), origin, images, names)


def _attempt(file: Path, read: Callable[[], Any]) -> Any:
    import pyarrow

    try:
        return read()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read, it is damaged or no Parquet file ({reason_of(error)})") from None


def _column(files: list[Path], name: str) -> Any:
    """A column of all files, as they are chunked."""
    import pyarrow
    import pyarrow.parquet

    tables = [_attempt(f, partial(pyarrow.parquet.read_table, f, columns=[name], partitioning=None)) for f in files]
    return pyarrow.concat_tables(tables).column(name)


def _holds_images(kind: Any) -> bool:
    import pyarrow.types as kinds

    if kinds.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind))


def _encoded(files: list[Path], name: str, origin: Origin, limit: int) -> Encoded:
    import pyarrow.compute as compute
    import pyarrow.types as kinds

    column = _column(files, name)
    stored = compute.struct_field(column, "bytes") if kinds.is_struct(column.type) else column
    if stored.null_count:
        row = stored.is_null().to_pylist().index(True)
        raise InputError(
            f"{origin(row)}, column {name!r}: there are no bytes of an image; fill it in, or delete the row"
        )
    return Encoded(stored, torch.arange(len(stored)), origin, limit)


def _cells(files: list[Path], origin: Origin, name: str) -> npt.NDArray[Any]:
    """The values (N,) of a column: integers, floats, or text."""
    import pyarrow.types as kinds

    column = _column(files, name)
    if kinds.is_nested(column.type) or _holds_images(column.type):
        raise InputError(f"{origin.files[0]}: the column {name!r} holds {column.type}; it must hold text or numbers")
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise InputError(f"{origin(row)}, column {name!r}: the cell is empty; fill it in, or delete the row")
    if kinds.is_integer(column.type) or kinds.is_floating(column.type):
        return np.asarray(column.to_numpy())
    return np.array([str(value) for value in column.to_pylist()], dtype=object)


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Names of the classes by column, from the description of the columns that the hub stores with them."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: tuple(f["names"]) for name, f in features.items() if f.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}  # written by another program
