"""Optional packages: the one that is missing is named with its install command, and their chatter is held back."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any, TypeVar

from poise.errors import MissingExtraError

T = TypeVar("T")


def needed(module: str, extra: str | None, why: str) -> Any:
    """The module. Raises: MissingExtraError, in which `why` comes before the package: "figures need".

    `extra` of Poise holds the package; None for one that is no business of Poise, and is installed by its own name.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        wanted = package if extra is None else f"'poise[{extra}]'"
        raise MissingExtraError(f"{why} {package}: pip install {wanted}") from error


@contextmanager
def held_at(value: T, read: Callable[[], T], write: Callable[[T], object]) -> Iterator[None]:
    """Within, a setting of a library is `value`; afterwards it is what it was."""
    before = read()
    write(value)
    try:
        yield
    finally:
        write(before)


def without_bars(
    shown: Callable[[], bool], show: Callable[[], object], hide: Callable[[], object]
) -> AbstractContextManager[None]:
    """Within, a library shows no progress bars, which would be mixed with ours."""
    return held_at(False, shown, lambda on: show() if on else hide())
