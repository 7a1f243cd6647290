"""How often the verdict says "change" where nothing can be gained, and where a gain of a known size is there.

Run: python experiments/verdicts.py [--out experiments/results] [--worlds N] [--tiny]

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

With tiny classes (--tiny, a page of its own) one method was recommended, and chances are fixed: 0.6 before, but 0.2 in
tiny classes. After, tiny classes have 0.8 and the others lose what makes the net gain 0 ("tiny gain"), or tiny classes
lose all of 0.6 from 0.8 and the others gain ("tiny lose"), or both gain as the row says. A class is tiny below 4 rows;
in the long tail, 30 classes of 200 to 1 rows, below 20, and gains or loses 0.3. What a row is right by is shared to
60 % of its latent variance. "too few rows" counts "keep" where the interval alone would have said "change".
"""

import argparse
import math
import warnings
from collections.abc import Sequence
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
from poise.selection.fit_and_measure import Measured, Sums, measure
from poise.selection.rules import NULLS
from poise.selection.tune import recommend
from poise.selection.validation import Judgement, Trial
from poise.statistics import class_variances, recalls

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


LARGE = ([2] + [100] * 4, [3] + [50] * 9, [1] + [50] * 9, [1, 1] + [50] * 8, [2] * 5 + [50] * 15, [2] * 10 + [50] * 20)
LONG_TAIL = np.geomspace(200, 1, 30).round().astype(int).tolist()


class Sized(NamedTuple):
    """A case of tiny classes: rows per class, and what classes of fewer than `below` rows gain, and the others.

    `rest` None: what makes the net gain 0.
    """

    name: str
    sizes: Sequence[int]
    tiny: float
    rest: float | None = None
    below: int = 4

    @property
    def y(self) -> Tensor:
        """(N,) labels."""
        return torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))

    def right(self, worlds: int) -> Tensor:
        """(worlds, 2, N) bool: rows that the baseline and the method get right."""
        few = torch.tensor(self.sizes) < self.below
        rest = -self.tiny * int(few.sum()) / int((~few).sum()) if self.rest is None else self.rest
        before = torch.where(few, 0.2 if self.tiny > 0 else 0.8, 0.6)
        chances = torch.stack([before, before + torch.where(few, self.tiny, rest)])
        limits = torch.distributions.Normal(0, 1).icdf(chances)[:, self.y]
        rng = np.random.default_rng([SEED, 4, *self.sizes])
        own, shared = (torch.from_numpy(rng.standard_normal((worlds, k, len(self.y)))) for k in (2, 1))
        return 0.4**0.5 * own + 0.6**0.5 * shared < limits

    def __str__(self) -> str:
        if self.sizes == LONG_TAIL:
            return f"{self.name} | 200 to 1"
        return f"{self.name} | " + ", ".join(f"{self.sizes.count(n)} x {n}" for n in sorted(set(self.sizes)))


def compared(right: Tensor, y: Tensor) -> Comparison:
    """The comparison of a baseline with one method, by the rows (2, N) that they get right."""
    rows = [
        Standing(
            family=family,
            method=str(family),
            role=role,  # type: ignore[arg-type]
            records=(),
            measured=(Measured(None, None, Sums(None, None, mask)),),  # type: ignore[arg-type]
        )
        for family, role, mask in zip((Spec("stage1"), NULLS[0]), ("baseline", "tuned"), right, strict=True)
    ]
    return Comparison(
        standings=tuple(rows),
        y=y,
        protocol="held_out",
        recommended=rows[1],
        null=rows[1],
        oracle=None,
        remarks=(),
        rounds=500,
    )


