"""The head of `method="auto"`: few candidates, averaged by how they do on rows that none of them was fitted on.

All candidates are linear on columns of mean 0 and variance 1, so their average is one linear head and costs no more at
prediction. An average has no edge where one candidate takes over from another: rows that differ by rounding, by their
order or by the names of their classes get the same answers.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from poise import losses
from poise.deployment.calibration import Evidence, Trial, calibrate, evidence, judged, weights_to
from poise.deployment.columns import Columns
from poise.deployment.promise import parts
from poise.errors import InputError, PoiseWarning
from poise.heads.converged import fit_path
from poise.methods import build
from poise.priors import prior_shift
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Method, Problem
from poise.values.spec import Spec

# Penalties on the scaled features. More of them, or more losses, changed the mean over the development half of
# benchmarks/choice_sets.py by less than its noise, and cost their time.
CROSS, WEIGHTED, BALANCED = (1e-4,), (1e-3,), (1e-4, 1e-5)
BETA = 0.999999  # of class-balanced weights: one over the number of rows, up to classes of some 100,000
SEARCH_TOLERANCE = 1e-4  # of the gradient while candidates are compared; those averaged are fitted to FINAL_TOLERANCE
FINAL_TOLERANCE = 1e-6
SEARCH_STEPS = 200
NEVER = 1e6  # NLL of a candidate that cannot be fitted: finite, as a class of share 0 has weight 0
# Rows times features times classes from which float32 does for the comparison: half the time, and as good to compare.
MANY_NUMBERS = 10**7


class Candidate(NamedTuple):
    """A method and the prior for which its softmax is taken to be meant."""

    spec: Spec
    meant: Literal["train", "uniform"]


def _of_loss(loss: str, decays: Sequence[float], **params: Any) -> list[Spec]:
    return [Spec("converged", loss=loss, weight_decay=decay, **params) for decay in decays]


ALONE = (
    Spec("lda"),
    Spec("lda", shrinkage="empirical_bayes"),
    Spec("lda", shrinkage=0.001),  # where directions of little variance tell the classes apart
    Spec("ncm", transform="raw"),
)
TAU = 0.5  # of the tau-norm that follows cross-entropy
_CROSS = _of_loss("cross_entropy", CROSS)
_UNIFORM = [
    *_of_loss("class_balanced", WEIGHTED, beta=BETA),
    *_of_loss("balanced_softmax", BALANCED),
    *ALONE,
    _CROSS[0] + Spec("tau_norm", tau=TAU),
]
# Cross-entropy is shifted from the training prior to the target like any other: for uniform classes that is logistic
# regression less the log prior.
CANDIDATES = (*(Candidate(spec, "train") for spec in _CROSS), *(Candidate(spec, "uniform") for spec in _UNIFORM))


def candidate_heads(train: Features, tolerance: float = SEARCH_TOLERANCE) -> list[Head | None]:
    """One head per entry of `CANDIDATES`, for the columns as they are; None for one that these rows do not allow."""
    columns = Columns.of(train)
    scaled = columns.enter(train)
    problem = Problem(scaled)
    rows, back = _row_space(scaled)
    cross, weighted, balanced = (
        [back(head) for head in _path(rows, loss, decays, tolerance)]
        for loss, decays in (
            (losses.cross_entropy(), CROSS),
            (losses.class_balanced(beta=BETA), WEIGHTED),
            (losses.balanced_softmax(), BALANCED),
        )
    )
    alone = [_attempt(build(spec.name, **dict(spec.params)), problem) for spec in ALONE]
    normed = build("tau_norm", tau=TAU)(replace(problem, head=cross[0]))
    heads = [*cross, *weighted, *balanced, *alone, normed]
    return [None if head is None else columns.leave(head) for head in heads]


def _row_space(train: Features) -> tuple[Features, Callable[[Head], Head]]:
    """Rows of more columns than rows by their coordinates in the space they span, and the way back for a linear head.

    The penalty is on |W|^2, so the optimum lies in that space: the heads are the same, and found in less time.
    """
    if train.dim <= len(train):
        return train, lambda head: head
    u, s, basis = torch.linalg.svd(train.x[0], full_matrices=False)
    return replace(train, x=u * s), lambda head: Head(head.weight @ basis, head.bias)


def _path(train: Features, loss: losses.Loss, decays: Sequence[float], tolerance: float) -> list[Head]:
    large = len(train) * train.dim * len(train.counts) >= MANY_NUMBERS
    dtype = torch.float32 if large else torch.float64
    least = max(tolerance, 1e-5) if large else tolerance  # float32 gets no further
    with warnings.catch_warnings(action="ignore", category=PoiseWarning):  # a candidate need not be exact
        path = fit_path(train, loss, decays, tolerance=least, max_steps=SEARCH_STEPS, dtype=dtype)
    return [found.head for found in path]


def _attempt(method: Method, problem: Problem) -> Head | None:
    try:
        return method(problem)
    except InputError:  # lda on rows that do not vary
        return None


# --- weights ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A head of the average: its method, its weight, and its recall and NLL on unseen rows under the target prior."""

    method: str
    weight: float
    recall: float
    nll: float


