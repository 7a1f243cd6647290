"""Is the default choice the best? `LongTailClassifier()` beside what anybody types in two lines.

Run: python benchmarks/choice.py run [--half development] [--methods auto,...] [--only WORD]
     python benchmarks/choice.py table [--half development]
     python benchmarks/choice.py invariance [--only WORD]

The sets, their halves and their splits are listed in choice_sets.py. A run writes one line per set, seed and method
to results/choice_HALF.jsonl as it goes and skips the lines that are there, so that it may be stopped at any time;
`--again` measures the methods named anew. The table is made of these lines.

Regret of a method on a set is the balanced accuracy of the one that is best there in the mean over its splits, less
its own. Its noise floor is what the best method of a set loses on a fifth split when it was chosen on the other four.
NLL and expected calibration error weight every class alike. Seconds are of fit alone.
"""

import argparse
import json
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from choice_sets import SETS, SPLITS, Array, Set, Split, split
from measuring import RESULTS

Probabilities = Callable[[Array], Array]
BEST = "logistic regression - log prior"  # what the default has to be better than


def _own(rows: Split) -> Probabilities:
    from poise import LongTailClassifier

    seen = rows.held_out is not None
    model = LongTailClassifier(seen_by_backbone=seen).fit(rows.x, rows.y, held_out=rows.held_out)
    return model.predict_proba  # type: ignore[no-any-return]


def _scaled(classifier: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), classifier)


def _logistic(rows: Split) -> Probabilities:
    from sklearn.linear_model import LogisticRegression

    model = _scaled(LogisticRegression(max_iter=2000)).fit(rows.x, rows.y)
    prior = np.log(np.bincount(rows.y) / len(rows.y))

    def uniform(x: Array) -> Array:
        logits = model.predict_log_proba(x) - prior
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(p / p.sum(axis=1, keepdims=True))

    return uniform


def _fitted(make: Callable[[], Any]) -> Callable[[Split], Probabilities]:
    """A classifier of scikit-learn's kind on standardised columns."""
    return lambda rows: _scaled(make()).fit(rows.x, rows.y).predict_proba  # type: ignore[no-any-return]


def _weighted() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=2000, class_weight="balanced")


def _discriminant(rows: Split) -> Probabilities:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    classes = int(rows.y.max()) + 1
    return _fitted(lambda: LinearDiscriminantAnalysis(priors=np.full(classes, 1 / classes)))(rows)


def _searched() -> Any:
    from sklearn.linear_model import LogisticRegressionCV

    scoring = {"class_weight": "balanced", "scoring": "balanced_accuracy"}
    return LogisticRegressionCV(Cs=6, cv=2, max_iter=500, l1_ratios=(0,), use_legacy_attributes=False, **scoring)


def _calibrated() -> Any:
    from sklearn.calibration import CalibratedClassifierCV

    return CalibratedClassifierCV(_weighted(), cv=2)


def _forest() -> Any:
    from imblearn.ensemble import BalancedRandomForestClassifier

    return BalancedRandomForestClassifier(random_state=0, sampling_strategy="all", replacement=True, bootstrap=False)


METHODS: dict[str, Callable[[Split], Probabilities]] = {
    "auto": _own,
    BEST: _logistic,
    "balanced logistic regression": _fitted(_weighted),
    "uniform-prior LDA": _discriminant,
    "balanced LogisticRegressionCV": _fitted(_searched),
    "CalibratedClassifierCV": _fitted(_calibrated),
    "BalancedRandomForest": _fitted(_forest),
}


def scored(fit: Callable[[Split], Probabilities], rows: Split) -> dict[str, float]:
    """Balanced accuracy, macro-F1, NLL and calibration error with classes alike, seconds of fit."""
    begun = time.perf_counter()
    probabilities = fit(rows)
    seconds = time.perf_counter() - begun
    p = probabilities(rows.xt)
    y, classes = rows.yt, p.shape[1]
    guess, each = p.argmax(axis=1), 1 / np.bincount(y)[y] / len(np.unique(y))
    recall = [np.mean(guess[y == k] == k) for k in range(classes)]
    f1 = [2 * np.sum((guess == k) & (y == k)) / max(1, np.sum(guess == k) + np.sum(y == k)) for k in range(classes)]
    nll = -np.log(np.clip(p[np.arange(len(y)), y], 1e-15, 1)) @ each
    top = p.max(axis=1)
    bins = np.minimum((top * 15).astype(int), 14)
    ece = sum(abs(((guess == y) - top)[bins == b] @ each[bins == b]) for b in range(15))
    found = {"balanced": np.mean(recall), "f1": np.mean(f1), "nll": nll, "ece": ece, "seconds": seconds}
    return {name: round(float(value), 6) for name, value in found.items()}


