"""Heads of trained models in files: read as they are, or refused in one sentence."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from poise.data.head_files import read_head
from poise.errors import InputError
from poise.values.head import Head, Prep

W = np.arange(12, dtype=np.float32).reshape(3, 4)
B = np.array([1.0, 2.0, 3.0], dtype=np.float32)


def refusal(path, **sizes):
    """The one sentence of a refusal, without the folder."""
    with pytest.raises(InputError) as caught:
        read_head(path, **{"classes": 3, "dim": 4, **sizes})
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{path.parent}/", "")


@pytest.mark.parametrize(
    ("weight", "bias"),
    [("W", "b"), ("weight", "bias"), ("fc.weight", "fc.bias"), ("model.head.weight", "model.head.bias")],
)
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_layer_is_found_under_its_usual_names(tmp_path, weight, bias, suffix):
    path = tmp_path / f"é head{suffix}"
    if suffix == ".npz":
        np.savez(path, **{weight: W, bias: B, "other": np.zeros(3)})
    else:
        save_file({weight: torch.from_numpy(W), bias: torch.from_numpy(B), "other": torch.zeros(3)}, path)
    head = read_head(path, classes=3, dim=4)
    assert torch.equal(head.weight, torch.from_numpy(W))
    assert torch.equal(head.bias, torch.from_numpy(B))
    assert head.prep is None


def test_the_layer_of_the_right_shape_is_chosen_and_a_missing_bias_is_zero(tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, **{"conv.weight": np.zeros((7, 7)), "fc.weight": W})
    head = read_head(path, classes=3, dim=4)
    assert torch.equal(head.weight, torch.from_numpy(W))
    assert torch.equal(head.bias, torch.zeros(3))


@pytest.mark.parametrize("dtype", ["float64", "float16", ">f4", "int64"])
def test_other_number_types_become_float32(tmp_path, dtype):
    path = tmp_path / "head.npz"
    np.savez(path, W=W.astype(dtype), b=B.astype(dtype))
    head = read_head(path, classes=3, dim=4)
    assert head.weight.dtype == head.bias.dtype == torch.float32
    assert torch.equal(head.weight, torch.from_numpy(W))


def test_bfloat16_weights_of_a_checkpoint_are_read(tmp_path):
    path = tmp_path / "head.safetensors"
    save_file({"fc.weight": torch.from_numpy(W).bfloat16(), "fc.bias": torch.from_numpy(B).bfloat16()}, path)
    assert torch.equal(read_head(path, classes=3, dim=4).weight, torch.from_numpy(W))


def test_a_saved_head_keeps_its_normalisation(tmp_path):
    given = Head(torch.from_numpy(W), torch.from_numpy(B), Prep(torch.arange(4.0), unit=True))
    path = given.save(tmp_path / "head.safetensors")
    found, x = read_head(path, classes=3, dim=4), torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found(x), given(x))


def test_a_saved_head_of_another_shape_is_refused_with_both_shapes(tmp_path):
    path = Head(torch.from_numpy(W), torch.from_numpy(B)).save(tmp_path / "head.safetensors")
    assert refusal(path, dim=5) == (
        "the head in head.safetensors has 3 classes and 4 features, the training rows have 3 and 5"
    )


def test_a_stack_of_heads_is_refused(tmp_path):
    path = Head(torch.zeros(2, 3, 4), torch.zeros(2, 3)).save(tmp_path / "head.safetensors")
    assert refusal(path) == "head.safetensors holds a stack of 2 heads; save one of them"


def test_layers_of_the_wrong_shape_are_listed_with_their_shapes(tmp_path):
    path = tmp_path / "head.npz"
    np.savez(path, W=W.T, b=B)
    assert refusal(path) == (
        "head.npz needs one layer of weights (3, 4) called W or weight, and has none; it holds 'W' (4, 3)"
    )


def test_a_file_without_any_layer_lists_what_it_holds(tmp_path):
    path = tmp_path / "head.npz"
    np.savez(path, x=W, y=B)
    assert refusal(path) == (
        "head.npz needs one layer of weights (3, 4) called W or weight, and has none; it holds 'x', 'y'"
    )


def test_two_layers_of_the_shape_are_not_guessed_between(tmp_path):
    path = tmp_path / "head.npz"
    np.savez(path, **{"a.weight": W, "b.weight": W})
    assert refusal(path) == (
        "head.npz needs one layer of weights (3, 4) called W or weight, and has several: 'a.weight', 'b.weight'"
    )


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"W": W * np.nan, "b": B}, "head.npz: a head's weight holds NaN or infinity"),
        ({"W": W, "b": B * np.inf}, "head.npz: a head's bias holds NaN or infinity"),
        (
            {"W": W, "b": B[:2]},
            "head.npz: a head needs weight (..., C, D) and bias (..., C), got (3, 4) and (2,)",
        ),
        ({"W": W.astype(str), "b": B}, "head.npz: 'W' holds <U32 values; numbers up to float64 are needed"),
    ],
)
def test_values_that_make_no_head_are_refused_with_the_name_of_the_file(tmp_path, arrays, sentence):
    path = tmp_path / "head.npz"
    np.savez(path, **arrays)
    assert refusal(path) == sentence


def test_a_pickled_checkpoint_is_refused_with_the_remedy_and_never_opened(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    assert refusal(path) == (
        "a head is read from a .safetensors or .npz file, and model.pt is none; of a pickled checkpoint, save the "
        "state dict with safetensors"
    )


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_damaged_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"head{suffix}"
    path.write_bytes(b"PK\x03\x04 nothing")
    assert refusal(path).startswith(f"head{suffix} cannot be read, it is damaged or no {suffix} file (")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_class_names_in_the_file_bring_the_classes_into_the_order_of_the_rows(tmp_path, suffix):
    path, own = tmp_path / f"head{suffix}", ["zebra", "ant", "cat"]
    if suffix == ".npz":
        np.savez(path, W=W, b=B, class_names=np.array(own))
    else:
        Head(torch.from_numpy(W), torch.from_numpy(B)).save(path, metadata={"class_names": json.dumps(own)})
    head = read_head(path, classes=3, dim=4, names=("ant", "cat", "zebra"))
    assert torch.equal(head.weight, torch.from_numpy(W[[1, 2, 0]]))
    assert head.bias.tolist() == [2.0, 3.0, 1.0]
    assert torch.equal(read_head(path, classes=3, dim=4).weight, torch.from_numpy(W))


def test_class_names_that_are_others_are_refused(tmp_path):
    path = tmp_path / "head.npz"
    np.savez(path, W=W, b=B, class_names=np.array(["zebra", "ant", "cut"]))
    assert refusal(path, names=("ant", "cat", "zebra")) == (
        "the head in head.npz does not know the class 'cat' of the training rows, did you mean 'cut'?; its class_names "
        "are 'zebra', 'ant', 'cut'"
    )
    np.savez(path, W=W, b=B, class_names=np.array(["zebra", "ant"]))
    assert refusal(path, names=("ant", "cat", "zebra")) == (
        "head.npz has 2 class_names for 3 classes; give one for each"
    )
