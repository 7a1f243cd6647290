"""Rows on disk behave like one tensor, and are read in parts where that is possible."""

import pytest
import torch

from poise.values.shards import Shards


def parts(views=None, sizes=(3, 1, 4), dim=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    lead = () if views is None else (views,)
    return [torch.randn(*lead, n, dim, generator=generator).to(dtype) for n in sizes]


@pytest.fixture(params=[None, 1, 2], ids=["no views", "one view", "two views"])
def both(request):
    some = parts(request.param)
    return Shards(some), torch.cat(some, dim=-2)


@pytest.fixture
def unjoined(monkeypatch):
    """Joining is forbidden: what works here reads the rows that it needs only."""

    def refuse(self):
        raise AssertionError("all rows were joined in memory")

    monkeypatch.setattr(Shards, "joined", refuse)


def test_shape_type_and_device_are_those_of_the_joined_rows(both):
    shards, whole = both
    assert shards.shape == whole.shape
    assert (shards.dtype, shards.device, shards.ndim, shards.numel()) == (
        whole.dtype,
        whole.device,
        whole.ndim,
        whole.numel(),
    )
    assert len(shards) == len(whole)
    assert isinstance(shards, torch.Tensor)
    assert shards.is_floating_point()
    assert repr(shards) == f"Shards({tuple(whole.shape)}, torch.float32, 3 parts)"


LITTLE = {
    "first rows": lambda x: x[..., :2, :],
    "rows of one shard": lambda x: x[..., 4:6, :],
    "rows of several shards": lambda x: x[..., 2:7, :],
    "no rows": lambda x: x[..., 5:5, :],
    "beyond the end": lambda x: x[..., 6:99, :],
    "from the end": lambda x: x[..., -3:-1, :],
    "every other row": lambda x: x[..., 1::2, :],
    "all rows": lambda x: x[..., :, :][..., :1, :],
    "detached": lambda x: x.detach()[..., :1, :],
    "by number": lambda x: x[..., torch.tensor([7, 0, 3, 3, -1]), :],
    "by no number": lambda x: x[..., torch.tensor([], dtype=torch.long), :],
    "by mask": lambda x: x[..., torch.arange(8) % 3 == 0, :],
    "index_select": lambda x: x.index_select(-2, torch.tensor([6, 1])),
}


@pytest.mark.usefixtures("unjoined")
@pytest.mark.parametrize("read", LITTLE.values(), ids=LITTLE.keys())
def test_rows_are_read_without_joining_all(both, read):
    shards, whole = both
    found = read(shards)
    assert type(found) is torch.Tensor
    assert torch.equal(found, read(whole))


@pytest.mark.usefixtures("unjoined")
def test_views_are_shards_again():
    some = parts(views=3)
    shards, whole = Shards(some), torch.cat(some, dim=1)
    for one, other in ((shards[0], whole[0]), (shards[-1], whole[-1]), (list(shards)[1], whole[1])):
        assert isinstance(one, Shards)
        assert torch.equal(one[2:5], other[2:5])
        assert torch.equal(one[6], other[6])
        assert torch.equal(one[-1], other[-1])
    assert isinstance(shards[1:], Shards)
    assert torch.equal(shards[1:][:, [5, 2]], whole[1:][:, [5, 2]])
    assert torch.equal(shards[0].unsqueeze(0)[:, 3:], whole[:1, 3:])


@pytest.mark.usefixtures("unjoined")
def test_rows_of_one_shard_are_not_copied():
    some = parts()
    assert Shards(some)[4:6].data_ptr() == some[2].data_ptr()


def test_every_other_operation_is_that_of_the_joined_rows(both):
    shards, whole = both
    for operation in (
        lambda x: x.double().mean(dim=-2),
        lambda x: x @ torch.eye(2),
        lambda x: x.transpose(-1, -2),
        lambda x: x.sum(),
        lambda x: torch.cat([x, x], dim=-1),
        lambda x: x.half().float(),
        lambda x: x[..., 0],
        lambda x: x.clone().mul_(2),
        lambda x: torch.isfinite(x).all(dim=-1),
        lambda x: x.contiguous() + 1,
    ):
        assert torch.equal(operation(shards), operation(whole))
    assert (shards.numpy(force=True) == whole.numpy()).all()


def test_a_number_beyond_the_rows_is_refused(both):
    with pytest.raises(IndexError, match="row numbers reach from 0 to 8, of 8 rows"):
        both[0][..., torch.tensor([0, 8]), :]
