"""Verbs that begin with images or texts: train, extract."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poise.cli.inputs import Label
from poise.cli.shared import Json, Quiet, Seed, answer, progress_bar

if TYPE_CHECKING:
    from poise.config import Config

__all__ = ["extract", "train"]

Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="Change one key, such as 'stage1.lr=0.05'; repeat.", show_default=False),
]
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
    image: Annotated[str | None, typer.Option(help="Column of the images.", show_default=False)] = None,
    text: Annotated[str | None, typer.Option(help="Column of the texts.", show_default=False)] = None,
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
