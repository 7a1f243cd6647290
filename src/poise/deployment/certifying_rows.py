"""Rows that a promise is made on: they chose nothing, and their classes are as common as in the deployment.

A head that was chosen on rows looks better on these than it is, so that a bound on the same rows does not hold. Half of
the held-out rows choose and calibrate, and the other half certify; or, where the training rows were unseen by the
backbone, folds of them choose, and all held-out rows certify.
"""

import torch
from torch import Tensor

from poise.decisions.certified import rows_needed
from poise.decisions.targets import Targets
from poise.errors import InputError
from poise.values.features import Features
from poise.values.problem import Problem

NATURAL = 0.05  # p of the chi-square test below which held-out rows were not drawn as the training rows were


def dealt(problem: Problem, targets: Targets, seed: int, *, folds: bool) -> tuple[Problem, Features | None]:
    """The problem as it is chosen and calibrated on, and the rows that its operating point is chosen on.

    The same held-out rows, unless something is promised: then folds of the training rows choose, or half of the
    held-out rows.

    Raises: InputError if there are too few rows for any promise, before anything is trained.
    """
    rows = problem.held_out
    if targets.guarantee is None or rows is None:
        return problem, rows
    if folds:
        choosing, certifying, share = None, rows, 1
    else:
        choosing, certifying = halves(rows, seed)
        share = 2
    share_asked = targets.strictest
    needed, most = rows_needed(share_asked, 1 - targets.confidence), int(torch.bincount(certifying.y).max())
    have = len(certifying) if targets.precision is None else most
    if have < needed:
        whose = "held-out rows" if targets.precision is None else "held-out rows of a class"
        half = ", of which half choose and half certify" if share == 2 else ""
        raise InputError(
            f"{share_asked:g} at confidence {targets.confidence:g} takes {needed * share} {whose} at least{half}, "
            f"all answered right, and there are at most {have * share}; give more or ask for less"
        )
    return Problem(problem.train, problem.head, choosing, problem.world), certifying


def halves(rows: Features, seed: int) -> tuple[Features, Features]:
    """Rows dealt in two, class by class; a class of an odd number gives one more to the second part."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.zeros(len(rows), dtype=torch.bool)
    for k in sorted(set(rows.y.tolist())):
        own = (rows.y == k).nonzero().flatten()
        first[own[torch.randperm(len(own), generator=generator)[: len(own) // 2]]] = True
    if not first.any():
        raise InputError("a promise takes held-out rows that choose and others that certify; give two of a class")
    return rows.take(first.nonzero().flatten()), rows.take((~first).nonzero().flatten())


def as_common_as(prior: Tensor, rows: Features, keys: Tensor, seed: int) -> Tensor:
    """Row numbers of a random part of `rows` in which classes are as common as in `prior` (C,).

    Within a class every row has the same chance to be kept, so the part is a draw from the deployment, to which exact
    tests apply; weights would need bounds that cost more. All rows are kept if their classes are as common as in
    training, so is the prior, and the difference is chance (chi-square). `keys` (N,) order the rows, so that their own
    order does not matter.

    Raises: InputError if a class that has a share has no row.
    """
    n = torch.bincount(rows.y, minlength=len(prior))
    if torch.allclose(prior.double(), rows.counts.prior, atol=1e-3) and _by_chance(n, prior):
        return torch.arange(len(rows))
    lacking = ((n == 0) & (prior > 0)).nonzero().flatten().tolist()
    if lacking:
        name, share = rows.names[lacking[0]], float(prior[lacking[0]])
        raise InputError(
            f"the class {name!r} has no row to certify on but a share of {share:.3g} in the prior, so nothing can be "
            "promised; give rows of it, or a prior without it"
        )
    size = (n[prior > 0] / prior[prior > 0]).min()
    generator = torch.Generator().manual_seed(seed)
    order = keys.argsort(stable=True)
    kept = []
    for k, share in enumerate(prior.tolist()):
        own = order[rows.y[order] == k]
        wanted = float(size) * share + 1e-9
        # The fraction is kept by chance, so that no class is rounded away.
        more = bool(torch.rand(1, generator=generator, dtype=torch.float64) < wanted % 1)
        kept.append(own[torch.randperm(len(own), generator=generator)[: int(wanted) + more]])
    return torch.cat(kept)


def _by_chance(n: Tensor, prior: Tensor) -> bool:
    """Could so many rows per class have been drawn from the prior?"""
    from scipy.stats import chisquare

    possible = prior > 0
    expected = prior[possible] / prior[possible].sum() * n[possible].sum()
    return bool(chisquare(n[possible].numpy(), expected.numpy()).pvalue >= NATURAL)
