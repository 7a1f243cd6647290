"""Early elimination: what stands for a setting, turned features, equal shares, and full fits behind every number."""

import warnings
from dataclasses import replace

import pytest
import torch

from poise import testing
from poise.diagnosis.compare import compare
from poise.errors import InputError, PoiseWarning
from poise.methods import from_spec, settings
from poise.selection.elimination import SEARCHES, Rung, as_search, principal_axes, projected, shortened
from poise.selection.fit_and_measure import fit_specs
from poise.selection.grids import default_grid
from poise.selection.tune import pick, tune
from poise.selection.validation import judge, judge_grids
from poise.values.features import Features
from poise.values.head import Head, Prep
from poise.values.problem import Problem
from poise.values.spec import Spec

HALF = (Rung(keep=0.5, epochs=0.5),)
CRT = tuple(Spec("crt", lr=lr, epochs=4, batch_size=32) for lr in (0.01, 0.1, 1.0, 3.0))
TAUS = tuple(Spec("tau_norm", tau=tau) for tau in (0.0, 0.5, 1.0))


def world(**more) -> Problem:
    """A small problem whose held-out rows nobody saw."""
    return testing.world(counts=(60, 20, 8), held_out=8, dim=6, **more)


def evaluated(problem: Problem) -> Features:
    """Rows of the same world that nothing else uses."""
    rows = testing.world(counts=(60, 20, 8), held_out=30, dim=6, seed=3).held_out
    assert rows is not None
    return replace(rows, counts=problem.train.counts)


