"""Adjustments of a given head that need no training: rescaled rows, shifted biases, temperature, un-learning."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from poise.errors import InputError
from poise.heads.memorised_rows import refuse_memorised
from poise.heads.solver import with_stage1
from poise.methods.closed_form import train_means
from poise.metrics import logit_chunks, logit_unit
from poise.values.checks import check_number, check_one_of
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Method, Problem


def _stage1_head(problem: Problem, seed: int) -> Head:
    head = with_stage1(problem, seed).head
    assert head is not None
    return head


def stage1() -> Method:
    """The stage-1 head as it is: the baseline of every table.

    Formula: z_k = w_k f + b_k.

    Without one, cross-entropy is fitted from fresh on the training features.

    When to use it: as the baseline, and whenever nothing beats it on unseen rows.
    """
    return partial(_stage1)


def _stage1(problem: Problem, seed: int = 0) -> Head:
    return _stage1_head(problem, seed)


def tau_norm(*, tau: float = 1.0, bias: Literal["drop", "keep"] = "drop") -> Method:
    """tau-normalised head: w_k / |w_k|^tau (Kang et al., ICLR 2020).

    Formula: z_k = (w_k / |w_k|^tau) f, plus b_k for `bias="keep"`.

    tau = 0 leaves the weight as it is, tau = 1 gives unit rows. A zero row stays zero.

    Without its bias the head depends on the origin of the features: it belongs to those of a network, after a ReLU.
    With `bias="keep"` it depends on their unit too, since a bias does not shrink with the rows; `LongTailClassifier`
    therefore keeps the bias on features of mean squared distance 1 from their mean.

    When to use it: where the norms of the stage-1 rows grow with the class size, as after plain training of a network.
    Without a trained head there are no such norms, and `logit_adjustment` is the tuned scalar to take.

    Paper and code: the authors drop the bias; weight balancing and BagofTricks keep it. The paper searches (0, 1), the
    released script 0 to 2.

    Raises: InputError for an unknown `bias`.
    """
    check_number("tau", tau)
    check_one_of("bias", bias, ("drop", "keep"))
    return partial(_tau_norm, tau=tau, bias=bias)


def _tau_norm(problem: Problem, seed: int = 0, *, tau: float, bias: str) -> Head:
    head = _stage1_head(problem, seed)
    norms = head.weight.norm(dim=-1, keepdim=True)
    factor = torch.where(norms > 0, norms, 1.0).pow(-tau)
    kept = head.bias if bias == "keep" else torch.zeros_like(head.bias)
    return replace(head, weight=head.weight * factor, bias=kept)


def l2_norm() -> Method:
    """Unit weight rows, bias kept: the post-hoc L2 normalisation of weight balancing (Alshammari et al., CVPR 2022).

    Formula: z_k = (w_k / |w_k|) f + b_k.

    Depends on unit and origin of the features, as `tau_norm` does where it keeps the bias.

    When to use it: if not even one number can be selected; `tau_norm` with a selected tau is its tunable form.
    """
    return tau_norm(tau=1.0, bias="keep")


def logit_adjustment(*, tau: float = 1.0) -> Method:
    """Post-hoc logit adjustment: z_k - tau log prior_k (Menon et al., ICLR 2021), folded into the bias.

    Formula: z_k - tau log prior_k.

    The prior is that of the training counts. tau = 1 turns a head calibrated for the training prior into one for a
    uniform prior; the sign is minus, and rare classes gain as tau grows.

    When to use it: first. It needs logits and counts only, costs nothing, and one tuned tau is what any trained method
    must beat. At tau = 1 no unseen rows are needed; on features of a network that has memorised its rows another tau is
    usually better, and choosing it takes unseen rows.
    """
    check_number("tau", tau)
    return partial(_logit_adjustment, tau=tau)


def _logit_adjustment(problem: Problem, seed: int = 0, *, tau: float) -> Head:
    return _stage1_head(problem, seed).shifted(-tau * problem.train.counts.prior.log())


def unlearn(*, t: float = 1.0) -> Method:
    """Closed-form un-learning of class frequency: w_k - t prior_k mu_k and b_k - t prior_k.

    Formula: z_k - t prior_k (mu_k . f + 1),
    mu_k the mean of the training features of class k (test-time transform).

    Ours: the first steps of label over-smoothing on memorised rows, where softmax is nearly one-hot, are exactly of
    this form. Tune t: its scale is that of a learning rate, and its best value depends on the norm of the features,
    their unit and origin included; `LongTailClassifier` takes that unit away, as for `l2_norm`.

    When to use it: in place of `los` on memorised features, to see whether training does more than this one number.

    Raises: InputError for a head on normalised features.
    """
    check_number("t", t)
    return partial(_unlearn, t=t)


def _unlearn(problem: Problem, seed: int = 0, *, t: float) -> Head:
    head = _stage1_head(problem, seed).folded()
    prior = problem.train.counts.prior.to(problem.train.x.device)
    pull = prior.unsqueeze(-1) * train_means(problem.train)
    return Head(head.weight - (t * pull).to(head.weight), head.bias - (t * prior).to(head.bias))


def rebalance(*, power: float = 1.0) -> Method:
    """Inductive prediction re-balancing: z_k - power log m_k, m_k the mean softmax of class k over held-out rows.

    Formula: z_k - power log m_k with m_k = mean over held-out rows of softmax(z)_k.

    The sound form of GALA's re-balancing (ICASSP 2024), akin to Prior2Posterior (WACV 2025): m is estimated once, on
    rows that neither trained the representation nor are evaluated, and folded into the bias. power = 0 changes nothing.

    When to use it: where training counts do not say what a head favours (`gala`, `los`, `tau_norm`, other people's
    models) and unseen rows are at hand, which need no labels for m.

    Paper and code: the original divides by the mean over the evaluated rows themselves, so an answer depends on the
    other rows of the table, and one row alone cannot be answered. That form is `methods.prediction_rebalancing`, marked
    as transductive.

    Raises: InputError without held-out rows; MemorisedRowsError if they trained the representation, where m is merely
    the training prior and `logit_adjustment` says the same without pretence.
    """
    check_number("power", power)
    return partial(_rebalance, power=power)


def _rebalance(problem: Problem, seed: int = 0, *, power: float) -> Head:
    head = _stage1_head(problem, seed)
    rows = _held_out(problem, head, "rebalance (use logit_adjustment for the training prior)")
    return head.shifted(-power * log_mean_softmax(head, rows))


def log_mean_softmax(head: Head, features: Features) -> Tensor:
    """(C,) float64 logarithm of the (weighted) mean softmax over the rows: the head's effective prior there."""
    weight = torch.ones_like(features.y) if features.weight is None else features.weight
    sums, first = [], 0
    for z, y in logit_chunks(head, features):
        shares = weight[first : first + len(y)].double().log().unsqueeze(-1)
        sums.append((z.double().log_softmax(dim=-1) + shares).logsumexp(dim=0))
        first += len(y)
    return torch.stack(sums).logsumexp(dim=0) - math.log(float(weight.sum()))


