"""Networks for small images, and the smallest residual network for large ones.

`BasicResNet` is of He et al. (CVPR 2016), section 4.1: two 3 x 3 convolutions beside a shortcut, which is a 1 x 1
convolution where the shape changes; widths 64, 128, 256, 512; the usual names of parameters. `ConvNet4` is our own.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional

from poise.representation.backbones.cifar import conv3x3, draw_kaiming
from poise.values.checks import check_one_of

Start = Literal["kaiming", "kaiming_torch_stem", "torch"]


class _Block(nn.Module):
    """(B, into, H, W) -> (B, out, H / stride, W / stride)."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(into, out, stride), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = conv3x3(out, out), nn.BatchNorm2d(out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or into != out:
            self.downsample = nn.Sequential(nn.Conv2d(into, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(self.bn2(self.conv2(inner)) + self.downsample(x), inplace=True)


class BasicResNet(nn.Module):
    """(B, 3, H, W) -> (B, 512), each at least 0.

    With `large_images` the stem is a 7 x 7 convolution of stride 2 and a pooling of stride 2; else it is a 3 x 3
    convolution that keeps the size.

    `start` says how convolutions are drawn: `kaiming`, from N(0, 2 / fan_out); `torch`, uniform in +-1 / sqrt(fan_in),
    torch's default; `kaiming_torch_stem`, by the first rule but the first of them by the second, as where the stem of a
    finished network is replaced. Raises: InputError for another.
    """

    def __init__(self, blocks: Sequence[int], *, large_images: bool, start: Start = "kaiming") -> None:
        super().__init__()
        check_one_of("start", start, get_args(Start))
        stem = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False) if large_images else conv3x3(3, 64)
        self.conv1, self.bn1 = stem, nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if large_images else nn.Identity()
        self.layer1 = _stage(64, 64, blocks[0], stride=1)
        self.layer2 = _stage(64, 128, blocks[1], stride=2)
        self.layer3 = _stage(128, 256, blocks[2], stride=2)
        self.layer4 = _stage(256, 512, blocks[3], stride=2)
        if start != "torch":
            draw_kaiming(self, mode="fan_out")
        if start == "kaiming_torch_stem":
            self.conv1.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 512)."""
        maps = self.pool(functional.relu(self.bn1(self.conv1(x)), inplace=True))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        rows: Tensor = maps.mean(dim=(2, 3))
        return rows


def _stage(into: int, out: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Block(into, out, stride), *(_Block(out, out, 1) for _ in range(blocks - 1)))


class ConvNet4(nn.Module):
    """(B, 3, H, W) -> (B, 128): four 3 x 3 convolutions of 16, 64, 128 and 128 channels, for demos on a CPU.

    Each of the first three is followed by a pooling that halves the image; the first has few channels, because at full
    size the normalisation of many takes longer than all convolutions.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 64, 128, 128)
        self.convs = nn.ModuleList(conv3x3(into, out) for into, out in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(out) for out in widths[1:])
        draw_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 128), each at least 0."""
        maps = x
        for level, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            maps = functional.relu(norm(conv(maps)), inplace=True)
            maps = functional.max_pool2d(maps, 2) if level < 3 else maps
        return maps.mean(dim=(2, 3))
