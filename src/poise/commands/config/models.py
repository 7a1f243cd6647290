"""What a configuration may hold: one frozen model per section."""

from functools import partial
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from poise.commands.config.refusals import STRICT, section, under
from poise.commands.config.stage1_keys import STAGE1, Stage1Keys, refuse_steps
from poise.data.long_tails import SHAPES
from poise.errors import InputError
from poise.methods import from_spec
from poise.profiles import SPLITS
from poise.representation.settings import Stage1
from poise.values.spec import Spec
from poise.values.wording import near

SCHEMA = 1
Plain = bool | int | float | str | None


class _Section(BaseModel):
    model_config = STRICT


def _says(default: Any, allowed: str, **limits: Any) -> Any:
    """A key with its default; `allowed` completes the sentence "KEY must be ...", and explains it in an editor."""
    return Field(default, description=allowed, **limits)


class Source(_Section):
    """Where the numbers come from.

    `released` code, the text of the `paper`, somebody else's `port` to other data, or our `own` choice. `reference` is
    a key of `references.bib`.
    """

    reference: str | None = _says(None, "a text or null (key of the paper)")
    form: Literal["released", "paper", "port", "own"] = _says("own", "one of released, paper, port, own")


class Data(_Section):
    """Which samples, and how they are divided.

    What `train` brings along (a validation or test split of its own) is used where `held_out` or `test` is null; what
    is then still missing is set aside from training: `held_out_rows` and `test_rows`, a whole number per class, a share
    of each class, or 0 for none. Where a profile leaves rows over, held-out rows are taken from those.
    """

    train: str | None = _says(None, "a path, hf:NAME, or null (training samples)")
    test: str | None = _says(None, "a path, hf:NAME, or null (test samples)")
    held_out: str | None = _says(None, "a path, hf:NAME, or null (samples that no training sees)")
    format: str | None = _says(None, "a text or null (format of the files; null recognises it)")
    label: str | None = _says(None, "a text or null (column of the labels)")
    image: str | None = _says(None, "a text or null (column of the images)")
    text: str | None = _says(None, "a text or null (column of the texts)")
    group: str | None = _says(None, "a text or null (column of groups that stay together)")
    root: str | None = _says(None, "a path or null (folder that paths in a list or table start from)")
    profile: str | None = _says(None, "a text or null (long tail to cut, such as exponential(imbalance=100))")
    class_order: Literal["native"] | int | tuple[int, ...] = _says(
        "native", "native, a whole number, 0 or more (seed), or a list of all class numbers", union_mode="smart"
    )
    order: Literal["first", "ldam"] | int | None = _says(
        None, "first, ldam, a whole number, 0 or more (seed), or null (that of the profile)"
    )
    held_out_rows: int | float = _says(0.1, "a whole number per class, or a share of at most 0.5 (0 for none)")
    test_rows: int | float = _says(0.2, "a whole number per class, or a share of at most 0.5 (0 for none)")
    seed: int = _says(0, "a whole number, 0 or more (of the choice of rows that are set aside)", ge=0)
    broken: Literal["error", "skip"] = _says("error", "one of error, skip (images that cannot be read)")

    @field_validator("class_order", "order")
    @classmethod
    def _seed(cls, value: Any, info: Any) -> Any:
        if isinstance(value, int) and value < 0:
            raise InputError(f"data.{info.field_name} must be {_described(cls, info.field_name)}; got {value}")
        return value

    @field_validator("held_out_rows", "test_rows")
    @classmethod
    def _amount(cls, value: int | float, info: Any) -> int | float:
        if value < 0 or (isinstance(value, float) and value > 0.5):
            raise InputError(f"data.{info.field_name} must be {_described(cls, info.field_name)}; got {value}")
        return value or 0  # none is written in one way

    @field_validator("profile")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in SPLITS:
            under("data.profile", lambda: _shape(value))
        return value


def _described(model: type[BaseModel], name: str) -> str:
    return str(model.model_fields[name].description)


def _shape(text: str) -> None:
    spec, known = Spec.parse(text), [*SHAPES, *SPLITS]
    if spec.name not in SHAPES or spec.then is not None:
        raise InputError(f"no profile is called {text!r}{near(spec.name, known) or ';'} there are {', '.join(known)}")


