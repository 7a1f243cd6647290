"""The methods by name: one literal table, what is known of each, and how to build one from its name.

A method is a function (problem, seed) -> head. Adding one touches three files: that of its family, one row below, and
one row of the table of reference values in the tests. A package outside adds its own through the entry-point group
`poise.methods`, with an `Entry` or a factory.
"""

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Literal, get_args, is_typeddict

from poise.errors import InputError, PoiseWarning
from poise.heads.converged import converged
from poise.heads.plan import Options
from poise.heads.solver import Retrain
from poise.methods import closed_form, gradient_trained, posthoc
from poise.methods.chain import Chain, then
from poise.methods.posthoc import prediction_rebalancing
from poise.values.problem import Method
from poise.values.spec import Spec
from poise.values.wording import near

__all__ = [
    "METHODS",
    "Chain",
    "Entry",
    "Method",
    "Parameter",
    "Traits",
    "available",
    "build",
    "defaults",
    "entries",
    "from_spec",
    "further",
    "implied_prior",
    "is_trained",
    "parameters",
    "prediction_rebalancing",
    "settings",
    "short_name",
    "then",
    "told_apart",
    "traits_of",
    "unit_matters",
]

GROUP = "poise.methods"


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What checks and reports must know of a method.

    `needs_head`: reads the stage-1 head. `needs_held_out`: reads unseen rows. `stochastic`: depends on the seed.
    `order_dependent`: depends on the order of the rows even in a full batch. `transductive`: reads the evaluated rows.
    `implied_prior`: the class prior for which its softmax is meant at default parameters; None if it is not known, and
    then unseen rows tell. `prior_by_loss`: the same by the name of its loss, where `loss` is a parameter that sets it.
    `search_error`: how far from its definition a head may lie that is searched for until a search stops, as a share of
    the largest logit; 0 for what is computed, or trained by a plan. A search may take long where rows are many.

    `unit_matters` and `origin_matters`: why features times a number, or plus a vector, give other predictions (the
    stage-1 head being the same function of the rows); "" where they do not, which `poise.testing` holds a method to. A
    trained method without `scale_features` depends on both, for its learning rate is per unit of the features.
    """

    needs_head: bool = False
    needs_held_out: bool = False
    stochastic: bool = False
    order_dependent: bool = False
    transductive: bool = False
    search_error: float = 0.0
    implied_prior: Literal["train", "uniform"] | None = None
    prior_by_loss: Mapping[str, Literal["train", "uniform"]] = field(default_factory=dict)
    unit_matters: str = ""
    origin_matters: str = ""


@dataclass(frozen=True)
class Entry:
    """A row of the table: the factory, the key of its paper in references.bib, and its traits."""

    factory: Callable[..., Method]
    reference: str | None = None
    traits: Traits = Traits()

    @property
    def summary(self) -> str:
        """First line of the factory's docstring."""
        return (inspect.getdoc(self.factory) or "").split("\n")[0]


TRAINED = Traits(needs_head=True, stochastic=True)

METHODS: Mapping[str, Entry] = MappingProxyType(
    {
        "balanced_softmax": Entry(
            gradient_trained.balanced_softmax,
            "ren2020",
            Traits(needs_head=True, stochastic=True, implied_prior="uniform"),
        ),
        "ce": Entry(gradient_trained.ce, None, Traits(needs_head=True, stochastic=True, implied_prior="train")),
        "class_balanced": Entry(gradient_trained.class_balanced, "cui2019", TRAINED),
        "converged": Entry(
            converged,
            None,
            Traits(
                search_error=1e-3,
                implied_prior="train",
                prior_by_loss={"cross_entropy": "train", "balanced_softmax": "uniform", "class_balanced": "uniform"},
            ),
        ),
        "cosine": Entry(gradient_trained.cosine, None, TRAINED),
        "crt": Entry(gradient_trained.crt, "kang2020", Traits(stochastic=True, implied_prior="uniform")),
        "focal": Entry(
            gradient_trained.focal, "lin2017", Traits(needs_head=True, stochastic=True, implied_prior="train")
        ),
        "gala": Entry(gradient_trained.gala, "gala2024", Traits(stochastic=True, order_dependent=True)),
        "gcl": Entry(gradient_trained.gcl, "li2022", TRAINED),
        "l2_norm": Entry(
            posthoc.l2_norm,
            "alshammari2022",
            Traits(
                needs_head=True,
                unit_matters="its bias is weighed against rows of norm 1, whatever the unit of the features",
                origin_matters="the weight is divided by its norm and the bias is not",
            ),
        ),
        "label_aware_smoothing": Entry(gradient_trained.label_aware_smoothing, "zhong2021", TRAINED),
        "lda": Entry(closed_form.lda, "wang2024", Traits(implied_prior="uniform")),
        "ldam": Entry(gradient_trained.ldam, "cao2019", TRAINED),
        "logit_adjustment": Entry(
            posthoc.logit_adjustment, "menon2021", Traits(needs_head=True, implied_prior="uniform")
        ),
        "los": Entry(gradient_trained.los, "sun2025", TRAINED),
        "lws": Entry(gradient_trained.lws, "kang2020", TRAINED),
        "marc": Entry(gradient_trained.marc, "wang2022", TRAINED),
        "ncm": Entry(closed_form.ncm, "kang2020", Traits()),
        "rebalance": Entry(
            posthoc.rebalance, "gala2024", Traits(needs_head=True, needs_held_out=True, implied_prior="uniform")
        ),
        "stage1": Entry(posthoc.stage1, None, Traits(needs_head=True, implied_prior="train")),
        "tau_norm": Entry(
            posthoc.tau_norm,
            "kang2020",
            Traits(needs_head=True, origin_matters="the bias is dropped, so that the origin is where all classes meet"),
        ),
        "temperature": Entry(
            posthoc.temperature, "guo2017", Traits(needs_head=True, needs_held_out=True, implied_prior="train")
        ),
        "unlearn": Entry(
            posthoc.unlearn,
            None,
            Traits(
                needs_head=True,
                unit_matters="t is a step in the unit of the features",
                origin_matters="it takes class means away, which are measured from the origin",
            ),
        ),
        "vs": Entry(gradient_trained.vs, "kini2021", TRAINED),
        "weight_balancing": Entry(gradient_trained.weight_balancing, "alshammari2022", TRAINED),
    }
)


