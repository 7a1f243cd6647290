"""From a comparison to the contents of its report: the same numbers, and a closer look at a few of its heads."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from poise.advice import Advice
from poise.artefact import Model
from poise.closer import SHIFTS, pulls, scored
from poise.comparison import Comparison, Standing, gain_of
from poise.deployment import Deployed
from poise.exhibits import (
    EDGES,
    MOST_SHIFTED,
    changes_of,
    classes_of,
    closer_look,
    intervals,
    path_of,
    per_class,
    point_of,
    readings,
)
from poise.headroom import LearningCurve
from poise.methods import short_name
from poise.metrics import Moments, scores, tally_and_moments, total, weight_norms
from poise.paths import Trace, over_epochs, over_strengths, traces
from poise.report import contents as page
from poise.report.contents import Contents
from poise.report.protocol import ENDS, protocol_facts
from poise.spec import Spec
from poise.types import Features, Problem, Scores

__all__ = ["contents_of", "contents_of_model"]

LOOKED_AT = 6  # methods, if rows and classes are few enough
MOST_PULLS = 5e11  # multiplications on training rows, beyond which gradients are left out
MOST_PER_CLASS = 400_000  # numbers per class and method that a report carries
MOST_TRAINED = 1e12  # floating-point operations that the paths of a method may cost
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
    more_traces: Sequence[Trace] = (),
    thumbnails: Mapping[str, tuple[str, ...]] | None = None,
    advice: Advice | None = None,
    curve: LearningCurve | None = None,
) -> Contents:
    """What the report of a comparison shows.

    `test` are the rows that it was scored on; `problem` is the one that was compared on: its training rows give the
    gradients, and paths over epochs are trained on it (None where there are only logits). `facts` are said beside those
    of the records. `more_traces` are of the test rows, for looking only. `command` repeats the run.
    """
    standings = sorted(comparison.standings, key=lambda standing: -(standing.mean("balanced_accuracy") or 0.0))
    searched = [standing for standing in standings if standing.role == "tuned" and standing.family in comparison.tried]
    chosen = {standing.family: Spec.parse(standing.method) for standing in searched}
    paths = [path_of(trace, "selection") for trace in traces(comparison.tried, chosen)]
    if problem is not None:
        paths += _trained_paths(searched, problem, test, seed)
    return Contents(
        title=title,
        scored_on=f"{len(test):,} test rows",
        verdict=_verdict(comparison),
        classes=classes_of(test.names, test.counts, test.y.cpu()),
        rows=_rows(comparison, standings, test),
        paths=(*paths, *(path_of(trace, "test") for trace in more_traces)),
        closer=_closer(comparison, standings, test, problem),
        changes=_changes(comparison),
        thumbnails=dict(thumbnails or {}),
        advice=None if advice is None else _advised(advice),
        learning_curve=() if curve is None else _sizes(curve),
        protocol=page.Protocol(
            facts=tuple(
                page.Named(name=name, text=text)
                for name, text in {**protocol_facts(comparison.records), **(facts or _meant(comparison))}.items()
                if name != ENDS  # the rows say it of each method
            ),
            remarks=(*comparison.remarks, *notes),
            command=command,
        ),
    )


def _meant(comparison: Comparison) -> dict[str, str]:
    """For which class prior the probabilities of the recommended head are meant, as a fact."""
    if comparison.recommended is None:
        return {}
    words = {"train": "classes as common as in training", "uniform": "classes that are equally common"}
    known = words.get(comparison.recommended.records[0].implied_prior or "")
    return {"probabilities": f"meant for {known}" if known else "of no known class prior: poise fit calibrates for one"}


# --- verdict, classes, rows -------------------------------------------------------------------------------------------


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
    )


def _rows(comparison: Comparison, standings: Sequence[Standing], test: Features) -> tuple[page.Row, ...]:
    """The rows of the comparison, which come in the order of the standings, with what only the test rows tell."""
    ranges = intervals(torch.stack([standing.correct for standing in standings]), test.y.cpu(), test.counts)
    few = len(standings) * len(test.counts) * 5 <= MOST_PER_CLASS
    found = []
    for i, (standing, row) in enumerate(zip(standings, comparison.rows, strict=True)):
        update: dict[str, Any] = {"scores": {name: values[i] for name, values in ranges.items()}}
        if few:
            magnitudes, spreads = readings(standing.measured[0].sums.moments)
            recalls = standing.records[0].scores.per_class
            update |= {"per_class": recalls, "magnitude": magnitudes, "spread": spreads}
        found.append(row.model_copy(update=update))
    return tuple(found)


# --- a closer look ----------------------------------------------------------------------------------------------------


def _closer(
    comparison: Comparison, standings: list[Standing], test: Features, problem: Problem | None
) -> tuple[page.Closer, ...]:
    cells = len(test) * len(test.counts)
    affordable = min(LOOKED_AT, max(2, int(MOST_SHIFTED / len(SHIFTS) / cells)))
    found = []
    for standing in _looked_at(comparison, standings)[:affordable]:
        pull = push = torch.empty(0)
        head = standing.scorers[0].head
        if problem is not None and problem.train.x[0].numel() * len(test.counts) * affordable <= MOST_PULLS:
            pull, push = pulls(head, problem.train)
        # Of logits that were given there is no head whose norms would tell anything.
        norms = torch.empty(0) if problem is None else weight_norms(head)
        seen = closer_look(standings.index(standing), scored(standing.scorers, test), test.counts, cells)
        found.append(
            seen.model_copy(update={"norms": per_class(norms), "pull": per_class(pull), "push": per_class(push)})
        )
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


# --- paths, changes, advice -------------------------------------------------------------------------------------------


def _trained_paths(standings: Sequence[Standing], problem: Problem, test: Features, seed: int) -> list[page.Path]:
    """Paths that have to be trained: over epochs, and along the strength that a paper is about.

    On the rows that chose, where there are such; else on the test rows, for looking only.
    """
    found = []
    rows, judged = (test, "test") if problem.held_out is None else (problem.held_out, "selection")
    for standing in standings:
        if standing.family.then is not None or standing.family.name not in STRENGTHS:
            continue
        settings, spec = standing.records[0].settings[0], Spec.parse(standing.method)
        parameter, values = STRENGTHS[spec.name]
        visits = settings["epochs"] * len(problem.train) * (2 + len(values))
        if 6.0 * visits * problem.train.dim * len(test.counts) > MOST_TRAINED:
            continue
        selected = float(settings[parameter])
        along = over_strengths(spec, parameter, sorted({*values, selected}), problem, rows, seed)
        traced = [over_epochs(spec, problem, rows, seed), along._replace(selected=selected)]
        found += [path_of(trace, judged) for trace in traced if trace is not None]
    return found


def _changes(comparison: Comparison) -> tuple[page.Change, ...]:
    """The recall of every class with rows, before and after."""
    after, before = comparison.recommended, comparison.baseline
    return () if after is None or after is before else changes_of(after.correct, before.correct, comparison.y)


def _advised(advice: Advice) -> page.Advised:
    return page.Advised(
        sentence=advice.sentence,
        rows=advice.rows,
        label=tuple(row.label for row in advice.table),
        gain=tuple(row.gain for row in advice.table),
        error=tuple(row.error for row in advice.table),
        head_gain=tuple(row.head_gain for row in advice.table),
        chosen=advice.chosen,
    )


def _sizes(curve: LearningCurve) -> tuple[page.Size, ...]:
    return tuple(
        page.Size(**point_of(float(size), scores).model_dump())
        for size, scores in zip(curve.sizes, curve.scores, strict=True)
    )


# --- a model without a test split -------------------------------------------------------------------------------------


def contents_of_model(
    made: Deployed,
    *,
    title: str,
    sentence: str,
    held_out: bool,
    command: str | None = None,
    notes: Sequence[str] = (),
) -> Contents:
    """What the report of a fitted model shows: its answers on the unseen rows that chose and calibrated it.

    `held_out`: were these rows held out, or training rows set aside in folds? There is no decision in the report: rows
    that chose a head flatter it.

    Raises: ValueError if there are no such rows.
    """
    model, unseen, before = made
    if unseen is None:
        raise ValueError("a model that no unseen rows chose has nothing to report")
    y, counts = unseen.y.cpu(), model.counts
    seen = [(model.method, "tuned", unseen), *([] if before is None else [("stage1", "baseline", before)])]
    sums = [tally_and_moments(found.logits, y) for _, _, found in seen]
    right = torch.stack([hits.double() for _, _, hits in sums])
    ranges = intervals(right, y, counts)
    rows = tuple(
        _model_row(
            method, role, scores(total([sums[i][0]]), counts, many=EDGES[0], few=EDGES[1]), sums[i][1]
        ).model_copy(update={"scores": {name: found[i] for name, found in ranges.items()}})
        for i, (method, role, _) in enumerate(seen)
    )
    cells = unseen.logits.numel()
    return Contents(
        title=title,
        scored_on=f"{len(y):,} {'held-out' if held_out else 'training'} rows"
        + (", which chose the settings" if held_out else ", each by a head that was fitted without it"),
        verdict=page.Verdict(
            decision="fitted",
            sentence=sentence,
            level=0.95,
            baseline=seen[-1][0],
            recommended=model.method,
            null=None,
            gain=None,
            oracle=None,
            gap_closed=None,
            tied=None,
            contenders=len(rows),
        ),
        classes=classes_of(model.class_names, counts, y),
        rows=rows,
        closer=tuple(
            closer_look(i, [(found.logits, y)], counts, cells).model_copy(
                update={"norms": per_class(weight_norms(model.head)) if i == 0 else ()}
            )
            for i, (_, _, found) in enumerate(seen)
        ),
        changes=() if before is None else changes_of(right[0], right[1], y),
        protocol=page.Protocol(
            facts=tuple(page.Named(name=name, text=text) for name, text in _model_facts(model).items()),
            remarks=tuple(notes),
            command=command,
        ),
    )


def _model_facts(model: Model) -> dict[str, str]:
    """What is known of a model, as names and texts."""
    about = model.provenance
    versions = about.get("versions") or {}
    facts = {
        "method": model.method,
        "data": str(about.get("data", "")),
        "training rows": str(about.get("train", "")),
        "probabilities are for": model.meant_for,
        "operating point": ", ".join(model.operating.described()) if model.operating else "",
        "seed": str(about.get("seed", "")),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return {name: text for name, text in facts.items() if text}


def _model_row(method: str, role: str, found: Scores, moments: Moments) -> page.Row:
    magnitudes, spreads = readings(moments)
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
        scores={},
        macro_f1=found.macro_f1,
        nll=found.nll,
        ece=found.ece,
        loma_variation=None,
        gain=None,
        per_class=found.per_class,
        magnitude=magnitudes,
        spread=spreads,
    )
