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

from poise import losses, sampling
from poise.constraints import Every, Projection, free, max_norm
from poise.errors import InputError
from poise.heads import trained_parts
from poise.heads.plan import Options, Plan
from poise.heads.solver import Retrain, Start, fresh, stage1
from poise.heads.trained_parts import Part
from poise.losses.focal import FocalVariant
from poise.sampling import Sampler
from poise.values.checks import check_inside, check_one_of, check_positive
from poise.values.loss import Loss

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
    part: Part = trained_parts.full,
    projection: Projection | None = None,
    scale: float = 1.0,
    lr_factors: tuple[float, ...] = (),
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
        lr_factors=lr_factors,
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
    """Plain softmax cross-entropy on the features: what re-training alone does, without any re-balancing.

    Formula: -log softmax(z)_y.

    When to use it: as the reference that tells what re-balancing adds beyond re-training, or if the deployment has the
    class frequencies of training.
    """
    return recipe(losses.cross_entropy(), options)


def crt(**options: Unpack[Options]) -> Retrain:
    """Classifier re-training (cRT; Kang et al., ICLR 2020): a fresh head, cross-entropy, class-balanced sampling.

    Formula: -log softmax(z)_y, each class drawn with probability 1 / C.

    The sampler is the class-aware cycle of the released code, 4 images per class visit; an epoch is N draws.

    When to use it: as the classic baseline of decoupled training that papers compare with; many epochs repeat the rows
    of tiny classes, so select weight decay and learning rate on unseen rows.

    Paper and code: the released code keeps batch normalisation in training mode, so its features drift; cached ones
    cannot.
    """
    return recipe(losses.cross_entropy(), options, default=Options(start="fresh", sampler="class_balanced"))


def lws(**options: Unpack[Options]) -> Retrain:
    """Learnable weight scaling (LWS; Kang et al., ICLR 2020): one factor s_k per class, class-balanced sampling.

    Formula: -log softmax(z)_y with z_k = s_k (w_k f + b_k), s = 1 at the start, w and b frozen.

    When to use it: where rare classes have few rows, since only C numbers are learned and the directions of the stage-1
    head stay.

    Paper and code: in the paper the factor scales the weight; in the released code, and here, the bias too. Weight
    decay acts on s and pulls it to 0, as released.
    """
    default = Options(sampler="class_balanced", lr=0.1)
    return recipe(losses.cross_entropy(), options, default=default, part=trained_parts.scale_only)


def cosine(*, scale: float = 16.0, learn_scale: bool = False, **options: Unpack[Options]) -> Retrain:
    """Cosine head: cross-entropy of s cos(f, w_k), no bias. Published scales run from 16 to 30.

    Formula: -log softmax(z)_y with z_k = s (f . w_k) / (|f| |w_k|).

    The scale is part of the head's weight; `learn_scale` trains it too. Starts from the directions of the stage-1 rows.
    With `scale_features` (the default) the features are centred on the mean of the class means before they are
    normalised: around the mean of all rows, the largest class, which lies there, has no direction (three separate
    classes of 600, 60 and 6 rows: recalls of 0, 0 and 1). Without, f is as it is. There is no bias to hold the class
    frequencies, so no prior is implied by the softmax: it is estimated.

    When to use it: where row norms that grow with the class size are the trouble, or features were trained with cosine
    similarity (contrastive, CLIP).
    """
    check_positive("scale", scale)
    part = trained_parts.unit_rows_and_scale if learn_scale else trained_parts.unit_rows
    return recipe(losses.cross_entropy(), options, default=Options(lr=0.03), part=part, scale=scale)


def los(*, delta: float = 0.98, **options: Unpack[Options]) -> Retrain:
    """Label over-smoothing (LOS; Sun et al., ICLR 2025): cross-entropy against (1 - delta) onehot + delta / C.

    Formula: -sum_k q_k log softmax(z)_k with q = (1 - delta) onehot(y) + delta / C.

    Starts from the stage-1 head, instance sampling, no class counts. On memorised rows its first steps are `unlearn`,
    and how far it goes is set by the sum of learning rates: the number of epochs is a parameter to select.

    When to use it: on features of a network trained on the same rows, with unseen rows to select the epoch on. Without
    selection it can end below the head that it started from; on rows that the network never saw, its reason is missing.

    Paper and code: the released code keeps batch normalisation in training mode, and reports the best test epoch, which
    hides how much the number of epochs matters.
    """
    return recipe(losses.los(delta=delta), options, default=Options(lr=0.03))


