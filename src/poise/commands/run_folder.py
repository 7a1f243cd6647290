"""The folder of a result: records.jsonl, summary.csv, summary.md, comparison.json, report.json, report.html."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from poise.deployment.model import REPORT_FILES
from poise.machine import documents
from poise.machine.atomic import write_atomically
from poise.report.files import write_report
from poise.report.text import score_tables
from poise.results.contents import Contents
from poise.results.record import Record
from poise.selection.comparison_result import Comparison

# What a comparison replaces of an earlier result.
COMPARISON = ("records.jsonl", "summary.csv", "summary.md", "comparison.json", "audit.json", *REPORT_FILES)


def write(
    folder: Path, comparison: Comparison, *, contents: Contents | None = None, notes: Sequence[str] = ()
) -> list[Path]:
    """Write the records, the table and the verdict of a comparison, and its report; each file appears whole or not."""
    rows = comparison.rows
    said = [comparison.verdict(), *comparison.remarks, score_tables.legend(fitted=comparison.fitted), *notes]
    return [
        write_records(folder, comparison.records),
        write_atomically(folder / "summary.csv", score_tables.to_csv(rows)),
        write_atomically(folder / "summary.md", score_tables.to_markdown(rows, notes=said)),
        write_json(folder / "comparison.json", comparison.to_dict()),
        *([] if contents is None else write_report(folder, contents)),
    ]


def write_records(folder: Path, records: Sequence[Record]) -> Path:
    """Write records.jsonl: one JSON object per record."""
    lines = "".join(json.dumps(record.to_dict(), sort_keys=True) + "\n" for record in records)
    return write_atomically(folder / "records.jsonl", lines)


def write_json(path: Path, data: Any) -> Path:
    """Write one JSON value, keys sorted."""
    return documents.write_json(path, data, documents.SORTED)
