"""What a folder holds, byte for byte, and which of it is a result."""

import os
import shutil
from pathlib import Path

from poise.machine.atomic import sha256_of

NOTES, WRITTEN = "notes.txt", b"mine, and not to be touched\n"  # a file of the user in the folder of a result
HELD = (".lock", ".lock.holder")  # ends of the names of files that name a process

Tree = dict[str, str]


def tree(folder: Path) -> Tree:
    """What is below a folder: the SHA-256 of files, `folder`, or where a link leads, by name."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place) / name
            found[path.relative_to(folder).as_posix()] = _kind(path)
    return dict(sorted(found.items()))


def _kind(path: Path) -> str:
    if path.is_symlink():
        return f"link to {os.readlink(path)}"
    if path.is_dir():
        return "folder"
    return "" if path.name.endswith(HELD) else sha256_of(path)


def visible(found: Tree) -> Tree:
    """The same without hidden files, which are locks and what is being written, and without empty folders."""
    shown = {name: kind for name, kind in found.items() if not any(part[0] == "." for part in name.split("/"))}
    return {name: kind for name, kind in shown.items() if kind != "folder"}


def unlike(found: Tree, wanted: Tree) -> list[str]:
    """The names that are not in both, or differ."""
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))


def copied(source: Path, target: Path) -> None:
    """Make `target` what `source` is, whatever it was."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
