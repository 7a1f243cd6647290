"""Plain values to models, with one sentence about the first thing that does not fit."""

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from poise.errors import InputError
from poise.values.wording import near

# A description completes the sentence "KEY must be ..."; it also explains the key in an editor.
STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


def under(path: str, attempt: Callable[[], T]) -> T:
    """What `attempt` returns; the dotted path is put before the message of what it refuses. Raises: InputError."""
    try:
        return attempt()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def checked(model: type[M], value: Any, path: str = "") -> M:
    """The model of plain values; `path` are the keys that lead to it.

    Raises: InputError with one sentence about the first thing that does not fit, dotted path first.
    """
    try:
        return model.model_validate_json(json.dumps(value))  # JSON knows lists only, which is what YAML gives
    except ValidationError as error:
        raise InputError(_sentence_of(error.errors()[0], model, path)) from None


def _sentence_of(error: Mapping[str, Any], model: type[BaseModel], path: str) -> str:
    if error["type"] == "value_error":  # raised by a validator of ours, a sentence already
        return str(error["ctx"]["error"])
    names, inner, allowed = [path] if path else [], model, "a mapping"
    for part in error["loc"]:
        field = inner.model_fields.get(part)
        if field is None:
            break
        names, allowed = [*names, part], str(field.description)
        inner = section(field.annotation) or BaseModel
    place = ".".join(names)
    if error["type"] == "extra_forbidden":
        return _no_key(str(error["loc"][-1]), place, tuple(inner.model_fields))
    return f"{place or 'the whole'} must be {allowed}; got {_shown(error['input'])}"


def _no_key(key: str, place: str, known: tuple[str, ...]) -> str:
    meant = near(key, known) or f"; there are {', '.join(known)}"
    return f"{place or 'a configuration'} has no key {key!r}{meant}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def section(annotation: Any) -> type[BaseModel] | None:
    """The annotation if it is a model, whose keys are a section; else None."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
