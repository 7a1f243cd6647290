"""`audit`: logits of any repository give the numbers that the library gives on the head they came from."""

import json

import numpy as np
import pytest
import torch

from poise.cli import main
from poise.data.logit_files import read_logits
from poise.diagnosis.compare import compare
from poise.errors import InputError, PoiseWarning
from poise.metrics import evaluate
from poise.priors import prior_shift
from poise.selection.audit import ADJUSTMENTS, audit, logit_problem
from poise.selection.rules import PLAIN
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from poise.values.problem import Problem

COUNTS = (300, 120, 60, 30, 12, 5)
NAMES = ("ant", "bee", "cat", "dog", "élan", "=fox, 'a'")
SCORES = ("accuracy", "balanced_accuracy", "many", "medium", "few", "ece", "nll", "macro_f1")


def rows(per_class, seed, dim=8):
    """Overlapping classes in float32, as a backbone would give them."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.repeat_interleave(torch.arange(len(per_class)), torch.tensor(per_class))
    return torch.randn(len(y), dim, generator=generator) + 1.5 * torch.eye(len(per_class), dim)[y], y


def trained_layer(x, y):
    """A stranger's training script: plain cross-entropy on a plain torch layer."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(x.shape[1], len(COUNTS))
    for _ in range(100):
        layer.zero_grad()
        torch.nn.functional.cross_entropy(layer(x), y).backward()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter -= 2.0 * parameter.grad
    return layer


class Repository:
    """Features, labels and a layer of one repository, and the logits that it would save."""

    def __init__(self):
        self.x, self.y = rows(COUNTS, 0)
        self.layer = trained_layer(self.x, self.y)
        self.test_x, self.test_y = rows((40,) * len(COUNTS), 1)
        self.val_x, self.val_y = rows((15,) * len(COUNTS), 2)

    def save(self, path, *, held_out):
        with torch.no_grad():
            arrays = {"logits": self.layer(self.test_x).numpy(), "labels": self.test_y.numpy()}
            if held_out:
                arrays |= {"val_logits": self.layer(self.val_x).numpy(), "val_labels": self.val_y.numpy()}
        np.savez(path, **arrays, counts=np.array(COUNTS), class_names=np.array(NAMES))
        return path

    def compared(self, *, held_out):
        """The same question asked of the library, with features and head."""
        counts = ClassCounts(torch.tensor(COUNTS))

        def split(x, y, seen):
            return Features(x, y, counts, seen_by_backbone=seen, class_names=NAMES)

        unseen = split(self.val_x, self.val_y, False) if held_out else None
        problem = Problem(split(self.x, self.y, True), Head(self.layer.weight, self.layer.bias), unseen)
        selection = "held_out" if held_out else "cross_fit"
        test = split(self.test_x, self.test_y, False)
        return compare(ADJUSTMENTS, problem, test, selection=selection, nulls=ADJUSTMENTS[:1])


@pytest.fixture(scope="module")
def repository():
    return Repository()


@pytest.mark.parametrize("held_out", [False, True], ids=["cross_fit", "held_out"])
def test_logits_give_the_numbers_of_the_head_they_came_from(repository, tmp_path, capsys, held_out):
    path = repository.save(tmp_path / "logits of a répo.npz", held_out=held_out)
    with pytest.raises(SystemExit) as stop:
        main(["audit", str(path), "--json", "--out", str(tmp_path / "out")])
    assert stop.value.code == 0
    found = json.loads(capsys.readouterr().out)["comparison"]
    expected = repository.compared(held_out=held_out).to_dict()
    assert found["protocol"] == ("held_out" if held_out else "cross_fit")
    # Logits come without training rows, so that no logistic regression stands beside them.
    wanted = {(row["family"], row["role"]): row for row in expected["table"] if row["family"] != str(PLAIN)}
    table = {(row["family"], row["role"]): row for row in found["table"]}
    assert set(table) == set(wanted)
    assert {family for family, _ in table} == {"stage1", "logit_adjustment", "rebalance", "temperature"}
    for key, row in table.items():
        assert row["method"] == wanted[key]["method"]
        for name in SCORES:
            # The layer and the head sum products in another order; nothing else differs.
            assert row[name] == pytest.approx(wanted[key][name], abs=1e-6), (key, name)
        assert row["gain"] == pytest.approx(wanted[key]["gain"], abs=1e-6)
    assert found["decision"] == expected["decision"]
    assert found["recommended"] == expected["recommended"]
    assert found["gain"]["images"] == pytest.approx(expected["gain"]["images"], abs=1e-6)


