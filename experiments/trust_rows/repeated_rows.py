"""Rows that were memorised, and rows that occur twice."""

import numpy as np
import torch
from trust_rows.row import Array, features, fitted, row, said, short
from trust_rows.worlds import two_classes

from poise import ClassCounts, Features, Problem, compare, tune
from poise.data.bundled import load_demo


def demo(classes: int = 20) -> tuple[tuple[Array, Array], tuple[Array, Array], tuple[Array, Array]]:
    """Training (memorised), held-out and test rows of some classes of the shipped set."""
    whole = load_demo("cifar100lt_r32")
    kept = np.sort(np.random.default_rng(0).choice(100, classes, replace=False))
    assert whole.problem.held_out is not None

    def part(rows: Features) -> tuple[Array, Array]:
        y = rows.y.numpy()
        mask = np.isin(y, kept)
        return rows.x[0].numpy()[mask].astype(np.float64), np.searchsorted(kept, y[mask])

    return part(whole.problem.train), part(whole.problem.held_out), part(whole.test)


@row("memorised rows never select", "held_out = the training rows; all but one; every second", "refused")
def _held_out_is_train() -> str:
    (x, y), _, test = demo()
    parts = {"same": slice(None), "less one": slice(1, None), "half": slice(None, None, 2)}
    return "; ".join(
        f"{name}: "
        + fitted(x, y, test, seen_by_backbone=True, fit={"held_out": (x[kept], y[kept])})[:110].replace(
            "nothing said", ""
        )
        for name, kept in parts.items()
    )


@row("memorised rows never select", "rows that trained the backbone, nothing said of it", "no number, and one sentence")
def _default_on_memorised() -> str:
    (x, y), _, test = demo()
    return fitted(x, y, test)


@row("selection never sees the test split", "compare with held-out rows = test rows less one", "refused")
def _held_out_is_test() -> str:
    train, _, test = demo()
    counts = ClassCounts(torch.bincount(torch.as_tensor(train[1])))
    problem = Problem(features(train, counts, True), None, features((test[0][1:], test[1][1:]), counts, False))
    found, words = said(
        lambda: compare(["logit_adjustment", "tau_norm"], problem, features(test, counts, False), recipes=False)
    )
    return short(words) if found is None else f"{found.decision}; {short(words)}"


@row("selection never sees the training rows", "tune with held-out rows = training rows less one", "refused")
def _tune_on_train() -> str:
    train, _, _ = demo()
    counts = ClassCounts(torch.bincount(torch.as_tensor(train[1])))
    problem = Problem(features(train, counts, None), None, features((train[0][1:], train[1][1:]), counts, None))
    found, words = said(lambda: tune(["logit_adjustment(tau=0.5)", "logit_adjustment(tau=1.0)"], problem))
    return short(words) if found is None else f"chose {found.best}; {short(words)}"


@row("promised accuracy", "five copies of each row, jittered by 1e-6, labels 35 % wrong", "copies share a fold")
def _jittered_copies() -> str:
    rng = np.random.default_rng(3)
    (x, y), (xt, yt) = two_classes(rng, 60, 15), two_classes(rng, 2000, 2000)
    wrong, wrong_test = rng.random(len(y)) < 0.35, rng.random(len(yt)) < 0.35
    y, yt = np.where(wrong, 1 - y, y), np.where(wrong_test, 1 - yt, yt)
    x, xt = np.hstack([x, rng.normal(size=(len(x), 30))]), np.hstack([xt, rng.normal(size=(len(xt), 30))])
    copies = np.repeat(np.arange(len(y)), 5)
    jittered = x[copies] + 1e-6 * rng.normal(size=(len(copies), x.shape[1]))
    exact = fitted(x[copies], y[copies], (xt, yt), seen_by_backbone=False)
    return f"exact: {exact}; jittered: {fitted(jittered, y[copies], (xt, yt), seen_by_backbone=False)}"
