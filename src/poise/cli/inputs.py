"""Files of the command line as a problem: training rows, held-out rows, a head, a test split."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from poise.types import Features, Problem

__all__ = [
    "Groups",
    "HeadFile",
    "HeldOut",
    "Ignore",
    "Inputs",
    "Label",
    "Seen",
    "Test",
    "Train",
    "load_inputs",
    "per_class",
]

Train = Annotated[
    str,
    typer.Argument(
        help="Training rows: a store folder, .csv, .tsv, .parquet, .npz, .npy or .safetensors; FILE#NAME for one split "
        "of a file that holds several."
    ),
]
Test = Annotated[
    str | None,
    typer.Option(help="Test rows, read once at the end. (default: a fifth of the rows)", show_default=False),
]
HeldOut = Annotated[
    str | None,
    typer.Option(help="Rows that the backbone never saw, to choose settings on.", show_default=False),
]
HeadFile = Annotated[
    Path | None,
    typer.Option("--head", help="Stage-1 classifier: .safetensors or .npz with weight and bias.", show_default=False),
]
Label = Annotated[str | None, typer.Option(help="Column or array of the labels.", show_default=False)]
Groups = Annotated[
    str | None,
    typer.Option("--groups", help="Column of groups that stay together (site, patient).", show_default=False),
]
Ignore = Annotated[str, typer.Option(help="Columns that are no features, separated by commas.")]
Seen = Annotated[
    bool | None,
    typer.Option("--seen/--unseen", help="Did the training rows train the backbone?", show_default=False),
]


class Inputs(NamedTuple):
    """What was read: the problem, a test split if one was wanted, groups (N,) of the training rows, and remarks."""

    problem: "Problem"
    test: "Features | None"
    groups: Any
    columns: tuple[str, ...] | None
    remarks: tuple[str, ...]
    name: str

    def with_rows_aside(self, seed: int) -> "Inputs":
        """A stratified fifth of the training rows as held-out rows, which a remark says.

        Raises: MemorisedRowsError if these rows trained the backbone.
        """
        from poise.errors import MemorisedRowsError

        if self.problem.train.seen_by_backbone:
            raise MemorisedRowsError("rows that trained the backbone cannot be set aside as unseen; give --held-out")
        train, aside, groups = _carved(self.problem.train, self.groups, seed)
        said = f"no --held-out was given: {len(aside)} rows were set aside to choose the operating point on"
        problem = replace(self.problem, train=train, held_out=aside)
        return self._replace(problem=problem, groups=groups, remarks=(*self.remarks, said))


def load_inputs(
    train: str,
    *,
    test: str | None = None,
    held_out: str | None = None,
    head: Path | None = None,
    label: str | None = None,
    groups: str | None = None,
    ignore: str = "",
    seen: bool | None = None,
    carve_test: bool = False,
    seed: int = 0,
) -> Inputs:
    """Read every file; classes are matched by name, and counts are those of the training rows.

    With `carve_test` and no test file, a stratified fifth of the training rows becomes the test split, which a remark
    says. Raises: InputError for what cannot be read or does not fit together; MemorisedRowsError if the fifth would be
    rows that trained the backbone.
    """
    from poise.errors import MemorisedRowsError
    from poise.readers.heads import read_head
    from poise.types import Problem

    table = _read(train, label=label, group_column=groups, ignore=ignore, seen_by_backbone=seen)
    rows, ids, remarks = table.features, table.groups, list(table.notes)
    evaluated = None
    if test is not None:
        evaluated = _like(rows, test, label, ignore)
    elif carve_test:
        if rows.seen_by_backbone:
            raise MemorisedRowsError("a test split cut from rows that trained the backbone says nothing; give --test")
        rows, evaluated, ids = _carved(rows, ids, seed)
        remarks.append(
            f"no --test was given: {len(evaluated)} rows, about a fifth of every class, were set aside as it"
        )
    first = None if head is None else read_head(head, classes=len(rows.counts), dim=rows.dim)
    unseen = None if held_out is None else _like(rows, held_out, label, ignore)
    name = Path(train.split("#")[0]).name
    return Inputs(Problem(rows, first, unseen), evaluated, ids, table.names, tuple(remarks), name)


def per_class(path: Path, names: Sequence[str]) -> list[float]:
    """Numbers of a JSON file {class name: number} in the order of the classes.

    Raises: InputError naming the file and the class that is missing, unknown or has no number.
    """
    from poise.errors import InputError

    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(given, dict):
        raise InputError(f"{path} must hold one table {{class name: number}}")
    for name in (*given, *names):
        if name not in names:
            raise InputError(f"{path} names the class {name!r}, which the training rows do not have")
        if isinstance(given.get(name), bool) or not isinstance(given.get(name), int | float):
            raise InputError(f"{path} needs a number for the class {name!r}, got {given.get(name)!r}")
    return [float(given[name]) for name in names]


def _read(path: str, *, label: str | None, ignore: str, **more: Any) -> Any:
    from poise.readers import read_features

    file, _, key = path.partition("#")
    names = [name.strip() for name in ignore.split(",") if name.strip()]
    return read_features(file, label_column=label, key=key or None, ignore=names, **more)


def _like(rows: "Features", path: str, label: str | None, ignore: str) -> "Features":
    """Rows of another file with the classes and training counts of `rows`; the backbone never saw them."""
    names = rows.class_names
    more: dict[str, Any] = {"counts": rows.counts} if names is None else {"counts": rows.counts, "class_names": names}
    read: Features = _read(path, label=label, ignore=ignore, seen_by_backbone=False, **more).features
    return replace(read, class_names=names)


def _carved(rows: "Features", groups: Any, seed: int) -> "tuple[Features, Features, Any]":
    """Training rows and a stratified fifth as the test split; a class of one row keeps it for training."""
    import torch

    from poise.folds import fold_ids, scorable
    from poise.types import ClassCounts

    ids = fold_ids(rows.y, 5, groups=groups, seed=seed)
    aside = (ids == 0) & scorable(rows.y, ids)
    kept = (~aside).nonzero().flatten()
    y = rows.y[kept]
    counts = ClassCounts(torch.bincount(y, minlength=len(rows.counts)))
    train = replace(rows.take(kept), counts=counts)
    test = replace(rows.take(aside.nonzero().flatten()), counts=counts, seen_by_backbone=False)
    return train, test, None if groups is None else _picked(groups, kept.tolist())


def _picked(groups: Sequence[Any], rows: list[int]) -> list[Any]:
    return [groups[row] for row in rows]
