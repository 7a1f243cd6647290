"""Verbs that make and use what is deployed: fit, predict, check."""

import warnings
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from poise.cli.inputs import (
    Groups,
    HeadFile,
    HeldOut,
    Ignore,
    Label,
    Seen,
    class_prior,
    existing,
    load_inputs,
    per_class,
    unlabelled,
)
from poise.cli.shared import (
    Device,
    ImageColumn,
    Json,
    Quiet,
    Root,
    Seed,
    Set,
    TextColumn,
    Trusted,
    Workers,
    answer,
    progress_bar,
    refuse_several_processes,
)

__all__ = ["check", "fit", "predict"]


def fit(
    train: Annotated[
        str,
        typer.Argument(
            help="Images or texts: a folder with one folder per class, a table, a list, an archive. Or feature rows: a "
            "run of `poise train`, a store folder, .csv, .tsv, .parquet, .npz, .npy or .safetensors; FILE#NAME for one "
            "split of several."
        ),
    ],
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
    image: ImageColumn = None,
    text: TextColumn = None,
    root: Root = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Network for images or texts, such as timm:resnet50 or convnet4.", show_default=False),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe or YAML file for images or texts.", show_default=False)
    ] = None,
    changes: Set = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse images or texts that are in two parts.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Choose, fit and calibrate a head for your class prior, and write a folder that `poise predict` reads.

    Of feature rows this makes a head. Of images (a folder with one folder per class, a table, a list, an archive) or
    texts (--text COLUMN) it makes everything: it sets rows aside, trains or loads a backbone, extracts features,
    compares heads on the rows set aside, and writes backbone and head. The same command goes on where it was stopped.
    """
    from poise import runs
    from poise.cli.images import fit_images, samples_in
    from poise.deployment import Targets, deploy
    from poise.errors import InputError
    from poise.project import carry_backbone, reads_samples, refuse_mixture

    refuse_several_processes("fit", "share out `poise train`, then `poise fit RUN --out RUN` in one")
    asked = {"label": label, "group": groups, "image": image, "text": text, "root": root}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what there is to warn of is said when the samples are divided
        samples = samples_in(train, asked=asked, recipe=recipe, changes=changes)
    if samples is not None:
        if costs is not None or head is not None or held_out is not None:
            raise InputError(
                "--costs, --head and --held-out are for feature rows; name held-out images with -s data.held_out=PATH"
            )
        fit_images(
            samples,
            train,
            out,
            method=method,
            prior=prior,
            targets=Targets(
                abstain_accuracy=abstain_accuracy, coverage=coverage, precision=precision, alpha=alpha, top_k=top_k
            ),
            recipe=recipe,
            backbone=backbone,
            asked=asked,
            changes=changes,
            seed=seed,
            strict=strict,
            as_json=as_json,
            quiet=quiet,
        )
        return
    if recipe or backbone or changes:
        raise InputError(f"--recipe, --backbone and --set are for images or texts; {train} holds feature rows")
    try:
        read = load_inputs(
            train, held_out=held_out, head=head, label=label, groups=groups, ignore=ignore, seen=seen, seed=seed
        )
    except InputError as error:
        if "no numeric column" not in str(error):
            raise
        raise InputError(f"{error}; for images or texts, name their column with --image or --text") from None
    if head is not None and read.problem.held_out is None:
        raise InputError("--head needs --held-out: rows that neither the head nor the backbone saw")
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
    refuse_mixture(train, out)
    runs.prepare(out)
    if targets.need_rows and read.problem.held_out is None:
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
    carry_backbone(Path(train), out)
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
            f"next: poise predict {quote(str(folder))} {'MORE' if reads_samples(folder) else 'ROWS'}",
        ],
        written=[folder],
        remarks=read.assumed,
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
    rows: Annotated[
        str,
        typer.Argument(
            help="What to predict: images or texts, or feature rows, whose other columns are carried along."
        ),
    ],
    out: Annotated[Path, typer.Option(help="A .csv or .parquet file.")] = Path("predictions.csv"),
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Write the K best classes instead of all probabilities.", show_default=False),
    ] = None,
    ignore: Ignore = "",
    image: ImageColumn = None,
    text: TextColumn = None,
    root: Root = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the images or texts, where there are several.", show_default=False)
    ] = None,
    broken: Annotated[str, typer.Option(help="error, or skip images that cannot be read.")] = "error",
    backbone: Trusted = None,
    device: Device = "auto",
    workers: Workers = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict rows, images or texts with a fitted model: class names, confidence and probabilities, one line each."""
    from poise.artefact import load
    from poise.manifest import MANIFEST
    from poise.project import reads_samples, refuse_unfitted

    refuse_unfitted(existing(model), rows)
    found = load(model)
    silent, notes = quiet or as_json, ()
    if reads_samples(model) and not (Path(rows) / MANIFEST).exists():
        from poise.distributed import device_of
        from poise.project import predict_items
        from poise.sources import open_items

        known = found.provenance.get("read") or {}
        if Path(rows).is_file():  # a table is read by the columns that the model was trained with
            image, text = image or known.get("image"), text or known.get("text")
        items = open_items(rows, split=split, image=image, text=text, root=root)
        phase = partial(progress_bar, quiet=silent)
        where = device_of(device)
        done = predict_items(
            model,
            items,
            out,
            top=top,
            broken=broken,
            device=where,
            workers=workers,
            trusted=backbone,
            phase=phase,
        )
    else:
        from poise.predictions import write_predictions

        read = unlabelled(rows, found.provenance.get("columns"), ignore)
        notes = read.notes
        with progress_bar("predicting", quiet=silent) as report:
            done = write_predictions(found, read.x, out, carried=read.extra, top=top, progress=report)
    given = sorted(((name, n) for name, n in done.answers.items() if n), key=lambda item: -item[1])
    rest = [f"  and {len(given) - 10} classes more"] if len(given) > 10 else []
    prior = "the prior that it was fitted for" if found.prior_applied is not None else "no prior: treat them as scores"
    answer(
        {"rows": done.rows, "abstained": done.abstained, "answers": done.answers, "path": str(done.path)},
        [
            f"{done.rows} {'row' if done.rows == 1 else 'rows'}"
            + (f", {done.abstained} without an answer" if found.operating else ""),
            *(f"  {name}: {n}" for name, n in given[:10]),
            *rest,
            f"probabilities are for {prior}",
        ],
        written=[done.path],
        remarks=notes,
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
    from poise.manifest import MANIFEST
    from poise.pipeline import is_described
    from poise.project import check_run

    # A folder of stores, which `poise extract` writes, is every store in it.
    stores = {path: sorted(store.parent for store in path.glob(f"*/{MANIFEST}")) for path in paths}
    whole = {path for path in paths if is_described(path) or (path / MANIFEST).exists() or not stores[path]}
    each = [inner for path in paths for inner in ([path] if path in whole else stores[path])]
    found = {str(path): ("run", check_run(path)) if is_described(path) else check_path(path) for path in each}
    said = [f"{path}: {kind}, {_how_many(bad)}" for path, (kind, bad) in found.items()]
    data = {path: {"kind": kind, "problems": bad} for path, (kind, bad) in found.items()}
    answer(data, said, as_json=as_json, quiet=quiet)
    problems = [problem for _, bad in found.values() for problem in bad]
    if problems:
        raise InputError("; ".join(problems))


def _how_many(problems: list[str]) -> str:
    return {0: "intact", 1: "1 problem"}.get(len(problems), f"{len(problems)} problems")
