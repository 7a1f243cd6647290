"""Features on disk: safetensors shards beside a manifest that is written last and names the checksum of everything.

    folder/00000.safetensors    x (V, n, D), y (n,) int64; weight (n,) float64 if rows are weighted
    folder/00001.safetensors    the next rows
    folder/manifest.json        shape, classes, counts, content key; file, rows, bytes and sha256 of every shard
    folder/SHA256SUMS           the digests of all these

A folder appears complete or not at all, and is never changed afterwards: the content key in the manifest says what it
holds. Opening compares names, sizes and headers; `verify` and `check_store` read every byte and find a flipped bit.
Large stores stay on disk, memory-mapped: a shard that is cut short by somebody while it is in use ends the process, as
with every mapping.
"""

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from poise.data.store.manifest import (
    DTYPES,
    MANIFEST,
    REMEDY,
    SHARD_NAME,
    Manifest,
    Shard,
    mapped,
    read_manifest,
    write_manifest,
)
from poise.errors import InputError, PoiseWarning, reason_of
from poise.machine.atomic import PATIENCE, sha256_of, write_atomically
from poise.machine.folders import replacing_folder, seal
from poise.machine.reading import lies_in
from poise.values.arrays import row_slices
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.fields import whole
from poise.values.shards import Shards

IN_MEMORY = 2**30  # bytes up to which a store is read into memory


