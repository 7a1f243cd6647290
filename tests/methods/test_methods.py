"""Every method of the table: common checks, parameters that matter, identities, reference values."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch

from poise import losses, methods, testing
from poise.errors import InputError
from poise.heads.plan import Options, Plan, learning_rates
from poise.methods import from_spec
from poise.methods.descriptions import references
from poise.methods.published import PUBLISHED, published
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem
from poise.values.spec import Spec


class Row(NamedTuple):
    """One other value per own parameter of a method, and its mean absolute logit on the world of `reference`."""

    value: float
    others: dict[str, Any]


# A new method adds one row: a different value for each of its parameters, and the number that `reference` gives.
TABLE: dict[str, Row] = {
    "balanced_softmax": Row(2.80173, {"tau": 0.5}),
    "ce": Row(3.2599, {}),
    "class_balanced": Row(2.83497, {"beta": 0.9, "gamma": 1.0, "variant": "sigmoid"}),
    "converged": Row(6.76524, {"loss": "balanced_softmax", "weight_decay": 1e-2}),
    "cosine": Row(7.00592, {"scale": 8.0, "learn_scale": True}),
    "crt": Row(5.08464, {}),
    "focal": Row(2.9835, {"gamma": 1.0, "variant": "sigmoid"}),
    "gala": Row(3.52113, {"lambda_pos": 0.5, "lambda_neg": 0.5, "variant": "paper", "accumulate": "sum"}),
    "gcl": Row(9.07623, {"noise": 1.0, "margin": 0.3, "scale": 8.0, "gamma": 0.5}),
    "l2_norm": Row(2.05141, {}),
    "label_aware_smoothing": Row(
        1.05628,
        {
            "smooth_head": 0.2,
            "smooth_tail": 0.3,
            "shape": "linear",
            "variant": "paper",
            "classifier": "frozen",
            "lr_factor": 0.5,
        },
    ),
    "lda": Row(3.95517, {"shrinkage": 0.5, "prior": "train"}),
    "ldam": Row(12.4796, {"max_margin": 0.2, "scale": 10.0, "drw": False}),
    "logit_adjustment": Row(2.31707, {"tau": 0.5}),
    "los": Row(2.06154, {"delta": 0.9}),
    "lws": Row(2.59945, {}),
    "marc": Row(2.00621, {"rho": 0.5}),
    "ncm": Row(0.630497, {"transform": "raw", "distance": "cos"}),
    "rebalance": Row(2.34211, {"power": 0.5}),
    "stage1": Row(2.34177, {}),
    "tau_norm": Row(1.50125, {"tau": 0.5, "bias": "keep"}),
    "temperature": Row(1.19687, {}),
    "unlearn": Row(1.43431, {"t": 0.5}),
    "vs": Row(2.10774, {"tau": 0.5, "gamma": 0.1}),
    "weight_balancing": Row(1.44845, {"beta": 0.9, "loss": "ce", "threshold": 0.9, "radius": 0.3, "every": "never"}),
}


def reference(name: str) -> float:
    """Mean absolute logit on the training rows of a fixed small world, in float64."""
    case = testing.Case(name)
    problem = case.world(dtype=torch.float64)
    return float(case.head(problem)(problem.train.x[0]).abs().mean())


# Parameters that must not matter at these settings, with the reason.
WITHOUT_EFFECT = {
    ("gala", "lambda_neg"): "the released form subtracts it from every logit of a row, where softmax cancels it",
    ("gala", "variant"): "the forms agree at equal lambdas; see the test on the paper form",
}


def test_the_table_has_a_row_for_every_method_and_parameter() -> None:
    assert set(TABLE) == set(methods.METHODS)
    for name, row in TABLE.items():
        assert set(row.others) == set(methods.parameters(name)), name


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", methods.METHODS)
def test_common_check(name: str, check: Callable[[testing.Case], None]) -> None:
    check(testing.Case(name))


@pytest.mark.parametrize("name", methods.METHODS)
def test_reference_value(name: str) -> None:
    # The last digits depend on the order of additions in the matrix library.
    assert reference(name) == pytest.approx(TABLE[name].value, rel=1e-4)


PARAMETERS = [(name, key) for name in methods.METHODS for key in methods.parameters(name)]


@pytest.mark.parametrize(("name", "key"), PARAMETERS, ids=lambda part: part)
def test_a_parameter_matters(name: str, key: str) -> None:
    problem = testing.world(dtype=torch.float64)
    usual = testing.Case(name).head(problem)
    other = testing.Case(name, {key: TABLE[name].others[key]}).head(problem)
    x = problem.train.x[0]
    assert torch.equal(usual(x), other(x)) == ((name, key) in WITHOUT_EFFECT)


def test_lambda_neg_matters_in_the_paper_form() -> None:
    problem = testing.world(dtype=torch.float64)
    heads = [testing.Case("gala", {"variant": "paper", "lambda_neg": v}).head(problem) for v in (1.0, 0.5)]
    assert not torch.equal(heads[0].weight, heads[1].weight)


METHOD_LOSSES = ("balanced_softmax", "class_balanced", "label_aware_smoothing", "ldam", "los", "vs")

OPTIONS: dict[str, Any] = {
    "lr": 0.5,
    "momentum": 0.5,
    "nesterov": True,
    "weight_decay": 0.1,
    "epochs": 4,
    "batch_size": 8,
    "drop_last": True,
    "scale_features": False,
    "schedule": "constant",
    "warmup_epochs": 1,
    "start": "fresh",
    "sampler": "instance",
    "images_per_visit": 1,
    "matmul": "bfloat16",
}


@pytest.mark.parametrize("key", OPTIONS)
def test_an_option_of_training_matters(key: str) -> None:
    base = {"start": "stage1", "sampler": "class_balanced"}
    problem = testing.world(dtype=torch.float64)
    usual = testing.Case("ce", base).head(problem)
    assert not torch.equal(usual.weight, testing.Case("ce", {**base, key: OPTIONS[key]}).head(problem).weight)


@pytest.mark.parametrize(("key", "value"), [("milestones", (0.3, 0.6)), ("milestone_factor", 0.5)])
def test_an_option_of_the_multistep_schedule_matters(key: str, value: Any) -> None:
    problem = testing.world(dtype=torch.float64)
    base = {"schedule": "multistep"}
    usual = testing.Case("ce", base).head(problem)
    assert not torch.equal(usual.weight, testing.Case("ce", {**base, key: value}).head(problem).weight)


def test_where_the_warmup_begins_matters() -> None:
    problem = testing.world(dtype=torch.float64)
    heads = [
        testing.Case("ce", {"epochs": 3, "warmup_epochs": 2, "warmup_from": share}).head(problem)
        for share in (0.0, 0.5)
    ]
    assert not torch.equal(heads[0].weight, heads[1].weight)


def test_every_option_of_training_is_covered() -> None:
    assert set(OPTIONS) | {"milestones", "milestone_factor", "warmup_from"} == set(Options.__annotations__)
    assert set(Options.__annotations__) - {"start", "sampler", "images_per_visit"} == set(Plan.__dataclass_fields__)


@pytest.mark.parametrize("sampler", ["class_balanced", "class_balanced_iid", "square_root", "progressive"])
def test_a_sampler_matters(sampler: str) -> None:
    problem = testing.world(dtype=torch.float64)
    usual = testing.Case("ce").head(problem)
    assert not torch.equal(usual.weight, testing.Case("ce", {"sampler": sampler}).head(problem).weight)


SAME_AS_CE = [
    Spec("los", delta=0.0),
    Spec("balanced_softmax", tau=0.0),
    Spec("class_balanced", beta=0.0),
    Spec("focal", gamma=0.0),
    Spec("vs", tau=0.0, gamma=0.0),
    Spec("gala", lambda_pos=0.0, lambda_neg=0.0),
    Spec("gala", lambda_pos=0.0, lambda_neg=0.0, variant="paper"),
    Spec("weight_balancing", loss="ce", beta=0.0, radius=float("inf")),
]


@pytest.mark.parametrize("spec", SAME_AS_CE, ids=str)
def test_a_method_without_its_strength_is_cross_entropy(spec: Spec) -> None:
    problem = testing.world(dtype=torch.float64)
    plan = {"start": "stage1", "lr": 1.0}
    usual = testing.Case("ce", plan).head(problem)
    other = testing.Case(spec.name, {**dict(spec.params), **plan}).head(problem)
    assert torch.allclose(usual.weight, other.weight, rtol=1e-12, atol=1e-12)


def test_gcl_without_noise_margin_and_focus_is_the_cosine_head() -> None:
    problem = testing.world(dtype=torch.float64)
    plan = {"scale": 12.0, "sampler": "class_balanced_iid", "lr": 0.1}
    usual = testing.Case("cosine", plan).head(problem)
    other = testing.Case("gcl", {"noise": 0.0, "margin": 0.0, "gamma": 0.0, **plan}).head(problem)
    assert torch.allclose(usual.weight, other.weight, rtol=1e-12, atol=1e-12)


def test_gcl_of_equal_counts_has_no_noise() -> None:
    problem = testing.world(counts=(9, 9, 9), dtype=torch.float64)
    heads = [testing.Case("gcl", {"noise": noise}).head(problem) for noise in (0.0, 2.0)]
    assert torch.equal(heads[0].weight, heads[1].weight)


@pytest.mark.parametrize("name", ["balanced_softmax", "class_balanced"])
def test_equal_counts_make_it_cross_entropy(name: str) -> None:
    problem = testing.world(counts=(9, 9, 9), dtype=torch.float64)
    usual, other = testing.Case("ce").head(problem), testing.Case(name).head(problem)
    assert torch.allclose(usual.weight, other.weight, rtol=1e-12, atol=1e-12)


def test_label_aware_smoothing_with_equal_ends_is_los_on_scales() -> None:
    problem = testing.world(dtype=torch.float64)
    las = testing.Case("label_aware_smoothing", {"smooth_head": 0.3, "smooth_tail": 0.3}).method
    los = testing.Case("los", {"delta": 0.3, "lr": 0.1, "sampler": "class_balanced"}).method
    from dataclasses import replace

    expected = replace(los, part=las.part, lr_factors=las.lr_factors)(problem)  # type: ignore[attr-defined, type-var]
    assert torch.allclose(las(problem).weight, expected.weight, rtol=1e-12)


def test_lws_after_no_epoch_is_the_stage_1_head() -> None:
    problem = testing.world(dtype=torch.float64)
    head = methods.build("lws", epochs=0, scale_features=False)(problem)
    assert problem.head is not None
    assert torch.equal(head.weight, problem.head.weight)
    assert torch.equal(head.bias, problem.head.bias)


def test_cross_entropy_keeps_the_labels_equal_under_equal_treatment() -> None:
    # Two classes that mirror each other must get mirrored heads: nothing in the pass prefers an index.
    x = torch.tensor([[1.0, 0.5], [1.0, -0.5], [-1.0, 0.5], [-1.0, -0.5]], dtype=torch.float64)
    y = torch.tensor([0, 0, 1, 1])
    start = Head(torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    problem = Problem(Features(x, y, ClassCounts.from_labels(y)), start)
    head = methods.build("ce", epochs=5, batch_size=4)(problem)
    assert torch.allclose(head.weight[0], -head.weight[1], atol=1e-12)


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: str(row.spec))
def test_a_published_recipe_builds_and_is_for_raw_features(row: Any) -> None:
    method = methods.from_spec(row.spec)
    plan = getattr(method, "plan", None)
    assert plan is None or not plan.scale_features


def test_every_reference_is_in_the_bibliography() -> None:
    known = references()
    for name, entry in methods.METHODS.items():
        assert entry.reference is None or entry.reference in known, name


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("loss", {}, ["'loss'", "'los'"]),
        ("los", {"detla": 0.9}, ["'detla'", "'delta'"]),
        ("los", {"delta": 1.5}, ["delta", "1.5", "0.98"]),
        ("los", {"delta": "high"}, ["delta", "'high'", "0.98"]),
        ("tau_norm", {"lr": 0.1}, ["'lr'"]),
        ("tau_norm", {"bias": "maybe"}, ["'maybe'", "drop"]),
        ("crt", {"sampler": "even"}, ["sampler", "'even'", "class_balanced"]),
        ("crt", {"start": "cold"}, ["start", "'cold'", "fresh"]),
        ("crt", {"images_per_visit": 0}, ["images_per_visit", "0"]),
        ("ce", {"images_per_visit": 4}, ["images_per_visit", "'class_balanced'", "'instance'"]),
        ("ce", {"epochs": "3"}, ["epochs", "'3'"]),
        ("ce", {"nesterov": "yes"}, ["nesterov", "'yes'"]),
        ("tau_norm", {"tau": "1"}, ["tau", "'1'"]),
        ("unlearn", {"t": float("inf")}, ["t must be", "inf"]),
        ("gala", {"lambda_pos": None}, ["lambda_pos", "None"]),
        ("gcl", {"noise": -0.5}, ["noise", "-0.5", "GCL uses 0.5"]),
        ("gcl", {"noise_mul": 0.5}, ["'noise_mul'", "noise, margin, scale, gamma"]),
        ("weight_balancing", {"radius": 1.0, "threshold": 0.5}, ["radius or a threshold"]),
        ("ncm", {"transform": "l3"}, ["'l3'"]),
        ("lda", {"shrinkage": 0.0}, ["shrinkage", "0.0"]),
        ("lda", {"prior": "test"}, ["'test'"]),
        ("cosine", {"scale": -1.0}, ["scale", "-1.0"]),
        ("weight_balancing", {"loss": "mse"}, ["'mse'"]),
        ("weight_balancing", {"every": "day"}, ["'day'"]),
        ("weight_balancing", {"radius": 0.0}, ["radius", "0.0"]),
        ("converged", {"weight_decy": 1.0}, ["'weight_decy'", "'weight_decay'"]),
        ("converged", {"lr": 1.0}, ["'lr'", "loss, weight_decay, tau"]),
        ("converged", {"loss": "vs", "delta": 0.5}, ["loss 'vs'", "delta"]),
        ("converged", {"loss": "ldam", "drw": True}, ["one optimum", "ldam without drw"]),
    ],
)
def test_a_mistake_is_named_with_its_remedy(name: str, params: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        methods.build(name, **params)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("text", "prior"),
    [
        ("converged", "train"),
        ("converged(loss='cross_entropy',weight_decay=0.1)", "train"),
        ("converged(loss='balanced_softmax',weight_decay=0.1)", "uniform"),
        ("converged(loss='class_balanced')", "uniform"),
        ("converged(beta=0.9,loss='class_balanced')", None),
        ("converged(loss='balanced_softmax',tau=0.5)", None),
        ("converged(loss='los')", None),
        ("converged(loss='vs')", None),
        ("converged(loss='label_aware_smoothing')", None),
        ("converged(loss='ldam')", None),
        ("converged+logit_adjustment", "uniform"),
        ("converged+logit_adjustment+logit_adjustment", None),
        ("converged+logit_adjustment(tau=0.5)", None),
        ("converged(loss='class_balanced')+logit_adjustment", None),
        ("converged(loss='class_balanced')+temperature", "uniform"),
        ("ce+logit_adjustment(tau=1.0)+temperature", "uniform"),
        ("ce+tau_norm", None),
        ("logit_adjustment(tau=1.0)", "uniform"),
        ("logit_adjustment(tau=1.125)", None),
        ("balanced_softmax(lr=0.1,tau=1.0)", "uniform"),
        ("weight_balancing(loss='ce')", None),
        ("crt(sampler='instance')", None),
    ],
)
def test_the_prior_that_a_softmax_is_meant_for_goes_by_the_values_of_what_shapes_it(text: str, prior: Any) -> None:
    assert methods.implied_prior(Spec.parse(text)) == prior


@pytest.mark.parametrize("name", ["balanced_softmax", "class_balanced"])
def test_heads_of_converged_are_meant_for_the_prior_that_is_stated(name: str) -> None:
    """On many rows of known classes, the softmax for uniform classes is right where cross-entropy's is adjusted."""
    problem = testing.world(counts=(2400, 800, 200, 60), dtype=torch.float64, held_out=0, head=False)
    rows = problem.train.x[0]
    adjusted = methods.from_spec("converged+logit_adjustment")(problem)(rows).log_softmax(dim=-1)
    found = methods.build("converged", loss=name)(problem)(rows).log_softmax(dim=-1)
    plain = methods.build("converged")(problem)(rows).log_softmax(dim=-1)
    assert (found.exp() - adjusted.exp()).abs().mean() < 0.02
    assert (plain.exp() - adjusted.exp()).abs().mean() > 0.1


