"""The section `stage1`: its keys are the fields of a dataclass that knows nothing of files."""

from dataclasses import fields
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Field, PlainSerializer, PlainValidator, WithJsonSchema, create_model

from poise.commands.config.refusals import STRICT, checked, under
from poise.errors import InputError
from poise.representation.augment.photographs import TRANSFORMS
from poise.representation.augment.texts import built, steps
from poise.representation.settings import Stage1


def _wanted(hint: Any) -> str:
    """A type in words."""
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    if NoneType in get_args(hint):
        return f"{_wanted(kinds[0])} or null"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(kinds)}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return words[hint] if hint in words else {str: "a list of texts", float: "a list of numbers"}[kinds[0]]


_HINTS = get_type_hints(Stage1)
STAGE1: type[BaseModel] = create_model(  # type: ignore[call-overload]
    "Stage1",
    __config__=STRICT,
    **{f.name: (_HINTS[f.name], Field(f.default, description=_wanted(_HINTS[f.name]))) for f in fields(Stage1)},
)


def _as_stage1(value: Any) -> Stage1 | None:
    if value is None:
        return None
    given = value.to_dict() if isinstance(value, Stage1) else value
    typed = checked(STAGE1, given, "stage1")
    try:
        settings = Stage1(**typed.model_dump())
    except InputError as error:
        raise InputError(_located(str(error))) from None
    refuse_steps("stage1.augment", settings.augment)
    return settings


def _located(message: str) -> str:
    """A message of `Stage1` with the dotted path of the key instead of its own opening."""
    rest = message.removeprefix("stage 1: ").removeprefix("plan: ")
    return f"stage1.{rest}" if rest.split()[0] in _HINTS else f"stage1: {rest}"


def refuse_steps(path: str, texts: tuple[str, ...]) -> None:
    """Raises: InputError for an augmentation that neither small images nor photographs know."""
    under(path, lambda: [built(spec, TRANSFORMS) for spec in steps(texts)])


Stage1Keys = Annotated[
    Stage1 | None,
    PlainValidator(_as_stage1),
    PlainSerializer(lambda value: None if value is None else value.to_dict()),
    WithJsonSchema({"anyOf": [STAGE1.model_json_schema(), {"type": "null"}]}),
]
