"""Folders that are replaced as one: a generation is written aside and takes its place in one step; SHA256SUMS seals it.

    with claimed(folder), generation(folder) as stage:
        (stage / "head.safetensors").write_bytes(...)

`SHA256SUMS` is what `sha256sum -c` reads: a line per file that was written, and one for the seal of every folder within
that has its own. Its own SHA-256, `digest_of`, therefore stands for the whole folder.
"""

import ctypes
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from poise.errors import InputError
from poise.machine.atomic import beside, sha256_of, write_atomically
from poise.machine.locks import LOCK, owned
from poise.machine.reading import content_of, decoded, regular

SEAL = "SHA256SUMS"
RESTORE = "restore the folder from a copy"
_AT_CWD = -100  # of openat(2): paths are relative to the current folder
_EXCHANGE = 2  # of renameat2(2), and of renamex_np of macOS


@contextmanager
def generation(folder: Path, *, adds: bool = False) -> Iterator[Path]:
    """A new folder that takes the place of `folder`, sealed, in one step once the block is done.

    What the old one holds and nobody lists in its seal (files of a user, of other commands) is in the new one too; what
    its seal lists belongs to the old generation and goes with it, unless this one only `adds` to that. A crash at any
    moment leaves the old folder or the new one.

    Raises: OSError; InputError if another process is writing it, or if it holds a result and cannot be replaced as a
    whole because it is a mounted or the current folder.
    """
    with replacing_folder(folder) as stage:
        yield stage
        made = _files(stage)
        before = set(sealed(folder)) if (folder / SEAL).exists() else set()
        kept = [name for name in before if adds and name not in made]
        dropped = set() if adds else {name for name in before if PurePosixPath(name).name != SEAL}
        if folder.is_dir():
            _carry(folder, stage, without=dropped | {SEAL})
        seal(stage, [*made, *kept])


@contextmanager
def replacing_folder(path: Path, patience: float = 0.0) -> Iterator[Path]:
    """A new empty folder beside `path` that takes its place once the block is done; what `path` held is deleted then.

    If the block raises or writes nothing, the new one is deleted and `path` is as it was. Another process that writes
    it is waited for `patience` seconds. Raises: as `generation`.
    """
    path = path.resolve()  # a link is to stay one
    if path.is_dir() and _is_fixed(path):
        with _filled(path) as stage:
            yield stage
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    _put_back(path)
    with owned(beside(path), path, patience, folder=True) as stage:
        try:
            yield stage
            if any(stage.iterdir()):
                _take_place(stage, path)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def _filled(path: Path) -> Iterator[Path]:
    """The same for a folder whose name cannot be given to another, which is therefore filled, if it is empty."""
    if held := [name for name in os.listdir(path) if not name.startswith(".")]:
        raise InputError(
            f"{path} holds {min(held)} and cannot be replaced as a whole: it is a mounted folder or the current one; "
            f"name a folder within it (--out {path / 'new'})"
        )
    with owned(path / ".new.tmp", path, folder=True) as stage:
        try:
            yield stage
            for name in sorted(os.listdir(stage), key=lambda name: (name == SEAL, name)):  # the seal last
                if not name.startswith(LOCK):
                    (stage / name).rename(path / name)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def _is_fixed(path: Path) -> bool:
    """Must the folder itself stay? Whoever works in a folder that is replaced is left in a deleted one."""
    return os.path.ismount(path) or Path.cwd().is_relative_to(path) or not os.access(path.parent, os.W_OK)


