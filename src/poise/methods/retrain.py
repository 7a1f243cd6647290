"""Methods that train a head by gradient descent on cached features.

Each is a sentence over the same vocabulary: a loss, the part of the head that is trained, a projection, and a plan.
Every factory takes its own parameters, the fields of `Plan`, and three choices: `start` ("stage1" or "fresh"),
`sampler`, and `images_per_visit` of the class-aware cycle ("class_balanced").

The default plans are for features scaled by the solver (`scale_features`), with a smaller learning rate where a part
has few parameters, where logits are cosines, and where the loss un-learns (LOS). The recipes that the papers publish
are for raw features of one family; they are values in `methods.published`.
"""

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, Literal, Unpack

from poise import losses, params, sampling
from poise.checks import check_positive
from poise.constraints import Every, Projection, free, max_norm
from poise.errors import InputError
from poise.losses import Loss
from poise.params import Part
from poise.plan import Options, Plan
from poise.sampling import Sampler
from poise.solver import Retrain, Start, fresh, stage1

__all__ = [
    "balanced_softmax",
    "ce",
    "choices",
    "class_balanced",
    "cosine",
    "crt",
    "focal",
    "gala",
    "label_aware_smoothing",
    "ldam",
    "los",
    "lws",
    "marc",
    "recipe",
    "vs",
    "weight_balancing",
]

STARTS: Mapping[str, Start] = MappingProxyType({"stage1": stage1, "fresh": fresh})
SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "instance": sampling.instance,
        "class_balanced": sampling.ClassAware(),
        "class_balanced_iid": sampling.class_balanced_iid,
        "square_root": sampling.square_root,
        "progressive": sampling.progressive,
    }
)
PLAN_FIELDS = frozenset(field.name for field in fields(Plan))


def recipe(
    loss: Loss,
    options: Options,
    *,
    default: Options | None = None,
    part: Part = params.full,
    projection: Projection | None = None,
    scale: float = 1.0,
) -> Retrain:
    """The Retrain of a loss and the options that a user gave, over the defaults of its method.

    Raises: InputError for an option that does not exist or a value out of range.
    """
    chosen: dict[str, Any] = {"start": "stage1", "sampler": "instance", **(default or {}), **options}
    visit = chosen.pop("images_per_visit", None)
    if visit is not None and chosen["sampler"] != "class_balanced":
        raise InputError(
            f"images_per_visit belongs to the sampler 'class_balanced', the sampler is {chosen['sampler']!r}"
        )
    start = _named(STARTS, "start", chosen.pop("start"))
    sampler = _named(SAMPLERS, "sampler", chosen.pop("sampler"))
    if visit is not None:
        sampler = sampling.ClassAware(visit)
    unknown = sorted(set(chosen) - PLAN_FIELDS)
    if unknown:
        raise InputError(f"no option is called {unknown[0]!r}; there are {', '.join(sorted(Options.__annotations__))}")
    return Retrain(
        loss=loss,
        start=start,
        part=part,
        sampler=sampler,
        projection=projection or free(),
        scale=scale,
        plan=Plan(**chosen),
    )


def _named(table: Mapping[str, Any], what: str, name: str) -> Any:
    if name not in table:
        raise InputError(f"{what} must be one of {', '.join(table)}; got {name!r}")
    return table[name]


def choices(method: Retrain) -> dict[str, Any]:
    """The names of the start and sampler of a trained method, and its images per visit if it has them."""
    named: dict[Any, str] = {function: name for table in (STARTS, SAMPLERS) for name, function in table.items()}
    start, sampler = named.get(method.start, "custom"), method.sampler
    if isinstance(sampler, sampling.ClassAware):
        return {"start": start, "sampler": "class_balanced", "images_per_visit": sampler.images_per_visit}
    return {"start": start, "sampler": named.get(sampler, "custom")}


def ce(**options: Unpack[Options]) -> Retrain:
    """Plain softmax cross-entropy on the features: what re-training alone does, without any re-balancing."""
    return recipe(losses.cross_entropy(), options)


