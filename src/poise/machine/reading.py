"""The gate through which files are read: regular files of bounded size, and one sentence for whatever goes wrong.

    size = regular(path, REMEDY)                       # no folder, no pipe, no device, not too large
    content = content_of(path, REMEDY)                 # its bytes
    with sentence_for(path, "a checkpoint", REMEDY):   # whatever a library raises becomes one InputError
        ...

A file from a stranger may be anything. Sizes are bounded before memory is taken, by the size of the file and by a limit
that is stated here; `POISE_MEMORY_LIMIT` (bytes) sets another.
"""

import gzip
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from poise.errors import InputError, PoiseError, reason_of
from poise.machine.environment import whole_number

DOCUMENT = 2**26  # bytes of a file that becomes Python objects, which take ten times the memory and more
INFLATED = 2**28  # bytes that any compressed file may grow to
GROWTH = 20  # how many times its size a large one may: real images and texts grow by 2 to 10


def inflated_limit(stored: int, least: int = INFLATED) -> int:
    """How many bytes a compressed file of `stored` bytes may take in memory. Raises: InputError for a wrong setting."""
    return whole_number("POISE_MEMORY_LIMIT", 0) or max(least, GROWTH * stored)


def affordable(where: object, needed: int, stored: int) -> None:
    """Raises: InputError if what takes `stored` bytes in a file takes more in memory than `inflated_limit` allows."""
    if needed > (most := inflated_limit(stored)):
        raise InputError(f"{where} takes {needed} bytes in memory, more than {most}; raise POISE_MEMORY_LIMIT (bytes)")


def regular(path: Path, remedy: str, at_most: int | None = None) -> int:
    """The size in bytes of a file. Raises: InputError if it is missing, none (folder, pipe, device) or too large."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {reason_of(error)}; {remedy}") from None
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path} is {_kind(found.st_mode)}, not a file; {remedy}")
    if at_most is not None and found.st_size > at_most:
        raise InputError(f"{path} has {found.st_size} bytes, more than the {at_most} that such a file may; {remedy}")
    return found.st_size


def lies_in(path: Path, folder: Path) -> bool:
    """Is it a name directly in the folder, wherever links lead? A link in a circle is, and cannot be read."""
    return os.path.dirname(os.path.realpath(path)) == os.path.realpath(folder)


def _kind(mode: int) -> str:
    kinds = {"a folder": stat.S_ISDIR, "a pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK}
    return next((name for name, fits in kinds.items() if fits(mode)), "a device")


def content_of(path: Path, remedy: str, at_most: int | None = DOCUMENT) -> bytes:
    """The bytes of a file. Raises: InputError as `regular`, or if the disk refuses."""
    regular(path, remedy, at_most)
    with sentence_for(path, None, remedy):
        return path.read_bytes()


def text_of(path: Path, remedy: str, at_most: int | None = DOCUMENT) -> str:
    """The text of a file in UTF-8, with or without a byte-order mark. Raises: InputError naming a byte that is none."""
    return decoded(content_of(path, remedy, at_most), path, remedy)


def decoded(content: bytes, where: object, remedy: str) -> str:
    """The text of bytes in UTF-8, with or without a byte-order mark. Raises: InputError that names `where`."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 (byte {error.start + 1}); {remedy}") from None


def unzipped(path: Path, remedy: str, least: int = INFLATED) -> bytes:
    """What a .gz or .tgz file holds, or a plain file of another name. Raises: InputError, before memory is taken.

    `least`: bytes that a small file may grow to.
    """
    if path.suffix.lower() not in (".gz", ".tgz"):
        return content_of(path, remedy, None)
    most = inflated_limit(regular(path, remedy), least)
    with sentence_for(path, "a .gz file", remedy), gzip.open(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise InputError(f"{path} unpacks to more than {most} bytes; unpack it, or raise POISE_MEMORY_LIMIT (bytes)")
    return content


@contextmanager
def sentence_for(where: object, what: str | None, remedy: str) -> Iterator[None]:
    """Within, whatever is raised becomes one InputError: `where` cannot be read (as `what`), the reason, the remedy.

    Libraries answer a damaged file with anything: a KeyError, a MemoryError, an OverflowError, a panic of Rust. What
    Poise raises on purpose passes, and so do interrupts.
    """
    try:
        yield
    except (PoiseError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        as_what = f" as {what}" if what else ""
        raise InputError(f"{where} cannot be read{as_what}: {reason_of(error)}; {remedy}") from error
