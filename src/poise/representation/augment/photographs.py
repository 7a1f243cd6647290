"""Photographs of any size, one by one, to eight-bit squares of one size: for training with random steps, and for tests.

    training = train_transform(("random_resized_crop", "flip", "rand_augment(n=2,m=10)"), size=224)
    pixels = training(image, seed_for(seed, epoch, row))  # poise.values.randomness

The steps are torchvision's (extra `vision`), on Pillow images. Names that `poise.representation.augment` has too mean
the same here, though Pillow rounds places and grey levels otherwise. Results stay uint8, so that little is moved;
`poise.representation.augment.normalised` follows on the batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from poise.errors import InputError
from poise.machine.libraries import needed
from poise.representation import augment
from poise.representation.augment.texts import built, steps
from poise.values.checks import check_one_of, is_number, is_whole

Interpolation = Literal["bilinear", "bicubic", "lanczos"]
Change = Callable[[Image], Image]


@dataclass(frozen=True)
class Transform:
    """RGB image -> uint8 (3, size, size), a pure function of the image and of `seed`; it can be pickled for workers.

    The state of torch's generator is untouched. Raises: InputError for an image that is not RGB.
    """

    name: str
    size: int
    changes: tuple[Change, ...]

    def __call__(self, image: Image, seed: int = 0) -> Tensor:
        """The pixels of the changed image; a seed is 0 or more and below 2^63."""
        if image.mode != "RGB":
            raise InputError(f"transforms take RGB images, got one of mode {image.mode}; use image.convert('RGB')")
        with _drawing_from(seed):
            for change in self.changes:
                image = change(image)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


@contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """Inside, torch's global generator, from which torchvision draws, begins at `seed`; afterwards it is as before."""
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)


class View(NamedTuple):
    """What is kept of a photograph: a square of `size`, of which `crop` says how much of the shorter side it is."""

    size: int
    crop: float
    interpolation: Interpolation

    def shorter(self, v2: Any) -> Any:
        """Scales the shorter side to size / crop."""
        return v2.Resize(round(self.size / self.crop), _mode(v2, self))


class Step(NamedTuple):
    """`make(torchvision.transforms.v2, view)` is the change; a `sizing` one makes the square and comes first."""

    make: Callable[[Any, View], Change]
    sizing: bool = False


def train_transform(
    texts: Sequence[str], size: int, *, crop: float = 0.875, interpolation: Interpolation = "bilinear"
) -> Transform:
    """The steps that texts such as `("random_resized_crop", "flip")` name, in order.

    Where the first makes no square of `size` (as random_crop and random_resized_crop do), the image is first cut as
    for tests, so that the lists for small images serve here too.

    Raises: InputError for a name, parameter or value that does not exist, or a step out of order; MissingExtraError
    without torchvision.
    """
    specs = steps(texts)
    chosen = [built(spec, TRANSFORMS) for spec in specs]
    for spec, step in list(zip(specs, chosen, strict=True))[1:]:
        if step.sizing:
            raise InputError(f"{spec.name} makes the square of {size} pixels and must come first; it follows another")
    whole = [] if chosen and chosen[0].sizing else [CENTRE]
    return _transform("+".join(map(str, specs)) or "centre", [*whole, *chosen], size, crop, interpolation)


def eval_transform(size: int, *, crop: float = 0.875, interpolation: Interpolation = "bilinear") -> Transform:
    """The centre: the shorter side scaled to round(size / crop), then a square of `size` cut out (224 of 256).

    Raises: InputError for a value that cannot be; MissingExtraError without torchvision.
    """
    return _transform("centre", [CENTRE], size, crop, interpolation)


def _transform(name: str, chosen: list[Step], size: int, crop: float, interpolation: Interpolation) -> Transform:
    if not is_whole(size) or size < 1:
        raise InputError(f"size must be a whole number of pixels of at least 1, got {size!r}")
    if not is_number(crop) or not 0 < crop <= 1:
        raise InputError(f"crop must lie in (0, 1], the share of the shorter side that is kept, got {crop!r}")
    check_one_of("interpolation", interpolation, get_args(Interpolation))
    view, v2 = View(size, crop, interpolation), _v2()
    return Transform(name, size, tuple(step.make(v2, view) for step in chosen))


def _v2() -> Any:
    needed("torchvision.transforms", "vision", "transforms of photographs need")
    from torchvision.transforms import v2

    return v2


def _mode(v2: Any, view: View) -> Any:
    return v2.InterpolationMode(view.interpolation)


CENTRE = Step(lambda v2, view: v2.Compose([view.shorter(v2), v2.CenterCrop(view.size)]), sizing=True)


