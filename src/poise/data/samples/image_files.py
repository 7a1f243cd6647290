"""Image files of a folder, by one order for training and prediction, and the square that is cut of an image."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from poise.data.samples.decoding import SUFFIXES
from poise.errors import InputError, reason_of

DEEPEST = 100  # folders within folders
JUNK = frozenset({"desktop.ini", "thumbs.db"})  # hidden files aside


class Level(NamedTuple):
    """What a folder holds directly, sorted: folders, images, and files that are none."""

    folders: tuple[str, ...]
    images: tuple[str, ...]
    others: tuple[str, ...]


def walk(root: Path, folder: str, others: list[str], above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Images in a folder and below it, from `root`; those of a folder stand before those of the folders in it.

    `above` are the folders that hold it; files that are no images are added to `others`.

    Raises: InputError for a folder that cannot be read, or a link to a folder that holds it.
    """
    known = os.stat(root / folder)
    here = (known.st_dev, known.st_ino)
    if here in above:
        raise InputError(f"{root / folder} is a link to a folder that holds it; remove the link")
    if len(above) > DEEPEST:
        raise InputError(f"{root / folder} lies more than {DEEPEST} folders deep; name a folder further in")
    inside = level(root, folder)
    yield from (os.path.join(folder, name) for name in inside.images)
    others.extend(os.path.join(folder, name) for name in inside.others)
    for name in inside.folders:
        yield from walk(root, os.path.join(folder, name), others, (*above, here))


def level(root: Path, folder: str) -> Level:
    """What the folder holds. Raises: InputError if it cannot be read."""
    try:
        with os.scandir(root / folder) as entries:
            seen = sorted((e.name, e.is_dir()) for e in entries if e.name[0] != "." and e.name.lower() not in JUNK)
    except OSError as error:
        raise InputError(f"cannot read the folder {root / folder}: {reason_of(error)}") from None
    for name, _ in seen:
        if any("\ud800" <= character <= "\udfff" for character in name):  # how Python shows bytes that are no UTF-8
            raise InputError(f"the name of {root / folder / name} is not UTF-8; rename it")
    files = [name for name, holds_more in seen if not holds_more]
    return Level(
        tuple(name for name, holds_more in seen if holds_more),
        tuple(name for name in files if os.path.splitext(name)[1].lower() in SUFFIXES),
        tuple(name for name in files if os.path.splitext(name)[1].lower() not in SUFFIXES),
    )


def middle_square(image: Image.Image, size: int) -> Image.Image:
    """The middle square of an image, its side scaled to `size` (bilinear, antialiased)."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
