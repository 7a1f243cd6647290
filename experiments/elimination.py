"""How often a short look at all settings leads to the choice of the full search, and what it costs where it does not.

Run: python experiments/elimination.py [--out experiments/results] [--threads N]

Every trained method of the demonstration, 16 settings each, on both shipped sets. The full search fits all of them and
takes the best on the held-out rows. A look trains all 16 for a share of their epochs, learning rates raised so that
their sum stays (or at the same rates, to see why), or on the leading principal axes of the 64; the best few are then
fitted in full and the best of these on the held-out rows is the choice. "Work" is the number of epochs beside those of
the full search, axes counted by their share of the products. Test rows are read here, and only here, to say what a
different choice costs: balanced accuracy of the head chosen, minus that of the full search, in points.
"""

import argparse
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from poise import Spec
from poise.commands.demo import demo_specs
from poise.data.bundled import DEMO_SETS, load_demo
from poise.errors import PoiseWarning
from poise.machine.atomic import write_atomically
from poise.methods import is_trained
from poise.results.record import versions
from poise.selection.elimination import Rung, shortened
from poise.selection.fit_and_measure import measure_all
from poise.selection.grids import default_grid
from poise.selection.tune import pick
from poise.selection.validation import Judgement, Trial, judge
from poise.values.problem import Problem

KEPT = (1, 3, 5, 8)


class Look(NamedTuple):
    """A cheap way to see all settings: what stands for a setting, on which axes, and its share of the work.

    `again`: the best quarter is put into the order of a second look, at the same epochs on all axes.
    """

    name: str
    stands_for: Callable[[Spec], Spec]
    axes: int | None
    work: float
    again: bool = False


def same_rates(spec: Spec, share: float) -> Spec:
    """The spec with fewer epochs and nothing else."""
    short = shortened(spec, share)
    steps = []
    for step, given in zip(short.steps, spec.steps, strict=True):
        epochs = dict(step.params).get("epochs")
        steps.append(given if epochs is None else Spec(given.name, {**dict(given.params), "epochs": epochs}))
    return sum(steps[1:], steps[0])


LOOKS = (
    *(
        Look(f"{share:g} of the epochs", lambda s, share=share: shortened(s, share), None, share)
        for share in (0.1, 0.2, 0.3)
    ),
    Look("0.2 of the epochs, same rates", lambda s: same_rates(s, 0.2), None, 0.2),
    Look("0.3 of the epochs on 16 axes", lambda s: shortened(s, 0.3), 16, 0.3 * 16 / 64),
    Look("0.3 of the epochs on 32 axes", lambda s: shortened(s, 0.3), 32, 0.3 * 32 / 64),
    Look("the same on 16 axes, its best 4 on all", lambda s: shortened(s, 0.3), 16, 0.3 * (16 / 64 + 1 / 4), True),
    Look("the same on 32 axes, its best 4 on all", lambda s: shortened(s, 0.3), 32, 0.3 * (32 / 64 + 1 / 4), True),
)


def best_of(trials: Mapping[Spec, Trial], judgement: Judgement) -> list[Spec]:
    """The specs in the order in which they would be chosen."""
    order, left = [], dict(trials)
    while left:
        best, _ = pick(judgement._replace(trials=left), tuple(left))
        order.append(best)
        del left[best]
    return order


def table(name: str) -> list[str]:
    """Markdown rows of one set."""
    demo = load_demo(name)
    grids = [default_grid(f) for f in demo_specs() if any(is_trained(step.name) for step in f.steps)]
    specs = [spec for grid in grids for spec in grid]
    full = judge(specs, demo.problem)
    chosen = [pick(full, grid)[0] for grid in grids]
    heads = {spec: trial.head for spec, trial in full.trials.items() if trial.head is not None}
    on_test = dict(zip(heads, measure_all(list(heads.values()), demo.test), strict=True))

    def cost(a: Spec, b: Spec) -> float:
        found, wanted = (on_test[spec].scores.balanced_accuracy for spec in (a, b))
        return 100 * (found - wanted)

    lines: list[str] = []
    for look in LOOKS:
        begun = len(lines)
        orders = seen(look, grids, demo.problem, full)
        for kept in (kept for kept in KEPT if kept <= len(orders[0])):
            ours = [pick(full, order[:kept])[0] for order in orders]
            costs = [cost(a, b) for a, b in zip(ours, chosen, strict=True)]
            same = sum(a == b for a, b in zip(ours, chosen, strict=True))
            lines.append(
                f"| {look.name} | {kept} of 16 | {name} | {same} of {len(grids)} | {sum(costs) / len(costs):+.2f} | "
                f"{min(costs):+.2f} | {look.work + kept / 16:.2f} |"
            )
        print("\n".join(lines[begun:]), flush=True)
    return lines


def seen(look: Look, grids: list[tuple[Spec, ...]], problem: Problem, full: Judgement) -> list[list[Spec]]:
    """Every grid in the order of the look."""
    ran = {spec: look.stands_for(spec) for grid in grids for spec in grid}
    found = judge(tuple(dict.fromkeys(ran.values())), Rung(keep=1.0, axes=look.axes).problem(problem)).trials
    orders = [best_of({spec: found[ran[spec]] for spec in grid}, full) for grid in grids]
    if not look.again:
        return orders
    quarters = [tuple(order[: len(order) // 4]) for order in orders]
    return seen(look._replace(axes=None, again=False), quarters, problem, full)


def main() -> None:
    """Measure both sets and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore", PoiseWarning)  # the edge of a grid is expected to diverge
    rows = sorted((line for name in DEMO_SETS for line in table(name)), key=_order)
    lines = [
        "# Early elimination of settings",
        "",
        (__doc__ or "").split("\n\n", 2)[2].strip(),
        "",
        "| look | fitted in full | set | same choice | test, mean | test, worst | work |",
        "|---|---|---|---:|---:|---:|---:|",
        *rows,
        "",
        "Command: `python experiments/elimination.py`; seed 0; "
        + ", ".join(f"{name} {version}" for name, version in versions().items())
        + ".",
        "",
    ]
    write_atomically(given.out / "elimination.md", "\n".join(lines))


def _order(line: str) -> tuple[int, int, str]:
    look, kept, name = (cell.strip() for cell in line.split("|")[1:4])
    return [each.name for each in LOOKS].index(look), int(kept.split()[0]), name


if __name__ == "__main__":
    main()
