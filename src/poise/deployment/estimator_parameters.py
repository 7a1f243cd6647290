"""The parameters of `LongTailClassifier`: which a method takes, what they stand for, and what of them is kept."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from poise.errors import InputError
from poise.methods import available, further, parameters
from poise.values.spec import Spec
from poise.values.wording import near

AUTO = "auto"
OWN = ("method", "prior", "random_state", "seen_by_backbone")  # those of the estimator


def names_of(method: Any) -> list[str] | None:
    """The parameters that a method takes; None if it is no name, which fit refuses."""
    if not isinstance(method, str):
        return None
    if method == AUTO:
        return []
    if method not in available():
        return None
    return [*parameters(method), *further(method)]


def refuse_unknown(method: Any, names: Iterable[str]) -> None:
    """Raises: InputError for a name that is a parameter neither of the estimator nor of its method."""
    allowed = names_of(method)
    for name in names:
        if allowed is not None and name not in (*OWN, *allowed):
            takes = f"it takes {', '.join(allowed)}" if allowed else "it takes none of its own; name a method"
            raise InputError(f"method {method!r} has no parameter {name!r}{near(name, (*OWN, *allowed))}; {takes}")


def spec_of(method: Any, params: Mapping[str, Any]) -> Spec | None:
    """The Spec of a method with these parameters; None for "auto"."""
    if not isinstance(method, str):
        raise InputError(f"method must be 'auto', the name of a method or the text of a Spec, got {method!r}")
    if method == AUTO:
        if params:
            raise InputError(f"method='auto' takes no parameters, got {', '.join(sorted(params))}; name a method")
        return None
    spec = Spec.parse(method)
    if params and (len(spec.steps) > 1 or spec.params):
        raise InputError(f"parameters of {method!r} belong into its text, got {', '.join(sorted(params))} beside it")
    return Spec(spec.name, params) if params else spec


def shares_of(prior: Mapping[Any, Any], classes: list[Any]) -> list[Any]:
    """The shares of a mapping {class: share} in the order of `classes`, all of which it has to name."""
    for name in prior:
        if name not in classes:
            hint = near(str(name), map(str, classes))
            raise InputError(f"prior names the class {name!r}, which the training rows do not have{hint}")
    for name in classes:
        if name not in prior:
            raise InputError(f"prior has no share for the class {name!r}; add it")
    return [prior[name] for name in classes]


def as_json(name: str, value: Any) -> Any:
    """A parameter as JSON. A generator of random numbers has none, and nothing is drawn after fit: it becomes null."""
    if isinstance(value, np.random.RandomState | np.random.Generator):
        return None
    plain = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(plain, tuple):
        return list(plain)
    if not isinstance(plain, str | int | float | bool | list | None):
        raise InputError(f"the parameter {name}={value!r} cannot be saved; give numbers, words or lists")
    return plain
