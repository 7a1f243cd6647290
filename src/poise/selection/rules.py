"""What a choice goes by, as values: the rows that judge, the metric, and what is tried beside whatever is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from poise.values.checks import check_one_of
from poise.values.spec import Spec

Rule = Literal["held_out", "kfold"]
Protocol = Literal["held_out", "kfold", "cross_fit", "paper"]
METRICS = ("balanced_accuracy", "accuracy", "macro_f1", "many", "medium", "few")
FOLDS = 5

BASELINE = Spec("stage1")
NULLS = (Spec("tau_norm"), Spec("logit_adjustment"))  # need no training: what does has to be better than these
PLAIN = Spec("converged") + Spec("logit_adjustment")  # two lines that anybody types; run beside whatever is asked for
FIRST = Spec("ce", start="fresh")  # what becomes the stage-1 head where there is none, with tuned settings


@dataclass(frozen=True, kw_only=True, eq=False)
class Judging:
    """How settings are judged: the rule, what decides, and the seed of heads and folds; see `tune`.

    `folds` and `groups` belong to kfold, and so does `first`, which makes the stage-1 head of every fold: `ce` with its
    default plan if it is None.

    Raises: InputError for a rule or a metric that does not exist.
    """

    select: Rule = "held_out"
    metric: str = "balanced_accuracy"
    seed: int = 0
    folds: int = FOLDS
    groups: Tensor | Sequence[object] | None = None
    first: Spec | None = None

    def __post_init__(self) -> None:
        check_one_of("metric", self.metric, METRICS)
        check_one_of("selection", self.select, ("held_out", "kfold"))


USUAL = Judging()