def test_a_head_fitted_to_convergence_takes_the_parameters_of_its_loss() -> None:
    assert not methods.is_trained("converged")
    assert {"tau", "delta", "beta"} < set(methods.further("converged"))
    assert set(methods.further("ce")) == set(Options.__annotations__)
    assert methods.further("lda") == ()
    assert methods.settings(Spec("converged", loss="vs", tau=0.5)) == {"loss": "vs", "weight_decay": 1e-4, "tau": 0.5}
    problem = testing.world(dtype=torch.float64)
    half, full = (methods.build("converged", loss="vs", tau=tau, gamma=0.0)(problem) for tau in (0.5, 1.0))
    assert not torch.allclose(half.bias, full.bias, atol=0.1)


def test_every_parameter_of_a_loss_with_one_optimum_can_be_stated() -> None:
    known = {key for loss in METHOD_LOSSES for key in inspect.signature(losses.LOSSES[loss]).parameters}
    assert set(methods.further("converged")) == known


def test_a_chain_applies_its_parts_in_order() -> None:
    problem = testing.world()
    chain = methods.from_spec("logit_adjustment(tau=0.5)+tau_norm(tau=0.5,bias='keep')")
    first = methods.build("logit_adjustment", tau=0.5)(problem)
    expected = methods.build("tau_norm", tau=0.5, bias="keep")(Problem(problem.train, first))
    assert torch.equal(chain(problem).weight, expected.weight)
    assert torch.equal(chain(problem).bias, expected.bias)
    assert len(chain.methods) == 2  # type: ignore[attr-defined]


