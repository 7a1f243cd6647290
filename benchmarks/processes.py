"""The same fit in one process and in several: does it give the same heads, and how long does it take?

    python benchmarks/processes.py [--processes 2] [--threads 1] [--repeats 3] [--only mixed|crt] [--quick]

    mixed    64 heads of all trained methods (benchmarks/heads.py) on the shipped rows, 10,847 x 64, 100 classes
    crt      one `crt` head on 115,846 x 2048 made-up rows of 1,000 classes (benchmarks/synthetic.py)

Three ways in every repeat, each started anew: one process with the threads of one; one process with the threads of
all; and all processes, through torch.distributed.run. Seconds are those of fit_heads alone, begun together. Differences
are to the first way, over all heads: the greatest of a weight or bias, in units of the head's greatest weight, and the
share of test rows that get another class. The second way has some too, since the order of additions depends on threads.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

# As the command line does: threads that spin while they wait disturb each other on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from measuring import described, load, machine, median, parser, ratio, timed, write
from synthetic import DIM, HELD_OUT, features, published

from heads import recipes
from poise import ClassCounts, Features, Head, Problem, Retrain, fit_heads
from poise.data.bundled import load_demo
from poise.machine.atomic import write_atomically
from poise.machine.processes import started
from poise.methods import build


class Case(NamedTuple):
    """A fit, and rows on which predictions are compared; both functions of whether the run is a quick one."""

    fit: Callable[[bool], tuple[Problem, list[Retrain]]]
    test: Callable[[bool], Features]


def mixed(quick: bool) -> tuple[Problem, list[Retrain]]:
    """All trained methods on the shipped rows."""
    return load_demo().problem, recipes(32 if quick else 64, 1 if quick else 5, 128)


def crt(quick: bool) -> tuple[Problem, list[Retrain]]:
    """One head whose every step sends a large gradient."""
    return Problem(features(*of_crt(quick), 0)), [build("crt", epochs=1)]


def of_crt(quick: bool) -> tuple[ClassCounts, int]:
    """Counts and columns."""
    return published("ImageNet_LT", 20 if quick else 1), 64 if quick else DIM


CASES = {
    "mixed": Case(mixed, lambda quick: load_demo().test),
    "crt": Case(crt, lambda quick: features(*of_crt(quick), 0, HELD_OUT, 20)),
}


class Way(NamedTuple):
    """How many processes, and threads of each."""

    processes: int
    threads: int

    def __str__(self) -> str:
        return f"{self.processes} x {self.threads}"


# --- one way ----------------------------------------------------------------------------------------------------------


def work(given: argparse.Namespace) -> None:
    """One of the processes: fit, and let the first of them write heads and seconds."""
    torch.set_num_threads(given.threads)
    with started() as world:
        problem, asked = CASES[given.work].fit(given.quick)
        problem = problem if world.alone else replace(problem, world=world)
        fit_heads(problem, [build("crt", epochs=0)])  # what a first call imports
        heads: list[Head] = []
        world.wait()
        seconds = timed(lambda: heads.extend(fit_heads(problem, asked)))
        if world.first:
            for number, head in enumerate(heads):
                head.save(given.folder / f"{number:03d}.safetensors")
            write_atomically(given.folder / "seconds.json", json.dumps(seconds))


def run(case: str, way: Way, quick: bool) -> tuple[float, list[Head]]:
    """Seconds and heads of a way."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable]
        if way.processes > 1:
            command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(way.processes)]
        command += [__file__, "--work", case, "--threads", str(way.threads), "--folder", folder]
        command += ["--quick"] if quick else []
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": str(way.threads)})
        heads = [Head.load(path) for path in sorted(Path(folder).glob("*.safetensors"))]
        return json.loads((Path(folder) / "seconds.json").read_text()), heads


# --- comparing --------------------------------------------------------------------------------------------------------


def apart(heads: list[Head], others: list[Head], test: Features) -> dict[str, float]:
    """The greatest difference of numbers, and the greatest share of rows that get another class."""
    numbers, shares = [], []
    for one, other in zip(heads, others, strict=True):
        rows = [torch.cat([head.weight, head.bias.unsqueeze(-1)], dim=-1) for head in (one, other)]
        numbers.append(float((rows[0] - rows[1]).abs().max() / rows[0][:, :-1].abs().max()))
        guesses = [head(test.x[0]).argmax(dim=-1) for head in (one, other)]
        shares.append(float((guesses[0] != guesses[1]).double().mean()))
    return {"numbers": max(numbers), "predictions": max(shares)}


def measure(case: str, ways: list[Way], given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of every way in every repeat, and how far its heads are from those of the first way."""
    test, differences = CASES[case].test(given.quick), {}
    repeats: list[dict[str, float]] = []
    for _ in range(given.repeats):
        seconds: dict[str, float] = {}
        reference: list[Head] = []
        for way in ways:
            seconds[str(way)], heads = run(case, way, given.quick)
            reference = reference or heads
            differences[str(way)] = apart(reference, heads, test)
        repeats.append(seconds)
    first = str(ways[0])
    return {
        "repeats": repeats,
        "ratio": {name: ratio(repeats, name, first) for name in repeats[0]},
        "difference": differences,
        "heads": len(reference),
    }


def report(result: dict[str, Any]) -> str:
    """Everything that is printed, at most 80 columns."""
    lines = [described(result["machine"], result["load_after"]), ""]
    lines.append(f"{'case':<7} {'processes x threads':<20} {'seconds':>9} {'ratio':>7} {'numbers':>11} {'rows':>9}")
    for case, found in result["cases"].items():
        for way, difference in found["difference"].items():
            lines.append(
                f"{case:<7} {way:<20} {median(found['repeats'], way):9.2f} {found['ratio'][way]:7.2f} "
                f"{difference['numbers']:11.1e} {difference['predictions']:9.4%}"
            )
    lines += ["", "ratio of seconds, difference of numbers and of rows: to the first way of the case"]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    arguments = parser(__doc__, "processes", "fewer and smaller heads, 1 epoch, 1 repeat")
    arguments.set_defaults(threads=1)
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("--only", choices=CASES)
    arguments.add_argument("--work", choices=CASES, help=argparse.SUPPRESS)
    arguments.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.work:
        work(given)
        return
    if given.quick:
        given.repeats = 1
    ways = [Way(1, given.threads), Way(1, given.threads * given.processes), Way(given.processes, given.threads)]
    torch.set_num_threads(given.threads)
    facts = machine()
    before = json.loads(given.out.read_text())["cases"] if given.only and given.out.exists() else {}
    cases = before | {case: measure(case, ways, given) for case in CASES if given.only in (None, case)}
    result = {
        "machine": facts,
        "load_after": load(),
        "setting": {"processes": given.processes, "threads": given.threads, "ways": [str(way) for way in ways]},
        "cases": cases,
    }
    print(report(result))
    write(result, given)


if __name__ == "__main__":
    main()
