"""Every verb is killed at its operations on the disk: is the old result or the new one there, whole?

`operations` is how many a verb does below its folder, `every` at which of them it was killed: 1 at all, 3 at the first,
the fourth, the seventh and so on. A result is old or new whole if its bytes are, `poise check` says what it says of one
that nobody killed, and a user's own file beside it is as it was. What goes on with what it finds may leave a part. Then
the command is run once more: it has to come to the bytes of a run that nobody killed, and leave nothing else.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from kills.disk import Tried, run
from kills.folders import NOTES, WRITTEN, Tree, copied, tree, unlike, visible
from kills.verbs import Verb

HEADS = (
    "verb",
    "every",
    "operations",
    "kills",
    "old whole",
    "new whole",
    "a part, to go on with",
    "lost",
    "wrong once more",
    "strays",
    "seconds",
)


class World(NamedTuple):
    """A verb in its folder: what was there before, and what the command makes of it when nobody kills it."""

    verb: Verb
    work: Path
    kept: Path  # a copy of `work` before the command
    old: Tree
    new: Tree
    operations: int
    checks: dict[str, str]  # what `poise check` says of the two, where nobody killed anything


class Found(NamedTuple):
    """What the kills of a verb did; `finds` has a sentence for each loss."""

    operations: int
    kills: int
    old: int
    new: int
    part: int
    lost: int
    wrong: int
    strays: int
    seconds: float
    finds: list[str]


def world_of(verb: Verb, folder: Path, told: Callable[[Tried], object] = lambda _: None) -> World:
    """A folder with the older result and a file of the user, and what the command makes of it.

    `told` is called with every command that was run. Raises: SystemExit if one fails, or does not make the same bytes
    twice.
    """
    work, kept = folder / "work", folder / "kept"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    if verb.brings is not None:
        copy = shutil.copytree if verb.place == "out" else shutil.copyfile
        copy(folder / "given" / verb.brings, work / verb.place)
    if verb.before is not None:
        told(done(verb.before, work, verb.patch))
    place = work / verb.place
    notes = place.with_name(NOTES) if place.suffix else place / NOTES
    notes.parent.mkdir(exist_ok=True)
    notes.write_bytes(WRITTEN)
    copied(work, kept)
    old, made = tree(work), list[Tree]()
    checks = {"old": "" if verb.before is None else problem_of(verb, work)}
    for _ in range(2):
        copied(kept, work)
        last = done(verb.command, work, verb.patch)
        told(last)
        made.append(tree(work))
    if differ := unlike(*made):
        raise SystemExit(f"{verb.name}: {', '.join(differ)} differ in two runs that nobody killed")
    checks["new"] = problem_of(verb, work)
    return World(verb, work, kept, old, made[0], len(last.operations), checks)


def done(words: list[str], work: Path, patch: Callable[[], object] | None = None) -> Tried:
    """A command that nobody kills. Raises: SystemExit if it fails."""
    found = run(words, work, patch=patch)
    if found.code:
        raise SystemExit(f"poise {' '.join(words)} ended with {found.code}:\n{found.said}")
    return found


def killed_everywhere(world: World, every: int = 1) -> Found:
    """Kill the command at its first operation, at its second, and so on; or at every third, say."""
    begun, counted, seen = time.monotonic(), dict.fromkeys(("old", "new", "part", "lost"), 0), {}
    finds = {f"poise check says of the {kind} result: {said}": [""] for kind, said in world.checks.items() if said}
    kills = wrong = strays = 0
    while True:
        copied(world.kept, world.work)
        at = 1 + kills * every
        tried = run(world.verb.command, world.work, at, patch=world.verb.patch)
        if not tried.killed:
            break
        kills += 1
        found = tree(world.work)
        state = repr(found)
        if state not in seen:  # what is the same to the last byte has the same future
            seen[state] = (_judged(world, found), _once_more(world))
        (kind, said), (differs, left) = seen[state]
        counted[kind] += 1
        wrong, strays = wrong + bool(differs), strays + bool(left)
        for sentence in filter(None, (said, differs and f"once more: {differs}", left)):
            finds.setdefault(sentence, []).append(f"{at} ({tried.operations[0]})")
    if tried.code:
        raise SystemExit(f"{world.verb.name} ended with {tried.code}:\n{tried.said}")
    return Found(
        world.operations, kills, *counted.values(), wrong, strays, time.monotonic() - begun, _told(world.verb, finds)
    )


def _told(verb: Verb, finds: dict[str, list[str]]) -> list[str]:
    """A sentence for each find, with the first operation at which it was found, and how many there were."""
    more = {sentence: f" and {len(where) - 1} more" if len(where) > 1 else "" for sentence, where in finds.items()}
    return [f"{verb.name}, killed at {where[0] or 'nowhere'}{more[said]}: {said}" for said, where in finds.items()]


def _judged(world: World, found: Tree) -> tuple[str, str]:
    """Is it the old result, the new one, a part of it that was never whole, or lost? And what is wrong."""
    shown, old, new = visible(found), visible(world.old), visible(world.new)
    notes = [name for name in old if Path(name).name == NOTES]
    if any(shown.get(name) != old[name] for name in notes):
        return "lost", "the user's file is gone"
    for kind, wanted in (("old", old), ("new", new)):
        if shown in (wanted, {name: kind for name, kind in wanted.items() if name != world.verb.note}):
            if kind == "old" and world.verb.before is None:
                return kind, ""
            said = problem_of(world.verb, world.work)
            return (kind, "") if said == world.checks[kind] else ("lost", said)
    if world.verb.grows:
        return "part", ""
    return (
        "lost",
        f"neither old nor new: {_some(unlike(shown, old))} are not the old, {_some(unlike(shown, new))} not the new",
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def problem_of(verb: Verb, work: Path) -> str:
    """What `poise check` says against the result; of tables it has nothing to say."""
    if verb.place.endswith(".csv") or not verb.checked:
        return ""
    tried = run(["check", verb.place], work)
    said = tried.said.strip().splitlines()[-1] if tried.code else ""
    return said.removeprefix("poise: ")


def _once_more(world: World) -> tuple[str, str]:
    """What is wrong with the result of the same command once more, and what a killed one left for good."""
    tried = run(world.verb.command, world.work, patch=world.verb.patch)
    if tried.code:
        return f"exit code {tried.code}: {tried.said.strip().splitlines()[-1]}", ""
    found = tree(world.work)
    if differ := unlike(visible(found), visible(world.new)):
        return f"{_some(differ)} differ from a run that nobody killed", ""
    left = unlike(found, world.new)
    return "", f"{_some(left)} left" if left else ""
