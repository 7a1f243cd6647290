"""Does the interval of what `fit` promises cover the recall of the head that it returns?

Run: python experiments/promise.py [--out experiments/results] [--worlds N] [--jobs N]

A world is a small table with a long tail, drawn at random together with its shape: number of classes, columns, class
sizes, separation. `LongTailClassifier` is fitted on it; the truth is the recall of its head on thousands of fresh rows
(for the tables of scikit-learn: on the rows left over), over the classes that the promise speaks of, weighted as it
says. Covered: the truth lies in the interval. Bias: promise less truth, in points; rms: the root of its mean square.

Kinds: Gaussian classes of one covariance; of covariances of their own; overlapping ones (hardly separated); tails of
one row; the class prior of training as the target; named methods in place of the choice; held-out rows in the place of
folds; copies of rows; rows in groups that share a shift; subsets of the digits and breast cancer tables.
"""

import argparse
import warnings
from collections.abc import Callable
from multiprocessing import Pool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits

from poise import LongTailClassifier
from poise.errors import PoiseWarning
from poise.machine.atomic import write_atomically
from poise.results.record import versions

SEED, FRESH = 0, 6000
NAMED = ("lda", "logit_adjustment", "converged(weight_decay=0.0001)", "ncm")
Array = NDArray[Any]
Random = np.random.Generator


class World(NamedTuple):
    """Training rows, fresh rows that tell the truth, and what fit is told beside them."""

    x: Array
    y: Array
    fresh_x: Array
    fresh_y: Array
    told: dict[str, Any]
    options: dict[str, Any]


# --- worlds -----------------------------------------------------------------------------------------------------------


def sizes(rng: Random, classes: int, smallest: int) -> Array:
    """Class sizes that fall geometrically, in random order."""
    largest, imbalance = rng.choice([15, 40, 100]), rng.choice([1, 5, 20, 60])
    n = np.round(largest * float(imbalance) ** (-np.arange(classes) / (classes - 1)))
    return rng.permutation(np.maximum(smallest, n).astype(int))


