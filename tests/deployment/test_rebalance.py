"""A checkpoint with a new last layer: only its bytes change, and it loads and answers as promised."""

import errno
import hashlib
import json
import os
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from poise.cli import main
from poise.commands.artefact_check import check_path
from poise.deployment import checkpoint_copy
from poise.deployment.checkpoint_copy import default_out, destination, note_path
from poise.deployment.last_layer import encoded, find_layer, open_checkpoint, read_layer
from poise.deployment.past_rebalancing import KEY, Past
from poise.deployment.rebalance import class_names_of, in_order, rebalance
from poise.errors import InputError
from poise.machine import atomic, locks
from poise.machine.folders import differences
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.problem import Problem

SIZES = (90, 40, 12)
NAMES = ("zebra", "ant", "cat")
DIM = 6
KINDS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def rows(sizes=SIZES, seed=0, seen=True, names=None, dim=DIM):
    """Overlapping Gaussian classes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    x = torch.randn(len(y), dim, generator=generator) + 1.5 * torch.eye(len(sizes), dim)[y]
    return Features(x, y, ClassCounts(torch.tensor(SIZES)), seen, names)


def problem(**more):
    return Problem(rows(**more), None, rows((40, 40, 40), 1, seen=False, **more))


def bayes(dtype=torch.float32, dim=DIM):
    """The layer that the training distribution calls for."""
    means = 1.5 * torch.eye(3, dim)
    return means.to(dtype), (torch.tensor(SIZES).log() - means.square().sum(dim=1) / 2).to(dtype)


def tensors(dtype=torch.float32, name="head.fc", **more):
    weight, bias = bayes(dtype)
    return {
        "zz.weight": torch.arange(8.0).reshape(2, 4),
        f"{name}.weight": weight,
        "bn.num_batches_tracked": torch.tensor(7),
        f"{name}.bias": bias,
        "aa.weight": torch.randn(5, 5, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16),
        **more,
    }


def checkpoint(folder, dtype=torch.float32, **more):
    path = folder / "ein Modell é.safetensors"
    save_file(tensors(dtype, **more), path, metadata={"format": "pt", "who": "É", "a": "b"})
    return path


def run(path, given=None, *, layer=None, out=None, **more):
    found = open_checkpoint(path)
    given = given or problem()
    chosen = find_layer(found, classes=len(given.train.counts), dim=given.train.dim, name=layer)
    return rebalance(found, chosen, given, out or default_out(path), **more)


def header(path):
    content = path.read_bytes()
    return content[: 8 + int.from_bytes(content[:8], "little")]


def same_but_for_metadata(one, other):
    """Do the headers list the same tensors, in the same order and places, and start the tensors at a multiple of 8?"""
    tables = [json.loads(header(file)[8:]) for file in (one, other)]
    listed = [[item for item in table.items() if item[0] != "__metadata__"] for table in tables]
    return listed[0] == listed[1] and len(header(other)) % 8 == 0


def refusal(act, folder="\0"):
    with pytest.raises(InputError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(folder), "FOLDER")


# --- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_bytes_of_the_last_layer_change_in_every_type(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(checkpoint_copy, "PIECE", 7)  # pieces that end anywhere
    path = checkpoint(tmp_path, KINDS[kind])
    before = path.read_bytes()
    done = run(path, method="logit_adjustment(tau=1.0)")
    result = tmp_path / "ein Modell é.rebalanced.safetensors"
    assert done.written == (result, tmp_path / "ein Modell é.rebalanced.json")
    assert path.read_bytes() == before
    assert same_but_for_metadata(path, result)
    old, new = load_file(path), load_file(result)
    assert {name for name in old if not torch.equal(old[name], new[name])} == {"head.fc.weight", "head.fc.bias"}
    assert {name: value.dtype for name, value in new.items()} == {name: value.dtype for name, value in old.items()}
    assert torch.equal(new["head.fc.weight"].double(), done.model.head.weight)
    assert torch.equal(new["head.fc.bias"].double(), done.model.head.bias)
    with safe_open(path, "pt") as one, safe_open(result, "pt") as other:
        kept = other.metadata()
        assert kept.pop(KEY)
        assert one.metadata() == kept == {"format": "pt", "who": "É", "a": "b"}
    layer = done.layer
    inside = [range(place.begin, place.end) for place in (layer.weight, layer.bias)]
    ends = [len(header(file)) for file in (path, result)]
    pairs = zip(before[ends[0] :], result.read_bytes()[ends[1] :], strict=True)
    changed = [ends[0] + i for i, (a, b) in enumerate(pairs) if a != b]
    assert all(any(i in span for span in inside) for i in changed)


def test_the_layer_answers_as_the_chosen_head_and_rarer_classes_gain(tmp_path):
    given = problem()
    done = run(checkpoint(tmp_path), given, method="logit_adjustment(tau=1.0)")
    new = load_file(done.written[0])
    x = given.held_out.x[0]
    logits = x @ new["head.fc.weight"].T + new["head.fc.bias"]
    assert torch.allclose(logits.double(), done.model.head(x), atol=1e-5)
    right = (logits.argmax(dim=1) == given.held_out.y)[given.held_out.y == 2].float().mean()
    assert done.after.per_class[2] == pytest.approx(float(right))
    old = x @ bayes()[0].T + bayes()[1]
    assert done.before.accuracy == pytest.approx(float((old.argmax(dim=1) == given.held_out.y).float().mean()))
    assert done.after.per_class[2] > done.before.per_class[2]


def test_the_note_says_what_was_done_with_digests_of_both_files(tmp_path):
    path = checkpoint(tmp_path)
    done = run(path, method="tau_norm(tau=0.5)", prior=[0.2, 0.3, 0.5], seed=4)
    note = json.loads(done.written[1].read_text(encoding="utf-8"))
    before, after = (hashlib.sha256(file.read_bytes()).hexdigest() for file in (path, done.written[0]))
    sizes = [file.stat().st_size for file in (path, done.written[0])]
    assert note["files"] == [
        {
            "before": {"file": path.name, "bytes": sizes[0], "sha256": before},
            "after": {"file": done.written[0].name, "bytes": sizes[1], "sha256": after},
        }
    ]
    assert note["layer"] == {"weight": "head.fc.weight", "bias": "head.fc.bias", "shape": [3, 6], "type": "F32"}
    assert (note["format"], note["schema"], note["method"]) == ("poise.rebalanced", 2, "tau_norm(tau=0.5)")
    assert note["prior_applied"] == [0.2, 0.3, 0.5]
    assert note["counts"] == list(SIZES)
    assert note["held_out"]["balanced_accuracy"] == {
        "before": done.before.balanced_accuracy,
        "after": done.after.balanced_accuracy,
    }
    assert note["held_out"]["recall_for_prior"]["after"] == pytest.approx(
        np.dot([0.2, 0.3, 0.5], done.after.per_class), abs=1e-12
    )
    assert note["provenance"]["seed"] == 4


def test_the_same_input_gives_the_same_bytes(tmp_path):
    path = checkpoint(tmp_path)
    found = [run(path, method="crt(epochs=2)", seed=3).written for _ in range(2)]
    content = [[file.read_bytes() for file in written] for written in found]
    assert content[0] == content[1]


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_rounding_is_measured_on_the_held_out_rows(tmp_path, kind):
    given = problem()
    coarse = run(checkpoint(tmp_path, KINDS[kind]), given, method="tau_norm(tau=0.5)")
    assert coarse.rounding.kind == kind
    assert 0 < coarse.rounding.moved < {"F16": 0.02, "BF16": 0.2}[kind]
    fine = run(checkpoint(tmp_path), given, method="tau_norm(tau=0.5)")
    assert fine.rounding.moved < 1e-6
    assert fine.rounding.changed == 0


def test_a_value_too_large_for_float16_is_refused(tmp_path):
    layer = find_layer(open_checkpoint(checkpoint(tmp_path, torch.float16)), classes=3, dim=DIM)
    assert refusal(lambda: encoded(layer.bias, torch.tensor([0.0, 1e6, 1.0]))) == (
        "head.fc.bias is stored as F16, which cannot hold the value 1e+06 of the new layer; convert the checkpoint to "
        "float32 first"
    )


# --- finding the layer ------------------------------------------------------------------------------------------------


def layer_in(folder, *, classes=3, dim=DIM, name=None, **content):
    save_file(content, folder / "m.safetensors")
    return find_layer(open_checkpoint(folder / "m.safetensors"), classes=classes, dim=dim, name=name)


@pytest.mark.parametrize("name", ["fc", "head", "classifier", "module.head.fc", "last_linear"])
def test_the_layer_is_found_by_its_shape_whatever_its_name(tmp_path, name):
    found = find_layer(open_checkpoint(checkpoint(tmp_path, name=name)), classes=3, dim=DIM)
    assert (found.name, found.weight.name, found.bias.name) == (name, f"{name}.weight", f"{name}.bias")
    assert torch.equal(read_layer(found).weight, bayes()[0])


def test_names_without_a_layer_before_them_are_found(tmp_path):
    found = layer_in(tmp_path, weight=torch.zeros(3, DIM), bias=torch.zeros(3))
    assert (found.name, found.bias.name) == ("weight", "bias")


def test_a_convolution_of_one_pixel_is_a_layer(tmp_path):
    weight, _ = bayes()
    path = checkpoint(tmp_path, **{"head.fc.weight": weight.reshape(3, DIM, 1, 1)})
    done = run(path, method="logit_adjustment(tau=1.0)")
    new = load_file(done.written[0])["head.fc.weight"]
    assert new.shape == (3, DIM, 1, 1)
    assert torch.equal(new.reshape(3, DIM).double(), done.model.head.weight)


def test_of_two_layers_the_one_with_a_bias_is_taken(tmp_path):
    w = torch.zeros(3, DIM)
    assert layer_in(tmp_path, **{"a.weight": w, "b.weight": w.clone(), "b.bias": torch.zeros(3)}).name == "b"


def test_several_layers_of_the_shape_are_named_and_one_can_be_chosen(tmp_path):
    w, b = torch.zeros(3, DIM), torch.zeros(3)
    content = {"head.weight": w, "head.bias": b, "head_dist.weight": w.clone(), "head_dist.bias": b.clone()}
    assert refusal(lambda: layer_in(tmp_path, **content), tmp_path) == (
        "FOLDER/m.safetensors holds 2 layers from 6 features to 3 classes: head, head_dist; name the last one (layer=)"
    )
    for name in ("head", "head.weight"):
        found = layer_in(tmp_path, name=name, **content)
        assert (found.name, found.alike) == ("head", ("head_dist.weight",))


def test_no_layer_of_the_shape_is_told_with_those_that_there_are(tmp_path):
    content = {"body.weight": torch.zeros(4, 9), "fc.weight": torch.zeros(10, DIM), "fc.bias": torch.zeros(10)}
    assert refusal(lambda: layer_in(tmp_path, **content), tmp_path) == (
        "FOLDER/m.safetensors holds no layer from 6 features to 3 classes; of 6 features it has fc.weight (10, 6): "
        "name the last one (layer=), or give all its class names"
    )
    assert refusal(lambda: layer_in(tmp_path, dim=7, **content), tmp_path) == (
        "FOLDER/m.safetensors holds no layer from 7 features to 3 classes; it has fc.weight (10, 6), body.weight "
        "(4, 9): give what its last layer reads as features"
    )
    assert refusal(lambda: layer_in(tmp_path, name="fcc", **content), tmp_path) == (
        "FOLDER/m.safetensors holds no linear layer 'fcc', did you mean 'fc'?"
    )
    assert refusal(lambda: layer_in(tmp_path, name="body", **content), tmp_path) == (
        "body.weight of FOLDER/m.safetensors reads 9 features, the rows have 6"
    )


def test_a_quantised_layer_is_refused(tmp_path):
    content = {"fc.weight": torch.zeros(3, DIM, dtype=torch.int8), "fc.bias": torch.zeros(3)}
    assert refusal(lambda: layer_in(tmp_path, **content), tmp_path) == (
        "fc.weight of FOLDER/m.safetensors is stored as I8; only F64, F32, F16, BF16 can be changed, so rebalance the "
        "checkpoint before it is quantised"
    )


def test_a_layer_that_is_not_finite_is_refused(tmp_path):
    content = {"fc.weight": torch.full((3, DIM), torch.nan), "fc.bias": torch.zeros(3)}
    assert refusal(lambda: read_layer(layer_in(tmp_path, **content)), tmp_path) == (
        "fc of FOLDER/m.safetensors: a head's weight holds NaN or infinity"
    )


# --- heads that are no layer ------------------------------------------------------------------------------------------


def without_bias(folder):
    content = tensors()
    del content["head.fc.bias"]
    save_file(content, folder / "m.safetensors")
    return folder / "m.safetensors"


def test_a_layer_without_bias_takes_heads_that_only_scale_weights(tmp_path):
    given = problem()
    done = run(without_bias(tmp_path), given, method="tau_norm(tau=0.5)")
    new = load_file(done.written[0])
    assert "head.fc.bias" not in new
    assert torch.equal(new["head.fc.weight"].double(), done.model.head.weight)
    assert not done.model.head.bias.any()


def test_a_layer_without_bias_refuses_heads_that_need_one(tmp_path):
    path = without_bias(tmp_path)
    assert refusal(lambda: run(path, method="logit_adjustment(tau=1.0)")) == (
        "the layer head.fc has no bias, and logit_adjustment(tau=1.0) for this prior needs one that differs between "
        "classes; choose a method that only scales weights, such as 'tau_norm(tau=0.7)', with the prior uniform"
    )
    assert list(tmp_path.iterdir()) == [path]


def test_a_head_that_normalises_rows_is_refused_and_nothing_is_written(tmp_path):
    path = checkpoint(tmp_path)
    method = "ncm(transform='l2n')"
    assert refusal(lambda: run(path, method=method)).startswith(
        "the head of ncm(transform='l2n') divides each row by its norm, which a linear layer cannot do; choose method "
        "auto, or "
    )
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_auto_never_chooses_what_is_no_layer(tmp_path):
    done = run(checkpoint(tmp_path))
    assert done.model.head.prep is None
    assert done.after.balanced_accuracy >= done.before.balanced_accuracy


def test_without_held_out_rows_nothing_is_chosen(tmp_path):
    given = Problem(rows())
    assert refusal(lambda: run(checkpoint(tmp_path), given)) == (
        "to choose and calibrate for a given head, held-out rows are needed that neither it nor the backbone saw"
    )


def test_features_of_another_layer_are_remarked(tmp_path):
    given = problem()
    turned = [
        Features(part.x.flip(-1), part.y, part.counts, part.seen_by_backbone) for part in (given.train, given.held_out)
    ]
    done = run(checkpoint(tmp_path), Problem(turned[0], None, turned[1]), method="crt(epochs=1)")
    assert len(done.remarks) == 1
    assert done.remarks[0].endswith(
        "% on the training rows, hardly more than guessing: are these the features that it reads, and are the classes "
        "in its order?"
    )
    assert run(checkpoint(tmp_path), given, method="crt(epochs=1)").remarks == ()


# --- the order of the classes -----------------------------------------------------------------------------------------


def labelled(y, counts, names=None):
    return Features(torch.zeros(len(y), 2), torch.tensor(y), ClassCounts(torch.tensor(counts)), None, names)


def test_names_are_brought_into_the_order_of_the_checkpoint():
    found = in_order(labelled([0, 1, 2, 0], [7, 5, 3], ("ant", "cat", "zebra")), ("zebra", "dog", "ant", "cat"), 4, "F")
    assert found.y.tolist() == [2, 3, 0, 2]
    assert found.counts.n.tolist() == [3, 0, 7, 5]
    assert found.class_names == ("zebra", "dog", "ant", "cat")


@pytest.mark.parametrize("names", [None, ("a", "b", "c", "d", "e", "f")])
def test_integer_labels_are_the_outputs_of_the_layer_even_with_gaps(names):
    plain = in_order(labelled([0, 1, 1], [7, 5]), names, 6, "F")
    gaps = in_order(labelled([0, 1, 2], [7, 5, 3], ("0", "2", "5")), names, 6, "F")
    assert (plain.y.tolist(), plain.counts.n.tolist()) == ([0, 1, 1], [7, 5, 0, 0, 0, 0])
    assert (gaps.y.tolist(), gaps.counts.n.tolist()) == ([0, 2, 5], [7, 0, 5, 0, 0, 3])
    assert gaps.class_names == names


def test_numbers_that_are_names_are_matched_as_names():
    assert in_order(labelled([0, 1], [7, 5], ("3", "7")), ("7", "3"), 2, "F").y.tolist() == [1, 0]


def test_an_order_that_is_not_known_is_refused():
    words = labelled([0, 1], [7, 5], ("ant", "cat"))
    assert refusal(lambda: in_order(words, None, 2, "F.csv")) == (
        "F.csv has labels by name, such as 'ant', and the order of the classes in the checkpoint is not known; give "
        "the names in its order (class_names=), or label the rows 0, 1, ..."
    )
    assert refusal(lambda: in_order(words, ("ant", "cut"), 2, "F.csv")) == (
        "F.csv: 'cat' is none of the 2 classes, did you mean 'cut'?"
    )
    assert refusal(lambda: in_order(words, ("ant", "cat"), 3, "F.csv")) == (
        "there are 2 class names for a layer of 3 outputs; give one for each"
    )
    assert refusal(lambda: in_order(labelled([0, 3], [7, 0, 0, 5]), None, 3, "F.csv")) == (
        "F.csv: '3' is none of the 3 classes; they are '0', '1', '2'"
    )


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("names.txt", "zebra\nant\n\ncat\n"),
        ("names.json", '["zebra", "ant", "cat"]'),
        ("other.json", '{"label_names": ["zebra", "ant", "cat"]}'),
        ("config.json", '{"id2label": {"2": "cat", "0": "zebra", "1": "ant"}}'),
        ("config.json", '{"architecture": "x", "pretrained_cfg": {"label_names": ["zebra", "ant", "cat"]}}'),
    ],
)
def test_class_names_are_read_from_what_the_libraries_write(tmp_path, file, content):
    path = checkpoint(tmp_path)
    (tmp_path / file).write_text(content, encoding="utf-8")
    given = None if file == "config.json" else tmp_path / file
    assert class_names_of(open_checkpoint(path), given) == NAMES


@pytest.mark.parametrize("content", ["{", '{"id2label": {"1": "a"}}', '{"label_names": [1, 2]}', "[]", '"x"'])
def test_a_config_without_names_says_nothing_and_a_given_file_is_refused(tmp_path, content):
    found = open_checkpoint(checkpoint(tmp_path))
    (tmp_path / "config.json").write_text(content)
    assert class_names_of(found) is None
    assert refusal(lambda: class_names_of(found, tmp_path / "config.json"), tmp_path) == (
        "FOLDER/config.json holds no class names: give a JSON list of them, label_names or id2label"
    )


# --- places -----------------------------------------------------------------------------------------------------------


def hub(folder, sharded=False):
    """A folder as the hub has it."""
    root = folder / "hub"
    (root / "sub").mkdir(parents=True)
    (root / "config.json").write_text(json.dumps({"label_names": NAMES}))
    (root / "README.md").write_text("card")
    (root / "sub" / "notes.txt").write_text("x")
    content = tensors()
    if not sharded:
        save_file(content, root / "model.safetensors")
        return root
    where = {name: f"model-0000{1 + name.endswith('bias')}-of-00002.safetensors" for name in content}
    for shard in set(where.values()):
        save_file({name: value for name, value in content.items() if where[name] == shard}, root / shard)
    (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return root


@pytest.mark.parametrize("sharded", [False, True])
def test_a_folder_comes_back_with_the_same_files(tmp_path, sharded):
    root = hub(tmp_path, sharded)
    done = run(root, method="logit_adjustment(tau=1.0)")
    result = tmp_path / "hub.rebalanced"
    assert done.written == (result, result / "rebalanced.json")
    before, after = (
        {file.relative_to(base).as_posix(): file.read_bytes() for file in base.rglob("*") if file.is_file()}
        for base in (root, result)
    )
    assert set(after) == {*before, "rebalanced.json", "SHA256SUMS"}
    assert differences(result) == []
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if name.endswith(".safetensors")}
    again = find_layer(open_checkpoint(result), classes=3, dim=DIM)
    assert torch.equal(read_layer(again).weight.double(), done.model.head.weight)
    assert torch.equal(read_layer(again).bias.double(), done.model.head.bias)
    assert len(json.loads((result / "rebalanced.json").read_text())["files"]) == 1 + sharded
    run(root, method="stage1")  # an earlier result may be replaced
    assert sorted(file.name for file in tmp_path.iterdir()) == ["hub", "hub.rebalanced"]


def test_weights_in_other_formats_are_left_out_and_named(tmp_path):
    root = hub(tmp_path)
    (root / "pytorch_model.bin").write_bytes(b"old")
    done = run(root, method="stage1")
    assert not (tmp_path / "hub.rebalanced" / "pytorch_model.bin").exists()
    assert done.remarks == (f"{root}/pytorch_model.bin was left out of the result: it may hold the old layer",)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_checkpoint_itself_is_replaced_only_when_told(tmp_path, kind):
    path = checkpoint(tmp_path) if kind == "file" else hub(tmp_path)
    assert refusal(lambda: run(path, out=path, method="stage1"), path) == (
        "FOLDER is the checkpoint itself; choose another place, or allow it (overwrite=True)"
    )
    done = run(path, out=path, method="logit_adjustment(tau=1.0)", overwrite=True)
    again = find_layer(open_checkpoint(path), classes=3, dim=DIM)
    assert torch.equal(read_layer(again).bias.double(), done.model.head.bias)
    assert note_path(path).is_file()


# --- once only --------------------------------------------------------------------------------------------------------

SHIFT = "logit_adjustment(tau=1.0)"


def content(path):
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    return [file.read_bytes() for file in files]


@pytest.mark.parametrize("kind", ["file", "folder", "shards"])
def test_the_same_request_again_changes_nothing_but_writes_a_missing_note_as_it_was(tmp_path, kind):
    path = checkpoint(tmp_path) if kind == "file" else hub(tmp_path, sharded=kind == "shards")
    run(path, out=path, method=SHIFT, overwrite=True)
    once, note = content(path), note_path(path).read_bytes()
    for _ in range(2):
        again = run(path, out=path, method=SHIFT, overwrite=True)
        assert isinstance(again, Past)
        assert (again.method, content(path)) == (SHIFT, once)
        assert note_path(path).read_bytes() == note
        note_path(path).unlink()  # as if killed before it was written


def test_a_file_is_known_without_its_note_and_a_layer_that_was_changed_since_is_told(tmp_path):
    path = run(checkpoint(tmp_path), method=SHIFT).written[0]
    note_path(path).unlink()
    assert check_path(path) == ("re-balanced checkpoint", [])
    data = bytearray(path.read_bytes())
    place = open_checkpoint(path).places["head.fc.bias"].begin
    data[place] ^= 1
    path.write_bytes(data)
    (said,) = check_path(path)[1]
    assert said.startswith(f"head.fc.bias of {path} is not as re-balancing left head.fc: it was changed since; ")


@pytest.mark.parametrize("at", ["its own", "another"])
def test_a_file_is_never_beside_the_note_on_another(tmp_path, monkeypatch, at):
    path = checkpoint(tmp_path)
    out = path if at == "its own" else tmp_path / "new.safetensors"
    run(path, out=tmp_path / "new.safetensors", method=SHIFT)
    note = note_path(out)
    note.write_text("on what was there before")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint_copy, "write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        run(path, out=out, method="tau_norm(tau=0.5)", overwrite=True)
    assert not note.exists()
    assert check_path(out) == ("re-balanced checkpoint", [])


def test_a_file_that_cannot_be_copied_keeps_the_note_of_the_earlier_one(tmp_path, monkeypatch):
    path = checkpoint(tmp_path)
    result = run(path, method=SHIFT).written[0]

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint_copy, "_copy", full)
    refusal(lambda: run(path, method="tau_norm(tau=0.5)"))
    assert note_path(result).is_file()


def test_the_same_request_again_deletes_what_a_killed_run_left_beside_the_folder(tmp_path):
    root = hub(tmp_path)
    run(root, out=root, method=SHIFT, overwrite=True)
    shutil.copytree(root, tmp_path / ".hub.tmp")
    assert isinstance(run(root, out=root, method=SHIFT, overwrite=True), Past)
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


@pytest.mark.parametrize("place", ["out", "in place"])
def test_a_users_own_file_and_the_seal_outlive_a_folder_that_is_rebalanced_again(tmp_path, place):
    root = hub(tmp_path)
    out = root if place == "in place" else tmp_path / "out"
    run(root, out=out, method=SHIFT, overwrite=True)
    (out / "mine.txt").write_text("mine")
    (root / "model.safetensors").unlink()
    save_file(tensors(), root / "model.safetensors")
    (out / "gone.json" if place == "out" else root / "more.json").write_text("{}")
    run(root, out=out, method="tau_norm(tau=0.5)", overwrite=True)
    assert (out / "mine.txt").read_text() == "mine"
    assert check_path(out) == ("re-balanced checkpoint", [])


@pytest.mark.parametrize(
    "more",
    [
        {"method": "logit_adjustment(tau=0.5)"},
        {"prior": "train"},
        {"seed": 1},
        {"given": Problem(rows(seed=3), None, rows((40, 40, 40), 1, seen=False))},
    ],
)
def test_another_request_is_refused_with_what_was_done_and_the_remedy(tmp_path, more):
    path = checkpoint(tmp_path)
    run(path, out=path, method=SHIFT, overwrite=True)
    once = content(path)
    said = refusal(lambda: run(path, out=path, overwrite=True, **{"method": SHIFT, **more}), path)
    assert said == (
        "head.fc of FOLDER was re-balanced before by another request (method logit_adjustment(tau=1.0), prior uniform, "
        "seed 0: logit_adjustment(tau=1.0)), and a second time would shift it twice; start from the original checkpoint"
    )
    assert content(path) == once


def test_a_renamed_result_without_its_note_is_known(tmp_path):
    result = run(checkpoint(tmp_path), method=SHIFT).written[0]
    renamed = shutil.move(result, tmp_path / "new.safetensors")
    once = content(renamed)
    assert isinstance(run(renamed, out=renamed, method=SHIFT, overwrite=True), Past)
    assert "by another request" in refusal(lambda: run(renamed, out=renamed, overwrite=True))
    assert refusal(lambda: run(renamed, method=SHIFT)).endswith(
        "would shift it twice; copy that file, or start from the original checkpoint"
    )
    assert content(renamed) == once


def test_a_layer_that_was_trained_since_can_be_rebalanced(tmp_path):
    path = run(checkpoint(tmp_path), method=SHIFT).written[0]
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(tensors(), path, metadata=metadata)  # as who keeps the metadata and trains on
    done = run(path, out=path, method="tau_norm(tau=0.5)", overwrite=True)
    assert done.model.method == "tau_norm(tau=0.5)"


def test_a_kill_between_two_shards_is_told_and_nothing_is_shifted_twice(tmp_path):
    root = hub(tmp_path, sharded=True)
    first, second = sorted(root.glob("*.safetensors"))
    old = second.read_bytes(), first.read_bytes()
    run(root, out=root, method="crt(epochs=1)", overwrite=True)
    new = second.read_bytes(), first.read_bytes()
    for contents in (old[0], new[1]), (new[0], old[1]):
        second.write_bytes(contents[0])
        first.write_bytes(contents[1])
        said = refusal(lambda: run(root, out=root, method="crt(epochs=1)", overwrite=True), root)
        assert said.endswith("interrupted between two files; start from the original checkpoint")


def test_two_layers_of_one_checkpoint_each_have_their_past(tmp_path):
    weight, bias = bayes()
    path = checkpoint(tmp_path, **{"head_dist.weight": weight.clone(), "head_dist.bias": bias.clone()})
    for layer in ("head.fc", "head_dist"):
        run(path, layer=layer, out=path, method=SHIFT, overwrite=True)
    once = content(path)
    for layer in ("head.fc", "head_dist"):
        assert isinstance(run(path, layer=layer, out=path, method=SHIFT, overwrite=True), Past)
    assert content(path) == once


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("{", "is no JSON"),
        ('{"schema": 2, "layers": {}}', "has schema 2, this version reads up to 1; update poise"),
        ('{"schema": 1, "layers": []}', "layers must be a table"),
        ('{"schema": 1, "layers": {"head.fc": {"method": 1}}}', "method must be a text"),
        ('{"schema": 1, "layers": {"head.fc": 1}}', "head.fc must be a table"),
    ],
)
def test_a_damaged_past_is_refused_in_one_sentence(tmp_path, said, words):
    path = tmp_path / "m.safetensors"
    save_file(tensors(), path, metadata={KEY: said})
    told = refusal(lambda: run(path, method=SHIFT), tmp_path)
    assert told.startswith("FOLDER/m.safetensors: poise.rebalanced")
    assert words in told


def test_a_checkpoint_that_another_run_changed_before_this_one_had_its_turn_is_read_anew(world, tmp_path, monkeypatch):
    again = (*FED, "-m", SHIFT, "--out", "m.safetensors", "--overwrite")
    before = (tmp_path / "m.safetensors").read_bytes()
    assert world(*again)[0] == 0
    once = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(before)
    (tmp_path / "m.rebalanced.json").unlink()
    claimed = locks.claimed

    @contextmanager
    def late(*given, **more):
        (tmp_path / "m.safetensors").write_bytes(once)
        with claimed(*given, **more):
            yield

    monkeypatch.setattr(locks, "claimed", late)
    code, out, _ = world(*again)
    assert (code, "nothing to do" in out) == (0, True)
    assert (tmp_path / "m.safetensors").read_bytes() == once


def test_the_verb_says_that_there_is_nothing_to_do(world, tmp_path):
    again = (*FED, "-m", SHIFT, "--out", "m.safetensors", "--overwrite")
    assert world(*again)[0] == 0
    once = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.rebalanced.json").unlink()
    code, out, err = world(*again)
    assert code == 0
    assert " ".join(out.split()) == (  # a line that is too long for a terminal is broken
        f"nothing to do: head.fc of m.safetensors was re-balanced by this same request ({SHIFT})"
    )
    assert err == "note: m.rebalanced.json was missing and is there again\n"
    assert (tmp_path / "m.safetensors").read_bytes() == once
    assert json.loads(world(*again, "--json")[1])["unchanged"] is True


def test_places_that_are_taken_or_wrong_are_refused(tmp_path):
    path, root = checkpoint(tmp_path), hub(tmp_path)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.tex").write_text("x")
    whole, single = open_checkpoint(root), open_checkpoint(path)
    assert refusal(lambda: destination(whole, taken), tmp_path) == (
        "FOLDER/taken exists and is no earlier result; choose another folder"
    )
    assert refusal(lambda: destination(whole, root / "new"), tmp_path) == (
        "FOLDER/hub/new lies within the checkpoint's folder; choose a place outside of it"
    )
    assert refusal(lambda: destination(single, tmp_path / "m.bin"), tmp_path) == (
        "the result is a .safetensors file like the checkpoint, and FOLDER/m.bin is none"
    )


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_full_disk_leaves_everything_as_it_was(tmp_path, monkeypatch, kind):
    path = checkpoint(tmp_path) if kind == "file" else hub(tmp_path)
    before = sorted(file.name for file in tmp_path.iterdir())

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    assert refusal(lambda: run(path, method="stage1")).endswith("No space left on device")
    assert sorted(file.name for file in tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["pytorch_model.bin", "m.pt", "m.pth"])
def test_pickles_are_refused_with_the_way_to_convert_them(tmp_path, name):
    torch.save({"fc.weight": torch.zeros(3, 2)}, tmp_path / name)
    for path in (tmp_path / name, tmp_path):
        assert refusal(lambda path=path: open_checkpoint(path), tmp_path) == (
            f"FOLDER/{name} is a pickle, which can run code when it is read; where you trust it, convert it with "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')"
        )


def test_what_is_no_checkpoint_is_refused_in_one_sentence(tmp_path):
    path = checkpoint(tmp_path)
    content = path.read_bytes()
    for name, part in {"cut": content[:-5], "short": content[:4], "empty": b"", "other": b"hello world" * 9}.items():
        (tmp_path / f"{name}.safetensors").write_bytes(part)
        said = refusal(lambda name=name: open_checkpoint(tmp_path / f"{name}.safetensors"), tmp_path)
        assert said.startswith(f"FOLDER/{name}.safetensors cannot be read as a safetensors file: ")
        assert said.endswith("; copy it again")
    (tmp_path / "m.txt").write_text("x")
    assert refusal(lambda: open_checkpoint(tmp_path / "m.txt"), tmp_path) == (
        "a checkpoint is a .safetensors file or a folder with model.safetensors, and FOLDER/m.txt is neither"
    )
    assert refusal(lambda: open_checkpoint(tmp_path / "cot.safetensors"), tmp_path) == (
        "there is no checkpoint FOLDER/cot.safetensors, did you mean 'cut.safetensors'?"
    )
    assert refusal(lambda: open_checkpoint(tmp_path), tmp_path) == (
        "FOLDER holds no model.safetensors; give the folder of a model, or its .safetensors file"
    )
    root = hub(tmp_path, sharded=True)
    (root / "model-00002-of-00002.safetensors").unlink()
    assert refusal(lambda: open_checkpoint(root), root) == (
        "FOLDER/model-00002-of-00002.safetensors is missing, which model.safetensors.index.json names; copy the folder "
        "again"
    )


# --- the verb ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path, monkeypatch, capsys):
    """A folder with a checkpoint and its features; runs the command line in it."""
    monkeypatch.chdir(tmp_path)
    save_file(tensors(torch.float16), "m.safetensors")
    for name, sizes, seed in (("train", SIZES, 0), ("held", (40, 40, 40), 1)):
        made = rows(sizes, seed)
        np.savez(f"{name}.npz", x=made.x[0].numpy(), y=made.y.numpy())
        np.savez(f"{name}_words.npz", x=made.x[0].numpy(), y=np.array(NAMES)[made.y.numpy()])

    def act(*words):
        with pytest.raises(SystemExit) as stop:
            main(["rebalance", *map(str, words)])
        said = capsys.readouterr()
        return stop.value.code, said.out, said.err

    return act


FED = ("m.safetensors", "--features", "train.npz", "--held-out", "held.npz")


def test_the_verb_says_layer_method_accuracy_and_that_the_rows_chose(world):
    code, out, err = world(*FED)
    assert (code, err) == (0, "")
    lines = out.replace("expect \n", "expect ").splitlines()  # what is longer than a line is broken
    assert lines[0] == "layer: head.fc, 3 classes of 6 features"
    assert lines[1].endswith("; prior: uniform")
    assert lines[2].startswith("balanced accuracy on 120 held-out rows: ")
    assert lines[2].endswith(" % (they chose it: expect a little less)")
    assert lines[3].startswith("stored as F16: logits move by at most 0.0")
    assert lines[3].endswith("of 120 answers change")
    assert lines[4:] == ["wrote m.rebalanced.safetensors", "wrote m.rebalanced.json"]


def test_the_verb_answers_in_json_and_for_another_prior(world):
    code, out, _ = world(*FED, "--json", "-m", "tau_norm(tau=0.5)", "--prior", "train", "--out", "new.safetensors")
    data = json.loads(out)
    assert (code, data["path"], data["method"]) == (0, "new.safetensors", "tau_norm(tau=0.5)")
    assert set(data["recall_for_prior"]) == {"before", "after"}
    _, out, _ = world(*FED, "-m", "tau_norm(tau=0.5)", "--prior", "train")
    assert "\naccuracy to be expected: " in out


def test_the_verb_matches_names_by_a_file_or_the_config_beside(world, tmp_path):
    words = ("m.safetensors", "--features", "train_words.npz", "--held-out", "held_words.npz", "-m", "stage1")
    assert world(*words) == (
        2,
        "",
        "poise: train_words.npz has labels by name, such as 'ant', and the order of the classes in the checkpoint is "
        "not known; give the names in its order (--class-names), or label the rows 0, 1, ...\n",
    )
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    _, out, _ = world(*words, "--class-names", "names.txt", "--json")
    _, plain, _ = world(*FED, "-m", "stage1", "--json")
    assert json.loads(out) == json.loads(plain)
    (tmp_path / "config.json").write_text(json.dumps({"id2label": dict(enumerate(NAMES))}))
    assert json.loads(world(*words, "--json")[1]) == json.loads(plain)


@pytest.mark.filterwarnings("default::poise.errors.PoiseWarning")
def test_numbers_with_names_beside_them_are_the_outputs_unless_the_checkpoint_has_names(world, tmp_path):
    for name in ("train", "held"):
        np.savez(f"{name}_both.npz", **dict(np.load(f"{name}.npz")), class_names=np.array(NAMES))
    both = ("m.safetensors", "--features", "train_both.npz", "--held-out", "held_both.npz", "-m", "stage1", "--json")
    plain = json.loads(world(*FED, "-m", "stage1", "--json")[1])
    assert json.loads(world(*both)[1]) == plain
    note = json.loads((tmp_path / "m.rebalanced.json").read_text())
    assert note["class_names"] == list(NAMES)
    turned = NAMES[::-1]
    (tmp_path / "config.json").write_text(json.dumps({"id2label": dict(enumerate(turned))}))
    _, out, err = world(*both)
    assert json.loads(out) != plain
    assert "stage1 is hardly better than chance" in err  # under the wrong names
    assert json.loads((tmp_path / "m.rebalanced.json").read_text())["class_names"] == list(turned)


def test_rows_are_set_aside_only_if_they_trained_nothing(world):
    for seen in ((), ("--seen",)):
        assert world("m.safetensors", "-f", "train.npz", *seen) == (
            2,
            "",
            "poise: rebalance needs --held-out: rows that did not train the checkpoint; if those of --features did not "
            "either, say --unseen, and a fifth of them is set aside\n",
        )
    code, out, err = world("m.safetensors", "-f", "train.npz", "--unseen", "-m", "tau_norm(tau=0.5)")
    assert code == 0
    assert "on 29 held-out rows" in out
    assert "no --held-out was given: 29 rows were set aside to choose on" in err


def test_the_verb_refuses_in_its_own_words(world):
    assert world(*FED, "--out", "m.safetensors")[2] == (
        "poise: m.safetensors is the checkpoint itself; choose another place, or allow it (--overwrite)\n"
    )
    assert world(*FED, "--layer", "hed.fc")[2] == (
        "poise: m.safetensors holds no linear layer 'hed.fc', did you mean 'head.fc'?\n"
    )


# --- timm -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A small network of timm with a classifier fitted on what its body makes of long-tailed images."""
    timm = pytest.importorskip("timm")
    folder = tmp_path_factory.mktemp("timm")
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=3).eval()
    looks = torch.rand(3, 3, 32, 32)

    def images(sizes):
        y = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
        return looks[y] + 0.5 * torch.randn(len(y), 3, 32, 32), y

    def features(x):
        with torch.no_grad():
            return net.forward_head(net.forward_features(x), pre_logits=True)

    splits = {"train": images((60, 20, 6)), "held": images((15, 15, 15))}
    x, y = features(splits["train"][0]), splits["train"][1]
    mean, scale = x.mean(dim=0), x.std(dim=0) + 1e-4
    layer = torch.nn.Linear(x.shape[1], 3)
    steps = torch.optim.Adam(layer.parameters(), 0.01)
    for _ in range(30):
        steps.zero_grad()
        torch.nn.functional.cross_entropy(layer((x - mean) / scale), y).backward()
        steps.step()
    with torch.no_grad():
        net.fc.weight.copy_(layer.weight / scale)
        net.fc.bias.copy_(layer.bias - net.fc.weight @ mean)
    save_file(net.state_dict(), folder / "net.safetensors", metadata={"format": "pt"})
    timm.models.save_for_hf(net, folder / "hub", model_config={"label_names": list(NAMES)}, safe_serialization=True)
    for name, (shown, labels) in splits.items():
        np.savez(folder / f"{name}.npz", x=features(shown).numpy(), y=labels.numpy())
    return folder, splits["held"][0], net


