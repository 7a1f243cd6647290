"""Several processes: how they share work, and that two compute what one does."""

from pathlib import Path

import pytest
import torch
from torch import nn

from poise.errors import InputError
from poise.machine.processes import World, device_of, started, synchronised
from stage1_child import launched


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [1, 2, 4, 5, 17])
def test_every_row_of_a_batch_counts_once(size: int, rows: int) -> None:
    batch = torch.arange(rows) + 100
    weights = torch.zeros(rows)
    for rank in range(size):
        part, weight = World(rank, size).share(batch)
        assert len(part)
        weights[part - 100] += weight
    torch.testing.assert_close(weights, torch.ones(rows))


def test_one_process_alone_needs_no_others() -> None:
    world = World()
    tensor = torch.tensor([1.0])
    assert world.alone
    assert world.first
    assert world.add(tensor) is tensor
    assert [world.any(True), world.any(False)] == [True, False]
    world.wait()
    with started() as found:
        assert found == World()


def test_one_process_alone_keeps_the_normalisation_of_torch() -> None:
    norm = nn.BatchNorm2d(2)
    with synchronised(norm, World()):
        assert "forward" not in norm.__dict__


def normalises(world: World, folder: Path) -> None:
    """Normalisation of 7 images by two processes against that of one; writes nothing if all agrees."""
    generator = torch.Generator().manual_seed(0)
    x, slope = (torch.randn(7, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    own = slice(world.rank, None, world.size)
    for affine, momentum, remembers in ((True, 0.1, True), (False, None, True), (True, 0.1, False)):
        alone = nn.BatchNorm2d(3, affine=affine, momentum=momentum, track_running_stats=remembers)
        shared = nn.BatchNorm2d(3, affine=affine, momentum=momentum, track_running_stats=remembers)
        whole, part = x.float().requires_grad_(), x[own].float().requires_grad_()
        expected = alone(whole)
        (expected * slope.float()).sum().backward()
        with synchronised(nn.Sequential(shared), world):
            found = shared(part)
            (found * slope[own].float()).sum().backward()
            shared.eval()
            shared(part)
            shared.train()
        assert "forward" not in shared.__dict__
        close = {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(found, expected[own], **close)
        torch.testing.assert_close(part.grad, whole.grad[own], **close)
        for name, value in shared.state_dict().items():
            if "running" in name or "num" in name:
                torch.testing.assert_close(value, alone.state_dict()[name], **close)
        for one, other in zip(shared.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(world.add(one.grad), other.grad, **close)
    assert world.any(world.rank == 1)
    assert not world.any(False)
    assert World(rank=world.rank, size=2) == world
    world.wait()


def test_normalisation_over_two_processes_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    assert launched(normalises, tmp_path, ranks=2) == [0, 0]


def adds_strided(world: World, folder: Path) -> None:
    """Sums of tensors whose numbers do not lie one after the other."""
    memory = torch.arange(24.0).view(2, 3, 4) * (world.rank + 1)
    for tensor in (memory[..., :3], memory[:, 1:].mT, memory[:, ::2]):
        expected, before = tensor * 3 / (world.rank + 1), memory.clone()
        torch.testing.assert_close(world.add(tensor), expected)
        tensor.copy_(expected / 3 * (world.rank + 1))
        torch.testing.assert_close(memory, before)  # and nothing beside them is touched


def test_strided_tensors_are_added_too(tmp_path: Path) -> None:
    assert launched(adds_strided, tmp_path, ranks=2) == [0, 0]


def leaves_early(world: World, folder: Path) -> None:
    if world.rank != 1:
        world.wait()


def test_a_process_that_leaves_is_named_by_all_others(tmp_path: Path) -> None:
    assert launched(leaves_early, tmp_path / "run", ranks=3) == [2, 0, 2]
    for rank in (0, 2):
        assert (
            (tmp_path / f"error{rank}")
            .read_text()
            .startswith(f"rank 1 of this run has ended or does not answer, as rank {rank}")
        )


def test_a_reader_that_died_is_not_taken_for_a_partner(monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(tensor):
        raise RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed.")

    monkeypatch.setattr(torch.distributed, "all_reduce", dead)
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        World(0, 2).add(torch.zeros(1))


def test_devices_have_names() -> None:
    assert device_of("cpu") == torch.device("cpu")
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(InputError, match=r"there is no device called 'gpu'; say auto, cpu, cuda or cuda:1"):
        device_of("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"device {name} was asked for, and this machine has 0 such devices"):
        device_of(name)


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of("auto") == device_of("cuda") == torch.device("cuda:1")
    assert device_of("cuda:0") == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="this machine has 2 such devices"):
        device_of("cuda")
