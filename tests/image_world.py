"""Small generated pictures in folders, and the settings of a run that takes a moment."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = {"ant": 20, "bee": 10, "cat tail": 6}
SIDE = 16
COLOURS = ((200, 60, 60), (60, 200, 60), (60, 60, 200), (200, 200, 60))
# One epoch of a small network, and two settings of one method.
QUICK = (
    f"backbone.size={SIDE}",
    "stage1.epochs=1",
    "stage1.warmup_epochs=0",
    "stage1.batch_size=8",
    "stage1.precision=float32",
    "heads.methods=[tau_norm]",
    "heads.budget=2",
)


def pictures(folder: Path, sizes: Mapping[str, int] = SIZES, *, side: int = SIDE, seed: int = 0) -> Path:
    """folder/CLASS/000.png ...: noise about one colour per class."""
    rng = np.random.default_rng(seed)
    for (name, size), colour in zip(sizes.items(), COLOURS, strict=False):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(size):
            values = rng.normal(colour, 40, size=(side, side, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(values).save(folder / name / f"{index:03d}.png")
    return folder


def table(
    path: Path, folder: Path, *, sites: int = 4, columns: tuple[str, str, str] = ("path", "label", "site")
) -> Path:
    """A table of the pictures of a folder; neighbours share a site."""
    files = sorted(folder.rglob("*.png"))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for index, image in enumerate(files):
            writer.writerow([image.relative_to(path.parent), image.parent.name, f"site {index // sites}"])
    return path


def changed(*more: str) -> list[str]:
    """The settings of a quick run, and more of them, as words of the command line."""
    return [word for change in (*QUICK, *more) for word in ("-s", change)]
