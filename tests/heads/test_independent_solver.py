"""Every trained method against a plain torch loop for one head, with the loss written down as its paper states it.

Of Poise the loop reads only the row orders, the fresh start, the stage-1 head and the features; learning rates, feature
scaling, class weights, projections and gradients (by autograd) are its own, and the steps are torch.optim.SGD's.
"""

import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import Parameter, functional

from poise.heads.solver import Retrain, fresh
from poise.losses import draws
from poise.methods import METHODS, build, gradient_trained
from poise.sampling import ClassAware, class_balanced_iid, instance
from poise.testing import world
from poise.values.problem import Problem

TRAINED = {name for name, entry in METHODS.items() if entry.factory.__module__ == gradient_trained.__name__}
SEED = 3
# Both sides round every step, by 6e-8 or 1e-16; seen at the end of these runs: 1.2e-6 and 6e-14.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}

Model = tuple[list[Parameter], Callable[[Tensor], Tensor]]  # what is trained, and (B, D) -> logits (B, C)


# --- losses, from the papers: logits (B, C), y (B,), the run (n: counts, gone: share of epochs) -> mean loss ----------


def cross_entropy(z: Tensor, y: Tensor, run: Any) -> Tensor:
    return functional.cross_entropy(z, y)


def los(z: Tensor, y: Tensor, run: Any, delta: float) -> Tensor:
    return functional.cross_entropy(z, y, label_smoothing=delta)


def vs(z: Tensor, y: Tensor, run: Any, tau: float, gamma: float) -> Tensor:
    divisor = (run.n.max() / run.n) ** gamma
    return functional.cross_entropy(z / divisor + tau * torch.log(run.n / run.n.sum()), y)


def balanced_softmax(z: Tensor, y: Tensor, run: Any, tau: float) -> Tensor:
    return functional.cross_entropy(z + tau * torch.log(run.n / run.n.sum()), y)


def effective_weights(n: Tensor, beta: float) -> Tensor:
    raw = (1 - beta) / (1 - beta ** n.double())
    return (len(n) * raw / raw.sum()).to(n)


def power_weights(n: Tensor, rho: float) -> Tensor:
    raw = (n / n.sum()) ** -rho
    return len(n) * raw / raw.sum()


def weighted(z: Tensor, y: Tensor, run: Any, weights: Callable[[Tensor], Tensor], gamma: float = 0.0) -> Tensor:
    """The average over rows of w_y times focal loss; gamma 0 is cross-entropy."""
    true = z.softmax(dim=1)[range(len(y)), y]
    return torch.mean(weights(run.n)[y] * (1 - true) ** gamma * -true.log())


def over_weights(z: Tensor, y: Tensor, run: Any, weights: Callable[[Tensor], Tensor]) -> Tensor:
    """The sum of w_y times cross-entropy over the sum of w_y: what torch calls weighted cross-entropy."""
    w = weights(run.n)[y]
    return torch.sum(w * functional.cross_entropy(z, y, reduction="none")) / torch.sum(w)


def sigmoid_focal(z: Tensor, y: Tensor, run: Any, weights: Callable[[Tensor], Tensor], gamma: float) -> Tensor:
    """The average over rows of w_y times the focal binary losses of all classes."""
    right = torch.where(functional.one_hot(y, len(run.n)) == 1, z.sigmoid(), 1 - z.sigmoid())
    return torch.mean(weights(run.n)[y] * ((1 - right) ** gamma * -right.log()).sum(dim=1))


def ldam(z: Tensor, y: Tensor, run: Any, max_margin: float, scale: float, drw: bool) -> Tensor:
    """The head gives s cos, so the cosine is recovered before its margin is taken off."""
    margin = run.n**-0.25 * max_margin / (run.n**-0.25).max()
    cosine = z / scale - functional.one_hot(y, len(run.n)) * margin
    weight = effective_weights(run.n, 0.9999) if drw and run.gone >= 0.8 else torch.ones_like(run.n)
    return over_weights(scale * cosine, y, run, lambda n: weight)


