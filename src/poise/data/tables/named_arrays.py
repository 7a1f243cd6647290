"""The named arrays in a file, opened without torch: .npz, .safetensors, a single .npy. Pickled objects are refused."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import numpy as np
from safetensors import safe_open

from poise.data.tables.reader_contract import ROWS, listed
from poise.errors import InputError, PoiseError, reason_of
from poise.machine.reading import affordable, regular
from poise.values.wording import near

REMEDY = "name a file of arrays"
HEADERS = (np.lib.format.read_array_header_2_0, np.lib.format.read_array_header_1_0)  # of newer versions, and of 1
MAGIC = {".npz": b"PK", ".npy": b"\x93NUMPY"}


class Arrays(NamedTuple):
    """The names in a file, and how to get one of them; `metadata` is that of a safetensors file."""

    path: Path
    names: tuple[str, ...]
    load: Callable[[str], Any]
    metadata: dict[str, str]

    def get(self, name: str) -> Any:
        """The array of that name. Raises: InputError if it cannot be read or holds objects."""
        try:
            return _as_text(self.load(name))
        except Exception as error:  # a damaged file makes the libraries raise whatever comes up
            raise InputError(_unreadable(self.path, error, name)) from None

    def first(self, candidates: Sequence[str]) -> str | None:
        """The one of these names that is there, or None. Raises: InputError if several are."""
        found = [name for name in candidates if name in self.names]
        if len(found) > 1:
            raise InputError(f"{self.path} holds {listed(found)}, which mean the same; keep one of them")
        return found[0] if found else None


def _as_text(values: Any) -> Any:
    """The array itself. Raises: ValueError for text with a number that is no character, as Python finds out late."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "U" and values.size and values.dtype.itemsize:
        native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
        if (most := int(native.view(np.uint32).max())) > sys.maxunicode:
            raise ValueError(f"{most} is no character")
    return values


@contextmanager
def opened(path: Path, framework: str = "pt") -> Iterator[Arrays]:
    """The arrays of a .npz, .safetensors or .npy file (then called x). Raises: InputError if it is none.

    Those of a .safetensors file are tensors, or arrays of numpy with the framework `numpy`.
    """
    regular(path, REMEDY)
    with ExitStack() as stack:
        try:
            arrays = _arrays(path, framework, stack)
        except PoiseError:
            raise
        except Exception as error:  # a damaged file makes the libraries raise whatever comes up
            raise InputError(_unreadable(path, error)) from None
        yield arrays


def _arrays(path: Path, framework: str, stack: ExitStack) -> Arrays:
    kind = path.suffix.lower()
    if kind == ".safetensors":
        tensors: Any = stack.enter_context(safe_open(str(path), framework=framework))
        return Arrays(path, tuple(tensors.keys()), tensors.get_tensor, tensors.metadata() or {})
    file = stack.enter_context(path.open("rb"))
    if not file.read(8).startswith(MAGIC[kind]):
        raise ValueError("it does not begin as such a file does")
    if kind == ".npy":
        # Copy-on-write: rows are read when they are used, and the file is never changed.
        array = np.load(path, allow_pickle=False, mmap_mode="c")
        return Arrays(path, ("x",), lambda _: array, {})
    file.seek(0)
    with ZipFile(file) as members:
        affordable(path, sum(member.file_size for member in members.infolist()), path.stat().st_size)
    file.seek(0)
    archive = stack.enter_context(np.load(file, allow_pickle=False))
    return Arrays(path, tuple(archive.files), partial(_member, archive), {})


def _member(archive: Any, name: str) -> Any:
    """An array of a .npz file. Raises: ValueError, before memory is taken, if its header claims more than it holds."""
    stored = f"{name}.npy" if f"{name}.npy" in archive.zip.namelist() else name
    with archive.zip.open(stored) as file:
        read = HEADERS[np.lib.format.read_magic(file)[0] == 1]
        shape, _, kind = read(file)
    if math.prod(shape) * max(1, kind.itemsize) > archive.zip.getinfo(stored).file_size:
        raise ValueError(f"its header claims {shape} values of {kind.itemsize} bytes, and there are fewer")
    return archive[name]


def features_in(arrays: Arrays, key: str | None) -> str:
    """The name of the features: `key`, or one of `ROWS`. Raises: InputError listing the arrays if it is not there."""
    path, x_name = arrays.path, arrays.first(ROWS if key is None else (key,))
    if x_name is None:
        _refuse_checkpoint(arrays)
        wanted = "called x or features" if key is None else f"{key!r}{near(key, arrays.names)}"
        raise InputError(
            f"{path} has no array {wanted}; it holds {listed(arrays.names)}; choose one with key= (or FILE#NAME)",
            "key= (or FILE#NAME)",
        )
    return x_name


def _refuse_checkpoint(arrays: Arrays) -> None:
    """Raises: InputError if these are the tensors of a network, whose names end in .weight."""
    weights = [name for name in arrays.names if name.endswith(".weight")]
    if weights:
        raise InputError(
            f"{arrays.path} holds no feature rows; with arrays such as {weights[0]!r} ({len(arrays.names)} in all) it "
            "looks like a checkpoint: its last layer is read by --head beside feature rows, or by `poise rebalance`"
        )


def _unreadable(path: Path, error: BaseException, name: str | None = None) -> str:
    what = f"{path}" if name is None else f"{path}: the array {name!r}"
    if "ickle" in str(error) or "Python objects" in str(error):
        return f"{what} holds Python objects, which are never read; save plain numbers or text with dtype=str"
    if "bfloat16" in str(error):
        return f"{what} holds bfloat16 values, which numpy has no type for; save them as float32"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot read {what}: {error.strerror}"
    return f"{what} cannot be read, it is damaged or no {path.suffix} file ({reason_of(error)})"
