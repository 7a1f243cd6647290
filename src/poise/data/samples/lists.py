"""List files: a path, a space and a class number per line, as ImageNet-LT, Places-LT and iNaturalist 2018 publish them.

Paths may hold spaces: the class is the last word of a line. The images need not be there for counts to be read.
"""

import gzip
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from poise.data.samples.column_roles import refuse_missing
from poise.data.samples.items import Files
from poise.data.samples.split_parts import Part, Request, ends_in, one_per_split
from poise.errors import InputError
from poise.values.counts import ClassCounts

SUFFIXES = (".txt", ".txt.gz")
INTEGER = re.compile(r"-?\d{1,18}")


def is_list(path: Path) -> bool:
    """Is it a .txt or .txt.gz file, or a folder of such files without folders?"""
    return ends_in(path, SUFFIXES)


def read_list(path: Path, request: Request) -> dict[str, Part]:
    """The splits of a list file, or of a folder of list files whose names say which split each is.

    With `request.root` every image must be there; without it, the images cannot be read, only counted. Unlabelled
    lists hold a path per line.

    Raises: InputError naming the line that has no class number or whose image is missing.
    """
    return {split: _part(file, request) for split, file in one_per_split(path, SUFFIXES).items()}


def read_counts(path: str | Path) -> ClassCounts:
    """Images per class from a .json file that holds a list of them.

    Raises: InputError if it holds anything else.
    """
    try:
        counts = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    if not isinstance(counts, list) or not all(type(count) is int for count in counts):
        raise InputError(f"{path} must hold a list of whole numbers, the images of each class")
    return ClassCounts(torch.tensor(counts, dtype=torch.int64))


def _part(path: Path, request: Request) -> Part:
    numbered = [(number, line.strip()) for number, line in enumerate(_lines(path), start=1) if line.strip()]
    if not numbered:
        raise InputError(f"{path} is empty; each line holds a path, a space and a class number")

    def place(row: int) -> str:
        return f"{path}, line {numbered[row][0]}"

    lines = [line for _, line in numbered]
    if not request.labelled:
        files = Files(_unlabelled(lines), request.root or path.parent, request.limit)
        refuse_missing(files, place)
        return Part(files, np.array([]), place)
    paths, labels = _labelled(lines, place)
    files = Files(paths, request.root, request.limit)
    if request.root is not None:
        refuse_missing(files, place)
    return Part(files, labels, place)


def _labelled(lines: list[str], place: Callable[[int], str]) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Paths and class numbers of the lines."""
    entries = [line.rsplit(maxsplit=1) for line in lines]
    for row, entry in enumerate(entries):
        if len(entry) < 2 or not INTEGER.fullmatch(entry[1]):
            raise InputError(f"{place(row)}: {lines[row]!r:.80} does not end in a space and a class number")
    return tuple(path for path, _ in entries), np.array([int(label) for _, label in entries], dtype=np.int64)


def _unlabelled(lines: list[str]) -> tuple[str, ...]:
    """Paths of the lines, without the class numbers if every line has one."""
    entries = [line.rsplit(maxsplit=1) for line in lines]
    if all(len(entry) == 2 and INTEGER.fullmatch(entry[1]) for entry in entries):
        return tuple(path for path, _ in entries)
    return tuple(lines)


def _lines(path: Path) -> list[str]:
    try:
        stored = path.read_bytes()
        text = (gzip.decompress(stored) if path.suffix.lower() == ".gz" else stored).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8; save the file as UTF-8") from None
    return text.split("\n")
