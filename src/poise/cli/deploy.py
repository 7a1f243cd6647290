"""Verbs that make and use what is deployed: fit, predict, check."""

from pathlib import Path
from typing import Annotated

import typer

from poise.cli.inputs import (
    Groups,
    HeadFile,
    HeldOut,
    Ignore,
    Label,
    Seen,
    Train,
    class_prior,
    existing,
    load_inputs,
    per_class,
    unlabelled,
)
from poise.cli.shared import Json, Quiet, Seed, answer, progress_bar

__all__ = ["check", "fit", "predict"]


def fit(
    train: Train,
    out: Annotated[Path, typer.Option(help="Folder of the model.")] = Path("runs/model"),
    method: Annotated[
        str, typer.Option("--method", "-m", help="auto, or a method such as 'balanced_softmax' or 'tau_norm(tau=0.7)'.")
    ] = "auto",
    prior: Annotated[
        str, typer.Option(help="Class prior of deployment: uniform, train, or a JSON file {class name: share}.")
    ] = "uniform",
    held_out: HeldOut = None,
    head: HeadFile = None,
    abstain_accuracy: Annotated[
        float | None, typer.Option(help="Abstain so that the answers given are right this often.", show_default=False)
    ] = None,
    coverage: Annotated[
        float | None, typer.Option(help="Abstain so that this share of rows is answered.", show_default=False)
    ] = None,
    precision: Annotated[
        float | None, typer.Option(help="A threshold per class that reaches this precision.", show_default=False)
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help="Conformal sets that miss the true class at most this often, per class.", show_default=False),
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Name the k best classes.", show_default=False)] = None,
    costs: Annotated[
        Path | None, typer.Option(help="JSON file {class name: cost of missing it}; 1 for others.", show_default=False)
    ] = None,
    seed: Seed = 0,
    label: Label = None,
    groups: Groups = None,
    ignore: Ignore = "",
    seen: Seen = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Choose, fit and calibrate a head for your class prior, and write a folder that `poise predict` reads."""
    from poise import runs
    from poise.deployment import Targets, deploy
    from poise.errors import InputError

    if head is not None and held_out is None:
        raise InputError("--head needs --held-out: rows that neither the head nor the backbone saw")
    read = load_inputs(
        train, held_out=held_out, head=head, label=label, groups=groups, ignore=ignore, seen=seen, seed=seed
    )
    names = read.problem.train.names
    targets = Targets(
        abstain_accuracy=abstain_accuracy,
        coverage=coverage,
        precision=precision,
        alpha=alpha,
        top_k=top_k,
        costs=None if costs is None else per_class(costs, names, default=1.0),
    )
    target = class_prior(prior, names)
    runs.prepare(out)
    if targets.need_rows and held_out is None:
        read = read.with_rows_aside(seed)
    with progress_bar("fitting", quiet=quiet or as_json) as report:
        model = deploy(
            read.problem,
            method=method,
            prior=target,
            targets=targets,
            groups=read.groups,
            seed=seed,
            progress=report,
        )
    model = model.with_provenance(data=read.name, columns=None if read.columns is None else list(read.columns))
    folder = model.save(out)
    applied = "none: probabilities are plain softmax values" if model.prior_applied is None else prior
    recall = model.provenance.get("unseen_recall")
    answer(
        {"method": model.method, "classes": len(model.class_names), "path": str(folder), "unseen_recall": recall},
        [
            f"method: {model.method}",
            f"classes: {len(model.class_names)}; prior: {applied}",
            *([] if recall is None else [_expected(recall, prior, method)]),
            *([f"operating point: {', '.join(model.operating.described())}"] if model.operating else []),
            f"next: poise predict {folder} ROWS",
        ],
        written=[folder],
        remarks=read.remarks,
        as_json=as_json,
        quiet=quiet,
    )


def _expected(recall: float, prior: str, method: str) -> str:
    """What the recall on unseen rows means, in words."""
    kind = {"uniform": "balanced accuracy", "train": "accuracy"}.get(prior, "accuracy under the given prior")
    doubt = " (they chose it: expect a little less)" if method == "auto" else ""
    return f"{kind} on unseen rows: {100 * recall:.1f} %{doubt}"


def predict(
    model: Annotated[Path, typer.Argument(help="The folder that `poise fit` wrote.")],
    rows: Annotated[str, typer.Argument(help="Rows to predict; other columns are carried along.")],
    out: Annotated[Path, typer.Option(help="A .csv or .parquet file.")] = Path("predictions.csv"),
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Write the K best classes instead of all probabilities.", show_default=False),
    ] = None,
    ignore: Ignore = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict rows with a fitted model: class names, confidence and probabilities, one line per row."""
    from poise.artefact import load
    from poise.predictions import write_predictions

    found = load(existing(model))
    read = unlabelled(rows, found.provenance.get("columns"), ignore)
    with progress_bar("predicting", quiet=quiet or as_json) as report:
        done = write_predictions(found, read.x, out, carried=read.extra, top=top, progress=report)
    given = sorted(((name, n) for name, n in done.answers.items() if n), key=lambda item: -item[1])
    rest = [f"  and {len(given) - 10} classes more"] if len(given) > 10 else []
    prior = "the prior that it was fitted for" if found.prior_applied is not None else "no prior: treat them as scores"
    answer(
        {"rows": done.rows, "abstained": done.abstained, "answers": done.answers, "path": str(done.path)},
        [
            f"{done.rows} rows" + (f", {done.abstained} without an answer" if found.operating else ""),
            *(f"  {name}: {n}" for name, n in given[:10]),
            *rest,
            f"probabilities are for {prior}",
        ],
        written=[done.path],
        remarks=read.notes,
        as_json=as_json,
        quiet=quiet,
    )


def check(
    paths: Annotated[list[Path], typer.Argument(help="Folders of models, stores or runs, or head files.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Verify artefacts: every byte of shards and heads against its checksum. Exit code 2 if anything is wrong."""
    from poise.checkup import check_path
    from poise.errors import InputError

    found = {str(path): check_path(path) for path in paths}
    said = [f"{path}: {kind}, {_how_many(bad)}" for path, (kind, bad) in found.items()]
    data = {path: {"kind": kind, "problems": bad} for path, (kind, bad) in found.items()}
    answer(data, said, as_json=as_json, quiet=quiet)
    problems = [problem for _, bad in found.values() for problem in bad]
    if problems:
        raise InputError("; ".join(problems))


def _how_many(problems: list[str]) -> str:
    return {0: "intact", 1: "1 problem"}.get(len(problems), f"{len(problems)} problems")
