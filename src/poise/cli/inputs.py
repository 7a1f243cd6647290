"""Files of the command line as a problem: training rows, held-out rows, a head, a test split."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from poise.cli.shared import progress_bar
from poise.values.checks import existing

if TYPE_CHECKING:
    from poise.cli.options import Rows
    from poise.deployment.model import Model
    from poise.values.features import Features
    from poise.values.head import Head
    from poise.values.problem import Problem


class Inputs(NamedTuple):
    """What was read: the problem, a test split if one was wanted, groups (N,) of the training rows, and remarks.

    `numbered`: the class names are those that the training file gives for the numbers in it. `deciding` are rows that
    nothing is fitted or chosen on but an operating point.
    """

    problem: "Problem"
    test: "Features | None"
    groups: Any
    columns: tuple[str, ...] | None
    remarks: tuple[str, ...]
    name: str
    numbered: bool = False
    deciding: "Features | None" = None

    @property
    def assumed(self) -> tuple[str, ...]:
        """The remarks, and what cross-validation on rows of unknown origin takes for granted."""
        if self.problem.train.seen_by_backbone is not None or self.problem.held_out is not None:
            return self.remarks
        return (
            *self.remarks,
            "it is not known whether these rows trained the model that made the features; what follows is right if "
            "they did not: say --unseen, or --seen",
        )

    def with_rows_aside(self, seed: int) -> "Inputs":
        """A stratified fifth of the training rows for an operating point alone, which a remark says.

        Raises: MemorisedRowsError if these rows trained the backbone or the head.
        """
        from poise.data.rows_aside import rows_aside
        from poise.errors import MemorisedRowsError

        if self.problem.train.seen_by_backbone or self.problem.head is not None:
            who = "the backbone" if self.problem.train.seen_by_backbone else "the given head"
            raise MemorisedRowsError(f"rows that trained {who} cannot be set aside as unseen; give --held-out")
        train, aside, groups = rows_aside(self.problem.train, self.groups, seed)
        said = f"no --held-out was given: {len(aside)} rows were set aside to choose the operating point on"
        problem = replace(self.problem, train=train)
        return self._replace(problem=problem, groups=groups, deciding=aside, remarks=(*self.remarks, said))


def load_inputs(
    train: str,
    rows: "Rows",
    *,
    test: str | None = None,
    head: Path | None = None,
    carve_test: bool = False,
    seed: int = 0,
    quiet: bool = True,
) -> Inputs:
    """Read every file; classes are matched by name, and counts are those of the training rows.

    A bar shows what is being read, unless `quiet`. With `carve_test` and no test file, a stratified fifth of the
    training rows becomes the test split, which a remark says. Columns of other files are brought into the order of the
    training rows. Raises: InputError for what cannot be read or does not fit together; MemorisedRowsError if the fifth
    would be rows that trained the backbone or the head.
    """
    from poise.data.head_files import read_head
    from poise.values.problem import Problem

    name, held_out = _file_and_key(train)[0].absolute().name, rows.held_out
    if (run := Path(train) / "features").is_dir():
        train, test, held_out, head = _of_run(run, test, held_out, head)
    if head is not None:
        existing(head)
    with progress_bar(f"reading {Path(train).name}", quiet=quiet):
        table = _read(train, label=rows.label, ignore=rows.ignore, group_column=rows.groups, seen_by_backbone=rows.seen)
    found, ids, remarks, tested = table.features, table.groups, list(table.notes), None
    if test is not None:
        with progress_bar(f"reading {Path(test).name}", quiet=quiet):
            tested = _like(found, table.names, test, rows)
    elif carve_test:
        found, tested, ids = _tested(found, ids, head, seed)
        remarks.append(f"no --test was given: {len(tested)} rows, about a fifth of every class, were set aside as it")
    first = None
    if head is not None:
        first = read_head(head, classes=len(found.counts), dim=found.dim, names=found.class_names)
        remarks += _misfit(first, found)
    unseen = None if held_out is None else _like(found, table.names, held_out, rows)
    remarks += _alike(found.class_names or ())
    return Inputs(Problem(found, first, unseen), tested, ids, table.names, tuple(remarks), name, table.numbered)


def _tested(rows: "Features", groups: Any, head: Path | None, seed: int) -> "tuple[Features, Features, Any]":
    """Rows, and a fifth of them as the test split. Raises: MemorisedRowsError if something was trained on them."""
    from poise.data.rows_aside import rows_aside
    from poise.errors import MemorisedRowsError

    if rows.seen_by_backbone or head is not None:
        who = "the backbone" if rows.seen_by_backbone else "the given head"
        raise MemorisedRowsError(f"a test split cut from rows that trained {who} says nothing; give --test")
    return rows_aside(rows, groups, seed)


def _of_run(
    stores: Path, test: str | None, held_out: str | None, head: Path | None
) -> tuple[str, str | None, str | None, Path | None]:
    """What a run of `poise train` or `poise fit` stored, where nothing else is given."""

    def there(path: Path) -> str | None:
        return str(path) if path.exists() else None

    classifier = there(stores.parent / "representation" / "head.safetensors")
    return (
        str(stores / "train"),
        test or there(stores / "test"),
        held_out or there(stores / "held_out"),
        head or (None if classifier is None else Path(classifier)),
    )


def _misfit(head: "Head", rows: "Features") -> list[str]:
    """A remark on a head that guesses; where classes have names, with their order and what settles it."""
    from poise.heads.memorised_rows import guessing
    from poise.values.wording import some

    remark = guessing("the given head", head, rows)
    if remark is None:
        return []
    if rows.class_names is None:
        return [remark]
    return [f"{remark} Here it is {some(rows.class_names)}; class_names in the file of the head settle it"]


def _alike(names: Sequence[str]) -> list[str]:
    """A remark on class names that differ in case or spaces only."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            return [f"the classes {other!r} and {name!r} differ in case or spaces only; they count as two"]
    return []


