"""Row weights: 2 is the row twice, 0 is the row left out."""

from dataclasses import replace

import pytest
import torch

from poise.errors import InputError
from poise.heads.scaling import space_of
from poise.heads.solver import fit_heads
from poise.methods import build
from poise.testing import world
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.problem import Problem

WEIGHTS = torch.tensor([2.0, 0.0, 1.0, 3.0, 1.0] * 14 + [1.0, 2.0])


def pair(seed=0, dtype=torch.float64):
    """A problem with row weights, and the problem whose rows are repeated as often as the weights say."""
    problem = world(seed=seed, dtype=dtype)
    rows = torch.repeat_interleave(torch.arange(len(problem.train)), WEIGHTS.long())
    counts = ClassCounts(torch.bincount(problem.train.y[rows], minlength=4))
    weighted = replace(problem.train, counts=counts, weight=WEIGHTS)
    repeated = replace(problem.train.take(rows), counts=counts)
    return replace(problem, train=weighted), replace(problem, train=repeated)


CLOSED = [
    ("ncm", {}),
    ("ncm", {"transform": "raw", "distance": "cos"}),
    ("lda", {}),
    ("lda", {"shrinkage": 0.3, "prior": "train"}),
    ("unlearn", {}),
]


@pytest.mark.parametrize(("name", "params"), CLOSED)
def test_closed_forms_take_weights_as_repeated_rows(name, params):
    weighted, repeated = (build(name, **params)(problem) for problem in pair())
    assert torch.allclose(weighted.weight, repeated.weight, rtol=1e-9, atol=1e-12)
    assert torch.allclose(weighted.bias, repeated.bias, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["ce", "balanced_softmax", "focal", "weight_balancing", "cosine"])
def test_full_batch_training_takes_weights_as_repeated_rows(name):
    method = build(name, epochs=20, batch_size=1000, lr=0.5, sampler="instance")
    weighted, repeated = (fit_heads(problem, [method])[0] for problem in pair())
    assert torch.allclose(weighted.weight, repeated.weight, rtol=1e-8, atol=1e-10)
    assert torch.allclose(weighted.bias, repeated.bias, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["temperature", "rebalance"])
def test_weighted_held_out_rows_count_as_often_as_they_say(name):
    problem = world(dtype=torch.float64)
    held = problem.held_out
    weight = torch.tensor([2.0, 0.0, 1.0, 1.0, 3.0] * 4)
    rows = torch.repeat_interleave(torch.arange(len(held)), weight.long())
    weighted = build(name)(replace(problem, held_out=replace(held, weight=weight)))
    repeated = build(name)(replace(problem, held_out=held.take(rows)))
    assert torch.allclose(weighted.bias, repeated.bias, atol=1e-5)
    assert torch.allclose(weighted.weight, repeated.weight, rtol=1e-5)


@pytest.mark.parametrize("name", ["ncm", "lda", "ce"])
def test_weights_of_one_change_nothing_but_rounding(name):
    problem = world(dtype=torch.float64)
    ones = replace(problem, train=replace(problem.train, weight=torch.ones(len(problem.train))))
    assert torch.allclose(build(name)(problem).weight, build(name)(ones).weight, rtol=1e-9)


def test_the_scaled_space_is_that_of_the_repeated_rows():
    weighted, repeated = (space_of(problem.train, True, False) for problem in pair())
    assert torch.allclose(weighted.centre, repeated.centre)
    assert weighted.factor == pytest.approx(repeated.factor)


def test_only_the_ratio_of_weights_matters_to_training():
    weighted, _ = pair()
    tenfold = replace(weighted, train=replace(weighted.train, weight=10 * WEIGHTS))
    assert torch.allclose(build("ce")(weighted).weight, build("ce")(tenfold).weight, rtol=1e-9)


def test_weights_enter_the_key_only_when_given_and_follow_their_rows():
    train = world().train
    weighted = replace(train, weight=WEIGHTS)
    assert weighted.key != train.key
    assert replace(weighted, weight=None).key == train.key
    assert replace(weighted, weight=WEIGHTS + 1).key != weighted.key
    assert torch.equal(weighted.take(torch.tensor([3, 0])).weight, torch.tensor([3.0, 2.0], dtype=torch.float64))


