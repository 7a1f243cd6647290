"""`compare`: the test split is read once and last, recipes stay outside, and the verdict may be to keep the head."""

import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from poise import methods, testing
from poise.diagnosis.compare import compare
from poise.errors import InputError, MemorisedRowsError, PoiseWarning
from poise.folds import fold_ids
from poise.heads.converged import converged
from poise.heads.solver import fit_heads, with_stage1
from poise.methods.published import Published
from poise.metrics import evaluate
from poise.results.contents import CSV_FIELDS
from poise.results.record import Selection
from poise.results.scores import Interval
from poise.selection.class_rows import ClassRows, tiny
from poise.selection.comparison_result import PAPER_VERDICT, Comparison, Standing
from poise.selection.fit_and_measure import fit_specs, make_record, measure
from poise.selection.grids import default_grid
from poise.selection.rules import NULLS, PLAIN
from poise.selection.schedule import scheduled
from poise.selection.test_split import uncovered
from poise.selection.tune import tune
from poise.statistics import paired_difference, recalls, simultaneous_intervals
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem
from poise.values.spec import Spec

BASELINE = Spec("stage1")
CRT = "crt(epochs=2,lr=1.0)"
PROTOCOLS = ("held_out", "kfold", "cross_fit", "paper")
each_protocol = pytest.mark.parametrize("selection", PROTOCOLS)


def study(
    *, counts: tuple[int, ...] = (60, 25, 9, 4), each: int = 10, test_each: int = 12, seen: bool = False, **more
) -> tuple[Problem, Features]:
    """A small problem and a test split from the same classes."""
    problem = testing.world(counts=counts, held_out=each + test_each, **more)
    rows = problem.held_out
    assert rows is not None
    first = torch.arange(len(rows)) % (each + test_each) < each
    train = replace(problem.train, seen_by_backbone=seen)
    held_out, test = (rows.take(chosen.nonzero().flatten()) for chosen in (first, ~first))
    return replace(problem, train=train, held_out=held_out), test


def correct_of(head: Head, rows: Features) -> torch.Tensor:
    return head(rows.x[0]).argmax(dim=-1) == rows.y


def balanced(correct: torch.Tensor, y: torch.Tensor) -> float:
    return float(recalls(correct.double(), y).mean())


# --- comparisons made by hand ----------------------------------------------------------------------------------------

Y = torch.arange(4).repeat_interleave(25)
COUNTS = ClassCounts(torch.tensor([200, 50, 50, 10]))


def standing(
    text: str,
    *right: torch.Tensor,
    role: str = "tuned",
    selection: Selection | None = None,
    y: torch.Tensor = Y,
) -> Standing:
    """The standing of a method that gets exactly these test rows right, one mask (N,) per seed."""
    spec, identity = Spec.parse(text), Head(torch.eye(4), torch.zeros(4))
    measured, records = [], []
    for seed, mask in enumerate(right):
        guess = torch.where(mask, y, (y + 1) % 4)
        rows = Features(torch.nn.functional.one_hot(guess, 4).float(), y, COUNTS)
        measured.append(measure(identity, rows))
        records.append(
            make_record(
                spec,
                measured[-1],
                role=role,
                data="by hand",
                train=rows,
                rows=rows,
                seed=seed,
                seconds=1.0 + seed,
                selection=selection,
            )
        )
    return Standing(family=spec, method=text, role=role, records=tuple(records), measured=tuple(measured))


def right(share: float, seed: int = 0) -> torch.Tensor:
    """(N,) bool: that share of the rows of every class, other ones for every seed."""
    order = torch.rand(4, 25, generator=torch.Generator().manual_seed(seed)).argsort(dim=1).argsort(dim=1)
    return (order < round(25 * share)).flatten()


def by_hand(*rows: Standing, recommended: int | None = 1, **more) -> Comparison:
    chosen = None if recommended is None else rows[recommended]
    settings = {"protocol": "held_out", "y": Y, "null": chosen, "oracle": None, "remarks": (), "rounds": 500, **more}
    return Comparison(standings=rows, recommended=chosen, **settings)


def three(**more) -> Comparison:
    """A baseline at 0.4, a method at 0.8 and a copy of the baseline; and a recipe that gets everything right."""
    return by_hand(
        standing("stage1", right(0.4), role="baseline"),
        standing("tau_norm", right(0.8)),
        standing("l2_norm", right(0.4)),
        standing("ncm", torch.ones(100).bool(), role="recipe"),
        **more,
    )


def test_gains_are_paired_differences_to_the_baseline() -> None:
    found = three()
    assert set(found.gains["images"]) == set(found.gains["classes"]) == {"tau_norm", "l2_norm"}
    assert found.gains["images"]["tau_norm"].estimate == pytest.approx(0.4)
    same = found.gains["images"]["l2_norm"]
    assert same.estimate == 0.0
    assert -0.05 < same.low < 0 < same.high < 0.05  # alike on 100 rows is not alike on all
    single = paired_difference(right(0.8), right(0.4), Y, rounds=500)
    assert found.gain["images"] == single
    # The interval that holds for all methods at once is no narrower than that of the one that was recommended.
    assert found.gains["images"]["tau_norm"].low <= single.low


def test_the_tied_hold_the_best_and_all_that_cannot_be_told_from_it() -> None:
    rows = [standing("stage1", right(0.4), role="baseline")]
    rows += [standing(text, right(0.76, seed)) for seed, text in enumerate(("ncm", "lda", "l2_norm"))]
    rows += [standing("tau_norm", right(0.8))]
    assert by_hand(*rows).tied() == ("tau_norm", "ncm", "lda", "l2_norm")
    assert set(by_hand(*rows[::-1]).tied()) == {"tau_norm", "ncm", "lda", "l2_norm"}


def test_methods_that_get_the_same_rows_right_are_tied_with_each_other() -> None:
    same = [standing(text, right(0.6), role=role) for text, role in (("stage1", "baseline"), ("ncm", "tuned"))]
    found = by_hand(*same)
    assert set(found.tied()) == {"stage1", "ncm"}
    assert found.decision == "keep"


def test_a_comparison_of_one_row_is_tied_with_itself() -> None:
    found = by_hand(standing("stage1", right(0.4), role="baseline"), recommended=0)
    assert found.tied() == ("stage1",)
    assert found.gains == {"images": {}, "classes": {}}
    assert (found.decision, found.gap_closed) == ("keep", None)


