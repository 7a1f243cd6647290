"""How long and how fast a head is trained: numbers only."""

from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

import torch
from torch import Tensor

from poise.errors import InputError
from poise.values.fields import FLAG, Kind, at_least, check_fields, list_of, number, one_of, whole

Schedule = Literal["cosine", "cosine_epoch_start", "cosine_epoch_end", "constant", "multistep"]
Precision = Literal["float32", "bfloat16"]
SamplerName = Literal["instance", "class_balanced", "class_balanced_iid", "square_root", "progressive"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Momentum SGD on cached features.

    `lr` is per step of the mean loss of a batch. `weight_decay` w adds w times the weight to its gradient (bias
    included), as torch.optim.SGD does. `scale_features` centres the features and divides them by one number, so that
    their mean squared norm is 1 and `lr` means the same everywhere; the result is folded back into the head. Where
    logits are cosines only the centre has an effect, which is the mean of the class means there and stays in the head's
    `prep`. So no unit and no origin of the features matters; without it both do, `lr` first of all. Published recipes
    are stated for raw features of one family and switch it off. The default lr and weight_decay are one choice
    for all methods, made on held-out rows of the two shipped feature sets (experiments/default_plans.py); they are a
    start for a search, not the end of one.

    `schedule`: `cosine` decays per step from lr towards 0. `cosine_epoch_end` holds lr/2 (1 + cos(pi e / epochs))
    during epoch e = 0, 1, ... (a scheduler stepped after each epoch). `cosine_epoch_start` uses e = 1, 2, ... instead
    (stepped before each epoch, as decoupling and weight balancing release it): the first epoch is already below lr and
    the last has lr 0. `multistep` multiplies lr by `milestone_factor` at each share of the epochs in `milestones`. The
    first `warmup_epochs` rise linearly, epoch by epoch, from `warmup_from` lr (not reached itself) to lr, and the
    schedule spans the rest.

    `matmul` bfloat16 rounds the factors and results of matrix products (features, weights, logits and gradients) to 8
    bits while sums within them, losses, weights and updates stay float32: two to four times as fast for wide features
    where the processor has instructions for it, much slower where it has not (benchmarks/large.py).

    Raises: InputError naming the field that is out of range.
    """

    lr: float = 3.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 2e-5
    epochs: int = 10
    batch_size: int = 128
    drop_last: bool = False
    scale_features: bool = True
    schedule: Schedule = "cosine"
    warmup_epochs: int = 0
    warmup_from: float = 0.0
    milestones: tuple[float, ...] = (0.8, 0.9)
    milestone_factor: float = 0.1
    matmul: Precision = "float32"

    def __post_init__(self) -> None:
        check_fields("plan: ", vars(self), _KINDS)
        Kind("false without momentum", lambda on: not on or self.momentum > 0).check("plan: nesterov", self.nesterov)
        longest = Kind(f"at most epochs={self.epochs}", lambda epochs: epochs <= self.epochs)
        longest.check("plan: warmup_epochs", self.warmup_epochs)

    def steps(self, rows: int) -> int:
        """Steps of an epoch of `rows` draws. Raises: InputError if `drop_last` leaves none."""
        full, rest = divmod(rows, self.batch_size)
        if self.drop_last and full == 0:
            raise InputError(f"drop_last with batch_size {self.batch_size} leaves no batch of {rows} rows; lower it")
        return full if self.drop_last or rest == 0 else full + 1


_KINDS = {
    "lr": at_least(0),
    "momentum": number("[0, 1)"),
    "nesterov": FLAG,
    "weight_decay": at_least(0),
    "epochs": whole(0),
    "batch_size": whole(1),
    "drop_last": FLAG,
    "scale_features": FLAG,
    "schedule": one_of(*get_args(Schedule)),
    "warmup_epochs": whole(0),
    "warmup_from": number("[0, 1]"),
    "milestones": list_of("shares of the epochs in [0, 1]", number("[0, 1]")),
    "milestone_factor": number("[0, 1]"),
    "matmul": one_of(*get_args(Precision)),
}


class Options(TypedDict, total=False):
    """What every trained method accepts beside its own parameters: the plan, and three choices."""

    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float
    epochs: int
    batch_size: int
    drop_last: bool
    scale_features: bool
    schedule: Schedule
    warmup_epochs: int
    warmup_from: float
    milestones: tuple[float, ...]
    milestone_factor: float
    matmul: Precision
    start: Literal["stage1", "fresh"]
    sampler: SamplerName
    images_per_visit: int


def learning_rates(plan: Plan, steps: int) -> Tensor:
    """(epochs, steps) float64 learning rate of every step.

    >>> learning_rates(Plan(lr=1.0, epochs=2, schedule="cosine_epoch_start"), 1).squeeze(-1).tolist()
    [0.5, 0.0]
    """
    epoch = torch.arange(plan.epochs, dtype=torch.float64).unsqueeze(-1)
    time = epoch + torch.arange(steps, dtype=torch.float64) / steps
    if plan.schedule != "cosine":
        time = epoch.expand_as(time) + (plan.schedule == "cosine_epoch_start")
    rest = plan.epochs - plan.warmup_epochs
    share = (time - plan.warmup_epochs) / max(rest, 1)
    rise = plan.warmup_from + (1 - plan.warmup_from) * (epoch + 1) / max(plan.warmup_epochs, 1)
    return plan.lr * torch.where(epoch < plan.warmup_epochs, rise, _decay(plan, share))


def _decay(plan: Plan, share: Tensor) -> Tensor:
    """Factor of the learning rate once `share` (0 to 1) of the epochs after the warm-up is over."""
    if plan.schedule == "constant":
        return torch.ones_like(share)
    if plan.schedule == "multistep":
        # An epoch that begins at a milestone belongs to the lower rate, whatever the rounding of the share.
        passed = torch.stack([share >= milestone - 1e-9 for milestone in plan.milestones] or [share < 0]).sum(dim=0)
        return torch.tensor(plan.milestone_factor, dtype=share.dtype) ** passed
    return (1 + torch.cos(torch.pi * share)) / 2
