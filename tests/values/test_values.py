"""The values: class counts, features, heads and their files, problems, specs, and atomic writing."""

import json
import keyword
import pickle
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from poise.errors import InputError
from poise.machine.atomic import write_atomically
from poise.machine.folders import replacing_folder
from poise.results.scores import Scores
from poise.values.arrays import row_slices
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head, Prep
from poise.values.problem import Problem
from poise.values.spec import Spec

INF = float("inf")


def random(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def some_head(*leading, classes=4, dim=3, prep=None, seed=0, dtype=torch.float32):
    """Random heads (..., C, D)."""
    return Head(
        random(*leading, classes, dim, seed=seed, dtype=dtype),
        random(*leading, classes, seed=seed + 1, dtype=dtype),
        prep,
    )


def some_features(*, rows=6, dim=3, views=1, counts=(3, 2, 1, 0), seen=None, dtype=torch.float32):
    return Features(
        random(views, rows, dim, dtype=dtype), torch.arange(rows) % 3, ClassCounts(torch.tensor(counts)), seen
    )


# --- ClassCounts -----------------------------------------------------------------------------------------------------


def test_counts_are_int64_whatever_they_were_given_as():
    for given_as in ([3, 1, 0], torch.tensor([3.0, 1.0, 0.0]), np.array([3, 1, 0], dtype=np.int32), (3, 1, 0)):
        counts = ClassCounts(given_as)
        assert counts.n.dtype == torch.int64
        assert counts.n.tolist() == [3, 1, 0]
        assert len(counts) == 3


def test_formulas_see_empty_classes_as_one_row():
    counts = ClassCounts(torch.tensor([6, 0, 1]))
    assert counts.clamped.tolist() == [6.0, 1.0, 1.0]
    assert counts.prior.tolist() == pytest.approx([6 / 8, 1 / 8, 1 / 8], rel=1e-15)
    assert counts.imbalance == 6.0
    assert counts.prior.dtype == counts.clamped.dtype == torch.float64


def test_groups_split_at_more_than_100_and_fewer_than_20():
    shots = ClassCounts(torch.tensor([101, 100, 20, 19, 0])).shots()
    assert shots["many"].tolist() == [True, False, False, False, False]
    assert shots["medium"].tolist() == [False, True, True, False, False]
    assert shots["few"].tolist() == [False, False, False, True, True]
    assert list(shots) == ["many", "medium", "few"]


@given(st.lists(st.integers(0, 300), min_size=2, max_size=40).filter(any), st.integers(0, 200), st.integers(0, 200))
@settings(deadline=None, max_examples=50)
def test_every_class_is_in_exactly_one_group(n, many, few):
    few = min(few, many + 1)
    masks = torch.stack(list(ClassCounts(torch.tensor(n)).shots(many, few).values()))
    assert (masks.sum(dim=0) == 1).all()


def test_overlapping_groups_are_refused_with_their_edges():
    with pytest.raises(InputError, match="many=10, few=12"):
        ClassCounts(torch.tensor([3, 1])).shots(many=10, few=12)


def test_labels_are_counted_and_trailing_classes_kept():
    assert ClassCounts.from_labels([0, 2, 2, 0, 2]).n.tolist() == [2, 0, 3]
    assert ClassCounts.from_labels(torch.tensor([0, 2, 2]), 5).n.tolist() == [1, 0, 2, 0, 0]
    assert ClassCounts.from_labels(torch.tensor([1, 0], dtype=torch.uint8)).n.tolist() == [1, 1]


REFUSED_COUNTS = {
    "one class": (lambda: ClassCounts([3]), ("at least 2 classes", "(1,)")),
    "a matrix": (lambda: ClassCounts([[3, 1]]), ("(1, 2)",)),
    "negative": (lambda: ClassCounts([3, 4, -2]), ("class 2", "-2")),
    "fractions": (lambda: ClassCounts([3.0, 1.5]), ("fractions",)),
    "nan": (lambda: ClassCounts([3.0, float("nan")]), ("fractions",)),
    "all zero": (lambda: ClassCounts([0, 0]), ("all class counts are 0", "training split")),
    "float labels": (lambda: ClassCounts.from_labels(torch.tensor([0.0, 1.0])), ("float32", ".long()")),
    "boolean labels": (lambda: ClassCounts.from_labels(torch.tensor([True, False])), ("bool",)),
    "label matrix": (lambda: ClassCounts.from_labels(torch.zeros(2, 2).long()), ("(2, 2)",)),
    "label too large": (lambda: ClassCounts.from_labels([0, 1, 5], 3), ("row 2", "label 5", "below 3")),
    "negative label": (lambda: ClassCounts.from_labels([0, -1]), ("row 1", "label -1", "0 or more")),
}


@pytest.mark.parametrize(("call", "fragments"), REFUSED_COUNTS.values(), ids=REFUSED_COUNTS.keys())
def test_impossible_counts_are_refused_with_the_place_and_the_value(call, fragments):
    with pytest.raises(InputError) as refused:
        call()
    assert all(fragment in str(refused.value) for fragment in fragments)


# --- Features --------------------------------------------------------------------------------------------------------


def test_a_single_view_gets_a_view_dimension():
    features = Features(random(6, 3), torch.arange(6) % 2, [3, 3])
    assert features.x.shape == (1, 6, 3)
    assert features.dim == 3
    assert len(features) == 6
    assert isinstance(features.counts, ClassCounts)


def test_heads_train_on_the_views_after_the_first():
    assert torch.equal(some_features(views=1).training_views, some_features(views=1).x)
    three = some_features(views=3)
    assert torch.equal(three.training_views, three.x[1:])


def test_arithmetic_is_double_only_for_double_rows():
    kinds = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float32: torch.float32}
    assert all(some_features(dtype=stored).dtype == computed for stored, computed in kinds.items())
    assert some_features(dtype=torch.float64).dtype == torch.float64


