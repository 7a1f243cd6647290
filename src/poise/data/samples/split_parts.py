"""What adapters are asked for, what they return, and how their splits become samples with common class names."""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from poise.data.samples.decoding import MAX_PIXELS
from poise.data.samples.sample_set import Items, Samples
from poise.data.tables.labels import Coded, code, match
from poise.data.tables.reader_contract import listed
from poise.errors import InputError, PoiseWarning

# How splits are called, and what they are called here, in this order.
SPLITS: Mapping[str, str] = MappingProxyType(
    {
        "train": "train",
        "training": "train",
        "val": "val",
        "valid": "val",
        "validation": "val",
        "dev": "val",
        "test": "test",
        "testing": "test",
    }
)


class Request(NamedTuple):
    """Columns by name, the folder of images, the classes of another artefact, most pixels, and if labels matter."""

    label: str | None = None
    image: str | None = None
    text: str | None = None
    group: str | None = None
    root: Path | None = None
    class_names: tuple[str, ...] | None = None
    limit: int = MAX_PIXELS
    labelled: bool = True


class Part(NamedTuple):
    """One split as it is stored: `labels` (N,) integers or text, empty where none were asked for.

    `names` are those of the classes, where the source has them; `place(row)` names a row in messages.
    """

    items: Items
    labels: npt.NDArray[Any]
    place: Callable[[int], str]
    names: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None

    def take(self, rows: npt.NDArray[np.int64]) -> "Part":
        """Some of the rows; their places stay those of the source."""
        return Part(
            self.items.take(torch.from_numpy(rows)),
            self.labels[rows] if len(self.labels) else self.labels,
            lambda row: self.place(int(rows[row])),
            self.names,
            None if self.groups is None else tuple(self.groups[i] for i in rows.tolist()),
        )


def split_in(name: str) -> str | None:
    """The one split that the words of a file name mention.

    >>> split_in("ImageNet_LT_val.txt"), split_in("data.csv"), split_in("train_val.csv")
    ('val', None, None)
    """
    found = {SPLITS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLITS}
    return found.pop() if len(found) == 1 else None


def by_split(path: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Files grouped by the split that their name, or else their folder below `path`, mentions; train, if none does.

    Raises: InputError if some files mention a split and others do not.
    """
    found: dict[str, list[Path]] = {}
    unnamed = []
    for file in files:
        folder = file.parent.name if file.parent.is_relative_to(path) and file.parent != path else ""
        split = split_in(file.name) or split_in(folder)
        if split is None:
            unnamed.append(file)
        found.setdefault(split or "train", []).append(file)
    if unnamed and len(unnamed) < len(files):
        raise InputError(
            f"{path}: {unnamed[0].name!r} does not say which split it is, while others do; put train, val or test into "
            f"its name, or give one file"
        )
    return found


def ends_in(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Is it a file whose name ends so, or a folder of such files without folders?"""
    if not path.is_dir():
        return path.name.lower().endswith(suffixes)
    return bool(_ending(path, suffixes)) and not any(entry.is_dir() for entry in path.iterdir())


def _ending(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.name.lower().endswith(suffixes))


def one_per_split(path: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """As `by_split`, of a file or of a folder's files whose names end so.

    Raises: InputError if two files are the same split.
    """
    grouped = by_split(path, _ending(path, suffixes) if path.is_dir() else [path])
    for split, same in grouped.items():
        if len(same) > 1:
            raise InputError(
                f"{path}: {same[0].name!r} and {same[1].name!r} are both the split {split!r}; name them by train, val "
                f"or test, or give one file"
            )
    return {split: same[0] for split, same in grouped.items()}


def assembled(path: Path, parts: Mapping[str, Part], class_names: tuple[str, ...] | None) -> dict[str, Samples]:
    """Samples of every split, with the same classes in the same order in all of them.

    Raises: InputError for no split, an empty split, one class only, or a label that is no class. Warns (PoiseWarning)
    about classes that have no sample in a split.
    """
    for name, part in parts.items():
        if len(part.items) == 0:
            raise InputError(f"{path}: the split {name!r} is empty; add samples, or remove it")
        if len(part.labels) != len(part.items):
            raise InputError(
                f"{path}: {len(part.labels)} labels for the {len(part.items)} samples of the split {name!r}; each "
                "sample needs one"
            )
    if not parts:
        raise InputError(f"{path} holds no sample")
    coded = _coded(path, list(parts.values()), class_names)
    names = coded.names or tuple(str(k) for k in range(int(coded.y.max()) + 1))
    if len(names) < 2:
        raise InputError(f"{path} holds only one class, {names[0]!r}; a classifier needs samples of at least two")
    ends = np.cumsum([len(part.labels) for part in parts.values()])[:-1]
    labels = dict(zip(parts, np.split(coded.y, ends), strict=True))
    _warn_absent(path, labels, names)
    return {
        name: Samples(part.items, torch.from_numpy(labels[name].copy()), names, part.groups)
        for name, part in parts.items()
    }


def _coded(path: Path, parts: Sequence[Part], class_names: tuple[str, ...] | None) -> Coded:
    """Class numbers of all rows of all splits, one after the other."""
    names = parts[0].names
    if any(part.names != names for part in parts):
        raise InputError(f"{path}: its splits name their classes differently; write them with the same class names")
    starts = np.cumsum([0, *(len(part.labels) for part in parts)])

    def place(row: int) -> str:
        which = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[which].place(row - int(starts[which]))

    labels = np.concatenate([part.labels for part in parts])
    coded = code(labels, place, names=names, classes=None, close_gaps=class_names is None)
    return coded if class_names is None else match(coded, class_names, place)


def _warn_absent(path: Path, labels: Mapping[str, npt.NDArray[np.int64]], names: tuple[str, ...]) -> None:
    for split, y in labels.items():
        absent = np.flatnonzero(np.bincount(y, minlength=len(names)) == 0)
        if len(absent):
            classes = "1 class has" if len(absent) == 1 else f"{len(absent)} classes have"
            warnings.warn(
                f"{path}: {classes} no sample in the split {split!r} and will be kept: "
                f"{listed((names[k] for k in absent), most=5)}",
                PoiseWarning,
                stacklevel=4,
            )
