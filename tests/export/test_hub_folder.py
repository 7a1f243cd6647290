"""The folder for the hub: its own card's lines load it, and hostile class names stay names."""

import json
import re
import sys
from html import unescape

import pytest
import torch
import yaml

from export_world import COSTS, HOSTILE, images, library_logits, model, network
from poise.decisions.operating_point import OperatingPoint
from poise.deployment.model import Model
from poise.errors import InputError, MissingExtraError
from poise.export.card import plain
from poise.export.hub_folder import export_hub
from poise.representation.trained_network import Representation
from poise.results.contents import Classes, Contents, Range, Row
from poise.values.counts import ClassCounts
from poise.values.head import Head, Prep

OPTIONS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}


def representation(name="convnet4"):
    return Representation(backbone=network(name), options=OPTIONS)


def card(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def run_card(folder):
    """What the first block of code of the card defines."""
    code = card(folder).split("```python\n")[1].split("```")[0]
    known = {}
    exec(code.replace("path/to/this/folder", str(folder)), known)
    return known


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory):
    pytest.importorskip("timm")
    folder, made = tmp_path_factory.mktemp("hub") / "birds", representation("timm:test_resnet")
    written = export_hub(model(96, dtype=torch.float32), folder, representation=made, rows=images(20))
    return written, made.backbone


# --- timm -------------------------------------------------------------------------------------------------------------


def test_timm_loads_its_network_by_the_line_of_the_card(timm_folder):
    (folder, library, agreement), backbone = timm_folder
    assert (library, agreement.rows, agreement.given) == ("timm", 28, 20)
    known = run_card(folder)
    pixels = images(6, seed=8)
    mean, std = (torch.tensor(OPTIONS[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        found = known["model"]((pixels / 255 - mean) / std)
    wanted = library_logits(model(96, dtype=torch.float32), backbone, pixels)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert known["model"].pretrained_cfg["label_names"] == list(HOSTILE)


def test_without_pretrained_timm_gives_other_weights_which_the_card_says(timm_folder):
    timm = pytest.importorskip("timm")
    (folder, _, _), _ = timm_folder
    fresh, loaded = (timm.create_model(f"local-dir:{folder}", pretrained=given).eval() for given in (False, True))
    assert not torch.equal(fresh.get_classifier().weight, loaded.get_classifier().weight)
    assert "Keep `pretrained=True`" in card(folder)


def test_a_folder_holds_three_files_and_no_pickle_and_says_how_images_are_fed(timm_folder):
    (folder, _, _), _ = timm_folder
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architecture"] == "test_resnet"
    assert config["label_names"] == config["poise"]["class_names"] == list(HOSTILE)
    fed = config["pretrained_cfg"]
    assert (fed["mean"], fed["std"], fed["input_size"]) == (*OPTIONS.values(), [3, 16, 16])
    assert not {"license", "tag", "url", "hf_hub_id"} & set(fed)  # those of weights that these are not


def test_timm_gone_is_named_with_its_extra(monkeypatch, tmp_path):
    made = representation("timm:test_resnet")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError) as caught:
        export_hub(model(96), tmp_path / "hub", representation=made)
    assert str(caught.value) == "a folder for timm needs timm: pip install 'poise[vision]'"
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_timm_cannot_store_is_refused_in_one_sentence(monkeypatch, tmp_path):
    timm = pytest.importorskip("timm")

    def refused(*_, **__):
        raise ValueError("Model argument 'act' is not serializable.\nMore of it.")

    monkeypatch.setattr(timm.models, "save_for_hf", refused)
    with pytest.raises(
        InputError, match=r"^timm cannot store timm:test_resnet and load it again: Model argument 'act'"
    ):
        export_hub(model(96), tmp_path / "hub", representation=representation("timm:test_resnet"))
    assert list(tmp_path.iterdir()) == []


# --- others -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dim", "prep"),
    [
        ("convnet4", 128, None),
        ("timm:test_resnet", 96, Prep(torch.full((96,), 0.1), unit=True)),
        ("timm:test_vit", 64, Prep(torch.full((64,), 0.1), unit=True)),  # of another size than the published one
    ],
)
def test_what_timm_cannot_load_is_loaded_by_the_lines_of_its_card(tmp_path, name, dim, prep):
    made, source = model(dim, prep=prep), representation(name)
    written = export_hub(made, tmp_path / "hub", representation=source)
    assert written.library == "poise"
    pixels = images(4)
    found = run_card(tmp_path / "hub")["logits_of"](pixels / 255)
    torch.testing.assert_close(
        found.double(), library_logits(made, source.backbone, pixels).double(), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("prep", [None, Prep(torch.ones(8)), Prep(torch.ones(8), unit=True)])
def test_a_head_alone_is_loaded_with_numpy_by_the_lines_of_its_card(tmp_path, prep):
    made, x = model(prep=prep), torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    export_hub(made, tmp_path / "hub")
    found = run_card(tmp_path / "hub")["logits_of"](x.numpy())
    torch.testing.assert_close(torch.from_numpy(found).double(), made.head(x), atol=1e-5, rtol=0)
    assert "pipeline_tag" not in card(tmp_path / "hub")


# --- the place --------------------------------------------------------------------------------------------------------


def test_an_earlier_export_is_replaced_and_any_other_folder_is_refused(tmp_path):
    export_hub(model(), tmp_path / "hub", title="first")
    export_hub(model(), tmp_path / "hub", title="second")
    assert "# second" in card(tmp_path / "hub")
    (tmp_path / "hub" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"hub holds thesis.tex, which is no part of an export; choose another folder"):
        export_hub(model(), tmp_path / "hub")
    assert (tmp_path / "hub" / "thesis.tex").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


def test_a_folder_that_differs_from_the_model_is_deleted_and_the_former_one_stays(monkeypatch, tmp_path):
    export_hub(model(), tmp_path / "hub", title="former")
    monkeypatch.setattr("poise.export.hub_folder.load_file", lambda path: {"head.weight": torch.zeros(5, 8), **BIAS})
    with pytest.raises(InputError, match=r"^the safetensors file does not give the model's logits: they differ by "):
        export_hub(model(), tmp_path / "hub")
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]
    assert "# former" in card(tmp_path / "hub")


BIAS = {"head.bias": torch.zeros(5)}


# --- the card ---------------------------------------------------------------------------------------------------------


def test_hostile_class_names_are_shown_in_the_card_and_do_nothing(tmp_path):
    export_hub(model(), tmp_path / "hub", title="<script>\n# no")
    text = card(tmp_path / "hub")
    body = text.split("```")[0] + text.split("```")[2]
    assert not re.search(r"<(?!/?code>)", body)
    assert "\u202e" not in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert [line.count("|") for line in lines] == [3] * 7  # heading, rule and five classes
    assert lines[5].startswith("| &#61;1&#43;1 | 9 |")
    assert "q&#34;u,o&#92;nte &#92;u202egnitsud" in lines[4]
    assert HOSTILE[4] in lines[6]


def test_plain_text_comes_back_from_its_entities():
    every = "".join(map(chr, range(32, 127))) + "🦉é漢"
    assert unescape(plain(every)) == every
    assert not set("<>|`*_[]#&\\@:/.") & set(re.sub(r"&#\d+;", "", plain(every)))


def test_the_front_matter_is_yaml_without_a_licence(timm_folder):
    (folder, _, _), _ = timm_folder
    _, front, _ = card(folder).split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["class-imbalance", "long-tailed-recognition", "poise"],
    }


