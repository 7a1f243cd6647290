"""How a representation is trained: the settings of stage 1, as one frozen value."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from poise.errors import InputError
from poise.heads.plan import Plan, SamplerName, Schedule, learning_rates
from poise.losses import LOSSES, class_balanced_weights, gala, gcl
from poise.sampling import ClassAware, Sampler, class_balanced_iid, instance, progressive, square_root
from poise.values.checks import is_number, is_whole
from poise.values.counts import ClassCounts
from poise.values.fields import FLAG, Kind, at_least, check_fields, number, one_of, optional, whole
from poise.values.loss import Loss
from poise.values.spec import Spec
from poise.values.wording import near

Trained = Literal["all", "last_block", "head"]
Precision = Literal["auto", "bf16", "float32"]
STAGE1_LOSSES: dict[str, Callable[..., Loss]] = {**LOSSES, "gala": gala, "gcl": gcl}


@dataclass(frozen=True, kw_only=True)
class Stage1:
    """Momentum SGD on images, from a fresh or pretrained backbone, with any sampler and any loss of the core.

    `lr` to `milestone_factor` mean what they mean in `Plan`; weight decay w adds w times the value to the gradient of
    every trained parameter, biases and normalisation included. `lr_batch_size` states the batch for which `lr` was
    chosen: with another `batch_size`, lr is scaled in proportion (Kang et al., released code, advise so).

    `loss` is a loss and its parameters, such as "cross_entropy", "los(delta=0.1)" (label smoothing) or
    "gala(lambda_pos=1.2)". `deferred` is the share of the epochs after which losses are also weighted by class
    (class-balanced weights, beta `deferred_beta`): deferred re-weighting, 0.8 in LDAM's release. A step then divides by
    the sum of the weights of its images, as torch's weighted cross-entropy does. "ldam" and "gcl" belong to the head
    "cosine" of the same scale.

    `augment` are the augmentations of `poise.representation.augment` (small images, whole batches) or
    `poise.representation.augment.photographs` (photographs, one by one), in order. `mixup` is the alpha of the Beta
    distribution, 0 for none. `ema` is the decay of an exponential moving average of the weights, which is then what is
    kept; 0 for none.

    `trained`: all parameters, the last block and the head, or the head alone; `backbone_lr` multiplies lr for what is
    trained of the backbone. Frozen normalisation layers keep their statistics (`frozen_statistics=True`); the papers'
    released code lets them drift (False).

    `accumulate` divides each batch into that many parts whose gradients add up; normalisation then sees the parts.
    `precision` auto is bfloat16 autocast where the machine multiplies in it, else float32; a run that was begun goes on
    in what was chosen then. Everything random follows from `seed`.

    Raises: InputError naming the field that is out of range, or fields that do not go together.
    """

    loss: str = "cross_entropy"
    augment: tuple[str, ...] = ("crop", "flip")
    sampler: SamplerName = "instance"
    images_per_visit: int = 4
    head: str = "linear"
    epochs: int = 200
    batch_size: int = 128
    drop_last: bool = False
    lr: float = 0.1
    lr_batch_size: int | None = None
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Schedule = "cosine"
    warmup_epochs: int = 5
    warmup_from: float = 0.0
    milestones: tuple[float, ...] = (0.8, 0.9)
    milestone_factor: float = 0.1
    mixup: float = 0.0
    ema: float = 0.0
    deferred: float | None = None
    deferred_beta: float = 0.9999
    trained: Trained = "all"
    backbone_lr: float = 1.0
    frozen_statistics: bool = True
    accumulate: int = 1
    precision: Precision = "auto"
    channels_last: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("augment", "milestones"):
            given = A_LIST.check(f"stage 1: {name}", getattr(self, name), "; put it into a list")
            object.__setattr__(self, name, tuple(given))
        check_fields("stage 1: ", vars(self), _KINDS)
        parts = Kind("a whole number from 1 to batch_size", lambda n: is_whole(n) and 1 <= n <= self.batch_size)
        parts.check("stage 1: accumulate", self.accumulate)
        longest = Kind(f"at most epochs={self.epochs}", lambda n: not is_whole(n) or n <= self.epochs)
        longest.check("stage 1: warmup_epochs", self.warmup_epochs, "; lower it together with stage1.epochs")
        _, loss = self.plan, self.built_loss()  # each refuses what it cannot use
        _refuse_other_scale(self.loss, self.head, self.cosine_scale())
        if self.deferred is not None:
            _refuse_weights_twice(self.loss, loss)

    @property
    def scaled_lr(self) -> float:
        """The learning rate at this batch size."""
        return self.lr if self.lr_batch_size is None else self.lr * self.batch_size / self.lr_batch_size

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences about settings that say something else than they seem to."""
        if self.scaled_lr == self.lr:
            return ()
        return (
            f"lr {self.lr:g} is stated for batches of {self.lr_batch_size}; with batches of {self.batch_size} it is "
            f"{self.scaled_lr:g}",
        )

    @property
    def plan(self) -> Plan:
        """The numbers that a schedule needs."""
        shared = {f.name for f in fields(Plan)} & {f.name for f in fields(self)} - {"lr"}
        return Plan(**{name: getattr(self, name) for name in shared}, lr=self.scaled_lr, scale_features=False)

    def learning_rates(self, rows: int) -> list[list[float]]:
        """(epochs, steps) learning rate of every step for a training set of `rows` images."""
        return learning_rates(self.plan, self.plan.steps(rows)).tolist()

    def built_loss(self) -> Loss:
        """The loss. Raises: InputError for an unknown name or parameter."""
        spec = Spec.parse(self.loss)
        if len(spec.steps) > 1 or spec.name not in STAGE1_LOSSES:
            raise InputError(f"stage 1: there is no loss {self.loss!r}{near(spec.name, list(STAGE1_LOSSES))}")
        try:
            return STAGE1_LOSSES[spec.name](**dict(spec.params))
        except TypeError as error:
            raise InputError(f"stage 1: loss {self.loss!r}: {error}") from error

    def cosine_scale(self) -> float | None:
        """Scale of a cosine head; None for a linear one. Raises: InputError for another head."""
        spec = Spec.parse(self.head)
        params = dict(spec.params)
        if spec.name == "linear" and not params:
            return None
        scale = params.pop("scale", 30.0)
        if spec.name != "cosine" or params or not is_number(scale) or scale <= 0:
            raise InputError(f"stage 1: head must be 'linear' or 'cosine(scale=30.0)', got {self.head!r}")
        return float(scale)

    def row_order(self, y: Tensor, counts: ClassCounts, epoch: int) -> Tensor:
        """(N,) rows of an epoch, in order; a function of the seed and the epoch alone."""
        samplers: dict[str, Sampler] = {
            "instance": instance,
            "class_balanced": ClassAware(self.images_per_visit),
            "class_balanced_iid": class_balanced_iid,
            "square_root": square_root,
            "progressive": progressive,
        }
        return samplers[self.sampler](y, counts, epoch, self.epochs, self.seed)

    def class_weights(self, counts: ClassCounts, epoch: int) -> Tensor | None:
        """(C,) float32 factors of the losses in this epoch; None where losses stay as they are."""
        if self.deferred is None or epoch < self.deferred * self.epochs:
            return None
        return class_balanced_weights(counts, self.deferred_beta).to(torch.float32)

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON types."""
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in asdict(self).items()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs between the settings of a run that was begun and those it is to go on with: key -> (before, now).

    Both as `Stage1.to_dict` gives them. A key that an older version did not know had its default. Precision "auto" is
    whatever was chosen at the start.
    """
    usual = Stage1().to_dict()
    pairs = {key: (before.get(key, usual.get(key)), now.get(key, usual.get(key))) for key in {**before, **now}}
    return {
        key: pair
        for key, pair in sorted(pairs.items())
        if pair[0] != pair[1] and (key, pair[1]) != ("precision", "auto")
    }


