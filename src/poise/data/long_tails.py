"""Long tails cut from any pool of samples, by a shape or as a published split."""

import inspect
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from poise.data.samples.sample_set import Samples
from poise.errors import InputError
from poise.profiles import SPLITS, Order, exponential, pareto, select, split_hash, step
from poise.values.checks import is_number, is_whole
from poise.values.randomness import Stream, hashed
from poise.values.spec import Spec
from poise.values.wording import near

ClassOrder = Literal["native"] | int | Sequence[int]
SHAPES: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {"exponential": exponential, "pareto": pareto, "step": step}
)


@dataclass(frozen=True, eq=False)
class LongTailed:
    """A long tail cut from a pool of samples.

    `rows` (n,) int64 are the training rows and `left_over` those not chosen, both class by class in the order of
    choice: the next rows of a class are the first of what is left over. `counts` (C,) int64. `text` says how it was
    cut, with every number that was filled in.
    """

    rows: Tensor
    left_over: Tensor
    counts: Tensor
    text: str

    @property
    def hash(self) -> str:
        """`profiles.split_hash` of the rows: comparable with that of a published split of the same pool."""
        return split_hash(self.rows)


def long_tailed(
    samples: Samples,
    profile: str | Spec,
    *,
    order: Order | None = None,
    class_order: ClassOrder = "native",
) -> LongTailed:
    """A long tail cut from a pool.

    Args:
        samples: the pool, best with many samples of every class.
        profile: "exponential(imbalance=100)", "pareto(imbalance=256,power=6)", "step(imbalance=100)", or the name of a
            published split. `n_max`, the size of the largest class, is by default the largest number at which every
            class of the pool has enough samples.
        order: which samples of a class come first, as in `profiles.select`; by default that of the published split,
            else file order.
        class_order: "native" gives the first class the most samples. A seed permutes the classes, so that rarity does
            not go with whatever the classes are sorted by; a list names all classes by number, the largest first.

    Raises: InputError naming what is unknown or out of range, or the class that has too few samples. A published split
    whose choice is a shuffle is refused for a pool in which a class has not the number of samples that its authors
    shuffled, because others would be chosen.
    """
    if not isinstance(order, str | None) and not (is_whole(order) and order >= 0):
        raise InputError(f"order must be 'first', 'ldam' or a whole number, 0 or more, got {order!r}")
    if str(profile) in SPLITS:
        return _published(samples, str(profile), order, class_order)
    spec = profile if isinstance(profile, Spec) else _parsed(profile)
    shape, params = _shape(spec, len(samples.class_names))
    of_rank = _class_of_rank(class_order, len(samples.class_names))
    available = samples.counts.n
    n_max = params.pop("n_max", None)
    n_max = _largest(shape, samples, of_rank, params["imbalance"], spec) if n_max is None else n_max
    counts = torch.empty_like(available)
    counts[of_rank] = shape(n_max)
    order = "first" if order is None else order
    return _cut(samples, counts, order, f"{Spec(spec.name, params, n_max=n_max)}, order {order}, {_named(class_order)}")


def _parsed(text: str) -> Spec:
    try:
        return Spec.parse(text)
    except InputError:
        raise InputError(
            f"cannot read the profile {text!r}; write it as exponential(imbalance=100), or name a published split: "
            f"{', '.join(SPLITS)}"
        ) from None


def _published(samples: Samples, name: str, order: Order | None, class_order: ClassOrder) -> LongTailed:
    split = SPLITS[name]
    if class_order != "native" or order not in (None, split.order):
        raise InputError(f"{name} has the order {split.order!r} and its own order of classes; leave both out")
    if len(samples.class_names) != split.classes:
        raise InputError(f"{name} has {split.classes} classes, these samples have {len(samples.class_names)}")
    if split.order != "first":
        _refuse_other_pool(samples, name, split.n_max)
    return _cut(samples, split.counts, split.order, name)


def _refuse_other_pool(samples: Samples, name: str, whole: int) -> None:
    """Raises: InputError for a class that has not all the samples of the data set that the split was shuffled from."""
    other = samples.counts.n != whole
    if other.any():
        k = int(other.nonzero()[0])
        raise InputError(
            f"{name} is drawn from {whole} samples of every class, and class {samples.class_names[k]!r} has "
            f"{int(samples.counts.n[k])} here, so that other samples would be drawn; give the whole training set, or "
            f"cut another tail, such as {name.rsplit('_', 1)[0]}_first"
        )


