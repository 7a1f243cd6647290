"""A method from outside the package: a loss in three lines, a method in one, found through its entry point."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from poise import testing
from poise.cli import main

PLUGIN = '''
"""A stranger's package."""
from typing import Unpack
import torch
from poise.losses import Loss, stateless
from poise.methods.gradient_trained import recipe
from poise.heads.plan import Options
from poise.heads.solver import Retrain


def squared() -> Loss:
    """Squared distance between softmax and one-hot label (Brier score)."""
    return stateless(lambda z, y: (z.softmax(-1) - torch.nn.functional.one_hot(y, z.shape[-1])).square().sum(-1))


def brier(**options: Unpack[Options]) -> Retrain:
    """Brier-score training: squared distance between softmax and label."""
    return recipe(squared(), options)
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The entry points of an installed distribution with the method `brier`."""
    (tmp_path / "stranger.py").write_text(PLUGIN)
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[poise.methods]\nbrier = stranger:brier\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield info / "entry_points.txt"
    sys.modules.pop("stranger", None)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[object, str, str]:
    """Exit code, standard output and standard error of a call of the command line."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    return stop.value.code, *capsys.readouterr()


def test_a_method_from_outside_passes_the_public_checks(plugin: Path) -> None:
    testing.check_method("brier")


def test_a_method_from_outside_is_listed_and_explained(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "brier" in said(capsys, "methods")[1]
    page = said(capsys, "methods", "brier")[1]
    assert "squared distance between softmax and label" in " ".join(page.split())
    assert "epochs = 10" in page


def test_a_name_that_exists_is_refused(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin.write_text("[poise.methods]\nlos = stranger:brier\n")
    code, _, err = said(capsys, "methods")
    assert code == 2
    assert "'los'" in err


@pytest.mark.filterwarnings("default")
def test_a_broken_package_is_named_and_takes_nothing_else_away(
    plugin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin.write_text("[poise.methods]\nbrier = stranger:gone\n")
    code, out, err = said(capsys, "methods")
    assert code == 0
    assert "weight_balancing" in out  # the others stay usable
    assert err.startswith("warning: the method 'brier' of stranger:gone cannot be loaded")
    code, _, err = said(capsys, "methods", "brier")
    assert code == 2
    assert "Traceback" not in err


def test_the_checks_can_fail(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import stranger

    def noisy(**options: object) -> object:
        """A method that draws from the global random state."""
        return lambda problem, seed=0: type(problem.head)(torch.randn(4, 6), torch.randn(4))

    monkeypatch.setattr(stranger, "brier", noisy)
    with pytest.raises(AssertionError):
        testing.check_same_seed_same_bytes(testing.Case("brier"))
