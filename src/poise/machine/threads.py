"""Threads that each take whole pieces of work, instead of sharing every operation.

Operations on small tensors take about as long as waking a second thread for them. So threads get pieces that need
nothing of each other, and within a piece every operation runs on one thread. What is computed does not depend on their
number.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")


class Crew(NamedTuple):
    """So many threads; without a `pool`, the calling one takes all pieces."""

    threads: int = 1
    pool: ThreadPoolExecutor | None = None

    def map(self, work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> list[Result]:
        """The work on every piece, results in their order."""
        if self.pool is None:
            return [work(piece) for piece in pieces]
        return list(self.pool.map(work, pieces))


ALONE = Crew()


@contextmanager
def crew(threads: int) -> Iterator[Crew]:
    """So many threads, at most as many as torch uses; within, no operation of torch is shared among threads."""
    before = torch.get_num_threads()
    threads = min(threads, before)
    torch.set_num_threads(1)
    try:
        if threads <= 1:
            yield ALONE
            return
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield Crew(threads, pool)
    finally:
        torch.set_num_threads(before)
