"""The terminal: completion, colour, widths, estimates before long runs, and hints for what newcomers type."""

import ast
import json
import os
import pickle
import pty
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from poise import methods
from poise.cli import VERBS, completion, main, shared
from poise.cli.options import spread
from poise.commands import workload
from poise.commands.config import recipes
from poise.commands.workload import Estimate
from poise.data import bundled
from poise.errors import InputError, MemorisedRowsError, Message, PoiseWarning
from poise.machine.progress import Pace
from poise.report import files as reports
from poise.selection import elimination, rules
from poise.selection.fit_and_measure import remarks_of

SIZES, NAMES = (40, 20, 8), ("zebra", "ant", "cat")
ESCAPE = b"\x1b["


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Rows with labels, a model of them, and a folder of images."""
    folder = tmp_path_factory.mktemp("terminal")
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), SIZES)
    x = (rng.normal(size=(len(y), 4)) + 2 * np.eye(3, 4)[y]).astype(np.float32)
    lines = ["a,b,c,d,label", *(",".join([*map(str, row), NAMES[k]]) for row, k in zip(x.tolist(), y, strict=True))]
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    np.savez(folder / "head.npz", weight=np.eye(3, 4, dtype=np.float32))
    (folder / "list.csv").write_text(
        "file,label\n" + "".join(f"{k}s/{i}.png,{k}\n" for k in ("cat", "dog") for i in range(9))
    )
    np.savez(folder / "logits.npz", logits=x[:, :3], labels=y, counts=np.array(SIZES))
    for name in ("cats", "dogs"):
        (folder / "fotos" / name).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "fotos" / name / f"{i}.png")
    return folder


@pytest.fixture
def poise_(files, monkeypatch, capsys):
    """Runs the command line beside the files: (exit code, standard output, standard error)."""
    monkeypatch.chdir(files)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words):
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            with pytest.raises(SystemExit) as stop:
                main([str(word) for word in words])
        said = capsys.readouterr()
        return stop.value.code, said.out, said.err

    return run


# --- completion -------------------------------------------------------------------------------------------------------


def completed(monkeypatch, capsys, line):
    """What bash is offered for the last word of a line."""
    words = line.split(" ")
    monkeypatch.setenv("_POISE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 0
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("poise com", ["compare"]),
        ("poise compare rows -m tau", ["tau_norm"]),
        ("poise compare rows --method crt+tau", ["crt+tau_norm"]),
        ("poise compare rows --select cross", ["cross_fit"]),
        ("poise compare rows --search ", ["full", "halving", "sketch"]),
        ("poise tune rows lo", ["logit_adjustment", "los"]),
        ("poise tune rows los --select ", ["held_out", "kfold"]),
        ("poise tune rows los --metric ma", ["macro_f1", "many"]),
        ("poise fit rows -m a", ["auto"]),
        ("poise fit rows --recipe pho", ["photographs"]),
        ("poise train gly", ["glyphs"]),
        ("poise demo --set ", ["cifar100lt_r32_autoaugment", "cifar100lt_r32"]),
        ("poise methods gal", ["gala"]),
        ("poise compare rows --dry", ["--dry-run"]),
        ("poise report run --format m", ["md"]),
        ("poise report run -f svg,p", ["svg,png"]),
        ("poise rebalance model -m tau", ["tau_norm"]),
        ("poise export model --onn", ["--onnx"]),
    ],
)
def test_a_word_is_completed(line, words, monkeypatch, capsys):
    assert completed(monkeypatch, capsys, line) == words


def test_what_is_completed_is_what_the_tables_hold():
    assert completion.method_names("") == sorted(methods.available())
    assert completion.demo_sets("") == list(bundled.DEMO_SETS)
    assert completion.searches("") == list(elimination.SEARCHES)
    assert completion.metrics("") == list(rules.METRICS)
    assert completion.report_formats("") == [*reports.FORMATS, "all"]
    assert completion.recipe_files("") == list(recipes())


def program(folder):
    """A folder with a command `poise` that runs these sources."""
    path = folder / "bin" / "poise"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m poise "$@"\n')
    path.chmod(0o755)
    return {**os.environ, "PATH": f"{path.parent}:{os.environ['PATH']}"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_with_the_script_that_is_shown(tmp_path):
    script = """
    eval "$(poise --show-completion bash)"
    COMP_WORDS=(poise tune rows.csv tau); COMP_CWORD=3
    _poise_completion poise
    echo "found: ${COMPREPLY[*]}"
    """
    environment = {**program(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "found: tau_norm\n", done.stderr


def test_zsh_is_answered_in_its_own_form(tmp_path):
    environment = {**program(tmp_path), "_POISE_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "poise tune r los"}
    done = subprocess.run(["poise"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "_arguments '*: :((\"los\"))'\n"), done.stderr


def test_the_script_is_installed_where_the_shell_looks(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    with pytest.raises(SystemExit) as stop:
        main(["--install-completion", "bash"])
    assert stop.value.code == 0
    assert "poise.sh" in capsys.readouterr().out
    assert "_POISE_COMPLETE" in (tmp_path / ".bash_completions" / "poise.sh").read_text()
    assert ".bash_completions/poise.sh" in (tmp_path / ".bashrc").read_text()


def test_completion_imports_nothing_heavy(tmp_path):
    code = """
