"""One YAML file that describes a run, read strictly, changed by overrides, and written out in full.

    config = load_config("los_cifar100_lt_if100", ["data.train=cifar100", "stage1.seed=3"])

The first argument is a file or the name of a shipped recipe. Relative paths in a file start from the folder of that
file, those of an override from the working directory; both become absolute, so that what `dump_config` writes means the
same wherever it is read.
"""

import copy
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from poise.commands.config.models import SCHEMA, Backbone, Config, Data, Extract, Heads, Source, keys
from poise.commands.config.refusals import checked
from poise.commands.config.text import BYTES, parsed, written
from poise.errors import InputError
from poise.machine.documents import check_schema
from poise.machine.reading import text_of
from poise.values.wording import near

__all__ = [
    "Backbone",
    "Config",
    "Data",
    "Extract",
    "Heads",
    "Source",
    "config_hash",
    "differences",
    "dump_config",
    "json_schema",
    "load_config",
    "recipes",
]

LOCATIONS = (
    ("data", "train"),
    ("data", "test"),
    ("data", "held_out"),
    ("data", "root"),
    ("backbone", "weights"),
)
# Keys that say where and how the same samples are read, and what computes: a title does not repeat them.
PLACES = frozenset(("device", *(f"data.{key}" for key in ("format", "label", "image", "text", "group", "broken")))) | {
    ".".join(pair) for pair in LOCATIONS
}
FREE = "backbone.options."  # below it any key is allowed
# Keys that change no number: words about a run, how fast it reads, where it logs and how often it saves.
REMARKS = frozenset({"recipe", "title", "source", "unknown", "workers", "trackers", "checkpoint_seconds"})

Tree = dict[str, Any]


