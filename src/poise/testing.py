"""Checks that every method passes, Poise's own and anyone else's.

    from poise import testing
    testing.check_method("my_method")

or, one test per check: `@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda c: c.__name__)` with
`check(testing.Case("my_method"))`. The checks hold for any method; they say nothing about accuracy.
"""

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from poise.errors import InputError
from poise.heads.plan import Options
from poise.heads.solver import Retrain, with_stage1
from poise.methods import Entry, build, entries, is_trained
from poise.metrics import logit_unit
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Method, Problem
from poise.values.spec import Spec

__all__ = ["CHECKS", "Case", "check_method", "world"]


def world(
    *,
    counts: tuple[int, ...] = (40, 20, 9, 3),
    dim: int = 6,
    views: int = 1,
    seed: int = 0,
    separation: float = 2.0,
    dtype: torch.dtype = torch.float32,
    held_out: int = 5,
    head: bool = True,
) -> Problem:
    """A small problem: Gaussian classes with unit covariance around random means `separation` apart from the origin.

    `held_out` fresh rows per class are included unless it is 0. With `head`, the stage-1 head is fitted on the rows.
    """
    generator = torch.Generator().manual_seed(seed)
    means = separation * torch.nn.functional.normalize(torch.randn(len(counts), dim, generator=generator), dim=-1)

    def rows(numbers: tuple[int, ...], views: int, seen: bool) -> Features:
        y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(numbers))
        x = means[y] + torch.randn(views, len(y), dim, generator=generator)
        return Features(x.to(dtype), y, ClassCounts(torch.tensor(counts)), seen_by_backbone=seen)

    train = rows(counts, views, seen=True)
    fresh = rows((held_out,) * len(counts), 1, seen=False) if held_out else None
    problem = Problem(train, None, fresh)
    return with_stage1(problem, seed) if head else problem


@dataclass(frozen=True)
class Case:
    """A method under check: its name, parameters to build it with, and a short plan if it is trained."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def entry(self) -> Entry:
        """Its row of the table."""
        return entries()[self.name]

    @property
    def method(self) -> Method:
        """The method with these parameters; a trained one runs 5 epochs unless they say otherwise."""
        short = {"epochs": 5, "batch_size": 16} if is_trained(self.name) else {}
        return build(self.name, **{**short, **self.params})

    def within(self, exact: float) -> float:
        """How closely two heads must agree: `exact`, or as closely as the method says that its search finds one."""
        return max(exact, self.entry.traits.search_error)

    def head(self, problem: Problem | None = None, seed: int | None = None) -> Head:
        """The method's head on `problem`, by default on the `world` of this case."""
        return self.method(self.world() if problem is None else problem, self.seed if seed is None else seed)

    def world(self, **changes: Any) -> Problem:
        """A small problem for this case."""
        return world(**{"seed": self.seed, **changes})


def _same(a: Head, b: Head) -> bool:
    return torch.equal(a.weight, b.weight) and torch.equal(a.bias, b.bias)


def _close(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> bool:
    return bool((a - b).abs().max() <= tolerance * (1 + b.abs().max()))


def _refusal(call: Callable[[], object]) -> str:
    """The message with which `call` refuses its input; empty if it does not."""
    try:
        call()
    except InputError as error:
        return str(error)
    return ""


def check_head_fits(case: Case) -> None:
    """The head is one linear classifier of the right shape, finite, in the type of the arithmetic."""
    problem = case.world()
    head = case.head(problem)
    assert isinstance(head, Head)
    assert head.weight.shape == (len(problem.train.counts), problem.train.dim)
    assert head.weight.dtype == head.bias.dtype == problem.train.dtype
    assert torch.isfinite(head(problem.train.x[0])).all()


def check_inputs_unchanged(case: Case) -> None:
    """No tensor of the problem is written to."""
    problem = case.world(views=2)
    assert problem.head is not None
    tensors = [problem.train.x, problem.train.y, problem.train.counts.n, problem.head.weight, problem.head.bias]
    before = [tensor.clone() for tensor in tensors]
    case.head(problem)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))


def check_same_seed_same_bytes(case: Case) -> None:
    """Two calls agree bit for bit, whatever the global random state; another seed matters only if declared."""
    problem = case.world()
    torch.manual_seed(54321)  # a known state: the one that this check left behind before would hide a difference
    first = case.head(problem)
    torch.manual_seed(12345)
    assert _same(first, case.head(problem))
    if not case.entry.traits.stochastic:
        assert _same(first, case.head(problem, seed=case.seed + 1))


def check_two_classes(case: Case) -> None:
    """Two classes are enough."""
    assert torch.isfinite(case.head(case.world(counts=(12, 4))).weight).all()


def check_single_row_class(case: Case) -> None:
    """A class with one row gives a finite head."""
    head = case.head(case.world(counts=(12, 5, 1)))
    assert torch.isfinite(head.weight).all()
    assert torch.isfinite(head.bias).all()


