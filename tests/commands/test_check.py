"""`check`: what an artefact is, and every way in which it is not intact, in one sentence each."""

import hashlib
import json
import os

import pytest
import torch
from safetensors.torch import save_file

from poise.commands.artefact_check import check_path
from poise.data.store.feature_store import save_features
from poise.deployment.checkpoint_copy import REBALANCED, note_path
from poise.deployment.model import Model, load
from poise.errors import InputError
from poise.export.tensors import export_safetensors
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head


def stored(path, rows=9):
    y = torch.arange(rows) % 3
    return save_features(
        Features(torch.arange(rows * 2.0).view(rows, 2), y, ClassCounts.from_labels(y)), path, shard_rows=4
    )


def modelled(path):
    head = Head(torch.eye(2), torch.zeros(2))
    return Model(head=head, class_names=("a", "b"), counts=ClassCounts(torch.tensor([5, 2])), prior_applied=None,
                 method="ce").save(path)  # fmt: skip


def recorded(path, lines=3):
    path.mkdir()
    (path / "records.jsonl").write_text("".join(json.dumps({"method": f"m{i}"}) + "\n" for i in range(lines)))
    return path


def flipped(path, place=-1):
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (stored, "feature store"),
        (modelled, "model"),
        (recorded, "records"),
        (lambda path: Head(torch.eye(2), torch.zeros(2)).save(path.with_suffix(".safetensors")), "head"),
    ],
)
def test_intact_artefacts_are_recognised_and_have_no_problem(tmp_path, make, kind):
    assert check_path(make(tmp_path / "ein Artefakt é")) == (kind, [])


def test_a_flipped_bit_in_a_shard_is_found(tmp_path):
    folder = stored(tmp_path / "store")
    flipped(folder / "00001.safetensors")
    kind, problems = check_path(folder)
    assert kind == "feature store"
    assert problems == ["00001.safetensors is damaged: its sha256 is not that of the manifest"]


def test_a_store_without_manifest_is_called_unfinished(tmp_path):
    folder = stored(tmp_path / "store")
    (folder / "manifest.json").unlink()
    assert check_path(folder)[1] == [
        f"{folder / 'manifest.json'} is missing: {folder} holds no finished features; restore it from a copy, or write "
        "the features again"
    ]


def test_an_empty_folder_is_an_unfinished_store(tmp_path):
    kind, problems = check_path(tmp_path)
    assert kind == "feature store"
    assert problems == [
        f"{tmp_path / 'manifest.json'} is missing: {tmp_path} holds no finished features; restore it from a copy, or "
        "write the features again"
    ]


def test_a_missing_and_a_cut_shard_are_both_named(tmp_path):
    folder = stored(tmp_path / "store")
    (folder / "00000.safetensors").unlink()
    cut = folder / "00001.safetensors"
    size = cut.stat().st_size
    cut.write_bytes(cut.read_bytes()[:-8])
    problems = check_path(folder)[1]
    assert "00000.safetensors is missing" in problems
    assert f"00001.safetensors has {size - 8} bytes instead of {size}, so it was cut short or replaced" in problems


@pytest.mark.parametrize("file", ["head.safetensors", "model.json"])
def test_a_model_that_lacks_a_file_is_named(tmp_path, file):
    folder = modelled(tmp_path / "model")
    (folder / file).unlink()
    kind, problems = check_path(folder)
    assert kind == "model"
    assert len(problems) == 1
    assert f"{folder / file} is missing" in problems[0]


def test_a_changed_head_and_a_stranger_in_the_folder_are_named(tmp_path):
    folder = modelled(tmp_path / "model")
    flipped(folder / "head.safetensors")
    (folder / "notes.txt").write_text("mine")
    assert check_path(folder)[1] == [
        f"{folder / 'head.safetensors'} is not the file that model.json describes (SHA-256 differs); save the model "
        "again",
        f"{folder / 'notes.txt'} does not belong to the model; move it elsewhere",
    ]


