"""Heads fitted to convergence, beside scikit-learn's LogisticRegression at equal objective.

    python benchmarks/converged.py [--repeats 3] [--only small|large|path] [--quick]

    small    the shipped features, 10,847 x 64, 100 classes
    large    50,000 x 768, 100 classes, made up: class centres and noise along axes of falling variance
    path     the small rows, 20 penalties, 5 folds, beside LogisticRegressionCV with the same folds

Both sides read the same scaled rows in the same dtype on the same threads, and their objective is the same, with
C = 1 / (N weight_decay). A solver is timed at the loosest tolerance (ten per decade) at which its objective, computed
anew in float64, is within 1e-4 of the best found by anyone. On the path both use one tolerance for all penalties, that
at which the largest gap is within 1e-4. Times are medians over repeats, one side after the other; preparing the rows is
part of ours (Poise scales them and finds their axes) and not of theirs. Writes results/converged.json.
"""

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

# As the command line does: threads that spin while they wait disturb each other on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from torch import Tensor

from heads import machine
from poise import ClassCounts, Features
from poise.data.bundled import load_demo
from poise.heads.converged import fit_path
from poise.heads.scaling import Space, space_of
from poise.losses import cross_entropy
from poise.machine.atomic import write_atomically
from poise.metrics import evaluate_head

CS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
PATH = np.logspace(-3, 1, 20)
GAP = 1e-4
TOLERANCES = [10 ** (-k / 10) for k in range(15, 80)]


class Rows(NamedTuple):
    """Rows as both sides read them: Poise as features, scikit-learn as scaled numbers."""

    features: Features
    space: Space
    scaled: NDArray[Any]
    y: NDArray[np.int64]
    exact: Tensor  # (N, D + 1) float64

    @classmethod
    def of(cls, features: Features, dtype: torch.dtype) -> "Rows":
        """Rows in a dtype."""
        space = space_of(features, scale=True, unit=False)
        exact = space.rows(features.x[0], torch.float64)
        return cls(features, space, exact[:, :-1].to(dtype).numpy(), features.y.numpy(), exact)

    def part(self, which: Tensor, *, own_scale: bool) -> "Rows":
        """Some of the rows, scaled by themselves or as all are."""
        some = Rows.of(self.features.take(which), torch.float64)
        return some if own_scale else some._replace(space=self.space, exact=self.exact[which])

    def objective(self, rows: Tensor, weight_decay: float) -> float:
        """Mean loss and penalty of a head (C, D + 1) in this space."""
        total = 0.0
        for x, y in zip(self.exact.split(4096), self.features.y.split(4096), strict=True):
            total += float(torch.nn.functional.cross_entropy(x @ rows.T, y, reduction="sum"))
        return total / len(self.y) + weight_decay / 2 * float(rows[:, :-1].square().sum())


def small() -> Features:
    """The shipped rows."""
    return load_demo().problem.train


def large(n: int = 50_000, d: int = 768, c: int = 100) -> Features:
    """Made-up rows: variances fall as 1 / k, as those of pretrained features do."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.arange(1, d + 1).pow(-0.5)
    y = torch.arange(n) % c
    centres = torch.randn(c, d, generator=generator)
    return Features(
        (0.6 * centres[y] + torch.randn(n, d, generator=generator)) * axes, y, ClassCounts.from_labels(y, c)
    )


# --- the two sides ----------------------------------------------------------------------------------------------------


def ours(rows: Rows, c: float, tolerance: float, dtype: torch.dtype) -> tuple[Tensor, int]:
    """Head in the scaled space, and evaluations."""
    decay = 1 / (len(rows.y) * c)
    found = fit_path(rows.features, cross_entropy(), [decay], tolerance=tolerance, dtype=dtype)[0]
    return rows.space.enter(found.head), found.evaluations


def theirs(rows: Rows, c: float, tolerance: float, dtype: torch.dtype) -> tuple[Tensor, int]:
    """The same of scikit-learn; the count is of its steps."""
    model = LogisticRegression(C=c, tol=tolerance, max_iter=5000).fit(rows.scaled, rows.y)
    head = np.concatenate([model.coef_, model.intercept_[:, None]], axis=1)
    return torch.from_numpy(head).double(), int(model.n_iter_[0])


SIDES: dict[str, Callable[[Rows, float, float, torch.dtype], tuple[Tensor, int]]] = {"poise": ours, "sklearn": theirs}


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came out."""
    begun = time.perf_counter()
    found = run()
    return time.perf_counter() - begun, found


def loosest(gap: Callable[[float], float]) -> float:
    """The loosest tolerance with a gap of at most `GAP`, by bisection: the gap falls with the tolerance."""
    low, high = 0, len(TOLERANCES) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if gap(TOLERANCES[middle]) <= GAP else (middle + 1, high)
    return TOLERANCES[low]


