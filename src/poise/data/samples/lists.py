"""List files: a path, a space and a class number per line, as ImageNet-LT, Places-LT and iNaturalist 2018 publish them.

Paths may hold spaces: the class is the last word of a line. The images need not be there for counts to be read.
"""

import io
import re
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from poise.data.samples.column_roles import refuse_missing
from poise.data.samples.items import Files
from poise.data.samples.split_parts import Part, Request, ends_in, one_per_split
from poise.errors import InputError
from poise.machine.documents import parsed_value
from poise.machine.reading import content_of, decoded, unzipped
from poise.values.counts import ClassCounts, as_counts

SUFFIXES = (".txt", ".txt.gz")
UNZIPPED = 2**24  # bytes of text that a small .gz may hold: short lines take twenty times as much in memory
COUNTS = "write a JSON list of whole numbers, the images of each class"
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
    counts = parsed_value(content_of(Path(path), COUNTS), path, COUNTS)
    if not isinstance(counts, list) or not all(type(count) is int for count in counts):
        raise InputError(f"{path} must hold a list of whole numbers, the images of each class")
    try:
        return as_counts(counts)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _part(path: Path, request: Request) -> Part:
    lines, numbers = _lines(path)
    if not lines:
        raise InputError(f"{path} is empty; each line holds a path, a space and a class number")

    def place(row: int) -> str:
        return f"{path}, line {numbers[row]}"

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
    labels = array("q")
    for row, line in enumerate(lines):
        entry = line.rsplit(maxsplit=1)
        if len(entry) < 2 or not INTEGER.fullmatch(entry[1]):
            raise InputError(f"{place(row)}: {line!r:.80} does not end in a space and a class number")
        labels.append(int(entry[1]))
    return tuple(map(_without_number, lines)), np.array(labels, dtype=np.int64)


def _unlabelled(lines: list[str]) -> tuple[str, ...]:
    """Paths of the lines, without the class numbers if every line has one."""
    entries = (line.rsplit(maxsplit=1) for line in lines)
    if all(len(entry) == 2 and INTEGER.fullmatch(entry[1]) for entry in entries):
        return tuple(map(_without_number, lines))
    return tuple(lines)


def _without_number(line: str) -> str:
    return line.rsplit(maxsplit=1)[0]


def _lines(path: Path) -> tuple[list[str], "array[int]"]:
    """The lines that are not blank, and their numbers in the file: a list is long, and lies in memory once."""
    text = decoded(unzipped(path, "get it anew", UNZIPPED), path, "save the file as UTF-8")
    lines, numbers = [], array("q")
    for number, line in enumerate(io.StringIO(text), start=1):
        if line := line.strip():
            lines.append(line)
            numbers.append(number)
    return lines, numbers
