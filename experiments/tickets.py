"""Is `poise fit` without options as good as the best fixed method? Ten draws of tickets, and photographs.

Run: POISE_DATA=DATA python experiments/tickets.py [--out experiments/results] [--draws 10] [--clothing FILE.npy]

Tickets: 20 of the 77 intents of Banking77, 100 down to 2 training questions, 40 test questions of each. Every draw is
written as two tables; `poise fit TRAIN --text text --label category` makes a folder, and `poise predict` answers the
test questions. The sentence model embeds each question once: what the command asks for is looked up. Fixed methods are
those of scikit-learn and ours, each with one setting for all draws, on the same features; the best one is the best in
the mean over the draws. Draws have the seeds 0, 1, 2, ...

Photographs (with --clothing: rows of an EfficientNet-Lite0 for the pictures of clothing.tar in the order of their
names, float32 (3781, 1280)): the splits of the archive, `train` and `val` to train, `test` to test, with all pictures
and with 30 of each of the rarest five classes, by `poise fit ROWS --unseen`.
"""

import argparse
import contextlib
import csv
import io
import os
import random
import tarfile
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poise import LongTailClassifier
from poise.cli import main as poise
from poise.errors import PoiseWarning
from poise.machine.atomic import write_atomically
from poise.representation import sentences
from poise.results.record import versions

Array = NDArray[Any]
SIZES = [round(100 * 50 ** (-k / 19)) for k in range(20)]
OURS = ("stage1", "logit_adjustment(tau=1)", "tau_norm", "balanced_softmax", "crt", "lda", "ncm")
COMMAND = "`poise fit`, no options"
PRIOR = "logistic regression, less log prior"


# --- what is measured -------------------------------------------------------------------------------------------------


def balanced(truth: Array, guess: Array) -> float:
    """Mean recall of the classes in per cent."""
    return 100 * float(np.mean([np.mean(guess[truth == k] == k) for k in np.unique(truth)]))


def fixed(x: Array, y: Array, xt: Array) -> Iterator[tuple[str, Array]]:
    """Every fixed method with its answers to the rows xt."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    for scaled in (True, False):
        for c in (1.0, 10.0, 100.0):
            kind = f", C={c:g}, {'standardised' if scaled else 'columns as they are'}"
            model = LogisticRegression(C=c, max_iter=2000)
            plain = make_pipeline(StandardScaler(), model) if scaled else model
            plain.fit(x, y)
            prior = np.log([np.mean(y == name) for name in plain.classes_])
            yield f"logistic regression{kind}", plain.predict(xt)
            yield PRIOR + kind, plain.classes_[(plain.predict_log_proba(xt) - prior).argmax(axis=1)]
    for name in OURS:
        yield name, LongTailClassifier(name, seen_by_backbone=False).fit(x, y).predict(xt)


def command(*words: object) -> None:
    """One command of the command line, in silence. Raises: RuntimeError if it fails."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            poise([str(word) for word in words])
        except SystemExit as stop:
            if stop.code:
                raise RuntimeError(said.getvalue()) from None


def answers(path: Path) -> Array:
    """The predicted classes of a table of predictions."""
    with path.open(encoding="utf-8", newline="") as file:
        return np.array([row["prediction"] for row in csv.DictReader(file)])


# --- tickets ----------------------------------------------------------------------------------------------------------


def questions(folder: Path) -> dict[str, list[dict[str, str]]]:
    """The questions of Banking77 by part."""
    found = {}
    for part in ("train", "test"):
        with (folder / f"{part}.csv").open(encoding="utf-8", newline="") as file:
            found[part] = list(csv.DictReader(file))
    return found


