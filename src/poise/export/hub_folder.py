"""A model as a folder in the layout of the hub: model.safetensors, config.json and a model card, and no pickle.

A network of timm becomes a checkpoint that timm itself loads. Anything else (other networks, heads alone, heads that
divide features by their norm) has its tensors under `backbone.` and `head.`, and a card with the lines that load them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from poise.deployment.model import Model
from poise.errors import InputError, reason_of
from poise.export.card import front_matter, model_card
from poise.export.checking import Agreement, compared
from poise.export.final import Network, described, final, image_backbone
from poise.export.tensors import formula
from poise.machine.atomic import write_atomically
from poise.machine.documents import write_json
from poise.machine.folders import replacing_folder
from poise.machine.libraries import needed
from poise.representation.backbones import Backbone
from poise.representation.backbones.from_file import source_digest
from poise.representation.trained_network import Representation
from poise.results.contents import Contents

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
TAGS = ("class-imbalance", "long-tailed-recognition", "poise")
FED = ("size", "mean", "std", "crop", "interpolation")


class Hub(NamedTuple):
    """A written folder: `library` is what loads it, timm or poise; `agreement` compares what was loaded again."""

    folder: Path
    library: str
    agreement: Agreement


def export_hub(
    model: Model,
    folder: str | Path,
    *,
    representation: Representation | None = None,
    rows: Tensor | None = None,
    contents: Contents | None = None,
    title: str | None = None,
    command: str | None = None,
) -> Hub:
    """Write the folder; with a `representation`, its backbone and the head in one, else the head alone.

    What was written is loaded again and compared with the model, on `rows` too if given (features, or eight-bit images
    as the backbone reads them); the folder takes its name after that. `contents` gives the card the scores of the
    model's method, `command` is what wrote the model, `title` heads the card.

    Raises: InputError if the folder holds anything else, the backbone reads texts, or the loaded model differs;
    MissingExtraError where timm has gone.
    """
    backbone = None if representation is None else image_backbone(representation.backbone)
    model = model if backbone is None else model.with_provenance(backbone=backbone.name)
    target = Path(folder)
    network = None if backbone is None else _timm_network(model, backbone)
    library = "poise" if network is None else "timm"
    kind = None if backbone is None else "image-classification"
    with _replaced(target) as root:
        if network is not None and backbone is not None:
            agreement = _write_timm(model, network, backbone, root, rows)
            loading = _timm_lines(backbone)
        else:
            agreement = _write_own(model, representation, backbone, root, rows)
            loading = _own_lines(model, backbone)
        card = model_card(
            model,
            head=front_matter(library, TAGS, kind),
            title=title or target.resolve().name,
            loading=loading,
            contents=contents,
            command=command,
        )
        write_atomically(root / CARD, card)
    return Hub(target, library, agreement)


@contextmanager
def _replaced(target: Path) -> Iterator[Path]:
    """A new folder that takes the place of `target` at the end; an earlier export there is replaced.

    Raises: InputError if `target` is a file, or a folder with anything but an export.
    """
    inside = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
    strays = [name for name in inside if name not in (WEIGHTS, CONFIG, CARD)]
    if strays or target.is_file():
        what = f"holds {strays[0]}, which is no part of an export" if strays else "is a file"
        raise InputError(f"{target} {what}; choose another folder with --out")
    try:
        with replacing_folder(target) as stage:
            yield stage
    except OSError as error:
        raise InputError(f"cannot write {target}: {reason_of(error)}; choose another place with --out") from None


# --- timm -------------------------------------------------------------------------------------------------------------


def _timm_network(model: Model, backbone: Backbone) -> Any:
    """The network of timm with the folded head as its classifier; None where timm could not load that."""
    made = final(model)
    module: Any = backbone.module
    if made.steps or not hasattr(module, "pretrained_cfg") or not hasattr(module, "reset_classifier"):
        return None
    network: Any = deepcopy(module).float().cpu()
    network.reset_classifier(made.head.classes)
    layer = network.get_classifier()
    if not isinstance(layer, nn.Linear) or layer.bias is None or layer.in_features != made.head.dim:
        return None
    layer.weight.data.copy_(made.head.weight)
    layer.bias.data.copy_(made.head.bias)
    # What timm knows of the published weights is not true of these.
    known = {key: value for key, value in module.pretrained_cfg.items() if key in ("architecture", *_STRUCTURE)}
    fed = {"mean": backbone.mean, "std": backbone.std, "input_size": (3, backbone.size, backbone.size)}
    more = {"crop_pct": backbone.crop, "interpolation": backbone.interpolation, "num_classes": made.head.classes}
    network.pretrained_cfg = {**known, **fed, **more}
    return network.eval()


_STRUCTURE = ("classifier", "crop_mode", "first_conv", "fixed_input_size", "pool_size")


def _write_timm(model: Model, network: Any, backbone: Backbone, root: Path, rows: Tensor | None) -> Agreement:
    """Write weights and config, load them as the card says, and compare."""
    timm = needed("timm", "vision", "a folder for timm needs")
    about = {"label_names": list(model.class_names), "poise": described(model, backbone)}
    try:
        timm.models.save_for_hf(network, str(root), model_config=about, safe_serialization=True)
        loaded = timm.create_model(f"local-dir:{root}", pretrained=True).eval()
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise InputError(
            f"timm cannot store {backbone.name} and load it again: {reason_of(error)}; nothing was written, --onnx and "
            "--torch-export do not need timm"
        ) from error
    mean, std = (torch.tensor(loaded.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    return compared("timm", lambda x: loaded((x - mean) / std), model, backbone, rows)


def _timm_lines(backbone: Backbone) -> str:
    return f"""```python
import timm

model = timm.create_model("local-dir:path/to/this/folder", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
```

