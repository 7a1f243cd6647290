"""How long 256 heads take in one pass of `fit_heads`, and beside it everything one might do instead.

    python benchmarks/heads.py [--heads 256] [--epochs 20] [--batch 128] [--repeats 3] [--threads N] [--quick]

The heads are a mix of all trained methods (`MIX`, repeated with falling learning rates) on shipped real features. In
every repeat, one after the other:

    pass            one call of fit_heads for all heads
    limit           for as many steps: the two matrix products of the same sizes, one softmax over all logits and one
                    momentum update, nothing else, in the fastest of several forms (`LIMITS`, timed first)
    one by one      fit_heads([recipe]) for every head; only a stated part, scaled, if all would take over 5 minutes
    plain loop      torch.optim.SGD, cross-entropy and autograd, rows by tensor indexing; a few heads, scaled
    data loader     the same with a DataLoader; a few heads, scaled

A time is the median over repeats, a ratio the median over repeats of the ratio within a repeat.
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

# As the command line does: threads that spin while they wait disturb each other on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from measuring import machine, ratio, timed
from torch import Tensor

from poise import Problem, Retrain, Spec, fit_heads
from poise.data.bundled import DEMO_SETS, load_demo
from poise.machine.atomic import write_atomically
from poise.machine.threads import crew
from poise.methods import defaults, from_spec

# 32 heads: every trained method, with its own parameters and weight decays varied. By what must agree in a block:
# 22 full heads on instance sampling, 3 full heads on class-balanced sampling, 3 scales, 3 cosine heads, 1 affine.
MIX = (
    Spec("ce"),
    Spec("ce", weight_decay=5e-4),
    Spec("balanced_softmax"),
    Spec("balanced_softmax", tau=0.5),
    Spec("balanced_softmax", tau=1.5, weight_decay=1e-4),
    Spec("los"),
    Spec("los", delta=0.9),
    Spec("los", delta=0.995, weight_decay=0.0),
    Spec("vs"),
    Spec("vs", gamma=0.15, tau=1.25),
    Spec("class_balanced"),
    Spec("class_balanced", beta=0.99, weight_decay=5e-4),
    Spec("class_balanced", beta=0.999, gamma=1.0),
    Spec("focal"),
    Spec("focal", gamma=1.0, weight_decay=1e-4),
    Spec("gala"),
    Spec("gala", lambda_pos=2.0),
    Spec("gala", lambda_pos=1.2, lambda_neg=0.9, variant="paper"),
    Spec("weight_balancing"),
    Spec("weight_balancing", loss="ce"),
    Spec("weight_balancing", every="epoch", weight_decay=1e-4),
    Spec("weight_balancing", every="never", weight_decay=5e-4),
    Spec("crt"),
    Spec("crt", weight_decay=5e-4),
    Spec("crt", start="stage1", weight_decay=0.0),
    Spec("lws"),
    Spec("label_aware_smoothing"),
    Spec("label_aware_smoothing", smooth_head=0.3, smooth_tail=0.0),
    Spec("cosine"),
    Spec("cosine", scale=30.0),
    Spec("ldam"),
    Spec("marc"),
)
SMALLER = 0.7  # each further round through the mix has its learning rates times this

MOMENTUM = 0.9
LONGEST = 300.0  # seconds that training one by one may take before a part is measured and scaled
NAMES = {
    "pass": "one pass of fit_heads",
    "limit": "limit: products, softmax, step",
    "one_by_one": "fit_heads one by one",
    "plain": "plain torch loop",
    "loader": "DataLoader loop",
}


def recipes(heads: int, epochs: int, batch: int) -> list[Retrain]:
    """The mix, repeated until there are enough heads."""
    made = []
    for i in range(heads):
        spec = MIX[i % len(MIX)]
        lr = defaults(spec.name)["lr"] * SMALLER ** (i // len(MIX))
        made.append(from_spec(Spec(spec.name, spec.params, lr=lr, epochs=epochs, batch_size=batch)))
    return made


# --- the limit --------------------------------------------------------------------------------------------------------


class Sizes(NamedTuple):
    """Heads, classes and columns (features and a one for the bias)."""

    heads: int
    classes: int
    columns: int


Epoch = Callable[[Sequence[Tensor]], None]  # one step per batch (B, columns)


def momentum(weight: Tensor, velocity: Tensor, slope: Tensor, lr: Tensor) -> None:
    """One step of momentum SGD, in place."""
    velocity.mul_(MOMENTUM).add_(slope)
    weight.addcmul_(velocity, lr, value=-1)


def one_product(sizes: Sizes) -> Epoch:
    """All heads as the columns of one matrix product: logits (B, G C)."""
    g, c, d = sizes
    weight, lr = torch.randn(g * c, d) * 0.1, torch.full((g * c, 1), 1e-3)
    velocity, slope = torch.zeros_like(weight), torch.empty_like(weight)

    def epoch(batches: Sequence[Tensor]) -> None:
        for x in batches:
            logits = x @ weight.T
            p = torch.softmax(logits.view(len(x), g, c), dim=-1)
            torch.mm(p.view(len(x), g * c).T, x, out=slope)
            momentum(weight, velocity, slope, lr)

    return epoch


class Part:
    """Some heads by themselves: a batched product, logits (G, B, C), in memory of their own."""

    def __init__(self, sizes: Sizes) -> None:
        g, c, d = sizes
        self.weight, self.lr = torch.randn(g, c, d) * 0.1, torch.full((g, 1, 1), 1e-3)
        self.velocity, self.slope = torch.zeros_like(self.weight), torch.empty_like(self.weight)
        self.logits = torch.empty(0)

    def step(self, x: Tensor) -> None:
        """Products, softmax, momentum."""
        rows = x.expand(len(self.weight), *x.shape)
        shape = (len(self.weight), len(x), self.weight.shape[1])
        self.logits = self.logits if self.logits.shape == shape else torch.empty(shape)
        torch.bmm(rows, self.weight.mT, out=self.logits)
        p = torch.softmax(self.logits, dim=-1, out=self.logits)
        torch.bmm(p.mT, rows, out=self.slope)
        momentum(self.weight, self.velocity, self.slope, self.lr)


def parts(sizes: Sizes, together: int) -> list[Part]:
    """All heads, so many in a part."""
    return [Part(sizes._replace(heads=min(together, sizes.heads - at))) for at in range(0, sizes.heads, together)]


def batched(sizes: Sizes, together: int) -> Epoch:
    """So many heads at a time; operations are shared among threads."""
    all_parts = parts(sizes, together)

    def epoch(batches: Sequence[Tensor]) -> None:
        for x in batches:
            for part in all_parts:
                part.step(x)

    return epoch


def threaded(sizes: Sizes, together: int) -> Epoch:
    """So many heads at a time, which go through all batches on one thread."""
    all_parts = parts(sizes, together)

    def epoch(batches: Sequence[Tensor]) -> None:
        with crew(torch.get_num_threads()) as workers:
            workers.map(lambda part: [part.step(x) for x in batches], all_parts)

    return epoch


LIMITS: dict[str, Callable[[Sizes], Epoch]] = {
    "one matrix product": one_product,
    "batched product": lambda sizes: batched(sizes, sizes.heads),
    **{f"batched product, {n} heads at a time": partial(batched, together=n) for n in (8, 16, 32)},
    **{
        f"batched product, {n} heads at a time on a thread of their own": partial(threaded, together=n)
        for n in (8, 16, 32)
    },
}


def limit_forms(sizes: Sizes, batches: Sequence[Tensor]) -> dict[str, float]:
    """Seconds of the batches in every form: the best of three runs, the forms taking turns."""
    made = {name: make(sizes) for name, make in LIMITS.items()}
    runs = [{name: timed(lambda epoch=epoch: epoch(batches)) for name, epoch in made.items()} for _ in range(3)]
    return {name: min(seconds[name] for seconds in runs) for name in made}


def run_limit(form: str, sizes: Sizes, x: Tensor, epochs: int, batch: int) -> None:
    """As many steps as the pass takes, the short batch at the end of an epoch included."""
    epoch = LIMITS[form](sizes)
    for _ in range(epochs):
        epoch(x.split(batch))


# --- what one might write instead -------------------------------------------------------------------------------------


def plain_head(problem: Problem, epochs: int, batch: int, seed: int) -> None:
    """One head in an ordinary loop, rows by tensor indexing."""
    x, y = problem.train.training_views[0].float(), problem.train.y
    layer, optimiser, schedule = ordinary(problem, epochs)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(y), generator=generator)
        for rows in order.split(batch):
            ordinary_step(layer, optimiser, x[rows], y[rows])
        schedule.step()


def loader_head(problem: Problem, epochs: int, batch: int, seed: int) -> None:
    """One head in an ordinary loop through a DataLoader."""
    data = torch.utils.data.TensorDataset(problem.train.training_views[0].float(), problem.train.y)
    generator = torch.Generator().manual_seed(seed)
    loader = torch.utils.data.DataLoader(data, batch_size=batch, shuffle=True, num_workers=0, generator=generator)
    layer, optimiser, schedule = ordinary(problem, epochs)
    for _ in range(epochs):
        for x, y in loader:
            ordinary_step(layer, optimiser, x, y)
        schedule.step()


def ordinary(problem: Problem, epochs: int) -> tuple[torch.nn.Linear, torch.optim.SGD, Any]:
    """Layer, optimiser and schedule of the two loops above."""
    layer = torch.nn.Linear(problem.train.dim, len(problem.train.counts))
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.02, momentum=MOMENTUM, weight_decay=5e-4)
    return layer, optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)


def ordinary_step(layer: torch.nn.Linear, optimiser: torch.optim.SGD, x: Tensor, y: Tensor) -> None:
    """Forward, backward and update."""
    optimiser.zero_grad()
    torch.nn.functional.cross_entropy(layer(x), y).backward()
    optimiser.step()


# --- measuring --------------------------------------------------------------------------------------------------------


class Setting(NamedTuple):
    """What is measured."""

    problem: Problem
    recipes: list[Retrain]
    epochs: int
    batch: int
    sizes: Sizes
    form: str
    few: int  # heads measured of the two ordinary loops


def one_by_one(setting: Setting) -> tuple[float, int]:
    """Seconds for all heads, each alone, and how many were measured: all, or one round of the mix if that is enough."""
    first = [timed(lambda r=r: fit_heads(setting.problem, [r])) for r in setting.recipes[: len(MIX)]]
    total = statistics.mean(first) * len(setting.recipes)
    if total > LONGEST:
        return total, len(first)
    rest = [timed(lambda r=r: fit_heads(setting.problem, [r])) for r in setting.recipes[len(MIX) :]]
    return sum(first) + sum(rest), len(setting.recipes)


def scaled(setting: Setting, train: Callable[[Problem, int, int, int], None]) -> float:
    """Seconds of a few heads, times all heads over those."""
    seconds = timed(lambda: [train(setting.problem, setting.epochs, setting.batch, i) for i in range(setting.few)])
    return seconds * len(setting.recipes) / setting.few


def repeat(setting: Setting) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds of everything, and how many heads were really trained for it."""
    x = setting.problem.train.training_views[0].float()
    x = torch.cat([x, torch.ones_like(x[:, :1])], dim=-1)
    heads, few = len(setting.recipes), setting.few
    seconds = {"pass": timed(lambda: fit_heads(setting.problem, setting.recipes))}
    seconds["limit"] = timed(lambda: run_limit(setting.form, setting.sizes, x, setting.epochs, setting.batch))
    seconds["one_by_one"], alone = one_by_one(setting)
    seconds["plain"] = scaled(setting, plain_head)
    seconds["loader"] = scaled(setting, loader_head)
    return seconds, {"pass": heads, "limit": heads, "one_by_one": alone, "plain": few, "loader": few}


