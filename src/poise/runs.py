"""A run's folder: records.jsonl, summary.csv, summary.md."""

import json
import tempfile
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
        # Permissions do not tell (root, full disk, network folder): only writing does.
        with tempfile.NamedTemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({error.strerror}); choose another folder with --out") from None


def write(folder: Path, records: Sequence[Record], *, notes: Sequence[str] = ()) -> list[Path]:
    """Write the records and their summaries; each file appears complete or not at all."""
    lines = "".join(json.dumps(record.to_dict(), sort_keys=True) + "\n" for record in records)
    return [
        write_atomically(folder / "records.jsonl", lines),
        write_atomically(folder / "summary.csv", tables.to_csv(records)),
        write_atomically(folder / "summary.md", tables.to_markdown(records, notes=notes)),
    ]
