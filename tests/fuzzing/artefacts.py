"""What Poise itself writes: models, representations, runs, stores, exports, reports."""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import report_samples
import stage1_child
from export_world import model, network
from fuzzing.folders import CLASSES, DIM, NAMES, any_of, intact, one_folder, some_rows
from fuzzing.verdict import Kind
from poise import testing
from poise.commands import run_folder
from poise.commands.artefact_check import check_path
from poise.data.head_files import read_head
from poise.data.row_files import read_features
from poise.data.store.feature_store import check_store, load_features, save_features
from poise.decisions.operating_point import OperatingPoint
from poise.deployment import model as models
from poise.deployment.last_layer import find_layer, open_checkpoint
from poise.deployment.rebalance import class_names_of
from poise.export import onnx_prediction, rows_for_onnx
from poise.export.graphs import export_onnx
from poise.export.hub_folder import export_hub
from poise.export.tensors import export_safetensors
from poise.machine.folders import SEAL, differences, seal
from poise.representation.checkpoints import load_checkpoint
from poise.representation.trained_network import Representation, check_representation, load_representation
from poise.representation.training_log import opened
from poise.results import contents
from poise.selection.study import study
from poise.values.counts import ClassCounts
from poise.values.head import Head, Prep


def _model(folder: Path) -> None:
    point = OperatingPoint(costs=(1.0, 2.0, 3.0, 4.0, 5.0), abstain=0.2)
    model(names=NAMES, prep=Prep(torch.zeros(8, dtype=torch.float64)), operating=point).save(folder / "model")
    x, _ = some_rows()
    np.save(folder / "rows.npy", x)


def _mended_model(files: dict[str, bytes]) -> None:
    about, head = json.loads(files["model/model.json"]), files["model/head.safetensors"]
    about["head"] |= {"bytes": len(head), "sha256": hashlib.sha256(head).hexdigest()}
    files["model/model.json"] = json.dumps(about).encode()
    mended_seal(files, "model/")


def mended_seal(files: dict[str, bytes], root: str = "") -> None:
    """The digests of a seal as they are now."""
    if root + SEAL in files:
        lines = files[root + SEAL].decode().splitlines()
        names = [line[66:] for line in lines]
        said = [f"{hashlib.sha256(files[root + name]).hexdigest()}  {name}\n" for name in names]
        files[root + SEAL] = "".join(said).encode()


def _representation(folder: Path) -> None:
    with contextlib.suppress(ImportError):
        import timm  # noqa: F401, a mutant that names a network of its looks it up, which is not to count
    backbone = network()
    head = Head(torch.randn(CLASSES, backbone.dim, generator=torch.Generator().manual_seed(0)), torch.zeros(CLASSES))
    counts = ClassCounts(torch.tensor([9, 5, 3, 2, 1]))
    seen = torch.arange(20)
    more = {"head": head, "class_names": NAMES, "counts": counts, "seen": seen, "provenance": {"a": 1}}
    Representation(backbone=backbone, **more).save(folder / "representation")


def _mended_representation(files: dict[str, bytes]) -> None:
    about = json.loads(files["representation/representation.json"])
    for name in about["sha256"]:
        about["sha256"][name] = hashlib.sha256(files[f"representation/{name}"]).hexdigest()
    files["representation/representation.json"] = json.dumps(about).encode()
    mended_seal(files, "representation/")


SETTINGS = stage1_child.asked(epochs=1)


def _training(folder: Path) -> None:
    stage1_child.trained(folder / "stage1", SETTINGS, rows=8)


def _checkpoint(folder: Path) -> None:
    load_checkpoint(folder / "stage1")
    opened(folder / "stage1", 1)


def _store(folder: Path) -> None:
    train = testing.world(dim=4, held_out=0, head=False).train
    save_features(train, folder / "store", shard_rows=40, provenance={"who": "me"})


def _mended_store(files: dict[str, bytes]) -> None:
    about = json.loads(files["store/manifest.json"])
    for shard in about["shards"]:
        content = files[f"store/{shard['file']}"]
        shard |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    files["store/manifest.json"] = json.dumps(about).encode()


def _head(folder: Path) -> None:
    draws = torch.Generator().manual_seed(0)
    weight = torch.randn(CLASSES, DIM, generator=draws)
    Head(weight, torch.zeros(CLASSES), Prep(torch.zeros(DIM), unit=True)).save(folder / "head.safetensors")


def _layer(folder: Path) -> None:
    save_file({"fc.weight": torch.ones(CLASSES, DIM), "fc.bias": torch.ones(CLASSES)}, folder / "head.safetensors")


def _heads(root: Path) -> Sequence[Path]:
    return [*one_folder(_head)(root / "own"), *one_folder(_layer)(root / "other")]


def _read_heads(folder: Path) -> None:
    any_of(
        lambda folder: Head.load(folder / "head.safetensors"),
        lambda folder: read_head(folder / "head.safetensors", classes=CLASSES, dim=DIM, names=NAMES),
        lambda folder: find_layer(open_checkpoint(folder / "head.safetensors"), classes=CLASSES, dim=DIM),
    )(folder)


def _exported(folder: Path) -> None:
    export_safetensors(model(names=NAMES, dtype=torch.float32), folder)


