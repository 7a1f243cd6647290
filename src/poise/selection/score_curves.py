"""Paths: how the scores of a method change along one of its numbers, or over the epochs of its training."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from poise.heads.solver import Retrain, fit_heads
from poise.methods import from_spec, settings
from poise.results.contents import Path, Point, Where
from poise.results.scores import Scores
from poise.selection.comparison_result import Tried
from poise.selection.fit_and_measure import fit_specs, measure_all
from poise.values.features import Features
from poise.values.problem import Problem
from poise.values.spec import Spec

SHORTEST = 3


def path(
    family: Spec, parameter: str, found: Iterable[tuple[float, Scores]], *, rows: Where, selected: float | None
) -> Path:
    """The scores found along a number, whose values ascend; `selected` is the one taken, None if it is none of them."""
    points = tuple(Point.of(value, scores) for value, scores in found)
    return Path(family=str(family), parameter=parameter, rows=rows, selected=selected, points=points)


def over_settings(tried: Mapping[Spec, Sequence[Tried]], chosen: Mapping[Spec, Spec]) -> tuple[Path, ...]:
    """One path per family and number in which settings differ from the chosen one and from each other alone.

    `tried` are the settings of every family, `chosen` the one that was taken. Of a grid over two numbers this is the
    row and the column that hold the chosen setting. Paths of fewer than three values are left out.
    """
    found = []
    for family, settings_tried in tried.items():
        best = chosen.get(family)
        if best is None:
            continue
        for parameter in _numbers(best):
            points = sorted(_along(settings_tried, best, parameter))
            if len(points) >= SHORTEST:
                along = ((value, scores) for value, _, scores in points)
                selected = _settings(best)[parameter]
                found.append(path(family, parameter[1], along, rows="selection", selected=selected))
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


def over_epochs(spec: Spec, problem: Problem, rows: Features, seed: int = 0) -> tuple[Scores, ...]:
    """The scores on `rows` of the start and of every epoch of a trained method; none for a method that is not trained.

    The last epoch is the head that the spec gives. For looking: the best epoch of a test split is no choice.
    """
    method = from_spec(spec)
    if not isinstance(method, Retrain):
        return ()
    heads = fit_heads(problem, [method], seed, snapshots=True)[0]
    return tuple(result.scores for result in measure_all([heads[e] for e in range(len(heads))], rows))


def over_strengths(
    spec: Spec, parameter: str, values: Sequence[float], problem: Problem, rows: Features, seed: int = 0
) -> tuple[Tried, ...]:
    """The scores on `rows` of a single method at values of one of its numbers; all heads are fitted in one pass."""
    specs = [Spec(spec.name, {**dict(spec.params), parameter: value}) for value in values]
    heads = fit_specs(problem, specs, seed)
    found = measure_all([heads[each].head for each in specs], rows)
    return tuple(Tried(each, result.scores) for each, result in zip(specs, found, strict=True))
