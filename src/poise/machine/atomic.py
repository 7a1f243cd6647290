"""Writing files so that a reader sees the old content or the new, never a part."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from poise.errors import InputError, reason_of
from poise.machine.locks import owned

PATIENCE = 10.0  # seconds that a small file waits for another process which is writing it


def beside(path: Path) -> Path:
    """Where a new content of `path` grows. One name, so that what a dead process left is used or swept."""
    return path.with_name(f".{path.name}.tmp")


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write `content` to a temporary neighbour, flush it to the disk, and rename it to `path`.

    Text is written as UTF-8. Missing parent folders are made. A crash at any moment leaves `path` as it was.

    Raises: InputError naming the path and the reason when the disk refuses (full, read-only, taken by a folder), or
    the text has no bytes.
    """
    try:
        data = content.encode() if isinstance(content, str) else content
        with replacing(path, patience=PATIENCE) as temporary:
            temporary.write_bytes(data)
    except UnicodeEncodeError as error:
        lone = error.object[error.start]
        raise InputError(f"cannot write {path}: {lone!r} is half of a character and has no UTF-8; rename it") from None
    except OSError as error:
        raise InputError(f"cannot write {path} ({len(data)} bytes): {reason_of(error)}") from error
    return path


@contextmanager
def replacing(path: Path, patience: float = 0.0) -> Iterator[Path]:
    """A new empty file beside `path` that takes its place, on the disk, once the block is done.

    Missing parent folders are made. If the block raises, the file is deleted and `path` is as it was.

    Raises: OSError; InputError if another process is still writing `path` after `patience` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with owned(beside(path), path, patience) as temporary:
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def writable(folder: Path, remedy: str = "choose another folder") -> Path:
    """The folder, made if missing. Raises: InputError if no file can be written there, before any work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Permissions do not tell (root, full disk, network folder): only writing does.
        with tempfile.TemporaryFile(dir=folder):  # one without a name, which a killed process cannot leave
            return folder
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({reason_of(error)}); {remedy}") from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises: OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
