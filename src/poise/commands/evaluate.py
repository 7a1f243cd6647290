"""A fitted model on labelled rows that it has not seen: what it is worth there, and where it errs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from poise.commands.predict import item_features
from poise.data.samples.sample_set import Samples
from poise.data.store.feature_store import load_features
from poise.data.store.manifest import MANIFEST
from poise.decisions.decide import decide
from poise.decisions.operating_point import OperatingPoint
from poise.deployment.calibration import Deployed, Evidence
from poise.deployment.model import Model
from poise.diagnosis.report_contents import contents_of_model
from poise.machine.progress import Phase, unseen
from poise.metrics import evaluate
from poise.results.contents import Contents, Range
from poise.results.scores import Scores
from poise.values.features import Features
from poise.values.overlap import overlap
from poise.values.wording import counted, percent

SHOWN = 5  # of the most frequent confusions


class Evaluated(NamedTuple):
    """What labelled rows say of a model.

    `answered` and `right` count the rows that its operating point answers, and those of them that it answers rightly.
    """

    model: Model
    scores: Scores
    contents: Contents
    answered: int
    right: int

    @property
    def ranges(self) -> dict[str, Range | None]:
        """Accuracy, balanced accuracy and recall of the groups, with 95 % intervals over rows."""
        return self.contents.rows[0].scores

    def lines(self) -> list[str]:
        """Balanced accuracy with its interval and what was promised, answers, calibration, and the first confusions."""
        return [
            self.contents.verdict.sentence,
            *self._answers(),
            f"calibration error {100 * self.scores.ece:.1f} points (its confidence against how often it is right)",
            *([] if not self.confusions else ["most often confused:", *self._confused()]),
        ]

    def _answers(self) -> list[str]:
        if self.answered == self.scores.rows:
            return []
        share = f", {100 * self.right / self.answered:.1f} % of them rightly" if self.answered else ""
        return [f"it answers {self.answered} of {self.scores.rows} rows{share}"]

    def _confused(self) -> list[str]:
        return [
            f"  {each['true']} answered as {each['answered']}: {counted(each['rows'], 'row')}, "
            f"{100 * each['share']:.0f} % of the class"
            for each in self.confusions[:SHOWN]
        ]

    @property
    def confusions(self) -> list[dict[str, Any]]:
        """Pairs of true and answered class, the most frequent first: rows, and their share of the true class."""
        names = self.contents.classes.names
        return [
            {"true": names[each.true], "answered": names[each.answered], "rows": each.rows, "share": each.share}
            for each in self.contents.closer[0].confusions
        ]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON types."""
        promise = self.model.promise
        return {
            "scores": self.scores.to_dict(),
            "intervals": {name: None if each is None else each.model_dump() for name, each in self.ranges.items()},
            "promise": None if promise is None else promise.to_dict(),
            "answered": self.answered,
            "right": self.right,
            "confusions": self.confusions,
        }


def evaluate_rows(
    model: Model,
    rows: Features,
    *,
    title: str,
    fitted_on: Features | None = None,
    command: str | None = None,
    notes: Sequence[str] = (),
) -> Evaluated:
    """Score a model on labelled rows of features, with its classes and its training counts.

    `fitted_on` are the rows that it was fitted on, where they are known.

    Raises: InputError if the features do not fit the model; MemorisedRowsError if too many are among `fitted_on`.
    """
    told = [] if fitted_on is None or fitted_on.dim != rows.dim else overlap({"training": fitted_on, "test": rows})
    logits = model.head(rows.x[0]).cpu()
    label = decide(logits, model.operating or OperatingPoint()).label
    evidence = Evidence(logits, rows.y.cpu(), torch.ones(len(rows)) if rows.weight is None else rows.weight)
    scores = evaluate(logits, rows.y, model.counts)
    contents = contents_of_model(
        Deployed(model, evidence, None),
        title=title,
        sentence="",
        held_out=None,
        command=command,
        notes=(*told, *notes),
    )
    said = contents.verdict.model_copy(
        update={"sentence": _sentence(model, contents.rows[0].scores["balanced"], scores)}
    )
    return Evaluated(
        model,
        scores,
        contents.model_copy(update={"verdict": said}),
        answered=int((label >= 0).sum()),
        right=int((label == rows.y.cpu()).sum()),
    )


def _sentence(model: Model, found: Range | None, scores: Scores) -> str:
    """Balanced accuracy with its interval, over the classes that have rows, and what was promised for equal shares."""
    there, classes = sum(recall is not None for recall in scores.per_class), len(scores.per_class)
    over = "" if there == classes else f", over the {there} of {classes} classes with rows"
    known = found is not None and found.low is not None and found.high is not None
    between = f" (95 %: {percent(found.low)} to {percent(found.high)})" if found is not None and known else ""
    promised = "" if model.promise is None else f"; promised for {model.meant_for}: {model.promise.number}"
    return (
        f"{model.method}: balanced accuracy {percent(scores.balanced_accuracy)} %{between} on "
        f"{scores.rows:,} labelled rows{over}{promised}."
    )


def evaluate_items(
    folder: Path,
    model: Model,
    samples: Samples,
    *,
    title: str,
    broken: str = "error",
    device: str | torch.device = "cpu",
    workers: int = 0,
    trusted: str | None = None,
    command: str | None = None,
    phase: Phase = unseen,
) -> Evaluated:
    """The same for labelled images or texts, which the backbone beside the model turns into features.

    Raises: as `evaluate_rows` and `poise.commands.predict.predict_items`.
    """
    x, rows = item_features(
        folder, samples.items, broken=broken, device=device, workers=workers, trusted=trusted, phase=phase
    )
    features = Features(x, samples.y[rows], model.counts, seen_by_backbone=False, class_names=model.class_names)
    return evaluate_rows(model, features, title=title, fitted_on=fitted_rows(folder), command=command)


def fitted_rows(folder: Path) -> Features | None:
    """The features that the model of a folder was fitted on, where the folder holds them."""
    store = folder / "features" / "train"
    return load_features(store) if (store / MANIFEST).is_file() else None


def is_label(values: Sequence[object], names: Sequence[str]) -> bool:
    """Do the values of a column look like labels: are they all names of classes, or empty?"""
    known = {*names, ""}
    given = {str(value) for value in values}
    return bool(given - {""}) and given <= known
