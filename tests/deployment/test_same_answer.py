"""The default gives the same answers for the same rows, however they are told."""

import numpy as np
import pytest

from poise import LongTailClassifier

CLASSES, DIM = 5, 6


def world(seed=0):
    """Training rows of five classes of 60 to 4 rows, in columns of different units, and 500 rows to answer."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(CLASSES, DIM)) * 1.2
    units = 10.0 ** np.arange(-2, DIM - 2)
    y = np.repeat(np.arange(CLASSES), [60, 30, 15, 8, 4])
    labels = np.repeat(np.arange(CLASSES), 100)
    return (means[y] + rng.normal(size=(len(y), DIM))) * units, y, (means[labels] + rng.normal(size=(500, DIM))) * units


@pytest.fixture(scope="module")
def plain():
    x, y, rows = world()
    return LongTailClassifier(seen_by_backbone=False).fit(x, y).predict_proba(rows)


ORDER = np.random.default_rng(1).permutation(117)
COLUMNS = np.random.default_rng(2).permutation(DIM)
NAMES = np.array([3, 0, 4, 1, 2])


@pytest.mark.parametrize(
    ("change", "order", "names"),
    [
        (lambda x: x, ORDER, np.arange(CLASSES)),
        (lambda x: x[:, COLUMNS], slice(None), np.arange(CLASSES)),
        (lambda x: x, slice(None), NAMES),
        (lambda x: -x, slice(None), np.arange(CLASSES)),
        (lambda x: x * 1000, slice(None), np.arange(CLASSES)),
        (lambda x: x * 1.0001, slice(None), np.arange(CLASSES)),
        (lambda x: x + 100, slice(None), np.arange(CLASSES)),
        (lambda x: x.astype(np.float32), slice(None), np.arange(CLASSES)),
        (lambda x: np.hstack([x, np.full((len(x), 1), 7.0)]), slice(None), np.arange(CLASSES)),
    ],
    ids=["rows", "columns", "classes", "signs", "x 1000", "x 1.0001", "+ 100", "float32", "a constant column"],
)
def test_the_same_rows_have_the_same_answers(plain, change, order, names):
    x, y, rows = world()
    told = LongTailClassifier(seen_by_backbone=False).fit(change(x)[order], names[y][order])
    found = told.predict_proba(change(rows))[:, names]
    assert np.abs(found - plain).max() < 2e-3  # as near as a search that stops says
    assert (found.argmax(axis=1) != plain.argmax(axis=1)).mean() <= 0.002


def test_the_parts_of_the_average_are_told_and_kept(tmp_path):
    x, y, rows = world()
    fitted = LongTailClassifier(seen_by_backbone=False).fit(x, y)
    assert fitted.method_ == "auto"
    assert sum(part.weight for part in fitted.choice_) == pytest.approx(1)
    weights = [part.weight for part in fitted.choice_]
    assert weights == sorted(weights, reverse=True)
    fitted.save(tmp_path / "m")
    again = LongTailClassifier.load(tmp_path / "m")
    assert again.choice_ == fitted.choice_
    assert np.array_equal(again.predict_proba(rows), fitted.predict_proba(rows))


def test_a_named_method_is_no_average():
    x, y, _ = world()
    assert LongTailClassifier("lda", seen_by_backbone=False).fit(x, y).choice_ == ()


def test_what_unseen_rows_say_is_told_once_of_each_though_folds_are_dealt_twice():
    x, y, rows = world()
    fitted = LongTailClassifier(seen_by_backbone=False)
    seen = fitted.fit_with_evidence(x, y)
    assert len(seen.y) == len(y)
    assert np.bincount(seen.y.numpy()).tolist() == np.bincount(y).tolist()
    assert fitted.adapt(rows).shift_.rows == len(rows)
