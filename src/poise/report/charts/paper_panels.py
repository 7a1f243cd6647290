"""What the figures of papers show of the charts of a page: which series, beside each other instead of by choice."""

from collections import Counter
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import NamedTuple

from poise.report.charts.chart import Chart, short
from poise.report.charts.classes import MEASURES, frequency, norms, over_sizes, per_reading, ratio, recall
from poise.report.charts.default_rows import ends, pair
from poise.report.charts.gains import gains, tradeoff
from poise.report.charts.single_methods import changes, coverage, kept, paths, reliability
from poise.report.charts.styles import method_name, styles
from poise.results.contents import Contents

PATHS = 8  # panels: the numbers that were tried most often
READING = "unit"  # of the Logits Magnitude


class Panel(NamedTuple):
    """A part of a figure. Those with a title stand two abreast, others below each other."""

    chart: Chart
    title: str = ""


def chosen(chart: Chart | None, **choices: Sequence[str]) -> Chart | None:
    """What a chart shows while these values of its controls are chosen; None if that is nothing."""
    if chart is None:
        return None
    series = [
        each
        for each in chart.series
        if all(each.show.get(control, values[0]) in values for control, values in choices.items() if values)
    ]
    views = [
        view
        for control, values in choices.items()
        for value, view in chart.views.get(control, {}).items()
        if value in values
    ]
    for view in views:
        chart = chart._replace(x=view.x, rules=view.rules)
    return chart._replace(series=tuple(series)) if series else None


def panels(*charts: Chart | None) -> list[Panel]:
    """A panel for every chart that there is."""
    return [Panel(chart) for chart in charts if chart is not None]


def by_size(contents: Contents, *charts: Chart | None) -> list[Panel]:
    """Charts by rank, over the sizes of classes."""
    return panels(*(over_sizes(contents, chart) for chart in charts if chart is not None))


def heads(contents: Contents) -> list[str]:
    """The baseline and the recommended head, where they were looked at closely; else whatever was."""
    close = [head.row for head in contents.closer]
    return [str(i) for i in [i for i in ends(contents) if i in close] or close]


def of_methods(contents: Contents, chart: Chart, name: str) -> Chart:
    """The series of one name of all methods, told apart by the looks of the methods."""
    looks = styles(contents)
    rows = [(int(each.show["head"]), each) for each in chart.series if each.name == name]
    series = [each._replace(name=short(method_name(contents.rows[i])), **looks[i]._asdict()) for i, each in rows]
    return chart._replace(series=tuple(series))


def recalls(contents: Contents) -> list[Panel]:
    """Recall by size of the baseline and of the recommended row."""
    rows = [str(i) for i in ends(contents)]
    return panels(chosen(recall(contents), method=rows)) if rows else []


def shifts(contents: Contents) -> list[Panel]:
    """Few against many, with the curves of the heads that are told apart elsewhere."""
    close = tuple(head for head in contents.closer if str(head.row) in heads(contents))
    return panels(tradeoff(contents.model_copy(update={"closer": close})))


def tried(contents: Contents) -> list[Panel]:
    """The paths with the most points."""
    sizes = Counter({str(i): len(path.points) for i, path in enumerate(contents.paths) if len(path.points) > 1})
    found = [(i, chosen(paths(contents), path=[i])) for i, _ in sizes.most_common(PATHS)]
    return [Panel(chart, short(contents.paths[int(i)].family, 34)) for i, chart in found if chart is not None]


def magnitudes(contents: Contents) -> list[Panel]:
    """Logits Magnitude and Regularized Std of the pair that a page draws first."""
    a, b = map(str, pair(contents))
    charts = (per_reading(contents, measure) for measure in MEASURES)
    return by_size(contents, *(chosen(chart, a=[a], b=[b], reading=[READING]) for chart in charts))


def reliabilities(contents: Contents) -> list[Panel]:
    """A panel for all rows, and one for each group."""
    chart = chosen(reliability(contents), head=heads(contents))
    if chart is None:
        return []
    names = dict.fromkeys(series.name for series in chart.series)
    return [Panel(of_methods(contents, chart, name), name) for name in names]


def coverages(contents: Contents) -> list[Panel]:
    """Balanced accuracy of the answers of all heads, and what the last of them answers of each group."""
    shown = heads(contents)
    scores, groups = chosen(coverage(contents), head=shown), chosen(kept(contents), head=shown[-1:])
    found = [] if scores is None else [Panel(of_methods(contents, scores, "balanced"), "balanced")]
    if groups is None:
        return found
    return [*found, Panel(groups, short(method_name(contents.rows[int(shown[-1])]), 34))]


DRAWINGS: MappingProxyType[str, Callable[[Contents], list[Panel]]] = MappingProxyType(
    {
        "class_frequency": lambda contents: panels(frequency(contents)),
        "gains": lambda contents: panels(gains(contents)),
        "recall_by_size": recalls,
        "tradeoff": shifts,
        "paths": tried,
        "magnitude": magnitudes,
        "weight_norms": lambda contents: by_size(contents, norms(contents)),
        "gradient_ratio": lambda contents: by_size(contents, ratio(contents)),
        "reliability": reliabilities,
        "coverage": coverages,
        "changes": lambda contents: panels(changes(contents)),
    }
)