def label_aware_smoothing(z: Tensor, y: Tensor, run: Any, head: float, tail: float, shape: str, variant: str) -> Tensor:
    classes = len(run.n)
    targets = torch.zeros(classes, classes).to(z)  # one distribution per true class
    for k in range(classes):
        u = float((run.n[k] - run.n.min()) / (run.n.max() - run.n.min()))
        concave, convex = math.sin(math.pi * u / 2), 1 + math.sin(3 * math.pi / 2 + math.pi * u / 2)
        eps = tail + (head - tail) * {"concave": concave, "linear": u, "convex": convex}[shape]
        targets[k] = eps / classes if variant == "released" else eps / (classes - 1)
        targets[k, k] = 1 - eps + eps / classes if variant == "released" else 1 - eps
    return -(targets[y] * z.log_softmax(dim=1)).sum(dim=1).mean()


def binary_cross_entropy(z: Tensor, y: Tensor, run: Any, beta: float) -> Tensor:
    weight = effective_weights(run.n, beta)[y].unsqueeze(1).expand_as(z)
    return functional.binary_cross_entropy(z.softmax(dim=1), functional.one_hot(y, len(run.n)).to(z), weight=weight)


def gala(z: Tensor, y: Tensor, run: Any, pos: float, neg: float, variant: str, accumulate: str) -> Tensor:
    """Matrices of accumulated |gradient| by (classifier j, class of the row c); theta and phi are read off apart."""
    own = torch.eye(len(run.n)).to(z)
    once, twice = getattr(run, "gala", (torch.zeros_like(own), torch.zeros_like(own)))
    used = twice if accumulate == "cumsum" else once
    theta, phi = (used * own).sum(dim=1), (used * (1 - own)).sum(dim=0)
    push = pos * (theta + 1e-3).log() - neg * (phi[y].unsqueeze(1) + 1e-3).log()
    true = functional.one_hot(y, len(run.n)) == 1
    adjusted = z + (push if variant == "released" else push.masked_fill(true, 0.0))
    loss = functional.cross_entropy(adjusted, y)
    (slope,) = torch.autograd.grad(loss, adjusted, retain_graph=True)
    once = once + sum(torch.outer(row, hit) for row, hit in zip(slope.abs(), true.to(z), strict=True))
    run.gala = once, twice + once
    return loss


def gcl(z: Tensor, y: Tensor, run: Any, noise: float, margin: float, scale: float, gamma: float) -> Tensor:
    """The head gives s cos. A uniform number becomes |e| through the inverse of the normal distribution function."""
    classes = len(run.n)
    uniform = draws(run.places, classes, SEED, run.epoch).to(z)
    e = torch.distributions.Normal(0.0, torch.tensor(1 / 3, dtype=z.dtype)).icdf((1 + uniform) / 2)
    rarity = run.n.max().log() - run.n.log()
    cosine = z / scale - noise * e.abs().clamp(max=1) * rarity / rarity.max()
    cosine = cosine - margin * functional.one_hot(y, classes).to(z)
    true = (scale * cosine).softmax(dim=1)[range(len(y)), y]
    return torch.mean((1 - true) ** gamma * -true.log())


# --- parametrisations ------------------------------------------------------------------------------------------------


def linear(weight: Tensor, bias: Tensor, scale: float) -> Model:
    w, b = Parameter(weight), Parameter(bias)
    return [w, b], lambda x: functional.linear(x, w, b)


def class_scales(weight: Tensor, bias: Tensor, scale: float) -> Model:
    s = Parameter(torch.ones_like(bias))
    return [s], lambda x: s * functional.linear(x, weight, bias)


def class_scales_and_linear(weight: Tensor, bias: Tensor, scale: float) -> Model:
    s, w, b = Parameter(torch.ones_like(bias)), Parameter(weight), Parameter(bias)
    return [s, w, b], lambda x: s * functional.linear(x, w, b)


def class_affine(weight: Tensor, bias: Tensor, scale: float) -> Model:
    a, b = Parameter(torch.ones_like(bias)), Parameter(torch.zeros_like(bias))
    return [a, b], lambda x: a * functional.linear(x, weight, bias) + b * weight.square().sum(dim=1).sqrt()


