"""The real data that come with the package: features of images, and questions to embed."""

import csv
import gzip
import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from poise.checks import check_one_of
from poise.errors import InputError
from poise.profiles import exponential, select
from poise.progress import Progress
from poise.text import embed_cached
from poise.types import ClassCounts, Features, Head, Problem

__all__ = ["DEMO_SETS", "TEXT_SETS", "DemoSet", "load_demo", "load_text_demo", "read_demo"]

DEMO_SETS: Mapping[str, str] = MappingProxyType(
    {
        "cifar100lt_r32_autoaugment": "ResNet-32 on CIFAR-100-LT (IF 100), AutoAugment and Cutout",
        "cifar100lt_r32": "ResNet-32 on CIFAR-100-LT (IF 100), crop and flip",
    }
)

TEXT_SETS: Mapping[str, str] = MappingProxyType(
    {
        "natural": "all-MiniLM-L6-v2 on Banking77, natural counts (187 to 35)",
        "exponential": "all-MiniLM-L6-v2 on Banking77, exponential counts (IF 50)",
    }
)


class DemoSet(NamedTuple):
    """A shipped problem (training rows, stage-1 head, held-out rows) and its test split."""

    name: str
    problem: Problem
    test: Features


def load_demo(name: str = "cifar100lt_r32_autoaugment") -> DemoSet:
    """Real stage-1 features of CIFAR-100-LT, imbalance 100, D = 64.

    10,847 training, 1,971 held-out and 10,000 test rows. The training rows trained the backbone and say so; the
    held-out and test rows did not. Origin, recipe and licence are in demo_features/README.md.

    Raises: InputError for a name that is not in `DEMO_SETS`.
    """
    if name not in DEMO_SETS:
        raise InputError(f"no demo set is called {name!r}; there are {', '.join(DEMO_SETS)}")
    with as_file(files("poise") / "demo_features" / f"{name}.npz") as path:
        return read_demo(name, path)


def read_demo(name: str, path: Path) -> DemoSet:
    """A file in the form that demo_features/README.md describes, as a problem and its test split."""
    names = tuple((files("poise") / "demo_features" / "classes.txt").read_text(encoding="utf-8").split())
    with np.load(path, allow_pickle=False) as file:
        stored = {key: torch.from_numpy(file[key]) for key in file.files}
    counts = ClassCounts(stored["n"])
    views = torch.cat(
        [stored["train"].unsqueeze(0), stored.get("views", stored["train"].new_empty(0, *stored["train"].shape))]
    )
    train = Features(views, stored["y_train"], counts, seen_by_backbone=True, class_names=names)
    held_out = replace(train, x=stored["held_out"], y=stored["y_held_out"], seen_by_backbone=False)
    test = replace(train, x=stored["test"], y=stored["y_test"], seen_by_backbone=False)
    return DemoSet(name, Problem(train, Head(stored["W"], stored["b"]), held_out), test)


def load_text_demo(profile: str = "natural", *, progress: Progress | None = None) -> DemoSet:
    """Questions to a bank, 77 intents (Banking77), embedded by all-MiniLM-L6-v2; D = 384, 3,080 test rows.

    `natural`: the 10,003 training rows as they are, 187 to 35 per class. `exponential`: 2,897 of them, 150 to 3 per
    class, imbalance 50. There is no stage-1 head and no held-out row: the model was not trained on these rows,
    so cross-validation on them is valid. The first use embeds all texts (under a minute on two cores) and
    keeps the rows in `text.cache_folder()`. Origin, licence and profiles are in demo_text/README.md.

    Raises: InputError for a profile that is not in `TEXT_SETS`; MissingExtraError without the extra `text`.
    """
    check_one_of("profile", profile, TEXT_SETS)
    splits, labels, texts = zip(*_questions(), strict=True)
    names = tuple(sorted(set(labels)))
    x, y = embed_cached(texts, progress=progress), torch.tensor([names.index(label) for label in labels])
    is_train = torch.tensor([split == "train" for split in splits])
    train, test = is_train.nonzero().flatten(), (~is_train).nonzero().flatten()
    counts = torch.bincount(y[train], minlength=len(names))
    if profile == "exponential":
        counts = _deal(exponential(150, len(names), 50), counts, names)
        train = train[select(y[train], counts)]
    every = Features(x, y, ClassCounts(counts), seen_by_backbone=False, class_names=names)
    return DemoSet(
        "banking77" if profile == "natural" else "banking77_if50", Problem(every.take(train)), every.take(test)
    )


def _questions() -> list[tuple[str, str, str]]:
    """(split, class name, text) of every question."""
    packed = (files("poise") / "demo_text" / "banking77.csv.gz").read_bytes()
    table = csv.reader(io.StringIO(gzip.decompress(packed).decode(), newline=""))
    next(table)
    return [(split, label, text) for split, label, text in table]


def _deal(counts: Tensor, available: Tensor, names: tuple[str, ...]) -> Tensor:
    """The falling `counts` (C,) dealt out, each to the first class that has so many rows.

    Classes wait in the order of a hash of their names, so that rarity does not follow the alphabet.
    """
    waiting = sorted(range(len(names)), key=lambda k: hashlib.sha256(names[k].encode()).digest())
    dealt = torch.zeros_like(counts)
    for n in counts.tolist():
        k = next(k for k in waiting if available[k] >= n)
        waiting.remove(k)
        dealt[k] = n
    return dealt