def test_scores_as_given_are_those_of_the_logits(repository, tmp_path):
    read = read_logits(repository.save(tmp_path / "logits.npz", held_out=False))
    found = audit(read.logits, read.y, read.counts, class_names=read.class_names)
    assert found.scores == evaluate(read.logits, read.y, read.counts)
    baseline = next(row for row in found.comparison.table() if row["role"] == "baseline")
    assert baseline["balanced_accuracy"] == pytest.approx(found.scores.balanced_accuracy, abs=1e-12)


def test_the_path_of_logit_adjustment_holds_the_scores_of_every_strength(repository, tmp_path):
    read = read_logits(repository.save(tmp_path / "logits.npz", held_out=False))
    found = audit(read.logits, read.y, read.counts, budget=3)
    assert [point["method"] for point in found.paths["logit_adjustment"]] == [
        "logit_adjustment(tau=0.0)",
        "logit_adjustment(tau=1.0)",
        "logit_adjustment(tau=1.875)",
    ]
    log_prior = read.counts.prior.log().float()
    for tau, point in zip((0.0, 1.0, 1.875), found.paths["logit_adjustment"], strict=True):
        by_hand = evaluate(read.logits - tau * log_prior, read.y, read.counts)
        assert point["balanced_accuracy"] == pytest.approx(by_hand.balanced_accuracy, abs=1e-12)
        assert point["nll"] == pytest.approx(by_hand.nll, abs=1e-5)


def test_the_sweep_at_the_uniform_prior_is_the_balanced_accuracy_of_full_logit_adjustment(repository, tmp_path):
    read = read_logits(repository.save(tmp_path / "logits.npz", held_out=False))
    found = audit(read.logits, read.y, read.counts).sweep
    uniform = torch.full((len(COUNTS),), 1 / len(COUNTS))
    shifted = read.logits.double() + prior_shift(read.counts.prior, uniform)
    by_hand = evaluate(shifted, read.y, read.counts).balanced_accuracy
    assert float(found.accuracy[found.exponents == 0.0]) == pytest.approx(by_hand, abs=1e-12)


def test_a_class_without_training_and_test_rows_has_no_score_and_breaks_nothing():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]).repeat(10, 1) + torch.linspace(0, 1, 20)[:, None] * 0.1
    with pytest.warns(PoiseWarning, match=r"1 of 3 classes have no test row \(2\); their recall is n/a"):
        found = audit(logits, torch.tensor([0, 1] * 10), [30, 10, 0])
    assert found.scores.per_class == (1.0, 1.0, None)
    assert found.scores.balanced_accuracy == 1.0
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["scores"]["few"] == 1.0


def test_the_problem_of_logits_has_the_identity_as_its_head():
    problem = logit_problem(ClassCounts(torch.tensor([5, 0, 2])), dtype=torch.float64)
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(problem.head(z), z)
    assert problem.train.counts.n.tolist() == [5, 0, 2]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"y": torch.zeros(3, dtype=torch.int64)}, "features have 4 rows and labels 3; both need the same number"),
        ({"y": torch.tensor([0, 1, 2, 7])}, "row 3 has label 7; labels are 0 or more and below 3"),
        ({"logits": torch.full((4, 3), torch.nan)}, "feature row 0 of view 0 holds NaN or infinity"),
        ({"counts": [5, 5]}, "row 2 has label 2; labels are 0 or more and below 2"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, sentence):
    given = {"logits": torch.eye(4, 3), "y": torch.tensor([0, 1, 2, 0]), "counts": [5, 5, 5], **change}
    with pytest.raises(InputError, match=sentence):
        audit(given["logits"], given["y"], given["counts"])
