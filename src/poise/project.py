"""Photographs or texts in, a deployable model out: every step of a run, and prediction of more samples with the result.

folder/model.json, head.safetensors   the model: what `poise predict` reads
folder/representation/                the backbone that makes the model's features
folder/records.jsonl, summary.csv     the comparison of heads, if there is a test split
folder/config.yaml, split.json ...    how it came about; see `pipeline`
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from poise import runs
from poise.artefact import Model, load
from poise.backbones import TextBackbone, names
from poise.comparison import Comparison
from poise.config import Config
from poise.deployment import Targets, deploy
from poise.errors import InputError
from poise.extract import SMALL, feature_rows
from poise.headroom import oracle_accuracy
from poise.methods import available
from poise.metrics import evaluate
from poise.pipeline import (
    Loaded,
    Phase,
    load_problem,
    represent,
    store_features,
    unseen,
    write_description,
)
from poise.predictions import Tallied, write_predictions
from poise.protocols import compare
from poise.representation import REPRESENTATION, load_representation
from poise.samples import Items
from poise.splits import Splits
from poise.types import Features, Scores

__all__ = ["Fitted", "compare_heads", "fit_samples", "predict_items", "reads_samples", "recipe_for"]


class Fitted(NamedTuple):
    """What a run ends with. `comparison` and `scores`, those of the model on the test split, are None without one."""

    model: Model
    comparison: Comparison | None
    scores: Scores | None
    written: tuple[Path, ...]


def fit_samples(
    config: Config,
    splits: Splits,
    folder: Path,
    *,
    method: str = "auto",
    prior: Any = None,
    targets: Targets | None = None,
    seed: int = 0,
    should_stop: Callable[[], bool] | None = None,
    phase: Phase = unseen,
) -> Fitted:
    """Train or load a backbone, extract features, compare heads, and write a model for the prior of deployment.

    Held-out samples choose and calibrate; the test split is read once, by the comparison. `method` "auto" takes what
    the comparison recommends, or, without a test split, what the held-out samples choose. `prior` is that of the
    configuration unless one is given. A step whose result is in the folder is not done again.

    Raises: StoppedError; InputError for settings, samples or a folder that do not fit.
    """
    written = write_description(config, splits, folder)
    representation = represent(config, splits, folder, should_stop=should_stop, phase=phase)
    representation.save(folder / "representation")
    stores = store_features(config, representation, splits, folder, phase=phase)
    found = load_problem(representation, stores)
    comparison = None
    if found.test is not None:
        with phase("comparing heads") as progress:
            comparison = compare_heads(config, found, seed=seed, progress=progress)
        written += runs.write(folder, comparison)
    chosen = _recommended(comparison) if method == "auto" and found.problem.head is not None else method
    with phase("fitting") as progress:
        model = deploy(
            found.problem,
            method=chosen or "auto",
            prior=config.heads.prior if prior is None else prior,
            targets=targets,
            seed=seed,
            progress=progress,
        )
    model = model.with_provenance(split=splits.hash, backbone=representation.backbone.name)
    return Fitted(model, comparison, _scores(model, found.test), (*written, model.save(folder)))


def compare_heads(
    config: Config, found: Loaded, *, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> Comparison:
    """The heads that a configuration names, tuned and compared on its test split. Raises: InputError without one."""
    if found.test is None:
        raise InputError("heads are compared on a test split; give data.test, or data.test_rows above 0")
    heads = config.heads
    unseen_rows = found.problem.held_out is not None
    return compare(
        available() if heads.methods == "auto" else heads.methods,
        found.problem,
        found.test,
        selection=heads.selection if unseen_rows or heads.selection != "held_out" else "kfold",
        seeds=(seed,),
        budget=heads.budget,
        oracle=oracle_accuracy,
        data=config.title or "samples",
        progress=progress,
    )


def _recommended(comparison: Comparison | None) -> str | None:
    """The recommended method with its chosen settings; None if there is none."""
    if comparison is None or comparison.recommended is None:
        return None
    return str(comparison.recommended.method)


def _scores(model: Model, test: Features | None) -> Scores | None:
    """The model's own scores, where its classes are those of the test split."""
    if test is None or model.class_names != test.names:
        return None
    return evaluate(model.head(test.x[0]), test.y, test.counts)


def recipe_for(items: Items, backbone: str | None = None) -> str:
    """The shipped recipe that suits samples: texts, small_images (to 64 pixels a side, by a look at some), photographs.

    A network that is trained here is chosen for small images only where no other is named.
    """
    if items.kind == "text":
        return "texts"
    places = torch.linspace(0, len(items) - 1, min(len(items), 16)).long().tolist()
    sides = [max(image.size) for image in map(items.read, places) if not isinstance(image, str)]
    return "small_images" if max(sides) <= SMALL and backbone in (None, *names()) else "photographs"


# --- prediction -------------------------------------------------------------------------------------------------------


def reads_samples(folder: Path) -> bool:
    """Does the model of this folder come with the backbone that makes its features?"""
    return (folder / "representation" / REPRESENTATION).exists()


def predict_items(
    folder: Path,
    items: Items,
    out: Path,
    *,
    top: int | None = None,
    device: str | torch.device = "cpu",
    workers: int = 0,
    trusted: str | None = None,
    phase: Phase = unseen,
) -> Tallied:
    """Write one line per sample: its path or row, the predicted class, and probabilities.

    `trusted` names the network of the user's own that the model may run, see `load_representation`.

    Raises: InputError for samples of the wrong kind, or the first that cannot be read.
    """
    model, representation = load(folder), load_representation(folder / "representation", trusted=trusted)
    what = "texts" if isinstance(representation.backbone, TextBackbone) else "images"
    with phase(f"reading {what}") as progress:
        x = feature_rows(representation.backbone, items, device=device, workers=workers, progress=progress)
    named = {"sample": [items.describe(index) for index in range(len(items))]}
    return write_predictions(model, x, out, carried=named, top=top)
