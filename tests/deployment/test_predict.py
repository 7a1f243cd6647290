"""Predictions in files: the same from every format and chunk size, whole or not at all, whatever classes are called."""

import csv
import errno
import json
import os
import sys

import numpy as np
import pytest
import torch

from poise.decisions.decide import decide
from poise.decisions.operating_point import OperatingPoint
from poise.deployment.model import Model
from poise.deployment.prediction_files import write_predictions
from poise.errors import InputError, MissingExtraError
from poise.machine import atomic
from poise.values.counts import ClassCounts
from poise.values.head import Head

HOSTILE = (
    "<script>alert('x')</script>",
    'dog, "wet"',
    "two\nlines",
    "carriage\rreturn\r\n",
    "=1+1",
    "élan 🐈",
    "x" * 300,
    "prediction",
)


def model(names=HOSTILE, dim=5, seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    classes = len(names)
    head = Head(
        torch.randn(classes, dim, generator=generator, dtype=torch.float64),
        torch.randn(classes, generator=generator, dtype=torch.float64),
    )
    return Model(
        head=head,
        class_names=names,
        counts=ClassCounts(torch.arange(1, classes + 1)),
        prior_applied=torch.full((classes,), 1 / classes, dtype=torch.float64),
        method="ce",
        **more,
    )


def rows(n=40, dim=5):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(1))


