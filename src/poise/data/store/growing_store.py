"""A feature store that grows shard by shard: many processes may write it, and a killed one loses no finished shard.

    folder/00003.safetensors   x (V, n, D), y (n,) of rows 3 * shard_rows and on; appears whole or not at all
    folder/extracting.json     what is being extracted, while the store is unfinished
    folder/manifest.json       written last, by one process; from then on the folder is an ordinary store

The finished store is the same, byte by byte, in whatever order and by however many processes its shards were made.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from poise.data.store.manifest import MANIFEST, SHARD_NAME, Manifest, Shard, mapped, read_manifest, write_manifest
from poise.errors import InputError, PoiseWarning
from poise.machine.atomic import sha256_of, write_atomically
from poise.machine.documents import ESCAPED, as_read, read_table, write_json
from poise.machine.folders import seal
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.shards import Shards

UNFINISHED = "extracting.json"


def begin(folder: Path, identity: Mapping[str, Any]) -> None:
    """Make the folder, or check that it holds the unfinished or finished features that `identity` describes.

    Raises: InputError naming what differs, or if the folder holds anything else.
    """
    known = folder / UNFINISHED
    wanted = as_read(dict(identity), known)
    for stray in folder.glob(".*.tmp"):  # of a writer that was killed
        stray.unlink(missing_ok=True)
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        there = (manifest.provenance or {}).get("extraction")
        if known.exists():  # of a process that was killed right after it wrote the manifest
            _seal(folder, manifest)
    elif known.exists():
        there = read_table(known, "delete the folder and run the extraction again")
    elif folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise InputError(f"{folder} exists and holds no features of an extraction; choose another folder, or delete it")
    else:
        write_json(known, wanted, ESCAPED)
        return
    if there is not None and not isinstance(there, dict):
        raise InputError(f"{folder}: extraction must be a table, got {there!r:.80}; delete the folder")
    if there != wanted:
        changed = [
            f"{key} is {(there or {}).get(key)!r:.80} there and {wanted.get(key)!r:.80} now"
            for key in sorted({*(there or {}), *wanted})
            if (there or {}).get(key) != wanted.get(key)
        ]
        raise InputError(f"{folder} holds other features: {'; '.join(changed)}; choose another folder, or delete it")


def is_finished(folder: Path) -> bool:
    """Is the store complete?"""
    return (folder / MANIFEST).exists()


def missing(folder: Path, shards: int) -> list[int]:
    """The numbers, below `shards`, of the shards that are not there yet."""
    return [number for number in range(shards) if not (folder / SHARD_NAME.format(number)).exists()]


def write_shard(folder: Path, number: int, x: Tensor, y: Tensor, dtype: torch.dtype) -> Path:
    """Write one shard in `dtype`, or in float32 where a value does not fit, which `finish` will say.

    x (V, n, D) float32 and finite, y (n,) int64.
    """
    stored = x.to(dtype)
    fits = bool(torch.isfinite(stored).all())
    content = save({"x": (stored if fits else x).contiguous(), "y": y.contiguous()})
    return write_atomically(folder / SHARD_NAME.format(number), content)


def finish(
    folder: Path,
    shards: int,
    counts: ClassCounts,
    *,
    dtype: torch.dtype,
    class_names: tuple[str, ...] | None,
    seen_by_backbone: bool | None,
    provenance: Mapping[str, Any],
) -> Path:
    """Write the manifest of a store whose shards are all there; `counts` (C,) are those of the training split.

    If a value did not fit into `dtype`, all shards become float32, with a PoiseWarning.

    Raises: InputError naming the shards that are missing or damaged.
    """
    if absent := missing(folder, shards):
        raise InputError(f"{folder}: shards {absent[:5]} are missing; run the same extraction again")
    names = [SHARD_NAME.format(number) for number in range(shards)]
    _make_one_type(folder, names, dtype)
    parts = [_mapped(folder / name) for name in names]
    x, y = Shards([part["x"] for part in parts]), torch.cat([part["y"] for part in parts])
    features = Features(x, y, counts, seen_by_backbone, class_names)
    described = tuple(
        Shard(name, len(part["y"]), (folder / name).stat().st_size, sha256_of(folder / name))
        for name, part in zip(names, parts, strict=True)
    )
    manifest = Manifest.of(features, described, provenance)
    write_manifest(folder, manifest)
    _seal(folder, manifest)
    return folder


def _seal(folder: Path, manifest: Manifest) -> None:
    seal(folder, [*(shard.file for shard in manifest.shards), MANIFEST])
    (folder / UNFINISHED).unlink(missing_ok=True)


def _make_one_type(folder: Path, names: list[str], asked: torch.dtype) -> None:
    """Rewrite shards as float32 where one of them is not of the type that was asked for."""
    types = {name: _mapped(folder / name)["x"].dtype for name in names}
    if set(types.values()) == {asked}:
        return
    warnings.warn(
        f"some features lie beyond {torch.finfo(asked).max:.6g}, the largest number of {asked}; all are stored as "
        "torch.float32",
        PoiseWarning,
        stacklevel=3,
    )
    for path in (folder / name for name, kind in types.items() if kind != torch.float32):
        part = _mapped(path)
        write_atomically(path, save({"x": part["x"].float(), "y": part["y"]}))


def _mapped(path: Path) -> dict[str, Tensor]:
    return mapped(path, ("x", "y"), "delete it and run the same extraction again")
