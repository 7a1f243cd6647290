"""Rows that no head saw, what they say, and the choice among few candidates."""

import numpy as np
import pytest
import torch

from poise import losses
from poise.deployment import automatic
from poise.deployment.automatic import CANDIDATES, averaged, candidate_heads, choose
from poise.deployment.calibration import (
    Evidence,
    Trial,
    calibrate,
    class_shares,
    cross_fit,
    deployed,
    distinct_rows,
    evidence,
)
from poise.deployment.columns import Columns
from poise.deployment.estimator_fit import Fitting
from poise.errors import PoiseWarning
from poise.heads.converged import fit_converged
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.spec import Spec

UNIFORM = torch.full((3,), 1 / 3, dtype=torch.float64)
TRAIN = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)


def rows(number=300, prior=TRAIN, seed=0, separation=1.5):
    """Rows (N, 2) of three unit Gaussians, labels, and log densities (N, 3)."""
    generator = torch.Generator().manual_seed(seed)
    means = separation * torch.tensor([[1.0, 0.0], [-0.5, 0.87], [-0.5, -0.87]], dtype=torch.float64)
    y = torch.multinomial(prior, number, replacement=True, generator=generator)
    x = means[y] + torch.randn(number, 2, generator=generator, dtype=torch.float64)
    return x, y, -torch.cdist(x, means).square() / 2


def features(**changes):
    x, y, _ = rows(**changes)
    return Features(x, y, ClassCounts.from_labels(y, 3), seen_by_backbone=False)


def test_distinct_rows_do_not_depend_on_order_and_take_repeats_as_weights():
    x = np.array([[1.0, 2.0], [0.0, 1.0], [1.0, 2.0], [-0.0, 1.0], [1.0, 2.0], [5.0, 5.0]])
    y = np.array([0, 1, 0, 1, 1, 0])
    found = distinct_rows(x, y, np.ones(6))
    assert len(found.x) == 4
    table = {
        (tuple(row), int(label)): weight
        for row, label, weight in zip(found.x.tolist(), found.y, found.weight, strict=True)
    }
    assert table == {((1.0, 2.0), 0): 2, ((1.0, 2.0), 1): 1, ((0.0, 1.0), 1): 2, ((5.0, 5.0), 0): 1}
    order = np.array([5, 3, 1, 0, 4, 2])
    again = distinct_rows(x[order], y[order], np.ones(6))
    weighted = distinct_rows(x[[0, 1, 4, 5, 5]], y[[0, 1, 4, 5, 5]], np.array([2.0, 2.0, 1.0, 1.0, 0.0]))
    for other in (again, weighted):
        for ours, theirs in zip(found, other, strict=True):
            assert np.array_equal(ours, theirs)


def test_equal_rows_share_a_unit_whatever_their_labels_and_groups_join_them():
    x = np.array([[0.0], [0.0], [1.0], [2.0], [3.0]])
    y = np.array([0, 1, 0, 1, 0])
    alone = distinct_rows(x, y, np.ones(5))
    assert [len(set(alone.units[alone.x[:, 0] == v])) for v in (0.0, 1.0)] == [1, 1]
    assert len(set(alone.units)) == 4
    # The row 0.0 lies in the groups 0 and 1, which joins all but the last.
    joined = distinct_rows(x, y, np.ones(5), np.array([0, 1, 0, 1, 2]))
    assert len(set(joined.units)) == 2
    assert len(set(joined.units[joined.x[:, 0] < 3])) == 1


def test_counts_of_weighted_rows_are_whole_and_formulas_take_their_masses():
    weight = torch.tensor([1.2, 1.2, 0.1, 3.0], dtype=torch.float64)
    counts = ClassCounts.from_labels(torch.tensor([0, 0, 1, 2]), 4, weight)
    assert counts.n.tolist() == [2, 1, 3, 0]


def test_cross_fitting_shows_every_head_only_rows_that_it_did_not_see():
    train = features(number=60)
    units = np.arange(60) // 2  # pairs of rows that belong together
    fitted = []

    def fit(rest):
        fitted.append(rest)
        return [Head(torch.zeros(3, 2), torch.zeros(3))]

    trials = cross_fit(train, units, fit)
    assert len(trials) == 5
    unit_of = {tuple(row): int(unit) for row, unit in zip(train.x[0].tolist(), units, strict=True)}
    for rest, trial in zip(fitted, trials, strict=True):
        seen = {unit_of[tuple(row)] for row in rest.x[0].tolist()}
        shown = {unit_of[tuple(row)] for row in trial.test.x[0].tolist()}
        assert not seen & shown
        assert rest.counts.n.tolist() == torch.bincount(rest.y, minlength=3).tolist()


