"""What a model folder reads, and predictions of samples with it."""

import shutil
from pathlib import Path

import torch
from torch import Tensor

from poise.commands.description import is_described
from poise.data.samples.decode_all import whole_rows
from poise.data.samples.sample_set import Items
from poise.data.store.feature_store import check_store
from poise.data.store.manifest import MANIFEST
from poise.decisions.answer_files import Tallied
from poise.deployment.model import MODEL_FILE, load
from poise.deployment.prediction_files import write_predictions
from poise.errors import InputError
from poise.machine.progress import Phase, unseen
from poise.representation.backbones import TextBackbone
from poise.representation.extract import feature_rows
from poise.representation.trained_network import REPRESENTATION, check_representation, load_representation
from poise.values.checks import check_one_of


def reads_samples(folder: Path) -> bool:
    """Does the model of this folder come with the backbone that makes its features?"""
    return (folder / "representation" / REPRESENTATION).exists()


def refuse_unfitted(folder: Path, source: str) -> None:
    """Raises: InputError for a run without a model, and for images that a model of feature rows cannot read."""
    modelled, place = (folder / MODEL_FILE).exists(), Path(source)
    if not modelled and ((place / MODEL_FILE).exists() or (place.suffix.lower() == ".onnx" and place.exists())):
        raise InputError(
            f"{folder} is no model, and {source} is one; the model comes first: `poise predict {source} {folder}`"
        )
    if not modelled and is_described(folder):
        raise InputError(f"{folder} is a run without a model; make one with `poise fit {folder} --out {folder}`")
    if modelled and place.is_dir() and not reads_samples(folder) and not (place / MANIFEST).exists():
        raise InputError(
            f"{folder} was fitted on feature rows and reads no images; {source} is no feature store, which "
            "`poise extract` makes of images with the same backbone"
        )


def refuse_mixture(source: str, folder: Path) -> None:
    """Raises: InputError if a model of feature rows would be written beside a backbone that did not make them."""
    if reads_samples(folder) and Path(source).resolve() != folder.resolve():
        raise InputError(f"{folder} holds a backbone with a model of its own; choose another folder with --out")


def carry_backbone(source: Path, folder: Path, stage: Path) -> None:
    """Copy the backbone of a run beside the model that was fitted on its features, so that it predicts images.

    `stage` is to take the place of `folder`, and gets what that has anyway.
    """
    if reads_samples(source) and not reads_samples(folder):
        shutil.copytree(source / "representation", stage / "representation")


def check_run(folder: Path) -> list[str]:
    """What is wrong with the parts of a run, one sentence each: its model, its backbone, its features."""
    found = []
    if (folder / MODEL_FILE).exists():
        try:
            load(folder)
        except InputError as error:
            found.append(str(error))
    for path in sorted((folder / "features").glob("*/")):
        found += check_store(path)
    return found + check_representation(folder / "representation")


def predict_items(
    folder: Path,
    items: Items,
    out: Path,
    *,
    top: int | None = None,
    spreadsheet: bool = False,
    broken: str = "error",
    device: str | torch.device = "cpu",
    workers: int = 0,
    trusted: str | None = None,
    phase: Phase = unseen,
) -> Tallied:
    """Write one line per sample: its path or row, the predicted class, and probabilities.

    `broken` "skip" leaves images out that cannot be read, with a warning that counts them. `trusted` names the network
    of the user's own that the model may run, see `load_representation`.

    Raises: InputError for samples of the wrong kind, or the first that cannot be read.
    """
    model = load(folder)
    x, rows = item_features(folder, items, broken=broken, device=device, workers=workers, trusted=trusted, phase=phase)
    named = {"sample": [items.describe(index) for index in rows.tolist()]}
    return write_predictions(model, x, out, carried=named, top=top, spreadsheet=spreadsheet)


def item_features(
    folder: Path,
    items: Items,
    *,
    broken: str = "error",
    device: str | torch.device = "cpu",
    workers: int = 0,
    trusted: str | None = None,
    phase: Phase = unseen,
) -> tuple[Tensor, Tensor]:
    """Features (N, D) by the backbone beside a model, and which of the items (N,) they are of.

    Arguments and errors are those of `predict_items`.
    """
    representation = load_representation(folder / "representation", trusted=trusted)
    what = "texts" if isinstance(representation.backbone, TextBackbone) else "images"
    check_one_of("broken", broken, ("error", "skip"))
    rows = torch.arange(len(items))
    if broken == "skip":
        with phase(f"looking for broken {what}") as progress:
            rows = whole_rows(items, "skip", progress)[0]
    with phase(f"reading {what}") as progress:
        x = feature_rows(representation.backbone, items.take(rows), device=device, workers=workers, progress=progress)
    return x, rows
