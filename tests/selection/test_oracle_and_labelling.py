"""Oracle heads, learning curves and advice: identities, constructed truth, and what is refused."""

from dataclasses import replace

import pytest
import torch

from poise.errors import InputError, MemorisedRowsError
from poise.methods import build
from poise.metrics import evaluate, evaluate_head
from poise.results.contents import Size
from poise.selection.labelling import advice, shrunk
from poise.selection.oracle import (
    draws,
    enlarged_head,
    gap_closed,
    halves,
    learning_curve,
    oracle_accuracy,
    oracle_head,
    oracle_scores,
    recipe,
)
from poise.testing import world
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem


def displaced(*, wrong: bool = True, rows: int = 60, labelled: int = 60, seed: int = 0) -> tuple[Problem, Features]:
    """Four classes far apart; with `wrong`, the 3 training rows of class 3 lie where no other row does.

    So true rows of class 3 look like class 2 until some of them show where it is, and more rows of any other class show
    nothing new. The stage-1 head is that of the class means of the training rows.
    """
    g = torch.Generator().manual_seed(seed)
    means = 6.0 * torch.eye(4, 6)
    means[3, 2] = 3.0

    def draw(numbers: tuple[int, ...], centres: torch.Tensor, seen: bool) -> Features:
        y = torch.arange(4).repeat_interleave(torch.tensor(numbers))
        x = centres[y] + torch.randn(len(y), 6, generator=g)
        return Features(x, y, ClassCounts(torch.tensor(counts)), seen_by_backbone=seen)

    counts = (rows, rows, rows, 3 if wrong else rows)
    misled = means.clone()
    if wrong:
        misled[3] = 6.0 * torch.eye(6)[5]
    train = draw(counts, misled, seen=True)
    head = Head(2 * misled, -misled.square().sum(1))
    return Problem(train, head), draw((labelled,) * 4, means, seen=False)


def labelled_rows(problem: Problem) -> Features:
    assert problem.held_out is not None
    return problem.held_out


# --- oracle heads ----------------------------------------------------------------------------------------------------


def test_without_an_extra_row_the_oracle_is_plain_balanced_softmax() -> None:
    problem = world(held_out=10)
    none = torch.empty(0, dtype=torch.int64)
    found = enlarged_head(problem, labelled_rows(problem), none, 3)
    expected = recipe(len(problem.train))(problem, 3)
    assert torch.allclose(found.weight, expected.weight, atol=1e-6)
    assert torch.allclose(found.bias, expected.bias, atol=1e-6)


def test_where_the_backbone_saw_no_row_all_rows_weigh_the_same() -> None:
    problem = world(held_out=10)
    problem = replace(problem, train=replace(problem.train, seen_by_backbone=False))
    extra = labelled_rows(problem)
    y = torch.cat([problem.train.y, extra.y])
    union = Features(torch.cat([problem.train.x[0], extra.x[0]]), y, ClassCounts.from_labels(y, 4))
    expected = recipe(len(y))(Problem(union, problem.head), 0)
    found = oracle_head(problem, extra)
    assert torch.allclose(found.weight, expected.weight, atol=1e-6)
    assert torch.allclose(found.bias, expected.bias, atol=1e-6)


def test_beside_memorised_rows_an_extra_row_counts_three_times() -> None:
    problem = world(held_out=10)
    extra = labelled_rows(problem)
    x = torch.cat([problem.train.x[0], extra.x[0]])
    y = torch.cat([problem.train.y, extra.y])
    weight = torch.cat([torch.ones(len(problem.train)), torch.full((len(extra),), 3.0)])
    union = Features(x, y, ClassCounts(problem.train.counts.n + 30), weight=weight)
    expected = recipe(len(y))(Problem(union, problem.head), 0)
    found = oracle_head(problem, extra)
    assert torch.equal(found.weight, expected.weight)
    assert torch.equal(found.bias, expected.bias)


def test_the_scale_of_row_weights_of_a_user_changes_no_oracle() -> None:
    problem = world(held_out=10)
    weighted = [
        oracle_head(replace(problem, train=replace(problem.train, weight=torch.full((72,), scale))), problem.held_out)
        for scale in (1.0, 4.0)
    ]
    # Balanced softmax averages by weight within a batch; only rounding is left.
    x = problem.held_out.x[0]
    assert torch.equal(weighted[0](x).argmax(1), oracle_head(problem, problem.held_out)(x).argmax(1))
    assert weighted[1].weight.isfinite().all()


