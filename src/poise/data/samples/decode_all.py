"""All images of a source decoded at once, and the search for those that cannot be decoded."""

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from poise.data.samples.decoding import SKIP
from poise.data.samples.image_files import middle_square
from poise.data.samples.items import Pixels
from poise.data.samples.sample_set import Items, Samples
from poise.errors import InputError, Message, PoiseWarning
from poise.machine.progress import Progress
from poise.values.checks import check_one_of
from poise.values.wording import some

CHUNK = 256  # images that one thread decodes before it reports

T = TypeVar("T")


def pixels(items: Items, size: int | None = None, progress: Progress | None = None) -> Tensor:
    """All images decoded into memory: (N, 3, H, W) uint8.

    Args:
        items: the images, which must be of one size where `size` is not given.
        size: the shorter side is scaled to it (bilinear, antialiased) and the middle square is kept.
        progress: is told how many of how many images are decoded.

    Raises: InputError naming the first image that cannot be read or is of another size; for texts.
    """
    _refuse_texts(items)
    if len(items) == 0:
        raise InputError("there is no image to decode")
    if isinstance(items, Pixels) and (size is None or items.values.shape[1:3] == (size, size)):
        return torch.from_numpy(items.values).permute(0, 3, 1, 2).contiguous()
    canvas = _Canvas(items, size, _sized(items, 0, size).shape)
    found = np.empty((len(items), *canvas.shape), dtype=np.uint8)

    def fill(rows: range) -> None:
        for row in rows:
            found[row] = canvas.image(row)

    for _ in _in_threads(fill, len(items), progress):
        pass
    return torch.from_numpy(found)


def readable(
    samples: Samples, broken: Literal["error", "skip"] = "error", progress: Progress | None = None
) -> tuple[Samples, tuple[str, ...]]:
    """The samples that can be decoded, and a sentence about each of the others. Every image is decoded once for it.

    Args:
        samples: images, or texts, which always can.
        broken: `error` raises for the first broken image; `skip` leaves broken ones out, with a warning.
        progress: is told how many of how many images are decoded.

    Raises: InputError naming the first broken image, or if none is whole.
    """
    check_one_of("broken", broken, ("error", "skip"))
    rows, reasons = whole_rows(samples.items, broken, progress)
    return (samples.take(rows) if reasons else samples), reasons


def whole_rows(
    items: Items, broken: Literal["error", "skip"] = "error", progress: Progress | None = None
) -> tuple[Tensor, tuple[str, ...]]:
    """The numbers (n,) int64 of the items that can be decoded, and a sentence about each other one, as `readable`."""
    every = torch.arange(len(items))
    if items.kind == "text":
        return every, ()

    def failures(rows: range) -> list[tuple[int, Message]]:
        found = [(row, _failure(items, row)) for row in rows]
        bad = [(row, reason) for row, reason in found if reason is not None]
        if bad and broken == "error":
            raise InputError(bad[0][1])
        return bad

    bad = dict(pair for chunk in _in_threads(failures, len(items), progress) for pair in chunk)
    if not bad:
        return every, ()
    if len(bad) == len(items):
        raise InputError(f"none of the {len(bad)} images can be read; the first: {bad[0]}", SKIP)
    left_out = "1 image is" if len(bad) == 1 else f"{len(bad)} images are"
    said = f"{left_out} broken and left out of {len(items)}: {some(list(bad.values()), most=3)}"
    warnings.warn(PoiseWarning(said, SKIP), stacklevel=3)
    return torch.tensor([row for row in every.tolist() if row not in bad], dtype=torch.int64), tuple(bad.values())


@dataclass(frozen=True)
class _Canvas:
    """Images of one shape (H, W, 3)."""

    items: Items
    size: int | None
    first: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.first[0], self.first[1]

    def image(self, row: int) -> npt.NDArray[np.uint8]:
        """(3, H, W)."""
        values = _sized(self.items, row, self.size)
        if values.shape == self.first:
            return values.transpose(2, 0, 1)
        (height, width), (first_height, first_width) = values.shape[:2], self.first[:2]
        raise InputError(
            f"{self.items.describe(row)} has {width} x {height} pixels, {self.items.describe(0)} has {first_width} x "
            f"{first_height}; give one size for all"
        )


def _in_threads(work: Callable[[range], T], rows: int, progress: Progress | None) -> Iterator[T]:
    """Results of chunks of rows, in order, so that of several errors the first one is raised. Pillow frees the lock."""
    chunks = [range(*pair) for pair in pairwise([*range(0, rows, CHUNK), rows])]
    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        for chunk, result in zip(chunks, pool.map(work, chunks), strict=True):
            if progress is not None:
                progress(chunk.stop, rows)
            yield result


def _refuse_texts(items: Items) -> None:
    if items.kind != "image":
        raise InputError("texts have no pixels; embed them with a text encoder")


def _failure(items: Items, row: int) -> Message | None:
    try:
        items.read(row)
    except InputError as error:
        return Message(error)
    return None


def _sized(items: Items, row: int, size: int | None) -> npt.NDArray[np.uint8]:
    """(H, W, 3)."""
    image = items.read(row)
    assert isinstance(image, Image.Image)
    return np.asarray(image if size is None else middle_square(image, size))