def _shape(spec: Spec, classes: int) -> tuple[Callable[[int], Tensor], dict[str, Any]]:
    """The profile as a function of n_max, and its parameters."""
    if spec.name not in SHAPES or spec.then is not None:
        meant = near(spec.name, [*SHAPES, *SPLITS])
        raise InputError(f"no profile is called '{spec}'{meant or ';'} there are {', '.join([*SHAPES, *SPLITS])}")
    params = dict(spec.params)
    known = [name for name in inspect.signature(SHAPES[spec.name]).parameters if name != "classes"]
    for key, value in params.items():
        if key not in known:
            raise InputError(f"{spec.name} has no parameter {key!r}{near(key, known) or ';'} it has {', '.join(known)}")
        if not (is_whole(value) if key == "n_max" else is_number(value)):
            raise InputError(f"{key} of {spec.name} must be a {'whole ' * (key == 'n_max')}number, got {value!r}")
    if "imbalance" not in params:
        raise InputError(f"{spec.name} needs an imbalance; write {spec.name}(imbalance=100)")
    rest = {key: value for key, value in params.items() if key != "n_max"}
    return partial(SHAPES[spec.name], classes=classes, **rest), params


def _class_of_rank(class_order: ClassOrder, classes: int) -> Tensor:
    """(C,) int64: the class that has the largest count, the second, ..."""
    if class_order == "native":
        return torch.arange(classes)
    if isinstance(class_order, Sequence) and not isinstance(class_order, str):
        return _listed_order(class_order, classes)
    if not is_whole(class_order) or int(class_order) < 0:
        raise InputError(
            f"class_order must be 'native', a whole number, 0 or more, or a list of all classes, got {class_order!r}"
        )
    return torch.from_numpy(hashed(int(class_order), Stream.CLASS_ORDER, np.arange(classes)).argsort(kind="stable"))


def _listed_order(numbers: Sequence[int], classes: int) -> Tensor:
    if not all(is_whole(k) for k in numbers) or sorted(numbers) != list(range(classes)):
        raise InputError(
            f"a list as class_order must hold each number from 0 to {classes - 1} once, got {len(numbers)} entries, "
            f"{len(set(numbers))} of them different"
        )
    return torch.tensor([int(k) for k in numbers])


def _named(class_order: ClassOrder) -> str:
    if class_order == "native":
        return "classes in their own order"
    return f"classes permuted by seed {class_order}" if is_whole(class_order) else "classes in a stated order"


def _largest(shape: Callable[[int], Tensor], samples: Samples, of_rank: Tensor, imbalance: float, spec: Spec) -> int:
    """The largest n_max at which no class lacks samples; counts never fall as n_max grows."""
    available = samples.counts.n[of_rank]
    least = max(1, math.ceil(imbalance))
    missing = shape(least) > available
    if missing.any():
        rank = int(missing.nonzero()[0])
        name = samples.class_names[int(of_rank[rank])]
        raise InputError(
            f"{spec} needs at least {int(shape(least)[rank])} samples of class {name!r}, there are "
            f"{int(available[rank])}; lower the imbalance, or leave the class out"
        )
    numbers = range(least, int(available[0]) + 1)
    return numbers[bisect_left(numbers, True, key=lambda n: bool((shape(n) > available).any())) - 1]


def _cut(samples: Samples, counts: Tensor, order: Order, text: str) -> LongTailed:
    available = samples.counts.n
    short = counts > available
    if short.any():
        k = int(short.nonzero()[0])
        raise InputError(
            f"class {samples.class_names[k]!r} has {int(available[k])} samples, {int(counts[k])} are asked for by "
            f"{text}; use the whole data set, or a smaller n_max"
        )
    ordered = select(samples.y.cpu(), available, order)  # every row: what is left over continues the same order
    ranks = torch.arange(len(ordered)) - (available.cumsum(0) - available).repeat_interleave(available)
    chosen = ranks < counts.repeat_interleave(available)
    return LongTailed(ordered[chosen], ordered[~chosen], counts, text)