import sys
from poise.cli import main
try:
    main([])
except SystemExit:
    pass
heavy = {"torch", "numpy", "sklearn", "scipy", "poise.methods"} & set(sys.modules)
sys.exit(f"imported {sorted(heavy)}" if heavy else 0)
"""
    environment = {
        **os.environ,
        "_POISE_COMPLETE": "complete_bash",
        "COMP_WORDS": "poise tune rows cr",
        "COMP_CWORD": "3",
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "crt\n"), done.stderr


def test_help_names_completion_and_exit_codes(poise_):
    page = " ".join(poise_("--help")[1].split())
    assert "`poise --install-completion` makes your shell complete verbs, options and methods." in page
    codes = "0 done, 2 the input cannot be used, 70 a fault of Poise, 130 interrupted, 143 terminated."
    assert f"Exit codes: {codes}" in page


# --- values of several options ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A value whose first field has no default."""

    street: Annotated[str, typer.Option(help="Where it is.")]
    doors: Annotated[int, typer.Option("--doors", "-d", min=1)] = 1


def test_a_verb_gets_a_value_for_the_options_of_its_fields():
    got = []

    def verb(name: str, *, place: Place, loud: bool = False) -> None:
        got.append((name, place, loud))

    app = typer.Typer()
    app.command()(spread(verb))
    assert CliRunner().invoke(app, ["house", "-d", "3", "--street", "High"]).exit_code == 0
    assert CliRunner().invoke(app, ["--street", "Low", "hut", "--loud"]).exit_code == 0
    assert got == [("house", Place("High", 3), False), ("hut", Place("Low"), True)]
    assert "Missing option '--street'" in CliRunner().invoke(app, ["house"]).output
    assert CliRunner().invoke(app, ["house", "--street", "High", "-d", "0"]).exit_code == 2


def test_two_values_with_the_same_option_are_refused():
    def verb(*, one: Place, other: Place) -> None: ...

    with pytest.raises(ValueError, match="duplicate parameter name: 'street'"):
        spread(verb)


# --- arguments of Python in the words of the command line -------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("(layer=)", "(--layer)"),
        ("(class_names=)", "(--class-names)"),
        ("(overwrite=True)", "(--overwrite)"),
        ("(label=)", "(--label, or -s data.label=NAME)"),
        ("(group=)", "(--groups, or -s data.group=NAME)"),
        ("(root=)", "(--root, or -s data.root=FOLDER)"),
        ("(label_column=)", "(--label)"),
        ("fit(..., held_out=(X, y))", "--held-out"),
        ("Problem(held_out=Features(..., seen_by_backbone=False))", "--held-out"),
        ("seen_by_backbone=False", "--unseen"),
        ("seen_by_backbone=True", "--seen"),
        ("key= (or FILE#NAME)", "FILE#NAME"),
        ("key=", "#NAME"),
    ],
)
@pytest.mark.parametrize("kind", [InputError, MemorisedRowsError, PoiseWarning])
def test_an_argument_that_a_message_names_is_said_as_its_option(kind, words, option):
    message = f"label=a/x.csv is wrong: give {words}, or another file"
    assert shared.in_options(kind(message, words)) == f"label=a/x.csv is wrong: give {option}, or another file"
    assert str(kind(message, words)) == shared.in_options(kind(message)) == message


