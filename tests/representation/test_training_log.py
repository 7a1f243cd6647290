"""The log of a run."""

import csv
import json
from pathlib import Path

import pytest

from poise.errors import InputError, MissingExtraError
from poise.representation import training_log


def row(step: int) -> dict:
    return {"epoch": step // 3, "step": step, "loss": 1 / step}


def test_rows_are_appended_as_json_and_csv(tmp_path: Path) -> None:
    log = training_log.opened(tmp_path, 0)
    for step in (3, 6):
        log(row(step))
    assert training_log.rows_of(tmp_path) == [row(3), row(6)]
    with (tmp_path / "log.csv").open() as file:
        assert [int(line["step"]) for line in csv.DictReader(file)] == [3, 6]


def test_rows_after_the_checkpoint_are_written_again_and_never_twice(tmp_path: Path) -> None:
    log = training_log.opened(tmp_path, 0)
    for step in (3, 6, 9):
        log(row(step))
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = training_log.opened(tmp_path, 5)
    assert training_log.rows_of(tmp_path) == [row(3)]
    for step in (6, 9):
        again(row(step))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_line_that_was_cut_short_is_dropped(tmp_path: Path, cut: int) -> None:
    log = training_log.opened(tmp_path, 0)
    log(row(3))
    log(row(6))
    path = tmp_path / "log.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    kept = training_log.rows_of(tmp_path)
    assert kept in ([row(3)], [row(3), row(6)])
    training_log.opened(tmp_path, 3)(row(6))
    assert training_log.rows_of(tmp_path) == [row(3), row(6)]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(InputError, match=r"log.jsonl, line 2 is no JSON .*; delete that line"):
        training_log.rows_of(tmp_path)


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*log.jsonl"):
        training_log.opened(tmp_path / "file" / "run", 0)
    log = training_log.opened(tmp_path, 0)
    (tmp_path / "log.jsonl").unlink()
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*log.jsonl \(\d+ bytes\): Is a directory"):
        log(row(3))


def test_trackers_receive_every_row(tmp_path: Path) -> None:
    told = []
    training_log.opened(tmp_path, 0, [told.append])(row(3))
    assert told == [row(3)]


def test_an_unknown_tracker_and_a_missing_one_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="tracker must be one of mlflow, tensorboard, wandb; got 'neptune'"):
        training_log.tracker("neptune", tmp_path, {})
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'poise\[wandb\]'"):
        training_log.tracker("wandb", tmp_path, {})


def test_numbers_become_curves_over_steps() -> None:
    assert training_log._numbers({"epoch": 1, "step": 3, "loss": 0.5}) == {"loss": 0.5}
    json.dumps(row(3))
