"""Checkpoints of a training run: one file that appears whole or not at all, and the one before it.

    checkpoint.pt            the newest
    checkpoint.previous.pt   the one before, for the day the newest is damaged

The files hold tensors and plain values only, are read with `weights_only=True`, and are read once before they replace
the old ones: what cannot be read back is never kept.
"""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from poise.errors import InputError
from poise.files import neighbour, settle

__all__ = ["NEWEST", "PREVIOUS", "load_checkpoint", "save_checkpoint", "sweep"]

NEWEST = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
FORMAT = "poise.checkpoint"
SCHEMA = 1


def save_checkpoint(folder: Path, content: dict[str, Any]) -> Path:
    """Write the newest checkpoint; the one that was newest becomes the previous one.

    Raises: InputError naming the file and the bytes needed where the disk refuses; the old files are intact then.
    """
    path = folder / NEWEST
    temporary = None
    try:
        temporary = neighbour(path)
        torch.save({"format": FORMAT, "schema": SCHEMA, **content}, temporary)
        torch.load(temporary, weights_only=True)
        if path.exists():
            path.replace(folder / PREVIOUS)
        return settle(temporary, path)
    except (OSError, RuntimeError) as error:
        need = sum(t.nbytes for t in _tensors(content))
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise InputError(
            f"cannot write {path} (about {need} bytes): {reason}; make room and start the same command again"
        ) from error
    except UnpicklingError as error:
        raise InputError(f"{path} would hold a value that is no tensor and no plain number: {error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint of a folder; None if there is none yet.

    Raises: InputError if it is damaged, holds anything but tensors and plain values, or comes from a newer version.
    """
    path = folder / NEWEST
    if not path.exists():
        # A kill between the two renames leaves the previous one only.
        path = folder / PREVIOUS
        if not path.exists():
            return None
    older = folder / PREVIOUS
    spare = path != older and older.exists()
    other = f"; the one before it is {older}: rename that to {NEWEST} to go on from there" if spare else ""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise InputError(f"{path} holds objects that are no tensors; it was not opened, and it is not ours") from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({str(error).splitlines()[0]}){other}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} is no checkpoint of Poise")
    if content["schema"] > SCHEMA:
        raise InputError(f"{path} has schema {content['schema']}, this version reads up to {SCHEMA}; update poise")
    return content


def sweep(folder: Path) -> None:
    """Remove the temporary files that a killed writer left."""
    for stray in folder.glob(f".{NEWEST}.*.tmp"):
        stray.unlink(missing_ok=True)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in inside for tensor in _tensors(part)]
