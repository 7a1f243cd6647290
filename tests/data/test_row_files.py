"""Readers: all formats agree bit for bit, and every fault of a file is one sentence that names the place."""

import csv
import gzip
import io
import json
import pickle
import sys
import time
import warnings
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import poise
from poise.data.logit_files import read_logits
from poise.data.row_files import load_features, read_features, read_rows
from poise.data.store.feature_store import save_features
from poise.errors import InputError, MissingExtraError, PoiseWarning
from poise.values.counts import ClassCounts

GOOD = "f0,f1,label\n0.5,1,cat\n-2,3e-1,dog\n7,8,cat\n"


def written(path, text):
    """A file with this text or these bytes, exactly."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(read, *args, **kwargs):
    """The one sentence of a refusal."""
    with pytest.raises(InputError) as caught:
        read(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def to_csv(x, y, delimiter=","):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow([*(f"f{i}" for i in range(x.shape[1])), "label"])
    writer.writerows([*map(str, row), label] for row, label in zip(x, y, strict=True))
    return text.getvalue()


def to_parquet(path, **columns):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(pa.table(columns), path)
    return path


# --- all formats agree ------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(data=st.data(), rows=st.integers(2, 8), dim=st.integers(1, 4), words=st.booleans())
def test_every_format_gives_the_same_features_bit_for_bit(tmp_path_factory, data, rows, dim, words):
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    cells = data.draw(st.lists(finite, min_size=rows * dim, max_size=rows * dim, unique=True))
    x = np.array(cells, dtype=np.float32).reshape(rows, dim)
    names = st.text(st.characters(codec="utf-8", categories=["L", "P", "S"]), min_size=1, max_size=5)
    names = names.filter(lambda name: not any(c.isdigit() for c in name) and name.lower() != "nan")
    pool = data.draw(st.lists(names, min_size=2, max_size=3, unique=True)) if words else [0, 1, 2]
    labels = [pool[i % len(pool)] for i in range(rows)]
    y = np.array(labels)

    folder = tmp_path_factory.mktemp("formats")
    written(folder / "a.csv", to_csv(x, labels))
    written(folder / "a.tsv", to_csv(x, labels, "\t"))
    columns = {f"f{i}": x[:, i] for i in range(dim)}
    to_parquet(folder / "a.parquet", **columns, label=labels)
    to_parquet(folder / "list.parquet", embedding=list(x), label=labels)
    np.savez(folder / "a.npz", x=x, y=y)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    reference = read_features(folder / "a.npz").features
    save_features(reference, folder / "store")
    own = {k: torch.from_numpy(v) for k, v in (("x", x), ("y", reference.y.numpy()))}
    metadata = {"class_names": json.dumps(reference.class_names)} if words else None
    save_file(own, folder / "a.safetensors", metadata)

    assert reference.x.dtype == torch.float32
    assert reference.x[0].numpy().tobytes() == x.tobytes()
    assert [sorted(set(labels))[k] for k in reference.y] == labels
    for name in ("a.csv", "a.tsv", "a.parquet", "list.parquet", "a.safetensors", "store"):
        features = load_features(folder / name)
        assert (features.key, features.class_names) == (reference.key, reference.class_names), name
    paired = read_features(folder / "x.npy", labels=folder / "y.npy").features
    assert (paired.key, paired.class_names) == (reference.key, reference.class_names)
    for name in ("a.csv", "a.tsv", "a.parquet", "list.parquet", "a.npz", "x.npy", "a.safetensors", "store"):
        assert read_rows(folder / name).x.numpy().tobytes() == x.tobytes()


def test_the_public_name_reads_folders_and_files(tmp_path):
    features = poise.load_features(written(tmp_path / "a.csv", GOOD))
    folder = poise.save_features(features, tmp_path / "store")
    assert poise.load_features(folder, verify=True).key == poise.load_features(folder).key == features.key


def test_every_floating_point_type_and_view_of_an_array_is_kept(tmp_path):
    for dtype in (np.float16, np.float32, np.float64):
        x = np.arange(12, dtype=dtype).reshape(2, 3, 2)
        np.savez(tmp_path / "a.npz", features=x, labels=[0, 1, 1])
        features = read_features(tmp_path / "a.npz").features
        assert features.x.numpy().dtype == dtype
        assert features.x.shape == (2, 3, 2)
        assert read_rows(tmp_path / "a.npz").x.tolist() == x[0].tolist()
    save_file({"x": torch.eye(3, dtype=torch.bfloat16), "y": torch.arange(3)}, tmp_path / "a.safetensors")
    assert load_features(tmp_path / "a.safetensors").x.dtype == torch.bfloat16


def test_floating_point_types_narrower_than_half_are_refused(tmp_path):
    save_file({"x": torch.eye(3).to(torch.float8_e4m3fn), "y": torch.arange(3)}, tmp_path / "a.safetensors")
    assert "'x' holds torch.float8_e4m3fn values, which are too narrow; convert to float16" in refusal(
        read_features, tmp_path / "a.safetensors"
    )
    save_file({"x": torch.eye(3), "y": torch.ones(3, dtype=torch.bfloat16)}, tmp_path / "b.safetensors")
    assert "row 0: the label 1.0 is no integer" in refusal(read_features, tmp_path / "b.safetensors")


def test_integers_and_foreign_byte_order_become_plain_numbers(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(6).reshape(3, 2), y=np.array([0, 1, 1], dtype=np.uint8))
    np.savez(tmp_path / "b.npz", x=np.arange(6, dtype=">f4").reshape(3, 2)[::-1], y=np.array([1, 1, 0], dtype=">i8"))
    one, other = (load_features(tmp_path / f"{name}.npz") for name in "ab")
    assert torch.equal(one.x, other.x.flip(1))
    assert one.y.tolist() == [0, 1, 1]


# --- which columns are features ---------------------------------------------------------------------------------------


def test_text_columns_are_carried_along_and_noted(tmp_path):
    table = read_features(written(tmp_path / "a.csv", "path,f0,category,f1\na b.jpg,1,x,2\nc.jpg,3,y,4\n"))
    assert table.names == ("f0", "f1")
    assert table.extra == {"path": ("a b.jpg", "c.jpg")}
    assert table.notes == (f"{tmp_path}/a.csv: carried along, not features: 'path'",)
    assert table.features.class_names == ("x", "y")


@pytest.mark.parametrize("name", ["id", "Index", "row", "", "Unnamed: 0"])
def test_a_column_that_numbers_the_rows_is_no_feature(tmp_path, name):
    path = written(tmp_path / "a.csv", f"{name},f0,label\n0,5,a\n1,6,b\n")
    with pytest.warns(PoiseWarning) as caught:
        table = read_features(path)
    assert str(caught[0].message) == (
        f"{path}: {name or '(no name)'!r} looks like a row number and is no feature; if it is one, rename it"
    )
    assert table.names == ("f0",)
    assert table.extra == {name: ("0", "1")}
    assert str(caught[0].message) in table.notes


def test_ignored_columns_are_neither_features_nor_carried(tmp_path):
    path = written(tmp_path / "a.csv", "id,f0,note,label\n0,5,x,a\n1,6,y,b\n")
    table = read_features(path, ignore=["id", "note"])
    assert (table.names, dict(table.extra), table.notes) == (("f0",), {}, ())
    assert "has no column 'idd', did you mean 'id'? its columns are 'id', 'f0', 'note', 'label'" in refusal(
        read_features, path, ignore=["idd"]
    )


def test_groups_are_read_and_are_no_feature(tmp_path):
    path = written(tmp_path / "a.csv", "f0,patient,label\n0,7,a\n1,7,b\n2,9,b\n")
    table = read_features(path, group_column="patient")
    assert table.groups.tolist() == ["7", "7", "9"]
    assert table.names == ("f0",)
    np.savez(tmp_path / "a.npz", x=np.eye(3), y=[0, 1, 1], patient=[7, 7, 9])
    assert read_features(tmp_path / "a.npz", group_column="patient").groups.tolist() == [7, 7, 9]
    to_parquet(tmp_path / "a.parquet", f0=[0.0, 1, 2], patient=[7, 7, 9], label=["a", "b", "b"])
    assert read_features(tmp_path / "a.parquet", group_column="patient").groups.tolist() == [7, 7, 9]
    assert "has no column 'doctor'; its columns are" in refusal(read_features, path, group_column="doctor")
    assert "has no array 'doctor'" in refusal(read_features, tmp_path / "a.npz", group_column="doctor")
    np.savez(tmp_path / "b.npz", x=np.eye(3), y=[0, 1, 1], patient=[7, 7])
    assert "2 groups for 3 rows" in refusal(read_features, tmp_path / "b.npz", group_column="patient")


@pytest.mark.parametrize("name", ["y", "labels", "label", "targets", "target", "class", "category"])
def test_tables_arrays_and_logits_call_their_labels_the_same(tmp_path, name):
    for column in (name, name.title()):
        path = written(tmp_path / "a.csv", f"f0,{column}\n1,5\n2,3\n")
        assert read_features(path).features.y.tolist() == [1, 0]
    np.savez(tmp_path / "a.npz", x=np.eye(2), **{name: [1, 0]})
    assert read_features(tmp_path / "a.npz").features.y.tolist() == [1, 0]
    logits = saved(tmp_path, logits=Z, counts=WHOLE["counts"], **{name: WHOLE["labels"]})
    assert read_logits(logits).y.tolist() == [0, 2, 1]


def test_the_label_column_has_a_default_only_if_one_fits(tmp_path):
    path = written(tmp_path / "a.csv", "f0,y,label\n1,5,a\n2,6,b\n")
    assert refusal(read_features, path) == (
        f"{path}: the label could be in 'y', 'label'; name the column (label_column=)"
    )
    assert read_features(path, label_column="label").names == ("f0", "y")
    path = written(tmp_path / "b.csv", "f0,kind\n1,a\n2,b\n")
    assert refusal(read_features, path) == (
        f"{path} has no column that is called label or class; name the right one (label_column=); its columns are "
        "'kind', 'f0'"
    )
    assert refusal(read_features, path, label_column="kinds") == (
        f"{path} has no column 'kinds', did you mean 'kind'? its columns are 'f0', 'kind'"
    )


def test_rows_to_predict_need_no_label_and_carry_everything_else_through(tmp_path):
    path = written(tmp_path / "a.csv", "f1,name,f0,label\n1,x,2,5\n3,y,4,6\n")
    rows = read_rows(path, columns=["f0", "f1"])
    assert rows.x.tolist() == [[2, 1], [4, 3]]
    assert rows.names == ("f0", "f1")
    assert rows.extra == {"name": ("x", "y"), "label": ("5", "6")}
    assert f"{path}: 'label' is taken for the label and is no feature" in rows.notes
    assert "has no column 'f2'; its columns are 'f1', 'name'" in refusal(read_rows, path, columns=["f0", "f2"])
    assert read_rows(written(tmp_path / "b.csv", "f0,f1\n1,2\n")).x.tolist() == [[1, 2]]


def test_rows_to_predict_come_with_their_numbers(tmp_path):
    path = written(tmp_path / "a.csv", "id,f0\n007,1\n008,2\n")
    with pytest.warns(PoiseWarning, match="looks like a row number"):
        assert read_rows(path).extra == {"id": ("007", "008")}


# --- comma-separated files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        GOOD.rstrip("\n"),
        GOOD + "\n\n",
        GOOD.replace("\n", "\n\n"),
        "f0, f1, label\n0.5, 1, cat\n -2 , 3e-1, dog\n7, 8, cat \n",
        '"f0","f1","label"\n"0.5","1","cat"\n-2,3e-1,"dog"\n7, 8, "cat"\n',
    ],
)
def test_byte_order_marks_line_ends_spaces_and_quotes_do_not_matter(tmp_path, text):
    features = read_features(written(tmp_path / "a.csv", text)).features
    assert features.key == read_features(written(tmp_path / "b.csv", GOOD)).features.key
    assert features.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", " is empty; line 1 must name the columns"),
        ("\n\n", " is empty; line 1 must name the columns"),
        ("f0,label\n", " has a header but no row"),
        ("f0;f1;label\n1;2;a\n", ", line 1: there is one column, 'f0;f1;label'; its cells seem to be separated by "
         "semicolons, which should be commas in a .csv file"),
        ("f0\tlabel\n1\ta\n", ", line 1: there is one column, 'f0\\tlabel'; its cells seem to be separated by tabs, "
         "which should be commas in a .csv file"),
        ("f0,f0,label\n1,2,a\n", ": columns 1 and 2 are both called 'f0' in line 1; rename one"),
        ("f0,,label\n1,2,a\n", ": column 2 has no name in line 1; name it, or delete the column"),
        ("0.25,1,a\n1,2,b\n", ", line 1: '0.25' is a value, no name; the first line must name the columns"),
        ("f0,label\n1,a\n2\n3,b\n", ", line 3: 1 cells, the header has 2; a cell is missing or extra"),
        ("f0,label\n1,a\n2,b,c\n", ", line 3: 3 cells, the header has 2; a cell is missing or extra"),
        ("f0,f1,label\n1,2,a\n3,oops,b\n", ", line 3, column 'f1': 'oops' is no number; fix the cell, or leave the "
         "column out with ignore="),
        ("f0,f1,label\n1,2,a\n3,,b\n", ", line 3, column 'f1': the cell is empty; fix the cell, or leave the column "
         "out with ignore="),
        ("f0,label\n1,a\nnan,b\n", ", line 3, column 'f0': nan is no finite float32 number; fix the cell, or delete "
         "the line"),
        ("f0,label\n1,a\n1e39,b\n", ", line 3, column 'f0': 1e+39 is no finite float32 number; fix the cell, or "
         "delete the line"),
        ("name,label\nx,a\ny,b\n", " has no numeric column for features; its columns are 'name', 'label'"),
        ('f0,label\n1,"a\n2,b\n', ", line 2: unexpected end of data; check the quotes of this line"),
        ('f0,label\n1,a\n2,"b"c\n', ", line 3: ',' expected after '\"'; check the quotes of this line"),
        ("f0,label\n1,a\n2,Käse\n".encode("latin-1"), ", line 3: the text is not UTF-8; save the file as UTF-8"),
        ("f0,label\n1,a\n".encode("utf-16"), ", line 1: the text is not UTF-8; save the file as UTF-8"),
        ("f0,label\n1,a\n2,\n", ", line 3: the label is empty; fill it in, or delete the row"),
        ("f0,label\n1,a\n2,NaN\n", ", line 3: the label is 'NaN'; fill it in, or delete the row"),
        ("f0,label\n1,1\n2,-1\n", ", line 3: the label is -1; class numbers are 0 or more"),
        ("f0,label\n1,1\n2,1.5\n", ", line 3: the label '1.5' is a fraction; labels are integers or names, write 1 "
         "for 1.0"),
        ("f0,label\n1,a\n2,a\n", " holds only one class, 'a'; a classifier needs rows of at least two"),
        ("f0,label\n1,0\n2,0\n", " holds only one class, '0'; a classifier needs rows of at least two"),
    ],
)  # fmt: skip
def test_a_fault_is_one_sentence_with_path_and_line(tmp_path, text, message):
    path = written(tmp_path / "with space ü.csv", text)
    assert refusal(read_features, path) == f"{path}{message}"


def test_lines_are_counted_through_blank_lines_and_quoted_line_breaks(tmp_path):
    path = written(tmp_path / "a.csv", 'f0,text,label\n1,"one\ntwo",a\n\n2,x,b\n3,y,\n')
    assert refusal(read_features, path) == f"{path}, line 6: the label is empty; fill it in, or delete the row"


def test_a_fault_behind_the_first_hundred_rows_is_found(tmp_path):
    body = "".join(f"{i},c{i % 2}\n" for i in range(300))
    path = written(tmp_path / "a.csv", f"f0,label\n{body}x,c0\n")
    assert ", line 302, column 'f0': 'x' is no number" in refusal(read_features, path)
    path = written(tmp_path / "a.csv", f"f0,label\n{body}1,c0,9\n")
    assert ", line 302: 3 cells, the header has 2" in refusal(read_features, path)


def test_a_bad_first_cell_does_not_turn_a_numeric_column_into_text(tmp_path):
    path = written(tmp_path / "a.csv", "f0,f1,label\n?,1,a\n2,3,b\n4,5,a\n")
    assert ", line 2, column 'f0': '?' is no number" in refusal(read_features, path)


def test_a_file_that_cannot_be_opened_is_one_sentence(tmp_path, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    for name in ("a.csv", "a.npz"):
        path = written(tmp_path / name, GOOD)
        with monkeypatch.context() as patch:
            patch.setattr("pathlib.Path.open", forbidden)
            assert refusal(read_features, path) == f"cannot read {path}: Permission denied"


def test_tabs_are_expected_in_a_tsv(tmp_path):
    path = written(tmp_path / "a.tsv", GOOD)
    assert "its cells seem to be separated by commas, which should be tabs in a .tsv file" in refusal(
        read_features, path
    )


def test_a_packed_table_is_the_table(tmp_path):
    for end, text in ((".csv", GOOD), (".tsv", GOOD.replace(",", "\t"))):
        plain = read_features(written(tmp_path / f"a{end}", text))
        packed = tmp_path / f"a{end}.GZ"
        packed.write_bytes(gzip.compress(text.encode()))
        found = read_features(packed)
        assert torch.equal(found.features.x, plain.features.x)
        assert torch.equal(found.features.y, plain.features.y)
        assert found.names == plain.names
        assert torch.equal(read_rows(packed, columns=plain.names).x, plain.features.x[0])


def test_a_packed_table_that_is_none_is_one_sentence_with_its_line(tmp_path, monkeypatch):
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(GOOD.encode())[:-9])
    assert f"{packed} cannot be read as a .gz file" in refusal(read_features, packed)
    packed.write_bytes(gzip.compress(b"f0,label\n1,a\n2,\xff\n"))
    assert f"{packed}, line 3: the text is not UTF-8" in refusal(read_features, packed)
    packed.write_bytes(gzip.compress(b"f0,label\n" + b"1,a\n" * 1000))
    monkeypatch.setenv("POISE_MEMORY_LIMIT", "2000")
    assert f"{packed} unpacks to more than 2000 bytes" in refusal(read_features, packed)
    unknown = tmp_path / "a.npz.gz"
    unknown.write_bytes(gzip.compress(b"1"))
    assert f"cannot read {unknown}" in refusal(read_features, unknown)


def test_repeated_rows_are_counted_and_the_first_pair_is_named(tmp_path):
    path = written(tmp_path / "a.csv", "f0,label\n1,a\n2,b\n1,a\n2,b\n1,b\n")
    with pytest.warns(PoiseWarning) as caught:
        read_features(path)
    assert str(caught[0].message) == (
        f"{path}: 3 rows repeat the features of another row (the first: line 4 repeats line 2); remove copies, so that "
        f"no row is trained on and scored as well"
    )
    np.savez(tmp_path / "a.npz", x=[[1.0], [2.0], [1.0]], y=[0, 1, 1])
    with pytest.warns(PoiseWarning, match=r"1 row repeats .*: row 2 repeats row 0\)"):
        read_features(tmp_path / "a.npz")


def test_a_wide_table_is_read_in_seconds(tmp_path):
    x = np.random.default_rng(0).normal(size=(2000, 384)).astype(np.float32)
    path = written(tmp_path / "a.csv", to_csv(x, [f"c{i % 5}" for i in range(len(x))]))
    begun = time.perf_counter()
    features = load_features(path)
    assert time.perf_counter() - begun < 10  # it takes 0.3 s on an idle machine
    assert np.array_equal(features.x[0].numpy(), x)


# --- labels -----------------------------------------------------------------------------------------------------------


def labelled(tmp_path, labels, **more):
    np.savez(tmp_path / "l.npz", x=np.arange(len(labels) * 1.0)[:, None], y=np.array(labels), **more)
    return tmp_path / "l.npz"


def test_integers_with_gaps_are_renumbered_and_keep_their_names(tmp_path):
    features = read_features(labelled(tmp_path, [5, 0, 1, 5])).features
    assert features.y.tolist() == [2, 0, 1, 2]
    assert features.class_names == ("0", "1", "5")
    assert features.counts.n.tolist() == [1, 1, 2]
    big = read_features(labelled(tmp_path, [10, 9, 2])).features
    assert big.class_names == ("2", "9", "10")
    assert big.y.tolist() == [2, 1, 0]


def test_integers_without_gaps_have_no_names(tmp_path):
    features = read_features(labelled(tmp_path, [1, 0, 2])).features
    assert (features.y.tolist(), features.class_names) == ([1, 0, 2], None)


def test_gaps_are_an_error_where_the_classes_are_known(tmp_path):
    path = labelled(tmp_path, [0, 1, 5])
    message = f"{path}, row 2: the label is 5; class numbers are 0 or more and below 3, the number of classes"
    assert refusal(read_features, path, counts=[4, 3, 2]) == message
    assert refusal(read_features, labelled(tmp_path, [0, 1, 5], n=[4, 3, 2])) == message
    assert refusal(read_features, labelled(tmp_path, [0, 1, 5], class_names=["a", "b", "c"])) == message
    assert refusal(read_features, labelled(tmp_path, [0, 1, 5]), class_names=["a", "b", "c"]) == message


def test_classes_without_a_row_are_kept(tmp_path):
    features = read_features(labelled(tmp_path, [0, 2]), counts=[9, 4, 1, 0]).features
    assert (features.y.tolist(), features.counts.n.tolist()) == ([0, 2], [9, 4, 1, 0])
    features = read_features(labelled(tmp_path, ["b", "d"]), class_names=["d", "c", "b", "a"]).features
    assert (features.y.tolist(), features.counts.n.tolist()) == ([2, 0], [1, 0, 1, 0])
    assert features.class_names == ("d", "c", "b", "a")


def test_labels_are_matched_by_name_with_the_classes_of_another_split(tmp_path):
    train = ("bird", "cat", "dog")
    path = written(tmp_path / "test.csv", "f0,label\n1,dog\n2,cat\n")
    features = read_features(path, class_names=train, counts=ClassCounts([7, 5, 3])).features
    assert (features.y.tolist(), features.class_names) == ([2, 1], train)
    path = written(tmp_path / "test.csv", "f0,label\n1,dog\n2,cta\n")
    assert refusal(read_features, path, class_names=train) == (
        f"{path}, line 3: 'cta' is none of the 3 classes, did you mean 'cat'?"
    )
    path = written(tmp_path / "test.csv", "f0,label\n1,dog\n2,zebra\n")
    assert refusal(read_features, path, class_names=train) == (
        f"{path}, line 3: 'zebra' is none of the 3 classes; they are 'bird', 'cat', 'dog'"
    )
    assert refusal(read_features, path, class_names=["a", "a"]) == "the class name 'a' is given twice"


def test_numbers_are_matched_by_name_with_classes_that_are_numbers(tmp_path):
    features = read_features(labelled(tmp_path, [5, 1, 5]), class_names=["0", "1", "5"]).features
    assert features.y.tolist() == [2, 1, 2]
    # Dense by chance: still names, since the other split's names are numbers.
    assert read_features(labelled(tmp_path, [0, 1, 1]), class_names=["1", "0"]).features.y.tolist() == [1, 0, 0]
    assert "row 1: '2' is none of the 2 classes" in refusal(
        read_features, labelled(tmp_path, [0, 2]), class_names=["0", "1"]
    )


def test_a_file_with_its_own_names_and_counts_is_reordered_to_the_given_classes(tmp_path):
    path = labelled(tmp_path, [0, 1, 2], class_names=["a", "b", "c"], n=[30, 20, 10])
    features = read_features(path, class_names=["c", "x", "b", "a"]).features
    assert features.y.tolist() == [3, 2, 0]
    assert features.counts.n.tolist() == [10, 0, 20, 30]


def test_codes_with_leading_zeros_and_mixed_words_are_names(tmp_path):
    assert read_features(written(tmp_path / "a.csv", "f0,label\n1,01\n2,1\n")).features.class_names == ("01", "1")
    assert read_features(written(tmp_path / "a.csv", "f0,label\n1,1.5\n2,x\n")).features.class_names == ("1.5", "x")
    long = "1" * 30
    assert read_features(written(tmp_path / "a.csv", f"f0,label\n1,{long}\n2,1\n")).features.class_names == ("1", long)


def test_truth_values_and_bytes_are_names(tmp_path):
    assert read_features(labelled(tmp_path, [True, False])).features.class_names == ("False", "True")
    assert read_features(labelled(tmp_path, [b"x", b"y"])).features.class_names == ("x", "y")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.5], ", row 1: the label 1.5 is no integer and no name; labels are stored as float64, convert whole "
         "numbers to integers"),
        ([0.0, float("nan")], ", row 1: the label nan is no integer and no name; labels are stored as float64, convert "
         "whole numbers to integers"),
        ([0.0, 1.0], ", row 0: the label 0.0 is no integer and no name; labels are stored as float64, convert whole "
         "numbers to integers"),
        ([0, -3], ", row 1: the label is -3; class numbers are 0 or more"),
        (["a", ""], ", row 1: the label is empty; fill it in, or delete the row"),
        ([1j, 2j], ", row 0: labels are integers or text, got complex128"),
        ([[1, 0], [0, 1]], ", row 0: labels are one per row, got shape (2, 2); use argmax(axis=1) for one-hot rows"),
    ],
)  # fmt: skip
def test_an_unusable_label_names_its_row(tmp_path, labels, message):
    path = labelled(tmp_path, labels)
    assert refusal(read_features, path) == f"{path}{message}"


def test_labels_can_be_given_beside_the_rows(tmp_path):
    np.save(tmp_path / "x.npy", np.eye(3, dtype=np.float32))
    for labels in (["b", "a", "b"], np.array([1, 0, 1]), torch.tensor([1, 0, 1])):
        assert read_features(tmp_path / "x.npy", labels=labels).features.y.tolist() == [1, 0, 1]
    assert f"{tmp_path}/x.npy has 3 rows and 2 labels" in refusal(read_features, tmp_path / "x.npy", labels=[0, 1])
    assert "has no labels called y or labels; it holds 'x'; add them, or give labels" in refusal(
        read_features, tmp_path / "x.npy"
    )
    assert "labels are an array or a .npy file, and y.txt is none" in refusal(
        read_features, tmp_path / "x.npy", labels="y.txt"
    )


def test_remarks_on_counts_name_the_file(tmp_path):
    path = labelled(tmp_path, ["a", "b", "c"])
    assert refusal(read_features, path, counts=[5, 5]) == (
        f"{path}: there are 3 classes, 'a', 'b', 'c', and counts of 2; give class_names in the order of the counts"
    )
    assert refusal(read_features, path, counts=[5, 5, -1]).endswith("class 2 has the count -1; counts are 0 or more")


def test_where_the_rows_come_from_is_kept(tmp_path):
    path = written(tmp_path / "a.csv", GOOD)
    assert read_features(path).features.seen_by_backbone is None
    seen = read_features(path, seen_by_backbone=True).features
    assert seen.seen_by_backbone is True
    folder = save_features(seen, tmp_path / "s")
    assert read_features(folder).features.seen_by_backbone is True
    assert read_features(folder, seen_by_backbone=False).features.seen_by_backbone is False


def test_a_store_can_be_read_with_the_classes_of_another_split(tmp_path):
    folder = save_features(read_features(written(tmp_path / "a.csv", GOOD)).features, tmp_path / "s")
    features = read_features(folder, class_names=["dog", "emu", "cat"]).features
    assert features.y.tolist() == [2, 0, 2]
    assert features.counts.n.tolist() == [1, 0, 2]


# --- files of arrays --------------------------------------------------------------------------------------------------


def test_a_key_chooses_among_several_splits(tmp_path):
    arrays = {"train": np.eye(3), "y_train": [0, 1, 2], "test": np.eye(3) * 2, "test_labels": [2, 1, 0], "n": [9, 8, 7]}
    np.savez(tmp_path / "a.npz", **arrays)
    assert read_features(tmp_path / "a.npz", key="train").features.y.tolist() == [0, 1, 2]
    test = read_features(tmp_path / "a.npz", key="test").features
    assert (test.y.tolist(), test.counts.n.tolist()) == ([2, 1, 0], [9, 8, 7])
    assert read_rows(tmp_path / "a.npz", key="test").x[0, 0] == 2
    holds = "it holds 'train', 'y_train', 'test', 'test_labels', 'n'; choose one with key= (or FILE#NAME)"
    assert refusal(read_features, tmp_path / "a.npz") == f"{tmp_path}/a.npz has no array called x or features; {holds}"
    assert refusal(read_features, tmp_path / "a.npz", key="tran") == (
        f"{tmp_path}/a.npz has no array 'tran', did you mean 'train'?; {holds}"
    )
    np.savez(tmp_path / "b.npz", held_out=np.eye(2), y=[0, 1])
    assert "has no labels called y_held_out or held_out_y" in refusal(read_features, tmp_path / "b.npz", key="held_out")
    assert read_features(tmp_path / "b.npz", key="held_out", label_column="y").features.y.tolist() == [0, 1]
    np.savez(tmp_path / "c.npz", x=np.eye(2), features=np.eye(2), y=[0, 1])
    assert "holds 'x', 'features', which mean the same; keep one of them" in refusal(read_features, tmp_path / "c.npz")


class Canary:
    """Would leave a trace if somebody unpickled it."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was executed')",))


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_pickled_objects_are_refused_and_never_executed(tmp_path, suffix):
    bad = np.array([Canary(), Canary()], dtype=object)
    if suffix == ".npz":
        np.savez(tmp_path / "a.npz", x=np.eye(2), y=bad)
        np.savez(tmp_path / "b.npz", x=bad, y=[0, 1])
        sentence = "holds Python objects, which are never read; save plain numbers or text with dtype=str"
        assert refusal(read_features, tmp_path / "a.npz") == f"{tmp_path}/a.npz: the array 'y' {sentence}"
        assert refusal(read_features, tmp_path / "b.npz") == f"{tmp_path}/b.npz: the array 'x' {sentence}"
        return
    np.save(tmp_path / "a.npy", bad, allow_pickle=True)
    assert "holds Python objects, which are never read" in refusal(read_features, tmp_path / "a.npy", labels=[0, 1])
    written(tmp_path / "b.npy", pickle.dumps(Canary()))
    assert "it is damaged or no .npy file" in refusal(read_features, tmp_path / "b.npy", labels=[0, 1])


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors"])
@pytest.mark.parametrize("damage", ["empty", "half", "html", "head"])
def test_a_damaged_file_is_one_sentence(tmp_path, suffix, damage):
    path = tmp_path / f"a{suffix}"
    x = np.random.default_rng(0).normal(size=(50, 4))
    if suffix == ".npz":
        np.savez_compressed(path, x=x, y=np.arange(50) % 2)
    elif suffix == ".npy":
        np.save(path, x)
    else:
        save_file({"x": torch.from_numpy(x), "y": torch.arange(50) % 2}, path)
    content = path.read_bytes()
    broken = {
        "empty": b"",
        "half": content[: len(content) // 2],
        "html": b"<html>not found</html>",
        "head": b"\xff" * 8 + content[8:],
    }
    message = refusal(read_features, written(path, broken[damage]), labels=[0, 1] * 25 if suffix == ".npy" else None)
    assert message.startswith(f"{path}") or message.startswith(f"cannot read {path}")


@pytest.mark.filterwarnings("ignore::poise.errors.PoiseWarning")
@pytest.mark.parametrize("name", ["a.csv", "a.npz", "a.npy", "a.safetensors", "a.parquet"])
def test_no_damage_makes_more_than_one_sentence(tmp_path, name):
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    labels = [f"c{i % 3}" for i in range(len(x))]
    written(tmp_path / "a.csv", to_csv(x, labels))
    np.savez_compressed(tmp_path / "a.npz", x=x, y=labels)
    np.save(tmp_path / "a.npy", x)
    save_file({"x": torch.from_numpy(x), "y": torch.arange(20) % 3}, tmp_path / "a.safetensors", {"class_names": "[1]"})
    if name == "a.parquet":
        to_parquet(tmp_path / name, e=list(x), text=labels, label=labels)
    whole = (tmp_path / name).read_bytes()
    draw = np.random.default_rng(1)
    refusals = []
    for _ in range(150):
        content = bytearray(whole)
        for at in draw.integers(0, len(whole), size=draw.choice([1, 3, 20])):
            content[at] = draw.integers(256)
        path = written(
            tmp_path / name, bytes(content[: draw.integers(1, len(whole))] if draw.random() < 0.2 else content)
        )
        try:
            read_features(path, labels=labels if name == "a.npy" else None)
        except InputError as error:
            refusals.append(str(error))
    assert refusals
    assert not any("\n" in refusal for refusal in refusals)


def test_a_flipped_bit_in_a_compressed_archive_is_noticed(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(50, 4)), y=np.arange(50) % 2)
    with zipfile.ZipFile(path) as archive:
        start = archive.infolist()[0].header_offset
    content = bytearray(path.read_bytes())
    content[start + 300] ^= 8
    assert "the array 'x' cannot be read" in refusal(read_features, written(path, bytes(content)))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([["a"], ["b"]]), ": 'x' holds <U1 values; numbers up to float64 are needed"),
        (np.eye(2) * 1j, ": 'x' holds complex128 values; numbers up to float64 are needed"),
        (np.array([0.0, 1.0]), " has 0 rows and 2 labels"),
        (np.zeros((0, 3)), " has 0 rows and 2 labels"),
        (np.array(3.0), " has 0 rows and 2 labels"),
        (np.zeros((2, 0)), ": features are floating-point (N, D) or (V, N, D), got torch.float64 (2, 0)"),
        (np.zeros((1, 1, 2, 3)), ": features are floating-point (N, D) or (V, N, D), got"),
        (np.array([[1.0], [np.nan]]), ": feature row 1 of view 0 holds NaN or infinity; extract it anew or drop the"),
    ],
)
def test_features_of_the_wrong_kind_are_named(tmp_path, x, message):
    np.savez(tmp_path / "a.npz", x=x, y=[0, 1])
    assert refusal(read_features, tmp_path / "a.npz").startswith(f"{tmp_path}/a.npz{message}")
    refusal(read_rows, tmp_path / "a.npz")


