"""What `fit_heads` costs against the number of rows N, columns D, classes C and heads.

    python benchmarks/scaling.py [--epochs 5] [--repeats 3] [--threads N] [--quick]

One `ce` head on 10,847 x 64 rows of 100 classes, batch 128, and from there one of the numbers changed at a time. Rows
are normal numbers, as time does not depend on what they are; those of the last two parts are the shipped ones:

    rows, dim, classes      one head
    heads                   so many `ce` heads with different learning rates in one call, as a search asks for
    mixed heads             the mix of all trained methods of benchmarks/heads.py; 1 is the mean of those methods alone

Seconds are medians over repeats; a ratio is the median over repeats of the ratio within a repeat. The exponent of N is
the slope of log seconds against log N, over all sizes and over those from 10,847 up, where fixed costs matter less.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

# As the command line does: threads that spin while they wait disturb each other on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from measuring import described, load, machine, median, parser, ratio, timed, write

from heads import MIX, recipes
from poise import ClassCounts, Features, Head, Problem, Retrain, fit_heads
from poise.data.bundled import load_demo
from poise.methods import build

ROWS, DIM, CLASSES, BATCH = 10_847, 64, 100, 128
AXES: dict[str, tuple[int, ...]] = {
    "rows": tuple(round(ROWS * 2.0**k) for k in (-3, -2, -1, 0, 1, 2, 3, 4)),
    "dim": (16, 64, 256, 1024, 2048),
    "classes": (10, 100, 1000, 8000),
    "heads": (1, 4, 16, 64, 256),
    "mixed heads": (1, 64, 256),
}
FEW = {"rows": 5, "dim": 3, "classes": 2, "heads": 4, "mixed heads": 2}  # sizes of a quick run


def made(rows: int = ROWS, dim: int = DIM, classes: int = CLASSES) -> Problem:
    """Normal rows, and a stage-1 head of zeros, so that none is trained."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(rows) % classes
    train = Features(torch.randn(rows, dim, generator=generator), y, ClassCounts.from_labels(y, classes))
    return Problem(train, Head(torch.zeros(classes, dim), torch.zeros(classes)))


def grid(heads: int, epochs: int) -> list[Retrain]:
    """`ce` heads with falling learning rates."""
    return [build("ce", epochs=epochs, batch_size=BATCH, lr=3.0 * 0.98**i) for i in range(heads)]


def point(axis: str, size: int, epochs: int) -> Callable[[], float]:
    """A call that gives the seconds of one point."""
    if axis == "heads":
        problem = load_demo().problem
        return lambda: timed(lambda: fit_heads(problem, grid(size, epochs)))
    if axis == "mixed heads":
        problem, mixed = load_demo().problem, recipes(max(size, len(MIX)), epochs, BATCH)
        if size == 1:
            return lambda: timed(lambda: [fit_heads(problem, [each]) for each in mixed]) / len(mixed)
        return lambda: timed(lambda: fit_heads(problem, mixed))
    problem, alone = made(**{axis: size}), grid(1, epochs)
    return lambda: timed(lambda: fit_heads(problem, alone))


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Slope of log seconds against log size."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def measure(given: argparse.Namespace) -> list[dict[str, float]]:
    """Seconds of every point, named by axis and size, in every repeat."""
    sizes = {axis: found[: FEW[axis]] if given.quick else found for axis, found in AXES.items()}
    repeats: list[dict[str, float]] = [{} for _ in range(given.repeats)]
    for axis, found in sizes.items():
        points = {size: point(axis, size, given.epochs) for size in found}
        next(iter(points.values()))()  # the first call of all imports and allocates
        for seconds in repeats:
            seconds |= {f"{axis} {size}": run() for size, run in points.items()}
    return repeats


def steps(axis: str, size: int, epochs: int) -> int:
    """Steps of one head."""
    return epochs * -(-(size if axis == "rows" else ROWS) // BATCH)


def costs(repeats: list[dict[str, float]], epochs: int) -> list[dict[str, Any]]:
    """One entry per point: seconds, per step, per head, and to the first point of the axis or one head alone."""
    found = []
    for name in repeats[0]:
        axis, size = name.rsplit(" ", 1)
        seconds, many = median(repeats, name), int(size) if "heads" in axis else 1
        first = next(other for other in repeats[0] if other.startswith(f"{axis} "))
        entry = {"axis": axis, "size": int(size), "seconds": seconds}
        entry["step"] = seconds / steps(axis, int(size), epochs)
        entry["head"] = seconds / many
        entry["ratio"] = ratio(repeats, name, first) / many
        found.append(entry)
    return found


def report(result: dict[str, Any]) -> str:
    """Everything that is printed, at most 80 columns."""
    lines = [
        "one ce head, {epochs} epochs, batch {batch}, {rows} rows, C = {classes}, D = {dim}, but".format(
            **result["setting"]
        ),
        described(result["machine"], result["load_after"]),
        "",
        f"{'what':<12} {'size':>8} {'seconds':>10} {'ms per step':>12} {'s per head':>11} {'to the first':>13}",
    ]
    lines += [
        f"{entry['axis']:<12} {entry['size']:8d} {entry['seconds']:10.3f} {1000 * entry['step']:12.3f} "
        f"{entry['head']:11.4f} {entry['ratio']:13.3f}"
        for entry in result["costs"]
    ]
    lines += ["", "to the first: seconds per head, to those of the first size of the same part"]
    lines.append(
        "exponent of N: {all:.3f} over all sizes, {large:.3f} from 10,847 rows up".format(**result["exponent"])
    )
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    arguments = parser(__doc__, "scaling", "1 epoch, the smaller sizes, 1 repeat")
    arguments.add_argument("--epochs", type=int, default=5)
    given = arguments.parse_args()
    if given.quick:
        given.epochs, given.repeats = 1, 1
    torch.set_num_threads(given.threads)
    facts = machine()
    repeats = measure(given)
    found = costs(repeats, given.epochs)
    of_rows = {entry["size"]: entry["seconds"] for entry in found if entry["axis"] == "rows"}
    large = [size for size in of_rows if size >= ROWS]
    result = {
        "machine": facts,
        "load_after": load(),
        "setting": {"epochs": given.epochs, "batch": BATCH, "rows": ROWS, "dim": DIM, "classes": CLASSES},
        "repeats": repeats,
        "costs": found,
        "exponent": {
            "all": exponent(list(of_rows), list(of_rows.values())),
            "large": exponent(large, [of_rows[size] for size in large]),
        },
    }
    print(report(result))
    write(result, given)


if __name__ == "__main__":
    main()
