"""What a classifier does, measured from its logits.

Sums over rows are kept apart from the numbers made of them, so that rows can come in chunks and N x C logits need not
exist at once: `tally` and `moments` of chunks add up; `scores`, `magnitude` and `spread` read the sums. All sums are
float64, and none is C x C, except what is asked for by that name (`confusion`, `by_source`). Inputs are logits, always;
no function guesses from the values whether they are probabilities.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from poise.errors import InputError
from poise.results.scores import Scores
from poise.values.arrays import row_slices
from poise.values.counts import ClassCounts, as_counts, as_labels
from poise.values.features import Features
from poise.values.head import Head

__all__ = [
    "Balance",
    "Moments",
    "Tally",
    "coefficient_of_variation",
    "confusion",
    "evaluate",
    "evaluate_head",
    "gradient_balance",
    "logit_chunks",
    "logit_unit",
    "logits_magnitude",
    "logits_of_all",
    "magnitude",
    "moments",
    "regularized_std",
    "scores",
    "spread",
    "tally",
    "tally_and_moments",
    "total",
    "weight_norms",
]

BINS = 15
MOST_LOGITS = 2**20  # of a chunk of rows, where no other length is asked for: 8 MB in float64, whatever C is
Reading = Literal["unit", "sample"]
Population = Literal["true", "rest"]
Adjust = Callable[[Tensor], Tensor]


class Tally(NamedTuple):
    """Sums over rows: `rows`, `hits`, `guesses` (C,), `nll` (), and `size`, `right`, `sure` per confidence bin."""

    rows: Tensor
    hits: Tensor
    guesses: Tensor
    nll: Tensor
    size: Tensor
    right: Tensor
    sure: Tensor


def tally(logits: Tensor, y: Tensor) -> Tally:
    """The sums for logits (N, C) and labels y (N,)."""
    return _tally(logits.to(torch.float64, copy=True), y)[0]


def tally_and_moments(logits: Tensor, y: Tensor) -> "tuple[Tally, Moments, Tensor]":
    """Both sums for logits (N, C) and labels y (N,), and rows right (N,) bool, from one float64 copy."""
    z = logits.to(torch.float64, copy=True)
    counted, right = _tally(z, y)
    return counted, _moments(z, y), right


def _tally(z: Tensor, y: Tensor) -> tuple[Tally, Tensor]:
    """The sums, and rows right (N,) bool; subtracts the largest of each row of z (N, C) from it."""
    classes = z.shape[-1]
    top, guess = z.max(dim=-1, keepdim=True)
    guess = guess.squeeze(-1)
    own = z.sub_(top)[torch.arange(len(y), device=y.device), y]
    log_sum = z.exp().sum(dim=-1).log()
    right = guess == y
    sure = (-log_sum).exp()
    # Bins are open on the left and closed on the right, so that a confidence of exactly 1 has a bin.
    bins = (sure * BINS).ceil().long().clamp(1, BINS) - 1
    per_bin = torch.zeros(3, BINS, dtype=torch.float64, device=z.device)
    per_bin = per_bin.index_add(1, bins, torch.stack([torch.ones_like(sure), right.double(), sure]))
    counted = Tally(
        rows=torch.bincount(y, minlength=classes).double(),
        hits=torch.bincount(y, weights=right.double(), minlength=classes),
        guesses=torch.bincount(guess, minlength=classes).double(),
        nll=(log_sum - own).sum(),
        size=per_bin[0],
        right=per_bin[1],
        sure=per_bin[2],
    )
    return counted, right


def scores(sums: Tally, counts: ClassCounts | Tensor, *, many: int = 100, few: int = 20) -> Scores:
    """The measures made of the sums. `counts` are those of the training split; edges as in `ClassCounts.shots`."""
    rows = sums.rows.sum()
    present = sums.rows > 0
    recall = torch.where(present, sums.hits / sums.rows.clamp_min(1), torch.nan)
    seen = present | (sums.guesses > 0)
    f1 = 2 * sums.hits / (sums.rows + sums.guesses).clamp_min(1)
    groups = {
        name: _mean(recall[mask.to(recall.device) & present])
        for name, mask in as_counts(counts).shots(many, few).items()
    }
    return Scores(
        accuracy=float(sums.hits.sum() / rows),
        balanced_accuracy=float(recall[present].mean()),
        macro_f1=float(f1[seen].mean()),
        nll=float(sums.nll / rows),
        ece=float((sums.right - sums.sure).abs().sum() / rows),
        per_class=tuple(None if r != r else r for r in recall.tolist()),
        rows=int(rows),
        **groups,
    )


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def evaluate(
    logits: Tensor,
    y: Tensor,
    counts: ClassCounts | Tensor,
    *,
    adjust: Adjust | None = None,
    many: int = 100,
    few: int = 20,
) -> Scores:
    """Scores of logits (N, C) for labels y (N,). `counts` (C,) are those of the training split.

    `adjust` maps the logits of the whole evaluated split to others (a transductive step such as
    `methods.prediction_rebalancing`); whoever passes one owes the reader a remark.

    Raises: InputError if the shapes disagree or logits are not finite.
    """
    counts = as_counts(counts)
    y = as_labels(y, len(counts))
    if len(y) == 0:
        raise InputError("there is no row to evaluate")
    if logits.ndim != 2 or logits.shape != (len(y), len(counts)):
        raise InputError(
            f"logits must be (N, C) = ({len(y)}, {len(counts)}) to fit the labels and counts, got {tuple(logits.shape)}"
        )
    logits = logits if adjust is None else adjust(logits)
    if not torch.isfinite(logits).all():
        raise InputError(f"row {int((~torch.isfinite(logits)).any(-1).nonzero()[0])} of the logits is not finite")
    parts = row_slices(0, len(y), MOST_LOGITS // len(counts))
    return scores(total(tally(logits[part], y[part]) for part in parts), counts, many=many, few=few)


def evaluate_head(
    head: Head, features: Features, *, chunk: int | None = None, many: int = 100, few: int = 20
) -> Scores:
    """Scores of one head on the test-time view of `features`, `chunk` rows at a time (by default `MOST_LOGITS` / C).

    Raises: InputError for a stack of heads, such as a path: index it first.
    """
    if head.weight.ndim > 2:
        raise InputError(f"this is a stack of {len(head)} heads; evaluate one of them, for example path[-1]")
    return scores(
        total(tally(z, y) for z, y in logit_chunks(head, features, chunk)), features.counts, many=many, few=few
    )


def logit_chunks(head: Head, features: Features, chunk: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """(logits (..., n, C), y (n,)) of consecutive rows of the test-time view; n is `chunk`, or keeps them small."""
    view = features.x[0]
    for part in row_slices(0, len(features), chunk or MOST_LOGITS // head.bias.numel()):
        yield head(view[part]), features.y[part]


def logits_of_all(
    heads: Sequence[Head], features: Features, among: slice | None = None
) -> Iterator[tuple[int, slice, Tensor, Tensor]]:
    """(number of the head, rows, logits (n, C), y (n,)) of chunks of the test-time view: every row is read once.

    `among` consecutive rows only, if it is given.

    Heads that share a weight tensor and a `prep`, such as all strengths of logit adjustment, share a matrix product.
    """
    size = MOST_LOGITS // max((len(head.bias) for head in heads), default=1)
    view = features.x[0]
    alike: dict[tuple[int, int], list[int]] = {}
    for i, head in enumerate(heads):
        alike.setdefault((id(head.weight), id(head.prep)), []).append(i)
    among = slice(0, len(features)) if among is None else among
    for rows in row_slices(among.start, among.stop, size):
        x, y = view[rows], features.y[rows]
        for members in alike.values():
            first = heads[members[0]]
            if len(members) == 1:
                yield members[0], rows, first(x), y
                continue
            product = replace(first, bias=torch.zeros_like(first.bias))(x)
            for i in members:
                yield i, rows, product + heads[i].bias, y


def logit_unit(logits: Tensor, weight: Tensor | None = None) -> float:
    """How far logits (N, C) spread within rows: the root of the mean variance over classes; 1 if they do not at all.

    The mean over rows is weighted by `weight` (N,). Logits times c have c times this unit.
    """
    each = logits.double().var(dim=-1, correction=0)
    mean = float(each.mean() if weight is None else weight.to(each) @ each / weight.sum())
    return mean**0.5 if mean > 0 else 1.0


def confusion(logits: Tensor, y: Tensor) -> Tensor:
    """(C, C) int64: entry [i, j] counts rows of class i predicted as j."""
    classes = logits.shape[-1]
    return torch.bincount(y * classes + logits.argmax(dim=-1), minlength=classes**2).view(classes, classes)


# --- Logits Magnitude and Regularized Std -----------------------------------------------------------------------------


class Moments(NamedTuple):
    """Number, sum and sum of squares (C,) of row-centred logits, for three populations of every class k.

    `true`: unit k over the rows of class k. `other`: unit k over the rows of other classes. `rest`: the other units
    over the rows of class k.
    """

    true_n: Tensor
    true_sum: Tensor
    true_square: Tensor
    other_n: Tensor
    other_sum: Tensor
    other_square: Tensor
    rest_n: Tensor
    rest_sum: Tensor
    rest_square: Tensor


def moments(logits: Tensor, y: Tensor) -> Moments:
    """The sums for logits (N, C) and labels y (N,)."""
    return _moments(logits.to(torch.float64, copy=True), y)


def _moments(z: Tensor, y: Tensor) -> Moments:
    """The sums; z (N, C) is overwritten. What was added to a whole row does not matter."""
    rows, classes = z.shape
    z -= z.mean(dim=-1, keepdim=True)
    own = z[torch.arange(rows, device=y.device), y]
    unit_sum = z.sum(dim=0)
    z.square_()
    n = torch.bincount(y, minlength=classes).double()
    true_sum, true_square, row_square = (
        torch.bincount(y, weights=w, minlength=classes) for w in (own, own.square(), z.sum(dim=-1))
    )
    return Moments(
        true_n=n,
        true_sum=true_sum,
        true_square=true_square,
        other_n=rows - n,
        other_sum=unit_sum - true_sum,
        other_square=z.sum(dim=0) - true_square,
        rest_n=n * (classes - 1),
        rest_sum=-true_sum,  # the logits of a centred row sum to 0
        rest_square=row_square - true_square,
    )


Sums = TypeVar("Sums", Tally, Moments)


def total(parts: Iterable[Sums]) -> Sums:
    """The sums over all chunks. Raises: InputError if there is none."""
    found: Sums | None = None
    for part in parts:  # added one by one: chunks are many where classes are
        found = part if found is None else type(part)(*(a + b for a, b in zip(found, part, strict=True)))
    if found is None:
        raise InputError("there is no row to measure")
    return found


def magnitude(sums: Moments, reading: Reading = "unit") -> Tensor:
    """(C,) Logits Magnitude; NaN for a class without rows. See `logits_magnitude`."""
    against = sums.other_sum / sums.other_n if _unit(reading) else sums.rest_sum / sums.rest_n
    return sums.true_sum / sums.true_n - against


def spread(sums: Moments, reading: Reading = "unit", population: Population = "true") -> Tensor:
    """(C,) Regularized Std; NaN for a class without rows. See `regularized_std`."""
    if population not in ("true", "rest"):
        raise InputError(f"population must be 'true' or 'rest', got {population!r}")
    name = "true" if population == "true" else "other" if _unit(reading) else "rest"
    n, total, square = (getattr(sums, f"{name}_{part}") for part in ("n", "sum", "square"))
    deviation: Tensor = (square / n - (total / n).square()).clamp_min(0).sqrt()
    return deviation / magnitude(sums, reading)


def _unit(reading: Reading) -> bool:
    if reading not in ("unit", "sample"):
        raise InputError(f"reading must be 'unit' or 'sample', got {reading!r}")
    return reading == "unit"


def logits_magnitude(logits: Tensor, y: Tensor, reading: Reading = "unit") -> Tensor:
    """(C,) Logits Magnitude of LOS (Sun et al., ICLR 2025) of logits (N, C), on row-centred logits.

    The paper leaves open whether means run over rows or over classes. `unit` (reading A) fixes the unit and contrasts
    rows: mean of z_k over rows of class k minus its mean over all other rows. `sample` (reading B) fixes the rows and
    contrasts units: mean over rows of class k of z_k minus the mean of the other units. On a balanced split the means
    over classes of both readings agree. NaN for a class without rows. Centring (z minus its row mean) makes `unit`
    invariant to a shift of a whole row, as `sample` is by itself.
    """
    return magnitude(moments(logits, y), reading)


def regularized_std(logits: Tensor, y: Tensor, reading: Reading = "unit", population: Population = "true") -> Tensor:
    """(C,) standard deviation of row-centred logits divided by the Logits Magnitude of the same reading.

    `true`: z_k over rows of class k. `rest`: z_k over the rows of other classes (`unit`), or the other units over rows
    of class k (`sample`). Population form (division by the number, not one less). NaN for a class without rows.
    """
    return spread(moments(logits, y), reading, population)


def coefficient_of_variation(values: Tensor) -> float:
    """Standard deviation over classes divided by the mean, NaN entries left out: free of the scale of the logits.

    Dividing all logits by 10 divides the Logits Magnitude by 10 and changes no prediction; this number stays.
    """
    known = values[~values.isnan()]
    if len(known) == 0:
        return float("nan")
    return float(known.std(correction=0) / known.mean().abs())


# --- gradients and weights --------------------------------------------------------------------------------------------


class Balance(NamedTuple):
    """Accumulated |dCE/dz_k|: `positive` (C,) from rows of class k and `negative` (C,) from all others.

    `by_source` (C, C) has entry [k, c] from rows of class c; None where it was not asked for.
    """

    positive: Tensor
    negative: Tensor
    by_source: Tensor | None


def gradient_balance(logits: Tensor, y: Tensor, *, by_source: bool = False) -> Balance:
    """GALA's diagnostic: how strongly rows pull each classifier up and push it down, for logits (N, C).

    Sums over rows, not means. `by_source` also keeps the C x C matrix, for small C.
    """
    classes = logits.shape[-1]
    p = logits.double().softmax(dim=-1)
    own = p[torch.arange(len(y), device=y.device), y]
    positive = torch.bincount(y, weights=1 - own, minlength=classes)
    negative = p.sum(dim=0) - torch.bincount(y, weights=own, minlength=classes)
    if not by_source:
        return Balance(positive, negative, None)
    matrix = torch.zeros(classes, classes, dtype=p.dtype, device=p.device).index_add(1, y, p.T)
    matrix.diagonal().copy_(positive)
    return Balance(positive, negative, matrix)


def weight_norms(head: Head) -> Tensor:
    """(..., C) norms of the weight rows."""
    norms: Tensor = torch.linalg.vector_norm(head.weight, dim=-1)
    return norms