def test_taking_rows_keeps_views_labels_and_training_counts():
    features = replace(some_features(views=2, seen=True), class_names=("a", "b", "c", "d"))
    part = features.take(torch.tensor([4, 1]))
    assert torch.equal(part.x, features.x[:, [4, 1]])
    assert part.y.tolist() == [1, 1]
    assert part.counts is features.counts
    assert part.seen_by_backbone is True
    assert part.class_names == ("a", "b", "c", "d")


def test_the_key_changes_with_values_labels_counts_shape_and_type():
    features = some_features()
    y, x = features.y.clone(), features.x.clone()
    y[0] = 2
    x[0, 5, 2] += 1
    others = [
        replace(features, x=x),
        replace(features, y=y),
        replace(features, counts=ClassCounts(torch.tensor([3, 2, 1, 1]))),
        replace(features, x=features.x.double()),
        replace(features, x=features.x.reshape(1, 6, 3).expand(2, 6, 3)),
    ]
    keys = {features.key, *(other.key for other in others)}
    assert len(keys) == 6
    assert replace(features, x=features.x.clone()).key == features.key
    assert replace(features, x=features.x.transpose(1, 2).contiguous().transpose(1, 2)).key == features.key
    assert len(features.key) == 16


def with_bad_value(value, view=1, row=4):
    x = random(2, 6, 3)
    x[view, row, 2] = value
    return lambda: Features(x, torch.arange(6) % 2, [3, 3])


