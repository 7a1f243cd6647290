"""Images and texts from what people have: folders, tables, lists, archives, data sets of the hub.

`open_samples` reads labelled samples, `open_items` those to be predicted; the format is recognised, or named.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from poise.data.samples.cifar import is_cifar, read_cifar
from poise.data.samples.csv import is_delimited, read_delimited
from poise.data.samples.decoding import MAX_PIXELS
from poise.data.samples.demo import PREFIX as DEMO
from poise.data.samples.demo import is_demo, read_demo
from poise.data.samples.folder import is_folder, is_image, read_folder, read_image
from poise.data.samples.hub import PREFIX, is_hub, read_hub
from poise.data.samples.idx import is_idx, read_idx
from poise.data.samples.lists import is_list, read_list
from poise.data.samples.npz import is_npz, read_npz
from poise.data.samples.parquet_images import is_parquet, read_parquet
from poise.data.samples.sample_set import Items, Samples
from poise.data.samples.split_parts import SPLITS, Part, Request, assembled
from poise.data.tables.reader_contract import listed
from poise.errors import InputError
from poise.machine.reading import regular
from poise.values.checks import check_one_of, existing


class Format(NamedTuple):
    """A format by name: what it is, how it is recognised, and how its splits are read."""

    name: str
    what: str
    fits: Callable[[Path], bool]
    read: Callable[[Path, Request], Mapping[str, Part]]


# The first that fits is taken, so that a folder of classes comes last.
FORMATS: tuple[Format, ...] = (
    Format("demo", "demo:glyphs, rendered from fonts", is_demo, read_demo),
    Format("hf", "hf:OWNER/NAME, or a folder written by save_to_disk", is_hub, read_hub),
    Format("cifar", "the Python archive of CIFAR-10 or CIFAR-100", is_cifar, read_cifar),
    Format("idx", "*-images-idx3-ubyte with labels", is_idx, read_idx),
    Format("npz", ".npz with images and labels", is_npz, read_npz),
    Format("parquet", ".parquet with images, paths or texts", is_parquet, read_parquet),
    Format("csv", ".csv or .tsv (or .gz of one) with paths or texts", is_delimited, read_delimited),
    Format("list", ".txt with a path and a class number per line", is_list, read_list),
    Format("image", "one image, to be predicted", is_image, read_image),
    Format("folder", "a folder with one folder of images per class", is_folder, read_folder),
)


def open_samples(
    path: str | Path,
    *,
    split: str | None = None,
    label: str | None = None,
    image: str | None = None,
    text: str | None = None,
    group: str | None = None,
    root: Path | None = None,
    class_names: Sequence[str] | None = None,
    format: str | None = None,  # noqa: A002, the word of the command line
    limit: int = MAX_PIXELS,
) -> dict[str, Samples]:
    """Labelled samples of every split, in the order train, val, test; the only, unnamed split is train.

    Splits are found by the names of files and folders, by a column `split`, or by the format. All splits have the same
    classes in the same order. Images are not decoded.

    Args:
        path: a file or folder in one of `FORMATS`, or hf:OWNER/NAME.
        split: the only split to return.
        label: column or array of the labels, where several could be.
        image: column or array of the images or of their paths.
        text: column of texts, for samples that are sentences.
        group: column of groups (site, patient, ...) that splits must not divide.
        root: folder that paths of images are relative to; by default that of the table.
        class_names: the classes of another artefact, such as a trained model; labels are matched with them by name.
        format: a name in `FORMATS`; by default recognised.
        limit: the largest number of pixels of an image.

    Raises: InputError in one sentence naming the file, line or row and the value; MissingExtraError. Warns
    (PoiseWarning) about classes without samples, rows that repeat others and files that are left out.
    """
    source = Path(path)
    names = None if class_names is None else tuple(class_names)
    request = Request(label, image, text, group, root, names, limit)
    parts = _ordered(_format(source, format).read(source, request))
    wanted = None if split is None else SPLITS.get(split.lower(), split)
    if wanted is not None and wanted not in parts:
        raise InputError(f"{source} has no split {split!r}; it has {listed(parts)}")
    # Where classes are known beforehand, the other splits need not be looked at; some of the hub have no labels.
    if wanted is not None and parts[wanted].names is not None:
        parts = {wanted: parts[wanted]}
    samples = assembled(source, parts, names)
    return samples if wanted is None else {wanted: samples[wanted]}


def open_items(
    path: str | Path,
    *,
    split: str | None = None,
    image: str | None = None,
    text: str | None = None,
    root: Path | None = None,
    format: str | None = None,  # noqa: A002, the word of the command line
    limit: int = MAX_PIXELS,
) -> Items:
    """Samples to be predicted: a folder of images of any depth, one image, a table, a list of paths, or any format.

    Labels are not looked for. Arguments are those of `open_samples`; `split` is needed where there are several.

    Raises: as `open_samples`.
    """
    source = Path(path)
    request = Request(image=image, text=text, root=root, limit=limit, labelled=False)
    parts = _ordered(_format(source, format).read(source, request))
    if split is None and len(parts) > 1:
        raise InputError(f"{source} has the splits {listed(parts)}; name one (split=)", "(split=)")
    wanted = next(iter(parts)) if split is None else SPLITS.get(split.lower(), split)
    if wanted not in parts:
        raise InputError(f"{source} has no split {split!r}; it has {listed(parts)}")
    if len(parts[wanted].items) == 0:
        raise InputError(f"{source}: the split {wanted!r} is empty; there is nothing to predict")
    return parts[wanted].items


def _format(path: Path, name: str | None) -> Format:
    if name is not None:
        check_one_of("format", name, [known.name for known in FORMATS])
    if not str(path).startswith((PREFIX, DEMO)) and not existing(path).is_dir():
        regular(path, "name a file or a folder")
    for known in FORMATS:
        if known.name == name or (name is None and known.fits(path)):
            return known
    formats = "; ".join(f"{known.name}: {known.what}" for known in FORMATS)
    raise InputError(f"cannot tell the format of {path}; name it (format=), one of: {formats}", "(format=)")


def _ordered(parts: Mapping[str, Part]) -> dict[str, Part]:
    """Train, val and test first, others as they come."""
    known = tuple(dict.fromkeys(SPLITS.values()))
    return {name: parts[name] for name in (*known, *parts) if name in parts}
