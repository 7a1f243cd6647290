"""Records as rows of text: CSV with full precision, Markdown and terminal tables in per cent."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich import box
from rich.table import Table

from poise.plan import Options
from poise.record import Record
from poise.spec import Spec

__all__ = ["short_name", "to_csv", "to_markdown", "to_terminal"]


class Column(NamedTuple):
    """A column for people: its heading and how a record reads there."""

    heading: str
    cell: Callable[[Record], str]


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f}"


COLUMNS = (
    Column("all", lambda r: f"{100 * r.scores.accuracy:.2f}"),
    Column("many", lambda r: _percent(r.scores.many)),
    Column("medium", lambda r: _percent(r.scores.medium)),
    Column("few", lambda r: _percent(r.scores.few)),
    Column("F1", lambda r: _percent(r.scores.macro_f1)),
    Column("ECE", lambda r: _percent(r.scores.ece)),
    Column("LoMa", lambda r: f"{r.loma_variation:.2f}"),
    Column("sec", lambda r: f"{r.seconds:.2f}"),
)

CSV_FIELDS = (
    "method",
    "selected",
    "accuracy",
    "balanced_accuracy",
    "many",
    "medium",
    "few",
    "macro_f1",
    "nll",
    "ece",
    "loma_variation",
    "seconds",
)


PLAN_WORDS = frozenset(Options.__annotations__) - {"start", "sampler"}


def short_name(method: str) -> str:
    """The method with its own parameters only, for narrow columns: options of training become an ellipsis."""
    return "+".join(_short(step) for step in Spec.parse(method).steps)


def _short(step: Spec) -> str:
    own = [f"{key}={value}" for key, value in step.params if key not in PLAN_WORDS]
    hidden = ["..."] if len(own) < len(step.params) else []
    return f"{step.name}({','.join([*own, *hidden])})" if step.params else step.name


def to_csv(records: Sequence[Record]) -> str:
    """One line per record with full precision; empty where there is no value."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_FIELDS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for record in records:
        own = {"method": record.method, "selected": record.selected_on or "", "seconds": record.seconds}
        writer.writerow({**record.scores.to_dict(), **own, "loma_variation": record.loma_variation})
    return out.getvalue()


def to_markdown(records: Sequence[Record], *, notes: Sequence[str] = ()) -> str:
    """A Markdown table, then the notes as a list."""
    lines = [
        "| method | " + " | ".join(column.heading for column in COLUMNS) + " |",
        "|---|" + "---:|" * len(COLUMNS),
        *(
            "| `" + record.method + "` | " + " | ".join(column.cell(record) for column in COLUMNS) + " |"
            for record in records
        ),
        "",
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


def to_terminal(records: Sequence[Record], *, title: str) -> Table:
    """A table that fits 80 columns; the baseline row is marked."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", show_edge=False, padding=0)
    table.add_column("method", no_wrap=True, overflow="ellipsis", max_width=32)
    for column in COLUMNS:
        table.add_column(column.heading, justify="right", no_wrap=True)
    for record in records:
        style = "bold" if record.method == "stage1" else None
        table.add_row(short_name(record.method), *(column.cell(record) for column in COLUMNS), style=style)
    return table
