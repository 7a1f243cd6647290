"""Many methods on one problem: fitted together, measured in one pass each, recorded."""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from poise.errors import Message
from poise.heads.converged import Optimum, optima
from poise.heads.solver import Retrain, fit_heads, with_stage1
from poise.machine.processes import ALONE, World
from poise.machine.progress import Progress
from poise.methods import Chain, from_spec, implied_prior, settings, traits_of
from poise.metrics import (
    Moments,
    Tally,
    coefficient_of_variation,
    logits_of_all,
    magnitude,
    scores,
    tally_and_moments,
    total,
)
from poise.results.record import Record, Role, Selection, versions
from poise.results.scores import Scores
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Method, Problem
from poise.values.spec import Spec

Kind = TypeVar("Kind")


class Fitted(NamedTuple):
    """A head and the seconds it took: its own, and its equal share of the pass or path that several share."""

    head: Head
    seconds: float


class Sums(NamedTuple):
    """What is kept of some rows of one head: sums that add up over chunks and folds, and rows right (n,) bool."""

    tally: Tally
    moments: Moments
    correct: Tensor


class Measured(NamedTuple):
    """What one head does on a split: its scores, the variation of its Logits Magnitude, and the sums they come from."""

    scores: Scores
    loma_variation: float | None
    sums: Sums

    @property
    def correct(self) -> Tensor:
        """(N,) bool: rows that the head gets right."""
        return self.sums.correct


def fit_methods(
    problem: Problem, methods: Sequence[Method], seed: int = 0, *, progress: Progress | None = None
) -> list[Fitted]:
    """One head per method. What can be fitted together is, first steps of chains too.

    Trained methods share one pass of `fit_heads`; penalties of one loss that are fitted to convergence share a path.
    """
    problem = with_stage1(problem, seed)
    firsts = dict(enumerate(method.methods[0] if isinstance(method, Chain) else method for method in methods))
    trained = {i: first for i, first in firsts.items() if isinstance(first, Retrain)}
    converged = {i: first for i, first in firsts.items() if isinstance(first, Optimum)}
    heads = {
        **_together(trained, lambda recipes: fit_heads(problem, recipes, seed, progress=progress)),
        **_together(converged, lambda methods: optima(problem, methods)),
    }
    return [_finish(problem, method, seed, heads.get(i)) for i, method in enumerate(methods)]


def _together(methods: Mapping[int, Kind], fit: Callable[[list[Kind]], Sequence[Head]]) -> dict[int, Fitted]:
    """The heads of methods that one call fits, each with an equal share of the seconds, by the numbers of methods."""
    begun = time.perf_counter()
    heads = fit(list(methods.values()))
    share = (time.perf_counter() - begun) / max(len(methods), 1)
    return {i: Fitted(head, share) for i, head in zip(methods, heads, strict=True)}


def _finish(problem: Problem, method: Method, seed: int, first: Fitted | None) -> Fitted:
    begun = time.perf_counter()
    if first is None:
        return Fitted(method(problem, seed), time.perf_counter() - begun)
    head = first.head
    for following in method.methods[1:] if isinstance(method, Chain) else ():
        head = following(replace(problem, head=head), seed)
    return Fitted(head, first.seconds + time.perf_counter() - begun)


def fit_specs(
    problem: Problem, specs: Sequence[Spec], seed: int = 0, *, progress: Progress | None = None
) -> dict[Spec, Fitted]:
    """One head per different spec, all in one pass."""
    different = tuple(dict.fromkeys(specs))
    fitted = fit_methods(problem, [from_spec(spec) for spec in different], seed, progress=progress)
    return dict(zip(different, fitted, strict=True))


def sums_of(heads: Sequence[Head], rows: Features, world: World = ALONE) -> list[Sums]:
    """The sums of every head over `rows`, which are read once, in chunks.

    Of several processes each reads its share of the rows, and all get the sums over all of them.
    """
    nothing = rows.y[:0]
    found = [tally_and_moments(torch.zeros(0, head.classes, device=nothing.device), nothing)[:2] for head in heads]
    correct = torch.zeros(len(heads), len(rows), dtype=torch.uint8)
    for i, chunk, logits, y in logits_of_all(heads, rows, world.own(len(rows))):
        counted, spread, right = tally_and_moments(logits, y)
        found[i] = (total([found[i][0], counted]), total([found[i][1], spread]))
        correct[i, chunk] = right.cpu()
    for tensor in () if world.alone else (*(t for pair in found for sums in pair for t in sums), correct):
        world.add(tensor)
    return [Sums(*pair, right.bool()) for pair, right in zip(found, correct, strict=True)]


def measured(parts: Sequence[Sums], counts: ClassCounts) -> Measured:
    """What the sums of all parts say; `counts` (C,) are those of the training split."""
    sums = _joined(parts)
    variation = coefficient_of_variation(magnitude(sums.moments))
    return Measured(scores(sums.tally, counts), variation if math.isfinite(variation) else None, sums)


def measure(head: Head, rows: Features) -> Measured:
    """What `head` does on `rows`, in one pass over them."""
    return measure_all([head], rows)[0]


def measure_all(heads: Sequence[Head], rows: Features, world: World = ALONE) -> list[Measured]:
    """What every head does on `rows`, in one pass over them that the processes of `world` share."""
    return [measured([sums], rows.counts) for sums in sums_of(heads, rows, world)]


def _joined(parts: Sequence[Sums]) -> Sums:
    correct = torch.cat([part.correct for part in parts]).cpu()
    return Sums(total(part.tally for part in parts), total(part.moments for part in parts), correct)


@contextmanager
def remarks_of() -> Iterator[list[str]]:
    """Collects the warnings of its block, each once, in the list that it gives; they go into records, not to stderr."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    found.extend(dict.fromkeys(Message(warning.message) for warning in caught))


def make_record(
    spec: Spec,
    measured: Measured,
    *,
    role: Role,
    data: str,
    train: Features,
    rows: Features,
    seed: int,
    seconds: float,
    selection: Selection | None = None,
    remarks: Sequence[str] = (),
) -> Record:
    """The record of a head of `spec`, trained on `train` and measured on `rows`."""
    return Record(
        method=str(spec),
        settings=tuple(settings(step) for step in spec.steps),
        role=role,
        data=data,
        train=train.key,
        test=rows.key,
        seed=seed,
        selection=selection,
        implied_prior=implied_prior(spec),
        transductive=any(traits.transductive for traits in traits_of(spec)),
        scores=measured.scores,
        loma_variation=measured.loma_variation,
        seconds=seconds,
        versions=versions(),
        remarks=tuple(remarks),
    )
