"""Heads fitted to convergence, against scikit-learn and against what an optimum must satisfy."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from poise import losses
from poise.errors import InputError, PoiseWarning
from poise.heads.converged import _principal, converged, fit_converged, fit_path
from poise.heads.scaling import space_of
from poise.machine.processes import World
from poise.metrics import evaluate_head
from poise.testing import world
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem
from stage1_child import launched

CONVEX = {
    "cross_entropy": losses.cross_entropy(),
    "balanced_softmax": losses.balanced_softmax(),
    "class_balanced": losses.class_balanced(beta=0.99),
    "los": losses.los(delta=0.5),
    "label_aware_smoothing": losses.label_aware_smoothing(),
    "vs": losses.vs(),
}


def train(**changes):
    """Rows of four Gaussian classes of 40, 20, 9 and 3 rows in float64."""
    return world(**{"dtype": torch.float64, "head": False, **changes}).train


def scaled(features, head):
    """Rows (N, D + 1) and head (C, D + 1) in the space where the penalty is measured."""
    space = space_of(features, True, False)
    return space.rows(features.x[0], torch.float64), space.enter(head)


def objective(features, head, loss, weight_decay):
    """The objective computed anew, with torch's automatic derivative."""
    rows, found = scaled(features, head)
    leaf = found.clone().requires_grad_()
    each, _ = loss.apply(rows @ leaf.T, features.y, loss.init(features.counts))
    share = torch.ones(len(features)) if features.weight is None else features.weight
    value = (share.double() / share.sum()) @ each + weight_decay / 2 * leaf[:, :-1].square().sum()
    value.backward()
    return value.item(), leaf.grad


@pytest.mark.parametrize("weight_decay", [1e-4, 1e-2])
def test_cross_entropy_agrees_with_scikit_learn(weight_decay):
    features = train()
    head = fit_converged(features, losses.cross_entropy(), weight_decay=weight_decay, tolerance=1e-7)
    rows, found = scaled(features, head)
    oracle = LogisticRegression(C=1 / (len(features) * weight_decay), tol=1e-10, max_iter=10000)
    oracle.fit(rows[:, :-1].numpy(), features.y.numpy())
    weight, bias = torch.from_numpy(oracle.coef_), torch.from_numpy(oracle.intercept_)
    assert torch.allclose(found[:, :-1], weight, atol=1e-4 * float(weight.abs().max()))
    assert torch.allclose(found[:, -1] - found[:, -1].mean(), bias - bias.mean(), atol=1e-4 * float(weight.abs().max()))
    theirs = space_of(features, True, False).leave(torch.cat([weight, bias.unsqueeze(-1)], dim=1))
    ours, best = (objective(features, h, losses.cross_entropy(), weight_decay)[0] for h in (head, theirs))
    assert ours == pytest.approx(best, rel=1e-8)


@pytest.mark.parametrize("weight", [None, torch.linspace(0.5, 3, 72, dtype=torch.float64)], ids=["equal", "weighted"])
def test_an_optimum_divides_by_the_weights_where_a_batch_does(weight):
    features = replace(train(), weight=weight)
    head = fit_converged(features, losses.prior_weighted(rho=1.2), weight_decay=1e-3)
    rows, found = scaled(features, head)
    leaf = found.clone().requires_grad_()
    each = torch.nn.functional.cross_entropy(rows @ leaf.T, features.y, reduction="none")
    mass = features.counts.prior[features.y] ** -1.2
    mass = mass if weight is None else mass * weight
    ((mass * each).sum() / mass.sum() + 1e-3 / 2 * leaf[:, :-1].square().sum()).backward()
    assert float(leaf.grad.abs().max()) < 2e-6  # the tolerance, and the rounding of leaving the space


@pytest.mark.parametrize("name", CONVEX)
def test_the_gradient_vanishes_at_the_optimum_of_every_convex_loss(name):
    features = train()
    head = fit_converged(features, CONVEX[name], weight_decay=1e-3)
    _, slope = objective(features, head, CONVEX[name], 1e-3)
    assert float(slope.abs().max()) < 2e-6  # the tolerance, and the rounding of leaving the space


