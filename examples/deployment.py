"""
The prior of the deployment, and when to abstain
================================================

Which head is best depends on how often the classes occur where it is used. The prior is stated,
or estimated from rows without labels; and rows that are not sure enough need not be answered.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from poise import LongTailClassifier
from poise.decisions.certified import lowest_threshold
from poise.decisions.targets import coverage_curve
from poise.values.counts import ClassCounts

# %%
# Training rows are long-tailed. The deployment is not: rare classes are half of it.

SIZES = np.array([400, 120, 40, 12])
MEANS = np.random.default_rng(1).normal(size=(4, 12))
rng = np.random.default_rng(0)


def rows(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 12) and labels (N,)."""
    y = np.repeat(np.arange(len(sizes)), sizes)
    return MEANS[y] + rng.normal(scale=1.1, size=(len(y), 12)), y


x, y = rows(SIZES)
deployed, truth = rows(np.array([300, 200, 300, 200]))

# %%
# The same rows fitted for three priors. `adapt` estimates the last one from the deployed rows,
# without their labels.

classifiers = {
    "train": LongTailClassifier(prior="train").fit(x, y),
    "uniform": LongTailClassifier(prior="uniform").fit(x, y),
    "adapted": LongTailClassifier(prior="train").fit(x, y).adapt(deployed),
}
for name, classifier in classifiers.items():
    right = classifier.score(deployed, truth)
    print(f"{name:8} {100 * right:.1f} % right; prior {np.round(classifier.prior_applied_, 2)}")

# %%
# Answering only the surest rows makes the answers better. The threshold belongs to rows with
# labels that chose nothing; here another draw of the deployment. It holds at a confidence of 95 %.

classifier = classifiers["adapted"]
extra, known = rows(np.array([300, 200, 300, 200]))
probability = torch.from_numpy(classifier.predict_proba(extra))
confidence, answer = probability.max(dim=1)
labels = torch.from_numpy(known)
curve = coverage_curve(confidence, answer == labels, labels, ClassCounts(torch.from_numpy(SIZES)))
threshold = lowest_threshold(confidence, answer == labels, target=0.95, level=0.05)
kept = classifier.predict_proba(deployed).max(axis=1) >= threshold
right = (classifier.predict(deployed) == truth)[kept]
print(f"above {threshold:.2f}: {100 * kept.mean():.0f} % answered, {100 * right.mean():.1f} % right")

# %%

figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
axes.plot(100 * curve.coverage, 100 * curve.accuracy, label="share of answers that is right")
axes.plot(100 * curve.coverage, 100 * curve.kept["few"], "--", label="share of rare rows answered")
axes.axhline(95, color="grey", linewidth=0.8)
axes.set(xlabel="rows answered, %", ylabel="%", ylim=(0, 102))
axes.legend(loc="lower right")
plt.show()
