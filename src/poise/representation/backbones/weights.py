"""Weight files into a module: safetensors, or torch files that hold nothing but tensors and plain values.

A checkpoint may hold the weights anywhere (`state_dict`, `model.module.backbone`, ...): they are where most of the
module's names are found. A torch file that holds other objects is refused, because to build them is to run code of its
author.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from poise.errors import InputError
from poise.machine.tensor_files import tensors_of
from poise.representation.torch_files import torch_content
from poise.values.head import Head
from poise.values.wording import some

CLASSIFIERS = {"classifier", "fc", "head", "head_dist", "heads", "last_linear", "linear", "logits"}


class Loaded(NamedTuple):
    """What a weight file held beside the module's own tensors: those of a classifier, by name."""

    classifier: dict[str, Tensor]

    @property
    def note(self) -> str:
        """The names that were left out, or nothing."""
        names = ", ".join(self.classifier)
        return f"the weight file also holds a classifier ({names}), which is no part of the backbone" if names else ""

    def head(self, dim: int) -> Head | None:
        """The first classifier of `dim` features: weight (C, dim), and bias (C,) or zeros; None without one."""
        for name, weight in self.classifier.items():
            if name.endswith("weight") and weight.ndim == 2 and weight.shape[1] == dim and len(weight) > 1:
                bias = self.classifier.get(name.removesuffix("weight") + "bias")
                return Head(weight.float(), weight.new_zeros(len(weight)) if bias is None else bias)
        return None


def load_weights(module: nn.Module, path: Path, *, name: str) -> Loaded:
    """Copy the tensors of a weight file into `module`, all of them or none; `name` is the network's, for messages.

    Raises: InputError if the file is missing, damaged, holds objects that are no tensors, or is of another network.
    """
    held = dict(_flat(_read(path)))
    tensors = {key: value for key, value in held.items() if isinstance(value, Tensor)}
    wanted = module.state_dict()
    start = _start(tensors, wanted)
    if start is None:
        shown = some(list(tensors)) or "no tensor"
        raise InputError(f"{path} holds no weights of {name}, but {shown}; {_origin(held)}")
    inside = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
    _check(path, name, held, inside, wanted)
    module.load_state_dict({key: inside[key] for key in wanted if key in inside}, strict=False)
    return _classifier(tensors, wanted, start)


def find_classifier(module: nn.Module, path: Path) -> Loaded:
    """The classifier of a weight file whose other tensors are in `module` already.

    Raises: InputError if the file is damaged or holds objects that are no tensors.
    """
    tensors = {key: value for key, value in _flat(_read(path)) if isinstance(value, Tensor)}
    return _classifier(tensors, module.state_dict(), _start(tensors, module.state_dict()) or "")


def _classifier(tensors: Mapping[str, Tensor], wanted: Iterable[str], start: str) -> Loaded:
    """What is named like a classifier and is no part of the module, whose names begin with `start`."""
    used = {f"{start}{key}" for key in wanted}
    spare = [key for key in tensors if _is_classifier(key) and key not in used]
    # A checkpoint may also hold a running average: of several classifiers those nearest to the weights are meant.
    shared = {key: _shared(key, start) for key in spare}
    return Loaded({key: tensors[key] for key in spare if shared[key] == max(shared.values())})


def _shared(one: str, other: str) -> int:
    """How many parts of two dotted names are equal, from the left."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _read(path: Path) -> Mapping[Any, Any]:
    """The content of a weight file."""
    if not path.exists():
        raise InputError(f"there is no weight file {path}; give a .safetensors file, or a torch file of tensors")
    if path.suffix == ".safetensors":
        return tensors_of(path, "copy it again").tensors
    content = torch_content(path, "copy it again")
    if isinstance(content, Mapping):
        return content
    raise InputError(f"{path} holds a {type(content).__name__}; a weight file holds tensors by name")


def _flat(content: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no mapping, by its dotted path."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _start(tensors: Iterable[str], wanted: Mapping[str, Tensor]) -> str | None:
    """The beginning under which most names of the module are found; of equals the first in the file."""
    votes: Counter[str] = Counter()
    for key in tensors:
        parts = key.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in wanted:
                votes[".".join([*parts[:cut], ""]) if cut else ""] += 1
    return max(votes, key=votes.__getitem__) if votes else None


def _check(
    path: Path, name: str, held: Mapping[str, Any], inside: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    """Raises: InputError naming the first names that are missing or too many, or the first shape that differs."""
    # Files from before torch counted the batches of its normalisations lack these, and nothing reads them.
    missing = [key for key in wanted if key not in inside and not key.endswith("num_batches_tracked")]
    extra = [key for key in inside if key not in wanted and not _is_classifier(key)]
    lists = (("missing", missing), ("unknown", extra))
    wrong = "; ".join(f"{len(keys)} {what} ({some(keys)})" for what, keys in lists if keys)
    if wrong:
        raise InputError(f"{path} does not fit {name}: {wrong}; {_origin(held)}")
    for key, value in wanted.items():
        if key in inside and inside[key].shape != value.shape:
            raise InputError(
                f"{path} does not fit {name}: {key} is {tuple(inside[key].shape)} in the file and "
                f"{tuple(value.shape)} in the network; {_origin(held)}"
            )


def _origin(held: Mapping[str, Any]) -> str:
    """Which network the file says it is of."""
    said = [value for key, value in held.items() if key in ("arch", "architecture", "name") and isinstance(value, str)]
    return f"the file says it is of {said[0]!r}" if said else "the file does not say which network it is of"


def _is_classifier(key: str) -> bool:
    return bool(CLASSIFIERS & set(key.split(".")[:-1]))
