"""What people have: rows of features, logits, images and texts."""

import functools
import io
import json
import pickle
import struct
import tarfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

import image_world
from fuzzing.folders import CLASSES, DIM, NAMES, any_of, one_folder, some_rows
from fuzzing.verdict import Kind
from poise.data.logit_files import read_logits
from poise.data.row_files import read_features, read_rows
from poise.data.samples.decode_all import readable
from poise.data.samples.decoding import decode
from poise.data.samples.formats import open_items, open_samples
from poise.export import rows_for_onnx

# --- rows and logits --------------------------------------------------------------------------------------------------


def _table(folder: Path, gap: str, name: str) -> None:
    x, y = some_rows()
    head = [*(f"f{k}" for k in range(DIM)), "site", "label"]
    lines = [[*(f"{value:.4f}" for value in row), f"s{k % 3}", NAMES[y[k]]] for k, row in enumerate(x)]
    (folder / name).write_text("\n".join(gap.join(line) for line in [head, *lines]) + "\n")


def _parquet(folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    x, y = some_rows()
    columns = {f"f{k}": x[:, k] for k in range(DIM)}
    parquet.write_table(pyarrow.table({**columns, "label": [NAMES[k] for k in y]}), folder / "rows.parquet")


def _arrays(folder: Path, name: str) -> None:
    x, y = some_rows()
    arrays = {"X": x, "y": y, "counts": np.array([9, 9, 9, 9, 9]), "class_names": np.array(NAMES)}
    if name.endswith(".npz"):
        np.savez(folder / name, **arrays)
    elif name.endswith(".npy"):
        np.save(folder / name, x)
        np.save(folder / "labels.npy", y)
    else:
        plain = {key: torch.from_numpy(value) for key, value in arrays.items() if key != "class_names"}
        save_file(plain, folder / name, metadata={"class_names": json.dumps(NAMES)})


def _read_rows(name: str) -> Callable[[Path], None]:
    def labelled(folder: Path) -> None:
        labels = folder / "labels.npy" if name.endswith(".npy") else None
        read_features(folder / name, labels=labels)

    return any_of(
        labelled, lambda folder: read_rows(folder / name), lambda folder: rows_for_onnx.read_rows(folder / name)
    )


def _logits(root: Path) -> Sequence[Path]:
    def write(folder: Path) -> None:
        x, y = some_rows()
        held, held_y = some_rows(1)
        np.savez(
            folder / "logits.npz",
            logits=x[:, :CLASSES],
            labels=y,
            counts=np.array([9, 7, 5, 3, 1]),
            class_names=np.array(NAMES),
            held_out_logits=held[:, :CLASSES],
            held_out_labels=held_y,
        )

    return one_folder(write)(root)


# --- samples ----------------------------------------------------------------------------------------------------------

SIZES = {"ant": 3, "bee": 2, "cat tail": 2}


def _pictures(folder: Path) -> None:
    image_world.pictures(folder / "images", SIZES, side=4)
    image_world.table(folder / "table.csv", folder / "images")
    files = sorted((folder / "images").rglob("*.png"))
    lines = [f"{file.relative_to(folder)} {number % 3}\n" for number, file in enumerate(files)]
    (folder / "list.txt").write_text("".join(lines))


def _samples(path: str, **more: str) -> Callable[[Path], None]:
    def labelled(folder: Path) -> None:
        for found in open_samples(folder / path, **more).values():
            readable(found)

    def items(folder: Path) -> None:
        found = open_items(folder / path, **more)
        _ = [found.read(k) for k in range(min(len(found), 20))]

    return any_of(labelled, items)


def _idx(folder: Path, ending: str = ".gz") -> None:
    import gzip

    for split in ("train", "t10k"):
        for what, shape in (("images-idx3-ubyte", (4, 5, 5)), ("labels-idx1-ubyte", (4,))):
            values = np.arange(int(np.prod(shape))).reshape(shape) % 4
            content = bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape)
            content += values.astype(np.uint8).tobytes()
            (folder / f"{split}-{what}{ending}").write_bytes(gzip.compress(content) if ending else content)


def _idx_seeds(root: Path) -> Sequence[Path]:
    return [*one_folder(_idx)(root / "gz"), *one_folder(functools.partial(_idx, ending=""))(root / "plain")]


def _cifar(folder: Path) -> Mapping[str, bytes]:
    pixels = np.arange(3 * 3072, dtype=np.uint64).astype(np.uint8).reshape(3, 3072)
    names = {b"fine_label_names": [b"ant", b"bee"], b"coarse_label_names": [b"fruit", b"insect"]}
    batch = {b"data": pixels, b"fine_labels": [1, 0, 1], b"coarse_labels": [0, 1, 0]}
    parts = {"meta": names, "train": batch, "test": batch}
    return {name: pickle.dumps(content, 2) for name, content in parts.items()}


