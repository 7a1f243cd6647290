"""Tables for people in per cent: the rows of a comparison, the settings of a search, the scores of splits.

People see one line per method, with the result of its recipe as stated beside the tuned one; the CSV has a line for
each, with full precision.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from poise.report.text.markdown import cell
from poise.report.text.words import Line, lines, one_line, with_half_width
from poise.results.contents import CSV_FIELDS, Range, Row
from poise.results.contents import SCORES as SCORE_NAMES
from poise.results.scores import Scores
from poise.values.wording import percent


class Column(NamedTuple):
    """A column for people: its heading and how a method reads there."""

    heading: str
    cell: Callable[[Line], str]


def _marks(row: Row) -> str:
    return ("=" if row.tied else "") + ("*" if row.recommended else "") + ("^" if row.edges else "")


COLUMNS = (
    Column("tuned", lambda line: "-" if line.row.role == "recipe" else percent(line.row.estimate("balanced"), 2)),
    Column("stated", lambda line: percent(line.stated, 2)),
    Column("many", lambda line: percent(line.row.estimate("many"))),
    Column("med", lambda line: percent(line.row.estimate("medium"))),
    Column("few", lambda line: percent(line.row.estimate("few"))),
    Column("gain", lambda line: with_half_width(line.row.gain)),
    Column("", lambda line: _marks(line.row)),
)
HEADED = ("method", *(column.heading for column in COLUMNS))
MORE = (
    Column("all", lambda line: percent(line.row.estimate("all"), 2)),
    Column("F1", lambda line: percent(line.row.macro_f1)),
    Column("ECE", lambda line: percent(line.row.ece)),
    Column("LoMa", lambda line: "-" if line.row.loma_variation is None else f"{line.row.loma_variation:.2f}"),
    Column("sec", lambda line: f"{line.row.seconds:.2f}"),
)

LEGEND = (
    "tuned, stated: balanced accuracy in per cent with selected settings, and of the recipe as stated (the first "
    "published one where there is one, else the defaults; -: not run, as where its batch is larger than the training "
    "set). many, med, few: classes with more than 100, 20 to 100, "
    "fewer than 20 training rows. gain: over the baseline, with the half width of a 95 % interval over images that "
    "holds for all methods at once. converged+logit_adjustment, logistic regression minus log prior, is run beside "
    "whatever is asked for. "
    "= cannot be told from the best, * recommended, ^ best value at the end of its range."
)


def legend(*, fitted: bool) -> str:
    """The legend; `fitted`: is the row with the star the head that was made, for somebody who had none?"""
    return LEGEND.replace("* recommended", "* fitted, the head of this folder") if fitted else LEGEND


def to_csv(rows: Sequence[Row]) -> str:
    """One line per row with full precision; empty where there is no value."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_FIELDS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if value is None else value for key, value in row.flat().items()})
    return out.getvalue()


def to_markdown(rows: Sequence[Row], *, notes: Sequence[str] = ()) -> str:
    """A Markdown table, one line per method, then the notes as a list."""
    columns = (*COLUMNS, *MORE)
    text = [
        "| method | " + " | ".join(column.heading for column in columns) + " |",
        "|---|" + "---:|" * len(columns),
        *(f"| {cell(line.row.method)} | {' | '.join(c.cell(line) for c in columns)} |" for line in lines(rows)),
        "",
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(text) + "\n"


def to_terminal(rows: Sequence[Row], *, title: str) -> Table:
    """A table that fits 80 columns, one line per method; the baseline is bold."""
    bold = [line.row.role == "baseline" for line in lines(rows)]
    return _numbers(title, HEADED, cells(rows), bold=bold)


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The same as text, one line per method below `HEADED`."""
    return [(line.row.own, *(column.cell(line) for column in COLUMNS)) for line in lines(rows)]


def _numbers(title: str, headings: Sequence[str], body: Sequence[Sequence[str]], *, bold: Sequence[bool] = ()) -> Table:
    """A table of names and numbers that fits 80 columns: names get what the numbers leave, and only they are ever cut.

    Names and titles may hold anything: brackets are no markup, and characters that would move the cursor are shown.
    """
    text = Text(one_line(title), style="table.title")
    table = Table(title=text, box=box.SIMPLE_HEAD, title_justify="left", show_edge=False, padding=(0, 1, 0, 0))
    widths = [max(map(len, column)) for column in zip(headings, *body, strict=True)][1:]
    left = max(12, 79 - sum(width + 2 for width in widths))
    table.add_column(headings[0], no_wrap=True, overflow="ellipsis", max_width=left)
    for heading, width in zip(headings[1:], widths, strict=True):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True, min_width=width)
    for place, (name, *cells) in enumerate(body):
        table.add_row(
            Text(one_line(name)), *map(Text, cells), style="bold" if place < len(bold) and bold[place] else None
        )
    return table


SCORES = ("accuracy", "balanced_accuracy", "many", "medium", "few", "macro_f1", "ece")
HEADINGS = ("all", "balanced", "many", "med", "few", "F1", "ECE")


def trials(scores: Iterable[tuple[str, Scores]], *, title: str) -> Table:
    """The settings of a search by their names, one line each, in the order given."""
    return _scores_table(scores, title, "setting")


def as_given(scores: Scores, *, title: str) -> Table:
    """One line of scores."""
    return _scores_table([(f"{scores.rows} rows", scores)], title, "")


def ranges(found: Mapping[str, Range | None], *, title: str) -> Table:
    """Scores of one model with their intervals, one line each, in per cent."""
    body = [
        (name.replace("_", " "), percent(each.estimate, 2), percent(each.low), percent(each.high))
        for name, each in ((SCORE_NAMES[key], each) for key, each in found.items())
        if each is not None
    ]
    return _numbers(title, ("recall", "measured", "from", "to"), body)


def _scores_table(rows: Iterable[tuple[str, Scores]], title: str, first: str) -> Table:
    body = [(name, *(percent(getattr(found, score)) for score in SCORES)) for name, found in rows]
    return _numbers(title, (first, *HEADINGS), body)


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
    body = []
    for part, found in scores.items():
        values = (found.accuracy, found.balanced_accuracy, found.many, found.medium, found.few)
        body.append((part, str(found.rows), *(percent(value, 2) for value in values)))
    return _numbers(title, ("part", "rows", "all", "balanced", "many", "med", "few"), body)
