"""Losses: identities, hand-computed values, extreme logits, gradients, the algebra of LOS and of GALA."""

import math
from math import cos, exp, log, pi

import pytest
import torch

from poise import losses
from poise.errors import InputError
from poise.profiles import exponential
from poise.values.counts import ClassCounts

ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5}  # sums of a handful of terms of order 1 to 10

COUNTS = ClassCounts(torch.tensor([100, 40, 12, 3, 1]))

EVERY_LOSS = {
    "balanced_softmax": losses.balanced_softmax(),
    "balanced_softmax tau 0": losses.balanced_softmax(tau=0.0),
    "bce": losses.class_balanced_bce(),
    "bce beta 0": losses.class_balanced_bce(beta=0.0),
    "cdt": losses.vs(tau=0.0, gamma=0.2),
    "class_balanced": losses.class_balanced(),
    "class_balanced focal": losses.class_balanced(gamma=1.5),
    "class_balanced sigmoid": losses.class_balanced(gamma=1.5, variant="sigmoid"),
    "cross_entropy": losses.cross_entropy(),
    "focal": losses.focal(),
    "focal 0": losses.focal(gamma=0.0),
    "focal half": losses.focal(gamma=0.5),
    "focal sigmoid": losses.focal(variant="sigmoid"),
    "focal sigmoid 0": losses.focal(gamma=0.0, variant="sigmoid"),
    "focal sigmoid half": losses.focal(gamma=0.5, variant="sigmoid"),
    "gala paper": losses.gala(lambda_pos=1.2, lambda_neg=0.9, variant="paper"),
    "gala released": losses.gala(lambda_pos=1.2, lambda_neg=0.9),
    "gala sum": losses.gala(accumulate="sum"),
    "gcl": losses.gcl(margin=0.1, scale=4.0, gamma=1.0),
    "gcl stage 1": losses.gcl(scale=4.0),
    "label_aware_smoothing": losses.label_aware_smoothing(),
    "label_aware_smoothing paper": losses.label_aware_smoothing(shape="convex", variant="paper"),
    "ldam": losses.ldam(scale=4.0),
    "ldam drw": losses.ldam(scale=4.0, drw=True),
    "los": losses.los(),
    "los 0": losses.los(delta=0.0),
    "prior_weighted": losses.prior_weighted(rho=0.5),
    "stateless": losses.stateless(lambda z, y: z.logsumexp(-1) - z[..., torch.arange(len(y)), y]),
    "vs": losses.vs(),
}
each_loss = pytest.mark.parametrize("loss", EVERY_LOSS.values(), ids=EVERY_LOSS.keys())

# Losses of one family, with different parameters: what the solver stacks.
FAMILIES = {
    "bce": [losses.class_balanced_bce(beta=b) for b in (0.0, 0.9, 0.9999)],
    "focal": [losses.focal(gamma=g) for g in (0.0, 0.5, 3.0)],
    "focal sigmoid": [losses.focal(gamma=g, variant="sigmoid") for g in (0.0, 0.5, 3.0)],
    "focal weighted": [losses.class_balanced(gamma=g, beta=b) for g, b in ((0.5, 0.9), (2.0, 0.999))],
    "gala": [
        losses.gala(),
        losses.gala(lambda_pos=0.0, lambda_neg=0.0),
        losses.gala(lambda_pos=1.2, lambda_neg=0.9, variant="paper"),
        losses.gala(lambda_pos=2.0, accumulate="sum"),
    ],
    "gcl": [losses.gcl(scale=3.0), losses.gcl(noise=0.0, margin=0.3, gamma=1.5), losses.gcl(noise=1.0, margin=0.01)],
    "margins": [losses.ldam(max_margin=m, scale=3.0) for m in (0.0, 0.5)],
    "plain": [losses.cross_entropy(), losses.vs(tau=0.0, gamma=0.0)],
    "scales": [losses.vs(tau=t, gamma=g) for t, g in ((1.0, 0.1), (0.5, 0.3))],
    "shifts": [losses.balanced_softmax(tau=t) for t in (-1.0, 0.5, 2.0)],
    "spreads": [losses.los(delta=0.0), losses.los(), losses.label_aware_smoothing(variant="paper")],
    "weighted means": [losses.prior_weighted(rho=1.2), losses.prior_weighted(rho=0.3)],
    "weights": [losses.class_balanced(beta=0.99), losses.class_balanced(beta=0.9)],
}
each_family = pytest.mark.parametrize("members", FAMILIES.values(), ids=FAMILIES.keys())


def batch(*shape, seed=0, spread=2.0, dtype=torch.float64):
    """Random logits of this shape (..., B, C), and labels (B,) that hold every class if B >= C."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
    return logits, torch.arange(shape[-2]) % shape[-1]


def initial(loss, counts, dtype=torch.float64):
    """The state before the first batch, in one dtype."""
    return cast(loss.init(counts), dtype)


def cast(state, dtype):
    terms = [None if term is None else term.to(dtype) for term in state]
    return state._make(terms) if hasattr(state, "_make") else tuple(terms)


def random_state(loss, seed=0, heads=()):
    """A state of the loss, or of `heads` (a shape) of it, with every number moved at random: none is 0 or 1."""
    if heads:
        states = [random_state(loss, 100 * seed + i, heads[1:]) for i in range(heads[0])]
        return losses.stack_states(states, torch.empty(0, dtype=torch.float64))
    generator = torch.Generator().manual_seed(seed)
    state = loss.init(COUNTS)
    moved = [
        None if t is None else t * (0.5 + torch.rand(t.shape, generator=generator, dtype=torch.float64)) + 0.05
        for t in state
    ]
    return state._make(moved) if hasattr(state, "_make") else tuple(moved)


def values(loss, logits, y, counts=COUNTS):
    """Losses at the initial state."""
    return loss.apply(logits, y, initial(loss, counts, logits.dtype))[0]


def slopes(loss, logits, y, state):
    """Closed-form gradient, or autograd's where the loss has none."""
    return losses.gradient(loss, logits.clone(), y, state)[0]  # which may write over them


def by_autograd(loss, logits, y, state):
    """The gradient of `apply`."""
    leaf = logits.clone().requires_grad_()
    return torch.autograd.grad(loss.apply(leaf, y, state)[0].sum(), leaf)[0]


def close(a, b, tolerance):
    return bool((a - b).abs().max() <= tolerance * (1 + b.abs().max()))


# --- identities ------------------------------------------------------------------------------------------------------

