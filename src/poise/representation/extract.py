"""Images to feature rows: a backbone in evaluation mode, streamed to the shards of a store.

Shards are shared out among processes, finished ones are kept, and every row belongs to exactly one shard, whatever the
number of processes. The rows of a batch do not depend on who computes it, so neither do the features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from poise.data.samples.decode_all import pixels
from poise.data.samples.sample_set import Items, Samples
from poise.data.store import growing_store
from poise.errors import InputError
from poise.machine.processes import World
from poise.machine.progress import Progress, part_of
from poise.representation.augment import normalised, parse
from poise.representation.augment.photographs import eval_transform, train_transform
from poise.representation.backbones import Backbone, TextBackbone
from poise.representation.feeds import Feed, InMemory, Step, Streamed, explained
from poise.values.counts import ClassCounts
from poise.values.fields import check_fields, one_of, whole
from poise.values.randomness import Stream, seed_for

SMALL = 64  # pixels of a side up to which a whole set is kept in memory
MEMORY = 4 * 2**30  # bytes of pixels up to which it is


@dataclass(frozen=True, kw_only=True)
class Views:
    """What is stored of each image: the test-time view first, then `random` augmented ones, then the mirrored one.

    `augment` are the augmentations of the random views, which follow from `seed`. Values are stored in `dtype`;
    batches of `batch_size` images are computed in float32, or in bfloat16 autocast if `bf16`.

    Raises: InputError naming the field that is out of range.
    """

    random: int = 0
    flip: bool = False
    augment: tuple[str, ...] = ("crop", "flip")
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    batch_size: int = 256
    shard_rows: int = 65536
    bf16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "augment", tuple(self.augment))
        check_fields("extraction: ", vars(self), _KINDS)

    @property
    def kinds(self) -> list[str]:
        """The name of each view, in order."""
        return ["test", *(f"random {k}" for k in range(1, self.random + 1)), *(["mirrored"] if self.flip else [])]

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON types."""
        return {**self.__dict__, "augment": list(self.augment)}


_KINDS = {
    "random": whole(0),
    "batch_size": whole(1),
    "shard_rows": whole(1),
    "seed": whole(0),
    "dtype": one_of("float16", "bfloat16", "float32"),
}


def is_small(backbone: Backbone, rows: int) -> bool:
    """Are the images that this backbone reads so small that all of them are kept in memory and augmented in batches?"""
    return backbone.size <= SMALL and rows * 3 * backbone.size**2 <= MEMORY


def feed_of(
    backbone: Backbone,
    items: Items,
    *,
    augment: Sequence[str] | None,
    seed: int = 0,
    workers: int = 0,
    held: Tensor | None = None,
    progress: Progress | None = None,
) -> Feed:
    """Batches of `items` as the backbone reads them; `augment` None is the test-time view.

    `held` are the pixels (N, 3, H, W) if they were decoded before.

    Raises: InputError for an augmentation that does not exist, or the first image that cannot be read.
    """
    if is_small(backbone, len(items)):
        whole = held if held is not None else pixels(items, size=backbone.size, progress=progress)
        return InMemory(whole, parse(augment or ()), seed)
    how: dict[str, Any] = {"crop": backbone.crop, "interpolation": backbone.interpolation}
    made = eval_transform(backbone.size, **how) if augment is None else train_transform(augment, backbone.size, **how)
    return Streamed(items, made, seed, workers)


