"""Charts with a point per class: sizes, recall, Logits Magnitude, Regularized Std, weight norms, gradient ratios.

Classes stand in order of falling training count everywhere. Of very many classes, evenly spaced ones are drawn as
points; lines of means are over all of them.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby, pairwise
from statistics import fmean, geometric_mean
from typing import Any, NamedTuple

from poise.report.charts.chart import (
    DASH,
    Axis,
    Band,
    Chart,
    Numbers,
    Ref,
    Rule,
    Series,
    Table,
    Ticks,
    legible,
    percent,
    points,
    rounded,
    short,
)
from poise.report.charts.default_rows import first_choices
from poise.report.charts.styles import SYMBOLS, Style, method_name, styles
from poise.report.text.words import finite_ratio
from poise.results.contents import GROUPS, Closer, Contents, PerClass, Row
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
        "name": [short(classes.names[k], 60) for k in drawn],
        "count": [classes.counts[k] for k in drawn],
        "shown_count": [classes.counts[k] or None for k in drawn],
        "rank": [rank[k] for k in drawn],
    }
    for index, row in enumerate(contents.rows):
        if row.per_class:
            lists[f"recall/{index}"] = points(row.per_class[k] for k in drawn)
        for measure in MEASURES:
            for reading, values in measure.values(row).items():
                lists[f"{measure.name}/{reading}/{index}"] = rounded(values[k] for k in drawn)
    return lists


def count_axis(title: str, counts: Sequence[int]) -> Axis:
    """A logarithmic axis: 1, 2, 5, 10 ... around the counts; powers of ten alone where that would be many."""
    least, most = sizes_there(counts)
    low, high = 0.7 * least, 1.4 * most
    powers = [10**i for i in range(len(str(max(counts))) + 1)]
    every = [step * power for power in powers for step in (1, 2, 5) if low <= step * power <= high]
    few = [value for value in every if value in powers]
    shown: list[float] = list(few if len(every) > TICKS else every)
    if len(shown) < 2:
        shown = sorted({least, most})
    return Axis(title, log=True, ticks=Ticks(shown, [f"{value:,g}" for value in shown]))


def sizes_there(counts: Sequence[int]) -> tuple[int, int]:
    """The least and the most rows of a class that has any: a logarithmic axis has no place for those without."""
    there = [count for count in counts if count] or [1]
    return min(there), max(there)


def class_figures(contents: Contents) -> dict[str, Chart | None]:
    """Every chart of this module by name; None where its numbers are missing."""
    return {
        "frequency": frequency(contents),
        "recall": recall(contents),
        **{measure.name: per_reading(contents, measure) for measure in MEASURES},
        "norms": norms(contents),
        "ratio": ratio(contents),
    }


def frequency(contents: Contents) -> Chart:
    """Training rows of every class on a logarithmic axis, coloured by group."""
    drawn, classes, lists = drawn_classes(contents), contents.classes, shared(contents)
    series = []
    for group in GROUPS:
        own = [i for i, k in enumerate(drawn) if classes.groups[k] == group and classes.counts[k]]
        size = sum(each == group for each in classes.groups)
        x, y, text, detail = ([lists[name][i] for i in own] for name in ("rank", "shown_count", "name", "count"))
        found = Series(
            "points",
            f"{group} ({counted(size, 'class', 'classes')})",
            x,
            y,
            group,
            SYMBOLS[group],
            size=7,
            text=text,
            detail=detail,
            hover="%{text}<br>%{customdata:,} training rows<br>rank %{x}<extra>" + group + "</extra>",
        )
        series += [found] if own else []
    table = class_table(contents, ("rows", "group"), lambda k: (f"{classes.counts[k]:,}", classes.groups[k]))
    return Chart(tuple(series), rank_axis(contents), count_axis("training rows (log)", classes.counts), table, 340)


def recall(contents: Contents) -> Chart | None:
    """Recall of every class against its training rows, a colour per method, with means over classes of similar size."""
    rows = [index for index, row in enumerate(contents.rows) if row.per_class]
    if not rows:
        return None
    looks, counts = styles(contents), contents.classes.counts
    chosen = [index for index in first_choices(contents) if index in rows]
    table = class_table(
        contents,
        ("rows", *(method_name(contents.rows[i]) for i in chosen)),
        lambda k: (f"{counts[k]:,}", *(percent(contents.rows[i].per_class[k]) for i in chosen)),
    )
    return Chart(
        tuple(series for index in rows for series in recalls(contents, index, looks[index])),
        count_axis("training rows of the class (log)", counts),
        Axis("recall, %", range=(-4, 104)),
        table,
        440,
        bands=count_bands(contents),
        legend=False,
    )


def recalls(contents: Contents, index: int, look: Style) -> tuple[Series, Series]:
    """The points of the classes, and the line of their means."""
    row, show = contents.rows[index], {"method": str(index)}
    dots = Series(
        "points",
        short(method_name(row)),
        Ref("shown_count"),
        Ref(f"recall/{index}"),
        look.color,
        look.symbol,
        opacity=0.45,
        text=Ref("name"),
        detail=Ref("count"),
        hover="%{text}<br>recall %{y:.1f} %<br>%{customdata:,} training rows",
        legend=False,
        group=str(index),
        show=show,
    )
    x, y = binned(zip(contents.classes.counts, row.per_class, strict=True))
    hover = "mean of classes near %{x:.0f} rows<br>recall %{y:.1f} %"
    return dots, mean_line(dots, look.dash, rounded(x), points(y))._replace(hover=hover)


def mean_line(dots: Series, dash: str, x: Numbers, y: Numbers) -> Series:
    """A line of means through points, in their look."""
    bare = dots._replace(text=(), detail=(), hover="", legend=True, opacity=None)
    return bare._replace(kind="both", x=x, y=y, dash=dash, width=3, size=9, outline=(1.5, "paper"))


def binned(
    pairs: Iterable[tuple[float | None, float | None]], mean: Callable[[Sequence[float]], float] = fmean
) -> tuple[list[float], list[float]]:
    """Geometric mean size and mean value of up to eight parts of classes, about equally many in each, by falling size.

    Pairs are the size of a class and its value; classes without a value or without rows are left out first. Those of
    one size stay together.
    """
    known = sorted(((size, value) for size, value in pairs if value is not None and size), key=lambda pair: -pair[0])
    edges = [round(i * len(known) / BINS) for i in range(BINS + 1)]
    parts: list[list[tuple[float, float]]] = []
    done = edge = 0
    for _, same in groupby(known, key=lambda pair: pair[0]):
        if done >= edge:
            parts.append([])
            edge = next((each for each in edges if each > done), len(known))
        parts[-1] += same
        done = sum(map(len, parts))
    return [geometric_mean([s for s, _ in part]) for part in parts], [mean([v for _, v in part]) for part in parts]


def per_reading(contents: Contents, measure: Measure) -> Chart | None:
    """A measure of two methods by class rank. Controls: `a` and `b` (the methods), `reading`."""
    have = [(i, reading) for i, row in enumerate(contents.rows) for reading in measure.values(row)]
    if not have:
        return None
    slots = {"a": ("accent", "circle", "solid"), "b": ("c1", "diamond-open", "dash")}
    if len({i for i, _ in have}) == 1:
        del slots["b"]
    series = [
        by_rank(
            short(method_name(contents.rows[index])),
            Ref(f"{measure.name}/{reading}/{index}"),
            Style(*look),
            {slot: str(index), "reading": reading},
        )
        for slot, look in slots.items()
        for index, reading in have
    ]
    return rank_chart(contents, series, Axis(measure.title, zero="start"), measured_table(contents, measure))


def measured_table(contents: Contents, measure: Measure) -> Table:
    """Values of the methods that are drawn first, in every reading."""
    found = [
        (f"{method_name(contents.rows[i])}, {reading}", values)
        for i in first_choices(contents)
        for reading, values in measure.values(contents.rows[i]).items()
    ]
    return class_table(contents, tuple(n for n, _ in found), lambda k: tuple(number(v[k]) for _, v in found))


def norms(contents: Contents) -> Chart | None:
    """Norms of the weight rows of the heads looked at closer, by class rank."""
    return by_closer(contents, "norm", Axis("norm of the weight row", zero="start"), lambda head: head.norms)


def ratio(contents: Contents) -> Chart | None:
    """GALA's accumulated pull over push of every class, on a logarithmic axis."""

    def ratios(head: Closer) -> PerClass:
        return tuple(finite_ratio(pull, push) for pull, push in zip(head.pull, head.push, strict=True))

    chart = by_closer(contents, "pull / push", Axis("pull / push (log)", log=True, powers=True), ratios)
    return None if chart is None else chart._replace(rules=(Rule("level", 1),))


