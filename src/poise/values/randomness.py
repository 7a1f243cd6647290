"""Random numbers that are a pure function of what they are for: no generator is carried along, and none is stored.

A training run that is killed and resumed, or whose batches are shared out among processes differently, draws the same
numbers for the same (seed, epoch, sample). Streams are named by integers, so that no two uses share numbers.
"""

from enum import IntEnum, unique
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@unique
class Stream(IntEnum):
    """What random numbers are drawn for, a word of their key beside the seed. A number that changes changes results.

    Every use has a number of its own, also where one is hashed and another seeds a generator: `default_rng([seed, 7])`
    draws what `default_rng([seed, 7, 0])` draws.
    """

    CLASS_CYCLE = 1  # order of the classes in a cycle of class-aware sampling
    ROW_CYCLE = 2  # order of the rows within a class
    EPOCH = 3  # draws of the other samplers
    FRESH_START = 4  # first weights of a head
    FOLDS = 5
    CLASS_ORDER = 6  # which classes a long-tail profile makes rare
    CARVE = 7  # rows set aside from the training split
    SEARCH = 8  # settings of a random search
    WINDOWS = 9  # blocks of rows on disk that are read together
    LABELLED = 10  # rows of a learning curve
    AUGMENT = 11
    MIXUP = 12
    PARTNER = 13  # whom a sample is mixed with
    DROPOUT = 14
    NETWORK = 15  # first weights of a network's classifier
    VIEWS = 16  # augmented copies that are stored
    LOSS = 17  # noise of a loss in training
    CYCLE_START = 18  # where a cycle begins in the stretches of weighted rows


def hashed(*words: int | NDArray[np.int64]) -> NDArray[np.uint64]:
    """A random number for every combination of words, so that any draw can be computed alone (splitmix64 finaliser).

    Words are integers or arrays of them, which broadcast.
    """
    state: Any = np.uint64(0)
    with np.errstate(over="ignore"):
        for word in words:
            state = (state + np.asarray(word).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return np.asarray(state, dtype=np.uint64)


def uniforms(draws: int, rows: Tensor, *words: int) -> Tensor:
    """(n, draws) float64 in [0, 1): the numbers of each of `rows` (n,) int64, for the key `words`.

    >>> one = uniforms(2, torch.tensor([7]), 0, 3)
    >>> torch.equal(one, uniforms(2, torch.tensor([4, 7]), 0, 3)[1:])
    True
    """
    # 53 bits fill the digits of a double.
    keys = hashed(*words, rows.cpu().numpy()[:, None], np.arange(draws)[None, :]) >> np.uint64(11)
    return torch.from_numpy(keys.astype(np.float64) * 2.0**-53)


def seed_for(*words: int) -> int:
    """A seed below 2^63 for a library that keeps a generator of its own."""
    return int(hashed(*words)) >> 1
