"""From labelled rows to a deployable model: a head chosen honestly, calibrated, for a stated prior, with decisions.

Rows alone go through `LongTailClassifier`; a trained model's own head is adjusted or re-trained by the methods that
`compare` tunes. Both end as the same `Model`.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from poise.decisions.operating_point import OperatingPoint
from poise.decisions.targets import Targets
from poise.deployment.calibration import Deployed, Evidence, at_chance, calibrate, copies, deployed, final, weights_to
from poise.deployment.certifying_rows import dealt
from poise.deployment.chosen_point import point_on
from poise.deployment.model import Model
from poise.deployment.promise import SPREAD, Judged, Promise, apart, as_provenance, promise_of
from poise.errors import InputError, MemorisedRowsError, PoiseWarning
from poise.heads.memorised_rows import refuse_memorised
from poise.machine.progress import Progress
from poise.methods import implied_prior
from poise.priors import as_prior
from poise.results.record import versions
from poise.selection.grids import BUDGET, default_grid
from poise.selection.rules import NULLS, Judging
from poise.selection.tune import pick, recommend
from poise.selection.validation import Judgement, judge_grids
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.overlap import SAID, warn_of_overlap
from poise.values.problem import Problem
from poise.values.spec import Spec

# What a given head is offered: the two nulls, and one method of each kind that trains.
FAMILIES = (Spec("stage1"), *NULLS, Spec("balanced_softmax"), Spec("class_balanced"), Spec("crt"), Spec("los"))


def deploy(
    problem: Problem,
    *,
    method: str = "auto",
    prior: Any = "uniform",
    targets: Targets | None = None,
    groups: Tensor | Sequence[object] | None = None,
    seed: int = 0,
    selected: bool = False,
    certify: Features | None = None,
    progress: Progress | None = None,
) -> Deployed:
    """The model for a problem: a head for the class prior of deployment, calibrated on unseen rows, and decisions.

    Beside it stands what the unseen rows say of it (`Deployed`).

    Without a stage-1 head this is `LongTailClassifier`, with held-out rows if the problem has them; its model has the
    classes that have training rows. With one, "auto" tunes tau-norm, logit adjustment and four trained methods on the
    held-out rows and takes the recommendation of `compare`; a named method runs as stated. What was chosen by balanced
    accuracy, here or before (`selected`: the settings of `method` were), is meant for uniform classes: for that prior
    its decisions stay what they were when it was chosen. What was chosen before promises no recall here: the rows that
    chose it flatter it by an amount that is not known.

    `prior` and costs follow the classes of the training rows; `targets` choose an operating point on the rows
    `certify`, which were put aside for that before and leave the choice of the head to all others; without such rows on
    the held-out ones, or where they promise an accuracy or a precision on a part of them that chose nothing
    (`certifying_rows`).

    Raises: MemorisedRowsError, InputError if something has to be chosen and there are no unseen rows to choose on, or
    many of these are training rows.
    """
    targets = targets or Targets()
    train, rows = problem.train, problem.held_out
    targets.check_classes(train, len(train.counts) if problem.head is not None else len(_present(train)))
    _check_held_out(problem, needed=targets.need_rows and certify is None)
    warn_of_overlap({"training": train, "held-out": certify if rows is None else rows})
    unseen = certify
    if certify is not None:
        dealt(Problem(train, held_out=certify), targets, seed, folds=True)  # refuses too few rows for a promise
    else:
        folds = problem.head is None and method == "auto" and train.seen_by_backbone is False
        problem, unseen = dealt(problem, targets, seed, folds=folds)
    if problem.head is None:
        made = _from_rows(problem, method, prior, groups, seed)
        classes = made.model.class_names
        _remark_left_out(rows, classes)
        unseen = None if unseen is None else replace(_of_classes(unseen, classes), counts=made.model.counts)
    else:
        made = _from_head(problem, method, prior, seed, selected, progress)
    model = made.model.with_provenance(versions=versions(), train=train.key, seed=seed)
    if targets.guarantee is not None:
        model = model.with_provenance(guaranteed=targets.guarantee)
    return made._replace(model=replace(model, operating=_operating(model, train, unseen, targets, seed)))


def _check_held_out(problem: Problem, *, needed: bool) -> None:
    train, rows = problem.train, problem.held_out
    if rows is None:
        if needed:
            raise InputError("an operating point is chosen on rows that were not trained on; give held-out rows")
        return
    if rows.seen_by_backbone:
        raise MemorisedRowsError("the held-out rows trained the representation; give rows that the backbone never saw")
    if rows.same_rows(train):
        raise MemorisedRowsError("the held-out rows are the training rows; give rows that nothing was trained on")


def expectation(promise: Promise | None, prior: Any) -> str:
    """What the recall on unseen rows means, in words, with its interval and the classes that it speaks of."""
    word = prior if isinstance(prior, str) else "given"
    kind = {"uniform": "balanced accuracy", "train": "accuracy"}.get(word, "accuracy under the given prior")
    return f"{kind} on unseen rows: {'none is promised' if promise is None else promise.text}"


# --- rows alone -------------------------------------------------------------------------------------------------------


def _from_rows(problem: Problem, method: str, prior: Any, groups: Any, seed: int) -> Deployed:
    """The estimator's model: its classes are those with training rows, in its order."""
    train, names = problem.train, problem.train.names
    y = [names[k] for k in train.y.tolist()]
    classes = _present(train)
    unseen = None if problem.held_out is None else _of_classes(problem.held_out, classes)
    held_out = None if unseen is None else (unseen.x[0].double().numpy(), [classes[k] for k in unseen.y.tolist()])
    weight = None if train.weight is None else train.weight.numpy()
    target = prior if isinstance(prior, str) else _prior_of(prior, train, classes)
    from poise.deployment.estimator import (
        LongTailClassifier,  # scikit-learn, which `predict` does without, loads for seconds
    )

    classifier = LongTailClassifier(method, target, train.seen_by_backbone, seed)
    x = train.x[0].double().numpy()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", SAID)  # of all held-out rows, before some of them were put aside
        evidence = classifier.fit_with_evidence(x, y, sample_weight=weight, groups=groups, held_out=held_out)
    model = classifier.model().with_provenance(**as_provenance(classifier.promise_))
    return Deployed(model, evidence)


