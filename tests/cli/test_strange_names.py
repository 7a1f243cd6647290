"""Names that would drive a terminal: files keep them, the terminal never gets them. What a fault of ours looks like."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poise.cli import FAULT, explore, main, shared
from poise.cli.options import Voice
from poise.errors import InputError

pytestmark = pytest.mark.filterwarnings("default")

STRANGE = "\x1b]0;pwned\x07\nx"
SHOWN = r"\x1b]0;pwned\x07\nx"
SIZES = (40, 20, 8)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Rows of three classes; the name of one would drive the terminal, and so would that of a column."""
    rng = np.random.default_rng(0)
    path = tmp_path / "rows\x1b[2J.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "c\x1b[31m", "note", "label"])
        for k, n in enumerate(SIZES):
            for row in rng.normal(size=(n, 3)) + 2 * np.eye(3)[k]:
                writer.writerow([*row, "\x1b[5m", (STRANGE, "ant", "cat")[k]])
    return path


def said(capfd: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    """What a command says on both streams; nothing that drives a terminal is in it."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    out, err = capfd.readouterr()
    assert stop.value.code == code, err
    assert not {c for c in out + err if not c.isprintable()} - {"\n"}
    return out + err


def test_a_class_of_rows_keeps_its_name_in_files_and_is_escaped_on_the_terminal(
    rows: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, run = tmp_path / "model\x07", tmp_path / "run"
    said(capfd, "inspect", rows)
    said(capfd, "compare", rows, "--unseen", "--out", run, "-m", "ncm", "--budget", 1)
    said(capfd, "fit", rows, "--unseen", "--out", model, "-m", "ncm")
    said(capfd, "check", model)
    said(capfd, "report", run, "-f", "md,csv")
    said(capfd, "predict", model, rows, "--out", tmp_path / "answers.csv")
    assert STRANGE in json.loads((model / "model.json").read_text())["class_names"]
    assert STRANGE in json.loads((run / "report.json").read_text())["classes"]["names"]
    with (run / "classes.csv").open(newline="") as file:
        assert STRANGE in {cell for line in csv.reader(file) for cell in line}
    with (tmp_path / "answers.csv").open(newline="") as file:
        assert STRANGE in {cell for line in csv.reader(file) for cell in line}


def test_a_result_as_json_holds_the_true_name(capfd: pytest.CaptureFixture[str]) -> None:
    shared.answer({"name": STRANGE}, [STRANGE], Voice(as_json=True), remarks=[STRANGE], written=[Path(STRANGE)])
    out, err = capfd.readouterr()
    assert json.loads(out) == {"name": STRANGE}
    assert err == f"note: {SHOWN}\nwrote {SHOWN}\n"


def test_a_folder_of_a_class_is_escaped(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in (STRANGE, "ant"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "photos" / name / f"{i}.png")
    (tmp_path / "photos" / STRANGE / "broken\x1b[1m.png").write_bytes(b"no image")
    assert r"broken\x1b[1m.png" in said(capfd, "inspect", tmp_path / "photos", "--all")


def test_a_refusal_an_option_and_a_traceback_are_escaped(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert SHOWN in said(capfd, "inspect", tmp_path / STRANGE, code=2)
    assert r"\x1b[1m" in said(capfd, "inspect", "--no\x1b[1m", code=2)
    assert SHOWN in said(capfd, "inspect", tmp_path / STRANGE, "--debug", code=2)


def test_a_folder_whose_name_is_no_text_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in (b"\xff", b"b"):
        os.makedirs(os.path.join(os.fsencode(tmp_path), b"photos", name))
    assert r"photos/\udcff is not UTF-8; rename it" in said(capfd, "inspect", tmp_path / "photos", code=2)


def test_a_fault_of_ours_is_one_sentence_that_no_refusal_looks_like(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("steps\x1b[1m")

    monkeypatch.setattr(explore, "answer", broken)
    text = said(capfd, "methods", code=FAULT)
    assert text.startswith("poise: this is a fault of Poise: KeyError: ")
    assert text.count("\n") == 1
    assert "--debug" in text
    assert "Traceback" in said(capfd, "methods", "--debug", code=FAULT)


@pytest.mark.parametrize(
    ("raised", "code", "begins"),
    [
        (InputError("a.csv is empty"), 2, "poise: a.csv is empty"),
        (MemoryError(), 2, "poise: there is too little memory; free some, or give fewer rows"),
        (RecursionError("deep"), FAULT, "poise: this is a fault of Poise: RecursionError: deep"),
        (type("PanicException", (BaseException,), {})("rust"), FAULT, "poise: this is a fault of Poise: PanicExc"),
        (OSError(28, "No space left on device", "/x"), 2, "poise: /x: No space left on device"),
    ],
    ids=["refusal", "memory", "recursion", "panic", "disk"],
)
def test_whatever_a_verb_raises_has_one_sentence_and_a_code(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    raised: BaseException,
    code: int,
    begins: str,
) -> None:
    def broken(*_: object) -> None:
        raise raised

    monkeypatch.setattr(explore, "answer", broken)
    assert said(capfd, "methods", code=code).startswith(begins)


@pytest.mark.parametrize("value", ["x", "1.5", "-1", "9" * 30, "²"])
@pytest.mark.parametrize("variable", ["WORLD_SIZE", "POISE_MEMORY_LIMIT"])
def test_a_variable_that_is_no_number_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    rows: Path,
    tmp_path: Path,
    variable: str,
    value: str,
) -> None:
    monkeypatch.setenv(variable, value)
    if variable == "WORLD_SIZE":
        text = said(capfd, "compare", rows, "--unseen", "--out", tmp_path / "run", code=2)
    else:
        np.savez(tmp_path / "rows.npz", x=np.eye(4), y=[0, 1, 0, 1])
        text = said(capfd, "inspect", tmp_path / "rows.npz", code=2)
    assert (
        text == f"poise: the environment says {variable}={value!r:.80}, which is no whole number; correct or unset it\n"
    )


def test_what_is_said_ends_as_it_did(capfd: pytest.CaptureFixture[str]) -> None:
    shared.say("é 上 no\x9bbreak")
    assert capfd.readouterr().err == "é 上 no\\x9bbreak\n"
