"""What `LongTailClassifier.adapt` loses where the class prior did not change, and what it gains where it did.

Run: python experiments/adapt.py [--out experiments/results] [--worlds N] [--draws N] [--seed N]

A world is a long-tailed mixture of Gaussians with random means in 12 dimensions (imbalance 12, 50 rows in the largest
class, at least 3 in each), mixed by a random matrix. "auto" is fitted on it for the uniform and for the training
prior; batches of 1, 20, 100 and 1,000 rows come from that prior (no shift) or from one drawn from a flat Dirichlet
(shift). Accuracy is that under the true prior, on 20,000 further rows, in per cent: before `adapt`, after the plain
EM of Saerens et al. (`estimate_prior`), after `adapt`, and with the true prior. `found` is the share of batches in
which `adapt` finds a shift; without one that is its rate of false alarms. The least of the worlds' mean changes
stands under `worst world`.
"""

import argparse
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from poise import LongTailClassifier
from poise.machine.atomic import write_atomically
from poise.priors import estimate_prior
from poise.results.record import versions

DIMENSIONS, IMBALANCE, LARGEST, SMALLEST, FRESH = 12, 12, 50, 3, 20_000
SETTINGS = ((10, 3.0), (20, 2.2), (20, 3.5))  # classes, distance of the means from the origin
BATCHES = (1, 20, 100, 1000)
PRIORS = ("uniform", "train")

Array = np.ndarray


class Rows(NamedTuple):
    """Features (N, D) and labels (N,)."""

    x: Array
    y: Array


class Outcome(NamedTuple):
    """Accuracies of one batch under its true prior, and whether a shift was found."""

    before: float
    plain: float
    adapted: float
    known: float
    found: bool


def world(classes: int, distance: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Training rows and further rows, as many of each class."""
    means = rng.normal(size=(classes, DIMENSIONS))
    means *= distance / np.linalg.norm(means, axis=1, keepdims=True)
    mix = rng.normal(size=(DIMENSIONS, DIMENSIONS)) / np.sqrt(DIMENSIONS) + np.eye(DIMENSIONS) / 2
    sizes = np.maximum(SMALLEST, np.round(LARGEST * IMBALANCE ** (-np.arange(classes) / (classes - 1)))).astype(int)

    def drawn(y: Array) -> Rows:
        return Rows((means[y] + rng.normal(size=(len(y), DIMENSIONS))) @ mix, y)

    labels = np.repeat(np.arange(classes), rng.permutation(sizes))
    return drawn(labels), drawn(np.repeat(np.arange(classes), FRESH // classes))


def outcome(classifier: LongTailClassifier, fresh: Rows, prior: Array, batch: int, rng: np.random.Generator) -> Outcome:
    """One batch from the true `prior` (C,)."""
    source, weight = classifier.prior_applied_, prior[fresh.y]
    posterior = classifier.predict_proba(fresh.x)

    def accuracy(assumed: Array) -> float:
        right = (posterior * (assumed / source)).argmax(axis=1) == fresh.y
        return 100 * float(np.average(right, weights=weight))

    rows = rng.choice(len(fresh.y), batch, p=weight / weight.sum())
    adapted = deepcopy(classifier).adapt(fresh.x[rows])
    logits = torch.from_numpy(np.log(np.clip(posterior[rows], 1e-300, None)))
    plain = estimate_prior(logits, torch.from_numpy(source)).numpy()
    own = accuracy(adapted.prior_applied_)
    return Outcome(accuracy(source), accuracy(plain), own, accuracy(prior), adapted.shift_.found)


def table(worlds: int, draws: int, seed: int) -> Iterator[str]:
    """The lines of the table."""
    columns = "batch | before | plain EM | adapt | true prior | found, % | worst world"
    yield f"| classes, distance | prior fitted for | shift | {columns} |"
    yield f"|---|---|---|{'---:|' * len(columns.split('|'))}"
    for number, (classes, distance) in enumerate(SETTINGS):
        found: dict[tuple[str, str, int], list[list[Outcome]]] = {}
        for k in range(worlds):
            rng = np.random.default_rng([seed, number, k])
            train, fresh = world(classes, distance, rng)
            for prior in PRIORS:
                classifier = LongTailClassifier(prior=prior).fit(train.x, train.y)
                for shift in ("no", "yes"):
                    for batch in BATCHES:
                        truths = [
                            classifier.prior_applied_ if shift == "no" else rng.dirichlet(np.ones(classes))
                            for _ in range(draws)
                        ]
                        own = [outcome(classifier, fresh, truth, batch, rng) for truth in truths]
                        found.setdefault((prior, shift, batch), []).append(own)
        for (prior, shift, batch), each in found.items():
            mean = np.mean([row for own in each for row in own], axis=0)
            worst = min(np.mean([row.adapted - row.before for row in own]) for own in each)
            shown = " | ".join(f"{value:.1f}" for value in (*mean[:4], 100 * mean[4]))
            yield f"| {classes}, {distance:g} | {prior} | {shift} | {batch:,} | {shown} | {worst:+.1f} |"


def main() -> None:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    parser.add_argument("--worlds", type=int, default=12)
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    said = __doc__.split("\n\n", 2)[2].strip()
    command = f"python experiments/adapt.py --worlds {given.worlds} --draws {given.draws} --seed {given.seed}"
    lines = [f"# {__doc__.splitlines()[0]}", "", said, "", f"{given.worlds} worlds, {given.draws} batches each.", ""]
    for line in table(given.worlds, given.draws, given.seed):
        lines.append(line)
        print(line, flush=True)
    about = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines += ["", f"`{command}`; {about}."]
    given.out.mkdir(parents=True, exist_ok=True)
    write_atomically(given.out / "adapt.md", "\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
