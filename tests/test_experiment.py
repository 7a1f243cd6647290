"""Many methods on one problem."""

import warnings
from dataclasses import replace

import pytest
import torch

from poise import data, methods, testing
from poise.errors import InputError
from poise.experiment import fit_methods, measure, run
from poise.metrics import coefficient_of_variation, evaluate, logits_magnitude
from poise.spec import Spec
from poise.types import Features, Problem


def test_methods_fitted_together_equal_methods_fitted_alone() -> None:
    problem = testing.world()
    texts = [
        "stage1",
        "crt(epochs=2)",
        "los(epochs=2)+tau_norm(tau=0.5)",
        "ncm",
        "tau_norm+ce(epochs=2)",
        "gala(epochs=2)",
    ]
    chosen = [methods.from_spec(text) for text in texts]
    for method, fitted in zip(chosen, fit_methods(problem, chosen, seed=3), strict=True):
        alone = method(problem, 3)
        assert torch.equal(fitted.head.weight, alone.weight)
        assert torch.equal(fitted.head.bias, alone.bias)
        assert fitted.seconds > 0


def test_without_a_stage_1_head_all_methods_share_one_that_is_fitted() -> None:
    problem = testing.world(head=False)
    stage1, tau = fit_methods(problem, [methods.build("stage1"), methods.build("tau_norm")])
    expected = stage1.head.weight / stage1.head.weight.norm(dim=-1, keepdim=True)
    assert torch.allclose(tau.head.weight, expected)


def test_measure_reads_the_split_in_chunks_with_the_same_result() -> None:
    problem = testing.world(held_out=50)
    assert problem.held_out is not None
    assert problem.head is not None
    logits = problem.head(problem.held_out.x[0])
    scores, variation = measure(problem.head, problem.held_out)
    assert scores == evaluate(logits, problem.held_out.y, problem.train.counts)
    assert variation == pytest.approx(coefficient_of_variation(logits_magnitude(logits, problem.held_out.y)), rel=1e-12)


def test_records_say_what_the_numbers_depend_on() -> None:
    problem = testing.world()
    assert problem.held_out is not None
    (record,) = run([Spec("los", epochs=2, delta=0.9)], problem, problem.held_out, data="world", seed=4)
    assert record.method == "los(delta=0.9,epochs=2)"
    (settings,) = record.settings
    assert (settings["delta"], settings["epochs"], settings["lr"]) == (0.9, 2, 0.03)
    assert (settings["start"], settings["sampler"]) == ("stage1", "instance")
    assert (record.train, record.test, record.seed) == (problem.train.key, problem.held_out.key, 4)
    assert record.selected_on is None
    assert set(record.versions) == {"python", "poise", "torch", "numpy"}
    assert record.remarks == ()


def test_warnings_become_remarks() -> None:
    problem = testing.world()
    assert problem.held_out is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (record,) = run([Spec("ce", lr=1e30, epochs=2)], problem, problem.held_out, data="world")
    assert any("diverged" in remark for remark in record.remarks)


@pytest.mark.parametrize("name", data.DEMO_SETS)
def test_a_shipped_set_has_the_published_counts_and_groups(name: str) -> None:
    demo = data.load_demo(name)
    train = demo.problem.train
    assert torch.equal(torch.bincount(train.y), train.counts.n)
    assert int(train.counts.n.sum()) == 10847
    assert {group: int(mask.sum()) for group, mask in train.counts.shots().items()} == {
        "many": 35,
        "medium": 35,
        "few": 30,
    }
    assert demo.problem.held_out is not None
    assert (len(demo.problem.held_out), len(demo.test)) == (1971, 10000)
    assert (train.seen_by_backbone, demo.problem.held_out.seen_by_backbone) == (True, False)


def test_the_default_set_scores_what_its_origin_page_says() -> None:
    demo = data.load_demo()
    assert demo.problem.head is not None
    assert demo.problem.held_out is not None
    splits: dict[str, Features] = {"train": demo.problem.train, "held_out": demo.problem.held_out, "test": demo.test}
    accuracy = {name: measure(demo.problem.head, split)[0].accuracy for name, split in splits.items()}
    assert accuracy == {
        "train": pytest.approx(0.959, abs=5e-4),
        "held_out": pytest.approx(0.430, abs=5e-4),
        "test": 0.4254,
    }


def test_an_unknown_shipped_set_is_named() -> None:
    with pytest.raises(InputError, match="'mnist'"):
        data.load_demo("mnist")


def test_memorised_rows_may_not_calibrate() -> None:
    demo = data.load_demo()
    problem = Problem(demo.problem.train, demo.problem.head, replace(demo.problem.train, x=demo.problem.train.x))
    with pytest.raises(InputError, match="trained the representation"):
        methods.build("temperature")(problem)
