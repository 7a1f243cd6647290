"""Verbs that make and use what is deployed: fit, predict."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli import completion
from poise.cli.inputs import class_prior, load_inputs, per_class, unlabelled, without_torch
from poise.cli.options import Goal, HeadFile, Ignore, ItemColumns, Network, Rows, Seed, Spreadsheet, Training, Voice
from poise.cli.shared import (
    answer,
    command_line,
    progress_bar,
    refuse_several_processes,
    say_estimate,
    say_replaced,
    writing,
)
from poise.values.checks import existing
from poise.values.wording import prior_in_words

if TYPE_CHECKING:
    from poise.cli.inputs import Inputs
    from poise.data.samples.sample_set import Items
    from poise.decisions.answer_files import Tallied
    from poise.decisions.operating_point import OperatingPoint
    from poise.deployment.calibration import Deployed
    from poise.deployment.model import Model
    from poise.export.onnx_prediction import Exported


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
    from poise.commands.fit import refuse_mixture
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
    from poise.commands.fit import reads_samples
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
    from poise.commands.fit import carry_backbone
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


@dataclass(frozen=True)
class Predictions:
    """The file of predictions."""

    out: Annotated[Path, typer.Option(help="A .csv or .parquet file.")] = Path("predictions.csv")
    top: Annotated[int | None, typer.Option(min=1, help="Write the K best classes instead of all probabilities.")] = (
        None
    )
    spreadsheet: Spreadsheet = False


def predict(
    model: Annotated[
        Path, typer.Argument(help="The folder that `poise fit` wrote, or an .onnx file that `poise export` wrote.")
    ],
    rows: Annotated[
        str,
        typer.Argument(
            help="What to predict: images or texts, or feature rows, whose other columns are carried along."
        ),
    ],
    *,
    file: Predictions,
    ignore: Ignore = "",
    columns: ItemColumns,
    split: Annotated[str | None, typer.Option(help="Split of the images or texts, where there are several.")] = None,
    broken: Annotated[str, typer.Option(help="error, or skip images that cannot be read.")] = "error",
    network: Network,
    voice: Voice,
) -> None:
    """Predict rows, images or texts with a fitted model: class names, confidence and probabilities, one line each."""
    from poise.machine.locks import claimed

    with claimed(file.out, "choose another place with --out"):
        _predict(model, rows, file, ignore, columns, split, broken, network, voice)


def _predict(
    model: Path,
    rows: str,
    file: Predictions,
    ignore: str,
    columns: ItemColumns,
    split: str | None,
    broken: str,
    network: Network,
    voice: Voice,
) -> None:
    if model.suffix.lower() == ".onnx":
        _refuse_options(existing(model), columns, split, network)
        _predict_exported(model, rows, file, ignore=ignore, broken=broken, voice=voice)
        return
    from poise.commands.fit import reads_samples, refuse_unfitted
    from poise.data.store.manifest import MANIFEST
    from poise.deployment.model import load

    refuse_unfitted(existing(model), rows)
    found = load(model)
    if reads_samples(model) and not (Path(rows) / MANIFEST).exists():
        from poise.commands.fit import predict_items
        from poise.machine.processes import device_of

        items = _items(rows, found.provenance.get("read") or {}, columns, split)
        say_replaced(file.out, quiet=voice.silent)
        done = predict_items(
            model,
            items,
            **vars(file),
            broken=broken,
            device=device_of(network.device),
            workers=network.workers,
            trusted=network.backbone,
            phase=partial(progress_bar, quiet=voice.silent),
        )
        _tell(done, found, (), voice)
    else:
        _predict_rows(found, rows, file, ignore=ignore, voice=voice)


def _predict_rows(model: "Model", rows: str, file: Predictions, *, ignore: str, voice: Voice) -> None:
    """Predict feature rows."""
    from poise.commands.evaluate import is_label
    from poise.deployment.prediction_files import write_predictions

    with progress_bar(f"reading {Path(rows).name}", quiet=voice.silent):
        read = unlabelled(rows, model.provenance.get("columns"), ignore)
    say_replaced(file.out, quiet=voice.silent)
    with progress_bar("predicting", quiet=voice.silent) as report:
        done = write_predictions(
            model,
            read.x,
            file.out,
            carried=read.extra,
            top=file.top,
            spreadsheet=file.spreadsheet,
            progress=report,
        )
    labels = [name for name, values in read.extra.items() if is_label(values, model.class_names)]
    more = [f"the column {labels[0]!r} holds classes of this model: poise evaluate scores it on them"] if labels else []
    _tell(done, model, (*read.notes, *more), voice)


def _items(rows: str, known: Mapping[str, Any], columns: ItemColumns, split: str | None) -> "Items":
    """The images or texts to predict; a table is read by the columns that the model was trained with.

    Raises: InputError as `open_items`; where a column that was not named was taken for paths, it says so.
    """
    from poise.data.samples.formats import open_items
    from poise.errors import InputError

    table, image, text = Path(rows).is_file(), columns.image, columns.text
    if table:
        image, text = image or known.get("image"), text or known.get("text")
    try:
        return open_items(rows, split=split, image=image, text=text, root=columns.root)
    except InputError as error:
        if image or columns.root or "there is no file" not in str(error) or not table:
            raise
        raise InputError(
            f"{error}; this model reads images: give a folder of them, or a table with a column of paths (--image)",
            *error.arguments,
        ) from None


def _refuse_options(model: Path, columns: ItemColumns, split: str | None, network: Network) -> None:
    """Raises: InputError for an option that means nothing to an exported model."""
    from poise.errors import InputError

    given = {**vars(columns), "split": split, "backbone": network.backbone}
    for name, value in given.items():
        if value is not None:
            raise InputError(f"--{name} is for folders of models; {model} reads files of features, or images")
    if network.device not in ("auto", "cpu"):
        raise InputError(f"{model} runs on cpu, got --device {network.device}; the folder of the model runs on others")


def _predict_exported(model: Path, rows: str, file: Predictions, *, ignore: str, broken: str, voice: Voice) -> None:
    """Predict with an ONNX file; nothing here imports torch."""
    from poise.export.onnx_prediction import open_onnx, predict_images, predict_rows
    from poise.export.rows_for_onnx import image_files

    found, notes = open_onnx(model), ()
    say_replaced(file.out, quiet=voice.silent)
    with progress_bar("predicting", quiet=voice.silent) as report:
        if found.pixels is not None:
            done = predict_images(found, image_files(Path(rows)), **vars(file), broken=broken, progress=report)
        else:
            read = without_torch(rows, found.columns, ignore)
            notes = read.notes
            done = predict_rows(found, read, **vars(file), progress=report)
    _tell(done, found, notes, voice)


def _abstains(point: "OperatingPoint | Mapping[str, Any] | None") -> bool:
    """Can a row be left without an answer?"""
    parts = point if isinstance(point, Mapping) else vars(point) if point else {}
    return any(parts.get(name) is not None for name in ("abstain", "thresholds"))


def _tell(done: "Tallied", model: "Model | Exported", notes: Sequence[str], voice: Voice) -> None:
    """Say what was predicted."""
    given = sorted(((name, n) for name, n in done.answers.items() if n), key=lambda item: -item[1])
    rest = [f"  and {len(given) - 10} classes more"] if len(given) > 10 else []
    applied = None if model.prior_applied is None else [float(share) for share in model.prior_applied]
    counts = model.counts if isinstance(model.counts, tuple) else model.counts.n.tolist()
    prior = prior_in_words(applied, counts, model.class_names)
    answer(
        {
            "rows": done.rows,
            "abstained": done.abstained,
            "answers": done.answers,
            "prior": prior,
            "path": str(done.path),
        },
        [
            f"{done.rows} {'row' if done.rows == 1 else 'rows'}"
            + (f", {done.abstained} without an answer" if _abstains(model.operating) else ""),
            *(f"  {name}: {n}" for name, n in given[:10]),
            *rest,
            f"probabilities are for {prior}",
        ],
        voice,
        written=[done.path],
        remarks=(*notes, *done.formulas.remarks()),
    )
