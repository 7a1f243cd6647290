"""Seconds that each sampler takes for one epoch beside a plain permutation of the same rows.

Run: python benchmarks/sampling.py [--rows 16778216]

The default is more than 2^24 rows, where torch.multinomial refuses; every order is checked for its length and for
drawing rows beyond that limit.
"""

import argparse
import time

import torch

from poise.sampling import ClassAware, Sampler, class_balanced_iid, instance, progressive, square_root
from poise.values.counts import ClassCounts

SAMPLERS: dict[str, Sampler] = {
    "instance": instance,
    "class_balanced (cycle, 4 per visit)": ClassAware(4),
    "class_balanced_iid": class_balanced_iid,
    "square_root": square_root,
    "progressive": progressive,
}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2**24 + 1000)
    rows = parser.parse_args().rows
    y = torch.arange(rows) % 1000
    counts = ClassCounts.from_labels(y)
    begun = time.perf_counter()
    torch.randperm(rows)
    permutation = time.perf_counter() - begun
    print(f"{rows} rows, 1000 classes; torch.randperm: {permutation:.2f} s")
    for name, sampler in SAMPLERS.items():
        begun = time.perf_counter()
        order = sampler(y, counts, 1, 3, 0)
        seconds = time.perf_counter() - begun
        assert len(order) == rows
        assert int(order.max()) >= rows - rows // 100
        print(f"{name:40s} {seconds:6.2f} s  {seconds / permutation:5.1f} x the permutation")


if __name__ == "__main__":
    main()
