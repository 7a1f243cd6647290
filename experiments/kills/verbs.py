"""The commands that write, each small enough to be killed a hundred times.

All of them work in a folder `work` beside a folder `given` with their inputs. What is there before is an older result
of another seed or setting, or nothing where a command goes on with what it finds.
"""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

NAMES = ("zebra", "ant", "cat")
SIDE = 8
TRAINING = ["-s", f"backbone.size={SIDE}", "-s", "stage1.epochs=1", "-s", "stage1.warmup_epochs=0"]
TRAINING += ["-s", "stage1.batch_size=5", "-s", "stage1.precision=float32"]
TRAINING += ["-s", "heads.methods=[tau_norm]", "-s", "heads.budget=2"]
PICTURES = ["../given/pictures", *TRAINING]
TEXTS = ["../given/texts.csv", "--text", "text", "-m", "ncm"]


class Verb(NamedTuple):
    """One row of the table.

    `before` makes the older result and `command` the newer one; both run in the same folder. `place` is the result
    below it, which begins as a copy of what `brings` names in `given`. `patch` is called in the process of the command.
    A command that `grows` a folder may leave a part of its result, with which it goes on. Of what is not `checked`,
    `poise check` has nothing to say; what is `shared` several processes may write together. A result is whole without
    the file `note`, which is beside it and can be made again from it.
    """

    name: str
    command: list[str]
    before: list[str] | None
    place: str = "out"
    patch: Callable[[], object] | None = None
    grows: bool = False
    checked: bool = True
    shared: bool = False
    brings: str | None = None
    note: str | None = None


def _rows(*words: str) -> list[str]:
    return [*words, "--out", "out"]


def few_demo_rows() -> None:
    """The demonstration with three rows of each class in each part, and three methods."""
    import torch

    from poise.commands import demo
    from poise.data.bundled import DemoSet
    from poise.values.features import Features
    from poise.values.spec import Spec

    loads = demo.load_demo

    def few(rows: Any) -> Features:
        return rows.take(torch.cat([(rows.y == k).nonzero().flatten()[:3] for k in range(len(rows.counts.n))]))

    def load_few(name: str) -> DemoSet:
        whole = loads(name)
        problem = replace(whole.problem, train=few(whole.problem.train), held_out=few(whole.problem.held_out))
        return DemoSet(whole.name, problem, few(whole.test))

    demo.load_demo = load_few
    demo.demo_specs = lambda: (Spec("ce"), Spec("ncm"), Spec("tau_norm"))


MODEL, RUN = "../given/model", "../given/compared"
CLOSED = ["-m", "ncm", "-m", "tau_norm", "--budget", "2", "--no-oracle"]
REBALANCE = ["rebalance", "--features", "../given/train.csv", "--held-out", "../given/held.csv", "--class-names"]
REBALANCE += ["../given/names.json", "-m", "tau_norm(tau=0.5)"]
VERBS = (
    Verb(
        "fit (rows)", _rows("fit", "../given/train.csv", "-m", "ncm"), _rows("fit", "../given/other.csv", "-m", "lda")
    ),
    Verb(
        "fit (rows, held out)",
        _rows("fit", "../given/train.csv", "--held-out", "../given/held.csv", "-m", "tau_norm"),
        _rows("fit", "../given/other.csv", "-m", "lda"),
    ),
    Verb("fit (images)", _rows("fit", *PICTURES), None, grows=True),
    Verb("fit (images, again)", _rows("fit", *PICTURES), _rows("fit", *PICTURES, "--prior", "train"), grows=True),
    Verb("fit (texts)", _rows("fit", *TEXTS), None, grows=True),
    Verb("train", _rows("train", "small_images", "--data", *PICTURES), None, grows=True),
    Verb("extract", _rows("extract", "../given/run"), None, grows=True),
    Verb(
        "compare",
        _rows("compare", "../given/train.csv", "--test", "../given/test.csv", *CLOSED),
        _rows("compare", "../given/other.csv", "--test", "../given/test.csv", *CLOSED),
    ),
    Verb(
        "tune",
        _rows("tune", "../given/train.csv", "tau_norm", "--budget", "2"),
        _rows("tune", "../given/other.csv", "tau_norm", "--budget", "3"),
    ),
    Verb(
        "tune --study",
        ["tune", "../given/train.csv", "tau_norm", "--budget", "6", "--together", "3", "--study", "out"],
        None,
        grows=True,
        checked=False,
        shared=True,
    ),
    Verb("export (tensors)", _rows("export", MODEL), _rows("export", "../given/other_model")),
    Verb("export --onnx", _rows("export", MODEL, "--onnx"), _rows("export", "../given/other_model", "--onnx")),
    Verb(
        "export --hub", _rows("export", "../given/images", "--hub"), _rows("export", "../given/other_images", "--hub")
    ),
    Verb(
        "rebalance (file)",
        [*REBALANCE, "../given/last.safetensors", "--out", "new.safetensors"],
        [*REBALANCE, "../given/other_last.safetensors", "--out", "new.safetensors"],
        "new.safetensors",
        note="new.rebalanced.json",
    ),
    Verb(
        "rebalance (file, in place)",
        [*REBALANCE, "own.safetensors", "--out", "own.safetensors", "--overwrite"],
        None,
        "own.safetensors",
        brings="last.safetensors",
        note="own.rebalanced.json",
    ),
    Verb(
        "rebalance (folder, in place)",
        [*REBALANCE, "out", "--out", "out", "--overwrite"],
        None,
        brings="checkpoint",
    ),
    Verb(
        "rebalance (folder)",
        [*REBALANCE, "../given/checkpoint", "--out", "out"],
        [*REBALANCE, "../given/other_checkpoint", "--out", "out"],
    ),
    Verb(
        "report",
        _rows("report", RUN, "-f", "html,md,latex,csv,svg"),
        _rows("report", "../given/other_compared", "-f", "html,md,latex,csv,svg"),
    ),
    Verb(
        "predict",
        ["predict", MODEL, "../given/test.csv", "--out", "answers.csv"],
        ["predict", "../given/other_model", "../given/test.csv", "--out", "answers.csv"],
        "answers.csv",
    ),
    Verb("demo", _rows("demo"), _rows("demo", "--seed", "1"), patch=few_demo_rows),
)