class Backbone(_Section):
    """The network; `options` go to whatever builds it."""

    name: str = _says(
        "resnet32", "a text (name of a network, such as resnet32, timm:resnet50 or hf:FOLDER)", min_length=1
    )
    weights: str | None = _says(None, "a path or null (file of weights)")
    pretrained: bool = _says(False, "true or false (published weights)")
    size: int | None = _says(
        None, "a whole number, 1 or more, or null (pixels per side; null is the network's own)", ge=1
    )
    options: dict[str, Plain | tuple[Plain, ...]] = _says({}, "a mapping of names to plain values or lists of them")

    @property
    def untrained(self) -> bool:
        """Are its weights random? Names with a colon other than `timm:` may bring weights of their own."""
        return not (self.pretrained or self.weights or ":" in self.name.removeprefix("timm:"))


class Extract(_Section):
    """How images become feature rows: the test-time view, then `views` augmented ones, each a copy of every row.

    A head that trains for as many epochs as there are views sees each of them once.
    """

    views: int = _says(0, "a whole number, 0 or more (augmented copies of each training image)", ge=0)
    flip: bool = _says(False, "true or false (a mirrored view of held-out and test images)")
    augment: tuple[str, ...] | None = _says(None, "a list of texts or null (that of stage 1)")
    dtype: Literal["float16", "bfloat16", "float32"] = _says("float16", "one of float16, bfloat16, float32")
    batch_size: int = _says(256, "a whole number, 1 or more", ge=1)

    @field_validator("augment")
    @classmethod
    def _steps(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        refuse_steps("extract.augment", value or ())
        return value


class Heads(_Section):
    """Which classifiers are compared, and how one is chosen.

    What a method states is held, what it leaves open is searched with at most `budget` settings.
    """

    methods: Literal["auto"] | tuple[str, ...] = _says("auto", "auto or a list of methods such as los(delta=0.98)")
    budget: int = _says(16, "a whole number, 1 or more (settings tried per method)", ge=1)
    prior: Literal["uniform", "train"] = _says("uniform", "one of uniform, train (class prior to decide for)")
    selection: Literal["held_out", "kfold", "cross_fit", "paper"] = _says(
        "held_out", "one of held_out, kfold, cross_fit, paper (rows that settings are chosen on)"
    )

    @field_validator("methods")
    @classmethod
    def _buildable(cls, value: Any) -> Any:
        if not value:
            raise InputError("heads.methods must be auto or a list of methods such as los(delta=0.98); got []")
        if value == "auto":
            return value
        return tuple(under("heads.methods", partial(_canonical, text)) for text in value)


def _canonical(text: str) -> str:
    """The one way to write a method that can be built."""
    from_spec(text)
    return str(Spec.parse(text))


class Config(_Section):
    """One run, from samples to a head. Every key has a default; `missing` says what a run still needs.

    `stage1: null` uses the backbone as it is.
    """

    schema_version: Literal[1] = _says(SCHEMA, f"{SCHEMA} (version of this layout)")
    recipe: str | None = _says(None, "a text or null (name of the recipe)")
    title: str | None = _says(None, "a text or null")
    source: Source = _says(Source(), "a mapping")
    unknown: tuple[str, ...] = _says((), "a list of texts (what the sources do not give)")
    data: Data = _says(Data(), "a mapping")
    backbone: Backbone = _says(Backbone(), "a mapping")
    stage1: Stage1Keys = _says(Stage1(), "a mapping or null (the backbone is used as it is)")
    extract: Extract = _says(Extract(), "a mapping")
    heads: Heads = _says(Heads(), "a mapping")
    workers: int = _says(0, "a whole number, 0 or more (processes that read images)", ge=0)
    device: str = _says("auto", "auto, cpu, cuda or cuda:N", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = _says(
        (), "a list of tensorboard, wandb, mlflow (where the log goes too)"
    )
    checkpoint_seconds: float = _says(120.0, "a number, 0 or more", ge=0)

    @model_validator(mode="after")
    def _views_have_steps(self) -> "Config":
        if self.stage1 is None and self.extract.views and self.extract.augment is None:
            raise InputError(
                "extract.augment must say how views differ where stage1 is null; list it, or set views to 0"
            )
        return self

    def missing(self) -> tuple[str, ...]:
        """Sentences about what must be given before this can run; none if nothing is missing."""
        sentences = []
        if self.data.train is None:
            sentences.append("data.train is not given; add -s data.train=PATH")
        if self.stage1 is None and self.backbone.untrained:
            sentences.append(f"{self.backbone.name} is not trained and stage1 is null; add -s backbone.weights=FILE")
        return tuple(sentences)


def keys(model: type[BaseModel] = Config, prefix: str = "") -> tuple[str, ...]:
    """All dotted keys, those of sections included."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        found.append(prefix + name)
        inner = STAGE1 if name == "stage1" else section(field.annotation)
        if inner is not None:
            found += keys(inner, f"{prefix}{name}.")
    return tuple(found)
