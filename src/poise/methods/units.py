"""Methods whose definition has a unit: made free of it where no paper says in which features they are meant."""

from dataclasses import dataclass, replace

from poise.heads.scaling import space_of
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Method, Problem


@dataclass(frozen=True)
class UnitFree:
    """A method on features whose mean squared distance from their mean is 1; its head reads the features as they are.

    `l2_norm` weighs a bias against rows of norm 1, and `unlearn` takes steps as long as the features are: both mean
    something else in every unit. Features times c give the same predictions and probabilities here.
    """

    method: Method

    def __call__(self, problem: Problem, seed: int = 0) -> Head:
        """The head of the method."""
        factor = space_of(problem.train, scale=True, unit=False, world=problem.world).factor
        head = None if problem.head is None else problem.head.rescaled(factor)
        held_out = None if problem.held_out is None else _times(problem.held_out, factor)
        inside = replace(problem, train=_times(problem.train, factor), head=head, held_out=held_out)
        return self.method(inside, seed).rescaled(1 / factor)


def _times(features: Features, factor: float) -> Features:
    return replace(features, x=features.x.to(features.dtype) * factor)