def _cifar_seeds(root: Path) -> Sequence[Path]:
    def plain(folder: Path) -> None:
        (folder / "cifar-100-python").mkdir()
        for name, content in _cifar(folder).items():
            (folder / "cifar-100-python" / name).write_bytes(content)

    return one_folder(plain)(root)


def _cifar_archives(root: Path) -> Sequence[Path]:
    def packed(folder: Path) -> None:
        with tarfile.open(folder / "cifar-100-python.tar.gz", "w:gz") as archive:
            for name, content in _cifar(folder).items():
                member = tarfile.TarInfo(f"cifar-100-python/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

    return one_folder(packed)(root)


def _npz_images(folder: Path) -> None:
    images = np.arange(6 * 5 * 5 * 3).reshape(6, 5, 5, 3).astype(np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(6) % 3, class_names=np.array(NAMES[:3]))


def _parquet_images(folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    content = _image("PNG")
    table = pyarrow.table({"image": [{"bytes": content, "path": None}] * 6, "label": [0, 1, 2] * 2})
    parquet.write_table(table, folder / "train.parquet")


IMAGES = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")


def _image(kind: str, mode: str = "RGB") -> bytes:
    target = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    image = Image.fromarray(values)
    image = Image.fromarray(values[..., 0].astype(np.uint16)) if mode == "I;16" else image.convert(mode)
    image.save(target, kind)
    return target.getvalue()


def _images(root: Path) -> Sequence[Path]:
    modes = {"PNG": ("RGB", "RGBA", "P", "L", "I;16"), "JPEG": ("RGB", "CMYK", "L"), "TIFF": ("RGB", "I;16", "CMYK")}
    found = []
    for kind in IMAGES:
        for mode in modes.get(kind, ("RGB",)):
            folder = root / f"{kind}{mode.replace(';', '')}"
            folder.mkdir(parents=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                (folder / "image").write_bytes(_image(kind, mode))
            found.append(folder)
    return found


TABLE_WORDS = ("inspect", "{}/rows.csv")
DATA_FILES: tuple[Kind, ...] = (
    Kind(
        "csv",
        one_folder(lambda folder: _table(folder, ",", "rows.csv")),
        _read_rows("rows.csv"),
        (TABLE_WORDS, ("fit", "{}/rows.csv", "--method", "tau_norm(tau=0.5)", "--unseen", "--out", "{}/out")),
    ),
    Kind("tsv", one_folder(lambda folder: _table(folder, "\t", "rows.tsv")), _read_rows("rows.tsv")),
    Kind("parquet", one_folder(_parquet), _read_rows("rows.parquet"), needs=("pyarrow",)),
    Kind(
        "npz",
        one_folder(lambda folder: _arrays(folder, "rows.npz")),
        _read_rows("rows.npz"),
        (
            ("inspect", "{}/rows.npz"),
            ("fit", "{}/rows.npz", "--method", "logit_adjustment", "--unseen", "--out", "{}/o"),
        ),
    ),
    Kind("npy", one_folder(lambda folder: _arrays(folder, "rows.npy")), _read_rows("rows.npy")),
    Kind(
        "safetensors rows",
        one_folder(lambda folder: _arrays(folder, "rows.safetensors")),
        _read_rows("rows.safetensors"),
        (("inspect", "{}/rows.safetensors"),),
    ),
    Kind("logits", _logits, lambda folder: read_logits(folder / "logits.npz"), (("audit", "{}/logits.npz"),)),
    Kind("image folder", one_folder(_pictures), _samples("images"), (("inspect", "{}/images"),)),
    Kind("image table", one_folder(_pictures), _samples("table.csv"), (("inspect", "{}/table.csv"),)),
    Kind("image list", one_folder(_pictures), _samples("list.txt")),
    Kind("idx", _idx_seeds, _samples(".", format="idx")),
    Kind("cifar", _cifar_seeds, _samples("cifar-100-python", format="cifar")),
    Kind("cifar archive", _cifar_archives, _samples("cifar-100-python.tar.gz")),
    Kind("npz images", one_folder(_npz_images), _samples("images.npz")),
    Kind("parquet images", one_folder(_parquet_images), _samples("train.parquet"), needs=("pyarrow",)),
    Kind("image", _images, lambda folder: decode(folder / "image", "image", 10**7)),
)