CE = losses.cross_entropy()
UNIFORM = ClassCounts(torch.full((5,), 7))
EQUAL_LOSSES = {
    "los(0) = ce": (losses.los(delta=0.0), CE, COUNTS),
    "balanced_softmax(0) = ce": (losses.balanced_softmax(tau=0.0), CE, COUNTS),
    "cb(beta 0) = ce": (losses.class_balanced(beta=0.0), CE, COUNTS),
    "cb focal(beta 0) = focal": (losses.class_balanced(beta=0.0, gamma=2.0), losses.focal(gamma=2.0), COUNTS),
    "cb(gamma 0) = weighted ce": (
        losses.class_balanced(beta=0.99),
        losses.focal(gamma=0.0, weigh=lambda n: losses.class_balanced_weights(n, 0.99)),
        COUNTS,
    ),
    "focal(0) = ce": (losses.focal(gamma=0.0), CE, COUNTS),
    "gala(0, 0) = ce": (losses.gala(lambda_pos=0.0, lambda_neg=0.0), CE, COUNTS),
    "gala paper(0, 0) = ce": (losses.gala(lambda_pos=0.0, lambda_neg=0.0, variant="paper"), CE, COUNTS),
    "gcl(margin 0, gamma 0) without noise = ce": (losses.gcl(), CE, COUNTS),
    "gcl(margin 0) without noise = focal": (losses.gcl(gamma=1.5), losses.focal(gamma=1.5), COUNTS),
    "las with equal ends = los": (
        losses.label_aware_smoothing(smooth_head=0.3, smooth_tail=0.3),
        losses.los(delta=0.3),
        COUNTS,
    ),
    "las paper with ends e = los(e C / (C - 1))": (
        losses.label_aware_smoothing(smooth_head=0.3, smooth_tail=0.3, variant="paper"),
        losses.los(delta=0.3 * 5 / 4),
        COUNTS,
    ),
    "las with ends 0 = ce": (losses.label_aware_smoothing(smooth_head=0.0, smooth_tail=0.0), CE, COUNTS),
    "las of equal counts = los(head)": (
        losses.label_aware_smoothing(smooth_head=0.4, smooth_tail=0.1),
        losses.los(delta=0.4),
        UNIFORM,
    ),
    "ldam(max_margin 0) = ce": (losses.ldam(max_margin=0.0), CE, COUNTS),
    "prior_weighted(0) = ce": (losses.prior_weighted(rho=0.0), CE, COUNTS),
    "prior_weighted of equal counts = ce": (losses.prior_weighted(), CE, UNIFORM),
    "uniform balanced_softmax = ce": (losses.balanced_softmax(tau=2.0), CE, UNIFORM),
    "uniform class_balanced = ce": (losses.class_balanced(), CE, UNIFORM),
    "uniform vs = ce": (losses.vs(), CE, UNIFORM),
    "uniform bce = bce(beta 0)": (losses.class_balanced_bce(), losses.class_balanced_bce(beta=0.0), UNIFORM),
    "vs(gamma 0) = balanced_softmax": (losses.vs(tau=0.7, gamma=0.0), losses.balanced_softmax(tau=0.7), COUNTS),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("a", "b", "counts"), EQUAL_LOSSES.values(), ids=EQUAL_LOSSES.keys())
def test_degenerate_parameters_give_the_simpler_loss(a, b, counts, dtype):
    logits, y = batch(20, 5, dtype=dtype)
    assert close(values(a, logits, y, counts), values(b, logits, y, counts), ROUNDING[dtype])
    slope_a, slope_b = (slopes(loss, logits, y, initial(loss, counts, dtype)) for loss in (a, b))
    assert close(slope_a, slope_b, ROUNDING[dtype])


def averaged(loss, logits, y, epoch=0, epochs=10):
    """The loss of a batch in one epoch, by the rule of `Loss.mass`."""
    state = initial(loss, COUNTS, logits.dtype)
    state = state if loss.epoch is None else loss.epoch(state, epoch, epochs)
    mass = losses.mass_of(loss, y, state)
    each = loss.apply(logits, y, state)[0]
    return each.mean() if mass is None else each.mean() / mass.mean()


def test_released_weights_are_averaged_as_torch_averages_them():
    logits, y = batch(20, 5)
    y = y**2 % 5  # not all classes equally often
    prior = COUNTS.n.double() / COUNTS.n.sum()
    effective = losses.class_balanced_weights(COUNTS)
    margin = 4.0 * 0.5 * (COUNTS.n.min() / COUNTS.n.double()) ** 0.25
    adjusted = logits - margin * torch.nn.functional.one_hot(y, 5)
    expected = torch.nn.functional.cross_entropy
    drw = losses.ldam(scale=4.0, drw=True)
    for found, value in (
        (averaged(losses.prior_weighted(rho=1.2), logits, y), expected(logits, y, prior**-1.2)),
        (averaged(drw, logits, y, epoch=8), expected(adjusted, y, effective)),
        (averaged(drw, logits, y, epoch=7), expected(adjusted, y)),
        (averaged(losses.ldam(scale=4.0), logits, y, epoch=8), expected(adjusted, y)),
        # Cui et al. divide by the number of rows.
        (averaged(losses.class_balanced(), logits, y), (effective[y] * expected(logits, y, reduction="none")).mean()),
    ):
        assert float(found) == pytest.approx(float(value), rel=1e-12)


def test_sigmoid_focal_loss_without_focus_is_binary_cross_entropy():
    logits, y = batch(20, 5)
    hot = torch.nn.functional.one_hot(y, 5).double()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, hot, reduction="none").sum(dim=-1)
    assert close(values(losses.focal(gamma=0.0, variant="sigmoid"), logits, y), expected, 1e-12)


@pytest.mark.parametrize("make", [losses.focal, losses.class_balanced])
def test_an_unknown_form_of_focal_loss_is_refused(make):
    with pytest.raises(InputError, match="variant must be one of softmax, sigmoid; got 'binary'"):
        make(gamma=1.0, variant="binary")


@pytest.mark.parametrize("delta", [0.0, 0.1, 0.5, 0.98, 0.999])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_los_equals_torch_label_smoothing(delta, dtype):
    logits, y = batch(40, 10, dtype=dtype)
    expected = torch.nn.functional.cross_entropy(logits, y, label_smoothing=delta, reduction="none")
    counts = ClassCounts(torch.arange(1, 11))
    assert close(values(losses.los(delta=delta), logits, y, counts), expected, ROUNDING[dtype])


def test_los_ignores_the_counts():
    logits, y = batch(20, 5)
    assert torch.equal(values(losses.los(), logits, y, COUNTS), values(losses.los(), logits, y, UNIFORM))


def test_one_extra_parameter_changes_each_loss():
    logits, y = batch(20, 5)
    for a, b in (
        (losses.los(delta=0.98), CE),
        (losses.balanced_softmax(), CE),
        (losses.vs(gamma=0.3), losses.balanced_softmax()),
        (losses.class_balanced(), CE),
        (losses.focal(), CE),
        (losses.label_aware_smoothing(variant="paper"), losses.label_aware_smoothing()),
        (losses.label_aware_smoothing(shape="linear"), losses.label_aware_smoothing(shape="convex")),
        (losses.ldam(), CE),
        (losses.class_balanced_bce(), losses.class_balanced_bce(beta=0.0)),
    ):
        assert not close(values(a, logits, y), values(b, logits, y), 1e-3)