def refuse_swapped(train: str, method: str) -> None:
    """Raises: InputError if the rows stand in the place of the method."""
    from poise.errors import InputError

    if Path(method).exists() and not _file_and_key(train)[0].exists():
        raise InputError(f"the rows come before the method: `poise tune {method} {train}`")


def per_class(path: Path, names: Sequence[str], default: float | None = None) -> list[float]:
    """Numbers of a JSON file {class name: number} in the order of the classes; `default` for those that it leaves out.

    Raises: InputError naming the file and the class that is missing, unknown or has no number.
    """
    from poise.errors import InputError
    from poise.values.wording import near

    given = _json_table(existing(path))
    if default is not None:
        given = {**dict.fromkeys(names, default), **given}
    for name in given:
        if name not in names:
            hint = near(name, names)
            raise InputError(f"{path} names the class {name!r}, which the training rows do not have{hint}")
    for name in names:
        if name not in given:
            raise InputError(f"{path} has no number for the class {name!r}; add it")
        if not isinstance(given[name], float):
            raise InputError(f"{path} needs a number for the class {name!r}, got {given[name]!r}")
    return [given[name] for name in names]


def _json_table(path: Path) -> dict[str, Any]:
    from poise.machine.documents import read_table
    from poise.values.checks import is_number

    given = read_table(path, "write one table {class name: number}")
    return {name: float(value) if is_number(value) else value for name, value in given.items()}


def class_prior(given: str, names: Sequence[str]) -> str | list[float]:
    """The word uniform or train, or the shares of a JSON file in the order of the classes.

    Raises: InputError for another word, or for shares that are negative or do not sum to 1.
    """
    from poise.errors import InputError
    from poise.priors import as_prior
    from poise.values.counts import ClassCounts

    if given in ("uniform", "train"):
        return given
    if not given.lower().endswith(".json"):
        raise InputError(f"--prior must be uniform, train or a .json file {{class name: share}}; got {given!r}")
    shares = per_class(Path(given), names)
    try:
        as_prior(shares, ClassCounts.from_labels(range(len(names))))
    except InputError as error:
        raise InputError(f"{given}: {error}") from None
    return shares