def cosines(weight: Tensor, bias: Tensor, scale: float) -> Model:
    w = Parameter(functional.normalize(weight))  # its length has no meaning, but would divide the gradient
    return [w], lambda x: scale * functional.linear(functional.normalize(x), functional.normalize(w))


def scaled_cosines(weight: Tensor, bias: Tensor, scale: float) -> Model:
    w, s = Parameter(functional.normalize(weight)), Parameter(torch.tensor(scale).to(weight))
    return [w, s], lambda x: s * functional.linear(functional.normalize(x), functional.normalize(w))


# --- the loop --------------------------------------------------------------------------------------------------------


def rate(plan: Any, epoch: int, step: int, steps: int) -> float:
    if epoch < plan.warmup_epochs:
        return plan.lr * (epoch + 1) / plan.warmup_epochs
    passed, span = epoch - plan.warmup_epochs, plan.epochs - plan.warmup_epochs
    if plan.schedule == "constant":
        return plan.lr
    if plan.schedule == "multistep":
        return plan.lr * plan.milestone_factor ** sum(passed >= share * span for share in plan.milestones)
    passed += {"cosine": step / steps, "cosine_epoch_start": 1, "cosine_epoch_end": 0}[plan.schedule]
    return 0.5 * plan.lr * (1 + math.cos(math.pi * passed / span))


def shrink(weight: Tensor, factor: float, radius: float) -> None:
    """MaxNorm of rows whose norm on the features as they are is `factor` times what it is here."""
    for row in weight.data:
        if factor * float(row.norm()) > radius:
            row *= radius / (factor * float(row.norm()))


def prepare(problem: Problem, recipe: Retrain) -> tuple[Tensor, Tensor, Tensor, float]:
    """Features (V, N, D), first weight and bias on them, and what the features were multiplied by."""
    x, head = problem.train.x.double(), problem.head
    weight, bias, factor = head.weight.double(), head.bias.double(), 1.0
    if recipe.plan.scale_features:
        y = problem.train.y
        means = torch.stack([x[0][y == k].mean(dim=0) for k in y.unique()])
        centre = means.mean(dim=0) if recipe.part.unit_features else x[0].mean(dim=0)
        factor = 1 / math.sqrt(float((x[0] - centre).pow(2).sum() / len(x[0])))
        x = (x - centre) * factor
        weight, bias = weight / factor, bias + weight @ centre
    if recipe.start is fresh:
        drawn = fresh(torch.zeros(len(bias), x.shape[-1] + 1, dtype=torch.float64), SEED)
        weight, bias = drawn[:, :-1], drawn[:, -1]
    return x, weight.clone(), bias.clone(), factor


def batches(problem: Problem, recipe: Retrain, epoch: int) -> list[Tensor]:
    plan, train = recipe.plan, problem.train
    rows = list(recipe.sampler(train.y, train.counts, epoch, plan.epochs, SEED).split(plan.batch_size))
    return rows[:-1] if plan.drop_last and len(rows[-1]) < plan.batch_size else rows


def plain_loop(
    problem: Problem,
    recipe: Retrain,
    loss: Any,
    model: Any = linear,
    every: str = "never",
    factors: tuple[float, ...] = (),
) -> Tensor:
    """(N, C) logits of the training rows after training one head; `factors` of the rate, one per parameter."""
    plan, y, dtype = recipe.plan, problem.train.y, problem.train.x.dtype
    x, weight, bias, factor = prepare(problem, recipe)
    x = x.to(dtype)
    parameters, forward = model(weight.to(dtype), bias.to(dtype), recipe.scale)
    norms = problem.head.weight.norm(dim=1)
    radius = float(norms.min() + 0.1 * (norms.max() - norms.min()))
    options = {"momentum": plan.momentum, "nesterov": plan.nesterov, "weight_decay": plan.weight_decay}
    groups = [{"params": [p], "factor": f} for p, f in zip(parameters, factors or [1.0] * len(parameters), strict=True)]
    sgd = torch.optim.SGD(groups, lr=1.0, **options)
    run = SimpleNamespace(n=problem.train.counts.n.to(dtype))
    for epoch in range(plan.epochs):
        run.gone = epoch / plan.epochs
        view = x[0] if len(x) == 1 else x[1 + epoch % (len(x) - 1)]
        steps = batches(problem, recipe, epoch)
        for step, rows in enumerate(steps):
            for group in sgd.param_groups:
                group["lr"] = group["factor"] * rate(plan, epoch, step, len(steps))
            sgd.zero_grad()
            run.epoch, run.places = epoch, step * plan.batch_size + torch.arange(len(rows))
            loss(forward(view[rows]), y[rows], run).backward()
            sgd.step()
            if every == "step" or (every == "epoch" and step == len(steps) - 1):
                shrink(parameters[0], factor, radius)
    return forward(x[0]).detach()


