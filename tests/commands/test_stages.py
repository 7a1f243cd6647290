"""The steps from samples to a problem for heads: what they write, what they do not do twice, what they refuse."""

import json
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from image_world import QUICK, SIZES, pictures, table
from poise.commands import stages
from poise.commands.config import Config, load_config
from poise.commands.description import is_described, write_description
from poise.commands.stages import (
    extract_splits,
    load_problem,
    opened_backbone,
    prepare,
    represent,
    run_data,
    stage1_scores,
    store_features,
)
from poise.data.store.feature_store import load_features
from poise.data.store.manifest import read_manifest
from poise.errors import InputError, PoiseWarning, StoppedError
from poise.representation.extract import Views
from poise.representation.trained_network import Representation, load_representation

FACTORY = """
from pathlib import Path
from torch import nn

def small(width=4):
    with Path({canary!r}).open("a") as file:
        file.write("x")
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("fotos ü 100% é") / "train")


def asked(data: Path, *changes: str) -> Config:
    return load_config("small_images", [f"data.train={json.dumps(str(data))}", *QUICK, *changes])


def ran(config: Config, folder: Path) -> dict[str, Path]:
    splits = prepare(config)
    write_description(config, splits, folder)
    return store_features(config, represent(config, splits, folder), splits, folder)


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests read it only."""
    folder = tmp_path_factory.mktemp("run")
    ran(asked(photos), folder)
    return folder


# --- data -------------------------------------------------------------------------------------------------------------


def test_rows_of_every_class_are_set_aside_before_anything_is_trained(photos: Path) -> None:
    splits = prepare(asked(photos))
    assert {part: len(samples) for part, samples in splits.parts.items()} == {"train": 25, "held_out": 4, "test": 7}
    assert splits.train.counts.n.tolist() == [14, 7, 4]
    files = [samples.items.describe(i) for samples in splits.parts.values() for i in range(len(samples))]
    assert len(set(files)) == len(files) == sum(SIZES.values())


def test_a_run_without_samples_says_which_key_is_missing() -> None:
    with pytest.raises(InputError, match=r"^data.train is not given; add -s data.train=PATH$"):
        prepare(load_config("small_images"))


def test_a_group_is_in_one_part_only(photos: Path, tmp_path: Path) -> None:
    made = table(photos.parent / "sites.csv", photos, sites=2)
    splits = prepare(asked(made, "data.group=site"))
    sites = {part: set(samples.groups or ()) for part, samples in splits.parts.items()}
    assert sum(map(len, sites.values())) == len(set.union(*sites.values())) == 18
    assert min(map(len, sites.values())) > 0


def test_a_profile_is_cut_with_classes_in_another_order(tmp_path: Path) -> None:
    data = pictures(tmp_path / "even", dict.fromkeys("abcd", 16), side=8)
    counts = {}
    for order in ("native", "3"):
        changes = ("data.profile=exponential(imbalance=8,n_max=8)", f"data.class_order={order}")
        counts[order] = prepare(asked(data, "data.test_rows=0", *changes)).train.counts.n.tolist()
    assert counts["native"] == [8, 4, 2, 1]
    assert sorted(counts["3"]) == [1, 2, 4, 8]
    assert counts["3"] != counts["native"]


def test_list_files_are_read_from_the_root_that_the_configuration_names(photos: Path, tmp_path: Path) -> None:
    lines = [f"train/{name}/{i:03d}.png {k}\n" for k, (name, size) in enumerate(SIZES.items()) for i in range(size)]
    (tmp_path / "list.txt").write_text("".join(lines))
    root = f"data.root={json.dumps(str(photos.parent))}"
    splits = prepare(asked(tmp_path / "list.txt", root))
    assert sum(map(len, splits.parts.values())) == 36
    assert splits.train.counts.n.tolist() == prepare(asked(photos)).train.counts.n.tolist()


def test_test_samples_of_their_own_are_matched_by_class_name(photos: Path, tmp_path: Path) -> None:
    judged = pictures(tmp_path / "judged", {"cat tail": 2, "bee": 3, "ant": 1}, seed=5)
    splits = prepare(asked(photos, f"data.test={judged}"))
    assert splits.test is not None
    assert splits.test.counts.n.tolist() == [1, 3, 2]
    assert len(splits.train) + len(splits.held_out or ()) == 36


