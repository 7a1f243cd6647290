"""The manifest of a feature store: what the folder holds, as one frozen value with one JSON form, and its shards."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poise.errors import InputError
from poise.machine.documents import ESCAPED, Document, as_read
from poise.machine.reading import lies_in
from poise.machine.tensor_files import tensors_of
from poise.values.features import Features
from poise.values.fields import FLAG, TABLE, TEXT, list_of, one_of, optional, table_of, whole

MANIFEST = "manifest.json"
SHARD_NAME = "{:05d}.safetensors"
SHARD_PATTERN = re.compile(r"\d{5,}\.safetensors")
DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
)


class Shard(NamedTuple):
    """One file of rows: its name, number of rows, size in bytes and sha256 (hex)."""

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a store holds. `key` is the content key of the features, `counts` (C,) those of the training split."""

    rows: int
    views: int
    dim: int
    dtype: str
    classes: int
    class_names: tuple[str, ...] | None
    counts: tuple[int, ...]
    seen_by_backbone: bool | None
    weighted: bool
    key: str
    provenance: Mapping[str, Any] | None
    shards: tuple[Shard, ...]

    @classmethod
    def of(cls, features: Features, shards: tuple[Shard, ...], provenance: Mapping[str, Any] | None) -> "Manifest":
        """The manifest of features that were written as these shards."""
        return cls(
            rows=len(features),
            views=len(features.x),
            dim=features.dim,
            dtype=str(features.x.dtype).removeprefix("torch."),
            classes=len(features.counts),
            class_names=features.class_names,
            counts=tuple(features.counts.n.tolist()),
            seen_by_backbone=features.seen_by_backbone,
            weighted=features.weight is not None,
            key=features.key,
            provenance=None if provenance is None else dict(provenance),
            shards=shards,
        )

    def describes(self, features: Features) -> bool:
        """Are these the features that the store holds, their names and origin included?"""
        mine = (self.key, self.class_names, self.seen_by_backbone)
        return mine == (features.key, features.class_names, features.seen_by_backbone)


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write manifest.json. Raises: InputError if the provenance is no JSON."""
    path = folder / MANIFEST
    body = {**asdict(manifest), "shards": [shard._asdict() for shard in manifest.shards]}
    body = as_read(DOCUMENT.stamped(body), path)  # what is read must have the same checksum
    return DOCUMENT.write(path, {**body, "checksum": _checksum(body)})


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a store folder.

    Raises: InputError if there is none, it is damaged or edited, it comes from a newer version, or it names a shard
    outside the folder.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    if not lies_in(path, folder):
        raise InputError(f"{path} is a link that leads out of the folder; put the file itself there")
    body = DOCUMENT.read(path)
    if body.pop("checksum", None) != _checksum(body):
        raise InputError(f"{path} is not as it was written: its checksum differs; restore it from a copy")
    return _parsed(path, body)


def _checksum(body: Mapping[str, Any]) -> str:
    """Of the manifest's own content, so that a flipped bit in counts or names is found when it is opened."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _parsed(path: Path, body: dict[str, Any]) -> Manifest:
    shards = tuple(Shard(**shard) for shard in body["shards"])
    for shard in shards:
        if not SHARD_PATTERN.fullmatch(shard.file):
            raise InputError(
                f"{path} names the shard {shard.file!r}; shards lie in the folder itself and are called such as "
                f"{SHARD_NAME.format(0)}"
            )
    named = body["classes"] if body["class_names"] is None else len(body["class_names"])
    sizes = {len(body["counts"]), body["classes"], named}
    if sum(shard.rows for shard in shards) != body["rows"] or len(sizes) > 1:
        raise InputError(f"{path}: the rows of the shards or the number of counts do not add up; restore the file")
    names = None if body["class_names"] is None else tuple(body["class_names"])
    known = {field.name: body[field.name] for field in fields(Manifest)}
    return Manifest(**{**known, "class_names": names, "counts": tuple(body["counts"]), "shards": shards})


def mapped(path: Path, names: Iterable[str], remedy: str) -> dict[str, Tensor]:
    """Tensors of a shard, memory-mapped. Raises: InputError with the remedy if it cannot be read."""
    return tensors_of(path, remedy, names).tensors


_KINDS = {
    "rows": whole(1),
    "views": whole(1),
    "dim": whole(1),
    "dtype": one_of(*DTYPES),
    "classes": whole(2),
    "class_names": optional(list_of("names", TEXT, least=1)),
    "counts": list_of("whole numbers", whole(0, 2**53), least=2),
    "seen_by_backbone": optional(FLAG),
    "weighted": FLAG,
    "key": TEXT,
    "provenance": optional(TABLE),
    "shards": list_of("shards", table_of(file=TEXT, rows=whole(1), bytes=whole(1), sha256=TEXT), least=1),
    "checksum": TEXT,
}
REMEDY = "restore it from a copy, or write the features again"
DOCUMENT = Document("poise.features", "features", 1, REMEDY, _KINDS, ESCAPED)
