"""Parquet tables with images in a column, as the hub stores them, or with paths of images or texts.

The hub's layout: a column of {bytes, path}, a column of class numbers, and the names of the classes in the metadata of
the schema; several files per split. The encoded images stay in the buffers of Arrow.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from poise.data.samples.column_roles import Table, parts_of
from poise.data.samples.items import Encoded
from poise.data.samples.split_parts import Part, Request, by_split
from poise.data.tables.parquet import Parquet, holds_bytes, opened, refuse_nulls
from poise.errors import InputError
from poise.machine.documents import parsed

DEPTHS = ("*.parquet", "*/*.parquet", "*/*/*.parquet")
NO_IMAGE = "there are no bytes of an image; fill it in, or delete the row"


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
    tables = {split: _table(opened(shards), request.limit) for split, shards in by_split(path, files).items()}
    return parts_of(tables, request)


def _table(file: Parquet, limit: int) -> Table:
    images = {f.name: partial(_encoded, file, f.name, limit) for f in file.schema if _holds_images(f.type)}
    names = _class_names(file.schema.metadata or {})
    return Table(file.files[0], file.rows, tuple(file.schema.names), file.cells, file.place, images, names)


def _holds_images(kind: Any) -> bool:
    import pyarrow.types as kinds

    if kinds.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return holds_bytes(kind)


def _encoded(file: Parquet, name: str, limit: int) -> Encoded:
    import pyarrow.compute as compute
    import pyarrow.types as kinds

    column = file.read([name]).column(name)
    stored = compute.struct_field(column, "bytes") if kinds.is_struct(column.type) else column
    refuse_nulls(stored, name, file.place, NO_IMAGE)
    return Encoded(stored, torch.arange(len(stored)), file.place, limit)


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Names of the classes by column, from the description of the columns that the hub stores with them."""
    try:
        features = parsed(metadata[b"huggingface"], "huggingface", "")["info"]["features"]
        found = {name: f["names"] for name, f in features.items() if f.get("_type") == "ClassLabel"}
    except (InputError, KeyError, TypeError, AttributeError):
        return {}  # written by another program
    texts = (
        name for name, names in found.items() if isinstance(names, list) and all(isinstance(n, str) for n in names)
    )
    return {name: tuple(found[name]) for name in texts}