def test_a_class_whose_rows_all_weigh_nothing_is_empty():
    train = world(dtype=torch.float64).train
    without = replace(train, weight=(train.y != 3).double())
    means = build("ncm", transform="raw")(Problem(without)).weight / 2
    assert torch.allclose(means[3], train.x[0][train.y != 3].mean(0))
    with pytest.raises(InputError, match="all of one class"):
        Problem(replace(train, weight=(train.y == 0).double()))


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        ([1.0], "row weights need one number per row, got shape (1,) for 2 rows"),
        ([1.0, -1.0], "row 1 has the weight -1.0; weights are finite and 0 or more"),
        ([float("nan"), 1.0], "row 0 has the weight nan; weights are finite and 0 or more"),
        ([0.0, 0.0], "all row weights are 0, which leaves no row; give at least one a positive weight"),
    ],
)
def test_weights_that_cannot_be_are_refused(weight, words):
    with pytest.raises(InputError) as caught:
        Features(torch.zeros(2, 1), torch.tensor([0, 1]), torch.tensor([1, 1]), weight=weight)
    assert str(caught.value) == words


def test_weights_that_are_no_numbers_are_refused():
    with pytest.raises(InputError, match="row weights must be numbers"):
        Features(torch.zeros(2, 1), torch.tensor([0, 1]), torch.tensor([1, 1]), weight=["a", "b"])


# --- weights count once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["class_balanced", "class_balanced_iid"])
def test_weights_alike_within_classes_change_nothing_where_classes_are_drawn_evenly(name):
    """The sampler draws each class as often as before; the loss is not multiplied by the weights on top of that."""
    problem = world(dtype=torch.float64)
    method = build("crt", sampler=name, epochs=5, batch_size=16, scale_features=False)
    weight = torch.tensor([1.0, 2, 5, 40], dtype=torch.float64)[problem.train.y]
    weighted = replace(problem, train=replace(problem.train, weight=weight))
    assert torch.equal(method(problem).weight, method(weighted).weight)


def test_a_sampler_that_takes_no_weights_leaves_them_to_the_loss():
    weighted, repeated = pair()
    method = replace(build("ce", epochs=20, batch_size=1000, lr=0.5), sampler=in_order)
    assert torch.allclose(method(weighted).weight, method(repeated).weight, rtol=1e-8, atol=1e-10)


def in_order(y, counts, epoch, epochs, seed):
    """A sampler of one's own, of the form that knows nothing of weights."""
    return torch.arange(len(y))


@pytest.mark.parametrize("accumulate", ["cumsum", "sum"])
def test_the_statistics_of_gala_count_weights(accumulate):
    method = build("gala", epochs=20, batch_size=1000, lr=0.5, accumulate=accumulate)
    weighted, repeated = (method(problem) for problem in pair())
    assert torch.allclose(weighted.weight, repeated.weight, rtol=1e-8, atol=1e-10)


def test_counts_take_the_masses_of_weighted_rows_in_formulas_and_whole_numbers_in_tables():
    y, weight = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([1.0, 3.0, 0.01, 0.0, 0.0], dtype=torch.float64)
    counts = ClassCounts.from_labels(y, 4, weight)
    assert counts.n.tolist() == [4, 1, 0, 0]
    assert counts.clamped.tolist() == [4, 0.01, 1, 1]
    assert counts.prior.tolist() == pytest.approx([4 / 6.01, 0.01 / 6.01, 1 / 6.01, 1 / 6.01])
    assert counts.imbalance == pytest.approx(400)
    assert ClassCounts.from_labels(y, 4).mass is None


@pytest.mark.parametrize("mass", [[1.0], [1.0, -1.0], [1.0, float("nan")]])
def test_masses_that_cannot_be_are_refused(mass):
    with pytest.raises(InputError, match="masses of classes need one finite number per class, 0 or more"):
        ClassCounts(torch.tensor([1, 1]), torch.tensor(mass))


def test_the_space_of_unit_features_lies_around_the_mean_of_the_class_means():
    weighted, repeated = (problem.train for problem in pair())
    for features, copies in ((weighted, weighted.weight), (repeated, torch.ones(len(repeated)))):
        x, w = features.x[0], copies.double()
        means = [(w[features.y == k] @ x[features.y == k]) / w[features.y == k].sum() for k in range(4)]
        torch.testing.assert_close(space_of(features, True, True).centre, torch.stack(means).mean(dim=0))


def test_a_class_without_rows_takes_no_part_in_the_centre():
    problem = world(counts=(12, 5, 0), dtype=torch.float64, head=False)
    x, y = problem.train.x[0], problem.train.y
    centre = (x[y == 0].mean(dim=0) + x[y == 1].mean(dim=0)) / 2
    torch.testing.assert_close(space_of(problem.train, True, True).centre, centre)