REFUSED_FEATURES = {
    "nan": (with_bad_value(float("nan")), ("row 4 of view 1", "NaN")),
    "infinity": (with_bad_value(-INF, view=0, row=2), ("row 2 of view 0", "infinity")),
    "integers": (lambda: Features(torch.ones(6, 3).long(), torch.arange(6) % 2, [3, 3]), ("floating-point", "int64")),
    "one dimension": (lambda: Features(torch.ones(6), torch.arange(6) % 2, [3, 3]), ("(6,)",)),
    "too few labels": (lambda: Features(random(6, 3), torch.arange(5) % 2, [3, 3]), ("6 rows", "labels 5")),
    "no row": (lambda: Features(random(0, 3), torch.arange(0), [3, 3]), ("0 rows", "at least 1")),
    "label": (lambda: Features(random(6, 3), torch.tensor([0, 1, 0, 2, 0, 0]), [3, 3]), ("row 3", "label 2")),
    "names": (
        lambda: Features(random(6, 3), torch.arange(6) % 2, [3, 3], class_names=("a",)),
        ("1 class names", "2 classes"),
    ),
}


@pytest.mark.parametrize(("call", "fragments"), REFUSED_FEATURES.values(), ids=REFUSED_FEATURES.keys())
def test_unusable_features_are_refused_with_the_row(call, fragments):
    with pytest.raises(InputError) as refused:
        call()
    assert all(fragment in str(refused.value) for fragment in fragments)


def test_slices_hold_all_rows_in_order_and_each_at_least_one():
    assert list(row_slices(2, 7, 2)) == [slice(2, 4), slice(4, 6), slice(6, 7)]
    assert list(row_slices(0, 2, 0)) == [slice(0, 1), slice(1, 2)]  # a row that is larger than what is read at a time
    assert list(row_slices(3, 3, 5)) == []


def test_values_cannot_be_changed():
    for value, field in ((some_features(), "x"), (some_head(), "bias"), (ClassCounts([1, 2]), "n"), (Prep(), "unit")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, field, None)


# --- Head ------------------------------------------------------------------------------------------------------------

PREPS = {
    "none": None,
    "centre": Prep(random(3, seed=9)),
    "unit": Prep(unit=True),
    "both": Prep(random(3, seed=9), unit=True),
    "nothing": Prep(),
}
each_prep = pytest.mark.parametrize("prep", PREPS.values(), ids=PREPS.keys())


def naive_logits(head, x):
    """Logits of one head, one number at a time."""
    found = []
    for row in x:
        f = row if head.prep is None or head.prep.centre is None else row - head.prep.centre
        f = f / f.norm() if head.prep is not None and head.prep.unit else f
        found.append([sum(head.weight[k, d] * f[d] for d in range(3)) + head.bias[k] for k in range(4)])
    return torch.tensor(found)


@each_prep
def test_a_head_computes_weight_times_prepared_features_plus_bias(prep):
    head, x = some_head(prep=prep), random(5, 3, seed=4)
    assert torch.allclose(head(x), naive_logits(head, x), rtol=0, atol=1e-6)  # float32 sums in another order


@each_prep
def test_logits_of_some_rows_are_some_rows_of_the_logits(prep):
    head, x = some_head(prep=prep, dtype=torch.float64), random(20, 3, seed=4, dtype=torch.float64)
    rows = torch.tensor([3, 17, 3])
    assert torch.allclose(head(x[rows]), head(x)[rows], rtol=0, atol=1e-14)


@each_prep
def test_a_stack_of_heads_computes_all_of_them(prep):
    heads, x = some_head(2, 3, prep=prep), random(5, 3, seed=4)
    assert heads(x).shape == (2, 3, 5, 4)
    assert (heads.classes, heads.dim) == (4, 3)
    for i in range(2):
        for j in range(3):
            assert torch.allclose(heads(x)[i, j], heads[i][j](x), rtol=0, atol=1e-6)  # other matrix products, float32
    assert torch.equal(heads[1:].weight, heads.weight[1:])
    assert torch.equal(heads[-1].bias, heads.bias[-1])
    assert heads[0].prep is prep


def test_one_head_cannot_be_indexed():
    with pytest.raises(IndexError, match="one head"):
        some_head()[0]


def test_logits_have_the_type_of_the_weight():
    assert some_head()(random(5, 3, dtype=torch.float64)).dtype == torch.float32
    assert some_head(dtype=torch.float64)(random(5, 3, dtype=torch.float16)).dtype == torch.float64


