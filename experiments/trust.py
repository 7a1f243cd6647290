"""What Poise promises, and what is delivered: one row per kind of promise, measured on rows that nobody here made.

Run: python experiments/trust.py [--out experiments/results] [--only WORD] [--as now|before]

Each row states what was done, what came of it, and what would be right. `--as before` fills the column of an earlier
state: run the script with that state's package first on the path (PYTHONPATH=OLD/src), it calls only what both have.
What is measured is kept in results/trust.json; the page, docs/trust.md, is made of it. Rows on texts need POISE_DATA.

The larger simulations are scripts of their own: promise.py (does the interval hold?), targets.py (are thresholds
delivered?), adapt.py (with and without a shift), simulations.py and verdicts.py (intervals and verdicts).
"""

import argparse
import json
from pathlib import Path

import torch
from trust_rows import answers, frozen_encoders, promised_number, repeated_rows, same_answer
from trust_rows.row import ROWS, Row

from poise.machine.atomic import write_atomically
from poise.results.record import versions

PAGE = Path("docs/trust.md")
MEASURED = (repeated_rows, promised_number, answers, same_answer, frozen_encoders)  # the rows stand in this order


def name_of(one: Row) -> str:
    """What a row is called in the results: the name of its measurement."""
    return one.measure.__name__.lstrip("_")


def rows() -> list[Row]:
    """All rows, in the order of `MEASURED`."""
    modules = [module.__name__ for module in MEASURED]
    return sorted(ROWS, key=lambda one: modules.index(one.measure.__module__))


def measured(only: str) -> dict[str, str]:
    """What each row gave, by the name of its measurement."""
    found = {}
    for one in rows():
        if only in f"{one.promise} {one.test} {name_of(one)}":
            found[name_of(one)] = one.measure()
            print(f"{one.promise} | {one.test}\n    {found[name_of(one)]}", flush=True)
    return found


def page(kept: dict[str, dict[str, str]], made_with: dict[str, str]) -> str:
    """The page of all rows, before and now."""
    lines = [
        "# Trust",
        "",
        "What Poise promises, and what is delivered on rows that nobody here made. `before` is the state in which "
        "these promises were tested for the first time; a script measures every row again.",
        "",
        "| promise | test | before | now | right |",
        "|---|---|---|---|---|",
    ]
    for one in rows():
        name = name_of(one)
        before, now = (kept.get(when, {}).get(name, "-") for when in ("before", "now"))
        lines.append(f"| {one.promise} | {one.test} | {before} | {now} | {one.right} |")
    versions_used = ", ".join(f"{name} {version}" for name, version in made_with.items())
    more = (
        "Simulations on many worlds: `experiments/promise.py`, `targets.py`, `adapt.py`, `simulations.py` and "
        "`verdicts.py`, with their pages in `experiments/results`."
    )
    lines += ["", more, "", f"Command: `python experiments/trust.py`; seeds in the script; {versions_used}.", ""]
    return "\n".join(lines)


def main() -> None:
    """Measure, keep, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    parser.add_argument("--only", default="", help="rows whose words hold this")
    parser.add_argument("--as", dest="column", choices=("now", "before"), default="now")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = given.out / "trust.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept[given.column] = {**kept.get(given.column, {}), **measured(given.only)}
    write_atomically(path, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    write_atomically(PAGE, page(kept, versions()))


if __name__ == "__main__":
    main()
