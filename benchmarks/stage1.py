"""Images per second of stage 1 and of extraction, beside the loops that papers and timm's users write.

    python benchmarks/stage1.py [--images 2560] [--pictures 400] [--repeats 5] [--threads N] [--out FILE] [--quick]

Training: `poise.representation.training.train` on pixels in memory against a Dataset that makes every image a Pillow
image for torchvision's transforms, a DataLoader, and a plain loop in float32. Both begin with the same weights.
Extraction:
`poise.representation.extract.extract` against timm's own dataset and loader, on one folder of drawn JPEG pictures. All
of a call is timed: what Poise hashes and stores too, and the start of a DataLoader's processes.

Every way runs once on a few images before anything is measured. In a repeat all ways follow one another, in every
second repeat backwards; a ratio is the median over repeats of the ratio within a repeat. After each repeat the results
are written. --quick only shows that everything runs: its numbers are those of a cold start, and are not written.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

# As the command line does: threads that spin while they wait disturb each other on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import PIL
import timm
import torch
import torchvision
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from heads import machine, timed
from poise.data.samples.formats import open_samples
from poise.machine.atomic import write_atomically
from poise.representation.augment import normalised, parse
from poise.representation.backbones import Backbone, build
from poise.representation.extract import Views, extract, feature_rows, feed_of
from poise.representation.feeds import InMemory, Step
from poise.representation.settings import Stage1
from poise.representation.training import train, uses_bf16
from poise.values.counts import ClassCounts

Way = Callable[[], object]
CLASSES = 100
LR, MOMENTUM, DECAY = 0.01, 0.9, 5e-4
SIDE, CROP, BATCH = 224, 0.875, 64  # extraction: 224 of 256, as usual
RESULTS = Path(__file__).parent / "results" / "stage1.md"


class Comparison(NamedTuple):
    """Ways to do the same with `images` images; the pairs are those whose ratio answers the question."""

    title: str
    images: int
    ways: Mapping[str, Way]
    pairs: tuple[tuple[str, str], ...]
    note: str = ""


# --- training ---------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """One way to train: the same augmentation in our words and as a list of torchvision's."""

    title: str
    batch: int
    augment: tuple[str, ...]
    before: tuple[Callable, ...] = ()  # after crop and flip, on Pillow images
    after: tuple[Callable, ...] = ()  # on tensors, before normalisation


def holed(image: Tensor) -> Tensor:
    """(3, H, W) with a black square of 16 pixels, cut off at the edges."""
    top, left = (int(torch.randint(side, ())) - 8 for side in image.shape[-2:])
    image[:, max(top, 0) : top + 16, max(left, 0) : left + 16] = 0
    return image


def cases() -> tuple[Case, ...]:
    """Plain training of CIFAR-LT papers, and that of GALA."""
    policy = transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10)
    gala = ("crop", "flip", "auto_augment", "cutout")
    return (
        Case("crop, flip; batch 128", 128, ("crop", "flip")),
        Case("crop, flip, AutoAugment, cutout; batch 64", 64, gala, (policy,), (holed,)),
    )


class Pictures(Dataset):
    """Images (N, 32, 32, 3) uint8 and labels; each is made a Pillow image and transformed when it is asked for."""

    def __init__(self, values: np.ndarray, y: np.ndarray, transform: Callable) -> None:
        self.values, self.y, self.transform = values, y, transform

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.values[index])), int(self.y[index])


class Form(NamedTuple):
    """How the network is computed."""

    bf16: bool
    last: bool  # channels last

    def __str__(self) -> str:
        return f"{'bfloat16' if self.bf16 else 'float32'}, {'NHWC' if self.last else 'NCHW'}"


