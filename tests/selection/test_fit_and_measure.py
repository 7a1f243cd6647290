"""Many methods on one problem."""

import json
import time
import warnings
from dataclasses import replace

import pytest
import torch

from poise import methods, testing
from poise.data import bundled
from poise.errors import InputError
from poise.heads.converged import fit_path
from poise.machine.processes import World
from poise.metrics import Moments, Tally, coefficient_of_variation, evaluate, logits_magnitude
from poise.results.record import Record, Selection
from poise.selection.fit_and_measure import fit_methods, fit_specs, make_record, measure, measured, remarks_of, sums_of
from poise.values.features import Features
from poise.values.problem import Problem
from poise.values.spec import Spec


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


def test_penalties_of_one_loss_share_a_path_and_give_the_heads_that_they_give_alone(monkeypatch) -> None:
    problem = testing.world(dtype=torch.float64)
    texts = [
        "converged(weight_decay=0.001)",
        "converged(weight_decay=0.1)+logit_adjustment",
        "converged(loss='balanced_softmax',weight_decay=0.1)",
        "ncm",
        "converged(weight_decay=0.01)",
    ]
    chosen = [methods.from_spec(text) for text in texts]
    alone = [method(problem, 3) for method in chosen]
    paths: list[list[float]] = []

    def path(train, loss, decays, **more):
        paths.append(list(decays))
        return fit_path(train, loss, decays, **more)

    monkeypatch.setattr("poise.heads.converged.fit_path", path)
    fitted = fit_methods(problem, chosen, seed=3)
    assert paths == [[0.001, 0.1, 0.01], [0.1]]
    for (head, seconds), expected in zip(fitted, alone, strict=True):
        assert torch.allclose(head.weight, expected.weight, atol=2e-3)
        assert torch.allclose(head.bias, expected.bias, atol=2e-3)
        assert seconds > 0


def test_without_a_stage_1_head_all_methods_share_one_that_is_fitted() -> None:
    problem = testing.world(head=False)
    stage1, tau = fit_methods(problem, [methods.build("stage1"), methods.build("tau_norm")])
    expected = stage1.head.weight / stage1.head.weight.norm(dim=-1, keepdim=True)
    assert torch.allclose(tau.head.weight, expected)


def test_specs_are_fitted_together_each_once_and_equal_their_methods() -> None:
    problem = testing.world()
    specs = [
        Spec("crt", epochs=2),
        Spec("tau_norm", tau=0.5),
        Spec("crt", epochs=2),
        Spec("los", epochs=2) + Spec("ncm"),
    ]
    ticks: list[tuple[int, int]] = []
    fitted = fit_specs(problem, specs, 3, progress=lambda *tick: ticks.append(tick))
    assert list(fitted) == [specs[0], specs[1], specs[3]]
    assert ticks[-1] == (4, 4)
    for spec, (head, seconds) in fitted.items():
        alone = methods.from_spec(spec)(problem, 3)
        assert torch.equal(head.weight, alone.weight)
        assert torch.equal(head.bias, alone.bias)
        assert seconds > 0


def test_the_time_of_one_pass_is_shared_by_the_heads_it_trained() -> None:
    problem = testing.world()
    chosen = [methods.from_spec(text) for text in ("crt(epochs=3)", "los(epochs=3)", "ncm")]
    begun = time.perf_counter()
    crt, los, _ = fit_methods(problem, chosen)
    took = time.perf_counter() - begun
    assert crt.seconds == pytest.approx(los.seconds, rel=0.5)
    assert crt.seconds + los.seconds <= took


def test_nothing_to_fit_gives_nothing() -> None:
    assert fit_methods(testing.world(), []) == []
    assert fit_specs(testing.world(), []) == {}


def test_measure_reads_the_split_in_chunks_with_the_same_result() -> None:
    problem = testing.world(held_out=3000)  # more rows than one chunk holds
    assert problem.held_out is not None
    assert problem.head is not None
    rows = problem.held_out
    logits = problem.head(rows.x[0])
    found, expected = measure(problem.head, rows), evaluate(logits, rows.y, problem.train.counts)
    assert len(rows) > 8192
    assert found.scores.per_class == expected.per_class
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "nll", "ece"):
        assert getattr(found.scores, name) == pytest.approx(getattr(expected, name), rel=1e-9)
    variation = coefficient_of_variation(logits_magnitude(logits, rows.y))
    assert found.loma_variation == pytest.approx(variation, rel=1e-9)
    assert torch.equal(found.correct, logits.argmax(dim=-1) == rows.y)


def test_sums_of_parts_say_what_the_whole_says() -> None:
    problem = testing.world(held_out=10)
    assert problem.held_out is not None
    assert problem.head is not None
    rows = problem.held_out
    both = [rows.take(torch.arange(len(rows))[slice(*ends)]) for ends in ((0, 7), (7, 40))]
    parts = [sums for part in both for sums in sums_of([problem.head], part)]
    together, whole = measured(parts, rows.counts), measure(problem.head, rows)
    assert torch.equal(together.correct, whole.correct)
    assert together.scores.per_class == whole.scores.per_class
    assert together.scores.nll == pytest.approx(whole.scores.nll, rel=1e-6)
    assert together.loma_variation == pytest.approx(whole.loma_variation, rel=1e-6)


