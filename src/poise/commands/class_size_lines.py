"""Classes by their sizes, in numbers and words that are the same for feature rows, images and texts."""

from collections.abc import Mapping, Sequence

from poise.values.counts import ClassCounts
from poise.values.wording import counted, some

CLASS = ("class", "classes")
EDGES = (("many", "more than 100"), ("medium", "20 to 100"), ("few", "fewer than 20"))
Groups = dict[str, dict[str, int]]


def groups_of(counts: ClassCounts) -> Groups:
    """The classes and rows of many, medium and few."""
    shots = counts.shots().items()
    return {name: {"classes": int(mask.sum()), "rows": int(counts.n[mask].sum())} for name, mask in shots}


def classes_of_size(counts: ClassCounts, names: Sequence[str], least: int, most: int) -> dict[int, str]:
    """Names of the classes with `least` to `most` rows, by their numbers."""
    return {k: names[k] for k, n in enumerate(counts.n.tolist()) if least <= n <= most}


def group_lines(groups: Groups, what: str) -> list[str]:
    """A line for each of many, medium and few; `what` the rows are."""
    return [
        f"{name} ({text}): {counted(groups[name]['classes'], *CLASS)}, {counted(groups[name]['rows'], what)}"
        for name, text in EDGES
    ]


def listed(named: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each kind of class that there is."""
    return [f"{title}: {len(names)} ({some(names)})" for title, names in named.items() if names]
