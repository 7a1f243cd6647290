"""Class-balanced loss: cross-entropy or focal loss, times a weight per class that falls with its count."""

from functools import partial

from poise.losses.focal import FocalVariant, focal
from poise.losses.softmax import weighted
from poise.losses.weights import class_balanced_weights
from poise.values.checks import check_inside, check_one_of
from poise.values.loss import Loss


def class_balanced(*, beta: float = 0.9999, gamma: float = 0.0, variant: FocalVariant = "softmax") -> Loss:
    """Class-balanced cross-entropy (Cui et al., CVPR 2019); with `gamma` above 0, class-balanced focal loss.

    A batch is averaged over its rows, whatever their weights, as there. `variant` is that of `focal`: the focal loss of
    Cui et al. is on sigmoids.
    """
    check_one_of("variant", variant, ("softmax", "sigmoid"))
    check_inside("beta", beta, 0, 1, "use 0.9 to 0.9999")
    weigh = partial(class_balanced_weights, beta=beta)
    if gamma or variant == "sigmoid":
        return focal(gamma=gamma, variant=variant, weigh=weigh)
    return weighted(weigh)
