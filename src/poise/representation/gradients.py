"""The gradients of one step: the mean loss over its images, in pieces that fit, summed over the processes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from poise.representation.augment import normalised
from poise.representation.run import Job, Run
from poise.values.loss import draws, mass_of, with_terms


class Part(NamedTuple):
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


def gradients(job: Job, run: Run, images: Tensor, part: Part, factors: Tensor | None) -> tuple[float, float, Any]:
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


def _mean_mass(job: Job, run: Run, part: Part, y: Tensor, factors: Tensor | None) -> Tensor | float:
    """The mean, over the whole step, of what its images with these labels here count; partners are the same images."""
    mass = mass_of(job.loss, y, run.loss_state)
    if factors is not None:
        mass = factors[y] if mass is None else mass * factors[y]
    return 1.0 if mass is None else job.world.add(part.weight * mass.sum())


def _loss_state(job: Job, run: Run, part: Part, places: Tensor) -> Any:
    """The state of the loss for the images at these places; with its noise, one number per image and class.

    A mixed image has one noise, whichever of its two labels it is compared with.
    """
    if job.loss.draw is None:
        return run.loss_state
    return job.loss.draw(run.loss_state, draws(places, len(job.counts), job.settings.seed, part.epoch))


def _logits(job: Job, run: Run, images: Tensor, chunk: Tensor, part: Part) -> Tensor:
    """(n, C) float32 logits of some of the step's images, mixed with their partners if there are any."""
    settings, backbone, n = job.settings, job.backbone, len(part.places)

    def ready(pixels: Tensor) -> Tensor:
        return normalised(pixels.to(job.device), backbone.mean, backbone.std, channels_last=settings.channels_last)

    x = ready(images[chunk])
    if len(part.partners):
        x = part.share * x + (1 - part.share) * ready(images[n + chunk])
    with torch.autocast(job.device.type, torch.bfloat16, enabled=job.bf16):
        return run.network(x)  # type: ignore[no-any-return]


def _combined(job: Job, before: Any, states: list[tuple[float, Any]]) -> Any:
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
    return with_terms(before, terms)


def _add_gradients(job: Job, run: Run) -> None:
    """Gradients become those of the whole step: the sums over the processes, in one exchange."""
    gradients = [p.grad for p in run.network.trained if p.grad is not None]
    whole = job.world.add(torch.cat([g.reshape(-1) for g in gradients]))
    for gradient, piece in zip(gradients, torch.split(whole, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(piece.view(gradient.shape))