def test_a_recipe_enters_neither_statistics_nor_verdict() -> None:
    found = three()
    assert found.table()[0]["method"] == "ncm"
    assert found.tied() == ("tau_norm",)
    assert [row.method for row in found.contenders] == ["stage1", "tau_norm", "l2_norm"]
    assert "ncm" not in found.verdict()
    recipe = found.table()[0]
    assert [recipe[key] for key in ("gain", "gain_low", "gain_classes_high", "tied")] == [None] * 4
    assert recipe["recommended"] is False


def test_the_gap_closed_is_the_share_of_the_way_to_the_oracle() -> None:
    assert three(oracle=0.9).gap_closed == pytest.approx(0.8)
    assert three(oracle=0.8).gap_closed == pytest.approx(1.0)
    assert three(oracle=0.9, recommended=0).gap_closed == 0.0
    assert three(oracle=0.4).gap_closed is None
    assert three(oracle=0.2).gap_closed is None
    assert three().gap_closed is None


def test_the_verdict_says_what_to_do_and_how_sure_it_is() -> None:
    found = three(oracle=0.9)
    images, classes = found.gain["images"], found.gain["classes"]
    assert found.verdict().startswith(
        f"Change to tau_norm: it gains +40.0 points of balanced accuracy over stage1 (95 % interval "
        f"{100 * images.low:+.1f} to {100 * images.high:+.1f} over images of these classes, "
        f"{100 * classes.low:+.1f} to {100 * classes.high:+.1f} over classes of this kind). "
        "1 of 3 methods cannot be told from the best on the test split. "
        "It goes 80 % of the way from stage1 to an oracle head (90.0 balanced accuracy)"
    )


def test_the_verdict_keeps_what_may_be_nothing_and_what_was_never_beaten() -> None:
    worse = by_hand(standing("stage1", right(0.4), role="baseline"), standing("tau_norm", right(0.36, 1)))
    assert worse.decision == "keep"
    assert worse.verdict().startswith(
        "Keep what you have: the head chosen without the test split, tau_norm, loses 4.0 points of balanced "
        "accuracy against stage1 (95 % interval "
    )
    lost = by_hand(standing("stage1", right(0.8), role="baseline"), standing("tau_norm", right(0.2, 1)))
    assert "tau_norm, loses 60.0 points" in lost.verdict()
    assert "which may be nothing" not in lost.verdict()
    unsure = by_hand(standing("stage1", right(0.4), role="baseline"), standing("tau_norm", right(0.44, 1)))
    assert unsure.verdict().startswith("Keep what you have until more test rows decide: these are too few to be sure")
    assert "tau_norm, chosen without them, is better. It gains +4.0 points" in unsure.verdict()
    alike = by_hand(standing("stage1", right(0.4), role="baseline"), standing("tau_norm", right(0.4)))
    assert alike.verdict().startswith(
        "Keep what you have: the head chosen without the test split, tau_norm, gains +0.0 points"
    )
    fitted = replace(three(recommended=0), given=False)
    assert fitted.verdict().startswith("Stay with plain cross-entropy (stage1): nothing was better than stage1")
    assert three(recommended=0).verdict().startswith("Keep what you have: nothing was better than stage1 on the rows")
    assert "The recommended head is not among them: tau_norm is better there" in three(recommended=0).verdict()


def test_where_a_model_was_written_the_verdict_names_it_first_and_keeps_nothing_else() -> None:
    lost = by_hand(standing("stage1", right(0.8), role="baseline"), standing("tau_norm", right(0.2, 1)))
    unsure = by_hand(standing("stage1", right(0.4), role="baseline"), standing("tau_norm", right(0.44, 1)))
    for found, held, start in (
        (three(), "tau_norm", "This folder holds tau_norm: it gains +"),
        (three(), "crt", "This folder holds crt, as asked; better than the baseline is tau_norm: it gains +"),
        (lost, "tau_norm", "This folder holds tau_norm; stage1 is the better choice: the head chosen without"),
        (unsure, "tau_norm", "This folder holds tau_norm; stage1 is as good a choice until more test rows decide:"),
        (unsure, "crt", "This folder holds crt, as asked; stage1 is as good a choice until more test rows decide:"),
        (three(recommended=0), "stage1", "This folder holds stage1: nothing was better than stage1 on the rows"),
    ):
        told = replace(found, held=held).verdict()
        assert told.startswith(start)
        assert not {"Keep", "Change", "Stay"} & set(told.split())


def test_where_no_classifier_was_the_verdict_speaks_of_the_one_that_was_fitted() -> None:
    better = replace(three(), given=False, fitted=True)
    worse = replace(three(recommended=0), given=False, fitted=True)
    for found in (better, worse):
        assert found.decision == found.to_dict()["decision"] == "fitted"
        assert found.recommended is not None
        start = f"No classifier was there before; fitted: {found.recommended.method}. It gains "
        assert found.verdict().startswith(start)
        assert " points of balanced accuracy over plain cross-entropy (stage1) (95 % interval " in found.verdict()
    assert "The fitted head is not among them: tau_norm is better there" in worse.verdict()


def sized(*sizes: int) -> torch.Tensor:
    """Labels of classes with so many rows."""
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def compared(y: torch.Tensor, before: list[int], after: list[int], **more) -> Comparison:
    """The first so many rows of each class are right before, and after; the rest is wrong."""
    place = torch.cat([torch.arange(int(n)) for n in torch.bincount(y)])
    masks = [place < torch.tensor(numbers)[y] for numbers in (before, after)]
    rows = [
        standing(text, mask, role=role, y=y)
        for text, role, mask in zip(("stage1", "tau_norm"), ("baseline", "tuned"), masks, strict=True)
    ]
    return by_hand(*rows, y=y, **more)


NAMED = ClassRows(("owl", "jay", "kea", "emu"), COUNTS.n, torch.tensor([20, 20, 20, 20]))


def test_a_gain_that_rests_on_a_class_of_three_rows_is_no_ground_for_a_change() -> None:
    y = sized(400, 400, 400, 3)
    found = compared(y, [200, 200, 200, 0], [205, 205, 195, 3], classes=NAMED)
    assert found.gain["images"].low > 0
    assert (found.rests_on, found.decision) == ((3,), "keep")
    assert found.verdict().startswith(
        "Keep what you have until more test rows decide: there are too few rows. That tau_norm, chosen without them, "
        "is better rests on 1 class of fewer than 4 test rows (emu). It gains +25.3 points of balanced accuracy over "
        "stage1 (95 % interval "
    )
    assert found.to_dict()["rests_on"] == ["emu"]
    assert "1 class of fewer than 4 test rows (class 3)" in replace(found, classes=None).verdict()


