"""Paths: how the scores of a method change along one of its numbers, or over the epochs of its training."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from poise.comparison import Tried
from poise.experiment import fit_specs, measure_all
from poise.methods import from_spec, settings
from poise.solver import Retrain, fit_heads
from poise.spec import Spec
from poise.types import Features, Problem, Scores

__all__ = ["Trace", "over_epochs", "over_strengths", "traces"]

SHORTEST = 3


class Trace(NamedTuple):
    """Scores by value of `parameter`, ascending; `selected` is the value that was taken, None if it is none of them."""

    family: Spec
    parameter: str
    selected: float | None
    values: tuple[float, ...]
    scores: tuple[Scores, ...]

    def spec(self, value: float) -> Spec:
        """The setting of a single method at a value."""
        return Spec(self.family.name, {**dict(self.family.params), self.parameter: value})


def traces(tried: Mapping[Spec, Sequence[Tried]], chosen: Mapping[Spec, Spec]) -> tuple[Trace, ...]:
    """One trace per family and number in which settings differ from the chosen one and from each other alone.

    `tried` are the settings of every family, `chosen` the one that was taken. Of a grid over two numbers this is the
    row and the column that hold the chosen setting. Traces of fewer than three values are left out.
    """
    found = []
    for family, settings_tried in tried.items():
        best = chosen.get(family)
        if best is None:
            continue
        for parameter in _numbers(best):
            points = sorted(_along(settings_tried, best, parameter))
            if len(points) >= SHORTEST:
                values, scores = zip(*((value, scores) for value, _, scores in points), strict=True)
                found.append(Trace(family, parameter[1], _settings(best)[parameter], values, scores))
    return tuple(found)


Key = tuple[int, str]  # number of the step in a chain, and parameter


def _settings(spec: Spec) -> dict[Key, Any]:
    """Every parameter of every step with its value, defaults included."""
    return {(i, key): value for i, step in enumerate(spec.steps) for key, value in settings(step).items()}


def _numbers(spec: Spec) -> list[Key]:
    """The parameters that are numbers."""
    return [k for k, value in _settings(spec).items() if isinstance(value, int | float) and not isinstance(value, bool)]


def _along(tried: Sequence[Tried], best: Spec, parameter: Key) -> list[tuple[float, int, Scores]]:
    """(value, order, scores) of the settings that differ from the best in this parameter at most."""
    own = {key: value for key, value in _settings(best).items() if key != parameter}
    found = []
    for order, (spec, scores) in enumerate(tried):
        other = _settings(spec)
        value = other.pop(parameter, None)
        if other == own and isinstance(value, int | float):
            found.append((float(value), order, scores))
    return found


def over_epochs(spec: Spec, problem: Problem, rows: Features, seed: int = 0) -> Trace | None:
    """The scores on `rows` of the start and of every epoch of a trained method; None for a method that is not trained.

    The last epoch is the head that the spec gives. For looking: the best epoch of a test split is no choice.
    """
    method = from_spec(spec)
    if not isinstance(method, Retrain):
        return None
    path = fit_heads(problem, [method], seed, snapshots=True)[0]
    scores = tuple(result.scores for result in measure_all([path[e] for e in range(len(path))], rows))
    epochs = tuple(float(e) for e in range(len(path)))
    return Trace(spec, "epoch", epochs[-1], epochs, scores)


def over_strengths(
    spec: Spec, parameter: str, values: Sequence[float], problem: Problem, rows: Features, seed: int = 0
) -> Trace:
    """The scores on `rows` of a single method along one of its numbers; all heads are fitted in one pass."""
    trace = Trace(spec, parameter, dict(spec.params).get(parameter), tuple(values), ())
    heads = fit_specs(problem, [trace.spec(value) for value in values], seed)
    scores = measure_all([heads[trace.spec(value)].head for value in values], rows)
    return trace._replace(scores=tuple(result.scores for result in scores))