def extract(
    backbone: Backbone | TextBackbone,
    samples: Samples,
    folder: str | Path,
    *,
    counts: ClassCounts,
    seen_by_backbone: bool | None,
    views: Views | None = None,
    provenance: Mapping[str, Any] | None = None,
    world: World | None = None,
    device: str | torch.device = "cpu",
    workers: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write the features of `samples` to a store in `folder`; what an interrupted extraction finished is kept.

    `counts` (C,) are those of the training split. Every process of `world` calls this with the same arguments.
    `progress` is called with (rows done, rows in all) of this process.

    Raises: InputError if the folder holds features of something else, or naming the first sample that cannot be read or
    whose features are not finite.
    """
    root, how, world = Path(folder), views or Views(), world or World()
    _check_kind(backbone, samples.items, how)
    identity = {**_identity(backbone), "samples": samples.fingerprint, "rows": len(samples), **how.to_dict()}
    if world.first:
        growing_store.begin(root, identity)
    world.wait()
    if growing_store.is_finished(root):
        return root
    shards = -(-len(samples) // how.shard_rows)
    mine = [number for number in growing_store.missing(root, shards) if number % world.size == world.rank]
    for done, number in enumerate(mine):
        rows = torch.arange(number * how.shard_rows, min((number + 1) * how.shard_rows, len(samples)))
        part = samples.take(rows)
        told = part_of(progress, done, len(mine))
        x = _shard(backbone, part.items, rows, how, device, workers, told)
        growing_store.write_shard(root, number, x, part.y, getattr(torch, how.dtype))
    world.wait()
    if world.first:
        growing_store.finish(
            root,
            shards,
            counts,
            dtype=getattr(torch, how.dtype),
            class_names=samples.class_names,
            seen_by_backbone=seen_by_backbone,
            provenance={**(provenance or {}), "extraction": identity, "views": how.kinds},
        )
    world.wait()
    return root


def feature_rows(
    backbone: Backbone | TextBackbone,
    items: Items,
    *,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    workers: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """(N, D) float32 features of the test-time view, in memory: for prediction.

    Raises: InputError naming the first sample that cannot be read or whose features are not finite.
    """
    how = Views(batch_size=batch_size)
    _check_kind(backbone, items, how)
    return _shard(backbone, items, torch.arange(len(items)), how, device, workers, progress)[0]


def _check_kind(backbone: Backbone | TextBackbone, items: Items, how: Views) -> None:
    """Raises: InputError for texts and a network of images, or the other way round, or views of texts."""
    reads = "text" if isinstance(backbone, TextBackbone) else "image"
    if items.kind != reads:
        raise InputError(f"backbone {backbone.name} reads {reads}s, {items.describe(0)} is no {reads}; name another")
    if reads == "text" and len(how.kinds) > 1:
        raise InputError("texts have one view; leave out views and flip")


def _identity(backbone: Backbone | TextBackbone) -> dict[str, Any]:
    if isinstance(backbone, TextBackbone):
        return {"backbone": backbone.name}
    fed = [backbone.size, list(backbone.mean), list(backbone.std), backbone.crop, backbone.interpolation]
    return {"backbone": backbone.name, "weights": backbone.weights_digest, "input": fed}


@torch.no_grad()
@explained()
def _shard(
    backbone: Backbone | TextBackbone,
    items: Items,
    places: Tensor,
    how: Views,
    device: str | torch.device,
    workers: int,
    progress: Progress | None,
) -> Tensor:
    """(V, n, D) float32 features of items whose places in the whole set are `places`."""
    if isinstance(backbone, TextBackbone):
        return backbone.embed([str(items.read(index)) for index in range(len(items))]).unsqueeze(0)
    backbone.module.to(device)
    held = pixels(items, size=backbone.size) if is_small(backbone, len(items)) else None
    found = []
    for view, kind in enumerate(how.kinds):
        augment = how.augment if kind.startswith("random") else None
        feed = feed_of(
            backbone, items, augment=augment, seed=seed_for(how.seed, Stream.VIEWS), workers=workers, held=held
        )
        parts = torch.split(torch.arange(len(items)), how.batch_size)
        for images in feed.batches(Step(view, part, places[part]) for part in parts):
            found.append(_features(backbone, images.flip(-1) if kind == "mirrored" else images, how.bf16))
            if progress is not None:
                progress(sum(len(rows) for rows in found), len(how.kinds) * len(items))
    x = torch.cat(found).view(len(how.kinds), len(items), -1)
    _refuse_infinite(items, x)
    return x


def _features(backbone: Backbone, images: Tensor, bf16: bool) -> Tensor:
    """(n, D) float32 features of uint8 images, on the CPU."""
    device = next(backbone.module.parameters()).device
    x = normalised(images.to(device), backbone.mean, backbone.std, channels_last=True)
    backbone.module.eval()
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        return backbone.module(x).float().cpu()  # type: ignore[no-any-return]


def _refuse_infinite(items: Items, x: Tensor) -> None:
    bad = ~torch.isfinite(x).all(dim=-1)
    if bad.any():
        view, row = bad.nonzero()[0].tolist()
        raise InputError(
            f"the features of {items.describe(row)} (view {view}) are not finite; the weights of the backbone are "
            "damaged, or it does not work in this precision"
        )