def balanced_softmax(*, tau: float = 1.0, **options: Unpack[Options]) -> Retrain:
    """Balanced softmax (Ren et al., NeurIPS 2020), also called logit-adjusted loss (Menon et al., ICLR 2021).

    Formula: -log softmax(z + tau log prior)_y in training, plain z in prediction.

    tau = 0 is `ce`, tau = 1 aims at a uniform prior.

    When to use it: the first trained head to try. It has one strength with a meaning, and its softmax can be read as
    probabilities for a uniform prior. If training is not wanted, `logit_adjustment` often comes close.
    """
    return recipe(losses.balanced_softmax(tau=tau), options)


def class_balanced(
    *, beta: float = 0.9999, gamma: float = 0.0, variant: FocalVariant = "softmax", **options: Unpack[Options]
) -> Retrain:
    """Class-balanced loss (Cui et al., CVPR 2019): weights (1 - beta) / (1 - beta^n_y), normalised to sum to C.

    Formula: w_y (1 - p_y)^gamma (-log p_y) for `softmax`, w_y sum_k (1 - q_k)^gamma (-log q_k) for `sigmoid`,
    w_k = C v_k / sum_j v_j with v_k = (1 - beta) / (1 - beta^n_k); q as in `focal`.

    gamma = 0, the default, is weighted cross-entropy; beta = 0 as well is `ce`; as beta approaches 1, the weights
    approach 1 / n_k.

    When to use it: where losses are weighted already and only the weights should come from the counts. Weights hardly
    move a head that fits its rows perfectly; there `balanced_softmax` or a post-hoc method does more.

    Paper and code: the focal loss of Cui et al. is the `sigmoid` one; `softmax`, the default, is LDAM's release's. A
    batch is averaged over its rows, as Cui et al. do, not over their weights as `ldam` and `marc` are.
    """
    return recipe(losses.class_balanced(beta=beta, gamma=gamma, variant=variant), options)


def focal(*, gamma: float = 2.0, variant: FocalVariant = "softmax", **options: Unpack[Options]) -> Retrain:
    """Focal loss (Lin et al., ICCV 2017): -(1 - p_y)^gamma log p_y. gamma = 0 is `ce`.

    Formula: -(1 - p_y)^gamma log p_y with p = softmax(z) for `softmax`,
    -sum_k (1 - q_k)^gamma log q_k with q_y = sigmoid(z_y) and q_k = sigmoid(-z_k) otherwise for `sigmoid`.

    When to use it: for comparison with work that uses it. It weights hard rows, not rare classes; on its own it
    re-balances little.

    Paper and code: the focal loss of Lin et al. is on sigmoids, `sigmoid` (here without its factor alpha); long-tail
    code since LDAM's release uses the `softmax` one, the default. The two point in nearly unrelated directions.
    """
    return recipe(losses.focal(gamma=gamma, variant=variant), options)


def ldam(*, max_margin: float = 0.5, scale: float = 30.0, drw: bool = True, **options: Unpack[Options]) -> Retrain:
    """LDAM (Cao et al., NeurIPS 2019): cosine logits with a margin m_y proportional to n_y^(-1/4) on the true class.

    Formula: -log softmax(s (c - m_y onehot(y)))_y
    with c_k = cos(f, w_k) and m_k = max_margin (n_min / n_k)^(1/4).

    `drw` (deferred re-weighting) applies class-balanced weights (beta 0.9999) in the last fifth of the epochs. The head
    has unit rows times the scale and no bias; margins are not used in prediction.

    When to use it: for comparison with the many papers that report it, or for features trained with it.

    Paper and code: with deferred weights the release averages a batch over the weights of its rows (the sum of w l over
    the sum of w), and so does this. The release does not centre the features before they are normalised;
    `scale_features` (the default) does, on the mean of the class means, as `cosine`.
    """
    loss = losses.ldam(max_margin=max_margin, scale=scale, drw=drw)
    return recipe(loss, options, default=Options(lr=0.3), part=trained_parts.unit_rows, scale=scale)


