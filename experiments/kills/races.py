"""Two processes write one result: the second is refused while the first works, and one result is whole in the end.

A first process is stopped at one of its operations; a second runs meanwhile, to its end; then the first goes on. Before
the first has claimed the folder, and after it has left it, the second may succeed: then each has to come out whole. In
other trials both run freely, the second started at a random moment of the first.
"""

import os
import random
import time
from collections.abc import Callable
from typing import NamedTuple

from kills.disk import Act, Running, Tried, ended, start
from kills.folders import Tree, copied, tree, unlike, visible
from kills.operations import World

HEADS = ("verb", "trials", "second refused", "one after the other", "first refused", "mixed or failed", "seconds")
PATIENCE = 0.2  # seconds for which a small file waits for another writer here; the first is stopped and will not end


class Raced(NamedTuple):
    """How the trials of a verb ended; `finds` has a sentence for each bad one."""

    trials: int
    second: int
    both: int
    first: int
    bad: int
    seconds: float
    finds: list[str]


def raced(world: World, stops: int, free: int, draws: random.Random) -> Raced:
    """Trials with the first stopped at `stops` places spread over its operations, and `free` ones without a stop."""
    begun, finds = time.monotonic(), list[str]()
    counted = {"second": 0, "both": 0, "first": 0, "bad": 0}
    copied(world.kept, world.work)
    clock = time.monotonic()
    whole = ended(_first(world, _never))
    seconds, operations = time.monotonic() - clock, len(whole.operations)
    step = max(1, operations // stops) if stops else operations + 1
    places = range(1 + draws.randrange(step), operations + 1, step)
    trials = [_stopped(world, at) for at in places]
    trials += [_free(world, draws.uniform(0, seconds)) for _ in range(free)]
    for where, first, second, found in trials:
        kind, said = _judged(world, first, second, found)
        counted[kind] += 1
        if said:
            finds.append(f"{world.verb.name}, {where}: {said}")
    return Raced(len(trials), *counted.values(), time.monotonic() - begun, finds)


Trial = tuple[str, Tried, Tried, Tree]


def _stopped(world: World, at: int) -> Trial:
    """The second runs while the first stands before its operation number `at`."""
    copied(world.kept, world.work)
    (reached, tell), (wait, go) = os.pipe(), os.pipe()

    def watcher(names: list[str]) -> Act:
        def act(name: str) -> None:
            names.append(name)
            if len(names) == at:
                os.write(tell, b".")
                os.read(wait, 1)

        return act

    process = _first(world, watcher)
    os.close(tell)
    os.read(reached, 1)  # ends too where the first ends before
    second = ended(_second(world))
    os.write(go, b".")
    first = ended(process)
    for handle in (reached, wait, go):
        os.close(handle)
    name = first.operations[at - 1] if len(first.operations) >= at else "its end"
    return f"the first at {at} ({name})", first, second, tree(world.work)


def _free(world: World, later: float) -> Trial:
    """The second starts some seconds after the first."""
    copied(world.kept, world.work)
    process = _first(world, _never)
    time.sleep(later)
    second = ended(_second(world))
    return f"the second {later:.2f} s later", ended(process), second, tree(world.work)


def _never(names: list[str]) -> Act:
    return names.append


def _first(world: World, watcher: Callable[[list[str]], Act]) -> Running:
    return start(world.verb.command, world.work, watcher, patch=world.verb.patch)


def _second(world: World) -> Running:
    """The other command: what was there before, made again; or the same, where there is no other."""
    words = world.verb.before or world.verb.command
    return start(words, world.work, _never, patch=lambda: _impatient(world))


def _impatient(world: World) -> None:
    from poise.machine import atomic

    atomic.PATIENCE = PATIENCE
    if world.verb.patch is not None:
        world.verb.patch()


def _judged(world: World, first: Tried, second: Tried, found: Tree) -> tuple[str, str]:
    """How a trial ended, and what was wrong with it."""
    for tried in (first, second):
        if tried.code not in (0, 2) or (tried.code == 2 and tried.said.count("poise: ") != 1):
            return "bad", f"exit code {tried.code}: {' | '.join(tried.said.strip().splitlines()[-2:])}"
    if first.code and second.code:
        return "bad", f"both refused: {first.said.strip().splitlines()[-1]}"
    shown, ends = visible(found), {"new": visible(world.new), "old": visible(world.old)}
    wanted = ["old"] if first.code else ["new"] if second.code else ["new", "old"]
    if world.verb.before is None:
        wanted = ["new"]
    if not any(shown == ends[name] for name in wanted):
        near = min((unlike(shown, ends[name]) for name in wanted), key=len)
        return "bad", f"exit codes {first.code} and {second.code}, and {', '.join(near[:4])} of neither or of both"
    if left := [name for name in unlike(found, world.new) if name.rpartition("/")[2].startswith(".")]:
        return "bad", f"{', '.join(left)} left"
    return ("first" if first.code else "second" if second.code else "both"), ""
