"""What one call of the estimator's fit does: a head, its Spec, and the prior for which its softmax is meant."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poise.deployment.automatic import FINAL_TOLERANCE, Choice, Part, averaged, candidate_heads, choose
from poise.deployment.calibration import (
    Evidence,
    Fit,
    Trial,
    at_chance,
    calibrate,
    class_shares,
    copies,
    cross_fit,
    evidence,
    final,
    folds_of,
    judged,
    weights_to,
)
from poise.deployment.origin import looks_memorised
from poise.deployment.promise import SPREAD, Promise, over, promise_of, scope
from poise.errors import InputError, MemorisedRowsError, PoiseWarning
from poise.heads.converged import converged
from poise.methods import from_spec, implied_prior, traits_of, unit_matters
from poise.methods.units import UnitFree
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Method, Problem
from poise.values.spec import Spec

AUTO = Spec("auto")
FEW_NUMBERS = 10**5  # rows times features times classes
FALLBACK = Spec("converged")  # where no row can be set aside to choose on


class Fitted(NamedTuple):
    """A head, its Spec, the prior (C,) for which the softmax of logits / temperature is meant, None if not known.

    `promise` is the recall to expect of unseen rows, None where none can be given; `seen` are the logits of those that
    chose and calibrated, None without such rows; `parts` are the heads of an average.
    """

    head: Head
    spec: Spec
    implied: Tensor | None
    temperature: float
    promise: Promise | None = None
    seen: Evidence | None = None
    parts: tuple[Part, ...] = ()


class Fitting:
    """One call of fit: the rows, and what may be chosen and calibrated on."""

    def __init__(
        self, train: Features, units: NDArray[np.int64], unseen: Features | None, seen: bool | None, seed: int
    ) -> None:
        self.train, self.units, self.unseen, self.seen, self.seed = train, units, unseen, seen, seed

    def auto(self, target: Tensor) -> Fitted:
        """The chosen head, its Spec, the prior it is meant for, and its temperature."""
        if self.seen and self.unseen is None:
            raise MemorisedRowsError(
                "rows that trained the representation cannot choose a method: give rows that the backbone never saw, "
                "fit(..., held_out=(X, y)), or name a method",
                "fit(..., held_out=(X, y))",
            )
        final_heads = partial(candidate_heads, tolerance=FINAL_TOLERANCE)
        search = candidate_heads if self.unseen is None else final_heads
        deals = [self.trials(search, seed) for seed in range(self.deals)]
        trials = [trial for deal in deals for trial in deal]
        if not trials:
            _warn(f"too few rows to set any aside: the method is {FALLBACK}, its probabilities are not calibrated")
            return Fitted(self.head_of(FALLBACK), FALLBACK, class_shares(self.train), 1.0)
        share = class_shares(self.train)
        choice = choose(trials, share, target)
        heads = final_heads(self.train) if self.unseen is None else trials[0].heads
        temperature, _ = calibrate(choice.seen, share, target)
        head = averaged(heads, choice, share, target)
        fitted = Fitted(head, AUTO, target, temperature, None, choice.seen, choice.parts)
        right = choice.right
        if self.unseen is None:
            # In folds, heads that know a class of few rows by even fewer are averaged by what the others say: that is
            # worse than the average that was made, so half of what it owes to its rows is taken off.
            right = (right + _right(fitted, choice.seen, target)) / 2
        again = partial(_averaged_anew, choice=choice, share=share, target=target)
        promise = self.promise(trials, right, fitted, target, again)
        once = sum(len(trial.test) for trial in deals[0])  # the other deals hold the same rows once more
        return fitted._replace(promise=promise, seen=Evidence(*(part[:once] for part in choice.seen)))

    @property
    def deals(self) -> int:
        """Of how many deals of folds the mean is taken: a second one is worth its time where fits take little."""
        few = len(self.train) * self.train.dim * len(self.train.counts) < FEW_NUMBERS
        return 2 if few and self.unseen is None else 1

    def named(self, spec: Spec, target: Tensor) -> Fitted:
        """The same for a method that was named."""
        head = self.head_of(spec)
        share = class_shares(self.train)
        word = implied_prior(spec)
        implied = share if word == "train" else torch.full_like(share, 1 / len(share)) if word else None
        trials = [] if self.seen and self.unseen is None else self.trials(lambda rows: [self.head_of(spec, rows)])
        seen = evidence(trials)
        if seen is not None:
            temperature, implied = calibrate(seen, share, implied)
            fitted = Fitted(head, spec, implied, temperature, None, seen)
            spread = SPREAD if self.unseen is None else 1.0
            again = partial(self.head_of, spec)
            promise = self.promise(trials, _right(fitted, seen, target), fitted, target, again, spread)
            return fitted._replace(promise=promise)
        lost = "are not calibrated" if word else "are the plain softmax, to which no prior was applied"
        _warn(
            f"no rows that neither backbone nor head saw: probabilities {lost}; fit(..., held_out=(X, y)) mends this",
            "fit(..., held_out=(X, y))",
        )
        return Fitted(head, spec, implied, 1.0)

    def trials(self, fit: Fit, seed: int = 0) -> list[Trial]:
        """Heads beside rows that they did not see: the held-out ones, or else each fold."""
        if self.unseen is not None:
            return [Trial(fit(self.train), self.unseen, copies(self.unseen.x[0]))]
        return cross_fit(self.train, self.units, fit, seed=seed)

    def head_of(self, spec: Spec, train: Features | None = None) -> Head:
        """The head of a Spec; where it starts from a stage-1 head, that is cross-entropy fitted to convergence."""
        rows = self.train if train is None else train
        method = _method(spec)
        first = spec.steps[0]
        if first.name == "converged":
            return method(Problem(rows, None, self.unseen), self.seed)
        traits = traits_of(first)[0]
        if traits.needs_held_out and self.unseen is None:
            said = f"{first.name} needs rows that the backbone never saw: fit(..., held_out=(X, y))"
            raise InputError(said, "fit(..., held_out=(X, y))")
        head = converged()(Problem(rows)) if traits.needs_head or len(spec.steps) > 1 else None
        return method(Problem(rows, head, self.unseen), self.seed)

    def promise(
        self,
        trials: list[Trial],
        right: Tensor,
        fitted: Fitted,
        target: Tensor,
        again: Callable[[Features], Head],
        spread: float = SPREAD,
    ) -> Promise | None:
        """What a head promises that gets `right` (N,) of the unseen rows; a warning says why there is no promise.

        `again` fits such a head to other rows.
        """
        rows, names = judged(trials), self.train.names
        rise = 0.0 if self.unseen is not None else self.rise(fitted, target, again)
        found = promise_of(right, rows, target, names, rise=rise, spread=spread)
        if found is None:
            _warn(f"no recall is promised: it would hold {over(*scope(rows, names))}")
            return None
        _warn_at_chance(fitted, target)
        said = looks_memorised(right, rows, len(names)) if self.unseen is None and self.seen is None else None
        if said is None:
            return found
        warnings.warn(said, stacklevel=4)
        return None

    def rise(self, fitted: Fitted, target: Tensor, again: Callable[[Features], Head]) -> float:
        """By how much recall rises from the heads of all folds but one to the final head, which has all rows.

        Heads of half the rows say how steep the way is; errors fall about as one over the number of rows, so that of
        K folds 1 / (K - 2) of the rise from a half to all but one is still to come.
        """
        folds = min(folds_of(self.train), int(self.units.max()) + 1)
        seen = fitted.seen
        if folds < 3 or seen is None:
            return 0.0
        try:
            with warnings.catch_warnings(action="ignore", category=PoiseWarning):  # what there is to say was said
                halves = evidence(cross_fit(self.train, self.units, lambda rows: [again(rows)], 2))
        except InputError:  # half of the rows do not do for it
            return 0.0
        if halves is None:
            return 0.0
        both = torch.bincount(halves.y, minlength=len(target)) > 0
        share = torch.where(both, target, 0.0)
        here = [float(_right(fitted, part, target) @ weights_to(part.y, part.weight, share)) for part in (seen, halves)]
        return (here[0] - here[1]) / (folds - 2)


def _right(fitted: Fitted, seen: Evidence, target: Tensor) -> Tensor:
    """(N,) is a row predicted right, once the head is calibrated and shifted to the target prior (C,)?"""
    assert fitted.implied is not None  # rows that calibrate say what it is
    logits = final(seen, fitted.temperature, fitted.implied, target).logits
    return (logits.argmax(dim=-1) == seen.y).double()


def _averaged_anew(rows: Features, choice: Choice, share: Tensor, target: Tensor) -> Head:
    return averaged(candidate_heads(rows), choice, share, target)


def _warn(message: str, *arguments: str) -> None:
    warnings.warn(PoiseWarning(message, *arguments), stacklevel=4)


def _warn_at_chance(fitted: Fitted, target: Tensor) -> None:
    assert fitted.seen is not None  # something is promised, so there are such rows
    assert fitted.implied is not None
    ending = final(fitted.seen, fitted.temperature, fitted.implied, target)
    if (said := at_chance(ending, fitted.spec, target)) is not None:
        warnings.warn(said, stacklevel=5)


def _method(spec: Spec) -> Method:
    """The method of a Spec, free of the unit of the features."""
    made = from_spec(spec)
    return UnitFree(made) if unit_matters(spec) else made
