"""The verb that makes files for deployment of a fitted model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from poise.cli.inputs import unlabelled
from poise.cli.options import Ignore, Image, Root, Trusted, Voice
from poise.cli.shared import answer, progress_bar, writing
from poise.values.checks import existing

if TYPE_CHECKING:
    from poise.deployment.model import Model
    from poise.representation.backbones import Backbone
    from poise.representation.trained_network import Representation


@dataclass(frozen=True)
class Formats:
    """Which files are written, and of what."""

    onnx: Annotated[bool, typer.Option("--onnx", help="One ONNX file, model.onnx.")] = False
    torch_export: Annotated[bool, typer.Option("--torch-export", help="A program of torch.export, model.pt2.")] = False
    safetensors: Annotated[
        bool, typer.Option("--safetensors", help="The head alone: weight and bias, and JSON. (default)")
    ] = False
    hub: Annotated[bool, typer.Option("--hub", help="A folder for the hub, which timm loads if it can: hub/.")] = False
    head_only: Annotated[bool, typer.Option("--head-only", help="Leave the backbone out.")] = False
    float32: Annotated[
        bool, typer.Option("--float32", help="Round the tensors of --safetensors to float32, as the others are.")
    ] = False

    @property
    def graphs(self) -> bool:
        """Is a graph of the whole model wanted, beside or in place of tensors?"""
        return self.onnx or self.torch_export or self.hub


@dataclass(frozen=True)
class Probe:
    """On what the files are compared with the model, beside random inputs."""

    check: Annotated[
        str | None,
        typer.Option(
            help="Images, or feature rows, on which the files are compared with the model, beside random ones."
        ),
    ] = None
    ignore: Ignore = ""
    image: Image = None
    root: Root = None


def export(
    model: Annotated[Path, typer.Argument(help="The folder that `poise fit` wrote.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("runs/export"),
    formats: Formats,
    probe: Probe,
    backbone: Trusted = None,
    voice: Voice,
) -> None:
    """Write a fitted model as files that run elsewhere: tensors, ONNX, a program of torch, a folder for the hub.

    The head is folded into one weight and one bias, so that nothing is added to the time of a prediction. A model of
    images is exported with its backbone, from pixels to logits. Every file is run and compared with the model; one
    that differs is deleted.
    """
    from poise.commands.predict import refuse_unfitted
    from poise.deployment.model import MODEL_FILE, load
    from poise.errors import InputError
    from poise.machine.folders import generation

    refuse_unfitted(existing(model), str(model / MODEL_FILE))
    found = load(model)
    if out.resolve() == model.resolve():
        raise InputError(f"{out} is the model itself; choose another folder with --out")
    if (out / MODEL_FILE).exists():
        raise InputError(f"{out} holds a model, which an export would mix with; choose another folder with --out")
    with writing(out), generation(out, replaces=["hub"] if formats.hub else ()) as stage:
        job, done = _exported(model, found, out, stage, formats, probe, backbone, voice)
    _tell(job, done, formats, voice)


def _exported(
    model: Path,
    found: "Model",
    out: Path,
    stage: Path,
    formats: Formats,
    probe: Probe,
    backbone: str | None,
    voice: Voice,
) -> "tuple[_Job, dict[str, _Done]]":
    """Write all files into `stage`, which is to become `out`."""
    from poise.commands.predict import reads_samples

    whole = reads_samples(model) and not formats.head_only
    representation = _representation(model, backbone) if whole and formats.graphs else None
    network = None if representation is None else _images(representation)
    rows = _rows(found, network, probe) if formats.graphs else None
    job = _Job(found, representation, network, rows, model, out, stage, formats.float32)
    done = {}
    for name, write in _writers(formats).items():
        with progress_bar(f"exporting {name}", quiet=voice.silent):
            done[name] = write(job)
    return job, done


def _tell(job: "_Job", done: "dict[str, _Done]", formats: Formats, voice: Voice) -> None:
    """Say what was written, and what it is made of."""
    from poise.export.final import final

    made, point = final(job.model), job.model.operating
    beside = [] if point is None or made.added is not None else point.described()
    checked = {name: part.checked for name, part in done.items() if part.checked is not None}
    others = [] if formats.safetensors or formats.graphs else [f"other formats: {', '.join(OTHERS)}"]
    answer(
        {
            "path": str(job.out),
            "files": [str(path) for part in done.values() for path in part.written],
            "folded": made.folded,
            "steps": made.steps,
            "beside": beside,
            "checked": {name: agreement.to_dict() for name, agreement in checked.items()},
        },
        [
            f"{len(job.model.class_names)} classes; {_input(job.model, job.backbone)}",
            f"folded into weight and bias: {', '.join(made.folded)}",
            *([f"steps before them: {', '.join(_STEPS[step] for step in made.steps)}"] if made.steps else []),
            *([f"beside the logits, as numbers: {', '.join(beside)}"] if beside else []),
            *(f"checked: {agreement}" for agreement in checked.values()),
            *others,
            f"next: {(done.get('onnx') or list(done.values())[-1]).next}",
        ],
        voice,
        written=[path for part in done.values() for path in part.written],
        remarks=[part.remark for part in done.values() if part.remark],
    )


OTHERS = ("--onnx", "--torch-export", "--hub")
_STEPS = {"centre": "the centre is taken away", "unit": "rows are divided by their norm"}


class _Job(NamedTuple):
    """What is exported, and where to: files are written into `stage`, which becomes `out`."""

    model: "Model"
    representation: "Representation | None"
    backbone: "Backbone | None"
    rows: Any
    source: Path
    out: Path
    stage: Path
    float32: bool


class _Done(NamedTuple):
    """What one format wrote in `out`, how it compared, what to do with it, and a remark."""

    written: list[Path]
    checked: Any
    next: str
    remark: str = ""


def _safetensors(job: _Job) -> _Done:
    import torch

    from poise.export.final import final
    from poise.export.tensors import export_safetensors, formula
    from poise.machine.folders import moved

    written = export_safetensors(job.model, job.stage, dtype=torch.float32 if job.float32 else None)
    return _Done(
        moved(written, job.stage, job.out),
        None,
        f"read weight and bias with the package safetensors; {formula(final(job.model))}",
    )


def _onnx(job: _Job) -> _Done:
    from poise.export.graphs import export_onnx

    path = job.out / "model.onnx"
    checked = export_onnx(job.model, job.stage / path.name, backbone=job.backbone, rows=job.rows)
    return _Done([path], checked, f"poise predict {quote(str(path))} {'ROWS' if job.backbone is None else 'IMAGES'}")


def _program(job: _Job) -> _Done:
    from poise.export.graphs import export_program

    path = job.out / "model.pt2"
    checked = export_program(job.model, job.stage / path.name, backbone=job.backbone, rows=job.rows)
    return _Done([path], checked, f"torch.export.load({str(path)!r}).module()(x) in Python")


def _hub(job: _Job) -> _Done:
    from poise.export.hub_folder import export_hub
    from poise.results.contents import read

    report, folder = job.source / "report.json", job.out / "hub"
    contents = read(report) if report.is_file() else None
    done = export_hub(
        job.model,
        job.stage / folder.name,
        representation=job.representation,
        rows=job.rows,
        contents=contents,
        title=job.source.resolve().name,
        command=None if contents is None else contents.protocol.command,
    )
    own = job.backbone is not None and done.library != "timm"
    remark = "timm cannot load this model: its own lines are in the model card" if own else ""
    next_step = f"read {quote(str(folder / 'README.md'))}, which says how to load it"
    return _Done([folder], done.agreement, next_step, remark)


def _writers(formats: Formats) -> dict[str, Callable[[_Job], _Done]]:
    """What writes each of the files that are wanted; the tensors where no other is."""
    every = {
        "safetensors": (formats.safetensors or not formats.graphs, _safetensors),
        "onnx": (formats.onnx, _onnx),
        "torch_export": (formats.torch_export, _program),
        "hub": (formats.hub, _hub),
    }
    return {name: write for name, (wanted, write) in every.items() if wanted}


def _representation(folder: Path, trusted: str | None) -> "Representation":
    from poise.representation.trained_network import load_representation

    return load_representation(folder / "representation", trusted=trusted)


def _images(representation: "Representation") -> "Backbone":
    from poise.export.final import image_backbone

    return image_backbone(representation.backbone)


def _rows(model: "Model", backbone: "Backbone | None", probe: Probe) -> Any:
    """The rows to check with, as the exported files read them; None for random ones alone."""
    place = probe.check
    if place is None:
        return None
    if backbone is None:
        return unlabelled(place, model.provenance.get("columns"), probe.ignore).x
    from poise.data.samples.formats import open_items
    from poise.export.checking import pixels_of

    known = model.provenance.get("read") or {}
    column = probe.image or (known.get("image") if Path(place).is_file() else None)
    return pixels_of(backbone, open_items(place, image=column, root=probe.root))


def _input(model: "Model", backbone: "Backbone | None") -> str:
    if backbone is None:
        return f"reads {model.head.dim} features per row"
    return f"reads images of {backbone.size} x {backbone.size} pixels"
