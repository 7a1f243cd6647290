"""Stage 1: one loop that trains a backbone and its classifier, and goes on where it was stopped.

Nothing random is remembered. The rows of a batch are a function of (seed, epoch, step), their augmentation of (seed,
epoch, place in the epoch), so is the noise of a loss, dropout of (seed, step, rank). A checkpoint therefore holds
weights, momentum, the state of the loss and a step number, and a run that was killed ends with the bits of one that was
not.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import tee
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poise.errors import InputError, PoiseWarning, StoppedError
from poise.machine.processes import World, synchronised
from poise.machine.progress import Progress
from poise.representation.augment import beta_share, normalised
from poise.representation.backbones import Backbone
from poise.representation.checkpoints import load_checkpoint, save_checkpoint, sweep
from poise.representation.feeds import Feed, Step, explained
from poise.representation.network import Network
from poise.representation.settings import Stage1, changes
from poise.values.counts import ClassCounts
from poise.values.head import Head
from poise.values.loss import Loss, draws, mass_of
from poise.values.randomness import Stream, hashed, seed_for

Log = Callable[[Mapping[str, Any]], None]


class Trained(NamedTuple):
    """The result: the network in eval mode on the CPU, and its classifier as a head."""

    network: Network
    head: Head


@dataclass(frozen=True, eq=False)
class _Job:
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


@dataclass
class _Run:
    """What changes while training: all of it is in a checkpoint. `meter` sums over the images of this epoch."""

    network: Network
    optimiser: torch.optim.SGD
    average: dict[str, Tensor]
    loss_state: Any
    step: int = 0
    meter: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("loss", "right", "images", "seconds"), 0.0))

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
            self.loss_state = _like(self.loss_state, terms)
        self.step, self.meter = content["step"], dict(content["meter"])


def train(
    backbone: Backbone,
    feed: Feed,
    y: Tensor,
    counts: ClassCounts,
    settings: Stage1,
    folder: Path,
    *,
    identity: Mapping[str, Any] | None = None,
    world: World | None = None,
    device: str | torch.device = "cpu",
    log: Log | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    checkpoint_seconds: float = 120.0,
    allow_changed: bool = False,
) -> Trained:
    """Train `backbone` and a classifier on the images of `feed`, whose labels are `y` (N,).

    `folder` receives the checkpoints, at most one every `checkpoint_seconds` and one at the end. If it holds one,
    training goes on from there, after comparing `settings` and `identity` (anything that says which data and network
    these are) with those that it was made with. A run with precision "auto" goes on in bfloat16 or float32 as it was
    begun, with a warning (PoiseWarning) where this machine would have chosen otherwise. Every process of `world` calls
    this with the same arguments. `log` receives one row per epoch: epoch, step, lr, loss and accuracy (of the augmented
    images, as they were seen), images_per_second, seconds. `progress` is called with (images done, images in all).

    With `allow_changed`, momentum begins anew if other parts are trained now, and so does what the loss gathered if the
    loss is another one. Another number of processes is allowed and warned of (PoiseWarning): the batches are the same,
    the order of additions is not.

    Raises: InputError for settings that do not fit the data or the checkpoint, or naming the step if the loss or a
    weight is not finite; StoppedError, after a checkpoint, once `should_stop` answers true in any process.
    """
    place = torch.device(device)
    rates = settings.learning_rates(len(y))
    if (world or World()).first:
        sweep(folder)
    saved = load_checkpoint(folder)
    bf16 = _precision(settings, place, saved)
    job = _Job(backbone, feed, y, counts, settings, settings.built_loss(), rates, world or World(), place, bf16)
    known = {"settings": settings.to_dict(), "data": {**(identity or {}), "bf16": bf16}}
    run = _begun(job)
    _resume(job, run, folder, saved, known, allow_changed)
    saved_at = time.monotonic()
    generators = [place] if place.type == "cuda" else []
    with torch.random.fork_rng(generators), synchronised(run.network, job.world), explained():
        for stopping in _stepping(job, run, should_stop or (lambda: False), log or (lambda row: None), progress):
            over = run.step == job.all_steps
            if job.world.first and (over or stopping or time.monotonic() - saved_at >= checkpoint_seconds):
                _refuse_infinite(run)
                save_checkpoint(folder, {"known": known, "processes": job.world.size, **run.content()})
                saved_at = time.monotonic()
            if stopping and not over:
                job.world.wait()
                raise StoppedError(run.step, job.all_steps)
    if run.average:
        run.network.load_state_dict(run.average)
    network = run.network.cpu().eval()
    return Trained(network, network.as_head())


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Are convolutions computed in bfloat16? For "auto": where the device multiplies in it."""
    return multiplies_bf16(device) if precision == "auto" else precision == "bf16"