def _present(train: Features) -> list[str]:
    """The names of the classes with training rows, in the order of the estimator."""
    y = train.y if train.weight is None else train.y[train.weight > 0]
    names = train.names
    return sorted(names[k] for k in set(y.tolist()))


def _prior_of(prior: Any, train: Features, classes: Sequence[str]) -> list[float]:
    """The shares of `classes`. Raises: InputError if the prior gives a share to a class without training rows."""
    shares = dict(zip(train.names, as_prior(prior, train.counts).tolist(), strict=True))
    for name, share in shares.items():
        if share > 0 and name not in classes:
            raise InputError(f"the prior gives {name!r} the share {share:g}, but it has no training row; set it to 0")
    return [shares[name] for name in classes]


def _of_classes(rows: Features, classes: Sequence[str]) -> Features:
    """The rows of these classes, numbered in their order."""
    names = rows.names
    position = {name: k for k, name in enumerate(classes)}
    y = torch.tensor([position.get(names[k], -1) for k in rows.y.tolist()])
    known = (y >= 0).nonzero().flatten()
    counts = ClassCounts(rows.counts.n.clamp_min(1)[[names.index(name) for name in classes]])
    return replace(rows.take(known), y=y[known], counts=counts, class_names=tuple(classes))


def _remark_left_out(rows: Features | None, classes: Sequence[str]) -> None:
    """Warn of held-out rows of other classes than the model has."""
    left = 0 if rows is None else sum(rows.names[k] not in classes for k in rows.y.tolist())
    if left:
        message = f"{left} held-out rows were left out: their classes have no training row"
        warnings.warn(message, PoiseWarning, stacklevel=3)


# --- a given head -----------------------------------------------------------------------------------------------------


def offered(method: str) -> dict[Spec, tuple[Spec, ...]]:
    """The settings that are tried for a given head, by family: those of "auto", or a named method as it stands."""
    if method == "auto":
        return {family: default_grid(family, BUDGET) for family in FAMILIES}
    return {Spec.parse(method): (Spec.parse(method),)}