def test_a_gain_that_holds_without_the_tiny_classes_is_a_gain() -> None:
    found = compared(sized(400, 400, 400, 3), [200, 200, 200, 0], [260, 260, 260, 3], classes=NAMED)
    assert (found.rests_on, found.decision) == ((), "change")
    assert found.to_dict()["rests_on"] == []


def test_a_gain_of_a_class_of_four_rows_or_more_counts() -> None:
    found = compared(sized(400, 400, 400, 20), [200, 200, 200, 0], [205, 205, 195, 18])
    assert (found.rests_on, found.decision) == ((), "change")


def test_many_tiny_classes_are_no_few_rows() -> None:
    """30 classes of two rows hold 60, as many as other splits have in all."""
    y = torch.cat([torch.zeros(200).long(), torch.arange(1, 31).repeat_interleave(2)])
    assert tiny(y).tolist() == []
    assert tiny(y[:218]).tolist() == list(range(1, 10))  # 18 rows of 9 classes


def test_where_a_tiny_class_makes_the_doubt_it_is_named() -> None:
    found = compared(sized(400, 400, 400, 2), [200, 200, 200, 1], [230, 230, 230, 1], classes=NAMED)
    assert (found.rests_on, found.decision) == ((), "keep")
    assert "too few to be sure that tau_norm, chosen without them, is better." in found.verdict()
    assert "Most of the doubt comes from 1 class of fewer than 4 test rows (emu)." in found.verdict()
    many = compared(sized(400, 400, 400, 40), [200, 200, 200, 20], [205, 205, 205, 22], classes=NAMED)
    assert many.decision == "keep"
    assert "Most of the doubt" not in many.verdict()


def test_classes_that_took_no_part_in_choice_or_test_are_named() -> None:
    rows = NAMED._replace(chosen_on=torch.tensor([20, 20, 0, 0]))
    found = compared(sized(100, 100, 100), [50, 50, 50], [80, 80, 80], classes=rows)
    assert found.decision == "change"
    assert found.verdict().endswith(
        "2 of 4 classes took no part in the choice, for want of rows to choose on (kea, emu). "
        "1 of 4 classes has no test row, so nothing here is about it (emu)."
    )
    told = found.to_dict()
    assert (told["not_chosen_on"], told["not_tested"]) == (["kea", "emu"], ["emu"])
    assert "took no part" not in replace(found, classes=NAMED).verdict()


def test_a_class_that_the_recommended_head_never_answers_is_named_with_a_head_that_does() -> None:
    y = sized(100, 100, 100, 10)
    found = compared(y, [50, 50, 50, 1], [90, 90, 90, 0], classes=NAMED)
    place = torch.cat([torch.arange(n) for n in (100, 100, 100, 10)])
    tied = standing("lda", place < torch.tensor([83, 83, 83, 6])[y], y=y)
    both = replace(found, standings=(*found.standings, tied))
    assert set(both.tied()) == {"tau_norm", "lda"}
    said = "tau_norm gets no test row of emu right; lda, which cannot be told from the best, gets 60.0 % of them."
    assert said in both.verdict()
    assert "no test row of emu right" not in found.verdict()  # the baseline has one of ten, which may be chance
    kept = compared(y, [50, 50, 50, 5], [90, 90, 90, 0], classes=NAMED)
    assert "no test row of emu right; stage1, the baseline, gets 50.0 % of them." in kept.verdict()


def test_the_baseline_against_itself_has_no_width() -> None:
    found = three(recommended=0)
    assert found.gain == dict.fromkeys(("images", "classes"), Interval(0.0, 0.0, 0.0))


@pytest.mark.parametrize("selection", ["kfold", "cross_fit"])
def test_a_class_of_one_row_cannot_take_part_and_the_verdict_says_so(selection) -> None:
    problem, test = study(counts=(60, 25, 9, 1))
    if selection == "cross_fit":
        test = test.take(torch.cat([torch.arange(36), torch.tensor([36])]))
    found = compare(["ncm"], replace(problem, held_out=None), test, selection=selection, budget=2)
    assert found.to_dict()["not_chosen_on"] == [test.names[3]]
    assert (
        f"1 of 4 classes took no part in the choice, for want of rows to choose on ({test.names[3]})."
        in found.verdict()
    )


def test_without_a_recommendation_there_is_no_verdict() -> None:
    found = three(recommended=None)
    assert (found.decision, found.gain, found.gap_closed, found.verdict()) == ("none", {}, None, PAPER_VERDICT)


def test_seeds_are_averaged() -> None:
    base = standing("stage1", right(0.4), right(0.4), role="baseline")
    found = by_hand(base, standing("tau_norm", right(0.6), right(0.8)))
    row = next(row for row in found.table() if row["family"] == "tau_norm")
    assert row["balanced_accuracy"] == row["accuracy"] == pytest.approx(0.7)
    assert row["gain"] == pytest.approx(0.3)
    assert row["seconds"] == 1.5
    mean = (right(0.6).double() + right(0.8).double()) / 2
    assert torch.equal(found.standings[1].correct, mean)
    assert len(found.records) == 4


def test_a_score_that_one_seed_lacks_is_no_mean() -> None:
    row = standing("tau_norm", right(0.6), right(0.8))
    without = replace(row.records[0], scores=replace(row.records[0].scores, few=None))
    assert replace(row, records=(without, row.records[1])).mean("few") is None
    assert row.mean("few") == pytest.approx(0.7)


def test_the_level_and_the_rounds_reach_the_intervals() -> None:
    wide, narrow = three(level=0.99).gain["images"], three(level=0.5).gain["images"]
    assert wide.low < narrow.low < narrow.high < wide.high
    assert "50 % interval" in three(level=0.5).verdict()


# --- every protocol --------------------------------------------------------------------------------------------------


@each_protocol
def test_the_baseline_and_the_nulls_are_always_there_and_nothing_runs_twice(selection) -> None:
    problem, test = study()
    for asked in (["ncm"], ["stage1", "ncm", "ncm", "tau_norm"], "ncm"):
        found = compare(asked, problem, test, selection=selection, budget=4)
        families = [str(row.family) for row in found.standings if row.role != "recipe" or selection == "paper"]
        assert sorted(families) == ["logit_adjustment", "ncm", "stage1", "tau_norm"]
        assert found.baseline.family == BASELINE
        assert [row.role for row in found.standings].count("baseline") == 1


