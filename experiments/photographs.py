"""The photographs that ship with the demo: a long-tailed part of a public set, as one archive.

Run: POISE_DATA=... python experiments/photographs.py [OUT.zip]

Of `photographs/clothing.tar`, whose classes are of sizes 795 to 112, the training split keeps 180 photographs of the
most frequent class down to 4 of the rarest (the exponential profile of long-tailed benchmarks, imbalance 45), the test
split up to 30 of a class out of the original's `test` and `val`. Which ones is decided by the SHA-256 of each file, so
that nobody chose them. The bytes of a photograph are those of the archive; the same archive gives the same zip.
"""

import argparse
import hashlib
import os
import sys
import tarfile
import zipfile
from collections import defaultdict
from pathlib import Path

MOST, IMBALANCE, TESTED = 180, 45, 30
SHIPPED = Path(__file__).parent.parent / "src" / "poise" / "demo_data" / "photographs" / "clothing.zip"


def chosen(source: Path) -> dict[str, bytes]:
    """The photographs by their path, `train/CLASS/NAME.jpg` or `test/CLASS/NAME.jpg`."""
    found: dict[tuple[str, str], list[tuple[str, str, bytes]]] = defaultdict(list)
    with tarfile.open(source) as archive:
        for entry in archive:
            content = archive.extractfile(entry)
            if content is not None and entry.name.endswith(".jpg"):
                _, split, name, file = entry.name.split("/")
                data = content.read()
                part = "train" if split == "train" else "test"
                found[part, name].append((hashlib.sha256(data).hexdigest(), file, data))
    names = sorted({name for _, name in found}, key=lambda name: (-len(found["train", name]), name))
    kept = {}
    for place, name in enumerate(names):
        size = round(MOST * IMBALANCE ** (-place / (len(names) - 1)))
        for part, most in (("train", size), ("test", TESTED)):
            for _, file, data in sorted(found[part, name])[:most]:
                kept[f"{part}/{name}/{file}"] = data
    return kept


def main() -> None:
    """Write the archive and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=SHIPPED)
    out = parser.parse_args().out
    if "POISE_DATA" not in os.environ:
        sys.exit("POISE_DATA must name the folder that holds photographs/clothing.tar")
    kept = chosen(Path(os.environ["POISE_DATA"]) / "photographs" / "clothing.tar")
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(kept.items()):
            archive.writestr(zipfile.ZipInfo(name), data)
    sizes: dict[str, int] = defaultdict(int)
    for name in kept:
        sizes["/".join(name.split("/")[:2])] += 1
    print(out.stat().st_size, dict(sorted(sizes.items(), key=lambda pair: -pair[1])))
    print("sha256", hashlib.sha256(out.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
