"""Charts of all methods at once: gains over the baseline, and recall of the few against recall of the many."""

from bisect import bisect_left
from collections.abc import Sequence

from poise.report.charts.chart import (
    DASH,
    Axis,
    Chart,
    Intervals,
    Rule,
    Series,
    Table,
    names_axis,
    percent,
    points,
    short,
    signed,
)
from poise.report.charts.styles import best_word, method_name, styles
from poise.report.text.words import pareto
from poise.results.contents import Closer, Contents, Gain, Row

LEVELS = 5  # many-recalls at which few-recalls are compared


def gains(contents: Contents) -> Chart | None:
    """Gains over the baseline with both intervals, smallest at the bottom, and the way to the oracle."""
    found = [(row, possible(row.gain)) for row in contents.rows if row.gain is not None]
    rows = sorted(found, key=lambda pair: pair[1].estimate)
    if not rows:
        return None
    placed = [(place, row, gain) for place, (row, gain) in enumerate(rows)]
    parts = (
        ("cannot be told from the best", "c1", "circle", [p for p in placed if p[1].tied and not p[1].recommended]),
        ("behind the best", "muted", "circle-open", [p for p in placed if not p[1].tied and not p[1].recommended]),
        (best_word(contents), "accent", "diamond", [p for p in placed if p[1].recommended]),
    )
    return Chart(
        (wide_intervals([gain for _, gain in rows]), *(gain_points(*part) for part in parts if part[-1])),
        Axis("gain in balanced accuracy, points", zero="line"),
        names_axis([row.own for row, _ in rows], 36),
        gain_table(contents, rows[::-1]),
        150 + 24 * len(rows),
        rules=gap_lines(contents),
        top=70,
    )


def possible(gain: Gain) -> Gain:
    """The gain with its bounds cut where no gain can be: beyond 100 points either way."""
    names = ("low", "high", "classes_low", "classes_high")
    bounds = {name: bound for name in names if (bound := getattr(gain, name)) is not None}
    return gain.model_copy(update={name: min(max(bound, -1.0), 1.0) for name, bound in bounds.items()})


def narrower(contents: Contents) -> str:
    """Which of the two intervals is the wider one, where it is not the one over classes everywhere; else empty."""
    gains = [gain for row in contents.rows if (gain := row.gain) is not None and gain.half_width is not None]
    found = sum(gain.classes_high - gain.classes_low < gain.high - gain.low for gain in gains)  # type: ignore[operator]
    return f"For {found} of {len(gains)} methods the interval over classes is the narrower one." if found else ""


def wide_intervals(known: Sequence[Gain]) -> Series:
    """The intervals over classes, as thin lines behind."""
    above = points(max(gain.classes_high - gain.estimate, 0.0) for gain in known)
    below = points(max(gain.estimate - gain.classes_low, 0.0) for gain in known)
    return Series(
        "points",
        "interval over classes of this kind",
        points(gain.estimate for gain in known),
        range(len(known)),
        "muted",
        "line-ns",
        size=1,
        intervals=Intervals(above, below, "muted", 1, 3),
        legend=False,
    )


def gain_points(name: str, color: str, symbol: str, chosen: Sequence[tuple[int, Row, Gain]]) -> Series:
    """Estimates of some rows at their places, with their intervals over images."""
    known = [gain for _, _, gain in chosen]
    above = points((gain.high or gain.estimate) - gain.estimate for gain in known)
    below = points(gain.estimate - (gain.low if gain.low is not None else gain.estimate) for gain in known)
    return Series(
        "points",
        name,
        points(gain.estimate for gain in known),
        [place for place, _, _ in chosen],
        color,
        symbol,
        size=10,
        outline=(2, color),
        intervals=Intervals(above, below, color, 3),
        text=[short(row.method, 90) for _, row, _ in chosen],
        detail=[interval_text(gain) for gain in known],
        hover="%{text}<br>%{x:+.1f} points<br>%{customdata}<extra></extra>",
    )


