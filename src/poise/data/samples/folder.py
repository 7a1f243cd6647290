"""A folder of images: CLASS/.../image.jpg, or SPLIT/CLASS/.../image.jpg.

Folders of the first level are the classes, in the order of their names, empty ones too; images may lie deeper. The
first level is taken for splits where all of its names are names of splits.
"""

import os
import unicodedata
import warnings
from pathlib import Path

import numpy as np

from poise.data.samples.decoding import SUFFIXES
from poise.data.samples.image_files import level, walk
from poise.data.samples.items import Files
from poise.data.samples.split_parts import SPLITS, Part, Request
from poise.data.tables.reader_contract import listed
from poise.errors import InputError, PoiseWarning


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
    images = tuple(walk(root, "", others, ()))
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
    if tables := [
        name
        for name in level(root, "").others
        if name.lower().endswith((".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet"))
    ]:
        return f"; if {tables[0]} holds the labels, give that file"
    if only and (root / only).is_dir() and (inner := level(root, only).folders):
        return f"; if {listed(inner, most=3)} are the classes, give {root / only}"
    return ""


def _splits(root: Path) -> dict[str, str]:
    """The folder of every split, relative to the root; the root itself is the training split if there are none."""
    folders = level(root, "").folders
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
    inside = level(root, folder)
    if inside.images:
        state = "beside the folders of the classes" if inside.folders else "in no folder of a class"
        more = f", as {len(inside.images) - 1} more do" if len(inside.images) > 1 else ""
        raise InputError(
            f"{root / folder / inside.images[0]} lies {state}{more}; move it into the folder of its class{_hint(root)}"
        )
    others.extend(os.path.join(folder, name) for name in inside.others)
    found: dict[str, list[str]] = {}
    for name in inside.folders:
        # Systems spell the same letters in two ways; a class has one name in all splits.
        images = found.setdefault(unicodedata.normalize("NFC", name), [])
        images.extend(walk(root, os.path.join(folder, name), others, ()))
    return found


def _part(root: Path, classes: dict[str, list[str]], names: tuple[str, ...], request: Request) -> Part:
    images = tuple(image for name in names for image in classes.get(name, ()))
    labels = np.repeat(np.arange(len(names)), [len(classes.get(name, ())) for name in names])
    return Part(Files(images, root, request.limit), labels, lambda row: str(root / images[row]), names)


def _warn_others(root: Path, others: list[str]) -> None:
    if others:
        files = "1 file is" if len(others) == 1 else f"{len(others)} files are"
        warnings.warn(
            f"{root}: {files} no image by name and left out: {listed(others, most=5)}", PoiseWarning, stacklevel=4
        )
