"""The log of a training run: one row per epoch as JSON lines and CSV, and the same rows to a tracker if one is named.

A row belongs to a step. A run that goes on from a checkpoint drops the rows of later steps, which it will write again,
so that the log never holds an epoch twice.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from poise.errors import InputError, MissingExtraError, reason_of
from poise.machine.atomic import write_atomically
from poise.machine.documents import parsed
from poise.machine.reading import text_of
from poise.values.checks import check_one_of, is_number
from poise.values.fields import Kind, whole

Log = Callable[[Mapping[str, Any]], None]


def opened(folder: Path, step: int, trackers: Sequence[Log] = ()) -> Log:
    """A function that appends rows to `log.jsonl` and `log.csv` of `folder`, without those after `step`.

    Raises: InputError if the folder cannot be written.
    """
    kept = [row for row in rows_of(folder) if row["step"] <= step]
    lines, table = folder / "log.jsonl", folder / "log.csv"
    write_atomically(lines, "".join(json.dumps(row) + "\n" for row in kept))
    write_atomically(table, _table(kept))

    def append(row: Mapping[str, Any]) -> None:
        kept.append(dict(row))
        # Appended, not rewritten: a long run has many rows. What a kill leaves of a last line is dropped at the start.
        _append(lines, json.dumps(dict(row)) + "\n")
        _append(table, _table([row], header=len(kept) == 1))
        for track in trackers:
            track(row)

    return append


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of the log of `folder`; none if there is no log. A last line that was cut short is left out."""
    path = folder / "log.jsonl"
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    lines = text_of(path, "delete it, or restore it from a copy", None).splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith("\n"):
            break
        row = parsed(line, f"{path}, line {number}", REMEDY)
        _ROW.check(f"{path}, line {number}", row, f"; {REMEDY}")
        if rows and set(row) != set(rows[0]):
            raise InputError(f"{path}, line {number} has other keys than the first line; {REMEDY}")
        rows.append(row)
    return rows


REMEDY = "delete that line"
_ROW = Kind(
    "a table of numbers with a step",
    lambda row: whole(0).fits(row.get("step")) and all(map(is_number, row.values())),
)


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputError(f"cannot write {path} ({len(text)} bytes): {reason_of(error)}") from None


def _table(rows: Sequence[Mapping[str, Any]], header: bool = True) -> str:
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


# --- trackers ---------------------------------------------------------------------------------------------------------


def tracker(name: str, folder: Path, config: Mapping[str, Any]) -> Log:
    """A function that sends rows to TensorBoard, Weights & Biases or MLflow, as curves over steps.

    Raises: InputError for another name; MissingExtraError if its package is not installed.
    """
    check_one_of("tracker", name, TRACKERS)
    try:
        return TRACKERS[name](folder, config)
    except ImportError:
        raise MissingExtraError(f"the tracker {name} is not installed: pip install 'poise[{name}]'") from None


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in row.items() if key not in ("step", "epoch")}


def _tensorboard(folder: Path, config: Mapping[str, Any]) -> Log:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))
    writer.add_text("config", json.dumps(config, indent=1))

    def track(row: Mapping[str, Any]) -> None:
        for key, value in _numbers(row).items():
            writer.add_scalar(key, value, row["step"])
        writer.flush()

    return track


def _wandb(folder: Path, config: Mapping[str, Any]) -> Log:
    import wandb

    run = wandb.init(dir=str(folder), config=dict(config), resume="allow", id=folder.resolve().name)
    return lambda row: run.log(_numbers(row), step=row["step"])


def _mlflow(folder: Path, config: Mapping[str, Any]) -> Log:
    import mlflow

    mlflow.set_tracking_uri((folder / "mlflow").resolve().as_uri())
    mlflow.start_run(run_name=folder.resolve().name)
    mlflow.log_dict(dict(config), "config.json")
    return lambda row: mlflow.log_metrics(_numbers(row), step=row["step"])


TRACKERS: Mapping[str, Callable[[Path, Mapping[str, Any]], Log]] = {
    "mlflow": _mlflow,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}