def temperature() -> Method:
    """Temperature scaling: all logits divided by the T that minimises the NLL of held-out rows.

    Formula: z_k / T with T = argmin mean(-log softmax(z / T)_y) over held-out rows.

    Changes no prediction. T is searched from 0.01 to 100 times the spread of the logits, the standard deviation within
    a row, so that it finds the same probabilities for logits, and features, of any unit.

    When to use it: after any other method, if its probabilities are read (`crt+temperature`). It repairs confidence
    that is too high or too low everywhere, not a wrong class prior.

    Raises: InputError without held-out rows; MemorisedRowsError if they trained the representation (measured once: T =
    0.44 from training rows where 2.31 is right).
    """
    return partial(_temperature)


def _temperature(problem: Problem, seed: int = 0) -> Head:
    from scipy.optimize import minimize_scalar

    head = _stage1_head(problem, seed)
    rows = _held_out(problem, head, "temperature")
    logits = head(rows.x[0]).double()
    unit = logit_unit(logits, rows.weight)
    logits = logits / unit

    def nll(log_t: float) -> float:
        scaled = logits * math.exp(-log_t)
        if rows.weight is None:
            return float(torch.nn.functional.cross_entropy(scaled, rows.y))
        each = torch.nn.functional.cross_entropy(scaled, rows.y, reduction="none")
        return float(rows.weight @ each / rows.weight.sum())

    bound = math.log(100.0)
    found = minimize_scalar(nll, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-6})
    return head.scaled(math.exp(-found.x) / unit)


def _held_out(problem: Problem, head: Head, purpose: str) -> Features:
    if problem.held_out is None:
        said = f"{purpose} needs rows that the backbone never saw: give Problem(held_out=...)"
        raise InputError(said, "Problem(held_out=...)")
    refuse_memorised(problem.held_out, head, trained_on=problem.train, purpose=purpose)
    return problem.held_out


def prediction_rebalancing(*, power: float = 1.0) -> Callable[[Tensor], Tensor]:
    """GALA's prediction re-balancing as released (ICASSP 2024): a function of all evaluated logits (N, C).

    Subtracts power log m_k, with m_k the mean softmax over the rows themselves: transductive, and it assumes a uniform
    test prior. For `evaluate(..., adjust=...)`; every report marks such a row. `rebalance` is the inductive form. The
    released code applies softmax once more before its argmax, which changes no prediction and is left out here.

    Raises: InputError for a single row, where dividing by its own mass erases the prediction.
    """

    def adjust(logits: Tensor) -> Tensor:
        if len(logits) < 2:
            raise InputError("prediction re-balancing needs many rows at once; for single rows use rebalance")
        mass = logits.double().log_softmax(dim=-1).logsumexp(dim=0)
        return logits.double() - power * (mass - mass.logsumexp(dim=0))

    return adjust
