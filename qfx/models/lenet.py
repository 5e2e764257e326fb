"""LeNet-5 with ReLU and max pooling (Y. LeCun et al., Proceedings of the IEEE 86(11), 1998)."""

from __future__ import annotations

import torch
from torch import nn


class LeNet(nn.Module):
    """Input ``(batch, 1, 28, 28)``, output ``(batch, classes)``."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


def lenet(classes: int = 10) -> LeNet:
    """LeNet-5 for 28x28 images of one channel: 61,706 parameters."""
    return LeNet(classes)