def test_arguments_outlive_processes_and_remarks():
    error = InputError("name one (split=)", "(split=)")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.arguments) == ("name one (split=)", ("(split=)",))
    assert InputError(Message(error)).arguments == ("(split=)",)
    with remarks_of() as remarks:
        warnings.warn(PoiseWarning("say seen_by_backbone=False", "seen_by_backbone=False"), stacklevel=1)
    with pytest.warns(PoiseWarning) as caught:
        warnings.warn(remarks[0], PoiseWarning, stacklevel=1)
    assert shared.in_options(caught[0].message) == "say --unseen"


NAMED = re.compile(r"\(\w+=\)|fit\(\.{3}, held_out=\(X, y\)\)|Problem\(held_out=\.{3}\)")


@pytest.mark.parametrize("path", sorted(Path(shared.__file__).parents[1].rglob("*.py")), ids=lambda path: path.stem)
def test_every_argument_in_a_message_is_marked(path):
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef):
            continue
        body = function.body[1:] if ast.get_docstring(function) else function.body
        texts = [
            n.value for part in body for n in ast.walk(part) if isinstance(n, ast.Constant) and type(n.value) is str
        ]
        found = {words for text in texts for words in NAMED.findall(text)}
        assert found <= set(texts), function.name


# --- estimates --------------------------------------------------------------------------------------------------------


def foreseen(monkeypatch, seconds, size=600 * 10**6):
    """Makes every run be estimated as given."""
    monkeypatch.setattr(workload, "foreseen", lambda *_: Estimate(seconds, size))


COMPARE = ("compare", "train.csv", "--unseen", "-m", "tau_norm", "--budget", "2", "--no-oracle", "--folds", "2")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*COMPARE, "-m", "crt"), "note: 3 heads in 2 folds, about 40 s and 0.6 GB"),
        (("tune", "train.csv", "tau_norm", "--budget", "2"), "note: 1 head in 5 folds, about 40 s and 0.6 GB"),
        (("fit", "train.csv", "-m", "ncm", "--unseen", "--out", "m"), "note: 1 head in 5 folds, about 40 s and 0.6 GB"),
    ],
)
def test_a_long_run_says_before_how_long(words, said, poise_, monkeypatch):
    foreseen(monkeypatch, 38)
    code, _, err = poise_(*words)
    assert code == 0, err
    assert said in err.splitlines()


@pytest.mark.parametrize("silent", ["--quiet", "--json"])
def test_what_is_quiet_or_json_says_no_estimate(silent, poise_, monkeypatch):
    monkeypatch.setattr(workload, "foreseen", lambda *_: pytest.fail("estimated"))
    assert poise_("tune", "train.csv", "tau_norm", "--budget", "2", "--unseen", silent)[0] == 0


def test_a_short_run_says_nothing(poise_, monkeypatch):
    foreseen(monkeypatch, 4.9)
    assert "about" not in poise_("tune", "train.csv", "tau_norm", "--budget", "2", "--unseen")[2]


