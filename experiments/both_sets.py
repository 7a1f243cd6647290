"""What findings.py leaves out: both feature sets side by side, and why label over-smoothing works on memorised rows.

The set with a stored augmented view appears twice: trained on that view, as Poise does, and on the test-time view.

Run: POISE_DATA=DATA python experiments/both_sets.py [--rows hand|shipped] [--out experiments/results] [--threads N]
[--quick]

Writes both_sets.json and both_sets.md (or both_sets_shipped, see findings.py). Accuracy on the test rows is read by
design: these are curves and published recipes, not selections; where a number was selected on held-out rows, it says
so. A claimed number comes from the findings page that was written before the code, and agrees if it is within its
tolerance (0.3 points unless stated).
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

# As the command line does: threads that spin while they wait disturb each other on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from claims import CLAIMS, CLAIMS_AUGMENTED
from findings import ADJUSTMENTS, NOISE, RAW, SEED, TAUS, TS, accuracy, grid, heads_of, rescaled
from hand_made import AUGMENTED, PLAIN, add_rows, load, suffix
from torch import Tensor

from poise import Retrain, fit_heads, metrics
from poise.data.bundled import DemoSet
from poise.machine.atomic import write_atomically
from poise.methods import from_spec
from poise.methods.posthoc import log_mean_softmax
from poise.methods.published import published
from poise.results.record import versions
from poise.values.features import Features
from poise.values.head import Head
from poise.values.spec import Spec

TEST_TIME = f"{PLAIN}, test-time view"
LOS = dict(published("los")[0].spec.params)
BALANCING = dict(published("weight_balancing")[0].spec.params)
# One ordinary recipe on raw features for the rows whose recipe the findings page does not state.
ORDINARY: dict[str, Any] = {**RAW, "lr": 0.1, "weight_decay": 5e-4, "epochs": 10}
DRAWS = 200
LISTED = 10  # epochs of a path that are written out


class Cell(NamedTuple):
    """A measured number, and what is worth saying beside it."""

    value: float
    remark: str = ""


Part = Callable[[DemoSet], dict[str, Cell]]


# --- shared measurements ----------------------------------------------------------------------------------------------


def groups(head: Head, features: Features) -> Cell:
    """Accuracy, and that of the many, medium and few classes."""
    s = metrics.evaluate_head(head, features)
    return Cell(100 * s.accuracy, " / ".join(f"{100 * (part or 0):.1f}" for part in (s.many, s.medium, s.few)))


def held_out(demo: DemoSet) -> Features:
    """The rows that the backbone never saw."""
    assert demo.problem.held_out is not None
    return demo.problem.held_out


def balanced(head: Head, features: Features) -> float:
    """Balanced accuracy in per cent."""
    return 100 * metrics.evaluate_head(head, features).balanced_accuracy


def paths(demo: DemoSet, specs: Iterable[Spec]) -> list[list[Head]]:
    """For every spec the heads after 0, 1, 2, ... epochs."""
    recipes = [from_spec(spec) for spec in specs]
    assert all(isinstance(recipe, Retrain) for recipe in recipes)
    heads = fit_heads(demo.problem, recipes, SEED, snapshots=True)  # type: ignore[arg-type]
    return [[head[i] for i in range(len(head.weight))] for head in heads]


def along(name: str, path: Sequence[Head], demo: DemoSet) -> dict[str, Cell]:
    """Peak and end of a path on the test rows, and the test accuracy where the held-out rows stop it."""
    test = [accuracy(head, demo.test) for head in path]
    kept = [balanced(head, held_out(demo)) for head in path]
    peak, stop = (max(range(1, len(path)), key=values.__getitem__) for values in (test, kept))
    return {
        f"{name}, best test epoch": Cell(test[peak], f"epoch {peak}"),
        f"{name}, stopped on held-out rows": Cell(test[stop], f"epoch {stop}"),
        f"{name}, last epoch": Cell(test[-1], "path " + " ".join(f"{value:.1f}" for value in test[1:][:LISTED])),
    }


def with_path(demo: DemoSet, named: dict[str, Spec]) -> dict[str, Cell]:
    """Peak, stop and end of every named spec."""
    rows: dict[str, Cell] = {}
    for name, path in zip(named, paths(demo, named.values()), strict=True):
        rows |= along(name, path, demo)
    return rows


# --- section 2: recipes -----------------------------------------------------------------------------------------------

RECIPES: dict[str, Spec] = {
    "stage 1": Spec("stage1"),
    "tau-norm 0.7": Spec("tau_norm", tau=0.7),
    "tau-norm 1": Spec("tau_norm"),
    "logit adjustment 1": Spec("logit_adjustment"),
    "balanced softmax, raw, lr 0.1, wd 5e-4, 10 epochs": Spec("balanced_softmax", ORDINARY),
    "cRT, the same plan": Spec("crt", ORDINARY),
    "LWS, the same plan": Spec("lws", ORDINARY),
    "GALA released (1.2), warm, the same plan": Spec("gala", ORDINARY, lambda_pos=1.2, start="stage1"),
    "GALA released (1.2), fresh, the same plan": Spec("gala", ORDINARY, lambda_pos=1.2),
    "NCM, raw": Spec("ncm", transform="raw"),
    "NCM, l2n": Spec("ncm", transform="l2n"),
    "NCM, cl2n": Spec("ncm", transform="cl2n"),
    "LDA, Ledoit-Wolf": Spec("lda"),
    "LDA, shrinkage 0.6": Spec("lda", shrinkage=0.6),
    "weight balancing, BCE, released schedule": Spec("weight_balancing", BALANCING),
    "weight balancing, BCE, cosine per step": Spec("weight_balancing", {**BALANCING, "schedule": "cosine"}),
    "weight balancing, weighted CE, cosine per step": Spec(
        "weight_balancing", {**BALANCING, "schedule": "cosine", "loss": "ce"}
    ),
    "label-aware smoothing as released": published("label_aware_smoothing")[0].spec,
    "LOS as released": Spec("los", LOS),
    "LOS, lr 5e-5": Spec("los", {**LOS, "lr": 5e-5}),
    "unlearn, t 0.84": Spec("unlearn", t=0.84),
    "GALA, lambda 3, fresh, lr 0.3, wd 5e-3": Spec(
        "gala", {**ORDINARY, "lr": 0.3, "weight_decay": 5e-3}, lambda_pos=3.0
    ),
}


def recipes(demo: DemoSet) -> dict[str, Cell]:
    """Recipes as they stand, all on one seed."""
    heads = heads_of(demo.problem, list(RECIPES.values()))
    return {name: groups(head, demo.test) for name, head in zip(RECIPES, heads, strict=True)} | logistic(demo)


def logistic(demo: DemoSet) -> dict[str, Cell]:
    """scikit-learn's converged logistic regression."""
    from sklearn.linear_model import LogisticRegression

    train = demo.problem.train
    model = LogisticRegression(C=1e-3, class_weight="balanced", max_iter=2000)
    model.fit(train.x[0].float().numpy(), train.y.numpy())
    weight, bias = (torch.from_numpy(part).float() for part in (model.coef_, model.intercept_))
    return {"scikit-learn, balanced, C 1e-3": groups(Head(weight, bias), demo.test)}


