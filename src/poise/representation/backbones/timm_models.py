"""The networks of timm, with or without their published weights."""

from contextlib import nullcontext
from importlib import import_module
from typing import Any

from poise.errors import InputError
from poise.machine.libraries import needed
from poise.representation.backbones.backbone import INTERPOLATIONS, Made
from poise.representation.backbones.hub import hub


def timm_names() -> tuple[str, ...]:
    """The networks of timm; none without timm."""
    try:
        return tuple(import_module("timm").list_models())
    except ImportError:
        return ()


def make_timm(name: str, *, pretrained: bool, options: dict[str, Any], extra: str = "vision") -> Made:
    """A network of timm without its classifier, and the image settings that timm has for it.

    Raises: InputError if timm refuses an option, or the weights cannot be had; MissingExtraError without timm.
    """
    timm = needed("timm", extra, f"backbone timm:{name} needs")
    try:
        with hub(name) if pretrained else nullcontext():
            module = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except (TypeError, RuntimeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        given = f" with the options {options}" if options else ""
        raise InputError(f"timm cannot make {name}{given}: {error}") from error
    feed = timm.data.resolve_model_data_config(module)
    way = feed["interpolation"]
    return Made(
        module,
        feed["input_size"][-1],
        feed["mean"],
        feed["std"],
        crop=min(feed["crop_pct"], 1.0),
        interpolation=way if way in INTERPOLATIONS else "bicubic",
        note="" if feed["crop_mode"] == "center" else f"timm crops by {feed['crop_mode']!r}, here the centre is kept",
    )
