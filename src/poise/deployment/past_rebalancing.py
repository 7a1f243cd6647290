"""What was done to the layers of a checkpoint, kept in the header of its files, so that it is not done twice.

    __metadata__["poise.rebalanced"] = '{"schema": 1, "layers": {"head.fc": {"method": ..., "request": ..., ...}}}'

It travels with the file under any name. Every file that holds a part of the layer has it, with the digests of that
layer before and after: it counts only while the layer is as it was left. The note beside a checkpoint can be written
again from it. All other metadata stay.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from poise.deployment.last_layer import Layer, Place, open_checkpoint
from poise.errors import InputError
from poise.machine.atomic import sha256_of
from poise.machine.documents import COMPACT, check_schema, parsed, to_json
from poise.machine.reading import sentence_for
from poise.values.fields import TABLE, TEXT, check_fields, list_of, table_of, whole

KEY = "poise.rebalanced"
SCHEMA = 1
LONGEST = 100_000_000  # bytes of a header that readers of the format accept
REMEDY = "start from the original checkpoint"
_KINDS = {
    "method": TEXT,
    "asked": TEXT,
    "request": TEXT,
    "before": TABLE,
    "after": TABLE,
    "files_before": list_of("descriptions of files", table_of(file=TEXT, bytes=whole(0), sha256=TEXT)),
    "note": TABLE,
}


class Past(NamedTuple):
    """One re-balancing of a layer: the method, what was asked for in words, and the digest of that request.

    `before` and `after` are the SHA-256 of each tensor of the layer; `files_before` has the name (`file`), size
    (`bytes`) and `sha256` of each file that held them, `note` the rest of what the note beside the checkpoint says.
    """

    method: str
    asked: str
    request: str
    before: Mapping[str, str]
    after: Mapping[str, str]
    files_before: Sequence[Mapping[str, Any]]
    note: Mapping[str, Any]


def request_digest(request: Mapping[str, Any]) -> str:
    """SHA-256 of what was asked for: equal requests for an equal layer give an equal result."""
    return hashlib.sha256(to_json(dict(sorted(request.items())), "the request", COMPACT).encode()).hexdigest()


def past_of(layer: Layer) -> Past | None:
    """What was done to the layer as it is now; None if nothing is known, or the layer was changed since.

    Raises: InputError if it was interrupted between two files, or its note in the header is damaged or too new.
    """
    now = {place.name: _digest(place) for place in _tensors(layer)}
    for file in _files(layer):
        past = _pasts(file).get(layer.name)
        if past is None:
            continue
        if now == past.after:
            return past
        if all(now[name] in (past.before.get(name), past.after.get(name)) for name in now) and now != past.before:
            raise InputError(f"{layer.name} of {file}: re-balancing it was interrupted between two files; {REMEDY}")
    return None


def changed_since(file: Path) -> list[str] | None:
    """A sentence for each tensor of a re-balanced layer that is not as it was left; None where nothing was done.

    Raises: InputError if the file, or what its header says of that, cannot be read.
    """
    places = open_checkpoint(file).places
    pasts = _pasts(file)
    left = [(layer, name, digest) for layer, past in pasts.items() for name, digest in past.after.items()]
    found = [
        f"{name} of {file} is not as re-balancing left {layer}: it was changed since; {REMEDY}"
        for layer, name, digest in left
        if name in places and _digest(places[name]) != digest
    ]
    return found if pasts else None


def recorded(layer: Layer, changes: Mapping[Place, bytes], asked: str, request: str, note: Mapping[str, Any]) -> Past:
    """What is about to be done to the layer. Raises: InputError if a file cannot be read."""
    with sentence_for(layer.weight.file.parent, None, REMEDY):
        files = [{"file": file.name, "bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in _files(layer)]
    before = {place.name: _digest(place) for place in _tensors(layer)}
    after = {place.name: hashlib.sha256(content).hexdigest() for place, content in changes.items()}
    return Past(note["method"], asked, request, before, after, files, note)


def header_with(file: Path, layer: str, past: Past) -> tuple[Place, bytes]:
    """The header of a file, its place, and its new content, in which the layer has this past.

    Tensors keep their bytes: their offsets count from the end of the header.
    """
    header, end = _header(file)
    layers = {name: one._asdict() for name, one in _pasts(file).items()} | {layer: past._asdict()}
    said = to_json({"layers": dict(sorted(layers.items())), "schema": SCHEMA}, f"{file}: {KEY}", COMPACT)
    metadata = {**(header.get("__metadata__") or {}), KEY: said}
    content = COMPACT.encode({"__metadata__": metadata, **{k: v for k, v in header.items() if k != "__metadata__"}})
    data = content.encode()
    data += b" " * (-len(data) % 8)  # the tensors stay aligned
    if len(data) > LONGEST:
        raise InputError(f"the header of {file} has no room for a note on the new layer")
    return Place("__metadata__", file, "", (), 0, end), len(data).to_bytes(8, "little") + data


def _pasts(file: Path) -> dict[str, Past]:
    """What was done to the layers of a file, by their names."""
    said = (_header(file)[0].get("__metadata__") or {}).get(KEY)
    if said is None:
        return {}
    where = f"{file}: {KEY}"
    body = parsed(said, where, REMEDY)
    check_schema(where, body.get("schema"), SCHEMA, REMEDY)
    TABLE.check(f"{where}: layers", body.get("layers"), f"; {REMEDY}")
    return {name: _past(f"{where}: {name}", one) for name, one in body["layers"].items()}


def _past(where: str, body: Any) -> Past:
    TABLE.check(where, body, f"; {REMEDY}")
    check_fields(f"{where}: ", body, _KINDS, f"; {REMEDY}")
    return Past(**{name: body[name] for name in Past._fields})


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """The header of a file as a table, and where it ends."""
    with sentence_for(file, "a .safetensors file", "copy it again"), file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        header: dict[str, Any] = json.loads(content.read(min(length, LONGEST)))
    return header, 8 + length


def _digest(place: Place) -> str:
    with sentence_for(place.file, None, "copy it again"), place.file.open("rb") as content:
        content.seek(place.begin)
        return hashlib.sha256(content.read(place.end - place.begin)).hexdigest()


def _tensors(layer: Layer) -> list[Place]:
    return [layer.weight] if layer.bias is None else [layer.weight, layer.bias]


def _files(layer: Layer) -> list[Path]:
    return sorted({place.file for place in _tensors(layer)})
