"""A model as one file that runs elsewhere: ONNX, or the program of torch.export; checked before it has its name."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from poise.deployment.model import Model
from poise.errors import InputError, PoiseError, reason_of
from poise.export.checking import TRACED, Agreement, compared
from poise.export.final import Network, described, final
from poise.machine.atomic import replacing
from poise.machine.documents import to_json
from poise.machine.libraries import held_at, needed
from poise.representation.backbones import Backbone

METADATA = "poise"  # the key in an ONNX file; in a program's archive it is the file poise.json
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def export_onnx(
    model: Model, path: str | Path, *, backbone: Backbone | None = None, rows: Tensor | None = None
) -> Agreement:
    """Write one ONNX file: the head for feature rows, or with `backbone` everything from pixels to logits.

    Input `features` (batch, D) or `pixels` (batch, 3, H, W) in [0, 1], output `logits` (batch, C), all float32, for any
    batch; images are normalised inside. The metadata `poise` hold what `described` gives, as JSON. The file is written
    beside its place, checked by onnx and run by onnxruntime on random rows, and on `rows` (features, or eight-bit
    images) if given; it takes its place if its logits are the model's, and is deleted otherwise.

    Raises: InputError if the network cannot be exported, or by how much the logits differ; MissingExtraError.
    """
    onnx, _, runtime = (needed(package, "export", "ONNX files need") for package in PACKAGES)
    name = "features" if backbone is None else "pixels"
    text = to_json(described(model, backbone), path)

    def write(program: Any, file: Path) -> None:
        made = torch.onnx.export(program, dynamo=True, input_names=[name], output_names=["logits"], verbose=False)
        assert made is not None
        _forget_sources(made.model)
        made.model.metadata_props[METADATA] = text
        made.save(file, external_data=False)
        stored = onnx.load(file)
        onnx.checker.check_model(stored, full_check=True)
        if text not in [entry.value for entry in stored.metadata_props]:
            raise ValueError("the metadata were not kept")

    def opened(file: Path) -> Callable[[Tensor], Tensor]:
        session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return lambda x: torch.from_numpy(session.run(["logits"], {name: x.numpy()})[0])

    return _exported(model, Path(path), "onnxruntime", write, opened, backbone, rows)


def export_program(
    model: Model, path: str | Path, *, backbone: Backbone | None = None, rows: Tensor | None = None
) -> Agreement:
    """Write the program of torch.export (.pt2), for any batch: `torch.export.load(path).module()(x)` are the logits.

    Inputs, check and errors are those of `export_onnx`; what `described` gives lies in the archive as poise.json.
    """
    text = to_json(described(model, backbone), path)

    def write(program: Any, file: Path) -> None:
        # By a buffer, because the archive would be named for the temporary file.
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={f"{METADATA}.json": text})
        file.write_bytes(buffer.getvalue())

    def opened(file: Path) -> Callable[[Tensor], Tensor]:
        return torch.export.load(io.BytesIO(file.read_bytes())).module()

    return _exported(model, Path(path), "torch.export", write, opened, backbone, rows)


def _exported(
    model: Model,
    path: Path,
    runner: str,
    write: Callable[[Any, Path], None],
    opened: Callable[[Path], Callable[[Tensor], Tensor]],
    backbone: Backbone | None,
    rows: Tensor | None,
) -> Agreement:
    """Write to a neighbour of `path`, run it, compare it, and only then rename it."""
    try:
        with replacing(path) as file, _silent():
            write(_traced(Network(final(model).head, backbone)), file)
            return compared(runner, opened(file), model, backbone, rows)
    except PoiseError:
        raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {reason_of(error)}; choose another place with --out") from None
    except Exception as error:  # exporters of graphs raise whatever comes up in a dozen passes
        what = "the head" if backbone is None else f"backbone {backbone.name}"
        raise InputError(
            f"{what} cannot be exported for {runner}: {reason_of(error)}; nothing was written, --safetensors and --hub "
            "trace no network"
        ) from error


def _traced(network: Network) -> Any:
    """The program of the network for any batch, without the lines of source that it came from."""
    sizes = ({0: torch.export.Dim("batch", min=1)},)
    with torch.no_grad():
        program = torch.export.export(network, (network.example(TRACED),), dynamic_shapes=sizes)
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # names the folders of this machine
    return program


def _forget_sources(model: Any) -> None:
    """Take away what the exporter notes of every node: Python classes, lines of source, folders of this machine."""
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    for graph in graphs:
        for noted in (graph, *graph.all_nodes(), *graph.inputs, *graph.outputs, *graph.initializers.values()):
            noted.metadata_props.clear()


@contextmanager
def _silent() -> Iterator[None]:
    """Within, exporters neither print, nor log, nor warn: what matters is raised, or found by the check."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        stack.enter_context(redirect_stdout(io.StringIO()))
        for logger in map(logging.getLogger, ("torch", "onnxscript", "onnx_ir")):
            stack.enter_context(held_at(logging.CRITICAL, partial(getattr, logger, "level"), logger.setLevel))
        yield
