"""What a report shows is what was measured: sums over chunks, paths, intervals, and the contents made of them."""

import json
import math
from pathlib import Path

import pytest
import torch
from scipy.stats import binomtest

from poise.data.samples.sample_set import Samples
from poise.data.samples.thumbnails import thumbnails
from poise.decisions.targets import coverage_accuracy
from poise.deployment.deploy import deploy
from poise.diagnosis.compare import compare
from poise.diagnosis.measure import SHIFTS, change_interval, changes, group_means, look, pulls, scored
from poise.diagnosis.report_contents import contents_of, contents_of_model
from poise.errors import InputError
from poise.methods import build
from poise.metrics import evaluate_head, gradient_balance
from poise.results.contents import Contents, Point, read
from poise.selection.audit import audit
from poise.selection.comparison_result import Scorer, Tried
from poise.selection.fit_and_measure import measure
from poise.selection.score_curves import over_epochs, over_settings, over_strengths
from poise.statistics import plain_intervals
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem
from poise.values.spec import Spec
from report_samples import everything

SIZES = (150, 40, 8)


def rows_of(seed: int, sizes: tuple[int, ...] = SIZES, *, seen: bool = False, dim: int = 5) -> Features:
    g = torch.Generator().manual_seed(seed)
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    x = torch.randn(len(y), dim, generator=g) + 1.5 * torch.eye(len(sizes), dim)[y]
    names = tuple(f"class {k}" for k in range(len(sizes)))
    return Features(x, y, ClassCounts(torch.tensor(SIZES)), seen, names)


def problem(*, held_out: bool = True) -> Problem:
    layer = Head(torch.eye(3, 5), torch.tensor(SIZES).double().log().float())
    return Problem(rows_of(0, seen=held_out), layer, rows_of(1, (20, 20, 20)) if held_out else None)


TEST = rows_of(2, (30, 30, 30))
HEAD = problem().head
assert HEAD is not None


@pytest.fixture(scope="module")
def compared():
    return compare(["los", "tau_norm"], problem(), TEST, budget=4, rounds=100, recipes=True)


@pytest.fixture(scope="module")
def contents(compared) -> Contents:
    return contents_of(compared, TEST, title="three classes", problem=problem(), command="poise compare x")


# --- a closer look ----------------------------------------------------------------------------------------------------


def test_rows_scored_by_two_heads_are_looked_at_as_if_by_one() -> None:
    order = torch.randperm(len(TEST), generator=torch.Generator().manual_seed(3))
    halves = [Scorer(HEAD, order[:31]), Scorer(HEAD, order[31:])]
    whole, parts = (look(0, scored(by, TEST), TEST.counts) for by in ([Scorer(HEAD, None)], halves))
    assert whole.confusions == parts.confusions
    assert whole.coverage.accuracy == pytest.approx(parts.coverage.accuracy)
    assert whole.tradeoff == parts.tradeoff
    assert len(whole.tradeoff) == len(SHIFTS)


def test_confusions_are_the_most_frequent_mistakes() -> None:
    logits = torch.eye(3)[torch.tensor([1, 1, 2, 0, 0, 2])]
    seen = look(4, [(logits, torch.tensor([0, 0, 0, 0, 1, 2]))], ClassCounts(torch.tensor([200, 50, 5])))
    assert seen.row == 4
    assert [(each.true, each.answered, each.rows) for each in seen.confusions] == [(0, 1, 2), (0, 2, 1), (1, 0, 1)]
    assert [each.share for each in seen.confusions] == [0.5, 0.25, 1.0]


def test_the_groups_add_up_to_all_and_an_empty_group_is_none() -> None:
    only_many = rows_of(4, (9, 0, 0))
    seen = look(0, scored([Scorer(HEAD, None)], only_many), only_many.counts)
    assert seen.reliability["few"] is None
    assert seen.reliability["all"] == seen.reliability["many"]
    assert sum(seen.reliability["all"].rows) == 9


def test_trading_by_a_shift_is_logit_adjustment() -> None:
    seen = look(0, scored([Scorer(HEAD, None)], TEST), TEST.counts, shifts=(-0.5, 0.0, 1.0))
    assert [point.value for point in seen.tradeoff] == [-0.5, 0.0, 1.0]
    for point in seen.tradeoff:
        adjusted = build("logit_adjustment", tau=point.value)(problem())
        wanted = Point.of(point.value, evaluate_head(adjusted, TEST))  # three classes, each a group of its own
        assert point.model_dump() == pytest.approx(wanted.model_dump())


