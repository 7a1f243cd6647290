"""Files that a stranger made: pipes, bombs, lying headers, values beyond all types. One sentence, no memory taken."""

import gzip
import io
import json
import math
import os
import pickle
import struct
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from PIL import Image

from poise.cli.inputs import per_class
from poise.commands.config import text as yaml_text
from poise.data.logit_files import read_logits
from poise.data.row_files import read_features
from poise.data.samples.decoding import decode
from poise.data.samples.formats import open_samples
from poise.data.samples.lists import read_counts
from poise.data.samples.plain_pickle import plain_value
from poise.errors import InputError
from poise.values.checks import is_number
from poise.values.counts import as_counts
from poise.values.spec import Spec
from poise.values.wording import near

MIB = 2**20
NAMES = {b"fine_label_names": [b"cat", b"dog"], b"coarse_label_names": [b"pet"]}


def refusal(read: Callable[..., Any], *given: Any, mib: float = 20) -> str:
    """The sentence of a refusal that took no more than so much memory."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            read(*given)
        assert tracemalloc.get_traced_memory()[1] < mib * MIB
    finally:
        tracemalloc.stop()
    return str(caught.value)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of 4 MiB for what a compressed file grows to."""
    monkeypatch.setenv("POISE_MEMORY_LIMIT", str(4 * MIB))


def idx(axes: tuple[int, ...], values: bytes) -> bytes:
    return bytes((0, 0, 8, len(axes))) + struct.pack(f">{len(axes)}I", *axes) + values


def npy(kind: str, shape: tuple[int, ...], values: bytes = b"") -> bytes:
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}}}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + values


def npz(path: Path, **members: bytes) -> Path:
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def cifar(folder: Path, **files: bytes) -> Path:
    folder.mkdir()
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [0, 1], b"coarse_labels": [0, 0]}
    whole = {"train": pickle.dumps(batch, 2), "test": pickle.dumps(batch, 2), "meta": pickle.dumps(NAMES, 2)}
    for name, content in (whole | files).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    "name", ["a.txt", "a.txt.gz", "a.csv", "a.npz", "a.parquet", "b-images-idx3-ubyte", "cifar.tgz"]
)
@pytest.mark.parametrize("made", ["pipe", "device"])
def test_only_regular_files_are_read(tmp_path: Path, name: str, made: str) -> None:
    path = tmp_path / name
    os.mkfifo(path) if made == "pipe" else path.symlink_to("/dev/zero")
    assert refusal(open_samples, path).startswith(f"{path} is a {made}, not a file; ")


@pytest.mark.parametrize("name", ["a.csv", "a.npz", "a.npy", "a.safetensors", "a.parquet"])
def test_only_regular_files_hold_rows(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert refusal(read_features, tmp_path / name).startswith(f"{tmp_path / name} is a pipe, not a file; ")


def test_a_pipe_among_images_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert refusal(decode, tmp_path / "a.png", "a.png").startswith(f"{tmp_path / 'a.png'} is a pipe, not a file; ")


@pytest.mark.usefixtures("small")
def test_what_inflates_without_limit_is_refused(tmp_path: Path) -> None:
    lists, archive = tmp_path / "a.txt.gz", tmp_path / "b-images-idx3-ubyte.gz"
    lists.write_bytes(gzip.compress(b"a 0\n" * 3 * MIB))
    archive.write_bytes(gzip.compress(idx((5, 1024, 1024), bytes(5 * MIB))))
    packed = tmp_path / "cifar.tar.gz"
    with tarfile.open(packed, "w:gz") as file:
        member = tarfile.TarInfo("meta")
        member.size = 5 * MIB
        file.addfile(member, io.BytesIO(bytes(5 * MIB)))
    for path in (lists, archive, packed):
        said = f"{path} unpacks to more than {4 * MIB} bytes; unpack it, or raise POISE_MEMORY_LIMIT (bytes)"
        assert refusal(open_samples, path) == said
    bomb = npz(tmp_path / "c.npz", x=npy("<f4", (MIB, 5), bytes(20 * MIB)), y=npy("<i8", (1,), bytes(8)))
    assert "bytes in memory, more than 4194304; raise POISE_MEMORY_LIMIT" in refusal(read_features, bomb)


@pytest.mark.usefixtures("small")
def test_what_is_within_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a 0\nb 1\n" * 1000))
    assert len(open_samples(tmp_path / "a.txt.gz")["train"]) == 2000
    (tmp_path / "b-images-idx3-ubyte").write_bytes(idx((2, 1, 1), b"ab"))
    (tmp_path / "b-labels-idx1-ubyte").write_bytes(idx((2,), b"\0\1"))
    assert len(open_samples(tmp_path / "b-images-idx3-ubyte")["train"]) == 2


def test_columns_of_parquet_that_claim_more_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    path, rows = tmp_path / "a.parquet", MIB
    parquet.write_table(arrow.table({"a": np.arange(rows) / 7, "label": np.arange(rows) % 2}), path)
    monkeypatch.setenv("POISE_MEMORY_LIMIT", str(8 * rows - 1))
    said = refusal(read_features, path)
    assert said.startswith(f"{path}: 'a' takes ")
    assert said.endswith(f" bytes in memory, more than {8 * rows - 1}; raise POISE_MEMORY_LIMIT (bytes)")
    monkeypatch.setenv("POISE_MEMORY_LIMIT", str(9 * rows))
    assert len(read_features(path).features) == rows


@pytest.mark.parametrize("axes", [(2**31, 2**31, 4), (2**32 - 1, 1, 1), (3, 1, 1)])
def test_a_header_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path, axes: tuple[int, ...]) -> None:
    path = tmp_path / "a-images-idx3-ubyte"
    path.write_bytes(idx(axes, bytes(2)))
    assert refusal(open_samples, path) == f"{path} is truncated: its header says {axes}, and 2 values follow"


