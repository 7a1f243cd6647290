"""What can happen to the bytes of any file, and to the values of any document; all is drawn from a random.Random."""

import json
import random
from collections.abc import Callable
from typing import Any

Draws = random.Random

# --- bytes of any kind ------------------------------------------------------------------------------------------------

BITS = 8
LENGTHS = (0, 1, 2**7, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
STRANGE = (
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\x1b[31m",
    b"\r",
    b"\n\n",
    b"\xef\xbb\xbf",
    b"../",
    b"1e400",
    b"NaN",
)


def _place(content: bytes, draws: Draws) -> int:
    """A place, half of the time among the first 64 bytes, where formats have their headers."""
    most = len(content) if draws.random() < 0.5 else min(len(content), 64)
    return draws.randrange(most + 1)


def flipped(content: bytes, draws: Draws) -> bytes:
    """1 to 8 bits flipped."""
    found = bytearray(content)
    for _ in range(draws.choice((1, 1, 2, 8)) if found else 0):
        found[min(_place(content, draws), len(found) - 1)] ^= 1 << draws.randrange(BITS)
    return bytes(found)


def cut_out(content: bytes, draws: Draws) -> bytes:
    """A few bytes deleted."""
    start = _place(content, draws)
    return content[:start] + content[start + draws.choice((1, 1, 4, 64)) :]


def put_in(content: bytes, draws: Draws) -> bytes:
    """Strange or random bytes inserted."""
    start = _place(content, draws)
    added = draws.choice((*STRANGE, draws.randbytes(draws.choice((1, 4, 64)))))
    return content[:start] + added + content[start:]


def doubled(content: bytes, draws: Draws) -> bytes:
    """A part of it repeated, up to a few hundred times."""
    start = _place(content, draws)
    part = content[start : start + draws.choice((1, 8, 64))]
    return content[:start] + part * draws.choice((2, 2, 300)) + content[start + len(part) :]


def truncated(content: bytes, draws: Draws) -> bytes:
    """The end missing."""
    return content[: draws.randrange(len(content) + 1)]


def lengthened(content: bytes, draws: Draws) -> bytes:
    """A field of 2, 4 or 8 bytes set to an extreme, as if it were a length."""
    size, order = draws.choice((2, 4, 8)), draws.choice(("little", "big"))
    start = _place(content, draws)
    field = (draws.choice(LENGTHS) % 2 ** (BITS * size)).to_bytes(size, order)
    return content[:start] + field + content[start + size :]


def random_bytes(content: bytes, draws: Draws) -> bytes:
    """Nothing of it left."""
    return draws.randbytes(draws.choice((0, 1, 9, 200)))


DAMAGE: tuple[Callable[[bytes, Draws], bytes], ...] = (
    flipped,
    flipped,
    cut_out,
    put_in,
    doubled,
    truncated,
    lengthened,
    random_bytes,
)


def spliced(content: bytes, other: bytes, draws: Draws) -> bytes:
    """The beginning of one file and the end of another."""
    return content[: _place(content, draws)] + other[_place(other, draws) :]


def damaged(content: bytes, draws: Draws, other: bytes = b"") -> tuple[bytes, str]:
    """One mutation of bytes, rarely several, and its name."""
    if other and draws.random() < 0.1:
        return spliced(content, other, draws), "spliced"
    way = draws.choice(DAMAGE)
    for _ in range(draws.choice((1, 1, 1, 3))):
        content = way(content, draws)
    return content, way.__name__


# --- values -----------------------------------------------------------------------------------------------------------


def _deep(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


VALUES: tuple[Any, ...] = (
    0,
    -1,
    1,
    2,
    0.5,
    -0.0,
    1e-40,
    1e300,
    float("inf"),
    float("nan"),
    2**31,
    2**53 + 1,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    10**30,
    True,
    None,
    "",
    " ",
    "0",
    "nan",
    [],
    [[]],
    {},
    [None],
    {"": None},
    "x" * 100_000,
    "\x00",
    "\ud800",
    "\x1b[2J\x1b[31mred",
    "line\nfeed\rreturn",
    "\u202egnitsud",
    "../x",
    "../../../../etc/passwd",
    "/etc/passwd",
    "/dev/zero",
    "\\\\host\\x",
    "a/b",
    "=1+1",
    "os:system",
    "timm:resnet18",
    "1e400",
    "9" * 5000,
    _deep(50),
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values within."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inside for place in _places(item, (*path, key)))]


def _deleted(parent: Any, key: Any, draws: Draws) -> None:
    del parent[key]


def _replaced(parent: Any, key: Any, draws: Draws) -> None:
    parent[key] = draws.choice(VALUES)


def _moved(parent: Any, key: Any, draws: Draws) -> None:
    other = draws.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
    parent[key], parent[other] = parent[other], parent[key]


def _renamed(parent: Any, key: Any, draws: Draws) -> None:
    if isinstance(parent, dict):
        parent[draws.choice([value for value in VALUES if isinstance(value, str)])] = parent.pop(key)
    else:
        parent.insert(key, draws.choice(VALUES))


def _neighbour(parent: Any, key: Any, draws: Draws) -> None:
    """A value of the same type beside the right one."""
    value = parent[key]
    if isinstance(value, bool) or value is None:
        parent[key] = not value
    elif isinstance(value, int | float):
        parent[key] = draws.choice((value + 1, value - 1, -value, value * 2, value / 3, value * 10**20, str(value)))
    elif isinstance(value, str):
        parent[key] = draws.choice((value[:-1], value + value, value.upper(), [value], value + "\x00"))
    else:
        parent[key] = value * 2 if isinstance(value, list) else [value]


CHANGES = (_deleted, _replaced, _replaced, _moved, _renamed, _neighbour, _neighbour)


def changed(value: Any, draws: Draws) -> tuple[Any, str]:
    """A JSON value with one or two of the values within deleted, replaced, moved or renamed."""
    value = json.loads(json.dumps(value))
    name = "nothing"
    for _ in range(draws.choice((1, 1, 1, 2))):
        places = [place for place in _places(value) if place]
        if not places or draws.random() < 0.02:
            return draws.choice(VALUES), "top replaced"
        *path, key = draws.choice(places)
        parent = value
        for step in path:
            parent = parent[step]
        change = draws.choice(CHANGES)
        change(parent, key, draws)
        name = change.__name__.strip("_")
    return value, name
