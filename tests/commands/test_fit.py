"""Photographs in, a deployable folder out, and predictions for more photographs."""

import csv
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from image_world import QUICK, SIZES, pictures
from poise.commands import stages
from poise.commands.config import Config, load_config
from poise.commands.fit import Fitted, compare_heads, fit_samples, recipe_for
from poise.commands.predict import predict_items, reads_samples, refuse_unfitted
from poise.commands.stages import load_problem, prepare
from poise.data.samples.formats import open_items, open_samples
from poise.decisions.targets import Targets
from poise.deployment.model import load
from poise.errors import InputError, PoiseWarning
from poise.representation import trained_network
from poise.representation.backbones import TextBackbone
from poise.representation.extract import feature_rows
from poise.representation.trained_network import load_representation

FILES = {
    "config.yaml",
    "environment.json",
    "split.json",
    "records.jsonl",
    "summary.csv",
    "report.html",
    "report.json",
    "summary.md",
    "comparison.json",
    "model.json",
    "head.safetensors",
    "representation/representation.json",
    "representation/backbone.safetensors",
    "features/train/manifest.json",
    "features/held_out/manifest.json",
    "features/test/manifest.json",
}


def asked(data: Path, *changes: str) -> Config:
    return load_config("small_images", [f"data.train={json.dumps(str(data))}", *QUICK, *changes])


def fitted(config: Config, folder: Path, **options: object) -> Fitted:
    return fit_samples(config, prepare(config), folder, **options)


def lines(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fitted]:
    """A fitted folder, which tests read only."""
    folder = tmp_path_factory.mktemp("model ü %s")
    return folder, fitted(asked(data), folder)


def test_one_call_leaves_a_model_and_how_it_came_about(model: tuple[Path, Fitted]) -> None:
    folder, found = model
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} >= FILES
    assert set(found.written) == {
        *(folder / name for name in FILES if "/" not in name and name not in ("model.json", "head.safetensors")),
        folder,
    }
    assert found.model.class_names == tuple(SIZES)
    assert found.model.provenance["backbone"] == "convnet4"
    assert found.model.provenance["split"] == json.loads((folder / "split.json").read_text())["hash"]
    assert found.comparison is not None
    assert found.scores is not None
    assert found.scores.rows == 7


def test_auto_takes_what_the_comparison_recommends(model: tuple[Path, Fitted]) -> None:
    folder, found = model
    assert found.comparison is not None
    assert found.comparison.recommended is not None
    assert found.model.method == found.comparison.recommended.method == found.comparison.held
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["verdict"]["held"] == found.model.method


def test_predictions_are_those_of_backbone_and_head(model: tuple[Path, Fitted], tmp_path: Path) -> None:
    folder, found = model
    more = pictures(tmp_path / "mehr é", {"cat tail": 2, "bee": 3}, seed=9)
    items = open_items(more)
    done = predict_items(folder, items, tmp_path / "p.csv")
    rows = lines(tmp_path / "p.csv")
    x = feature_rows(load_representation(folder / "representation").backbone, items)
    p = found.model.head(x).double().softmax(-1)
    assert [row["sample"] for row in rows] == [str(path) for path in sorted(more.rglob("*.png"))]
    assert [row["prediction"] for row in rows] == [found.model.class_names[k] for k in p.argmax(-1).tolist()]
    written = torch.tensor([[float(row[f"p({name})"]) for name in SIZES] for row in rows])
    torch.testing.assert_close(written.double(), p, rtol=1e-6, atol=1e-6)
    assert sum(done.answers.values()) == done.rows == 5


