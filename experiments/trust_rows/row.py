"""A promise, how it is measured, and how one fit is told in a line."""

import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from trust_rows.worlds import balanced

from poise import ClassCounts, Features, LongTailClassifier

Array = Any


@dataclass(frozen=True)
class Row:
    """A promise, what was tested, what would be right, and how it is measured."""

    promise: str
    test: str
    right: str
    measure: Callable[[], str]


ROWS: list[Row] = []


def row(promise: str, test: str, right: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Adds the decorated measurement to the rows."""

    def add(measure: Callable[[], str]) -> Callable[[], str]:
        ROWS.append(Row(promise, test, right, measure))
        return measure

    return add


def said(action: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What an action returned (None if it was refused), and the sentences it said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = action()
        except ValueError as error:
            return None, [f"refused: {error}"]
    return found, [str(one.message) for one in caught]


def short(sentences: Iterable[str], most: int = 150) -> str:
    """The sentences in one line of a table, cut."""
    lines = [re.sub(r"\s+", " ", text).replace("|", "/") for text in dict.fromkeys(sentences)]
    return "; ".join(f'"{text[:most]}{"..." if len(text) > most else ""}"' for text in lines) or "nothing said"


def promised(model: Any) -> str:
    """The promise of a fitted estimator: the number, its interval where there is one."""
    value = model.unseen_recall_
    if value is None:
        return "no number"
    whole = getattr(model, "promise_", None)
    return f"{value:.3f}" + (f" ({whole.low:.3f} to {whole.high:.3f})" if whole is not None else "")


def fitted(x: Array, y: Array, test: tuple[Array, Array], *, fit: dict[str, Any] | None = None, **params: Any) -> str:
    """Promised, true and said of one fit."""
    model, words = said(lambda: LongTailClassifier(**params).fit(x, y, **(fit or {})))
    if model is None:
        return short(words)
    true = balanced(model.predict(test[0]), test[1])
    return f"promised {promised(model)}, true {true:.3f}; {short(words)}"


def features(rows: tuple[Array, Array], counts: ClassCounts, seen: bool | None) -> Features:
    """Rows (N, D) and labels as `Features`."""
    return Features(torch.as_tensor(rows[0]), torch.as_tensor(rows[1]), counts, seen_by_backbone=seen)
