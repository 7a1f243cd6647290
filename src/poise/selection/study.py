"""Searching the open settings of a method with many trials, in one process or in many that share a folder.

The first trials cover the ranges of `poise.selection.grids.axes` evenly, the later ones are drawn by Optuna's TPE
sampler from what was found. Every trial is judged as `poise.selection.tune.tune` judges a setting. See
`poise.selection.shared_trials` for what the folder holds beside trials.csv, and for what happens to trials of processes
that die.
"""

import csv
import hashlib
import io
import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poise.errors import InputError, PoiseWarning
from poise.heads.solver import with_stage1
from poise.machine.atomic import write_atomically
from poise.machine.folders import seal, unseal
from poise.machine.progress import Progress, part_of
from poise.methods import from_spec
from poise.results.scores import Scores
from poise.selection.grids import Axis, axes, filled, short
from poise.selection.rules import USUAL, Judging
from poise.selection.shared_trials import FIRST, JOURNAL, Worker, joined
from poise.selection.tune import pick
from poise.selection.validation import Judgement, judge, order
from poise.values.fields import whole
from poise.values.head import Head
from poise.values.overlap import warn_of_overlap
from poise.values.problem import Problem
from poise.values.spec import Spec

RESULTS = "trials.csv"
SCHEMA = 1
EDGE = 0.05  # a best value in this outer share of its range lies at the end of it


class Tried(NamedTuple):
    """A finished trial: its setting, the metric, the scores (without recalls per class), and who measured it."""

    spec: Spec
    value: float
    scores: Scores
    seconds: float
    number: int
    worker: str

    @property
    def method(self) -> str:
        """The setting as text."""
        return str(self.spec)


class Studied(NamedTuple):
    """Where a study stands when a worker leaves it.

    `best` is None as long as no trial has finished. `trials` are the finished ones of all workers, in order, of which
    `own` were measured by this one; `running` are in the hands of others that live. `repeated` were left by dead
    workers and taken up again. `written` is the table of the finished trials.
    """

    best: Spec | None
    trials: tuple[Tried, ...]
    own: int
    running: int
    repeated: int
    written: Path

    @property
    def ranked(self) -> list[Tried]:
        """The finished trials, the best first."""
        return _best_first(self.trials)


def study(
    spec: Spec | str,
    problem: Problem,
    folder: str | Path,
    judging: Judging = USUAL,
    *,
    trials: int = 64,
    together: int = 16,
    progress: Progress | None = None,
) -> Studied:
    """Search the open settings of `spec`, alone or as one of many workers that make the same call on one folder.

    The first worker creates the study, the others join it. Each takes up to `together` settings at once, whose heads
    are fitted in one pass. `trials` is the total of all workers and calls: a worker leaves when so many are finished
    or in the hands of living workers, and a later call with a larger number goes on. A method whose open settings are
    all listed choices is tried with every combination once. Rules, metrics and ties are those of
    `poise.selection.tune.tune`, chosen by `judging`; a best value at the end of its range is warned of (PoiseWarning).

    A worker alone finds the same for the same seed. One that is interrupted or killed leaves the trials in its hands
    to the next one.

    Raises: InputError for a folder that holds the study of something else, or cannot be written or locked, and for a
    wrong argument; MemorisedRowsError for rows that trained the representation; MissingExtraError without Optuna.
    """
    spec, folder = Spec.parse(spec) if isinstance(spec, str) else spec, Path(folder)
    _check(spec, trials, together)
    warn_of_overlap({"training": problem.train, "held-out": problem.held_out})
    openings = _openings(spec)
    first = _first(openings, judging.seed)
    total = min(trials, len(first)) if _is_listed(openings) else trials
    ranges = {each.name: each.axis for each in openings}
    identity = _identity(spec, problem, ranges, judging)
    remarks: dict[str, None] = {}
    with joined(folder, identity, ranges, first, judging.seed) as worker:
        unseal(folder)  # it is unfinished while somebody works at it
        while batch := worker.take(total, together):
            if judging.select == "held_out":
                problem = with_stage1(problem, judging.seed)  # once, not for every batch
            settings = {number: _setting(spec, openings, params) for number, params in batch.items()}
            tick = part_of(progress, len(worker.finished()), total, len(batch))
            if tick is not None:
                tick(0, 1)
            judgement = judge(tuple(dict.fromkeys(settings.values())), problem, judging, progress=tick)
            remarks |= dict.fromkeys(judgement.remarks)
            with worker.alone():
                worker.give(_measured(settings, judgement, judging.metric))
                _write(folder, _tried(worker))
        with worker.alone():
            studied = _stand(folder, worker)
            if not studied.running:
                seal(folder, [RESULTS, JOURNAL])
    for remark in (*remarks, *_edge(studied.best, openings)):
        warnings.warn(remark, PoiseWarning, stacklevel=2)
    return studied


