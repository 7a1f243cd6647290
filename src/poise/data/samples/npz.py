"""Images in a .npz file: arrays called images and labels, or train_images and train_labels, x_test and y_test, ..."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poise.data.samples.items import Pixels
from poise.data.samples.split_parts import SPLITS, Part, Request
from poise.data.tables.named_arrays import Arrays, opened
from poise.data.tables.reader_contract import LABEL_NAMES, listed
from poise.errors import InputError

IMAGES = frozenset({"data", "image", "images", "img", "imgs", "pixels", "x"})
NAMES = ("class_names", "names", "label_names")


def is_npz(path: Path) -> bool:
    """Is it a .npz file?"""
    return path.suffix.lower() == ".npz" and path.is_file()


def read_npz(path: Path, request: Request) -> dict[str, Part]:
    """The splits of a file: images uint8 (N, H, W) or (N, H, W, 3) with labels (N,), and class_names (C,) if there.

    `request.image` and `request.label` name the two arrays otherwise.

    Raises: InputError listing the arrays where one is missing, of another shape, or of another length.
    """
    with opened(path) as arrays:
        images = _by_split(arrays, IMAGES, request.image)
        labels = _by_split(arrays, LABEL_NAMES, request.label)
        if not images:
            raise InputError(
                f"{path} has no array called images; it holds {listed(arrays.names)}; name it (image=)", "(image=)"
            )
        return {split: _part(arrays, name, labels.get(split), request) for split, name in images.items()}


def _by_split(arrays: Arrays, known: Collection[str], wanted: str | None) -> dict[str, str]:
    """Name of the array of each split."""
    if wanted is not None:
        return {"train": wanted}
    found: dict[str, str] = {}
    for name in arrays.names:
        words = re.split(r"[^a-z]+", name.lower())
        rest = [word for word in words if word not in SPLITS]
        if len(rest) != 1 or rest[0] not in known:
            continue
        split = next((SPLITS[word] for word in words if word in SPLITS), "train")
        if split in found:
            raise InputError(f"{arrays.path}: {found[split]!r} and {name!r} mean the same; keep one of them")
        found[split] = name
    return found


def _part(arrays: Arrays, name: str, label: str | None, request: Request) -> Part:
    path = arrays.path
    images = Pixels.of(np.asarray(arrays.get(name)), f"{path}, {name!r}")
    if not request.labelled:
        return Part(images, np.array([]), images.describe)
    if label is None:
        raise InputError(
            f"{path} has no labels for {name!r}; it holds {listed(arrays.names)}; name them (label=)", "(label=)"
        )
    labels: npt.NDArray[Any] = np.asarray(arrays.get(label))
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (len(images),):
        raise InputError(
            f"{path}: {label!r} has the shape {labels.shape} for {len(images)} images; each needs one label"
        )
    return Part(images, labels, lambda row: f"{path}, {label!r}, row {row}", _class_names(arrays))


def _class_names(arrays: Arrays) -> tuple[str, ...] | None:
    name = next((name for name in NAMES if name in arrays.names), None)
    return None if name is None else tuple(str(word) for word in np.asarray(arrays.get(name)).ravel().tolist())
