"""Which settings of a grid are worth a full fit: a cheap look at all of them, the same for every method.

A search is a sequence of rungs. Each looks at every setting of a trained method with fewer epochs, on fewer axes of the
features, or both, and lets the best share of each grid go on. What is left is fitted and judged in full, so no cheap
number enters a table or a verdict. Settings that need no training are always judged in full.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poise.errors import InputError
from poise.methods import is_trained, settings
from poise.values.arrays import row_blocks
from poise.values.checks import check_one_of
from poise.values.features import Features
from poise.values.fields import check_fields, number, optional, whole
from poise.values.head import Head, Prep
from poise.values.problem import Problem
from poise.values.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One look: the best share `keep` of each grid, in (0, 1], goes on, rounded up.

    The look trains for a share `epochs`, in (0, 1], of the epochs of each setting, with learning rates as much higher
    (`shortened`), on the leading `axes` principal axes of the training rows (None: on the features as they are).

    Raises: InputError naming the field that is out of range.
    """

    keep: float
    epochs: float = 1.0
    axes: int | None = None

    def __post_init__(self) -> None:
        share = number("(0, 1]")
        check_fields("rung: ", vars(self), {"keep": share, "epochs": share, "axes": optional(whole(1))})

    def __str__(self) -> str:
        on = "" if self.axes is None else f" on {self.axes} principal axes"
        return f"the best {self.keep:.3g} after {self.epochs:.3g} of the epochs{on}"

    def kept(self, settings: int) -> int:
        """How many of so many settings go on."""
        return math.ceil(self.keep * settings - 1e-9)

    def looks(self, grid: Sequence[Spec]) -> dict[Spec, Spec]:
        """What stands for each trained setting of a grid; empty where all would go on."""
        trained = [spec for spec in grid if any(is_trained(step.name) for step in spec.steps)]
        if self.kept(len(trained)) == len(trained):
            return {}
        return {spec: shortened(spec, self.epochs) for spec in trained}

    def problem(self, problem: Problem) -> Problem:
        """What the look is taken on."""
        return problem if self.axes is None or self.axes >= problem.train.dim else projected(problem, self.axes)


Search = tuple[Rung, ...]

# How often these lead to the choice of the full search is measured in experiments/elimination.py.
SEARCHES: Mapping[str, Search] = MappingProxyType(
    {
        "full": (),
        "halving": (Rung(keep=1 / 6, epochs=0.3),),
        "sketch": (Rung(keep=1 / 4, epochs=0.3, axes=128), Rung(keep=1 / 4, epochs=0.3)),
    }
)


def as_search(given: str | Iterable[Rung]) -> Search:
    """The rungs of a name in `SEARCHES`, or those given. Raises: InputError for anything else."""
    if isinstance(given, str):
        check_one_of("search", given, tuple(SEARCHES))
        return SEARCHES[given]
    rungs = tuple(given)
    for rung in rungs:
        if not isinstance(rung, Rung):
            raise InputError(f"a search is one of {', '.join(SEARCHES)}, or Rungs; got {rung!r}")
    return rungs


Looks = Sequence[Mapping[Spec, Spec]]  # of every grid: what stands for each of its settings, see `Rung.looks`


def different(looks: Looks) -> tuple[Spec, ...]:
    """What is fitted for the looks at all grids, each once."""
    return tuple(dict.fromkeys(ran for look in looks for ran in look.values()))


def narrowed(
    grids: Iterable[Sequence[Spec]], search: Search, look: Callable[[int, Looks], Sequence[Sequence[Spec]]]
) -> list[tuple[Spec, ...]]:
    """What each grid keeps when every rung of a search has left settings out.

    `look(number, looks)` takes the look of the rung of that number, and returns the settings of each grid that were
    looked at in order, the best first. A rung that would leave nothing out is passed over.
    """
    left = [tuple(grid) for grid in grids]
    for turn, rung in enumerate(search):
        looks = [rung.looks(grid) for grid in left]
        if any(looks):
            out = [set(order[rung.kept(len(order)) :]) for order in look(turn, looks)]
            left = [tuple(spec for spec in grid if spec not in gone) for grid, gone in zip(left, out, strict=True)]
    return left


