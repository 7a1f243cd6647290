"""Heads beside rows: those whose classes are in another order are told from those that are merely poor."""

import pytest
import torch

from poise.heads.memorised_rows import guessing
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head


def world(sizes, noise=0.1):
    """Rows around the unit vectors, as many of a class as `sizes` says, and the head that reads them."""
    y = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    x = torch.eye(len(sizes))[y] + noise * torch.randn(len(y), len(sizes), generator=torch.Generator().manual_seed(0))
    return Features(x, y, ClassCounts.from_labels(y)), Head(torch.eye(len(sizes)), torch.zeros(len(sizes)))


def test_classes_sorted_by_name_are_told_though_some_keep_their_place():
    train, head = world([9] * 20)
    order = sorted(range(20), key=str)  # 0, 1, 10, 11, ...: two of twenty stay where they were
    turned = Head(head.weight[order], head.bias)
    assert guessing("the given head", turned, train) == (
        "the given head gets a balanced accuracy of 10.0 % on the training rows, and 100.0 % with its classes in "
        "another order: are they in the order of the rows?"
    )
    assert guessing("the given head", head, train) is None


def test_features_of_something_else_are_told():
    train, head = world([9] * 4)
    assert guessing("the layer", Head(torch.zeros(4, 4), head.bias), train) == (
        "the layer gets a balanced accuracy of 25.0 % on the training rows, hardly more than guessing: are these the "
        "features that it reads, and are the classes in its order?"
    )


@pytest.mark.parametrize("noise", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("bias", [1.0, 3.0])
def test_a_poor_head_that_favours_common_classes_is_not_suspected(noise, bias):
    sizes = [400, 200, 100, 50, 25, 12, 6, 3]
    train, head = world(sizes, noise)
    shifted = head.shifted(bias * noise**2 * torch.tensor(sizes).double().log().float())
    remark = guessing("the given head", shifted, train)
    assert remark is None or "another order" not in remark
