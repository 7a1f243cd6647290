"""`fit_heads` as its docstring promises, and the learning rates of a plan."""

import itertools
import math
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional

from poise import losses, methods
from poise.constraints import max_norm, unit_norm
from poise.data.bundled import load_demo
from poise.errors import CancelledError, InputError, PoiseWarning
from poise.heads import reading, solver, trained_parts
from poise.heads.plan import Plan, Schedule, learning_rates
from poise.heads.solver import Retrain, fit_heads, fresh
from poise.losses import Loss
from poise.methods import gradient_trained
from poise.sampling import instance, windowed
from poise.testing import world
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem
from poise.values.shards import Shards

PLAIN = {"scale_features": False, "schedule": "constant"}
ZERO = losses.stateless(lambda z, y: z.sum(dim=-1) * 0)  # nothing but weight decay moves the head


@pytest.fixture
def two_threads():
    """Where every other test has one; they may split a sum differently for one head than for many."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def mixed(epochs=(3,), batch_size=16):
    """Thirty heads: every loss, part, sampler, start, schedule and projection; some share a pass, some do not."""
    r, lengths = gradient_trained, itertools.cycle(epochs)
    rows = [
        (r.ce, {}),
        (r.ce, {"lr": 0.5, "weight_decay": 1e-2}),
        (r.ce, {"schedule": "constant", "momentum": 0.0}),
        (r.ce, {"nesterov": True, "schedule": "cosine_epoch_end"}),
        (r.ce, {"scale_features": False, "lr": 0.01}),
        (r.ce, {"drop_last": True}),
        (r.crt, {"schedule": "cosine_epoch_start", "warmup_epochs": 1}),
        (r.crt, {"images_per_visit": 2}),
        (r.lws, {}),
        (r.lws, {"lr": 0.3, "weight_decay": 1e-2}),
        (r.label_aware_smoothing, {"variant": "paper"}),
        (r.label_aware_smoothing, {"lr_factor": 0.5}),
        (r.label_aware_smoothing, {"classifier": "frozen"}),
        (r.marc, {}),
        (r.cosine, {"scale": 20.0}),
        (r.cosine, {"learn_scale": True}),
        (r.ldam, {"drw": True, "schedule": "multistep"}),
        (r.los, {"delta": 0.9}),
        (r.balanced_softmax, {"tau": 2.0, "sampler": "square_root"}),
        (r.class_balanced, {"gamma": 1.0, "sampler": "class_balanced_iid"}),
        (r.focal, {"sampler": "progressive"}),
        (r.focal, {"variant": "sigmoid"}),
        (r.vs, {}),
        (r.weight_balancing, {"every": "step"}),
        (r.weight_balancing, {"every": "step", "radius": 0.3}),
        (r.weight_balancing, {"every": "epoch", "loss": "ce", "radius": 1.0}),
        (r.gala, {}),
        (r.gala, {"variant": "paper", "lambda_pos": 1.5, "accumulate": "sum", "lr": 0.5}),
        (r.gcl, {}),
        (r.gcl, {"noise": 1.0, "margin": 0.0, "scale": 9.0, "gamma": 0.0, "lr": 0.1}),
    ]
    trained = [make(epochs=next(lengths), batch_size=batch_size, **options) for make, options in rows]
    bias = Retrain(part=trained_parts.bias_only, plan=Plan(epochs=epochs[0], batch_size=batch_size))
    return [*trained, bias]


def same(a, b):
    return torch.equal(a.weight, b.weight) and torch.equal(a.bias, b.bias)


def all_same(a, b):
    return [same(one, other) for one, other in zip(a, b, strict=True)] == [True] * len(a)


def relative(a, b):
    """Largest difference of two tensors over the largest number in the second."""
    return float((a - b).abs().max() / b.abs().max())


def standardised(x):
    """Scaled rows, by the definition: mean 0, mean squared norm 1; and what they were multiplied by."""
    centred = x - x.mean(dim=0)
    factor = float(centred.square().sum(dim=1).mean()) ** -0.5
    return centred * factor, factor


def replaced_features(problem, factor, shift):
    """The problem with features factor x + shift, and the stage-1 head of the same logits."""
    head = problem.head
    follows = Head(head.weight / factor, head.bias - head.weight @ shift / factor)
    return replace(problem, train=replace(problem.train, x=factor * problem.train.x + shift), head=follows)


# --- many heads at once ----------------------------------------------------------------------------------------------


def test_a_head_trained_with_others_is_the_head_trained_alone_bit_for_bit():
    problem = world(views=3)
    recipes = mixed()
    assert all_same(fit_heads(problem, recipes, 7), [recipe(problem, 7) for recipe in recipes])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_that_average_over_weights_leave_those_beside_them_alone(weighted, dtype):
    problem = world(dtype=dtype)
    if weighted:
        weight = torch.linspace(0.1, 3, len(problem.train), dtype=dtype)
        problem = replace(problem, train=replace(problem.train, weight=weight))
    members = [
        losses.cross_entropy(),
        losses.prior_weighted(rho=1.2),
        losses.class_balanced(),
        losses.ldam(scale=2.0, drw=True),
        losses.prior_weighted(rho=0.5),
        losses.balanced_softmax(),
    ]
    recipes = [Retrain(loss=loss, plan=Plan(epochs=5, batch_size=7)) for loss in members]
    assert all_same(fit_heads(problem, recipes), [recipe(problem) for recipe in recipes])


def test_a_weighted_row_is_a_repeated_row_where_the_average_is_over_class_weights():
    problem = world(dtype=torch.float64)
    times = 1 + torch.arange(len(problem.train)) % 3
    again = torch.arange(len(times)).repeat_interleave(times)
    train, counts = problem.train, problem.train.counts
    heavy = replace(problem, train=replace(train, weight=times.double()))
    often = replace(problem, train=replace(train, x=train.x[:, again], y=train.y[again], counts=counts))
    plan = Plan(epochs=4, batch_size=10_000, scale_features=False)
    one, other = (Retrain(loss=losses.prior_weighted(rho=1.2), plan=plan)(p) for p in (heavy, often))
    assert relative(one(train.x[0]), other(train.x[0])) <= 1e-12


def test_a_factor_for_every_leaf_or_none():
    recipe = Retrain(part=trained_parts.scale_and_rows, lr_factors=(1.0,))
    with pytest.raises(InputError, match=r"lr_factors has one entry per leaf of the part, 2 here, got \(1.0,\)"):
        recipe(world())


def test_a_frozen_classifier_is_one_whose_rate_is_zero():
    problem = world(dtype=torch.float64)
    plan = {"epochs": 3, "batch_size": 16, "weight_decay": 1e-2}
    frozen = gradient_trained.label_aware_smoothing(classifier="frozen", **plan)(problem)
    still = gradient_trained.label_aware_smoothing(lr_factor=0.0, **plan)(problem)
    assert relative(frozen(problem.train.x[0]), still(problem.train.x[0])) <= 1e-13


@pytest.mark.usefixtures("two_threads")
def test_a_head_trained_with_others_is_within_1e6_of_the_head_trained_alone_after_an_epoch():
    problem = world(counts=tuple(range(40, 0, -1)), dim=48)
    recipes = mixed(epochs=(1,), batch_size=300)[::4]  # threads that share a busy core are slow
    x = problem.train.x[0]
    for together, recipe in zip(fit_heads(problem, recipes, 7), recipes, strict=True):
        assert relative(together(x), recipe(problem, 7)(x)) <= 1e-6


def test_the_order_of_recipes_does_not_matter():
    problem = world()
    recipes = mixed()
    expected = fit_heads(problem, recipes)
    shuffled = np.random.default_rng(0).permutation(len(recipes))
    heads = fit_heads(problem, [recipes[i] for i in shuffled])
    assert all_same(heads, [expected[i] for i in shuffled])


@pytest.mark.parametrize(("most", "calls"), [(2**25, 2), (3 * 16 * 4, 6), (1, 14)])
def test_splitting_a_pass_into_blocks_changes_nothing(monkeypatch, most, calls):
    problem = world()
    plans = [{"epochs": 2, "batch_size": 16, "lr": 1.0 + i} for i in range(7)]
    recipes = [
        gradient_trained.gala(**plan) if i % 2 else gradient_trained.los(delta=0.5, **plan)
        for i, plan in enumerate(plans)
    ]
    expected = fit_heads(problem, recipes)
    monkeypatch.setattr(solver, "MOST_NUMBERS", most)
    reports = []
    assert all_same(fit_heads(problem, recipes, progress=lambda *at: reports.append(at)), expected)
    assert len(reports) == calls  # one per epoch of a block


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("CACHED_LOGITS", 1),
        ("CACHED_WEIGHTS", 1),
        ("CACHED_WEIGHTS", 13),
        ("KEPT_NUMBERS", 0),
        ("READ_NUMBERS", 1),
        ("ALIGNED_FROM", 1),
    ],
)
def test_how_memory_is_used_changes_nothing_beyond_rounding(monkeypatch, limit, value):
    # Products of other shapes add up in another order, so double precision shows that nothing else differs.
    problem, recipes = world(dtype=torch.float64), mixed()
    expected = fit_heads(problem, recipes)
    monkeypatch.setattr(solver if hasattr(solver, limit) else reading, limit, value)
    found = fit_heads(problem, recipes)
    x = problem.train.x[0]
    assert max(relative(a(x), b(x)) for a, b in zip(found, expected, strict=True)) < 1e-10
    if limit in ("CACHED_LOGITS", "KEPT_NUMBERS", "READ_NUMBERS"):
        assert all_same(found, expected)


def test_rows_on_disk_give_the_heads_of_rows_in_memory(monkeypatch):
    problem, recipes = world(), mixed()
    shards = Shards(problem.train.x.split([10, 1, len(problem.train) - 11], dim=1))
    stored = replace(problem, train=replace(problem.train, x=shards))
    monkeypatch.setattr(Shards, "joined", lambda self: pytest.fail("all rows were joined in memory"))
    assert all_same(fit_heads(stored, recipes), fit_heads(problem, recipes))
    monkeypatch.setattr(reading, "KEPT_NUMBERS", 0)
    assert all_same(fit_heads(stored, recipes), fit_heads(problem, recipes))


def test_rows_beyond_a_window_are_drawn_window_by_window(monkeypatch):
    problem = world()
    rows, dim = len(problem.train), problem.train.dim
    stored = replace(problem, train=replace(problem.train, x=Shards(problem.train.x.split(7, dim=1))))
    monkeypatch.setattr(reading, "WINDOW_NUMBERS", dim * (rows // 3))
    monkeypatch.setattr(reading, "BLOCK_NUMBERS", 2 * dim)

    def regrouped(y, counts, epoch, epochs, seed):
        return windowed(instance(y, counts, epoch, epochs, seed), rows, 2, rows // 3, epoch, seed)

    plan = Plan(epochs=2, batch_size=16)
    expected = fit_heads(problem, [Retrain(sampler=regrouped, plan=plan)])
    assert all_same(fit_heads(stored, [Retrain(plan=plan)]), expected)


@pytest.mark.parametrize("name", ["crt", "lws", "cosine", "gala"])
def test_bfloat16_products_give_nearly_the_same_logits(name):
    problem = world()
    options = {"epochs": 3, "batch_size": 16}
    single, half = (methods.build(name, **options, matmul=matmul)(problem) for matmul in ("float32", "bfloat16"))
    assert half.weight.dtype == torch.float32
    z, near = (head(problem.train.x[0]) for head in (single, half))
    assert not torch.equal(z, near)
    assert float((z - near).abs().mean()) < 2**-6 * float(z.std())  # two roundings to 8 bits


def test_bfloat16_is_part_of_what_heads_of_a_pass_share():
    problem = world()
    recipes = [gradient_trained.ce(epochs=2, matmul=matmul) for matmul in ("float32", "bfloat16", "float32")]
    assert all_same(fit_heads(problem, recipes), [recipe(problem) for recipe in recipes])


def test_no_recipe_gives_no_head():
    assert fit_heads(world(), []) == []


def test_lengths_may_differ_among_recipes():
    problem = world()
    recipes = [gradient_trained.ce(epochs=epochs, batch_size=16) for epochs in (4, 1, 0, 2)]
    paths = fit_heads(problem, recipes, snapshots=True)
    assert [len(path.weight) for path in paths] == [5, 2, 1, 3]
    assert all_same([path[-1] for path in paths], [recipe(problem) for recipe in recipes])


def test_calling_a_recipe_is_fitting_it():
    problem, recipe = world(), gradient_trained.los(epochs=2)
    assert same(recipe(problem, 5), fit_heads(problem, [recipe], seed=5)[0])


def test_without_a_stage1_head_one_is_fitted_where_it_is_needed():
    bare, recipes = world(head=False), [gradient_trained.ce(epochs=2), gradient_trained.crt(epochs=2)]
    assert all_same(fit_heads(bare, recipes, 4), fit_heads(solver.with_stage1(bare, 4), recipes, 4))
    assert same(solver.with_stage1(bare, 4).head, gradient_trained.ce(start="fresh")(bare, 4))
    crt = Retrain(start=fresh, plan=Plan(epochs=0, scale_features=False))
    assert not crt.needs_head
    assert crt(bare).weight.shape == (4, 6)


def test_features_in_half_precision_train_in_single_precision():
    problem = world()
    half = replace(problem, train=replace(problem.train, x=problem.train.x.half()))
    assert gradient_trained.ce(epochs=1)(half).weight.dtype == torch.float32


# --- paths, progress, cancelling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale_features", [True, False])
@pytest.mark.parametrize(
    "method", [gradient_trained.ce, gradient_trained.lws, gradient_trained.marc, gradient_trained.weight_balancing]
)
def test_a_path_leads_from_the_stage1_head_to_the_result(method, scale_features):
    problem = world(dtype=torch.float64)
    recipe = method(epochs=3, batch_size=16, scale_features=scale_features)
    path = fit_heads(problem, [recipe], snapshots=True)[0]
    x = problem.train.x[0]
    assert path.weight.shape == (4, 4, 6)
    assert path.bias.shape == (4, 4)
    assert relative(path[0](x), problem.head(x)) <= 1e-14  # the round-off of scaling there and back
    assert same(path[-1], recipe(problem))
    assert min(relative(path[e + 1](x), path[e](x)) for e in range(3)) > 1e-4


def test_an_entry_of_a_path_is_the_result_of_so_many_epochs():
    """True where the learning rate and the sampler do not look at the number of epochs."""
    problem = world()
    path = fit_heads(problem, [gradient_trained.crt(epochs=4, batch_size=16, schedule="constant")], snapshots=True)[0]
    for epochs in range(5):
        assert same(path[epochs], gradient_trained.crt(epochs=epochs, batch_size=16, schedule="constant")(problem))


def test_cosine_paths_start_from_the_directions_of_stage1():
    problem = world(dtype=torch.float64)
    x, y = problem.train.x[0], problem.train.y
    centred = x - torch.stack([x[y == k].mean(dim=0) for k in range(4)]).mean(dim=0)
    expected = 20 * functional.normalize(centred) @ functional.normalize(problem.head.weight).mT
    heads = fit_heads(
        problem, [gradient_trained.cosine(scale=20.0, learn_scale=learn, epochs=0) for learn in (False, True)]
    )
    for head in heads:
        assert relative(head(problem.train.x[0]), expected) <= 1e-14


@pytest.mark.parametrize(
    "method",
    [
        gradient_trained.ce,
        gradient_trained.lws,
        gradient_trained.marc,
        gradient_trained.los,
        gradient_trained.weight_balancing,
    ],
)
def test_no_epochs_on_raw_features_is_stage1_bit_for_bit(method):
    problem = world()
    assert same(method(epochs=0, scale_features=False)(problem), problem.head)


@pytest.mark.parametrize(
    "method",
    [
        gradient_trained.ce,
        gradient_trained.lws,
        gradient_trained.marc,
        gradient_trained.los,
        gradient_trained.weight_balancing,
    ],
)
def test_no_epochs_on_scaled_features_is_stage1_up_to_rounding(method):
    problem = world()
    x = problem.train.x[0]
    assert relative(method(epochs=0)(problem)(x), problem.head(x)) <= 1e-6


def test_progress_counts_epochs_times_heads():
    recipes = mixed(epochs=(1, 2, 3))
    reports = []
    fit_heads(world(), recipes, progress=lambda *at: reports.append(at))
    total = sum(recipe.plan.epochs for recipe in recipes)
    done = [at for at, _ in reports]
    assert {whole for _, whole in reports} == {total}
    assert done == sorted(set(done))
    assert done[-1] == total


@pytest.mark.parametrize("after", [0, 1, 7])
def test_cancelling_stops_before_the_next_step_and_returns_nothing(after):
    asked, reports, heads = [], [], None

    def cancelled():
        asked.append(True)
        return len(asked) > after

    with pytest.raises(CancelledError, match=f"epoch {after // 5 + 1} of 3"):
        heads = fit_heads(
            world(),
            [gradient_trained.ce(epochs=3, batch_size=16)],
            cancelled=cancelled,
            progress=lambda *at: reports.append(at),
        )
    assert heads is None
    assert len(asked) == after + 1
    assert reports == [(1, 3)][: after // 5]  # 5 steps make an epoch


def test_not_cancelling_changes_nothing():
    problem, recipe = world(), gradient_trained.ce(epochs=2)
    assert same(fit_heads(problem, [recipe], cancelled=lambda: False)[0], recipe(problem))


# --- divergence ------------------------------------------------------------------------------------------------------


def test_a_diverging_head_keeps_its_last_finite_epoch_and_disturbs_no_other():
    problem = world()
    steady = {"batch_size": 16, "schedule": "constant"}
    wild = {"lr": 500.0, "weight_decay": 10.0, **steady}  # multiplies the weight by -5000 per step
    healthy = [
        gradient_trained.ce(epochs=6, **steady),
        gradient_trained.gala(epochs=6, **steady),
        gradient_trained.los(epochs=6, lr=0.1, **steady),
    ]
    recipes = [
        healthy[0],
        gradient_trained.ce(epochs=6, **wild),
        healthy[1],
        gradient_trained.gala(epochs=6, **wild),
        healthy[2],
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        paths = fit_heads(problem, recipes, snapshots=True)
        heads = fit_heads(problem, recipes)
    assert [warning.category for warning in caught] == [PoiseWarning] * 4  # once per head and call
    assert all(warning.filename == __file__ for warning in caught)
    for i in (1, 3):
        path = paths[i]
        assert torch.isfinite(path.weight).all()
        moved = [e for e in range(6) if not same(path[e + 1], path[e])]
        assert moved == list(range(len(moved)))
        assert 1 <= len(moved) <= 4
        assert f"epoch {len(moved) + 1} of 6" in str(caught[i // 2].message)
        assert "lr=500" in str(caught[i // 2].message)
        assert "weight_decay=10" in str(caught[i // 2].message)
        assert same(heads[i], path[-1])
        assert same(heads[i], replace(recipes[i], plan=replace(recipes[i].plan, epochs=len(moved)))(problem))
    alone = [recipe(problem) for recipe in healthy]
    assert all_same([heads[i] for i in (0, 2, 4)], alone)
    assert all_same([paths[i][-1] for i in (0, 2, 4)], alone)


@pytest.mark.parametrize(("batch_size", "decay"), [(1, 1.0), (72, 1e30)])
def test_a_head_that_diverges_at_once_stays_where_it_started(batch_size, decay):
    """To NaN after many steps, and to infinity in one."""
    problem = world()
    plan = {"epochs": 1, "batch_size": batch_size, "lr": 1e30, "weight_decay": decay, **PLAIN}
    with pytest.warns(PoiseWarning, match="epoch 1 of 1"):
        head = gradient_trained.ce(**plan)(problem)
    assert same(head, problem.head)


# --- starts, scaling, views ------------------------------------------------------------------------------------------


def test_fresh_starts_are_paired_within_a_seed_and_differ_between_seeds():
    problem = world(counts=tuple(range(60, 20, -1)), dim=16)
    plan = {"epochs": 0, "scale_features": False}
    recipes = [
        gradient_trained.crt(**plan),
        gradient_trained.gala(**plan),
        gradient_trained.ce(start="fresh", lr=0.1, **plan),
    ]
    heads = [head for seed in (0, 1) for head in fit_heads(problem, recipes, seed)]
    drawn = [fresh(torch.zeros(40, 17), seed) for seed in (0, 0, 0, 1, 1, 1)]
    assert all_same(heads, [Head(rows[:, :-1], rows[:, -1]) for rows in drawn])
    assert not torch.isclose(drawn[0], drawn[-1]).any()
    assert float(drawn[0].abs().max()) == pytest.approx(16**-0.5, rel=0.02)  # 680 uniform numbers come this close
    assert float(drawn[0].square().mean()) == pytest.approx(16**-1 / 3, rel=0.1)  # 680 numbers, within 3 errors


@pytest.mark.parametrize(
    "recipe",
    [
        gradient_trained.ce(epochs=3, batch_size=16),
        gradient_trained.crt(epochs=3, batch_size=16),
        gradient_trained.lws(epochs=3, batch_size=16),
        gradient_trained.marc(epochs=3, batch_size=16),
        gradient_trained.cosine(epochs=3, batch_size=16),
        gradient_trained.ldam(epochs=3, batch_size=16),
        gradient_trained.weight_balancing(epochs=3, batch_size=16, lr=1.0, every="step", loss="ce"),
        gradient_trained.gala(epochs=3, batch_size=16),
    ],
    ids=["ce", "crt", "lws", "marc", "cosine", "ldam", "weight_balancing", "gala"],
)
def test_scaling_and_shifting_features_leaves_the_logits(recipe):
    """With a stage-1 head that follows, whose logits are the same."""
    problem = world(dtype=torch.float64, views=2)
    moved = replaced_features(problem, 50.0, torch.linspace(-4, 4, 6, dtype=torch.float64))
    expected = recipe(problem)(problem.train.x[0])
    assert relative(recipe(moved)(moved.train.x[0]), expected) <= 1e-10


def test_scaling_raw_features_changes_the_logits():
    """What `scale_features` is for: the same recipe without it depends on the unit of the features."""
    problem, recipe = world(dtype=torch.float64), gradient_trained.ce(epochs=3, lr=0.01, scale_features=False)
    moved = replaced_features(problem, 50.0, torch.zeros(6, dtype=torch.float64))
    assert relative(recipe(moved)(moved.train.x[0]), recipe(problem)(problem.train.x[0])) > 0.1


def test_a_head_of_the_scaled_space_gives_the_same_logits_on_the_features_as_they_are():
    problem = world(dtype=torch.float64)
    x = problem.train.x[0]
    rows = torch.randn(4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for part in (trained_parts.full, trained_parts.scale_only, trained_parts.affine_only, trained_parts.bias_only):
        head = Retrain(start=lambda at, seed: rows, part=part, plan=Plan(epochs=0))(problem)
        assert head.prep is None
        assert relative(head(x), standardised(x)[0] @ rows[:, :-1].mT + rows[:, -1]) <= 1e-14


def test_training_on_scaled_features_is_training_on_rows_scaled_by_hand():
    problem = world(dtype=torch.float64)
    x, head = problem.train.x[0], problem.head
    scaled, factor = standardised(x)
    by_hand = Problem(
        replace(problem.train, x=scaled), Head(head.weight / factor, head.bias + head.weight @ x.mean(dim=0))
    )
    plan = {"epochs": 3, "batch_size": 16}
    expected = gradient_trained.ce(**plan, scale_features=False)(by_hand)(scaled)
    assert relative(gradient_trained.ce(**plan)(problem)(x), expected) <= 1e-12


def test_epochs_take_the_views_after_the_first_in_turn():
    problem = world(views=3)

    def trained(x, epochs):
        features = Features(x, problem.train.y, problem.train.counts)
        return gradient_trained.ce(epochs=epochs, batch_size=16, **PLAIN, lr=0.1)(replace(problem, train=features))

    x = problem.train.x
    assert same(trained(x, 1), trained(x[1], 1))
    assert same(trained(x, 2), trained(x[[0, 1, 2, 0]], 2))
    assert same(trained(x, 3), trained(x[[0, 1, 2, 1]], 3))
    assert not same(trained(x, 2), trained(x[[0, 1, 1]], 2))


def test_the_last_partial_batch_is_a_batch_unless_dropped():
    """72 rows in batches of 16: the last 8 rows in the order of the epoch count or do not."""
    problem = world()
    order = gradient_trained.ce().sampler(problem.train.y, problem.train.counts, 0, 1, 0)
    changed = problem.train.x.clone()
    changed[0, order[64:]] += 1
    other = replace(problem, train=replace(problem.train, x=changed))
    plan = {"epochs": 1, "batch_size": 16, "lr": 0.1, **PLAIN}
    assert same(
        gradient_trained.ce(**plan, drop_last=True)(problem), gradient_trained.ce(**plan, drop_last=True)(other)
    )
    assert not same(gradient_trained.ce(**plan)(problem), gradient_trained.ce(**plan)(other))


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part", [trained_parts.scale_only, trained_parts.affine_only, trained_parts.bias_only, trained_parts.unit_rows]
)
@pytest.mark.parametrize("projection", [max_norm(radius=1.0), max_norm(every="epoch"), unit_norm()])
def test_a_projection_of_a_part_is_refused(part, projection):
    with pytest.raises(InputError, match="projection"):
        Retrain(part=part, projection=projection)


def test_dropping_the_only_batch_is_refused():
    with pytest.raises(InputError, match="drop_last with batch_size 73 leaves no batch of 72 rows"):
        gradient_trained.ce(batch_size=73, drop_last=True)(world())
    assert Plan(batch_size=73).steps(72) == 1
    assert Plan(batch_size=72, drop_last=True).steps(72) == 1
    assert [Plan(batch_size=64, drop_last=drop).steps(10847) for drop in (False, True)] == [170, 169]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lr", -0.1),
        ("lr", math.nan),
        ("lr", math.inf),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("momentum", math.nan),
        ("weight_decay", -1e-4),
        ("weight_decay", math.inf),
        ("epochs", -1),
        ("epochs", 2.5),
        ("epochs", 2.0),
        ("epochs", "3"),
        ("epochs", math.nan),
        ("epochs", math.inf),
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("batch_size", math.inf),
        ("warmup_from", 1.5),
        ("warmup_from", -0.1),
        ("warmup_epochs", -1),
        ("warmup_epochs", 11),
        ("warmup_epochs", 1.5),
        ("schedule", "linear"),
        ("milestones", (0.5, 1.5)),
        ("milestones", (-0.1,)),
        ("matmul", "float16"),
        ("milestone_factor", -0.1),
        ("milestone_factor", 1.5),
        ("lr", "3"),
        ("momentum", None),
        ("milestone_factor", math.nan),
    ],
)
def test_a_plan_names_the_field_that_is_out_of_range(field, value):
    with pytest.raises(InputError, match=f"plan: {field} must be") as refusal:
        Plan(**{field: value})
    assert repr(value) in str(refusal.value)


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(InputError, match="plan: nesterov"):
        Plan(nesterov=True, momentum=0.0)
    assert Plan(nesterov=True).nesterov


# --- learning rates --------------------------------------------------------------------------------------------------


def half_cosine(share):
    return (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [[1, 1], [1, 1], [1, 1], [1, 1]]),
        ("cosine", [[half_cosine((2 * e + s) / 8) for s in (0, 1)] for e in range(4)]),
        ("cosine_epoch_end", [[half_cosine(e / 4)] * 2 for e in (0, 1, 2, 3)]),
        ("cosine_epoch_start", [[half_cosine(e / 4)] * 2 for e in (1, 2, 3, 4)]),
        ("multistep", [[1, 1], [1, 1], [0.1, 0.1], [0.01, 0.01]]),
    ],
)
def test_learning_rates_of_four_epochs_of_two_steps(schedule, expected):
    plan = Plan(lr=2.0, epochs=4, schedule=schedule, milestones=(0.5, 0.75))
    rates = learning_rates(plan, 2)
    assert rates.dtype == torch.float64
    torch.testing.assert_close(rates, 2.0 * torch.tensor(expected, dtype=torch.float64), rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize(("schedule", "stepped_before"), [("cosine_epoch_end", False), ("cosine_epoch_start", True)])
def test_per_epoch_cosines_equal_torch_schedulers_stepped_after_or_before_each_epoch(schedule, stepped_before):
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=30)
    expected = []
    for _ in range(30):
        sgd.step()
        if stepped_before:
            scheduler.step()
        expected.append(sgd.param_groups[0]["lr"])
        if not stepped_before:
            scheduler.step()
    rates = learning_rates(Plan(lr=0.2, epochs=30, schedule=schedule), 1).squeeze(1).tolist()
    assert rates == pytest.approx(expected, rel=1e-12, abs=1e-15)  # torch multiplies factor after factor


def test_gala_release_warms_up_for_two_of_200_epochs_and_ends_at_zero():
    plan = Plan(lr=0.1, epochs=200, warmup_epochs=2, schedule="cosine_epoch_start")
    rates = learning_rates(plan, 3)
    assert rates.shape == (200, 3)
    assert (rates == rates[:, :1]).all()
    assert rates[0, 0] == 0.05
    assert rates[1, 0] == 0.1
    assert float(rates[2, 0]) == pytest.approx(0.1 * half_cosine(1 / 198), rel=1e-14)
    assert rates[199, 0] == 0.0
    assert (rates.diff(dim=0)[1:] < 0).all()


def test_multistep_falls_tenfold_at_160_and_180_of_200_epochs():
    rates = learning_rates(Plan(lr=0.1, epochs=200, schedule="multistep"), 1).squeeze(1).tolist()
    assert rates == pytest.approx([0.1] * 160 + [0.01] * 20 + [0.001] * 20, rel=1e-14)


@pytest.mark.parametrize("schedule", Schedule.__args__)
def test_a_warm_up_rises_linearly_and_the_schedule_spans_the_rest(schedule):
    rates = learning_rates(Plan(lr=1.0, epochs=9, warmup_epochs=4, schedule=schedule), 5)
    assert rates[:4].tolist() == [[share] * 5 for share in (0.25, 0.5, 0.75, 1.0)]
    rest = learning_rates(Plan(lr=1.0, epochs=5, schedule=schedule), 5)
    torch.testing.assert_close(rates[4:], rest, rtol=0, atol=1e-15)
    assert learning_rates(Plan(lr=1.0, epochs=2, warmup_epochs=2, schedule=schedule), 1).tolist() == [[0.5], [1.0]]


def test_a_warm_up_rises_from_the_share_of_the_rate_that_is_stated():
    plan = Plan(lr=2.0, epochs=5, warmup_epochs=4, warmup_from=0.2, schedule="constant")
    rates = learning_rates(plan, 1).squeeze(1).tolist()
    assert rates == pytest.approx([0.8, 1.2, 1.6, 2.0, 2.0], rel=1e-14)
    assert learning_rates(replace(plan, warmup_from=1.0), 1).unique().tolist() == [2.0]


def test_multistep_without_milestones_is_constant():
    rates = learning_rates(Plan(lr=0.3, epochs=4, schedule="multistep", milestones=()), 2)
    assert (rates == 0.3).all()


@pytest.mark.parametrize("epochs", range(10, 210, 10))
def test_multistep_falls_at_whole_epochs_whatever_the_rounding(epochs):
    shares = (0.2, 0.1 + 0.2, 0.8)  # 0.1 + 0.2 is above 0.3
    rates = learning_rates(Plan(lr=1.0, epochs=epochs, schedule="multistep", milestones=shares), 1).squeeze(1)
    falls = (rates.diff() < 0).nonzero().flatten() + 1
    assert falls.tolist() == [epochs // 5, 3 * epochs // 10, 4 * epochs // 5]


# --- weight decay and MaxNorm of weight balancing --------------------------------------------------------------------


def test_pure_decay_of_weight_balancing_has_the_published_figures():
    """170 steps per epoch, lr 0.01 stepped before each of 10 epochs, momentum 0.9, decay 0.1."""
    x = torch.zeros(10847, 2)
    problem = Problem(Features(x, torch.arange(10847) % 2, ClassCounts(torch.tensor([5424, 5423]))), None)
    problem = replace(problem, head=Head(torch.tensor([[1.0, -2.0], [3.0, 4.0]]), torch.tensor([5.0, -6.0])))
    plan = Plan(
        lr=0.01, weight_decay=0.1, epochs=10, batch_size=64, schedule="cosine_epoch_start", scale_features=False
    )
    path = fit_heads(problem, [Retrain(loss=ZERO, plan=plan)], snapshots=True)[0]
    for start, later in ((problem.head.weight, path.weight), (problem.head.bias, path.bias)):
        left = later / start
        for epochs, figure, digits in ((1, 0.1768, 5e-5), (2, 0.0323, 5e-5), (10, 0.00028, 5e-6)):
            torch.testing.assert_close(left[epochs], torch.full_like(start, figure), rtol=0, atol=digits)


def test_max_norm_per_epoch_is_inert_in_the_released_recipe_and_per_step_is_not():
    problem = load_demo("cifar100lt_r32").problem
    released = partial(
        gradient_trained.weight_balancing,
        lr=0.01,
        weight_decay=0.1,
        epochs=10,
        batch_size=64,
        schedule="cosine_epoch_start",
        scale_features=False,
    )
    epoch, never, step = fit_heads(problem, [released(every=every) for every in ("epoch", "never", "step")])
    assert same(epoch, never)
    assert relative(step.weight, never.weight) > 1e-3


def test_max_norm_bounds_rows_on_the_features_as_they_are():
    problem = world(dtype=torch.float64)
    plan = {"epochs": 2, "batch_size": 16, "loss": "ce", "radius": 0.7}
    for every in ("step", "epoch"):
        for path in fit_heads(
            problem,
            [
                gradient_trained.weight_balancing(**plan, every=every, scale_features=s, lr=3.0 if s else 0.3)
                for s in (True, False)
            ],
            snapshots=True,
        ):
            norms = path.weight[1:].norm(dim=-1)
            assert float(norms.max()) == pytest.approx(0.7, rel=1e-12)
            assert float(path.bias.diff(dim=0).abs().min()) > 0


# --- states of losses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", ["sum", "cumsum"])
def test_gala_statistics_act_one_step_later(accumulate):
    """Full batches without momentum: every epoch is one step, and its statistics enter the next."""
    problem = world(dtype=torch.float64)
    x, y, n = problem.train.x[0], problem.train.y, 72
    plan = {"epochs": 3, "batch_size": n, "lr": 0.5, "momentum": 0.0, "weight_decay": 0.0, **PLAIN}
    path = fit_heads(problem, [gradient_trained.gala(accumulate=accumulate, start="stage1", **plan)], snapshots=True)[0]
    weight, bias = problem.head.weight.clone(), problem.head.bias.clone()
    seen = []  # gradient on the true class, summed by class, of every step
    for epoch in range(3):
        times = range(len(seen), 0, -1) if accumulate == "cumsum" else [1] * len(seen)
        theta = sum((k * one for k, one in zip(times, seen, strict=True)), start=torch.zeros(4, dtype=torch.float64))
        slope = (x @ weight.mT + bias + torch.log(theta + 1e-3)).softmax(dim=1) - functional.one_hot(y, 4)
        seen.append(torch.stack([slope[y == k, k].abs().sum() / n for k in range(4)]))
        weight, bias = weight - 0.5 * slope.mT @ x / n, bias - 0.5 * slope.mean(dim=0)
        assert relative(path[epoch + 1](x), x @ weight.mT + bias) <= 1e-12
    first = fit_heads(problem, [gradient_trained.ce(**plan)], snapshots=True)[0]
    assert relative(path[1](x), first[1](x)) <= 1e-12
    assert relative(path[2](x), first[2](x)) > 1e-3


def test_states_of_one_family_are_kept_apart_and_not_shared_between_calls():
    problem = world()
    recipes = [gradient_trained.gala(lambda_pos=power, epochs=2, batch_size=16) for power in (0.5, 1.0, 2.0)]
    first = fit_heads(problem, recipes)
    assert all_same(fit_heads(problem, recipes), first)
    assert not any(same(a, b) for a, b in itertools.combinations(first, 2))


@pytest.mark.parametrize(("epochs", "plain"), [(10, 8), (5, 4), (7, 6), (1, 1)])
def test_deferred_reweighting_starts_at_80_percent_of_the_epochs(epochs, plain):
    problem = world()
    plan = {"epochs": epochs, "batch_size": 16, "schedule": "constant"}
    late, never = fit_heads(problem, [gradient_trained.ldam(drw=drw, **plan) for drw in (True, False)], snapshots=True)
    assert [same(late[e], never[e]) for e in range(epochs + 1)] == [e <= plain for e in range(epochs + 1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_loss_without_a_gradient_is_differentiated(dtype):
    def flat(z, y):
        return functional.cross_entropy(z.flatten(0, -2), y.repeat(len(z)), reduction="none").view(z.shape[:-1])

    problem, loss = world(dtype=dtype), losses.stateless(flat)
    plans = [Plan(epochs=3, batch_size=16, lr=lr) for lr in (0.5, 2.0)]
    heads = fit_heads(problem, [Retrain(loss=loss, plan=plan) for plan in plans])
    expected = fit_heads(problem, [Retrain(plan=plan) for plan in plans])
    for head, other in zip(heads, expected, strict=True):
        assert relative(head(problem.train.x[0]), other(problem.train.x[0])) <= (
            1e-5 if dtype == torch.float32 else 1e-13
        )


def test_a_stateful_loss_without_a_gradient_keeps_its_state_and_hears_of_every_epoch():
    """The weight of the n-th step is n; the epoch hook starts the count anew at 10 times the epoch."""

    def apply(z, y, state):
        (count,) = state
        value = count.view(-1, 1) * functional.cross_entropy(z[0], y, reduction="none").unsqueeze(0)
        return value, (count + 1,)

    heard = []

    def begin(state, epoch, epochs):
        heard.append((epoch, epochs))
        return (torch.full_like(state[0], 10.0 * epoch),)

    loss = Loss(lambda counts: (torch.tensor(99.0),), apply, None, begin)
    problem = world(dtype=torch.float64)
    plan = Plan(epochs=2, batch_size=24, lr=0.05, momentum=0.0, weight_decay=0.0, schedule="constant")
    head = Retrain(loss=loss, plan=plan)(problem)
    assert heard == [(0, 2), (1, 2)]
    seen = iter([0.0, 1.0, 2.0, 10.0, 11.0, 12.0])
    weighted = losses.stateless(lambda z, y: next(seen) * functional.cross_entropy(z[0], y, reduction="none")[None])
    expected = Retrain(loss=weighted, plan=plan)(problem)
    assert same(head, expected)
