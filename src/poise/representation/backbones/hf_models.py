"""Vision models of Hugging Face, from the hub or from a folder."""

import logging
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from poise.errors import InputError
from poise.machine.libraries import held_at, needed, without_bars
from poise.representation.backbones.backbone import IMAGENET, Made, Triple
from poise.representation.backbones.hub import hub
from poise.representation.backbones.weights import Loaded, find_classifier

WAYS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # the numbers are Pillow's


class _Images(NamedTuple):
    size: int
    mean: Triple
    std: Triple
    crop: float
    interpolation: str
    note: str


def make_hf(name: str, *, pretrained: bool, options: dict[str, Any]) -> Made:
    """A vision model of Hugging Face, with the settings of its image processor; `options` change its configuration.

    The features are its `pooler_output`, or the mean of the tokens where it has none. Where the stored weights lack the
    pooling layer, which would be random, the first token is read. Of a model of images and texts the part for images
    is taken, and the classifier of a folder is found too. Code that lies beside the weights is never run.

    Raises: InputError if the model cannot be had; MissingExtraError without transformers.
    """
    transformers = needed("transformers", "hf", f"backbone hf:{name} needs")
    said = transformers.utils.logging
    bars = without_bars(said.is_progress_bar_enabled, said.enable_progress_bar, said.disable_progress_bar)
    # No table of what was loaded either: it is looked at here.
    with hub(name), bars, held_at(logging.ERROR, said.get_verbosity, said.set_verbosity):
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False, **options)
        module, missing = _model(transformers, name, config, pretrained)
        settings = _settings(name)
    unpooled = bool(missing) and all("pooler." in key for key in missing)
    if missing and not unpooled:
        raise InputError(f"the stored weights of {name} lack {len(missing)} tensors, such as {', '.join(missing[:5])}")
    images = _images(getattr(config, "vision_config", config), settings)
    if unpooled:
        module.pooler = None
    module = getattr(module, "vision_model", module).float()
    file = Path(name) / "model.safetensors"
    return Made(
        module,
        images.size,
        images.mean,
        images.std,
        crop=images.crop,
        interpolation=images.interpolation,
        output="first" if unpooled else None,
        note="; ".join(filter(None, (images.note, "the stored weights have no pooling layer" if unpooled else ""))),
        loaded=find_classifier(module, file) if pretrained and file.is_file() else Loaded({}),
    )


def _model(transformers: Any, name: str, config: Any, pretrained: bool) -> tuple[Any, list[str]]:
    """The model, and the names of what its stored weights lack."""
    if not pretrained:
        return transformers.AutoModel.from_config(config, trust_remote_code=False), []
    module, report = transformers.AutoModel.from_pretrained(
        name, config=config, trust_remote_code=False, output_loading_info=True
    )
    return module, sorted(report["missing_keys"])


def _settings(name: str) -> dict[str, Any]:
    """What the image processor's file says; nothing if there is none."""
    mixin = import_module("transformers.image_processing_base").ImageProcessingMixin
    if Path(name).is_dir() and not (Path(name) / "preprocessor_config.json").exists():
        return {}
    try:
        return dict(mixin.get_image_processor_dict(name)[0])
    except OSError:
        return {}


def _images(config: Any, settings: dict[str, Any]) -> _Images:
    """Size, normalisation and crop, from the model's configuration and its image processor's settings."""
    given = getattr(config, "image_size", None) or settings.get("crop_size") or settings.get("size") or 224
    size = _side(given)
    crop = min(size / _side(settings.get("size", size)), 1.0) if settings.get("do_center_crop") else 1.0
    way = WAYS.get(settings.get("resample", 2), "bilinear")
    if not settings:
        return _Images(size, *IMAGENET, crop, way, "no image settings came with the model: mean and std are ImageNet's")
    if settings.get("do_normalize") is False:
        return _Images(size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), crop, way, "")
    mean, std = settings.get("image_mean", IMAGENET[0]), settings.get("image_std", IMAGENET[1])
    return _Images(size, mean, std, crop, way, "")


def _side(size: Any) -> int:
    """The shorter side, of 224, (224, 224), {"shortest_edge": 256} or {"height": 224, "width": 224}."""
    if isinstance(size, dict):
        return int(min(size.values()))
    return int(min(size)) if isinstance(size, list | tuple) else int(size)
