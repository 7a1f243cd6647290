"""One `crt` head on rows of the size of ImageNet-LT, beside its bare matrix products, in float32 and in bfloat16.

    python benchmarks/large.py [--epochs 10] [--repeats 3] [--threads N] [--precisions float32 bfloat16] [--quick]

115,846 x 2048 made-up rows with the published counts of 1,000 classes (benchmarks/synthetic.py, which says where the
counts are read from), batch 128. For each precision, in every repeat:

    fit         fit_heads, everything that it does
    products    the products of its steps, forward and gradient, in the same precision, in the fastest of several
                layouts (timed first); one epoch before the fit and one after, scaled to all epochs
    step        products, softmax and momentum update in float32, and in bfloat16 what it costs to make the operands
                short: what no loop can leave out; some steps, scaled

A time is the median over repeats, a ratio the median over repeats of the ratio within a repeat. Accuracies are those of
the two heads on the same 50,000 made-up test rows.
"""

import os
from typing import Any, NamedTuple

# As the command line does: threads that spin while they wait disturb each other on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from measuring import (
    PRECISIONS,
    beside,
    described,
    fastest,
    layout_seconds,
    load,
    machine,
    median,
    parser,
    percentages,
    products,
    ratio,
    shown,
    timed,
    write,
)
from synthetic import DIM, problem, published
from torch import Tensor

from heads import momentum
from poise import Features, Head, Problem, Retrain, fit_heads
from poise.methods import build

STEPS = 100  # of the step measured beside the products
TRIED = 20  # steps in which each layout is tried


class Setting(NamedTuple):
    """What is measured."""

    problem: Problem
    test: Features
    epochs: int
    batch: int
    layouts: dict[str, dict[str, float]]  # by precision, seconds of one step

    @property
    def x(self) -> Tensor:
        """(N, D) training rows."""
        return self.problem.train.x[0]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.problem.train.counts)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.x) // self.batch)


def recipe(epochs: int, batch: int, precision: str) -> Retrain:
    """The head, with products in a precision."""
    return build("crt", epochs=epochs, batch_size=batch, matmul=precision)


def bare_steps(setting: Setting, precision: str, steps: int) -> None:
    """Steps of products, softmax and update on the first rows, in memory that is allocated once."""
    x = setting.x[: steps * setting.batch].to(PRECISIONS[precision])
    weight = torch.randn(setting.classes, x.shape[1]) * 0.01
    velocity, gradient, lr = torch.zeros_like(weight), torch.empty_like(weight), torch.tensor(1e-3)
    short = weight.to(x.dtype) if precision != "float32" else weight
    pulled = torch.empty_like(short) if precision != "float32" else gradient
    for rows in x.split(setting.batch):
        if precision != "float32":
            short.copy_(weight)
        slopes = torch.softmax((rows @ short.T).float(), dim=-1)
        torch.mm(slopes.to(x.dtype).T, rows, out=pulled)
        if precision != "float32":
            gradient.copy_(pulled)
        momentum(weight, velocity, gradient, lr)


def repeat(setting: Setting) -> tuple[dict[str, float], dict[str, Head]]:
    """Seconds of everything, by what and precision, and the heads."""
    seconds, heads = {}, {}
    for precision, layouts in setting.layouts.items():
        x = setting.x.to(PRECISIONS[precision])
        bare = products(fastest(layouts), x, setting.classes, setting.batch)

        def fit(precision: str = precision) -> None:
            heads[precision] = fit_heads(setting.problem, [recipe(setting.epochs, setting.batch, precision)])[0]

        whole, one_epoch = beside(fit, bare)
        seconds[f"fit {precision}"], seconds[f"products {precision}"] = whole, one_epoch * setting.epochs
        steps = min(STEPS, setting.steps)
        took = timed(lambda p=precision, n=steps: bare_steps(setting, p, n))
        seconds[f"step {precision}"] = took * setting.epochs * setting.steps / steps
    return seconds, heads


