"""`tune`: what is chosen is what a loop by hand chooses, on rows that may be used for it, and nothing else enters."""

import inspect
import json
import warnings
from dataclasses import replace

import pytest
import torch

from poise import methods, testing
from poise.data import bundled as data
from poise.errors import InputError, MemorisedRowsError, PoiseWarning
from poise.folds import fold_ids, scorable
from poise.heads.solver import with_stage1
from poise.machine.processes import World
from poise.metrics import evaluate
from poise.priors import divergence
from poise.results.scores import Scores
from poise.selection.fit_and_measure import Fitted, Measured, fit_specs, sums_of
from poise.selection.grids import default_grid
from poise.selection.rules import METRICS, Judging
from poise.selection.tune import match_marginal, pick, tune
from poise.selection.validation import judge, subset
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem
from poise.values.spec import Spec, as_specs

TAUS = tuple(Spec("tau_norm", tau=tau) for tau in (0.0, 0.5, 1.0, 1.5))
MIXED = (
    Spec("stage1"),
    Spec("tau_norm", tau=0.7),
    Spec("crt", epochs=2, lr=1.0),
    Spec("los", epochs=2, lr=0.3) + Spec("tau_norm", tau=0.5),
    Spec("ncm"),
)


def world(
    *, seen: bool | None = True, counts: tuple[int, ...] = (120, 40, 15, 6), held_out: int = 8, **more
) -> Problem:
    """A small problem whose training rows say whether the backbone saw them."""
    problem = testing.world(counts=counts, held_out=held_out, **more)
    return replace(problem, train=replace(problem.train, seen_by_backbone=seen))


