"""How far a long piece of work is, told to whoever asked, and how long the rest of it takes."""

from collections import deque
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


def note_of(progress: Progress | None) -> Callable[[str], object]:
    """Where a word on the work goes, such as its loss: to whoever shows the progress, if that shows words."""
    return getattr(progress, "note", lambda text: None)


class Pace:
    """How fast work goes: by what was done in the last `window` seconds, since the first steps of anything are slow.

    Work that goes on from what was saved begins with a part done, which took no time here.
    """

    def __init__(self, window: float = 30.0) -> None:
        self.window = window
        self._told: deque[tuple[float, int]] = deque()

    def told(self, now: float, done: int) -> None:
        """At the time `now`, in seconds, so much was done."""
        self._told.append((now, done))
        # The last one before the window stays: from there on the window is counted.
        while len(self._told) > 2 and self._told[1][0] <= now - self.window:
            self._told.popleft()

    @property
    def rate(self) -> float | None:
        """What is done in a second; None until that can be told.

        >>> pace = Pace()
        >>> for now, done in ((0.0, 500), (20.0, 510), (40.0, 530), (60.0, 550)):
        ...     pace.told(now, done)
        >>> pace.rate
        1.0
        """
        if len(self._told) < 2:
            return None
        (begun, before), (now, done) = self._told[0], self._told[-1]
        return (done - before) / (now - begun) if now > begun and done > before else None

    def rest(self, total: int) -> float | None:
        """Seconds that are left until `total` is done; None until that can be told."""
        rate = self.rate
        return None if rate is None else max(0.0, total - self._told[-1][1]) / rate
