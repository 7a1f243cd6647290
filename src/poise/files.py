"""Writing files so that a reader sees the old content or the new, never a part."""

import os
import tempfile
from pathlib import Path

from poise.errors import InputError

__all__ = ["neighbour", "settle", "write_atomically"]


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write `content` to a temporary neighbour, flush it to the disk, and rename it to `path`.

    Text is written as UTF-8. Missing parent folders are made. A crash at any moment leaves `path` as it was.

    Raises: InputError naming the path and the reason when the disk refuses (full, read-only, taken by a folder).
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        return _write(path, data)
    except OSError as error:
        raise InputError(f"cannot write {path} ({len(data)} bytes): {error.strerror or error}") from error


def _write(path: Path, data: bytes) -> Path:
    temporary = neighbour(path)
    try:
        temporary.write_bytes(data)
        return settle(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def neighbour(path: Path) -> Path:
    """A new empty file beside `path`, whose missing parent folders are made. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    return Path(name)


def settle(temporary: Path, path: Path) -> Path:
    """Flush a written neighbour to the disk and rename it to `path`. Raises: OSError."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.chmod(0o644)
    return temporary.replace(path)
