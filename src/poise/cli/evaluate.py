"""The verb that scores a fitted model on labelled rows, images or texts."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli.inputs import labelled_rows
from poise.cli.options import Ignore, ItemColumns, Label, Network, Voice, out_of
from poise.cli.shared import answer, command_line, progress_bar, say_replaced, writing
from poise.values.checks import existing

if TYPE_CHECKING:
    from poise.commands.evaluate import Evaluated
    from poise.data.samples.sample_set import Samples
    from poise.deployment.model import Model

# What an evaluation replaces of an earlier one.
RESULT = ("evaluation.json", "report.json", "report.html")


def evaluate(
    model: Annotated[Path, typer.Argument(help="The folder of a fitted model.")],
    labelled: Annotated[str, typer.Argument(help="Labelled rows, images or texts that the model was not fitted on.")],
    *,
    label: Label = None,
    ignore: Ignore = "",
    columns: ItemColumns,
    split: Annotated[str | None, typer.Option(help="Split of images or texts. (default: test, or the only)")] = None,
    broken: Annotated[str, typer.Option(help="error, or skip images that cannot be read.")] = "error",
    network: Network,
    out: Annotated[Path | None, out_of("runs/evaluate")] = None,
    voice: Voice,
) -> None:
    """Score a fitted model on labelled rows: groups with intervals, confusions, calibration, and a report.

    The scores are of the model as it stands: nothing is chosen. Rows that it was fitted on are refused, where its
    folder knows them. Every class of the rows has to be one of the model's.
    """
    from poise.commands.predict import refuse_unfitted

    refuse_unfitted(existing(model), labelled)
    existing(Path(labelled.rpartition("#")[0] or labelled))
    with writing(out or Path("runs/evaluate"), RESULT) as folder:
        done = _evaluated(model, labelled, label, ignore, columns, split, broken, network, voice)
        _tell(done, folder, voice)


def _evaluated(
    model: Path,
    labelled: str,
    label: str | None,
    ignore: str,
    columns: ItemColumns,
    split: str | None,
    broken: str,
    network: Network,
    voice: Voice,
) -> "Evaluated":
    from poise.commands.evaluate import evaluate_items, evaluate_rows, fitted_rows
    from poise.commands.predict import reads_samples
    from poise.data.store.manifest import MANIFEST
    from poise.deployment.model import load
    from poise.machine.processes import device_of

    found, title = load(model), f"{model.resolve().name} on {Path(labelled).name}"
    if not reads_samples(model) or (Path(labelled) / MANIFEST).exists():
        rows = labelled_rows(labelled, found, label=label, ignore=ignore, quiet=voice.silent)
        return evaluate_rows(found, rows, title=title, fitted_on=fitted_rows(model), command=command_line())
    return evaluate_items(
        model,
        found,
        _samples(labelled, found, columns, label, split),
        title=title,
        broken=broken,
        device=device_of(network.device),
        workers=network.workers,
        trusted=network.backbone,
        command=command_line(),
        phase=partial(progress_bar, quiet=voice.silent),
    )


def _samples(path: str, model: "Model", columns: ItemColumns, label: str | None, split: str | None) -> "Samples":
    """The labelled samples of a split, read as those were that the model was fitted on.

    Raises: InputError for several splits of which none is called test.
    """
    from poise.data.samples.formats import open_samples
    from poise.errors import InputError

    known: Any = model.provenance.get("read") or {}
    read = {name: getattr(columns, name) or known.get(name) for name in ("image", "text")}
    found = open_samples(path, label=label, root=columns.root, class_names=model.class_names, **read)
    wanted = split or ("test" if "test" in found else next(iter(found)) if len(found) == 1 else None)
    if wanted not in found:
        raise InputError(f"{path} has the splits {', '.join(found)}; name one (split=)", "(split=)")
    return found[wanted]


def _tell(found: "Evaluated", folder: Path, voice: Voice) -> None:
    """Write and say what was measured."""
    from poise.commands import run_folder
    from poise.machine.folders import generation, moved
    from poise.report.files import write_report
    from poise.report.text import score_tables

    data = found.to_dict()
    say_replaced(folder, RESULT[0], quiet=voice.silent)
    with generation(folder, replaces=RESULT) as stage:
        made = [run_folder.write_json(stage / RESULT[0], data), *write_report(stage, found.contents)]
    answer(
        data,
        [score_tables.ranges(found.ranges, title=found.contents.title), "", *found.lines()],
        voice,
        written=moved(made, stage, folder),
        remarks=found.contents.protocol.remarks,
    )