def test_the_same_call_again_trains_nothing_and_gives_the_same_bytes(
    model: tuple[Path, Fitted], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(model[0], folder)
    monkeypatch.setattr(stages, "train", lambda *_, **__: pytest.fail("trained again"))
    fitted(asked(data), folder)
    for name in ("head.safetensors", "model.json", "representation/representation.json", "config.yaml"):
        assert (folder / name).read_bytes() == (model[0] / name).read_bytes(), name


def test_heads_are_compared_anew_with_other_methods_and_the_backbone_stays(
    model: tuple[Path, Fitted], data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(model[0], folder)
    found = fitted(asked(data, "heads.methods=[ncm]"), folder, method="ncm")
    assert found.model.method.startswith("ncm")
    assert load_config(folder / "config.yaml").heads.methods == ("ncm",)
    name = "representation/backbone.safetensors"
    assert (folder / name).read_bytes() == (model[0] / name).read_bytes()


def test_another_run_is_refused_and_leaves_the_folder_as_it_was(
    model: tuple[Path, Fitted], data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(model[0], folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for change in ("stage1.lr=0.01", "data.seed=5", "backbone.name=resnet20"):
        with pytest.raises(InputError, match="came about otherwise"):
            fitted(asked(data, change), folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_another_backbone_from_elsewhere_is_refused_and_leaves_the_folder_as_it_was(
    model: tuple[Path, Fitted], data: Path, tmp_path: Path
) -> None:
    weights = model[0] / "representation" / "backbone.safetensors"
    config = asked(data, "stage1=null", f"backbone.weights={json.dumps(str(weights))}")
    folder = tmp_path / "run"
    with pytest.warns(PoiseWarning):  # it is not known what trained these weights
        fitted(config, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    other = tmp_path / "other"
    stages.opened_backbone("convnet4").save(other)
    changed = asked(data, "stage1=null", f"backbone.weights={other / 'backbone.safetensors'}")
    with pytest.raises(InputError, match="features/train holds other features: weights is"):
        fitted(changed, folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_without_a_test_split_the_held_out_samples_choose(data: Path, tmp_path: Path) -> None:
    found = fitted(asked(data, "data.test_rows=0"), tmp_path)
    assert found.comparison is None
    assert found.scores is None
    assert found.model.provenance["held_out"]
    assert not (tmp_path / "comparison.json").exists()


def test_heads_need_a_test_split_to_be_compared_on(model: tuple[Path, Fitted], data: Path) -> None:
    folder = model[0]
    stores = {part: folder / "features" / part for part in ("train", "held_out")}
    found = load_problem(load_representation(folder / "representation"), stores)
    with pytest.raises(InputError, match=r"heads are compared on a test split; give data.test, or data.test_rows"):
        compare_heads(asked(data), found)


def test_a_class_without_samples_is_in_the_model_and_in_its_predictions(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data")
    (data / "dog").mkdir()
    with pytest.warns(PoiseWarning, match="dog"):
        found = fitted(asked(data), tmp_path / "model")
    assert found.model.class_names == ("ant", "bee", "cat tail", "dog")
    assert torch.isfinite(found.model.head.weight).all()
    predict_items(tmp_path / "model", open_items(data / "bee"), tmp_path / "p.csv")
    for row in lines(tmp_path / "p.csv"):
        assert sum(float(row[f"p({name})"]) for name in found.model.class_names) == pytest.approx(1)


def test_prior_and_targets_reach_the_model(model: tuple[Path, Fitted], data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(model[0], folder)
    prior = [0.5, 0.3, 0.2]
    fitted(asked(data), folder, prior=prior, targets=Targets(top_k=2))
    read = load(folder)
    assert read.prior_applied is not None
    assert read.prior_applied.tolist() == prior
    assert read.operating is not None
    assert read.operating.top_k == 2


def test_the_recipe_follows_from_the_samples(data: Path, tmp_path: Path) -> None:
    small = open_samples(data)["train"].items
    large = open_samples(pictures(tmp_path / "large", {"a": 1, "b": 1}, side=96))["train"].items
    (tmp_path / "q.csv").write_text("q,label\nhow,a\nwhy,b\n")
    texts = open_samples(tmp_path / "q.csv", text="q")["train"].items
    assert [recipe_for(items) for items in (small, large, texts)] == ["small_images", "photographs", "texts"]
    assert recipe_for(small, "resnet32") == "small_images"
    assert recipe_for(small, "timm:resnet18") == "photographs"
    (tmp_path / "large" / "a" / "000.png").write_bytes(b"")  # a broken image decides nothing
    assert recipe_for(large) == "photographs"


def test_what_a_folder_cannot_predict_is_said(model: tuple[Path, Fitted], data: Path, tmp_path: Path) -> None:
    refuse_unfitted(model[0], str(data))
    run = tmp_path / "run"
    shutil.copytree(model[0], run)
    (run / "model.json").unlink()
    with pytest.raises(InputError, match=r"run is a run without a model; make one with `poise fit .*run --out .*run`"):
        refuse_unfitted(run, str(data))
    rows = tmp_path / "rows"
    model[1].model.save(rows)
    assert not reads_samples(rows)
    refuse_unfitted(rows, str(model[0] / "features" / "test"))
    with pytest.raises(InputError, match=r"was fitted on feature rows and reads no images; .* is no feature store"):
        refuse_unfitted(rows, str(data))


def test_samples_of_another_kind_are_refused(model: tuple[Path, Fitted], tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("q\nhow\n")
    items = open_items(tmp_path / "q.csv", text="q")
    with pytest.raises(InputError, match=r"backbone convnet4 reads images, .*q.csv, row 1 is no image"):
        predict_items(model[0], items, tmp_path / "p.csv")


# --- texts ------------------------------------------------------------------------------------------------------------


def letters(texts: Iterable[str]) -> Tensor:
    """Counts of four letters, in place of a model of sentences."""
    return torch.tensor([[text.count(letter) for letter in "abxy"] for text in texts], dtype=torch.float32)


def test_texts_become_a_model_that_predicts_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (stages, trained_network):
        monkeypatch.setattr(module, "build_text", lambda name: TextBackbone(name, 4, letters))
    words = [f"{'ab' * (i % 3 + 1)} {i}" for i in range(20)] + [f"{'xy' * (i % 3 + 1)} {i}" for i in range(8)]
    rows = [f'"{word}",{"early" if i < 20 else "late, é"}' for i, word in enumerate(words)]
    rows = [row.replace(",late, é", ',"late, é"') for row in rows]
    (tmp_path / "q.csv").write_text("\n".join(["question,label", *rows]) + "\n", encoding="utf-8")
    config = load_config(
        "texts", [f"data.train={tmp_path / 'q.csv'}", "data.text=question", "heads.methods=[ncm]", "heads.budget=2"]
    )
    found = fitted(config, tmp_path / "model")
    assert found.model.class_names == ("early", "late, é")
    assert reads_samples(tmp_path / "model")
    (tmp_path / "more.csv").write_text("question\nabab\nxyxy\n")
    predict_items(tmp_path / "model", open_items(tmp_path / "more.csv", text="question"), tmp_path / "p.csv")
    assert [row["prediction"] for row in lines(tmp_path / "p.csv")] == ["early", "late, é"]
