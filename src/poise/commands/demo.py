"""The demonstration: every method tuned on held-out rows, judged once on a test split, on real features."""

import csv
import gzip
import hashlib
import io
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from poise.commands.run_folder import COMPARISON
from poise.data.bundled import DemoSet, load_demo
from poise.deployment.deploy import deploy
from poise.deployment.model import Model
from poise.diagnosis.report_contents import contents_of
from poise.machine.progress import Progress
from poise.methods import available
from poise.profiles import exponential, select
from poise.representation.sentences import embed_cached
from poise.results.contents import Contents
from poise.selection.compare import compare
from poise.selection.comparison_result import Comparison
from poise.selection.labelling import advice
from poise.selection.oracle import learning_curve, oracle_accuracy
from poise.selection.rules import Protocol
from poise.values.checks import check_one_of
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.problem import Problem
from poise.values.spec import Spec

DEMO = (*COMPARISON, "model")  # what the next demonstration in the folder replaces

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


TEXT_SETS: Mapping[str, str] = MappingProxyType(
    {
        "natural": "all-MiniLM-L6-v2 on Banking77, natural counts (187 to 35)",
        "exponential": "all-MiniLM-L6-v2 on Banking77, exponential counts (IF 50)",
    }
)


def load_text_demo(profile: str = "natural", *, progress: Progress | None = None) -> DemoSet:
    """Questions to a bank, 77 intents (Banking77), embedded by all-MiniLM-L6-v2; D = 384, 3,080 test rows.

    `natural`: the 10,003 training rows as they are, 187 to 35 per class. `exponential`: 2,897 of them, 150 to 3 per
    class, imbalance 50. There is no stage-1 head and no held-out row: the model was not trained on these rows,
    so cross-validation on them is valid. The first use embeds all texts (under a minute on two cores) and
    keeps the rows in `sentences.cache_folder()`. Origin, licence and profiles are in demo_data/text/README.md.

    Raises: InputError for a profile that is not in `TEXT_SETS`; MissingExtraError without the extra `text`.
    """
    check_one_of("profile", profile, TEXT_SETS)
    splits, labels, texts = zip(*_questions(), strict=True)
    names = tuple(sorted(set(labels)))
    x, y = embed_cached(texts, progress=progress), torch.tensor([names.index(label) for label in labels])
    is_train = torch.tensor([split == "train" for split in splits])
    train, test = is_train.nonzero().flatten(), (~is_train).nonzero().flatten()
    counts = torch.bincount(y[train], minlength=len(names))
    if profile == "exponential":
        counts = _deal(exponential(150, len(names), 50), counts, names)
        train = train[select(y[train], counts)]
    every = Features(x, y, ClassCounts(counts), seen_by_backbone=False, class_names=names)
    return DemoSet(
        "banking77" if profile == "natural" else "banking77_if50", Problem(every.take(train)), every.take(test)
    )


def _questions() -> list[tuple[str, str, str]]:
    """(split, class name, text) of every question."""
    packed = (files("poise") / "demo_data" / "text" / "banking77.csv.gz").read_bytes()
    table = csv.reader(io.StringIO(gzip.decompress(packed).decode(), newline=""))
    next(table)
    return [(split, label, text) for split, label, text in table]


def _deal(counts: Tensor, available: Tensor, names: tuple[str, ...]) -> Tensor:
    """The falling `counts` (C,) dealt out, each to the first class that has so many rows.

    Classes wait in the order of a hash of their names, so that rarity does not follow the alphabet.
    """
    waiting = sorted(range(len(names)), key=lambda k: hashlib.sha256(names[k].encode()).digest())
    dealt = torch.zeros_like(counts)
    for n in counts.tolist():
        k = next(k for k in waiting if available[k] >= n)
        waiting.remove(k)
        dealt[k] = n
    return dealt
