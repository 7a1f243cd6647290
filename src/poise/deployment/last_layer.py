"""The last layer of a checkpoint in safetensors: found, read as a head, and turned back into bytes.

Only the layer itself is ever held in memory, whatever the size of the checkpoint.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from poise.errors import InputError
from poise.machine.documents import parsed, read_table
from poise.machine.reading import sentence_for
from poise.machine.tensor_files import header_length
from poise.values.head import Head
from poise.values.wording import near, some

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".tar"})
COPY = "copy it again"
TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Place(NamedTuple):
    """Where a tensor lies: bytes `begin` to `end` of `file`, of the format's type `kind`."""

    name: str
    file: Path
    kind: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def is_linear(self) -> bool:
        """Is it the weight of a linear layer? A convolution of one pixel is one."""
        named = self.name == "weight" or self.name.endswith(".weight")
        return named and len(self.shape) in (2, 4) and self.shape[2:] in ((), (1, 1)) and min(self.shape) > 0


class Checkpoint(NamedTuple):
    """A .safetensors file, or a folder with model.safetensors or its shards; `places` of all tensors by name."""

    path: Path
    places: Mapping[str, Place]


class Layer(NamedTuple):
    """The weight (C, D) and the bias (C,) of a layer; `alike` names other layers of the same shape."""

    weight: Place
    bias: Place | None
    alike: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name without `.weight`."""
        return self.weight.name.removesuffix("weight").removesuffix(".") or "weight"

    @property
    def classes(self) -> int:
        """Number of rows C."""
        return self.weight.shape[0]


# --- reading ----------------------------------------------------------------------------------------------------------


def open_checkpoint(path: str | Path) -> Checkpoint:
    """The tensors of a checkpoint, by their places; no tensor is read.

    Raises: InputError if it is missing, damaged, or a pickle, which can run code when it is read.
    """
    given = Path(path)
    files = _shards(given) if given.is_dir() else (_readable(given),)
    places = {name: place for file in files for name, place in _places(file).items()}
    return Checkpoint(given, places)


def _readable(file: Path) -> Path:
    if file.suffix.lower() in PICKLES:
        raise InputError(
            f"{file} is a pickle, which can run code when it is read; where you trust it, convert it with "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')"
        )
    if not file.exists():
        others = [other.name for other in file.parent.iterdir()] if file.parent.is_dir() else []
        raise InputError(f"there is no checkpoint {file}{near(file.name, others)}")
    if file.suffix.lower() != ".safetensors":
        raise InputError(f"a checkpoint is a .safetensors file or a folder with {WEIGHTS}, and {file} is neither")
    return file


def _shards(folder: Path) -> tuple[Path, ...]:
    """The files of a folder that hold its tensors."""
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if not (folder / INDEX).is_file():
        pickles = sorted(file for file in folder.iterdir() if file.suffix.lower() in PICKLES)
        if pickles:
            _readable(pickles[0])
        raise InputError(f"{folder} holds no {WEIGHTS}; give the folder of a model, or its .safetensors file")
    table = read_table(folder / INDEX, COPY).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise InputError(f"{folder / INDEX} cannot be read as a table of shards; {COPY}")
    files = tuple(folder / name for name in sorted(set(table.values())))
    for file in files:
        if "\0" in file.name or file.parent != folder or not file.is_file():
            raise InputError(f"{file} is missing, which {INDEX} names; copy the folder again")
    return files


def _places(file: Path) -> dict[str, Place]:
    length = header_length(file, COPY)
    with sentence_for(file, "a safetensors file", COPY):
        with safe_open(str(file), framework="pt"):  # compares the whole header with the size of the file
            pass
        with file.open("rb") as content:
            header: dict[str, Any] = parsed(content.read(8 + length)[8:], file, COPY)
    header.pop("__metadata__", None)
    start = 8 + length
    return {
        name: Place(name, file, one["dtype"], tuple(one["shape"]), *(start + at for at in one["data_offsets"]))
        for name, one in header.items()
    }


def find_layer(checkpoint: Checkpoint, *, classes: int, dim: int, name: str | None = None) -> Layer:
    """The layer called `name`, with any number of classes; else the only one with weight (classes, dim) and a bias.

    Where no such layer has a bias, the only one without. Raises: InputError naming the layers that there are if none or
    several could be meant, or the named one has other features or a type that is no floating-point number.
    """
    linear = {place.name: place for place in checkpoint.places.values() if place.is_linear}
    if name is not None:
        return _usable(_named(checkpoint, linear, name, dim), dim)
    fitting = [place for place in linear.values() if place.shape[:2] == (classes, dim)]
    layers = [_with_bias(checkpoint, place) for place in fitting]
    layers = [layer for layer in layers if layer.bias is not None] or layers
    if len(layers) == 1:
        return _usable(layers[0], dim)
    if layers:
        raise InputError(
            f"{checkpoint.path} holds {len(layers)} layers from {dim} features to {classes} classes: "
            f"{some([layer.name for layer in layers])}; name the last one (layer=)",
            "(layer=)",
        )
    raise _no_layer(f"{checkpoint.path} holds no layer from {dim} features to {classes} classes", linear, dim)


def _no_layer(what: str, linear: Mapping[str, Place], dim: int) -> InputError:
    """The error that there is none, with the layers that read `dim` features, or the last layers that there are."""
    told = [f"{place.name} {place.shape}" for place in linear.values() if place.shape[1] == dim]
    if told:
        there = f"of {dim} features it has {some(told[::-1])}"
        return InputError(f"{what}; {there}: name the last one (layer=), or give all its class names", "(layer=)")
    ends = some([f"{place.name} {place.shape}" for place in list(linear.values())[::-1]]) or "no linear layer"
    return InputError(f"{what}; it has {ends}: give what its last layer reads as features")


def _named(checkpoint: Checkpoint, linear: Mapping[str, Place], name: str, dim: int) -> Layer:
    place = linear.get(name) or linear.get(f"{name}.weight")
    if place is None:
        names = [_with_bias(checkpoint, one).name for one in linear.values()]
        hint = near(name, names) or f"; it has {some(names[::-1])}"
        raise InputError(f"{checkpoint.path} holds no linear layer {name!r}{hint}")
    if place.shape[1] != dim:
        raise InputError(f"{place.name} of {checkpoint.path} reads {place.shape[1]} features, the rows have {dim}")
    alike = [other for other in linear.values() if other.shape == place.shape and other.name != place.name]
    return _with_bias(checkpoint, place)._replace(alike=tuple(other.name for other in alike))


def _with_bias(checkpoint: Checkpoint, weight: Place) -> Layer:
    bias = checkpoint.places.get(weight.name.removesuffix("weight") + "bias")
    return Layer(weight, bias if bias is not None and bias.shape == weight.shape[:1] else None)


def _usable(layer: Layer, dim: int) -> Layer:
    for place in (layer.weight, layer.bias):
        if place is not None and place.kind not in TYPES:
            raise InputError(
                f"{place.name} of {place.file} is stored as {place.kind}; only {', '.join(TYPES)} can be changed, so "
                "rebalance the checkpoint before it is quantised"
            )
    if layer.classes < 2:
        raise InputError(f"{layer.weight.name} has one output; a layer of at least two classes is needed")
    return layer


def read_layer(layer: Layer) -> Head:
    """The layer as a head, of the type of its weight but no narrower than float32; without a bias, with zeros.

    Raises: InputError if it holds NaN or infinity.
    """
    try:
        weight = _read(layer.weight).reshape(layer.weight.shape[:2])
        return Head(weight, weight.new_zeros(layer.classes) if layer.bias is None else _read(layer.bias))
    except InputError as error:
        raise InputError(f"{layer.name} of {layer.weight.file}: {error}") from None


def _read(place: Place) -> Tensor:
    with place.file.open("rb") as file:
        file.seek(place.begin)
        content = bytearray(file.read(place.end - place.begin))
    values = torch.frombuffer(content, dtype=TYPES[place.kind]).reshape(place.shape)
    return values if values.dtype == torch.float64 else values.float()


def encoded(place: Place, values: Tensor) -> tuple[bytes, Tensor]:
    """`values` as the bytes that go to a place, and what will be read from them.

    Raises: InputError if a value is too large for the type of the place.
    """
    stored = values.detach().cpu().to(TYPES[place.kind]).reshape(place.shape).contiguous()
    if not torch.isfinite(stored).all():
        raise InputError(
            f"{place.name} is stored as {place.kind}, which cannot hold the value {float(values.abs().max()):.4g} of "
            "the new layer; convert the checkpoint to float32 first"
        )
    content: bytes = stored.view(-1).view(torch.uint8).numpy().tobytes()
    return content, stored.to(values.dtype).reshape(values.shape)
