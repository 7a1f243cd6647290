"""What an exported network is given, with numpy and Pillow alone: rows of features, or images cut as for training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from poise.data.samples.decoding import SUFFIXES, decode
from poise.data.samples.image_files import middle_square, walk
from poise.data.tables.by_suffix import TABLES, read_table
from poise.data.tables.named_arrays import features_in, opened
from poise.data.tables.reader_contract import Ask, kind_of
from poise.errors import InputError
from poise.values.fields import TABLE, Kind, one_of, whole

MODES = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Rows(NamedTuple):
    """Rows of features x (N, D), other columns (N,) to carry through, and remarks."""

    x: npt.NDArray[Any]
    extra: Mapping[str, tuple[Any, ...]]
    notes: tuple[str, ...]


def read_rows(
    path: str | Path, *, key: str | None = None, columns: Sequence[str] | None = None, ignore: Sequence[str] = ()
) -> Rows:
    """Rows to be predicted: of a table, in the order of `columns` if these are known, or of a file of arrays.

    A label column, like all that is no feature, is carried through. `key` names one array of several.

    Raises: InputError naming the file and what is wrong with it; MissingExtraError for Parquet without pyarrow.
    """
    file = Path(path)
    wanted = None if columns is None or kind_of(file) not in TABLES else tuple(columns)
    ask = Ask(key=key, ignore=tuple(ignore), columns=wanted, needs_label=False)
    source = read_table(file, ask, "this model reads rows of features,")
    if source is None:
        return _finite(file, Rows(_array(file, key), {}, ()))
    return Rows(np.asarray(source.x), source.extra, source.notes)


def _array(file: Path, key: str | None) -> npt.NDArray[Any]:
    """The features of a file of arrays. Raises: InputError if there are none, or the file cannot be read."""
    with opened(file, "numpy") as arrays:
        name = features_in(arrays, key)
        return _numbers(file, name, arrays.get(name))


def _numbers(file: Path, name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(N, D): the test-time view where there are several. Raises: InputError if they are none."""
    if values.dtype.name == "bfloat16":  # known where the package ml_dtypes is loaded
        values = values.astype(np.float32)
    if values.dtype.kind not in "fiu":
        raise InputError(f"{file}: {name!r} holds {values.dtype} values; numbers up to float64 are needed")
    x = values[0] if values.ndim == 3 and len(values) else values
    if x.ndim != 2 or 0 in x.shape:
        raise InputError(f"{file}: rows are (N, D) with at least one row and one feature, got {values.shape}")
    return x


def _finite(file: Path, rows: Rows) -> Rows:
    bad = ~np.isfinite(rows.x).all(axis=1)
    if bad.any():
        raise InputError(f"{file}, row {int(bad.argmax())}: the row holds NaN or infinity; drop or fix it")
    return rows


# --- images -----------------------------------------------------------------------------------------------------------


class Pixels(NamedTuple):
    """How an image becomes a square of `size`: its middle scaled, or its `shorter` side scaled and the middle cut."""

    size: int
    shorter: int | None
    interpolation: Image.Resampling

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "Pixels":
        """What an export says, as `PIXELS` takes it."""
        shorter = data["shorter"] if data["resize"] == "shorter_side" else None
        return cls(data["height"], shorter, MODES[data["interpolation"]])


_SIDE = whole(1, 4096)


def _is_cut(data: Any) -> bool:
    if not TABLE.fits(data) or not _SIDE.fits(data.get("height")) or data["height"] != data.get("width"):
        return False
    if data.get("resize") == "shorter_side" and not whole(data["height"], 2**16).fits(data.get("shorter")):
        return False
    return data.get("resize") in ("middle_square", "shorter_side") and one_of(*MODES).fits(data.get("interpolation"))


PIXELS = Kind("how an image is cut: height, width, resize, shorter, interpolation", _is_cut)


def pixels_of(file: Path, way: Pixels) -> npt.NDArray[np.float32]:
    """(3, size, size) in [0, 1]; normalising is the network's work. Raises: InputError for a broken image."""
    image = decode(file, str(file))
    square = (
        middle_square(image, way.size) if way.shorter is None else _cut(image, way.size, way.shorter, way.interpolation)
    )
    values: npt.NDArray[np.float32] = np.asarray(square).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    return values


def _cut(image: Image.Image, size: int, shorter: int, interpolation: Image.Resampling) -> Image.Image:
    """The middle square of `size` of the image whose shorter side is scaled to `shorter`."""
    width, height = image.size
    if min(width, height) != shorter:
        longer = int(shorter * max(width, height) / min(width, height))
        image = image.resize((shorter, longer) if width <= height else (longer, shorter), interpolation)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def image_files(source: Path) -> list[Path]:
    """One image, or all images of a folder of any depth; those of a folder stand before those of the folders in it.

    Raises: InputError if there is none.
    """
    if source.is_file() and source.suffix.lower() in SUFFIXES:
        return [source]
    if not source.is_dir():
        state = "is no image" if source.exists() else "does not exist"
        raise InputError(f"{source} {state}; this model reads an image, or a folder of images")
    files = [source / name for name in walk(source, "", [], ())]
    if not files:
        raise InputError(f"{source} holds no image; images are files that end in {', '.join(sorted(SUFFIXES))}")
    return files
