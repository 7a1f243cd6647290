"""Stored images to RGB pixels of eight bits: turned upright, gray of 16 bits scaled, transparency laid over white.

Libraries disagree in all of these; a picture that is clipped or lies on its side spoils training without an error.
"""

import contextlib
import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from poise.errors import InputError, reason_of
from poise.machine.reading import content_of

Stored = bytes | memoryview

# Pillow warns above this size and refuses above twice of it; here more than this is refused.
MAX_PIXELS = 89_478_485

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp", ".jfif", ".jpe"}
)

# What images are stored as; by their bytes, whatever their names.
FORMATS = ("BMP", "DIB", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF")

SKIP = '(broken="skip")'
REMEDY = f"replace it, leave it out, or skip broken ones {SKIP}"

MAGIC = (b"\x89PNG", b"\xff\xd8", b"RIFF", b"GIF8", b"BM", b"II*", b"MM\x00*")


def decode(source: Stored | Path, where: str, limit: int = MAX_PIXELS) -> Image.Image:
    """The image in mode RGB, upright as its EXIF orientation says.

    Gray of 16 bits is scaled, so that 65535 becomes 255. Transparent pixels are laid over white. Of an animation the
    first picture is taken. `where` names the image in messages, `limit` is the largest number of pixels.

    Raises: InputError naming the image if it is missing, empty, truncated, no image, larger than `limit`, or of a kind
    whose range of values is unknown (32 bits per channel).
    """
    file = io.BytesIO(read_stored(source, where))
    try:
        with Image.open(file, formats=_formats()) as image:
            _refuse_large(image.size, where, limit)
            return _rgb(_upright(image), image.format, where)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{where} has too many pixels ({error}); scale it down") from None
    except UnidentifiedImageError:
        raise InputError(f"{where} is no image: {_seems(file.getvalue())}; {REMEDY}", SKIP) from None
    except Exception as error:  # a damaged file makes the library raise whatever comes up
        raise InputError(f"{where} is truncated or damaged ({reason_of(error)}); {REMEDY}", SKIP) from None


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow knows. Others stay closed: one of them starts a program (EPS)."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def read_stored(source: Stored | Path, where: str) -> Stored:
    """The bytes of an image. Raises: InputError naming it if its file cannot be read."""
    if not isinstance(source, Path):
        return source
    return content_of(source, "replace it, or leave it out", None)


def _refuse_large(size: tuple[int, int], where: str, limit: int) -> None:
    if size[0] * size[1] > limit:
        raise InputError(
            f"{where} has {size[0]} x {size[1]} pixels, more than {limit}; scale it down, or raise the limit"
        )


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # damaged pixels must not pass for damaged metadata, which is no reason to give the pixels up
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _rgb(image: Image.Image, stored_as: str | None, where: str) -> Image.Image:
    """Mode RGB. Pillow's own conversion clips 16-bit gray to white, and shows whatever lies below transparency."""
    if image.mode.startswith("I;16") or (image.mode == "I" and stored_as in {"PNG", "PPM"}):
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in {"I", "F"}:
        raise InputError(
            f"{where} has 32 bits per pixel, whose range is not known; convert it to 8 or 16 bits per channel"
        )
    if not image.has_transparency_data:
        return image.convert("RGB")
    seen = image.convert("RGBA")
    white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, seen).convert("RGB")


def _seems(stored: bytes) -> str:
    start = stored[:64].lstrip().lower()
    if not stored:
        return "the file is empty"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "it holds a web page, as a failed download does"
    if stored.startswith(MAGIC):
        return "it begins as one, and is truncated or damaged"
    return f"it begins with {stored[:8]!r}"