def test_class_names_in_the_metadata_must_be_a_list(tmp_path):
    save_file({"x": torch.eye(2), "y": torch.arange(2)}, tmp_path / "a.safetensors", {"class_names": "cat, dog"})
    assert "class_names in the metadata must be a JSON list of names" in refusal(
        read_features, tmp_path / "a.safetensors"
    )


# --- Parquet ----------------------------------------------------------------------------------------------------------


def test_parquet_features_are_numbers_or_one_list(tmp_path):
    pa = pytest.importorskip("pyarrow")
    both = to_parquet(tmp_path / "a.parquet", e=[[1.0, 2.0], [3.0, 4.0]], width=[5, 6], label=["a", "b"])
    assert (
        "features are one column of lists or numeric columns, not 'e', 'width'; leave some out with ignore="
        in refusal(read_features, both)
    )
    assert read_features(both, ignore=["width"]).features.x.tolist() == [[[1, 2], [3, 4]]]
    assert read_features(both, ignore=["e"]).features.x.tolist() == [[[5], [6]]]
    fixed = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float16(), 2))
    path = to_parquet(tmp_path / "b.parquet", e=fixed, text=["p", "q"], label=pa.array(["a", "b"]).dictionary_encode())
    table = read_features(path)
    assert table.features.x.tolist() == [[[1, 2], [3, 4]]]
    assert (table.features.class_names, table.extra, table.names) == (("a", "b"), {"text": ("p", "q")}, None)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"f": [1.0, None], "label": [0, 1]}, ", row 1, column 'f': the cell is empty; fill it in, or delete the row"),
        ({"f": [1.0, float("nan")], "label": [0, 1]}, ", row 1, column 'f': nan is no finite float32 number; fix the "
         "cell, or delete the row"),
        ({"f": [1.0, 2.0], "label": [0, None]}, ", row 1, column 'label': the cell is empty; fill it in, or delete the "
         "row"),
        ({"f": [1.0, 2.0], "label": [0.5, 1]}, ", row 0: the label 0.5 is no integer and no name; labels are stored as "
         "float64, convert whole numbers to integers"),
        ({"e": [[1.0, 2.0], [3.0]], "label": [0, 1]}, ", row 1, column 'e': the list has 1 numbers, that of row 0 2; "
         "all rows need the same number, at least 1"),
        ({"e": [[1.0, 2.0], None], "label": [0, 1]}, ", row 1, column 'e': the cell is empty; fill it in, or delete "
         "the row"),
        ({"e": [[1.0, 2.0], [3.0, None]], "label": [0, 1]}, ", row 1, column 'e': the list holds an empty value; fill "
         "it in"),
        ({"t": ["a", "b"], "label": [0, 1]}, " has no numeric column for features; its columns are 't', 'label'"),
        ({"f": [1.0, 2.0], "label": [[0], [1]]}, ": the column 'label' holds list<element: int64>; it must hold text "
         "or numbers"),
        ({"f": [1.0, 2.0], "label": [b"a", b"b"]}, ": the column 'label' holds binary; it must hold text or numbers"),
        ({"f": [], "label": []}, " has no row"),
    ],
)  # fmt: skip
def test_a_fault_in_a_parquet_file_is_one_sentence(tmp_path, columns, message):
    path = to_parquet(tmp_path / "a.parquet", **columns)
    assert refusal(read_features, path) == f"{path}{message}"