def run(half: str, methods: Iterable[str], only: str, path: Path, *, again: bool) -> None:
    """One line per set, seed and method, appended as it is measured."""
    lines = [] if not path.exists() else [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if again:
        lines = [line for line in lines if line["method"] not in methods or only not in line["set"]]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    there = {(line["set"], line["seed"], line["method"]) for line in lines}
    for one in (one for one in SETS if one.half == half and only in one.name):
        for seed in range(SPLITS):
            left = [name for name in methods if (one.name, seed, name) not in there]
            rows = split(one, seed) if left else None
            for name in left:
                assert rows is not None
                line: dict[str, Any] = {"set": one.name, "kind": one.kind, "seed": seed, "method": name}
                try:
                    line |= scored(METHODS[name], rows)
                except ValueError as error:
                    line["failed"] = str(error)[:200]
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
            if left:
                print(f"{one.name}, split {seed}: done", file=sys.stderr, flush=True)


# --- the table --------------------------------------------------------------------------------------------------------


def table(lines: list[dict[str, Any]]) -> str:
    """Means over sets, in all and by kind; regret; the paired interval of the default against its rival."""
    methods = [name for name in METHODS if any(line["method"] == name for line in lines)]
    kinds = list(dict.fromkeys(line["kind"] for line in lines))
    of_set: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        of_set[line["set"]][line["method"]].append(line.get("balanced", 0.0))
    kind_of = {line["set"]: line["kind"] for line in lines}
    regrets = {m: {s: _best(v) - float(np.mean(v[m])) for s, v in of_set.items() if m in v} for m in methods}
    out = ["| method | balanced | F1 | NLL | ECE | s | regret | failed |" + "".join(f" {k} |" for k in kinds)]
    out.append("|---|" + "---:|" * (7 + len(kinds)))
    for m in methods:
        own = [line for line in lines if line["method"] == m]
        good = [line for line in own if "failed" not in line]
        means = [np.mean([line[key] for line in good]) for key in ("balanced", "f1", "nll", "ece", "seconds")]
        values = [
            f"{100 * means[0]:.1f}",
            f"{100 * means[1]:.1f}",
            *(f"{v:.3f}" for v in means[2:4]),
            f"{means[4]:.2f}",
        ]
        values += [f"{100 * np.mean(list(regrets[m].values())):.2f}", str(len(own) - len(good))]
        values += [f"{100 * np.mean([r for s, r in regrets[m].items() if kind_of[s] == k]):.1f}" for k in kinds]
        out.append(f"| {m} | " + " | ".join(values) + " |")
    return "\n".join([*out, "", "By kind: mean regret in points.", "", _paired(of_set), _floor(of_set), ""])


def _best(values: dict[str, list[float]]) -> float:
    return max(float(np.mean(each)) for each in values.values())


def _paired(of_set: dict[str, dict[str, list[float]]]) -> str:
    gains = np.array([np.mean(v["auto"]) - np.mean(v[BEST]) for v in of_set.values() if "auto" in v and BEST in v])
    from scipy import stats

    half = stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains))
    return (
        f"auto less {BEST}: {100 * gains.mean():+.2f} points, 95 % {100 * (gains.mean() - half):+.2f} to "
        f"{100 * (gains.mean() + half):+.2f}, over {len(gains)} sets; better on {int((gains > 0).sum())}."
    )


def _floor(of_set: dict[str, dict[str, list[float]]]) -> str:
    """What is lost by choosing the method of a set on half of its splits."""
    lost = []
    for values in of_set.values():
        table_ = np.array([each for each in values.values() if len(each) == SPLITS])
        if len(table_) == 0:  # a set that is not through
            continue
        for kept in range(SPLITS):
            rest = np.delete(table_, kept, axis=1).mean(axis=1)
            lost.append(table_[:, kept].max() - table_[rest.argmax(), kept])
    return (
        f"Noise floor of the regret: {100 * np.mean(lost):.2f} points (the method chosen on four splits, on the fifth)."
    )


# --- the same rows, the same answer -----------------------------------------------------------------------------------


def flips(one: Set) -> dict[str, float]:
    """Per cent of the answers of the default that change when the rows of a split are told otherwise."""
    rows, rng = split(one, 0), np.random.default_rng(0)
    classes, dim = int(rows.y.max()) + 1, rows.x.shape[1]
    order, columns, names = rng.permutation(len(rows.y)), rng.permutation(dim), rng.permutation(classes)
    held, same = rows.held_out, np.arange(classes)

    def answers(change: Callable[[Array], Array] = lambda x: x, order: Any = slice(None), names: Any = same) -> Array:
        own = Split(
            change(rows.x)[order],
            names[rows.y][order],
            change(rows.xt),
            rows.yt,
            None if held is None else (change(held[0]), names[held[1]]),
        )
        return np.argsort(names)[_own(own)(own.xt).argmax(axis=1)]  # type: ignore[no-any-return]

    plain = answers()
    told = {
        "rows": answers(order=order),
        "columns": answers(lambda x: x[:, columns]),
        "classes": answers(names=names),
        "+ 100": answers(lambda x: x + 100),
        "x 1.0001": answers(lambda x: x * 1.0001),
        "x 1000": answers(lambda x: x * 1000),
        "float32": answers(lambda x: x.astype(np.float32)),
    }
    return {name: 100 * float(np.mean(other != plain)) for name, other in told.items()}


def invariance(only: str) -> str:
    """The flips of every set, and their median and largest."""
    found = {}
    for one in (one for one in SETS if only in one.name):
        found[one.name] = flips(one)
        print(one.name, found[one.name], file=sys.stderr, flush=True)
    kinds = list(next(iter(found.values())))
    out = ["| set | " + " | ".join(kinds) + " |", "|---|" + "---:|" * len(kinds)]
    out += [f"| {name} | " + " | ".join(f"{each[k]:.2f}" for k in kinds) + " |" for name, each in found.items()]
    for word, of in (("median", np.median), ("largest", np.max)):
        out.append(f"| **{word}** | " + " | ".join(f"{of([e[k] for e in found.values()]):.2f}" for k in kinds) + " |")
    return "\n".join(out)


def main() -> None:
    """Run, or print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table", "list", "invariance"))
    parser.add_argument("--half", choices=("development", "sealed"), default="development")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--only", default="")
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    path = RESULTS / f"choice_{given.half}.jsonl"
    if given.what == "list":
        print("\n".join(f"{one.half:12} {one.kind:11} {one.name}" for one in SETS))
    elif given.what == "invariance":
        print(invariance(given.only))
    elif given.what == "run":
        run(given.half, given.methods.split(","), given.only, path, again=given.again)
    else:
        print(table([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]))


if __name__ == "__main__":
    main()
