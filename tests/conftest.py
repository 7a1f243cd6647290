"""The strict world: deterministic algorithms, one thread, and the default dtype untouched by every test."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def strict_torch() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    assert torch.get_default_dtype() == torch.float32
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