def test_many_classes_are_folded_away(tmp_path):
    many = Model(
        head=Head(torch.eye(30, 4), torch.zeros(30)),
        class_names=tuple(f"c{k}" for k in range(30)),
        counts=ClassCounts(torch.arange(1, 31)),
        prior_applied=ClassCounts(torch.arange(1, 31)).prior,
        method="ce",
    )
    export_hub(many, tmp_path / "hub")
    text = card(tmp_path / "hub")
    assert "<details>\n<summary>All 30 classes</summary>\n\n| class | training rows | frequency meant |" in text
    assert "| c29 | 30 | 0.0645 |" in text
    assert "classes are as frequent as in the training rows" in text


def test_the_card_says_what_the_logits_cannot(tmp_path):
    export_hub(model(operating=OperatingPoint(abstain=0.5)), tmp_path / "a")
    assert "no answer below a confidence of 0&#46;5" in card(tmp_path / "a")
    assert "the numbers are in config.json, under poise and operating" in card(tmp_path / "a")
    export_hub(model(operating=OperatingPoint(costs=COSTS)), tmp_path / "b")
    assert "the largest logit is the answer of least cost" in card(tmp_path / "b")


def test_the_card_has_the_scores_of_the_models_method(tmp_path):
    scores = {"balanced": Range(estimate=0.5, low=0.45, high=0.55), "few": Range(estimate=0.25), "many": None}
    row = Row.model_construct(method=model().method, scores=scores)
    contents = Contents.model_construct(
        scored_on="9 rows of <photos>", classes=Classes.model_construct(edges=(100, 20)), rows=(row,)
    )
    export_hub(model(), tmp_path / "hub", contents=contents, command="poise fit photos")
    text = card(tmp_path / "hub")
    assert "scored on 9 rows of &#60;photos&#62;. Many: classes with more than 100 training rows" in text
    assert "| balanced | 50.0 (45.0 to 55.0) |\n| few | 25.0 |\n" in text
    assert "- command: <code>poise fit photos</code>" in text


def test_the_card_says_that_there_are_no_scores_of_the_models_method(tmp_path):
    export_hub(model(), tmp_path / "hub", contents=Contents.model_construct(rows=()))
    assert "No scores came with the model." in card(tmp_path / "hub")