def read(path):
    """The columns of a file as lists; numbers of a CSV as floats."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pydict()
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    columns = {name: [line[i] for line in lines] for i, name in enumerate(header)}
    numeric = [name for name in columns if name == "confidence" or name.startswith("p(") or name in ("p1", "p2")]
    return {**columns, **{name: [float(cell) for cell in columns[name]] for name in numeric}}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_hostile_class_names_come_back_exactly_with_the_posteriors_of_the_head(tmp_path, suffix):
    made, x = model(), rows()
    done = write_predictions(made, x, tmp_path / f"Vorhersagen é{suffix}")
    table, p = read(done.path), made.head(x).softmax(dim=-1)
    assert list(table) == ["prediction", "confidence", *(f"p({name})" for name in HOSTILE)]
    assert table["prediction"] == [HOSTILE[k] for k in p.argmax(dim=-1).tolist()]
    assert len(set(table["prediction"])) > 4  # else little would be tested
    for k, name in enumerate(HOSTILE):
        assert table[f"p({name})"] == p[:, k].tolist()
    assert np.allclose(sum(np.array(table[f"p({name})"]) for name in HOSTILE), 1, atol=1e-12)
    assert table["confidence"] == pytest.approx(p.max(dim=-1).values.tolist(), abs=1e-12)
    assert (done.rows, done.abstained, sum(done.answers.values())) == (40, 0, 40)


def test_csv_and_parquet_hold_the_same_values(tmp_path):
    carried = {"id": [f"r{i}" for i in range(40)], "note": ["a,b\n"] * 40}
    found = [
        read(write_predictions(model(), rows(), tmp_path / f"p{suffix}", carried=carried).path)
        for suffix in (".csv", ".parquet")
    ]
    assert found[0] == found[1]


RISKY = ("=cmd|'/c calc'!A1", "+1", "-a", "@x", "\tx", "\rx", "a")


@pytest.mark.parametrize("chunk", [2, 8192])
def test_for_a_spreadsheet_no_cell_is_a_formula_and_numbers_stay_as_they_are(tmp_path, chunk):
    carried = {"=id": ["-1.5", "+2e3", "=1", "-x"] * 10, "size": [-1] * 40}
    made = model(RISKY)
    plain, safe = (
        write_predictions(
            made, rows(), tmp_path / f"{name}.csv", carried=carried, spreadsheet=name == "safe", chunk=chunk
        )
        for name in ("plain", "safe")
    )
    before, after = read(plain.path), read(safe.path)
    assert before["prediction"] == [name.removeprefix("'") for name in after["prediction"]]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in after["prediction"])
    assert after["\ufeff'=id"] == ["-1.5", "+2e3", "'=1", "'-x"] * 10
    assert after["size"] == before["size"] == ["-1"] * 40
    run = sum(name != "a" for name in before["prediction"])
    assert (plain.formulas.number, plain.formulas.first) == (1 + 20 + run, "=id")
    assert (safe.formulas.number, plain.path.read_bytes()[:3]) == (0, b"=id")


def test_a_spreadsheet_of_parquet_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"p.parquet runs nothing in a spreadsheet; only a .csv file is made for one"):
        write_predictions(model(), rows(), tmp_path / "p.parquet", spreadsheet=True)
    assert list(tmp_path.iterdir()) == []


def test_lines_end_in_a_line_feed_alone(tmp_path):
    content = write_predictions(model(("a", "b")), rows(3), tmp_path / "p.csv").path.read_bytes()
    assert b"\r" not in content
    assert content.count(b"\n") == 4


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_size_of_chunks_does_not_matter(tmp_path, suffix):
    tables = []
    for chunk in (1, 7, 40, 8192):
        done = write_predictions(
            model(), rows(), tmp_path / f"{chunk}{suffix}", carried={"id": [*range(40)]}, chunk=chunk
        )
        tables.append((read(done.path), done.answers))
    first, answers = tables[0]
    for table, others in tables[1:]:
        assert list(table) == list(first)
        assert others == answers
        for name, column in first.items():
            # A matrix product of other shape may round its last bit differently.
            same = column if isinstance(column[0], str | int) else pytest.approx(column, abs=1e-12)
            assert table[name] == same


def test_carried_columns_come_first_and_keep_their_types_in_parquet(tmp_path):
    carried = {"when": [None] * 8 + ["monday"] * 2, "size": [*range(9), 2.5], "empty": [None] * 10}
    done = write_predictions(model(), rows(10), tmp_path / "p.parquet", carried=carried, chunk=4)
    table = read(done.path)
    assert list(table)[:4] == ["when", "size", "empty", "prediction"]
    assert {name: table[name] for name in carried} == carried


def test_a_carried_column_of_mixed_kinds_is_refused_for_parquet_and_written_to_csv(tmp_path):
    carried = {"mixed": ["a", 1]}
    with pytest.raises(InputError, match=r"a carried column cannot be written to Parquet \(.*\); write a .csv file"):
        write_predictions(model(), rows(2), tmp_path / "p.parquet", carried=carried)
    assert read(write_predictions(model(), rows(2), tmp_path / "p.csv", carried=carried).path)["mixed"] == ["a", "1"]
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_abstention_is_an_empty_answer_with_its_confidence(tmp_path, suffix):
    made, x = model(("a", "b", "c"), operating=OperatingPoint(abstain=0.8)), rows()
    done = write_predictions(made, x, tmp_path / f"p{suffix}")
    table = read(done.path)
    unsure = [confidence < 0.8 for confidence in table["confidence"]]
    assert [answer == "" for answer in table["prediction"]] == unsure
    assert 0 < done.abstained == sum(unsure) < 40
    assert sum(done.answers.values()) + done.abstained == 40


def test_sets_are_json_lists_of_names(tmp_path):
    made, x = model(operating=OperatingPoint(top_k=2)), rows()
    table = read(write_predictions(made, x, tmp_path / "p.csv").path)
    sets = decide(made.head(x), OperatingPoint(top_k=2)).sets
    expected = [[HOSTILE[k] for k in row.nonzero().flatten().tolist()] for row in sets]
    assert [json.loads(cell) for cell in table["set"]] == expected
    assert all(answer in named for answer, named in zip(table["prediction"], expected, strict=True))


def test_an_empty_set_is_an_empty_list(tmp_path):
    made = model(("a", "b"), operating=OperatingPoint(conformal=(0.0, 0.0), alpha=0.1))
    assert set(read(write_predictions(made, rows(4), tmp_path / "p.csv").path)["set"]) == {"[]"}


def test_costs_change_the_answer_and_leave_the_probabilities(tmp_path):
    plain = read(write_predictions(model(("a", "b")), rows(), tmp_path / "a.csv").path)
    costly = model(("a", "b"), operating=OperatingPoint(costs=(1000.0, 1.0)))
    found = read(write_predictions(costly, rows(), tmp_path / "b.csv").path)
    assert found["p(a)"] == plain["p(a)"]
    assert found["prediction"].count("a") > plain["prediction"].count("a")
    assert found["confidence"] == pytest.approx(
        [p if answer == "a" else 1 - p for p, answer in zip(found["p(a)"], found["prediction"], strict=True)]
    )


def test_top_writes_the_best_names_in_falling_order(tmp_path):
    made, x = model(), rows()
    table = read(write_predictions(made, x, tmp_path / "p.csv", top=2).path)
    assert list(table) == ["prediction", "confidence", "top1", "p1", "top2", "p2"]
    assert table["top1"] == table["prediction"]
    best = made.head(x).softmax(dim=-1).topk(2)
    assert table["p2"] == best.values[:, 1].tolist()
    assert table["top2"] == [HOSTILE[k] for k in best.indices[:, 1].tolist()]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"path": "p.txt"}, "predictions are written to .csv or .parquet, and FOLDER/p.txt is neither"),
        ({"x": torch.zeros(3, 4)}, "the model reads 5 features per row, these rows are (3, 4)"),
        ({"x": torch.zeros(5)}, "the model reads 5 features per row, these rows are (5,)"),
        ({"x": torch.zeros(0, 5)}, "there is no row to predict"),
        ({"top": 9}, "top must lie between 1 and 8, the number of classes; got 9"),
        ({"top": 0}, "top must lie between 1 and 8, the number of classes; got 0"),
        (
            {"carried": {"prediction": ["?"] * 3}},
            "the rows have a column 'prediction', which the predictions need; rename or drop it",
        ),
        (
            {"carried": {"p(=1+1)": ["?"] * 3}},
            "the rows have a column 'p(=1+1)', which the predictions need; rename or drop it",
        ),
        ({"carried": {"id": ["?"] * 2}}, "the carried column 'id' has 2 values for 3 rows"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_left(tmp_path, change, sentence):
    given = {"x": rows(3), "path": "p.csv", "carried": None, "top": None, **change}
    with pytest.raises(InputError) as caught:
        write_predictions(model(), given["x"], tmp_path / given["path"], carried=given["carried"], top=given["top"])
    assert str(caught.value).replace(str(tmp_path), "FOLDER") == sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, suffix):
    path = write_predictions(model(), rows(), tmp_path / f"p{suffix}").path
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(InputError) as caught:
        write_predictions(model(seed=3), rows(), path)
    assert (
        str(caught.value)
        == f"cannot write {path}: No space left on device; an old file is as it was; choose another place"
    )
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_the_old_file_and_no_other(tmp_path):
    path = write_predictions(model(), rows(), tmp_path / "p.csv").path
    before = path.read_bytes()

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(model(seed=3), rows(), path, progress=stop)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_and_a_file_that_is_a_folder_are_refused(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*taken/p\.csv: .*; choose another place"):
        write_predictions(model(), rows(), tmp_path / "taken" / "p.csv")
    (tmp_path / "p.csv").mkdir()
    with pytest.raises(
        InputError, match=r"cannot write .*p\.csv: Is a directory; an old file is as it was; choose another place"
    ):
        write_predictions(model(), rows(), tmp_path / "p.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.csv", "taken"]


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError) as caught:
        write_predictions(model(), rows(), tmp_path / "p.parquet")
    assert str(caught.value) == "writing Parquet needs pyarrow: pip install 'poise[table]'"
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_rows(tmp_path):
    seen = []
    write_predictions(model(), rows(10), tmp_path / "p.csv", chunk=4, progress=lambda *now: seen.append(now))
    assert seen == [(4, 10), (8, 10), (10, 10)]
