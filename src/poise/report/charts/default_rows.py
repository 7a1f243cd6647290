"""Which rows are drawn first: on the page until a reader chooses others, and in the figures of papers."""

from poise.results.contents import Contents, Row

SEEN = 0.02  # of the mean Regularized Std: what can be seen in a chart


def best_first(contents: Contents) -> list[int]:
    """The indices of the rows, the best balanced accuracy first."""
    rows = contents.rows
    return sorted(range(len(rows)), key=lambda i: -(rows[i].estimate("balanced") or 0.0))


def first_choices(contents: Contents) -> list[int]:
    """Rows that are drawn first: the baseline, the one recommended, and the null if it is another."""
    rows = contents.rows
    wanted = [
        *(i for i, row in enumerate(rows) if row.role == "baseline"),
        *(i for i, row in enumerate(rows) if row.recommended),
        *(i for i, row in enumerate(rows) if row.method == contents.verdict.null and row.role == "tuned"),
    ]
    return list(dict.fromkeys(wanted)) or [0]


def ends(contents: Contents) -> list[int]:
    """The baseline and then the recommended row, where they are."""
    rows = contents.rows
    found = [i for i, row in enumerate(rows) if row.role == "baseline" or row.recommended]
    return sorted(found, key=lambda i: rows[i].recommended)


def pair(contents: Contents) -> tuple[int | None, int]:
    """The rows whose Logits Magnitudes are drawn: one against the baseline.

    It is the recommended one if it can be told from the baseline there, else the best such.
    """
    rows, start = contents.rows, first_choices(contents)[0]
    candidates = [i for i in best_first(contents) if rows[i].magnitude]
    others = [i for i in candidates if i != start]
    others.sort(key=lambda i: (not rows[i].recommended, rows[i].role == "recipe"))
    differ = [i for i in others if not same_spread(rows[i], rows[start])]
    return next(iter([*differ, *others, *candidates]), None), start


def same_spread(left: Row, right: Row) -> bool:
    """Is the Regularized Std of two rows the same to the eye? Neither a shifted bias nor another scale changes it."""
    pairs = zip(left.spread.get("unit", ()), right.spread.get("unit", ()), strict=False)
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return sum(abs(a - b) for a, b in known) <= SEEN * sum(abs(b) for _, b in known)
