"""
Label over-smoothing, epoch by epoch
====================================

How long a head is trained is a setting like any other. For label over-smoothing on memorised
features it is the one that matters: the recipe of one paper, carried to other features, passes
its best epoch and goes on.
"""

import matplotlib.pyplot as plt

import poise
from poise.data.bundled import load_demo

# %%
# With `snapshots` a head comes with its whole path: entry 0 is the stage-1 head, entry e what it
# is after e epochs. Two learning rates on raw features, as released: 5e-4 and a tenth of it.

demo = load_demo()
released = {"delta": 0.98, "epochs": 20, "batch_size": 64, "scale_features": False}
recipes = [poise.methods.build("los", lr=lr, **released) for lr in (5e-4, 5e-5)]
fast, slow = poise.fit_heads(demo.problem, recipes, snapshots=True)

# %%
# Every entry is scored on the held-out rows, which the network never saw. (Scores on the training
# rows would say that all is well: nearly all of them are right from the start.)

held_out = demo.problem.held_out
paths = {"5e-4": [poise.evaluate_head(head, held_out) for head in fast]}
paths["5e-5"] = [poise.evaluate_head(head, held_out) for head in slow]
for lr, path in paths.items():
    values = [100 * scores.balanced_accuracy for scores in path]
    best = values.index(max(values))
    print(f"lr {lr}: best after epoch {best} ({values[best]:.1f} %), at the end {values[-1]:.1f} %")

# %%

figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
for axes, (lr, path) in zip(panels, paths.items(), strict=True):
    for group in ("many", "medium", "few"):
        axes.plot([100 * getattr(scores, group) for scores in path], label=group)
    balanced = [100 * scores.balanced_accuracy for scores in path]
    axes.plot(balanced, color="black", linewidth=2.2, label="all classes")
    axes.set(title=f"learning rate {lr}", xlabel="epochs")
panels[0].set_ylabel("recall on held-out rows, %")
panels[1].legend(loc="lower right")
plt.show()
