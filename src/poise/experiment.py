"""Many methods on one problem: fitted together, evaluated once."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from poise.methods import Chain, Method, entries, from_spec, implied_prior, settings
from poise.metrics import coefficient_of_variation, logit_chunks, magnitude, moments, scores, tally, total
from poise.record import Record, versions
from poise.solver import Retrain, fit_heads, with_stage1
from poise.spec import Spec
from poise.types import Features, Head, Problem, Scores

__all__ = ["Fitted", "fit_methods", "measure", "run"]

Progress = Callable[[int, int], None]


class Fitted(NamedTuple):
    """A head and the seconds it took: its own, and its equal share of the pass that trained several."""

    head: Head
    seconds: float


def fit_methods(
    problem: Problem, methods: Sequence[Method], seed: int = 0, *, progress: Progress | None = None
) -> list[Fitted]:
    """One head per method; trained methods, and trained first steps of chains, share one pass of `fit_heads`."""
    problem = with_stage1(problem, seed)
    firsts = [method.methods[0] if isinstance(method, Chain) else method for method in methods]
    trained = [i for i, first in enumerate(firsts) if isinstance(first, Retrain)]
    begun = time.perf_counter()
    recipes = [first for first in firsts if isinstance(first, Retrain)]
    heads = dict(zip(trained, fit_heads(problem, recipes, seed, progress=progress), strict=True))
    share = (time.perf_counter() - begun) / max(len(trained), 1)
    return [_finish(problem, method, seed, heads.get(i), share) for i, method in enumerate(methods)]


def _finish(problem: Problem, method: Method, seed: int, head: Head | None, share: float) -> Fitted:
    begun = time.perf_counter()
    if head is None:
        return Fitted(method(problem, seed), time.perf_counter() - begun)
    if isinstance(method, Chain):
        for following in method.methods[1:]:
            head = following(replace(problem, head=head), seed)
    return Fitted(head, share + time.perf_counter() - begun)


def measure(head: Head, test: Features) -> tuple[Scores, float]:
    """Scores and the Logits Magnitude variation of `head` on `test`, in one pass over its rows."""
    sums = [(tally(logits, y), moments(logits, y)) for logits, y in logit_chunks(head, test)]
    result = scores(total(part for part, _ in sums), test.counts)
    return result, coefficient_of_variation(magnitude(total(part for _, part in sums)))


def run(
    specs: Sequence[Spec],
    problem: Problem,
    test: Features,
    *,
    data: str,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Record]:
    """Fit every spec with its stated settings and evaluate each head once on `test`. Nothing is selected.

    Warnings become remarks of the records; one that arises while many heads are trained belongs to all of them.
    """
    methods = [from_spec(spec) for spec in specs]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted = fit_methods(problem, methods, seed, progress=progress)
    remarks = tuple(dict.fromkeys(str(warning.message) for warning in caught))
    if problem.head is None:
        remarks = ("there was no stage-1 head: plain cross-entropy was fitted on the training rows instead", *remarks)
    table, made_with = entries(), versions()
    records = []
    for spec, (head, seconds) in zip(specs, fitted, strict=True):
        result, variation = measure(head, test)
        records.append(
            Record(
                method=str(spec),
                settings=tuple(settings(step) for step in spec.steps),
                data=data,
                train=problem.train.key,
                test=test.key,
                seed=seed,
                selected_on=None,
                implied_prior=implied_prior(spec),
                transductive=any(table[step.name].traits.transductive for step in spec.steps),
                scores=result,
                loma_variation=variation,
                seconds=seconds,
                versions=made_with,
                remarks=remarks,
            )
        )
    return records
