"""`poise demo --images`: the shipped photographs, and the road from a folder of them to a model."""

import hashlib
import io
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

import poise
from poise.cli import main
from poise.data import bundled
from poise.data.bundled import unpack_photographs
from poise.errors import InputError

SHIPPED = Path(poise.__file__).parent / "demo_data" / "photographs"


def test_the_shipped_photographs_are_those_that_their_page_describes() -> None:
    page = (SHIPPED / "README.md").read_text(encoding="utf-8")
    content = (SHIPPED / "clothing.zip").read_bytes()
    assert hashlib.sha256(content).hexdigest() in page
    assert len(content) < 5e6
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        sizes = Counter("/".join(name.split("/")[:2]) for name in archive.namelist())
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    classes, train, test = table[0][1:], table[2][1:], table[3][1:]
    said = {f"train/{name}": int(n) for name, n in zip(classes, train, strict=True)}
    said |= {f"test/{name}": int(n) for name, n in zip(classes, test, strict=True)}
    assert dict(sizes) == said
    assert max(map(int, train)) / min(map(int, train)) == 45


def test_photographs_are_written_once_and_mended(tmp_path: Path) -> None:
    folder = unpack_photographs(tmp_path / "photographs")
    skirt = next((folder / "train" / "skirt").iterdir())
    before = folder.stat().st_ino
    assert unpack_photographs(folder).stat().st_ino == before
    skirt.write_bytes(b"")
    with Image.open(unpack_photographs(folder) / "train" / "skirt" / skirt.name) as mended:
        assert min(mended.size) == 144
    assert len(list(folder.rglob("*.jpg"))) == 804


def test_a_folder_with_anything_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_text("mine")
    with pytest.raises(InputError, match="holds other things than the photographs of the demo; choose another folder"):
        unpack_photographs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jpg"]


def few(folder: Path) -> Path:
    """Some of the photographs of three classes, in the place of all."""
    with zipfile.ZipFile(SHIPPED / "clothing.zip") as archive:
        for split, most in (("train", 6), ("test", 3)):
            for name in ("pants", "shoes", "t-shirt"):
                members = [member for member in archive.namelist() if member.startswith(f"{split}/{name}/")]
                for member in members[:most]:
                    archive.extract(member, folder)
    return folder


@pytest.mark.filterwarnings("ignore::poise.errors.PoiseWarning")  # of nine photographs there is much to say
def test_the_demo_fits_the_photographs_as_somebody_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("timm")
    monkeypatch.setattr(bundled, "unpack_photographs", few)
    monkeypatch.setattr("poise.commands.fit.available", lambda: ("ncm", "logit_adjustment"))
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--images", "--out", str(tmp_path / "model")])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert "recipe: photographs; backbone: lite0" in said
    assert "the model on the test split" in said
    for name in ("model.json", "representation/representation.json", "summary.csv", "features/test/manifest.json"):
        assert (tmp_path / "model" / name).exists()
    assert (tmp_path / "model_photographs" / "train" / "shoes").is_dir()


def test_one_demo_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--images", "--text"])
    assert stop.value.code == 2
    assert "exclude each other" in capsys.readouterr().err
