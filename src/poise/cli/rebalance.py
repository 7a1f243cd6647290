"""The verb that gives a checkpoint of another library a re-balanced last layer."""

from pathlib import Path
from typing import Annotated

import typer

from poise.cli import completion
from poise.cli.inputs import Groups, HeldOut, Ignore, Inputs, Label, Seen, class_prior, load_inputs
from poise.cli.shared import Json, Quiet, Seed, answer, progress_bar, refuse_several_processes

__all__ = ["rebalance"]


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
    held_out: HeldOut = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The result. (default: NAME.rebalanced beside the checkpoint)", show_default=False),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="The last layer, where several could be it, such as fc.", show_default=False)
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(
            help="The classes in the order of the checkpoint: one per line, or JSON. (default: those of config.json)",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            "-m",
            help="auto, or a method such as 'logit_adjustment(tau=1.0)' or 'crt'.",
            autocompletion=completion.fit_methods,
        ),
    ] = "auto",
    prior: Annotated[
        str, typer.Option(help="Class prior of deployment: uniform, train, or a JSON file {class name: share}.")
    ] = "uniform",
    seed: Seed = 0,
    label: Label = None,
    groups: Groups = None,
    ignore: Ignore = "",
    seen: Seen = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Let --out be the checkpoint itself.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Re-balance the last layer of a trained checkpoint; everything else in it stays as it is, byte for byte.

    The result has the same names, types and metadata, and loads where the checkpoint does. The settings are chosen on
    held-out rows; the layer itself is the classifier that they start from.
    """
    from dataclasses import replace
    from functools import partial

    from poise.checkpoint_copy import default_out, destination
    from poise.last_layer import find_layer, open_checkpoint
    from poise.rebalancing import class_names_of, in_order
    from poise.rebalancing import rebalance as rebalanced

    refuse_several_processes("rebalance", "run it in one")
    checkpoint = open_checkpoint(model)
    target = destination(checkpoint, default_out(model) if out is None else out, overwrite=overwrite)
    names = class_names_of(checkpoint, class_names)
    read = load_inputs(features, held_out=held_out, label=label, groups=groups, ignore=ignore, seen=seen, seed=seed)
    rows = read.problem.train
    found = find_layer(checkpoint, classes=len(names or rows.names), dim=rows.dim, name=layer)
    read = _with_held_out(read, seed)
    train, unseen = read.problem.train, read.problem.held_out
    assert unseen is not None
    order = partial(in_order, names=names, classes=found.classes, numbered=read.numbered)
    train = order(train, where=features)
    unseen = replace(order(unseen, where=held_out or features), counts=train.counts)
    problem = replace(read.problem, train=train, held_out=unseen)
    with progress_bar("fitting", quiet=quiet or as_json) as report:
        done = rebalanced(
            checkpoint,
            found,
            problem,
            target,
            method=method,
            prior=class_prior(prior, train.names),
            seed=seed,
            overwrite=overwrite,
            progress=report,
        )
    before, after = done.before.balanced_accuracy, done.after.balanced_accuracy
    answer(
        {
            "layer": done.layer.name,
            "method": done.model.method,
            "held_out_rows": done.after.rows,
            "balanced_accuracy": {"before": before, "after": after},
            "recall_for_prior": {"before": done.before_recall, "after": done.after_recall},
            "answers_changed_by_rounding": done.rounding.changed,
            "path": str(target),
        },
        [
            f"layer: {done.layer.name}, {done.layer.classes} classes of {train.dim} features",
            f"method: {done.model.method}; prior: {prior}",
            f"balanced accuracy on {done.after.rows} held-out rows: {100 * before:.1f} % -> {100 * after:.1f} %"
            + (" (they chose it: expect a little less)" if method == "auto" else ""),
            *_for_prior(prior, done.before_recall, done.after_recall),
            f"stored as {done.rounding.kind}: logits move by at most {done.rounding.moved:.2g}, "
            f"{done.rounding.changed} of {done.after.rows} answers change",
        ],
        written=done.written,
        remarks=(*read.remarks, *done.remarks),
        as_json=as_json,
        quiet=quiet,
    )


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
    assert parted.problem.held_out is not None
    said = f"no --held-out was given: {len(parted.problem.held_out)} rows were set aside to choose on"
    return parted._replace(remarks=(*read.remarks, said))
