"""The operations that AutoAugment and RandAugment draw from, for a batch in which every image has its own strength.

Each takes images uint8 (n, 3, H, W) and strengths float64 (n,) and returns uint8 (n, 3, H, W). Results are those of
torchvision's functional operations on uint8 tensors (nearest pixel, black where nothing is): the same bytes, except
that a pixel exactly halfway between two is taken from the lower one, on every device. What fills the places where
nothing is, and how a shear reads between pixels, are choices of `operations`.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

Operation = Callable[[Tensor, Tensor], Tensor]
Source = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
Shear = Literal["nearest", "bicubic"]
SHEARS = get_args(Shear)


def operate(
    images: Tensor,
    kinds: NDArray[np.int64],
    strengths: NDArray[np.float64],
    table: Mapping[str, Operation] | None = None,
) -> Tensor:
    """Apply to every image the operation NAMES[kind] of `table` with its strength; a kind of -1 leaves it as it is.

    Images of one kind are taken together, so that each operation runs at most once. `table` is by default OPERATIONS.
    """
    by_name = OPERATIONS if table is None else table
    result = images.clone()
    for kind in np.unique(kinds[kinds >= 0]):
        chosen = np.flatnonzero(kinds == kind)
        rows = torch.from_numpy(chosen).to(images.device)
        strength = torch.from_numpy(strengths[chosen]).to(images.device)
        result[rows] = by_name[NAMES[kind]](images[rows], strength)
    return result


# Geometry: where a pixel (x, y) of the result, counted from 0, comes from.


def _moved(images: Tensor, strength: Tensor, *, source: Source, fill: int) -> Tensor:
    height, width = images.shape[-2:]
    y, x = (torch.arange(size, dtype=torch.float64, device=images.device) for size in (height, width))
    sx, sy = source(x[None, None, :], y[None, :, None], strength[:, None, None])
    column, row = _nearest(sx), _nearest(sy)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    place = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).expand(-1, height, width)  # (n, H, W)
    flat = place.reshape(len(images), 1, -1).expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, flat).view_as(images).masked_fill(~inside.unsqueeze(1), fill)


def _nearest(place: Tensor) -> Tensor:
    # The small number lets rounding errors of different machines not decide about a place halfway between two pixels.
    return (place + (0.5 - 1e-6)).floor().long()


def _shear_x(x: Tensor, y: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    return x + slope * (y + 0.5), y


def _shear_y(x: Tensor, y: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    return x, y + slope * (x + 0.5)


def _sheared_smoothly(images: Tensor, slope: Tensor, *, fill: int) -> Tensor:
    """A shear along x whose grey levels are read from four pixels of the row by cubic convolution with a = -1.

    As Pillow's BICUBIC: beyond the edge the last pixel repeats, and fractions of a grey level are cut off.
    """
    height, width = images.shape[-2:]
    y, x = (torch.arange(size, dtype=torch.float64, device=images.device) for size in (height, width))
    place, _ = _shear_x(x[None, None, :], y[None, :, None], slope[:, None, None])  # (n, H, W)
    before = place.floor()
    t = (place - before).unsqueeze(1)
    near = [
        (before.long() + k).clamp_(0, width - 1).unsqueeze(1).expand(-1, images.shape[1], -1, -1) for k in range(-1, 3)
    ]
    a, b, c, d = (images.double().gather(3, column) for column in near)
    level = b + t * (c - a + t * (2 * (a - b) + c - d + t * (b - a + d - c)))
    outside = (place < -0.5) | (place >= width - 0.5)
    return level.clamp_(0, 255).to(torch.uint8).masked_fill(outside.unsqueeze(1), fill)


def _sheared_smoothly_down(images: Tensor, slope: Tensor, *, fill: int) -> Tensor:
    return _sheared_smoothly(images.mT, slope, fill=fill).mT


def _translate_x(x: Tensor, y: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    return x - pixels.trunc(), y


def _translate_y(x: Tensor, y: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    return x, y - pixels.trunc()


def _rotate(x: Tensor, y: Tensor, degrees: Tensor) -> tuple[Tensor, Tensor]:
    """Counter-clockwise about the centre."""
    mid_x, mid_y = (x.shape[-1] - 1) / 2, (y.shape[-2] - 1) / 2
    cos, sin = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    right, down = x - mid_x, y - mid_y
    return cos * right - sin * down + mid_x, sin * right + cos * down + mid_y


# Colour: in float32, every product and sum rounded by itself, so that all devices agree.


def _blended(images: Tensor, other: Tensor | float, factor: Tensor) -> Tensor:
    """The sum factor * images + (1 - factor) * other, cut off to grey levels; factor (n,)."""
    ratio = factor[:, None, None, None]
    mix = images * ratio.float() + other * (1 - ratio).float()
    return mix.clamp_(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """(n, 1, H, W) uint8 luminance."""
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).to(torch.uint8).unsqueeze(1)


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return _blended(images, 0.0, factor)


def _color(images: Tensor, factor: Tensor) -> Tensor:
    return _blended(images, _grey(images), factor)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    grey = _grey(images)
    mean = grey.sum(dim=(1, 2, 3), keepdim=True).double() / grey[0].numel()
    return _blended(images, mean.float(), factor)


def _sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with a smoothed image: of 13 parts the pixel has 5 and each neighbour 1; the border is not smoothed."""
    if min(images.shape[-2:]) <= 2:
        return images
    smooth = images.clone()
    values = images.float()
    sums = avg_pool2d(values, 3, stride=1, divisor_override=1) + 4 * values[..., 1:-1, 1:-1]
    smooth[..., 1:-1, 1:-1] = (sums / 13).round_().to(torch.uint8)
    return _blended(images, smooth, factor)


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the upper `bits` bits."""
    return images & (-(2 ** (8 - bits.long()))).to(torch.uint8)[:, None, None, None]


def _solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert what is at least as bright as the threshold."""
    return torch.where(images >= threshold.float()[:, None, None, None], 255 - images, images)