def random_resized_crop(
    *, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> Step:
    """A random part of the image, of this share of its area and this ratio of width to height, scaled to the square.

    Raises: InputError unless scale is two ascending numbers in (0, 1] and ratio two ascending positive ones.
    """
    for name, pair, most in (("scale", scale, 1.0), ("ratio", ratio, float("inf"))):
        if not (isinstance(pair, tuple) and len(pair) == 2 and all(map(is_number, pair)) and 0 < pair[0] <= pair[1]):
            raise InputError(f"{name} must be two ascending positive numbers such as (0.5,1.0), got {pair!r}")
        if pair[1] > most:
            raise InputError(f"{name} is a share of the image, at most 1, got {pair!r}")
    return Step(lambda v2, view: v2.RandomResizedCrop(view.size, scale, ratio, _mode(v2, view)), sizing=True)


def random_crop() -> Step:
    """The shorter side scaled as for tests, then the square cut out at a random place."""
    return Step(lambda v2, view: v2.Compose([view.shorter(v2), v2.RandomCrop(view.size)]), sizing=True)


# The names shared with `poise.representation.augment`, whose factories refuse what cannot be.


def crop(*, pad: int = 4, mode: augment.PadMode = "zero") -> Step:
    """Pad every side by `pad` pixels, black or mirrored, and cut out the former size at a random place."""
    augment.crop(pad=pad, mode=mode)

    def make(v2: Any, view: View) -> Change:
        if mode == "reflect" and pad >= view.size:
            raise InputError(f"crop cannot mirror {pad} pixels of images of {view.size}; use a smaller pad")
        padded = v2.Pad(pad, padding_mode={"zero": "constant", "reflect": "reflect"}[mode])
        return v2.Compose([padded, v2.RandomCrop(view.size)])  # type: ignore[no-any-return]

    return Step(make)


def flip() -> Step:
    """Mirror left and right, half of the time."""
    return Step(lambda v2, view: v2.RandomHorizontalFlip())


def cutout(*, size: int = 16) -> Step:
    """A black square of `size` pixels, its centre uniform over the image, cut off at the edges."""
    augment.cutout(size=size)
    return Step(lambda v2, view: _Cutout(size))


@dataclass(frozen=True)
class _Cutout:
    size: int

    def __call__(self, image: Image) -> Image:
        left, top = (int(u * side) - self.size // 2 for u, side in zip(torch.rand(2).tolist(), image.size, strict=True))
        holed = image.copy()
        holed.paste((0, 0, 0), (left, top, left + self.size, top + self.size))
        return holed


def color_jitter(*, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.0) -> Step:
    """Brightness, contrast, saturation and hue in random order, each changed by up to its strength.

    Raises: InputError for a strength below 0, or a hue outside [0, 0.5].
    """
    augment.color_jitter(brightness=brightness, contrast=contrast, saturation=saturation)
    if not is_number(hue) or not 0 <= hue <= 0.5:
        raise InputError(f"hue must lie in [0, 0.5], the share of the colour circle to either side, got {hue!r}")
    return Step(lambda v2, view: v2.ColorJitter(brightness, contrast, saturation, hue))


def auto_augment(*, policy: augment.PolicyName = "cifar10", fill: int = 0, shear: augment.Shear = "nearest") -> Step:
    """One of 25 pairs of operations of the policy (Cubuk et al., CVPR 2019), moved images filled with grey `fill`."""
    augment.auto_augment(policy=policy, fill=fill, shear=shear)

    def make(v2: Any, view: View) -> Change:
        if shear != "nearest":
            raise InputError(f"photographs are sheared by the nearest pixel, got shear={shear!r}; leave shear out")
        return v2.AutoAugment(v2.AutoAugmentPolicy(policy), fill=fill)  # type: ignore[no-any-return]

    return Step(make)


def rand_augment(*, n: int = 2, m: int = 10, levels: int = 31) -> Step:
    """`n` of 14 operations at level `m` of 0 ... levels - 1 (Cubuk et al., NeurIPS 2020)."""
    augment.rand_augment(n=n, m=m, levels=levels)
    return Step(lambda v2, view: v2.RandAugment(n, m, levels))


TRANSFORMS: Mapping[str, Callable[..., Step]] = MappingProxyType(
    {
        "auto_augment": auto_augment,
        "color_jitter": color_jitter,
        "crop": crop,
        "cutout": cutout,
        "flip": flip,
        "rand_augment": rand_augment,
        "random_crop": random_crop,
        "random_resized_crop": random_resized_crop,
    }
)
