"""Which samples train, which select and which judge: long tails cut from any data set, and rows set aside in time.

Held-out rows must be set aside before the representation is trained, or they can no longer select anything. A group
(site, patient, burst of photographs) is never divided, and no class loses its last training sample.
"""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poise.data.long_tails import ClassOrder, LongTailed, long_tailed
from poise.data.samples.sample_set import Samples
from poise.errors import InputError, PoiseWarning
from poise.folds import group_ids
from poise.profiles import SPLITS, Order, split_hash
from poise.values.arrays import classes_in
from poise.values.checks import is_number, is_whole
from poise.values.randomness import Stream, hashed
from poise.values.spec import Spec
from poise.values.wording import near, some

PerClass = int | float
RowOrder = Literal["first"] | int


class Carved(NamedTuple):
    """Row numbers of what still trains and of what was set aside."""

    train: Tensor
    held_out: Tensor


class Origin(NamedTuple):
    """The given split and the row numbers in it that a part was taken from."""

    split: str
    rows: Tensor


@dataclass(frozen=True, eq=False)
class Splits:
    """The parts of a data set. `origins` says where the rows of each came from, `notes` in sentences how."""

    train: Samples
    held_out: Samples | None
    test: Samples | None
    origins: Mapping[str, Origin]
    notes: tuple[str, ...]

    @property
    def parts(self) -> dict[str, Samples]:
        """The parts that there are, by name."""
        named = {"train": self.train, "held_out": self.held_out, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}

    @cached_property
    def hash(self) -> str:
        """16 hex digits over the class names and, for every part, its origin, row numbers and labels.

        Cheap: no sample is read. It tells divisions of one data set apart, not data sets: see `fingerprint`.
        """
        digest = hashlib.sha256(repr(self.train.class_names).encode())
        for name, part in self.parts.items():
            split, rows = self.origins[name]
            digest.update(f"{name} {split} {split_hash(rows)} {split_hash(part.y)}\n".encode())
        return digest.hexdigest()[:16]

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over the bytes of every sample of every part; reads all of them once."""
        text = "\n".join(f"{name} {part.fingerprint}" for name, part in self.parts.items())
        return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- rows set aside --------------------------------------------------------------------------------------------------


def carve(samples: Samples, per_class: PerClass = 20, *, order: RowOrder = 0, tail: LongTailed | None = None) -> Carved:
    """Rows set aside from training, each part in file order.

    Of each class `per_class` samples are taken if it is a whole number, that share of them (at least one) if it is a
    fraction, and never more than half, so that a class of one sample keeps it. With groups these are upper limits: a
    group that exceeds one stays in training, unless a class would get nothing otherwise; then its smallest groups are
    taken, up to half.

    `order` is "first" (file order) or the seed of a shuffle. With a `tail` cut from the same samples, the next rows of
    each class in the order of that choice are taken, and its training rows stay as they are; if it leaves nothing over
    then the rows come from its training rows.

    Raises: InputError for a number out of range, or if nothing can be set aside.
    """
    _check_per_class(per_class)
    if order != "first" and (not is_whole(order) or int(order) < 0):
        raise InputError(f"order must be 'first' or a seed, a whole number of at least 0, got {order!r}")
    if tail is None:
        return _parted(samples, _from_training(samples, per_class, order))
    spare = _spare(samples, tail)
    if len(spare):
        limits = torch.as_tensor(_share(per_class, tail.counts.numpy()))
        return Carved(tail.rows, spare[_first_of_each(samples.y.cpu()[spare], limits)].sort().values)
    train, held_out = carve(samples.take(tail.rows), per_class, order=order)
    return Carved(tail.rows[train], tail.rows[held_out].sort().values)


def _check_per_class(per_class: PerClass) -> None:
    whole = is_whole(per_class) and per_class >= 1
    if not whole and not (is_number(per_class) and 0 < per_class <= 0.5):
        raise InputError(
            f"rows are set aside by a whole number per class or by a share of at most 0.5, got {per_class!r}"
        )


def _share(per_class: PerClass, n: NDArray[np.int64]) -> NDArray[np.int64]:
    """(C,) rows asked for, of classes with n (C,) rows."""
    if is_whole(per_class):
        return np.full_like(n, int(per_class))
    rounded: NDArray[np.float64] = np.floor(per_class * n + 0.5)
    return rounded.clip(1).astype(np.int64)


def _parted(samples: Samples, held_out: Tensor) -> Carved:
    if not len(held_out):
        what = "sample" if samples.groups is None else "group"
        raise InputError(f"nothing can be set aside: no class has more than one {what}; add samples, or set none aside")
    mask = torch.zeros(len(samples), dtype=torch.bool)
    mask[held_out] = True
    return Carved((~mask).nonzero().flatten(), mask.nonzero().flatten())


def _from_training(samples: Samples, per_class: PerClass, order: RowOrder) -> Tensor:
    """(n,) int64 rows to set aside."""
    y, half = samples.y.cpu(), samples.counts.n.cpu().numpy() // 2
    limits = np.minimum(_share(per_class, samples.counts.n.cpu().numpy()), half)
    if samples.groups is None:
        rows = _shuffled(len(y), int(order), Stream.CARVE) if order != "first" else torch.arange(len(y))
        return rows[_first_of_each(y[rows], torch.from_numpy(limits))]
    units = group_ids(samples.groups, len(y)).numpy()
    _, first = np.unique(units, return_index=True)
    turns = _shuffled(len(first), int(order), Stream.CARVE).numpy() if order != "first" else first.argsort()
    taken = _whole_groups(y.numpy(), units, turns, limits, half)
    return torch.from_numpy(np.flatnonzero(np.isin(units, taken)))


def _first_of_each(y: Tensor, limits: Tensor) -> Tensor:
    """Positions in y (n,) of the first limits[k] entries of every class k."""
    by_class = y.argsort(stable=True)
    n = torch.bincount(y, minlength=len(limits))
    ranks = torch.arange(len(y)) - (n.cumsum(0) - n).repeat_interleave(n)
    return by_class[ranks < limits.repeat_interleave(n)]


def _whole_groups(
    y: NDArray[np.int64],
    units: NDArray[np.int64],
    turns: NDArray[np.int64],
    limits: NDArray[np.int64],
    half: NDArray[np.int64],
) -> list[int]:
    """Groups to set aside: in turn while no class exceeds its limit, then for classes that got nothing."""
    keys, amounts = np.unique(units * len(half) + y, return_counts=True)
    edges = np.searchsorted(keys // len(half), np.arange(len(turns) + 1))
    held = np.zeros_like(half)
    taken: list[int] = []

    def take(unit: int, most: NDArray[np.int64], *, only_if_none: bool) -> None:
        inside = slice(edges[unit], edges[unit + 1])
        labels, amount = keys[inside] % len(half), amounts[inside]
        needed = not only_if_none or (held[labels] == 0).any()
        if needed and (held[labels] + amount <= most[labels]).all():
            held[labels] += amount
            taken.append(unit)

    for unit in turns.tolist():
        take(unit, limits, only_if_none=False)
    by_size = turns[np.bincount(units)[turns].argsort(kind="stable")]
    for unit in by_size.tolist():
        take(unit, half, only_if_none=True)
    return taken


def _spare(samples: Samples, tail: LongTailed) -> Tensor:
    """The left-over rows of no group that also trains, in the order of choice."""
    if samples.groups is None:
        return tail.left_over
    trains = {samples.groups[i] for i in tail.rows.tolist()}
    return torch.tensor([i for i in tail.left_over.tolist() if samples.groups[i] not in trains], dtype=torch.int64)


def _shuffled(n: int, seed: int, stream: Stream) -> Tensor:
    """A permutation (n,) int64 of 0 .. n-1."""
    return torch.from_numpy(hashed(seed, stream, np.arange(n)).argsort(kind="stable"))


# --- a whole data set ------------------------------------------------------------------------------------------------


def divide(
    named: Mapping[str, Samples],
    *,
    profile: str | Spec | None = None,
    order: Order | None = None,
    class_order: ClassOrder = "native",
    held_out: PerClass | None = 20,
    test: PerClass | None = None,
    seed: int = 0,
) -> Splits:
    """Training, held-out and test samples from the splits that there are.

    Args:
        named: "train", and if there are any "val" (or "held_out") and "test", which are used as they are.
        profile: a long tail to cut the training samples to, as in `long_tailed`.
        order: which samples of a class the profile takes first.
        class_order: which classes the profile makes rare.
        held_out: without a "val", how many of each class to set aside (`carve`); None for no held-out samples. Those
            that the profile leaves over come first.
        test: the same without a "test"; they are taken before the profile is cut.
        seed: of the shuffles that choose what is set aside.

    Raises: InputError for an unknown or empty split, classes that differ, training samples of one class, or if nothing
    can be set aside. Warns (PoiseWarning) about classes without training or without test samples, and groups that
    given splits share.
    """
    _check(named)
    origins = {_part(name): Origin(name, torch.arange(len(named[name]))) for name in named}
    notes = [f"{part}: the split {name!r} of {len(rows)} samples" for part, (name, rows) in origins.items()]
    if test is not None and "test" not in origins:
        if str(profile) in SPLITS:
            raise InputError(
                f"{profile} is cut from the whole training set, and test samples would be taken out of it first; name "
                "the test samples (--test), or set data.test_rows=0"
            )
        rows, aside = carve(named["train"], test, order=seed)
        origins |= {"train": Origin("train", rows), "test": Origin("train", aside)}
        notes.append(f"test: {len(aside)} samples set aside, {_amount(test)}")
    within = origins["train"].rows
    pool = named["train"].take(within)
    tail = None
    if profile is not None:
        tail = long_tailed(pool, profile, order=order, class_order=class_order)
        origins["train"] = Origin("train", within[tail.rows])
        notes.append(f"train: {len(tail.rows)} of {len(pool)} samples by {tail.text} (hash {tail.hash})")
    if held_out is not None and "held_out" not in origins:
        rows, aside = carve(pool, held_out, order=seed, tail=tail)
        origins |= {"train": Origin("train", within[rows]), "held_out": Origin("train", within[aside])}
        spare = tail is not None and len(rows) == len(tail.rows)
        source = "that the profile left over" if spare else "set aside from training"
        notes.append(f"held_out: {len(aside)} samples {source}, {_amount(held_out)}")
    parts = {part: named[name].take(rows) for part, (name, rows) in origins.items()}
    remarks = _remarks(parts)
    for remark in remarks:
        warnings.warn(remark, PoiseWarning, stacklevel=2)
    return Splits(parts["train"], parts.get("held_out"), parts.get("test"), origins, (*notes, *remarks))


def _part(split: str) -> str:
    """What a given split is for."""
    return "held_out" if split == "val" else split


def _amount(per_class: PerClass) -> str:
    return f"up to {per_class} of each class" if is_whole(per_class) else f"{per_class:.4g} of each class"


def _check(named: Mapping[str, Samples]) -> None:
    known = ("train", "val", "held_out", "test")
    for name, samples in named.items():
        if name not in known:
            raise InputError(f"no split is called {name!r}{near(name, known) or ';'} the splits are {', '.join(known)}")
        if len(samples) == 0:
            raise InputError(f"the split {name!r} is empty; add samples, or leave it out")
    if "train" not in named:
        raise InputError(f"there is no split 'train', only {', '.join(named) or 'nothing'}; name the training samples")
    if "val" in named and "held_out" in named:
        raise InputError("'val' and 'held_out' are the same split; give one of them")
    for name, samples in named.items():
        _same_classes(name, samples.class_names, named["train"].class_names)


def _same_classes(split: str, names: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    if names == wanted:
        return
    if len(names) != len(wanted):
        raise InputError(f"'train' has {len(wanted)} classes and {split!r} has {len(names)}; both need the same names")
    k = next(k for k, pair in enumerate(zip(names, wanted, strict=True)) if pair[0] != pair[1])
    raise InputError(
        f"class {k} is {wanted[k]!r} in 'train' and {names[k]!r} in {split!r}; both need the same names in one order"
    )


def _remarks(parts: Mapping[str, Samples]) -> list[str]:
    """What is legal and should be known. Raises: InputError for training samples of one class."""
    train, test = parts["train"], parts.get("test")
    if classes_in(train.y) < 2:
        raise InputError("the training samples are all of one class; a classifier needs samples of at least two")
    absent = _listed(train, train.counts.n == 0)
    unjudged = "" if test is None else _listed(train, (train.counts.n > 0) & (test.counts.n == 0))
    shared = [(name, _shared_groups(train, part)) for name, part in parts.items() if name != "train"]
    return [
        *([f"without a training sample, kept as classes: {absent}"] if absent else []),
        *([f"without a test sample, left out of the mean of recalls: {unjudged}"] if unjudged else []),
        *(
            f"{len(groups)} groups are in both train and {name}: {some(groups)}; what is measured there is too good"
            for name, groups in shared
            if groups
        ),
    ]


def _listed(samples: Samples, mask: Tensor) -> str:
    names = [repr(samples.class_names[k]) for k in mask.nonzero().flatten().tolist()]
    return f"{len(names)} of {len(mask)} classes ({some(names)})" if names else ""


def _shared_groups(one: Samples, other: Samples) -> list[str]:
    return sorted(set(one.groups or ()) & set(other.groups or ()))
