"""Files of named arrays: .npz, .safetensors, and a single .npy. Pickled objects are refused."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from torch import Tensor

from poise.data.tables.source import LABEL_NAMES, ROWS, Ask, Source, listed
from poise.errors import InputError, reason_of
from poise.values.wording import near

COUNTS = ("n", "counts", "train_counts", "class_counts")
MAGIC = {".npz": b"PK", ".npy": b"\x93NUMPY"}

Array = npt.NDArray[Any] | Tensor


class Arrays(NamedTuple):
    """The names in a file, and how to get one of them; `metadata` is that of a safetensors file."""

    path: Path
    names: tuple[str, ...]
    load: Callable[[str], Array]
    metadata: dict[str, str]

    def get(self, name: str) -> Array:
        """The array of that name. Raises: InputError if it cannot be read or holds objects."""
        try:
            return self.load(name)
        except Exception as error:  # a damaged file makes the libraries raise whatever comes up
            raise InputError(_unreadable(self.path, error, name)) from None

    def first(self, candidates: Sequence[str]) -> str | None:
        """The one of these names that is there, or None. Raises: InputError if several are."""
        found = [name for name in candidates if name in self.names]
        if len(found) > 1:
            raise InputError(f"{self.path} holds {listed(found)}, which mean the same; keep one of them")
        return found[0] if found else None


@contextmanager
def opened(path: Path) -> Iterator[Arrays]:
    """The arrays of a .npz, .safetensors or .npy file (then called x). Raises: InputError if it is none."""
    with ExitStack() as stack:
        try:
            arrays = _arrays(path, stack)
        except Exception as error:  # a damaged file makes the libraries raise whatever comes up
            raise InputError(_unreadable(path, error)) from None
        yield arrays


def _arrays(path: Path, stack: ExitStack) -> Arrays:
    kind = path.suffix.lower()
    if kind == ".safetensors":
        tensors: Any = stack.enter_context(safe_open(str(path), framework="pt"))
        return Arrays(path, tuple(tensors.keys()), tensors.get_tensor, tensors.metadata() or {})
    file = stack.enter_context(path.open("rb"))
    if not file.read(8).startswith(MAGIC[kind]):
        raise ValueError("it does not begin as such a file does")
    if kind == ".npy":
        # Copy-on-write: rows are read when they are used, and the file is never changed.
        array = np.load(path, allow_pickle=False, mmap_mode="c")
        return Arrays(path, ("x",), lambda _: array, {})
    file.seek(0)
    archive = stack.enter_context(np.load(file, allow_pickle=False))
    return Arrays(path, tuple(archive.files), archive.__getitem__, {})


def read_arrays(path: Path, ask: Ask) -> Source:
    """Features, labels, counts, class names and groups of a file of arrays.

    Without `ask.key`, features are called x or features and labels one of `LABEL_NAMES`. With the key `train`,
    features are called train and labels y_train, train_y, train_labels or labels_train. `ask.label_column` names the
    labels.

    Raises: InputError listing the arrays of the file where one is missing.
    """
    with opened(path) as arrays:
        x_name = arrays.first(ROWS) if ask.key is None else arrays.first((ask.key,))
        if x_name is None:
            _refuse_checkpoint(arrays)
            wanted = "called x or features" if ask.key is None else f"{ask.key!r}{near(ask.key, arrays.names)}"
            raise InputError(
                f"{path} has no array {wanted}; it holds {listed(arrays.names)}; choose one with key= (or FILE#NAME)",
                "key= (or FILE#NAME)",
            )
        labels = _labels(arrays, ask)
        counts = arrays.first(COUNTS)
        return Source(
            path,
            to_tensor(path, x_name, arrays.get(x_name)),
            labels=labels,
            groups=None if ask.group_column is None else to_numbers(arrays.get(_named(arrays, ask.group_column))),
            counts=None if counts is None else torch.as_tensor(to_numbers(arrays.get(counts))),
            class_names=names_of_classes(arrays),
        )


def _refuse_checkpoint(arrays: Arrays) -> None:
    """Raises: InputError if these are the tensors of a network, whose names end in .weight."""
    weights = [name for name in arrays.names if name.endswith(".weight")]
    if weights:
        raise InputError(
            f"{arrays.path} holds no feature rows; with arrays such as {weights[0]!r} ({len(arrays.names)} in all) it "
            "looks like a checkpoint: its last layer is read by --head beside feature rows, or by `poise rebalance`"
        )


def _labels(arrays: Arrays, ask: Ask) -> npt.NDArray[Any] | None:
    if not ask.needs_label:
        return None
    if ask.label_column is not None:
        return to_numbers(arrays.get(_named(arrays, ask.label_column)))
    key = ask.key
    candidates = LABEL_NAMES if key is None else (f"y_{key}", f"{key}_y", f"{key}_labels", f"labels_{key}")
    name = arrays.first(candidates)
    if name is None:
        raise InputError(
            f"{arrays.path} has no labels called {' or '.join(candidates[:2])}; it holds {listed(arrays.names)}; add "
            f"them, or give labels"
        )
    return to_numbers(arrays.get(name))


def _named(arrays: Arrays, name: str) -> str:
    if name not in arrays.names:
        raise InputError(f"{arrays.path} has no array {name!r}; it holds {listed(arrays.names)}")
    return name


def names_of_classes(arrays: Arrays) -> tuple[str, ...] | None:
    """The array class_names, or the JSON list of that name in the metadata of a safetensors file."""
    if "class_names" in arrays.names:
        names = to_numbers(arrays.get("class_names"))
        return tuple(str(name) for name in names.ravel().tolist())
    if "class_names" not in arrays.metadata:
        return None
    try:
        listing = json.loads(arrays.metadata["class_names"])
    except (ValueError, RecursionError):
        listing = None
    if not isinstance(listing, list):
        raise InputError(f"{arrays.path}: class_names in the metadata must be a JSON list of names")
    return tuple(str(name) for name in listing)


def to_numbers(array: Array) -> npt.NDArray[Any]:
    """The array in numpy."""
    if not isinstance(array, Tensor):
        return np.asarray(array)
    return array.float().numpy() if array.dtype == torch.bfloat16 else array.numpy()  # numpy has no bfloat16


def to_tensor(path: Path, name: str, array: Array) -> Tensor:
    """Floating-point values as they are, integers as float32. Raises: InputError for anything else."""
    if isinstance(array, Tensor):
        if array.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            return array
        if array.is_floating_point():
            raise InputError(f"{path}: {name!r} holds {array.dtype} values, which are too narrow; convert to float16")
        return to_tensor(path, name, array.numpy())
    if array.dtype.kind in "iu":
        return torch.from_numpy(array.astype(np.float32))
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise InputError(f"{path}: {name!r} holds {array.dtype} values; numbers up to float64 are needed")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(np.ascontiguousarray(native))


def _unreadable(path: Path, error: BaseException, name: str | None = None) -> str:
    what = f"{path}" if name is None else f"{path}: the array {name!r}"
    if "ickle" in str(error) or "Python objects" in str(error):
        return f"{what} holds Python objects, which are never read; save plain numbers or text with dtype=str"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot read {what}: {error.strerror}"
    return f"{what} cannot be read, it is damaged or no {path.suffix} file ({reason_of(error)})"