def halves(demo: DemoSet) -> dict[str, Cell]:
    """One scalar tuned on a random half of the test rows and scored on the other: mean over both ways and 20 splits."""
    rows = {}
    for name, (specs, values) in scalars().items():
        right = correct(demo.test, heads_of(demo.problem, specs))
        scores, picked = [], []
        for seed in range(20):
            order = torch.randperm(right.shape[1], generator=torch.Generator().manual_seed(seed))
            for chosen, scored in (order.chunk(2), order.chunk(2)[::-1]):
                best = int(right[:, chosen].mean(dim=1).argmax())
                scores.append(100 * float(right[best, scored].mean()))
                picked.append(values[best])
        rows[name] = Cell(mean(scores), f"{min(picked):g} to {max(picked):g} picked")
    return rows


def scalars() -> dict[str, tuple[list[Spec], list[float]]]:
    """The families of one scalar."""
    return {
        "tau-norm, tau": (grid("tau_norm", {}, tau=TAUS), TAUS),
        "logit adjustment, tau": (grid("logit_adjustment", {}, tau=ADJUSTMENTS), ADJUSTMENTS),
        "unlearn, t": (grid("unlearn", {}, t=TS), TS),
    }


def correct(features: Features, heads: Sequence[Head]) -> Tensor:
    """(heads, rows) float64: is the prediction right?"""
    return torch.stack([(head(features.x[0]).argmax(dim=-1) == features.y).double() for head in heads])


