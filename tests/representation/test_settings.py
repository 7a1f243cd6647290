"""The settings of stage 1."""

import json

import numpy as np
import pytest
import torch

from poise.errors import InputError
from poise.losses import class_balanced_weights
from poise.representation.settings import Stage1
from poise.values.counts import ClassCounts

COUNTS = ClassCounts(torch.tensor([8, 4, 2]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "stage 1: epochs must be a whole number, 1 or more, got 0"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"lr": -1}, "lr must be a finite number, 0 or more, got -1"),
        ({"lr": float("nan")}, "lr must be a finite number"),
        ({"lr_batch_size": 0}, "lr_batch_size must be a whole number, 1 or more, got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number, 1 or more, got 0"),
        ({"batch_size": "8"}, "batch_size must be a whole number"),
        ({"accumulate": 1.5}, "accumulate must be a whole number from 1 to batch_size, got 1.5"),
        ({"accumulate": 9, "batch_size": 8}, "accumulate must be a whole number from 1 to batch_size, got 9"),
        ({"mixup": -0.1}, "mixup must be a finite number, 0 or more"),
        ({"ema": 1.0}, r"ema must be a number in \[0, 1\), got 1.0"),
        ({"deferred": 1.5}, r"deferred must be a number in \[0, 1\], got 1.5"),
        ({"deferred": "late"}, r"deferred must be a number in \[0, 1\], got 'late'"),
        ({"deferred_beta": 1.0}, r"deferred_beta must be a number in \[0, 1\)"),
        ({"trained": "first_block"}, "trained must be one of all, last_block, head, got 'first_block'"),
        ({"backbone_lr": None}, "backbone_lr must be a finite number, 0 or more, got None"),
        ({"precision": "fp16"}, "precision must be one of auto, bf16, float32, got 'fp16'"),
        ({"sampler": "balanced"}, "sampler must be one of instance, class_balanced,.* got 'balanced'"),
        ({"images_per_visit": 0}, "images_per_visit must be a whole number, 1 or more"),
        ({"seed": -1}, "seed must be a whole number, 0 or more"),
        ({"seed": 2**63}, "seed must be a whole number, 0 or more, below 2"),
        ({"frozen_statistics": "no"}, "frozen_statistics must be true or false, got 'no'"),
        ({"channels_last": 1}, "channels_last must be true or false"),
        ({"augment": "crop"}, "augment must be a list, got 'crop'; put it into a list"),
        ({"milestones": 0.5}, "milestones must be a list, got 0.5"),
        ({"warmup_epochs": 201}, "warmup_epochs must be at most epochs=200, got 201"),
        ({"momentum": 0.0}, "nesterov must be false without momentum"),
        ({"loss": "gola"}, "there is no loss 'gola'.*gala"),
        ({"loss": "gcl(noise=-1)"}, "noise must lie in"),
        ({"loss": "los(gamma=1)"}, r"loss 'los\(gamma=1\)'"),
        ({"loss": "los(delta=2)"}, "delta must lie in"),
        ({"loss": "focal+los"}, "there is no loss 'focal"),
        ({"head": "cosine(scale=0)"}, "head must be 'linear' or 'cosine"),
        ({"head": "linear(scale=2)"}, "head must be 'linear' or 'cosine"),
        ({"warmup_from": 1.5}, r"warmup_from must be a number in \[0, 1\], got 1.5"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_named(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Stage1(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss": "ldam"},
            r"'ldam' is for cosines of scale 30, head is 'linear'; use head 'cosine\(scale=30.0\)', or",
        ),
        ({"loss": "ldam", "head": "cosine(scale=16)"}, r"cosines of scale 30, head is 'cosine\(scale=16\)'; use head"),
        ({"loss": "ldam(scale=16)", "head": "cosine"}, r"cosines of scale 16, .* use head 'cosine\(scale=16\)'"),
        ({"loss": "gcl"}, r"'gcl' is for cosines of scale 30, head is 'linear'; use head 'cosine\(scale=30.0\)'"),
        ({"loss": "gcl(scale=20)", "head": "cosine"}, r"cosines of scale 20, .* use head 'cosine\(scale=20\)'"),
        (
            {"loss": "ldam(drw=True)", "head": "cosine", "deferred": 0.8},
            r"loss 'ldam\(drw=True\)' weights by class itself, and deferred would weight by class again; leave",
        ),
        ({"loss": "class_balanced", "deferred": 0.8}, "'class_balanced' weights by class itself"),
        ({"loss": "class_balanced(gamma=1.0)", "deferred": 0.8}, "weights by class itself"),
        ({"loss": "class_balanced_bce", "deferred": 0.8}, "weights by class itself"),
    ],
    ids=str,
)
def test_settings_that_do_not_go_together_are_refused_with_what_would(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Stage1(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "ldam", "head": "cosine"},
        {"loss": "ldam(scale=16)", "head": "cosine(scale=16)", "deferred": 0.8},
        {"loss": "ldam(drw=True)", "head": "cosine"},
        {"loss": "gcl(scale=20)", "head": "cosine(scale=20)"},
        {"loss": "gala", "deferred": 0.8},
        {"loss": "focal", "deferred": 0.8},
        {"loss": "cross_entropy", "head": "cosine(scale=16)"},
    ],
    ids=str,
)
def test_settings_beside_those_are_taken(changes: dict) -> None:
    assert Stage1(**changes).loss == changes["loss"]


def test_settings_survive_json_even_if_they_came_from_numpy() -> None:
    settings = Stage1(lr=np.float64(0.2), epochs=np.int64(9), milestones=[0.5])
    there = json.loads(json.dumps(settings.to_dict()))
    assert Stage1(**there) == settings
    assert type(settings.to_dict()["lr"]) is float


def test_the_rate_rises_and_falls_by_step() -> None:
    settings = Stage1(lr=1.0, epochs=4, warmup_epochs=2, batch_size=5)
    rates = settings.learning_rates(10)
    assert rates[:2] == [[0.5, 0.5], [1.0, 1.0]]
    assert rates[2] == [1.0, pytest.approx(0.5 * (1 + np.cos(np.pi / 4)))]


def test_an_order_is_a_function_of_seed_and_epoch() -> None:
    y = torch.tensor([0] * 8 + [1] * 4 + [2] * 2)
    settings = Stage1(seed=3)
    orders = [settings.row_order(y, COUNTS, epoch) for epoch in (0, 1, 0)]
    assert torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[1])
    assert all(torch.equal(order.sort().values, torch.arange(14)) for order in orders)


def test_weights_by_class_begin_at_their_share_of_the_epochs() -> None:
    settings = Stage1(epochs=10, warmup_epochs=0, deferred=0.8, deferred_beta=0.9)
    assert settings.class_weights(COUNTS, 7) is None
    weights = settings.class_weights(COUNTS, 8)
    torch.testing.assert_close(weights, class_balanced_weights(COUNTS, 0.9).float())
    assert Stage1().class_weights(COUNTS, 199) is None


def test_a_cosine_head_has_a_scale() -> None:
    assert Stage1().cosine_scale() is None
    assert Stage1(head="cosine").cosine_scale() == 30.0
    assert Stage1(head="cosine(scale=16)").cosine_scale() == 16.0
