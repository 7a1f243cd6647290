"""A report as CSV: a line per row of the comparison, and a line per class. Numbers have every digit of the report.

Texts stand exactly as they are, so that every program reads back the names that it knows. With `spreadsheet=True` those
that a spreadsheet would run are made harmless (`poise.values.spreadsheet`); that is for eyes, not for programs. Numbers
are the same in both.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from poise.results.contents import Contents, Row
from poise.values.spreadsheet import MARK, Formulas, harmless


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


def formulas(contents: Contents) -> Formulas:
    """The class names and methods that a spreadsheet would run."""
    return Formulas().plus((*contents.classes.names, *(row.method for row in contents.rows)))


def _csv(lines: Sequence[Mapping[str, Any]], spreadsheet: bool) -> str:
    out = io.StringIO()
    # Lines end as the standard for CSV has it, which also makes the module quote cells with either kind of line end.
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(_cells(lines[0] if lines else (), spreadsheet))
    writer.writerows(_cells(line.values(), spreadsheet) for line in lines)
    return (MARK if spreadsheet else "") + out.getvalue()


def _cells(values: Iterable[Any], spreadsheet: bool) -> list[Any]:
    found = ["" if value is None else value for value in values]
    return [harmless(value) for value in found] if spreadsheet else found