def test_an_oracle_learns_what_the_training_rows_do_not_show() -> None:
    problem, labelled = displaced()
    stage1 = evaluate_head(problem.head, labelled)
    assert stage1.per_class[3] < 0.2
    found = oracle_scores(problem, labelled)
    assert found.per_class[3] > 0.95  # its true place is 6.7 standard deviations or more from every other
    assert found.rows == len(labelled)
    assert oracle_accuracy(problem, labelled) == found.balanced_accuracy
    best = evaluate_head(build("logit_adjustment")(problem), labelled).balanced_accuracy
    assert gap_closed(stage1.balanced_accuracy, best, found.balanced_accuracy) < 0.2


def test_cross_fitted_scores_know_nothing_of_labels_that_mean_nothing() -> None:
    """With as many features as rows a head can learn any labels by heart; on the other half they are worth nothing."""
    g = torch.Generator().manual_seed(0)
    counts = ClassCounts(torch.tensor([20, 20]))
    x, y = torch.randn(440, 400, generator=g), torch.arange(440) % 2
    train = Features(x[:40], y[:40], counts, seen_by_backbone=True)
    labelled = Features(x[40:], y[40:], counts, seen_by_backbone=False)
    problem = Problem(train)
    assert evaluate_head(oracle_head(problem, labelled), labelled).accuracy > 0.9
    assert oracle_accuracy(problem, labelled) == pytest.approx(0.5, abs=0.1)  # 4 standard errors of 400 rows


def test_an_oracle_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    problem = world(held_out=30, separation=1.0)
    first, again, other = (oracle_scores(problem, labelled_rows(problem), seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_class_with_one_labelled_row_is_scored_too() -> None:
    problem = world(held_out=10)
    rows = labelled_rows(problem).take(torch.arange(31))  # class 3 keeps one row
    assert oracle_scores(problem, rows).per_class[3] is not None


@pytest.mark.parametrize(
    ("stage1", "best", "oracle", "share"),
    [(0.4, 0.45, 0.5, 0.5), (0.4, 0.4, 0.5, 0.0), (0.4, 0.38, 0.5, -0.2), (0.4, 0.5, 0.4, None), (0.4, 0.5, 0.3, None)],
)
def test_the_share_of_the_gap_by_hand(stage1, best, oracle, share) -> None:
    assert gap_closed(stage1, best, oracle) == share


# --- learning curves -------------------------------------------------------------------------------------------------


def test_a_small_problem_gets_enough_steps_and_a_large_one_ten_epochs() -> None:
    assert recipe(128).plan.epochs * recipe(128).plan.steps(128) == 500
    assert recipe(100_000).plan.epochs == 10


def test_halves_and_draws_are_stratified_nested_and_reproducible() -> None:
    y = torch.tensor([0] * 7 + [1] * 4 + [2])
    for rest, scored in halves(y, 0):
        assert sorted([*rest.tolist(), *scored.tolist()]) == list(range(12))
        place = draws(y, rest, 0)
        assert torch.equal(place, draws(y, rest, 0))
        for k in range(3):
            own = place[y[rest] == k]
            assert sorted(own.tolist()) == list(range(len(own)))
    first, second = halves(y, 0)
    assert torch.equal(first[0], second[1])


def test_a_curve_starts_without_extra_rows_and_ends_at_the_oracle() -> None:
    problem = world(held_out=20)
    labelled = labelled_rows(problem)
    curve = learning_curve(problem, labelled, sizes=(0, 3, 10), seed=1)
    assert [size.value for size in curve] == [0, 3, 10]
    base = enlarged_head(problem, labelled, torch.empty(0, dtype=torch.int64), 1)
    assert curve[0] == Size.of(0, evaluate_head(base, labelled))
    assert curve[-1] == Size.of(10, oracle_scores(problem, labelled, 1))
    assert curve == learning_curve(problem, labelled, sizes=(0, 3, 10), seed=1)


def test_a_curve_rises_for_the_group_that_lacks_rows() -> None:
    problem, labelled = displaced(rows=120)
    curve = learning_curve(problem, labelled)
    assert [size.value for size in curve] == [0, 5, 10, 20]  # 30 of each class in a half
    assert curve[0].few < 0.2
    assert curve[-1].few > 0.95
    assert curve[0].many > 0.95
    assert curve[-1].many > 0.95


def test_without_labelled_rows_unseen_training_rows_give_the_curve_by_size() -> None:
    problem, _ = displaced(wrong=False, rows=50)
    train = replace(problem.train, seen_by_backbone=False)
    curve = learning_curve(Problem(train), seed=2)
    assert [size.value for size in curve] == [5, 10, 20]
    assert curve[-1].balanced > 0.95
    (rest, scored), _ = halves(train.y, 2)
    assert len(rest) == len(scored)
    # Every row is scored once, by a head that was trained with 20 rows per class of the other half.
    counts, logits = torch.full((len(train.counts),), 20), torch.zeros(len(train), len(train.counts))
    for rest, scored in halves(train.y, 2):
        drawn = train.take(rest[draws(train.y, rest, 2) < 20])
        few = Features(drawn.x[0], drawn.y, ClassCounts(counts), seen_by_backbone=False)
        logits[scored] = recipe(len(few))(Problem(few), 2)(train.x[0, scored])
    assert curve[-1] == Size.of(20, evaluate(logits, train.y, train.counts))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((5, 3), "sizes must be ascending whole numbers of at least 0, got [5, 3]"),
        ((), "sizes must be ascending whole numbers of at least 0, got []"),
        ((0.5,), "sizes must be ascending whole numbers of at least 0, got [0.5]"),
        ((-1, 2), "sizes must be ascending whole numbers of at least 0, got [-1, 2]"),
        (
            (0, 99),
            "a size of 99 rows per class was asked for, half of the labelled rows has at most 5 of a class; ask for "
            "less",
        ),
    ],
)
def test_sizes_that_cannot_be_drawn_are_refused(sizes, message) -> None:
    problem = world(held_out=10)
    with pytest.raises(InputError) as caught:
        learning_curve(problem, labelled_rows(problem), sizes=sizes)
    assert str(caught.value) == message


