"""Networks of the benchmarks for 28x28 images: plain torch modules."""

from __future__ import annotations

import torch
from torch import nn

from qfx.demo.networks import Residual
from qfx.models.mobilenet import InvertedResidual, MobileNetV2, conv_bn_relu6


class ShortcutNet(nn.Module):
    """Two residual blocks with BatchNorm and shortcuts: input ``(batch, 1, 28, 28)``, output
    ``(batch, 10)``."""

    def __init__(self, first: int = 16, second: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, first, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.block1 = Residual(first)
        self.down = nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(second)
        self.block2 = Residual(second)
        self.fc = nn.Linear(second * 49, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block1(torch.relu(self.bn1(self.stem(x))))
        x = self.block2(torch.relu(self.bn2(self.down(x))))
        return self.fc(torch.flatten(x, 1))


class BinaryBlock(nn.Module):
    """``scale * x + bn(conv(hardtanh(x)))``: with the hardtanh cast to one bit, a binary convolution.

    The shortcut carries full numbers around it, multiplied by one constant per channel (Z. Liu et al.,
    "Bi-Real Net", arXiv:1808.00278; Y. Zhang et al., "FracBNN", arXiv:2012.12206).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sign = nn.Hardtanh()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + self.bn(self.conv(self.sign(x)))


class BinaryNet(nn.Module):
    """A network to binarize but for its stem, ``down`` and ``fc``: input ``(batch, 1, 28, 28)``, output
    ``(batch, 10)``."""

    def __init__(self, first: int = 16, second: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, first, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.block1 = BinaryBlock(first)
        self.block2 = BinaryBlock(first)
        self.down = nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(second)
        self.block3 = BinaryBlock(second)
        self.block4 = BinaryBlock(second)
        self.fc = nn.Linear(second * 49, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block2(self.block1(self.bn1(self.stem(x))))
        x = self.block4(self.block3(self.bn2(self.down(x))))
        return self.fc(torch.flatten(x, 1))


class SmallMobileNet(MobileNetV2):
    """MobileNetV2 for small images: input ``(batch, 1, 28, 28)``, output ``(batch, 10)``; six blocks, four of
    them with shortcuts."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        # Channels, channels behind it, stride, expansion.
        blocks = ((16, 16, 1, 1), (16, 24, 2, 6), (24, 24, 1, 6), (24, 32, 2, 6), *((32, 32, 1, 6),) * 2)
        self.features = nn.Sequential(
            conv_bn_relu6(1, 16, 3, 2),
            *(InvertedResidual(*block) for block in blocks),
            conv_bn_relu6(32, 128, 1),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.1), nn.Linear(128, 10))


def make(name: str) -> nn.Module:
    """A network by its name."""
    return {"ShortcutNet": ShortcutNet, "BinaryNet": BinaryNet}[name]()
