"""`Record`: one evaluated head with everything that its number depends on."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from poise.types import Scores

__all__ = ["Record", "versions"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """A row of a result.

    `method` is the text of its Spec; `settings` holds for each of its steps all parameters, defaults included. `train`
    and `test` are content hashes of the splits. `selected_on` says which labelled rows chose the settings (None:
    nothing was chosen). `implied_prior` is the class prior for which the softmax is meant, None if unknown.
    `loma_variation` is the coefficient of variation over classes of the Logits Magnitude on the test split. `seconds`
    is the method's own time, and its equal share of a pass that trained several. `remarks` are the warnings on the way.
    """

    method: str
    settings: tuple[Mapping[str, Any], ...]
    data: str
    train: str
    test: str
    seed: int
    selected_on: str | None
    implied_prior: str | None
    transductive: bool
    scores: Scores
    loma_variation: float
    seconds: float
    versions: Mapping[str, str]
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON types."""
        return {**asdict(self), "scores": self.scores.to_dict()}


def versions() -> dict[str, str]:
    """Versions of everything that the numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("poise", "torch", "numpy")}}
