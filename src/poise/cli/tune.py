"""The verb that chooses the settings of one method: tune."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli import completion
from poise.cli.compare import rule_of
from poise.cli.inputs import class_prior, load_inputs, refuse_swapped, unlabelled
from poise.cli.options import Folds, HeadFile, Rows, Search, Seed, Train, Voice, out_of
from poise.cli.shared import answer, progress_bar, refuse_several_processes, say_estimate, say_replaced, writing

if TYPE_CHECKING:
    from poise.cli.inputs import Inputs
    from poise.results.record import Record
    from poise.results.scores import Scores
    from poise.selection.study import Tried
    from poise.values.spec import Spec


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
            "select": rule_of(self.select, read.problem),
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
    if tuning.study is not None:
        refuse_several_processes("a study", "start the command itself as often as you like")
    folder = tuning.study or out or Path("runs/tune")
    result = MATCHED if tuning.unlabelled else None if tuning.study else "records.jsonl"
    with writing(folder, [result] if result else (), together=tuning.study is not None):
        read = load_inputs(train, rows, head=head, seed=tuning.seed, quiet=voice.silent)
        if tuning.study is not None:
            _studied(read, spec, tuning, folder, voice)
        elif tuning.unlabelled is not None:
            _matched(read, spec, tuning, tuning.unlabelled, folder, rows.ignore, voice)
        else:
            _searched(read, method, tuning, folder, voice)


MATCHED = "marginal.json"


def _searched(read: "Inputs", method: str, tuning: Tuning, folder: Path, voice: Voice) -> None:
    """Measure every setting on held-out rows or by cross-validation, and say which is best."""
    from poise.commands import run_folder
    from poise.commands.workload import work_of_search
    from poise.machine.folders import generation
    from poise.machine.processes import started
    from poise.report.text import score_tables
    from poise.selection.tune import tune
    from poise.values.spec import Spec

    grid, how = tuning.grid(Spec.parse(method)), tuning.how(read)
    work = work_of_search(grid, read.problem, select=how["select"], search=tuning.search, folds=tuning.folds)
    say_replaced(folder, "records.jsonl", quiet=voice.silent)
    say_estimate(work, read.problem, quiet=voice.silent)
    with started() as world, progress_bar("training heads", quiet=voice.silent or not world.first) as report:
        problem = replace(read.problem, world=world)
        best, records = tune(grid, problem, search=tuning.search, data=read.name, progress=report, **how)
    if not world.first:
        return
    ordered = sorted(records, key=lambda record: -(getattr(record.scores, tuning.metric) or 0.0))
    with generation(folder, replaces=["records.jsonl"]) as stage:
        run_folder.write_records(stage, ordered)
    answer(
        {"best": str(best), "records": [record.to_dict() for record in ordered]},
        [score_tables.trials(_by_name(ordered), title=f"{method} on {read.name}"), "", f"best: {best}"],
        voice,
        written=[folder / "records.jsonl"],
        remarks=read.assumed,
    )


def _by_name(tried: "Sequence[Record] | Sequence[Tried]") -> list[tuple[str, "Scores"]]:
    """The scores of settings by what tells them apart."""
    from poise.methods import told_apart

    return list(zip(told_apart([each.method for each in tried]), (each.scores for each in tried), strict=True))


SHOWN = 16  # trials of a study in the table; all are in its file


def _studied(read: "Inputs", spec: "Spec", tuning: Tuning, folder: Path, voice: Voice) -> None:
    """Work at a study and say where it stands."""
    from poise.report.text import score_tables
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
    table: list[Any] = [score_tables.trials(_by_name(ordered[:SHOWN]), title=title), ""] if ordered else []
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


def _matched(read: "Inputs", spec: "Spec", tuning: Tuning, file: str, folder: Path, ignore: str, voice: Voice) -> None:
    """Say which strength has the predicted marginal on the rows of a file that is nearest to the prior."""
    from poise.commands import run_folder
    from poise.machine.folders import generation
    from poise.selection.tune import match_marginal

    rows = unlabelled(file, read.columns, ignore)
    prior = class_prior(tuning.prior or "uniform", read.problem.train.names)
    matched = match_marginal(tuning.grid(spec), read.problem, rows.x, prior=prior, seed=tuning.seed)
    nats = {str(setting): value for setting, value in matched.divergences.items()}
    said = [f"  {setting}: {value:.5f}" for setting, value in nats.items()]
    lines = ["divergence of the predicted marginal from the prior, in nats:", *said, f"best: {matched.best}"]
    data = {"best": str(matched.best), "divergences": nats}
    say_replaced(folder, MATCHED, quiet=voice.silent)
    with generation(folder, replaces=[MATCHED]) as stage:
        run_folder.write_json(stage / MATCHED, data)
    answer(data, lines, voice, written=[folder / MATCHED], remarks=read.remarks)
