"""Are the probabilities of `LongTailClassifier` right for the prior that was asked for, and does `adapt` find a shift?

Run: python experiments/calibration.py [--out experiments/results]   (the second set needs the extra `text`)

Two real sets: ResNet-32 features of CIFAR-100-LT, where held-out rows choose and calibrate, and embedded questions
(Banking77, imbalance 50), where cross-validation does. `method="auto"` is fitted for three priors: train, uniform, and
one drawn from a flat Dirichlet distribution. Test rows are weighted so that classes are as common as the prior says;
under these weights a calibrated classifier has an expected calibration error (ECE, 15 bins, in points) of nearly 0.
"plain" is cross-entropy fitted to convergence, its softmax taken as it is, whatever the prior.

Then the shift: 2,000 test rows are drawn with classes as common as in another Dirichlet draw; a classifier fitted for
the training prior sees them without labels (`adapt`). Distance is the total variation between assumed and true prior.
"""

import argparse
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from poise import LongTailClassifier
from poise.commands.demo import load_text_demo
from poise.data.bundled import DemoSet, load_demo
from poise.errors import PoiseWarning
from poise.heads.converged import converged
from poise.machine.atomic import write_atomically
from poise.results.record import versions

SEED, ROWS, BINS = 0, 2000, 15
Floats = NDArray[np.float64]


class Quality(NamedTuple):
    """Expected accuracy, ECE (both in per cent) and NLL in nats under a prior; and confidence and accuracy per bin."""

    accuracy: float
    ece: float
    nll: float
    bins: list[tuple[float, float, float]]


def quality(p: Floats, y: NDArray[np.int64], prior: Floats) -> Quality:
    """Quality of posteriors p (N, C) for rows weighted to `prior` (C,)."""
    n = np.bincount(y, minlength=len(prior))
    weight = prior[y] / n[y]
    weight /= weight.sum()
    sure, right = p.max(axis=1), (p.argmax(axis=1) == y).astype(float)
    places = np.clip(np.ceil(sure * BINS).astype(int), 1, BINS) - 1
    mass, confidence, hits = (np.bincount(places, weight * v, BINS) for v in (np.ones(len(y)), sure, right))
    nll = float(-weight @ np.log(p[np.arange(len(y)), y].clip(1e-300)))
    bins = [(float(m), float(c / m), float(h / m)) for m, c, h in zip(mass, confidence, hits, strict=True) if m > 0]
    return Quality(100 * float(weight @ right), 100 * float(np.abs(confidence - hits).sum()), nll, bins)


def fitted(demo: DemoSet, prior: str | Floats) -> LongTailClassifier:
    """Auto for a prior, on the rows of a set."""
    train, unseen = demo.problem.train, demo.problem.held_out
    held_out = None if unseen is None else (unseen.x[0].double().numpy(), unseen.y.numpy())
    classifier = LongTailClassifier(prior=prior, seen_by_backbone=train.seen_by_backbone)
    return classifier.fit(train.x[0].double().numpy(), train.y.numpy(), held_out=held_out)


def drawn(demo: DemoSet, number: int) -> Floats:
    """A flat Dirichlet draw over the classes."""
    return np.random.default_rng([SEED, number]).dirichlet(np.ones(len(demo.test.counts)))


def calibration(demo: DemoSet) -> tuple[list[str], list[str]]:
    """Rows of the table of priors, and of the reliability table for the uniform prior."""
    x, y = demo.test.x[0].double().numpy(), demo.test.y.numpy()
    classes = len(demo.test.counts)
    train = demo.test.counts.prior.numpy()
    plain = converged(weight_decay=1e-5)(demo.problem)(demo.test.x[0]).double().softmax(dim=-1).numpy()
    priors = {"train": ("train", train), "uniform": ("uniform", np.full(classes, 1 / classes))}
    priors["drawn"] = (drawn(demo, 0), drawn(demo, 0))
    lines, reliability = [], []
    for name, (asked, prior) in priors.items():
        classifier = fitted(demo, asked)
        ours, theirs = quality(classifier.predict_proba(x), y, prior), quality(plain, y, prior)
        lines.append(
            f"| {demo.name} | {name} | `{classifier.method_}` | {ours.accuracy:.1f} | {theirs.accuracy:.1f} | "
            f"{ours.ece:.1f} | {theirs.ece:.1f} | {ours.nll:.2f} | {theirs.nll:.2f} |"
        )
        if name == "uniform":
            reliability = [
                f"| {demo.name} | {100 * m:.1f} | {100 * c:.1f} | {100 * h:.1f} |" for m, c, h in ours.bins if m > 0.005
            ]
    return lines, reliability


def shifts(demo: DemoSet, number: int = 5) -> list[str]:
    """Rows of the table of simulated shifts."""
    y = demo.test.y.numpy()
    n = np.bincount(y, minlength=len(demo.test.counts))
    lines = []
    for shift in range(1, number + 1):
        truth = drawn(demo, shift)
        rng = np.random.default_rng([SEED, 100 + shift])
        rows = rng.choice(len(y), ROWS, p=(truth / n)[y] / (truth / n)[y].sum())
        x, labels = demo.test.x[0, torch.from_numpy(rows)].double().numpy(), y[rows]
        here = np.bincount(labels, minlength=len(truth)) / ROWS
        classifier = fitted(demo, "train")
        before, was = classifier.score(x, labels), np.abs(classifier.prior_applied_ - here).sum() / 2
        classifier.adapt(x)
        after, now = classifier.score(x, labels), np.abs(classifier.prior_applied_ - here).sum() / 2
        known = fitted(demo, here).score(x, labels)
        lines.append(
            f"| {demo.name} | {shift} | {100 * was:.1f} | {100 * now:.1f} | {100 * before:.1f} | {100 * after:.1f} | "
            f"{100 * known:.1f} |"
        )
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measure both sets and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    out = parser.parse_args().out
    warnings.simplefilter("ignore", PoiseWarning)
    sets = [load_demo(), load_text_demo("exponential")]
    tables = [calibration(demo) for demo in sets]
    made_with = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines = [
        "# Probabilities under three priors, and simulated shifts",
        "",
        (__doc__ or "").split("\n\n", 2)[2].strip(),
        "",
        "| set | prior | chosen | accuracy | plain | ECE | plain | NLL | plain |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
        *(line for table, _ in tables for line in table),
        "",
        "Reliability for the uniform prior: share of the weight, mean confidence and accuracy per bin, in per cent.",
        "",
        "| set | weight | confidence | accuracy |",
        "|---|---:|---:|---:|",
        *(line for _, table in tables for line in table),
        "",
        "Shifts found by `adapt`: distance between assumed and true prior, and accuracy, both in per cent.",
        "",
        "| set | shift | distance before | after | accuracy before | after | true prior given |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(line for demo in sets for line in shifts(demo)),
        "",
        f"Command: `python experiments/calibration.py`; seed {SEED}; {made_with}.",
        "",
    ]
    write_atomically(out / "calibration.md", "\n".join(lines))


if __name__ == "__main__":
    main()