def by_closer(contents: Contents, what: str, y: Axis, values: Callable[[Closer], PerClass]) -> Chart | None:
    """A number per class of the heads looked at closer, by rank; None if no head has it."""
    found = [(head.row, values(head)) for head in contents.closer]
    found = [(row, own) for row, own in found if any(value is not None for value in own)]
    if not found:
        return None
    looks, drawn = styles(contents), drawn_classes(contents)
    names = [method_name(contents.rows[row]) for row, _ in found]
    series = [
        by_rank(short(name), rounded(own[k] for k in drawn), looks[row], {"close": str(row)})
        for name, (row, own) in zip(names, found, strict=True)
    ]
    table = class_table(
        contents, tuple(f"{what}, {name}" for name in names), lambda k: tuple(number(own[k]) for _, own in found)
    )
    return rank_chart(contents, series, y, table)


def by_rank(name: str, values: Numbers, look: Style, show: dict[str, str]) -> Series:
    """Points of one method over the ranks of the classes."""
    return Series(
        "points",
        name,
        Ref("rank"),
        values,
        look.color,
        look.symbol,
        dash=look.dash,
        text=Ref("name"),
        detail=Ref("count"),
        hover="%{text}<br>%{y:.4g}<br>%{customdata:,} training rows",
        show=show,
    )


