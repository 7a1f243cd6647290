"""A trained checkpoint with a re-balanced last layer, and everything else as it was.

    folder/model.safetensors, config.json, ...   what the checkpoint was, its last layer changed
    folder/rebalanced.json                       method, prior, expected recall, digests before and after

For a single file the note is called NAME.rebalanced.json and lies beside the result.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from poise.data.tables.labels import INTEGER, Coded, match
from poise.data.tables.reader_contract import listed
from poise.deployment.checkpoint_copy import Change, destination, note_path, write_copy, write_note_again
from poise.deployment.deploy import deploy
from poise.deployment.last_layer import Checkpoint, Layer, encoded, read_layer
from poise.deployment.model import Model
from poise.deployment.past_rebalancing import REMEDY, Past, header_with, past_of, recorded, request_digest
from poise.errors import InputError
from poise.heads.memorised_rows import guessing
from poise.machine.folders import replacing_folder
from poise.machine.progress import Progress
from poise.machine.reading import text_of
from poise.metrics import evaluate_head
from poise.priors import as_prior
from poise.results.scores import Scores
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem

CONSTANT = 1e-6  # a bias whose entries differ by less, relative to the logits, changes no answer


class Rounding(NamedTuple):
    """What storing the layer as `kind` does on held-out rows: largest change of a logit, answers that change."""

    kind: str
    moved: float
    changed: int


class Rebalanced(NamedTuple):
    """The model whose head is the new layer as stored, its scores on the held-out rows, and those of the old layer.

    `before_recall` and `after_recall` weight the classes by the prior of deployment.
    """

    model: Model
    layer: Layer
    before: Scores
    after: Scores
    before_recall: float
    after_recall: float
    rounding: Rounding
    written: tuple[Path, ...]
    remarks: tuple[str, ...]


def rebalance(
    checkpoint: Checkpoint,
    layer: Layer,
    problem: Problem,
    out: str | Path,
    *,
    method: str = "auto",
    prior: Any = "uniform",
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Rebalanced | Past:
    """Write the checkpoint to `out` with a last layer that is re-balanced for the class prior of deployment.

    `problem` holds features that the layer reads, with classes in its order (`in_order`), and held-out rows that did
    not train the checkpoint; its stage-1 head is the layer itself. `method` and `prior` as in `deploy`. With
    `overwrite` the checkpoint itself may be replaced; where it is the result of the same request already, nothing but
    a missing note is written, and what was done to it is returned.

    Raises: InputError if there are no held-out rows, the head is no plain layer, the layer was re-balanced before, or
    the result cannot be written.
    """
    target = destination(checkpoint, out, overwrite=overwrite)
    asked, request = _request(problem, method, prior, seed)
    past = past_of(layer)
    if past is not None:
        return _once(checkpoint, target, layer, past, request)
    old = read_layer(layer).to(problem.train.dtype)
    guessed = guessing("the layer as it is", old, problem.train)
    remarks = [*_alike(layer), *([guessed] if guessed else [])]
    given = replace(problem, head=old)
    # Without a bias no prior can be shifted to: for uniform classes the method's own head is taken as it is.
    alone = layer.bias is None
    model = deploy(given, method=method, prior=prior, seed=seed, selected=alone, progress=progress).model
    rows = problem.held_out
    assert rows is not None  # deploy refuses a head without them
    plain = _plain(model, layer, rows)
    changes, stored = _encoded(layer, plain)
    before, after = evaluate_head(old, rows), evaluate_head(stored, rows)
    done = Rebalanced(
        model=replace(model, head=stored),
        layer=layer,
        before=before,
        after=after,
        before_recall=_recall(before, model.prior_applied),
        after_recall=_recall(after, model.prior_applied),
        rounding=_rounding(layer, plain, stored, rows),
        written=(target,),
        remarks=tuple(remarks),
    )
    note = _note(done)
    past = recorded(layer, dict(changes), asked, request, note)
    headers = [header_with(file, layer.name, past) for file in sorted({place.file for place, _ in changes})]
    notes = write_copy(checkpoint, target, [*headers, *changes], note)
    return done._replace(remarks=(*remarks, *notes), written=(target, note_path(target)))


# --- once only -------------------------------------------------------------------------------------------------------


def _request(problem: Problem, method: str, prior: Any, seed: int) -> tuple[str, str]:
    """What is asked for, in words, and the digest of all that it depends on but for the layer."""
    shares = as_prior(prior, problem.train.counts).tolist()
    rows = [None if part is None else part.key for part in (problem.train, problem.held_out)]
    known = {"method": str(method), "prior": shares, "seed": seed, "rows": rows}
    return f"method {method}, prior {prior if isinstance(prior, str) else 'given'}, seed {seed}", request_digest(known)


def _once(checkpoint: Checkpoint, target: Path, layer: Layer, past: Past, request: str) -> Past:
    """What was done to the layer, if that is all that is asked for. Raises: InputError if it is anything else."""
    same = request == past.request
    if same and target.resolve() == checkpoint.path.resolve():
        if target.is_dir():
            with replacing_folder(target, instead_of=()):  # by nothing: what a killed run left beside it goes
                pass
        if not note_path(target).is_file():  # a file is in its place a moment before its note
            write_note_again(target, past.note, past.files_before)
        return past
    copy = "copy that file, or " if same else ""
    how = "by the same request" if same else "by another request"
    raise InputError(
        f"{layer.name} of {layer.weight.file} was re-balanced before {how} ({past.asked}: {past.method}), and a second "
        f"time would shift it twice; {copy}{REMEDY}"
    )


# --- the new layer ----------------------------------------------------------------------------------------------------


def _plain(model: Model, layer: Layer, rows: Features) -> Head:
    """The head of the model as weight and bias; zeros for the bias of a layer without one.

    Raises: InputError if the head normalises features, or needs a bias that the layer does not have.
    """
    try:
        head = model.head.folded()
    except InputError:
        raise InputError(
            f"the head of {model.method} divides each row by its norm, which a linear layer cannot do; choose "
            "method auto, or a method on plain features such as 'logit_adjustment(tau=1.0)'"
        ) from None
    if layer.bias is not None:
        return head
    head = head.shifted(-head.bias.mean())
    if float(head.bias.abs().max()) > CONSTANT * max(1.0, float(head(rows.x[0]).abs().max())):
        raise InputError(
            f"the layer {layer.name} has no bias, and {model.method} for this prior needs one that differs between "
            "classes; choose a method that only scales weights, such as 'tau_norm(tau=0.7)', with the prior uniform"
        )
    return replace(head, bias=torch.zeros_like(head.bias))


def _encoded(layer: Layer, head: Head) -> tuple[list[Change], Head]:
    """The bytes to be written, and the head that will be read from them."""
    content, weight = encoded(layer.weight, head.weight)
    if layer.bias is None:
        return [(layer.weight, content)], Head(weight, head.bias)
    more, bias = encoded(layer.bias, head.bias)
    return [(layer.weight, content), (layer.bias, more)], Head(weight, bias)


def _rounding(layer: Layer, head: Head, stored: Head, rows: Features) -> Rounding:
    exact, rounded = head(rows.x[0]), stored(rows.x[0])
    changed = int((exact.argmax(dim=-1) != rounded.argmax(dim=-1)).sum())
    return Rounding(layer.weight.kind, float((exact - rounded).abs().max()), changed)


def _recall(scores: Scores, prior: Tensor | None) -> float:
    """Recall weighted by the prior, over the classes that have held-out rows."""
    recalls = np.array([np.nan if recall is None else recall for recall in scores.per_class])
    share = np.ones(len(recalls)) if prior is None else prior.numpy()
    known = ~np.isnan(recalls)
    mass = share[known].sum()
    return float(recalls[known] @ share[known] / mass) if mass > 0 else float(recalls[known].mean())


def _alike(layer: Layer) -> list[str]:
    return [f"other layers of the same shape are as they were: {listed(layer.alike)}"] if layer.alike else []


# --- classes in the order of the layer --------------------------------------------------------------------------------


def class_names_of(checkpoint: Checkpoint, given: str | Path | None = None) -> tuple[str, ...] | None:
    """The class names of a checkpoint in its order; None if they are not known.

    Of the file `given`: one name per line, a JSON list, or label_names or id2label of a JSON table. Else of config.json
    beside the tensors, as timm and transformers write it.

    Raises: InputError if the given file holds no names.
    """
    if given is None:
        folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
        path = folder / "config.json"
        return _names_in(_json(path)) if path.is_file() else None
    path = Path(given)
    text = text_of(path, "give one name per line, or a JSON list")
    if path.suffix.lower() != ".json":
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    names = _names_in(_json(path))
    if names is None:
        raise InputError(f"{path} holds no class names: give a JSON list of them, label_names or id2label")
    return names


def _json(path: Path) -> Any:
    try:
        return json.loads(text_of(path, ""))
    except (ValueError, RecursionError):
        return None  # that the names are not known is said where they are needed


def _names_in(data: Any) -> tuple[str, ...] | None:
    table = data if isinstance(data, Mapping) else {}
    inner = table.get("pretrained_cfg")
    labels = table.get("id2label")
    if isinstance(labels, Mapping) and set(labels) == {str(k) for k in range(len(labels))}:
        labels = [labels[str(k)] for k in range(len(labels))]
    nested = inner.get("label_names") if isinstance(inner, Mapping) else None
    for names in (data, table.get("label_names"), nested, labels):
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None


def in_order(
    rows: Features, names: tuple[str, ...] | None, classes: int, where: str, *, numbered: bool = False
) -> Features:
    """Rows numbered as the outputs of a layer with `classes` rows: integer labels as they are, others by name.

    The counts of classes that the rows do not know are 0. `where` names the rows in messages. `numbered` says that the
    names of the rows only stand for their numbers: without `names`, these numbers are the outputs.

    Raises: InputError if the names of the classes are needed and not known, or a label is none of them.
    """
    if names is not None and len(names) != classes:
        raise InputError(f"there are {len(names)} class names for a layer of {classes} outputs; give one for each")
    if numbered and names is None and len(rows.counts) == classes:
        return rows
    known = range(len(rows.counts)) if rows.class_names is None else rows.class_names
    integers = all(INTEGER.fullmatch(str(name)) for name in known)
    if names is None and not integers:
        raise InputError(
            f"{where} has labels by name, such as {known[0]!r}, and the order of the classes in the checkpoint is not "
            "known; give the names in its order (class_names=), or label the rows 0, 1, ...",
            "(class_names=)",
        )
    own = np.array([int(name) for name in known]) if integers else np.arange(len(known))
    target = names or tuple(str(k) for k in range(classes))
    place = match(Coded(own, None if integers else tuple(map(str, known))), target, lambda _: where).y
    counts = torch.zeros(classes, dtype=torch.int64).index_add(0, torch.from_numpy(place), rows.counts.n)
    return replace(rows, y=torch.from_numpy(place)[rows.y], counts=ClassCounts(counts), class_names=names)


# --- the note --------------------------------------------------------------------------------------------------------


def _note(done: Rebalanced) -> dict[str, Any]:
    """What is known of a result, but for the digests."""
    model, layer = done.model, done.layer
    return {
        "layer": {
            "weight": layer.weight.name,
            "bias": None if layer.bias is None else layer.bias.name,
            "shape": list(layer.weight.shape),
            "type": layer.weight.kind,
        },
        "method": model.method,
        "prior_applied": None if model.prior_applied is None else model.prior_applied.tolist(),
        "class_names": list(model.class_names),
        "counts": model.counts.n.tolist(),
        "held_out": {
            "rows": done.after.rows,
            "balanced_accuracy": {"before": done.before.balanced_accuracy, "after": done.after.balanced_accuracy},
            "recall_for_prior": {"before": done.before_recall, "after": done.after_recall},
        },
        "rounding": {"largest_change_of_a_logit": done.rounding.moved, "answers_changed": done.rounding.changed},
        "provenance": dict(model.provenance),
    }
