"""From a comparison to the contents of its report: the same numbers, and a closer look at a few of its heads."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from poise.decisions.targets import guarantee_in_words
from poise.deployment.calibration import Deployed
from poise.deployment.model import Model
from poise.diagnosis.measure import (
    EDGES,
    MOST_SHIFTED,
    SHIFTS,
    Weights,
    changes,
    intervals,
    look,
    norms,
    pulls,
    readings,
    scored,
    shifts_within,
)
from poise.methods import short_name
from poise.metrics import tally_and_moments
from poise.results import contents as page
from poise.results.contents import Contents
from poise.results.protocol import ENDS, protocol_facts
from poise.selection.comparison_result import Comparison, Standing, gain_of
from poise.selection.fit_and_measure import Measured, Sums, measured
from poise.selection.score_curves import over_epochs, over_settings, over_strengths, path
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.problem import Problem
from poise.values.spec import Spec

LOOKED_AT = 6  # methods, if rows and classes are few enough
MOST_PULLS = 5e11  # multiplications on training rows, beyond which gradients are left out
MOST_PER_CLASS = 400_000  # numbers per class and method that a report carries
MOST_TRAINED = 1e12  # floating-point operations that the paths of a method may cost
# What the rows are that a model is shown on, by whether they were held out.
JUDGED = MappingProxyType(
    {
        True: "held-out rows, which chose the settings",
        False: "training rows, each by a head that was fitted without it",
        None: "labelled rows, which nothing was chosen on",
    }
)
# Methods whose number of epochs is a strength, and the number that their paper is about, from off to extreme.
STRENGTHS = MappingProxyType({"los": ("delta", (0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995))})


def contents_of(
    comparison: Comparison,
    test: Features,
    *,
    title: str,
    problem: Problem | None = None,
    seed: int = 0,
    command: str | None = None,
    notes: Sequence[str] = (),
    facts: Mapping[str, str] | None = None,
    more_paths: Sequence[page.Path] = (),
) -> Contents:
    """What the report of a comparison shows.

    `test` are the rows that it was scored on; `problem` is the one that was compared on: its training rows give the
    gradients, and paths over epochs are trained on it (None where there are only logits). `facts` are said beside those
    of the records. `more_paths` are those found elsewhere. `command` repeats the run.
    """
    standings = sorted(comparison.standings, key=lambda standing: -(standing.mean("balanced_accuracy") or 0.0))
    searched = [standing for standing in standings if standing.role == "tuned" and standing.family in comparison.tried]
    chosen = {standing.family: Spec.parse(standing.method) for standing in searched}
    trained = () if problem is None else _trained_paths(searched, problem, test, seed)
    said = {**protocol_facts(comparison.records), **(facts or _meant(comparison))}
    said.pop(ENDS, None)  # the rows say it of each method
    return Contents(
        title=title,
        scored_on=f"{len(test):,} test rows",
        verdict=_verdict(comparison),
        classes=_classes(test.names, test.counts, test.y.cpu()),
        rows=_rows(comparison, standings, test),
        paths=(*over_settings(comparison.tried, chosen), *trained, *more_paths),
        closer=_closer(comparison, standings, test, problem),
        changes=_changes(comparison),
        protocol=_protocol(said, (*comparison.remarks, *notes), command),
    )


def _protocol(facts: Mapping[str, str], remarks: Sequence[str], command: str | None) -> page.Protocol:
    named = tuple(page.Named(name=name, text=text) for name, text in facts.items())
    return page.Protocol(facts=named, remarks=tuple(remarks), command=command)


def _meant(comparison: Comparison) -> dict[str, str]:
    """For which class prior the probabilities of the recommended head are meant, as a fact."""
    if comparison.recommended is None:
        return {}
    words = {"train": "classes as common as in training", "uniform": "classes that are equally common"}
    known = words.get(comparison.recommended.records[0].implied_prior or "")
    return {"probabilities": f"meant for {known}" if known else "of no known class prior: poise fit calibrates for one"}


# --- verdict, classes, rows -------------------------------------------------------------------------------------------


def _classes(names: tuple[str, ...], counts: ClassCounts, y: Tensor) -> page.Classes:
    """The classes, with labels y (N,) of the rows that were scored."""
    group = {k: name for name, mask in counts.shots(*EDGES).items() for k in mask.nonzero().flatten().tolist()}
    return page.Classes(
        names=names,
        counts=tuple(counts.n.tolist()),
        scored=tuple(torch.bincount(y, minlength=len(counts)).tolist()),
        groups=tuple(group[k] for k in range(len(counts))),  # type: ignore[misc]
        edges=EDGES,
    )


def _verdict(comparison: Comparison) -> page.Verdict:
    chosen = comparison.recommended
    return page.Verdict(
        decision=comparison.decision,
        sentence=comparison.verdict(),
        level=comparison.level,
        baseline=comparison.baseline.method,
        recommended=None if chosen is None else chosen.method,
        null=None if comparison.null is None else comparison.null.method,
        gain=gain_of(comparison.gain),
        oracle=comparison.oracle,
        gap_closed=comparison.gap_closed,
        tied=None if chosen is None else len(comparison.tied()),
        contenders=len(comparison.contenders),
        held=comparison.held,
    )


def _rows(comparison: Comparison, standings: Sequence[Standing], test: Features) -> tuple[page.Row, ...]:
    """The rows of the comparison, which come in the order of the standings, with what only the test rows tell."""
    ranges = intervals(torch.stack([standing.correct for standing in standings]), test.y.cpu(), test.counts)
    few = len(standings) * len(test.counts) * 5 <= MOST_PER_CLASS
    found = []
    for i, (standing, row) in enumerate(zip(standings, comparison.rows, strict=True)):
        update: dict[str, Any] = {"scores": ranges[i]}
        found.append(row.model_copy(update=update | (_by_class(standing.measured[0]) if few else {})))
    return tuple(found)


def _by_class(found: Measured) -> dict[str, Any]:
    """The lists per class of a row."""
    magnitudes, spreads = readings(found.sums.moments)
    return {"per_class": found.scores.per_class, "magnitude": magnitudes, "spread": spreads}


# --- a closer look ----------------------------------------------------------------------------------------------------


def _closer(
    comparison: Comparison, standings: list[Standing], test: Features, problem: Problem | None
) -> tuple[page.Closer, ...]:
    cells = len(test) * len(test.counts)
    affordable = min(LOOKED_AT, max(2, int(MOST_SHIFTED / len(SHIFTS) / cells)))
    found = []
    for standing in _looked_at(comparison, standings)[:affordable]:
        head = standing.scorers[0].head
        pull: page.PerClass = ()
        push: page.PerClass = ()
        if problem is not None and problem.train.x[0].numel() * len(test.counts) * affordable <= MOST_PULLS:
            pull, push = pulls(head, problem.train)
        # Of logits that were given there is no head whose norms would tell anything.
        weights = Weights(() if problem is None else norms(head), pull, push)
        chunks, shifts = scored(standing.scorers, test), shifts_within(cells)
        found.append(look(standings.index(standing), chunks, test.counts, weights=weights, shifts=shifts))
    return tuple(found)


def _looked_at(comparison: Comparison, standings: Sequence[Standing]) -> list[Standing]:
    """Baseline, recommended and null, then the best tuned rows, one per method; only those whose heads are known."""
    first = [comparison.baseline, comparison.recommended, comparison.null]
    wanted = [standing for standing in first if standing is not None and standing in standings]
    wanted = [standing for i, standing in enumerate(wanted) if standing not in wanted[:i]]
    names = {standing.family.name for standing in wanted}
    for standing in standings:
        if standing.role == "tuned" and standing.family.name not in names:
            names.add(standing.family.name)
            wanted.append(standing)
    return [standing for standing in wanted if standing.scorers]


# --- paths and changes ------------------------------------------------------------------------------------------------


def _trained_paths(standings: Sequence[Standing], problem: Problem, test: Features, seed: int) -> list[page.Path]:
    """Paths that have to be trained: over epochs of what is trained, and along the strength that a paper is about.

    On the rows that chose, where there are such; else on the test rows, for looking only.
    """
    paths = []
    rows = test if problem.held_out is None else problem.held_out
    judged: page.Where = "test" if problem.held_out is None else "selection"
    for standing in standings:
        if standing.family.then is not None or standing.family.name not in STRENGTHS:
            continue
        settings, spec = standing.records[0].settings[0], Spec.parse(standing.method)
        parameter, values = STRENGTHS[spec.name]
        visits = settings["epochs"] * len(problem.train) * (2 + len(values))
        if 6.0 * visits * problem.train.dim * len(test.counts) > MOST_TRAINED:
            continue
        selected = float(settings[parameter])
        strengths = sorted({*values, selected})
        tried = over_strengths(spec, parameter, strengths, problem, rows, seed)
        epochs = over_epochs(spec, problem, rows, seed)
        if epochs:
            paths.append(path(spec, "epoch", enumerate(epochs), rows=judged, selected=len(epochs) - 1))
        along = zip(strengths, (each.scores for each in tried), strict=True)
        paths.append(path(spec, parameter, along, rows=judged, selected=selected))
    return paths


def _changes(comparison: Comparison) -> tuple[page.Change, ...]:
    """The recall of every class with rows, before and after."""
    after, before = comparison.recommended, comparison.baseline
    return () if after is None or after is before else changes(after.correct, before.correct, comparison.y)


# --- a model without a test split -------------------------------------------------------------------------------------


def contents_of_model(
    made: Deployed,
    *,
    title: str,
    sentence: str,
    held_out: bool | None,
    command: str | None = None,
    notes: Sequence[str] = (),
) -> Contents:
    """What the report of a fitted model shows: its answers on unseen rows.

    `held_out`: were these rows held out, or training rows set aside in folds? Either way they chose and calibrated it,
    and there is no decision in the report: rows that chose a head flatter it. None: nothing was chosen on them.

    Raises: ValueError if there are no such rows.
    """
    model, unseen, before = made
    if unseen is None:
        raise ValueError("a model that no unseen rows chose has nothing to report")
    y, counts = unseen.y.cpu(), model.counts
    logits = [found.logits for found in (unseen, before) if found is not None]
    found = [measured([Sums(*tally_and_moments(each, y))], counts) for each in logits]
    right = torch.stack([each.correct.double() for each in found])
    named = ((model.method, "tuned"), ("stage1", "baseline"))
    rows = tuple(_model_row(*each) for each in zip(named, found, intervals(right, y, counts), strict=False))
    weights, shifts = (Weights(norms(model.head)), Weights()), shifts_within(unseen.logits.numel())
    return Contents(
        title=title,
        scored_on=f"{len(y):,} {JUDGED[held_out]}",
        verdict=_fitted(sentence, rows, "evaluated" if held_out is None else "fitted"),
        classes=_classes(model.class_names, counts, y),
        rows=rows,
        closer=tuple(look(i, [(each, y)], counts, weights=weights[i], shifts=shifts) for i, each in enumerate(logits)),
        changes=() if before is None else changes(right[0], right[1], y),
        protocol=_protocol(_model_facts(model), notes, command),
    )


def _fitted(sentence: str, rows: Sequence[page.Row], decision: Literal["fitted", "evaluated"]) -> page.Verdict:
    """What is said of a model, the first of the rows, which no test split has judged."""
    return page.Verdict(
        decision=decision,
        sentence=sentence,
        level=0.95,
        baseline=rows[-1].method,
        recommended=rows[0].method,
        null=None,
        gain=None,
        oracle=None,
        gap_closed=None,
        tied=None,
        contenders=len(rows),
    )


def _model_facts(model: Model) -> dict[str, str]:
    """What is known of a model, as names and texts."""
    about = model.provenance
    point = model.operating.described() if model.operating else []
    versions = about.get("versions") or {}
    parts = (about.get("estimator") or {}).get("choice") or []
    facts = {
        "method": model.method,
        "average of": ", ".join(f"{100 * part['weight']:.0f} % {part['method']}" for part in parts),
        "data": str(about.get("data", "")),
        "training rows": str(about.get("train", "")),
        "probabilities are for": model.meant_for,
        "operating point": ", ".join([*point, *guarantee_in_words(about.get("guaranteed"))]),
        "seed": str(about.get("seed", "")),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return {name: text for name, text in facts.items() if text}


def _model_row(named: tuple[str, str], found: Measured, ranges: dict[str, page.Range | None]) -> page.Row:
    """The row of a (method, role)."""
    method, role = named
    return page.Row(
        method=method,
        own=short_name(method),
        family=method.split("(")[0],
        role=role,  # type: ignore[arg-type]
        recommended=role == "tuned",
        tied=None,
        transductive=False,
        implied_prior=None,
        selected="",
        edges="",
        seconds=0.0,
        scores=ranges,
        macro_f1=found.scores.macro_f1,
        nll=found.scores.nll,
        ece=found.scores.ece,
        loma_variation=None,
        gain=None,
        **_by_class(found),
    )
