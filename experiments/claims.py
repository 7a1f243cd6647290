"""What the findings page claims, by row of both_sets.py. Nothing here was measured by these scripts."""

from typing import NamedTuple

from findings import NOISE


class Claim(NamedTuple):
    """A number, or a range, claimed in the findings page."""

    low: float
    high: float
    tolerance: float = NOISE

    @property
    def text(self) -> str:
        """As written in the table."""
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g} to {self.high:g}"

    def verdict(self, value: float) -> str:
        """Does the measured number agree?"""
        gap = max(self.low - value, value - self.high, 0)
        return "agrees" if gap <= self.tolerance + 1e-9 else f"differs by {gap:.2f}"


def claim(value: float, tolerance: float = NOISE) -> Claim:
    """One number."""
    return Claim(value, value, tolerance)


# Of the first set.
CLAIMS: dict[str, Claim] = {
    "stage 1": claim(38.66),
    "tau-norm 0.7": claim(42.5),
    "tau-norm 1": claim(43.2),
    "logit adjustment 1": claim(42.9),
    "balanced softmax, raw, lr 0.1, wd 5e-4, 10 epochs": claim(42.9),
    "cRT, the same plan": claim(40.4),
    "LWS, the same plan": claim(40.9),
    "GALA released (1.2), warm, the same plan": claim(40.9),
    "NCM, raw": claim(40.2),
    "NCM, cl2n": claim(41.6),
    "LDA, Ledoit-Wolf": claim(40.6),
    "LDA, shrinkage 0.6": claim(40.2),
    "weight balancing, BCE, released schedule": claim(34.6),
    "weight balancing, BCE, cosine per step": claim(34.6),
    "GALA, lambda 3, fresh, lr 0.3, wd 5e-3": claim(42.3),
    "weight balancing, weighted CE, cosine per step": claim(41.4),
    "LOS as released": claim(35.1),
    "LOS, lr 5e-5": claim(43.2),
    "scikit-learn, balanced, C 1e-3": claim(41.1),
    "tau-norm, tau": claim(43.2),
    "logit adjustment, tau": claim(43.0),
    "unlearn, t": claim(43.1),
    "tau-norm, tau, best on test": claim(43.27),
    "tau-norm, tau, 20 rows per class": claim(43.04),
    "logit adjustment, tau, best on test": claim(43.14),
    "logit adjustment, tau, 20 rows per class": claim(42.98),
    "LOS, best test epoch": claim(43.0),
    "LOS, last epoch": claim(35.1),
    "weight balancing, released schedule, best test epoch": claim(40.8),
    "weight balancing, released schedule, last epoch": claim(34.6),
    "weight balancing, cosine per step, best test epoch": claim(40.8),
    "weight balancing, cosine per step, last epoch": claim(34.6),
    "LOS, lr 5e-5, class-balanced, best test epoch": claim(41.4),
    "LOS, lr 5e-4, class-balanced, best test epoch": claim(41.4),
    "sum of lr at the peak, x 1e4, lr 5e-05": claim(5.0, 1.0),
    "LOS as released, features / 1": claim(35.1),
    "LOS as released, features / 2": claim(39.5),
    "LOS as released, features / 3": claim(43.3),
    "LOS as released, features / 5": claim(41.8),
    "cosine, centred, lr 1e-07": claim(1.0, 0.01),
    "LOS, lr 5e-3, 300 epochs": claim(28.3),
    "slope of log theta on log n, stage1, lambda 1.2": Claim(0.2, 0.6, 0.05),
    "slope of log theta on log n, fresh, lambda 1.2": Claim(0.2, 0.6, 0.05),
    # The page does not say which reading it used.
    **{f"LoMa of stage 1, {reading}": claim(0.39, 0.01) for reading in ("unit", "sample")},
    **{
        f"LoMa of {name}, {reading}": Claim(0.26, 0.31, 0.01)
        for name in ("tau-norm 1", "logit adjustment 1", "LOS, lr 5e-5", "unlearn, t 0.84")
        for reading in ("unit", "sample")
    },
    **{
        f"seeds of {name}": Claim(0.02, 0.13, 0.02)
        for name in ("crt", "balanced_softmax", "los", "gala", "weight_balancing")
    },
}

# Of the second set.
CLAIMS_AUGMENTED: dict[str, Claim] = {"stage 1": claim(42.54), "LOS, last epoch": claim(39.5)}
