"""Charts of single methods: scores along a parameter, changed classes, classes to label, confidence.

`charts` gives every chart of a report by name, those of the other modules included; the ones whose numbers are missing
are left out.
"""

import math
from collections.abc import Sequence
from typing import Any

from poise.report.charts.chart import (
    DASH,
    Figure,
    Table,
    Trace,
    axis,
    css,
    legible,
    markers,
    name_ticks,
    percent,
    plotly_text,
    points,
    rounded,
    signed,
)
from poise.report.charts.classes import class_figures, dotted, first_choices
from poise.report.charts.gains import gains, tradeoff
from poise.report.charts.styles import SYMBOLS, method_name
from poise.results.contents import GROUPS, Closer, Contents, Path, Point

CHANGED = 12  # classes at each end of the chart of changes
LABELLED = 30
POINTS = 200  # of a curve
WIDE = 50  # values that spread over more than this factor are drawn on a logarithmic axis
SURE = 1.96  # standard errors on each side of a difference
DASHES = {"all": "solid", "balanced": "solid", "many": "dot", "medium": "dashdot", "few": "dash"}


def charts(contents: Contents) -> dict[str, Figure]:
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


def paths(contents: Contents) -> Figure | None:
    """Scores along a parameter or over epochs; an upright line at the value taken. Control: `path`, its index."""
    if not contents.paths:
        return None
    traces, layouts, rows = [], {}, []
    for index, path in enumerate(contents.paths):
        traces += [trace | {"show": {"path": str(index)}} for trace in score_lines(path.points)]
        layouts[str(index)] = path_layout(path)
        rows += [(legible(path.family), legible(path.parameter), *cells) for cells in score_rows(path.points)]
    layout = {"yaxis": axis("accuracy, %"), "showlegend": True, "margin": {"t": 60}}
    table = Table(("method", "parameter", "value", "balanced", *GROUPS), tuple(rows))
    return Figure(tuple(traces), layout, table, 380, {"path": layouts})


def path_layout(path: Path) -> dict[str, Any]:
    """The axis of a path and the mark of the value taken. Shapes on a log axis have plain numbers, texts logarithms."""
    values = [point.value for point in path.points]
    log = min(values, default=0) > 0 and max(values) / min(values) > WIDE
    layout = {
        "xaxis": axis(plotly_text(path.parameter), type="log" if log else "linear"),
        "shapes": [],
        "annotations": [],
    }
    value = path.selected
    if value is None or (log and value <= 0):
        return layout
    line = {"type": "line", "x0": value, "x1": value, "yref": "paper", "y0": 0, "y1": 1, "line": dotted()}
    place = {"x": math.log10(value) if log else value, "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False}
    return layout | {"shapes": [line], "annotations": [place | {"text": f"selected: {value:.4g}"}]}


def score_lines(along: Sequence[Point]) -> tuple[Trace, ...]:
    """Lines of balanced accuracy and of the recall of each group."""
    names = ("balanced", *GROUPS)
    columns = {name: [getattr(point, name) for point in along] for name in names}
    return tuple(
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": rounded(point.value for point in along),
            "y": points(columns[name]),
            "line": {"color": css("ink" if name == "balanced" else name), "width": 2.5, "dash": DASHES[name]},
            "marker": markers("ink" if name == "balanced" else name, SYMBOLS[name], size=6),
            "hovertemplate": "%{y:.1f} % at %{x:.4g}",
        }
        for name in names
        if any(value is not None for value in columns[name])
    )


def score_rows(along: Sequence[Point]) -> tuple[tuple[str, ...], ...]:
    """The same numbers as text."""
    return tuple(
        (f"{p.value:.5g}", percent(p.balanced), percent(p.many), percent(p.medium), percent(p.few)) for p in along
    )


def learning(contents: Contents) -> Figure | None:
    """Scores of a head trained with more labelled rows per class."""
    sizes = contents.learning_curve
    if not sizes:
        return None
    words = "more labelled rows per class"
    layout = {"xaxis": axis(words), "yaxis": axis("accuracy, %"), "showlegend": True}
    return Figure(score_lines(sizes), layout, Table((words, "balanced", *GROUPS), score_rows(sizes)), 340)


# Classes that changed, and classes to label.


