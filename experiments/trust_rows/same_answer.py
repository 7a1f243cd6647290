"""The same answer for the same rows."""

import numpy as np
from trust_rows.row import Array, row, said, short
from trust_rows.worlds import balanced, gaussian, separated, two_line_baseline, wine

from poise import LongTailClassifier


@row(
    "neither chance nor the order of rows",
    "rows and columns permuted, classes renamed, x 1.0001, + 100, float32, turned signs (2 sets)",
    "the same answer",
)
def _invariance() -> str:
    found = []
    for x, y, xt, _ in (gaussian(11, 6, 8, 50, 100, sep=2.2, tests=4000), gaussian(12, 10, 12, 100, 120, sep=2.2)):
        classes, rng = int(y.max()) + 1, np.random.default_rng(0)
        rows, columns, names = rng.permutation(len(y)), rng.permutation(x.shape[1]), rng.permutation(classes)
        plain = np.argsort(names)
        base = _answers(x, y, xt)
        flips = {
            "rows": _answers(x[rows], y[rows], xt),
            "columns": _answers(x[:, columns], y, xt[:, columns]),
            "classes": plain[_answers(x, names[y], xt)],
            "x 1.0001": _answers(x * 1.0001, y, xt * 1.0001),
            "+ 100": _answers(x + 100, y, xt + 100),
            "float32": _answers(x.astype(np.float32), y, xt.astype(np.float32)),
            "signs": _answers(-x, y, -xt),
        }
        found.append(", ".join(f"{name} {100 * np.mean(answer != base):.1f}" for name, answer in flips.items()))
    return "flips in %: " + "; ".join(found)


def _answers(x: Array, y: Array, xt: Array) -> Array:
    model, _ = said(lambda: LongTailClassifier(seen_by_backbone=False).fit(x, y))
    return model.predict(xt)


@row('scale "does not matter"', "wine at imbalance 15, raw columns and standardised", "the same")
def _scale() -> str:
    from sklearn.preprocessing import StandardScaler

    x, y, xt, yt = wine()
    scaler = StandardScaler().fit(x)
    raw, scaled = (
        balanced(_answers(*rows), yt) for rows in ((x, y, xt), (scaler.transform(x), y, scaler.transform(xt)))
    )
    return f"raw {raw:.3f}, standardised {scaled:.3f}, two lines {balanced(two_line_baseline(x, y)(xt), yt):.3f}"


@row(
    "probabilities in any unit", "features x 1e-3, 1, 100, 1e4; accuracy and NLL of each method", "the same four times"
)
def _units() -> str:
    from sklearn.metrics import log_loss

    x, y, xt, yt = separated((600, 120, 30), 1.5)
    found = []
    for method in (
        "ncm(transform='raw')",
        "ncm",
        "lda",
        "balanced_softmax",
        "converged",
        "tau_norm",
        "l2_norm",
        "auto",
    ):
        each = []
        for unit in (1e-3, 1.0, 100.0, 1e4):
            model, _ = said(lambda u=unit, m=method: LongTailClassifier(method=m, seen_by_backbone=False).fit(x * u, y))
            p = model.predict_proba(xt * unit)
            each.append(f"{(p.argmax(1) == yt).mean():.2f}/{log_loss(yt, np.clip(p, 1e-300, 1)):.2f}")
        found.append(f"{method} {' '.join(each) if len(set(each)) > 1 else each[0]}")
    return ", ".join(found)


@row(
    "weights are copies",
    "tail copied until balanced, or weighted so; recall of the three classes",
    "the same three times",
)
def _copies() -> str:
    x, y, xt, yt = separated((600, 60, 6), 2.5)
    repeated = np.repeat(np.arange(len(y)), np.array([1, 10, 100])[y])
    found = []
    for method in ("crt", "lws", "gala", "balanced_softmax", "class_balanced", "lda", "converged"):
        each = []
        for rows, weight in ((slice(None), None), (repeated, None), (slice(None), np.array([1.0, 10, 100])[y])):
            model, words = said(
                lambda r=rows, w=weight, m=method: LongTailClassifier(method=m, seen_by_backbone=False).fit(
                    x[r], y[r], sample_weight=w
                )
            )
            if model is None:
                each.append(short(words, 40))
                continue
            guess = model.predict(xt)
            each.append(" ".join(f"{np.mean(guess[yt == k] == k):.2f}" for k in range(3)))
        found.append(f"{method} {', '.join(each)}")
    return "; ".join(found)


@row("cosine, ldam at their defaults", "three separated classes of 600, 60, 6 rows; recall", "no class at 0, or said")
def _centred() -> str:
    x, y, xt, yt = separated((600, 60, 6), 2.5)
    found = []
    for method in ("cosine", "cosine(scale_features=False)", "ldam", "ldam(scale_features=False)"):
        model, words = said(lambda m=method: LongTailClassifier(method=m, seen_by_backbone=False).fit(x, y))
        guess = model.predict(xt)
        recall = " ".join(f"{np.mean(guess[yt == k] == k):.2f}" for k in range(3))
        found.append(f"{method} {recall}{' ' + short(words, 60) if words else ''}")
    return "; ".join(found)
