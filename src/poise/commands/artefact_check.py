"""What an artefact on disk is, what is wrong with it, and the one digest that stands for all of it."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from poise.commands.description import CONFIG, is_described
from poise.commands.predict import check_run
from poise.data.store import feature_store
from poise.data.store.manifest import MANIFEST
from poise.deployment import model
from poise.deployment.checkpoint_copy import NOTE, REBALANCED, is_as_written, note_path
from poise.deployment.past_rebalancing import changed_since
from poise.errors import InputError, in_one_line
from poise.export.tensors import ABOUT_FILE, EXPORTED
from poise.machine.atomic import sha256_of
from poise.machine.documents import parsed
from poise.machine.folders import SEAL, differences, digest_of
from poise.machine.reading import regular, text_of
from poise.representation.trained_network import REPRESENTATION, check_representation
from poise.values.checks import existing
from poise.values.head import Head

REMEDY = "run the command that wrote it again"


class Checked(NamedTuple):
    """What `check` finds: the kind, a sentence per problem, the SHA-256 that stands for all, None without a seal."""

    kind: str
    problems: list[str]
    digest: str | None


def checked(path: Path) -> Checked:
    """The kind, problems and digest of a folder or file, see `check_path`.

    A sealed folder has the SHA-256 of its SHA256SUMS, a file that of the note on it, or else its own.
    """
    kind, problems = check_path(path)
    if path.is_dir():
        return Checked(kind, problems, digest_of(path))
    note = {"exported head": path.with_name(ABOUT_FILE), "re-balanced checkpoint": note_path(path)}.get(kind, path)
    return Checked(kind, problems, sha256_of(note) if note.is_file() else None)


def check_path(path: Path) -> tuple[str, list[str]]:
    """The kind of an artefact, and one sentence per problem; none if it is intact.

    A run, a model folder, a representation, a feature store or a folder of several, a folder of records, a head file,
    an exported head, or a re-balanced checkpoint; the last two are compared with the SHA-256 in the note beside them. A
    folder with SHA256SUMS is compared with that, file by file, in folders within too. A folder that is none of them is
    taken for an unfinished store, which is what a stopped extraction leaves.

    Raises: InputError if there is nothing at `path`.
    """
    is_sealed = existing(path).is_dir() and (path / SEAL).exists()
    found = differences(path) if is_sealed else []
    kind, problems = (_kind_of(path), found) if found else _read(path)
    return kind, list(map(in_one_line, problems))


def _kind_of(path: Path) -> str:
    """What a sealed folder is, whose files may be damaged."""
    kinds = {
        "run": path / CONFIG,
        "representation": path / REPRESENTATION,
        "model": path / model.MODEL_FILE,
        "records": path / "records.jsonl",
        "feature store": path / MANIFEST,
        "exported head": path / ABOUT_FILE,
        "re-balanced checkpoint": path / NOTE,
    }
    return next((kind for kind, mark in kinds.items() if mark.exists()), "folder")


def _read(path: Path) -> tuple[str, list[str]]:
    """The same for what has no SHA256SUMS, or is as that says: its own files are read as those who use them do."""
    if is_described(path):
        return "run", check_run(path)
    if (noted := _noted(path)) is not None:
        return noted
    if path.is_dir():
        return _read_folder(path)
    if path.suffix.lower() != ".safetensors":
        raise InputError(f"{path} is no artefact; check takes folders of models, stores and runs, and head files")
    return _tensors_of(path)


def _read_folder(path: Path) -> tuple[str, list[str]]:
    if (path / REPRESENTATION).exists():
        return "representation", check_representation(path)
    if (path / model.MODEL_FILE).exists() or (path / model.HEAD_FILE).exists():
        return "model", model.check(path)
    if (path / "records.jsonl").exists():
        return "records", _bad_lines(path / "records.jsonl")
    if (path / MANIFEST).exists() or not (path / SEAL).exists():
        return "feature store", feature_store.check_store(path)
    stores = sorted(path.glob(f"*/{MANIFEST}"))
    found = [problem for store in stores for problem in feature_store.check_store(store.parent)]
    return "feature stores" if stores else "folder", found


def _noted(path: Path) -> tuple[str, list[str]] | None:
    """The same for what has a note with digests; None for all else."""
    notes = {"exported head": path / ABOUT_FILE, "re-balanced checkpoint": path / NOTE}
    if path.is_file():
        notes = {"exported head": path.with_name(ABOUT_FILE), "re-balanced checkpoint": note_path(path)}
    for kind, note in notes.items():
        if not note.is_file() or (path.is_dir() and (path / model.MODEL_FILE).exists()):
            continue
        try:
            digests = _digests(note)
        except InputError as error:
            return kind, [str(error)]
        if path.is_dir() or path.name in digests:  # a checkpoint lies beside the note on its re-balanced copy
            return kind, [problem for name, sha256 in digests.items() for problem in _unlike(note, name, sha256)]
    return None


def _digests(note: Path) -> dict[str, str]:
    """SHA-256 by file name, as a note says. Raises: InputError if it cannot be read."""
    is_export = note.name == ABOUT_FILE
    if not is_export and not is_as_written(note):
        raise InputError(f"{note} is not as it was written (its own SHA-256 differs); re-balance the checkpoint again")
    files = [EXPORTED.read(note)["head"]] if is_export else [p["after"] for p in REBALANCED.read(note)["files"]]
    return {Path(file["file"]).name: file["sha256"] for file in files}


def _unlike(note: Path, name: str, sha256: str) -> list[str]:
    """What is wrong with a file beside a note."""
    path = note.parent / name  # of an empty name the folder, which is no file
    try:
        regular(path, "make it again")
        found = sha256_of(path)
    except (InputError, OSError) as error:
        return [str(error)]
    if found != sha256:
        return [f"{path} is not the file that {note.name} describes (SHA-256 differs); make it again"]
    return []


def _tensors_of(path: Path) -> tuple[str, list[str]]:
    """The same for a file without a note: a checkpoint whose header says what was done to it, or a head."""
    with suppress(InputError):
        if (changed := changed_since(path)) is not None:
            return "re-balanced checkpoint", changed
    try:
        Head.load(path)
    except InputError as error:
        return "head", [str(error)]
    return "head", []


def _bad_lines(path: Path) -> list[str]:
    try:
        text = text_of(path, REMEDY)
    except InputError as error:
        return [str(error)]
    lines = text.removesuffix("\n").split("\n") if text else []
    found = [] if lines else [f"{path} holds no record"]
    for number, line in enumerate(lines, start=1):
        if not _is_record(line):
            found.append(f"{path}, line {number} is no record: it is cut off or was changed")
    return found


def _is_record(line: str) -> bool:
    try:
        return bool(parsed(line, "the line", REMEDY))
    except InputError:
        return False
