"""A training under way: what stays the same, what a checkpoint holds, and how a run goes on from one."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from poise.errors import InputError, PoiseWarning
from poise.machine.processes import World
from poise.machine.reading import sentence_for
from poise.representation.backbones import Backbone
from poise.representation.checkpoints import load_checkpoint
from poise.representation.feeds import Feed
from poise.representation.network import Network
from poise.representation.settings import Stage1, changes
from poise.values.checks import is_number
from poise.values.counts import ClassCounts
from poise.values.fields import FLAG, TABLE, Kind, check_fields, list_of, whole
from poise.values.loss import Loss, with_terms

REMEDY = "the checkpoint was changed; delete it to train again"
_TENSOR = Kind("a tensor", lambda value: isinstance(value, Tensor))
_MAYBE = Kind("a tensor or nothing", lambda value: value is None or isinstance(value, Tensor))
_TENSORS = Kind("a table of tensors", lambda value: TABLE.fits(value) and all(map(_TENSOR.fits, value.values())))
_KINDS = {
    "step": whole(0, 2**53),
    "network": _TENSORS,
    "momentum": list_of("tensors", _MAYBE),
    "average": _TENSORS,
    "loss_state": list_of("tensors", _MAYBE),
    "meter": Kind("a table of numbers", lambda value: TABLE.fits(value) and all(map(is_number, value.values()))),
    "known": Kind(
        "what settings, and what data",
        lambda value: (
            TABLE.fits(value)
            and TABLE.fits(value.get("settings"))
            and TABLE.fits(value.get("data"))
            and {"loss", "trained"} <= set(value["settings"])
            and FLAG.fits(value["data"].get("bf16", False))
        ),
    ),
}


@dataclass(frozen=True, eq=False)
class Job:
    """What stays the same while training."""

    backbone: Backbone
    feed: Feed
    y: Tensor
    counts: ClassCounts
    settings: Stage1
    loss: Loss
    rates: list[list[float]]
    world: World
    device: torch.device
    bf16: bool

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return len(self.rates[0])

    @property
    def all_steps(self) -> int:
        """Steps of the whole run."""
        return len(self.rates) * self.steps


METER = ("loss", "right", "images", "seconds")


@dataclass
class Run:
    """What changes while training: all of it is in a checkpoint. `meter` sums over the images of this epoch."""

    network: Network
    optimiser: torch.optim.SGD
    average: dict[str, Tensor]
    loss_state: Any
    step: int = 0
    meter: dict[str, float] = field(default_factory=lambda: dict.fromkeys(METER, 0.0))

    def content(self) -> dict[str, Any]:
        """The run as tensors and plain numbers."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "momentum": [self.optimiser.state[p].get("momentum_buffer") for p in self.network.trained],
            "average": self.average,
            "loss_state": list(self.loss_state),
            "meter": dict(self.meter),
        }

    def restore(self, content: Mapping[str, Any], *, same_loss: bool, same_parts: bool) -> None:
        """Become the run that `content` describes; what belongs to another loss or other parts begins anew."""
        self.network.load_state_dict(content["network"])
        for parameter, momentum in zip(self.network.trained, content["momentum"], strict=True) if same_parts else ():
            if momentum is not None:
                self.optimiser.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
        for name, value in self.average.items():
            value.copy_(content["average"].get(name, content["network"][name]))
        if same_loss:
            device = next(self.network.parameters()).device
            terms = [None if term is None else term.to(device) for term in content["loss_state"]]
            self.loss_state = with_terms(self.loss_state, terms)
        self.step, self.meter = content["step"], dict(content["meter"])


def begin(job: Job) -> Run:
    """A run before its first step."""
    settings = job.settings
    network = Network(job.backbone, len(job.counts), settings).to(job.device)
    if settings.channels_last:
        network = network.to(memory_format=torch.channels_last)
    groups = [
        {"params": network.of_backbone, "factor": settings.backbone_lr},
        {"params": list(network.head.parameters()), "factor": 1.0},
    ]
    optimiser = torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=settings.scaled_lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )
    average = {name: value.clone() for name, value in network.state_dict().items()} if settings.ema else {}
    state = job.loss.init(job.counts)
    terms = [None if term is None else term.float().to(job.device) for term in state]
    return Run(network, optimiser, average, with_terms(state, terms))


def begun(folder: Path) -> dict[str, Any] | None:
    """The checkpoint of the run that was begun in a folder; None without one.

    Raises: InputError as `load_checkpoint`, and for a value of another kind than `Run.content` has.
    """
    saved = load_checkpoint(folder)
    if saved is not None:
        check_fields(f"the checkpoint of {folder}: ", saved, _KINDS, f"; {REMEDY}")
    return saved


def _refuse_changes(folder: Path, known: dict[str, Any], saved: dict[str, Any]) -> None:
    """Raises: InputError listing what differs between this run and the one that wrote the checkpoint."""
    one, other = saved["data"], known["data"]
    data = {key: (one.get(key), other.get(key)) for key in sorted({*one, *other}) if one.get(key) != other.get(key)}
    changed = changes(saved["settings"], known["settings"]) | data
    if changed:
        told = "; ".join(f"{key} was {before!r} and is now {now!r}" for key, (before, now) in changed.items())
        raise InputError(
            f"{folder} holds a run that was begun otherwise: {told}; state the same, choose another folder, or go on "
            "all the same with allow_changed=True",
            "allow_changed=True",
        )


def resume(
    job: Job, run: Run, folder: Path, saved: dict[str, Any] | None, known: dict[str, Any], allow_changed: bool
) -> None:
    """Go on from the checkpoint of the folder, if there is one."""
    if saved is not None:
        if not allow_changed:
            _refuse_changes(folder, known, saved["known"])
        _restore(job, run, folder, saved)
    if int(job.world.add(torch.tensor(run.step))) != run.step * job.world.size:
        raise InputError(f"the processes of this run see different checkpoints in {folder}; give all the same folder")


def _restore(job: Job, run: Run, folder: Path, saved: Mapping[str, Any]) -> None:
    mine, theirs = ({k: tuple(v.shape) for k, v in s.items()} for s in (run.network.state_dict(), saved["network"]))
    if differing := sorted(name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name)):
        raise InputError(
            f"{folder} holds a run of another network: {len(differing)} of its parts are missing, new or of another "
            f"shape, first {', '.join(differing[:5])}; choose another folder, or the network that was trained there"
        )
    if job.world.first and (processes := saved.get("processes", job.world.size)) != job.world.size:
        warnings.warn(
            f"this run was begun with {processes} processes and goes on with {job.world.size}; the batches stay the "
            "same, the last digits of the result do not",
            PoiseWarning,
            stacklevel=4,
        )
    before, now = saved["known"]["settings"], job.settings.to_dict()
    with sentence_for(f"the checkpoint of {folder}", "this run", REMEDY):
        run.restore(
            saved,
            same_loss=before["loss"] == now["loss"] and len(saved["loss_state"]) == len(run.loss_state),
            same_parts=before["trained"] == now["trained"],
        )
    if set(run.meter) != set(METER):
        raise InputError(f"the checkpoint of {folder}: meter must have {', '.join(METER)}; {REMEDY}")


def refuse_infinite(run: Run) -> None:
    """Raises: InputError if a weight or statistic is not finite, so that no checkpoint keeps it."""
    for name, value in run.network.state_dict().items():
        if not torch.isfinite(value).all():
            raise InputError(
                f"{name} of the network is not finite after step {run.step}; the last checkpoint is from before it; "
                "lower lr, warm up for longer, or use precision float32"
            )
