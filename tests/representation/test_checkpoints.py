"""Checkpoints: whole or not at all, harmless to read, and with one before."""

import errno
import os
import pickle
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from poise.errors import InputError
from poise.representation.checkpoints import NEWEST, PREVIOUS, load_checkpoint, save_checkpoint, sweep


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Within, writing more than `size` bytes to a file fails, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_what_was_saved_is_loaded_and_the_one_before_is_kept(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, {"step": step, "x": torch.arange(step), "none": None})
        found = load_checkpoint(tmp_path)
        assert found["step"] == step
        assert torch.equal(found["x"], torch.arange(step))
    assert names(tmp_path) == {NEWEST, PREVIOUS}
    assert torch.load(tmp_path / PREVIOUS, weights_only=True)["step"] == 2


def test_scalars_of_numpy_are_saved_as_plain_ones(tmp_path: Path) -> None:
    given = {"lr": np.float64(0.1), "nested": [{"n": np.int64(3)}, (np.bool_(True),)], np.str_("key"): np.float32(0.5)}
    save_checkpoint(tmp_path, given)
    found = load_checkpoint(tmp_path)
    assert (found["lr"], found["nested"], found["key"]) == (0.1, [{"n": 3}, (True,)], 0.5)
    assert type(found["lr"]) is float


def test_a_value_that_could_not_be_read_back_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"step": 1})
    with pytest.raises(InputError, match="would hold a value that is no tensor and no plain number"):
        save_checkpoint(tmp_path, {"step": 2, "path": Path("x")})
    assert load_checkpoint(tmp_path)["step"] == 1
    assert names(tmp_path) == {NEWEST}


def test_a_full_disk_is_told_with_path_and_bytes_and_nothing_is_lost(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, {"step": step})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with no_file_above(5000), pytest.raises(InputError) as caught:
        save_checkpoint(tmp_path, {"step": 3, "x": torch.zeros(10_000)})
    assert f"cannot write {tmp_path / NEWEST} (about 40000 bytes): " in str(caught.value)
    assert "make room and start the same command again" in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_disk_that_is_found_to_be_full_at_the_last_moment_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, {"step": 1})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device; make room"):
        save_checkpoint(tmp_path, {"step": 2})
    assert names(tmp_path) == {NEWEST}
    assert load_checkpoint(tmp_path)["step"] == 1


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_offers_the_one_before(tmp_path: Path, share: float) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, {"step": step, "x": torch.zeros(1000)})
    whole = (tmp_path / NEWEST).read_bytes()
    (tmp_path / NEWEST).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError) as caught:
        load_checkpoint(tmp_path)
    assert f"the one before it is {tmp_path / PREVIOUS}: rename that to {NEWEST}" in str(caught.value)
    (tmp_path / PREVIOUS).rename(tmp_path / NEWEST)
    assert load_checkpoint(tmp_path)["step"] == 1


def test_zeros_that_a_dying_machine_left_offer_the_one_before(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, {"step": step})
    (tmp_path / NEWEST).write_bytes(bytes(len((tmp_path / NEWEST).read_bytes())))
    with pytest.raises(InputError, match=f"the one before it is .*: rename that to {NEWEST}"):
        load_checkpoint(tmp_path)


def test_a_flipped_byte_is_found_and_offers_the_one_before(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, {"step": step, "x": torch.zeros(1000)})
    content = bytearray((tmp_path / NEWEST).read_bytes())
    content[content.find(bytes(2000)) + 1000] ^= 1
    (tmp_path / NEWEST).write_bytes(content)
    with pytest.raises(InputError, match=f"the one before it is .*: rename that to {NEWEST}"):
        load_checkpoint(tmp_path)


def test_between_the_two_renames_the_one_before_is_there(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"step": 1})
    (tmp_path / NEWEST).rename(tmp_path / PREVIOUS)
    assert load_checkpoint(tmp_path)["step"] == 1


class Canary:
    """Would make a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("plain", [False, True])
def test_code_in_a_checkpoint_is_never_run(tmp_path: Path, plain: bool) -> None:
    canary = tmp_path / "canary"
    run = tmp_path / "run"
    run.mkdir()
    if plain:
        (run / NEWEST).write_bytes(pickle.dumps(Canary(canary)))
    else:
        torch.save({"format": "poise.checkpoint", "schema": 1, "step": Canary(canary)}, run / NEWEST)
    with pytest.raises(
        InputError, match="it is no whole archive" if plain else "objects that are no tensors, .* nothing was read"
    ):
        load_checkpoint(run)
    assert not canary.exists()


def test_files_of_others_and_of_newer_versions_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / NEWEST)
    with pytest.raises(InputError, match="is no checkpoint of Poise"):
        load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, {"schema": 99})
    with pytest.raises(InputError, match="has schema 99, this version reads up to 1; update poise"):
        load_checkpoint(tmp_path)


def test_what_a_killed_writer_left_is_swept_away(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"step": 1})
    (tmp_path / f".{NEWEST}.abc.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    sweep(tmp_path)
    assert names(tmp_path) == {NEWEST, "notes.txt"}


def test_a_folder_that_takes_no_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write into .*file.run \(Not a directory\); choose another folder"):
        sweep(tmp_path / "file" / "run")
