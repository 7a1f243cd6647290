"""Data for the measurements of `trust.py`: Gaussian mixtures, and scikit-learn's sets cut to a long tail."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

Array = Any
SKLEARN_SETS = (load_digits, load_wine, load_breast_cancer)


def gaussian(
    seed: int,
    classes: int,
    dim: int,
    imbalance: float,
    most: int,
    *,
    sep: float,
    tests: int = 8000,
    least: int = 2,
) -> tuple[Array, Array, Array, Array]:
    """Training and test rows of a mixture of Gaussians of one covariance, mixed by a random matrix.

    Means have length `sep`; class sizes fall exponentially from `most` by the factor `imbalance`, in random order.
    """
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(classes, dim))
    means *= sep / np.linalg.norm(means, axis=1, keepdims=True)
    mix = rng.normal(size=(dim, dim)) / np.sqrt(dim) + np.eye(dim) / 2
    sizes = np.maximum(least, np.round(most * imbalance ** (-np.arange(classes) / (classes - 1)))).astype(int)
    y = np.repeat(np.arange(classes), rng.permutation(sizes))
    yt = np.repeat(np.arange(classes), tests // classes)
    x, xt = ((means[labels] + rng.normal(size=(len(labels), dim))) @ mix for labels in (y, yt))
    return x, y, xt, yt


def longtail(x: Array, y: Array, *, imbalance: float, seed: int) -> tuple[Array, Array, Array, Array]:
    """Two thirds of the rows of every class, cut to a long tail, to train on; the last third to test on."""
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.unique(y))
    train, test = [], []
    most = min(int((y == k).sum()) for k in classes) * 2 // 3
    for place, k in enumerate(classes):
        rows = rng.permutation(np.flatnonzero(y == k))
        size = max(2, round(most * imbalance ** (-place / (len(classes) - 1))))
        train.append(rows[:size])
        test.append(rows[len(rows) * 2 // 3 :])
    kept, out = np.concatenate(train), np.concatenate(test)
    return x[kept], y[kept], x[out], y[out]


def wine() -> tuple[Array, Array, Array, Array]:
    """Scikit-learn's wine, whose columns differ in unit, at imbalance 15."""
    return longtail(*load_wine(return_X_y=True), imbalance=15, seed=0)


def two_classes(rng: np.random.Generator, first: int, second: int) -> tuple[Array, Array]:
    """Rows of two Gaussians in the plane, 2 apart."""
    y = np.repeat([0, 1], [first, second])
    return np.array([[0, 0], [2.0, 0]])[y] + rng.normal(size=(len(y), 2)), y


def separated(sizes: tuple[int, int, int], sep: float, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """Three Gaussians in 8 dimensions, `sep` along an axis each, and 300 test rows of each."""
    rng = np.random.default_rng(seed)
    y, yt = np.repeat([0, 1, 2], sizes), np.repeat([0, 1, 2], 300)
    x, xt = (rng.normal(size=(len(labels), 8)) + sep * np.eye(3, 8)[labels] for labels in (y, yt))
    return x, y, xt, yt


def balanced(guess: Array, y: Array) -> float:
    """Balanced accuracy."""
    return float(np.mean([np.mean(guess[y == k] == k) for k in np.unique(y)]))


def two_line_baseline(x: Array, y: Array) -> Callable[[Array], Array]:
    """Logistic regression on standardised columns, less the log prior of training: what anybody types."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(x, y)
    prior = np.log(np.unique(y, return_counts=True)[1] / len(y))
    return lambda rows: model.classes_[(model.predict_log_proba(rows) - prior).argmax(axis=1)]
