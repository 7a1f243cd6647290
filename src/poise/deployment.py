"""From labelled rows to a deployable model: a head chosen honestly, calibrated, for a stated prior, with decisions.

Rows alone go through `LongTailClassifier`; a trained model's own head is adjusted or re-trained by the methods that
`compare` tunes. Both end as the same `Model`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from poise.artefact import Model
from poise.choose import choose_operating_point
from poise.errors import InputError
from poise.estimator import LongTailClassifier
from poise.experiment import Progress
from poise.grids import BUDGET, default_grid
from poise.methods import from_spec, implied_prior
from poise.priors import as_prior
from poise.protocols import NULLS, recommend
from poise.record import versions
from poise.selection import judge, pick
from poise.spec import Spec
from poise.types import Features, Problem
from poise.unseen import Evidence, calibrate, deployed

__all__ = ["Targets", "deploy"]

# What a given head is offered: the two nulls, and one method of each kind that trains.
FAMILIES = (Spec("stage1"), *NULLS, Spec("balanced_softmax"), Spec("class_balanced"), Spec("crt"), Spec("los"))


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What decisions should meet; see `choose_operating_point`. All None: the largest posterior wins."""

    abstain_accuracy: float | None = None
    coverage: float | None = None
    precision: float | None = None
    alpha: float | None = None
    costs: Any = None
    top_k: int | None = None

    @property
    def any(self) -> bool:
        """Is anything asked for?"""
        return any(value is not None for value in vars(self).values())


def deploy(
    problem: Problem,
    *,
    method: str = "auto",
    prior: Any = "uniform",
    targets: Targets | None = None,
    groups: Tensor | Sequence[object] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Model:
    """The model for a problem: a head for the class prior of deployment, calibrated on unseen rows, and decisions.

    Without a stage-1 head this is `LongTailClassifier`, with held-out rows if the problem has them. With one, "auto"
    tunes tau-norm, logit adjustment and four trained methods on the held-out rows and takes the recommendation of
    `compare`; a named method runs as stated. `targets` choose an operating point on the held-out rows.

    Raises: MemorisedRowsError, InputError if something has to be chosen and there are no unseen rows to choose on.
    """
    names = problem.train.class_names or tuple(str(k) for k in range(len(problem.train.counts)))
    if problem.head is None:
        model = _from_rows(problem, names, method, prior, groups, seed)
    else:
        model = _from_head(problem, names, method, prior, seed, progress)
    provenance = {**model.provenance, "versions": versions(), "train": problem.train.key, "seed": seed}
    model = replace(model, provenance=provenance)
    if targets is None or not targets.any:
        return model
    if problem.held_out is None:
        raise InputError("an operating point is chosen on rows that were not trained on; give held-out rows")
    point = choose_operating_point(model.head, _matched(problem, model), trained_on=problem.train, **vars(targets))
    return replace(model, operating=point)


def _from_rows(problem: Problem, names: tuple[str, ...], method: str, prior: Any, groups: Any, seed: int) -> Model:
    train, unseen = problem.train, problem.held_out
    y = [names[k] for k in train.y.tolist()]
    held_out = None if unseen is None else (unseen.x[0].double().numpy(), [names[k] for k in unseen.y.tolist()])
    classifier = LongTailClassifier(method, prior, train.seen_by_backbone, seed)
    classifier.fit(train.x[0].double().numpy(), y, groups=groups, held_out=held_out)
    return classifier.model()


def _from_head(
    problem: Problem, names: tuple[str, ...], method: str, prior: Any, seed: int, progress: Progress | None
) -> Model:
    rows = problem.held_out
    if rows is None:
        raise InputError(
            "to choose and calibrate for a given head, held-out rows are needed that neither it nor the backbone saw"
        )
    target = as_prior(prior, problem.train.counts)
    families = FAMILIES if method == "auto" else (Spec.parse(method),)
    grids = {family: default_grid(family, BUDGET) if method == "auto" else (family,) for family in families}
    tried = [spec for grid in grids.values() for spec in grid]
    judgement = judge(tried, problem, select="held_out", seed=seed, progress=progress)
    chosen = {family: pick(judgement, grid)[0] for family, grid in grids.items()}
    family = recommend(judgement, NULLS, chosen)[1] if method == "auto" else families[0]
    spec = chosen[family]
    head = judgement.trials[spec].head or from_spec(spec)(problem, seed)
    # Settings that won by balanced accuracy are meant for uniform classes, whatever their formula says of defaults.
    word = implied_prior(spec) or ("uniform" if method == "auto" else None)
    known = None if word is None else as_prior(word, problem.train.counts)
    seen = Evidence(head(rows.x[0]).double(), rows.y, torch.ones(len(rows), dtype=torch.float64))
    temperature, implied = calibrate(seen, problem.train.counts.prior, known)
    return Model(
        head=deployed(head, temperature, implied, target),
        class_names=names,
        counts=problem.train.counts,
        prior_applied=target,
        method=str(spec),
        provenance={"held_out": rows.key},
    )


def _matched(problem: Problem, model: Model) -> Features:
    """The held-out rows with the classes of the model, which has only those with training rows."""
    rows = problem.held_out
    assert rows is not None
    names = problem.train.class_names or tuple(str(k) for k in range(len(problem.train.counts)))
    if model.class_names == names:
        return rows
    position = {name: k for k, name in enumerate(model.class_names)}
    y = torch.tensor([position.get(names[k], -1) for k in rows.y.tolist()])
    known = (y >= 0).nonzero().flatten()
    return replace(rows, x=rows.x[:, known], y=y[known], counts=model.counts, class_names=model.class_names)