def changes(contents: Contents) -> Figure | None:
    """Classes that gained or lost most, with 1.96 standard errors; filled where the change exceeds them."""
    ordered = sorted(contents.changes, key=lambda change: change.after - change.before)
    if not ordered:
        return None
    ends = ordered if len(ordered) <= 2 * CHANGED else ordered[:CHANGED] + ordered[-CHANGED:]
    names, groups = contents.classes.names, contents.classes.groups
    differences = [change.after - change.before for change in ends]
    beyond = [abs(d) > SURE * change.error for d, change in zip(differences, ends, strict=True)]
    parts = ((True, "beyond what chance explains", ""), (False, "may be chance", "/"))
    traces = []
    for sure, name, pattern in parts:
        own = [i for i in range(len(ends)) if beyond[i] is sure]
        trace = {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "x": points(differences[i] for i in own),
            "y": own,
            "text": [plotly_text(names[ends[i].label], 60) for i in own],
            "textposition": "none",
            "customdata": [f"{percent(ends[i].before)} % before, {percent(ends[i].after)} % after" for i in own],
            "error_x": error_bars([SURE * ends[i].error for i in own]),
            "marker": {
                "color": css("accent" if sure else "muted"),
                "pattern": {"shape": pattern, "fillmode": "replace", "size": 6},
            },
            "hovertemplate": "%{text}<br>%{x:+.1f} points<br>%{customdata}<extra></extra>",
        }
        traces += [trace] if own else []
    layout = {
        "xaxis": axis("change in recall, points", zeroline=True),
        "yaxis": name_ticks([names[change.label] for change in ends]),
        "bargap": 0.35,
        "showlegend": True,
    }
    rows = tuple(
        (
            legible(names[change.label]),
            groups[change.label],
            percent(change.before),
            percent(change.after),
            f"{signed(change.after - change.before)} ± {percent(SURE * change.error)}",
            "yes" if sure else "no",
        )
        for change, sure in zip(ends[::-1], beyond[::-1], strict=True)
    )
    head = ("class", "group", "recall before, %", "after, %", "change, points", "beyond chance")
    return Figure(tuple(traces), layout, Table(head, rows), 130 + 22 * len(ends))


def error_bars(half_widths: Sequence[float]) -> dict[str, Any]:
    """Symmetric horizontal error bars."""
    return {"type": "data", "array": points(half_widths), "thickness": 1.5, "width": 3, "color": css("ink")}


def advice(contents: Contents) -> Figure | None:
    """What more labelled rows of a class would give, with standard errors; those chosen are filled."""
    told = contents.advice
    if told is None or not told.label:
        return None
    every = zip(told.label, told.gain, told.error, told.head_gain, strict=True)
    listed = list(every)[:LABELLED][::-1]
    names = contents.classes.names
    traces = []
    for chosen, name, symbol in ((True, "advised", "diamond"), (False, "others", "circle-open")):
        own = [(i, *item) for i, item in enumerate(listed) if (item[0] in told.chosen) is chosen]
        trace = {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": points(gain for _, _, gain, _, _ in own),
            "y": [i for i, *_ in own],
            "text": [plotly_text(names[label], 60) for _, label, *_ in own],
            "error_x": error_bars([error for *_, error, _ in own]),
            "marker": markers("accent" if chosen else "muted", symbol, size=10),
            "hovertemplate": "%{text}<br>%{x:+.1f} points of recall<extra></extra>",
        }
        traces += [trace] if own else []
    layout = {
        "xaxis": axis("gain in recall of the class, points", zeroline=True),
        "yaxis": name_ticks([names[label] for label, *_ in listed]),
        "showlegend": True,
    }
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
    return Figure(tuple(traces), layout, Table(head, rows), 130 + 22 * len(listed))


# Confidence.


