"""Prediction from an ONNX file without torch: the same decisions and columns as with the folder it was made of."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from poise.cli import main
from poise.data.samples.decode_all import pixels as small_pixels
from poise.data.samples.formats import open_items
from poise.decisions.decide import decide
from poise.decisions.operating_point import OperatingPoint
from poise.deployment.model import Model
from poise.deployment.prediction_files import write_predictions
from poise.errors import InputError, MissingExtraError, PoiseWarning
from poise.export import onnx_prediction
from poise.export.onnx_prediction import OUTSIDE, decided, open_onnx, predict_images, predict_rows
from poise.export.rows_for_onnx import Pixels, image_files, pixels_of, read_rows
from poise.representation.augment.photographs import eval_transform
from poise.values.counts import ClassCounts
from poise.values.head import Head

NAMES = ('cat, "wet"', "<b>dog</b>", "=1+1 élan 🐈")
COLUMNS = ("f0", "f1", "f2", "f3", "f4")


def model(**more):
    generator = torch.Generator().manual_seed(0)
    parts = {
        "head": Head(torch.randn(3, 5, generator=generator), torch.randn(3, generator=generator)),
        "class_names": NAMES,
        "counts": ClassCounts(torch.tensor([9, 4, 1])),
        "prior_applied": torch.full((3,), 1 / 3, dtype=torch.float64),
        "method": "ce",
    }
    return Model(**{**parts, **more})


def about(made, **changes):
    """The metadata of an export."""
    table = {
        "schema": 1,
        "input": "features",
        "dim": made.head.dim,
        "columns": None,
        "read": None,
        "pixels": None,
        "class_names": list(made.class_names),
        "counts": made.counts.n.tolist(),
        "prior_applied": None if made.prior_applied is None else made.prior_applied.tolist(),
        "method": made.method,
        "operating": None if made.operating is None else made.operating.to_dict(),
        "added": None,
        "folded": [],
        "steps": [],
        "provenance": {},
    }
    return {**table, **changes}


def save(path, nodes, shape, reads, weight, bias, metadata):
    held = [numpy_helper.from_array(value, name) for name, value in (("w", weight), ("b", bias))]
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "head",
            [helper.make_tensor_value_info(reads, TensorProto.FLOAT, ["batch", *shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(bias)])],
            held,
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    for key, value in metadata.items():
        helper.set_model_props(made, {key: value})
    onnx.save(made, path)
    return path


def exported(path, made, *, metadata=None, shift=0.0, **changes):
    """A file as `poise export` writes it, for features."""
    head = made.head
    nodes = [helper.make_node("MatMul", ["features", "w"], ["z"]), helper.make_node("Add", ["z", "b"], ["logits"])]
    said = {"poise": json.dumps(about(made, **changes))} if metadata is None else metadata
    bias = (head.bias.numpy() + shift).astype(np.float32)
    return save(path, nodes, [head.dim], "features", head.weight.numpy().T.copy(), bias, said)


def rows(n=40, seed=1):
    return np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    return {name: [line[i] for line in lines] for i, name in enumerate(header)}


def assert_same(one, other):
    """Equal texts; numbers to the precision of the network."""
    assert list(one) == list(other)
    for name, column in one.items():
        if name == "confidence" or name.startswith("p(") or name in ("p1", "p2"):
            assert np.allclose(np.array(column, float), np.array(other[name], float), atol=1e-6)
        else:
            assert column == other[name]


def refusal(act, folder="\0", kind=InputError):
    with pytest.raises(kind) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(folder), "FOLDER")


POINTS = {
    "plain": None,
    "costs": OperatingPoint(costs=(1.0, 3.0, 9.0)),
    "matrix": OperatingPoint(costs=((0.0, 1.0, 5.0), (2.0, 0.0, 1.0), (9.0, 4.0, 0.0))),
    "abstain": OperatingPoint(abstain=0.7),
    "thresholds": OperatingPoint(thresholds=(0.5, 0.6, None), costs=(1.0, 2.0, 2.0)),
    "top_k": OperatingPoint(top_k=2, abstain=0.6),
    "conformal": OperatingPoint(conformal=(0.8, 1.5, None), alpha=0.1),
    "empty": OperatingPoint(conformal=(0.0, 0.0, 0.0), alpha=0.1),
}


# --- decisions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS)
def test_decisions_are_those_of_decide(point):
    logits = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    expected = decide(logits, point or OperatingPoint())
    found = decided(logits.numpy(), None if point is None else json.loads(json.dumps(point.to_dict())))
    assert found.label.tolist() == expected.label.tolist()
    assert np.allclose(found.confidence, expected.confidence.numpy(), atol=1e-14)
    assert np.allclose(found.p, logits.softmax(dim=-1).numpy(), atol=1e-14)
    assert (found.sets is None) == (expected.sets is None)
    if found.sets is not None:
        assert np.array_equal(found.sets, expected.sets.numpy())


def test_random_points_decide_alike():
    rng = np.random.default_rng(0)
    for _ in range(60):
        classes = int(rng.integers(2, 6))
        kinds = rng.random(5) < 0.5
        matrix = rng.random((classes, classes)) * 3
        parts = {
            "costs": (matrix if rng.random() < 0.5 else rng.random(classes) + 0.1).tolist() if kinds[0] else None,
            "abstain": float(rng.random()) if kinds[1] else None,
            "thresholds": [None if rng.random() < 0.2 else float(rng.random()) for _ in range(classes)]
            if kinds[2]
            else None,
            "top_k": int(rng.integers(1, classes + 1)) if kinds[3] else None,
        }
        if kinds[4] and not kinds[3]:
            parts |= {"conformal": (3 * rng.random(classes)).tolist(), "alpha": 0.1}
        point = OperatingPoint(**parts)
        logits = torch.from_numpy(rng.normal(size=(50, classes)) * 4)
        found, expected = decided(logits.numpy(), point.to_dict()), decide(logits, point)
        assert found.label.tolist() == expected.label.tolist()
        if expected.sets is not None:
            assert np.array_equal(found.sets, expected.sets.numpy())


def test_large_logits_stay_finite_and_ties_go_to_the_first_class():
    found = decided(np.array([[1e4, 0.0, 1e4], [-1e4, -1e4, -1e4]]), {"top_k": 1})
    assert found.label.tolist() == [0, 0]
    assert np.allclose(found.p, [[0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    assert found.sets.tolist() == [[True, False, False]] * 2


# --- features ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [None, 2])
@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS)
def test_the_file_is_that_of_the_folder(tmp_path, point, top):
    made, x = model(operating=point), rows()
    ours = write_predictions(made, torch.from_numpy(x), tmp_path / "a.csv", top=top)
    np.save(tmp_path / "x.npy", x)
    found = open_onnx(exported(tmp_path / "m.onnx", made))
    theirs = predict_rows(found, read_rows(tmp_path / "x.npy"), tmp_path / "b.csv", top=top)
    assert (theirs.rows, theirs.abstained, theirs.answers) == (ours.rows, ours.abstained, ours.answers)
    assert_same(table(tmp_path / "b.csv"), table(tmp_path / "a.csv"))


def test_costs_within_the_graph_are_taken_out_of_the_posteriors(tmp_path):
    made = model(operating=OperatingPoint(costs=(1.0, 4.0, 9.0)))
    added = np.log([1.0, 4.0, 9.0])
    plain, folded = (
        open_onnx(exported(tmp_path / f"{name}.onnx", made, shift=shift, **more))
        for name, shift, more in (("a", 0.0, {}), ("b", added, {"added": added.tolist()}))
    )
    x = rows()
    assert np.allclose(plain.logits(x), folded.logits(x), atol=1e-5)
    raw = folded.logits(x) + folded.added
    assert raw.argmax(axis=1).tolist() == decided(plain.logits(x), plain.operating).label.tolist()


def write(path, x):
    """The rows in every format, with what else such files hold."""
    np.save(path / "x.npy", x)
    np.savez(path / "x.npz", x=x, y=np.zeros(len(x), int), other=x[:, :2])
    np.savez(path / "splits.npz", test=x, train=x[:3])
    np.savez(path / "views.npz", features=np.stack([x, x + 1]))
    save_file({"embeddings": x}, path / "x.safetensors")
    for name, order in (("x", COLUMNS), ("turned", COLUMNS[::-1])):
        with (path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["site", *order, "label"])
            for row in x.tolist():
                values = dict(zip(COLUMNS, row, strict=True))
                writer.writerow(["here", *(repr(values[one]) for one in order), "cat"])


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "views.npz", "x.safetensors", "x.csv", "turned.csv"])
def test_every_format_gives_the_same_rows(tmp_path, name):
    x = rows(7)
    write(tmp_path, x)
    read = read_rows(tmp_path / name, columns=COLUMNS if name.endswith("csv") else None)
    assert np.array_equal(read.x, x)
    assert read.extra == ({"site": ("here",) * 7, "label": ("cat",) * 7} if name.endswith("csv") else {})


def test_narrow_floats_are_read_where_numpy_knows_them(tmp_path):
    for kind in (torch.float16, torch.bfloat16):  # the package onnx brings bfloat16 along
        save_tensors({"x": torch.full((2, 5), 1.5, dtype=kind)}, tmp_path / "x.safetensors")
        assert read_rows(tmp_path / "x.safetensors").x.tolist() == [[1.5] * 5] * 2


def test_narrow_floats_that_numpy_does_not_know_are_refused_with_the_remedy(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors({"x": torch.ones(2, 5, dtype=torch.bfloat16)}, path)
    program = f"from poise.export.rows_for_onnx import read_rows; read_rows({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.endswith(
        f"{path}: the array 'x' holds bfloat16 values, which numpy has no type for; save them as float32\n"
    )


def test_one_array_of_several_is_chosen_by_name(tmp_path):
    x = rows(7)
    write(tmp_path, x)
    assert np.array_equal(read_rows(tmp_path / "splits.npz", key="test").x, x)
    assert refusal(lambda: read_rows(tmp_path / "splits.npz"), tmp_path) == (
        "FOLDER/splits.npz has no array called x or features; it holds 'test', 'train'; choose one with key= (or "
        "FILE#NAME)"
    )
    assert refusal(lambda: read_rows(tmp_path / "splits.npz", key="tost"), tmp_path).startswith(
        "FOLDER/splits.npz has no array 'tost', did you mean 'test'?"
    )


def test_rows_that_cannot_be_used_are_refused_in_one_sentence(tmp_path):
    write(tmp_path, rows(7))
    np.save(tmp_path / "nan.npy", np.array([[0, 1.0], [np.nan, 2]]))
    np.save(tmp_path / "flat.npy", np.zeros(3))
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "objects.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:40])
    (tmp_path / "other.npz").write_bytes(b"hello")
    (tmp_path / "x.txt").write_text("1")
    says = {
        "nan.npy": "FOLDER/nan.npy, row 1: the row holds NaN or infinity; drop or fix it",
        "flat.npy": "FOLDER/flat.npy: rows are (N, D) with at least one row and one feature, got (3,)",
        "words.npy": "FOLDER/words.npy: 'x' holds <U1 values; numbers up to float64 are needed",
        "objects.npy": "FOLDER/objects.npy holds Python objects, which are never read; save plain numbers",
        "cut.npy": "FOLDER/cut.npy cannot be read, it is damaged or no .npy file (",
        "other.npz": "FOLDER/other.npz cannot be read, it is damaged or no .npz file (it does not begin as such a file",
        "x.txt": "cannot read FOLDER/x.txt: this model reads rows of features, .csv, .tsv, .parquet, .npz, .npy, ",
        "y.npy": "there is no file or folder FOLDER/y.npy, did you mean 'x.npy'?",
    }
    for name, sentence in says.items():
        assert refusal(lambda name=name: read_rows(tmp_path / name), tmp_path).startswith(sentence)
    made = open_onnx(exported(tmp_path / "m.onnx", model()))
    np.save(tmp_path / "narrow.npy", np.zeros((2, 4)))
    assert refusal(lambda: predict_rows(made, read_rows(tmp_path / "narrow.npy"), tmp_path / "p.csv")) == (
        "the model reads 5 features per row, these rows are (2, 4)"
    )
    assert not (tmp_path / "p.csv").exists()


# --- files that are no export -----------------------------------------------------------------------------------------


def test_files_that_are_no_export_are_refused_in_one_sentence(tmp_path):
    path = exported(tmp_path / "m.onnx", model())
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:-60])
    (tmp_path / "text.onnx").write_text("hello")
    for name in ("cut", "text"):
        said = refusal(lambda name=name: open_onnx(tmp_path / f"{name}.onnx"), tmp_path)
        assert said.startswith(f"FOLDER/{name}.onnx cannot be read as an ONNX file: ")
        assert said.endswith("; export the model again")
    assert refusal(lambda: open_onnx(tmp_path / "no.onnx"), tmp_path) == "there is no file FOLDER/no.onnx"
    exported(path, model(), metadata={})
    assert refusal(lambda: open_onnx(path), tmp_path) == (
        "FOLDER/m.onnx was not written by Poise: its metadata have no entry 'poise'; make one with `poise export MODEL "
        "--onnx`"
    )
    exported(path, model(), schema=2)
    assert refusal(lambda: open_onnx(path), tmp_path) == (
        "FOLDER/m.onnx has schema 2, this version reads up to 1; update poise"
    )


@pytest.mark.parametrize(
    "said",
    [
        "{",
        "[]",
        '{"schema": 1}',
        *(
            json.dumps(about(model(), **change))
            for change in (
                {"class_names": ["a"]},
                {"input": "text"},
                {"input": "pixels"},
                {"added": [1.0]},
                {"counts": [1]},
                {"prior_applied": [0.5, 0.5]},
                {"operating": {"costs": [1.0]}},
                {"operating": {**OperatingPoint().to_dict(), "costs": [1.0]}},
                {"operating": {**OperatingPoint().to_dict(), "top_k": 4}},
                {"dim": None},
                {"prior_applied": "x"},
                {"class_names": ["a", "a", "b"]},
                {"counts": [1, 2, 2**63]},
                {"counts": [1, 2, -1]},
                {"added": [1.0, "x", 2.0]},
                {"columns": [1]},
                {"dim": 2**0.5},
                {"operating": {**OperatingPoint().to_dict(), "costs": [1.0, 0.0, 1.0]}},
                {"operating": {**OperatingPoint().to_dict(), "thresholds": [0.5, "x", None]}},
            )
        ),
    ],
)
def test_damaged_metadata_are_refused_in_one_sentence(tmp_path, said):
    path = exported(tmp_path / "m.onnx", model(), metadata={"poise": said})
    sentence = refusal(lambda: open_onnx(path), tmp_path)
    assert sentence.startswith(("FOLDER/m.onnx: ", "the entry 'poise' of FOLDER/m.onnx"))
    assert sentence.endswith("; export the model again")


@pytest.mark.parametrize("length", [b"\x0a\x08", b"\x8a\x00\x08", b"\x0a\x88\x80\x00"])
def test_tensors_that_lie_outside_of_the_file_are_never_read(tmp_path, length):
    path = exported(tmp_path / "m.onnx", model())
    assert OUTSIDE.search(b"".join((length, b"location\x12\x0b../passwords")))  # however long its lengths are written
    stored = onnx.load(path)
    onnx.external_data_helper.convert_model_to_external_data(stored, size_threshold=0)
    onnx.save(stored, tmp_path / "outside.onnx")
    assert refusal(lambda: open_onnx(tmp_path / "outside.onnx"), tmp_path) == (
        "FOLDER/outside.onnx keeps tensors in other files, which is no export of Poise; export the model again"
    )


def test_a_logit_that_is_not_finite_is_refused(tmp_path):
    made = open_onnx(exported(tmp_path / "m.onnx", model(), shift=np.inf))
    assert refusal(lambda: made.logits(rows(2)), tmp_path) == (
        "FOLDER/m.onnx gives a logit that is not finite; export the model again"
    )


def test_without_onnxruntime_the_extra_is_named(tmp_path, monkeypatch):
    path = exported(tmp_path / "m.onnx", model())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert refusal(lambda: open_onnx(path), tmp_path, MissingExtraError) == (
        "predicting with FOLDER/m.onnx needs onnxruntime: pip install 'poise[export]'"
    )


# --- images -----------------------------------------------------------------------------------------------------------


def picture(path, size, mode="RGB", seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    smooth.convert(mode).save(path)
    return path


SIZES = [(40, 30), (30, 40), (33, 33), (9, 50), (51, 9), (32, 32), (8, 8), (37, 101)]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("size", "crop"), [(28, 0.875), (7, 0.9), (32, 1.0)])
def test_images_are_cut_pixel_for_pixel_as_for_the_network(tmp_path, size, crop, interpolation):
    shorter = round(size / crop)
    way = Pixels.read(
        {"height": size, "width": size, "resize": "shorter_side", "shorter": shorter, "interpolation": interpolation}
    )
    transform = eval_transform(size, crop=crop, interpolation=interpolation)
    for number, shape in enumerate(SIZES):
        file = picture(tmp_path / f"{number}.png", shape, seed=number)
        with Image.open(file) as image:
            expected = transform(image.convert("RGB")).numpy()
        found = pixels_of(file, way)
        assert found.dtype == np.float32
        assert np.array_equal(found, expected.astype(np.float32) / 255)


@pytest.mark.parametrize("size", [8, 13, 32])
def test_small_images_are_cut_pixel_for_pixel_as_for_the_network(tmp_path, size):
    way = Pixels.read({"height": size, "width": size, "resize": "middle_square", "interpolation": "bilinear"})
    for number, shape in enumerate(SIZES):
        file = picture(tmp_path / f"{number}.png", shape, seed=number)
        expected = small_pixels(open_items(file), size)[0].numpy()
        assert np.array_equal(pixels_of(file, way), expected.astype(np.float32) / 255)


PIXELS = {"height": 8, "width": 8, "resize": "middle_square", "shorter": None, "crop": 1.0, "interpolation": "bilinear"}


def image_model(path, **changes):
    """A network whose logits are the mean red, green and blue, ten times."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["z"]),
        helper.make_node("Add", ["z", "b"], ["logits"]),
    ]
    said = {"poise": json.dumps(about(model(), input="pixels", dim=None, pixels=PIXELS, **changes))}
    weight, bias = 10 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32)
    return save(path, nodes, [3, 8, 8], "pixels", weight, bias, said)


