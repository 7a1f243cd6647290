"""Which networks a file may name, and with which options: none whose code or files come from elsewhere.

A name that leads to code of its author's, or to a folder of this machine, is only followed where whoever runs the
program types it too; the file then says by a digest what it meant.
"""

import re
from collections.abc import Mapping
from hashlib import sha256
from importlib.machinery import PathFinder
from pathlib import Path
from types import MappingProxyType
from typing import Any

from poise.errors import InputError
from poise.machine.atomic import sha256_of
from poise.machine.reading import sentence_for
from poise.representation.backbones.backbone import INTERPOLATIONS, LARGEST
from poise.values.checks import is_number
from poise.values.fields import FLAG, TABLE, TEXT, Kind, list_of, number, one_of, optional, whole
from poise.values.wording import some

PLAIN_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)?", re.ASCII)  # of a network of this package or of timm
HUB_NAME = re.compile(r"([A-Za-z0-9_][A-Za-z0-9._-]*/)?[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)  # OWNER/NAME, or NAME
WORD = re.compile(r"[A-Za-z0-9_]{0,40}", re.ASCII)
LONGEST = 200  # characters of a name; what is near a long one takes minutes to find
PIECES = 1000  # of a list

_SHARE, _COUNT = number("[0, 1]"), whole(0, LARGEST)
_SIDE = Kind(
    f"a whole number up to {LARGEST}, or two of them",
    lambda value: _COUNT.fits(value) or (_is_list(value) and len(value) == 2 and all(map(_COUNT.fits, value))),
)
_NORMS = one_of("batchnorm", "batchnorm2d", "groupnorm", "layernorm", "layernorm2d", "rmsnorm")
_ACTIVATIONS = one_of("relu", "relu6", "gelu", "gelu_tanh", "quick_gelu", "silu", "swish", "mish", "hard_swish", "elu")
_TIMM: Mapping[str, Kind] = MappingProxyType(
    {
        **dict.fromkeys(("drop_rate", "drop_path_rate", "drop_block_rate", "attn_drop_rate"), _SHARE),
        **dict.fromkeys(("proj_drop_rate", "pos_drop_rate", "patch_drop_rate"), _SHARE),
        **dict.fromkeys(("img_size", "patch_size", "window_size"), _SIDE),
        **dict.fromkeys(
            ("in_chans", "embed_dim", "depth", "num_heads", "reg_tokens", "stem_width", "cardinality"), _COUNT
        ),
        **dict.fromkeys(("dynamic_img_size", "dynamic_img_pad", "strict_img_size", "class_token", "qkv_bias"), FLAG),
        **dict.fromkeys(("qk_norm", "no_embed_class", "zero_init_last", "scriptable", "exportable", "fc_norm"), FLAG),
        **dict.fromkeys(("init_values", "mlp_ratio"), optional(number(f"[0, {LARGEST}]"))),
        "output_stride": Kind("8, 16 or 32", lambda value: value in (8, 16, 32)),
        "global_pool": one_of("", "avg", "max", "avgmax", "catavgmax", "token", "map", "fast", "prr"),
        "norm_layer": _NORMS,
        "act_layer": _ACTIVATIONS,
    }
)
_HF: Mapping[str, Kind] = MappingProxyType(
    {
        "image_size": _SIDE,
        **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"), _SHARE),
        **dict.fromkeys(("attention_dropout", "dropout", "layer_norm_eps"), _SHARE),
        **dict.fromkeys(("output_hidden_states", "qkv_bias", "interpolate_pos_encoding"), FLAG),
    }
)
_ANY: Mapping[str, Kind] = MappingProxyType(
    {
        **dict.fromkeys(("mean", "std"), Kind("three numbers", lambda v: _is_list(v) and all(map(is_number, v)))),
        "crop": _SHARE,
        "interpolation": one_of(*INTERPOLATIONS),
        "start": one_of("kaiming", "torch", "kaiming_torch_stem"),
        "output": Kind(
            "a word or a place", lambda v: _COUNT.fits(v) or (isinstance(v, str) and bool(WORD.fullmatch(v)))
        ),
        "last_block": Kind("a list of texts", lambda v: _is_list(v) and all(isinstance(each, str) for each in v)),
    }
)


_THREE = list_of("three numbers", Kind("a number", is_number), least=3)
FED = {
    "size": whole(1, LARGEST),
    "mean": _THREE,
    "std": _THREE,
    "crop": number("(0, 1]"),
    "interpolation": one_of(*INTERPOLATIONS),
}
SAID = {"name": TEXT, "options": TABLE, **FED}


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) <= PIECES


