"""The glyphs: counts and ranges, which depend little on the versions of the fonts, and no picture in two splits."""

import sys

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

from poise.data.glyphs import load_glyphs
from poise.data.leakage import duplicates
from poise.errors import InputError, MissingExtraError


@pytest.fixture(scope="module")
def glyphs():
    return load_glyphs()


def test_the_classes_are_naturally_long_tailed(glyphs):
    n = glyphs["train"].counts.n
    assert 45 <= len(n) <= 60
    assert 15_000 <= len(glyphs["train"]) <= 30_000
    assert 4_000 <= n.max() <= 8_000
    assert 10 <= n.min() <= 50
    assert glyphs["train"].class_names[0] == "LATIN"
    assert {"GREEK", "BRAILLE", "ROMAN"} <= set(glyphs["train"].class_names)


def test_classes_are_in_the_order_of_their_frequency(glyphs):
    total = sum(part.counts.n for part in glyphs.values())
    assert torch.equal(total, total.sort(descending=True).values)


def test_every_class_is_in_every_split(glyphs):
    assert list(glyphs) == ["train", "held_out", "test"]
    for part in glyphs.values():
        assert part.class_names == glyphs["train"].class_names
        assert (part.counts.n > 0).all()


def test_three_and_five_characters_of_a_class_are_set_aside_in_up_to_eight_faces(glyphs):
    assert glyphs["held_out"].counts.n.max() <= 3 * 8
    assert glyphs["test"].counts.n.max() <= 5 * 8
    assert glyphs["test"].counts.n.double().mean() >= 15


def test_no_picture_and_no_character_is_in_two_splits(glyphs):
    pairs = [("train", "held_out"), ("train", "test"), ("held_out", "test")]
    for one, other in pairs:
        assert duplicates(glyphs[one], glyphs[other]) == []
        assert not set(glyphs[one].groups) & set(glyphs[other].groups)


def test_pictures_are_gray_with_ink_on_black(glyphs):
    values = glyphs["test"].items.values
    assert values.shape[1:] == (32, 32, 3)
    assert (values[..., 0] == values[..., 2]).all()
    ink = (values[..., 0] > 127).mean(axis=(1, 2))
    assert 0.02 < ink.mean() < 0.3
    assert (values[..., 0].max(axis=(1, 2)) > 0).all()
    # Characters keep away from the border: no more than a few touch it with a solid stroke.
    border = np.concatenate([values[:, 0, :, 0], values[:, -1, :, 0]], axis=1)
    assert (border.max(axis=1) > 127).mean() < 0.1


def test_characters_that_look_alike_are_one_group(glyphs):
    every = {group for part in glyphs.values() for group in part.groups}
    # Latin A carries the name; Greek Alpha and Cyrillic A, which are drawn the same, have none of their own.
    assert "U+0041" in every
    assert not {"U+0391", "U+0410"} & every


def test_the_seed_decides_what_is_set_aside_and_nothing_else(glyphs):
    same, other = load_glyphs(0, size=8), load_glyphs(1, size=8)
    assert same["test"].y.tolist() != other["test"].y.tolist() or same["test"].groups != other["test"].groups
    assert sum(len(part) for part in same.values()) == sum(len(part) for part in other.values())
    again = load_glyphs(0, size=8)
    for name, part in same.items():
        assert part.fingerprint == again[name].fingerprint


def test_the_size_and_the_numbers_set_aside_can_be_chosen():
    small = load_glyphs(size=16, test_characters=2, held_out_characters=1)
    assert small["train"].items.values.shape[1:] == (16, 16, 3)
    assert small["test"].counts.n.max() <= 2 * 8
    assert small["held_out"].counts.n.max() <= 8


def test_a_size_that_holds_no_character_is_refused():
    with pytest.raises(InputError, match="the side of a picture is a whole number of 8 to 256 pixels, got 4"):
        load_glyphs(size=4)


def test_without_matplotlib_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"the glyphs come with matplotlib: pip install 'poise\[glyphs\]'"):
        load_glyphs()
