"""What fit promises of unseen rows: the number, its interval, the classes, and where there is none."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_wine

from poise.deployment import deploy as deployment
from poise.deployment.deploy import expectation
from poise.deployment.estimator import LongTailClassifier
from poise.deployment.model import load
from poise.deployment.origin import looks_memorised
from poise.deployment.promise import SPREAD, Judged, Promise, apart, promise_of
from poise.errors import InputError, MemorisedRowsError, PoiseWarning
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem

ABC = ("ant", "bee", "cat")
THIRDS = torch.full((3,), 1 / 3, dtype=torch.float64)


def rows(*labels, units=None, weight=None):
    """Judged rows of these labels, each a unit unless said otherwise."""
    y = torch.tensor(labels)
    heft = torch.ones(len(y)) if weight is None else torch.tensor(weight)
    return Judged(y, heft.double(), torch.arange(len(y)) if units is None else torch.tensor(units))


def right(*values):
    return torch.tensor(values, dtype=torch.float64)


def promised(hits, judged, prior=THIRDS, names=ABC, **more):
    found = promise_of(right(*hits), judged, prior, names, **more)
    assert found is not None
    return found


# --- the number and its interval --------------------------------------------------------------------------------------


def test_the_number_is_the_recall_weighted_by_the_prior_over_the_classes_that_have_rows():
    judged = rows(0, 0, 0, 0, 1, 1)
    found = promised((1, 1, 1, 0, 1, 0), judged)
    assert found.value == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert (found.judged, found.unjudged) == (("ant", "bee"), ("cat",))
    prior = torch.tensor([0.6, 0.2, 0.2], dtype=torch.float64)
    assert promised((1, 1, 1, 0, 1, 0), judged, prior).value == pytest.approx((3 * 3 / 4 + 1 / 2) / 4)


@pytest.mark.parametrize("hit", [0.0, 1.0])
@pytest.mark.parametrize("each", [1, 2, 5, 1000])
def test_an_interval_has_a_width_where_all_rows_agree_and_stays_between_zero_and_one(hit, each):
    found = promised([hit] * 3 * each, rows(*range(3)) if each == 1 else rows(*([0] * each + [1] * each + [2] * each)))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 1 / (6 * each)


def test_for_many_rows_it_is_the_normal_interval_of_a_stratified_mean():
    y = [0] * 4000 + [1] * 1000 + [2] * 2000
    hits = [1.0] * 3000 + [0.0] * 1000 + [1.0] * 500 + [0.0] * 500 + [1.0] * 1800 + [0.0] * 200
    found = promised(hits, rows(*y), spread=1.0)
    error = 1.96 * ((0.75 * 0.25 / 4000 + 0.5 * 0.5 / 1000 + 0.9 * 0.1 / 2000) / 9) ** 0.5
    assert found.high - found.low == pytest.approx(2 * error, rel=0.01)
    wider = promised(hits, rows(*y))
    assert (wider.high - wider.low) / (found.high - found.low) == pytest.approx(SPREAD**0.5, rel=0.01)


def test_a_row_that_is_there_again_is_no_news():
    hits, labels = (1, 0, 1, 1, 0, 1, 1, 1), (0, 0, 0, 1, 1, 1, 2, 2)
    once = promised(hits, rows(*labels))
    again = rows(*labels * 5, units=list(range(8)) * 5)  # copies, or five deals of folds
    for same in (promised(hits * 5, again), promised(hits, rows(*labels, weight=[5.0] * 8))):
        assert (same.value, same.low, same.high) == pytest.approx((once.value, once.low, once.high))
    assert promised(hits * 5, rows(*labels * 5)).low > once.low + 0.1  # five times as many rows say more


def test_units_of_unequal_weight_count_as_fewer():
    even = promised((1, 0, 1, 0, 1, 1), rows(0, 0, 0, 0, 1, 1))
    uneven = promised((1, 0, 1, 0, 1, 1), rows(0, 0, 0, 0, 1, 1, weight=[9.0, 9.0, 1.0, 1.0, 1.0, 1.0]))
    assert uneven.value == pytest.approx(even.value)
    assert uneven.high - uneven.low > even.high - even.low + 0.01


def test_what_rows_of_a_unit_have_in_common_across_classes_widens_the_interval():
    y = [0, 1, 2] * 20
    hits = [1.0] * 30 + [0.0] * 30  # all rows of a site, or none
    sites = [number // 3 for number in range(60)]
    alone, common = promised(hits, rows(*y)), promised(hits, rows(*y, units=sites))
    assert common.high - common.low > 1.5 * (alone.high - alone.low)


@pytest.mark.parametrize(
    ("labels", "prior"),
    [((0, 0, 0), THIRDS), ((0, 0, 1), torch.tensor([0.2, 0.2, 0.6]))],
    ids=["one class", "less than half of the prior"],
)
def test_a_number_for_too_few_classes_is_none(labels, prior):
    assert promise_of(right(1, 1, 1), rows(*labels), prior.double(), ABC) is None


def test_a_promise_says_its_number_and_scope_and_survives_json():
    found = Promise(value=0.7131, low=0.64, high=0.7791, level=0.95, judged=ABC[:2], unjudged=ABC[2:])
    said = "71.3 % (95 %: 64.0 to 77.9), over 2 of 3 classes; the other one has no row to judge by: cat"
    assert found.text == said
    assert expectation(found, "train") == f"accuracy on unseen rows: {said}"
    assert expectation(None, "uniform") == "balanced accuracy on unseen rows: none is promised"
    assert Promise.from_dict(found.to_dict()) == found
    with pytest.raises(InputError, match="the promise of a model needs value, low, high, level, judged and unjudged"):
        Promise.from_dict({"value": 1})


# --- what a choice owes to its rows -----------------------------------------------------------------------------------


def test_a_choice_among_equals_is_judged_without_its_luck():
    rng = np.random.default_rng(0)
    judged = Judged(torch.arange(200) % 2, torch.ones(200).double(), torch.arange(200))
    winners, fair = [], []
    for _ in range(50):
        hits = torch.from_numpy((rng.random((24, 200)) < 0.5).astype(np.float64))
        winners.append(float(hits.mean(dim=1).max()))
        found = apart(hits, judged, lambda some, hits=hits: int(hits[:, some].mean(dim=1).argmax()))
        fair.append(float(found.mean()))
    assert np.mean(winners) > 0.56
    assert np.mean(fair) == pytest.approx(0.5, abs=0.015)  # three standard errors of 10,000 rows


def test_rows_of_a_unit_never_choose_for_each_other():
    units = torch.arange(60) // 3
    judged = Judged(torch.arange(60) % 2, torch.ones(60).double(), units)
    asked = []

    def pick(some):
        asked.append(some)
        return 0

    assert torch.equal(apart(torch.ones(1, 60).double(), judged, pick), torch.ones(60).double())
    assert len(asked) == 5
    for some in asked:
        assert not set(units[some].tolist()) & set(units[~some].tolist())


# --- the estimator ----------------------------------------------------------------------------------------------------


def gaussians(sizes, seed=0, dim=6, apart=2.5):
    """Unit Gaussians around fixed means, and rows of the same to find the truth on."""
    means = np.random.default_rng(5).normal(size=(len(sizes), dim)) * apart / dim**0.5
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(sizes)), sizes)
    return means[y] + rng.normal(size=(len(y), dim)), y


def memorised(seed=0, *, seen):
    """Rows whose features say the label where the backbone saw them, and hint at it where it did not."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(4), 60)
    return (8.0 if seen else 1.2) * np.eye(4, 8)[y] + rng.normal(size=(len(y), 8)), y


