"""Intervals for accuracies and for differences between methods on the same rows.

Two questions, two resamplings. `over="images"`: how would the number change with other images of the same classes? Rows
are drawn again within their class. `over="classes"`: how would it change with other classes of the same kind? Classes
are drawn again. The second is the wider one, because classes differ in difficulty. All methods are resampled together,
so that what they share cancels in a difference.

The measure is balanced accuracy, the mean of the recalls of the classes present. Intervals are bootstrap-t: the
estimate plus and minus its standard error times a quantile of the resampled |difference| / standard error; for several
methods at once the quantile is that of the largest of them, so that the intervals hold together.
"""

from statistics import NormalDist
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from poise.errors import InputError
from poise.results.scores import Interval

__all__ = [
    "Interval",
    "bootstrap_interval",
    "paired_difference",
    "plain_intervals",
    "recalls",
    "simultaneous_intervals",
]


Over = Literal["images", "classes"]

# Resamples of so few classes are too alike to tell how far estimates stray; Student's quantile bounds the width below.
FEW_CLASSES = 10
CACHED = 2**16  # numbers of resampled values at a time: half a megabyte


def recalls(correct: Tensor, y: Tensor) -> Tensor:
    """(..., K) float64 mean of correct (..., N) within each of the K classes that the labels y (N,) hold, ascending."""
    values, labels, sizes = _by_class(correct, y)
    sums = torch.zeros(*values.shape[:-1], len(sizes), dtype=torch.float64).index_add(-1, labels, values)
    return sums / sizes


def bootstrap_interval(
    correct: Tensor, y: Tensor, *, over: Over = "images", level: float = 0.95, rounds: int = 2000, seed: int = 0
) -> Interval:
    """Interval of the balanced accuracy of one method; `correct` (N,) says which rows it gets right.

    Raises: InputError if shapes disagree or an argument is out of range.
    """
    return simultaneous_intervals(correct.unsqueeze(0), y, over=over, level=level, rounds=rounds, seed=seed)[0]


def paired_difference(
    a: Tensor, b: Tensor, y: Tensor, *, over: Over = "images", level: float = 0.95, rounds: int = 2000, seed: int = 0
) -> Interval:
    """Interval of the balanced accuracy of `a` minus that of `b`, both (N,) on the same rows.

    Raises: InputError if shapes disagree or an argument is out of range.
    """
    return bootstrap_interval(a.double() - b.double(), y, over=over, level=level, rounds=rounds, seed=seed)


def simultaneous_intervals(
    values: Tensor, y: Tensor, *, over: Over = "images", level: float = 0.95, rounds: int = 2000, seed: int = 0
) -> list[Interval]:
    """Intervals (one per row of `values`) that hold all at once with probability `level`.

    `values` (M, N) are rows right or wrong, or differences of them to a baseline (in [-1, 1]). A row of equal values
    has an interval of no width.

    Raises: InputError if shapes disagree, `rounds` is below 100 or `level` is outside (0, 1).
    """
    check_values(values, y)
    check_rounds(level, rounds)
    if over not in ("images", "classes"):
        raise InputError(f"over must be 'images' or 'classes', got {over!r}")
    draw = _resample_images if over == "images" else _resample_classes
    by_class = _by_class(values, y)
    means, errors, studentised = draw(*by_class, rounds, np.random.default_rng(seed))
    width = float(studentised.abs().amax(dim=1).quantile(level)) if bool((errors > 0).any()) else 0.0
    classes = len(by_class[2])
    if over == "classes" and classes < FEW_CLASSES:
        width = max(width, _student(level, classes - 1, len(values)))
    return [Interval(m, m - width * e, m + width * e) for m, e in zip(means.tolist(), errors.tolist(), strict=True)]


def plain_intervals(values: Tensor, y: Tensor, *, level: float = 0.95) -> list[Interval]:
    """Intervals over images, one per row of `values` (M, N) in [0, 1], each for itself and without resampling.

    Wilson intervals: they stay within [0, 1] and have a width where all rows are right. The number of rows in them is
    the one that would give the mean over classes the variance it has; that variance is of shares with half a row right
    and half a row wrong added to every class. For tables of many scores; `simultaneous_intervals` is for what is
    concluded from.

    Raises: InputError if shapes disagree or `level` is outside (0, 1).
    """
    check_values(values, y)
    check_rounds(level, 100)
    right, labels, n = _by_class(values, y)
    hits = torch.zeros(len(right), len(n), dtype=torch.float64).index_add(-1, labels, right)
    smooth = (hits + 0.5) / (n + 1)
    share, mean = (hits / n).mean(dim=1), smooth.mean(dim=1)
    variance = (smooth * (1 - smooth) / n).sum(dim=1) / len(n) ** 2
    z = NormalDist().inv_cdf((1 + level) / 2)
    spread = z**2 * variance / (mean * (1 - mean))  # z^2 over the number of rows that the mean is worth
    centre = (share + spread / 2) / (1 + spread)
    width = (spread * share * (1 - share) + spread**2 / 4).sqrt() / (1 + spread)
    return [Interval(*row) for row in torch.stack([share, (centre - width), (centre + width)], dim=1).tolist()]


def check_values(values: Tensor, y: Tensor) -> None:
    """Raises: InputError unless values are (M, N) for N labels, at least one."""
    if values.ndim != 2 or values.shape[1] != len(y) or len(y) == 0:
        raise InputError(f"values must be (M, N) for the {len(y)} labels, got {tuple(values.shape)}")


