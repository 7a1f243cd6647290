"""Torn environments: each command works, or says one sentence and ends with code 2; nothing is half written."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hostile_report import sample
from poise.machine.folders import SEAL

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the devices of Linux")

NOTE = "note: 4 cells begin like a formula"
VERBS = {
    "help": ["--help"],
    "version": ["--version"],
    "report": ["report", "run", "--format", "csv,md", "--out", "made"],
}
REFUSED = ["report", "nowhere"]
SAID = "poise: there is no file or folder nowhere\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the report of a run."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.json").write_text(sample().to_json(), encoding="utf-8")
    return tmp_path


def poise(place: Path, words: list[str], before: Callable[[], Any] | None = None, **more: Any) -> tuple[int, str, str]:
    """Exit code, output and errors of a command in its own process, after `before` was called in it."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, **more.pop("environment", {})}
    command = [sys.executable, *more.pop("python", ()), "-m", "poise", *words]
    done = subprocess.run(
        command, cwd=place, env=environment, preexec_fn=before, timeout=100, check=False, **{**streams, **more}
    )
    return done.returncode, *(text.decode("utf-8", "replace") if text else "" for text in (done.stdout, done.stderr))


def closing(*numbers: int) -> Callable[[], None]:
    return lambda: [os.close(number) for number in numbers] and None


def whole(place: Path) -> bool:
    """Are all files of the report there, and nothing else?"""
    return sorted(path.name for path in (place / "made").iterdir()) == [SEAL, "classes.csv", "methods.csv", "report.md"]


# --- standard streams -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_streams_change_neither_the_exit_code_nor_what_is_written(place: Path, numbers: tuple[int, ...]) -> None:
    code, out, err = poise(place, VERBS["report"], closing(*numbers))
    assert (code, whole(place)) == (0, True)
    assert out.startswith("wrote made/report.md") == (1 not in numbers)
    assert err.startswith(NOTE) == (2 not in numbers)
    assert poise(place, REFUSED, closing(*numbers)) == (2, "", "" if 2 in numbers else SAID)


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_behind_the_output_is_one_sentence(place: Path, verb: str) -> None:
    with open("/dev/full", "w") as full:
        code, _, err = poise(place, VERBS[verb], stdout=full)
    assert code == 2
    assert [line for line in err.splitlines() if not line.startswith(NOTE)] == ["poise: No space left on device"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_behind_the_errors_stops_no_work(place: Path, verb: str) -> None:
    with open("/dev/full", "w") as full:
        assert poise(place, VERBS[verb], stderr=full)[0] == 0
        assert poise(place, REFUSED, stderr=full)[0] == 2


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_has_gone_is_no_error(place: Path, verb: str, stream: str) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    code, _, err = poise(place, VERBS[verb], **{stream: writes})
    os.close(writes)
    assert code == 0
    assert [line for line in err.splitlines() if not line.startswith(NOTE)] == []


# --- variables, limits and places -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environment",
    [
        {"COLUMNS": "1", "TERM": "dumb"},
        {"COLUMNS": "0"},
        {"COLUMNS": "-5"},
        {"COLUMNS": "x"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "tr_TR.UTF-8"},
        {"PYTHONIOENCODING": "ascii"},
        {"HOME": "/nonexistent", "XDG_CACHE_HOME": "/proc/x", "MPLCONFIGDIR": "/proc/x", "TORCH_HOME": "/proc/x"},
        {"TZ": "Mars/Phobos", "SOURCE_DATE_EPOCH": "x"},
        {"TMPDIR": "/nonexistent"},
        {"PYTHONWARNINGS": "error"},
        {"PYTHONWARNINGS": "x"},
        {"PATH": "/nonexistent"},
        {"OMP_NUM_THREADS": "x"},
    ],
    ids=lambda given: " ".join(f"{name}={value}" for name, value in given.items()),
)
def test_variables_that_mean_nothing_change_no_file(place: Path, environment: dict[str, str]) -> None:
    assert poise(place, VERBS["report"], environment=environment)[0] == 0
    assert whole(place)
    code, _, err = poise(place, REFUSED, environment=environment)
    assert code == 2
    assert err.endswith(SAID)


@pytest.mark.parametrize("python", [["-O"], ["-OO"], ["-W", "error"]])
def test_switches_of_python_change_no_file(place: Path, python: list[str]) -> None:
    assert poise(place, VERBS["report"], python=python)[0] == 0
    assert whole(place)


def test_a_limit_on_the_size_of_files_is_one_sentence_and_the_old_file_stays(place: Path) -> None:
    (place / "made").mkdir()
    (place / "made" / "report.md").write_text("old")
    code, out, err = poise(place, VERBS["report"], lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)))
    assert (code, out) == (2, "")
    assert err.startswith("poise: cannot write made/report.md (")
    assert err.endswith(" bytes): File too large\n")
    assert [(path.name, path.read_text()) for path in (place / "made").iterdir()] == [("report.md", "old")]


def test_too_little_memory_for_a_library_is_one_sentence(place: Path) -> None:
    code, out, err = poise(place, ["methods"], lambda: resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20)))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(("poise: a library cannot be loaded (", "poise: there is too little memory; "))


@pytest.mark.parametrize(("said", "kept"), [("garbage", None), ("", None), ("-1", None), ("1700000000", "1700000000")])
def test_a_date_that_is_no_number_is_kept_from_libraries_that_stumble_over_it(said: str, kept: str | None) -> None:
    program = "import os\nfrom poise.cli import main\ntry: main(['--version'])\n"
    program += "except SystemExit: print(os.environ.get('SOURCE_DATE_EPOCH'))"
    environment = {**os.environ, "SOURCE_DATE_EPOCH": said}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == [str(kept)]


def test_few_file_handles_are_enough_for_a_report(place: Path) -> None:
    assert poise(place, VERBS["report"], lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20)))[0] == 0
    assert whole(place)


def test_a_strict_umask_leaves_readable_files(place: Path) -> None:
    (place / "made").mkdir()
    assert poise(place, VERBS["report"], lambda: os.umask(0o777))[0] == 0
    assert {path.stat().st_mode & 0o777 for path in (place / "made").iterdir()} == {0o644}
