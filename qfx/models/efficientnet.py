"""EfficientNet-Lite0 (M. Tan, Q. Le, arXiv:1905.11946; Lite: no squeeze-and-excitation, ReLU6 for swish)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

#: Kernel, repeats, channels, expansion, stride of the first.
_STAGES = (
    (3, 1, 16, 1, 1), (3, 2, 24, 6, 2), (5, 2, 40, 6, 2), (3, 3, 80, 6, 2), (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2), (3, 1, 320, 6, 1),
)  # fmt: skip
_EPS = 1e-3


class _Same(nn.Conv2d):
    """A convolution that pads images of even size as TensorFlow does: an odd rest goes behind."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride, groups=groups, bias=False)
        total = kernel - stride
        self.pads = (total // 2, total - total // 2) * 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(x, self.pads))


class _Block(nn.Module):
    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.shortcut = stride == 1 and channels == out
        if expansion != 1:
            self._expand_conv = _Same(channels, inner, 1)
            self._bn0 = nn.BatchNorm2d(inner, eps=_EPS)
        self.expands = expansion != 1
        self._depthwise_conv = _Same(inner, inner, kernel, stride, inner)
        self._bn1 = nn.BatchNorm2d(inner, eps=_EPS)
        self._project_conv = _Same(inner, out, 1)
        self._bn2 = nn.BatchNorm2d(out, eps=_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.shortcut else y


class EfficientNetLite(nn.Module):
    """Input ``(batch, 3, 224, 224)`` (or another multiple of 32), output ``(batch, classes)``; names
    as in the PyPI package ``efficientnet-lite-pytorch``."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self._conv_stem = _Same(3, 32, 3, 2)
        self._bn0 = nn.BatchNorm2d(32, eps=_EPS)
        blocks = []
        channels = 32
        for kernel, repeats, out, expansion, stride in _STAGES:
            for number in range(repeats):
                blocks.append(_Block(channels, out, kernel, 1 if number else stride, expansion))
                channels = out
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = _Same(channels, 1280, 1)
        self._bn1 = nn.BatchNorm2d(1280, eps=_EPS)
        self._avg_pooling = nn.AdaptiveAvgPool2d(1)
        self._dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(1280, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self._blocks(F.relu6(self._bn0(self._conv_stem(x))))
        x = self._avg_pooling(F.relu6(self._bn1(self._conv_head(x))))
        return self._fc(self._dropout(torch.flatten(x, 1)))


def efficientnet_lite0(classes: int = 1000) -> EfficientNetLite:
    """EfficientNet-Lite0: 4.65 million parameters."""
    return EfficientNetLite(classes)
