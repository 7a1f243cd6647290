"""What a shell completes: names of methods, demo sets and recipes, and the words that options take.

A shell asks at every press of a key, so nothing is imported for an answer: tables are read from the text of the module
that holds them.
"""

import ast
from collections.abc import Callable
from importlib.resources import files

__all__ = [
    "demo_sets",
    "fit_methods",
    "method_chain",
    "method_names",
    "metrics",
    "recipe_files",
    "report_formats",
    "searches",
    "selections",
    "tune_selections",
]


def names_in(module: str, table: str) -> tuple[str, ...]:
    """The texts in a literal tuple, or the keys of a literal mapping, that a module of Poise assigns to `table`.

    >>> names_in("plan", "NONE")
    ()
    """
    tree = ast.parse(files("poise").joinpath(f"{module}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == table for target in targets):
            return tuple(_texts(node.value))  # type: ignore[attr-defined]
    return ()


def _texts(value: ast.expr) -> list[str]:
    """The texts of a tuple, the keys of a mapping, also where it is the argument of a call."""
    inner = value.args[0] if isinstance(value, ast.Call) else value
    items = inner.keys if isinstance(inner, ast.Dict) else getattr(inner, "elts", [])
    return [item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)]


def method_names(incomplete: str) -> list[str]:
    """Methods, those of installed packages too, that begin with what was typed."""
    from importlib.metadata import entry_points

    added = [point.name for point in entry_points(group="poise.methods")]
    return _begun(sorted({*names_in("methods/__init__", "METHODS"), *added}), incomplete)


def method_chain(incomplete: str) -> list[str]:
    """Methods where several may be joined by a plus: the last of them is completed."""
    before, plus, last = incomplete.rpartition("+")
    return [before + plus + name for name in method_names(last)]


def fit_methods(incomplete: str) -> list[str]:
    """What `poise fit --method` takes: auto, or a method."""
    return [*_begun(("auto",), incomplete), *method_chain(incomplete)]


def demo_sets(incomplete: str) -> list[str]:
    """The feature sets that come with the package."""
    return _begun(names_in("data", "DEMO_SETS"), incomplete)


def recipe_files(incomplete: str) -> list[str]:
    """The shipped recipes; where none fits, the shell goes on with files."""
    entries = (entry.name for entry in files("poise").joinpath("recipes").iterdir())
    return _begun(sorted(name.removesuffix(".yaml") for name in entries if name.endswith(".yaml")), incomplete)


def report_formats(incomplete: str) -> list[str]:
    """The formats of `report` where several may be joined by commas: the last of them is completed."""
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in _begun((*names_in("reports", "FORMATS"), "all"), last)]


def searches(incomplete: str) -> list[str]:
    """The searches of `compare` and `tune`."""
    return _begun(names_in("elimination", "SEARCHES"), incomplete)


def metrics(incomplete: str) -> list[str]:
    """What `tune` can choose by."""
    return _begun(names_in("judging", "METRICS"), incomplete)


def _words(*words: str) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return _begun(words, incomplete)

    return complete


selections = _words("held_out", "kfold", "cross_fit", "paper")
tune_selections = _words("held_out", "kfold")


def _begun(words: tuple[str, ...] | list[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]