def test_one_of_several_processes_says_nothing(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    foreseen(monkeypatch, 60)
    shared.say_estimate(None, None, quiet=False)
    assert capsys.readouterr().err == ""


def test_too_little_memory_is_a_warning_with_remedies(poise_, monkeypatch):
    foreseen(monkeypatch, 1, size=12 * 10**9)
    monkeypatch.setattr(workload, "available_bytes", lambda: 8 * 10**9)
    code, _, err = poise_("tune", "train.csv", "tau_norm", "--budget", "2", "--unseen")
    assert code == 0
    assert "warning: this may need 12.0 GB of memory, 8.0 GB are free; try a smaller --budget, fewer methods" in err


def test_a_dry_run_says_what_would_be_tried_and_writes_nothing(poise_, files):
    code, out, _ = poise_(*COMPARE, "-m", "crt", "--dry-run", "--out", "dry")
    assert code == 0
    assert [line.split() for line in out.splitlines()[:4]] == [
        ["stage1", "1", "setting"],
        ["tau_norm", "2", "settings"],
        ["logit_adjustment", "2", "settings"],
        ["crt", "1", "setting"],
    ]
    assert re.fullmatch(r"\d+ heads in 2 folds, about \d+ s and \d\.\d GB", out.splitlines()[-1])
    assert not (files / "dry").exists()
    found = json.loads(poise_(*COMPARE, "--dry-run", "--json")[1])
    assert found["settings"] == {"stage1": 1, "tau_norm": 2, "logit_adjustment": 2}
    assert found["folds"] == 2


def test_without_a_terminal_the_rest_of_a_long_run_is_said_now_and_then(monkeypatch, capsys):
    now = iter([0.0, *range(10, 400, 10)])
    monkeypatch.setattr(shared.time, "monotonic", lambda: float(next(now)))
    with shared.progress_bar("training (images)", quiet=False) as report:
        for step in range(1, 39):
            # The first twenty seconds are five times as slow.
            report(100 * min(step, 2) + 500 * max(0, step - 2), 30000)
            if step == 30:
                report.note("epoch 2 of 3, loss 1.5")
    assert capsys.readouterr().err.splitlines() == [
        "note: training (images): 10 images/s, about 50 min to go",  # at 20 s
        "note: training (images): 37 images/s, about 13 min to go",  # at 40 s
        "note: training (images): 50 images/s, about 9 min to go",  # at 80 s
        "note: training (images): 50 images/s, about 8 min to go",  # at 160 s: 22,800 are left
        "note: training (images): epoch 2 of 3, loss 1.5; 50 images/s, about 5 min to go",  # at 320 s: 14,800
    ]


def test_work_that_goes_on_from_what_was_saved_is_not_taken_for_fast():
    pace = Pace()
    pace.told(0.0, 9000)
    assert pace.rate is None
    pace.told(10.0, 9010)
    assert pace.rest(10000) == pytest.approx(990.0)


def test_short_work_says_nothing_without_a_terminal(monkeypatch, capsys):
    now = iter([0.0, 10.0, 20.0, 30.0])
    monkeypatch.setattr(shared.time, "monotonic", lambda: next(now))
    with shared.progress_bar("fitting", quiet=False) as report:
        for done in (30, 60, 90):
            report(done, 100)
    assert capsys.readouterr().err == ""


# --- what newcomers type ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "compare fotos",
            "fotos is a folder without feature rows; if it holds images, `poise fit fotos --out RUN` makes rows of "
            "them, and `poise compare RUN` compares heads on these",
        ),
        ("compare trai.csv", "there is no file or folder trai.csv, did you mean 'train.csv'?"),
        (
            "compare train.csv fotos",
            "Got unexpected extra argument(s) (fotos); test rows are given with --test; see `poise compare --help`",
        ),
        ("tune crt train.csv", "the rows come before the method: `poise tune train.csv crt`"),
        (
            "compare train.csv --budget 99999999999999999999 --unseen",
            "the budget must be at most 10000 settings per method, got 99999999999999999999; lower it",
        ),
        (
            "train fotos",
            "fotos is a folder, where a recipe is expected: a YAML file, or a name such as photographs; the folder of "
            "the samples is data.train",
        ),
        (
            "train photographs --data fotos -s stage1.learning_rate=0.1",
            "-s stage1.learning_rate=0.1: there is no key 'stage1.learning_rate', did you mean 'stage1.lr'?",
        ),
        (
            "train photographs --data fotos -s batch=8",
            "-s batch=8: there is no key 'batch', did you mean 'stage1.batch_size'?",
        ),
        (
            "train photographs --data fotos -s stage1.wd=0",
            "-s stage1.wd=0: there is no key 'stage1.wd', did you mean 'stage1.weight_decay'?",
        ),
    ],
)
def test_a_mistake_is_one_sentence_with_its_remedy(words, sentence, poise_):
    assert poise_(*words.split()) == (2, "", f"poise: {sentence}\n")


