"""The model card: what a model is, for whom its probabilities are meant, and what is known of its errors.

Class names are shown as they are, whatever they hold: every character that Markdown or HTML could read as markup is
written as its number, and one that no reader sees as its escape.
"""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import yaml
from torch import Tensor

from poise.decisions.targets import guarantee_in_words
from poise.deployment.model import Model
from poise.export.final import Final, final
from poise.results.contents import Contents, Range, Row
from poise.values.wording import percent

OPEN = 20  # classes that a table shows without being opened
BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
HIDDEN = {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
GROUPS = {"all": "all rows", "balanced": "balanced", "many": "many", "medium": "medium", "few": "few"}
# Keys of provenance, and how a card calls them.
TOLD = {
    "data": "data",
    "split": "split hash",
    "train": "hash of the training rows",
    "held_out": "hash of the held-out rows",
    "backbone": "backbone",
    "seed": "seed",
}


def plain(text: str) -> str:
    """The text in one line of Markdown that shows it and nothing else.

    >>> plain("<b>|")
    '&#60;b&#62;&#124;'
    """
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character in BIDI or unicodedata.category(character) in HIDDEN:
        return "".join(map(_shown, character.encode("unicode_escape").decode()))
    harmless = not character.isascii() or character.isalnum() or character in " ,"
    return character if harmless else f"&#{ord(character)};"


def front_matter(library: str, tags: Sequence[str], kind: str | None) -> str:
    """The YAML block that a card begins with. No licence: it is for the owner to choose."""
    data: dict[str, Any] = {"library_name": library, "tags": list(tags)}
    if kind is not None:
        data["pipeline_tag"] = kind
    return f"---\n{yaml.safe_dump(data, allow_unicode=True, sort_keys=True)}---\n"


def model_card(
    model: Model, *, head: str, title: str, loading: str, contents: Contents | None = None, command: str | None = None
) -> str:
    """README.md: `head` is its front matter, `loading` Markdown that says how to load it.

    Scores are those of `contents` for the model's method, if it has them; `command` is what wrote the model.
    """
    made = final(model)
    parts = {
        "": f"# {plain(title)}\n\n{_what(model)}",
        "How to load it": loading,
        "What its probabilities mean": _meaning(model),
        "How answers are given": _answers(model, made),
        "How good it is": _scores(model, contents),
        "Training rows per class": _counts(model),
        "Limits": LIMITS,
        "Where it comes from": _origin(model, command),
    }
    return head + "\n".join(f"## {name}\n\n{text}\n" if name else f"{text}\n" for name, text in parts.items())


LIMITS = """- It knows the classes of the table and no others: whatever else it is shown gets one of these names.
- Every row has one class; it was not made for several at once.
- Rare classes are measured on few rows, so their scores are less certain than the average; look at the groups.
- It was made for data like its training rows. Other cameras, sites or times need a check on labelled rows of theirs."""


def _code(text: object) -> str:
    return f"<code>{plain(str(text))}</code>"


def _what(model: Model) -> str:
    n, backbone = model.counts.n, model.provenance.get("backbone")
    of = f" on the features of {_code(backbone)}" if backbone else " on rows of features"
    return (
        f"A classifier of {len(n)} classes, made for long-tailed data by Poise: a linear head{of}, fitted by "
        f"{_code(model.method)} to {int(n.sum())} training rows, {int(n.max())} in the largest class and "
        f"{int(n.min())} in the smallest."
    )


def _meaning(model: Model) -> str:
    prior = model.prior_applied
    if prior is None:
        return "It is not known which class frequencies the softmax of its logits is meant for: treat it as a score."
    if _is_uniform(prior):
        meant = "a deployment where every class is equally frequent"
    elif torch.allclose(prior, model.counts.prior.to(prior), atol=1e-9):
        meant = "a deployment where classes are as frequent as in the training rows"
    else:
        meant = "a deployment where classes are as frequent as the last column of the table below says"
    return (
        f"The softmax of its logits is meant for {meant}. Where they are not, add the logarithm of the new frequency "
        "minus that of the old one to every logit; a change of frequencies needs no new training."
    )


def _is_uniform(prior: Tensor) -> bool:
    return torch.allclose(prior, torch.full_like(prior, 1 / len(prior)))


def _answers(model: Model, made: Final) -> str:
    point = model.operating
    if point is None:
        return "The class with the largest logit is the answer."
    promised = guarantee_in_words(model.provenance.get("guaranteed"))
    lines = [f"Chosen with the model: {'; '.join(map(plain, [*point.described(), *promised]))}."]
    if made.added is not None:
        lines.append("The logarithms of the costs lie in the bias: the largest logit is the answer of least cost.")
    else:
        lines.append("No logits can carry this: the numbers are in config.json, under poise and operating.")
    return " ".join(lines)


def _scores(model: Model, contents: Contents | None) -> str:
    row = None if contents is None else _row(model.method, contents.rows)
    if contents is None or row is None:
        return "No scores came with the model. `poise compare` measures it on labelled rows that trained nothing."
    many, few = contents.classes.edges
    rows = [[GROUPS[name], _percent(row.scores[name])] for name in GROUPS if row.scores.get(name) is not None]
    return "\n\n".join(
        (
            f"Accuracy in per cent, with 95 % intervals; scored on {plain(contents.scored_on)}. Many: classes with "
            f"more than {many} training rows; few: with fewer than {few}; balanced: the mean over classes.",
            _table(("rows", "accuracy"), rows),
            "Measured before the head was adjusted to its prior of deployment; for equally frequent classes that "
            "changes no answer.",
        )
    )


def _row(method: str, rows: Sequence[Row]) -> Row | None:
    return next((row for row in rows if row.method == method), None)


def _percent(value: Range | None) -> str:
    if value is None:
        return "-"
    bounded = value.low is not None and value.high is not None
    return percent(value.estimate) + (f" ({percent(value.low)} to {percent(value.high)})" if bounded else "")


def _counts(model: Model) -> str:
    prior = model.prior_applied
    columns: dict[str, Callable[[int], str]] = {
        "class": lambda k: plain(model.class_names[k]),
        "training rows": lambda k: str(int(model.counts.n[k])),
    }
    if prior is not None and not _is_uniform(prior):
        columns["frequency meant"] = lambda k: f"{float(prior[k]):.3g}"
    order = range(len(model.class_names))
    table = _table(tuple(columns), [[cell(k) for cell in columns.values()] for k in order])
    if len(order) <= OPEN:
        return table
    return f"<details>\n<summary>All {len(order)} classes</summary>\n\n{table}\n\n</details>"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---", *["---:"] * (len(heading) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _origin(model: Model, command: str | None) -> str:
    origin: Mapping[str, Any] = model.provenance
    said = {
        "method": model.method,
        **{name: origin[key] for key, name in TOLD.items() if origin.get(key) is not None},
        "versions": ", ".join(f"{name} {value}" for name, value in dict(origin.get("versions", {})).items()),
        "command": command,
    }
    return "\n".join(f"- {name}: {_code(value)}" for name, value in said.items() if value not in (None, ""))
