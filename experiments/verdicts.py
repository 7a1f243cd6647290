"""How often the verdict says "change" where nothing can be gained, and where a gain of a known size is there.

Run: python experiments/verdicts.py [--out experiments/results] [--worlds N]

A world has 50 classes whose training counts fall from 500 to 5. Rows are Gaussian around class means, so that the best
head for uniform classes is known: its logits are the log densities. The stage-1 head has them plus s log prior: s = 0
is a head with nothing left to gain (the null), and s is chosen so that removing the shift gains 1.5 points of balanced
accuracy (found on a million rows). Held-out rows (20 per class) choose the settings, 100 or 40 rows per class are the
test split, and `compare` runs as it is, with the adjustments that need no training: logit adjustment, tau-norm,
inductive re-balancing, temperature. "change" under the null is a false alarm, promised in at most 5 % of the worlds;
the share of "change" under the gain is the power.

The second null is harder: 20 methods that are right on other rows than the baseline but equally often, so that chance
alone makes one the best on the selection rows. Their rows are drawn (a method differs from the baseline on a fifth of
them), and recommendation and verdict are those of `compare`.
"""

import argparse
import math
import warnings
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from poise import ClassCounts, Features, Head, Problem, Spec, compare, profiles
from poise.errors import PoiseWarning
from poise.machine.atomic import write_atomically
from poise.results.record import versions
from poise.selection.comparison_result import Comparison, Standing
from poise.selection.fit_and_measure import Measured, measure
from poise.selection.rules import NULLS
from poise.selection.tune import recommend
from poise.selection.validation import Judgement, Trial

CLASSES, DIM, HELD_OUT = 50, 16, 20
SPECS = tuple(Spec(name) for name in ("logit_adjustment", "tau_norm", "rebalance", "temperature"))
SEED, GAIN = 0, 0.015


class World(NamedTuple):
    """Class means (C, D) and training counts."""

    means: Tensor
    counts: ClassCounts

    def rows(self, each: int, rng: np.random.Generator, seen: bool = False) -> Features:
        """`each` rows of every class."""
        y = torch.arange(CLASSES).repeat_interleave(each)
        x = self.means[y] + torch.from_numpy(rng.standard_normal((len(y), DIM)))
        return Features(x.float(), y, self.counts, seen_by_backbone=seen)

    def head(self, shift: float) -> Head:
        """The best head for uniform classes, with `shift` log prior added."""
        bias = -self.means.square().sum(dim=1) / 2 + shift * self.counts.prior.log()
        return Head(self.means.float(), bias.float())


def world(rng: np.random.Generator) -> World:
    """Means at random, of a size that leaves about a third of the rows wrong."""
    counts = ClassCounts(profiles.exponential(500, CLASSES, 100))
    order = torch.from_numpy(rng.permutation(CLASSES))
    return World(torch.from_numpy(rng.standard_normal((CLASSES, DIM)) * 0.62), ClassCounts(counts.n[order]))


def balanced(head: Head, rows: Features) -> float:
    """Balanced accuracy on rows of equal number per class."""
    return float((head(rows.x[0]).argmax(dim=-1) == rows.y).double().mean())


def shift_of(gain: float) -> float:
    """The shift whose removal gains so much, on average over worlds; by bisection."""
    rng = np.random.default_rng([SEED, 1])
    worlds = [(w, w.rows(1000, rng)) for w in (world(rng) for _ in range(20))]
    low, high = 0.0, 2.0
    for _ in range(25):
        middle = (low + high) / 2
        lost = np.mean([balanced(w.head(0.0), rows) - balanced(w.head(middle), rows) for w, rows in worlds])
        low, high = (middle, high) if lost < gain else (low, middle)
    return (low + high) / 2


def run(shift: float, each: int, worlds: int) -> dict[str, float]:
    """Share of worlds with the verdict "change", the mean gain found, and how often the best is in the tied set."""
    changes, gains, tied = 0, [], 0
    for number in range(worlds):
        rng = np.random.default_rng([SEED, 2, number])
        w = world(rng)
        train, held_out, test = w.rows(4, rng, seen=True), w.rows(HELD_OUT, rng), w.rows(each, rng)
        problem = Problem(train, w.head(shift), held_out)
        found = compare(SPECS, problem, test, rounds=1000)
        changes += found.decision == "change"
        gains.append(found.gain["images"].estimate)
        tied += "logit_adjustment" in found.tied()
    return {"change": changes / worlds, "gain": float(np.mean(gains)), "tied": tied / worlds}


