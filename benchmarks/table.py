"""Fill the tables of docs/performance.md from benchmarks/results, so that no number is typed by hand.

    python benchmarks/table.py [--check]

A table stands between `<!-- begin NAME -->` and `<!-- end NAME -->`. What has no result says "not measured". With
`--check` nothing is written, and the exit code is 1 if the page does not say what the results say.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from poise.machine.atomic import write_atomically

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
MISSING = "not measured"

Result = dict[str, Any]


class Row(NamedTuple):
    """A row of the first table; `measured` reads the result of the benchmark `name`."""

    what: str
    against: str
    aim: str
    name: str
    measured: Callable[[Result], str]
    options: str = ""


# --- what the first table says of each result -------------------------------------------------------------------------


def heads(result: Result) -> str:
    """The pass and the limit, and the ordinary loops."""
    to_limit, to_pass = result["ratio_to_limit"], result["ratio_to_pass"]
    return (
        f"{to_limit['pass']:.2f}x ({middle(result['repeats'], 'pass'):.1f} s); to the pass: one by one "
        f"{to_pass['one_by_one']:.1f}x, plain loop {to_pass['plain']:.1f}x, DataLoader loop {to_pass['loader']:.1f}x"
    )


def large(result: Result) -> str:
    """Both precisions, and what the shorter one gains and costs."""
    said = [f"{found:.2f}x {precision}" for precision, found in result["ratio"].items()]
    if "speedup" in result:
        said.append(f"bfloat16 {result['speedup']:.1f}x as fast")
        said.append(f"accuracy {result['difference']['all']:+.3f} points")
    return "; ".join(said)


def converged(result: Result) -> str:
    """The lowest and highest ratio by size and dtype."""
    said = []
    for size in ("small", "large"):
        of_type: dict[str, list[float]] = {}
        for row in result.get(size, ()):
            of_type.setdefault(row["dtype"], []).append(row["ratio"])
        said += [f"{size} {dtype} {min(found):.1f} to {max(found):.1f}x" for dtype, found in of_type.items()]
    return "; ".join(said) or MISSING


def path(result: Result) -> str:
    """The ratio by dtype."""
    return "; ".join(f"{row['dtype']} {row['ratio']:.1f}x" for row in result.get("path", ())) or MISSING


def decision(result: Result) -> str:
    """Seconds of each way to search, beside head by head."""
    said = []
    for size in ("small", "large"):
        seconds = dict(result.get(size, {}).get("seconds", {}))
        alone = seconds.pop("head by head", None)
        ways = ", ".join(f"{search} {found:.0f} s" for search, found in seconds.items())
        said += [f"{size} {ways} (head by head {alone:.0f} s)"] if seconds else []
    return "; ".join(said) or MISSING


def inaturalist(result: Result) -> str:
    """Ratio and memory by precision."""
    said = [
        f"{precision} {found:.2f}x, peak {result['peak'][precision]:.1f} GB, of it allocated "
        f"{max(run['memory']['fit']['anonymous'] for run in result['found'][precision]):.1f} GB"
        for precision, found in result["ratio"].items()
    ]
    return "; ".join(said)


def scaling(result: Result) -> str:
    """The exponent, and 64 heads beside one."""
    alike, mixed = (
        next(point["ratio"] for point in result["costs"] if (point["axis"], point["size"]) == (axis, 64))
        for axis in ("heads", "mixed heads")
    )
    return f"N^{result['exponent']['large']:.2f}; {alike:.2f} of one head alone (mixed methods: {mixed:.2f})"


def processes(result: Result) -> str:
    """Seconds and differences of the last way."""
    said = []
    for case, found in result["cases"].items():
        way = result["setting"]["ways"][-1]
        said.append(
            f"{case}: {found['ratio'][way]:.2f}x the seconds, weights {found['difference'][way]['numbers']:.0e} apart"
        )
    return "; ".join(said)


ROWS = (
    Row(
        "256 mixed heads, 10,847 x 64, C = 100, 20 epochs, batch 128",
        "products, one softmax pass, one momentum update of the same sizes",
        "<= 1.3x",
        "heads",
        heads,
    ),
    Row(
        "one `crt` head, 115,846 x 2048, C = 1000, 10 epochs",
        "its bare matrix products, same precision",
        "<= 1.3x float32, <= 1.6x bfloat16; bfloat16 >= 3x as fast with AMX, accuracy within 0.1 points",
        "large",
        large,
    ),
    Row(
        "converged L2 head at equal objective, 10,847 x 64 (small), 50,000 x 768 (large), C = 100",
        "scikit-learn LogisticRegression, same dtype",
        ">= 5x small, >= 3x large",
        "converged",
        converged,
    ),
    Row(
        "path of 20 penalties, 5 folds, 10,847 x 64",
        "scikit-learn LogisticRegressionCV, same grid",
        ">= 10x",
        "converged",
        path,
    ),
    Row(
        "time to a decision: all methods tuned with equal budgets, tied set, verdict; "
        "10,847 x 64, C = 100 (small), 115,846 x 2048, C = 1000 (large)",
        "wall clock on 2 cores; the same search head by head",
        "< 20 s; < 10 min",
        "decision",
        decision,
    ),
    Row(
        "one epoch, 437,513 x 2048 float16, C = 8142",
        "its matrix products; peak resident memory",
        "<= 1.5x; < 6 GB",
        "inaturalist",
        inaturalist,
    ),
    Row(
        "cost against N, D, C, heads",
        "itself at other sizes; 64 heads, each beside one alone",
        "linear in N; <= 0.25",
        "scaling",
        scaling,
    ),
    Row("2 processes, one thread each", "1 process, one thread", "same result, speed stated", "processes", processes),
)


# --- the other tables -------------------------------------------------------------------------------------------------


def overview() -> str:
    """The first table."""
    lines = []
    for row in ROWS:
        result = read(row.name)
        measured = MISSING if result is None else row.measured(result)
        command = f"`python benchmarks/{row.name}.py{row.options}`"
        lines.append((row.what, row.against, row.aim, measured, command))
    return markdown(("what", "against", "aim", "measured", "command"), lines)


def machines() -> str:
    """The machine of every result."""
    lines = []
    for name in dict.fromkeys(row.name for row in ROWS):
        facts = (read(name) or {}).get("machine")
        if facts is not None:
            short = ", ".join(facts.get("short_products", ())) or "-"
            kind = f"{facts['cpu']}, {facts['cores']} cores"
            lines.append((name, kind, short, facts["threads"], facts["torch"], facts["load"]))
    return markdown(("result", "machine", "short products", "threads", "torch", "load before"), lines)


def large_costs() -> str:
    """Seconds per epoch and accuracy by precision."""
    result = read("large")
    if result is None:
        return MISSING
    epochs, lines = result["setting"]["epochs"], []
    for precision, accuracy in result["accuracy"].items():
        times = [
            f"{middle(result['repeats'], f'{what} {precision}') / epochs:.2f}" for what in ("fit", "products", "step")
        ]
        lines.append((precision, *times, *(percent(share) for share in accuracy.values())))
    names = ("fit", "products", "products, softmax, update", "all", "many", "medium", "few")
    return markdown(("precision", *names), lines)


def memory() -> str:
    """Gigabytes of the process of each precision."""
    result = read("inaturalist")
    if result is None:
        return MISSING
    lines = [
        (precision, when, *(f"{sizes[kind]:.2f}" if kind in sizes else "-" for kind in ("peak", "anonymous", "mapped")))
        for precision, found in result["found"].items()
        for when, sizes in found[-1]["memory"].items()
    ]
    return markdown(("precision", "part", "peak, GB", "allocated, GB", "mapped, GB"), lines)


def costs() -> str:
    """Seconds of every size."""
    result = read("scaling")
    if result is None:
        return MISSING
    lines = [
        (
            point["axis"],
            point["size"],
            f"{point['seconds']:.3f}",
            f"{1000 * point['step']:.3f}",
            f"{point['ratio']:.3f}",
        )
        for point in result["costs"]
    ]
    return markdown(("changed", "size", "seconds", "ms per step", "per head, to the first"), lines)


def ways() -> str:
    """Seconds and differences of every way."""
    result = read("processes")
    if result is None:
        return MISSING
    lines = [
        (case, way, f"{middle(found['repeats'], way):.2f}", f"{apart['numbers']:.1e}", f"{apart['predictions']:.4%}")
        for case, found in result["cases"].items()
        for way, apart in found["difference"].items()
    ]
    return markdown(("case", "processes x threads", "seconds", "weights apart", "other class"), lines)


TABLES: dict[str, Callable[[], str]] = {
    "overview": overview,
    "machines": machines,
    "large": large_costs,
    "memory": memory,
    "scaling": costs,
    "processes": ways,
}


# --- writing ----------------------------------------------------------------------------------------------------------


def read(name: str) -> Result | None:
    """A result, or None if there is none."""
    file = HERE / "results" / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def middle(repeats: Sequence[dict[str, float]], what: str) -> float:
    """Median over repeats."""
    return statistics.median(seconds[what] for seconds in repeats)


def percent(share: float | None) -> str:
    """A number with two digits, or a dash."""
    return "-" if share is None else f"{share:.2f}"


def markdown(names: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """A table, or the remark that there is none."""
    rows = [f"| {' | '.join(str(cell) for cell in line)} |" for line in lines]
    return "\n".join([f"| {' | '.join(names)} |", "|" + "---|" * len(names), *rows]) if rows else MISSING


def filled(page: str) -> str:
    """The page with every table anew. Raises: ValueError for a table whose marks the page lacks."""
    for name, make in TABLES.items():
        marks = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        pattern = re.compile(f"{marks[0]}.*?{marks[1]}", re.DOTALL)
        if not pattern.search(page):
            raise ValueError(f"{PAGE} lacks {marks[0]} and {marks[1]}")
        text = f"{marks[0]}\n{make()}\n{marks[1]}"
        page = pattern.sub(lambda _, text=text: text, page)
    return page


def main() -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is out of date")
    given = parser.parse_args()
    before = PAGE.read_text(encoding="utf-8")
    after = filled(before)
    if not given.check:
        write_atomically(PAGE, after)
    elif after != before:
        sys.exit(f"{PAGE} does not say what benchmarks/results say; run: python benchmarks/table.py")


if __name__ == "__main__":
    main()