class Choice(NamedTuple):
    """Weights (K,), sum 1, and temperatures (K,) of the candidates, 0 for one that cannot be fitted.

    `seen` are the averaged logits of unseen rows, meant for the target prior; `right` (N,) says how right an average is
    on them that owes nothing to being made there; `parts` tells the story, the heaviest first.
    """

    weights: Tensor
    temperatures: Tensor
    seen: Evidence
    right: Tensor
    parts: tuple[Part, ...]


def choose(trials: Sequence[Trial], train_prior: Tensor, target: Tensor) -> Choice:
    """The average of the candidates, each calibrated and shifted to the prior `target` (C,), on unseen rows.

    The weight of a candidate falls with its NLL under the target, exp(-sqrt(N) NLL) for N units of unseen rows. That is
    the forecaster of exponential weights at its learning rate, in the order of 1 / sqrt(N) for a sum of N losses
    (Cesa-Bianchi and Lugosi, 2006, section 2.3), without its constant: near ties are shared, and a candidate that is
    clearly worse has no say.
    """
    rows = judged(trials)
    temperatures = torch.zeros(len(CANDIDATES), dtype=torch.float64)
    nll = torch.full((len(CANDIDATES), len(rows.y)), NEVER, dtype=torch.float64)
    hits = torch.zeros_like(nll)
    for k in range(len(CANDIDATES)):
        seen = evidence(trials, k)
        if seen is not None:
            temperatures[k], _ = calibrate(seen, train_prior, _meant(k, train_prior))
            logits = _shifted(seen.logits, k, temperatures, train_prior, target)
            nll[k] = torch.nn.functional.cross_entropy(logits, seen.y, reduction="none")
            hits[k] = (logits.argmax(dim=-1) == seen.y).double()
    rate = len(torch.unique(rows.units)) ** 0.5
    part = parts(rows)
    each = weights_to(rows.y, rows.weight, target)
    weights = _weights(nll @ each, rate)
    # What the other rows would have made of it, for the promise: every part is judged by the weights of the others.
    apart = [part != number for number in range(int(part.max()) + 1)]
    fair = torch.stack(
        [_weights(nll[:, some] @ weights_to(rows.y[some], rows.weight[some], target), rate) for some in apart]
    )
    average, others = (torch.zeros(len(rows.y), len(target), dtype=torch.float64) for _ in range(2))
    for k in (weights + fair.sum(dim=0)).nonzero().flatten().tolist():
        seen = evidence(trials, k)  # made again: the logits of all candidates together may be more than memory holds
        assert seen is not None  # what cannot be fitted has no weight
        logits = _shifted(seen.logits, k, temperatures, train_prior, target).log_softmax(dim=-1)
        average += weights[k] * logits
        others += fair[part, k].unsqueeze(-1) * logits
    recall, total = hits @ each, nll @ each
    told = [
        Part(str(CANDIDATES[k].spec), float(weights[k]), float(recall[k]), float(total[k]))
        for k in weights.argsort(descending=True, stable=True).tolist()
        if weights[k] > 0
    ]
    right = (others.argmax(dim=-1) == rows.y).double()
    return Choice(weights, temperatures, Evidence(average, rows.y, rows.weight), right, tuple(told))


def averaged(heads: Sequence[Head | None], choice: Choice, train_prior: Tensor, target: Tensor) -> Head:
    """The one head that is the average of the candidates' heads, in float64: its softmax is meant for the target."""
    weight: Any = 0.0
    bias: Any = 0.0
    for k in choice.weights.nonzero().flatten().tolist():
        head = heads[k]
        if head is None:  # fitted on other rows than those that gave the weights
            continue
        plain = head.to(torch.float64).folded().scaled(1 / float(choice.temperatures[k]))
        plain = plain.shifted(prior_shift(_meant(k, train_prior), target))
        weight, bias = weight + choice.weights[k] * plain.weight, bias + choice.weights[k] * plain.bias
    return Head(weight, bias)


def _meant(k: int, train_prior: Tensor) -> Tensor:
    uniform = torch.full_like(train_prior, 1 / len(train_prior))
    return train_prior if CANDIDATES[k].meant == "train" else uniform


def _shifted(logits: Tensor, k: int, temperatures: Tensor, train_prior: Tensor, target: Tensor) -> Tensor:
    return logits / temperatures[k] + prior_shift(_meant(k, train_prior), target)


def _weights(nll: Tensor, rate: float) -> Tensor:
    """(K,) weights of mean NLLs (K,); those below a thousandth are none, so that the rest are worth their fits."""
    found = (-rate * nll).softmax(dim=0)
    kept = torch.where(found < 1e-3, 0.0, found)
    return kept / kept.sum()
