"""The residual networks of CIFAR papers: 6n + 2 layers of 16, 32 and 64 channels on 32 x 32 images.

He et al., "Deep residual learning for image recognition" (CVPR 2016), section 4.2: a 3 x 3 stem, three stages of n
blocks, shortcuts without parameters (option A: every second pixel, new channels zero), global average pooling, 64
features. The names of the parameters are the usual ones (`conv1`, `bn1`, `layer1` to `layer3`), so that checkpoints of
papers load. The weights are drawn by Kaiming's rule over the inputs of each convolution, as long-tail papers do.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional


def conv3x3(into: int, out: int, stride: int = 1) -> nn.Conv2d:
    """A 3 x 3 convolution without bias that keeps the size up to its stride."""
    return nn.Conv2d(into, out, 3, stride=stride, padding=1, bias=False)


def draw_kaiming(module: nn.Module, mode: Literal["fan_in", "fan_out"] = "fan_in") -> None:
    """Draw the weights of every convolution from N(0, 2 / fan), by torch's global generator."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode=mode, nonlinearity="relu")


class _Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut: (B, into, H, W) -> (B, out, H / stride, W / stride)."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(into, out, stride), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = conv3x3(out, out), nn.BatchNorm2d(out)
        self.stride, self.added = stride, (out - into) // 2

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(self.bn2(self.conv2(inner)) + self._shortcut(x), inplace=True)

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1 and not self.added:
            return x
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added, self.added))


class CifarResNet(nn.Module):
    """(B, 3, H, W) -> (B, 64), each at least 0; 6 `blocks` + 2 layers, the classifier counted."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(3, 16), nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        draw_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 64)."""
        maps = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        maps = self.layer3(self.layer2(self.layer1(maps)))  # (B, 64, H / 4, W / 4)
        rows: Tensor = maps.mean(dim=(2, 3))
        return rows


def _stage(into: int, out: int, blocks: int, stride: int) -> nn.Sequential:
    later = (_Block(out, out, 1) for _ in range(blocks - 1))
    return nn.Sequential(_Block(into, out, stride), *later)
