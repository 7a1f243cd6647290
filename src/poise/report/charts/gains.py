"""Charts of all methods at once: gains over the baseline, and recall of the few against recall of the many."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from poise.report.charts.chart import (
    DASH,
    Figure,
    Table,
    Trace,
    axis,
    css,
    markers,
    name_ticks,
    percent,
    plotly_text,
    points,
    signed,
)
from poise.report.charts.classes import dotted
from poise.report.charts.styles import best_word, method_name, styles
from poise.report.text.words import pareto
from poise.results.contents import Closer, Contents, Gain, Row

LEVELS = 5  # many-recalls at which few-recalls are compared


def gains(contents: Contents) -> Figure | None:
    """Gains over the baseline with both intervals, smallest at the bottom, and the way to the oracle."""
    found = [row.model_copy(update={"gain": possible(row.gain)}) for row in contents.rows if row.gain is not None]
    rows = sorted(found, key=gained)
    if not rows:
        return None
    parts = (
        (
            "cannot be told from the best",
            "c1",
            "circle",
            [i for i, r in enumerate(rows) if r.tied and not r.recommended],
        ),
        (
            "behind the best",
            "muted",
            "circle-open",
            [i for i, r in enumerate(rows) if not r.tied and not r.recommended],
        ),
        (best_word(contents), "accent", "diamond", [i for i, r in enumerate(rows) if r.recommended]),
    )
    traces = [wide_intervals(rows), *(gain_trace(rows, *part) for part in parts if part[-1])]
    shapes, annotations = gap_lines(contents)
    layout = {
        "xaxis": axis("gain in balanced accuracy, points", zeroline=True),
        "yaxis": name_ticks([row.own for row in rows], 36),
        "shapes": shapes,
        "annotations": annotations,
        "margin": {"t": 70},
        "showlegend": True,
    }
    return Figure(tuple(traces), layout, gain_table(contents, rows[::-1]), 150 + 24 * len(rows))


def possible(gain: Gain) -> Gain:
    """The gain with its bounds cut where no gain can be: beyond 100 points either way."""
    names = ("low", "high", "classes_low", "classes_high")
    bounds = {name: bound for name in names if (bound := getattr(gain, name)) is not None}
    return gain.model_copy(update={name: min(max(bound, -1.0), 1.0) for name, bound in bounds.items()})


def gained(row: Row) -> float:
    """The gain of a row, 0 for the baseline."""
    return 0.0 if row.gain is None else row.gain.estimate


def wide_intervals(rows: Sequence[Row]) -> Trace:
    """The intervals over classes, as thin lines behind."""
    known = [row.gain for row in rows if row.gain is not None]
    bars = {
        "type": "data",
        "symmetric": False,
        "array": points(max(gain.classes_high - gain.estimate, 0.0) for gain in known),
        "arrayminus": points(max(gain.estimate - gain.classes_low, 0.0) for gain in known),
        "thickness": 1,
        "width": 3,
        "color": css("muted"),
    }
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "interval over classes of this kind",
        "x": points(gain.estimate for gain in known),
        "y": list(range(len(rows))),
        "error_x": bars,
        "marker": markers("muted", "line-ns", size=1),
        "hoverinfo": "skip",
        "showlegend": False,
    }


def gain_trace(rows: Sequence[Row], name: str, color: str, symbol: str, chosen: Sequence[int]) -> Trace:
    """Estimates of some rows with their intervals over images."""
    gained = [(i, row, row.gain) for i in chosen if (row := rows[i]).gain is not None]
    known: list[Gain] = [gain for _, _, gain in gained if gain is not None]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": points(gain.estimate for gain in known),
        "y": [i for i, _, _ in gained],
        "text": [plotly_text(row.method, 90) for _, row, _ in gained],
        "customdata": [interval_text(gain) for gain in known],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": points((gain.high or gain.estimate) - gain.estimate for gain in known),
            "arrayminus": points(
                gain.estimate - (gain.low if gain.low is not None else gain.estimate) for gain in known
            ),
            "thickness": 3,
            "width": 0,
            "color": css(color),
        },
        "marker": markers(color, symbol, size=10, line={"width": 2, "color": css(color)}),
        "hovertemplate": "%{text}<br>%{x:+.1f} points<br>%{customdata}<extra></extra>",
    }


def interval_text(gain: Gain) -> str:
    """Both intervals of a gain in words."""
    classes = f"{signed(gain.classes_low)} to {signed(gain.classes_high)} over classes"
    if gain.low is None or gain.high is None:
        return classes
    return f"{signed(gain.low)} to {signed(gain.high)} over images<br>{classes}"


def gap_lines(contents: Contents) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Upright lines where half and all of the gap to the oracle are closed."""
    gap = gap_to_oracle(contents)
    if gap is None:
        return [], []
    shares = (0.5, 1.0)
    lines = [
        {"type": "line", "x0": 100 * gap * s, "x1": 100 * gap * s, "yref": "paper", "y0": 0, "y1": 1, "line": dotted()}
        for s in shares
    ]
    # Half the way has no text of its own: where intervals are wide, the two would be printed over each other.
    text = {"x": 100 * gap, "y": 1, "yref": "paper", "yanchor": "bottom", "text": "oracle", "showarrow": False}
    return lines, [text]


def gap_to_oracle(contents: Contents) -> float | None:
    """Balanced accuracy of the oracle above the baseline's; None without an oracle that is above every method."""
    balanced = [(row, score) for row in contents.rows if (score := row.estimate("balanced")) is not None]
    start = [score for row, score in balanced if row.role == "baseline"]
    if contents.verdict.oracle is None or not start or contents.verdict.oracle <= max(s for _, s in balanced):
        return None
    return contents.verdict.oracle - start[0]


