"""How often the intervals of `poise.statistics` hold the truth, on worlds whose truth is known.

Run: python experiments/simulations.py [--out experiments/results] [--worlds N] [--only WORD] [--tiny]

A world draws classes, each with a chance to be classified correctly by every method, and rows of each class. Chances
are probit: Phi(mu + z_k), with z_k standard normal, 80 % of its variance shared by the methods; so the mean over the
population of classes is known exactly. Rows of a class share 60 % of the latent variance that decides whether a method
gets them right, so that methods are right on the same rows. Over images the truth is the mean chance of the classes of
the world; over classes it is the mean of the population. In the population "rare gains" a method equals the baseline
but for a tenth of the classes, where it takes away 40 % of the errors. Under "nearly the same" a method is the baseline
but for 2 % of the rows, drawn anew with the baseline's chances: the truth is no difference at all, and what is not
covered is a false alarm.

Tiny classes have a page of their own (--tiny). Under "tiny gain" and "tiny lose" chances are fixed: the tiny classes go
from 0.2 to 0.8, or back, and the others from 0.6 to what makes the net difference 0, so that an interval above 0
(missed below) is a false alarm.

Coverage is the share of worlds whose interval (for several methods: all intervals) holds the truth; it should be 95 %.
`error` is the Monte-Carlo standard error of that share. `missed below` are worlds where the truth lies below an
interval. `half-width` is the mean, in points. `textbook` is the coverage of the interval without a bootstrap: Student's
over classes, normal over images. Judged within 1 point of 95, or by how much it deviates when that point is passed by
more than two standard errors; between the two it is open.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from poise.machine.atomic import write_atomically
from poise.results.record import versions
from poise.statistics import recalls, simultaneous_intervals

SEED = 0
LEVEL = 0.95
ROUNDS = 1000  # half the default, for time; two cases show that 2,000 give the same coverage
SHARED_BY_METHODS, SHARED_BY_ROWS = 0.8, 0.6
RARE, TAKEN = 0.1, 0.4
REDRAWN = 0.02

Array = np.ndarray
What = Literal["accuracy", "difference"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is simulated: `methods` accuracies, or differences of them to a baseline, of `classes` classes.

    `rows` are the fewest and most test rows of a class; between them they fall evenly on a log scale. With
    `tiny`, these are the rows of the first classes, and all others have the most. `accuracy` is the population mean of
    the baseline, and of a single method. The methods' own means rise by up to `gain` above it.
    """

    over: Literal["images", "classes"]
    classes: int
    rows: tuple[int, int] = (20, 20)
    what: What = "difference"
    methods: int = 1
    accuracy: float = 0.6
    gain: float = 0.03
    gains: Literal["", "rare gains", "nearly the same", "tiny gain", "tiny lose"] = ""
    tiny: tuple[int, ...] = ()
    rounds: int = ROUNDS

    @property
    def sizes(self) -> Array:
        """(C,) rows per class."""
        if self.tiny:
            return np.array([*self.tiny, *[self.rows[1]] * (self.classes - len(self.tiny))])
        return np.geomspace(self.rows[1], self.rows[0], self.classes).round().astype(int)

    def __str__(self) -> str:
        few, most = self.rows
        kind = self.what if self.methods == 1 else f"{self.methods} {self.what}s at once"
        if self.tiny:
            small = "1 class" if len(self.tiny) == 1 else f"{len(self.tiny)} classes"
            large = f"{self.classes - len(self.tiny)} of {most}"
            return f"{kind}, {small} of {self.tiny[0]} and {large} rows, {self.gains}"
        return ", ".join(
            [
                f"{kind}, {self.classes} classes of {few if few == most else f'{few} to {most}'} rows",
                *([f"accuracy {self.accuracy:g}"] if self.accuracy != 0.6 else []),
                *([self.gains] if self.gains else []),
                *([f"{self.rounds} rounds"] if self.rounds != ROUNDS else []),
            ]
        )


class World(NamedTuple):
    """Values (M, N) as `simultaneous_intervals` takes them, labels y (N,), and the truth (M,) of each row of values."""

    values: Tensor
    y: Tensor
    truth: Array


class Coverage(NamedTuple):
    """Shares of the worlds in per cent; `width` is the mean half-width in points."""

    case: Case
    worlds: int
    covered: float
    below: float
    above: float
    width: float
    textbook: float | None

    @property
    def error(self) -> float:
        """Monte-Carlo standard error of `covered`; two hits and two misses are added, so that it is never 0."""
        share = (self.covered / 100 * self.worlds + 2) / (self.worlds + 4)
        return 100 * math.sqrt(share * (1 - share) / self.worlds)

    @property
    def verdict(self) -> str:
        """Within 1 point, deviating, or open."""
        gap = self.covered - 100 * LEVEL
        if abs(gap) <= 1:
            return "within 1"
        return f"deviates by {gap:+.1f}" if abs(gap) > 1 + 2 * self.error else f"open ({gap:+.1f})"

    def markdown(self) -> str:
        """A row of the table."""
        numbers = [f"{value:.1f}" for value in (self.below, self.above, self.width)]
        single = "" if self.textbook is None else f"{self.textbook:.1f}"
        judged = [f"{self.covered:.1f}", f"{self.error:.2f}", self.verdict]
        return f"| {' | '.join([str(self.case), str(self.worlds), *judged, *numbers, single])} |"


