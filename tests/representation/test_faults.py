"""Training and extraction that are killed, told to stop, or run out of something, in processes of their own."""

import gc
import hashlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from poise.data.samples.items import Pixels
from poise.errors import PoiseError, PoiseWarning, StoppedError
from poise.machine.locks import stoppable
from poise.machine.processes import World
from poise.representation import checkpoints
from poise.representation.augment.photographs import Transform, train_transform
from poise.representation.checkpoints import load_checkpoint
from poise.representation.extract import Views, extract
from poise.representation.feeds import Step, Streamed
from poise.values.counts import ClassCounts
from poise.values.randomness import uniforms
from stage1_child import Death, asked, digest, extracted, extracts, images, launched, samples, tiny, trained, trains

KILLED = -signal.SIGKILL
HARD = asked(epochs=4, ema=0.5, mixup=0.3, loss="gala(lambda_pos=0.7)")  # 12 steps, and everything has a state


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


# --- kill -9 ----------------------------------------------------------------------------------------------------------


def test_a_training_that_is_killed_again_and_again_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = digest(trained(tmp_path / "whole", HARD).network.state_dict())
    folder = tmp_path / "run"
    folder.mkdir()
    # Each death leaves one more step behind, because the step in which it happens is lost.
    for at in (1 + (uniforms(3, torch.tensor([0]), 49) * 4).long()[0]).tolist():
        assert launched(trains, folder, HARD, Death(at)) == [KILLED]
    assert launched(trains, folder, HARD) == [0]
    assert (folder / "digest0").read_text() == whole


def dies_while_writing(world: World, folder: Path) -> None:
    load, calls = torch.load, iter(range(10))

    def dying(*arguments, **options):
        if next(calls) == 2:  # the third checkpoint is whole but has no name yet
            os.kill(os.getpid(), signal.SIGKILL)
        return load(*arguments, **options)

    checkpoints.torch.load = dying
    trains(world, folder, HARD)


def test_a_kill_in_the_middle_of_a_checkpoint_leaves_the_one_before(tmp_path: Path) -> None:
    whole = digest(trained(tmp_path / "whole", HARD).network.state_dict())
    folder = tmp_path / "run"
    folder.mkdir()
    assert launched(dies_while_writing, folder) == [KILLED]
    assert any(name.endswith(".tmp") for name in digests(folder))
    assert load_checkpoint(folder)["step"] == 2
    assert digest(trained(folder, HARD).network.state_dict()) == whole
    assert not any(name.endswith(".tmp") for name in digests(folder))