class Training(NamedTuple):
    """What all ways of a case share: the images, and a network to copy."""

    case: Case
    backbone: Backbone
    values: np.ndarray  # (N, 32, 32, 3) uint8
    y: np.ndarray

    @property
    def feed(self) -> InMemory:
        """The images as Poise keeps them."""
        pixels = torch.from_numpy(self.values).permute(0, 3, 1, 2).contiguous()
        return InMemory(pixels, parse(self.case.augment), 0)

    def loader(self, workers: int) -> DataLoader:
        """The images as papers load them."""
        given = self.backbone
        steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *self.case.before]
        steps += [transforms.ToTensor(), *self.case.after, transforms.Normalize(given.mean, given.std)]
        data = Pictures(self.values, self.y, transforms.Compose(steps))
        return DataLoader(data, batch_size=self.case.batch, shuffle=True, num_workers=workers)

    def layers(self) -> nn.Module:
        """The network with a classifier."""
        return nn.Sequential(deepcopy(self.backbone.module), nn.Linear(self.backbone.dim, CLASSES))


def of_poise(training: Training, form: Form) -> None:
    """One epoch by `train`, its checkpoint included."""
    settings = Stage1(
        epochs=1,
        batch_size=training.case.batch,
        augment=training.case.augment,
        lr=LR,
        momentum=MOMENTUM,
        weight_decay=DECAY,
        warmup_epochs=0,
        precision="bf16" if form.bf16 else "float32",
        channels_last=form.last,
    )
    y = torch.from_numpy(training.y)
    backbone = replace(training.backbone, module=deepcopy(training.backbone.module))
    with tempfile.TemporaryDirectory() as folder:
        train(backbone, training.feed, y, ClassCounts.from_labels(y, CLASSES), settings, Path(folder))


def of_papers(training: Training, form: Form, workers: int | None) -> None:
    """One epoch of a plain loop; without a number of workers on a single batch, over and over: the network alone."""
    if workers is None:
        batch = next(iter(training.loader(0)))
        batches = [batch] * (len(training.y) // training.case.batch)
    else:
        batches = training.loader(workers)
    kept = torch.channels_last if form.last else torch.contiguous_format
    network = training.layers().to(memory_format=kept).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY)
    for x, y in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=form.bf16):
            logits = network(x.contiguous(memory_format=kept))
        optimiser.zero_grad()
        functional.cross_entropy(logits.float(), y).backward()
        optimiser.step()


def fed(training: Training, form: Form) -> None:
    """The batches of an epoch as `train` makes them, and nothing done with them."""
    places = torch.arange(len(training.y)).split(training.case.batch)
    for images in training.feed.batches(Step(0, part, part) for part in places):
        normalised(images, training.backbone.mean, training.backbone.std, channels_last=form.last)


def training_comparison(case: Case, images: int, backbone: Backbone) -> Comparison:
    """All ways to train, and their parts alone."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (images, 8, 8, 3), dtype=np.uint8)
    shared = Training(case, backbone, blocks.repeat(4, axis=1).repeat(4, axis=2), rng.integers(0, CLASSES, images))
    plain = Form(bf16=False, last=False)
    best = Form(bf16=uses_bf16("auto", torch.device("cpu")), last=True)
    forms = dict.fromkeys((best, Form(best.bf16, False), Form(False, True), plain))  # fewer where bfloat16 is emulated
    ways: dict[str, Way] = {f"Poise, {form}": lambda form=form: of_poise(shared, form) for form in forms}
    for workers in (0, 2):
        for form in dict.fromkeys((plain, Form(best.bf16, False), best)):
            ways[f"loader, {workers} workers, {form}"] = lambda f=form, w=workers: of_papers(shared, f, w)
    ways["only the batches of Poise"] = lambda: fed(shared, best)
    for workers in (0, 2):
        ways[f"only the loader, {workers} workers"] = lambda w=workers: list(shared.loader(w))
    for form in (plain, best):
        ways[f"only the network, {form}"] = lambda f=form: of_papers(shared, f, None)
    pairs = tuple((f"Poise, {best}", f"loader, {workers} workers, {plain}") for workers in (0, 2))
    return Comparison(f"Training ResNet-32: {case.title}", images, ways, pairs)


# --- extraction -------------------------------------------------------------------------------------------------------


def draw_folder(root: Path, pictures: int) -> None:
    """JPEG files of 320 x 240 pixels in four classes: smooth colours and some shapes, without noise."""
    rng = np.random.default_rng(0)
    for index in range(pictures):
        corners = Image.fromarray(rng.integers(0, 256, (2, 2, 3), dtype=np.uint8))
        image = corners.resize((320, 240), Image.Resampling.BILINEAR)
        pen = ImageDraw.Draw(image)
        for _ in range(6):
            left, top, width, height = (int(v) for v in rng.integers((0, 0, 20, 20), (280, 200, 120, 120)))
            shape = pen.ellipse if rng.random() < 0.5 else pen.rectangle
            shape((left, top, left + width, top + height), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
        path = root / f"class{index % 4}" / f"{index:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=90)


def extracted_by_poise(backbone: Backbone, root: Path, workers: int, bf16: bool) -> None:
    """Everything that `poise extract` does: list and hash the files, compute, store."""
    samples = open_samples(root)["train"]
    views = Views(dtype="float32", batch_size=BATCH, bf16=bf16)
    with tempfile.TemporaryDirectory() as folder:
        extract(
            backbone,
            samples,
            Path(folder) / "features",
            counts=samples.counts,
            seen_by_backbone=False,
            views=views,
            workers=workers,
        )


def timm_loader(backbone: Backbone, root: Path, workers: int) -> timm.data.loader.PrefetchLoader:
    """The loader of timm's inference and validation scripts, on the CPU."""
    return timm.data.create_loader(
        timm.data.create_dataset("", root=str(root)),
        input_size=(3, SIDE, SIDE),
        batch_size=BATCH,
        interpolation=backbone.interpolation,
        mean=backbone.mean,
        std=backbone.std,
        crop_pct=CROP,
        num_workers=workers,
        device=torch.device("cpu"),
        persistent_workers=False,
    )


