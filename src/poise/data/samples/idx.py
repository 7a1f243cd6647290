"""IDX archives, in which MNIST and its successors are published: pairs of *-images-idx3-ubyte and *-labels-idx1-ubyte.

Files may be compressed (.gz). Files that begin with t10k are the test split.
"""

import math
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from poise.data.samples.items import Pixels
from poise.data.samples.split_parts import Part, Request, split_in
from poise.errors import InputError
from poise.machine.reading import affordable, unzipped

REMEDY = "get it anew"
IMAGE_AXES = 3

IMAGES = re.compile(r"(.*)images[-.]idx3-ubyte(\.gz)?")
FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def is_idx(path: Path) -> bool:
    """Is it a file of images of such an archive, or a folder with some?"""
    return bool(_archives(path))


def read_idx(path: Path, request: Request) -> dict[str, Part]:
    """The splits of the archives. Gray becomes RGB; classes are named if they are those of Fashion-MNIST.

    Raises: InputError for a damaged file, a missing one, or numbers of images and labels that differ.
    """
    parts: dict[str, Part] = {}
    for file in _archives(path):
        split = "test" if file.name.startswith("t10k") else split_in(file.name) or "train"
        if split in parts:
            raise InputError(f"{path} holds several archives of the split {split!r}; give the file of one")
        parts[split] = _part(file, request)
    return parts


def _archives(path: Path) -> list[Path]:
    files = path.iterdir() if path.is_dir() else [path]
    return sorted(file for file in files if IMAGES.fullmatch(file.name))


def _part(file: Path, request: Request) -> Part:
    images = Pixels.of(_array(file, axes=IMAGE_AXES), str(file))
    if not request.labelled:
        return Part(images, np.array([]), images.describe)
    source = file.with_name(file.name.replace("images-idx3", "labels-idx1").replace("images.idx3", "labels.idx1"))
    labels = _array(source, axes=1)
    if len(labels) != len(images):
        raise InputError(f"{file} has {len(images)} images and {source.name} has {len(labels)} labels; get both anew")
    clothes = "fashion" in "/".join(file.absolute().parts[-3:-1]).lower() and labels.max(initial=0) < len(FASHION)
    return Part(images, labels.astype(np.int64), lambda row: f"{source}, row {row}", FASHION if clothes else None)


def _array(path: Path, axes: int) -> npt.NDArray[np.uint8]:
    """The bytes of an archive: a magic number, the sizes of its axes as big-endian integers, and the values."""
    stored = unzipped(path, REMEDY)
    if stored[:4] != bytes((0, 0, 8, axes)) or len(stored) < 4 + 4 * axes:
        raise InputError(f"{path} is no IDX archive of bytes with {axes} axes; it begins with {stored[:4].hex()}")
    shape = tuple(np.frombuffer(stored, dtype=">u4", count=axes, offset=4).tolist())
    values = np.frombuffer(stored, dtype=np.uint8, offset=4 + 4 * axes)
    if len(values) != math.prod(shape):
        raise InputError(f"{path} is truncated: its header says {shape}, and {len(values)} values follow")
    if axes == IMAGE_AXES:
        affordable(path, 3 * len(values), path.stat().st_size)  # gray becomes RGB
    return values.reshape(shape)
