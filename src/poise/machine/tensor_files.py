"""The reader of safetensors files: regular files only, and one sentence for whatever is wrong with them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from poise.errors import InputError
from poise.machine.reading import DOCUMENT, regular, sentence_for

TENSORS = "a safetensors file"


class Held(NamedTuple):
    """Tensors by name, memory-mapped, and the metadata of their file."""

    tensors: dict[str, Any]
    metadata: dict[str, str]


def tensors_of(path: Path, remedy: str, names: Iterable[str] | None = None, what: str = TENSORS) -> Held:
    """The tensors of a .safetensors file, of these names or all. Raises: InputError if it is none, or lacks one."""
    from safetensors import safe_open

    header_length(path, remedy, what)
    with sentence_for(path, what, remedy), safe_open(str(path), framework="pt") as file:
        found = {name: file.get_tensor(name) for name in (file.keys() if names is None else names)}
        return Held(found, file.metadata() or {})


def header_length(path: Path, remedy: str, what: str = TENSORS) -> int:
    """The length of the header in bytes. Raises: InputError if it does not fit the file, or `DOCUMENT`."""
    size = regular(path, remedy)
    with sentence_for(path, None, remedy), path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, DOCUMENT):
        raise InputError(f"{path} cannot be read as {what}: its header does not fit it; {remedy}")
    return length
