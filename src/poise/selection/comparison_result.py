"""`Comparison`: methods with tuned settings on one test split, and a verdict that may be "keep what you have".

The test split answers three questions: does the head that was recommended without it beat what is there, which methods
cannot be told from the best, and how much of what any head could gain is gained. Recipes run as stated stand beside the
tuned rows and never enter the statistics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from poise.methods import short_name
from poise.results.contents import CSV_FIELDS, SCORES, Gain, Range, Row
from poise.results.record import Record, Role, Selection
from poise.results.scores import Interval, Scores
from poise.selection.class_rows import FEW_ROWS, ClassRows, doubtful, gaining, rows_per_class, tiny, unjudged
from poise.selection.fit_and_measure import Measured
from poise.selection.held_model import change_to, held_beside
from poise.selection.oracle import gap_closed
from poise.statistics import recalls, simultaneous_intervals
from poise.values.head import Head
from poise.values.spec import Spec
from poise.values.wording import counted, percent, signed, some

FEW = 10  # test rows per class, on average
WIDE = 0.1  # half of an interval that says little
WORTHWHILE = 0.02  # a gain that the interval should exclude before "keep" is said without reserve
CLEAR = (0.2, 2)  # recall, and test rows, that another head must get right of a class where the recommended gets none
PAPER_VERDICT = (
    "No verdict: the papers' protocol chose every setting and epoch on the test split itself; compare with held_out, "
    "kfold or cross_fit to learn what may be expected of other rows."
)


class Scorer(NamedTuple):
    """A head, and the test rows (n,) int64 that it scored; None for all of them."""

    head: Head
    rows: Tensor | None


class Tried(NamedTuple):
    """A setting of a search, and its scores on the rows that settings were chosen on."""

    spec: Spec
    scores: Scores


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Standing:
    """One row of the comparison: a method, its records (one per seed), and which test rows it gets right.

    `family` is what was asked for, `method` the setting that ran; `measured` and `records` have an entry per seed.
    `scorers` are the heads of the first seed: one, or two that score half of the test split each (cross_fit); none for
    the papers' protocol.
    """

    family: Spec
    method: str
    role: Role
    records: tuple[Record, ...]
    measured: tuple[Measured, ...]
    scorers: tuple[Scorer, ...] = ()

    def __repr__(self) -> str:
        return f"Standing({self.method!r}, role={self.role!r}, {counted(len(self.records), 'seed')})"

    @cached_property
    def correct(self) -> Tensor:
        """(N,) float64 share of the seeds that get a test row right."""
        return torch.stack([result.correct.double() for result in self.measured]).mean(dim=0)

    def mean(self, name: str) -> float | None:
        """A score averaged over seeds; None where there is nothing to measure."""
        return _mean([getattr(record.scores, name) for record in self.records])

    @property
    def loma_variation(self) -> float | None:
        """Variation over classes of the Logits Magnitude, averaged over seeds."""
        return _mean([record.loma_variation for record in self.records])

    @property
    def selection(self) -> Selection | None:
        """How its settings were chosen, None for what ran as stated."""
        return self.records[0].selection


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparison:
    """What `compare` found; all numbers are of the test split.

    `recommended` was chosen without it: the better null (tuned tau-norm or tuned logit adjustment), or the method that
    beat the null on the selection rows beyond doubt. `null` is that null. `given` tells whether the baseline was given
    or fitted. With `fitted` the recommended head is one that was made beside the comparison, for somebody who has no
    other: there is nothing to keep or to change. `held` is the method of the model written beside the comparison of a
    network's own head, which the verdict then names first. `oracle` holds the balanced accuracy of a head fitted with
    labelled rows of the same kind as the test split, if it was asked for. `tried` holds the settings of every family
    that were fitted in full; none for cross_fit and paper, whose rows of choice are those of the test split. `classes`
    has their names and rows, None if unknown.
    """

    standings: tuple[Standing, ...]
    y: Tensor
    protocol: str
    recommended: Standing | None
    null: Standing | None
    oracle: float | None
    remarks: tuple[str, ...]
    tried: Mapping[Spec, tuple[Tried, ...]] = field(default_factory=dict)
    given: bool = True
    fitted: bool = False
    held: str | None = None
    classes: ClassRows | None = None
    level: float = 0.95
    rounds: int = 2000

    def __repr__(self) -> str:
        chosen = None if self.recommended is None else self.recommended.method
        counts = f"{counted(len(self.contenders), 'method')} on {counted(len(self.y), 'test row')}"
        return f"{type(self).__name__}({counts}, recommended={chosen!r})"

    @property
    def records(self) -> list[Record]:
        """Every record with the remarks of the comparison: methods in the order given, seeds within them."""
        every = [record for standing in self.standings for record in standing.records]
        return [replace(record, remarks=(*record.remarks, *self.remarks)) for record in every]

    @property
    def baseline(self) -> Standing:
        """The stage-1 head; where there was none, plain cross-entropy with tuned settings."""
        return next(standing for standing in self.standings if standing.role == "baseline")

    @property
    def contenders(self) -> tuple[Standing, ...]:
        """The rows that enter the statistics: the baseline and the tuned ones."""
        return tuple(standing for standing in self.standings if standing.role != "recipe")

    @cached_property
    def gains(self) -> dict[str, dict[str, Interval]]:
        """Gains over the baseline by kind ("images", "classes") and family, intervals simultaneous over the methods."""
        rows = [standing for standing in self.contenders if standing.role == "tuned"]
        if not rows:
            return {"images": {}, "classes": {}}
        values = torch.stack([standing.correct - self.baseline.correct for standing in rows])
        names = [str(standing.family) for standing in rows]
        return {over: dict(zip(names, self._intervals(values, over), strict=True)) for over in ("images", "classes")}

    @cached_property
    def gain(self) -> dict[str, Interval]:
        """Gain of the recommended head over the baseline, by kind: one comparison, planned before the test was read."""
        if self.recommended is None:
            return {}
        if self.recommended is self.baseline:  # nothing is compared, so nothing is uncertain
            return dict.fromkeys(("images", "classes"), Interval(0.0, 0.0, 0.0))
        values = self._gained.unsqueeze(0)
        return {over: self._intervals(values, over)[0] for over in ("images", "classes")}

    @property
    def _gained(self) -> Tensor:
        """(N,) what the recommended head gets right more than the baseline."""
        assert self.recommended is not None
        return self.recommended.correct - self.baseline.correct

    def _intervals(
        self, values: Tensor, over: Literal["images", "classes"], kept: Tensor | slice = slice(None)
    ) -> list[Interval]:
        y = self.y[kept]
        return simultaneous_intervals(values[:, kept], y, over=over, level=self.level, rounds=self.rounds)

    @cached_property
    def rests_on(self) -> tuple[int, ...]:
        """Classes of few test rows that the gain rests on: without classes as small it would be in doubt.

        Empty where it is in doubt anyway, or holds without them. See `class_rows.tiny` for what is few.
        """
        if self.recommended is None or self.gain["images"].low <= 0:
            return ()
        few = tiny(self.y)
        kept = ~torch.isin(self.y, few)
        if bool(kept.any()) and self._intervals(self._gained.unsqueeze(0), "images", kept)[0].low > 0:
            return ()
        return gaining(self._gained, self.y, few)

    def tied(self) -> tuple[str, ...]:
        """Families that cannot be told from the best of the test split, the best first.

        The intervals are simultaneous over all pairs, so that it does not matter which one happens to be the best.
        """
        return self._tied

    @cached_property
    def _tied(self) -> tuple[str, ...]:
        rows = sorted(self.contenders, key=lambda standing: -(standing.mean("balanced_accuracy") or 0.0))
        pairs = [(i, j) for i in range(len(rows)) for j in range(i + 1, len(rows))]
        if not pairs:
            return tuple(str(standing.family) for standing in rows)
        differences = torch.stack([rows[i].correct - rows[j].correct for i, j in pairs])
        to_best = dict(zip(pairs, self._intervals(differences, "images"), strict=True))
        apart = {j for (i, j), interval in to_best.items() if i == 0 and interval.excludes_zero}
        return tuple(str(standing.family) for j, standing in enumerate(rows) if j not in apart)

    @property
    def decision(self) -> Literal["change", "keep", "none", "fitted"]:
        """Change if the recommended head beats the baseline beyond doubt, over images; none for the papers' rule.

        A gain that rests on classes of two or three test rows is no ground to change anything.
        """
        if self.recommended is None or self.fitted:
            return "none" if self.recommended is None else "fitted"
        return "change" if self.gain["images"].low > 0 and not self.rests_on else "keep"

    @property
    def gap_closed(self) -> float | None:
        """Share of the way from the baseline to the oracle that the recommended head goes; None without an oracle."""
        if self.oracle is None or self.recommended is None:
            return None
        start, reached = self.baseline.mean("balanced_accuracy"), self.recommended.mean("balanced_accuracy")
        assert start is not None
        assert reached is not None
        return gap_closed(start, reached, self.oracle)

    def verdict(self) -> str:
        """The result in words."""
        if self.recommended is None:
            return PAPER_VERDICT
        return " ".join([self._decision_in_words(), *self._rest_in_words()])

    def _decision_in_words(self) -> str:
        assert self.recommended is not None
        images, classes = self.gain["images"], self.gain["classes"]
        kind = f"{100 * self.level:g} % interval"
        doubt = (
            f"({kind} {_points(images.low)} to {_points(images.high)} over images of these classes, "
            f"{_points(classes.low)} to {_points(classes.high)} over classes of this kind)"
        )
        name = self.recommended.method
        gains, gain = "gains", _points(images.estimate)
        if gain.startswith("-"):
            gains, gain = "loses", gain[1:]
        against = "over" if gains == "gains" else "against"
        before = f"plain cross-entropy ({self.baseline.method})" if self.fitted else self.baseline.method
        gained = f"{gains} {gain} points of balanced accuracy {against} {before} {doubt}"
        if self.decision == "change":
            return f"{change_to(name, self.held)}: it {gained}."
        if self.fitted:
            return f"No classifier was there before; fitted: {name}. It {gained}."
        if self.held is not None:
            keep = held_beside(self.held, name, self.baseline.method, worse=images.high < 0)
        else:
            keep = "Keep what you have" if self.given else f"Stay with plain cross-entropy ({self.baseline.method})"
        if self.recommended is self.baseline:
            return f"{keep}: nothing was better than {name} on the rows that settings were chosen on."
        if self.rests_on:
            return (
                f"{keep} until more test rows decide: there are too few rows. That {name}, chosen without them, is "
                f"better rests on {self._few(self.rests_on)}. It {gained}."
            )
        if images.estimate > 0 and images.high > WORTHWHILE:
            return (
                f"{keep} until more test rows decide: these are too few to be sure that {name}, chosen without them, "
                f"is better. It {gained}.{self._doubt()}"
            )
        nothing = ", which may be nothing" if images.high > 0 else ""
        return f"{keep}: the head chosen without the test split, {name}, {gained}{nothing}."

    def _doubt(self) -> str:
        few = doubtful(self._gained, self.y)
        return f" Most of the doubt comes from {self._few(few)}." if few else ""

    def _few(self, classes: Sequence[int]) -> str:
        names = [self._name(k) for k in classes]
        return f"{counted(len(names), 'class', 'classes')} of fewer than {FEW_ROWS} test rows ({some(names)})"

    def _name(self, k: int) -> str:
        return f"class {k}" if self.classes is None else self.classes.names[k]

    def _never_right(self) -> list[str]:
        """The rarest class of which the recommended head gets no row right, where one that is as good does."""
        assert self.recommended is not None
        classes, rows = torch.unique(self.y, return_counts=True)
        as_good = [row for row in self.contenders if str(row.family) in self.tied() or row is self.baseline]
        most, which = torch.stack([recalls(row.correct, self.y) for row in as_good]).max(dim=0)
        clear = (recalls(self.recommended.correct, self.y) == 0) & (most >= CLEAR[0]) & (most * rows >= CLEAR[1])
        if not bool(clear.any()):
            return []
        trained = rows if self.classes is None else self.classes.trained[classes]
        k = int(torch.where(clear, trained, trained.max() + 1).argmin())
        best = as_good[int(which[k])]
        what = "the baseline" if best is self.baseline else "which cannot be told from the best"
        return [
            f"{self.recommended.method} gets no test row of {self._name(int(classes[k]))} right; {best.method}, "
            f"{what}, gets {percent(float(most[k]))} % of them."
        ]

    def _rest_in_words(self) -> list[str]:
        tied, rows = self.tied(), self.contenders
        found = [f"{len(tied)} of {len(rows)} methods cannot be told from the best on the test split."]
        if self.recommended in rows and str(self.recommended.family) not in tied:
            found.append(
                f"The {'fitted' if self.fitted else 'recommended'} head is not among them: {tied[0]} is better there, "
                "but taking it now would be selection on the test split."
            )
        if self.gap_closed is not None and self.oracle is not None and self.gap_closed > 1:
            found.append(
                f"The oracle head ({percent(self.oracle)} balanced accuracy) says nothing here: it learns from half "
                "of the labelled test rows, which are too few."
            )
        elif self.gap_closed is not None and self.oracle is not None:
            found.append(
                f"It goes {percent(self.gap_closed, 0)} % of the way from {self.baseline.method} to an oracle head "
                f"({percent(self.oracle)} balanced accuracy), which learns from half of the labelled test rows and is "
                "scored on the other half."
            )
        return [*found, *self._never_right(), *([] if self.classes is None else unjudged(self.classes, self.y))]

    def remark_on_size(self) -> str | None:
        """A remark if the test rows are too few to read much from the table; None if they will do."""
        enough = len(self.y) >= FEW * len(torch.unique(self.y))
        if enough and all((gain.high - gain.low) / 2 <= WIDE for gain in self.gains["images"].values()):
            return None
        return f"only {len(self.y)} test rows: intervals are wide; give more before reading the table"

    @property
    def _tested_on(self) -> Tensor:
        """(C,) test rows per class."""
        return rows_per_class(self.y, 0 if self.classes is None else len(self.classes.names))

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON types, the records left out."""
        return {
            "protocol": self.protocol,
            "decision": self.decision,
            "verdict": self.verdict(),
            "recommended": None if self.recommended is None else self.recommended.method,
            "null": None if self.null is None else self.null.method,
            "tied": list(self.tied()),
            "gain": {over: interval._asdict() for over, interval in self.gain.items()},
            "rests_on": [self._name(k) for k in self.rests_on],
            "not_chosen_on": [] if self.classes is None else list(self.classes.without(self.classes.chosen_on)),
            "not_tested": [] if self.classes is None else list(self.classes.without(self._tested_on)),
            "oracle": self.oracle,
            "gap_closed": self.gap_closed,
            "level": self.level,
            "remarks": list(self.remarks),
            "table": self.table(),
        }

    def table(self) -> list[dict[str, Any]]:
        """One plain row per standing, best balanced accuracy first; fractions in [0, 1], None where not known."""
        wanted = {"family", *CSV_FIELDS}
        return [{name: value for name, value in row.flat().items() if name in wanted} for row in self.rows]

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The same as values: what is known without the test rows, so no intervals of scores and nothing per class."""
        rows = [self._row(standing) for standing in self.standings]
        return tuple(sorted(rows, key=lambda row: -(row.estimate("balanced") or 0.0)))

    def _row(self, standing: Standing) -> Row:
        family, chosen, first = str(standing.family), standing.selection, standing.records[0]
        in_contest = standing.role != "recipe"
        return Row(
            method=standing.method,
            own=short_name(standing.method),
            family=family,
            role=standing.role,  # type: ignore[arg-type]
            recommended=standing is self.recommended,
            tied=(family in self.tied()) if in_contest and self.recommended is not None else None,
            transductive=first.transductive,
            implied_prior=first.implied_prior,
            selected="" if chosen is None else str(chosen),
            edges="" if chosen is None else " ".join(chosen.edges),
            seconds=sum(record.seconds for record in standing.records) / len(standing.records),
            scores={
                name: None if (found := standing.mean(score)) is None else Range(estimate=found)
                for name, score in SCORES.items()
            },
            macro_f1=standing.mean("macro_f1"),
            nll=standing.mean("nll"),
            ece=standing.mean("ece"),
            loma_variation=standing.loma_variation,
            gain=gain_of({over: found.get(family) for over, found in self.gains.items()}) if in_contest else None,
        )


def gain_of(found: Mapping[str, Interval | None]) -> Gain | None:
    """A gain from its intervals by kind, "images" and "classes"; None without them."""
    images, classes = found.get("images"), found.get("classes")
    if images is None or classes is None:
        return None
    return Gain(**images._asdict(), classes_low=classes.low, classes_high=classes.high)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _points(share: float) -> str:
    return signed(min(max(share, -1), 1))  # few classes give intervals beyond what a share can be
