"""How the default plans were chosen: held-out rows of both feature sets, never their test rows.

Run: POISE_DATA=DATA python experiments/default_plans.py [--rows hand|shipped] [--out experiments/results]

For every trained method a grid of learning rate and weight decay on scaled features, 10 epochs, batch 128. The page
says for each method and set what its default reaches on the held-out rows, what the best of the grid does, and where it
is.
"""

import argparse
import warnings
from itertools import product
from pathlib import Path

from hand_made import add_rows, load, suffix

from poise import fit_heads, methods, metrics
from poise.data.bundled import DEMO_SETS
from poise.errors import PoiseWarning
from poise.machine.atomic import write_atomically
from poise.results.record import versions
from poise.values.features import Features
from poise.values.head import Head

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
DECAYS = (0.0, 2e-5, 1e-4, 5e-4)


def balanced(head: Head, rows: Features) -> float:
    """Balanced accuracy in per cent."""
    return 100 * metrics.evaluate_head(head, rows).balanced_accuracy


def table(name: str, rows: str) -> list[str]:
    """Markdown rows of one feature set, one per trained method."""
    problem = load(name, rows).problem
    held_out = problem.held_out
    assert held_out is not None
    trained = [method for method in methods.METHODS if methods.is_trained(method)]
    settings = list(product(RATES, DECAYS))
    recipes = [methods.build(method) for method in trained]
    recipes += [methods.build(m, lr=lr, weight_decay=decay) for m in trained for lr, decay in settings]
    scores = [balanced(head, held_out) for head in fit_heads(problem, recipes)]  # type: ignore[arg-type]
    lines = []
    for i, method in enumerate(trained):
        found = scores[len(trained) + i * len(settings) :][: len(settings)]
        best = max(range(len(settings)), key=found.__getitem__)
        lr, decay = settings[best]
        lines.append(
            f"| `{method}` | {name} | {methods.defaults(method)['lr']:g} | {scores[i]:.2f} | {found[best]:.2f} | "
            f"{found[best] - scores[i]:.2f} | lr {lr:g}, weight decay {decay:g} |"
        )
    return lines


def main() -> None:
    """Measure both sets and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    add_rows(parser)
    given = parser.parse_args()
    warnings.simplefilter("ignore", PoiseWarning)  # the edge of the grid is expected to diverge
    lines = [
        "# Default plans on held-out rows",
        "",
        (__doc__ or "").split("\n\n", 1)[1].strip(),
        "",
        "| method | set | default lr | default | best of grid | gap | where |",
        "|---|---|---:|---:|---:|---:|---|",
        *sorted(line for name in DEMO_SETS for line in table(name, given.rows)),
        "",
        f"Command: `python experiments/default_plans.py --rows {given.rows}`; seed 0; "
        + ", ".join(f"{name} {version}" for name, version in versions().items())
        + ".",
    ]
    print(write_atomically(given.out / f"default_plans{suffix(given.rows)}.md", "\n".join(lines) + "\n").read_text())


if __name__ == "__main__":
    main()