def _is_plain(value: Any) -> bool:
    """A number, a flag, null or a word that is no file, or a list of these: nothing that a factory could open."""
    if _is_list(value):
        return all(map(_is_plain, value))
    if isinstance(value, str):
        return bool(WORD.fullmatch(value)) and not (value and Path(value).exists())
    return value is None or isinstance(value, bool) or (is_number(value) and abs(value) < 2**63)


_PLAIN = Kind("a number, true, false, null, a word that names no file, or a list of these", _is_plain)


def kind_of(name: str) -> str:
    """Where a network comes from: timm, hf, sentence, own (`package.module:factory`), or this package (or timm): ""."""
    kind, colon, _ = name.partition(":")
    return kind if kind in ("hf", "sentence", "timm") or not colon else "own"


def needs_trust(name: str) -> bool:
    """Does a network's name lead to code, or to files, that no file may name alone?"""
    kind, rest = kind_of(name), name.partition(":")[2]
    if kind == "own" or len(name) > LONGEST:
        return True
    if kind in ("hf", "sentence"):
        return not HUB_NAME.fullmatch(rest) or (rest != "minilm" and Path(rest).exists())
    return not PLAIN_NAME.fullmatch(rest if kind == "timm" else name)


def danger(name: str) -> str:
    """What a name that needs trust would lead to, in words."""
    return "code would run" if kind_of(name) == "own" else "files would be read from another place"


def check_options(where: str, name: str, options: Mapping[str, Any]) -> None:
    """Raises: InputError about the first option that a file may not state for this network."""
    kinds = {"timm": _TIMM, "": _TIMM, "hf": _HF}.get(kind_of(name), {})
    for key, value in options.items():
        known = _ANY.get(key) or kinds.get(key) or (_PLAIN if kind_of(name) == "own" else None)
        if known is None:
            there = some(sorted({*_ANY, *kinds}), most=100)
            raise InputError(f"{where}: the backbone {name} takes no option {key!r} from a file; it may be {there}")
        known.check(f"{where}: the option {key} of the backbone {name}", value)


def check_named(where: str, said: Mapping[str, Any], trusted: str | None) -> None:
    """Whether the network that a file describes may be built: its name, its options, and what its name leads to.

    `said` are name, options and perhaps the digest `source` that `source_digest` gave; `trusted` is the name that the
    user typed.

    Raises: InputError that says what to type, or what differs.
    """
    name, meant = said["name"], said.get("source")
    if needs_trust(name) and name != trusted:
        raise InputError(
            f"{where} names the network {name!r:.{LONGEST}}, whose {danger(name)}; if you trust it, say so "
            f"by that name: --backbone {name:.{LONGEST}}"
        )
    check_options(where, name, said["options"])
    if needs_trust(name) and meant is not None and source_digest(name) != meant:
        raise InputError(
            f"what {name} leads to here is not what {where} was made with: its sha256 is not {meant:.16}...; restore "
            "it, or train again"
        )


def source_digest(name: str) -> str | None:
    """sha256 in hex of what a name that needs trust leads to: a source file, or all files of a folder; else None.

    Nothing is imported. Raises: InputError if a file cannot be read.
    """
    if not needs_trust(name):
        return None
    kind, rest = kind_of(name), name.partition(":")[2]
    place = _source_file(name.partition(":")[0]) if kind == "own" else Path(rest)
    if place is None or not place.exists():
        return None
    with sentence_for(place, None, "choose a folder of plain files"):
        wanted = "*.py" if kind == "own" else "*"
        files = sorted(path for path in place.rglob(wanted) if path.is_file()) if place.is_dir() else [place]
        lines = (f"{path.relative_to(place).as_posix() if path != place else ''} {sha256_of(path)}\n" for path in files)
        return sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _source_file(module: str) -> Path | None:
    """The file of a module, or the folder of a package; found without running anything."""
    path: Any = None
    spec = None
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:end]), path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    return origin.parent if path is not None else origin