# --- values by hand --------------------------------------------------------------------------------------------------

L = log(exp(2) + 2)  # the losses below are for logits (0, 0, 0) with label 0 and (2, 0, 0) with label 1
P0, P1 = exp(2) / (exp(2) + 2), 1 / (exp(2) + 2)
S2 = 1 / (1 + exp(-2))  # sigmoid of 2, the probability of class 0 that is wrong there
BY_HAND = {
    "cross_entropy": (losses.cross_entropy(), (4, 2, 1), log(3), L),
    "los": (losses.los(delta=0.6), (4, 2, 1), log(3), L - 0.2 * 2),
    "balanced_softmax": (losses.balanced_softmax(), (4, 2, 1), log(7 / 4), log((4 * exp(2) + 2 + 1) / 2)),
    "balanced_softmax empty class": (losses.balanced_softmax(), (4, 2, 0), log(7 / 4), log((4 * exp(2) + 2 + 1) / 2)),
    "cdt": (losses.vs(tau=0.0, gamma=0.5), (1, 4, 4), log(3), log(exp(1) + 2)),
    "vs": (losses.vs(tau=1.0, gamma=0.5), (1, 4, 4), log(9), log((exp(1) + 4 + 4) / 4)),
    "class_balanced": (losses.class_balanced(beta=0.5), (4, 2, 1), 8 / 11 * log(3), 10 / 11 * L),
    "prior_weighted": (losses.prior_weighted(), (4, 2, 1), 3 / 7 * log(3), 6 / 7 * L),
    "prior_weighted sqrt": (
        losses.prior_weighted(rho=0.5),
        (4, 4, 1),
        3 / 4 * log(3),
        3 / 4 * L,
    ),
    "focal 1": (losses.focal(gamma=1.0), (4, 2, 1), 2 / 3 * log(3), (1 - P1) * L),
    "focal 2": (losses.focal(gamma=2.0), (4, 2, 1), 4 / 9 * log(3), (1 - P1) ** 2 * L),
    "focal sigmoid 1": (
        losses.focal(gamma=1.0, variant="sigmoid"),
        (4, 2, 1),
        3 / 2 * log(2),
        S2 * log(1 + exp(2)) + 2 / 2 * log(2),
    ),
    "class_balanced sigmoid 0": (
        losses.class_balanced(beta=0.5, variant="sigmoid"),
        (4, 2, 1),
        8 / 11 * 3 * log(2),
        10 / 11 * (log(1 + exp(2)) + 2 * log(2)),
    ),
    "class_balanced focal": (
        losses.class_balanced(beta=0.5, gamma=2.0),
        (4, 2, 1),
        8 / 11 * 4 / 9 * log(3),
        10 / 11 * (1 - P1) ** 2 * L,
    ),
    "las linear": (
        losses.label_aware_smoothing(smooth_head=0.4, smooth_tail=0.1, shape="linear"),
        (4, 2, 1),
        log(3),
        L - 0.2 * 2 / 3,
    ),
    "las concave": (
        losses.label_aware_smoothing(smooth_head=0.4, smooth_tail=0.1, shape="concave"),
        (4, 2, 1),
        log(3),
        L - 0.25 * 2 / 3,  # sin(pi / 6) = 1 / 2
    ),
    "las convex": (
        losses.label_aware_smoothing(smooth_head=0.4, smooth_tail=0.1, shape="convex"),
        (4, 2, 1),
        log(3),
        L - (0.1 + 0.3 * (1 - cos(pi / 6))) * 2 / 3,
    ),
    "las paper": (
        losses.label_aware_smoothing(smooth_head=0.4, smooth_tail=0.1, shape="linear", variant="paper"),
        (4, 2, 1),
        log(3),
        L - 0.2 / 2 * 2,
    ),
    "ldam": (
        losses.ldam(max_margin=0.5, scale=4.0),
        (16, 1, 1),
        log(2 + exp(-1)) + 1,
        log(exp(2) + exp(-2) + 1) + 2,
    ),
    "bce": (
        losses.class_balanced_bce(beta=0.0),
        (4, 2, 1),
        -(log(1 / 3) + 2 * log(2 / 3)) / 3,
        -(log(P1) + log(1 - P0) + log(1 - P1)) / 3,
    ),
    "bce weighted": (
        losses.class_balanced_bce(beta=0.5),
        (4, 2, 1),
        -8 / 11 * (log(1 / 3) + 2 * log(2 / 3)) / 3,
        -10 / 11 * (log(P1) + log(1 - P0) + log(1 - P1)) / 3,
    ),
    "gcl margin": (losses.gcl(margin=0.5, scale=4.0), (4, 2, 1), log(2 + exp(-2)) + 2, log(exp(2) + 1 + exp(-2)) + 2),
    "gala before any statistics": (losses.gala(), (4, 2, 1), log(3), L),
}


@pytest.mark.parametrize(("loss", "counts", "first", "second"), BY_HAND.values(), ids=BY_HAND.keys())
def test_losses_agree_with_values_worked_out_by_hand(loss, counts, first, second):
    logits = torch.tensor([[0, 0, 0], [2, 0, 0]], dtype=torch.float64)
    found = values(loss, logits, torch.tensor([0, 1]), ClassCounts(torch.tensor(counts)))
    assert found.tolist() == pytest.approx([first, second], rel=1e-12)  # a few roundings of float64


def test_gala_uses_the_statistics_of_earlier_batches_only():
    logits, y = torch.tensor([[0, 0, 0], [2, 0, 0]], dtype=torch.float64), torch.tensor([0, 1])
    loss = losses.gala()
    first, after = loss.apply(logits, y, initial(loss, ClassCounts(torch.tensor([4, 2, 1]))))
    assert first.tolist() == pytest.approx([log(3), L], rel=1e-12)
    theta = [(1 - 1 / 3) / 2 + 1e-3, (1 - P1) / 2 + 1e-3, 1e-3]
    second, _ = loss.apply(logits, y, after)
    expected = [log(sum(theta) / theta[0]), log((exp(2) * theta[0] + theta[1] + theta[2]) / theta[1])]
    assert second.tolist() == pytest.approx(expected, rel=1e-12)


