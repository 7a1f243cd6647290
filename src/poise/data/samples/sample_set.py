"""Labelled images or texts of one split, read one at a time: what a backbone is given.

`Items` is where samples come from: files of a folder, rows of a table, arrays in memory. Every adapter is a class with
five small methods, so that the training loop, the extraction, the checks for duplicates and the messages about a broken
file know nothing of formats. `Samples` adds labels, class names and groups.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol

import torch
from PIL.Image import Image
from torch import Tensor

from poise.errors import InputError
from poise.values.checks import check_names
from poise.values.counts import ClassCounts, as_labels

Kind = Literal["image", "text"]


class Items(Protocol):
    """Samples without labels. `read` decodes one: an RGB image of eight bits per channel, or a text."""

    @property
    def kind(self) -> Kind:
        """Images or texts."""

    def __len__(self) -> int:
        """How many there are."""

    def read(self, index: int) -> Image | str:
        """The sample. Raises: InputError naming it, if it cannot be read."""

    def describe(self, index: int) -> str:
        """Where it comes from, in words that lead to it: a path, or a file and row."""

    def digest(self, index: int) -> str:
        """Hex hash of the stored bytes: equal for equal samples, without decoding."""

    def take(self, rows: Tensor) -> "Items":
        """Some of the samples, in the order of `rows` (n,) int64."""


@dataclass(frozen=True)
class Sentences:
    """Texts in memory; `where` names their file."""

    texts: tuple[str, ...]
    where: str = "text"
    kind: Literal["text"] = "text"

    def __len__(self) -> int:
        return len(self.texts)

    def read(self, index: int) -> str:
        """The text."""
        return self.texts[index]

    def describe(self, index: int) -> str:
        """File and row, counted from 1."""
        return f"{self.where}, row {index + 1}"

    def digest(self, index: int) -> str:
        """The sha256 of the text."""
        return hashlib.sha256(self.texts[index].encode()).hexdigest()

    def take(self, rows: Tensor) -> "Sentences":
        """Some of the texts."""
        return replace(self, texts=tuple(self.texts[i] for i in rows.tolist()))


@dataclass(frozen=True, eq=False)
class Samples:
    """Items with labels `y` (N,) int64, the names of all classes (empty ones too), and optional groups (N,).

    A group (site, patient, burst of photographs) is never divided between splits.

    Raises: InputError where lengths disagree or a label has no class name.
    """

    items: Items
    y: Tensor
    class_names: tuple[str, ...]
    groups: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "y", as_labels(self.y, len(self.class_names)))
        object.__setattr__(self, "class_names", tuple(self.class_names))
        if len(self.items) != len(self.y):
            raise InputError(f"{len(self.items)} samples and {len(self.y)} labels; both need the same number")
        if self.groups is not None and len(self.groups) != len(self.y):
            raise InputError(f"{len(self.groups)} groups for {len(self.y)} samples; give one per sample")
        check_names(self.class_names)
        if len(self.class_names) < 2:
            raise InputError(f"a classifier needs at least two classes, these samples have {len(self.class_names)}")

    def __len__(self) -> int:
        return len(self.y)

    @property
    def counts(self) -> ClassCounts:
        """Samples per class, 0 where a class has none. Raises: InputError if there is no sample at all."""
        return ClassCounts.from_labels(self.y, len(self.class_names))

    def take(self, rows: Tensor | Sequence[int]) -> "Samples":
        """Some of the samples, in the order of `rows`; the classes stay."""
        chosen = torch.as_tensor(rows, dtype=torch.int64)
        groups = None if self.groups is None else tuple(self.groups[i] for i in chosen.tolist())
        return replace(self, items=self.items.take(chosen), y=self.y[chosen], groups=groups)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over every sample's bytes, its label and the class names, in order; reads every byte once."""
        digest = hashlib.sha256(repr(self.class_names).encode())
        for index, label in enumerate(self.y.tolist()):
            digest.update(f"{self.items.digest(index)} {label}\n".encode())
        return digest.hexdigest()[:16]