def test_memorised_training_rows_give_no_curve() -> None:
    with pytest.raises(InputError) as caught:
        learning_curve(world())
    assert str(caught.value) == (
        "a learning curve needs labelled rows that the backbone never saw; give them, or state that the training rows "
        "are such rows with Features(..., seen_by_backbone=False)"
    )


@pytest.mark.parametrize(
    ("call", "purpose"),
    [
        (oracle_head, "an oracle head"),
        (oracle_scores, "an oracle head"),
        (learning_curve, "a learning curve"),
        (advice, "advice on labelling"),
    ],
)
def test_rows_that_trained_the_backbone_or_the_head_are_refused(call, purpose) -> None:
    problem = world()
    with pytest.raises(MemorisedRowsError) as caught:
        call(problem, replace(labelled_rows(problem), seen_by_backbone=True))
    assert str(caught.value).startswith(f"{purpose} cannot use rows that trained the representation; give rows")
    unseen = replace(problem.train, seen_by_backbone=False)
    with pytest.raises(MemorisedRowsError) as caught:
        call(problem, unseen)
    assert str(caught.value).startswith(f"{purpose} cannot use the training rows as held-out rows; give rows")


def test_labelled_rows_of_another_problem_are_refused_with_both_numbers() -> None:
    with pytest.raises(InputError) as caught:
        oracle_scores(world(), labelled_rows(world(dim=7)))
    assert str(caught.value) == ("the labelled rows have 4 classes and 7 features, the training rows have 4 and 6")


# --- advice ----------------------------------------------------------------------------------------------------------


def test_advice_names_the_one_class_that_more_rows_help() -> None:
    problem, labelled = displaced()
    named = replace(labelled, class_names=("ant", "bee", "cat", "dog"))
    found = advice(problem, named, best=problem.head)
    told = found.told
    assert (told.chosen, told.label[0], told.rows) == ((3,), 3, 20)
    assert told.gain[0] > 0.7
    assert list(told.gain) == sorted(told.gain, reverse=True)
    assert told.head_gain == (0.0,) * 4
    assert found.gain.estimate == pytest.approx(found.own_gain / 4, abs=0.01)  # the others have nothing to lose or gain
    assert found.head_gain == 0.0  # the best head is stage 1 itself
    assert told.sentence == (
        f"20 more labelled rows for class dog gain more than any head: {100 * found.gain.estimate:+.1f} points of "
        f"balanced accuracy against +0.0; the recall of such classes themselves gains {100 * found.own_gain:+.1f}."
    )
    assert found == advice(problem, named, best=problem.head)


def test_advice_says_so_where_the_best_head_gains_more() -> None:
    problem, labelled = displaced()
    best = oracle_head(problem, labelled)
    ignorant = replace(problem, head=Head(torch.zeros(4, 6), torch.zeros(4)))  # one class for every row
    found = advice(ignorant, labelled, best=best)
    assert found.told.chosen == (3,)
    assert found.head_gain > 0.7
    assert found.told.sentence.startswith("The best head gains more than 20 more labelled rows for class 3: +")


def test_advice_calls_a_tie_a_tie() -> None:
    problem, labelled = displaced(labelled=50)
    learnt = oracle_head(problem, labelled)
    found = advice(problem, labelled, best=learnt)
    assert found.gain.low <= found.head_gain <= found.gain.high
    assert " gain about as much as the best head: " in found.told.sentence


