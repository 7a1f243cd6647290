"""Batched augmentation: the bytes of torchvision, image by image, and each image a function of its own numbers."""

import math
import pickle
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from poise.errors import InputError
from poise.representation.augment import (
    AUGMENTATIONS,
    auto_augment,
    beta_share,
    chain,
    color_jitter,
    crop,
    cutout,
    flip,
    normalised,
    parse,
    rand_augment,
)
from poise.representation.augment.operations import NAMES, OPERATIONS, operate, operations
from poise.representation.augment.policies import FACTORS, POLICIES, RANDOM, SIGNED, _magnitude
from poise.values.randomness import uniforms

EVERY = {
    "auto_augment cifar10": auto_augment(),
    "auto_augment imagenet": auto_augment(policy="imagenet"),
    "chain": chain([crop(), flip(), auto_augment(), cutout()]),
    "color_jitter": color_jitter(),
    "crop": crop(),
    "crop reflect": crop(pad=3, mode="reflect"),
    "cutout": cutout(),
    "flip": flip(),
    "none": chain([]),
    "rand_augment": rand_augment(),
}
every = pytest.mark.parametrize("augmentation", EVERY.values(), ids=EVERY.keys())
TORCHVISION = {
    "identity": "Identity",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "rotate": "Rotate",
    "brightness": "Brightness",
    "color": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
    "invert": "Invert",
}


def noise(n=6, height=32, width=32, seed=0):
    """Images (n, 3, H, W) of independent grey levels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, height, width), generator=generator, dtype=torch.uint8)


def pictures(n=6, height=32, width=32, seed=0):
    """Smooth images (n, 3, H, W) of low contrast; the first is of one grey level."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 5, 5, generator=generator)
    smooth = interpolate(coarse, size=(height, width), mode="bilinear") * torch.rand(n, 3, 1, 1, generator=generator)
    images = (smooth * 255).to(torch.uint8)
    images[0] = 77
    return images


def numbers(augmentation, n, *words):
    """u (n, draws) for rows 0 ... n - 1."""
    return uniforms(augmentation.draws, torch.arange(n), *(words or (0, 0)))


def torchvision_op(images, name, magnitude):
    """What torchvision's AutoAugment does with each image alone."""
    autoaugment = pytest.importorskip("torchvision.transforms.autoaugment")
    nearest = autoaugment.InterpolationMode.NEAREST
    black = [0.0, 0.0, 0.0]
    return torch.stack([autoaugment._apply_op(i, TORCHVISION[name], magnitude, nearest, black) for i in images])


def all_magnitudes(name, levels, height, width):
    """Every magnitude of an operation, both signs where it has two."""
    values = {_magnitude(name, level, levels, height, width) for level in range(levels)}
    return sorted(values | {-value for value in values}) if name in SIGNED else sorted(values)


