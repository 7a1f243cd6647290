"""The shipped recipes: each loads, builds, says what is unknown, and holds the numbers that its sources give."""

import math
import re
from dataclasses import fields
from importlib.resources import files

import pytest
import torch

from poise.commands.config import Config, config_hash, differences, dump_config, load_config, recipes
from poise.commands.config.text import parsed
from poise.data.long_tails import long_tailed
from poise.data.samples.sample_set import Samples
from poise.heads.plan import learning_rates
from poise.methods import from_spec, is_trained, settings
from poise.methods.published import published
from poise.profiles import SPLITS, exponential
from poise.representation import augment
from poise.representation.augment.photographs import TRANSFORMS
from poise.representation.settings import Stage1
from poise.values.spec import Spec

NAMES = list(recipes())
# Those that run a study on a known data set; the others are starting points for data of one's own.
STUDIES = [name for name in NAMES if re.search("cifar|imagenet|inaturalist|places", name)]


def text_of(name: str) -> str:
    return (files("poise") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def stage1_of(name: str) -> Stage1:
    settings = load_config(name).stage1
    assert settings is not None
    return settings


# --- all of them -----------------------------------------------------------------------------------------------------


def test_there_is_a_recipe_for_every_paper_and_data_set() -> None:
    expected = {
        *(f"decoupling_{data}" for data in ("cifar10_lt", "cifar100_lt", "imagenet_lt", "inaturalist18", "places_lt")),
        *(f"weight_balancing_cifar100_lt_if{imbalance}" for imbalance in (10, 50, 100)),
        *(f"weight_balancing_{data}" for data in ("imagenet_lt", "inaturalist18")),
        *(f"gala_cifar100_lt_if{imbalance}" for imbalance in (10, 50, 100, 200)),
        *(f"gala_{data}" for data in ("cifar10_lt", "imagenet_lt", "inaturalist18", "places_lt")),
        *(f"los_cifar100_lt_if{imbalance}" for imbalance in (10, 50, 100)),
        *(f"los_{data}" for data in ("imagenet_lt", "inaturalist18")),
        *("ce_cifar100_lt", "ce_autoaugment_cifar100_lt"),
        *("weight_balancing_cifar100_lt_if100_paper", "gala_cifar100_lt_if100_paper", "decoupling_inaturalist18_paper"),
        "decoupling_cifar100_lt_deconfound",
        "gcl_cifar100_lt_if100",
    }
    assert set(STUDIES) == expected
    assert sorted(NAMES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_has_a_name_a_title_a_source_and_a_head_of_comments(name: str) -> None:
    config, text = load_config(name), text_of(name)
    assert config.recipe == name
    assert config.title == recipes()[name] != ""
    assert text.startswith("# ")
    assert text.endswith("\n")
    assert max(map(len, text.splitlines())) <= 120
    if config.source.form == "own":
        assert config.source.reference is None
        return
    bibliography = (files("poise") / "references.bib").read_text(encoding="utf-8")
    assert f"{{{config.source.reference}," in bibliography
    assert config.unknown, "no source of these papers gives everything"


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_names_no_place_and_survives_a_round_trip(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    config = load_config(name)
    assert (config.data.test, config.data.held_out, config.backbone.weights) == (None,) * 3
    assert config.data.train in (None, "demo:glyphs")
    path = tmp_path_factory.mktemp("recipe") / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config


def test_no_two_recipes_are_the_same_run() -> None:
    assert len({config_hash(load_config(name)) for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_seeded_by_one_override(name: str) -> None:
    config = load_config(name, ["stage1.seed=3"])
    assert config.stage1 is not None
    assert config.stage1.seed == 3
    if load_config(name).stage1 is not None:
        assert [key for key, _, _ in differences(load_config(name), config)] == ["stage1.seed"]


@pytest.mark.parametrize("name", STUDIES)
def test_augmentations_suit_the_images(name: str) -> None:
    config = load_config(name)
    texts = config.extract.augment or (config.stage1.augment if config.stage1 else ())
    if "cifar" in name:
        assert augment.parse(texts).draws > 0
        return
    specs = [Spec.parse(text) for text in texts]
    assert specs[0].name == "random_resized_crop"  # it makes the square, so it comes first
    for spec in specs:
        TRANSFORMS[spec.name](**dict(spec.params))


@pytest.mark.parametrize("name", [name for name in STUDIES if "cifar" in name])
def test_profiles_cut_the_counts_that_papers_print(name: str) -> None:
    data = load_config(name).data
    assert data.profile is not None
    classes = 10 if "cifar10_" in name else 100
    n_max = 50_000 // classes
    everything = Samples(_Nothing(50_000), torch.arange(50_000) % classes, tuple(map(str, range(classes))))
    tail = long_tailed(everything, data.profile, order=data.order, class_order=data.class_order)
    found = re.search(r"if(\d+)", name)
    imbalance = int(found[1]) if found else 100
    assert torch.equal(tail.counts, exponential(n_max, classes, imbalance))
    printed = {200: 9502, 100: 10847, 50: 12608, 10: 19573}[imbalance] if classes == 100 else 12406
    assert len(tail.rows) == printed


class _Nothing:
    """Samples that are only counted."""

    kind = "image"

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


@pytest.mark.parametrize("name", NAMES)
def test_a_published_head_is_stated_as_in_the_table_of_published_heads(name: str) -> None:
    """Recipes and `poise methods` must not contradict each other; heads with a learning rate are quotations."""
    methods = load_config(name).heads.methods
    quoted = [Spec.parse(text) for text in methods if "lr=" in text] if methods != "auto" else []
    for spec in quoted:
        first = spec.steps[0]
        same = [row for row in published(first.name) if settings(row.spec) == settings(first)]
        assert same or (name, first.name) in VARIANTS, f"{first} is not in methods.published"


VARIANTS = {("decoupling_inaturalist18_paper", "crt"), ("decoupling_cifar100_lt_deconfound", "lws")}


@pytest.mark.parametrize("name", NAMES)
def test_a_head_sees_a_fresh_view_in_every_epoch_where_its_epochs_are_stated(name: str) -> None:
    config = load_config(name)
    methods = config.heads.methods if config.heads.methods != "auto" else ()
    epochs = [
        value
        for text in methods
        for step in Spec.parse(text).steps
        for key, value in step.params
        if is_trained(step.name) and key == "epochs"
    ]
    limit = 10 if "inaturalist18" in name else math.inf  # 30 views of 437,513 images would be 50 GB
    assert config.extract.views >= min(max(epochs, default=0), limit)


# --- the numbers, copied from the sheets of the papers by hand -------------------------------------------------------


KANG = {
    "epochs": 90,
    "batch_size": 512,
    "lr": 0.2,
    "momentum": 0.9,
    "nesterov": False,
    "drop_last": True,
    "warmup_epochs": 0,
}
WB = {
    "batch_size": 64,
    "lr": 0.01,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 5e-3,
    "warmup_epochs": 0,
    "drop_last": False,
}
GALA = {
    "batch_size": 64,
    "epochs": 200,
    "lr": 0.1,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 5e-4,
    "drop_last": True,
}
GCL = {
    "loss": "gcl(noise=0.5,margin=0.0,scale=30.0,gamma=0.0)",
    "head": "cosine(scale=30.0)",
    "batch_size": 64,
    "epochs": 200,
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 2e-4,
    "warmup_epochs": 5,
}
CE = {
    "epochs": 200,
    "lr": 0.1,
    "weight_decay": 5e-4,
    "nesterov": True,
    "schedule": "cosine",
    "warmup_epochs": 5,
    "precision": "auto",
}
BAG_OF_TRICKS = {
    "epochs": 200,
    "batch_size": 128,
    "lr": 0.1,
    "weight_decay": 2e-4,
    "warmup_epochs": 5,
    "nesterov": True,
    "drop_last": True,
}
STAGE1: list[tuple[str, dict[str, object]]] = [
    ("decoupling_imagenet_lt", {**KANG, "weight_decay": 5e-4, "sampler": "instance", "loss": "cross_entropy"}),
    ("decoupling_inaturalist18", {**KANG, "weight_decay": 1e-4, "augment": ("random_resized_crop", "flip")}),
    ("decoupling_inaturalist18_paper", {**KANG, "weight_decay": 1e-4}),
    ("decoupling_places_lt", {"trained": "last_block", "epochs": 30, "frozen_statistics": False, "momentum": 0.9}),
    ("decoupling_cifar100_lt", BAG_OF_TRICKS),
    ("decoupling_cifar10_lt", BAG_OF_TRICKS),
    (
        "decoupling_cifar100_lt_deconfound",
        {
            "epochs": 90,
            "batch_size": 512,
            "lr": 0.2,
            "weight_decay": 1e-4,
            "drop_last": True,
            "schedule": "cosine_epoch_start",
            "augment": ("crop(pad=4)", "flip"),
        },
    ),
    ("weight_balancing_cifar100_lt_if100", {**WB, "epochs": 320, "schedule": "cosine_epoch_start", "seed": 0}),
    ("weight_balancing_cifar100_lt_if100_paper", {**WB, "epochs": 200}),
    ("weight_balancing_imagenet_lt", {**WB, "epochs": 200, "weight_decay": 5e-4}),
    ("weight_balancing_inaturalist18", {**WB, "epochs": 200, "weight_decay": 1e-4, "batch_size": 512}),
    ("gala_cifar100_lt_if100", {**GALA, "loss": "gala(lambda_pos=1.2,lambda_neg=0.9)", "mixup": 0.0}),
    ("gala_cifar10_lt", GALA),
    ("gcl_cifar100_lt_if100", GCL),
    ("los_cifar100_lt_if100", {**WB, "epochs": 200, "schedule": "cosine_epoch_end"}),
    ("ce_cifar100_lt", {**CE, "batch_size": 128, "augment": ("crop", "flip"), "seed": 1}),
    (
        "ce_autoaugment_cifar100_lt",
        {**CE, "batch_size": 64, "augment": ("crop", "flip", "auto_augment", "cutout(size=16)"), "seed": 2},
    ),
]


@pytest.mark.parametrize(("name", "values"), STAGE1, ids=[name for name, _ in STAGE1])
def test_stage1_holds_the_numbers_of_the_sources(name: str, values: dict[str, object]) -> None:
    stage1 = stage1_of(name)
    assert {key: getattr(stage1, key) for key in values} == values


@pytest.mark.parametrize("name", [name for name in STUDIES if load_config(name).stage1 is not None])
def test_every_number_of_momentum_sgd_is_written_down(name: str) -> None:
    """A reader sees what matters without knowing the defaults."""
    stated = set(parsed(text_of(name), name)["stage1"])
    assert {field.name for field in fields(Stage1)} >= stated
    needed = {"loss", "augment", "sampler", "epochs", "batch_size", "lr", "momentum", "nesterov", "weight_decay"}
    assert stated >= needed | {"schedule", "warmup_epochs"}


BACKBONES = {
    "decoupling_imagenet_lt": "timm:resnext50_32x4d",
    "decoupling_inaturalist18": "timm:resnet50",
    "decoupling_places_lt": "timm:resnet152.tv_in1k",
    "decoupling_cifar100_lt": "resnet32",
    "weight_balancing_cifar100_lt_if100": "resnet34_cifar",
    "gala_cifar100_lt_if100": "resnet32",
    "gala_imagenet_lt": "timm:resnet50",
    "gcl_cifar100_lt_if100": "resnet32",
    "los_cifar100_lt_if50": "resnet34_cifar",
    "ce_cifar100_lt": "resnet32",
}


@pytest.mark.parametrize(("name", "backbone"), BACKBONES.items())
def test_backbones_are_those_of_the_sources(name: str, backbone: str) -> None:
    assert load_config(name).backbone.name == backbone


@pytest.mark.parametrize("name", [name for name in STUDIES if "cifar" not in name])
def test_photographs_are_cut_as_224_of_256_pixels(name: str) -> None:
    backbone = load_config(name).backbone
    assert backbone.size == 224
    assert round(backbone.size / float(str(backbone.options["crop"]))) == 256


def test_steps_per_epoch_are_those_that_the_releases_have() -> None:
    for imbalance, steps in ((100, 170), (50, 197), (10, 306)):
        rows = int(SPLITS[f"cifar100_lt_if{imbalance}_first"].counts.sum())
        assert stage1_of(f"los_cifar100_lt_if{imbalance}").plan.steps(rows) == steps
    assert stage1_of("decoupling_imagenet_lt").plan.steps(115_846) == 226
    assert stage1_of("decoupling_inaturalist18").plan.steps(437_513) == 854
    assert stage1_of("decoupling_places_lt").plan.steps(62_500) == 244


def test_the_learning_rates_of_gala_are_those_of_its_release() -> None:
    rates = [row[0] for row in stage1_of("gala_cifar100_lt_if100").learning_rates(10_847)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[1] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)
    assert rates[2:] == sorted(rates[2:], reverse=True)


BAG_OF_TRICKS_RISE = [0.0467, 0.06, 0.0733, 0.0867, 0.1]


@pytest.mark.parametrize("name", ["decoupling_cifar100_lt", "decoupling_cifar10_lt"])
def test_the_learning_rate_of_bag_of_tricks_rises_from_a_third_and_falls_at_159_and_179(name: str) -> None:
    rates = [row[0] for row in stage1_of(name).learning_rates(10_847)]
    falls = [epoch for epoch in range(1, 200) if rates[epoch] < rates[epoch - 1]]
    assert falls == [159, 179]
    assert rates[:5] == pytest.approx(BAG_OF_TRICKS_RISE, abs=5e-5)
    assert [rates[epoch] for epoch in (5, 158, 159, 179)] == pytest.approx([0.1, 0.1, 1e-3, 1e-5])


@pytest.mark.parametrize("method", ["crt", "lws"])
def test_the_heads_of_bag_of_tricks_rise_likewise_and_fall_at_9_and_19(method: str) -> None:
    (row,) = [row for row in published(method) if row.note == "BagofTricks-LT"]
    plan = from_spec(row.spec).plan  # type: ignore[attr-defined]
    rates = learning_rates(plan, 1).flatten().tolist()
    assert rates[:5] == pytest.approx(BAG_OF_TRICKS_RISE, abs=5e-5)
    assert [epoch for epoch in range(1, 30) if rates[epoch] < rates[epoch - 1]] == [9, 19]
    assert (plan.nesterov, plan.drop_last, plan.weight_decay, plan.batch_size) == (True, True, 5e-4, 128)


MISLAS = {
    "CIFAR-100-LT IF 100, ResNet-32": (0.4, 0.1, 0.2, 2e-4, 128),
    "CIFAR-100-LT IF 50, ResNet-32": (0.3, 0.0, 0.1, 2e-4, 128),
    "CIFAR-100-LT IF 10, ResNet-32": (0.2, 0.0, 0.1, 2e-4, 128),
    "ImageNet-LT, ResNet-50": (0.3, 0.0, 0.05, 5e-4, 256),
    "Places-LT, ResNet-152": (0.4, 0.1, 0.05, 5e-4, 256),
    "iNaturalist 2018, ResNet-50": (0.3, 0.0, 0.05, 1e-4, 256),
}


def test_the_second_stage_of_mislas_has_six_rows() -> None:
    found = {}
    for row in published("label_aware_smoothing"):
        whole = settings(row.spec)
        keys = ("smooth_head", "smooth_tail", "lr_factor", "weight_decay", "batch_size")
        found[row.features] = tuple(whole[key] for key in keys)
        assert (whole["classifier"], whole["lr"], whole["epochs"]) == ("trained", 0.1, 10)
        assert (whole["schedule"], whole["sampler"], whole["start"]) == ("cosine_epoch_end", "class_balanced", "stage1")
    assert found == MISLAS


STARTS = {"los": "torch", "weight_balancing": "kaiming_torch_stem"}


@pytest.mark.parametrize("name", [n for n in STUDIES if load_config(n).backbone.name == "resnet34_cifar"])
def test_the_resnet34_of_a_recipe_starts_as_in_its_release(name: str) -> None:
    assert load_config(name).backbone.options["start"] == STARTS[name.partition("_cifar")[0]]


def test_the_learning_rate_of_gcl_is_a_tenth_after_epoch_160_and_a_hundredth_after_180() -> None:
    rates = [row[0] for row in stage1_of("gcl_cifar100_lt_if100").learning_rates(10_847)]
    falls = [epoch for epoch in range(6, 200) if rates[epoch] < rates[epoch - 1]]
    assert falls == [160, 180]
    assert [rates[epoch] for epoch in (4, 159, 160, 179, 180, 199)] == pytest.approx([0.1, 0.1, 1e-2, 1e-2, 1e-3, 1e-3])


def test_the_last_epoch_of_decoupling_has_learning_rate_zero() -> None:
    rates = [row[0] for row in stage1_of("decoupling_imagenet_lt").learning_rates(115_846)]
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)
    assert rates[0] == pytest.approx(0.2 / 2 * (1 + math.cos(math.pi / 90)))


def test_another_batch_size_scales_the_learning_rate_of_decoupling_as_its_authors_advise() -> None:
    settings = load_config("decoupling_imagenet_lt", ["stage1.batch_size=256"]).stage1
    assert settings is not None
    assert settings.scaled_lr == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("los_cifar100_lt_if100", "los_cifar100_lt_if50", {"data.profile"}),
        ("gala_cifar100_lt_if100", "gala_cifar100_lt_if10", {"data.profile"}),
        ("gala_cifar100_lt_if100", "gala_cifar100_lt_if100_paper", {"stage1.loss"}),
        (
            "weight_balancing_cifar100_lt_if100",
            "weight_balancing_cifar100_lt_if100_paper",
            {"stage1.epochs", "heads.methods"},
        ),
        ("decoupling_inaturalist18", "decoupling_inaturalist18_paper", {"heads.methods"}),
        ("decoupling_cifar100_lt", "decoupling_cifar10_lt", {"data.profile"}),
        (
            "ce_cifar100_lt",
            "ce_autoaugment_cifar100_lt",
            {"stage1.augment", "stage1.batch_size", "stage1.seed", "extract.views"},
        ),
    ],
)
def test_variants_differ_in_what_they_vary_alone(one: str, other: str, expected: set[str]) -> None:
    assert {key for key, _, _ in differences(load_config(one), load_config(other))} == expected


def test_held_out_rows_cost_the_cifar_splits_no_training_row() -> None:
    for name in STUDIES:
        held_out = load_config(name).data.held_out_rows
        assert held_out == (20 if "cifar" in name else 0.05 if "inaturalist18" in name else Config().data.held_out_rows)


def test_what_must_be_brought_along_is_said() -> None:
    needing = [
        name for name in NAMES if any("backbone.weights" in sentence for sentence in load_config(name).missing())
    ]
    assert needing == ["gala_imagenet_lt", "gala_inaturalist18", "gala_places_lt"]
