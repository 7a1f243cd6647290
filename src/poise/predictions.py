"""Decisions of a model written row by row to CSV or Parquet: names, confidence, probabilities, what was carried along.

Rows are read and written in chunks, so that logits of all rows never exist at once; the file appears complete or not at
all.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import torch
from torch import Tensor

from poise.artefact import Model
from poise.errors import InputError, MissingExtraError
from poise.files import neighbour, settle
from poise.operating import ABSTAIN, OperatingPoint, decide

__all__ = ["Tallied", "write_predictions"]

Table = dict[str, list[Any]]
FORMATS = (".csv", ".parquet")
ABSTAINED = ""  # the answer where the operating point gives none


class Tallied(NamedTuple):
    """What was written: the file, its rows, answers per class name, and rows without an answer."""

    path: Path
    rows: int
    answers: dict[str, int]
    abstained: int


def write_predictions(
    model: Model,
    x: Tensor,
    path: str | Path,
    *,
    carried: Mapping[str, Sequence[Any]] | None = None,
    top: int | None = None,
    chunk: int = 8192,
    progress: Callable[[int, int], None] | None = None,
) -> Tallied:
    """Write one line per row of x (N, D) to a .csv or .parquet file.

    Columns: those of `carried` as they came; `prediction`, the class name, empty where the operating point abstains;
    `confidence`, the posterior of that answer; `set`, a JSON list of class names, if the operating point names sets;
    the probability of each class as `p(NAME)`, or with `top` the names and probabilities of the `top` best. The
    probabilities are the softmax of the model's logits: they mean what they say for `model.prior_applied`.

    Raises: InputError for another suffix, rows that do not fit the model, a carried column whose name is taken or whose
    length is another, or a disk that refuses; MissingExtraError for Parquet without pyarrow.
    """
    target = Path(path)
    if target.suffix.lower() not in FORMATS:
        raise InputError(f"predictions are written to {' or '.join(FORMATS)}, and {target} is neither")
    others = {name: list(values) for name, values in (carried or {}).items()}
    _check(model, x, others, top)
    answers = torch.zeros(len(model.class_names) + 1, dtype=torch.int64)
    open_table = _parquet if target.suffix.lower() == ".parquet" else _csv
    with _replaced(target) as temporary, open_table(temporary, others) as write:
        for start in range(0, len(x), chunk):
            stop = min(start + chunk, len(x))
            own, label = _rows(model, x[start:stop], top)
            taken = sorted(set(own) & set(others))
            if taken:
                raise InputError(f"the rows have a column {taken[0]!r}, which the predictions need; rename or drop it")
            write({**{name: values[start:stop] for name, values in others.items()}, **own})
            answers += torch.bincount(label + 1, minlength=len(answers))
            if progress is not None:
                progress(stop, len(x))
    given = dict(zip(model.class_names, answers[1:].tolist(), strict=True))
    return Tallied(target, len(x), given, int(answers[0]))


def _check(model: Model, x: Tensor, carried: Table, top: int | None) -> None:
    if len(x) == 0:
        raise InputError("there is no row to predict")
    if x.ndim != 2 or x.shape[1] != model.head.dim:
        raise InputError(f"the model reads {model.head.dim} features per row, these rows are {tuple(x.shape)}")
    if top is not None and not 1 <= top <= len(model.class_names):
        raise InputError(f"top must lie between 1 and {len(model.class_names)}, the number of classes; got {top}")
    for name, values in carried.items():
        if len(values) != len(x):
            raise InputError(f"the carried column {name!r} has {len(values)} values for {len(x)} rows")


def _rows(model: Model, x: Tensor, top: int | None) -> tuple[Table, Tensor]:
    """The columns of some rows, and their labels with -1 for no answer."""
    names, logits = model.class_names, model.head(x)
    decided = decide(logits, model.operating or OperatingPoint())
    table: Table = {
        "prediction": [ABSTAINED if k == ABSTAIN else names[k] for k in decided.label.tolist()],
        "confidence": decided.confidence.tolist(),
    }
    if decided.sets is not None:
        table["set"] = [
            json.dumps([names[k] for k in row.nonzero().flatten().tolist()], ensure_ascii=False) for row in decided.sets
        ]
    p = logits.double().softmax(dim=-1)
    if top is None:
        return {**table, **{f"p({name})": p[:, k].tolist() for k, name in enumerate(names)}}, decided.label
    best = p.topk(top, dim=-1)
    for i in range(top):
        table[f"top{i + 1}"] = [names[k] for k in best.indices[:, i].tolist()]
        table[f"p{i + 1}"] = best.values[:, i].tolist()
    return table, decided.label


@contextmanager
def _replaced(target: Path) -> Iterator[Path]:
    """A temporary neighbour that takes the place of `target` once all is written and on the disk."""
    try:
        temporary = neighbour(target)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}; choose another place") from None
    try:
        yield temporary
        settle(temporary, target)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}; the old file is as it was") from None
    finally:
        temporary.unlink(missing_ok=True)


class _Lines(NamedTuple):
    """A file for csv.writer: lines end in a line feed, and a carriage return within a cell is quoted all the same."""

    file: TextIO

    def write(self, row: str) -> int:
        return self.file.write(row.removesuffix("\r\n") + "\n")


@contextmanager
def _csv(path: Path, _: Table) -> Iterator[Callable[[Table], None]]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(_Lines(file), lineterminator="\r\n")
        begun = False

        def write(table: Table) -> None:
            nonlocal begun
            if not begun:
                writer.writerow(table)
                begun = True
            writer.writerows(zip(*table.values(), strict=True))

        yield write


@contextmanager
def _parquet(path: Path, carried: Table) -> Iterator[Callable[[Table], None]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("writing Parquet needs pyarrow: pip install 'poise[table]'") from None
    try:
        # Of the whole column, since a chunk of it may be empty or hold whole numbers only.
        kinds = {name: pyarrow.array(values).type for name, values in carried.items()}
    except (pyarrow.ArrowException, OverflowError) as error:
        raise InputError(f"a carried column cannot be written to Parquet ({error}); write a .csv file") from None
    writers: list[Any] = []

    def write(table: Table) -> None:
        batch = pyarrow.table({name: pyarrow.array(values, kinds.get(name)) for name, values in table.items()})
        if not writers:
            writers.append(parquet.ParquetWriter(path, batch.schema))
        writers[0].write_table(batch)

    try:
        yield write
    finally:
        for writer in writers:
            writer.close()