def interval_text(gain: Gain) -> str:
    """Both intervals of a gain in words."""
    classes = f"{signed(gain.classes_low)} to {signed(gain.classes_high)} over classes"
    if gain.low is None or gain.high is None:
        return classes
    return f"{signed(gain.low)} to {signed(gain.high)} over images<br>{classes}"


def gap_lines(contents: Contents) -> tuple[Rule, ...]:
    """Upright lines where half and all of the gap to the oracle are closed."""
    gap = gap_to_oracle(contents)
    if gap is None:
        return ()
    # Half the way has no text of its own: where intervals are wide, the two would be printed over each other.
    return Rule("upright", 50 * gap), Rule("upright", 100 * gap, "oracle")


def gap_to_oracle(contents: Contents) -> float | None:
    """Balanced accuracy of the oracle above the baseline's; None without an oracle that is above every method."""
    balanced = [(row, score) for row in contents.rows if (score := row.estimate("balanced")) is not None]
    start = [score for row, score in balanced if row.role == "baseline"]
    if contents.verdict.oracle is None or not start or contents.verdict.oracle <= max(s for _, s in balanced):
        return None
    return contents.verdict.oracle - start[0]


def gain_table(contents: Contents, rows: Sequence[tuple[Row, Gain]]) -> Table:
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
        for row, gain in rows
    ]
    head = ("method", "gain, points", "over images", "over classes", *(() if gap is None else ("gap closed",)))
    return Table(head, tuple(lines))


# Many against few.


def tradeoff(contents: Contents) -> Chart | None:
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
    curves = [place for head in contents.closer for place in curve(head)]
    series = [
        *([front([(many, few) for row, many, few in placed if row.role != "recipe"])] if placed[1:] else []),
        *(shifted(contents, head) for head in contents.closer if curve(head)),
        *(places(*part) for part in parts if part[-1]),
    ]
    return Chart(
        tuple(series),
        Axis("recall of the many, %", range=around([m for _, m, _ in placed] + [m for m, _ in curves])),
        Axis("recall of the few, %", range=around([f for _, _, f in placed] + [f for _, f in curves])),
        Table(
            ("method", "many, %", "few, %"),
            tuple((method_name(row), percent(many), percent(few)) for row, many, few in placed),
        ),
        480,
    )


def around(shares: Sequence[float]) -> tuple[float | None, float | None]:
    """An axis range in per cent with some room at both ends, within 0 to 100."""
    room = 0.08 * (max(shares) - min(shares)) + 0.02
    low, high = points((max(min(shares) - room, 0.0), min(max(shares) + room, 1.0)))
    return low, high


def places(name: str, color: str, symbol: str, placed: Sequence[tuple[Row, float, float]]) -> Series:
    """One point per method."""
    return Series(
        "points",
        name,
        points(many for _, many, _ in placed),
        points(few for _, _, few in placed),
        color,
        symbol,
        size=14 if color == "accent" else 9,
        outline=(1.5, color),
        text=[short(method_name(row), 90) for row, _, _ in placed],
        hover="%{text}<br>many %{x:.1f} %, few %{y:.1f} %<extra></extra>",
        clipped=False,
    )


def front(found: Sequence[tuple[float, float]]) -> Series:
    """The Pareto front as a line."""
    best = pareto(found)
    x, y = points(many for many, _ in best), points(few for _, few in best)
    return Series("line", "Pareto front", x, y, "muted", width=10, opacity=0.25)


def curve(head: Closer) -> list[tuple[float, float]]:
    """(many, few) along the trade-off of a head, by rising shift."""
    ordered = sorted(head.tradeoff, key=lambda point: point.value)
    return [(p.many, p.few) for p in ordered if p.many is not None and p.few is not None]


def shifted(contents: Contents, head: Closer) -> Series:
    """The trade-off of one head as a line."""
    look, along = styles(contents)[head.row], curve(head)
    return Series(
        "line",
        short(method_name(contents.rows[head.row]), 36) + ", shifted",
        points(many for many, _ in along),
        points(few for _, few in along),
        look.color,
        dash=look.dash,
        width=2,
        hover="many %{x:.1f} %, few %{y:.1f} %",
    )


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
