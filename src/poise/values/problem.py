"""`Problem`: what a method is given; `Method`: what it is."""

from collections.abc import Callable
from dataclasses import dataclass

from poise.errors import InputError
from poise.machine.processes import ALONE, World
from poise.values.arrays import classes_in
from poise.values.features import Features
from poise.values.head import Head


@dataclass(frozen=True, eq=False)
class Problem:
    """What a method is given: training features, the stage-1 head if there is one, unseen rows if there are any.

    `world` are the processes that share the work; each is given the same problem.
    """

    train: Features
    head: Head | None = None
    held_out: Features | None = None
    world: World = ALONE

    def __post_init__(self) -> None:
        classes, dim = len(self.train.counts), self.train.dim
        if self.head is not None and (self.head.classes, self.head.dim) != (classes, dim):
            raise InputError(
                f"the stage-1 head has {self.head.classes} classes and {self.head.dim} features, "
                f"the training rows have {classes} and {dim}"
            )
        weight = self.train.weight
        if classes_in(self.train.y if weight is None else self.train.y[weight > 0]) < 2:
            raise InputError("the training rows are all of one class; a classifier needs rows of at least two")
        if self.held_out is not None and (len(self.held_out.counts), self.held_out.dim) != (classes, dim):
            raise InputError(
                f"the held-out rows have {len(self.held_out.counts)} classes and {self.held_out.dim} features, the "
                f"training rows have {classes} and {dim}"
            )


Method = Callable[..., Head]
"""(problem, seed=0) -> head. Pure: the problem is not changed, and the same arguments give the same bytes."""
