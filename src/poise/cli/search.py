"""Verbs that search: compare, tune."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli import completion
from poise.cli.inputs import class_prior, load_inputs, refuse_swapped, unlabelled
from poise.cli.options import Folds, HeadFile, Rows, Search, Seed, Train, Voice, out_of
from poise.cli.shared import (
    answer,
    command_line,
    folder_for,
    progress_bar,
    refuse_several_processes,
    say_estimate,
    say_plan,
)

if TYPE_CHECKING:
    from poise.cli.inputs import Inputs
    from poise.results.record import Record
    from poise.results.scores import Scores
    from poise.selection.comparison import Comparison
    from poise.selection.schedule import Schedule
    from poise.selection.study import Tried
    from poise.values.features import Features
    from poise.values.problem import Problem
    from poise.values.spec import Spec


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
    quick: Annotated[bool, typer.Option("--quick", help="Only methods without training: seconds at any size.")] = False
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
        from poise import methods

        return self.method or [name for name in methods.available() if not (self.quick and methods.is_trained(name))]

    def scheduled(self, problem: "Problem") -> "Schedule":
        """What the comparison will run."""
        from poise.selection.schedule import scheduled

        return scheduled(
            self.methods,
            problem,
            selection=_rule(self.select, problem),  # type: ignore[arg-type]
            budget=self.budget,
            search=self.search,
            recipes=self.recipes,
            folds=self.folds,
            seeds=range(self.seed, self.seed + self.seeds),
        )


def _rule(select: str | None, problem: "Problem") -> str:
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
        bool, typer.Option("--strict", help="Refuse a test split that shares rows with the training rows.")
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
    from poise.commands.workload import foreseen, work_of_comparison
    from poise.machine.processes import started
    from poise.selection.compare import run
    from poise.selection.oracle import oracle_accuracy

    contest.check()
    read = load_inputs(train, rows, test=test, head=head, carve_test=True, seed=contest.seed, quiet=voice.silent)
    assert read.test is not None
    schedule = contest.scheduled(read.problem)
    work = work_of_comparison(schedule, read.problem, len(read.test), oracle=contest.oracle)
    if dry_run:
        say_plan(work, foreseen(work, read.problem, read.test), voice, remarks=read.assumed)
        return
    folder = folder_for(out or Path("runs/compare"), "comparison.json", voice)
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
        _tell_comparison(read, found, more, folder, contest.seed, voice)


def _tell_comparison(
    read: "Inputs", found: "Comparison", more: dict[str, Any], folder: Path, seed: int, voice: Voice
) -> None:
    """Write a comparison and its report, and say it; `more` is what more labelled rows would give."""
    from poise.commands import run_folder
    from poise.diagnosis.report_contents import contents_of
    from poise.report.text import terminal
    from poise.report.text.label_advice import headroom_lines
    from poise.results.protocol import protocol_lines

    assert read.test is not None
    advised = ["", *headroom_lines(more["learning_curve"], more["advice"])] if more else []
    notes = protocol_lines(found.records)
    with progress_bar("writing the report", quiet=voice.silent):
        page = contents_of(found, read.test, title=read.name, problem=read.problem, seed=seed, command=command_line())
        written = run_folder.write(folder, found, contents=page.model_copy(update=more), notes=notes)
    answer(
        {**found.to_dict(), **({"headroom": advised} if more else {})},
        [terminal.to_terminal(found.rows, title=read.name), terminal.LEGEND, "", found.verdict(), *advised, "", *notes],
        voice,
        written=written,
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


@dataclass(frozen=True)
class Tuning:
    """What decides among the settings of one method, and which of them are tried."""

    select: Annotated[
        str | None,
        typer.Option(
            help="held_out or kfold. (default: held_out if given, else kfold)",
            autocompletion=completion.tune_selections,
        ),
    ] = None
    metric: Annotated[
        str,
        typer.Option(
            help="What decides: balanced_accuracy, accuracy, macro_f1, many, medium, few.",
            autocompletion=completion.metrics,
        ),
    ] = "balanced_accuracy"
    budget: Annotated[
        int | None,
        typer.Option(
            min=1, help="Settings tried; with --study by all processes together. (default: 16, with --study 64)"
        ),
    ] = None
    search: Search = "full"
    random: Annotated[bool, typer.Option("--random", help="Draw the settings at random instead of a grid.")] = False
    study: Annotated[
        Path | None,
        typer.Option(
            help="Search in a folder that any number of processes share: run the same command in each (needs the extra "
            "`search`). Settings that a killed process had in hand are tried again."
        ),
    ] = None
    together: Annotated[int, typer.Option(min=1, help="With --study: settings trained in one pass.")] = 16
    unlabelled: Annotated[
        str | None, typer.Option(help="Choose without labels: rows whose predicted classes should match --prior.")
    ] = None
    prior: Annotated[
        str | None,
        typer.Option(help="With --unlabelled: uniform (default), train, or a JSON file {class name: share}."),
    ] = None
    folds: Folds = 5
    seed: Seed = 0

    def check(self, out: Path | None) -> None:
        """Raises: InputError for a word that there is not, and for options that exclude each other."""
        from poise.errors import InputError
        from poise.selection.elimination import SEARCHES
        from poise.selection.rules import METRICS
        from poise.values.checks import check_one_of

        check_one_of("--select", self.select or "kfold", ("held_out", "kfold"))
        check_one_of("--search", self.search, SEARCHES)
        check_one_of("--metric", self.metric, METRICS)
        if self.prior is not None and self.unlabelled is None:
            raise InputError("--prior chooses together with --unlabelled ROWS; without them, labelled rows choose")
        beside = {"random": self.random, "unlabelled": self.unlabelled, "out": out, "search": self.search != "full"}
        others = ", ".join(f"--{name}" for name, value in beside.items() if value not in (None, False))
        if self.study is not None and others:
            raise InputError(
                f"--study draws its own settings, reads labels and writes into its folder; leave out {others}"
            )

    def grid(self, spec: "Spec") -> "tuple[Spec, ...]":
        """The settings to try."""
        from poise.selection import grids

        return (grids.sample if self.random else grids.default_grid)(spec, self.budget or grids.BUDGET, seed=self.seed)

    def how(self, read: "Inputs") -> dict[str, Any]:
        """What a search of a grid and a study are both told."""
        return {
            "select": _rule(self.select, read.problem),
            "metric": self.metric,
            "seed": self.seed,
            "folds": self.folds,
            "groups": read.groups,
        }


def tune(
    train: Train,
    method: Annotated[
        str,
        typer.Argument(
            help="The method to tune, such as 'crt' or 'los(delta=0.95)'.", autocompletion=completion.method_chain
        ),
    ],
    *,
    rows: Rows,
    head: HeadFile = None,
    tuning: Tuning,
    out: Annotated[Path | None, out_of("runs/tune")] = None,
    voice: Voice,
) -> None:
    """Choose the settings of one method on held-out rows or by cross-validation; no test split is read.

    With --study FOLDER the search goes on where it stopped, and the same command in other terminals, or in jobs of a
    cluster that see the folder, takes part in it. Each stops when --budget settings are tried or being tried.

    Without it, processes started by torchrun share the training rows: `torchrun --nproc-per-node 2 -m poise tune ...`.
    """
    from poise.methods import from_spec
    from poise.values.spec import Spec

    tuning.check(out)
    refuse_swapped(train, method)
    spec = Spec.parse(method)
    from_spec(spec)
    read = load_inputs(train, rows, head=head, seed=tuning.seed, quiet=voice.silent)
    if tuning.study is not None:
        refuse_several_processes("a study", "start the command itself as often as you like")
        _studied(read, spec, tuning, tuning.study, voice)
    elif tuning.unlabelled is not None:
        _matched(read, spec, tuning, tuning.unlabelled, out, rows.ignore, voice)
    else:
        _searched(read, method, tuning, out, voice)


def _searched(read: "Inputs", method: str, tuning: Tuning, out: Path | None, voice: Voice) -> None:
    """Measure every setting on held-out rows or by cross-validation, and say which is best."""
    from poise.commands import run_folder
    from poise.commands.workload import work_of_search
    from poise.machine.processes import started
    from poise.report.text import terminal
    from poise.selection.tune import tune
    from poise.values.spec import Spec

    folder = folder_for(out or Path("runs/tune"), "records.jsonl", voice)
    grid, how = tuning.grid(Spec.parse(method)), tuning.how(read)
    work = work_of_search(grid, read.problem, select=how["select"], search=tuning.search, folds=tuning.folds)
    say_estimate(work, read.problem, quiet=voice.silent)
    with started() as world, progress_bar("training heads", quiet=voice.silent or not world.first) as report:
        problem = replace(read.problem, world=world)
        best, records = tune(grid, problem, search=tuning.search, data=read.name, progress=report, **how)
    if not world.first:
        return
    ordered = sorted(records, key=lambda record: -(getattr(record.scores, tuning.metric) or 0.0))
    answer(
        {"best": str(best), "records": [record.to_dict() for record in ordered]},
        [terminal.trials(_by_name(ordered), title=f"{method} on {read.name}"), "", f"best: {best}"],
        voice,
        written=[run_folder.write_records(folder, ordered)],
        remarks=read.assumed,
    )


def _by_name(tried: "Sequence[Record] | Sequence[Tried]") -> list[tuple[str, "Scores"]]:
    """The scores of settings by what tells them apart."""
    from poise.methods import told_apart

    return list(zip(told_apart([each.method for each in tried]), (each.scores for each in tried), strict=True))


SHOWN = 16  # trials of a study in the table; all are in its file


def _studied(read: "Inputs", spec: "Spec", tuning: Tuning, folder: Path, voice: Voice) -> None:
    """Work at a study and say where it stands."""
    from poise.report.text import terminal
    from poise.selection.rules import Judging
    from poise.selection.study import study

    budget, together, judging = tuning.budget or 64, tuning.together, Judging(**tuning.how(read))
    with progress_bar("settings of the study", quiet=voice.silent) as report:
        found = study(spec, read.problem, folder, judging, trials=budget, together=together, progress=report)
    ordered = found.ranked
    others = len(ordered) - found.own
    lines = [f"settings tried: {len(ordered)}, of them {found.own} now and {others} earlier or by other processes"]
    if found.repeated:
        lines.append(f"settings taken over from processes that had ended: {found.repeated}")
    if found.running:
        lines.append(f"settings that other processes are trying: {found.running}; this is not the last word")
    lines += ["", f"best: {found.best}" if found.best else "best: not known before the first setting is measured"]
    title = f"{spec} on {read.name}" + (f", the best {SHOWN}" if len(ordered) > SHOWN else "")
    table: list[Any] = [terminal.trials(_by_name(ordered[:SHOWN]), title=title), ""] if ordered else []
    answer(
        {
            "best": None if found.best is None else str(found.best),
            "trials": [{"method": tried.method, "value": tried.value, "trial": tried.number} for tried in ordered],
            "own": found.own,
            "running": found.running,
            "repeated": found.repeated,
        },
        [*table, *lines],
        voice,
        written=[found.written],
        remarks=read.assumed,
    )


def _matched(
    read: "Inputs", spec: "Spec", tuning: Tuning, file: str, out: Path | None, ignore: str, voice: Voice
) -> None:
    """Say which strength has the predicted marginal on the rows of a file that is nearest to the prior."""
    from poise.commands import run_folder
    from poise.selection.tune import match_marginal

    folder = folder_for(out or Path("runs/tune"), "marginal.json", voice)
    rows = unlabelled(file, read.columns, ignore)
    prior = class_prior(tuning.prior or "uniform", read.problem.train.names)
    matched = match_marginal(tuning.grid(spec), read.problem, rows.x, prior=prior, seed=tuning.seed)
    nats = {str(setting): value for setting, value in matched.divergences.items()}
    said = [f"  {setting}: {value:.5f}" for setting, value in nats.items()]
    lines = ["divergence of the predicted marginal from the prior, in nats:", *said, f"best: {matched.best}"]
    data = {"best": str(matched.best), "divergences": nats}
    answer(data, lines, voice, written=[run_folder.write_json(folder / "marginal.json", data)], remarks=read.remarks)
