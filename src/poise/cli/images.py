"""Verbs that begin with images or texts: train, extract."""

import json
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli import completion
from poise.cli.inputs import Label
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
    command_line,
    fit_of,
    progress_bar,
    say_replaced,
)

if TYPE_CHECKING:
    from poise.config import Config
    from poise.deployment import Targets
    from poise.project import Fitted
    from poise.samples import Samples

__all__ = ["extract", "fit_images", "inspect_counts", "inspect_images", "samples_in", "train"]

DataPath = Annotated[str | None, typer.Option(help="Training samples, as data.train.", show_default=False)]
TestPath = Annotated[str | None, typer.Option(help="Test samples, as data.test.", show_default=False)]


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A YAML file, or the name of a shipped recipe; without one, they are listed.",
            autocompletion=completion.recipe_files,
        ),
    ] = None,
    data: DataPath = None,
    test: TestPath = None,
    changes: Set = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/train"),
    strict: Annotated[bool, typer.Option("--strict", help="Refuse samples that are in two parts.")] = False,
    allow_changed: Annotated[
        bool, typer.Option("--allow-changed", help="Go on with a run whose settings or data were others.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved settings and the split, and stop.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a backbone and its classifier (stage 1), and extract the features of every part.

    The same command goes on where a run was stopped: by a signal (exit code 130 or 143), a crash, or a kill. Several
    processes share the work when started by torchrun: `torchrun --nproc-per-node 2 -m poise train ...`.
    """
    from poise.config import dump_config, load_config, recipes
    from poise.pipeline import prepare
    from poise.report import tables

    if recipe is None:
        names = dict(recipes())
        answer(names, [tables.listing(names)], as_json=as_json, quiet=quiet)
        return
    config = load_config(recipe, [*_changes({"data.train": data, "data.test": test}), *(changes or ())])
    if dry_run:
        # The settings alone go to the output, unfolded, so that they can be kept as a file.
        splits = None if config.missing() else prepare(config, strict=strict)
        notes = config.missing() if splits is None else (*splits.notes, f"split hash: {splits.hash}")
        resolved = {"config": config.model_dump(mode="json"), "split": None if splits is None else splits.hash}
        for note in () if quiet else notes:
            typer.echo(f"note: {note}", err=True)
        typer.echo(json.dumps(resolved) if as_json else dump_config(config).rstrip("\n"))
        return
    _run(config, out, strict=strict, allow_changed=allow_changed, as_json=as_json, quiet=quiet)


def _changes(given: Mapping[str, Any]) -> list[str]:
    """What options say, as changes of a configuration; names such as "2024" or "photos #1" stay texts there."""
    texts = {key: json.dumps(str(v), ensure_ascii=False) for key, v in given.items() if isinstance(v, str | Path)}
    return [f"{key}={texts.get(key, value)}" for key, value in given.items() if value is not None]


def _run(config: "Config", out: Path, *, strict: bool, allow_changed: bool, as_json: bool, quiet: bool) -> None:
    from poise import runs
    from poise.claims import claimed
    from poise.distributed import started
    from poise.memory import keep_freed_memory
    from poise.pipeline import (
        is_described,
        load_problem,
        prepare,
        represent,
        stage1_scores,
        store_features,
        write_description,
    )
    from poise.report import tables

    keep_freed_memory()
    with started() as world:
        silent = quiet or as_json or not world.first
        runs.prepare(out)
        with claimed(out) if world.first else nullcontext():
            splits = prepare(config, strict=strict)
            if world.first and not is_described(out):
                write_description(config, splits, out)
            phase = partial(progress_bar, quiet=silent)
            representation = represent(config, splits, out, world=world, allow_changed=allow_changed, phase=phase)
            stores = store_features(config, representation, splits, out, world=world, phase=phase)
            written = write_description(config, splits, out) if world.first else []
        if not world.first:
            return
    scores = stage1_scores(load_problem(representation, stores))
    lines = [*(f"  {note}" for note in splits.notes), *_said_of(config)]
    table = tables.scores_by_part(scores, title="stage 1, top-1 in per cent") if scores else "no stage-1 classifier"
    answer(
        {"out": str(out), "split": splits.hash, "stage1": {part: found.to_dict() for part, found in scores.items()}},
        [f"split {splits.hash}", *lines, "", table, "", f"next: poise compare {quote(str(out))}"],
        written=[
            *written,
            *stores.values(),
            runs.write_json(out / "stage1.json", {p: f.to_dict() for p, f in scores.items()}),
        ],
        as_json=as_json,
        quiet=quiet,
    )


def _said_of(config: "Config") -> list[str]:
    """What a user might not expect of the settings of stage 1."""
    return [] if config.stage1 is None else list(config.stage1.remarks)


def extract(
    model: Annotated[
        str, typer.Argument(help="A run or its representation folder, or a backbone such as timm:resnet50.")
    ],
    data: Annotated[str | None, typer.Option(help="Samples. (default: those of the run)", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="Folder; every split becomes a store in it.")] = Path("runs/features"),
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Load the published weights of a backbone.")] = False,
    weights: Annotated[Path | None, typer.Option(help="Weight file of a backbone.", show_default=False)] = None,
    label: Label = None,
    image: ImageColumn = None,
    text: TextColumn = None,
    root: Root = None,
    backbone: Trusted = None,
    views: Annotated[int, typer.Option(min=0, help="Augmented views beside the test-time view.")] = 0,
    flip: Annotated[bool, typer.Option("--flip", help="Add the mirrored view.")] = False,
    dtype: Annotated[str, typer.Option(help="float16, bfloat16 or float32.")] = "float16",
    batch_size: Annotated[int, typer.Option(min=1, help="Images computed at once.")] = 256,
    workers: Workers = 0,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn images or texts into feature stores; what an interrupted extraction finished is kept.

    Shards are shared out among processes started by torchrun. Every store says whether its rows trained the backbone.
    """
    from poise import runs
    from poise.claims import claimed
    from poise.config import Backbone
    from poise.distributed import started
    from poise.errors import PoiseWarning
    from poise.extract import Views
    from poise.memory import keep_freed_memory
    from poise.pipeline import extract_splits, opened_backbone, run_data

    keep_freed_memory()

    how = Views(random=views, flip=flip, dtype=dtype, batch_size=batch_size, seed=seed)  # type: ignore[arg-type]
    source = data or run_data(Path(model))
    with started() as world:
        runs.prepare(out)
        with claimed(out) if world.first else nullcontext():
            network = opened_backbone(model, pretrained=pretrained, weights=weights, trusted=backbone)
            if not (pretrained or weights or Path(model).is_dir()) and Backbone(name=model).untrained:
                give = "--pretrained, or --weights FILE" if ":" in model else "--weights FILE"
                said = f"{model} is not trained: its features are those of random weights; give {give}"
                warnings.warn(said, PoiseWarning, stacklevel=1)
            stores = extract_splits(
                network,
                source,
                out,
                otherwise=how,
                asked={"label": label, "image": image, "text": text, "root": root},
                world=world,
                device=device,
                workers=workers,
                phase=partial(progress_bar, quiet=quiet or as_json or not world.first),
            )
        if not world.first:
            return
    answer(
        {part: str(path) for part, path in stores.items()},
        [f"{', '.join(stores)} of {source if isinstance(source, str) else model}"],
        written=list(stores.values()),
        as_json=as_json,
        quiet=quiet,
    )


# --- fit and predict with images or texts -----------------------------------------------------------------------------


def samples_in(
    path: str, *, asked: Mapping[str, Any], recipe: str | None = None, changes: list[str] | None = None
) -> "dict[str, Samples] | None":
    """The samples of a path by split; None if it holds feature rows instead.

    How they are read is `asked`, or said by the section `data` of a recipe and its changes.

    Raises: InputError for a folder, list or archive that cannot be used.
    """
    from poise.errors import InputError
    from poise.sources import open_samples

    place = Path(path)
    if (place / "manifest.json").exists() or (place / "features").is_dir():
        return None
    if place.suffix.lower() in (".npy", ".safetensors") or ("#" in path and not place.exists()):
        return None
    wanted = {key: value for key, value in asked.items() if value is not None} | _said_of_data(recipe, changes)
    may_be_features = place.suffix.lower() in (".csv", ".tsv", ".parquet", ".npz") and not place.is_dir()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = open_samples(path, **wanted)
    except InputError:
        # A table or array file without images: its columns are features, and what is wrong with it is said there.
        if may_be_features and not {"image", "text"} & set(wanted):
            return None
        raise
    for warning in caught:
        warnings.warn(warning.message, stacklevel=2)
    return found


def _said_of_data(recipe: str | None, changes: list[str] | None) -> dict[str, Any]:
    """How samples are read, by a recipe and by those changes that are about data."""
    from poise.config import load_config
    from poise.pipeline import reading

    about = [change for change in changes or () if change.startswith("data.")]
    if recipe is None and not about:
        return {}
    said = reading(load_config(recipe or "photographs", about).data)
    return {key: value for key, value in said.items() if value is not None}


def fit_images(
    samples: "dict[str, Samples]",
    path: str,
    out: Path,
    *,
    method: str,
    prior: str,
    targets: "Targets",
    recipe: str | None,
    backbone: str | None,
    asked: Mapping[str, Any],
    changes: list[str] | None,
    seed: int,
    strict: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """From samples to a deployable folder, as `poise fit` does it."""
    from poise import runs
    from poise.claims import claimed
    from poise.cli.inputs import class_prior
    from poise.config import load_config
    from poise.memory import keep_freed_memory
    from poise.pipeline import prepare
    from poise.project import fit_samples, recipe_for
    from poise.report import tables
    from poise.survey import scarce
    from poise.wording import some

    given = {"data.train": path, "backbone.name": backbone, "data.seed": seed or None}
    given |= {f"data.{key}": value for key, value in asked.items()}
    named = recipe or recipe_for(samples["train"].items, backbone)
    config = load_config(named, [*_changes(given), *(changes or ())])
    keep_freed_memory()
    say_replaced(runs.prepare(out), "model.json", quiet=quiet or as_json)  # a stopped run has none, and goes on
    with claimed(out):
        splits = prepare(config, strict=strict)
        lines = [f"{path}: {len(splits.train.class_names)} classes", *(f"  {note}" for note in splits.notes)]
        few = scarce(splits.train.counts, splits.train.class_names)
        lines += [f"  hardly to be judged, with so few samples: {some(few)}"] if few else []
        lines += [f"recipe: {config.recipe or named}; backbone: {config.backbone.name}", *_said_of(config)]
        answer(None, lines, quiet=quiet or as_json)
        found = fit_samples(
            config,
            splits,
            out,
            method=method,
            prior=class_prior(prior, splits.train.class_names),
            targets=targets,
            seed=seed,
            name="" if path.startswith("demo:") else Path(path).name,
            command=command_line(),
            phase=partial(progress_bar, quiet=quiet or as_json),
        )
    said: list[Any] = []
    remark = None if found.comparison is None else found.comparison.remark_on_size()
    if config.stage1 is None and splits.held_out is not None:
        said += ["stage1: no classifier came with the backbone, so plain cross-entropy was fitted and tuned", ""]
    if found.comparison is not None:
        said += [tables.to_terminal(found.comparison.table(), title=Path(path).name), tables.LEGEND, ""]
        said += [found.comparison.verdict(), ""]
    said += [f"written: {found.model.method}{_for_prior(found)}{_whose(found, method)}", *_not_compared(found, method)]
    if found.scores is not None:
        said += [tables.scores_by_part({"test": found.scores}, title="the model on the test split, in per cent")]
    answer(
        {
            "method": found.model.method,
            "classes": len(found.model.class_names),
            "path": str(out),
            "test": None if found.scores is None else found.scores.to_dict(),
            "comparison": None if found.comparison is None else found.comparison.to_dict(),
        },
        [*said, f"next: poise predict {quote(str(out))} MORE"],
        written=found.written,
        remarks=[remark] if remark else [],
        as_json=as_json,
        quiet=quiet,
    )


def _for_prior(found: "Fitted") -> str:
    """The class prior that the head was made for, which its scores follow; nothing for plain scores."""
    from poise.wording import prior_in_words

    model = found.model
    if model.prior_applied is None:
        return ""
    return f", for {prior_in_words(model.prior_applied.tolist(), model.counts.n.tolist(), model.class_names)}"


def _whose(found: "Fitted", method: str) -> str:
    """Who chose the head that was written; the verdict asks another question, what the test split can prove."""
    recommended = None if found.comparison is None else found.comparison.recommended
    if method != "auto" or recommended is None or str(recommended.method) != found.model.method:
        return ""
    return ", recommended by the held-out samples; the verdict says what the test split can prove"


def _not_compared(found: "Fitted", method: str) -> list[str]:
    """A line where the head was chosen otherwise than by the comparison that was shown."""
    recommended = None if found.comparison is None else found.comparison.recommended
    if method != "auto" or recommended is None or recommended.method == found.model.method:
        return []
    return ["(chosen by cross-validation among converged heads, as for any feature rows; not by the table above)"]


def inspect_counts(path: Path, *, as_json: bool, quiet: bool) -> None:
    """The sizes of classes and groups of a JSON file that holds a list of counts."""
    from poise.sources import read_counts
    from poise.wording import counted

    counts = read_counts(path)
    groups = {
        name: {"classes": int(mask.sum()), "rows": int(counts.n[mask].sum())} for name, mask in counts.shots().items()
    }
    rows, classes = int(counts.n.sum()), len(counts)
    answer(
        {"rows": rows, "classes": classes, "imbalance": counts.imbalance, "groups": groups},
        [
            f"{path}: {counted(rows, 'sample')}, {classes} classes, imbalance {counts.imbalance:.4g}",
            *(
                f"{name}: {counted(found['classes'], 'class', 'classes')}, {counted(found['rows'], 'sample')}"
                for name, found in groups.items()
            ),
        ],
        as_json=as_json,
        quiet=quiet,
    )


def inspect_images(
    samples: "dict[str, Samples]", path: str, *, every: bool, asked: Mapping[str, Any], as_json: bool, quiet: bool
) -> None:
    """What is in a source of samples that is read as `asked`, as `poise inspect` says it."""
    from poise.survey import survey

    with progress_bar("looking at samples", quiet=quiet or as_json) as report:
        found = survey(samples, read=None if every else 64, progress=report)
    options = {"--groups" if key == "group" else f"--{key}": value for key, value in asked.items()}
    following = ["", f"next: {fit_of(path, options)}"] if "train" in samples else []
    answer(found.to_dict(), [path, *found.lines(), "", *found.advice, *following], as_json=as_json, quiet=quiet)
