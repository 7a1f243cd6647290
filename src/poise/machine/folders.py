"""Folders that are replaced as one: a generation is written aside and takes its place in one step; SHA256SUMS seals it.

    with claimed(folder), generation(folder) as stage:
        (stage / "head.safetensors").write_bytes(...)

`SHA256SUMS` is what `sha256sum -c` reads: a line per file that was written, and one for the seal of every folder within
that has its own. Its own SHA-256, `digest_of`, therefore stands for the whole folder.
"""

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from poise.errors import InputError, reason_of
from poise.machine.atomic import beside, sha256_of, write_atomically
from poise.machine.locks import has_no_place_beside, owned, shut
from poise.machine.reading import content_of, regular

SEAL = "SHA256SUMS"
RESTORE = "restore the folder from a copy"
REMEDY = "restore it from a copy"
_AT_CWD = -100  # of openat(2): paths are relative to the current folder
_EXCHANGE = 2  # of renameat2(2), and of renamex_np of macOS


@contextmanager
def generation(folder: Path, *, replaces: Collection[str] = ()) -> Iterator[Path]:
    """A new folder that takes the place of `folder`, sealed, in one step once the block is done.

    What the old one holds is in the new one too, but for the files that `replaces` names, and those of our own in
    folders that it names: they belong to the result that this one follows. A crash at any moment leaves the old folder
    or the new one.

    Raises: InputError where the disk refuses, if another process is writing it, or as `refuse_unreplaceable`.
    """
    try:
        with replacing_folder(folder, instead_of=replaces) as stage, _named(stage, folder):
            yield stage
            _complete(folder, stage, replaces)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {reason_of(error)}; what it held is as it was") from error


@contextmanager
def _named(stage: Path, folder: Path) -> Iterator[None]:
    """Within, what is said of files of the stage is said of those that they become."""
    try:
        yield
    except InputError as error:
        error.args = (str(error).replace(str(stage), str(folder)),)
        raise


def moved(paths: Iterable[Path], stage: Path, folder: Path) -> list[Path]:
    """What files of a stage are called once that has taken the place of the folder."""
    return [folder / path.relative_to(stage) for path in paths]


def _complete(folder: Path, stage: Path, replaces: Collection[str]) -> None:
    """Give the new folder what it is to have of the old one, and its seal."""
    made = _files(stage)
    before = sealed(folder) if (folder / SEAL).exists() else {}
    gone = {name for name in _listed(folder) if set(_upwards(name)) & set(replaces)} | set(replaces)
    kept = {name: digest for name, digest in before.items() if name not in gone}
    if folder.is_dir():
        _carry(folder, stage, without={*gone, SEAL}, only=kept if _is_within(stage, folder) else None)
    _write_seal(stage, made, kept)


@contextmanager
def replacing_folder(path: Path, patience: float = 0.0, *, instead_of: Collection[str] | None = None) -> Iterator[Path]:
    """A new empty folder beside `path` that takes its place once the block is done; what `path` held is deleted then.

    If the block raises or writes nothing, the new one is deleted and `path` is as it was. Another process that writes
    it is waited for `patience` seconds. A mounted or the current folder is filled, file by file.

    Raises: OSError; InputError if another process is writing it, or as `refuse_unreplaceable`.
    """
    refuse_unreplaceable(path, instead_of)
    path = path.resolve()  # a link is to stay one
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file has that name", str(path))
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
            else:
                stage.rmdir()
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise


def refuse_unreplaceable(path: Path, instead_of: Collection[str] | None = None) -> None:
    """Raises: InputError for a folder with a damaged seal, and for the current or a mounted one that holds a result.

    The latter cannot be replaced; a result is anything in it, or the files of the names `instead_of`.
    """
    path = path.resolve()
    if (path / SEAL).exists():
        sealed(path)
    if not path.is_dir() or not _is_fixed(path):
        return
    there = [name for name in os.listdir(path) if not name.startswith(".")]
    if held := [name for name in there if instead_of is None or name in instead_of]:
        raise InputError(
            f"{path} holds {min(held)} and cannot be replaced as a whole: it is a mounted folder or the current one; "
            f"name a folder within it (--out {path / 'new'})"
        )


