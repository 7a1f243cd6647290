"""What the drawings of a report share: the size of a figure, how methods and groups look, axes and percentages."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from poise.report.text.words import baseline, shortened
from poise.results.contents import Contents, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 3.4  # inches: a column of the usual two
BLUE, VERMILION, GREEN, ORANGE, PURPLE, GRAY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#555555"
PALE = "#BBBBBB"


class Look(NamedTuple):
    """How a method or a group is drawn, in every figure alike."""

    color: str
    marker: str
    line: str | tuple[int, tuple[float, ...]]


BASELINE, RECOMMENDED = Look(GRAY, "o", "--"), Look(BLUE, "D", "-")
OTHERS = (Look(VERMILION, "s", "-."), Look(GREEN, "^", ":"), Look(PURPLE, "v", (0, (5, 1, 1, 1, 1, 1))))
GROUP_LOOKS = {"many": Look(GREEN, "o", "-"), "medium": Look(ORANGE, "s", "--"), "few": Look(VERMILION, "^", "-.")}


class Drawn(NamedTuple):
    """A row of the comparison as it is drawn."""

    row: Row
    name: str
    look: Look


def with_looks(contents: Contents, rows: Iterable[Row]) -> list[Drawn]:
    """The rows with looks that differ: the baseline, the recommended one, and three others."""
    others = iter(OTHERS)
    found = []
    for row in rows:
        look = BASELINE if row is baseline(contents) else RECOMMENDED if row.recommended else next(others, None)
        if look is not None:
            found.append(Drawn(row, shortened(row.family, 40), look))
    return found


def blank(height: float) -> "Figure":
    """An empty figure of a column's width; `height` in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def logarithmic(axes: "Axes", which: str, within: tuple[float, ...] = (1, 2, 5)) -> None:
    """A logarithmic axis whose numbers are written out: `within` a power of ten where there are few powers."""
    from matplotlib.ticker import LogLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=within if high < 500 * low else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(lambda value, _: "")


def in_percent(value: float | None) -> float:
    """A fraction in per cent, NaN for None."""
    return math.nan if value is None else 100 * value  # a gap in the line


def as_xy(points: Sequence[tuple[float | None, float | None]]) -> tuple[list[float], list[float]]:
    """Pairs of fractions as what is drawn: all first ones, all second ones, in per cent."""
    return [in_percent(x) for x, _ in points], [in_percent(y) for _, y in points]
