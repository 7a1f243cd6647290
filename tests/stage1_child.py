"""A tiny stage 1 that tests run in their own process and in others, which may be killed.

A network of two convolutions, and images of 8 x 8 random pixels of three classes.
"""

import hashlib
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poise.data.samples.items import Pixels
from poise.data.samples.sample_set import Samples
from poise.errors import PoiseError
from poise.machine.processes import World, started
from poise.representation.augment import parse
from poise.representation.backbones import Backbone
from poise.representation.extract import Views, extract
from poise.representation.feeds import InMemory
from poise.representation.settings import Stage1
from poise.representation.training import Trained, train
from poise.values.counts import ClassCounts

HALVES = (0.5, 0.5, 0.5)


def tiny(*, dropout: float = 0.0, norm: bool = True, seed: int = 0) -> Backbone:
    """(B, 3, 8, 8) -> (B, 6); the last block is the second convolution and its normalisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, padding=1),
            nn.BatchNorm2d(6) if norm else nn.Identity(),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
        )
    return Backbone("tiny", module, 6, 8, HALVES, HALVES, last_block=("3.", "4."))


def images(rows: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random pixels (rows, 3, 8, 8) and labels (rows,) of three classes, half of them of the first."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.tensor([0, 0, 1, 0, 2, 1, 0, 0]).repeat(-(-rows // 8))[:rows]
    return torch.randint(256, (rows, 3, 8, 8), generator=generator, dtype=torch.uint8), y


def asked(**changes: Any) -> Stage1:
    """Settings of six steps in float32."""
    usual: dict[str, Any] = {
        "augment": ("crop(pad=1)", "flip"),
        "epochs": 2,
        "batch_size": 8,
        "warmup_epochs": 0,
        "precision": "float32",
    }
    return Stage1(**{**usual, **changes})


def trained(
    folder: Path, settings: Stage1, *, backbone: Backbone | None = None, rows: int = 24, **options: Any
) -> Trained:
    """The tiny network after `settings`."""
    pixels, y = images(rows)
    feed = options.pop("feed", None) or InMemory(pixels, parse(settings.augment), settings.seed)
    given = backbone or tiny()
    return train(given, feed, y, ClassCounts.from_labels(y, 3), settings, folder, **options)


def digest(state: Mapping[str, Tensor]) -> str:
    """sha256 of all values."""
    found = hashlib.sha256()
    for name, value in state.items():
        found.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def samples(rows: int = 24) -> Samples:
    """The images as samples."""
    pixels, y = images(rows)
    return Samples(Pixels.of(pixels.permute(0, 2, 3, 1).numpy(), "memory"), y, ("a", "b", "c"))


def extracted(folder: Path, *, backbone: Backbone | None = None, views: Views | None = None, **options: Any) -> Path:
    """The features of the images: three shards of ten rows at most, three views."""
    found = samples()
    how = views or Views(random=1, flip=True, augment=("crop(pad=1)",), batch_size=4, shard_rows=10)
    given = backbone or tiny()
    return extract(given, found, folder, counts=found.counts, seen_by_backbone=True, views=how, **options)


# --- other processes --------------------------------------------------------------------------------------------------


@dataclass
class Death:
    """Called once per step or batch; at the `at`-th call, from 1, the process of that rank is sent `how`."""

    at: int
    rank: int = 0
    how: signal.Signals = signal.SIGKILL
    calls: int = 0

    def __call__(self, world: World) -> bool:
        """Whether to stop otherwise: never."""
        self.calls += 1
        if self.calls == self.at and world.rank == self.rank:
            os.kill(os.getpid(), self.how)
        return False


def trains(world: World, folder: Path, settings: Stage1, death: Death | None = None, rows: int = 24) -> None:
    """Train, with a checkpoint after every step, and leave the digest of the weights in `folder`."""
    stop = (lambda: death(world)) if death else None
    network = trained(folder, settings, rows=rows, world=world, should_stop=stop, checkpoint_seconds=0).network
    (folder / f"digest{world.rank}").write_text(digest(network.state_dict()))
    torch.save(network.state_dict(), folder / f"weights{world.rank}.pt")


def extracts(world: World, folder: Path, death: Death | None = None) -> None:
    """Extract."""
    extracted(folder, world=world, progress=(lambda done, total: None if death is None else (death(world), None)[1]))


def launched(
    task: Callable[..., None], folder: Path, *arguments: Any, ranks: int = 1, seconds: float = 60
) -> list[int]:
    """Exit codes of `ranks` processes that run task(world, folder, *arguments).

    Errors of Poise end a process with 2, and their message is in `folder.parent / "error0"` and so on.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch._dynamo", "poise.representation.training", "poise.representation.extract"]
    )  # the slow imports, once
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    processes = [context.Process(target=_begin, args=(task, folder, arguments, r, ranks, port)) for r in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds)
    stuck = [process for process in processes if process.is_alive()]
    for process in stuck:
        process.kill()
        process.join()
    assert not stuck, "a process did not end"
    return [process.exitcode or 0 for process in processes]


def _begin(
    task: Callable[..., None], folder: Path, arguments: tuple[Any, ...], rank: int, ranks: int, port: int
) -> None:
    torch.set_num_threads(1)
    if ranks > 1:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "WORLD_SIZE": ranks}
        os.environ.update({name: str(value) for name, value in place.items()})
    try:
        with started() as world:
            task(world, folder, *arguments)
    except PoiseError as error:
        (folder.parent / f"error{rank}").write_text(str(error))
        sys.exit(2)