def test_no_point_of_a_curve_of_few_rows_is_told_twice() -> None:
    few = TEST.take(torch.arange(0, len(TEST), len(TEST) // 8))
    seen = look(0, scored([Scorer(HEAD, None)], few), few.counts).coverage
    assert 2 < len(seen.coverage) <= len(few)
    assert list(seen.coverage) == sorted(set(seen.coverage), reverse=True)


def test_the_curve_is_that_of_the_logits() -> None:
    seen = look(0, scored([Scorer(HEAD, None)], TEST), TEST.counts).coverage
    wanted = coverage_accuracy(HEAD(TEST.x[0]), TEST.y, TEST.counts)
    assert (seen.coverage[0], len(seen.coverage)) == (1.0, 60)
    for share, accuracy, balanced in zip(seen.coverage, seen.accuracy, seen.balanced, strict=True):
        [at] = torch.isclose(wanted.coverage, torch.tensor(share, dtype=torch.float64)).nonzero().flatten().tolist()
        assert accuracy == pytest.approx(float(wanted.accuracy[at]))
        assert balanced == pytest.approx(float(wanted.balanced_accuracy[at]))


def test_gradients_are_those_of_the_training_rows() -> None:
    train = problem().train
    wanted = gradient_balance(HEAD(train.x[0]), train.y)
    pull, push = pulls(HEAD, train)
    assert pull == pytest.approx(wanted.positive.tolist())
    assert push == pytest.approx(wanted.negative.tolist())


def test_means_leave_out_classes_without_rows() -> None:
    counts = ClassCounts(torch.tensor([300, 200, 50, 5]))
    found = group_means(torch.tensor([0.5, 0.7, math.nan, 0.1], dtype=torch.float64), counts)
    assert found == {"balanced": pytest.approx(1.3 / 3), "many": pytest.approx(0.6), "medium": None, "few": 0.1}


# --- intervals --------------------------------------------------------------------------------------------------------


def test_plain_intervals_by_hand() -> None:
    [found] = plain_intervals(torch.tensor([[1.0, 1.0, 1.0, 0.0]]), torch.zeros(4, dtype=torch.int64))
    z, n, p = 1.959964, 4, 0.75  # of one class: the interval of Wilson
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert found.estimate == 0.75
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=1e-5)
    assert (found.high + found.low) / 2 == pytest.approx((p + z**2 / (2 * n)) / (1 + z**2 / n), rel=1e-5)


def test_plain_intervals_stay_within_0_and_1_and_are_never_sure() -> None:
    y = torch.tensor([0, 0, 0, 1, 1, 2])
    whole, none = plain_intervals(torch.stack([torch.ones(6), torch.zeros(6)]), y)
    assert whole.high == pytest.approx(1)
    assert 0.2 < whole.low < 0.9
    assert none.low == pytest.approx(0, abs=1e-12)
    assert none.high == pytest.approx(1 - whole.low)


def test_plain_intervals_are_near_those_of_the_bootstrap() -> None:
    from poise.statistics import simultaneous_intervals

    g = torch.Generator().manual_seed(0)
    y = torch.arange(2000) % 20
    correct = (torch.rand(1, 2000, generator=g) < 0.6).double()
    [plain], [drawn] = plain_intervals(correct, y), simultaneous_intervals(correct, y)
    assert plain.high - plain.low == pytest.approx(drawn.high - drawn.low, rel=0.08)


def test_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"values must be \(M, N\) for the 3 labels, got \(2, 2\)"):
        plain_intervals(torch.zeros(2, 2), torch.zeros(3, dtype=torch.int64))


# --- paths ------------------------------------------------------------------------------------------------------------


def test_a_path_is_the_row_of_the_grid_that_holds_the_chosen_setting() -> None:
    scores = evaluate_head(HEAD, TEST)
    grid = [Spec("crt", lr=lr, weight_decay=decay) for lr in (0.1, 1.0, 10.0) for decay in (0.0, 1e-3)]
    tried = {Spec("crt"): tuple(Tried(spec, scores) for spec in grid)}
    [found] = over_settings(tried, {Spec("crt"): Spec("crt", lr=1.0, weight_decay=1e-3)})
    assert (found.family, found.parameter, found.rows, found.selected) == ("crt", "lr", "selection", 1.0)
    assert found.points == tuple(Point.of(value, scores) for value in (0.1, 1.0, 10.0))


def test_the_last_epoch_of_a_path_is_the_head_itself() -> None:
    spec = Spec("crt", epochs=3, lr=0.5)
    found = over_epochs(spec, problem(), TEST)
    assert len(found) == 1 + 3
    head = build("crt", epochs=3, lr=0.5)(problem())
    assert found[-1] == measure(head, TEST).scores
    assert over_epochs(Spec("tau_norm"), problem(), TEST) == ()


def test_a_path_of_strengths_holds_the_scores_of_its_settings() -> None:
    found = over_strengths(Spec("tau_norm"), "tau", (0.0, 0.5), problem(), TEST)
    assert [dict(each.spec.params)["tau"] for each in found] == [0.0, 0.5]
    assert found[1].scores == measure(build("tau_norm", tau=0.5)(problem()), TEST).scores