@torch.inference_mode()
def rows_by_timm(backbone: Backbone, root: Path, workers: int) -> Tensor:
    """(N, 512) features."""
    module = backbone.module.eval()
    return torch.cat([module(x) for x, _ in timm_loader(backbone, root, workers)])


def extracted_by_timm(backbone: Backbone, root: Path, workers: int) -> None:
    """Features to one file."""
    with tempfile.TemporaryFile() as file:
        np.save(file, rows_by_timm(backbone, root, workers).numpy())


@torch.inference_mode()
def only_network(backbone: Backbone, pictures: int) -> None:
    """As many images through the network, in float32."""
    module = backbone.module.eval()
    for part in torch.arange(pictures).split(BATCH):
        module(torch.zeros(len(part), 3, SIDE, SIDE))


def read_by_poise(backbone: Backbone, root: Path) -> None:
    """Batches of eight-bit images, decoded and cut, and nothing done with them."""
    items = open_samples(root)["train"].items
    feed = feed_of(backbone, items, augment=None)
    for _ in feed.batches(Step(0, part, part) for part in torch.arange(len(items)).split(BATCH)):
        pass


def extraction_comparison(root: Path, pictures: int, backbone: Backbone) -> Comparison:
    """All ways to extract, and their parts alone."""
    draw_folder(root, pictures)
    theirs, ours = rows_by_timm(backbone, root, 0), feature_rows(backbone, open_samples(root)["train"].items)
    apart = float((theirs - ours).abs().max() / theirs.abs().max())
    ways: dict[str, Way] = {}
    for workers in (0, 2):
        ways[f"Poise, {workers} workers"] = lambda w=workers: extracted_by_poise(backbone, root, w, False)
        ways[f"timm, {workers} workers"] = lambda w=workers: extracted_by_timm(backbone, root, w)
    if uses_bf16("auto", torch.device("cpu")):
        for workers in (0, 2):
            name = f"Poise, {workers} workers, bfloat16"
            ways[name] = lambda w=workers: extracted_by_poise(backbone, root, w, True)
    ways["only the batches of Poise, 0 workers"] = lambda: read_by_poise(backbone, root)
    ways["only timm's loader, 0 workers"] = lambda: list(timm_loader(backbone, root, 0))
    ways["only the network"] = lambda: only_network(backbone, pictures)
    return Comparison(
        f"Extraction by ResNet-18 from JPEG files, batch {BATCH}, float32",
        pictures,
        ways,
        tuple((f"Poise, {workers} workers", f"timm, {workers} workers") for workers in (0, 2)),
        f"Features of both sides differ by at most {apart:.0e} of the largest value.",
    )


# --- measuring and reporting ------------------------------------------------------------------------------------------


