"""The strict world: deterministic algorithms, one thread, and the default dtype untouched by every test."""

import os
from collections.abc import Iterator

# Two test processes with two threads each on two cores spend their time waiting for each other. Set before torch is
# imported, and inherited by the programs that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


@pytest.fixture(autouse=True)
def strict_torch() -> Iterator[None]:
    torch.set_num_threads(1)
    # The debug mode sets the flag of use_deterministic_algorithms without importing the compiler.
    torch.set_deterministic_debug_mode("error")
    yield
    assert torch.get_default_dtype() == torch.float32
    torch.set_deterministic_debug_mode("default")
