"""Pages that are made of the code when the documentation is built: methods, verbs, the data of a report.

`write(folder)` writes docs/methods/*.md and docs/generated/*.md, which git ignores. A file that would not change is not
touched, so that a second build is quick.
"""

import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import typer
from pydantic import BaseModel

import poise
from poise import methods
from poise.cli import app
from poise.methods import descriptions
from poise.methods.published import published
from poise.results import contents

TRAIT_WORDS = {
    "needs_head": "reads the stage-1 head; without one, plain cross-entropy is fitted first",
    "needs_held_out": "needs held-out rows, which trained neither the representation nor the head",
    "stochastic": "depends on the seed",
    "order_dependent": "depends on the order of the rows",
    "transductive": "reads the evaluated rows",
}
MOVED_WORDS = {
    "unit_matters": "Its predictions depend on the unit of the features",
    "origin_matters": "Its predictions depend on the origin of the features",
}
PRIOR_WORDS = {
    "train": "At its defaults, its softmax is meant for the class frequencies of training.",
    "uniform": "At its defaults, its softmax is meant for classes that are equally frequent.",
    None: "No class prior is implied by its softmax; it is estimated on held-out rows where there are some.",
}
GALLERY = ("verdict", "one_pass", "epochs", "deployment", "audit_logits", "own_loop", "scikit_learn")


