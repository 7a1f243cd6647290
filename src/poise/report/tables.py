"""The rows of a comparison as text: CSV with full precision, Markdown and terminal tables in per cent.

A row is a plain mapping as `Comparison.table()` gives it. People see one line per method, with the result of its recipe
as stated beside the tuned one; the CSV has a line for each.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple, Protocol

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from poise.plan import Options
from poise.report.markdown import cell
from poise.report.words import one_line
from poise.spec import Spec
from poise.types import Scores
from poise.wording import percent, signed

__all__ = [
    "CSV_FIELDS",
    "LEGEND",
    "as_given",
    "listing",
    "paired",
    "scores_by_part",
    "short_name",
    "to_csv",
    "to_markdown",
    "to_terminal",
    "trials",
]

Row = Mapping[str, Any]

CSV_FIELDS = (
    "method",
    "role",
    "selected",
    "accuracy",
    "balanced_accuracy",
    "many",
    "medium",
    "few",
    "macro_f1",
    "nll",
    "ece",
    "gain",
    "gain_low",
    "gain_high",
    "gain_classes_low",
    "gain_classes_high",
    "tied",
    "recommended",
    "edges",
    "loma_variation",
    "seconds",
)


class Column(NamedTuple):
    """A column for people: its heading and how a row reads there."""

    heading: str
    cell: Callable[[Row], str]


def _gain(row: Row) -> str:
    # Intervals lie symmetrically about their estimate, so half their width says it all.
    if row["gain"] is None:
        return "-"
    return f"{signed(row['gain'])} ±{50 * (row['gain_high'] - row['gain_low']):.1f}"


def _marks(row: Row) -> str:
    return ("=" if row["tied"] else "") + ("*" if row["recommended"] else "") + ("^" if row["edges"] else "")


COLUMNS = (
    Column("tuned", lambda row: percent(row["balanced_accuracy"], 2)),
    Column("stated", lambda row: percent(row.get("stated"), 2)),
    Column("many", lambda row: percent(row["many"])),
    Column("med", lambda row: percent(row["medium"])),
    Column("few", lambda row: percent(row["few"])),
    Column("gain", _gain),
    Column("", _marks),
)
MORE = (
    Column("all", lambda row: percent(row["accuracy"], 2)),
    Column("F1", lambda row: percent(row["macro_f1"])),
    Column("ECE", lambda row: percent(row["ece"])),
    Column("LoMa", lambda row: "-" if row["loma_variation"] is None else f"{row['loma_variation']:.2f}"),
    Column("sec", lambda row: f"{row['seconds']:.2f}"),
)

LEGEND = (
    "tuned, stated: balanced accuracy in per cent with selected settings, and of the recipe as stated (the first "
    "published one where there is one, else the defaults; -: not run, as where its batch is larger than the training "
    "set). many, med, few: classes with more than 100, 20 to 100, "
    "fewer than 20 training rows. gain: over the baseline, with the half width of a 95 % interval over images that "
    "holds for all methods at once. "
    "= cannot be told from the best, * recommended, ^ best value at the end of its range."
)

PLAN_WORDS = frozenset(Options.__annotations__) - {"start", "sampler"}


def short_name(method: str) -> str:
    """The method with its own parameters only, for narrow columns: options of training become an ellipsis."""
    try:
        steps = Spec.parse(method).steps
    except ValueError:  # "a | b" of a cross-fit, "crt, epoch 3" of the papers' protocol
        return method
    return "+".join(_short(step, PLAN_WORDS) for step in steps)


def _short(step: Spec, without: Set[str]) -> str:
    own = [f"{key}={value}" for key, value in step.params if key not in without]
    hidden = ["..."] if len(own) < len(step.params) else []
    return f"{step.name}({','.join([*own, *hidden])})" if step.params else step.name


def paired(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One row per method asked for: the tuned one, with the balanced accuracy of its recipe as `stated`.

    Recipes stand alone where nothing was tuned (the papers' protocol).
    """
    recipes = {row["family"]: row for row in rows if row["role"] == "recipe"}
    tuned = [row for row in rows if row["role"] != "recipe"]
    alone = [row for family, row in recipes.items() if all(family != row["family"] for row in tuned)]
    stated = {family: row["balanced_accuracy"] for family, row in recipes.items()}
    found = [{**row, "stated": stated.get(row["family"])} for row in (*tuned, *alone)]
    return sorted(found, key=lambda row: -row["balanced_accuracy"])


