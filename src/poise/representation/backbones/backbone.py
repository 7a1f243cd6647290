"""What every network becomes: a `Backbone`, a module that turns images into feature rows, and how to feed it."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from poise.errors import InputError
from poise.representation.backbones.weights import Loaded
from poise.values.checks import check_one_of, is_number, is_whole
from poise.values.head import Head

Triple = tuple[float, float, float]
LARGEST = 4096  # pixels of a side, because a network is tried on images of its size when it is built
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
# Mean and deviation by which images are normalised: the usual ones of ImageNet, and those that give [-1, 1].
IMAGENET: tuple[Triple, Triple] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES: tuple[Triple, Triple] = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


class Made(NamedTuple):
    """A network and how it wants its images, before it was tried; `output` says where its features are."""

    module: nn.Module
    size: int
    mean: Triple
    std: Triple
    crop: float = 1.0
    interpolation: str = "bilinear"
    output: str | int | None = None
    last_block: tuple[str, ...] = ()
    note: str = ""
    loaded: Loaded = Loaded({})


@dataclass(frozen=True, eq=False)
class Backbone:
    """`module` maps float images (B, 3, H, W), minus `mean` and divided by `std` of values in [0, 1], to rows (B, dim).

    `size` is the side of the images it reads; at test time the shorter side is scaled to size / `crop` by
    `interpolation`, and the centre is kept. `last_block` holds the beginnings of the names of the parameters of the
    last block and of what follows it, for training that alone. `head` is the classifier of the weight file, if it had
    one for these features. `note` says what was found out while building: what the network returned, what a weight
    file had too much.

    Raises: InputError for a field out of its range.
    """

    name: str
    module: nn.Module
    dim: int
    size: int
    mean: Triple
    std: Triple
    crop: float = 1.0
    interpolation: str = "bilinear"
    last_block: tuple[str, ...] = ()
    head: Head | None = None
    note: str = ""

    def __post_init__(self) -> None:
        check_size(self.size)
        object.__setattr__(self, "mean", _three("mean", self.mean))
        object.__setattr__(self, "std", _three("std", self.std))
        if min(self.std) <= 0:
            raise InputError(f"std must be positive for every colour, got {self.std}")
        if not is_number(self.crop) or not 0 < self.crop <= 1:
            raise InputError(f"crop, the share of the side that is kept, must lie in (0, 1], got {self.crop!r}")
        check_one_of("interpolation", self.interpolation, INTERPOLATIONS)
        if isinstance(self.last_block, str):
            raise InputError(f"last_block is a list of name beginnings, got {self.last_block!r}; put it into a list")
        object.__setattr__(self, "last_block", tuple(self.last_block))

    @property
    def weights_digest(self) -> str:
        """sha256 in hex over the names, types, shapes and bytes of the module's state, in its order."""
        digest = hashlib.sha256()
        for name, value in self.module.state_dict().items():
            plain = value.detach().cpu().contiguous()
            digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def named_parameters(self, part: str = "all") -> list[tuple[str, nn.Parameter]]:
        """The parameters of `part` (all, last_block or none), in the module's order.

        Raises: InputError for another part, or where the last block is not known.
        """
        check_one_of("the part of a backbone that trains", part, ("all", "last_block", "none"))
        if part == "none":
            return []
        parameters = list(self.module.named_parameters())
        if part == "all":
            return parameters
        chosen = [(name, value) for name, value in parameters if name.startswith(self.last_block)]
        if not chosen:
            begin = f"begins with {' or '.join(self.last_block)}" if self.last_block else "is known to belong to it"
            raise InputError(
                f"no parameter of {self.name} {begin}: name its last block by the option last_block, a list of "
                f"beginnings of names, of which the last is {parameters[-1][0] if parameters else 'none'}"
            )
        return chosen


def check_size(size: object) -> None:
    """Raises: InputError unless the side of an image is a whole number from 1 to `LARGEST`."""
    if not isinstance(size, int) or not is_whole(size) or size < 1:
        raise InputError(f"the size of the images must be a whole number of pixels of at least 1, got {size!r}")
    if size > LARGEST:
        raise InputError(f"the size of the images must be at most {LARGEST} pixels, got {size!r:.80}")


def _three(name: str, values: object) -> Triple:
    if not isinstance(values, tuple | list) or len(values) != 3 or not all(is_number(value) for value in values):
        raise InputError(f"{name} must be three numbers, for red, green and blue, got {values!r}")
    red, green, blue = (float(value) for value in values)
    return red, green, blue


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within, torch draws from `seed`; the caller's generators, those of accelerators too, are left as they were."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)
