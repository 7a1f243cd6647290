"""A network of the user's own, by `package.module:factory`."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from poise.errors import InputError
from poise.representation.backbones.backbone import IMAGENET, Made


def make_own(name: str, *, options: dict[str, Any]) -> Made:
    """What the factory returns; `options` are its keyword arguments.

    This runs the code that the name leads to, so the name must come from the user, never from a file that is loaded.

    Raises: InputError if the factory is not found, fails, or returns no torch module.
    """
    package, _, attribute = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # a file beside one's work is found, and hides no installed package
    try:
        factory = getattr(import_module(package), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"backbone {name} was not found ({error}); name a function as package.module:factory, of a file in the "
            "current folder or of a package on PYTHONPATH"
        ) from error
    if not callable(factory):
        raise InputError(f"backbone {name} is a {type(factory).__name__}; name a function that returns a torch module")
    try:
        module = factory(**options)
    except Exception as error:  # the user's own code
        raise InputError(f"backbone {name} failed when it was called: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise InputError(f"backbone {name} returned a {type(module).__name__}; it must return a torch module")
    return Made(module, 224, *IMAGENET, note="size, mean and std are those of ImageNet, unless they were given")