def _mended_export(files: dict[str, bytes]) -> None:
    about, head = json.loads(files["head.json"]), files["head.safetensors"]
    about["head"] |= {"bytes": len(head), "sha256": hashlib.sha256(head).hexdigest()}
    files["head.json"] = json.dumps(about).encode()
    mended_seal(files)


def _hub(folder: Path) -> None:
    export_hub(model(names=NAMES, dtype=torch.float32), folder / "hub")


def _layer_of_hub(folder: Path) -> None:
    found = open_checkpoint(folder / "hub")
    class_names_of(found)
    find_layer(found, classes=CLASSES, dim=DIM)


def _onnx(folder: Path) -> None:
    export_onnx(model(names=NAMES, dtype=torch.float32), folder / "model.onnx")
    x, _ = some_rows()
    np.save(folder / "rows.npy", x)


def _predicted(folder: Path) -> None:
    found = onnx_prediction.open_onnx(folder / "model.onnx")
    onnx_prediction.predict_rows(found, rows_for_onnx.read_rows(folder / "rows.npy"), folder / "out.csv")


def _rebalanced(folder: Path) -> None:
    from poise.deployment.rebalance import rebalance

    problem = testing.world(dim=DIM, counts=(40, 20, 9), held_out=20)
    means = torch.eye(3, DIM)
    save_file({"fc.weight": means, "fc.bias": torch.zeros(3)}, folder / "given.safetensors")
    found = open_checkpoint(folder / "given.safetensors")
    layer = find_layer(found, classes=3, dim=DIM)
    rebalance(found, layer, problem, folder / "copy.safetensors", method="tau_norm(tau=0.5)")


def _report(folder: Path) -> None:
    (folder / "report.json").write_text(report_samples.everything().to_json(), encoding="utf-8")


def _written_report(folder: Path) -> None:
    from poise.report.files import write_formats

    found = contents.read(folder / "report.json")
    write_formats(folder / "out", found, ("html", "md", "latex", "csv"))


def _records(folder: Path) -> None:
    from poise.diagnosis.compare import compare

    problem = testing.world(counts=(20, 10, 4), held_out=5)
    found = compare(["tau_norm(tau=0.5)"], problem, testing.world(counts=(20, 10, 4), held_out=9, seed=1).held_out)
    run_folder.write(folder, found)


def _sealed(folder: Path) -> None:
    for name in ("a.txt", "b\\c.txt", "d/e.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    seal(folder, ("a.txt", "b\\c.txt", "d/e.txt"))


def _study(folder: Path) -> None:
    study("tau_norm", SMALL, folder / "study", trials=4, together=2)


SMALL = testing.world(counts=(20, 10, 4), dim=4, held_out=4)


ONNX = ("onnx", "onnxscript", "onnxruntime")

ARTEFACTS: tuple[Kind, ...] = (
    Kind(
        "model",
        one_folder(_model),
        any_of(lambda folder: models.load(folder / "model"), lambda folder: intact(check_path(folder / "model")[1])),
        (("check", "{}/model"), ("predict", "{}/model", "{}/rows.npy"), ("export", "{}/model")),
        _mended_model,
        ("rows.npy",),
    ),
    Kind(
        "representation",
        one_folder(_representation),
        any_of(
            lambda folder: load_representation(folder / "representation"),
            lambda folder: intact(check_representation(folder / "representation")),
        ),
        (("check", "{}/representation"),),
        _mended_representation,
    ),
    Kind("checkpoint", one_folder(_training), _checkpoint),
    Kind("resumed training", one_folder(_training), _training),
    Kind(
        "feature store",
        one_folder(_store),
        any_of(
            lambda folder: load_features(folder / "store"),
            lambda folder: intact(check_store(folder / "store")),
            lambda folder: read_features(folder / "store"),
        ),
        (("check", "{}/store"), ("inspect", "{}/store")),
        _mended_store,
    ),
    Kind("head file", _heads, _read_heads, (("check", "{}/head.safetensors"),)),
    Kind(
        "exported head",
        one_folder(_exported),
        lambda folder: intact(check_path(folder)[1]),
        (("check", "{}"),),
        _mended_export,
    ),
    Kind("hub folder", one_folder(_hub), _layer_of_hub, (("check", "{}/hub"),), kept=("hub/README.md",)),
    Kind(
        "onnx",
        one_folder(_onnx),
        _predicted,
        (("predict", "{}/model.onnx", "{}/rows.npy"),),
        kept=("rows.npy",),
        needs=ONNX,
    ),
    Kind(
        "rebalanced note",
        one_folder(_rebalanced),
        lambda folder: intact(check_path(folder / "copy.safetensors")[1]),
        (("check", "{}/copy.safetensors"),),
    ),
    Kind("report", one_folder(_report), _written_report, (("report", "{}/report.json"),)),
    Kind("records", one_folder(_records), lambda folder: intact(check_path(folder)[1]), (("check", "{}"),)),
    Kind("seal", one_folder(_sealed), lambda folder: intact(differences(folder))),
    Kind("study", one_folder(_study), _study, kept=("study/trials.csv", "study/study.lock"), needs=("optuna",)),
)
