"""A run's folder: records.jsonl, summary.csv, summary.md."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from poise.errors import InputError
from poise.files import write_atomically
from poise.record import Record
from poise.report import tables

__all__ = ["prepare", "write"]


def prepare(folder: Path) -> Path:
    """The folder, made if missing. Raises: InputError if it cannot be written, before any work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder} ({error.strerror}); choose another with --out") from None
    if not os.access(folder, os.W_OK):
        raise InputError(f"the folder {folder} cannot be written; choose another with --out")
    return folder


def write(folder: Path, records: Sequence[Record], *, notes: Sequence[str] = ()) -> list[Path]:
    """Write the records and their summaries; each file appears complete or not at all."""
    lines = "".join(json.dumps(record.to_dict(), sort_keys=True) + "\n" for record in records)
    return [
        write_atomically(folder / "records.jsonl", lines),
        write_atomically(folder / "summary.csv", tables.to_csv(records)),
        write_atomically(folder / "summary.md", tables.to_markdown(records, notes=notes)),
    ]
