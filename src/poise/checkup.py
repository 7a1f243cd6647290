"""What an artefact on disk is, and what is wrong with it."""

import json
from pathlib import Path

from poise import artefact, store
from poise.errors import InputError
from poise.representation import REPRESENTATION, check_representation
from poise.types import Head

__all__ = ["check_path"]


def check_path(path: Path) -> tuple[str, list[str]]:
    """The kind of an artefact, and one sentence per problem; none if it is intact.

    A model folder, a representation, a feature store, a folder of records, or a head file. A folder that is none of
    them is taken for an unfinished store, which is what a stopped extraction leaves.

    Raises: InputError if there is nothing at `path`.
    """
    if not path.exists():
        raise InputError(f"there is no file or folder {path}")
    if path.is_file() and path.suffix.lower() != ".safetensors":
        raise InputError(f"{path} is no artefact; check takes folders of models, stores and runs, and head files")
    if path.is_file():
        return "head", _problem_of(path)
    if (path / REPRESENTATION).exists():
        return "representation", check_representation(path)
    if (path / artefact.MODEL_FILE).exists() or (path / artefact.HEAD_FILE).exists():
        return "model", artefact.check(path)
    if (path / "records.jsonl").exists():
        return "records", _bad_lines(path / "records.jsonl")
    return "feature store", store.check_store(path)


def _problem_of(path: Path) -> list[str]:
    try:
        Head.load(path)
    except InputError as error:
        return [str(error)]
    return []


def _bad_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return [f"{path} cannot be read: {error}"]
    found = [] if lines else [f"{path} holds no record"]
    for number, line in enumerate(lines, start=1):
        try:
            whole = isinstance(json.loads(line), dict)
        except ValueError:
            whole = False
        if not whole:
            found.append(f"{path}, line {number} is no record: it is cut off or was changed")
    return found
