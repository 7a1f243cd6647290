"""`poise evaluate`: a fitted model on labelled rows, against values worked out by hand."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from poise.cli import main
from poise.commands.evaluate import evaluate_rows, is_label
from poise.data.store.feature_store import save_features
from poise.decisions.operating_point import OperatingPoint
from poise.deployment.model import Model
from poise.deployment.promise import Promise, as_provenance
from poise.errors import InputError, MemorisedRowsError
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head

NAMES = ("ant", "bee", "cat")
COUNTS = ClassCounts(torch.tensor([200, 50, 5]))


def model(**more: Any) -> Model:
    """Logits are the three features themselves."""
    head = Head(torch.eye(3), torch.zeros(3))
    return Model(head=head, class_names=NAMES, counts=COUNTS, prior_applied=None, method="ncm", **more)


# Four ants, all right; two bees, one of them taken for an ant; one cat, taken for a bee.
X = torch.eye(3)[[0, 0, 0, 0, 1, 0, 1]] * 4
Y = [0, 0, 0, 0, 1, 1, 2]
TABLE = "\n".join(
    ["f0,f1,f2,species", *(f"{a},{b},{c},{NAMES[k]}" for (a, b, c), k in zip(X.tolist(), Y, strict=True))]
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model(provenance={"columns": ["f0", "f1", "f2"]}).save(tmp_path / "m")
    (tmp_path / "rows.csv").write_text(TABLE + "\n")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.raises(SystemExit) as stop:
            main(list(words))
    said = capsys.readouterr()
    return int(str(stop.value.code)), said.out, said.err


def test_scores_and_confusions_are_those_counted_by_hand(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "evaluate", "m", "rows.csv", "--label", "species", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["scores"]["per_class"] == [1.0, 0.5, 0.0]
    assert found["scores"]["accuracy"] == pytest.approx(5 / 7)
    assert found["scores"]["balanced_accuracy"] == pytest.approx(0.5)
    assert {name: found["intervals"][name]["estimate"] for name in ("many", "medium", "few")} == {
        "many": 1.0,
        "medium": 0.5,
        "few": 0.0,
    }
    assert found["intervals"]["balanced"]["low"] < 0.5 < found["intervals"]["balanced"]["high"]
    assert found["confusions"] == [
        {"true": "bee", "answered": "ant", "rows": 1, "share": 0.5},
        {"true": "cat", "answered": "bee", "rows": 1, "share": 1.0},
    ]
    assert (found["answered"], found["right"], found["promise"]) == (7, 5, None)
    assert json.loads((folder / "runs" / "evaluate" / "evaluation.json").read_text()) == found
    assert "rows.csv" in (folder / "runs" / "evaluate" / "report.html").read_text(encoding="utf-8")


def test_what_is_said_names_interval_confusions_and_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "evaluate", "m", "rows.csv", "--label", "species", "--out", "there")
    assert code == 0
    assert "ncm: balanced accuracy 50.0 % (95 %: " in out.replace("\n", " ")
    assert "  cat answered as bee: 1 row, 100 % of the class" in out
    assert "wrote there/report.html" in out


def test_what_was_promised_stands_beside_what_was_measured() -> None:
    promise = Promise(value=0.6, low=0.4, high=0.8, level=0.95, judged=NAMES, unjudged=())
    found = evaluate_rows(model(provenance=as_provenance(promise)), Features(X, torch.tensor(Y), COUNTS), title="t")
    assert found.contents.verdict.sentence.endswith(
        "on 7 labelled rows; promised for no prior: treat them as scores: 60.0 % (95 %: 40.0 to 80.0)."
    )


def test_classes_without_rows_are_counted_and_left_out() -> None:
    found = evaluate_rows(model(), Features(X[:6], torch.tensor(Y[:6]), COUNTS), title="t")
    assert "balanced accuracy 75.0 %" in found.contents.verdict.sentence
    assert "over the 2 of 3 classes with rows" in found.contents.verdict.sentence


def test_rows_without_an_answer_are_counted() -> None:
    careful = model(operating=OperatingPoint(abstain=0.9))
    sure = torch.tensor([9.0, 9.0, 9.0, 0.1, 9.0, 0.1, 9.0]).unsqueeze(1)
    found = evaluate_rows(careful, Features(X / 4 * sure, torch.tensor(Y), COUNTS), title="t")
    assert (found.answered, found.right) == (5, 4)
    assert "it answers 5 of 7 rows, 80.0 % of them rightly" in found.lines()


def test_columns_are_read_in_the_order_of_the_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turned = [",".join(line.split(",")[::-1]) for line in TABLE.splitlines()]
    (folder / "turned.csv").write_text("\n".join(turned) + "\n")
    code, out, _ = run(capsys, "evaluate", "m", "turned.csv", "--label", "species", "--json")
    assert code == 0
    assert json.loads(out)["scores"]["per_class"] == [1.0, 0.5, 0.0]


def test_rows_that_the_model_was_fitted_on_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = Features(torch.randn(40, 3, generator=generator), torch.arange(40) % 3, COUNTS, False, NAMES)
    save_features(rows, folder / "m" / "features" / "train")
    save_features(rows.take(torch.arange(10, 40)), folder / "again")
    code, _, err = run(capsys, "evaluate", "m", "again")
    assert code == 2
    assert "30 of 30 test rows are training rows too" in err
    fresh = Features(torch.randn(40, 3, generator=generator), torch.arange(40) % 3, COUNTS, False, NAMES)
    save_features(fresh, folder / "fresh")
    assert run(capsys, "evaluate", "m", "fresh", "--quiet")[0] == 0
    with pytest.raises(MemorisedRowsError):
        evaluate_rows(model(), rows, title="t", fitted_on=rows)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("m", "nowhere.csv"), "there is no file or folder nowhere.csv"),
        (("nowhere", "rows.csv"), "there is no file or folder nowhere"),
        (("m", "rows.csv", "--label", "kind"), "kind"),
        (("m", "unlabelled.csv"), "label"),
        (("m", "dog.csv"), "dog"),
        (("m", "narrow.csv"), "f2"),
        (("rows.csv", "m"), "the model comes first"),
    ],
)
def test_a_mistake_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    (folder / "unlabelled.csv").write_text("f0,f1,f2\n1,2,3\n")
    (folder / "dog.csv").write_text("f0,f1,f2,label\n1,2,3,dog\n")
    (folder / "narrow.csv").write_text("f0,f1,label\n1,2,ant\n")
    code, _, err = run(capsys, "evaluate", *words)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not (folder / "runs" / "evaluate").exists()


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(InputError):
        evaluate_rows(model(), Features(torch.zeros(2, 4), torch.tensor([0, 1]), COUNTS), title="t")


def test_predict_points_to_evaluate_where_a_column_holds_classes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "predict", "m", "rows.csv")
    assert code == 0
    assert "the column 'species' holds classes of this model: poise evaluate scores it on them" in err
    (folder / "other.csv").write_text(TABLE.replace("species", "note").replace("ant", "Ameise") + "\n")
    assert "evaluate" not in run(capsys, "predict", "m", "other.csv")[2]


@pytest.mark.parametrize(
    ("values", "expected"),
    [(["ant", "cat"], True), (["ant", ""], True), (["ant", "dog"], False), (["", ""], False), ([], False)],
)
def test_a_column_of_labels_holds_names_of_classes_alone(values: list[str], expected: bool) -> None:
    assert is_label(values, NAMES) is expected