def quietly(run, *arguments, **options):
    """A call with the remarks about edges and heads that diverge left aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PoiseWarning)
        return run(*arguments, **options)


# --- what stands for a setting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "share", "expected"),
    [
        ("crt(lr=1.0,epochs=10)", 0.3, "crt(epochs=3,lr=3.333)"),
        ("los(lr=0.03,epochs=20)", 0.5, "los(epochs=10,lr=0.06)"),
        ("crt(lr=1.0,epochs=10,warmup_epochs=4)", 0.5, "crt(epochs=5,lr=2.0,warmup_epochs=2)"),
        ("crt(lr=1.0,epochs=3)", 0.1, "crt(epochs=1,lr=3.0)"),
        ("crt(epochs=1)", 0.1, "crt(epochs=1)"),
        ("crt(epochs=0)", 0.5, "crt(epochs=0)"),
        ("crt(lr=1.0,epochs=4)+tau_norm(tau=0.5)", 0.5, "crt(epochs=2,lr=2.0)+tau_norm(tau=0.5)"),
        ("tau_norm(tau=0.5)", 0.1, "tau_norm(tau=0.5)"),
    ],
)
def test_a_short_fit_has_fewer_epochs_and_the_same_sum_of_learning_rates(text, share, expected) -> None:
    assert shortened(Spec.parse(text), share) == Spec.parse(expected)


@pytest.mark.parametrize("name", ["ce", "los", "lws", "ldam", "gala"])
def test_defaults_that_a_spec_leaves_open_are_shortened_too(name) -> None:
    full, short = settings(Spec(name)), settings(shortened(Spec(name), 0.2))
    assert short["epochs"] * short["lr"] == pytest.approx(full["epochs"] * full["lr"], rel=1e-3)
    changed = {key for key in full if full[key] != short[key]}
    assert changed == {"epochs", "lr"}


def test_only_trained_settings_of_a_grid_that_is_too_long_are_looked_at() -> None:
    rung = Rung(keep=0.5)
    assert set(rung.looks((*CRT, *TAUS))) == set(CRT)
    assert rung.looks(CRT[:1]) == {}
    assert rung.looks(TAUS) == {}
    assert Rung(keep=1.0).looks(CRT) == {}


@pytest.mark.parametrize(
    ("keep", "of", "kept"), [(0.5, 4, 2), (0.5, 5, 3), (1 / 6, 16, 3), (0.01, 16, 1), (1 / 3, 9, 3), (0.28, 25, 7)]
)
def test_a_rung_keeps_its_share_rounded_up(keep, of, kept) -> None:
    assert Rung(keep=keep).kept(of) == kept


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep": 0.0}, r"rung: keep must be a number in \(0, 1\], got 0.0"),
        ({"keep": 2}, r"rung: keep must be a number in \(0, 1\], got 2"),
        ({"keep": 0.5, "epochs": float("nan")}, r"rung: epochs must be a number in \(0, 1\], got nan"),
        ({"keep": 0.5, "axes": 0}, "rung: axes must be a whole number, 1 or more, got 0"),
    ],
)
def test_a_rung_out_of_range_is_refused(options, said) -> None:
    with pytest.raises(InputError, match=said):
        Rung(**options)


def test_a_search_is_a_name_or_rungs() -> None:
    assert as_search("full") == ()
    assert as_search("halving") == SEARCHES["halving"]
    assert as_search(list(HALF)) == HALF
    with pytest.raises(InputError, match="search must be one of full, halving, sketch"):
        as_search("quick")
    with pytest.raises(InputError, match=r"a search is one of full, halving, sketch, or Rungs; got 0.5"):
        as_search([0.5])  # type: ignore[list-item]


# --- fewer axes -------------------------------------------------------------------------------------------------------


def test_principal_axes_are_those_of_the_singular_value_decomposition() -> None:
    x = world().train.x[0].double()
    found = principal_axes(world().train, 3)
    _, _, rows = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False)
    assert torch.allclose(found.centre, x.mean(dim=0))
    assert torch.allclose((found.basis.T @ rows[:3].T).abs(), torch.eye(3, dtype=torch.float64), atol=1e-4)


def test_on_all_axes_every_head_gives_the_logits_that_it_gave() -> None:
    problem = world()
    assert problem.head is not None
    turned, axes = projected(problem, 6), principal_axes(problem.train, 6)
    assert turned.head is not None
    x, y = problem.train.x[0], turned.train.x[0]
    assert torch.allclose(turned.head(y), problem.head(x), atol=1e-5)
    for centre in (None, torch.ones(6)):
        cosine = replace(problem.head, prep=Prep(centre, unit=True))
        assert torch.allclose(axes.head(cosine)(y), cosine(x), atol=1e-5)
    centred = Head(problem.head.weight, problem.head.bias, Prep(torch.ones(6)))
    assert torch.allclose(axes.head(centred)(y), centred(x), atol=1e-5)


@pytest.mark.parametrize(
    "text", ["ce(epochs=2)", "los(epochs=2)", "cosine(epochs=2)", "marc(epochs=2)", "lws(epochs=2)"]
)
def test_on_all_axes_a_fit_from_the_stage_1_head_gives_the_same_logits(text) -> None:
    problem = world()
    turned = projected(problem, 6)
    here, there = (from_spec(text)(p, 0) for p in (problem, turned))
    assert problem.held_out is not None
    assert turned.held_out is not None
    assert torch.allclose(here(problem.held_out.x[0]), there(turned.held_out.x[0]), atol=1e-3)


def test_all_views_are_turned_and_labels_and_weights_stay() -> None:
    train = world().train
    several = replace(train, x=torch.cat([train.x, train.x + 1]), weight=torch.ones(len(train)))
    turned = projected(Problem(several), 2).train
    axes = principal_axes(several, 2)
    assert turned.x.shape == (2, len(train), 2)
    for view, expected in zip(turned.x, several.x, strict=True):
        assert torch.allclose(view.double(), (expected.double() - axes.centre) @ axes.basis, atol=1e-5)
    assert torch.equal(turned.y, train.y)
    assert turned.seen_by_backbone == train.seen_by_backbone
    assert torch.equal(turned.weight, several.weight)


def test_rows_in_blocks_give_the_same_axes(monkeypatch) -> None:
    train = world().train
    whole = principal_axes(train, 4)
    monkeypatch.setattr("poise.values.arrays.READ_NUMBERS", 40)
    parts = principal_axes(train, 4)
    assert torch.allclose(parts.centre, whole.centre)
    assert torch.allclose((parts.basis.T @ whole.basis).abs(), torch.eye(4, dtype=torch.float64), atol=1e-4)


def test_a_rung_on_all_axes_or_more_leaves_the_problem_as_it_is() -> None:
    problem = world()
    assert Rung(keep=0.5).problem(problem) is problem
    assert Rung(keep=0.5, axes=6).problem(problem) is problem
    assert Rung(keep=0.5, axes=5).problem(problem).train.dim == 5


# --- the search -------------------------------------------------------------------------------------------------------


def test_the_better_share_of_the_look_is_fitted_in_full_and_no_cheap_number_is_left() -> None:
    problem = world()
    found = quietly(judge_grids, [CRT, TAUS], problem, search=HALF)
    looks = {spec: shortened(spec, 0.5) for spec in CRT}
    short = quietly(judge, tuple(looks.values()), problem)

    def order(spec: Spec) -> tuple[float, float]:
        scores = short.trials[looks[spec]].measured.scores
        return (-scores.balanced_accuracy, scores.nll)

    best = sorted(CRT, key=order)[:2]
    assert set(found.trials) == {*best, *TAUS}
    assert {spec: early.ran for spec, early in found.early.items()} == {s: looks[s] for s in CRT if s not in best}
    alone = quietly(fit_specs, problem, [*best, *TAUS])
    for spec, trial in found.trials.items():
        assert trial.head is not None
        assert torch.allclose(trial.head.weight, alone[spec].head.weight, atol=1e-5)
    for early in found.early.values():
        assert early.trial.measured.scores == short.trials[early.ran].measured.scores
        assert early.trial.head is None


def test_every_method_keeps_the_same_share_of_its_settings() -> None:
    grids = [default_grid(Spec(name, epochs=2, batch_size=32), 4) for name in ("ce", "los", "lws")]
    found = quietly(judge_grids, grids, world(), search=HALF)
    for grid in grids:
        assert sum(spec in found.trials for spec in grid) == 2
        best, selection = pick(found, grid)
        assert best in found.trials
        assert (selection.configurations, selection.early) == (4, 2)
        assert selection.rungs == (str(HALF[0]),)
        assert str(selection) == "held_out (24 rows, 4 settings, 2 left out early)"


def test_several_rungs_narrow_one_after_the_other() -> None:
    rungs = (Rung(keep=0.5, epochs=0.25, axes=3), Rung(keep=0.5, epochs=0.5))
    found = quietly(judge_grids, [CRT], world(), search=rungs)
    assert len(found.trials) == 1
    assert sorted(early.rung for early in found.early.values()) == sorted([str(rungs[0])] * 2 + [str(rungs[1])])


def test_a_rung_that_keeps_all_changes_nothing() -> None:
    problem = world()
    found = quietly(judge_grids, [CRT, TAUS], problem, search=[Rung(keep=1.0, epochs=0.5)])
    full = quietly(judge, [*CRT, *TAUS], problem)
    assert found.early == {}
    assert {s: t.measured.scores for s, t in found.trials.items()} == {
        s: t.measured.scores for s, t in full.trials.items()
    }


def test_extra_specs_are_judged_in_full_whatever_the_search() -> None:
    found = quietly(judge_grids, [CRT], world(), search=[Rung(keep=0.01, epochs=0.5)], extra=CRT)
    assert set(found.trials) == set(CRT)
    assert found.early == {}


@pytest.mark.parametrize("select", ["held_out", "kfold"])
def test_tune_says_what_ran_in_place_of_what_was_left_out(select) -> None:
    problem = world()
    problem = replace(problem, train=replace(problem.train, seen_by_backbone=False))
    best, records = quietly(tune, CRT, problem, select=select, search=HALF, folds=2)
    assert len(records) == len(CRT)
    left_out = [(spec, record) for spec, record in zip(CRT, records, strict=True) if record.method != str(spec)]
    assert len(left_out) == 2
    for spec, record in left_out:
        assert record.method == str(shortened(spec, 0.5))
        assert record.settings[0]["epochs"] == 2
        assert record.remarks[-1] == f"{spec} was left out of the search: not among {HALF[0]}"
    chosen = next(record for record in records if record.selection is not None)
    assert chosen.method == str(best)
    assert chosen.to_dict()["selection"]["early"] == 2


def test_methods_of_one_grid_compete_with_their_own_kind() -> None:
    mixed = [
        spec for pair in zip(CRT, [Spec("los", lr=s.params[2][1], epochs=4) for s in CRT], strict=True) for spec in pair
    ]
    _, records = quietly(tune, mixed, world(), search=HALF)
    full = [record.method for record, spec in zip(records, mixed, strict=True) if record.method == str(spec)]
    assert sorted(method.split("(")[0] for method in full) == ["crt", "crt", "los", "los"]


@pytest.mark.parametrize("selection", ["held_out", "kfold", "cross_fit"])
def test_compare_chooses_among_full_fits_and_records_the_search(selection) -> None:
    problem = world()
    problem = replace(problem, train=replace(problem.train, seen_by_backbone=False))
    spec = Spec("crt", epochs=2, batch_size=32)
    found = quietly(compare, [spec], problem, evaluated(problem), selection=selection, budget=4, folds=2, search=HALF)
    row = next(s for s in found.standings if s.family == spec and s.role == "tuned")
    assert row.selection is not None
    assert row.selection.configurations == 4
    assert row.selection.early == (4 if selection == "cross_fit" else 2)
    assert row.records[0].settings[0]["epochs"] == 2
    assert all(s.selection is None or s.selection.early == 0 for s in found.standings if s.family != spec)


def test_compare_leaves_recipes_out_when_asked() -> None:
    problem = world()
    with_recipes, without = (
        quietly(compare, ["ncm"], problem, evaluated(problem), budget=2, recipes=wanted) for wanted in (True, False)
    )
    assert {s.role for s in with_recipes.standings} == {"baseline", "tuned", "recipe"}
    assert [str(s.family) for s in without.standings if s.role == "recipe"] == ["converged+logit_adjustment"]
    assert without.verdict() == with_recipes.verdict()


def test_the_same_search_gives_the_same_choice() -> None:
    problem = world()
    first, again = (quietly(tune, CRT, problem, search="halving") for _ in range(2))
    assert first.best == again.best
    assert [record.scores for record in first.records] == [record.scores for record in again.records]


def test_progress_of_a_search_rises_to_its_total() -> None:
    seen: list[tuple[int, int]] = []
    quietly(tune, CRT, world(), search=HALF, progress=lambda done, of: seen.append((done, of)))
    shares = [done / of for done, of in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_warnings_of_a_look_are_not_those_of_the_search() -> None:
    wild = tuple(Spec("ce", lr=lr, epochs=4, batch_size=8, scale_features=False) for lr in (1e-3, 1e30))
    found = judge_grids([wild], world(), search=HALF)
    assert set(found.trials) == {wild[0]}
    assert found.remarks == ()
