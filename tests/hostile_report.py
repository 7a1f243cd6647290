"""A report of 12 classes whose names try to break every format."""

from poise.results import contents as page
from poise.results.contents import Contents

HOSTILE = (
    "<script>alert(1)</script>",
    "=HYPERLINK(\"http://x\",'go')",
    "a, \"b\"; 'c'",
    "line\nfeed\rreturn\ttab",
    "pipe | back\\slash | `tick` ``",
    "& % $ # _ { } ~ ^ \\",
    "$\\frac{1}{0}$ \x1b[31mred\u202e",
    "猫 🐈‍⬛ é",
    "x" * 300,
    "+1",
    "-1",
    "@home",
)
GROUPS = ("many", "many", "many", "medium", "medium", "medium", "medium", "few", "few", "few", "few", "few")
COUNTS = (500, 300, 101, 100, 60, 30, 20, 19, 10, 5, 1, 0)
PER_CLASS = tuple(None if k == 11 else round(0.9 - 0.07 * k, 4) for k in range(12))


def row(method: str, family: str, balanced: float, **changes: object) -> page.Row:
    """A row; unless changed, that of a tuned method."""
    found = page.Row(
        method=method,
        own=method,
        family=family,
        role="tuned",
        recommended=False,
        tied=False,
        transductive=False,
        implied_prior="uniform",
        selected="held_out (40 rows, 16 settings)",
        edges="",
        seconds=0.125,
        scores={
            "all": page.Range(estimate=0.5, low=0.45, high=0.55),
            "balanced": page.Range(estimate=balanced),
            "many": page.Range(estimate=0.7),
            "medium": page.Range(estimate=0.4),
            "few": None,
        },
        macro_f1=0.3,
        nll=1.23457,
        ece=0.06,
        loma_variation=0.5,
        gain=page.Gain(
            estimate=balanced - 0.25, low=balanced - 0.29, high=balanced - 0.21, classes_low=-0.1, classes_high=0.4
        ),
        per_class=PER_CLASS,
        magnitude={"unit": tuple(10.0 - 0.5 * k for k in range(12))},
        spread={"unit": tuple(0.3 + balanced * k for k in range(12))},
    )
    return found.model_copy(update=changes)


def looked(index: int, **changes: object) -> page.Closer:
    """A closer look at a row."""
    bins = page.Bins(rows=(0, 10, 30), confidence=(None, 0.5, 0.9), right=(None, 0.4, 0.7))
    found = page.Closer(
        row=index,
        norms=tuple(2.0 - 0.1 * k + index for k in range(12)),
        pull=tuple(10.0 - 0.5 * k for k in range(12)),
        push=(*(1.0 + k for k in range(11)), 0.0),
        reliability={"all": bins, "many": bins, "medium": None, "few": bins},
        confusions=(
            page.Confusion(true=0, answered=4, rows=7, share=0.35),
            page.Confusion(true=4, answered=0, rows=2, share=0.1),
        ),
        coverage=page.Coverage(
            threshold=(0.9, 0.5, 0.0),
            coverage=(0.2, 0.6, 1.0),
            accuracy=(0.9, 0.7, 0.5),
            balanced=(0.8, 0.6, 0.4),
            kept={"many": (0.5, 0.8, 1.0), "medium": None, "few": (0.1, 0.4, 1.0)},
        ),
        tradeoff=tuple(
            page.Point(value=v, balanced=0.4, many=0.8 - v / 4, medium=0.4, few=0.1 + v / 4) for v in (0.0, 0.5, 1.0)
        ),
    )
    return found.model_copy(update=changes)


def sample(names: tuple[str, ...] = HOSTILE, title: str = "Birds, 2026", **changes: object) -> Contents:
    """A report of 12 classes, a baseline, two tuned methods, one of them recommended, and a recipe."""
    few = page.Range(estimate=0.125, low=0.1, high=0.15)
    rows = (
        row("los(delta=0.9,lr=0.1)", "los", 0.4004, recommended=True, tied=True, edges="lr=0.1"),
        row("crt(epochs=2,lr=9.0)", "crt", 0.2496, transductive=True),
        row("stage1", "stage1", 0.25, role="baseline", gain=None, selected="", implied_prior="train"),
        row("los(delta=0.98)", "los", 0.3, role="recipe", tied=None, gain=None, selected=""),
    )
    rows = tuple(
        each.model_copy(update={"scores": {**each.scores, "few": few}}) if i < 3 else each
        for i, each in enumerate(rows)
    )
    found = Contents(
        title=title,
        scored_on="120 rows",
        verdict=page.Verdict(
            decision="change",
            sentence="Change to los(delta=0.9,lr=0.1): it gains +15.0 points.",
            level=0.95,
            baseline="stage1",
            recommended="los(delta=0.9,lr=0.1)",
            null="tau_norm(tau=0.5)",
            gain=page.Gain(estimate=0.15, low=0.11, high=0.19, classes_low=0.0, classes_high=0.3),
            oracle=0.5,
            gap_closed=0.6,
            tied=1,
            contenders=3,
        ),
        classes=page.Classes(names=names, counts=COUNTS, scored=(10,) * 12, groups=GROUPS, edges=(100, 20)),  # type: ignore[arg-type]
        rows=rows,
        paths=(
            page.Path(
                family="los",
                parameter="lr",
                rows="selection",
                selected=0.1,
                points=tuple(
                    page.Point(value=v, balanced=0.3, many=0.5, medium=0.3, few=None) for v in (0.01, 0.1, 1.0)
                ),
            ),
        ),
        closer=(looked(0), looked(2)),
        changes=tuple(
            page.Change(label=k, before=0.5, after=0.5 + d, low=d - 0.1, high=d + 0.1)
            for k, d in enumerate(0.02 * (k - 5.5) for k in range(12))
        ),
        advice=page.Advised(
            sentence="Label more.", rows=20, label=(9,), gain=(0.1,), error=(0.01,), head_gain=(0.0,), chosen=(9,)
        ),
        protocol=page.Protocol(
            facts=(
                page.Named(name="seeds", text="0, 1"),
                page.Named(name="settings", text="chosen by balanced_accuracy"),
            ),
            remarks=("a remark",),
            command="poise compare 'a b.npz' --seeds 2",
        ),
    )
    return found.model_copy(update=changes)


PLAIN = tuple(f"class {k}" for k in range(12))
