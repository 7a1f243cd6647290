"""What a shell completes: names of methods, demo sets and recipes, and the words that options take.

A shell asks at every press of a key, and what knows these words imports torch, so they stand here once more; the tests
compare them.
"""

from collections.abc import Callable, Sequence
from importlib.resources import files

# fmt: off
METHODS = (
    "balanced_softmax", "ce", "class_balanced", "converged", "cosine", "crt", "focal", "gala", "gcl", "l2_norm",
    "label_aware_smoothing", "lda", "ldam", "logit_adjustment", "los", "lws", "marc", "ncm", "rebalance", "stage1",
    "tau_norm", "temperature", "unlearn", "vs", "weight_balancing",
)
# fmt: on


def _words(*words: str) -> Callable[[str], list[str]]:
    """Completes one of these."""

    def complete(incomplete: str) -> list[str]:
        return _begun(words, incomplete)

    return complete


def _last(mark: str, complete: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """Completes the last of several that are joined by a mark."""

    def complete_last(incomplete: str) -> list[str]:
        before, joint, last = incomplete.rpartition(mark)
        return [before + joint + word for word in complete(last)]

    return complete_last


def _begun(words: Sequence[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


demo_sets = _words("cifar100lt_r32_autoaugment", "cifar100lt_r32")
searches = _words("full", "halving", "sketch")
selections = _words("held_out", "kfold", "cross_fit", "paper")
tune_selections = _words("held_out", "kfold")
metrics = _words("balanced_accuracy", "accuracy", "macro_f1", "many", "medium", "few")
report_formats = _last(",", _words("html", "md", "latex", "csv", "svg", "png", "all"))


def method_names(incomplete: str) -> list[str]:
    """Methods, those of installed packages too, that begin with what was typed."""
    from importlib.metadata import entry_points

    added = [point.name for point in entry_points(group="poise.methods")]
    return _begun(sorted({*METHODS, *added}), incomplete)


method_chain = _last("+", method_names)


def fit_methods(incomplete: str) -> list[str]:
    """What `poise fit --method` takes: auto, or a method."""
    return [*_begun(("auto",), incomplete), *method_chain(incomplete)]


def recipe_files(incomplete: str) -> list[str]:
    """The shipped recipes; where none fits, the shell goes on with files."""
    entries = (entry.name for entry in files("poise").joinpath("recipes").iterdir())
    return _begun(sorted(name.removesuffix(".yaml") for name in entries if name.endswith(".yaml")), incomplete)
