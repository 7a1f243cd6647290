"""A trained representation on disk: the backbone, its classifier, and which samples trained it.

    folder/backbone.safetensors   the state of the network
    folder/head.safetensors       the classifier of stage 1, if there is one
    folder/seen.safetensors       the digests of the samples that trained it
    folder/representation.json    how to build and feed it, classes, provenance, sha256 of the other files; written last

Opening runs no code of the folder: a network of the user's own, named `package.module:factory`, or one whose files lie
elsewhere is only built when the caller allows that name, and what it leads to is as it was.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from poise.data.samples.sample_set import Items
from poise.errors import InputError, in_one_line
from poise.machine.atomic import sha256_of, write_atomically
from poise.machine.documents import ESCAPED, Document
from poise.machine.folders import generation
from poise.machine.reading import lies_in, regular
from poise.machine.tensor_files import tensors_of
from poise.representation.backbones import Backbone, TextBackbone, build_saved, build_text
from poise.representation.backbones.from_file import FED, check_named, check_options, source_digest
from poise.values.counts import ClassCounts
from poise.values.fields import TABLE, TEXT, Kind, check_fields, list_of, optional, whole
from poise.values.head import Head

REPRESENTATION = "representation.json"
FILES = BACKBONE_FILE, HEAD_FILE, SEEN_FILE = "backbone.safetensors", "head.safetensors", "seen.safetensors"


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
        """Write the folder, in one step with its seal: whoever finds it finished must not have to seal it.

        Raises: InputError for options that no file may state, or where the disk refuses.
        """
        root = Path(folder)
        check_options(str(root / REPRESENTATION), self.backbone.name, self.options)
        with generation(root, replaces=(BACKBONE_FILE, SEEN_FILE, HEAD_FILE, REPRESENTATION)) as stage:
            self._write(stage)
        return root

    def _write(self, root: Path) -> None:
        source = source_digest(self.backbone.name)
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
                **({} if source is None else {"source": source}),
            },
            "class_names": self.class_names,
            "counts": None if self.counts is None else self.counts.n.tolist(),
            "provenance": dict(self.provenance),
            "sha256": {name: sha256(content).hexdigest() for name, content in sorted(files.items())},
        }
        DOCUMENT.write(root / REPRESENTATION, body)


def load_representation(folder: str | Path, *, trusted: str | None = None) -> Representation:
    """What `Representation.save` wrote.

    A folder may name a network of its author's, `package.module:factory`, whose code would run, or a folder with one;
    it has to be `trusted` by the same name, and what the name leads to must be as it was.

    Raises: InputError naming the file that is missing, damaged or from a newer version, or the value that does not fit.
    """
    root = Path(folder)
    body = DOCUMENT.read(root / REPRESENTATION)
    check_named(str(root), body["backbone"], trusted)
    _check_described(root, body)
    for fault in _faults(root, body["sha256"]):
        raise InputError(fault)
    seen = tensors_of(root / SEEN_FILE, REMEDY, ["digests"]).tensors["digests"] if SEEN_FILE in body["sha256"] else None
    if seen is not None and (seen.dtype != torch.int64 or seen.ndim != 1):
        raise InputError(f"{root / SEEN_FILE} holds no digests (n,) of int64; {REMEDY}")
    said = body["backbone"]
    is_text = said["name"].startswith("sentence:")
    backbone = build_text(said["name"]) if is_text else build_saved(said, root / BACKBONE_FILE, trusted=trusted)
    found = Representation(
        backbone=backbone,
        options=body["backbone"]["options"],
        head=Head.load(root / HEAD_FILE) if HEAD_FILE in body["sha256"] else None,
        class_names=None if body["class_names"] is None else tuple(body["class_names"]),
        counts=None if body["counts"] is None else ClassCounts(torch.tensor(body["counts"])),
        seen=seen,
        provenance=body["provenance"],
    )
    _refuse_other_sizes(root, found)
    return found


def _refuse_other_sizes(root: Path, found: Representation) -> None:
    """Raises: InputError if the parts differ in their number of classes or features."""
    sizes = {"counts": found.counts, "class names": found.class_names}
    classes = {what: len(value) for what, value in sizes.items() if value is not None}
    if found.head is not None:
        classes["classifier"] = found.head.classes
    if len(set(classes.values())) > 1:
        told = ", ".join(f"{what} {size}" for what, size in classes.items())
        raise InputError(f"{root}: its parts differ in their number of classes: {told}; {REMEDY}")
    if found.head is not None and found.head.dim != found.backbone.dim:
        raise InputError(
            f"{root}: its classifier reads {found.head.dim} features, its backbone gives {found.backbone.dim}; {REMEDY}"
        )


def _check_described(root: Path, body: Mapping[str, Any]) -> None:
    """Raises: InputError unless a network for images says how it is fed, and names the checksum of its weights."""
    path = root / REPRESENTATION
    if not body["backbone"]["name"].startswith("sentence:"):
        check_fields(f"{path}: backbone: ", body["backbone"], FED, f"; {REMEDY}")
        if BACKBONE_FILE not in body["sha256"]:
            raise InputError(f"{path}: sha256 does not name {BACKBONE_FILE}; {REMEDY}")


def _faults(root: Path, digests: Mapping[str, str]) -> Iterator[str]:
    """A sentence for every file that is not as it was written."""
    for name, expected in digests.items():
        path = root / name
        if name not in FILES:
            yield f"{path} is no file of a representation, and {REPRESENTATION} names it; {REMEDY}"
        elif not lies_in(path, root) or not path.exists():
            yield f"{path} is missing; {REMEDY}"
        elif regular(path, REMEDY) >= 0 and sha256_of(path) != expected:
            yield f"{path} is damaged: its sha256 is not that of {REPRESENTATION}; restore it from a copy"


_KINDS = {
    "backbone": Kind(
        "a table with name and options",
        lambda value: (
            TABLE.fits(value)
            and TEXT.fits(value.get("name"))
            and TABLE.fits(value.get("options"))
            and TEXT.fits(value.get("source", ""))
        ),
    ),
    "class_names": optional(list_of("names", TEXT, least=2)),
    "counts": optional(list_of("whole numbers", whole(0, 2**53), least=2)),
    "provenance": TABLE,
    "sha256": Kind("a table of texts", lambda value: TABLE.fits(value) and all(map(TEXT.fits, value.values()))),
}
REMEDY = "restore the folder from a copy, or train again"
DOCUMENT = Document("poise.representation", "representation", 1, REMEDY, _KINDS, ESCAPED)


def check_representation(folder: str | Path) -> list[str]:
    """What is wrong with the files of a representation, without building what it describes."""
    root = Path(folder)
    try:
        body = DOCUMENT.read(root / REPRESENTATION)
        _check_described(root, body)
        return list(map(in_one_line, _faults(root, body["sha256"])))
    except (InputError, OSError) as error:
        return [str(error)]


def digests(items: Items) -> Tensor:
    """(N,) int64, sorted: the first 8 bytes of each digest; two samples agree by chance once in 10^19 pairs."""
    values = [int(items.digest(index)[:16], 16) - 2**63 for index in range(len(items))]
    return torch.tensor(values, dtype=torch.int64).sort().values
