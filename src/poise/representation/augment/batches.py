"""What happens to a batch after augmentation: normalisation, and the share of mixup."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from poise.errors import InputError
from poise.values.checks import check_positive
from poise.values.randomness import seed_for


def normalised(
    images: Tensor,
    mean: Tensor | Sequence[float],
    std: Tensor | Sequence[float],
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> Tensor:
    """(images / 255 - mean) / std of uint8 images (B, 3, H, W), with mean and std (3,) in units of [0, 1].

    Computed in float32 and then rounded to `dtype`. Raises: InputError for another type of images, or a mean or std
    that is not three finite numbers, std positive.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise InputError(f"normalised takes uint8 images (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
    centre, spread = (torch.as_tensor(given, dtype=torch.float64).cpu() for given in (mean, std))
    if centre.shape != (3,) or spread.shape != (3,) or not torch.isfinite(centre).all() or not (spread > 0).all():
        raise InputError(f"mean and std are three numbers each, std positive; got {centre.tolist()}, {spread.tolist()}")
    scale, shift = (v.float().to(images.device).view(3, 1, 1) for v in (1 / (255 * spread), -centre / spread))
    values = images.float().mul_(scale).add_(shift).to(dtype)
    # Last, because arithmetic on runs of three channels is slow.
    return values.contiguous(memory_format=torch.channels_last) if channels_last else values


def beta_share(alpha: float, *words: int) -> float:
    """A draw from Beta(alpha, alpha) that depends on the key `words` alone: what mixup keeps of an image.

    Zhang et al., mixup, ICLR 2018. Raises: InputError unless alpha > 0.
    """
    check_positive("alpha", alpha)
    return float(np.random.default_rng(seed_for(*words)).beta(alpha, alpha))
