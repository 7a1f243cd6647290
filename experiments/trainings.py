"""A queue of trainings from pixels, for the claims about representations: hours of one core each, one after another.

Run: POISE_DATA=DATA python experiments/trainings.py run        take the next unfinished one, and the next, ...
     python experiments/trainings.py status                     what is done, where the current one is, what is left
     python experiments/trainings.py keep                       copy what a fresh machine needs to go on

DATA holds cifar100/train.parquet and test.parquet. `run` is `poise train` with one thread at the lowest priority;
killed at any moment, it goes on where it was with the same bits, also on another machine from a checkpoint that was
kept. Run it from a clone of its own, so that the code of a training does not change under it, and name the checkout
whose results are committed with --results. All choices are stated here before the first epoch; the last epoch is what
counts, and the test split is read once. A finished training leaves NAME/ in the results: README.md with its scores,
log.csv, config.yaml, and features.npz (float16), from which `poise.data.bundled.read_demo` makes a problem.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from stage1 import standard_error, write_shipped

from poise.commands.config import Config, config_hash, dump_config, load_config
from poise.data.store.feature_store import load_features
from poise.machine.atomic import write_atomically
from poise.representation.checkpoints import NEWEST, load_checkpoint
from poise.representation.training_log import rows_of

RESULTS = Path(__file__).parent / "results"
RESUMED = (NEWEST, "log.jsonl")  # what a run needs to go on

SHARED = ("data.profile=cifar100_lt_if100_first", "data.order=null")  # one split for all that can share it
# Classes of rank 29 and later have at most the 130 images that every class of the pool has, so they can change places.
MOVED = [*range(29), *(29 + (37 * k + 11) % 71 for k in range(71))]


class Training(NamedTuple):
    """A recipe and what is changed of it. `accelerated` ones are tried on a GPU only."""

    name: str
    recipe: str
    changes: tuple[str, ...]
    accelerated: bool = False

    @property
    def config(self) -> Config:
        """All settings but the place of the data. Bfloat16 is for machines that multiply in it, not for a record."""
        return load_config(self.recipe, [*self.changes, "stage1.precision=float32"])


QUEUE = (
    Training("gala", "gala_cifar100_lt_if100", SHARED),
    Training("balanced_softmax", "gala_cifar100_lt_if100", (*SHARED, "stage1.loss=balanced_softmax")),
    Training("class_balanced_sampling", "ce_cifar100_lt", (*SHARED, "stage1.sampler=class_balanced")),
    Training("balanced_subset", "ce_cifar100_lt", ("data.profile=exponential(imbalance=1,n_max=108)",)),
    Training("weight_decay_2e-3", "ce_cifar100_lt", (*SHARED, "stage1.weight_decay=2e-3")),
    Training("gala_if200", "gala_cifar100_lt_if200", ("data.profile=cifar100_lt_if200_first", "data.order=null")),
    Training("autoaugment_seed_3", "ce_autoaugment_cifar100_lt", (*SHARED, "stage1.seed=3")),
    Training("weight_decay_0", "ce_cifar100_lt", (*SHARED, "stage1.weight_decay=0.0")),
    Training("plain_seed_2", "ce_cifar100_lt", (*SHARED, "stage1.seed=2")),
    Training("square_root_sampling", "ce_cifar100_lt", (*SHARED, "stage1.sampler=square_root")),
    Training("gala_lambda_1", "gala_cifar100_lt_if100", (*SHARED, "stage1.loss=gala(lambda_pos=1.0,lambda_neg=1.0)")),
    Training("gcl", "gcl_cifar100_lt_if100", SHARED),
    Training(
        "autoaugment_moved_classes",
        "ce_autoaugment_cifar100_lt",
        ("data.profile=exponential(imbalance=100,n_max=500)", f"data.class_order={MOVED}", "stage1.seed=3"),
    ),
    Training("weight_balancing_resnet34", "weight_balancing_cifar100_lt_if100", SHARED, accelerated=True),
)


def main() -> None:
    """Run, report or keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("run", "status", "keep"))
    parser.add_argument("--runs", type=Path, default=Path("runs/trainings"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of what is committed")
    given = parser.parse_args()
    if given.verb == "run":
        run(given.runs, given.results)
    elif given.verb == "keep":
        keep(given.runs, given.results)
    else:
        sys.stdout.write("\n".join(status(given.runs, given.results)) + "\n")


def unfinished(results: Path) -> list[Training]:
    """What is still to be trained on this machine, in order."""
    able = torch.cuda.is_available()
    return [t for t in QUEUE if not (results / t.name / "README.md").exists() and (able or not t.accelerated)]


# --- run --------------------------------------------------------------------------------------------------------------


def run(runs: Path, results: Path) -> None:
    """Train what is unfinished, one after another, until all are done or a signal ends it."""
    if "POISE_DATA" not in os.environ:
        sys.exit("POISE_DATA must name the folder that holds cifar100/train.parquet and test.parquet")
    for training in unfinished(results):
        folder = runs / training.name
        restore(results / training.name, folder)
        code = trained(training, folder)
        if code:
            keep(runs, results)
            sys.exit(code)
        write_results(training, folder, results / training.name)


def restore(kept: Path, folder: Path) -> None:
    """Take the kept checkpoint of a run that has none here, or an older one."""
    if (kept / NEWEST).exists() and step_of(kept) > step_of(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in reversed(RESUMED):
            shutil.copyfile(kept / name, folder / name)


def step_of(folder: Path) -> int:
    """The step of a folder's checkpoint; -1 without one."""
    saved = load_checkpoint(folder) if folder.exists() else None
    return -1 if saved is None else int(saved["step"])


def trained(training: Training, folder: Path) -> int:
    """The exit code of `poise train`; a signal that ends this process lets it save first."""
    data = Path(os.environ["POISE_DATA"]) / "cifar100"
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "settings.yaml"
    write_atomically(settings, dump_config(training.config))
    words = [sys.executable, "-m", "poise", "train", str(settings), "--out", str(folder), "--quiet"]
    words += ["--data", str(data / "train.parquet"), "--test", str(data / "test.parquet")]
    # A second thread beside other work waits for its turn at every operation, and burns what it waits.
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    child = subprocess.Popen(words, env=alone, preexec_fn=lambda: os.nice(19))
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, frame: child.send_signal(number))
    return child.wait()


# --- what is kept -----------------------------------------------------------------------------------------------------


def keep(runs: Path, results: Path) -> None:
    """Copy the newest checkpoint of every unfinished run, if it is newer than the one that was kept."""
    for training in unfinished(results):
        folder, kept = runs / training.name, results / training.name
        if step_of(folder) > step_of(kept):
            kept.mkdir(parents=True, exist_ok=True)
            for name in RESUMED:
                write_atomically(kept / name, (folder / name).read_bytes())


def write_results(training: Training, folder: Path, kept: Path) -> None:
    """Write the page, curve, settings and features of a finished run, and drop the checkpoint that was kept."""
    kept.mkdir(parents=True, exist_ok=True)
    write_shipped(folder, kept / "features.npz")
    shutil.copyfile(folder / "log.csv", kept / "log.csv")
    write_atomically(kept / "config.yaml", dump_config(training.config))
    write_atomically(kept / "README.md", "\n".join(page(training, folder)))
    for name in RESUMED:
        (kept / name).unlink(missing_ok=True)


def page(training: Training, folder: Path) -> list[str]:
    """The lines of the page."""
    config = training.config
    scores = json.loads((folder / "stage1.json").read_text())
    split = json.loads((folder / "split.json").read_text())
    where = json.loads((folder / "environment.json").read_text())
    log = rows_of(folder)
    stores = {part: load_features(folder / "features" / part) for part in scores}
    return [
        f"# {config.title}",
        "",
        f"{len(log)} epochs from pixels, last epoch, no flip at test time, no test split in any choice. Recipe "
        f"`{training.recipe}`, changed by {', '.join(f'`{change}`' for change in training.changes)}.",
        "",
        "| part | rows | all | many | medium | few | content key |",
        "|---|---:|---:|---:|---:|---:|---|",
        *(f"| {part} | {found['rows']} | {percents(found)} | {stores[part].key} |" for part, found in scores.items()),
        "",
        f"The standard error of one training over the test images is {100 * standard_error(scores['test']):.2f} "
        f"points. Last training loss {log[-1]['loss']:.4f}.",
        "",
        f"Command: `python experiments/trainings.py run`; seed {config.stage1.seed if config.stage1 else 0}; split "
        f"hash {split['hash']}; settings {config_hash(config)}; float32, one thread beside other work, "
        f"{sum(row['seconds'] for row in log) / 3600:.2f} hours; revision {where['revision']}; "
        + ", ".join(f"{key} {value}" for key, value in where["versions"].items())
        + ".",
        "",
    ]


def percents(found: dict[str, float | None]) -> str:
    """The four accuracies of a row."""
    values = (found[key] for key in ("accuracy", "many", "medium", "few"))
    return " | ".join("-" if value is None else f"{100 * value:.2f}" for value in values)


# --- status -----------------------------------------------------------------------------------------------------------


def status(runs: Path, results: Path) -> list[str]:
    """A line per training."""
    return [
        f"{training.name:<28}{state(training, runs / training.name, results / training.name)}" for training in QUEUE
    ]


def state(training: Training, folder: Path, kept: Path) -> str:
    """Done, where it is and how long it will take, or waiting."""
    if (kept / "README.md").exists():
        return "done: " + next(row for row in (kept / "README.md").read_text().splitlines() if row.startswith("| test"))
    log = max(rows_of(folder), rows_of(kept), key=len)
    if not log:
        return "waits for a GPU" if training.accelerated else "waits"
    assert training.config.stage1 is not None
    epochs, recent = training.config.stage1.epochs, log[-5:]
    hours = (epochs - len(log)) * sum(row["seconds"] for row in recent) / len(recent) / 3600
    return f"epoch {len(log)} of {epochs}, {hours:.1f} more hours at the speed of the last epochs"


if __name__ == "__main__":
    main()