def _autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Stretch every channel over all grey levels; one of a single level stays."""
    low, high = (extreme(images, dim=(2, 3), keepdim=True).float() for extreme in (torch.amin, torch.amax))
    flat = low == high
    scale = torch.where(flat, 1.0, 255 / (high - low))
    return ((images - torch.where(flat, 0.0, low)) * scale).clamp_(0, 255).to(torch.uint8)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    """Spread the grey levels of every channel so that each step holds about as many pixels."""
    levels = images.flatten(2).flatten(0, 1).long()  # (3 n, H W)
    channels = len(levels)
    offset = 256 * torch.arange(channels, device=images.device)[:, None]
    histogram = torch.bincount((levels + offset).flatten(), minlength=256 * channels).view(channels, 256)
    brightest = histogram.gather(1, levels.amax(1, keepdim=True))
    step = (levels.shape[1] - brightest) // 255  # (3 n, 1)
    below = histogram.cumsum(1) - histogram
    table = ((below + step // 2) // step.clamp_min(1)).clamp_(max=255)
    table = torch.where(step == 0, torch.arange(256, device=images.device), table)
    return table.to(torch.uint8).gather(1, levels).view_as(images)


def _invert(images: Tensor, _: Tensor) -> Tensor:
    return 255 - images


def _identity(images: Tensor, _: Tensor) -> Tensor:
    return images


# Those that change grey levels only.
LEVELS: Mapping[str, Operation] = MappingProxyType(
    {
        "brightness": _brightness,
        "color": _color,
        "contrast": _contrast,
        "sharpness": _sharpness,
        "posterize": _posterize,
        "solarize": _solarize,
        "autocontrast": _autocontrast,
        "equalize": _equalize,
        "invert": _invert,
    }
)


@cache
def operations(fill: int = 0, shear: Shear = "nearest") -> Mapping[str, Operation]:
    """Name -> operation, in the order of NAMES.

    `fill` is the grey level, 0 to 255, of all channels where a moved image shows nothing. `shear` reads sheared images
    at the "nearest" pixel or by "bicubic" interpolation between pixels.
    """
    moved = {
        name: partial(_moved, source=source, fill=fill)
        for name, source in (
            ("shear_x", _shear_x),
            ("shear_y", _shear_y),
            ("translate_x", _translate_x),
            ("translate_y", _translate_y),
            ("rotate", _rotate),
        )
    }
    if shear == "bicubic":
        moved["shear_x"] = partial(_sheared_smoothly, fill=fill)
        moved["shear_y"] = partial(_sheared_smoothly_down, fill=fill)
    return MappingProxyType({"identity": _identity, **moved, **LEVELS})


OPERATIONS = operations()
NAMES = tuple(OPERATIONS)