def difference(of: dict[str, float | None], to: dict[str, float | None]) -> dict[str, float | None]:
    """Points that one has more than the other."""
    return {name: None if share is None or to[name] is None else share - to[name] for name, share in of.items()}


def report(result: dict[str, Any]) -> str:
    """Everything that is printed, at most 80 columns."""
    setting, repeats = result["setting"], result["repeats"]
    lines = [
        "one crt head, {epochs} epochs, batch {batch}, {rows} rows, C = {classes}, D = {dim}".format(**setting),
        described(result["machine"], result["load_after"]),
        "",
        f"{'seconds per epoch':<20} {'fit':>9} {'products':>9} {'step':>9} {'fit/prod.':>10} {'fit/step':>9}",
    ]
    for precision, found in result["ratio"].items():
        values = [median(repeats, f"{what} {precision}") / setting["epochs"] for what in ("fit", "products", "step")]
        times = " ".join(f"{value:9.3f}" for value in values)
        lines.append(f"{precision:<20} {times} {found:10.2f} {result['ratio_to_step'][precision]:9.2f}")
    lines += ["", f"{'accuracy, per cent':<20} {'all':>9} {'many':>9} {'medium':>9} {'few':>10}"]
    accuracies = dict(result["accuracy"])
    if "difference" in result:
        lines.insert(-2, f"bfloat16 is {result['speedup']:.2f} times as fast as float32, end to end")
        accuracies["difference, points"] = result["difference"]
    for name, shares in accuracies.items():
        form = "+9.3f" if name not in PRECISIONS else "9.2f"
        lines.append(f"{name:<20} " + " ".join(shown(share, form) for share in shares.values()))
    lines += ["", "layouts: " + ", ".join(f"{p} {fastest(found)}" for p, found in result["layouts"].items())]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    arguments = parser(__doc__, "large", "every 10th class, 256 columns, 1 epoch, 1 repeat")
    arguments.add_argument("--epochs", type=int, default=10)
    arguments.add_argument("--batch", type=int, default=128)
    arguments.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    given = arguments.parse_args()
    if given.quick:
        given.epochs, given.repeats = 1, 1
    torch.set_num_threads(given.threads)
    facts = machine()
    counts = published("ImageNet_LT", 10 if given.quick else 1)
    made, test = problem(counts, 256 if given.quick else DIM)
    layouts = {}
    for precision in given.precisions:
        some = made.train.x[0, : TRIED * given.batch].to(PRECISIONS[precision])
        found = layout_seconds(some, len(counts), given.batch)
        layouts[precision] = {layout: seconds / TRIED for layout, seconds in found.items()}
    setting = Setting(made, test, given.epochs, given.batch, layouts)
    runs = [repeat(setting) for _ in range(given.repeats)]
    repeats, heads = [seconds for seconds, _ in runs], runs[-1][1]
    result: dict[str, Any] = {
        "machine": facts,
        "load_after": load(),
        "setting": {
            "epochs": given.epochs,
            "batch": given.batch,
            "rows": len(made.train),
            "classes": len(counts),
            "dim": made.train.dim,
            "test_rows": len(test),
        },
        "layouts": layouts,
        "repeats": repeats,
        "ratio": {p: ratio(repeats, f"fit {p}", f"products {p}") for p in layouts},
        "ratio_to_step": {p: ratio(repeats, f"fit {p}", f"step {p}") for p in layouts},
        "accuracy": {precision: percentages(head, test) for precision, head in heads.items()},
    }
    if set(layouts) == set(PRECISIONS):
        result["speedup"] = ratio(repeats, "fit float32", "fit bfloat16")
        result["difference"] = difference(result["accuracy"]["bfloat16"], result["accuracy"]["float32"])
    print(report(result))
    write(result, given)


if __name__ == "__main__":
    main()