def vs(*, tau: float = 1.0, gamma: float = 0.3, **options: Unpack[Options]) -> Retrain:
    """Vector scaling loss (Kini et al., NeurIPS 2021): cross-entropy of z_k / d_k + tau log prior_k.

    Formula: -log softmax(z')_y in training, plain z in prediction,
    with z'_k = z_k / d_k + tau log prior_k and d_k = (n_max / n_k)^gamma.

    gamma = 0 is balanced softmax, tau = 0 is CDT (Ye et al., 2020).

    When to use it: where `balanced_softmax` is close and one more number may be selected; the factors d keep their
    effect on rows that are fitted perfectly, where the shifts lose theirs.
    """
    return recipe(losses.vs(tau=tau, gamma=gamma), options, default=Options(lr=0.3))


def label_aware_smoothing(
    *,
    smooth_head: float = 0.4,
    smooth_tail: float = 0.1,
    shape: Literal["concave", "linear", "convex"] = "concave",
    variant: Literal["released", "paper"] = "released",
    classifier: Literal["trained", "frozen"] = "trained",
    lr_factor: float = 0.2,
    **options: Unpack[Options],
) -> Retrain:
    """Label-aware smoothing (MiSLAS; Zhong et al., CVPR 2021) on LWS scales with class-balanced sampling.

    Formula: (1 - e_y) (-log p_y) + e_y mean_k(-log p_k), z_k = s_k (w_k f + b_k), s = 1 at the start,
    e_k = smooth_tail + (smooth_head - smooth_tail) g(u_k),
    u_k = (n_k - n_min) / (n_max - n_min),
    g(u) = sin(pi u / 2) `concave`, u `linear`, 1 + sin(3 pi / 2 + pi u / 2) `convex`.

    The smoothing grows from `smooth_tail` to `smooth_head` with the size of the true class. Released values: 0.4 and
    0.1 for CIFAR-100 IF 100 and Places-LT; 0.3 and 0 for IF 50, ImageNet-LT and iNaturalist; 0.2 and 0 for IF 10.

    `trained`: the scales s move at the learning rate, weight w and bias b at `lr_factor` times it (released: 0.2 for
    CIFAR-100 IF 100, 0.1 for IF 50 and 10, 0.05 for the large sets); weight decay acts on both. `frozen`: the scales
    alone, as in `lws`; `lr_factor` is not used.

    When to use it: where the many classes are over-confident and confidence matters as much as accuracy.

    Paper and code: `released` spreads the smoothing over all classes, `paper` over the others. Shifted batch
    normalisation, the other half of MiSLAS's second stage, needs images and is not here.

    Raises: InputError for a smoothing outside [0, 1), a negative factor, or an unknown shape, variant or classifier.
    """
    check_one_of("classifier", classifier, ("trained", "frozen"))
    check_inside("lr_factor", lr_factor, 0, float("inf"), "MiSLAS uses 0.05 to 0.2")
    loss = losses.label_aware_smoothing(smooth_head=smooth_head, smooth_tail=smooth_tail, shape=shape, variant=variant)
    default = Options(sampler="class_balanced", lr=0.1)
    if classifier == "frozen":
        return recipe(loss, options, default=default, part=trained_parts.scale_only)
    return recipe(loss, options, default=default, part=trained_parts.scale_and_rows, lr_factors=(1.0, lr_factor))


