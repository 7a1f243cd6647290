"""A head for any program: two tensors in a safetensors file, and the rest as JSON beside it."""

import hashlib
from pathlib import Path

import torch

from poise.deployment.model import Model
from poise.export.final import SCHEMA, Final, described, final
from poise.machine.documents import Document
from poise.values.fields import TEXT, table_of, whole

HEAD_FILE, ABOUT_FILE = "head.safetensors", "head.json"
_KINDS = {"head": table_of(file=TEXT, bytes=whole(1), sha256=TEXT)}
EXPORTED = Document("poise.export", "exported head", SCHEMA, "export the head again", _KINDS)


def export_safetensors(model: Model, folder: str | Path, *, dtype: torch.dtype | None = None) -> list[Path]:
    """Write head.safetensors with `weight` (C, D) and `bias` (C,), and head.json, which is written last.

    `dtype` is that of the tensors; None keeps the model's. A head that divides rows by their norm may have a third
    tensor, `centre` (D,); the `formula` in head.json says what is done with them. The other keys are those of
    `described`, and size and SHA-256 of the tensor file.

    Raises: InputError if the disk refuses.
    """
    root, made = Path(folder), final(model)
    path = made.head.to(dtype or model.head.weight.dtype).save(root / HEAD_FILE)
    content = path.read_bytes()
    file = {"file": HEAD_FILE, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    about = {**described(model), "formula": formula(made), "head": file}
    return [path, EXPORTED.write(root / ABOUT_FILE, about)]


def formula(made: Final) -> str:
    """The logits (N, C) of rows x (N, D) in the notation of numpy."""
    if "unit" not in made.steps:
        return "logits = x @ weight.T + bias"
    rows = "x - centre" if "centre" in made.steps else "x"
    norm = "numpy.linalg.norm(rows, axis=1, keepdims=True)"
    return f"rows = {rows}; rows = rows / numpy.maximum({norm}, 1e-12); logits = rows @ weight.T + bias"
