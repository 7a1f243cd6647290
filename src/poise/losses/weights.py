"""Weights per class."""

import torch
from torch import Tensor

from poise.values.checks import check_inside
from poise.values.counts import ClassCounts, as_counts


def class_balanced_weights(counts: ClassCounts | Tensor, beta: float = 0.9999) -> Tensor:
    """(C,) float64 weights (1 - beta) / (1 - beta^n_k), normalised to sum to C (Cui et al., CVPR 2019).

    Raises: InputError if beta is outside [0, 1).
    """
    check_inside("beta", beta, 0, 1, "use 0.9 to 0.9999")
    # expm1 keeps the digits of 1 - beta^n where beta^n is close to 1.
    n = as_counts(counts).clamped
    raw = torch.ones_like(n) if beta == 0 else -(1 - beta) / torch.expm1(n * torch.tensor(beta, dtype=n.dtype).log())
    return raw * len(n) / raw.sum()


def prior_power(counts: ClassCounts, rho: float) -> Tensor:
    """(C,) float64 weights prior_k^-rho, normalised to sum to C."""
    raw = counts.prior.pow(-rho)
    return raw * len(raw) / raw.sum()
