"""What the named arrays of a file mean: features, labels, counts, names of classes."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poise.data.tables.named_arrays import Arrays, features_in, opened
from poise.data.tables.reader_contract import LABEL_NAMES, Ask, Source, listed
from poise.errors import InputError
from poise.machine.documents import parsed_value
from poise.values.counts import ClassCounts, as_counts

COUNTS = ("n", "counts", "train_counts", "class_counts")

Array = npt.NDArray[Any] | Tensor


def read_arrays(path: Path, ask: Ask) -> Source:
    """Features, labels, counts, class names and groups of a file of arrays.

    Without `ask.key`, features are called x or features and labels one of `LABEL_NAMES`. With the key `train`,
    features are called train and labels y_train, train_y, train_labels or labels_train. `ask.label_column` names the
    labels.

    Raises: InputError listing the arrays of the file where one is missing.
    """
    with opened(path) as arrays:
        x_name = features_in(arrays, ask.key)
        labels = _labels(arrays, ask)
        counts = arrays.first(COUNTS)
        return Source(
            path,
            to_tensor(path, x_name, arrays.get(x_name)),
            labels=labels,
            groups=None if ask.group_column is None else to_numbers(arrays.get(_named(arrays, ask.group_column))),
            counts=None if counts is None else counts_in(arrays, counts).n,
            class_names=names_of_classes(arrays),
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
    remedy = "class_names in the metadata must be a JSON list of names"
    listing = parsed_value(arrays.metadata["class_names"], f"{arrays.path}: class_names", remedy)
    if not isinstance(listing, list) or any(isinstance(name, list | dict) for name in listing):
        raise InputError(f"{arrays.path}: {remedy}")
    return tuple(str(name) for name in listing)


def counts_in(arrays: Arrays, name: str) -> ClassCounts:
    """Training rows per class (C,) in the array of that name. Raises: InputError if they are none."""
    try:
        numbers: Any = to_numbers(arrays.get(name))
        return as_counts(numbers)
    except InputError as error:
        said = str(error)
        raise InputError(said if said.startswith(str(arrays.path)) else f"{arrays.path}: {name!r}: {said}") from None


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