def test_too_few_rows_are_no_evidence_and_no_error():
    train = features(number=40).take(torch.tensor([0]))
    assert cross_fit(train, np.zeros(1, dtype=np.int64), lambda rest: []) == []
    assert evidence([]) is None
    assert evidence([Trial([None], train)]) is None


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("implied", [TRAIN, UNIFORM])
def test_calibration_finds_the_temperature_under_the_prior_that_the_head_is_meant_for(temperature, implied):
    _, y, density = rows(6000)
    seen = Evidence(temperature * (density + implied.log()), y, torch.ones(6000, dtype=torch.float64))
    found, prior = calibrate(seen, TRAIN, implied)
    assert found == pytest.approx(temperature, rel=0.08)
    assert prior is implied


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_an_unknown_prior_is_found_among_the_powers_of_the_training_prior(power):
    _, y, density = rows(6000)
    implied = (power * TRAIN.log()).softmax(0)
    seen = Evidence(2.0 * (density + implied.log()), y, torch.ones(6000, dtype=torch.float64))
    found, prior = calibrate(seen, TRAIN, None)
    assert found == pytest.approx(2.0, rel=0.08)
    assert torch.allclose(prior, implied, atol=0.04)  # a standard error of the power is about 0.05


def test_a_handful_of_rows_that_are_all_right_ask_for_no_certainty():
    seen = Evidence(5 * torch.eye(3, dtype=torch.float64), torch.arange(3), torch.ones(3, dtype=torch.float64))
    assert calibrate(seen, UNIFORM, UNIFORM)[0] > 0.5


def test_a_deployed_head_is_the_posterior_of_the_target():
    x, _, density = rows(50)
    means = 1.5 * torch.tensor([[1.0, 0.0], [-0.5, 0.87], [-0.5, -0.87]], dtype=torch.float64)
    head = Head(means, TRAIN.log() - means.square().sum(-1) / 2).scaled(3.0)
    found = deployed(head, 3.0, TRAIN, UNIFORM)
    assert torch.allclose(found(x).softmax(-1), density.softmax(-1), atol=1e-12)


def test_every_candidate_has_a_head_and_is_a_method_that_can_be_built_on_standardised_columns():
    train = features()
    columns = Columns.of(train)
    heads = candidate_heads(train)
    assert len(heads) == len(CANDIDATES)
    fitting = Fitting(columns.enter(train), np.arange(len(train)), None, False, 0)
    for candidate, head in zip(CANDIDATES, heads, strict=True):
        anew = columns.leave(fitting.head_of(candidate.spec))
        # The search stops earlier than the final fit: the logits differ, hardly any prediction does.
        same = (head(train.x[0]).argmax(-1) == anew(train.x[0]).argmax(-1)).double().mean()
        assert same > 0.97, str(candidate.spec)
        assert Spec.parse(str(candidate.spec)) == candidate.spec


def test_columns_are_standardised_and_heads_brought_back():
    x = torch.tensor([[1.0, 5.0, 7.0], [3.0, 5.0, 9.0], [8.0, 5.0, 2.0]], dtype=torch.float64)
    weight = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    y = torch.tensor([0, 1, 0])
    columns = Columns.of(Features(x, y, ClassCounts.from_labels(y, 2), weight=weight))
    assert columns.centre.tolist() == [3.75, 5.0, 6.75]  # (1 + 2 * 3 + 8) / 4, (7 + 2 * 9 + 2) / 4
    assert columns.factor[0] == pytest.approx((26.75 / 4) ** -0.5)  # 2.75^2 + 2 * 0.75^2 + 4.25^2 = 26.75
    assert columns.factor[1] == 0  # a constant column says nothing, of new rows neither
    rows = columns.enter(Features(x, y, ClassCounts.from_labels(y, 2), weight=weight)).x[0]
    assert rows.shape == (3, 2)
    head = Head(torch.tensor([[1.0, 3.0], [0.0, 1.0]]).double(), torch.tensor([0.5, -0.5]).double())
    assert torch.allclose(columns.leave(head)(x), head(rows))


def test_a_column_that_is_constant_up_to_rounding_says_nothing():
    x = torch.tensor([[1e6, 0.0], [1e6 + 0.0625, 1.0], [1e6, 2.0]])  # one step of float32 there
    y = torch.tensor([0, 1, 0])
    assert Columns.of(Features(x, y, ClassCounts.from_labels(y, 2))).factor[0] == 0


