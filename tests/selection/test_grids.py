"""Grids: the same budget for every method, what is stated is held, and every value is one that its text gives back."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poise import methods
from poise.commands.demo import VARIANTS
from poise.errors import InputError
from poise.losses import class_balanced_weights
from poise.selection import grids
from poise.selection.grids import AXES, Axis, axes, default_grid, edges, product, sample
from poise.values.spec import Spec

FAMILIES = (
    *(Spec(name) for name in methods.METHODS),
    *VARIANTS,
    Spec.parse("ce+tau_norm"),
    Spec.parse("logit_adjustment+temperature"),
    Spec.parse("los(epochs=3)+tau_norm(tau=0.5)"),
)
each_family = pytest.mark.parametrize("family", FAMILIES, ids=str)


def stated(spec: Spec) -> set[tuple[int, str, object]]:
    return {(number, key, value) for number, step in enumerate(spec.steps) for key, value in step.params}


# --- default grids ---------------------------------------------------------------------------------------------------


@each_family
@pytest.mark.parametrize("budget", [1, 2, 3, 4, 5, 9, 16, 17])
def test_a_grid_holds_what_is_stated_within_the_budget_and_every_spec_builds(family, budget) -> None:
    grid = default_grid(family, budget)
    assert 1 <= len(grid) <= budget
    assert len(set(grid)) == len(grid)
    for spec in grid:
        assert stated(family) <= stated(spec)
        assert [step.name for step in spec.steps] == [step.name for step in family.steps]
        methods.from_spec(spec)


@each_family
def test_every_value_of_a_grid_survives_its_text(family) -> None:
    for spec in (*default_grid(family), *sample(family, 8)):
        assert Spec.parse(str(spec)) == spec
        assert Spec.from_json(json.dumps(spec.to_json())) == spec


@each_family
def test_a_grid_varies_the_open_parameters_and_nothing_else(family) -> None:
    opened = {(number, axis.parameter) for number, axis in axes(family)}
    added = {(number, key) for spec in default_grid(family) for number, key, _ in stated(spec) - stated(family)}
    assert added == opened
    for number, parameter in opened:
        name = family.steps[number].name
        assert parameter in methods.parameters(name) or methods.is_trained(name)


@each_family
def test_the_whole_budget_is_used_where_the_parameters_are_numbers(family) -> None:
    free = axes(family)
    if free and not any(axis.choices for _, axis in free):
        assert len(default_grid(family, 16)) == 16


def test_a_method_without_open_parameters_is_its_own_grid() -> None:
    for text in ("stage1", "l2_norm", "temperature", "tau_norm(tau=0.3)", "crt(lr=1.0,weight_decay=0.0)"):
        assert default_grid(Spec.parse(text)) == (Spec.parse(text),)


def test_a_grid_of_one_number_is_evenly_spaced_and_of_two_is_their_product() -> None:
    assert [dict(s.params)["tau"] for s in default_grid(Spec("tau_norm"))] == [k / 8 for k in range(16)]
    grid = default_grid(Spec("crt"), 25)
    usual = methods.defaults("crt")["lr"]
    rates = [pytest.approx(factor * usual, rel=1e-3) for factor in (0.1, 0.1**0.5, 1.0, 10**0.5, 10.0)]
    decays = [0.0, *(pytest.approx(2e-5 * 100 ** (k / 3), rel=1e-3) for k in range(4))]
    assert [(dict(s.params)["lr"], dict(s.params)["weight_decay"]) for s in grid] == [
        (lr, decay) for lr in rates for decay in decays
    ]


@each_family
@pytest.mark.parametrize("budget", [1, 2, 3, 4, 8, 15])
def test_a_small_grid_holds_the_default_setting(family, budget) -> None:
    """Two rates at the ends of their range tuned `ce` to 35 where the default is at 44."""

    def in_full(spec: Spec) -> list[dict[str, object]]:
        return [methods.settings(step) for step in spec.steps]

    assert in_full(family) in [in_full(spec) for spec in default_grid(family, budget)]


def test_the_default_takes_the_place_of_what_is_nearest_on_the_scale_of_the_axis() -> None:
    assert [dict(s.params)["tau"] for s in default_grid(Spec("tau_norm"), 4)] == [0.0, 0.625, 1.0, 1.875]
    assert [dict(s.params)["tau"] for s in default_grid(Spec("tau_norm"), 2)] == [0.0, 1.0]
    grid = [(dict(s.params)["lr"], dict(s.params)["weight_decay"]) for s in default_grid(Spec("ce"), 9)]
    usual = methods.defaults("ce")
    assert (usual["lr"], usual["weight_decay"]) in grid
    assert len(grid) == 9


def test_three_open_parameters_are_searched_at_random_and_by_seed() -> None:
    family = Spec.parse("crt+tau_norm")
    assert len(axes(family)) == 3
    assert default_grid(family, 16) == sample(family, 16) == default_grid(family, 16)
    assert default_grid(family, 16, seed=1) == sample(family, 16, seed=1) != sample(family, 16)
    assert len(set(default_grid(family, 8)) - set(sample(family, 8))) == 1  # the default


def test_a_longer_sample_begins_with_the_shorter_one() -> None:
    assert sample(Spec("crt"), 16)[:4] == sample(Spec("crt"), 4)


@given(name=st.sampled_from(sorted(AXES)), budget=st.integers(1, 20), seed=st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_samples_lie_within_the_ends_of_their_axes(name, budget, seed) -> None:
    free = axes(Spec(name))
    for spec in sample(Spec(name), budget, seed=seed):
        for _, axis in free:
            value = dict(spec.params)[axis.parameter]
            if axis.choices:
                assert value in axis.choices
                continue
            factor = methods.defaults(name)[axis.parameter] if axis.relative else 1.0
            # Values are rounded to four digits.
            assert axis.low * factor * 0.999 <= value <= axis.high * factor * 1.001


@pytest.mark.parametrize("budget", [0, -1, 2.0, True, None])
def test_a_budget_that_is_none_is_refused(budget) -> None:
    for make in (default_grid, sample):
        with pytest.raises(InputError, match=r"^the budget must be a whole number of at least 1, got "):
            make(Spec("crt"), budget)


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(InputError, match="no method is called 'tau_nrom', did you mean 'tau_norm'"):
        default_grid(Spec("tau_nrom"))


# --- axes ------------------------------------------------------------------------------------------------------------


def test_an_axis_has_equal_steps_equal_factors_or_choices() -> None:
    assert Axis("t", 0.0, 3.0).values(4) == (0.0, 1.0, 2.0, 3.0)
    assert Axis("t", 0.01, 10.0, log=True).values(4) == (0.01, 0.1, 1.0, 10.0)
    assert Axis("t", 1.0, 100.0, log=True, with_zero=True).values(4) == (0.0, 1.0, 10.0, 100.0)
    assert Axis("t", 1.0, 4.0, relative=True).scaled(0.3).values(2) == (0.3, 1.2)
    assert Axis("t", choices=("a", "b", "c")).values(2) == ("a", "b")


def test_every_method_with_a_row_of_axes_exists_and_takes_its_parameters() -> None:
    for name, row in AXES.items():
        taken = {*methods.parameters(name), *(methods.defaults(name))}
        assert {axis.parameter for axis in row} <= taken


# --- edges -----------------------------------------------------------------------------------------------------------


def line(key: str, *values: object) -> tuple[Spec, ...]:
    return tuple(Spec("tau_norm", {key: value}) for value in values)


def test_the_ends_of_three_numbers_are_edges_and_what_lies_between_is_not() -> None:
    grid = line("tau", 0.5, 1.0, 2.0)
    assert [edges(grid, spec) for spec in grid] == [("tau=0.5",), (), ("tau=2",)]


def test_two_numbers_and_words_are_no_edges() -> None:
    assert edges(line("tau", 0.5, 1.0), Spec("tau_norm", tau=1.0)) == ()
    assert edges(line("bias", "drop", "keep", "other"), Spec("tau_norm", bias="drop")) == ()


@pytest.mark.parametrize(
    ("name", "parameter", "values", "marked"),
    [
        ("tau_norm", "tau", (0.0, 1.0, 2.0), (2.0,)),
        ("tau_norm", "tau", (0.1, 1.0, 2.0), (0.1, 2.0)),
        ("lda", "shrinkage", (0.01, 0.1, 1.0), (0.01,)),
        ("lda", "shrinkage", (0.01, 0.1, 0.99), (0.01, 0.99)),
        ("tau_norm", "tau", (0.0, 0.5, 1.0), (1.0,)),  # 1 ends the shrinkage, not every parameter
        ("crt", "weight_decay", (0.0, 0.1, 1.0), (1.0,)),
        ("class_balanced", "beta", (0.99, 0.999, grids.BETA), (0.99,)),
        ("class_balanced", "beta", (0.99, 0.999, 0.99999), (0.99, 0.99999)),
        ("cosine", "lr", (0.0, 0.01, 0.1), (0.1,)),  # untrained
        ("crt", "momentum", (0.0, 0.5, 0.9), (0.9,)),  # a parameter that is never searched has the limits of most
    ],
)
def test_an_end_that_a_definition_sets_is_no_edge_and_any_other_is(name, parameter, values, marked) -> None:
    grid = [Spec(name, {parameter: value}) for value in values]
    assert [edges(grid, spec) for spec in grid] == [
        (f"{parameter}={value:g}",) if value in marked else () for value in values
    ]


def test_the_last_beta_gives_weights_of_one_over_the_counts() -> None:
    counts = torch.tensor([10_000, 500, 40, 1])
    inverse = 1 / counts.double()
    weights = class_balanced_weights(counts, grids.BETA)
    torch.testing.assert_close(weights, 4 * inverse / inverse.sum(), rtol=1e-3, atol=0.0)  # n / 2e7 = 5e-4
    assert not torch.allclose(class_balanced_weights(counts, 0.9999), weights, rtol=0.1)


def test_every_limit_is_the_last_value_that_its_method_takes() -> None:
    """Beyond a limit that an axis states of its own there is an error, or nothing that would still change the head."""
    for name, row in AXES.items():
        for axis in row:
            assert axis.limits[0] == 0.0
            last = axis.limits[1]
            if last < math.inf:
                methods.build(name, **{axis.parameter: last})
                with pytest.raises(InputError, match=axis.parameter):
                    methods.build(name, **{axis.parameter: last * 1.01})


@each_family
def test_an_axis_reaches_no_further_than_its_limits(family) -> None:
    for _, axis in axes(family):
        numbers = [value for value in axis.values(16) if not isinstance(value, str)]
        assert all(axis.limits[0] <= value <= axis.limits[1] for value in numbers)


def test_edges_of_a_chain_are_looked_for_step_by_step_among_chains_alike() -> None:
    chains = [Spec("crt", lr=lr) + Spec("tau_norm", tau=tau) for lr in (1.0, 2.0, 3.0) for tau in (0.5, 1.0, 1.5)]
    others = [Spec("crt", lr=lr) for lr in (0.1, 9.0)]
    best = Spec("crt", lr=3.0) + Spec("tau_norm", tau=1.0)
    assert edges([*chains, *others], best) == ("lr=3",)


def test_a_value_that_every_setting_shares_is_no_edge() -> None:
    grid = [Spec("crt", lr=lr, epochs=2) for lr in (1.0, 2.0, 3.0)]
    assert edges(grid, grid[1]) == ()


# --- products --------------------------------------------------------------------------------------------------------


def test_a_product_is_every_combination_in_order() -> None:
    found = product("tau_norm", tau=[0.5, 1.0], bias=["keep", "drop"])
    assert [str(spec) for spec in found] == [
        "tau_norm(bias='keep',tau=0.5)",
        "tau_norm(bias='drop',tau=0.5)",
        "tau_norm(bias='keep',tau=1.0)",
        "tau_norm(bias='drop',tau=1.0)",
    ]
    assert product("stage1") == (Spec("stage1"),)


def test_a_product_takes_numbers_of_numpy_as_plain_ones() -> None:
    (first, _) = product("tau_norm", tau=np.array([0.5, 1.0]))
    assert str(first) == "tau_norm(tau=0.5)"


@pytest.mark.parametrize("values", [[], "keep", 0.5, None])
def test_a_product_without_a_list_of_values_is_refused(values) -> None:
    with pytest.raises(InputError, match=r"^the grid of tau_norm needs a list of values for tau, got "):
        product("tau_norm", tau=values)


def test_the_budget_of_a_comparison_is_that_of_a_grid() -> None:
    assert len(default_grid(Spec("tau_norm"))) == grids.BUDGET == 16
