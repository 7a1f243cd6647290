"""The verb that gives a checkpoint of another library a re-balanced last layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli import completion
from poise.cli.inputs import Inputs, class_prior, load_inputs
from poise.cli.options import Prior, Rows, Seed, Voice
from poise.cli.shared import answer, progress_bar, refuse_several_processes

if TYPE_CHECKING:
    from poise.deployment.past_rebalancing import Past
    from poise.deployment.rebalance import Rebalanced
    from poise.values.features import Features
    from poise.values.problem import Problem


@dataclass(frozen=True)
class LastLayer:
    """Which layer of a checkpoint is the last, and what its rows stand for."""

    layer: Annotated[str | None, typer.Option(help="The last layer, where several could be it, such as fc.")] = None
    class_names: Annotated[
        Path | None,
        typer.Option(
            help="The classes in the order of the checkpoint: one per line, or JSON. (default: those of config.json)"
        ),
    ] = None


def rebalance(
    model: Annotated[
        Path,
        typer.Argument(
            help="A checkpoint of timm, transformers or torchvision: a .safetensors file, or the folder that holds it."
        ),
    ],
    features: Annotated[
        str,
        typer.Option(
            "--features",
            "-f",
            help="Labelled rows of what the last layer reads: a store folder, .csv, .tsv, .parquet, .npz, .npy or "
            ".safetensors; FILE#NAME for one split of several.",
        ),
    ],
    *,
    rows: Rows,
    out: Annotated[
        Path | None, typer.Option(help="The result. (default: NAME.rebalanced beside the checkpoint)")
    ] = None,
    last: LastLayer,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            "-m",
            help="auto, or a method such as 'logit_adjustment(tau=1.0)' or 'crt'.",
            autocompletion=completion.fit_methods,
        ),
    ] = "auto",
    prior: Prior = "uniform",
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Let --out be the checkpoint itself.")] = False,
    voice: Voice,
) -> None:
    """Re-balance the last layer of a trained checkpoint; every other tensor stays as it is, byte for byte.

    The result has the same names and types, and loads where the checkpoint does; its metadata say in one entry more
    what was done, so that nothing is shifted twice. The settings are chosen on held-out rows; the layer itself is the
    classifier that they start from.
    """
    from poise.deployment.checkpoint_copy import default_out, destination, note_path
    from poise.deployment.last_layer import find_layer, open_checkpoint
    from poise.deployment.past_rebalancing import Past
    from poise.deployment.rebalance import class_names_of, in_order
    from poise.deployment.rebalance import rebalance as rebalanced
    from poise.machine.locks import claimed

    refuse_several_processes("rebalance", "run it in one")
    checkpoint = open_checkpoint(model)
    target = destination(checkpoint, default_out(model) if out is None else out, overwrite=overwrite)
    noted = note_path(target).is_file()
    with claimed(target, "choose another place with --out"):
        checkpoint = open_checkpoint(model)  # as it is now: another run may have changed it until this one had its turn
        names = class_names_of(checkpoint, last.class_names)
        read = load_inputs(features, rows, seed=seed)
        given = read.problem.train
        found = find_layer(checkpoint, classes=len(names or given.names), dim=given.dim, name=last.layer)
        read = _with_held_out(read, seed)
        order = partial(in_order, names=names, classes=found.classes, numbered=read.numbered)
        problem = _in_order(read.problem, order, features, rows.held_out or features)
        with progress_bar("fitting", quiet=voice.silent) as report:
            done = rebalanced(
                checkpoint,
                found,
                problem,
                target,
                method=method,
                prior=class_prior(prior, problem.train.names),
                seed=seed,
                overwrite=overwrite,
                progress=report,
            )
        if isinstance(done, Past):
            remarks = read.remarks if noted else (*read.remarks, f"{note_path(target)} was missing and is there again")
            _say_done_before(done, found.name, target, voice, remarks)
            return
        answer(
            _data(done, target),
            _said(done, problem.train.dim, method, prior),
            voice,
            written=done.written,
            remarks=(*read.remarks, *done.remarks),
        )


def _in_order(problem: "Problem", order: Callable[..., "Features"], train: str, held_out: str) -> "Problem":
    """Both parts with the classes in the order of the layer; `train` and `held_out` name them in messages."""
    assert problem.held_out is not None
    first = order(problem.train, where=train)
    return replace(problem, train=first, held_out=replace(order(problem.held_out, where=held_out), counts=first.counts))


def _say_done_before(past: "Past", layer: str, target: Path, voice: Voice, remarks: Sequence[str]) -> None:
    """That the checkpoint is the result of this request already, and stays as it is."""
    said = f"nothing to do: {layer} of {target} was re-balanced by this same request ({past.method})"
    data = {"layer": layer, "method": past.method, "path": str(target), "unchanged": True}
    answer(data, [said], voice, remarks=remarks)


def _data(done: "Rebalanced", target: Path) -> dict[str, Any]:
    """What was done, for programs."""
    return {
        "layer": done.layer.name,
        "method": done.model.method,
        "held_out_rows": done.after.rows,
        "balanced_accuracy": {"before": done.before.balanced_accuracy, "after": done.after.balanced_accuracy},
        "recall_for_prior": {"before": done.before_recall, "after": done.after_recall},
        "answers_changed_by_rounding": done.rounding.changed,
        "path": str(target),
    }


def _said(done: "Rebalanced", dim: int, method: str, prior: str) -> list[str]:
    """What was done, for people."""
    before, after, rows = done.before.balanced_accuracy, done.after.balanced_accuracy, done.after.rows
    return [
        f"layer: {done.layer.name}, {done.layer.classes} classes of {dim} features",
        f"method: {done.model.method}; prior: {prior}",
        f"balanced accuracy on {rows} held-out rows: {100 * before:.1f} % -> {100 * after:.1f} %"
        + (" (they chose it: expect a little less)" if method == "auto" else ""),
        *_for_prior(prior, done.before_recall, done.after_recall),
        f"stored as {done.rounding.kind}: logits move by at most {done.rounding.moved:.2g}, "
        f"{done.rounding.changed} of {rows} answers change",
    ]


def _for_prior(prior: str, before: float, after: float) -> list[str]:
    """What the rows say of another prior than the uniform one."""
    if prior == "uniform":
        return []
    kind = "accuracy" if prior == "train" else "accuracy under the given prior"
    return [f"{kind} to be expected: {100 * before:.1f} % -> {100 * after:.1f} %"]


def _with_held_out(read: Inputs, seed: int) -> Inputs:
    """The rows with a part set aside where none were given, which only rows that trained nothing allow."""
    from poise.errors import MemorisedRowsError

    if read.problem.held_out is not None:
        return read
    if read.problem.train.seen_by_backbone is not False:
        raise MemorisedRowsError(
            "rebalance needs --held-out: rows that did not train the checkpoint; if those of --features did not "
            "either, say --unseen, and a fifth of them is set aside"
        )
    parted = read.with_rows_aside(seed)
    assert parted.deciding is not None
    said = f"no --held-out was given: {len(parted.deciding)} rows were set aside to choose on"
    problem = replace(parted.problem, held_out=parted.deciding)
    return parted._replace(problem=problem, deciding=None, remarks=(*read.remarks, said))
