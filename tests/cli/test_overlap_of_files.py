"""Files that share rows: every verb refuses many in one sentence, and says once how many are shared."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from poise.cli import main

NAMES = np.array(["zebra", "ant", "cat"])
SIZES = (60, 25, 10)


def table(path, x, y):
    lines = [",".join(map(repr, row)) + f",{NAMES[label]}" for row, label in zip(x.tolist(), y, strict=True)]
    path.write_text("\n".join(["f0,f1,f2,f3,label", *lines]) + "\n", encoding="utf-8")


def world(seed):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(3), SIZES)
    return rng.normal(size=(len(y), 4)) + 2 * np.eye(3, 4)[y], y


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    (x, y), (held, own), (test, true) = (world(seed) for seed in range(3))
    table(folder / "train.csv", x, y)
    table(folder / "held.csv", held, own)
    table(folder / "test.csv", test, true)
    table(folder / "less.csv", x[1:], y[1:])
    table(folder / "half.csv", x[::2], y[::2])
    table(folder / "rounded.csv", x.round(7), y)
    table(folder / "test_less.csv", test[1:], true[1:])
    few = held.copy()
    few[[5, 9]] = x[[3, 4]]
    table(folder / "few.csv", few, own)
    copies = np.repeat(np.arange(len(y)), 4)
    table(folder / "copied.csv", x[copies] + 1e-7 * np.random.default_rng(5).normal(size=(4 * len(y), 4)), y[copies])
    save_file({"fc.weight": torch.eye(3, 4), "fc.bias": torch.zeros(3)}, folder / "model.safetensors")
    (folder / "names.json").write_text(json.dumps(sorted(NAMES.tolist())))
    logits = 2 * np.eye(3)[y] + np.random.default_rng(7).normal(size=(len(y), 3))
    np.savez(folder / "logits.npz", logits=logits, y=y, counts=SIZES, held_out_logits=logits[1:], held_out_y=y[1:])
    return folder


@pytest.fixture
def poise_(made, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "here"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)

    def run(words):
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            with pytest.raises(SystemExit) as stop:
                main(words.split())
        said.append(capsys.readouterr())
        return stop.value.code, said[-1].err

    said = []
    run.said = lambda: said[-1].out
    return run


REBALANCE = "rebalance model.safetensors --features train.csv --class-names names.json -m tau_norm(tau=0.5)"
ROUTES = {
    "fit": "fit train.csv -m ncm",
    "tune": "tune train.csv tau_norm --budget 2",
    "compare": "compare train.csv --test test.csv -m ncm --budget 2 --no-oracle",
    "rebalance": REBALANCE,
}


@pytest.mark.parametrize("held_out", ["less", "half", "rounded"])
@pytest.mark.parametrize("route", ROUTES)
def test_training_rows_in_another_file_are_refused(poise_, route, held_out):
    code, told = poise_(f"{ROUTES[route]} --held-out {held_out}.csv")
    assert code == 2
    assert "held-out rows are training rows too (the first: held-out row 0, training row " in told.replace("\n", " ")


def test_the_rows_that_judge_are_no_held_out_rows(poise_):
    code, told = poise_(f"{ROUTES['compare']} --held-out test_less.csv")
    assert code == 2
    assert "94 of 95 test rows are held-out rows too" in told.replace("\n", " ")


def test_logits_that_select_are_none_that_judge(poise_):
    code, told = poise_("audit logits.npz")
    assert code == 2
    assert "94 of 95 test rows are held-out rows too" in told.replace("\n", " ")


@pytest.mark.parametrize("route", ROUTES)
def test_a_few_shared_rows_are_said_once(poise_, route):
    code, told = poise_(f"{ROUTES[route]} --held-out few.csv")
    assert code == 0, told
    said = "2 of 95 held-out rows are training rows too (the first: held-out row 5, training row 3)"
    assert told.replace("\n", " ").count(said) == 1


def test_inspect_says_what_it_is(poise_):
    code, _ = poise_("inspect train.csv --held-out less.csv")
    assert code == 0
    assert "94 of 94 held-out rows are training rows too" in poise_.said().replace("\n", " ")


@pytest.mark.parametrize(
    "words", ["compare copied.csv -m ncm --budget 2", "fit copied.csv -m ncm --abstain-accuracy 0.5"]
)
def test_rows_that_are_set_aside_take_their_copies_along(poise_, words):
    code, told = poise_(f"{words} --unseen")
    assert code == 0, told
    assert "rows too" not in told