def _refuse_other_scale(loss: str, head: str, scale: float | None) -> None:
    """Raises: InputError for margins on logits that are no cosines, or cosines of another scale."""
    spec = Spec.parse(loss)
    if spec.name not in ("ldam", "gcl"):
        return
    meant = dict(spec.params).get("scale", 30.0)
    if scale != meant:
        raise InputError(
            f"stage 1: loss {loss!r} is for cosines of scale {meant:g}, head is {head!r}; use head "
            f"'cosine(scale={meant})', or state the scale of the head in the loss"
        )


def _refuse_weights_twice(text: str, loss: Loss) -> None:
    """Raises: InputError for a loss that weights by class itself, now or later."""
    state = loss.init(ClassCounts(torch.tensor([2, 1])))
    if getattr(state, "weight", None) is not None:
        raise InputError(
            f"stage 1: loss {text!r} weights by class itself, and deferred would weight by class again; leave deferred "
            "out, or use a loss without weights (ldam without drw, cross_entropy)"
        )


A_LIST = Kind("a list", lambda value: isinstance(value, tuple | list))
# `Plan` checks the fields that it shares.
_KINDS = {
    "images_per_visit": whole(1),
    "epochs": whole(1),
    "lr_batch_size": optional(whole(1)),
    "mixup": at_least(0),
    "ema": number("[0, 1)"),
    "deferred": optional(number("[0, 1]")),
    "deferred_beta": number("[0, 1)"),
    "trained": one_of(*get_args(Trained)),
    "backbone_lr": at_least(0),
    "batch_size": whole(1),
    "precision": one_of(*get_args(Precision)),
    "frozen_statistics": FLAG,
    "channels_last": FLAG,
    "seed": Kind("a whole number, 0 or more, below 2^63", lambda seed: is_whole(seed) and 0 <= seed < 2**63),
    "sampler": one_of(*get_args(SamplerName)),
}
