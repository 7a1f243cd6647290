"""Lines of the report: the protocol box, and what labelled rows would give."""

from dataclasses import replace

import pytest
import torch

from poise import testing
from poise.decisions.targets import Targets
from poise.deployment.chosen_point import choose_operating_point
from poise.diagnosis.compare import compare
from poise.errors import PoiseWarning
from poise.report.text.label_advice import headroom_lines
from poise.results.protocol import protocol_lines
from poise.results.record import Record
from poise.selection.labelling import advice
from poise.selection.oracle import learning_curve
from poise.values.features import Features
from poise.values.problem import Problem


def study() -> tuple[Problem, Features]:
    problem = testing.world(counts=(60, 25, 9), held_out=60)
    rows = problem.held_out
    assert rows is not None
    first = torch.arange(len(rows)) % 2 == 0
    held_out, test = (rows.take(chosen.nonzero().flatten()) for chosen in (first, ~first))
    return replace(problem, held_out=held_out), test


def records() -> list[Record]:
    problem, test = study()
    return compare(["ncm"], problem, test, budget=3, data="birds").records


def test_the_protocol_names_splits_rule_rows_settings_seeds_and_versions() -> None:
    found = records()
    lines = protocol_lines(found)
    first = found[0]
    assert lines[0] == f"data: birds; training rows {first.train}, evaluated rows {first.test} (90)"
    assert lines[1] == "seeds: 0"
    assert lines[2].startswith("settings: chosen by balanced_accuracy on held_out: 90 labelled rows (")
    assert lines[2].endswith("1 to 3 settings per method") or lines[2].endswith("3 settings per method")
    assert lines[-1].startswith("versions: python ")
    assert "torch" in lines[-1]


def test_the_papers_protocol_says_that_it_chose_on_the_test_split() -> None:
    problem, test = study()
    found = compare(["ncm"], problem, test, selection="paper", budget=3, data="birds").records
    assert protocol_lines(found)[2].startswith(
        "settings: chosen by accuracy on the test split itself, as the papers did: 90 labelled rows ("
    )


def test_transductive_rows_and_edges_are_marked() -> None:
    base = [record for record in records() if record.selection is not None]
    edged = replace(base[0], transductive=True, selection=replace(base[0].selection, edges=("tau=1.9",)))
    text = "\n".join(protocol_lines([edged]))
    assert f"transductive (reads the evaluated rows): {edged.method}" in text
    assert f"best value at the end of its range: {edged.method}: tau=1.9" in text


def test_a_protocol_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        protocol_lines([])


def test_the_curve_is_a_line_per_size_and_the_advice_comes_last() -> None:
    problem, test = study()
    curve, advised = learning_curve(problem, test, sizes=(0, 5)), advice(problem, test, rows=5).told
    lines = headroom_lines(curve, advised)
    assert len(lines) == 4
    for line, size in zip(lines[1:3], curve, strict=True):
        assert line.split()[:2] == [f"{size.value:.0f}", f"{100 * size.balanced:.1f}"]
        assert line.count("/") == 2
    assert lines[-1] == advised.sentence
    assert headroom_lines(learning_curve(problem, test, sizes=(0,)), advised) == [advised.sentence]


def test_a_promise_that_too_few_rows_cannot_keep_is_told() -> None:
    problem, test = study()
    assert problem.head is not None
    few = test.take(torch.cat([(test.y == k).nonzero().flatten()[:n] for k, n in enumerate((30, 30, 4))]))
    with pytest.warns(PoiseWarning, match="1 of 3 classes have too few held-out rows for this alpha and are in every"):
        choose_operating_point(problem.head, few, Targets(alpha=0.1), trained_on=problem.train)
