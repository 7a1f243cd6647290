"""One epoch of one head at the size of iNaturalist 2018: time beside its matrix products, and peak memory.

    python benchmarks/inaturalist.py [--folder FOLDER] [--method crt] [--repeats 1] [--threads N]
                                     [--precisions float32 bfloat16] [--quick]

437,513 x 2048 made-up rows in float16, 8,142 classes with the published counts (benchmarks/synthetic.py, which says
where the counts are read from), in a store of 1.8 GB that is written first and used again. Each fit runs in a process
of its own, so that making the rows does not count:

    load        load_features
    fit         one epoch of fit_heads, batch 128
    products    the products of the same steps, forward and gradient, in the same precision, in the fastest of several
                layouts (timed first); some steps before the fit and some after, scaled to all
    metrics     evaluate_head on 24,426 rows, 3 per class

Memory is the resident memory of that process, torch included: `peak` as the system counts it, `anonymous` what it
allocated itself (sampled ten times a second), `mapped` the pages of files, rows of the store and libraries, which the
system may take back at any time. `start` is the process before the rows were opened; a peak is never forgotten.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# As the command line does: threads that spin while they wait disturb each other on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from measuring import (
    PRECISIONS,
    beside,
    described,
    fastest,
    layout_seconds,
    load,
    machine,
    median,
    parser,
    percentages,
    products,
    ratio,
    shown,
    timed,
    write,
)
from synthetic import DIM, TEST, default_folder, features, published, store

from poise import Head, Problem, Retrain, fit_heads
from poise.data.store.feature_store import load_features
from poise.methods import build

BATCH = 128
STEPS = 60  # of the products, before the fit and again after it
TRIED = 4  # steps in which each layout is tried
PAUSE = 0.1  # seconds between samples of memory
KINDS = {"VmHWM": "peak", "RssAnon": "anonymous", "RssFile": "mapped"}


# --- memory -----------------------------------------------------------------------------------------------------------


def memory() -> dict[str, float]:
    """Gigabytes (1e9 bytes) of this process by kind; only the peak where the system says no more."""
    status = Path("/proc/self/status")
    if not status.exists():
        unit = 1 if sys.platform == "darwin" else 1024
        return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}
    lines = (line.split() for line in status.read_text().splitlines())
    return {KINDS[name]: int(rest[0]) * 1024 / 1e9 for entry, *rest in lines if (name := entry.rstrip(":")) in KINDS}


@contextmanager
def highest() -> Iterator[dict[str, float]]:
    """What is yielded holds, in the end, the highest memory of each kind within."""
    found, over = memory(), threading.Event()

    def sample() -> None:
        while not over.wait(PAUSE):
            for kind, size in memory().items():
                found[kind] = max(found[kind], size)

    watcher = threading.Thread(target=sample)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()
        found.update({kind: max(found[kind], size) for kind, size in memory().items()})


# --- the measured process ---------------------------------------------------------------------------------------------


def recipe(method: str, precision: str) -> Retrain:
    """One epoch from a fresh head, with products in a precision."""
    return build(method, epochs=1, batch_size=BATCH, start="fresh", matmul=precision)


def measure(folder: Path, method: str, precision: str) -> dict[str, Any]:
    """Seconds, memory and accuracy of one fit, and its products."""
    used, seconds, heads = {"start": memory()}, {}, list[Head]()
    with highest() as used["load"]:
        begun = time.perf_counter()
        train = load_features(folder)
        seconds["load"] = time.perf_counter() - begun
    some = train.x[0][: STEPS * BATCH].to(PRECISIONS[precision])
    layouts = layout_seconds(some[: TRIED * BATCH], len(train.counts), BATCH)
    bare = products(fastest(layouts), some, len(train.counts), BATCH)
    with highest() as used["fit"]:
        seconds["fit"], part = beside(
            lambda: heads.extend(fit_heads(Problem(train), [recipe(method, precision)])), bare
        )
    seconds["products"] = part * len(train) / len(some)
    validation = features(train.counts, train.dim, 0, TEST, 3)
    with highest() as used["metrics"]:
        begun = time.perf_counter()
        accuracy = percentages(heads[0], validation)
        seconds["metrics"] = time.perf_counter() - begun
    return {
        "seconds": seconds,
        "products_rows": [2 * len(some), len(train)],
        "layouts": {layout: found / TRIED for layout, found in layouts.items()},
        "memory": used,
        "accuracy": accuracy,
        "validation_rows": len(validation),
    }


def child(given: argparse.Namespace, folder: Path, precision: str) -> dict[str, Any]:
    """What `measure` gives in a process of its own."""
    asked = [sys.executable, __file__, "--measure", precision, "--folder", folder]
    asked += ["--method", given.method, "--threads", str(given.threads)]
    done = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


# --- reporting --------------------------------------------------------------------------------------------------------


def report(result: dict[str, Any]) -> str:
    """Everything that is printed, at most 80 columns."""
    setting = result["setting"]
    lines = [
        "one {method} head, 1 epoch, batch {batch}, {rows} rows, C = {classes}, D = {dim}".format(**setting),
        described(result["machine"], result["load_after"]),
        "",
        f"{'seconds':<12} {'load':>9} {'fit':>9} {'products':>9} {'metrics':>9} {'fit/products':>13}",
    ]
    for precision, found in result["found"].items():
        times = [each["seconds"] for each in found]
        row = " ".join(f"{median(times, what):9.2f}" for what in ("load", "fit", "products", "metrics"))
        lines.append(f"{precision:<12} {row} {result['ratio'][precision]:13.2f}")
    lines += ["", f"{'memory, GB':<22} {'peak':>9} {'anonymous':>9} {'mapped':>9}"]
    for precision, found in result["found"].items():
        for when, sizes in found[-1]["memory"].items():
            kinds = " ".join(shown(sizes.get(kind), "9.2f") for kind in KINDS.values())
            lines.append(f"{precision + ', ' + when:<22} {kinds}")
    lines += ["", f"{'accuracy, per cent':<22} {'all':>9} {'many':>9} {'medium':>9} {'few':>9}"]
    for precision, found in result["found"].items():
        lines.append(f"{precision:<22} " + " ".join(shown(share, "9.2f") for share in found[-1]["accuracy"].values()))
    layouts = ", ".join(f"{precision} {fastest(found[-1]['layouts'])}" for precision, found in result["found"].items())
    measured, rows = next(iter(result["found"].values()))[-1]["products_rows"]
    lines += ["", f"layouts: {layouts}", f"products scaled from {measured} to {rows} rows"]
    return "\n".join(lines)


def main() -> None:
    """Write the store if it is not there, measure, print and write."""
    arguments = parser(__doc__, "inaturalist", "every 40th class, 64 columns, 1 repeat", repeats=1)
    arguments.add_argument("--folder", type=Path, help="of the store; default: in the system's temporary directory")
    arguments.add_argument("--method", choices=("crt", "balanced_softmax"), default="crt")
    arguments.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    arguments.add_argument("--measure", choices=PRECISIONS, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    if given.measure:
        print(json.dumps(measure(given.folder, given.method, given.measure)))
        return
    every, dim, repeats = (40, 64, 1) if given.quick else (1, DIM, given.repeats)
    folder = given.folder or default_folder("inaturalist18-quick" if given.quick else "inaturalist18")
    counts = published("iNaturalist18", every)
    writing = timed(lambda: store(counts, folder, dim))
    facts = machine()
    found: dict[str, list[dict[str, Any]]] = {precision: [] for precision in given.precisions}
    for _ in range(repeats):
        for precision in given.precisions:
            found[precision].append(child(given, folder, precision))
    result = {
        "machine": facts,
        "load_after": load(),
        "setting": {
            "method": given.method,
            "batch": BATCH,
            "rows": int(counts.n.sum()),
            "classes": len(counts),
            "dim": dim,
            "repeats": repeats,
            "validation_rows": next(iter(found.values()))[-1]["validation_rows"],
        },
        "store_seconds": writing,
        "found": found,
        "ratio": {p: ratio([each["seconds"] for each in runs], "fit", "products") for p, runs in found.items()},
        "peak": {p: max(each["memory"]["fit"]["peak"] for each in runs) for p, runs in found.items()},
    }
    print(report(result))
    write(result, given)


if __name__ == "__main__":
    main()
