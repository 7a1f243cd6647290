"""How often `--precision` and `--abstain-accuracy` deliver what they promise, on worlds with 100,000 further rows.

Run: python experiments/targets.py [--out experiments/results] [--worlds N] [--seed N]

A world is a mixture of 10 Gaussians with random means in 12 dimensions, 2.5 to 4.5 from the origin; training rows are
long-tailed (80 in the largest class, imbalance 12). Held-out rows are as many of each class as the table says, or
`natural`: 800 rows drawn as the training rows were. `deploy` chooses, calibrates and certifies at confidence 0.95.
"auto" on rows that the backbone never saw chooses on folds and certifies on all held-out rows; otherwise half of them
calibrate and half certify. The prior of deployment is uniform, or that of training, and truth is weighted to it.

`kept` is the share of promises that hold on the further rows, in per cent, which should be 95 or more: of classes
that are answered (each a promise of its own), of worlds for `jointly` (all classes at once) and for an accuracy.
`mean` and `worst` are what was delivered, the mean and the least over promises. `given`: classes that are ever
answered. `answered`: share of rows with an answer. `refused`: worlds in which no promise was made.
"""

import argparse
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from poise.decisions.decide import decide
from poise.decisions.targets import Targets
from poise.deployment.deploy import deploy
from poise.errors import InputError, PoiseWarning
from poise.machine.atomic import write_atomically
from poise.results.record import versions
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.problem import Problem

CLASSES, DIMENSIONS, LARGEST, IMBALANCE, NATURAL, FRESH = 10, 12, 80, 12, 800, 100_000

Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """What is promised, and on which held-out rows: so many of each class, 0 for rows as they come."""

    rows: int
    method: str = "lda"
    prior: str = "uniform"
    target: float = 0.9
    kind: str = "precision"

    def __str__(self) -> str:
        rows = f"{self.rows} of each class" if self.rows else "natural"
        return f"{self.kind} {self.target:g} | {rows} | {self.method} | {self.prior}"

    @property
    def targets(self) -> Targets:
        """The same as `deploy` takes it."""
        if self.kind == "accuracy":
            return Targets(abstain_accuracy=self.target)
        return Targets(precision=self.target, **({"jointly": True} if self.kind == "joint precision" else {}))


CASES = (
    *(Case(rows) for rows in (20, 60, 100, 400)),
    Case(400, target=0.8),
    Case(400, kind="joint precision"),
    Case(0),
    Case(0, prior="train"),
    *(Case(rows, kind="accuracy") for rows in (2, 20, 100)),
    Case(0, kind="accuracy"),
    Case(0, prior="train", kind="accuracy"),
    *(Case(rows, "auto") for rows in (20, 50, 200)),
    Case(20, "auto", kind="accuracy"),
)


def world(case: Case, rng: np.random.Generator) -> tuple[Problem, Features]:
    """The problem, and as many further rows of each class."""
    means = rng.normal(size=(CLASSES, DIMENSIONS))
    means *= rng.uniform(2.5, 4.5) / np.linalg.norm(means, axis=1, keepdims=True)
    sizes = np.round(LARGEST * IMBALANCE ** (-np.arange(CLASSES) / (CLASSES - 1))).astype(int)
    counts = ClassCounts(torch.from_numpy(sizes))

    def drawn(y: Array) -> Features:
        x = means[y] + rng.normal(size=(len(y), DIMENSIONS))
        return Features(torch.from_numpy(x), torch.from_numpy(y), counts, seen_by_backbone=False)

    every = np.arange(CLASSES)
    own = np.repeat(every, case.rows) if case.rows else rng.choice(CLASSES, NATURAL, p=sizes / sizes.sum())
    problem = Problem(drawn(np.repeat(every, sizes)), held_out=drawn(own))
    return problem, drawn(np.repeat(every, FRESH // CLASSES))


def delivered(case: Case, rng: np.random.Generator, seed: int) -> tuple[list[float], float, float] | None:
    """What is delivered per promise, the classes given, and the share of rows answered; None for a refusal."""
    problem, fresh = world(case, rng)
    try:
        made = deploy(problem, method=case.method, prior=case.prior, targets=case.targets, seed=seed).model
    except InputError:
        return None
    order = torch.tensor([made.class_names.index(name) for name in problem.train.names])
    y, prior = order[fresh.y], made.prior_applied
    assert made.operating is not None
    assert prior is not None
    label = decide(made.head(fresh.x[0]), made.operating).label
    heft, right = prior[y] * CLASSES / FRESH, label == y
    if case.kind == "accuracy":
        answered = label >= 0
        return [float(heft[answered & right].sum() / heft[answered].sum())], CLASSES, float(heft[answered].sum())
    each = [float(heft[right & (label == k)].sum() / heft[label == k].sum()) for k in set(label.tolist()) - {-1}]
    return each, len(each), float(heft[label >= 0].sum())


def row(case: Case, worlds: int, seed: int) -> str:
    """A row of the table."""
    number = CASES.index(case)
    found = [delivered(case, np.random.default_rng([seed, number, k]), k) for k in range(worlds)]
    made = [each for each in found if each is not None and each[0]]
    promises = [[min(each[0])] if case.kind == "joint precision" else each[0] for each in made]
    flat = [value for own in promises for value in own]
    refused = f"{100 * (1 - len(made) / worlds):.0f}"
    if not flat:
        return f"| {case} | {worlds} | | | | | | | {refused} |"
    kept = 100 * np.mean([value >= case.target for value in flat])
    given, answered = (np.mean([each[i] for each in made]) for i in (1, 2))
    shown = f"{len(flat)} | {kept:.1f} | {np.mean(flat):.3f} | {min(flat):.3f} | {given:.1f} | {100 * answered:.0f}"
    return f"| {case} | {worlds} | {shown} | {refused} |"


def table(worlds: int, seed: int) -> Iterator[str]:
    """The lines of the table."""
    columns = "worlds | promises | kept, % | mean | worst | given | answered, % | refused, %"
    yield f"| promise | held-out rows | method | prior | {columns} |"
    yield f"|---|---|---|---|{'---:|' * len(columns.split('|'))}"
    for case in CASES:
        # "auto" takes seconds a world where a named method takes a tenth.
        yield row(case, max(12, worlds // 5) if case.method == "auto" else worlds, seed)


def main() -> None:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    parser.add_argument("--worlds", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", PoiseWarning)  # of classes that are never answered
    assert __doc__ is not None
    lines = [f"# {__doc__.splitlines()[0]}", "", __doc__.split("\n\n", 2)[2].strip(), ""]
    for line in table(given.worlds, given.seed):
        lines.append(line)
        print(line, flush=True)
    about = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines += ["", f"`python experiments/targets.py --worlds {given.worlds} --seed {given.seed}`; {about}."]
    write_atomically(given.out / "targets.md", "\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