def shortened(spec: Spec, share: float) -> Spec:
    """The spec with a share of the epochs of every trained step, at least one, and learning rates as much higher.

    How far a head goes from its start follows the sum of its learning rates, so that a short fit at the same rates
    would prefer higher ones than the full fit does. `LOS`, which un-learns, is the extreme: on the shipped sets its
    best rate after 3 of 10 epochs was 3.4 times that after 10.
    """
    steps = [_shortened(step, share) if is_trained(step.name) else step for step in spec.steps]
    return sum(steps[1:], steps[0])


def _shortened(step: Spec, share: float) -> Spec:
    full = settings(step)
    whole = full.get("epochs", 0)  # a package's own method may have none
    epochs = max(1, round(share * whole))
    if epochs >= whole:
        return step
    changed: dict[str, Any] = {"epochs": epochs, "lr": float(f"{full['lr'] * whole / epochs:.4g}")}
    if full["warmup_epochs"]:
        changed["warmup_epochs"] = round(share * full["warmup_epochs"])
    return Spec(step.name, {**dict(step.params), **changed})


# --- fewer axes -------------------------------------------------------------------------------------------------------


class Axes(NamedTuple):
    """An orthonormal basis (D, K) float64 of a subspace through `centre` (D,)."""

    centre: Tensor
    basis: Tensor

    def features(self, features: Features) -> Features:
        """The coordinates (V, N, K) of rows (V, N, D), read in blocks."""
        shape = (*features.x.shape[:2], self.basis.shape[1])
        x = torch.empty(shape, dtype=features.dtype, device=features.x.device)
        basis, centre = self.basis.to(x), self.centre.to(x)
        for view, to in enumerate(x):
            for start, rows in row_blocks(features.x[view]):
                torch.mm(rows.to(x.dtype) - centre, basis, out=to[start : start + len(rows)])
        return replace(features, x=x)

    def head(self, head: Head) -> Head:
        """The head on coordinates that gives a row of the subspace the logits that `head` gives it."""
        weight, basis = head.weight.double(), self.basis.to(head.weight.device)
        if head.prep is None or not head.prep.unit:
            plain = head.folded()
            bias = plain.bias.double() + weight @ self.centre.to(weight)
            return Head((weight @ basis).to(head.weight), bias.to(head.weight))
        centre = -self.centre.to(weight) if head.prep.centre is None else (head.prep.centre - self.centre).to(weight)
        return Head((weight @ basis).to(head.weight), head.bias, Prep((centre @ basis).to(head.weight), unit=True))


def principal_axes(features: Features, axes: int) -> Axes:
    """The centre of the rows of the test-time view, and the `axes` directions in which they vary most."""
    view, rows = features.x[0], len(features)
    centre = torch.stack([block.double().sum(dim=0) for _, block in row_blocks(view)]).sum(dim=0) / rows
    covariance = torch.zeros(features.dim, features.dim, dtype=torch.float64, device=view.device)
    for _, block in row_blocks(view):
        shifted = block.to(features.dtype) - centre.to(features.dtype)
        covariance += (shifted.T @ shifted).double()
    _, vectors = torch.linalg.eigh(covariance / rows)  # ascending
    return Axes(centre, vectors.flip(1)[:, :axes].contiguous())


def projected(problem: Problem, axes: int) -> Problem:
    """The problem in coordinates on its leading principal axes, stage-1 head and held-out rows included.

    On all axes it is the same problem, turned and centred: what starts from the stage-1 head on scaled features is
    fitted alike. A fresh start draws other numbers, and recipes for raw features see centred ones.
    """
    found = principal_axes(problem.train, axes)
    head = None if problem.head is None else found.head(problem.head)
    held_out = None if problem.held_out is None else found.features(problem.held_out)
    return replace(problem, train=found.features(problem.train), head=head, held_out=held_out)
