"""A report as CSV: a line per row of the comparison, and a line per class. Numbers have every digit of the report.

Texts stand exactly as they are, so that every program reads back the names that it knows. A spreadsheet, however, runs
a cell that begins with = + - @ or a control character as a formula, whatever its quotes. With `spreadsheet=True` such
texts begin with an apostrophe, which makes them text there, and the file with the mark by which a spreadsheet knows
UTF-8; that is for eyes, not for programs. Numbers are the same in both.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from poise.results.contents import Contents, Row

# Those of full width are taken for the others by some.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def methods_csv(contents: Contents, *, spreadsheet: bool = False) -> str:
    """A line per row: its text, how its settings were chosen, scores and gain with intervals; empty where unknown."""
    return _csv([row.flat() for row in contents.rows], spreadsheet)


def classes_csv(contents: Contents, *, spreadsheet: bool = False) -> str:
    """A line per class: name, group, training and scored rows, then a column for every number and method.

    Columns are called by the number and the method: "recall stage1", "norm crt(lr=0.1)"; recipes end in " (recipe)".
    """
    classes = contents.classes
    columns = {
        "name": classes.names,
        "group": classes.groups,
        "training_rows": classes.counts,
        "scored_rows": classes.scored,
        **dict(_columns(contents)),
    }
    return _csv([dict(zip(columns, line, strict=True)) for line in zip(*columns.values(), strict=True)], spreadsheet)


def _columns(contents: Contents) -> Iterator[tuple[str, Sequence[float | None]]]:
    for row in contents.rows:
        yield from _named(_title(row), {"recall": row.per_class})
        yield from _named(_title(row), {f"magnitude_{reading}": values for reading, values in row.magnitude.items()})
        yield from _named(_title(row), {f"spread_{reading}": values for reading, values in row.spread.items()})
    for found in contents.closer:
        title = _title(contents.rows[found.row])
        yield from _named(title, {"norm": found.norms, "pull": found.pull, "push": found.push})


def _title(row: Row) -> str:
    return f"{row.method} (recipe)" if row.role == "recipe" else row.method


def _named(title: str, found: Mapping[str, Sequence[float | None]]) -> Iterator[tuple[str, Sequence[float | None]]]:
    return ((f"{name} {title}", values) for name, values in found.items() if values)


def formulas(contents: Contents) -> int:
    """How many class names and methods a spreadsheet would run as formulas."""
    texts = (*contents.classes.names, *(row.method for row in contents.rows))
    return sum(text.startswith(FORMULA) for text in texts)


def _csv(lines: Sequence[Mapping[str, Any]], spreadsheet: bool) -> str:
    out = io.StringIO()
    # Lines end as the standard for CSV has it, which also makes the module quote cells with either kind of line end.
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(_cells(lines[0] if lines else (), spreadsheet))
    writer.writerows(_cells(line.values(), spreadsheet) for line in lines)
    return ("\ufeff" if spreadsheet else "") + out.getvalue()


def _cells(values: Iterable[Any], spreadsheet: bool) -> list[Any]:
    found = ["" if value is None else value for value in values]
    if not spreadsheet:
        return found
    return [f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value for value in found]
