"""What a loss is: two pure functions, and what can be done with any of them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poise.errors import InputError
from poise.values.counts import ClassCounts, as_counts, as_labels
from poise.values.randomness import Stream, uniforms

Step = Callable[[Tensor, Tensor, Any], tuple[Tensor, Any]]


class Loss(NamedTuple):
    """A loss. `grad` has the signature of `apply` and returns d loss / d logits; without it autograd is used.

    `apply` leaves the logits as they are; `grad` may write over them, which saves the memory of a batch. Terms of a
    state may be None where they would do nothing; `filled` gives the same state with all terms, so that heads which
    leave out different ones are computed in one call.

    The loss of a batch is the mean of those of its rows, divided by the mean of their `mass` (..., B); without one, or
    where it is None, every row counts 1. A loss whose mass is its weight per class is averaged as torch's weighted
    cross-entropy is: the sum of w l over the sum of w.

    A loss with noise in training takes it from outside: before a batch, `draw` puts one random number per row and class
    (`draws`) into the state. They serve that batch alone: the next state of `apply` and `grad` has none.

    A loss that remembers rows is told by `weigh`, before a batch of weighted rows, what share of the batch each one is
    (B,), 1 / B if all weigh alike. That too serves one batch.
    """

    init: Callable[[ClassCounts], Any]
    apply: Step
    grad: Step | None = None
    epoch: Callable[[Any, int, int], Any] | None = None  # (state, epoch from 0, epochs) -> state of that epoch
    filled: Callable[[Any, ClassCounts], Any] | None = None
    mass: Callable[[Tensor, Any], Tensor | None] | None = None  # (y (B,), state) -> (..., B) or None
    draw: Callable[[Any, Tensor], Any] | None = None  # (state, numbers (B, C) in [0, 1]) -> state of that batch
    weigh: Callable[[Any, Tensor], Any] | None = None  # (state, shares (B,)) -> state of that batch


def mass_of(loss: Loss, y: Tensor, state: Any) -> Tensor | None:
    """(..., B) what each row counts in the average of a batch; None where that is 1 for all."""
    return None if loss.mass is None else loss.mass(y, state)


def draws(places: Tensor, classes: int, seed: int, epoch: int) -> Tensor:
    """(B, C) float64 in [0, 1): the numbers for `Loss.draw` of the rows at these places (B,) of the order of an epoch.

    They depend on nothing else: not on how an epoch is cut into batches, nor on the heads that are trained beside.
    """
    return uniforms(classes, places, seed, Stream.LOSS, epoch)


def gradient(loss: Loss, logits: Tensor, y: Tensor, state: Any) -> tuple[Tensor, Any]:
    """D loss_b / d logits_b (..., B, C) and the next state: in closed form if the loss has one, else by autograd.

    The gradient may be written over the logits.
    """
    if loss.grad is not None:
        return loss.grad(logits, y, state)
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        losses, after = loss.apply(leaf, y, state)
        if losses.shape != logits.shape[:-1]:
            raise InputError(
                f"a loss returns one number per example, here {tuple(logits.shape[:-1])}, got {tuple(losses.shape)}; "
                "leave averaging to the solver"
            )
        (slope,) = torch.autograd.grad(losses.sum(), leaf)
    return slope, after


def stack_states(states: Sequence[Any], like: Tensor, filled: Callable[[Any], Any] | None = None) -> Any:
    """States of one family as one, every term stacked along a new leading dimension, in the dtype of `like`.

    Terms that are None in some states only are taken from `filled`, which writes them out.

    Raises: InputError if there is none.
    """
    columns = list(zip(*states, strict=True))
    if filled is not None:
        whole = zip(*(filled(state) for state in states), strict=True)
        mixed = [len({term is None for term in terms}) > 1 for terms in columns]
        columns = [full if some else terms for terms, full, some in zip(columns, whole, mixed, strict=True)]
    if any(len({term is None for term in terms}) > 1 for terms in columns):
        raise InputError("states of one family have the same terms; a term is None in some of these only")
    return with_terms(states[0], [None if terms[0] is None else torch.stack(terms).to(like) for terms in columns])


def with_terms(state: Any, terms: Sequence[Tensor | None]) -> Any:
    """A state with these terms: a named tuple with its names, or a plain one, which a loss from outside may use."""
    return state._make(terms) if hasattr(state, "_make") else tuple(terms)


def stateless(function: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """Lift a plain function (logits (..., B, C), y (B,)) -> losses (..., B) into a Loss."""
    return Loss(partial(_no_state), partial(_apply_stateless, function))


def _no_state(counts: ClassCounts) -> tuple[()]:
    return ()


def _apply_stateless(function: Callable[[Tensor, Tensor], Tensor], logits: Tensor, y: Tensor, state: Any) -> Any:
    return function(logits, y), state


def bind(loss: Loss, counts: ClassCounts | Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss as a function (logits (..., B, C), y (B,)) -> losses (..., B) at its initial state, without noise."""
    known = as_counts(counts)
    state = loss.init(known)

    def losses(logits: Tensor, y: Tensor) -> Tensor:
        if logits.shape[-1] != len(known):
            raise InputError(f"logits have {logits.shape[-1]} columns for {len(known)} classes")
        cast = with_terms(state, [term if term is None else term.to(logits) for term in state])
        return loss.apply(logits, as_labels(y, len(known)), cast)[0]

    return losses


def rows_of(y: Tensor) -> tuple[Any, ...]:
    """Index that picks, in (..., B, C), the entry of the true class of every row."""
    return (..., torch.arange(len(y), device=y.device), y)


def true_of(y: Tensor, logits: Tensor) -> Tensor:
    """(..., B, 1) the same for gather and scatter, which are faster."""
    return y.unsqueeze(-1).expand(*logits.shape[:-1], 1)
