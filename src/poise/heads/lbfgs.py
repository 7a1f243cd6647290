"""The minimum of a smooth convex function of a matrix: limited-memory BFGS from a given guess at the curvature."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

MEMORY = 20  # pairs of steps and changes of slope that the curvature is estimated from
HALVINGS = 40

Function = Callable[[Tensor], tuple[float, Tensor]]
"""A point -> value and slope there."""


class Minimum(NamedTuple):
    """Where a search ended, value and slope there, and how often the function was evaluated."""

    x: Tensor
    value: float
    slope: Tensor
    evaluations: int

    @property
    def steepest(self) -> float:
        """The largest entry of the slope, whatever its sign."""
        return float(self.slope.abs().max())


@dataclass
class Curvature:
    """What is known of the second derivatives.

    `inverse` applies a guess at their inverse; `pairs` are the latest steps, the change of slope over each, and the
    inverse of their product. Two searches may share one: the second goes on with what the first learned.
    """

    inverse: Callable[[Tensor], Tensor]
    pairs: deque[tuple[Tensor, Tensor, float]] = field(default_factory=lambda: deque(maxlen=MEMORY))

    def direction(self, slope: Tensor) -> Tensor:
        """Minus the inverse of the curvature times the slope: the two-loop recursion (Nocedal, 1980)."""
        q, shares = slope.clone(), []
        for s, y, rho in reversed(self.pairs):
            share = rho * _dot(s, q)
            q.sub_(y, alpha=share)
            shares.append(share)
        q = self.inverse(q)
        if self.pairs:
            _, y, rho = self.pairs[-1]
            q /= rho * _dot(y, self.inverse(y))
        for (s, y, rho), share in zip(self.pairs, reversed(shares), strict=True):
            q.add_(s, alpha=share - rho * _dot(y, q))
        return q.neg_()

    def learn(self, step: Tensor, change: Tensor) -> None:
        """Remember a step and the change of slope over it."""
        self.pairs.append((step, change, 1 / _dot(step, change)))


def _dot(a: Tensor, b: Tensor) -> float:
    return float(a.flatten().dot(b.flatten()))


def lbfgs(
    function: Function,
    x: Tensor,
    curvature: Curvature,
    *,
    tolerance: float,
    max_steps: int,
    first: float = 1.0,
    at_step: Callable[[int, Tensor], None] = lambda step, x: None,
) -> tuple[Minimum, int]:
    """Where no entry of the slope exceeds `tolerance`, and the steps taken; `max_steps` or rounding may end it before.

    While nothing is learned yet, a step is tried at `first` of its length. `at_step(step, x)` is called before each
    step and may change the guess of `curvature`. The line search is the weak Wolfe one of Lewis and Overton (2013).

    Our own, because scipy's spends ten times the objective on bookkeeping at the sizes of a head, and torch's loads
    its compiler for seconds.
    """
    here = Minimum(x, *function(x), 1)
    for step in range(max_steps):
        if here.steepest <= tolerance:
            return here, step
        at_step(step, here.x)
        ahead = _line_search(function, here, curvature.direction(here.slope), 1.0 if curvature.pairs else first)
        if ahead is None:
            return here, step
        curvature.learn(ahead.x - here.x, ahead.slope - here.slope)
        here = ahead
    return here, max_steps


def _line_search(function: Function, here: Minimum, direction: Tensor, length: float) -> Minimum | None:
    """A point on the way that is lower and less steep; None if rounding hides it."""
    descent = _dot(here.slope, direction)
    low, high = 0.0, math.inf
    for tries in range(1, HALVINGS + 1):
        point = here.x + length * direction
        value, slope = function(point)
        if not value <= here.value + 1e-4 * length * descent:
            high = length
        elif _dot(slope, direction) < 0.9 * descent:
            low = length
        else:
            return Minimum(point, value, slope, here.evaluations + tries)
        length = (low + high) / 2 if high < math.inf else 2 * low
    return None
