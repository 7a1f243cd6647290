"""Exports compute what the model computes, say what they leave out, and do not exist where they differ."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from export_world import COSTS, HOSTILE, SIDE, images, library_logits, model, network
from poise import export
from poise.data.samples.formats import open_items
from poise.decisions.decide import decide
from poise.decisions.operating_point import OperatingPoint
from poise.errors import InputError, MissingExtraError
from poise.export.checking import pixels_of
from poise.export.final import Network, described, final, image_backbone
from poise.export.graphs import export_onnx, export_program
from poise.export.tensors import export_safetensors, formula
from poise.representation.augment.photographs import eval_transform
from poise.representation.backbones import TextBackbone, build
from poise.values.head import Head, Prep

CENTRE = torch.linspace(-1, 1, 8, dtype=torch.float64)
COSTLY = OperatingPoint(costs=COSTS)


def rows(n, dim=8, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


# --- folding ----------------------------------------------------------------------------------------------------------


def test_a_centre_is_folded_into_the_bias():
    made = model(prep=Prep(CENTRE))
    folded = final(made)
    assert folded.head.prep is None
    assert folded.folded == ("temperature and prior", "centre")
    assert folded.steps == ()
    torch.testing.assert_close(folded.head(rows(20)), made.head(rows(20)))


@pytest.mark.parametrize(("centre", "steps"), [(None, ("unit",)), (CENTRE, ("centre", "unit"))])
def test_division_by_the_norm_stays_a_step(centre, steps):
    made = model(prep=Prep(centre, unit=True))
    assert final(made).steps == steps
    assert final(made).folded == ("temperature and prior",)
    torch.testing.assert_close(final(made).head(rows(20)), made.head(rows(20)))


def test_costs_alone_are_folded_and_the_largest_logit_is_then_the_answer():
    made = model(operating=COSTLY)
    folded = final(made)
    assert folded.folded[-1] == "costs"
    assert folded.head(rows(200)).argmax(1).tolist() == decide(made.head(rows(200)), COSTLY).label.tolist()


@pytest.mark.parametrize(
    "point",
    [
        OperatingPoint(costs=COSTS, abstain=0.5),
        OperatingPoint(thresholds=[0.1] * 5),
        OperatingPoint(costs=(1 - np.eye(5)).tolist()),
    ],
)
def test_what_logits_cannot_carry_is_written_beside_them(point):
    made = model(operating=point)
    assert final(made).added is None
    assert torch.equal(final(made).head.bias, made.head.bias)
    assert OperatingPoint.from_dict(described(made)["operating"]) == point


# --- tensors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prep", [None, Prep(CENTRE), Prep(CENTRE, unit=True), Prep(unit=True)])
def test_tensors_are_read_with_safetensors_alone_by_the_formula_in_the_json(tmp_path, prep):
    made = model(prep=prep, operating=COSTLY)
    export_safetensors(made, tmp_path)
    about = json.loads((tmp_path / "head.json").read_text(encoding="utf-8"))
    known = {"numpy": np, "x": rows(30).double().numpy(), **load_file(tmp_path / "head.safetensors")}
    exec(about["formula"].replace("; ", "\n"), known)
    wanted = made.head(rows(30)) + COSTLY.shift
    np.testing.assert_allclose(known["logits"], wanted.numpy(), atol=1e-12)
    assert about["class_names"] == list(HOSTILE)
    assert about["added"] == COSTLY.shift.tolist()


def test_a_zero_row_stays_zero_by_the_formula():
    made = model(prep=Prep(unit=True))
    known = {"numpy": np, "x": np.zeros((2, 8)), "weight": made.head.weight.numpy(), "bias": made.head.bias.numpy()}
    exec(formula(final(made)).replace("; ", "\n"), known)
    np.testing.assert_array_equal(known["logits"], np.stack([made.head.bias.numpy()] * 2))


def test_tensors_keep_their_type_or_are_rounded_and_the_same_bytes_come_twice(tmp_path):
    first, _ = export_safetensors(model(), tmp_path / "a")
    again, _ = export_safetensors(model(), tmp_path / "b")
    rounded, _ = export_safetensors(model(), tmp_path / "c", dtype=torch.float32)
    assert first.read_bytes() == again.read_bytes()
    assert {t.dtype for t in load_file(first).values()} == {np.dtype("float64")}
    assert {t.dtype for t in load_file(rounded).values()} == {np.dtype("float32")}
    assert torch.equal(Head.load(first).weight, model().head.weight)


# --- ONNX -------------------------------------------------------------------------------------------------------------


def session(path):
    runtime = pytest.importorskip("onnxruntime")
    return runtime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def onnx_head(tmp_path_factory):
    """A head with a centre and costs, and hostile class names."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    made = model(prep=Prep(CENTRE), operating=COSTLY, columns=[f"f{k}" for k in range(8)])
    return made, path, export_onnx(made, path, rows=rows(50, seed=4))


