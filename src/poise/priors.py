"""Class priors: stated, compared, and estimated from rows without labels.

A softmax is meant for one class prior. Where the prior of deployment differs, `log(target / source)` added to the
logits is all that changes (Saerens et al., Neural Computation 2002). Everything here is float64 and pure.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from poise.errors import InputError
from poise.values.checks import check_one_of
from poise.values.counts import ClassCounts, as_counts, as_labels

__all__ = [
    "Sweep",
    "as_prior",
    "divergence",
    "estimate_prior",
    "matching_strength",
    "mean_softmax",
    "prediction_frequencies",
    "prior_shift",
    "prior_sweep",
]

Value = TypeVar("Value")  # a strength: a number, or a whole setting
SUM_TOLERANCE = 1e-4
SMALLEST = 1e-12  # what a class without mass counts as in logarithms, so that shifts stay finite


def as_prior(prior: Any, counts: ClassCounts | Tensor) -> Tensor:
    """(C,) float64 class prior: "uniform", "train" (frequencies of the clamped counts), or an array that sums to 1.

    Raises: InputError for another word, a wrong length, a negative or infinite entry, or a sum off by over 1e-4.
    """
    counts = as_counts(counts)
    if isinstance(prior, str):
        if prior not in ("uniform", "train"):
            raise InputError(f"prior must be 'uniform', 'train' or one share per class, got {prior!r}")
        return counts.prior if prior == "train" else torch.full_like(counts.prior, 1 / len(counts))
    try:
        values = prior.detach().cpu() if isinstance(prior, Tensor) else np.array(prior, dtype=np.float64)
        given = torch.as_tensor(values).double()
    except (TypeError, ValueError):
        raise InputError(f"prior must be 'uniform', 'train' or one share per class, got {prior!r}") from None
    if given.shape != (len(counts),):
        raise InputError(f"prior needs one number per class, got shape {tuple(given.shape)} for {len(counts)} classes")
    bad = ~torch.isfinite(given) | (given < 0)
    if bad.any():
        k = int(bad.nonzero()[0])
        raise InputError(f"prior of class {k} is {float(given[k])}; shares are finite and 0 or more")
    total = float(given.sum())
    if abs(total - 1) > SUM_TOLERANCE:
        raise InputError(f"prior sums to {total:.6g}, not to 1; divide it by its sum")
    return given / total


def prior_shift(source: Tensor, target: Tensor) -> Tensor:
    """(C,) float64 log(target / source): added to logits meant for `source`, it makes them meant for `target`.

    Shares below 1e-12 count as 1e-12, so that the shift is finite for a class that one of the two leaves out.
    """
    source, target = (p.double().clamp_min(SMALLEST).log() for p in (source, target))
    return target - source


def mean_softmax(logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """(C,) float64 mean softmax over rows of logits (N, C), weighted by `weights` (N,) if there are any."""
    p = logits.double().softmax(dim=-1)
    if weights is None:
        return p.mean(dim=0)
    w = weights.to(p)
    return w @ p / w.sum()


def prediction_frequencies(logits: Tensor) -> Tensor:
    """(C,) float64 share of rows of logits (N, C) that are predicted as each class."""
    return torch.bincount(logits.argmax(dim=-1), minlength=logits.shape[-1]).double() / len(logits)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence () of two distributions (C,), in nats: 0 if equal, at most log 2, fine with zeros."""
    p, q = p.double(), q.double()
    middle = ((p + q) / 2).clamp_min(torch.finfo(torch.float64).tiny).log()
    halves: Tensor = torch.special.xlogy(p, p) - p * middle + torch.special.xlogy(q, q) - q * middle
    return halves.sum() / 2


# --- the prior of rows without labels ---------------------------------------------------------------------------------


def estimate_prior(
    logits: Tensor,
    source: Tensor,
    *,
    method: Literal["em", "bbse"] = "em",
    held_out: tuple[Tensor, Tensor] | None = None,
    steps: int = 1000,
    tolerance: float = 1e-8,
) -> Tensor:
    """(C,) float64 class prior of unlabelled rows, from their logits (N, C).

    `em` (Saerens et al., 2002) repeats posterior and mean from `source`, the prior (C,) for which the softmax is meant,
    at most `steps` times or until no share moves by more than `tolerance`; it needs calibrated logits. `bbse` (Lipton
    et al., ICML 2018) needs only a confusion matrix: `held_out` is (logits (M, C), labels (M,)) of labelled rows that
    the head never saw, and the shares are the non-negative least-squares solution of its linear system. A class without
    held-out rows keeps its share of `source`.

    Raises: InputError for no row, an unknown method, shapes that disagree, or `bbse` without held-out rows.
    """
    check_one_of("method", method, ("em", "bbse"))
    if logits.ndim != 2 or len(logits) == 0 or source.shape != logits.shape[1:]:
        raise InputError(
            f"logits must be (N, C) with at least one row and source (C,), got {tuple(logits.shape)} and "
            f"{tuple(source.shape)}"
        )
    if method == "em":
        return _em(logits.double(), source.double(), steps, tolerance)
    if held_out is None:
        raise InputError("bbse needs labelled rows that the head never saw: held_out=(logits, labels)")
    return _bbse(prediction_frequencies(logits), source.double(), *held_out)