def check_empty_class(case: Case) -> None:
    """A class without training rows gives a finite head that keeps the class."""
    head = case.head(case.world(counts=(12, 5, 0)))
    assert head.classes == 3
    assert torch.isfinite(head.weight).all()
    assert torch.isfinite(head.bias).all()


def check_float64(case: Case) -> None:
    """Double-precision features give a double-precision head."""
    assert case.head(case.world(dtype=torch.float64)).weight.dtype == torch.float64


def check_half_storage(case: Case) -> None:
    """Features stored in half precision give the same head as their float32 values."""
    problem = case.world()
    half = replace(problem.train, x=problem.train.x.half())
    single = replace(problem.train, x=problem.train.x.half().float())
    assert _same(case.head(replace(problem, train=half)), case.head(replace(problem, train=single)))


def check_non_contiguous(case: Case) -> None:
    """The memory layout of the features does not matter."""
    problem = case.world()
    strided = problem.train.x.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    assert _same(case.head(problem), case.head(replace(problem, train=replace(problem.train, x=strided))))


def check_works_without_stage1(case: Case) -> None:
    """Without a stage-1 head, one is fitted where it is needed."""
    assert torch.isfinite(case.head(case.world(head=False)).weight).all()


def check_relabelling(case: Case) -> None:
    """Permuting the classes in labels, counts and stage-1 head permutes the result.

    A fresh start, an order of rows that depend on labels, and the noise of a loss are seeds, not classes, so trained
    methods are checked from the stage-1 head with instance sampling and with the same noise for all classes.
    """
    fixed = {"start": "stage1", "sampler": "instance"} if is_trained(case.name) else {}
    case = replace(case, params={**fixed, **case.params})
    problem = case.world(dtype=torch.float64)
    permutation = torch.tensor([2, 0, 3, 1])  # new class -> old class
    inverse = permutation.argsort()

    def renamed(features: Features) -> Features:
        return replace(features, y=inverse[features.y], counts=ClassCounts(features.counts.n[permutation]))

    assert problem.head is not None
    assert problem.held_out is not None
    head = Head(problem.head.weight[permutation], problem.head.bias[permutation])
    method, x = _with_even_noise(case.method), problem.train.x[0]
    expected = method(problem, case.seed)(x)[:, permutation]
    result = method(Problem(renamed(problem.train), head, renamed(problem.held_out)), case.seed)(x)
    assert _close(result, expected, case.within(1e-9))


def _with_even_noise(method: Method) -> Method:
    """The method itself, or, if its loss has noise, the method with the median of that noise everywhere."""
    if not isinstance(method, Retrain) or (draw := method.loss.draw) is None:
        return method
    return replace(
        method, loss=method.loss._replace(draw=lambda state, numbers: draw(state, torch.full_like(numbers, 0.5)))
    )


def check_row_order(case: Case) -> None:
    """A method that is neither stochastic nor order-dependent ignores the order of the training rows."""
    traits = case.entry.traits
    if traits.stochastic or traits.order_dependent:
        return
    problem = case.world(dtype=torch.float64)
    turned = problem.train.take(torch.arange(len(problem.train)).flip(0))
    a, b = case.head(problem), case.head(replace(problem, train=turned))
    assert _close(b(problem.train.x[0]), a(problem.train.x[0]), case.within(1e-9))


UNITS = (1e-3, 100.0, 1e4)
ORIGIN = (10.0, -3.0)  # the first and the last entry of the vector that is added, in standard deviations of the rows
UNIT_TOLERANCE = 1e-6  # of logits in units of their spread, and of probabilities: rounding, enlarged by five epochs


def check_unit(case: Case) -> None:
    """Features times a number give the same predictions and probabilities, unless the traits say why they cannot.

    The stage-1 head is the same function of the rows. Where the prior of the softmax is known, the probabilities are
    the softmax; where it is not, they are made with a temperature, so that logits may differ by one factor.
    """
    _check_moved(case, [(factor, 0.0) for factor in UNITS], case.entry.traits.unit_matters)


def check_origin(case: Case) -> None:
    """Features plus a vector give the same predictions and probabilities, unless the traits say why they cannot."""
    _check_moved(case, [(1.0, 1.0), (1.0, -20.0)], case.entry.traits.origin_matters)


def _check_moved(case: Case, moves: Sequence[tuple[float, float]], reason: str) -> None:
    problem = case.world(dtype=torch.float64)
    exact = case.entry.traits.implied_prior is not None
    expected = _probable(case.head(problem)(problem.train.x[0]), exact)
    alike = []
    for factor, times in moves:
        moved = _moved(problem, factor, times * torch.linspace(*ORIGIN, problem.train.dim, dtype=torch.float64))
        found = _probable(case.head(moved)(moved.train.x[0]), exact)
        alike.append(bool((found - expected).abs().max() <= case.within(UNIT_TOLERANCE)))
    if reason:
        assert not all(alike), f"{case.name} does not depend on it: take the reason {reason!r} out of its traits"
    else:
        assert all(alike), f"{case.name} depends on it: say why in its traits, or scale and centre the features"