def test_parquet_row_numbers_and_text_as_feature_are_noticed(tmp_path):
    path = to_parquet(tmp_path / "a.parquet", id=[0, 1], f=[1.0, 2.0], t=["x", "y"], label=["a", "b"])
    with pytest.warns(PoiseWarning, match="'id' looks like a row number"):
        table = read_features(path)
    assert (table.names, table.extra) == (("f",), {"id": (0, 1), "t": ("x", "y")})
    assert "the column 't' holds string, no numbers" in refusal(read_rows, path, columns=["t"])


def test_an_empty_label_does_not_stop_a_prediction(tmp_path):
    path = to_parquet(tmp_path / "a.parquet", f=[1.0, 2.0], label=["a", None])
    assert read_rows(path).extra == {"label": ("a", None)}


def test_two_parquet_columns_of_one_name_are_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    table = pa.Table.from_arrays([pa.array([1.0, 2.0]), pa.array([3.0, 4.0])], names=["f", "f"])
    parquet.write_table(table, tmp_path / "a.parquet")
    assert "a.parquet: two columns are called 'f'; rename one" in refusal(read_features, tmp_path / "a.parquet")


def test_a_file_that_is_no_parquet_is_one_sentence(tmp_path):
    pytest.importorskip("pyarrow")
    for content in (b"", b"PAR1", GOOD.encode()):
        path = written(tmp_path / "a.parquet", content)
        assert refusal(read_features, path).startswith(f"{path} cannot be read as a Parquet file: ")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = written(tmp_path / "a.parquet", b"")
    with pytest.raises(MissingExtraError, match=r"reading .*a\.parquet needs pyarrow: pip install 'poise\[table\]'"):
        read_features(path)


