"""Heads computed from the training features in closed form: nearest class mean and linear discriminant.

What all settings of a method share (class means, the covariance) is computed once per training split, in blocks of
rows, and kept as long as the features are.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial, wraps
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from poise.errors import InputError
from poise.values.arrays import row_slices
from poise.values.features import Features
from poise.values.head import Head, Prep
from poise.values.problem import Method, Problem

Transform = Literal["cl2n", "l2n", "raw"]
Distance = Literal["l2", "dot", "cos"]
Shrinkage = Literal["ledoit_wolf", "empirical_bayes"]
BLOCK = 2**23  # numbers in float64 that are read at a time: 64 MB
Value = TypeVar("Value")


def _once(function: Callable[..., Value]) -> Callable[..., Value]:
    """The function of features and more, whose values are kept by these features, as a cached property is."""

    @wraps(function)
    def remembered(features: Features, *more: Any) -> Value:
        found: dict[Any, Value] = vars(features).setdefault(function.__name__, {})
        if more not in found:
            found[more] = function(features, *more)
        return found[more]

    return remembered


def class_means(x: Tensor, features: Features, prep: Prep | None = None) -> Tensor:
    """(C, D) float64 means of rows x (N, D) by the labels of `features`; for an empty class, the mean of all rows.

    Weighted where `features` are; a class whose rows all have weight 0 is empty. `prep` acts on the rows first.
    """
    classes, weight = len(features.counts), features.weight
    n = torch.bincount(features.y, weights=weight, minlength=classes).double()
    sums = torch.zeros(classes, x.shape[1], dtype=torch.float64, device=x.device)
    for part, rows in _blocks(x):
        rows = rows if prep is None else prep(rows)
        sums.index_add_(0, features.y[part], rows if weight is None else rows * weight[part].unsqueeze(-1))
    means = sums / torch.where(n > 0, n, 1.0).unsqueeze(-1)
    return torch.where((n > 0).unsqueeze(-1), means, sums.sum(dim=0) / n.sum())


def _blocks(x: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """(rows, float64 values (n, D)) of a view (N, D) that may be larger than memory."""
    for part in row_slices(0, len(x), BLOCK // x.shape[1]):
        yield part, x[part].double()


@_once
def train_means(features: Features) -> Tensor:
    """`class_means` of the test-time view."""
    return class_means(features.x[0], features)


@_once
def _transformed(features: Features, transform: Transform) -> tuple[Prep | None, Tensor]:
    """The preparation of rows that a transform is, and the class means (C, D) of prepared rows."""
    if transform == "raw":
        return None, train_means(features)
    centre = None
    if transform == "cl2n":
        n = torch.bincount(features.y, weights=features.weight, minlength=len(features.counts)).double()
        centre = n @ train_means(features) / n.sum()
    prep = Prep(centre, unit=True)
    return prep, class_means(features.x[0], features, prep)


def ncm(*, transform: Transform = "cl2n", distance: Distance = "l2") -> Method:
    """Nearest class mean (Kang et al., ICLR 2020).

    Formula: -|f' - mu_k|^2 for `l2`, f' . mu_k for `dot`, f' . mu_k / |mu_k| for `cos`,
    f' the transformed features and mu_k their mean over class k.

    Features are taken with the test-time transform: `raw`; `l2n`, divided by their norm; `cl2n` (the default there),
    first centred on the mean of all training rows. Class means are means of transformed features and are not normalised
    again. `l2` is the head W = 2 mu, b = -|mu|^2 exactly. A class without rows has the mean of all rows.

    Neither the unit nor the origin of the features matters, save that `l2n`, and `raw` by `dot` or `cos`, measure from
    the origin.

    When to use it: without any training or stage-1 head, with very few rows per class, or where classes come and go.

    Paper and code: what the released code calls `cos` divides by the dimension, not by the norm of the mean; up to that
    constant factor it is `dot`.

    Raises: InputError for an unknown transform or distance.
    """
    if transform not in ("cl2n", "l2n", "raw") or distance not in ("l2", "dot", "cos"):
        raise InputError(
            f"ncm takes transform cl2n, l2n or raw and distance l2, dot or cos; got {transform!r} and {distance!r}"
        )
    return partial(_ncm, transform=transform, distance=distance)


def _ncm(problem: Problem, seed: int = 0, *, transform: Transform, distance: Distance) -> Head:
    train = problem.train
    prep, means = _transformed(train, transform)
    norms = means.norm(dim=-1, keepdim=True)
    weight, bias = {
        "l2": (2 * means, -norms.squeeze(-1).square()),
        "dot": (means, torch.zeros_like(norms.squeeze(-1))),
        "cos": (means / norms.clamp_min(torch.finfo(norms.dtype).tiny), torch.zeros_like(norms.squeeze(-1))),
    }[distance]
    return Head(weight, bias, prep).to(train.dtype)


def lda(*, shrinkage: float | Shrinkage = "ledoit_wolf", prior: Literal["uniform", "train"] = "uniform") -> Method:
    """Linear discriminant analysis with a shrunk covariance (training-free baseline of Wang et al., ICLR 2024).

    Formula: w_k = S'^-1 mu_k, b_k = -mu_k' S'^-1 mu_k / 2, plus log prior_k for `prior="train"`,
    S' = (1 - a) S + a tr(S) / D I, S the pooled within-class covariance.

    `shrinkage` a lies in (0, 1], or is found by the formula of Ledoit and Wolf on the rows centred by class, or is the
    published one of that baseline, `empirical_bayes`: a = D / (N - 1 + D) for N rows (the sum of their weights) of D
    features. A class without rows has the mean of all rows.

    When to use it: on features of a pretrained model that never saw the rows; rare classes borrow the covariance of
    all. Within-class scatter of memorised rows is not that of new ones, so expect less there.

    Paper and code: the published shrinkage is not the default, and its logits are on another scale there; predictions
    are those of `empirical_bayes`.

    Raises: InputError for a shrinkage outside (0, 1], or rows that do not vary within their classes.
    """
    named = isinstance(shrinkage, str) and shrinkage in SHRINKAGES
    if not named and not (isinstance(shrinkage, float | int) and 0 < shrinkage <= 1):
        raise InputError(f"shrinkage must lie in (0, 1] or be one of {', '.join(SHRINKAGES)}; got {shrinkage!r}")
    if prior not in ("uniform", "train"):
        raise InputError(f"prior must be 'uniform' or 'train', got {prior!r}")
    return partial(_lda, shrinkage=shrinkage, prior=prior)


class Within(NamedTuple):
    """Class means (C, D); covariance (D, D) of rows around them, weighted; and what says how sure it is.

    `rows` is the sum of the weights, `square` and `fourth` the means of |x|^2 of the rows and of |x - mu|^4.
    """

    means: Tensor
    covariance: Tensor
    rows: float
    square: float
    fourth: float


@_once
def _within(features: Features) -> Within:
    means = train_means(features)
    weight, dim = features.weight, features.dim
    covariance = torch.zeros(dim, dim, dtype=torch.float64, device=means.device)
    sums = torch.zeros(3, dtype=torch.float64, device=means.device)
    for part, x in _blocks(features.x[0]):
        w = x.new_ones(len(x)) if weight is None else weight[part]
        centred = x - means[features.y[part]]
        covariance.addmm_(centred.T, centred if weight is None else centred * w.unsqueeze(-1))
        lengths = centred.square().sum(dim=-1)
        sums += torch.stack([w.sum(), w @ x.square().sum(dim=-1), w @ lengths.square()])
    rows, square, fourth = sums.tolist()
    return Within(means, covariance / rows, rows, square / rows, fourth / rows)


def _lda(problem: Problem, seed: int = 0, *, shrinkage: float | str, prior: str) -> Head:
    train = problem.train
    found = _within(train)
    means, covariance = found.means, found.covariance
    level = covariance.trace() / train.dim
    if not level > torch.finfo(torch.float64).eps * found.square / train.dim:  # what rounding alone leaves
        raise InputError("lda needs rows that differ within their classes; every class here is a single point")
    a = SHRINKAGES[shrinkage](found) if isinstance(shrinkage, str) else float(shrinkage)
    shrunk = (1 - a) * covariance + a * level * torch.eye(train.dim, dtype=covariance.dtype, device=covariance.device)
    weight = torch.linalg.solve(shrunk, means.T).T
    bias = -(weight * means).sum(dim=-1) / 2
    return Head(weight, bias + train.counts.prior.log().to(bias) if prior == "train" else bias).to(train.dtype)


def _ledoit_wolf(found: Within) -> float:
    """The shrinkage of Ledoit and Wolf (2004) for rows centred by class; at least 1e-6.

    Exactly 0 would leave a singular covariance unrepaired when there are fewer rows than features.
    """
    scatter = found.covariance.square().sum()
    distance = scatter - found.covariance.trace().square() / len(found.covariance)
    noise = (found.fourth - scatter) / found.rows
    return max(float((noise.clamp(max=distance) / distance).clamp_min(0)), 1e-6) if distance > 0 else 1e-6


def _empirical_bayes(found: Within) -> float:
    """The share of the identity in (N - 1) S + tr(S) I, whose inverse the training-free baseline uses."""
    dim = len(found.covariance)
    return dim / (max(found.rows - 1, 0) + dim)


SHRINKAGES: Mapping[str, Callable[[Within], float]] = MappingProxyType(
    {"ledoit_wolf": _ledoit_wolf, "empirical_bayes": _empirical_bayes}
)
