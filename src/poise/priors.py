"""Class priors: stated, compared, and estimated from rows without labels.

A softmax is meant for one class prior. Where the prior of deployment differs, `log(target / source)` added to the
logits is all that changes (Saerens et al., Neural Computation 2002). Everything here is float64 and pure.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from poise.errors import InputError, PoiseWarning
from poise.values.checks import check_one_of
from poise.values.counts import ClassCounts, as_counts, as_labels

__all__ = [
    "Shift",
    "Sweep",
    "as_prior",
    "divergence",
    "estimate_prior",
    "find_shift",
    "matching_strength",
    "mean_softmax",
    "prediction_frequencies",
    "prior_shift",
    "prior_sweep",
]

Value = TypeVar("Value")  # a strength: a number, or a whole setting
SUM_TOLERANCE = 1e-4
SMALLEST = 1e-12  # what a class without mass counts as in logarithms, so that shifts stay finite
SINGULAR = 1e-6  # least over largest singular value, below which a confusion matrix cannot be inverted
SHIFT_LEVEL = 0.01  # of the test for a shift
SHIFT_STRENGTH = 2.0  # rows per class that the source prior counts as beside a batch; experiments/results/adapt.md


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
    strength: float = 0.0,
    steps: int = 1000,
    tolerance: float = 1e-8,
) -> Tensor:
    """(C,) float64 class prior of unlabelled rows, from their logits (N, C).

    `em` (Saerens et al., 2002) repeats posterior and mean from `source`, the prior (C,) for which the softmax is meant,
    at most `steps` times or until no share moves by more than `tolerance`; it needs calibrated logits. With `strength`
    it is the maximum a posteriori under a Dirichlet prior around `source` (ours, not in the paper): as if `strength`
    times C labelled rows had come along, with the shares of `source`. A class of share 0 keeps it.

    `bbse` (Lipton et al., ICML 2018) needs only a confusion matrix: `held_out` is (logits (M, C), labels (M,)) of
    labelled rows that the head never saw, and the shares are the non-negative least-squares solution of its linear
    system. A class without held-out rows keeps its share of `source`; a matrix that cannot be inverted, as of a head
    that always gives the same answer, gives `source` and a PoiseWarning.

    Estimates of few rows are bold: `find_shift` says whether there is anything to estimate.

    Raises: InputError for no row, logits that are not finite, an unknown method, a source that is no prior, shapes that
    disagree, or `bbse` without held-out rows.
    """
    check_one_of("method", method, ("em", "bbse"))
    if logits.ndim != 2 or len(logits) == 0 or source.shape != logits.shape[1:]:
        raise InputError(
            f"logits must be (N, C) with at least one row and source (C,), got {tuple(logits.shape)} and "
            f"{tuple(source.shape)}"
        )
    _check_finite(logits, "the logits")
    as_prior(source, torch.ones(len(source)))
    if not 0 <= strength < float("inf"):
        raise InputError(f"strength is a number of rows per class, 0 or more and finite, got {strength}")
    if method == "em":
        return _em(logits.double(), source.double(), strength, steps, tolerance)
    if held_out is None:
        raise InputError("bbse needs labelled rows that the head never saw: held_out=(logits, labels)")
    return _bbse(prediction_frequencies(logits), source.double(), *held_out)


def _check_finite(logits: Tensor, what: str) -> None:
    bad = ~torch.isfinite(logits).all(dim=-1)
    if bad.any():
        raise InputError(f"row {int(bad.nonzero()[0])} of {what} is not finite; drop it or mend its features")


def _em(logits: Tensor, source: Tensor, strength: float, steps: int, tolerance: float) -> Tensor:
    # A class of share 0 has no likelihood to be told from its posterior, so it takes no part.
    log_p = logits.masked_fill(source == 0, -torch.inf).log_softmax(dim=-1)
    rows, extra = len(logits), strength * len(source)
    prior = source
    for _ in range(steps):
        mean = (log_p + prior_shift(source, prior)).softmax(dim=-1).mean(dim=0)
        after = (rows * mean + extra * source) / (rows + extra) if extra else mean
        moved = (after - prior).abs().max()
        prior = after
        if moved <= tolerance:
            break
    return prior


def _bbse(frequencies: Tensor, source: Tensor, logits: Tensor, y: Tensor) -> Tensor:
    from scipy.optimize import nnls

    classes = len(source)
    y = as_labels(y, classes)
    # The native solver ends the interpreter on an empty system.
    if logits.shape != (len(y), classes) or len(y) == 0:
        raise InputError(
            f"held-out logits must be (M, {classes}) with a label each and at least one row, got "
            f"{tuple(logits.shape)} and {len(y)} labels"
        )
    _check_finite(logits, "the held-out logits")
    table = torch.bincount(y * classes + logits.argmax(dim=-1), minlength=classes**2).view(classes, classes).double()
    known = table.sum(dim=1) > 0
    kept = source[~known].sum()
    recalls = table[known] / table[known].sum(dim=1, keepdim=True)
    spread = torch.linalg.svdvals(recalls)
    if spread[-1] < SINGULAR * spread[0]:
        warnings.warn(
            "the confusion matrix cannot be inverted: the held-out rows of some classes are answered alike; the prior "
            "stays that of the source",
            PoiseWarning,
            stacklevel=3,
        )
        return source.clone()
    # The shares of the known classes sum to what the others leave; a heavy row holds the solver to that.
    system = torch.cat([recalls.T, torch.full((1, len(recalls)), 1e3, dtype=torch.float64)])
    # Nothing is known of how the other classes are predicted, so their rows are taken to be predicted as themselves.
    rest = frequencies - torch.where(known, 0.0, source)
    right = torch.cat([rest, 1e3 * (1 - kept).view(1)])
    solved = torch.from_numpy(nnls(system.numpy(), right.numpy())[0])
    prior = source.clone()
    prior[known] = solved / solved.sum() * (1 - kept) if solved.sum() > 0 else source[known]
    return prior


@dataclass(frozen=True)
class Shift:
    """What a batch of unlabelled rows says of its class prior.

    `found`: is it another one than assumed? `prior` (C,): the estimate if so, else the prior that was assumed. `p`: the
    chance of so much evidence without a shift; `statistic`: twice the log likelihood ratio, discounted for what is
    known of the head; `rows`: those of the batch.
    """

    found: bool
    prior: tuple[float, ...]
    statistic: float
    p: float
    rows: int

    def __str__(self) -> str:
        rows = f"{self.rows} {'row' if self.rows == 1 else 'rows'}"
        if self.found:
            return f"a shift of the class prior was found in {rows} (p = {self.p:.2g}); the estimate was applied"
        return f"no shift of the class prior was found in {rows} (p = {self.p:.2g}); the prior stays"


def find_shift(
    logits: Tensor,
    source: Tensor,
    *,
    evidence: float = float("inf"),
    level: float = SHIFT_LEVEL,
    strength: float = SHIFT_STRENGTH,
) -> Shift:
    """Do unlabelled rows, by their logits (N, C), come from another class prior than `source` (C,)? And from which?

    A likelihood ratio test (Wilks, 1938): twice the log likelihood of the plain EM estimate less that of no shift,
    against chi-square with C - 1 degrees of freedom; a shift is found where p is below `level`. The estimate is then
    the EM of the given `strength`, otherwise the source. Deviation, for a head that is itself an estimate: the
    statistic is multiplied by M / (M + N), as in a comparison of two samples, where `evidence` M is the (effective)
    number of labelled rows that say that its posteriors are right. A bias of the posteriors is taken for a shift, so
    correct it before. How often it errs: experiments/results/adapt.md.

    Raises: InputError as `estimate_prior`.
    """
    from scipy.stats import chi2

    plain = estimate_prior(logits, source)
    log_p = logits.double().masked_fill(source == 0, -torch.inf).log_softmax(dim=-1)

    def likelihood(prior: Tensor) -> float:
        return float((log_p + prior_shift(source, prior)).logsumexp(dim=-1).sum())

    rows = len(logits)
    trust = evidence / (evidence + rows) if evidence != float("inf") else 1.0
    statistic = max(0.0, 2 * trust * (likelihood(plain) - likelihood(source)))
    p = float(chi2.sf(statistic, max(1, int((source > 0).sum()) - 1)))
    found = p < level
    prior = estimate_prior(logits, source, strength=strength) if found else source.double()
    return Shift(found, tuple(prior.tolist()), statistic, p, rows)


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