# --- contents ---------------------------------------------------------------------------------------------------------


def test_contents_say_what_the_comparison_says(compared, contents) -> None:
    assert contents.verdict.sentence == compared.verdict()
    table = compared.table()
    assert [row.method for row in contents.rows] == [row["method"] for row in table]
    for row, wanted in zip(contents.rows, table, strict=True):
        for ours, name in (("all", "accuracy"), ("balanced", "balanced_accuracy"), ("few", "few")):
            assert row.scores[ours].estimate == pytest.approx(wanted[name])
        assert row.scores["all"].low < row.scores["all"].estimate < row.scores["all"].high
    assert contents.classes.scored == (30, 30, 30)
    assert contents.classes.groups == ("many", "medium", "few")


def test_contents_hold_paths_on_the_rows_that_chose_and_heads_looked_at(contents) -> None:
    paths = {(path.family, path.parameter): path for path in contents.paths}
    assert {("tau_norm", "tau"), ("logit_adjustment", "tau")} <= set(paths)
    assert {parameter for _, parameter in paths} >= {"delta", "epoch"}
    assert all(path.rows == "selection" for path in contents.paths)
    looked = [contents.rows[closer.row] for closer in contents.closer]
    assert looked[0].role == "baseline"
    assert all(closer.pull and closer.norms and closer.tradeoff for closer in contents.closer)


def test_changes_count_the_rows_of_a_class_that_are_gained_and_lost() -> None:
    before, after = torch.tensor([0.0, 1, 0, 0, 1, 0]), torch.tensor([1.0, 1, 0, 1, 0, 1])
    several, one = changes(after, before, torch.tensor([0, 0, 0, 0, 0, 2]))
    assert (several.label, several.before, several.after) == (0, pytest.approx(0.4), pytest.approx(0.6))
    assert (several.low, several.high) == change_interval(2, 1, 5, at_once=2)
    assert (one.label, one.before, one.after) == (2, 0.0, 1.0)
    assert (one.low, one.high) == change_interval(1, 0, 1, at_once=2)


def test_the_interval_of_a_change_is_that_of_bonett_and_price_where_many_rows_changed() -> None:
    # 30 gained and 10 lost of 200: p = 31 / 202, q = 11 / 202.
    p, q = 31 / 202, 11 / 202
    half = 1.959964 * math.sqrt((p + q - (p - q) ** 2) / 202)
    low, high = change_interval(30, 10, 200)
    assert high == pytest.approx(p - q + half, abs=1e-6)
    # Of 40 rows that changed, at least 0.5881 are gains (Clopper and Pearson): 40 / 200 (2 * 0.5881 - 1) = 0.035.
    assert low == pytest.approx(min(p - q - half, 40 / 200 * (2 * 0.58805 - 1)), abs=1e-4)


