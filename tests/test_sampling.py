"""Samplers: exact cycles, frequencies, purity, and no limit on the number of rows."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from poise.errors import InputError
from poise.sampling import (
    ClassAware,
    class_balanced_iid,
    draws_by_weight,
    instance,
    order_of,
    probabilities,
    progressive,
    square_root,
    windowed,
)
from poise.values.counts import ClassCounts

SAMPLERS = {
    "class_aware": ClassAware(),
    "class_aware 1": ClassAware(images_per_visit=1),
    "class_balanced_iid": class_balanced_iid,
    "instance": instance,
    "progressive": progressive,
    "square_root": square_root,
}
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())


def labelled(*sizes, seed=0):
    """Shuffled labels (N,) with `sizes[k]` rows of class k, and their counts."""
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
    return y, ClassCounts(torch.tensor(sizes))


def orders(sampler, y, counts, *, epochs, seed=0):
    """(epochs, N): the row order of every epoch."""
    return torch.stack([sampler(y, counts, epoch, epochs, seed) for epoch in range(epochs)])


def drawn(rows, y, classes):
    """How often every class is drawn, (C,)."""
    return torch.bincount(y[rows.flatten()], minlength=classes)


def likely(observed, expected):
    """Could the counts come from these expectations? One false alarm in 10,000; seeds are fixed."""
    return chisquare(observed.double().numpy(), expected.double().numpy()).pvalue > 1e-4


# --- every sampler ---------------------------------------------------------------------------------------------------


@each_sampler
def test_an_order_holds_as_many_row_numbers_as_there_are_rows(sampler):
    y, counts = labelled(40, 9, 0, 3, 1)
    found = orders(sampler, y, counts, epochs=3)
    assert found.shape == (3, 53)
    assert found.dtype == torch.int64
    assert found.min() >= 0
    assert found.max() < 53


@each_sampler
def test_an_order_is_a_pure_function_of_its_arguments(sampler):
    y, counts = labelled(40, 9, 3)
    first = orders(sampler, y, counts, epochs=3, seed=7)
    torch.manual_seed(1)
    sampler(y, counts, 2, 3, 8)  # another call in between leaves no trace
    assert torch.equal(first, orders(sampler, y, counts, epochs=3, seed=7))
    assert torch.equal(first[2], sampler(y, counts, 2, 3, 7))


@each_sampler
def test_seeds_and_epochs_give_different_orders(sampler):
    y, counts = labelled(40, 9, 3)
    one, other = orders(sampler, y, counts, epochs=3, seed=0), orders(sampler, y, counts, epochs=3, seed=1)
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[1], one[2])


@each_sampler
def test_labels_are_not_written_to(sampler):
    y, counts = labelled(40, 9, 3)
    before = y.clone()
    orders(sampler, y, counts, epochs=2)
    assert torch.equal(y, before)


@each_sampler
def test_classes_without_rows_are_never_drawn(sampler):
    y, counts = labelled(0, 12, 0, 5, 0)
    found = drawn(orders(sampler, y, counts, epochs=20), y, 5)
    assert ((found > 0) == (counts.n > 0)).all()


@each_sampler
def test_one_row_is_enough(sampler):
    found = orders(sampler, torch.tensor([1]), ClassCounts(torch.tensor([0, 1])), epochs=2)
    assert found.tolist() == [[0], [0]]


# --- probabilities ---------------------------------------------------------------------------------------------------


def test_probabilities_follow_a_power_of_the_counts():
    n = torch.tensor([400, 100, 0, 1])
    assert probabilities(n, "instance").tolist() == pytest.approx([400 / 501, 100 / 501, 0, 1 / 501])
    assert probabilities(n, "class_balanced").tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    assert probabilities(n, "square_root").tolist() == pytest.approx([20 / 31, 10 / 31, 0, 1 / 31])


def test_square_root_probabilities_have_the_ratio_of_square_roots():
    n = torch.tensor([1280, 777, 50, 5])
    p = probabilities(n, "square_root")
    ratios = p.unsqueeze(1) / p
    assert torch.allclose(ratios, (n.double().unsqueeze(1) / n).sqrt(), rtol=1e-12)


@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
def test_progressive_probabilities_mix_instance_and_class_balanced(progress):
    n = torch.tensor([60, 30, 10])
    expected = [(1 - progress) * k / 100 + progress / 3 for k in n.tolist()]
    assert probabilities(n, "progressive", progress).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("strategy", ["instance", "class_balanced", "square_root", "progressive"])
def test_probabilities_sum_to_one(strategy):
    p = probabilities(torch.tensor([3, 0, 5000]), strategy, 0.3)
    assert float(p.sum()) == pytest.approx(1, rel=1e-12)
    assert p.dtype == torch.float64


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_progress_outside_the_unit_interval_is_refused_with_its_value(progress):
    with pytest.raises(InputError, match=rf"progress must lie in \[0, 1\], got {progress}"):
        probabilities(torch.tensor([3, 1]), "progressive", progress)


def test_an_unknown_strategy_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="instance, class_balanced, square_root, progressive; got 'cbs'"):
        probabilities(torch.tensor([3, 1]), "cbs")


# --- instance and independent draws ----------------------------------------------------------------------------------


def test_instance_is_a_permutation():
    y, counts = labelled(40, 9, 3)
    for order in orders(instance, y, counts, epochs=3):
        assert torch.equal(order.sort().values, torch.arange(52))


@pytest.mark.parametrize(
    ("sampler", "strategy"), [(class_balanced_iid, "class_balanced"), (square_root, "square_root")]
)
def test_independent_draws_have_the_stated_class_frequencies(sampler, strategy):
    y, counts = labelled(900, 90, 9, 1)
    rows = orders(sampler, y, counts, epochs=20)
    assert likely(drawn(rows, y, 4), probabilities(counts, strategy) * rows.numel())


@pytest.mark.parametrize("sampler", [class_balanced_iid, square_root])
def test_independent_draws_are_uniform_within_a_class(sampler):
    y, counts = labelled(200, 20, 5)
    rows = orders(sampler, y, counts, epochs=40).flatten()
    for k in range(3):
        often = torch.bincount(rows, minlength=len(y))[y == k]
        assert likely(often, often.double().mean().expand(len(often)))


@pytest.mark.parametrize("sampler", [class_balanced_iid, square_root])
def test_independent_draws_repeat_rows(sampler):
    y, counts = labelled(200, 20, 5)
    assert len(sampler(y, counts, 0, 1, 0).unique()) < len(y)


# --- class-aware cycle -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images_per_visit", [1, 2, 4])
def test_every_aligned_window_draws_each_class_equally_often(images_per_visit):
    y, counts = labelled(50, 20, 7, 2, 1)
    sequence = y[orders(ClassAware(images_per_visit), y, counts, epochs=6).flatten()]
    window = 5 * images_per_visit
    whole = len(sequence) // window
    per_window = torch.nn.functional.one_hot(sequence[: whole * window].view(whole, window), 5).sum(dim=1)
    assert (per_window == images_per_visit).all()


@pytest.mark.parametrize("images_per_visit", [1, 4])
def test_a_visit_takes_consecutive_draws_of_one_class(images_per_visit):
    y, counts = labelled(50, 20, 7, 2, 1)
    sequence = y[orders(ClassAware(images_per_visit), y, counts, epochs=5).flatten()]
    visits = sequence[: len(sequence) // images_per_visit * images_per_visit].view(-1, images_per_visit)
    assert (visits == visits[:, :1]).all()


@pytest.mark.parametrize("images_per_visit", [1, 3, 4])
def test_no_row_of_a_class_repeats_before_all_were_used_across_epochs(images_per_visit):
    y, counts = labelled(50, 20, 7, 2, 1)
    rows = orders(ClassAware(images_per_visit), y, counts, epochs=12).flatten()
    for k, size in enumerate(counts.n.tolist()):
        own = rows[y[rows] == k]
        cycles = own[: len(own) // size * size].view(-1, size)
        assert len(cycles) >= 3
        assert torch.equal(cycles.sort(dim=1).values, (y == k).nonzero().squeeze(1).expand_as(cycles))


def test_cycles_are_reshuffled_when_exhausted():
    y, counts = labelled(6, 6)
    rows = orders(ClassAware(1), y, counts, epochs=10).flatten()
    classes = y[rows].view(-1, 2)
    assert len(classes.unique(dim=0)) == 2  # both orders of two classes occur
    own = rows[y[rows] == 0].view(-1, 6)
    assert len(own.unique(dim=0)) > 8


def test_row_cycles_are_shuffled_fairly():
    y, counts = labelled(6, 6)
    first = torch.stack([ClassAware(1)(y, counts, 0, 1, seed) for seed in range(600)])
    own = torch.stack([order[y[order] == 0][0] for order in first])
    rows = (y == 0).nonzero().squeeze(1)
    assert likely(torch.bincount(own, minlength=12)[rows], torch.full((6,), 100.0))


def test_class_cycles_are_shuffled_fairly():
    y, counts = labelled(9, 5, 2, 1)
    first = torch.stack([y[ClassAware(4)(y, counts, 0, 1, seed)[0]] for seed in range(600)])
    assert likely(torch.bincount(first, minlength=4), torch.full((4,), 150.0))


def test_the_position_continues_from_one_epoch_to_the_next():
    y, counts = labelled(4, 3, 1)  # an epoch of 8 draws ends in the middle of a pass over 3 classes x 4 images
    passes = y[orders(ClassAware(4), y, counts, epochs=9).flatten()].view(-1, 12)
    assert (torch.nn.functional.one_hot(passes, 3).sum(dim=1) == 4).all()


def test_the_number_of_epochs_does_not_change_the_cycle():
    y, counts = labelled(40, 9, 3)
    assert torch.equal(ClassAware()(y, counts, 2, 3, 0), ClassAware()(y, counts, 2, 100, 0))


def test_a_class_with_fewer_rows_than_a_visit_repeats_them():
    y, counts = labelled(10, 1)
    order = ClassAware(4)(y, counts, 0, 1, 0)
    rare = int((y == 1).nonzero())
    assert Counter(order.tolist())[rare] >= 3  # 11 draws: visits of 4, 4 and 3


def test_every_visit_size_below_one_is_refused_with_its_value():
    with pytest.raises(InputError, match="images_per_visit must be at least 1, got 0"):
        ClassAware(images_per_visit=0)


# --- progressive -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [0, 2, 4])
def test_progressive_moves_from_instance_to_class_balanced(epoch):
    y, counts = labelled(900, 90, 9, 1)
    rows = torch.stack([progressive(y, counts, epoch, 5, seed) for seed in range(10)])
    found = drawn(rows, y, 4)
    strategies = {0: ("instance", 0.0), 2: ("progressive", 0.5), 4: ("class_balanced", 0.0)}
    assert likely(found, probabilities(counts, *strategies[epoch]) * rows.numel())
    for other in set(strategies) - {epoch}:
        assert not likely(found, probabilities(counts, *strategies[other]) * rows.numel())


def test_a_single_progressive_epoch_is_instance_sampling():
    y, counts = labelled(900, 90, 9, 1)
    rows = torch.stack([progressive(y, counts, 0, 1, seed) for seed in range(10)])
    assert likely(drawn(rows, y, 4), probabilities(counts, "instance") * rows.numel())


def test_progressive_uses_all_rows_of_a_class_before_one_repeats():
    y, counts = labelled(100, 20, 7, 1)
    for order in orders(progressive, y, counts, epochs=5):
        for k, size in enumerate(counts.n.tolist()):
            own = order[y[order] == k]
            cycles = own[: len(own) // size * size].view(-1, size)
            assert torch.equal(cycles.sort(dim=1).values, (y == k).nonzero().squeeze(1).expand_as(cycles))
            rest = own[cycles.numel() :]
            assert len(rest.unique()) == len(rest)


# --- size ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [instance, square_root])  # the cyclic ones take 10 s each: benchmarks/sampling.py
def test_more_than_two_to_the_24_rows_are_sampled(sampler):
    rows = 2**24 + 1000
    y = torch.zeros(rows, dtype=torch.int64)
    y[-1000:] = 1
    order = sampler(y, ClassCounts.from_labels(y), 0, 1, 0)
    assert len(order) == rows
    assert int(order.max()) >= 2**24  # rows beyond the limit of torch.multinomial are drawn
    share = float((order >= 2**24).double().mean()) * rows / 1000
    expected = 1.0 if sampler is instance else rows / 1000 / (1 + (2**24 / 1000) ** 0.5)
    assert share == pytest.approx(expected, rel=0.02)  # 130,000 draws of the rare class: 0.3 % standard error


# --- windows ---------------------------------------------------------------------------------------------------------


def test_draws_that_fit_into_one_window_keep_their_order():
    order = torch.randperm(50)
    assert windowed(order, 50, 4, 50, 0, 0) is order


@pytest.mark.parametrize("block", [1, 4, 7])
def test_windows_hold_whole_blocks_and_the_draws_in_their_old_order(block):
    rows, window = 103, 30
    order = torch.from_numpy(np.random.default_rng(0).integers(rows, size=200))
    found = windowed(order, rows, block, window, 1, 0)
    assert torch.equal(found.sort().values, order.sort().values)
    dealt = np.random.default_rng([0, 9, 1]).permutation(-(-rows // block)) * 4 // -(-rows // block)
    at = torch.from_numpy(dealt)[found // block]
    assert torch.equal(at, at.sort().values)
    for number in range(4):
        assert len(set((found[at == number] // block).tolist())) * block <= window + block
        mine = torch.from_numpy(dealt)[order // block] == number
        assert torch.equal(found[at == number], order[mine])


def test_windows_differ_between_epochs_and_seeds():
    order = torch.arange(100)
    first, again, epoch, seed = (windowed(order, 100, 1, 25, e, s) for e, s in ((0, 0), (0, 0), (1, 0), (0, 1)))
    assert torch.equal(first, again)
    assert not torch.equal(first, epoch)
    assert not torch.equal(first, seed)


# --- row weights ------------------------------------------------------------------------------------------------------

WEIGHED = {name: sampler for name, sampler in SAMPLERS.items() if name != "instance"}
each_weighed = pytest.mark.parametrize("sampler", WEIGHED.values(), ids=WEIGHED.keys())


def test_only_the_sampler_of_every_row_leaves_weights_to_the_loss():
    assert [name for name, sampler in SAMPLERS.items() if not draws_by_weight(sampler)] == ["instance"]
    y, counts = labelled(4, 3)
    weight = torch.linspace(0.5, 2, 7, dtype=torch.float64)
    assert torch.equal(order_of(instance, y, counts, weight, 0, 1, 0), instance(y, counts, 0, 1, 0))


@each_weighed
@pytest.mark.parametrize("weight", [1.0, 0.3, 3.0])
def test_equal_weights_are_no_weights(sampler, weight):
    y, counts = labelled(40, 9, 0, 3, 1)
    same = torch.full((53,), weight, dtype=torch.float64)
    for epoch in range(3):
        assert torch.equal(sampler(y, counts, epoch, 3, 5, weight=same), sampler(y, counts, epoch, 3, 5))


@each_weighed
def test_a_row_of_weight_zero_is_never_drawn_nor_a_class_of_such_rows(sampler):
    y, counts = labelled(40, 9, 3)
    weight = torch.where((y == 2) | (torch.arange(52) % 5 == 0), 0.0, 1.0).double()
    drawn_rows = torch.cat([sampler(y, counts, epoch, 20, 1, weight=weight) for epoch in range(20)])
    assert (weight[drawn_rows] > 0).all()
    assert drawn_rows.unique().numel() == int((weight > 0).sum())


def test_class_probabilities_count_what_the_rows_weigh():
    mass = torch.tensor([8.0, 0.5, 0.0, 1.5], dtype=torch.float64)
    by_hand = {"instance": [0.8, 0.05, 0, 0.15], "class_balanced": [1 / 3, 1 / 3, 0, 1 / 3]}
    roots = mass.sqrt() / mass.sqrt().sum()
    for strategy, expected in {**by_hand, "square_root": roots.tolist()}.items():
        torch.testing.assert_close(probabilities(mass, strategy), torch.tensor(expected, dtype=torch.float64))
        torch.testing.assert_close(probabilities(0.01 * mass, strategy), probabilities(mass, strategy))


def test_copies_are_drawn_as_often_as_the_row_of_their_weight():
    # Class 0: rows of weight 1, 2, 5; class 1: of 4 and 1. By hand, for each sampler: class share times row share.
    y, counts, epochs = torch.tensor([0, 0, 0, 1, 1]), ClassCounts(torch.tensor([3, 2])), 1500
    weight = torch.tensor([1.0, 2, 5, 4, 1], dtype=torch.float64)
    rows = torch.tensor([1 / 8, 2 / 8, 5 / 8, 4 / 5, 1 / 5], dtype=torch.float64)
    root = 8**0.5 / (8**0.5 + 5**0.5)
    shares = {"square_root": root, "progressive": (8 / 13 + 1 / 2) / 2}
    for name, sampler in WEIGHED.items():
        order = torch.cat([sampler(y, counts, epoch, epochs, 3, weight=weight) for epoch in range(epochs)])
        first = shares.get(name, 0.5)
        expected = rows * torch.tensor([first] * 3 + [1 - first] * 2, dtype=torch.float64)
        found = torch.bincount(order, minlength=5).double() / len(order)
        assert (found - expected).abs().max() < 0.02, name  # 7,500 draws: three standard errors of 0.5 are 0.017


def test_a_cycle_of_weighted_rows_holds_each_as_often_as_its_weight_rounded_up_or_down():
    y, counts = torch.zeros(8, dtype=torch.int64), ClassCounts(torch.tensor([8, 0]))
    weight = torch.tensor([0.4, 0.4, 2.5, 1, 1, 1, 1, 0.7], dtype=torch.float64)
    sampler = ClassAware(images_per_visit=1)
    times = torch.stack([torch.bincount(sampler(y, counts, e, 40, 0, weight=weight), minlength=8) for e in range(40)])
    assert (times.sum(1) == 8).all()
    assert (times >= weight.floor()).all()
    assert (times <= weight.ceil()).all()
    assert (times[:, 2] == 2).any()
    assert (times[:, 2] == 3).any()