def to_csv(rows: Sequence[Row]) -> str:
    """One line per row with full precision; empty where there is no value."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_FIELDS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if value is None else value for key, value in row.items()})
    return out.getvalue()


def to_markdown(rows: Sequence[Row], *, notes: Sequence[str] = ()) -> str:
    """A Markdown table, one line per method, then the notes as a list."""
    columns = (*COLUMNS, *MORE)
    lines = [
        "| method | " + " | ".join(column.heading for column in columns) + " |",
        "|---|" + "---:|" * len(columns),
        *(f"| {cell(row['method'])} | " + " | ".join(c.cell(row) for c in columns) + " |" for row in paired(rows)),
        "",
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


def to_terminal(rows: Sequence[Row], *, title: str) -> Table:
    """A table that fits 80 columns, one line per method; the baseline is bold."""
    shown = paired(rows)
    return _numbers(
        title,
        ("method", *(column.heading for column in COLUMNS)),
        [(short_name(row["method"]), *(column.cell(row) for column in COLUMNS)) for row in shown],
        bold=[row["role"] == "baseline" for row in shown],
    )


def _numbers(
    title: str, headings: Sequence[str], lines: Sequence[Sequence[str]], *, bold: Sequence[bool] = ()
) -> Table:
    """A table of names and numbers that fits 80 columns: names get what the numbers leave, and only they are ever cut.

    Names and titles may hold anything: brackets are no markup, and characters that would move the cursor are shown.
    """
    text = Text(one_line(title), style="table.title")
    table = Table(title=text, box=box.SIMPLE_HEAD, title_justify="left", show_edge=False, padding=(0, 1, 0, 0))
    widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)][1:]
    left = max(12, 79 - sum(width + 2 for width in widths))
    table.add_column(headings[0], no_wrap=True, overflow="ellipsis", max_width=left)
    for heading, width in zip(headings[1:], widths, strict=True):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True, min_width=width)
    for place, (name, *cells) in enumerate(lines):
        table.add_row(
            Text(one_line(name)), *map(Text, cells), style="bold" if place < len(bold) and bold[place] else None
        )
    return table


SCORES = ("accuracy", "balanced_accuracy", "many", "medium", "few", "macro_f1", "ece")
HEADINGS = ("all", "balanced", "many", "med", "few", "F1", "ECE")


class Scored(Protocol):
    """A record, or anything else that names a method and its scores."""

    @property
    def method(self) -> str:
        """Its text."""

    @property
    def scores(self) -> Scores:
        """What it reached."""


def trials(records: Sequence[Scored], *, title: str) -> Table:
    """The settings of a search, one line each, in the order given."""
    names = _told_apart([record.method for record in records])
    return _scores_table(zip(names, (record.scores for record in records), strict=True), title, "setting")


def _told_apart(methods: Sequence[str]) -> list[str]:
    """Settings of one method with the parameters in which they differ; what all have alike becomes an ellipsis."""
    chains = [Spec.parse(method).steps for method in methods]
    if len(chains) < 2 or len({tuple(step.name for step in steps) for steps in chains}) > 1:
        return [short_name(method) for method in methods]
    columns = zip(*(tuple(set(step.params) for step in steps) for steps in chains), strict=True)
    alike = [{key for key, _ in set.intersection(*stated)} for stated in columns]
    return ["+".join(map(_short, steps, alike)) for steps in chains]


def as_given(scores: Scores, *, title: str) -> Table:
    """One line of scores."""
    return _scores_table([(f"{scores.rows} rows", scores)], title, "")


def _scores_table(rows: Iterable[tuple[str, Scores]], title: str, first: str) -> Table:
    lines = [(name, *(percent(getattr(found, score)) for score in SCORES)) for name, found in rows]
    return _numbers(title, (first, *HEADINGS), lines)


def listing(said: Mapping[str, str]) -> Table:
    """Names and what is said of each, in two columns."""
    table = Table.grid(padding=(0, 2, 0, 0))
    # Names are to be copied, so they are never cut; nor is what is said, in scripts without spaces either.
    table.add_column(no_wrap=True, min_width=max((cell_len(one_line(name)) for name in said), default=0))
    table.add_column(overflow="fold")
    for name, words in said.items():
        table.add_row(Text(one_line(name)), Text(one_line(words)))
    return table


def scores_by_part(scores: Mapping[str, Scores], *, title: str) -> Table:
    """One classifier on several splits, one line each, in per cent."""
    lines = []
    for part, found in scores.items():
        values = (found.accuracy, found.balanced_accuracy, found.many, found.medium, found.few)
        lines.append((part, str(found.rows), *(percent(value, 2) for value in values)))
    return _numbers(title, ("part", "rows", "all", "balanced", "many", "med", "few"), lines)
