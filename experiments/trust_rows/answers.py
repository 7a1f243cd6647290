"""Targets, another class prior, intervals and verdicts."""

import copy
import subprocess
import sys

import numpy as np
import torch
from trust_rows.row import features, row, said, short
from trust_rows.worlds import balanced, gaussian

from poise import ClassCounts, LongTailClassifier, Problem


def _delivered(option: str) -> str:
    from poise.decisions.targets import Targets
    from poise.deployment.deploy import deploy

    means, worst, refused = [], [], 0
    for world in range(12):
        x, y, xt, yt = gaussian(100 + world, 8, 10, 20, 150, sep=2.2)
        rng = np.random.default_rng([9, world])
        held = np.concatenate([rng.choice(np.flatnonzero(yt == k), 20, replace=False) for k in range(8)])
        rest = np.setdiff1d(np.arange(len(yt)), held)
        counts = ClassCounts(torch.bincount(torch.as_tensor(y)))
        problem = Problem(features((x, y), counts, False), None, features((xt[held], yt[held]), counts, False))
        made, words = said(lambda p=problem: deploy(p, targets=Targets(**{option: 0.9})))
        if made is None:
            refused += 1
            continue
        model = made.model
        found = model.decide(torch.as_tensor(xt[rest])) if hasattr(model, "decide") else None
        if found is None:
            from poise.decisions.decide import decide

            found = decide(model.head(torch.as_tensor(xt[rest]).double()), model.operating)
        answer = found.label.numpy()
        right = answer == yt[rest]
        shares = [right[answer == k].mean() for k in range(8) if (answer == k).any()]
        means.append(right[answer >= 0].mean() if option != "precision" else np.mean(shares))
        worst.append(min(shares))
    if not means:
        return f"refused in {refused} of 12 worlds: {short(words)}"
    lowest = f", worst class {np.mean(worst):.2f}" * (option == "precision")
    reached = f"{sum(m >= 0.9 for m in means)} of {len(means)} worlds at 0.9 or above"
    return f"mean {np.mean(means):.3f}{lowest}; {reached}; refused in {refused} of 12"


@row("--precision 0.9", "20 held-out rows per class, 8 classes, 12 worlds", "holds with confidence, or refused")
def _precision() -> str:
    return _delivered("precision")


@row("--abstain-accuracy 0.9", "the same", "holds with confidence, or refused")
def _abstention() -> str:
    return _delivered("abstain_accuracy")


SETTINGS = (((21, 41, 51), 10, 3.0), ((22, 42, 52), 20, 2.2))  # seeds, classes, distance


@row(
    "adapt without a shift",
    "batches of 1, 20, 100, 1,000 rows; C = 10 and 20; 3 worlds, 4 draws each",
    "at most 1 point lost",
)
def _adapt_without_shift() -> str:
    return "; ".join(f"C = {c}: {_adapted(seeds, c, sep, shift=False)}" for seeds, c, sep in SETTINGS)


@row("adapt with a shift", "the same batches, priors drawn from Dirichlet(1)", "4/5 of the gain of plain EM kept")
def _adapt_with_shift() -> str:
    return "; ".join(f"C = {c}: {_adapted(seeds, c, sep, shift=True)}" for seeds, c, sep in SETTINGS)


def _adapted(seeds: tuple[int, ...], classes: int, sep: float, *, shift: bool) -> str:
    change: dict[int, list[float]] = {1: [], 20: [], 100: [], 1000: []}
    for seed in seeds:
        x, y, xt, yt = gaussian(seed, classes, 12, 50, 120, sep=sep, tests=30000, least=3)
        model, _ = said(lambda x=x, y=y: LongTailClassifier(seen_by_backbone=False).fit(x, y))
        source, probabilities = model.prior_applied_, model.predict_proba(xt)
        rng = np.random.default_rng(5)
        rows = [np.flatnonzero(yt == k) for k in range(classes)]
        for size in change:
            for _ in range(4):
                prior = rng.dirichlet(np.ones(classes)) if shift else source
                drawn = np.array([rng.choice(rows[k]) for k in rng.choice(classes, size, p=prior / prior.sum())])
                adapted, _ = said(lambda batch=xt[drawn], model=model: copy.deepcopy(model).adapt(batch))
                after = adapted.prior_applied_ if adapted is not None else source
                before, now = (
                    np.average(p.argmax(axis=1) == yt, weights=prior[yt])
                    for p in (probabilities, probabilities * (after / source))
                )
                change[size].append(100 * (now - before))
    return ", ".join(f"{np.mean(each):+.1f}" for each in change.values()) + " points"


