"""Ranges of the search: where the best setting of every method lies, with the ranges as they were and as they are.

Run: python experiments/ranges.py [--out experiments/results]   (needs the extra `text`)

Every method is tuned twice, over the settings of its former range (ranges_former.json) and over those of
`poise.selection.grids.default_grid`, at most 16 each, on the same rows and with the same losses: held-out rows for the
two sets of images, 5 folds of the training rows for the questions. The ranges were chosen by the held-out columns
alone, on these three sets. The test split is read once, for the last two columns: the tuned setting of the present
range, and what the method reaches as stated (its first published recipe, else its defaults). `^` marks a best value at
the end of its range; an end that the definition of a parameter sets has none.

`--choose` leaves the test split unread and writes nothing: for work on the ranges. `--keep` makes the present ranges
the former ones.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from poise.commands.demo import TEXT_SPECS, demo_specs, load_text_demo
from poise.data.bundled import DEMO_SETS, DemoSet, load_demo
from poise.errors import PoiseWarning
from poise.machine.atomic import write_atomically
from poise.methods import from_spec
from poise.methods.published import stated
from poise.results.record import Selection, versions
from poise.selection.fit_and_measure import fit_specs, measure_all
from poise.selection.grids import default_grid
from poise.selection.rules import Judging, Rule
from poise.selection.tune import pick
from poise.selection.validation import judge_grids
from poise.values.problem import Problem
from poise.values.spec import Spec

SEED = 0
FORMER = "ranges_former.json"
TEXT = "banking77_if50"
HEADINGS = (
    "| method | settings | held-out before | now | change | before | now | tuned | stated |\n"
    "|---|---:|---:|---:|---:|---|---|---:|---:|"
)
Grids = Mapping[Spec, Sequence[Spec]]


class Set(NamedTuple):
    """A problem with its test split, the methods that are compared on it, and the rule that chooses settings."""

    demo: DemoSet
    families: tuple[Spec, ...]
    rule: Rule


class Chosen(NamedTuple):
    """The problem with its stage-1 head, and the best setting of every method."""

    problem: Problem
    best: Mapping[Spec, tuple[Spec, Selection]]

    @property
    def marked(self) -> int:
        """Methods with a best value at the end of its range."""
        return sum(bool(selection.edges) for _, selection in self.best.values())


def load(name: str) -> Set:
    """One of the three sets."""
    if name == TEXT:
        return Set(load_text_demo("exponential"), TEXT_SPECS, "kfold")
    return Set(load_demo(name), demo_specs(), "held_out")


def choose(problem: Problem, rule: Rule, *several: Grids) -> list[Chosen]:
    """The best of every grid, as `compare` finds it; what has the same stage-1 head is fitted in one pass.

    Without a stage-1 head, the best cross-entropy of the same grids is fitted first.
    """
    firsts = [None if problem.head is not None else first_of(problem, rule, grids[Spec("ce")]) for grids in several]
    found = {}
    for first in dict.fromkeys(firsts):
        started = problem if first is None else replace(problem, head=from_spec(first)(problem, SEED))
        together = [grid for grids, own in zip(several, firsts, strict=True) if own == first for grid in grids.values()]
        found[first] = started, judge_grids(together, started, Judging(select=rule, seed=SEED, first=first))
    return [
        Chosen(found[first][0], {family: pick(found[first][1], grid) for family, grid in grids.items()})
        for grids, first in zip(several, firsts, strict=True)
    ]


def first_of(problem: Problem, rule: Rule, grid: Sequence[Spec]) -> Spec:
    """The best of the grid where there is no head yet."""
    return pick(judge_grids([grid], problem, Judging(select=rule, seed=SEED)), grid)[0]


def on_test(demo: DemoSet, found: Chosen) -> Callable[[Spec], str]:
    """Balanced accuracy on the test split of any chosen or stated setting, in per cent."""
    wanted = [spec for spec, _ in found.best.values()] + [stated(family) for family in found.best]
    heads = fit_specs(found.problem, list(dict.fromkeys(wanted)), SEED)
    results = measure_all([fitted.head for fitted in heads.values()], demo.test)
    scores = dict(zip(heads, results, strict=True))
    return lambda spec: f"{100 * scores[spec].scores.balanced_accuracy:.2f}"


def setting(family: Spec, spec: Spec, selection: Selection) -> str:
    """What the search added to what the method states, with the marks."""
    given = {(i, key) for i, step in enumerate(family.steps) for key, _ in step.params}
    ends = {edge.split("=")[0] for edge in selection.edges}
    added = [
        f"{key} {value}{'^' * (key in ends)}"
        for i, step in enumerate(spec.steps)
        for key, value in step.params
        if (i, key) not in given
    ]
    return ", ".join(added) or "-"


def row(family: Spec, before: Chosen, now: Chosen, tested: Callable[[Spec], str] | None) -> str:
    """A line of the table; methods without a former range have no numbers before."""
    spec, selection = now.best[family]
    cells = ["-", f"{100 * selection.score:.2f}", "-", "-"]
    if family in before.best:
        former = before.best[family][1]
        change = 100 * (selection.score - former.score)
        was = setting(family, *before.best[family])
        cells = [f"{100 * former.score:.2f}", f"{100 * selection.score:.2f}", f"{change:+.2f}", was]
    last = ["not read"] * 2 if tested is None else [tested(spec), tested(stated(family))]
    cells = [f"`{family}`", str(selection.configurations), *cells, setting(family, spec, selection), *last]
    return f"| {' | '.join(cells)} |"


def section(name: str, out: Path, *, read_test: bool) -> list[str]:
    """The table of one set."""
    warnings.simplefilter("ignore", PoiseWarning)  # the ends of ranges are expected to diverge
    demo, families, rule = load(name)
    former = former_grids(out / FORMER)
    before, now = choose(
        demo.problem,
        rule,
        {family: former[family] for family in families if family in former},
        {family: default_grid(family) for family in families},
    )
    changes = [100 * (now.best[f][1].score - before.best[f][1].score) for f in families if f in before.best]
    tested = on_test(demo, now) if read_test else None
    chosen_on = now.best[families[0]][1]
    rows = f"training rows {demo.problem.train.key}, {chosen_on.rule} on {chosen_on.rows} rows {chosen_on.key}"
    test = f"test rows {demo.test.key}" if read_test else "test rows not read"
    return [
        f"## {name}",
        "",
        f"**Marked: {now.marked} of {len(families)} methods, {before.marked} of {len(before.best)} before.** Held-out "
        f"change {min(changes):+.2f} to {max(changes):+.2f} points, {sum(changes) / len(changes):+.2f} on average; "
        f"{rows}, {test}.",
        "",
        HEADINGS,
        *(row(family, before, now, tested) for family in families),
        "",
    ]


def former_grids(path: Path) -> Grids:
    """The settings of the former ranges."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    return {Spec.parse(family): tuple(map(Spec.parse, grid)) for family, grid in stored.items()}


