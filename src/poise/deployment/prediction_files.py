"""Decisions of a model written row by row: names, confidence, probabilities, and what was carried along."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from poise.decisions.answer_files import Answers, Tallied, write_answers
from poise.decisions.decide import decide
from poise.decisions.operating_point import OperatingPoint
from poise.deployment.model import Model
from poise.errors import InputError
from poise.machine.progress import Progress


def write_predictions(
    model: Model,
    x: Tensor,
    path: str | Path,
    *,
    carried: Mapping[str, Sequence[Any]] | None = None,
    top: int | None = None,
    spreadsheet: bool = False,
    chunk: int = 8192,
    progress: Progress | None = None,
) -> Tallied:
    """Write one line per row of x (N, D) to a .csv or .parquet file; columns as in `write_answers`.

    No answer is written where the operating point abstains. The probabilities are the softmax of the model's logits:
    they mean what they say for `model.prior_applied`.

    Raises: InputError for rows that do not fit the model, and as `write_answers`; MissingExtraError for Parquet without
    pyarrow.
    """
    if len(x) and (x.ndim != 2 or x.shape[1] != model.head.dim):
        raise InputError(f"the model reads {model.head.dim} features per row, these rows are {tuple(x.shape)}")
    point = model.operating or OperatingPoint()

    def answers_of(start: int, stop: int) -> Answers:
        logits = model.head(x[start:stop])
        found = decide(logits, point)
        sets = None if found.sets is None else found.sets.numpy()
        return Answers(found.label.numpy(), found.confidence.numpy(), sets, logits.double().softmax(dim=-1).numpy())

    return write_answers(
        answers_of,
        len(x),
        model.class_names,
        path,
        carried=carried,
        top=top,
        spreadsheet=spreadsheet,
        chunk=chunk,
        progress=progress,
    )