def entries() -> Mapping[str, Entry]:
    """The table above and the methods that installed packages add, sorted by name.

    Raises: InputError if a package takes a name that exists.
    """
    found = dict(METHODS)
    for point in entry_points(group=GROUP):
        if point.name in found:
            raise InputError(f"{point.value} wants to add the method {point.name!r}, which exists; rename it")
        try:
            loaded = point.load()
        except Exception as error:  # whatever a stranger's module raises must not take the other methods away
            message = f"the method {point.name!r} of {point.value} cannot be loaded: {error}"
            warnings.warn(message, PoiseWarning, stacklevel=2)
            continue
        found[point.name] = loaded if isinstance(loaded, Entry) else _entry_of(loaded)
    return dict(sorted(found.items()))


def _entry_of(factory: Callable[..., Method]) -> Entry:
    """The row of a plain factory: one that takes the options of training has the traits of a trained method."""
    return Entry(factory, traits=TRAINED if _takes_options(factory) else Traits())


def _takes_options(factory: Callable[..., Method]) -> bool:
    return "epochs" in _further(factory)


def _further(factory: Callable[..., Method]) -> tuple[str, ...]:
    """What a factory takes by `**`: the fields of the TypedDict that it names there, else the options of training."""
    for p in inspect.signature(factory).parameters.values():
        if p.kind is p.VAR_KEYWORD:
            named = [part for part in get_args(p.annotation) if is_typeddict(part)]
            return tuple((named[0] if named else Options).__annotations__)
    return ()


def available() -> tuple[str, ...]:
    """Names of all methods."""
    return tuple(entries())


@dataclass(frozen=True)
class Parameter:
    """A parameter of a method: its name, its default (`inspect.Parameter.empty` if required) and its annotation."""

    name: str
    default: Any
    annotation: Any

    @property
    def required(self) -> bool:
        """Has it no default?"""
        return self.default is inspect.Parameter.empty


def parameters(name: str) -> dict[str, Parameter]:
    """A method's own parameters by name, in the order of its signature; the options of training not included."""
    signature = inspect.signature(_entry(name).factory)
    return {
        p.name: Parameter(p.name, p.default, p.annotation)
        for p in signature.parameters.values()
        if p.kind is not p.VAR_KEYWORD
    }


def is_trained(name: str) -> bool:
    """Does the method take the options of training beside its own parameters?"""
    return _takes_options(_entry(name).factory)


def further(name: str) -> tuple[str, ...]:
    """What a method takes beside its own parameters: the options of training, or the parameters of its loss."""
    return _further(_entry(name).factory)


def build(name: str, **params: Any) -> Method:
    """The named method with these parameters; a trained one also takes the options of training.

    Raises: InputError for a name, parameter or value that does not exist, with what is near it.
    """
    own = parameters(name)
    allowed = [*own, *further(name)]
    for given in params:
        if given not in allowed:
            meant = near(given, allowed) or ";"
            raise InputError(f"{name} has no parameter {given!r}{meant} it takes {', '.join(allowed)}")
    missing = [p.name for p in own.values() if p.required and p.name not in params]
    if missing:
        raise InputError(f"{name} needs the parameter {missing[0]!r}")
    try:
        return _entry(name).factory(**params)
    except TypeError as error:
        raise InputError(f"{Spec(name, params)}: {error}") from error


