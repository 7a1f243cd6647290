"""What an artefact on disk is, and what is wrong with it."""

from pathlib import Path

from poise.data.store import feature_store
from poise.deployment import model
from poise.deployment.checkpoint_copy import NOTE, REBALANCED, note_path
from poise.errors import InputError
from poise.export.tensors import ABOUT_FILE, EXPORTED
from poise.machine.atomic import sha256_of
from poise.machine.documents import parsed
from poise.machine.reading import regular, text_of
from poise.representation.trained_network import REPRESENTATION, check_representation
from poise.values.checks import existing
from poise.values.head import Head

REMEDY = "run the command that wrote it again"


def check_path(path: Path) -> tuple[str, list[str]]:
    """The kind of an artefact, and one sentence per problem; none if it is intact.

    A model folder, a representation, a feature store, a folder of records, a head file, an exported head, or a
    re-balanced checkpoint; the last two are compared with the SHA-256 in the note beside them. A folder that is none of
    them is taken for an unfinished store, which is what a stopped extraction leaves.

    Raises: InputError if there is nothing at `path`.
    """
    if (noted := _noted(existing(path))) is not None:
        return noted
    if path.is_file() and path.suffix.lower() != ".safetensors":
        raise InputError(f"{path} is no artefact; check takes folders of models, stores and runs, and head files")
    if path.is_file():
        return "head", _problem_of(path)
    if (path / REPRESENTATION).exists():
        return "representation", check_representation(path)
    if (path / model.MODEL_FILE).exists() or (path / model.HEAD_FILE).exists():
        return "model", model.check(path)
    if (path / "records.jsonl").exists():
        return "records", _bad_lines(path / "records.jsonl")
    return "feature store", feature_store.check_store(path)


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
    files = [EXPORTED.read(note)["head"]] if is_export else [p["after"] for p in REBALANCED.read(note)["files"]]
    return {Path(file["file"]).name: file["sha256"] for file in files}


def _unlike(note: Path, name: str, sha256: str) -> list[str]:
    """What is wrong with a file beside a note."""
    path = note.with_name(name)
    try:
        regular(path, "make it again")
        found = sha256_of(path)
    except (InputError, OSError) as error:
        return [str(error)]
    if found != sha256:
        return [f"{path} is not the file that {note.name} describes (SHA-256 differs); make it again"]
    return []


def _problem_of(path: Path) -> list[str]:
    try:
        Head.load(path)
    except InputError as error:
        return [str(error)]
    return []


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