def test_classes_of_one_row_are_left_out_and_named():
    x, y = gaussians((60, 40, 25, 15, 8, 4, 2, 1, 1, 1, 1, 1))
    scope = "over 7 of 12 classes; the other 5 have no row to judge by: 7, 8, 9, 10, 11"
    with pytest.warns(PoiseWarning, match=f"unseen_recall_ holds {scope}"):
        found = LongTailClassifier(seen_by_backbone=False).fit(x, y)
    assert found.promise_.judged == tuple("0123456")
    assert found.promise_.text.endswith(f", {scope}")
    fresh_x, fresh_y = gaussians((300,) * 12, seed=1)
    hits = found.predict(fresh_x) == fresh_y
    assert found.promise_.low < np.mean([hits[fresh_y == k].mean() for k in range(7)]) < found.promise_.high


@pytest.mark.parametrize("seen", [False, None])
def test_where_one_class_alone_has_rows_to_judge_by_there_is_no_number(seen):
    x, y = gaussians((999, 1), apart=3)
    said = "no recall is promised: it would hold over 1 of 2 classes; the other one has no row to judge by: 1"
    with pytest.warns(PoiseWarning, match=said):
        found = LongTailClassifier("lda", seen_by_backbone=seen).fit(x, y)
    assert found.unseen_recall_ is None
    assert found.promise_ is None


