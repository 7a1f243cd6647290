"""Prediction with the ONNX file that `poise export` wrote: numpy, onnxruntime and Pillow do, torch is not needed.

The decisions and the file of answers are those of `poise predict` with the folder that was exported.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poise.data.samples.decoding import SKIP
from poise.decisions.answer_files import Answers, Tallied, write_answers
from poise.errors import InputError, PoiseWarning
from poise.export.rows_for_onnx import PIXELS, Pixels, Rows, pixels_of
from poise.machine.documents import check_schema, parsed
from poise.machine.libraries import needed
from poise.machine.progress import Progress
from poise.machine.reading import content_of, sentence_for
from poise.values.checks import check_one_of, is_number
from poise.values.fields import TABLE, TEXT, Kind, at_least, check_fields, list_of, number, one_of, optional, whole
from poise.values.wording import some

SCHEMA = 1
KEY = "poise"  # of the metadata
REMEDY = "export the model again"
# The key of a place outside of the file, as ONNX writes it, lengths of more bytes than needed included.
OUTSIDE = re.compile(rb"(\x0a|\x8a\x80*\x00)(\x08|\x88\x80*\x00)location")
IMAGES = 32  # that go through the network at once

Floats = npt.NDArray[np.float64]


class Exported(NamedTuple):
    """A network that reads `features` or `pixels` and gives logits, and what its metadata say.

    `added` (C,) is part of the logits that it gives and not of those that posteriors are made of: log costs.
    `operating` is the table of an operating point, None where the largest logit wins.
    """

    path: Path
    session: Any
    reads: str
    dim: int | None
    columns: tuple[str, ...] | None
    pixels: Pixels | None
    class_names: tuple[str, ...]
    counts: tuple[int, ...]
    prior_applied: tuple[float, ...] | None
    operating: Mapping[str, Any] | None
    added: Floats | None

    def logits(self, rows: npt.NDArray[np.float32]) -> Floats:
        """(N, C) float64 logits whose softmax is the posterior."""
        with sentence_for(self.path, "a network of these rows", REMEDY):
            (found,) = self.session.run(["logits"], {self.reads: rows})
        if getattr(found, "shape", None) != (len(rows), len(self.class_names)):
            raise InputError(f"{self.path} does not give a logit for each row and class; {REMEDY}")
        if not np.isfinite(found).all():
            raise InputError(f"{self.path} gives a logit that is not finite; export the model again")
        values: Floats = found.astype(np.float64)
        return values if self.added is None else values - self.added


# --- opening ----------------------------------------------------------------------------------------------------------


def open_onnx(path: str | Path) -> Exported:
    """The network of a file that `poise export` wrote.

    Raises: InputError if it is missing, damaged, or written by something else; MissingExtraError without onnxruntime.
    """
    file = Path(path)
    if not file.exists():
        raise InputError(f"there is no file {file}")
    content = content_of(file, REMEDY, None)
    if OUTSIDE.search(content):
        raise InputError(f"{file} keeps tensors in other files, which is no export of Poise; {REMEDY}")
    session = _session(file, content)
    with sentence_for(file, "an ONNX file", REMEDY):
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
    if text is None:
        raise InputError(
            f"{file} was not written by Poise: its metadata have no entry {KEY!r}; make one with "
            "`poise export MODEL --onnx`"
        )
    about = parsed(text, f"the entry {KEY!r} of {file}", REMEDY)
    check_schema(file, about.get("schema"), SCHEMA, REMEDY)
    check_fields(f"{file}: the metadata {KEY!r}: ", about, _KINDS, f"; {REMEDY}")
    return _checked(file, session, about)


def _session(file: Path, content: bytes) -> Any:
    onnxruntime = needed("onnxruntime", "export", f"predicting with {file} needs")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is raised, and said once
    with sentence_for(file, "an ONNX file", REMEDY):
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _checked(file: Path, session: Any, about: Mapping[str, Any]) -> Exported:
    """Raises: InputError for metadata that do not fit the network, or each other."""
    names, reads = tuple(about["class_names"]), about["input"]
    with sentence_for(file, "an ONNX file", REMEDY):
        known = {one.name for one in session.get_inputs()}, {one.name for one in session.get_outputs()}
    if reads not in known[0] or "logits" not in known[1]:
        raise InputError(f"{file}: the network has no input {reads!r}, or no output 'logits'; {REMEDY}")
    for key, kind in (("dim", _DIM),) if reads == "features" else (("pixels", PIXELS),):
        check_fields(f"{file}: the metadata {KEY!r}: ", about, {key: kind}, f"; {REMEDY}")
    added, columns = about.get("added"), about.get("columns")
    found = Exported(
        path=file,
        session=session,
        reads=reads,
        dim=about["dim"] if reads == "features" else None,
        columns=None if columns is None else tuple(columns),
        pixels=Pixels.read(about["pixels"]) if reads == "pixels" else None,
        class_names=names,
        counts=tuple(about["counts"]),
        prior_applied=None if about["prior_applied"] is None else tuple(map(float, about["prior_applied"])),
        operating=about["operating"],
        added=None if added is None else np.array(added, dtype=np.float64),
    )
    point = {key: (about["operating"] or {}).get(key) for key in ("costs", "thresholds", "conformal")}
    given = {"counts": found.counts, "prior_applied": found.prior_applied, "added": found.added, **point}
    for key, values in given.items():
        if values is not None and len(values) != len(names):
            raise InputError(f"{file}: {key} has {len(values)} entries for {len(names)} classes; {REMEDY}")
    if ((about["operating"] or {}).get("top_k") or 0) > len(names):
        raise InputError(f"{file}: top_k must be at most {len(names)}, the number of classes; {REMEDY}")
    return found


_NUMBER = Kind("a number", is_number)
_DIM = whole(1)
_NUMBERS = list_of("numbers", _NUMBER)
_COSTS = Kind(
    "a number above 0 for each class, or a square of numbers of 0 or more",
    lambda value: (
        list_of("prices", Kind("a number above 0", lambda v: is_number(v) and v > 0), least=2).fits(value)
        or (
            list_of("rows", list_of("costs", at_least(0)), least=2).fits(value)
            and {len(row) for row in value} == {len(value)}
        )
    ),
)
_LIMITS = optional(list_of("numbers of 0 or more, or null", optional(at_least(0))))
_POINT = {
    "costs": optional(_COSTS),
    "abstain": optional(number("[0, 1]")),
    "thresholds": _LIMITS,
    "top_k": optional(whole(1)),
    "conformal": _LIMITS,
}
_KINDS = {
    "class_names": Kind(
        "a list of two or more different names",
        lambda value: list_of("names", TEXT, least=2).fits(value) and len(set(value)) == len(value),
    ),
    "input": one_of("features", "pixels"),
    "counts": list_of("whole numbers", whole(0, 2**53)),
    "prior_applied": optional(list_of("numbers of 0 or more", at_least(0))),
    "columns": optional(list_of("names", TEXT)),
    "added": optional(_NUMBERS),
    "operating": Kind(
        "an operating point, or null",
        lambda value: (
            value is None or (TABLE.fits(value) and all(k in value and _POINT[k].fits(value[k]) for k in _POINT))
        ),
    ),
}


# --- deciding ---------------------------------------------------------------------------------------------------------


def decided(logits: Floats, point: Mapping[str, Any] | None) -> Answers:
    """The answers for logits (N, C) at an operating point, as `decisions.decide` gives them.

    `point` is what `OperatingPoint.to_dict` wrote; None where the largest logit wins.
    """
    log_p = logits - logits.max(axis=1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    p = np.exp(log_p)
    asked = dict(point or {})
    utility = _utility(logits, p, asked.get("costs"))
    label = utility.argmax(axis=1)
    confidence = p[np.arange(len(p)), label]
    kept = np.ones(len(p), dtype=bool)
    if asked.get("abstain") is not None:
        kept &= confidence >= asked["abstain"]
    if asked.get("thresholds") is not None:
        kept &= confidence >= _with_infinity(asked["thresholds"])[label]
    return Answers(np.where(kept, label, -1), confidence, _sets(log_p, utility, asked), p)


def _utility(logits: Floats, p: Floats, costs: Any) -> Floats:
    """(N, C) what is largest for the answer of the least expected cost."""
    if costs is None:
        return logits
    paid = np.array(costs, dtype=np.float64)
    return logits + np.log(paid) if paid.ndim == 1 else -(p @ paid)


def _sets(log_p: Floats, utility: Floats, asked: Mapping[str, Any]) -> npt.NDArray[np.bool_] | None:
    if asked.get("conformal") is not None:
        named: npt.NDArray[np.bool_] = -log_p <= _with_infinity(asked["conformal"])
        return named
    if asked.get("top_k") is None:
        return None
    best = np.argsort(-utility, axis=1, kind="stable")[:, : asked["top_k"]]
    among = np.zeros(utility.shape, dtype=bool)
    np.put_along_axis(among, best, True, axis=1)
    return among


def _with_infinity(values: Sequence[float | None]) -> Floats:
    """(C,), infinity where the value is None."""
    return np.array([np.inf if value is None else value for value in values], dtype=np.float64)


# --- predicting -------------------------------------------------------------------------------------------------------


def predict_rows(
    model: Exported,
    rows: Rows,
    out: str | Path,
    *,
    top: int | None = None,
    spreadsheet: bool = False,
    progress: Progress | None = None,
) -> Tallied:
    """Write one line per row of features to a .csv or .parquet file; columns as in `write_answers`.

    Raises: InputError for rows that do not fit the model, or if the file cannot be written.
    """
    if model.dim is None:
        raise InputError(f"{model.path} reads images; give an image, or a folder of images")
    if rows.x.shape[1] != model.dim:
        raise InputError(f"the model reads {model.dim} features per row, these rows are {rows.x.shape}")

    def answers_of(start: int, stop: int) -> Answers:
        return decided(model.logits(rows.x[start:stop].astype(np.float32)), model.operating)

    return write_answers(
        answers_of,
        len(rows.x),
        model.class_names,
        out,
        carried=rows.extra,
        top=top,
        spreadsheet=spreadsheet,
        progress=progress,
    )


def predict_images(
    model: Exported,
    files: Sequence[Path],
    out: str | Path,
    *,
    top: int | None = None,
    spreadsheet: bool = False,
    broken: str = "error",
    progress: Progress | None = None,
) -> Tallied:
    """Write one line per image: its path, and columns as in `write_answers`.

    `broken` "skip" leaves images out that cannot be read, with a warning that counts them.

    Raises: InputError naming the first image that cannot be read, or if the file cannot be written.
    """
    check_one_of("broken", broken, ("error", "skip"))
    way = model.pixels
    if way is None:
        raise InputError(f"{model.path} reads rows of features, no images; `poise extract` makes them of images")
    kept = _whole(files, way) if broken == "skip" else files

    def answers_of(start: int, stop: int) -> Answers:
        return decided(model.logits(np.stack([pixels_of(file, way) for file in kept[start:stop]])), model.operating)

    carried = {"sample": [str(file) for file in kept]}
    return write_answers(
        answers_of,
        len(kept),
        model.class_names,
        out,
        carried=carried,
        top=top,
        spreadsheet=spreadsheet,
        chunk=IMAGES,
        progress=progress,
    )


def _whole(files: Sequence[Path], way: Pixels) -> list[Path]:
    """The images that can be read. Raises: InputError if none can. Warns (PoiseWarning) about the others."""
    bad: dict[Path, str] = {}
    for file in files:
        try:
            pixels_of(file, way)
        except InputError as error:
            bad[file] = str(error)
    if len(bad) == len(files):
        raise InputError(f"none of the {len(bad)} images can be read; the first: {bad[files[0]]}", SKIP)
    if bad:
        left_out = "1 image is" if len(bad) == 1 else f"{len(bad)} images are"
        message = f"{left_out} broken and left out of {len(files)}: {some(list(bad.values()), most=3)}"
        warnings.warn(PoiseWarning(message, SKIP), stacklevel=4)
    return [file for file in files if file not in bad]