# --- reporting --------------------------------------------------------------------------------------------------------


def table(repeats: Sequence[dict[str, float]], measured: dict[str, int], heads: int) -> str:
    """One row per way, at most 80 columns."""
    lines = [f"{'what':<46} {'seconds':>9} {'x limit':>9} {'x pass':>9}"]
    for key, name in NAMES.items():
        label = name if measured[key] == heads else f"{name} (scaled from {measured[key]})"
        median = statistics.median(seconds[key] for seconds in repeats)
        lines.append(
            f"{label:<46} {median:9.2f} {ratio(repeats, key, 'limit'):9.2f} {ratio(repeats, key, 'pass'):9.2f}"
        )
    return "\n".join(lines)


def report(result: dict[str, Any]) -> str:
    """Everything that is printed."""
    facts, setting = result["machine"], result["setting"]
    repeats = ", ".join(f"{seconds['pass']:.2f} / {seconds['limit']:.2f}" for seconds in result["repeats"])
    lines = [
        "{heads} heads, {epochs} epochs, batch {batch}, {rows} rows, C = {classes}, D = {dim}".format(**setting),
        "{cpu}, {cores} cores, {threads} threads, torch {torch}, numpy {numpy}".format(**facts),
        f"load before and after {facts['load']} / {result['load_after']}: above 1 before the start is noise",
        f"limit: {result['limit_form']}",
        "",
        table(result["repeats"], result["measured"], setting["heads"]),
        "",
        f"pass / limit, every repeat: {repeats}",
    ]
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--heads", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--set", default="cifar100lt_r32_autoaugment", choices=sorted(DEMO_SETS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="32 heads, 1 epoch, 1 repeat: only to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/heads.json"))
    args = parser.parse_args()
    if args.quick:
        args.heads, args.epochs, args.repeats = len(MIX), 1, 1
    return args


