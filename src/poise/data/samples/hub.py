"""Data sets of the library `datasets`: a folder that save_to_disk wrote, or `hf:OWNER/NAME` of the hub.

Needs the extra `hf`. With HF_HUB_OFFLINE=1 only data sets in the cache are opened, and nothing waits for a network;
without it, a network that is down is given up after half a minute.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from poise.data.samples.column_roles import Table, parts_of
from poise.data.samples.decoding import decode, read_stored
from poise.data.samples.split_parts import Part, Request, split_in
from poise.data.tables.reader_contract import listed
from poise.errors import InputError, reason_of
from poise.machine.libraries import needed, without_bars
from poise.machine.reading import sentence_for

PREFIX = "hf:"
SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk writes for several splits, and for one


@dataclass(frozen=True, eq=False)
class HubImages:
    """Encoded images of one column of a data set; `rows` (N,) int64 are the chosen ones."""

    data: Any
    column: str
    rows: Tensor
    where: str
    limit: int
    kind: Literal["image"] = "image"

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Image.Image:
        """The image in RGB."""
        return decode(self._stored(index), self.describe(index), self.limit)

    def describe(self, index: int) -> str:
        """Data set and row, counted from 0."""
        return f"{self.where}, row {int(self.rows[index])}"

    def digest(self, index: int) -> str:
        """The sha256 of the encoded bytes. Raises: InputError if they are in a file that cannot be read."""
        return hashlib.sha256(read_stored(self._stored(index), self.describe(index))).hexdigest()

    def take(self, rows: Tensor) -> "HubImages":
        """Some of the images."""
        return replace(self, rows=self.rows[rows])

    def _stored(self, index: int) -> bytes | Path:
        with sentence_for(self.describe(index), None, "save the data set anew"):
            cell = self.data[int(self.rows[index])][self.column]
        if cell is None or (cell["bytes"] is None and cell["path"] is None):
            raise InputError(f"{self.describe(index)}, column {self.column!r}: there is no image; leave the row out")
        return Path(cell["path"]) if cell["bytes"] is None else bytes(cell["bytes"])


def is_hub(path: Path) -> bool:
    """Is it `hf:OWNER/NAME`, or a folder that save_to_disk wrote?"""
    return str(path).startswith(PREFIX) or any((path / name).is_file() for name in SAVED)


def read_hub(path: Path, request: Request) -> dict[str, Part]:
    """The splits of a data set; those with names of their own keep them.

    Raises: InputError naming the data set and the cache if it cannot be opened; MissingExtraError without `datasets`.
    """
    loaded = _loaded(path)
    splits = loaded if isinstance(loaded, dict) else {str(loaded.split or "train"): loaded}
    tables = {split_in(name) or name: _table(path, name, data, request.limit) for name, data in splits.items()}
    if len(tables) < len(splits):
        raise InputError(f"{path} holds the splits {listed(splits)}, of which two mean the same")
    return parts_of(tables, request)


def _loaded(path: Path) -> Any:
    datasets = needed("datasets", "hf", f"opening {path} needs")
    name = str(path).removeprefix(PREFIX)
    with without_bars(datasets.is_progress_bar_enabled, datasets.enable_progress_bars, datasets.disable_progress_bars):
        try:
            if any((path / file).is_file() for file in SAVED):
                return datasets.load_from_disk(name)
            return datasets.load_dataset(name)
        except Exception as error:  # the library, its file systems and the network raise whatever comes up
            raise InputError(
                f"cannot open the data set {name!r} ({type(error).__name__}: {reason_of(error)}); it is not in the "
                f"cache {datasets.config.HF_DATASETS_CACHE} either; check its name and the network, or save it to a "
                "folder"
            ) from None


def _table(path: Path, split: str, data: Any, limit: int) -> Table:
    import datasets

    where = f"{path} ({split})"
    images = [name for name, kind in data.features.items() if isinstance(kind, datasets.Image)]
    for name in images:
        data = data.cast_column(name, datasets.Image(decode=False))
    return Table(
        path,
        len(data),
        tuple(data.column_names),
        partial(_cells, data, where),
        lambda row: f"{where}, row {row}",
        {name: partial(HubImages, data, name, torch.arange(len(data)), where, limit) for name in images},
        {n: tuple(kind.names) for n, kind in data.features.items() if isinstance(kind, datasets.ClassLabel)},
    )


def _cells(data: Any, where: str, name: str) -> npt.NDArray[Any]:
    with sentence_for(f"{where}, column {name!r}", None, "save the data set anew"):
        values = list(data[name])
    if None in values:
        raise InputError(f"{where}, row {values.index(None)}, column {name!r}: the cell is empty; leave the row out")
    whole = all(isinstance(value, int) for value in values)
    return np.array(values, dtype=np.int64 if whole else object)