def _take_place(stage: Path, path: Path) -> None:
    if not path.exists():
        stage.rename(path)
    elif not _exchange(stage, path):  # the two steps of systems that know no exchange; `_put_back` mends a stop between
        aside = _aside(path)
        path.rename(aside)
        stage.rename(path)
        shutil.rmtree(aside, ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _put_back(path: Path) -> None:
    """Undo or finish the replacement that a dead process left half done."""
    aside = _aside(path)
    if aside.exists() and not path.exists():
        aside.rename(path)
    elif aside.exists():
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap what two names stand for, in one step; False where the system cannot."""
    try:
        library: Any = ctypes.CDLL(None, use_errno=True)
        names = os.fsencode(one), os.fsencode(other)
        if sys.platform == "darwin":
            return bool(library.renamex_np(*names, _EXCHANGE) == 0)
        return bool(library.renameat2(_AT_CWD, names[0], _AT_CWD, names[1], _EXCHANGE) == 0)
    except (OSError, AttributeError, TypeError):
        return False


def _carry(folder: Path, stage: Path, without: set[str]) -> None:
    """Give `stage` what `folder` holds and it does not: by a second name of the file where that can be, else a copy."""
    for path in sorted(_within(folder)):
        name = path.relative_to(folder)
        target = stage / name
        if name.as_posix() in without or os.path.lexists(target):
            continue
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):  # one whose files are all left out is left out with them
                target.mkdir(parents=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            _give(path, target)


def _within(folder: Path) -> Iterator[Path]:
    """Everything below a folder, but what dead processes left; links are not followed."""
    for path in folder.iterdir():
        if not _is_stray(path.name):
            yield path
            if path.is_dir() and not path.is_symlink():
                yield from _within(path)


def _give(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _is_stray(name: str) -> bool:
    """Is it what a process leaves that was killed while it wrote?"""
    return name.startswith(".") and name.endswith(".tmp")


def sweep(folder: Path) -> None:
    """Delete what processes left in `folder` that were killed while they wrote; the caller holds the claim to it."""
    for path in folder.iterdir():
        if _is_stray(path.name):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


# --- the seal ---------------------------------------------------------------------------------------------------------


def seal(folder: Path, names: Iterable[str | Path], *, adds: bool = False) -> Path:
    """Write SHA256SUMS over these files of the folder, by their names below it, and over the seals of folders within.

    `adds`: files that the seal lists already stay listed, as they are now. Raises: OSError; InputError.
    """
    before = sealed(folder) if adds and (folder / SEAL).exists() else {}
    wanted = {_below(folder, name) for name in names} | {name for name in before if (folder / name).is_file()}
    inner = {path.relative_to(folder).as_posix() for path in folder.rglob(SEAL) if path.parent != folder}
    inside = tuple(f"{PurePosixPath(name).parent}/" for name in inner)
    listed = sorted({name for name in wanted if not name.startswith(inside)} | inner - {SEAL})
    lines = (_line(sha256_of(folder / name), name) for name in listed if name != SEAL)
    return write_atomically(folder / SEAL, "".join(lines))


def sealed(folder: Path) -> dict[str, str]:
    """SHA-256 by file name, as the seal of a folder says. Raises: InputError if it cannot be read."""
    path, listed = folder / SEAL, {}
    text = decoded(content_of(path, RESTORE), path, RESTORE)
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), start=1):
        digest, gap, name = _parts_of(line)
        leads_out = PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
        if len(digest) != 64 or set(digest) - set("0123456789abcdef") or gap != "  " or not name or leads_out:
            raise InputError(f"{path}, line {number} is no SHA-256 and file name; {RESTORE}")
        listed[name] = digest
    if not text.endswith("\n") and text:
        raise InputError(f"{path} is cut off; {RESTORE}")
    return listed


def differences(folder: Path) -> list[str]:
    """One sentence for every file that is not as it was sealed, in folders within too; none if all are."""
    try:
        listed = sealed(folder)
    except InputError as error:
        return [str(error)]
    found = []
    for name, digest in listed.items():
        path = folder / name
        try:
            regular(path, "restore it from a copy")
            changed = sha256_of(path) != digest
        except (InputError, OSError) as error:
            found.append(str(error))
            continue
        if changed:
            found.append(f"{path} is not the file that was written (its SHA-256 is not that of {folder / SEAL})")
        elif path.name == SEAL:
            found += differences(path.parent)
    return found


def digest_of(folder: Path) -> str | None:
    """The SHA-256 of the seal, which stands for all files that it lists; None for a folder without one."""
    path = folder / SEAL
    return sha256_of(path) if path.is_file() else None


def _below(folder: Path, name: str | Path) -> str:
    path = Path(name)
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def _files(folder: Path, wanted: Callable[[Path], bool] = Path.is_file) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if wanted(path))


def _line(digest: str, name: str) -> str:
    """A line as sha256sum writes it: a name with a backslash or a line end is escaped, and the line says so."""
    plain = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if plain == name else chr(92)}{digest}  {plain}\n"


def _parts_of(line: str) -> tuple[str, str, str]:
    """Digest, what stands between, and name."""
    rest = line.removeprefix("\\")
    name = rest[66:]
    if rest != line:
        parts = (part.replace("\\n", "\n").replace("\\r", "\r") for part in name.split("\\\\"))
        name = "\\".join(parts)
    return rest[:64], rest[64:66], name
