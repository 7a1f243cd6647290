"""Do heads help on embedded questions? Banking77 with natural counts, and with an exponential profile of imbalance 50.

Run: python experiments/banking77.py [--out experiments/results]   (needs the extra `text`)

The embedding model never saw these questions, so 5-fold cross-validation on the training rows chooses every setting;
the 3,080 test questions are read once. There is no stage-1 head: plain cross-entropy with tuned settings is the
baseline. The same run as `poise demo --text`.
"""

import argparse
import warnings
from pathlib import Path

from poise.commands.demo import TEXT_SETS, run_text_demo
from poise.errors import PoiseWarning
from poise.machine.atomic import write_atomically
from poise.report.text.score_tables import LEGEND, to_markdown
from poise.results.protocol import protocol_lines


def main() -> None:
    """Compare on both sets and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    out = parser.parse_args().out
    warnings.simplefilter("ignore", PoiseWarning)  # they are remarks of the comparison, and printed below
    lines = ["# Banking77: do heads help?", "", (__doc__ or "").split("\n\n", 2)[2].strip(), "", LEGEND, ""]
    for profile, title in TEXT_SETS.items():
        found = run_text_demo(profile).comparison
        notes = [*found.remarks, *protocol_lines(found.records)]
        lines += [f"## {title}", "", found.verdict(), "", to_markdown(found.rows, notes=notes)]
    lines += ["Command: `python experiments/banking77.py`; seed 0.", ""]
    write_atomically(out / "banking77.md", "\n".join(lines))


if __name__ == "__main__":
    main()