@contextmanager
def _filled(path: Path) -> Iterator[Path]:
    """The same for a folder whose name cannot be given to another, which is therefore filled."""
    with owned(path / ".new.tmp", path, folder=True) as stage:
        try:
            yield stage
            for name in sorted(_files(stage), key=lambda name: (name == SEAL, name)):  # the seal last
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (stage / name).replace(path / name)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def _is_within(stage: Path, folder: Path) -> bool:
    return stage.parent == folder.resolve()


def _is_fixed(path: Path) -> bool:
    """Must the folder itself stay? Whoever works in a folder that is replaced is left in a deleted one."""
    return has_no_place_beside(path) or Path.cwd().is_relative_to(path)


def _take_place(stage: Path, path: Path) -> None:
    if not path.exists():
        stage.rename(path)
        return
    with shut(path):  # which has the name of the stage until it is deleted
        if _exchange(stage, path):
            shutil.rmtree(stage, ignore_errors=True)
            return
        aside = _aside(path)  # two steps on systems that know no exchange; `_put_back` mends a stop between them
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


def _carry(folder: Path, stage: Path, without: set[str], only: Collection[str] | None) -> None:
    """Give `stage` what `folder` holds and it does not: by a second name of the file where that can be, else a copy."""
    for path in sorted(_within(folder)):
        name = path.relative_to(folder)
        target = stage / name
        if name.as_posix() in without or os.path.lexists(target) or not (only is None or name.as_posix() in only):
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

    `adds`: files that the seal lists already stay listed, as they were. Raises: OSError; InputError.
    """
    before = sealed(folder) if adds and (folder / SEAL).exists() else {}
    return _write_seal(folder, [_below(folder, name) for name in names], before)


def unseal(folder: Path) -> None:
    """The folder has no seal from now on. Raises: InputError if the disk refuses."""
    try:
        (folder / SEAL).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot remove {folder / SEAL}: {reason_of(error)}; {RESTORE}") from error


def _write_seal(folder: Path, names: Iterable[str], before: Mapping[str, str]) -> Path:
    """The seal over these files, and over those that are listed `before` and still there, as they were then."""
    inner = {path.relative_to(folder).as_posix() for path in folder.rglob(SEAL) if path.parent != folder}
    inside = tuple(f"{PurePosixPath(name).parent}/" for name in inner)
    old = {name: digest for name, digest in before.items() if (folder / name).is_file()}
    new = {name: sha256_of(folder / name) for name in {*names, *inner}}
    listed = {name: digest for name, digest in {**old, **new}.items() if name in inner or not name.startswith(inside)}
    listed.pop(SEAL, None)
    lines = "".join(_line(listed[name], name) for name in sorted(listed))
    return write_atomically(folder / SEAL, lines.encode("utf-8", "surrogateescape"))


def sealed(folder: Path) -> dict[str, str]:
    """SHA-256 by file name, as the seal of a folder says. Raises: InputError if it cannot be read."""
    path, listed = folder / SEAL, {}
    text = content_of(path, RESTORE).decode("utf-8", "surrogateescape")  # names of files are bytes
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
            regular(path, REMEDY)
            changed = sha256_of(path) != digest
        except (InputError, OSError) as error:
            found.append(str(error))
            continue
        if changed:
            found.append(
                f"{path} is not the file that was written: its SHA-256 is not that of {folder / SEAL}; {REMEDY}"
            )
        elif path.name == SEAL:
            found += differences(path.parent)
    return found


def digest_of(folder: Path) -> str | None:
    """The SHA-256 of the seal, which stands for all files that it lists; None for a folder without one."""
    path = folder / SEAL
    return sha256_of(path) if path.is_file() else None


def _listed(folder: Path) -> Iterator[str]:
    """The files that the seal of a folder lists, and those within it."""
    for name in sealed(folder) if (folder / SEAL).exists() else ():
        yield name
        if (inner := folder / name).name == SEAL:
            yield from (f"{PurePosixPath(name).parent}/{each}" for each in _listed(inner.parent))


def _upwards(name: str) -> Iterator[str]:
    """A file and the folders that it lies in, by their names."""
    yield name
    yield from (str(parent) for parent in PurePosixPath(name).parents)


def _below(folder: Path, name: str | Path) -> str:
    path = Path(name)
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


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