def labelled_rows(path: str, model: "Model", *, label: str | None, ignore: str, quiet: bool) -> "Features":
    """Labelled rows with the classes, training counts and columns of a model. Raises: InputError as `load_inputs`."""
    columns = model.provenance.get("columns")
    with progress_bar(f"reading {Path(path).name}", quiet=quiet):
        table = _read(
            path,
            label=label,
            ignore=ignore,
            counts=model.counts,
            class_names=model.class_names,
            seen_by_backbone=False,
        )
    rows: Features = replace(table.features, class_names=model.class_names)
    return rows if columns is None or table.names is None else _in_order(rows, table.names, columns, path)


def _in_order(rows: "Features", names: Sequence[str], columns: Sequence[str], path: str) -> "Features":
    """Rows whose columns have `names`, with the `columns` of the training rows alone. Raises: InputError."""
    from poise.data.tables.reader_contract import listed
    from poise.errors import InputError

    missing = [name for name in columns if name not in names]
    if missing:
        raise InputError(
            f"{path} has no numeric column {missing[0]!r}, which the training rows have; it has {listed(names)}"
        )
    return replace(rows, x=rows.x[..., [names.index(name) for name in columns]])


def unlabelled(path: str, columns: Sequence[str] | None, ignore: str) -> Any:
    """Rows without labels of FILE or FILE#NAME; tables are read in the order of `columns` if there are any."""
    from poise.data.row_files import read_rows
    from poise.data.tables.reader_contract import kind_of

    file, key = _file_and_key(path)
    tabular = kind_of(file) in (".csv", ".tsv", ".parquet")
    wanted = columns if tabular else None
    return _said_once(lambda: read_rows(file, key=key, columns=wanted, ignore=_listed(ignore)))


def without_torch(path: str, columns: Sequence[str] | None, ignore: str) -> Any:
    """The same for a model that needs no torch, of a file of features."""
    from poise.export.rows_for_onnx import read_rows

    file, key = _file_and_key(path)
    return _said_once(lambda: read_rows(file, key=key, columns=columns, ignore=_listed(ignore)))


def _read(path: str, *, label: str | None, ignore: str, **more: Any) -> Any:
    from poise.data.row_files import read_features

    file, key = _file_and_key(path)
    _refuse_folder(file)
    return _said_once(lambda: read_features(file, label_column=label, key=key, ignore=_listed(ignore), **more))


def _refuse_folder(folder: Path) -> None:
    """Raises: InputError for a folder that never was a store of feature rows."""
    from poise.data.store.manifest import MANIFEST
    from poise.errors import InputError

    if (folder / "model.json").exists():
        raise InputError(
            f"{folder} is a model; give the rows that it was made of, or the folder of a run with its features"
        )
    if not folder.is_dir() or (folder / MANIFEST).exists() or list(folder.glob("*.safetensors*")):
        return
    inner = sorted(store.parent.name for store in folder.glob(f"*/{MANIFEST}"))
    if inner:
        raise InputError(f"{folder} holds the stores {', '.join(inner)}; name one of them: {folder / inner[0]}")
    raise InputError(
        f"{folder} is a folder without feature rows; if it holds images, `poise fit {folder} --out RUN` makes rows of "
        "them, and `poise compare RUN` compares heads on these"
    )


def _file_and_key(path: str) -> tuple[Path, str | None]:
    """FILE and NAME of FILE#NAME. A # may be part of a path that exists."""
    file, mark, key = path.rpartition("#")
    return (Path(path), None) if not mark or Path(path).exists() else (Path(file), key or None)


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _said_once(read: Callable[[], Any]) -> Any:
    """What `read` returns, with its warnings passed on; its notes are those that it did not warn of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read()
    for warning in caught:
        warnings.warn(warning.message, stacklevel=2)
    said = {str(warning.message) for warning in caught}
    return found._replace(notes=tuple(note for note in found.notes if note not in said))


def _like(rows: "Features", columns: tuple[str, ...] | None, path: str, how: "Rows") -> "Features":
    """Rows of another file with the classes, training counts and columns of `rows`; the backbone never saw them."""
    names = rows.class_names
    more: dict[str, Any] = {"counts": rows.counts} if names is None else {"counts": rows.counts, "class_names": names}
    table = _read(path, label=how.label, ignore=how.ignore, seen_by_backbone=False, **more)
    found: Features = replace(table.features, class_names=names)
    return found if columns is None or table.names is None else _in_order(found, table.names, columns, path)
