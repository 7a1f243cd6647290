"""Where a model is made: rows in two splits are refused or said once, and copies of a row promise nothing."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from poise import testing
from poise.decisions.targets import Targets
from poise.deployment.calibration import distinct_rows
from poise.deployment.chosen_point import choose_operating_point
from poise.deployment.deploy import deploy
from poise.deployment.estimator import LongTailClassifier
from poise.deployment.last_layer import find_layer, open_checkpoint
from poise.deployment.rebalance import rebalance
from poise.errors import MemorisedRowsError

PARTS = {"all": slice(None), "all but one": slice(1, None), "every other": slice(None, None, 2)}
each_part = pytest.mark.parametrize("chosen", PARTS.values(), ids=PARTS)


def rows(sizes=(60, 25, 10), seed=0, dim=6):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(sizes)), sizes)
    return rng.normal(size=(len(y), dim)) + 1.5 * np.eye(len(sizes), dim)[y], y


def world():
    """A problem with a given head, and one whose held-out rows are some of the training rows."""
    return testing.world(counts=(60, 25, 10), held_out=20)


def leaking(chosen):
    problem = world()
    places = torch.arange(len(problem.train))[chosen]
    return replace(problem, held_out=replace(problem.train.take(places), seen_by_backbone=False))


def said(call):
    """What a call warns of shared rows."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in caught if "rows too" in str(each.message)]


@each_part
@pytest.mark.parametrize("method", ["auto", "ncm"])
@pytest.mark.parametrize("jitter", [0.0, 1e-6])
def test_the_estimator_refuses_training_rows_as_held_out_rows(method, chosen, jitter):
    x, y = rows()
    copies = x[chosen] + jitter * rows(seed=1)[0][chosen]
    with pytest.raises(MemorisedRowsError, match=r"^(\d+) of \1 held-out rows are training rows too"):
        LongTailClassifier(method, seen_by_backbone=True).fit(x, y, held_out=(copies, y[chosen]))


def test_the_estimator_says_once_how_many_are_shared():
    x, y = rows()
    fresh, own = rows((20, 20, 20), seed=1)
    fresh[7] = x[3]
    (remark,) = said(lambda: LongTailClassifier("ncm").fit(x, y, held_out=(fresh, own)))
    assert remark == (
        "1 of 60 held-out rows are training rows too (the first: held-out row 7, training row 3); what is measured on "
        "them is no evidence"
    )


def test_rows_of_weight_zero_may_be_held_out():
    x, y = rows()
    kept = np.arange(len(y)) % 4 > 0
    rest = (x[~kept], y[~kept])
    assert said(lambda: LongTailClassifier("ncm").fit(x, y, sample_weight=kept.astype(float), held_out=rest)) == []


def test_a_table_of_few_values_and_one_with_weights_in_place_of_repeats_pass():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (600, 4)).astype(float)
    y = (x.sum(axis=1) + rng.integers(0, 2, 600) > 2).astype(int)
    assert said(lambda: LongTailClassifier("ncm").fit(x[:400], y[:400], held_out=(x[400:], y[400:]))) == []
    pairs, times = np.unique(np.c_[x, y][:400], axis=0, return_counts=True)
    weighed = {"sample_weight": times, "held_out": (x[400:], y[400:])}
    assert said(lambda: LongTailClassifier("ncm").fit(pairs[:, :-1], pairs[:, -1].astype(int), **weighed)) == []


@each_part
def test_deploying_a_given_head_refuses_training_rows(chosen):
    with pytest.raises(MemorisedRowsError, match=r"rows are (the )?training rows"):
        deploy(leaking(chosen), method="tau_norm(tau=0.5)")


@each_part
def test_deploying_rows_alone_refuses_training_rows(chosen):
    with pytest.raises(MemorisedRowsError, match=r"rows are (the )?training rows"):
        deploy(replace(leaking(chosen), head=None), method="ncm")


@pytest.mark.parametrize("head", [True, False])
def test_deploying_says_once_what_is_shared_though_more_is_chosen_on_the_rows(head):
    problem = world()
    assert problem.held_out is not None
    x = problem.held_out.x.clone()
    x[0, 4] = problem.train.x[0, 9]
    given = replace(problem, held_out=replace(problem.held_out, x=x), head=problem.head if head else None)
    method = "tau_norm(tau=0.5)" if head else "ncm"
    found = said(lambda: deploy(given, method=method, targets=Targets(abstain_accuracy=0.5)))
    assert [each.split(" (")[0] for each in found] == ["1 of 60 held-out rows are training rows too"]


@each_part
def test_an_operating_point_is_chosen_on_other_rows(chosen):
    problem = leaking(chosen)
    with pytest.raises(MemorisedRowsError, match="training rows"):
        choose_operating_point(problem.head, problem.held_out, Targets(coverage=0.5), trained_on=problem.train)


@each_part
def test_rebalancing_refuses_training_rows_and_writes_nothing(tmp_path, chosen):
    path = tmp_path / "model.safetensors"
    save_file({"fc.weight": torch.eye(3, 6), "fc.bias": torch.zeros(3)}, path)
    checkpoint = open_checkpoint(path)
    layer = find_layer(checkpoint, classes=3, dim=6)
    problem = leaking(chosen)
    problem = replace(problem, head=None, train=replace(problem.train, seen_by_backbone=True))
    with pytest.raises(MemorisedRowsError, match=r"rows are (the )?training rows"):
        rebalance(checkpoint, layer, problem, tmp_path / "new.safetensors")
    assert [each.name for each in tmp_path.iterdir()] == ["model.safetensors"]


# --- copies -----------------------------------------------------------------------------------------------------------


def copied(jitter):
    """75 rows with labels that are wrong in a third of the cases, five times each, and the true world."""
    rng = np.random.default_rng(3)
    unit = np.repeat(np.arange(75), 5)

    def draw(sizes):
        y = np.repeat([0, 1], sizes)
        x = np.c_[2.0 * y, np.zeros((len(y), 31))] + rng.normal(size=(len(y), 32))
        return x, np.where(rng.random(len(y)) < 0.35, 1 - y, y)

    x, y = draw((60, 15))
    return x[unit] + jitter * rng.normal(size=(375, 32)), y[unit], unit, draw((2000, 2000))


@pytest.mark.parametrize("jitter", [0.0, 1e-9, 1e-6])
def test_copies_share_a_unit_and_the_order_of_rows_does_not_matter(jitter):
    x, y, unit, _ = copied(jitter)
    found = distinct_rows(x, y, np.ones(len(y)))
    assert len(set(found.units.tolist())) == 75
    order = np.random.default_rng(0).permutation(len(y))
    again = distinct_rows(x[order], y[order], np.ones(len(y)))
    assert np.array_equal(found.units, again.units)
    assert np.array_equal(found.x, again.x)
    assert len(set(zip(found.units[_places(found.x, x)].tolist(), unit.tolist(), strict=True))) == 75


def _places(distinct, x):
    """Where each of the rows x is among the distinct ones."""
    return np.array([int((distinct == row).all(axis=1).argmax()) for row in x])


@pytest.mark.parametrize("jitter", [0.0, 1e-6])
def test_what_copies_promise_is_near_the_truth(jitter):
    x, y, _, (fresh, labels) = copied(jitter)
    classifier = LongTailClassifier().fit(x, y)
    right = classifier.predict(fresh) == labels
    true = np.mean([right[labels == k].mean() for k in (0, 1)])
    # The rows promise with a standard error of 0.07; a copy in another fold promised 0.2 to 0.3 too much.
    assert classifier.unseen_recall_ == pytest.approx(true, abs=0.12)
