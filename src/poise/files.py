"""Writing files so that a reader sees the old content or the new, never a part."""

import os
import tempfile
from pathlib import Path

from poise.errors import InputError

__all__ = ["write_atomically"]


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
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
    return path
