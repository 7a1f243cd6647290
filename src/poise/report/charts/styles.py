"""How methods and groups look and are called, the same in every chart: never told apart by colour alone."""

from types import MappingProxyType
from typing import NamedTuple

from poise.report.text.words import recommended
from poise.results.contents import Contents, Row

SYMBOLS = MappingProxyType(
    {"all": "circle", "balanced": "circle", "many": "circle", "medium": "square", "few": "triangle-up"}
)
# Lengths without a common divisor, so that many methods get different combinations.
COLORS = ("c1", "c2", "c3", "c4", "c5", "c6")
MARKS = ("diamond", "square", "triangle-up", "cross", "triangle-down", "star", "x")
DASHES = ("dash", "dot", "dashdot", "longdash", "solid")


class Style(NamedTuple):
    """Names of a colour in the style sheet, of a plotly symbol and of a plotly dash."""

    color: str
    symbol: str
    dash: str


def styles(contents: Contents) -> tuple[Style, ...]:
    """One per row: the baseline grey, the recommended one in the accent colour, all others in turn."""
    return tuple(style(index, row) for index, row in enumerate(contents.rows))


def style(index: int, row: Row) -> Style:
    """The look of the row at an index."""
    if row.recommended:
        return Style("accent", "circle", "solid")
    if row.role == "baseline":
        return Style("baseline", "circle-open", "dot")
    return Style(COLORS[index % len(COLORS)], MARKS[index % len(MARKS)], DASHES[index % len(DASHES)])


def best_word(contents: Contents) -> str:
    """What the row taken is called.

    Nothing recommends a model that no test split has judged, nor one that is evaluated; and where the verdict is to
    keep the baseline, the other head was only chosen, by rows that are not the test split.
    """
    row, told = recommended(contents), contents.verdict
    if told.held is not None and row is not None and told.held == row.method:
        return "in this folder"
    if told.decision == "keep" and row is not None and row.role != "baseline":
        return "chosen without the test split"
    return told.decision if told.decision in ("fitted", "evaluated") else "recommended"


def method_name(row: Row) -> str:
    """What a chart calls a row."""
    return f"{row.own} (as stated)" if row.role == "recipe" else row.own