def test_a_fresh_start_does_not_read_the_head_before_it() -> None:
    problem = testing.world()
    chained = methods.from_spec("cosine(epochs=1)+crt(epochs=1)")(problem)
    assert torch.equal(chained.weight, methods.build("crt", epochs=1)(problem).weight)


def test_a_head_of_cosines_cannot_start_raw_feature_training() -> None:
    chain = methods.from_spec("cosine(epochs=1)+ce(epochs=1)")
    with pytest.raises(InputError, match="divides each feature row by its norm"):
        chain(testing.world())


def test_the_layer_of_a_torch_model_is_a_head_for_every_method() -> None:
    problem = testing.world()
    layer = torch.nn.Linear(problem.train.dim, 4)
    given = Problem(problem.train, Head(layer.weight, layer.bias), problem.held_out)
    for name in methods.METHODS:
        head = testing.Case(name).head(given)
        assert not head.weight.requires_grad, name
    assert torch.equal(Head(layer.weight, None).bias, torch.zeros(4))  # type: ignore[arg-type]


def test_a_loss_that_averages_is_refused() -> None:
    from poise.heads.solver import Retrain, fit_heads
    from poise.losses import stateless

    wrong = Retrain(loss=stateless(lambda z, y: z.square().mean()), plan=Plan(epochs=1))
    with pytest.raises(InputError, match="one number per example"):
        fit_heads(testing.world(), [wrong])