@pytest.fixture
def album(tmp_path):
    """A folder of images of one colour each, some of them in folders."""
    for number, name in enumerate(("b.png", "a.png", "sub/c.jpg", "sub/deep/d.png", ".hidden/e.png")):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = [0, 0, 0]
        colour[number % 3] = 255
        Image.new("RGB", (20 + number, 10), tuple(colour)).save(path)
    (tmp_path / "album" / "notes.txt").write_text("x")
    return tmp_path / "album"


def test_a_folder_of_images_is_predicted_in_the_order_of_the_library(tmp_path, album):
    made = open_onnx(image_model(tmp_path / "m.onnx"))
    files = image_files(album)
    with pytest.warns(PoiseWarning, match="no image by name"):
        items = open_items(album)
    assert [str(file) for file in files] == [items.describe(i) for i in range(len(items))]
    done = predict_images(made, files, tmp_path / "p.csv")
    found = table(done.path)
    assert found["sample"] == [str(file) for file in files]
    assert found["prediction"] == [NAMES[k] for k in (1, 0, 2, 0)]
    assert image_files(album / "a.png") == [album / "a.png"]


def test_broken_images_are_refused_or_skipped(tmp_path, album):
    made = open_onnx(image_model(tmp_path / "m.onnx"))
    (album / "aa.png").write_bytes(b"\x89PNG broken")
    files = image_files(album)
    assert refusal(lambda: predict_images(made, files, tmp_path / "p.csv"), album).startswith(
        "FOLDER/aa.png is no image"
    )
    assert not (tmp_path / "p.csv").exists()
    with pytest.warns(PoiseWarning, match="1 image is broken and left out of 5"):
        done = predict_images(made, files, tmp_path / "p.csv", broken="skip")
    assert done.rows == 4
    assert refusal(lambda: predict_images(made, [album / "aa.png"], tmp_path / "p.csv", broken="skip")).startswith(
        "none of the 1 images can be read; the first: "
    )
    assert refusal(lambda: predict_images(made, files, tmp_path / "p.csv", broken="no")) == (
        "broken must be one of error, skip; got 'no'"
    )


