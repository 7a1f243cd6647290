"""Charts with a point per class: sizes, recall, Logits Magnitude, Regularized Std, weight norms, gradient ratios.

Classes stand in order of falling training count everywhere. Of very many classes, evenly spaced ones are drawn as
points; lines of means are over all of them.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import geometric_mean
from typing import Any, NamedTuple

from poise.report.charts.chart import (
    DASH,
    Figure,
    Table,
    Trace,
    axis,
    band,
    css,
    legible,
    markers,
    percent,
    plotly_text,
    points,
    ref,
    rounded,
)
from poise.report.charts.styles import SYMBOLS, Style, method_name, styles
from poise.report.text.words import finite_ratio
from poise.results.contents import GROUPS, Contents, PerClass, Row
from poise.values.wording import counted

DRAWN = 1500  # points that a browser draws without delay, for a handful of methods at once
LISTED = 100  # rows at each end of a table of classes
BINS = 8
TICKS = 8
FEW = 12

READINGS = {"unit": "against the rows of other classes", "sample": "against other classes on the same rows"}


class Measure(NamedTuple):
    """A number per class and method: how a chart names it, what it reads from a row."""

    name: str
    title: str
    values: Callable[[Row], dict[str, PerClass]]


MEASURES = (
    Measure("magnitude", "Logits Magnitude", lambda row: row.magnitude),
    Measure("spread", "Regularized Std", lambda row: row.spread),
)


def class_order(contents: Contents) -> list[int]:
    """Classes by falling training count, ties as given."""
    counts = contents.classes.counts
    return sorted(range(len(counts)), key=lambda k: -counts[k])


def drawn_classes(contents: Contents) -> list[int]:
    """The classes with a point of their own: all of them, or evenly spaced ones with the first and the last."""
    order = class_order(contents)
    if len(order) <= DRAWN:
        return order
    return [order[round(i * (len(order) - 1) / (DRAWN - 1))] for i in range(DRAWN)]


def shared(contents: Contents) -> dict[str, list[Any]]:
    """The lists that charts refer to, over the classes drawn: names, counts, ranks, and values of every method."""
    drawn, classes = drawn_classes(contents), contents.classes
    rank = {k: i + 1 for i, k in enumerate(class_order(contents))}
    lists: dict[str, list[Any]] = {
        "name": [plotly_text(classes.names[k], 60) for k in drawn],
        "count": [classes.counts[k] for k in drawn],
        "shown_count": [drawable(classes.counts[k]) for k in drawn],
        "rank": [rank[k] for k in drawn],
    }
    for index, row in enumerate(contents.rows):
        if row.per_class:
            lists[f"recall/{index}"] = points(row.per_class[k] for k in drawn)
        for measure in MEASURES:
            for reading, values in measure.values(row).items():
                lists[f"{measure.name}/{reading}/{index}"] = rounded(values[k] for k in drawn)
    return lists


def drawable(count: int) -> float:
    """A count on a logarithmic axis: classes without rows stand at one half."""
    return max(count, 0.5)


def count_ticks(counts: Sequence[int]) -> dict[str, Any]:
    """1, 2, 5, 10 ... around the counts on a logarithmic axis; powers of ten alone where that would be many."""
    low, high = 0.7 * drawable(min(counts)), 1.4 * drawable(max(counts))
    powers = [10**i for i in range(len(str(max(counts))) + 1)]
    every = [step * power for power in powers for step in (1, 2, 5) if low <= step * power <= high]
    few = [value for value in every if value in powers]
    shown: list[float] = list(few if len(every) > TICKS else every)
    if len(shown) < 2:
        shown = sorted({drawable(min(counts)), drawable(max(counts))})
    return {"tickvals": shown, "ticktext": [f"{value:,g}" for value in shown]}


def class_figures(contents: Contents) -> dict[str, Figure | None]:
    """Every chart of this module by name; None where its numbers are missing."""
    return {
        "frequency": frequency(contents),
        "recall": recall(contents),
        **{measure.name: per_reading(contents, measure) for measure in MEASURES},
        "norms": norms(contents),
        "ratio": ratio(contents),
    }


def frequency(contents: Contents) -> Figure:
    """Training rows of every class on a logarithmic axis, coloured by group."""
    drawn, classes, lists = drawn_classes(contents), contents.classes, shared(contents)
    traces = []
    for group in GROUPS:
        own = [i for i, k in enumerate(drawn) if classes.groups[k] == group]
        size = sum(each == group for each in classes.groups)
        trace = {
            "type": "scatter",
            "mode": "markers",
            "name": f"{group} ({counted(size, 'class', 'classes')})",
            "x": [lists["rank"][i] for i in own],
            "y": [lists["shown_count"][i] for i in own],
            "text": [lists["name"][i] for i in own],
            "customdata": [lists["count"][i] for i in own],
            "marker": markers(group, SYMBOLS[group], size=7),
            "hovertemplate": "%{text}<br>%{customdata:,} training rows<br>rank %{x}<extra>" + group + "</extra>",
        }
        traces += [trace] if own else []
    layout = {
        "xaxis": rank_axis(contents),
        "yaxis": axis("training rows (log)", type="log", **count_ticks(classes.counts)),
        "showlegend": True,
    }
    table = class_table(contents, ("rows", "group"), lambda k: (f"{classes.counts[k]:,}", classes.groups[k]))
    return Figure(tuple(traces), layout, table, 340)


def recall(contents: Contents) -> Figure | None:
    """Recall of every class against its training rows, a colour per method, with means over classes of similar size."""
    rows = [index for index, row in enumerate(contents.rows) if row.per_class]
    if not rows:
        return None
    looks = styles(contents)
    traces = [trace for index in rows for trace in recall_traces(contents, index, looks[index])]
    chosen = [index for index in first_choices(contents) if index in rows]
    table = class_table(
        contents,
        ("rows", *(method_name(contents.rows[i]) for i in chosen)),
        lambda k: (f"{contents.classes.counts[k]:,}", *(percent(contents.rows[i].per_class[k]) for i in chosen)),
    )
    layout = {
        "xaxis": axis("training rows of the class (log)", type="log", **count_ticks(contents.classes.counts)),
        "yaxis": axis("recall, %", range=[-4, 104]),
        "shapes": count_bands(contents),
    }
    return Figure(tuple(traces), layout, table, 440)


def recall_traces(contents: Contents, index: int, look: Style) -> tuple[Trace, Trace]:
    """The points of the classes, and the line of their means."""
    row, show = contents.rows[index], {"method": str(index)}
    name = plotly_text(method_name(row))
    x, y = binned(contents, row.per_class)
    dots = {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "legendgroup": str(index),
        "showlegend": False,
        "x": ref("shown_count"),
        "y": ref(f"recall/{index}"),
        "text": ref("name"),
        "customdata": ref("count"),
        "marker": markers(look.color, look.symbol, size=6, opacity=0.45),
        "hovertemplate": "%{text}<br>recall %{y:.1f} %<br>%{customdata:,} training rows",
        "show": show,
    }
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "legendgroup": str(index),
        "x": rounded(x),
        "y": points(y),
        "line": {"color": css(look.color), "width": 3, "dash": look.dash},
        "marker": markers(look.color, look.symbol, size=9, line={"width": 1.5, "color": css("paper")}),
        "hovertemplate": "mean of classes near %{x:.0f} rows<br>recall %{y:.1f} %",
        "show": show,
    }
    return dots, line


def binned(contents: Contents, values: PerClass) -> tuple[list[float], list[float]]:
    """Geometric mean count and mean value of up to eight groups of classes, equally many in each, by falling count.

    Classes without a value are left out first.
    """
    order = [k for k in class_order(contents) if values[k] is not None]
    edges = [round(i * len(order) / BINS) for i in range(BINS + 1)]
    bins = [order[low:high] for low, high in pairwise(edges) if high > low]
    sizes = [geometric_mean([drawable(contents.classes.counts[k]) for k in members]) for members in bins]
    known = [[value for k in members if (value := values[k]) is not None] for members in bins]
    return sizes, [sum(own) / len(own) for own in known]


def first_choices(contents: Contents) -> list[int]:
    """Rows that are drawn first: the baseline, the one recommended, and the null if it is another."""
    rows = contents.rows
    wanted = [
        *(i for i, row in enumerate(rows) if row.role == "baseline"),
        *(i for i, row in enumerate(rows) if row.recommended),
        *(i for i, row in enumerate(rows) if row.method == contents.verdict.null and row.role == "tuned"),
    ]
    return list(dict.fromkeys(wanted)) or [0]


def per_reading(contents: Contents, measure: Measure) -> Figure | None:
    """A measure of two methods by class rank. Controls: `a` and `b` (the methods), `reading`."""
    have = [(i, reading) for i, row in enumerate(contents.rows) for reading in measure.values(row)]
    if not have:
        return None
    slots = {"a": ("accent", "circle"), "b": ("c1", "diamond-open")}
    if len({i for i, _ in have}) == 1:
        del slots["b"]
    traces = [
        by_rank(
            plotly_text(method_name(contents.rows[index])),
            f"{measure.name}/{reading}/{index}",
            markers(color, symbol, size=6),
            {slot: str(index), "reading": reading},
        )
        for slot, (color, symbol) in slots.items()
        for index, reading in have
    ]
    layout = rank_layout(contents, axis(measure.title, rangemode="tozero"))
    return Figure(tuple(traces), layout, measured_table(contents, measure))


def measured_table(contents: Contents, measure: Measure) -> Table:
    """Values of the methods that are drawn first, in every reading."""
    found = [
        (f"{method_name(contents.rows[i])}, {reading}", values)
        for i in first_choices(contents)
        for reading, values in measure.values(contents.rows[i]).items()
    ]
    return class_table(contents, tuple(n for n, _ in found), lambda k: tuple(number(v[k]) for _, v in found))


def norms(contents: Contents) -> Figure | None:
    """Norms of the weight rows of the heads looked at closer, by class rank."""
    return by_closer(contents, "norm", axis("norm of the weight row", rangemode="tozero"), lambda head: head.norms)


def ratio(contents: Contents) -> Figure | None:
    """GALA's accumulated pull over push of every class, on a logarithmic axis."""

    def ratios(head: Any) -> PerClass:
        return tuple(finite_ratio(pull, push) for pull, push in zip(head.pull, head.push, strict=True))

    figure = by_closer(contents, "pull / push", axis("pull / push (log)", type="log", dtick=1), ratios)
    if figure is None:
        return None
    even = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": dotted()}
    return figure._replace(layout=figure.layout | {"shapes": [*figure.layout["shapes"], even]})


