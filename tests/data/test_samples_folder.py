"""Folders of images: classes, splits, order, junk, links, and what is refused."""

import os
import unicodedata
import warnings
from pathlib import Path

import pytest
from PIL import Image

from poise.data.samples.decode_all import pixels
from poise.data.samples.formats import open_items, open_samples
from poise.data.samples.items import Files
from poise.errors import InputError, PoiseWarning


def photographs(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (number, 0, 0)).save(path)
    return root


def test_folders_are_classes_in_the_order_of_their_names_and_images_may_lie_deeper(tmp_path: Path) -> None:
    root = photographs(tmp_path, "owl/b.png", "cat/2.png", "cat/old/1.png", "owl/A.PNG", "Zebra/z.jpeg")
    samples = open_samples(root)["train"]
    assert samples.class_names == ("Zebra", "cat", "owl")
    assert samples.y.tolist() == [0, 1, 1, 2, 2]
    assert isinstance(samples.items, Files)
    assert samples.items.paths == ("Zebra/z.jpeg", "cat/2.png", "cat/old/1.png", "owl/A.PNG", "owl/b.png")
    assert pixels(samples.items).shape == (5, 3, 2, 2)


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_folders_that_are_called_like_splits_are_splits(tmp_path: Path, validation: str) -> None:
    root = photographs(tmp_path, *(f"{s}/{c}/1.png" for s in ("test", "train", validation) for c in ("a", "b")))
    assert list(open_samples(root)) == ["train", "val", "test"]
    assert open_samples(root, split="val")["val"].items.describe(0) == str(root / validation / "a" / "1.png")


def test_a_class_may_be_called_train_among_other_classes(tmp_path: Path) -> None:
    root = photographs(tmp_path, "bus/1.png", "train/1.png")
    assert open_samples(root)["train"].class_names == ("bus", "train")


def test_splits_beside_other_folders_are_refused(tmp_path: Path) -> None:
    root = photographs(tmp_path, "train/a/1.png", "test/a/1.png", "extra/1.png")
    with pytest.raises(InputError, match=r"holds the splits 'test', 'train' beside other folders, 'extra'; move these"):
        open_samples(root)


def test_two_names_of_one_split_are_refused(tmp_path: Path) -> None:
    root = photographs(tmp_path, "train/a/1.png", "val/a/1.png", "validation/a/1.png")
    with pytest.raises(InputError, match="two mean the same split; keep one of them"):
        open_samples(root)


def test_an_empty_folder_is_kept_as_a_class_with_a_warning(tmp_path: Path) -> None:
    root = photographs(tmp_path, "cat/1.png", "emu/1.png")
    (root / "dog").mkdir()
    with pytest.warns(PoiseWarning, match="1 class has no sample in the split 'train' and will be kept: 'dog'"):
        samples = open_samples(root)["train"]
    assert samples.class_names == ("cat", "dog", "emu")
    assert samples.counts.n.tolist() == [1, 0, 1]


def test_splits_share_all_classes_and_say_which_are_absent(tmp_path: Path) -> None:
    root = photographs(tmp_path, "train/a/1.png", "train/b/1.png", "test/b/1.png", "test/c/1.png")
    with pytest.warns(PoiseWarning) as caught:
        samples = open_samples(root)
    assert samples["train"].class_names == samples["test"].class_names == ("a", "b", "c")
    assert samples["test"].y.tolist() == [1, 2]
    assert [str(w.message).split(": ", 1)[1] for w in caught] == [
        "1 class has no sample in the split 'train' and will be kept: 'c'",
        "1 class has no sample in the split 'test' and will be kept: 'a'",
    ]


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    root = photographs(tmp_path, "train/a/1.png", "train/b/1.png")
    (root / "test" / "a").mkdir(parents=True)
    with pytest.raises(InputError, match="the split 'test' is empty; add samples, or remove it"):
        open_samples(root)


def test_junk_is_passed_over_and_other_files_are_told(tmp_path: Path) -> None:
    root = photographs(tmp_path, "a/1.png", "b/1.png", "a/.hidden.png", ".cache/1.png")
    for name in ("a/.DS_Store", "b/Thumbs.db", "Desktop.ini"):
        (root / name).touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(open_samples(root)["train"]) == 2
    (root / "notes.md").touch()
    (root / "a" / "1.xml").touch()
    with pytest.warns(PoiseWarning, match="2 files are no image by name and left out: 'notes.md', 'a/1.xml'$"):
        assert len(open_samples(root)["train"]) == 2


def test_images_beside_folders_are_refused_as_nobody_knows_their_class(tmp_path: Path) -> None:
    root = photographs(tmp_path, "a/1.png", "b/1.png", "stray.png")
    with pytest.raises(InputError, match=r"stray\.png lies beside the folders of the classes; move it into the folder"):
        open_samples(root)