def load_config(path_or_recipe: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a file or recipe, changed by overrides such as "stage1.lr=0.05", whose values are YAML.

    Raises: InputError with one sentence that names the file or override, the dotted key, the value and the remedy.
    """
    where, text, folder = _source(path_or_recipe)
    tree = parsed(text, where)
    if not isinstance(tree, dict):
        raise InputError(f"{where} holds no mapping of keys; write lines such as 'workers: 4'")
    _refuse_newer(tree, where)
    config = _checked(_located(tree, folder), where)
    if not overrides:
        return config
    changed = _located(tree, folder)
    for override in overrides:
        _override(changed, override)
    if str(path_or_recipe) in _names() and not any(text.startswith("backbone.pretrained=") for text in overrides):
        _prefer_weights(changed)
    found = _checked(changed, f"{where} with {' '.join(f'-s {text}' for text in overrides)}")
    return found if found.title != config.title else found.model_copy(update={"title": _title(config, found)})


def _title(stated: Config, changed: Config) -> str | None:
    """A title that says what is run: what the file calls it, and every number that is another one now."""
    told = [
        f"{key.removeprefix('stage1.')} {_short(now)}"
        for key, _, now in differences(stated, changed)
        if key not in PLACES
    ]
    return stated.title if stated.title is None or not told else f"{stated.title}; here {', '.join(told)}"


def dump_config(config: Config) -> str:
    """The configuration as YAML, defaults included: reading it gives the same configuration, writing the same bytes."""
    return written(config.model_dump(mode="json"))


def config_hash(config: Config) -> str:
    """16 hex digits over every key that can change a number: not words, workers, or where it logs and saves."""
    canonical = json.dumps(_numbers(config), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def differences(one: Config, other: Config) -> list[tuple[str, Any, Any]]:
    """(dotted key, value of one, value of the other) of the keys behind `config_hash` that differ, in their order."""
    return _differing(_numbers(one), _numbers(other), "")


@cache
def recipes() -> Mapping[str, str]:
    """Name -> title of the shipped recipes, sorted by name."""
    titles = {name: load_config(name).title or "" for name in _names()}
    return MappingProxyType(titles)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a configuration, for editors that complete and check YAML."""
    return Config.model_json_schema()


# --- where texts come from -------------------------------------------------------------------------------------------


def _names() -> list[str]:
    folder = files("poise") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def _source(given: str | Path) -> tuple[str, str, Path]:
    """What messages call it, its text, and the folder that its paths start from."""
    names = _names()
    if str(given) in names:
        shipped = files("poise") / "recipes" / f"{given}.yaml"
        return f"recipe {given}", shipped.read_text(encoding="utf-8"), Path.cwd()
    path = Path(given)
    if not os.path.lexists(path):
        meant = near(str(given), names) or f"; the recipes are {', '.join(names)}"
        raise InputError(f"{given} is neither a file nor a recipe{meant}")
    if path.is_dir():
        raise InputError(
            f"{given} is a folder, where a recipe is expected: a YAML file, or a name such as photographs; the folder "
            "of the samples is data.train"
        )
    return str(path), text_of(path, "save it as UTF-8", BYTES), path.absolute().parent


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 8:
        return f"a list of {len(value)}"
    return value if isinstance(value, str) else json.dumps(value)


def _refuse_newer(tree: Tree, where: str) -> None:
    version = tree.get("schema_version")
    if isinstance(version, int):
        check_schema(where, version, SCHEMA, f"write {SCHEMA}", "schema_version")


def _checked(tree: Tree, where: str) -> Config:
    try:
        return checked(Config, tree)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _located(tree: Tree, folder: Path) -> Tree:
    """A copy of the tree whose paths are absolute."""
    copied = copy.deepcopy(tree)
    for section, key in LOCATIONS:
        values = copied.get(section)
        if isinstance(values, dict) and key in values:
            values[key] = _absolute(values[key], folder)
    return copied


def _absolute(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or not value or value.startswith(("demo:", "hf:")):
        return value
    return os.path.abspath(folder / os.path.expanduser(value))


# --- overrides -------------------------------------------------------------------------------------------------------


def _override(tree: Tree, text: str) -> None:
    """Change one key of the tree. Raises: InputError for a text that is not KEY=VALUE, or a key that does not exist."""
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"-s {text} has no value; write -s KEY=VALUE, such as -s stage1.lr=0.05")
    _refuse_unknown(key, text)
    *sections, last = key.split(".")
    inner = tree
    for section in sections:
        if not isinstance(inner.get(section), dict):
            inner[section] = {}
        inner = inner[section]
    inner[last] = parsed(value, f"-s {text}")
    located = _located(tree, Path.cwd())  # all others are absolute by now
    tree.clear()
    tree.update(located)


def _prefer_weights(tree: Tree) -> None:
    """A weight file of the user's takes the place of the published weights that a shipped recipe names."""
    backbone = tree.get("backbone")
    if isinstance(backbone, dict) and backbone.get("weights"):
        backbone["pretrained"] = False


def _refuse_unknown(key: str, text: str) -> None:
    known = keys()
    if key in known or (key.startswith(FREE) and key != FREE):
        return
    last = [name for name in known if name.endswith(f".{key}")]
    meant = f", did you mean {last[0]!r}?" if last else near(key, known)
    raise InputError(f"-s {text}: there is no key {key!r}{meant or '; keys are such as stage1.lr or data.train'}")


# --- comparison ------------------------------------------------------------------------------------------------------


def _numbers(config: Config) -> Tree:
    return {key: value for key, value in config.model_dump(mode="json").items() if key not in REMARKS}


def _differing(one: Any, other: Any, path: str) -> list[tuple[str, Any, Any]]:
    if not (isinstance(one, dict) and isinstance(other, dict)):
        # 1 and 1.0 mean the same in Python and not in a configuration.
        return [] if json.dumps(one) == json.dumps(other) else [(path, one, other)]
    found = []
    for key in [*one, *(key for key in other if key not in one)]:
        found += _differing(one.get(key), other.get(key), f"{path}.{key}" if path else key)
    return found
