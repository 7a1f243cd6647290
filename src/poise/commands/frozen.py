"""A backbone that nothing here trains: which rows make the head, and how it stands beside a comparison of others.

Such a backbone knows the training rows no better than any others, so that all of them choose by cross-validation and
make the head; none need be held out. That is known of weights as their makers published them. Of weights of the user's
own it is not: rows that came as a split of their own then choose, as rows that these may not have seen.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from poise.commands.config import Backbone, Config
from poise.data.rows_aside import rows_aside
from poise.data.splits import Splits
from poise.deployment.model import Model
from poise.methods import traits_of
from poise.results.record import Record, versions
from poise.selection.comparison_result import Comparison, Scorer, Standing
from poise.selection.fit_and_measure import measure
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem
from poise.values.spec import Spec

FITTED = Spec("fitted")  # the family of the head that was fitted, in a comparison
NEVER = -1e4  # the logit of a class that a model does not know


class Rows(NamedTuple):
    """The problem that a head is made for, rows for an operating point alone, groups (N,) of the training rows."""

    problem: Problem
    deciding: Features | None = None
    groups: Sequence[str] | None = None
    remarks: tuple[str, ...] = ()


def is_published(backbone: Backbone) -> bool:
    """Are its weights those that its makers published, and not the user's own?"""
    kind, _, name = backbone.name.partition(":")
    if backbone.weights is not None:
        return False
    return backbone.pretrained or (kind in ("sentence", "hf") and not Path(name).exists())


def rows_of(problem: Problem, config: Config, splits: Splits, method: str, *, decides: bool, seed: int) -> Rows:
    """The rows of a run whose backbone was not trained; `decides`: is an operating point to be chosen?

    Held-out rows join the training rows, unless they decide, or choose because the method needs such, because a
    long tail was cut that they would fill, or because they came apart from training and the weights are the user's own.
    What decides or is needed and was not held out is set aside now, a fifth.
    """
    train, held_out = problem.train, problem.held_out
    groups: Sequence[str] | None = splits.train.groups
    published = is_published(config.backbone)
    if published:
        train = replace(train, seen_by_backbone=False)
    needs = method != "auto" and any(traits.needs_held_out for traits in traits_of(Spec.parse(method)))
    if held_out is None and (needs or decides):
        train, held_out, groups = rows_aside(train, groups, seed)
        what = f"for {method}, which needs such rows" if needs else "to choose the operating point on"
        said = (f"{len(held_out)} of the training rows were set aside {what}",)
        if needs:
            return Rows(Problem(train, None, held_out), None, groups, said)
        return Rows(Problem(train), held_out, groups, said)
    if held_out is None:
        return Rows(Problem(train), None, groups)
    apart = splits.origins["held_out"].split != "train"
    if needs or config.data.profile is not None or (apart and not published):
        return Rows(Problem(train, None, held_out), None, groups)
    if decides:
        return Rows(Problem(train), held_out, groups)
    more = None if splits.held_out is None else splits.held_out.groups
    return Rows(Problem(_joined(train, held_out)), None, None if groups is None or more is None else (*groups, *more))


def _joined(train: Features, more: Features) -> Features:
    """Both as training rows; by the test-time view alone where they have not the same number of views."""
    views = slice(None) if len(train.x) == len(more.x) else slice(1)
    y = torch.cat([train.y, more.y])
    counts = ClassCounts.from_labels(y, len(train.counts))
    return replace(train, x=torch.cat([train.x[views], more.x[views]], dim=1), y=y, counts=counts)


def with_fitted(comparison: Comparison, model: Model, train: Features, test: Features, seed: int) -> Comparison:
    """The comparison with the fitted model as one more row, which is what the verdict speaks of."""
    head = over_classes(model, test.names)
    found = measure(head, test)
    record = Record(
        method=model.method,
        settings=(),
        role="tuned",
        data=comparison.records[0].data,
        train=train.key,
        test=test.key,
        seed=seed,
        selection=None,
        implied_prior=None,
        transductive=False,
        scores=found.scores,
        loma_variation=found.loma_variation,
        seconds=0.0,
        versions=versions(),
    )
    row = Standing(
        family=FITTED,
        method=model.method,
        role="tuned",
        records=(record,),
        measured=(found,),
        scorers=(Scorer(head, None),),
    )
    return replace(comparison, standings=(*comparison.standings, row), recommended=row, fitted=True)


def over_classes(model: Model, names: Sequence[str]) -> Head:
    """The head of a model with one row per name, in their order; a class that it does not know is never answered."""
    head, place = model.head, {name: k for k, name in enumerate(model.class_names)}
    if model.class_names == tuple(names):
        return head
    weight = head.weight.new_zeros(len(names), head.dim)
    bias = head.bias.new_full((len(names),), NEVER)
    for k, name in enumerate(names):
        if name in place:
            weight[k], bias[k] = head.weight[place[name]], head.bias[place[name]]
    return replace(head, weight=weight, bias=bias)
