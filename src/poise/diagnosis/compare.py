"""`poise.compare`: tune, compare, and show it: as text, in a notebook, as a report, for a paper."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from poise.diagnosis.report_contents import contents_of
from poise.machine.libraries import needed
from poise.machine.progress import Progress
from poise.report.files import write_report
from poise.report.text import latex, score_tables
from poise.report.text.words import one_line
from poise.results.contents import Contents
from poise.selection.compare import Oracle, run
from poise.selection.comparison_result import Comparison
from poise.selection.elimination import Rung
from poise.selection.grids import BUDGET
from poise.selection.rules import FOLDS, NULLS, Protocol
from poise.selection.schedule import scheduled
from poise.values.features import Features
from poise.values.notebook import html_table
from poise.values.problem import Problem
from poise.values.spec import Spec

WIDTH = 80  # columns of what is printed


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Compared(Comparison):
    """A `Comparison` with the rows that it was made on, and the ways to show it.

    `print` writes the table, what its columns mean, and the verdict, at most 80 columns wide; a notebook shows the
    same as a table of its own. `data` names the rows, `problem` and `test` are those, and `seed` is the first one.
    """

    data: str
    problem: Problem
    test: Features
    seed: int

    def __str__(self) -> str:
        table = score_tables.to_terminal(self.rows, title=self.data)
        parts = (table, "", score_tables.legend(fitted=self.fitted), "", one_line(self.verdict()))
        out = io.StringIO()
        # In a notebook the console would show what it is to write.
        console = Console(file=out, width=WIDTH, color_system=None, highlight=False, markup=False, force_jupyter=False)
        for part in parts:
            console.print(part)
        return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())

    def _repr_html_(self) -> str:
        notes = (self.verdict(), score_tables.legend(fitted=self.fitted))
        return html_table(score_tables.HEADED, score_tables.cells(self.rows), title=self.data, notes=notes)

    def to_frame(self) -> Any:
        """A pandas.DataFrame: a row per method, recipes too, best first; the columns of summary.csv, and `family`.

        Fractions in [0, 1] with every digit, missing where there is nothing to measure.

        Raises: MissingExtraError if pandas is not installed; Poise does not need it otherwise.
        """
        return needed("pandas", None, "a data frame needs").DataFrame(self.table())

    def to_latex(self, *, title: str | None = None, label: str | None = None) -> str:
        r"""A table for a paper, which needs the package booktabs, as `poise report --format latex` writes it.

        Args:
            title: begins the caption; the name of the data unless given.
            label: for `\ref`; made of the title unless given, such as "tab:cifar100-lt".
        """
        # Without training rows nothing is trained anew, of which the table says nothing.
        return latex.to_latex(self._contents(title, None), label=label)

    def report(self, folder: str | Path, *, title: str | None = None) -> list[Path]:
        """Write report.html, and report.json for `poise report`, into a folder; it is made if missing.

        Some heads are looked at more closely for it: their paths over epochs, shifts, calibration, gradients, which
        may take seconds. Returns the paths of the two files.

        Raises: InputError when the disk refuses.
        """
        return write_report(Path(folder), self.contents(title=title))

    def contents(self, *, title: str | None = None) -> Contents:
        """Everything that the report shows, as plain values (`poise.results.contents`)."""
        return self._contents(title, self.problem)

    def _contents(self, title: str | None, problem: Problem | None) -> Contents:
        named = self.data if title is None else title
        return contents_of(self, self.test, title=named, problem=problem, seed=self.seed)


def compare(
    specs: Iterable[Spec | str],
    problem: Problem,
    test: Features,
    *,
    selection: Protocol = "held_out",
    seeds: Sequence[int] = (0,),
    nulls: Sequence[Spec | str] = NULLS,
    budget: int = BUDGET,
    groups: Tensor | Sequence[object] | None = None,
    folds: int = FOLDS,
    search: str | Sequence[Rung] = "full",
    recipes: bool = True,
    oracle: Oracle | None = None,
    strict: bool = False,
    data: str = "features",
    level: float = 0.95,
    rounds: int = 2000,
    progress: Progress | None = None,
) -> Compared:
    """Tune every method with the same budget, then read the test split once.

    Printed, what it finds is the table and the verdict; see `Compared` for the report, a data frame and LaTeX.

    `specs` are methods or their texts; the baseline and the `nulls`, tau-norm and logit adjustment, are added.
    What a spec states is held, what it leaves open is tuned over at most `budget` settings (`grids.default_grid`).
    Beside every tuned row stands one of role "recipe": the spec as stated, or the first published recipe of a method
    that is given by its name alone; recipes never enter tied set, recommendation or verdict. `recipes` False leaves
    them out. One is always run: `converged+logit_adjustment`, logistic regression minus log prior.

    `selection`: "held_out" and "kfold" as in `tune`; "cross_fit" chooses on one half of the test split and scores on
    the other, in turn: a last resort for benchmarks without other labelled rows; "paper" is the papers' own protocol,
    the best test epoch of every recipe and the best test setting of every closed form, test logits averaged over the
    stored views (exactly so for heads without unit norm): for comparison with published tables, without a verdict.

    `search`: "full" fits every setting in full. "halving" and "sketch" (or your own `elimination.Rung`s) look at all
    trained settings in a cheaper way first, alike for every method, and fit the better ones of each in full; "paper"
    tunes nothing that is trained.

    `seeds` train the final heads; settings are chosen with the first. `groups` (N,) of training rows stay together in
    K folds, and so do copies of a row. `oracle` estimates what a head could gain at all (`oracle.oracle_accuracy`).
    Balanced accuracy decides throughout.

    Rows that two of training, held-out and test rows share are remarked, and refused where they are many (see
    `poise.values.overlap`) or with `strict`.

    The baseline is the stage-1 head. Without one, plain cross-entropy is tuned by the same rule and budget and takes
    its place, so that a poor baseline does not make the others look good; a remark names its settings.

    Raises: MemorisedRowsError for selection or test rows that trained the representation, and for splits that share
    rows; InputError for a rule without its rows, a test split that does not fit, or no seed.
    """
    schedule = scheduled(
        specs,
        problem,
        selection=selection,
        nulls=nulls,
        budget=budget,
        search=search,
        recipes=recipes,
        folds=folds,
        seeds=seeds,
    )
    found = run(
        schedule,
        problem,
        test,
        groups=groups,
        oracle=oracle,
        strict=strict,
        data=data,
        level=level,
        rounds=rounds,
        progress=progress,
    )
    known = {each.name: getattr(found, each.name) for each in fields(found)}
    return Compared(**known, data=data, problem=problem, test=test, seed=schedule.seeds[0])