def multiplies_bf16(device: torch.device) -> bool:
    """Has the device instructions that multiply in bfloat16?"""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _precision(settings: Stage1, device: torch.device, saved: Mapping[str, Any] | None) -> bool:
    """Does the run go on in bfloat16? What was chosen by "auto" when it was begun stays chosen on another machine."""
    chosen = uses_bf16(settings.precision, device)
    begun = chosen if saved is None or settings.precision != "auto" else saved["known"]["data"].get("bf16", chosen)
    said = {True: "bfloat16", False: "float32"}
    if begun != chosen:
        _warn(f"this run was begun in {said[begun]} and goes on in it; on this machine auto would be {said[chosen]}")
    if begun and not multiplies_bf16(device):
        _warn(
            "this machine has no instructions for bfloat16 and imitates them, which can take ten times as long; state "
            "precision float32 for a new run, or go on where there are some"
        )
    return bool(begun)


def _warn(sentence: str) -> None:
    warnings.warn(sentence, PoiseWarning, stacklevel=4)


def _begun(job: _Job) -> _Run:
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
    return _Run(
        network, optimiser, average, _like(state, [t if t is None else t.float().to(job.device) for t in state])
    )


def _like(state: Any, terms: Sequence[Tensor | None]) -> Any:
    # A named tuple is rebuilt with its names; a plain tuple, which a loss from outside may use, as it is.
    return state._make(terms) if hasattr(state, "_make") else tuple(terms)


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


def _resume(
    job: _Job, run: _Run, folder: Path, saved: dict[str, Any] | None, known: dict[str, Any], allow_changed: bool
) -> None:
    """Go on from the checkpoint of the folder, if there is one."""
    if saved is not None:
        if not allow_changed:
            _refuse_changes(folder, known, saved["known"])
        _restore(job, run, folder, saved)
    if int(job.world.add(torch.tensor(run.step))) != run.step * job.world.size:
        raise InputError(f"the processes of this run see different checkpoints in {folder}; give all the same folder")


def _restore(job: _Job, run: _Run, folder: Path, saved: Mapping[str, Any]) -> None:
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
    run.restore(
        saved,
        same_loss=before["loss"] == now["loss"] and len(saved["loss_state"]) == len(run.loss_state),
        same_parts=before["trained"] == now["trained"],
    )


def _refuse_infinite(run: _Run) -> None:
    """Raises: InputError if a weight or statistic is not finite, so that no checkpoint keeps it."""
    for name, value in run.network.state_dict().items():
        if not torch.isfinite(value).all():
            raise InputError(
                f"{name} of the network is not finite after step {run.step}; the last checkpoint is from before it; "
                "lower lr, warm up for longer, or use precision float32"
            )


# --- the loop ---------------------------------------------------------------------------------------------------------


class _Part(NamedTuple):
    """This process's part of a step of `size` images, the `within`-th of its epoch: places in the epoch and their rows.

    Each image has `weight` in the mean over the step. With mixup, `partners` are the places of the images that the
    images at `places` are mixed with, keeping `share` of themselves; `rows` are then those of both, one after another.
    """

    epoch: int
    within: int
    size: int
    places: Tensor
    partners: Tensor
    rows: Tensor
    weight: float
    share: float