def test_zero_rows_stay_zero_under_unit_norm():
    head = some_head(prep=Prep(unit=True))
    assert torch.equal(head(torch.zeros(2, 3)), head.bias.expand(2, 4))


@each_prep
@pytest.mark.parametrize("factor", [0.1, torch.tensor([1.0, 0.1, -1.0, 0.0]).double()], ids=["number", "per class"])
def test_scaling_a_head_scales_its_logits(prep, factor):
    head, x = some_head(prep=prep, dtype=torch.float64), random(5, 3, seed=4)
    assert torch.allclose(head.scaled(factor)(x), head(x) * factor, rtol=0, atol=1e-13)


@each_prep
@pytest.mark.parametrize("delta", [0.1, torch.tensor([1.0, 0.1, -1.0, 0.0]).double()], ids=["number", "per class"])
def test_shifting_a_head_shifts_its_logits(prep, delta):
    head, x = some_head(prep=prep, dtype=torch.float64), random(5, 3, seed=4)
    assert torch.allclose(head.shifted(delta)(x), head(x) + delta, rtol=0, atol=1e-13)


def test_scaling_and_shifting_act_on_stacks_and_leave_the_original():
    heads, x = some_head(2, dtype=torch.float64), random(5, 3)
    before = heads.bias.clone()
    per_class = torch.tensor([1.0, 2.0, -1.0, 0.5])
    assert torch.allclose(
        heads.scaled(per_class).shifted(per_class)(x), heads(x) * per_class + per_class, rtol=0, atol=1e-13
    )
    assert torch.equal(heads.bias, before)


