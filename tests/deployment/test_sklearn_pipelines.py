"""Pipelines as one head: the same probabilities on raw rows, or one sentence that names the step."""

import csv
import json
import warnings

import numpy as np
import pytest
import torch
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.random_projection import GaussianRandomProjection

from poise import LongTailClassifier
from poise.cli import main
from poise.deployment.folded_pipelines import fold_pipeline
from poise.deployment.model import load
from poise.errors import InputError

SIZES = (60, 25, 9)


def world(seed=0, classes=3, dim=6):
    """Rows of several sizes of numbers, far from zero, and their labels."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), SIZES[:classes])
    x = rng.normal(size=(len(y), dim)) + 2 * np.eye(classes, dim)[y]
    return x * [1, 20, 0.05, 3, 1, 7][:dim] + [0, 900, -4, 2, 1, 50][:dim], np.array(["ant", "cat", "bee"])[y]


def classifier(method="balanced_softmax", **more):
    return LongTailClassifier(method, **more)


def fitted(*steps, method="balanced_softmax", **more):
    x, y = world(**more)
    return make_pipeline(*steps, classifier(method)).fit(x, y)


def probabilities(model, x):
    return model.head(torch.tensor(x)).softmax(dim=-1).numpy()


def assert_same(pipeline, model, x, frame=None):
    assert np.allclose(probabilities(model, x), pipeline.predict_proba(x if frame is None else frame), atol=1e-6)


def refusal(act):
    with pytest.raises(InputError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


AFFINE = {
    "nothing": (),
    "passthrough": ("passthrough",),
    "standard": (StandardScaler(),),
    "centre": (StandardScaler(with_std=False),),
    "robust": (RobustScaler(),),
    "min_max": (MinMaxScaler((-1, 2)),),
    "max_abs": (MaxAbsScaler(),),
    "pca": (PCA(3),),
    "whitened": (StandardScaler(), PCA(4, whiten=True)),
    "svd": (TruncatedSVD(3, random_state=0),),
    "projection": (GaussianRandomProjection(4, random_state=0),),
    "selection": (StandardScaler(), SelectKBest(k=2)),
    "variance": (VarianceThreshold(0.5),),
    "imputer": (SimpleImputer(), StandardScaler()),
    "function": (FunctionTransformer(lambda x: 3 * x[:, ::-1] - 1), StandardScaler()),
    "columns": (make_column_transformer((StandardScaler(), [0, 3]), ("passthrough", [5, 1]), sparse_threshold=0),),
    "union": (FeatureUnion([("a", PCA(2)), ("b", StandardScaler())]),),
    "inner": (Pipeline([("a", StandardScaler()), ("b", PCA(4))]), MaxAbsScaler()),
}
UNIT = {
    "first": (Normalizer(),),
    "centred": (StandardScaler(with_std=False), Normalizer()),
    "alike": (FunctionTransformer(lambda x: x / 4), Normalizer(), StandardScaler()),
    "turned": (PCA(), Normalizer(), PCA(3)),
}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("steps", AFFINE.values(), ids=AFFINE)
def test_affine_steps_become_one_plain_head(steps, classes):
    pipeline = fitted(*steps, classes=classes)
    made = fold_pipeline(pipeline)
    assert made.head.prep is None
    assert made.head.weight.shape == (classes, 6)
    assert made.class_names == tuple(pipeline.classes_)
    assert_same(pipeline, made, world(seed=5, classes=classes)[0])


@pytest.mark.parametrize("steps", UNIT.values(), ids=UNIT)
def test_rows_that_are_normalised_first_are_normalised_by_the_head(steps):
    pipeline = fitted(*steps)
    made = fold_pipeline(pipeline)
    assert made.head.prep.unit
    assert_same(pipeline, made, world(seed=5)[0])


def test_a_normalizer_alone_needs_no_centre():
    assert fold_pipeline(fitted(Normalizer())).head.prep.centre is None


@pytest.mark.parametrize("transform", ["raw", "l2n", "cl2n"])
@pytest.mark.parametrize("steps", [(), (StandardScaler(with_std=False),), (PCA(),)], ids=["none", "centre", "pca"])
def test_heads_that_prepare_rows_fold_too(steps, transform):
    pipeline = fitted(*steps, method=f"ncm(transform='{transform}')")
    made = fold_pipeline(pipeline)
    assert (made.head.prep is not None) == (transform != "raw")
    assert_same(pipeline, made, world(seed=5)[0])


def test_columns_far_from_zero_keep_their_digits():
    x, y = world()
    x[:, 0] = 1.7e9 + 1e5 * x[:, 0]  # seconds since 1970
    pipeline = make_pipeline(StandardScaler(), PCA(4), classifier()).fit(x, y)
    assert_same(pipeline, fold_pipeline(pipeline), x)


def test_the_classifier_alone_is_its_own_model():
    x, y = world()
    alone = classifier().fit(x, y)
    made = fold_pipeline(alone)
    assert torch.allclose(made.head(torch.from_numpy(x)), alone.head_(torch.from_numpy(x)))


def test_rows_that_lie_backwards_in_memory_are_read():
    x, y = world()
    fresh, own = world(seed=1)
    alone = classifier("ncm").fit(x[:, ::-1], y, held_out=(fresh[::-1, ::-1], own[::-1]))
    assert np.array_equal(alone.predict_proba(x[:, ::-1]), alone.predict_proba(x[:, ::-1].copy()))


# --- refused ----------------------------------------------------------------------------------------------------------

BENT = {
    "log": FunctionTransformer(np.abs),
    "tanh": FunctionTransformer(np.tanh),
    "clip": MinMaxScaler(clip=True),
    "round": FunctionTransformer(np.round),
    "winsor": FunctionTransformer(lambda x: np.clip(x, -1e6, 1e6)),
    "power": PowerTransformer(),
    "quantile": QuantileTransformer(n_quantiles=20),
    "squares": PolynomialFeatures(2),
    "bins": KBinsDiscretizer(3, encode="ordinal", quantile_method="averaged_inverted_cdf"),
    "l1": Normalizer("l1"),
}


@pytest.mark.parametrize("step", BENT.values(), ids=BENT)
def test_the_first_step_that_is_not_affine_is_named(step):
    pipeline = Pipeline([("scale", StandardScaler()), ("bent", step), ("last", classifier("ncm"))]).fit(*world())
    assert refusal(lambda: fold_pipeline(pipeline)) == (
        f"the step 'bent' ({type(step).__name__}) is not affine, so that no linear head can take it in; leave it out, "
        "or apply it to the rows yourself and fold the rest of the pipeline"
    )


def test_an_inner_step_is_named_by_its_path():
    inner = Pipeline([("a", StandardScaler()), ("b", FunctionTransformer(np.tanh))])
    assert "the step 'pipeline.b' (FunctionTransformer) is" in refusal(lambda: fold_pipeline(fitted(inner)))


def test_a_step_that_takes_categories_is_named():
    x, y = world()
    x[:, 0] = np.round(x[:, 0])
    encode = ColumnTransformer([("kind", OneHotEncoder(), [0])], remainder="passthrough", sparse_threshold=0)
    said = refusal(lambda: fold_pipeline(make_pipeline(encode, classifier("ncm")).fit(x, y)))
    assert said.startswith("the step 'columntransformer' (ColumnTransformer) does not take any numbers (Found unknown")


@pytest.mark.parametrize(
    "steps", [(StandardScaler(), Normalizer()), (PCA(3), Normalizer()), (Normalizer(), StandardScaler(), Normalizer())]
)
def test_a_normalizer_after_uneven_scaling_is_refused(steps):
    assert refusal(lambda: fold_pipeline(fitted(*steps))).endswith(
        " (Normalizer) divides each row by its norm, and a head can do so only with the raw columns, all scaled alike; "
        "put it first, or leave it out"
    )


def test_a_normalising_head_after_uneven_scaling_is_refused():
    said = refusal(lambda: fold_pipeline(fitted(StandardScaler(), method="ncm(transform='l2n')")))
    assert said.startswith("the classifier (ncm(transform='l2n')) divides each row by its norm, and a head can do so ")


def test_what_is_no_fitted_pipeline_of_ours_is_refused():
    x, y = world()
    other = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    said = "a pipeline that is folded ends in LongTailClassifier, this one in {}; of a search, give its best_estimator_"
    assert refusal(lambda: fold_pipeline(other)) == said.format("LogisticRegression")
    search = GridSearchCV(
        make_pipeline(StandardScaler(), classifier("ncm")), {"standardscaler__with_std": [True]}, cv=2
    )
    assert refusal(lambda: fold_pipeline(search)) == said.format("GridSearchCV")
    assert refusal(lambda: fold_pipeline(make_pipeline(StandardScaler(), classifier()))) == (
        "the pipeline is not fitted; call fit first"
    )


# --- names and files --------------------------------------------------------------------------------------------------


def frame(seed=0):
    pandas = pytest.importorskip("pandas")
    x, y = world(seed)
    table = pandas.DataFrame(x, columns=list("abcdef"))
    table.insert(2, "town", "Ulm")
    return table, y


def named():
    table, y = frame()
    chosen = make_column_transformer((StandardScaler(), ["e", "b"]), ("passthrough", ["f"]), remainder="drop")
    return make_pipeline(chosen, PCA(2), classifier()).fit(table, y)


def test_named_columns_are_told_and_those_without_use_are_not_read():
    pipeline = named()
    made = fold_pipeline(pipeline)
    assert made.provenance["columns"] == ["b", "e", "f"]
    table, _ = frame(5)
    assert_same(pipeline, made, table[made.provenance["columns"]].to_numpy(), table)


def test_steps_that_make_data_frames_fold_too():
    table, y = frame()
    table = table.drop(columns="town")
    steps = (StandardScaler(with_std=False), Normalizer(), make_column_transformer(("passthrough", ["c", "a"])))
    pipeline = make_pipeline(*steps, classifier()).set_output(transform="pandas").fit(table, y)
    made = fold_pipeline(pipeline)
    assert made.provenance["columns"] == list("abcdef")
    other = frame(5)[0].drop(columns="town")
    assert_same(pipeline, made, other.to_numpy(), other)


def test_the_folder_and_its_export_predict_a_table_by_the_names_of_its_columns(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pipeline = named()
    fold_pipeline(pipeline).save("model")
    table, _ = frame(5)
    table[["f", "town", *"edcba"]].to_csv("rows.csv", index=False)
    for words in (
        ("check", "model"),
        ("predict", "model", "rows.csv", "--out", "folder.csv"),
        ("export", "model", "--onnx", "--out", "exported"),
        ("predict", "exported/model.onnx", "rows.csv", "--out", "onnx.csv"),
    ):
        with pytest.raises(SystemExit) as stop, warnings.catch_warnings():
            main(list(words))
        assert stop.value.code == 0, capsys.readouterr().err
    expected = pipeline.predict_proba(table)
    for file in ("folder.csv", "onnx.csv"):
        with (tmp_path / file).open(encoding="utf-8") as content:
            found = list(csv.DictReader(content))
        for k, name in enumerate(pipeline.classes_):
            assert np.allclose([float(row[f"p({name})"]) for row in found], expected[:, k], atol=1e-5)
        assert {row["town"] for row in found} == {"Ulm"}


def test_the_folder_comes_back_as_an_estimator_of_the_raw_columns(tmp_path):
    pipeline = fitted(StandardScaler(), PCA(3))
    folder = fold_pipeline(pipeline).save(tmp_path / "model")
    x = world(seed=5)[0]
    assert np.allclose(LongTailClassifier.load(folder).predict_proba(x), pipeline.predict_proba(x), atol=1e-6)
    told = json.loads((folder / "model.json").read_text())["provenance"]
    assert told["pipeline"] == ["standardscaler: StandardScaler", "pca: PCA"]
    assert load(folder).provenance["columns"] is None
