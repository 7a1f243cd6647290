"""Gaussian clouded logits: the loss with noise."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from poise.losses.focal import FocalTerms, focal_gradient, focal_losses
from poise.values.checks import check_inside, check_positive
from poise.values.counts import ClassCounts
from poise.values.loss import Loss, true_of

SPREAD = 1 / 3  # standard deviation of the noise before it is clamped to [-1, 1]


class GclTerms(NamedTuple):
    """`cloud` (..., C) is the most that noise takes from a logit; `margin` and `gamma` (...,) are parameters.

    `size` (B, C) are the sizes of the noise for the rows of one batch, in [0, 1]; None before they are drawn.
    """

    cloud: Tensor
    margin: Tensor
    gamma: Tensor
    size: Tensor | None = None


def _clouded(logits: Tensor, y: Tensor, terms: GclTerms) -> Tensor:
    """Take noise and margin from the logits (..., B, C), in place."""
    if terms.size is not None:
        logits.addcmul_(terms.cloud.unsqueeze(-2), terms.size, value=-1)
    at = true_of(y, logits)
    return logits.scatter_add_(-1, at, -terms.margin[..., None, None].expand(at.shape))


def gcl_losses(logits: Tensor, y: Tensor, terms: GclTerms) -> tuple[Tensor, GclTerms]:
    """(..., B) losses; the next state has no noise."""
    losses, _ = focal_losses(_clouded(logits.clone(), y, terms), y, FocalTerms(terms.gamma))
    return losses, terms._replace(size=None)


def gcl_gradient(logits: Tensor, y: Tensor, terms: GclTerms) -> tuple[Tensor, GclTerms]:
    """(..., B, C) gradient of focal loss at the clouded logits, written over the logits."""
    slope, _ = focal_gradient(_clouded(logits, y, terms), y, FocalTerms(terms.gamma))
    return slope, terms._replace(size=None)


def _draw(terms: GclTerms, numbers: Tensor) -> GclTerms:
    """The terms with the noise that these numbers (B, C), uniform in [0, 1], stand for."""
    # A number u is the probability of a smaller |e|, which for a normal variable is erf(|e| / (sd sqrt 2)).
    size = torch.erfinv(numbers.to(terms.cloud)) * (SPREAD * 2**0.5)
    return terms._replace(size=size.clamp_(max=1.0))


def gcl(*, noise: float = 0.5, margin: float = 0.0, scale: float = 30.0, gamma: float = 0.0) -> Loss:
    """Gaussian clouded logits (Li et al., CVPR 2022): cosine logits c that lose noise, most where rows are few.

    Focal loss (`gamma` 0: cross-entropy) of s (c_k - noise |e_k| m_k - margin [k = y]), where m_k = log(n_max / n_k) /
    log(n_max / n_min) and e_k is normal with standard deviation 1/3, clamped to [-1, 1], for every row and class anew.
    Equal counts give m = 0: no class is rarer than another. A class without rows counts as one of a single row.

    The logits given here are those of the head, s c with the scale included. The noise is put in by `Loss.draw`; a
    state without it, as in `bind`, gives the loss without noise. Predict with plain cosines. The defaults are those of
    stage 1 on CIFAR; of stage 2: noise 0.5, margin 0.1, scale 20, gamma 1.

    Raises: InputError if scale is not positive, or another number is negative.
    """
    check_inside("noise", noise, 0, float("inf"), "GCL uses 0.5")
    check_inside("margin", margin, 0, float("inf"), "GCL uses 0 and 0.1")
    check_positive("scale", scale)
    check_inside("gamma", gamma, 0, float("inf"), "GCL uses 0 and 1")
    init = partial(_gcl, cloud=scale * noise, margin=scale * margin, gamma=gamma)
    return Loss(init, gcl_losses, gcl_gradient, draw=_draw)


def _gcl(counts: ClassCounts, *, cloud: float, margin: float, gamma: float) -> GclTerms:
    rarity = (counts.clamped.max() / counts.clamped).log()
    most = rarity.max()
    share = rarity / most if most > 0 else torch.zeros_like(rarity)
    return GclTerms(cloud * share, *(torch.tensor(value, dtype=torch.float64) for value in (margin, gamma)))
