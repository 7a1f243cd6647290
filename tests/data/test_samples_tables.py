"""Tables of images and texts: CSV, TSV, Parquet with paths, and Parquet with the images inside."""

import gzip
import io
import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from poise.data.samples.decode_all import pixels
from poise.data.samples.formats import open_items, open_samples
from poise.data.samples.items import Encoded, Pixels
from poise.data.samples.sample_set import Sentences
from poise.data.samples.split_parts import Part, assembled
from poise.errors import InputError, MissingExtraError, PoiseWarning

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

DATA = os.environ.get("POISE_DATA", "")
needs_data = pytest.mark.skipif(not DATA, reason="POISE_DATA, the path of the original images, is not set")


def encoded(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), (level, level, level)).save(file, "PNG")
    return file.getvalue()


def with_images(folder: Path, *names: str) -> Path:
    for level, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(level))
    return folder


def manifest(folder: Path, text: str, name: str = "data.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def message(path: Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        open_samples(path, **options)
    return str(caught.value)


# CSV and TSV


def test_packed_tables_of_a_folder_are_splits_and_their_paths_start_from_it(tmp_path: Path) -> None:
    with_images(tmp_path / "images", "a.png", "b.png")
    tables = tmp_path / "tables"
    tables.mkdir()
    for split in ("train", "test"):
        (tables / f"{split}.csv.gz").write_bytes(gzip.compress(b"path,class\na.png,cat\nb.png,bat\n"))
    found = open_samples(tables, root=tmp_path / "images")
    assert list(found) == ["train", "test"]
    assert found["test"].items.describe(0) == str(tmp_path / "images" / "a.png")


@pytest.mark.parametrize("column", ["path", "file", "filename", "image", "image_path", "Path"])
def test_paths_and_labels_are_found_by_usual_names(tmp_path: Path, column: str) -> None:
    path = manifest(with_images(tmp_path, "a.png", "b.png"), f"{column},class\na.png,cat\nb.png,bat\n")
    samples = open_samples(path)["train"]
    assert samples.class_names == ("bat", "cat")
    assert samples.y.tolist() == [1, 0]
    assert pixels(samples.items)[:, 0, 0, 0].tolist() == [0, 1]
    assert samples.items.describe(1) == str(tmp_path / "b.png")


@pytest.mark.parametrize("name", ["y", "labels", "label", "targets", "target", "class", "category"])
def test_tables_and_arrays_of_images_call_their_labels_the_same(tmp_path: Path, name: str) -> None:
    path = manifest(with_images(tmp_path, "a.png", "b.png"), f"path,{name}\na.png,1\nb.png,0\n")
    assert open_samples(path)["train"].y.tolist() == [1, 0]
    np.savez(tmp_path / "x.npz", **{"images": np.zeros((2, 4, 4), np.uint8), name: [1, 0]})
    assert open_samples(tmp_path / "x.npz")["train"].y.tolist() == [1, 0]


def test_a_byte_order_mark_windows_lines_and_spaces_are_no_trouble(tmp_path: Path) -> None:
    with_images(tmp_path, "my photo.png", "ü, b.png")
    path = manifest(tmp_path, 'path,label\r\nmy photo.png, 1\r\n"ü, b.png",0\r\n', encoding="utf-8-sig")
    samples = open_samples(path)["train"]
    assert samples.y.tolist() == [1, 0]
    assert samples.items.read(1).size == (2, 2)


def test_a_tsv_reads_like_a_csv(tmp_path: Path) -> None:
    path = manifest(with_images(tmp_path, "a.png", "b.png"), "path\tlabel\na.png\tx\nb.png\ty\n", "data.tsv")
    assert open_samples(path)["train"].y.tolist() == [0, 1]


def test_a_column_of_splits_divides_the_rows(tmp_path: Path) -> None:
    with_images(tmp_path, "a.png", "b.png", "c.png", "d.png")
    text = "path,label,split\na.png,x,test\nb.png,y,train\nc.png,x,train\nd.png,y,Test\n"
    samples = open_samples(manifest(tmp_path, text))
    assert list(samples) == ["train", "test"]
    assert samples["train"].y.tolist() == [1, 0]
    assert samples["test"].items.describe(1) == str(tmp_path / "d.png")
    assert message(manifest(tmp_path, text.replace("Test", "tset"))) == (
        f"{tmp_path / 'data.csv'}, line 5, column 'split': 'tset' is no split; write train, val or test"
    )


def test_files_of_a_folder_are_splits_by_their_names(tmp_path: Path) -> None:
    with_images(tmp_path / "images", "a.png", "b.png")
    tables = tmp_path / "tables"
    tables.mkdir()
    for name in ("my_train.csv", "my-test.csv"):
        manifest(tables, "path,label\na.png,x\nb.png,y\n", name)
    assert list(open_samples(tables, root=tmp_path / "images")) == ["train", "test"]
    manifest(tables, "path,label\na.png,x\n", "more.csv")
    assert "'more.csv' does not say which split it is, while others do" in message(tables)
    (tables / "more.csv").rename(tables / "train2.csv")
    assert "'my_train.csv' and 'train2.csv' are both the split 'train'" in message(tables)


def test_a_split_comes_from_one_file(tmp_path: Path) -> None:
    with_images(tmp_path / "images", "a.png", "b.png")
    tables = tmp_path / "tables"
    tables.mkdir()
    manifest(tables, "path,label,split\na.png,x,train\nb.png,y,test\n", "train.csv")
    manifest(tables, "path,label\na.png,x\nb.png,y\n", "test.csv")
    assert "the split 'test' is in another file too; keep it in one" in message(tables, root=tmp_path / "images")


def test_labels_of_a_later_split_may_be_unknown_to_an_earlier_one(tmp_path: Path) -> None:
    with_images(tmp_path, "a.png", "b.png", "c.png")
    path = manifest(tmp_path, "path,label,split\na.png,x,train\nb.png,z,train\nc.png,y,test\n")
    with pytest.warns(PoiseWarning, match="no sample in the split"):
        samples = open_samples(path)
    assert [s.y.tolist() for s in samples.values()] == [[0, 2], [1]]
    with pytest.warns(PoiseWarning, match="no sample in the split"):
        assert open_samples(path, split="test")["test"].class_names == ("x", "y", "z")


def test_groups_are_carried(tmp_path: Path) -> None:
    path = manifest(with_images(tmp_path, "a.png", "b.png"), "path,label,site\na.png,x,north\nb.png,y,2\n")
    assert open_samples(path, group="site")["train"].groups == ("north", "2")


def test_gaps_in_class_numbers_are_closed_and_names_kept(tmp_path: Path) -> None:
    path = manifest(with_images(tmp_path, "a.png", "b.png", "c.png"), "path,label\na.png,0\nb.png,5\nc.png,1\n")
    samples = open_samples(path)["train"]
    assert samples.y.tolist() == [0, 2, 1]
    assert samples.class_names == ("0", "1", "5")
    assert "line 3: the label is 5; class numbers are 0 or more and below 2" in message(path, class_names=("x", "y"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,label\na.png,\n", "{}, line 2, column 'label': the cell is empty; fill it in, or delete the row"),
        ("path,label\n\na.png,x\n,y\n", "{}, line 4, column 'path': the cell is empty; fill it in, or delete the row"),
        ("path,label\na.png,0\na.png,-1\n", "{}, line 3: the label is -1; class numbers are 0 or more"),
        ("path,label\na.png,0\na.png,0.5\n", "{}, line 3: the label '0.5' is a fraction; labels are integers or names"),
        ("path,label\na.png,x\nb c.png,y\n", "{}, line 3: there is no file {}/b c.png; correct the path"),
        ("path,label\na.png,x,y\n", "{}, line 2: 3 cells, the header has 2; a cell is missing or extra"),
        ("path;label\na.png;x\n", "{}, line 1: there is one column, 'path;label'; its cells seem to be separated by"),
        ("path,label,path\na.png,x,a.png\n", "{}: columns 1 and 3 are both called 'path' in line 1; rename one"),
        ("path,kind\na.png,x\n", "{} has no column that is called label or class; name the right one (label=); its"),
        ("where,label\na.png,x\n", "{} has no column that is called image or path; name the column of the images"),
        ("path,image,label\na.png,a.png,x\n", "{}: the image could be in 'path', 'image'; name the column (image=)"),
        ("path,label,class\na.png,x,y\n", "{}: the label could be in 'label', 'class'; name the column (label=)"),
        ("path,label\na.png,x\n", "{} holds only one class, 'x'; a classifier needs samples of at least two"),
        ("path,label\n", "{} has a header but no row"),
        ("", "{} is empty; line 1 must name the columns"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*repeats the path")
def test_what_is_wrong_in_a_table_is_named_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    path = manifest(with_images(tmp_path, "a.png"), text)
    assert message(path).startswith(expected.replace("{}/", f"{tmp_path}/").format(path))


def test_a_wanted_column_that_is_not_there_is_guessed(tmp_path: Path) -> None:
    path = manifest(with_images(tmp_path, "a.png"), "path,species\na.png,x\n")
    assert message(path, label="specis") == (
        f"{path} has no column 'specis', did you mean 'species'? its columns are 'path', 'species'"
    )


def test_rows_that_repeat_a_path_are_counted_in_a_warning(tmp_path: Path) -> None:
    path = manifest(with_images(tmp_path, "a.png", "b.png"), "path,label\na.png,x\nb.png,y\na.png,x\na.png,x\n")
    expected = r"data\.csv: 2 rows repeat the path of another \(the first: .*, line 4, 'a\.png', as in line 2\); remove"
    with pytest.warns(PoiseWarning, match=expected):
        assert len(open_samples(path)["train"]) == 4


def test_text_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    path = manifest(tmp_path, "path,label\nä.png,x\n", encoding="latin-1")
    assert message(path) == f"{path}, line 2: the text is not UTF-8; save the file as UTF-8"


def test_a_column_of_texts_gives_sentences(tmp_path: Path) -> None:
    path = manifest(tmp_path, 'text,category\n"Why, oh\nwhy?",ask\nThanks!,end\n')
    samples = open_samples(path, text="text")["train"]
    assert samples.items == Sentences(("Why, oh\nwhy?", "Thanks!"), str(path))
    assert samples.class_names == ("ask", "end")
    empty = manifest(tmp_path, "text,category\nhi,ask\n ,end\n")
    assert "line 3, column 'text': the cell is empty" in message(empty, text="text")


def test_a_table_without_labels_is_read_for_prediction(tmp_path: Path) -> None:
    path = manifest(with_images(tmp_path, "a.png", "b.png"), "path\nb.png\na.png\n")
    assert open_items(path).describe(0) == str(tmp_path / "b.png")
    texts = manifest(tmp_path, "text\nhello\n", "t.csv")
    assert open_items(texts, text="text").read(0) == "hello"


# Parquet


def hub_table(
    path: Path, levels: list[int], labels: list[int], names: list[str] | None, *, column: str = "fine_label"
) -> Path:
    """A file in the layout of the hub."""
    cells = [{"bytes": encoded(level), "path": f"{level}.png"} for level in levels]
    table = pyarrow.table({"img": cells, column: pyarrow.array(labels, pyarrow.int64())})
    if names is not None:
        features = {"img": {"_type": "Image"}, column: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=2)
    return path


def test_images_inside_a_table_are_read_with_the_names_of_their_classes(tmp_path: Path) -> None:
    path = hub_table(tmp_path / "x.parquet", [5, 6, 7], [2, 0, 0], ["ant", "bee", "cat"])
    with pytest.warns(PoiseWarning, match="no sample in the split 'train' and will be kept: 'bee'"):
        samples = open_samples(path)["train"]
    assert samples.class_names == ("ant", "bee", "cat")
    assert samples.y.tolist() == [2, 0, 0]
    assert pixels(samples.items)[:, 2, 1, 1].tolist() == [5, 6, 7]
    assert samples.items.describe(2) == f"{path}, row 2"


def test_some_rows_of_a_table_keep_their_names_and_share_its_buffers(tmp_path: Path) -> None:
    items = open_items(hub_table(tmp_path / "x.parquet", [5, 6, 7], [2, 0, 0], None))
    some = items.take(torch.tensor([2, 0, 2])).take(torch.tensor([1, 2]))
    assert isinstance(some, Encoded)
    assert isinstance(items, Encoded)
    assert some.column is items.column
    assert [some.describe(i)[-5:] for i in range(2)] == ["row 0", "row 2"]
    assert pixels(some)[:, 0, 0, 0].tolist() == [5, 7]
    assert some.digest(1) == items.digest(2) != items.digest(1)


def test_encoded_images_go_to_another_process(tmp_path: Path) -> None:
    items = open_items(hub_table(tmp_path / "x.parquet", [5, 6], [0, 1], None))
    assert pickle.loads(pickle.dumps(items)).digest(1) == items.digest(1)


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"),
        ("data/train-0.parquet", "data/train-1.parquet", "data/test-0.parquet"),
        ("cifar/train/0000.parquet", "cifar/train/0001.parquet", "cifar/test/0000.parquet"),
    ],
)
def test_several_files_are_splits_and_their_pieces(tmp_path: Path, names: tuple[str, ...]) -> None:
    for i, name in enumerate(names):
        hub_table(tmp_path / name, [i, 10 + i], [0, 1], ["a", "b"])
    samples = open_samples(tmp_path)
    assert list(samples) == ["train", "test"]
    assert pixels(samples["train"].items)[:, 0, 0, 0].tolist() == [0, 10, 1, 11]
    assert samples["train"].items.describe(3) == f"{tmp_path / names[1]}, row 1"
    assert samples["test"].items.describe(0) == f"{tmp_path / names[2]}, row 0"


def test_pieces_of_one_split_need_the_same_columns(tmp_path: Path) -> None:
    hub_table(tmp_path / "train-0.parquet", [1], [0], None)
    hub_table(tmp_path / "train-1.parquet", [1], [0], None, column="label")
    assert "train-1.parquet has other columns than" in message(tmp_path)


def test_one_of_several_label_columns_must_be_named(tmp_path: Path) -> None:
    cells = [{"bytes": encoded(1), "path": None}] * 2
    path = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.table({"img": cells, "fine_label": [0, 1], "coarse_label": [1, 0]}), path)
    assert message(path) == (f"{path}: the label could be in 'fine_label', 'coarse_label'; name the column (label=)")
    assert open_samples(path, label="coarse_label")["train"].y.tolist() == [1, 0]


def test_splits_with_other_class_names_are_refused(tmp_path: Path) -> None:
    hub_table(tmp_path / "train.parquet", [1, 2], [0, 1], ["a", "b"])
    hub_table(tmp_path / "test.parquet", [1, 2], [0, 1], ["b", "a"])
    assert (
        message(tmp_path)
        == f"{tmp_path}: its splits name their classes differently; write them with the same class names"
    )


def test_a_column_of_bytes_and_labels_as_text_work(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.table({"jpeg": [encoded(3), encoded(4)], "label": ["u", "t"]}), path)
    samples = open_samples(path)["train"]
    assert samples.class_names == ("t", "u")
    assert pixels(samples.items)[:, 0, 0, 0].tolist() == [3, 4]


def test_a_parquet_table_of_paths_or_texts_reads_like_a_csv(tmp_path: Path) -> None:
    with_images(tmp_path, "a.png", "b.png")
    path = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.table({"path": ["a.png", "b.png"], "words": ["hi", "ho"], "label": [1, 0]}), path)
    assert open_samples(path)["train"].items.describe(1) == str(tmp_path / "b.png")
    assert open_samples(path, text="words")["train"].items.read(1) == "ho"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"img": [None, {"bytes": b"x"}], "label": [0, 1]}, ", row 0, column 'img': there are no bytes of an image"),
        ({"img": [{"bytes": b"x"}, {"bytes": None}], "label": [0, 1]}, ", row 1, column 'img': there are no bytes"),
        ({"img": [b"x", b"y"], "label": [0, None]}, ", row 1, column 'label': the cell is empty"),
        ({"img": [b"x", b"y"], "label": [0, -1]}, ", row 1: the label is -1; class numbers are 0 or more"),
        ({"img": [b"x", b"y"], "label": [0.0, 0.5]}, ", row 1: the label 0.5 is no integer and no name"),
        ({"img": [b"x", b"y"], "label": [[0], [1]]}, ": the column 'label' holds list<element: int64>; it must hold"),
        ({"img": [b"x"], "mask": [b"y"], "label": [0]}, ": the images could be in 'img', 'mask'; name the column"),
    ],
)
def test_what_is_wrong_in_a_parquet_table_is_named_with_its_row(tmp_path: Path, columns: dict, expected: str) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    assert message(path).startswith(f"{path}{expected}")


