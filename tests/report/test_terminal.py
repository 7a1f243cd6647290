"""Tables of a comparison: what people see, what programs read, and the files of a run."""

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from compared_row import BASE
from poise import testing
from poise.commands import run_folder
from poise.diagnosis.compare import compare
from poise.errors import InputError
from poise.machine.atomic import writable
from poise.methods import short_name
from poise.report.text.score_tables import LEGEND, to_csv, to_markdown, to_terminal
from poise.report.text.words import lines
from poise.results.contents import CSV_FIELDS, Row
from poise.selection.comparison_result import Comparison
from report_samples import from_flat

TUNED = {
    **BASE,
    "method": "crt(epochs=2,lr=9.0)",
    "family": "crt(epochs=2)",
    "role": "tuned",
    "selected": "held_out (40 rows, 16 settings)",
    "balanced_accuracy": 0.4004,
    "gain": 0.15,
    "gain_low": 0.11,
    "gain_high": 0.19,
    "gain_classes_low": -0.1,
    "gain_classes_high": 0.4,
    "tied": True,
    "recommended": True,
    "edges": "lr=9",
}
RECIPE = {**BASE, "method": "crt(epochs=2)", "family": "crt(epochs=2)", "role": "recipe", "balanced_accuracy": 0.3}
RECIPE |= {"tied": None, "recommended": False}
ROWS = [from_flat(values) for values in (TUNED, RECIPE, BASE)]

REMEDY = "choose another folder with --out"


@pytest.fixture(scope="module")
def found() -> Comparison:
    problem = testing.world(counts=(120, 30, 9, 4), held_out=20)
    rows = problem.held_out
    assert rows is not None
    held_out, test = (rows.take((torch.arange(80) % 2 == half).nonzero().flatten()) for half in (0, 1))
    return compare(["crt(epochs=2,lr=1.0)", "ncm"], replace(problem, held_out=held_out), test, budget=4, rounds=200)