@pytest.fixture(scope="module")
def onnx_network(tmp_path_factory):
    """A network and its head, from pixels to logits, in both formats."""
    folder, backbone = tmp_path_factory.mktemp("network"), network()
    made = model(backbone.dim, dtype=torch.float32)
    agreements = [
        export_onnx(made, folder / "model.onnx", backbone=backbone, rows=images(10)),
        export_program(made, folder / "model.pt2", backbone=backbone, rows=images(10)),
    ]
    return made, backbone, folder, agreements


def test_the_metadata_of_an_onnx_file_are_the_description_whatever_the_classes_are_called(onnx_head):
    made, path, _ = onnx_head
    about = json.loads(session(path).get_modelmeta().custom_metadata_map["poise"])
    assert about == described(made)
    assert tuple(about["class_names"]) == HOSTILE
    assert (about["input"], about["dim"], about["pixels"]) == ("features", 8, None)
    assert about["columns"] == [f"f{k}" for k in range(8)]


@pytest.mark.parametrize("n", [1, 2, 33])
def test_onnxruntime_decides_as_the_library_at_any_batch_size(onnx_head, n):
    made, path, _ = onnx_head
    x = rows(n, seed=n)
    about = json.loads(session(path).get_modelmeta().custom_metadata_map["poise"])
    (output,) = session(path).run(["logits"], {"features": x.numpy()})
    logits = torch.from_numpy(output.astype(float)) - torch.tensor(about["added"])
    torch.testing.assert_close(logits, made.head(x), atol=1e-5, rtol=0)
    found, wanted = decide(logits, OperatingPoint.from_dict(about["operating"])), decide(made.head(x), COSTLY)
    assert found.label.tolist() == wanted.label.tolist() == output.argmax(1).tolist()
    torch.testing.assert_close(found.confidence, wanted.confidence, atol=1e-5, rtol=0)


def test_the_agreement_says_what_was_compared(onnx_head):
    _, _, agreement = onnx_head
    assert (agreement.rows, agreement.given) == (58, 50)
    assert agreement.largest < 1e-5
    assert str(agreement).startswith("onnxruntime at batch sizes 1 and 7 and on 50 given rows: largest difference ")
    assert str(agreement).endswith("predictions equal on 58 rows")


def test_nothing_in_an_exported_file_names_a_folder_of_this_machine(onnx_network, onnx_head):
    _, _, folder, _ = onnx_network
    for path in (folder / "model.onnx", folder / "model.pt2", onnx_head[1]):
        content = path.read_bytes()
        for place in (Path(export.__file__).parent, Path(torch.__file__).parent, path.parent):
            assert str(place).encode() not in content


def test_a_step_that_cannot_be_folded_is_a_node_and_a_zero_row_stays_zero(tmp_path):
    made = model(prep=Prep(unit=True))
    export_onnx(made, tmp_path / "model.onnx")
    x = torch.cat([rows(5), torch.zeros(1, 8)])
    (output,) = session(tmp_path / "model.onnx").run(["logits"], {"features": x.numpy()})
    np.testing.assert_allclose(output, made.head(x).numpy(), atol=1e-5)


def test_a_network_is_exported_from_pixels_to_logits(onnx_network):
    made, backbone, folder, agreements = onnx_network
    pixels = images(5, seed=9)
    wanted = library_logits(made, backbone, pixels).numpy()
    (output,) = session(folder / "model.onnx").run(["logits"], {"pixels": (pixels / 255).numpy()})
    np.testing.assert_allclose(output, wanted, atol=1e-4)
    assert [agreement.rows for agreement in agreements] == [18, 18]
    about = json.loads(session(folder / "model.onnx").get_modelmeta().custom_metadata_map["poise"])
    assert (about["input"], about["dim"]) == ("pixels", None)
    assert (about["pixels"]["height"], about["pixels"]["resize"]) == (SIDE, "middle_square")


def test_a_program_of_torch_runs_at_any_batch_size_and_carries_the_same_description(onnx_network):
    made, backbone, folder, _ = onnx_network
    extra = {"poise.json": ""}
    program = torch.export.load(folder / "model.pt2", extra_files=extra)
    pixels = images(3, seed=9)
    torch.testing.assert_close(
        program.module()(pixels / 255), library_logits(made, backbone, pixels), atol=1e-4, rtol=0
    )
    assert json.loads(extra["poise.json"]) == described(made, backbone)


