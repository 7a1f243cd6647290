"""The verb that predicts with a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli.inputs import unlabelled, without_torch
from poise.cli.options import Ignore, ItemColumns, Network, Spreadsheet, Voice
from poise.cli.shared import answer, progress_bar, say_replaced
from poise.values.checks import existing
from poise.values.wording import prior_in_words

if TYPE_CHECKING:
    from poise.data.samples.sample_set import Items
    from poise.decisions.answer_files import Tallied
    from poise.decisions.operating_point import OperatingPoint
    from poise.deployment.model import Model
    from poise.export.onnx_prediction import Exported


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
    from poise.commands.predict import reads_samples, refuse_unfitted
    from poise.data.store.manifest import MANIFEST
    from poise.deployment.model import load

    refuse_unfitted(existing(model), rows)
    found = load(model)
    if reads_samples(model) and not (Path(rows) / MANIFEST).exists():
        from poise.commands.predict import predict_items
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
