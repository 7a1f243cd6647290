"""Drawings of classes: `Contents` -> a figure, or None where the report holds nothing for it.

Each needs matplotlib with the style of `poise.report.charts.paper_figures`, which calls them.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from poise.report.charts.paper_canvas import (
    BLUE,
    GROUP_LOOKS,
    PALE,
    VERMILION,
    Drawn,
    blank,
    in_percent,
    logarithmic,
    with_looks,
)
from poise.report.text.words import baseline, compared, finite_ratio, lines, shortened
from poise.results.contents import GROUPS, Closer, Contents, Row
from poise.values.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

READING = "unit"  # of the Logits Magnitude
BINS = 8  # of classes by size, for means
FURTHEST = 10  # classes gained, and lost
CROWDED = 2000  # points from which on they are drawn as pixels in SVG too


def class_frequency(contents: Contents) -> "Figure | None":
    """Training rows of the classes by falling size, on a logarithmic scale, coloured by group."""
    classes = contents.classes
    if not any(classes.counts):
        return None
    figure = blank(1.9)
    axes = figure.subplots()
    order = sorted(range(len(classes.names)), key=lambda k: -classes.counts[k])
    for group in GROUPS:
        places = [place for place, k in enumerate(order) if classes.groups[k] == group]
        if places:
            sizes = [max(classes.counts[order[place]], 0.8) for place in places]
            axes.stairs(
                sizes,
                [*places, places[-1] + 1],
                baseline=0.8,
                fill=True,
                color=GROUP_LOOKS[group].color,
                label=f"{group}: {counted(len(places), 'class', 'classes')}",
            )
    axes.set_xlim(0, len(order))
    logarithmic(axes, "y")
    axes.set_ylim(bottom=0.8)
    axes.set_xlabel("class, by falling size")
    axes.set_ylabel("training rows")
    axes.legend()
    return figure


def recall_by_size(contents: Contents) -> "Figure | None":
    """Recall of each class against its size, for the baseline and the recommended head; lines are means of classes."""
    drawn = [each for each in with_looks(contents, compared(contents)) if each.row.per_class]
    if not drawn:
        return None
    figure = blank(2.3)
    axes = figure.subplots()
    for each in drawn:
        _by_size(axes, contents, [in_percent(value) for value in each.row.per_class], each)
    axes.set_ylabel("recall (%)")
    _size_axis(axes, contents)
    _legend_above(axes)
    return figure


def magnitude(contents: Contents) -> "Figure | None":
    """Logits Magnitude and Regularized Std of each class against its size, for two methods."""
    drawn = with_looks(contents, _two_magnitudes(contents))
    if not drawn:
        return None
    figure = blank(3.2)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for each in drawn:
        _by_size(upper, contents, each.row.magnitude[READING], each)
        _by_size(lower, contents, each.row.spread[READING], each)
    upper.set_ylabel("Logits Magnitude")
    lower.set_ylabel("Regularized Std")
    _size_axis(lower, contents)
    _edges(upper, contents)
    _legend_above(upper)
    return figure


def _two_magnitudes(contents: Contents) -> list[Row]:
    """The baseline, and the recommended row or else the best one that differs: adjusted logits keep their magnitude."""
    known = [
        row
        for row in (line.row for line in lines(contents.rows))
        if {READING} <= row.magnitude.keys() & row.spread.keys()
    ]
    first = next((row for row in known if row is baseline(contents)), None)
    others = [row for row in known if row is not first and (first is None or _apart(row, first))]
    others.sort(key=lambda row: not row.recommended)
    return [row for row in (first, *others[:1]) if row is not None]


def _apart(a: Row, b: Row) -> bool:
    """Do two rows differ so that it can be seen? Regularized Std does not change with the scale of logits."""
    pairs = zip(a.spread[READING], b.spread[READING], strict=True)
    known = [(x, y) for x, y in pairs if x is not None and y is not None]
    return sum(abs(x - y) for x, y in known) > 0.02 * sum(abs(y) for _, y in known)


def weight_norms(contents: Contents) -> "Figure | None":
    """Norm of the weight row of each class against its size, for the heads that were looked at closely."""
    heads: dict[tuple[float | None, ...], list[Row]] = {}
    for found in contents.closer:
        if any(found.norms):
            heads.setdefault(found.norms, []).append(contents.rows[found.row])
    if not heads:
        return None
    figure = blank(2.3)
    axes = figure.subplots()
    for each in with_looks(contents, [rows[0] for rows in heads.values()]):
        norms, rows = next((norms, rows) for norms, rows in heads.items() if rows[0] is each.row)
        # Heads that differ in their bias only are one curve.
        name = shortened(", ".join(row.family for row in rows), 50)
        _by_size(axes, contents, norms, each._replace(name=name))
    axes.set_ylabel("norm of the weight row")
    axes.set_ylim(bottom=0)
    _size_axis(axes, contents)
    _legend_above(axes)
    return figure


def gradient_ratio(contents: Contents) -> "Figure | None":
    """GALA's ratio of the gradients from rows of the class to those from all others, against the size of the class."""
    rows = [contents.rows[found.row] for found in contents.closer if any(_ratios(found))]
    if not rows:
        return None
    figure = blank(2.3)
    axes = figure.subplots()
    for each in with_looks(contents, rows):
        found = next(found for found in contents.closer if contents.rows[found.row] is each.row)
        _by_size(axes, contents, _ratios(found), each, mean=statistics.geometric_mean)
    logarithmic(axes, "y")
    axes.axhline(1, color=PALE, linewidth=0.6, zorder=0)
    axes.set_ylabel("own / others' gradient")
    _size_axis(axes, contents)
    _legend_above(axes)
    return figure


