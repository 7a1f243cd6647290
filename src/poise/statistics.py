"""Intervals for accuracies and for differences between methods on the same rows.

Two questions, two resamplings. `over="images"`: how would the number change with other images of the same classes? Rows
are drawn again within their class. `over="classes"`: how would it change with other classes of the same kind? Classes
are drawn again. The second is mostly the wider one, because classes differ in difficulty, but need not be where
every class has few rows. All methods are resampled together, so that what they share cancels in a difference.

The measure is balanced accuracy, the mean of the recalls of the classes present. Intervals are bootstrap-t: the
estimate plus and minus its standard error times a quantile of the resampled |difference| / standard error; for several
methods at once the quantile is that of the largest of them, so that the intervals hold together.

A class of two rows that agree shows no variation, which does not mean that it has none. Such classes borrow theirs
(`class_variances`), and no interval is without width: a sample in which all rows agree may still be one of chance.
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
    "class_variances",
    "paired_difference",
    "plain_intervals",
    "recalls",
    "simultaneous_intervals",
]


Over = Literal["images", "classes"]

# Resamples of so few classes are too alike to tell how far estimates stray; Student's quantile bounds the width below.
FEW_CLASSES = 10
BORROWED = 4  # rows that what classes have in common weighs beside the rows of a class
CACHED = 2**16  # numbers of resampled values at a time: half a megabyte


def recalls(correct: Tensor, y: Tensor) -> Tensor:
    """(..., K) float64 mean of correct (..., N) within each of the K classes that the labels y (N,) hold, ascending."""
    return _means(*_by_class(correct, y))


def bootstrap_interval(
    correct: Tensor, y: Tensor, *, over: Over = "images", level: float = 0.95, rounds: int = 2000, seed: int = 0
) -> Interval:
    """Interval of the balanced accuracy of one method; `correct` (N,) says which rows it gets right.

    Raises: InputError if shapes disagree or an argument is out of range.
    """
    values = correct.unsqueeze(0)
    return simultaneous_intervals(values, y, over=over, level=level, rounds=rounds, seed=seed, lowest=0.0)[0]


def paired_difference(
    a: Tensor, b: Tensor, y: Tensor, *, over: Over = "images", level: float = 0.95, rounds: int = 2000, seed: int = 0
) -> Interval:
    """Interval of the balanced accuracy of `a` minus that of `b`, both (N,) on the same rows.

    Raises: InputError if shapes disagree or an argument is out of range.
    """
    values = (a.double() - b.double()).unsqueeze(0)
    return simultaneous_intervals(values, y, over=over, level=level, rounds=rounds, seed=seed)[0]


def simultaneous_intervals(
    values: Tensor,
    y: Tensor,
    *,
    over: Over = "images",
    level: float = 0.95,
    rounds: int = 2000,
    seed: int = 0,
    lowest: float = -1.0,
) -> list[Interval]:
    """Intervals (one per row of `values`) that hold all at once with probability `level`.

    `values` (M, N) lie in [`lowest`, 1]: differences of rows right or wrong to those of a baseline, or, with `lowest`
    0, rows right or wrong. No interval is without width, and none is narrower than a normal one.

    Raises: InputError if shapes disagree, `rounds` is below 100 or `level` is outside (0, 1).
    """
    check_values(values, y)
    check_rounds(level, rounds)
    if over not in ("images", "classes"):
        raise InputError(f"over must be 'images' or 'classes', got {over!r}")
    draw = _resample_images if over == "images" else _resample_classes
    rows, labels, sizes = _by_class(values, y)
    classes = len(sizes)
    per_class, studentised = draw(rows, labels, sizes, rounds, np.random.default_rng(seed))
    means, errors = per_class.mean(dim=1), _variances(rows, labels, sizes, lowest).sum(dim=1).sqrt() / classes
    width = max(float(studentised.abs().amax(dim=1).quantile(level)), NormalDist().inv_cdf((1 + level) / 2))
    if over == "classes":  # other classes come with other images, so that they cannot vary less
        errors = torch.maximum(errors, per_class.std(dim=1) / classes**0.5)
    if over == "classes" and classes < FEW_CLASSES:
        width = max(width, _student(level, classes - 1, len(values)))
    return [Interval(m, m - width * e, m + width * e) for m, e in zip(means.tolist(), errors.tolist(), strict=True)]


def class_variances(values: Tensor, y: Tensor, *, lowest: float = -1.0) -> Tensor:
    """(M, K) sampling variance of the mean of `values` (M, N) in each of the K classes that y (N,) holds, ascending.

    `values` lie in [`lowest`, 1]: 0 for rows right or wrong, -1 for differences of them. The variance of a row is
    estimated in two steps, so that few rows that agree do not pass for certainty:

    1. Pooled: each class counts its own unbiased variance as n - 1 rows and what classes have in common as `BORROWED`
       rows (moderated variances; Smyth 2004). In common is the mean over classes weighted by 1 / n, as they weigh in
       the variance of a balanced accuracy, whose sum is therefore that of the unbiased variances where classes are of
       one size. Classes of one row are one class together in this (collapsed strata of survey sampling).
    2. Mixed: the sample is taken as if it held a few rows more, half of them of the lowest value and half of the
       highest: for accuracies four (Agresti and Coull 1998), for differences one (as Agresti and Min 2005 have it for
       matched pairs). Classes share them by 1 / n again: among K classes of n rows each they are one in K n, but a
       class of two rows beside large ones has most of them, since nothing is known of how its rows differ. So no
       variance is 0.

    Deviations: the weight of what is in common is fixed, where Smyth estimates it from the spread of the variances; the
    rows added change the variance alone, not the mean. Both were settled by simulation (experiments/simulations.py).

    Raises: InputError if shapes disagree.
    """
    check_values(values, y)
    return _variances(*_by_class(values, y), lowest)


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


def _variances(values: Tensor, labels: Tensor, sizes: Tensor, lowest: float) -> Tensor:
    """`class_variances` (M, K) by parts of `_by_class`."""
    several, classes = sizes > 1, len(sizes)
    stratum = torch.where(several, torch.arange(classes), classes)  # the last one is that of all single rows
    empty = torch.zeros(len(values), classes + 1, dtype=torch.float64)
    rows = empty[0].index_add(0, stratum, sizes)
    means = empty.index_add(1, stratum[labels], values) / rows.clamp(min=1)
    squares = empty.index_add(1, stratum[labels], values.square()) - rows * means.square()
    known = (rows - 1).clamp(min=0)
    own = squares.clamp(min=0) / known.clamp(min=1)
    weight = (known > 0) * empty[0].index_add(0, stratum, 1 / sizes)
    common = (own @ weight).unsqueeze(1) / max(float(weight.sum()), 1e-300)  # 0 where no class has two rows
    moderated = (known * own + BORROWED * common) / (known + BORROWED)
    middle, reach = (1 + lowest) / 2, ((1 - lowest) / 2) ** 2
    added = 1 / (reach * sizes.square() * (1 / sizes).sum() + 1)  # share of the rows added: four at 1/2, or one at 1
    apart = (means[:, stratum] - middle).square()
    return ((1 - added) * (moderated[:, stratum] + added * apart) + added * reach) / sizes


def _student(level: float, freedom: int, methods: int) -> float:
    """Student's quantile for so many two-sided intervals at once (Sidak)."""
    from scipy import stats

    return float(stats.t.ppf((1 + level ** (1 / methods)) / 2, freedom))