# --- section 1 and 10: few held-out rows ------------------------------------------------------------------------------


def few_rows(demo: DemoSet) -> dict[str, Cell]:
    """Test accuracy when a scalar is selected on k held-out rows per class, against the best on the test rows."""
    rows = {}
    for name, (specs, _) in scalars().items():
        heads = heads_of(demo.problem, specs)
        test = 100 * correct(demo.test, heads).mean(dim=1)
        fresh = correct(held_out(demo), heads)
        rows[f"{name}, best on test"] = Cell(float(test.max()))
        for k in (20, 5):
            found = torch.stack(
                [test[pick(fresh, held_out(demo).y, k, seed)] for seed in range(DRAWS if k < 20 else 1)]
            )
            rows[f"{name}, {k} rows per class"] = Cell(
                float(found.mean()), f"{float(test.max() - found.mean()):.2f} below"
            )
    return rows


def pick(right: Tensor, y: Tensor, k: int, seed: int) -> int:
    """The head with the best balanced accuracy on k random rows per class."""
    keys = torch.rand(len(y), generator=torch.Generator().manual_seed(seed))
    order = torch.argsort(keys).tolist()
    taken: dict[int, list[int]] = {}
    for row in order:
        taken.setdefault(int(y[row]), []).append(row)
    weight = torch.zeros(len(y), dtype=torch.float64)
    for rows in taken.values():
        weight[rows[:k]] = 1 / len(rows[:k])
    return int((right @ weight).argmax())


# --- section 3 and 4: label over-smoothing ----------------------------------------------------------------------------


def released_paths(demo: DemoSet) -> dict[str, Cell]:
    """Released recipes along their epochs."""
    return with_path(
        demo,
        {
            "LOS": Spec("los", LOS),
            "weight balancing, released schedule": Spec("weight_balancing", BALANCING),
            "weight balancing, cosine per step": Spec("weight_balancing", {**BALANCING, "schedule": "cosine"}),
        },
    )


def samplers(demo: DemoSet) -> dict[str, Cell]:
    """Where the prior enters: the same steps under other samplers."""
    names = {"instance": "instance", "square root": "square_root", "class-balanced": "class_balanced"}
    specs = {
        f"LOS, lr {rate}, {name}": Spec("los", {**LOS, "lr": float(rate), "sampler": sampler})
        for rate in ("5e-5", "5e-4")
        for name, sampler in names.items()
    }
    return with_path(demo, specs)


def budgets(demo: DemoSet) -> dict[str, Cell]:
    """Sum over epochs of a constant lr, times 1e4, at the peak; and the same as the t of `unlearn`."""
    rates = (2e-5, 5e-5, 1e-4, 2e-4)
    specs = [Spec("los", {**LOS, "lr": lr, "schedule": "constant", "epochs": round(2e-3 / lr)}) for lr in rates]
    rows = {}
    for lr, path in zip(rates, paths(demo, specs), strict=True):
        test = [accuracy(head, demo.test) for head in path]
        near = [epoch for epoch, value in enumerate(test) if value >= max(test) - NOISE]
        best = max(range(len(test)), key=test.__getitem__)
        width = f"{1e4 * lr * near[0]:.1f} to {1e4 * lr * near[-1]:.1f}"
        remark = f"accuracy {test[best]:.2f}; within {NOISE} of it from {width}"
        rows[f"sum of lr at the peak, x 1e4, lr {lr:g}"] = Cell(1e4 * lr * best, remark)
    return rows | equivalent(demo)


