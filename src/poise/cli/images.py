"""Verbs that begin with images or texts: train, extract."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli import completion
from poise.cli.options import Broken, Changes, Goal, ItemColumns, Label, Network, Seed, Training, Voice
from poise.cli.shared import answer, command_line, progress_bar, say_replaced, tell, writing

if TYPE_CHECKING:
    from poise.commands.config import Config
    from poise.commands.fit import Fitted
    from poise.data.samples.sample_set import Samples
    from poise.data.splits import Splits
    from poise.results.scores import Scores


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A YAML file, or the name of a shipped recipe; without one, they are listed.",
            autocompletion=completion.recipe_files,
        ),
    ] = None,
    *,
    data: Annotated[str | None, typer.Option(help="Training samples, as data.train.")] = None,
    test: Annotated[str | None, typer.Option(help="Test samples, as data.test.")] = None,
    changes: Changes = None,
    broken: Broken = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/train"),
    strict: Annotated[bool, typer.Option("--strict", help="Refuse samples that are in two parts.")] = False,
    allow_changed: Annotated[
        bool, typer.Option("--allow-changed", help="Go on with a run whose settings or data were others.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved settings and the split, and stop.")
    ] = False,
    voice: Voice,
) -> None:
    """Train a backbone and its classifier (stage 1), and extract the features of every part.

    The same command goes on where a run was stopped: by a signal (exit code 130 or 143), a crash, or a kill. Several
    processes share the work when started by torchrun: `torchrun --nproc-per-node 2 -m poise train ...`.
    """
    from poise.commands.config import load_config, recipes
    from poise.commands.stages import refuse_unsaid
    from poise.report.text import score_tables

    if recipe is None:
        names = dict(recipes())
        answer(names, [score_tables.listing(names)], voice)
        return
    given = {"data.train": data, "data.test": test, "data.broken": broken}
    config = load_config(recipe, [*_changes(given), *(changes or ())])
    refuse_unsaid(config, recipe, changes or ())
    if dry_run:
        _resolve(config, strict, voice)
    else:
        _run(config, out, strict=strict, allow_changed=allow_changed, voice=voice)


def _resolve(config: "Config", strict: bool, voice: Voice) -> None:
    """The settings alone on the output, unfolded, so that they can be kept as a file; the rest is notes."""
    from poise.commands.config import dump_config
    from poise.commands.stages import prepare

    splits = None if config.missing() else prepare(config, strict=strict)
    notes = config.missing() if splits is None else (*splits.notes, f"split hash: {splits.hash}")
    resolved = {"config": config.model_dump(mode="json"), "split": None if splits is None else splits.hash}
    for note in () if voice.quiet else notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(json.dumps(resolved) if voice.as_json else dump_config(config).rstrip("\n"))


def _changes(given: Mapping[str, Any]) -> list[str]:
    """What options say, as changes of a configuration; names such as "2024" or "photos #1" stay texts there."""
    texts = {key: json.dumps(str(v), ensure_ascii=False) for key, v in given.items() if isinstance(v, str | Path)}
    return [f"{key}={texts.get(key, value)}" for key, value in given.items() if value is not None]


def _run(config: "Config", out: Path, *, strict: bool, allow_changed: bool, voice: Voice) -> None:
    from poise.commands import description, run_folder, stages
    from poise.machine.folders import generation, moved, sweep
    from poise.machine.kept_memory import keep_freed_memory
    from poise.machine.processes import started

    keep_freed_memory()
    with started() as world, writing(out):
        if world.first:
            sweep(out)
        splits = stages.prepare(config, strict=strict)
        if world.first and not description.is_described(out):
            description.write_description(config, splits, out)
        phase = partial(progress_bar, quiet=voice.silent or not world.first)
        network = stages.represent(config, splits, out, world=world, allow_changed=allow_changed, phase=phase)
        stores = stages.store_features(config, network, splits, out, world=world, phase=phase)
        if not world.first:
            return
        scores = stages.stage1_scores(stages.load_problem(network, stores))
        data = {part: found.to_dict() for part, found in scores.items()}
        stages.seal_run(out)
        with generation(out) as stage:
            written = description.write_description(config, splits, stage)
            written.append(run_folder.write_json(stage / "stage1.json", data))
    *described, measured = moved(written, stage, out)
    answer(
        {"out": str(out), "split": splits.hash, "stage1": data},
        _trained(config, splits, scores, out),
        voice,
        written=[*described, *stores.values(), measured],
    )


def _trained(config: "Config", splits: "Splits", scores: "dict[str, Scores]", out: Path) -> list[Any]:
    """A trained stage 1 in lines."""
    from poise.report.text import score_tables

    lines = [*(f"  {note}" for note in splits.notes), *_said_of(config)]
    table = (
        score_tables.scores_by_part(scores, title="stage 1, top-1 in per cent") if scores else "no stage-1 classifier"
    )
    return [f"split {splits.hash}", *lines, "", table, "", f"next: poise compare {quote(str(out))}"]


def _said_of(config: "Config") -> list[str]:
    """What a user might not expect of the settings of stage 1."""
    return [] if config.stage1 is None else list(config.stage1.remarks)


@dataclass(frozen=True)
class Start:
    """The weights of a backbone that is named, not trained here."""

    pretrained: Annotated[bool, typer.Option("--pretrained", help="Load the published weights of a backbone.")] = False
    weights: Annotated[Path | None, typer.Option(help="Weight file of a backbone.")] = None


@dataclass(frozen=True)
class Look:
    """How images are seen when their features are computed."""

    views: Annotated[int, typer.Option(min=0, help="Augmented views beside the test-time view.")] = 0
    flip: Annotated[bool, typer.Option("--flip", help="Add the mirrored view.")] = False
    dtype: Annotated[str, typer.Option(help="float16, bfloat16 or float32.")] = "float16"
    batch_size: Annotated[int, typer.Option(min=1, help="Images computed at once.")] = 256
    seed: Seed = 0


def extract(
    model: Annotated[
        str, typer.Argument(help="A run or its representation folder, or a backbone such as timm:resnet50.")
    ],
    *,
    data: Annotated[str | None, typer.Option(help="Samples. (default: those of the run)")] = None,
    out: Annotated[Path, typer.Option(help="Folder; every split becomes a store in it.")] = Path("runs/features"),
    start: Start,
    label: Label = None,
    columns: ItemColumns,
    network: Network,
    look: Look,
    voice: Voice,
) -> None:
    """Turn images or texts into feature stores; what an interrupted extraction finished is kept.

    Shards are shared out among processes started by torchrun. Every store says whether its rows trained the backbone.
    """
    from poise.commands.stages import extract_splits, run_data
    from poise.machine.folders import seal, sweep
    from poise.machine.kept_memory import keep_freed_memory
    from poise.machine.processes import started
    from poise.representation.extract import Views

    keep_freed_memory()
    how = Views(random=look.views, flip=look.flip, dtype=look.dtype, batch_size=look.batch_size, seed=look.seed)  # type: ignore[arg-type]
    source = data or run_data(Path(model))
    with started() as world, writing(out):
        if world.first:
            sweep(out)
        stores = extract_splits(
            _opened(model, start, network.backbone),
            source,
            out,
            otherwise=how,
            asked={"label": label, **vars(columns)},
            world=world,
            device=network.device,
            workers=network.workers,
            phase=partial(progress_bar, quiet=voice.silent or not world.first),
        )
        if not world.first:
            return
        seal(out, [], adds=True)
    answer(
        {part: str(path) for part, path in stores.items()},
        [f"{', '.join(stores)} of {source if isinstance(source, str) else model}"],
        voice,
        written=list(stores.values()),
    )


def _opened(model: str, start: Start, trusted: str | None) -> Any:
    """The backbone of a run, or one that is named. Warns (PoiseWarning) if its weights are random."""
    from poise.commands.config import Backbone
    from poise.commands.stages import opened_backbone
    from poise.errors import PoiseWarning

    network = opened_backbone(model, pretrained=start.pretrained, weights=start.weights, trusted=trusted)
    if not (start.pretrained or start.weights or Path(model).is_dir()) and Backbone(name=model).untrained:
        give = "--pretrained, or --weights FILE" if ":" in model else "--weights FILE"
        said = f"{model} is not trained: its features are those of random weights; give {give}"
        warnings.warn(said, PoiseWarning, stacklevel=1)
    return network


# --- fit and predict with images or texts -----------------------------------------------------------------------------


def samples_in(
    path: str, *, asked: Mapping[str, Any], recipe: str | None = None, changes: list[str] | None = None
) -> "dict[str, Samples] | None":
    """The samples of a path by split; None if it holds feature rows instead.

    How they are read is `asked`, or said by the section `data` of a recipe and its changes.

    Raises: InputError for a folder, list or archive that cannot be used.
    """
    from poise.data.samples.formats import open_samples
    from poise.data.tables.reader_contract import kind_of
    from poise.errors import InputError

    place = Path(path)
    if (place / "manifest.json").exists() or (place / "features").is_dir():
        return None
    if place.suffix.lower() in (".npy", ".safetensors") or ("#" in path and not place.exists()):
        return None
    wanted = {key: value for key, value in asked.items() if value is not None} | _said_of_data(recipe, changes)
    may_be_features = kind_of(place) in (".csv", ".tsv", ".parquet", ".npz") and not place.is_dir()
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
    from poise.commands.config import load_config
    from poise.commands.stages import reading

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
    goal: Goal,
    training: Training,
    asked: Mapping[str, Any],
    seed: int,
    voice: Voice,
) -> None:
    """From samples to a deployable folder, as `poise fit` does it."""
    from poise.cli.inputs import class_prior
    from poise.commands.config import load_config
    from poise.commands.fit import RESULT, fit_samples, recipe_for
    from poise.commands.stages import prepare, refuse_unsaid
    from poise.machine.folders import sweep
    from poise.machine.kept_memory import keep_freed_memory

    targets = goal.targets()
    given = {"data.train": path, "backbone.name": training.backbone, "data.seed": seed or None}
    given |= {f"data.{key}": value for key, value in asked.items()}
    named = training.recipe or recipe_for(samples["train"].items, training.backbone)
    said = [*_changes(given), *training.settings]
    config = load_config(named, said)
    refuse_unsaid(config, named, said)
    keep_freed_memory()
    with writing(out, RESULT):
        sweep(out)
        splits = prepare(config, strict=training.strict)
        say_replaced(out, "model.json", quiet=voice.silent)  # a stopped run has none, and goes on
        tell(_begun(path, splits, config, named), voice)
        found = fit_samples(
            config,
            splits,
            out,
            method=method,
            prior=class_prior(goal.prior, splits.train.class_names),
            targets=targets,
            seed=seed,
            name="" if path.startswith("demo:") else Path(path).name,
            command=command_line(),
            phase=partial(progress_bar, quiet=voice.silent),
        )
    _tell_fitted(found, path, out, method, voice)


def _begun(path: str, splits: "Splits", config: "Config", recipe: str) -> list[str]:
    """What is about to be trained, in lines."""
    from poise.commands.inspect_samples import scarce
    from poise.representation.backbones.stronger import suggestion
    from poise.values.wording import some

    few = scarce(splits.train.counts, splits.train.class_names)
    return [
        f"{path}: {len(splits.train.class_names)} classes",
        *(f"  {note}" for note in splits.notes),
        *([f"  hardly to be judged, with so few samples: {some(few)}"] if few else []),
        f"recipe: {config.recipe or recipe}; backbone: {config.backbone.name}",
        *([better] if (better := suggestion(config.backbone.name)) else []),
        *_said_of(config),
    ]


def _tell_fitted(found: "Fitted", path: str, out: Path, method: str, voice: Voice) -> None:
    """Say what was fitted."""
    from poise.report.text import score_tables

    compared, said = found.comparison, list[Any]()
    if compared is not None:
        legend = score_tables.legend(fitted=compared.fitted)
        said += [score_tables.to_terminal(compared.rows, title=Path(path).name), legend, "", compared.verdict(), ""]
    elif found.expected:
        said += [
            f"no classifier was there before; `poise compare {quote(str(out))}` compares others on a fifth of these"
        ]
    said += [f"written: {found.model.method}{_for_prior(found)}{_whose(found, method)}"]
    said += [f"{found.expected}, by cross-validation"] if found.expected and found.model.promise else []
    if found.scores is not None:
        said += [score_tables.scores_by_part({"test": found.scores}, title="the model on the test split, in per cent")]
    remark = None if compared is None else compared.remark_on_size()
    promised = {name: found.model.provenance.get(name) for name in ("unseen_recall", "promise")}
    answer(
        {
            "method": found.model.method,
            "classes": len(found.model.class_names),
            "path": str(out),
            "test": None if found.scores is None else found.scores.to_dict(),
            "comparison": None if compared is None else compared.to_dict(),
            **promised,
        },
        [*said, f"next: poise predict {quote(str(out))} MORE"],
        voice,
        written=found.written,
        remarks=[*found.remarks, *([remark] if remark else [])],
    )


def _for_prior(found: "Fitted") -> str:
    """The class prior that the head was made for, which its scores follow; nothing for plain scores."""
    from poise.values.wording import prior_in_words

    model = found.model
    if model.prior_applied is None:
        return ""
    return f", for {prior_in_words(model.prior_applied.tolist(), model.counts.n.tolist(), model.class_names)}"


def _whose(found: "Fitted", method: str) -> str:
    """Who chose the head that was written; where one was there before, the verdict asks another question."""
    compared = found.comparison
    if method != "auto":
        return ""
    if found.expected:
        return f", fitted on {int(found.model.counts.n.sum())} samples"
    if compared is None or compared.recommended is None:
        return ""
    return ", recommended by the held-out samples; the verdict says what the test split can prove"