# The inputs that are results themselves, made once in this order in the folder `given`.
GIVEN = (
    ["fit", "train.csv", "-m", "ncm", "--out", "model"],
    ["fit", "other.csv", "-m", "lda", "--out", "other_model"],
    ["train", "small_images", "--data", "pictures", *TRAINING, "--out", "run"],
    ["fit", "pictures", *TRAINING, "--out", "images"],
    ["fit", "pictures", *TRAINING, "--prior", "train", "--out", "other_images"],
    ["compare", "train.csv", "--test", "test.csv", *CLOSED, "--out", "compared"],
    ["compare", "other.csv", "--test", "test.csv", *CLOSED, "--out", "other_compared"],
)


def inputs(folder: Path) -> None:
    """Rows of four features in three classes, checkpoints that end in a layer for them, texts, and small pictures."""
    folder.mkdir()
    for seed, name in enumerate(("train", "other", "held", "test")):
        _table(folder / f"{name}.csv", seed, (12, 7, 5))
    (folder / "names.json").write_text('["zebra", "ant", "cat"]')
    for seed, name in enumerate(("last", "other_last")):
        rng = np.random.default_rng(seed)
        tensors = {
            "fc.weight": rng.normal(size=(3, 4)),
            "fc.bias": rng.normal(size=3),
            "stem.weight": rng.normal(size=(4, 9)),
        }
        path = folder / f"{name}.safetensors"
        save_file({key: value.astype(np.float32) for key, value in tensors.items()}, path)
        inside = folder / name.replace("last", "checkpoint")
        inside.mkdir()
        (inside / "model.safetensors").write_bytes(path.read_bytes())
        (inside / "config.json").write_text('{"model_type": "own"}')
    questions = [f"{kind} {number}" for kind in ("where is my card", "what is the rate") for number in range(12)]
    lines = "".join(f"{text},{text[:5]}\n" for text in questions)
    (folder / "texts.csv").write_text(f"text,label\n{lines}")
    _pictures(folder / "pictures")


def _table(path: Path, seed: int, sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.normal(size=(len(y), 4)) + 2.0 * np.eye(len(sizes), 4)[y]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["f0", "f1", "f2", "f3", "label"])
        writer.writerows([*row, NAMES[k]] for row, k in zip(x.tolist(), y.tolist(), strict=True))


def _pictures(folder: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, size, colour in zip(NAMES, (20, 10, 6), np.eye(3) * 140 + 60, strict=True):
        (folder / name).mkdir(parents=True)
        for number in range(size):
            values = rng.normal(colour, 40, size=(SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(values).save(folder / name / f"{number:03d}.png")