def _check(spec: Spec, trials: int, together: int) -> None:
    from_spec(spec)  # refuses a misspelt name or parameter
    for name, value in (("trials", trials), ("together", together)):
        whole(1).check(name, value)


# --- the space --------------------------------------------------------------------------------------------------------


class Opening(NamedTuple):
    """An open parameter: its name in the study, the number of its step, and the axis that its values are drawn from.

    An axis `with_zero` goes on below the `lowest` number by a quarter of its length; values there stand for 0.
    """

    name: str
    step: int
    axis: Axis
    lowest: float

    def value(self, drawn: Any) -> Any:
        """What a drawn value sets."""
        if self.axis.choices:
            return drawn
        return 0.0 if drawn < self.lowest else short(drawn)

    def end(self, value: Any) -> float | None:
        """The end of the range that a set value lies at, None within it and where nothing can lie beyond."""
        high = self.axis.high
        if self.axis.choices or value == 0:
            return None
        scale = math.log if self.axis.log else float
        share = (scale(value) - scale(self.lowest)) / (scale(high) - scale(self.lowest))
        end = high if share > 1 - EDGE else self.lowest if share < EDGE and not self.axis.with_zero else None
        return None if end in self.axis.limits else end


def _openings(spec: Spec) -> tuple[Opening, ...]:
    return tuple(_opening(spec, number, axis) for number, axis in axes(spec))


def _opening(spec: Spec, number: int, axis: Axis) -> Opening:
    name = axis.parameter if len(spec.steps) == 1 else f"{number + 1}.{axis.parameter}"
    low, high = axis.low, axis.high
    if axis.with_zero:
        axis = axis._replace(low=low / (high / low) ** 0.25 if axis.log else low - (high - low) / 4)
    return Opening(name, number, axis, low)


def _is_listed(openings: Sequence[Opening]) -> bool:
    return all(each.axis.choices for each in openings)


