"""`poise report`: which report it finds, what it writes and prints, and what it refuses."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hostile_report import HOSTILE, PLAIN, sample
from poise.cli import main


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `poise report WORDS`."""
    with pytest.raises(SystemExit) as stopped:
        main(["report", *map(str, words)])
    shown = capsys.readouterr()
    return int(stopped.value.code or 0), shown.out, shown.err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a run, which holds a report.json of plain names; the name of the folder is not friendly."""
    path = tmp_path / "a run é 🐈"
    path.mkdir()
    (path / "report.json").write_text(sample(PLAIN).to_json(), encoding="utf-8")
    return path


def test_the_page_is_written_beside_the_report_and_its_path_printed(folder: Path, capsys) -> None:
    assert run(capsys, folder) == (0, f"wrote {folder / 'report.html'}\n", "")
    assert "Birds, 2026" in (folder / "report.html").read_text(encoding="utf-8")
    assert run(capsys, folder / "report.json", "--quiet") == (0, f"wrote {folder / 'report.html'}\n", "")


def test_formats_are_written_into_the_folder_of_out(folder: Path, tmp_path: Path, capsys) -> None:
    code, out, _ = run(capsys, folder, "--format", "md, LaTeX,csv", "--out", tmp_path / "new" / "place")
    assert code == 0
    names = ["report.md", "report.tex", "methods.csv", "classes.csv"]
    assert out.splitlines() == [f"wrote {tmp_path / 'new' / 'place' / name}" for name in names]
    assert sorted(path.name for path in (tmp_path / "new" / "place").iterdir()) == sorted(["SHA256SUMS", *names])
    assert [path.name for path in folder.iterdir()] == ["report.json"]


def test_figures_are_written_into_a_folder_of_their_own(folder: Path, capsys, monkeypatch) -> None:
    from poise.report.charts import paper_figures

    only = {"class_frequency": paper_figures.DRAWINGS["class_frequency"]}
    monkeypatch.setattr(paper_figures, "DRAWINGS", only)
    code, out, _ = run(capsys, folder, "--format", "png,svg")
    assert (code, out.count("wrote")) == (0, 2)
    assert sorted(path.name for path in (folder / "figures").iterdir()) == [
        "class_frequency.png",
        "class_frequency.svg",
    ]


def test_json_says_the_verdict_and_the_paths_on_one_line(folder: Path, capsys) -> None:
    code, out, err = run(capsys, folder, "--format", "md", "--json")
    assert code == 0
    assert json.loads(out) == {
        "title": "Birds, 2026",
        "decision": "change",
        "verdict": "Change to los(delta=0.9,lr=0.1): it gains +15.0 points.",
        "recommended": "los(delta=0.9,lr=0.1)",
        "written": [str(folder / "report.md")],
    }
    assert err == f"wrote {folder / 'report.md'}\n"


def test_the_only_report_of_a_folder_of_runs_is_taken_and_of_several_one_is_asked_for(folder: Path, capsys) -> None:
    runs = folder.parent
    assert run(capsys, runs, "--format", "md") == (0, f"wrote {folder / 'report.md'}\n", "")
    (runs / "b").mkdir()
    (runs / "b" / "report.json").write_bytes((folder / "report.json").read_bytes())
    assert run(capsys, runs) == (2, "", f"poise: {runs} holds 2 reports; name one of {folder}, {runs / 'b'}\n")


def test_what_holds_no_report_is_refused_in_one_sentence_with_the_remedy(tmp_path: Path, capsys) -> None:
    writers = "`poise demo`, `poise compare`, `poise fit` and `poise audit` write one"
    assert run(capsys, tmp_path) == (2, "", f"poise: {tmp_path} holds no report.json; {writers}\n")
    (tmp_path / "comparison.json").write_text("{}")
    older = " (this run was made before there were reports: run it again)"
    assert run(capsys, tmp_path) == (2, "", f"poise: {tmp_path} holds no report.json; {writers}{older}\n")
    missing = tmp_path / "comparison.jsn"
    hint = ", did you mean 'comparison.json'?"
    assert run(capsys, missing) == (2, "", f"poise: there is no file or folder {missing}{hint}\n")
    other = tmp_path / "comparison.json"
    said = f"poise: {other} holds no report of Poise; `poise compare`, `demo`, `audit` and `fit` write one\n"
    assert run(capsys, other) == (2, "", said)
    (tmp_path / "x.json").write_bytes(b"\x89PNG\xff")
    writers = "`poise compare`, `demo`, `audit` and `fit` write one"
    said = f"poise: {tmp_path / 'x.json'} is not UTF-8 (byte 1); {writers}\n"
    assert run(capsys, tmp_path / "x.json") == (2, "", said)


def test_another_file_is_said_to_be_no_report(tmp_path: Path, capsys) -> None:
    (tmp_path / "mine.csv").write_text("a,label\n1,b\n")
    sentence = f"{tmp_path / 'mine.csv'} is no report.json; name the folder of a run, or the report.json in it"
    assert run(capsys, tmp_path / "mine.csv") == (2, "", f"poise: {sentence}\n")


def test_a_format_that_there_is_not_is_refused_before_anything_is_written(folder: Path, capsys) -> None:
    code, out, err = run(capsys, folder, "--format", "md,pdf")
    assert (code, out) == (2, "")
    assert err == "poise: --format must be one of html, md, latex, csv, svg, png, all; got 'pdf'\n"
    assert run(capsys, folder, "--format", "md", "--open")[0] == 2
    assert [path.name for path in folder.iterdir()] == ["report.json"]


def test_the_page_is_opened_where_that_is_asked_for(folder: Path, capsys, monkeypatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", opened.append)
    assert run(capsys, folder, "--open")[0] == 0
    assert opened == [(folder / "report.html").as_uri()]


def test_names_that_a_spreadsheet_would_run_are_told_of_and_made_harmless_on_request(tmp_path: Path, capsys) -> None:
    (tmp_path / "report.json").write_text(sample().to_json(), encoding="utf-8")
    code, _, err = run(capsys, tmp_path, "--format", "csv")
    assert code == 0
    assert err == (
        f"note: 4 cells begin like a formula ({next(n for n in HOSTILE if n[0] in '=+-@')!r}), which a spreadsheet "
        "would run; add --spreadsheet to open the CSV in one\n"
    )
    for words, names, encoding in (
        ((), list(HOSTILE), "utf-8"),
        (("--spreadsheet",), [f"'{n}" if n[0] in "=+-@" else n for n in HOSTILE], "utf-8-sig"),
    ):
        code, _, _ = run(capsys, tmp_path, "--format", "csv", *words)
        with (tmp_path / "classes.csv").open(encoding=encoding, newline="") as file:
            assert [line["name"] for line in csv.DictReader(file)] == names
    assert run(capsys, tmp_path, "--format", "csv", "--spreadsheet")[2] == ""


def test_a_report_is_written_without_torch(folder: Path) -> None:
    program = f"""
import sys
from poise.cli import main
try:
    main(["report", {str(folder)!r}, "--format", "html,md,latex,csv", "--quiet"])
except SystemExit as stopped:
    assert not stopped.code
heavy = {{"torch", "scipy", "sklearn", "matplotlib"}} & set(sys.modules)
sys.exit(f"imported {{sorted(heavy)}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_tables_have_colours_on_a_terminal_only_and_never_with_no_color(capsys, monkeypatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")

    def listed() -> str:
        with pytest.raises(SystemExit):
            main(["methods"])
        return capsys.readouterr().out

    plain = listed()
    assert "\x1b" not in plain
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    assert "\x1b[" in listed()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not any(f"\x1b[{code}m" in listed() for code in range(30, 50))


def test_a_file_in_the_place_of_the_folder_is_refused_with_what_out_names(folder: Path, tmp_path: Path, capsys) -> None:
    place = tmp_path / "page.html"
    place.write_text("")
    assert run(capsys, folder, "--out", place) == (
        2,
        "",
        f"poise: {place} is a file; --out names the folder that the report is written into\n",
    )