def equivalent(demo: DemoSet) -> dict[str, Cell]:
    """The best t of `unlearn`, and what t a sum of lr of 5e-4 amounts to: lr steps delta / (1 - momentum)."""
    test = correct(demo.test, heads_of(demo.problem, grid("unlearn", {}, t=TS))).mean(dim=1)
    near = [t for t, value in zip(TS, test.tolist(), strict=True) if 100 * value >= 100 * float(test.max()) - NOISE]
    steps = -(-len(demo.problem.train) // LOS["batch_size"])
    return {
        "unlearn, best t": Cell(
            TS[int(test.argmax())],
            f"accuracy {100 * float(test.max()):.2f}; within {NOISE} of it from {near[0]:g} to {near[-1]:g}",
        ),
        "t of a sum of lr of 5e-4": Cell(5e-4 * steps * 0.98 / 0.1),
    }


def deltas(demo: DemoSet) -> dict[str, Cell]:
    """The smoothing strength, small steps (lr 5e-5, 20 epochs)."""
    values = (0.9, 0.95, 0.98, 0.99, 0.995)
    heads = heads_of(demo.problem, grid("los", {**LOS, "lr": 5e-5}, delta=values))
    return {f"delta {d:g}": groups(head, demo.test) for d, head in zip(values, heads, strict=True)}


def feature_scales(demo: DemoSet) -> dict[str, Cell]:
    """The released recipe on features divided by a number, with a stage-1 head of the same logits."""
    rows = {}
    for divisor in (1, 2, 3, 4, 5):
        problem, test = rescaled(demo, 1 / divisor)
        head = from_spec(Spec("los", LOS))(problem, SEED)
        rows[f"LOS as released, features / {divisor}"] = groups(head, test)
    return rows


def direction(demo: DemoSet) -> dict[str, Cell]:
    """Cosine between what one epoch of LOS does to the weights and what `unlearn` does, both on the trained view.

    `centred`: without the mean over classes, which moves all logits of a row alike and changes no prediction. In
    float64, so that the smallest steps keep their digits.
    """
    head = demo.problem.head
    assert head is not None
    view = demo.problem.train.training_views[:1].double()
    problem = replace(demo.problem, train=replace(demo.problem.train, x=view), head=head.to(torch.float64))
    pull = from_spec(Spec("unlearn", t=1.0))(problem).weight - head.weight
    rows = {}
    for lr in (1e-7, 1e-5, 5e-5, 5e-4):
        plan = {**RAW, "lr": lr, "epochs": 1, "batch_size": 64, "schedule": "constant"}
        change = from_spec(Spec("los", plan))(problem, SEED).weight - head.weight
        rows[f"cosine, lr {lr:g}"] = Cell(cosine(change, pull))
        rows[f"cosine, centred, lr {lr:g}"] = Cell(cosine(change - change.mean(dim=0), pull - pull.mean(dim=0)))
    return rows


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two matrices."""
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))


def converged(demo: DemoSet) -> dict[str, Cell]:
    """Long training against the linear least-squares fit of the one-hot targets on the same rows."""
    los = from_spec(Spec("los", {**LOS, "lr": 5e-3, "epochs": 300}))(demo.problem, SEED)
    train = demo.problem.train
    x = train.training_views[0].double()
    rows = torch.cat([x, torch.ones_like(x[:, :1])], dim=-1)
    targets = torch.nn.functional.one_hot(train.y, len(train.counts)).double()
    found = torch.linalg.lstsq(rows, targets).solution.T.float()
    squares = Head(found[:, :-1].contiguous(), found[:, -1].contiguous())
    guesses = [head(demo.test.x[0]).argmax(dim=-1) for head in (los, squares)]
    return {
        "LOS, lr 5e-3, 300 epochs": groups(los, demo.test),
        "least squares": groups(squares, demo.test),
        "test rows on which both predict the same class": Cell(100 * float((guesses[0] == guesses[1]).double().mean())),
    }


# --- section 5: GALA --------------------------------------------------------------------------------------------------


def gala(demo: DemoSet) -> dict[str, Cell]:
    """Slope of GALA's log theta on log n, and lambda on one plan."""
    rows = {}
    for start in ("stage1", "fresh"):
        recipe = from_spec(Spec("gala", ORDINARY, lambda_pos=1.2, start=start))
        assert isinstance(recipe, Retrain)
        rows[f"slope of log theta on log n, {start}, lambda 1.2"] = Cell(slope(demo, recipe))
    values = (0.5, 1.0, 1.2, 1.5, 2.0, 3.0, 4.5, 6.0)
    heads = heads_of(demo.problem, grid("gala", ORDINARY, lambda_pos=values))
    for value, head in zip(values, heads, strict=True):
        rows[f"fresh, lambda {value:g}"] = groups(head, demo.test)
    return rows


def slope(demo: DemoSet, recipe: Retrain) -> float:
    """The statistics that enter the last epoch, seen through the loss's own hook."""
    seen: list[Tensor] = []

    def look(state: Any, epoch: int, epochs: int) -> Any:
        seen.append(state.theta[0].double())
        return state

    fit_heads(demo.problem, [replace(recipe, loss=recipe.loss._replace(epoch=look))], SEED)
    x, y = demo.problem.train.counts.clamped.log(), seen[-1].log()
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / x.square().sum())


