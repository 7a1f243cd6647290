"""The feature store: what is written comes back bit for bit, and what is not as it was written is refused."""

import hashlib
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

import poise
from poise.data.store import feature_store, manifest
from poise.data.store.feature_store import check_store, load_features, save_features
from poise.data.store.manifest import Manifest, Shard, read_manifest, write_manifest
from poise.errors import InputError, PoiseWarning
from poise.machine.folders import replacing_folder
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.shards import Shards


def world(*, rows=7, dim=3, views=1, classes=3, dtype=torch.float32, seen=None, names=None, weight=None, seed=0):
    x = torch.randn(views, rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    return Features(x, torch.arange(rows) % classes, ClassCounts([5] * classes), seen, names, weight)


def same(one, other):
    """Are all fields equal, bit for bit?"""
    return (
        one.x.dtype == other.x.dtype
        and torch.equal(one.x, other.x)
        and torch.equal(one.y, other.y)
        and torch.equal(one.counts.n, other.counts.n)
        and (one.weight is None) == (other.weight is None)
        and (one.weight is None or torch.equal(one.weight, other.weight))
        and (one.seen_by_backbone, one.class_names) == (other.seen_by_backbone, other.class_names)
        and one.key == other.key
    )


def tampered(folder, **changes):
    """Change the manifest as somebody would who also mends its checksum."""
    body = json.loads((folder / "manifest.json").read_text())
    del body["checksum"]
    body.update(changes)
    (folder / "manifest.json").write_text(json.dumps({**body, "checksum": manifest._checksum(body)}))


def flip(path, at=-1):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.fixture
def folder(tmp_path):
    """Three shards of 3, 3 and 1 rows."""
    return save_features(world(), tmp_path / "store", shard_rows=3)


# --- round trips ------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 9),
    views=st.integers(1, 2),
    shard_rows=st.integers(1, 10),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    seen=st.sampled_from([None, False, True]),
    names=st.sampled_from([None, ("a", "b", "c"), ("ü, \n", '"=1', "<b>猫")]),
    weighted=st.booleans(),
)
def test_features_come_back_bit_for_bit(tmp_path_factory, rows, views, shard_rows, dtype, seen, names, weighted):
    weight = torch.arange(1, rows + 1) / 2 if weighted else None
    features = world(rows=rows, views=views, dtype=dtype, seen=seen, names=names, weight=weight)
    folder = save_features(features, tmp_path_factory.mktemp("s") / "store", shard_rows=shard_rows)
    assert same(load_features(folder, verify=True), features)
    assert check_store(folder) == []


def test_a_shard_may_hold_only_rows_of_weight_zero(tmp_path):
    features = world(rows=4, weight=torch.tensor([0.0, 0.0, 1.0, 2.0]))
    assert same(load_features(save_features(features, tmp_path / "s", shard_rows=2)), features)


def test_one_shard_is_mapped_and_not_copied(tmp_path):
    folder = save_features(world(rows=1000, dim=8), tmp_path / "store")
    features = load_features(folder)
    with safe_open(str(folder / "00000.safetensors"), framework="pt") as file:
        assert torch.equal(features.x, file.get_tensor("x"))
    if (maps := Path("/proc/self/maps")).exists():
        assert str(folder / "00000.safetensors") in maps.read_text()


def test_the_same_features_give_the_same_bytes_under_any_name(tmp_path):
    folders = [save_features(world(), tmp_path / name, shard_rows=3, provenance={"seed": 1}) for name in ("a", "b")]
    one, other = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders)
    assert one == other
    shards = ["00000.safetensors", "00001.safetensors", "00002.safetensors"]
    assert sorted(one) == [*shards, "SHA256SUMS", "manifest.json"]


def test_the_manifest_says_what_the_folder_holds(tmp_path):
    features = world(views=2, names=("a", "b", "c"), seen=False)
    told = read_manifest(
        save_features(features, tmp_path / "s", shard_rows=4, provenance={"backbone": "r32", "n": [1]})
    )
    assert (told.rows, told.views, told.dim, told.dtype, told.classes) == (7, 2, 3, "float32", 3)
    assert (told.class_names, told.counts, told.seen_by_backbone) == (("a", "b", "c"), (5, 5, 5), False)
    assert told.key == features.key
    assert told.provenance == {"backbone": "r32", "n": [1]}
    assert [(shard.file, shard.rows) for shard in told.shards] == [("00000.safetensors", 4), ("00001.safetensors", 3)]


