"""Whether the parts of a report fit each other: as many values as classes, and indices of what is there."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poise.results.contents import Bins, Closer, Contents, Coverage, Row


def contradictions(contents: "Contents") -> Iterator[str]:
    """In words, what of a report does not fit the rest of it."""
    classes, rows = len(contents.classes.names), len(contents.rows)
    if classes == 0:
        yield "classes.names: there is no class"
    for name in ("counts", "scored", "groups"):
        yield from _sized(f"classes.{name}", getattr(contents.classes, name), classes)
    if min((*contents.classes.counts, *contents.classes.scored), default=0) < 0:
        yield "classes: a number of rows is below 0"
    for i, row in enumerate(contents.rows):
        yield from _row(f"rows.{i}", row, classes)
    for i, head in enumerate(contents.closer):
        yield from _inside(f"closer.{i}.row", [head.row], rows)
        yield from _closer(f"closer.{i}", head, classes)
    yield from _inside("changes: label", [change.label for change in contents.changes], classes)
    yield from _advice(contents, classes)


def _row(where: str, row: "Row", classes: int) -> Iterator[str]:
    yield from _sized(f"{where}.per_class", row.per_class, 0, classes)
    for name, values in chain(row.magnitude.items(), row.spread.items()):
        yield from _sized(f"{where}: {name}", values, classes)


def _closer(where: str, head: "Closer", classes: int) -> Iterator[str]:
    for name in ("norms", "pull", "push"):
        yield from _sized(f"{where}.{name}", getattr(head, name), 0, classes)
    confused = [k for pair in head.confusions for k in (pair.true, pair.answered)]
    yield from _inside(f"{where}.confusions", confused, classes)
    for name, bins in head.reliability.items():
        if bins is not None:
            yield from _bins(f"{where}.reliability.{name}", bins)
    if head.coverage is not None:
        yield from _coverage(f"{where}.coverage", head.coverage)


def _bins(where: str, bins: "Bins") -> Iterator[str]:
    for name in ("confidence", "right"):
        yield from _sized(f"{where}.{name}", getattr(bins, name), len(bins.rows))


def _coverage(where: str, found: "Coverage") -> Iterator[str]:
    points = len(found.threshold)
    lists = {"coverage": found.coverage, "accuracy": found.accuracy, "balanced": found.balanced}
    for name, values in chain(lists.items(), found.kept.items()):
        if values is not None:
            yield from _sized(f"{where}.{name}", values, points)


def _advice(contents: "Contents", classes: int) -> Iterator[str]:
    if (advice := contents.advice) is None:
        return
    for name in ("gain", "error", "head_gain"):
        yield from _sized(f"advice.{name}", getattr(advice, name), len(advice.label))
    yield from _inside("advice", [*advice.label, *advice.chosen], classes)


def _sized(where: str, values: Sequence[object], *sizes: int) -> Iterator[str]:
    if len(values) not in sizes:
        yield f"{where} has {len(values)} values where {' or '.join(map(str, sizes))} are needed"


def _inside(where: str, indices: Sequence[int], size: int) -> Iterator[str]:
    for index in indices:
        if not 0 <= index < size:
            yield f"{where} names number {index} of {size}"