def crt(**options: Unpack[Options]) -> Retrain:
    """Classifier re-training (cRT; Kang et al., ICLR 2020): a fresh head, cross-entropy, class-balanced sampling.

    The sampler is the class-aware cycle of the released code, 4 images per class visit; an epoch is N draws.
    Deviation: the released code keeps batch normalisation in training mode, so its features drift; cached ones cannot.
    """
    return recipe(losses.cross_entropy(), options, default=Options(start="fresh", sampler="class_balanced"))


def lws(**options: Unpack[Options]) -> Retrain:
    """Learnable weight scaling (LWS; Kang et al., ICLR 2020): one factor s_k per class, class-balanced sampling.

    z_k = s_k (w_k f + b_k) with s = 1 at the start and the stage-1 weight frozen: as in the released code the bias is
    scaled too, and weight decay acts on s, pulling it to 0.
    """
    default = Options(sampler="class_balanced", lr=0.1)
    return recipe(losses.cross_entropy(), options, default=default, part=params.scale_only)


def cosine(*, scale: float = 16.0, learn_scale: bool = False, **options: Unpack[Options]) -> Retrain:
    """Cosine head: cross-entropy of s cos(f, w_k), no bias. Published scales run from 16 to 30.

    The scale is part of the head's weight; `learn_scale` trains it too. Starts from the directions of the stage-1 rows.
    With `scale_features` (the default) the features are centred before they are normalised, as in CL2N of Kang et al.;
    without, f is as it is.
    """
    check_positive("scale", scale)
    part = params.unit_rows_and_scale if learn_scale else params.unit_rows
    return recipe(losses.cross_entropy(), options, default=Options(lr=0.03), part=part, scale=scale)


def los(*, delta: float = 0.98, **options: Unpack[Options]) -> Retrain:
    """Label over-smoothing (LOS; Sun et al., ICLR 2025): cross-entropy against (1 - delta) onehot + delta / C.

    Starts from the stage-1 head, instance sampling, no class counts. On memorised rows its first steps are `unlearn`,
    and how far it goes is set by the sum of learning rates: the number of epochs is a parameter to select.
    Deviation: the released code keeps batch normalisation in training mode and keeps the best test epoch.
    """
    return recipe(losses.los(delta=delta), options, default=Options(lr=0.03))


def balanced_softmax(*, tau: float = 1.0, **options: Unpack[Options]) -> Retrain:
    """Balanced softmax (Ren et al., NeurIPS 2020), the logit-adjusted loss of Menon et al. (ICLR 2021).

    Cross-entropy of z + tau log prior; prediction with plain z. tau = 0 is `ce`.
    """
    return recipe(losses.balanced_softmax(tau=tau), options)


def class_balanced(*, beta: float = 0.9999, gamma: float = 0.0, **options: Unpack[Options]) -> Retrain:
    """Class-balanced loss (Cui et al., CVPR 2019): weights (1 - beta) / (1 - beta^n_y), normalised to sum to C.

    Times cross-entropy, or focal loss if `gamma` is above 0. beta = 0 is `ce`.
    """
    return recipe(losses.class_balanced(beta=beta, gamma=gamma), options)


def focal(*, gamma: float = 2.0, **options: Unpack[Options]) -> Retrain:
    """Focal loss (Lin et al., ICCV 2017): -(1 - p_y)^gamma log p_y. gamma = 0 is `ce`."""
    return recipe(losses.focal(gamma=gamma), options)


def ldam(*, max_margin: float = 0.5, scale: float = 30.0, drw: bool = True, **options: Unpack[Options]) -> Retrain:
    """LDAM (Cao et al., NeurIPS 2019): cosine logits with a margin m_y proportional to n_y^(-1/4) on the true class.

    `drw` (deferred re-weighting) applies class-balanced weights (beta 0.9999) in the last fifth of the epochs. The
    head has unit rows times the scale and no bias; margins are not used in prediction. With `scale_features` (the
    default) the features are centred before they are normalised; the release does not centre.
    """
    loss = losses.ldam(max_margin=max_margin, scale=scale, drw=drw)
    return recipe(loss, options, default=Options(lr=0.3), part=params.unit_rows, scale=scale)