def test_a_class_whose_rows_are_one_group_cannot_be_judged():
    x, y = gaussians((60, 40, 12))
    groups = np.where(y == 2, 1000, np.arange(len(y)))
    with pytest.warns(PoiseWarning, match="over 2 of 3 classes; the other one has no row to judge by: 2"):
        found = LongTailClassifier("lda", seen_by_backbone=False).fit(x, y, groups=groups)
    assert found.promise_.unjudged == ("2",)


def test_classes_that_the_held_out_rows_lack_are_not_promised():
    x, y = gaussians((60, 40, 12))
    fresh_x, fresh_y = gaussians((20, 20, 0), seed=1)
    with pytest.warns(PoiseWarning, match="the other one has no row to judge by: 2"):
        found = LongTailClassifier("lda").fit(x, y, held_out=(fresh_x, fresh_y))
    assert found.promise_.judged == ("0", "1")


def test_copies_of_rows_do_not_narrow_the_interval():
    x, y = gaussians((40, 20, 10), apart=1.5)
    fresh = gaussians((15, 15, 15), seed=1, apart=1.5)
    for held_out in (None, fresh):
        once = LongTailClassifier("lda", seen_by_backbone=False).fit(x, y, held_out=held_out).promise_
        many = tuple(np.repeat(part, 5, axis=0) for part in (x, y))
        more = None if held_out is None else tuple(np.repeat(part, 5, axis=0) for part in held_out)
        again = LongTailClassifier("lda", seen_by_backbone=False).fit(*many, held_out=more).promise_
        assert (again.high - again.low) == pytest.approx(once.high - once.low, rel=0.1)


def test_memorised_rows_of_unknown_origin_promise_nothing_and_it_is_said():
    with pytest.warns(
        PoiseWarning, match="as if the backbone had trained on them, so no recall is promised: if"
    ) as told:
        found = LongTailClassifier().fit(*memorised(seen=True))
    assert len(told) == 1
    assert (found.unseen_recall_, found.promise_) == (None, None)
    denied = LongTailClassifier(seen_by_backbone=False).fit(*memorised(seen=True))  # warnings are errors here
    assert denied.unseen_recall_ > 0.98


@pytest.mark.filterwarnings("ignore:.*hardly better than chance")  # which is right here
def test_rows_that_guessing_gets_right_do_not_look_memorised():
    x, y = gaussians((990, 10), apart=0.1)
    found = LongTailClassifier("converged", prior="train").fit(x, y)
    assert found.unseen_recall_ > 0.98
    judged = rows(*y.tolist())
    assert looks_memorised(torch.from_numpy((y == 0).astype(float)), judged, 2) is None
    assert str(looks_memorised(torch.ones(1000).double(), judged, 2)).startswith("100.0% of the rows set aside")


