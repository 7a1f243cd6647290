"""Values as tables of HTML, for notebooks: they take the colours of the page, light or dark, and hold no script."""

from collections.abc import Iterable, Sequence
from html import escape

from poise.errors import in_one_line


def html_table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], *, title: str, notes: Sequence[str] = ()
) -> str:
    """A table with a title, and paragraphs below it; texts may hold anything and are shown as they are.

    >>> "&lt;b&gt;" in html_table(("class", "rows"), [("<b>", 3)], title="rows")
    True
    """
    parts = [f"<caption>{_shown(title)}</caption>"]
    if any(headings):
        parts.append(f"<thead><tr>{_cells('th', headings)}</tr></thead>")
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    parts.append(f"<tbody>{body}</tbody>")
    below = "".join(f"<p>{_shown(note)}</p>" for note in notes)
    # The classes keep a notebook from reading a name with two dollars as a formula.
    return f'<div class="tex2jax_ignore mathjax_ignore"><table>{"".join(parts)}</table>{below}</div>'


def _cells(tag: str, values: Sequence[object]) -> str:
    sides = ("left", *("right",) * (len(values) - 1))
    cells = zip(sides, values, strict=True)
    return "".join(f'<{tag} style="text-align:{side}">{_shown(value)}</{tag}>' for side, value in cells)


def _shown(value: object) -> str:
    return escape(in_one_line(value))
