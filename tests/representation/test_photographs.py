"""Photographs one by one: what torchvision gives for the same seed, and nothing else that is random is touched."""

import inspect
import pickle
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from poise.errors import InputError, MissingExtraError
from poise.representation.augment import AUGMENTATIONS, SIZING
from poise.representation.augment.photographs import TRANSFORMS, eval_transform, train_transform

v2 = pytest.importorskip("torchvision.transforms.v2")

TEXTS = {
    "all": ("random_resized_crop", "flip", "color_jitter", "rand_augment", "auto_augment", "crop", "cutout(size=6)"),
    "none": (),
    "random_crop": ("random_crop", "flip"),
    **{name: (name,) for name in TRANSFORMS},
}
each = pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS.keys())


def photograph(width=48, height=40, seed=0):
    """An RGB image of smooth noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def pixels(image):
    """(3, H, W) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def seeded(transform, image, seed):
    """What a transform of torchvision gives with the global generator at `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return pixels(transform(image))


# --- what holds for all ----------------------------------------------------------------------------------------------


@each
def test_the_result_depends_on_the_image_and_the_seed_alone(texts):
    transform, image = train_transform(texts, 24), photograph()
    before = torch.get_rng_state()
    first = transform(image, 7)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.dtype == torch.uint8
    assert first.shape == (3, 24, 24)
    assert first.is_contiguous()
    torch.rand(3)
    assert torch.equal(transform(image, 7), first)
    assert torch.equal(pixels(image), pixels(photograph()))


@each
def test_a_transform_survives_pickling(texts):
    transform, image = train_transform(texts, 24), photograph()
    assert torch.equal(pickle.loads(pickle.dumps(transform))(image, 3), transform(image, 3))


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_seeds_give_different_images(name):
    transform = train_transform([name], 24)
    assert len({transform(photograph(), seed).numpy().tobytes() for seed in range(12)}) > 1


def test_the_generator_is_as_before_when_a_step_fails():
    def fails(_):
        torch.rand(1)
        raise ZeroDivisionError

    transform = train_transform([], 24)
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        type(transform)("fails", 24, (fails,))(photograph(), 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seed_may_have_63_bits():
    assert train_transform(["flip"], 24)(photograph(), 2**63 - 1).shape == (3, 24, 24)


# --- oracles ---------------------------------------------------------------------------------------------------------

INTERPOLATION = v2.InterpolationMode.BILINEAR
SQUARE = v2.Compose([v2.Resize(27, INTERPOLATION), v2.CenterCrop(24)])  # 24 / 0.875 is 27.4
SAME = {
    "auto_augment": [SQUARE, v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)],
    "auto_augment(policy='imagenet')": [SQUARE, v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET)],
    "color_jitter": [SQUARE, v2.ColorJitter(0.4, 0.4, 0.4)],
    "color_jitter(hue=0.2,contrast=0)": [SQUARE, v2.ColorJitter(0.4, 0, 0.4, 0.2)],
    "crop": [SQUARE, v2.Pad(4), v2.RandomCrop(24)],
    "crop(pad=2,mode='reflect')": [SQUARE, v2.Pad(2, padding_mode="reflect"), v2.RandomCrop(24)],
    "flip": [SQUARE, v2.RandomHorizontalFlip()],
    "rand_augment(n=3,m=7)": [SQUARE, v2.RandAugment(3, 7, 31)],
    "random_crop": [v2.Resize(27, INTERPOLATION), v2.RandomCrop(24)],
    "random_resized_crop": [v2.RandomResizedCrop(24)],
    "random_resized_crop(scale=(0.5,0.6),ratio=(1,2))+flip": [
        v2.RandomResizedCrop(24, (0.5, 0.6), (1, 2)),
        v2.RandomHorizontalFlip(),
    ],
}


@pytest.mark.parametrize(("text", "theirs"), SAME.items(), ids=SAME)
def test_a_step_is_that_of_torchvision_at_the_same_seed(text, theirs):
    transform = train_transform([text], 24)
    for seed in range(8):
        assert torch.equal(transform(photograph(), seed), seeded(v2.Compose(theirs), photograph(), seed))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_at_test_time_the_centre_is_cut_out(interpolation):
    image = photograph(60, 40)
    scaled = image.resize((48, 32), Image.Resampling[interpolation.upper()])
    centre = scaled.crop((10, 2, 38, 30))
    transform = eval_transform(28, crop=0.875, interpolation=interpolation)
    assert torch.equal(transform(image), pixels(centre))
    assert torch.equal(transform(image, 5), transform(image))


def test_an_image_of_the_right_size_passes_unchanged():
    image = photograph(24, 24)
    assert torch.equal(eval_transform(24, crop=1.0)(image), pixels(image))
    assert torch.equal(train_transform([], 24, crop=1.0)(image, 3), pixels(image))


@pytest.mark.parametrize("size", [(5, 300), (300, 5), (1, 1)])
def test_images_of_any_size_become_squares(size):
    for transform in (eval_transform(24), train_transform(["random_resized_crop"], 24), train_transform(["crop"], 24)):
        assert transform(photograph(*size)).shape == (3, 24, 24)


def test_a_hole_lies_anywhere_and_is_black():
    transform = train_transform(["cutout(size=6)"], 16, crop=1.0)
    white = Image.new("RGB", (16, 16), (255, 255, 255))
    holes = torch.stack([transform(white, seed) for seed in range(600)]) == 0  # (600, 3, 16, 16)
    assert torch.equal(holes.all(1), holes.any(1))
    areas = holes[:, 0].sum((1, 2))
    assert areas.max() == 36
    assert areas.min() >= 9  # a corner keeps at least a quarter
    assert holes[:, 0].any(0).all()


# --- names -----------------------------------------------------------------------------------------------------------


def test_names_and_defaults_are_those_of_batches():
    assert set(TRANSFORMS) == {*AUGMENTATIONS, *SIZING}
    for name, factory in AUGMENTATIONS.items():
        ours, theirs = (inspect.signature(made).parameters for made in (TRANSFORMS[name], factory))
        assert {key: p.default for key, p in ours.items()} == {key: p.default for key, p in theirs.items()}


def test_the_name_of_a_transform_reads_back():
    transform = train_transform(["random_resized_crop(scale=(0.2,1.0))", "flip+cutout(size=3)"], 24)
    assert transform.name == "random_resized_crop(scale=(0.2,1.0,))+flip+cutout(size=3)"
    assert torch.equal(train_transform([transform.name], 24)(photograph(), 1), transform(photograph(), 1))


REFUSED = {
    ("flop",): "no augmentation is called 'flop', did you mean 'flip'?; there are auto_augment, color_jitter, crop, "
    "cutout, flip, rand_augment, random_crop, random_resized_crop",
    ("flip", "random_crop"): "random_crop makes the square of 24 pixels and must come first; it follows another",
    ("crop(pad=0)",): "pad must be a whole number of pixels of at least 1, got 0; 4 is usual for 32 x 32",
    ("crop(pad=24,mode='reflect')",): "crop cannot mirror 24 pixels of images of 24; use a smaller pad",
    ("color_jitter(hue=0.6)",): "hue must lie in [0, 0.5], the share of the colour circle to either side, got 0.6",
    ("random_resized_crop(scale=0.5)",): "scale must be two ascending positive numbers such as (0.5,1.0), got 0.5",
    ("random_resized_crop(ratio=(2,1))",): "ratio must be two ascending positive numbers such as (0.5,1.0), got (2, 1)",
    ("random_resized_crop(scale=(0.5,2))",): "scale is a share of the image, at most 1, got (0.5, 2)",
}


@pytest.mark.parametrize(("texts", "said"), REFUSED.items(), ids=map(str, REFUSED))
def test_what_cannot_be_is_refused_with_the_remedy(texts, said):
    with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
        train_transform(texts, 24)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 0}, "size must be a whole number of pixels of at least 1, got 0"),
        ({"size": 24, "crop": 1.2}, "crop must lie in (0, 1], the share of the shorter side that is kept, got 1.2"),
        (
            {"size": 24, "interpolation": "cubic"},
            "interpolation must be one of bilinear, bicubic, lanczos; got 'cubic'",
        ),
    ],
)
def test_a_view_that_cannot_be_is_refused(settings, said):
    with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
        eval_transform(**settings)


def test_an_image_that_is_not_rgb_is_refused():
    said = "transforms take RGB images, got one of mode L; use image.convert('RGB')"
    with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
        eval_transform(24)(photograph().convert("L"))


def test_without_torchvision_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.transforms", None)
    said = "transforms of photographs need torchvision: pip install 'poise[vision]'"
    with pytest.raises(MissingExtraError, match=f"^{re.escape(said)}$"):
        eval_transform(24)
