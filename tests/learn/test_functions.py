"""Activation functions as tables, through the base test."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.learn.test_attention import Layer


class TestActivations(Layer):
    shape = (6,)
    tolerance = 4e-3

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 6), nn.GELU(),
            nn.Linear(6, 6), nn.GELU(approximate="tanh"), nn.Linear(6, 6), nn.SiLU(), nn.Linear(6, 4),
        )  # fmt: skip


class TestMoreActivations(Layer):
    shape = (3, 4, 4)
    tolerance = 4e-3

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.Hardswish(), nn.Conv2d(4, 3, 1), nn.Hardsigmoid(),
            nn.MaxPool2d(2), nn.ELU(0.7), nn.Conv2d(3, 3, 1), nn.Softplus(), nn.CELU(1.5), nn.SELU(),
            nn.Mish(), nn.Softsign(), nn.LogSigmoid(), nn.PReLU(),
        )  # fmt: skip


class _Spelled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.fc(x))
        a = x.exp() + F.softplus(x, 2.0)
        b = (x.abs() + 0.5).reciprocal() * torch.rsqrt(a)
        c = torch.sqrt(a) - torch.log(a + 0.5).sigmoid_()
        return b + c * F.elu(x, alpha=0.5) + torch.erf(x) + x.sin() * torch.cos(x)


class TestSpellings(Layer):
    shape = (5,)
    tolerance = 4e-3

    def model(self) -> nn.Module:
        return _Spelled()
