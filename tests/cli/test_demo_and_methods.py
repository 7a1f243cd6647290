"""The command line as a person meets it."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from poise import methods
from poise.cli import main
from poise.commands.demo import demo_specs
from poise.data.bundled import load_demo
from poise.deployment.model import load
from poise.methods import short_name


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "poise", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


# The whole demo takes half a minute of two cores; on a busy machine more.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("demo with space ü")
    return run("demo", cwd=folder), folder / "runs" / "demo" / "cifar100lt_r32_autoaugment"


def test_the_demo_prints_at_least_22_methods_within_80_columns(
    demo: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, _ = demo
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    names = {line.split()[0].split("(")[0] for line in lines if line.strip()}
    assert len(names & set(methods.METHODS)) == len(methods.METHODS) >= 22


def test_the_demo_ends_with_tied_set_verdict_and_gap_closed(
    demo: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    text = " ".join(demo[0].stdout.split())
    assert "Change to logit_adjustment(tau=1.125): it gains +6.0 points of balanced accuracy over stage1" in text
    assert "methods cannot be told from the best on the test split" in text
    assert "% of the way from stage1 to an oracle head" in text
    assert "selected on the held-out rows" in text


def test_the_demo_says_only_its_estimate_and_its_warning_on_standard_error_when_that_is_no_terminal(
    demo: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    # Six test rows of the shipped set equal training rows; that is told, and how long it takes, and nothing else.
    expected = ("test rows are training rows too", " heads, about ", "note: training heads: ")
    assert all(any(words in line for words in expected) for line in demo[0].stderr.splitlines())


def test_the_report_of_the_demo_is_one_file_of_less_than_1200_kilobytes(
    demo: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    assert 500_000 < (demo[1] / "report.html").stat().st_size < 1_200_000


def test_the_model_of_the_demo_answers_all_test_rows_in_onnxruntime_as_in_the_library(
    demo: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    with pytest.raises(SystemExit) as stop:
        main(["export", str(demo[1] / "model"), "--onnx", "--out", str(tmp_path)])
    assert stop.value.code == 0, capsys.readouterr().err
    rows = load_demo().test.x[0]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    [logits] = session.run(["logits"], {"features": rows.float().numpy()})
    assert logits.shape == (10_000, 100)
    assert (logits.argmax(axis=1) == load(demo[1] / "model").head(rows).argmax(dim=1).numpy()).all()


def test_the_demo_writes_records_and_summaries(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    folder = demo[1]
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    rows = list(csv.DictReader((folder / "summary.csv").read_text().splitlines()))
    found = json.loads((folder / "comparison.json").read_text())
    # Every method as stated too, but the baseline; and logistic regression minus log prior, which is stated alone.
    assert len(records) == len(rows) == len(found["table"]) == 2 * len(demo_specs())
    assert [row["role"] for row in rows if row["method"] == "converged+logit_adjustment"] == ["recipe"]
    tuned = [record for record in records if record["role"] == "tuned"]
    assert len(tuned) == len(demo_specs()) - 1
    assert {record["selection"]["rule"] for record in tuned} == {"held_out"}
    assert {record["selection"]["rows"] for record in tuned} == {1971}
    assert max(record["selection"]["configurations"] for record in tuned) == 16
    assert len({record["test"] for record in records}) == 1
    baseline = next(row for row in rows if row["role"] == "baseline")
    # What experiments/results/stage1_ce_autoaugment_cifar100_lt.md states of the training that made the features.
    assert [f"{100 * float(baseline[key]):.2f}" for key in ("accuracy", "many", "medium", "few")] == [
        "44.10",
        "73.40",
        "41.94",
        "12.43",
    ]
    recommended = next(row for row in rows if row["recommended"] == "True")
    assert recommended["method"] == found["recommended"] == "logit_adjustment(tau=1.125)"
    assert f"{float(recommended['accuracy']):.4f}" == "0.5009"  # as the README says
    assert (folder / "summary.md").read_text().startswith("| method | tuned | stated |")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("methods", "losss"), "poise: no method is called 'losss', did you mean 'los'?; see `poise methods`\n"),
        (
            ("demo", "--set", "cifar"),
            "poise: --set must be one of cifar100lt_r32_autoaugment, cifar100lt_r32; got 'cifar'\n",
        ),
        (("demos",), "poise: No such command 'demos'. Did you mean 'demo'?; see `poise --help`\n"),
        (
            ("demo", "--sed", "1"),
            "poise: No such option: --sed (Possible options: --seed, --set); see `poise demo --help`\n",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: tuple[str, ...],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 2
    assert capsys.readouterr().err == sentence


def test_an_output_folder_that_is_a_file_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--out", str(tmp_path / "taken")])
    assert stop.value.code == 2
    assert "choose another folder with --out" in capsys.readouterr().err


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_so_and_leaves_no_half_result(sent: signal.Signals, code: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "poise", "demo"]
    # A shell that started the tests in the background made them ignore interrupts, and their children inherit that.
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        folder = tmp_path / "runs" / "demo" / "cifar100lt_r32_autoaugment"
        until = time.monotonic() + 60
        while not folder.exists() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.5)
        running.send_signal(sent)
        _, said = running.communicate()
    assert running.returncode == code
    *before, last = said.splitlines()
    assert last in ("poise: interrupted", "poise: terminated")
    assert all(line.startswith("note: ") for line in before)
    assert not folder.exists()


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m poise methods | head -n 1",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_a_terminal_without_unicode_gets_question_marks(tmp_path: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "poise", "methods"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_debug_shows_the_traceback_wherever_it_stands() -> None:
    done = run("methods", "losss", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_method_is_explained_with_its_parameters(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["methods", name])
    assert stop.value.code == 0
    page = capsys.readouterr().out
    assert all(f"{key} =" in page for key in methods.parameters(name))
    assert ("Options of training" in page) == methods.is_trained(name)


def test_what_fit_prints_can_be_looked_up(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["methods", "converged"])
    assert stop.value.code == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "weight_decay = 0.0001" in page
    assert "On memorised rows the optimum is far from the best head" in page


def test_methods_as_json_lists_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["methods", "--json"])
    assert set(json.loads(capsys.readouterr().out)) == set(methods.available())


def test_short_names_keep_own_parameters_and_mark_hidden_options() -> None:
    assert short_name("los(delta=0.9,lr=0.1)") == "los(delta=0.9,...)"
    assert short_name("crt+tau_norm(tau=0.5)") == "crt+tau_norm(tau=0.5)"