def cells(text: str) -> list[list[str]]:
    """The cells of a Markdown table."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def printed(rows: Sequence[Row], width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(to_terminal(rows, title="a title"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


# --- CSV -------------------------------------------------------------------------------------------------------------


def test_the_csv_has_a_line_per_row_every_field_and_nothing_for_what_is_not_known() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(ROWS))))
    assert [line["method"] for line in lines] == [row.method for row in ROWS]
    assert tuple(lines[0]) == CSV_FIELDS
    assert (lines[2]["medium"], lines[2]["gain"], lines[1]["tied"]) == ("", "", "")
    assert (lines[0]["tied"], lines[0]["recommended"], lines[2]["recommended"]) == ("True", "True", "False")


def test_the_csv_gives_every_number_back_exactly() -> None:
    line = next(csv.DictReader(io.StringIO(to_csv([from_flat(BASE)]))))
    for name in ("nll", "balanced_accuracy", "seconds", "loma_variation"):
        assert float(line[name]) == BASE[name]


def test_methods_with_commas_and_quotes_stay_one_field_of_the_csv() -> None:
    name = "ncm(distance='l2',transform=\"raw\")\n,"
    (line,) = csv.DictReader(io.StringIO(to_csv([from_flat({**BASE, "method": name})])))
    assert line["method"] == name


# --- one line per method ---------------------------------------------------------------------------------------------


def test_a_recipe_stands_beside_its_tuned_method_and_the_best_comes_first() -> None:
    first, second = lines(ROWS)
    assert (first.row.method, first.row.estimate("balanced"), first.stated) == ("crt(epochs=2,lr=9.0)", 0.4004, 0.3)
    assert (second.row.method, second.stated) == ("stage1", None)
    assert lines(ROWS[::-1]) == [first, second]


def test_recipes_stand_alone_where_nothing_was_tuned() -> None:
    alone = from_flat({**RECIPE, "family": "los", "method": "los, epoch 3"})
    shown = [line.row.method for line in lines([*ROWS, alone])]
    assert shown == ["crt(epochs=2,lr=9.0)", "los, epoch 3", "stage1"]
    (cells,) = [line.split() for line in printed([*ROWS, alone]) if line.startswith("los, epoch 3")]
    assert cells[3:5] == ["-", "30.00"]  # nothing was tuned


def test_short_names_hide_options_of_training_and_keep_the_rest() -> None:
    assert short_name("los(delta=0.9,epochs=2)+tau_norm(tau=0.5)") == "los(delta=0.9,...)+tau_norm(tau=0.5)"
    assert short_name("crt(epochs=2,lr=1.0)") == "crt(...)"
    assert short_name("crt(start='stage1')") == "crt(start=stage1)"
    assert short_name("converged(weight_decay=0.1)+crt(weight_decay=0.1)") == "converged(weight_decay=0.1)+crt(...)"
    assert short_name("stage1") == "stage1"
    for text in ("tau_norm(tau=0.5) | tau_norm(tau=0.7)", "crt(epochs=2), epoch 3"):
        assert short_name(text) == text


# --- Markdown and terminal -------------------------------------------------------------------------------------------


def test_the_markdown_table_is_regular_and_its_numbers_are_per_cent() -> None:
    text = to_markdown(ROWS, notes=["a note", "another"])
    heading, rule, first, second = cells(text)
    assert len(heading) == len(rule) == len(first) == len(second)
    row = dict(zip(heading, first, strict=True))
    assert row["method"] == "`crt(epochs=2,lr=9.0)`"
    assert [row[name] for name in ("tuned", "stated", "many", "med", "few")] == ["40.04", "30.00", "70.0", "-", "10.0"]
    assert row["gain"] == "+15.0 ±4.0"
    assert row[""] == "=*^"
    assert [row[name] for name in ("all", "F1", "ECE", "LoMa", "sec")] == ["50.00", "30.0", "6.0", "0.50", "0.12"]
    base = dict(zip(heading, second, strict=True))
    assert (base["stated"], base["gain"], base[""]) == ("-", "-", "")
    assert text.endswith("\n\n- a note\n- another\n")


def test_a_loss_has_its_sign() -> None:
    lost = {**TUNED, "gain": -0.02, "gain_low": -0.03, "gain_high": -0.01}
    assert "-2.0 ±1.0" in to_markdown([from_flat(lost)])
    nothing = {**TUNED, "gain": -0.0001, "gain_low": -0.0101, "gain_high": 0.0099}
    assert "+0.0 ±1.0" in to_markdown([from_flat(nothing)])


def test_the_terminal_table_fits_80_columns_and_has_a_line_per_method() -> None:
    long = {**TUNED, "method": "label_aware_smoothing(smooth_head=0.3456,smooth_tail=0.0123)", "family": "x"}
    lines = printed([from_flat(long), *ROWS])
    assert max(map(len, lines)) <= 80
    assert lines[0].strip() == "a title"
    assert sum("stage1" in line for line in lines) == 1
    assert sum(line.startswith("crt(...)") for line in lines) == 1
    assert any("…" in line and line.startswith("label_aware_smoothing") for line in lines)


def test_the_terminal_table_says_what_the_markdown_table_says() -> None:
    text = "\n".join(printed(ROWS))
    for word in ("40.04", "30.00", "+15.0 ±4.0", "=*^", "25.00", "70.0"):
        assert word in text


def test_the_legend_explains_every_mark_and_heading() -> None:
    for word in ("tuned", "stated", "many", "med", "few", "gain", "= ", "* ", "^ "):
        assert word in LEGEND


# --- the files of a run ----------------------------------------------------------------------------------------------


def test_a_run_leaves_records_tables_and_the_verdict(found, tmp_path: Path) -> None:
    paths = run_folder.write(tmp_path, found, notes=["a note of the caller"])
    assert [path.name for path in paths] == ["records.jsonl", "summary.csv", "summary.md", "comparison.json"]
    assert sorted(os.listdir(tmp_path)) == sorted(path.name for path in paths)
    records = [json.loads(line) for line in paths[0].read_text().splitlines()]
    assert records == json.loads(json.dumps([record.to_dict() for record in found.records]))
    rows = list(csv.DictReader(paths[1].read_text().splitlines()))
    assert [row["method"] for row in rows] == [row["method"] for row in found.table()]
    text = paths[2].read_text()
    assert f"- {found.verdict()}\n" in text
    assert text.endswith("- a note of the caller\n")
    assert json.loads(paths[3].read_text()) == json.loads(json.dumps(found.to_dict()))


def test_a_run_written_twice_has_the_same_bytes(found, tmp_path: Path) -> None:
    first, second = ([path.read_bytes() for path in run_folder.write(tmp_path, found)] for _ in range(2))
    assert first == second


def test_tables_of_a_real_comparison_agree_with_it(found) -> None:
    heading, _, *body = cells(to_markdown(found.rows))
    assert [row[0].strip("`") for row in body] == [line.row.method for line in lines(found.rows)]
    marked = [row[0].strip("`") for row in body if "*" in row[heading.index("")]]
    assert marked == [found.recommended.method]
    starred = {row[0].strip("`") for row in body if "=" in row[heading.index("")]}
    assert starred == {row.method for row in found.contenders if str(row.family) in found.tied()}


def test_a_folder_is_made_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b ü"
    assert writable(folder, REMEDY) == writable(folder, REMEDY) == folder
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=r"^cannot write into .*file.*; choose another folder with --out$"):
            writable(folder, REMEDY)
    if Path("/proc/version").exists():  # a folder in which nobody can make a file, whatever the permissions say
        with pytest.raises(InputError, match=r"^cannot write into /proc/self"):
            writable(Path("/proc/self"), REMEDY)


def test_in_80_columns_no_number_and_no_mark_is_cut() -> None:
    row = {
        **TUNED,
        "method": "class_balanced(beta=0.99999,gamma=1.0)+temperature",
        "family": "a",
        **dict.fromkeys(("balanced_accuracy", "many", "medium", "few"), 1.0),
        "gain": -0.1,
        "gain_low": -0.4,
        "gain_high": 0.2,
    }
    rows = [from_flat(row), from_flat({**row, "role": "recipe"})]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(to_terminal(rows, title="t"))
    line = next(line for line in console.export_text().splitlines() if "class_balanced" in line)
    assert line.rstrip().endswith("100.00  100.00  100.0  100.0  100.0  -10.0 ±30.0  =*^")
    assert "…" in line
