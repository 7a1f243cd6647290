"""What a folder says of its run: the configuration, the rows of every part, and where it ran.

folder/config.yaml, environment.json   what was asked for, resolved, and where it ran
folder/split.json                      the rows of every part, their hash, and how they came about
"""

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from poise.commands.config import Config, dump_config
from poise.data.splits import Splits
from poise.machine.atomic import write_atomically
from poise.machine.documents import ESCAPED, ONE_LINE, write_json
from poise.results.record import versions

CONFIG = "config.yaml"


def write_description(config: Config, splits: Splits, folder: Path) -> list[Path]:
    """Write what was asked for, where it runs, and the rows of every part.

    A folder that `is_described` already may hold another run: it is described anew once that run was found the same.
    """
    rows = {part: {"split": origin.split, "rows": origin.rows.tolist()} for part, origin in splits.origins.items()}
    split = {"hash": splits.hash, "notes": list(splits.notes), "parts": rows}
    return [
        write_atomically(folder / CONFIG, dump_config(config)),
        write_json(folder / "environment.json", environment(), ESCAPED),
        write_json(folder / "split.json", split, ONE_LINE),
    ]


def is_described(folder: Path) -> bool:
    """Does the folder say which run it holds?"""
    return (folder / CONFIG).exists()


def environment() -> dict[str, Any]:
    """Versions, machine and command line; the revision of the source where it is a checkout."""
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "revision": _revision(),
        "command": sys.argv,
    }


def _revision() -> str | None:
    """The commit of the checkout that this code is in, with "+" if it was changed; None outside of one."""
    ask = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        said = subprocess.run(ask, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() or None
