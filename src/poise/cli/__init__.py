"""The command line: every verb loads, calls the library once, saves, and prints where.

Heavy modules are imported inside the verbs, so that help and mistakes answer at once. Exit codes: 0 done, 2 the input
cannot be used, 130 interrupted, 143 terminated.
"""

import inspect
import io
import os
import sys
import traceback
import warnings
from functools import partial
from typing import Annotated, Any

import typer

from poise import __version__
from poise.cli import compare, evaluate, explore, export, fit_predict, images, rebalance, report, tune
from poise.cli.options import spread
from poise.cli.shared import in_options, remember_words, say
from poise.cli.stopping import heard
from poise.errors import PoiseError

# What typer raises for words it does not know. It has no public name there, and the package it comes from has changed;
# it is the base of this public one.
USAGE_ERROR: Any = typer.BadParameter.__base__

# What a second or third file is meant to be.
MORE_WORDS = {
    "poise compare": "test rows are given with --test; ",
    "poise fit": "rows to choose on are given with --held-out; ",
    "poise train": "samples are given with --data; ",
}

app = typer.Typer(
    name="poise",
    help="Re-balance classifiers trained on long-tailed data: every head, one pass, honest comparison.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes and a column of types leave too little of 80 columns to what is said
    epilog="Exit codes: 0 done, 2 the input cannot be used, 130 interrupted, 143 terminated. "
    "`poise --install-completion` makes your shell complete verbs, options and methods.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"poise {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Re-balance classifiers trained on long-tailed data: every head, one pass, honest comparison."""


VERBS = (
    explore.demo,
    explore.inspect,
    images.train,
    images.extract,
    compare.compare,
    tune.tune,
    explore.audit,
    fit_predict.fit,
    fit_predict.predict,
    evaluate.evaluate,
    fit_predict.check,
    export.export,
    rebalance.rebalance,
    report.report,
    explore.methods,
)
for verb in VERBS:
    # The lines of a docstring are not those of a terminal.
    paragraphs = [" ".join(paragraph.split()) for paragraph in (inspect.getdoc(verb) or "").split("\n\n")]
    app.command(help="\n\n".join(paragraphs), short_help=paragraphs[0])(spread(verb))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a refused input is one sentence on standard error and exit code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    # Must be set before torch is loaded. Threads that spin while they wait make a busy machine ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.showwarning = partial(_show_warning, set())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows a question mark
    with heard():
        code = _run([word for word in given if word != "--debug"], debug="--debug" in given)
    raise SystemExit(code)


def _run(words: list[str], *, debug: bool) -> int:
    remember_words(words)
    try:
        code = int(app(args=words, prog_name="poise", standalone_mode=False) or 0)
        return _interrupted() if code == 130 else code  # typer answers an interrupt with this code, silently
    except USAGE_ERROR as error:
        said = error.format_message().rstrip(".")  # nothing where the help was shown because there was no word at all
        verb = _verb(error)
        meant = MORE_WORDS.get(verb, "") if said.startswith("Got unexpected extra argument") else ""
        return _refuse(f"{said}; {meant}see `{verb} --help`", debug) if said else 2
    except PoiseError as error:
        return _refuse(in_options(error), debug, error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:
        # The reader has gone, as in `poise demo | head`; nothing more can be said on this stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # what no module foresaw, such as a full disk behind standard output
        where = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{where}{error.strerror or error}", debug)


def _interrupted() -> int:
    typer.echo("poise: interrupted", err=True)
    return 130


def _verb(error: Any) -> str:
    return str(error.ctx.command_path) if error.ctx else "poise"


def _refuse(sentence: str, debug: bool, code: int = 2) -> int:
    if debug:
        traceback.print_exc()
    say(f"poise: {sentence}")
    return code


def _show_warning(said: set[str], message: Warning, *_: object) -> None:
    """Say a warning that was not `said` before."""
    text = in_options(message)
    if text not in said and os.environ.get("RANK", "0") == "0":  # of several processes of torchrun, one speaks
        said.add(text)
        say(f"warning: {text}")
