"""What an augmentation is, and the simple ones: crop, flip, cutout."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad as padded_with

from poise.errors import InputError
from poise.values.checks import check_one_of, is_whole

PadMode = Literal["zero", "reflect"]


class Augmentation(NamedTuple):
    """A pure function of images and random numbers.

    `apply(images, u)` takes uint8 (B, 3, H, W) and float64 uniforms u (B, draws) in [0, 1), on any device, and returns
    uint8 (B, 3, H, W) on the device of the images; image i depends on images[i] and u[i] alone. `name` is its text,
    which `parse` reads. Calling the augmentation checks shapes and types first.
    """

    name: str
    draws: int
    apply: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """The augmented images. Raises: InputError for images that are not uint8 (B, 3, H, W) or u of another shape."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise InputError(f"augmentation takes uint8 images (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
        if u.shape != (len(images), self.draws):
            raise InputError(f"{self.name} needs u of shape {(len(images), self.draws)}, got {tuple(u.shape)}")
        return self.apply(images, u)


def chain(augmentations: Sequence[Augmentation]) -> Augmentation:
    """One augmentation that applies all in order, each with columns of u of its own; none at all changes nothing."""
    parts = tuple(augmentations)
    name = "+".join(part.name for part in parts) or "none"
    return Augmentation(name, sum(part.draws for part in parts), partial(_chained, parts=parts))


def _chained(images: Tensor, u: Tensor, *, parts: tuple[Augmentation, ...]) -> Tensor:
    first = 0
    for part in parts:
        images = part.apply(images, u[:, first : first + part.draws])
        first += part.draws
    return images


def crop(*, pad: int = 4, mode: PadMode = "zero") -> Augmentation:
    """Pad every side by `pad` pixels, black or mirrored, and cut out the former size at a random place.

    Raises: InputError unless pad is a whole number of at least 1 and mode is zero or reflect.
    """
    check_one_of("mode", mode, ("zero", "reflect"))
    if not is_whole(pad) or pad < 1:
        raise InputError(f"pad must be a whole number of pixels of at least 1, got {pad!r}; 4 is usual for 32 x 32")
    return Augmentation(f"crop(mode={mode!r},pad={pad})", 2, partial(_cropped, pad=pad, mode=mode))


def _cropped(images: Tensor, u: Tensor, *, pad: int, mode: PadMode) -> Tensor:
    height, width = images.shape[-2:]
    if mode == "reflect" and pad >= min(height, width):
        raise InputError(f"crop cannot mirror {pad} pixels of images of {height} x {width}; use a smaller pad")
    wide = padded_with(images, (pad,) * 4) if mode == "zero" else _mirrored(images, pad)
    # Every window there is, as a view: (B, 3, 2 pad + 1, 2 pad + 1, H, W).
    windows = wide.unfold(2, height, 1).unfold(3, width, 1)
    top, left = _below(u, 2 * pad + 1, images.device).unbind(1)
    return windows[torch.arange(len(images), device=images.device), :, top, left]


def _mirrored(images: Tensor, pad: int) -> Tensor:
    rows, columns = (_mirrored_places(size, pad, images.device) for size in images.shape[-2:])
    return images.index_select(2, rows).index_select(3, columns)


def _mirrored_places(size: int, pad: int, device: torch.device) -> Tensor:
    """(size + 2 pad,) for example 2 1 0 1 2 3 2 1 for size 4 and pad 2; the edge itself is not repeated."""
    places = torch.arange(-pad, size + pad, device=device).abs()
    return (size - 1) - ((size - 1) - places).abs()


def _below(u: Tensor, count: int, device: torch.device) -> Tensor:
    """Uniform whole numbers 0 ... count - 1 from uniforms u."""
    return (u.to(device) * count).long()


def flip() -> Augmentation:
    """Mirror left and right, half of the images."""
    return Augmentation("flip", 1, _flipped)


def _flipped(images: Tensor, u: Tensor) -> Tensor:
    mirror = (u.to(images.device) < 0.5)[:, :, None, None]
    return torch.where(mirror, images.flip(-1), images)


def cutout(*, size: int = 16) -> Augmentation:
    """A black square of `size` pixels, its centre uniform over the image, cut off at the edges.

    DeVries and Taylor, Cutout, 2017; black before normalisation.

    Raises: InputError unless size is a whole number of at least 1.
    """
    if not is_whole(size) or size < 1:
        raise InputError(f"size must be a whole number of pixels of at least 1, got {size!r}; 16 is usual for 32 x 32")
    return Augmentation(f"cutout(size={size})", 2, partial(_cut_out, size=size))


def _cut_out(images: Tensor, u: Tensor, *, size: int) -> Tensor:
    height, width = images.shape[-2:]
    rows = _in_hole(u[:, 0], height, size, images.device)  # (B, H)
    columns = _in_hole(u[:, 1], width, size, images.device)  # (B, W)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :]).unsqueeze(1), 0)


def _in_hole(u: Tensor, extent: int, size: int, device: torch.device) -> Tensor:
    """(B, extent): which places belong to the `size` ones about the centre that u (B,) draws."""
    first = _below(u, extent, device)[:, None] - size // 2
    places = torch.arange(extent, device=device)
    return (places >= first) & (places < first + size)
