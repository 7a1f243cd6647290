"""`check`: what an artefact is, and every way in which it is not intact, in one sentence each."""

import hashlib
import json
import os
import random

import pytest
import torch
from safetensors.torch import save_file

from poise.commands import run_folder
from poise.commands.artefact_check import check_path, checked
from poise.data.store.feature_store import save_features
from poise.deployment.checkpoint_copy import note_path, write_copy
from poise.deployment.last_layer import open_checkpoint
from poise.deployment.model import Model, load
from poise.diagnosis.compare import compare
from poise.diagnosis.report_contents import contents_of
from poise.errors import InputError
from poise.export.hub_folder import export_hub
from poise.export.tensors import export_safetensors
from poise.machine.folders import REMEDY, SEAL, digest_of, generation, seal
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem


def stored(path, rows=9):
    y = torch.arange(rows) % 3
    return save_features(
        Features(torch.arange(rows * 2.0).view(rows, 2), y, ClassCounts.from_labels(y)), path, shard_rows=4
    )


def unsealed(folder):
    """As an earlier version left it."""
    (folder / SEAL).unlink()
    return folder


def modelled(path):
    head = Head(torch.eye(2), torch.zeros(2))
    return Model(head=head, class_names=("a", "b"), counts=ClassCounts(torch.tensor([5, 2])), prior_applied=None,
                 method="ce").save(path)  # fmt: skip


def recorded(path, lines=3):
    path.mkdir()
    (path / "records.jsonl").write_text("".join(json.dumps({"method": f"m{i}"}) + "\n" for i in range(lines)))
    return path


def exported(path):
    """Head, note, and a folder for the hub, as one."""
    made = load(modelled(path.with_name("source")))
    with generation(path) as stage:
        export_safetensors(made, stage)
        export_hub(made, stage / "hub")
    return path


def compared(path):
    """A comparison with its report, figures left out."""
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    y = torch.arange(60) % 3
    x[torch.arange(60), y] += 2
    rows = Features(x, y, ClassCounts.from_labels(y), False)
    train, test = rows.take(torch.arange(0, 60, 2)), rows.take(torch.arange(1, 60, 2))
    head = Head(torch.eye(3), torch.zeros(3))
    problem = Problem(train, head)
    found = compare(["ncm"], problem, test, selection="kfold")
    page = contents_of(found, test, title="t", problem=problem)
    with generation(path) as stage:
        run_folder.write(stage, found, contents=page)
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
    folder = unsealed(stored(tmp_path / "store"))
    flipped(folder / "00001.safetensors")
    kind, problems = check_path(folder)
    assert kind == "feature store"
    assert problems == ["00001.safetensors is damaged: its sha256 is not that of the manifest"]


def test_a_store_without_manifest_is_called_unfinished(tmp_path):
    folder = unsealed(stored(tmp_path / "store"))
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
    folder = unsealed(stored(tmp_path / "store"))
    (folder / "00000.safetensors").unlink()
    cut = folder / "00001.safetensors"
    size = cut.stat().st_size
    cut.write_bytes(cut.read_bytes()[:-8])
    problems = check_path(folder)[1]
    assert "00000.safetensors is missing" in problems
    assert f"00001.safetensors has {size - 8} bytes instead of {size}, so it was cut short or replaced" in problems


@pytest.mark.parametrize("file", ["head.safetensors", "model.json"])
def test_a_model_that_lacks_a_file_is_named(tmp_path, file):
    folder = unsealed(modelled(tmp_path / "model"))
    (folder / file).unlink()
    kind, problems = check_path(folder)
    assert kind == "model"
    assert len(problems) == 1
    assert f"{folder / file} is missing" in problems[0]


def test_a_changed_head_and_a_stranger_in_the_folder_are_named(tmp_path):
    folder = unsealed(modelled(tmp_path / "model"))
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
    said = {"format": "poise.rebalanced", "schema": 1, "files": [{"before": about, "after": about}]}  # the first one
    note.write_text(json.dumps(said))
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


