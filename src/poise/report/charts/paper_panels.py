"""Drawings of methods and of their confidence: `Contents` -> a figure, or None where there is nothing for it.

Each needs matplotlib with the style of `poise.report.charts.paper_figures`, which calls them.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from poise.report.charts.paper_canvas import (
    BLUE,
    GRAY,
    GROUP_LOOKS,
    PALE,
    VERMILION,
    Drawn,
    as_xy,
    blank,
    in_percent,
    logarithmic,
    with_looks,
)
from poise.report.text.words import baseline, closer, compared, lines, pareto, shortened
from poise.results.contents import GROUPS, Bins, Contents, Path, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PATHS = 8  # panels: the numbers that were tried most often


def gains(contents: Contents) -> "Figure | None":
    """Gain of each method over the baseline, with its intervals over images (dark) and over classes (pale)."""
    rows = [line.row for line in lines(contents.rows) if line.row.gain is not None][::-1]
    if not rows:
        return None
    figure = blank(0.6 + 0.125 * len(rows))
    axes = figure.subplots()
    for place, row in enumerate(rows):
        assert row.gain is not None
        estimate, half = 100 * row.gain.estimate, 100 * (row.gain.half_width or 0.0)
        wide = [100 * row.gain.classes_low, 100 * row.gain.classes_high]
        color = BLUE if row.recommended else GRAY
        filled = row.recommended or bool(row.tied)
        axes.plot(wide, [place, place], color=PALE, linewidth=0.8, zorder=1)
        axes.plot([estimate - half, estimate + half], [place, place], color=color, linewidth=1.4, zorder=2)
        axes.plot(
            estimate,
            place,
            "*" if row.recommended else "o",
            color=color,
            markerfacecolor=color if filled else "white",
            markeredgewidth=0.7,
            markersize=6 if row.recommended else 3,
            zorder=3,
        )
    axes.axvline(0, color=GRAY, linewidth=0.6, zorder=0)
    axes.set_yticks(range(len(rows)), [shortened(row.family, 38) for row in rows], fontsize=5.5)
    axes.set_ylim(-0.8, len(rows) - 0.2)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"gain over {shortened(contents.verdict.baseline, 24)} (points)")
    _key(figure, any(row.recommended for row in rows))
    return figure


def _key(figure: "Figure", starred: bool) -> None:
    from matplotlib.lines import Line2D

    marks: list[tuple[str, dict[str, Any]]] = [
        ("tied with the best", {"marker": "o", "color": GRAY}),
        ("other", {"marker": "o", "color": GRAY, "markerfacecolor": "white", "markeredgewidth": 0.7}),
        *([("recommended", {"marker": "*", "color": BLUE, "markersize": 6})] if starred else []),
    ]
    handles = [Line2D([], [], linestyle="", label=label, **look) for label, look in marks]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, handletextpad=0.2, columnspacing=1.2)


def tradeoff(contents: Contents) -> "Figure | None":
    """Few against many for every method, the Pareto front, and what shifting the baseline's logits reaches."""
    points = [(found, row) for row in (line.row for line in lines(contents.rows)) if (found := _many_few(row))]
    if not points:
        return None
    figure = blank(2.6)
    axes = figure.subplots()
    first = baseline(contents)
    looked = None if first is None else closer(contents, first)
    path = [] if looked is None else [(p.many, p.few) for p in looked.tradeoff if None not in (p.many, p.few)]
    if path and first is not None:
        name = f"{shortened(first.family, 24)}, logits shifted"
        axes.plot(*as_xy(path), color=PALE, linewidth=1.5, zorder=1, label=name)
    axes.plot(
        *as_xy(front([found for found, _ in points])),
        color=VERMILION,
        linewidth=0.8,
        zorder=2,
        label="Pareto front of methods",
    )
    plain = [found for found, row in points if row is not first and not row.recommended]
    axes.plot(
        *as_xy(plain), "o", color=GRAY, markerfacecolor="white", markeredgewidth=0.7, zorder=3, label="other methods"
    )
    for each in with_looks(contents, compared(contents)):
        if found := _many_few(each.row):
            star = each.row.recommended
            color, marker, size = (BLUE, "*", 8) if star else (GRAY, "s", 4)
            axes.plot(
                *as_xy([found]), marker, color=color, markersize=size, zorder=4, label=shortened(each.row.family, 34)
            )
    axes.set_xlabel("recall of many (%)")
    axes.set_ylabel("recall of few (%)")
    axes.legend(loc="best")
    return figure


