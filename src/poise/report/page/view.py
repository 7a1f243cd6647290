"""What the template of the page fills in, where that takes more than a filter."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from poise.report.charts.chart import MINUS, Chart, Table, legible, percent, short, signed
from poise.report.charts.default_rows import SEEN, best_first, ends, first_choices, pair
from poise.report.charts.styles import method_name
from poise.report.text.words import baseline, recommended
from poise.results.contents import Change, Contents, Gain, Row

IMAGE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+={0,2}")
PICTURES = 4  # of a class
SHOWN_CHANGES = 6  # classes with pictures at each end


class Tile(NamedTuple):
    """A key number: its name, its value, and a line below."""

    name: str
    value: str
    note: str
    share: float | None = None  # of a bar below


class Section(NamedTuple):
    """An entry of the table of contents."""

    id: str
    title: str


class Choice(NamedTuple):
    """A row that can be chosen in a control, by its number; `first` says that it is at the start."""

    number: int
    name: str
    first: bool


class Pictures(NamedTuple):
    """Training images of a class that changed."""

    name: str
    change: Change
    rows: int
    images: tuple[str, ...]


def tiles(contents: Contents) -> list[Tile]:
    """The key numbers that there are."""
    told = contents.verdict
    before, after = baseline(contents), recommended(contents)
    found = [
        gain_tile(told.gain, told.level, told.baseline),
        before_after("Balanced", "balanced accuracy", "balanced", before, after),
        before_after("Few", "recall of the rare classes", "few", before, after),
    ]
    if told.gap_closed is not None and told.oracle is not None and 0 <= told.gap_closed <= 1:
        note = f"of the way from {short(told.baseline)} to the oracle, {percent(told.oracle)} %"
        found.append(Tile("Gap closed", f"{100 * told.gap_closed:.0f} %", note, told.gap_closed))
    if told.tied is not None:
        note = "methods cannot be told from the best on these rows"
        found.append(Tile("Tied", f"{told.tied} of {told.contenders}", note))
    return [tile for tile in found if tile is not None]


def gain_tile(gain: Gain | None, level: float, baseline: str) -> Tile | None:
    """The gain with its interval over images."""
    if gain is None:
        return None
    value = signed(gain.estimate)
    lost = value.startswith(MINUS)
    name, over = "Loss" if lost else "Gain", f"points {'against' if lost else 'over'} {short(baseline, 24)}"
    if gain.low is None or gain.high is None:
        return Tile(name, value, over)
    interval = f"{100 * level:g} % interval {signed(gain.low)} to {signed(gain.high)}"
    return Tile(name, value, f"{over}, {interval}")


def before_after(name: str, words: str, score: str, before: Row | None, after: Row | None) -> Tile | None:
    """A score of the baseline and of the recommended head; of one of them where they are the same."""
    first, second = (None if row is None else row.estimate(score) for row in (before, after))
    if first is None:
        return None if second is None else Tile(name, f"{percent(second)} %", words)
    if second is None or before is after:
        return Tile(name, f"{percent(first)} %", f"{words}, with the baseline")
    return Tile(name, f"{percent(second)} %", f"{words}, from {percent(first)}")


def spoken(contents: Contents) -> str:
    """The sentences of a report that were written elsewhere, in small letters."""
    told, protocol = contents.verdict, contents.protocol
    advised = [] if contents.advice is None else [contents.advice.sentence]
    facts = [text for fact in protocol.facts for text in (fact.name, fact.text)]
    return " ".join([told.sentence, *advised, *facts, *protocol.remarks]).lower()


def choices(contents: Contents) -> dict[str, list[Choice]]:
    """Rows that controls offer, best first: those with recalls, with magnitudes, and those looked at closer."""
    first, order = first_choices(contents), best_first(contents)
    rows, close = contents.rows, {head.row for head in contents.closer}

    def listed(wanted: Sequence[int], start: Sequence[int | None]) -> list[Choice]:
        return [Choice(i, method_name(rows[i]), i in start) for i in wanted]

    magnitudes = [i for i in order if rows[i].magnitude]
    heads = [i for i in order if i in close]
    return {
        "method": listed([i for i in order if rows[i].per_class], first),
        "a": listed(magnitudes, pair(contents)[:1]),
        "b": listed(magnitudes, pair(contents)[1:]),
        "close": listed(heads, [i for i in ends(contents) if i in heads] or heads[:2]),
        "head": listed(heads, [next((i for i in first[1:] if i in close), heads[0] if heads else 0)]),
    }


def pair_remark(contents: Contents) -> str:
    """Why the recommended row is not the one drawn against the baseline; empty if it is."""
    base, best = baseline(contents), recommended(contents)
    shown = next((choice for choice in choices(contents)["a"] if choice.first), None)
    if base is None or best is None or not best.magnitude or best is base or shown is None:
        return ""
    if contents.rows[shown.number] is best:
        return ""
    return (
        f"{short(best.own)} has the same Regularized Std as {short(base.own)} within {100 * SEEN:g} %, as if "
        "it only shifted or scaled the logits; the best method that differs is drawn first instead."
    )


def confusions(contents: Contents) -> list[tuple[str, Table]]:
    """The most frequent confusions of each head looked at closer, the recommended head first."""
    names, counts = contents.classes.names, contents.classes.counts
    heads = sorted(contents.closer, key=lambda head: not contents.rows[head.row].recommended)
    head_row = ("true class", "training rows", "answered", "training rows", "rows", "share of the class, %")
    found = []
    for head in heads:
        lines = tuple(
            (
                legible(names[each.true]),
                f"{counts[each.true]:,}",
                legible(names[each.answered]),
                f"{counts[each.answered]:,}",
                f"{each.rows:,}",
                percent(each.share),
            )
            for each in head.confusions
        )
        found += [(method_name(contents.rows[head.row]), Table(head_row, lines))] if lines else []
    return found


def pictures(contents: Contents) -> list[Pictures]:
    """Images of the classes that changed most, largest gain first; anything but an inline image is left out."""
    ordered = sorted(contents.changes, key=lambda change: -change.difference)
    images = {change.label: inline(contents.thumbnails.get(str(change.label), ())) for change in ordered}
    shown = [change for change in ordered if images[change.label]]
    ends = shown if len(shown) <= 2 * SHOWN_CHANGES else shown[:SHOWN_CHANGES] + shown[-SHOWN_CHANGES:]
    classes = contents.classes
    return [Pictures(legible(classes.names[c.label]), c, classes.scored[c.label], images[c.label]) for c in ends]


def inline(images: Sequence[str]) -> tuple[str, ...]:
    """Those that are images as data URIs."""
    return tuple(image for image in images if IMAGE.fullmatch(image))[:PICTURES]


def sections(contents: Contents, figures: dict[str, Chart]) -> list[Section]:
    """The parts of the report in order, without those that have nothing to show."""
    every = (
        (True, "verdict", "Result" if contents.verdict.decision in ("fitted", "evaluated") else "Verdict"),
        (True, "classes", "Class sizes"),
        (True, "methods", "Methods"),
        ("recall" in figures, "recall", "Recall by class size"),
        ("changes" in figures, "changes", "Classes that changed"),
        (any(head.confusions for head in contents.closer), "confusions", "Confusions"),
        ("tradeoff" in figures, "tradeoff", "Many against few"),
        ("paths" in figures, "paths", "Paths"),
        (bool({"reliability", "coverage"} & set(figures)), "confidence", "Confidence"),
        (bool({"advice", "learning"} & set(figures)), "labels", "More labels"),
        (bool({"magnitude", "spread", "norms", "ratio"} & set(figures)), "inside", "Inside the heads"),
        (True, "protocol", "Protocol"),
        (True, "glossary", "Words"),
    )
    return [Section(name, title) for there, name, title in every if there]
