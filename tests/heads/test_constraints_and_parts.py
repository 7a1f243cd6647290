"""Projections of heads, and the parts of a head that are trained."""

import pytest
import torch

from poise.constraints import free, max_norm, project_max_norm, project_unit_norm, unit_norm
from poise.errors import InputError
from poise.heads import trained_parts
from poise.values.head import Head, Prep

INF = float("inf")
ROUNDING = {torch.float64: 1e-15, torch.float32: 1e-6}  # relative, of a norm and a quotient


def some_head(*leading, classes=5, dim=4, seed=0, dtype=torch.float64, prep=None):
    """Random heads (..., C, D) whose row norms grow with the class, from about 0.5 to about 5."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(*leading, classes, dim, generator=generator, dtype=torch.float64)
    weight = directions * (0.25 + torch.arange(classes, dtype=torch.float64)).unsqueeze(-1)
    bias = torch.randn(*leading, classes, generator=generator, dtype=torch.float64)
    return Head(weight.to(dtype), bias.to(dtype), prep)


# --- MaxNorm ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rows_inside_are_unchanged_bit_for_bit_and_others_end_on_the_radius(dtype):
    head = some_head(dtype=dtype)
    norms = head.weight.norm(dim=-1)
    radius = float(norms.sort().values[1:3].mean())
    found = project_max_norm(head, radius)
    inside = norms <= radius
    assert 0 < int(inside.sum()) < 5
    assert torch.equal(found.weight[inside], head.weight[inside])
    assert found.weight[~inside].norm(dim=-1).tolist() == pytest.approx([radius] * 3, rel=ROUNDING[dtype])
    cosine = torch.nn.functional.cosine_similarity(found.weight, head.weight)
    assert torch.allclose(cosine, torch.ones_like(cosine), rtol=0, atol=1e-6)


def test_a_row_exactly_on_the_radius_is_inside():
    head = Head(torch.tensor([[3.0, 4.0], [6.0, 8.0]]), torch.zeros(2))
    assert project_max_norm(head, 5.0).weight.tolist() == [[3.0, 4.0], [3.0, 4.0]]


@pytest.mark.parametrize("project", [project_max_norm, project_unit_norm])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_projections_are_idempotent(project, dtype):
    once = project(some_head(dtype=dtype), 1.3)
    assert torch.allclose(project(once, 1.3).weight, once.weight, rtol=ROUNDING[dtype], atol=0)


@pytest.mark.parametrize("project", [project_max_norm, project_unit_norm])
def test_projections_leave_the_bias_the_prep_and_the_given_head(project):
    head = some_head(prep=Prep(unit=True))
    before = head.weight.clone()
    found = project(head, 0.1)
    assert torch.equal(found.bias, head.bias)
    assert found.prep is head.prep
    assert torch.equal(head.weight, before)
    assert not torch.equal(found.weight, before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_infinite_radius_is_the_identity(dtype):
    head = some_head(2, dtype=dtype)
    assert torch.equal(project_max_norm(head, INF).weight, head.weight)
    assert torch.equal(free().apply(head.weight, free().radius(head)), head.weight)
    assert free().every == "never"


@pytest.mark.parametrize("project", [project_max_norm, project_unit_norm])
def test_each_head_of_a_stack_has_its_own_radius(project):
    heads = some_head(3)
    radii = torch.tensor([0.5, 2.0, INF if project is project_max_norm else 3.0])
    found = project(heads, radii)
    for i in range(3):
        assert torch.equal(found.weight[i], project(heads[i], float(radii[i])).weight)
    assert torch.equal(project(heads, 0.5).weight[0], found.weight[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_unit_norm_puts_every_row_on_the_radius(dtype):
    found = project_unit_norm(some_head(dtype=dtype), 2.0)
    assert found.weight.norm(dim=-1).tolist() == pytest.approx([2.0] * 5, rel=ROUNDING[dtype])
    assert project_unit_norm(found).weight.norm(dim=-1).tolist() == pytest.approx([1.0] * 5, rel=ROUNDING[dtype])


@pytest.mark.parametrize("radius", [0.5, 1.0, 10.0])
@pytest.mark.parametrize("project", [project_max_norm, project_unit_norm])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_zero_rows_stay_zero(project, radius, dtype):
    head = some_head(dtype=dtype)
    head.weight[2] = 0
    assert torch.equal(project(head, radius).weight[2], torch.zeros(4, dtype=dtype))
    assert torch.isfinite(project(head, radius).weight).all()


def test_the_threshold_interpolates_between_the_stage_1_norms():
    head = Head(torch.diag(torch.tensor([1.0, 3.0, 2.0])), torch.zeros(3))
    assert [max_norm(threshold=t).radius(head) for t in (0.0, 0.1, 1.0)] == pytest.approx([1.0, 1.2, 3.0])
    assert max_norm().radius(head) == pytest.approx(1.2)  # the released 0.1
    assert max_norm().needs_head


def test_a_given_radius_needs_no_head():
    given = max_norm(radius=0.7, every="epoch")
    assert given.radius(None) == 0.7
    assert not given.needs_head
    assert given.every == "epoch"
    assert unit_norm().radius(None) == 1.0
    assert unit_norm(every="epoch").every == "epoch"
    assert unit_norm().apply(torch.tensor([[3.0, 4.0]]), 1.0).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]


REFUSED = {
    "radius 0": (lambda: max_norm(radius=0.0), ("radius must be positive", "0.0")),
    "radius nan": (lambda: max_norm(radius=float("nan")), ("radius must be positive", "nan")),
    "threshold": (lambda: max_norm(threshold=-0.1), ("threshold", "-0.1")),
    "every": (lambda: max_norm(radius=1.0, every="batch"), ("step, epoch, never", "'batch'")),
    "no head": (lambda: max_norm().radius(None), ("stage-1 head", "or a radius")),
}


@pytest.mark.parametrize(("call", "fragments"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals_name_the_value_and_the_remedy(call, fragments):
    with pytest.raises(InputError) as refused:
        call()
    assert all(fragment in str(refused.value) for fragment in fragments)


# --- parts -----------------------------------------------------------------------------------------------------------

PARTS = {
    "affine_only": trained_parts.affine_only,
    "bias_only": trained_parts.bias_only,
    "full": trained_parts.full,
    "scale_only": trained_parts.scale_only,
    "unit_rows": trained_parts.unit_rows,
    "unit_rows_and_scale": trained_parts.unit_rows_and_scale,
}
COSINES = ("unit_rows", "unit_rows_and_scale")
each_part = pytest.mark.parametrize("name", PARTS)


def some_rows(*leading, seed=0):
    """Random rows (..., C, D + 1) in float64."""
    head = some_head(*leading, seed=seed)
    return torch.cat([head.weight, head.bias.unsqueeze(-1)], dim=-1)


def some_scale(*leading):
    return 3.0 + torch.arange(int(torch.tensor(leading).prod()) if leading else 1, dtype=torch.float64).reshape(leading)


def random_leaves(part, rows, scale, seed=1):
    """Leaves away from their start, and the frozen rest."""
    leaves, frozen = part.split(rows, scale)
    generator = torch.Generator().manual_seed(seed)
    moved = tuple(
        leaf + 0.3 * torch.randn(leaf.shape, generator=generator, dtype=torch.float64).to(leaf) for leaf in leaves
    )
    return moved, frozen


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("name", [name for name in PARTS if name not in COSINES])
def test_joining_what_was_split_gives_the_rows_back(name, leading):
    rows, part = some_rows(*leading), PARTS[name]
    assert torch.equal(part.join(*part.split(rows, some_scale(*leading))), rows)


@pytest.mark.parametrize("leading", [(), (3,)], ids=str)
@pytest.mark.parametrize("name", COSINES)
def test_cosine_parts_start_from_scaled_directions_without_bias(name, leading):
    rows, scale, part = some_rows(*leading), some_scale(*leading), PARTS[name]
    joined = part.join(*part.split(rows, scale))
    direction = torch.nn.functional.normalize(rows[..., :-1], dim=-1)
    assert torch.allclose(joined[..., :-1], scale[..., None, None] * direction, rtol=1e-14)
    assert (joined[..., -1] == 0).all()
    assert torch.allclose(part.join(*part.split(joined, scale)), joined, rtol=1e-14, atol=0)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)], ids=str)
@each_part
def test_pulled_gradients_equal_autograd_through_the_join(name, leading):
    part, rows = PARTS[name], some_rows(*leading)
    leaves, frozen = random_leaves(part, rows, some_scale(*leading))
    slope = torch.randn(rows.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    tracked = tuple(leaf.clone().requires_grad_() for leaf in leaves)
    expected = torch.autograd.grad((part.join(tracked, frozen) * slope).sum(), tracked)
    found = part.pull(slope, leaves, frozen)
    assert len(found) == len(leaves)
    for a, b, leaf in zip(found, expected, leaves, strict=True):
        assert a.shape == leaf.shape
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@each_part
def test_parts_write_to_neither_rows_nor_leaves(name):
    part, rows = PARTS[name], some_rows(2)
    before = rows.clone()
    leaves, frozen = random_leaves(part, rows, some_scale(2))
    copies = [leaf.clone() for leaf in (*leaves, *frozen)]
    part.pull(torch.ones_like(rows), leaves, frozen)
    part.join(leaves, frozen)
    assert torch.equal(rows, before)
    assert all(torch.equal(a, b) for a, b in zip((*leaves, *frozen), copies, strict=True))


@pytest.mark.parametrize("name", ["affine_only", "bias_only", "scale_only", *COSINES])
def test_trained_leaves_share_no_memory_with_the_rows(name):
    rows = some_rows(2)
    leaves, _ = PARTS[name].split(rows, some_scale(2))
    for leaf in leaves:
        leaf += 1
    assert torch.equal(rows, some_rows(2))


def test_only_the_full_part_is_whole_and_only_cosines_normalise_features():
    assert [name for name, part in PARTS.items() if part.whole] == ["full"]
    assert [name for name, part in PARTS.items() if part.unit_features] == list(COSINES)


@pytest.mark.parametrize(
    ("name", "per_head"),
    [
        ("affine_only", 2 * 5),
        ("bias_only", 5),
        ("full", 5 * 5),
        ("scale_only", 5),
        ("unit_rows", 5 * 4),
        ("unit_rows_and_scale", 5 * 4 + 1),
    ],
)
def test_parts_train_as_many_numbers_as_they_say(name, per_head):
    leaves, _ = PARTS[name].split(some_rows(3), some_scale(3))
    assert sum(leaf.numel() for leaf in leaves) == 3 * per_head


def logits(rows, x):
    return x @ rows[..., :-1].mT + rows[..., -1].unsqueeze(-2)


def features():
    return torch.randn(7, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def test_a_scale_multiplies_the_whole_logit_bias_included():
    rows, x = some_rows(2), features()
    _, frozen = trained_parts.scale_only.split(rows, some_scale(2))
    factor = torch.linspace(-1, 2, 10, dtype=torch.float64).view(2, 5)
    found = logits(trained_parts.scale_only.join((factor,), frozen), x)
    assert torch.allclose(found, logits(rows, x) * factor.unsqueeze(-2), rtol=0, atol=1e-13)


def test_an_affine_part_scales_logits_and_adds_multiples_of_the_row_norm():
    rows, x = some_rows(2), features()
    _, frozen = trained_parts.affine_only.split(rows, some_scale(2))
    factor, offset = torch.linspace(-1, 2, 10).double().view(2, 5), torch.linspace(3, -1, 10).double().view(2, 5)
    found = logits(trained_parts.affine_only.join((factor, offset), frozen), x)
    expected = logits(rows, x) * factor.unsqueeze(-2) + (offset * rows[..., :-1].norm(dim=-1)).unsqueeze(-2)
    assert torch.allclose(found, expected, rtol=0, atol=1e-13)


def test_a_bias_part_keeps_the_weight():
    rows = some_rows(2)
    bias = torch.arange(10.0).double().view(2, 5)
    _, frozen = trained_parts.bias_only.split(rows, some_scale(2))
    joined = trained_parts.bias_only.join((bias,), frozen)
    assert torch.equal(joined[..., :-1], rows[..., :-1])
    assert torch.equal(joined[..., -1], bias)


@pytest.mark.parametrize("name", COSINES)
def test_cosine_parts_give_scaled_cosines_on_unit_features(name):
    part, rows, scale = PARTS[name], some_rows(2), some_scale(2)
    leaves, frozen = random_leaves(part, rows, scale)
    used = leaves[1] if len(leaves) > 1 else scale
    x = features()
    found = logits(part.join(leaves, frozen), torch.nn.functional.normalize(x, dim=-1))
    cosine = torch.nn.functional.cosine_similarity(x.unsqueeze(1), leaves[0].unsqueeze(-3), dim=-1)
    assert torch.allclose(found, used[:, None, None] * cosine, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", COSINES)
def test_the_gradient_of_a_direction_is_orthogonal_to_it(name):
    part, rows = PARTS[name], some_rows(2)
    leaves, frozen = random_leaves(part, rows, some_scale(2))
    slope = torch.randn(rows.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    along = (part.pull(slope, leaves, frozen)[0] * leaves[0]).sum(dim=-1)
    assert along.abs().max() < 1e-13


@pytest.mark.parametrize("name", COSINES)
def test_zero_rows_of_cosine_parts_stay_finite(name):
    part, rows = PARTS[name], some_rows()
    rows[1] = 0
    leaves, frozen = part.split(rows.float(), torch.tensor(16.0))
    assert (part.join(leaves, frozen)[1] == 0).all()
    slope = torch.full_like(rows, 10.0).float()
    assert all(torch.isfinite(pulled).all() for pulled in part.pull(slope, leaves, frozen))
