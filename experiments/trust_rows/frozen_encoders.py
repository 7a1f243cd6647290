"""Frozen encoders, and small things."""

import csv
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from trust_rows.row import row, said
from trust_rows.worlds import balanced

from poise import LongTailClassifier


@row(
    "frozen encoders",
    "20 intents of Banking77, 100 to 2 rows, 3 draws: poise fit without options, beside tau = 1",
    "within .5",
)
def _tickets() -> str:
    data = os.environ.get("POISE_DATA")
    if not data:
        return "not measured: POISE_DATA is not set"
    from poise.representation.sentences import embed_cached

    parts = {p: list(csv.DictReader((Path(data) / "banking77" / f"{p}.csv").open())) for p in ("train", "test")}
    found = []
    for seed in range(3):
        rng = random.Random(seed)
        intents = rng.sample(sorted({r["category"] for r in parts["train"]}), 20)
        sizes = [round(100 * 50 ** (-k / 19)) for k in range(20)]
        drawn = {}
        for name, rows in parts.items():
            by = {i: [r for r in rows if r["category"] == i] for i in intents}
            kept = [
                rng.sample(by[i], min(len(by[i]), n if name == "train" else 40))
                for i, n in zip(intents, sizes, strict=True)
            ]
            drawn[name] = [r for each in kept for r in each]
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "tickets.csv"
            with table.open("w", newline="") as file:
                writer = csv.DictWriter(file, ["text", "category"], extrasaction="ignore")
                writer.writeheader()
                writer.writerows(drawn["train"])
            command = ["fit", str(table), "--text", "text", "--label", "category", "--out", f"{folder}/out"]
            ran = subprocess.run([sys.executable, "-m", "poise", *command], capture_output=True, text=True, check=False)
            if ran.returncode:
                return f"exit {ran.returncode}: {ran.stderr[-200:]}"
            from poise.deployment.model import load

            folders = [p.parent for p in Path(folder, "out").rglob("model.json")] or [Path(folder, "out")]
            model = load(folders[0])
        xt = embed_cached([r["text"] for r in drawn["test"]])
        guess = np.array(model.class_names)[model.head(xt.double()).argmax(dim=1).numpy()]
        truth = np.array([r["category"] for r in drawn["test"]])
        x = embed_cached([r["text"] for r in drawn["train"]]).double().numpy()
        fixed, _ = said(
            lambda x=x, d=drawn: LongTailClassifier(method="converged+logit_adjustment", seen_by_backbone=False).fit(
                x, np.array([r["category"] for r in d["train"]])
            )
        )
        found.append((100 * balanced(guess, truth), 100 * balanced(fixed.predict(xt.double().numpy()), truth)))
    own, other = np.mean(found, axis=0)
    return f"{own:.1f} beside {other:.1f}"


@row("a budget holds the defaults", "grids of ce with --budget 2 and 1", "the defaults are among them")
def _budget() -> str:
    from poise.selection.grids import default_grid
    from poise.values.spec import Spec

    return "; ".join(
        f"{n}: {', '.join(str(spec) for spec in default_grid(Spec('ce', start='fresh'), n))}" for n in (1, 2)
    )