def test_a_table_with_a_column_of_splits_is_divided_by_it(photos: Path) -> None:
    files = sorted(photos.rglob("*.png"))
    rows = [
        f"{f.relative_to(photos.parent)},{f.parent.name},{'test' if i % 3 == 0 else 'train'}"
        for i, f in enumerate(files)
    ]
    (photos.parent / "split.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    splits = prepare(asked(photos.parent / "split.csv"))
    assert splits.origins["test"].split == "test"
    assert len(splits.test or ()) == 12


def test_one_image_in_two_parts_is_told_and_with_strict_refused(photos: Path, tmp_path: Path) -> None:
    judged = pictures(tmp_path / "judged", seed=5)
    source, copy = photos / "bee" / "004.png", judged / "bee" / "004.png"
    copy.write_bytes(source.read_bytes())
    config = asked(photos, f"data.test={judged}", "data.held_out_rows=0")
    said = f"1 of 36 samples of test are in train too: {copy} = {source}"
    with pytest.warns(PoiseWarning) as warned:
        prepare(config)
    assert [str(w.message).startswith(said) for w in warned] == [True]
    with pytest.raises(InputError, match="1 of 36 samples of test are in train too"):
        prepare(config, strict=True)


def test_broken_images_are_refused_by_name_or_left_out_and_counted(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data")
    cut = data / "ant" / "003.png"
    cut.write_bytes(cut.read_bytes()[:100])
    (data / "bee" / "001.png").write_text("<html>not found</html>")
    (data / "bee" / "002.png").write_bytes(b"")
    with pytest.warns(PoiseWarning, match=r"3 images are broken and left out of 36: .*ant/003.png is truncated"):
        splits = prepare(asked(data, "data.broken=skip"))
    assert sum(map(len, splits.parts.values())) == 33
    config = asked(data)
    splits = prepare(config)  # nothing is decoded yet
    with pytest.raises(InputError, match=r"ant/003.png is truncated or damaged"):
        represent(config, splits, tmp_path / "run")


# --- stage 1 ----------------------------------------------------------------------------------------------------------


def test_every_step_leaves_its_files(run: Path) -> None:
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "environment.json",
        "split.json",
        "checkpoint.pt",
        "log.jsonl",
        "log.csv",
        "representation/backbone.safetensors",
        "representation/head.safetensors",
        "representation/seen.safetensors",
        "representation/representation.json",
        "features/train/manifest.json",
        "features/held_out/manifest.json",
        "features/test/manifest.json",
    } <= names
    split = json.loads((run / "split.json").read_text())
    rows = [row for part in split["parts"].values() for row in part["rows"]]
    assert sorted(rows) == list(range(36))
    assert json.loads((run / "environment.json").read_text())["versions"]["poise"]


def test_stores_say_truthfully_whether_their_rows_trained_the_backbone(run: Path) -> None:
    stores = {part: load_features(run / "features" / part) for part in ("train", "held_out", "test")}
    assert {part: rows.seen_by_backbone for part, rows in stores.items()} == {
        "train": True,
        "held_out": False,
        "test": False,
    }
    assert all(rows.names == tuple(SIZES) for rows in stores.values())
    # Counts are those of the training split everywhere.
    assert all(rows.counts.n.tolist() == [14, 7, 4] for rows in stores.values())


def test_what_is_finished_is_not_done_again(run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = asked(photos)
    monkeypatch.setattr(stages, "train", lambda *_, **__: pytest.fail("trained again"))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    splits = prepare(config)
    found = represent(config, splits, run)
    store_features(config, found, splits, run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


def test_the_written_configuration_gives_the_same_bits(run: Path, tmp_path: Path) -> None:
    again = load_config(run / "config.yaml")
    stores = ran(again, tmp_path / "again")
    keys = {part: read_manifest(path).key for part, path in stores.items()}
    assert keys == {part: read_manifest(run / "features" / part).key for part in keys}
    for name in ("head.safetensors", "backbone.safetensors"):
        assert (tmp_path / "again/representation" / name).read_bytes() == (run / "representation" / name).read_bytes()
    assert (tmp_path / "again/config.yaml").read_bytes() == (run / "config.yaml").read_bytes()
    assert (tmp_path / "again/split.json").read_bytes() == (run / "split.json").read_bytes()


class Signalled:
    """A wish to stop that is uttered when it is asked for the `after`-th time, as by a signal."""

    def __init__(self, after: int) -> None:
        self.left, self.code = after, 130

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    monkeypatch.setattr("poise.commands.stages.stoppable", lambda: nullcontext(Signalled(steps)))


def test_a_stopped_training_goes_on_to_the_same_bits(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = asked(photos), tmp_path / "stopped"
    splits = prepare(config)
    stop_after(monkeypatch, 2)
    with pytest.raises(StoppedError) as stopped:
        represent(config, splits, folder)
    monkeypatch.undo()
    assert str(stopped.value) == "stopped after step 2 of 4, which is saved; the same command goes on from there"
    assert stopped.value.exit_code == 130
    assert not (folder / "representation").exists()
    represent(config, splits, folder)
    files = ("representation/head.safetensors", "representation/backbone.safetensors")
    assert [(folder / name).read_bytes() for name in files] == [(run / name).read_bytes() for name in files]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("stage1.lr=0.05", "lr was 0.1 and is now 0.05"),
        ("stage1.augment=[flip]", "augment was ['crop', 'flip'] and is now ['flip']"),
        ("backbone.size=32", "size was 16 and is now 32"),
        ("backbone.name=resnet20", "backbone was 'convnet4' and is now 'resnet20'"),
        ("data.seed=1", "split was "),
    ],
)
def test_a_finished_run_refuses_other_settings_and_says_which(run: Path, photos: Path, change: str, said: str) -> None:
    config = asked(photos, change)
    with pytest.raises(InputError) as refused:
        represent(config, prepare(config), run)
    told = str(refused.value)
    assert told.startswith(f"{run / 'representation'} came about otherwise: ")
    assert said in told
    assert told.endswith("; state the same, choose another folder, or delete it")


def test_a_run_that_is_under_way_refuses_other_settings_unless_they_are_allowed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, other = asked(photos), asked(photos, "stage1.lr=0.05")
    splits = prepare(config)
    stop_after(monkeypatch, 1)
    with pytest.raises(StoppedError):
        represent(config, splits, tmp_path)
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"begun otherwise: lr was 0\.1 and is now 0\.05; .* with allow_changed=True$"):
        represent(other, splits, tmp_path)
    found = represent(other, splits, tmp_path, allow_changed=True)
    assert found.provenance["made_from"]["settings"]["lr"] == 0.05


def test_more_epochs_are_trained_where_that_is_allowed_and_no_features_contradict(photos: Path, tmp_path: Path) -> None:
    config, longer = asked(photos), asked(photos, "stage1.epochs=2")
    splits = prepare(config)
    first = represent(config, splits, tmp_path)
    (tmp_path / "features").mkdir()
    with pytest.raises(InputError, match="features are those of the run before; delete that folder to train on"):
        represent(longer, splits, tmp_path, allow_changed=True)
    (tmp_path / "features").rmdir()
    then = represent(longer, splits, tmp_path, allow_changed=True)
    assert first.head is not None
    assert then.head is not None
    assert not torch.equal(then.head.weight, first.head.weight)


def test_lists_among_the_options_of_a_backbone_are_no_change(photos: Path, tmp_path: Path) -> None:
    config = asked(photos, "backbone.options={mean: [0.4, 0.4, 0.4]}")
    splits = prepare(config)
    represent(config, splits, tmp_path)
    assert represent(config, splits, tmp_path).backbone.mean == (0.4, 0.4, 0.4)


def test_texts_are_not_trained_on(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("q,label\n" + "".join(f"word {i},{'ab'[i % 2]}\n" for i in range(12)))
    config = asked(tmp_path / "q.csv", "data.text=q")
    with pytest.raises(InputError, match="texts are not trained on; set stage1 to null"):
        represent(config, prepare(config), tmp_path / "run")


def test_a_backbone_without_weights_is_no_representation(photos: Path) -> None:
    with pytest.raises(InputError, match=r"^convnet4 is not trained and stage1 is null; add -s backbone.weights=FILE$"):
        prepare(load_config("small_images", [f"data.train={json.dumps(str(photos))}", "stage1=null"]))


def test_a_run_scores_its_own_classifier_on_every_part(run: Path) -> None:
    stores = {part: run / "features" / part for part in ("train", "held_out", "test")}
    found = load_problem(load_representation(run / "representation"), stores)
    scores = stage1_scores(found)
    assert found.problem.head is not None
    rows = found.problem.train
    right = (found.problem.head(rows.x[0]).argmax(-1) == rows.y).double().mean()
    assert scores["train"].accuracy == pytest.approx(float(right))
    assert list(scores) == ["train", "held_out", "test"]


# --- a backbone and other samples -------------------------------------------------------------------------------------


def test_a_backbone_is_opened_from_a_run_its_representation_or_by_name(run: Path) -> None:
    for place in (run, run / "representation"):
        assert opened_backbone(str(place)).class_names == tuple(SIZES)
    assert opened_backbone("convnet4").head is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("runs/typo", "there is no folder runs/typo; give a run of `poise train`, or the name of a backbone"),
        ("convnet44", "there is no backbone 'convnet44'"),
        ("", "holds no finished training; run `poise train` again to finish it"),
    ],
)
def test_what_is_no_backbone_is_said(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        opened_backbone(name or str(tmp_path))
    assert said in str(refused.value)


def test_the_samples_of_a_run_are_divided_as_they_were(run: Path, photos: Path, tmp_path: Path) -> None:
    assert run_data(run).hash == prepare(asked(photos)).hash
    with pytest.raises(InputError, match="is no run of `poise train`, so its samples are not known; name them with"):
        run_data(tmp_path)


def test_other_samples_take_the_classes_of_the_run_and_know_which_trained_it(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    found = load_representation(run / "representation")
    new = pictures(tmp_path / "new", {"cat tail": 2, "ant": 1}, seed=7)
    with pytest.warns(PoiseWarning, match="no sample"):
        (store,) = extract_splits(found, str(new), tmp_path / "a", otherwise=Views(random=1, flip=True)).values()
    rows = load_features(store)
    assert rows.names == tuple(SIZES)
    assert rows.y.tolist() == [0, 2, 2]
    assert rows.x.shape == (3, 3, 128)
    assert rows.seen_by_backbone is False
    with pytest.warns(PoiseWarning, match="25 of 36 samples of train trained the backbone, the others not"):
        (store,) = extract_splits(found, str(photos), tmp_path / "b", otherwise=Views()).values()
    assert load_features(store).seen_by_backbone is True
    assert read_manifest(store).provenance["rows_that_trained_the_backbone"] == 25


def test_of_a_backbone_from_elsewhere_it_is_not_known_what_trained_it(photos: Path, tmp_path: Path) -> None:
    (store,) = extract_splits(opened_backbone("convnet4"), str(photos), tmp_path, otherwise=Views()).values()
    assert load_features(store).seen_by_backbone is None


def test_the_mirrored_view_is_that_of_mirrored_images(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", {"a": 2, "b": 2})
    (store,) = extract_splits(
        opened_backbone("resnet20"), str(data), tmp_path / "f", otherwise=Views(flip=True)
    ).values()
    assert read_manifest(store).provenance["views"] == ["test", "mirrored"]
    one, other = load_features(store).x
    assert not torch.equal(one, other)


# --- a network of the user's own --------------------------------------------------------------------------------------


def test_code_that_a_folder_names_runs_only_for_those_who_name_it_too(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "my_networks.py").write_text(FACTORY.format(canary=str(canary)))
    monkeypatch.syspath_prepend(tmp_path)
    name = "my_networks:small"
    config = asked(photos, f"backbone.name={name}", "backbone.options={width: 6}")
    splits = prepare(config)
    made = represent(config, splits, tmp_path / "run")
    assert made.backbone.dim == 6
    built = canary.read_text()
    with pytest.raises(InputError, match=f"names the network '{name}', whose code would run; .*--backbone {name}$"):
        load_representation(tmp_path / "run" / "representation")
    assert canary.read_text() == built
    assert load_representation(tmp_path / "run" / "representation", trusted=name).backbone.dim == 6
    # The configuration names it too, so that the same command goes on.
    assert isinstance(represent(config, splits, tmp_path / "run"), Representation)


def test_a_class_without_samples_is_kept_in_every_store(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data")
    (data / "dog").mkdir()
    config = asked(data)
    with pytest.warns(PoiseWarning) as warned:
        stores = ran(config, tmp_path / "run")
    assert Counter("dog" in str(w.message) for w in warned)[True] == 2
    for path in stores.values():
        assert load_features(path).names == ("ant", "bee", "cat tail", "dog")
    head = load_representation(tmp_path / "run" / "representation").head
    assert head is not None
    assert head.classes == 4
    assert is_described(tmp_path / "run")
