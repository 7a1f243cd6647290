"""The verb that verifies what is on disk: check."""

from pathlib import Path
from typing import Annotated

import typer

from poise.cli.options import Voice
from poise.cli.shared import answer, progress_bar


def check(
    paths: Annotated[list[Path], typer.Argument(help="Folders of models, stores or runs, or head files.")],
    *,
    voice: Voice,
) -> None:
    """Verify artefacts: every byte of shards and heads against its checksum. Exit code 2 if anything is wrong."""
    from poise.commands.artefact_check import check_path
    from poise.commands.description import is_described
    from poise.commands.fit import check_run
    from poise.data.store.manifest import MANIFEST
    from poise.errors import InputError

    # A folder of stores, which `poise extract` writes, is every store in it.
    stores = {path: sorted(store.parent for store in path.glob(f"*/{MANIFEST}")) for path in paths}
    whole = {path for path in paths if is_described(path) or (path / MANIFEST).exists() or not stores[path]}
    each = [inner for path in paths for inner in ([path] if path in whole else stores[path])]
    with progress_bar("reading every byte", quiet=voice.silent):
        found = {str(path): ("run", check_run(path)) if is_described(path) else check_path(path) for path in each}
    said = [f"{path}: {kind}, {_how_many(bad)}" for path, (kind, bad) in found.items()]
    data = {path: {"kind": kind, "problems": bad} for path, (kind, bad) in found.items()}
    answer(data, said, voice)
    problems = [problem for _, bad in found.values() for problem in bad]
    if problems:
        raise InputError("; ".join(problems))


def _how_many(problems: list[str]) -> str:
    return {0: "intact", 1: "1 problem"}.get(len(problems), f"{len(problems)} problems")