# --- paths and options ------------------------------------------------------------------------------------------------


def test_a_path_that_is_not_there_is_named_with_its_neighbour(tmp_path):
    written(tmp_path / "train.csv", GOOD)
    assert refusal(read_features, tmp_path / "trian.csv") == (
        f"there is no file or folder {tmp_path}/trian.csv, did you mean 'train.csv'?"
    )
    assert refusal(read_features, tmp_path / "no" / "a.csv") == (
        f"there is no file or folder {tmp_path}/no/a.csv; the folder {tmp_path}/no does not exist either"
    )


def test_options_that_do_not_fit_the_format_are_refused(tmp_path):
    table, arrays = written(tmp_path / "a.csv", GOOD), labelled(tmp_path, [0, 1])
    assert "key= chooses among arrays, and" in refusal(read_features, table, key="train")
    assert "columns are chosen by name in tables, and" in refusal(read_features, arrays, ignore=["id"])
    assert refusal(read_features, written(tmp_path / "a.pkl", b"")) == (
        f"cannot read {tmp_path}/a.pkl: features come as a store folder or .csv, .tsv, .parquet, .npz, .npy, "
        f".safetensors"
    )
    assert "manifest.json is missing" in refusal(load_features, tmp_path)


# --- logits -----------------------------------------------------------------------------------------------------------