def test_two_parquet_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    columns = [pyarrow.array([b"x", b"y"]), pyarrow.array([0, 1]), pyarrow.array([1, 0])]
    parquet.write_table(pyarrow.Table.from_arrays(columns, names=["img", "label", "label"]), tmp_path / "x.parquet")
    assert message(tmp_path / "x.parquet") == f"{tmp_path / 'x.parquet'}: two columns are called 'label'; rename one"


def test_text_in_a_parquet_table_that_is_not_utf8_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    words = pyarrow.array([b"K\xe4se", b"Brot"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"img": [b"x", b"y"], "label": words}), path)
    assert message(path).startswith(f"{path} cannot be read as a Parquet file: ")


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = hub_table(tmp_path / "x.parquet", [1, 2], [0, 1], None)
    path.write_bytes(path.read_bytes()[:-9])
    assert message(path).startswith(f"{path} cannot be read as a Parquet file: ")


def test_a_broken_image_inside_a_table_is_named_by_its_row(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.table({"img": [encoded(1), encoded(1)[:45], b""], "label": [0, 1, 1]}), path)
    with pytest.raises(InputError, match=r"x\.parquet, row 1 is .*truncated or damaged"):
        pixels(open_samples(path)["train"].items)


def test_without_pyarrow_the_command_that_installs_it_is_shown(tmp_path: Path, monkeypatch) -> None:
    path = hub_table(tmp_path / "x.parquet", [1, 2], [0, 1], None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"needs pyarrow: pip install 'poise\[table\]'"):
        open_samples(path)


