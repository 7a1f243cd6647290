"""The honest protocol of `method="auto"`: few candidates, compared on rows that none of them was fitted on."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from poise import losses
from poise.deployment.calibration import Trial, calibrate, evidence, row_weights, weights_to
from poise.errors import InputError, PoiseWarning
from poise.heads.converged import fit_path
from poise.methods import build
from poise.priors import prior_shift
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Method, Problem
from poise.values.spec import Spec

# Penalties on the scaled features, from strong to weak: each fit starts from the one before.
DECAYS = (1e-3, 1e-4, 1e-5, 1e-6)
BALANCED_DECAYS = (1e-3, 1e-5)
TAUS = (0.5, 1.5)
NORM_TAUS = (0.5, 1.0)
SEARCH_TOLERANCE = 1e-4  # of the gradient while candidates are compared; the chosen one is fitted anew, exactly
SEARCH_STEPS = 200
# Rows times features times classes from which float32 does for the comparison: half the time, and as good to compare.
MANY_NUMBERS = 10**7


class Candidate(NamedTuple):
    """A method and the prior for which its softmax is taken to be meant."""

    spec: Spec
    meant: Literal["train", "uniform"]


def _candidates() -> tuple[Candidate, ...]:
    """The simple ones first: of equals, the first is taken.

    Cross-entropy is shifted from the training prior to the target like any other, which for uniform classes is logit
    adjustment with tau = 1; the other strengths stand for a head that is balanced more or less than that.
    """
    fits = [Spec("converged", loss="cross_entropy", weight_decay=decay) for decay in DECAYS]
    balanced = [Spec("converged", loss="balanced_softmax", weight_decay=decay) for decay in BALANCED_DECAYS]
    alone = [Spec("ncm", transform="raw"), Spec("lda")]
    uniform = [*balanced, *alone, *(fit + step for fit in fits for step in _steps())]
    return (*(Candidate(fit, "train") for fit in fits), *(Candidate(spec, "uniform") for spec in uniform))


def _steps() -> list[Spec]:
    """What follows a converged cross-entropy head in closed form."""
    adjusted = [Spec("logit_adjustment", tau=tau) for tau in TAUS]
    return [*adjusted, *(Spec("tau_norm", tau=tau) for tau in NORM_TAUS)]


CANDIDATES = _candidates()


def candidate_heads(train: Features) -> list[Head | None]:
    """One head per entry of `CANDIDATES`; None for one that these rows do not allow."""
    problem = Problem(train)
    fits = _path(train, losses.cross_entropy(), DECAYS)
    balanced = _path(train, losses.balanced_softmax(), BALANCED_DECAYS)
    alone = [_attempt(build("ncm", transform="raw"), problem), _attempt(build("lda"), problem)]
    steps = [build(step.name, **dict(step.params)) for step in _steps()]
    adjusted = [step(replace(problem, head=head)) for head in fits for step in steps]
    return [*fits, *balanced, *alone, *adjusted]


def _path(train: Features, loss: losses.Loss, decays: Sequence[float]) -> list[Head]:
    large = len(train) * train.dim * len(train.counts) >= MANY_NUMBERS
    dtype = torch.float32 if large else torch.float64
    with warnings.catch_warnings(action="ignore", category=PoiseWarning):  # a candidate need not be exact
        path = fit_path(train, loss, decays, tolerance=SEARCH_TOLERANCE, max_steps=SEARCH_STEPS, dtype=dtype)
    return [found.head for found in path]


def _attempt(method: Method, problem: Problem) -> Head | None:
    try:
        return method(problem)
    except InputError:  # lda on rows that do not vary
        return None


class Compared(NamedTuple):
    """Of every candidate and unseen row: is it predicted right, and its NLL under the target prior, both (K, N).

    Beside them the labels (N,) and weights (N,) of the rows.
    """

    hits: Tensor
    nll: Tensor
    y: Tensor
    weight: Tensor


class Choice(NamedTuple):
    """The number of a candidate, its temperature, the prior (C,) for which its softmax is then meant.

    `compared` is what it was chosen by.
    """

    candidate: int
    temperature: float
    implied: Tensor
    compared: Compared


def choose(trials: Sequence[Trial], train_prior: Tensor, target: Tensor) -> Choice:
    """The `best_of` the candidates on unseen rows, each calibrated and shifted to the prior `target` (C,).

    They are compared as they will be used.
    """
    priors = {"train": train_prior, "uniform": torch.full_like(target, 1 / len(target))}
    found = [_trial_of(trials, k, train_prior, priors[c.meant], target) for k, c in enumerate(CANDIDATES)]
    y = torch.cat([trial.test.y for trial in trials])
    weight = torch.cat([row_weights(trial.test) for trial in trials])
    none, never = torch.zeros(len(y), dtype=torch.float64), torch.full((len(y),), math.inf, dtype=torch.float64)
    hits = torch.stack([none if one is None else one.hits for one in found])
    nll = torch.stack([never if one is None else one.nll for one in found])
    compared = Compared(hits, nll, y, weight)
    best = best_of(compared, target)
    chosen = found[best]
    assert chosen is not None  # cross-entropy can always be fitted
    return Choice(best, chosen.temperature, priors[CANDIDATES[best].meant], compared)


def best_of(compared: Compared, target: Tensor, rows: Tensor | None = None) -> int:
    """The candidate of the highest recall, weighted by the prior `target` (C,) over the classes that have rows.

    Candidates within one standard error of the paired difference to the best are tied. Of these, NLL under the target
    decides in the same way: the first candidate, simple ones standing before others, that lies within one standard
    error of the least NLL is taken, so that rounding and a handful of rare rows do not choose. With `rows` (N,) bool,
    only those count.
    """
    hits, nll, y, weight = compared if rows is None else (part[..., rows] for part in compared)
    each = weights_to(y, weight, target)  # what a row adds to the weighted recall
    score = hits @ each
    behind = hits[int(score.argmax())] - hits
    mass = torch.bincount(y, weights=weight, minlength=len(target))
    mean = torch.zeros(len(hits), len(target), dtype=torch.float64).index_add(1, y, behind * weight)
    spread = (behind - mean[:, y] / mass[y]).square() @ (each.square() / weight)
    tied = score.max() - score <= spread.sqrt() + 1e-12
    total = torch.where(tied, nll @ each, math.inf)
    beyond = nll - nll[int(total.argmin())]
    gap = beyond @ each
    noise = (beyond.square() @ (each.square() / weight) - gap.square() / len(y)).clamp_min(0).sqrt()
    return int((tied & (gap <= noise + 1e-9)).nonzero()[0])


class _Result(NamedTuple):
    """Whether unseen rows are predicted right (N,), their NLL (N,) under the target prior, and the temperature used."""

    hits: Tensor
    nll: Tensor
    temperature: float


def _trial_of(
    trials: Sequence[Trial], candidate: int, train_prior: Tensor, meant: Tensor, target: Tensor
) -> _Result | None:
    seen = evidence(trials, candidate)
    if seen is None:
        return None
    temperature, _ = calibrate(seen, train_prior, meant)
    logits = seen.logits / temperature + prior_shift(meant, target)
    nll = torch.nn.functional.cross_entropy(logits, seen.y, reduction="none")
    return _Result((logits.argmax(dim=-1) == seen.y).double(), nll, temperature)
