"""Decoding at once, broken images, and finding the format."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from poise.data.samples.decode_all import pixels, readable
from poise.data.samples.formats import FORMATS, open_items, open_samples
from poise.data.samples.items import Files, Pixels
from poise.data.samples.sample_set import Samples, Sentences
from poise.data.samples.split_parts import assembled
from poise.errors import InputError, PoiseWarning


def noise(rows: int, height: int = 4, width: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, height, width, 3), dtype=np.uint8)


def files(folder: Path, values: np.ndarray) -> Files:
    names = [f"{i}.png" for i in range(len(values))]
    for name, image in zip(names, values, strict=True):
        Image.fromarray(image).save(folder / name)
    return Files(tuple(names), folder)


def test_files_and_memory_give_the_same_pixels(tmp_path: Path) -> None:
    values = noise(5, 3, 4)
    expected = torch.from_numpy(values).permute(0, 3, 1, 2)
    assert torch.equal(pixels(files(tmp_path, values)), expected)
    assert torch.equal(pixels(Pixels(values)), expected)
    assert pixels(Pixels(values)).is_contiguous()


def test_many_chunks_stay_in_order_and_progress_is_told(tmp_path: Path) -> None:
    values = noise(600, 1, 1)
    told = []
    items = Files(files(tmp_path, values[:300]).paths * 2, tmp_path)
    found = pixels(items, progress=lambda done, total: told.append((done, total)))
    assert torch.equal(found[:300], found[300:])
    assert torch.equal(found[:300, :, 0, 0], torch.from_numpy(values[:300, 0, 0]))
    assert told == [(256, 600), (512, 600), (600, 600)]


def test_a_size_scales_the_shorter_side_and_keeps_the_middle() -> None:
    values = np.zeros((1, 4, 8, 3), dtype=np.uint8)
    values[:, :, 2:6] = 200  # the middle square
    assert pixels(Pixels(values), size=4).unique().tolist() == [200]
    assert pixels(Pixels(values), size=2).shape == (1, 3, 2, 2)
    assert torch.equal(pixels(Pixels(noise(2)), size=4), pixels(Pixels(noise(2))))


def test_images_of_several_sizes_need_a_common_one(tmp_path: Path) -> None:
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    Image.new("RGB", (5, 3)).save(tmp_path / "b.png")
    items = Files(("a.png", "b.png"), tmp_path)
    with pytest.raises(InputError, match=r"b\.png has 5 x 3 pixels, .*a\.png has 4 x 3; give one size for all$"):
        pixels(items)
    assert pixels(items, size=3).shape == (2, 3, 3, 3)


def test_texts_and_nothing_have_no_pixels() -> None:
    with pytest.raises(InputError, match="texts have no pixels"):
        pixels(Sentences(("a",)))
    with pytest.raises(InputError, match="there is no image to decode"):
        pixels(Pixels(noise(0)))


def broken(folder: Path) -> Samples:
    items = files(folder, noise(4))
    (folder / "1.png").write_bytes(b"")
    (folder / "3.png").write_text("<html>")
    return Samples(items, torch.tensor([0, 1, 0, 1]), ("a", "b"), ("g0", "g1", "g2", "g3"))


def test_a_broken_image_is_an_error_that_names_the_first(tmp_path: Path) -> None:
    said = r"1\.png is no image: the file is empty; replace it, leave it out, or skip broken ones \(broken=\"skip\"\)$"
    with pytest.raises(InputError, match=said):
        readable(broken(tmp_path))
    with pytest.raises(InputError, match=r"1\.png is no image"):
        pixels(broken(tmp_path).items)


def test_broken_images_are_left_out_on_request_counted_and_listed(tmp_path: Path) -> None:
    with pytest.warns(PoiseWarning, match=r"^2 images are broken and left out of 4: .*1\.png .*, .*3\.png "):
        whole, reasons = readable(broken(tmp_path), broken="skip")
    assert whole.items.describe(1) == str(tmp_path / "2.png")
    assert (whole.y.tolist(), whole.groups, whole.class_names) == ([0, 0], ("g0", "g2"), ("a", "b"))
    assert [reason.split(" is ")[0][-5:] for reason in reasons] == ["1.png", "3.png"]


def test_whole_samples_come_back_as_they_are(tmp_path: Path) -> None:
    samples = Samples(files(tmp_path, noise(2)), torch.tensor([0, 1]), ("a", "b"))
    assert readable(samples, broken="skip") == (samples, ())
    texts = Samples(Sentences(("x", "y")), torch.tensor([0, 1]), ("a", "b"))
    assert readable(texts) == (texts, ())


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    samples = broken(tmp_path).take([1, 3])
    with pytest.raises(InputError, match=r"^none of the 2 images can be read; the first: .*1\.png"):
        readable(samples, broken="skip")
    with pytest.raises(InputError, match="broken must be one of error, skip; got 'ignore'"):
        readable(samples, broken="ignore")


def test_pixels_are_eight_bits_of_three_channels_and_gray_is_repeated() -> None:
    gray = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    assert Pixels.of(gray).values[1, 0, 0].tolist() == [4, 4, 4]
    assert (Pixels.of(gray[..., None]).values == Pixels.of(gray).values).all()
    with pytest.raises(InputError, match=r"^memory: pixels are uint8 \(N, H, W, 3\), got float64 \(2, 2, 2, 3\)$"):
        Pixels(np.zeros((2, 2, 2, 3)), "memory")


def test_some_pixels_keep_the_numbers_of_their_rows() -> None:
    some = Pixels(noise(5), "m").take(torch.tensor([4, 1, 3])).take(torch.tensor([2, 0]))
    assert [some.describe(i) for i in range(2)] == ["m, row 3", "m, row 4"]
    assert (some.values == noise(5)[[3, 4]]).all()


def test_an_image_in_memory_is_read_as_it_is() -> None:
    assert (np.asarray(Pixels(noise(2)).read(1)) == noise(2)[1]).all()


def test_nothing_at_all_is_no_source_of_samples() -> None:
    with pytest.raises(InputError, match=r"^x holds no sample$"):
        assembled(Path("x"), {}, None)


def test_digests_tell_images_apart_and_equal_ones_not(tmp_path: Path) -> None:
    flat = np.zeros((1, 2, 8, 3), dtype=np.uint8)
    assert Pixels(flat).digest(0) != Pixels(flat.reshape(1, 4, 4, 3)).digest(0)
    values = noise(2)[[0, 1, 0]]
    for items in (Pixels(values, "m"), files(tmp_path, values)):
        assert items.digest(0) == items.digest(2) != items.digest(1)
        some = items.take(torch.tensor([1, 1]))
        assert [some.digest(i) for i in range(len(some))] == [items.digest(1)] * 2
    with pytest.raises(InputError, match=r"gone\.png cannot be read: No such file"):
        Files(("gone.png",), tmp_path).digest(0)


# Which format


def test_a_path_that_is_not_there_is_named_with_the_likely_one(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match=r"^there is no file or folder .*fotos, did you mean 'photos'\?$"):
        open_samples(tmp_path / "fotos")
    with pytest.raises(InputError, match=r"nowhere does not exist either$"):
        open_items(tmp_path / "nowhere" / "a.png")


def test_a_path_longer_than_the_system_allows_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file or folder"):
        open_samples(tmp_path / ("x" * 300))


def test_a_file_of_no_known_format_is_met_with_the_list_of_formats(tmp_path: Path) -> None:
    (tmp_path / "data.xlsx").touch()
    with pytest.raises(InputError) as caught:
        open_samples(tmp_path / "data.xlsx")
    assert all(f"{known.name}: {known.what}" in str(caught.value) for known in FORMATS)
    with pytest.raises(
        InputError, match="format must be one of demo, hf, cifar, idx, npz, parquet, csv, list, image, folder"
    ):
        open_samples(tmp_path / "data.xlsx", format="excel")


def test_a_split_that_is_not_there_is_met_with_those_that_are(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x_train=noise(2), y_train=[0, 1], x_test=noise(2), y_test=[1, 0])
    for read in (open_samples, open_items):
        with pytest.raises(InputError, match=r"x\.npz has no split 'val'; it has 'train', 'test'$"):
            read(path, split="val")
    assert list(open_samples(path, split="testing")) == ["test"]
    with pytest.raises(InputError, match=r"has the splits 'train', 'test'; name one \(split=\)$"):
        open_items(path)
    assert len(open_items(path, split="test")) == 2


def test_an_empty_archive_has_nothing_to_predict(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, images=noise(0))
    with pytest.raises(InputError, match="the split 'train' is empty; there is nothing to predict"):
        open_items(path)


def test_opening_reads_no_image(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"no image")
    assert len(open_samples(tmp_path)["train"]) == 2
    assert os.listdir(tmp_path / "a") == ["1.png"]