def vs(*, tau: float = 1.0, gamma: float = 0.3, **options: Unpack[Options]) -> Retrain:
    """Vector scaling loss (Kini et al., NeurIPS 2021): cross-entropy of z_k / d_k + tau log prior_k.

    d_k = (n_max / n_k)^gamma; prediction with plain z. gamma = 0 is balanced softmax, tau = 0 is CDT (Ye et al., 2020).
    """
    return recipe(losses.vs(tau=tau, gamma=gamma), options, default=Options(lr=0.3))


def label_aware_smoothing(
    *,
    smooth_head: float = 0.4,
    smooth_tail: float = 0.1,
    shape: Literal["concave", "linear", "convex"] = "concave",
    variant: Literal["released", "paper"] = "released",
    **options: Unpack[Options],
) -> Retrain:
    """Label-aware smoothing (MiSLAS; Zhong et al., CVPR 2021) on LWS scales with class-balanced sampling.

    The smoothing grows from `smooth_tail` to `smooth_head` with the size of the true class. Released values: 0.4 and
    0.1 for CIFAR-100 IF 100 and Places-LT; 0.3 and 0 for IF 50, ImageNet-LT and iNaturalist; 0.2 and 0 for IF 10.
    `released` spreads the smoothing over all classes, `paper` over the others. Deviation: shifted batch normalisation,
    the other half of MiSLAS's second stage, needs images.
    """
    loss = losses.label_aware_smoothing(smooth_head=smooth_head, smooth_tail=smooth_tail, shape=shape, variant=variant)
    default = Options(sampler="class_balanced", lr=0.1)
    return recipe(loss, options, default=default, part=params.scale_only)


def marc(*, rho: float = 1.0, **options: Unpack[Options]) -> Retrain:
    """Margin calibration (MARC; Wang et al., ACML 2022): z'_k = a_k z_k + b_k |w_k| on a frozen head.

    2 C parameters, a = 1 and b = 0 at the start; with `scale_features`, |w_k| is the norm on the scaled features;
    cross-entropy with weights prior_k^-rho. The exponent is not established by our sources: it is a parameter.
    """
    return recipe(losses.prior_weighted(rho=rho), options, default=Options(lr=0.1), part=params.affine_only)


def weight_balancing(
    *,
    beta: float = 0.9999,
    loss: Literal["bce", "ce"] = "bce",
    threshold: float | None = None,
    radius: float | None = None,
    every: Every = "step",
    **options: Unpack[Options],
) -> Retrain:
    """Weight balancing, second stage (Alshammari et al., CVPR 2022): class-balanced loss, weight decay and MaxNorm.

    `bce` is the released loss, binary cross-entropy on the softmax averaged over rows and classes; `ce` is the ordinary
    class-balanced cross-entropy, C times larger. Row norms stay below `radius`, or below m + threshold (M - m) of the
    stage-1 norms' minimum and maximum (0.1 if neither is given). The paper projects after every step, the released demo
    once per epoch, where its weight decay of 0.1 has already shrunk every row and the projection never acts. Starts
    from the stage-1 head, instance sampling.

    Raises: InputError for an unknown loss.
    """
    if loss not in ("bce", "ce"):
        raise InputError(f"loss must be 'bce' or 'ce', got {loss!r}")
    term = losses.class_balanced_bce(beta=beta) if loss == "bce" else losses.class_balanced(beta=beta)
    bound = max_norm(radius=radius, threshold=threshold, every=every)
    return recipe(term, options, projection=bound)


def gala(
    *,
    lambda_pos: float = 1.0,
    lambda_neg: float = 1.0,
    variant: Literal["released", "paper"] = "released",
    accumulate: Literal["cumsum", "sum"] = "cumsum",
    **options: Unpack[Options],
) -> Retrain:
    """Gradient-aware logit adjustment (GALA, ICASSP 2024): balanced softmax whose prior is accumulated gradients.

    See `losses.gala` for the formula, for what `released` and `paper` differ in, and why `lambda_neg` has no effect in
    the released form. Memorised rows give little gradient, so the prior comes out flatter than the counts: search
    lambda_pos in 0.5 to 6. Fresh start, instance sampling.
    """
    loss = losses.gala(lambda_pos=lambda_pos, lambda_neg=lambda_neg, variant=variant, accumulate=accumulate)
    return recipe(loss, options, default=Options(start="fresh"))