Z = np.array([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-1.0, 3.0, 0.0]], dtype=np.float32)
WHOLE = {"logits": Z, "labels": np.array([0, 2, 1]), "counts": np.array([50, 20, 3])}


def saved(tmp_path, suffix=".npz", **arrays):
    path = tmp_path / f"z{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file({name: torch.as_tensor(value) for name, value in arrays.items()}, path)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(("y", "n"), [("labels", "counts"), ("y", "n"), ("y", "train_counts")])
def test_logits_are_read_under_any_of_their_names(tmp_path, suffix, y, n):
    held = {"val_logits": Z[:2], "val_labels": np.array([1, 1])}
    read = read_logits(saved(tmp_path, suffix, logits=Z, **{y: WHOLE["labels"], n: WHOLE["counts"]}, **held))
    assert torch.equal(read.logits, torch.from_numpy(Z))
    assert (read.y.tolist(), read.counts.n.tolist(), read.class_names) == ([0, 2, 1], [50, 20, 3], None)
    assert torch.equal(read.held_out_logits, torch.from_numpy(Z[:2]))
    assert read.held_out_y.tolist() == [1, 1]


def test_text_labels_of_logits_are_matched_with_the_columns(tmp_path):
    names = {"class_names": np.array(["x", "b", "a"])}
    read = read_logits(saved(tmp_path, **{**WHOLE, "labels": np.array(["a", "x", "b"])}, **names))
    assert (read.y.tolist(), read.class_names) == ([2, 0, 1], ("x", "b", "a"))
    assert read.held_out_logits is None
    assert read.held_out_y is None