def probit_mean(accuracy: Array) -> Array:
    """The mu at which the mean of Phi(mu + standard normal) is `accuracy`."""
    return stats.norm.ppf(accuracy) * math.sqrt(2)


def chances(case: Case, rng: np.random.Generator) -> tuple[Array, Array]:
    """Chances (M + 1, C) of the baseline and the methods in the classes of one world, and their population means."""
    means = case.accuracy + np.linspace(0, case.gain, case.methods + 1)
    shared, own = rng.standard_normal(case.classes), rng.standard_normal((case.methods + 1, case.classes))
    z = math.sqrt(SHARED_BY_METHODS) * shared + math.sqrt(1 - SHARED_BY_METHODS) * own
    found = stats.norm.cdf(probit_mean(means)[:, None] + z)
    if case.gains == "rare gains":
        taken = TAKEN * (rng.random((case.methods, case.classes)) < RARE)
        found[1:] = found[0] + taken * (1 - found[0])
        means[1:] = case.accuracy + RARE * TAKEN * (1 - case.accuracy)
    if case.gains == "nearly the same":
        found[1:], means[1:] = found[0], means[0]
    if case.tiny:
        first = np.arange(case.classes) < len(case.tiny)
        loss = (0.8 - 0.2) * first.sum() / (~first).sum()
        few, many = np.where(first, 0.2, 0.6), np.where(first, 0.8, 0.6 - loss)
        found = np.stack([few, many] if case.gains == "tiny gain" else [many, few])
    return found, means


def draw(case: Case, rng: np.random.Generator) -> World:
    """One world."""
    chance, means = chances(case, rng)
    labels = np.repeat(np.arange(case.classes), case.sizes)
    rows = math.sqrt(SHARED_BY_ROWS) * rng.standard_normal(len(labels))
    rows = rows + math.sqrt(1 - SHARED_BY_ROWS) * rng.standard_normal((len(chance), len(labels)))
    correct = (rows < stats.norm.ppf(chance)[:, labels]).astype(float)
    if case.gains == "nearly the same":
        kept = rng.random((case.methods, len(labels))) >= REDRAWN
        fresh = rng.random(kept.shape) < chance[1:, labels]
        correct[1:] = np.where(kept, correct[0], fresh)
    truth = chance.mean(axis=1) if case.over == "images" else means
    if case.what == "difference":
        correct, truth = correct[1:] - correct[0], truth[1:] - truth[0]
    else:
        correct, truth = correct[: case.methods], truth[: case.methods]
    return World(torch.from_numpy(correct), torch.from_numpy(labels), truth)


def textbook_holds(world: World, over: str) -> bool:
    """Does the interval without a bootstrap hold the truth of a single row of values?"""
    per_class = recalls(world.values[0], world.y).numpy()
    classes = len(per_class)
    if over == "classes":
        reach = stats.t.ppf(0.5 + LEVEL / 2, classes - 1) * per_class.std(ddof=1) / math.sqrt(classes)
    else:
        n = torch.bincount(world.y).numpy()
        spread = recalls(world.values[0] ** 2, world.y).numpy() - per_class**2
        reach = stats.norm.ppf(0.5 + LEVEL / 2) * math.sqrt((spread / np.maximum(n - 1, 1)).sum()) / classes
    return bool(abs(per_class.mean() - world.truth[0]) <= reach)


def coverage(case: Case, worlds: int) -> Coverage:
    """Simulate one case."""
    covered = below = above = textbook = 0
    width = 0.0
    for number in range(worlds):
        # Seeded by what the case is, so that cases can be added or left out without changing the others.
        world = draw(case, np.random.default_rng([SEED, number, *str(case).encode(), *case.over.encode()]))
        found = simultaneous_intervals(
            world.values,
            world.y,
            over=case.over,
            level=LEVEL,
            rounds=case.rounds,
            seed=number,
            lowest=0.0 if case.what == "accuracy" else -1.0,
        )
        under = any(t < i.low for t, i in zip(world.truth, found, strict=True))
        upper = any(t > i.high for t, i in zip(world.truth, found, strict=True))
        below, above, covered = below + under, above + upper, covered + (not under and not upper)
        width += float(np.mean([(i.high - i.low) / 2 for i in found])) / worlds
        textbook += case.methods == 1 and textbook_holds(world, case.over)
    share = 100 / worlds
    single = share * textbook if case.methods == 1 else None
    return Coverage(case, worlds, share * covered, share * below, share * above, 100 * width, single)


