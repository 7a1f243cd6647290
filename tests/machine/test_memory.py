"""Freed memory stays with the process where the C library can be asked for it."""

import subprocess
import sys

import pytest

from poise.machine import kept_memory

FAULTS = """
import resource, sys
from poise.machine.kept_memory import keep_freed_memory
import numpy as np
assert sys.argv[1] == "as it comes" or keep_freed_memory()
for _ in range(5):
    np.ones(2**22)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(2**22)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the C library of Linux")
def test_blocks_that_are_taken_again_and_again_come_without_new_pages():
    faults = {}
    for how in ("kept", "as it comes"):
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        faults[how] = int(done.stdout)
    assert faults["kept"] < 200
    assert faults["as it comes"] > 20 * faults["kept"]


def test_elsewhere_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(kept_memory.sys, "platform", "darwin")
    assert not kept_memory.keep_freed_memory()
    monkeypatch.setattr(kept_memory.sys, "platform", "linux")
    monkeypatch.setattr(kept_memory.ctypes, "CDLL", lambda name: object())
    assert not kept_memory.keep_freed_memory()
