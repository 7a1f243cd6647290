"""Augmentation of batches of small images, on uint8 tensors: every image its own draw, the same result on any device.

    augmentation = parse(("crop(pad=4)", "flip", "cutout(size=16)"))
    u = uniforms(augmentation.draws, rows, seed, epoch)  # poise.values.randomness
    x = normalised(augmentation(images, u), mean, std)

Nothing draws a number by itself: what happens to an image depends on its row of u alone. Photographs of different sizes
are for `poise.representation.augment.photographs`, where the same names mean the same.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from poise.errors import InputError
from poise.representation.augment.augmentation import Augmentation, PadMode, chain, crop, cutout, flip
from poise.representation.augment.batches import beta_share, normalised
from poise.representation.augment.operations import Shear
from poise.representation.augment.policies import PolicyName, auto_augment, color_jitter, rand_augment
from poise.representation.augment.texts import built, steps

__all__ = [
    "AUGMENTATIONS",
    "SIZING",
    "Augmentation",
    "PadMode",
    "PolicyName",
    "Shear",
    "auto_augment",
    "beta_share",
    "chain",
    "color_jitter",
    "crop",
    "cutout",
    "flip",
    "normalised",
    "parse",
    "rand_augment",
]

AUGMENTATIONS: Mapping[str, Callable[..., Augmentation]] = MappingProxyType(
    {
        "auto_augment": auto_augment,
        "color_jitter": color_jitter,
        "crop": crop,
        "cutout": cutout,
        "flip": flip,
        "rand_augment": rand_augment,
    }
)
SIZING = (
    "random_crop",
    "random_resized_crop",
)  # what `poise.representation.augment.photographs` has beside them: photographs of any size


def parse(texts: Sequence[str]) -> Augmentation:
    """The chain of augmentations that texts such as `("crop(pad=4)", "flip")` name; no text changes nothing.

    Raises: InputError for a name, parameter or value that does not exist, with what is near it.
    """
    specs = steps(texts)
    for spec in specs:
        if spec.name in SIZING:
            raise InputError(
                f"{spec.name} is for photographs of different sizes, not for images that are all of one size; "
                "use crop(pad=4) or leave it out"
            )
    return chain([built(spec, AUGMENTATIONS) for spec in specs])