def _em(logits: Tensor, source: Tensor, steps: int, tolerance: float) -> Tensor:
    log_p = logits.log_softmax(dim=-1)
    prior = source
    for _ in range(steps):
        after = (log_p + prior_shift(source, prior)).softmax(dim=-1).mean(dim=0)
        moved = (after - prior).abs().max()
        prior = after
        if moved <= tolerance:
            break
    return prior


def _bbse(frequencies: Tensor, source: Tensor, logits: Tensor, y: Tensor) -> Tensor:
    from scipy.optimize import nnls

    classes = len(source)
    y = as_labels(y, classes)
    if logits.shape != (len(y), classes):
        raise InputError(f"held-out logits must be ({len(y)}, {classes}), got {tuple(logits.shape)}")
    table = torch.bincount(y * classes + logits.argmax(dim=-1), minlength=classes**2).view(classes, classes).double()
    known = table.sum(dim=1) > 0
    kept = source[~known].sum()
    recalls = table[known] / table[known].sum(dim=1, keepdim=True)
    # The shares of the known classes sum to what the others leave; a heavy row holds the solver to that.
    system = torch.cat([recalls.T, torch.full((1, len(recalls)), 1e3, dtype=torch.float64)])
    # Nothing is known of how the other classes are predicted, so their rows are taken to be predicted as themselves.
    rest = frequencies - torch.where(known, 0.0, source)
    right = torch.cat([rest, 1e3 * (1 - kept).view(1)])
    solved = torch.from_numpy(nnls(system.numpy(), right.numpy())[0])
    prior = source.clone()
    prior[known] = solved / solved.sum() * (1 - kept)
    return prior


def matching_strength(marginal_of: Callable[[Value], Tensor], values: Iterable[Value], prior: Tensor) -> Value:
    """The one of `values` (strengths tau, t, delta ...) whose predicted marginal comes closest to `prior` (C,).

    `marginal_of(value)` is the marginal (C,) that a head of this strength predicts on unlabelled rows of the
    deployment: its `mean_softmax` or its `prediction_frequencies`. No label is read. Closest in the Jensen-Shannon
    divergence, which stays finite where a class is never predicted; the first of equals.

    Raises: InputError if there is no value.
    """
    tried = list(values)
    if not tried:
        raise InputError("there is no strength to choose from; give at least one value")
    # Rounding makes strengths equal that differ by less than the arithmetic can tell.
    return min(tried, key=lambda value: round(float(divergence(marginal_of(value), prior)), 12))


# --- accuracy against the assumed prior -------------------------------------------------------------------------------


class Sweep(NamedTuple):
    """Assumed priors `priors` (A, C) ~ train^exponent, and the accuracy (A,) expected under each."""

    exponents: Tensor
    priors: Tensor
    accuracy: Tensor


def prior_sweep(
    logits: Tensor,
    y: Tensor,
    counts: ClassCounts | Tensor,
    *,
    source: Tensor,
    exponents: Sequence[float] = (1.0, 0.75, 0.5, 0.25, 0.0, -0.25, -0.5, -0.75, -1.0),
) -> Sweep:
    """How accuracy depends on the prior of deployment, for a head that is shifted to it.

    For each exponent a the assumed prior is pi ~ train^a: 1 as in training, 0 uniform, -1 the tail as common as the
    head was. Logits (N, C) meant for `source` (C,) are shifted by log(pi / source), and the accuracy expected is
    sum_k pi_k recall_k over the classes that have rows in `y` (N,), pi renormalised over them.

    Raises: InputError if shapes disagree or there is no row.
    """
    counts = as_counts(counts)
    y = as_labels(y, len(counts))
    if len(y) == 0 or logits.shape != (len(y), len(counts)):
        raise InputError(f"logits must be ({len(y)}, {len(counts)}) with at least one row, got {tuple(logits.shape)}")
    powers = torch.as_tensor(exponents, dtype=torch.float64)
    priors = (powers.unsqueeze(-1) * counts.prior.log()).softmax(dim=-1)
    rows = torch.bincount(y, minlength=len(counts)).double()

    def expected(prior: Tensor) -> Tensor:
        right = (logits.double() + prior_shift(source, prior)).argmax(dim=-1) == y
        recall = torch.bincount(y, weights=right.double(), minlength=len(counts)) / rows.clamp_min(1)
        mass = torch.where(rows > 0, prior, 0.0)
        return (mass * recall).sum() / mass.sum()

    return Sweep(powers, priors, torch.stack([expected(prior) for prior in priors]))
