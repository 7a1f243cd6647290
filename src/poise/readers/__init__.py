"""Feature rows from files: a store folder, .csv, .tsv, .parquet, .npz, .npy, .safetensors.

`read_features` reads rows with labels, `read_rows` rows to be predicted, `read_logits` the logits of another model. All
formats with the same content give the same values, bit for bit. These names are loaded when they are first used, so
that tables can be read where torch is not installed (`poise.readers.delimited`).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poise.readers.logits import Logits, read_logits
    from poise.readers.rows import Rows, Table, load_features, read_features, read_rows

__all__ = ["Logits", "Rows", "Table", "load_features", "read_features", "read_logits", "read_rows"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'poise.readers' has no attribute {name!r}")
    home = "logits" if name in ("Logits", "read_logits") else "rows"
    return getattr(import_module(f"poise.readers.{home}"), name)
