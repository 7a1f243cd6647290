"""`deploy`: a head chosen on unseen rows, for a stated prior, whose probabilities mean something."""

import math

import pytest
import torch

from poise.decisions.decide import decide
from poise.decisions.operating_point import OperatingPoint
from poise.decisions.targets import Targets, accuracy_threshold
from poise.deployment import deploy as deployment
from poise.deployment.certifying_rows import halves
from poise.deployment.estimator import LongTailClassifier
from poise.deployment.model import load
from poise.errors import InputError, MemorisedRowsError, PoiseWarning
from poise.methods import from_spec
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem

NAMES = ("zebra", "ant", "cat")  # not in alphabetical order, in which the estimator keeps its classes
COUNTS = (120, 30, 12)


def deploy(given, **how):
    """The model alone."""
    return deployment.deploy(given, **how).model


def split(sizes, seed, *, names=NAMES, counts=COUNTS, seen=False, dim=5):
    """Overlapping classes around the axes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    x = torch.randn(len(y), dim, generator=generator) + 1.5 * torch.eye(len(sizes), dim)[y]
    return Features(x, y, ClassCounts(torch.tensor(counts)), seen_by_backbone=seen, class_names=names)


def problem(*, head=True, held_out=True, seen=None, **more):
    """Rows, a plausible stage-1 head that favours the frequent classes, and held-out rows."""
    train = split(COUNTS, 0, seen=head if seen is None else seen, **more)
    layer = Head(1.5 * torch.eye(3, 5), torch.tensor(COUNTS).float().log()) if head else None
    return Problem(train, layer, split((40, 40, 40), 1, **more) if held_out else None)


# --- a given head -----------------------------------------------------------------------------------------------------


def test_a_named_method_runs_as_stated_and_differs_by_temperature_and_shift_only():
    given = problem()
    made = deploy(given, method="tau_norm(tau=0.7)", prior="train")
    plain = from_spec("tau_norm(tau=0.7)")(given, 0)
    assert made.method == "tau_norm(tau=0.7)"
    assert made.class_names == NAMES
    scale = made.head.weight / plain.weight.double()
    assert torch.allclose(scale[plain.weight != 0], scale[0, 0].expand(int((plain.weight != 0).sum())), atol=1e-6)


def test_stage1_for_the_training_prior_is_the_given_head_with_a_temperature():
    given = problem()
    made = deploy(given, method="stage1", prior="train")
    temperature = float(given.head.weight[0, 0] / made.head.weight[0, 0])
    assert torch.allclose(made.head.weight * temperature, given.head.weight.double(), atol=1e-6)
    assert torch.allclose(made.head.bias * temperature, given.head.bias.double(), atol=1e-6)
    assert torch.equal(made.prior_applied, given.train.counts.prior)


def test_the_prior_is_a_shift_of_the_bias():
    given, shares = problem(), [0.2, 0.5, 0.3]
    train = deploy(given, method="stage1", prior="train")
    other = deploy(given, method="stage1", prior=shares)
    assert torch.equal(other.head.weight, train.head.weight)
    expected = torch.tensor(shares, dtype=torch.float64).log() - given.train.counts.prior.log()
    assert torch.allclose(other.head.bias - train.head.bias, expected, atol=1e-12)
    assert other.prior_applied.tolist() == pytest.approx(shares)


def test_the_temperature_is_the_best_one_on_the_held_out_rows():
    """Of the least NLL of rows weighted to the training prior, drawn to the spread of the logits as one row weighs."""
    given = problem()
    made = deploy(given, method="stage1", prior="uniform")
    rows, logits = given.held_out, given.head(given.held_out.x[0]).double()
    found = float(given.head.weight.norm() / made.head.weight.norm())
    weight = given.train.counts.prior[rows.y] / 40  # 40 rows of each class
    spread = float(logits.var(dim=1, correction=0).mean().sqrt())

    def objective(t):
        each = torch.nn.functional.cross_entropy(logits / t, rows.y, reduction="none")
        return float(weight @ each) + math.log(t / spread) ** 2 / 2 / 120

    assert objective(found) < min(objective(0.98 * found), objective(1.02 * found))


def test_auto_takes_a_method_that_compare_tunes_and_states_its_settings():
    given = problem()
    made = deploy(given, prior="uniform")
    family = made.method.split("(")[0]
    assert family in ("stage1", "tau_norm", "logit_adjustment", "balanced_softmax", "class_balanced", "crt", "los")
    rebuilt = from_spec(made.method)(given, 0)
    x = given.held_out.x[0]
    difference = made.head(x) - made.head(x)[:, :1]
    shape = rebuilt(x).double()
    # Temperature and shift: the difference of two logits is an affine function of that of the method's own head.
    own = (shape[:, 1] - shape[:, 0]) - (shape[:, 1] - shape[:, 0]).mean()
    theirs = difference[:, 1] - difference[:, 1].mean()
    assert torch.allclose(theirs / theirs.norm(), own / own.norm(), atol=1e-5)


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        deploy(problem(), method="crt(epochs=2)", seed=3).save(tmp_path / name)
    for file in ("head.safetensors", "model.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_provenance_says_which_rows_and_versions():
    given = problem()
    found = deploy(given, method="stage1", seed=5).provenance
    assert (found["train"], found["held_out"], found["seed"]) == (given.train.key, given.held_out.key, 5)
    assert {"python", "poise", "torch", "numpy"} <= set(found["versions"])


def test_an_empty_class_keeps_its_place_with_finite_logits():
    train = split((60, 20, 0), 0, counts=(60, 20, 0), seen=True)
    head = Head(torch.eye(3, 5), torch.zeros(3))
    unseen = split((20, 20, 20), 1, counts=(60, 20, 0))
    made = deploy(Problem(train, head, unseen), method="logit_adjustment(tau=1.0)")
    assert made.class_names == NAMES
    assert torch.isfinite(made.head(unseen.x[0])).all()


def test_a_given_head_without_held_out_rows_is_refused():
    with pytest.raises(InputError) as caught:
        deploy(problem(held_out=False))
    assert str(caught.value) == (
        "to choose and calibrate for a given head, held-out rows are needed that neither it nor the backbone saw"
    )


@pytest.mark.parametrize("head", [True, False])
def test_training_rows_are_refused_as_held_out_rows(head):
    given = problem(head=head, seen=False)
    copy = Features(given.train.x, given.train.y, given.train.counts, False, NAMES)
    with pytest.raises(MemorisedRowsError) as caught:
        deploy(Problem(given.train, given.head, copy))
    assert str(caught.value) == "the held-out rows are the training rows; give rows that nothing was trained on"


def test_held_out_rows_that_trained_the_representation_are_refused():
    given = problem(head=False)
    with pytest.raises(MemorisedRowsError, match="the held-out rows trained the representation; give rows that"):
        deploy(Problem(given.train, None, split((9, 9, 9), 1, seen=True)))


def test_held_out_rows_that_look_memorised_are_warned_of():
    given = problem()
    easy = split((10, 10, 10), 1, seen=None)
    x = 20 * torch.eye(3, 5)[easy.y] + 0.1 * easy.x[0]
    unseen = Features(x, easy.y, easy.counts, None, NAMES)
    with pytest.warns(PoiseWarning, match="the head gets more than 98% of the held-out rows right"):
        deploy(Problem(given.train, given.head, unseen), method="stage1")


# --- rows alone -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "balanced_softmax", "ncm"])
@pytest.mark.parametrize("held_out", [True, False])
def test_without_a_head_it_is_the_estimator(method, held_out):
    given = problem(head=False, held_out=held_out)
    made = deploy(given, method=method, prior="train")
    words = [NAMES[k] for k in given.train.y.tolist()]
    unseen = (given.held_out.x[0].double().numpy(), [NAMES[k] for k in given.held_out.y.tolist()]) if held_out else None
    estimator = LongTailClassifier(method, "train").fit(given.train.x[0].double().numpy(), words, held_out=unseen)
    assert made.class_names == tuple(estimator.classes_)
    assert torch.equal(made.head.weight, estimator.head_.weight)
    assert torch.equal(made.head.bias, estimator.head_.bias)
    assert made.method == estimator.method_
    assert made.prior_applied.tolist() == estimator.prior_applied_.tolist()


def test_the_estimator_can_be_loaded_from_the_folder(tmp_path):
    given = problem(head=False)
    folder = deploy(given, method="ncm").save(tmp_path / "model")
    found = LongTailClassifier.load(folder)
    x = given.held_out.x[0].double()
    answers = [load(folder).class_names[k] for k in load(folder).head(x).argmax(dim=-1).tolist()]
    assert found.predict(x.numpy()).tolist() == answers


def by_name(model, values):
    return dict(zip(model.class_names, values, strict=True))


def test_prior_and_costs_follow_the_names_of_the_classes_and_not_their_order():
    targets = Targets(costs=[10.0, 2.0, 1.0])
    for head in (True, False):
        made = deploy(problem(head=head), method="balanced_softmax(epochs=2)", prior=[0.7, 0.2, 0.1], targets=targets)
        assert by_name(made, made.prior_applied.tolist()) == pytest.approx({"zebra": 0.7, "ant": 0.2, "cat": 0.1})
        assert by_name(made, made.operating.costs) == {"zebra": 10.0, "ant": 2.0, "cat": 1.0}
        assert by_name(made, made.counts.n.tolist()) == {"zebra": 120, "ant": 30, "cat": 12}


def test_a_matrix_of_costs_is_reordered_in_both_directions():
    costs = [[0.0, 1.0, 2.0], [3.0, 0.0, 5.0], [6.0, 7.0, 0.0]]  # zebra, ant, cat
    made = deploy(problem(head=False), method="ncm", targets=Targets(costs=costs))
    assert made.class_names == ("ant", "cat", "zebra")
    assert made.operating.costs == ((0.0, 5.0, 3.0), (7.0, 0.0, 6.0), (1.0, 2.0, 0.0))


def test_more_than_ten_numbered_classes_keep_their_prior():
    sizes = (20,) * 12
    train = split(sizes, 0, names=None, counts=sizes, dim=14)
    prior = [0.4, *(0.6 / 11,) * 11]
    prior[2], prior[10] = 0.01, prior[2] + prior[10] - 0.01
    made = deploy(Problem(train), method="ncm", prior=prior)
    assert made.class_names[:4] == ("0", "1", "10", "11")
    assert by_name(made, made.prior_applied.tolist()) == pytest.approx({str(k): prior[k] for k in range(12)})


def test_a_class_without_training_rows_is_not_in_the_model_of_rows_alone():
    train = split((60, 0, 20), 0, counts=(60, 0, 20))
    unseen = split((20, 20, 20), 1, counts=(60, 0, 20))
    given = Problem(train, None, unseen)
    with pytest.warns(PoiseWarning, match="20 held-out rows were left out: their classes have no training row"):
        made = deploy(given, method="ncm", prior=[0.5, 0.0, 0.5], targets=Targets(coverage=0.5, costs=[2.0, 9.0, 1.0]))
    assert made.class_names == ("cat", "zebra")
    assert made.operating.costs == (1.0, 2.0)
    assert 0 < made.operating.abstain < 1


def test_a_prior_for_a_class_without_training_rows_is_refused():
    train = split((60, 0, 20), 0, counts=(60, 0, 20))
    with pytest.raises(InputError) as caught:
        deploy(Problem(train), method="ncm", prior=[0.5, 0.1, 0.4])
    assert str(caught.value) == "the prior gives 'ant' the share 0.1, but it has no training row; set it to 0"


def test_row_weights_count_in_the_fit():
    train = split(COUNTS, 0)
    weight = torch.ones(len(train), dtype=torch.float64)
    weight[train.y == 2] = 3.0
    weighted = Features(train.x, train.y, train.counts, False, NAMES, weight)
    made = deploy(Problem(weighted), method="ncm", prior="train")
    assert by_name(made, made.counts.n.tolist()) == {"zebra": 120, "ant": 30, "cat": 36}


def test_groups_are_kept_whole(monkeypatch):
    given = problem(head=False, held_out=False)
    seen = {}
    original = LongTailClassifier.fit_with_evidence

    def spied(self, *args, **kwargs):
        seen.update(kwargs)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(LongTailClassifier, "fit_with_evidence", spied)
    groups = [f"site {row % 9}" for row in range(len(given.train))]
    deploy(given, method="ncm", groups=groups)
    assert seen["groups"] == groups


def test_rows_that_trained_the_backbone_cannot_choose_alone():
    with pytest.raises(MemorisedRowsError, match="rows that trained the representation cannot choose a method"):
        deploy(problem(head=False, held_out=False, seen=True))


# --- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [True, False])
def test_targets_are_met_on_the_held_out_rows(head):
    given = problem(head=head)
    made = deploy(given, method="logit_adjustment(tau=1.0)", targets=Targets(coverage=0.6, alpha=0.2))
    position = [made.class_names.index(name) for name in NAMES]
    y = torch.tensor(position)[given.held_out.y]
    decided = decide(made.head(given.held_out.x[0]), made.operating)
    assert (decided.label >= 0).double().mean() >= 0.6
    for k in range(3):
        named = decided.sets[y == k, k]
        assert int(named.sum()) >= math.ceil(0.8 * len(named))


def test_a_promise_is_made_on_rows_that_chose_nothing_and_travels_with_the_model(tmp_path):
    given = problem()
    targets = Targets(abstain_accuracy=0.8, confidence=0.9)
    made = deploy(given, method="stage1", targets=targets)
    choosing, certifying = halves(given.held_out, 0)
    rows = certifying.x[0]
    expected = accuracy_threshold(made.head(rows), certifying.y, accuracy=0.8, confidence=0.9)
    assert made.operating.abstain == expected  # 20 rows of each class fit the uniform prior as they are
    assert made.provenance["held_out"] == choosing.key
    assert load(made.save(tmp_path)).provenance["guaranteed"] == targets.guarantee


def test_held_out_rows_all_certify_where_folds_of_unseen_rows_choose():
    given = problem(head=False, seen=False)
    made = deploy(given, targets=Targets(abstain_accuracy=0.8))
    order = torch.tensor([made.class_names.index(name) for name in NAMES])
    y = order[given.held_out.y]
    assert made.operating.abstain == accuracy_threshold(made.head(given.held_out.x[0]), y, accuracy=0.8)


@pytest.mark.parametrize(
    ("targets", "needed"),
    [
        ({"abstain_accuracy": 0.99}, "0.99 at confidence 0.95 takes 598 held-out rows at least"),
        ({"precision": 0.95}, "0.95 at confidence 0.95 takes 118 held-out rows of a class at least"),
    ],
)
def test_a_promise_that_no_rows_could_show_is_refused_before_anything_is_trained(targets, needed, monkeypatch):
    monkeypatch.setattr(deployment, "judge_grids", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(InputError) as caught:
        deploy(problem(), method="stage1", targets=Targets(**targets))
    assert str(caught.value).startswith(f"{needed}, of which half choose and half certify, all answered right, and")


def test_costs_and_top_k_need_no_unseen_rows():
    made = deploy(problem(head=False, held_out=False), method="ncm", targets=Targets(costs=[1.0, 2.0, 3.0], top_k=2))
    assert made.operating == OperatingPoint(costs=(2.0, 3.0, 1.0), top_k=2)


@pytest.mark.parametrize("method", ["auto", "ncm"])
def test_rows_that_decide_alone_choose_and_calibrate_no_head(method):
    """Coverage asks for the rows; the head is that of the training rows by cross-validation, bit by bit."""
    given, aside = problem(head=False, held_out=False), split((40, 40, 40), 1)
    plain = deploy(given, method=method)
    made = deploy(given, method=method, targets=Targets(coverage=0.8), certify=aside)
    assert torch.equal(made.head.weight, plain.head.weight)
    assert torch.equal(made.head.bias, plain.head.bias)
    by_hand = deploy(given, method=method, targets=Targets(coverage=0.5), certify=aside)
    assert by_hand.operating.abstain > made.operating.abstain
    order = [NAMES.index(name) for name in made.class_names]
    confidence = made.head(aside.x[0]).softmax(-1).max(-1).values
    answered = confidence >= made.operating.abstain - 1e-12  # rows in other batches round otherwise
    recall = torch.stack([answered[aside.y == k].double().mean() for k in order])
    assert recall.mean() >= 0.8 - 1e-12


def test_without_targets_there_is_no_operating_point():
    assert deploy(problem(head=False), method="ncm").operating is None
    assert deploy(problem(head=False), method="ncm", targets=Targets()).operating is None


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        ({"coverage": 0.0}, "coverage must be a number in (0, 1], got 0.0"),
        ({"abstain_accuracy": 1.5}, "abstain_accuracy must be a number in (0, 1), got 1.5"),
        ({"precision": math.nan}, "precision must be a number in (0, 1), got nan"),
        ({"precision": 1.0}, "precision must be a number in (0, 1), got 1.0"),
        ({"confidence": 1.0}, "confidence must be a number in (0, 1), got 1.0"),
        ({"jointly": "yes"}, "jointly must be true or false, got 'yes'"),
        ({"alpha": 1.0}, "alpha must be a number in (0, 1), got 1.0"),
        (
            {"coverage": 0.5, "abstain_accuracy": 0.9},
            "abstain_accuracy and coverage exclude each other; give one of them",
        ),
        ({"alpha": 0.1, "top_k": 2}, "alpha and top_k exclude each other; give one of them"),
        ({"costs": [1.0, 0.0, 1.0]}, "costs of class 1 must be finite and above 0, got 0.0"),
        ({"top_k": 0}, "top_k must be a whole number, 1 or more, got 0"),
    ],
)
def test_impossible_targets_are_refused_before_anything_is_trained(targets, sentence):
    with pytest.raises(InputError) as caught:
        Targets(**targets)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        ({"coverage": 0.5}, "an operating point is chosen on rows that were not trained on; give held-out rows"),
        ({"costs": [1.0, 2.0]}, "costs need one entry per class, got 2 for 3 classes"),
        ({"top_k": 4}, "top_k must be at most 3, the number of classes, got 4"),
    ],
)
def test_targets_that_do_not_fit_the_problem_are_refused_before_anything_is_trained(targets, sentence, monkeypatch):
    monkeypatch.setattr(LongTailClassifier, "fit", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(InputError) as caught:
        deploy(problem(head=False, held_out=False), targets=Targets(**targets))
    assert str(caught.value) == sentence


def test_a_misspelt_method_is_named_with_its_neighbour():
    for head in (True, False):
        with pytest.raises(InputError, match="no method is called 'crtt', did you mean 'crt'"):
            deploy(problem(head=head), method="crtt")


@pytest.mark.parametrize("method", ["stage1", "logit_adjustment(tau=1.3)", "tau_norm(tau=0.6)"])
def test_a_head_that_was_selected_for_uniform_classes_keeps_its_decisions(method):
    # A stage 1 trained with balanced softmax is corrected for the prior already: to do it again would undo the choice.
    given = problem()
    rows = given.held_out.x[0]
    made = deploy(given, method=method, prior="uniform", selected=True)
    chosen = from_spec(method)(given, 0).to(torch.float64)
    torch.testing.assert_close(made.head(rows).argmax(dim=-1), chosen(rows).argmax(dim=-1))
    factor = made.head.weight[0, 0] / chosen.weight[0, 0]  # one temperature, and no shift
    torch.testing.assert_close(made.head.weight, chosen.weight * factor)
    torch.testing.assert_close(made.head.bias, chosen.bias * factor)
