"""What the benchmarks share: time, ratios, bare matrix products, the facts of the machine, and results on disk."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poise import Features, Head
from poise.machine.atomic import write_atomically
from poise.metrics import evaluate_head

RESULTS = Path(__file__).parent / "results"
UNITS = ("avx512_bf16", "amx_bf16", "bf16")  # what a processor calls its products of bfloat16
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def timed(run: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def beside(run: Callable[[], object], yardstick: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a call, and of a yardstick: the mean of one call before it and one after, as the machine drifts."""
    before = timed(yardstick)
    seconds = timed(run)
    return seconds, (before + timed(yardstick)) / 2


def ratio(repeats: Sequence[Mapping[str, float]], what: str, to: str) -> float:
    """Median over repeats of the ratio within a repeat."""
    return statistics.median(seconds[what] / seconds[to] for seconds in repeats)


def median(repeats: Sequence[Mapping[str, float]], what: str) -> float:
    """Median over repeats."""
    return statistics.median(seconds[what] for seconds in repeats)


# --- the bare products of one head ------------------------------------------------------------------------------------

LAYOUTS = {
    "weight (C, D)": (0, False),
    "weight (C, D + 1)": (1, False),
    "weight (C, D + 32)": (32, False),
    "weight (D, C)": (0, True),
    "weight (D + 1, C)": (1, True),
}
"""Columns beyond D, and whether the weight is stored the other way round."""


def products(layout: str, x: Tensor, classes: int, batch: int) -> Callable[[], None]:
    """A call that multiplies rows x (N, D), batch by batch, forward and gradient, in the dtype of x and nothing else.

    The last batch may be short, as that of an epoch is. Columns that a layout adds are zero, which costs the same.
    """
    more, turned = LAYOUTS[layout]
    x = torch.nn.functional.pad(x, (0, more)) if more else x
    weight = torch.randn(classes, x.shape[1]).mul_(0.01).to(x.dtype)
    weight = weight.T.contiguous() if turned else weight
    slopes = torch.randn(min(batch, len(x)), classes).mul_(0.01).to(x.dtype)
    logits, gradient = torch.empty_like(slopes), torch.empty_like(weight)

    def run() -> None:
        for rows in x.split(batch):
            n = len(rows)
            torch.mm(rows, weight if turned else weight.T, out=logits[:n])
            if turned:
                torch.mm(rows.T, slopes[:n], out=gradient)
            else:
                torch.mm(slopes[:n].T, rows, out=gradient)

    return run


def layout_seconds(x: Tensor, classes: int, batch: int) -> dict[str, float]:
    """Seconds of the products of rows x (N, D) in every layout: the best of three runs."""
    seconds = {}
    for layout in LAYOUTS:
        run = products(layout, x, classes, batch)
        seconds[layout] = min(timed(run) for _ in range(3))
    return seconds


def fastest(seconds: Mapping[str, float]) -> str:
    """The name with the fewest seconds."""
    return min(seconds, key=seconds.__getitem__)


# --- accuracy ---------------------------------------------------------------------------------------------------------


def percentages(head: Head, rows: Features) -> dict[str, float | None]:
    """Accuracy in per cent: over all rows, and the mean recall of each group of classes."""
    scores = evaluate_head(head, rows)
    shares = {"all": scores.accuracy, "many": scores.many, "medium": scores.medium, "few": scores.few}
    return {name: None if share is None else 100 * share for name, share in shares.items()}


def shown(value: float | None, form: str = "7.2f") -> str:
    """A number, or a dash for None, in the same width."""
    return format(value, form) if value is not None else "-".rjust(int(form.lstrip("+").split(".")[0]))


# --- the machine ------------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What the times depend on."""
    return {
        "cpu": cpu_model(),
        "short_products": [unit for unit in UNITS if unit in cpu_flags()],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "load": load(),
    }


def load() -> float | None:
    """Load average of the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def cpu_model() -> str:
    """The model that the system names, or the architecture."""
    return _cpu_fact("model name") or platform.machine()


def cpu_flags() -> set[str]:
    """What the processor can do, as far as the system says."""
    return set((_cpu_fact("flags") or _cpu_fact("Features")).split())


def _cpu_fact(name: str) -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


# --- the command line and the results ---------------------------------------------------------------------------------


def parser(doc: str | None, name: str, quick: str, *, repeats: int = 3) -> argparse.ArgumentParser:
    """The arguments of every benchmark; `quick` says what the quick run does."""
    made = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    made.add_argument("--repeats", type=int, default=repeats)
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    made.add_argument("--quick", action="store_true", help=f"{quick}: only to see that it runs; writes no result")
    made.add_argument("--out", type=Path, default=RESULTS / f"{name}.json")
    return made


def described(facts: Mapping[str, Any], load_after: float | None) -> str:
    """The machine, in two lines."""
    return (
        "{cpu}, {cores} cores, {threads} threads, torch {torch}, numpy {numpy}\n".format(**facts)
        + f"load before and after {facts['load']} / {load_after}: above 1 before the start is noise"
    )


def write(result: Mapping[str, Any], given: argparse.Namespace) -> None:
    """Keep the result, unless the run was a quick one."""
    if not given.quick:
        write_atomically(given.out, json.dumps(result, indent=1) + "\n")
