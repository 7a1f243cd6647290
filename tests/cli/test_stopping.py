"""A stop that a library swallows is asked for again; one that got through is not."""

import signal
import subprocess
import sys

import pytest

SWALLOWED = """
import os, signal, time
from poise.cli.stopping import heard
with heard():
    try:
        os.kill(os.getpid(), signal.{name})
        time.sleep(0.01)
    except:
        pass
    try:
        time.sleep(30)
    finally:
        # Leaving takes longer than the time after which a stop is raised once more.
        end = time.monotonic() + 1.3
        while time.monotonic() < end:
            time.sleep(0.01)
        print("left in order")
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 1)])
def test_a_stop_that_was_swallowed_is_raised_again_and_leaving_is_not_disturbed(name: str, code: int) -> None:
    program = [sys.executable, "-c", SWALLOWED.format(name=name)]
    done = subprocess.run(
        program,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.stdout == "left in order\n"
    assert done.returncode == code
