"""A short run of `experiments/fuzz.py`: mutants of every kind of file are read, or refused in one sentence."""

import os
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from fuzzing.folders import texts_of
from fuzzing.kinds import KINDS
from fuzzing.mutations import VALUES
from fuzzing.verdict import Case, Kind, judged, made, seeds_of
from poise.errors import InputError, PoiseError, PoiseWarning

INPUTS = 60  # of each kind


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name in a mutant makes a library look for a model on a network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_mutants_are_read_or_refused_in_one_sentence(kind: Kind, tmp_path: Path) -> None:
    if missing := [name for name in kind.needs if find_spec(name) is None]:
        pytest.skip(f"{missing[0]} is not installed")
    seeds = seeds_of(kind, tmp_path / "seeds")
    for seed in seeds:
        assert judged(kind, Case(seed, "", "whole"), tmp_path / "input").outcome == "read"
    found = {}
    for number in range(INPUTS):
        verdict = judged(kind, made(kind, seeds, number, seed=1), tmp_path / "input")
        found.setdefault(verdict.outcome, []).append((number, *verdict))
    assert found.get("finding", []) == []
    assert found.get("sentence"), "no mutant was refused: these mutations reach nothing"


# --- what the run can find --------------------------------------------------------------------------------------------


def kind_of(read: Callable[[Path], object]) -> Kind:
    return Kind("bad", texts_of("1", suffix=".json"), read)


def other_error(folder: Path) -> None:
    raise KeyError("weight")


def no_error(folder: Path) -> None:
    raise SystemExit(1)


def two_lines(folder: Path) -> None:
    raise PoiseError("one line\nand another")


def escape(folder: Path) -> None:
    raise PoiseError("a name \x1b[31min red")


def endless_sentence(folder: Path) -> None:
    raise PoiseError("x" * 50_000)


def memory(folder: Path) -> None:
    bytearray(2**40)


def memory_in_a_sentence(folder: Path) -> None:
    try:
        bytearray(2**40)
    except MemoryError as error:
        raise InputError("too large") from error


def flood(folder: Path) -> None:
    for number in range(100):
        warnings.warn(PoiseWarning(f"row {number}"), stacklevel=1)


def hang(folder: Path) -> None:
    time.sleep(60)


def swallowed_hang(folder: Path) -> None:
    try:
        time.sleep(60)
    except BaseException:
        raise InputError("it cannot be read") from None


BAD = (
    (other_error, "KeyError"),
    (no_error, "SystemExit"),
    (two_lines, "a sentence with control characters"),
    (escape, "a sentence with control characters"),
    (endless_sentence, "a sentence of many characters"),
    (memory, "MemoryError"),
    (memory_in_a_sentence, "memory asked for"),
    (flood, "a flood of warnings"),
    (hang, "HangError"),
    (swallowed_hang, "slow"),
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("fuzzing.verdict.HANG", 0.2)
    return


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("read", "what"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_reader_is_found(read: Callable[[Path], object], what: str, tmp_path: Path) -> None:
    verdict = judged(kind_of(read), Case({"text.json": b"1"}, "", ""), tmp_path / "input")
    assert (verdict.outcome, verdict.what) == ("finding", what)


def test_a_good_reader_is_none(tmp_path: Path) -> None:
    def refuses(folder: Path) -> None:
        raise InputError("no")

    for read, outcome in ((lambda folder: None, "read"), (refuses, "sentence")):
        assert judged(kind_of(read), Case({"text.json": b"1"}, "", ""), tmp_path / "input").outcome == outcome


def test_a_command_that_ends_with_a_fault_of_its_own_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        raise KeyError("weight")

    words = ("check", "{}/text.json")
    case = Case({"text.json": b"1"}, "", "", words=words)
    assert judged(kind_of(other_error), case, tmp_path / "input").outcome == "sentence"
    monkeypatch.setattr("poise.commands.artefact_check.check_path", broken)
    assert judged(kind_of(other_error), case, tmp_path / "input").outcome == "finding"


def test_the_number_of_an_input_gives_its_bytes(tmp_path: Path) -> None:
    kind = next(kind for kind in KINDS if kind.name == "head file")
    seeds = seeds_of(kind, tmp_path)
    inputs = [made(kind, seeds, number, seed=0) for number in range(50)]
    assert inputs == [made(kind, seeds, number, seed=0) for number in range(50)]
    assert len({tuple(each.files.values()) for each in inputs}) > 40
    assert inputs != [made(kind, seeds, number, seed=1) for number in range(50)]


@pytest.mark.parametrize("place", ["fifo", "folder", "zero", "loop", "missing"])
def test_a_file_may_be_no_file(place: str, tmp_path: Path) -> None:
    def read(folder: Path) -> None:
        if not (folder / "text.json").is_file():
            raise InputError("no file")

    case = Case({"text.json": b"1"}, "text.json", "no file", place)
    assert judged(kind_of(read), case, tmp_path / "input").outcome == "sentence"
    assert os.path.lexists(tmp_path / "input" / "text.json") == (place != "missing")


def test_the_extremes_are_among_the_values() -> None:
    assert all(any(value is each or value == each for each in VALUES) for value in (0, -1, 2**63, "", None, "\ud800"))
