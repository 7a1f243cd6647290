"""The deployable folder: bit for bit, or one sentence."""

import hashlib
import json
import os

import pytest
import torch

from poise.decisions.operating_point import OperatingPoint
from poise.deployment.model import Model, check, load
from poise.errors import InputError
from poise.values.counts import ClassCounts
from poise.values.head import Head, Prep

NAMES = ("cat", 'dog, "wet"', "=1+1 élan 🐈")


def model(**changes):
    generator = torch.Generator().manual_seed(0)
    head = Head(
        torch.randn(3, 4, generator=generator, dtype=torch.float64),
        torch.randn(3, generator=generator, dtype=torch.float64),
    )
    parts = {
        "head": head,
        "class_names": NAMES,
        "counts": ClassCounts(torch.tensor([9, 4, 0])),
        "prior_applied": torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64),
        "method": "crt(lr=0.1)+tau_norm(tau=0.5)",
        "operating": OperatingPoint(costs=(1.0, 2.0, 3.0)),
        "provenance": {"poise": "0.1.0", "rows": 13, "list": [1, None, "ü"]},
    }
    return Model(**{**parts, **changes})


def rewrite(folder, **changes):
    """Change keys of model.json; a value of ... removes the key."""
    path = folder / "model.json"
    data = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not ...}), encoding="utf-8")


def refusal(folder):
    """The sentence of `load`, which `check` must say too."""
    with pytest.raises(InputError) as caught:
        load(folder)
    assert str(caught.value) in check(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(folder), "FOLDER")


def test_a_model_comes_back_bit_for_bit(tmp_path):
    given = model()
    folder = given.save(tmp_path / "ein Modell é")
    found = load(folder)
    for part in ("weight", "bias"):
        assert torch.equal(getattr(found.head, part), getattr(given.head, part))
    assert torch.equal(found.prior_applied, given.prior_applied)
    assert torch.equal(found.counts.n, given.counts.n)
    assert (found.class_names, found.method, found.operating) == (NAMES, given.method, given.operating)
    assert found.provenance == given.provenance
    assert check(folder) == []
    assert sorted(p.name for p in folder.iterdir()) == ["SHA256SUMS", "head.safetensors", "model.json"]


def test_what_is_not_there_comes_back_as_none_and_prep_is_kept(tmp_path):
    head = Head(torch.ones(3, 4), torch.zeros(3), Prep(torch.arange(4.0), unit=True))
    found = load(model(head=head, prior_applied=None, operating=None, provenance={}).save(tmp_path))
    assert found.prior_applied is None
    assert found.operating is None
    assert torch.equal(found.head.prep.centre, torch.arange(4.0))
    assert found.head.prep.unit
    assert found.head.weight.dtype == torch.float32


def test_saving_twice_gives_the_same_bytes_and_replaces_the_old(tmp_path):
    model(method="ncm").save(tmp_path / "a")
    model().save(tmp_path / "a")
    model().save(tmp_path / "b")
    for name in ("head.safetensors", "model.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_names": ("a", "b")}, "differ in their number of classes: head 3, class names 2, counts 3"),
        ({"counts": [1, 2]}, "prior needs one number per class"),
        ({"operating": OperatingPoint(costs=(1.0, 2.0))}, "counts 3, operating point 2"),
        ({"class_names": ("a", "b", "a")}, "two classes are called 'a'; names tell classes apart"),
        ({"prior_applied": [0.5, 0.5, 0.5]}, "prior sums to 1.5, not to 1"),
        ({"method": "crt lr"}, "cannot read the method 'crt lr'"),
        ({"head": Head(torch.ones(2, 3, 4), torch.zeros(2, 3))}, "a model has one head, got a stack of 2"),
    ],
)
def test_parts_that_disagree_are_refused(changes, words):
    with pytest.raises(InputError) as caught:
        model(**changes)
    assert words in str(caught.value)


@pytest.mark.parametrize("provenance", [{"x": object()}, {"x": float("nan")}])
def test_provenance_that_is_no_json_is_refused_before_anything_is_written(tmp_path, provenance):
    with pytest.raises(InputError, match="provenance must be plain JSON"):
        model(provenance=provenance).save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_newer_schema_is_refused_with_both_versions(tmp_path):
    rewrite(model().save(tmp_path), schema=7)
    assert refusal(tmp_path) == "FOLDER/model.json has schema 7, this version reads up to 1; update poise"


def test_missing_files_are_named(tmp_path):
    assert refusal(tmp_path) == "FOLDER/model.json is missing: FOLDER holds no finished model; save the model again"
    folder = model().save(tmp_path / "m")
    (folder / "head.safetensors").unlink()
    assert refusal(folder) == "FOLDER/head.safetensors is missing; save the model again"


