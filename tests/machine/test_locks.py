"""One run in a folder, and runs that end when they are asked to."""

import os
import re
import signal
import socket
import threading
from pathlib import Path

import pytest

from poise.errors import InputError, StoppedError
from poise.machine.locks import claimed, stoppable
from poise.machine.processes import World
from stage1_child import asked, digest, launched, trained


def test_a_folder_is_for_one_run_and_the_second_is_told_which(tmp_path: Path) -> None:
    holder = re.escape(f"process {os.getpid()} on {socket.gethostname()}")
    refused = pytest.raises(InputError, match=rf"{tmp_path} is in use by another run \({holder}\); wait for it")
    with claimed(tmp_path), refused, claimed(tmp_path):
        pytest.fail("claimed twice")
    with claimed(tmp_path):
        pass


def claims_and_dies(world: World, folder: Path) -> None:
    with claimed(folder):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_claim_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    assert launched(claims_and_dies, tmp_path) == [-signal.SIGKILL]
    with claimed(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match=r"cannot write into .*choose another folder"),
        claimed(tmp_path / "file" / "run"),
    ):
        pytest.fail("claimed a file")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)], ids=str
)
def test_a_signal_lets_the_step_end_saves_and_gives_the_exit_code(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    whole = digest(trained(tmp_path / "whole", asked()).network.state_dict())
    before = signal.getsignal(number)

    def told(done: int, total: int) -> None:
        if done == 16:
            os.kill(os.getpid(), number)

    with stoppable() as wish, pytest.raises(StoppedError, match="stopped after step 3 of 6, which is saved"):
        # The wish is looked at within the next step, which is finished.
        trained(tmp_path / "run", asked(), progress=told, should_stop=wish)
    assert wish.code == code
    assert signal.getsignal(number) == before
    assert digest(trained(tmp_path / "run", asked()).network.state_dict()) == whole


def test_the_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    wished = []

    def twice() -> None:
        with stoppable() as wish:
            os.kill(os.getpid(), signal.SIGINT)
            wished.append(wish())
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the second one was not heard")

    with pytest.raises(KeyboardInterrupt):
        twice()
    assert wished == [True]


def test_outside_of_the_main_thread_there_is_no_wish() -> None:
    seen = []

    def work() -> None:
        with stoppable() as wish:
            seen.append(wish())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