def dotted() -> dict[str, Any]:
    """The line of a reference value."""
    return {"color": css("muted"), "width": 1.5, "dash": "dot"}


def by_closer(contents: Contents, what: str, y: dict[str, Any], values: Callable[[Any], PerClass]) -> Figure | None:
    """A number per class of the heads looked at closer, by rank; None if no head has it."""
    found = [(head.row, values(head)) for head in contents.closer]
    found = [(row, own) for row, own in found if any(value is not None for value in own)]
    if not found:
        return None
    looks, drawn = styles(contents), drawn_classes(contents)
    names = [method_name(contents.rows[row]) for row, _ in found]
    traces = [
        by_rank(
            plotly_text(name),
            rounded(own[k] for k in drawn),
            markers(looks[row].color, looks[row].symbol, size=6),
            {"close": str(row)},
        )
        for name, (row, own) in zip(names, found, strict=True)
    ]
    table = class_table(
        contents, tuple(f"{what}, {name}" for name in names), lambda k: tuple(number(own[k]) for _, own in found)
    )
    return Figure(tuple(traces), rank_layout(contents, y) | {"showlegend": True}, table)


def by_rank(name: str, values: Any, marker: dict[str, Any], show: dict[str, str]) -> Trace:
    """Points of one method over the ranks of the classes; `values` is a list or the name of a shared one."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": ref("rank"),
        "y": ref(values) if isinstance(values, str) else values,
        "text": ref("name"),
        "customdata": ref("count"),
        "marker": marker,
        "hovertemplate": "%{text}<br>%{y:.4g}<br>%{customdata:,} training rows",
        "show": show,
    }


def rank_layout(contents: Contents, y: dict[str, Any]) -> dict[str, Any]:
    """A layout over the ranks of the classes, the groups as bands."""
    classes, bands, start = contents.classes, [], 0.5
    for group in GROUPS:
        end = start + sum(each == group for each in classes.groups)
        bands += [band(group, start, end)] if end > start else []
        start = end
    return {"xaxis": rank_axis(contents), "yaxis": y, "shapes": bands, "showlegend": True}


def rank_axis(contents: Contents) -> dict[str, Any]:
    """Ranks of the classes; a few classes are named."""
    order = class_order(contents)
    if len(order) > FEW:
        return axis("class, most frequent first")
    names = [contents.classes.names[k] for k in order]
    ticks = {
        "tickvals": list(range(1, len(order) + 1)),
        "ticktext": [plotly_text(name, 16) for name in names],
        "narrowtext": [plotly_text(name, 10) for name in names],
        "range": [0.5, len(order) + 0.5],
        "autotickangles": [0, -35, -90],  # ends at its tick, so that the last one is not cut off
    }
    return axis("class, most frequent first", **ticks)


def count_bands(contents: Contents) -> list[dict[str, Any]]:
    """The groups as bands over training counts; they meet between two whole numbers."""
    (many, few), counts = contents.classes.edges, contents.classes.counts
    low, high = 0.7 * drawable(min(counts)), 1.4 * max(*counts, 1)
    edges = (low, max(low, few - 0.5), many + 0.5, max(high, many + 0.5))
    pairs = zip(reversed(GROUPS), pairwise(edges), strict=True)
    return [band(group, max(start, low), min(end, high)) for group, (start, end) in pairs if end > low and start < high]


def number(value: float | None) -> str:
    """Four significant digits."""
    return DASH if value is None else f"{value:.4g}"


def class_table(contents: Contents, head: Sequence[str], cells: Callable[[int], tuple[str, ...]]) -> Table:
    """A row per class; of very many, those at both ends."""
    order = class_order(contents)
    left_out = len(order) - 2 * LISTED
    listed = order if left_out <= 0 else order[:LISTED] + order[-LISTED:]
    note = f"The {LISTED} most and the {LISTED} least frequent of {len(order):,} classes; report.json has all of them."
    rows = tuple((legible(contents.classes.names[k]), *cells(k)) for k in listed)
    return Table(("class", *head), rows, note if left_out > 0 else "")
