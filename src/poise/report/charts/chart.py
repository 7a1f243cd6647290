"""What a chart is: plotly traces and a layout as plain values, and the same numbers as a table to be read aloud.

Two kinds of values are filled in by the page. `{"ref": name}` stands for a list that several charts share, so that it
is stored once; `{"css": name}` stands for a colour of the style sheet, so that light and dark differ there only. A
trace may have `show`, a dict: it is drawn while each of these controls has that value chosen.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from poise.report.text.words import one_line, shortened
from poise.values import wording

Trace = dict[str, Any]
Axis = dict[str, Any]

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


class Table(NamedTuple):
    """Rows of text under their headings; `note` says what was left out."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


class Figure(NamedTuple):
    """A chart of `height` pixels. `table` holds its numbers as text, or some of them.

    `variants`: layouts by control and chosen value, laid over `layout`.
    """

    traces: tuple[Trace, ...]
    layout: dict[str, Any]
    table: Table
    height: int = 380
    variants: dict[str, dict[str, Any]] = {}  # noqa: RUF012


def legible(text: str) -> str:
    """A name on one line, what cannot be seen in it made visible."""
    return one_line(text).strip() or "(no name)"


def short(text: str, width: int = 40) -> str:
    """A legible name cut to a width, the cut marked."""
    return shortened(legible(text), width)


def plotly_text(text: str, width: int = 40) -> str:
    """A name as plotly shows it literally: its pseudo-HTML, its templates and its mathematics are all escaped."""
    line = short(text, width).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return line.replace("%", "&#37;").replace("$", "&#36;")


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


def css(name: str) -> dict[str, str]:
    """A colour of the style sheet."""
    return {"css": name}


def ref(name: str) -> dict[str, str]:
    """A shared list."""
    return {"ref": name}


def axis(title: str, **others: Any) -> Axis:
    """An axis with its title."""
    return {"title": {"text": title}, **others}


def name_ticks(names: Sequence[str], width: int = 24) -> dict[str, Any]:
    """Names along an upright axis, from below, at 0, 1, 2 ...: as numbers, two equal names stay two."""
    return {
        "tickvals": list(range(len(names))),
        "ticktext": [plotly_text(name, width) for name in names],
        "narrowtext": [plotly_text(name, 15) for name in names],
        "range": [-0.7, len(names) - 0.3],
        "automargin": True,
    }


def markers(color: str, symbol: str = "circle", **others: Any) -> dict[str, Any]:
    """Marker values of a trace."""
    return {"color": css(color), "symbol": symbol, **others}


def band(group: str, low: float, high: float) -> dict[str, Any]:
    """A pale background behind the x range of a group of classes; on log axes, bounds are plain numbers."""
    return {
        "type": "rect",
        "xref": "x",
        "yref": "paper",
        "x0": low,
        "x1": high,
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {"width": 0},
        "fillcolor": css(group),
        "opacity": 0.09,
    }