def repeat(comparison: Comparison, number: int) -> dict[str, float]:
    """Seconds of every way, one after another; backwards in every second repeat."""
    order = list(comparison.ways.items())
    seconds = {}
    for name, way in order if number % 2 == 0 else reversed(order):
        seconds[name] = timed(way)
        print(f"  {name:<45} {comparison.images / seconds[name]:8.0f} images/s", flush=True)
    return seconds


def spread(values: Sequence[float], digits: int) -> str:
    """Median and, if there are several values, the range."""
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def section(comparison: Comparison, repeats: Sequence[dict[str, float]]) -> str:
    """The ratios that answer the question, then every way."""
    first = next(iter(comparison.ways))
    lines = [f"## {comparison.title}", ""]
    for ours, theirs in comparison.pairs:
        times = spread([seconds[theirs] / seconds[ours] for seconds in repeats], 2)
        lines.append(f"- **{times} times** the images per second: {ours} / {theirs}")
    lines += [comparison.note and f"\n{comparison.note}\n", f"| way | images/s | ratio to {first} |", "|---|---:|---:|"]
    for name in comparison.ways:
        speeds = spread([comparison.images / seconds[name] for seconds in repeats], 0)
        lines.append(f"| {name} | {speeds} | {spread([seconds[first] / seconds[name] for seconds in repeats], 2)} |")
    return "\n".join(lines)


def heading(args: argparse.Namespace, facts: Mapping[str, object], done: int) -> str:
    """What the numbers depend on."""
    return (
        "# Stage 1: images per second\n\n"
        f"Written by `python benchmarks/stage1.py --images {args.images} --pictures {args.pictures} "
        f"--repeats {args.repeats} --threads {args.threads}`; {done} of {args.repeats} repeats are done.\n"
        "Median over repeats (lowest to highest); ratios are taken within a repeat.\n\n"
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads, OMP_WAIT_POLICY="
        f"{os.environ['OMP_WAIT_POLICY']}; Python {facts['python']}, torch {facts['torch']}, torchvision "
        f"{torchvision.__version__}, timm {timm.__version__}, Pillow {PIL.__version__}, numpy {facts['numpy']}.\n"
        f"Load before and now {facts['load']} / {machine()['load']}: above 1 before the start is noise."
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=2560, help="small images, a multiple of 128")
    parser.add_argument("--pictures", type=int, default=400, help="JPEG files")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/stage1.md, nothing with --quick")
    parser.add_argument("--quick", action="store_true", help="128 images, 16 pictures, 1 repeat: only to see it runs")
    args = parser.parse_args()
    if args.quick:
        args.images, args.pictures, args.repeats = 128, 16, 1
    if args.images < 128 or args.images % 128 or args.pictures < 4 or args.repeats < 1:
        parser.error("--images is a positive multiple of 128, --pictures 4 or more, --repeats 1 or more")
    args.out = args.out or (None if args.quick else RESULTS)
    return args


def main() -> None:
    """Measure, print and write."""
    args = arguments()
    torch.set_num_threads(args.threads)
    facts = machine()
    small, large = build("resnet32"), build("timm:resnet18", crop=CROP)
    with tempfile.TemporaryDirectory() as folder:

        def comparisons(images: int, pictures: int) -> list[Comparison]:
            root = Path(folder) / str(pictures)
            trainings = [training_comparison(case, images, small) for case in cases()]
            return [*trainings, extraction_comparison(root, pictures, large)]

        for comparison in [] if args.quick else comparisons(128, 4):
            for way in comparison.ways.values():
                way()
        measured = comparisons(args.images, args.pictures)
        repeats: list[list[dict[str, float]]] = [[] for _ in measured]
        for number in range(args.repeats):
            for comparison, found in zip(measured, repeats, strict=True):
                print(f"{comparison.title}, repeat {number + 1} of {args.repeats}", flush=True)
                found.append(repeat(comparison, number))
            parts = [section(comparison, found) for comparison, found in zip(measured, repeats, strict=True)]
            text = "\n\n".join([heading(args, facts, number + 1), *parts]) + "\n"
            if args.out is not None:
                write_atomically(args.out, text)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