@pytest.mark.parametrize("name", CONVEX)
def test_a_path_holds_the_optimum_of_every_weight_decay_in_their_order(name):
    features, decays = train(), [1e-3, 1e-1, 1e-2, 1e-1]
    path = fit_path(features, CONVEX[name], decays, tolerance=1e-8)
    for decay, found in zip(decays, path, strict=True):
        alone = fit_converged(features, CONVEX[name], weight_decay=decay, tolerance=1e-8)
        torch.testing.assert_close(found.head.weight, alone.weight, rtol=0, atol=5e-6)
        value, slope = objective(features, found.head, CONVEX[name], decay)
        assert found.value == pytest.approx(value, rel=1e-10)
        assert found.gradient <= 1e-8
        assert found.gradient == pytest.approx(float(slope.abs().max()), abs=2e-8)
    assert path[1] == path[3]
    assert path[0].evaluations > 1


def test_blocks_of_rows_add_up(monkeypatch):
    features = train()
    whole = fit_path(features, losses.vs(), [1e-2], tolerance=1e-9)[0].head
    monkeypatch.setattr("poise.heads.objective.BLOCK", 1)
    monkeypatch.setattr("poise.heads.objective.LEAST_ROWS", 10)
    blocks = fit_path(features, losses.vs(), [1e-2], tolerance=1e-9)[0].head
    torch.testing.assert_close(blocks.weight, whole.weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CONVEX)
def test_beginning_on_some_of_the_rows_does_not_move_the_optimum(name, monkeypatch):
    features = train(views=3)
    whole = fit_path(features, CONVEX[name], [1e-2], tolerance=1e-9)[0]
    monkeypatch.setattr("poise.heads.converged.SMALL", 0)
    monkeypatch.setattr("poise.heads.converged.SAMPLED", 30)
    begun = fit_path(features, CONVEX[name], [1e-2], tolerance=1e-9)[0]
    torch.testing.assert_close(begun.head.weight, whole.head.weight, rtol=0, atol=1e-6)
    assert not torch.equal(begun.head.weight, whole.head.weight)  # the beginning took place


def test_penalties_at_any_distance_are_fitted_to_their_optimum():
    features, decays = train(), [1e-1, 9e-2, 8.9e-2, 1e-3, 9.99e-4, 1e-5]
    for decay, found in zip(decays, fit_path(features, losses.cross_entropy(), decays, tolerance=1e-8), strict=True):
        assert found.gradient <= 1e-8
        assert float(objective(features, found.head, losses.cross_entropy(), decay)[1].abs().max()) < 3e-8


class Shards(torch.Tensor):
    """Features (V, N, D) as a store larger than memory gives them: of a view (N, D), rows are read by slice or index.

    Anything else that needs the numbers fails.
    """

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            if func.__name__ == "__get__" or func in (torch.Tensor.__len__, torch.Tensor.size, torch.Tensor.dim):
                return func(*args, **(kwargs or {}))
            assert func is torch.Tensor.__getitem__, f"{func.__name__} reads all rows"
            found = func(*args)
            if args[0].ndim == 3:
                assert isinstance(args[1], int | slice)
                return found.as_subclass(cls)
            assert args[1].numel() if isinstance(args[1], torch.Tensor) else args[1].stop - args[1].start <= 10
            return found


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_rows_are_read_a_few_at_a_time(views, dtype, monkeypatch):
    features = train(views=views, dtype=torch.float32)
    features = replace(features, x=features.x.to(dtype))
    monkeypatch.setattr("poise.heads.converged.SMALL", 0)
    monkeypatch.setattr("poise.heads.converged.SAMPLED", 30)
    monkeypatch.setattr("poise.heads.objective.BLOCK", 1)
    monkeypatch.setattr("poise.heads.objective.LEAST_ROWS", 10)
    monkeypatch.setattr("poise.heads.scaling.BLOCK", 10 * features.dim)
    plain = fit_path(features, losses.cross_entropy(), [1e-2])[0]
    object.__setattr__(features, "x", features.x.as_subclass(Shards))
    read = fit_path(features, losses.cross_entropy(), [1e-2])[0]
    assert torch.equal(read.head.weight, plain.head.weight)
    assert read.value == plain.value


