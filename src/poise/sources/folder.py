"""A folder of images: CLASS/.../image.jpg, or SPLIT/CLASS/.../image.jpg.

Folders of the first level are the classes, in the order of their names, empty ones too; images may lie deeper. The
first level is taken for splits where all of its names are names of splits.
"""

import os
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from poise.decoding import SUFFIXES
from poise.errors import InputError, PoiseWarning
from poise.readers.source import listed
from poise.sources.items import Files
from poise.sources.parts import SPLITS, Part, Request

__all__ = ["is_folder", "is_image", "read_folder", "read_image"]

JUNK = frozenset({"desktop.ini", "thumbs.db"})  # hidden files aside


class Level(NamedTuple):
    """What a folder holds directly, sorted: folders, images, and files that are none."""

    folders: tuple[str, ...]
    images: tuple[str, ...]
    others: tuple[str, ...]


def is_folder(path: Path) -> bool:
    """Is it a folder?"""
    return path.is_dir()


def is_image(path: Path) -> bool:
    """Is it the file of an image, by its name?"""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def read_image(path: Path, request: Request) -> dict[str, Part]:
    """One image without a label. Raises: InputError if a label is wanted."""
    if request.labelled:
        raise InputError(f"{path} is one image; labels come from a folder with one folder per class, or from a table")
    return {"train": Part(Files((path.name,), path.parent, request.limit), np.array([]), lambda _: str(path))}


def read_folder(path: Path, request: Request) -> dict[str, Part]:
    """The splits of a folder, or all its images as one part if no labels are wanted.

    Raises: InputError for images beside the folders of classes, for one class or no image at all, and for a link that
    leads back to a folder that holds it. Warns (PoiseWarning) about files that are no images.
    """
    others: list[str] = []
    parts = _labelled(path, request, others) if request.labelled else _unlabelled(path, request, others)
    _warn_others(path, others)
    if not any(len(part.items) for part in parts.values()):
        raise InputError(f"{path} holds no image; images are files that end in {', '.join(sorted(SUFFIXES))}")
    return parts


def _unlabelled(root: Path, request: Request, others: list[str]) -> dict[str, Part]:
    images = tuple(_walk(root, "", others, ()))
    return {"train": Part(Files(images, root, request.limit), np.array([]), lambda row: str(root / images[row]))}


def _labelled(root: Path, request: Request, others: list[str]) -> dict[str, Part]:
    found = {split: _classes(root, folder, others) for split, folder in _splits(root).items()}
    names = tuple(sorted({name for classes in found.values() for name in classes}))
    if len(names) == 1 and request.class_names is None:
        raise InputError(
            f"{root} holds only one class, {names[0]!r}; a classifier needs samples of at least two"
            f"{_hint(root, names[0])}"
        )
    return {split: _part(root, classes, names, request) for split, classes in found.items()}


def _hint(root: Path, only: str = "") -> str:
    """What was perhaps meant: a table beside the images, or a folder around the classes, as unpacking leaves it."""
    if tables := [name for name in _level(root, "").others if name.lower().endswith((".csv", ".tsv", ".parquet"))]:
        return f"; if {tables[0]} holds the labels, give that file"
    if only and (root / only).is_dir() and (inner := _level(root, only).folders):
        return f"; if {listed(inner, most=3)} are the classes, give {root / only}"
    return ""


def _splits(root: Path) -> dict[str, str]:
    """The folder of every split, relative to the root; the root itself is the training split if there are none."""
    folders = _level(root, "").folders
    named = [name for name in folders if name.lower() in SPLITS]
    splits = {SPLITS[name.lower()]: name for name in named}
    if len(splits) > 1 and len(named) < len(folders):
        rest = listed((name for name in folders if name not in named), most=3)
        raise InputError(f"{root} holds the splits {listed(named)} beside other folders, {rest}; move these elsewhere")
    if len(splits) < len(named):
        raise InputError(f"{root} holds {listed(named)}, of which two mean the same split; keep one of them")
    return splits if named and len(named) == len(folders) else {"train": ""}


def _classes(root: Path, folder: str, others: list[str]) -> dict[str, list[str]]:
    """Paths of images, relative to the root, of every class of a folder."""
    level = _level(root, folder)
    if level.images:
        state = "beside the folders of the classes" if level.folders else "in no folder of a class"
        more = f", as {len(level.images) - 1} more do" if len(level.images) > 1 else ""
        raise InputError(
            f"{root / folder / level.images[0]} lies {state}{more}; move it into the folder of its class{_hint(root)}"
        )
    others.extend(os.path.join(folder, name) for name in level.others)
    found: dict[str, list[str]] = {}
    for name in level.folders:
        # Systems spell the same letters in two ways; a class has one name in all splits.
        images = found.setdefault(unicodedata.normalize("NFC", name), [])
        images.extend(_walk(root, os.path.join(folder, name), others, ()))
    return found


def _part(root: Path, classes: dict[str, list[str]], names: tuple[str, ...], request: Request) -> Part:
    images = tuple(image for name in names for image in classes.get(name, ()))
    labels = np.repeat(np.arange(len(names)), [len(classes.get(name, ())) for name in names])
    return Part(Files(images, root, request.limit), labels, lambda row: str(root / images[row]), names)


def _walk(root: Path, folder: str, others: list[str], above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Images in a folder and below it; `above` are the folders that hold it."""
    known = os.stat(root / folder)
    here = (known.st_dev, known.st_ino)
    if here in above:
        raise InputError(f"{root / folder} is a link to a folder that holds it; remove the link")
    level = _level(root, folder)
    yield from (os.path.join(folder, name) for name in level.images)
    others.extend(os.path.join(folder, name) for name in level.others)
    for name in level.folders:
        yield from _walk(root, os.path.join(folder, name), others, (*above, here))


def _level(root: Path, folder: str) -> Level:
    try:
        with os.scandir(root / folder) as entries:
            seen = sorted((e.name, e.is_dir()) for e in entries if e.name[0] != "." and e.name.lower() not in JUNK)
    except OSError as error:
        raise InputError(f"cannot read the folder {root / folder}: {error.strerror}") from None
    files = [name for name, holds_more in seen if not holds_more]
    return Level(
        tuple(name for name, holds_more in seen if holds_more),
        tuple(name for name in files if os.path.splitext(name)[1].lower() in SUFFIXES),
        tuple(name for name in files if os.path.splitext(name)[1].lower() not in SUFFIXES),
    )


def _warn_others(root: Path, others: list[str]) -> None:
    if others:
        files = "1 file is" if len(others) == 1 else f"{len(others)} files are"
        warnings.warn(
            f"{root}: {files} no image by name and left out: {listed(others, most=5)}", PoiseWarning, stacklevel=4
        )
