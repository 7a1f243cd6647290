"""Reports to test with: one with a little of everything and hostile names, and one with next to nothing."""

from typing import Any

from poise.methods import short_name
from poise.results.contents import (
    SCORES,
    Advised,
    Bins,
    Change,
    Classes,
    Closer,
    Confusion,
    Contents,
    Coverage,
    Gain,
    Named,
    Path,
    Point,
    Protocol,
    Range,
    Row,
    Size,
    Verdict,
)

HOSTILE = (
    '<img src=x onerror="alert(1)">',
    "</script><script>alert(2)</script>",
    "=1+1 %{x} <b>bold</b> <a href='javascript:alert(3)'>link</a>",
    "x" * 300,
    "line\nbreak & \"quotes\" 'single' \u202egnitsud",
    "🦉 {{ owl }} \\u003c $x$",
)
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9aw"
    "AAAABJRU5ErkJggg=="
)
COUNTS = (1000, 300, 80, 40, 9, 3)
GROUPS = ("many", "many", "medium", "medium", "few", "few")
CURVE = (0.9, 0.8, 0.7, 0.6)


def row(
    method: str, recalls: tuple[float | None, ...], gain: float | None = None, role: str = "tuned", **others: object
) -> Row:
    """A row whose group scores are the plain means of its recalls."""
    known = [value for value in recalls if value is not None]
    pairs = {name: recalls[2 * i : 2 * i + 2] for i, name in enumerate(("many", "medium", "few"))}
    means = {name: sum(value or 0 for value in pair) / 2 if None not in pair else None for name, pair in pairs.items()}
    estimates = {"all": recalls[0], "balanced": sum(known) / len(known), **means}
    values = {
        "method": method,
        "own": method,
        "family": method.partition("(")[0],
        "role": role,
        "recommended": False,
        "tied": None if role == "recipe" else False,
        "transductive": False,
        "implied_prior": "uniform",
        "selected": "",
        "edges": "",
        "seconds": 0.25,
        "scores": {
            name: None if value is None else Range(estimate=value, low=value - 0.05, high=value + 0.05)
            for name, value in estimates.items()
        },
        "macro_f1": 0.5,
        "nll": 1.5,
        "ece": 0.125,
        "loma_variation": 0.2,
        "gain": None
        if gain is None
        else Gain(estimate=gain, low=gain - 0.01, high=gain + 0.01, classes_low=gain - 0.03, classes_high=gain + 0.03),
        "per_class": recalls,
        "magnitude": {"unit": tuple(float(i) for i in range(6)), "sample": tuple(0.5 * i for i in range(6))},
        "spread": {"unit": (0.1, 0.2, None, 0.3, 0.4, 0.5)},
    }
    return Row.model_validate(values | others)


def from_flat(values: dict[str, Any]) -> Row:
    """The row whose numbers are those of a line of summary.csv."""
    names = ("gain", "gain_low", "gain_high", "gain_classes_low", "gain_classes_high")
    gain = dict(zip(Gain.model_fields, (values[name] for name in names), strict=True))
    scores = {key: values[name] for key, name in SCORES.items()}
    return Row(
        own=short_name(values["method"]),
        transductive=False,
        implied_prior=None,
        scores={key: None if value is None else Range(estimate=value) for key, value in scores.items()},
        gain=None if values["gain"] is None else Gain(**gain),
        **{name: value for name, value in values.items() if name not in (*names, *SCORES.values())},
    )


def closer(index: int, shift: float) -> Closer:
    bins = Bins(rows=(0, 40, 60), confidence=(None, 0.5, 0.9), right=(None, 0.25 + shift, 0.8))
    return Closer(
        row=index,
        norms=(2.0, 1.8, 1.5, 1.2, 0.8, 0.4),
        pull=(10.0, 8.0, 4.0, 2.0, 1.0, 0.5),
        push=(20.0, 8.0, 2.0, 2.0, 4.0, 0.0),
        reliability={"all": bins, "many": bins, "medium": None, "few": bins},
        confusions=(
            Confusion(true=4, answered=0, rows=12, share=0.6),
            Confusion(true=1, answered=2, rows=3, share=0.1),
        ),
        coverage=Coverage(
            threshold=CURVE,
            coverage=(0.25, 0.5, 0.75, 1.0),
            accuracy=(0.95, 0.9, 0.8, 0.7),
            balanced=(0.9, 0.8, 0.7, 0.6),
            kept={"many": (0.5, 0.7, 0.9, 1.0), "medium": (0.2, 0.4, 0.6, 1.0), "few": None},
        ),
        tradeoff=(
            Point(value=0.0, balanced=0.5, many=0.9, medium=0.5, few=0.1 + shift),
            Point(value=1.0, balanced=0.6, many=0.8, medium=0.6, few=0.4 + shift),
            Point(value=2.0, balanced=0.5, many=0.6, medium=0.5, few=0.5 + shift),
        ),
    )


