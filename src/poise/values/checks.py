"""Arguments refused at the door: the name, the value and what would do."""

import math
import numbers
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from poise.errors import InputError
from poise.values.wording import near


def is_number(value: Any) -> bool:
    """Is it a finite real number (numpy's too), and no boolean?"""
    try:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floating-point numbers
        return False


def is_whole(value: Any) -> bool:
    """Is it an integer (numpy's too), and no boolean?"""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_number(name: str, value: Any) -> None:
    """Raises: InputError unless value is a finite number."""
    if not is_number(value):
        raise InputError(f"{name} must be a finite number, got {value!r}")


def check_inside(name: str, value: Any, low: float, high: float, hint: str) -> None:
    """Raises: InputError unless low <= value < high."""
    if not is_number(value) or not low <= value < high:
        raise InputError(f"{name} must lie in [{low}, {high}), got {value!r}; {hint}")


def check_positive(name: str, value: Any) -> None:
    """Raises: InputError unless value is a finite number above 0."""
    if not is_number(value) or not value > 0:
        raise InputError(f"{name} must be positive and finite, got {value!r}")


def check_one_of(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Raises: InputError unless value is one of `allowed`."""
    if value not in (names := list(allowed)):
        raise InputError(f"{name} must be one of {', '.join(names)}; got {value!r}")


def check_names(names: Iterable[Any]) -> None:
    """Raises: InputError for a class name with half of a character, which no file of text can hold."""
    for name in names:
        if any("\ud800" <= character <= "\udfff" for character in str(name)):
            raise InputError(f"the class name {name!r:.80} holds half of a character, which has no UTF-8; rename it")


def existing(path: Path) -> Path:
    """The path itself. Raises: InputError if nothing is there, with the name that is nearest."""
    if os.path.exists(path):  # unlike Path, it bears any length
        return path
    if not os.path.isdir(path.parent):
        raise InputError(f"there is no file or folder {path}; the folder {path.parent} does not exist either")
    raise InputError(f"there is no file or folder {path}{near(path.name, os.listdir(path.parent))}")
