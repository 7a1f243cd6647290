"""A backbone that is not trained here: all rows choose and fit, and the folder holds what is said."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from image_world import SIDE, pictures
from poise import LongTailClassifier
from poise.cli import main
from poise.commands import stages
from poise.commands.config import Backbone, Config, load_config
from poise.commands.fit import Fitted, fit_samples
from poise.commands.frozen import NEVER, is_published, over_classes, rows_of
from poise.commands.stages import prepare
from poise.data.store.feature_store import load_features
from poise.decisions.targets import Targets
from poise.deployment.model import Model, load
from poise.errors import PoiseWarning
from poise.metrics import evaluate
from poise.representation import trained_network
from poise.representation.backbones import Backbone as Network
from poise.representation.backbones import TextBackbone, build
from poise.values.counts import ClassCounts
from poise.values.head import Head
from poise.values.problem import Problem

SIZES = {"ant": 24, "bee": 12, "cat tail": 8}


def letters(texts: Iterable[str]) -> Tensor:
    """Counts of four letters, in place of a model of sentences."""
    return torch.tensor([[text.count(letter) for letter in "abxy"] for text in texts], dtype=torch.float32)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters are counted, and a published network is one of ours."""

    def network(name: str, *, pretrained: bool = False, seed: int = 0, **options: Any) -> Network:
        del name, pretrained
        return build("convnet4", seed=seed, **options)

    for module in (stages, trained_network):
        monkeypatch.setattr(module, "build_text", lambda name: TextBackbone(name, 4, letters))
    monkeypatch.setattr(stages, "build", network)


