"""What the verbs have in common: a progress bar, and how notes and a result are said."""

import json
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from poise.cli import streams
from poise.errors import printed
from poise.machine.environment import processes, speaks
from poise.machine.progress import Pace

if TYPE_CHECKING:
    from rich.console import RenderableType

    from poise.cli.options import Voice
    from poise.commands.workload import Estimate, Work
    from poise.machine.progress import Progress
    from poise.values.features import Features
    from poise.values.problem import Problem

# What an argument is called here, where it is not --NAME: by its name, or by the words for one of its values.
CALLED = {
    "label": "--label, or -s data.label=NAME",
    "image": "--image, or -s data.image=NAME",
    "text": "--text, or -s data.text=NAME",
    "group": "--groups, or -s data.group=NAME",
    "root": "--root, or -s data.root=FOLDER",
    "format": "-s data.format=NAME",
    "broken": "--broken skip; not of poise extract",
    "device": "--device cpu, or -s device=cpu",
    "allow_changed": "--allow-changed (poise train)",
    "label_column": "--label",
    "seen_by_backbone=False": "--unseen",
    "seen_by_backbone=True": "--seen",
    "key": "#NAME",
    "key= (or FILE#NAME)": "FILE#NAME",
}


def in_options(said: Exception) -> str:
    """The message of an error or a warning; arguments of Python in it are called as the command line calls them."""
    message = str(said)
    for words in getattr(said, "arguments", ()):
        message = message.replace(words, f"({_option(words[1:-1])})" if words[0] == "(" else _option(words))
    return message


def _option(words: str) -> str:
    """The option for an argument in the words of Python, such as `layer=` or `fit(..., held_out=(X, y))`."""
    name = words[: words.index("=")].rpartition("(")[2].rpartition(" ")[2]
    return CALLED.get(words) or CALLED.get(name) or f"--{name.replace('_', '-')}"


def say(sentence: str) -> None:
    """One line on standard error; on a terminal, several that end between words. Names in it are shown escaped."""
    sentence = printed(sentence)
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        sentence = textwrap.fill(sentence, width, break_long_words=False, break_on_hyphens=False)
    streams.said(sentence)


def refuse_several_processes(verb: str, instead: str) -> None:
    """Raises: InputError if torchrun started several processes for a verb that is one."""
    from poise.errors import InputError

    if processes() > 1:
        raise InputError(f"{verb} runs in one process, torchrun started {processes()}; {instead}")


_WORDS: ContextVar[tuple[str, ...]] = ContextVar("_WORDS", default=())


def remember_words(words: Sequence[str]) -> None:
    """Keep the words of this call of the command line, for what is written to say how it came about."""
    _WORDS.set(tuple(words))


def command_line() -> str:
    """The command that is running, as it can be typed again."""
    return shlex.join(["poise", *_WORDS.get()])


def fit_of(source: str, options: Mapping[str, Any]) -> str:
    """The command that makes a model of what was looked at, with those of the options that have a value."""
    given = {name: value for name, value in options.items() if value not in (None, "", False)}
    words = (word for name, value in given.items() for word in ([name] if value is True else [name, str(value)]))
    return shlex.join(["poise", "fit", source, *words])


def say_replaced(place: Path, *results: str, quiet: bool) -> None:
    """One line on standard error if the file, or the folder with any of these results, holds what is replaced now."""
    there = any((place / name).is_file() for name in results) if results else place.is_file()
    if there and not quiet and speaks():
        say(f"note: {place} holds an earlier result, which this one replaces (--out keeps both)")


@contextmanager
def writing(out: Path, replaces: Sequence[str] = (), *, together: bool = False) -> Iterator[Path]:
    """Within, the folder `out` is for this run alone, or for those that work `together`.

    It is made if there is none, and goes again if nothing is written. The first of several processes claims it for all.

    Raises: InputError, before any work is done, if another run writes it, it cannot be written, or it is a mounted or
    the current folder and holds what a new result `replaces`.
    """
    from poise.machine.atomic import writable
    from poise.machine.folders import refuse_unreplaceable
    from poise.machine.locks import claimed

    if not speaks():
        yield out
        return
    remedy = f"choose another folder{'' if together else ' with --out'}"
    with claimed(out, remedy, together=together):
        made = not out.exists()
        writable(out, remedy)
        refuse_unreplaceable(out, replaces)
        try:
            yield out
        finally:
            if made and out.is_dir() and not any(out.iterdir()):
                out.rmdir()


SEEN = 15.0  # seconds of work that tell how long the rest of it takes
SELDOM = 600.0  # seconds between lines on work that takes hours
LONG = 5.0  # seconds from which on it is said before how long a run will take


