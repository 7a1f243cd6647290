"""Real pictures that are naturally long-tailed, without a download: characters, by the first word of their name.

The pictures are the characters of the fonts that come with matplotlib (DejaVu, and STIX; free licences), drawn white
on black. The label is the first word of the character's Unicode name: LATIN, GREEK, BRAILLE, ..., DOUBLE-STRUCK. LATIN
letters outnumber the rarest classes by far, as they do in writing; several classes share shapes, so that the task is
hard where it is in the world.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from poise.data.samples.items import Pixels
from poise.data.samples.sample_set import Samples
from poise.data.splits import carve
from poise.errors import InputError
from poise.folds import group_ids
from poise.machine.libraries import needed
from poise.values.checks import is_whole

# Upright faces: an oblique one is the same drawing, slanted.
FACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "STIXGeneral",
    "STIXGeneralBol",
)
FEWEST = 15  # characters of a class
EM = 0.7  # size of the font, as a share of the picture: room for accents above and tails below
BASELINE = 0.75


class Glyphs(NamedTuple):
    """Pictures (N, S, S) uint8 and the code point (N,) int64 of each."""

    pictures: NDArray[np.uint8]
    codes: NDArray[np.int64]


def load_glyphs(
    seed: int = 0, *, size: int = 32, test_characters: int = 5, held_out_characters: int = 3
) -> dict[str, Samples]:
    """Gray pictures of `size` x `size` pixels for "train", "held_out" and "test"; classes are in order of frequency.

    A class has at least 15 characters, each drawn in up to eight faces; of every class up to `test_characters` and
    `held_out_characters` of them are set aside, chosen by `seed`. Characters that look alike in some face (Latin A and
    Greek Alpha) form a group, which is never divided: no picture is in two splits. The number of pictures and classes
    depends a little on the versions of matplotlib and Python, the pixels on that of FreeType.

    Raises: MissingExtraError without matplotlib; InputError for a size or number out of range.
    """
    if not is_whole(size) or not 8 <= size <= 256:
        raise InputError(f"the side of a picture is a whole number of 8 to 256 pixels, got {size!r}")
    glyphs = _frequent(_drawn(size))
    samples = _labelled(glyphs)
    # What is set aside are characters, so choose among one row per character and then take all of its pictures.
    _, characters = np.unique(glyphs.codes, return_index=True)
    once = samples.take(torch.from_numpy(characters))
    rest, test = carve(once, test_characters, order=seed)
    train, held_out = carve(once.take(rest), held_out_characters, order=seed)
    rows = {"train": rest[train], "held_out": rest[held_out], "test": test}
    return {name: samples.take(_pictures(glyphs.codes, characters[chosen.numpy()])) for name, chosen in rows.items()}


def _pictures(codes: NDArray[np.int64], characters: NDArray[np.int64]) -> torch.Tensor:
    """Rows of all pictures of the characters that are drawn in the rows `characters`."""
    return torch.from_numpy(np.flatnonzero(np.isin(codes, codes[characters])))


def _labelled(glyphs: Glyphs) -> Samples:
    words = [_word(code) for code in glyphs.codes.tolist()]
    frequency = Counter(words)
    names = tuple(sorted(frequency, key=lambda word: (-frequency[word], word)))
    number = {name: k for k, name in enumerate(names)}
    y = torch.tensor([number[word] for word in words])
    return Samples(Pixels.of(glyphs.pictures, "glyphs"), y, names, _alike(glyphs))


def _word(code: int) -> str:
    """First word of the name of a character, empty if it has none."""
    return unicodedata.name(chr(code), "").split(" ")[0]


def _frequent(glyphs: Glyphs) -> Glyphs:
    """The pictures of classes with enough characters."""
    characters = Counter(_word(code) for code in np.unique(glyphs.codes).tolist())
    kept = np.array([characters[_word(code)] >= FEWEST for code in glyphs.codes.tolist()])
    return Glyphs(glyphs.pictures[kept], glyphs.codes[kept])


def _alike(glyphs: Glyphs) -> tuple[str, ...]:
    """The group of every picture: characters joined by pictures that are equal, named by the smallest of them."""
    same = group_ids([picture.tobytes() for picture in glyphs.pictures], len(glyphs.codes)).numpy()
    smallest = glyphs.codes.copy()
    while True:  # hand the smallest code point on, among equal pictures and among those of a character
        before = smallest
        for group in (same, glyphs.codes):
            _, inverse = np.unique(group, return_inverse=True)
            least = np.full(inverse.max() + 1, np.iinfo(np.int64).max)
            np.minimum.at(least, inverse, smallest)
            smallest = least[inverse]
        if np.array_equal(before, smallest):
            return tuple(f"U+{code:04X}" for code in smallest.tolist())


def _drawn(size: int) -> Glyphs:
    """Every named character of every face that leaves ink."""
    matplotlib = needed("matplotlib", "glyphs", "the glyphs come with")
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    found = [pair for face in FACES for pair in _of_face(folder / f"{face}.ttf", size)]
    return Glyphs(np.stack([picture for picture, _ in found]), np.array([code for _, code in found]))


def _of_face(path: Path, size: int) -> Iterator[tuple[NDArray[np.uint8], int]]:
    from matplotlib.ft2font import FT2Font

    font = ImageFont.truetype(str(path), round(EM * size), layout_engine=ImageFont.Layout.BASIC)
    for code in sorted(FT2Font(str(path)).get_charmap()):
        picture = _picture(chr(code), font, size) if _word(code) else None
        if picture is not None and picture.any():
            yield picture, code


def _picture(character: str, font: ImageFont.FreeTypeFont, size: int) -> NDArray[np.uint8]:
    """(S, S): centred from left to right, on one baseline unless the character would leave the picture."""
    left, top, right, bottom = font.getbbox(character, anchor="ls")
    x = (size - left - right) // 2
    y = min(max(round(BASELINE * size), -top), size - bottom)
    image = Image.new("L", (size, size))
    ImageDraw.Draw(image).text((x, y), character, fill=255, font=font, anchor="ls")
    return np.asarray(image)
