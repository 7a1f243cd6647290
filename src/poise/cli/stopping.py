"""Interrupt and termination of a command: heard at once, and again where a library swallowed them."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from poise.cli.streams import said

AGAIN = 0.5  # seconds after which a stop that did not get through is raised once more


class Interrupted(KeyboardInterrupt):
    """An interrupt of its own type.

    CPython ends as if killed, whatever the exit code, once a plain KeyboardInterrupt has left a text given to `exec`,
    which libraries do while they are imported (`unhandled_keyboard_interrupt` of its runtime).
    """


class Terminated(SystemExit):
    """SIGTERM; the exit code is 143."""


@contextmanager
def heard() -> Iterator[None]:
    """Within, SIGINT raises `Interrupted` and SIGTERM says so and raises `Terminated`, until one of them has left.

    An exception that a signal raises is lost where the code of a library that happens to run swallows everything
    (callbacks of C, destructors, `except:`). It is therefore raised anew until the block is being left.
    """
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else somebody wants interrupts to be ignored
        signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        _repeat(0)


def _terminate(number: int, _: object) -> None:
    said("poise: terminated")
    _raise(Terminated(128 + number))


def _interrupt(*_: object) -> None:
    _raise(Interrupted())


def _raise(stop: BaseException) -> None:
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, partial(_again, stop))
        _repeat(AGAIN)
    raise stop


def _again(stop: BaseException, *_: object) -> None:
    if stop not in _handled():  # else it got through, and what has to be left in order is being left
        raise stop


def _handled() -> Iterator[BaseException]:
    """The exception that is being handled, and those it came from."""
    error = sys.exception()
    while error is not None:
        yield error
        error = error.__context__


def _repeat(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
