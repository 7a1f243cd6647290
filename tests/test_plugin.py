"""A method from outside the package: a loss in three lines, a method in one, found through its entry point."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PLUGIN = '''
"""A stranger's package."""
from typing import Unpack
import torch
from poise.losses import Loss, stateless
from poise.methods.retrain import recipe
from poise.plan import Options
from poise.solver import Retrain


def squared() -> Loss:
    """Squared distance between softmax and one-hot label (Brier score)."""
    return stateless(lambda z, y: (z.softmax(-1) - torch.nn.functional.one_hot(y, z.shape[-1])).square().sum(-1))


def brier(**options: Unpack[Options]) -> Retrain:
    """Brier-score training: squared distance between softmax and label."""
    return recipe(squared(), options)
'''


@pytest.fixture
def plugin(tmp_path: Path) -> dict[str, str]:
    """Environment in which a distribution with the entry point `brier` is installed."""
    (tmp_path / "stranger.py").write_text(PLUGIN)
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[poise.methods]\nbrier = stranger:brier\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_a_method_from_outside_passes_the_public_checks(plugin: dict[str, str]) -> None:
    done = run(plugin, "-c", "from poise import testing; testing.check_method('brier')")
    assert done.returncode == 0, done.stderr


def test_a_method_from_outside_is_listed_and_explained(plugin: dict[str, str]) -> None:
    listing = run(plugin, "-m", "poise", "methods")
    assert "brier" in listing.stdout
    page = run(plugin, "-m", "poise", "methods", "brier")
    assert "squared distance between softmax and label" in page.stdout
    assert "epochs = 10" in page.stdout


def test_a_name_that_exists_is_refused(plugin: dict[str, str]) -> None:
    entry = next(Path(plugin["PYTHONPATH"]).glob("*.dist-info")) / "entry_points.txt"
    entry.write_text("[poise.methods]\nlos = stranger:brier\n")
    done = run(plugin, "-m", "poise", "methods")
    assert done.returncode == 2
    assert "'los'" in done.stderr


def test_a_broken_package_is_named_and_takes_nothing_else_away(plugin: dict[str, str]) -> None:
    entry = next(Path(plugin["PYTHONPATH"]).glob("*.dist-info")) / "entry_points.txt"
    entry.write_text("[poise.methods]\nbrier = stranger:gone\n")
    listing = run(plugin, "-m", "poise", "methods")
    assert listing.returncode == 0
    assert "weight_balancing" in listing.stdout  # the others stay usable
    assert listing.stderr.startswith("warning: the method 'brier' of stranger:gone cannot be loaded")
    page = run(plugin, "-m", "poise", "methods", "brier")
    assert page.returncode == 2
    assert "Traceback" not in page.stderr


def test_the_checks_can_fail(plugin: dict[str, str]) -> None:
    program = """
        import torch
        from poise import testing
        import stranger
        def noisy(**options):
            '''A method that draws from the global random state.'''
            return lambda problem, seed=0: type(problem.head)(torch.randn(4, 6), torch.randn(4))
        stranger.brier = noisy
        testing.check_same_seed_same_bytes(testing.Case("brier"))
    """
    done = run(plugin, "-c", textwrap.dedent(program))
    assert done.returncode == 1
    assert "AssertionError" in done.stderr