# Values for the logits (1e4, -1e4, 0) and each label, counts (100, 10, 1), default parameters, made with
#   from mpmath import mp, mpf, exp, log, sin, pi
#   mp.dps = 60
#   n, C = [mpf(100), mpf(10), mpf(1)], 3
#   prior = [v / sum(n) for v in n]
#   raw = [(1 - mpf("0.9999")) / (1 - mpf("0.9999") ** v) for v in n]
#   cb = [C * r / sum(raw) for r in raw]
#   margin = [30 * mpf("0.5") * (1 / v) ** mpf("0.25") for v in n]
#   eps = [mpf("0.1") + mpf("0.3") * sin(pi / 2 * (v - 1) / 99) for v in n]
#   log_p = lambda z: [v - log(sum(exp(u) for u in z)) for v in z]
#   ce = lambda z, y: -log_p(z)[y]
#   smooth = lambda z, y, s: (1 - s) * ce(z, y) - s * sum(log_p(z)) / C
#   rest = lambda z, k: log(sum(exp(u) for j, u in enumerate(z) if j != k)) - log(sum(exp(u) for u in z))
#   formulas = {
#       "balanced_softmax": lambda z, y: ce([v + log(p) for v, p in zip(z, prior)], y),
#       "class_balanced": lambda z, y: cb[y] * ce(z, y),
#       "class_balanced_bce": lambda z, y: cb[y] / C * (ce(z, y) - sum(rest(z, k) for k in range(C) if k != y)),
#       "cross_entropy": ce,
#       "focal": lambda z, y: (1 - exp(-ce(z, y))) ** 2 * ce(z, y),
#       "label_aware_smoothing": lambda z, y: smooth(z, y, eps[y]),
#       "ldam": lambda z, y: ce([v - margin[y] * (k == y) for k, v in enumerate(z)], y),
#       "los": lambda z, y: smooth(z, y, mpf("0.98")),
#       "vs": lambda z, y: ce([v * (m / 100) ** mpf("0.3") + log(p) for v, m, p in zip(z, n, prior)], y)}
#   for name, f in formulas.items():
#       print(name, [float(f([mpf(10) ** 4, -(mpf(10) ** 4), mpf(0)], y)) for y in range(3)])
EXTREME = {
    "balanced_softmax": (0.0, 20002.302585092995, 10004.605170185989),
    "class_balanced": (0.0, 5407.3774798633285, 27024.72404384573),
    "class_balanced_bce": (0.0, 2703.6887399316643, 18016.482695897153),
    "cross_entropy": (0.0, 20000.0, 10000.0),
    "focal": (0.0, 20000.0, 10000.0),
    "label_aware_smoothing": (4000.0, 18573.055485180146, 10000.0),
    "ldam": (0.0, 20008.435119877857, 10015.0),
    "los": (9800.0, 10200.0, 10000.0),
    "vs": (0.0, 15014.174921365717, 10004.605170185989),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("name", "expected"), EXTREME.items(), ids=EXTREME.keys())
def test_extreme_logits_give_the_values_of_arbitrary_precision(name, expected, dtype):
    logits = torch.tensor([[1e4, -1e4, 0.0]] * 3, dtype=dtype)
    found = losses.build(name, torch.tensor([100, 10, 1]))(logits, torch.arange(3))
    # A value that cancels out of terms of 1e4 keeps the digits of 1e4.
    assert found.tolist() == pytest.approx(expected, rel=10 * torch.finfo(dtype).eps, abs=1e4 * torch.finfo(dtype).eps)


def test_every_named_loss_has_extreme_values():
    assert EXTREME.keys() == losses.LOSSES.keys()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@each_loss
def test_extreme_logits_leave_value_gradient_and_next_state_finite(loss, dtype):
    counts = ClassCounts(torch.tensor([100, 10, 0]))
    logits = torch.tensor([[1e4, -1e4, 0], [-1e4, 1e4, 1e4], [1e4, 1e4, 1e4], [40, -40, 0]], dtype=dtype)
    logits, y = logits.repeat_interleave(3, dim=0), torch.arange(12) % 3
    state = initial(loss, counts, dtype)
    found, after = loss.apply(logits, y, state)
    again, after_gradient = losses.gradient(loss, logits.clone(), y, state)
    assert torch.isfinite(found).all()
    assert torch.isfinite(again).all()
    assert torch.isfinite(by_autograd(loss, logits, y, state)).all()
    assert all(torch.isfinite(term).all() for term in (*after, *after_gradient) if term is not None)


@pytest.mark.parametrize("largest", [1e4, 40.0])
@each_loss
def test_closed_form_gradient_equals_autograd_at_saturated_logits(loss, largest):
    logits = torch.tensor([[largest, -largest, 0.0]] * 3, dtype=torch.float64)
    y, state = torch.arange(3), initial(loss, ClassCounts(torch.tensor([100, 10, 1])))
    assert close(slopes(loss, logits, y, state), by_autograd(loss, logits, y, state), 1e-12)


@pytest.mark.parametrize("logits", [[17.0, -3.0, 1.0], [40.0, -40.0, 0.0], [-90.0, 5.0, 5.5]], ids=str)
@each_loss
def test_single_precision_gradients_keep_their_digits_at_saturated_logits(loss, logits):
    counts, y = ClassCounts(torch.tensor([100, 10, 1])), torch.arange(3)
    single, double = (
        slopes(loss, torch.tensor([logits] * 3, dtype=dtype), y, initial(loss, counts, dtype))
        for dtype in (torch.float32, torch.float64)
    )
    assert close(single.double(), double, 1e-5)  # an exponent of 90 in float32


@each_loss
def test_adding_a_constant_to_a_row_changes_no_loss_without_scales(loss):
    logits, y = batch(12, 5)
    state = random_state(loss)
    before, _ = loss.apply(logits, y, state)
    after, _ = loss.apply(logits + torch.linspace(-50, 50, 12).unsqueeze(-1).double(), y, state)
    scaled = getattr(state, "scale", None) is not None  # a scale per class makes a common shift uncommon
    alone = loss.apply is losses.focal(variant="sigmoid").apply  # and a sigmoid looks at one logit only
    assert close(after, before, 1e-12) != (scaled or alone)


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
@each_loss
def test_gradcheck_accepts_every_loss(loss, seed):
    logits, y = batch(2, 6, 5, seed=seed)
    state = random_state(loss, seed, heads=(2,))
    assert torch.autograd.gradcheck(lambda z: loss.apply(z, y, state)[0], logits.requires_grad_())


@pytest.mark.parametrize("shape", [(9, 5), (3, 9, 5), (2, 3, 9, 5)], ids=str)
@each_loss
def test_closed_form_gradient_equals_autograd_of_apply(loss, shape):
    logits, y = batch(*shape, seed=3)
    state = random_state(loss, seed=3, heads=shape[:-2])
    assert close(slopes(loss, logits, y, state), by_autograd(loss, logits, y, state), 1e-12)


@each_loss
def test_gradient_and_apply_return_the_same_next_state(loss):
    logits, y = batch(9, 5)
    state = random_state(loss)
    assert all(
        a is b is None or close(a, b, 1e-12)
        for a, b in zip(
            loss.apply(logits, y, state)[1], losses.gradient(loss, logits.clone(), y, state)[1], strict=True
        )
    )


