"""Numbers that the environment says, such as those by which `torchrun` tells a process its place."""

import os

from poise.errors import InputError

DIGITS = 18  # of a whole number below 2^63


def whole_number(variable: str, default: int) -> int:
    """The variable as a whole number, 0 or more; `default` if it is not set or empty. Raises: InputError naming it."""
    said = os.environ.get(variable, "").strip() or str(default)
    if not (said.isascii() and said.isdigit() and len(said) <= DIGITS):
        raise InputError(f"the environment says {variable}={said!r:.80}, which is no whole number; correct or unset it")
    return int(said)


def processes() -> int:
    """How many processes `torchrun` started. Raises: InputError if WORLD_SIZE is no whole number."""
    return max(1, whole_number("WORLD_SIZE", 1))


def speaks() -> bool:
    """Is this the one process of several that says something? Whatever RANK holds, it can be asked in any message."""
    return os.environ.get("RANK", "").strip() in ("", "0")
