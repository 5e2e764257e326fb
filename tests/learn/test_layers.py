"""Every supported layer and spelling through the base test."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from tests.learn.base import LayerTest


class TestLinear(LayerTest):
    shape = (6,)

    def model(self) -> nn.Module:
        return nn.Linear(6, 4)


class TestMLP(LayerTest):
    shape = (6,)

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(6, 8, bias=False),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(8, 5),
            nn.LeakyReLU(0.1),
            nn.Linear(5, 3),
        )


class TestConv2d(LayerTest):
    shape = (4, 7, 6)

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(4, 6, 3, stride=(2, 1), padding=(1, 2)),
            nn.ReLU6(),
            nn.Conv2d(6, 4, (1, 3), groups=2, dilation=(1, 2)),
            nn.Hardtanh(),
        )


class TestConv2dSame(LayerTest):
    shape = (2, 6, 5)

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(2, 4, (4, 3), padding="same", dilation=(1, 2)),
            nn.ReLU(),
            nn.Conv2d(4, 2, 3, padding="valid"),
        )


class TestDepthwise(LayerTest):
    shape = (4, 6, 6)

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(4, 8, 3, padding=1, groups=4, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.Conv2d(8, 3, 1),
            nn.BatchNorm2d(3, affine=False),
        )


class TestConv1d(LayerTest):
    shape = (3, 12)

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv1d(3, 4, 5, stride=2, padding=2),
            nn.BatchNorm1d(4),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(4, 4, 2, padding="same"),
            nn.AvgPool1d(3, 1, padding=1),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(4, 2),
        )


class TestPools(LayerTest):
    shape = (3, 9, 8)

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.MaxPool2d(3, 2, padding=1),
            nn.AvgPool2d((2, 2), stride=1, padding=1),
            nn.MaxPool2d(2, 2, ceil_mode=True),
            nn.AvgPool2d(3, 1),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Unflatten(1, (3, 1)),
            nn.Flatten(),
        )


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x
        return self.relu(y)


class TestResidual(LayerTest):
    shape = (3, 6, 6)

    def model(self) -> nn.Module:
        return nn.Sequential(_Residual(), _Residual(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))


class _Functional(nn.Module):
    """As many spellings as fit."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 2, 3, 3) * 0.3)
        self.matrix = nn.Parameter(torch.randn(5, 16) * 0.3)
        self.gain = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.register_buffer("mean", torch.tensor([0.1, -0.2]).reshape(1, 2, 1, 1))

    def forward(self, x: torch.Tensor, scale: float = 0.75) -> torch.Tensor:
        x = (x - self.mean) / 0.5
        y = F.relu(F.conv2d(x, self.weight, None, 1, 1))
        y = torch.add(y.mul(self.gain), 1.0)
        z = F.max_pool2d(y, 2).clamp(0.25, 3.0)
        w = torch.cat([F.avg_pool2d(y, 2), z], 1).sub_(0.5)
        w = F.hardtanh(w.mul(w), -0.5, 2.5)
        v = 1 - F.leaky_relu(w, 0.3)
        v = v.permute(0, 1, 3, 2).reshape(v.size(0), 8, -1).transpose(1, 2).contiguous()
        u = (v * scale).view(x.shape[0], v.shape[1] * 2, -1)
        u = torch.clip(u, max=2.0).mean(-1).flatten(1)
        u = torch.cat((u, -u), dim=1).unsqueeze(-1).squeeze(-1)
        u = F.dropout(u, 0.5, self.training)
        u = torch.relu(u) + u.square() - u.neg()
        return F.linear(u, self.matrix)


class TestFunctional(LayerTest):
    shape = (2, 4, 4)
    tolerance = 5e-3

    def model(self) -> nn.Module:
        return _Functional()


class _Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        a = F.relu(y).mean((2, 3))
        b = F.adaptive_avg_pool2d(y, (1, 1)).flatten(1)
        c = y.mean(3, keepdim=True).sum(2).squeeze(-1)
        return a * b + c


class TestMeansAndForks(LayerTest):
    shape = (2, 7, 5)

    def model(self) -> nn.Module:
        return _Pooled()


class _Shared(nn.Module):
    """One layer called twice, one activation called often, one tensor read by several."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act, self.bn = nn.Linear(5, 5), nn.ReLU(), nn.BatchNorm1d(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.act(self.fc(x))
        b = self.act(self.bn(self.fc(a)))
        return self.act(a - b) + b * a


class TestShared(LayerTest):
    shape = (5,)

    def model(self) -> nn.Module:
        return _Shared()


class _InPlace(nn.Module):
    """In-place operations whose result is read under the old name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        self.act(y)
        z = y * 0.5
        z.add_(y)
        y.mul_(2.0)
        F.relu(z - 1, inplace=True)
        return z + y


class TestInPlace(LayerTest):
    shape = (2, 3, 3)

    def model(self) -> nn.Module:
        return _InPlace()


class _SubclassedConv(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(2, 3, 3, padding=1)


class TestSubclass(LayerTest):
    shape = (2, 4, 4)

    def model(self) -> nn.Module:
        return nn.Sequential(
            _SubclassedConv(), nn.BatchNorm2d(3), nn.Identity(), nn.LeakyReLU(0.2), nn.MaxPool2d(2), nn.ReLU()
        )


class TestBatchNormFirst(LayerTest):
    """Nothing to fold into: the BatchNorm stays an affine."""

    shape = (3, 4, 4)

    def model(self) -> nn.Module:
        return nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1))


class TestNames(LayerTest):
    """Module names are free text."""

    shape = (3,)

    def model(self) -> nn.Module:
        names = ["a'; rm -rf $(x)", "module", "class", "größe", 'q"uote', "forward ", "a\\b", "new\nline"]
        layers = [(name, nn.Linear(3, 3)) for name in names]
        model = nn.Sequential(OrderedDict(layers[:4]))
        model.add_module("inner", nn.Sequential(OrderedDict(layers[4:])))
        return model
