"""Heads that several processes train together: what one process trains, and no hang when one of them dies."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from poise.heads import reading, solver
from poise.heads.solver import Retrain, fit_heads
from poise.losses import gala
from poise.machine.processes import World
from poise.methods import build
from poise.testing import world as made
from poise.values.problem import Problem
from poise.values.shards import Shards
from stage1_child import launched

KILLED = -signal.SIGKILL
LIMITS = solver.ALIGNED_FROM, solver.CACHED_WEIGHTS
NAMES = ("crt", "gala", "gcl", "lws", "cosine", "los", "weight_balancing", "marc", "class_balanced")


def problem(*, views: int = 1, weighted: bool = False, head: bool = True) -> Problem:
    found = made(views=views, dtype=torch.float64, head=head)
    if not weighted:
        return found
    weight = torch.linspace(0, 2, len(found.train), dtype=torch.float64)
    return replace(found, train=replace(found.train, weight=weight))


def recipes(batch: int = 16, epochs: int = 2) -> list[Retrain]:
    return [build(name, epochs=epochs, batch_size=batch) for name in NAMES]


CASES = {
    "instance and class-balanced": lambda: (problem(), recipes()),
    "views": lambda: (problem(views=3), recipes()),
    "weighted rows": lambda: (problem(weighted=True), recipes()),
    "a fresh stage-1 head": lambda: (problem(head=False), recipes()),
    "batches smaller than the processes": lambda: (problem(), recipes(batch=1, epochs=1)[:2]),
    "one batch of all rows": lambda: (problem(), recipes(batch=1000)),
    "wide heads, cut by classes": lambda: (problem(), recipes()),
    "statistics of rows in their order": lambda: (problem(), [Retrain(loss=gala(accumulate="sum"))]),
}


def fits(world: World, folder: Path) -> None:
    """All cases by the processes of the world; writes what is wrong into its exit code by an assertion."""
    for name, case in CASES.items():
        given, asked = case()
        wide = name.startswith("wide")
        solver.ALIGNED_FROM, solver.CACHED_WEIGHTS = (1, 13) if wide else LIMITS
        alone = fit_heads(given, asked)
        together = fit_heads(replace(given, world=world), asked)
        for one, other in zip(alone, together, strict=True):
            for a, b in ((one.weight, other.weight), (one.bias, other.bias)):
                assert float((a - b).abs().max()) <= 1e-9 * (1 + float(a.abs().max())), name
        found = torch.zeros(world.size, len(together), dtype=torch.float64)
        found[world.rank] = torch.stack([head.weight.sum() for head in together])
        world.add(found)
        assert torch.equal(found, found[:1].expand_as(found)), name  # the bits of all processes are equal


@pytest.mark.parametrize("ranks", [2, 3])
def test_processes_together_train_the_heads_of_one(tmp_path, ranks):
    assert launched(fits, tmp_path / "run", ranks=ranks) == [0] * ranks


def reads(world: World, folder: Path) -> None:
    """Training on shards asks each process for the rows of its shards only."""
    given, read = problem(head=False), set()
    half = len(given.train) // 2
    rows = Shards.rows

    def seen(self: Shards, numbers: torch.Tensor) -> torch.Tensor:
        read.update(numbers.tolist())
        return rows(self, numbers)

    stored = replace(given.train, x=Shards(given.train.x.split([half, len(given.train) - half], dim=1)))
    reading.KEPT_NUMBERS = 0
    Shards.rows = seen  # type: ignore[method-assign]
    fit_heads(Problem(stored, world=world), [build("ce", start="fresh", epochs=2, batch_size=16)])
    assert read == set(range(half) if world.rank == 0 else range(half, len(given.train)))


def test_each_process_reads_its_own_shards(tmp_path):
    assert launched(reads, tmp_path / "run", ranks=2) == [0, 0]


def dies(world: World, folder: Path, mortal: bool) -> None:
    """Rank 1 is killed in the middle of an epoch."""
    steps = 0

    def cancelled() -> bool:
        nonlocal steps
        steps += 1
        if mortal and world.rank == 1 and steps == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    heads = fit_heads(replace(problem(), world=world), recipes(), cancelled=cancelled)
    (folder.parent / f"head{world.rank}").write_text(str(heads[0].weight.sum().item()))


def test_a_process_that_is_killed_is_named_and_the_next_run_succeeds(tmp_path):
    assert launched(dies, tmp_path / "run", True, ranks=2) == [2, KILLED]
    message = (tmp_path / "error0").read_text()
    assert message.startswith("rank 1 of this run has ended or does not answer, as rank 0 noticed (")
    assert message.endswith("; start the same command again to go on from what is saved")
    assert not (tmp_path / "head0").exists()
    assert launched(dies, tmp_path / "run", False, ranks=2) == [0, 0]
    assert (tmp_path / "head0").read_text() == (tmp_path / "head1").read_text()
