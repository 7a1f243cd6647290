"""What the formats of a report share: text on one line, and which rows are shown."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.text import Text

from poise.results.contents import Closer, Contents, Gain, Row
from poise.values.wording import percent, signed

# Control characters become their pictures (a line feed reads ␊), so that no name breaks a line, moves the cursor of a
# terminal or ends a comment; what turns the direction of writing becomes the mark of a character that is not shown.
PICTURES = {
    **{code: 0x2400 + code for code in range(0x20)},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    **dict.fromkeys((0x85, 0x2028, 0x2029), 0x2424),
    **dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD),
}


def one_line(text: str) -> str:
    """The text with control characters as visible ones, which makes it a single line."""
    return text.translate(PICTURES)


def shortened(text: str, cells: int) -> str:
    """The text on one line, cut with an ellipsis where it is wider than `cells`; wide characters count twice."""
    shown = Text(one_line(text))
    shown.truncate(cells, overflow="ellipsis")
    return shown.plain


def with_half_width(gain: Gain | None) -> str:
    """A gain in points; of its interval over images, which lies symmetrically about it, half the width says all."""
    if gain is None:
        return "-"
    return signed(gain.estimate) + ("" if gain.half_width is None else f" ±{percent(gain.half_width)}")


class Line(NamedTuple):
    """A method as people see it: its row, and the balanced accuracy of its recipe as stated."""

    row: Row
    stated: float | None


def lines(rows: Sequence[Row]) -> list[Line]:
    """One line per method, best balanced accuracy first; recipes stand alone where nothing was tuned."""
    recipes = {row.family: row for row in rows if row.role == "recipe"}
    contenders = [row for row in rows if row.role != "recipe"]
    families = {row.family for row in contenders}
    shown = [*contenders, *(row for family, row in recipes.items() if family not in families)]
    stated = {family: row.estimate("balanced") for family, row in recipes.items()}
    ordered = sorted(shown, key=lambda row: -(row.estimate("balanced") or 0.0))
    return [Line(row, stated.get(row.family)) for row in ordered]


def baseline(contents: Contents) -> Row | None:
    """The row of the baseline."""
    return next((row for row in contents.rows if row.role == "baseline"), None)


def recommended(contents: Contents) -> Row | None:
    """The row of the recommended head; None without one, or where two halves of the test split chose different ones."""
    return next((row for row in contents.rows if row.recommended), None)


def closer(contents: Contents, row: Row) -> Closer | None:
    """What was looked at more closely of a row."""
    return next((found for found in contents.closer if contents.rows[found.row] is row), None)


def pareto(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The places that no other one beats in both coordinates, by rising first one."""
    front: list[tuple[float, float]] = []
    for place in sorted(set(places), reverse=True):
        if not front or place[1] > front[-1][1]:
            front.append(place)
    return front[::-1]


def finite_ratio(above: float | None, below: float | None) -> float | None:
    """Above / below, None where it cannot be drawn on a logarithmic axis."""
    if above is None or below is None or above <= 0 or below <= 0:
        return None
    return above / below
