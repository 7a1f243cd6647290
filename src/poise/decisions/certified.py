"""Thresholds that hold with a stated confidence, or none.

The share of right answers above a threshold is a share of independent rows, so the exact binomial test says whether it
is at least the target. Many thresholds are tried one after another, from sure to less sure, and the first that fails
ends it: fixed-sequence testing, in which every test has the full level because a false threshold is reached only by
passing the first of them (Angelopoulos et al., Learn then Test, 2021). The sequence must not depend on the labels; ours
follows from the confidences alone (`_sequence`). Two deviations, each measured in experiments/results/targets.md: the
tests stand at ranks of the confidences, where the paper has a fixed grid, which is exact where surer answers are right
at least as often; and the sequence starts where the confidences themselves promise most.
"""

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from poise.errors import InputError
from poise.values.fields import number

CONFIDENCE = 0.95
TARGET = number("(0, 1)")
# Expected errors are those of the confidences and this part of the errors at the target, since heads can be too sure.
DOUBT = 0.25

Ints = NDArray[np.int64]


def rows_needed(target: float, level: float) -> int:
    """How many answers, all right, show at `level` that at least `target` of them are: 29 for 0.9 at 0.05."""
    return math.ceil(math.log(level) / math.log(target) - 1e-9)


def errors_allowed(rows: Ints, target: float, level: float) -> Ints:
    """Per number of answers, how many may be wrong so that the exact binomial test shows the target; -1 for none."""
    from scipy.stats import binom

    first = binom.ppf(level, rows, 1 - target)  # the fewest errors of a chance of at least `level`
    exact = binom.cdf(first, rows, 1 - target) <= level
    allowed: Ints = np.where(exact, first, first - 1).astype(np.int64)
    return allowed


def lowest_threshold(sure: Tensor, right: Tensor, *, target: float, level: float) -> float:
    """The lowest threshold above which at least `target` of the answers are right, shown at `level`; infinity for none.

    `sure` (N,) are the confidences of answers and `right` (N,) says which are right, on rows that chose neither head
    nor temperature. 0 where all answers together pass.
    """
    order = sure.argsort(descending=True, stable=True)
    confidence = sure[order].double().cpu().numpy()
    wrong = (~right[order].bool()).cumsum(0).cpu().numpy()
    threshold = math.inf
    for rank, allowed in _sequence(confidence, target, level):
        if wrong[rank - 1] > allowed:
            break
        threshold = 0.0 if rank == len(wrong) else float(np.nextafter(confidence[rank], 1.0))
    return threshold


def _sequence(confidence: NDArray[np.float64], target: float, level: float) -> list[tuple[int, int]]:
    """(rank, errors allowed among the first so many) of the tests in their order, of descending confidences (N,).

    One test for each number of errors, at the lowest rank that allows so many, and one of all answers. What is likely
    to fail at the top is left out: the first test is the one that is most likely to pass if the confidences are right
    but for `DOUBT`.
    """
    from scipy.stats import poisson

    ranks = np.arange(1, len(confidence) + 1)
    # Equal confidences are answered together or not at all.
    ranks = ranks[np.append(confidence[1:] < confidence[:-1], [True] * bool(len(confidence)))]
    allowed = errors_allowed(ranks, target, level)
    new = np.append([-1], allowed)[:-1] < allowed
    new[-1:] = allowed[-1:] >= 0
    ranks, allowed = ranks[new], allowed[new]
    if len(ranks) == 0:
        return []
    expected = np.cumsum(1 - confidence)[ranks - 1] + DOUBT * (1 - target) * ranks
    start = int(np.argmax(poisson.cdf(allowed, expected)))
    return list(zip(ranks[start:].tolist(), allowed[start:].tolist(), strict=True))


def check_target(name: str, target: float, confidence: float) -> None:
    """Raises: InputError unless both lie between 0 and 1."""
    TARGET.check(name, target)
    TARGET.check("confidence", confidence)


def out_of_reach(what: str, target: float, level: float, rows: int) -> InputError:
    """The refusal of a target that no threshold is shown to reach, with the number of rows that would do."""
    needed = rows_needed(target, level)
    why = f"there are {rows}" if rows < needed else f"among {rows}, too many are wrong"
    return InputError(
        f"no threshold is shown to reach the {what} {target:g} at confidence {1 - level:g}: that takes {needed} "
        f"answers, all right, or more with some wrong, and {why}; give more held-out rows or ask for less"
    )