@pytest.mark.parametrize(
    ("key", "meant"), [("learning_rate", "lr"), ("wd", "weight_decay"), ("batch", "batch_size"), ("epoch", "epochs")]
)
def test_parameters_of_methods_are_known_by_other_names_too(key, meant, poise_):
    code, _, err = poise_("tune", "train.csv", f"crt({key}=1)")
    assert code == 2
    assert err.startswith(f"poise: crt has no parameter {key!r}, did you mean {meant!r}? it takes lr, momentum")


def test_fewer_epochs_than_those_of_the_warmup_name_both_keys(poise_):
    _, _, err = poise_("train", "photographs", "--data", "fotos", "-s", "stage1.epochs=1", "--dry-run")
    assert err.endswith("stage1.warmup_epochs must be at most epochs=1, got 5; lower it together with stage1.epochs\n")


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        ("uniform", "a uniform class prior"),
        ("train", "the class frequencies of the training rows (prior train)"),
        ("prior.json", "a prior that was given (cat 0.6, ...)"),
    ],
)
def test_predict_names_the_prior_and_which_argument_comes_first(prior, words, poise_, files):
    (files / "prior.json").write_text('{"zebra": 0.2, "ant": 0.2, "cat": 0.6}')
    model = f"model_{prior[:3]}"
    assert poise_("fit", "train.csv", "--unseen", "-m", "ncm", "--prior", prior, "--out", model)[0] == 0
    assert f"probabilities are for {words}" in poise_("predict", model, "train.csv")[1].splitlines()
    assert json.loads(poise_("predict", model, "train.csv", "--json")[1])["prior"] == words
    swapped = f"train.csv is no model, and {model} is one; the model comes first: `poise predict {model} train.csv`"
    assert poise_("predict", "train.csv", model) == (2, "", f"poise: {swapped}\n")
    said = poise_("compare", model)[2]
    assert (
        said
        == f"poise: {model} is a model; give the rows that it was made of, or the folder of a run with its features\n"
    )


@pytest.mark.parametrize(
    ("words", "following"),
    [
        ("inspect train.csv", "poise fit train.csv"),
        ("inspect train.csv --label label --ignore a,b", "poise fit train.csv --label label --ignore a,b"),
        ("inspect train.csv --label label --groups c", "poise fit train.csv --label label --groups c"),
        ("inspect train.csv --head head.npz --unseen", "poise fit train.csv --head head.npz --unseen --held-out MORE"),
        ("inspect fotos", "poise fit fotos"),
        ("inspect list.csv --image file --root fotos", "poise fit list.csv --image file --root fotos"),
        ("inspect train.csv --unseen", "poise fit train.csv --unseen"),
        ("inspect train.csv --seen", "poise fit train.csv --seen --held-out MORE"),
        ("inspect train.csv --seen --held-out train.csv", "poise fit train.csv --seen --held-out train.csv"),
    ],
)
def test_inspect_names_the_next_step(words, following, poise_):
    code, out, err = poise_(*words.split())
    assert code == 0, err
    assert out.splitlines()[-1] == f"next: {following}"


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("fit train.csv --unseen -m ncm --out again", "again"),
        ("predict model_again train.csv --out again.csv", "again.csv"),
        ("tune train.csv ncm --unseen --budget 1 --out tuned", "tuned"),
        ("compare train.csv --unseen -m ncm --no-oracle --budget 1 --out compared", "compared"),
        ("audit logits.npz --budget 1 --out audited", "audited"),
    ],
)
def test_a_result_that_is_replaced_is_named_before(words, place, poise_):
    note = f"note: {place} holds an earlier result, which this one replaces (--out keeps both)"
    poise_("fit", "train.csv", "--unseen", "-m", "ncm", "--out", "model_again", "-q")
    code, _, err = poise_(*words.split())
    assert (code, note in err.splitlines()) == (0, False), err
    assert poise_(*words.split())[2].splitlines().count(note) == 1
    for silent in ("--quiet", "--json"):
        assert note not in poise_(*words.split(), silent)[2]


