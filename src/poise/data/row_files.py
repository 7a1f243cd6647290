"""Feature rows of any file or store folder: with labels, or to be predicted."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poise.data.array_files import read_arrays, to_numbers
from poise.data.store import feature_store
from poise.data.tables.by_suffix import read_table
from poise.data.tables.labels import Coded, code, match
from poise.data.tables.named_arrays import opened
from poise.data.tables.reader_contract import Ask, Source, listed
from poise.errors import InputError, PoiseWarning
from poise.values.counts import ClassCounts, as_counts
from poise.values.features import Features


class Table(NamedTuple):
    """Labelled rows of a file: features, groups (N,) or None, other columns (N,), feature names, remarks.

    `numbered`: the labels are numbers, and the file says beside them which names these stand for.
    """

    features: Features
    groups: npt.NDArray[Any] | None
    extra: Mapping[str, tuple[Any, ...]]
    names: tuple[str, ...] | None
    notes: tuple[str, ...]
    numbered: bool = False


class Rows(NamedTuple):
    """Rows without labels: x (N, D), other columns (N,) to carry through, feature names, remarks."""

    x: Tensor
    extra: Mapping[str, tuple[Any, ...]]
    names: tuple[str, ...] | None
    notes: tuple[str, ...]


def read_features(
    path: str | Path,
    *,
    labels: str | Path | Sequence[Any] | npt.NDArray[Any] | Tensor | None = None,
    label_column: str | None = None,
    counts: ClassCounts | Tensor | Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    seen_by_backbone: bool | None = None,
    group_column: str | None = None,
    key: str | None = None,
    ignore: Sequence[str] = (),
) -> Table:
    """Labelled features of a file or store folder.

    Args:
        path: a store folder, or a .csv, .tsv (or .gz of one), .parquet, .npz, .npy or .safetensors file.
        labels: the labels (N,), or the .npy file that holds them; for files without any.
        label_column: column or array of the labels; by default label, y, target, class or category.
        counts: (C,) rows per class of the training split; by default those in the file, else counted.
        class_names: the classes of another artefact, such as the training split; labels are matched with them by name.
        seen_by_backbone: did these rows train the representation?
        group_column: column or array of the groups that must stay together in cross-validation.
        key: which arrays of a file that holds several splits: `train` means `train` and `y_train`.
        ignore: columns to leave out.

    Raises: InputError in one sentence naming the file, the line or row and the value; MissingExtraError for Parquet
    without pyarrow. Warns (PoiseWarning) about rows that repeat others and about columns that number the rows.
    """
    file = Path(path)
    source = _source(file, Ask(label_column, group_column, key, tuple(ignore), None, labels is None))
    if labels is not None:
        source = source._replace(labels=_given(labels))
    coded = _coded(source, class_names, counts)
    if seen_by_backbone is None:
        seen_by_backbone = source.seen_by_backbone
    try:
        known = _counts(source, coded, class_names, counts)
        x, y = torch.as_tensor(source.x), torch.from_numpy(coded.y)
        features = Features(x, y, known, seen_by_backbone, coded.names, source.weight)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    if source.groups is not None and len(source.groups) != len(features):
        raise InputError(f"{file}: {len(source.groups)} groups for {len(features)} rows; each row needs one")
    if not file.is_dir():
        _warn_repeats(source, features.x[0])
    named = not file.is_dir() and class_names is None and source.class_names is not None
    numbered = named and source.labels is not None and source.labels.dtype.kind in "iu"
    return Table(features, source.groups, source.extra, source.names, source.notes, numbered)


def read_rows(
    path: str | Path,
    *,
    label_column: str | None = None,
    key: str | None = None,
    columns: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
) -> Rows:
    """Rows to be predicted, without labels: those of the test-time view where there are several.

    `columns` names the features of a table in the order that the head was trained on; the file may have them in any
    order. A label column, like all that is no feature, is carried through. Otherwise as `read_features`.
    """
    file = Path(path)
    wanted = None if columns is None else tuple(columns)
    source = _source(file, Ask(label_column, None, key, tuple(ignore), wanted, needs_label=False))
    x = torch.as_tensor(source.x[0] if source.x.ndim == 3 and source.x.shape[0] else source.x)
    if x.ndim != 2 or 0 in x.shape:
        raise InputError(f"{file}: rows are (N, D) with at least one row and one feature, got {tuple(source.x.shape)}")
    bad = ~torch.isfinite(x).all(dim=-1)
    if bad.any():
        raise InputError(f"{source.place(int(bad.nonzero()[0]))}: the row holds NaN or infinity; drop or fix it")
    return Rows(x, source.extra, source.names, source.notes)


def load_features(path: str | Path, *, verify: bool = False) -> Features:
    """Features of a store folder, or of any file that `read_features` reads without further arguments.

    `verify` recomputes the checksums of a store; files of other formats have none.
    """
    folder = Path(path)
    return feature_store.load_features(folder, verify=verify) if folder.is_dir() else read_features(folder).features


def _source(path: Path, ask: Ask) -> Source:
    if path.is_dir():
        stored = feature_store.load_features(path)
        return Source(
            path,
            stored.x,
            labels=stored.y.numpy(),
            counts=stored.counts.n,
            class_names=stored.class_names,
            seen_by_backbone=stored.seen_by_backbone,
            weight=stored.weight,
        )
    return read_table(path, ask, "features come as a store folder or") or read_arrays(path, ask)


def _given(labels: str | Path | Sequence[Any] | npt.NDArray[Any] | Tensor) -> npt.NDArray[Any]:
    if not isinstance(labels, str | Path):
        return to_numbers(labels) if isinstance(labels, Tensor) else np.array(labels)
    path = Path(labels)
    if path.suffix.lower() != ".npy" or not path.is_file():
        raise InputError(f"labels are an array or a .npy file, and {path} is none")
    with opened(path) as arrays:
        return to_numbers(arrays.get("x"))


def _coded(source: Source, class_names: Sequence[str] | None, counts: Any) -> Coded:
    """Class numbers of the rows, by the given class names if there are any."""
    labels, rows = source.labels, source.x.shape[-2] if source.x.ndim > 1 else 0
    if labels is None or labels.ndim == 0 or len(labels) != rows or rows == 0:
        number = "no" if labels is None or labels.ndim == 0 else len(labels)
        raise InputError(f"{source.path} has {rows} rows and {number} labels; each row needs one, and one is needed")
    own = source.counts
    if own is None and class_names is None and counts is not None:
        own = as_counts(counts).n
    classes = None if own is None else len(own)
    coded = code(labels, source.place, names=source.class_names, classes=classes, close_gaps=class_names is None)
    if class_names is not None:
        coded = match(coded, class_names, source.place)
    found = len(coded.names) if coded.names is not None else int(coded.y.max()) + 1
    if own is None and found < 2:
        only = coded.names[0] if coded.names else labels[0]
        raise InputError(f"{source.path} holds only one class, {str(only)!r}; a classifier needs rows of at least two")
    return coded


def _counts(source: Source, coded: Coded, class_names: Sequence[str] | None, counts: Any) -> ClassCounts:
    """Training counts: those given, else those of the file in the order of `coded`, else counted from these rows."""
    if counts is not None:
        known = as_counts(counts)
        if coded.names is not None and len(coded.names) != len(known):
            raise InputError(
                f"there are {len(coded.names)} classes, {listed(coded.names)}, and counts of {len(known)}; give "
                f"class_names in the order of the counts"
            )
        return known
    if source.counts is None:
        return ClassCounts.from_labels(torch.from_numpy(coded.y), len(coded.names) if coded.names else None)
    if class_names is None or source.class_names is None:
        return ClassCounts(source.counts)
    rows = dict(zip(source.class_names, source.counts.tolist(), strict=False))
    return ClassCounts(torch.tensor([rows.get(name, 0) for name in class_names]))


def _warn_repeats(source: Source, x: Tensor) -> None:
    seen: dict[bytes, int] = {}
    repeats = []
    for row, values in enumerate(x.contiguous().view(torch.uint8).numpy()):
        first = seen.setdefault(hashlib.blake2b(values, digest_size=16).digest(), row)
        if first != row:
            repeats.append((row, first))
    if repeats:
        number = f"{len(repeats)} rows repeat" if len(repeats) > 1 else "1 row repeats"
        row, first = repeats[0]
        warnings.warn(
            f"{source.path}: {number} the features of another row (the first: {source.row(row)} repeats "
            f"{source.row(first)}); remove copies, so that no row is trained on and scored as well",
            PoiseWarning,
            stacklevel=3,
        )
