"""The verb that makes a model."""

import warnings
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli import completion
from poise.cli.inputs import class_prior, load_inputs, per_class
from poise.cli.options import Goal, HeadFile, ItemColumns, Rows, Seed, Training, Voice
from poise.cli.shared import (
    answer,
    command_line,
    progress_bar,
    refuse_several_processes,
    say_estimate,
    say_replaced,
    writing,
)

if TYPE_CHECKING:
    from poise.cli.inputs import Inputs
    from poise.deployment.calibration import Deployed
    from poise.deployment.model import Model


def fit(
    train: Annotated[
        str,
        typer.Argument(
            help="Images or texts: a folder with one folder per class, a table, a list, an archive. Or feature rows: a "
            "run of `poise train`, a store folder, .csv, .tsv, .parquet, .npz, .npy or .safetensors; FILE#NAME for one "
            "split of several."
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the model.")] = Path("runs/model"),
    method: Annotated[
        str,
        typer.Option(
            "--method",
            "-m",
            help="auto, or a method such as 'balanced_softmax' or 'tau_norm(tau=0.7)'.",
            autocompletion=completion.fit_methods,
        ),
    ] = "auto",
    goal: Goal,
    rows: Rows,
    head: HeadFile = None,
    seed: Seed = 0,
    columns: ItemColumns,
    training: Training,
    voice: Voice,
) -> None:
    """Choose, fit and calibrate a head for your class prior, and write a folder that `poise predict` reads.

    Of feature rows this makes a head. Of images (a folder with one folder per class, a table, a list, an archive) or
    texts (--text COLUMN) it makes everything, and writes backbone and head. A published backbone never saw the rows:
    all of them choose the head by cross-validation, and it is fitted on all of them. For a backbone that is trained
    here, rows are set aside first, and heads are compared on these. The same command goes on where it was stopped.
    """
    from poise.cli.images import fit_images, samples_in
    from poise.errors import InputError

    refuse_several_processes("fit", "share out `poise train`, then `poise fit RUN --out RUN` in one")
    asked = columns.asked(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what there is to warn of is said when the samples are divided
        samples = samples_in(train, asked=asked, recipe=training.recipe, changes=training.settings)
    if samples is None:
        if training.recipe or training.backbone or training.settings:
            raise InputError(
                f"--recipe, --backbone, --broken and --set are for images or texts; {train} holds feature rows"
            )
        _fit_rows(train, out, method, goal, rows, head, seed, voice)
        return
    if goal.costs is not None or head is not None or rows.held_out is not None:
        raise InputError(
            "--costs, --head and --held-out are for feature rows; name held-out images with -s data.held_out=PATH"
        )
    if rows.seen:
        raise InputError(
            "--seen is for feature rows; where the weights know these samples by heart, give the weights "
            "(-s backbone.weights=FILE) and samples that they never saw (-s data.held_out=PATH), which then choose"
        )
    fit_images(samples, train, out, method=method, goal=goal, training=training, asked=asked, seed=seed, voice=voice)


def _fit_rows(
    train: str, out: Path, method: str, goal: Goal, rows: Rows, head: Path | None, seed: int, voice: Voice
) -> None:
    """From feature rows to a deployable folder."""
    from poise.commands.predict import refuse_mixture
    from poise.deployment.model import replaced_in

    refuse_mixture(train, out)
    with writing(out, replaced_in(out)):
        _fit_rows_into(out, train, method, goal, rows, head, seed, voice)


def _fit_rows_into(
    out: Path, train: str, method: str, goal: Goal, rows: Rows, head: Path | None, seed: int, voice: Voice
) -> None:
    from poise.commands.workload import work_of_fit
    from poise.deployment.deploy import deploy

    read = _rows_to_fit(train, rows, head, seed, voice)
    names = read.problem.train.names
    targets = goal.targets(None if goal.costs is None else per_class(goal.costs, names, default=1.0))
    prior = class_prior(goal.prior, names)
    if targets.need_rows and read.problem.held_out is None:
        read = read.with_rows_aside(seed)
    problem = read.problem
    say_replaced(out, "model.json", quiet=voice.silent)
    say_estimate(work_of_fit(problem, method), problem, quiet=voice.silent)
    with progress_bar("fitting", quiet=voice.silent) as report:
        made = deploy(
            problem,
            method=method,
            prior=prior,
            targets=targets,
            groups=read.groups,
            certify=read.deciding,
            seed=seed,
            progress=report,
        )
    model = made.model.with_provenance(data=read.name, columns=None if read.columns is None else list(read.columns))
    expected = _expected(made, prior)
    written = _written(made._replace(model=model), read, train, out, expected)
    promised = {name: model.provenance[name] for name in ("unseen_recall", "promise")}
    answer(
        {"method": model.method, "classes": len(model.class_names), "path": str(out), **promised},
        _said_of(model, goal.prior, expected, out),
        voice,
        written=written,
        remarks=read.assumed,
    )


def _rows_to_fit(train: str, rows: Rows, head: Path | None, seed: int, voice: Voice) -> "Inputs":
    """The rows that a head is made of.

    Raises: InputError as `load_inputs`, with a hint where no column is a number; for a head without held-out rows.
    """
    from poise.errors import InputError

    try:
        read = load_inputs(train, rows, head=head, seed=seed, quiet=voice.silent)
    except InputError as error:
        if "no numeric column" not in str(error):
            raise
        raise InputError(
            f"{error}; for images or texts, name their column with --image or --text", *error.arguments
        ) from None
    if head is not None and read.problem.held_out is None:
        raise InputError("--head needs --held-out: rows that neither the head nor the backbone saw")
    return read


def _said_of(model: "Model", prior: str, expected: list[str], out: Path) -> list[str]:
    """A fitted model in lines."""
    from poise.commands.predict import reads_samples
    from poise.decisions.targets import guarantee_in_words

    applied = "none: probabilities are plain softmax values" if model.prior_applied is None else prior
    return [
        f"method: {model.method}{_made_of(model)}",
        f"classes: {len(model.class_names)}; prior: {applied}",
        *expected,
        *([f"operating point: {', '.join(model.operating.described())}"] if model.operating else []),
        *guarantee_in_words(model.provenance.get("guaranteed")),
        f"next: poise predict {quote(str(out))} {'MORE' if reads_samples(out) else 'ROWS'}",
    ]


def _made_of(model: "Model") -> str:
    """The heaviest heads of an average, in words; nothing for a model that is none."""
    parts = (model.provenance.get("estimator") or {}).get("choice") or []
    if not parts:
        return ""
    heavy = max(parts, key=lambda part: part["weight"])
    return f", an average of {len(parts)} heads, {100 * heavy['weight']:.0f} % {heavy['method'].split('(')[0]}"


def _expected(made: "Deployed", target: Any) -> list[str]:
    """What may be expected on unseen rows, as a line; none if there were no such rows."""
    from poise.deployment.deploy import expectation

    return [] if made.evidence is None else [expectation(made.model.promise, target)]


def _written(made: "Deployed", read: "Inputs", train: str, out: Path, expected: list[str]) -> list[Path]:
    """Write the model, the backbone of its rows, and its report, as one."""
    from poise.commands.predict import carry_backbone
    from poise.deployment.model import replaced_in, write
    from poise.machine.folders import generation, moved

    with generation(out, replaces=replaced_in(out)) as stage:
        carry_backbone(Path(train), out, stage)
        write(made.model, stage)
        report = _report(made, read, stage, expected)
    return [out, *moved(report, stage, out)]


def _report(made: "Deployed", read: "Inputs", out: Path, expected: list[str]) -> list[Path]:
    """Write what the rows that chose a model say of it; nothing if there were no such rows."""
    from poise.diagnosis.report_contents import contents_of_model
    from poise.report.files import write_report

    if not expected:
        return []
    page = contents_of_model(
        made,
        title=read.name,
        sentence=f"{made.model.method}: {expected[0]}.",
        held_out=read.problem.held_out is not None,
        command=command_line(),
        notes=read.assumed,
    )
    return write_report(out, page)