def test_a_command_to_copy_is_one_line_of_any_length(poise_):
    name = "rows of a run " * 8 + ".csv"
    shutil.copy("train.csv", name)
    code, out, err = poise_("inspect", name, "--label", "label", "--unseen")
    assert code == 0, err
    assert out.splitlines()[-1] == f"next: poise fit '{name}' --label label --unseen"


def test_broken_images_are_not_known_before_all_were_read(poise_):
    found = json.loads(poise_("inspect", "fotos", "--json")[1])["splits"]["train"]["look"]
    assert (found["read"], found["broken"]) == (64, None)
    found = json.loads(poise_("inspect", "fotos", "--all", "--json")[1])["splits"]["train"]["look"]
    assert (found["read"], found["broken"]) == (80, [])


# --- widths and colours -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [verb.__name__ for verb in VERBS])
def test_help_fits_80_columns(verb, poise_):
    code, out, _ = poise_(verb, "--help")
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if re.search(r"--[a-z-]*-$", line)]  # an option is to be copied
    first = lines.index("Options:") + 1
    rows = [line for line in lines[first:] if line.startswith("  ") and line.strip()]
    room = 80 - max(len(row) - len(row.lstrip(" ")) for row in rows)
    assert room >= 50  # columns for what is said of an option


@pytest.mark.parametrize(
    ("verb", "folder"),
    [("compare", "runs/compare"), ("tune", "runs/tune"), ("audit", "runs/audit"), ("demo", "runs/demo/NAME")],
)
def test_help_names_the_folder_that_is_written(verb, folder, poise_):
    page = " ".join(poise_(verb, "--help")[1].split())
    assert f"Folder to write into. (default: {folder})" in page


@pytest.mark.parametrize(
    "words", [COMPARE, ("audit", "logits.npz", "--budget", "2"), ("methods",), ("methods", "gala")]
)
def test_results_fit_80_columns(words, poise_):
    code, out, err = poise_(*words)
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 80


def test_long_sentences_end_between_words_on_a_terminal(monkeypatch, capsys):
    sentence = "poise: " + " ".join(["something"] * 20)
    shared.say(sentence)
    assert capsys.readouterr().err == sentence + "\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    shared.say(sentence)
    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) < 60
    assert " ".join(lines) == sentence


TABLE = """
from poise.cli.options import Voice
from poise.cli.shared import answer, progress_bar
from rich.table import Table
with progress_bar("working", quiet=False) as report:
    report(1, 2)
table = Table(title="scores")
table.add_column("method")
table.add_row("los", style="bold red")
answer({}, [table], Voice())
"""
PROGRAMS = {"table": ["-c", TABLE]}


def on_a_terminal(arguments, **environment):
    """What a program writes where standard output and error are a terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update({"TERM": "xterm-256color", "COLUMNS": "80", **environment})
        os.execv(sys.executable, [sys.executable, *arguments])
    written = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the program has ended
            break
        if not part:
            break
        written += part
    os.waitpid(pid, 0)
    os.close(terminal)
    return written


def colours(written):
    """The codes of an output that set a colour."""
    codes = [code for found in re.findall(rb"\x1b\[([0-9;]*)m", written) for code in found.split(b";")]
    return {code for code in codes if re.fullmatch(rb"[349]\d|38|48|10\d", code)}


@pytest.fixture
def plain_environment(monkeypatch):
    """No variable of the machine decides about colour."""
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", PROGRAMS)
def test_there_is_colour_on_a_terminal(name, plain_environment):
    assert colours(on_a_terminal(PROGRAMS[name]))


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_color_is_respected(name, plain_environment):
    written = on_a_terminal(PROGRAMS[name], NO_COLOR="1")
    assert written
    assert not colours(written)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_dumb_terminal_gets_plain_text(name, plain_environment):
    written = on_a_terminal(PROGRAMS[name], TERM="dumb")
    assert written
    assert ESCAPE not in written


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_pipe_gets_plain_text(name, plain_environment):
    done = subprocess.run([sys.executable, *PROGRAMS[name]], capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stdout
    assert ESCAPE not in done.stdout + done.stderr