def tickets(path: Path, sizes: tuple[int, ...] = (40, 16, 8)) -> Path:
    """Texts of three classes that overlap."""
    rng = np.random.default_rng(0)
    lines = ["question,label"]
    for label, size in enumerate(sizes):
        share = [0.55 if place == label else 0.15 for place in range(4)]
        for _ in range(size):
            lines.append(f"{''.join(rng.choice(list('abxy'), 9, p=share))} {len(lines)},kind {label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def photographs(folder: Path, sizes: dict[str, int] = SIZES) -> Path:
    """Pictures of three tints that vary, so that no head tells all of them apart."""
    rng = np.random.default_rng(0)
    for place, (name, size) in enumerate(sizes.items()):
        (folder / name).mkdir(parents=True)
        for index in range(size):
            tint = rng.normal(np.where(np.arange(3) == place, 140, 100), 30)
            values = rng.normal(tint, 40, size=(SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(values).save(folder / name / f"{index:03d}.png")
    return folder


def of_texts(path: Path, *changes: str) -> Config:
    return load_config("texts", [f"data.train={path}", "data.text=question", *changes])


def of_pictures(path: Path, *changes: str) -> Config:
    small = (f"backbone.size={SIDE}", "heads.methods=[ncm]", "heads.budget=2")
    return load_config("photographs", [f"data.train={json.dumps(str(path))}", *small, *changes])


def fitted(config: Config, folder: Path, **options: Any) -> Fitted:
    return fit_samples(config, prepare(config), folder, **options)


def told(folder: Path) -> dict[str, Any]:
    """The verdict of the report."""
    found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))["verdict"]
    return found


# --- all rows choose and fit ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("encoder")
def test_texts_are_fitted_on_all_rows_as_the_estimator_does_it(tmp_path: Path) -> None:
    found = fitted(of_texts(tickets(tmp_path / "q.csv")), tmp_path / "m")
    rows = load_features(tmp_path / "m/features/train")
    names = [rows.names[k] for k in rows.y.tolist()]
    own = LongTailClassifier(seen_by_backbone=False).fit(rows.x[0].double().numpy(), names)
    assert len(rows) == 64
    assert found.model.counts.n.tolist() == [40, 16, 8]
    assert found.model.method == own.method_
    assert torch.equal(load(tmp_path / "m").head.weight, own.model().head.weight)
    assert found.model.provenance["unseen_recall"] == own.unseen_recall_
    assert found.comparison is None


@pytest.mark.usefixtures("encoder")
def test_nothing_is_kept_where_nothing_was_and_the_folder_holds_what_is_said(tmp_path: Path) -> None:
    found = fitted(of_texts(tickets(tmp_path / "q.csv")), tmp_path / "m")
    assert found.model.promise is not None
    assert found.expected == f"expected balanced accuracy on unseen rows: {found.model.promise.text}"
    verdict = told(tmp_path / "m")
    assert verdict["decision"] == "fitted"
    assert verdict["recommended"] == load(tmp_path / "m").method
    start = f"No classifier was there before; fitted on 64 samples: {found.model.method}. Expected balanced accuracy on"
    assert verdict["sentence"].startswith(start)


@pytest.mark.usefixtures("encoder")
def test_groups_stay_together_in_the_folds(tmp_path: Path) -> None:
    lines = tickets(tmp_path / "q.csv").read_text(encoding="utf-8").splitlines()
    rows = [f"{line},site {number // 4}" for number, line in enumerate(lines[1:])]
    (tmp_path / "g.csv").write_text("\n".join(["question,label,site", *rows]) + "\n", encoding="utf-8")
    config = of_texts(tmp_path / "g.csv", "data.group=site")
    splits = prepare(config)
    found = fit_samples(config, splits, tmp_path / "m")
    kept = load_features(tmp_path / "m/features/train")
    x, y = kept.x[0].double().numpy(), [kept.names[k] for k in kept.y.tolist()]
    grouped, free = (
        LongTailClassifier(seen_by_backbone=False).fit(x, y, groups=groups).unseen_recall_
        for groups in (splits.train.groups, None)
    )
    assert found.model.provenance["unseen_recall"] == grouped != free


@pytest.mark.usefixtures("encoder")
def test_held_out_pictures_join_the_training_ones_and_test_pictures_stay_out(tmp_path: Path) -> None:
    changes = ("data.held_out_rows=0.25", "data.test_rows=0.25")
    found = fitted(of_pictures(photographs(tmp_path / "photos"), *changes), tmp_path / "m")
    parts = {part: len(load_features(tmp_path / "m/features" / part)) for part in ("train", "held_out", "test")}
    assert sum(parts.values()) == sum(SIZES.values())
    assert int(found.model.counts.n.sum()) == parts["train"] + parts["held_out"]


@pytest.mark.usefixtures("encoder")
def test_with_a_test_split_the_verdict_speaks_of_the_head_in_the_folder(tmp_path: Path) -> None:
    found = fitted(of_pictures(photographs(tmp_path / "photos"), "data.test_rows=0.25"), tmp_path / "m")
    model, compared = load(tmp_path / "m"), found.comparison
    assert compared is not None
    assert compared.recommended is not None
    assert found.scores is not None
    test = load_features(tmp_path / "m/features/test")
    mine = evaluate(over_classes(model, test.names)(test.x[0]), test.y, test.counts).balanced_accuracy
    assert compared.recommended.mean("balanced_accuracy") == mine == found.scores.balanced_accuracy
    kept = json.loads((tmp_path / "m/comparison.json").read_text(encoding="utf-8"))
    assert kept["decision"] == told(tmp_path / "m")["decision"] == "fitted"
    assert kept["recommended"] == told(tmp_path / "m")["recommended"] == model.method
    start = f"No classifier was there before; fitted: {model.method}. It "
    for words in (kept["verdict"], told(tmp_path / "m")["sentence"]):
        assert words.startswith(start)
        assert "Keep" not in words
        assert "Change" not in words
    shown = json.loads((tmp_path / "m/report.json").read_text(encoding="utf-8"))["rows"]
    marked = [row["method"] for row in shown if row["recommended"]]
    assert marked == [model.method]
    assert "fitted, the head of this folder" in (tmp_path / "m/summary.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("encoder")
def test_a_named_method_is_what_the_verdict_speaks_of(tmp_path: Path) -> None:
    config = of_pictures(photographs(tmp_path / "photos"), "data.test_rows=0.25")
    found = fitted(config, tmp_path / "m", method="lda")
    assert found.comparison is not None
    assert found.comparison.verdict().startswith("No classifier was there before; fitted: lda. It ")
    assert load(tmp_path / "m").method == "lda"


@pytest.mark.usefixtures("encoder")
def test_the_command_says_what_it_made_and_what_to_expect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tickets(tmp_path / "q.csv")
    words = ["fit", "q.csv", "--text", "question", "--out", "m"]
    for more in ([], ["--json"], ["--coverage", "0.8"]):
        with pytest.raises(SystemExit) as stop:
            main([*words, *more])
        assert stop.value.code == 0
    said, err = capsys.readouterr()
    plain, brace, rest = said.partition("{")
    one_line = " ".join(plain.split())
    assert "no classifier was there before; `poise compare m` compares others on a fifth of these written: " in one_line
    assert ", for a uniform class prior, fitted on 64 samples expected balanced accuracy on unseen rows: " in one_line
    assert ", by cross-validation next: poise predict m MORE" in one_line
    assert "keep" not in one_line.lower()
    found = json.JSONDecoder().raw_decode(brace + rest)[0]
    assert f"{100 * found['unseen_recall']:.1f} % (95 %: " in one_line
    assert "note: 13 of the training rows were set aside to choose the operating point on" in err


# --- rows that stay apart ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("encoder")
def test_rows_for_an_operating_point_leave_the_choice_to_all_others(tmp_path: Path) -> None:
    found = fitted(of_texts(tickets(tmp_path / "q.csv")), tmp_path / "m", targets=Targets(coverage=0.8))
    assert found.remarks == ("13 of the training rows were set aside to choose the operating point on",)
    assert found.model.operating is not None
    assert int(found.model.counts.n.sum()) == 51
    assert found.model.promise is not None
    assert json.loads((tmp_path / "m/split.json").read_text())["parts"].keys() == {"train"}
    again = fitted(of_texts(tmp_path / "q.csv"), tmp_path / "m")  # without it, the same folder takes all of them
    assert int(again.model.counts.n.sum()) == 64


def rows_with(config: Config, **options: Any) -> tuple[int, bool, bool]:
    """Training rows of a head, and whether rows choose or decide apart from them."""
    splits = prepare(config)
    counts = splits.train.counts

    def part(samples: Any) -> Any:
        return stages.Features(torch.randn(len(samples), 3), samples.y, counts)

    problem = Problem(part(splits.train), None, None if splits.held_out is None else part(splits.held_out))
    found = rows_of(problem, config, splits, **{"method": "auto", "decides": False, "seed": 0, **options})
    return len(found.problem.train), found.problem.held_out is not None, found.deciding is not None


def test_held_out_rows_join_unless_they_are_needed_apart(tmp_path: Path) -> None:
    place = tickets(tmp_path / "q.csv", (20, 20, 20))
    config = of_texts(place, "data.held_out_rows=5")
    assert rows_with(config) == (60, False, False)
    assert rows_with(config, decides=True) == (45, False, True)
    assert rows_with(config, method="lda") == (60, False, False)
    assert rows_with(config, method="temperature") == (45, True, False)
    assert rows_with(of_texts(place), method="temperature") == (48, True, False)
    assert rows_with(config, method="match_marginal" if False else "unlearn")[0] in (45, 60)
    tail = of_texts(place, "data.held_out_rows=5", "data.profile=exponential(imbalance=4)")
    assert rows_with(tail)[1]  # the rows that the profile left over would fill the tail


def test_rows_that_came_apart_choose_where_the_weights_are_the_users_own(tmp_path: Path) -> None:
    for part, seed in (("train", 0), ("val", 1)):
        pictures(tmp_path / "photos" / part, SIZES, seed=seed)
    (tmp_path / "w.safetensors").write_bytes(b"")
    own = ("backbone.pretrained=false", f"backbone.weights={tmp_path / 'w.safetensors'}")
    assert rows_with(of_pictures(tmp_path / "photos")) == (88, False, False)
    assert rows_with(of_pictures(tmp_path / "photos", *own)) == (44, True, False)


@pytest.mark.parametrize(
    ("backbone", "known"),
    [
        (Backbone(name="sentence:minilm"), True),
        (Backbone(name="timm:resnet18", pretrained=True), True),
        (Backbone(name="hf:facebook/dinov2-small"), True),
        (Backbone(name="timm:resnet18", weights="w.pth"), False),
        (Backbone(name="mine:build"), False),
        (Backbone(name="sentence:."), False),
    ],
    ids=str,
)
def test_weights_are_published_or_the_users_own(backbone: Backbone, known: bool) -> None:
    assert is_published(backbone) is known


def test_own_weights_that_learnt_the_rows_by_heart_are_noticed(tmp_path: Path) -> None:
    """Features that give every label away: no promise, and a warning that says why."""
    network = build("convnet4", seed=0)
    trained_network.Representation(backbone=network).save(tmp_path / "r")
    weights = json.dumps(str(tmp_path / "r/backbone.safetensors"))
    data = pictures(tmp_path / "photos", SIZES)
    config = load_config(
        "photographs",
        [
            f"data.train={json.dumps(str(data))}",
            "backbone.name=convnet4",
            "backbone.pretrained=false",
            f"backbone.weights={weights}",
            f"backbone.size={SIDE}",
        ],
    )
    with pytest.warns(PoiseWarning, match="as if the backbone had trained on them, so no recall is promised"):
        found = fitted(config, tmp_path / "m")
    assert found.model.promise is None
    assert found.expected == "expected balanced accuracy on unseen rows: none is promised"


def test_a_head_over_more_classes_never_answers_those_that_it_does_not_know() -> None:
    head = Head(torch.eye(2, 3), torch.tensor([0.5, -0.5]))
    counts = ClassCounts(torch.tensor([3, 2]))
    model = Model(head=head, class_names=("b", "a"), counts=counts, prior_applied=None, method="ncm")
    wider = over_classes(model, ("a", "b", "c"))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(wider(x)[:, [1, 0]], head(x))
    assert (wider(x)[:, 2] == NEVER).all()
