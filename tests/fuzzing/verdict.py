"""One input: made of a seed by its number, read, and judged.

    case = made(kind, seeds, number, seed)
    verdict = judged(kind, case, folder)

An input is right if the reader returns, or raises exactly one PoiseError whose text is one line of a bounded length
without control characters. All else is a finding.
"""

import contextlib
import io
import os
import random
import resource
import shutil
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fuzzing.formats import mutated
from poise.errors import LONGEST, PoiseError, PoiseWarning, printed

Files = Mapping[str, bytes]  # a folder: content by name

SLOW = 5.0  # seconds of computing
HANG = 20.0  # seconds that pass, on a busy machine too
MEMORY = 2**30  # bytes above what the process had
FLOOD = 20  # warnings of one input
PLACES = 0.02  # the share of inputs whose file is replaced by what is no file


class Kind(NamedTuple):
    """One kind of what Poise reads.

    `seeds` makes folders that are read without complaint in an empty folder; `read` reads such a folder; `mended` gives
    files that go with mutated ones, such as a checksum, and is used half of the time; `words` are calls of the command
    line, where {} is the folder. `kept` are files that no mutation touches; `needs` are packages that may be missing.
    """

    name: str
    seeds: Callable[[Path], Sequence[Path]]
    read: Callable[[Path], object]
    words: tuple[tuple[str, ...], ...] = ()
    mended: Callable[[dict[str, bytes]], None] | None = None
    kept: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


class Case(NamedTuple):
    """An input: the files of a folder, what was done to which, and the words of the command line, if it goes there.

    `place`: a file that is replaced by "fifo", "folder", "zero" (a link to /dev/zero), "loop" (a link to itself) or
    nothing ("missing").
    """

    files: Files
    file: str
    done: str
    place: str = ""
    words: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """`outcome` is read, sentence or finding; `what` says which finding, `where` is the place of the exception."""

    outcome: str
    what: str = ""
    where: str = ""
    detail: str = ""


def seeds_of(kind: Kind, folder: Path) -> list[Files]:
    """The seeds of a kind as bytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = kind.seeds(folder / kind.name.replace(" ", "_"))
    return [{file.relative_to(root).as_posix(): file.read_bytes() for file in _below(root)} for root in made]


def _below(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))


def made(kind: Kind, seeds: Sequence[Files], number: int, seed: int, commands: float = 0.0) -> Case:
    """Input `number` of a kind; `commands` is the share that goes through the command line."""
    draws = random.Random(f"{seed} {kind.name} {number}")
    files = dict(draws.choice(seeds))
    name = draws.choice([name for name in files if name not in kind.kept])
    words = draws.choice(kind.words) if kind.words and draws.random() < commands else ()
    if draws.random() < PLACES:
        return Case(files, name, "no file", draws.choice(("fifo", "folder", "zero", "loop", "missing")), words)
    other = draws.choice(list(draws.choice(seeds).values()))
    files[name], done = mutated(name, files[name], draws, other)
    if kind.mended is not None and draws.random() < 0.7:
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
            kind.mended(files)
            done += ", mended"
    return Case(files, name, done, "", words)


def laid(case: Case, folder: Path) -> None:
    """Write the files of a case to a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if case.place:
        path = folder / case.file
        path.unlink()
        put = {"fifo": os.mkfifo, "folder": os.mkdir, "zero": _link("/dev/zero"), "loop": _link(path.name)}
        put.get(case.place, lambda path: None)(path)


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def judged(kind: Kind, case: Case, folder: Path) -> Verdict:
    """Read the case below `folder`, and judge what happens."""
    laid(case, folder)
    began, computed = time.perf_counter(), time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with warnings.catch_warnings(record=True) as said, _quiet(), bounded(HANG, MEMORY):
        warnings.simplefilter("always")
        try:
            verdict = _by_words(case, folder) if case.words else _by_library(kind, folder)
        except BaseException as error:  # a panic of Rust is no Exception
            verdict = _finding(type(error).__name__, error)
    took, worked = time.perf_counter() - began, time.process_time() - computed
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    if verdict.outcome == "finding":
        return verdict
    if took > HANG or worked > SLOW:
        return Verdict("finding", "slow", kind.name, f"{took:.1f} s, {worked:.1f} of them computing")
    if grown > MEMORY:
        return Verdict("finding", "memory", kind.name, f"{grown / 1e9:.2f} GB")
    return _of_warnings(said) or verdict


def _by_library(kind: Kind, folder: Path) -> Verdict:
    try:
        kind.read(folder)
    except PoiseError as error:
        return _of_sentence(str(error), error)
    return Verdict("read")


def _by_words(case: Case, folder: Path) -> Verdict:
    from poise.cli import main

    heard = io.StringIO()
    here, shown = os.getcwd(), warnings.showwarning
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(heard):
            main([word.replace("{}", str(folder)) for word in case.words])
    except SystemExit as error:
        text = heard.getvalue()
        if error.code not in (0, 2) or "Traceback" in text:
            return Verdict("finding", f"exit code {error.code}", case.words[0], text[-500:])
        *_, last = [line for line in text.splitlines() if line.startswith("poise: ")] or [""]
        if "fault of Poise" in last:
            return Verdict("finding", "fault of Poise", case.words[0], last)
        if error.code == 2 and not last:
            return Verdict("finding", "exit code 2 without a sentence", case.words[0], text[-500:])
        return Verdict("sentence" if error.code else "read")
    finally:
        os.chdir(here)
        warnings.showwarning = shown
    return Verdict("finding", "no exit code", case.words[0])


def _of_sentence(text: str, error: BaseException) -> Verdict:
    if len(text) > LONGEST + 10:
        return _finding("a sentence of many characters", error)
    if printed(text) != text:
        return _finding("a sentence with control characters", error)
    if any(isinstance(each, MemoryError) or "allocate" in str(each)[:300] for each in _chain(error)):
        return _finding("memory asked for", error)
    return Verdict("sentence")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _of_warnings(said: Sequence[warnings.WarningMessage]) -> Verdict | None:
    if len(said) > FLOOD:
        return Verdict("finding", "a flood of warnings", said[0].filename, f"{len(said)}: {said[0].message!s:.200}")
    for each in said:
        text = str(each.message)
        if issubclass(each.category, PoiseWarning) and printed(text) != text:
            return Verdict("finding", "a warning with control characters", f"{each.filename}:{each.lineno}", text[:200])
    return None


def _finding(what: str, error: BaseException) -> Verdict:
    """Where: the last line of Poise's own, and the line that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename.rpartition('/poise/')[2]}:{frame.lineno}" for frame in frames if _ours(frame.filename)]
    detail = "".join(traceback.format_exception_only(error)).strip()[:300]
    return Verdict("finding", what, places[-1] if places else "?", detail)


def _ours(filename: str) -> bool:
    return "/poise/" in filename and "site-packages" not in filename


class HangError(BaseException):
    """Raised in whatever does not end."""


@contextlib.contextmanager
def bounded(seconds: float, memory: int) -> Iterator[None]:
    """Within, memory ends `memory` bytes above what the process has now, and HangError is raised after `seconds`.

    Only in the main thread, and not while a library does not come back to Python; for that there is the watchdog of
    the long run.
    """

    def ring(*_: object) -> None:
        raise HangError

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, ring)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, limits[1]))
    left = signal.setitimer(signal.ITIMER_REAL, seconds)  # that of the test around it goes on below
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *left)
        resource.setrlimit(resource.RLIMIT_AS, limits)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what libraries print."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
