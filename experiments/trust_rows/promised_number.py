"""The number that a fit promises."""

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from trust_rows.row import Array, fitted, row, said
from trust_rows.worlds import SKLEARN_SETS, balanced, gaussian, longtail, two_classes, two_line_baseline

from poise import LongTailClassifier


@row("promised accuracy", "12 classes, 5 of them with one row", "over 7 of 12 classes, and says which")
def _single_rows() -> str:
    rng = np.random.default_rng(3)
    means = rng.normal(size=(12, 6)) * 2
    y = np.repeat(np.arange(12), [60, 40, 25, 15, 8, 4, 2, 1, 1, 1, 1, 1])
    yt = np.repeat(np.arange(12), 400)
    x, xt = (means[labels] + rng.normal(size=(len(labels), 6)) for labels in (y, yt))
    return fitted(x, y, (xt, yt), seen_by_backbone=False)


@row("promised accuracy", "999 rows of one class, 1 of the other", "no number")
def _one_row() -> str:
    rng = np.random.default_rng(3)
    return fitted(*two_classes(rng, 999, 1), two_classes(rng, 2000, 2000), seen_by_backbone=False)


@row("promised accuracy", "all rows of the rare class in one group", "no row to judge this class by, said")
def _one_group() -> str:
    rng = np.random.default_rng(5)
    x, y = two_classes(rng, 40, 10)
    groups = np.where(y == 1, 0, np.arange(len(y)))
    return fitted(x, y, two_classes(rng, 2000, 2000), seen_by_backbone=False, fit={"groups": groups})


@row(
    "promised accuracy",
    "27 sets: three of scikit-learn (IF 10 to 50) and Gaussian mixtures",
    "interval holds the truth",
)
def _many_sets() -> str:
    off, held, width = [], [], []
    for x, y, xt, yt in _sets():
        model, _ = said(lambda x=x, y=y: LongTailClassifier(seen_by_backbone=False).fit(x, y))
        true = balanced(model.predict(xt), yt)
        whole = getattr(model, "promise_", None)
        if model.unseen_recall_ is None:
            continue
        if whole is not None:
            judged = [model.classes_.tolist().index(k) for k in model.classes_.tolist() if str(k) in _judged(whole)]
            guess = model.predict(xt)
            true = float(np.mean([np.mean(guess[yt == model.classes_[k]] == model.classes_[k]) for k in judged]))
            held.append(whole.low <= true <= whole.high)
            width.append(whole.high - whole.low)
        off.append(100 * (model.unseen_recall_ - true))
    found = f"{len(off)} numbers: bias {np.mean(off):+.1f}, root mean square {np.sqrt(np.mean(np.square(off))):.1f}, "
    found += f"range {min(off):+.0f} to {max(off):+.0f} points"
    return found + (
        f"; {sum(held)} of {len(held)} intervals hold, mean width {100 * np.mean(width):.0f}" if held else ""
    )


def _judged(promise: Any) -> set[str]:
    return {str(name) for name in promise.judged}


def _sets() -> Iterable[tuple[Array, Array, Array, Array]]:
    for number, load in enumerate(SKLEARN_SETS):
        for seed in range(3):
            yield longtail(*load(return_X_y=True), imbalance=(10, 20, 50)[seed], seed=10 * number + seed)
    for seed in range(27 - 3 * len(SKLEARN_SETS)):
        rng = np.random.default_rng([7, seed])
        classes, most = int(rng.integers(3, 12)), int(rng.integers(30, 120))
        yield gaussian(seed, classes, 8, float(rng.choice([5, 20, 50])), most, sep=float(rng.uniform(1.5, 3.5)))


@row(
    "the default choice",
    "the same 27 sets, balanced accuracy and seconds beside logistic regression - log prior",
    "better",
)
def _default_choice() -> str:

    own, other, seconds = [], [], [0.0, 0.0]
    for x, y, xt, yt in _sets():
        begin = time.perf_counter()
        model, _ = said(lambda x=x, y=y: LongTailClassifier(seen_by_backbone=False).fit(x, y))
        middle = time.perf_counter()
        simple = two_line_baseline(x, y)
        seconds = [seconds[0] + middle - begin, seconds[1] + time.perf_counter() - middle]
        own.append(balanced(model.predict(xt), yt))
        other.append(balanced(simple(xt), yt))
    gain = np.array(own) - np.array(other)
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    return (
        f"{np.mean(own):.3f} beside {np.mean(other):.3f} (difference {100 * gain.mean():+.1f}, standard error "
        f"{100 * error:.1f} points); {seconds[0] / seconds[1]:.0f} times the seconds"
    )
