"""`poise demo --images`, on a handful of glyphs instead of all."""

from pathlib import Path

import pytest
import torch

from poise.cli import main
from poise.data import glyphs
from poise.data.samples.sample_set import Samples


def few(samples: Samples, per_class: int, classes: int = 4) -> Samples:
    """The first samples of the first classes."""
    rows = torch.cat([(samples.y == k).nonzero().flatten()[:per_class] for k in range(classes)])
    part = samples.take(rows)
    return Samples(part.items, part.y, part.class_names[:classes], part.groups)


@pytest.mark.filterwarnings("ignore:.*hardly better than chance")  # one epoch teaches a network nothing
def test_the_image_demo_trains_compares_and_leaves_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    small = {split: few(samples, 30 if split == "train" else 6) for split, samples in glyphs.load_glyphs().items()}
    monkeypatch.setattr(glyphs, "load_glyphs", lambda: small)
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--images", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert "recipe: glyphs; backbone: convnet4" in said
    assert "the model on the test split" in said
    for name in ("model.json", "representation/representation.json", "summary.csv", "features/test/manifest.json"):
        assert (tmp_path / name).exists()


def test_one_demo_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--images", "--text"])
    assert stop.value.code == 2
    assert "exclude each other" in capsys.readouterr().err
