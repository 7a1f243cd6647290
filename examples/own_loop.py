"""
A loss in your own training loop
================================

The losses are functions on logits that know nothing of the solver: they fit into any torch loop,
end to end.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import poise

# %%
# A small network on a made-up spiral with three arms of 1,000, 100 and 10 points.

SIZES = (1000, 100, 10)
generator = torch.Generator().manual_seed(0)


def spiral(sizes: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (N, 2) and the arm of each (N,)."""
    y = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    radius = torch.rand(len(y), generator=generator)
    angle = 4 * radius + 2 * torch.pi / 3 * y + 0.25 * torch.randn(len(y), generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), y


x, y = spiral(SIZES)
fresh, truth = spiral((500, 500, 500))
counts = poise.ClassCounts.from_labels(y)


# %%
# `losses.build` gives a module: called with logits (B, C) and labels (B,), it returns one number
# per row. What it needs to know of the classes are their counts in training.


def train(name: str) -> nn.Sequential:
    """The network after 300 full batches."""
    torch.manual_seed(0)
    layers = nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
    network = nn.Sequential(*layers)
    loss = poise.losses.build(name, counts)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01, weight_decay=1e-3)
    for _ in range(300):
        optimizer.zero_grad()
        loss(network(x), y).mean().backward()
        optimizer.step()
    return network


networks = {name: train(name) for name in ("cross_entropy", "balanced_softmax")}
for name, network in networks.items():
    scores = poise.evaluate(network(fresh).detach(), truth, counts)
    recalls = [round(100 * recall) for recall in scores.per_class]
    print(f"{name}: {100 * scores.balanced_accuracy:.1f} %, by arm {recalls}")

# %%
# Plain logits are used for prediction: the prior was in the loss only.

axis = torch.linspace(-1.2, 1.2, 200)
plane = torch.cartesian_prod(axis, axis)
figure, panels = plt.subplots(1, 2, figsize=(7.4, 3.6), layout="constrained")
for axes, (name, network) in zip(panels, networks.items(), strict=True):
    regions = network(plane).argmax(dim=1).reshape(200, 200).T
    colours = {"cmap": "Set2", "vmin": 0, "vmax": 7}
    axes.imshow(regions.numpy(), extent=(-1.2, 1.2, -1.2, 1.2), origin="lower", alpha=0.45, **colours)
    axes.scatter(*x.T.numpy(), c=y.numpy(), s=6, edgecolors="black", linewidths=0.15, **colours)
    axes.set(title=name, xticks=[], yticks=[])
plt.show()
