"""JSON documents: what every reader of them refuses, and the bytes that every writer leaves."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file

from poise.commands import run_folder
from poise.commands.artefact_check import check_path
from poise.data.store import growing_store, manifest
from poise.data.store.feature_store import save_features
from poise.deployment import checkpoint_copy, model
from poise.errors import InputError
from poise.export import tensors
from poise.machine.documents import Document, as_read, read_table, to_json, write_json
from poise.report.files import write_report
from poise.representation import trained_network
from poise.representation.backbones import build
from poise.results import contents
from poise.values.counts import ClassCounts
from poise.values.features import Features
from poise.values.head import Head
from report_samples import everything

NAMES, COUNTS = ("a", "ä", "ß"), ClassCounts(torch.tensor([5, 3, 1]))


def features(folder: Path) -> Path:
    y = torch.arange(9) % 3
    rows = Features(torch.arange(18.0).view(9, 2), y, ClassCounts.from_labels(y), class_names=NAMES)
    return save_features(rows, folder, provenance={"who": "Zoë"}) / "manifest.json"


def modelled() -> model.Model:
    head = Head(torch.eye(3), torch.zeros(3))
    return model.Model(
        head=head, class_names=NAMES, counts=COUNTS, prior_applied=None, method="ce", provenance={"who": "Zoë"}
    )


def represented(folder: Path) -> Path:
    made = trained_network.Representation(backbone=build("convnet4", size=16, seed=1), class_names=NAMES, counts=COUNTS)
    return made.save(folder) / "representation.json"


def noted(folder: Path) -> Path:
    folder.mkdir()
    save_file({"fc.weight": torch.eye(2)}, folder / "m.safetensors")
    content = (folder / "m.safetensors").read_bytes()
    about = checkpoint_copy.Digest("m.safetensors", len(content), hashlib.sha256(content).hexdigest())
    checkpoint_copy._write_note(folder, {"class_names": list(NAMES)}, [(about, about)])
    return folder / checkpoint_copy.NOTE


def checked(folder: Path) -> None:
    """Raises: InputError with what `check` says."""
    if problems := check_path(folder)[1]:
        raise InputError("; ".join(problems))


class Kept(NamedTuple):
    """A document as Poise keeps it: who writes one, who opens its folder, and how json.dumps lays it out."""

    document: Document
    write: Callable[[Path], Path]
    open: Callable[[Path], Any]
    layout: dict[str, Any]


READABLE, ESCAPED = {"indent": 1, "ensure_ascii": False}, {"indent": 1}
COMPACT = {"ensure_ascii": False, "separators": (",", ":")}
KEPT = {
    "features": Kept(manifest.DOCUMENT, features, manifest.read_manifest, ESCAPED),
    "model": Kept(model.DOCUMENT, lambda f: modelled().save(f) / "model.json", model.load, READABLE),
    "representation": Kept(trained_network.DOCUMENT, represented, trained_network.load_representation, ESCAPED),
    "report": Kept(
        contents.DOCUMENT,
        lambda f: write_report(f, everything())[0],
        lambda f: contents.read(f / "report.json"),
        COMPACT,
    ),
    "export": Kept(tensors.EXPORTED, lambda f: tensors.export_safetensors(modelled(), f)[1], checked, READABLE),
    "rebalanced": Kept(checkpoint_copy.REBALANCED, noted, checked, READABLE),
}
every_document = pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)


@every_document
def test_a_document_says_format_and_schema_first_and_has_the_bytes_of_its_layout(tmp_path: Path, kept: Kept) -> None:
    content = kept.write(tmp_path / "x").read_bytes()
    body = json.loads(content)
    assert (json.dumps(body, **kept.layout) + "\n").encode() == content
    assert list(body)[:2] == ["format", kept.document.version]
    assert (body["format"], body[kept.document.version]) == (kept.document.format, kept.document.schema)
    assert set(kept.document.kinds) <= set(body)
    kept.open(tmp_path / "x")


def refusal(kept: Kept, path: Path) -> str:
    """The sentence, without the name of the file that it begins with."""
    with pytest.raises(InputError) as caught:
        kept.open(path.parent)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(path))


NO_JSON = {
    "not UTF-8": (b'{"a": "\xff"}', " is not UTF-8 (byte 8); "),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), " is not UTF-8 (byte 1); "),
    "empty": (b"", " is no JSON (Expecting value: line 1 column 1 (char 0)); "),
    "cut": (b'{"format": ', " is no JSON ("),
    "nan": (b'{"a": NaN}', " is no JSON (NaN is no JSON number); "),
    "infinity": (b'{"a": -Infinity}', " is no JSON (-Infinity is no JSON number); "),
    "deep": (b"[" * 100_000, " is no JSON ("),
    "long number": (b'{"a": ' + b"1" * 5000 + b"}", " is no JSON ("),
    "list": (b"[]", " holds no table of keys and values; "),
    "text": (b'"poise.model"', " holds no table of keys and values; "),
    "null": (b"null", " holds no table of keys and values; "),
}


@every_document
@pytest.mark.parametrize(("content", "sentence"), NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_object_of_json_is_refused(tmp_path: Path, kept: Kept, content: bytes, sentence: str) -> None:
    path = kept.write(tmp_path / "x")
    path.write_bytes(content)
    said = refusal(kept, path)
    assert said.startswith(sentence)
    assert said.endswith(kept.document.remedy)


@every_document
@pytest.mark.parametrize("found", [None, "other", 1, ["poise.model"]])
def test_another_format_is_refused(tmp_path: Path, kept: Kept, found: Any) -> None:
    path = kept.write(tmp_path / "x")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "format": found}))
    assert refusal(kept, path) == f" holds no {kept.document.what} of Poise; {kept.document.remedy}"


@every_document
@pytest.mark.parametrize("found", [None, "1", True, 0, -1, 1.0, "next", 10**30])
def test_a_schema_that_is_none_or_newer_is_refused(tmp_path: Path, kept: Kept, found: Any) -> None:
    path, key, newest = kept.write(tmp_path / "x"), kept.document.version, kept.document.schema
    found = newest + 1 if found == "next" else found
    path.write_text(json.dumps({**json.loads(path.read_bytes()), key: found}))
    newer = type(found) is int and found > newest
    said = f": {key} must be a whole number, 1 or more, got {found!r}; {kept.document.remedy}"
    expected = f" has {key} {found}, this version reads up to {newest}; update poise" if newer else said
    assert refusal(kept, path) == expected


@every_document
def test_every_key_that_lacks_or_does_not_fit_is_named(tmp_path: Path, kept: Kept) -> None:
    path = kept.write(tmp_path / "x")
    body = json.loads(path.read_bytes())
    for key in kept.document.kinds:
        path.write_text(json.dumps({name: value for name, value in body.items() if name != key}))
        assert refusal(kept, path) == f": {key} is missing; {kept.document.remedy}"
        path.write_text(json.dumps({**body, key: 0.5}))
        said = refusal(kept, path)
        assert said.startswith(f": {key} must be ")
        assert said.endswith(f", got 0.5; {kept.document.remedy}")


@every_document
def test_a_document_that_is_missing_or_a_folder_is_refused(tmp_path: Path, kept: Kept) -> None:
    path = kept.write(tmp_path / "x")
    path.unlink()
    with pytest.raises(InputError) as caught:
        kept.document.read(path)
    missing = f"{path} is missing: {tmp_path / 'x'} holds no finished {kept.document.what}; {kept.document.remedy}"
    assert str(caught.value) == missing
    path.mkdir()
    with pytest.raises(InputError, match=r" is a folder, not a file; "):
        kept.document.read(path)


@every_document
def test_a_byte_order_mark_is_no_fault(tmp_path: Path, kept: Kept) -> None:
    path = kept.write(tmp_path / "x")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert kept.document.read(path)["format"] == kept.document.format
    if kept.document is checkpoint_copy.REBALANCED:  # which vouches for its own bytes
        assert "is not as it was written" in refusal(kept, path)
    else:
        kept.open(path.parent)


# --- files without a format -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("content", "sentence"), NO_JSON.values(), ids=NO_JSON)
def test_a_damaged_note_of_an_extraction_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    growing_store.begin(tmp_path, {"backbone": "x"})
    (tmp_path / "extracting.json").write_bytes(content)
    with pytest.raises(InputError) as caught:
        growing_store.begin(tmp_path, {"backbone": "x"})
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'extracting.json'}{sentence}")
    assert said.endswith("; delete the folder and run the extraction again")


def test_files_without_a_format_have_the_bytes_of_their_layout(tmp_path: Path) -> None:
    growing_store.begin(tmp_path / "x", {"b": ("ä", 1), "a": None})
    assert (tmp_path / "x" / "extracting.json").read_bytes() == b'{\n "b": [\n  "\\u00e4",\n  1\n ],\n "a": null\n}\n'
    path = run_folder.write_json(tmp_path / "comparison.json", {"b": 1, "a": "ä"})
    assert path.read_bytes() == b'{\n "a": "\\u00e4",\n "b": 1\n}\n'


# --- writing ----------------------------------------------------------------------------------------------------------


def looped() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize("value", [object(), float("nan"), float("inf"), looped(), Path("x"), {("a", 1): 2}])
def test_what_is_no_json_is_refused_and_leaves_the_file(tmp_path: Path, value: Any) -> None:
    path = write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(InputError) as caught:
        write_json(path, {"a": value})
    assert str(caught.value).startswith(f"cannot write {path}: options and provenance must be plain JSON (")
    assert read_table(path, "") == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_data_as_read_are_what_a_reader_gets(tmp_path: Path) -> None:
    data = {1: (2, None), "a": {"ä": True}}
    told = as_read(data, "x")
    assert told == {"1": [2, None], "a": {"ä": True}}
    assert read_table(write_json(tmp_path / "x.json", data), "") == told == as_read(told, "x")
    assert to_json(told, "x").endswith("}\n")