def quietly(*arguments, **options):
    """`tune` with the remarks about edges left aside."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the best of the grid", category=PoiseWarning)
        return tune(*arguments, **options)


def by_hand(problem: Problem, spec: Spec) -> Scores:
    """Scores of a spec on the held-out rows, without any of the code of selection."""
    rows = problem.held_out
    assert rows is not None
    return evaluate(methods.from_spec(spec)(problem, 0)(rows.x[0]), rows.y, rows.counts)


def folds_by_hand(problem: Problem, spec: Spec, ids: torch.Tensor, seed: int = 0) -> Scores:
    """Scores of the pooled logits of all folds, a stage-1 head refitted for each."""
    train = problem.train
    logits = torch.full((len(train), len(train.counts)), torch.nan)
    for fold in ids.unique():
        rest = train.take((ids != fold).nonzero().flatten())
        counts = ClassCounts(torch.bincount(rest.y, minlength=len(train.counts)))
        part = with_stage1(Problem(replace(rest, counts=counts), held_out=problem.held_out), seed)
        logits[ids == fold] = methods.from_spec(spec)(part, seed)(train.x[0, ids == fold])
    counted = scorable(train.y, ids)
    return evaluate(logits[counted], train.y[counted], train.counts)


def assert_same(a: Scores, b: Scores) -> None:
    """Equal decisions and per-class recalls; sums of floats to rounding."""
    assert a.per_class == b.per_class
    assert (a.rows, a.accuracy) == (b.rows, b.accuracy)
    for name in ("balanced_accuracy", "macro_f1", "nll", "ece"):
        # Heads of one pass differ from heads alone by the rounding of float32.
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-4)


def test_the_penalty_of_logistic_regression_is_tuned() -> None:
    """Twelve noisy columns and few rows: the weakest penalty is far from the best."""
    problem = world(counts=(40, 20, 9, 5), dim=12, held_out=60, separation=1.5, seen=False)
    grid = default_grid(Spec("converged"))
    best, records = quietly(grid, problem)
    decays = [dict(spec.params)["weight_decay"] for spec in grid]
    assert len(decays) == 16
    assert (decays[0], decays[-1]) == (1e-6, 0.1)
    assert 1e-4 in decays
    scores = [by_hand(problem, spec) for spec in grid]
    assert [record.scores.per_class for record in records] == [found.per_class for found in scores]
    assert best == max(zip(grid, scores, strict=True), key=lambda pair: (pair[1].balanced_accuracy, -pair[1].nll))[0]
    assert scores[grid.index(best)].balanced_accuracy > scores[0].balanced_accuracy + 0.01


# --- nothing else enters ---------------------------------------------------------------------------------------------


def test_tune_has_no_parameter_through_which_a_test_split_could_enter() -> None:
    signature = inspect.signature(tune).parameters
    assert set(signature) == {
        "grid",
        "problem",
        "select",
        "metric",
        "seed",
        "folds",
        "groups",
        "search",
        "data",
        "progress",
    }
    assert not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in signature.values())
    assert set(Problem.__dataclass_fields__) == {"train", "head", "held_out", "world"}


@pytest.mark.parametrize("name", data.DEMO_SETS)
def test_rows_that_trained_the_backbone_select_nothing_and_the_remedy_is_named(name) -> None:
    problem = data.load_demo(name).problem
    with pytest.raises(
        MemorisedRowsError, match=r"kfold cannot select on rows that trained the representation.*held_out"
    ):
        tune(TAUS, problem, select="kfold")
    seen = replace(problem, held_out=problem.train)
    with pytest.raises(MemorisedRowsError, match=r"trained the representation; give rows.*seen_by_backbone=False"):
        tune(TAUS, seen)


def test_the_training_rows_are_no_held_out_rows_whatever_they_say() -> None:
    problem = world(seen=False)
    copied = replace(problem, held_out=replace(problem.train, x=problem.train.x.clone()))
    with pytest.raises(MemorisedRowsError, match=r"^(\d+) of \1 held-out rows are training rows too"):
        tune(TAUS, copied)


def test_selection_needs_held_out_rows_and_says_what_else_would_do() -> None:
    with pytest.raises(InputError, match=r"needs Problem\(held_out=.*select with kfold"):
        tune(TAUS, world(held_out=0))


def test_rows_of_unknown_origin_that_look_memorised_are_warned_of() -> None:
    problem = world(separation=20.0)
    assert problem.held_out is not None
    unknown = replace(problem, held_out=replace(problem.held_out, seen_by_backbone=None))
    with pytest.warns(PoiseWarning, match="gets more than 98% of the held-out rows right.*if it did, give"):
        quietly([TAUS[0]], unknown)
    folds = replace(problem, train=replace(problem.train, seen_by_backbone=None))
    with pytest.warns(PoiseWarning, match="as if the backbone had trained on them; if it did, select on rows it never"):
        quietly([TAUS[0]], folds, select="kfold")


def test_rows_of_unknown_origin_that_look_fresh_pass_in_silence() -> None:
    problem = world(seen=None, separation=1.0)
    assert problem.held_out is not None
    unknown = replace(problem, held_out=replace(problem.held_out, seen_by_backbone=None))
    tune([TAUS[0]], unknown)
    tune([TAUS[0]], unknown, select="kfold")


# --- held-out rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_held_out_rows_the_choice_is_that_of_a_loop_by_hand(seed) -> None:
    problem = world(seed=seed)
    best, records = quietly(MIXED, problem)
    scores = [by_hand(problem, spec) for spec in MIXED]
    assert [record.method for record in records] == [str(spec) for spec in MIXED]
    for record, expected in zip(records, scores, strict=True):
        assert_same(record.scores, expected)
    top = max(score.balanced_accuracy for score in scores)
    assert best in {spec for spec, score in zip(MIXED, scores, strict=True) if score.balanced_accuracy == top}


def test_without_a_stage_1_head_all_settings_are_judged_from_one_fitted_head() -> None:
    problem = world(head=False)
    judged = judge(MIXED, problem)
    for spec in MIXED:
        assert_same(judged.trials[spec].measured.scores, by_hand(with_stage1(problem, 0), spec))


def test_the_head_that_was_judged_comes_with_its_trial() -> None:
    problem = world()
    judged = judge(TAUS, problem)
    for spec, (_, seconds, head) in judged.trials.items():
        assert head is not None
        assert torch.equal(head.weight, methods.from_spec(spec)(problem, 0).weight)
        assert seconds > 0


# --- folds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "folds"), [(0, 5), (1, 3)])
def test_on_folds_the_choice_is_that_of_a_loop_by_hand_on_pooled_logits(seed, folds) -> None:
    problem = world(seen=False, seed=seed)
    best, records = quietly(MIXED, problem, select="kfold", seed=seed, folds=folds)
    ids = fold_ids(problem.train.y, folds, seed=seed)
    scores = [folds_by_hand(problem, spec, ids, seed) for spec in MIXED]
    for record, expected in zip(records, scores, strict=True):
        assert_same(record.scores, expected)
    top = max(score.balanced_accuracy for score in scores)
    assert best in {spec for spec, score in zip(MIXED, scores, strict=True) if score.balanced_accuracy == top}


def test_a_given_stage_1_head_has_seen_the_rows_and_is_not_used_on_folds() -> None:
    problem = world(seen=False)
    assert problem.head is not None
    spoilt = replace(problem, head=Head(-problem.head.weight, -problem.head.bias))
    for a, b in zip(*(quietly(TAUS, p, select="kfold").records for p in (problem, spoilt)), strict=True):
        assert a.scores == b.scores


def test_the_rows_of_a_judgement_on_folds_stand_in_the_order_of_what_is_right() -> None:
    problem = world(seen=False)
    judged = judge(TAUS, problem, Judging(select="kfold"))
    for trial in judged.trials.values():
        rows = judged.rows
        per_class = [float(trial.measured.correct[rows.y == k].double().mean()) for k in range(4)]
        assert per_class == pytest.approx(trial.measured.scores.per_class)


def fits_of(monkeypatch) -> list[tuple[Features, Features]]:
    """Collects (rows fitted on, rows measured) of every fold that selection runs."""
    seen: list[tuple[Features, Features]] = []
    fitted: list[Features] = []

    def fit(problem: Problem, specs, seed=0, *, progress=None) -> dict[Spec, Fitted]:
        fitted.append(problem.train)
        return fit_specs(problem, specs, seed, progress=progress)

    def score(heads: list[Head], rows: Features, world: World):
        seen.append((fitted[-1], rows))
        return sums_of(heads, rows, world)

    monkeypatch.setattr("poise.selection.validation.fit_specs", fit)
    monkeypatch.setattr("poise.selection.validation.sums_of", score)
    return seen


def rows_in(features: Features) -> set[tuple[float, ...]]:
    return set(map(tuple, features.x[0].tolist()))


@pytest.mark.parametrize("grouped", [False, True])
def test_no_row_and_no_group_is_fitted_on_and_scored_in_one_fold(monkeypatch, grouped) -> None:
    seen, problem = fits_of(monkeypatch), world(seen=False)
    train = problem.train
    groups = torch.arange(len(train)) % 23 if grouped else torch.arange(len(train))
    of_row = {tuple(row): int(group) for row, group in zip(train.x[0].tolist(), groups, strict=True)}
    quietly([TAUS[0]], problem, select="kfold", groups=groups if grouped else None)
    assert len(seen) == 5
    for fitted, scored in seen:
        assert len(fitted) + len(scored) == len(train)
        assert not {of_row[row] for row in rows_in(fitted)} & {of_row[row] for row in rows_in(scored)}
        assert torch.equal(torch.bincount(fitted.y, minlength=4), fitted.counts.n)
    assert sorted(row for _, scored in seen for row in rows_in(scored)) == sorted(of_row)


def test_a_class_of_one_row_or_one_group_is_fitted_on_and_left_out_of_the_score(monkeypatch) -> None:
    seen, problem = fits_of(monkeypatch), world(seen=False, counts=(40, 12, 4, 1))
    (record,) = quietly([TAUS[1]], problem, select="kfold").records
    assert record.scores.rows == 56
    assert record.scores.per_class[3] is None
    assert all(recall is not None for recall in record.scores.per_class[:3])
    assert [int(fitted.counts.n[3]) for fitted, _ in seen].count(1) == 4
    sites = torch.cat([torch.arange(52) % 10, torch.full((5,), 99)])  # classes 2 and 3 come from one site
    (record,) = quietly([TAUS[1]], problem, select="kfold", groups=sites, folds=2).records
    assert record.scores.rows == 52
    assert record.scores.per_class[2:] == (None, None)


def test_folds_of_one_row_per_class_say_that_nothing_can_be_learnt() -> None:
    problem = world(seen=False, counts=(1, 1, 1), head=False)
    with pytest.raises(InputError, match="fewer than two classes have rows in two folds"):
        tune(TAUS, problem, select="kfold", folds=3)


def test_two_classes_of_two_rows_are_enough_for_two_folds() -> None:
    problem = world(seen=False, counts=(8, 2), head=False)
    (record,) = quietly([TAUS[1]], problem, select="kfold", folds=2).records
    assert record.scores.rows == 10
    assert None not in record.scores.per_class


def test_a_method_that_reads_held_out_rows_needs_them_beside_the_folds() -> None:
    problem = world(seen=False)
    with pytest.raises(InputError, match=r"^ce\(epochs=1\)\+rebalance reads held-out rows beside the folds"):
        tune(["ce(epochs=1)+rebalance"], replace(problem, held_out=None), select="kfold")
    (record,) = quietly(["rebalance"], problem, select="kfold").records
    ids = fold_ids(problem.train.y)
    assert_same(record.scores, folds_by_hand(problem, Spec("rebalance"), ids))


def test_the_seconds_of_a_setting_are_those_of_all_folds(monkeypatch) -> None:
    took = iter((1.0, 2.0, 4.0))

    def fit(problem: Problem, specs, seed=0, *, progress=None) -> dict[Spec, Fitted]:
        seconds = next(took)
        return {spec: Fitted(head, seconds) for spec, (head, _) in fit_specs(problem, specs, seed).items()}

    monkeypatch.setattr("poise.selection.validation.fit_specs", fit)
    judged = judge(TAUS, world(seen=False), Judging(select="kfold", folds=3))
    assert [trial.seconds for trial in judged.trials.values()] == [7.0] * len(TAUS)


def test_a_subset_of_the_training_rows_counts_its_own_rows() -> None:
    train = world().train
    part = subset(train, torch.arange(110, len(train)))
    assert part.counts.n.tolist() == [10, 40, 15, 6]
    assert torch.equal(part.x, train.x[:, 110:])


def test_progress_over_folds_rises_to_its_total() -> None:
    ticks: list[tuple[int, int]] = []
    quietly(
        ["crt(epochs=2)", "los(epochs=2)"],
        world(seen=False),
        select="kfold",
        folds=3,
        progress=lambda *t: ticks.append(t),
    )
    assert ticks[-1] == (12, 12)
    assert [done for done, _ in ticks] == sorted(done for done, _ in ticks)


# --- the choice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("select", ["held_out", "kfold"])
def test_the_metric_decides_and_is_recorded(metric, select) -> None:
    problem = world(seen=False, separation=1.0, counts=(150, 60, 25, 8))
    best, records = quietly(TAUS, problem, select=select, metric=metric)
    values = [getattr(record.scores, metric) for record in records]
    chosen = next(record for record in records if record.selection is not None)
    assert chosen.method == str(best)
    assert getattr(chosen.scores, metric) == max(values) == chosen.selection.score
    assert chosen.selection.metric == metric


def test_metrics_can_disagree() -> None:
    problem = world(separation=1.0, held_out=30)
    specs = [Spec("logit_adjustment", tau=tau) for tau in (0.0, 1.0, 2.0)]
    found = {metric: quietly(specs, problem, metric=metric).best for metric in ("many", "few")}
    assert found["many"] != found["few"]


def scored(nll: float) -> Measured:
    """Measures of a head with this NLL and everything else equal."""
    problem = world()
    assert problem.held_out is not None
    trial = judge([Spec("stage1")], problem).trials[Spec("stage1")].measured
    return trial._replace(scores=replace(trial.scores, nll=nll))


def test_ties_go_to_the_lower_nll_then_to_fewer_stated_parameters_then_to_the_text() -> None:
    specs = (Spec("tau_norm", tau=1.0, bias="drop"), Spec("tau_norm"), Spec("l2_norm"), Spec("ncm"))
    judged = judge(specs, world())

    def best(*nlls: float) -> Spec:
        trials = {s: judged.trials[s]._replace(measured=scored(nll)) for s, nll in zip(specs, nlls, strict=True)}
        return pick(judged._replace(trials=trials), specs)[0]

    assert best(1.0, 2.0, 2.0, 2.0) == specs[0]
    assert best(2.0, 2.0, 3.0, 3.0) == specs[1]
    assert best(2.0, 2.0, 2.0, 2.0) == specs[2]


def test_a_temperature_ties_in_accuracy_and_wins_by_its_nll() -> None:
    problem = world(separation=0.5, held_out=40)
    assert quietly(["stage1", "temperature"], problem).best == Spec("temperature")


def test_a_metric_without_a_class_names_the_remedy() -> None:
    problem = world(counts=(40, 30, 25))
    with pytest.raises(InputError, match="hold no class for the metric 'many'; choose balanced_accuracy"):
        tune(TAUS, problem, metric="many")


def test_an_unknown_metric_or_rule_is_named_before_any_work() -> None:
    ticks: list[tuple[int, int]] = []
    for options, words in (({"metric": "f2"}, "metric must be one of .*'f2'"), ({"select": "test"}, "'test'")):
        with pytest.raises(InputError, match=words):
            tune(["crt(epochs=1)"], world(), progress=lambda *t: ticks.append(t), **options)
    assert ticks == []


def test_specs_are_given_as_specs_or_texts_each_once_and_at_least_one() -> None:
    assert as_specs(["tau_norm(tau=0.5)", Spec("tau_norm", tau=0.5), "ncm"]) == (Spec("tau_norm", tau=0.5), Spec("ncm"))
    assert as_specs("ncm") == as_specs(Spec("ncm")) == as_specs(text for text in ["ncm"]) == (Spec("ncm"),)
    for nothing in ([], (), iter([])):
        with pytest.raises(InputError, match="nothing to choose from"):
            tune(nothing, world())


def test_a_best_value_at_the_edge_is_warned_of_and_recorded() -> None:
    problem = world(separation=1.0, held_out=30)
    grid = [Spec("logit_adjustment", tau=tau) for tau in (0.01, 0.02, 0.03)]
    with pytest.warns(PoiseWarning) as caught:
        best, records = tune(grid, problem, metric="few")
    tau = dict(best.params)["tau"]
    assert tau in (0.01, 0.03)
    assert [str(w.message) for w in caught] == [
        f"the best of the grid, {best}, lies at its edge: try values beyond tau={tau:g}"
    ]
    (chosen,) = [record.selection for record in records if record.selection]
    assert chosen.edges == (f"tau={tau:g}",)


# --- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("select", ["held_out", "kfold"])
def test_records_name_rows_rule_seed_and_budget_and_are_plain_json(select) -> None:
    problem = world(seen=False)
    best, records = quietly(MIXED, problem, select=select, seed=3, data="small world")
    rows = problem.held_out if select == "held_out" else judge(MIXED, problem, Judging(select="kfold", seed=3)).rows
    assert rows is not None
    chosen = [record for record in records if record.selection]
    assert [record.method for record in chosen] == [str(best)]
    assert chosen[0].selection.rule == select
    assert (chosen[0].selection.rows, chosen[0].selection.key) == (len(rows), rows.key)
    assert (chosen[0].selection.configurations, chosen[0].selection.chosen) == (len(MIXED), (str(best),))
    for record in records:
        assert (record.role, record.data, record.seed) == ("trial", "small world", 3)
        assert (record.train, record.test) == (problem.train.key, rows.key)
        assert json.loads(json.dumps(record.to_dict(), allow_nan=False))["method"] == record.method


@pytest.mark.parametrize("select", ["held_out", "kfold"])
def test_the_same_call_gives_the_same_records(select) -> None:
    problem = world(seen=False)
    first, again = (
        [replace(r, seconds=0.0).to_dict() for r in quietly(MIXED, problem, select=select, seed=1).records]
        for _ in range(2)
    )
    assert json.dumps(first) == json.dumps(again)


@pytest.mark.parametrize("select", ["held_out", "kfold"])
def test_a_fit_that_diverges_is_warned_of_and_remarked_in_every_record_of_its_pass(select) -> None:
    problem = world(seen=False)
    with pytest.warns(PoiseWarning, match="diverged"):
        found = quietly(["ce(lr=1e30,epochs=2)", "stage1"], problem, select=select)
    for record in found.records:
        assert any("diverged" in remark for remark in record.remarks)


def test_a_misspelt_method_is_named_before_anything_is_trained() -> None:
    with pytest.raises(InputError, match="no method is called 'los2', did you mean 'los'"):
        tune(["los2(delta=0.1)"], world(seen=False), select="kfold")


@pytest.mark.parametrize("seed", [-1, 1.5])
def test_a_seed_that_is_none_is_refused_for_folds(seed) -> None:
    with pytest.raises(InputError, match="seed must be a whole number"):
        tune(TAUS, world(seen=False), select="kfold", seed=seed)


def test_two_classes_of_which_one_has_one_row_cannot_be_compared_in_folds() -> None:
    with pytest.raises(InputError, match="fewer than two classes have rows in two folds"):
        tune(TAUS, world(seen=False, counts=(9, 1), head=False), select="kfold")


def test_held_out_rows_of_one_class_are_refused() -> None:
    problem = world(seen=False)
    rows = problem.held_out
    assert rows is not None
    alone = replace(problem, held_out=rows.take((rows.y == 0).nonzero().flatten()))
    with pytest.raises(InputError, match="held-out rows are all of one class"):
        tune(TAUS, alone)


def test_a_matched_marginal_is_the_closest_of_the_grid_and_reads_no_label() -> None:
    problem = world(seen=False)
    rows = problem.held_out
    assert rows is not None
    found = match_marginal(TAUS, problem, rows)
    target = torch.full((len(rows.counts),), 1 / len(rows.counts), dtype=torch.float64)
    by_hand = {
        spec: float(divergence(methods.from_spec(spec)(problem)(rows.x[0]).double().softmax(-1).mean(0), target))
        for spec in as_specs(TAUS)
    }
    assert found.divergences == pytest.approx(by_hand)
    assert found.best == min(by_hand, key=by_hand.__getitem__)
    relabelled = replace(rows, y=rows.y.flip(0))
    assert match_marginal(TAUS, problem, relabelled) == found
    assert match_marginal(TAUS, problem, rows.x[0]) == found


def test_the_marginal_of_memorised_rows_is_refused() -> None:
    problem = world(seen=True)
    with pytest.raises(MemorisedRowsError, match="the marginal of rows that trained the representation"):
        match_marginal(TAUS, problem, problem.train)
