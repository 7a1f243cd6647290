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
    from poise.data.row_files import load_features
    from poise.data.store.feature_store import save_features
    from poise.deployment.estimator import LongTailClassifier
    from poise.diagnosis.compare import compare
    from poise.errors import PoiseError, PoiseWarning
    from poise.heads.plan import Plan
    from poise.heads.solver import Retrain, fit_heads
    from poise.methods import then
    from poise.metrics import evaluate, evaluate_head
    from poise.results.scores import Scores
    from poise.selection.tune import tune
    from poise.values.counts import ClassCounts
    from poise.values.features import Features
    from poise.values.head import Head, Prep
    from poise.values.problem import Problem
    from poise.values.spec import Spec

# Where each public name lives; None marks a module.
_HOMES: dict[str, str | None] = {
    "ClassCounts": "values.counts",
    "Features": "values.features",
    "Head": "values.head",
    "LongTailClassifier": "deployment.estimator",
    "Plan": "heads.plan",
    "PoiseError": "errors",
    "PoiseWarning": "errors",
    "Prep": "values.head",
    "Problem": "values.problem",
    "Retrain": "heads.solver",
    "Scores": "results.scores",
    "Spec": "values.spec",
    "compare": "diagnosis.compare",
    "constraints": None,
    "evaluate": "metrics",
    "evaluate_head": "metrics",
    "fit_heads": "heads.solver",
    "load_features": "data.row_files",
    "losses": None,
    "methods": None,
    "metrics": None,
    "profiles": None,
    "sampling": None,
    "save_features": "data.store.feature_store",
    "statistics": None,
    "testing": None,
    "then": "methods",
    "tune": "selection.tune",
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