def verb(*words):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert stop.value.code == 0


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_timm_loads_the_result_and_answers_as_our_head(network, tmp_path, kind, capsys):
    import timm

    folder, images, net = network
    shutil.copytree(folder, tmp_path / "w")
    path = tmp_path / "w" / ("net.safetensors" if kind == "file" else "hub")
    fed = ("--features", folder / "train.npz", "--held-out", folder / "held.npz")
    verb("rebalance", path, *fed, "-m", "logit_adjustment(tau=1.5)", "--json")
    result = json.loads(capsys.readouterr().out)
    if kind == "file":
        loaded = timm.create_model("test_resnet", num_classes=3, checkpoint_path=result["path"])
    else:
        loaded = timm.create_model(f"local-dir:{result['path']}", pretrained=True)
    with torch.no_grad():
        logits, old = loaded.eval()(images), net(images)
    file = result["path"] if kind == "file" else f"{result['path']}/model.safetensors"
    head = read_layer(find_layer(open_checkpoint(file), classes=3, dim=net.num_features))
    ours = head(torch.from_numpy(np.load(folder / "held.npz")["x"]))
    assert torch.allclose(logits, ours, atol=1e-4)
    assert torch.equal(logits.argmax(dim=1), ours.argmax(dim=1))
    assert not torch.equal(logits.argmax(dim=1), old.argmax(dim=1))  # else nothing would be shown
    before = path if kind == "file" else path / "model.safetensors"
    assert same_but_for_metadata(before, type(path)(file))
    one, other = load_file(before), load_file(file)
    assert {name for name in one if not torch.equal(one[name], other[name])} == {"fc.weight", "fc.bias"}