@each_loss
def test_losses_write_to_none_of_their_inputs_and_gradients_to_the_logits_only(loss):
    logits, y = batch(9, 5)
    state = random_state(loss)
    tensors = [logits, y, *(term for term in state if term is not None)]
    before = [tensor.clone() for tensor in tensors]
    loss.apply(logits, y, state)
    losses.gradient(loss, logits.clone(), y, state)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@each_family
def test_stacked_states_give_each_head_what_it_gets_alone(members, dtype):
    logits, y = batch(len(members), 9, 5, seed=1, dtype=dtype)
    states = [random_state(loss, seed) for seed, loss in enumerate(members)]
    stacked = losses.stack_states(states, logits)
    together, _ = members[0].apply(logits, y, stacked)
    slope = slopes(members[0], logits, y, stacked)
    assert together.dtype == slope.dtype == dtype
    for i, (loss, state) in enumerate(zip(members, states, strict=True)):
        alone = cast(state, dtype)
        assert close(together[i], loss.apply(logits[i], y, alone)[0], ROUNDING[dtype])
        assert close(slope[i], slopes(loss, logits[i], y, alone), ROUNDING[dtype])


@each_family
def test_stacked_closed_form_gradient_equals_autograd(members):
    logits, y = batch(len(members), 9, 5, seed=2)
    states = [random_state(loss, seed) for seed, loss in enumerate(members)]
    stacked = losses.stack_states(states, logits)
    assert close(slopes(members[0], logits, y, stacked), by_autograd(members[0], logits, y, stacked), 1e-12)


@each_family
def test_members_of_a_family_differ(members):
    logits, y = batch(9, 5)
    states = [initial(loss, COUNTS) for loss in members]
    if "theta" in states[0]._fields:
        states = [state._replace(theta=state.theta + torch.arange(1.0, 6.0).double()) for state in states]
    found = [loss.apply(logits, y, state)[0] for loss, state in zip(members, states, strict=True)]
    plain = all(term is None for term in states[0])
    assert all(close(found[0], other, 1e-6) == plain for other in found[1:])


def test_deferred_weights_act_from_four_fifths_of_the_epochs_on():
    loss = losses.ldam(drw=True)
    weights = losses.class_balanced_weights(COUNTS)
    state = loss.init(COUNTS)
    assert torch.equal(loss.epoch(state, 159, 200).weight, torch.ones(5).double())
    assert torch.equal(loss.epoch(state, 160, 200).weight, weights)
    assert torch.equal(loss.epoch(state, 199, 200).weight, weights)
    assert losses.ldam().epoch(losses.ldam().init(COUNTS), 199, 200).weight is None


def test_deferred_weights_act_on_stacked_states():
    loss = losses.ldam(drw=True)
    logits, y = batch(2, 9, 5)
    stacked = losses.stack_states([loss.init(COUNTS)] * 2, logits)
    late, _ = loss.apply(logits, y, loss.epoch(stacked, 9, 10))
    expected = losses.class_balanced_weights(COUNTS)[y] * loss.apply(logits, y, stacked)[0]
    assert close(late, expected, 1e-12)


# --- class-balanced weights ------------------------------------------------------------------------------------------


def test_class_balanced_weights_of_cifar100_if100_are_the_published_ones():
    weights = losses.class_balanced_weights(exponential(500, 100, 100), 0.9999)
    assert float(weights.sum()) == pytest.approx(100, rel=1e-12)
    assert [float(weights[k]) for k in (0, 49, 99)] == pytest.approx([0.04488, 0.43023, 4.37831], abs=5e-6)


def test_class_balanced_weights_agree_with_the_formula():
    n, beta = torch.tensor([1, 2, 30, 400]), 0.99
    raw = [(1 - beta) / (1 - beta**k) for k in n.tolist()]
    expected = [4 * r / sum(raw) for r in raw]
    assert losses.class_balanced_weights(n, beta).tolist() == pytest.approx(expected, rel=1e-12)


def test_class_balanced_weights_near_beta_one_are_inverse_frequencies():
    n = torch.tensor([1000, 10, 1])
    # (1 - b) / (1 - b^n) = (1 + O((1 - b) n)) / n
    assert close(losses.class_balanced_weights(n, 1 - 1e-12), 3 / n / (1 / n).sum(), 1e-6)


def test_empty_classes_weigh_as_classes_of_one_row():
    assert torch.equal(
        losses.class_balanced_weights(torch.tensor([9, 1, 0])), losses.class_balanced_weights(torch.tensor([9, 1, 1]))
    )


# --- label over-smoothing --------------------------------------------------------------------------------------------

CLASSES = (10, 100, 365, 1000, 8142)
GAPS = {
    0.10: (4.511, 6.804, 8.097, 9.105, 11.202),
    0.50: (2.398, 4.615, 5.903, 6.909, 9.005),
    0.90: (0.747, 2.494, 3.727, 4.719, 6.809),
    0.95: (0.423, 1.835, 3.006, 3.982, 6.063),
    0.98: (0.186, 1.112, 2.134, 3.064, 5.119),
    0.99: (0.096, 0.698, 1.545, 2.407, 4.422),
    0.995: (0.049, 0.407, 1.042, 1.796, 3.736),
    0.999: (0.010, 0.095, 0.311, 0.694, 2.214),
}
EACH_GAP = [(delta, k, gap) for delta, row in GAPS.items() for k, gap in zip(CLASSES, row, strict=True)]


def gap_formula(delta, classes):
    return math.log(1 + classes * (1 - delta) / delta)


