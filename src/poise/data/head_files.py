"""The classifier of a trained model, as a head: saved by Poise, or the last layer in a checkpoint."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from poise.data.array_files import names_of_classes, to_tensor
from poise.data.tables.named_arrays import Arrays, opened
from poise.data.tables.reader_contract import listed
from poise.errors import InputError
from poise.values.head import Head
from poise.values.wording import near


def read_head(path: str | Path, *, classes: int, dim: int, names: Sequence[str] | None = None) -> Head:
    """The head in a .safetensors or .npz file: what `Head.save` wrote, or the only layer from `dim` to `classes`.

    A layer is an array (classes, dim) called W, weight or NAME.weight, with b, bias or NAME.bias (classes,) if there is
    one. Pickled checkpoints are not read: save them as safetensors first. If the file says class_names (an array, or a
    JSON list in the metadata), the classes are brought into the order of `names`, those of the training rows.

    Raises: InputError naming what the file holds if there is no such layer, or more than one, or of other classes.
    """
    file = Path(path)
    if file.suffix.lower() not in (".safetensors", ".npz") or not file.is_file():
        raise InputError(
            f"a head is read from a .safetensors or .npz file, and {file} is none; of a pickled checkpoint, save the "
            f"state dict with safetensors"
        )
    with opened(file) as arrays:
        if arrays.metadata.get("format") == "poise.head":
            head = _fitting(file, Head.load(file), classes, dim)
        else:
            head = _layer(file, arrays, classes, dim)
        own = names_of_classes(arrays)
    return head if own is None or names is None else _in_order(file, head, own, names)


def _layer(file: Path, arrays: Arrays, classes: int, dim: int) -> Head:
    """The only layer from `dim` to `classes`."""
    names = [name for name in arrays.names if name in ("W", "weight") or name.endswith(".weight")]
    shapes = {name: tuple(arrays.get(name).shape) for name in names}
    fitting = [name for name, shape in shapes.items() if shape == (classes, dim)]
    if len(fitting) != 1:
        layers = ", ".join(f"{name!r} {shape}" for name, shape in shapes.items())
        found = f"several: {listed(fitting)}" if fitting else f"none; it holds {layers or listed(arrays.names)}"
        raise InputError(f"{file} needs one layer of weights ({classes}, {dim}) called W or weight, and has {found}")
    weight = to_tensor(file, fitting[0], arrays.get(fitting[0])).float()
    try:
        return Head(weight, _bias(arrays, fitting[0], classes))
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _bias(arrays: Arrays, weight: str, classes: int) -> Tensor:
    name = "b" if weight == "W" else weight.removesuffix("weight") + "bias"
    if name not in arrays.names:
        return torch.zeros(classes)
    return to_tensor(arrays.path, name, arrays.get(name)).float()


def _fitting(file: Path, head: Head, classes: int, dim: int) -> Head:
    if head.weight.ndim != 2:
        raise InputError(f"{file} holds a stack of {len(head)} heads; save one of them")
    if (head.classes, head.dim) != (classes, dim):
        raise InputError(
            f"the head in {file} has {head.classes} classes and {head.dim} features, the training rows have {classes} "
            f"and {dim}"
        )
    return head


def _in_order(file: Path, head: Head, own: Sequence[str], names: Sequence[str]) -> Head:
    """The head with the classes `own` in the order of `names`."""
    if len(own) != head.classes:
        raise InputError(f"{file} has {len(own)} class_names for {head.classes} classes; give one for each")
    for name in names:
        if name not in own:
            raise InputError(
                f"the head in {file} does not know the class {name!r} of the training rows{near(name, own)}; its "
                f"class_names are {listed(own)}"
            )
    order = [list(own).index(name) for name in names]
    return replace(head, weight=head.weight[order], bias=head.bias[order])