@pytest.mark.parametrize("size", [SIDE, 72])
def test_pixels_follow_from_the_description_with_pillow_and_numpy_alone(tmp_path, size):
    if size > 64:
        pytest.importorskip("torchvision")
    backbone = build("convnet4", size=size, crop=0.9, interpolation="bicubic")
    said = described(model(backbone.dim), backbone)["pixels"]
    rng = np.random.default_rng(0)
    for shape in ((90, 57), (57, 90), (80, 80), (200, 31)):
        image = Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
        image.save(tmp_path / "image.png")
        wanted = pixels_of(backbone, open_items(tmp_path / "image.png"))[0].numpy()
        np.testing.assert_array_equal(as_described(image, said), wanted)
    if size > 64:
        whole = eval_transform(size, crop=0.9, interpolation="bicubic")
        np.testing.assert_array_equal(as_described(image, said), whole(image).numpy())


def as_described(image, said):
    """(3, H, W) uint8, by the words of the description."""
    size = said["height"]
    if said["resize"] == "middle_square":
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box)).transpose(2, 0, 1)
    w, h = image.size
    long = int(said["shorter"] * max(w, h) / min(w, h))
    shape = (said["shorter"], long) if w <= h else (long, said["shorter"])
    image = image.resize(shape, Image.Resampling[said["interpolation"].upper()])
    left, top = round((image.width - size) / 2.0), round((image.height - size) / 2.0)
    return np.asarray(image.crop((left, top, left + size, top + size))).transpose(2, 0, 1)


# --- refusals ---------------------------------------------------------------------------------------------------------


class Bent(torch.nn.Module):
    """A graph that adds a little to the logits of one class."""

    def __init__(self, *arguments):
        super().__init__()
        self.inner = Network(*arguments)
        self.example = self.inner.example

    def forward(self, x):
        return self.inner(x) + torch.tensor([0.0, 0.0, 0.5, 0.0, 0.0])


@pytest.mark.parametrize(("write", "runner"), [(export_onnx, "onnxruntime"), (export_program, "torch.export")])
def test_a_file_that_differs_from_the_model_is_deleted_and_the_former_one_stays(monkeypatch, tmp_path, write, runner):
    monkeypatch.setattr("poise.export.graphs.Network", Bent)
    path = tmp_path / "model.file"
    path.write_text("former")
    with pytest.raises(InputError) as caught:
        write(model(), path)
    assert str(caught.value).startswith(f"{runner} does not give the model's logits: they differ by 0.5 at a scale of ")
    assert str(caught.value).endswith("the file was deleted")
    assert [p.name for p in tmp_path.iterdir()] == ["model.file"]
    assert path.read_text() == "former"


def test_a_file_that_the_checker_refuses_is_deleted(monkeypatch, tmp_path):
    onnx = pytest.importorskip("onnx")

    def refused(*_, **__):
        raise onnx.checker.ValidationError("no such operator")

    monkeypatch.setattr(onnx.checker, "check_model", refused)
    with pytest.raises(InputError, match=r"^the head cannot be exported for onnxruntime: no such operator; nothing"):
        export_onnx(model(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


class Choosy(torch.nn.Module):
    """A network whose way depends on the values."""

    def forward(self, x):
        return x.mean(dim=(2, 3)) if float(x.sum()) > 0 else x.amax(dim=(2, 3))


def test_a_network_that_cannot_be_traced_is_refused_in_one_sentence(tmp_path):
    backbone = replace(network(), module=Choosy(), dim=3)
    with pytest.raises(InputError, match=r"^backbone convnet4 cannot be exported for torch.export: .*; nothing was"):
        export_program(model(3), tmp_path / "model.pt2", backbone=backbone)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as caught:
        export_onnx(model(), tmp_path / "model.onnx")
    assert str(caught.value) == f"ONNX files need {package}: pip install 'poise[export]'"
    assert list(tmp_path.iterdir()) == []


def test_rows_of_another_kind_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"must be features \(N, 8\), got torch.float32 \(4, 5\)"):
        export_program(model(), tmp_path / "model.pt2", rows=torch.zeros(4, 5))
    with pytest.raises(InputError, match=r"must be eight-bit images \(N, 3, 16, 16\), got torch.float32 "):
        export_program(model(128), tmp_path / "model.pt2", backbone=network(), rows=torch.zeros(4, 3, SIDE, SIDE))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^cannot write .*model.pt2: .*; choose another place"):
        export_program(model(), tmp_path / "file" / "model.pt2")


def test_a_backbone_of_texts_is_refused_with_the_remedy():
    with pytest.raises(InputError) as caught:
        image_backbone(TextBackbone("sentence:minilm", 384, lambda texts: torch.zeros(1, 384)))
    assert str(caught.value) == (
        "the model reads texts by sentence:minilm, which no export holds; export the head alone (--head-only) and feed "
        "it the rows of `poise extract`"
    )
