"""The search for a minimum, on functions whose minimum is known."""

from collections import deque

import pytest
import torch

from poise.heads.lbfgs import Curvature, lbfgs

STEEP = torch.logspace(-2, 2, 12, dtype=torch.float64).view(3, 4)
TARGET = torch.arange(12, dtype=torch.float64).view(3, 4)


def quadratic(x):
    return float((STEEP * (x - TARGET).square()).sum() / 2), STEEP * (x - TARGET)


def test_a_quadratic_whose_curvature_is_known_takes_one_step():
    found, steps = lbfgs(
        quadratic, torch.zeros_like(TARGET), Curvature(lambda q: q / STEEP), tolerance=1e-9, max_steps=9
    )
    assert steps == 1
    torch.testing.assert_close(found.x, TARGET)
    assert (found.value, found.evaluations) == (pytest.approx(0), 2)


def test_a_first_step_may_be_short_and_later_ones_are_not():
    seen = []

    def watched(x):
        seen.append(float(x[0, 1]))
        return quadratic(x)

    curvature = Curvature(lambda q: q / STEEP)
    lbfgs(watched, torch.zeros_like(TARGET), curvature, tolerance=1e-9, max_steps=9, first=0.25)
    assert seen == pytest.approx([0, 0.25, 1])


def test_a_wrong_guess_costs_steps_and_does_not_move_the_minimum():
    found, steps = lbfgs(quadratic, torch.zeros_like(TARGET), Curvature(torch.clone), tolerance=1e-9, max_steps=900)
    assert 1 < steps < 900
    assert found.steepest <= 1e-9
    torch.testing.assert_close(found.x, TARGET, rtol=0, atol=2e-6)


def test_the_direction_is_that_of_the_dense_formula():
    generator = torch.Generator().manual_seed(5)
    pairs = [torch.randn(2, 6, generator=generator, dtype=torch.float64) for _ in range(3)]
    curvature = Curvature(lambda q: q / 2.5)
    inverse = torch.eye(6, dtype=torch.float64)
    for step, change in pairs:
        change = change if step @ change > 0 else -change
        curvature.learn(step, change)
    s, y, rho = curvature.pairs[-1]
    inverse = inverse / (rho * float(y @ y))  # the guess, scaled by the newest pair
    for s, y, rho in curvature.pairs:  # the update of BFGS, as matrices
        turn = torch.eye(6, dtype=torch.float64) - rho * torch.outer(s, y)
        inverse = turn @ inverse @ turn.T + rho * torch.outer(s, s)
    slope = torch.arange(6, dtype=torch.float64)
    torch.testing.assert_close(curvature.direction(slope), -inverse @ slope)


def test_the_limit_of_steps_is_kept_and_a_second_search_goes_on():
    curvature, start = Curvature(torch.clone), torch.zeros_like(TARGET)
    first, steps = lbfgs(quadratic, start, curvature, tolerance=1e-9, max_steps=3)
    assert steps == 3
    assert isinstance(curvature.pairs, deque)
    assert len(curvature.pairs) == 3
    second, _ = lbfgs(quadratic, first.x, curvature, tolerance=1e-9, max_steps=900)
    torch.testing.assert_close(second.x, TARGET, rtol=0, atol=2e-6)
    assert second.value < first.value < quadratic(start)[0]


def test_a_function_that_rounding_flattens_ends_the_search():
    found, steps = lbfgs(
        lambda x: (1.0, torch.ones_like(x)), torch.zeros(2, 2), Curvature(torch.clone), tolerance=1e-9, max_steps=9
    )
    assert steps == 0
    assert not found.x.any()


def test_a_jump_to_infinity_is_taken_back():
    def barrier(x):  # -log(1 - x) + x is infinite from 1 on
        value = -torch.log1p(-x).sum() - 3 * x.sum()
        return float(value.nan_to_num(torch.inf)), 1 / (1 - x) - 3

    found, _ = lbfgs(
        barrier, torch.zeros(1, 1, dtype=torch.float64), Curvature(torch.clone), tolerance=1e-9, max_steps=50
    )
    assert float(found.x) == pytest.approx(2 / 3)