@pytest.mark.parametrize("given", [torch.float16, torch.float32, torch.float64])
def test_float32_and_float64_agree_on_features_of_any_type(given):
    features = replace(train(dtype=torch.float32), weight=torch.linspace(0, 2, 72))
    features = replace(features, x=(features.x + 5).to(given))
    path = [
        fit_path(features, losses.balanced_softmax(), [1e-2], tolerance=1e-5, dtype=dtype)[0]
        for dtype in (torch.float32, torch.float64)
    ]
    assert path[0].value == pytest.approx(path[1].value, rel=1e-5)
    rows = [scaled(features, found.head)[1] for found in path]
    torch.testing.assert_close(*rows, rtol=0, atol=2e-2 if given == torch.float16 else 2e-3)


def fits(world: World, folder: Path) -> None:
    """The path of two processes against that of one: views, weights, and a class without rows."""
    features = train(views=3)
    features = Features(features.x, features.y, ClassCounts(torch.tensor([40, 20, 9, 3, 0])))
    weights = torch.linspace(0, 2, len(features), dtype=torch.float64)
    for given in (features, replace(features, weight=weights)):
        alone = fit_path(given, losses.vs(), [1e-1, 1e-2], tolerance=1e-8)
        shared = fit_path(given, losses.vs(), [1e-1, 1e-2], tolerance=1e-8, world=world)
        for one, other in zip(alone, shared, strict=True):
            torch.testing.assert_close(other.head.weight, one.head.weight, rtol=0, atol=1e-5)
            torch.testing.assert_close(other.head.bias, one.head.bias, rtol=0, atol=1e-5)
            assert other.value == pytest.approx(one.value, rel=1e-10)
    (folder / str(world.rank)).write_text(repr([found.head.weight.tolist() for found in shared]))


def test_two_processes_find_what_one_does(tmp_path):
    folder = tmp_path / "found"
    folder.mkdir()
    assert launched(fits, folder, ranks=2) == [0, 0]
    assert (folder / "0").read_text() == (folder / "1").read_text()


def test_float32_finds_the_optimum_to_its_digits():
    features = train()
    exact = fit_converged(features, losses.cross_entropy(), weight_decay=1e-2, tolerance=1e-9)
    rough = fit_converged(features, losses.cross_entropy(), weight_decay=1e-2, tolerance=1e-5, dtype=torch.float32)
    torch.testing.assert_close(rough.weight, exact.weight, rtol=0, atol=2e-3)


def test_the_start_does_not_move_the_optimum():
    features = train()
    first = fit_converged(features, losses.cross_entropy(), weight_decay=1e-2, tolerance=1e-7)
    other = fit_converged(features, losses.cross_entropy(), weight_decay=1e-3, tolerance=1e-7)
    again = fit_converged(features, losses.cross_entropy(), weight_decay=1e-2, tolerance=1e-7, start=other)
    assert torch.allclose(first.weight, again.weight, atol=2e-5)


@pytest.mark.parametrize("name", CONVEX)
def test_what_the_loss_does_not_see_does_not_depend_on_the_start(name):
    """A number added to all (scaled) logits: under vector scaling it decides what is predicted."""
    features = train()
    far = Head(torch.zeros(4, 6, dtype=torch.float64), torch.full((4,), 30.0, dtype=torch.float64))
    a, b = (
        fit_converged(features, CONVEX[name], weight_decay=1e-2, tolerance=1e-8, start=start)(features.x[0])
        for start in (None, far)
    )
    assert torch.allclose(a, b, atol=1e-4)


def test_balanced_softmax_without_tau_is_cross_entropy():
    features = train()
    a = fit_converged(features, losses.cross_entropy(), weight_decay=1e-3)
    b = fit_converged(features, losses.balanced_softmax(tau=0.0), weight_decay=1e-3)
    assert torch.equal(a.weight, b.weight)


@pytest.mark.parametrize("name", CONVEX)
def test_weights_are_repeated_rows_and_zero_is_absence(name):
    features = train()
    weight = torch.tensor([1.0, 2.0, 0.0] * 24)
    rows = torch.repeat_interleave(torch.arange(72), weight.long())
    counts = ClassCounts(torch.bincount(features.y[rows]))
    weighted = replace(features, counts=counts, weight=weight)
    repeated = replace(features.take(rows), counts=counts)
    a, b = (fit_converged(f, CONVEX[name], weight_decay=1e-2, tolerance=1e-7) for f in (weighted, repeated))
    assert torch.allclose(a.weight, b.weight, atol=2e-5)
    assert torch.allclose(a.bias, b.bias, atol=2e-5)


