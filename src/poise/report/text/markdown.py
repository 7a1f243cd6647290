r"""A report as one page of Markdown, for a code host: verdict, methods, classes, confusions, protocol, command.

Names of classes and methods stand in code spans, in which a code host shows every character as it is; within a table a
pipe there has a backslash, which tables take away. Everything else that is not ours has its punctuation escaped.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from poise.report.text.words import closer, lines, one_line, recommended, with_half_width
from poise.results.contents import GROUPS, Change, Contents, Row
from poise.values.wording import percent, signed

SHOWN = 10  # classes gained, classes lost, and confusions

PUNCTUATION = str.maketrans({mark: f"\\{mark}" for mark in r"\`*_{}[]<>#|~$&@!"})


def to_markdown(contents: Contents) -> str:
    """The whole page; parts for which the report holds nothing are left out."""
    blocks = [
        f"# {_escaped(contents.title)}",
        f"Scores are in per cent, on {_escaped(contents.scored_on)}.",
        _escaped(contents.verdict.sentence),
        *_methods(contents),
        *_changes(contents),
        *_confusions(contents),
        *_advice(contents),
        *_protocol(contents),
    ]
    return "\n\n".join(blocks) + "\n"


def _escaped(text: str) -> str:
    """Text on one line in which no character means anything to Markdown or HTML, within a line of ours."""
    return one_line(text).translate(PUNCTUATION)


def _code(text: str) -> str:
    """A code span that shows the text, whatever backticks it has; nothing for none."""
    if not text:
        return ""
    shown = one_line(text)
    fence = _fence(shown, 1)
    # One space on both sides is taken away again. It keeps backticks apart, and the spaces of the name.
    space = " " if shown.startswith(("`", " ")) or shown.endswith(("`", " ")) else ""
    return f"{fence}{space}{shown}{space}{fence}"


def _fence(text: str, least: int) -> str:
    """More backticks than the text has in a row."""
    runs = [len(list(run)) for mark, run in groupby(text) if mark == "`"]
    return "`" * max(least, 1 + max(runs, default=0))


def cell(text: str) -> str:
    """A code span within a table."""
    return _code(text).replace("|", r"\|")


def _table(heading: Sequence[str], align: str, body: Iterable[Sequence[str]]) -> str:
    """A table whose columns are aligned to the left (l) or right (r)."""
    rule = ["---" if side == "l" else "---:" for side in align]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *body))


def _methods(contents: Contents) -> Iterator[str]:
    many, few = contents.classes.edges
    yield "## Methods"
    yield _table(
        ("method", "all", "balanced", "stated", "many", "medium", "few", "gain", "F1", "ECE", "marks"),
        "lrrrrrrrrrl",
        ([cell(line.row.family), *_numbers(line.row, line.stated), _marks(line.row)] for line in lines(contents.rows)),
    )
    yield (
        "all: accuracy; balanced: mean recall over classes; stated: the same of the recipe as its source states it; "
        f"many, medium, few: classes with more than {many}, {few} to {many}, fewer than {few} training rows; gain: "
        f"balanced accuracy over {_code(contents.verdict.baseline)}, with the half width of a "
        f"{100 * contents.verdict.level:g} % interval over images that holds for all methods at once. Marks: = cannot "
        "be told from the best, ★ recommended, T reads the rows that it is scored on, ^ best "
        "value at the end of its range."
    )


def _numbers(row: Row, stated: float | None) -> list[str]:
    return [
        percent(row.estimate("all")),
        percent(row.estimate("balanced")),
        percent(stated),
        *(percent(row.estimate(group)) for group in GROUPS),
        with_half_width(row.gain),
        percent(row.macro_f1),
        percent(row.ece),
    ]


def _marks(row: Row) -> str:
    found = (("=", row.tied), ("★", row.recommended), ("T", row.transductive), ("^", bool(row.edges)))
    return " ".join(mark for mark, here in found if here)


def _changes(contents: Contents) -> Iterator[str]:
    """The classes that gained and those that lost most, each the furthest first."""
    ordered = sorted(contents.changes, key=lambda change: -change.difference)
    for word, found in (("gained", ordered), ("lost", ordered[::-1])):
        sign = 1 if word == "gained" else -1
        shown = [change for change in found if sign * change.difference > 0][:SHOWN]
        if shown:
            yield f"## Classes that {word} most"
            yield _table(
                ("class", "group", "training rows", "scored", "before", "after", "change", "95 %, all at once"),
                "llrrrrrr",
                (_changed(contents, change) for change in shown),
            )


def _changed(contents: Contents, change: Change) -> list[str]:
    classes, k = contents.classes, change.label
    numbers = (
        str(classes.counts[k]),
        str(classes.scored[k]),
        percent(change.before),
        percent(change.after),
        signed(change.difference),
        f"{signed(change.low)} to {signed(change.high)}",
    )
    return [cell(classes.names[k]), classes.groups[k], *numbers]


def _confusions(contents: Contents) -> Iterator[str]:
    """The most frequent confusions of the recommended head, or of what was looked at closely first."""
    row = recommended(contents)
    found = None if row is None else closer(contents, row)
    found = found or next(iter(contents.closer), None)
    if found is None or not found.confusions:
        return
    names = contents.classes.names
    yield f"## Most frequent confusions of {_code(contents.rows[found.row].family)}"
    yield _table(
        ("class", "answered as", "rows", "share"),
        "llrr",
        (
            [cell(names[each.true]), cell(names[each.answered]), str(each.rows), percent(each.share)]
            for each in found.confusions[:SHOWN]
        ),
    )


def _advice(contents: Contents) -> Iterator[str]:
    if contents.advice is None:
        return
    yield "## What more labelled rows would give"
    yield _escaped(contents.advice.sentence)
    names = contents.classes.names
    if contents.advice.chosen:
        yield "Label first: " + ", ".join(_code(names[k]) for k in contents.advice.chosen[:SHOWN])


def _protocol(contents: Contents) -> Iterator[str]:
    protocol = contents.protocol
    yield "## Protocol"
    said = [f"- {_escaped(fact.name)}: {_escaped(fact.text)}" for fact in protocol.facts]
    yield "\n".join([*said, *(f"- {_escaped(remark)}" for remark in protocol.remarks)])
    yield "Settings:"
    yield _table(
        ("method", "setting", "chosen"),
        "lll",
        (
            [
                cell(row.family),
                cell(row.method),
                _escaped(row.selected) or ("as stated" if row.role == "recipe" else "-"),
            ]
            for row, _ in lines(contents.rows)
        ),
    )
    if protocol.command is not None:
        fence = _fence(protocol.command, 3)
        yield "The same run again:"
        yield f"{fence}sh\n{protocol.command}\n{fence}"