def draw(rows: dict[str, list[dict[str, str]]], seed: int) -> dict[str, list[dict[str, str]]]:
    """The training and test questions of a draw."""
    rng = random.Random(seed)
    intents = rng.sample(sorted({row["category"] for row in rows["train"]}), 20)
    found = {}
    for part in rows:
        by = {name: [row for row in rows[part] if row["category"] == name] for name in intents}
        wanted = [n if part == "train" else 40 for n in SIZES]
        taken = [rng.sample(by[name], min(len(by[name]), n)) for name, n in zip(intents, wanted, strict=True)]
        found[part] = [row for some in taken for row in some]
    return found


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    """A table of questions."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "category"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def tickets(data: Path, draws: int) -> dict[str, list[float]]:
    """Balanced accuracy of the command and of every fixed method, a number per draw."""
    rows = questions(data / "banking77")
    texts = [row["text"] for part in rows.values() for row in part]
    known = dict(zip(map(bare, texts), sentences.embed_cached(texts), strict=True))
    sentences.embed = lambda wanted, **_: looked_up(known, wanted)  # type: ignore[assignment]
    found: dict[str, list[float]] = {}
    for seed in range(draws):
        parts = draw(rows, seed)
        truth = np.array([row["category"] for row in parts["test"]])
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            tables = {part: write(folder / f"{part}.csv", some) for part, some in parts.items()}
            command("fit", tables["train"], "--text", "text", "--label", "category", "--out", folder / "model", "-q")
            command("predict", folder / "model", tables["test"], "--text", "text", "--out", folder / "p.csv", "-q")
            found.setdefault(COMMAND, []).append(balanced(truth, answers(folder / "p.csv")))
        # The folder of a model keeps its features in float16.
        x, xt = (
            looked_up(known, [row["text"] for row in parts[part]]).half().double().numpy() for part in ("train", "test")
        )
        y = np.array([row["category"] for row in parts["train"]])
        for method, guess in fixed(x, y, xt):
            found.setdefault(method, []).append(balanced(truth, guess))
        print(f"draw {seed}: {found[COMMAND][-1]:.2f}", flush=True)
    return found


def looked_up(known: dict[str, Tensor], texts: Iterable[str]) -> Tensor:
    """(N, 384) rows that were embedded before."""
    return torch.stack([known[bare(text)] for text in texts])


def bare(text: str) -> str:
    """The words of a text; tables are read without the spaces around their cells."""
    return " ".join(text.split())


# --- photographs ------------------------------------------------------------------------------------------------------


def photographs(data: Path, rows: Path) -> dict[str, dict[str, float]]:
    """The same for photographs, by what was trained on."""
    with tarfile.open(data / "photographs" / "clothing.tar") as tar:
        names = sorted(member.name for member in tar.getmembers() if member.name.endswith(".jpg"))
    x = np.load(rows)
    y, part = (np.array([name.split("/")[-k] for name in names]) for k in (2, 3))
    train, test = np.flatnonzero(part != "test"), np.flatnonzero(part == "test")
    kinds, sizes = np.unique(y[train], return_counts=True)
    rare, rng = kinds[sizes.argsort()[:5]], np.random.default_rng(0)
    few = [rng.permutation(train[y[train] == k])[: 30 if k in rare else None] for k in kinds]
    return {
        "all pictures": of_rows(x, y, train, test),
        "30 of each of the rarest five classes": of_rows(x, y, np.sort(np.concatenate(few)), test),
    }


def of_rows(x: Array, y: Array, train: Array, test: Array) -> dict[str, float]:
    """Balanced accuracy of the command on rows, and of every fixed method."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "train.npz", x=x[train], y=y[train])
        np.save(folder / "test.npy", x[test])
        command("fit", folder / "train.npz", "--unseen", "--out", folder / "model", "-q")
        command("predict", folder / "model", folder / "test.npy", "--out", folder / "p.csv", "-q")
        found = {COMMAND: balanced(y[test], answers(folder / "p.csv"))}
    for method, guess in fixed(x[train].astype(float), y[train], x[test].astype(float)):
        found[method] = balanced(y[test], guess)
    return found


# --- the page ---------------------------------------------------------------------------------------------------------


def table(found: dict[str, list[float]], heads: list[str]) -> list[str]:
    """A row per method, the best mean first, the command on top."""
    means = {name: float(np.mean(values)) for name, values in found.items()}
    ordered = [COMMAND, *sorted((name for name in found if name != COMMAND), key=lambda name: -means[name])]
    rows = [
        f"| {name} | {means[name]:.2f} | {' | '.join(f'{value:.2f}' for value in found[name])} |" for name in ordered
    ]
    return [f"| method | mean | {' | '.join(heads)} |", "|---|---:|" + "---:|" * len(heads), *rows]


def sections(data: Path, args: argparse.Namespace) -> Iterator[str]:
    """The lines of the results."""
    of_tickets = tickets(data, args.draws)
    yield from ("## Tickets", "", *table(of_tickets, [f"draw {k}" for k in range(args.draws)]), "")
    if args.clothing is not None:
        kinds = photographs(data, args.clothing)
        joined = {name: [found[name] for found in kinds.values()] for name in kinds["all pictures"]}
        yield from ("## Photographs of clothing, EfficientNet-Lite0", "", *table(joined, list(kinds)), "")


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--clothing", type=Path, default=None)
    args = parser.parse_args()
    warnings.simplefilter("ignore", PoiseWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    said = (__doc__ or "").split("\n\n", 2)[2].strip()
    lines = ["# Is `poise fit` without options as good as the best fixed method?", "", said, ""]
    lines += ["Balanced accuracy in per cent.", "", *sections(Path(os.environ["POISE_DATA"]), args)]
    about = ", ".join(f"{name} {version}" for name, version in versions().items())
    more = "" if args.clothing is None else f" --clothing {args.clothing.name}"
    lines += [f"Command: `python experiments/tickets.py --draws {args.draws}{more}`; {about}.", ""]
    write_atomically(args.out / "tickets.md", "\n".join(lines))


if __name__ == "__main__":
    main()
