"""The feature rows on which the claims were measured before Poise existed, or those that `poise train` made since.

Both are of the same network, images and settings. The rows of old lie outside the repository, where the environment
variable POISE_DATA says; the shipped ones come with the package.
"""

import argparse
import os
import sys
from pathlib import Path

from poise.data.bundled import DemoSet, load_demo, read_demo

PLAIN, AUGMENTED = "cifar100lt_r32", "cifar100lt_r32_autoaugment"


def add_rows(parser: argparse.ArgumentParser) -> None:
    """The argument that chooses between the two."""
    parser.add_argument(
        "--rows", choices=("hand", "shipped"), default="hand", help="hand-made ones need POISE_DATA; shipped ones not"
    )


def load(name: str, rows: str) -> DemoSet:
    """One of the two sets, of the chosen rows."""
    if rows == "shipped":
        return load_demo(name)
    if "POISE_DATA" not in os.environ:
        sys.exit(f"POISE_DATA must name the folder that holds {name}/features.npz; --rows shipped needs none")
    return read_demo(name, Path(os.environ["POISE_DATA"]) / name / "features.npz")


def suffix(rows: str) -> str:
    """What the result of other rows is called after."""
    return "" if rows == "hand" else "_shipped"