def test_rows_of_one_class_are_no_problem_to_solve() -> None:
    x, y = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(5, dtype=torch.int64)
    with pytest.raises(InputError, match="all of one class"):
        Problem(Features(x, y, ClassCounts(torch.tensor([5, 0]))))


def test_a_path_is_evaluated_one_head_at_a_time() -> None:
    from poise.heads.solver import Retrain, fit_heads
    from poise.metrics import evaluate_head

    problem = testing.world()
    path = fit_heads(problem, [Retrain(plan=Plan(epochs=2))], snapshots=True)[0]
    assert len(path) == 3
    with pytest.raises(InputError, match="stack of 3 heads"):
        evaluate_head(path, problem.train)
    assert evaluate_head(path[-1], problem.train).rows == len(problem.train)


def test_the_steps_of_marc_are_those_of_its_release_in_whole_epochs():
    for row, n, batch in zip(published("marc")[:2], (10_847, 12_406), (512, 512), strict=True):
        plan = from_spec(row.spec).plan
        steps = n // batch
        assert (plan.epochs, plan.warmup_epochs) == (2000 // steps, 800 // steps)
        rates = learning_rates(plan, steps)
        assert rates.max() == 0.1  # reached at the end of the warm-up
        assert rates[0, 0] == pytest.approx(0.05 + 0.05 / plan.warmup_epochs)
    assert all(from_spec(row.spec).plan.weight_decay == 5e-4 for row in published("marc")[:4])
