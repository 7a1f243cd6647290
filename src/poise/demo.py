"""The demonstration: every method, with stated plans, on real features that come with the package."""

from collections.abc import Callable

from poise.data import load_demo
from poise.experiment import run
from poise.methods import available
from poise.methods.published import published
from poise.record import Record
from poise.spec import Spec

__all__ = ["NOTES", "VARIANTS", "demo_specs", "run_demo"]

VARIANTS: tuple[Spec, ...] = (
    Spec("class_balanced", gamma=1.0),
    Spec("cosine", learn_scale=True),
    Spec("crt") + Spec("tau_norm", tau=0.5),
    Spec("crt", start="stage1"),
    Spec("gala", lambda_pos=1.2, lambda_neg=0.9, variant="paper"),
    Spec("gala", lambda_pos=2.0),
    Spec("label_aware_smoothing", variant="paper"),
    Spec("ldam", drw=False),
    Spec("logit_adjustment") + Spec("temperature"),
    Spec("ncm", transform="l2n"),
    Spec("ncm", transform="raw"),
    Spec("tau_norm", tau=0.7),
    Spec("weight_balancing", loss="ce"),
    *(row.spec for name in ("los", "weight_balancing") for row in published(name)),
)

NOTES = (
    "Nothing was selected in this run: every setting is a default (whose learning rate was chosen once, on held-out "
    "rows of the shipped sets) or a published recipe; all are written in records.jsonl. The rows are sorted by test "
    "accuracy for reading; picking the top one would be selection on the test split.",
    "all, many, medium, few: accuracy in per cent over all classes and over those with more than 100, 20 to 100 and "
    "fewer than 20 training rows. F1: macro-F1. ECE: expected calibration error of the plain softmax.",
    "LoMa: variation over classes (standard deviation / mean) of the Logits Magnitude on the test split.",
    "sec: closed forms and adjustments alone, with the first use of scikit-learn (lda) and scipy (temperature); "
    "trained heads their equal share of the training of all.",
)


def demo_specs() -> tuple[Spec, ...]:
    """Every method at its defaults (those of installed packages too), and the variants worth seeing beside them."""
    return (*(Spec(name) for name in available()), *VARIANTS)


def run_demo(name: str, *, seed: int = 0, progress: Callable[[int, int], None] | None = None) -> list[Record]:
    """Train every spec on the named demo set, read its test split once, and return the records, best accuracy first."""
    demo = load_demo(name)
    records = run(demo_specs(), demo.problem, demo.test, data=demo.name, seed=seed, progress=progress)
    return sorted(records, key=lambda record: -record.scores.accuracy)
