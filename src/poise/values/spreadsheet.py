"""Texts that a spreadsheet would run: a cell that begins with = + - @ or a control character, whatever its quotes.

Files for programs hold texts exactly as they are. Where somebody asks for a file for a spreadsheet, such texts begin
with an apostrophe, which makes them text there, and the file with the mark by which a spreadsheet knows UTF-8.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

# Those of full width are taken for the others by some.
_FIRST = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
MARK = "\ufeff"


def is_formula(cell: Any) -> bool:
    """Is it a text that a spreadsheet would run?"""
    return isinstance(cell, str) and cell.startswith(_FIRST)


def harmless(cell: Any) -> Any:
    """The cell, as text where a spreadsheet would run it."""
    return f"'{cell}" if is_formula(cell) else cell


class Formulas(NamedTuple):
    """How many cells a spreadsheet would run, and the first of them."""

    number: int = 0
    first: str = ""

    def plus(self, cells: Iterable[Any]) -> "Formulas":
        """Those and the ones among more cells."""
        found = [cell for cell in cells if is_formula(cell)]
        return Formulas(self.number + len(found), self.first or next(iter(found), ""))

    def remarks(self) -> tuple[str, ...]:
        """What is said of a file that holds them as they are; nothing if there are none."""
        if not self.number:
            return ()
        cells = "1 cell begins" if self.number == 1 else f"{self.number} cells begin"
        return (
            f"{cells} like a formula ({self.first!r:.80}), which a spreadsheet would run; add --spreadsheet to open "
            "the CSV in one",
        )
