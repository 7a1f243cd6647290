"""Verbs that find out: demo, inspect, audit, methods."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli import completion
from poise.cli.fit import fit
from poise.cli.images import samples_in
from poise.cli.inputs import load_inputs
from poise.cli.options import Goal, HeadFile, ItemColumns, Rows, Seed, Training, Voice, out_of
from poise.cli.shared import (
    answer,
    command_line,
    fit_of,
    progress_bar,
    say_estimate,
    say_replaced,
    say_written,
    tell,
    writing,
)
from poise.values.checks import existing

if TYPE_CHECKING:
    from poise.cli.inputs import Inputs
    from poise.data.samples.sample_set import Samples
    from poise.selection.audit import Audit


def demo(
    *,
    features: Annotated[
        str,
        typer.Option(
            "--set", help="cifar100lt_r32_autoaugment or cifar100lt_r32.", autocompletion=completion.demo_sets
        ),
    ] = "cifar100lt_r32_autoaugment",
    text: Annotated[
        bool, typer.Option("--text", help="Questions to a bank instead of images (needs the extra `text`).")
    ] = False,
    images: Annotated[
        bool,
        typer.Option(
            "--images", help="Photographs of clothing, as `poise fit` reads yours (needs the extra `photos`)."
        ),
    ] = False,
    seed: Seed = 0,
    out: Annotated[Path | None, out_of("runs/demo/NAME")] = None,
    voice: Voice,
) -> None:
    """Tune every method on real long-tailed features, read the test split once, and judge."""
    if text and images:
        raise typer.BadParameter("--text and --images exclude each other")
    if images:
        from poise.data.bundled import unpack_photographs

        to = out or Path("runs/demo/clothing")
        with writing(to):  # refused before anything is unpacked; fit claims it anew
            source = str(unpack_photographs(to.with_name(f"{to.resolve().name}_photographs")))
        fit(
            source, out=to, goal=Goal(), rows=Rows(), seed=seed, columns=ItemColumns(), training=Training(), voice=voice
        )
        return
    from poise.commands.demo import DEMO, TEXT_SETS
    from poise.data.bundled import DEMO_SETS
    from poise.values.checks import check_one_of

    check_one_of("--set", features, DEMO_SETS)
    titles = TEXT_SETS if text else {features: DEMO_SETS[features]}
    folders = {name: (out or Path("runs/demo")) / f"{'text_' if text else ''}{name}" for name in titles}
    if out is not None and not text:
        folders = {features: out}
    with ExitStack() as claims:
        for folder in folders.values():
            claims.enter_context(writing(folder, DEMO))
        results = {name: _shown(name, title, text, seed, folders[name], voice) for name, title in titles.items()}
    if voice.as_json:
        answer(results if text else results[features], [], voice)


def _shown(name: str, title: str, text: bool, seed: int, folder: Path, voice: Voice) -> dict[str, Any]:
    """Run one set, say and write what came of it; the comparison as plain data."""
    from poise.commands import run_folder
    from poise.commands.demo import DEMO, contents, recommended_model, run_demo, run_text_demo
    from poise.machine.folders import generation, moved
    from poise.report.text import score_tables

    say_replaced(folder, "comparison.json", quiet=voice.silent)
    if not (text or voice.silent):
        _say_demo(name)
    begun = time.perf_counter()
    with progress_bar("training heads", quiet=voice.silent) as report:
        shown = (run_text_demo if text else run_demo)(name, seed=seed, progress=report)
    found = shown.comparison
    took = f"{len(found.standings)} rows in {time.perf_counter() - begun:.0f} s"
    table = score_tables.to_terminal(found.rows, title=title)
    tell([table, score_tables.LEGEND, *shown.notes, "", found.verdict(), "", took], voice)
    with progress_bar("writing the report", quiet=voice.silent):
        page = contents(shown, title=title, seed=seed, command=command_line())
        model = recommended_model(shown, seed)
        with generation(folder, replaces=DEMO) as stage:
            written = run_folder.write(stage, found, contents=page, notes=shown.notes)
            written += [] if model is None else [model.save(stage / "model")]
    say_written(moved(written, stage, folder), voice)
    return found.to_dict()


def _say_demo(name: str) -> None:
    """How long the demonstration may take, on standard error."""
    from poise.commands.demo import demo_specs
    from poise.commands.workload import work_of_comparison
    from poise.data.bundled import load_demo
    from poise.selection.schedule import scheduled

    _, problem, test = load_demo(name)
    say_estimate(work_of_comparison(scheduled(demo_specs(), problem), problem, len(test)), problem, test, quiet=False)


def inspect(
    train: Annotated[
        str,
        typer.Argument(
            help="Feature rows, a run, a folder of images, a table, a list file, an archive, or a JSON file of counts."
        ),
    ],
    *,
    rows: Rows,
    head: HeadFile = None,
    columns: ItemColumns,
    every: Annotated[bool, typer.Option("--all", help="Read every image, to count those that are broken.")] = False,
    voice: Voice,
) -> None:
    """Profile training rows, images or texts before anything is trained: sizes, groups, memorisation, what follows."""
    from poise.commands.inspect_rows import inspect_features

    if Path(train).suffix == ".json" and Path(train).is_file():
        _inspect_counts(Path(train), voice)
        return
    asked = columns.asked(rows)
    samples = samples_in(train, asked=asked)
    if samples is not None:
        _inspect_samples(samples, train, every=every, asked=asked, voice=voice)
        return
    read = load_inputs(train, rows, head=head, quiet=voice.silent)
    problem = read.problem
    given: dict[str, object] = {"--label": rows.label, "--groups": rows.groups, "--ignore": rows.ignore}
    given |= {"--head": head, "--seen": rows.seen, "--unseen": rows.seen is False, "--held-out": rows.held_out}
    with progress_bar("looking at rows", quiet=voice.silent):
        found = inspect_features(problem.train, head=problem.head, held_out=problem.held_out, groups=read.groups)
    columns_said = _named(read.columns, rows.ignore)
    answer(
        found.to_dict(),
        [read.name, *found.lines(), *columns_said, "", *found.advice, "", _next(train, read, given)],
        voice,
        remarks=read.remarks,
    )


def _inspect_counts(path: Path, voice: Voice) -> None:
    """The sizes of classes and groups of a JSON file that holds a list of counts."""
    from poise.data.samples.lists import read_counts
    from poise.values.wording import counted

    counts = read_counts(path)
    groups = {
        name: {"classes": int(mask.sum()), "rows": int(counts.n[mask].sum())} for name, mask in counts.shots().items()
    }
    rows, classes = int(counts.n.sum()), len(counts)
    answer(
        {"rows": rows, "classes": classes, "imbalance": counts.imbalance, "groups": groups},
        [
            f"{path}: {counted(rows, 'sample')}, {classes} classes, imbalance {counts.imbalance:.4g}",
            *(
                f"{name}: {counted(found['classes'], 'class', 'classes')}, {counted(found['rows'], 'sample')}"
                for name, found in groups.items()
            ),
        ],
        voice,
    )


def _inspect_samples(
    samples: "dict[str, Samples]", path: str, *, every: bool, asked: Mapping[str, Any], voice: Voice
) -> None:
    """What is in a source of samples that is read as `asked`, as `poise inspect` says it."""
    from poise.commands.inspect_samples import survey

    with progress_bar("looking at samples", quiet=voice.silent) as report:
        found = survey(samples, read=None if every else 64, progress=report)
    options = {"--groups" if key == "group" else f"--{key}": value for key, value in asked.items()}
    following = ["", f"next: {fit_of(path, options)}"] if "train" in samples else []
    answer(found.to_dict(), [path, *found.lines(), "", *found.advice, *following], voice)


def _next(train: str, read: "Inputs", asked: Mapping[str, object]) -> str:
    """The command that makes a model of these rows, with the options that they were read with."""
    known, unseen = read.problem.train.seen_by_backbone, read.problem.held_out is not None
    needs = not unseen and (known or read.problem.head is not None)
    return f"next: {fit_of(train, {**asked, '--held-out': 'MORE'} if needs else asked)}"


def _named(columns: tuple[str, ...] | None, ignored: str) -> list[str]:
    """The columns taken for features, so that a year or an identifier among them is seen, and those left out."""
    if columns is None:
        return []
    left_out = f"; ignored: {ignored}" if ignored else ""
    return [f"features: {', '.join(columns if len(columns) <= 8 else (*columns[:4], '...', *columns[-3:]))}{left_out}"]


def audit(
    logits: Annotated[
        Path, typer.Argument(help="A .npz or .safetensors file with logits, labels and counts of the training split.")
    ],
    *,
    budget: Annotated[int, typer.Option(min=1, help="Settings tried per adjustment.")] = 16,
    seed: Seed = 0,
    out: Annotated[Path | None, out_of("runs/audit")] = None,
    voice: Voice,
) -> None:
    """Judge saved logits of any repository: groups, calibration, adjustments that need no features, and a verdict."""
    from poise.commands.run_folder import COMPARISON

    with writing(out or Path("runs/audit"), COMPARISON) as folder:
        _audit(logits, budget, seed, folder, voice)


def _audit(logits: Path, budget: int, seed: int, folder: Path, voice: Voice) -> None:
    from poise.data.logit_files import read_logits
    from poise.selection.audit import audit

    read = read_logits(existing(logits))
    held_out = None
    if read.held_out_logits is not None and read.held_out_y is not None:
        held_out = (read.held_out_logits, read.held_out_y)
    with progress_bar("judging logits", quiet=voice.silent):
        found = audit(
            read.logits,
            read.y,
            read.counts,
            held_out=held_out,
            class_names=read.class_names,
            budget=budget,
            seed=seed,
            data=logits.name,
        )
    _tell_audit(found, logits.name, folder, seed, voice)


def _tell_audit(found: "Audit", name: str, folder: Path, seed: int, voice: Voice) -> None:
    """Write what saved logits are worth, and say it."""
    from poise.commands import run_folder
    from poise.diagnosis.report_contents import contents_of
    from poise.machine.folders import generation, moved
    from poise.report.text import score_tables
    from poise.results.protocol import protocol_lines

    comparison, data = found.comparison, found.to_dict()
    notes = protocol_lines(comparison.records)
    # The paths of every strength and the sweep of priors are for plotting, not for a terminal.
    page = contents_of(
        comparison, found.rows, title=name, more_paths=[found.shown_path()], seed=seed, command=command_line()
    )
    say_replaced(folder, "audit.json", quiet=voice.silent)
    with generation(folder, replaces=run_folder.COMPARISON) as stage:
        written = run_folder.write(stage, comparison, contents=page, notes=notes)
        written.append(run_folder.write_json(stage / "audit.json", data))
    adjusted: list[Any] = [
        score_tables.to_terminal(comparison.rows, title="adjusted"),
        score_tables.LEGEND,
        "",
        comparison.verdict(),
    ]
    answer(
        data,
        [score_tables.as_given(found.scores, title=f"{name} as given"), "", *adjusted, "", *notes],
        voice,
        written=moved(written, stage, folder),
    )


def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A method to explain; without one, all are listed.", autocompletion=completion.method_names
        ),
    ] = None,
    *,
    voice: Voice,
) -> None:
    """List the methods, or explain one: formula, parameters, published recipes."""
    from poise.methods import descriptions

    listing = descriptions.describe_all() if name is None else descriptions.describe(name)
    answer(listing.data, [listing.text], voice)