def test_sources_without_images_are_refused(tmp_path, album):
    (tmp_path / "empty").mkdir()
    assert refusal(lambda: image_files(tmp_path / "empty"), tmp_path).startswith("FOLDER/empty holds no image; images")
    assert refusal(lambda: image_files(album / "notes.txt"), album) == (
        "FOLDER/notes.txt is no image; this model reads an image, or a folder of images"
    )
    assert refusal(lambda: image_files(album / "no"), album) == (
        "FOLDER/no does not exist; this model reads an image, or a folder of images"
    )
    (album / "sub" / "loop").symlink_to(album)
    assert refusal(lambda: image_files(album), album).endswith("is a link to a folder that holds it; remove the link")


# --- the verb ---------------------------------------------------------------------------------------------------------

WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "sklearn", "scipy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from poise.cli import main
main(sys.argv[1:])
"""


def test_the_verb_predicts_where_torch_is_not_installed(tmp_path, album):
    point = OperatingPoint(costs=(1.0, 2.0, 3.0), abstain=0.4, top_k=2)
    made, x = model(operating=point), rows(6)
    write(tmp_path, x)
    exported(tmp_path / "rows.onnx", made, columns=list(COLUMNS))
    image_model(tmp_path / "images.onnx")
    program = [sys.executable, "-c", WITHOUT_TORCH, "predict"]
    clean = {**os.environ, "PYTHONWARNINGS": "error"}
    for words in (
        ("rows.onnx", "turned.csv", "--out", "csv.csv"),
        ("rows.onnx", "splits.npz#test", "--out", "npz.csv", "--top", "2"),
        ("images.onnx", "album", "--out", "images.csv", "--json"),
    ):
        done = subprocess.run([*program, *words], cwd=tmp_path, capture_output=True, text=True, env=clean, check=False)
        assert done.returncode == 0, done.stderr
    ours = write_predictions(made, torch.from_numpy(x), tmp_path / "ours.csv", top=2)
    assert_same(table(tmp_path / "npz.csv"), table(ours.path))
    carried = {"site": ["here"] * 6, "label": ["cat"] * 6}
    ours = write_predictions(made, torch.from_numpy(x), tmp_path / "ours.csv", carried=carried)
    assert_same(table(tmp_path / "csv.csv"), table(ours.path))
    assert json.loads(done.stdout)["rows"] == 4


def test_the_verb_answers_as_with_the_folder_and_refuses_what_means_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made, x = model(operating=OperatingPoint(abstain=0.5), prior_applied=torch.tensor([9.0, 4, 1]) / 14), rows(20)
    write(tmp_path, x)
    exported(tmp_path / "m.onnx", made)
    made.save(tmp_path / "model")

    def run(*words):
        with pytest.raises(SystemExit) as stop:
            main(["predict", *words])
        said = capsys.readouterr()
        return stop.value.code, said.out, said.err

    answered = run("m.onnx", "x.npy", "--out", "p.csv")
    (tmp_path / "p.csv").unlink()
    assert answered == run("model", "x.npy", "--out", "p.csv")
    assert run("m.onnx", "x.npy", "--device", "cuda") == (
        2,
        "",
        "poise: m.onnx runs on cpu, got --device cuda; the folder of the model runs on others\n",
    )
    assert run("m.onnx", "x.npy", "--split", "test")[2] == (
        "poise: --split is for folders of models; m.onnx reads files of features, or images\n"
    )
    assert run("n.onnx", "x.npy")[2] == "poise: there is no file or folder n.onnx, did you mean 'm.onnx'?\n"


def test_the_module_itself_imports_no_torch():
    program = "import sys, poise.export.onnx_prediction; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert onnx_prediction.KEY == "poise"