PROBABILITIES = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": None}, " lacks the training counts; add counts (C,), the number of training rows per class, such "
         "as np.bincount(y_train, minlength=3)"),
        ({"logits": None}, " lacks the logits (N, C) as 'logits'; it holds 'labels', 'counts'"),
        ({"labels": None}, " lacks the labels (N,) as 'y'; it holds 'logits', 'counts'"),
        ({"logits": PROBABILITIES}, ": 'logits' holds probabilities (each row sums to 1); save logits, or "
         "log-probabilities"),
        ({"logits": PROBABILITIES.astype(np.float16)}, ": 'logits' holds probabilities (each row sums to 1); save "
         "logits, or log-probabilities"),
        ({"held_out_logits": PROBABILITIES, "held_out_y": [0, 1, 2]}, ": 'held_out_logits' holds probabilities (each "
         "row sums to 1); save logits, or log-probabilities"),
        ({"held_out_logits": Z}, " holds 'held_out_logits' alone; add held-out logits and labels, or none"),
        ({"val_labels": [0]}, " holds 'val_labels' alone; add held-out logits and labels, or none"),
        ({"val_logits": Z[:, :2], "val_y": [0, 1, 1]}, ": 'val_logits' has 2 classes, logits 3"),
        ({"logits": Z[0]}, ": 'logits' must be (N, C) with at least 2 classes, got (3,)"),
        ({"logits": np.full((3, 3), np.inf)}, ": row 0 of 'logits' holds NaN or infinity; drop the row"),
        ({"labels": [0, 1]}, ": 'labels' has 2 labels for 3 rows of logits"),
        ({"labels": 1}, ": 'labels' has 1 labels for 3 rows of logits"),
        ({"labels": [0, 1, 3]}, ", 'labels', row 2: the label is 3; class numbers are 0 or more and below 3, the "
         "number of classes"),
        ({"labels": ["a", "b", "c"]}, ": 'labels' holds text; add class_names in the order of the columns of logits"),
        ({"counts": [5, 5]}, ": 'counts' has 2 classes, logits 3"),
        ({"counts": [5, 5, -1]}, ": 'counts': class 2 has the count -1; counts are 0 or more"),
        ({"class_names": ["a", "b"]}, " has 2 class names for 3 columns of logits"),
    ],
)  # fmt: skip
def test_logits_that_cannot_be_audited_are_refused(tmp_path, change, message):
    arrays = {name: value for name, value in {**WHOLE, **change}.items() if value is not None}
    path = saved(tmp_path, **arrays)
    assert refusal(read_logits, path) == f"{path}{message}"


