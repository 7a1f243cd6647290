"""Data that come with the package, as a source: `demo:glyphs`."""

from pathlib import Path

from poise.data.samples.split_parts import Part, Request
from poise.errors import InputError
from poise.values.wording import near

PREFIX = "demo:"


def is_demo(path: Path) -> bool:
    """Is it `demo:NAME`?"""
    return str(path).startswith(PREFIX)


def read_demo(path: Path, request: Request) -> dict[str, Part]:
    """The splits of the glyph set, those of `load_glyphs` with seed 0.

    Raises: InputError for another name; MissingExtraError without matplotlib.
    """
    from poise.data.glyphs import load_glyphs  # which is made of sources itself

    name = str(path).removeprefix(PREFIX)
    if name != "glyphs":
        raise InputError(f"there is no demo data {name!r}{near(name, ['glyphs']) or ';'} there is demo:glyphs")
    splits = {"val" if split == "held_out" else split: samples for split, samples in load_glyphs().items()}
    return {
        split: Part(samples.items, samples.y.numpy(), samples.items.describe, samples.class_names, samples.groups)
        for split, samples in splits.items()
    }
