"""Charts as plotly draws them on the page: traces and a layout, as plain values.

The page fills in two kinds of values: `{"ref": name}` is a shared list and `{"css": name}` a colour of the style sheet,
so that light and dark differ there only.
"""

import math
from typing import Any

from poise.report.charts.chart import Axis, Band, Chart, Intervals, Ref, Rule, Series, short

MODES = {"points": "markers", "line": "lines", "both": "lines+markers"}


def figure(chart: Chart) -> dict[str, Any]:
    """What the scripts of the page draw."""
    layout = {
        "xaxis": axis(chart.x) | ({"autotickangles": [0, -35, -90]} if named(chart.x) else {}),
        "yaxis": axis(chart.y) | ({"automargin": True} if named(chart.y) else {}),
        **lines([*map(band, chart.bands)], chart.rules, chart.x),
        **({"margin": {"t": chart.top}} if chart.top else {}),
        **({"bargap": 0.35} if any(series.kind == "bars" for series in chart.series) else {}),
        **({"showlegend": True} if chart.legend else {}),
    }
    views = {
        control: {value: {"xaxis": axis(view.x), **lines([], view.rules, view.x)} for value, view in by_value.items()}
        for control, by_value in chart.views.items()
    }
    traces = [trace(series) for series in chart.series]
    return {"traces": traces, "layout": layout, "height": chart.height, "variants": views}


def markup(text: str) -> str:
    """A text without plotly's pseudo-HTML and mathematics."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


def literal(text: str) -> str:
    """A text as plotly shows it literally where it fills templates in, too."""
    return markup(text).replace("%", "&#37;")


def plotly_text(text: str, width: int = 40) -> str:
    """A name cut to a width, as plotly shows it literally."""
    return literal(short(text, width))


def css(name: str) -> dict[str, str]:
    """A colour of the style sheet."""
    return {"css": name}


def listed(values: Any) -> Any:
    """A list, or the name of a shared one."""
    return {"ref": values.name} if isinstance(values, Ref) else list(values)


def trace(series: Series) -> dict[str, Any]:
    """A series; what it leaves out is left out."""
    bars = series.kind == "bars"
    text = series.text if isinstance(series.text, Ref) else [literal(name) for name in series.text]
    optional = {
        "text": listed(text) if text else None,
        "customdata": listed(series.detail) if series.detail else None,
        "error_x": intervals(series.intervals) if series.intervals else None,
        "legendgroup": series.group or None,
        "showlegend": None if series.legend else False,
        "cliponaxis": None if series.clipped else False,
        "opacity": series.opacity if series.kind == "line" else None,
        "show": dict(series.show) or None,
    }
    return {
        **({"type": "bar", "orientation": "h", "textposition": "none"} if bars else {"type": "scatter"}),
        **({} if bars else {"mode": MODES[series.kind]}),
        "name": literal(series.name),
        "x": listed(series.x),
        "y": listed(series.y),
        **({} if series.kind == "line" else {"marker": marker(series)}),
        **({"line": line(series)} if series.kind in ("line", "both") else {}),
        **({"hovertemplate": series.hover} if series.hover else {"hoverinfo": "skip"}),
        **{key: value for key, value in optional.items() if value is not None},
    }


def line(series: Series) -> dict[str, Any]:
    """Colour, width and dashes."""
    return {"color": css(series.color), "width": series.width, "dash": series.dash}


def marker(series: Series) -> dict[str, Any]:
    """The markers of points, or the filling of bars."""
    if series.kind == "bars":
        pattern = {"shape": series.pattern, "fillmode": "replace", "size": 6}
        return {"color": css(series.color), "pattern": pattern}
    found = {"color": css(series.color), "symbol": series.symbol, "size": series.size}
    edge = {} if series.outline is None else {"line": {"width": series.outline[0], "color": css(series.outline[1])}}
    return found | edge | ({} if series.opacity is None else {"opacity": series.opacity})


def intervals(bars: Intervals) -> dict[str, Any]:
    """Error bars along x."""
    sides = {} if bars.left is None else {"symmetric": False, "arrayminus": bars.left}
    look = {"thickness": bars.width, "width": bars.cap, "color": css(bars.color)}
    return {"type": "data", "array": bars.right, **sides, **look}


def named(axis: Axis) -> bool:
    """Has the axis names instead of numbers?"""
    return axis.ticks is not None and axis.ticks.widths is not None


def axis(of: Axis) -> dict[str, Any]:
    """An axis with its title and its ticks."""
    optional: dict[str, Any] = {
        "title": {"text": markup(of.title)} if of.title else None,
        "type": "log" if of.log else None,
        "range": of.range,
        "zeroline": True if of.zero == "line" else None,
        "rangemode": "tozero" if of.zero == "start" else None,
        "dtick": 1 if of.powers else None,
    }
    found = {key: value for key, value in optional.items() if value is not None}
    if of.ticks is None:
        return found
    widths = of.ticks.widths
    if widths is None:
        return found | {"tickvals": list(of.ticks.values), "ticktext": list(of.ticks.labels)}
    wide, narrow = ([plotly_text(name, width) for name in of.ticks.labels] for width in widths)
    return found | {"tickvals": list(of.ticks.values), "ticktext": wide, "narrowtext": narrow}


def lines(bands: list[dict[str, Any]], rules: tuple[Rule, ...], x: Axis) -> dict[str, Any]:
    """Bands and lines, and the words above lines."""
    words = [word(rule, x) for rule in rules if rule.text]
    return {"shapes": [*bands, *map(shape, rules)], "annotations": words}


def band(of: Band) -> dict[str, Any]:
    """A pale background; on log axes, bounds are plain numbers."""
    place = {"xref": "x", "yref": "paper", "x0": of.low, "x1": of.high, "y0": 0, "y1": 1}
    return {
        "type": "rect",
        **place,
        "layer": "below",
        "line": {"width": 0},
        "fillcolor": css(of.group),
        "opacity": 0.09,
    }


def shape(rule: Rule) -> dict[str, Any]:
    """The line of a reference value; shapes on a log axis have plain numbers."""
    at = rule.at
    places: dict[str, dict[str, Any]] = {
        "upright": {"x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1},
        "level": {"xref": "paper", "x0": 0, "x1": 1, "y0": at, "y1": at},
        "diagonal": {"x0": 0, "x1": at, "y0": 0, "y1": at},
    }
    return {"type": "line", **places[rule.way], "line": {"color": css("muted"), "width": 1.5, "dash": "dot"}}


def word(rule: Rule, x: Axis) -> dict[str, Any]:
    """The text above an upright line; texts on a log axis have logarithms."""
    place = math.log10(rule.at) if x.log else rule.at
    return {"x": place, "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False, "text": markup(rule.text)}
