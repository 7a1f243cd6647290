"""What a folder holds, byte for byte, and which of it is a result."""

import csv
import os
import shutil
from pathlib import Path

from poise.machine.atomic import sha256_of
from poise.machine.folders import SEAL
from poise.selection.shared_trials import JOURNAL
from poise.selection.study import RESULTS

NOTES, WRITTEN = "notes.txt", b"mine, and not to be touched\n"  # a file of the user in the folder of a result
HELD = (".lock", ".lock.holder")  # ends of the names of files that name a process
WHO_AND_WHEN = ("trial", "seconds", "worker")  # columns of the table of a study

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
    if path.name.endswith(HELD):
        return ""
    return _of_study(path) if (path.parent / JOURNAL).exists() else sha256_of(path)


def _of_study(path: Path) -> str:
    """The same for a file of a study, which says who tried a setting and when: of its table, what was found."""
    if path.name == RESULTS:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        return repr(sorted([value for key, value in row.items() if key not in WHO_AND_WHEN] for row in rows))
    return "of a study" if path.name in (JOURNAL, SEAL) else sha256_of(path)


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