def test_a_truncated_head_is_named_with_both_sizes(tmp_path):
    path = model().save(tmp_path) / "head.safetensors"
    size = path.stat().st_size
    os.truncate(path, size - 5)
    words = f"FOLDER/head.safetensors has {size - 5} bytes, model.json says {size}; save the model again"
    assert refusal(tmp_path) == words


def test_one_flipped_bit_is_found(tmp_path):
    path = model().save(tmp_path) / "head.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "is not the file that model.json describes (SHA-256 differs)" in refusal(tmp_path)


def test_a_crash_between_the_two_files_is_found(tmp_path):
    folder = model().save(tmp_path)
    model(head=Head(torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3))).head.save(folder / "head.safetensors")
    assert "SHA-256 differs" in refusal(folder)


@pytest.mark.parametrize("name", ["../head.safetensors", "sub/head.safetensors", "."])
def test_a_head_outside_of_the_folder_is_refused(tmp_path, name):
    folder = model().save(tmp_path / "m")
    (tmp_path / "head.safetensors").write_bytes((folder / "head.safetensors").read_bytes())
    head = json.loads((folder / "model.json").read_text(encoding="utf-8"))["head"]
    rewrite(folder, head={**head, "file": name})
    assert refusal(folder) == f"FOLDER/model.json names the head file {name!r}, which is not in the folder"


def test_an_absolute_path_and_a_link_out_of_the_folder_are_refused(tmp_path):
    folder = model().save(tmp_path / "m")
    outside = tmp_path / "outside.safetensors"
    (folder / "head.safetensors").rename(outside)
    (folder / "head.safetensors").symlink_to(outside)
    assert "which is not in the folder" in refusal(folder)
    head = json.loads((folder / "model.json").read_text(encoding="utf-8"))["head"]
    rewrite(folder, head={**head, "file": str(outside)})
    assert "which is not in the folder" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "other"}, "FOLDER/model.json holds no model of Poise; save the model again"),
        ({"schema": True}, "FOLDER/model.json: schema must be a whole number, 1 or more, got True; save the model"),
        ({"counts": ...}, "FOLDER/model.json: counts is missing; save the model again"),
        ({"extra": 1}, "FOLDER/model.json has the unknown key 'extra'; save the model again"),
        (
            {"counts": [1, 2.5, 3]},
            "FOLDER/model.json: counts must be a list of whole numbers, got [1, 2.5, 3]; save",
        ),
        (
            {"head": "x"},
            "FOLDER/model.json: head must be a table of file, bytes and sha256, got 'x'; save",
        ),
        (
            {"class_names": [1, 2, 3]},
            "FOLDER/model.json: class_names must be a list of names, got [1, 2, 3]; save the",
        ),
        ({"prior_applied": "u"}, "FOLDER/model.json: prior_applied must be a list of numbers, got 'u'"),
        ({"counts": [1, 2, -3]}, "FOLDER/model.json: class 2 has the count -3; counts are 0 or more"),
        ({"operating": {"schema": 1, "cost": 1}}, "FOLDER/model.json: an operating point has no key 'cost'"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path, changes, words):
    rewrite(model().save(tmp_path), **changes)
    assert refusal(tmp_path).startswith(words)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": NaN}', b"\xff\xfe", b"[" * 100000])
def test_a_description_that_is_no_json_is_refused(tmp_path, content):
    (model().save(tmp_path) / "model.json").write_bytes(content)
    assert refusal(tmp_path).startswith("FOLDER/model.json ")


def test_a_pickle_in_the_place_of_the_head_is_never_opened(tmp_path):
    folder = model().save(tmp_path)
    canary = b"\x80\x04cos\nsystem\n(S'touch canary'\ntR."
    (folder / "head.safetensors").write_bytes(canary)
    digest = hashlib.sha256(canary).hexdigest()
    rewrite(folder, head={"file": "head.safetensors", "bytes": len(canary), "sha256": digest})
    assert "cannot be read as a head" in refusal(folder)
    assert not (folder / "canary").exists()


def test_strays_are_listed_where_no_seal_tells_them_from_a_users_own_files(tmp_path):
    (model().save(tmp_path) / ".model.json.x.tmp").write_text("")
    assert check(tmp_path) == []
    (tmp_path / "SHA256SUMS").unlink()
    assert [p.replace(str(tmp_path), "FOLDER") for p in check(tmp_path)] == [
        "FOLDER/.model.json.x.tmp does not belong to the model; move it elsewhere"
    ]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "m").write_text("a file")
    with pytest.raises(InputError, match="cannot write"):
        model().save(tmp_path / "m")
    assert (tmp_path / "m").read_text() == "a file"