def test_arrays_without_bytes_are_refused(tmp_path: Path) -> None:
    x = npy("<f4", (2, 2), bytes(16))
    path = npz(tmp_path / "a.npz", x=x, y=npy("<U0", (10**12,)))
    claim = "cannot be read, it is damaged or no .npz file (its header claims"
    assert refusal(read_features, path).startswith(f"{path}: the array 'y' {claim} (1000000000000,) values of 0 bytes")
    path = npz(tmp_path / "b.npz", x=npy("<f4", (10**9, 100)), y=npy("<i8", (2,), bytes(16)))
    assert refusal(read_features, path).startswith(f"{path}: the array 'x' {claim} (1000000000, 100) values of 4")


HOSTILE_PICKLES = {
    "a place in memory beyond all": b"\x80\x02}r\xff\xff\xff\x0d.",
    "bytes that are not there": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "a call of a type": pickle.dumps(np.dtype, 2)[:-1] + b"U\x02O8\x85R.",
    "an array without a state": b"cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",
    "no end": b"}",
    "a name": b"cposix\nsystem\n.",
    "an object": b"(ios\nsystem\n.",
}


@pytest.mark.parametrize("content", HOSTILE_PICKLES.values(), ids=HOSTILE_PICKLES)
def test_a_pickle_that_asks_for_more_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = cifar(tmp_path / "cifar", meta=content)
    assert refusal(open_samples, folder).startswith(f"{folder}, meta")


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_of_a_pickle_are_read_by_every_protocol(protocol: int) -> None:
    value = {"a": [1, -2, 2**40, 1.5, None, True], b"b": ("x", b"\xff"), "c": {}, "d": [[], ()]}
    array = np.arange(6, dtype=">i2").reshape(2, 3)
    found = plain_value(pickle.dumps({**value, "z": array, "f": np.asfortranarray(array)}, protocol))
    assert {name: found[name] for name in value} == value
    assert found["z"].tolist() == found["f"].tolist() == array.tolist()


def test_lists_within_lists_are_refused_before_they_are_printed(tmp_path: Path) -> None:
    doubled: Any = ["a"]
    for _ in range(60):
        doubled = [doubled, doubled]
    folder = cifar(tmp_path / "cifar", meta=pickle.dumps({b"fine_label_names": [doubled]}, 2))
    assert refusal(open_samples, folder).endswith("'fine_label_names' must be a list of texts; get it anew")


def test_a_table_of_too_many_columns_or_cells_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(",".join(f"c{i}" for i in range(2**17 + 1)) + "\n1\n")
    assert refusal(read_features, path, mib=100).startswith(f"{path} has 131073 columns, more than the 131072 that")
    path.write_text("a,label\n" + "x" * MIB + ",1\n")
    assert "field larger than field limit" in refusal(read_features, path)


def test_yaml_that_repeats_or_holds_too_much_is_refused() -> None:
    assert "more than 20000 values" in refusal(yaml_text.parsed, "a: [1" + ",1" * 100_000 + "]", "a.yaml", mib=60)
    pairs = zip("abcdefghij", "bcdefghijk", strict=True)
    bomb = "a: &a [x,x,x]\n" + "".join(f"{new}: &{new} [*{old},*{old},*{old}]\n" for old, new in pairs)
    assert "more than 20000 values" in refusal(yaml_text.parsed, bomb, "a.yaml")
    assert "is not YAML" in refusal(yaml_text.parsed, 'a: "\\UFFFFFFFF"', "a.yaml")


def test_an_image_of_a_format_that_starts_a_program_stays_closed() -> None:
    stored = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stored, "EPS")
    assert refusal(decode, stored.getvalue(), "a.jpg").startswith("a.jpg is no image: it begins with b'%!PS-Ado'")