def from_spec(spec: Spec | str) -> Method:
    """The method that a Spec, or its text, names; chained specs give chained methods."""
    spec = Spec.parse(spec) if isinstance(spec, str) else spec
    first, *rest = (build(step.name, **dict(step.params)) for step in spec.steps)
    return then(first, *rest)


def settings(spec: Spec) -> dict[str, Any]:
    """Everything that a single step is run with: its own parameters, its plan and its choices, defaults included."""
    own = {p.name: p.default for p in parameters(spec.name).values()} | dict(spec.params)
    return own | _training(build(spec.name, **dict(spec.params)))


def defaults(name: str) -> dict[str, Any]:
    """The options of training that the method uses where none is given; empty for one that is not trained."""
    return _training(build(name)) if is_trained(name) else {}


def _training(method: Method) -> dict[str, Any]:
    return {**vars(method.plan), **gradient_trained.choices(method)} if isinstance(method, Retrain) else {}


def implied_prior(spec: Spec) -> Literal["train", "uniform"] | None:
    """The class prior for which the softmax of this method's head is meant; None where it is not known.

    Known for single methods at the default values of what shapes the prior. A temperature keeps that of its input, and
    logit adjustment at its default strength takes the training prior out of a head that is meant for it.
    """
    *before, last = spec.steps
    if not before:
        return _prior_alone(last)
    word = implied_prior(sum(before[1:], before[0]))
    if last.name == "temperature":
        return word
    return "uniform" if word == "train" and last.name == "logit_adjustment" and not _shaped(last) else None


def _prior_alone(step: Spec) -> Literal["train", "uniform"] | None:
    traits = _entry(step.name).traits
    changed = _shaped(step)
    if traits.prior_by_loss and changed == {"loss"}:
        return traits.prior_by_loss.get(dict(step.params)["loss"])
    return None if changed else traits.implied_prior


def _shaped(step: Spec) -> set[str]:
    """The parameters that shape the prior of the softmax and are not at their defaults."""
    own = parameters(step.name)
    shaping = {*own, *further(step.name), "start", "sampler"} - PLAN_WORDS - {"transform", "shrinkage"}
    return {key for key, value in step.params if key in shaping and not (key in own and own[key].default == value)}


def traits_of(spec: Spec) -> tuple[Traits, ...]:
    """The traits of every step of a spec. Raises: InputError for a method that does not exist."""
    return tuple(_entry(step.name).traits for step in spec.steps)


def unit_matters(spec: Spec) -> bool:
    """Do the predictions of a method depend on the unit of the features, by its definition?"""
    kept = ("bias", "keep")  # of tau_norm, which is l2_norm with a strength
    return any(_entry(step.name).traits.unit_matters or kept in step.params for step in spec.steps)


def _entry(name: str) -> Entry:
    # Looking through installed packages takes milliseconds, so it is left to names that are not in the table.
    table = METHODS if name in METHODS else entries()
    if name not in table:
        raise InputError(f"no method is called {name!r}{near(name, table)}; see `poise methods`")
    return table[name]


# --- names for narrow columns ----------------------------------------------------------------------------------------

PLAN_WORDS = frozenset(Options.__annotations__) - {"start", "sampler"}


def short_name(method: str) -> str:
    """The method with its own parameters only: options of training become an ellipsis."""
    try:
        steps = Spec.parse(method).steps
    except ValueError:  # "a | b" of a cross-fit, "crt, epoch 3" of the papers' protocol
        return method
    return "+".join(_short(step, PLAN_WORDS - _own(step.name)) for step in steps)


def _own(name: str) -> Set[str]:
    return parameters(name).keys() if name in METHODS else frozenset()


def told_apart(methods: Sequence[str]) -> list[str]:
    """Settings of one method with the parameters in which they differ; what all have alike becomes an ellipsis."""
    chains = [Spec.parse(method).steps for method in methods]
    if len(chains) < 2 or len({tuple(step.name for step in steps) for steps in chains}) > 1:
        return [short_name(method) for method in methods]
    columns = zip(*(tuple(set(step.params) for step in steps) for steps in chains), strict=True)
    alike = [{key for key, _ in set.intersection(*stated)} for stated in columns]
    return ["+".join(map(_short, steps, alike)) for steps in chains]


def _short(step: Spec, without: Set[str]) -> str:
    own = [f"{key}={value}" for key, value in step.params if key not in without]
    hidden = ["..."] if len(own) < len(step.params) else []
    return f"{step.name}({','.join([*own, *hidden])})" if step.params else step.name