# --- cases -----------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A method, its loss and parametrisation in the loop, how often MaxNorm is applied there, factors of the rate."""

    name: str
    recipe: Retrain
    loss: Callable[[Tensor, Tensor, Any], Tensor] = cross_entropy
    model: Callable[[Tensor, Tensor, float], Model] = linear
    every: str = "never"
    views: int = 1
    factors: tuple[float, ...] = ()


RAW = {"scale_features": False}
SHORT = {"epochs": 5, "batch_size": 16}  # 72 rows: 4 whole batches and one of 8 rows
EXACT = {"epochs": 4, "batch_size": 24}  # 3 whole batches
END, FIRST = {"schedule": "cosine_epoch_end"}, {"schedule": "cosine_epoch_start"}
STEPS = {"schedule": "multistep", "milestones": (0.5, 0.75), "milestone_factor": 0.2}


def smoothing_case(variant: str, shape: str, **options: Any) -> Case:
    recipe = gradient_trained.label_aware_smoothing(smooth_head=0.5, shape=shape, variant=variant, **SHORT, **options)
    loss = partial(label_aware_smoothing, head=0.5, tail=0.1, shape=shape, variant=variant)
    name = f"label_aware_smoothing_{variant}_{shape}"
    if options.get("classifier") == "frozen":
        return Case(f"{name}_frozen", recipe, loss, class_scales)
    factor = options.get("lr_factor", 0.2)
    return Case(name, recipe, loss, class_scales_and_linear, factors=(1.0, factor, factor))


def balancing_case(name: str, every: str, **options: Any) -> Case:
    recipe = gradient_trained.weight_balancing(loss=name, every=every, weight_decay=1e-3, **SHORT, **options)
    crossed = partial(weighted, weights=partial(effective_weights, beta=0.9999))
    loss = partial(binary_cross_entropy, beta=0.9999) if name == "bce" else crossed
    return Case(f"weight_balancing_{name}_{every}{'_raw' * ('scale_features' in options)}", recipe, loss, every=every)


def gala_case(variant: str, accumulate: str, **options: Any) -> Case:
    recipe = gradient_trained.gala(
        lambda_pos=1.2, lambda_neg=0.9, variant=variant, accumulate=accumulate, **SHORT, **options
    )
    loss = partial(gala, pos=1.2, neg=0.9, variant=variant, accumulate=accumulate)
    return Case(f"gala_{variant}_{accumulate}", recipe, loss)


def gcl_case(name: str, *, noise: float, margin: float, scale: float, gamma: float, **options: Any) -> Case:
    terms = {"noise": noise, "margin": margin, "scale": scale, "gamma": gamma}
    return Case(name, gradient_trained.gcl(**terms, **SHORT, **options), partial(gcl, **terms), cosines)


