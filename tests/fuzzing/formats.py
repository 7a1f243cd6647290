"""What can happen to a file of a known format: damage within, where no checksum and no length gives it away.

    mutated("model.json", content, draws, other)   # (bytes, what was done in a word)

A file that is wrapped (a zip, a gzip, a header with its length before it) is unwrapped, mutated and wrapped again most
of the time; else its bytes are damaged as those of any file.
"""

import functools
import gzip
import io
import json
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping

import yaml

from fuzzing.mutations import LENGTHS, Draws, changed, damaged

# --- texts of a format ------------------------------------------------------------------------------------------------


DEEP = 30_000  # brackets within brackets, beyond what Python's parsers follow


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _json(content: bytes, draws: Draws) -> tuple[bytes, str]:
    value, name = changed(json.loads(content), draws)
    text = json.dumps(value, ensure_ascii=draws.random() < 0.7)
    if draws.random() < 0.1:
        text = re.sub(r"\d+(\.\d+)?", draws.choice(("1e400", "-1e400", "NaN", "9" * 5000)), text, count=1)
        name = "number"
    elif draws.random() < 0.03:
        text, name = "[" * DEEP + "]" * DEEP, "deep"
    elif draws.random() < 0.05 and text.startswith("{") and len(text) > 2:
        text, name = text[:-1] + ", " + text[1:], "every key twice"
    return _encoded(text), f"json {name}"


def _json_lines(content: bytes, draws: Draws) -> tuple[bytes, str]:
    lines = content.decode().splitlines()
    row = draws.randrange(len(lines))
    made, name = _json(lines[row].encode(), draws)
    before, after = lines[:row], lines[row + 1 :]
    return b"\n".join([*map(str.encode, before), made, *map(str.encode, after)]) + b"\n", name


YAML_LINES = (
    "x: &a [*a]",
    "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]",
    "x: !!python/object/apply:os.system [true]",
    "<<: {a: 1}",
    "? [1, 2]\n: 3",
    "x: 2026-13-45",
    "--- \nx: 1",
    "%YAML 9.9",
    "x: 0x1p3",
    "1: 2",
    "x: |\n  \x00",
    "x: '",
    "[" * 500,
)


def _yaml(content: bytes, draws: Draws) -> tuple[bytes, str]:
    if draws.random() < 0.3:
        lines = content.decode().splitlines()
        lines.insert(draws.randrange(len(lines) + 1), draws.choice(YAML_LINES))
        return _encoded("\n".join(lines)), "yaml line"
    value, name = changed(yaml.safe_load(content), draws)
    return _encoded(yaml.safe_dump(value, allow_unicode=draws.random() < 0.3)), f"yaml {name}"


CELLS = (
    "",
    "nan",
    "inf",
    "1e400",
    "-1",
    "x",
    '"',
    '"a',
    "a,b",
    "\x00",
    "\ud800",
    "\x1b[31m",
    "9" * 400,
    "=1",
    "\n",
    ";",
)


def _delimited(content: bytes, draws: Draws) -> tuple[bytes, str]:
    """A cell, a row or a column of a CSV, TSV or list of lines changed."""
    text = content.decode()
    gap = next((mark for mark in ("\t", ",", " ") if mark in text), ",")
    rows = [line.split(gap) for line in text.splitlines()]
    row = draws.choice(rows)
    way = draws.randrange(6)
    if way < 3 and row:
        row[draws.randrange(len(row))] = draws.choice(CELLS)
    elif way == 3:
        row.append(draws.choice(CELLS))
    elif way == 4:
        rows.append(list(row))
    else:
        column = draws.randrange(len(rows[0]))
        rows = [[*cells[:column], draws.choice(CELLS), *cells[column + 1 :]] for cells in rows]
    return _encoded(draws.choice(("\n", "\n", "\r\n", "\r")).join(map(gap.join, rows))), f"cell {way}"


WORDS = (
    "",
    "0",
    "-1",
    "0.5",
    "1e400",
    "nan",
    "9" * 5000,
    "2**9999",
    "None",
    "x",
    "'a'",
    "\x00",
    "\x1b[31m",
    "\ud800",
    "[]",
)
MARKS = ("(", ")", ",", "=", "+", "*", "[", "]", "{", "(" * 300, "lambda: 0", "__import__('os')", ".", "\n", "#")


def _words(content: bytes, draws: Draws) -> tuple[bytes, str]:
    """A word or a mark of a short text replaced, deleted, doubled or added."""
    parts = re.findall(r"\w[\w.]*|\W", content.decode())
    place = draws.randrange(len(parts))
    put = draws.choice(WORDS) if parts[place][0].isalnum() and draws.random() < 0.8 else draws.choice(MARKS)
    way = draws.randrange(4)
    parts[place : place + 1] = ([put], [], [parts[place]] * 2, [parts[place], put])[way]
    return _encoded("".join(parts)), f"word {way}"


# --- what is wrapped --------------------------------------------------------------------------------------------------

BOMB = 2**28 + 2**26  # bytes that a small file holds, more than `poise.machine.reading.INFLATED`


@functools.cache
def _gzip_bomb() -> bytes:
    return gzip.compress(bytes(BOMB), 1)


