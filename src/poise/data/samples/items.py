"""Images that are files, encoded bytes in a table, or pixels in memory."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from poise.data.samples.decoding import MAX_PIXELS, decode, read_stored
from poise.data.tables.parquet import Origin
from poise.errors import InputError


@dataclass(frozen=True)
class Files:
    """Image files. `paths` are relative to `root`; without a root they can be counted, not read."""

    paths: tuple[str, ...]
    root: Path | None
    limit: int = MAX_PIXELS
    kind: Literal["image"] = "image"

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def located(self) -> bool:
        """Is it known where the files are?"""
        return self.root is not None

    def path(self, index: int) -> Path:
        """The file. Raises: InputError if its folder is not known."""
        if self.root is None:
            said = f"the folder of {self.paths[index]} is not known; give the folder of the images (root=)"
            raise InputError(said, "(root=)")
        return self.root / self.paths[index]

    def read(self, index: int) -> Image.Image:
        """The image in RGB."""
        path = self.path(index)
        return decode(path, str(path), self.limit)

    def describe(self, index: int) -> str:
        """The path."""
        return self.paths[index] if self.root is None else str(self.root / self.paths[index])

    def digest(self, index: int) -> str:
        """The sha256 of the file. Raises: InputError if it cannot be read."""
        path = self.path(index)
        return hashlib.sha256(read_stored(path, str(path))).hexdigest()

    def take(self, rows: Tensor) -> "Files":
        """Some of the files."""
        return replace(self, paths=tuple(self.paths[i] for i in rows.tolist()))


@dataclass(frozen=True, eq=False)
class Encoded:
    """Encoded images of a table: `column` is an Arrow column of bytes, `rows` (N,) int64 the chosen ones of it.

    The bytes stay in the buffers of the column, whatever is taken of them.
    """

    column: Any
    rows: Tensor
    origin: Origin
    limit: int = MAX_PIXELS
    kind: Literal["image"] = "image"

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Image.Image:
        """The image in RGB."""
        return decode(self._stored(index), self.describe(index), self.limit)

    def describe(self, index: int) -> str:
        """File and row, counted from 0."""
        return self.origin(int(self.rows[index]))

    def digest(self, index: int) -> str:
        """The sha256 of the encoded bytes."""
        return hashlib.sha256(self._stored(index)).hexdigest()

    def take(self, rows: Tensor) -> "Encoded":
        """Some of the images."""
        return replace(self, rows=self.rows[rows])

    def _stored(self, index: int) -> memoryview:
        return memoryview(self.column[int(self.rows[index])].as_buffer())


@dataclass(frozen=True, eq=False)
class Pixels:
    """Images in memory: `values` (N, H, W, 3) uint8; `where` names their file, `rows` (N,) int64 their numbers in it.

    Raises: InputError for another shape or type.
    """

    values: npt.NDArray[np.uint8]
    where: str = "pixels"
    rows: npt.NDArray[np.int64] | None = None
    kind: Literal["image"] = "image"

    def __post_init__(self) -> None:
        shape = self.values.shape
        if self.values.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
            raise InputError(f"{self.where}: pixels are uint8 (N, H, W, 3), got {self.values.dtype} {shape}")
        if 0 in shape[1:]:
            raise InputError(f"{self.where}: its images have {shape[2]} x {shape[1]} pixels; they need at least one")

    @classmethod
    def of(cls, values: npt.NDArray[Any], where: str = "pixels") -> "Pixels":
        """From (N, H, W), (N, H, W, 1) or (N, H, W, 3) uint8; gray is repeated three times."""
        gray = values[..., None] if values.ndim == 3 else values
        if gray.ndim == 4 and gray.shape[3] == 1:
            return cls(np.repeat(gray, 3, axis=3), where)
        return cls(gray, where)

    def __len__(self) -> int:
        return len(self.values)

    def read(self, index: int) -> Image.Image:
        """The image."""
        return Image.fromarray(self.values[index])

    def describe(self, index: int) -> str:
        """File and row, counted from 0."""
        return f"{self.where}, row {index if self.rows is None else self.rows[index]}"

    def digest(self, index: int) -> str:
        """The sha256 of size and pixels."""
        image = np.ascontiguousarray(self.values[index])
        return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()

    def take(self, rows: Tensor) -> "Pixels":
        """A copy of some of the images."""
        chosen = rows.numpy()
        return replace(self, values=self.values[chosen], rows=chosen if self.rows is None else self.rows[chosen])