def test_a_folder_of_images_without_classes_is_refused_for_training_and_read_for_prediction(tmp_path: Path) -> None:
    root = photographs(tmp_path, "b.png", "a.png", "deep/er/c.png")
    (root / "deep" / "er" / "c.png").rename(root / "deep" / "c.png")
    with pytest.raises(InputError, match=r"a\.png lies beside the folders of the classes, as 1 more do; move"):
        open_samples(root)
    assert open_items(root).describe(2) == str(root / "deep" / "c.png")
    assert len(open_items(root / "a.png")) == 1
    with pytest.raises(InputError, match="is one image; labels come from a folder"):
        open_samples(root / "a.png")


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds only one class, 'a'; a classifier needs samples of at least two$"):
        open_samples(photographs(tmp_path, "a/1.png"))


def test_a_folder_around_the_classes_is_pointed_out(tmp_path: Path) -> None:
    root = photographs(tmp_path, "images/cat/1.png", "images/dog/1.png")
    with pytest.raises(
        InputError, match=r"only one class, 'images'; .*; if 'cat', 'dog' are the classes, give .*images$"
    ):
        open_samples(root)


def test_a_table_beside_the_images_is_pointed_out(tmp_path: Path) -> None:
    root = photographs(tmp_path, "train/1.png", "test/2.png")
    (root / "train.csv").touch()
    with pytest.raises(
        InputError, match=r"2\.png lies in no folder of a class; .*; if train\.csv holds the labels, give"
    ):
        open_samples(root)


def test_one_class_alone_is_enough_where_the_others_are_known(tmp_path: Path) -> None:
    root = photographs(tmp_path, "cat/1.png", "cat/deep/2.png")
    with pytest.warns(PoiseWarning, match="will be kept: 'dog'"):
        assert open_samples(root, class_names=("dog", "cat"))["train"].y.tolist() == [1, 1]


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch) -> None:
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"^cannot read the folder .*: Permission denied$"):
        open_samples(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    for read in (open_samples, open_items):
        with pytest.raises(InputError, match=r"holds no image; images are files that end in .*png"):
            read(tmp_path)


def test_names_with_spaces_and_letters_of_any_language_work(tmp_path: Path) -> None:
    deep = "ä" * 60 + "/" + "b c" * 40
    root = photographs(tmp_path / "Bilder 2026 上", "Wäldchen/ein Baum.png", f"日本/{deep}/1.png")
    samples = open_samples(root)["train"]
    assert samples.class_names == ("Wäldchen", "日本")
    assert pixels(samples.items).shape == (2, 3, 2, 2)


def test_a_class_is_one_class_however_its_letters_are_composed(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "Bäume") for form in ("NFC", "NFD"))
    root = photographs(tmp_path, *(f"{s}/{c}/1.png" for s, c in (("train", composed), ("test", apart))))
    photographs(root, "train/x/1.png", "test/x/1.png")
    assert {s.class_names for s in open_samples(root).values()} == {(composed, "x")}


def test_links_to_folders_and_files_are_followed(tmp_path: Path) -> None:
    store = photographs(tmp_path / "store", "1.png")
    root = photographs(tmp_path / "root", "a/1.png")
    (root / "b").symlink_to(store, target_is_directory=True)
    (root / "a" / "2.png").symlink_to(store / "1.png")
    assert open_samples(root)["train"].y.tolist() == [0, 0, 1]


def test_a_link_in_a_circle_is_refused(tmp_path: Path) -> None:
    root = photographs(tmp_path, "a/1.png", "b/1.png")
    (root / "b" / "again").symlink_to(root / "b", target_is_directory=True)
    with pytest.raises(InputError, match=r"again is a link to a folder that holds it; remove the link$"):
        open_samples(root)


def test_a_link_that_leads_nowhere_is_named_when_it_is_read(tmp_path: Path) -> None:
    root = photographs(tmp_path, "a/1.png", "b/1.png")
    (root / "a" / "0.png").symlink_to(root / "gone.png")
    with pytest.raises(InputError, match=r"0\.png cannot be read: No such file"):
        pixels(open_samples(root)["train"].items)


def test_times_of_files_do_not_matter(tmp_path: Path) -> None:
    root = photographs(tmp_path, "a/1.png", "b/1.png")
    before = open_samples(root)["train"].fingerprint
    os.utime(root / "a" / "1.png", (4e9, 4e9))  # the year 2096
    assert open_samples(root)["train"].fingerprint == before


def test_class_names_of_a_model_number_the_folders(tmp_path: Path) -> None:
    root = photographs(tmp_path, "cat/1.png", "owl/1.png")
    with pytest.warns(PoiseWarning, match="no sample in the split 'train' and will be kept: 'bat'"):
        assert open_samples(root, class_names=("owl", "bat", "cat"))["train"].y.tolist() == [2, 0]
    with pytest.raises(InputError, match=r"'owl' is none of the 2 classes"):
        open_samples(root, class_names=("cat", "dog"))
