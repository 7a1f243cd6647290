"""Verbs that write a folder: the old result or the new one, whole, and one run at a time."""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from poise.cli import main
from poise.machine.folders import SEAL, differences, sealed
from poise.machine.locks import claimed

Run = Callable[..., tuple[int, str, str]]
SIZES = (40, 20, 10)

# Verbs that write a finished result, what they write, and the files of it that must be there.
RESULTS = {
    "fit": ("fit", "train.csv", "-m", "ncm", "--unseen", "--held-out", "held.csv", "--out", "out"),
    "compare": ("compare", "train.csv", "--unseen", "--quick", "-m", "ncm", "--no-oracle", "--out", "out"),
    "tune": ("tune", "train.csv", "tau_norm", "--unseen", "--budget", "2", "--out", "out"),
    "audit": ("audit", "logits.npz", "--budget", "2", "--out", "out"),
    "export": ("export", "model", "--safetensors", "--hub", "--out", "out"),
    "report": ("report", "compared", "-f", "html,md,csv", "--out", "out"),
}
OTHERS = {
    "train": ("train", "small_images", "--data", "photos", "--out", "out"),
    "extract": ("extract", "convnet4", "--data", "photos", "--out", "out"),
    "fit images": ("fit", "photos", "--out", "out"),
    "study": ("tune", "train.csv", "tau_norm", "--unseen", "--study", "out"),
    "match": ("tune", "train.csv", "tau_norm", "--unseen", "--unlabelled", "held.csv", "--out", "out"),
    "demo": ("demo", "--out", "out"),
    "demo images": ("demo", "--images", "--out", "out"),
    "predict": ("predict", "model", "train.csv", "--out", "out.csv"),
    "rebalance": ("rebalance", "m.safetensors", "-f", "train.csv", "--out", "out.safetensors"),
}


