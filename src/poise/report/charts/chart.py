"""What a chart is: plain numbers, words and names of looks, drawn alike by plotly (page) and matplotlib (papers).

A chart may hold more than is shown at once: a series with `show` is drawn while each of these controls has that value
chosen. Numbers have the units and the digits that are drawn. `Ref` stands for a list that several charts share (see
`poise.report.charts.classes.shared`), so that a page stores it once.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from poise.report.text.words import one_line, shortened
from poise.values import wording

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


class Ref(NamedTuple):
    """A shared list by its name."""

    name: str


Numbers = Sequence[float | None] | Ref


class Table(NamedTuple):
    """Rows of text under their headings; `note` says what was left out."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


class Intervals(NamedTuple):
    """Lengths of bars to the right of points, and to the left where they differ; width of bar and cap in pixels."""

    right: Sequence[float | None]
    left: Sequence[float | None] | None
    color: str
    width: float
    cap: float = 0


class Series(NamedTuple):
    """Points, a line, both, or bars along x. Sizes and widths in pixels; colours are names of the style sheet.

    `outline`: width and colour around the markers. `text` names the points, `detail` are further values, and `hover`
    is what a page says of a point, in the words of plotly. `group`: of series that are switched as one.
    """

    kind: Literal["points", "line", "both", "bars"]
    name: str
    x: Numbers
    y: Numbers
    color: str
    symbol: str = "circle"
    size: float = 6
    dash: str = "solid"
    width: float = 2.5
    opacity: float | None = None
    outline: tuple[float, str] | None = None
    pattern: str = ""
    intervals: Intervals | None = None
    text: Sequence[str] | Ref = ()
    detail: Sequence[float | str | None] | Ref = ()
    hover: str = ""
    legend: bool = True
    group: str = ""
    clipped: bool = True
    show: Mapping[str, str] = MappingProxyType({})


class Ticks(NamedTuple):
    """Labels at values. Names have the widths to which they are cut, on a wide and on a narrow screen."""

    values: Sequence[float]
    labels: Sequence[str]
    widths: tuple[int, int] | None = None


class Axis(NamedTuple):
    """An axis; `zero`: zero has a line, or the axis starts there; `powers`: only powers of ten have a tick."""

    title: str
    log: bool = False
    powers: bool = False
    range: tuple[float | None, float | None] | None = None
    ticks: Ticks | None = None
    zero: Literal["", "line", "start"] = ""


class Band(NamedTuple):
    """A pale background behind a group of classes, from x to x."""

    group: str
    low: float
    high: float


class Rule(NamedTuple):
    """A dotted line across: upright at an x, level at a y, or the diagonal from 0 to `at` in both."""

    way: Literal["upright", "level", "diagonal"]
    at: float
    text: str = ""


class View(NamedTuple):
    """What a chosen value changes: the axis along, and its lines."""

    x: Axis
    rules: tuple[Rule, ...]


class Chart(NamedTuple):
    """Series between two axes. `table` holds the numbers as text, or some of them; `height` and `top` in pixels.

    `top`: the room above for the words of lines. `views` by control and chosen value.
    """

    series: tuple[Series, ...]
    x: Axis
    y: Axis
    table: Table
    height: int = 380
    bands: tuple[Band, ...] = ()
    rules: tuple[Rule, ...] = ()
    top: int = 0
    legend: bool = True
    views: Mapping[str, Mapping[str, View]] = MappingProxyType({})


def legible(text: str) -> str:
    """A name on one line, what cannot be seen in it made visible."""
    return one_line(text).strip() or "(no name)"


def short(text: str, width: int = 40) -> str:
    """A legible name cut to a width, the cut marked."""
    return shortened(legible(text), width)


def percent(share: float | None) -> str:
    """0.123 as "12.3"; a dash where there is nothing."""
    return DASH if share is None else wording.percent(share).replace("-", MINUS)


def signed(share: float) -> str:
    """A difference of shares as points with its sign: 0.06 as "+6.0"."""
    return wording.signed(share).replace("-", MINUS)


def rounded(values: Iterable[float | None]) -> list[float | None]:
    """Four significant digits are what a screen can show, and half the bytes."""
    return [None if value is None else float(f"{value:.4g}") for value in values]


def points(values: Iterable[float | None]) -> list[float | None]:
    """Shares as per cent."""
    return rounded(None if value is None else 100 * value for value in values)


def names_axis(names: Sequence[str], width: int = 24) -> Axis:
    """Names along an upright axis, from below, at 0, 1, 2 ...: as numbers, two equal names stay two."""
    return Axis("", range=(-0.7, len(names) - 0.3), ticks=Ticks(range(len(names)), names, (width, 15)))
