"""Heads computed from the training features in closed form: nearest class mean and linear discriminant."""

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from poise.errors import InputError
from poise.methods.method import Method
from poise.types import Features, Head, Prep, Problem

__all__ = ["class_means", "lda", "ncm"]

Transform = Literal["cl2n", "l2n", "raw"]
Distance = Literal["l2", "dot", "cos"]


def class_means(x: Tensor, features: Features) -> Tensor:
    """(C, D) float64 means of rows x (N, D) by the labels of `features`; for an empty class, the mean of all rows.

    Weighted where `features` are; a class whose rows all have weight 0 is empty.
    """
    classes, weight = len(features.counts), features.weight
    n = torch.bincount(features.y, weights=weight, minlength=classes).double()
    rows = x.double() if weight is None else x.double() * weight.unsqueeze(-1)
    sums = torch.zeros(classes, x.shape[1], dtype=torch.float64, device=x.device).index_add(0, features.y, rows)
    means = sums / torch.where(n > 0, n, 1.0).unsqueeze(-1)
    return torch.where((n > 0).unsqueeze(-1), means, _mean(x.double(), weight))


def _mean(x: Tensor, weight: Tensor | None) -> Tensor:
    """(D,) mean of rows x (N, D)."""
    return x.mean(dim=0) if weight is None else weight @ x / weight.sum()


def ncm(*, transform: Transform = "cl2n", distance: Distance = "l2") -> Method:
    """Nearest class mean (Kang et al., ICLR 2020).

    Features are taken with the test-time transform: `raw`; `l2n`, divided by their norm; `cl2n` (the default there),
    first centred on the mean of all training rows. Class means are means of transformed features and are not normalised
    again. `l2` scores -|f - mu_k|^2, which is the head W = 2 mu, b = -|mu|^2 exactly; `dot` scores f . mu_k (the
    released `cos` up to a constant factor); `cos` divides mu_k by its norm. A class without rows has the mean of all
    rows.

    Raises: InputError for an unknown transform or distance.
    """
    if transform not in ("cl2n", "l2n", "raw") or distance not in ("l2", "dot", "cos"):
        raise InputError(
            f"ncm takes transform cl2n, l2n or raw and distance l2, dot or cos; got {transform!r} and {distance!r}"
        )
    return partial(_ncm, transform=transform, distance=distance)


def _ncm(problem: Problem, seed: int = 0, *, transform: Transform, distance: Distance) -> Head:
    train = problem.train
    x = train.x[0].double()
    prep = Prep(_mean(x, train.weight) if transform == "cl2n" else None, unit=transform != "raw")
    means = class_means(prep(x), train)
    norms = means.norm(dim=-1, keepdim=True)
    weight, bias = {
        "l2": (2 * means, -norms.squeeze(-1).square()),
        "dot": (means, torch.zeros_like(norms.squeeze(-1))),
        "cos": (means / norms.clamp_min(torch.finfo(norms.dtype).tiny), torch.zeros_like(norms.squeeze(-1))),
    }[distance]
    return Head(weight, bias, None if transform == "raw" else prep).to(train.dtype)


def lda(
    *, shrinkage: float | Literal["ledoit_wolf"] = "ledoit_wolf", prior: Literal["uniform", "train"] = "uniform"
) -> Method:
    """Linear discriminant analysis with a shrunk covariance (training-free baseline of Wang et al., ICLR 2024).

    S is the pooled within-class covariance, S' = (1 - a) S + a tr(S) / D I; w_k = S'^-1 mu_k and
    b_k = -mu_k' S'^-1 mu_k / 2, plus log prior_k for `prior="train"`. `shrinkage` a lies in (0, 1], or is found by the
    formula of Ledoit and Wolf on the rows centred by class. A class without rows has the mean of all rows.

    Raises: InputError for a shrinkage outside (0, 1], or rows that do not vary within their classes.
    """
    if shrinkage != "ledoit_wolf" and not (isinstance(shrinkage, float | int) and 0 < shrinkage <= 1):
        raise InputError(f"shrinkage must lie in (0, 1] or be 'ledoit_wolf', got {shrinkage!r}")
    if prior not in ("uniform", "train"):
        raise InputError(f"prior must be 'uniform' or 'train', got {prior!r}")
    return partial(_lda, shrinkage=shrinkage, prior=prior)


def _lda(problem: Problem, seed: int = 0, *, shrinkage: float | str, prior: str) -> Head:
    train = problem.train
    x = train.x[0].double()
    means = class_means(x, train)
    within = x - means[train.y]
    weight = train.weight
    rows = len(x) if weight is None else weight.sum()
    covariance = within.T @ (within if weight is None else within * weight.unsqueeze(-1)) / rows
    level = covariance.trace() / train.dim
    if not level > torch.finfo(x.dtype).eps * x.square().mean():  # what rounding alone leaves
        raise InputError("lda needs rows that differ within their classes; every class here is a single point")
    a = _ledoit_wolf(within, weight) if isinstance(shrinkage, str) else float(shrinkage)
    shrunk = (1 - a) * covariance + a * level * torch.eye(train.dim, dtype=x.dtype, device=x.device)
    weight = torch.linalg.solve(shrunk, means.T).T
    bias = -(weight * means).sum(dim=-1) / 2
    return Head(weight, bias + train.counts.prior.log().to(bias) if prior == "train" else bias).to(train.dtype)


def _ledoit_wolf(within: Tensor, weight: Tensor | None) -> float:
    from sklearn.covariance import ledoit_wolf_shrinkage

    if weight is None:
        found = float(ledoit_wolf_shrinkage(within.cpu().numpy(), assume_centered=True))
    else:
        found = _weighted_ledoit_wolf(within, weight)
    # Exactly 0 would leave a singular covariance unrepaired when there are fewer rows than features.
    return max(found, 1e-6)


def _weighted_ledoit_wolf(within: Tensor, weight: Tensor) -> float:
    """The formula of Ledoit and Wolf (2004) on rows that count `weight` times: what repeating them would give."""
    rows, dim = weight.sum(), within.shape[1]
    covariance = within.T @ (within * weight.unsqueeze(-1)) / rows
    scatter = covariance.square().sum()
    distance = scatter - covariance.trace().square() / dim
    noise = (weight @ within.square().sum(dim=-1).square() / rows - scatter) / rows
    return float((noise.clamp(max=distance) / distance).clamp_min(0)) if distance > 0 else 0.0
