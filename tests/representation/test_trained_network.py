"""A trained representation on disk."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from poise.errors import InputError
from poise.machine import folders
from poise.representation.backbones import build
from poise.representation.extract import feature_rows
from poise.representation.trained_network import (
    REPRESENTATION,
    Representation,
    check_representation,
    digests,
    load_representation,
)
from poise.values.counts import ClassCounts
from poise.values.head import Head
from stage1_child import samples


def represented(**changes) -> Representation:
    """A convnet4 for images of 16 x 16 pixels, as if 24 samples had trained it."""
    backbone = build("convnet4", size=16, seed=1)
    usual = {
        "head": Head(torch.randn(3, backbone.dim, generator=torch.Generator().manual_seed(0)), torch.zeros(3)),
        "class_names": ("a", "b", "c"),
        "counts": ClassCounts(torch.tensor([15, 6, 3])),
        "seen": digests(samples().items),
        "provenance": {"made_from": {"lr": 0.1}},
    }
    return Representation(backbone=backbone, **{**usual, **changes})


def edited(folder: Path, **changes) -> None:
    path = folder / REPRESENTATION
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_was_saved_is_loaded_with_the_same_bits(tmp_path: Path) -> None:
    before = represented()
    before = replace(before, backbone=replace(before.backbone, mean=(0.1, 0.2, 0.3), crop=0.5, interpolation="bicubic"))
    found = load_representation(before.save(tmp_path / "r"))
    assert found.backbone.weights_digest == before.backbone.weights_digest
    for name in ("name", "dim", "size", "mean", "std", "crop", "interpolation"):
        assert getattr(found.backbone, name) == getattr(before.backbone, name)
    assert torch.equal(found.head.weight, before.head.weight)
    assert torch.equal(found.counts.n, before.counts.n)
    assert torch.equal(found.seen, before.seen)
    assert (found.class_names, found.provenance) == (before.class_names, before.provenance)
    items = samples().items
    resized = {"batch_size": 8}
    assert torch.equal(feature_rows(found.backbone, items, **resized), feature_rows(before.backbone, items, **resized))


def test_a_transformer_of_another_image_size_is_loaded_again(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    before = Representation(backbone=build("timm:test_vit", size=32, seed=0))
    found = load_representation(before.save(tmp_path / "r"))
    assert found.backbone.weights_digest == before.backbone.weights_digest
    assert found.backbone.size == 32


def test_the_same_representation_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = (represented().save(tmp_path / name) for name in "ab")
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in other.iterdir()}


def test_what_is_not_known_stays_unknown(tmp_path: Path) -> None:
    plain = represented(head=None, class_names=None, counts=None, seen=None, provenance={})
    found = load_representation(plain.save(tmp_path / "r"))
    assert (found.head, found.class_names, found.counts, found.seen) == (None, None, None, None)
    assert found.rows_seen(samples().items) is None


def test_samples_that_trained_it_are_counted() -> None:
    found = samples()
    half = represented(seen=digests(found.items.take(torch.arange(12))))
    assert half.rows_seen(found.items) == 12
    assert half.rows_seen(found.items.take(torch.arange(12, 24))) == 0
    assert torch.equal(digests(found.items), digests(found.items.take(torch.randperm(24))))


def test_weights_with_two_names_and_another_memory_order_are_saved(tmp_path: Path) -> None:
    given = represented()
    given.backbone.module.to(memory_format=torch.channels_last)
    given.backbone.module.register_parameter("again", next(given.backbone.module.parameters()))
    given.save(tmp_path / "r")
    state = load_file(tmp_path / "r" / "backbone.safetensors")
    assert torch.equal(state["again"], next(given.backbone.module.parameters()))


@pytest.mark.parametrize("name", ["backbone.safetensors", "head.safetensors", "seen.safetensors"])
def test_a_file_that_is_missing_or_damaged_is_named(tmp_path: Path, name: str) -> None:
    folder = represented().save(tmp_path / "r")
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} is damaged: its sha256 is not that of representation.json"):
        load_representation(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"{name} is missing; restore the folder from a copy, or train again"):
        load_representation(folder)


def test_a_folder_without_its_description_is_unfinished(tmp_path: Path) -> None:
    folder = represented().save(tmp_path / "r")
    (folder / REPRESENTATION).unlink()
    with pytest.raises(
        InputError, match=r"representation.json is missing: .* holds no finished representation; restore"
    ):
        load_representation(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "holds no table of keys and values"),
        ('{"format": "poise.representation", "schema": 1}', "backbone is missing; restore the folder from a copy"),
    ],
)
def test_a_damaged_description_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / REPRESENTATION).write_text(text)
    with pytest.raises(InputError, match=message):
        load_representation(tmp_path)


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    folder = represented().save(tmp_path / "r")
    edited(folder, schema=99)
    with pytest.raises(InputError, match="has schema 99, this version reads up to 1; update poise"):
        load_representation(folder)


def test_files_outside_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder = represented().save(tmp_path / "r")
    (tmp_path / "outside").write_bytes(b"")
    known = json.loads((folder / REPRESENTATION).read_text())["sha256"]
    edited(folder, sha256={**known, "../outside": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"})
    with pytest.raises(InputError, match=r"outside is no file of a representation"):
        load_representation(folder)


@pytest.mark.parametrize("name", ["os:system", "package.module:factory", "builtins:print"])
def test_code_that_a_folder_names_is_not_run(tmp_path: Path, name: str) -> None:
    folder = represented().save(tmp_path / "r")
    canary = tmp_path / "canary"
    said = json.loads((folder / REPRESENTATION).read_text())["backbone"]
    edited(folder, backbone={**said, "name": name, "options": {"command": f"touch {canary}"}})
    with pytest.raises(InputError, match=rf"names the network '{name}', whose code would run"):
        load_representation(folder)
    assert not canary.exists()


def test_provenance_that_is_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="options and provenance must be plain JSON"):
        represented(provenance={"path": tmp_path}).save(tmp_path / "r")
    assert not (tmp_path / "r" / REPRESENTATION).exists()


def test_what_is_finished_is_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folders, "_write_seal", killed)
    with pytest.raises(KeyboardInterrupt):
        represented().save(tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_disk_that_is_full_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*backbone.safetensors \(\d+ bytes\): No space left"):
        represented().save(tmp_path / "r")
    assert not list(tmp_path.iterdir())


def test_what_is_said_of_a_name_that_fills_a_page_is_cut(tmp_path: Path) -> None:
    folder = represented().save(tmp_path / "r")
    known = json.loads((folder / REPRESENTATION).read_text())["sha256"]
    edited(folder, sha256={**known, "9" * 5000: "0" * 64})
    (said,) = check_representation(folder)
    assert len(said) < 2100
    assert said.startswith(f"{folder}/999")
    assert said.endswith("restore the folder from a copy, or train again")
