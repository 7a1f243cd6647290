import math

import numpy as np
import pytest

from poise.errors import InputError
from poise.values.fields import (
    FLAG,
    TABLE,
    TEXT,
    at_least,
    check_fields,
    list_of,
    number,
    one_of,
    optional,
    table_of,
    whole,
)


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1]", (0, 1, 0.5, np.float32(0.5)), (-1e-300, 1.0000001, math.nan, math.inf, True, "0.5", None)),
        ("[0, 1)", (0, 1 - 1e-16), (1, 1.0, -1)),
        ("(0, 1]", (5e-324, 1), (0, 0.0, -0.0, 2)),
        ("(0, 1)", (5e-324, 1 - 1e-16), (0, 1)),
    ],
)
def test_an_end_belongs_to_an_interval_as_it_is_written(interval, inside, outside):
    kind = number(interval)
    assert [value for value in (*inside, *outside) if kind.fits(value)] == list(inside)
    assert kind.wanted == f"a number in {interval}"


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (FLAG, (True, False), (0, 1, None, "no")),
        (TEXT, ("", "a"), (None, b"a", ["a"])),
        (TABLE, ({}, {"a": 1}), (None, [], "a")),
        (whole(1), (1, 2**70, np.int64(1)), (0, 1.0, True, "1", None)),
        (at_least(0), (0, 0.0, 1e300), (-1e-9, math.inf, math.nan, True, "0")),
        (one_of("a", "b"), ("a", "b"), ("ab", None, ["a"], 0)),
        (optional(whole(1)), (None, 1), (0, "")),
        (list_of("numbers", whole(0)), ([], (0, 1)), ([-1], "01", {0: 1}, None)),
        (list_of("numbers", whole(0), least=1), ([0],), ([], ())),
        (
            table_of(a=TEXT, b=whole(0)),
            ({"a": "", "b": 0},),
            ({"a": ""}, {"a": "", "b": 0, "c": 0}, {"a": 0, "b": 0}, []),
        ),
    ],
)
def test_a_kind_takes_what_it_says_and_nothing_else(kind, good, bad):
    assert [kind.fits(value) for value in (*good, *bad)] == [True] * len(good) + [False] * len(bad)


def test_a_refusal_names_the_field_what_would_do_the_value_and_the_remedy():
    kinds = {"rows": whole(1), "names": list_of("names", TEXT)}
    check_fields("x: ", {"rows": 1, "names": ["a"], "more": None}, kinds)
    for values, words in (
        ({"rows": 0, "names": []}, "x: rows must be a whole number, 1 or more, got 0; mend it"),
        ({"rows": 1}, "x: names is missing; mend it"),
        ({"rows": 1, "names": "y" * 999}, f"x: names must be a list of names, got '{'y' * 79}; mend it"),
    ):
        with pytest.raises(InputError) as refusal:
            check_fields("x: ", values, kinds, "; mend it")
        assert str(refusal.value) == words
    assert whole(1).said("the size").check("n", 3) == 3
    with pytest.raises(InputError, match=r"^n must be the size, got 0$"):
        whole(1).said("the size").check("n", 0)
