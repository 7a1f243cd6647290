"""Logits of any repository judged by the same protocol: no features, no head, no training.

Logits are features whose stage-1 head is the identity, so every adjustment that needs no features works on them
unchanged and gives the numbers that it gives on a head: logit adjustment, inductive re-balancing, temperature.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poise.priors import Sweep, prior_sweep
from poise.results.contents import Path
from poise.results.scores import Scores
from poise.selection.compare import run
from poise.selection.comparison_result import Comparison, Tried
from poise.selection.fit_and_measure import measure
from poise.selection.grids import BUDGET, default_grid
from poise.selection.schedule import scheduled
from poise.selection.score_curves import over_strengths, path
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem
from poise.values.spec import Spec

ADJUSTMENTS = (Spec("logit_adjustment"), Spec("rebalance"), Spec("temperature"))
STRENGTH = "tau"  # of the first


class Audit(NamedTuple):
    """The rows, the scores as given, the comparison, how scores change along a one-scalar path, and with the prior.

    `adjusted` are the rows' scores at every strength of logit adjustment, which read the evaluated rows and are for
    looking at: picking the best would be selection on the test split. `sweep` is the accuracy expected under deployment
    priors ~ train^a, for logits meant for the training prior.
    """

    rows: Features
    scores: Scores
    comparison: Comparison
    adjusted: tuple[Tried, ...]
    sweep: Sweep

    @property
    def paths(self) -> dict[str, list[dict[str, Any]]]:
        """The scores at every strength as plain JSON types: points by family."""
        names = ("accuracy", "balanced_accuracy", "many", "medium", "few", "ece", "nll")
        points = [
            {"method": str(each.spec), **{name: getattr(each.scores, name) for name in names}} for each in self.adjusted
        ]
        return {str(ADJUSTMENTS[0]): points}

    def shown_path(self) -> Path:
        """The same as a report shows it."""
        along = ((dict(each.spec.params)[STRENGTH], each.scores) for each in self.adjusted)
        return path(ADJUSTMENTS[0], STRENGTH, along, rows="test", selected=None)

    def to_dict(self) -> dict[str, Any]:
        """The audit as plain JSON types."""
        sweep = {"exponents": self.sweep.exponents.tolist(), "accuracy": self.sweep.accuracy.tolist()}
        return {
            "scores": self.scores.to_dict(),
            "comparison": self.comparison.to_dict(),
            "paths": self.paths,
            "sweep": sweep,
        }


def logit_problem(counts: ClassCounts, held_out: Features | None = None, dtype: torch.dtype = torch.float32) -> Problem:
    """The problem of logits: the identity head, and one row per class in place of the training rows nobody gave."""
    classes = len(counts)
    eye = torch.eye(classes, dtype=dtype)
    return Problem(Features(eye, torch.arange(classes), counts), Head(eye, eye.new_zeros(classes)), held_out)


def audit(
    logits: Tensor,
    y: Tensor,
    counts: ClassCounts | Tensor | Sequence[int],
    *,
    held_out: tuple[Tensor, Tensor] | None = None,
    class_names: Sequence[str] | None = None,
    budget: int = BUDGET,
    seed: int = 0,
    data: str = "logits",
) -> Audit:
    """Judge logits (N, C) of rows that nothing was trained or selected on, with labels y (N,) and training counts (C,).

    Settings are chosen on `held_out` (logits, labels) if given; else on one half of the rows for the other half, in
    turn, which every record says.

    Raises: InputError if shapes disagree or a value is not finite.
    """
    names = None if class_names is None else tuple(class_names)
    rows = Features(logits, y, counts, seen_by_backbone=False, class_names=names)  # type: ignore[arg-type]
    unseen = None if held_out is None else replace(rows, x=held_out[0], y=held_out[1])
    problem = logit_problem(rows.counts, unseen, rows.dtype)
    schedule = scheduled(
        ADJUSTMENTS,
        problem,
        selection="cross_fit" if unseen is None else "held_out",
        nulls=(ADJUSTMENTS[0],),
        always=(),  # there is no training row to fit it on
        seeds=(seed,),
        budget=budget,
    )
    comparison = run(schedule, problem, rows, data=data)
    strengths = [dict(spec.params)[STRENGTH] for spec in default_grid(ADJUSTMENTS[0], budget)]
    adjusted = over_strengths(ADJUSTMENTS[0], STRENGTH, strengths, replace(problem, held_out=unseen), rows)
    sweep = prior_sweep(rows.x[0], rows.y, rows.counts, source=rows.counts.prior)
    return Audit(rows, measure(problem.head, rows).scores, comparison, adjusted, sweep)  # type: ignore[arg-type]
