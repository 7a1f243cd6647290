"""Small files that the pages of the documentation work on, one function per `<!-- prepare: NAME -->`.

Each writes into a folder, which is the working directory of the page. The values are made up: the pages show how things
are done, not what they reach.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from image_world import pictures

Array = npt.NDArray[np.float32]

BIRDS = {"bittern": 14, "crake": 6, "heron": 120, "osprey": 40}  # in the order of their numbers
DIM = 8
SITES = 12
QUESTIONS = {
    "lost card": ("I lost my {} card", "my {} card is gone", "somebody stole my {} card", "where is my {} card"),
    "top up": ("how do I top up with {}", "can I add money by {}", "topping up by {} failed", "is {} a way to top up"),
    "exchange": ("exchange rate for {}", "can I pay in {}", "what does changing {} cost", "do you take {}"),
}
WORDS = MappingProxyType(
    {
        "lost card": ("bank", "credit", "blue", "new", "old", "second", "virtual", "debit"),
        "top up": ("cheque", "transfer", "cash"),
        "exchange": ("euros", "yen"),
    }
)


def rows(sizes: tuple[int, ...], seed: int, dim: int = DIM) -> tuple[Array, npt.NDArray[np.int64]]:
    """Features (N, dim) about one centre per class, and labels (N,)."""
    y = np.repeat(np.arange(len(sizes)), sizes)
    centres = np.random.default_rng(0).normal(size=(len(sizes), dim)) * 1.2
    return (centres[y] + np.random.default_rng(seed).normal(size=(len(y), dim))).astype(np.float32), y


def birds(here: Path) -> None:
    """birds.csv with f0 ... f7, species and site; new.csv without species; prior.json and costs.json."""
    names, columns = list(BIRDS), [f"f{i}" for i in range(DIM)]
    x, y = rows(tuple(BIRDS.values()), seed=1)
    lines = [
        [*map("{:.4f}".format, row), names[c], f"site{i % SITES}"] for i, (row, c) in enumerate(zip(x, y, strict=True))
    ]
    (here / "birds.csv").write_text("\n".join(map(",".join, [[*columns, "species", "site"], *lines])) + "\n")
    x, _ = rows((5, 5, 5, 5), seed=2)
    lines = [[f"photo{i:02d}.jpg", *map("{:.4f}".format, row)] for i, row in enumerate(x)]
    (here / "new.csv").write_text("\n".join(map(",".join, [["file", *columns], *lines])) + "\n")
    (here / "prior.json").write_text(json.dumps(dict(zip(names, (0.07, 0.03, 0.7, 0.2), strict=True))))
    (here / "costs.json").write_text(json.dumps({"crake": 5}))


def photos(here: Path) -> None:
    """photos/heron, photos/osprey ... of 32 pixels; more_photos; checked_photos/heron ...; photos.csv by path."""
    pictures(here / "photos", {"heron": 30, "osprey": 16, "bittern": 8}, side=32)
    pictures(here / "more_photos", {"new": 5}, side=32, seed=3)
    pictures(here / "checked_photos", {"heron": 3, "osprey": 3, "bittern": 3}, side=32, seed=4)
    files = sorted((here / "photos").rglob("*.png"))
    lines = [f"{path.relative_to(here)},{path.parent.name},site{i % SITES}" for i, path in enumerate(files)]
    (here / "photos.csv").write_text("\n".join(["path,species,site", *lines]) + "\n")


def intents(here: Path) -> None:
    """intents.csv with question and intent; new_questions.csv with question."""
    lines = [
        f"{form.format(word)},{intent}"
        for intent, forms in QUESTIONS.items()
        for form in forms
        for word in WORDS[intent]
    ]
    (here / "intents.csv").write_text("\n".join(["question,intent", *lines]) + "\n")
    (here / "new_questions.csv").write_text("question\nmy card is lost\nmay I pay in dollars\n")


def trained_model(here: Path, *, named: bool = True) -> None:
    """What a trained network leaves: features and labels of three splits, its last layer, and its checkpoint.

    train.npz (x, y, which trained the network), held_out.npz, test.npz; head.npz (weight, bias); model.safetensors, in
    which the same layer is called fc. Labels are names, or the numbers 0, 1, ...
    """
    sizes = tuple(BIRDS.values())
    for name, split, seed in (("train", sizes, 1), ("held_out", (12, 12, 12, 12), 4), ("test", (25, 25, 25, 25), 5)):
        x, y = rows(split, seed)
        # Numbers and class_names, not names alone: those would be sorted, and the rows of the layer are not.
        names = {"class_names": np.array(list(BIRDS))} if named else {}
        np.savez(here / f"{name}.npz", x=x, y=y, **names)
    weight, bias = _layer(*rows(sizes, 1))
    np.savez(here / "head.npz", weight=weight, bias=bias)
    body = np.random.default_rng(0).normal(size=(DIM, 4)).astype(np.float32)
    save_file({"body.weight": body, "fc.weight": weight, "fc.bias": bias}, here / "model.safetensors")


def logits(here: Path) -> None:
    """logits.npz: logits (N, C) and labels of test rows, counts (C,) of the training split, held-out logits."""
    sizes = tuple(BIRDS.values())
    weight, bias = _layer(*rows(sizes, 1))
    (test, y), (held_out, v) = rows((40, 40, 40, 40), 5), rows((15, 15, 15, 15), 4)
    np.savez(
        here / "logits.npz",
        logits=test @ weight.T + bias,
        labels=y,
        counts=np.array(sizes),
        class_names=np.array(list(BIRDS)),
        held_out_logits=held_out @ weight.T + bias,
        held_out_labels=v,
    )


def _layer(x: Array, y: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    """Weight (C, D) and bias (C,) as a network has them that was trained on these rows: least squares, scaled."""
    found = np.linalg.lstsq(np.c_[x, np.ones(len(x))], 6 * np.eye(y.max() + 1)[y], rcond=None)[0].T.astype(np.float32)
    return np.ascontiguousarray(found[:, :-1]), np.ascontiguousarray(found[:, -1])


def installed(here: Path, *, module: str, **methods: str) -> None:
    """What pip writes when a package with this module and entry points for these methods is installed."""
    info = here / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n")
    points = [f"{name} = {module}:{value}" for name, value in methods.items()]
    (info / "entry_points.txt").write_text("\n".join(["[poise.methods]", *points]) + "\n")


PREPARATIONS: dict[str, Callable[[Path], None]] = {
    "birds": birds,
    "intents": intents,
    "logits": logits,
    "my_loss": partial(installed, module="my_loss", poly="poly"),
    "my_methods": partial(installed, module="my_methods", brier="brier", smoothed_adjustment="SMOOTHED"),
    "photos": photos,
    "trained_model": trained_model,
    "trained_model_numbered": partial(trained_model, named=False),
}
