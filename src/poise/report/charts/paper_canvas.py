"""Charts as matplotlib draws them: panels of a figure that is one column wide, in the colours of Okabe and Ito.

Sizes are those of the page, at `PIXELS` an inch. Needs the style of `poise.report.charts.paper_figures`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from poise.report.charts.chart import Axis, Chart, Numbers, Ref, Rule, Series, short
from poise.report.charts.paper_panels import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis as DrawnAxis
    from matplotlib.figure import Figure

WIDTH = 3.4  # inches: a column of the usual two
PIXELS = 191.3
POINTS = 72 / PIXELS  # a pixel
ROW = 0.72  # of the height, where panels stand in several rows
LETTERS = 70  # in a line of the legend
LINE = 0.125  # inches of the legend
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
COLORS = {
    **{"accent": BLUE, "baseline": "#555555", "ink": "black", "muted": "#888888", "paper": "white"},
    **{"many": GREEN, "medium": ORANGE, "few": VERMILION},
    **{"c1": VERMILION, "c2": GREEN, "c3": PURPLE, "c4": ORANGE, "c5": SKY, "c6": "black"},
}
MARKERS = {
    **{"circle": "o", "square": "s", "diamond": "D", "cross": "P", "star": "*", "x": "X"},
    **{"triangle-up": "^", "triangle-down": "v", "line-ns": ""},
}
DASHES: dict[str, Any] = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (8, 2))}

Lists = Mapping[str, Sequence[Any]]


def drawn(panels: Sequence[Panel], lists: Lists) -> "Figure":
    """The panels with one legend above them; `lists` are those that charts refer to."""
    from matplotlib.figure import Figure

    columns = 2 if panels[0].title and len(panels) > 1 else 1
    rows = math.ceil(len(panels) / columns)
    height = rows * panels[0].chart.height / PIXELS * (1 if rows == 1 else ROW)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for place, (axes, panel) in enumerate(zip(grid, panels, strict=False)):
        draw(axes, panel.chart, lists)
        axes.set_title(
            panel.title, loc="left", fontsize=6, pad=9 if any(rule.text for rule in panel.chart.rules) else 3
        )
        below = panels[place + columns : place + columns + 1]
        if below and below[0].chart.x.title == panel.chart.x.title:
            axes.set_xlabel("")
        if place % columns and panels[place - 1].chart.y.title == panel.chart.y.title:
            axes.set_ylabel("")
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    lines = key(figure, grid)
    # Two lines stand in the height of one row; whatever is more than that must not make panels flat.
    figure.set_figheight(height + LINE * max(0, lines - (2 if rows == 1 else 0)))
    return figure


def key(figure: "Figure", grid: "Sequence[Axes]") -> int:
    """One legend of all panels, each name once; returns its lines."""
    pairs = [pair for axes in grid for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    found = {name: handle for handle, name in reversed(pairs)}
    names = list(dict.fromkeys(name for _, name in pairs))
    columns = max(1, min(LETTERS // (max(map(len, names)) + 6), len(names)))
    handles = [found[name] for name in names]
    figure.legend(handles, names, loc="outside upper center", ncols=columns, columnspacing=1.2)
    return math.ceil(len(names) / columns)


def draw(axes: "Axes", chart: Chart, lists: Lists) -> None:
    """A chart; what it draws later lies above."""
    for band in chart.bands:
        axes.axvspan(band.low, band.high, color=COLORS[band.group], alpha=0.09, linewidth=0, zorder=0)
    if chart.bands:
        axes.set_xlim(min(band.low for band in chart.bands), max(band.high for band in chart.bands))
    for rule in chart.rules:
        line(axes, rule)
    for series in chart.series:
        add(axes, series, lists)
    scale(axes, "x", chart.x)
    scale(axes, "y", chart.y)


def line(axes: "Axes", rule: Rule) -> None:
    """A line of reference, and its word at its upper end."""
    look: dict[str, Any] = {"color": COLORS["muted"], "linestyle": ":", "linewidth": 0.8, "zorder": 0.5}
    if rule.way == "diagonal":
        axes.plot([0, rule.at], [0, rule.at], **look)
    else:
        (axes.axvline if rule.way == "upright" else axes.axhline)(rule.at, **look)
    if rule.text:
        place = {"xycoords": axes.get_xaxis_transform(), "xytext": (0, 1), "textcoords": "offset points"}
        axes.annotate(rule.text, (rule.at, 1), ha="center", va="bottom", fontsize=5, **place)  # type: ignore[arg-type]


def add(axes: "Axes", series: Series, lists: Lists) -> None:
    """The points, line or bars of a series, over the bars of its intervals."""
    x, y, color = numbers(series.x, lists), numbers(series.y, lists), COLORS[series.color]
    label = series.name if series.legend else None
    if series.kind == "bars":
        fill, hatch = ("white", "//////") if series.pattern else (color, None)
        axes.barh(y, x, height=0.65, facecolor=fill, hatch=hatch, edgecolor=color, linewidth=0.5, label=label)
    if bars := series.intervals:
        sides = [bars.right if bars.left is None else bars.left, bars.right]
        look: dict[str, Any] = {
            "ecolor": COLORS[bars.color],
            "elinewidth": bars.width * POINTS,
            "capsize": bars.cap * POINTS,
        }
        axes.errorbar(x, y, xerr=[numbers(side, lists) for side in sides], fmt="none", **look)
    if series.kind != "bars":
        axes.plot(x, y, color=color, alpha=series.opacity, label=label, clip_on=series.clipped, **look_of(series))


def look_of(series: Series) -> dict[str, Any]:
    """Line and markers."""
    hollow, filled = series.symbol.endswith("-open"), COLORS[series.color]
    width, edge = series.outline or (1.5, series.color)
    return {
        "linestyle": "" if series.kind == "points" else DASHES[series.dash],
        "linewidth": series.width * POINTS,
        "marker": "" if series.kind == "line" else MARKERS[series.symbol.removesuffix("-open")],
        "markersize": series.size * POINTS,
        "markerfacecolor": filled if not hollow else "none" if series.opacity else "white",
        "markeredgecolor": filled if hollow else COLORS[edge],
        "markeredgewidth": width * POINTS if hollow or series.outline else 0,
    }


def numbers(values: Numbers, lists: Lists) -> list[float]:
    """What is drawn, NaN for None: a gap."""
    found = lists[values.name] if isinstance(values, Ref) else values
    return [math.nan if value is None else value for value in found]


def scale(axes: "Axes", which: Literal["x", "y"], of: Axis) -> None:
    """Title, scale, range and ticks of an axis."""
    level = which == "x"
    axis, limits = (axes.xaxis, axes.set_xlim) if level else (axes.yaxis, axes.set_ylim)
    axis.set_label_text(of.title)
    if of.log:
        (axes.set_xscale if level else axes.set_yscale)("log")
        logarithmic(axis, of)
    elif of.ticks is not None and of.ticks.widths is not None:
        wide, _ = of.ticks.widths
        turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if level else {}
        axis.set_ticks(list(of.ticks.values), [short(name, wide) for name in of.ticks.labels], fontsize=5.5, **turned)
        axis.set_tick_params(length=0)
    if of.range is not None:
        limits(*of.range)
    if of.zero == "start":
        limits(0, None)
    if of.zero == "line":
        axes.axvline(0, color=COLORS["muted"], linewidth=0.6, zorder=0.5)


def logarithmic(axis: "DrawnAxis", of: Axis) -> None:
    """Ticks whose numbers are written out: those given, else powers of ten, with 1, 2, 5 where there are few."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    axis.set_minor_formatter(NullFormatter())
    if of.ticks is not None:
        axis.set_ticks(list(of.ticks.values), list(of.ticks.labels))
        axis.set_minor_locator(NullLocator())
        return
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