@pytest.mark.parametrize("number", [0x110000, 2**31, 2**32 - 1])
@pytest.mark.parametrize("order", "<>")
def test_names_that_are_no_characters_are_refused(tmp_path, number, order):
    names = np.frombuffer(np.array([number, 0x61], f"{order}u4").tobytes(), dtype=f"{order}U1")
    path = tmp_path / "x.npz"
    np.savez(path, X=np.eye(4, 2, dtype=np.float32), y=[0, 1, 0, 1], class_names=names)
    assert "the array 'class_names' cannot be read" in refusal(read_features, path)


def test_arrays_without_rows_are_refused_for_prediction(tmp_path):
    path = tmp_path / "x.npy"
    for shape in ((0,), (0, 4), (0, 3, 4), (3, 0, 4), (3,), ()):
        np.save(path, np.zeros(shape, np.float32))
        assert refusal(read_rows, path).startswith(f"{path}: ")
    np.save(path, np.zeros((2, 3, 4), np.float32))
    assert read_rows(path).x.shape == (3, 4)


def test_log_probabilities_are_logits(tmp_path):
    assert read_logits(saved(tmp_path, **{**WHOLE, "logits": np.log(PROBABILITIES)})).y.tolist() == [0, 2, 1]


def test_logits_of_another_format_or_nowhere_are_refused(tmp_path):
    message = "logits are read from a .npz or .safetensors file, and"
    assert message in refusal(read_logits, tmp_path / "nowhere.npz")
    assert message in refusal(read_logits, written(tmp_path / "z.csv", GOOD))


def test_reading_warns_of_nothing_where_nothing_is_wrong(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.save(tmp_path / "x.npy", np.eye(3, dtype=np.float32))
        read_features(tmp_path / "x.npy", labels=[0, 1, 2])
        read_rows(tmp_path / "x.npy")