@pytest.mark.parametrize("name", ["with space", "schöne Züge 猫", "x" * 200, "deep/er/and deeper"])
def test_any_path_works(tmp_path, name):
    folder = save_features(world(), str(tmp_path / name))
    assert same(poise.load_features(str(folder)), world())


def test_values_can_be_stored_in_another_type(tmp_path):
    stored = load_features(save_features(world(), tmp_path / "s", dtype=torch.float16))
    assert torch.equal(stored.x, world().x.half())


def test_values_too_large_for_half_precision_keep_their_type_with_a_warning(tmp_path):
    features = replace(world(), x=world().x * 1e6)
    largest = f"{float(features.x.abs().max()):.6g}"
    with pytest.warns(PoiseWarning) as caught:
        folder = save_features(features, tmp_path / "s", dtype=torch.float16)
    assert str(caught[0].message) == (
        f"features reach {largest}, beyond 65504, the largest number of torch.float16; they are stored as torch.float32"
    )
    assert same(load_features(folder), features)


# --- the content key --------------------------------------------------------------------------------------------------


def test_every_ingredient_changes_the_key():
    base = world(rows=6)
    nudged = base.x.clone()
    nudged[0, 5, 2] = torch.nextafter(nudged[0, 5, 2], torch.tensor(9.0))
    others = [
        replace(base, x=nudged),
        replace(base, x=base.x.double()),
        replace(base, x=base.x[..., :2]),
        replace(base, x=torch.cat([base.x, base.x])),
        replace(base, y=base.y.flip(0)),
        replace(base, counts=ClassCounts([5, 5, 6])),
        replace(base, counts=ClassCounts([5, 5, 5, 0])),
        replace(base, weight=torch.ones(6)),
        replace(base, weight=torch.tensor([1.0, 1, 1, 1, 1, 2])),
        base.take(torch.tensor([1, 0, 2, 3, 4, 5])),
    ]
    keys = [base.key, *(features.key for features in others)]
    assert len(set(keys)) == len(keys)
    assert replace(base, x=base.x.clone()).key == base.key


