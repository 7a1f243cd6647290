"""A command of Poise in a process of its own that is stopped at one of its operations on the disk.

    tried = run(["fit", "rows.csv", "--out", "out"], folder, at=17)    # killed at the 17th operation below `folder`

An operation is whatever changes the disk below the folder: a file opened for writing (before and after it is emptied),
a write (when half of it is flushed; of more than 8 to one file the 16th, 32nd and so on), rename, exchange, delete,
link, make or delete a folder, truncate, change of mode. Python's audit events tell of all of them but writes and the
exchange; those are watched by wrapping what opens files, and `folders._exchange`. What a library of Rust or C writes by
itself is not seen: its files appear between two operations.

The process is forked from this one, in which everything is imported: a run takes a fraction of a second. Its
`time.perf_counter`, which tells how long things took, stands still, so that the bytes of two runs can be compared.
"""

import builtins
import io
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

EACH = 8  # writes to one file that are each an operation; of later ones the 16th, 32nd and so on
Act = Callable[[str], None]  # told of an operation, before it is done

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Where in the arguments of an audit event the paths are, and the handles of the folders that they start from.
_EVENTS: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.rmdir": ((0, 1),),
    "os.link": ((0, 2), (1, 3)),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.utime": ((0, 3),),
}


class Tried(NamedTuple):
    """How a command ended (its exit code, or less than 0 for a signal) and what it said.

    `operations` are named; of a killed process, the one at which it ended. `modules` is what one that was not killed
    had imported.
    """

    code: int
    said: str
    operations: tuple[str, ...]
    modules: tuple[str, ...]

    @property
    def killed(self) -> bool:
        """Did it come to the operation at which it was to be killed?"""
        return self.code == -signal.SIGKILL


def run(words: Sequence[str], folder: Path, at: int = 0, patch: Callable[[], object] | None = None) -> Tried:
    """The command in `folder`, killed at its operation number `at` (from 1); to its end if it has fewer, or for 0."""
    return ended(start(words, folder, lambda names: _kill_at(at, names), patch))


def _kill_at(at: int, names: list[str]) -> Act:
    def act(name: str) -> None:
        names.append(name)
        if len(names) == at:
            raise Now

    return act


def warm(done: Tried) -> None:
    """Import here what a finished command had imported, so that it takes less time when it is run again.

    Nothing is run here: a process in which libraries have started threads cannot be forked.
    """
    for name in done.modules:
        if name not in sys.modules and not name.startswith("__"):
            with suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import_module(name)


class Now(BaseException):
    """Raised by an `Act`: the process is to end here, by a signal that it cannot hear."""


class Running(NamedTuple):
    """A command that was started: its process, and the files of what it says and does."""

    process: int
    said: Any
    done: Any


def start(
    words: Sequence[str],
    folder: Path,
    watcher: Callable[[list[str]], Act],
    patch: Callable[[], object] | None = None,
) -> Running:
    """Start the command in `folder`; `watcher` makes what is told of operations, from a list for their names.

    `patch` is called before the command, in its process.
    """
    said, done = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside other threads, which the child has not
        process = os.fork()
    if process:
        return Running(process, said, done)
    code = 70
    try:
        code = _child(words, folder, watcher, patch, said.fileno(), done.fileno())
    finally:
        os._exit(code)


def _child(
    words: Sequence[str],
    folder: Path,
    watcher: Callable[[list[str]], Act],
    patch: Callable[[], object] | None,
    said: int,
    done: int,
) -> int:
    from poise.cli import main

    for number in (1, 2):
        os.dup2(said, number)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    os.chdir(folder)
    time.perf_counter = lambda: 0.0
    if patch is not None:
        patch()
    names: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        watch(folder, watcher(names), done)
        try:
            main(list(words))
            return 71
        except SystemExit as stop:
            return int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            with open(done, "w", encoding="utf-8", closefd=False) as file:
                file.write("\n".join(names) + "\0" + "\n".join(sys.modules))


def ended(running: Running, seconds: float = 120.0) -> Tried:
    """What became of a command, once it has ended. Raises: TimeoutError, after it was killed."""
    until = time.monotonic() + seconds
    pause = 0.0005
    while not (status := os.waitpid(running.process, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(running.process, signal.SIGKILL)
            os.waitpid(running.process, 0)
            raise TimeoutError(f"a command has not ended after {seconds} s")
        time.sleep(pause := min(pause * 1.5, 0.01))
    texts = []
    for file in (running.said, running.done):
        file.seek(0)
        texts.append(file.read().decode(errors="replace"))
        file.close()
    operations, _, modules = texts[1].partition("\0")
    return Tried(
        os.waitstatus_to_exitcode(status[1]), texts[0], tuple(operations.splitlines()), tuple(modules.splitlines())
    )


# --- what is watched --------------------------------------------------------------------------------------------------


def watch(folder: Path, act: Act, done: int) -> None:
    """From now on, `act` is told of every operation below `folder`; where it raises `Now`, this process is killed.

    The name of the operation is written to the file with the number `done` before.
    """
    root = os.path.realpath(folder)

    def told(name: str, *places: str) -> None:
        near = [os.path.relpath(place, root) for place in places if place == root or place.startswith(root + os.sep)]
        if not near:
            return
        try:
            act(" ".join([name, *near]))
        except Now:
            os.write(done, " ".join([name, *near]).encode())
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(lambda event, values: _heard(event, values, told))
    _watch_files(told)
    folders: Any = import_module("poise.machine.folders")
    exchange = folders._exchange

    def exchanged(one: Path, other: Path) -> bool:
        told("exchange", _place(one), _place(other))
        return bool(exchange(one, other))

    folders._exchange = exchanged


def _heard(event: str, values: tuple[Any, ...], told: Callable[..., None]) -> None:
    if event == "open":
        path, _, flags = values
        if isinstance(flags, int) and flags & _WRITES and isinstance(path, str | bytes | os.PathLike):
            told("open", _place(path))
    elif event in _EVENTS:
        told(event, *(_place(values[at], -1 if base is None else values[base]) for at, base in _EVENTS[event]))


def _place(path: Any, base: int = -1) -> str:
    """The whole path of a file, which is named by its path or its number."""
    if isinstance(path, int):
        return _of_handle(path)
    return os.path.normpath(os.path.join(os.getcwd() if base in (-1, None) else _of_handle(base), os.fsdecode(path)))


def _of_handle(handle: int) -> str:
    return os.readlink(f"/proc/self/fd/{handle}")


def _watch_files(told: Callable[..., None]) -> None:
    """Tell of files that were just opened, and so perhaps emptied, and of writes when half of them is done."""
    opens = io.open

    def opened(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        stream = opens(file, mode, *more, **options)
        if set(mode) & set("wax+"):
            place = _place(file)
            told("opened", place)
            stream.write = _in_halves(stream, place, told)
        return stream

    io.open = builtins.open = opened  # type: ignore[assignment]


def _in_halves(stream: Any, place: str, told: Callable[..., None]) -> Callable[[Any], int]:
    """The method `write` of a file, in two steps."""
    writes, numbers = stream.write, count(1)

    def written(data: Any) -> int:
        whole = data if isinstance(data, str) else memoryview(data).cast("B")
        number = next(numbers)
        if number > EACH and number & (number - 1):
            return int(writes(data))
        half = len(whole) // 2
        first = writes(whole[:half])
        stream.flush()
        told("write", place)
        return int(first + writes(whole[half:]))

    return written