def marc(*, rho: float = 1.2, **options: Unpack[Options]) -> Retrain:
    """Margin calibration (MARC; Wang et al., ACML 2022): z'_k = a_k z_k + b_k |w_k| on a frozen head.

    Formula: v_y (-log softmax(z')_y), divided by the mean of v over the rows of a batch,
    with z'_k = a_k z_k + b_k |w_k| and v_k proportional to prior_k^-rho.

    2 C parameters, a = 1 and b = 0 at the start; with `scale_features`, |w_k| is the norm on the scaled features. The
    exponent is that of the authors' release, the default there and the value of all its recipes.

    When to use it: like `lws`, where little may be learned; it can shift a class as well as scale it.

    Paper and code: the released recipes sample instances. On CIFAR they count steps, 2,000 of them with 800 of warm-up
    from lr 0.05 to 0.1; the published rows here say that in whole epochs.
    """
    return recipe(losses.prior_weighted(rho=rho), options, default=Options(lr=0.01), part=trained_parts.affine_only)


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

    Formula: v_y mean_k BCE(p_k, onehot(y)_k) for `bce`, v_y (-log p_y) for `ce`,
    p = softmax(z), v the weights of `class_balanced`; after a step, w_k min(1, radius / |w_k|).

    Row norms stay below `radius`, or below m + threshold (M - m) of the stage-1 norms' minimum and maximum (0.1 if
    neither is given). Starts from the stage-1 head, instance sampling.

    When to use it: where the row norms of the stage-1 head grow with the class size (compare `l2_norm` and `tau_norm`
    first, which need no training); `loss="ce"` is easier to tune.

    Paper and code: the released loss is `bce`, binary cross-entropy on the softmax averaged over rows and classes,
    about C times smaller than the class-balanced cross-entropy `ce`. The paper projects after every step, the released
    demo once per epoch, where its weight decay of 0.1 has already shrunk every row and the projection never acts.

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

    Formula: -log softmax(z + lambda_pos log theta)_y in the released form,
    theta_k the gradient that rows of class k have given to their own logit so far.

    See `losses.gala` for the formula of the `paper` form. Memorised rows give little gradient, so theta comes out
    flatter than the counts: search lambda_pos in 0.5 to 6. Fresh start, instance sampling.

    When to use it: if the counts say too little about how hard a class is. It was made for training a whole network
    (`poise train gala_...`), where gradients are larger than in a head on fitted features.

    Paper and code: the paper leaves the logit of the label alone, adds lambda_pos log theta_j to every other one, and
    takes lambda_neg log theta_y from them; the released code shifts the whole row, so lambda_neg cancels in the softmax
    and has no effect there. The two agree where both lambdas are equal. The released code also sums the running sum
    once more (`accumulate="cumsum"`).
    """
    loss = losses.gala(lambda_pos=lambda_pos, lambda_neg=lambda_neg, variant=variant, accumulate=accumulate)
    return recipe(loss, options, default=Options(start="fresh"))


def gcl(
    *, noise: float = 0.5, margin: float = 0.1, scale: float = 20.0, gamma: float = 1.0, **options: Unpack[Options]
) -> Retrain:
    """Gaussian clouded logits (GCL; Li et al., CVPR 2022): cosine logits that lose noise, most where rows are few.

    Formula: (1 - p_y)^gamma (-log p_y) in training, plain cosines in prediction,
    with p = softmax(s (c - noise |e| m - margin onehot(y))) and c_k = cos(f, w_k),
    m_k = log(n_max / n_k) / log(n_max / n_min), and 0 where all counts are equal,
    e_k normal with standard deviation 1 / 3, clamped to [-1, 1], anew for every row and class.

    Classes drawn independently with probability 1 / C, starting from the directions of the stage-1 rows. The head has
    unit rows times the scale and no bias. noise = margin = gamma = 0 is `cosine`. The softmax of the head is that of
    cosines without noise and margin, so it is meant for no prior that is known.

    When to use it: for comparison with work that reports it, above all GALA; or for features that were trained with it
    (`poise train gcl_cifar100_lt_if100`), its first stage.

    Paper and code: written from the formula and the released settings of the second stage: noise 0.5 (`noise_mul`),
    margin 0.1 (`m`), scale 20, gamma 1. The paper speaks of sampling classes by their effective number; the release
    samples them evenly. How its classifier starts is not established by our sources. The formula does not centre the
    features before they are normalised; `scale_features` (the default) does, on the mean of the class means, as
    `cosine`. The noise of a row is a function of the seed, the epoch and its place in the epoch, so heads that are
    trained side by side share it.
    """
    loss = losses.gcl(noise=noise, margin=margin, scale=scale, gamma=gamma)
    default = Options(sampler="class_balanced_iid", lr=0.01)
    return recipe(loss, options, default=default, part=trained_parts.unit_rows, scale=scale)
