"""Copies of a checkpoint in which some bytes of some tensors are others, with a note on what was changed.

A copy has every other byte of its original, so names, order, types and shapes of tensors stay as they are; its header
says in one more entry of the metadata what was done (see `past_rebalancing`). Files are copied in pieces, and a copy
appears whole or not at all: a folder in one step with its note, a file just before its note, never beside another's.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from poise.deployment.last_layer import PICKLES, Checkpoint, Place
from poise.errors import InputError, reason_of
from poise.machine.atomic import replacing, sha256_of, write_atomically
from poise.machine.documents import Document, to_json
from poise.machine.folders import SEAL, generation, sealed
from poise.machine.reading import sentence_for
from poise.values.fields import TEXT, list_of, table_of, whole

NOTE = "rebalanced.json"
# Weights of the same network in other formats, which would still have the old layer.
STALE = PICKLES | {".h5", ".msgpack", ".onnx", ".pt2", ".tflite"}
BLANK = "0" * 64
PIECE = 2**22  # bytes that are copied at a time

Change = tuple[Place, bytes]


class Digest(NamedTuple):
    """What tells a file from others."""

    file: str
    bytes: int
    sha256: str


_FILE = table_of(file=TEXT, bytes=whole(0), sha256=TEXT)
_KINDS = {"files": list_of("pairs of before and after", table_of(before=_FILE, after=_FILE))}
REBALANCED = Document("poise.rebalanced", "note on a re-balanced checkpoint", 2, "re-balance it again", _KINDS)


def default_out(path: Path) -> Path:
    """NAME.rebalanced.safetensors beside a file, NAME.rebalanced beside a folder."""
    if path.is_dir():
        folder = path.resolve()  # of `.` too
        return folder.with_name(f"{folder.name}.rebalanced")
    return path.with_name(f"{path.stem}.rebalanced{path.suffix}")


def note_path(target: Path) -> Path:
    """Where the note on a result lies."""
    if target.suffix.lower() != ".safetensors":
        return target / NOTE
    return target.with_name(f"{target.stem.removesuffix('.rebalanced')}.{NOTE}")


def destination(checkpoint: Checkpoint, out: str | Path, *, overwrite: bool = False) -> Path:
    """`out` as a place for the result. Raises: InputError if it would replace what nobody said may be replaced."""
    source, target = checkpoint.path, Path(out)
    if target.resolve() == source.resolve():
        if not overwrite:
            said = f"{target} is the checkpoint itself; choose another place, or allow it (overwrite=True)"
            raise InputError(said, "(overwrite=True)")
        return target
    if source.is_file():
        if target.suffix.lower() != ".safetensors":
            raise InputError(f"the result is a .safetensors file like the checkpoint, and {target} is none")
        return target
    if target.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{target} lies within the checkpoint's folder; choose a place outside of it")
    taken = target.is_file() or (target.is_dir() and any(target.iterdir()) and not (target / NOTE).is_file())
    if taken:
        raise InputError(f"{target} exists and is no earlier result; choose another folder")
    return target


def write_copy(
    checkpoint: Checkpoint, target: Path, changes: Sequence[Change], note: Mapping[str, Any]
) -> tuple[str, ...]:
    """Write the changed copy, then the note with the digests of the changed files; remarks are returned.

    A folder has the same files as its original, but for weights in other formats, which a remark names.

    Raises: InputError naming what cannot be read or written.
    """
    if checkpoint.path.is_dir():
        return _write_folder(checkpoint.path, target, changes, note)
    digests = replaced(checkpoint.path, target, changes, note_path(target))
    _write_note(target, note, [digests])
    return ()


def write_note_again(target: Path, note: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> None:
    """The note on a result that has lost it: what it said, and what the changed files were `before`.

    Raises: InputError if they cannot be read, or the note cannot be written.
    """
    digests = []
    for one in before:
        made = target / one["file"] if target.is_dir() else target
        with sentence_for(made, None, REBALANCED.remedy):
            digests.append((Digest(**one), Digest(made.name, made.stat().st_size, sha256_of(made))))
    _write_note(target, note, digests)


def _write_note(target: Path, note: Mapping[str, Any], digests: list[tuple[Digest, Digest]]) -> None:
    files = [{"before": before._asdict(), "after": after._asdict()} for before, after in digests]
    text = to_json(REBALANCED.stamped({**note, "files": files, "sha256": BLANK}), note_path(target))
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_atomically(note_path(target), text.replace(BLANK, digest))


def is_as_written(note: Path) -> bool:
    """Is a note the bytes that were written? `sha256` is their digest with noughts in its place; schema 1 had none."""
    body, content = REBALANCED.read(note), note.read_bytes()
    if body["schema"] == 1:
        return True
    digest = str(body.get("sha256"))
    return hashlib.sha256(content.replace(digest.encode(), BLANK.encode())).hexdigest() == digest


def _write_folder(root: Path, target: Path, changes: Sequence[Change], note: Mapping[str, Any]) -> tuple[str, ...]:
    stale = _stale(root)
    if target.resolve() == root.resolve():  # all other files are in the new folder by a second name
        with generation(target) as stage:
            _write_note(stage, note, _changed_files(root, stage, changes))
        return tuple(f"{file} may still hold the old layer; delete it, or convert it anew" for file in stale)
    with generation(target, replaces=_written_to(target)) as stage:
        digests = _changed_files(root, stage, changes)
        for file in _others(root, {place.file for place, _ in changes}):
            copy = stage / file.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        _write_note(stage, note, digests)
    return tuple(f"{file} was left out of the result: it may hold the old layer" for file in stale)


def _written_to(target: Path) -> list[str]:
    """The files of an earlier result; all that are there where it has no seal, which could tell them from others."""
    if (target / SEAL).exists():
        return list(sealed(target))
    return [path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()]


def _changed_files(root: Path, target: Path, changes: Sequence[Change]) -> list[tuple[Digest, Digest]]:
    files = sorted({place.file for place, _ in changes})
    return [
        replaced(file, target / file.relative_to(root), [change for change in changes if change[0].file == file])
        for file in files
    ]


def _stale(root: Path) -> list[Path]:
    return sorted(file for file in root.rglob("*") if file.suffix.lower() in STALE and file.is_file())


def _others(root: Path, changed: set[Path]) -> list[Path]:
    left = {*changed, *_stale(root), root / NOTE}
    return sorted(file for file in root.rglob("*") if file.is_file() and file not in left)


def replaced(source: Path, target: Path, changes: Sequence[Change], note: Path | None = None) -> tuple[Digest, Digest]:
    """Copy `source` to `target` with other bytes in some places; both files are described.

    The copy appears whole or not at all, and may take the place of its source. A `note` on what was there before is
    deleted when the copy is whole: one without a note still says what was done, one beside a wrong note does not.

    Raises: InputError naming the file that cannot be read or written.
    """
    before, after = hashlib.sha256(), hashlib.sha256()
    try:
        with replacing(target) as temporary, source.open("rb") as given, temporary.open("wb") as made:
            for place, content in sorted(changes, key=lambda change: change[0].begin):
                _copy(given, made, place.begin - given.tell(), before, after)
                before.update(given.read(place.end - place.begin))
                after.update(content)
                made.write(content)
            _copy(given, made, None, before, after)
            sizes = given.tell(), made.tell()
            if note is not None:
                note.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot copy {source} to {target}: {reason_of(error)}") from None
    return Digest(source.name, sizes[0], before.hexdigest()), Digest(target.name, sizes[1], after.hexdigest())


def _copy(given: BinaryIO, made: BinaryIO, length: int | None, *digests: Any) -> None:
    """Copy `length` bytes, or all that are left."""
    left = length
    while left is None or left > 0:
        piece = given.read(PIECE if left is None else min(PIECE, left))
        if not piece:
            return
        for digest in digests:
            digest.update(piece)
        made.write(piece)
        left = None if left is None else left - len(piece)