def _gzip(content: bytes, draws: Draws, name: str) -> tuple[bytes, str]:
    inside = gzip.decompress(content)
    if draws.random() < 0.01:
        return _gzip_bomb(), "gzip bomb"
    made, what = mutated(name.removesuffix(".gz"), inside, draws)
    return gzip.compress(made, 1), f"gzip of {what}"


def _tar(content: bytes, draws: Draws) -> tuple[bytes, str]:
    made, target = io.BytesIO(), io.BytesIO(content)
    with tarfile.open(fileobj=target) as old, tarfile.open(fileobj=made, mode="w") as new:
        members = old.getmembers()
        chosen = draws.randrange(len(members))
        for number, member in enumerate(members):
            file = old.extractfile(member)
            inside = file.read() if file else b""
            if number == chosen:
                if draws.random() < 0.3:
                    member.name = draws.choice(("../x", "/etc/passwd", "", "x" * 200, member.name))
                    member.type = draws.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE))
                inside, _ = damaged(inside, draws)
                member.size = len(inside)
            new.addfile(member, io.BytesIO(inside))
    return made.getvalue(), "tar member"


def _zip(content: bytes, draws: Draws) -> tuple[bytes, str]:
    """A member mutated, or the fields about one, with checksums that hold otherwise."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    chosen = draws.choice(list(members))
    members[chosen], what = mutated(chosen, members[chosen], draws)
    if draws.random() < 0.1:
        members[draws.choice(("../x", "/etc/passwd", "x" * 300, chosen + "\x00"))] = members.pop(chosen)
    bomb = draws.random() < 0.01
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED if bomb else zipfile.ZIP_STORED, compresslevel=1) as archive:
        for name, inside in members.items():
            archive.writestr(name, bytes(BOMB) if bomb and name == chosen else inside)
    return made.getvalue(), "zip bomb" if bomb else f"zip of {what}"


def _zip_fields(content: bytes, draws: Draws) -> tuple[bytes, str]:
    """Flags, method, sizes or offsets in the directory of a zip."""
    starts = [match.start() for match in re.finditer(b"PK\x01\x02|PK\x03\x04", content)]
    start, offset = draws.choice(starts), draws.choice((6, 8, 10, 16, 18, 20, 22, 24, 26, 28, 30, 42))
    size = draws.choice((1, 2, 4))
    field = (draws.choice(LENGTHS) % 256**size).to_bytes(size, "little")
    where = start + offset
    return content[:where] + field + content[where + size :], "zip field"


def _safetensors(content: bytes, draws: Draws) -> tuple[bytes, str]:
    """The header changed, with its right length before it."""
    end = 8 + struct.unpack("<Q", content[:8])[0]
    made, what = _json(content[8:end], draws)
    return struct.pack("<Q", len(made)) + made + content[end:], f"header {what}"


NPY_HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (%d,), }",
    "{'descr': '<f8', 'fortran_order': True, 'shape': (%d, 0), }",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (%d,), }",
    "{'descr': '<U1000000', 'fortran_order': False, 'shape': (%d,), }",
    "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (%d,), }",
    "{'descr': '|b1', 'fortran_order': False, 'shape': (-%d,), }",
    "{'descr': '<c16', 'fortran_order': False, 'shape': (), }",
    "{'shape': %d}",
)


def _npy(content: bytes, draws: Draws) -> tuple[bytes, str]:
    """Another header, or a number of it changed, with its right length before it."""
    end = 10 + struct.unpack("<H", content[8:10])[0]
    header = content[10:end].decode("latin-1").rstrip()
    if draws.random() < 0.5:
        words = draws.choice(("0", "3", "-1", str(2**31), str(2**62), "1e3", "None", "'x'"))
        header = re.sub(r"\d+(?=[,)])", words, header, count=1)
    else:
        shape = draws.choice(NPY_HEADERS)
        header = shape % draws.choice((0, 1, 10, 2**40)) if "%d" in shape else shape
    text = header.encode("latin-1") + b"\n"
    return content[:8] + struct.pack("<H", len(text)) + text + content[end:], "npy header"


FORMATS: Mapping[str, Callable[[bytes, Draws], tuple[bytes, str]]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".log": _json_lines,
    ".yaml": _yaml,
    ".csv": _delimited,
    ".tsv": _delimited,
    ".txt": _delimited,
    ".words": _words,
    ".npz": _zip,
    ".pt": _zip,
    ".safetensors": _safetensors,
    ".npy": _npy,
    ".tar": _tar,
}


def mutated(name: str, content: bytes, draws: Draws, other: bytes = b"") -> tuple[bytes, str]:
    """A mutant of the file `name`, and what was done; `other` is the content of another file, to splice with."""
    if draws.random() < 0.4:
        return damaged(content, draws, other)
    suffix = "." + name.rpartition(".")[2]
    if suffix == ".gz":
        return _gzip(content, draws, name)
    if suffix in (".npz", ".pt") and draws.random() < 0.3:
        return _zip_fields(content, draws)
    within = FORMATS.get(suffix)
    return within(content, draws) if within and content else damaged(content, draws, other)
