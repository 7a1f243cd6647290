"""The real features and photographs that come with the package."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from zipfile import ZipFile

import numpy as np
import torch

from poise.errors import InputError, reason_of
from poise.machine.folders import replacing_folder
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


def unpack_photographs(folder: Path) -> Path:
    """Write the photographs that come with the package to a folder, as somebody's own data would lie there.

    `folder/{train,test}/CLASS/NAME.jpg`: 514 photographs of clothing, 180 of T-shirts down to 4 of skirts, and 290 of
    the same ten classes to test on. Origin and licence are in demo_data/photographs/README.md. A folder that holds
    exactly these is left as it is.

    Raises: InputError if the folder holds anything else, or the disk refuses.
    """
    with as_file(files("poise") / "demo_data" / "photographs" / "clothing.zip") as path, ZipFile(path) as archive:
        wanted = {info.filename: info.file_size for info in archive.infolist()}
        held = (file for file in folder.rglob("*") if file.is_file())
        found = {file.relative_to(folder).as_posix(): file.stat().st_size for file in held}
        if found == wanted:
            return folder
        if folder.is_file() or not set(found) <= set(wanted):
            raise InputError(f"{folder} holds other things than the photographs of the demo; choose another folder")
        try:
            with replacing_folder(folder) as stage:
                for name in wanted:  # all of them are of ours, and below the folder
                    (stage / name).parent.mkdir(parents=True, exist_ok=True)
                    (stage / name).write_bytes(archive.read(name))
        except OSError as error:
            raise InputError(f"cannot write the photographs to {folder}: {reason_of(error)}") from None
    return folder
