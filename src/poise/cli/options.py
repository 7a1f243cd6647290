"""The options that several verbs share, as values.

A verb asks for a value, as in `tune(train: Train, *, rows: Rows, voice: Voice)`; `spread` shows typer the fields of
each as options of their own.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli import completion

if TYPE_CHECKING:
    from poise.decisions.targets import Targets

Train = Annotated[
    str,
    typer.Argument(
        help="Training rows: a run of `poise train`, a store folder, .csv, .tsv, .parquet, .npz, .npy or .safetensors; "
        "FILE#NAME for one split of a file that holds several."
    ),
]
HeadFile = Annotated[
    Path | None, typer.Option("--head", help="Stage-1 classifier: .safetensors or .npz with weight and bias.")
]
Label = Annotated[str | None, typer.Option(help="Column or array of the labels.")]
Ignore = Annotated[str, typer.Option(help="Columns that are no features, separated by commas.")]
Image = Annotated[str | None, typer.Option("--image", help="Column of images or their paths.")]
Root = Annotated[Path | None, typer.Option(help="Folder that the paths of a table or list of images start from.")]
Trusted = Annotated[str | None, typer.Option("--backbone", help="The network of your own that the folder may run.")]
Prior = Annotated[
    str, typer.Option(help="Class prior of deployment: uniform, train, or a JSON file {class name: share}.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="Change one key of the recipe, such as 'stage1.lr=0.05'; repeat."),
]
Search = Annotated[
    str,
    typer.Option(
        autocompletion=completion.searches,
        help="full: every setting is trained in full. halving: only the best sixth after 0.3 of the epochs, half the "
        "work. sketch: for large rows, looks at the settings on 128 principal axes first.",
    ),
]
Folds = Annotated[int, typer.Option(min=2, help="Folds of cross-validation.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of row orders, fresh starts and folds.")]
Out = Annotated[Path | None, typer.Option(help="Folder to write into.")]


def out_of(default: str) -> Any:
    """The option --out of a verb that writes into `default` where no folder is named."""
    return typer.Option(help=f"Folder to write into. (default: {default})")


Spreadsheet = Annotated[
    bool,
    typer.Option(
        "--spreadsheet",
        help="Make the CSV for a spreadsheet: texts that it would run as formulas begin with an apostrophe.",
    ),
]


@dataclass(frozen=True)
class Voice:
    """How a result is said."""

    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but warnings, errors and the paths written.")
    ] = False

    @property
    def silent(self) -> bool:
        """Is nothing said while the work goes on?"""
        return self.quiet or self.as_json


@dataclass(frozen=True)
class Rows:
    """How feature rows are read, and which of them the backbone never saw."""

    held_out: Annotated[str | None, typer.Option(help="Rows that the backbone never saw, to choose settings on.")] = (
        None
    )
    label: Label = None
    groups: Annotated[
        str | None, typer.Option("--groups", help="Column of groups that stay together (site, patient).")
    ] = None
    ignore: Ignore = ""
    seen: Annotated[
        bool | None,
        typer.Option(
            "--seen/--unseen",
            help="Did the training rows train the model that made the features? --unseen for a pretrained one (CLIP, "
            "DINO, a sentence encoder), --seen if it was trained or fine-tuned on them. (default: not known)",
        ),
    ] = None


@dataclass(frozen=True)
class ItemColumns:
    """What holds the images or texts of a table, and where their paths start."""

    image: Image = None
    text: Annotated[str | None, typer.Option("--text", help="Column of texts.")] = None
    root: Root = None

    def asked(self, rows: Rows) -> dict[str, Any]:
        """How samples are read, in the words of `poise.data.samples.formats.open_samples`."""
        return {"label": rows.label, "group": rows.groups, "image": self.image, "text": self.text, "root": self.root}


@dataclass(frozen=True)
class Goal:
    """What a model is for: the class prior where it is used, and what its decisions should meet."""

    prior: Prior = "uniform"
    abstain_accuracy: Annotated[
        float | None,
        typer.Option(
            help="Abstain so that the answers given are right this often, at the stated --confidence; refused where "
            "the held-out rows are too few to show it (0.9 takes 29 that are all right)."
        ),
    ] = None
    coverage: Annotated[
        float | None,
        typer.Option(help="Abstain so that about this share of rows is answered; promises nothing of the answers."),
    ] = None
    precision: Annotated[
        float | None,
        typer.Option(
            help="A threshold per class above which its answers are right this often, at the stated --confidence; a "
            "class that cannot show it (0.9 takes 29 answers that are all right) is never answered."
        ),
    ] = None
    confidence: Annotated[
        float, typer.Option(help="Confidence of --abstain-accuracy and --precision, of each class by itself.")
    ] = 0.95
    jointly: Annotated[
        bool, typer.Option("--jointly", help="Let --precision hold for all classes at once; takes more rows.")
    ] = False
    alpha: Annotated[
        float | None, typer.Option(help="Conformal sets that miss the true class at most this often, per class.")
    ] = None
    top_k: Annotated[int | None, typer.Option(min=1, help="Name the k best classes.")] = None
    costs: Annotated[Path | None, typer.Option(help="JSON file {class name: cost of missing it}; 1 for others.")] = None

    def targets(self, costs: list[float] | None = None) -> "Targets":
        """What decisions should meet; `costs` (C,) are those of the file. Raises: InputError as `Targets`."""
        from poise.decisions.targets import Targets

        return Targets(
            abstain_accuracy=self.abstain_accuracy,
            coverage=self.coverage,
            precision=self.precision,
            alpha=self.alpha,
            costs=costs,
            top_k=self.top_k,
            confidence=self.confidence,
            jointly=self.jointly,
        )


@dataclass(frozen=True)
class Training:
    """How images or texts become feature rows where `poise fit` begins with them."""

    backbone: Annotated[
        str | None, typer.Option(help="Network for images or texts, such as timm:resnet50 or convnet4.")
    ] = None
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe or YAML file for images or texts.", autocompletion=completion.recipe_files),
    ] = None
    changes: Changes = None
    strict: Annotated[bool, typer.Option("--strict", help="Refuse images or texts that are in two parts.")] = False


@dataclass(frozen=True)
class Network:
    """What runs a network that is there already."""

    backbone: Trusted = None
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 0
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto"


def spread(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The verb as typer calls it: for each parameter that is a dataclass, one option per field of it."""
    own = inspect.signature(verb).parameters
    values: dict[str, Any] = {name: each.annotation for name, each in own.items() if is_dataclass(each.annotation)}
    shown = [option for name, each in own.items() for option in (_options(values[name]) if name in values else [each])]

    @wraps(verb)
    def called(**given: Any) -> Any:
        made = {
            name: kind(**{each.name: given.pop(each.name) for each in fields(kind)}) for name, kind in values.items()
        }
        return verb(**given, **made)

    called.__signature__ = inspect.Signature([option.replace(kind=option.KEYWORD_ONLY) for option in shown])  # type: ignore[attr-defined]
    called.__annotations__ = {option.name: option.annotation for option in shown}
    return called


def _options(kind: type) -> list[inspect.Parameter]:
    """The fields of a dataclass as parameters; one that stands in two values of a verb is refused by `Signature`."""
    return list(inspect.signature(kind).parameters.values())