def say_estimate(work: "Work", problem: "Problem", *more: "Features | None", quiet: bool) -> None:
    """One line on standard error on how long the work will take, if that is long; a warning if memory will not do.

    Nothing where it is one of several processes, which share the work in a way that was not measured.
    """
    from poise.commands.workload import available_bytes, foreseen

    if quiet or processes() > 1:
        return
    found = foreseen(work, problem, *more)
    if found.seconds > LONG:
        say(f"note: {work}, {found}")
    if shortage := _shortage(found, available_bytes()):
        say(f"warning: {shortage}")


def say_plan(work: "Work", found: "Estimate", voice: "Voice", *, remarks: Sequence[str]) -> None:
    """What a run would do, a line for each method, and how long that may take."""
    from poise.report.text import score_tables

    settings = {str(family): len(grid) for family, grid in work.grids}
    heads = {name: f"{number} {'setting' if number == 1 else 'settings'}" for name, number in settings.items()}
    data = {"settings": settings, "heads": work.heads, "folds": work.folds, **found._asdict()}
    answer(data, [score_tables.listing(heads), "", f"{work}, {found}"], voice, remarks=remarks)


def _shortage(found: "Estimate", available: int | None) -> str:
    """What to do where the memory that there is will not do; nothing else."""
    if available is None or found.bytes <= available:
        return ""
    return (
        f"this may need {found.bytes / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are free; try a smaller "
        "--budget, fewer methods (-m), or rows kept in a store of float16 (poise extract, poise.save_features), which "
        "is read from disk"
    )


@contextmanager
def progress_bar(what: str, *, quiet: bool) -> "Iterator[Progress]":
    """A bar on standard error with speed and time left; where that is no terminal, a line now and then.

    Words in brackets at the end of `what` are what is counted: "training (images)".
    """
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield _silent if quiet else _Lines(what)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[pace]}"),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        yield _Shown(what, bar)


def _silent(done: int, total: int) -> None:
    pass


class _Told:
    """Work that somebody follows: its pace, and the last word on it."""

    def __init__(self, what: str) -> None:
        self.what, self.word, self.pace = what, "", Pace()
        self.unit = what.rpartition("(")[2].removesuffix(")") if what.endswith(")") else ""

    def note(self, text: str) -> None:
        self.word = text

    def speed(self, total: int) -> str:
        """Speed and time left in words; nothing until they can be told."""
        from poise.commands.workload import in_words

        rate, rest = self.pace.rate, self.pace.rest(total)
        if rate is None or rest is None:
            return ""
        counted = f"{rate:,.0f} {self.unit}/s, " if self.unit and rate >= 1 else ""
        return f"{counted}about {in_words(rest)} to go"


class _Shown(_Told):
    """On a terminal."""

    def __init__(self, what: str, bar: Any) -> None:
        super().__init__(what)
        self.bar, self.task = bar, bar.add_task(what, total=None, pace="")

    def __call__(self, done: int, total: int) -> None:
        self.pace.told(time.monotonic(), done)
        said = f"{self.what}: {self.word}" if self.word else self.what
        self.bar.update(self.task, completed=done, total=total, pace=self.speed(total), description=said)


class _Lines(_Told):
    """Where no bar can be seen, as in the log of a job: a line while there is more than a minute to go, ever rarer."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.begun = time.monotonic()
        self.next = self.begun + SEEN

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        self.pace.told(now, done)
        rest = self.pace.rest(total)
        if now < self.next or rest is None or rest <= 60:
            return
        self.next = now + min(now - self.begun, SELDOM)
        word = f"{self.word}; " if self.word else ""
        say(f"note: {self.what}: {word}{self.speed(total)}")


def answer(
    data: Any,
    said: "Sequence[RenderableType]",
    voice: "Voice",
    *,
    written: Sequence[Path] = (),
    remarks: Sequence[str] = (),
) -> None:
    """Say a result once: as JSON, or as text for people, or not at all; then the paths written. Notes come first.

    With JSON, everything else goes to standard error, so that the output stays one JSON value.
    """
    for remark in remarks if not voice.quiet else ():
        say(f"note: {remark}")
    if voice.as_json:
        typer.echo(json.dumps(data))
    tell(said, voice)
    say_written(written, voice)


def tell(said: "Sequence[RenderableType]", voice: "Voice") -> None:
    """Text for people, where they are spoken to."""
    from rich.console import Console

    console = Console()
    for part in said if not voice.silent else ():
        if not isinstance(part, str):  # a table, whose cells hold one line each
            console.print(part, highlight=False, markup=False, emoji=False)
            continue
        # A command is to be copied, so it is not broken into lines.
        whole = part.startswith("next: ")
        text = "\n".join(map(printed, part.split("\n")))
        console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=whole)


def say_written(paths: Sequence[Path], voice: "Voice") -> None:
    """The paths written, one a line."""
    for path in paths:
        (say if voice.as_json else typer.echo)(printed(f"wrote {path}"))
