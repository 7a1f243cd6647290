"""`Scores` of one classifier on one split, and `Interval`s of an estimate, as plain numbers."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from poise.values.notebook import html_table
from poise.values.wording import counted, percent


@dataclass(frozen=True)
class Scores:
    """Measures of one classifier on one split; fractions in [0, 1], and None where there is nothing to measure.

    `accuracy` over rows; `balanced_accuracy` over classes with at least one row; `many`, `medium`, `few`: mean recall
    of the group's classes that have rows; `per_class` recalls; `macro_f1` over classes that occur in labels or
    predictions; `nll` in nats; `ece` with 15 equal bins of the largest probability.
    """

    accuracy: float
    balanced_accuracy: float
    many: float | None
    medium: float | None
    few: float | None
    macro_f1: float
    nll: float
    ece: float
    per_class: tuple[float | None, ...]
    rows: int

    def to_dict(self) -> dict[str, Any]:
        """The same numbers as plain JSON types."""
        return {**self.__dict__, "per_class": list(self.per_class)}

    def _repr_html_(self) -> str:
        shares = ("accuracy", "balanced_accuracy", "many", "medium", "few", "macro_f1", "ece")
        lines = [(name.replace("_", " "), percent(getattr(self, name), 2)) for name in shares]
        title = f"scores on {counted(self.rows, 'row')} of {counted(len(self.per_class), 'class', 'classes')}"
        return html_table(("measure", "per cent"), [*lines, ("nll, in nats", f"{self.nll:.3f}")], title=title)


class Interval(NamedTuple):
    """An estimate with the bounds of its interval."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Does the interval lie on one side of zero?"""
        return self.low > 0 or self.high < 0
