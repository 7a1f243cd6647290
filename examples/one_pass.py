"""
Sixty heads in one pass
=======================

Any number of heads is trained together: they share every batch, so that sixty cost little more
than a few, and each is bit for bit the head that would be trained alone.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

import poise
from poise.data.bundled import load_demo

# %%
# Features of a ResNet-32 trained on CIFAR-100-LT come with the package. A recipe is a value;
# nothing is trained yet.

demo = load_demo()
taus, rates = np.linspace(0, 2, 10), (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
build = poise.methods.build
recipes = [build("balanced_softmax", tau=tau, lr=lr, epochs=3) for lr in rates for tau in taus]

begun = time.perf_counter()
heads = poise.fit_heads(demo.problem, recipes)
took = time.perf_counter() - begun
print(f"{len(heads)} heads on {len(demo.problem.train):,} rows, three epochs: {took:.1f} s")

# %%
# The training rows trained the network, so nothing can be chosen on them. Held-out rows can
# choose:

held_out = demo.problem.held_out
scores = np.array([poise.evaluate_head(head, held_out).balanced_accuracy for head in heads])
scores = 100 * scores.reshape(len(rates), len(taus))
row, column = np.unravel_index(scores.argmax(), scores.shape)
print(f"best: lr={rates[row]:g}, tau={taus[column]:.2f}, {scores.max():.1f} % on held-out rows")

# %%

figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
image = axes.imshow(scores, aspect="auto", cmap="viridis")
axes.plot(column, row, "o", color="white", markersize=14, fillstyle="none", markeredgewidth=2)
axes.set_xticks(range(len(taus)), [f"{tau:.1f}" for tau in taus])
axes.set_yticks(range(len(rates)), [f"{lr:g}" for lr in rates])
axes.set(xlabel="strength tau of the prior", ylabel="learning rate")
figure.colorbar(image, label="balanced accuracy on held-out rows, %")
plt.show()