Draws = tuple[Tensor, Tensor]  # means by class (M, K), and studentised deviations of resamples (rounds, M)


def _by_class(values: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values in float64, labels as 0..K-1 without gaps, and rows per class (K,)."""
    _, labels, sizes = np.unique(y.cpu().numpy(), return_inverse=True, return_counts=True)
    return values.cpu().double(), torch.from_numpy(labels), torch.from_numpy(sizes).double()


def _resample_classes(values: Tensor, labels: Tensor, sizes: Tensor, rounds: int, rng: np.random.Generator) -> Draws:
    classes = len(sizes)
    if classes < 2:
        raise InputError("an interval over classes needs rows of at least two classes")
    per_class = _means(values, labels, sizes)
    drawn, variance = _draw(per_class, torch.ones(classes), rounds, rng)
    least = per_class.std(dim=1) / classes**0.5 / 4
    return per_class, _studentise(drawn, (variance / (classes - 1)).sqrt(), least)


def _resample_images(values: Tensor, labels: Tensor, sizes: Tensor, rounds: int, rng: np.random.Generator) -> Draws:
    methods, classes = len(values), len(sizes)
    variance = torch.zeros(methods, dtype=torch.float64)
    drawn, drawn_variance = (torch.zeros(rounds, methods, dtype=torch.float64) for _ in range(2))
    block = max(1, CACHED // methods)  # with all pairs of methods it is memory that costs
    for chosen, share in _strata(labels, sizes):
        rows, size = values[:, chosen], len(chosen)
        if size == 1:
            continue
        weight = share / classes
        unbiased = weight**2 / (size - 1)
        variance += rows.var(dim=1, correction=0) * unbiased
        shares, deviations = _weights(*_kinds(rows), rounds, rng)
        squares = deviations.square()
        for first in range(0, rounds, block):
            some = slice(first, first + block)
            deviation = shares[some] @ deviations
            drawn[some].add_(deviation, alpha=weight)
            drawn_variance[some].addmm_(shares[some], squares, alpha=unbiased)
            drawn_variance[some].addcmul_(deviation, deviation, value=-unbiased)
    studentised = _studentise(drawn, drawn_variance.clamp_min_(0).sqrt(), variance.sqrt() / 2)
    return _means(values, labels, sizes), studentised


def _means(values: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
    """(..., K) means within the classes."""
    sums = torch.zeros(*values.shape[:-1], len(sizes), dtype=torch.float64).index_add(-1, labels, values)
    return sums / sizes


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
