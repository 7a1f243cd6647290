"""A folder or a file that one run at a time may write, and the wish to stop a run that is writing."""

import os
import shutil
import signal
import socket
import time
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


@contextmanager
def owned(place: Path, target: Path, patience: float = 0.0, *, folder: bool = False) -> Iterator[Path]:
    """Within, `place` is a new empty file (or folder) that belongs to this block alone, until `target` is written.

    It is not deleted at the end. What a dead process left there is gone: the lock that it held went with it.

    Raises: OSError; InputError naming `target` if another block still owns it after `patience` seconds.
    """
    until = time.monotonic() + patience
    while (handle := _taken(place, folder)) is None:
        if time.monotonic() >= until:
            raise InputError(f"{target} is being written by another run; wait for it, or choose another place")
        time.sleep(0.02)
    try:
        yield place
    finally:
        os.close(handle)


def _taken(place: Path, folder: bool) -> int | None:
    """A handle that holds the lock on `place`, now empty; None if it is somebody else's."""
    if folder:
        place.mkdir(mode=0o755, exist_ok=True)
    handle = os.open(place, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        # Whoever owned it may have renamed or deleted it meanwhile: then this handle is not that of the name any more.
        if _lock(handle) and os.path.samestat(os.fstat(handle), os.lstat(place)):
            _empty(place, handle, folder)
            return handle
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _lock(handle: int) -> bool:
    """Lock a file until the handle is closed or the process ends; True where the system or the disk knows no locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return True
    return True


def _empty(place: Path, handle: int, folder: bool) -> None:
    if not folder:
        os.truncate(handle, 0)
        return
    for name in os.listdir(place):
        path = place / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


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