def test_more_columns_than_rows_are_fitted_in_the_space_of_the_rows():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 80, generator=generator, dtype=torch.float64)
    y = torch.arange(30) % 3
    train = Features(x - x.mean(dim=0), y, ClassCounts.from_labels(y, 3))
    rows, back = automatic._row_space(train)
    assert rows.dim == 30
    assert torch.allclose(rows.x[0] @ rows.x[0].T, train.x[0] @ train.x[0].T)
    ours = back(fit_converged(rows, losses.cross_entropy(), weight_decay=1e-3))
    theirs = fit_converged(train, losses.cross_entropy(), weight_decay=1e-3)
    assert torch.allclose(ours(train.x[0]), theirs(train.x[0]), atol=1e-3)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("converged", "train"),
        ("converged(loss='balanced_softmax')", "uniform"),
        ("converged(loss='class_balanced')", "uniform"),
        ("converged(loss='vs')", None),
        ("converged+logit_adjustment", "uniform"),
        ("converged+logit_adjustment(tau=1.0)", "uniform"),
        ("converged(loss='cross_entropy',weight_decay=0.001)+logit_adjustment(tau=1)", "uniform"),
        ("converged+logit_adjustment(tau=0.5)", None),
        ("converged(loss='balanced_softmax')+logit_adjustment(tau=1.0)", None),
        ("converged+logit_adjustment(tau=1.0)+logit_adjustment(tau=1.0)", None),
        ("converged+tau_norm(tau=0.5)", None),
    ],
)
def test_a_converged_head_and_what_follows_it_are_meant_for_a_known_prior(text, wanted):
    train = features(number=60)
    with pytest.warns(PoiseWarning, match="no rows that neither backbone nor head saw"):
        fitted = Fitting(train, np.arange(len(train)), None, True, 0).named(Spec.parse(text), UNIFORM)
    if wanted is None:
        assert fitted.implied is None
    else:
        assert fitted.implied is not None
        assert torch.equal(fitted.implied, UNIFORM if wanted == "uniform" else class_shares(train))


def test_rows_that_do_not_vary_within_classes_leave_lda_out():
    x = torch.eye(3, dtype=torch.float64).repeat(4, 1)
    y = torch.arange(3).repeat(4)
    heads = candidate_heads(Features(x, y, ClassCounts.from_labels(y, 3)))
    gone = [str(c.spec) for c, head in zip(CANDIDATES, heads, strict=True) if head is None]
    assert gone == ["lda", "lda(shrinkage='empirical_bayes')", "lda(shrinkage=0.001)"]


def judges(right, scale=2.0, number=400):
    """Rows to judge by, and a head-like function that is right on the first `right` of them, always as sure."""
    test = features(number=number, prior=UNIFORM)
    wrong = (test.y + 1) % 3
    guess = torch.where(torch.arange(number) < right, test.y, wrong)
    logits = scale * torch.eye(3, dtype=torch.float64)[guess]
    return test, lambda x: logits


def test_weights_fall_with_the_nll_of_unseen_rows_at_the_root_of_their_number():
    test, good = judges(300)
    fair = judges(280)[1]
    heads = [None] * len(CANDIDATES)
    heads[4], heads[5] = good, fair
    choice = choose([Trial(heads, test)], UNIFORM, UNIFORM)
    nll = {part.method: part.nll for part in choice.parts}
    expected = torch.tensor([-20 * nll[str(CANDIDATES[k].spec)] for k in (4, 5)]).softmax(dim=0)  # 20 = sqrt(400)
    assert torch.allclose(choice.weights[[4, 5]], expected.double(), atol=1e-6)
    assert choice.weights.sum() == pytest.approx(1)
    assert choice.weights.count_nonzero() == 2
    assert [part.method for part in choice.parts] == [str(CANDIDATES[4].spec), str(CANDIDATES[5].spec)]
    assert choice.parts[0].recall > choice.parts[1].recall


def test_equal_candidates_share_alike_and_a_hopeless_one_has_no_say():
    test, good = judges(360)
    heads = [None] * len(CANDIDATES)
    heads[4] = heads[5] = good
    heads[6] = judges(40)[1]
    weights = choose([Trial(heads, test)], UNIFORM, UNIFORM).weights
    assert weights[[4, 5]].tolist() == pytest.approx([0.5, 0.5])
    assert weights[6] == 0


def test_the_averaged_head_has_the_averaged_logits():
    train, test = features(), features(number=200, prior=UNIFORM, seed=1)
    heads = candidate_heads(train)
    choice = choose([Trial(heads, test)], TRAIN, UNIFORM)
    found = averaged(heads, choice, TRAIN, UNIFORM)(test.x[0])
    assert torch.allclose(found.log_softmax(-1), choice.seen.logits.log_softmax(-1), atol=1e-9)