def tiny_lines(null: int) -> list[str]:
    """The table of tiny classes; where there is something to gain, a quarter of the worlds will do."""
    cases = [
        *(Sized("null: tiny gain", sizes, 0.6) for sizes in LARGE),
        *(Sized("null: tiny lose", sizes, -0.6) for sizes in LARGE),
        Sized("null: tiny gain", LONG_TAIL, 0.3, below=20),
        Sized("null: tiny lose", LONG_TAIL, -0.3, below=20),
        *(Sized("all gain 10 points", sizes, 0.1, 0.1) for sizes in (LARGE[1], LARGE[4], [50] * 10)),
        *(Sized("tiny gain 60 points, others 10", sizes, 0.6, 0.1) for sizes in (LARGE[1], LARGE[4])),
        *(Sized("tiny gain 60 points, others 0", sizes, 0.6, 0.0) for sizes in (LARGE[1], LARGE[4], LARGE[5])),
        Sized("tiny gain 30 points, others lose 5", LONG_TAIL, 0.3, -0.05, below=20),
    ]
    lines = ['| world | test rows of classes | worlds | verdict "change" | error | too few rows | mean gain found |']
    lines.append("|---|---|---:|---:|---:|---:|---:|")
    for case in cases:
        worlds = null if case.name.startswith("null") else max(1, null // 4)
        y, right = case.y, case.right(worlds)
        gains = right[:, 1].double() - right[:, 0].double()
        found, errors = recalls(gains, y).mean(dim=1), class_variances(gains, y).sum(dim=1).sqrt() / len(case.sizes)
        # No interval is narrower than the normal one, so that the others need not be drawn.
        open_ = [compared(right[k], y) for k in (found > 1.95 * errors).nonzero().flatten().tolist()]
        change = sum(each.decision == "change" for each in open_) / worlds
        few = sum(bool(each.rests_on) for each in open_) / worlds
        error = math.sqrt((change * (1 - change) + 1 / worlds) / worlds)
        numbers = f"{100 * change:.1f} % | {100 * error:.1f} | {100 * few:.1f} % | {100 * float(found.mean()):+.2f}"
        lines.append(f"| {case} | {worlds} | {numbers} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Simulate null and gain for two sizes of the test split, or tiny classes, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    parser.add_argument("--worlds", type=int, default=1000)
    parser.add_argument("--tiny", action="store_true", help="tiny classes, on the page verdicts_tiny.md")
    given = parser.parse_args()
    warnings.simplefilter("ignore", PoiseWarning)
    torch.set_num_threads(1)
    about = (__doc__ or "").split("\n\n", 2)[2].strip().split("\n\n")
    table = tiny_lines(given.worlds) if given.tiny else lines_of_all(given.worlds)
    title = ["# Verdicts with tiny classes, simulated", "", about[2]] if given.tiny else ["# Verdicts, simulated"]
    if not given.tiny:
        title += ["", "\n\n".join(about[:2])]
    made_with = ", ".join(f"{name} {version}" for name, version in versions().items())
    command = f"python experiments/verdicts.py{' --tiny' if given.tiny else ''} --worlds {given.worlds}"
    lines = [*title, "", *table, "", f"Command: `{command}`; seed {SEED}; {made_with}.", ""]
    write_atomically(given.out / ("verdicts_tiny.md" if given.tiny else "verdicts.md"), "\n".join(lines))


def lines_of_all(worlds: int) -> list[str]:
    """The table of classes of one size."""
    shift = shift_of(GAIN)
    cases = [("null: nothing to gain", partial(run, 0.0)), ("null: 20 methods of equal quality", equals)]
    cases.append((f"{100 * GAIN:g} points to gain (s = {shift:.3f})", partial(run, shift)))
    lines = [
        '| world | test rows | worlds | verdict "change" | error | mean gain found | logit adjustment tied |',
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, simulate in cases:
        for each in (40, 100):
            found = simulate(each, worlds)
            tied = "-" if math.isnan(found["tied"]) else f"{100 * found['tied']:.1f} %"
            error = math.sqrt((found["change"] * (1 - found["change"]) + 1 / worlds) / worlds)
            lines.append(
                f"| {name} | {each * CLASSES} | {worlds} | {100 * found['change']:.1f} % | {100 * error:.1f} | "
                f"{100 * found['gain']:+.2f} | {tied} |"
            )
            print(lines[-1], flush=True)
    return lines


if __name__ == "__main__":
    main()
