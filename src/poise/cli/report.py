"""The verb that writes a report anew, and in other formats."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poise.cli import completion
from poise.cli.options import Out, Spreadsheet, Voice
from poise.cli.shared import answer, writing
from poise.values.checks import existing

if TYPE_CHECKING:
    from poise.results.contents import Contents


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a run, or its report.json.")],
    *,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="html, md, latex (a table for a paper), csv, svg and png (figures for a paper; need the extra "
            "`figures`); several with commas, or all.",
            autocompletion=completion.report_formats,
        ),
    ] = "html",
    spreadsheet: Spreadsheet = False,
    out: Out = None,
    browse: Annotated[bool, typer.Option("--open", help="Show report.html in the browser.")] = False,
    voice: Voice,
) -> None:
    """Write the report of a run anew, as a page, as Markdown, as a LaTeX table, as CSV, or as figures for a paper.

    Everything is made of report.json, which `demo`, `compare`, `fit` and `audit` leave in their folders: nothing is
    trained, read or measured again. Files are written beside it unless --out names another folder: report.html,
    report.md, report.tex, methods.csv and classes.csv, figures/*.svg, figures/*.png.
    """
    from poise.errors import InputError
    from poise.machine.folders import generation, moved
    from poise.report.files import find_report, write_formats
    from poise.results.contents import read

    wanted = _wanted(formats)
    if browse and "html" not in wanted:
        raise typer.BadParameter("--open shows the page; add html to --format")
    if out is not None and out.is_file():
        raise InputError(f"{out} is a file; --out names the folder that the report is written into")
    source = find_report(existing(run))
    if source.suffix.lower() != ".json":
        raise InputError(f"{source} is no report.json; name the folder of a run, or the report.json in it")
    contents = read(source)
    folder = out or source.parent
    with writing(folder), generation(folder) as stage:
        made = write_formats(stage, contents, wanted, spreadsheet=spreadsheet)
    written = moved(made, stage, folder)
    verdict = contents.verdict
    answer(
        {
            "title": contents.title,
            "decision": verdict.decision,
            "verdict": verdict.sentence,
            "recommended": verdict.recommended,
            "written": [str(path) for path in written],
        },
        [],
        voice,
        written=written,
        remarks=_remarks(contents, wanted, spreadsheet),
    )
    if browse:
        typer.launch((folder / "report.html").absolute().as_uri())


def _wanted(formats: str) -> list[str]:
    """The formats of a list with commas. Raises: InputError for one that there is not."""
    from poise.report.files import FORMATS
    from poise.values.checks import check_one_of

    names = [name.strip().lower() for name in formats.split(",")]
    if names == ["all"]:
        return list(FORMATS)
    for name in names:
        check_one_of("--format", name, (*FORMATS, "all"))
    return names


def _remarks(contents: "Contents", wanted: list[str], spreadsheet: bool) -> tuple[str, ...]:
    from poise.report.text.csv import formulas

    return formulas(contents).remarks() if "csv" in wanted and not spreadsheet else ()
