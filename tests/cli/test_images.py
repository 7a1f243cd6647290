"""The verbs on images as a person meets them: train, extract, fit, predict, and what they say of mistakes."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from image_world import SIDE, SIZES, changed, pictures, table
from poise.cli import main
from poise.commands.config import load_config, recipes
from poise.data.store.feature_store import load_features
from poise.data.store.manifest import read_manifest
from poise.machine.locks import Wish, claimed

Run = Callable[..., tuple[int, str, str]]


UNTRAINED = "warning: convnet4 is not trained: its features are those of random weights; give --weights FILE\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a finished run and a fitted model, which tests only add to; its name is not friendly."""
    folder = tmp_path_factory.mktemp("ein Ordner é 100% 🐈")
    pictures(folder / "photos")
    pictures(folder / "more", {"bee": 2, "cat tail": 1}, seed=3)
    table(folder / "table.csv", folder / "photos", columns=("picture", "kind", "site"))
    (folder / "paths.csv").write_text("file,f0\nimg_0848.jpg,1\n")
    (folder / "texts.csv").write_text("question,intent\nhow,a\nwhy,b\n")
    here = Path.cwd()
    os.chdir(folder)
    try:
        for words in (
            ("train", "small_images", "--data", "photos", "--out", "run"),
            ("fit", "photos", "--out", "model"),
        ):
            with pytest.raises(SystemExit) as stop:
                main([*words, *changed()])
            assert stop.value.code == 0
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def poise_(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in the folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(world)
    capsys.readouterr()

    def run(*words: object) -> tuple[int, str, str]:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            with pytest.raises(SystemExit) as stop:
                main([str(word) for word in words])
        said = capsys.readouterr()
        return int(str(stop.value.code)), said.out, said.err

    return run


def refusal(said: tuple[int, str, str]) -> str:
    """The one sentence of a refusal."""
    code, _, err = said
    assert code == 2, said
    assert err.startswith("poise: ")
    assert err.count("\n") == 1
    return err.removeprefix("poise: ").rstrip("\n")


def train(poise_: Run, out: object, *more: str, data: str = "photos") -> tuple[int, str, str]:
    return poise_("train", "small_images", "--data", data, "--out", out, *changed(), *more)


# --- train ------------------------------------------------------------------------------------------------------------


def test_without_a_recipe_all_are_listed_within_80_columns(poise_: Run) -> None:
    code, out, _ = poise_("train")
    assert code == 0
    assert all(name in out for name in recipes() if len(name) < 38)
    assert max(map(len, out.splitlines())) <= 80
    assert json.loads(poise_("train", "--json")[1]) == dict(recipes())


@pytest.mark.parametrize("verb", ["train", "extract", "fit", "predict"])
def test_help_flows_within_80_columns(poise_: Run, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = poise_(verb, "--help")
    assert code == 0
    prose = [line for line in out[: out.index("Arguments:")].splitlines() if line]
    assert max(map(len, prose)) <= 80
    # A line ends early only at the end of a paragraph, which a full stop or colon shows.
    assert all(
        len(line) > 55 or line.endswith((".", "...`", "{rows}", "{model}", "{train}", "[recipe]")) for line in prose
    )


def test_a_dry_run_prints_the_settings_and_writes_nothing(poise_: Run, world: Path) -> None:
    code, out, err = train(poise_, "dry", "--dry-run")
    assert code == 0
    assert "size: 16" in out
    assert "note: split hash: " in err
    (world / "kept.yaml").write_text(out)
    assert load_config(world / "kept.yaml").backbone.size == 16
    assert not (world / "dry").exists()
    found = json.loads(train(poise_, "dry", "--dry-run", "--json")[1])
    assert found["config"]["stage1"]["batch_size"] == 8
    assert found["split"] in err


def test_a_run_says_what_it_reached_and_what_comes_next(poise_: Run, world: Path) -> None:
    code, out, err = train(poise_, "run")
    assert (code, err) == (0, "")
    assert "train: the split 'train' of 36 samples" in out
    assert "stage 1, top-1 in per cent" in out
    assert "next: poise compare run" in out
    assert [line for line in out.splitlines() if line.startswith("wrote ")] == [
        f"wrote run/{name}"
        for name in (
            "config.yaml",
            "environment.json",
            "split.json",
            "features/train",
            "features/held_out",
            "features/test",
            "stage1.json",
        )
    ]
    told = json.loads(train(poise_, "run", "--json")[1])
    assert told["stage1"] == json.loads((world / "run" / "stage1.json").read_text())
    quiet = train(poise_, "run", "--quiet")
    assert all(line.startswith("wrote ") for line in quiet[1].splitlines())
    assert quiet[2] == ""


def test_the_resolved_configuration_is_a_recipe_and_gives_the_same_bits(poise_: Run, world: Path) -> None:
    assert poise_("train", "run/config.yaml", "--out", "again", "-q")[0] == 0
    for part in ("train", "held_out", "test"):
        assert read_manifest(world / "again/features" / part).key == read_manifest(world / "run/features" / part).key
    name = "representation/head.safetensors"
    assert (world / "again" / name).read_bytes() == (world / "run" / name).read_bytes()


def test_a_yaml_file_is_read_from_its_own_folder(poise_: Run, world: Path) -> None:
    (world / "recipes").mkdir()
    (world / "recipes" / "mine.yaml").write_text("data:\n  train: ../photos\nbackbone: {name: convnet4, size: 16}\n")
    code, out, _ = poise_("train", "recipes/mine.yaml", "--dry-run", "-s", "stage1.epochs=7")
    assert code == 0
    assert f"train: {world / 'photos'}" in out
    assert "epochs: 7" in out


def test_a_stopped_run_exits_143_and_the_same_command_ends_it(
    poise_: Run, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter([False, False, True])
    with monkeypatch.context() as patched:
        patched.setattr(Wish, "__call__", lambda wish: next(calls))
        code, _, err = train(poise_, "stopped")
    assert code == 143
    assert err == "poise: stopped after step 3 of 4, which is saved; the same command goes on from there\n"
    said = refusal(poise_("extract", "stopped", "--data", "more", "--out", "never"))
    assert said == "stopped holds no finished training; run `poise train` again to finish it"
    assert train(poise_, "stopped", "-q")[0] == 0
    for part in ("train", "held_out", "test"):
        assert read_manifest(world / "stopped/features" / part).key == read_manifest(world / "run/features" / part).key


def is_begun(folder: Path) -> None:
    """Wait until a training that saves every step is under way."""
    until = time.monotonic() + 60
    while not (folder / "checkpoint.pt").exists() and time.monotonic() < until:
        time.sleep(0.02)


def assert_saved(said: str, folder: Path) -> None:
    step = torch.load(folder / "checkpoint.pt", weights_only=True)["step"]
    *notes, last = said.splitlines()  # a busy machine says how long it will take
    assert last == f"poise: stopped after step {step} of 8000, which is saved; the same command goes on from there"
    assert all(note.startswith("note: training (images): ") for note in notes)


LONG = changed("stage1.epochs=2000", "checkpoint_seconds=0")


def test_a_terminated_training_saves_the_step_and_exits_143(poise_: Run, world: Path) -> None:
    def terminate() -> None:
        is_begun(world / "terminated")
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=terminate)
    killer.start()
    code, _, err = poise_("train", "small_images", "--data", "photos", *LONG, "--out", "terminated")
    killer.join()
    assert code == 143
    assert_saved(err, world / "terminated")


def test_an_interrupted_program_saves_the_step_and_exits_130(world: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "poise", "train", "small_images", "--data", "photos", *LONG, "--out", "interrupted"],
        cwd=world,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # A shell that started the tests in the background made them ignore interrupts, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        is_begun(world / "interrupted")
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert_saved(said, world / "interrupted")


def test_changed_settings_are_refused_by_name_and_the_run_stays_as_it_was(poise_: Run, world: Path) -> None:
    before = (world / "run" / "config.yaml").read_bytes()
    said = refusal(train(poise_, "run", "-s", "stage1.lr=0.01"))
    assert said == (
        "run/representation came about otherwise: lr was 0.1 and is now 0.01; state the same, choose another folder, "
        "or delete it"
    )
    assert (world / "run" / "config.yaml").read_bytes() == before


def test_other_settings_go_on_where_they_are_allowed(poise_: Run, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Wish, "__call__", lambda wish: True)
        assert train(poise_, "allowed")[0] == 143
    said = refusal(train(poise_, "allowed", "-s", "stage1.lr=0.01"))
    assert "begun otherwise: lr was 0.1 and is now 0.01" in said
    assert "lr: 0.1\n" in (world / "allowed" / "config.yaml").read_text()
    assert train(poise_, "allowed", "-s", "stage1.lr=0.01", "--allow-changed", "-q")[0] == 0
    assert "lr: 0.01\n" in (world / "allowed" / "config.yaml").read_text()


def test_two_runs_in_one_folder_are_refused(poise_: Run, world: Path) -> None:
    (world / "busy").mkdir()
    with claimed(world / "busy"):
        for said in (train(poise_, "busy"), poise_("fit", "photos", "--out", "busy", *changed(), "-q")):
            assert refusal(said).startswith(f"busy is in use by another run (process {os.getpid()} on ")
        assert "in use" in refusal(poise_("extract", "run", "--data", "more", "--out", "busy"))


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_read(poise_: Run, world: Path) -> None:
    (world / "taken").write_text("")
    for words in (("train", "small_images", "--data", "photos"), ("fit", "photos"), ("extract", "run")):
        said = refusal(poise_(*words, "--out", "taken"))
        assert said == "cannot write into taken (File exists); choose another folder with --out"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("small_imags",), "small_imags is neither a file nor a recipe, did you mean 'small_images'?"),
        (("small_images",), "data.train is not given; add -s data.train=PATH"),
        (("small_images", "--data", "photo"), "there is no file or folder {here}/photo, did you mean 'photos'?"),
        (("small_images", "-s", "epochs=1"), "-s epochs=1: there is no key 'epochs', did you mean 'stage1.epochs'?"),
        (
            ("small_images", "-s", "stage1.lr"),
            "-s stage1.lr has no value; write -s KEY=VALUE, such as -s stage1.lr=0.05",
        ),
        (
            ("small_images", "--data", "photos", "-s", "backbone.name=convnet5"),
            "there is no backbone 'convnet5'; near it are convnet4, ",
        ),
        (
            ("small_images", "--data", "table.csv"),
            "{here}/table.csv has no column that is called image or path; name the column of the images (--image, or "
            "-s data.image=NAME) or of the texts (--text, or -s data.text=NAME); its columns are 'picture', 'kind', "
            "'site'",
        ),
        (
            ("small_images", "--data", "table.csv", "-s", "data.image=picture", "-s", "data.label=kin"),
            "{here}/table.csv has no column 'kin', did you mean 'kind'? its columns are 'picture', 'kind', 'site'",
        ),
        (
            ("small_images", "--data", "texts.csv", "-s", "data.text=question", "-s", "data.label=intent"),
            "",
        ),
        (
            ("small_images", "--data", "photos", "-s", "device=cuda:99"),
            "device cuda:99 was asked for, and this machine has ",
        ),
    ],
)
def test_a_mistake_in_training_is_one_sentence(
    poise_: Run, world: Path, words: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    said = refusal(poise_("train", *words, "--out", tmp_path / "out"))
    assert said.startswith(sentence.replace("{here}", str(world)))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("stage1: {epochs: ten}", 'stage1.epochs must be a whole number; got "ten"'),
        ("stage1: {epochs: yes}", 'stage1.epochs must be a whole number; got "yes"'),
        ("stag1: {}", "a configuration has no key 'stag1', did you mean 'stage1'?"),
        ("data: {train: photos}\ndata: {}", ", line 2: the key 'data' is given twice; keep one of them"),
        ("data: [1", " is not YAML: line "),
        ("data: !!python/object:os.system {}", "the tag "),
        ("- 1", " holds no mapping of keys; write lines such as 'workers: 4'"),
    ],
)
def test_a_mistake_in_a_yaml_file_is_one_sentence_with_its_place(
    poise_: Run, world: Path, text: str, sentence: str
) -> None:
    (world / "wrong.yaml").write_text(text)
    said = refusal(poise_("train", "wrong.yaml", "--out", "of wrong"))
    assert said.startswith("wrong.yaml")
    assert sentence in said
    assert not (world / "of wrong").exists()


