"""The verb that makes files for deployment of a fitted model."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from poise.cli.inputs import Ignore, existing, unlabelled
from poise.cli.shared import ImageColumn, Json, Quiet, Root, Trusted, answer, progress_bar

if TYPE_CHECKING:
    from poise.artefact import Model
    from poise.backbones import Backbone
    from poise.representation import Representation

__all__ = ["export"]

FORMATS = ("--safetensors", "--onnx", "--torch-export", "--hub")


def export(
    model: Annotated[Path, typer.Argument(help="The folder that `poise fit` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("runs/export"),
    onnx: Annotated[bool, typer.Option("--onnx", help="One ONNX file, model.onnx.")] = False,
    torch_export: Annotated[bool, typer.Option("--torch-export", help="A program of torch.export, model.pt2.")] = False,
    safetensors: Annotated[
        bool, typer.Option("--safetensors", help="The head alone: weight and bias, and JSON. (default)")
    ] = False,
    hub: Annotated[bool, typer.Option("--hub", help="A folder for the hub, which timm loads if it can: hub/.")] = False,
    head_only: Annotated[bool, typer.Option("--head-only", help="Leave the backbone out.")] = False,
    float32: Annotated[
        bool, typer.Option("--float32", help="Round the tensors of --safetensors to float32, as the others are.")
    ] = False,
    check: Annotated[
        str | None,
        typer.Option(
            help="Images, or feature rows, on which the files are compared with the model, beside random ones.",
            show_default=False,
        ),
    ] = None,
    ignore: Ignore = "",
    image: ImageColumn = None,
    root: Root = None,
    backbone: Trusted = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a fitted model as files that run elsewhere: tensors, ONNX, a program of torch, a folder for the hub.

    The head is folded into one weight and one bias, so that nothing is added to the time of a prediction. A model of
    images is exported with its backbone, from pixels to logits. Every file is run and compared with the model; one
    that differs is deleted.
    """
    from poise import runs
    from poise.artefact import MODEL_FILE, load
    from poise.errors import InputError
    from poise.export import final
    from poise.project import reads_samples, refuse_unfitted

    refuse_unfitted(existing(model), str(model / MODEL_FILE))
    found = load(model)
    if out.resolve() == model.resolve():
        raise InputError(f"{out} is the model itself; choose another folder with --out")
    whole = reads_samples(model) and not head_only
    graphs = onnx or torch_export or hub
    representation = _representation(model, backbone) if whole and graphs else None
    network = None if representation is None else _images(representation)
    runs.prepare(out)
    rows = None if check is None or not graphs else _rows(found, network, check, ignore, image, root)
    job = _Job(found, representation, network, rows, model, out, float32)
    wanted = {
        "safetensors": (safetensors or not graphs, _safetensors),
        "onnx": (onnx, _onnx),
        "torch_export": (torch_export, _program),
        "hub": (hub, _hub),
    }
    done = {}
    for name, (asked, write) in wanted.items():
        if asked:
            with progress_bar(f"exporting {name}", quiet=quiet or as_json):
                done[name] = write(job)
    made, point = final(found), found.operating
    beside = [] if point is None or made.added is not None else point.described()
    others = [] if safetensors or graphs else [f"other formats: {', '.join(FORMATS[1:])}"]
    answer(
        {
            "path": str(out),
            "files": [str(path) for part in done.values() for path in part.written],
            "folded": made.folded,
            "steps": made.steps,
            "beside": beside,
            "checked": {name: part.checked.to_dict() for name, part in done.items() if part.checked is not None},
        },
        [
            f"{len(found.class_names)} classes; {_input(found, network)}",
            f"folded into weight and bias: {', '.join(made.folded)}",
            *([f"steps before them: {', '.join(_STEPS[step] for step in made.steps)}"] if made.steps else []),
            *([f"beside the logits, as numbers: {', '.join(beside)}"] if beside else []),
            *(f"checked: {part.checked}" for part in done.values() if part.checked is not None),
            *others,
            f"next: {(done.get('onnx') or list(done.values())[-1]).next}",
        ],
        written=[path for part in done.values() for path in part.written],
        remarks=[part.remark for part in done.values() if part.remark],
        as_json=as_json,
        quiet=quiet,
    )


_STEPS = {"centre": "the centre is taken away", "unit": "rows are divided by their norm"}


class _Job(NamedTuple):
    """What is exported, and where to."""

    model: "Model"
    representation: "Representation | None"
    backbone: "Backbone | None"
    rows: Any
    source: Path
    out: Path
    float32: bool


class _Done(NamedTuple):
    """What one format wrote, how it compared, what to do with it, and a remark."""

    written: list[Path]
    checked: Any
    next: str
    remark: str = ""


def _safetensors(job: _Job) -> _Done:
    import torch

    from poise.export import export_safetensors, final, formula

    written = export_safetensors(job.model, job.out, dtype=torch.float32 if job.float32 else None)
    return _Done(written, None, f"read weight and bias with the package safetensors; {formula(final(job.model))}")


def _onnx(job: _Job) -> _Done:
    from poise.export import export_onnx

    path = job.out / "model.onnx"
    checked = export_onnx(job.model, path, backbone=job.backbone, rows=job.rows)
    return _Done([path], checked, f"poise predict {quote(str(path))} {'ROWS' if job.backbone is None else 'IMAGES'}")


def _program(job: _Job) -> _Done:
    from poise.export import export_program

    path = job.out / "model.pt2"
    checked = export_program(job.model, path, backbone=job.backbone, rows=job.rows)
    return _Done([path], checked, f"torch.export.load({str(path)!r}).module()(x) in Python")


def _hub(job: _Job) -> _Done:
    from poise.export import export_hub
    from poise.report.contents import read

    report, folder = job.source / "report.json", job.out / "hub"
    contents = read(report.read_text(encoding="utf-8"), str(report)) if report.is_file() else None
    done = export_hub(
        job.model,
        folder,
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


def _representation(folder: Path, trusted: str | None) -> "Representation":
    from poise.representation import load_representation

    return load_representation(folder / "representation", trusted=trusted)


def _images(representation: "Representation") -> "Backbone":
    from poise.export import image_backbone

    return image_backbone(representation.backbone)


def _rows(
    model: "Model", backbone: "Backbone | None", place: str, ignore: str, image: str | None, root: Path | None
) -> Any:
    """The rows to check with, as the exported files read them."""
    if backbone is None:
        return unlabelled(place, model.provenance.get("columns"), ignore).x
    from poise.export import pixels_of
    from poise.sources import open_items

    known = model.provenance.get("read") or {}
    column = image or (known.get("image") if Path(place).is_file() else None)
    return pixels_of(backbone, open_items(place, image=column, root=root))


def _input(model: "Model", backbone: "Backbone | None") -> str:
    if backbone is None:
        return f"reads {model.head.dim} features per row"
    return f"reads images of {backbone.size} x {backbone.size} pixels"
