"""Made-up features of a long-tailed set at its published size: class centres on a subspace, and noise.

    python benchmarks/synthetic.py [--folder FOLDER]     writes the store of iNaturalist 2018, 1.8 GB, in a minute

A row is a point of the subspace near the centre of its class, plus noise along all D axes. The subspace is so crowded
that classes overlap: a linear head has something to learn and never gets all right. Rows are made block by block,
each from (seed, part, block) alone, so that a part of any size is the same on every machine and with any memory.

The published counts are read from the folder that the environment variable POISE_DATA names: counts/ImageNet_LT.json
and counts/iNaturalist18.json, lists of training images per class.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# As the command line does: threads that spin while they wait disturb each other on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from measuring import parser, timed
from torch import Tensor

from poise import ClassCounts, Features, Problem
from poise.data.store.growing_store import begin, finish, is_finished, missing, write_shard
from poise.errors import InputError

DIM = 2048
RANK = 48  # of the subspace: the fewer dimensions, the more the classes overlap
SPREAD = 0.6  # of the centres, against rows of a class that spread by 1 in the subspace
NOISE = 0.5  # along every axis
BLOCK = 16_384  # rows
TRAIN, HELD_OUT, TEST = 0, 1, 2  # parts, whose rows share centres and nothing else
CENTRES, ORDER, ROWS = 0, 1, 2  # random streams


def published(name: str, every: int = 1) -> ClassCounts:
    """The counts of a set, of every n-th class. Raises: InputError if POISE_DATA names no folder that holds them."""
    path = Path(os.environ.get("POISE_DATA", "")) / "counts" / f"{name}.json"
    if not path.is_file():
        raise InputError(f"{path} is missing; set POISE_DATA to the folder that holds counts/{name}.json")
    return ClassCounts(torch.tensor(json.loads(path.read_text()))[::every])


class Source(NamedTuple):
    """Where rows come from: centres (C, R) on the axes (R, D) of a subspace."""

    centres: Tensor
    axes: Tensor
    seed: int

    @classmethod
    def of(cls, classes: int, dim: int, seed: int) -> "Source":
        """Centres and axes are normal; the axes have length 1 on average."""
        generator = stream(seed, CENTRES)
        centres = SPREAD * torch.randn(classes, RANK, generator=generator)
        return cls(centres, torch.randn(RANK, dim, generator=generator) * dim**-0.5, seed)

    def labels(self, per_class: Tensor, part: int) -> Tensor:
        """(N,) labels in random order, so many of each class."""
        y = torch.repeat_interleave(torch.arange(len(per_class)), per_class)
        return y[torch.randperm(len(y), generator=stream(self.seed, ORDER, part))]

    def rows(self, y: Tensor, part: int, block: int) -> Tensor:
        """(n, D) float32 rows of the labels y (n,) of one block."""
        generator = stream(self.seed, ROWS, part, block)
        near = self.centres[y] + torch.randn(len(y), self.axes.shape[0], generator=generator)
        noise = torch.randn(len(y), self.axes.shape[1], generator=generator)
        return noise.mul_(NOISE * self.axes.shape[1] ** -0.5).addmm_(near, self.axes)

    def blocks(self, y: Tensor, part: int) -> Iterator[Tensor]:
        """The rows of all labels, block by block."""
        for block, labels in enumerate(y.split(BLOCK)):
            yield self.rows(labels, part, block)


def stream(*key: int) -> torch.Generator:
    """Random numbers that belong to a key."""
    number = 0
    for entry in key:
        number = number * 100_003 + entry + 1
    return torch.Generator().manual_seed(number)


def features(counts: ClassCounts, dim: int, seed: int, part: int = TRAIN, per_class: int | None = None) -> Features:
    """A part in memory, float32: as many rows as `counts` (C,) say, or `per_class` of every class."""
    source = Source.of(len(counts), dim, seed)
    y = source.labels(counts.n if per_class is None else torch.full_like(counts.n, per_class), part)
    x = torch.empty(len(y), dim)
    for to, rows in zip(x.split(BLOCK), source.blocks(y, part), strict=True):
        to.copy_(rows)
    return Features(x, y, counts, seen_by_backbone=part == TRAIN)


def problem(counts: ClassCounts, dim: int = DIM, seed: int = 0) -> tuple[Problem, Features]:
    """Training rows, 20 held-out rows per class and 50 test rows per class."""
    held_out = features(counts, dim, seed, HELD_OUT, 20)
    return Problem(features(counts, dim, seed), held_out=held_out), features(counts, dim, seed, TEST, 50)


def store(counts: ClassCounts, folder: Path, dim: int = DIM, seed: int = 0, shard_blocks: int = 2) -> Path:
    """The training part as a folder of float16 shards, written one at a time; left alone if it is there already.

    Raises: InputError if the folder holds anything else.
    """
    source = Source.of(len(counts), dim, seed)
    y = source.labels(counts.n, TRAIN)
    made = {"rows": len(y), "classes": len(counts), "dim": dim, "seed": seed, "recipe": [RANK, SPREAD, NOISE, BLOCK]}
    folder.mkdir(parents=True, exist_ok=True)
    begin(folder, made)
    shards = list(enumerate(y.split(shard_blocks * BLOCK)))
    if is_finished(folder):
        return folder
    for number in missing(folder, len(shards)):
        labels = shards[number][1]
        parts = [source.rows(some, TRAIN, number * shard_blocks + i) for i, some in enumerate(labels.split(BLOCK))]
        write_shard(folder, number, torch.cat(parts).unsqueeze(0), labels, torch.float16)
    options = {"dtype": torch.float16, "class_names": None, "seen_by_backbone": True}
    return finish(folder, len(shards), counts, **options, provenance={"extraction": made, "made": "synthetic"})


def default_folder(name: str) -> Path:
    """Where the store of a set is written unless told otherwise."""
    return Path(tempfile.gettempdir()) / "poise-benchmarks" / name


def main() -> None:
    """Write the store of iNaturalist 2018."""
    arguments = parser(__doc__, "synthetic", "every 40th class, 64 columns")
    arguments.add_argument("--folder", type=Path)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    every, dim = (40, 64) if given.quick else (1, DIM)
    folder = given.folder or default_folder("inaturalist18-quick" if given.quick else "inaturalist18")
    counts = published("iNaturalist18", every)
    seconds = timed(lambda: store(counts, folder, dim))
    print(f"{folder}: {int(counts.n.sum())} rows of {len(counts)} classes, D = {dim}, in {seconds:.1f} s")


if __name__ == "__main__":
    main()
