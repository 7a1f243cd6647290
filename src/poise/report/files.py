"""The files of a report in a folder: report.json, which holds it, and what is made of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from poise.errors import InputError
from poise.machine.atomic import write_atomically
from poise.results.contents import Contents

NAME = "report.json"
FORMATS = ("html", "md", "latex", "csv", "svg", "png")


def write_report(folder: Path, contents: Contents) -> list[Path]:
    """Write report.json and report.html. Raises: InputError when the disk refuses."""
    return [write_atomically(folder / NAME, contents.to_json()), *write_formats(folder, contents, ("html",))]


def write_formats(folder: Path, contents: Contents, formats: Sequence[str], *, spreadsheet: bool = False) -> list[Path]:
    """Write a report in some of `FORMATS`; each file appears complete or not at all.

    html: report.html. md: report.md. latex: report.tex, a table. csv: methods.csv and classes.csv, harmless to a
    spreadsheet if `spreadsheet` (see `poise.report.text.csv`). svg, png: figures/NAME.svg, figures/NAME.png.

    Raises: InputError when the disk refuses; MissingExtraError for figures without matplotlib, before any is written.
    """
    made = [file for name in FORMATS if name in formats for file in _made(contents, name, spreadsheet)]
    return [write_atomically(folder / name, content) for name, content in made]


def _made(contents: Contents, name: str, spreadsheet: bool) -> Iterator[tuple[str, bytes | str]]:
    """The files of a format, by their names below the folder."""
    if name == "html":
        from poise.report.page.page import render

        yield "report.html", render(contents)
    elif name == "md":
        from poise.report.text.markdown import to_markdown

        yield "report.md", to_markdown(contents)
    elif name == "latex":
        from poise.report.text.latex import to_latex

        yield "report.tex", to_latex(contents)
    elif name == "csv":
        from poise.report.text.csv import classes_csv, methods_csv

        yield "methods.csv", methods_csv(contents, spreadsheet=spreadsheet)
        yield "classes.csv", classes_csv(contents, spreadsheet=spreadsheet)
    elif name in ("svg", "png"):
        yield from _figures(contents, name)


def _figures(contents: Contents, kind: str) -> Iterator[tuple[str, bytes]]:
    from poise.report.charts.paper_figures import draw, render

    for name, figure in draw(contents).items():
        yield f"figures/{name}.{kind}", render(figure, "svg" if kind == "svg" else "png")


def find_report(path: Path) -> Path:
    """The report.json of a run: the file itself, that of the folder, or that of the only folder within which has one.

    Raises: InputError naming the folders to choose from, or the commands that write a report.
    """
    if not path.is_dir():
        return path
    if (path / NAME).is_file():
        return path / NAME
    within = sorted(found.parent for found in path.glob(f"*/{NAME}"))
    if len(within) == 1:
        return within[0] / NAME
    if within:
        listed = ", ".join(map(str, within[:5])) + (", ..." if len(within) > 5 else "")
        raise InputError(f"{path} holds {len(within)} reports; name one of {listed}")
    writers = "`poise demo`, `poise compare`, `poise fit` and `poise audit` write one"
    older = (
        " (this run was made before there were reports: run it again)" if (path / "comparison.json").is_file() else ""
    )
    raise InputError(f"{path} holds no {NAME}; {writers}{older}")
