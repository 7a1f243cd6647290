"""
Is it worth changing the head?
==============================

`compare` tunes every method with the same budget on rows that the network never saw, reads the
test split once, and says what that proves. Often it proves little: then it says so.
"""

import warnings

import matplotlib.pyplot as plt

import poise
from poise.data.bundled import load_demo

# %%
# Six methods with eight settings each, on the features that come with the package.

demo = load_demo()
asked = ["tau_norm", "logit_adjustment", "balanced_softmax", "crt", "lda", "ce"]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # six shipped test rows equal training rows
    found = poise.compare(asked, demo.problem, demo.test, budget=8)
print(found.verdict())

# %%
# Methods that cannot be told from the best are named, since the order among them is luck:

print("tied:", ", ".join(found.tied()))

# %%
# Intervals of the gains hold for all methods at once, so reading off the longest bar is allowed.
# The inner ones are over images of these classes, the outer ones over other classes of this kind.

names = sorted(found.gains["images"], key=lambda name: found.gains["images"][name].estimate)
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for place, name in enumerate(names):
    for over, width, colour in (("classes", 2, "#c9b6ea"), ("images", 6, "#6d3fb5")):
        ends = [100 * found.gains[over][name].low, 100 * found.gains[over][name].high]
        axes.plot(ends, [place, place], linewidth=width, color=colour)
    axes.plot(100 * found.gains["images"][name].estimate, place, "o", color="white", markersize=4)
axes.axvline(0, color="grey", linewidth=0.8)
axes.set_yticks(range(len(names)), names)
axes.set_xlabel("gain in balanced accuracy over the stage-1 head, points")
plt.show()
