"""CIFAR-10 and CIFAR-100 as their authors publish them for Python: a folder of pickles, or the .tar.gz of it.

A pickle may call any function when it is run. These are not run: see `poise.data.samples.plain_pickle`.
"""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poise.data.samples.items import Pixels
from poise.data.samples.plain_pickle import plain_value
from poise.data.samples.split_parts import Part, Request
from poise.data.tables.reader_contract import listed
from poise.errors import InputError
from poise.machine.reading import content_of, sentence_for, unzipped

REMEDY = "get it anew"
MEMBERS = 1000  # files in an archive; the published ones have fewer than 10


class Layout(NamedTuple):
    """Names in an archive: the file of class names, the files of each split, and the labels with their class names."""

    meta: str
    splits: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, str]

    @property
    def files(self) -> tuple[str, ...]:
        """All files."""
        return (self.meta, *(name for names in self.splits.values() for name in names))


CIFAR10 = Layout(
    "batches.meta",
    MappingProxyType({"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}),
    MappingProxyType({"labels": "label_names"}),
)
CIFAR100 = Layout(
    "meta",
    MappingProxyType({"train": ("train",), "test": ("test",)}),
    MappingProxyType({"fine_labels": "fine_label_names", "coarse_labels": "coarse_label_names"}),
)


def is_cifar(path: Path) -> bool:
    """Is it a folder with the files of an archive, or an archive of Python by its name?"""
    if path.is_dir():
        return any(all((path / name).is_file() for name in layout.files) for layout in (CIFAR10, CIFAR100))
    return "cifar" in path.name.lower() and path.name.lower().endswith((".tar.gz", ".tgz", ".tar"))


def read_cifar(path: Path, request: Request) -> dict[str, Part]:
    """Training and test split of CIFAR-10 or CIFAR-100; `request.label` is fine_labels (default) or coarse_labels.

    Raises: InputError for a missing or damaged file, and for a pickle that holds anything but arrays and plain values.
    """
    stored = _folder(path) if path.is_dir() else _archive(path)
    layout = CIFAR10 if CIFAR10.meta in stored else CIFAR100
    if missing := [name for name in layout.files if name not in stored]:
        raise InputError(f"{path} lacks {listed(missing)} of the CIFAR archive; get it anew")
    label = request.label or next(iter(layout.labels))
    if label not in layout.labels:
        raise InputError(f"{path} has no labels {label!r}; it has {listed(layout.labels)}")
    names = _names(path, layout.meta, _unpickled(path, layout.meta, stored), layout.labels[label])
    return {split: _part(path, files, stored, label, names) for split, files in layout.splits.items()}


def _names(path: Path, file: str, batch: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = _field(path, file, batch, name)
    if not isinstance(found, list) or not all(isinstance(each, str | bytes) for each in found):
        raise InputError(f"{path}, {file}: {name!r} must be a list of texts; {REMEDY}")
    with sentence_for(f"{path}, {file}: {name!r}", None, REMEDY):  # bytes of no text
        return tuple(map(_text, found))


def _labels(path: Path, file: str, batch: Mapping[str, Any], name: str, images: int) -> npt.NDArray[np.int64]:
    """One class number for each of so many images."""
    found = _field(path, file, batch, name)
    if not isinstance(found, list) or not all(type(each) is int and abs(each) < 2**31 for each in found):
        raise InputError(f"{path}, {file}: {name!r} must be a list of class numbers; {REMEDY}")
    if len(found) != images:
        raise InputError(f"{path}, {file} has {images} images and {len(found)} labels; {REMEDY}")
    return np.array(found, dtype=np.int64)


def _part(path: Path, files: tuple[str, ...], stored: Mapping[str, bytes], label: str, names: tuple[str, ...]) -> Part:
    batches = [(file, _unpickled(path, file, stored)) for file in files]
    pictures = [_images(path, file, batch) for file, batch in batches]
    sizes = [len(images) for images in pictures]
    images = np.concatenate(pictures)
    numbers = (_labels(path, *each, label, size) for each, size in zip(batches, sizes, strict=True))
    labels = np.concatenate(list(numbers))
    where = f"{path}, {files[0]}" if len(files) == 1 else str(path)
    return Part(Pixels(images, where), labels, lambda row: f"{where}, row {row}", names)


def _images(path: Path, file: str, batch: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    """(N, 32, 32, 3) from rows of 1024 red, 1024 green and 1024 blue values."""
    data = _field(path, file, batch, "data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise InputError(f"{path}, {file}: 'data' must be uint8 (N, 3072)")
    return np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _field(path: Path, file: str, batch: Mapping[str, Any], name: str) -> Any:
    if name not in batch:
        raise InputError(f"{path}, {file} has no {name!r}; it has {listed(batch)}")
    return batch[name]


def _folder(path: Path) -> dict[str, bytes]:
    wanted = {*CIFAR10.files, *CIFAR100.files}
    with sentence_for(path, None, REMEDY):
        files = sorted(file for file in path.iterdir() if file.name in wanted)
    return {file.name: content_of(file, REMEDY, None) for file in files}


def _archive(path: Path) -> dict[str, bytes]:
    """The files of an archive, read in memory: nothing is written to the disk."""
    wanted, found, content = {*CIFAR10.files, *CIFAR100.files}, {}, unzipped(path, REMEDY)
    with sentence_for(path, "an archive", REMEDY), tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        for number, member in enumerate(archive):
            name = member.name.rsplit("/", 1)[-1]
            if number == MEMBERS or (name in wanted and member.size > len(content)):
                raise InputError(f"{path} holds more than an archive of CIFAR does; {REMEDY}")
            if name in wanted and (file := archive.extractfile(member)) is not None:
                found[name] = file.read()
    return found


def _unpickled(path: Path, file: str, stored: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        with sentence_for(f"{path}, {file}", "a pickle of plain values", REMEDY):
            content = plain_value(stored[file])
            return {_text(key): value for key, value in content.items()}
    except InputError as error:
        where = f"{path}, {file}"
        raise InputError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise InputError("a key is no text")
    return value if isinstance(value, str) else value.decode()