def _parts(job: _Job, step: int) -> Iterator[_Part]:
    """The parts of this process, from a step of the run to its end."""
    settings, rows = job.settings, len(job.y)
    for epoch in range(step // job.steps, len(job.rates)):
        order = settings.row_order(job.y, job.counts, epoch)
        for index in range(step % job.steps if epoch == step // job.steps else 0, job.steps):
            batch = torch.arange(index * settings.batch_size, min((index + 1) * settings.batch_size, rows))
            places, count = job.world.share(batch)
            partners, share = places[:0], 1.0
            if settings.mixup:
                shuffled = torch.from_numpy(hashed(settings.seed, Stream.PARTNER, epoch, batch.numpy()).argsort())
                partners = batch[shuffled[places - batch[0]]]
                share = beta_share(settings.mixup, settings.seed, Stream.MIXUP, epoch, index)
            both = torch.cat([places, partners])
            yield _Part(epoch, index, len(batch), places, partners, order[both], count / len(batch), share)


def _stepping(
    job: _Job, run: _Run, should_stop: Callable[[], bool], log: Log, progress: Progress | None
) -> Iterator[bool]:
    """Make one step after another; after each, say whether any process is asked to stop."""
    parts, ahead = tee(_parts(job, run.step))
    steps = (Step(p.epoch, p.rows, torch.cat([p.places, p.partners])) for p in ahead)
    clock, epoch, factors = time.perf_counter(), -1, None
    for part, images in zip(parts, job.feed.batches(steps), strict=True):
        if part.epoch != epoch:
            epoch, factors = part.epoch, _epoch_begins(job, run, part.epoch)
        torch.manual_seed(seed_for(job.settings.seed, Stream.DROPOUT, run.step, job.world.rank))
        loss, right, state = _gradients(job, run, images, part, factors)
        sums = torch.tensor([loss, right, float(should_stop())], dtype=torch.float64, device=job.device)
        loss, right, stops = job.world.add(sums).tolist()
        if not math.isfinite(loss):
            raise InputError(
                f"the loss is {loss} at step {run.step + 1} (epoch {epoch + 1}); that step was not made, and the last "
                "checkpoint is from before it; lower lr, warm up for longer, or use precision float32"
            )
        run.loss_state = state
        _move(job, run, job.rates[epoch][part.within])
        run.step += 1
        now = time.perf_counter()
        for name, value in (
            ("loss", loss * part.size),
            ("right", right * part.size),
            ("images", part.size),
            ("seconds", now - clock),
        ):
            run.meter[name] += value
        clock = now
        if part.within == job.steps - 1:
            log(_epoch_ends(job, run, epoch))
        if progress is not None:
            size = job.settings.batch_size
            progress(min(run.step * size, job.all_steps * size), job.all_steps * size)
        yield bool(stops)


def _epoch_begins(job: _Job, run: _Run, epoch: int) -> Tensor | None:
    """Put the network and the loss into the state of an epoch; the factors of its losses by class, if it has any."""
    run.network.to_train()
    if job.loss.epoch is not None:
        run.loss_state = job.loss.epoch(run.loss_state, epoch, len(job.rates))
    factors = job.settings.class_weights(job.counts, epoch)
    return None if factors is None else factors.to(job.device)


def _epoch_ends(job: _Job, run: _Run, epoch: int) -> dict[str, Any]:
    """The row of the log, and an empty meter."""
    images, seconds = run.meter["images"], run.meter["seconds"]
    row = {
        "epoch": epoch + 1,
        "step": run.step,
        "lr": job.rates[epoch][-1],
        "loss": run.meter["loss"] / images,
        "accuracy": run.meter["right"] / images,
        "images_per_second": images / seconds if seconds else 0.0,
        "seconds": seconds,
    }
    run.meter = dict.fromkeys(run.meter, 0.0)
    return row


def _gradients(job: _Job, run: _Run, images: Tensor, part: _Part, factors: Tensor | None) -> tuple[float, float, Any]:
    """Gradients of the mean loss over the step, in place; this process's part of that mean and of the accuracy.

    The third value is the state of the loss after the step.
    """
    y = job.y[part.rows].to(job.device)
    n = len(part.places)
    # As many parts in every process, because normalisation waits for all of them, and none without an image.
    chunks = min(job.settings.accumulate, part.size // job.world.size or part.size)
    loss, right = 0.0, 0.0
    states: list[tuple[float, Any]] = []
    mean = _mean_mass(job, run, part, y[:n], factors)
    for chunk in torch.arange(n).tensor_split(chunks):
        own, other = y[:n][chunk], y[n:][chunk] if part.share < 1 else None
        logits = _logits(job, run, images, chunk, part)
        total, before = logits.new_zeros(()), _loss_state(job, run, part, part.places[chunk])
        for share, labels in ((part.share, own), (1 - part.share, other)):
            if labels is None or not len(labels):
                continue
            losses, after = job.loss.apply(logits, labels, before)
            losses = losses if factors is None else losses * factors[labels]
            total = total + share * part.weight * losses.sum() / mean
            states.append((share * part.weight * len(labels), after))
        total.backward()  # type: ignore[no-untyped-call]
        loss += float(total.detach())
        right += part.weight * float((logits.argmax(dim=-1) == own).sum())
    if not job.world.alone:
        _add_gradients(job, run)
    return loss, right, _combined(job, run.loss_state, states)


def _mean_mass(job: _Job, run: _Run, part: _Part, y: Tensor, factors: Tensor | None) -> Tensor | float:
    """The mean, over the whole step, of what its images with these labels here count; partners are the same images."""
    mass = mass_of(job.loss, y, run.loss_state)
    if factors is not None:
        mass = factors[y] if mass is None else mass * factors[y]
    return 1.0 if mass is None else job.world.add(part.weight * mass.sum())


def _loss_state(job: _Job, run: _Run, part: _Part, places: Tensor) -> Any:
    """The state of the loss for the images at these places; with its noise, one number per image and class.

    A mixed image has one noise, whichever of its two labels it is compared with.
    """
    if job.loss.draw is None:
        return run.loss_state
    return job.loss.draw(run.loss_state, draws(places, len(job.counts), job.settings.seed, part.epoch))


def _logits(job: _Job, run: _Run, images: Tensor, chunk: Tensor, part: _Part) -> Tensor:
    """(n, C) float32 logits of some of the step's images, mixed with their partners if there are any."""
    settings, backbone, n = job.settings, job.backbone, len(part.places)

    def ready(pixels: Tensor) -> Tensor:
        return normalised(pixels.to(job.device), backbone.mean, backbone.std, channels_last=settings.channels_last)

    x = ready(images[chunk])
    if len(part.partners):
        x = part.share * x + (1 - part.share) * ready(images[n + chunk])
    with torch.autocast(job.device.type, torch.bfloat16, enabled=job.bf16):
        return run.network(x)  # type: ignore[no-any-return]


def _combined(job: _Job, before: Any, states: list[tuple[float, Any]]) -> Any:
    """The state of the loss after a step whose parts, with these weights in the mean, each left a state.

    A state that gathers statistics is an average over images, so the states of the parts are averaged. Terms that a
    loss hands on as they are stay the same tensors.
    """
    terms = []
    for index, old in enumerate(before):
        after = [(weight, state[index]) for weight, state in states]
        if all(term is old for _, term in after):
            terms.append(old)
        elif len(after) == 1 and job.world.alone:
            terms.append(after[0][1])
        else:
            terms.append(job.world.add(sum(weight * term for weight, term in after)))
    return _like(before, terms)


def _add_gradients(job: _Job, run: _Run) -> None:
    """Gradients become those of the whole step: the sums over the processes, in one exchange."""
    gradients = [p.grad for p in run.network.trained if p.grad is not None]
    whole = job.world.add(torch.cat([g.reshape(-1) for g in gradients]))
    for gradient, piece in zip(gradients, torch.split(whole, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(piece.view(gradient.shape))


@torch.no_grad()
def _move(job: _Job, run: _Run, lr: float) -> None:
    """One step of the optimiser at `lr`, and of the moving average."""
    for group in run.optimiser.param_groups:
        group["lr"] = lr * group["factor"]
    run.optimiser.step()
    run.optimiser.zero_grad()
    for name, value in run.network.state_dict().items() if run.average else ():
        if value.is_floating_point():
            run.average[name].lerp_(value, 1 - job.settings.ema)
        else:
            run.average[name].copy_(value)