@row("adapt", "5 rows of the largest class", "the tail is not predicted for all, nor never")
def _adapt_five() -> str:
    x, y, xt, yt = gaussian(21, 10, 12, 50, 120, sep=3.0, tests=30000, least=3)
    model, _ = said(lambda: LongTailClassifier(seen_by_backbone=False).fit(x, y))
    largest = int(np.bincount(y).argmax())
    before = balanced(model.predict(xt), yt)
    drawn = xt[yt == largest][:5]
    _, words = said(lambda: model.adapt(drawn))
    return f"balanced accuracy {before:.3f}, after {balanced(model.predict(xt), yt):.3f}; {short(words)}"


BBSE = """
import warnings, torch
from poise.priors import estimate_prior
torch.manual_seed(0)
source, z = torch.full((4,), .25, dtype=torch.float64), torch.randn(20, 4)
y, same = torch.arange(20) % 4, torch.eye(4)[torch.zeros(20, dtype=torch.long)]
held = {"empty": (z[:0], y[:0]), "constant": (same, y), "nan": (z, y)}
rows = {"empty": z, "constant": same, "nan": z * float("nan")}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        found = estimate_prior(rows["KIND"], source, method="bbse", held_out=held["KIND"])
        print([round(v, 2) for v in found.tolist()], *(str(w.message)[:90] for w in caught))
    except ValueError as error:
        print("refused:", str(error)[:90])
"""


@row(
    "label shift by the confusion matrix",
    "no held-out row; a constant predictor; NaN",
    "refused; source, said; refused",
)
def _confusion() -> str:
    found = []
    for kind in ("empty", "constant", "nan"):
        ran = subprocess.run(
            [sys.executable, "-c", BBSE.replace("KIND", kind)], capture_output=True, text=True, check=False
        )
        last = (ran.stderr.strip().splitlines() or ["died"])[-1]
        found.append(f"{kind}: {ran.stdout.strip() if ran.returncode == 0 else f'exit {ran.returncode}, {last[:60]}'}")
    return "; ".join(found).replace("|", "/")


@row(
    "verdict's false alarms",
    "the head pays, tiny classes gain, net gain 0: [2]+[100]x4, [3]+[50]x9, [1,1]+[50]x8",
    "<= 5 %",
)
def _alarms() -> str:
    from scipy import stats

    from poise.statistics import simultaneous_intervals

    found, rng = [], np.random.default_rng(7)
    for sizes in ([2] + [100] * 4, [3] + [50] * 9, [1, 1] + [50] * 8):
        classes = len(sizes)
        y = np.repeat(np.arange(classes), sizes)
        before, after = np.full(classes, 0.6), np.full(classes, 0.6 - 0.6 / (classes - 1))
        before[0], after[0] = 0.2, 0.8
        alarmed = covered = 0
        for _ in range(400):
            one = rng.normal(size=len(y))
            two = 0.6 * one + 0.8 * rng.normal(size=len(y))
            gain = (one < stats.norm.ppf(after)[y]).astype(float) - (two < stats.norm.ppf(before)[y])
            interval = simultaneous_intervals(torch.tensor(gain)[None], torch.tensor(y), rounds=400)[0]
            alarmed += interval.low > 1e-12
            covered += interval.low - 1e-12 <= (after - before).mean() <= interval.high + 1e-12
        found.append(f"alarms {100 * alarmed / 400:.1f} %, covers {covered / 400:.2f}")
    return "; ".join(found)


@row("accuracy interval", "chance .98 of each of 10 x 10 rows, 300 worlds", "covers 95 %, never zero width")
def _near_one() -> str:
    from poise.statistics import simultaneous_intervals

    rng, covered, flat = np.random.default_rng(7), 0, 0
    y = torch.arange(10).repeat_interleave(10)
    for _ in range(300):
        right = torch.tensor((rng.random(100) < 0.98).astype(float))
        interval = simultaneous_intervals(right[None], y, rounds=400)[0]
        covered += interval.low - 1e-9 <= 0.98 <= interval.high + 1e-9
        flat += interval.high == interval.low
    return f"covers {covered / 300:.2f}, zero width in {100 * flat / 300:.0f} %"