@pytest.mark.parametrize("line", ['{"method": "m', "[1]", "", "nonsense"])
def test_a_line_that_is_no_record_is_named_by_its_number(tmp_path, line):
    folder = recorded(tmp_path / "run")
    path = folder / "records.jsonl"
    path.write_text(path.read_text() + line + "\n")
    assert check_path(folder) == ("records", [f"{path}, line 4 is no record: it is cut off or was changed"])


def test_records_that_were_emptied_are_no_intact_records(tmp_path):
    folder = recorded(tmp_path / "run", lines=0)
    assert check_path(folder)[1] == [f"{folder / 'records.jsonl'} holds no record"]


def test_records_that_are_no_text_are_named(tmp_path):
    folder = recorded(tmp_path / "run")
    (folder / "records.jsonl").write_bytes(b"\xff\xfe{}")
    (problem,) = check_path(folder)[1]
    assert problem.startswith(f"{folder / 'records.jsonl'} is not UTF-8 (byte 1); ")


def test_a_damaged_head_file_is_one_problem(tmp_path):
    path = Head(torch.eye(2), torch.zeros(2)).save(tmp_path / "head.safetensors")
    path.write_bytes(path.read_bytes()[:20])
    kind, problems = check_path(path)
    assert kind == "head"
    assert len(problems) == 1
    assert problems[0].startswith(f"{path} cannot be read as a head: ")


def test_a_path_with_nothing_at_it_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no file or folder"):
        check_path(tmp_path / "nothing")


def rebalanced(folder, name="m.rebalanced.safetensors"):
    """A checkpoint beside the note on it, as `rebalance` leaves them; the note is that of a folder for another name."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    save_file({"fc.weight": torch.eye(2)}, path)
    about = {"file": name, "bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    note = note_path(path) if name.startswith("m.") else folder / "rebalanced.json"
    REBALANCED.write(note, {"files": [{"before": about, "after": about}]})
    return path


def test_a_rebalanced_file_is_compared_with_its_note(tmp_path):
    path = rebalanced(tmp_path)
    assert check_path(path) == ("re-balanced checkpoint", [])
    flipped(path)
    assert check_path(path)[1] == [
        f"{path} is not the file that m.rebalanced.json describes (SHA-256 differs); make it again"
    ]
    note_path(path).write_text("{")
    (problem,) = check_path(path)[1]
    assert problem.startswith(f"{note_path(path)} is no JSON (")
    assert problem.endswith("); re-balance it again")


def test_the_checkpoint_itself_is_not_taken_for_the_copy_that_its_note_describes(tmp_path):
    rebalanced(tmp_path)
    own = Head(torch.eye(2), torch.zeros(2)).save(tmp_path / "m.safetensors")
    assert check_path(own) == ("head", [])


def test_a_rebalanced_folder_is_compared_with_its_note(tmp_path):
    path = rebalanced(tmp_path / "m.rebalanced", "model.safetensors")
    assert check_path(path.parent) == ("re-balanced checkpoint", [])
    path.unlink()
    assert check_path(path.parent)[1] == [f"{path} cannot be read: No such file or directory; make it again"]


def test_an_exported_head_that_is_a_pipe_or_a_link_to_itself_is_not_waited_for(tmp_path):
    export_safetensors(load(modelled(tmp_path / "model")), tmp_path / "out")
    head = tmp_path / "out" / "head.safetensors"
    head.unlink()
    os.mkfifo(head)
    assert check_path(tmp_path / "out")[1] == [f"{head} is a pipe, not a file; make it again"]
    head.unlink()
    head.symlink_to(head.name)
    (found,) = check_path(tmp_path / "out")[1]
    assert found.startswith(f"{head} cannot be read: ")


def test_an_exported_head_is_compared_with_its_note_as_folder_and_as_file(tmp_path):
    modelled(tmp_path / "model")
    head, _ = export_safetensors(load(tmp_path / "model"), tmp_path / "out")
    assert check_path(tmp_path / "out") == check_path(head) == ("exported head", [])
    flipped(head)
    found = [f"{head} is not the file that head.json describes (SHA-256 differs); make it again"]
    assert check_path(tmp_path / "out") == check_path(head) == ("exported head", found)
