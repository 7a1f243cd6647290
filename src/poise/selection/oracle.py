"""How much a better head can give at all, and where more labelled rows would give more.

An oracle head is trained on the training rows and on labelled rows that neither backbone nor head ever saw. No head
fitted without such rows should be expected to beat it by much, so the way from the stage-1 head to it is what a head
can gain on these features; the rest is in the representation. Where no rows can be spared, both parts come from one
labelled split: heads are trained with one half of it and scored on the other, in turn (cross-fitted).

The recipe was chosen by hand on two sets like the shipped ones, cross-fitted on the test rows (50 extra rows per class;
balanced accuracy in per cent; stage-1 heads 38.7 and 42.5). Balanced softmax from the stage-1 head on training and
extra rows, 10 epochs: 46.6 and 52.8 when all rows weigh the same, 47.7 and 53.3 when an extra row counts as three
memorised ones. From a fresh start: 47.7 and 53.7 (counting as five: the same), but a point less without extra rows. cRT
on the same rows: 47.4 and 53.3; cross-entropy on them: 45.5 and 50.2, on the extra rows alone: 46.6 and 52.7; LDA on
these: 45.7 and 50.6. Weight decay of 5e-4 or more cost 2 points or more. With 34,676 extra rows a head of another
script reached 49.7 on the first set: an oracle of few rows is a floor of the ceiling. Small problems get more epochs,
so that no head stops after a few steps.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from poise.errors import InputError
from poise.folds import fold_ids, with_copies
from poise.heads.memorised_rows import refuse_memorised
from poise.heads.plan import Plan
from poise.heads.solver import with_stage1
from poise.methods import build
from poise.metrics import Tally, logit_chunks, scores, tally, total
from poise.results.contents import Size
from poise.results.scores import Scores
from poise.values.checks import is_whole
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.overlap import warn_of_overlap
from poise.values.problem import Method, Problem
from poise.values.randomness import Stream

EXTRA_WEIGHT = 3.0  # of a row that the backbone never saw, beside rows that it has memorised
EPOCHS = 10
STEPS = 500  # at least, where an epoch has few
SIZES = (0, 5, 10, 20, 50, 100, 200)


def oracle_head(problem: Problem, extra: Features, seed: int = 0) -> Head:
    """The head trained on the training rows and on `extra` labelled rows that nothing was trained on.

    Score it on rows that are in neither. Where the backbone never saw the training rows either, all rows weigh the
    same; else an extra row counts three times. Reads the test-time view of both.

    Raises: MemorisedRowsError for extra rows that trained the backbone, or of which many are training rows; InputError
    if their classes or features do not fit.
    """
    problem = checked(problem, extra, "an oracle head", seed, name="extra")
    return enlarged_head(problem, extra, torch.arange(len(extra)), seed)


def oracle_scores(problem: Problem, labelled: Features, seed: int = 0) -> Scores:
    """Scores of oracle heads on `labelled`, cross-fitted: each half of it is scored by the head trained with the other.

    The halves are stratified. A class of a single labelled row is scored without an extra row of it.

    Raises: as `oracle_head`; InputError for fewer than 2 rows.
    """
    problem = checked(problem, labelled, "an oracle head", seed)
    parts = []
    for rest, scored in halves(labelled.y, seed, with_copies(labelled.x[0])):
        parts.append(_tally(enlarged_head(problem, labelled, rest, seed), labelled.take(scored)))
    return scores(total(parts), problem.train.counts)


def oracle_accuracy(problem: Problem, labelled: Features, seed: int = 0) -> float:
    """Balanced accuracy of cross-fitted oracle heads on `labelled`; see `oracle_scores`."""
    return oracle_scores(problem, labelled, seed).balanced_accuracy


def gap_closed(stage1: float, best: float, oracle: float) -> float | None:
    """Share of the way from `stage1` to `oracle` that `best` goes, all in one measure; None if there is no way to go.

    >>> gap_closed(0.4, 0.45, 0.5)
    0.5
    """
    return round((best - stage1) / (oracle - stage1), 12) if oracle > stage1 else None


def learning_curve(
    problem: Problem, labelled: Features | None = None, *, sizes: Sequence[int] | None = None, seed: int = 0
) -> tuple[Size, ...]:
    """What labelled rows would give: scores on `labelled` of heads trained with some rows per class of it, too.

    One entry per size, ascending: the heads have up to so many extra rows of every class (a class that has fewer gives
    all it has).

    Cross-fitted: rows of one half are added, rows of the other are scored, in turn, so that no row does both. Smaller
    draws are parts of larger ones. `sizes` are by default those of 0, 5, 10, 20, 50, 100, 200 that most classes can
    fill. Without `labelled`, the training rows take its place if the backbone never saw them: then sizes are all rows
    per class that a head is trained with, not extra ones.

    Raises: as `oracle_scores`; InputError for sizes that are no ascending whole numbers, or more than any class has.
    """
    only = labelled is None
    rows = _own_rows(problem) if labelled is None else labelled
    if labelled is not None:
        problem = checked(problem, labelled, "a learning curve", seed)
    parts = [(draws(rows.y, rest, seed), rest, scored) for rest, scored in halves(rows.y, seed, with_copies(rows.x[0]))]
    chosen = _sizes(sizes, rows.y, parts, 1 if only else 0)
    tallies: dict[int, list[Tally]] = {size: [] for size in chosen}
    for place, rest, scored in parts:
        for size in chosen:
            added = rest[place < size]
            head = _alone(rows, added, seed) if only else enlarged_head(problem, rows, added, seed)
            tallies[size].append(_tally(head, rows.take(scored)))
    return tuple(Size.of(size, scores(total(found), problem.train.counts)) for size, found in tallies.items())


def _tally(head: Head, rows: Features) -> Tally:
    return total(tally(z, y) for z, y in logit_chunks(head, rows))


def _own_rows(problem: Problem) -> Features:
    if problem.train.seen_by_backbone is not False:
        raise InputError(
            "a learning curve needs labelled rows that the backbone never saw; give them, or state that the training "
            "rows are such rows with Features(..., seen_by_backbone=False)"
        )
    return problem.train


def _sizes(
    given: Sequence[int] | None, y: Tensor, parts: list[tuple[Tensor, Tensor, Tensor]], least: int
) -> tuple[int, ...]:
    """The sizes asked for, or those of the standard ones that half of the classes present can fill in both halves."""
    available = torch.stack([torch.bincount(y.cpu()[rest], minlength=int(y.max()) + 1) for _, rest, _ in parts])
    fewest = available.min(dim=0).values[torch.bincount(y.cpu()) > 0]
    if given is None:
        most = max(int(fewest.median()), least)
        return tuple(size for size in SIZES if least <= size <= most) or (most,)
    if not given or not all(is_whole(size) and size >= least for size in given) or sorted(set(given)) != list(given):
        raise InputError(f"sizes must be ascending whole numbers of at least {least}, got {list(given)}")
    if given[-1] > int(available.max()):
        raise InputError(
            f"a size of {given[-1]} rows per class was asked for, half of the labelled rows has at most "
            f"{int(available.max())} of a class; ask for less"
        )
    return tuple(int(size) for size in given)


# --- heads with extra rows -------------------------------------------------------------------------------------------


def checked(problem: Problem, labelled: Features, purpose: str, seed: int, *, name: str = "test") -> Problem:
    """The problem with a stage-1 head; `name` is what the labelled rows are called. Raises: as the functions above say.

    Usually they are the test split; under that name, a command that has read it before says of it the same.
    """
    train = problem.train
    if (len(labelled.counts), labelled.dim) != (len(train.counts), train.dim):
        raise InputError(
            f"the labelled rows have {len(labelled.counts)} classes and {labelled.dim} features, the training rows "
            f"have {len(train.counts)} and {train.dim}"
        )
    problem = with_stage1(problem, seed)
    assert problem.head is not None
    refuse_memorised(labelled, problem.head, trained_on=train, purpose=purpose)
    warn_of_overlap({"training": train, name: labelled})
    return problem


def halves(y: Tensor, seed: int, groups: Tensor | Sequence[object] | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """(other rows, scored rows) of two stratified halves of labels y (N,), in turn; `groups` (N,) stay whole."""
    ids = fold_ids(y, 2, groups=groups, seed=seed)
    for half in range(2):
        yield (ids != half).nonzero().flatten(), (ids == half).nonzero().flatten()


def draws(y: Tensor, rows: Tensor, seed: int) -> Tensor:
    """Place 0, 1, ... of each of `rows` within its class, in random order: those below m are m rows per class."""
    order = torch.from_numpy(np.random.default_rng([seed, Stream.LABELLED]).permutation(len(rows)))
    labels = y.cpu()[rows]
    dealt = order[labels[order].argsort(stable=True)]
    n = torch.bincount(labels)
    place = torch.empty_like(dealt)
    place[dealt] = torch.arange(len(rows)) - (n.cumsum(0) - n)[labels[dealt]]
    return place


def enlarged_head(problem: Problem, labelled: Features, rows: Tensor, seed: int) -> Head:
    """The head of the recipe above, trained on the training rows and on some `rows` of `labelled`, maybe none."""
    train = problem.train
    per_row = 1.0 if train.seen_by_backbone is False else EXTRA_WEIGHT
    own = torch.ones(len(train), dtype=torch.float64) if train.weight is None else train.weight.cpu()
    # The weights of a user's rows have a scale of their own; an extra row weighs as much as their mean, times its part.
    weight = torch.cat([own, torch.full((len(rows),), per_row * float(own.mean()), dtype=torch.float64)])
    x = torch.cat([train.x[0].to(train.dtype), labelled.x[0, rows].to(train.x.device, train.dtype)])
    y = torch.cat([train.y, labelled.y[rows].to(train.y.device)])
    n = train.counts.n + (per_row * torch.bincount(labelled.y[rows], minlength=len(train.counts))).to(train.counts.n)
    union = Features(x, y, ClassCounts(n), train.seen_by_backbone, train.class_names, weight)
    return recipe(len(y))(Problem(union, problem.head), seed)


def recipe(rows: int) -> Method:
    """Balanced softmax for 10 epochs of `rows`, or as many as make 500 steps."""
    return build("balanced_softmax", epochs=max(EPOCHS, math.ceil(STEPS / Plan().steps(rows))))


def _alone(rows: Features, chosen: Tensor, seed: int) -> Head:
    """The head of the recipe trained on some rows and nothing else."""
    part = rows.take(chosen)
    counts = ClassCounts.from_labels(part.y, len(rows.counts), part.weight)
    alone = Features(part.x[0], part.y, counts, part.seen_by_backbone, weight=part.weight)
    return recipe(len(part))(Problem(alone), seed)