@pytest.mark.parametrize("name", ["none", "centre", "nothing"])
def test_folding_gives_the_same_logits_without_prep(name):
    for leading in ((), (2,)):
        head, x = some_head(*leading, prep=PREPS[name], dtype=torch.float64), random(5, 3, dtype=torch.float64)
        assert head.folded().prep is None
        assert torch.allclose(head.folded()(x), head(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["unit", "both"])
def test_unit_norm_cannot_be_folded(name):
    with pytest.raises(InputError, match="divides each feature row by its norm"):
        some_head(prep=PREPS[name]).folded()


@each_prep
def test_conversion_reaches_every_tensor(prep):
    head = some_head(prep=prep).to(torch.float64)
    assert head.weight.dtype == head.bias.dtype == torch.float64
    if prep is not None and prep.centre is not None:
        assert head.prep.centre.dtype == torch.float64
    assert torch.allclose(head(random(5, 3)), some_head(prep=prep)(random(5, 3)).double(), rtol=0, atol=1e-6)


def test_shapes_that_do_not_fit_are_refused_with_both():
    with pytest.raises(InputError, match=r"\(4, 3\) and \(3,\)"):
        Head(torch.zeros(4, 3), torch.zeros(3))
    with pytest.raises(InputError, match="reads 3 features per row, these rows have 5"):
        some_head()(torch.zeros(2, 5))


# --- head files ------------------------------------------------------------------------------------------------------


def same_bits(a, b):
    return a is b is None or (a.dtype == b.dtype and torch.equal(a.view(torch.uint8), b.view(torch.uint8)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@each_prep
def test_a_saved_head_is_read_back_bit_for_bit(tmp_path, prep, dtype):
    head = some_head(prep=prep, dtype=dtype)
    path = head.save(tmp_path / "new folder" / "head.safetensors", metadata={"spec": "los"})
    read = Head.load(path)
    assert same_bits(read.weight, head.weight)
    assert same_bits(read.bias, head.bias)
    before, after = head.prep or Prep(), read.prep or Prep()
    assert after.unit == before.unit
    assert same_bits(after.centre, before.centre)


def test_stacks_and_strided_heads_are_saved_too(tmp_path):
    rows = random(2, 4, 5)
    head = Head(rows[..., :-2], rows[..., -1])
    read = Head.load(head.save(tmp_path / "heads.safetensors"))
    assert torch.equal(read.weight, head.weight)
    assert torch.equal(read.bias, head.bias)


def test_special_values_survive_saving(tmp_path):
    head = Head(torch.tensor([[3e38, -0.0], [1e-38, 1e-45]]), torch.tensor([-3e38, 0.0]))
    assert same_bits(Head.load(head.save(tmp_path / "h")).weight, head.weight)


def test_metadata_cannot_make_a_head_unreadable(tmp_path):
    head = some_head(prep=Prep(unit=True))
    read = Head.load(head.save(tmp_path / "h", metadata={"format": "pt", "unit": "false", "schema": "9"}))
    assert read.prep.unit


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def wrong_file(path, kind):
    """Write something at `path` that is no readable head."""
    whole = some_head().save(path).read_bytes()
    contents = {
        "empty": b"",
        "truncated header": whole[:20],
        "truncated tensors": whole[:-4],
        "text": b"not a head at all, but long enough to have a header length",
        "pickle": pickle.dumps(_Bomb()),
    }
    if kind == "missing":
        path.unlink()
    elif kind == "a folder":
        path.unlink()
        path.mkdir()
    elif kind == "torch pickle":
        torch.save({"weight": torch.zeros(4, 3), "bias": _Bomb()}, path)
    else:
        path.write_bytes(contents[kind])


@pytest.mark.parametrize(
    "kind",
    [
        "a folder",
        "empty",
        "missing",
        "pickle",
        "text",
        "torch pickle",
        "truncated header",
        "truncated tensors",
    ],
)
def test_files_that_are_no_head_are_refused_by_name_and_never_unpickled(tmp_path, kind):
    path = tmp_path / "head.safetensors"
    wrong_file(path, kind)
    said = {"a folder": "is a folder, not a file", "missing": "cannot be read: No such file"}
    with pytest.raises(InputError, match=said.get(kind, "cannot be read as a head")) as refused:
        Head.load(path)
    assert str(path) in str(refused.value)


def test_other_safetensors_files_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(4, 3), "bias": torch.zeros(4)}, path)
    with pytest.raises(InputError, match="no head saved by Poise"):
        Head.load(path)


def test_a_newer_schema_is_refused_with_both_numbers(tmp_path):
    path = tmp_path / "head.safetensors"
    header = {"format": "poise.head", "schema": "99", "unit": "false"}
    save_file({"weight": torch.zeros(4, 3), "bias": torch.zeros(4)}, path, metadata=header)
    with pytest.raises(InputError, match=r"schema 99, this version reads up to 1; update poise"):
        Head.load(path)


# --- Problem and Scores ----------------------------------------------------------------------------------------------


def test_a_problem_takes_parts_that_fit():
    problem = Problem(some_features(), some_head(), some_features(seen=False))
    assert problem.head.classes == len(problem.train.counts)


MISFITS = {
    "head classes": (lambda: Problem(some_features(), some_head(classes=5)), ("5 classes and 3 features", "4 and 3")),
    "head dim": (lambda: Problem(some_features(), some_head(dim=2)), ("4 classes and 2 features", "4 and 3")),
    "held-out classes": (
        lambda: Problem(some_features(), None, some_features(counts=(3, 2, 1))),
        ("held-out", "3 classes and 3 features", "4 and 3"),
    ),
    "held-out dim": (
        lambda: Problem(some_features(), None, some_features(dim=7)),
        ("held-out", "4 classes and 7 features", "4 and 3"),
    ),
}


@pytest.mark.parametrize(("call", "fragments"), MISFITS.values(), ids=MISFITS.keys())
def test_a_problem_refuses_parts_that_do_not_fit(call, fragments):
    with pytest.raises(InputError) as refused:
        call()
    assert all(fragment in str(refused.value) for fragment in fragments)


def test_scores_become_plain_json():
    scores = Scores(0.5, 0.4, 0.6, None, 0.1, 0.3, 1.2, 0.05, (0.5, None), 10)
    data = json.loads(json.dumps(scores.to_dict()))
    assert data["per_class"] == [0.5, None]
    assert Scores(**{**data, "per_class": tuple(data["per_class"])}) == scores


# --- Spec ------------------------------------------------------------------------------------------------------------

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: not keyword.iskeyword(name))
LITERALS = st.recursive(
    st.one_of(
        st.booleans(), st.integers(-(10**20), 10**20), st.floats(allow_nan=False), st.text(max_size=8), st.none()
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)
STEPS = st.builds(Spec, NAMES, st.dictionaries(NAMES, LITERALS, max_size=4))
SPECS = st.lists(STEPS, min_size=1, max_size=3).map(lambda steps: sum(steps[1:], start=steps[0]))


def exactly(value):
    """The value with its types, so that True, 1 and 1.0 differ."""
    return repr([(step.name, step.params) for step in value.steps])


@given(SPECS)
@example(Spec("a", x=INF, y=-INF))
@example(Spec("a", x=(INF, (1.0, -INF))))
@example(Spec("a", x="inf 'quoted' \"twice\" \\ \n + (b)"))
@example(Spec("a", x=()) + Spec("b", y=(1,)))
@example(Spec("a", x=-0.0, y=1e-320, z=123456789012345678901234567890))
@settings(deadline=None, max_examples=200)
def test_a_spec_survives_text_json_and_pickle(spec):
    for copy in (
        Spec.parse(str(spec)),
        Spec.parse(f"  {spec} "),
        Spec.from_json(spec.to_json()),
        Spec.from_json(json.dumps(spec.to_json())),
        pickle.loads(pickle.dumps(spec)),
    ):
        assert copy == spec
        assert hash(copy) == hash(spec)
        assert exactly(copy) == exactly(spec)
        assert str(copy) == str(spec)


def test_numbers_of_numpy_survive_text():
    spec = Spec("los", delta=np.linspace(0, 1, 5)[1])
    assert str(spec) == "los(delta=0.25)"
    assert Spec.parse(str(spec)) == spec


def test_the_text_form_is_what_the_documentation_shows():
    assert str(Spec("los", delta=0.98, lr=5e-05)) == "los(delta=0.98,lr=5e-05)"
    assert str(Spec("los", lr=5e-05, delta=0.98)) == "los(delta=0.98,lr=5e-05)"
    assert str(Spec("stage1")) == repr(Spec("stage1")) == "stage1"
    assert str(Spec("crt") + Spec("tau_norm", tau=0.5)) == "crt+tau_norm(tau=0.5)"


def test_equality_is_that_of_names_values_and_order():
    assert Spec("los", {"delta": 0.5}, lr=1) == Spec("los", (("lr", 1), ("delta", 0.5)))
    assert Spec("los", milestones=[1, [2]]) == Spec("los", milestones=(1, (2,)))
    different = [Spec("a"), Spec("b"), Spec("a", x=1), Spec("a", x=2), Spec("a", y=1), Spec("a") + Spec("b")]
    different += [Spec("b") + Spec("a"), Spec("a") + Spec("b") + Spec("a")]
    assert len(set(different)) == len(different)
    assert Spec("a") != "a"


def test_chains_associate_and_list_their_steps():
    a, b, c = Spec("a", x=1), Spec("b"), Spec("c", y="z")
    chain = a + b + c
    assert chain == a + (b + c)
    assert hash(chain) == hash(a + (b + c))
    assert chain.steps == (a, b, c)
    assert a.then is None  # the parts are unchanged
    assert a.steps == (a,)


def test_a_spec_cannot_be_changed():
    with pytest.raises(AttributeError, match="make a new one"):
        Spec("a").name = "b"


REFUSED_SPECS = {
    "name": (lambda: Spec("los-2"), ("'los-2'", "identifier")),
    "keyword as name": (lambda: Spec("lambda"), ("'lambda'",)),
    "keyword as parameter": (lambda: Spec("gala", {"lambda": 1.0}), ("'lambda'",)),
    "parameter with a space": (lambda: Spec("gala", {"x y": 1.0}), ("'x y'",)),
    "nan": (lambda: Spec("a", x=float("nan")), ("parameter x", "nan")),
    "nan inside": (lambda: Spec("a", x=(1.0, (float("nan"),))), ("parameter x", "nan")),
    "tensor": (lambda: Spec("a", x=torch.ones(2)), ("parameter x", "tensor")),
    "dictionary": (lambda: Spec.parse("a(x={1: 2})"), ("parameter x", "{1: 2}")),
    **{
        f"text {text!r}": (lambda text=text: Spec.parse(text), ("cannot read the method", "name(key=value,...)"))
        for text in (
            "",
            "los(",
            "los(0.98)",
            "los(delta)",
            "los(delta=x)",
            "los(delta=1+2)",
            "los(delta=1,delta=2)",
            "los(**{'delta': 1})",
            "los(delta=nan)",
            "los - crt",
            "los + 3",
            "a.b(x=1)",
            "__import__('os').system('true')",
            "los(delta={[1]: 2})",
            "3",
        )
    },
    "empty list": (lambda: Spec.from_json([]), ()),
}


@pytest.mark.parametrize(("call", "fragments"), REFUSED_SPECS.values(), ids=REFUSED_SPECS.keys())
def test_what_is_no_spec_is_refused_with_the_offender(call, fragments):
    with pytest.raises(InputError) as refused:
        call()
    assert all(fragment in str(refused.value) for fragment in fragments)


# --- files -----------------------------------------------------------------------------------------------------------


def test_text_and_bytes_are_written_and_folders_made(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    assert write_atomically(path, "größer\n") == path
    assert path.read_bytes() == "größer\n".encode()
    write_atomically(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_written_files_are_readable_by_others(tmp_path):
    assert write_atomically(tmp_path / "file", "x").stat().st_mode & 0o777 == 0o644


def test_written_folders_are_readable_by_others_and_hold_nothing_of_what_they_replace(tmp_path):
    for name in ("old", "new"):
        with replacing_folder(tmp_path / "folder") as stage:
            (stage / name).write_text(name)
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def crash(*args):
    raise KeyboardInterrupt


@pytest.mark.parametrize("moment", ["replace", "chmod"])
def test_a_crash_before_the_rename_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, moment):
    path = write_atomically(tmp_path / "file", "old")
    monkeypatch.setattr(Path, moment, crash)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_crash_before_the_first_rename_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        some_head().save(tmp_path / "head.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_classes_without_names_are_called_by_their_numbers() -> None:
    rows = Features(torch.randn(3, 2), torch.tensor([0, 1, 1]), ClassCounts(torch.tensor([1, 2, 0])))
    assert rows.names == ("0", "1", "2")
    assert replace(rows, class_names=("a", "b", "c")).names == ("a", "b", "c")


def test_rows_are_the_same_if_their_content_is() -> None:
    rows = Features(torch.ones(3, 2), torch.tensor([0, 1, 1]), ClassCounts(torch.tensor([1, 2])))
    assert rows.same_rows(replace(rows, x=rows.x.clone()))
    assert not rows.same_rows(replace(rows, x=rows.x + 1))
    assert not rows.same_rows(rows.take(torch.tensor([0, 1])))


@pytest.mark.parametrize("prep", [None, Prep(torch.tensor([1.0, -2.0])), Prep(torch.tensor([1.0, -2.0]), unit=True)])
def test_a_rescaled_head_gives_scaled_features_the_same_logits(prep):
    head = Head(torch.tensor([[1.0, 2.0], [-1.0, 0.5]]), torch.tensor([0.5, -1.0]), prep)
    x = torch.tensor([[3.0, 1.0], [0.2, -0.7]])
    torch.testing.assert_close(head.rescaled(8.0)(8.0 * x), head(x))
