"""From images to a feature store."""

import json
import os
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from poise.data.samples.items import Pixels
from poise.data.samples.sample_set import Samples
from poise.data.store import growing_store
from poise.data.store.feature_store import load_features
from poise.data.store.manifest import read_manifest
from poise.errors import InputError, PoiseWarning
from poise.machine.locks import claimed
from poise.machine.processes import World
from poise.representation.augment import normalised, parse
from poise.representation.backbones import Backbone
from poise.representation.extract import Views, extract, feature_rows, feed_of, is_small
from poise.representation.feeds import InMemory, Streamed
from poise.values.counts import ClassCounts
from poise.values.randomness import Stream, seed_for, uniforms
from stage1_child import HALVES, extracted, images, samples, tiny

EXACT = Views(dtype="float32", batch_size=5, shard_rows=10)


def rows_of(backbone: Backbone, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return backbone.module.eval()(normalised(pixels, HALVES, HALVES))


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_features_are_those_of_the_network_on_the_stored_views(tmp_path: Path) -> None:
    views = Views(random=2, flip=True, augment=("crop(pad=2)", "flip"), dtype="float32", shard_rows=10, seed=4)
    features = load_features(extracted(tmp_path / "x", views=views))
    pixels, y = images()
    backbone, augmentation = tiny(), parse(views.augment)
    assert features.x.shape == (4, 24, 6)
    assert torch.equal(features.y, y)
    # The first digits of sums in another order: batches and memory are not the same.
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(features.x[0], rows_of(backbone, pixels), **close)
    torch.testing.assert_close(features.x[3], rows_of(backbone, pixels.flip(-1)), **close)
    for view in (1, 2):
        drawn = uniforms(augmentation.draws, torch.arange(24), seed_for(4, Stream.VIEWS), Stream.AUGMENT, view)
        torch.testing.assert_close(features.x[view], rows_of(backbone, augmentation(pixels, drawn)), **close)
    assert views.kinds == ["test", "random 1", "random 2", "mirrored"]
    assert read_manifest(tmp_path / "x").provenance["views"] == views.kinds


def test_every_row_is_there_once_whatever_the_number_of_processes(tmp_path: Path) -> None:
    whole = shards(extracted(tmp_path / "whole", views=EXACT))
    assert sorted(whole) == [*(f"0000{n}.safetensors" for n in range(3)), "SHA256SUMS", "manifest.json"]
    for size in (2, 3, 5):
        folder, found = tmp_path / str(size), samples()
        growing_store.begin(folder, read_manifest(tmp_path / "whole").provenance["extraction"])
        # One after another, so nobody waits; the first process last, because it writes the manifest.
        for rank in (*range(1, size), 0):
            world = Patient(rank, size)
            extract(tiny(), found, folder, counts=found.counts, seen_by_backbone=True, views=EXACT, world=world)
        assert shards(folder) == whole


class Patient(World):
    """A process that has done its waiting."""

    def wait(self) -> None:
        pass


def test_a_finished_store_is_left_alone_and_another_request_is_refused(tmp_path: Path) -> None:
    folder = extracted(tmp_path / "x", views=EXACT)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    extracted(folder, views=EXACT)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    with pytest.raises(InputError, match="holds other features: flip is False there and True now; choose another"):
        extracted(folder, views=Views(dtype="float32", batch_size=5, shard_rows=10, flip=True))
    with pytest.raises(InputError, match="holds other features: weights is '"):
        extracted(folder, views=EXACT, backbone=tiny(seed=1))


def test_an_unfinished_store_of_something_else_is_refused(tmp_path: Path) -> None:
    growing_store.begin(tmp_path / "x", {"backbone": "other"})
    with pytest.raises(InputError, match=r"holds other features: .*backbone is 'other' there and 'tiny' now"):
        extracted(tmp_path / "x")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and holds no features of an extraction"):
        extracted(tmp_path)


def test_a_folder_may_be_claimed_first(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with claimed(tmp_path / "x"):
        extracted(tmp_path / "x")
    assert load_features(tmp_path / "x").x.shape == (3, 24, 6)


def test_what_a_kill_right_after_the_manifest_left_is_removed(tmp_path: Path) -> None:
    folder = extracted(tmp_path / "x")
    whole = shards(folder)
    (folder / growing_store.UNFINISHED).write_text(json.dumps(read_manifest(folder).provenance["extraction"]))
    (folder / ".00001.safetensors.abc.tmp").write_bytes(b"half")
    extracted(folder)
    assert shards(folder) == whole


def test_a_damaged_shard_is_named_before_the_manifest_is_written(tmp_path: Path) -> None:
    folder = extracted(tmp_path / "x")
    identity = read_manifest(folder).provenance["extraction"]
    (folder / "manifest.json").unlink()
    growing_store.begin(tmp_path / "y", identity)
    (tmp_path / "y" / growing_store.UNFINISHED).rename(folder / growing_store.UNFINISHED)
    (folder / "00001.safetensors").write_bytes((folder / "00001.safetensors").read_bytes()[:50])
    with pytest.raises(InputError, match=r"00001.safetensors cannot be read .*delete it and run the same extraction"):
        extracted(folder)
    (folder / "00001.safetensors").unlink()
    load_features(extracted(folder))


def loud(factor: float) -> Backbone:
    """A network whose features are the mean colours times `factor`; nearly nothing where an image is black."""

    class Loud(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(factor))

        def forward(self, x):
            return self.factor * (x.mean(dim=(2, 3)) + 1)

    return Backbone("loud", Loud(), 3, 8, HALVES, HALVES)


@pytest.mark.parametrize("black", [0, 10], ids=["all shards", "one of two"])
def test_features_beyond_float16_are_kept_in_float32_with_a_warning(tmp_path: Path, black: int) -> None:
    pixels, y = images()
    pixels[:black] = 0
    found = Samples(Pixels(pixels.permute(0, 2, 3, 1).contiguous().numpy()), y, ("a", "b", "c"))
    views = Views(shard_rows=10, augment=())
    with pytest.warns(PoiseWarning, match=r"some features lie beyond 65504, the largest number of torch.float16; all"):
        extract(loud(1e6), found, tmp_path / "x", counts=found.counts, seen_by_backbone=None, views=views)
    features = load_features(tmp_path / "x")
    assert features.x.dtype == torch.float32
    assert read_manifest(tmp_path / "x").dtype == "float32"
    assert torch.isfinite(features.x).all()
    torch.testing.assert_close(features.x[0], rows_of(loud(1e6), pixels), rtol=1e-5, atol=1e-3)


def test_features_that_fit_are_stored_as_asked_without_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_features(extracted(tmp_path / "x")).x.dtype == torch.float16


def test_features_that_are_not_finite_name_the_sample_and_the_view(tmp_path: Path) -> None:
    backbone = loud(float("nan"))
    with pytest.raises(InputError, match=r"the features of memory, row 0 \(view 0\) are not finite; the weights"):
        extracted(tmp_path / "x", backbone=backbone)
    with pytest.raises(InputError, match="are not finite"):
        feature_rows(backbone, samples().items)


def test_a_disk_that_is_full_is_told_with_the_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    growing_write = growing_store.write_shard

    def second(folder, number, *arguments):
        if number == 1:
            monkeypatch.setattr(os, "fsync", full)
        return growing_write(folder, number, *arguments)

    monkeypatch.setattr(growing_store, "write_shard", second)
    with pytest.raises(InputError, match=r"cannot write .*00001.safetensors \(\d+ bytes\): No space left on device"):
        extracted(tmp_path / "x")
    monkeypatch.undo()
    assert sorted(shards(tmp_path / "x")) == ["00000.safetensors", growing_store.UNFINISHED]
    assert shards(extracted(tmp_path / "x")) == shards(extracted(tmp_path / "whole"))


def test_features_for_prediction_are_those_of_the_first_view(tmp_path: Path) -> None:
    stored = load_features(extracted(tmp_path / "x", views=EXACT)).x[0]
    found = feature_rows(tiny(), samples().items, batch_size=7)
    torch.testing.assert_close(found, stored, rtol=1e-5, atol=1e-6)


def test_progress_ends_at_all_rows(tmp_path: Path) -> None:
    told = []
    extracted(tmp_path / "x", progress=lambda done, total: told.append(done / total))
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_small_images_are_held_in_memory_and_others_are_streamed() -> None:
    assert is_small(tiny(), 1000)
    assert isinstance(feed_of(tiny(), samples().items, augment=("flip",)), InMemory)
    large = Backbone("large", tiny().module, 6, 96, HALVES, HALVES)
    assert isinstance(feed_of(large, samples().items, augment=None), Streamed)


def test_pixels_that_were_decoded_before_are_used() -> None:
    held = torch.zeros(24, 3, 8, 8, dtype=torch.uint8)
    feed = feed_of(tiny(), samples().items, augment=None, held=held)
    assert isinstance(feed, InMemory)
    assert feed.pixels is held


def test_counts_are_those_of_the_training_split(tmp_path: Path) -> None:
    found = samples()
    given = ClassCounts(torch.tensor([90, 9, 0]))
    folder = extract(tiny(), found, tmp_path / "x", counts=given, seen_by_backbone=False, provenance={"part": "test"})
    features = load_features(folder)
    assert features.counts.n.tolist() == [90, 9, 0]
    assert features.seen_by_backbone is False
    assert features.class_names == ("a", "b", "c")
    assert read_manifest(folder).provenance["part"] == "test"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"random": -1}, "extraction: random must be a whole number, 0 or more, got -1"),
        ({"batch_size": 0}, "extraction: batch_size must be a whole number, 1 or more, got 0"),
        ({"shard_rows": 1.5}, "shard_rows must be a whole number"),
        ({"dtype": "int8"}, "dtype must be one of float16, bfloat16, float32, got 'int8'"),
    ],
)
def test_views_out_of_range_are_named(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Views(**changes)


def test_weights_in_another_memory_order_give_the_same_bits() -> None:
    # A network that was just trained holds its weights otherwise than one that was read from a file.
    ordered = tiny()
    other = Backbone("tiny", tiny().module.to(memory_format=torch.channels_last), 6, 8, HALVES, HALVES)
    assert torch.equal(feature_rows(ordered, samples().items), feature_rows(other, samples().items))
    assert ordered.weights_digest == other.weights_digest