# --- extract ----------------------------------------------------------------------------------------------------------


def test_a_run_its_representation_and_a_name_give_features(poise_: Run, world: Path) -> None:
    for model, out in (("run", "x1"), ("run/representation", "x2"), ("convnet4", "x3")):
        code, said, err = poise_("extract", model, "--data", "photos", "--out", out)
        assert code == 0
        assert said == f"train of photos\nwrote {out}/train\n"
        known = "warning: 25 of 36 samples of train trained the backbone, the others not\n"
        assert err == (known if model != "convnet4" else UNTRAINED)
    one, two, three = (load_features(world / out / "train") for out in ("x1", "x2", "x3"))
    assert torch.equal(one.x, two.x)
    assert one.seen_by_backbone is True
    assert three.seen_by_backbone is None


def test_the_samples_of_a_run_are_extracted_again_with_more_views(poise_: Run, world: Path) -> None:
    words = ("extract", "run", "--views", "2", "--flip", "--dtype", "float32", "--out", "views")
    code, said, _ = poise_(*words)
    assert code == 0
    assert said.startswith("train, held_out, test of run\n")
    stores = {part: load_features(world / "views" / part) for part in ("train", "held_out", "test")}
    assert {part: (rows.x.shape[0], rows.seen_by_backbone) for part, rows in stores.items()} == {
        "train": (4, True),
        "held_out": (4, False),
        "test": (4, False),
    }
    first = load_features(world / "run/features/test").x[0]
    torch.testing.assert_close(stores["test"].x[0].half(), first.half())
    # Once more: finished stores are kept, other views are refused.
    stamp = (world / "views/train/manifest.json").stat().st_mtime_ns
    assert poise_(*words)[0] == 0
    assert (world / "views/train/manifest.json").stat().st_mtime_ns == stamp
    said = refusal(poise_("extract", "run", "--views", "3", "--out", "views"))
    assert "views/train holds other features: dtype is 'float32' there and 'float16' now" in said


