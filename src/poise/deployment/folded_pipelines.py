"""Pipelines of scikit-learn as one head on the raw columns, so that they are deployed and exported like any other.

Scaling, centring, PCA, choices of columns and whatever else is affine is a matrix and an offset, which the weights of
the classifier take in. What a step does is found by applying it: to zero, to the unit vectors, and to random rows that
show whether the step is affine at all.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer
from sklearn.utils.validation import check_is_fitted

from poise.deployment.estimator import LongTailClassifier
from poise.deployment.model import Model
from poise.errors import InputError, reason_of
from poise.values.head import Head, Prep

SCALES = (1e-3, 1.0, 1e3, 1e8)  # of the random rows: what clips, rounds or bends shows at one of them
ROWS = 8  # random rows of each scale
TOLERANCE = 1e-6  # relative to the terms of a sum; leaves room for steps that compute in float32
LARGEST_UNIT = 2.0**60

Array = NDArray[np.float64]
Step = tuple[str, Any]
Frame = Callable[[Array], Any]  # rows of numbers as what a step reads: an array, or a data frame with its columns


class Reached(NamedTuple):
    """What reaches a step: `matrix` (d, D) times the prepared row, plus `offset` (d,).

    The row is as it came; or, with a `centre` (D,), less that centre and divided by its norm.
    """

    matrix: Array
    offset: Array
    centre: Array | None = None


def fold_pipeline(pipeline: Any) -> Model:
    """The deployable model of a fitted pipeline that ends in LongTailClassifier: one head on what the pipeline reads.

    All steps before must be affine: scalers, PCA, selections of columns, a ColumnTransformer or FeatureUnion of such.
    Normalizer(norm="l2") may stand among them where what comes before only shifts, rotates or scales all columns alike;
    the head then normalises rows. An imputer changes no row without gaps, and the model refuses rows with gaps. Where
    the columns have names (the pipeline was fitted on a data frame), the model reads those that matter to it, in the
    order of `provenance["columns"]`.

    Raises: InputError naming the first step that is not affine, or if the pipeline is not fitted or ends in another
    estimator.
    """
    steps, classifier = _steps(pipeline)
    first = steps[0][1] if steps else classifier
    dim, names = _width(first), _names(first)
    frame = _frame(names)
    head = _on_rows(classifier, _reached(steps, frame, dim))
    _compare(steps, classifier, head, frame)
    columns = None
    if names is not None:
        head, columns = _used(head, names)
    made = classifier.model()
    estimator = {**made.provenance["estimator"], "feature_names": columns or []}
    told = [f"{name}: {type(step).__name__}" for name, step in steps]
    return replace(made, head=head).with_provenance(estimator=estimator, columns=columns, pipeline=told)


# --- what is given ----------------------------------------------------------------------------------------------------


def _steps(pipeline: Any) -> tuple[list[Step], LongTailClassifier]:
    """The steps that do something, those of inner pipelines too, and the classifier at the end."""
    steps = list(_flat(pipeline, "")) if isinstance(pipeline, Pipeline) else [("", pipeline)]
    last = steps[-1][1]
    if not isinstance(last, LongTailClassifier):
        raise InputError(
            f"a pipeline that is folded ends in LongTailClassifier, this one in {type(last).__name__}; of a search, "
            "give its best_estimator_"
        )
    try:
        check_is_fitted(last)
    except NotFittedError:
        raise InputError("the pipeline is not fitted; call fit first") from None
    return [(name, step) for name, step in steps[:-1] if step is not None and step != "passthrough"], last


def _flat(pipeline: Pipeline, before: str) -> Iterator[Step]:
    for name, step in pipeline.steps:
        if isinstance(step, Pipeline):
            yield from _flat(step, f"{before}{name}.")
        else:
            yield f"{before}{name}", step


def _width(first: Any) -> int:
    width = getattr(first, "n_features_in_", None)
    if width is None:
        raise InputError(
            f"{type(first).__name__}, the first step, does not say how many columns it reads; begin the pipeline with "
            "a scaler, or with FunctionTransformer(validate=True)"
        )
    return int(width)


def _names(first: Any) -> list[str] | None:
    found = getattr(first, "feature_names_in_", None)
    return None if found is None else [str(name) for name in found]


def _frame(names: Sequence[str] | None) -> Frame:
    if names is None:
        return lambda values: values
    pandas = import_module("pandas")  # a pipeline that knows names was fitted on a data frame
    return lambda values: pandas.DataFrame(values, columns=list(names))


# --- what the steps do ------------------------------------------------------------------------------------------------


def _reached(steps: Sequence[Step], frame: Frame, dim: int) -> Reached:
    """What reaches the classifier."""
    reached, width = Reached(np.eye(dim), np.zeros(dim)), dim
    while True:
        here = next((i for i, (_, step) in enumerate(steps) if _normalises(step)), len(steps))
        matrix, offset = _affine(steps[:here], frame, width)
        reached = reached._replace(matrix=matrix @ reached.matrix, offset=matrix @ reached.offset + offset)
        if here == len(steps):
            return reached
        reached = _divided(reached, f"the step {_called(steps[here])}")
        frame, width = _like(steps[: here + 1], frame, width), len(reached.matrix)
        steps = steps[here + 1 :]


def _normalises(step: Any) -> bool:
    return isinstance(step, Normalizer) and step.norm == "l2"


def _called(step: Step) -> str:
    return f"{step[0]!r} ({type(step[1]).__name__})"


def _like(steps: Sequence[Step], frame: Frame, dim: int) -> Frame:
    """Rows as they come out of some steps: with the columns of a data frame, if that is what they make."""
    made = _through(steps, frame(np.ones((1, dim))))
    if not hasattr(made, "columns"):
        return lambda values: values
    return lambda values: type(made)(values, columns=made.columns)


def _affine(steps: Sequence[Step], frame: Frame, dim: int) -> tuple[Array, Array]:
    """The matrix (d, dim) and offset (d,) of some steps. Raises: InputError naming the first that is not affine."""
    unit = np.ones(dim)
    for _ in range(2):
        # Where the offset is large, unit vectors drown in its rounding: the second look uses vectors of its size.
        matrix, offset = _probed(steps, frame, unit)
        size = np.abs(matrix).max(axis=0, initial=0.0)
        ratio = np.abs(offset).max(initial=0.0) / np.where(size > 0, size, np.inf)
        unit = 2.0 ** np.ceil(np.log2(ratio.clip(1.0, LARGEST_UNIT)))
    return matrix, offset


def _probed(steps: Sequence[Step], frame: Frame, unit: Array) -> tuple[Array, Array]:
    dim = len(unit)
    random = np.random.default_rng(0)
    rows = np.concatenate([scale * random.normal(size=(ROWS, dim)) for scale in SCALES])
    matrix, offset = np.eye(dim), np.zeros(dim)
    reached = frame(np.concatenate([np.zeros((1, dim)), np.diag(unit), rows]))
    for step in steps:
        reached = _through([step], reached)
        values = _numbers(step, reached)
        offset = values[0]
        matrix = ((values[1 : 1 + dim] - offset) / unit[:, None]).T
        bound = TOLERANCE * (np.abs(offset) + np.abs(rows) @ np.abs(matrix.T))
        if not (np.abs(rows @ matrix.T + offset - values[1 + dim :]) <= bound).all():  # false for NaN
            raise InputError(
                f"the step {_called(step)} is not affine, so that no linear head can take it in; leave it out, or "
                "apply it to the rows yourself and fold the rest of the pipeline"
            )
    return matrix, offset


def _through(steps: Sequence[Step], rows: Any) -> Any:
    for step in steps:
        try:
            # Rows of a probe are like no rows that the step was fitted on.
            with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
                rows = step[1].transform(rows)
        except Exception as error:  # a step is anyone's code
            raise InputError(
                f"the step {_called(step)} does not take any numbers ({reason_of(error)}), so that no linear head can "
                "take it in; leave it out, or apply it to the rows yourself"
            ) from None
    return rows


def _numbers(step: Step, rows: Any) -> Array:
    plain = rows.toarray() if hasattr(rows, "toarray") else rows
    try:
        values = np.asarray(plain, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"the step {_called(step)} makes no numbers; leave it out") from None
    return values


def _divided(reached: Reached, what: str) -> Reached:
    """What reaches the next step after rows are divided by their norms.

    With orthogonal columns of one length s, |A x + b| = s |x - c| where A c = -b: the raw row can be normalised first.

    Raises: InputError if that is not so.
    """
    matrix, offset, centre = reached
    gram = matrix.T @ matrix
    square = float(np.trace(gram)) / len(gram)
    even = square > 0 and np.abs(gram - square * np.eye(len(gram))).max() <= TOLERANCE * square
    middle = -(matrix.T @ offset) / square if even else np.zeros(len(gram))
    if centre is not None or not even or np.abs(matrix @ middle + offset).max() > TOLERANCE * np.abs(offset).max():
        raise InputError(
            f"{what} divides each row by its norm, and a head can do so only with the raw columns, all scaled alike; "
            "put it first, or leave it out"
        )
    return Reached(matrix / np.sqrt(square), np.zeros(len(matrix)), middle)


# --- the head ---------------------------------------------------------------------------------------------------------


def _on_rows(classifier: LongTailClassifier, reached: Reached) -> Head:
    """The head of the classifier as one that reads what the pipeline reads."""
    head = classifier.head_.to(torch.float64)
    prep = head.prep or Prep()
    if prep.unit:
        offset = reached.offset if prep.centre is None else reached.offset - prep.centre.numpy()
        reached = _divided(reached._replace(offset=offset), f"the classifier ({classifier.method_})")
    else:
        head = head.folded()
    weight, bias = head.weight.numpy() @ reached.matrix, head.bias.numpy() + head.weight.numpy() @ reached.offset
    made = None
    if reached.centre is not None:
        made = Prep(torch.from_numpy(reached.centre) if reached.centre.any() else None, unit=True)
    return Head(torch.from_numpy(weight), torch.from_numpy(bias), made)


def _compare(steps: Sequence[Step], classifier: LongTailClassifier, head: Head, frame: Frame) -> None:
    """Raises: InputError if the head does not give the scores of the pipeline on random rows."""
    random = np.random.default_rng(1)
    rows = np.concatenate([scale * random.normal(size=(ROWS, head.dim)) for scale in SCALES[:3]])
    with warnings.catch_warnings(action="ignore"):
        expected = classifier.decision_function(_through(steps, frame(rows)))
    logits = head(torch.from_numpy(rows)).numpy()
    found = logits[:, 1] - logits[:, 0] if expected.ndim == 1 else logits
    apart = np.abs(found - expected).reshape(len(rows), -1).max(axis=1)
    if not (apart <= TOLERANCE * (1 + np.abs(logits).max(axis=1))).all():
        raise InputError(
            f"the folded head and the pipeline differ by up to {apart.max():.2g} in their logits on random rows: the "
            "columns are too unlike in size for one matrix; scale them before, and fit on the scaled ones"
        )


def _used(head: Head, names: Sequence[str]) -> tuple[Head, list[str]]:
    """The head on the columns that matter to it, and their names."""
    used = (head.weight != 0).any(dim=0)
    if head.prep is not None or not used.any():
        used = torch.ones_like(used)  # the norm of a row is that of all its columns
    return replace(head, weight=head.weight[:, used]), [name for name, kept in zip(names, used, strict=True) if kept]
