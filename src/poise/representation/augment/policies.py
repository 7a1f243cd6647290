"""Augmentations that draw operations: AutoAugment, RandAugment, colour jitter."""

from collections.abc import Mapping
from functools import lru_cache, partial
from itertools import permutations
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poise.errors import InputError
from poise.representation.augment.augmentation import Augmentation
from poise.representation.augment.operations import NAMES, SHEARS, Shear, operate, operations
from poise.values.checks import check_inside, check_one_of, is_whole

PolicyName = Literal["cifar10", "imagenet"]
Draw = tuple[str, float, int]  # operation, probability, level of 0 ... 9 (0 where the operation has none)

# The policies that Cubuk et al. (CVPR 2019) found: two operations, one after the other, in each of 25 sub-policies.
POLICIES: Mapping[str, tuple[tuple[Draw, Draw], ...]] = MappingProxyType(
    {
        "cifar10": (
            (("invert", 0.1, 0), ("contrast", 0.2, 6)),
            (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
            (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
            (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
            (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
            (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
            (("color", 0.4, 3), ("brightness", 0.6, 7)),
            (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
            (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
            (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
            (("color", 0.7, 7), ("translate_x", 0.5, 8)),
            (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
            (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
            (("brightness", 0.9, 6), ("color", 0.2, 8)),
            (("solarize", 0.5, 2), ("invert", 0.0, 0)),
            (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
            (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
            (("color", 0.9, 9), ("equalize", 0.6, 0)),
            (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
            (("brightness", 0.1, 3), ("color", 0.7, 0)),
            (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
            (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
            (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
            (("equalize", 0.8, 0), ("invert", 0.1, 0)),
            (("translate_y", 0.7, 9), ("autocontrast", 0.9, 0)),
        ),
        "imagenet": (
            (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
            (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
            (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
            (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
            (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
            (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
            (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
            (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
            (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
            (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
            (("rotate", 0.8, 8), ("color", 0.4, 0)),
            (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
            (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
            (("invert", 0.6, 0), ("equalize", 1.0, 0)),
            (("color", 0.6, 4), ("contrast", 1.0, 8)),
            (("rotate", 0.8, 8), ("color", 1.0, 2)),
            (("color", 0.8, 8), ("solarize", 0.8, 7)),
            (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
            (("shear_x", 0.6, 5), ("equalize", 1.0, 0)),
            (("color", 0.4, 0), ("equalize", 0.6, 0)),
            (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
            (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
            (("invert", 0.6, 0), ("equalize", 1.0, 0)),
            (("color", 0.6, 4), ("contrast", 1.0, 8)),
            (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
        ),
    }
)

# RandAugment draws from these (Cubuk et al., NeurIPS 2020): all but inversion.
RANDOM = tuple(name for name in NAMES if name != "invert")
SIGNED = frozenset(
    ("shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast", "sharpness")
)
FACTORS = frozenset(("brightness", "color", "contrast", "sharpness"))


def _magnitude(name: str, level: int, levels: int, height: int, width: int) -> float:
    """How strong the operation is at `level` of 0 ... levels - 1: the scales of torchvision, float32 rounding too."""
    if name == "posterize":
        return 8 - round(level / ((levels - 1) / 4))
    ends = {
        "shear_x": (0.0, 0.3),
        "shear_y": (0.0, 0.3),
        "translate_x": (0.0, 150 / 331 * width),
        "translate_y": (0.0, 150 / 331 * height),
        "rotate": (0.0, 30.0),
        "solarize": (255.0, 0.0),
        **dict.fromkeys(FACTORS, (0.0, 0.9)),
    }
    first, last = ends.get(name, (0.0, 0.0))
    return float(torch.linspace(first, last, levels)[level])


class Table(NamedTuple):
    """Operations as arrays of one shape: index into NAMES, probability, and the strength for either sign."""

    kind: NDArray[np.int64]
    chance: NDArray[np.float64]
    down: NDArray[np.float64]
    up: NDArray[np.float64]


def _table(draws: tuple[Draw, ...], levels: int, height: int, width: int) -> Table:
    magnitude = np.array([_magnitude(name, level, levels, height, width) for name, _, level in draws])
    base = np.array([float(name in FACTORS) for name, _, _ in draws])
    sign = np.array([-1.0 if name in SIGNED else 1.0 for name, _, _ in draws])
    kinds = np.array([NAMES.index(name) for name, _, _ in draws])
    chances = np.array([chance for _, chance, _ in draws])
    return Table(kinds, chances, base + sign * magnitude, base + magnitude)


@lru_cache(maxsize=16)
def _policy_table(policy: str, height: int, width: int) -> Table:
    """The policy for images of this size, every array (50,): the operations of pair k are at 2 k and 2 k + 1."""
    return _table(tuple(draw for pair in POLICIES[policy] for draw in pair), 10, height, width)


def auto_augment(*, policy: PolicyName = "cifar10", fill: int = 0, shear: Shear = "nearest") -> Augmentation:
    """One of 25 pairs of operations, each with its probability and strength and a sign by chance.

    Cubuk et al., AutoAugment, CVPR 2019. Magnitudes are those of torchvision's AutoAugment. `fill` is the grey level,
    0 to 255, of places where a moved image shows nothing; `shear` is "nearest" or "bicubic". Defaults are those of
    torchvision (black, nearest); the code behind many long-tail papers, GALA's among them, has 128 and bicubic.

    Raises: InputError for an unknown policy or shear, or a grey level out of range.
    """
    check_one_of("policy", policy, POLICIES)
    check_one_of("shear", shear, SHEARS)
    if not is_whole(fill) or not 0 <= fill <= 255:
        raise InputError(f"fill must be a whole grey level from 0 to 255, got {fill!r}; 0 is black, 128 grey")
    name = f"auto_augment(fill={fill},policy={policy!r},shear={shear!r})"
    return Augmentation(name, 5, partial(_auto_augmented, policy=policy, fill=int(fill), shear=shear))


def _auto_augmented(images: Tensor, u: Tensor, *, policy: PolicyName, fill: int, shear: Shear) -> Tensor:
    table = _policy_table(policy, images.shape[-2], images.shape[-1])
    draws = u.cpu().numpy()
    pair = (draws[:, :1] * len(POLICIES[policy])).astype(np.int64)
    drawn = 2 * pair + np.arange(2)  # (B, 2)
    kinds = np.where(draws[:, 1:3] < table.chance[drawn], table.kind[drawn], -1)
    strengths = np.where(draws[:, 3:5] < 0.5, table.down[drawn], table.up[drawn])
    for k in range(2):
        images = operate(images, kinds[:, k], strengths[:, k], operations(fill, shear))
    return images


def rand_augment(*, n: int = 2, m: int = 10, levels: int = 31) -> Augmentation:
    """`n` operations drawn uniformly from 14, all at level `m` of 0 ... levels - 1 (Cubuk et al., NeurIPS 2020).

    Operations, magnitudes and signs are those of torchvision's RandAugment.

    Raises: InputError for numbers that are not whole or a level outside the range.
    """
    if not is_whole(n) or n < 1:
        raise InputError(f"n must be a whole number of operations of at least 1, got {n!r}")
    if not is_whole(levels) or levels < 2 or not is_whole(m) or not 0 <= m < levels:
        raise InputError(f"m must be a whole number in [0, levels), levels at least 2; got m={m!r}, levels={levels!r}")
    name = f"rand_augment(levels={levels},m={m},n={n})"
    return Augmentation(name, 2 * n, partial(_rand_augmented, m=m, levels=levels))


@lru_cache(maxsize=16)
def _random_table(m: int, levels: int, height: int, width: int) -> Table:
    return _table(tuple((name, 1.0, m) for name in RANDOM), levels, height, width)


def _rand_augmented(images: Tensor, u: Tensor, *, m: int, levels: int) -> Tensor:
    table = _random_table(m, levels, images.shape[-2], images.shape[-1])
    draws = u.cpu().numpy()
    for k in range(0, draws.shape[1], 2):
        drawn = (draws[:, k] * len(RANDOM)).astype(np.int64)
        strengths = np.where(draws[:, k + 1] < 0.5, table.down[drawn], table.up[drawn])
        images = operate(images, table.kind[drawn], strengths)
    return images


JITTERED = ("brightness", "contrast", "color")
ORDERS = np.array(list(permutations(range(3))))  # (6, 3)


def color_jitter(
    *, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.0
) -> Augmentation:
    """Brightness, contrast and saturation in random order, each by a factor uniform in [max(0, 1 - s), 1 + s].

    As torchvision's ColorJitter without hue.

    Raises: InputError for a strength below 0, or a hue other than 0.
    """
    given = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, strength in given.items():
        check_inside(name, strength, 0, float("inf"), "0.4 is usual")
    if hue != 0:
        raise InputError(f"hue of color_jitter is for photographs read one by one; batches take hue=0, got {hue!r}")
    text = ",".join(f"{key}={value!r}" for key, value in sorted({**given, "hue": hue}.items()))
    strengths = tuple(given.values())
    return Augmentation(f"color_jitter({text})", 4, partial(_jittered, strengths=strengths))


def _jittered(images: Tensor, u: Tensor, *, strengths: tuple[float, ...]) -> Tensor:
    draws = u.cpu().numpy()
    low, high = np.maximum(0.0, 1.0 - np.array(strengths)), 1.0 + np.array(strengths)
    factors = low + (high - low) * draws[:, 1:]  # (B, 3)
    order = ORDERS[(draws[:, 0] * len(ORDERS)).astype(np.int64)]  # (B, 3)
    kinds = np.array([NAMES.index(name) for name in JITTERED])
    for k in range(3):
        images = operate(images, kinds[order[:, k]], np.take_along_axis(factors, order[:, k : k + 1], 1)[:, 0])
    return images