class GalleryOrder:
    """The order of the gallery, for sphinx-gallery: what most readers want first; new ones come last."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, file: str) -> tuple[int, str]:
        """The place of an example."""
        name = Path(file).stem
        return (GALLERY.index(name) if name in GALLERY else len(GALLERY), name)


def write(docs: Path) -> None:
    """All pages."""
    pages = {f"methods/{name}.md": method_page(name) for name in method_names()}
    pages["methods/index.md"] = index_of_methods()
    pages["generated/verbs.md"] = "\n\n".join(verb_section(name, command) for name, command in verbs())
    pages["generated/report.md"] = report_tables()
    pages["generated/names.md"] = table_of_names()
    for name, text in pages.items():
        _write(docs / name, text)
    for old in (docs / "methods").glob("*.md"):
        if f"methods/{old.name}" not in pages:
            old.unlink()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


# --- methods ----------------------------------------------------------------------------------------------------------


def method_names() -> list[str]:
    """The methods of the package."""
    return sorted(methods.METHODS)


def factory_of(name: str) -> Callable[..., Any]:
    """The function that makes the method."""
    return methods.METHODS[name].factory


def kind_of(name: str) -> str:
    """Which part of the index it belongs to."""
    if methods.is_trained(name) or methods.METHODS[name].traits.search_error:
        return "Trained"
    return "Closed form" if factory_of(name).__module__.endswith("closed_form") else "Post-hoc"


def index_of_methods() -> str:
    """The page with a table of each kind."""
    leads = {
        "Post-hoc": "They change the head that is there by one formula.",
        "Closed form": "They compute a head from the training features, without a stage-1 head.",
        "Trained": "They train a head on the features; any number of them is trained in one pass. `converged`"
        " alone has neither learning rate nor epochs: it searches for the optimum.",
    }
    lines = [
        "# Methods",
        "",
        "A method is a function from a problem (training rows, perhaps a head and held-out rows) to a head. Each has a",
        "page with its formula, when to use it, where the paper and its released code differ, its parameters and the",
        "published recipes. The same text is in the terminal: `poise methods NAME`.",
    ]
    for kind, lead in leads.items():
        lines += ["", f"## {kind}", "", lead, "", "| method | what it is | needs | source |", "|---|---|---|---|"]
        lines += [_index_row(name) for name in method_names() if kind_of(name) == kind]
    lines += ["", "```{toctree}", ":hidden:", "", *method_names(), "```"]
    return "\n".join(lines) + "\n"


def _index_row(name: str) -> str:
    entry = methods.METHODS[name]
    gist = descriptions.gist(descriptions.described(factory_of(name))["summary"])
    needs = descriptions.needs(entry.traits)
    source = descriptions.references()[entry.reference] if entry.reference else ""
    return f"| [`{name}`]({name}.md) | {gist} | {', '.join(needs)} | {_short(source)} |"


def _short(source: str) -> str:
    """Authors, venue and year of a reference: "Kang and others, ICLR 2020"."""
    who, _, rest = source.partition(",")
    return f"{who}, {rest.rpartition(',')[2].strip()}" if rest else ""


def method_page(name: str) -> str:
    """Formula, when to use it, paper and code, parameters, options of training, published recipes, reference."""
    said = descriptions.described(factory_of(name))
    blocks = [f"# `{name}`", said["summary"], _fenced(_filled(said["formula"].replace("`", "")))]
    blocks += [said["notes"]] if said["notes"] else []
    blocks += ["## When to use it", _sentence(said["use"])]
    if "differs" in said:
        blocks += ["## Where paper and code differ", _sentence(said["differs"])]
    blocks += ["## Parameters", _parameters(name)]
    blocks += _of_table(name)
    blocks += [f"Raises {said['raises']}"] if "raises" in said else []
    blocks += ["## See also", f"{{ref}}`The factory and its signature <reference-methods>`, `poise methods {name}`."]
    return "\n\n".join(blocks) + "\n"


def _of_table(name: str) -> list[str]:
    """The parts of a page for a method of the table."""
    entry, blocks = methods.METHODS[name], []
    if methods.is_trained(name):
        rows = [f"| `{key}` | `{value!r}` |" for key, value in methods.defaults(name).items()]
        lead = "Beside its parameters it takes the options of training; the defaults are for features scaled once:"
        blocks += ["## Options of training", lead, "\n".join(["| option | default |", "|---|---|", *rows])]
    if recipes := published(name):
        rows = [
            f"- {row.features}{f' ({row.note})' if row.note else ''}:\n\n{_fenced(_wrapped(str(row.spec)), 2)}"
            for row in recipes
        ]
        lead = "For raw features of the family named. On others a learning rate means something else: select it there."
        blocks += ["## Published recipes", lead, "\n".join(rows)]
    traits = [word for key, word in TRAIT_WORDS.items() if getattr(entry.traits, key)]
    blocks += ["## What it needs and implies", _sentence("; ".join(traits)) if traits else ""]
    blocks += [PRIOR_WORDS[entry.traits.implied_prior]]
    moved = {lead: getattr(entry.traits, key) for key, lead in MOVED_WORDS.items()}
    blocks += [f"{lead}: {reason}." for lead, reason in moved.items() if reason]
    blocks += (
        [] if any(moved.values()) else ["Features in another unit, or from another origin, give the same answers."]
    )
    if entry.reference:
        blocks += ["## Reference", descriptions.references()[entry.reference] + "."]
    return [block for block in blocks if block]


def _parameters(name: str) -> str:
    own = [p for p in inspect.signature(factory_of(name)).parameters.values() if p.kind is p.KEYWORD_ONLY]
    if not own:
        return "None of its own."
    hints = typing.get_type_hints(factory_of(name))
    rows = [f"| `{p.name}` | {_type(hints[p.name])} | {_default(p)} |" for p in own]
    return "\n".join(["| parameter | values | default |", "|---|---|---|", *rows])


def _default(parameter: inspect.Parameter) -> str:
    return "required" if parameter.default is parameter.empty else f"`{parameter.default!r}`"


def _type(hint: Any) -> str:
    """An annotation in words: its literal values, "number", "number or `None`"."""
    if typing.get_origin(hint) is Literal:
        return ", ".join(f"`{value!r}`" for value in typing.get_args(hint))
    parts = [_type(part) for part in typing.get_args(hint)] if not hasattr(hint, "__name__") else []
    names = {"float": "number", "int": "whole number", "bool": "`True`, `False`", "NoneType": "`None`", "str": "text"}
    return " or ".join(parts) if parts else names.get(getattr(hint, "__name__", ""), f"`{hint}`")


def _sentence(text: str) -> str:
    whole = text[:1].upper() + text[1:]
    return whole if whole.endswith((".", "`")) else f"{whole}."


def _fenced(text: str, indent: int = 0) -> str:
    """Lines as a block of text."""
    return "\n".join(" " * indent + line for line in ("```text", *text.splitlines(), "```"))


def _filled(text: str, width: int = 98) -> str:
    """Lines that fit a page, cut between words."""
    return "\n".join(part for line in text.splitlines() for part in textwrap.wrap(line, width))


def _wrapped(spec: str) -> str:
    """A spec with a blank after its commas, in lines that fit a page."""
    name, _, rest = spec.partition("(")
    lines, room = [f"{name}("], 88
    for part in rest.removesuffix(")").replace(",", ", ").split(" "):
        if len(lines[-1]) + len(part) > room:
            lines.append("    ")
        lines[-1] += part if lines[-1].endswith(("(", "    ")) else f" {part}"
    return "\n".join(lines) + ")"


# --- names ------------------------------------------------------------------------------------------------------------


def table_of_names() -> str:
    """What `import poise` gives, each with the first line of its docstring and a link to the reference."""
    rows = [f"| {_link(name)} | {_first_line(getattr(poise, name))} |" for name in poise.__all__]
    return "\n".join(["| name | what it is |", "|---|---|", *rows]) + "\n"


def _link(name: str) -> str:
    value, home = getattr(poise, name), poise._HOMES[name]
    if home is None:
        return f"{{py:mod}}`{name} <poise.{name}>`"
    module = value.__module__ if home == "readers" else f"poise.{home}"  # which loads its names when they are used
    return f"{{py:{'class' if inspect.isclass(value) else 'func'}}}`{name} <{module}.{name}>`"


def _first_line(value: Any) -> str:
    return _cell((inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " "))


# --- verbs ------------------------------------------------------------------------------------------------------------


def verbs() -> Iterator[tuple[str, Any]]:
    """The verbs in the order of the help."""
    yield from getattr(typer.main.get_command(app), "commands", {}).items()


def verb_section(name: str, command: Any) -> str:
    """Help, usage, arguments and options of one verb."""
    context = command.context_class(command, info_name=f"poise {name}")
    blocks, usage = [f"## poise {name}", _cell(str(command.help))], [f"poise {name}", "[OPTIONS]"]
    for kind in ("argument", "option"):
        params = [param for param in command.params if param.param_type_name == kind and not param.hidden]
        usage += [_usage(param) for param in params if kind == "argument"]
        rows = [_param_row(param, context) for param in params]
        blocks += ["\n".join([f"| {kind} | what it does | default |", "|---|---|---|", *rows])] if rows else []
    blocks.insert(2, _fenced(" ".join(usage)))
    return "\n\n".join(blocks)


def _usage(param: Any) -> str:
    word = param.name.upper() + ("..." if param.nargs == -1 else "")
    return word if param.required else f"[{word}]"


def _param_row(param: Any, context: Any) -> str:
    shown, help_ = param.get_help_record(context)
    said = " ".join(help_.split())
    found = re.search(r" ?\[([^\[\]]*)\]$", said)
    facts = dict(fact.partition(": ")[::2] for fact in found[1].split("; ")) if found else {}
    stated = re.search(r" \(default: (.*?)\)$", said[: found.start()] if found else said)
    text = (said[: found.start()] if found else said).removesuffix(stated[0] if stated else "")
    default = stated[1] if stated else "required" if "required" in facts else _code(facts.get("default", ""))
    return f"| {_names(param, shown)} | {_cell(text)} | {_cell(default)} |"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _names(param: Any, shown: str) -> str:
    """The words of an option with a word for its value; `shown` is how the help shows them."""
    if param.param_type_name == "argument":
        return f"`{param.name.upper()}`"
    kinds = (("range", "N"), ("int", "N"), ("float", "X"), ("path", "PATH"))
    kind = shown.rpartition(param.opts[-1])[2].lower()
    value = "" if param.is_flag else next((f" {word}" for known, word in kinds if known in kind), " TEXT")
    return ", ".join(f"`{word}{value}`" for word in (*param.opts, *param.secondary_opts))


def _cell(text: str) -> str:
    return re.sub(r"([|*<])", r"\\\1", text)


# --- data -------------------------------------------------------------------------------------------------------------


def report_tables() -> str:
    """The fields of report.json, from the classes that read it, and the columns of summary.csv."""
    columns = ", ".join(f"`{name}`" for name in contents.CSV_FIELDS)
    blocks = [f"### Columns of summary.csv\n\n{columns}.", "### Fields of report.json"]
    blocks += [
        "Fractions are in [0, 1]; lists are per class in the order of `classes.names`; null stands where there is "
        "nothing to measure. The JSON schema of the whole file is "
        "`poise.results.contents.Contents.model_json_schema()`."
    ]
    blocks += [_model_section(model) for model in models(contents.Contents)]
    return "\n\n".join(blocks) + "\n"


def models(first: type[BaseModel]) -> list[type[BaseModel]]:
    """A model and all that its fields are made of, in the order in which a reader meets them."""
    found, waiting = [], [first]
    while waiting:
        model = waiting.pop(0)
        if model not in found:
            found.append(model)
            waiting += [part for field in model.model_fields.values() for part in _models_in(field.annotation)]
    return found


def _models_in(hint: Any) -> Iterable[type[BaseModel]]:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return [hint]
    return [model for part in typing.get_args(hint) for model in _models_in(part)]


def _model_section(model: type[BaseModel]) -> str:
    rows = [f"| `{name}` | {_said_of_type(field.annotation)} |" for name, field in model.model_fields.items()]
    doc = " ".join((inspect.getdoc(model) or "").split())
    return "\n".join([f"#### {model.__name__}", "", doc, "", "| field | value |", "|---|---|", *rows])


def _said_of_type(hint: Any) -> str:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in parts)
    if origin is tuple:
        if len(parts) == 2 and parts[1] is ...:
            return f"list of {_said_of_type(parts[0])}"
        return f"list of {len(parts)}: " + ", ".join(map(_said_of_type, parts))
    if origin is dict:
        return f"table of {_said_of_type(parts[1])}"
    if parts:
        return " or ".join(_said_of_type(part) for part in parts)
    names = {"str": "text", "float": "number", "int": "whole number", "bool": "true or false", "NoneType": "null"}
    name = getattr(hint, "__name__", str(hint))
    return (
        f"[{name}](#{name.lower()})"
        if isinstance(hint, type) and issubclass(hint, BaseModel)
        else names.get(name, name)
    )
