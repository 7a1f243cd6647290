"""Which reader a file of rows has, by the end of its name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from poise.data.tables.delimited import read_delimited
from poise.data.tables.parquet import read_parquet
from poise.data.tables.reader_contract import Ask, Source, kind_of
from poise.errors import InputError
from poise.machine.reading import regular
from poise.values.checks import existing

TABLES: Mapping[str, Callable[[Path, Ask], Source]] = MappingProxyType(
    {".csv": read_delimited, ".tsv": read_delimited, ".parquet": read_parquet}
)
ARRAYS = (".npz", ".npy", ".safetensors")


def read_table(path: Path, ask: Ask, wanted: str) -> Source | None:
    """The rows of a table, or None for a file of arrays, which is left to the caller.

    Raises: InputError for what is not there or neither of both, which says what is `wanted`; for a `key` of a table or
    columns of arrays; and as the readers do.
    """
    kind = kind_of(existing(path))
    regular(path, f"{wanted} a file")
    if kind not in (*TABLES, *ARRAYS):
        raise InputError(f"cannot read {path}: {wanted} {', '.join((*TABLES, *ARRAYS))}")
    if kind in TABLES and ask.key is not None:
        said = f"key= chooses among arrays, and {path} is a table; name its label_column= instead"
        raise InputError(said, "key=", "label_column=")
    if kind in TABLES:
        return TABLES[kind](path, ask)
    if ask.ignore or ask.columns:
        raise InputError(
            f"columns are chosen by name in tables, and {path} holds arrays; choose one with key= (or FILE#NAME)",
            "key= (or FILE#NAME)",
        )
    return None