def all_cases() -> list[Case]:
    r, cb = gradient_trained, partial(effective_weights, beta=0.9999)
    margin = partial(ldam, max_margin=0.5, scale=30.0)
    learned = r.cosine(**EXACT, learn_scale=True, weight_decay=1e-2)
    cb_focal = r.class_balanced(**SHORT, **RAW, lr=0.05, gamma=1.0, sampler="square_root")
    vs_recipe = r.vs(**EXACT, **STEPS, warmup_epochs=1, sampler="class_balanced_iid")
    cb99 = partial(weighted, weights=partial(effective_weights, beta=0.99))
    marc_raw = r.marc(**SHORT, **RAW, drop_last=True, sampler="class_balanced", images_per_visit=2)
    rho_7, released = (partial(over_weights, weights=partial(power_weights, rho=rho)) for rho in (0.7, 1.2))
    sigmoid = r.focal(**SHORT, variant="sigmoid", gamma=1.5, lr=0.5)
    cb_sigmoid = r.class_balanced(**SHORT, **RAW, lr=0.05, gamma=2.0, variant="sigmoid")
    return [
        Case("ce", r.ce(**SHORT, lr=2.0)),
        Case("ce_three_views", r.ce(**SHORT, **END, lr=1.0, drop_last=True), views=3),
        Case("ce_two_views", r.ce(**SHORT, **RAW, lr=0.05, warmup_epochs=2), views=2),
        Case("crt", r.crt(**SHORT, lr=1.0, schedule="constant")),
        Case("crt_raw", r.crt(**SHORT, **RAW, **FIRST, lr=0.1, warmup_epochs=2)),
        Case("lws", r.lws(**SHORT, weight_decay=5e-4), model=class_scales),
        Case("lws_raw", r.lws(**SHORT, **RAW, **END, nesterov=True, lr=0.2), model=class_scales),
        Case("cosine", r.cosine(**SHORT, **RAW, weight_decay=1e-2), model=cosines),
        Case("cosine_learned", learned, model=scaled_cosines),
        Case(
            "balanced_softmax", r.balanced_softmax(**SHORT, tau=1.5, nesterov=True), partial(balanced_softmax, tau=1.5)
        ),
        Case("class_balanced", r.class_balanced(**SHORT, beta=0.99, lr=0.5), cb99),
        Case("class_balanced_focal", cb_focal, partial(weighted, weights=cb, gamma=1.0)),
        Case(
            "focal",
            r.focal(**SHORT, **FIRST, sampler="progressive"),
            partial(weighted, weights=torch.ones_like, gamma=2),
        ),
        Case("ldam", r.ldam(**SHORT, **RAW, drw=False, weight_decay=1e-2), partial(margin, drw=False), cosines),
        Case("ldam_drw", r.ldam(**SHORT, drw=True, schedule="constant"), partial(margin, drw=True), cosines),
        Case("vs", vs_recipe, partial(vs, tau=1.0, gamma=0.3)),
        Case("vs_raw", r.vs(**SHORT, **RAW, lr=0.05, tau=0.0, momentum=0.0), partial(vs, tau=0.0, gamma=0.3)),
        Case("marc", r.marc(**SHORT, rho=0.7), rho_7, class_affine),
        Case("marc_raw", marc_raw, released, class_affine),
        Case("focal_sigmoid", sigmoid, partial(sigmoid_focal, weights=torch.ones_like, gamma=1.5)),
        Case("class_balanced_focal_sigmoid", cb_sigmoid, partial(sigmoid_focal, weights=cb, gamma=2.0)),
        Case("los", r.los(**SHORT, lr=0.3), partial(los, delta=0.98)),
        Case("los_raw", r.los(epochs=8, batch_size=24, **RAW, **STEPS, delta=0.5, lr=0.02), partial(los, delta=0.5)),
        smoothing_case("released", "concave"),
        smoothing_case("released", "linear", **RAW, lr_factor=0.05, weight_decay=5e-2),
        smoothing_case("released", "convex", classifier="frozen"),
        smoothing_case("paper", "concave", **RAW, classifier="frozen"),
        smoothing_case("paper", "linear", classifier="frozen"),
        smoothing_case("paper", "convex", lr_factor=3.0),
        *(balancing_case("bce", every, lr=10.0) for every in ("step", "epoch", "never")),
        *(balancing_case("bce", every, lr=0.3, **RAW) for every in ("step", "epoch", "never")),
        *(balancing_case("ce", every, lr=3.0) for every in ("step", "epoch", "never")),
        gala_case("released", "cumsum", lr=1.0),
        gala_case("released", "sum", lr=0.05, **RAW),
        gala_case("paper", "cumsum", lr=0.05, **RAW),
        gala_case("paper", "sum", lr=1.0),
        gcl_case("gcl", noise=0.5, margin=0.1, scale=20.0, gamma=1.0),
        gcl_case("gcl_raw", noise=0.8, margin=0.0, scale=10.0, gamma=0.0, lr=0.1, sampler="instance", **RAW),
    ]


