"""Photographs or texts in, a deployable model out: every step of a run, and prediction of more samples with the result.

folder/model.json, head.safetensors   the model: what `poise predict` reads
folder/representation/                the backbone that makes the model's features
folder/records.jsonl, summary.csv     the comparison of heads, if there is a test split
folder/config.yaml, split.json ...    how it came about; see `pipeline`
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from poise.commands import run_folder
from poise.commands.config import Config
from poise.commands.description import is_described, write_description
from poise.commands.frozen import Rows, rows_of, with_fitted
from poise.commands.stages import Loaded, load_problem, represent, seal_run, store_features
from poise.data.samples.sample_set import Items
from poise.data.samples.thumbnails import thumbnails
from poise.data.splits import Splits
from poise.decisions.targets import Targets
from poise.deployment.calibration import Deployed
from poise.deployment.certifying_rows import dealt
from poise.deployment.deploy import deploy, expectation
from poise.deployment.model import HEAD_FILE, MODEL_FILE, Model
from poise.deployment.model import write as write_model
from poise.diagnosis.compare import compare
from poise.diagnosis.report_contents import contents_of, contents_of_model
from poise.errors import InputError
from poise.machine.folders import generation, moved
from poise.machine.progress import Phase, Progress, unseen
from poise.methods import available, from_spec
from poise.metrics import evaluate
from poise.report.files import write_report
from poise.representation.backbones import names
from poise.representation.extract import SMALL
from poise.results.contents import Change, Contents
from poise.results.scores import Scores
from poise.selection.comparison_result import Comparison
from poise.selection.oracle import oracle_accuracy
from poise.values.features import Features

RESULT = (*run_folder.COMPARISON, HEAD_FILE, MODEL_FILE)  # what the next run in the folder replaces
PICTURED = 6  # classes that gained most, and as many that lost most


class Fitted(NamedTuple):
    """What a run ends with. `comparison` and `scores`, those of the model on the test split, are None without one.

    `expected` says what is promised of unseen rows, "" where a trained backbone's held-out rows only chose; `remarks`
    are to be known of how the model came about.
    """

    model: Model
    comparison: Comparison | None
    scores: Scores | None
    written: tuple[Path, ...]
    expected: str = ""
    remarks: tuple[str, ...] = ()


def fit_samples(
    config: Config,
    splits: Splits,
    folder: Path,
    *,
    method: str = "auto",
    prior: Any = None,
    targets: Targets | None = None,
    seed: int = 0,
    name: str = "",
    command: str | None = None,
    phase: Phase = unseen,
) -> Fitted:
    """Train or load a backbone, extract features, compare heads, and write a model for the prior of deployment.

    A backbone that was trained here knows its training samples: held-out ones choose and calibrate, and `method` "auto"
    takes what the comparison on them recommends. One that is used as it is knows them no better than others: "auto" is
    `LongTailClassifier` on all samples but those of the test split, chosen by cross-validation (`frozen.rows_of` says
    where held-out samples stay apart). The test split is read once, by the comparison. `prior` is that of the
    configuration unless one is given. A step whose result is in the folder is not done again. `name` is what the data
    are called in records and report, by default the title of the configuration; `command` is what repeats it.

    Raises: StoppedError; InputError for settings, samples or a folder that do not fit.
    """
    targets = targets or Targets()
    _refuse_unfit(config, splits, method, targets)
    if not is_described(folder):
        write_description(config, splits, folder)
    representation = represent(config, splits, folder, phase=phase)
    stores = store_features(config, representation, splits, folder, phase=phase)
    seal_run(folder)
    found = load_problem(representation, stores)
    rows = Rows(found.problem)
    if found.problem.head is None:
        rows = rows_of(found.problem, config, splits, method, decides=targets.need_rows, seed=seed)
    if rows.deciding is None:  # put aside before anything is chosen
        problem, deciding = dealt(rows.problem, targets, seed, folds=False)
        rows = rows._replace(problem=problem, deciding=deciding)
    target = config.heads.prior if prior is None else prior
    comparison, made = _made(config, found.test, rows, method, target, targets, seed, name=name, phase=phase)
    read = {"text": config.data.text, "image": config.data.image}
    model = made.model.with_provenance(split=splits.hash, backbone=representation.backbone.name, read=read)
    made = made._replace(model=model)
    expected = f"expected {expectation(model.promise, target)}" if found.problem.head is None else ""
    title = name or config.title or "samples"
    with phase("writing the report"):
        page = None
        if comparison is not None:
            assert found.test is not None
            page = _judged(comparison, made, rows, found.test, splits, seed, title=title, command=command)
        elif made.evidence is not None:
            page = _unjudged(made, rows, target, title=title, command=command)
    with generation(folder, replaces=RESULT) as stage:
        written = write_description(config, splits, stage)
        if comparison is not None:
            written += run_folder.write(stage, comparison, contents=page)
        elif page is not None:
            written += write_report(stage, page)
        write_model(model, stage)
    every = (*moved(written, stage, folder), folder)
    return Fitted(model, comparison, _scores(model, found.test), every, expected, rows.remarks)


def _made(
    config: Config,
    test: Features | None,
    rows: Rows,
    method: str,
    target: Any,
    targets: Targets,
    seed: int,
    *,
    name: str,
    phase: Phase,
) -> tuple[Comparison | None, Deployed]:
    """The comparison, None without a test split, and the model; where no head was there, it is a row of the former."""
    compared, problem = None, rows.problem
    if test is not None:
        with phase("comparing heads") as progress:
            compared = compare_heads(
                config, Loaded(problem, test), groups=rows.groups, seed=seed, name=name, progress=progress
            )
    chosen = (_recommended(compared) if method == "auto" and problem.head is not None else None) or method
    with phase("fitting") as progress:
        made = deploy(
            problem,
            method=chosen,
            prior=target,
            targets=targets,
            groups=rows.groups,
            certify=rows.deciding,
            seed=seed,
            selected=chosen != method,
            progress=progress,
        )
    if compared is not None and problem.head is not None:
        compared = replace(compared, held=made.model.method)
    elif compared is not None and test is not None:
        compared = with_fitted(compared, made.model, problem.train, test, seed)
    return compared, made


def _judged(
    comparison: Comparison,
    made: Deployed,
    rows: Rows,
    test: Features,
    splits: Splits,
    seed: int,
    *,
    title: str,
    command: str | None,
) -> Contents:
    """What the report of the comparison shows, with pictures of the classes that it names."""
    model = made.model
    how = "chosen and calibrated on held-out samples; the verdict says what the test split can prove"
    if rows.problem.head is None:
        how = "the row marked as fitted, which the verdict speaks of; the other rows are for comparison"
    page = contents_of(
        comparison,
        test,
        title=title,
        problem=rows.problem,
        seed=seed,
        command=command,
        facts={
            "split": splits.hash,
            "backbone": str(model.provenance["backbone"]),
            "model in this folder": f"{model.method}, {how}",
            "its probabilities": f"are for {model.meant_for}",
        },
    )
    if splits.train.items.kind == "text":
        return page
    wanted = sorted({change.label for change in _extremes(page.changes)})
    return page.model_copy(update={"thumbnails": thumbnails(splits.train, wanted)})


def _unjudged(made: Deployed, rows: Rows, prior: Any, *, title: str, command: str | None) -> Contents:
    """What the report of a model shows that no test split judged."""
    said = f"{made.model.method}: {expectation(made.model.promise, prior)}."
    if rows.problem.head is None:
        said = (
            f"No classifier was there before; fitted on {len(rows.problem.train)} samples: {made.model.method}. "
            f"Expected {expectation(made.model.promise, prior)}."
        )
    held_out = rows.problem.held_out is not None
    return contents_of_model(made, title=title, sentence=said, held_out=held_out, command=command, notes=rows.remarks)


def _extremes(changes: Sequence[Change]) -> list[Change]:
    """The classes that lost most and those that gained most."""
    ordered = sorted(changes, key=lambda change: change.difference)
    return ordered if len(ordered) <= 2 * PICTURED else [*ordered[:PICTURED], *ordered[-PICTURED:]]


def _refuse_unfit(config: Config, splits: Splits, method: str, targets: Targets) -> None:
    """Raises: InputError for what would otherwise be found out after hours of training."""
    if method != "auto":
        from_spec(method)
    if splits.held_out is None and config.stage1 is not None:
        raise InputError(
            "heads are chosen and calibrated on samples that trained nothing; set some aside (data.held_out_rows above "
            "0), or name them (data.held_out)"
        )
    classes = len(splits.train.class_names)
    if targets.top_k is not None and targets.top_k > classes:
        raise InputError(f"top_k must be at most {classes}, the number of classes, got {targets.top_k}")


def compare_heads(
    config: Config,
    found: Loaded,
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    name: str = "",
    progress: Progress | None = None,
) -> Comparison:
    """The heads that a configuration names, tuned and compared on its test split. Raises: InputError without one."""
    if found.test is None:
        raise InputError("heads are compared on a test split; give data.test, or data.test_rows above 0")
    heads = config.heads
    unseen_rows = found.problem.held_out is not None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "there was no stage-1 head")  # the words of `fit` are made for that
        return compare(
            available() if heads.methods == "auto" else heads.methods,
            found.problem,
            found.test,
            selection=heads.selection if unseen_rows or heads.selection != "held_out" else "kfold",
            seeds=(seed,),
            budget=heads.budget,
            groups=None if unseen_rows else groups,
            oracle=oracle_accuracy,
            data=name or config.title or "samples",
            progress=progress,
        )


def _recommended(comparison: Comparison | None) -> str | None:
    """The recommended method with its chosen settings; None if there is none."""
    if comparison is None or comparison.recommended is None:
        return None
    return str(comparison.recommended.method)


def _scores(model: Model, test: Features | None) -> Scores | None:
    """The model's own scores, where its classes are those of the test split."""
    if test is None or model.class_names != test.names:
        return None
    return evaluate(model.head(test.x[0]), test.y, test.counts)


def recipe_for(items: Items, backbone: str | None = None) -> str:
    """The shipped recipe that suits samples: texts, small_images (to 64 pixels a side, by a look at some), photographs.

    A network that is trained here is chosen for small images only where no other is named.
    """
    if items.kind == "text":
        return "texts"
    places = torch.linspace(0, len(items) - 1, min(len(items), 16)).long().tolist()
    small = max((_side(items, place) for place in places), default=0) <= SMALL
    return "small_images" if small and backbone in (None, *names()) else "photographs"


def _side(items: Items, place: int) -> int:
    """The longer side of an image in pixels; 0 for a broken one, which is not refused here but where it is used."""
    try:
        image = items.read(place)
    except InputError:
        return 0
    return 0 if isinstance(image, str) else max(image.size)
