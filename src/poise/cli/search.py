"""Verbs that search: compare, tune."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli import completion
from poise.cli.inputs import (
    Groups,
    HeadFile,
    HeldOut,
    Ignore,
    Label,
    Seen,
    Test,
    Train,
    class_prior,
    load_inputs,
    refuse_swapped,
    unlabelled,
)
from poise.cli.shared import (
    Json,
    Quiet,
    Seed,
    answer,
    command_line,
    progress_bar,
    refuse_several_processes,
    say_estimate,
    say_plan,
    say_replaced,
)

if TYPE_CHECKING:
    from poise.cli.inputs import Inputs
    from poise.comparison import Comparison
    from poise.record import Record
    from poise.selection import Matched
    from poise.spec import Spec
    from poise.studies import Tried
    from poise.types import Features, Problem, Scores

Search = Annotated[
    str,
    typer.Option(
        autocompletion=completion.searches,
        help="full: every setting is trained in full. halving: only the best sixth after 0.3 of the epochs, half the "
        "work. sketch: for large rows, looks at the settings on 128 principal axes first.",
    ),
]

__all__ = ["compare", "tune"]


def compare(
    train: Train,
    test: Test = None,
    held_out: HeldOut = None,
    head: HeadFile = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "-m",
            help="A method such as 'crt' or 'los(delta=0.95)'; repeat. (default: all)",
            autocompletion=completion.method_chain,
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only methods without training: seconds at any size.")] = False,
    select: Annotated[
        str | None,
        typer.Option(
            help="held_out, kfold, cross_fit or paper. (default: held_out if given, else kfold)",
            autocompletion=completion.selections,
        ),
    ] = None,
    oracle: Annotated[
        bool, typer.Option("--oracle/--no-oracle", help="Estimate what any head could gain, with test labels.")
    ] = True,
    headroom: Annotated[
        bool, typer.Option("--headroom", help="Say what more labelled rows would give, and for which classes.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a test split that shares rows with the training rows.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be tried and how long it may take, and stop.")
    ] = False,
    budget: Annotated[int, typer.Option(min=1, help="Settings tried per method.")] = 16,
    search: Search = "full",
    recipes: Annotated[
        bool, typer.Option("--recipes/--no-recipes", help="Run each method also as its source states it.")
    ] = True,
    folds: Annotated[int, typer.Option(min=2, help="Folds of cross-validation.")] = 5,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds of the final heads.")] = 1,
    seed: Seed = 0,
    label: Label = None,
    groups: Groups = None,
    ignore: Ignore = "",
    seen: Seen = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write into. (default: runs/compare)", show_default=False)
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tune methods with equal budgets, read the test split once, and say which head to use, if any.

    Words: the backbone is the model that made the features; the head is the linear classifier on them, the stage-1 head
    the one that you have (--head; without one, plain cross-entropy is fitted). An oracle head learns from test labels
    and shows what any head could gain. kfold: cross-validation on the training rows; held_out: on rows set aside;
    cross_fit: halves of the test split choose for each other; paper: the best test epoch, for comparison with tables.

    Processes share the training rows when started by torchrun: `torchrun --nproc-per-node 2 -m poise compare ...`.
    """
    from poise import methods, runs
    from poise.checks import check_one_of
    from poise.diagnosis import contents_of
    from poise.distributed import started
    from poise.elimination import SEARCHES
    from poise.estimates import foreseen, work_of_comparison
    from poise.headroom import oracle_accuracy
    from poise.protocols import run
    from poise.report import tables
    from poise.report.headroom import headroom_lines
    from poise.report.protocol import protocol_lines
    from poise.schedule import scheduled

    check_one_of("--select", select or "kfold", ("held_out", "kfold", "cross_fit", "paper"))
    check_one_of("--search", search, SEARCHES)
    read = load_inputs(
        train,
        test=test,
        held_out=held_out,
        head=head,
        label=label,
        groups=groups,
        ignore=ignore,
        seen=seen,
        carve_test=True,
        seed=seed,
        quiet=quiet or as_json,
    )
    assert read.test is not None
    rule = select or ("kfold" if read.problem.held_out is None else "held_out")
    chosen = method or [name for name in methods.available() if not (quick and methods.is_trained(name))]
    schedule = scheduled(
        chosen,
        read.problem,
        selection=rule,  # type: ignore[arg-type]
        budget=budget,
        search=search,
        recipes=recipes,
        folds=folds,
        seeds=range(seed, seed + seeds),
    )
    work = work_of_comparison(schedule, read.problem, len(read.test), oracle=oracle)
    if dry_run:
        say_plan(work, foreseen(work, read.problem, read.test), remarks=read.assumed, as_json=as_json, quiet=quiet)
        return
    folder = runs.prepare(out or Path("runs/compare"))
    say_replaced(folder, "comparison.json", quiet=quiet or as_json)
    say_estimate(work, read.problem, read.test, quiet=quiet or as_json)
    with started() as world, progress_bar("training heads", quiet=quiet or as_json or not world.first) as report:
        problem = replace(read.problem, world=world)
        found = run(
            schedule,
            problem,
            read.test,
            groups=read.groups,
            oracle=oracle_accuracy if oracle else None,
            strict=strict,
            data=read.name,
            progress=report,
        )
        more = _headroom(problem, read.test, found, seed) if headroom else {}
    if not world.first:
        return
    advised = ["", *headroom_lines(more["learning_curve"], more["advice"])] if headroom else []
    notes = protocol_lines(found.records)
    with progress_bar("writing the report", quiet=quiet or as_json):
        page = contents_of(found, read.test, title=read.name, problem=read.problem, seed=seed, command=command_line())
        written = runs.write(folder, found, contents=page.model_copy(update=more), notes=notes)
    answer(
        {**found.to_dict(), **({"headroom": advised} if headroom else {})},
        [tables.to_terminal(found.rows, title=read.name), tables.LEGEND, "", found.verdict(), *advised, "", *notes],
        written=written,
        remarks=(*read.assumed, *filter(None, (found.remark_on_size(),))),
        as_json=as_json,
        quiet=quiet,
    )


