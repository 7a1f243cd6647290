"""How a kind is written down: right files made in folders, and readers of such a folder."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from poise.errors import InputError, PoiseError

NAMES = ("ant", "bee", "cat tail", "d", "e")
CLASSES, DIM, ROWS = 5, 8, 40


def one_folder(write: Callable[[Path], object]) -> Callable[[Path], Sequence[Path]]:
    """Seeds that are one folder, made by `write`."""

    def seeds(root: Path) -> Sequence[Path]:
        (root / "0").mkdir(parents=True)
        write(root / "0")
        return [root / "0"]

    return seeds


def texts_of(*texts: str, suffix: str = ".words") -> Callable[[Path], Sequence[Path]]:
    """Seeds that are folders with one text."""

    def seeds(root: Path) -> Sequence[Path]:
        for number, text in enumerate(texts):
            (root / str(number)).mkdir(parents=True)
            (root / str(number) / f"text{suffix}").write_text(text)
        return [root / str(number) for number in range(len(texts))]

    return seeds


def text_in(folder: Path, suffix: str = ".words") -> str:
    """The text as a program gets it: bytes that are no UTF-8 are lone surrogates."""
    path = folder / f"text{suffix}"
    if not path.is_file():
        raise InputError("no text")
    return path.read_bytes().decode("utf-8", "surrogateescape")


def any_of(*readers: Callable[[Path], object]) -> Callable[[Path], None]:
    """Every reader is tried; where all of them refuse, the sentence of the last is raised."""

    def read(folder: Path) -> None:
        said = []
        for reader in readers:
            try:
                reader(folder)
            except PoiseError as error:
                said.append(error)
        if len(said) == len(readers):
            raise said[-1]

    return read


def some_rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    return draws.normal(size=(ROWS, DIM)).astype(np.float32), np.arange(ROWS) % CLASSES


def intact(problems: Iterable[str]) -> None:
    """The first problem that a check reports, as the error that it would be, and nothing mended in its text."""
    for problem in problems:
        raise PoiseError(problem)