def _ratios(found: Closer) -> list[float | None]:
    pairs = zip(found.pull, found.push, strict=True)
    return [finite_ratio(pull, push) for pull, push in pairs]


def changes(contents: Contents) -> "Figure | None":
    """The classes whose recall gained and lost most, with their training rows: before (ring) and after (dot)."""
    ordered = sorted(contents.changes, key=lambda change: change.after - change.before)
    lost = [change for change in ordered if change.after < change.before][:FURTHEST]
    gained = [change for change in ordered if change.after > change.before][-FURTHEST:]
    shown = [*lost, *gained]
    if not shown:
        return None
    figure = blank(0.55 + 0.135 * len(shown))
    axes = figure.subplots()
    for place, change in enumerate(shown):
        color = VERMILION if change.after < change.before else BLUE
        before, after = 100 * change.before, 100 * change.after
        axes.plot([before, after], [place, place], color=color, linewidth=1.2, zorder=1)
        axes.plot(before, place, "o", color=color, markerfacecolor="white", markeredgewidth=0.8)
        axes.plot(after, place, "o", color=color)
    classes = contents.classes
    names = [f"{shortened(classes.names[c.label], 22)} ({classes.counts[c.label]})" for c in shown]
    axes.set_yticks(range(len(shown)), names)
    axes.set_ylim(-0.8, len(shown) - 0.2)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("recall (%): before ○, after ●")
    return figure


def _by_size(
    axes: "Axes",
    contents: Contents,
    values: Sequence[float | None],
    each: Drawn,
    *,
    mean: Callable[[Sequence[float]], float] = statistics.fmean,
) -> None:
    """A point per class at its size, and a line through the means of classes of like size."""
    pairs = zip((max(size, 0.5) for size in contents.classes.counts), values, strict=True)
    points = [(size, value) for size, value in pairs if value is not None and math.isfinite(value)]
    if not points:
        return
    look = each.look
    x, y = zip(*points, strict=True)
    crowded = len(points) > CROWDED
    alpha = 0.15 if crowded else 0.35
    axes.plot(x, y, look.marker, color=look.color, markersize=1.8, alpha=alpha, markeredgewidth=0, rasterized=crowded)
    parts = bins(points) if len(points) >= 3 * BINS else []
    means = [(statistics.geometric_mean([s for s, _ in found]), mean([v for _, v in found])) for found in parts]
    axes.plot(
        *(zip(*means, strict=True) if means else (x, y)),
        color=look.color,
        linestyle=look.line if means else "",
        marker=look.marker,
        linewidth=1.2,
        label=each.name,
    )


def bins(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Points by rising first number in about `BINS` parts; those with the same first number stay together."""
    parts: list[list[tuple[float, float]]] = [[]]
    for _, same in groupby(sorted(points), key=lambda point: point[0]):
        if BINS * len(parts[-1]) >= len(points):
            parts.append([])
        parts[-1] += same
    return parts


def _size_axis(axes: "Axes", contents: Contents) -> None:
    logarithmic(axes, "x")
    axes.set_xlabel("training rows of the class")
    _edges(axes, contents)


def _edges(axes: "Axes", contents: Contents) -> None:
    """Fine lines between few, medium and many."""
    low, high = axes.get_xlim()
    for edge in contents.classes.edges:
        if low < edge < high:
            axes.axvline(edge, color=PALE, linewidth=0.6, linestyle=":", zorder=0)


def _legend_above(axes: "Axes") -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=1)