def _many_few(row: Row) -> tuple[float, float] | None:
    many, few = row.estimate("many"), row.estimate("few")
    return None if many is None or few is None else (many, few)


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that none beats in both, by falling first number."""
    return pareto(points)[::-1]


def paths(contents: Contents) -> "Figure | None":
    """Scores along the numbers of methods, a panel each; the line stands at the value taken."""
    known = [path for path in contents.paths if len(path.points) > 1]
    found = sorted(known, key=lambda path: -len(path.points))[:PATHS]
    if not found:
        return None
    rows = math.ceil(len(found) / 2)
    figure = blank(0.3 + 1.3 * rows)
    grid = figure.subplots(rows, min(len(found), 2), squeeze=False).flatten().tolist()
    for axes, path in zip(grid, found, strict=False):
        _path(axes, path)
    for axes in grid[len(found) :]:
        axes.set_axis_off()
    for axes in grid[::2]:
        axes.set_ylabel("score (%)")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure


def _path(axes: "Axes", path: Path) -> None:
    values = [point.value for point in path.points]

    def curve(scores: Iterable[float | None], name: str, color: str, line: Any, width: float) -> None:
        axes.plot(values, [in_percent(v) for v in scores], color=color, linestyle=line, linewidth=width, label=name)

    curve((point.balanced for point in path.points), "balanced", "black", "-", 1.3)
    for group, look in GROUP_LOOKS.items():
        curve((getattr(point, group) for point in path.points), group, look.color, look.line, 0.9)
    if path.selected is not None:
        axes.axvline(path.selected, color=PALE, linewidth=1.5, zorder=0)
    if min(values) > 0 and max(values) / min(values) > 30:
        logarithmic(axes, "x", within=(1,))
    axes.set_xlabel(shortened(f"{path.parameter} of {path.family}", 34), fontsize=6)


def reliability(contents: Contents) -> "Figure | None":
    """Share right against mean confidence, for all rows and by group."""
    drawn = _closer_drawn(contents)
    looked = {each.row.method: found.reliability for each in drawn if (found := closer(contents, each.row))}
    parts = [part for part in ("all", *GROUPS) if any(found.get(part) for found in looked.values())]
    if not parts:
        return None
    rows = math.ceil(len(parts) / 2)
    figure = blank(0.3 + 1.45 * rows)
    grid = figure.subplots(rows, min(len(parts), 2), squeeze=False, sharex=True, sharey=True).flatten().tolist()
    for axes, part in zip(grid, parts, strict=False):
        axes.plot([0, 100], [0, 100], color=PALE, linewidth=0.8, zorder=0)
        for each in drawn:
            _reliable(axes, looked[each.row.method].get(part), each)
        axes.text(0.04, 0.94, part, transform=axes.transAxes, va="top", weight="bold")
    for axes in grid[len(parts) :]:
        axes.set_axis_off()
    for axes in grid[: len(parts)][-2:]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel("confidence (%)", fontsize=7)
    figure.supylabel("right (%)", fontsize=7)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2 if len(labels) < 3 else 1)
    return figure


def _reliable(axes: "Axes", bins: Bins | None, each: Drawn) -> None:
    pairs = [] if bins is None else list(zip(bins.confidence, bins.right, strict=True))
    known = [pair for pair in pairs if None not in pair]
    look = each.look
    axes.plot(*as_xy(known), color=look.color, marker=look.marker, linestyle=look.line, markersize=2.5, label=each.name)


def coverage(contents: Contents) -> "Figure | None":
    """Balanced accuracy of the rows that are answered, and the share of each group that is, against coverage."""
    drawn = [each for each in _closer_drawn(contents) if (found := closer(contents, each.row)) and found.coverage]
    if not drawn:
        return None
    figure = blank(2.2)
    left, right = figure.subplots(1, 2)
    for each in drawn:
        found = closer(contents, each.row)
        assert found is not None
        assert found.coverage is not None
        share = [100 * value for value in found.coverage.coverage]
        scores = [100 * value for value in found.coverage.balanced]
        left.plot(share, scores, color=each.look.color, linestyle=each.look.line, label=each.name)
    last = closer(contents, drawn[-1].row)
    assert last is not None
    assert last.coverage is not None
    for group, look in GROUP_LOOKS.items():
        kept = last.coverage.kept.get(group)
        if kept is not None:
            share = [100 * value for value in last.coverage.coverage]
            right.plot(share, [100 * v for v in kept], color=look.color, linestyle=look.line, label=group)
    left.set_ylabel("balanced accuracy (%)")
    right.set_ylabel("answered of the group (%)")
    for axes in (left, right):
        axes.set_xlabel("answered of all rows (%)")
        axes.set_xlim(0, 100)
    right.legend(loc="upper left")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2 if len(labels) < 3 else 1)
    return figure


def _closer_drawn(contents: Contents) -> list[Drawn]:
    """The baseline and the recommended head, where they were looked at closely; else whatever was."""
    rows = [row for row in compared(contents) if closer(contents, row) is not None]
    return with_looks(contents, rows or [contents.rows[found.row] for found in contents.closer])
