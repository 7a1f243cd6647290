"""Time to a decision: all methods tuned with equal budgets, the tied set, the verdict; beside the same head by head.

    python benchmarks/decision.py [--only small|large] [--epochs 3] [--repeats 1] [--threads N] [--quick]

    small   a shipped set, 10,847 x 64, C = 100; every method by its name, published recipes beside them
    large   made-up rows of the size of ImageNet-LT, 115,846 x 2048, C = 1000 (benchmarks/synthetic.py, which says where
            the counts are read from), 20 held-out and 50 test rows per class; every method by its name, those that are
            trained for 3 epochs of batches of 512 with products in bfloat16: 680 steps, where the small set has 850

The clock runs from features and a stage-1 head in memory to the verdict. For each way to search:

    full, halving, sketch   `compare` with this search; at the large size only `sketch`
    head by head            what the full search costs if every setting is fitted alone, by the method itself, and
                            measured alone, and the best of each method once more on the test rows: one setting of each
                            method is timed (for one epoch at the large size) and scaled to all, statistics included

A time is the median over repeats. What the searches choose, and how often it is the same, is in
experiments/results/elimination.md.
"""

import argparse
import json
import os
import statistics
import warnings
from dataclasses import replace
from typing import Any, NamedTuple

# As the command line does: threads that spin while they wait disturb each other on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from measuring import described, load, machine, parser, timed, write
from synthetic import DIM, problem, published

from poise import Features, Problem, Spec, compare
from poise.data.bundled import DEMO_SETS, load_demo
from poise.errors import PoiseWarning
from poise.methods import available, from_spec, is_trained, settings
from poise.selection.comparison_result import Comparison
from poise.selection.fit_and_measure import measure
from poise.selection.grids import BUDGET, default_grid

LONG = {"batch_size": 512, "matmul": "bfloat16"}  # of a trained method at the large size, beside its epochs


class Case(NamedTuple):
    """What is decided."""

    name: str
    problem: Problem
    test: Features
    specs: tuple[Spec, ...]
    searches: tuple[str, ...]
    recipes: bool
    budget: int


def small(given: argparse.Namespace) -> Case:
    """The first shipped set."""
    demo, quick = load_demo(next(iter(DEMO_SETS))), given.quick
    specs = tuple(Spec(name) for name in (("crt", "los", "ncm") if quick else available()))
    budget, recipes = (4, False) if quick else (BUDGET, True)
    return Case("small", demo.problem, demo.test, specs, ("full", "halving"), recipes, budget)


def large(given: argparse.Namespace) -> Case:
    """Made-up rows; the stage-1 head is plain cross-entropy, fitted before the clock starts."""
    quick, plan = given.quick, {**LONG, "epochs": given.epochs}
    rows, test = problem(published("ImageNet_LT", every=50 if quick else 1), dim=160 if quick else DIM)
    rows = replace(rows, head=from_spec(Spec("ce", start="fresh", **plan))(rows, 0))
    specs = tuple(Spec(name, plan if is_trained(name) else {}) for name in (("crt", "ncm") if quick else available()))
    return Case("large", rows, test, specs, ("sketch",), recipes=False, budget=4 if quick else BUDGET)


def decide(case: Case, search: str) -> tuple[float, Comparison]:
    """Seconds from features in memory to the verdict, and what was found."""
    found: list[Comparison] = []

    def run() -> None:
        found.append(
            compare(case.specs, case.problem, case.test, search=search, recipes=case.recipes, budget=case.budget)
        )
        found[0].to_dict()  # intervals, tied set and verdict are found when they are asked for

    return timed(run), found[0]


def head_by_head(case: Case, found: Comparison) -> float:
    """Seconds of the full search of the same families, each setting alone; a part is timed and scaled."""
    assert case.problem.held_out is not None
    seconds = 0.0
    for row in found.contenders:
        grid = default_grid(row.family, case.budget)
        own, on_test = alone(case, grid[len(grid) // 2])
        seconds += len(grid) * own + on_test
    for row in found.standings:
        if row.role == "recipe":
            own, on_test = alone(case, Spec.parse(row.method))
            seconds += own + on_test
    return seconds + timed(replace(found).to_dict)  # a new one, that has not yet found its intervals


def alone(case: Case, spec: Spec) -> tuple[float, float]:
    """Seconds to fit a spec and measure it on the held-out rows, and to measure it on the test rows."""
    timed_spec, scale = spec, 1
    if case.name == "large" and is_trained(spec.name):
        timed_spec, scale = Spec(spec.name, {**dict(spec.params), "epochs": 1}), settings(spec)["epochs"]
    heads = []
    fit = timed(lambda: heads.append(from_spec(timed_spec)(case.problem, 0)))
    held_out, test = (timed(lambda rows=rows: measure(heads[0], rows)) for rows in (case.problem.held_out, case.test))
    return scale * fit + held_out, test


def measured(case: Case, repeats: int) -> dict[str, Any]:
    """The times of one size, and what was decided."""
    seconds: dict[str, list[float]] = {search: [] for search in (*case.searches, "head by head")}
    decided: dict[str, Any] = {}
    for _ in range(repeats):
        for search in case.searches:
            took, found = decide(case, search)
            seconds[search].append(took)
            decided[search] = {
                "verdict": found.verdict(),
                "tied": list(found.tied()),
                "chosen": {str(row.family): row.method for row in found.contenders},
                "left_out_early": sum(0 if row.selection is None else row.selection.early for row in found.contenders),
            }
            print(f"{case.name:6} {search:13} {took:8.1f} s   {found.verdict()}", flush=True)
        seconds["head by head"].append(head_by_head(case, found))
    times = {name: statistics.median(values) for name, values in seconds.items()}
    for search in case.searches:
        factor = times["head by head"] / times[search]
        print(f"{case.name:6} head by head {times['head by head']:9.1f} s   {factor:.1f} times {search}", flush=True)
    sizes = {"rows": len(case.problem.train), "dim": case.problem.train.dim, "classes": len(case.problem.train.counts)}
    heads = sum(len(default_grid(row.family, case.budget)) for row in found.contenders)
    return {**sizes, "settings": heads, "seconds": times, "repeats": seconds, "decided": decided}


def main() -> None:
    """Measure the sizes asked for and write the result."""
    made = parser(__doc__, "decision", "few methods, budget 4, every 50th class", repeats=1)
    made.add_argument("--only", choices=("small", "large"))
    made.add_argument("--epochs", type=int, default=3, help="of every trained method at the large size")
    given: argparse.Namespace = made.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore", PoiseWarning)
    facts = machine()
    makers = {"small": small, "large": large}
    chosen = [given.only] if given.only else list(makers)
    found = {name: measured(makers[name](given), given.repeats) for name in chosen}
    print(described(facts, load()))
    before = json.loads(given.out.read_text()) if given.only and given.out.exists() else {}
    write({**before, "machine": facts, "load_after": load(), "epochs": given.epochs, **found}, given)


if __name__ == "__main__":
    main()
