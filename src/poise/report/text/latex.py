r"""A report's table for a paper: LaTeX that needs the package booktabs and nothing else.

Text is escaped so that it prints as it is in the default font encoding (T1 prints straight quotes too). Characters
beyond ASCII stay as they are, in UTF-8; emoji and other scripts need a font that has them (XeLaTeX or LuaLaTeX).
"""

import re
import unicodedata

from poise.report.text.words import lines, one_line
from poise.results.contents import Contents, Gain, Row
from poise.values.wording import percent, signed

COLUMNS = ("all", "many", "medium", "few", "balanced")

TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
ESCAPED = str.maketrans(
    {
        **{mark: f"\\{mark}" for mark in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\symbol{34}",  # a shorthand of some languages
        # After the end of a row these would be taken for its options.
        "[": "{[}",
        "]": "{]}",
        "*": "{*}",
    }
)


def to_latex(contents: Contents, *, label: str | None = None) -> str:
    r"""A table environment with a caption and a label, a line per method; below, the settings of every one.

    Args:
        contents: the report.
        label: for `\ref`; made of the title unless given, such as "tab:cifar100-lt".
    """
    rows = [line.row for line in lines(contents.rows)]
    return "\n".join(
        [
            "% Needs \\usepackage{booktabs}. Made by poise of: " + one_line(contents.title),
            r"\begin{table}[tb]",
            r"  \centering\small",
            rf"  \caption{{{_caption(contents)}}}",
            rf"  \label{{{_label(contents.title) if label is None else label}}}",
            r"  \smallskip",
            r"  \begin{tabular}{@{}lrrrrrr@{}}",
            r"    \toprule",
            r"    Method & All & Many & Medium & Few & Balanced & Gain \\",
            r"    \midrule",
            *(f"    {_line(row)} \\\\" for row in rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"  \par\smallskip\raggedright\footnotesize",
            f"  Settings: {'; '.join(map(_settings, rows))}.",
            r"\end{table}",
            "",
        ]
    )


def _escaped(text: str) -> str:
    """Text that prints as it is; control characters become spaces, and what turns the direction of writing is gone."""
    shown = [mark for mark in text if unicodedata.bidirectional(mark) not in TURNING]
    plain = "".join(" " if unicodedata.category(mark) in ("Cc", "Zl", "Zp") else mark for mark in shown)
    # Some marks in a row would be joined into another sign: -- into a dash, '' into a quote.
    parts = re.split(r"(?<=[-,'`!?])(?=[-,'`])", plain)
    return "{}".join(part.translate(ESCAPED) for part in parts)


def _label(title: str) -> str:
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return f"tab:{'-'.join(re.findall('[a-z0-9]+', plain)[:8]) or 'poise'}"


def _line(row: Row) -> str:
    numbers = [_minus(percent(row.estimate(name))) for name in COLUMNS]
    if row.tied:
        numbers[-1] = rf"\textbf{{{numbers[-1]}}}"
    star = r"$^\star$" if row.recommended else ""
    dagger = r"$^\dagger$" if row.transductive else ""
    return " & ".join([_escaped(row.family) + star + dagger, *numbers, _gain(row.gain)])


def _settings(row: Row) -> str:
    """A method with every setting, broken between them where a line ends."""
    return _escaped(row.method.replace(",", ", "))


def _minus(number: str) -> str:
    return "--" if number == "-" else number


def _gain(gain: Gain | None) -> str:
    if gain is None:
        return "--"
    half = "" if gain.half_width is None else rf" \pm {percent(gain.half_width)}"
    return f"${signed(gain.estimate)}{half}$"


def _caption(contents: Contents) -> str:
    classes, verdict = contents.classes, contents.verdict
    many, few = classes.edges
    facts = {fact.name: fact.text for fact in contents.protocol.facts}
    found = [
        f"{_escaped(contents.title)}: accuracy in per cent on {_escaped(contents.scored_on)} of "
        f"{len(classes.names)} classes, trained on {sum(classes.counts)}.",
        f"Many, medium, few: classes with more than {many}, {few} to {many}, fewer than {few} training rows; balanced: "
        "mean over classes.",
        f"Gain: balanced accuracy over {_escaped(verdict.baseline)}, with the half width of a "
        f"{100 * verdict.level:g}\\,\\% interval over images that holds for all methods at once.",
        *([f"Settings {_escaped(facts['settings'])}."] if "settings" in facts else []),
        *([f"Seeds: {_escaped(facts['seeds'])}."] if "seeds" in facts else []),
        *(["Bold: cannot be told from the best."] if any(row.tied for row in contents.rows) else []),
        *([r"$^\star$: recommended."] if any(row.recommended for row in contents.rows) else []),
        *([r"$^\dagger$: reads the rows it is scored on."] if any(row.transductive for row in contents.rows) else []),
    ]
    return " ".join(found)
