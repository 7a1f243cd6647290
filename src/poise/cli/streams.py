"""Standard output and standard error as they may be: closed, full, or with a reader that has gone.

What was to be said there is lost, and that is all: a remark that nobody can read stops no work, and nothing is said
about it when the interpreter ends.
"""

import contextlib
import io
import os
import sys
from typing import TextIO


def prepare() -> None:
    """Open what is closed, so that no file that is opened later takes its number.

    A terminal that cannot show a character shows a question mark.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # it stays open
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def settle() -> None:
    """Say what is left to say on standard output, or let it go, so that the interpreter does not stumble over it."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        silence(sys.stdout)


def silence(stream: TextIO) -> None:
    """Let what a stream still holds, and all that follows, go nowhere."""
    with contextlib.suppress(OSError, ValueError):  # a stream of a test, or of a notebook, is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def said(sentence: str) -> None:
    """One sentence on standard error, if that takes it."""
    try:
        sys.stderr.write(f"{sentence}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        silence(sys.stderr)
