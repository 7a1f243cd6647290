"""`poise inspect` on what is no feature row: images, lists, counts; and the published numbers it reproduces."""

import gzip
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from image_world import pictures
from poise.cli import main

DATA = os.environ.get("POISE_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="POISE_DATA is not set: no published lists and counts")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def inspect(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["inspect", *map(str, words)])
        said = capsys.readouterr()
        return int(str(stop.value.code)), said.out, said.err

    return run


def groups_in(said: str) -> dict[str, tuple[int, int]]:
    """Classes and samples of every group that an output names."""
    pattern = r"^(many|medium|few)\b.*?: (\d+) class(?:es)?, (\d+) samples?$"
    return {name: (int(k), int(n)) for name, k, n in re.findall(pattern, said, re.MULTILINE)}


def test_a_folder_of_images_is_profiled(inspect: Run, tmp_path: Path) -> None:
    code, said, _ = inspect(pictures(tmp_path / "photos", {"bee": 5, "cat": 3}))
    assert code == 0
    assert "train: 8 images, 2 classes" in said
    assert "class sizes 5 (bee) down to 3 (cat): imbalance 1.667" in said


def test_a_list_without_its_images_is_counted(inspect: Run, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("".join(f"a b/{i}.jpg {0 if i < 150 else 1}\n" for i in range(170)))
    code, said, _ = inspect(tmp_path / "list.txt")
    assert code == 0
    assert groups_in(said) == {"many": (1, 150), "medium": (1, 20), "few": (0, 0)}
    assert "cannot be read" not in said


def test_a_split_that_is_no_training_split_is_counted_too(inspect: Run, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "some_val.txt.gz", "wt") as file:
        file.write("a/1.jpg 0\nb/1.jpg 1\n")
    code, said, _ = inspect(tmp_path / "some_val.txt.gz")
    assert code == 0
    assert "val: 2 images, 2 classes" in said
    assert "no training samples" in said


def test_counts_are_told_as_groups_and_as_json(inspect: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("counts.json").write_text("[500, 100, 20, 19, 5]")
    code, said, _ = inspect("counts.json")
    assert code == 0
    assert said.splitlines()[0] == "counts.json: 644 samples, 5 classes, imbalance 100"
    assert groups_in(said) == {"many": (1, 500), "medium": (2, 120), "few": (2, 24)}
    code, said, _ = inspect("counts.json", "--json")
    assert json.loads(said)["groups"]["few"] == {"classes": 2, "rows": 24}


def test_counts_that_are_none_are_refused(inspect: Run, tmp_path: Path) -> None:
    (tmp_path / "counts.json").write_text('{"a": 1}')
    code, _, err = inspect(tmp_path / "counts.json")
    assert code == 2
    assert "must hold a list of whole numbers" in err


@needs_data
@pytest.mark.parametrize(
    ("name", "rows", "classes", "groups"),
    [
        ("ImageNet_LT", 115_846, 1000, (385, 479, 136)),
        ("Places_LT", 62_500, 365, (131, 163, 71)),
        ("iNaturalist18", 437_513, 8142, (842, 4076, 3224)),
    ],
)
def test_published_counts_have_their_published_groups(
    inspect: Run, name: str, rows: int, classes: int, groups: tuple[int, int, int]
) -> None:
    code, said, _ = inspect(Path(str(DATA)) / "counts" / f"{name}.json")
    assert code == 0
    assert f"{rows} samples, {classes} classes" in " ".join(said.split())
    assert tuple(found[0] for found in groups_in(said).values()) == groups


@needs_data
def test_the_list_of_places_lt_has_its_published_groups(inspect: Run) -> None:
    code, said, _ = inspect(Path(str(DATA)) / "lists" / "Places_LT_train.txt.gz")
    assert code == 0
    assert "train: 62500 images, 365 classes" in said
    assert groups_in(said) == {"many": (131, 52_762), "medium": (163, 8_934), "few": (71, 804)}