Keep `pretrained=True`: without it timm builds the network with random weights and says nothing. From the hub it is
`hf-hub:USER/NAME` instead of `local-dir:...`. It reads images of {backbone.size} x {backbone.size} pixels, here cut and
scaled as {CONFIG} says under `poise` and `pixels`; the names of the classes are
`model.pretrained_cfg["label_names"]`."""


# --- our own ----------------------------------------------------------------------------------------------------------


def _write_own(
    model: Model, representation: Representation | None, backbone: Backbone | None, root: Path, rows: Tensor | None
) -> Agreement:
    """Write weights and config, load the weights again, and compare."""
    made = final(model)
    network = Network(made.head, backbone)
    # Copies, because the format knows no two names of one tensor.
    tensors = {name: value.clone().contiguous() for name, value in network.state_dict().items()}
    write_atomically(root / WEIGHTS, save(tensors, {"format": "pt"}))
    about = {
        "library_name": "poise",
        "num_classes": made.head.classes,
        "num_features": made.head.dim,
        "label_names": list(model.class_names),
        "formula": formula(made),
        "backbone": None if representation is None or backbone is None else _built_by(representation, backbone),
        "poise": described(model, backbone),
    }
    write_json(root / CONFIG, about)
    network.load_state_dict(load_file(root / WEIGHTS))
    return compared("the safetensors file", network, model, backbone, rows)


def _built_by(representation: Representation, backbone: Backbone) -> dict[str, Any]:
    """What `poise.representation.backbones.build_saved` reads."""
    fed = {key: getattr(backbone, key) for key in FED}
    source = source_digest(backbone.name)
    more = {} if source is None else {"source": source}
    return {"name": backbone.name, "options": dict(representation.options), **fed, **more}


def _own_lines(model: Model, backbone: Backbone | None) -> str:
    made = final(model)
    if backbone is None:
        return f"""```python
import numpy
from safetensors.numpy import load_file

tensors = load_file("path/to/this/folder/{WEIGHTS}")
weight, bias, centre = (tensors.get(f"head.{{name}}") for name in ("weight", "bias", "centre"))


def logits_of(x):  # rows of features (N, {made.head.dim})
    {formula(made).replace("; ", chr(10) + "    ")}
    return logits
```"""
    steps = ['    rows = rows - tensors["head.centre"]'] if "centre" in made.steps else []
    steps += ["    rows = torch.nn.functional.normalize(rows, dim=-1)"] if "unit" in made.steps else []
    return f"""```python
import json
from pathlib import Path

import torch
from poise.representation.backbones import build_saved
from safetensors.torch import load_file

folder = Path("path/to/this/folder")
said = json.loads((folder / "{CONFIG}").read_text(encoding="utf-8"))["backbone"]
backbone = build_saved(said, folder / "{WEIGHTS}")
tensors = load_file(folder / "{WEIGHTS}")


@torch.no_grad()
def logits_of(pixels):  # (B, 3, {backbone.size}, {backbone.size}), RGB in [0, 1]
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (backbone.mean, backbone.std))
    rows = backbone.module((pixels - mean) / std)
{chr(10).join([*steps, '    return rows @ tensors["head.weight"].T + tensors["head.bias"]'])}
```

It reads images that are cut and scaled as `pixels` in {CONFIG} says."""