def main() -> None:
    """Measure, print and write."""
    args = arguments()
    torch.set_num_threads(args.threads)
    problem = load_demo(args.set).problem
    sizes = Sizes(args.heads, len(problem.train.counts), problem.train.dim + 1)
    forms = limit_forms(sizes, torch.randn(args.batch * (3 if args.quick else 80), sizes.columns).split(args.batch))
    form = min(forms, key=forms.__getitem__)
    few = 1 if args.quick else 4
    for train in (plain_head, loader_head):
        train(problem, 1, args.batch, 0)  # the first optimiser of a process imports a lot
    setting = Setting(problem, recipes(args.heads, args.epochs, args.batch), args.epochs, args.batch, sizes, form, few)
    facts = machine()
    runs = [repeat(setting) for _ in range(args.repeats)]
    result = {
        "machine": facts,
        "load_after": machine()["load"],
        "setting": {
            "heads": args.heads,
            "epochs": args.epochs,
            "batch": args.batch,
            "set": args.set,
            "rows": len(problem.train),
            "classes": sizes.classes,
            "dim": problem.train.dim,
            "mix": [str(spec) for spec in MIX],
        },
        "limit_form": form,
        "limit_forms_seconds": forms,
        "measured": runs[-1][1],
        "repeats": [seconds for seconds, _ in runs],
    }
    result["ratio_to_limit"] = {key: ratio(result["repeats"], key, "limit") for key in NAMES}
    result["ratio_to_pass"] = {key: ratio(result["repeats"], key, "pass") for key in NAMES}
    print(report(result))
    write_atomically(args.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
