"""From a description of a run to its artefacts: splits, a representation, features, a problem for heads.

    folder/config.yaml, ...                what the run is (`poise.commands.description`)
    folder/checkpoint.pt, log.jsonl, .csv  the training of stage 1
    folder/representation/                 the trained backbone and its classifier
    folder/features/train, held_out, test  feature stores

Every step looks first whether its result is there, made from the same things, so that the same command goes on where
it was stopped.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from poise.commands.config import Config, Data, load_config
from poise.commands.description import CONFIG
from poise.data.leakage import check_leakage
from poise.data.samples.decode_all import pixels, readable
from poise.data.samples.formats import open_samples
from poise.data.samples.sample_set import Samples
from poise.data.splits import Splits, divide
from poise.data.store.feature_store import load_features
from poise.errors import InputError, PoiseWarning, StoppedError
from poise.machine.documents import as_read
from poise.machine.folders import seal
from poise.machine.locks import stoppable
from poise.machine.processes import World, device_of
from poise.machine.progress import Phase, unseen
from poise.metrics import evaluate
from poise.representation import training_log
from poise.representation.backbones import Backbone, build, build_text
from poise.representation.backbones.from_file import check_options, danger, needs_trust
from poise.representation.extract import Views, extract, feed_of, is_small
from poise.representation.run import begun
from poise.representation.settings import Stage1, changes
from poise.representation.trained_network import REPRESENTATION, Representation, digests, load_representation
from poise.representation.training import train
from poise.results.record import versions
from poise.results.scores import Scores
from poise.values.features import Features
from poise.values.problem import Problem

# --- data -------------------------------------------------------------------------------------------------------------


def prepare(config: Config, *, strict: bool = False) -> Splits:
    """The training, held-out and test samples of a run. Images are not decoded unless broken ones are to be skipped.

    Raises: InputError for data that cannot be used, or with `strict` for samples in two parts; warns about the latter.
    """
    data = config.data
    if missing := config.missing():
        raise InputError("; ".join(missing))
    assert data.train is not None  # or it were missing
    asked = reading(data)
    named = open_samples(data.train, **asked)
    if "train" not in named:
        raise InputError(f"{data.train} has no training split; it has {', '.join(named)}")
    _refuse_unwritable(named["train"].class_names)
    for part, path in (("held_out", data.held_out), ("test", data.test)):
        if path is not None:
            named[part] = _only(path, part, open_samples(path, **asked, class_names=named["train"].class_names))
            named.pop("val" if part == "held_out" else "", None)
    if data.broken == "skip":
        named = {part: readable(samples, "skip")[0] for part, samples in named.items()}
    splits = divide(
        named,
        profile=data.profile,
        order=data.order,
        class_order=data.class_order,
        held_out=data.held_out_rows or None,
        test=data.test_rows or None,
        seed=data.seed,
    )
    check_leakage(splits.parts, strict=strict)
    return splits


def _refuse_unwritable(class_names: Sequence[str]) -> None:
    """Raises: InputError for a class, such as a folder, whose name no file could hold, before anything is trained."""
    for name in class_names:
        if name != name.encode(errors="replace").decode():
            raise InputError(f"the name of class {name!r} is not UTF-8, so that files cannot hold it; rename it")


def reading(data: Data) -> dict[str, Any]:
    """The options of `open_samples` that a configuration gives, None where it leaves them open."""
    asked = {key: getattr(data, key) for key in ("label", "image", "text", "group", "format")}
    return {**asked, "root": None if data.root is None else Path(data.root)}


def _only(path: str, part: str, named: Mapping[str, Samples]) -> Samples:
    """The split of a source that was named for a part: the one of that name, or the only one."""
    for name in (part, "test", "val", "train") if part == "test" else (part, "val", "test", "train"):
        if name in named:
            return named[name]
    return next(iter(named.values()))


def refuse_unsaid(config: Config, recipe: str | Path, changes: Sequence[str]) -> None:
    """Raises: InputError for a recipe that names a network whose code would run, unless `changes` name it too."""
    name = config.backbone.name
    if needs_trust(name) and not any(change.startswith(("backbone.name=", "backbone=")) for change in changes):
        raise InputError(
            f"{recipe} names the network {name!r}, whose {danger(name)}; if you trust it, say so: "
            f"-s backbone.name={name}"
        )


# --- stage 1 ----------------------------------------------------------------------------------------------------------


def represent(
    config: Config,
    splits: Splits,
    folder: Path,
    *,
    world: World | None = None,
    allow_changed: bool = False,
    phase: Phase = unseen,
) -> Representation:
    """The representation of a run: as it was trained before, or trained now, or a pretrained backbone as it is.

    While it trains, SIGINT, SIGTERM and SIGUSR1 let it finish the step and save.

    Raises: StoppedError after such a signal; InputError for settings that do not fit, or a folder that holds another
    run.
    """
    if config.stage1 is None:
        return _untrained(config)
    world, target = world or World(), folder / "representation"
    identity = {
        "split": splits.hash,
        "samples": splits.train.fingerprint,
        "backbone": config.backbone.name,
        "options": dict(config.backbone.options),
        "size": config.backbone.size,
        "weights": config.backbone.weights,
        "pretrained": config.backbone.pretrained or None,  # runs of before have no such key
    }
    made_from = {"settings": config.stage1.to_dict(), **identity}
    if (target / REPRESENTATION).exists():
        found = load_representation(target, trusted=config.backbone.name)
        changed = _changed(found.provenance.get("made_from"), made_from)
        if not changed:
            return found
        if not allow_changed:
            raise InputError(
                f"{target} came about otherwise: {'; '.join(changed)}; state the same, choose another folder, or "
                "delete it"
            )
        if (folder / "features").exists():
            raise InputError(f"{folder / 'features'} are those of the run before; delete that folder to train on")
    with stoppable() as wish:
        try:
            result = _trained(config, config.stage1, splits, folder, identity, world, wish, allow_changed, phase)
        except StoppedError as error:
            error.exit_code = wish.code or error.exit_code  # another process may have been the one that was asked
            raise
    result = replace(result, provenance={"made_from": made_from, "versions": versions(), "notes": list(splits.notes)})
    if world.first:
        result.save(target)
    world.wait()
    return result


def _changed(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    """What differs between the account that a folder gives of its training and another one, in words."""
    if before is None:
        return ["its backbone was not trained there"]
    told = as_read(now, "an account of a training")
    one, other = ({**account, "settings": None} for account in (before, told))
    pairs = {key: (one.get(key), other.get(key)) for key in {**other, **one} if one.get(key) != other.get(key)}
    pairs |= changes(before["settings"], told["settings"])
    return [f"{key} was {was!r} and is now {now!r}" for key, (was, now) in pairs.items()]


def _untrained(config: Config) -> Representation:
    """A backbone with weights of its own."""
    asked = config.backbone
    if asked.name.startswith("sentence:"):
        return Representation(backbone=build_text(asked.name))
    return Representation(backbone=_built(config, seed=0), options=asked.options)


def _built(config: Config, seed: int) -> Backbone:
    asked = config.backbone
    check_options("backbone.options", asked.name, asked.options)  # before the training, whose result will say them
    weights = None if asked.weights is None else Path(asked.weights)
    more = dict(asked.options)
    return build(
        asked.name, weights=weights, pretrained=asked.pretrained, size=asked.size, saved=False, seed=seed, **more
    )


def _trained(
    config: Config,
    settings: Stage1,
    splits: Splits,
    folder: Path,
    identity: Mapping[str, Any],
    world: World,
    should_stop: Callable[[], bool],
    allow_changed: bool,
    phase: Phase,
) -> Representation:
    samples = splits.train
    if samples.items.kind == "text":
        raise InputError("texts are not trained on; set stage1 to null, and name a backbone such as sentence:minilm")
    # What cannot be read would otherwise end the run after its training, when the features of that part are made.
    for part, others in splits.parts.items():
        with phase(f"looking for broken images in {part}") as progress:
            readable(others, "error", progress)
    backbone, held = _built(config, settings.seed), None
    if is_small(backbone, len(samples)):
        with phase("reading images") as progress:
            held = pixels(samples.items, size=backbone.size, progress=progress)
    how: dict[str, Any] = {"augment": settings.augment, "seed": settings.seed, "workers": config.workers}
    with phase("training (images)") as progress:
        done = train(
            backbone,
            feed_of(backbone, samples.items, held=held, **how),
            samples.y,
            samples.counts,
            settings,
            folder,
            identity=identity,
            world=world,
            device=device_of(config.device),
            log=_log(config, folder) if world.first else None,
            progress=progress,
            should_stop=should_stop,
            checkpoint_seconds=config.checkpoint_seconds,
            allow_changed=allow_changed,
        )
    return Representation(
        backbone=replace(backbone, module=done.network.backbone),
        options=config.backbone.options,
        head=done.head,
        class_names=samples.class_names,
        counts=samples.counts,
        seen=digests(samples.items),
    )


def _log(config: Config, folder: Path) -> training_log.Log:
    saved = begun(folder)
    trackers = [training_log.tracker(name, folder, config.model_dump(mode="json")) for name in config.trackers]
    return training_log.opened(folder, 0 if saved is None else saved["step"], trackers)


# --- features ---------------------------------------------------------------------------------------------------------


def store_features(
    config: Config,
    representation: Representation,
    splits: Splits,
    folder: Path,
    *,
    world: World | None = None,
    phase: Phase = unseen,
) -> dict[str, Path]:
    """The feature store of every part, in `folder/features`: as it was extracted before, or extracted now.

    A backbone from elsewhere is kept beside them, in `folder/representation`.

    Raises: InputError if a store holds something else, or naming the first sample that cannot be read.
    """
    asked = config.extract
    augment = asked.augment or (config.stage1.augment if config.stage1 else ())
    shared: dict[str, Any] = {"dtype": asked.dtype, "batch_size": asked.batch_size}
    stores = extract_splits(
        replace(representation, counts=splits.train.counts),
        splits,
        folder / "features",
        # Heads are trained on random views and tested on mirrored ones; neither is of use to the other.
        views={"train": Views(random=asked.views, augment=augment, **shared)},
        otherwise=Views(flip=asked.flip, **shared),
        world=world,
        device=config.device,
        workers=config.workers,
        phase=phase,
    )
    # Only now it is known that the folder holds no other run, whose files are to stay as they are.
    if config.stage1 is None and (world or World()).first:
        representation.save(folder / "representation")
    return stores


def seal_run(folder: Path) -> None:
    """Write SHA256SUMS over what a run left in its folder, and over the seals of its features and backbone."""
    names = (CONFIG, "environment.json", "split.json", "checkpoint.pt", "log.jsonl", "log.csv", "stage1.json")
    seal(folder, [name for name in names if (folder / name).is_file()], adds=True)


class Loaded(NamedTuple):
    """What heads need: the problem, and a test split if there is one."""

    problem: Problem
    test: Features | None


def load_problem(representation: Representation, stores: Mapping[str, Path]) -> Loaded:
    """The problem of finished stores, with the classifier of stage 1 as its head if there is one."""
    read = {part: load_features(path) for part, path in stores.items()}
    problem = Problem(train=read["train"], head=representation.head, held_out=read.get("held_out"))
    return Loaded(problem, read.get("test"))


def stage1_scores(found: Loaded) -> dict[str, Scores]:
    """The scores of the classifier of stage 1 on every part; empty without one."""
    parts = {"train": found.problem.train, "held_out": found.problem.held_out, "test": found.test}
    head = found.problem.head
    if head is None:
        return {}
    return {part: evaluate(head(rows.x[0]), rows.y, rows.counts) for part, rows in parts.items() if rows is not None}


# --- a backbone and other samples -------------------------------------------------------------------------------------


def opened_backbone(
    name_or_folder: str, *, pretrained: bool = False, weights: Path | None = None, trusted: str | None = None
) -> Representation:
    """A representation from a run's folder, its own folder, or the name of a backbone.

    `trusted` names the network of the user's own that a folder may run, see `load_representation`.

    Raises: InputError for a folder without one, or a backbone that cannot be built.
    """
    folder = Path(name_or_folder)
    for place in (folder / "representation", folder):
        if (place / REPRESENTATION).exists():
            return load_representation(place, trusted=trusted)
    if folder.is_dir():
        raise InputError(f"{folder} holds no finished training; run `poise train` again to finish it")
    if len(folder.parts) > 1 and ":" not in name_or_folder:
        raise InputError(f"there is no folder {folder}; give a run of `poise train`, or the name of a backbone")
    if name_or_folder.startswith("sentence:"):
        return Representation(backbone=build_text(name_or_folder))
    return Representation(backbone=build(name_or_folder, pretrained=pretrained, weights=weights))


def run_data(folder: Path) -> Splits:
    """The samples of a run, divided as they were. Raises: InputError if the folder is none."""
    path = folder / CONFIG
    if not path.exists():
        raise InputError(f"{folder} is no run of `poise train`, so its samples are not known; name them with --data")
    return prepare(load_config(path))


def extract_splits(
    representation: Representation,
    source: str | Splits,
    folder: Path,
    *,
    otherwise: Views,
    views: Mapping[str, Views] | None = None,
    asked: Mapping[str, Any] | None = None,
    world: World | None = None,
    device: str = "auto",
    workers: int = 0,
    phase: Phase = unseen,
) -> dict[str, Path]:
    """A store in `folder` for every split of a source, with the classes of the representation if it has any.

    `views` say by part what is stored of each sample, `otherwise` for parts that are not named. `asked` are options of
    `open_samples`.

    Raises: InputError for samples that cannot be read, or a store that holds something else.
    """
    if isinstance(source, Splits):
        parts: Mapping[str, Samples] = source.parts
    else:
        parts = open_samples(source, **(asked or {}), class_names=representation.class_names)
        _refuse_unwritable(next(iter(parts.values())).class_names or ())
    counts = representation.counts or parts.get("train", next(iter(parts.values()))).counts
    stores = {}
    for part, samples in parts.items():
        known = representation.rows_seen(samples.items)
        if not isinstance(source, Splits) and 0 < (known or 0) < len(samples):
            said = f"{known} of {len(samples)} samples of {part} trained the backbone, the others not"
            warnings.warn(said, PoiseWarning, stacklevel=2)
        with phase(f"extracting {part} ({samples.items.kind}s)") as progress:
            stores[part] = extract(
                representation.backbone,
                samples,
                folder / part,
                counts=counts,
                # A few samples that are in two splits do not make a test split memorised.
                seen_by_backbone=None if known is None else 2 * known > len(samples),
                views=(views or {}).get(part, otherwise),
                provenance={"part": part, "rows_that_trained_the_backbone": known},
                world=world,
                device=device_of(device),
                workers=workers,
                progress=progress,
            )
    return stores