@needs_data
def test_the_real_cifar_100_is_found_by_itself() -> None:
    samples = open_samples(Path(DATA) / "cifar100")
    assert {name: len(s) for name, s in samples.items()} == {"train": 21535, "test": 10000}
    assert samples["test"].class_names[:2] == ("apple", "aquarium_fish")
    assert samples["test"].counts.n.tolist() == [100] * 100
    assert samples["train"].counts.n.tolist() == [max(130, int(500 * 10 ** (-c / 99))) for c in range(100)]
    assert pixels(samples["test"].take(range(20)).items).shape == (20, 3, 32, 32)


@needs_data
def test_the_real_questions_are_read_as_sentences() -> None:
    samples = open_samples(Path(DATA) / "banking77", text="text")
    assert {name: len(s) for name, s in samples.items()} == {"train": 10003, "test": 3080}
    counts = samples["train"].counts.n
    assert (len(counts), int(counts.max()), int(counts.min())) == (77, 187, 35)


def test_labels_that_a_damaged_file_lacks_are_missed(tmp_path):
    part = Part(Pixels(np.zeros((2, 4, 4, 3), dtype=np.uint8)), np.zeros(0, dtype=np.int64), str)
    with pytest.raises(InputError, match="0 labels for the 2 samples of the split 'train'; each sample needs one"):
        assembled(tmp_path, {"train": part}, None)
