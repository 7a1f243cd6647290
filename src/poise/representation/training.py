"""Stage 1: one loop that trains a backbone and its classifier, and goes on where it was stopped.

Nothing random is remembered. The rows of a batch are a function of (seed, epoch, step), their augmentation of (seed,
epoch, place in the epoch), so is the noise of a loss, dropout of (seed, step, rank). A checkpoint therefore holds
weights, momentum, the state of the loss and a step number, and a run that was killed ends with the bits of one that was
not.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import tee
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poise.errors import InputError, PoiseWarning, StoppedError
from poise.machine.processes import World, synchronised
from poise.machine.progress import Progress
from poise.representation.augment import beta_share
from poise.representation.backbones import Backbone
from poise.representation.checkpoints import save_checkpoint, sweep
from poise.representation.feeds import Feed, Step, explained
from poise.representation.gradients import Part, gradients
from poise.representation.network import Network
from poise.representation.run import Job, Run, begin, begun, refuse_infinite, resume
from poise.representation.settings import Stage1
from poise.values.counts import ClassCounts
from poise.values.head import Head
from poise.values.randomness import Stream, hashed, seed_for

Log = Callable[[Mapping[str, Any]], None]


class Trained(NamedTuple):
    """The result: the network in eval mode on the CPU, and its classifier as a head."""

    network: Network
    head: Head


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
    saved = begun(folder)
    bf16 = _precision(settings, place, saved)
    job = Job(backbone, feed, y, counts, settings, settings.built_loss(), rates, world or World(), place, bf16)
    known = {"settings": settings.to_dict(), "data": {**(identity or {}), "bf16": bf16}}
    run = begin(job)
    resume(job, run, folder, saved, known, allow_changed)
    saved_at = time.monotonic()
    generators = [place] if place.type == "cuda" else []
    with torch.random.fork_rng(generators), synchronised(run.network, job.world), explained():
        for stopping in _stepping(job, run, should_stop or (lambda: False), log or (lambda row: None), progress):
            over = run.step == job.all_steps
            if job.world.first and (over or stopping or time.monotonic() - saved_at >= checkpoint_seconds):
                refuse_infinite(run)
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


# --- the loop ---------------------------------------------------------------------------------------------------------


def _parts(job: Job, step: int) -> Iterator[Part]:
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
            yield Part(epoch, index, len(batch), places, partners, order[both], count / len(batch), share)


def _stepping(
    job: Job, run: Run, should_stop: Callable[[], bool], log: Log, progress: Progress | None
) -> Iterator[bool]:
    """Make one step after another; after each, say whether any process is asked to stop."""
    parts, ahead = tee(_parts(job, run.step))
    steps = (Step(p.epoch, p.rows, torch.cat([p.places, p.partners])) for p in ahead)
    clock, epoch, factors = time.perf_counter(), -1, None
    for part, images in zip(parts, job.feed.batches(steps), strict=True):
        if part.epoch != epoch:
            epoch, factors = part.epoch, _epoch_begins(job, run, part.epoch)
        torch.manual_seed(seed_for(job.settings.seed, Stream.DROPOUT, run.step, job.world.rank))
        loss, right, state = gradients(job, run, images, part, factors)
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


def _epoch_begins(job: Job, run: Run, epoch: int) -> Tensor | None:
    """Put the network and the loss into the state of an epoch; the factors of its losses by class, if it has any."""
    run.network.to_train()
    if job.loss.epoch is not None:
        run.loss_state = job.loss.epoch(run.loss_state, epoch, len(job.rates))
    factors = job.settings.class_weights(job.counts, epoch)
    return None if factors is None else factors.to(job.device)


def _epoch_ends(job: Job, run: Run, epoch: int) -> dict[str, Any]:
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


@torch.no_grad()
def _move(job: Job, run: Run, lr: float) -> None:
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