def save_features(
    features: Features,
    folder: str | Path,
    *,
    shard_rows: int = 65536,
    dtype: torch.dtype | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write features (V, N, D) to a new folder; `load_features` reads them back bit for bit.

    `dtype` stores values in another floating-point type. Where a value would not fit, all keep their own type, with a
    PoiseWarning. `provenance` is any JSON object that says where the rows come from. The same features and options
    give the same bytes. A folder that already holds the same features is left as it is.

    Raises: InputError if the folder holds anything else, or cannot be written.
    """
    target = Path(folder)
    whole(1).check("shard_rows", shard_rows)
    stored = features if dtype is None else _in_dtype(features, dtype)
    if _is_there(target, stored):
        return target
    try:
        with replacing_folder(target, PATIENCE) as stage:
            if not _is_there(target, stored):  # another writer may have been faster: that is fine if it wrote the same
                shards = tuple(_write_shard(stage, i, part) for i, part in enumerate(_parts(stored, shard_rows)))
                manifest = write_manifest(stage, Manifest.of(stored, shards, provenance))
                seal(stage, [*(shard.file for shard in shards), manifest])
    except OSError as error:
        raise InputError(f"cannot write {target}: {reason_of(error)}") from None
    return target


def load_features(path: str | Path, *, verify: bool = False) -> Features:
    """The features of a store folder: of up to 1 GiB in memory, of more on disk, as `poise.values.shards.Shards`.

    Rows on disk are memory-mapped and read in parts by training and measuring, so that what is used of memory does not
    depend on their number; pages that were read stay there while nobody else wants the memory.

    `verify` also recomputes every checksum and the content key, for which all bytes are read.

    Raises: InputError naming the folder and every shard that is missing, extra, damaged or not what the manifest says.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    faults = [*_faults(folder, manifest), *(_damaged(folder, manifest) if verify else ())]
    if faults:
        raise InputError(f"{folder}: {'; '.join(faults)}; {REMEDY}")
    features = _assembled(folder, manifest)
    if verify and features.key != manifest.key:
        raise InputError(f"{folder}: its content has the key {features.key}, the manifest {manifest.key}; {REMEDY}")
    return features


def check_store(folder: str | Path) -> list[str]:
    """Every problem of a store folder, one sentence each, after reading every byte; empty if it is intact."""
    root = Path(folder)
    try:
        manifest = read_manifest(root)
        if problems := [*_faults(root, manifest), *_damaged(root, manifest)]:
            return problems
        load_features(root, verify=True)
    except InputError as error:
        return [str(error)]
    return []


# --- writing ----------------------------------------------------------------------------------------------------------


def _in_dtype(features: Features, dtype: torch.dtype) -> Features:
    if dtype not in DTYPES.values():
        raise InputError(f"dtype must be one of {', '.join(f'torch.{name}' for name in DTYPES)}; got {dtype!r}")
    x = features.x.to(dtype)
    if torch.isfinite(x).all():
        return replace(features, x=x)
    largest = float(features.x.abs().max())
    warnings.warn(
        f"features reach {largest:.6g}, beyond {torch.finfo(dtype).max:.6g}, the largest number of {dtype}; they are "
        f"stored as {features.x.dtype}",
        PoiseWarning,
        stacklevel=3,
    )
    return features


def _is_there(folder: Path, features: Features) -> bool:
    """Does the folder hold exactly these features? Raises: InputError if it holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder} exists and holds no finished features; choose another folder, or delete it")
    there = read_manifest(folder)
    if faults := _faults(folder, there):
        raise InputError(f"{folder}: {'; '.join(faults)}; delete the folder to write it again")
    if not there.describes(features):
        raise InputError(
            f"{folder} holds other features (content key {there.key}, these have {features.key}, or other class names "
            f"or seen_by_backbone); choose another folder, or delete it"
        )
    return True


def _parts(features: Features, rows: int) -> Iterator[dict[str, Tensor]]:
    """The tensors of one shard after another."""
    for part in row_slices(0, len(features), rows):
        tensors = {"x": features.x[:, part], "y": features.y[part]}
        if features.weight is not None:
            tensors["weight"] = features.weight[part]
        yield {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def _write_shard(folder: Path, number: int, tensors: dict[str, Tensor]) -> Shard:
    content = save(tensors)
    name = SHARD_NAME.format(number)
    write_atomically(folder / name, content)
    return Shard(name, len(tensors["y"]), len(content), hashlib.sha256(content).hexdigest())


# --- reading ----------------------------------------------------------------------------------------------------------


def _faults(folder: Path, manifest: Manifest) -> list[str]:
    """What is wrong as far as names and sizes tell; no shard is opened."""
    named = {shard.file for shard in manifest.shards}
    extra = sorted(path.name for path in folder.glob("*.safetensors") if path.name not in named)
    faults = [f"{name} is there but not in the manifest" for name in extra]
    for shard in manifest.shards:
        path = folder / shard.file
        if not lies_in(path, folder):
            faults.append(f"{shard.file} is a link that leads out of the folder")
        elif not path.is_file():
            faults.append(f"{shard.file} is missing")
        elif (size := path.stat().st_size) != shard.bytes:
            faults.append(f"{shard.file} has {size} bytes instead of {shard.bytes}, so it was cut short or replaced")
    return faults


def _damaged(folder: Path, manifest: Manifest) -> list[str]:
    """Shards whose bytes are not those that were written."""
    return [
        f"{shard.file} is damaged: its sha256 is not that of the manifest"
        for shard in manifest.shards
        if (folder / shard.file).is_file() and sha256_of(folder / shard.file) != shard.sha256
    ]


def _assembled(folder: Path, manifest: Manifest) -> Features:
    parts = [_read_shard(folder / shard.file, manifest, shard.rows) for shard in manifest.shards]
    rows = Shards([part["x"] for part in parts])
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0] if name != "x"}
    return Features(
        rows if sum(shard.bytes for shard in manifest.shards) > IN_MEMORY else rows.joined(),
        joined["y"],
        _counts(manifest, joined["y"], joined.get("weight")),
        manifest.seen_by_backbone,
        manifest.class_names,
        joined.get("weight"),
    )


def _counts(manifest: Manifest, y: Tensor, weight: Tensor | None) -> ClassCounts:
    """The counts that were saved, with the masses of the classes if they are those of the weights of these rows."""
    saved = ClassCounts(torch.tensor(manifest.counts))
    own = None if weight is None else ClassCounts.from_labels(y, len(saved), weight)
    return saved if own is None or not torch.equal(own.n, saved.n) else own


def _read_shard(path: Path, manifest: Manifest, rows: int) -> dict[str, Tensor]:
    """The mapped tensors of a shard. Raises: InputError naming the shard and, for a bad value, its row."""
    expected = {"x": (DTYPES[manifest.dtype], (manifest.views, rows, manifest.dim)), "y": (torch.int64, (rows,))}
    if manifest.weighted:
        expected["weight"] = (torch.float64, (rows,))
    tensors = mapped(path, expected, REMEDY)
    for name, (dtype, shape) in expected.items():
        found = tensors[name]
        if (found.dtype, tuple(found.shape)) != (dtype, shape):
            raise InputError(
                f"{path}: {name} is {found.dtype} {tuple(found.shape)}, the manifest says {dtype} {shape}; {REMEDY}"
            )
    _refuse_values(path, tensors["x"], tensors["y"], manifest.classes)
    return tensors


def _refuse_values(path: Path, x: Tensor, y: Tensor, classes: int) -> None:
    finite = torch.isfinite(x).all(dim=-1)
    if not finite.all():
        view, row = (~finite).nonzero()[0].tolist()
        raise InputError(f"{path}: row {row} of view {view} holds NaN or infinity; {REMEDY}")
    wrong = (y < 0) | (y >= classes)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise InputError(f"{path}: row {row} has label {int(y[row])}, there are {classes} classes; {REMEDY}")
