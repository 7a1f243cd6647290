"""Files that come from the Hugging Face hub or its cache."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from poise.errors import InputError, reason_of

PATIENCE = 5.0  # seconds to wait for the hub's first answer


@contextmanager
def hub(name: str) -> Iterator[None]:
    """Within, the files of `name` come from a folder, or from the hub and its cache.

    Where the hub does not answer in five seconds they come from the cache alone: left to itself its client asks six
    times for every file, which takes minutes without a connection.

    Raises: InputError naming the model and the cache, for whatever the libraries raise.
    """
    constants: Any = import_module("huggingface_hub.constants")
    before = constants.HF_HUB_OFFLINE
    local = Path(name).is_dir()
    constants.HF_HUB_OFFLINE = before or (not local and not _answers(constants.ENDPOINT, PATIENCE))
    try:
        yield
    except Exception as error:  # of three libraries, which raise those of several others
        if local:
            raise InputError(f"the folder {name} holds no model that can be loaded: {reason_of(error)}") from error
        state = "HF_HUB_OFFLINE is set" if before else f"{constants.ENDPOINT} does not answer"
        state = f" ({state})" if constants.HF_HUB_OFFLINE else ""
        raise InputError(
            f"{name} is no folder, is not in the cache {constants.HF_HUB_CACHE}, and cannot be fetched{state}: "
            f"{reason_of(error)}; run once with a connection, or give a folder or a weight file"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = before


def answers(patience: float = PATIENCE) -> bool:
    """Can files be fetched: is the hub not switched off, and does it answer within `patience` seconds?"""
    constants: Any = import_module("huggingface_hub.constants")
    return not constants.HF_HUB_OFFLINE and _answers(constants.ENDPOINT, patience)


def _answers(address: str, patience: float) -> bool:
    """Does anything listen there? Behind a proxy that is for the proxy to say."""
    parts = urlsplit(address)
    if parts.scheme in getproxies():
        return True
    try:
        with socket.create_connection((parts.hostname, parts.port or 443), patience):
            return True
    except OSError:
        return False
