"""Equal samples: pairs by hand, by bytes and by content, the warning, and the refusal."""

import numpy as np
import pytest
import torch

from poise.data.leakage import check_leakage, duplicates, keys, repeats, shared
from poise.data.samples.items import Pixels
from poise.data.samples.sample_set import Samples, Sentences
from poise.errors import InputError, MemorisedRowsError, PoiseWarning


def texts(*words, y=None, where="text"):
    labels = torch.tensor(y) if y else torch.arange(len(words)) % 2
    return Samples(Sentences(words, where), labels, ("a", "b"))


def pictures(*grays, where="pixels"):
    """Pictures of one gray each."""
    values = np.stack([np.full((4, 4), gray, dtype=np.uint8) for gray in grays])
    return Samples(Pixels.of(values, where), torch.arange(len(grays)) % 2, ("a", "b"))


def test_every_test_sample_that_was_trained_on_is_paired_with_its_first_occurrence():
    assert duplicates(texts("p", "q", "q", "r"), texts("q", "x", "r", "q")) == [(1, 0), (3, 2), (1, 3)]
    assert duplicates(texts("p"), texts("q")) == []


@pytest.mark.parametrize("by", ["bytes", "content"])
def test_pictures_are_compared_by_their_pixels(by):
    assert duplicates(pictures(0, 9, 200), pictures(200, 1), by=by) == [(2, 0)]


def test_pictures_of_equal_bytes_and_another_shape_differ():
    flat = Samples(Pixels(np.zeros((1, 2, 8, 3), dtype=np.uint8)), torch.tensor([0]), ("a", "b"))
    for by in ("bytes", "content"):
        assert duplicates(pictures(0), flat, by=by) == []


def test_the_content_of_texts_is_their_words_whatever_case_and_spaces():
    train, test = texts("Where is  it?"), texts("where IS it? ")
    assert duplicates(train, test) == []
    assert duplicates(train, test, by="content") == [(0, 0)]


def test_one_picture_stored_in_two_ways_is_found_by_its_content(tmp_path):
    from PIL import Image

    from poise.data.samples.items import Files

    Image.effect_noise((8, 8), 60).save(tmp_path / "a.png")
    Image.open(tmp_path / "a.png").save(tmp_path / "b.bmp")
    one, other = (Samples(Files((name,), tmp_path), torch.tensor([0]), ("a", "b")) for name in ("a.png", "b.bmp"))
    assert duplicates(one, other) == []
    assert duplicates(one, other, by="content") == [(0, 0)]


def test_repeated_samples_are_counted_and_those_with_another_label_listed():
    samples = texts("p", "q", "p", "p", "q", y=[0, 0, 0, 1, 1])
    assert repeats(keys(samples), samples.y.tolist()) == (3, [(0, 3), (1, 4)])


def test_the_first_occurrence_counts():
    assert shared("abab", "b") == [(1, 0)]


def test_shared_samples_are_counted_with_the_first_pairs_and_where_they_are():
    others = map(str, range(95))
    train = texts("p", "q", *map(chr, range(200, 400)), where="train.csv")
    test = texts("q", "x", "p", "p", "p", *others, where="test.csv")
    with pytest.warns(PoiseWarning) as caught:
        found = check_leakage({"train": train, "test": test})
    assert found == {("train", "test"): [(1, 0), (0, 2), (0, 3), (0, 4)]}
    assert [str(remark.message) for remark in caught] == [
        "4 of 100 samples of test are in train too: test.csv, row 1 = train.csv, row 2; test.csv, row 3 = train.csv, "
        "row 1; test.csv, row 4 = train.csv, row 1; .... Remove them from one of the two: what was learnt by heart is "
        "measured as skill"
    ]


def test_every_two_splits_are_compared():
    parts = {"train": texts("p"), "held_out": texts("q"), "test": texts("q", "r")}
    with pytest.warns(PoiseWarning, match="^1 of 2 samples of test are in held_out too: "):
        assert check_leakage(parts) == {("held_out", "test"): [(0, 0)]}


@pytest.mark.parametrize("chosen", [slice(None), slice(1, None), slice(None, None, 2)])
def test_splits_that_share_many_samples_are_refused(chosen):
    words = [f"question {number}" for number in range(40)]
    parts = {"train": texts(*words), "held_out": texts("x", "y"), "test": texts(*words[chosen], "another")}
    with pytest.raises(MemorisedRowsError, match=r"samples of test are in train too: .* Remove them from one of the"):
        check_leakage(parts)
    many = pictures(*range(40)), pictures(*range(40)[chosen])
    with pytest.raises(MemorisedRowsError, match="samples of held_out are in train too: "):
        check_leakage({"train": many[0], "held_out": many[1]})


def test_texts_of_few_words_repeat_by_right_and_copied_pictures_do_not():
    answers = texts(*("yes", "no", "maybe") * 30)
    with pytest.warns(PoiseWarning, match="^30 of 30 samples of test are in train too"):
        check_leakage({"train": answers, "test": texts(*("yes", "no", "maybe") * 10)})
    copied = pictures(*range(40), *range(40), *range(40))
    with pytest.raises(MemorisedRowsError, match=r"^10 of 10 samples of test are in train too"):
        check_leakage({"train": copied, "test": pictures(*range(10))})


def test_splits_without_a_common_sample_pass_in_silence():
    assert check_leakage({"train": texts("p"), "test": texts("q")}, strict=True) == {}


def test_strict_refuses_with_the_same_words():
    with pytest.raises(
        InputError, match=r"^1 of 1 samples of test are in train too: text, row 1 = text, row 1\. Remove"
    ):
        check_leakage({"train": texts("p"), "test": texts("p")}, strict=True)


def test_an_unknown_way_to_compare_is_refused():
    with pytest.raises(InputError, match="by must be one of bytes, content; got 'name'"):
        duplicates(texts("p"), texts("q"), by="name")
