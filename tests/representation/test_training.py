"""Stage 1 against loops written by hand, and against itself after every kind of interruption."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from poise.errors import InputError, PoiseError, PoiseWarning, StoppedError
from poise.losses import class_balanced_weights, draws
from poise.representation import training_log
from poise.representation.augment import beta_share, normalised, parse
from poise.representation.backbones import Backbone
from poise.representation.checkpoints import NEWEST, load_checkpoint, save_checkpoint
from poise.representation.network import Network
from poise.representation.settings import Stage1, changes
from poise.representation.training import uses_bf16
from poise.values.counts import ClassCounts
from poise.values.randomness import Stream, hashed, uniforms
from stage1_child import HALVES, asked, digest, images, tiny, trained

# Sums of float32 in another order: a few units in the last place of weights near 1.
CLOSE = {"rtol": 1e-5, "atol": 5e-6}


def seen(settings: Stage1, epoch: int, order: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """What the network sees of the images at some places of an epoch."""
    pixels, _ = images()
    augmentation = parse(settings.augment)
    drawn = uniforms(augmentation.draws, places, settings.seed, Stream.AUGMENT, epoch)
    return normalised(augmentation(pixels[order[places]], drawn), HALVES, HALVES)


def by_hand(settings: Stage1, losses=None, *, rates=None) -> Network:
    """Stage 1 as a plain loop; `losses(logits, y, epoch)` are (B,) or their average, cross-entropy unless given."""
    _, y = images()
    counts = ClassCounts.from_labels(y, 3)
    network = Network(tiny(), 3, settings)
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=1.0,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )
    network.train()
    for epoch, epoch_rates in enumerate(rates or settings.learning_rates(len(y))):
        order = settings.row_order(y, counts, epoch)
        for step, places in enumerate(torch.arange(len(y)).split(settings.batch_size)):
            x, labels = seen(settings, epoch, order, places), y[order[places]]
            if losses is None:
                mean = functional.cross_entropy(network(x), labels)
            else:
                mean = losses(network, x, labels, epoch, step, order, places).mean()
            optimiser.zero_grad()
            mean.backward()
            optimiser.param_groups[0]["lr"] = epoch_rates[step]
            optimiser.step()
    return network.eval()


def assert_same(found: nn.Module, expected: nn.Module) -> None:
    for (name, one), other in zip(found.state_dict().items(), expected.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


# --- oracles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"nesterov": False, "weight_decay": 0.1, "schedule": "multistep", "warmup_epochs": 1},
        {"momentum": 0.0, "nesterov": False},
        {"batch_size": 7},
        {"sampler": "class_balanced"},
        {"sampler": "class_balanced_iid"},
        {"sampler": "square_root"},
        {"sampler": "progressive"},
        {"seed": 3, "channels_last": False},
        {"augment": ()},
    ],
    ids=str,
)
def test_training_equals_a_plain_loop_of_torch(tmp_path: Path, changes: dict) -> None:
    settings = asked(**changes)
    assert_same(trained(tmp_path, settings).network, by_hand(settings))


def test_the_learning_rate_follows_the_batch_if_its_batch_is_stated(tmp_path: Path) -> None:
    settings = asked(lr=0.2, lr_batch_size=16, batch_size=8)
    assert settings.scaled_lr == 0.1
    assert_same(trained(tmp_path, settings).network, by_hand(asked(lr=0.1)))


def test_label_smoothing_is_that_of_torch(tmp_path: Path) -> None:
    def smoothed(network, x, y, *_):
        return functional.cross_entropy(network(x), y, label_smoothing=0.1, reduction="none")

    # In this family the target keeps 1 - delta + delta / C, as in torch.
    settings = asked(loss="los(delta=0.1)")
    assert_same(trained(tmp_path, settings).network, by_hand(settings, smoothed))


def test_deferred_weights_act_from_their_epoch_on(tmp_path: Path) -> None:
    settings = asked(deferred=0.5, deferred_beta=0.9)
    _, y = images()
    weights = class_balanced_weights(ClassCounts.from_labels(y, 3), 0.9).float()

    def weighted(network, x, y, epoch, *_):
        return functional.cross_entropy(network(x), y, weights if epoch == 1 else None)  # over the sum of weights

    assert_same(trained(tmp_path, settings).network, by_hand(settings, weighted))


def test_deferred_weights_with_mixup_divide_the_losses_of_both_labels_by_their_weights(tmp_path: Path) -> None:
    settings = asked(deferred=0.0, deferred_beta=0.9, mixup=0.4)
    _, y = images()
    weights = class_balanced_weights(ClassCounts.from_labels(y, 3), 0.9).float()

    def mixed(network, x, y, epoch, step, order, places):
        share = beta_share(0.4, 0, Stream.MIXUP, epoch, step)
        partner = torch.from_numpy(hashed(0, Stream.PARTNER, epoch, places.numpy()).argsort())
        logits = network(share * x + (1 - share) * x[partner])
        first, second = (functional.cross_entropy(logits, labels, weights) for labels in (y, y[partner]))
        return share * first + (1 - share) * second

    assert_same(trained(tmp_path, settings).network, by_hand(settings, mixed))


def test_deferred_weights_of_ldam_are_averaged_as_in_its_release(tmp_path: Path) -> None:
    # At a tenth of the usual rate, so that fifteen steps do not make much of the rounding of the first.
    settings = asked(loss="ldam(drw=True,scale=5.0)", head="cosine(scale=5.0)", epochs=5, lr=0.01)
    _, y = images()
    counts = ClassCounts.from_labels(y, 3)
    weights, margins = class_balanced_weights(counts).float(), 2.5 * (counts.n.min() / counts.n.float()) ** 0.25

    def late(network, x, y, epoch, *_):
        logits = network(x) - margins[y, None] * functional.one_hot(y, 3)
        return functional.cross_entropy(logits, y, weights if epoch == 4 else None)

    assert_same(trained(tmp_path, settings).network, by_hand(settings, late))


def test_mixup_mixes_images_and_losses_with_those_of_a_permutation(tmp_path: Path) -> None:
    settings = asked(mixup=0.4)
    partners = []

    def mixed(network, x, y, epoch, step, order, places):
        share = beta_share(0.4, 0, Stream.MIXUP, epoch, step)
        partner = torch.from_numpy(hashed(0, Stream.PARTNER, epoch, places.numpy()).argsort())
        partners.append(partner)
        logits = network(share * x + (1 - share) * x[partner])
        first, second = (functional.cross_entropy(logits, labels, reduction="none") for labels in (y, y[partner]))
        return share * first + (1 - share) * second

    assert_same(trained(tmp_path, settings).network, by_hand(settings, mixed))
    assert all(sorted(partner.tolist()) == list(range(8)) for partner in partners)
    assert len({tuple(partner.tolist()) for partner in partners}) == len(partners)


def test_gala_gathers_gradients_from_step_to_step(tmp_path: Path) -> None:
    settings = asked(loss="gala(lambda_pos=0.7)", epochs=3)
    theta, total = torch.zeros(3), torch.zeros(3)

    def adjusted(network, x, y, *_):
        nonlocal theta, total
        logits = network(x) + 0.7 * (theta + 1e-3).log()
        probs = logits.detach().softmax(-1)
        # The gradient of the mean loss with respect to the logit of the true class is (p - 1) / B.
        for row, label in enumerate(y.tolist()):
            total = total + functional.one_hot(torch.tensor(label), 3) * (1 - probs[row, label]) / len(y)
        theta = theta + total
        return functional.cross_entropy(logits, y, reduction="none")

    assert_same(trained(tmp_path, settings).network, by_hand(settings, adjusted))
    state = load_checkpoint(tmp_path)["loss_state"]
    torch.testing.assert_close(state[0], theta, **CLOSE)
    torch.testing.assert_close(state[1], total, **CLOSE)


def test_ldam_with_a_cosine_head(tmp_path: Path) -> None:
    settings = asked(loss="ldam(max_margin=0.5,scale=5.0)", head="cosine(scale=5.0)")
    counts = torch.tensor([15.0, 6.0, 3.0])
    margins = 5 * 0.5 * (counts.min() / counts) ** 0.25

    def with_margins(network, x, y, *_):
        logits = network(x)
        return functional.cross_entropy(logits - margins[y, None] * functional.one_hot(y, 3), y, reduction="none")

    result = trained(tmp_path, settings)
    assert_same(result.network, by_hand(settings, with_margins))
    weight = result.network.head.weight
    rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    cosines = functional.cosine_similarity(rows[:, None], weight[None], dim=-1)
    torch.testing.assert_close(result.head(rows), 5 * cosines, **CLOSE)


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_gcl_takes_fresh_noise_from_every_logit(tmp_path: Path, mixup: float) -> None:
    # A small lr, because steps of a cosine head on six numbers multiply every rounding before them.
    loss = {"loss": "gcl(noise=0.5,margin=0.1,scale=5.0)", "head": "cosine(scale=5.0)"}
    settings = asked(**loss, mixup=mixup, seed=3, lr=0.01)
    rarity = torch.log(15 / torch.tensor([15.0, 6.0, 3.0])) / torch.log(torch.tensor(5.0))
    seen = []

    def clouded(network, x, y, epoch, step, order, places):
        share, partner = 1.0, torch.arange(len(y))
        if mixup:
            share = beta_share(mixup, 3, Stream.MIXUP, epoch, step)
            partner = torch.from_numpy(hashed(3, Stream.PARTNER, epoch, places.numpy()).argsort())
        seen.append(draws(places, 3, 3, epoch))
        third = torch.distributions.Normal(0.0, torch.tensor(1 / 3, dtype=torch.float64))
        size = third.icdf((1 + seen[-1]) / 2).clamp(max=1).float()
        cosines = network(share * x + (1 - share) * x[partner]) / 5 - 0.5 * size * rarity
        first, second = (
            functional.cross_entropy(5 * (cosines - 0.1 * functional.one_hot(labels, 3)), labels, reduction="none")
            for labels in (y, y[partner])
        )
        return share * first + (1 - share) * second

    result = trained(tmp_path, settings)
    assert_same(result.network, by_hand(settings, clouded))
    assert len({number for numbers in seen for number in numbers.flatten().tolist()}) == 6 * 8 * 3
    assert load_checkpoint(tmp_path)["loss_state"][3] is None  # nothing random is remembered


def test_the_moving_average_of_the_weights_is_kept(tmp_path: Path) -> None:
    settings = asked(ema=0.9)
    states = []

    def remembering(network, x, y, *_):
        states.append({name: value.clone() for name, value in network.state_dict().items()})
        return functional.cross_entropy(network(x), y, reduction="none")

    final = by_hand(settings, remembering).state_dict()
    average = states[0]
    for state in [*states[1:], final]:
        average = {name: 0.9 * average[name] + 0.1 * state[name] for name in average}
    found = trained(tmp_path, settings).network.state_dict()
    for name, value in found.items():
        expected = average[name] if value.is_floating_point() else final[name]
        torch.testing.assert_close(value, expected, **CLOSE)


@pytest.mark.parametrize(
    ("rows", "changes"),
    [
        (24, {}),
        (21, {"loss": "gala(lambda_pos=1.0)"}),
        (17, {}),
        (17, {"deferred": 0.5}),
        (21, {"deferred": 0.0, "mixup": 0.4}),
        (21, {"loss": "ldam(drw=True)", "head": "cosine", "epochs": 5}),
        (21, {"loss": "gcl(scale=5.0)", "head": "cosine(scale=5.0)"}),
    ],
    ids=str,
)
def test_parts_of_a_batch_add_up_to_the_batch(tmp_path: Path, rows: int, changes: dict) -> None:
    whole, parts = (asked(**changes, accumulate=count) for count in (1, 3))
    one, other = (
        trained(tmp_path / str(s.accumulate), s, backbone=tiny(norm=False), rows=rows) for s in (whole, parts)
    )
    assert_same(one.network, other.network)


def test_the_head_is_the_classifier_of_the_network(tmp_path: Path) -> None:
    result = trained(tmp_path, asked())
    x = normalised(images()[0], HALVES, HALVES)
    with torch.no_grad():
        torch.testing.assert_close(result.head(result.network.backbone(x)), result.network(x), **CLOSE)


# --- what is trained --------------------------------------------------------------------------------------------------


def weights_of(network: nn.Module, beginnings: tuple[str, ...]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in network.state_dict().items() if name.startswith(beginnings)}


@pytest.mark.parametrize(("part", "frozen"), [("last_block", ("backbone.0.", "backbone.1.")), ("head", ("backbone.",))])
def test_what_is_not_trained_keeps_its_bits(tmp_path: Path, part: str, frozen: tuple[str, ...]) -> None:
    settings = asked(trained=part)
    fresh = Network(tiny(), 3, settings)
    after = trained(tmp_path, settings).network
    before = weights_of(fresh, frozen)
    assert {name: digest({name: v}) for name, v in before.items()} == {
        name: digest({name: v}) for name, v in weights_of(after, frozen).items()
    }
    moved = [n for n, v in after.state_dict().items() if not n.startswith(frozen) and n.endswith("weight")]
    assert all(not torch.equal(fresh.state_dict()[name], after.state_dict()[name]) for name in moved)


@pytest.mark.parametrize("part", ["last_block", "head"])
def test_frozen_statistics_may_drift_as_in_released_code(tmp_path: Path, part: str) -> None:
    fresh = tiny().module.state_dict()
    found = trained(tmp_path, asked(trained=part, frozen_statistics=False)).network.backbone.state_dict()
    assert not torch.equal(found["1.running_mean"], fresh["1.running_mean"])
    assert torch.equal(found["1.weight"], fresh["1.weight"])


def test_normalisation_without_parameters_learns_its_statistics_where_all_is_trained(tmp_path: Path) -> None:
    def plain() -> Backbone:
        module = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, affine=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        return Backbone("plain", module, 6, 8, HALVES, HALVES, last_block=("0.",))

    means = {
        part: trained(tmp_path / part, asked(trained=part), backbone=plain()).network.backbone[1].running_mean
        for part in ("all", "last_block", "head")
    }
    assert means["all"].abs().sum() > 0
    assert means["head"].abs().sum() == 0
    assert means["last_block"].abs().sum() == 0  # it follows the block, and was not named with it


def test_the_backbone_may_have_a_rate_of_its_own(tmp_path: Path) -> None:
    still = trained(tmp_path / "still", asked(backbone_lr=0.0)).network
    fresh = tiny().module
    assert all(
        torch.equal(one, other) for one, other in zip(still.backbone.parameters(), fresh.parameters(), strict=True)
    )
    # One step without momentum moves the backbone in proportion.
    once = {"epochs": 1, "batch_size": 24, "momentum": 0.0, "nesterov": False}
    moved = [
        trained(tmp_path / str(factor), asked(backbone_lr=factor, **once)).network.backbone[0].weight - fresh[0].weight
        for factor in (1.0, 0.25)
    ]
    torch.testing.assert_close(moved[0] * 0.25, moved[1], rtol=1e-4, atol=1e-7)


# --- going on ---------------------------------------------------------------------------------------------------------

DEMANDING = {
    "loss": "gala(lambda_pos=0.7)",
    "mixup": 0.3,
    "ema": 0.5,
    "deferred": 0.5,
    "sampler": "class_balanced",
    "accumulate": 2,
}


DRW = {"loss": "ldam(drw=True)", "head": "cosine"}
CLOUDED = {"loss": "gcl(scale=5.0,gamma=1.0)", "head": "cosine(scale=5.0)", "mixup": 0.3, "accumulate": 2}


@pytest.mark.parametrize("changes", [{}, DEMANDING, DRW, CLOUDED], ids=["plain", "demanding", "drw", "noise"])
def test_a_run_that_is_stopped_anywhere_ends_with_the_same_bits(tmp_path: Path, changes: dict) -> None:
    settings = asked(**changes)

    def network() -> Backbone:
        return tiny(dropout=0.5)

    whole = digest(trained(tmp_path / "whole", settings, backbone=network()).network.state_dict())
    for stop in (1, 2, 3, 4, 5):
        folder, calls = tmp_path / str(stop), iter(range(1, 10))
        with pytest.raises(StoppedError, match=f"stopped after step {stop} of 6"):
            trained(folder, settings, backbone=network(), should_stop=lambda c=calls, s=stop: next(c) == s)
        again = trained(folder, settings, backbone=network())
        assert digest(again.network.state_dict()) == whole
        assert not again.network.training


def test_the_log_of_a_stopped_run_is_that_of_a_whole_one(tmp_path: Path) -> None:
    def rows(folder: Path, stops: tuple[int, ...]) -> list[dict]:
        folder.mkdir()
        for begin, stop in pairwise((0, *stops, 100)):
            log = training_log.opened(folder, begin)
            calls = iter(range(begin + 1, 100))
            try:
                trained(folder, asked(epochs=3), log=log, should_stop=lambda c=calls, s=stop: next(c) == s)
            except StoppedError as error:
                assert error.step == stop  # noqa: PT017 - the rest of the loop follows
        timed = ("seconds", "images_per_second")
        return [{key: value for key, value in row.items() if key not in timed} for row in training_log.rows_of(folder)]

    whole = rows(tmp_path / "whole", ())
    assert rows(tmp_path / "stopped", (2, 3, 7)) == whole
    assert [row["epoch"] for row in whole] == [1, 2, 3]
    assert [row["step"] for row in whole] == [3, 6, 9]


def test_the_log_has_the_mean_loss_and_the_accuracy_of_the_images_as_they_were_seen(tmp_path: Path) -> None:
    rows, losses, hits = [], [], []

    def remembering(network, x, y, *_):
        logits = network(x)
        hits.append((logits.argmax(-1) == y).float())
        losses.append(functional.cross_entropy(logits, y, reduction="none"))
        return losses[-1]

    settings = asked(epochs=1, batch_size=7)
    trained(tmp_path, settings, log=rows.append)
    by_hand(settings, remembering)
    assert rows[0]["loss"] == pytest.approx(torch.cat(losses).mean().item(), abs=1e-5)
    assert rows[0]["accuracy"] == pytest.approx(torch.cat(hits).mean().item(), abs=1e-6)
    assert rows[0]["lr"] == settings.learning_rates(24)[0][-1]
    json.dumps(rows)


def test_a_finished_run_that_is_started_again_does_nothing_and_returns_the_same(tmp_path: Path) -> None:
    settings, rows = asked(ema=0.5), []
    first = trained(tmp_path, settings)
    written = (tmp_path / NEWEST).stat().st_mtime_ns
    again = trained(tmp_path, settings, log=rows.append)
    assert digest(again.network.state_dict()) == digest(first.network.state_dict())
    assert not rows
    assert (tmp_path / NEWEST).stat().st_mtime_ns == written


def test_changed_settings_and_data_are_refused_and_listed(tmp_path: Path) -> None:
    trained(tmp_path, asked(epochs=1), identity={"split": "a", "samples": 24})
    with pytest.raises(InputError) as caught:
        trained(tmp_path, asked(lr=0.2), identity={"split": "b", "samples": 24})
    message = str(caught.value)
    for part in ("epochs was 1 and is now 2", "lr was 0.1 and is now 0.2", "split was 'a' and is now 'b'"):
        assert part in message
    assert "samples" not in message
    assert "with allow_changed=True" in message


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": 0.01},
        {"ema": 0.5},
        {"loss": "gala(lambda_pos=1.0)"},
        {"loss": "los(delta=0.5)"},
        {"trained": "head"},
        {"momentum": 0.0, "nesterov": False},
        {"batch_size": 5},
    ],
    ids=str,
)
def test_a_run_may_go_on_with_changed_settings(tmp_path: Path, changes: dict) -> None:
    before, calls = asked(loss="los(delta=0.1)"), iter(range(1, 9))
    with pytest.raises(StoppedError):
        trained(tmp_path, before, should_stop=lambda: next(calls) == 3)
    after = asked(**{"loss": "los(delta=0.1)", **changes})
    result = trained(tmp_path, after, allow_changed=True)
    assert all(torch.isfinite(value).all() for value in result.network.state_dict().values())
    trained(tmp_path, after)  # from now on these are the settings of the run


def test_another_loss_is_the_loss_from_there_on(tmp_path: Path) -> None:
    # What the state of a loss holds of its parameters must not come from the checkpoint.
    ends = []
    for delta in (0.1, 0.5):
        calls = iter(range(1, 9))
        folder = tmp_path / str(delta)
        with pytest.raises(StoppedError):
            trained(folder, asked(loss="los(delta=0.1)"), should_stop=lambda c=calls: next(c) == 3)
        settings = asked(loss=f"los(delta={delta})")
        ends.append(digest(trained(folder, settings, allow_changed=True).network.state_dict()))
    assert ends[0] != ends[1]


def test_a_moving_average_that_begins_late_begins_at_the_weights_of_then(tmp_path: Path) -> None:
    calls = iter(range(1, 9))
    with pytest.raises(StoppedError):
        trained(tmp_path, asked(), should_stop=lambda: next(calls) == 3)
    then = load_checkpoint(tmp_path)["network"]
    late = trained(tmp_path, asked(ema=0.999999), allow_changed=True).network.state_dict()
    torch.testing.assert_close(late["head.weight"], then["head.weight"], rtol=0, atol=1e-5)


def test_switching_the_moving_average_off_goes_on(tmp_path: Path) -> None:
    calls = iter(range(1, 9))
    with pytest.raises(StoppedError):
        trained(tmp_path, asked(ema=0.9), should_stop=lambda: next(calls) == 3)
    assert_same(trained(tmp_path, asked(), allow_changed=True).network, by_hand(asked()))


def test_the_generators_of_the_caller_are_untouched(tmp_path: Path) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first = trained(tmp_path / "a", asked(), backbone=tiny(dropout=0.5))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    torch.manual_seed(6)
    again = trained(tmp_path / "b", asked(), backbone=tiny(dropout=0.5))
    assert digest(first.network.state_dict()) == digest(again.network.state_dict())


# --- what can go wrong ------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_the_step_and_the_last_checkpoint_is_good(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the loss is (nan|inf) at step \d+ \(epoch \d\); that step was not made"):
        trained(tmp_path, asked(lr=1e30), checkpoint_seconds=0)
    saved = load_checkpoint(tmp_path)
    assert saved is None or all(torch.isfinite(value).all() for value in saved["network"].values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    once = asked(epochs=1, batch_size=24, lr=1e38, weight_decay=10.0)
    with pytest.raises(InputError, match="is not finite after step 1"):
        trained(tmp_path, once)
    assert load_checkpoint(tmp_path) is None


def test_a_network_of_another_shape_is_refused_with_the_names_of_its_parts(tmp_path: Path) -> None:
    trained(tmp_path, asked())
    module = nn.Sequential(*list(tiny().module.children())[:6], nn.Conv2d(6, 6, 1), *list(tiny().module)[6:8])
    with pytest.raises(InputError, match=r"2 of its parts .* first backbone.6.bias, backbone.6.weight; choose"):
        trained(tmp_path, asked(), backbone=Backbone("tiny", module, 6, 8, HALVES, HALVES))
    with pytest.raises(InputError, match=r"first head.bias"):
        trained(tmp_path, asked(head="cosine"), allow_changed=True)


def test_a_single_image_in_normalisation_is_explained(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), nn.Flatten())
    backbone = Backbone("one", module, 4, 8, HALVES, HALVES)
    with pytest.raises(InputError, match=r"a batch has a single image.*set drop_last"):
        trained(tmp_path, asked(batch_size=8), backbone=backbone, rows=17)
    fine = Backbone("one", module, 4, 8, HALVES, HALVES)
    trained(tmp_path / "b", asked(batch_size=8, drop_last=True), backbone=fine, rows=17)


def test_memory_that_is_full_suggests_a_smaller_batch(tmp_path: Path) -> None:
    class Greedy(nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), Greedy())
    with pytest.raises(PoiseError, match=r"memory of the device is full .*20 GiB.*smaller batch_size"):
        trained(tmp_path, asked(), backbone=Backbone("greedy", module, 6, 8, HALVES, HALVES))


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    steps = []
    with pytest.raises(InputError, match=r"cannot write into .*file.run.*choose another folder"):
        trained(tmp_path / "file" / "run", asked(), progress=lambda done, total: steps.append(done))
    assert not steps


def test_progress_counts_images_and_ends_at_their_number(tmp_path: Path) -> None:
    told = []
    trained(tmp_path, asked(), progress=lambda done, total: told.append((done, total)))
    assert told == [(8 * step, 48) for step in range(1, 7)]


def test_bfloat16_is_chosen_by_name_or_by_what_the_machine_has() -> None:
    cpu = torch.device("cpu")
    assert uses_bf16("bf16", cpu)
    assert not uses_bf16("float32", cpu)
    assert uses_bf16("auto", cpu) in (True, False)


def multiplying(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    """Let this machine have instructions for bfloat16, or none."""
    monkeypatch.setattr("poise.representation.training.multiplies_bf16", lambda device: native)


@pytest.mark.parametrize("native", [True, False])
def test_a_run_goes_on_in_what_auto_chose_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    multiplying(monkeypatch, native)
    settings = asked(precision="auto")
    calls = iter(range(99))
    with pytest.raises(StoppedError):
        trained(tmp_path, settings, should_stop=lambda: next(calls) == 2)
    multiplying(monkeypatch, not native)
    begun, here = ("bfloat16", "float32") if native else ("float32", "bfloat16")
    with pytest.warns(PoiseWarning) as said:
        again = trained(tmp_path, settings)
    assert f"begun in {begun} and goes on in it; on this machine auto would be {here}" in str(said[0].message)
    stated = "bf16" if native else "float32"
    multiplying(monkeypatch, native)
    whole = trained(tmp_path / "whole", asked(precision=stated))
    assert digest(again.network.state_dict()) == digest(whole.network.state_dict())


def test_a_run_that_does_not_say_how_it_was_begun_goes_on_as_this_machine_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    multiplying(monkeypatch, True)
    trained(tmp_path, asked(epochs=1, precision="auto"))
    saved = load_checkpoint(tmp_path)
    assert saved["known"]["data"].pop("bf16")
    save_checkpoint(tmp_path, saved)
    trained(tmp_path, asked(epochs=2, precision="auto"), allow_changed=True)  # warnings are errors here
    assert load_checkpoint(tmp_path)["known"]["data"]["bf16"]


def test_a_stated_precision_other_than_what_was_begun_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    multiplying(monkeypatch, True)
    trained(tmp_path, asked(precision="bf16"))
    trained(tmp_path, asked(precision="auto"))  # goes on in bfloat16
    with pytest.raises(InputError, match="precision was 'bf16' and is now 'float32'"):
        trained(tmp_path, asked(precision="float32"))


def test_bfloat16_where_the_machine_has_none_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    multiplying(monkeypatch, False)
    with pytest.warns(PoiseWarning, match="no instructions for bfloat16 and imitates them"):
        trained(tmp_path / "asked", asked(epochs=1, precision="bf16"))
    trained(tmp_path / "auto", asked(epochs=1, precision="auto"))  # warnings are errors here


def test_settings_that_a_checkpoint_does_not_know_had_their_defaults() -> None:
    now = Stage1().to_dict()
    before = {key: value for key, value in now.items() if key != "deferred_beta"}
    assert not changes(before, now)
    assert changes(before, {**now, "deferred_beta": 0.5}) == {"deferred_beta": (0.9999, 0.5)}
    assert changes({**now, "lr": 0.2}, now) == {"lr": (0.2, 0.1)}
    assert not changes({**now, "precision": "bf16"}, now)
    assert changes(now, {**now, "precision": "bf16"}) == {"precision": ("auto", "bf16")}
