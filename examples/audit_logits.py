"""
Only logits
===========

The output of any repository can be judged without its code: logits of test rows, their labels,
and the class counts of its training split.
"""

import matplotlib.pyplot as plt

from poise.data.bundled import load_demo
from poise.selection.audit import audit

# %%
# As an example, the logits of the network whose features come with the package. Rows that the
# network never saw choose the strength of each adjustment; without them, halves of the test rows
# would choose for each other.

demo = load_demo()
head = demo.problem.head
held_out = demo.problem.held_out
found = audit(
    head(demo.test.x[0]),
    demo.test.y,
    demo.test.counts,
    held_out=(head(held_out.x[0]), held_out.y),
    budget=12,
)
print(f"as given: {100 * found.scores.accuracy:.1f} %, rare classes {100 * found.scores.few:.1f} %")
print(found.comparison.verdict())

# %%
# A strength moves accuracy from frequent to rare classes. The path is for looking at: its best
# point on test rows would be chosen by the test rows.

path = found.paths["logit_adjustment"]
standings = [s for s in found.comparison.standings if str(s.family) == "logit_adjustment"]
selected = next(standing for standing in standings if standing.role == "tuned")
chosen = 100 * selected.mean("many"), 100 * selected.mean("few")
few, many = ([100 * point[group] for point in path] for group in ("few", "many"))

figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
axes.plot(many, few, "o-", color="#6d3fb5", markersize=4, label="strength from 0 up")
axes.plot(100 * found.scores.many, 100 * found.scores.few, "s", color="black", label="as given")
axes.plot(*chosen, "*", color="#f2b441", markersize=16, label="selected")
axes.set(xlabel="recall of classes with more than 100 rows, %", ylabel="fewer than 20 rows, %")
axes.legend(loc="lower left")
plt.show()
