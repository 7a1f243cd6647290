"""Verbs that begin with images or texts: train, extract."""

import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli.inputs import Label
from poise.cli.shared import ImageColumn, Json, Quiet, Seed, Set, TextColumn, answer, progress_bar

if TYPE_CHECKING:
    from poise.config import Config
    from poise.deployment import Targets
    from poise.samples import Samples

__all__ = ["extract", "fit_images", "samples_in", "train"]

DataPath = Annotated[str | None, typer.Option(help="Training samples, as data.train.", show_default=False)]
TestPath = Annotated[str | None, typer.Option(help="Test samples, as data.test.", show_default=False)]


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A YAML file, or the name of a shipped recipe; without one, they are listed.")
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

    if recipe is None:
        names = recipes()
        answer(names, [f"{name:<40} {title}" for name, title in names.items()], as_json=as_json, quiet=quiet)
        return
    config = load_config(recipe, _overrides(changes, data, test))
    if dry_run:
        splits = prepare(config, strict=strict)
        said = [dump_config(config), *splits.notes, f"split hash: {splits.hash}"]
        answer({"config": config.model_dump(mode="json"), "split": splits.hash}, said, as_json=as_json, quiet=quiet)
        return
    _run(config, out, strict=strict, allow_changed=allow_changed, as_json=as_json, quiet=quiet)


def _overrides(changes: list[str] | None, data: str | None, test: str | None) -> list[str]:
    given = [("data.train", data), ("data.test", test)]
    return [*(f"{key}={value}" for key, value in given if value is not None), *(changes or ())]


