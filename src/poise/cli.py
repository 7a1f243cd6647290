"""The command line: every verb loads, calls the library once, saves, and prints where.

Heavy modules are imported inside the verbs, so that help and mistakes answer at once. Exit codes: 0 done, 2 the input
cannot be used, 130 interrupted, 143 terminated.
"""

import io
import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from poise import __version__
from poise.errors import PoiseError

__all__ = ["app", "main"]

# What typer raises for words it does not know. It has no public name there, and the package it comes from has changed;
# it is the base of this public one.
USAGE_ERROR: Any = typer.BadParameter.__base__

app = typer.Typer(
    name="poise",
    help="Re-balance classifiers trained on long-tailed data: every head, one pass, honest comparison.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Exit codes: 0 done, 2 the input cannot be used, 130 interrupted, 143 terminated.",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors and the paths written.")]


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


@app.command()
def demo(
    features: Annotated[
        str, typer.Option("--set", help="cifar100lt_r32_autoaugment or cifar100lt_r32.")
    ] = "cifar100lt_r32_autoaugment",
    seed: Annotated[int, typer.Option(min=0, help="Seed of row orders and fresh starts.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for records.jsonl, summary.csv and summary.md.  [default: runs/demo/SET]"),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train every method on real CIFAR-100-LT features in one pass and print the table."""
    from poise import runs
    from poise.checks import check_one_of
    from poise.data import DEMO_SETS
    from poise.demo import NOTES, run_demo
    from poise.report.tables import to_terminal

    check_one_of("--set", features, DEMO_SETS)
    folder = runs.prepare(out or Path("runs/demo") / features)
    begun = time.perf_counter()
    with _progress("training heads", quiet=quiet or as_json) as report:
        records = run_demo(features, seed=seed, progress=report)
    written = runs.write(folder, records, notes=NOTES)
    for remark in records[0].remarks:
        typer.echo(f"warning: {remark}", err=True)
    if as_json:
        typer.echo(json.dumps([record.to_dict() for record in records]))
    elif not quiet:
        console = Console()
        console.print(to_terminal(records, title=DEMO_SETS[features]))
        for note in NOTES:
            console.print(note, style="dim", highlight=False)
        console.print(f"\n{len(records)} heads in {time.perf_counter() - begun:.1f} s", highlight=False)
    typer.echo("\n".join(f"wrote {path}" for path in written), err=as_json)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="A method to explain; without one, all are listed.")] = None,
    as_json: Json = False,
) -> None:
    """List the methods, or explain one: formula, parameters, published recipes."""
    from poise import catalogue

    listing = catalogue.describe_all() if name is None else catalogue.describe(name)
    if as_json:
        typer.echo(json.dumps(listing.data))
        return
    Console().print(listing.text, highlight=False, markup=False, soft_wrap=False)


@contextmanager
def _progress(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error; silent where that is no terminal."""
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a refused input is one sentence on standard error and exit code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    # Must be set before torch is loaded. Threads that spin while they wait make a busy machine ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows a question mark
    signal.signal(signal.SIGTERM, _terminated)
    raise SystemExit(_run([word for word in given if word != "--debug"], debug="--debug" in given))


def _run(words: list[str], *, debug: bool) -> int:
    try:
        code = int(app(args=words, prog_name="poise", standalone_mode=False) or 0)
        return _interrupted() if code == 130 else code  # typer answers an interrupt with this code, silently
    except USAGE_ERROR as error:
        return _refuse(f"{error.format_message().rstrip('.')}; see `{_verb(error)} --help`", debug)
    except PoiseError as error:
        return _refuse(str(error), debug)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:
        # The reader has gone, as in `poise demo | head`; nothing more can be said on this stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _interrupted() -> int:
    typer.echo("poise: interrupted", err=True)
    return 130


def _verb(error: Any) -> str:
    return str(error.ctx.command_path) if error.ctx else "poise"


def _refuse(sentence: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    typer.echo(f"poise: {sentence}", err=True)
    return 2


def _show_warning(message: Warning | str, *_: object) -> None:
    typer.echo(f"warning: {message}", err=True)


def _terminated(number: int, frame: object) -> None:
    typer.echo("poise: terminated", err=True)
    raise SystemExit(128 + number)
