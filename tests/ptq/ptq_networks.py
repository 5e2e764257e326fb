"""Small networks and data for the tests of post-training quantization."""

from __future__ import annotations

import torch
from torch import nn

import qfx
from qfx.learn.model import QuantizedModel
from qfx.ptq.walk import float_network


class Residual(nn.Module):
    """Convolutions of all kinds, an addition, and a linear layer; input ``(batch, 3, 8, 8)``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.ReLU6())
        self.point = nn.Conv2d(6, 6, 1)
        self.grouped = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, groups=2), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(self.grouped(x + self.point(self.depthwise(x))))


def mlp() -> nn.Module:
    """Two hidden layers and a BatchNorm; input ``(batch, 7)``."""
    return nn.Sequential(
        nn.Linear(7, 12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Linear(12, 9, bias=False),
        nn.ReLU(),
        nn.Linear(9, 3),
    )


def network(name: str, seed: int = 0) -> tuple[nn.Module, list[torch.Tensor], torch.Tensor]:
    """A network with random weights and statistics, calibration batches, and other samples."""
    random = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model, shape = {"residual": (Residual(), (3, 8, 8)), "mlp": (mlp(), (7,))}[name]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for values, low, high in ((module.running_mean, -1, 1), (module.running_var, 0.3, 3)):
                assert values is not None
                values.uniform_(low, high, generator=random)
            nn.init.uniform_(module.weight, 0.2, 2.0)
            nn.init.uniform_(module.bias, -0.5, 0.5)
        if isinstance(module, nn.Linear | nn.Conv2d):
            # Channels of very different size, as trained networks have them.
            spread = torch.exp2(torch.randint(-2, 3, (len(module.weight),), generator=random).float())
            module.weight.data.mul_(spread.reshape(-1, *(1,) * (module.weight.ndim - 1)))
    x = torch.randn(24, *shape, generator=random)
    return model.eval(), list(x[:16].split(8)), x[16:]


def float_result(q: QuantizedModel, x: torch.Tensor) -> torch.Tensor:
    """What a prepared model computes with all casts off."""
    with torch.no_grad():
        return float_network(q)._qfx_execute(x, None)


def same_bits(q: QuantizedModel, x: torch.Tensor) -> bool:
    """Whether the frozen graph equals torch ``eval()`` on every bit."""
    graph = qfx.freeze(q)
    with torch.no_grad():
        return bool((q(x).double().numpy() == graph.run(x.numpy())).all())