def test_the_interval_of_a_change_stays_within_one_and_has_a_width() -> None:
    for rows in (1, 2, 3, 10, 400):
        for gained in range(0, rows + 1, max(1, rows // 5)):
            low, high = change_interval(gained, rows - gained, rows, at_once=100)
            assert -1 <= low < (2 * gained - rows) / rows + 1e-12
            assert (2 * gained - rows) / rows - 1e-12 < high <= 1
        nothing = change_interval(0, 0, rows)
        assert nothing[0] == -nothing[1] < 0


@pytest.mark.parametrize("at_once", [1, 2, 10, 1000])
def test_a_change_is_beyond_chance_only_where_the_exact_test_says_so(at_once: int) -> None:
    found = [
        (change_interval(gained, lost, gained + lost + same, at_once=at_once), binomtest(gained, gained + lost).pvalue)
        for gained in range(14)
        for lost in range(14)
        for same in (0, 5)
        if gained + lost
    ]
    beyond = [p for (low, high), p in found if low > 0 or high < 0]
    assert all(p <= 0.05 / at_once for p in beyond)
    assert beyond if at_once < 1000 else not beyond


def test_three_rows_that_all_gain_are_no_certainty() -> None:
    low, high = change_interval(3, 0, 3)
    assert low < -0.1
    assert high == 1.0


def test_changes_are_differences_of_recall_between_baseline_and_recommended(compared, contents) -> None:
    if compared.recommended is compared.baseline:
        assert contents.changes == ()
        return
    [recommended] = [row for row in contents.rows if row.recommended]
    [baseline] = [row for row in contents.rows if row.role == "baseline"]
    for change in contents.changes:
        assert change.after == pytest.approx(recommended.per_class[change.label])
        assert change.before == pytest.approx(baseline.per_class[change.label])


def test_contents_survive_the_disk_to_six_digits(contents, tmp_path: Path) -> None:
    text = contents.to_json()
    (tmp_path / "report.json").write_text(text, encoding="utf-8")
    again = read(tmp_path / "report.json")
    assert again.to_json() == text
    assert again.verdict.gain.estimate == pytest.approx(contents.verdict.gain.estimate, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"report.json is no JSON .*; `poise compare`, `demo`, `audit` and `fit` write one"),
        ("{}", "report.json holds no report of Poise; `poise compare`, `demo`, `audit` and `fit` write one"),
        (
            '{"format": "poise.report", "schema_version": 99}',
            "report.json has schema_version 99, this version reads up to 1; update poise",
        ),
        (
            '{"format": "poise.report", "schema_version": 1, "title": 3}',
            "report.json: title: Input should be a valid string; run the command that wrote it again",
        ),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "report.json")


@pytest.mark.parametrize("selection", ["kfold", "cross_fit", "paper"])
def test_every_protocol_has_contents(selection: str) -> None:
    given = problem(held_out=False) if selection == "kfold" else problem()
    found = compare(["crt(epochs=2)"], given, TEST, selection=selection, budget=2, rounds=100, folds=2, recipes=False)
    made = contents_of(found, TEST, title="t", problem=given)
    assert len(made.rows) == len(found.standings)
    assert bool(made.closer) == (selection != "paper")
    assert json.loads(made.to_json())["title"] == "t"


def test_logits_alone_have_contents_without_weights() -> None:
    found = audit(HEAD(TEST.x[0]), TEST.y, TEST.counts, budget=3)
    made = contents_of(found.comparison, found.rows, title="t", more_paths=[found.shown_path()])
    assert [(path.family, path.parameter, path.rows) for path in made.paths] == [("logit_adjustment", "tau", "test")]
    given = [point for point in made.paths[0].points if point.value == 0]
    assert given == [Point.of(0, found.scores)]
    assert all(closer.norms == closer.pull == () for closer in made.closer)


def test_a_model_is_shown_by_the_rows_that_chose_it() -> None:
    made = deploy(problem(), method="tau_norm(tau=0.5)", seed=0)
    page = contents_of_model(made, title="t", sentence="s.", held_out=True)
    assert [row.role for row in page.rows] == ["tuned", "baseline"]
    held_out = problem().held_out
    assert page.rows[1].per_class == pytest.approx(evaluate_head(HEAD, held_out).per_class)
    assert page.scored_on == "60 held-out rows, which chose the settings"
    assert page.verdict.decision == "fitted"
    named = {fact.name: fact.text for fact in page.protocol.facts}
    assert named["probabilities are for"] == "a uniform class prior"


def test_a_model_of_rows_alone_is_shown_by_its_folds() -> None:
    made = deploy(Problem(rows_of(0)), method="ncm", seed=0)
    page = contents_of_model(made, title="t", sentence="s.", held_out=False)
    assert len(page.rows) == 1
    assert page.scored_on.endswith("training rows, each by a head that was fitted without it")
    assert made.evidence is not None
    assert made.evidence.logits.shape == (sum(page.classes.scored), 3)


def test_a_model_that_no_row_chose_has_no_report() -> None:
    made = deploy(problem(), method="stage1", seed=0)
    with pytest.raises(ValueError, match="has nothing to report"):
        contents_of_model(made._replace(evidence=None), title="t", sentence="s.", held_out=True)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_thumbnails_are_small_and_those_of_the_class(tmp_path) -> None:
    import base64
    import io

    import numpy as np
    from PIL import Image

    from poise.data.samples.formats import open_samples

    for name, colour, side in (("red", (250, 0, 0), 20), ("blue", (0, 0, 250), 200)):
        for i in range(4):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            Image.new("RGB", (side, side // 2), colour).save(folder / f"{i}.png")
    (tmp_path / "red" / "0.png").write_bytes(b"no image")
    samples: Samples = open_samples(str(tmp_path))["train"]
    found = thumbnails(samples, range(2))
    assert {samples.class_names[int(k)]: len(uris) for k, uris in found.items()} == {"blue": 3, "red": 2}
    for k, uris in found.items():
        image = Image.open(io.BytesIO(base64.b64decode(uris[0].partition(",")[2])))
        assert max(image.size) <= 64
        colour = np.asarray(image.convert("RGB")).reshape(-1, 3).mean(axis=0)
        assert (colour[0] > colour[2]) == (samples.class_names[int(k)] == "red")


def test_a_report_with_less_than_no_rows_is_refused(tmp_path):
    made = everything()
    counts = (-1, *made.classes.counts[1:])
    wrong = made.model_copy(update={"classes": made.classes.model_copy(update={"counts": counts})})
    (tmp_path / "report.json").write_text(wrong.to_json(), encoding="utf-8")
    with pytest.raises(InputError, match="classes: a number of rows is below 0"):
        read(tmp_path / "report.json")
