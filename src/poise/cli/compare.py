"""The verb that tries many methods: compare."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli import completion
from poise.cli.inputs import load_inputs
from poise.cli.options import Folds, HeadFile, Rows, Search, Seed, Train, Voice, out_of
from poise.cli.shared import answer, command_line, progress_bar, say_estimate, say_plan, say_replaced, writing

if TYPE_CHECKING:
    from poise.cli.inputs import Inputs
    from poise.selection.comparison_result import Comparison
    from poise.selection.schedule import Schedule
    from poise.values.features import Features
    from poise.values.problem import Problem


@dataclass(frozen=True)
class Contest:
    """What `compare` tries, and how it is judged."""

    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "-m",
            help="A method such as 'crt' or 'los(delta=0.95)'; repeat. (default: all)",
            autocompletion=completion.method_chain,
        ),
    ] = None
    quick: Annotated[
        bool, typer.Option("--quick", help="Only methods without training, and one logistic regression beside them.")
    ] = False
    select: Annotated[
        str | None,
        typer.Option(
            help="held_out, kfold, cross_fit or paper. (default: held_out if given, else kfold)",
            autocompletion=completion.selections,
        ),
    ] = None
    oracle: Annotated[
        bool, typer.Option("--oracle/--no-oracle", help="Estimate what any head could gain, with test labels.")
    ] = True
    budget: Annotated[int, typer.Option(min=1, help="Settings tried per method.")] = 16
    search: Search = "full"
    recipes: Annotated[
        bool, typer.Option("--recipes/--no-recipes", help="Run each method also as its source states it.")
    ] = True
    folds: Folds = 5
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds of the final heads.")] = 1
    seed: Seed = 0

    def check(self) -> None:
        """Raises: InputError for a rule or a search that there is not."""
        from poise.selection.elimination import SEARCHES
        from poise.values.checks import check_one_of

        check_one_of("--select", self.select or "kfold", ("held_out", "kfold", "cross_fit", "paper"))
        check_one_of("--search", self.search, SEARCHES)

    @property
    def methods(self) -> list[str]:
        """The methods that were named, or all; with `quick` those that need no training."""
        if self.method:
            return self.method
        from poise.methods import available

        return [name for name in available() if not (self.quick and _searches(name))]

    @property
    def left_out(self) -> list[str]:
        """A line on the methods that `quick` left out."""
        from poise.methods import available

        if not self.quick or self.method:
            return []
        trained = [name for name in available() if _searches(name)]
        return [
            f"--quick tried only what needs no training: {len(trained)} methods were left out ({', '.join(trained)}), "
            "any of which may be better; compare without it before you settle on a head."
        ]

    def scheduled(self, problem: "Problem") -> "Schedule":
        """What the comparison will run."""
        from poise.selection.schedule import scheduled

        return scheduled(
            self.methods,
            problem,
            selection=rule_of(self.select, problem),  # type: ignore[arg-type]
            budget=self.budget,
            search=self.search,
            recipes=self.recipes,
            folds=self.folds,
            seeds=range(self.seed, self.seed + self.seeds),
        )


def _searches(name: str) -> bool:
    """Does the method go to its head step by step, which takes long on many rows?"""
    from poise.methods import entries, is_trained

    return is_trained(name) or entries()[name].traits.search_error > 0


def rule_of(select: str | None, problem: "Problem") -> str:
    """What chooses settings: what was asked for, else held-out rows where there are any."""
    return select or ("kfold" if problem.held_out is None else "held_out")


def compare(
    train: Train,
    test: Annotated[
        str | None, typer.Option(help="Test rows, read once at the end. (default: a fifth of the rows)")
    ] = None,
    *,
    rows: Rows,
    head: HeadFile = None,
    contest: Contest,
    headroom: Annotated[
        bool, typer.Option("--headroom", help="Say what more labelled rows would give, and for which classes.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse any row that is in two of training, held-out and test rows.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be tried and how long it may take, and stop.")
    ] = False,
    out: Annotated[Path | None, out_of("runs/compare")] = None,
    voice: Voice,
) -> None:
    """Tune methods with equal budgets, read the test split once, and say which head to use, if any.

    Words: the backbone is the model that made the features; the head is the linear classifier on them, the stage-1 head
    the one that you have (--head; without one, plain cross-entropy is fitted). An oracle head learns from test labels
    and shows what any head could gain. kfold: cross-validation on the training rows; held_out: on rows set aside;
    cross_fit: halves of the test split choose for each other; paper: the best test epoch, for comparison with tables.

    Processes share the training rows when started by torchrun: `torchrun --nproc-per-node 2 -m poise compare ...`.
    """
    from poise.commands.run_folder import COMPARISON

    contest.check()
    place = out or Path("runs/compare")
    with nullcontext(place) if dry_run else writing(place, COMPARISON) as folder:
        _compare(train, test, rows, head, contest, folder, headroom=headroom, strict=strict, dry=dry_run, voice=voice)


def _compare(
    train: str,
    test: str | None,
    rows: Rows,
    head: Path | None,
    contest: Contest,
    folder: Path,
    *,
    headroom: bool,
    strict: bool,
    dry: bool,
    voice: Voice,
) -> None:
    """Compare, or with `dry` say what would be done."""
    from poise.commands.workload import foreseen, work_of_comparison
    from poise.machine.processes import started
    from poise.selection.compare import run
    from poise.selection.oracle import oracle_accuracy

    read = load_inputs(train, rows, test=test, head=head, carve_test=True, seed=contest.seed, quiet=voice.silent)
    assert read.test is not None
    schedule = contest.scheduled(read.problem)
    work = work_of_comparison(schedule, read.problem, len(read.test), oracle=contest.oracle)
    if dry:
        remarks = (*read.assumed, *contest.left_out)
        say_plan(work, foreseen(work, read.problem, read.test), voice, remarks=remarks)
        return
    say_replaced(folder, "comparison.json", quiet=voice.silent)
    say_estimate(work, read.problem, read.test, quiet=voice.silent)
    with started() as world, progress_bar("training heads", quiet=voice.silent or not world.first) as report:
        problem = replace(read.problem, world=world)
        found = run(
            schedule,
            problem,
            read.test,
            groups=read.groups,
            oracle=oracle_accuracy if contest.oracle else None,
            strict=strict,
            data=read.name,
            progress=report,
        )
        more = _headroom(problem, read.test, found, contest.seed) if headroom else {}
    if world.first:
        _tell_comparison(read, found, more, folder, contest, voice)


def _tell_comparison(
    read: "Inputs", found: "Comparison", more: dict[str, Any], folder: Path, contest: Contest, voice: Voice
) -> None:
    """Write a comparison and its report, and say it; `more` is what more labelled rows would give."""
    from poise.commands import run_folder
    from poise.diagnosis.report_contents import contents_of
    from poise.machine.folders import generation, moved
    from poise.report.text import score_tables
    from poise.report.text.label_advice import headroom_lines
    from poise.results.protocol import protocol_lines

    assert read.test is not None
    advised = ["", *headroom_lines(more["learning_curve"], more["advice"])] if more else []
    notes = [*protocol_lines(found.records), *contest.left_out]
    with progress_bar("writing the report", quiet=voice.silent):
        page = contents_of(
            found,
            read.test,
            title=read.name,
            problem=read.problem,
            seed=contest.seed,
            command=command_line(),
            notes=contest.left_out,
        )
        with generation(folder, replaces=run_folder.COMPARISON) as stage:
            written = run_folder.write(stage, found, contents=page.model_copy(update=more), notes=notes)
    answer(
        {**found.to_dict(), **({"headroom": advised} if more else {})},
        [
            score_tables.to_terminal(found.rows, title=read.name),
            score_tables.LEGEND,
            "",
            found.verdict(),
            *advised,
            "",
            *notes,
        ],
        voice,
        written=moved(written, stage, folder),
        remarks=(*read.assumed, *filter(None, (found.remark_on_size(),))),
    )


def _headroom(problem: "Problem", test: "Features", found: "Comparison", seed: int) -> dict[str, Any]:
    """What more labelled rows would give, as parts of a report: a curve, and advice beside the recommended head."""
    from poise.selection.labelling import advice
    from poise.selection.oracle import learning_curve

    scorers = () if found.recommended is None else found.recommended.scorers
    best = scorers[0].head if len(scorers) == 1 else None
    return {
        "learning_curve": learning_curve(problem, test, seed=seed),
        "advice": advice(problem, test, best=best, seed=seed).told,
    }
