"""The methods described: generated from the table, the signatures and the docstrings, never written by hand."""

import inspect
import re
from collections.abc import Callable, Iterable
from importlib.resources import files
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from poise.methods import Traits, defaults, entries, gradient_trained, parameters
from poise.methods.published import published

Printable = Table | str
# How a paragraph of a method's docstring begins that says one of these things; the others are notes.
LABELS = {"formula": "Formula", "use": "When to use it", "differs": "Paper and code", "raises": "Raises"}


class Listing(NamedTuple):
    """The same content for people and for programs."""

    text: Printable
    data: Any


def references() -> dict[str, str]:
    """Citation key -> "Kang and others, Decoupling ..., ICLR 2020", from references.bib."""
    text = (files("poise") / "references.bib").read_text(encoding="utf-8")
    row = re.compile(r"@\w+\{(\w+), author = \{(.*?)\}, title = \{(.*?)\}, booktitle = \{(.*?)\}, year = \{(\d+)\}\}")
    return {key: f"{author}, {title}, {venue} {year}" for key, author, title, venue, year in row.findall(text)}


def describe_all() -> Listing:
    """Every method in one line."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True)
    table.add_column("what it is")
    table.add_column("needs", no_wrap=True)
    data = {}
    for name, entry in entries().items():
        table.add_row(name, gist(entry.summary), ", ".join(needs(entry.traits)) or "-")
        data[name] = {"summary": entry.summary, "reference": entry.reference, **vars(entry.traits)}
    return Listing(table, data)


def gist(summary: str) -> str:
    """A summary up to its colon, without the citations, which the page of the method gives."""
    return re.sub(r" \([^()]*\b(19|20)\d\d\)", "", summary.split(":")[0]).rstrip(".")


def needs(traits: Traits) -> list[str]:
    """What a method needs beside training rows, in words."""
    return [word for word, needed in (("head", traits.needs_head), ("unseen rows", traits.needs_held_out)) if needed]


def describe(name: str) -> Listing:
    """One method: docstring, parameters with defaults, options of training, published recipes."""
    own = {p.name: "required" if p.required else repr(p.default) for p in parameters(name).values()}
    entry = entries()[name]
    plan = {key: repr(value) for key, value in defaults(name).items()}
    choices = {"start": gradient_trained.STARTS, "sampler": gradient_trained.SAMPLERS}
    shown = [f"{key} = {value}{_others(choices.get(key, ()), value)}" for key, value in plan.items()]
    recipes = [f"{row.spec}\n    {row.features}{'; ' * bool(row.note)}{row.note}" for row in published(name)]
    cited = references().get(entry.reference or "", "")
    blocks = [
        f"{name}\n",
        _reflowed(inspect.getdoc(entry.factory) or ""),
        _block("Parameters", [f"{key} = {value}" for key, value in own.items()]),
        _block("Options of training", shown),
        _block("Published recipes, for raw features of their family", recipes),
        _block("Reference", [cited] if cited else []),
    ]
    data = {
        "name": name,
        "doc": inspect.getdoc(entry.factory),
        **described(entry.factory),
        "parameters": own,
        "plan": plan,
        "published": recipes,
        "reference": cited,
    }
    return Listing("\n".join(block for block in blocks if block), data)


def described(factory: Callable[..., Any]) -> dict[str, str]:
    """The docstring of a factory in parts: summary, notes, and a part for every key of `LABELS` that it has.

    A formula keeps its lines; the other parts are reflowed paragraphs.
    """
    summary, *rest = _paragraphs(inspect.getdoc(factory) or "")
    found, notes = {"summary": " ".join(summary.split())}, []
    for paragraph in rest:
        label = next((key for key, label in LABELS.items() if paragraph.startswith(f"{label}: ")), None)
        if label is None:
            notes.append(" ".join(paragraph.split()))
        else:
            text = paragraph.removeprefix(f"{LABELS[label]}: ")
            found[label] = text if label == "formula" else " ".join(text.split())
    return {**found, "notes": "\n\n".join(notes)}


def _paragraphs(doc: str) -> list[str]:
    return [paragraph.strip() for paragraph in re.split(r"\n\n|\n(?=Raises:)", doc)]


def _reflowed(doc: str) -> str:
    """Paragraphs as single lines, for the terminal to wrap at its own width."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in _paragraphs(doc))


def _others(names: Iterable[str], chosen: str) -> str:
    rest = [repr(name) for name in names if repr(name) != chosen]
    return f"  (or {', '.join(rest)})" if rest else ""


def _block(title: str, lines: list[str]) -> str:
    return "" if not lines else "\n".join([f"\n{title}", *(f"  {line}" for line in lines)])