def _run(config: "Config", out: Path, *, strict: bool, allow_changed: bool, as_json: bool, quiet: bool) -> None:
    from poise import runs
    from poise.claims import claimed, stoppable
    from poise.distributed import started
    from poise.pipeline import load_problem, prepare, represent, stage1_scores, store_features, write_description
    from poise.report import tables
    from poise.training import StoppedError

    with started() as world, stoppable() as wish:
        silent = quiet or as_json or not world.first
        runs.prepare(out)
        with claimed(out) if world.first else nullcontext():
            splits = prepare(config, strict=strict)
            written = write_description(config, splits, out) if world.first else []
            phase = partial(progress_bar, quiet=silent)
            try:
                representation = represent(
                    config, splits, out, world=world, should_stop=wish, allow_changed=allow_changed, phase=phase
                )
            except StoppedError as error:
                typer.echo(f"poise: {error}", err=True)
                raise SystemExit(wish.code or 143) from None
            stores = store_features(config, representation, splits, out, world=world, phase=phase)
        if not world.first:
            return
    scores = stage1_scores(load_problem(representation, stores))
    lines = [f"  {note}" for note in splits.notes]
    table = tables.scores_by_part(scores, title="stage 1, top-1 in percent") if scores else "no stage-1 classifier"
    answer(
        {"out": str(out), "split": splits.hash, "stage1": {part: found.to_dict() for part, found in scores.items()}},
        [f"split {splits.hash}", *lines, "", table, "", f"next: poise compare {out}"],
        written=[
            *written,
            *stores.values(),
            runs.write_json(out / "stage1.json", {p: f.to_dict() for p, f in scores.items()}),
        ],
        as_json=as_json,
        quiet=quiet,
    )


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
    views: Annotated[int, typer.Option(min=0, help="Augmented views beside the test-time view.")] = 0,
    flip: Annotated[bool, typer.Option("--flip", help="Add the mirrored view.")] = False,
    dtype: Annotated[str, typer.Option(help="float16, bfloat16 or float32.")] = "float16",
    batch_size: Annotated[int, typer.Option(min=1, help="Images computed at once.")] = 256,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn images or texts into feature stores; what an interrupted extraction finished is kept.

    Shards are shared out among processes started by torchrun. Every store says whether its rows trained the backbone.
    """
    from poise import runs
    from poise.claims import claimed
    from poise.distributed import started
    from poise.extract import Views
    from poise.pipeline import extract_splits, opened_backbone, run_data

    how = Views(random=views, flip=flip, dtype=dtype, batch_size=batch_size, seed=seed)  # type: ignore[arg-type]
    source = data or run_data(Path(model))
    with started() as world:
        runs.prepare(out)
        with claimed(out) if world.first else nullcontext():
            stores = extract_splits(
                opened_backbone(model, pretrained=pretrained, weights=weights),
                source,
                out,
                otherwise=how,
                asked={"label": label, "image": image, "text": text},
                world=world,
                device=device,
                workers=workers,
                phase=partial(progress_bar, quiet=quiet or as_json or not world.first),
            )
        if not world.first:
            return
    answer(
        {part: str(path) for part, path in stores.items()},
        [f"{len(stores)} stores from {source if isinstance(source, str) else model}"],
        written=list(stores.values()),
        as_json=as_json,
        quiet=quiet,
    )


# --- fit and predict with images or texts -----------------------------------------------------------------------------


def samples_in(path: str, *, asked: dict[str, str | None]) -> "dict[str, Samples] | None":
    """The samples of a path by split; None if it holds feature rows instead.

    Raises: InputError for a folder, list or archive that cannot be used.
    """
    from poise.errors import InputError
    from poise.sources import open_samples

    place = Path(path)
    if (place / "manifest.json").exists() or (place / "features").is_dir():
        return None
    if place.suffix.lower() in (".npy", ".safetensors") or ("#" in path and not place.exists()):
        return None
    wanted = {key: value for key, value in asked.items() if value is not None}
    if place.is_dir() or path.startswith("hf:") or {"image", "text"} & set(wanted):
        return open_samples(path, **wanted)  # type: ignore[arg-type]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return open_samples(path, **wanted)  # type: ignore[arg-type]
    except InputError:
        # A table or array file without images: its columns are features, and what is wrong with it is said there.
        if place.suffix.lower() in (".csv", ".tsv", ".parquet", ".npz"):
            return None
        raise


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
    asked: dict[str, str | None],
    changes: list[str] | None,
    seed: int,
    strict: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """From samples to a deployable folder, as `poise fit` does it."""
    from poise import runs
    from poise.claims import claimed, stoppable
    from poise.cli.inputs import class_prior
    from poise.config import load_config
    from poise.pipeline import prepare
    from poise.project import fit_samples, recipe_for
    from poise.report import tables
    from poise.training import StoppedError

    given = {"data.train": path, "backbone.name": backbone, "data.seed": seed}
    given |= {f"data.{key}": value for key, value in asked.items()}
    overrides = [f"{key}={value}" for key, value in given.items() if value is not None]
    config = load_config(recipe or recipe_for(samples["train"].items, backbone), [*overrides, *(changes or ())])
    runs.prepare(out)
    with claimed(out), stoppable() as wish:
        splits = prepare(config, strict=strict)
        lines = [f"{path}: {len(splits.train.class_names)} classes", *(f"  {note}" for note in splits.notes)]
        answer(None, [*lines, f"recipe: {config.recipe}; backbone: {config.backbone.name}"], quiet=quiet or as_json)
        try:
            found = fit_samples(
                config,
                splits,
                out,
                method=method,
                prior=class_prior(prior, splits.train.class_names),
                targets=targets,
                seed=seed,
                should_stop=wish,
                phase=partial(progress_bar, quiet=quiet or as_json),
            )
        except StoppedError as error:
            typer.echo(f"poise: {error}", err=True)
            raise SystemExit(wish.code or 143) from None
    said: list[Any] = []
    if found.comparison is not None:
        said += [tables.to_terminal(found.comparison.table(), title=Path(path).name), tables.LEGEND, ""]
        said += [found.comparison.verdict(), ""]
    said += [f"method: {found.model.method}"]
    if found.scores is not None:
        said += [tables.scores_by_part({"test": found.scores}, title="the model on the test split, in percent")]
    answer(
        {
            "method": found.model.method,
            "classes": len(found.model.class_names),
            "path": str(out),
            "test": None if found.scores is None else found.scores.to_dict(),
            "comparison": None if found.comparison is None else found.comparison.to_dict(),
        },
        [*said, f"next: poise predict {out} MORE"],
        written=found.written,
        as_json=as_json,
        quiet=quiet,
    )
