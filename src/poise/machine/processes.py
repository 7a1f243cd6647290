"""Several processes that train or extract together, started by `torchrun`; one process is the same with a world of 1.

Only sums cross between processes, and each is taken over the whole batch, so that a run with more processes computes
what one process computes, up to the order of additions. Batch normalisation is part of that: its statistics are those
of the whole batch.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from poise.errors import InputError, PoiseError, reason_of
from poise.machine.environment import processes, whole_number
from poise.machine.reading import sentence_for

TIMEOUT_SECONDS = 600.0  # a dead process is noticed at once by its closed connection; this is for one that hangs
PATIENCE = timedelta(days=7)  # of those that have done their share of an extraction
ROLL_CALL_SECONDS = 3.0
REMEDY = "start the command by torchrun, or unset WORLD_SIZE"


def share_of(rows: int, parts: int, part: int) -> slice:
    """The rows of one part where so many rows are cut into parts that differ by one row at most."""
    return slice(rows * part // parts, rows * (part + 1) // parts)


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`."""

    rank: int = 0
    size: int = 1
    patient: Any = field(default=None, repr=False, compare=False)  # the group of processes in which `wait` waits

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

    def own(self, total: int) -> slice:
        """The rows of this process, of `total`: consecutive ones, as many as any other has, or one more or less."""
        return share_of(total, self.size, self.rank)

    def owns(self, rows: Tensor, total: int) -> Tensor:
        """(n,) bool: which of these row numbers are of its `own`."""
        mine = self.own(total)
        return rows.ge(mine.start) & rows.lt(mine.stop)

    def add(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all processes, in place. Raises: PoiseError if a process is gone."""
        return tensor if self.alone else _summed(tensor)

    def any(self, flag: bool) -> bool:
        """Is the flag set in any process?"""
        return flag if self.alone else bool(self.add(torch.tensor(int(flag))))

    def wait(self) -> None:
        """Until every process is here, however long its work takes. Raises: PoiseError if a process is gone."""
        if not self.alone:
            with _partners():
                dist.barrier(self.patient)


ALONE = World()


def _summed(tensor: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    whole = tensor.contiguous()  # of a strided tensor, the numbers that come first in memory would be added
    with _partners():
        dist.all_reduce(whole)
    return tensor if whole is tensor else tensor.copy_(whole)


@contextmanager
def _partners() -> Iterator[None]:
    """An error of a collective operation, in words."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" in str(error):  # raised wherever the program is when a worker of its own dies
            raise
        rank, absent = dist.get_rank(), _roll_call()
        who = f"rank {', '.join(map(str, absent))} of this run has" if absent else "another process of this run has"
        raise PoiseError(
            f"{who} ended or does not answer, as rank {rank} noticed ({reason_of(error)}); start the same "
            "command again to go on from what is saved"
        ) from error


def _roll_call() -> list[int]:
    """The ranks that are gone, as far as that can be told; the connections to all others are closed first.

    By the closing, those that wait for this process notice too, and answer.
    """
    rank, size = dist.get_rank(), dist.get_world_size()
    dist.destroy_process_group()
    said = f"poise/here/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    absent: list[int] = []
    try:
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        patience = timedelta(seconds=ROLL_CALL_SECONDS)
        store = dist.TCPStore(*place, is_master=False, timeout=patience)  # type: ignore[attr-defined]
        store.set(f"{said}/{rank}", "")
        until = time.monotonic() + ROLL_CALL_SECONDS
        while time.monotonic() < until:
            absent = [other for other in range(size) if not store.check([f"{said}/{other}"])]
            if not absent:
                break
            time.sleep(0.1)
    except (RuntimeError, KeyError, ValueError):  # the process that kept the store is gone as well
        return []
    return absent


@contextmanager
def started(timeout: float = TIMEOUT_SECONDS) -> Iterator[World]:
    """The world of this process, as `torchrun` describes it in the environment; a world of one without it.

    Raises: InputError for an environment that describes none.
    """
    if processes() == 1:
        yield World()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    _refuse_outside_of_world()
    with sentence_for("the environment that torchrun sets", None, REMEDY):
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    try:
        yield World(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo", timeout=PATIENCE))
    finally:
        if dist.is_initialized():  # no longer after a roll call
            dist.destroy_process_group()


def _refuse_outside_of_world() -> None:
    """Raises: InputError where the environment has no place for this process among the others."""
    size, rank = processes(), whole_number("RANK", 0)
    if rank >= size:
        raise InputError(f"the environment says RANK={rank} of WORLD_SIZE={size}; ranks are 0 to {size - 1}; {REMEDY}")
    whole_number("MASTER_PORT", 0)


class _Sum(torch.autograd.Function):
    """The sum over all processes, of values and of gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _summed(tensor.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0].clone(memory_format=torch.contiguous_format))


def _over_all(norm: Any, x: Tensor) -> Tensor:
    """Batch normalisation of (B, F, ...) by the statistics of all processes' rows; torch has one for GPUs only."""
    if not norm.training:
        return type(norm).forward(norm, x)  # type: ignore[no-any-return]
    all_reduce: Callable[[Tensor], Tensor] = _Sum.apply
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


def device_of(name: str) -> torch.device:
    """The device called `name`: cpu, cuda, cuda:1, or auto for an accelerator if there is one.

    Of several processes on one machine, each takes the accelerator of its local rank.

    Raises: InputError if it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{whole_number('LOCAL_RANK', 0)}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"there is no device called {name!r}; say auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        said = f'device {name} was asked for, and this machine has {found} such devices; use device="cpu"'
        raise InputError(said, 'device="cpu"')
    return device
