"""`Record`: one evaluated head with everything that its number depends on."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Literal

from poise.results.scores import Scores

Role = Literal["baseline", "recipe", "tuned", "trial"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """How the settings of a record were chosen.

    `rule`: held_out, kfold, marginal, cross_fit, or paper (the papers' own: the best value on the test split itself).
    `rows` labelled rows with the content hash `key` were used, for `configurations` settings compared by `metric`;
    the chosen ones reached `score` there. `chosen` has one text, or one per test half for cross_fit. `edges` names the
    parameters whose best value is the last one tried. `early` of the settings were left out after a short look, as the
    `rungs` of the search say; all others were fitted and judged in full.
    """

    rule: str
    rows: int
    key: str
    metric: str
    configurations: int
    score: float
    chosen: tuple[str, ...]
    edges: tuple[str, ...] = ()
    early: int = 0
    rungs: tuple[str, ...] = ()

    def __str__(self) -> str:
        early = f", {self.early} left out early" if self.early else ""
        return f"{self.rule} ({self.rows} rows, {self.configurations} settings{early})"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A row of a result.

    `method` is the text of its Spec; `settings` holds for each of its steps all parameters, defaults included. `role`:
    the baseline, a recipe run as stated, a method with tuned settings, or one trial of a search. `train` and `test` are
    content hashes of the splits; `scores` belong to the second. `selection` says which labelled rows chose the settings
    (None: nothing was chosen). `implied_prior` is the class prior for which the softmax is meant, None if unknown.
    `loma_variation` is the coefficient of variation over classes of the Logits Magnitude on the test split, None where
    it has no value. `seconds` is the method's own time, and its equal share of a pass that trained several. `remarks`
    are the warnings on the way.
    """

    method: str
    settings: tuple[Mapping[str, Any], ...]
    role: Role
    data: str
    train: str
    test: str
    seed: int
    selection: Selection | None
    implied_prior: str | None
    transductive: bool
    scores: Scores
    loma_variation: float | None
    seconds: float
    versions: Mapping[str, str]
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON types."""
        return {**asdict(self), "scores": self.scores.to_dict()}


def versions() -> dict[str, str]:
    """Versions of everything that the numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("poise", "torch", "numpy")}}