@pytest.mark.parametrize("selection", ["held_out", "kfold"])
def test_without_a_stage_1_head_tuned_cross_entropy_takes_its_place_with_a_remark(selection) -> None:
    problem, test = study(head=False)
    with pytest.warns(PoiseWarning, match="there was no stage-1 head: ce") as caught:
        found = compare(["ncm"], problem, test, selection=selection, budget=4)
    first, _ = choose(default_grid(Spec("ce", start="fresh"), 4), problem, select=selection)
    (remark,) = {str(warning.message) for warning in caught}
    assert f": {first} was fitted" in remark
    assert found.remarks == (remark,)
    assert all(remark in record.remarks for record in found.records)
    head = methods.from_spec(first)(problem, 0)
    assert torch.equal(found.baseline.measured[0].correct, correct_of(head, test))
    assert found.baseline.family == BASELINE


@each_protocol
def test_table_and_summary_are_plain_json_with_every_column_of_the_csv(selection) -> None:
    problem, test = study()
    found = compare([CRT, "ncm"], problem, test, selection=selection, budget=4, seeds=(0, 1), rounds=200)
    rows = found.table()
    assert len(rows) == len(found.standings)
    assert all(set(CSV_FIELDS) <= set(row) for row in rows)
    values = [row["balanced_accuracy"] for row in rows]
    assert values == sorted(values, reverse=True)
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert json.loads(text)["protocol"] == selection
    assert len(found.records) == 2 * len(rows)
    for record in found.records:
        json.dumps(record.to_dict(), allow_nan=False)


@each_protocol
def test_the_same_call_gives_the_same_bytes_apart_from_seconds(selection) -> None:
    def once() -> str:
        problem, test = study()
        found = compare([CRT], problem, test, selection=selection, budget=4, seeds=(1, 0), rounds=200)
        rows = [{**row, "seconds": 0.0} for row in found.table()]
        records = [replace(record, seconds=0.0).to_dict() for record in found.records]
        return json.dumps([rows, records, found.verdict(), {**found.to_dict(), "table": []}])

    assert once() == once()


@pytest.mark.parametrize("selection", ["held_out", "kfold"])
def test_records_say_which_rows_chose_and_which_were_measured(selection) -> None:
    problem, test = study()
    found = compare([CRT], problem, test, selection=selection, budget=4, seeds=(0, 5), data="small world")
    for row in found.standings:
        assert [record.seed for record in row.records] == [0, 5]
        for record in row.records:
            assert (record.test, record.train, record.data) == (test.key, problem.train.key, "small world")
            assert (record.selection is None) == (row.role != "tuned")
        if row.selection is not None:
            assert row.selection.rule == selection
            assert row.selection.key != test.key
            assert row.selection.configurations == len(default_grid(row.family, 4))
            assert row.selection.chosen == (row.method,)


def test_every_tuned_method_gets_what_tune_gives_it_and_the_head_of_all_training_rows() -> None:
    problem, test = study()
    found = compare([CRT, "ncm"], problem, test, budget=4)
    for row in found.standings:
        if row.role == "tuned":
            grid = default_grid(row.family, 4)
            best, edges = choose(grid, problem)
            assert (row.method, row.selection.edges) == (str(best), edges)
            head = methods.from_spec(best)(problem, 0)
            assert torch.equal(row.measured[0].correct, correct_of(head, test))