def rank_chart(contents: Contents, series: Sequence[Series], y: Axis, table: Table) -> Chart:
    """Series over the ranks of the classes, the groups as bands."""
    bands, start = [], 0.5
    for group in GROUPS:
        end = start + sum(each == group for each in contents.classes.groups)
        bands += [Band(group, start, end)] if end > start else []
        start = end
    return Chart(tuple(series), rank_axis(contents), y, table, bands=tuple(bands))


def over_sizes(contents: Contents, chart: Chart) -> Chart:
    """A chart by rank as one over training counts, with lines of means; the same values twice are one curve."""
    lists, mean = shared(contents), geometric_mean if chart.y.log else fmean
    found: dict[tuple[float | None, ...], Series] = {}
    for series in chart.series:
        values = tuple(lists[series.y.name] if isinstance(series.y, Ref) else series.y)
        twin = found.get(values)
        found[values] = series if twin is None else twin._replace(name=short(f"{twin.name}, {series.name}", 60))
    both = []
    for values, series in found.items():
        dots = series._replace(x=Ref("shown_count"), opacity=0.45, legend=False)
        line = mean_line(dots, series.dash, *binned(zip(lists["shown_count"], values, strict=True), mean))
        both += [dots, line]
    x = count_axis("training rows of the class (log)", contents.classes.counts)
    return chart._replace(series=tuple(both), x=x, bands=count_bands(contents))


def rank_axis(contents: Contents) -> Axis:
    """Ranks of the classes, with their names; of more than twelve, evenly spaced ones are named."""
    order, title = class_order(contents), "class, most frequent first"
    named = range(0, len(order), -(-len(order) // FEW))
    names = [contents.classes.names[order[i]] for i in named]
    return Axis(title, range=(0.5, len(order) + 0.5), ticks=Ticks([i + 1 for i in named], names, (16, 10)))


def count_bands(contents: Contents) -> tuple[Band, ...]:
    """The groups as bands over training counts; they meet between two whole numbers."""
    (many, few), counts = contents.classes.edges, contents.classes.counts
    least, most = sizes_there(counts)
    low, high = 0.7 * least, 1.4 * most
    edges = (low, max(low, few - 0.5), many + 0.5, max(high, many + 0.5))
    pairs = zip(reversed(GROUPS), pairwise(edges), strict=True)
    shown = [(group, start, end) for group, (start, end) in pairs if end > low and start < high]
    return tuple(Band(group, max(start, low), min(end, high)) for group, start, end in shown)


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
