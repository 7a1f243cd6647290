"""Training and extraction under kill -9 at random moments: do they end with the bits of a run that nobody disturbed?

Four cases: training and extraction, each by one process and by two (torchrun, gloo, one machine). An undisturbed run of
the same command gives the digest to compare with: of the final weights, or of every file of the finished store. Then
the command is started in another folder and killed at a random moment after its work began, `kills` times; of two
processes a random one is killed, and the other has to end by itself. Then the command is started once more and runs to
its end. A moment is a random share of all steps or shards, and between two of them a random share of the time of one,
so that a machine whose speed changes is no matter. Training is 96 steps of a small network with everything that has a
state (momentum, moving average, mixup, GALA's sums), with a checkpoint after each step; extraction is 24 shards of
three views.

The table says how far the run was at each kill (steps saved, shards finished), the longest time from a kill to the end
of the last process, the messages of those that were left, and whether the digests are equal. A kill that came after the
end is counted as late.
"""

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from poise.machine.processes import World, started

HEADS = ("work", "processes", "kills", "done at each kill", "longest end (s)", "named", "digests", "sha256")
CASES = [(work, ranks) for work in ("train", "extract") for ranks in (1, 2)]
TOTAL = {"train": 96, "extract": 24}  # steps, shards


# --- the command that is killed ---------------------------------------------------------------------------------------


def work(name: str, folder: Path) -> None:
    """Train or extract; the first step or batch leaves the process id in `folder`."""
    from poise.errors import PoiseError
    from poise.machine.locks import stoppable

    torch.set_num_threads(1)
    try:
        # As the command line does it: otherwise the signal that torchrun sends to those that are left silences them.
        with stoppable(), started() as world:
            alive = folder / f"alive{world.rank}"

            def progress(done: int, total: int) -> None:
                if not alive.exists():
                    alive.write_text(str(os.getpid()))

            {"train": train_images, "extract": extract_images}[name](world, folder / "out", progress)
    except PoiseError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def train_images(world: World, folder: Path, progress: Callable[[int, int], None]) -> None:
    """96 steps; the first process leaves the digest of the weights beside `folder`."""
    from poise.representation.augment import parse
    from poise.representation.backbones import build
    from poise.representation.feeds import InMemory
    from poise.representation.settings import Stage1
    from poise.representation.training import train
    from poise.values.counts import ClassCounts

    settings = Stage1(
        epochs=12, batch_size=36, mixup=0.2, ema=0.9, loss="gala(lambda_pos=0.7)", warmup_epochs=1, precision="float32"
    )
    pixels, y = images(280)
    feed = InMemory(pixels, parse(settings.augment), settings.seed)
    network = build("convnet4", size=16, seed=0)
    counts = ClassCounts.from_labels(y, 7)
    how = {"world": world, "progress": progress, "checkpoint_seconds": 0}
    found = train(network, feed, y, counts, settings, folder, **how).network.state_dict()
    if world.first:
        digest = hashlib.sha256(b"".join(value.contiguous().numpy().tobytes() for value in found.values()))
        (folder.parent / "digest").write_text(digest.hexdigest())


def extract_images(world: World, folder: Path, progress: Callable[[int, int], None]) -> None:
    """24 shards; the first process leaves the digest of the store beside `folder`."""
    from poise.data.samples.items import Pixels
    from poise.data.samples.sample_set import Samples
    from poise.representation.backbones import build
    from poise.representation.extract import Views, extract

    pixels, y = images(2390)
    samples = Samples(Pixels(pixels.permute(0, 2, 3, 1).contiguous().numpy()), y, tuple("abcdefg"))
    views = Views(random=1, flip=True, batch_size=20, shard_rows=100)
    network = build("convnet4", size=16, seed=0)
    how = {"world": world, "progress": progress, "views": views}
    extract(network, samples, folder, counts=samples.counts, seen_by_backbone=None, **how)
    if world.first:
        digest = hashlib.sha256()
        for path in sorted(folder.iterdir()):
            digest.update(path.name.encode() + path.read_bytes())
        (folder.parent / "digest").write_text(digest.hexdigest())