def choose(grid: tuple[Spec, ...], problem: Problem, **more) -> tuple[Spec, tuple[str, ...]]:
    """The best of a grid and its edges, the remark on them left aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PoiseWarning)
        best, records = tune(grid, problem, **more)
    return best, next(record.selection.edges for record in records if record.selection)


def test_on_folds_the_settings_are_those_of_tune_and_the_heads_see_all_rows() -> None:
    problem, test = study()
    found = compare(["ncm"], problem, test, selection="kfold", budget=4, folds=3, seeds=(2, 0))
    tuned = [row for row in found.standings if row.role == "tuned"]
    for row in tuned:
        best, _ = choose(default_grid(row.family, 4), problem, select="kfold", folds=3, seed=2)
        assert row.method == str(best)
        assert torch.equal(row.measured[0].correct, correct_of(methods.from_spec(best)(problem, 2), test))


def test_each_seed_trains_its_own_head_and_the_first_one_chooses() -> None:
    problem, test = study(separation=1.0)
    found = compare([CRT], problem, test, budget=4, seeds=(3, 4))
    row = next(row for row in found.standings if row.family == Spec.parse(CRT) and row.role == "tuned")
    for seed, result in zip((3, 4), row.measured, strict=True):
        head = fit_specs(problem, [Spec.parse(row.method)], seed)[Spec.parse(row.method)].head
        assert torch.equal(result.correct, correct_of(head, test))
    assert row.method == str(choose(default_grid(row.family, 4), problem, seed=3)[0])


def test_a_recipe_is_the_spec_as_stated_or_the_first_published_one_of_a_bare_name() -> None:
    problem, test = study()
    found = compare([CRT, "los"], problem, test, budget=1)
    recipes = {str(row.family): row.method for row in found.standings if row.role == "recipe"}
    assert recipes[CRT] == CRT
    assert recipes["los"] == str(methods.published.published("los")[0].spec)
    assert recipes["tau_norm"] == "tau_norm(tau=0.7)"
    assert recipes["logit_adjustment"] == "logit_adjustment"


@pytest.mark.parametrize("selection", ["held_out", "kfold", "cross_fit"])
def test_logistic_regression_minus_log_prior_stands_beside_whatever_is_asked_for(selection) -> None:
    problem, test = study()
    asked = ["ncm"] if selection == "held_out" else ["lda", "converged"]
    found = compare(asked, problem, test, selection=selection, budget=2, nulls=(), recipes=False)
    [row] = [row for row in found.standings if row.family == PLAIN]
    assert (row.method, row.role, row.selection) == ("converged+logit_adjustment", "recipe", None)
    assert row.records[0].implied_prior == "uniform"
    adjusted = converged()(problem).shifted(-problem.train.counts.prior.log())
    assert torch.equal(row.correct, correct_of(adjusted, test).double())
    assert row not in found.contenders
    assert str(PLAIN) not in {*found.tied(), *found.gains["images"]}


def test_logistic_regression_minus_log_prior_can_be_tuned_and_is_then_stated_once() -> None:
    problem, test = study()
    found = compare([PLAIN], problem, test, budget=2)
    assert [row.role for row in found.standings if row.family == PLAIN] == ["tuned", "recipe"]


def test_the_papers_protocol_runs_no_logistic_regression_of_ours() -> None:
    problem, test = study()
    assert PLAIN not in {row.family for row in compare(["ncm"], problem, test, selection="paper", budget=2).standings}


def test_a_published_recipe_for_a_larger_data_set_is_left_out() -> None:
    problem, test = study()
    found = compare(["lws(epochs=1)", "crt"], problem, test, budget=1)
    assert {str(row.family) for row in found.standings if row.role == "recipe"} == {
        "tau_norm",
        "logit_adjustment",
        "lws(epochs=1)",
        str(PLAIN),
    }


@pytest.mark.parametrize(("batch", "drop_last", "beside"), [(98, True, True), (99, True, False), (99, False, True)])
def test_a_recipe_stands_beside_its_method_as_long_as_one_batch_is_left(batch, drop_last, beside) -> None:
    problem, _ = study()
    assert len(problem.train) == 98
    spec = Spec("crt", epochs=1, batch_size=batch, drop_last=drop_last)
    assert (spec in scheduled([spec], problem).recipes) == beside


# --- the test split is read last -------------------------------------------------------------------------------------


class Sealed(Features):
    """Features that cannot be read until the seal is broken."""

    def __getattribute__(self, name: str):
        if name in ("x", "key") and super().__getattribute__("__dict__").get("sealed"):
            raise AssertionError("the test split was read before the settings were chosen and the heads trained")
        return super().__getattribute__(name)

    @property
    def dim(self) -> int:
        return super().__getattribute__("__dict__")["x"].shape[-1]


@pytest.mark.parametrize("selection", ["held_out", "kfold"])
def test_the_test_split_is_not_read_before_the_last_head_is_trained(monkeypatch, selection) -> None:
    problem, test = study()
    sealed = Sealed(test.x, test.y, test.counts, seen_by_backbone=False)
    object.__setattr__(sealed, "sealed", True)
    fitted: list[int] = []

    def fit(problem, specs, seed=0, *, progress=None):
        result = fit_specs(problem, specs, seed, progress=progress)
        fitted.append(seed)
        if seed == 7:  # the last seed: every setting is chosen and every head trained
            object.__setattr__(sealed, "sealed", False)
        return result

    monkeypatch.setattr("poise.selection.compare.fit_specs", fit)
    found = compare([CRT, "ncm"], problem, sealed, selection=selection, budget=4, seeds=(0, 7))
    assert fitted[-1] == 7
    expected = compare([CRT, "ncm"], problem, test, selection=selection, budget=4, seeds=(0, 7))
    assert found.verdict() == expected.verdict()


def test_the_seal_holds() -> None:
    _, test = study()
    sealed = Sealed(test.x, test.y, test.counts)
    object.__setattr__(sealed, "sealed", True)
    for read in (lambda: sealed.x, lambda: sealed.key, lambda: sealed.take(torch.arange(3))):
        with pytest.raises(AssertionError, match="before the settings were chosen"):
            read()


@pytest.mark.parametrize("selection", ["held_out", "kfold"])
def test_what_is_chosen_does_not_depend_on_the_test_labels(selection) -> None:
    problem, test = study(separation=1.5)
    shuffled = replace(test, y=test.y[torch.randperm(len(test), generator=torch.Generator().manual_seed(0))])
    a, b = (compare([CRT, "ncm", "lda"], problem, rows, selection=selection, budget=4) for rows in (test, shuffled))
    assert a.recommended is not None
    assert b.recommended is not None
    assert (a.recommended.method, a.null.method) == (b.recommended.method, b.null.method)
    assert [row.method for row in a.standings] == [row.method for row in b.standings]
    assert a.recommended.mean("accuracy") != b.recommended.mean("accuracy")


def test_a_recipe_that_is_best_by_far_is_not_recommended(monkeypatch) -> None:
    problem, test = study(separation=3.0)
    assert problem.head is not None
    bad = Head(-problem.head.weight, problem.head.bias)
    monkeypatch.setattr(
        "poise.methods.published.published", lambda name: (Published(Spec("lda"), "all"),) if name == "l2_norm" else ()
    )
    found = compare(["l2_norm"], replace(problem, head=bad), test, budget=4)
    top, second = (row for row in found.table()[:3] if row["family"] != str(PLAIN))
    assert (top["method"], top["role"], top["family"]) == ("lda", "recipe", "l2_norm")
    assert top["balanced_accuracy"] > second["balanced_accuracy"] + 0.3
    assert (top["tied"], top["gain"], top["recommended"]) == (None, None, False)
    assert "lda" not in found.verdict()
    assert "lda" not in {str(row.family) for row in found.contenders}
    expected = compare(["l2_norm"], replace(problem, head=bad), test, budget=4)
    assert found.recommended.method == expected.recommended.method


# --- the verdict is right on constructed truth -----------------------------------------------------------------------


def shuffled(rows: Features, seed: int) -> Features:
    return replace(rows, y=rows.y[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))])


def test_where_labels_have_nothing_to_do_with_features_the_decision_is_to_keep() -> None:
    # Twelve worlds at a level of 95 %: two or more wrong decisions have a chance below 2 % (one-sided errors of 2.5 %
    # each happen only where a head was preferred at all).
    wrong = 0
    for seed in range(12):
        problem, test = study(counts=(20,) * 4, each=20, test_each=20, seed=seed)
        assert problem.held_out is not None
        noise = with_stage1(Problem(shuffled(problem.train, seed), held_out=shuffled(problem.held_out, seed + 1)))
        found = compare(["ncm", CRT], noise, shuffled(test, seed + 2), budget=4, rounds=200)
        wrong += found.decision != "keep"
    assert wrong <= 1


def bayes_world(seed: int) -> tuple[Problem, Features]:
    """Gaussian classes whose stage-1 head is the Bayes head of a long-tailed prior.

    Shifting it by the log prior gives the Bayes head of balanced rows. The features lie far from the origin, where a
    head without its bias (tau-norm) is lost.
    """
    g = torch.Generator().manual_seed(seed)
    counts = torch.tensor([600, 60, 12, 3])
    means, centre = 1.6 * torch.eye(4, 8), torch.arange(8.0)
    bias = -means.square().sum(dim=-1) / 2 + (counts / counts.sum()).log() - means @ centre

    def rows(numbers: torch.Tensor) -> Features:
        y = torch.repeat_interleave(torch.arange(4), numbers)
        x = centre + means[y] + torch.randn(len(y), 8, generator=g)
        return Features(x, y, ClassCounts(counts), seen_by_backbone=False)

    held_out, test = (rows(torch.full((4,), n)) for n in (60, 150))
    return Problem(rows(counts), Head(means, bias), held_out), test


@pytest.mark.parametrize("selection", ["held_out", "cross_fit"])
@pytest.mark.parametrize("seed", [0, 1])
def test_where_logit_adjustment_is_the_truth_the_decision_is_to_change_to_it(seed, selection) -> None:
    problem, test = bayes_world(seed)
    found = compare(["ncm(transform='raw')"], problem, test, selection=selection, rounds=500)
    assert found.recommended is not None
    assert found.recommended.family == Spec("logit_adjustment")
    assert found.decision == "change"
    assert found.gain["images"].estimate > 0.2
    assert "logit_adjustment" in found.tied()


@pytest.mark.parametrize("selection", ["held_out", "cross_fit"])
def test_what_beats_the_null_beyond_doubt_on_the_selection_rows_is_recommended(selection) -> None:
    problem, test = study(counts=(60, 40, 30, 20), each=25, test_each=25, separation=3.0, head=False)
    lost = replace(problem, head=Head(torch.zeros(4, 6), torch.arange(4.0)))
    found = compare(["lda(shrinkage=0.1)"], lost, test, selection=selection, budget=4, rounds=500)
    assert found.null.family in {BASELINE, *NULLS}
    assert found.recommended.family == Spec("lda", shrinkage=0.1)
    assert found.decision == "change"


def test_what_is_better_than_the_null_but_not_beyond_doubt_is_not_recommended() -> None:
    doubtful = 0
    for seed in range(6):
        problem, test = study(seed=seed, each=15)
        found = compare(["ncm", "lda"], problem, test, budget=4, rounds=200)
        rows = problem.held_out
        correct = {
            str(row.family): correct_of(methods.from_spec(row.method)(problem, 0), rows).double()
            for row in found.contenders
        }
        score = {family: balanced(right, rows.y) for family, right in correct.items()}
        null = str(found.null.family)
        assert score[null] == max(score[name] for name in ("stage1", "tau_norm", "logit_adjustment"))
        others = [name for name in score if name != null]
        intervals = simultaneous_intervals(torch.stack([correct[name] - correct[null] for name in others]), rows.y)
        sure = [name for name, interval in zip(others, intervals, strict=True) if interval.low > 0]
        assert str(found.recommended.family) == max(sure, key=score.get, default=null)
        doubtful += not sure and max(score.values()) > score[null]
    assert doubtful > 0


def test_a_null_that_is_no_better_than_the_baseline_gives_way_to_it() -> None:
    problem, test = study(counts=(20,) * 4)
    assert problem.head is not None
    rows = torch.nn.functional.normalize(problem.head.weight, dim=-1)
    # Unit rows, no bias and equal counts: tau-norm and logit adjustment change no prediction.
    found = compare(["l2_norm"], replace(problem, head=Head(rows, torch.zeros(4))), test, budget=4)
    assert found.null.family == found.recommended.family == BASELINE
    assert found.decision == "keep"
    assert found.gain["images"] == (0.0, 0.0, 0.0)


# --- the papers' protocol and cross-fitting --------------------------------------------------------------------------


def test_the_papers_protocol_is_the_best_test_epoch_and_setting_over_averaged_views() -> None:
    problem, test = study(views=1, separation=1.2)
    two = replace(test, x=torch.cat([test.x, test.x + 0.3 * torch.randn(test.x.shape, generator=torch.Generator())]))
    found = compare(["crt(epochs=4,lr=1.0)", "lda"], problem, two, selection="paper", budget=4, seeds=(0, 1))
    averaged = two.x.mean(dim=0)

    def accuracy(head: Head) -> float:
        return evaluate(head(averaged), test.y, test.counts).accuracy

    by_family = {str(row.family): row for row in found.standings}
    crt, first = by_family["crt(epochs=4,lr=1.0)"], methods.from_spec("crt(epochs=4,lr=1.0)")
    paths = [fit_heads(problem, [first], seed, snapshots=True)[0] for seed in (0, 1)]
    epochs = [[accuracy(path[e]) for e in range(1, 5)] for path in paths]
    assert [record.scores.accuracy for record in crt.records] == [max(accuracies) for accuracies in epochs]
    assert crt.selection.chosen == tuple(f"epoch {accuracies.index(max(accuracies)) + 1}" for accuracies in epochs)
    assert crt.method == f"crt(epochs=4,lr=1.0), {crt.selection.chosen[0]}"
    assert (crt.selection.rule, crt.selection.configurations, crt.selection.metric) == ("paper", 4, "accuracy")
    grid = default_grid(Spec("lda"), 4)
    settings = [accuracy(methods.from_spec(spec)(problem, 0)) for spec in grid]
    assert by_family["lda"].records[0].scores.accuracy == max(settings)
    assert by_family["lda"].method == str(grid[settings.index(max(settings))])
    assert by_family["stage1"].records[0].scores.accuracy == accuracy(problem.head)


def test_a_record_of_the_papers_protocol_states_the_settings_that_ran() -> None:
    problem, test = study(separation=1.0)
    found = compare(["lda", "rebalance", f"{CRT}+tau_norm"], problem, test, selection="paper", budget=4, seeds=(0, 1))
    for row in found.standings:
        assert row.method == row.records[0].method
        for i, record in enumerate(row.records):
            spec = Spec.parse(record.method)
            assert record.settings == tuple(methods.settings(step) for step in spec.steps)
            assert record.implied_prior == methods.implied_prior(spec)
            assert record.selection is None or record.selection.chosen[i] == record.method


def test_the_papers_protocol_gives_no_verdict() -> None:
    problem, test = study()
    found = compare([CRT], problem, test, selection="paper", budget=4, oracle=lambda *_: 0.9)
    assert found.verdict() == PAPER_VERDICT
    assert found.verdict().startswith("No verdict: the papers' protocol chose every setting and epoch on the test")
    assert (found.decision, found.recommended, found.null, found.oracle) == ("none", None, None, None)
    assert not any(row["recommended"] for row in found.table())


def test_cross_fitting_scores_each_half_by_the_settings_of_the_other() -> None:
    problem, test = study(separation=1.2, test_each=15)
    without = replace(problem, held_out=None)
    found = compare([CRT, "ncm"], without, test, selection="cross_fit", budget=4, seeds=(3,))
    halves = fold_ids(test.y, 2, seed=3)
    tuned = [row for row in found.standings if row.role == "tuned"]
    assert [str(row.family) for row in tuned] == ["tau_norm", "logit_adjustment", CRT, "ncm"]
    for row in tuned:
        correct, chosen, scores = torch.zeros(len(test), dtype=torch.bool), [], []
        for half in (0, 1):
            scored, choosing = ((halves == h).nonzero().flatten() for h in (half, 1 - half))
            part = replace(without, held_out=test.take(choosing))
            best, _ = choose(default_grid(row.family, 4), part, seed=3)
            head = methods.from_spec(best)(part, 3)
            correct[scored] = correct_of(head, test.take(scored))
            scores.append(balanced(correct_of(head, part.held_out), part.held_out.y))
            chosen.append(str(best))
        assert torch.equal(row.measured[0].correct, correct)
        assert row.records[0].scores.balanced_accuracy == pytest.approx(balanced(correct, test.y), abs=1e-12)
        assert row.selection.chosen == tuple(chosen)
        assert row.selection.score == pytest.approx(sum(scores) / 2, abs=1e-12)
        assert row.method == (chosen[0] if chosen[0] == chosen[1] else " / ".join(chosen))
        assert (row.selection.rule, row.selection.rows, row.selection.key) == ("cross_fit", len(test), test.key)


def test_the_baseline_of_a_cross_fit_is_the_stage_1_head_on_every_test_row() -> None:
    problem, test = study()
    assert problem.head is not None
    found = compare(["ncm"], problem, test, selection="cross_fit", budget=4)
    assert torch.equal(found.baseline.measured[0].correct, correct_of(problem.head, test))
    expected = evaluate(problem.head(test.x[0]), test.y, test.counts)
    assert found.baseline.records[0].scores.per_class == expected.per_class
    assert found.baseline.records[0].scores.nll == pytest.approx(expected.nll, rel=1e-6)
    assert found.baseline.selection is None


# --- what is left out, remarked and refused --------------------------------------------------------------------------


def test_without_held_out_rows_methods_that_read_them_are_left_out_with_a_remark() -> None:
    problem, test = study()
    without = replace(problem, held_out=None)
    asked = ["rebalance", "logit_adjustment+temperature", "ncm"]
    for selection in ("kfold", "paper"):
        with pytest.warns(PoiseWarning, match="was left out") as caught:
            found = compare(asked, without, test, selection=selection, budget=4)
        assert tuple(str(warning.message) for warning in caught) == found.remarks
        left = {str(row.family) for row in found.standings} - {str(PLAIN)}
        assert left == {"stage1", "tau_norm", "logit_adjustment", "ncm"}
        assert found.remarks == (
            "rebalance was left out: it reads held-out rows",
            "logit_adjustment+temperature was left out: it reads held-out rows",
        )
        assert found.to_dict()["remarks"] == list(found.remarks)
    beside = compare(asked, problem, test, selection="kfold", budget=4)
    assert {"rebalance", "logit_adjustment+temperature"} <= {str(row.family) for row in beside.standings}
    assert beside.remarks == ()


def test_held_out_rows_of_unknown_origin_that_look_memorised_are_warned_of_and_remarked() -> None:
    problem, test = study(separation=20.0)
    unknown = replace(problem, held_out=replace(problem.held_out, seen_by_backbone=None))
    with pytest.warns(PoiseWarning, match="as if the backbone had trained on them"):
        found = compare(["ncm"], unknown, test, budget=1)
    assert any("as if the backbone had trained on them" in remark for remark in found.remarks)


def test_an_oracle_is_asked_once_with_the_first_seed() -> None:
    problem, test = study()
    asked = []

    def oracle(*given) -> float:
        asked.append(given)
        return 1.0

    found = compare(["ncm"], problem, test, budget=4, seeds=(5, 6), oracle=oracle)
    assert asked == [(problem, test, 5)]
    start, reached = (row.mean("balanced_accuracy") for row in (found.baseline, found.recommended))
    assert found.gap_closed == pytest.approx((reached - start) / (1 - start))


def test_a_test_split_that_does_not_fit_is_refused_with_both_numbers() -> None:
    problem, test = study()
    narrow = replace(test, x=test.x[..., :3])
    with pytest.raises(
        InputError, match=r"^the test rows have 4 classes and 3 features, the training rows have 4 and 6"
    ):
        compare(["ncm"], problem, narrow)
    more = replace(test, counts=ClassCounts(torch.ones(9, dtype=torch.int64)))
    with pytest.raises(InputError, match="9 classes"):
        compare(["ncm"], problem, more)


@each_protocol
def test_test_rows_that_were_used_for_something_else_are_refused(selection) -> None:
    problem, test = study()
    assert problem.held_out is not None
    copied = replace(problem.held_out, x=problem.held_out.x.clone())
    cases = (
        (replace(test, seen_by_backbone=True), "the test rows trained the representation"),
        (copied, "the test rows are the held-out rows"),
        (replace(problem.train, seen_by_backbone=None), "the test rows are the training rows"),
    )
    for rows, words in cases:
        with pytest.raises(MemorisedRowsError, match=words):
            compare(["ncm"], problem, rows, selection=selection)


def test_classes_that_one_of_two_splits_lacks_are_remarked() -> None:
    counts = ClassCounts(torch.tensor([2, 0, 1, 0]))
    rows = [Features(torch.ones(len(y), 2), torch.tensor(y), counts, None, tuple("abcd")) for y in ([0, 0, 2], [0, 1])]
    assert uncovered(*rows) == [
        "1 of 4 classes have no training row (b); no head can know them, their recall counts as it is",
        "1 of 4 classes have no test row (c); their recall is n/a and left out of the means",
    ]


def test_test_rows_that_are_training_rows_bit_for_bit_are_remarked_or_refused() -> None:
    problem, test = study()
    known, x = problem.train.x.clone(), test.x.clone()
    known[0, 5, 2] = 0.0
    x[0, 7], x[0, 3] = known[0, 0], known[0, 5]
    x[0, 3, 2] = -0.0
    problem, test = replace(problem, train=replace(problem.train, x=known)), replace(test, x=x)
    said = (
        "2 of 48 test rows are training rows too (the first: test row 3, training row 5); what is measured on them is "
        "no evidence"
    )
    with pytest.warns(PoiseWarning, match="2 of 48 test rows are training rows too"):
        found = compare(["ncm"], problem, test, budget=2)
    assert said in found.remarks
    with pytest.raises(InputError, match=r"2 of 48 test rows .*; remove them from one of the two"):
        compare(["ncm"], problem, test, budget=2, strict=True)


@pytest.mark.parametrize("seeds", [(), (-1,), (0, 1.5), (True,), ("0",)])
def test_seeds_that_are_none_are_refused(seeds) -> None:
    problem, test = study()
    with pytest.raises(InputError, match="seeds must be different whole numbers of at least 0, and at least one"):
        compare(["ncm"], problem, test, seeds=seeds)


def test_a_rule_without_its_rows_and_an_unknown_protocol_are_refused() -> None:
    problem, test = study()
    with pytest.raises(InputError, match=r"selection on held_out needs Problem\(held_out="):
        compare(["ncm"], replace(problem, held_out=None), test)
    with pytest.raises(InputError, match="selection must be one of held_out, kfold, cross_fit, paper; got 'test'"):
        compare(["ncm"], problem, test, selection="test")
    seen = replace(problem, train=replace(problem.train, seen_by_backbone=True))
    with pytest.raises(MemorisedRowsError, match="kfold cannot select on rows that trained the representation"):
        compare(["ncm"], seen, test, selection="kfold")
    with pytest.raises(InputError, match="no method is called 'ncn', did you mean 'ncm'"):
        compare(["ncn"], problem, test, selection="kfold")
    with pytest.raises(InputError, match="nothing to choose from"):
        compare([], problem, test)


def test_progress_ends_at_its_total() -> None:
    problem, test = study()
    ticks: list[tuple[int, int]] = []
    compare([CRT], problem, test, budget=4, progress=lambda *t: ticks.append(t))
    assert ticks
    assert all(0 < done <= total for done, total in ticks)
    assert ticks[-1][0] == ticks[-1][1]


def test_every_number_of_the_table_is_finite() -> None:
    problem, test = study()
    for row in compare(["ncm"], problem, test, budget=4).table():
        assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))


def test_the_nulls_are_the_two_adjustments_of_one_number() -> None:
    assert tuple(map(str, NULLS)) == ("tau_norm", "logit_adjustment")


def test_warnings_of_the_search_are_remarks_of_the_comparison_and_of_every_record() -> None:
    problem, test = study()
    with pytest.warns(PoiseWarning, match="diverged"):
        found = compare(["ce(lr=1e30,epochs=2)"], problem, test, budget=2)
    assert any("diverged" in remark for remark in found.remarks)
    assert all(any("diverged" in remark for remark in record.remarks) for record in found.records)


def test_one_row_per_class_is_no_proof_of_anything() -> None:
    """Rows that cannot vary within their class do not make an interval of no width."""
    y = torch.arange(10)
    interval = simultaneous_intervals((torch.arange(10) < 1).double().unsqueeze(0), y)[0]
    assert interval.low < 0 < interval.high


@pytest.mark.parametrize("bad", [{"level": 2.0}, {"rounds": 10}])
def test_level_and_rounds_are_checked_before_anything_is_trained(bad) -> None:
    problem, test = study()
    with pytest.raises(InputError, match="level must lie in"):
        compare(["ncm"], problem, test, **bad)


def test_test_rows_of_one_class_are_refused() -> None:
    problem, test = study()
    with pytest.raises(InputError, match="test rows are all of one class"):
        compare(["ncm"], problem, test.take((test.y == 0).nonzero().flatten()))


def test_numpy_seeds_are_seeds_and_repeated_ones_are_refused() -> None:
    problem, test = study()
    found = compare(["ncm"], problem, test, seeds=np.arange(2), budget=2)
    assert json.loads(json.dumps([record.to_dict() for record in found.records]))
    with pytest.raises(InputError, match="different whole numbers"):
        compare(["ncm"], problem, test, seeds=(0, 0))


def test_a_recipe_without_epochs_has_its_start_as_the_only_epoch_of_the_papers_protocol() -> None:
    problem, test = study()
    found = compare(["lws(epochs=0)"], problem, test, selection="paper", budget=2)
    assert any(row.method == "lws(epochs=0), epoch 0" for row in found.standings)


def test_a_null_that_is_left_out_is_no_null_and_texts_will_do() -> None:
    problem, test = study()
    without = replace(problem, held_out=None, train=replace(problem.train, seen_by_backbone=False))
    with pytest.warns(PoiseWarning, match="rebalance was left out"):
        found = compare(["ncm"], without, test, selection="kfold", nulls=("rebalance", "logit_adjustment"), budget=2)
    assert {str(row.family) for row in found.contenders} == {"stage1", "logit_adjustment", "ncm"}


def test_a_recommendation_that_differs_between_the_halves_names_both() -> None:
    seen = set()
    for seed in range(40):
        problem, test = study(seed=seed, counts=(40, 20, 9, 3), separation=1.5, test_each=10)
        found = compare(["ncm"], problem, test, selection="cross_fit", budget=4)
        assert found.recommended is not None
        seen.add(found.recommended.role)
        if " / " in found.recommended.method:
            assert found.recommended.records[0].method == found.recommended.method
            assert found.recommended.role == "tuned"
    assert seen <= {"baseline", "tuned"}


def test_too_few_test_rows_are_remarked() -> None:
    near = by_hand(standing("stage1", right(0.4), role="baseline"), standing("tau_norm", right(0.4)))
    assert near.remark_on_size() is None  # 25 rows of each class
    few = replace(near, y=Y[torch.arange(len(Y)) % 25 < 9])
    assert few.remark_on_size() == ("only 36 test rows: intervals are wide; give more before reading the table")
    apart = by_hand(standing("stage1", right(0.5), role="baseline"), standing("tau_norm", right(0.5, 3)))
    assert apart.remark_on_size() == "only 100 test rows: intervals are wide; give more before reading the table"
