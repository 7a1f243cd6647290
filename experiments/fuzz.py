"""Mutants of every kind of file and text that Poise reads: each is read, or refused in one sentence.

Run: python experiments/fuzz.py [--inputs 100000] [--seed 0] [--only KIND] [--number N] [--keep FOLDER]

Right files of every kind are made by Poise itself, and mutated by `tests/fuzzing`: bits, bytes, lengths, splices; keys,
types and extreme values of documents; headers, members and declared sizes of archives, with checksums that hold; files
that are pipes, folders, devices or missing. Of the mutants of files with checksums, seven in ten have theirs mended.

An input is right if it is read, or refused by exactly one PoiseError in one line of at most 2,000 characters without
control characters. Anything else is a finding: another exception, a hang (20 seconds, or 5 of computing), memory (1 GB
above what the process had), a flood of warnings, the end of the process. One input in a hundred goes through the
command line, which has to end with code 0 or 2, and without a traceback. A worker process does the reading; a watchdog
starts another one in place of one that dies or does not come back.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

COMMANDS = 0.01  # the share of inputs that goes through the command line
PATIENCE = 60.0  # seconds without a word from the worker
STARTING = 180.0  # seconds until it says its first


class Heard(NamedTuple):
    """What a worker says of an input; `file` and `done` are what was mutated, and how."""

    kind: str
    number: int
    outcome: str
    what: str = ""
    where: str = ""
    detail: str = ""
    file: str = ""
    done: str = ""
    peak: int = 0


class Found(NamedTuple):
    """What became of the inputs of a kind: outcomes, findings, seconds, and the most memory that the process had."""

    outcomes: Counter[str]
    findings: tuple[Heard, ...]
    seconds: float
    peak: int


# --- the worker -------------------------------------------------------------------------------------------------------


def work(names: Sequence[str], first: int, last: int, seed: int, root: Path) -> None:
    """Judge the inputs of kinds, of the first kind from `first` on; a line of JSON for each."""
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not for whoever listens
    from fuzzing.kinds import KINDS
    from fuzzing.verdict import judged, made, seeds_of

    kinds = {kind.name: kind for kind in KINDS}
    for name in names:
        seeds = seeds_of(kinds[name], root / f"seeds {os.getpid()}")
        for number in range(first if name == names[0] else 0, last):
            print(json.dumps(Heard(name, number, "begun")), file=said, flush=True)
            case = made(kinds[name], seeds, number, seed, COMMANDS)
            verdict = judged(kinds[name], case, root / "input")
            done = " ".join((case.done, case.place, *case.words)).strip()
            print(json.dumps(Heard(name, number, *verdict, case.file, done, _peak())), file=said, flush=True)


def _peak() -> int:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


# --- who watches it ---------------------------------------------------------------------------------------------------


def started(names: Sequence[str], first: int, last: int, seed: int, root: Path) -> subprocess.Popen[str]:
    """A worker; no name in a mutant may make it look for a model on a network."""
    command = [sys.executable, __file__, "--work", str(root), "--first", str(first), "--inputs", str(last)]
    command += ["--seed", str(seed), *(word for name in names for word in ("--only", name))]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (root / "stderr").open("w") as errors:
        return subprocess.Popen(
            command, env={**os.environ, **offline}, stdout=subprocess.PIPE, stderr=errors, text=True
        )


def words_of(process: subprocess.Popen[str]) -> Iterator[Heard | None]:
    """What a worker says; None where it says nothing for too long. Ends with its output."""
    lines: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    threading.Thread(target=listen, daemon=True).start()
    patience = STARTING
    while True:
        try:
            line = lines.get(timeout=patience)
        except queue.Empty:
            yield None
            return
        if not line:
            return
        patience = PATIENCE if '"begun"' in line else STARTING  # between two kinds, seeds are made
        yield Heard(*json.loads(line))


def judged_inputs(names: Sequence[str], inputs: int, seed: int, root: Path) -> Iterator[Heard]:
    """The verdict on every input of every kind; what ends a worker, or keeps it, is a finding."""
    left, first = list(names), 0
    while left:
        process, begun, why = started(left, first, inputs, seed, root), None, "the process ended"
        for heard in words_of(process):
            if heard is None:
                why = "no word for too long"
                process.kill()
            elif heard.outcome == "begun":
                begun = heard
            else:
                begun = None
                yield heard
                left, first = _after(heard, left, inputs)
        code = process.wait()
        if begun is None and left:
            raise SystemExit(f"the worker made no seeds ({why}):\n{(root / 'stderr').read_text()[-3000:]}")
        if begun is not None:
            yield begun._replace(outcome="finding", what=why, where=begun.kind, detail=f"exit code {code}")
            left, first = _after(begun, left, inputs)


def _after(heard: Heard, left: list[str], inputs: int) -> tuple[list[str], int]:
    """The kinds that are left after an input, and the first input of the first of them."""
    rest = left[left.index(heard.kind) :]
    return (rest, heard.number + 1) if heard.number + 1 < inputs else (rest[1:], 0)


# --- what is told -----------------------------------------------------------------------------------------------------


def told(names: Sequence[str], inputs: int, seed: int, root: Path) -> Iterator[tuple[str, Found]]:
    """Kind by kind, what became of its inputs."""
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    findings: dict[str, list[Heard]] = defaultdict(list)
    peak, began, current = 0, time.perf_counter(), names[0]
    for heard in judged_inputs(names, inputs, seed, root):
        if heard.kind != current:
            yield current, Found(outcomes[current], tuple(findings[current]), time.perf_counter() - began, peak)
            peak, began, current = 0, time.perf_counter(), heard.kind
        outcomes[current][heard.outcome] += 1
        peak = max(peak, heard.peak)
        if heard.outcome == "finding":
            findings[current].append(heard)
    yield current, Found(outcomes[current], tuple(findings[current]), time.perf_counter() - began, peak)


HEADS = ("kind", "inputs", "read", "one sentence", "findings", "per second", "memory (GB)")


def row(name: str, found: Found) -> str:
    """A row of the table."""
    total = found.outcomes.total()
    numbers = (total, *(found.outcomes[key] for key in ("read", "sentence", "finding")))
    speed = f"{total / found.seconds:.0f}"
    return "| " + " | ".join([name, *map(str, numbers), speed, f"{found.peak / 1e9:.2f}"]) + " |"


def listed(findings: Sequence[Heard]) -> list[str]:
    """A line for each place where something else was raised: how often, an example, and how to repeat it."""
    places: dict[tuple[str, str, str], list[Heard]] = defaultdict(list)
    for each in findings:
        places[each.kind, each.where, each.what].append(each)
    return [
        f"- {kind}, {where}: {what}, {len(each)} times. `--only {kind!r} --number {each[0].number}`: "
        f"{each[0].file}, {each[0].done}: {each[0].detail[:200]!r}"
        for (kind, where, what), each in sorted(places.items(), key=lambda pair: -len(pair[1]))
    ]


def page(found: Mapping[str, Found], command: str) -> str:
    """The table, the findings, what they mean, and how to repeat them."""
    from poise.results.record import versions

    every = [heard for each in found.values() for heard in each.findings]
    total = Found(
        sum((each.outcomes for each in found.values()), Counter()),
        (),
        sum(each.seconds for each in found.values()),
        max(each.peak for each in found.values()),
    )
    made = ", ".join(f"{name} {version}" for name, version in versions().items())
    return "\n".join(
        [
            "# Mutants of every kind of file and text",
            "",
            (__doc__ or "").split("\n\n", 2)[2].strip(),
            "",
            "Memory is the most that the worker had, libraries included; the speed includes making right files first.",
            "",
            "| " + " | ".join(HEADS) + " |",
            "|" + " --- |" * len(HEADS),
            *(row(name, each) for name, each in found.items()),
            row("all", total),
            "",
            *(["What is left to mend:", "", *listed(every), ""] if every else ["No finding.", ""]),
            f"Command: `{command}`; {made}.",
            "",
        ]
    )


def repeated(name: str, number: int, seed: int, keep: Path) -> None:
    """Write one input below `keep`, and read it without a safety net."""
    from fuzzing.kinds import KINDS
    from fuzzing.verdict import laid, made, seeds_of

    (kind,) = (kind for kind in KINDS if kind.name == name)
    with tempfile.TemporaryDirectory() as root:
        case = made(kind, seeds_of(kind, Path(root)), number, seed, COMMANDS)
    laid(case, keep)
    print(f"{keep / case.file}: {case.done} {case.place} {' '.join(case.words)}")
    if not case.words:
        print(kind.read(keep))


def main() -> None:
    """Print the table, and write it where every kind had its turn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="in all, dealt evenly to the kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="a kind; several times for several")
    parser.add_argument("--number", type=int, help="repeat this input of the kind, with its traceback")
    parser.add_argument("--keep", type=Path, default=Path("fuzzed"), help="where the input that is repeated is left")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.only, given.first, given.inputs, given.seed, given.work)
        return
    if given.number is not None:
        repeated(given.only[0], given.number, given.seed, given.keep)
        return
    from fuzzing.kinds import KINDS

    names = given.only or [kind.name for kind in KINDS]
    each = -(-given.inputs // len(names))
    found = {}
    print("| " + " | ".join(HEADS) + " |\n|" + " --- |" * len(HEADS))
    with tempfile.TemporaryDirectory() as root:
        for name, result in told(names, each, given.seed, Path(root)):
            found[name] = result
            print(row(name, result), *listed(result.findings), sep="\n", flush=True)
    if not given.only:
        from poise.machine.atomic import write_atomically

        command = f"python experiments/fuzz.py --inputs {given.inputs} --seed {given.seed}"
        write_atomically(Path("experiments/results/fuzz.md"), page(found, command))


if __name__ == "__main__":
    main()
