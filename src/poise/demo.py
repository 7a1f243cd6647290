"""The demonstration: every method tuned on held-out rows, judged once on a test split, on real features."""

from typing import NamedTuple

from poise.advice import advice
from poise.artefact import Model
from poise.comparison import Comparison
from poise.data import DemoSet, load_demo, load_text_demo
from poise.deployment import deploy
from poise.diagnosis import contents_of
from poise.headroom import learning_curve, oracle_accuracy
from poise.methods import available
from poise.progress import Progress
from poise.protocols import compare
from poise.report.contents import Contents
from poise.schedule import Protocol
from poise.spec import Spec

__all__ = [
    "TEXT_SPECS",
    "VARIANTS",
    "Shown",
    "contents",
    "demo_specs",
    "recommended_model",
    "run_demo",
    "run_text_demo",
]

VARIANTS: tuple[Spec, ...] = (
    Spec("class_balanced", gamma=1.0),
    Spec("cosine", learn_scale=True),
    Spec("crt") + Spec("tau_norm", tau=0.5),
    Spec("crt", start="stage1"),
    Spec("gala", variant="paper"),
    Spec("label_aware_smoothing", variant="paper"),
    Spec("ldam", drw=False),
    Spec("logit_adjustment") + Spec("temperature"),
    Spec("weight_balancing", loss="ce"),
)

# Where the backbone saw no row, cross-validation is valid and every fold trains every head: a choice of methods.
TEXT_SPECS: tuple[Spec, ...] = tuple(
    Spec(name)
    for name in (
        "balanced_softmax",
        "ce",
        "class_balanced",
        "crt",
        "l2_norm",
        "lda",
        "logit_adjustment",
        "los",
        "ncm",
        "tau_norm",
        "unlearn",
    )
)

TEXT_NOTES = (
    "Settings were selected by 5-fold cross-validation on the training questions, which the embedding model never saw; "
    "the test split was read once.",
)

NOTES = (
    "Settings were selected on the held-out rows that come with the features; the test split was read once. Learning "
    "rates were searched around defaults that were chosen once on held-out rows of the shipped sets.",
)


class Shown(NamedTuple):
    """What a demonstration compared on, the result, and what a reader of it should know."""

    demo: DemoSet
    comparison: Comparison
    notes: tuple[str, ...]


def demo_specs() -> tuple[Spec, ...]:
    """Every method (those of installed packages too), and the variants worth seeing beside them."""
    return (*(Spec(name) for name in available()), *VARIANTS)


def run_demo(name: str, *, seed: int = 0, progress: Progress | None = None) -> Shown:
    """Tune every spec on the held-out rows of the named demo set and read its test split once."""
    demo = load_demo(name)
    return Shown(demo, _compared(demo, demo_specs(), "held_out", seed, progress), NOTES)


def run_text_demo(profile: str, *, seed: int = 0, progress: Progress | None = None) -> Shown:
    """Tune a choice of methods by cross-validation on embedded questions, and read the test split once.

    `profile` is natural or exponential, see `data.load_text_demo`; the first use embeds all texts.
    """
    demo = load_text_demo(profile, progress=progress)
    return Shown(demo, _compared(demo, TEXT_SPECS, "kfold", seed, progress), TEXT_NOTES)


def contents(shown: Shown, *, title: str, seed: int = 0, command: str | None = None) -> Contents:
    """What the report of a demonstration shows.

    With held-out rows, labelling advice and a learning curve too; they learn from labelled test rows, cross-fitted.
    """
    demo, found = shown.demo, shown.comparison
    best = None if found.recommended is None else found.recommended.scorers[0].head
    page = contents_of(
        found, demo.test, title=title, problem=demo.problem, seed=seed, command=command, notes=shown.notes
    )
    if demo.problem.held_out is None:
        return page
    advised = advice(demo.problem, demo.test, best=best, seed=seed).told
    curve = learning_curve(demo.problem, demo.test, seed=seed)
    return page.model_copy(update={"advice": advised, "learning_curve": curve})


def recommended_model(shown: Shown, seed: int = 0) -> Model | None:
    """The recommended head as a model for classes that are equally common, calibrated on the held-out rows.

    None without a recommendation or without held-out rows.
    """
    demo, chosen = shown.demo, shown.comparison.recommended
    if chosen is None or demo.problem.held_out is None:
        return None
    model = deploy(demo.problem, method=chosen.method, prior="uniform", seed=seed, selected=True).model
    return model.with_provenance(data=demo.name)


def _compared(
    demo: DemoSet, specs: tuple[Spec, ...], selection: Protocol, seed: int, progress: Progress | None
) -> Comparison:
    return compare(
        specs,
        demo.problem,
        demo.test,
        selection=selection,
        seeds=(seed,),
        oracle=oracle_accuracy,
        data=demo.name,
        progress=progress,
    )