def gain_table(contents: Contents, rows: Sequence[Row]) -> Table:
    """Gains with both intervals, and the share of the gap closed."""
    gap = gap_to_oracle(contents)
    lines = [
        (
            row.method,
            signed(gain.estimate),
            DASH if gain.low is None or gain.high is None else f"{signed(gain.low)} to {signed(gain.high)}",
            f"{signed(gain.classes_low)} to {signed(gain.classes_high)}",
            *(() if gap is None else (f"{100 * gain.estimate / gap:.0f} %",)),
        )
        for row in rows
        if (gain := row.gain) is not None
    ]
    head = ("method", "gain, points", "over images", "over classes", *(() if gap is None else ("gap closed",)))
    return Table(head, tuple(lines))


# Many against few.


def tradeoff(contents: Contents) -> Figure | None:
    """Recall of the few against recall of the many: all methods, their front, and curves of some heads."""
    placed = [
        (row, many, few)
        for row in contents.rows
        if (many := row.estimate("many")) is not None and (few := row.estimate("few")) is not None
    ]
    if not placed:
        return None
    parts = (
        ("tuned", "c1", "circle", [p for p in placed if p[0].role == "tuned" and not p[0].recommended]),
        ("as stated", "muted", "circle-open", [p for p in placed if p[0].role == "recipe"]),
        ("baseline", "ink", "square", [p for p in placed if p[0].role == "baseline" and not p[0].recommended]),
        (best_word(contents), "accent", "diamond", [p for p in placed if p[0].recommended]),
    )
    traces = [
        *([front_trace([(many, few) for row, many, few in placed if row.role != "recipe"])] if placed[1:] else []),
        *(curve_trace(contents, head) for head in contents.closer if curve(head)),
        *(place_trace(*part) for part in parts if part[-1]),
    ]
    rows = tuple((method_name(row), percent(many), percent(few)) for row, many, few in placed)
    curves = [place for head in contents.closer for place in curve(head)]
    layout = {
        "xaxis": axis("recall of the many, %", range=around([m for _, m, _ in placed] + [m for m, _ in curves])),
        "yaxis": axis("recall of the few, %", range=around([f for _, _, f in placed] + [f for _, f in curves])),
        "showlegend": True,
    }
    return Figure(tuple(traces), layout, Table(("method", "many, %", "few, %"), rows), 480)


def around(shares: Sequence[float]) -> list[float | None]:
    """An axis range in per cent with some room at both ends, within 0 to 100."""
    room = 0.08 * (max(shares) - min(shares)) + 0.02
    return points((max(min(shares) - room, 0.0), min(max(shares) + room, 1.0)))


def place_trace(name: str, color: str, symbol: str, placed: Sequence[tuple[Row, float, float]]) -> Trace:
    """One point per method."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": points(many for _, many, _ in placed),
        "y": points(few for _, _, few in placed),
        "text": [plotly_text(method_name(row), 90) for row, _, _ in placed],
        "marker": markers(color, symbol, size=14 if color == "accent" else 9, line={"width": 1.5, "color": css(color)}),
        "cliponaxis": False,
        "hovertemplate": "%{text}<br>many %{x:.1f} %, few %{y:.1f} %<extra></extra>",
    }


def front_trace(places: Sequence[tuple[float, float]]) -> Trace:
    """The Pareto front as a line."""
    front = pareto(places)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "Pareto front",
        "x": points(many for many, _ in front),
        "y": points(few for _, few in front),
        "line": {"color": css("muted"), "width": 10},
        "opacity": 0.25,
        "hoverinfo": "skip",
    }


def curve(head: Closer) -> list[tuple[float, float]]:
    """(many, few) along the trade-off of a head, by rising shift."""
    ordered = sorted(head.tradeoff, key=lambda point: point.value)
    return [(p.many, p.few) for p in ordered if p.many is not None and p.few is not None]


def curve_trace(contents: Contents, head: Closer) -> Trace:
    """The trade-off of one head as a line."""
    look, places = styles(contents)[head.row], curve(head)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plotly_text(method_name(contents.rows[head.row]), 36) + ", shifted",
        "x": points(many for many, _ in places),
        "y": points(few for _, few in places),
        "line": {"color": css(look.color), "width": 2, "dash": look.dash},
        "hovertemplate": "many %{x:.1f} %, few %{y:.1f} %",
    }


def at_equal_many(contents: Contents) -> Table | None:
    """Few-recall of the heads looked at closer at equal many-recalls, interpolated on the fronts of their curves."""
    fronts = [(contents.rows[head.row], pareto(curve(head))) for head in contents.closer]
    found = [(row, places) for row, places in fronts if len(places) > 1]
    if len(found) < 2:
        return None
    low, high = max(places[0][0] for _, places in found), min(places[-1][0] for _, places in found)
    if high <= low:
        return None
    levels = [high - (high - low) * i / (LEVELS - 1) for i in range(LEVELS)]
    rows = [(method_name(row), *(percent(interpolated(places, level)) for level in levels)) for row, places in found]
    return Table(("few-recall, % | at many-recall, %", *(percent(level) for level in levels)), tuple(rows))


def interpolated(places: Sequence[tuple[float, float]], x: float) -> float:
    """The height at x of the line through places of rising first coordinate; x lies within them."""
    right = min(max(bisect_left([first for first, _ in places], x), 1), len(places) - 1)
    (x0, y0), (x1, y1) = places[right - 1], places[right]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