def test_an_interrupted_store_is_finished(poise_: Run, world: Path) -> None:
    assert poise_("extract", "run", "--data", "more", "--out", "half", "-q")[0] == 0
    key = read_manifest(world / "half/train").key
    body = read_manifest(world / "half/train").provenance
    (world / "half/train/manifest.json").unlink()
    (world / "half/train/extracting.json").write_text(json.dumps(body["extraction"]))
    shard = world / "half/train/00000.safetensors"
    stamp = shard.stat().st_mtime_ns
    assert poise_("extract", "run", "--data", "more", "--out", "half", "-q")[0] == 0
    assert read_manifest(world / "half/train").key == key
    assert shard.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("rnu", "--data", "more"), "there is no backbone 'rnu'"),
        (
            ("runs/a", "--data", "more"),
            "there is no folder runs/a; give a run of `poise train`, or the name of a backbone",
        ),
        (("convnet4",), "convnet4 is no run of `poise train`, so its samples are not known; name them with --data"),
        (
            ("run", "--data", "texts.csv", "--text", "question", "--label", "intent"),
            "texts.csv, line 2: 'a' is none of the 3",
        ),
        (("sentence:minilm", "--data", "more"), "backbone sentence:minilm reads texts, more/bee/000.png is no text"),
        (("run", "--dtype", "float8"), "extraction: dtype must be one of float16, bfloat16, float32, got 'float8'"),
        (("run", "--view", "1"), "No such option: --view"),
    ],
)
def test_a_mistake_in_extraction_is_one_sentence(
    poise_: Run, words: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    assert refusal(poise_("extract", *words, "--out", tmp_path / "out")).startswith(sentence)


# --- the heads of a run -----------------------------------------------------------------------------------------------


def test_a_run_is_compared_tuned_and_fitted_with_its_own_held_out_rows(poise_: Run) -> None:
    code, out, _ = poise_("compare", "run", "-m", "tau_norm", "--budget", 2, "--no-oracle", "--out", "c")
    assert code == 0
    assert "settings: chosen by balanced_accuracy on held_out: 4 labelled rows" in " ".join(out.split())
    assert poise_("tune", "run", "tau_norm", "--budget", 2, "--out", "t", "-q")[0] == 0
    assert poise_("inspect", "run", "-q")[0] == 0
    code, out, _ = poise_("fit", "run", "--method", "tau_norm", "--coverage", 0.9, "--out", "of_run", "--json")
    assert code == 0
    assert json.loads(out)["method"].startswith("tau_norm")
    assert poise_("predict", "of_run", "run/features/test", "--out", "rows.csv", "-q")[0] == 0


def test_a_model_is_fitted_into_its_run_and_then_predicts_images(poise_: Run, world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "run", tmp_path / "run")
    code, out, _ = poise_("fit", tmp_path / "run", "-m", "tau_norm", "--out", tmp_path / "run")
    assert code == 0
    assert "MORE" in out
    assert poise_("predict", tmp_path / "run", "more", "--out", tmp_path / "p.csv", "-q")[0] == 0


def test_a_model_of_rows_is_not_written_beside_a_backbone(poise_: Run, world: Path) -> None:
    before = (world / "model/model.json").read_bytes()
    said = refusal(poise_("fit", "run", "--out", "model"))
    assert said == "model holds a backbone with a model of its own; choose another folder with --out"
    assert (world / "model/model.json").read_bytes() == before


def test_damage_in_any_part_of_a_run_is_found(poise_: Run, world: Path, tmp_path: Path) -> None:
    code, out, _ = poise_("check", "run", "model")
    assert (code, re.sub("[0-9a-f]{64}", "*", out)) == (
        0,
        "run: run, intact\ndigest: sha256:*\nmodel: run, intact\ndigest: sha256:*\n",
    )
    folder = tmp_path / "model"
    shutil.copytree(world / "model", folder)
    for name in ("head.safetensors", "features/test/00000.safetensors", "representation/backbone.safetensors"):
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)
    code, out, err = poise_("check", folder)
    assert (code, "".join(out.split())) == (2, f"{folder}:run,3problems")
    for name in ("head.safetensors", "00000.safetensors", "backbone.safetensors"):
        assert name in err
    shutil.rmtree(folder / "representation")
    missing = "SHA256SUMS cannot be read: No such file or directory; restore it from a copy"
    assert missing in refusal(poise_("check", folder, "-q"))
    (folder / "SHA256SUMS").unlink()  # as an earlier version left it
    missing = "holds no finished representation; restore the folder from a copy, or train again"
    assert missing in refusal(poise_("check", folder, "-q"))


