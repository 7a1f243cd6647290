"""Stage 1 on real CIFAR-100 (imbalance 100), from pixels to features: does `poise train` reach the published accuracy?

Run: POISE_DATA=DATA python experiments/stage1.py NAME [--out RUN] [--features FILE.npz] [--seed S]

NAME is ce_cifar100_lt (crop and flip, batch 128; published plain cross-entropy on this network: 38.3 to 39.1) or
ce_autoaugment_cifar100_lt (AutoAugment and Cutout, batch 64; 42.5 by hand before Poise existed). DATA holds
cifar100/train.parquet and test.parquet. The run is `poise train NAME`, 200 epochs, last epoch, no flip at test time,
and no test split in any choice; stop it as you like, the same command goes on. At the end the page of the run goes to
experiments/results/stage1_NAME.md with the log beside it, and with --features the rows as the package ships them.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np

from poise.cli import main as poise
from poise.commands.config import config_hash, dump_config, load_config
from poise.data.store.feature_store import load_features
from poise.machine.atomic import write_atomically
from poise.representation.trained_network import load_representation
from poise.values.head import Head

PUBLISHED = {"ce_cifar100_lt": "38.3 to 39.1", "ce_autoaugment_cifar100_lt": "none; 42.5 by hand"}
AIMS = {"ce_cifar100_lt": 38.0, "ce_autoaugment_cifar100_lt": 41.5}


def main() -> None:
    """Train if the run is not finished, then write its page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(PUBLISHED))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--seed", type=int)
    given = parser.parse_args()
    if "POISE_DATA" not in os.environ:
        sys.exit("POISE_DATA must name the folder that holds cifar100/train.parquet and test.parquet")
    data = Path(os.environ["POISE_DATA"]) / "cifar100"
    run = given.out or Path("runs") / given.name
    words = ["train", given.name, "--data", str(data / "train.parquet"), "--test", str(data / "test.parquet")]
    words += [] if given.seed is None else ["-s", f"stage1.seed={given.seed}"]
    try:
        poise([*words, "--out", str(run)])
    except SystemExit as stop:
        if stop.code:
            raise
    page(run, given.name, Path("experiments/results"))
    if given.features:
        write_shipped(run, given.features)


def page(run: Path, name: str, results: Path) -> None:
    """Write the page of a finished run, its log, and its configuration without the place of the data."""
    scores = json.loads((run / "stage1.json").read_text())
    split = json.loads((run / "split.json").read_text())
    where = json.loads((run / "environment.json").read_text())
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    config = load_config(run / "config.yaml")
    stores = {part: load_features(run / "features" / part) for part in scores}
    hours = sum(row["seconds"] for row in log) / 3600
    lines = [
        f"# {config.title}",
        "",
        f"`poise train {name}`: {len(log)} epochs from pixels, last epoch, no flip at test time, no test split in any "
        f"choice. Beside this page lie the log (.csv) and the configuration (.yaml).",
        "",
        "| part | rows | all | many | medium | few | content key |",
        "|---|---:|---:|---:|---:|---:|---|",
        *(
            f"| {part} | {found['rows']} | "
            + " | ".join(_percent(found[key]) for key in ("accuracy", "many", "medium", "few"))
            + f" | {stores[part].key} |"
            for part, found in scores.items()
        ),
        "",
        f"Published: {PUBLISHED[name]}. Aim: at least {AIMS[name]} on test; the standard error of one training over "
        f"the test images is {100 * standard_error(scores['test']):.2f}. Last training loss {log[-1]['loss']:.4f}.",
        "",
        f"Command: `python experiments/stage1.py {name}`; seed {config.stage1.seed if config.stage1 else 0}; split "
        f"hash {split['hash']}; configuration {config_hash(config)}; {len(log)} epochs in {hours:.2f} hours of a "
        f"machine that did other work too ({log[-1]['images_per_second']:.0f} images/s in the last epoch); "
        + ", ".join(f"{key} {value}" for key, value in where["versions"].items())
        + ".",
        "",
    ]
    write_atomically(results / f"stage1_{name}.md", "\n".join(lines))
    shutil.copyfile(run / "log.csv", results / f"stage1_{name}.csv")
    plain = config.model_copy(update={"data": config.data.model_copy(update={"train": None, "test": None})})
    write_atomically(results / f"stage1_{name}.yaml", dump_config(plain))


def standard_error(found: dict[str, float]) -> float:
    """Of an accuracy, over images."""
    return float((found["accuracy"] * (1 - found["accuracy"]) / found["rows"]) ** 0.5)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def write_shipped(run: Path, path: Path) -> None:
    """Write the rows of a run in the form of `poise/demo_data/features`."""
    parts = {part: load_features(run / "features" / part) for part in ("train", "held_out", "test")}
    head = load_representation(run / "representation").head
    assert isinstance(head, Head)
    arrays = {part: rows.x[0].half().numpy() for part, rows in parts.items()}
    arrays |= {f"y_{part}": rows.y.numpy() for part, rows in parts.items()}
    if len(parts["train"].x) > 1:
        arrays["views"] = parts["train"].x[1:].half().numpy()
    arrays |= {"W": head.weight.float().numpy(), "b": head.bias.float().numpy(), "n": parts["train"].counts.n.numpy()}
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main()
