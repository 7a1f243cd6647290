"""The real features that come with the package."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch

from poise.errors import InputError
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem

DEMO_SETS: Mapping[str, str] = MappingProxyType(
    {
        "cifar100lt_r32_autoaugment": "ResNet-32 on CIFAR-100-LT (IF 100), AutoAugment and Cutout",
        "cifar100lt_r32": "ResNet-32 on CIFAR-100-LT (IF 100), crop and flip",
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
    held-out and test rows did not. Origin, recipe and licence are in demo_data/features/README.md.

    Raises: InputError for a name that is not in `DEMO_SETS`.
    """
    if name not in DEMO_SETS:
        raise InputError(f"no demo set is called {name!r}; there are {', '.join(DEMO_SETS)}")
    with as_file(files("poise") / "demo_data" / "features" / f"{name}.npz") as path:
        return read_demo(name, path)


def read_demo(name: str, path: Path) -> DemoSet:
    """A file in the form that demo_data/features/README.md describes, as a problem and its test split."""
    names = tuple((files("poise") / "demo_data" / "features" / "classes.txt").read_text(encoding="utf-8").split())
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
