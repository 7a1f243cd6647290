"""Texts such as `crop(pad=4)` to what a table makes of them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from poise.errors import InputError
from poise.values.spec import Spec
from poise.values.wording import near

T = TypeVar("T")


def steps(texts: Sequence[str]) -> list[Spec]:
    """The single specs of all texts, in order; `a+b` in one text is the same as two texts.

    Raises: InputError for a text alone where a sequence of them is meant, or one that cannot be read.
    """
    if isinstance(texts, str):
        raise InputError(f"augmentations are a list of texts, got the text {texts!r}; write [{texts!r}]")
    return [step for text in texts for step in Spec.parse(text).steps]


def built(spec: Spec, table: Mapping[str, Callable[..., T]]) -> T:
    """What the factory of that name in `table` returns for the parameters of the spec.

    Raises: InputError for a name or parameter that does not exist, with what is near it.
    """
    if spec.name not in table:
        known = ", ".join(table)
        raise InputError(f"no augmentation is called {spec.name!r}{near(spec.name, table)}; there are {known}")
    takes = tuple(inspect.signature(table[spec.name]).parameters)
    for key, _ in spec.params:
        if key not in takes:
            accepted = f"it takes {', '.join(takes)}" if takes else "it takes none"
            raise InputError(f"{spec.name} has no parameter {key!r}{near(key, takes)}; {accepted}")
    return table[spec.name](**dict(spec.params))
