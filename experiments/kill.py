"""Commands under kill -9, and two at a time in one folder.

Run: python experiments/kill.py [--part PART] [--only WORD] [--every 1] [--most 0] [--kills 10] [--stops 12] [--free 6]
    [--seed 0]

Parts: `operations` (every verb that writes, killed at its operations on the disk), `races` (two processes, one folder)
and `moments` (training and extraction, by one process and by two, at random moments); without the option, all of them.
Each writes its section of experiments/results/kill.md, the others stay as they are. `--every 5` kills at every fifth
operation only, `--most 20` at so many of them that it is about 20 for each verb, and `--only` takes the verbs with a
word in their names; then the page is not written. Commit nothing meanwhile: runs say of which commit they are.
"""

import argparse
import multiprocessing
import os
import random
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path

import torch
from kills import disk, moments, operations, races
from kills.verbs import GIVEN, VERBS, Verb, inputs

from poise.machine.atomic import write_atomically
from poise.results.record import versions

RESULT = Path("experiments/results/kill.md")
TITLES = {
    "operations": "Kill -9 at operations on the disk",
    "races": "Two processes, one folder",
    "moments": "Kill -9 at random moments",
}


def sections() -> dict[str, str]:
    """The sections of the page so far, by part."""
    text = RESULT.read_text(encoding="utf-8") if RESULT.exists() else ""
    parts = re.split(r"^## (.*)\n\n", text, flags=re.M)[1:]
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    return {part: found[title].strip() for part, title in TITLES.items() if title in found}


def page(made: dict[str, str]) -> str:
    """All sections, in their order."""
    return "# Kill -9, and races\n" + "".join(
        f"\n## {TITLES[part]}\n\n{made[part]}\n" for part in TITLES if part in made
    )


def section(about: str | None, lines: list[str], words: list[str]) -> str:
    """What a table means, the table, the sentences below it, and how to repeat it."""
    made = ", ".join(f"{name} {version}" for name, version in versions().items())
    blocks = (list(block) for _, block in groupby(lines, key=lambda line: line.startswith("|")))
    told = "\n\n".join("\n".join(block) for block in blocks)
    command = " ".join(["python experiments/kill.py", *words])
    return f"{(about or '').split(chr(10) * 2, 1)[1].strip()}\n\n{told}\n\nCommand: `{command}`; {made}."


Work = Callable[[operations.World], tuple[tuple[object, ...], list[str]]]


def each_verb(heads: tuple[str, ...], work: Work, worlds: list[operations.World]) -> Iterator[str]:
    """A line for each verb, worked at by as many processes as there are cores; then what was found."""
    yield "| " + " | ".join(heads) + " |"
    yield "|" + " --- |" * len(heads)
    finds = []
    with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0))) as pool:
        for cells, found in pool.imap(work, worlds, chunksize=1):
            yield "| " + " | ".join(str(cell) for cell in cells) + " |"
            finds += found
    yield from (f"- {find}" for find in finds)


def prepared(root: Path, verbs: list[Verb]) -> list[operations.World]:
    """Every verb in a folder of its own; everything that they import is imported here, before processes are forked."""
    os.environ["XDG_CACHE_HOME"] = str(root / "cache")
    inputs(root / "given")
    for words in GIVEN:
        disk.warm(operations.done(words, root / "given"))
    worlds = []
    for number, verb in enumerate(verbs):
        folder = root / str(number)
        folder.mkdir()
        (folder / "given").symlink_to(root / "given")
        worlds.append(operations.world_of(verb, folder, disk.warm))
    return worlds


def kill_one(world: operations.World, every: int, most: int) -> tuple[tuple[object, ...], list[str]]:
    """The cells of a verb that was killed, and what was found."""
    step = max(every, -(-world.operations // most)) if most else every
    *cells, seconds, finds = operations.killed_everywhere(world, step)
    return (world.verb.name, step, *cells, f"{seconds:.0f}"), finds


def race_one(world: operations.World, stops: int, free: int, seed: int) -> tuple[tuple[object, ...], list[str]]:
    """The cells of a verb that was run twice at a time, and what was found."""
    *cells, seconds, finds = races.raced(world, stops, free, random.Random(f"{seed} {world.verb.name}"))
    return (world.verb.name, *cells, f"{seconds:.0f}"), finds


def lines_of(part: str, given: argparse.Namespace, worlds: list[operations.World]) -> Iterator[str]:
    """The table of a part, as it is made."""
    if part == "moments":
        return moments.table(given.kills, given.seed, given.only)
    if part == "operations":
        return each_verb(operations.HEADS, partial(kill_one, every=given.every, most=given.most), worlds)
    work = partial(race_one, stops=given.stops, free=given.free, seed=given.seed)
    return each_verb(races.HEADS, work, [world for world in worlds if not world.verb.shared])


ABOUT = {"operations": operations.__doc__, "races": races.__doc__, "moments": moments.__doc__}
SETTINGS = {"operations": ("every", "most"), "races": ("stops", "free", "seed"), "moments": ("kills", "seed")}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=TITLES, action="append")
    parser.add_argument("--only", default="", help="a word in the names of the verbs")
    for name, number in {"every": 1, "most": 0, "kills": 10, "stops": 12, "free": 6, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    given = parser.parse_args()
    torch.set_num_threads(1)
    made, parts = sections(), given.part or list(TITLES)
    verbs = [verb for verb in VERBS if given.only in verb.name] if set(parts) - {"moments"} else []
    with tempfile.TemporaryDirectory() as place:
        worlds = prepared(Path(place), verbs) if verbs else []
        for part in parts:
            lines = []
            for line in lines_of(part, given, worlds):
                print(line, flush=True)
                lines.append(line)
            if not given.only:
                words = [f"--{name} {getattr(given, name)}" for name in SETTINGS[part]]
                made[part] = section(ABOUT[part], lines, [f"--part {part}", *words])
                write_atomically(RESULT, page(made))


if __name__ == "__main__":
    main()