def _moved(problem: Problem, factor: float, shift: torch.Tensor) -> Problem:
    """The problem with features f factor + shift, and the head that is the same function of the rows."""

    def moved(features: Features) -> Features:
        return replace(features, x=features.x * factor + shift)

    head = problem.head
    if head is not None:
        weight = head.weight / factor
        head = Head(weight, head.bias - weight @ shift)
    return replace(
        problem, train=moved(problem.train), head=head, held_out=problem.held_out and moved(problem.held_out)
    )


def _probable(logits: torch.Tensor, exact: bool) -> torch.Tensor:
    """The softmax, or, up to a temperature, what it is made of: logits around their mean in units of their spread."""
    if exact:
        return logits.softmax(dim=-1)
    return (logits - logits.mean(dim=-1, keepdim=True)) / logit_unit(logits)


def check_copies(case: Case) -> None:
    """A row of weight k is the row k times, and one of weight 0 is none.

    A trained method is checked on whole data in one batch, with the sampler that gives every row once and the same
    noise for all rows; samplers that draw at random have tests of their own.
    """
    whole = {"sampler": "instance", "batch_size": 10**6} if is_trained(case.name) else {}
    case = replace(case, params={**whole, **case.params})
    problem = case.world(dtype=torch.float64)
    n, classes = len(problem.train), len(problem.train.counts)
    times = torch.tensor([2, 0, 1, 3, 1]).repeat(n)[:n]
    times[-3:] = torch.tensor([1, 4, 2])  # the rarest class keeps all its rows
    rows = torch.repeat_interleave(torch.arange(n), times)
    counts = ClassCounts(torch.bincount(problem.train.y[rows], minlength=classes))
    method, x = _with_even_noise(case.method), problem.train.x[0]
    copied = method(replace(problem, train=replace(problem.train.take(rows), counts=counts)), case.seed)
    weighted = replace(problem.train, weight=times.double(), counts=counts)
    assert _close(method(replace(problem, train=weighted), case.seed)(x), copied(x), case.within(1e-8))


def check_error_names_label(case: Case) -> None:
    """A label outside the range is refused with its row, before the method sees it."""
    problem = case.world()
    y = problem.train.y.clone()
    y[3] = 99
    message = _refusal(lambda: case.head(replace(problem, train=replace(problem.train, y=y))))
    assert "row 3" in message
    assert "99" in message


def check_spec_round_trip(case: Case) -> None:
    """Its Spec survives text, JSON and pickle, and the method itself pickles."""
    spec = Spec(case.name, case.params)
    assert Spec.parse(str(spec)) == spec
    assert Spec.from_json(spec.to_json()) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec


def check_rejects_unknown_parameter(case: Case) -> None:
    """A misspelt parameter is refused by name."""
    assert "not_a_parameter" in _refusal(lambda: build(case.name, not_a_parameter=1))


def check_documented(case: Case) -> None:
    """The factory says in one line what it is."""
    assert len(case.entry.summary) > 10


def check_batched_equals_alone(case: Case) -> None:
    """A trained method gives the same head in a pass with others as alone, to 1e-6 relative."""
    from poise.heads.solver import Retrain, fit_heads
    from poise.methods import gradient_trained

    method = case.method
    if not isinstance(method, Retrain):
        return
    problem = case.world()
    others = Options(epochs=method.plan.epochs, batch_size=method.plan.batch_size)
    together = fit_heads(problem, [gradient_trained.ce(**others), method, gradient_trained.los(**others)], case.seed)[1]
    alone = method(problem, case.seed)
    assert _close(together.weight, alone.weight, 1e-6)
    assert _close(together.bias, alone.bias, 1e-6)


CHECKS: tuple[Callable[[Case], None], ...] = (
    check_batched_equals_alone,
    check_copies,
    check_documented,
    check_empty_class,
    check_error_names_label,
    check_float64,
    check_half_storage,
    check_head_fits,
    check_inputs_unchanged,
    check_non_contiguous,
    check_origin,
    check_rejects_unknown_parameter,
    check_relabelling,
    check_row_order,
    check_same_seed_same_bytes,
    check_single_row_class,
    check_spec_round_trip,
    check_two_classes,
    check_unit,
    check_works_without_stage1,
)


def check_method(name: str, *, seed: int = 0, **params: Any) -> None:
    """Run every check on the method `name`, built with `params`. Raises: AssertionError from the check that fails."""
    for check in CHECKS:
        check(Case(name, params, seed))
