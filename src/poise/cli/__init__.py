"""The command line: every verb loads, calls the library once, saves, and prints where.

Heavy modules are imported inside the verbs, so that help and mistakes answer at once. Exit codes: 0 done, 2 the input
cannot be used, 70 a fault of Poise, 130 interrupted, 143 terminated.
"""

import inspect
import os
import sys
import traceback
import warnings
from functools import partial
from typing import Annotated, Any

import typer

from poise import __version__
from poise.cli import (
    check,
    compare,
    evaluate,
    explore,
    export,
    fit,
    images,
    predict,
    rebalance,
    report,
    streams,
    tune,
)
from poise.cli.options import spread
from poise.cli.shared import in_options, remember_words, say
from poise.cli.stopping import heard
from poise.errors import PoiseError, in_one_line, printed, reason_of
from poise.machine.environment import speaks

# What typer raises for words it does not know. It has no public name there, and the package it comes from has changed;
# it is the base of this public one.
USAGE_ERROR: Any = typer.BadParameter.__base__

FAULT = 70  # the exit code of a fault of ours, as sysexits.h has it for programs; what a user can mend ends with 2

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
    epilog="Exit codes: 0 done, 2 the input cannot be used, 70 a fault of Poise, 130 interrupted, 143 terminated. "
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
    fit.fit,
    predict.predict,
    evaluate.evaluate,
    check.check,
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
    if not os.environ.get("SOURCE_DATE_EPOCH", "0").isdecimal():
        del os.environ["SOURCE_DATE_EPOCH"]  # numpy and matplotlib end with a traceback if it is no number
    warnings.showwarning = partial(_show_warning, set())
    streams.prepare()
    with heard():
        code = _run([word for word in given if word != "--debug"], debug="--debug" in given)
        streams.settle()
    raise SystemExit(code)


def _run(words: list[str], *, debug: bool) -> int:
    remember_words(words)
    try:
        code = int(app(args=words or ["--help"], prog_name="poise", standalone_mode=False) or 0)
        sys.stdout.flush()  # what cannot be said is known now, not when the interpreter ends
        if not words:
            return 2
        return _interrupted() if code == 130 else code  # typer answers an interrupt with this code, silently
    except USAGE_ERROR as error:
        said = " ".join(error.format_message().split()).rstrip(".")
        verb = _verb(error)
        meant = MORE_WORDS.get(verb, "") if said.startswith("Got unexpected extra argument") else ""
        return _refuse(f"{said}; {meant}see `{verb} --help`", debug) if said else 2
    except PoiseError as error:
        return _refuse(in_options(error), debug, error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BaseException as error:  # libraries in Rust panic with errors that are no Exception
        return _broke_off(error, debug)


def _broke_off(error: BaseException, debug: bool) -> int:
    """The exit code for what no module raises on purpose, and the sentence for it."""
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
        return 0  # the reader has gone, as in `poise demo | head`: typer may have met that itself
    if isinstance(error, SystemExit):
        raise error
    sentence = _unforeseen(error)
    return _refuse(_fault(error), debug, FAULT) if sentence is None else _refuse(sentence, debug)


def _unforeseen(error: BaseException) -> str | None:
    """The sentence for what the machine refuses at a place where no module expects it; None for all else."""
    if isinstance(error, MemoryError):
        return "there is too little memory; free some, or give fewer rows"
    if isinstance(error, ImportError):  # as of torch, whose libraries do not fit into little memory
        return f"a library cannot be loaded ({reason_of(error)}); free memory, or install it again"
    if not isinstance(error, OSError):
        return None
    return f"{error.filename}: {reason_of(error)}" if error.filename else reason_of(error)


def _fault(error: BaseException) -> str:
    """What to say of an error that nobody foresaw: what it is, where it came up, and what helps."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f"{os.sep}poise{os.sep}" in f.filename]
    where = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    return (
        f"this is a fault of Poise: {type(error).__name__}: {in_one_line(reason_of(error))}{where}; nothing of yours "
        "need be wrong; --debug shows the traceback, please report it"
    )


def _interrupted() -> int:
    streams.said("poise: interrupted")
    return 130


def _verb(error: Any) -> str:
    return str(error.ctx.command_path) if error.ctx else "poise"


def _refuse(sentence: str, debug: bool, code: int = 2) -> int:
    if debug:
        typer.echo("\n".join(map(printed, traceback.format_exc().split("\n"))), err=True)
    say(f"poise: {sentence}")
    return code


def _show_warning(said: set[str], message: Warning, *_: object) -> None:
    """Say a warning that was not `said` before."""
    text = in_options(message)
    if text not in said and speaks():  # of several processes of torchrun, one speaks
        said.add(text)
        say(f"warning: {text}")
