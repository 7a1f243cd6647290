"""A pipeline, a grid search and groups: `LongTailClassifier` as any scikit-learn classifier.

Run: python examples/scikit_learn.py

Rows come from sites, and a site must not be in fitting and scoring at once: the search respects that by GroupKFold,
and `method="auto"` by its own `groups`.
"""

import numpy as np
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from poise import LongTailClassifier

SIZES = {"heron": 300, "osprey": 80, "bittern": 25, "crake": 8}
SITES = 12


def rows(rng: np.random.Generator, sizes: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, 16), species (N,) and sites (N,); every site shifts its rows a little."""
    y = np.repeat(list(sizes), list(sizes.values()))
    site = rng.integers(SITES, size=len(y))
    means = dict(zip(sizes, np.random.default_rng(1).normal(size=(len(sizes), 16)), strict=True))
    shift = np.random.default_rng(2).normal(scale=0.3, size=(SITES, 16))
    x = np.stack([means[name] for name in y]) + shift[site] + rng.normal(scale=1.2, size=(len(y), 16))
    return x, y, site


def main() -> None:
    """Search the strength of logit adjustment over groups, and let auto choose beside it."""
    rng = np.random.default_rng(0)
    x, y, site = rows(rng, SIZES)
    fresh, truth, _ = rows(rng, dict.fromkeys(SIZES, 100))
    pipeline = make_pipeline(StandardScaler(), LongTailClassifier(method="logit_adjustment"))
    grid = {"longtailclassifier__tau": [0.5, 1.0, 1.5]}
    search = GridSearchCV(pipeline, grid, scoring="balanced_accuracy", cv=GroupKFold(4)).fit(x, y, groups=site)
    auto = LongTailClassifier().fit(x, y, groups=site)
    print(f"grid search: {search.best_params_}, {search.score(fresh, truth):.3f} on fresh rows")
    print(f"auto: {auto.method_}, {auto.score(fresh, truth):.3f} on fresh rows")


if __name__ == "__main__":
    main()
