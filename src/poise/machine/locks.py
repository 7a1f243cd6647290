"""A folder that one run at a time may write, and the wish to stop a run that is writing."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from poise.errors import InputError, reason_of

LOCK = ".lock"
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within, no other run can claim `folder`; the claim ends with the process, however that ends.

    Raises: InputError naming the process and machine that hold the folder.
    """
    from filelock import FileLock, Timeout

    path = folder / LOCK
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        holder = _holder(folder)
        raise InputError(f"{folder} is in use by another run{holder}; wait for it, or choose another folder") from None
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({reason_of(error)}); choose another folder") from None
    try:
        (folder / f"{LOCK}.holder").write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        (folder / f"{LOCK}.holder").unlink(missing_ok=True)
        lock.release()


def _holder(folder: Path) -> str:
    path = folder / f"{LOCK}.holder"
    return f" ({path.read_text()})" if path.exists() else ""


class Wish:
    """Set by a signal; `code` is the exit code that belongs to it."""

    def __init__(self) -> None:
        self.code: int | None = None

    def __call__(self) -> bool:
        """Is the run to stop?"""
        return self.code is not None


@contextmanager
def stoppable() -> Iterator[Wish]:
    """Within, SIGINT, SIGTERM and SIGUSR1 (a batch system's warning) only set the wish to stop; a second one acts.

    Signals can be handled in the main thread of a program only; elsewhere the wish is never set.
    """
    wish = Wish()
    before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def heard(number: int, frame: FrameType | None) -> None:
        wish.code = EXIT_CODES[signal.Signals(number)]
        for name, handler in before.items():
            signal.signal(name, signal.default_int_handler if name == signal.SIGINT else handler)

    try:
        for name in EXIT_CODES:
            before[name] = signal.signal(name, heard)
    except ValueError:
        before.clear()
    try:
        yield wish
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
