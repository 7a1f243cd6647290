"""The reader of torch files: tensors and plain values only, from archives that are what they say."""

import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch

from poise.errors import InputError
from poise.machine.reading import regular, sentence_for


def torch_content(path: Path, remedy: str, *, archive: bool = False) -> Any:
    """The content of a torch file, on the CPU; no code of the file is run.

    `archive`: files from before torch wrote archives are refused too.

    Raises: InputError if it is missing, damaged, packed (torch packs nothing) or holds objects that are no tensors.
    """
    size = regular(path, remedy)
    with sentence_for(path, None, remedy), path.open("rb") as file:
        beginning = file.read(2)
    if beginning == b"PK" or archive:
        _refuse_archive(path, size, remedy)
    elif not beginning.startswith(b"\x80"):  # how a pickle begins
        raise InputError(f"{path} is damaged, or no torch file; {remedy}")
    try:
        with sentence_for(path, "a torch file", remedy), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError as error:
        if isinstance(error.__cause__, UnpicklingError):
            raise InputError(
                f"{path} holds Python objects that are no tensors, and to read them can run code; nothing was read: "
                "save the state_dict alone, best as .safetensors"
            ) from None
        raise


def _refuse_archive(path: Path, size: int, remedy: str) -> None:
    """Raises: InputError unless the members are stored as they are and have their checksums; torch looks at neither."""
    try:
        with sentence_for(path, "an archive", remedy), ZipFile(path) as archive:
            members = archive.infolist()
            plain = all(
                each.compress_type == ZIP_STORED and not each.flag_bits & 1 and each.file_size == each.compress_size
                for each in members
            )
            whole = plain and sum(each.file_size for each in members) <= size and archive.testzip() is None
    except InputError:
        whole = False
    if not whole:
        raise InputError(f"{path} is cut short or damaged: it is no whole archive, as torch writes it; {remedy}")