CASES = all_cases()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_trained_head_equals_a_plain_torch_loop(case, dtype):
    problem = world(views=case.views, dtype=dtype)
    x = problem.train.x[0]
    expected = plain_loop(problem, case.recipe, case.loss, case.model, case.every, case.factors)
    trained = case.recipe(problem, SEED)(x)
    assert trained.dtype == expected.dtype == dtype
    size = float(expected.abs().max())
    assert float((trained - expected).abs().max()) <= TOLERANCE[dtype] * size
    assert float((trained - problem.head(x)).abs().max()) > 0.05 * size  # it was trained at all


def test_the_cases_are_all_trained_methods_and_no_two_agree():
    problem = world(dtype=torch.float64)
    assert {name for name in TRAINED if any(case.name.startswith(name) for case in CASES)} == TRAINED
    logits = torch.stack([case.recipe(problem, SEED)(problem.train.x[0]) for case in CASES if case.views == 1])
    apart = torch.pdist(logits.flatten(1)) / logits.flatten(1).norm(dim=1).max()
    assert float(apart.min()) > 1e-4  # so that no case passes with the loss, part or projection of another


def test_methods_start_and_sample_as_their_papers_say():
    """What the loop takes from a recipe instead of choosing it."""
    recipes = {name: build(name) for name in TRAINED}
    assert {name for name, recipe in recipes.items() if recipe.start is fresh} == {"crt", "gala"}
    cycled = {name for name, recipe in recipes.items() if recipe.sampler == ClassAware(4)}
    assert cycled == {"crt", "lws", "label_aware_smoothing"}
    assert {name for name, recipe in recipes.items() if recipe.sampler is class_balanced_iid} == {"gcl"}
    assert all(recipe.sampler is instance for name, recipe in recipes.items() if name not in {*cycled, "gcl"})


@pytest.mark.parametrize("schedule", ["constant", "cosine", "cosine_epoch_start", "cosine_epoch_end", "multistep"])
@pytest.mark.parametrize("warmup_epochs", [0, 2])
def test_every_schedule_equals_a_plain_torch_loop(schedule, warmup_epochs):
    problem = world(dtype=torch.float64)
    options = {"warmup_epochs": warmup_epochs, "milestones": (0.5, 0.5), "start": "fresh", "lr": 1.0}
    recipe = gradient_trained.ce(epochs=6, batch_size=24, schedule=schedule, **options)
    expected = plain_loop(problem, recipe, cross_entropy)
    trained = recipe(problem, SEED)(problem.train.x[0])
    assert float((trained - expected).abs().max()) <= TOLERANCE[torch.float64] * float(expected.abs().max())


def test_converged_cross_entropy_equals_scikit_learn():
    """Weight decay w acts on weight and bias: the minimum of mean CE + w/2 (|W|^2 + |b|^2).

    scikit-learn minimises C sum CE + |W|^2 / 2 and leaves the intercept free. So it gets a column of ones instead of an
    intercept, and C = 1 / (w N).
    """
    decay = 0.01
    problem = world(dtype=torch.float64)
    x, y = problem.train.x[0], problem.train.y
    options = {"lr": 0.5, "epochs": 1500, "batch_size": len(y), "schedule": "constant", "nesterov": True}
    head = gradient_trained.ce(weight_decay=decay, **options, **RAW)(problem, SEED)
    with_ones = torch.cat([x, torch.ones(len(y), 1, dtype=torch.float64)], dim=1).numpy()
    reference = LogisticRegression(C=1 / (decay * len(y)), fit_intercept=False, solver="newton-cg", tol=1e-11)
    expected = torch.from_numpy(reference.fit(with_ones, y.numpy()).coef_)
    # The objective is w-strongly convex: a gradient below 1e-11 leaves an error below 1e-11 / w = 1e-9 on each side.
    torch.testing.assert_close(torch.cat([head.weight, head.bias.unsqueeze(1)], dim=1), expected, rtol=0, atol=1e-8)