@pytest.mark.parametrize(("delta", "classes", "printed"), EACH_GAP)
def test_los_gradient_vanishes_at_the_tabled_gap(delta, classes, printed):
    assert gap_formula(delta, classes) == pytest.approx(printed, abs=5.01e-4)  # printed with 3 digits
    logits, y = torch.zeros(1, classes, dtype=torch.float64), torch.tensor([classes // 2])
    logits[0, y] = gap_formula(delta, classes)
    loss = losses.los(delta=delta)
    counts = ClassCounts(torch.ones(classes, dtype=torch.int64))
    assert slopes(loss, logits, y, initial(loss, counts)).abs().max() < 1e-13
    logits[0, y] += 0.01
    assert slopes(loss, logits, y, initial(loss, counts)).abs().max() > 1e-6


@pytest.mark.parametrize(("delta", "classes"), [(0.5, 10), (0.9, 100), (0.98, 100), (0.98, 1000)])
def test_optimised_free_logits_reach_the_gap_and_the_entropy_of_the_target(delta, classes):
    _, y = batch(3, classes)
    logits = batch(3, classes, spread=1.0)[0].requires_grad_()
    loss = losses.los(delta=delta)
    state = initial(loss, ClassCounts(torch.ones(classes, dtype=torch.int64)))
    optimiser = torch.optim.LBFGS(
        [logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def objective():
        optimiser.zero_grad()
        total = loss.apply(logits, y, state)[0].sum()
        total.backward()
        return total

    optimiser.step(objective)
    z = logits.detach()
    rows = torch.arange(3)
    lead = z[rows, y].unsqueeze(-1) - z
    lead[rows, y] = gap_formula(delta, classes)
    assert close(lead, torch.full_like(lead, gap_formula(delta, classes)), 1e-5)  # a gradient of 1e-12 over q of 1e-3
    others, true = delta / classes, 1 - delta + delta / classes
    entropy = -(classes - 1) * others * log(others) - true * log(true)
    assert values(loss, z, y, ClassCounts(torch.ones(classes).long())).tolist() == pytest.approx([entropy] * 3)


def test_nearly_full_smoothing_leaves_no_signal_about_the_label():
    logits, y = batch(5, 5)
    loss = losses.los(delta=1 - 1e-9)
    slope = slopes(loss, logits, y, initial(loss, COUNTS))
    other = slopes(loss, logits, (y + 1) % 5, initial(loss, COUNTS))
    assert close(slope, other, 2e-9)


# --- gradient-aware logit adjustment ---------------------------------------------------------------------------------


def naive_gala(batches, classes, *, lambda_pos, lambda_neg, variant, cumsum):
    """Losses per batch, theta and phi at the end, from C x C matrices and loops over samples, as released."""
    zeros = torch.zeros(classes, classes, dtype=torch.float64)
    running, kept, losses_per_batch = zeros, zeros, []
    for logits, y in batches:
        theta, phi = kept.diagonal(), (kept - torch.diag(kept.diagonal())).sum(dim=0)
        step, found = zeros.clone(), []
        for z, label in zip(logits, y.tolist(), strict=True):
            adjusted = z + lambda_pos * (theta + 1e-3).log() - lambda_neg * (phi[label] + 1e-3).log()
            if variant == "paper":
                adjusted[label] = z[label]
            log_p = adjusted.log_softmax(dim=0)
            found.append(-log_p[label])
            one_hot = torch.nn.functional.one_hot(torch.tensor(label), classes)
            step[:, label] += (log_p.exp() - one_hot).abs() / len(y)
        running = running + step
        kept = kept + running if cumsum else running
        losses_per_batch.append(torch.stack(found))
    return losses_per_batch, kept.diagonal(), (kept - torch.diag(kept.diagonal())).sum(dim=0)


def gala_run(loss, batches, counts=COUNTS):
    """Losses per batch and the last state."""
    state, found = initial(loss, counts), []
    for logits, y in batches:
        per_row, state = loss.apply(logits, y, state)
        found.append(per_row)
    return found, state


def random_batches(number=6, rows=7, classes=5):
    generator = torch.Generator().manual_seed(5)
    return [
        (
            2 * torch.randn(rows, classes, generator=generator, dtype=torch.float64),
            torch.randint(classes, (rows,), generator=generator),
        )
        for _ in range(number)
    ]


@pytest.mark.parametrize("accumulate", ["cumsum", "sum"])
@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize(("lambda_pos", "lambda_neg"), [(1.0, 1.0), (1.2, 0.9), (0.0, 2.0)])
def test_gala_equals_the_loop_over_gradient_matrices(variant, accumulate, lambda_pos, lambda_neg):
    batches = random_batches()
    loss = losses.gala(lambda_pos=lambda_pos, lambda_neg=lambda_neg, variant=variant, accumulate=accumulate)
    found, state = gala_run(loss, batches)
    expected, theta, phi = naive_gala(
        batches, 5, lambda_pos=lambda_pos, lambda_neg=lambda_neg, variant=variant, cumsum=accumulate == "cumsum"
    )
    assert close(torch.stack(found), torch.stack(expected), 1e-12)
    assert close(theta, phi, 1e-12)
    assert close(state.theta, theta, 1e-12)


def test_lambda_neg_has_no_effect_in_the_released_form():
    batches = random_batches()
    one, other = (gala_run(losses.gala(lambda_neg=value), batches) for value in (1.0, 7.0))
    assert torch.equal(torch.stack(one[0]), torch.stack(other[0]))
    assert torch.equal(one[1].theta, other[1].theta)


def test_lambda_neg_matters_in_the_paper_form():
    one, other = (gala_run(losses.gala(lambda_neg=v, variant="paper"), random_batches()) for v in (1.0, 0.9))
    assert not close(torch.stack(one[0]), torch.stack(other[0]), 1e-3)


@pytest.mark.parametrize("strength", [0.5, 1.0, 1.7])
def test_paper_and_released_forms_agree_for_equal_lambdas(strength):
    paper, released = (
        torch.stack(
            gala_run(losses.gala(lambda_pos=strength, lambda_neg=strength, variant=variant), random_batches())[0]
        )
        for variant in ("paper", "released")
    )
    assert close(paper, released, 1e-12)


def with_theta(loss, theta):
    return initial(loss, ClassCounts(torch.ones(len(theta)).long()))._replace(theta=theta.double())


def test_uniform_theta_gives_the_gradient_of_cross_entropy():
    logits, y = batch(9, 5)
    loss = losses.gala(lambda_pos=1.5)
    slope = slopes(loss, logits, y, with_theta(loss, torch.full((5,), 3.0)))
    assert close(slope, slopes(CE, logits, y, initial(CE, COUNTS)), 1e-12)


def test_theta_in_proportion_to_counts_gives_balanced_softmax():
    logits, y = batch(9, 5)
    loss = losses.gala(lambda_pos=0.8)
    found, _ = loss.apply(logits, y, with_theta(loss, 1000 * COUNTS.n))
    # The 1e-3 inside the logarithm moves each shift by at most 1e-3 / 1000.
    assert close(found, values(losses.balanced_softmax(tau=0.8), logits, y), 2e-6)


def test_released_form_is_free_of_the_scale_of_theta():
    logits, y = batch(9, 5)
    theta = torch.tensor([5.0, 3.0, 2.0, 1.0, 1.0])
    released, paper = losses.gala(), losses.gala(lambda_pos=1.2, lambda_neg=0.9, variant="paper")
    change = {
        loss: (
            loss.apply(logits, y, with_theta(loss, 1000 * theta))[0] - loss.apply(logits, y, with_theta(loss, theta))[0]
        )
        for loss in (released, paper)
    }
    assert change[released].abs().max() < 2e-3  # log(1 + 1e-3 / theta) at theta = 1, twice
    assert change[paper].abs().max() > 0.1


def test_cumsum_sums_the_running_sum_again():
    batches = random_batches(number=4)
    still = [losses.gala(lambda_pos=0.0, lambda_neg=0.0, accumulate=how) for how in ("cumsum", "sum")]
    (_, twice), (_, once) = (gala_run(loss, batches) for loss in still)
    totals = [gala_run(still[1], batches[:t])[1].total for t in range(1, 5)]
    assert close(once.theta, totals[-1], 1e-12)
    assert close(twice.theta, torch.stack(totals).sum(dim=0), 1e-12)
    assert torch.equal(once.total, twice.total)


def test_no_gradient_flows_into_the_statistics():
    logits, y = batch(9, 5)
    leaf = logits.requires_grad_()
    loss = losses.gala()
    state = initial(loss, COUNTS)
    _, after = loss.apply(leaf, y, state)
    _, after = loss.apply(leaf, y, after)
    assert not after.theta.requires_grad
    assert not after.total.requires_grad


def test_classes_without_gradient_stay_at_the_floor():
    logits, y = torch.zeros(2, 3, dtype=torch.float64), torch.tensor([0, 1])
    _, state = gala_run(losses.gala(), [(logits, y)] * 3, ClassCounts(torch.tensor([2, 2, 0])))
    assert float(state.theta[2]) == 0
    assert (state.theta[:2] > 0).all()


# --- Gaussian clouded logits -----------------------------------------------------------------------------------------


def clouded(loss, logits, y, numbers, counts=COUNTS):
    """Losses with these random numbers."""
    return loss.apply(logits, y, loss.draw(initial(loss, counts, logits.dtype), numbers))[0]


def random_numbers(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gcl_agrees_with_values_worked_out_by_hand():
    counts, scale = ClassCounts(torch.tensor([100, 10, 1])), 4.0  # m is 0, 1/2 and 1
    cosines, y = torch.tensor([[0.5, 0.25, 0.0], [0.5, 0.25, 0.0]], dtype=torch.float64), torch.tensor([0, 2])
    # |e| is 0, 1/3 (one standard deviation) and 1 (where it is clamped).
    sizes = torch.tensor([[1, 1 / 3, 0], [0, 1, 1 / 3]], dtype=torch.float64)
    numbers = torch.tensor([[1.0, math.erf(0.5**0.5), 0.0], [0.0, 1.0, math.erf(0.5**0.5)]], dtype=torch.float64)
    assert numbers[0, 1] == pytest.approx(0.6826894921370859)
    noise, margin, gamma = 0.5, 0.1, 2.0
    expected = []
    for row, label in enumerate(y.tolist()):
        shares = [
            exp(scale * (c - noise * e * m - margin * (k == label)))
            for k, (c, e, m) in enumerate(zip(cosines[row].tolist(), sizes[row].tolist(), (0, 0.5, 1), strict=True))
        ]
        p = shares[label] / sum(shares)
        expected.append((1 - p) ** gamma * -log(p))
    loss = losses.gcl(noise=noise, margin=margin, scale=scale, gamma=gamma)
    assert clouded(loss, scale * cosines, y, numbers, counts).tolist() == pytest.approx(expected, rel=1e-12)


def test_the_noise_of_gcl_is_a_clamped_normal_variable():
    loss, numbers = losses.gcl(), (torch.arange(9999, dtype=torch.float64).view(-1, 1) + 0.5) / 9999
    size = loss.draw(initial(loss, COUNTS), numbers.expand(-1, 5)).size
    third = torch.distributions.Normal(0.0, torch.tensor(1 / 3, dtype=torch.float64))
    assert close(size[:, 0], third.icdf((1 + numbers[:, 0]) / 2).clamp(max=1), 1e-10)  # 1 + u loses digits of small u
    assert size.max() == 1
    assert float((size[:, 0] == 1).double().mean()) == pytest.approx(1 - math.erf(3 / 2**0.5), abs=1e-4)


def test_the_clouds_of_gcl_grow_with_the_logarithm_of_rarity():
    terms = losses.gcl(noise=0.5, scale=30.0).init(ClassCounts(torch.tensor([100, 10, 1, 0])))
    assert terms.cloud.tolist() == pytest.approx([0, 7.5, 15, 15], rel=1e-12)  # no row counts as one


def test_gcl_of_equal_counts_has_no_clouds():
    logits, y = batch(20, 5)
    loss = losses.gcl(noise=2.0)
    assert loss.init(UNIFORM).cloud.tolist() == [0.0] * 5
    assert torch.equal(clouded(loss, logits, y, random_numbers(20, 5), UNIFORM), values(loss, logits, y, UNIFORM))


def test_noise_leaves_the_most_common_class_alone_and_lowers_every_other():
    logits, y = batch(20, 5)
    still = losses.gcl(noise=0.0, scale=4.0)
    moved = clouded(losses.gcl(scale=4.0), logits, y, random_numbers(20, 5)) - values(still, logits, y)
    assert (moved[y == 0] < 0).all()  # its rivals are lowered
    assert (moved[y == 4] > 0).any()
    assert not close(moved, torch.zeros_like(moved), 1e-2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.5])
def test_the_gradient_of_gcl_with_noise_is_that_of_autograd(gamma, dtype):
    logits, y = batch(3, 20, 5, dtype=dtype)
    loss = losses.gcl(margin=0.1, scale=4.0, gamma=gamma)
    state = loss.draw(initial(loss, COUNTS, dtype), random_numbers(20, 5))
    assert close(slopes(loss, logits, y, state), by_autograd(loss, logits, y, state), ROUNDING[dtype])


def test_noise_serves_one_batch():
    logits, y = batch(20, 5)
    loss = losses.gcl()
    before = initial(loss, COUNTS)
    state = loss.draw(before, random_numbers(20, 5))
    for step in (loss.apply, loss.grad):
        after = step(logits.clone(), y, state)[1]
        assert after.size is None
        assert all(a is b for a, b in zip(after[:3], before[:3], strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_heads_with_noise_side_by_side_have_the_bits_of_heads_alone(dtype):
    members, numbers = FAMILIES["gcl"], random_numbers(23, 5)
    logits, y = batch(3, 23, 5, dtype=dtype)
    states = [loss.init(COUNTS) for loss in members]
    stacked = members[0].draw(losses.stack_states(states, logits), numbers)
    found = members[0].grad(logits.clone(), y, stacked)[0]
    for head, loss in enumerate(members):
        alone = losses.stack_states([states[head]], logits)
        assert torch.equal(found[head], loss.grad(logits[head : head + 1].clone(), y, loss.draw(alone, numbers))[0][0])


def test_random_numbers_belong_to_a_place_of_an_epoch_of_a_seed():
    places = torch.arange(40)
    numbers = losses.draws(places, 5, 3, 2)
    assert numbers.shape == (40, 5)
    assert numbers.dtype == torch.float64
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1
    assert len(set(numbers.flatten().tolist())) == 200
    assert torch.equal(losses.draws(torch.tensor([31, 7]), 5, 3, 2), numbers[[31, 7]])
    for other in (losses.draws(places, 5, 4, 2), losses.draws(places, 5, 3, 1)):
        assert not (other == numbers).any()


# --- by name ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", losses.LOSSES)
def test_build_gives_every_named_loss_as_a_plain_function(name, dtype):
    logits, y = batch(2, 9, 5, dtype=dtype)
    function = losses.build(name, COUNTS.n)
    found = function(logits, y)
    assert found.shape == (2, 9)
    assert found.dtype == dtype
    assert torch.equal(found, values(losses.LOSSES[name](), logits, y))
    assert torch.equal(found, function(logits, y))
    leaf = logits[0].requires_grad_()
    function(leaf, y).mean().backward()
    assert torch.isfinite(leaf.grad).all()


@each_loss
def test_bind_takes_leading_head_dimensions(loss):
    logits, y = batch(2, 3, 9, 5)
    function = losses.bind(loss, COUNTS)
    expected = torch.stack([torch.stack([function(z, y) for z in row]) for row in logits])
    assert close(function(logits, y), expected, 1e-12)


def test_build_passes_parameters_on():
    logits, y = batch(9, 5)
    assert torch.equal(losses.build("los", COUNTS, delta=0.5)(logits, y), values(losses.los(delta=0.5), logits, y))


def test_bind_keeps_gala_at_its_first_batch():
    logits, y = batch(9, 5)
    function = losses.bind(losses.gala(), COUNTS)
    function(logits, y)
    assert close(function(logits, y), values(CE, logits, y), 1e-12)


def test_a_lifted_function_is_a_loss_with_an_autograd_gradient():
    lifted = losses.stateless(lambda z, y: (z**2).sum(dim=-1))
    logits, y = batch(3, 9, 5)
    slope, state = losses.gradient(lifted, logits, y, lifted.init(COUNTS))
    assert state == ()
    assert torch.equal(slope, 2 * logits)
    with torch.no_grad():
        assert torch.equal(losses.gradient(lifted, logits, y, ())[0], 2 * logits)


NAN = float("nan")
REFUSED = {
    "unknown name": (lambda: losses.build("lmao", COUNTS), ("'lmao'", "los", "cross_entropy")),
    "gala by name": (lambda: losses.build("gala", COUNTS), ("'gala'", "must be one of")),
    "gcl by name": (lambda: losses.build("gcl", COUNTS), ("'gcl'", "must be one of")),
    "gcl noise": (lambda: losses.gcl(noise=-0.1), ("noise", "-0.1", "GCL uses 0.5")),
    "gcl margin": (lambda: losses.gcl(margin=NAN), ("margin", "nan", "0 and 0.1")),
    "gcl scale": (lambda: losses.gcl(scale=0.0), ("scale", "positive", "0.0")),
    "gcl gamma": (lambda: losses.gcl(gamma=-1.0), ("gamma", "-1.0", "0 and 1")),
    "delta 1": (lambda: losses.los(delta=1.0), ("delta", "1.0", "[0, 1)", "0.98")),
    "delta below 0": (lambda: losses.los(delta=-0.1), ("delta", "-0.1", "[0, 1)")),
    "delta nan": (lambda: losses.los(delta=NAN), ("delta", "nan")),
    "delta by name": (lambda: losses.build("los", COUNTS, delta=98), ("delta", "98", "0.98")),
    "beta 1": (lambda: losses.class_balanced(beta=1.0), ("beta", "1.0", "0.9999")),
    "beta 1 of the weights": (lambda: losses.class_balanced_weights(COUNTS, 1.0), ("beta", "1.0", "0.9999")),
    "beta 1 of bce": (lambda: losses.class_balanced_bce(beta=1.5), ("beta", "1.5", "0.9999")),
    "gamma below 0": (lambda: losses.focal(gamma=-1.0), ("gamma", "-1.0", "0.5 to 5")),
    "gamma infinite": (lambda: losses.focal(gamma=float("inf")), ("gamma", "inf")),
    "scale 0": (lambda: losses.ldam(scale=0.0), ("scale", "positive", "0.0")),
    "scale nan": (lambda: losses.ldam(scale=NAN), ("scale", "positive", "nan")),
    "margin below 0": (lambda: losses.ldam(max_margin=-0.5), ("max_margin", "-0.5", "LDAM uses 0.5")),
    "smoothing 1": (lambda: losses.label_aware_smoothing(smooth_head=1.0), ("smooth_head", "1.0", "0 to 0.4")),
    "tail below 0": (lambda: losses.label_aware_smoothing(smooth_tail=-0.2), ("smooth_tail", "-0.2")),
    "shape": (lambda: losses.label_aware_smoothing(shape="round"), ("shape", "'round'", "concave, linear, convex")),
    "variant": (lambda: losses.label_aware_smoothing(variant="new"), ("variant", "'new'", "released, paper")),
    "gala variant": (lambda: losses.gala(variant="new"), ("variant", "'new'", "released, paper")),
    "gala accumulate": (lambda: losses.gala(accumulate="mean"), ("accumulate", "'mean'", "cumsum, sum")),
    "counts": (lambda: losses.build("balanced_softmax", torch.tensor([3])), ("at least 2 classes",)),
}


@pytest.mark.parametrize(("call", "fragments"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals_name_the_value_and_the_remedy(call, fragments):
    with pytest.raises(InputError) as refused:
        call()
    assert all(fragment in str(refused.value) for fragment in fragments)


def test_label_aware_smoothing_runs_from_tail_to_head():
    counts = ClassCounts(torch.tensor([100, 51, 1]))
    u = 50 / 99
    for shape, middle in (
        ("concave", math.sin(pi * u / 2)),
        ("linear", u),
        ("convex", 1 + math.sin(1.5 * pi + pi * u / 2)),
    ):
        loss = losses.label_aware_smoothing(smooth_head=0.4, smooth_tail=0.1, shape=shape)
        spread = loss.init(counts).spread * 3
        assert spread.tolist() == pytest.approx([0.4, 0.1 + 0.3 * middle, 0.1], rel=1e-12)


def test_ldam_margins_fall_as_the_fourth_root_of_the_counts():
    margin = losses.ldam(max_margin=0.5, scale=30.0).init(ClassCounts(torch.tensor([10000, 16, 1]))).margin
    assert margin.tolist() == pytest.approx([30 * 0.5 / 10, 30 * 0.5 / 2, 30 * 0.5], rel=1e-12)


def test_vector_scaling_divides_logits_by_a_power_of_the_imbalance():
    terms = losses.vs(tau=1.0, gamma=0.5).init(ClassCounts(torch.tensor([100, 25, 4])))
    assert terms.scale.tolist() == pytest.approx([1, 1 / 2, 1 / 5], rel=1e-12)
    assert terms.shift.tolist() == pytest.approx([log(100 / 129), log(25 / 129), log(4 / 129)], rel=1e-12)