def everything() -> Contents:
    """Six classes with hostile names, five rows, and every optional part."""
    rows = (
        row("stage1", (0.95, 0.85, 0.6, 0.4, 0.1, 0.1), role="baseline"),
        row(
            "logit_adjustment(tau=1.0)",
            (0.9, 0.8, 0.6, 0.5, 0.4, 0.4),
            0.1,
            recommended=True,
            tied=True,
            edges="tau=1.0",
            selected="balanced accuracy on held-out rows",
            magnitude={"unit": (3.0,) * 6},
            spread={"unit": (0.3,) * 6},
        ),
        row("crt", (0.85, 0.85, 0.6, 0.5, 0.4, 0.3), 0.08, tied=True),
        row("rebalance(power=1.0)", (0.8, 0.8, 0.5, 0.4, 0.3, None), 0.03, transductive=True),
        row("crt(lr=0.1)", (0.7, 0.7, 0.5, 0.5, 0.2, 0.1), role="recipe"),
    )
    return Contents(
        title="Owls & others <at night>",
        scored_on="120 test rows, read once",
        verdict=Verdict(
            decision="change",
            sentence="Change to logit_adjustment(tau=1.0): it gains +10.0 points. 2 of 4 methods are tied.",
            level=0.95,
            baseline="stage1",
            recommended="logit_adjustment(tau=1.0)",
            null="logit_adjustment(tau=1.0)",
            gain=Gain(estimate=0.1, low=0.09, high=0.11, classes_low=0.07, classes_high=0.13),
            oracle=0.7,
            gap_closed=0.5,
            tied=2,
            contenders=4,
        ),
        classes=Classes(names=HOSTILE, counts=COUNTS, scored=(20,) * 6, groups=GROUPS, edges=(100, 20)),
        rows=rows,
        paths=(
            Path(
                family="logit_adjustment",
                parameter="tau",
                rows="selection",
                selected=1.0,
                points=(
                    Point(value=0.0, balanced=0.5, many=0.9, medium=0.5, few=0.1),
                    Point(value=1.0, balanced=0.6, many=0.8, medium=0.6, few=0.4),
                ),
            ),
            Path(
                family="los",
                parameter="epoch",
                rows="test",
                selected=None,
                points=(
                    Point(value=1.0, balanced=0.4, many=0.8, medium=None, few=0.1),
                    Point(value=2.0, balanced=0.5, many=0.8, medium=None, few=0.2),
                ),
            ),
        ),
        closer=(closer(0, 0.0), closer(1, 0.1)),
        changes=(
            Change(label=4, before=0.1, after=0.4, low=0.05, high=0.5),
            Change(label=5, before=0.1, after=0.4, low=-0.1, high=0.6),
            Change(label=0, before=0.95, after=0.9, low=-0.07, high=-0.03),
        ),
        thumbnails={"4": (PIXEL,), "0": ("https://example.org/spy.png", PIXEL)},
        advice=Advised(
            sentence="Label 20 more rows of the rarest classes: about +3 points.",
            rows=20,
            label=(5, 4, 3),
            gain=(0.3, 0.2, 0.05),
            error=(0.05, 0.05, 0.02),
            head_gain=(0.1, 0.1, 0.0),
            chosen=(5, 4),
        ),
        learning_curve=(
            Size(value=0.0, balanced=0.5, many=0.9, medium=0.5, few=0.1),
            Size(value=20.0, balanced=0.65, many=0.9, medium=0.6, few=0.45),
        ),
        protocol=Protocol(
            facts=(Named(name="test rows", text="71f9e9c2a48647e2"), Named(name="seeds", text="0")),
            remarks=("Settings were chosen on held-out rows.",),
            command="poise compare owls.npz --seed 0",
        ),
    )


def fitted() -> Contents:
    """What `poise fit` writes: one method, no baseline, no test split."""
    contents = everything()
    only = contents.rows[1].model_copy(update={"tied": None, "gain": None, "edges": ""})
    told = {"decision": "fitted", "sentence": "Balanced accuracy on unseen rows: 60.0 %.", "baseline": only.method}
    nothing = dict.fromkeys(("null", "gain", "oracle", "gap_closed", "tied"))
    return contents.model_copy(
        update={
            "verdict": Verdict.model_validate(contents.verdict.model_dump() | told | nothing | {"contenders": 1}),
            "rows": (only,),
            "closer": (closer(0, 0.1),),
            "changes": (),
        }
    )


def almost_nothing() -> Contents:
    """Two classes, the baseline alone, no intervals, and no optional part."""
    only = row("stage1", (0.9, 0.5, None, None, None, None), role="baseline").model_dump()
    scores = {"all": Range(estimate=0.7), "balanced": Range(estimate=0.7), "many": None, "medium": None, "few": None}
    return Contents(
        title="Two classes",
        scored_on="10 rows",
        verdict=Verdict(
            decision="none",
            sentence="No verdict: nothing to compare with.",
            level=0.95,
            baseline="stage1",
            recommended=None,
            null=None,
            gain=None,
            oracle=None,
            gap_closed=None,
            tied=None,
            contenders=1,
        ),
        classes=Classes(names=("a", "b"), counts=(5, 4), scored=(5, 5), groups=("few", "few"), edges=(100, 20)),
        rows=(Row.model_validate(only | {"scores": scores, "per_class": (), "magnitude": {}, "spread": {}}),),
        protocol=Protocol(facts=(), remarks=(), command=None),
    )