def single(rows: Rows, c: float, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    """One penalty: seconds and counts of both sides, and the ratio."""
    decay = 1 / (len(rows.y) * c)
    best = rows.objective(ours(rows, c, 1e-7, torch.float64)[0], decay)
    tolerance = {
        name: loosest(lambda t, run=run: rows.objective(run(rows, c, t, dtype)[0], decay) / best - 1)
        for name, run in SIDES.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    counts, gaps = {}, {}
    for _ in range(repeats):
        for name, run in SIDES.items():
            took, (head, counts[name]) = timed(lambda n=name, r=run: r(rows, c, tolerance[n], dtype))
            seconds[name].append(took)
            gaps[name] = rows.objective(head, decay) / best - 1
    ratios = [b / a for a, b in zip(seconds["poise"], seconds["sklearn"], strict=True)]
    return {
        "C": c,
        "dtype": str(dtype).split(".")[1],
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "counts": counts,
        "tolerance": tolerance,
        "gap": gaps,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


# --- the path ---------------------------------------------------------------------------------------------------------


def folds(y: NDArray[np.int64], k: int = 5) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Every k-th row of each class."""
    place = np.zeros(len(y), dtype=np.int64)
    for label in np.unique(y):
        place[y == label] = np.arange((y == label).sum())
    return [(np.flatnonzero(place % k != i), np.flatnonzero(place % k == i)) for i in range(k)]


Heads = list[list[Tensor]]  # by fold and penalty, rows (C, D + 1) in the space of `Rows`


def path_of_ours(rows: Rows, cv: Any, tolerance: float, dtype: torch.dtype) -> Heads:
    """Heads per fold and penalty; each is scored on the other rows, as theirs is."""
    found = []
    for train, test in cv:
        part = rows.features.take(torch.from_numpy(train))
        decays = [1 / (len(train) * c) for c in PATH]
        fitted = [each.head for each in fit_path(part, cross_entropy(), decays, tolerance=tolerance, dtype=dtype)]
        aside = rows.features.take(torch.from_numpy(test))
        for head in fitted:
            evaluate_head(head, aside)
        found.append([space_of(part, scale=True, unit=False).enter(head) for head in fitted])
    return found


def path_of_theirs(rows: Rows, cv: Any, tolerance: float, dtype: torch.dtype) -> Heads:
    """The same of LogisticRegressionCV."""
    asked = {"l1_ratios": (0,), "scoring": "accuracy", "refit": False, "use_legacy_attributes": False}
    model = LogisticRegressionCV(Cs=PATH, cv=cv, tol=tolerance, max_iter=5000, **asked).fit(rows.scaled, rows.y)
    heads = torch.from_numpy(np.asarray(model.coefs_paths_)).double()
    return [list(of_fold) for of_fold in heads.reshape(len(cv), len(PATH), *heads.shape[-2:])]


PATHS: dict[str, Callable[[Rows, Any, float, torch.dtype], Heads]] = {"poise": path_of_ours, "sklearn": path_of_theirs}


def gaps(side: str, rows: Rows, cv: Any) -> Callable[[float, torch.dtype], float]:
    """Tolerance and dtype -> the largest gap on the first fold.

    Poise scales a fold by itself and scikit-learn gets the scale of all rows, so each side has its own optimum; it is
    searched for with penalties that mean the same in the scale of the fold.
    """
    train = torch.from_numpy(cv[0][0])
    part, alone = (rows.part(train, own_scale=own) for own in (side == "poise", True))
    decays = [1 / (len(train) * c) for c in PATH]
    same = (alone.space.factor / part.space.factor) ** 2
    exact = fit_path(alone.features, cross_entropy(), [decay * same for decay in decays], tolerance=1e-7)
    best = [part.objective(part.space.enter(each.head), decay) for each, decay in zip(exact, decays, strict=True)]

    def gap(tolerance: float, dtype: torch.dtype) -> float:
        heads = PATHS[side](rows, cv[:1], tolerance, dtype)[0]
        found = [part.objective(head, decay) for head, decay in zip(heads, decays, strict=True)]
        return max(value / low - 1 for value, low in zip(found, best, strict=True))

    return gap


def path(rows: Rows, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    """All penalties and folds: seconds of both sides at equal gap, and the ratio."""
    cv, tolerance = folds(rows.y), {}
    for side in PATHS:
        gap = gaps(side, rows, cv)
        tolerance[side] = loosest(lambda t, gap=gap: gap(t, dtype))
    seconds: dict[str, list[float]] = {side: [] for side in PATHS}
    for _ in range(repeats):
        for side, run in PATHS.items():
            seconds[side].append(timed(lambda s=side, r=run: r(rows, cv, tolerance[s], dtype))[0])
    ratios = [b / a for a, b in zip(seconds["poise"], seconds["sklearn"], strict=True)]
    return {
        "dtype": str(dtype).split(".")[1],
        "seconds": {side: statistics.median(found) for side, found in seconds.items()},
        "tolerance": tolerance,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("small", "large", "path"))
    parser.add_argument("--quick", action="store_true", help="two penalties of the small rows, one repeat")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    result: dict[str, Any] = {"machine": machine() | {"sklearn": sklearn.__version__}}
    for name, make in (("small", small), ("large", large)):
        if given.only in (None, name) and not (given.quick and name == "large"):
            result[name] = []
            features = make()
            for dtype in (torch.float64, torch.float32):
                rows = Rows.of(features, dtype)
                for c in CS[:2] if given.quick else CS:
                    row = single(rows, c, dtype, 1 if given.quick else given.repeats)
                    result[name].append(row)
                    print(
                        f"{name} {row['dtype']} C={c:g}: poise {row['seconds']['poise']:.3f} s "
                        f"({row['counts']['poise']} evaluations), sklearn {row['seconds']['sklearn']:.3f} s "
                        f"({row['counts']['sklearn']} steps), ratio {row['ratio']:.1f}",
                        flush=True,
                    )
    if given.only in (None, "path") and not given.quick:
        result["path"] = [
            path(Rows.of(small(), dtype), dtype, given.repeats) for dtype in (torch.float64, torch.float32)
        ]
        for row in result["path"]:
            print(f"path {row['dtype']}: {row['seconds']}, ratio {row['ratio']:.1f}", flush=True)
    if not given.quick:
        path_of_results = Path("benchmarks/results/converged.json")
        before = json.loads(path_of_results.read_text()) if given.only and path_of_results.exists() else {}
        write_atomically(path_of_results, json.dumps(before | result, indent=1) + "\n")


if __name__ == "__main__":
    main()
