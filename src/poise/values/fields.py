"""What the fields of a value may hold, as tables: field name -> the words for it and the test of it.

KINDS = {"lr": at_least(0), "epochs": whole(0), "nesterov": FLAG}
check_fields("plan: ", vars(plan), KINDS)    # plan: epochs must be a whole number, 0 or more, got -1
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from poise.errors import InputError
from poise.values.checks import is_number, is_whole


class Kind(NamedTuple):
    """What a value may be: words that complete "NAME must be ...", and the test."""

    wanted: str
    fits: Callable[[Any], bool]

    def said(self, wanted: str) -> "Kind":
        """The same test in other words."""
        return Kind(wanted, self.fits)

    def check(self, name: str, value: Any, remedy: str = "") -> Any:
        """The value. Raises: InputError if it does not fit, with its first 80 characters and the remedy."""
        if not self.fits(value):
            raise InputError(f"{name} must be {self.wanted}, got {value!r:.80}{remedy}")
        return value


def check_fields(where: str, values: Mapping[str, Any], kinds: Mapping[str, Kind], remedy: str = "") -> None:
    """Raises: InputError about the first field of the table that is missing or does not fit."""
    for name, kind in kinds.items():
        if name not in values:
            raise InputError(f"{where}{name} is missing{remedy}")
        kind.check(where + name, values[name], remedy)


FLAG = Kind("true or false", lambda value: isinstance(value, bool))
TEXT = Kind("a text", lambda value: isinstance(value, str))
WHOLE = Kind("a whole number", is_whole)
TABLE = Kind("a table", lambda value: isinstance(value, dict))


def whole(low: int, most: int | None = None) -> Kind:
    """A whole number, `low` or more, and `most` at most."""
    wanted = f"a whole number, {low} or more" if most is None else f"a whole number from {low} to {most}"
    return Kind(wanted, lambda value: is_whole(value) and value >= low and (most is None or value <= most))


def at_least(low: float) -> Kind:
    """A finite number, `low` or more."""
    return Kind(f"a finite number, {low} or more", lambda value: is_number(value) and value >= low)


def number(interval: str) -> Kind:
    """A number in an interval that is written as in mathematics.

    >>> number("[0, 1)").fits(0), number("[0, 1)").fits(1)
    (True, False)
    """
    low, high = map(float, interval[1:-1].split(","))
    # The nearest number inside stands for an end that does not belong to it.
    least = low if interval[0] == "[" else math.nextafter(low, math.inf)
    most = high if interval[-1] == "]" else math.nextafter(high, -math.inf)
    return Kind(f"a number in {interval}", lambda value: is_number(value) and least <= value <= most)


def one_of(*names: str) -> Kind:
    """One of these texts."""
    return Kind(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def optional(kind: Kind) -> Kind:
    """That, or None for what is not given; the words are those of what can be given."""
    return Kind(kind.wanted, lambda value: value is None or kind.fits(value))


def list_of(what: str, kind: Kind, least: int = 0) -> Kind:
    """A list or tuple with at least `least` entries, each of this kind; `what` is their name."""
    return Kind(
        f"a list of {what}",
        lambda value: isinstance(value, list | tuple) and len(value) >= least and all(map(kind.fits, value)),
    )


def table_of(**kinds: Kind) -> Kind:
    """A dictionary with exactly these keys and such values."""
    *first, last = kinds
    return Kind(
        f"a table of {', '.join(first)} and {last}",
        lambda value: (
            isinstance(value, dict) and set(value) == set(kinds) and all(kinds[k].fits(value[k]) for k in value)
        ),
    )