def reliability(contents: Contents) -> Figure | None:
    """Share right against confidence by group. Control: `head`, the row of the method."""
    traces, rows, listed = [], [], first_choices(contents)
    for head in contents.closer:
        for group, bins in head.reliability.items():
            if bins is None:
                continue
            full = [i for i, size in enumerate(bins.rows) if size]
            color = "ink" if group == "all" else group
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": group,
                    "x": points(bins.confidence[i] for i in full),
                    "y": points(bins.right[i] for i in full),
                    "customdata": [bins.rows[i] for i in full],
                    "line": {"color": css(color), "width": 2.5, "dash": DASHES.get(group, "solid")},
                    "marker": markers(color, SYMBOLS.get(group, "circle"), size=8),
                    "hovertemplate": "confidence %{x:.1f} %, right %{y:.1f} %<br>%{customdata:,} rows",
                    "show": {"head": str(head.row)},
                }
            )
            method = method_name(contents.rows[head.row])
            rows += (
                []
                if head.row not in listed
                else [
                    (method, group, f"{bins.rows[i]:,}", percent(bins.confidence[i]), percent(bins.right[i]))
                    for i in full
                ]
            )
    if not traces:
        return None
    diagonal = {"type": "line", "x0": 0, "x1": 100, "y0": 0, "y1": 100, "line": dotted()}
    layout = {
        "xaxis": axis("mean confidence, %", range=[-2, 102]),
        "yaxis": axis("share right, %", range=[-2, 102]),
        "shapes": [diagonal],
        "showlegend": True,
    }
    return Figure(
        tuple(traces), layout, Table(("method", "group", "rows", "confidence, %", "right, %"), tuple(rows)), 420
    )


def thinned(values: Sequence[float]) -> list[int]:
    """Indices of at most 200 evenly spaced values, the first and the last among them."""
    last = len(values) - 1
    return list(range(len(values))) if last < POINTS else [round(i * last / (POINTS - 1)) for i in range(POINTS)]


def coverage(contents: Contents) -> Figure | None:
    """Accuracy and balanced accuracy of the answers against the share answered. Control: `head`."""
    lines = {"accuracy": ("ink", "solid"), "balanced": ("accent", "dash")}
    traces, rows, listed = [], [], first_choices(contents)
    for head in contents.closer:
        if (found := head.coverage) is None:
            continue
        taken = thinned(found.coverage)
        method = method_name(contents.rows[head.row])
        for name, (color, dash) in lines.items():
            values = getattr(found, name)
            traces.append(coverage_trace(head, name, [values[i] for i in taken], color, dash))
        rows += (
            []
            if head.row not in listed
            else [
                (
                    method,
                    f"{found.threshold[i]:.3f}",
                    percent(found.coverage[i]),
                    percent(found.accuracy[i]),
                    percent(found.balanced[i]),
                )
                for i in taken[:: max(1, len(taken) // 20)]
            ]
        )
    if not traces:
        return None
    layout = {
        "xaxis": axis("rows answered, %", range=[0, 102]),
        "yaxis": axis("accuracy of the answers, %"),
        "showlegend": True,
    }
    head_row = ("method", "confidence above", "rows answered, %", "accuracy, %", "balanced accuracy, %")
    return Figure(tuple(traces), layout, Table(head_row, tuple(rows)), 340)


def kept(contents: Contents) -> Figure | None:
    """Rows of each group that are still answered, against all that are. Control: `head`."""
    traces, rows, listed = [], [], first_choices(contents)
    for head in contents.closer:
        found = head.coverage
        groups = {} if found is None else {name: own for name, own in found.kept.items() if own is not None}
        for name, own in groups.items():
            taken = thinned(own)
            traces.append(coverage_trace(head, name, [own[i] for i in taken], name, DASHES.get(name, "solid")))
        if found is not None and groups and head.row in listed:
            method = method_name(contents.rows[head.row])
            for i in thinned(found.coverage)[:: max(1, min(len(found.coverage), POINTS) // 20)]:
                cells = [percent(found.kept[g][i]) if found.kept.get(g) else DASH for g in GROUPS]  # type: ignore[index]
                rows.append((method, percent(found.coverage[i]), *cells))
    if not traces:
        return None
    layout = {
        "xaxis": axis("rows answered, %", range=[0, 102]),
        "yaxis": axis("answered in the group, %"),
        "showlegend": True,
    }
    return Figure(tuple(traces), layout, Table(("method", "all, %", *(f"{g}, %" for g in GROUPS)), tuple(rows)), 340)


def coverage_trace(head: Closer, name: str, values: Sequence[float], color: str, dash: str) -> Trace:
    """One line over the share of rows answered."""
    assert head.coverage is not None
    taken = thinned(head.coverage.coverage)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": points(head.coverage.coverage[i] for i in taken),
        "y": points(values),
        "customdata": rounded(head.coverage.threshold[i] for i in taken),
        "line": {"color": css(color), "width": 2.5, "dash": dash},
        "hovertemplate": "%{y:.1f} % at %{x:.0f} % answered<br>confidence above %{customdata:.3f}",
        "show": {"head": str(head.row)},
    }
