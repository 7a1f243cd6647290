"""A trained representation on disk: the backbone, its classifier, and which samples trained it.

    folder/backbone.safetensors   the state of the network
    folder/head.safetensors       the classifier of stage 1, if there is one
    folder/seen.safetensors       the digests of the samples that trained it
    folder/representation.json    how to build and feed it, classes, provenance, sha256 of the other files; written last

Opening runs no code of the folder: a network of the user's own, named `package.module:factory`, is only built when the
caller allows that name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from poise.data.samples.sample_set import Items
from poise.errors import InputError
from poise.machine.atomic import sha256_of, write_atomically
from poise.machine.documents import ESCAPED, Document
from poise.machine.folders import seal
from poise.representation.backbones import Backbone, TextBackbone, build, build_text
from poise.values.counts import ClassCounts
from poise.values.fields import TABLE, TEXT, WHOLE, Kind, list_of, optional
from poise.values.head import Head

REPRESENTATION = "representation.json"
FED = ("size", "mean", "std", "crop", "interpolation")  # how a backbone is fed
BACKBONE_FILE, HEAD_FILE, SEEN_FILE = "backbone.safetensors", "head.safetensors", "seen.safetensors"


@dataclass(frozen=True, eq=False, kw_only=True)
class Representation:
    """`backbone` and how it came about. `seen` (n,) int64 are sorted digests of the samples that trained it.

    `seen` is None where that is not known: a network with weights from elsewhere. `options` are those of
    `backbones.build`. `head` is the classifier that was trained with it, for `class_names` with `counts`.
    """

    backbone: Backbone | TextBackbone
    options: Mapping[str, Any] = field(default_factory=dict)
    head: Head | None = None
    class_names: tuple[str, ...] | None = None
    counts: ClassCounts | None = None
    seen: Tensor | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def rows_seen(self, items: Items) -> int | None:
        """How many of these samples trained the backbone; None where that is not known."""
        return None if self.seen is None else int(torch.isin(digests(items), self.seen).sum())

    def save(self, folder: str | Path) -> Path:
        """Write the folder. Raises: InputError where the disk refuses."""
        root = Path(folder)
        files = {}
        if isinstance(self.backbone, Backbone):
            state = self.backbone.module.state_dict()
            # Copies, because the format knows no two names of one tensor.
            plain = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
            files[BACKBONE_FILE] = save(plain)
        if self.seen is not None:
            files[SEEN_FILE] = save({"digests": self.seen})
        for name, content in files.items():
            write_atomically(root / name, content)
        if self.head is not None:
            self.head.save(root / HEAD_FILE)
            files[HEAD_FILE] = (root / HEAD_FILE).read_bytes()
        body = {
            "backbone": {
                "name": self.backbone.name,
                "options": dict(self.options),
                **{key: getattr(self.backbone, key) for key in FED if hasattr(self.backbone, key)},
            },
            "class_names": self.class_names,
            "counts": None if self.counts is None else self.counts.n.tolist(),
            "provenance": dict(self.provenance),
            "sha256": {name: sha256(content).hexdigest() for name, content in sorted(files.items())},
        }
        DOCUMENT.write(root / REPRESENTATION, body)
        seal(root, [*files, REPRESENTATION])
        return root


def load_representation(folder: str | Path, *, trusted: str | None = None) -> Representation:
    """What `Representation.save` wrote.

    A folder may name a network of its author's, `package.module:factory`, whose code would run; it has to be `trusted`
    by the same name.

    Raises: InputError naming the file that is missing, damaged or from a newer version.
    """
    root = Path(folder)
    body = DOCUMENT.read(root / REPRESENTATION)
    for fault in _faults(root, body["sha256"]):
        raise InputError(fault)
    said = body["backbone"]
    kind, colon, _ = said["name"].partition(":")
    if colon and kind not in ("hf", "sentence", "timm") and said["name"] != trusted:
        raise InputError(
            f"{root} names the network {said['name']!r}, whose code would run; if you trust it, say so by that name: "
            f"--backbone {said['name']}"
        )
    try:
        seen = load_file(root / SEEN_FILE)["digests"] if SEEN_FILE in body["sha256"] else None
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{root / SEEN_FILE} cannot be read: {error}") from None
    return Representation(
        backbone=_built(root, said),
        options=said["options"],
        head=Head.load(root / HEAD_FILE) if HEAD_FILE in body["sha256"] else None,
        class_names=None if body["class_names"] is None else tuple(body["class_names"]),
        counts=None if body["counts"] is None else ClassCounts(torch.tensor(body["counts"])),
        seen=seen,
        provenance=body["provenance"],
    )


def _built(root: Path, said: dict[str, Any]) -> Backbone | TextBackbone:
    if said["name"].startswith("sentence:"):
        return build_text(said["name"])
    backbone = build(said["name"], weights=root / BACKBONE_FILE, size=said["size"], saved=True, **said["options"])
    fed: dict[str, Any] = {key: tuple(said[key]) if key in ("mean", "std") else said[key] for key in FED}
    return replace(backbone, **fed)


def _faults(root: Path, digests: Mapping[str, str]) -> Iterator[str]:
    """A sentence for every file that is not as it was written."""
    for name, expected in digests.items():
        path = root / name
        if path.resolve().parent != root.resolve() or not path.is_file():
            yield f"{path} is missing; {REMEDY}"
        elif sha256_of(path) != expected:
            yield f"{path} is damaged: its sha256 is not that of {REPRESENTATION}; restore it from a copy"


_KINDS = {
    "backbone": Kind(
        "a table with name and options",
        lambda value: TABLE.fits(value) and TEXT.fits(value.get("name")) and TABLE.fits(value.get("options")),
    ),
    "class_names": optional(list_of("names", TEXT)),
    "counts": optional(list_of("whole numbers", WHOLE)),
    "provenance": TABLE,
    "sha256": Kind("a table of texts", lambda value: TABLE.fits(value) and all(map(TEXT.fits, value.values()))),
}
REMEDY = "restore the folder from a copy, or train again"
DOCUMENT = Document("poise.representation", "representation", 1, REMEDY, _KINDS, ESCAPED)


def check_representation(folder: str | Path) -> list[str]:
    """What is wrong with the files of a representation, without building what it describes."""
    root = Path(folder)
    try:
        return list(_faults(root, DOCUMENT.read(root / REPRESENTATION)["sha256"]))
    except (InputError, OSError) as error:
        return [str(error)]


def digests(items: Items) -> Tensor:
    """(N,) int64, sorted: the first 8 bytes of each digest; two samples agree by chance once in 10^19 pairs."""
    values = [int(items.digest(index)[:16], 16) - 2**63 for index in range(len(items))]
    return torch.tensor(values, dtype=torch.int64).sort().values
