"""How far a long piece of work is, told to whoever asked."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Progress = Callable[[int, int], object]
"""Called with what is done and what there is in all."""

Phase = Callable[[str], AbstractContextManager[Progress]]
"""A named stretch of work, and within it how far it is."""


@contextmanager
def unseen(what: str) -> Iterator[Progress]:
    """A phase that nobody watches."""
    yield lambda done, total: None


def part_of(progress: Progress | None, before: int, parts: int, size: int = 1) -> Progress | None:
    """Progress of the next `size` of equal `parts`, of which `before` are done, told as that of the whole."""
    if progress is None:
        return None
    return lambda done, total: progress(before * total + size * done, parts * total)