def test_row_order_and_scale_of_the_features_do_not_matter():
    features = train()
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(3))
    head = fit_converged(features, losses.cross_entropy(), weight_decay=1e-2, tolerance=1e-7)
    shuffled = fit_converged(features.take(order), losses.cross_entropy(), weight_decay=1e-2, tolerance=1e-7)
    moved = replace(features, x=100 * features.x + 7)
    far = fit_converged(moved, losses.cross_entropy(), weight_decay=1e-2, tolerance=1e-7)
    assert torch.allclose(head.weight, shuffled.weight, atol=2e-5)
    assert torch.allclose(head(features.x[0]), far(moved.x[0]), atol=1e-4)


def test_classes_without_rows_get_finite_logits_and_the_odds_of_one_row():
    features = train()
    counts = ClassCounts(torch.tensor([40, 20, 9, 3, 0]))
    wide = Features(features.x, features.y, counts)
    head = fit_converged(wide, losses.cross_entropy(), weight_decay=1e-2)
    narrow = fit_converged(features, losses.cross_entropy(), weight_decay=1e-2)
    assert torch.allclose(head.weight[:4], narrow.weight, atol=1e-12)
    assert not head.weight[4].any()
    share = head(wide.x[0]).softmax(-1)[:, 4].log().mean().exp()
    assert float(share) == pytest.approx(1 / 73, rel=0.1)
    smoothed = fit_converged(wide, losses.los(delta=0.5), weight_decay=1e-2)
    assert torch.isfinite(smoothed(wide.x[0])).all()


def test_all_training_views_are_fitted_at_once():
    features = train(views=3)
    head = fit_converged(features, losses.cross_entropy(), weight_decay=1e-2, tolerance=1e-7)
    space = space_of(features, True, False)
    rows = torch.cat([space.rows(view, torch.float64) for view in features.x[1:]])
    logits = rows @ space.enter(head).T
    slope = (logits.softmax(-1) - torch.eye(4)[features.y.repeat(2)]).T @ rows / len(rows)
    assert torch.allclose(slope[:, :-1], -1e-2 * space.enter(head)[:, :-1], atol=2e-7)


def test_a_fit_that_is_stopped_early_says_so():
    with pytest.warns(PoiseWarning, match=r"the fit stopped after 2 steps at a gradient of .* raise max_steps=2 or"):
        fit_converged(train(), losses.cross_entropy(), weight_decay=1e-6, max_steps=2)


def test_float32_rows_give_a_float32_head():
    features = train(dtype=torch.float32)
    head = fit_converged(features, losses.cross_entropy(), weight_decay=1e-4)
    assert head.weight.dtype == torch.float32
    assert evaluate_head(head, features).accuracy > 0.8


def test_the_method_needs_no_head_and_no_seed():
    method = converged(loss="balanced_softmax", weight_decay=1e-3, tau=0.5)
    problem = Problem(train())
    assert torch.equal(method(problem, 0).weight, method(problem, 7).weight)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"loss": "hinge"}, "loss must be one of"),
        ({"loss": "los", "tau": 1.0}, "loss 'los': "),
        ({"loss": "focal"}, "only losses with one optimum can be fitted to convergence"),
        ({"loss": "class_balanced_bce"}, "only losses with one optimum can be fitted to convergence"),
        ({"loss": "ldam", "drw": True}, "only losses with one optimum can be fitted to convergence"),
        ({"weight_decay": 0.0}, "weight_decay must be positive and finite, got 0.0"),
    ],
)
def test_what_has_no_optimum_is_refused(arguments, words):
    with pytest.raises(InputError) as caught:
        converged(**arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("tolerance", 0.0), ("max_steps", 0), ("max_steps", 1.5)])
def test_bad_limits_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        fit_converged(train(), losses.cross_entropy(), weight_decay=1.0, **{name: value})


def test_a_gala_loss_is_refused():
    with pytest.raises(InputError, match="one optimum"), warnings.catch_warnings():
        fit_converged(train(), losses.gala(), weight_decay=1.0)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_rows_whose_squares_are_no_finite_numbers_are_refused_in_one_sentence(broken: float) -> None:
    with pytest.raises(
        InputError, match=r"^the features are too large or too small to be squared; scale them to a var"
    ):
        _principal(torch.tensor([[broken, 0.0], [0.0, 1.0]]))
    assert _principal(torch.diag(torch.tensor([4.0, 9.0])))[0].tolist() == [4.0, 9.0]