# --- fit and predict --------------------------------------------------------------------------------------------------


def test_one_command_fits_and_another_predicts_by_name(poise_: Run, world: Path) -> None:
    code, out, err = poise_("fit", "photos", "--out", "model", *changed())
    assert (code, err.splitlines()) == (
        0,
        [
            "note: model holds an earlier result, which this one replaces (--out keeps both)",
            "note: only 7 test rows: intervals are wide; give more before reading the table",
        ],
    )
    assert out.startswith("photos: 3 classes\n  train: the split 'train' of 36 samples\n")
    assert "recipe: small_images; backbone: convnet4" in out
    assert "the model on the test split, in per cent" in out
    assert out.endswith("wrote model\n")
    code, out, _ = poise_("predict", "model", "more", "--out", "p.csv")
    assert code == 0
    assert out.startswith("3 rows\n")
    with (world / "p.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["sample"] for row in rows] == ["more/bee/000.png", "more/bee/001.png", "more/cat tail/000.png"]
    assert list(rows[0]) == ["sample", "prediction", "confidence", *(f"p({name})" for name in SIZES)]
    assert {row["prediction"] for row in rows} <= set(SIZES)
    assert poise_("predict", "model", "more/bee/000.png", "--top", 2, "--out", "one.csv")[1].startswith("1 row\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "a uniform class prior"),
        (("--prior", "train"), "the class frequencies of the training rows (prior train)"),
    ],
)
def test_the_prior_that_a_head_was_made_for_is_said_beside_it(
    poise_: Run, world: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    shutil.copytree(world / "model", tmp_path / "m")
    code, out, _ = poise_("fit", "photos", "--out", tmp_path / "m", *changed(), "-m", "stage1", *options)
    assert code == 0
    assert f"\nwritten: stage1, for {words}\n" in out


def test_a_run_that_goes_on_replaces_nothing(poise_: Run, world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "model", tmp_path / "m")
    (tmp_path / "m" / "model.json").unlink()
    code, _, err = poise_("fit", "photos", "--out", tmp_path / "m", *changed())
    assert (code, "earlier result" in err) == (0, False)


def test_json_is_one_value_and_quiet_is_paths(poise_: Run) -> None:
    code, out, err = poise_("fit", "photos", "--out", "model", *changed(), "--json")
    assert code == 0
    found = json.loads(out)
    assert set(found) == {"method", "classes", "path", "test", "comparison", "unseen_recall", "promise"}
    assert found["promise"] is None  # the held-out rows chose the head, by an amount that is not known
    assert found["test"]["rows"] == 7
    assert all(line.startswith(("wrote ", "note: only 7 test rows")) for line in err.splitlines())
    code, out, err = poise_("fit", "photos", "--out", "model", *changed(), "--quiet")
    assert err == ""
    assert all(line.startswith("wrote ") for line in out.splitlines())


@pytest.mark.parametrize(
    "options",
    [
        ("--image", "picture", "--label", "kind", "--groups", "site"),
        ("-s", "data.image=picture", "-s", "data.label=kind", "-s", "data.group=site"),
    ],
    ids=["options", "keys"],
)
def test_a_table_is_fitted_by_the_names_of_its_columns(
    poise_: Run, world: Path, options: tuple[str, ...], tmp_path: Path
) -> None:
    assert poise_("fit", "table.csv", *options, *changed(), "--out", tmp_path / "m", "-q")[0] == 0
    split = json.loads((tmp_path / "m" / "split.json").read_text())["parts"]
    sites = {part: {row // 4 for row in rows["rows"]} for part, rows in split.items()}
    assert not sites["train"] & sites["test"]
    assert not sites["train"] & sites["held_out"]
    predicted = poise_("predict", tmp_path / "m", "table.csv", "--image", "picture", "--out", tmp_path / "p.csv", "-q")
    assert predicted[0] == 0


def test_a_list_file_is_fitted_and_predicted_with_the_folder_of_its_images(
    poise_: Run, world: Path, tmp_path: Path
) -> None:
    lines = [f"photos/{name}/{i:03d}.png {k}\n" for k, (name, size) in enumerate(SIZES.items()) for i in range(size)]
    (tmp_path / "list.txt").write_text("".join(lines))
    said = refusal(poise_("fit", tmp_path / "list.txt", "--out", tmp_path / "m"))
    assert said == (
        "the folder of photos/ant/000.png is not known; give the folder of the images (--root, or -s data.root=FOLDER)"
    )
    for options in (("--root", "."), ("-s", "data.root=.")):
        assert poise_("fit", tmp_path / "list.txt", *options, *changed(), "--out", tmp_path / "m", "-q")[0] == 0
    done = poise_("predict", tmp_path / "m", tmp_path / "list.txt", "--root", ".", "--out", tmp_path / "p.csv")
    assert done[1].startswith("36 rows\n")


def test_an_empty_class_is_warned_of_and_kept(poise_: Run, world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "photos", tmp_path / "data")
    (tmp_path / "data" / "dog").mkdir()
    code, _, err = poise_("fit", tmp_path / "data", *changed(), "--out", tmp_path / "m", "-q")
    assert code == 0
    assert err.count("'dog'") == err.count("\n") == 2
    assert json.loads((tmp_path / "m" / "model.json").read_text())["class_names"] == ["ant", "bee", "cat tail", "dog"]


def test_names_of_every_kind_come_through(poise_: Run, tmp_path: Path) -> None:
    names = ("100% _%s", "ß 日本 😀", "x" * 200)
    data = pictures(tmp_path / "Фото % é", dict.fromkeys(names, 8))
    code, out, err = poise_("fit", data, *changed(), "--out", tmp_path / "möd el%s")
    assert (code, err) == (0, "note: only 6 test rows: intervals are wide; give more before reading the table\n")
    assert f"\nnext: poise predict '{tmp_path}/möd el%s' MORE\n" in out
    assert poise_("predict", tmp_path / "möd el%s", data, "--out", tmp_path / "ü.csv", "-q")[0] == 0
    header = (tmp_path / "ü.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "sample,prediction,confidence," + ",".join(f"p({name})" for name in sorted(names))


@pytest.mark.parametrize("name", ["2024", "photos #1", "a: b", "[x]", "true", "'q'", 'q"', "null", "x\\n"])
def test_a_folder_may_be_called_what_yaml_takes_for_something_else(poise_: Run, world: Path, name: str) -> None:
    folder = world / name
    folder.symlink_to(world / "photos")
    config = json.loads(train(poise_, "dry", "--dry-run", "--json", data=name)[1])["config"]
    assert config["data"]["train"] == str(folder)


def test_a_broken_image_is_named_or_left_out(poise_: Run, world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "photos", tmp_path / "data")
    (tmp_path / "data/bee/003.png").write_text("<html>")
    said = refusal(poise_("fit", tmp_path / "data", *changed(), "--out", tmp_path / "m", "-q"))
    assert said.startswith(f"{tmp_path}/data/bee/003.png is no image: it holds a web page")
    assert "--broken skip" in said
    for i, asked in enumerate((changed("data.broken=skip"), (*changed(), "--broken", "skip"))):
        skipped = poise_("fit", tmp_path / "data", *asked, "--out", tmp_path / f"n{i}", "-q")
        assert skipped[0] == 0, skipped
        assert "1 image is broken and left out of 36" in skipped[2]
    assert "skip" in refusal(poise_("fit", tmp_path / "data", *changed(), "--broken", "maybe", "--out", tmp_path / "x"))
    found = json.loads(train(poise_, "dry", "--dry-run", "--json", "--broken", "skip", data=str(tmp_path / "data"))[1])
    assert found["config"]["data"]["broken"] == "skip"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("photo",), "there is no file or folder photo, did you mean 'photos'?"),
        (
            ("photos", "--recipe", "smal_images"),
            "smal_images is neither a file nor a recipe, did you mean 'small_images'?",
        ),
        (("photos", "-s", "data.labl=x"), "-s data.labl=x: there is no key 'data.labl', did you mean 'data.label'?"),
        (("photos", "-m", "tau_nrm"), "no method is called 'tau_nrm', did you mean 'tau_norm'?; see `poise methods`"),
        (("photos", "--top-k", "4"), "top_k must be at most 3, the number of classes, got 4"),
        (
            ("photos", "-s", "data.held_out_rows=0"),
            "heads are chosen and calibrated on samples that trained nothing; set some aside (data.held_out_rows ",
        ),
        (
            ("photos", "--prior", "unform"),
            "--prior must be uniform, train or a .json file {class name: share}; got 'unf",
        ),
        (
            ("photos", "--held-out", "more"),
            "--costs, --head and --held-out are for feature rows; name held-out images with -s data.held_out=PATH",
        ),
        (
            ("photos", "--seen"),
            "--seen is for feature rows; where the weights know these samples by heart, give the weights (-s backb",
        ),
        (
            ("texts.csv", "--text", "question"),
            "texts.csv has no column that is called label or class; name the right one (--label, or -s data.label=",
        ),
        (
            ("texts.csv", "--label", "intent"),
            "texts.csv has no numeric column for features; its columns are 'question', 'intent'; for images or texts, "
            "name their column with --image or --text",
        ),
        (
            ("run/features/test", "--backbone", "convnet4"),
            "--recipe, --backbone, --broken and --set are for images or texts; ",
        ),
    ],
)
def test_a_mistake_in_fitting_is_one_sentence(
    poise_: Run, words: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    assert refusal(poise_("fit", *words, "--out", tmp_path / "out", "-q")).startswith(sentence)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("model", "mor"), "there is no file or folder mor, did you mean 'more'?"),
        (("modle", "more"), "there is no file or folder modle, did you mean 'model'?"),
        (("run", "more"), "run is a run without a model; make one with `poise fit run --out run`"),
        (
            ("model", "texts.csv"),
            "texts.csv has no column that is called image or path; name the column of the images (",
        ),
        (
            ("model", "paths.csv"),
            "paths.csv, line 2: there is no file img_0848.jpg; correct the path, or the folder that it starts from "
            "(--root, or -s data.root=FOLDER); this model reads images: give a folder of them, or a table with a "
            "column of paths (--image)",
        ),
        (("model", "texts.csv", "--text", "question"), "backbone convnet4 reads images, texts.csv, row 1 is no image"),
        (("model", "more", "--out", "p.txt"), "predictions are written to .csv or .parquet, and p.txt is neither"),
        (("model", "more", "--top", "9"), "top must lie between 1 and 3, the number of classes; got 9"),
    ],
)
def test_a_mistake_in_predicting_is_one_sentence(poise_: Run, words: tuple[str, ...], sentence: str) -> None:
    assert refusal(poise_("predict", *words)).startswith(sentence)