def test_held_out_rows_that_fall_clearly_below_contradict_unseen_training_rows():
    fresh = memorised(1, seen=False)
    with pytest.raises(MemorisedRowsError) as caught:
        LongTailClassifier(seen_by_backbone=False).fit(*memorised(seen=True), held_out=fresh)
    assert "as if the backbone had trained on the training rows: say seen_by_backbone=True" in str(caught.value)
    with pytest.warns(PoiseWarning, match="they are treated so"):
        unknown = LongTailClassifier().fit(*memorised(seen=True), held_out=fresh)
    told = LongTailClassifier(seen_by_backbone=True).fit(*memorised(seen=True), held_out=fresh)
    assert unknown.promise_ == told.promise_
    truth = memorised(2, seen=False)
    assert told.promise_.low < told.score(*truth) < told.promise_.high


@pytest.mark.parametrize("seen", [False, None])
@pytest.mark.parametrize("table", [load_digits, load_wine])
def test_tables_of_separable_classes_are_not_refused(table, seen):
    x, y = table(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    held, rest = order[: len(y) // 3], order[len(y) // 3 :]
    found = LongTailClassifier("lda", seen_by_backbone=seen).fit(x[rest], y[rest], held_out=(x[held], y[held]))
    assert found.promise_.low < found.score(x[held], y[held]) <= found.promise_.high
    LongTailClassifier("lda", seen_by_backbone=False).fit(x, y)


@pytest.mark.filterwarnings("ignore:no rows that neither backbone nor head saw")
def test_a_named_method_on_seen_rows_trains_and_promises_nothing():
    found = LongTailClassifier("logit_adjustment", seen_by_backbone=True).fit(*gaussians((40, 20, 10)))
    assert (found.unseen_recall_, found.promise_) == (None, None)


def test_the_promise_is_saved_with_the_model(tmp_path):
    found = LongTailClassifier("lda").fit(*gaussians((40, 20, 10)))
    again = LongTailClassifier.load(found.save(tmp_path / "m"))
    assert again.promise_ == found.promise_
    assert again.unseen_recall_ == found.promise_.value


# --- deploy -----------------------------------------------------------------------------------------------------------


def given(*, head):
    """Rows, a head of them or none, and held-out rows."""
    parts = [gaussians(sizes, seed) for seed, sizes in enumerate([(60, 40, 12), (30, 30, 30)])]
    counts = ClassCounts(torch.tensor([60, 40, 12]))
    train, fresh = (
        Features(torch.from_numpy(x), torch.from_numpy(y), counts, seen, ABC)
        for (x, y), seen in zip(parts, (head, False), strict=True)
    )
    means = torch.stack([train.x[0][train.y == k].mean(dim=0) for k in range(3)])
    first = Head(means, counts.prior.log() - means.square().sum(dim=1) / 2)
    return Problem(train, first if head else None, fresh)


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("method", ["auto", "logit_adjustment(tau=1.0)"])
def test_a_model_keeps_what_its_held_out_rows_promise(tmp_path, head, method):
    model = deployment.deploy(given(head=head), method=method).model
    assert model.promise.judged == ABC
    assert model.promise.low < model.promise.value == model.provenance["unseen_recall"] < model.promise.high
    assert load(model.save(tmp_path / "m")).promise == model.promise
    fresh_x, fresh_y = gaussians((1000,) * 3, seed=7)
    hits = model.head(torch.from_numpy(fresh_x)).argmax(dim=-1).numpy() == fresh_y
    assert model.promise.low < hits.mean() < model.promise.high


def test_a_head_that_was_chosen_before_promises_nothing():
    model = deployment.deploy(given(head=True), method="logit_adjustment(tau=1.0)", selected=True).model
    assert model.promise is None
    assert model.provenance["unseen_recall"] is None
