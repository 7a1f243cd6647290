"""
With scikit-learn habits
========================

`LongTailClassifier` works in pipelines and grid searches as any classifier does. Rows come from
sites, and a site must not be in fitting and scoring at once: the search respects that by
`GroupKFold`, and ``method="auto"`` by its own `groups`.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from poise import LongTailClassifier

# %%
# Four species of very different frequency, seen at twelve sites; every site shifts its rows a
# little.

SIZES = {"heron": 300, "osprey": 80, "bittern": 25, "crake": 8}
MEANS = dict(zip(SIZES, np.random.default_rng(1).normal(size=(len(SIZES), 16)), strict=True))
SHIFTS = np.random.default_rng(2).normal(scale=0.3, size=(12, 16))
rng = np.random.default_rng(0)


def rows(sizes: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, 16), species (N,) and sites (N,)."""
    y = np.repeat(list(sizes), list(sizes.values()))
    site = rng.integers(12, size=len(y))
    noise = rng.normal(scale=1.2, size=(len(y), 16))
    return np.stack([MEANS[name] for name in y]) + SHIFTS[site] + noise, y, site


x, y, site = rows(SIZES)
fresh, truth, _ = rows(dict.fromkeys(SIZES, 100))

# %%
# The strength of logit adjustment, searched over folds of whole sites:

pipeline = make_pipeline(StandardScaler(), LongTailClassifier(method="logit_adjustment"))
grid = {"longtailclassifier__tau": [0.5, 1.0, 1.5]}
search = GridSearchCV(pipeline, grid, scoring="balanced_accuracy", cv=GroupKFold(4))
search.fit(x, y, groups=site)
print(f"grid search: {search.best_params_}, {search.score(fresh, truth):.3f} on fresh rows")

# %%
# Without a method, it chooses one itself, with folds of its own:

auto = LongTailClassifier().fit(x, y, groups=site)
print(f"auto: {auto.method_}, {auto.score(fresh, truth):.3f} on fresh rows")

# %%
# What changes, class by class:

plain = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
models = {"LogisticRegression": plain, "grid search": search, "auto": auto}
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
for place, (name, model) in enumerate(models.items()):
    recall = recall_score(truth, model.predict(fresh), labels=list(SIZES), average=None)
    axes.bar(np.arange(len(SIZES)) + 0.27 * (place - 1), recall, width=0.25, label=name)
axes.set_xticks(range(len(SIZES)), [f"{name}\n{size} rows" for name, size in SIZES.items()])
axes.set(ylabel="recall on fresh rows", ylim=(0, 1.05))
axes.legend(loc="lower left", ncols=3)
plt.show()
