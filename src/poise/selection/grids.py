"""Which settings are tried: grids and random searches as tuples of specs, of the same size for every method.

What a spec states is held; what it leaves open is searched. `Spec("crt")` opens learning rate and weight decay,
`Spec("crt", lr=1.0)` weight decay alone. The ranges below are for scaled features; learning rates are searched around
the default of the method, because they depend on its loss and trained part.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from poise.errors import InputError
from poise.methods import defaults, is_trained, settings
from poise.values.checks import is_number, is_whole
from poise.values.randomness import Stream
from poise.values.spec import Spec

BUDGET = 16
MOST = 10_000  # settings of one method
LIMITS = (0.0, math.inf)  # of most parameters: rates, strengths and scales, where 0 is to do nothing


class Axis(NamedTuple):
    """One open parameter: numbers from `low` to `high` (in equal steps, or equal factors), or the listed `choices`.

    `relative` multiplies the numbers with the method's default. `with_zero` puts 0 before them. `limits` are the ends
    that the definition of the parameter sets: there is nothing to search beyond them.
    """

    parameter: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    relative: bool = False
    with_zero: bool = False
    choices: tuple[Any, ...] = ()
    limits: tuple[float, float] = LIMITS

    def scaled(self, default: float) -> "Axis":
        """The axis in absolute numbers."""
        return self._replace(low=short(self.low * default), high=short(self.high * default), relative=False)

    def values(self, n: int) -> tuple[Any, ...]:
        """At most `n` values, in order."""
        if self.choices:
            return self.choices[:n]
        shares = np.linspace(0, 1, n - self.with_zero).tolist() if n > 1 else [0.5]
        return ((0.0,) if self.with_zero and n > 1 else ()) + tuple(short(self.at(share)) for share in shares)

    def draw(self, rng: np.random.Generator) -> Any:
        """One random value: equally likely choices, or uniform on the scale of the axis."""
        if self.choices:
            return self.choices[int(rng.integers(len(self.choices)))]
        return short(self.at(float(rng.uniform())))

    def at(self, share: float) -> Any:
        """What lies at a share in [0, 1] of the axis; of choices, below 1."""
        low, high = self.low, self.high
        if self.choices:
            return self.choices[int(share * len(self.choices))]
        value = low * (high / low) ** share if self.log else low + share * (high - low)
        return min(max(value, low), high)

    def apart(self, a: Any, b: Any) -> float:
        """How far two values lie apart, as a share of the axis; by all of it two words, or 0 on a log scale."""
        if a == b or not (is_number(a) and is_number(b)) or self.choices or (self.log and min(a, b) <= 0):
            return float(a != b)
        share = math.log(b / a) / math.log(self.high / self.low) if self.log else (b - a) / (self.high - self.low)
        return abs(float(share))

    def __str__(self) -> str:
        return "|".join(map(str, self.choices)) or f"{self.low:.4g} to {self.high:.4g}"


def short(value: float) -> float:
    """A number of four digits: short in every table, and exact in its text."""
    return float(f"{value:.4g}")


def _rates(low: float, high: float, *, with_zero: bool = False) -> Axis:
    return Axis("lr", low, high, log=True, relative=True, with_zero=with_zero)


LR = _rates(0.1, 10.0)
DECAY = Axis("weight_decay", 2e-5, 2e-3, log=True, with_zero=True)
STRENGTH = Axis("tau", 0.0, 1.875)
BETA = 0.9999999  # weights 1 / n_k to within n_k / 2e7, which is where they go as beta goes to 1

# Methods without a row are searched over learning rate and weight decay if they are trained, else not at all. Where a
# range must lie was measured on held-out rows (experiments/ranges.py). A learning rate of 0 is the start of a method,
# rescaled or projected but not trained: where training does harm, a low end of the rates would only come near to it.
AXES: Mapping[str, tuple[Axis, ...]] = MappingProxyType(
    {
        "balanced_softmax": (Axis("tau", 0.25, 1.75), _rates(0.1, 100.0)),
        "ce": (_rates(0.1, 100.0), DECAY),
        "class_balanced": (
            Axis("beta", choices=(0.99, 0.999, 0.9999, BETA), limits=(0.0, BETA)),
            _rates(0.464, 46.4),
        ),
        # From where rows that trained the backbone are fitted best to where small tables are; the default lies within.
        "converged": (Axis("weight_decay", 1e-6, 0.1, log=True),),
        "cosine": (Axis("scale", 8.0, 512.0, log=True), _rates(0.01, 1.0, with_zero=True)),
        "focal": (Axis("gamma", 0.5, 32.0, log=True), _rates(0.0316, 31.6)),
        # Memorised rows give little gradient to what starts fresh, so the rates are high.
        "gala": (Axis("lambda_pos", 0.5, 3.5), _rates(1.0, 1000.0)),
        "gcl": (Axis("noise", 0.0, 0.75), LR),
        "label_aware_smoothing": (Axis("smooth_head", 0.1, 0.7), _rates(0.001, 1.0)),
        "lda": (Axis("shrinkage", 1e-3, 1.0, log=True, limits=(0.0, 1.0)),),
        # Rows that are normalised grow with every step, and the rate acts divided by their square: it may be huge.
        "ldam": (Axis("max_margin", 0.0, 0.75), _rates(1.0, 10_000.0, with_zero=True)),
        "logit_adjustment": (STRENGTH,),
        # How far LOS goes is set by the sum of its learning rates; delta hardly matters (papers' values 0.9 to 0.995).
        "los": (LR,),
        # Decay pulls one factor per class towards 0; a useful one is stronger than that of a whole head.
        "lws": (_rates(0.0316, 31.6), Axis("weight_decay", 2e-3, 0.2, log=True, with_zero=True)),
        "marc": (Axis("rho", 0.5, 4.25), _rates(0.01, 10.0)),
        "ncm": (Axis("transform", choices=("cl2n", "l2n", "raw")), Axis("distance", choices=("l2", "dot", "cos"))),
        "rebalance": (Axis("power", 0.0, 1.875),),
        "tau_norm": (STRENGTH,),
        # Its scale is that of 1 / |f|^2: below 1 on features of ResNets, near 70 on embeddings of norm 1.
        "unlearn": (Axis("t", 0.05, 200.0, log=True),),
        "vs": (Axis("tau", 0.5, 2.0), Axis("gamma", 0.0, 0.45)),
        # Its own loss is averaged over the C classes too, so its gradient is about C times smaller than that of "ce".
        "weight_balancing": (_rates(3.16, 316.0, with_zero=True), DECAY),
    }
)


def axes(spec: Spec) -> tuple[tuple[int, Axis], ...]:
    """The open parameters of a spec: (number of the step, axis in absolute numbers), stated ones left out."""
    found = []
    for number, step in enumerate(spec.steps):
        stated, usual = {key for key, _ in step.params}, defaults(step.name)
        free = [axis for axis in _usual(step.name) if axis.parameter not in stated]
        found += [(number, axis.scaled(usual[axis.parameter]) if axis.relative else axis) for axis in free]
    return tuple(found)


def _usual(name: str) -> tuple[Axis, ...]:
    return AXES.get(name, (LR, DECAY) if is_trained(name) else ())


def default_grid(spec: Spec, budget: int = BUDGET, *, seed: int = 0) -> tuple[Spec, ...]:
    """At most `budget` specs over the open parameters: a full grid of one or two of them, a random search of more.

    Below `BUDGET` the steps are wide, and the default setting takes the place of the one nearest to it, so that tuning
    little is not worse than tuning nothing. A spec without open parameters is its own grid.

    Raises: InputError if the budget is no whole number of at least 1.
    """
    _check_budget(budget)
    free = axes(spec)
    if len(free) > 2:
        found = sample(spec, budget, seed=seed)
    else:
        each = math.isqrt(budget) if len(free) == 2 else budget
        values = itertools.product(*(axis.values(each) for _, axis in free))
        found = tuple(dict.fromkeys(filled(spec, free, row) for row in values))
    return found if budget >= BUDGET else _with_default(found, spec, free)


def _with_default(grid: Sequence[Spec], spec: Spec, free: Sequence[tuple[int, Axis]]) -> tuple[Spec, ...]:
    """The grid with the default values of the open parameters in place of the setting that is nearest to them."""
    usual = [settings(step) for step in spec.steps]
    values = [usual[number][axis.parameter] for number, axis in free]

    def distance(tried: Spec) -> float:
        of = [dict(step.params) for step in tried.steps]
        return sum(axis.apart(of[n][axis.parameter], v) for (n, axis), v in zip(free, values, strict=True))

    nearest = min(grid, key=distance)
    return tuple(dict.fromkeys(filled(spec, free, values) if tried == nearest else tried for tried in grid))


def sample(spec: Spec, budget: int = BUDGET, *, seed: int = 0) -> tuple[Spec, ...]:
    """`budget` random draws over the open parameters, on the scale of each axis.

    Raises: InputError if the budget is no whole number of at least 1.
    """
    _check_budget(budget)
    rng, free = np.random.default_rng([seed, Stream.SEARCH]), axes(spec)
    draws = [[axis.draw(rng) for _, axis in free] for _ in range(budget)]
    return tuple(dict.fromkeys(filled(spec, free, row) for row in draws))


def product(name: str, **values: Sequence[Any]) -> tuple[Spec, ...]:
    """The full grid of the given values: `product("tau_norm", tau=[0.5, 1.0], bias=["keep", "drop"])`.

    Raises: InputError for a parameter without values.
    """
    for key, given in values.items():
        if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray) or len(given) == 0:
            raise InputError(f"the grid of {name} needs a list of values for {key}, got {given!r}")
    return tuple(Spec(name, zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values()))  # type: ignore[arg-type]


def _check_budget(budget: int) -> None:
    if not is_whole(budget) or budget < 1:
        raise InputError(f"the budget must be a whole number of at least 1, got {budget!r}")
    if budget > MOST:
        raise InputError(f"the budget must be at most {MOST} settings per method, got {budget}; lower it")


def filled(spec: Spec, free: Sequence[tuple[int, Axis]], values: Sequence[Any]) -> Spec:
    """The spec with a value in each of its open parameters."""
    steps = [dict(step.params) for step in spec.steps]
    for (number, axis), value in zip(free, values, strict=True):
        steps[number][axis.parameter] = value
    parts = [Spec(step.name, params) for step, params in zip(spec.steps, steps, strict=True)]
    return sum(parts[1:], parts[0])


def edges(grid: Sequence[Spec], best: Spec) -> tuple[str, ...]:
    """Parameters whose best value is the lowest or highest of at least three numbers tried: look further there.

    Ends that the definition of a parameter sets (`Axis.limits`) do not count.
    """
    alike = [spec for spec in grid if _names(spec) == _names(best)]
    flags = []
    for number, step in enumerate(best.steps):
        for key, value in step.params:
            tried: set[Any] = {dict(spec.steps[number].params).get(key) for spec in alike}
            numbers = sorted(v for v in tried if is_number(v))
            at_end = len(numbers) >= 3 and value in (numbers[0], numbers[-1])
            if at_end and value not in _limits(step.name, key):
                flags.append(f"{key}={value:g}")
    return tuple(flags)


def _limits(name: str, parameter: str) -> tuple[float, float]:
    return next((axis.limits for axis in _usual(name) if axis.parameter == parameter), LIMITS)


def _names(spec: Spec) -> tuple[str, ...]:
    return tuple(step.name for step in spec.steps)
