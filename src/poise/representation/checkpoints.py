"""Checkpoints of a training run: one file that appears whole or not at all, and the one before it.

    checkpoint.pt            the newest
    checkpoint.previous.pt   the one before, for the day the newest is damaged

The files hold tensors and plain values only, are read with `weights_only=True`, and are read once before they replace
the old ones: what cannot be read back is never kept.
"""

import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from poise.errors import InputError, reason_of
from poise.machine.atomic import replacing, writable
from poise.machine.documents import check_schema
from poise.representation.torch_files import torch_content

NEWEST = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
FORMAT = "poise.checkpoint"
SCHEMA = 1


def save_checkpoint(folder: Path, content: dict[str, Any]) -> Path:
    """Write the newest checkpoint; the one that was newest becomes the previous one. Scalars of numpy become plain.

    Raises: InputError naming the file and the bytes needed where the disk refuses; the old files are intact then.
    """
    path = folder / NEWEST
    try:
        with replacing(path) as temporary:
            # To an open file: torch tells its reason for a full disk only where Python writes. On the disk before any
            # name changes, because some disks are found to be full only then.
            with temporary.open("wb") as file:
                torch.save({"format": FORMAT, "schema": SCHEMA, **_plain(content)}, file)
                file.flush()
                os.fsync(file.fileno())
            torch.load(temporary, weights_only=True)
            if path.exists():
                path.replace(folder / PREVIOUS)
        return path
    except (OSError, RuntimeError) as error:
        if "DataLoader worker" in str(error):  # raised wherever the program is when a worker of its own dies
            raise
        need = sum(t.nbytes for t in _tensors(content))
        raise InputError(
            f"cannot write {path} (about {need} bytes): {reason_of(error)}; make room and start the same command again"
        ) from error
    except UnpicklingError as error:
        raise InputError(f"{path} would hold a value that is no tensor and no plain number: {error}") from error


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
    content = torch_content(path, f"delete the folder to train again{other}", archive=True)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} is no checkpoint of Poise")
    check_schema(path, content.get("schema"), SCHEMA, f"it was changed{other}")
    return content


def sweep(folder: Path) -> None:
    """Remove the temporary files that a killed writer left, and see that the folder, made if missing, takes files.

    Raises: InputError if it does not.
    """
    writable(folder)
    for stray in folder.glob(f".{NEWEST}.*.tmp"):
        stray.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """The same, scalars of numpy as Python's: a reader that runs no code of a file refuses theirs."""
    if isinstance(value, dict):
        return {_plain(key): _plain(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_make"):
        return type(value)(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in inside for tensor in _tensors(part)]
