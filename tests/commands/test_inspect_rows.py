"""What is known of a data set before training: hand-computed numbers, and the advice that follows from them."""

import json

import pytest
import torch

from poise.commands.inspect_rows import inspect_features
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head

SIZES = (101, 100, 20, 19, 1, 0)
CROSS_VALIDATION = "The backbone never saw these rows: cross-validation is valid."
ONE_ROW = "A class of one row can be learnt but not judged: no fold leaves it out and keeps it too."


def split(sizes=SIZES, *, counts=None, seen=None, names=None, shift=0.0):
    """One-hot rows with a running number beside, so that no two are equal: the identity head is right on all."""
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    x = torch.cat([torch.eye(len(sizes))[y], shift + torch.arange(len(y))[:, None] * 1e-3], dim=1)
    return Features(x, y, ClassCounts(torch.tensor(counts or sizes)), seen_by_backbone=seen, class_names=names)


def identity(classes=6):
    return Head(torch.eye(classes, classes + 1), torch.zeros(classes))


def test_sizes_groups_and_rare_classes_are_those_of_the_counts():
    found = inspect_features(split(names=("a", "b", "c", "d", "e", "f"), seen=False))
    assert (found.rows, found.classes, found.dim) == (241, 6, 7)
    assert (found.largest, found.smallest, found.imbalance) == (101, 0, 101.0)
    assert found.groups == {
        "many": {"classes": 1, "rows": 101},
        "medium": {"classes": 2, "rows": 120},
        "few": {"classes": 3, "rows": 20},
    }
    assert (found.empty_classes, found.singletons) == (("f",), ("e",))
    assert found.duplicates == 0
    assert (found.row_groups, found.train_accuracy, found.unseen_accuracy, found.memorisation_gap) == (None,) * 4
    assert found.advice == (CROSS_VALIDATION, ONE_ROW)


def test_the_lines_for_people_say_the_same():
    assert inspect_features(split(names=tuple("abcdef"), seen=False)).lines() == [
        "241 rows, 6 classes, 7 features",
        "class sizes 101 down to 0: imbalance 101",
        "many (more than 100): 1 class, 101 rows",
        "medium (20 to 100): 2 classes, 120 rows",
        "few (fewer than 20): 3 classes, 20 rows",
        "empty classes: 1 (f)",
        "classes of one row: 1 (e)",
    ]


def test_classes_of_one_name_are_listed_each():
    found = inspect_features(split((3, 1, 1, 0, 0), names=("a", "b", "b", "c", "c"), seen=False))
    assert (found.empty_classes, found.singletons) == (("c", "c"), ("b", "b"))


def test_copies_of_rows_are_counted():
    rows = split((4, 3), seen=False)
    x = rows.x[0].clone()
    x[5] = x[0]
    x[6] = x[0]
    found = inspect_features(Features(x, rows.y, rows.counts))
    assert found.duplicates == 2
    assert "rows that repeat another one: 2" in found.lines()


def test_groups_of_rows_are_counted_whatever_they_are_called():
    found = inspect_features(split((4, 3)), groups=["é", "b", "b", "é", "c", "c", "c"])
    assert found.row_groups == 3
    assert "groups of rows: 3" in found.lines()


def test_a_head_gives_the_memorisation_gap():
    half = split((10, 10), seen=False)
    wrong = Features(half.x[0].flip(0), half.y, half.counts, seen_by_backbone=False)
    found = inspect_features(split((10, 10)), head=identity(2), held_out=wrong)
    assert (found.train_accuracy, found.unseen_accuracy, found.memorisation_gap) == (1.0, 0.0, 1.0)
    line = "the given head is right on 100.0% of the training rows, on unseen rows 0.0%: a gap of 100.0 points"
    assert found.lines()[-1] == line
    assert found.advice[0] == (
        "The training rows look memorised: nothing can be selected on them; use the held-out rows."
    )


@pytest.mark.parametrize(
    ("seen", "head", "held_out", "sentence"),
    [
        (False, None, False, CROSS_VALIDATION),
        (False, None, True, "Held-out rows select."),
        (None, None, True, "Held-out rows select."),
        (
            None,
            None,
            False,
            "It is not known whether these rows trained the backbone: say so (--unseen or --seen). If it never saw "
            "them, cross-validation is valid.",
        ),
        (
            None,
            "right",
            False,
            "The training rows look memorised: nothing can be selected on them; set aside rows that the backbone never "
            "saw (20 per class).",
        ),
        (
            True,
            None,
            False,
            "The training rows trained the backbone: nothing can be selected on them; set aside rows that the backbone "
            "never saw (20 per class).",
        ),
        (
            True,
            None,
            True,
            "The training rows trained the backbone: nothing can be selected on them; use the held-out rows.",
        ),
        # A head that is right everywhere has memorised nothing where the backbone is known not to have seen the rows.
        (False, "right", False, CROSS_VALIDATION),
    ],
)
def test_the_first_advice_says_what_may_select(seen, head, held_out, sentence):
    found = inspect_features(
        split((30, 5), seen=seen),
        head=identity(2) if head else None,
        held_out=split((3, 3), counts=(30, 5), seen=False, shift=9.0) if held_out else None,
    )
    assert found.advice == (sentence,)


def test_nearly_balanced_classes_are_told_that_there_is_little_to_correct():
    advice = inspect_features(split((30, 16), seen=False)).advice
    assert advice[1:] == ("The classes are nearly balanced: re-balancing a head has little to correct here.",)


def test_the_inspection_is_plain_json():
    found = inspect_features(split(seen=True), head=identity(), held_out=split((2,) * 6, counts=SIZES, seen=False))
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["memorisation_gap"] == 0.0
    assert data["seen_by_backbone"] is True
    assert data["empty_classes"] == ["5"]


def test_long_lists_of_classes_are_cut_off():
    found = inspect_features(split((30, *(1,) * 7), seen=False))
    assert "classes of one row: 7 (1, 2, 3, 4, 5, ...)" in found.lines()
