"""Transposes that readers write around layers disappear where they can, and only there."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import qfx


def kinds(model: nn.Module, x: torch.Tensor) -> list[str]:
    """Operators of the graph in order, casts apart; the graph must equal torch."""
    q = qfx.calibrate(qfx.prepare(model, x), [x])
    g = qfx.freeze(q)
    np.testing.assert_array_equal(q(x).detach().double().numpy(), g.run(x))
    return [node.op.kind for node in g.nodes if node.op.kind not in ("input", "cast")]


def test_a_network_on_tokens_is_transposed_once_each_way() -> None:
    model = nn.Sequential(
        nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.GELU(), nn.LayerNorm(4), nn.Linear(4, 3)
    )
    found = kinds(model, torch.randn(16, 7, 6))
    assert found.count("transpose") == 2 and found[0] == found[-1] == "transpose"


def test_a_sum_of_two_transposed_branches() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.a(x) * self.b(x)).transpose(1, 2)

    # One in front of each branch; those behind them meet the last one.
    assert kinds(Model(), torch.randn(8, 3, 4)).count("transpose") == 2


def test_what_is_used_twice_stays() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            return torch.relu(y) + y

    assert kinds(Model(), torch.randn(8, 3, 4)) == ["transpose", "conv", "transpose", "relu", "add"]