@pytest.mark.parametrize("name", ["", ".", "/", ".."])
def test_an_exported_head_whose_note_names_no_file_is_refused(tmp_path, name):
    export_safetensors(load(modelled(tmp_path / "model")), tmp_path / "out")
    (tmp_path / "out" / "SHA256SUMS").unlink(missing_ok=True)
    note = tmp_path / "out" / "head.json"
    body = json.loads(note.read_text())
    note.write_text(json.dumps({**body, "head": {**body["head"], "file": name}}))
    (said,) = check_path(tmp_path / "out")[1]
    assert said.endswith("is a folder, not a file; make it again")


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


# --- sealed folders ---------------------------------------------------------------------------------------------------


def test_a_users_own_file_in_a_sealed_model_is_no_problem_and_what_was_written_with_it_is_none(tmp_path):
    folder = modelled(tmp_path / "model")
    with generation(folder) as stage:
        (stage / "report.md").write_text("")
        (stage / "representation").mkdir()
        (stage / "representation" / "x").write_text("")
    assert check_path(folder) == ("model", [])
    (folder / "notes.txt").write_text("mine")
    assert check_path(folder) == ("model", [])
    (folder / "report.md").write_text("changed")
    (problem,) = check_path(folder)[1]
    assert problem.startswith(f"{folder / 'report.md'} is not the file that was written")


def test_every_file_of_a_sealed_folder_is_named_that_is_missing_or_changed(tmp_path):
    folder = modelled(tmp_path / "model")
    flipped(folder / "head.safetensors")
    (folder / "model.json").unlink()
    assert check_path(folder) == (
        "folder",
        [
            f"{folder / 'head.safetensors'} is not the file that was written: its SHA-256 is not that of "
            f"{folder / SEAL}; {REMEDY}",
            f"{folder / 'model.json'} cannot be read: No such file or directory; {REMEDY}",
        ],
    )


def test_a_seal_that_agrees_with_a_file_that_no_one_can_read_does_not_make_it_intact(tmp_path):
    folder = stored(tmp_path / "store")
    (folder / "manifest.json").write_text("{")
    seal(folder, ["manifest.json"], adds=True)
    (problem,) = check_path(folder)[1]
    assert "manifest.json" in problem


def test_the_digest_of_a_folder_is_that_of_its_seal_and_of_a_file_that_of_its_note(tmp_path):
    folder = modelled(tmp_path / "model")
    assert checked(folder).digest == digest_of(folder) == hashlib.sha256((folder / SEAL).read_bytes()).hexdigest()
    assert checked(unsealed(folder)).digest is None
    head, note = export_safetensors(load(folder), tmp_path / "out")
    assert checked(head).digest == hashlib.sha256(note.read_bytes()).hexdigest()
    own = Head(torch.eye(2), torch.zeros(2)).save(tmp_path / "h.safetensors")
    assert checked(own).digest == hashlib.sha256(own.read_bytes()).hexdigest()


def test_every_flipped_bit_of_a_note_on_a_checkpoint_is_found(tmp_path):
    made = {"fc.weight": torch.tensor([[1e-5, 2.0]]), "fc.bias": torch.zeros(1)}
    save_file(made, tmp_path / "m.safetensors")
    checkpoint = open_checkpoint(tmp_path / "m.safetensors")
    path = tmp_path / "m.rebalanced.safetensors"
    write_copy(checkpoint, path, [], {"layer": "fc \u00e9", "tau": 1e-05})
    assert check_path(path) == ("re-balanced checkpoint", [])
    note = note_path(path)
    content = note.read_bytes()
    for place in random.Random(0).sample(range(8 * len(content)), 500):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        note.write_bytes(changed)
        assert check_path(path)[1], (place, bytes(changed))


FLIPS = 2000


@pytest.mark.parametrize("make", [stored, modelled, exported, compared])
def test_every_one_of_many_random_flips_is_found(tmp_path, make):
    folder = make(tmp_path / "made")
    assert check_path(folder)[1] == []
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    contents = {path: path.read_bytes() for path in files}
    chance = random.Random(0)
    missed = []
    for _ in range(FLIPS // 4):
        path = chance.choice(files)
        changed = bytearray(contents[path])
        place = chance.randrange(8 * len(changed))
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        if not check_path(folder)[1]:
            missed.append((path, place))
        path.write_bytes(contents[path])
    assert missed == []
    assert check_path(folder)[1] == []