def test_where_nothing_is_missing_no_class_is_advised() -> None:
    problem, labelled = displaced(wrong=False)
    found = advice(problem, labelled)
    assert found.told.chosen == ()
    assert found.gain is None
    assert found.own_gain is None
    assert found.told.sentence == (
        "No class clearly gains from 20 more labelled rows: the largest estimate is +0.0 points of recall for 0, with "
        "a standard error of 0.0."
    )


def test_with_too_few_labelled_rows_advice_says_what_is_missing() -> None:
    problem, labelled = displaced(labelled=39)
    found = advice(problem, labelled)
    assert (found.told.label, found.told.chosen, found.gain, found.head_gain) == ((), (), None, None)
    assert found.told.sentence == (
        "Whether 20 more labelled rows of a class would help cannot be told: that takes 40 labelled rows of the class "
        "that neither backbone nor head was trained on, and no class has more than 39."
    )


def test_classes_with_too_few_labelled_rows_are_not_judged_and_counted() -> None:
    problem, labelled = displaced(labelled=40)
    found = advice(problem, labelled.take(torch.arange(10, 160)))
    assert sorted(found.told.label) == [1, 2, 3]
    assert found.told.sentence.endswith(" Not judged: 1 of 4 classes, with fewer than 40 labelled rows.")


@pytest.mark.parametrize("name", ["rows", "most"])
def test_numbers_of_rows_and_classes_must_be_whole(name) -> None:
    problem, labelled = displaced()
    with pytest.raises(InputError) as caught:
        advice(problem, labelled, **{name: 0})
    assert str(caught.value) == f"{name} must be a whole number, 1 or more, got 0"


def test_shrinkage_by_hand() -> None:
    # Two classes of 4 rows: gains 1/2 and 0; pooled variance of a row (1 + 2) / 6 = 1/2, so that of a gain is 1/8.
    change = torch.tensor([1, 1, 0, 0, 1, 0, -1, 0], dtype=torch.float64)
    y = torch.tensor([0] * 4 + [1] * 4)
    found = shrunk(change, y, torch.tensor([0, 1]))
    # The variance of the two gains is 1/8 as well, which noise alone explains; that of the true ones is then taken to
    # be the standard error of that estimate, sqrt(2) / 8, and the share of it sqrt(2) / (1 + sqrt(2)).
    share = 2**0.5 / (1 + 2**0.5)
    assert found.gain.tolist() == pytest.approx([0.25 + 0.25 * share, 0.25 - 0.25 * share])
    expected = (share / 8 + (1 - share) ** 2 * (1 + 2**0.5) / 16) ** 0.5
    assert found.error.tolist() == pytest.approx([expected] * 2)
    # Without noise nothing is moved and nothing is in doubt.
    sure = shrunk(torch.tensor([1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.float64), y, torch.tensor([0, 1]))
    assert sure.gain.tolist() == [1, 0]
    assert sure.error.tolist() == [0, 0]
    # One class alone has nothing to be moved towards.
    alone = shrunk(change, y, torch.tensor([0]))
    assert alone.gain.tolist() == [0.5]
    assert alone.error.tolist() == pytest.approx([(1 / 3 / 4) ** 0.5])


def test_shrunken_gains_are_nearer_the_truth_and_their_errors_are_honest() -> None:
    """Many worlds with known gains: less squared error than the raw gains, and standardised deviations of size 1."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(60).repeat_interleave(25)
    raw, found, standardised = 0.0, 0.0, []
    for _ in range(40):
        truth = (0.05 + 0.08 * torch.randn(60, generator=g, dtype=torch.float64)).clamp(-0.4, 0.4)
        chance = torch.rand(len(y), generator=g, dtype=torch.float64)
        # Right more often by the truth: +1 with probability 0.25 + truth / 2, -1 with 0.25 - truth / 2.
        up, down = 0.25 + truth[y] / 2, 0.25 - truth[y] / 2
        change = (chance < up).double() - ((chance >= up) & (chance < up + down)).double()
        effect = shrunk(change, y, torch.arange(60))
        raw += float((change.view(60, 25).mean(1) - truth).square().mean())
        found += float((effect.gain - truth).square().mean())
        standardised.append((effect.gain - truth) / effect.error)
    assert found < 0.5 * raw
    assert float(torch.cat(standardised).square().mean() ** 0.5) == pytest.approx(1.0, abs=0.2)


def test_luck_in_choosing_is_not_counted_as_gain() -> None:
    """Where more rows help no class more than another, the confirmed gain is near nothing whatever was chosen."""
    problem = world(counts=(40,) * 10, dim=10, held_out=40, separation=1.5, seed=2)
    found = advice(problem, labelled_rows(problem))
    if found.gain is not None:
        assert found.gain.low < 0.03
    logits = problem.head(labelled_rows(problem).x[0])
    assert evaluate(logits, labelled_rows(problem).y, problem.train.counts).accuracy < 0.9
