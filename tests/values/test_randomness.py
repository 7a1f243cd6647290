"""Streams of random numbers: their numbers determine results, and no two uses share any."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import poise
from poise.sampling import windowed
from poise.selection.oracle import draws
from poise.values.randomness import Stream, hashed, seed_for, uniforms

# A number that changes here changes splits, trainings and searches that people have recorded.
RECORDED = {
    "CLASS_CYCLE": 1,
    "ROW_CYCLE": 2,
    "EPOCH": 3,
    "FRESH_START": 4,
    "FOLDS": 5,
    "CLASS_ORDER": 6,
    "CARVE": 7,
    "SEARCH": 8,
    "WINDOWS": 9,
    "LABELLED": 10,
    "AUGMENT": 11,
    "MIXUP": 12,
    "PARTNER": 13,
    "DROPOUT": 14,
    "NETWORK": 15,
    "VIEWS": 16,
    "LOSS": 17,
    "CYCLE_START": 18,
}


def test_every_stream_keeps_its_number_and_shares_it_with_no_other():
    assert {name: int(stream) for name, stream in Stream.__members__.items()} == RECORDED
    assert len(set(RECORDED.values())) == len(RECORDED)


def test_a_key_keeps_its_numbers():
    assert hashed(0).tolist() == 6238072747940578789
    assert hashed(3, 17, np.arange(2)).tolist() == [14240235416889831040, 3071776348540468836]
    assert uniforms(2, torch.tensor([5]), 3, 17).tolist() == [[0.7506320626606643, 0.6025579233396596]]
    assert seed_for(3, 14) == 7296960992132537204


@pytest.mark.parametrize("seed", [0, 3])
def test_rows_of_a_learning_curve_are_not_drawn_with_the_numbers_of_windows_of_rows(seed):
    rows = torch.arange(40)
    windows = windowed(rows, rows=40, block=1, window=1, epoch=0, seed=seed)
    places = draws(torch.zeros(40, dtype=torch.int64), rows, seed)
    assert sorted(windows.tolist()) == sorted(places.tolist()) == rows.tolist()
    assert not torch.equal(windows, places)


def test_every_stream_is_drawn_by_one_module():
    users = {name: [] for name in Stream.__members__}
    for path in Path(poise.__file__).parent.rglob("*.py"):
        for name in set(re.findall(r"\bStream\.([A-Z_]+)", path.read_text())):
            users[name].append(path.name)
    assert {name: len(found) for name, found in users.items()} == dict.fromkeys(users, 1)
