"""The same sample twice: in training and test, where it makes every number too good, or under two labels."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from poise.data.samples.sample_set import Items, Samples
from poise.errors import InputError, MemorisedRowsError, PoiseWarning
from poise.machine.progress import Progress
from poise.values.checks import check_one_of
from poise.values.overlap import Part
from poise.values.overlap import shared as shared_parts
from poise.values.repeats import FEW

# bytes: the stored bytes are equal. content: the decoded pixels are (one picture in two files), or the words of a text
# whatever their case and spaces.
SameBy = Literal["bytes", "content"]
Pairs = list[tuple[int, int]]


class Repeats(NamedTuple):
    """Samples of one split that repeat an earlier one: how many, and the (earlier, later) rows with other labels."""

    rows: int
    conflicts: Pairs


def keys(samples: Samples, *, by: SameBy = "bytes", progress: Progress | None = None) -> tuple[str, ...]:
    """One per sample, equal for equal samples. Reads every sample once; `progress(done, total)` is told of each.

    A picture that was scaled or compressed anew has another key.

    Raises: InputError naming a sample that cannot be read.
    """
    check_one_of("by", by, ("bytes", "content"))
    items = samples.items
    key = items.digest if by == "bytes" else lambda row: _content(items, row)
    found = []
    for row in range(len(items)):
        found.append(key(row))
        if progress is not None:
            progress(row + 1, len(items))
    return tuple(found)


def _content(items: Items, row: int) -> str:
    sample = items.read(row)
    if isinstance(sample, str):
        return " ".join(sample.casefold().split())
    return hashlib.sha256(repr(sample.size).encode() + sample.tobytes()).hexdigest()


def shared(first: Sequence[str], second: Sequence[str]) -> Pairs:
    """(row of the first, row of the second) for every key of the second that the first has, at its first occurrence.

    >>> shared(["a", "b", "b"], ["b", "c", "b"])
    [(1, 0), (1, 2)]
    """
    found = {key: row for row, key in reversed(list(enumerate(first)))}
    return [(found[key], row) for row, key in enumerate(second) if key in found]


def duplicates(train: Samples, test: Samples, *, by: SameBy = "bytes") -> Pairs:
    """(training row, test row) of every test sample that is also a training sample. Raises: as `keys`."""
    return shared(keys(train, by=by), keys(test, by=by))


def repeats(found: Sequence[str], labels: Sequence[int]) -> Repeats:
    """Which samples of one split, given by their keys and labels, repeat an earlier one.

    >>> repeats(["a", "b", "a", "a"], [0, 1, 0, 1])
    Repeats(rows=2, conflicts=[(0, 3)])
    """
    again = [(one, other) for one, other in shared(found, found) if one != other]
    return Repeats(len(again), [(one, other) for one, other in again if labels[one] != labels[other]])


def check_leakage(
    parts: Mapping[str, Samples], *, strict: bool = False, by: SameBy = "bytes"
) -> dict[tuple[str, str], Pairs]:
    """`duplicates` of every two splits that share samples, each with a PoiseWarning that counts and names them.

    `parts` are the splits by name, the training split first.

    Raises: MemorisedRowsError for two splits that share too many (`poise.values.overlap`; short texts repeat by right
    where each occurs more than 20 times in the mean); InputError instead of the warning if `strict` is set; as `keys`.
    """
    of_part = {name: keys(samples, by=by) for name, samples in parts.items()}
    pairs = {(a, b): shared(of_part[a], of_part[b]) for a, b in combinations(parts, 2)}
    found = {names: rows for names, rows in pairs.items() if rows}
    many = _too_many(parts, of_part) if found else set()
    for (a, b), rows in found.items():
        message = _message(parts, a, b, rows)
        if strict or (a, b) in many:
            raise (MemorisedRowsError if (a, b) in many else InputError)(message)
        warnings.warn(message, PoiseWarning, stacklevel=2)
    return found


def _too_many(parts: Mapping[str, Samples], of_part: Mapping[str, Sequence[str]]) -> set[tuple[str, str]]:
    """Every two splits that share more samples than chance gives."""
    every = [key for found in of_part.values() for key in found]
    names, numbers = np.unique(every, return_inverse=True)
    ends = np.cumsum([len(found) for found in of_part.values()])[:-1]
    split = {
        name: Part(own, parts[name].y.cpu().numpy()) for name, own in zip(of_part, np.split(numbers, ends), strict=True)
    }
    by_right = len(names) * FEW <= len(every)
    pairs = {(a, b): shared_parts(split[a], split[b], by_right=by_right) for a, b in combinations(split, 2)}
    return {names for names, pair in pairs.items() if pair is not None and pair.too_many}


def _message(parts: Mapping[str, Samples], a: str, b: str, rows: Pairs) -> str:
    shown = [f"{parts[b].items.describe(j)} = {parts[a].items.describe(i)}" for i, j in rows[:3]]
    return (
        f"{len(rows)} of {len(parts[b])} samples of {b} are in {a} too: {'; '.join(shown)}"
        f"{'; ...' if len(rows) > len(shown) else ''}. Remove them from one of the two: what was learnt by heart is "
        f"measured as skill"
    )
