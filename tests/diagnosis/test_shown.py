"""What `poise.compare` finds shows itself: as text, in a notebook, as a data frame, LaTeX and a report."""

import csv
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

import poise
from poise.cli import main
from poise.commands import run_folder
from poise.diagnosis.compare import Compared
from poise.diagnosis.report_contents import contents_of
from poise.errors import MissingExtraError
from poise.report.text.latex import to_latex
from poise.results.contents import read
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head, Prep
from poise.values.problem import Problem

SIZES = (150, 40, 8)
NAMES = ("<script>alert(1)</script>", "cats & $dogs$", "a\nb\x1b[31m")


def rows_of(seed: int, sizes: tuple[int, ...], *, seen: bool) -> Features:
    g = torch.Generator().manual_seed(seed)
    y = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    x = torch.randn(len(y), 5, generator=g) + 1.5 * torch.eye(3, 5)[y]
    return Features(x, y, ClassCounts(torch.tensor(SIZES)), seen, NAMES)


TEST = rows_of(2, (30, 30, 30), seen=False)
HEAD = Head(torch.eye(3, 5), torch.tensor(SIZES).double().log().float())
PROBLEM = Problem(rows_of(0, SIZES, seen=True), HEAD, rows_of(1, (20, 20, 20), seen=False))


@pytest.fixture(scope="module")
def found() -> Compared:
    asked = ["crt(epochs=2)", "tau_norm", "temperature+tau_norm(tau=0.123456789)"]
    return poise.compare(asked, PROBLEM, TEST, budget=2, rounds=100, seeds=(3, 4), data="<b>birds</b>")