def test_writing_the_same_features_again_leaves_the_folder_as_it_is(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert save_features(world(), folder) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_damaged_folder_is_not_taken_for_the_same_features(folder):
    (folder / "00001.safetensors").unlink()
    with pytest.raises(InputError, match=r"00001\.safetensors is missing; delete the folder to write it again"):
        save_features(world(), folder)


@pytest.mark.parametrize("other", [world(seed=1), world(seen=True), world(names=("a", "b", "c"))])
def test_a_folder_with_other_features_is_never_overwritten(folder, other):
    with pytest.raises(InputError, match=r"holds other features \(content key .*choose another folder, or delete it"):
        save_features(other, folder)
    assert same(load_features(folder), world())


def test_a_folder_with_anything_else_is_never_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and holds no finished features; choose another folder, or delete it"):
        save_features(world(), tmp_path)
    with pytest.raises(InputError, match="exists and holds no finished features"):
        save_features(world(), tmp_path / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_filled(tmp_path):
    assert same(load_features(save_features(world(), tmp_path)), world())


def test_two_writers_end_with_one_valid_store(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: save_features(world(rows=500), tmp_path / "s", shard_rows=9), range(8)))
    assert set(done) == {tmp_path / "s"}
    assert check_store(tmp_path / "s") == []
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_writer_that_comes_second_with_other_features_is_refused(tmp_path, monkeypatch):
    def late(*given):
        monkeypatch.undo()
        save_features(world(seed=1), tmp_path / "s")
        return replacing_folder(*given)

    monkeypatch.setattr("poise.data.store.feature_store.replacing_folder", late)
    with pytest.raises(InputError, match="holds other features"):
        save_features(world(), tmp_path / "s")
    assert same(load_features(tmp_path / "s"), world(seed=1))
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


# --- writing that fails -----------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    real = os.fsync
    calls = []

    def full(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"00001\.safetensors \(224 bytes\): No space left on device"):
        save_features(world(views=2), tmp_path / "s", shard_rows=3)
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file/s: "):
        save_features(world(), tmp_path / "file" / "s")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard_rows": 0}, "shard_rows must be a whole number, 1 or more, got 0"),
        ({"shard_rows": 2.5}, "shard_rows must be a whole number, 1 or more, got 2.5"),
        (
            {"dtype": torch.int64},
            "dtype must be one of torch.float16, torch.bfloat16, torch.float32, torch.float64; got",
        ),
        ({"provenance": {"when": object()}}, "provenance must be plain JSON"),
        ({"provenance": {"lr": float("nan")}}, "provenance must be plain JSON"),
    ],
)
def test_bad_options_are_refused_and_write_nothing(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        save_features(world(), tmp_path / "s", **options)
    assert list(tmp_path.iterdir()) == []


def test_provenance_with_numbers_for_keys_reads_back(tmp_path):
    folder = save_features(world(), tmp_path / "s", provenance={10: "a", 9: (1, 2)})
    assert read_manifest(folder).provenance == {"10": "a", "9": [1, 2]}


# --- folders that are not as they were written ------------------------------------------------------------------------


def refused(folder, message, *, verify=False):
    with pytest.raises(InputError, match=message):
        load_features(folder, verify=verify)
    assert any(re.search(message, problem) for problem in check_store(folder))


def test_a_missing_folder_is_named(tmp_path):
    refused(tmp_path / "nothing", "there is no folder .*nothing")


def test_a_folder_without_manifest_is_unfinished(folder):
    (folder / "manifest.json").unlink()
    refused(folder, r"manifest\.json is missing: .* holds no finished features; restore it from a copy, or write")


@pytest.mark.parametrize("size", [0, 100])
def test_a_shard_that_was_cut_short_is_named_with_both_sizes(folder, size):
    path = folder / "00001.safetensors"
    whole = path.stat().st_size
    os.truncate(path, size)
    refused(folder, rf"00001\.safetensors has {size} bytes instead of {whole}, so it was cut short or replaced")


def test_missing_and_extra_shards_are_all_listed(folder):
    (folder / "00000.safetensors").unlink()
    shutil.copy(folder / "00001.safetensors", folder / "00007.safetensors")
    refused(folder, r"00007\.safetensors is there but not in the manifest")
    refused(folder, r"00000\.safetensors is missing")
    with pytest.raises(InputError, match="restore it from a copy, or write the features again"):
        load_features(folder)


def test_a_flipped_bit_is_found_by_reading_every_byte_and_only_then(folder):
    flip(folder / "00002.safetensors", at=-9)
    load_features(folder)
    refused(folder, r"00002\.safetensors is damaged: its sha256 is not that of the manifest", verify=True)


def test_every_damaged_shard_is_reported(folder):
    for name in ("00000.safetensors", "00002.safetensors"):
        flip(folder / name, at=-9)
    assert [problem.split()[0] for problem in check_store(folder)] == ["00000.safetensors", "00002.safetensors"]


def test_a_shard_with_a_damaged_header_is_named(folder):
    flip(folder / "00001.safetensors", at=0)
    with pytest.raises(InputError, match=r"00001\.safetensors cannot be read as a safetensors file: "):
        load_features(folder)


def test_a_flipped_bit_in_the_manifest_is_found_at_once(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"rows": 7', '"rows": 6'))
    refused(folder, r"manifest\.json is not as it was written: its checksum differs")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b"\xff\xfe", "is not UTF-8 \\(byte 1\\)"),
        (b"[" * 100_000, "is no JSON"),
        (b"[]", "holds no table of keys and values"),
        (b'{"format": "other"}', "holds no features of Poise"),
        (b'{"format": "poise.features"}', "schema must be a whole number, 1 or more, got None"),
        (b'{"format": "poise.features", "schema": 1}', "rows is missing"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(folder, content, message):
    (folder / "manifest.json").write_bytes(content)
    refused(folder, message)


def test_a_newer_schema_is_refused_with_both_versions(folder):
    tampered(folder, schema=7)
    refused(folder, r"manifest\.json has schema 7, this version reads up to 1; update poise")


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "sub/00000.safetensors", "..", "00000.safetensors\n", ""])
def test_a_shard_name_that_leads_elsewhere_is_refused(folder, name):
    shards = json.loads((folder / "manifest.json").read_text())["shards"]
    tampered(folder, shards=[{**shards[0], "file": name}, *shards[1:]])
    refused(folder, "shards lie in the folder itself and are called such as 00000.safetensors")


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    for name, message in (
        ("00000.safetensors", r"00000\.safetensors is a link that leads out of the folder"),
        ("manifest.json", r"manifest\.json is a link that leads out of the folder; put the file itself there"),
    ):
        (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
        refused(folder, message)


@pytest.mark.parametrize("name", ["00000.safetensors", "manifest.json"])
def test_a_link_to_itself_is_missing(folder, name):
    (folder / name).unlink()
    (folder / name).symlink_to(name)
    refused(folder, "missing|cannot be read")


def test_a_link_to_the_whole_folder_is_fine(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    assert same(load_features(tmp_path / "link"), world())


@pytest.mark.parametrize("field", ["rows", "views", "dim", "dtype", "classes", "counts", "key", "weighted", "shards"])
@pytest.mark.parametrize("value", [None, -1, [], {"a": 1}, [1.5], "float8" * 20])
def test_an_unusable_field_is_named_even_if_the_checksum_agrees(folder, field, value):
    tampered(folder, **{field: [value] if field == "key" else value})
    refused(folder, f": {field} must be ")


def test_rows_that_do_not_add_up_are_refused(folder):
    tampered(folder, rows=8)
    refused(folder, "do not add up")
    tampered(folder, rows=7, classes=4)
    refused(folder, "do not add up")


def handmade(folder, **tensors):
    """A store as another program might write it: sizes and checksums right, values not."""
    folder.mkdir()
    save_file(tensors, folder / "00000.safetensors")
    content = (folder / "00000.safetensors").read_bytes()
    shard = Shard("00000.safetensors", 2, len(content), hashlib.sha256(content).hexdigest())
    told = Manifest(2, 1, 3, "float32", 2, None, (1, 1), None, False, "0" * 16, None, (shard,))
    write_manifest(folder, told)
    return folder


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([[[0, 1, 2], [3, float("nan"), 5]]], [0, 1], "row 1 of view 0 holds NaN or infinity; restore"),
        ([[[0, 1, 2], [3, float("inf"), 5]]], [0, 1], "row 1 of view 0 holds NaN or infinity; restore"),
        ([[[0, 1, 2], [3, 4, 5]]], [0, 2], "row 1 has label 2, there are 2 classes"),
        ([[[0, 1, 2], [3, 4, 5]]], [-1, 0], "row 0 has label -1, there are 2 classes"),
        ([[[0, 1], [3, 4]]], [0, 1], r"x is torch.float32 \(1, 2, 2\), the manifest says torch.float32 \(1, 2, 3\)"),
        ([[[0, 1, 2], [3, 4, 5]]], [0.0, 1.0], r"y is torch.float32 \(2,\), the manifest says torch.int64 \(2,\)"),
        ([[[0, 1, 2], [3, 4, 5]]], [0, 1], "its content has the key .*, the manifest 0000000000000000"),
    ],
)
def test_values_that_no_writer_of_ours_stores_are_named_by_shard_and_row(tmp_path, x, y, message):
    folder = handmade(tmp_path / "s", x=torch.tensor(x, dtype=torch.float32), y=torch.tensor(y))
    refused(folder, message, verify=True)


