"""Commands that are killed at every operation on the disk, and two at a time: a short form of experiments/kill.py."""

import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kills import disk
from kills.operations import killed_everywhere, world_of
from kills.races import raced
from kills.verbs import GIVEN, VERBS, Verb, inputs

from poise.cli import main
from poise.machine import folders

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="operations are watched by /proc and by forks")

# What takes gradients cannot be forked after other tests; what is written alone needs no training.
SHORT = [verb for verb in VERBS if verb.name in ("export (tensors)", "report", "predict")]
NEEDED = [words for words in GIVEN if words[0] in ("fit", "compare") and words[1].endswith(".csv")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the inputs of all verbs; worlds are made beside it."""
    root = tmp_path_factory.mktemp("killed")
    inputs(root / "given")
    here = Path.cwd()
    os.chdir(root / "given")
    try:
        for words in NEEDED:
            with warnings.catch_warnings():
                warnings.simplefilter("default")
                with pytest.raises(SystemExit) as stop:
                    main(words)
            assert stop.value.code == 0
    finally:
        os.chdir(here)
    return root


def short(verb: Verb) -> Verb:
    """The report as text alone, which takes a tenth of the time."""
    command, before = ([word.replace("html,md,latex,csv,svg", "md,csv") for word in words or ()] for words in verb[1:3])
    return verb._replace(command=command, before=before)


@pytest.mark.parametrize("verb", [verb for verb in SHORT if verb.name != "report"], ids=lambda verb: verb.name)
def test_a_command_that_is_killed_at_any_operation_leaves_the_old_result_or_the_new(verb: Verb, place: Path) -> None:
    found = killed_everywhere(world_of(verb, place, disk.warm))
    assert found.finds == []
    assert (found.part, found.lost, found.wrong, found.strays) == (0, 0, 0, 0)
    assert found.old > 5
    assert found.new >= 1


@pytest.mark.parametrize("verb", SHORT, ids=lambda verb: verb.name)
def test_of_two_commands_that_write_one_result_the_second_is_refused(verb: Verb, place: Path) -> None:
    found = raced(world_of(short(verb), place, disk.warm), 6, 1, random.Random(0))
    assert found.finds == []
    assert found.second >= 3


@contextmanager
def in_place(folder: Path, **_: object) -> Iterator[Path]:
    yield folder


def test_files_that_are_written_in_place_are_found_out(place: Path) -> None:
    report = short(next(verb for verb in SHORT if verb.name == "report"))
    unsafe = report._replace(patch=lambda: setattr(folders, "generation", in_place))
    found = killed_everywhere(world_of(unsafe, place, disk.warm), every=5)
    assert found.lost >= 3
    assert any("neither old nor new" in find for find in found.finds)