def test_a_process_that_loses_another_names_it_and_the_run_goes_on(tmp_path: Path) -> None:
    settings = asked(epochs=4, batch_size=9, loss="gala(lambda_pos=0.7)", accumulate=2)
    alone = trained(tmp_path / "alone", settings, rows=19).network.state_dict()
    folder, begun = tmp_path / "run", time.monotonic()
    folder.mkdir()
    assert launched(trains, folder, settings, Death(5, rank=1), 19, ranks=2) == [2, KILLED]
    assert time.monotonic() - begun < 60
    message = (tmp_path / "error0").read_text()
    assert message.startswith("rank 1 of this run has ended or does not answer, as rank 0 noticed (")
    assert message.endswith("start the same command again to go on from what is saved")
    saved = load_checkpoint(folder)
    assert saved["step"] == 4
    assert saved["processes"] == 2

    # Going on with two processes ends with the bits of two that were not disturbed.
    assert launched(trains, folder, settings, None, 19, ranks=2) == [0, 0]
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    assert launched(trains, quiet, settings, None, 19, ranks=2) == [0, 0]
    found = {(path / f"digest{rank}").read_text() for path in (folder, quiet) for rank in (0, 1)}
    assert len(found) == 1

    # One process computes the same but for the order of additions: a batch of 9 as 5 and 4, the last one of 1 by both.
    both = torch.load(quiet / "weights0.pt", weights_only=True)
    for name, value in alone.items():
        torch.testing.assert_close(both[name], value, rtol=1e-3, atol=2e-5, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize(
    "changes",
    [
        {"deferred": 0.5, "mixup": 0.3},
        {"loss": "ldam(drw=True,scale=5.0)", "head": "cosine(scale=5.0)", "epochs": 5, "lr": 0.01},
        {"loss": "gcl(noise=2.0,scale=5.0)", "head": "cosine(scale=5.0)", "mixup": 0.3},
    ],
    ids=["deferred", "drw", "noise"],
)
def test_processes_weigh_and_draw_as_one_does(tmp_path: Path, changes: dict) -> None:
    # 18 images: batches of 9 are shared as 5 and 4, whose class weights differ.
    settings = asked(**{"batch_size": 9, "accumulate": 2, **changes})
    alone = trained(tmp_path / "alone", settings, rows=18).network.state_dict()
    folder = tmp_path / "run"
    folder.mkdir()
    assert launched(trains, folder, settings, None, 18, ranks=2) == [0, 0]
    both = torch.load(folder / "weights0.pt", weights_only=True)
    for name, value in alone.items():
        torch.testing.assert_close(both[name], value, rtol=1e-4, atol=2e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_an_extraction_that_is_killed_keeps_its_shards_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = digests(extracted(tmp_path / "whole"))
    folder = tmp_path / "features"
    # Shards have 10, 10 and 4 rows, and batches at most 4: nine calls for the first shard, for the second as many.
    assert launched(extracts, folder, Death(12)) == [KILLED]
    assert "00000.safetensors" in digests(folder)
    assert "manifest.json" not in digests(folder)
    finished, calls = (folder / "00000.safetensors").stat().st_mtime_ns, []
    backbone = tiny()
    backbone.module.register_forward_hook(lambda *_: calls.append(1))
    extracted(folder, backbone=backbone)
    assert len(calls) == 3 * (3 + 1)  # three views of three and one batches
    assert (folder / "00000.safetensors").stat().st_mtime_ns == finished
    assert digests(folder) == whole


def test_two_processes_extract_the_same_bytes_even_if_one_is_killed(tmp_path: Path) -> None:
    whole = digests(extracted(tmp_path / "whole"))
    folder = tmp_path / "features"
    assert launched(extracts, folder, Death(2, rank=1), ranks=2) == [2, KILLED]
    assert (tmp_path / "error0").read_text().startswith("rank 1 of this run has ended")
    assert launched(extracts, folder, ranks=2) == [0, 0]
    assert digests(folder) == whole


# --- another number of processes --------------------------------------------------------------------------------------


def test_going_on_with_another_number_of_processes_is_warned_of(tmp_path: Path) -> None:
    settings, calls = asked(), iter(range(1, 9))
    with pytest.raises(StoppedError):
        trained(tmp_path, settings, should_stop=lambda: next(calls) == 3)
    content = load_checkpoint(tmp_path)
    checkpoints.save_checkpoint(tmp_path, {**content, "processes": 4})
    with pytest.warns(PoiseWarning, match="begun with 4 processes and goes on with 1; the batches stay the same"):
        result = trained(tmp_path, settings)
    whole = trained(tmp_path / "whole", settings)
    assert digest(result.network.state_dict()) == digest(whole.network.state_dict())


# --- readers ----------------------------------------------------------------------------------------------------------


class Fatal(Pixels):
    """The process that reads the image in row 20 is killed, unless it is the one that trains."""

    def read(self, index: int):
        if index == 20 and os.getppid() != 1 and os.environ.get("POISE_TEST_OWNER") != str(os.getpid()):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(index)


def streamed(items: Pixels, workers: int) -> Streamed:
    return Streamed(items, Transform("none", 8, ()), 0, workers)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No garbage is collected on its own: torch raises in whatever line runs when a reader dies.

    In this process that may be the callback of a test library in the collector, where an error is not told but dropped.
    """
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
def test_a_reader_that_is_killed_is_told_within_seconds_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POISE_TEST_OWNER", str(os.getpid()))
    pixels = images()[0].permute(0, 2, 3, 1).contiguous().numpy()
    settings, begun = asked(), time.monotonic()
    with pytest.raises(PoiseError, match=r"a process that reads images was killed .*memory ran out; use fewer workers"):
        trained(tmp_path / "run", settings, feed=streamed(Fatal(pixels), 1), checkpoint_seconds=0)
    assert time.monotonic() - begun < 20
    again = trained(tmp_path / "run", settings, feed=streamed(Pixels(pixels), 0))
    whole = trained(tmp_path / "whole", settings, feed=streamed(Pixels(pixels), 0))
    assert digest(again.network.state_dict()) == digest(whole.network.state_dict())


def is_told_with_its_readers(world: World, folder: Path) -> None:
    os.setsid()
    pixels = images()[0].permute(0, 2, 3, 1).contiguous().numpy()
    tell = Death(10**9)

    def told(done: int, total: int) -> None:
        tell(world)
        if tell.calls == 2:
            os.killpg(0, signal.SIGTERM)

    with stoppable() as wish:
        try:
            feed = streamed(Pixels(pixels), 1)
            trained(folder, asked(epochs=20), feed=feed, should_stop=wish, progress=told)
        except StoppedError as error:
            (folder / "stopped").write_text(str(error))
            os._exit(wish.code or 1)


def test_a_batch_system_that_tells_all_processes_to_stop_lets_the_step_end(tmp_path: Path) -> None:
    assert launched(is_told_with_its_readers, tmp_path) == [143]
    assert (tmp_path / "stopped").read_text().startswith("stopped after step 3 of 60, which is saved")


def test_readers_in_other_processes_read_the_same(tmp_path: Path) -> None:
    pixels = images()[0].permute(0, 2, 3, 1).contiguous().numpy()
    found = set()
    for workers in (0, 2):
        feed = Streamed(Pixels(pixels), train_transform(("random_crop", "flip"), 6), 0, workers)
        found.add(digest(trained(tmp_path / str(workers), asked(), feed=feed).network.state_dict()))
    assert len(found) == 1


# --- extraction -------------------------------------------------------------------------------------------------------


def test_reading_with_a_loader_leaves_the_generator_of_the_caller_alone(tmp_path: Path) -> None:
    pixels = images()[0].permute(0, 2, 3, 1).contiguous().numpy()
    before = torch.get_rng_state()
    rows = torch.arange(4)
    assert len(list(streamed(Pixels(pixels), 0).batches([Step(0, rows, rows)]))) == 1
    assert torch.equal(torch.get_rng_state(), before)


def test_memory_that_is_full_during_an_extraction_suggests_a_smaller_batch(tmp_path: Path) -> None:
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    backbone, found = tiny(), samples()
    backbone.module.register_forward_pre_hook(full)
    with pytest.raises(PoiseError, match=r"memory of the device is full .*smaller batch_size"):
        extract(
            backbone,
            found,
            tmp_path / "x",
            counts=ClassCounts.from_labels(found.y, 3),
            seen_by_backbone=None,
            views=Views(),
        )