def halfway(name, magnitude, height, width):
    """(H, W): pixels of the result whose source lies halfway between two pixels, which rounding decides."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing="ij"
    )
    sources = OPERATIONS[name].keywords["source"](x, y, torch.tensor(magnitude, dtype=torch.float64))
    return sum(((source % 1 - 0.5).abs() < 1e-5) for source in sources) > 0


# --- operations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [noise(), pictures(), noise(3, 17, 22), noise(3, 2, 5)], ids=lambda x: x.shape)
@pytest.mark.parametrize("name", NAMES)
def test_an_operation_gives_the_bytes_of_torchvision_except_halfway_between_pixels(name, images):
    size = images.shape[-2:]
    for magnitude in {*all_magnitudes(name, 10, *size), *all_magnitudes(name, 31, *size)}:
        strength = torch.full((len(images),), magnitude + (name in FACTORS), dtype=torch.float64)
        differ = OPERATIONS[name](images, strength) != torchvision_op(images, name, magnitude)
        if differ.any():  # never for the operations on grey levels, and only there for the others
            assert not (differ & ~halfway(name, magnitude, *size)).any()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"shear_x", "shear_y", "rotate"}])
def test_the_newer_functions_of_torchvision_differ_by_at_most_one_grey_level(name):
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    newer = {
        "brightness": functional.adjust_brightness,
        "color": functional.adjust_saturation,
        "contrast": functional.adjust_contrast,
        "sharpness": functional.adjust_sharpness,
        "posterize": lambda image, bits: functional.posterize(image, int(bits)),
        "solarize": functional.solarize,
        "autocontrast": lambda image, _: functional.autocontrast(image),
        "equalize": lambda image, _: functional.equalize(image),
        "invert": lambda image, _: functional.invert(image),
        "identity": lambda image, _: image,
        "translate_x": lambda image, t: functional.affine(image, 0, [int(t), 0], 1, [0, 0], fill=0),
        "translate_y": lambda image, t: functional.affine(image, 0, [0, int(t)], 1, [0, 0], fill=0),
    }
    images = torch.cat([noise(), pictures()])
    for magnitude in all_magnitudes(name, 10, 32, 32):
        value = magnitude + (name in FACTORS)
        ours = OPERATIONS[name](images, torch.full((len(images),), value, dtype=torch.float64))
        theirs = torch.stack([newer[name](image, value) for image in images])
        assert (ours.int() - theirs.int()).abs().max() <= 1  # they round a product and a sum at once


@pytest.mark.parametrize("name", sorted(SIGNED))
def test_an_operation_without_strength_changes_nothing(name):
    images = noise()
    none = torch.full((len(images),), float(name in FACTORS), dtype=torch.float64)
    assert torch.equal(OPERATIONS[name](images, none), images)


def pillow_moved(image, coefficients, resample, fill):
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    moved = picture.transform(picture.size, Image.Transform.AFFINE, coefficients, resample, fillcolor=(fill,) * 3)
    return torch.from_numpy(np.array(moved)).permute(2, 0, 1)


@pytest.mark.parametrize("images", [noise(), pictures(), noise(3, 17, 22), noise(2, 2, 5)], ids=lambda x: x.shape)
@pytest.mark.parametrize("fill", [0, 128])
def test_a_bicubic_shear_gives_the_grey_levels_of_pillow(images, fill):
    table = operations(fill, "bicubic")
    for slope in (-0.3, -0.1, 0.0, 0.2, 0.3, 1.7):
        strength = torch.full((len(images),), slope, dtype=torch.float64)
        for name, coefficients in (("shear_x", (1, slope, 0, 0, 1, 0)), ("shear_y", (1, 0, 0, slope, 1, 0))):
            expected = [pillow_moved(i, coefficients, Image.Resampling.BICUBIC, fill) for i in images]
            off = (table[name](images, strength).int() - torch.stack(expected).int()).abs()
            # A level that is whole up to the last digit of its place is cut off on either side of it.
            assert off.max() <= 1, (name, slope)
            assert (off > 0).double().mean() < 1e-3, (name, slope)


@pytest.mark.parametrize("name", ["shear_x", "shear_y", "translate_x", "translate_y", "rotate"])
def test_the_fill_is_where_a_moved_image_shows_nothing(name):
    white = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    strength = torch.tensor([0.3 if "shear" in name else 9.0], dtype=torch.float64)
    black, grey = (operations(fill)[name](white, strength) for fill in (0, 128))
    nothing = black == 0
    assert nothing.any()
    assert torch.equal(grey, white.masked_fill(nothing, 128))
    images = noise(1)
    assert torch.equal(operations(128)[name](images, strength)[~nothing], OPERATIONS[name](images, strength)[~nothing])


def test_operations_that_move_nothing_do_not_depend_on_fill_and_shear():
    for name in set(NAMES) - {"shear_x", "shear_y", "translate_x", "translate_y", "rotate"}:
        assert operations(128, "bicubic")[name] is OPERATIONS[name]


def test_auto_augment_hands_fill_and_shear_to_its_operations():
    images = pictures(1)
    pair = next(k for k, draws in enumerate(POLICIES["cifar10"]) if draws[0][0] == "shear_y")
    u = torch.tensor([[(pair + 0.5) / 25, 0.0, 0.99, 0.7, 0.7]], dtype=torch.float64)
    slope = torch.tensor([_magnitude("shear_y", POLICIES["cifar10"][pair][0][2], 10, 32, 32)], dtype=torch.float64)
    for fill, shear in ((0, "nearest"), (128, "nearest"), (128, "bicubic")):
        expected = operations(fill, shear)["shear_y"](images, slope)
        assert torch.equal(auto_augment(fill=fill, shear=shear)(images, u), expected)


def test_a_quarter_turn_is_a_quarter_turn():
    images = noise(2, 9, 9)
    turned = OPERATIONS["rotate"](images, torch.tensor([90.0, -90.0], dtype=torch.float64))
    assert torch.equal(turned[0], images[0].rot90(1, (-2, -1)))
    assert torch.equal(turned[1], images[1].rot90(-1, (-2, -1)))


def test_every_image_has_its_own_operation_and_strength():
    images = noise(len(NAMES) + 1)
    kinds = torch.arange(-1, len(NAMES)).numpy()
    strengths = torch.linspace(0.5, 2.5, len(kinds), dtype=torch.float64).numpy()
    result = operate(images, kinds, strengths)
    assert torch.equal(result[0], images[0])
    for k, name in enumerate(NAMES, start=1):
        strength = torch.tensor([strengths[k]], dtype=torch.float64)
        assert torch.equal(result[k : k + 1], OPERATIONS[name](images[k : k + 1], strength))


# --- what holds for all ----------------------------------------------------------------------------------------------


@every
def test_shape_and_type_stay_and_the_input_is_untouched(augmentation):
    images, u = noise(), numbers(augmentation, 6)
    before, drawn = images.clone(), u.clone()
    result = augmentation(images, u)
    assert result.dtype == torch.uint8
    assert result.shape == images.shape
    assert torch.equal(images, before)
    assert torch.equal(u, drawn)


@every
@pytest.mark.parametrize("size", [(32, 32), (9, 14)])
def test_an_image_depends_on_its_own_numbers_alone(augmentation, size):
    images, u = noise(24, *size), numbers(augmentation, 24)
    result = augmentation(images, u)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    assert torch.equal(augmentation(images[order], u[order]), result[order])
    for i in range(24):
        assert torch.equal(augmentation(images[i : i + 1], u[i : i + 1]), result[i : i + 1])


@every
def test_the_layout_in_memory_does_not_matter(augmentation):
    images, u = noise(), numbers(augmentation, 6)
    other = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(augmentation(other, u), augmentation(images, u))


@every
def test_an_augmentation_survives_pickling_and_an_empty_batch(augmentation):
    images, u = noise(), numbers(augmentation, 6)
    assert torch.equal(pickle.loads(pickle.dumps(augmentation))(images, u), augmentation(images, u))
    assert augmentation(images[:0], u[:0]).shape == (0, 3, 32, 32)


@every
def test_the_largest_number_below_one_and_zero_are_in_range(augmentation):
    images = noise()
    for value in (0.0, math.nextafter(1.0, 0.0)):
        u = torch.full((6, augmentation.draws), value, dtype=torch.float64)
        assert augmentation(images, u).shape == images.shape


# --- crop, flip, cutout ----------------------------------------------------------------------------------------------


def test_a_crop_in_the_middle_and_an_unflipped_image_are_the_image():
    images = noise()
    middle = torch.full((6, 2), 4.5 / 9, dtype=torch.float64)
    assert torch.equal(crop(pad=4)(images, middle), images)
    assert torch.equal(crop(pad=4, mode="reflect")(images, middle), images)
    assert torch.equal(flip()(images, torch.full((6, 1), 0.5, dtype=torch.float64)), images)
    assert torch.equal(flip()(images, torch.full((6, 1), 0.49, dtype=torch.float64)), images.flip(-1))


@pytest.mark.parametrize(("mode", "fourth"), [("zero", "constant"), ("reflect", "reflect")])
def test_all_crops_are_the_windows_of_the_padded_image(mode, fourth):
    images = noise(25, 6, 7)
    places = [(top, left) for top in range(5) for left in range(5)]
    u = (torch.tensor(places, dtype=torch.float64) + 0.5) / 5
    wide = torch.nn.functional.pad(images.float(), (2, 2, 2, 2), mode=fourth).to(torch.uint8)
    result = crop(pad=2, mode=mode)(images, u)
    for i, (top, left) in enumerate(places):
        assert torch.equal(result[i], wide[i, :, top : top + 6, left : left + 7])


def test_a_crop_worked_out_by_hand():
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3).expand(1, 3, 3, 3)
    corner = torch.zeros(1, 2, dtype=torch.float64)
    assert crop(pad=1)(image, corner)[0, 0].tolist() == [[0, 0, 0], [0, 1, 2], [0, 4, 5]]
    assert crop(pad=1, mode="reflect")(image, corner)[0, 0].tolist() == [[5, 4, 5], [2, 1, 2], [5, 4, 5]]


@pytest.mark.parametrize(
    ("size", "centre", "rows", "columns"),
    [(4, (4, 4), range(2, 6), range(2, 6)), (4, (0, 7), range(0, 2), range(5, 8)), (3, (4, 0), range(3, 6), range(2))],
)
def test_a_hole_is_black_and_cut_off_at_the_edges(size, centre, rows, columns):
    images = noise(1, 8, 8).clamp_min(1)
    u = (torch.tensor([centre], dtype=torch.float64) + 0.5) / 8
    black = cutout(size=size)(images, u) == 0
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[rows.start : rows.stop, columns.start : columns.stop] = True
    assert torch.equal(black, expected.expand(1, 3, 8, 8))


def test_flips_crops_and_holes_are_uniform():
    images, both = noise(1).expand(4000, -1, -1, -1), chain([flip(), cutout(size=1)])
    u = numbers(both, 4000)
    flipped = (flip()(images, u[:, :1]) == images.flip(-1)).flatten(1).all(1)
    assert 0.46 < flipped.float().mean() < 0.54  # five standard deviations of 4000 coins
    holes = (cutout(size=1)(torch.full_like(images, 9), u[:, 1:]) == 0)[:, 0]
    assert torch.equal(holes.sum((1, 2)), torch.ones(4000, dtype=torch.int64))
    assert (holes.sum(0) > 0).float().mean() > 0.95  # 4000 holes in 1024 places leave 2 % untouched


# --- policies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_the_policies_and_magnitudes_are_those_of_torchvision(policy):
    autoaugment = pytest.importorskip("torchvision.transforms.autoaugment")
    theirs = autoaugment.AutoAugment(autoaugment.AutoAugmentPolicy(policy))
    for pair, other in zip(POLICIES[policy], theirs.policies, strict=True):
        for (name, chance, level), (their_name, their_chance, their_level) in zip(pair, other, strict=True):
            assert (TORCHVISION[name], chance, level) == (their_name, their_chance, their_level or 0)
    check_space(theirs._augmentation_space(10, (28, 36)), 10)


def test_random_operations_and_their_magnitudes_are_those_of_torchvision():
    autoaugment = pytest.importorskip("torchvision.transforms.autoaugment")
    space = autoaugment.RandAugment()._augmentation_space(31, (28, 36))
    assert [TORCHVISION[name] for name in RANDOM] == list(space)
    check_space(space, 31)


def check_space(space, levels):
    ours = {TORCHVISION[name]: name for name in NAMES}
    for name, (magnitudes, signed) in space.items():
        assert (ours[name] in SIGNED) == signed
        if magnitudes.ndim:
            assert [_magnitude(ours[name], k, levels, 28, 36) for k in range(levels)] == magnitudes.tolist()


@pytest.mark.parametrize("policy", POLICIES)
def test_every_pair_of_a_policy_gives_the_bytes_of_torchvision(policy):
    pytest.importorskip("torchvision")
    images = pictures(2)
    for pair, draws in enumerate(POLICIES[policy]):
        for signs in ((0.2, 0.2), (0.2, 0.7), (0.7, 0.2), (0.7, 0.7)):
            u = torch.tensor([[(pair + 0.5) / 25, 0.0, 0.0, *signs]] * 2, dtype=torch.float64)
            expected = images
            for (name, chance, level), sign in zip(draws, signs, strict=True):
                magnitude = _magnitude(name, level, 10, 32, 32) * (-1 if name in SIGNED and sign < 0.5 else 1)
                expected = torchvision_op(expected, name, magnitude) if chance > 0 else expected
            assert torch.equal(auto_augment(policy=policy)(images, u), expected)


def test_an_operation_of_a_policy_is_applied_below_its_probability():
    images = pictures(4)
    first = POLICIES["cifar10"][1]  # rotate with 0.7, translate_x with 0.3
    assert [chance for _, chance, _ in first] == [0.7, 0.3]
    u = torch.tensor([[1.5 / 25, p, q, 0.9, 0.9] for p in (0.69, 0.71) for q in (0.29, 0.31)], dtype=torch.float64)
    turned = torchvision_op(images, "rotate", _magnitude("rotate", 2, 10, 32, 32))
    shift = _magnitude("translate_x", 9, 10, 32, 32)
    expected = [
        torchvision_op(turned[:1], "translate_x", shift)[0],
        turned[1],
        torchvision_op(images[2:3], "translate_x", shift)[0],
        images[3],
    ]
    assert torch.equal(auto_augment()(images, u), torch.stack(expected))


def test_random_operations_follow_one_another():
    images = pictures(2)
    invertible = [RANDOM.index(name) for name in ("posterize", "brightness")]
    u = torch.tensor([[(invertible[0] + 0.5) / 14, 0.9, (invertible[1] + 0.5) / 14, 0.1]] * 2, dtype=torch.float64)
    expected = torchvision_op(images, "posterize", _magnitude("posterize", 10, 31, 32, 32))
    expected = torchvision_op(expected, "brightness", -_magnitude("brightness", 10, 31, 32, 32))
    assert torch.equal(rand_augment(n=2, m=10)(images, u), expected)


def test_jitter_in_every_order_is_that_of_torchvision():
    functional = pytest.importorskip("torchvision.transforms.functional")
    change = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    images = pictures(6)
    u = torch.tensor([[(k + 0.5) / 6, 0.25, 0.5, 0.875] for k in range(6)], dtype=torch.float64)
    factors = (0.8, 1.0, 1.3)  # 1 - 0.4 + 0.8 u, and 1 - 0.4 + 0.8 * 0.875
    result = color_jitter()(images, u)
    for image, order, ours in zip(images, orders, result, strict=True):
        for k in order:
            image = change[k](image, factors[k])
        assert torch.equal(ours, image)


def test_jitter_of_no_strength_changes_nothing():
    images, none = noise(), color_jitter(brightness=0, contrast=0, saturation=0)
    assert torch.equal(none(images, numbers(none, 6)), images)


# --- texts -----------------------------------------------------------------------------------------------------------


def test_texts_name_the_chain_and_its_name_reads_back():
    images = noise()
    texts = ("crop(pad=2,mode='reflect')", "flip", "auto_augment", "color_jitter(hue=0)+cutout(size=8)")
    parsed = parse(texts)
    made = chain([crop(pad=2, mode="reflect"), flip(), auto_augment(), color_jitter(), cutout(size=8)])
    u = numbers(made, 6)
    assert parsed.draws == made.draws == 2 + 1 + 5 + 4 + 2
    assert torch.equal(parsed(images, u), made(images, u))
    assert parse([parsed.name]).name == parsed.name
    assert torch.equal(parse([made.name])(images, u), made(images, u))


def test_parts_of_a_chain_have_columns_of_their_own():
    images, u = noise(), numbers(chain([crop(), flip(), cutout()]), 6)
    step_by_step = cutout()(flip()(crop()(images, u[:, :2]), u[:, 2:3]), u[:, 3:])
    assert torch.equal(chain([crop(), flip(), cutout()])(images, u), step_by_step)
    assert torch.equal(chain([chain([crop(), flip()]), cutout()])(images, u), step_by_step)


def test_no_text_changes_nothing():
    assert parse(()).draws == 0
    assert torch.equal(parse(())(noise(), torch.empty(6, 0, dtype=torch.float64)), noise())


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_name_of_the_table_works_without_parameters(name):
    augmentation = parse([name])
    assert augmentation.name.split("(")[0] == name
    assert augmentation(noise(), numbers(augmentation, 6)).shape == (6, 3, 32, 32)


KNOWN = "auto_augment, color_jitter, crop, cutout, flip, rand_augment"
REFUSED = {
    "flop": f"no augmentation is called 'flop', did you mean 'flip'?; there are {KNOWN}",
    "crop(pat=4)": "crop has no parameter 'pat', did you mean 'pad'?; it takes pad, mode",
    "flip(p=0.5)": "flip has no parameter 'p'; it takes none",
    "crop(pad=0)": "pad must be a whole number of pixels of at least 1, got 0; 4 is usual for 32 x 32",
    "crop(mode='edge')": "mode must be one of zero, reflect; got 'edge'",
    "cutout(size=0.5)": "size must be a whole number of pixels of at least 1, got 0.5; 16 is usual for 32 x 32",
    "auto_augment(policy='svhn')": "policy must be one of cifar10, imagenet; got 'svhn'",
    "auto_augment(fill=256)": "fill must be a whole grey level from 0 to 255, got 256; 0 is black, 128 grey",
    "auto_augment(fill=0.5)": "fill must be a whole grey level from 0 to 255, got 0.5; 0 is black, 128 grey",
    "auto_augment(shear='cubic')": "shear must be one of nearest, bicubic; got 'cubic'",
    "rand_augment(n=0)": "n must be a whole number of operations of at least 1, got 0",
    "rand_augment(m=31)": "m must be a whole number in [0, levels), levels at least 2; got m=31, levels=31",
    "color_jitter(contrast=-1)": "contrast must lie in [0, inf), got -1; 0.4 is usual",
    "color_jitter(hue=0.1)": "hue of color_jitter is for photographs read one by one; batches take hue=0, got 0.1",
    "random_resized_crop": "random_resized_crop is for photographs of different sizes, not for images that are all of "
    "one size; use crop(pad=4) or leave it out",
}


@pytest.mark.parametrize(("text", "said"), REFUSED.items(), ids=REFUSED)
def test_what_cannot_be_is_refused_with_the_remedy(text, said):
    with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
        parse(["flip", text])


def test_one_text_is_no_list_of_texts():
    said = "augmentations are a list of texts, got the text 'flip'; write ['flip']"
    with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
        parse("flip")


def test_images_and_numbers_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"takes uint8 images \(B, 3, H, W\), got torch.float32 \(6, 3, 32, 32\)"):
        flip()(noise().float(), torch.zeros(6, 1))
    with pytest.raises(InputError, match=r"^flip needs u of shape \(6, 1\), got \(6, 2\)$"):
        flip()(noise(), torch.zeros(6, 2))
    with pytest.raises(InputError, match="cannot mirror 4 pixels of images of 4 x 9; use a smaller pad"):
        crop(mode="reflect")(noise(1, 4, 9), torch.zeros(1, 2))


# --- batches ---------------------------------------------------------------------------------------------------------

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def test_normalised_values_are_those_of_the_formula():
    images = noise()
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, STD))
    expected = (images.double() / 255 - mean) / std
    result = normalised(images, MEAN, STD)
    assert result.dtype == torch.float32
    assert (result - expected).abs().max() < 1e-6  # values up to 2.1 in float32
    last = normalised(images, mean.flatten(), std.flatten(), channels_last=True)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, result)
    assert torch.equal(normalised(images, MEAN, STD, torch.bfloat16), result.bfloat16())


@pytest.mark.parametrize(
    ("mean", "std"), [((0.5,), STD), (MEAN, (0.2, 0.2, 0.0)), ((0.5, 0.5, math.nan), STD), (MEAN, (1.0, 1.0))]
)
def test_a_mean_or_std_that_cannot_be_is_refused(mean, std):
    with pytest.raises(InputError, match=r"^mean and std are three numbers each, std positive; got "):
        normalised(noise(), mean, std)


def test_normalised_refuses_what_is_normalised_already():
    with pytest.raises(InputError, match=r"^normalised takes uint8 images"):
        normalised(noise().float(), MEAN, STD)


def test_shares_are_beta_distributed_and_depend_on_their_key_alone():
    shares = torch.tensor([beta_share(0.2, 5, step) for step in range(2000)])
    # Beta(a, a) has the variance 1 / (4 (2 a + 1)); the bounds are five standard errors.
    assert shares.mean().sub(0.5).abs() < 5 * (0.1786 / 2000) ** 0.5
    assert shares.var().sub(0.1786).abs() < 0.01
    assert beta_share(0.2, 5, 7) == shares[7]
    assert beta_share(0.2, 6, 7) != shares[7]
    with pytest.raises(InputError, match=r"^alpha must be positive and finite, got 0$"):
        beta_share(0, 1)
