"""Several processes that train or extract together, started by `torchrun`; one process is the same with a world of 1.

Only sums cross between processes, and each is taken over the whole batch, so that a run with more processes computes
what one process computes, up to the order of additions. Batch normalisation is part of that: its statistics are those
of the whole batch.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from poise.errors import PoiseError

__all__ = ["World", "started", "synchronised"]

TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @property
    def alone(self) -> bool:
        """Is there one process only?"""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Is this the process that writes and speaks?"""
        return self.rank == 0

    def share(self, batch: Tensor) -> tuple[Tensor, float]:
        """The part of a batch (n,) for this process, and how much each of its elements counts.

        A batch with fewer elements than processes goes to all of them, each with its share of the weight, because every
        process takes part in every sum.
        """
        if len(batch) < self.size:
            return batch, 1 / self.size
        return batch[self.rank :: self.size], 1.0

    def add(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all processes, in place. Raises: PoiseError if a process is gone."""
        if not self.alone:
            with _partners():
                dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Is the flag set in any process?"""
        return flag if self.alone else bool(self.add(torch.tensor(int(flag))))

    def wait(self) -> None:
        """Until every process is here."""
        self.any(False)


@contextmanager
def _partners() -> Iterator[None]:
    """An error of a collective operation, in words."""
    try:
        yield
    except RuntimeError as error:
        raise PoiseError(
            f"another process of this run has ended or does not answer, as rank {dist.get_rank()} noticed "
            f"({str(error).splitlines()[0]}); start the same command again to go on from the last checkpoint"
        ) from error


@contextmanager
def started(timeout: float = TIMEOUT_SECONDS) -> Iterator[World]:
    """The world of this process, as `torchrun` describes it in the environment; a world of one without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def _over_all(norm: Any, x: Tensor) -> Tensor:
    """Batch normalisation of (B, F, ...) by the statistics of all processes' rows; torch has one for GPUs only."""
    if not norm.training:
        return type(norm).forward(norm, x)  # type: ignore[no-any-return]
    import torch.distributed.nn.functional as differentiable

    all_reduce: Callable[[Tensor], Tensor] = differentiable.all_reduce
    rows = x.float()
    over, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
    n = all_reduce(torch.tensor(rows.numel() / rows.shape[1], device=x.device))
    mean = all_reduce(rows.sum(over)) / n
    centred = rows - mean.view(shape)
    variance = all_reduce(centred.square().sum(over)) / n
    if norm.track_running_stats:
        _remember(norm, mean.detach(), variance.detach() * (n / (n - 1)))
    unit = centred * (variance + norm.eps).rsqrt().view(shape)
    out: Tensor = unit if norm.weight is None else unit * norm.weight.view(shape) + norm.bias.view(shape)
    return out.to(x.dtype)


@torch.no_grad()
def _remember(norm: Any, mean: Tensor, variance: Tensor) -> None:
    norm.num_batches_tracked += 1
    share = 1 / int(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance, share)


@contextmanager
def synchronised(module: nn.Module, world: World) -> Iterator[None]:
    """Within, batch normalisation of the module is over all processes; its parameters and their names stay the same."""
    norms = [] if world.alone else [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.forward = partial(_over_all, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward
