"""Folders that are replaced as one, their seal, and who may write them."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from poise.errors import InputError
from poise.machine import folders
from poise.machine.folders import (
    REMEDY,
    SEAL,
    differences,
    digest_of,
    generation,
    replacing_folder,
    seal,
    sealed,
    sweep,
    unseal,
)

OURS = ("head", "figures")  # what the next generation replaces, unless it adds


def written(folder: Path, files: dict[str, str], replaces: tuple[str, ...] = OURS) -> Path:
    """A generation of `folder` with these files."""
    with generation(folder, replaces=replaces) as stage:
        for name, text in files.items():
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / name).write_text(text)
    return folder


def held(folder: Path) -> dict[str, str]:
    """All files of a folder but its seal."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def test_a_generation_replaces_what_the_last_one_wrote_and_keeps_what_others_put_there(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", {"head": "1", "figures/a": "1", "figures/b": "1"})
    (folder / "notes.txt").write_text("mine")
    (folder / "figures" / "mine").write_text("mine")
    (folder / "empty").mkdir()
    written(folder, {"head": "2", "figures/a": "2"})
    assert held(folder) == {"head": "2", "figures/a": "2", "notes.txt": "mine", "figures/mine": "mine"}
    assert (folder / "empty").is_dir()
    assert sorted(sealed(folder)) == ["figures/a", "head"]
    assert os.listdir(tmp_path) == ["model"]


def test_a_generation_that_adds_keeps_all_and_seals_all(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", {"record": "1", "report": "1"})
    written(folder, {"report": "2", "figure": "2"}, replaces=())
    assert held(folder) == {"record": "1", "report": "2", "figure": "2"}
    assert sorted(sealed(folder)) == ["figure", "record", "report"]
    assert differences(folder) == []


def test_a_folder_whose_files_are_all_dropped_goes_too(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", {"figures/a": "1"})
    written(folder, {"head": "2"})
    assert sorted(os.listdir(folder)) == [SEAL, "head"]


def test_links_stay_links(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", {"head": "1"})
    (folder / "there").symlink_to("/nowhere")
    (tmp_path / "link").symlink_to("model")
    written(tmp_path / "link", {"head": "2"})
    assert (tmp_path / "link").is_symlink()
    assert os.readlink(folder / "there") == "/nowhere"
    assert (folder / "head").read_text() == "2"


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_failure_leaves_the_old_folder_and_nothing_else(
    tmp_path: Path, can_exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_exchange:
        monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    folder = written(tmp_path / "model", {"head": "1"})
    written(folder, {"head": "2"})

    def failing() -> None:
        with generation(folder) as stage:
            (stage / "head").write_text("3")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert held(folder) == {"head": "2"}
    assert os.listdir(tmp_path) == ["model"]


def test_a_stop_between_the_two_renames_is_mended_by_the_next_writer(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", {"head": "1"})
    (folder / "notes").write_text("mine")
    folder.rename(tmp_path / ".model.old")
    written(folder, {"head": "2"})
    assert held(folder) == {"head": "2", "notes": "mine"}
    assert os.listdir(tmp_path) == ["model"]


def test_what_a_dead_process_left_beside_a_folder_is_used_up(tmp_path: Path) -> None:
    stray = tmp_path / ".model.tmp"
    (stray / "half").mkdir(parents=True)
    (stray / "half" / "head").write_text("?")
    assert held(written(tmp_path / "model", {"head": "1"})) == {"head": "1"}
    assert os.listdir(tmp_path) == ["model"]


def test_a_second_writer_is_refused_and_a_patient_one_waits(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "model") as stage:
        (stage / "head").write_text("1")
        with (
            pytest.raises(InputError, match="model is being written by another run; wait for it"),
            replacing_folder(tmp_path / "model", 0.05),
        ):
            raise AssertionError
    assert held(tmp_path / "model") == {"head": "1"}


def test_a_block_that_writes_nothing_changes_nothing(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", {"head": "1"})
    with replacing_folder(folder):
        pass
    assert held(folder) == {"head": "1"}


def test_the_current_folder_is_filled_when_empty_and_refused_when_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(Path(), {"head": "1", "figures/a": "1"})
    assert held(tmp_path) == {"head": "1", "figures/a": "1"}
    assert differences(tmp_path) == []
    with pytest.raises(InputError, match="cannot be replaced as a whole: it is a mounted folder or the current one"):
        written(Path(), {"head": "2"})
    assert held(tmp_path) == {"head": "1", "figures/a": "1"}


def test_files_are_copied_where_no_second_name_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    folder = written(tmp_path / "model", {"head": "1"})
    (folder / "notes").write_text("mine")
    monkeypatch.setattr(os, "link", refused)
    assert held(written(folder, {"head": "2"})) == {"head": "2", "notes": "mine"}


def test_strays_are_swept_and_nothing_else(tmp_path: Path) -> None:
    for name in (".a.tmp", ".b.tmp/within", "c.tmp", ".lock", "d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".lock", "c.tmp", "d"]


# --- the seal ---------------------------------------------------------------------------------------------------------


def test_the_seal_is_read_by_sha256sum(tmp_path: Path) -> None:
    written(tmp_path / "model", {"head": "1", "with space é": "2", "back\\slash": "3"})
    lines = (tmp_path / "model" / SEAL).read_text().splitlines()
    assert lines[1] == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b  head"  # printf 1 | sha256sum
    assert lines[0] == "\\4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce  back\\\\slash"
    done = subprocess.run(["sha256sum", "-c", SEAL], cwd=tmp_path / "model", capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_seal_of_a_folder_within_stands_for_its_files(tmp_path: Path) -> None:
    inner = written(tmp_path / "run" / "features", {"shard": "1"})
    outer = tmp_path / "run"
    (outer / "config").write_text("2")
    seal(outer, ["config", "features/shard"])
    assert sorted(sealed(outer)) == ["config", f"features/{SEAL}"]
    before = digest_of(outer)
    (inner / "shard").write_text("3")
    assert differences(outer) == [
        f"{inner / 'shard'} is not the file that was written: its SHA-256 is not that of {inner / SEAL}; {REMEDY}"
    ]
    seal(inner, ["shard"])
    assert differences(outer) == [
        f"{inner / SEAL} is not the file that was written: its SHA-256 is not that of {outer / SEAL}; {REMEDY}"
    ]
    seal(outer, ["config"])
    assert differences(outer) == []
    assert digest_of(outer) != before


def test_every_flipped_bit_of_a_sealed_folder_is_found(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", {"head": "12", "a/b": "x\n"})
    assert digest_of(tmp_path) is None
    digest = digest_of(folder)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for place in range(8 * len(content)):
            changed = bytearray(content)
            changed[place // 8] ^= 1 << place % 8
            path.write_bytes(changed)
            assert differences(folder) != []
            assert len(differences(folder)) == 1 or path.name == SEAL
        path.write_bytes(content)
    assert differences(folder) == []
    assert digest_of(folder) == digest


@pytest.mark.parametrize(
    "line", ["", "x", f"{'0' * 64} head", f"{'0' * 64}  ../head", f"{'0' * 64}  /etc/hosts", f"{'A' * 64}  head"]
)
def test_a_seal_that_is_none_is_one_sentence(tmp_path: Path, line: str) -> None:
    (tmp_path / SEAL).write_text(f"{line}\n")
    assert differences(tmp_path) == [
        f"{tmp_path / SEAL}, line 1 is no SHA-256 and file name; restore the folder from a copy"
    ]


def test_a_process_that_is_killed_while_it_writes_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", {"head": "1"})
    program = f"""
import os, signal
from pathlib import Path
from poise.machine.folders import generation
with generation(Path({str(folder)!r})) as stage:
    (stage / "head").write_text("2")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    assert held(folder) == {"head": "1"}
    assert sorted(os.listdir(tmp_path)) == [".model.tmp", "model"]
    assert held(written(folder, {"head": "3"})) == {"head": "3"}
    assert os.listdir(tmp_path) == ["model"]


def test_what_is_no_file_in_the_place_of_a_sealed_one_is_said_and_not_read(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", {"head": "1"})
    (folder / "head").unlink()
    (folder / "head").symlink_to("/dev/zero")
    assert differences(folder) == [f"{folder / 'head'} is a device, not a file; restore it from a copy"]
    (folder / "head").unlink()
    assert differences(folder) == [
        f"{folder / 'head'} cannot be read: No such file or directory; restore it from a copy"
    ]


def test_a_seal_is_taken_off_and_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    seal(tmp_path, ["a"])
    for _ in range(2):
        unseal(tmp_path)
        assert not (tmp_path / SEAL).exists()
    (tmp_path / SEAL).mkdir()
    with pytest.raises(InputError, match=r"^cannot remove .*SHA256SUMS: "):
        unseal(tmp_path)