# --- section 6 and 8 --------------------------------------------------------------------------------------------------


def magnitudes(demo: DemoSet) -> dict[str, Cell]:
    """Variation over classes of the Logits Magnitude on held-out rows, both readings."""
    names = ("stage 1", "tau-norm 1", "logit adjustment 1", "LOS, lr 5e-5", "unlearn, t 0.84")
    names = (*names, "balanced softmax, raw, lr 0.1, wd 5e-4, 10 epochs", "cRT, the same plan", "NCM, cl2n")
    fresh = held_out(demo)
    rows = {}
    for name, head in zip(names, heads_of(demo.problem, [RECIPES[name] for name in names]), strict=True):
        for label, scaled in ((name, head), (f"{name}, logits / 10", head.scaled(0.1))):
            if name == "stage 1" or scaled is head:
                rows |= variation(label, scaled(fresh.x[0]), fresh)
    return rows


def variation(name: str, logits: Tensor, rows: Features) -> dict[str, Cell]:
    """Both readings, with the mean magnitude and the accuracy beside them."""
    right = 100 * float((logits.argmax(dim=-1) == rows.y).double().mean())
    found = {}
    for reading in ("unit", "sample"):
        values = metrics.logits_magnitude(logits, rows.y, reading)
        remark = f"mean {float(values.nanmean()):.2f}, accuracy {right:.1f}"
        found[f"LoMa of {name}, {reading}"] = Cell(metrics.coefficient_of_variation(values), remark)
    return found


def priors(demo: DemoSet) -> dict[str, Cell]:
    """How much of the training prior is left in the mean softmax on held-out rows: slope of its log on log prior."""
    names = ("stage 1", "tau-norm 1", "logit adjustment 1", "LOS, lr 5e-5", "unlearn, t 0.84")
    rows = {}
    for name, head in zip(names, heads_of(demo.problem, [RECIPES[name] for name in names]), strict=True):
        x, y = demo.problem.train.counts.prior.log(), log_mean_softmax(head, held_out(demo))
        x, y = x - x.mean(), y - y.mean()
        rows[f"slope of {name}"] = Cell(float((x * y).sum() / x.square().sum()))
    return rows


def seeds(demo: DemoSet) -> dict[str, Cell]:
    """Standard deviation of test accuracy over five seeds of the head, default plans."""
    rows = {}
    names = ("crt", "balanced_softmax", "los", "gala", "weight_balancing")
    trained = [from_spec(Spec(name)) for name in names]
    found = [fit_heads(demo.problem, trained, seed) for seed in range(5)]  # type: ignore[arg-type]
    for i, name in enumerate(names):
        values = [accuracy(heads[i], demo.test) for heads in found]
        rows[f"seeds of {name}"] = Cell(stdev(values), f"mean {mean(values):.2f}")
    return rows


# --- the page ---------------------------------------------------------------------------------------------------------

PARTS: dict[str, Part] = {
    "Recipes (section 2)": recipes,
    "A scalar tuned on half of the test rows (section 2)": halves,
    "A scalar selected on few held-out rows (section 1)": few_rows,
    "Released recipes along their epochs (section 3)": released_paths,
    "Where the prior enters (section 4)": samplers,
    "Only the accumulated step matters (section 4)": budgets,
    "The smoothing strength (section 4)": deltas,
    "The scale of the features (section 4)": feature_scales,
    "The direction of the first steps (section 4)": direction,
    "LOS run to convergence (section 4)": converged,
    "GALA's statistics (section 5)": gala,
    "Variation of the Logits Magnitude (section 6)": magnitudes,
    "What is left of the prior (not in the findings page)": priors,
    "Seeds of the head (section 8)": seeds,
}

Found = dict[str, dict[str, dict[str, Cell]]]  # part, set, row
NAMES = {PLAIN: "crop and flip", TEST_TIME: "the same, test-time view", AUGMENTED: "AutoAugment"}


