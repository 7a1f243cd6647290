"""What the verbs have in common: options, a progress bar, and how a result is said."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

__all__ = [
    "Device",
    "ImageColumn",
    "Json",
    "Out",
    "Quiet",
    "Root",
    "Seed",
    "Set",
    "TextColumn",
    "Trusted",
    "Workers",
    "answer",
    "in_options",
    "progress_bar",
    "refuse_several_processes",
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but warnings, errors and the paths written.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of row orders, fresh starts and folds.")]
Out = Annotated[Path | None, typer.Option(help="Folder to write into.", show_default=False)]

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", help="Change one key of the recipe, such as 'stage1.lr=0.05'; repeat.", show_default=False
    ),
]
ImageColumn = Annotated[
    str | None, typer.Option("--image", help="Column of images or their paths.", show_default=False)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read images.")]
Trusted = Annotated[
    str | None,
    typer.Option("--backbone", help="The network of your own that the folder may run.", show_default=False),
]
Root = Annotated[
    Path | None,
    typer.Option(help="Folder that the paths of a table or list of images start from.", show_default=False),
]
TextColumn = Annotated[str | None, typer.Option("--text", help="Column of texts.", show_default=False)]

# What the library says of its arguments, in the words of the command line.
OPTIONS = (
    ("fit(..., held_out=(X, y))", "--held-out"),
    ("Problem(held_out=Features(..., seen_by_backbone=False))", "--held-out"),
    ("Problem(held_out=...)", "--held-out"),
    ("seen_by_backbone=False", "--unseen"),
    ("seen_by_backbone=True", "--seen"),
    ("(label=)", "(--label, or -s data.label=NAME)"),
    ("(image=)", "(--image, or -s data.image=NAME)"),
    ("(text=)", "(--text, or -s data.text=NAME)"),
    ("(group=)", "(--groups, or -s data.group=NAME)"),
    ("(allow_changed=)", "with --allow-changed (poise train)"),
    (
        "replace it, or leave it out",
        "replace it, leave it out, or skip broken ones (-s data.broken=skip; predict: --broken skip)",
    ),
    ("(format=)", "(-s data.format=NAME)"),
    ("(split=)", "(--split)"),
    ("; use --device cpu", "; use --device cpu, or -s device=cpu"),
    ("(label_column=, or --label)", "(--label)"),
    ("the folder of the images as root", "the folder of the images (--root, or -s data.root=FOLDER)"),
    ("or give another root", "or the folder that it starts from (--root, or -s data.root=FOLDER)"),
)


def in_options(message: str) -> str:
    """A message of the library whose remedy is an argument, with the option that gives it."""
    for argument, option in OPTIONS:
        message = message.replace(argument, option)
    return message


def refuse_several_processes(verb: str, instead: str) -> None:
    """Raises: InputError if torchrun started several processes for a verb that is one."""
    from poise.errors import InputError

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(f"{verb} runs in one process, torchrun started {os.environ['WORLD_SIZE']}; {instead}")


@contextmanager
def progress_bar(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error; silent where that is no terminal."""
    from rich.progress import Progress, ProgressColumn, Task
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.0f}/s", style="progress.data.speed")

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), Speed())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def answer(
    data: Any,
    said: Sequence[RenderableType],
    *,
    written: Sequence[Path] = (),
    remarks: Sequence[str] = (),
    as_json: bool = False,
    quiet: bool = False,
    quiet_paths: bool = False,
) -> None:
    """Say a result once: as JSON, or as text for people, or not at all; then the paths written. Notes come first.

    With JSON, everything else goes to standard error, so that the output stays one JSON value.
    """
    for remark in remarks if not quiet else ():
        typer.echo(f"note: {remark}", err=True)
    if as_json:
        typer.echo(json.dumps(data))
    elif not quiet:
        console = Console()
        for part in said:
            console.print(part, highlight=False, markup=False, emoji=False)
    for path in written:
        typer.echo(f"wrote {path}", err=as_json or quiet_paths)
