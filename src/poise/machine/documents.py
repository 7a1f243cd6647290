"""JSON documents: one reader, one writer, and one sentence for each thing that can be wrong with a file.

    NOTE = Document("poise.note", "note", 1, "write the note again", {"text": TEXT})
    NOTE.write(folder / "note.json", {"text": "hello"})
    NOTE.read(folder / "note.json")["text"]

A document is a JSON object that says its format and schema. What is read is texts, numbers, lists and tables: nothing
in a file decides what code runs.
"""

import json
import re
from collections.abc import Mapping
from json import JSONEncoder
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

from poise.errors import InputError, reason_of
from poise.machine.atomic import write_atomically
from poise.machine.reading import content_of, decoded

# How a document is laid out. Bytes of files depend on it.
READABLE = JSONEncoder(indent=1, ensure_ascii=False, allow_nan=False)
ESCAPED = JSONEncoder(indent=1, allow_nan=False)
SORTED = JSONEncoder(indent=1, sort_keys=True)  # for reading by people and programs: a measured nan stays visible
ONE_LINE = JSONEncoder(allow_nan=False)
PLAIN = JSONEncoder(ensure_ascii=False)
COMPACT = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))

DEEPEST = 100  # levels; those of Poise have fewer than 10
HALF = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")  # what may become half of a character


class Kind(Protocol):
    """What the value of a key may be, such as a `poise.values.fields.Kind`."""

    def check(self, name: str, value: Any, remedy: str = "") -> Any:
        """Raises: InputError if the value does not fit."""


class Document(NamedTuple):
    """One kind of file: its format, what it describes in a noun, the newest schema, and how to get a whole one.

    `kinds` are the keys that it must have, beside format and schema; `version` is the key of the schema.
    """

    format: str
    what: str
    schema: int
    remedy: str
    kinds: Mapping[str, Kind]
    layout: JSONEncoder = READABLE
    version: str = "schema"

    def read(self, path: Path) -> dict[str, Any]:
        """The content of the file, whose keys in `kinds` are there and fit.

        Raises: InputError if it is missing or unreadable, no JSON, of another format or a newer schema, lacks a key or
        has a value that does not fit.
        """
        if not path.exists():
            raise InputError(f"{path} is missing: {path.parent} holds no finished {self.what}; {self.remedy}")
        body = read_table(path, self.remedy)
        if body.get("format") != self.format:
            raise InputError(f"{path} holds no {self.what} of Poise; {self.remedy}")
        check_schema(path, body.get(self.version), self.schema, self.remedy, self.version)
        for key, kind in self.kinds.items():
            if key not in body:
                raise InputError(f"{path}: {key} is missing; {self.remedy}")
            kind.check(f"{path}: {key}", body[key], f"; {self.remedy}")
        return body

    def stamped(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The content with format and schema before it."""
        return {"format": self.format, self.version: self.schema, **body}

    def write(self, path: Path, body: Mapping[str, Any]) -> Path:
        """Write format, schema and `body`, whole or not at all. Raises: InputError if it is no JSON."""
        return write_json(path, self.stamped(body), self.layout)


def check_schema(where: object, found: Any, newest: int, remedy: str, key: str = "schema") -> None:
    """Raises: InputError unless `found` is a whole number from 1 to `newest`; above that, with the advice to update."""
    if type(found) is not int or found < 1:
        raise InputError(f"{where}: {key} must be a whole number, 1 or more, got {found!r:.80}; {remedy}")
    if found > newest:
        raise InputError(f"{where} has {key} {found}, this version reads up to {newest}; update poise")


def read_table(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object of a file in UTF-8, with or without a byte-order mark. Raises: InputError with the remedy."""
    return parsed(content_of(path, remedy), path, remedy)


def parsed(content: bytes | str, where: object, remedy: str) -> dict[str, Any]:
    """The JSON object of a text. Raises: InputError that names `where` and the remedy for anything else."""
    table = parsed_value(content, where, remedy)
    if not isinstance(table, dict):
        raise InputError(f"{where} holds no table of keys and values; {remedy}")
    return table


def parsed_value(content: bytes | str, where: object, remedy: str, *, infinite: bool = False) -> Any:
    """The JSON value of a text in UTF-8: an object, a list, a text, a number; with `infinite` also Infinity, -Infinity.

    Raises: InputError that names `where` and the remedy for what is no JSON, is nested more than `DEEPEST` levels, or
    holds half of a character, which has no UTF-8.
    """
    text = content if isinstance(content, str) else decoded(content, where, remedy)
    try:
        value = json.loads(text, parse_constant=_infinite if infinite else _no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no JSON ({reason_of(error)}); {remedy}") from None
    if _depth(value) > DEEPEST:
        raise InputError(f"{where} is nested more than {DEEPEST} levels deep; {remedy}")
    if HALF.search(text) and any("\ud800" <= c <= "\udfff" for c in PLAIN.encode(value)):
        raise InputError(f"{where} holds half of a character (\\ud800 to \\udfff), which has no UTF-8; {remedy}")
    return value


def _depth(value: Any) -> int:
    """How deeply lists and tables are nested; one level after the other, for a deep one would end recursion."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return depth


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


def _infinite(word: str) -> float:
    return _no_constant(word) if word == "NaN" else float(word)


def to_json(data: Any, where: object, layout: JSONEncoder = READABLE) -> str:
    """The text of a document, with a line end. Raises: InputError that names `where` if the data are no JSON."""
    try:
        return layout.encode(data) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"cannot write {where}: options and provenance must be plain JSON (text, numbers, lists, tables): "
            f"{reason_of(error)}"
        ) from None


def write_json(path: Path, data: Any, layout: JSONEncoder = READABLE) -> Path:
    """Write data as JSON, whole or not at all. Raises: InputError if they are no JSON, or the disk refuses."""
    return write_atomically(path, to_json(data, path, layout))


def as_read(data: Any, where: object) -> Any:
    """The data as whoever reads them will see them: lists for tuples, texts for keys. Raises: InputError."""
    return json.loads(to_json(data, where))