def verdict(what: str, values: dict[str, Cell]) -> str:
    """What becomes of the claim about a row: of the first set as Poise trains it, else on the test-time view."""
    said = []
    if what in CLAIMS:
        first, view = (CLAIMS[what].verdict(values[name].value) for name in (PLAIN, TEST_TIME))
        said.append("agrees on the test-time view" if view == "agrees" != first else first)
    if what in CLAIMS_AUGMENTED and AUGMENTED in values:
        said.append(f"AutoAugment {CLAIMS_AUGMENTED[what].verdict(values[AUGMENTED].value)}")
    return "; ".join(said)


def lines_of(found: dict[str, dict[str, Cell]]) -> list[str]:
    """The table of one part: the claim about the first set, its verdict, and every set's number and remark."""
    lines = [f"| what | claimed | verdict | {' | '.join(NAMES[name] for name in found)} |"]
    lines.append("|---|---:|---|" + "---|" * len(found))
    for what in next(iter(found.values())):
        values = {name: cells[what] for name, cells in found.items()}
        claimed = CLAIMS[what].text if what in CLAIMS else ""
        written = " | ".join(number(v.value) + (f" ({v.remark})" if v.remark else "") for v in values.values())
        lines.append(f"| {what} | {claimed} | {verdict(what, values)} | {written} |")
    return lines


def number(value: float) -> str:
    """Two decimals, four where the number is a fraction close to 0 or 1."""
    return f"{value:.4f}" if abs(value) < 2 else f"{value:.2f}"


def markdown(found: Found, demos: Sequence[DemoSet], which: str, seconds: float) -> str:
    """The page."""
    lines = ["# Both sets", "", (__doc__ or "").split("\n\n", 1)[1].strip(), ""]
    lines += ["Per cent of the 10,000 test rows (in brackets many / medium / few) where nothing else is said.", ""]
    for part, sets in found.items():
        lines += [f"## {part}", "", " ".join((PARTS[part].__doc__ or "").split()), "", *lines_of(sets), ""]
    keys = [f"{d.name}: train {d.problem.train.key}, held-out {held_out(d).key}, test {d.test.key}" for d in demos]
    made = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines += [
        "The oracle head of section 2 was fitted on 34,676 images that are not shipped; it cannot be measured here.",
        "",
        f"Command: `python experiments/both_sets.py --rows {which}`; seed {SEED}; {made}; "
        f"{torch.get_num_threads()} threads, {seconds:.0f} seconds; {'; '.join(keys)}.",
    ]
    return "\n".join(lines) + "\n"


def measured(demos: Sequence[DemoSet], parts: Iterable[str]) -> Found:
    """Every part on every set."""
    found: Found = {}
    for part in parts:
        begun = time.perf_counter()
        found[part] = {demo.name: PARTS[part](demo) for demo in demos}
        print(f"{part}: {time.perf_counter() - begun:.1f} s", flush=True)
    return found


def plain(found: Found) -> list[dict[str, Any]]:
    """Every row as JSON types, with claim and verdict."""
    rows = []
    for part, sets in found.items():
        for what in next(iter(sets.values())):
            values = {name: cells[what] for name, cells in sets.items()}
            rows.append(
                {
                    "part": part,
                    "what": what,
                    "claimed": list(CLAIMS[what][:2]) if what in CLAIMS else None,
                    "verdict": verdict(what, values),
                    "measured": {name: cell._asdict() for name, cell in values.items()},
                }
            )
    return rows


def on_test_time_view(demo: DemoSet) -> DemoSet:
    """The same set with only the test-time view to train on."""
    train = demo.problem.train
    return DemoSet(TEST_TIME, replace(demo.problem, train=replace(train, x=train.x[:1])), demo.test)


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="one set and two cheap parts")
    add_rows(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    begun = time.perf_counter()
    first = load(PLAIN, args.rows)
    demos = [first, on_test_time_view(first), *([] if args.quick else [load(AUGMENTED, args.rows)])]
    chosen = ["The scale of the features (section 4)", "The direction of the first steps (section 4)"]
    found = measured(demos, chosen if args.quick else PARTS)
    write_atomically(args.out / f"both_sets{suffix(args.rows)}.json", json.dumps(plain(found), indent=1) + "\n")
    page = write_atomically(
        args.out / f"both_sets{suffix(args.rows)}.md", markdown(found, demos, args.rows, time.perf_counter() - begun)
    )
    print(page.read_text())


if __name__ == "__main__":
    main()