def images(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random pixels (rows, 3, 16, 16) and labels (rows,) of seven classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (rows, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return pixels, (torch.rand(rows, generator=generator) ** 2 * 7).long()


# --- who kills it -----------------------------------------------------------------------------------------------------


def begun(name: str, ranks: int, folder: Path) -> subprocess.Popen[str]:
    """The command, once a process of it has begun its work."""
    for stale in folder.glob("alive*"):
        stale.unlink()
    torchrun = ["-m", "torch.distributed.run", f"--nproc_per_node={ranks}", "--master_addr=127.0.0.1"]
    launcher = [*torchrun, f"--master_port={random.randrange(20000, 30000)}"] if ranks > 1 else []
    command = [sys.executable, *launcher, __file__, name, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not any((folder / f"alive{rank}").exists() for rank in range(ranks)):
        time.sleep(0.002)
    return process


def ended(process: subprocess.Popen[str]) -> str:
    """What it said."""
    return process.communicate(timeout=300)[1]


def done_so_far(name: str, folder: Path) -> int:
    """Steps in the checkpoint, or finished shards."""
    if name == "extract":
        return len(list((folder / "out").glob("*.safetensors")))
    from poise.errors import InputError
    from poise.representation.checkpoints import load_checkpoint

    try:
        saved = load_checkpoint(folder / "out")
    except InputError:  # it is being replaced at this moment
        return 0
    return 0 if saved is None else saved["step"]


def endangered(name: str, ranks: int, kills: int, draws: random.Random, root: Path) -> Iterator[str]:
    """The cells of one row of the table."""
    quiet, hunted = root / f"quiet_{name}{ranks}", root / f"hunted_{name}{ranks}"
    for folder in (quiet, hunted):
        folder.mkdir()
    process, clock = begun(name, ranks, quiet), time.monotonic()
    while process.poll() is None and done_so_far(name, quiet) < TOTAL[name]:
        time.sleep(0.01)
    seconds = (time.monotonic() - clock) / TOTAL[name]
    said = ended(process)
    if process.returncode:
        raise SystemExit(f"the undisturbed run failed:\n{said}")
    at, late, longest, named = [], 0, 0.0, 0
    for moment in sorted(draws.uniform(0, TOTAL[name]) for _ in range(kills)):
        process = begun(name, ranks, hunted)
        while process.poll() is None and done_so_far(name, hunted) < int(moment):
            time.sleep(0.01)
        time.sleep(moment % 1 * seconds)
        clock = time.monotonic()
        # Of an extraction, a process whose share is finished never begins.
        victim = draws.choice([rank for rank in range(ranks) if (hunted / f"alive{rank}").exists()])
        try:
            os.kill(int((hunted / f"alive{victim}").read_text()), signal.SIGKILL)
        except (ProcessLookupError, ValueError):
            late += 1
        said = ended(process)
        longest = max(longest, time.monotonic() - clock)
        named += bool(re.search(rf"rank {victim} of this run has ended", said))
        at.append(done_so_far(name, hunted))
    process = begun(name, ranks, hunted)
    said = ended(process)
    if process.returncode:
        raise SystemExit(f"the last run failed:\n{said}")
    digests = [(folder / "digest").read_text() for folder in (quiet, hunted)]
    yield from (name, str(ranks), f"{kills} ({late} late)", " ".join(map(str, at)), f"{longest:.1f}")
    yield f"{named} of {kills - late}" if ranks > 1 else "-"
    yield "equal" if digests[0] == digests[1] else "DIFFERENT"
    yield digests[1][:16]


def table(kills: int, seed: int, only: str) -> Iterator[str]:
    """The lines of the table, as they come."""
    yield "| " + " | ".join(HEADS) + " |"
    yield "|" + " --- |" * len(HEADS)
    draws = random.Random(seed)
    with tempfile.TemporaryDirectory() as root:
        for name, ranks in CASES:
            if only in f"{name}{ranks}":
                yield "| " + " | ".join(endangered(name, ranks, kills, draws, Path(root))) + " |"


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]))