def check_rounds(level: float, rounds: int) -> None:
    """Raises: InputError unless the level lies in (0, 1) and there are at least 100 resamples."""
    if not 0 < level < 1 or rounds < 100:
        raise InputError(f"level must lie in (0, 1) and rounds be at least 100, got {level} and {rounds}")


def _student(level: float, freedom: int, methods: int) -> float:
    """Student's quantile for so many two-sided intervals at once (Sidak)."""
    from scipy import stats

    return float(stats.t.ppf((1 + level ** (1 / methods)) / 2, freedom))


Draws = tuple[Tensor, Tensor, Tensor]


def _by_class(values: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values in float64, labels as 0..K-1 without gaps, and rows per class (K,)."""
    _, labels, sizes = np.unique(y.cpu().numpy(), return_inverse=True, return_counts=True)
    return values.cpu().double(), torch.from_numpy(labels), torch.from_numpy(sizes).double()


def _resample_classes(values: Tensor, labels: Tensor, sizes: Tensor, rounds: int, rng: np.random.Generator) -> Draws:
    """Estimates (M,), standard errors (M,) and studentised resampled deviations (rounds, M)."""
    classes = len(sizes)
    if classes < 2:
        raise InputError("an interval over classes needs rows of at least two classes")
    per_class = torch.zeros(len(values), classes, dtype=torch.float64).index_add(-1, labels, values) / sizes
    means, errors = per_class.mean(dim=1), per_class.std(dim=1) / classes**0.5
    drawn, variance = _draw(per_class, torch.ones(classes), rounds, rng)
    return means, errors, _studentise(drawn, (variance / (classes - 1)).sqrt(), errors / 4)


def _resample_images(values: Tensor, labels: Tensor, sizes: Tensor, rounds: int, rng: np.random.Generator) -> Draws:
    """Estimates (M,), standard errors (M,) and studentised resampled deviations (rounds, M)."""
    methods, classes = len(values), len(sizes)
    means, variance = torch.zeros(methods, dtype=torch.float64), torch.zeros(methods, dtype=torch.float64)
    drawn, drawn_variance = (torch.zeros(rounds, methods, dtype=torch.float64) for _ in range(2))
    spread = torch.zeros(methods, dtype=torch.float64)  # mean variance of a row, for a row without company
    block = max(1, CACHED // methods)  # with all pairs of methods it is memory that costs
    strata = _strata(labels, sizes)
    for chosen, share in strata:
        rows, size = values[:, chosen], len(chosen)
        weight = share / classes
        means += rows.mean(dim=1) * weight
        if size == 1:
            continue
        unbiased = weight**2 / (size - 1)
        variance += rows.var(dim=1, correction=0) * unbiased
        spread += rows.var(dim=1) / len(strata)
        shares, deviations = _weights(*_kinds(rows), rounds, rng)
        squares = deviations.square()
        for first in range(0, rounds, block):
            some = slice(first, first + block)
            deviation = shares[some] @ deviations
            drawn[some].add_(deviation, alpha=weight)
            drawn_variance[some].addmm_(shares[some], squares, alpha=unbiased)
            drawn_variance[some].addcmul_(deviation, deviation, value=-unbiased)
    studentised = _studentise(drawn, drawn_variance.clamp_min_(0).sqrt(), variance.sqrt() / 2)
    alone = sum(len(chosen) == 1 for chosen, _ in strata)
    return means, (variance + alone * spread / classes**2).sqrt(), studentised


def _strata(labels: Tensor, sizes: Tensor) -> list[tuple[Tensor, int]]:
    """The rows of every stratum, and how many classes it stands for.

    A stratum is a class. A class of one row shows no variation of its own, so such classes form one stratum together,
    which errs on the side of width (collapsed strata of survey sampling).
    """
    parts = list(torch.split(labels.argsort(stable=True), sizes.long().tolist()))
    several = [part for part in parts if len(part) > 1]
    singles = [part for part in parts if len(part) == 1]
    return [*((part, 1) for part in several), *([(torch.cat(singles), len(singles))] if singles else [])]


def _kinds(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The different columns (M, K) of rows (M, n) in the order of their first appearance, and how often each occurs.

    Rows that every method treats alike are drawn together, since drawing is what costs.
    """
    columns = np.ascontiguousarray(rows.numpy().T) + 0.0  # -0.0 and 0.0 are one value with two byte patterns
    alike = columns.view(np.dtype((np.void, columns.itemsize * columns.shape[1]))).ravel()
    _, first, times = np.unique(alike, return_index=True, return_counts=True)
    order = np.argsort(first)
    return rows[:, first[order]], torch.from_numpy(times[order])


def _draw(values: Tensor, times: Tensor, rounds: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Deviations of the mean and variances (rounds, M) of resamples; column k of `values` (M, K) is `times[k]` rows."""
    shares, deviations = _weights(values, times, rounds, rng)
    means = shares @ deviations
    return means, (shares @ deviations.square() - means.square()).clamp_min(0)


def _weights(values: Tensor, times: Tensor, rounds: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Shares (rounds, K) of the kinds in resamples, and the deviations (K, M) of their values from the mean."""
    share = times.double() / times.sum()
    size = int(times.sum())
    drawn = torch.from_numpy(rng.multinomial(size, share.numpy(), size=rounds) / size)
    return drawn, (values - (values @ share).unsqueeze(1)).T


def _studentise(deviation: Tensor, error: Tensor, least: Tensor) -> Tensor:
    # A resample of few rows may show almost no variation of its own, and its ratio then means nothing.
    scale = torch.maximum(error, least)
    return torch.where(scale > 0, deviation / torch.where(scale > 0, scale, 1), 0)
