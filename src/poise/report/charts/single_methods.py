"""Charts of single methods: scores along a parameter, changed classes, classes to label, confidence.

`charts` gives every chart of a report by name, those of the other modules included; the ones whose numbers are missing
are left out.
"""

from collections.abc import Sequence

from poise.report.charts.chart import (
    DASH,
    Axis,
    Chart,
    Intervals,
    Rule,
    Series,
    Table,
    View,
    legible,
    names_axis,
    percent,
    points,
    rounded,
    short,
    signed,
)
from poise.report.charts.classes import class_figures
from poise.report.charts.default_rows import first_choices
from poise.report.charts.gains import gains, tradeoff
from poise.report.charts.styles import SYMBOLS, method_name
from poise.results.contents import GROUPS, Bins, Change, Closer, Contents, Coverage, Path, Point
from poise.values.wording import counted

CHANGED = 12  # classes at each end of the chart of changes
LABELLED = 30
POINTS = 200  # of a curve
WIDE = 50  # values that spread over more than this factor are drawn on a logarithmic axis
DASHES = {"all": "solid", "balanced": "solid", "many": "dot", "medium": "dashdot", "few": "dash"}


def charts(contents: Contents) -> dict[str, Chart]:
    """Every chart that the report can show, by name."""
    found = {
        "gains": gains(contents),
        "tradeoff": tradeoff(contents),
        "changes": changes(contents),
        "reliability": reliability(contents),
        "coverage": coverage(contents),
        "kept": kept(contents),
        "advice": advice(contents),
        "learning": learning(contents),
        "paths": paths(contents),
        **class_figures(contents),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


# Scores along a number.


def paths(contents: Contents) -> Chart | None:
    """Scores along a parameter or over epochs; an upright line at the value taken. Control: `path`, its index."""
    if not contents.paths:
        return None
    found = list(enumerate(contents.paths))
    rows = [
        (legible(path.family), legible(path.parameter), *cells)
        for _, path in found
        for cells in score_rows(path.points)
    ]
    return Chart(
        tuple(series._replace(show={"path": str(i)}) for i, path in found for series in score_lines(path.points)),
        Axis(""),
        Axis("accuracy, %"),
        Table(("method", "parameter", "value", "balanced", *GROUPS), tuple(rows)),
        top=60,
        views={"path": {str(i): path_view(path) for i, path in found}},
    )


def path_view(path: Path) -> View:
    """The axis of a path and the mark of the value taken."""
    values = [point.value for point in path.points]
    log = min(values, default=0) > 0 and max(values) / min(values) > WIDE
    value = path.selected
    known = value is not None and not (log and value <= 0)
    rules = (Rule("upright", value, f"selected: {value:.4g}"),) if known and value is not None else ()
    return View(Axis(short(path.parameter), log=log), rules)


def score_lines(along: Sequence[Point]) -> tuple[Series, ...]:
    """Lines of balanced accuracy and of the recall of each group."""
    names = ("balanced", *GROUPS)
    columns = {name: [getattr(point, name) for point in along] for name in names}
    return tuple(
        Series(
            "both",
            name,
            rounded(point.value for point in along),
            points(columns[name]),
            "ink" if name == "balanced" else name,
            SYMBOLS[name],
            dash=DASHES[name],
            hover="%{y:.1f} % at %{x:.4g}",
        )
        for name in names
        if any(value is not None for value in columns[name])
    )


def score_rows(along: Sequence[Point]) -> tuple[tuple[str, ...], ...]:
    """The same numbers as text."""
    return tuple(
        (f"{p.value:.5g}", percent(p.balanced), percent(p.many), percent(p.medium), percent(p.few)) for p in along
    )


def learning(contents: Contents) -> Chart | None:
    """Scores of a head trained with more labelled rows per class."""
    sizes = contents.learning_curve
    if not sizes:
        return None
    words = "more labelled rows per class"
    table = Table((words, "balanced", *GROUPS), score_rows(sizes))
    return Chart(score_lines(sizes), Axis(words), Axis("accuracy, %"), table, 340)


# Classes that changed, and classes to label.


def changes(contents: Contents) -> Chart | None:
    """Classes that gained or lost most, with their intervals; filled where these exclude that nothing changed."""
    ordered = sorted(contents.changes, key=lambda change: change.difference)
    if not ordered:
        return None
    ends = ordered if len(ordered) <= 2 * CHANGED else ordered[:CHANGED] + ordered[-CHANGED:]
    names = contents.classes.names
    parts = ((True, "beyond what chance explains", ""), (False, "may be chance", "/"))
    series = []
    for sure, name, pattern in parts:
        own = [i for i, change in enumerate(ends) if change.beyond_chance is sure]
        bars = Series(
            "bars",
            name,
            points(ends[i].difference for i in own),
            own,
            "accent" if sure else "muted",
            pattern=pattern,
            intervals=Intervals(
                points(ends[i].high - ends[i].difference for i in own),
                points(ends[i].difference - ends[i].low for i in own),
                "ink",
                1.5,
                3,
            ),
            text=[short(names[ends[i].label], 60) for i in own],
            detail=[change_in_words(contents, ends[i]) for i in own],
            hover="%{text}<br>%{x:+.1f} points<br>%{customdata}<extra></extra>",
        )
        series += [bars] if own else []
    x, y = Axis("change in recall, points", zero="line"), names_axis([names[change.label] for change in ends])
    return Chart(tuple(series), x, y, change_table(contents, ends[::-1]), 130 + 22 * len(ends))


def change_in_words(contents: Contents, change: Change) -> str:
    """Recall before and after, the interval of the difference, and of how many rows they are."""
    return (
        f"{percent(change.before)} to {percent(change.after)} %<br>{signed(change.low)} to {signed(change.high)}, "
        f"{counted(contents.classes.scored[change.label], 'row')}"
    )


def change_table(contents: Contents, listed: Sequence[Change]) -> Table:
    """The same numbers as text."""
    classes = contents.classes
    rows = tuple(
        (
            legible(classes.names[change.label]),
            classes.groups[change.label],
            f"{classes.scored[change.label]:,}",
            percent(change.before),
            percent(change.after),
            signed(change.difference),
            f"{signed(change.low)} to {signed(change.high)}",
            "yes" if change.beyond_chance else "no",
        )
        for change in listed
    )
    head = ("class", "group", "rows", "recall before, %", "after, %", "change, points", "interval", "beyond chance")
    return Table(head, rows)


def error_bars(half_widths: Sequence[float]) -> Intervals:
    """Symmetric horizontal error bars."""
    return Intervals(points(half_widths), None, "ink", 1.5, 3)


def advice(contents: Contents) -> Chart | None:
    """What more labelled rows of a class would give, with standard errors; those chosen are filled."""
    told = contents.advice
    if told is None or not told.label:
        return None
    every = zip(told.label, told.gain, told.error, told.head_gain, strict=True)
    listed = list(every)[:LABELLED][::-1]
    names = contents.classes.names
    series = []
    for chosen, name, symbol in ((True, "advised", "diamond"), (False, "others", "circle-open")):
        own = [(i, *item) for i, item in enumerate(listed) if (item[0] in told.chosen) is chosen]
        dots = Series(
            "points",
            name,
            points(gain for _, _, gain, _, _ in own),
            [i for i, *_ in own],
            "accent" if chosen else "muted",
            symbol,
            size=10,
            intervals=error_bars([error for *_, error, _ in own]),
            text=[short(names[label], 60) for _, label, *_ in own],
            hover="%{text}<br>%{x:+.1f} points of recall<extra></extra>",
        )
        series += [dots] if own else []
    rows = tuple(
        (
            legible(names[label]),
            f"{contents.classes.counts[label]:,}",
            f"{signed(gain)} ± {percent(error)}",
            signed(head_gain),
            "yes" if label in told.chosen else "no",
        )
        for label, gain, error, head_gain in listed[::-1]
    )
    head = ("class", "training rows", "gain, points (± standard error)", "gain by another head, points", "advised")
    x, y = Axis("gain in recall of the class, points", zero="line"), names_axis([names[label] for label, *_ in listed])
    return Chart(tuple(series), x, y, Table(head, rows), 130 + 22 * len(listed))


# Confidence.


def reliability(contents: Contents) -> Chart | None:
    """Share right against confidence by group. Control: `head`, the row of the method."""
    listed = first_choices(contents)
    found = [
        (head.row, group, bins)
        for head in contents.closer
        for group, bins in head.reliability.items()
        if bins is not None
    ]
    if not found:
        return None
    rows = [
        (method_name(contents.rows[row]), group, f"{size:,}", percent(confidence), percent(right))
        for row, group, bins in found
        if row in listed
        for size, confidence, right in zip(bins.rows, bins.confidence, bins.right, strict=True)
        if size
    ]
    return Chart(
        tuple(by_confidence(*each) for each in found),
        Axis("mean confidence, %", range=(-2, 102)),
        Axis("share right, %", range=(-2, 102)),
        Table(("method", "group", "rows", "confidence, %", "right, %"), tuple(rows)),
        420,
        rules=(Rule("diagonal", 100),),
    )


def by_confidence(row: int, group: str, bins: Bins) -> Series:
    """The bins of a group that are not empty."""
    full = [i for i, size in enumerate(bins.rows) if size]
    return Series(
        "both",
        group,
        points(bins.confidence[i] for i in full),
        points(bins.right[i] for i in full),
        "ink" if group == "all" else group,
        SYMBOLS.get(group, "circle"),
        size=8,
        dash=DASHES.get(group, "solid"),
        detail=[bins.rows[i] for i in full],
        hover="confidence %{x:.1f} %, right %{y:.1f} %<br>%{customdata:,} rows",
        show={"head": str(row)},
    )


def thinned(values: Sequence[float]) -> list[int]:
    """Indices of at most 200 evenly spaced values, the first and the last among them."""
    last = len(values) - 1
    return list(range(len(values))) if last < POINTS else [round(i * last / (POINTS - 1)) for i in range(POINTS)]


def coverage(contents: Contents) -> Chart | None:
    """Accuracy and balanced accuracy of the answers against the share answered. Control: `head`."""
    looks = {"accuracy": ("ink", "solid"), "balanced": ("accent", "dash")}
    heads = answering(contents)
    if not heads:
        return None
    rows = [
        (
            method_name(contents.rows[head.row]),
            f"{found.threshold[i]:.3f}",
            percent(found.coverage[i]),
            percent(found.accuracy[i]),
            percent(found.balanced[i]),
        )
        for head, found in heads
        if head.row in first_choices(contents)
        for i in told(found)
    ]
    return Chart(
        tuple(
            along(head.row, found, name, getattr(found, name), *look)
            for head, found in heads
            for name, look in looks.items()
        ),
        Axis("rows answered, %", range=(0, 102)),
        Axis("accuracy of the answers, %"),
        Table(("method", "confidence above", "rows answered, %", "accuracy, %", "balanced accuracy, %"), tuple(rows)),
        340,
    )


def kept(contents: Contents) -> Chart | None:
    """Rows of each group that are still answered, against all that are. Control: `head`."""
    heads = [(head, found) for head, found in answering(contents) if any(found.kept.values())]
    if not heads:
        return None
    rows = [
        (
            method_name(contents.rows[head.row]),
            percent(found.coverage[i]),
            *(percent(own[i]) if (own := found.kept.get(group)) else DASH for group in GROUPS),
        )
        for head, found in heads
        if head.row in first_choices(contents)
        for i in told(found)
    ]
    return Chart(
        tuple(
            along(head.row, found, name, own, name, DASHES.get(name, "solid"))
            for head, found in heads
            for name, own in found.kept.items()
            if own is not None
        ),
        Axis("rows answered, %", range=(0, 102)),
        Axis("answered in the group, %"),
        Table(("method", "all, %", *(f"{group}, %" for group in GROUPS)), tuple(rows)),
        340,
    )


def answering(contents: Contents) -> list[tuple[Closer, Coverage]]:
    """The heads of which it is known what answering less often gives."""
    return [(head, head.coverage) for head in contents.closer if head.coverage is not None]


def told(found: Coverage) -> list[int]:
    """Indices of some twenty points for a table."""
    taken = thinned(found.coverage)
    return taken[:: max(1, len(taken) // 20)]


def along(row: int, found: Coverage, name: str, values: Sequence[float], color: str, dash: str) -> Series:
    """One line over the share of rows answered."""
    taken = thinned(found.coverage)
    return Series(
        "line",
        name,
        points(found.coverage[i] for i in taken),
        points(values[i] for i in taken),
        color,
        dash=dash,
        detail=rounded(found.threshold[i] for i in taken),
        hover="%{y:.1f} % at %{x:.0f} % answered<br>confidence above %{customdata:.3f}",
        show={"head": str(row)},
    )
