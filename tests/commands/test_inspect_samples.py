"""What is said of a data set: hand-computed numbers, the published group sizes, sentences, and advice."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from poise.commands.inspect_samples import survey
from poise.data.samples.items import Files, Pixels
from poise.data.samples.sample_set import Samples, Sentences
from poise.errors import InputError

DATA = os.environ.get("POISE_DATA", "")
SET_ASIDE = (
    "`poise fit` sets samples aside by itself, to select and to calibrate on: on samples that train a backbone nothing "
    "can be selected."
)
SENTENCES = "Texts need no training of a backbone: a pretrained sentence encoder gives features."
SMALL = (
    "Small pictures: `poise fit` trains convnet4 from nothing, with crop and flip; where a mirrored picture means "
    "something else, leave the flip out: -s 'stage1.augment=[crop]'."
)
PRETRAINED = "Too few pictures to learn a representation from nothing: `poise fit` starts from a pretrained backbone."
ENOUGH = (
    "Enough pictures to train a backbone from nothing; the pretrained one of `poise fit` costs less and is usually "
    "better."
)


def texts(*sizes, where="text", groups=None):
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    words = tuple(f"{where} {'word ' * (row % 3)}{row}" for row in range(len(y)))
    return Samples(Sentences(words, where), y, tuple("abcdefgh"[: len(sizes)]), groups)


def pictures(each, side=8, classes=2):
    y = torch.arange(classes).repeat_interleave(each)
    values = np.random.default_rng(0).integers(0, 256, (len(y), side, side), dtype=np.uint8)
    return Samples(Pixels.of(values), y, tuple("abcdefgh"[:classes]))


def unread(counts):
    """Samples with these counts whose files are not there, as of a list of an archive."""
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    names = tuple(str(k) for k in range(len(counts)))
    return Samples(Files(tuple(f"{row}.jpg" for row in range(len(y))), None), y, names)


def test_the_numbers_are_those_of_the_labels():
    found = survey({"train": texts(101, 100, 20, 19, 1, 0)}).splits["train"]
    assert (found.rows, found.classes, found.imbalance) == (241, 6, 101.0)
    assert (found.largest, found.smallest) == (("a", 101), ("e", 1))
    assert found.groups == {
        "many": {"classes": 1, "rows": 101},
        "medium": {"classes": 2, "rows": 120},
        "few": {"classes": 3, "rows": 20},
    }
    assert (found.empty_classes, found.singletons, found.row_groups) == (("f",), ("e",), None)
    assert (found.repeated, found.conflicts) == (0, 0)


def test_the_lines_for_people_say_the_same():
    named = {"train": texts(101, 3, 1, 0, groups=("site",) * 105), "test": texts(2, 2, 2, 2, where="test")}
    assert survey(named).lines() == [
        "train: 105 texts, 4 classes, 1 group",
        "class sizes 101 (a) down to 1 (c): imbalance 101",
        "many (more than 100): 1 class, 101 samples",
        "medium (20 to 100): 0 classes, 0 samples",
        "few (fewer than 20): 3 classes, 4 samples",
        "empty classes: 1 (d)",
        "classes of one sample: 1 (c)",
        "classes of 2 to 4 samples: 1 (b: 3)",
        "sizes 2 words to 4 words (64 texts looked at)",
        "test: 8 texts, 4 classes",
        "class sizes 2: balanced",
        "sizes 2 words to 4 words (8 texts looked at)",
    ]


def test_classes_of_two_to_four_samples_are_named_with_their_sizes():
    found = survey({"train": texts(5, 4, 2, 1)})
    assert found.splits["train"].scarce == ("b: 4", "c: 2")
    assert "classes of 2 to 4 samples: 2 (b: 4, c: 2)" in found.lines()
    assert found.advice[-1] == "A class of 2 to 4 samples can hardly be judged: of it, one or two can be set aside."
    assert survey({"train": texts(5, 1)}).splits["train"].scarce == ()


def test_pictures_have_their_smallest_and_largest_size(tmp_path):
    from PIL import Image

    for name, size in (("a.png", (30, 20)), ("b.png", (100, 80)), ("c.png", (20, 31))):
        Image.effect_noise(size, 50).save(tmp_path / name)
    samples = Samples(Files(("a.png", "b.png", "c.png"), tmp_path), torch.tensor([0, 1, 0]), ("a", "b"))
    found = survey({"train": samples})
    look = found.splits["train"].look
    assert (look.read, look.smallest, look.largest, look.broken) == (3, (30, 20), (100, 80), ())
    assert "sizes 30 x 20 pixels to 100 x 80 pixels (3 images looked at)" in found.lines()


def test_only_so_many_are_read_as_asked_and_all_on_request():
    look = survey({"train": pictures(50)}, read=7).splits["train"].look
    assert (look.read, look.smallest, look.largest) == (7, (8, 8), (8, 8))
    assert survey({"train": pictures(50)}, read=None).splits["train"].look.read == 100


def test_broken_files_are_counted_and_named(tmp_path):
    from PIL import Image

    Image.effect_noise((9, 9), 50).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"<html>")
    samples = Samples(Files(("a.png", "b.png"), tmp_path), torch.tensor([0, 1]), ("a", "b"))
    found = survey({"train": samples}, read=None)
    assert found.splits["train"].look.broken == (str(tmp_path / "b.png"),)
    assert f"cannot be read: 1 of 2 ({tmp_path / 'b.png'})" in found.lines()
    assert found.splits["train"].repeated == 0  # the bytes of a broken file can still be compared
    assert "1 samples cannot be read: repair or remove them, or say in which folder they are." in found.advice


def test_a_list_whose_files_are_not_there_is_counted_and_not_compared():
    found = survey({"train": unread([30, 5])})
    train = found.splits["train"]
    assert (train.rows, train.repeated, train.conflicts, found.leaked) == (35, None, None, {})
    assert (train.look.read, train.look.smallest, train.look.broken) == (0, None, ())
    assert found.advice[1] == PRETRAINED
    assert not any("cannot be read" in line for line in (*found.lines(), *found.advice))


def test_equal_samples_are_counted_within_training_and_across_splits():
    train = Samples(Sentences(("p", "q", "p", "q")), torch.tensor([0, 1, 0, 0]), ("a", "b"))
    test = Samples(Sentences(("q", "r")), torch.tensor([0, 1]), ("a", "b"))
    found = survey({"train": train, "test": test})
    assert (found.splits["train"].repeated, found.splits["train"].conflicts) == (2, 1)
    assert found.leaked == {"test": 1}
    assert found.lines()[-1] == "test samples that are training samples too: 1"
    assert "samples that repeat an earlier one: 2" in found.lines()
    assert "of these with another label: 1" in found.lines()
    assert found.advice[2:4] == (
        "Training samples are in another split too: remove them from one of the two.",
        "Equal samples have different labels: decide which is right, or remove them.",
    )
    skipped = survey({"train": train, "test": test}, same_by=None)
    assert (skipped.splits["train"].repeated, skipped.leaked) == (None, {})


@pytest.mark.parametrize(
    ("named", "advice"),
    [
        ({"train": texts(11, 5)}, (SET_ASIDE, SENTENCES)),
        (
            {"train": texts(11, 5), "val": texts(2, 2, where="val")},
            ("Held-out samples are there: they select and calibrate, and must not train the backbone.", SENTENCES),
        ),
        (
            {"train": texts(9, 9)},
            (
                SET_ASIDE,
                SENTENCES,
                "The classes are nearly balanced: re-balancing has little to correct here.",
            ),
        ),
        (
            {"train": texts(9, 1, 0, groups=tuple("aabbccddee"))},
            (
                SET_ASIDE,
                SENTENCES,
                "Groups stay whole in every split made here; see that given splits share none.",
                "A class of one sample can be learnt but not judged: collect more, or merge it.",
                "Empty classes stay in the list of classes but cannot be learnt: add samples.",
            ),
        ),
    ],
)
def test_the_advice_follows_from_the_numbers(named, advice):
    assert survey(named).advice == advice


def test_the_backbone_follows_from_the_size_and_number_of_pictures():
    assert survey({"train": pictures(4, side=64)}).advice[1] == SMALL
    assert survey({"train": pictures(4, side=65)}).advice[1] == PRETRAINED
    assert survey({"train": unread([49_999, 1])}, read=1).advice[1] == ENOUGH


def test_the_survey_is_plain_json():
    data = json.loads(json.dumps(survey({"train": pictures(4)}).to_dict(), allow_nan=False))
    assert data["kind"] == "image"
    assert data["splits"]["train"]["look"] == {"read": 8, "smallest": [8, 8], "largest": [8, 8], "broken": []}


def test_splits_that_cannot_be_surveyed_are_refused():
    with pytest.raises(InputError, match="there is no split to look at; name some samples"):
        survey({})
    with pytest.raises(InputError, match="the split 'test' is empty; add samples, or leave it out"):
        survey({"train": texts(2, 2), "test": texts(0, 0)})
    with pytest.raises(InputError, match="read must be a whole number, 1 or more, got 0"):
        survey({"train": texts(2, 2)}, read=0)


@pytest.mark.skipif(not DATA, reason="POISE_DATA, the path of the published counts, is not set")
@pytest.mark.parametrize(
    ("name", "rows", "groups", "imbalance"),
    [
        ("ImageNet_LT", 115_846, (385, 479, 136), 256.0),
        ("Places_LT", 62_500, (131, 163, 71), 996.0),
        ("iNaturalist18", 437_513, (842, 4_076, 3_224), 500.0),
    ],
)
def test_published_counts_give_the_published_group_sizes(name, rows, groups, imbalance):
    counts = json.loads((Path(DATA) / "counts" / f"{name}.json").read_text())
    found = survey({"train": unread(counts)}, read=1).splits["train"]
    assert found.rows == rows
    assert tuple(found.groups[group]["classes"] for group in ("many", "medium", "few")) == groups
    assert sum(group["rows"] for group in found.groups.values()) == rows
    assert found.imbalance == imbalance


def test_a_split_that_trains_nothing_is_surveyed_alone():
    found = survey({"test": texts(2, 2)})
    assert found.lines()[0] == "test: 4 texts, 2 classes"
    assert found.advice == ("These are no training samples: what is rare is told by the training split.",)
