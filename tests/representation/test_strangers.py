"""Folders and files of strangers: whatever they say, nothing of theirs runs and nothing beside them is read."""

import json
import pickle
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from poise.commands.config import load_config
from poise.commands.stages import refuse_unsaid
from poise.errors import InputError
from poise.representation.backbones import build, build_saved, load_weights
from poise.representation.backbones.from_file import check_options, needs_trust, source_digest
from poise.representation.checkpoints import NEWEST, load_checkpoint, save_checkpoint
from poise.representation.run import begun
from poise.representation.trained_network import REPRESENTATION, Representation, load_representation
from poise.values.counts import ClassCounts
from poise.values.head import Head

FACTORY = """
from pathlib import Path
from torch import nn
Path({canary!r}).touch()


class Evil(nn.Module):
    def __init__(self, *given, **named):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x)
"""


class Bomb:
    """Makes the canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (self.canary,))


@pytest.fixture
def canary(tmp_path: Path):
    """A file that nothing may make."""
    place = tmp_path / "canary"
    yield place
    assert not place.exists()


def represented(folder: Path, name: str = "convnet4", **changes) -> Path:
    """The folder of a small network with a classifier of three classes."""
    backbone = build(name, size=16, seed=1)
    usual = {"head": Head(torch.zeros(3, backbone.dim), torch.zeros(3)), "class_names": ("a", "b", "c")}
    usual["counts"] = ClassCounts(torch.tensor([15, 6, 3]))
    return Representation(backbone=backbone, **{**usual, **changes}).save(folder)


def said(folder: Path) -> dict:
    return json.loads((folder / REPRESENTATION).read_text())


def edited(folder: Path, **backbone) -> Path:
    body = said(folder)
    body["backbone"] |= backbone
    (folder / REPRESENTATION).write_text(json.dumps(body))
    return folder


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "evil:factory",
        "evil.sub:factory",
        "os:system",
        "sentence:./model",
        "sentence:/tmp/model",
        "sentence:../model",
        "sentence:owner/name/more",
        "sentence:~/model",
        "sentence:",
        "hf:./model",
        "hf:/tmp/model",
        "hf:a/../b",
        "timm:local-dir:/tmp/model",
        "timm:hf-hub:owner/model",
        "local-dir:/tmp/model",
        "../model",
        "resnet20\n",
        "hf:owner/name\n",
        "",
        "x" * 5000,
    ],
)
def test_a_file_names_no_code_and_no_place(tmp_path: Path, name: str) -> None:
    assert needs_trust(name)
    folder = edited(represented(tmp_path / "r"), name=name)
    with pytest.raises(InputError, match=r"names the network .* if you trust it, say so by that name"):
        load_representation(folder)


@pytest.mark.parametrize(
    "name",
    ["resnet20", "timm:resnet50", "timm:vit_base_patch16_clip_224.openai", "sentence:minilm", "hf:owner/Some-Name_1.0"],
)
def test_a_file_may_name_what_is_published(name: str) -> None:
    assert not needs_trust(name)


@pytest.mark.parametrize("kind", ["sentence", "hf"])
def test_a_published_name_that_is_also_a_folder_here_is_the_users_to_say(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not needs_trust(f"{kind}:owner/name")
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert needs_trust(f"{kind}:owner/name")


def test_a_network_of_another_module_runs_only_where_it_is_typed_and_is_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "strangers_network.py"
    source.write_text("from torch import nn\n\n\ndef small():\n    return nn.Conv2d(3, 4, 3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    name = "strangers_network:small"
    folder = represented(tmp_path / "r", name)
    assert said(folder)["backbone"]["source"] == source_digest(name)
    assert load_representation(folder, trusted=name).backbone.name == name
    source.write_text(source.read_text() + "# another one\n")
    sys.modules.pop("strangers_network")
    with pytest.raises(InputError, match=f"what {name} leads to here is not what .* was made with: its sha256 is not"):
        load_representation(folder, trusted=name)
    assert "strangers_network" not in sys.modules


def test_a_digest_is_taken_without_running_anything(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_pack").mkdir()
    for name in ("__init__.py", "nets.py"):
        (tmp_path / "evil_pack" / name).write_text(FACTORY.format(canary=str(canary)))
    monkeypatch.syspath_prepend(tmp_path)
    one, other = source_digest("evil_pack.nets:Evil"), source_digest("evil_pack:Evil")
    assert one is not None
    assert other is not None
    assert one != other
    assert source_digest("no_such_module_here:f") is None


def test_a_folder_of_sentence_transformers_is_told_by_a_digest_of_all_its_files(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "1_Pooling").mkdir(parents=True)
    (model / "modules.json").write_text("[]")
    before = source_digest(f"sentence:{model}")
    (model / "1_Pooling" / "config.json").write_text("{}")
    assert before is not None
    assert source_digest(f"sentence:{model}") != before


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timm:resnet10t", {"checkpoint_path": "evil.pth"}),
        ("timm:resnet10t", {"pretrained_cfg": {"file": "evil.pth"}}),
        ("timm:resnet10t", {"pretrained_cfg_overlay": {"url": "http://127.0.0.1/evil"}}),
        ("timm:resnet10t", {"pretrained": True}),
        ("timm:resnet10t", {"cache_dir": "evil"}),
        ("timm:resnet10t", {"act_layer": "os.system"}),
        ("timm:resnet10t", {"drop_rate": "evil.pth"}),
        ("timm:resnet10t", {"embed_dim": 10**9}),
        ("hf:owner/name", {"trust_remote_code": True}),
        ("hf:owner/name", {"code_revision": "evil"}),
        ("hf:owner/name", {"auto_map": {"AutoModel": "evil.Evil"}}),
        ("hf:owner/name", {"cache_dir": "evil"}),
        ("mine:factory", {"weights": "./evil.pth"}),
        ("mine:factory", {"weights": "evil.pth"}),
        ("mine:factory", {"of": {"a": 1}}),
        ("sentence:minilm", {"trust_remote_code": True}),
        ("resnet10", {"start": "evil"}),
        ("resnet20", {"weights": "evil.pth"}),
        ("resnet20", {"saved": False}),
        ("resnet20", {"pretrained": True}),
        ("resnet20", {"seed": 3}),
    ],
)
def test_options_that_could_open_something_are_refused(tmp_path: Path, name: str, options: dict) -> None:
    with pytest.raises(InputError, match=rf"{next(iter(options))}"):
        check_options("the file", name, options)
    folder = edited(represented(tmp_path / "r"), name=name, options=options)
    with pytest.raises(InputError):
        load_representation(folder, trusted=name)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timm:vit_tiny", {"img_size": [32, 32], "drop_path_rate": 0.1, "global_pool": "avg", "zero_init_last": False}),
        ("resnet10", {"start": "torch", "mean": [0.1, 0.2, 0.3], "crop": 0.875, "interpolation": "bilinear"}),
        ("mine:factory", {"width": 6, "norm": "batch", "deep": True, "steps": [1, 2], "none": None}),
        ("hf:owner/name", {"image_size": 32, "output": "first", "last_block": ["encoder.layer.11."]}),
    ],
)
def test_plain_options_are_taken(name: str, options: dict) -> None:
    check_options("the file", name, options)


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes no option 'checkpoint_path' from a file"):
        represented(tmp_path / "r", options={"checkpoint_path": "x"})
    assert not (tmp_path / "r").exists()


def test_no_option_of_a_folder_opens_a_pickle(tmp_path: Path, canary: Path) -> None:
    pytest.importorskip("timm")
    folder = represented(tmp_path / "r", "timm:test_vit", head=None, class_names=None, counts=None)
    torch.save(Bomb(canary), tmp_path / "evil.pth")
    edited(folder, options={"checkpoint_path": str(tmp_path / "evil.pth")})
    with pytest.raises(InputError, match="takes no option 'checkpoint_path' from a file"):
        load_representation(folder, trusted="timm:test_vit")


def test_this_timm_refuses_a_pickle_on_its_own(tmp_path: Path, canary: Path) -> None:
    pytest.importorskip("timm")
    torch.save({"state_dict": Bomb(canary)}, tmp_path / "evil.pth")
    with pytest.raises(Exception, match=r"weights_only|[Ww]eights only"):
        build("timm:test_vit", checkpoint_path=str(tmp_path / "evil.pth"))


@pytest.mark.parametrize("local", [True, False])
def test_these_sentence_transformers_import_no_class_that_a_model_names(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    library = pytest.importorskip("sentence_transformers")
    model = tmp_path / "model"
    model.mkdir()
    code = FACTORY.format(canary=str(canary))
    (model / "evil.py").write_text(code)
    (tmp_path / "evil_installed.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    kind = "evil.Evil" if local else "evil_installed.Evil"
    (model / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": kind}]))
    (model / "config_sentence_transformers.json").write_text("{}")
    with pytest.raises(Exception, match="trust_remote_code"):
        library.SentenceTransformer(str(model), device="cpu", trust_remote_code=False)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_pickles_in_weights_and_checkpoints_are_never_run(tmp_path: Path, canary: Path, pack: int) -> None:
    torch.save({"format": "poise.checkpoint", "schema": 1, "step": 1, "evil": Bomb(canary)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as given, zipfile.ZipFile(tmp_path / NEWEST, "w", pack) as packed:
        for each in given.infolist():
            packed.writestr(each.filename, given.read(each))
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Bomb(canary)))
    with pytest.raises(InputError, match=r"no whole archive|no tensors"):
        load_checkpoint(tmp_path)
    for name in (NEWEST, "bare.pth"):
        with pytest.raises(InputError, match=r"no whole archive|no tensors"):
            load_weights(build("convnet4").module, tmp_path / name, name="convnet4")


def test_a_packed_archive_is_refused_before_it_grows(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"step": 1, "x": torch.zeros(100_000)})
    with zipfile.ZipFile(tmp_path / NEWEST) as given:
        members = {each.filename: given.read(each) for each in given.infolist()}
    with zipfile.ZipFile(tmp_path / NEWEST, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    assert (tmp_path / NEWEST).stat().st_size < 10_000
    with pytest.raises(InputError, match="it is no whole archive, as torch writes it"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("key", ["step", "network", "momentum", "average", "loss_state", "meter", "known"])
def test_a_checkpoint_without_a_part_or_with_another_kind_is_refused(tmp_path: Path, key: str) -> None:
    known = {"settings": {"loss": "ce", "trained": "all"}, "data": {}}
    whole = {"step": 1, "network": {}, "momentum": [], "average": {}, "loss_state": [], "meter": {}, "known": known}
    save_checkpoint(tmp_path, whole)
    assert begun(tmp_path)["step"] == 1
    for value in ("x", -1, [{}], {"a": "b"}):
        save_checkpoint(tmp_path, {**whole, key: value})
        with pytest.raises(InputError, match=f": {key} must be"):
            begun(tmp_path)
    save_checkpoint(tmp_path, {name: value for name, value in whole.items() if name != key})
    with pytest.raises(InputError, match=f": {key} is missing"):
        begun(tmp_path)


@pytest.mark.parametrize("name", ["backbone.safetensors", "head.safetensors"])
def test_only_files_with_a_checksum_are_read(tmp_path: Path, name: str) -> None:
    folder = represented(tmp_path / "r")
    body = said(folder)
    del body["sha256"][name]
    (folder / REPRESENTATION).write_text(json.dumps(body))
    if name == "backbone.safetensors":
        with pytest.raises(InputError, match=r"sha256 does not name backbone.safetensors"):
            load_representation(folder)
    else:
        assert load_representation(folder).head is None


@pytest.mark.parametrize("key", ["size", "mean", "std", "crop", "interpolation", "name", "options"])
@pytest.mark.parametrize("value", [0, -1, 2**63, "", None, [], {}, [1, "x", 2], "a\0b"])
def test_a_description_of_other_kinds_is_refused(tmp_path: Path, key: str, value: object) -> None:
    folder = edited(represented(tmp_path / "r"), **{key: value})
    if (key, value) == ("options", {}):
        assert load_representation(folder).backbone.name == "convnet4"
        return
    with pytest.raises(InputError, match=r"must be|names the network|std must be positive"):
        load_representation(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("counts", [15, 6, 2**63], "counts must be a list of whole numbers"),
        ("counts", [15, 6], "differ in their number of classes: counts 2, class names 3, classifier 3"),
        ("class_names", ["a", "b"], "differ in their number of classes"),
        ("class_names", ["a", 2, "c"], "class_names must be a list of names"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(tmp_path: Path, key: str, value: object, message: str) -> None:
    folder = represented(tmp_path / "r")
    (folder / REPRESENTATION).write_text(json.dumps({**said(folder), key: value}))
    with pytest.raises(InputError, match=message):
        load_representation(folder)


def test_digests_of_another_kind_are_refused(tmp_path: Path) -> None:
    folder = represented(tmp_path / "r", seen=torch.tensor([1, 2]))
    save_file({"digests": torch.zeros(2)}, folder / "seen.safetensors")
    body = said(folder)
    body["sha256"]["seen.safetensors"] = sha256((folder / "seen.safetensors").read_bytes()).hexdigest()
    (folder / REPRESENTATION).write_text(json.dumps(body))
    with pytest.raises(InputError, match="holds no digests"):
        load_representation(folder)


@pytest.mark.parametrize("header", [{}, {"unit": "x"}, {"unit": "null"}, {"schema": "²"}, {"schema": "9" * 5000}])
def test_a_head_with_other_metadata_is_refused(tmp_path: Path, header: dict) -> None:
    known = {"format": "poise.head", "schema": "1", **({"unit": "true"} if "schema" in header else {}), **header}
    save_file({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, tmp_path / "h.safetensors", known)
    with pytest.raises(InputError, match=r"h\.safetensors"):
        Head.load(tmp_path / "h.safetensors")


def test_a_description_with_weights_is_built_as_the_card_of_an_export_says(tmp_path: Path, canary: Path) -> None:
    folder = represented(tmp_path / "r")
    about = said(folder)["backbone"]
    weights = folder / "backbone.safetensors"
    assert build_saved(about, weights).weights_digest == build("convnet4", size=16, seed=1).weights_digest
    with pytest.raises(InputError, match="names the network 'os:system'"):
        build_saved({**about, "name": "os:system", "options": {"command": f"touch {canary}"}}, weights)


def test_object_arrays_are_never_unpickled(tmp_path: Path, canary: Path) -> None:
    from poise.data.samples.formats import open_samples
    from poise.export.rows_for_onnx import read_rows

    evil = np.array([Bomb(canary)], dtype=object)
    np.save(tmp_path / "x.npy", evil, allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=evil, images=evil, y=evil)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(InputError, match=r"x\.np"):
            read_rows(tmp_path / name)
    with pytest.raises(InputError, match=r"x\.npz"):
        open_samples(str(tmp_path / "x.npz"))


def test_a_recipe_names_no_code_that_was_not_typed_too(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strangers_code.py").write_text(FACTORY.format(canary=str(canary)))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "r.yaml").write_text("backbone:\n  name: strangers_code:Evil\n")
    asked = "backbone.name=strangers_code:Evil"
    config = load_config(tmp_path / "r.yaml")
    with pytest.raises(InputError, match=rf"r\.yaml names the network .* say so: -s {asked}$"):
        refuse_unsaid(config, tmp_path / "r.yaml", ["stage1.epochs=1"])
    refuse_unsaid(config, tmp_path / "r.yaml", [asked])
    refuse_unsaid(load_config("photographs"), "photographs", [])


def test_yaml_makes_no_objects(tmp_path: Path, canary: Path) -> None:
    (tmp_path / "r.yaml").write_text(f"title: !!python/object/apply:os.system ['touch {canary}']\n")
    with pytest.raises(InputError, match=r"r\.yaml"):
        load_config(tmp_path / "r.yaml")