def _first(openings: Sequence[Opening], seed: int) -> list[dict[str, Any]]:
    """The settings to begin with: every combination of choices, or points that cover the ranges evenly."""
    if _is_listed(openings):
        names = [each.name for each in openings]
        return [dict(zip(names, row, strict=True)) for row in itertools.product(*(e.axis.choices for e in openings))]
    engine = torch.quasirandom.SobolEngine(len(openings), scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    points = engine.draw(FIRST, dtype=torch.float64)
    return [{each.name: each.axis.at(u) for each, u in zip(openings, row, strict=True)} for row in points.tolist()]


def _setting(spec: Spec, openings: Sequence[Opening], params: Mapping[str, Any]) -> Spec:
    """The spec with the values of a trial in its open parameters. Raises: InputError for a trial that lacks one."""
    if missing := [each.name for each in openings if each.name not in params]:
        raise InputError(f"a trial of the study has no {missing[0]}: journal.log is damaged; restore it from a copy")
    free = [(each.step, each.axis) for each in openings]
    return filled(spec, free, [each.value(params[each.name]) for each in openings])


def _edge(best: Spec | None, openings: Sequence[Opening]) -> list[str]:
    """A sentence for the best values that lie at the end of their ranges."""
    if best is None:
        return []
    ends = [(e.axis.parameter, e.end(dict(best.steps[e.step].params)[e.axis.parameter])) for e in openings]
    beyond = [f"{name}={end:g}" for name, end in ends if end is not None]
    if not beyond:
        return []
    return [f"the best of the study, {best}, lies at the end of its range: try values beyond {', '.join(beyond)}"]


# --- what is measured -------------------------------------------------------------------------------------------------


def _identity(spec: Spec, problem: Problem, ranges: Mapping[str, Axis], judging: Judging) -> dict[str, str]:
    """What must be the same for two values to belong into one study, in words and keys."""
    held_out, groups = problem.held_out, judging.groups
    same = {
        "schema": SCHEMA,
        "method": f"{spec} ({', '.join(f'{name} {each}' for name, each in ranges.items())})",
        "training rows": problem.train.key,
        "held-out rows": None if held_out is None else held_out.key,
        "head": None if problem.head is None else _head_key(problem.head),
        "rule": judging.select,
        "metric": judging.metric,
        "seed": judging.seed,
    }
    if judging.select == "kfold":
        same |= {"folds": judging.folds, "groups": None if groups is None else _digest(_plain(groups))}
    return {key: "none" if value is None else str(value) for key, value in same.items()}


def _plain(groups: Tensor | Sequence[object]) -> bytes:
    values = groups.tolist() if isinstance(groups, Tensor) else groups
    return "\n".join(map(str, values)).encode()


def _head_key(head: Head) -> str:
    tensors = (head.weight, head.bias, *([] if head.prep is None or head.prep.centre is None else [head.prep.centre]))
    parts = (tensor.contiguous().cpu().view(torch.uint8).numpy().tobytes() for tensor in tensors)
    return _digest(*parts, str(head.prep is not None and head.prep.unit).encode())


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _measured(
    settings: Mapping[int, Spec], judgement: Judgement, metric: str
) -> dict[int, tuple[float, dict[str, Any]]]:
    """Value and details of every trial by its number. A value that is no finite number is the worst there is."""
    pick(judgement, tuple(judgement.trials), metric)  # refuses a metric without a value
    found = {}
    for number, spec in settings.items():
        measured, seconds, _ = judgement.trials[spec]
        value = float(getattr(measured.scores, metric))
        scores = {key: score for key, score in measured.scores.to_dict().items() if key != "per_class"}
        details = {"method": str(spec), "scores": scores, "seconds": seconds}
        found[number] = (value if math.isfinite(value) else -math.inf, details)
    return found


# --- what is known ----------------------------------------------------------------------------------------------------


def _tried(worker: Worker) -> tuple[Tried, ...]:
    return tuple(
        Tried(
            Spec.parse(each.details["method"]),
            each.value,
            Scores(**each.details["scores"], per_class=()),
            each.details["seconds"],
            each.number,
            each.worker,
        )
        for each in worker.finished()
    )


def _stand(folder: Path, worker: Worker) -> Studied:
    trials = _tried(worker)
    own = sum(tried.worker == worker.name for tried in trials)
    best = _best_first(trials)[0].spec if trials else None
    return Studied(best, trials, own, worker.running(), worker.repeated, _write(folder, trials))


def _best_first(trials: Sequence[Tried]) -> list[Tried]:
    return sorted(trials, key=lambda tried: order(tried.spec, tried.value, tried.scores.nll))


def _write(folder: Path, trials: Sequence[Tried]) -> Path:
    """Write trials.csv: one line per finished trial, empty where there is no value."""
    out = io.StringIO()
    scores = [field.name for field in fields(Scores) if field.name not in ("per_class", "rows")]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["trial", "method", "value", *scores, "seconds", "worker"])
    for each in trials:
        values = (getattr(each.scores, name) for name in scores)
        writer.writerow([each.number, each.method, each.value, *values, each.seconds, each.worker])
    return write_atomically(folder / RESULTS, out.getvalue())
