"""The deployable folder: one head, what it was made for, and how its logits become decisions.

    folder/head.safetensors   the head, final: temperature and prior shift included
    folder/model.json         everything else, and the SHA-256 of the head file
    folder/SHA256SUMS         the digests of both, and of a report beside them

No pickle anywhere: opening a folder runs nothing. A folder is whole or refused: a file that is missing, truncated,
changed, from a newer version or outside of the folder is named in one sentence.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from poise.decisions.operating_point import OperatingPoint
from poise.deployment.promise import Promise
from poise.errors import InputError
from poise.machine.documents import Document, to_json
from poise.machine.folders import SEAL, generation
from poise.machine.reading import content_of, lies_in
from poise.priors import as_prior
from poise.values.counts import ClassCounts, as_counts
from poise.values.fields import TABLE, TEXT, WHOLE, Kind, at_least, check_fields, list_of, optional, table_of, whole
from poise.values.head import Head
from poise.values.spec import Spec
from poise.values.wording import prior_in_words

HEAD_FILE, MODEL_FILE = "head.safetensors", "model.json"
# What is known of a model, written beside it: report.json, and what is made of it.
REPORT_FILES = ("report.json", "report.html", "report.md", "report.tex", "methods.csv", "classes.csv", "figures")


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """What is deployed.

    `head` gives the final logits; `prior_applied` (C,) is the class prior for which their softmax is meant, None if it
    is not known. `counts` are those of the training rows, `method` the text of the Spec that made the head, `operating`
    how logits become decisions (None: the largest one wins), `provenance` any JSON: versions, keys of splits, settings.

    Raises: InputError if the parts disagree in their number of classes, or `method` is no Spec.
    """

    head: Head
    class_names: tuple[str, ...]
    counts: ClassCounts
    prior_applied: Tensor | None
    method: str
    operating: OperatingPoint | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names, counts = tuple(self.class_names), as_counts(self.counts)
        for name, value in (("class_names", names), ("counts", counts)):
            object.__setattr__(self, name, value)
        if self.prior_applied is not None:
            as_prior(self.prior_applied, counts)
            object.__setattr__(self, "prior_applied", torch.as_tensor(self.prior_applied).double())
        Spec.parse(self.method)
        if self.head.weight.ndim != 2:
            raise InputError(f"a model has one head, got a stack of {len(self.head)}; index it first")
        sizes = {"head": self.head.classes, "class names": len(names), "counts": len(counts)}
        if self.operating is not None and self.operating.classes is not None:
            sizes["operating point"] = self.operating.classes
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{what} {size}" for what, size in sizes.items())
            raise InputError(f"the parts of a model differ in their number of classes: {told}")
        if self.operating is not None and (self.operating.top_k or 0) > len(names):
            raise InputError(f"top_k must be at most {len(names)}, the number of classes, got {self.operating.top_k}")
        if len(set(names)) < len(names):
            twice = next(name for k, name in enumerate(names) if name in names[:k])
            raise InputError(f"two classes are called {twice!r}; names tell classes apart")

    @property
    def meant_for(self) -> str:
        """The class prior that its probabilities are for, in words."""
        prior = None if self.prior_applied is None else self.prior_applied.tolist()
        return prior_in_words(prior, self.counts.n.tolist(), self.class_names)

    @property
    def promise(self) -> Promise | None:
        """What is promised of unseen rows; None where nothing is, as in models from before there were promises."""
        kept = self.provenance.get("promise")
        return None if kept is None else Promise.from_dict(kept)

    def with_provenance(self, **more: Any) -> "Model":
        """The same model, with more said of where it comes from."""
        return replace(self, provenance={**self.provenance, **more})

    def save(self, folder: str | Path) -> Path:
        """Write the model to `folder`, and SHA256SUMS over it; the folder is returned.

        An earlier model there, and its report, are replaced in one step: whoever reads has the old one or the new one,
        and so has the next process after a crash. Other files stay.

        Raises: InputError if provenance is no JSON or the disk refuses; see `poise.machine.folders.generation`.
        """
        folder = Path(folder)
        with generation(folder, replaces=replaced_in(folder)) as stage:
            write(self, stage)
        return folder


def write(model: Model, folder: Path) -> list[Path]:
    """Write the files of a model into a folder that nobody reads yet. Raises: as `Model.save`."""
    to_json(dict(model.provenance), folder / MODEL_FILE)  # refuses before anything is written
    path = model.head.save(folder / HEAD_FILE)
    content = path.read_bytes()
    data = {
        "head": {"file": HEAD_FILE, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
        "class_names": list(model.class_names),
        "counts": model.counts.n.tolist(),
        "prior_applied": None if model.prior_applied is None else model.prior_applied.tolist(),
        "method": model.method,
        "operating": None if model.operating is None else model.operating.to_dict(),
        "provenance": dict(model.provenance),
    }
    return [path, DOCUMENT.write(folder / MODEL_FILE, data)]


def replaced_in(folder: Path) -> tuple[str, ...]:
    """What a model that is written there replaces: an earlier one, and its report; one without a model is another's."""
    reports = REPORT_FILES if (folder / MODEL_FILE).exists() else ()
    return (HEAD_FILE, MODEL_FILE, *reports)