def test_a_shard_without_labels_is_named(tmp_path):
    refused(
        handmade(tmp_path / "s", x=torch.zeros(1, 2, 3)), r"00000\.safetensors cannot be read as a safetensors file: "
    )


# --- rows that stay on disk ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard_rows", [100, 3])
def test_a_large_store_stays_on_disk(tmp_path, monkeypatch, shard_rows):
    features = world(rows=61, views=2)
    save_features(features, tmp_path / "store", shard_rows=shard_rows)
    assert not isinstance(load_features(tmp_path / "store").x, Shards)
    monkeypatch.setattr(feature_store, "IN_MEMORY", 1000)
    monkeypatch.setattr(Shards, "joined", lambda self: pytest.fail("all rows were joined in memory"))
    there = load_features(tmp_path / "store", verify=True)
    assert isinstance(there.x, Shards)
    assert there.key == features.key
    assert torch.equal(there.take(torch.tensor([60, 0, 7])).x, features.x[:, [60, 0, 7]])
    assert save_features(there, tmp_path / "copy", shard_rows=11)
    assert load_features(tmp_path / "copy").key == features.key


def test_masses_of_classes_come_back_where_the_counts_are_those_of_the_weights(tmp_path):
    weight = torch.tensor([0.01, 2.0, 1.0, 0.02], dtype=torch.float64)
    features = world(rows=4, weight=weight)
    own = replace(features, counts=ClassCounts.from_labels(features.y, 3, weight))
    for name, kept, prior in (("own", own, own.counts.prior), ("stated", features, features.counts.prior)):
        save_features(kept, tmp_path / name)
        torch.testing.assert_close(load_features(tmp_path / name).counts.prior, prior, rtol=0, atol=0)
