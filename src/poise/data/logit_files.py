"""Saved logits of a trained model, for `poise audit`."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from poise.data.array_files import COUNTS, counts_in, names_of_classes, to_numbers, to_tensor
from poise.data.tables.labels import code
from poise.data.tables.named_arrays import Arrays, opened
from poise.data.tables.reader_contract import LABEL_NAMES, listed
from poise.errors import InputError
from poise.values.counts import ClassCounts

HELD_OUT_LOGITS = ("held_out_logits", "val_logits")
HELD_OUT_LABELS = ("held_out_labels", "held_out_y", "val_labels", "val_y")
TOLERANCE = 1e-2  # float16 probabilities of many classes sum to 1 within this


class Logits(NamedTuple):
    """Logits (N, C) and class numbers y (N,) of one split, counts (C,) of the training split, and held-out logits."""

    logits: Tensor
    y: Tensor
    counts: ClassCounts
    class_names: tuple[str, ...] | None = None
    held_out_logits: Tensor | None = None
    held_out_y: Tensor | None = None


def read_logits(path: str | Path) -> Logits:
    """Logits, labels and training counts of a .npz or .safetensors file.

    Arrays: `logits` (N, C), `labels` or `y` (N,), `counts` or `n` (C,); optionally `class_names` (C,), and both
    `held_out_logits` and `held_out_labels` (or `val_logits`, `val_labels`). Text labels are matched with class_names.

    Raises: InputError naming what is missing, or the row that is not usable; also if these are probabilities.
    """
    file = Path(path)
    if file.suffix.lower() not in (".npz", ".safetensors") or not file.is_file():
        raise InputError(f"logits are read from a .npz or .safetensors file, and {file} is none")
    with opened(file) as arrays:
        names = names_of_classes(arrays)
        logits = _logits(arrays, _required(arrays, ("logits",), "the logits (N, C)"))
        counts = _counts(arrays, logits.shape[1])
        if names is not None and len(names) != logits.shape[1]:
            raise InputError(f"{file} has {len(names)} class names for {logits.shape[1]} columns of logits")
        y = _labels(arrays, _required(arrays, LABEL_NAMES, "the labels (N,)"), logits, names)
        both = arrays.first(HELD_OUT_LOGITS), arrays.first(HELD_OUT_LABELS)
        if both[0] is None or both[1] is None:
            if any(both):
                raise InputError(f"{file} holds {both[0] or both[1]!r} alone; add held-out logits and labels, or none")
            return Logits(logits, y, counts, names)
        held_out = _logits(arrays, both[0])
        if held_out.shape[1] != logits.shape[1]:
            raise InputError(f"{file}: {both[0]!r} has {held_out.shape[1]} classes, logits {logits.shape[1]}")
        return Logits(logits, y, counts, names, held_out, _labels(arrays, both[1], held_out, names))


def _required(arrays: Arrays, candidates: Sequence[str], what: str) -> str:
    name = arrays.first(candidates)
    if name is None:
        raise InputError(f"{arrays.path} lacks {what} as {candidates[0]!r}; it holds {listed(arrays.names)}")
    return name


def _logits(arrays: Arrays, name: str) -> Tensor:
    z = to_tensor(arrays.path, name, arrays.get(name))
    if z.ndim != 2 or z.shape[0] == 0 or z.shape[1] < 2:
        raise InputError(f"{arrays.path}: {name!r} must be (N, C) with at least 2 classes, got {tuple(z.shape)}")
    bad = ~torch.isfinite(z).all(dim=-1)
    if bad.any():
        raise InputError(f"{arrays.path}: row {int(bad.nonzero()[0])} of {name!r} holds NaN or infinity; drop the row")
    if z.min() >= 0 and z.max() <= 1 and ((z.double().sum(dim=-1) - 1).abs() < TOLERANCE).all():
        raise InputError(
            f"{arrays.path}: {name!r} holds probabilities (each row sums to 1); save logits, or log-probabilities"
        )
    return z


def _labels(arrays: Arrays, name: str, logits: Tensor, names: tuple[str, ...] | None) -> Tensor:
    labels = to_numbers(arrays.get(name))
    if labels.dtype.kind in "USO" and names is None:
        raise InputError(f"{arrays.path}: {name!r} holds text; add class_names in the order of the columns of logits")
    if labels.shape[:1] != logits.shape[:1]:
        raise InputError(f"{arrays.path}: {name!r} has {labels.size} labels for {len(logits)} rows of logits")
    coded = code(labels, lambda row: f"{arrays.path}, {name!r}, row {row}", names=names, classes=logits.shape[1])
    return torch.from_numpy(coded.y)


def _counts(arrays: Arrays, classes: int) -> ClassCounts:
    name = arrays.first(COUNTS)
    if name is None:
        raise InputError(
            f"{arrays.path} lacks the training counts; add counts (C,), the number of training rows per class, such as "
            f"np.bincount(y_train, minlength={classes})"
        )
    counts = counts_in(arrays, name)
    if len(counts) != classes:
        raise InputError(f"{arrays.path}: {name!r} has {len(counts)} classes, logits {classes}")
    return counts