def load(folder: str | Path) -> Model:
    """The model that `Model.save` wrote, bit for bit; the head file is compared with its SHA-256.

    Raises: InputError naming the file and what is wrong with it.
    """
    folder = Path(folder)
    if folder.is_file():
        raise InputError(f"{folder} is a file; a model is the folder that `poise fit` or save wrote")
    data = _description(folder)
    path = _head_path(folder, data["head"])
    head = Head.load(path)
    try:
        return Model(
            head=head,
            class_names=tuple(data["class_names"]),
            counts=as_counts(data["counts"]),
            prior_applied=None
            if data["prior_applied"] is None
            else torch.tensor(data["prior_applied"], dtype=torch.float64),
            method=data["method"],
            operating=None if data["operating"] is None else OperatingPoint.from_dict(data["operating"]),
            provenance=data["provenance"],
        )
    except InputError as error:
        raise InputError(f"{folder / MODEL_FILE}: {error}") from None


def check(folder: str | Path) -> list[str]:
    """What is wrong with the folder, one sentence each; empty if it is intact."""
    folder = Path(folder)
    try:
        load(folder)
        problems = []
    except InputError as error:
        problems = [str(error)]
    if not folder.is_dir() or (folder / SEAL).exists():  # whose seal tells what was written from a user's own files
        return problems
    known = {HEAD_FILE, MODEL_FILE, *REPORT_FILES}
    strays = sorted(path.name for path in folder.iterdir() if path.name not in known)
    return [*problems, *(f"{folder / name} does not belong to the model; move it elsewhere" for name in strays)]


def _description(folder: Path) -> dict[str, Any]:
    """The contents of model.json, with all keys and of a schema that this version reads."""
    path = folder / MODEL_FILE
    data = DOCUMENT.read(path)
    if unknown := sorted(set(data) - {"format", "schema", *_KINDS}):
        raise InputError(f"{path} has the unknown key {unknown[0]!r:.80}; save the model again")
    known = {key: kind for key, kind in _KNOWN.items() if data["provenance"].get(key) is not None}
    check_fields(f"{path}: provenance: ", data["provenance"], known, f"; {REMEDY}")
    return data


REMEDY = "save the model again"
# What is read again of the account that a model gives of itself.
_KNOWN = {
    "columns": list_of("names", TEXT),
    "read": Kind("a table of texts", lambda v: TABLE.fits(v) and all(optional(TEXT).fits(each) for each in v.values())),
    "promise": TABLE,
    "estimator": TABLE,
}
_KINDS = {
    "head": table_of(file=TEXT, bytes=whole(1), sha256=TEXT),
    "class_names": list_of("names", TEXT),
    "counts": list_of("whole numbers", WHOLE),
    "prior_applied": optional(list_of("numbers", at_least(0))),
    "method": TEXT,
    "operating": optional(TABLE),
    "provenance": TABLE,
}
DOCUMENT = Document("poise.model", "model", 1, REMEDY, _KINDS)


def _head_path(folder: Path, head: Mapping[str, Any]) -> Path:
    """The head file, known to lie in the folder and to have the size and hash that model.json says."""
    path = folder / HEAD_FILE
    if head["file"] != HEAD_FILE or not lies_in(path, folder):
        raise InputError(f"{folder / MODEL_FILE} names the head file {head['file']!r:.80}, which is not in the folder")
    if not path.exists():
        raise InputError(f"{path} is missing; {REMEDY}")
    content = content_of(path, REMEDY, None)
    if len(content) != head["bytes"]:
        raise InputError(f"{path} has {len(content)} bytes, {MODEL_FILE} says {head['bytes']}; save the model again")
    if hashlib.sha256(content).hexdigest() != head["sha256"]:
        raise InputError(f"{path} is not the file that {MODEL_FILE} describes (SHA-256 differs); save the model again")
    return path
