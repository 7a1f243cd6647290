"""YAML as configurations need it: plain values only, every surprise refused.

A text becomes mappings, lists and scalars by the core rules of YAML 1.2, so `1e-3` is a number and `no` a text. No tag
is looked up and no object is ever made: what is not one of the seven plain kinds of value is an error.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml

from poise.errors import InputError, reason_of

LARGEST = 2**18  # characters of a text
BYTES = 4 * LARGEST  # of a file with such a text
MOST = 20_000  # values in it, each counted as often as an alias repeats it
DEEPEST = 20
LONGEST = 18  # characters of a whole number, so that it is below 2^63

CORE = "tag:yaml.org,2002:"
NUMERIC = list("-+.0123456789")
# A number that starts with 0 is octal in older YAML and decimal in newer: here it is a text, which no number accepts.
PATTERNS: dict[str, tuple[re.Pattern[str], list[str]]] = {
    "null": (re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    "bool": (re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")),
    "int": (re.compile(r"[-+]?(0|[1-9][0-9]*)"), NUMERIC),
    "float": (
        re.compile(
            r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
            r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
        ),
        NUMERIC,
    ),
}
READ: dict[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
}


class TooLargeError(yaml.YAMLError):
    """More nodes than a configuration has."""

    def __str__(self) -> str:
        return f"it holds more than {MOST} values; shorten it"


class _Reader(yaml.SafeLoader):
    """Used up to the tree of nodes only; its constructors are never called."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML replaces it, it is never changed)
    count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node; PyYAML builds all before it returns any. Raises: TooLargeError for more than `MOST` values."""
        self.count += 1
        if self.count > 2 * MOST:  # keys and values
            raise TooLargeError
        return super().compose_node(parent, index)


class _Writer(yaml.SafeDumper):
    """Quotes whatever this module, or a reader of older YAML, would not read back as the same text."""


def _text_node(writer: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Line breaks that only Unicode knows survive in double quotes alone."""
    style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else None
    return writer.represent_scalar(CORE + "str", text, style=style)


_Writer.add_representer(str, _text_node)
for _name, (_pattern, _first) in PATTERNS.items():
    _whole = re.compile(f"(?:{_pattern.pattern})$")
    _Reader.add_implicit_resolver(CORE + _name, _whole, _first)
    _Writer.add_implicit_resolver(CORE + _name, _whole, _first)


def parsed(text: str, where: str) -> Any:
    """The value that a YAML text describes: dict, list, str, int, float, bool or None. `where` names it in messages.

    Raises: InputError with the line of what is not YAML, a duplicate or odd key, a tag, or too large.
    """
    if len(text) > LARGEST:
        raise InputError(f"{where} has {len(text)} characters, a configuration has at most {LARGEST}; shorten it")
    try:
        node = yaml.compose(text, Loader=_Reader)
        return None if node is None else _Builder(where).value(node, 0)
    except RecursionError:
        raise InputError(f"{where} is nested too deeply; a configuration has a few levels") from None
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML makes characters of numbers that have none
        raise InputError(f"{where} is not YAML: {_reason(error)}") from None


def written(value: Any) -> str:
    """YAML of mappings, lists and scalars, keys in their order; `parsed` reads it back, and the same gives the same."""
    return yaml.dump(value, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=110)


def _reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return reason_of(error)


class _Builder:
    """Nodes to values, counting them."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.count = 0

    def value(self, node: yaml.Node, depth: int) -> Any:
        self.count += 1
        if self.count > MOST or depth > DEEPEST:
            raise self.refused(node, f"more than {MOST} values or {DEEPEST} levels, aliases repeated; write it plainly")
        if isinstance(node, yaml.MappingNode) and node.tag == CORE + "map":
            return self.mapping(node, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == CORE + "seq":
            return [self.value(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        raise self.tagged(node)

    def mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.value(key_node, depth + 1)
            if not isinstance(key, str):
                raise self.refused(key_node, f"the key {key!r} is no text; keys are words such as epochs")
            if key in found:
                raise self.refused(key_node, f"the key {key!r} is given twice; keep one of them")
            found[key] = self.value(value_node, depth + 1)
        return found

    def scalar(self, node: yaml.ScalarNode) -> Any:
        kind = node.tag.removeprefix(CORE)
        if kind == "str":
            return self.text(node)
        if kind not in PATTERNS or not PATTERNS[kind][0].fullmatch(node.value):
            raise self.tagged(node)
        if kind == "int" and len(node.value) > LONGEST:
            raise self.refused(node, f"a number of {len(node.value)} characters is larger than any key takes; lower it")
        return READ[kind](node.value)

    def text(self, node: yaml.ScalarNode) -> str:
        if any(mark == "\0" or "\ud800" <= mark <= "\udfff" for mark in node.value):
            raise self.refused(node, "a text holds \\0 or half a character (\\ud800 to \\udfff); leave it out")
        return str(node.value)

    def tagged(self, node: yaml.Node) -> InputError:
        return self.refused(
            node, f"the tag {node.tag.replace(CORE, '!!')} is not allowed; write a plain value, a list or a mapping"
        )

    def refused(self, node: yaml.Node, reason: str) -> InputError:
        return InputError(f"{self.where}, line {node.start_mark.line + 1}: {reason}")
