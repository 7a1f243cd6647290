"""A folder or a file that one run at a time may write, and the wish to stop a run that is writing."""

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from poise.errors import InputError, reason_of

LOCK = ".lock"
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}


@contextmanager
def claimed(place: Path, remedy: str = "choose another folder", *, together: bool = False) -> Iterator[None]:
    """Within, no other run can claim the folder or file `place`; the claim ends with the process, however that ends.

    `together`: only runs that say the same may claim it meanwhile. Nothing is made at `place` itself: the lock is a
    file beside it, which goes at the end.

    Raises: InputError naming the process and machine that hold it, or if nothing can be written there.
    """
    path = place.resolve()
    lock = _lock_of(path)
    try:
        os.fsencode(path).decode()
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
        handle = _taken(lock, together=together)
        if handle is None and together:  # the last one that leaves holds it alone for a moment
            time.sleep(0.1)
            handle = _taken(lock, together=together)
    except UnicodeDecodeError:
        raise InputError(f"the name of {place} is not UTF-8, so that files cannot name it; choose another") from None
    except OSError as error:
        raise InputError(f"cannot write into {place} ({reason_of(error)}); {remedy}") from None
    if handle is None:
        raise InputError(f"{place} is in use by another run{_holder(lock)}; wait for it, or {remedy}")
    try:
        if not together:
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        if not together or _lock(handle):  # the last one
            with suppress(OSError):
                lock.unlink()
        os.close(handle)


def _lock_of(path: Path) -> Path:
    """Beside it, so that it stays where it is while a folder is replaced; within what has no other place to share."""
    if path.is_dir() and has_no_place_beside(path):
        return path / LOCK
    return path.with_name(f".{path.name}{LOCK}")


def has_no_place_beside(folder: Path) -> bool:
    """Is it mounted, or does it lie in a folder where nothing can be written?"""
    return os.path.ismount(folder) or not os.access(folder.parent, os.W_OK)


def _holder(lock: Path) -> str:
    try:
        held = lock.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return f" ({held})" if held else ""


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


@contextmanager
def shut(folder: Path) -> Iterator[None]:
    """Within, a folder is not taken for an unused `place`, whatever name it gets."""
    handle = os.open(folder, os.O_RDONLY) if folder.is_dir() else None
    try:
        if handle is not None:
            _lock(handle)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _taken(place: Path, folder: bool = False, together: bool = False) -> int | None:
    """A handle that holds the lock on `place`, now empty; None if it is somebody else's."""
    while True:
        try:
            handle = _opened(place, folder)
        except FileNotFoundError:
            if folder and place.parent.exists():  # renamed between the two steps
                continue
            raise
        try:
            if not _lock(handle, together):
                os.close(handle)
                return None
            # Whoever owned it may have renamed or deleted it meanwhile: then this handle is not that of the name.
            if os.path.samestat(os.fstat(handle), os.lstat(place)):
                _empty(place, handle, folder)
                return handle
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _opened(place: Path, folder: bool) -> int:
    if not folder:
        return os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    place.mkdir(mode=0o755, exist_ok=True)
    return os.open(place, os.O_RDONLY)


def _lock(handle: int, together: bool = False) -> bool:
    """Lock a file until the handle is closed or the process ends; True where the system or the disk knows no locks."""
    try:
        import fcntl

        fcntl.flock(handle, (fcntl.LOCK_SH if together else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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
