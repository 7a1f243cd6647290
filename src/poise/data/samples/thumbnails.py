"""A few training images of some classes, small enough to travel inside a report."""

import base64
import io
from collections.abc import Iterable

from PIL import Image

from poise.data.samples.sample_set import Samples
from poise.errors import InputError


def thumbnails(
    samples: Samples, classes: Iterable[int], *, each: int = 3, side: int = 64
) -> dict[str, tuple[str, ...]]:
    """The first `each` images of the classes (their numbers as text) as data URIs, at most `side` pixels a side.

    What cannot be read is left out, and so is a class without images. Metadata of the files stay behind.
    """
    found = {}
    for k in classes:
        rows = (samples.y == k).nonzero().flatten()[:each].tolist()
        uris = [uri for uri in (_uri(samples, row, side) for row in rows) if uri is not None]
        if uris:
            found[str(k)] = tuple(uris)
    return found


def _uri(samples: Samples, row: int, side: int) -> str | None:
    try:
        image = samples.items.read(row)
    except InputError:
        return None
    if isinstance(image, str):
        return None
    small = image.convert("RGB")
    # Small images are kept pixel for pixel: blocks of a JPEG would be most of what is seen of them.
    kind, options = ("PNG", {"optimize": True}) if max(small.size) <= side else ("JPEG", {"quality": 80})
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    plain = Image.new("RGB", small.size)
    plain.paste(small)
    out = io.BytesIO()
    plain.save(out, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
