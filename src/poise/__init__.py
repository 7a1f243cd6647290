"""Poise: re-balance classifiers trained on long-tailed data.

Every classifier-level method of the field on one cached representation, any number of heads in one pass. Names are
loaded when they are first used, so that importing the package costs nothing.

>>> import poise
>>> poise.Spec("los", delta=0.98)
los(delta=0.98)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from poise import constraints, losses, methods, metrics, profiles, sampling, statistics, testing
    from poise.errors import PoiseError, PoiseWarning
    from poise.estimator import LongTailClassifier
    from poise.methods import then
    from poise.metrics import evaluate, evaluate_head
    from poise.plan import Plan
    from poise.protocols import compare
    from poise.readers import load_features
    from poise.selection import tune
    from poise.solver import Retrain, fit_heads
    from poise.spec import Spec
    from poise.store import save_features
    from poise.types import ClassCounts, Features, Head, Prep, Problem, Scores

# Where each public name lives; None marks a module.
_HOMES: dict[str, str | None] = {
    "ClassCounts": "types",
    "Features": "types",
    "Head": "types",
    "LongTailClassifier": "estimator",
    "Plan": "plan",
    "PoiseError": "errors",
    "PoiseWarning": "errors",
    "Prep": "types",
    "Problem": "types",
    "Retrain": "solver",
    "Scores": "types",
    "Spec": "spec",
    "compare": "protocols",
    "constraints": None,
    "evaluate": "metrics",
    "evaluate_head": "metrics",
    "fit_heads": "solver",
    "load_features": "readers",
    "losses": None,
    "methods": None,
    "metrics": None,
    "profiles": None,
    "sampling": None,
    "save_features": "store",
    "statistics": None,
    "testing": None,
    "then": "methods",
    "tune": "selection",
}

__all__ = [
    "ClassCounts",
    "Features",
    "Head",
    "LongTailClassifier",
    "Plan",
    "PoiseError",
    "PoiseWarning",
    "Prep",
    "Problem",
    "Retrain",
    "Scores",
    "Spec",
    "compare",
    "constraints",
    "evaluate",
    "evaluate_head",
    "fit_heads",
    "load_features",
    "losses",
    "methods",
    "metrics",
    "profiles",
    "sampling",
    "save_features",
    "statistics",
    "testing",
    "then",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'poise' has no attribute {name!r}")
    home = _HOMES[name]
    value = import_module(f"poise.{name}") if home is None else getattr(import_module(f"poise.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
