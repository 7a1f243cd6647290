"""Pieces of sentences: the name that was meant, and the first of many."""

import difflib
from collections.abc import Iterable, Sequence

__all__ = ["near", "some"]


def near(name: str, names: Iterable[str]) -> str:
    """', did you mean ...?' if there is a name like it, else nothing."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def some(names: Sequence[str], most: int = 5) -> str:
    """The first `most` names with commas, and dots if there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