def keep(path: Path) -> None:
    """Write the settings of the present ranges as the former ones."""
    families = dict.fromkeys((*demo_specs(), *TEXT_SPECS))
    grids = {str(family): [str(spec) for spec in default_grid(family)] for family in families}
    write_atomically(path, json.dumps(grids, indent=1) + "\n")


def main() -> None:
    """Tune over both ranges and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = (*DEMO_SETS, TEXT)
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    parser.add_argument("--set", dest="names", action="append", choices=names, help="with --choose: this set only")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--jobs", type=int, default=1, help="sets at a time")
    given = parser.parse_args()
    if given.keep:
        keep(given.out / FORMER)
        return
    if given.names and not given.choose:
        parser.error("the page holds all sets; --set goes with --choose")
    lines = ["# Ranges of the search", "", (__doc__ or "").split("\n\n")[2].strip(), ""]
    one = partial(section, out=given.out, read_test=not given.choose)
    with ProcessPoolExecutor(given.jobs, get_context("spawn")) as pool:
        for part in pool.map(one, given.names or names):
            print("\n".join(part), flush=True)
            lines += part
    made = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines += [f"Command: `python experiments/ranges.py`; seed {SEED}; {made}.", ""]
    if not given.choose:
        write_atomically(given.out / "ranges.md", "\n".join(lines))


if __name__ == "__main__":
    main()
