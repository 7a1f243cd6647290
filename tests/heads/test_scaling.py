"""Where heads are trained: features read in blocks, by one process or several."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from poise.heads.scaling import Space, space_of
from poise.machine.processes import World, share_of
from poise.testing import world
from stage1_child import launched


def train(**changes):
    """Rows of four Gaussian classes of 40, 20, 9 and 3 rows, far from the origin."""
    given = world(**{"head": False, **changes}).train
    object.__setattr__(given, "x", given.x + 3)
    return given


def weighted(features):
    """The same rows, each with a weight of its own."""
    object.__setattr__(features, "weight", torch.linspace(0.5, 2, len(features), dtype=torch.float64))
    return features


@pytest.mark.parametrize("features", [train(), train(dtype=torch.float64), weighted(train())])
def test_blocks_of_rows_give_the_space_of_the_whole(features, monkeypatch):
    whole = space_of(features, True, False)
    x = features.x[0].double()
    share = torch.ones(len(x), dtype=torch.float64) if features.weight is None else features.weight
    share = share / share.sum()
    torch.testing.assert_close(whole.centre, share @ x, rtol=1e-13, atol=0)
    assert whole.factor == pytest.approx(float(share @ (x - share @ x).square().sum(-1)) ** -0.5, rel=1e-13)
    monkeypatch.setattr("poise.heads.scaling.BLOCK", 5 * x.shape[1])
    blocks = space_of(features, True, False)
    torch.testing.assert_close(blocks.centre, whole.centre, rtol=1e-13, atol=0)
    assert blocks.factor == pytest.approx(whole.factor, rel=1e-13)


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_is_the_same_bits_in_any_block(scale, unit, dtype, monkeypatch):
    features = train()
    space = space_of(features, scale, unit)
    whole, given = space.rows(features.x[0], dtype), features.x[0].clone()
    assert (whole.dtype, whole.shape) == (dtype, (len(features), features.dim + 1))
    assert (whole[:, -1] == 1).all()
    strided = features.x[0].T.contiguous().T
    monkeypatch.setattr("poise.heads.scaling.BLOCK", 1)
    assert torch.equal(space.rows(features.x[0], dtype), whole)
    assert torch.equal(space.rows(strided, dtype), whole)
    assert torch.equal(features.x[0], given)
    assert space.rows(features.x[0][:0], dtype).shape == (0, features.dim + 1)


def test_scaled_rows_have_mean_zero_and_mean_squared_norm_one():
    features = train()
    rows = space_of(features, True, False).rows(features.x[0], torch.float64)[:, :-1]
    torch.testing.assert_close(rows.mean(dim=0), torch.zeros(features.dim, dtype=torch.float64), rtol=0, atol=1e-12)
    assert float(rows.square().sum(dim=-1).mean()) == pytest.approx(1)


def test_rows_that_do_not_vary_are_not_scaled():
    features = train()
    object.__setattr__(features, "x", torch.ones_like(features.x))
    assert space_of(features, True, False).factor == 1.0
    assert space_of(features, False, True) == Space(None, 1.0, True)


@pytest.mark.parametrize(("rows", "parts"), [(0, 3), (2, 3), (7, 1), (7, 3), (100, 7)])
def test_parts_are_neighbours_and_differ_by_one_row_at_most(rows, parts):
    found = [share_of(rows, parts, part) for part in range(parts)]
    assert [found[0].start, found[-1].stop] == [0, rows]
    assert all(a.stop == b.start for a, b in pairwise(found))
    sizes = [part.stop - part.start for part in found]
    assert max(sizes) - min(sizes) <= 1


def finds(world: World, folder: Path) -> None:
    """The space of two processes against that of one, more rows than processes and fewer."""
    for features in (train(), weighted(train()), train().take(torch.tensor([5]))):
        alone, shared = space_of(features, True, False), space_of(features, True, False, world)
        torch.testing.assert_close(shared.centre, alone.centre, rtol=1e-13, atol=0)
        assert shared.factor == pytest.approx(alone.factor, rel=1e-13)


def test_two_processes_find_the_space_of_one(tmp_path):
    assert launched(finds, tmp_path, ranks=2) == [0, 0]