def gaussians(
    rng: Random, *, own: bool = False, apart: tuple[float, float] = (1.5, 4.0), smallest: int = 2, **options: Any
) -> World:
    """Gaussian classes around random means; `own`: each with scales of its own."""
    classes, columns = int(rng.choice([2, 3, 5, 8, 12])), int(rng.choice([2, 4, 8, 16]))
    means = rng.normal(size=(classes, columns))
    means *= rng.uniform(*apart) / np.linalg.norm(means, axis=1, keepdims=True)
    scales = np.exp(rng.normal(0, 0.4, (classes, columns))) if own else np.ones((classes, columns))
    mix = rng.normal(size=(columns, columns)) / np.sqrt(columns) + np.eye(columns) / 2

    def draw(n: Array) -> tuple[Array, Array]:
        y = np.repeat(np.arange(classes), n)
        return (means[y] + rng.normal(size=(len(y), columns)) * scales[y]) @ mix, y

    x, y = draw(sizes(rng, classes, smallest))
    return World(x, y, *draw(np.full(classes, FRESH // classes)), {}, options)


def with_held_out(rng: Random) -> World:
    """Rows that the backbone never saw beside the training rows: few or many of every class."""
    world = gaussians(rng, own=bool(rng.integers(2)))
    each = int(rng.choice([3, 8, 20]))
    place = np.concatenate([rng.choice(np.flatnonzero(world.fresh_y == k), each, False) for k in np.unique(world.y)])
    rest = np.setdiff1d(np.arange(len(world.fresh_y)), place)
    told = {"held_out": (world.fresh_x[place], world.fresh_y[place])}
    return world._replace(fresh_x=world.fresh_x[rest], fresh_y=world.fresh_y[rest], told=told)


def with_copies(rng: Random) -> World:
    """Every row one to six times."""
    world = gaussians(rng, own=True)
    again = np.repeat(np.arange(len(world.y)), rng.integers(1, 7, len(world.y)))
    return world._replace(x=world.x[again], y=world.y[again])


def with_groups(rng: Random) -> World:
    """Groups of one to six rows of a class around a place of their own; fresh rows are each of another group."""
    world = gaussians(rng)
    groups = np.cumsum(rng.random(len(world.y)) < 0.4)
    groups = groups * (world.y.max() + 1) + world.y  # of one class each
    spread = 0.7 * world.x.std(axis=0)
    places = rng.normal(size=(groups.max() + 1, world.x.shape[1])) * spread
    fresh = world.fresh_x + rng.normal(size=world.fresh_x.shape) * spread
    return world._replace(x=world.x + places[groups], fresh_x=fresh, told={"groups": groups})


def table(rng: Random) -> World:
    """Some classes and columns of the digits or of breast cancer, with a tail; fresh rows are the rest."""
    digits = bool(rng.random() < 0.7)
    x, y = (load_digits if digits else load_breast_cancer)(return_X_y=True)
    classes = rng.choice(10, int(rng.integers(3, 11)), replace=False) if digits else np.arange(2)
    columns = rng.choice(x.shape[1], int(rng.choice([6, 12, 24])), replace=False)
    rows = rng.permutation(np.flatnonzero(np.isin(y, classes)))
    x, y = x[rows][:, columns], np.searchsorted(np.sort(classes), y[rows])
    taken = np.concatenate(
        [np.flatnonzero(y == k)[: min(n, 80)] for k, n in enumerate(sizes(rng, len(classes), smallest=2))]
    )
    rest = np.setdiff1d(np.arange(len(y)), taken)
    return World(x[taken], y[taken], x[rest], y[rest], {}, {})


KINDS: dict[str, Callable[[Random], World]] = {
    "one covariance": gaussians,
    "own covariances": lambda rng: gaussians(rng, own=True),
    "overlap": lambda rng: gaussians(rng, apart=(0.3, 1.5)),
    "tails of one row": lambda rng: gaussians(rng, smallest=1),
    "prior of training": lambda rng: gaussians(rng, own=True, prior="train"),
    "named methods": lambda rng: gaussians(rng, own=True, method=str(rng.choice(NAMED))),
    "held-out rows": with_held_out,
    "copies": with_copies,
    "groups": with_groups,
    "tables": table,
}


# --- promises ---------------------------------------------------------------------------------------------------------


class Kept(NamedTuple):
    """What was promised (value, low, high) and the truth, all fractions."""

    value: float
    low: float
    high: float
    truth: float


def kept(world: World) -> Kept | None:
    """The promise of a world and its truth; None where no number is promised."""
    fitted = LongTailClassifier(seen_by_backbone=False, **world.options).fit(world.x, world.y, **world.told)
    promise = fitted.promise_
    if promise is None:
        return None
    right = fitted.predict(world.fresh_x) == world.fresh_y
    judged = np.isin(fitted.classes_.astype(str), promise.judged)
    share = np.where(judged, fitted.class_counts_ if world.options.get("prior") == "train" else 1.0, 0.0)
    recall = np.array([right[world.fresh_y == k].mean() for k in fitted.classes_])
    return Kept(promise.value, promise.low, promise.high, float(share @ recall / share.sum()))


def one_world(name: str, number: int, world: int) -> Kept | None:
    """Promise and truth of one world of a kind, a function of the seed and these numbers."""
    warnings.simplefilter("ignore", PoiseWarning)
    torch.set_num_threads(1)
    return kept(KINDS[name](np.random.default_rng([SEED, number, world])))


def line(name: str, worlds: int, found: list[Kept]) -> str:
    """A row of the table."""
    value, low, high, truth = np.array(found).T
    covered = (low <= truth) & (truth <= high)
    error, miss = value - truth, 100 * np.sqrt(covered.mean() * (1 - covered.mean()) / len(found))
    return (
        f"| {name} | {worlds} | {len(found)} | {100 * covered.mean():.1f} % ± {miss:.1f} | "
        f"{100 * (high - low).mean():.1f} | {100 * (high - low).min():.1f} | {100 * error.mean():+.2f} | "
        f"{100 * np.sqrt((error**2).mean()):.1f} |"
    )


def main() -> None:
    """Simulate every kind, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    parser.add_argument("--worlds", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=1, help="processes; the result does not depend on it")
    given = parser.parse_args()
    each = -(-given.worlds // len(KINDS))
    lines = [
        "# Promises, simulated",
        "",
        (__doc__ or "").split("\n\n", 2)[2].strip(),
        "",
        "| kind | worlds | promised | covered | mean width | least width | bias | rms |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    every: list[Kept] = []
    for number, name in enumerate(KINDS):
        with Pool(given.jobs) as pool:
            found = pool.starmap(one_world, [(name, number, world) for world in range(each)], chunksize=1)
        told = [one for one in found if one is not None]
        every += told
        lines.append(line(name, each, told))
        print(lines[-1], flush=True)
    lines.append(line("**all**", each * len(KINDS), every))
    print(lines[-1])
    made_with = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines += ["", f"Command: `python experiments/promise.py --worlds {given.worlds}`; seed {SEED}; {made_with}.", ""]
    write_atomically(given.out / "promise.md", "\n".join(lines))


if __name__ == "__main__":
    main()