def called(*words: str) -> int:
    """The exit code of the command line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SystemExit) as stop:
            main(list(words))
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, logits, pictures, a checkpoint; a model and a comparison made of the rows."""
    from safetensors.numpy import save_file

    from image_world import pictures

    folder = tmp_path_factory.mktemp("ein Ordner é")
    for seed, name in enumerate(("train", "held")):
        rng = np.random.default_rng(seed)
        y = np.repeat(np.arange(3), SIZES)
        x = rng.normal(size=(len(y), 4)) + 2 * np.eye(3, 4)[y]
        lines = [",".join([*map(str, row), "abc"[k]]) for row, k in zip(x.round(3).tolist(), y, strict=True)]
        (folder / f"{name}.csv").write_text("\n".join(["f0,f1,f2,f3,label", *lines]) + "\n")
    np.savez(folder / "logits.npz", logits=x[:, :3], labels=y, counts=np.array(SIZES))
    save_file(
        {"fc.weight": np.eye(3, 4, dtype=np.float32), "fc.bias": np.zeros(3, np.float32)}, folder / "m.safetensors"
    )
    pictures(folder / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words, out in ((RESULTS["fit"], "model"), (RESULTS["compare"], "compared")):
            assert called(*words[:-1], out) == 0
    return folder


@pytest.fixture
def poise_(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in a copy of the folder: (exit code, standard output, standard error)."""
    shutil.copytree(files, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")

    def run(*words: str) -> tuple[int, str, str]:
        code = called(*words)
        return code, *capsys.readouterr()

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("verb", [*RESULTS, *OTHERS])
def test_a_second_writer_is_refused_before_any_work(poise_: Run, verb: str) -> None:
    words = {**RESULTS, **OTHERS}[verb]
    place = Path(words[-1])
    before = content(Path())
    with claimed(place):
        held = content(Path())
        code, said, err = poise_(*words)
        assert content(Path()) == held
    assert (code, said) == (2, "")
    assert err.startswith(f"poise: {place} is in use by another run (process ")
    assert err.count("\n") == 1
    assert content(Path()) == before


def test_workers_of_one_study_work_together_and_nobody_else(poise_: Run) -> None:
    with claimed(Path("out"), together=True):
        assert poise_(*OTHERS["study"], "--budget", "2")[0] == 0
        assert differences(Path("out")) == []
        assert "out is in use by another run; wait" in poise_(*RESULTS["tune"])[2]
    assert not list(Path().glob(".*.lock"))


@pytest.mark.parametrize("verb", RESULTS)
def test_a_result_is_sealed_and_a_file_of_the_user_stays(poise_: Run, verb: str) -> None:
    words = RESULTS[verb]
    assert poise_(*words)[0] == 0
    Path("out/notes.txt").write_text("mine")
    first = set(content(Path("out")))
    assert set(sealed(Path("out"))) == first - {SEAL, "notes.txt"}
    assert poise_(*words)[0] == 0
    assert set(content(Path("out"))) == first
    assert Path("out/notes.txt").read_text() == "mine"
    assert differences(Path("out")) == []
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("verb", RESULTS)
def test_a_write_that_fails_leaves_the_old_result_whole(
    poise_: Run, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = RESULTS[verb]
    assert poise_(*words)[0] == 0
    before = content(Path("out"))
    for k in range(1, 12):
        with failing_at(k, monkeypatch) as done:
            code, _, err = poise_(*words)
        if len(done) < k:
            break
        assert code == 2, err
        assert "No space left on device" in err
        assert content(Path("out")) == before
        assert not [path for path in Path().iterdir() if path.name.startswith(".")]
    assert code == 0
    assert k > 1
    assert differences(Path("out")) == []


@contextmanager
def failing_at(k: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Within, the disk is full when the k-th file gets its place; the files that were begun are listed."""
    begun: list[Path] = []
    replace = Path.replace

    def replaced(self: Path, target: Path) -> Path:
        begun.append(target)
        if len(begun) == k:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replaced)
        yield begun


def test_a_new_model_has_no_report_of_an_old_one_beside_it(poise_: Run) -> None:
    assert poise_(*RESULTS["fit"])[0] == 0
    first = set(content(Path("out")))
    assert poise_("report", "out", "-f", "md,csv")[0] == 0
    assert set(content(Path("out"))) == first | {"report.md", "methods.csv", "classes.csv"}
    assert poise_(*RESULTS["fit"])[0] == 0
    assert set(content(Path("out"))) == first


def test_a_model_and_a_comparison_in_one_folder_leave_each_other(poise_: Run) -> None:
    assert poise_(*RESULTS["compare"])[0] == 0
    compared = set(content(Path("out")))
    assert poise_("fit", "train.csv", "-m", "ncm", "--unseen", "--out", "out")[0] == 0
    assert set(content(Path("out"))) == compared | {"head.safetensors", "model.json"}
    assert poise_(*RESULTS["compare"])[0] == 0
    assert set(content(Path("out"))) == compared | {"head.safetensors", "model.json"}
    assert differences(Path("out")) == []


def test_a_first_result_that_fails_leaves_no_folder(poise_: Run) -> None:
    assert poise_("fit", "nothing.csv", "--out", "new")[0] == 2
    assert not Path("new").exists()
    assert not list(Path().glob(".new*"))


def test_the_current_folder_takes_a_first_result_and_a_report_but_no_second_result(
    poise_: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("here").mkdir()
    monkeypatch.chdir("here")
    words = tuple(f"../{word}" if word.endswith(".csv") else word for word in RESULTS["compare"][:-1])
    assert poise_(*words, ".")[0] == 0
    assert differences(Path()) == []
    assert poise_("report", ".", "-f", "md")[0] == 0
    assert "report.md" in sealed(Path())
    before = content(Path())
    code, _, err = poise_(*words, ".")
    assert code == 2
    assert "cannot be replaced as a whole: it is a mounted folder or the current one" in err
    assert content(Path()) == before


def test_a_name_that_is_not_utf_8_is_refused_before_anything_is_written(poise_: Run) -> None:
    strange = os.fsdecode(b"a\xff")
    Path("photos/ant").rename(f"photos/{strange}")
    for words, said in (
        (OTHERS["train"], r"photos/a\udcff is not UTF-8; rename it"),
        (OTHERS["fit images"], r"photos/a\udcff is not UTF-8; rename it"),
        (OTHERS["extract"], r"photos/a\udcff is not UTF-8; rename it"),
        ((*RESULTS["fit"][:-1], strange), r"the name of a\udcff is not UTF-8"),
        ((*OTHERS["predict"][:-1], f"{strange}.csv"), r"the name of a\udcff.csv is not UTF-8"),
    ):
        before = content(Path())
        code, _, err = poise_(*words)
        assert (code, said in err) == (2, True), err
        assert err.count("\n") == 1
        assert content(Path()) == before


def test_files_of_the_user_with_any_name_are_carried(poise_: Run) -> None:
    assert poise_(*RESULTS["fit"])[0] == 0
    strange = Path("out") / os.fsdecode(b"x\xff") / os.fsdecode(b"\xfe.txt")
    strange.parent.mkdir()
    strange.write_text("mine")
    assert poise_(*RESULTS["fit"])[0] == 0
    assert strange.read_text() == "mine"


def test_another_model_is_no_place_for_an_export(poise_: Run) -> None:
    assert poise_("fit", "held.csv", "-m", "ncm", "--unseen", "--out", "out")[0] == 0
    before = content(Path("out"))
    code, _, err = poise_("export", "model", "--out", "out")
    assert (code, err) == (
        2,
        "poise: out holds a model, which an export would mix with; choose another folder with --out\n",
    )
    assert content(Path("out")) == before
