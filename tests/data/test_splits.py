"""Profiles over any samples, rows set aside, and the division of a data set: counts by hand, groups whole, hashes."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poise.data.samples.sample_set import Samples, Sentences
from poise.data.splits import carve, divide, long_tailed
from poise.errors import InputError, PoiseWarning
from poise.profiles import SPLITS, exponential, pareto, split_hash, split_rows, step
from poise.values.spec import Spec

DATA = os.environ.get("POISE_DATA", "")


def pool(*sizes, groups=None, names=None, where="text"):
    """Samples of sizes[k] texts of class k, class by class."""
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    texts = tuple(f"{where} {row}" for row in range(len(y)))
    return Samples(Sentences(texts, where), y, names or tuple("abcdefghijklmnop"[: len(sizes)]), groups)


def interleaved(classes, each):
    """Samples whose labels go round robin."""
    y = torch.arange(classes * each) % classes
    names = tuple(f"class {k}" for k in range(classes))
    return Samples(Sentences(tuple(str(row) for row in range(len(y)))), y, names)


def per_class(samples, rows):
    """(C,) number of the rows in every class."""
    return torch.bincount(samples.y[rows], minlength=len(samples.class_names)).tolist()


# --- profiles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("exponential(imbalance=10)", exponential(50, 4, 10)),
        ("pareto(imbalance=10,power=2)", pareto(50, 4, 10, 2)),
        ("step(imbalance=10,head_share=0.25)", step(50, 4, 10, 0.25)),
        ("exponential(imbalance=10,n_max=30)", exponential(30, 4, 10)),
    ],
)
def test_a_profile_has_the_counts_of_its_formula_and_fills_a_balanced_pool(text, counts):
    cut = long_tailed(interleaved(4, 50), text)
    assert torch.equal(cut.counts, counts)
    assert per_class(interleaved(4, 50), cut.rows) == counts.tolist()


def test_rows_and_what_is_left_over_are_the_whole_pool():
    cut = long_tailed(interleaved(4, 50), "exponential(imbalance=10)")
    assert torch.cat([cut.rows, cut.left_over]).sort().values.tolist() == list(range(200))


def test_file_order_takes_the_first_rows_and_leaves_the_next_ones_first():
    cut = long_tailed(pool(4, 4), "exponential(imbalance=2)")
    assert cut.rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert cut.left_over.tolist() == [6, 7]
    assert cut.hash == split_hash(cut.rows)


def test_the_largest_class_is_as_large_as_every_class_of_the_pool_allows():
    # int(n / 4) <= 5 holds up to n = 23, and the middle class int(n / 2) <= 9 up to 19.
    cut = long_tailed(pool(40, 9, 5), "exponential(imbalance=4)")
    assert cut.counts.tolist() == exponential(19, 3, 4).tolist() == [19, 9, 4]
    assert cut.text == "exponential(imbalance=4,n_max=19), order first, classes in their own order"


@given(
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=6),
    imbalance=st.floats(1, 8),
    name=st.sampled_from(["exponential", "pareto", "step"]),
)
@settings(deadline=None, max_examples=60)
def test_no_larger_profile_fits_the_pool(sizes, imbalance, name):
    samples = pool(*sizes)
    spec = Spec(name, imbalance=imbalance)
    try:
        cut = long_tailed(samples, spec)
    except InputError:
        return
    assert (cut.counts <= samples.counts.n).all()
    shape = {"exponential": exponential, "pareto": pareto, "step": step}[name]
    larger = shape(int(cut.counts[0]) + 1, len(sizes), imbalance)
    assert (larger > samples.counts.n).any()


def test_a_permuted_class_order_keeps_the_sizes_and_changes_who_is_rare():
    samples = interleaved(8, 40)
    native = long_tailed(samples, "exponential(imbalance=10)")
    permuted = [long_tailed(samples, "exponential(imbalance=10)", class_order=seed) for seed in (0, 1, 0)]
    for cut in permuted:
        assert cut.counts.sort(descending=True).values.tolist() == native.counts.tolist()
        assert per_class(samples, cut.rows) == cut.counts.tolist()
    assert permuted[0].counts.tolist() != native.counts.tolist()
    assert permuted[0].counts.tolist() != permuted[1].counts.tolist()
    assert torch.equal(permuted[0].rows, permuted[2].rows)
    assert permuted[1].text.endswith("classes permuted by seed 1")


def test_a_seed_as_order_chooses_other_rows_of_the_same_counts():
    samples = interleaved(3, 30)
    first, seeded = (long_tailed(samples, "exponential(imbalance=3)", order=order) for order in ("first", 0))
    assert torch.equal(first.counts, seeded.counts)
    assert not torch.equal(first.rows, seeded.rows)
    assert "order 0," in seeded.text


@pytest.mark.parametrize("name", ["cifar10_lt_if100_first", "cifar10_lt_if100_ldam"])
def test_a_published_split_has_its_published_rows_and_hash(name):
    samples = interleaved(10, 5000)
    cut = long_tailed(samples, name)
    assert torch.equal(cut.rows, split_rows(name, samples.y))
    assert cut.hash == split_hash(split_rows(name, samples.y))
    assert torch.equal(cut.counts, SPLITS[name].counts)
    assert cut.text == name


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (
            "exponental(imbalance=2)",
            "no profile is called 'exponental(imbalance=2)', did you mean 'exponential'? there",
        ),
        ("step(imbalance=2)+step(imbalance=2)", "no profile is called 'step(imbalance=2)+step(imbalance=2)'"),
        ("cifar100-lt", "cannot read the profile 'cifar100-lt'; write it as exponential(imbalance=100), or name a pub"),
        ("exponential", "exponential needs an imbalance; write exponential(imbalance=100)"),
        ("step(imbalance=2,power=6)", "step has no parameter 'power'; it has n_max, imbalance, head_share"),
        ("step(imbalance='2')", "imbalance of step must be a number, got '2'"),
        ("step(imbalance=2,n_max=2.5)", "n_max of step must be a whole number, got 2.5"),
        ("step(imbalance=0.5)", "a profile needs n_max >= 1, classes >= 2 and a finite imbalance >= 1"),
        (
            "step(imbalance=2,n_max=9)",
            "class 'a' has 6 samples, 9 are asked for by step(imbalance=2,n_max=9), order first",
        ),
        ("exponential(imbalance=50)", "exponential(imbalance=50) needs at least 50 samples of class 'a', there are 6"),
        ("cifar10_lt_if100_first", "cifar10_lt_if100_first has 10 classes, these samples have 3"),
    ],
)
def test_a_profile_that_cannot_be_had_is_refused_by_name(profile, message):
    with pytest.raises(InputError) as caught:
        long_tailed(pool(6, 6, 6), profile)
    assert str(caught.value).startswith(message)


def test_an_empty_class_of_the_pool_is_named():
    with pytest.raises(
        InputError, match=r"needs at least 1 samples of class 'b', there are 0; lower the imbalance, or"
    ):
        long_tailed(pool(6, 0, 6), "exponential(imbalance=2)")


def test_a_published_split_takes_no_other_order():
    with pytest.raises(InputError, match="has the order 'first' and its own order of classes; leave both out"):
        long_tailed(interleaved(10, 5000), "cifar10_lt_if100_first", order="ldam")
    with pytest.raises(InputError, match="order must be 'first', 'ldam' or a whole number, 0 or more, got -1"):
        long_tailed(pool(6, 6), "exponential(imbalance=2)", order=-1)
    with pytest.raises(
        InputError, match="class_order must be 'native', a whole number, 0 or more, or a list of all cl"
    ):
        long_tailed(pool(6, 6), "exponential(imbalance=2)", class_order=-1)


@pytest.mark.parametrize("size", [4999, 5001])
def test_a_shuffled_published_split_refuses_a_pool_that_is_not_the_whole_data_set(size):
    whole = long_tailed(interleaved(10, 5000), "cifar10_lt_if100_ldam")
    assert len(whole.rows) == 12406
    said = f"cifar10_lt_if100_ldam is drawn from 5000 samples of every class, and class .* has {size} here, .*_first"
    with pytest.raises(InputError, match=said):
        long_tailed(interleaved(10, size), "cifar10_lt_if100_ldam")
    long_tailed(interleaved(10, size + 1), "cifar10_lt_if100_first")  # the first of a class are the same ones anyway


def test_test_samples_are_not_taken_from_the_pool_of_a_published_split():
    said = "cifar10_lt_if100_first is cut from the whole training set, and test samples would be taken out of it first"
    with pytest.raises(InputError, match=said):
        divide({"train": interleaved(10, 5000)}, profile="cifar10_lt_if100_first", test=5)
    with pytest.raises(InputError, match=r"data\.test_rows=0"):
        divide({"train": interleaved(10, 5000)}, profile="cifar10_lt_if100_ldam", test=0.1)
    found = divide({"train": interleaved(10, 5000)}, profile="cifar10_lt_if100_first", test=None)
    assert len(found.train) == 12406


def test_a_list_says_which_class_is_largest():
    found = long_tailed(pool(8, 8, 8), "exponential(imbalance=4,n_max=8)", class_order=[2, 0, 1])
    assert found.counts.tolist() == [4, 2, 8]
    assert found.text.endswith("classes in a stated order")
    native = long_tailed(pool(8, 8, 8), "exponential(imbalance=4,n_max=8)", class_order=[0, 1, 2])
    assert torch.equal(native.rows, long_tailed(pool(8, 8, 8), "exponential(imbalance=4,n_max=8)").rows)
    for wrong in ([0, 1], [0, 1, 1], [0, 1, 3], [0, 1, 2, 2], ["0", "1", "2"]):
        with pytest.raises(InputError, match="a list as class_order must hold each number from 0 to 2 once"):
            long_tailed(pool(8, 8, 8), "exponential(imbalance=4,n_max=8)", class_order=wrong)


# --- rows set aside --------------------------------------------------------------------------------------------------


def test_up_to_that_many_of_each_class_are_set_aside_and_never_more_than_half():
    samples = pool(50, 7, 2, 1, 0)
    rows = carve(samples, 5)
    assert per_class(samples, rows.held_out) == [5, 3, 1, 0, 0]
    assert torch.cat(rows).sort().values.tolist() == list(range(60))
    assert all(torch.equal(part, part.sort().values) for part in rows)


def test_a_share_is_rounded_and_takes_at_least_one_where_it_may():
    samples = pool(50, 7, 3, 2, 1)
    assert per_class(samples, carve(samples, 0.1).held_out) == [5, 1, 1, 1, 0]
    assert per_class(samples, carve(samples, 0.5).held_out) == [25, 3, 1, 1, 0]
    assert per_class(pool(10, 14), carve(pool(10, 14), 0.25).held_out) == [3, 4]  # of 2.5 and 3.5


def test_file_order_takes_the_first_rows_and_seeds_take_others():
    samples = pool(20, 20)
    assert carve(samples, 2, order="first").held_out.tolist() == [0, 1, 20, 21]
    seeded = [carve(samples, 5, order=seed).held_out.tolist() for seed in (0, 0, 1)]
    assert seeded[0] == seeded[1] != seeded[2]


def test_the_rows_of_one_class_do_not_depend_on_the_labels_of_others():
    samples = interleaved(3, 10)
    merged = Samples(samples.items, samples.y.clamp(max=1), ("a", "b"))
    of_first = [[i for i in carve(s, 3).held_out.tolist() if s.y[i] == 0] for s in (samples, merged)]
    assert of_first[0] == of_first[1]


@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=60),
    amount=st.one_of(st.integers(1, 6), st.floats(0.01, 0.5)),
    order=st.one_of(st.just("first"), st.integers(0, 3)),
)
@settings(deadline=None, max_examples=150)
def test_groups_stay_whole_and_every_class_keeps_half(rows, amount, order):
    y, groups = torch.tensor(rows).T
    names = tuple(f"site {g}" for g in groups.tolist())
    samples = Samples(Sentences(tuple("x" * len(y))), y, tuple("abcde"), names)
    try:
        train, held_out = carve(samples, amount, order=order)
    except InputError:
        return
    assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(len(y)))
    assert not {names[i] for i in train.tolist()} & {names[i] for i in held_out.tolist()}
    n, held = samples.counts.n, torch.tensor(per_class(samples, held_out))
    assert (held <= n // 2).all()


def test_a_class_gets_its_smallest_group_where_all_exceed_the_limit():
    samples = pool(60, 60, groups=("g1",) * 40 + ("g2",) * 20 + ("g3",) * 5 + ("g4",) * 55)
    rows = carve(samples, 10)
    assert {samples.groups[i] for i in rows.held_out.tolist()} == {"g2", "g3"}


def test_groups_of_one_row_are_no_restriction():
    samples = pool(30, 9, groups=tuple(f"g{row:02d}" for row in range(39)))
    assert carve(samples, 5, order=3).held_out.tolist() == carve(pool(30, 9), 5, order=3).held_out.tolist()


def test_left_over_rows_come_first_and_training_stays_as_it_was():
    samples = pool(10, 10, 10)
    tail = long_tailed(samples, "exponential(imbalance=4,n_max=8)")
    rows = carve(samples, 3, tail=tail)
    assert torch.equal(rows.train, tail.rows)
    assert tail.counts.tolist() == [8, 4, 2]
    assert rows.held_out.tolist() == [8, 9, 14, 15, 16, 22, 23, 24]


def test_left_over_rows_are_taken_in_the_order_of_choice():
    samples = interleaved(2, 30)
    tail = long_tailed(samples, "exponential(imbalance=2,n_max=20)", order=7)
    of_first = [i for i in tail.left_over.tolist() if samples.y[i] == 0]
    held_out = carve(samples, 4, tail=tail).held_out.tolist()
    assert [i for i in held_out if samples.y[i] == 0] == sorted(of_first[:4])


def test_left_over_rows_of_a_group_that_trains_are_not_used():
    samples = pool(4, 4, groups=("p", "q", "q", "r", "s", "s", "t", "u"))
    tail = long_tailed(samples, "step(imbalance=1,n_max=2)")
    assert tail.rows.tolist() == [0, 1, 4, 5]
    assert carve(samples, 5, tail=tail).held_out.tolist() == [3, 6, 7]


def test_a_profile_that_leaves_nothing_gives_of_its_own_rows():
    samples = pool(6, 6)
    tail = long_tailed(samples, "exponential(imbalance=1)")
    rows = carve(samples, 2, tail=tail)
    assert per_class(samples, rows.held_out) == [2, 2]
    assert sorted(torch.cat(rows).tolist()) == list(range(12))


@pytest.mark.parametrize("amount", [0, -1, 0.6, 0.0, 1.0, True, float("nan"), "5"])
def test_an_amount_that_makes_no_sense_is_refused(amount):
    with pytest.raises(InputError, match=r"a whole number per class or by a share of at most 0\.5, got "):
        carve(pool(6, 6), amount)


def test_nothing_to_set_aside_is_refused_and_so_is_an_unknown_order():
    with pytest.raises(InputError, match="nothing can be set aside: no class has more than one sample; add samples"):
        carve(pool(1, 1), 5)
    with pytest.raises(InputError, match="no class has more than one group"):
        carve(pool(3, 3, groups=("a",) * 3 + ("b",) * 3), 5)
    with pytest.raises(InputError, match="order must be 'first' or a seed, a whole number of at least 0, got 'last'"):
        carve(pool(6, 6), 2, order="last")


# --- a whole data set ------------------------------------------------------------------------------------------------


def test_given_splits_are_used_as_they_are():
    named = {"train": pool(9, 5), "val": pool(2, 2, where="val"), "test": pool(3, 3, where="test")}
    made = divide(named)
    assert (len(made.train), len(made.held_out), len(made.test)) == (14, 4, 6)
    assert made.held_out.items.texts[0] == "val 0"
    assert made.origins["held_out"].split == "val"
    assert made.notes == (
        "train: the split 'train' of 14 samples",
        "held_out: the split 'val' of 4 samples",
        "test: the split 'test' of 6 samples",
    )


def test_held_out_and_test_samples_are_set_aside_when_there_are_none():
    made = divide({"train": pool(40, 12)}, held_out=4, test=0.25, seed=3)
    assert [part.counts.n.tolist() for part in (made.train, made.held_out, made.test)] == [[26, 5], [4, 4], [10, 3]]
    texts = [text for part in made.parts.values() for text in part.items.texts]
    assert sorted(texts) == sorted(pool(40, 12).items.texts)
    for name, part in made.parts.items():
        assert part.items.texts == pool(40, 12).take(made.origins[name].rows).items.texts
    assert made.notes[1:] == (
        "test: 13 samples set aside, 0.25 of each class",
        "held_out: 8 samples set aside from training, up to 4 of each class",
    )


def test_none_leaves_the_part_out():
    made = divide({"train": pool(9, 9)}, held_out=None)
    assert (made.held_out, made.test) == (None, None)
    assert list(made.parts) == ["train"]
    assert len(made.train) == 18


def test_a_profile_cuts_training_and_holds_out_what_it_leaves():
    made = divide({"train": pool(30, 30)}, profile="exponential(imbalance=3)", held_out=5)
    assert made.train.counts.n.tolist() == [30, 10]
    assert made.held_out.counts.n.tolist() == [0, 5]
    assert made.notes[1].startswith(
        "train: 40 of 60 samples by exponential(imbalance=3,n_max=30), order first, classes in their own order (hash "
    )
    assert made.notes[2] == "held_out: 5 samples that the profile left over, up to 5 of each class"


def test_the_test_split_is_taken_before_the_profile_and_stays_balanced():
    made = divide({"train": pool(30, 30)}, profile="exponential(imbalance=5)", held_out=None, test=10)
    assert made.test.counts.n.tolist() == [10, 10]
    assert made.train.counts.n.tolist() == [20, 4]
    assert not set(made.train.items.texts) & set(made.test.items.texts)


def test_the_hash_tells_divisions_apart_and_the_fingerprint_contents():
    def cut(seed=0, where="text", named=None):
        return divide(named or {"train": pool(30, 30, where=where)}, held_out=5, seed=seed)

    assert cut().hash == cut().hash != cut(seed=1).hash
    assert cut(where="other").hash == cut().hash
    assert cut(where="other").fingerprint != cut().fingerprint == cut().fingerprint
    assert cut(named={"train": pool(30, 30, names=("x", "y"))}).hash != cut().hash
    assert len(cut().hash) == len(cut().fingerprint) == 16


def test_classes_without_training_or_test_samples_are_kept_and_warned_about():
    with pytest.warns(PoiseWarning) as caught:
        made = divide({"train": pool(4, 4, 0), "test": pool(2, 0, 2)}, held_out=None)
    expected = (
        "without a training sample, kept as classes: 1 of 3 classes ('c')",
        "without a test sample, left out of the mean of recalls: 1 of 3 classes ('b')",
    )
    assert tuple(str(remark.message) for remark in caught) == expected
    assert made.notes[-2:] == expected
    assert made.train.class_names == ("a", "b", "c")


def test_groups_that_given_splits_share_are_warned_about():
    named = {"train": pool(2, 2, groups=("p", "q", "r", "s")), "val": pool(1, 1, groups=("q", "z"))}
    with pytest.warns(PoiseWarning, match="1 groups are in both train and held_out: q; what is measured there is too"):
        divide(named)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({}, "there is no split 'train', only nothing; name the training samples"),
        ({"test": pool(2, 2)}, "there is no split 'train', only test; name the training samples"),
        (
            {"train": pool(2, 2), "tst": pool(2, 2)},
            "no split is called 'tst', did you mean 'test'? the splits are train,",
        ),
        ({"train": pool(2, 2), "val": pool(0, 0)}, "the split 'val' is empty; add samples, or leave it out"),
        ({"train": pool(2, 2), "val": pool(1, 1), "held_out": pool(1, 1)}, "'val' and 'held_out' are the same split"),
        (
            {"train": pool(5, 0)},
            "the training samples are all of one class; a classifier needs samples of at least two",
        ),
        (
            {"train": pool(2, 2), "test": pool(2, 2, 2)},
            "'train' has 2 classes and 'test' has 3; both need the same names",
        ),
        (
            {"train": pool(2, 2), "test": pool(2, 2, names=("a", "x"))},
            "class 1 is 'b' in 'train' and 'x' in 'test'; both need the same names in one order",
        ),
    ],
)
def test_splits_that_cannot_be_used_are_refused(named, message):
    with pytest.raises(InputError) as caught:
        divide(named, held_out=None)
    assert str(caught.value).startswith(message)


@pytest.mark.skipif(not DATA, reason="POISE_DATA, the path of the real data sets, is not set")
def test_cifar_100_lt_holds_out_the_published_next_images():
    from poise.data.samples.formats import open_samples

    named = open_samples(Path(DATA) / "cifar100")
    made = divide(named, profile="cifar100_lt_if100_first", held_out=20)
    assert (len(made.train), len(made.held_out), len(made.test)) == (10_847, 1_971, 10_000)
    assert made.held_out.counts.n.tolist() == [0, 11, *[20] * 98]
    # The next in file order: every held-out row of a class comes right after its training rows.
    y = named["train"].y
    train, held_out = (made.origins[part].rows for part in ("train", "held_out"))
    for k in (1, 50, 99):
        of_class = (y == k).nonzero().flatten().tolist()
        chosen = torch.cat([train[y[train] == k], held_out[y[held_out] == k]]).tolist()
        assert chosen == of_class[: len(chosen)]
    by_shape = long_tailed(named["train"], "exponential(imbalance=100)")
    assert torch.equal(by_shape.rows, long_tailed(named["train"], "cifar100_lt_if100_first").rows)