def _headroom(problem: "Problem", test: "Features", found: "Comparison", seed: int) -> dict[str, Any]:
    """What more labelled rows would give, as parts of a report: a curve, and advice beside the recommended head."""
    from poise.advice import advice
    from poise.headroom import learning_curve

    scorers = () if found.recommended is None else found.recommended.scorers
    best = scorers[0].head if len(scorers) == 1 else None
    return {
        "learning_curve": learning_curve(problem, test, seed=seed),
        "advice": advice(problem, test, best=best, seed=seed).told,
    }


def tune(
    train: Train,
    method: Annotated[
        str,
        typer.Argument(
            help="The method to tune, such as 'crt' or 'los(delta=0.95)'.", autocompletion=completion.method_chain
        ),
    ],
    held_out: HeldOut = None,
    head: HeadFile = None,
    select: Annotated[
        str | None,
        typer.Option(
            help="held_out or kfold. (default: held_out if given, else kfold)",
            autocompletion=completion.tune_selections,
        ),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            help="What decides: balanced_accuracy, accuracy, macro_f1, many, medium, few.",
            autocompletion=completion.metrics,
        ),
    ] = "balanced_accuracy",
    budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Settings tried; with --study by all processes together. (default: 16, with --study 64)",
            show_default=False,
        ),
    ] = None,
    search: Search = "full",
    random: Annotated[bool, typer.Option("--random", help="Draw the settings at random instead of a grid.")] = False,
    study: Annotated[
        Path | None,
        typer.Option(
            help="Search in a folder that any number of processes share: run the same command in each (needs the extra "
            "`search`). Settings that a killed process had in hand are tried again.",
            show_default=False,
        ),
    ] = None,
    together: Annotated[int, typer.Option(min=1, help="With --study: settings trained in one pass.")] = 16,
    unlabelled: Annotated[
        str | None,
        typer.Option(
            help="Choose without labels: rows whose predicted classes should match --prior.", show_default=False
        ),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            help="With --unlabelled: uniform (default), train, or a JSON file {class name: share}.", show_default=False
        ),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds of cross-validation.")] = 5,
    seed: Seed = 0,
    label: Label = None,
    groups: Groups = None,
    ignore: Ignore = "",
    seen: Seen = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write into. (default: runs/tune)", show_default=False)
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Choose the settings of one method on held-out rows or by cross-validation; no test split is read.

    With --study FOLDER the search goes on where it stopped, and the same command in other terminals, or in jobs of a
    cluster that see the folder, takes part in it. Each stops when --budget settings are tried or being tried.

    Without it, processes started by torchrun share the training rows: `torchrun --nproc-per-node 2 -m poise tune ...`.
    """
    from poise import grids, runs
    from poise.checks import check_one_of
    from poise.distributed import started
    from poise.elimination import SEARCHES
    from poise.errors import InputError
    from poise.estimates import work_of_search
    from poise.judging import METRICS
    from poise.methods import from_spec
    from poise.report import tables
    from poise.selection import tune
    from poise.spec import Spec

    check_one_of("--select", select or "kfold", ("held_out", "kfold"))
    check_one_of("--search", search, SEARCHES)
    check_one_of("--metric", metric, METRICS)
    if prior is not None and unlabelled is None:
        raise InputError("--prior chooses together with --unlabelled ROWS; without them, labelled rows choose")
    if study is not None and (
        other := _beside_a_study(random=random, unlabelled=unlabelled, out=out, search=search != "full")
    ):
        raise InputError(f"--study draws its own settings, reads labels and writes into its folder; leave out {other}")
    refuse_swapped(train, method)
    spec = Spec.parse(method)
    from_spec(spec)
    read = load_inputs(
        train,
        held_out=held_out,
        head=head,
        label=label,
        groups=groups,
        ignore=ignore,
        seen=seen,
        seed=seed,
        quiet=quiet or as_json,
    )
    rule = select or ("kfold" if read.problem.held_out is None else "held_out")
    if study is not None:
        refuse_several_processes("a study", "start the command itself as often as you like")
        how = {"select": rule, "metric": metric, "seed": seed, "folds": folds, "groups": read.groups}
        _studied(read, spec, study, budget or 64, together, how, as_json=as_json, quiet=quiet)
        return
    folder = runs.prepare(out or Path("runs/tune"))
    say_replaced(folder, "records.jsonl" if unlabelled is None else "marginal.json", quiet=quiet or as_json)
    grid = (grids.sample if random else grids.default_grid)(spec, budget or grids.BUDGET, seed=seed)
    if unlabelled is not None:
        matched = _matched(read, grid, unlabelled, prior or "uniform", ignore, seed)
        nats = {str(setting): value for setting, value in matched.divergences.items()}
        said = [f"  {setting}: {value:.5f}" for setting, value in nats.items()]
        lines = ["divergence of the predicted marginal from the prior, in nats:", *said, f"best: {matched.best}"]
        data = {"best": str(matched.best), "divergences": nats}
        answer(
            data,
            lines,
            written=[runs.write_json(folder / "marginal.json", data)],
            remarks=read.remarks,
            as_json=as_json,
            quiet=quiet,
        )
        return
    say_estimate(
        work_of_search(grid, read.problem, select=rule, search=search, folds=folds),
        read.problem,
        quiet=quiet or as_json,
    )
    with started() as world, progress_bar("training heads", quiet=quiet or as_json or not world.first) as report:
        best, records = tune(
            grid,
            replace(read.problem, world=world),
            select=rule,  # type: ignore[arg-type]
            metric=metric,
            seed=seed,
            groups=read.groups,
            folds=folds,
            search=search,
            data=read.name,
            progress=report,
        )
    if not world.first:
        return
    ordered = sorted(records, key=lambda record: -(getattr(record.scores, metric) or 0.0))
    answer(
        {"best": str(best), "records": [record.to_dict() for record in ordered]},
        [tables.trials(_by_name(ordered), title=f"{method} on {read.name}"), "", f"best: {best}"],
        written=[runs.write_records(folder, ordered)],
        remarks=read.assumed,
        as_json=as_json,
        quiet=quiet,
    )


def _by_name(tried: "Sequence[Record] | Sequence[Tried]") -> list[tuple[str, "Scores"]]:
    """The scores of settings by what tells them apart."""
    from poise.methods import told_apart

    return list(zip(told_apart([each.method for each in tried]), (each.scores for each in tried), strict=True))


def _beside_a_study(**given: object) -> str:
    """The options among these that were given, as words."""
    return ", ".join(f"--{name}" for name, value in given.items() if value not in (None, False))


SHOWN = 16  # trials of a study in the table; all are in its file


def _studied(
    read: "Inputs",
    spec: "Spec",
    folder: Path,
    budget: int,
    together: int,
    how: dict[str, Any],
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Work at a study and say where it stands."""
    from poise.judging import Judging
    from poise.report import tables
    from poise.studies import study

    judging = Judging(**how)
    with progress_bar("settings of the study", quiet=quiet or as_json) as report:
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
    table: list[Any] = [tables.trials(_by_name(ordered[:SHOWN]), title=title), ""] if ordered else []
    answer(
        {
            "best": None if found.best is None else str(found.best),
            "trials": [{"method": tried.method, "value": tried.value, "trial": tried.number} for tried in ordered],
            "own": found.own,
            "running": found.running,
            "repeated": found.repeated,
        },
        [*table, *lines],
        written=[found.written],
        remarks=read.assumed,
        as_json=as_json,
        quiet=quiet,
    )


def _matched(read: "Inputs", grid: "tuple[Spec, ...]", file: str, prior: str, ignore: str, seed: int) -> "Matched":
    """The strength whose predicted marginal on the rows of a file is nearest to the prior."""
    from poise.selection import match_marginal

    rows = unlabelled(file, read.columns, ignore)
    return match_marginal(grid, read.problem, rows.x, prior=class_prior(prior, read.problem.train.names), seed=seed)
