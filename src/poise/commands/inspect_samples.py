"""What can be known of images or texts before a backbone is chosen, and what to do next."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL.Image import Image

from poise.commands.class_size_lines import CLASS, Groups, classes_of_size, group_lines, groups_of, listed
from poise.data.leakage import SameBy, keys, repeats, shared
from poise.data.samples.sample_set import Items, Kind, Samples
from poise.errors import InputError
from poise.machine.progress import Progress
from poise.values.counts import ClassCounts
from poise.values.fields import optional, whole
from poise.values.wording import counted, some

JUDGED = 5  # samples from which on accuracy of a class says something
SMALL_SIDE = 64  # pixels: below, networks for small pictures fit, and photographs' networks see little
SCRATCH_ROWS = 50_000  # training samples from which a representation of photographs can be learnt from nothing


@dataclass(frozen=True, kw_only=True)
class Look:
    """What reading some samples showed.

    `smallest` and `largest` are (width, height) of pictures, by area, or (words, 1) of texts; None if none could be
    read. `broken` names those that could not.
    """

    read: int
    smallest: tuple[int, int] | None
    largest: tuple[int, int] | None
    broken: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SplitSurvey:
    """Numbers of one split.

    `groups` holds classes and rows of many, medium and few; `largest` and `smallest` are name and size of a class that
    has samples; `scarce` are classes of 2 to 4 samples, with their size. `row_groups` counts what is never divided
    (site, patient), None without. `repeated` counts samples that repeat an earlier one of the split and `conflicts`
    those of them with another label; None where samples were not compared.
    """

    rows: int
    classes: int
    imbalance: float
    largest: tuple[str, int]
    smallest: tuple[str, int]
    groups: Groups
    empty_classes: tuple[str, ...]
    singletons: tuple[str, ...]
    scarce: tuple[str, ...]
    row_groups: int | None
    repeated: int | None
    conflicts: int | None
    look: Look


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Numbers of a data set; `leaked` counts samples of the other splits that are training samples too."""

    kind: Kind
    splits: dict[str, SplitSurvey]
    leaked: dict[str, int]
    advice: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON types; `broken` is null where only some were looked at and none of these was."""
        data = asdict(self)
        for split in data["splits"].values():
            if not split["look"]["broken"] and split["look"]["read"] < split["rows"]:
                split["look"]["broken"] = None
        return data

    def lines(self) -> list[str]:
        """The numbers as sentences for a terminal, without the advice."""
        found = [line for name, split in self.splits.items() for line in _lines(name, split, self.kind)]
        return [*found, *(f"{name} samples that are training samples too: {n}" for name, n in self.leaked.items() if n)]


def survey(
    named: Mapping[str, Samples],
    *,
    read: int | None = 64,
    same_by: SameBy | None = "bytes",
    progress: Progress | None = None,
) -> Survey:
    """Counts, sizes, repeated and broken samples of the splits of a data set, and advice.

    Args:
        named: the splits by name.
        read: how many samples of each split are read, evenly spaced, for their sizes; None for all, which counts every
            broken file.
        same_by: how equal samples are found, which reads all (`poise.data.leakage`); None to skip it. A split with a
            sample that cannot be read is not compared.
        progress: is told of each sample, done and in all, first of those compared and then of those read.

    Images of a list whose folder is not known are counted, and nothing is said of the images themselves.

    Raises: InputError without a split, or for a split without samples.
    """
    if not named:
        raise InputError("there is no split to look at; name some samples")
    optional(whole(1)).check("read", read)
    empty = [name for name, samples in named.items() if len(samples) == 0]
    if empty:
        raise InputError(f"the split {empty[0]!r} is empty; add samples, or leave it out")
    found = {name: None if same_by is None else _keys(samples, same_by, progress) for name, samples in named.items()}
    splits = {
        name: _split(samples, _look(samples.items, read, progress), found[name]) for name, samples in named.items()
    }
    trained = found.pop("train", None)
    leaked = {name: len(shared(trained, of_part)) for name, of_part in found.items() if trained and of_part}
    kind = next(iter(named.values())).items.kind
    return Survey(kind=kind, splits=splits, leaked=leaked, advice=tuple(_advice(kind, splits, leaked)))


def _keys(samples: Samples, by: SameBy, progress: Progress | None) -> tuple[str, ...] | None:
    try:
        return keys(samples, by=by, progress=progress)
    except InputError:  # what is broken is counted where samples are read
        return None


def _split(samples: Samples, look: Look, found: tuple[str, ...] | None) -> SplitSurvey:
    counts, names = samples.counts, samples.class_names
    n = counts.n
    present = n.nonzero().flatten()
    most, least = int(n.argmax()), int(present[n[present].argmin()])
    of_size = partial(classes_of_size, counts, names)
    again = None if found is None else repeats(found, samples.y.tolist())
    return SplitSurvey(
        rows=len(samples),
        classes=len(n),
        imbalance=float(n[most] / n[least]),
        largest=(names[most], int(n[most])),
        smallest=(names[least], int(n[least])),
        groups=groups_of(counts),
        empty_classes=tuple(of_size(0, 0).values()),
        singletons=tuple(of_size(1, 1).values()),
        scarce=scarce(counts, names),
        row_groups=None if samples.groups is None else len(set(samples.groups)),
        repeated=None if again is None else again.rows,
        conflicts=None if again is None else len(again.conflicts),
        look=look,
    )


def scarce(counts: ClassCounts, names: Sequence[str]) -> tuple[str, ...]:
    """Names and sizes of the classes that have more than one sample, and too few to be judged by."""
    return tuple(f"{name}: {counts.n[k]}" for k, name in classes_of_size(counts, names, 2, JUDGED - 1).items())


def _look(items: Items, read: int | None, progress: Progress | None) -> Look:
    if not getattr(items, "located", True):  # a list of paths without their folder
        return Look(read=0, smallest=None, largest=None, broken=())
    rows = np.unique(np.linspace(0, len(items) - 1, min(len(items), read or len(items))).round().astype(int)).tolist()
    sizes, broken = [], []
    for done, row in enumerate(rows, start=1):
        if progress is not None:
            progress(done, len(rows))
        try:
            sizes.append(_size(items.read(row)))
        except InputError:
            broken.append(items.describe(row))
    sizes.sort(key=lambda size: (size[0] * size[1], size))
    ends = (sizes[0], sizes[-1]) if sizes else (None, None)
    return Look(read=len(rows), smallest=ends[0], largest=ends[1], broken=tuple(broken))


def _size(sample: Image | str) -> tuple[int, int]:
    return (len(sample.split()), 1) if isinstance(sample, str) else sample.size


# --- in words --------------------------------------------------------------------------------------------------------


def _lines(name: str, split: SplitSurvey, kind: Kind) -> list[str]:
    head = f"{name}: {counted(split.rows, kind)}, {counted(split.classes, *CLASS)}"
    named = {
        "empty classes": split.empty_classes,
        "classes of one sample": split.singletons,
        f"classes of 2 to {JUDGED - 1} samples": split.scarce if name == "train" else (),
    }
    return [
        head + (f", {counted(split.row_groups, 'group')}" if split.row_groups is not None else ""),
        _class_sizes(split),
        *(group_lines(split.groups, "sample") if name == "train" else []),
        *listed(named),
        *_look_lines(split.look, kind),
        *([f"samples that repeat an earlier one: {split.repeated}"] if split.repeated else []),
        *([f"of these with another label: {split.conflicts}"] if split.conflicts else []),
    ]


def _class_sizes(split: SplitSurvey) -> str:
    (most, largest), (least, smallest) = split.largest, split.smallest
    if largest == smallest:
        return f"class sizes {largest}: balanced"
    return f"class sizes {largest} ({most}) down to {smallest} ({least}): imbalance {split.imbalance:.4g}"


def _look_lines(look: Look, kind: Kind) -> list[str]:
    found = []
    if look.smallest is not None and look.largest is not None:
        texts = [_size_text(size, kind) for size in dict.fromkeys((look.smallest, look.largest))]
        found.append(f"sizes {' to '.join(texts)} ({counted(look.read - len(look.broken), kind)} looked at)")
    if look.broken:
        found.append(f"cannot be read: {len(look.broken)} of {look.read} ({some(look.broken, 3)})")
    return found


def _size_text(size: tuple[int, int], kind: Kind) -> str:
    return f"{size[0]} x {size[1]} pixels" if kind == "image" else f"{size[0]} words"


def _advice(kind: Kind, splits: Mapping[str, SplitSurvey], leaked: Mapping[str, int]) -> list[str]:
    if "train" not in splits:
        return ["These are no training samples: what is rare is told by the training split."]
    train = splits["train"]
    broken = sum(len(split.look.broken) for split in splits.values())
    remarks: tuple[tuple[object, str], ...] = (
        (broken, f"{broken} samples cannot be read: repair or remove them, or say in which folder they are."),
        (any(leaked.values()), "Training samples are in another split too: remove them from one of the two."),
        (train.conflicts, "Equal samples have different labels: decide which is right, or remove them."),
        (train.row_groups, "Groups stay whole in every split made here; see that given splits share none."),
        (train.imbalance < 2, "The classes are nearly balanced: re-balancing has little to correct here."),
        (train.singletons, "A class of one sample can be learnt but not judged: collect more, or merge it."),
        (
            train.scarce,
            f"A class of 2 to {JUDGED - 1} samples can hardly be judged: of it, one or two can be set aside.",
        ),
        (train.empty_classes, "Empty classes stay in the list of classes but cannot be learnt: add samples."),
    )
    return [_held_out(splits), _backbone(kind, train), *(text for holds, text in remarks if holds)]


def _held_out(splits: Mapping[str, SplitSurvey]) -> str:
    if "val" in splits or "held_out" in splits:
        return "Held-out samples are there: they select and calibrate, and must not train the backbone."
    return (
        "`poise fit` sets samples aside by itself, to select and to calibrate on: on samples that train a backbone "
        "nothing can be selected."
    )


def _backbone(kind: Kind, train: SplitSurvey) -> str:
    if kind == "text":
        return "Texts need no training of a backbone: a pretrained sentence encoder gives features."
    side = None if train.look.largest is None else max(train.look.largest)
    if side is not None and side <= SMALL_SIDE:
        return (
            "Small pictures: `poise fit` trains convnet4 from nothing, with crop and flip; where a mirrored picture "
            "means something else, leave the flip out: -s 'stage1.augment=[crop]'."
        )
    if train.rows < SCRATCH_ROWS:
        return "Too few pictures to learn a representation from nothing: `poise fit` starts from a pretrained backbone."
    return (
        "Enough pictures to train a backbone from nothing; the pretrained one of `poise fit` costs less and is usually "
        "better."
    )