def image_cases() -> list[Case]:
    """Few and many classes and rows, uneven rows, high accuracy, several methods."""
    shapes = [(2, (20, 20)), (10, (5, 5)), (10, (100, 100)), (20, (20, 20)), (100, (5, 5)), (20, (2, 100))]
    cases = [
        Case(over="images", classes=classes, rows=rows, what=what)
        for classes, rows in [*shapes, (50, (1, 5))]
        for what in ("accuracy", "difference")
    ]
    cases += [Case(over="images", classes=20, what="accuracy", accuracy=value) for value in (0.9, 0.97)]
    cases += [Case(over="images", classes=20, accuracy=0.9)]
    cases += [Case(over="images", classes=20, gains="rare gains")]
    cases += [
        Case(over="images", classes=classes, rows=rows, methods=methods, gains="nearly the same")
        for classes, rows in [(20, (20, 20)), (20, (100, 100))]
        for methods in (1, 20)
    ]
    cases += [
        Case(over="images", classes=classes, rows=rows, methods=methods)
        for classes, rows in [(10, (5, 5)), (20, (20, 20)), (100, (5, 5))]
        for methods in (6, 20)
    ]
    cases += [Case(over="images", classes=20, methods=20, rounds=2000)]
    return [*cases, Case(over="images", classes=100), Case(over="images", classes=100, methods=20)]


def tiny_cases() -> list[Case]:
    """A few classes of one to three rows beside large ones, what they do offset by the others; and long tails."""
    shapes = [((2,), 5, 100), ((3,), 10, 50), ((1,), 10, 50), ((1, 1), 10, 50), ((2,) * 5, 20, 50), ((2,) * 10, 30, 50)]
    return [
        *(
            Case(over="images", classes=classes, rows=(min(tiny), most), tiny=tiny, gains=gains)  # type: ignore[arg-type]
            for gains in ("tiny gain", "tiny lose")
            for tiny, classes, most in shapes
        ),
        *(Case(over="images", classes=c, rows=rows) for c, rows in [(30, (1, 200)), (10, (1, 50)), (20, (2, 2))]),
        Case(over="images", classes=30, rows=(1, 200), gains="nearly the same"),
        *(Case(over="images", classes=10, rows=(10, 10), what="accuracy", accuracy=a) for a in (0.9, 0.98)),
        Case(over="images", classes=30, rows=(1, 200), what="accuracy"),
    ]


def class_cases() -> list[Case]:
    """Few and many classes, one and several methods, and gains that sit in a few classes."""
    numbers = (3, 5, 10, 20, 50, 100)
    return [
        *(Case(over="classes", classes=c, what="accuracy") for c in numbers),
        *(Case(over="classes", classes=c, what="accuracy", accuracy=0.9) for c in (10, 50)),
        *(Case(over="classes", classes=c, methods=m) for m in (1, 6, 20) for c in numbers),
        *(Case(over="classes", classes=c, methods=m, gains="rare gains") for m in (1, 20) for c in numbers[2:]),
        *(Case(over="classes", classes=c, gains="nearly the same") for c in numbers[2:]),
        Case(over="classes", classes=20, methods=20, rounds=2000),
    ]


def markdown(sections: Sequence[tuple[str, Sequence[Coverage]]], command: str) -> str:
    """The page: one table per kind of interval."""
    lines = ["# Coverage of the intervals, simulated", "", (__doc__ or "").split("\n\n", 1)[1].strip(), ""]
    for title, rows in sections:
        lines += [
            f"## {title}",
            "",
            "| case | worlds | coverage | error | judged | missed below | missed above | half-width | textbook |",
            "|---|---:|---:|---:|---|---:|---:|---:|---:|",
            *(row.markdown() for row in rows),
            "",
        ]
    lines.append(
        f"Command: `{command}`; seed {SEED}, {ROUNDS} rounds where nothing else is said; "
        + ", ".join(f"{name} {version}" for name, version in versions().items())
        + "."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Simulate every case, writing the page after each, since the whole takes about an hour on one core."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    parser.add_argument("--worlds", type=int, default=None, help="per case [2,500 over images, 4,000 over classes]")
    parser.add_argument("--only", default="", help="only cases whose text holds this word")
    parser.add_argument("--tiny", action="store_true", help="tiny classes, on the page simulations_tiny.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    plan = [("Over classes", class_cases(), 4_000), ("Over images", image_cases(), 2_500)]
    if given.tiny:
        plan = [("Tiny classes, over images", tiny_cases(), 2_500)]
    command = " ".join(["python experiments/simulations.py", *sys.argv[1:]])
    page = given.out / ("simulations_tiny.md" if given.tiny else "simulations.md")
    sections: list[tuple[str, list[Coverage]]] = [(title, []) for title, _, _ in plan]
    for (_, done), (_, cases, worlds) in zip(sections, plan, strict=True):
        for case in cases:
            if given.only in str(case):
                done.append(coverage(case, given.worlds or worlds))
                print(f"{case.over}: {case}: {done[-1].covered:.1f} {done[-1].verdict}", flush=True)
                write_atomically(page, markdown(sections, command))


if __name__ == "__main__":
    main()
