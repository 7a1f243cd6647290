"""What the step of a ResNet-32 costs one core, and what would make it cheaper.

    python benchmarks/training_step.py [--steps 20] [--repeats 5] [--compile] [--out FILE]

Every way is a process of its own with one thread: 64 images of 32 x 32, forward, backward, SGD with momentum. Its cost
is the processor time of the steps after the first two, so that other work on the machine disturbs it little. In a
repeat all ways follow one another; a ratio is the median over repeats of the ratio within a repeat.

    usual       float32, channels last, memory as the C library handles it
    kept        the same, freed memory kept (`poise.machine.kept_memory`), as `poise train` does
    bfloat16    kept, autocast
    compiled    kept, `torch.compile`, with --compile: needs a C++ compiler, and a minute before the first step
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from measuring import machine, ratio
from torch.nn import functional

from poise.machine.atomic import write_atomically
from poise.machine.kept_memory import keep_freed_memory
from poise.representation.backbones import build
from poise.representation.network import Network
from poise.representation.settings import Stage1

WAYS = ("usual", "kept", "bfloat16", "compiled")
BATCH = 64


def main() -> None:
    """Measure one way, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "training_step.json")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        sys.stdout.write(json.dumps(seconds(given.way, given.steps)))
        return
    ways = [way for way in WAYS if given.compile or way != "compiled"]
    found = [{way: alone(way, given.steps) for way in ways} for _ in range(given.repeats)]
    result = {
        "command": f"python benchmarks/training_step.py --steps {given.steps} --repeats {given.repeats}"
        + " --compile" * given.compile,
        "machine": machine(),
        "images_per_processor_second": {way: [BATCH * given.steps / row[way] for row in found] for way in ways},
        "speed_beside_usual": {way: ratio(found, "usual", way) for way in ways},
    }
    write_atomically(given.out, json.dumps(result, indent=1) + "\n")
    sys.stdout.write(given.out.read_text())


def alone(way: str, steps: int) -> float:
    """Processor seconds of a way in a process of its own."""
    words = [sys.executable, __file__, "--way", way, "--steps", str(steps)]
    done = subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True)
    return float(json.loads(done.stdout))


def seconds(way: str, steps: int) -> float:
    """Processor seconds of `steps` steps in this process."""
    if way != "usual" and not keep_freed_memory():
        sys.exit("the C library of this system cannot be asked to keep memory")
    network = Network(build("resnet32", seed=0), 100, Stage1()).to(memory_format=torch.channels_last)
    network.train()
    forward = torch.compile(network) if way == "compiled" else network
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    x = torch.randn(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x, y = x.contiguous(memory_format=torch.channels_last), torch.arange(BATCH) % 100

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=way == "bfloat16"):
            logits = forward(x)
        functional.cross_entropy(logits, y).backward()
        optimiser.step()
        optimiser.zero_grad()

    step(), step()
    begun = time.process_time()
    for _ in range(steps):
        step()
    return time.process_time() - begun


if __name__ == "__main__":
    main()
