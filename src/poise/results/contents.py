"""`Contents`: everything that a report shows, as plain values; report.json holds it, and every format is made of it.

All numbers are fractions in [0, 1] unless said otherwise, lists are per class in the order of `classes`, and None
stands where there is nothing to measure. Values are rounded to six significant digits when they are written.
"""

from pathlib import Path as File
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from poise.errors import InputError
from poise.machine.documents import COMPACT, Document, to_json
from poise.results.consistency import contradictions

if TYPE_CHECKING:
    from poise.results.scores import Scores

SCHEMA = 1
GROUPS = ("many", "medium", "few")
PerClass = tuple[float | None, ...]
# The scores of a row, and what each is called where there is no room for an explanation.
SCORES = MappingProxyType(
    {"all": "accuracy", "balanced": "balanced_accuracy", "many": "many", "medium": "medium", "few": "few"}
)
CSV_FIELDS = (
    "method",
    "role",
    "selected",
    *SCORES.values(),
    "macro_f1",
    "nll",
    "ece",
    "gain",
    "gain_low",
    "gain_high",
    "gain_classes_low",
    "gain_classes_high",
    "tied",
    "recommended",
    "edges",
    "loma_variation",
    "seconds",
)


class Value(BaseModel):
    """A frozen value without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Range(Value):
    """An estimate with the bounds of its interval; the bounds are None where no interval was made."""

    estimate: float
    low: float | None = None
    high: float | None = None

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval; None without one."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


class Gain(Range):
    """A difference to the baseline, over images, with the bounds over classes beside them."""

    classes_low: float
    classes_high: float


class Verdict(Value):
    """The result in words and numbers. `null` is the better of the two one-scalar methods.

    `decision` "none" is that of the papers' protocol, "fitted" that of a model where no other was there before.
    """

    decision: Literal["change", "keep", "none", "fitted"]
    sentence: str
    level: float
    baseline: str
    recommended: str | None
    null: str | None
    gain: Gain | None
    oracle: float | None
    gap_closed: float | None
    tied: int | None
    contenders: int


class Classes(Value):
    """The classes: training counts, rows that were scored, and the group of each."""

    names: tuple[str, ...]
    counts: tuple[int, ...]
    scored: tuple[int, ...]
    groups: tuple[Literal["many", "medium", "few"], ...]
    edges: tuple[int, int]  # many: more than the first; few: fewer than the second


class Row(Value):
    """One method. `own` is its text with its own parameters only; `scores` has all, balanced, many, medium and few.

    `magnitude` and `spread` are Logits Magnitude and Regularized Std by reading ("unit", "sample"); empty where left
    out. `per_class` are recalls, empty where left out.
    """

    method: str
    own: str
    family: str
    role: Literal["baseline", "tuned", "recipe"]
    recommended: bool
    tied: bool | None
    transductive: bool
    implied_prior: str | None
    selected: str
    edges: str
    seconds: float
    scores: dict[str, Range | None]
    macro_f1: float | None
    nll: float | None
    ece: float | None
    loma_variation: float | None
    gain: Gain | None
    per_class: PerClass = ()
    magnitude: dict[str, PerClass] = {}
    spread: dict[str, PerClass] = {}

    def estimate(self, score: str) -> float | None:
        """One of its `scores` without the interval; None where there is nothing to measure."""
        found = self.scores.get(score)
        return None if found is None else found.estimate

    def flat(self) -> dict[str, Any]:
        """The row as plain values by name, bounds beside their estimates: a line of a CSV; lists per class left out."""
        return {
            "method": self.method,
            "family": self.family,
            "role": self.role,
            "selected": self.selected,
            **{key: value for score, name in SCORES.items() for key, value in _flat(name, self.scores.get(score))},
            "macro_f1": self.macro_f1,
            "nll": self.nll,
            "ece": self.ece,
            **dict(_flat("gain", self.gain)),
            "gain_classes_low": None if self.gain is None else self.gain.classes_low,
            "gain_classes_high": None if self.gain is None else self.gain.classes_high,
            "tied": self.tied,
            "recommended": self.recommended,
            "transductive": self.transductive,
            "implied_prior": self.implied_prior,
            "edges": self.edges,
            "loma_variation": self.loma_variation,
            "seconds": self.seconds,
        }


def _flat(name: str, found: Range | None) -> tuple[tuple[str, float | None], ...]:
    low, high, estimate = (None,) * 3 if found is None else (found.low, found.high, found.estimate)
    return (name, estimate), (f"{name}_low", low), (f"{name}_high", high)


class Point(Value):
    """Scores at one value of a path or of a trade-off."""

    value: float
    balanced: float
    many: float | None
    medium: float | None
    few: float | None

    @classmethod
    def of(cls, value: float, scores: "Scores") -> Self:
        """What the scores of a head say at that value."""
        groups = {name: getattr(scores, name) for name in GROUPS}
        return cls(value=value, balanced=scores.balanced_accuracy, **groups)


Where = Literal["selection", "test"]


class Path(Value):
    """The scores of a method along one of its numbers, or over epochs; `selected` is the value that was taken.

    `rows` says which rows were scored: "selection" are those that settings were chosen on, "test" for looking only.
    """

    family: str
    parameter: str
    rows: Where
    selected: float | None
    points: tuple[Point, ...]


class Bins(Value):
    """Rows by confidence: how many in each of the equal bins, mean confidence and share right; None in empty bins."""

    rows: tuple[int, ...]
    confidence: PerClass
    right: PerClass


class Confusion(Value):
    """`rows` rows of class `true` (an index) were answered as class `answered`: the share of its scored rows."""

    true: int
    answered: int
    rows: int
    share: float


class Coverage(Value):
    """What answering only above a confidence gives: points by falling threshold; `kept` is the coverage by group."""

    threshold: tuple[float, ...]
    coverage: tuple[float, ...]
    accuracy: tuple[float, ...]
    balanced: tuple[float, ...]
    kept: dict[str, tuple[float, ...] | None]


class Closer(Value):
    """One method looked at more closely; `row` is its index in `Contents.rows`.

    `norms`: of the weight rows. `pull` and `push`: GALA's accumulated gradients of a class, from rows of its own and
    from all others. `reliability` by "all", many, medium, few. `tradeoff`: the scores when logits are shifted by
    -value * log prior; at 0 the head is as it is. `confusions`: the most frequent ones.
    """

    row: int
    norms: PerClass
    pull: PerClass
    push: PerClass
    reliability: dict[str, Bins | None]
    confusions: tuple[Confusion, ...]
    coverage: Coverage | None
    tradeoff: tuple[Point, ...]


class Change(Value):
    """The recall of a class (an index), baseline and recommended head; `error` is that of the difference."""

    label: int
    before: float
    after: float
    error: float


class Advised(Value):
    """What more labelled rows would give: the advice in words, and classes by falling gain with standard errors."""

    sentence: str
    rows: int
    label: tuple[int, ...]
    gain: tuple[float, ...]
    error: tuple[float, ...]
    head_gain: tuple[float, ...]
    chosen: tuple[int, ...]


class Size(Point):
    """Scores of a head trained with `value` more labelled rows per class."""


class Named(Value):
    """Something said under a name."""

    name: str
    text: str


class Protocol(Value):
    """What a reader must know to trust or repeat the result. `command` repeats the run."""

    facts: tuple[Named, ...]
    remarks: tuple[str, ...]
    command: str | None


class Contents(Value):
    """A report. Where something was not made, its field is empty or None, and the report leaves the part out.

    `scored_on` says in a few words what rows the scores belong to. `thumbnails`: data URIs of some training images per
    class, by the index of the class as text.
    """

    format: Literal["poise.report"] = "poise.report"
    schema_version: int = SCHEMA
    title: str
    scored_on: str
    verdict: Verdict
    classes: Classes
    rows: tuple[Row, ...]
    paths: tuple[Path, ...] = ()
    closer: tuple[Closer, ...] = ()
    changes: tuple[Change, ...] = ()
    thumbnails: dict[str, tuple[str, ...]] = {}
    advice: Advised | None = None
    learning_curve: tuple[Size, ...] = ()
    protocol: Protocol

    def to_json(self) -> str:
        """The text of report.json."""
        return to_json(_rounded(self.model_dump(mode="json")), "the report", COMPACT)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


WRITERS = "`poise compare`, `demo`, `audit` and `fit` write one"
DOCUMENT = Document("poise.report", "report", SCHEMA, WRITERS, {}, COMPACT, "schema_version")


def read(path: File) -> Contents:
    """The report of a report.json. Raises: InputError if it is something else, or was written by a newer version."""
    data = DOCUMENT.read(path)
    try:
        found = Contents.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {place}: {first['msg']}; run the command that wrote it again") from None
    if (amiss := next(contradictions(found), None)) is not None:
        raise InputError(f"{path}: {amiss}; run the command that wrote it again")
    return found
