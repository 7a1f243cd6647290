"""The verb that verifies what is on disk: check."""

from pathlib import Path
from typing import Annotated

import typer

from poise.cli.options import Voice
from poise.cli.shared import answer, progress_bar


def check(
    paths: Annotated[list[Path], typer.Argument(help="Folders of models, stores, runs or exports, or head files.")],
    *,
    digest: Annotated[
        str | None, typer.Option(help="What the digest of the one path must be, as check printed it before.")
    ] = None,
    voice: Voice,
) -> None:
    """Verify artefacts: every byte of every file that was written, reports and records included.

    A folder is compared with its SHA256SUMS, and so are the folders within; `sha256sum -c SHA256SUMS` does the same.
    One digest stands for all of it: note it down, and --digest tells whether anything, SHA256SUMS too, has changed.
    Exit code 2 if anything is wrong.
    """
    from poise.commands.artefact_check import checked
    from poise.data.store.manifest import MANIFEST
    from poise.errors import InputError

    wanted = None if digest is None else _hex(digest)
    if wanted is not None and len(paths) != 1:
        raise InputError(f"--digest is that of one path, got {len(paths)} paths")
    # A folder of stores without a seal, which `poise extract` wrote in earlier versions, is every store in it.
    stores = {path: sorted(store.parent for store in path.glob(f"*/{MANIFEST}")) for path in paths}
    whole = {path for path in paths if _is_one(path) or not stores[path]}
    each = [inner for path in paths for inner in ([path] if path in whole else stores[path])]
    with progress_bar("reading every byte", quiet=voice.silent):
        found = {str(path): checked(path) for path in each}
    said = [
        line
        for path, one in found.items()
        for line in (f"{path}: {one.kind}, {_how_many(one.problems)}", *_digest(one.problems, one.digest))
    ]
    data = {path: {**one._asdict(), "digest": one.digest and f"sha256:{one.digest}"} for path, one in found.items()}
    remarks = [_unsealed(path) for path, one in found.items() if one.digest is None and not one.problems]
    answer(data, said, voice, remarks=remarks)
    problems = [problem for one in found.values() for problem in one.problems]
    if wanted is not None:
        problems += [_other(path, one.digest, wanted) for path, one in found.items() if one.digest != wanted]
    if problems:
        raise InputError("; ".join(problems))


def _unsealed(path: str) -> str:
    from poise.machine.folders import SEAL

    return f"{path} has no {SEAL} (unfinished, or of an earlier version): not all of its files have a checksum"


def _is_one(path: Path) -> bool:
    from poise.commands.description import is_described
    from poise.data.store.manifest import MANIFEST
    from poise.machine.folders import SEAL

    return is_described(path) or (path / MANIFEST).exists() or (path / SEAL).exists()


def _hex(digest: str) -> str:
    """The hexadecimal digits of a digest. Raises: InputError if it is none."""
    from poise.errors import InputError

    found = digest.strip().lower().removeprefix("sha256:")
    if len(found) != 64 or set(found) - set("0123456789abcdef"):
        raise InputError(f"--digest must be sha256: and 64 hexadecimal digits, as check prints it; got {digest}")
    return found


def _other(path: str, digest: str | None, wanted: str) -> str:
    there = "has no digest" if digest is None else f"has the digest sha256:{digest}"
    return f"{path} {there}, not sha256:{wanted}: it is not what that was printed for; get it again from where it is"


def _digest(problems: list[str], digest: str | None) -> list[str]:
    return [] if problems or digest is None else [f"digest: sha256:{digest}"]


def _how_many(problems: list[str]) -> str:
    return {0: "intact", 1: "1 problem"}.get(len(problems), f"{len(problems)} problems")