def test_processes_that_share_the_rows_add_up_to_one(monkeypatch) -> None:
    problem = testing.world(held_out=7)
    assert problem.held_out is not None
    assert problem.head is not None
    heads, rows = [problem.head, problem.head.shifted(1.0)], problem.held_out
    monkeypatch.setattr(World, "add", lambda world, tensor: tensor)  # what each would send
    whole, shares = sums_of(heads, rows), [sums_of(heads, rows, World(rank, 3)) for rank in range(3)]
    for i, expected in enumerate(whole):
        parts = [share[i] for share in shares]
        assert torch.equal(torch.stack([part.correct for part in parts]).any(dim=0), expected.correct)
        for kind in ("tally", "moments"):
            sums = [torch.stack(column).sum(dim=0) for column in zip(*(getattr(p, kind) for p in parts), strict=True)]
            for found, wanted in zip(sums, getattr(expected, kind), strict=True):
                assert torch.allclose(found, wanted, rtol=1e-12)


def test_more_processes_than_rows_leave_some_without_work() -> None:
    problem = testing.world(held_out=1)
    assert problem.held_out is not None
    assert problem.head is not None
    sent: list[torch.Tensor] = []

    class Recorder(World):
        def add(self, tensor: torch.Tensor) -> torch.Tensor:
            sent.append(tensor)
            return tensor

    (sums,) = sums_of([problem.head], problem.held_out, Recorder(0, 100))
    assert not sums.correct.any()
    assert len(sent) == len(Tally._fields) + len(Moments._fields) + 1
    assert all(not tensor.any() for tensor in sent)


def record_of(text: str, **more) -> Record:
    """The record of a spec fitted and measured on a small world."""
    problem, spec = testing.world(), Spec.parse(text)
    rows = problem.held_out
    assert rows is not None
    ((head, seconds),) = fit_specs(problem, [spec], 4).values()
    settings = {"role": "recipe", "data": "world", "seed": 4, "seconds": seconds, **more}
    return make_record(spec, measure(head, rows), train=problem.train, rows=rows, **settings)


def test_records_say_what_the_numbers_depend_on() -> None:
    problem, record = testing.world(), record_of("los(delta=0.9,epochs=2)")
    assert problem.held_out is not None
    assert record.method == "los(delta=0.9,epochs=2)"
    (settings,) = record.settings
    assert (settings["delta"], settings["epochs"], settings["lr"]) == (0.9, 2, 0.03)
    assert (settings["start"], settings["sampler"]) == ("stage1", "instance")
    assert (record.train, record.test, record.seed) == (problem.train.key, problem.held_out.key, 4)
    assert (record.role, record.data, record.selection, record.remarks) == ("recipe", "world", None, ())
    assert set(record.versions) == {"python", "poise", "torch", "numpy"}
    assert (record.implied_prior, record.transductive) == (None, False)


def test_records_of_a_chain_hold_the_settings_of_every_step() -> None:
    first, second = record_of("crt(epochs=2)+tau_norm(tau=0.5)").settings
    assert (first["epochs"], second) == (2, {"tau": 0.5, "bias": "drop"})


@pytest.mark.parametrize("name", methods.METHODS)
def test_records_of_every_method_are_plain_json(name) -> None:
    short = {"epochs": 1} if methods.is_trained(name) else {}
    selection = Selection(
        rule="held_out", rows=20, key="k", metric="balanced_accuracy", configurations=4, score=0.5, chosen=("a", "b")
    )
    record = record_of(str(Spec(name, short)), selection=selection, role="tuned", remarks=["a remark"])
    found = json.loads(json.dumps(record.to_dict(), allow_nan=False))
    assert found["method"] == record.method
    assert found["scores"] == record.scores.to_dict()
    assert found["selection"]["chosen"] == ["a", "b"]
    assert found["remarks"] == ["a remark"]
    assert str(selection) == "held_out (20 rows, 4 settings)"


def test_warnings_of_a_fit_become_remarks_each_once_and_reach_nobody_else() -> None:
    problem = testing.world()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with remarks_of() as remarks:
            fit_specs(problem, [Spec("ce", lr=1e30, epochs=2), Spec("crt", lr=1e30, epochs=2)])
            for _ in range(2):
                warnings.warn("the same again", UserWarning, stacklevel=1)
    assert sum("diverged" in remark for remark in remarks) >= 1
    assert remarks.count("the same again") == 1
    assert len(set(remarks)) == len(remarks)


def test_an_error_passes_through_the_collection_of_remarks() -> None:
    with pytest.raises(InputError, match="no method is called"), remarks_of():
        methods.from_spec("nothing")


@pytest.mark.parametrize("name", bundled.DEMO_SETS)
def test_a_shipped_set_has_the_published_counts_and_groups(name: str) -> None:
    demo = bundled.load_demo(name)
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
    demo = bundled.load_demo()
    assert demo.problem.head is not None
    assert demo.problem.held_out is not None
    splits: dict[str, Features] = {"train": demo.problem.train, "held_out": demo.problem.held_out, "test": demo.test}
    accuracy = {name: measure(demo.problem.head, split).scores.accuracy for name, split in splits.items()}
    assert accuracy == {
        "train": pytest.approx(0.959, abs=5e-4),
        "held_out": pytest.approx(0.447, abs=5e-4),
        "test": 0.4410,
    }


def test_an_unknown_shipped_set_is_named() -> None:
    with pytest.raises(InputError, match="'mnist'"):
        bundled.load_demo("mnist")


def test_memorised_rows_may_not_calibrate() -> None:
    demo = bundled.load_demo()
    problem = Problem(demo.problem.train, demo.problem.head, replace(demo.problem.train, x=demo.problem.train.x))
    with pytest.raises(InputError, match="trained the representation"):
        methods.build("temperature")(problem)
