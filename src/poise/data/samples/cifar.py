"""CIFAR-10 and CIFAR-100 as their authors publish them for Python: a folder of pickles, or the .tar.gz of it.

A pickle may call any function when it is read. Here only arrays of numpy and plain values are built, and any other
name in it is refused.
"""

import io
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poise.data.samples.items import Pixels
from poise.data.samples.split_parts import Part, Request
from poise.data.tables.reader_contract import listed
from poise.errors import InputError


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
    names = tuple(
        _text(name) for name in _field(path, layout.meta, _unpickled(path, layout.meta, stored), layout.labels[label])
    )
    return {split: _part(path, files, stored, label, names) for split, files in layout.splits.items()}


def _part(path: Path, files: tuple[str, ...], stored: Mapping[str, bytes], label: str, names: tuple[str, ...]) -> Part:
    batches = [(file, _unpickled(path, file, stored)) for file in files]
    images = np.concatenate([_images(path, file, batch) for file, batch in batches])
    labels = np.concatenate([np.asarray(_field(path, file, batch, label)) for file, batch in batches])
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
    try:
        return {file.name: file.read_bytes() for file in path.iterdir() if file.name in wanted and file.is_file()}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from None


def _archive(path: Path) -> dict[str, bytes]:
    """The files of an archive, read in memory: nothing is written to the disk."""
    wanted, found = {*CIFAR10.files, *CIFAR100.files}, {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.rsplit("/", 1)[-1]
                if name in wanted and (file := archive.extractfile(member)) is not None:
                    found[name] = file.read()
    except (OSError, EOFError, tarfile.TarError) as error:
        raise InputError(f"cannot read {path}, it is damaged or no archive ({error})") from None
    return found


def _unpickled(path: Path, file: str, stored: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        content = _PlainUnpickler(io.BytesIO(stored[file]), encoding="bytes").load()
        return {_text(key): value for key, value in content.items()}
    except InputError as error:
        raise InputError(f"{path}, {file}: {error}") from None
    except Exception as error:  # damaged bytes make the machine of pickle raise whatever comes up
        raise InputError(f"{path}, {file} is damaged ({error!r}); get it anew") from None


def _latin(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise InputError(f"it asks for the encoding {encoding!r}, which no archive of CIFAR does; it is refused")
    return text.encode("latin1")


# What a pickled array calls, under the names of old and new numpy, and how Python 3 writes bytes in old pickles.
KNOWN = MappingProxyType(
    {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        **{(f"numpy.{c}.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0] for c in ("core", "_core")},
        **{(f"numpy.{c}.numeric", "_frombuffer"): np.empty(0).__reduce_ex__(5)[0] for c in ("core", "_core")},
        ("_codecs", "encode"): _latin,
    }
)


class _PlainUnpickler(pickle.Unpickler):
    """Builds arrays of numpy and plain values only."""

    def find_class(self, module: str, name: str) -> Any:
        """What a pickled array calls. Raises: InputError for every other name."""
        if (module, name) not in KNOWN:
            raise InputError(f"it asks for {module}.{name}, which no archive of CIFAR does; it is refused")
        return KNOWN[module, name]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