def test_a_network_of_ones_own_is_trained_extracted_and_predicted(
    poise_: Run, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_network.py").write_text(
        "from torch import nn\n\ndef make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    name, out = "own_network:make", tmp_path / "m"
    said = poise_("fit", "photos", "--backbone", name, "--recipe", "small_images", *changed(), "--out", out, "-q")
    assert said[0] == 0, said
    for verb, more in (("predict", ["more", "--out", tmp_path / "p.csv"]), ("extract", ["--out", tmp_path / "f"])):
        assert f"--backbone {name}" in refusal(poise_(verb, out, *more, "-q"))
        assert poise_(verb, out, *more, "--backbone", name, "-q")[0] == 0


def test_a_backbone_from_elsewhere_is_kept_with_its_features_and_model(
    poise_: Run, world: Path, tmp_path: Path
) -> None:
    weights = world / "run/representation/backbone.safetensors"
    changes = ("stage1=null", f"backbone.size={SIDE}", f"backbone.weights={weights}")
    settings = [word for change in changes for word in ("-s", change)]
    code, out, _ = poise_("train", "small_images", "--data", "photos", *settings, "--out", tmp_path / "r")
    assert code == 0
    assert "no stage-1 classifier" in out
    assert poise_("extract", tmp_path / "r", "--data", "more", "--out", tmp_path / "f", "-q")[0] == 0
    assert load_features(tmp_path / "f/train").seen_by_backbone is None
    assert poise_("fit", tmp_path / "r", "-m", "ncm", "--out", tmp_path / "r", "-q")[0] == 0
    assert poise_("predict", tmp_path / "r", "more", "--out", tmp_path / "p.csv", "-q")[0] == 0


def test_pictures_in_folders_of_their_classes_are_scored(poise_: Run, world: Path, tmp_path: Path) -> None:
    unseen = pictures(tmp_path / "unseen", {"bee": 3, "cat tail": 3}, seed=7)
    code, out, _ = poise_("evaluate", "model", unseen, "--out", tmp_path / "e", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["scores"]["rows"] == 6
    assert (tmp_path / "e" / "report.html").exists()
    said = refusal(poise_("evaluate", "model", "photos", "--out", tmp_path / "e2"))
    assert "training rows too" in said


# --- packages and weights from elsewhere ------------------------------------------------------------------------------


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    poise_: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    large = pictures(tmp_path / "large", {"a": 8, "b": 8}, side=96)
    said = refusal(poise_("fit", large, "--out", tmp_path / "m", "-q"))
    assert "timm:tf_efficientnet_lite0 needs timm" in said
    assert "pip install 'poise[photos]'" in said


def test_weights_that_cannot_be_fetched_are_named_with_the_cache(
    poise_: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    constants: Any = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    large = pictures(tmp_path / "large", {"a": 8, "b": 8}, side=96)
    said = refusal(poise_("fit", large, "--backbone", "timm:resnet18", "--out", tmp_path / "m", "-q"))
    assert "resnet18" in said
    assert "cache" in said


def test_the_network_of_a_stranger_is_not_run(poise_: Run, world: Path, tmp_path: Path, monkeypatch: Any) -> None:
    shutil.copytree(world / "model", tmp_path / "model")
    path = tmp_path / "model/representation/representation.json"
    body = json.loads(path.read_text())
    body["backbone"]["name"] = "strange_network:make"
    path.write_text(json.dumps(body))
    (tmp_path / "strange_network.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    said = refusal(poise_("predict", tmp_path / "model", "more", "--out", tmp_path / "p.csv"))
    assert said.endswith("if you trust it, say so by that name: --backbone strange_network:make")
    assert "strange_network:make" in refusal(poise_("extract", tmp_path / "model", "--data", "more", "--out", "never"))
    assert not (tmp_path / "ran").exists()


def test_a_recipe_is_printed_without_data(poise_: Run) -> None:
    code, out, err = poise_("train", "gala_cifar100_lt_if100", "--dry-run")
    assert code == 0
    assert "name: resnet32" in out
    assert err == "note: data.train is not given; add -s data.train=PATH\n"


def test_a_model_fitted_on_a_run_elsewhere_predicts_images(poise_: Run, world: Path, tmp_path: Path) -> None:
    assert poise_("fit", "run", "--method", "tau_norm", "--out", tmp_path / "m", "-q")[0] == 0
    assert poise_("predict", tmp_path / "m", "more", "--out", tmp_path / "p.csv", "-q")[0] == 0
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 4


def test_a_broken_image_is_skipped_where_that_is_asked_for(poise_: Run, world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "more", tmp_path / "more")
    (tmp_path / "more" / "zz.png").write_bytes(b"<html>")
    said = refusal(poise_("predict", "model", tmp_path / "more", "--out", tmp_path / "p.csv"))
    assert "zz.png is no image" in said
    assert "--broken skip" in said
    code, _, err = poise_("predict", "model", tmp_path / "more", "--out", tmp_path / "p.csv", "--broken", "skip", "-q")
    assert code == 0
    assert "1 image is broken and left out of 4" in err
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 4


def test_a_broken_image_is_found_before_the_training(poise_: Run, world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "ant" / "999.png").write_bytes(b"<html>")
    assert "999.png is no image" in refusal(train(poise_, tmp_path / "r", data=str(tmp_path / "photos")))
    assert not (tmp_path / "r" / "checkpoint.pt").exists()


def test_every_store_of_a_folder_is_checked(poise_: Run, world: Path, tmp_path: Path) -> None:
    assert poise_("extract", "run", "--data", "photos", "--out", tmp_path / "features", "-q")[0] == 0
    code, out, _ = poise_("check", tmp_path / "features")
    assert code == 0
    assert "feature stores, intact" in " ".join(out.split())
    (tmp_path / "features" / "SHA256SUMS").unlink()
    assert "train: feature store, intact" in " ".join(poise_("check", tmp_path / "features")[1].split())


def test_fit_is_one_process(poise_: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = refusal(poise_("fit", "photos", "--out", tmp_path / "m"))
    assert said.startswith("fit runs in one process, torchrun started 2; share out `poise train`")


def test_the_head_that_is_written_is_the_one_that_was_compared(poise_: Run, world: Path) -> None:
    found = json.loads((world / "model" / "comparison.json").read_text())
    model = json.loads((world / "model" / "model.json").read_text())
    row = next(row for row in found["table"] if row["method"] == model["method"])
    said = json.loads(poise_("fit", "photos", "--out", "model", "--json", *changed())[1])
    assert said["test"]["balanced_accuracy"] == pytest.approx(row["balanced_accuracy"], abs=1e-9)


def test_features_of_random_weights_are_warned_of_once(poise_: Run, tmp_path: Path) -> None:
    code, _, err = poise_("extract", "convnet4", "--data", "more", "--out", tmp_path / "random")
    assert code == 0
    assert err.count("warning: ") == 1
    assert UNTRAINED in err
    read = ("--data", "texts.csv", "--text", "question", "--label", "intent", "--out", tmp_path / "texts")
    _, _, err = poise_("extract", "convnet4", *read)
    assert err == f"{UNTRAINED}poise: backbone convnet4 reads images, texts.csv, row 1 is no image; name another\n"
    assert "is not trained" not in poise_("extract", "run", "--data", "more", "--out", tmp_path / "trained")[2]


def test_a_comparison_of_a_run_is_called_as_its_folder(poise_: Run, tmp_path: Path) -> None:
    out = poise_("compare", "run", "-m", "ncm", "--no-oracle", "--out", tmp_path / "compared")[1]
    assert out.splitlines()[0].strip().startswith("run")
