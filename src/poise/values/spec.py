"""`Spec`: a method, its parameters and what follows it, as a value with one text form."""

import ast
import keyword
import numbers
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from poise.errors import InputError
from poise.machine.documents import parsed_value
from poise.values.fields import TABLE, TEXT, check_fields

REMEDY = 'write [{"name": "los", "params": {"delta": 0.98}}]'
STEP = MappingProxyType({"name": TEXT, "params": TABLE})
LONGEST, MOST = 3000, 50  # characters, and steps, of a method


class Spec:
    """The identity of a method: `Spec("los", delta=0.98)`.

    Immutable, hashable and ordered by nothing but equality of values. Parameters are literals: booleans, integers,
    floats, strings, None, and tuples of them. `a + b` is the method `b` applied to the head that `a` returns.

    >>> spec = Spec("los", delta=0.98, lr=5e-05) + Spec("tau_norm", tau=0.5)
    >>> str(spec)
    'los(delta=0.98,lr=5e-05)+tau_norm(tau=0.5)'
    >>> Spec.parse(str(spec)) == spec
    True

    Raises: InputError for a name that is no identifier or a parameter that is no literal.
    """

    __slots__ = ("name", "params", "then")
    name: str
    params: tuple[tuple[str, Any], ...]
    then: "Spec | None"

    def __init__(self, name: str, params: tuple[tuple[str, Any], ...] | Mapping[str, Any] = (), /, **more: Any) -> None:
        merged = {**dict(params), **more}
        for word in (name, *merged):
            if not word.isidentifier() or keyword.iskeyword(word):
                raise InputError(f"names of methods and parameters are identifiers such as 'los', got {word!r}")
        frozen = tuple(sorted((key, _literal(key, value)) for key, value in merged.items()))
        for field, value in (("name", name), ("params", frozen), ("then", None)):
            object.__setattr__(self, field, value)

    def __setattr__(self, field: str, value: object) -> None:
        raise AttributeError(f"a Spec is a value: make a new one instead of setting {field!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return (Spec.parse, (str(self),))

    def __add__(self, other: "Spec") -> "Spec":
        first = Spec(self.name, self.params)
        object.__setattr__(first, "then", other if self.then is None else self.then + other)
        return first

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return (self.name, self.params, self.then)

    @property
    def steps(self) -> tuple["Spec", ...]:
        """The single methods of the chain, in the order in which they act."""
        alone = Spec(self.name, self.params)
        return (alone,) if self.then is None else (alone, *self.then.steps)

    def __str__(self) -> str:
        return "+".join(step._text() for step in self.steps)

    __repr__ = __str__

    def _text(self) -> str:
        params = ",".join(f"{key}={_written(value)}" for key, value in self.params)
        return f"{self.name}({params})" if params else self.name

    def to_json(self) -> list[dict[str, Any]]:
        """One `{"name", "params"}` object per step; `from_json` is the inverse."""
        return [{"name": step.name, "params": dict(step.params)} for step in self.steps]

    @classmethod
    def from_json(cls, data: list[dict[str, Any]] | str) -> "Spec":
        """The spec that `to_json` wrote, as objects or as their JSON text. Raises: InputError for anything else."""
        steps = parsed_value(data, "a method", REMEDY, infinite=True) if isinstance(data, str) else data
        if not isinstance(steps, list | tuple):
            raise InputError(f"a method must be a list of steps, got {steps!r:.80}; {REMEDY}")
        for number, step in enumerate(steps, start=1):
            if not isinstance(step, dict):
                raise InputError(f"step {number} of a method must be a table, got {step!r:.80}; {REMEDY}")
            check_fields(f"step {number} of a method: ", step, STEP, f"; {REMEDY}")
        return _chain([cls(step["name"], step["params"]) for step in steps])

    @classmethod
    def parse(cls, text: str) -> "Spec":
        """The spec that `str` wrote, for example `crt(lr=0.1)+tau_norm(tau=0.5)`.

        Raises: InputError naming the text that is not of this form.
        """
        if len(text) > LONGEST:
            raise _unreadable(text)
        try:
            summands = _summands(ast.parse(text.strip(), mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # what Python says of texts that are no Python
            raise _unreadable(text) from None
        return _chain([_step(node, text) for node in summands])


def _literal(key: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_literal(key, item) for item in value)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    # Numbers of numpy become plain ones, whose text reads back.
    if not isinstance(value, numbers.Real):
        raise InputError(f"parameter {key} of a Spec must be a number, string, boolean, None or a tuple, got {value!r}")
    if value != value:
        raise InputError(f"parameter {key} of a Spec is not a number (nan)")
    return float(value)


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({''.join(_written(item) + ',' for item in value)})"
    # 1e999 reads back as infinity; the word "inf" is no literal.
    return repr(value).replace("inf", "1e999") if isinstance(value, float) else repr(value)


def _chain(steps: list[Spec]) -> Spec:
    if not steps:
        raise InputError("a Spec has at least one method, got none")
    if len(steps) > MOST:
        raise InputError(f"a Spec has at most {MOST} methods, got {len(steps)}")
    chained = steps[-1]
    for step in reversed(steps[:-1]):
        chained = step + chained
    return chained


def _summands(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*_summands(node.left), *_summands(node.right)]
    return [node]


def _step(node: ast.expr, text: str) -> Spec:
    if isinstance(node, ast.Name):
        return Spec(node.id)
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args):
        raise _unreadable(text)
    try:
        params = {str(given.arg): ast.literal_eval(given.value) for given in node.keywords if given.arg}
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise _unreadable(text) from None
    if len(params) != len(node.keywords):
        raise _unreadable(text)
    return Spec(node.func.id, params)


def _unreadable(text: str) -> InputError:
    return InputError(f"cannot read the method {text!r:.200}; write it as name(key=value,...), joined by '+' to chain")


def as_specs(given: Iterable[Spec | str]) -> tuple[Spec, ...]:
    """Specs of specs or their texts, each once. Raises: InputError if there is none."""
    texts = (given,) if isinstance(given, Spec | str) else tuple(given)
    specs = tuple(dict.fromkeys(Spec.parse(spec) if isinstance(spec, str) else spec for spec in texts))
    if not specs:
        raise InputError("there is nothing to choose from: give at least one spec, such as 'tau_norm(tau=0.5)'")
    return specs
