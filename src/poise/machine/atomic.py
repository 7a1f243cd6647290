"""Writing files so that a reader sees the old content or the new, never a part."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from poise.errors import InputError, reason_of


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write `content` to a temporary neighbour, flush it to the disk, and rename it to `path`.

    Text is written as UTF-8. Missing parent folders are made. A crash at any moment leaves `path` as it was.

    Raises: InputError naming the path and the reason when the disk refuses (full, read-only, taken by a folder).
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise InputError(f"cannot write {path} ({len(data)} bytes): {reason_of(error)}") from error
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new empty file beside `path` that takes its place, on the disk, once the block is done.

    Missing parent folders are made. If the block raises, the file is deleted and `path` is as it was. Raises: OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """The same for a folder: what `path` holds is deleted just before. Raises: OSError."""
    with staged_folder(path) as stage:
        yield stage
        if path.is_dir():
            shutil.rmtree(path)
        stage.rename(path)


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, to be renamed to it; deleted if that did not happen. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        stage.chmod(0o755)
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def writable(folder: Path, remedy: str = "choose another folder") -> Path:
    """The folder, made if missing. Raises: InputError if no file can be written there, before any work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Permissions do not tell (root, full disk, network folder): only writing does.
        with tempfile.NamedTemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({reason_of(error)}); {remedy}") from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises: OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