class Cells(HTMLParser):
    """The tags of a piece of HTML, and the texts of its cells, row by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


PLAIN = {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "p"}


# --- text -------------------------------------------------------------------------------------------------------------


def test_printed_it_is_the_table_and_the_verdict_in_80_columns(found: Compared) -> None:
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < 40
    assert lines[0] == "<b>birds</b>"
    assert all(any(line.startswith(row.own[:12]) for line in lines) for row in found.rows if row.role != "recipe")
    assert found.verdict().split() == " ".join(lines).split()[-len(found.verdict().split()) :]
    assert not any(character in str(found) for character in "\x1b\r")


def test_in_short_a_comparison_and_its_rows_are_one_line(found: Compared) -> None:
    assert repr(found) == f"Compared(5 methods on 90 test rows, recommended={found.recommended.method!r})"
    assert all(len(repr(standing)) < 120 for standing in found.standings)
    assert "2 seeds" in repr(found.baseline)


def test_in_short_rows_and_heads_say_what_they_are_and_hold_no_numbers_of_theirs() -> None:
    assert repr(TEST) == "<Features: 90 rows of 5 float32 numbers, 3 classes, not seen by the backbone>"
    views = Features(TEST.x.expand(2, -1, -1), TEST.y, TEST.counts, weight=torch.ones(90))
    assert "90 rows of 2 views of 5" in repr(views)
    assert "perhaps seen" in repr(views)
    assert repr(views).endswith(", weighted>")
    assert repr(HEAD) == "<Head: classes 3, features 5, type float32>"
    stacked = Head(torch.ones(4, 3, 5), torch.zeros(4, 3), Prep(torch.zeros(5), unit=True))
    assert repr(stacked) == "<Head: heads 4, classes 3, features 5, type float32, prep centred and of unit length>"
    assert repr(Prep()) == "<Prep: features as they are>"


# --- notebooks --------------------------------------------------------------------------------------------------------


def shown() -> list[Any]:
    return [TEST, HEAD, poise.evaluate_head(HEAD, TEST)]


@pytest.mark.parametrize("value", shown(), ids=lambda value: type(value).__name__)
def test_a_notebook_shows_a_plain_table_without_script_or_colour(value: Any) -> None:
    html = value._repr_html_()
    assert Cells(html).tags <= PLAIN
    assert "color" not in html
    assert "background" not in html


def test_a_notebook_shows_the_table_of_a_comparison_its_verdict_and_names_as_they_are(found: Compared) -> None:
    html = found._repr_html_()
    cells = Cells(html)
    assert cells.tags <= PLAIN
    assert "&lt;b&gt;birds&lt;/b&gt;" in html
    assert cells.rows[0][:3] == ["method", "tuned", "stated"]
    for row, line in zip(cells.rows[1:], _body(found), strict=True):
        assert row[0].startswith(line.split()[0].rstrip("\u2026"))
    verdict = Cells(f"<table><tr><td>{html[html.index('<p>') + 3 : html.index('</p>')]}</td></tr></table>").rows[0][0]
    assert verdict == found.verdict().replace("\n", "\\n").replace("\x1b", "\\x1b")


def _body(found: Compared) -> list[str]:
    lines = str(found).splitlines()
    return lines[3 : lines.index("", 3)]


def test_classes_in_a_notebook_are_named_as_they_are_with_both_counts() -> None:
    assert Cells(TEST._repr_html_()).rows[1:] == [
        [NAMES[0], "150", "30"],
        [NAMES[1], "40", "30"],
        ["a\\nb\\x1b[31m", "8", "30"],
    ]
    assert "mathjax_ignore" in TEST._repr_html_()


def test_of_many_classes_a_notebook_names_the_most_frequent_and_the_rarest() -> None:
    counts = torch.arange(20, 0, -1)
    y = torch.repeat_interleave(torch.arange(20), counts)
    rows = Cells(Features(torch.ones(len(y), 2), y, ClassCounts(counts))._repr_html_()).rows[1:]
    assert [row[0] for row in rows] == [*"01234", "10 classes between", *map(str, range(15, 20))]


def test_scores_in_a_notebook_are_those_of_the_value() -> None:
    scores = poise.evaluate_head(HEAD, TEST)
    cells = dict(Cells(scores._repr_html_()).rows[1:])
    assert cells["balanced accuracy"] == f"{100 * scores.balanced_accuracy:.2f}"
    assert cells["nll, in nats"] == f"{scores.nll:.3f}"


# --- other programs ---------------------------------------------------------------------------------------------------


def test_a_frame_has_the_values_of_summary_csv(found: Compared, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    run_folder.write(tmp_path, found)
    written = list(csv.DictReader((tmp_path / "summary.csv").read_text().splitlines()))
    frame = found.to_frame()
    assert len(frame) == len(found.rows) == len(written)
    for (_, row), line in zip(frame.iterrows(), written, strict=True):
        for name, text in line.items():
            value = row[name]
            assert text == ("" if pandas.isna(value) else str(value)), name


def test_a_frame_without_pandas_says_what_to_install(found: Compared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"a data frame needs pandas: pip install pandas$"):
        found.to_frame()


def test_latex_is_that_of_the_report(found: Compared, tmp_path: Path) -> None:
    found.report(tmp_path / "page")
    with pytest.raises(SystemExit, match="0"):
        main(["report", str(tmp_path / "page"), "--format", "latex"])
    assert found.to_latex() == (tmp_path / "page" / "report.tex").read_text()
    assert to_latex(found.contents(title="Birds"), label="tab:x") == found.to_latex(title="Birds", label="tab:x")
    assert r"\label{tab:x}" in found.to_latex(label="tab:x")


def test_the_report_is_that_of_the_command(found: Compared, tmp_path: Path) -> None:
    paths = found.report(tmp_path / "new" / "page")
    assert sorted(path.name for path in paths) == ["report.html", "report.json"]
    assert all(path.stat().st_size for path in paths)
    page = read(tmp_path / "new" / "page" / "report.json")
    expected = contents_of(found, TEST, title="<b>birds</b>", problem=PROBLEM, seed=3)
    assert page.model_dump_json() == type(page).model_validate(json.loads(expected.to_json())).model_dump_json()
    assert page.closer[0].pull  # the gradients of training rows, which only the problem gives
    assert found.report(tmp_path, title="Birds")[0].read_text() != paths[0].read_text()


def test_a_report_into_a_file_says_so(found: Compared, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(poise.PoiseError, match="taken"):
        found.report(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


def test_showing_scores_imports_no_torch() -> None:
    program = """
import sys
from poise.results.scores import Scores
html = Scores(0.5, 0.5, None, 0.5, 0.5, 0.5, 1.0, 0.1, (0.5, None), 4)._repr_html_()
assert "<td" in html and ">-<" in html
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