@pytest.mark.parametrize(
    "counts", [[2**63, 1], [2**62, 2**62, 2**62], [1e300, 1], [10**400, 1], np.array([2**63, 1], "u8")]
)
def test_counts_beyond_all_rows_are_refused(tmp_path: Path, counts: Any) -> None:
    assert "2^53" in refusal(as_counts, counts)
    if isinstance(counts, list) and all(isinstance(count, int) for count in counts):
        (tmp_path / "a.json").write_text(json.dumps(counts))
        assert refusal(read_counts, tmp_path / "a.json").startswith(f"{tmp_path / 'a.json'}: class counts ")


@pytest.mark.parametrize("counts", [[2, 1], np.array([2, 1], "u8"), np.array([2, 1], "f4"), [2**52, 1]])
def test_counts_of_every_type_of_numbers_are_taken(counts: Any) -> None:
    assert as_counts(counts).n.tolist() == [int(count) for count in counts]


@pytest.mark.parametrize("counts", [np.array(["2", "1"]), np.array([b"2", b"1"]), np.array([2j, 1])])
def test_counts_in_a_file_that_are_no_numbers_are_refused(tmp_path: Path, counts: Any) -> None:
    np.savez(tmp_path / "a.npz", logits=3 * np.eye(2), labels=[0, 1], counts=counts)
    assert refusal(read_logits, tmp_path / "a.npz").startswith(f"{tmp_path / 'a.npz'}: 'counts': class counts must be")


def test_labels_beyond_int64_are_refused_and_those_within_are_not(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.eye(2), y=np.array([0, 2**63], "u8"))
    said = f"{tmp_path / 'a.npz'}, row 1: the label is {2**63}; class numbers are below 2^63"
    assert refusal(read_features, tmp_path / "a.npz") == said
    np.savez(tmp_path / "a.npz", x=np.eye(2), y=np.array([0, 2**63 - 1], "u8"))
    assert read_features(tmp_path / "a.npz").features.class_names == ("0", str(2**63 - 1))


def test_a_number_beyond_all_floating_point_is_none(tmp_path: Path) -> None:
    assert [is_number(value) for value in (10**400, -(10**400), 10**300, math.inf)] == [False, False, True, False]
    (tmp_path / "a.json").write_text('{"a": 1, "b": 1' + "0" * 400 + "}")
    assert "needs a number for the class 'b'" in refusal(per_class, tmp_path / "a.json", ["a", "b"])
    (tmp_path / "a.json").write_text('{"a": 1, "b": 2.5}')
    assert per_class(tmp_path / "a.json", ["a", "b"]) == [1.0, 2.5]


@pytest.mark.parametrize(
    "given",
    ["{", "[1]", '["a"]', '{"name": "los"}', '[{"name": 1, "params": {}}]', '[{"name": "a"}]', "[]", "[" * 9999],
)
def test_a_method_that_no_json_describes_is_refused(given: str) -> None:
    assert "\n" not in refusal(Spec.from_json, given)


@pytest.mark.parametrize(
    "given", ["+".join(["ce"] * 51), "+".join(["ce"] * 9999), "a(b=" + "(" * 900, "a(b=0x" + "f" * 4000 + ")"]
)
def test_a_method_that_is_too_long_or_deep_is_refused(given: str) -> None:
    assert "\n" not in refusal(Spec.parse, given)


def test_a_name_is_looked_for_among_a_few_short_ones() -> None:
    assert near("a" * 100_000, ["b" * 100_000]) == ""
    assert near("speces", ["x" * 1000, "species"]) == ", did you mean 'species'?"


def test_a_class_name_with_half_of_a_character_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.eye(2), y=np.array(["a", "b\ud800"]))
    said = "the class name 'b\\ud800' holds half of a character, which has no UTF-8; rename it"
    assert refusal(read_features, tmp_path / "a.npz") == f"{tmp_path / 'a.npz'}: {said}"


def test_a_wide_table_is_read_in_time_that_grows_with_its_columns(tmp_path: Path) -> None:
    wide = 50_000  # looking through all columns for each of them would take minutes
    rows = "".join(",".join([str(k)] * wide) + f",{k % 2}\n" for k in range(4))
    (tmp_path / "a.csv").write_text(",".join(f"c{i}" for i in range(wide)) + ",label\n" + rows)
    assert read_features(tmp_path / "a.csv").features.dim == wide


def test_a_text_that_parquet_holds_once_for_many_rows_is_counted_for_each(tmp_path: Path) -> None:
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"a": np.arange(600) / 7, "label": ["x" * 500_000] * 600}), path)
    assert path.stat().st_size < MIB
    said = f"{path}: 'label' takes {600 * 500_000} bytes in memory, more than {2**28}; raise POISE_MEMORY_LIMIT (bytes)"
    assert refusal(read_features, path) == said
    parquet.write_table(arrow.table({"a": np.arange(4) / 7, "label": ["b", "a", "b", "a"]}), path)
    assert read_features(path).features.y.tolist() == [1, 0, 1, 0]