def equals(each: int, worlds: int, methods: int = 20) -> dict[str, float]:
    """The same for methods of equal quality; the families stand for nothing but their names."""
    families = [Spec("stage1"), *NULLS, *(Spec("los", delta=round(0.5 + k / 100, 2)) for k in range(methods - 2))]
    counts = ClassCounts(torch.full((CLASSES,), 100))
    changes, gains = 0, []
    for number in range(worlds):
        rng = np.random.default_rng([SEED, 3, number])
        chance = torch.from_numpy(rng.uniform(0.3, 0.9, CLASSES))
        select, test = (
            dict(zip(families, draw(chance, n, len(families), counts, rng), strict=True)) for n in (HELD_OUT, each)
        )
        rows = Features(torch.zeros(CLASSES * HELD_OUT, 1), torch.arange(CLASSES).repeat_interleave(HELD_OUT), counts)
        judgement = Judgement("held_out", rows, {f: Trial(m, 0.0) for f, m in select.items()})
        null, best = recommend(judgement, NULLS, {f: f for f in families})
        standings = {
            f: Standing(
                family=f, method=str(f), role="baseline" if f == families[0] else "tuned", records=(), measured=(m,)
            )
            for f, m in test.items()
        }
        y = torch.arange(CLASSES).repeat_interleave(each)
        found = Comparison(
            standings=tuple(standings.values()),
            y=y,
            protocol="held_out",
            recommended=standings[best],
            null=standings[null],
            oracle=None,
            remarks=(),
            rounds=1000,
        )
        changes += found.decision == "change"
        gains.append(found.gain["images"].estimate)
    return {"change": changes / worlds, "gain": float(np.mean(gains)), "tied": float("nan")}


def draw(chance: Tensor, each: int, methods: int, counts: ClassCounts, rng: np.random.Generator) -> list[Measured]:
    """What `methods` methods get right: the first, and others that draw a fifth of its rows anew."""
    y = torch.arange(CLASSES).repeat_interleave(each)
    first = torch.from_numpy(rng.uniform(size=len(y))) < chance[y]
    found = []
    for k in range(methods):
        anew = torch.from_numpy(rng.uniform(size=len(y))) < (0.2 if k else 0.0)
        right = torch.where(anew, torch.from_numpy(rng.uniform(size=len(y))) < chance[y], first)
        guess = torch.where(right, y, (y + 1) % CLASSES)
        logits = torch.nn.functional.one_hot(guess, CLASSES).float()
        found.append(measure(Head(torch.eye(CLASSES), torch.zeros(CLASSES)), Features(logits, y, counts)))
    return found


def main() -> None:
    """Simulate null and gain for two sizes of the test split, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    parser.add_argument("--worlds", type=int, default=1000)
    given = parser.parse_args()
    warnings.simplefilter("ignore", PoiseWarning)
    torch.set_num_threads(1)
    shift = shift_of(GAIN)
    cases = [("null: nothing to gain", partial(run, 0.0)), ("null: 20 methods of equal quality", equals)]
    cases.append((f"{100 * GAIN:g} points to gain (s = {shift:.3f})", partial(run, shift)))
    lines = [
        "# Verdicts, simulated",
        "",
        (__doc__ or "").split("\n\n", 2)[2].strip(),
        "",
        '| world | test rows | worlds | verdict "change" | error | mean gain found | logit adjustment tied |',
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, simulate in cases:
        for each in (40, 100):
            found = simulate(each, given.worlds)
            tied = "-" if math.isnan(found["tied"]) else f"{100 * found['tied']:.1f} %"
            error = math.sqrt((found["change"] * (1 - found["change"]) + 1 / given.worlds) / given.worlds)
            lines.append(
                f"| {name} | {each * CLASSES} | {given.worlds} | {100 * found['change']:.1f} % | {100 * error:.1f} | "
                f"{100 * found['gain']:+.2f} | {tied} |"
            )
            print(lines[-1], flush=True)
    made_with = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines += ["", f"Command: `python experiments/verdicts.py --worlds {given.worlds}`; seed {SEED}; {made_with}.", ""]
    write_atomically(given.out / "verdicts.md", "\n".join(lines))


if __name__ == "__main__":
    main()
