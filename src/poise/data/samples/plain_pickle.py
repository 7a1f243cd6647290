"""Plain values out of a pickle, without the machine of pickle: nothing in the file is looked up, called or made.

A pickle is a program, which may call any function when it runs. Here its instructions are only read (by `pickletools`),
and those that build numbers, texts, lists, tables and arrays of numpy are followed; any other is refused. So is an
instruction that asks for more than the file holds.
"""

import pickletools
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poise.errors import InputError

TYPES = re.compile(r"[|<>=]?[biuf][1248]")  # numbers as numpy calls them
BYTES = ("SHORT_BINSTRING", "BINSTRING", "STRING")  # texts of Python 2, which are bytes

# What a pickled array calls, under the names of old and new numpy, and how Python 3 writes bytes in old pickles.
KNOWN: Mapping[str, str] = MappingProxyType(
    {
        "numpy ndarray": "array",
        "numpy dtype": "type",
        **{f"numpy.{core}.multiarray _reconstruct": "empty" for core in ("core", "_core")},
        **{f"numpy.{core}.numeric _frombuffer": "filled" for core in ("core", "_core")},
        "_codecs encode": "bytes",
    }
)


class _Name(NamedTuple):
    """A word of `KNOWN`, which stands for what is called."""

    word: str


class _Made:
    """What a call would have made: a type of numbers, or an array once its state is known."""

    def __init__(self, value: Any = None) -> None:
        self.value = value


class _Mark:
    """Where the parts of a list, table or tuple begin."""


def plain_value(content: bytes) -> Any:
    """The value of a pickle: numbers, bytes, texts, lists, tuples, tables, and arrays of numbers.

    Raises: InputError for what asks for anything else, and whatever comes up for damaged bytes.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for code, argument, _ in pickletools.genops(content):
        name = code.name
        if name == "STOP":
            return _finished(stack.pop())
        if name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument or 0)])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        else:
            _follow(name, argument, stack)
    raise ValueError("it has no end")


def _follow(name: str, argument: Any, stack: list[Any]) -> None:
    """One instruction, on the stack."""
    if name in CONSTANTS:
        stack.append(CONSTANTS[name]())
    elif name in BYTES:
        stack.append(argument.encode("latin1") if isinstance(argument, str) else argument)
    elif name in SAID:
        stack.append(argument)
    elif name in STEPS:
        STEPS[name](stack)
    elif name == "GLOBAL":
        stack.append(_named(argument))
    elif name not in ("PROTO", "FRAME"):
        raise _refused(f"the instruction {name}")


CONSTANTS: Mapping[str, Callable[[], Any]] = MappingProxyType(
    {
        "NONE": lambda: None,
        "NEWTRUE": lambda: True,
        "NEWFALSE": lambda: False,
        "EMPTY_LIST": list,
        "EMPTY_DICT": dict,
        "EMPTY_TUPLE": tuple,
        "MARK": _Mark,
    }
)
SAID = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "BINFLOAT", "FLOAT", "UNICODE", "BINUNICODE"}
    | {"SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)


def _since_mark(stack: list[Any]) -> list[Any]:
    place = next(at for at in range(len(stack) - 1, -1, -1) if isinstance(stack[at], _Mark))
    parts = stack[place + 1 :]
    del stack[place:]
    return parts


def _last(stack: list[Any], number: int) -> list[Any]:
    parts = stack[len(stack) - number :]
    del stack[len(stack) - number :]
    return parts


def _extend(stack: list[Any], parts: list[Any]) -> None:
    if not isinstance(stack[-1], list):
        raise ValueError("it adds to what is no list")
    stack[-1].extend(parts)


def _set(stack: list[Any], parts: list[Any]) -> None:
    for key, value in zip(parts[::2], parts[1::2], strict=True):
        if not isinstance(stack[-1], dict) or not isinstance(key, str | bytes):
            raise ValueError("the keys of its tables are no texts")
        stack[-1][key] = value


def _table(stack: list[Any]) -> None:
    parts = _since_mark(stack)
    stack.append({})
    _set(stack, parts)


def _build(stack: list[Any]) -> None:
    """Give an array or a type of numbers its state, as numpy writes it."""
    state = stack.pop()
    made = stack[-1]
    if isinstance(made.value, np.dtype):
        order: Any = _text(state[1])
        made.value = np.dtype(made.value.newbyteorder(order))
    else:
        _, shape, kind, fortran, content = state
        made.value = _array(content, kind, shape, "F" if fortran else "C")


STEPS: Mapping[str, Callable[[list[Any]], None]] = MappingProxyType(
    {
        "LIST": lambda stack: stack.append(_since_mark(stack)),
        "DICT": _table,
        "TUPLE": lambda stack: stack.append(tuple(_since_mark(stack))),
        "TUPLE1": lambda stack: stack.append(tuple(_last(stack, 1))),
        "TUPLE2": lambda stack: stack.append(tuple(_last(stack, 2))),
        "TUPLE3": lambda stack: stack.append(tuple(_last(stack, 3))),
        "APPEND": lambda stack: _extend(stack, _last(stack, 1)),
        "APPENDS": lambda stack: _extend(stack, _since_mark(stack)),
        "SETITEM": lambda stack: _set(stack, _last(stack, 2)),
        "SETITEMS": lambda stack: _set(stack, _since_mark(stack)),
        "STACK_GLOBAL": lambda stack: stack.append(_named(" ".join(map(_text, _last(stack, 2))))),
        "REDUCE": lambda stack: stack.append(_called(*_last(stack, 2))),
        "BUILD": _build,
    }
)


def _named(words: str) -> _Name:
    if words not in KNOWN:
        raise _refused(words.replace(" ", "."))
    return _Name(KNOWN[words])


def _called(name: Any, given: Any) -> Any:
    """What the call of a known name makes, in plain values."""
    if not isinstance(name, _Name) or not isinstance(given, tuple):
        raise ValueError("it calls what is no name")
    if name.word == "bytes":
        text, encoding = given
        if _text(encoding) != "latin1":
            raise _refused(f"the encoding {_text(encoding)!r:.40}")
        return text.encode("latin1")
    if name.word == "type":
        return _Made(_kind(given[0]))
    if name.word == "empty":
        return _Made()
    if name.word == "filled":
        content, kind, shape, order = given
        return _Made(_array(content, kind, shape, order))
    raise _refused("an array without a state")


def _kind(word: Any) -> np.dtype[Any]:
    if not TYPES.fullmatch(_text(word)):
        raise _refused(f"numbers of the type {_text(word)!r:.40}")
    return np.dtype(_text(word))


def _array(content: Any, kind: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    """The array over the bytes themselves, which say how large it is."""
    if not isinstance(content, bytes | bytearray) or order not in ("C", "F"):
        raise ValueError("an array has no bytes")
    return np.frombuffer(content, kind.value).reshape(shape, order=order)


def _text(word: Any) -> str:
    """A short word. What is none is refused unseen: lists within lists, each twice, would print for ever."""
    if not isinstance(word, str | bytes):
        raise ValueError("a word is no text")
    return word.decode("latin1") if isinstance(word, bytes) else word


def _finished(value: Any) -> Any:
    """The value, with arrays for what was made, where a table has them."""
    if isinstance(value, dict):
        return {key: each.value if isinstance(each, _Made) else each for key, each in value.items()}
    return value


def _refused(what: str) -> InputError:
    return InputError(f"it asks for {what}, which no archive of CIFAR does; it is refused")