def _from_head(
    problem: Problem, method: str, prior: Any, seed: int, selected: bool, progress: Progress | None
) -> Deployed:
    rows = problem.held_out
    if rows is None:
        raise InputError(
            "to choose and calibrate for a given head, held-out rows are needed that neither it nor the backbone saw"
        )
    target = as_prior(prior, problem.train.counts)
    grids = offered(method)
    judgement = judge_grids(grids.values(), problem, Judging(seed=seed), progress=progress)
    for remark in judgement.remarks:
        warnings.warn(remark, PoiseWarning, stacklevel=3)
    chosen = {family: pick(judgement, grid)[0] for family, grid in grids.items()}
    family = recommend(judgement, NULLS, chosen)[1] if method == "auto" else Spec.parse(method)
    spec = chosen[family]
    head = judgement.trials[spec].head
    assert head is not None  # one head was fitted on all training rows
    known = _meant_for(spec, target, problem.train.counts, chosen=selected or method == "auto")
    seen = Evidence(head(rows.x[0]).double(), rows.y, torch.ones(len(rows), dtype=torch.float64))
    temperature, implied = calibrate(seen, problem.train.counts.prior, known)
    ending = final(seen, temperature, implied, target)
    promise = None if selected else _promise(judgement, spec, ending, copies(rows.x[0]), target, problem.train.names)
    if (said := at_chance(ending, spec, target)) is not None:
        warnings.warn(said, stacklevel=3)
    model = Model(
        head=deployed(head, temperature, implied, target),
        class_names=problem.train.names,
        counts=problem.train.counts,
        prior_applied=target,
        method=str(spec),
        provenance={"held_out": rows.key, **as_provenance(promise)},
    )
    before = seen._replace(logits=problem.head(rows.x[0]).double())  # type: ignore[misc]  # it was given
    return Deployed(model, ending, before)


def _promise(
    judgement: Judgement, spec: Spec, ending: Evidence, units: Tensor, target: Tensor, names: Sequence[str]
) -> Promise | None:
    """What the chosen head promises: its recall on the held-out rows, less what it owes to being chosen on them.

    That is how much worse the best setting of four fifths of the rows does on the last fifth; one setting owes nothing.
    """
    rows = Judged(ending.y, ending.weight, units)
    hits = torch.stack([trial.measured.correct.double() for trial in judgement.trials.values()])
    uniform = torch.full_like(target, 1 / len(target))

    def best(some: Tensor) -> int:
        return int((hits[:, some] @ weights_to(rows.y[some], rows.weight[some], uniform)).argmax())

    flattered = hits[list(judgement.trials).index(spec)] - apart(hits, rows, best)
    right = (ending.logits.argmax(dim=-1) == ending.y).double()
    return promise_of(right - flattered, rows, target, names, spread=SPREAD if len(hits) > 1 else 1.0)


def _meant_for(spec: Spec, target: Tensor, counts: ClassCounts, *, chosen: bool) -> Tensor | None:
    """The class prior that the head of `spec` is meant for; None if it has to be estimated.

    What won by balanced accuracy is meant for uniform classes, whatever its formula says of defaults and whatever loss
    trained the head that it started from.
    """
    uniform = as_prior("uniform", counts)
    if chosen and torch.allclose(target, uniform):
        return uniform
    word = implied_prior(spec) or ("uniform" if chosen else None)
    return None if word is None else as_prior(word, counts)


# --- decisions --------------------------------------------------------------------------------------------------------


def _operating(
    model: Model, train: Features, unseen: Features | None, targets: Targets, seed: int
) -> OperatingPoint | None:
    """The operating point of the model; None if nothing is asked for."""
    wanted = replace(targets, costs=_costs_of(model, train, targets.costs))
    if not targets.need_rows:
        plain = OperatingPoint(costs=wanted.costs, top_k=targets.top_k)
        return plain if plain.described() else None
    assert unseen is not None
    refuse_memorised(unseen, model.head, trained_on=train, purpose="an operating point")
    return point_on(unseen, model.head, wanted, model.prior_applied, seed)


def _costs_of(model: Model, train: Features, costs: Any) -> Any:
    """Costs (C,) or (C, C) in the order of the model's classes."""
    if costs is None:
        return None
    names = train.names
    order = [names.index(name) for name in model.class_names]
    given = torch.as_tensor(costs, dtype=torch.float64)
    return (given[order] if given.ndim == 1 else given[order][:, order]).tolist()
